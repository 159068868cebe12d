/* derive.c: derivatives of the pointwise operators, built out of graph calls. y is the operator's result, gy its gradient.
 * Where a factor can be infinite beside a gradient of 0 (masks, limits), `where` is used and not a product. */
#include "op/derive.h"
#include "op/op.h"
#include "op/rows.h"

wf_node *wf_fit(wf_graph *g, wf_node *x, const wf_node *in) {
    if (!x) return NULL;
    if (!wf_shape_equal(&x->shape, &in->shape)) x = wf_sum_to(g, x, &in->shape);
    return wf_cast(g, x, in->dtype);
}

wf_node *wf_constant(wf_graph *g, wf_dtype t, double v) {
    return wf_fill(g, t, (wf_shape){0}, v);
}

/* 1 - x and 1 + x */
static wf_node *one_minus(wf_graph *g, wf_node *x) {
    return wf_sub(g, wf_constant(g, x->dtype, 1), x);
}
static wf_node *one_plus(wf_graph *g, wf_node *x) {
    return wf_add_c(g, x, 1);
}

/* gy * dy/dx */
static wf_node *unary(wf_graph *g, wf_row_code code, wf_node *x, wf_node *y, wf_node *gy) {
    switch (code) {
    case WF_ROW_NEG: return wf_neg(g, gy);
    case WF_ROW_ABS: return wf_mul(g, gy, wf_sign(g, x));
    case WF_ROW_EXP: return wf_mul(g, gy, y);
    case WF_ROW_EXPM1: return wf_mul(g, gy, one_plus(g, y));
    case WF_ROW_LOG: return wf_div(g, gy, x);
    case WF_ROW_LOG1P: return wf_div(g, gy, one_plus(g, x));
    case WF_ROW_SQRT: return wf_div(g, wf_mul_c(g, gy, 0.5), y);
    case WF_ROW_RSQRT: return wf_mul(g, wf_mul_c(g, gy, -0.5), wf_mul(g, y, wf_square(g, y)));
    case WF_ROW_RECIP: return wf_neg(g, wf_mul(g, gy, wf_square(g, y)));
    case WF_ROW_SQUARE: return wf_mul(g, wf_mul_c(g, gy, 2), x);
    case WF_ROW_TANH: return wf_mul(g, gy, one_minus(g, wf_square(g, y)));
    case WF_ROW_SIGMOID: return wf_mul(g, gy, wf_mul(g, y, one_minus(g, y)));
    case WF_ROW_SOFTPLUS: return wf_mul(g, gy, wf_sigmoid(g, x));
    case WF_ROW_ERF:
        return wf_mul(g, wf_mul_c(g, gy, 1.1283791670955126), wf_exp(g, wf_neg(g, wf_square(g, x)))); /* 2/sqrt(pi) */
    case WF_ROW_SIN: return wf_mul(g, gy, wf_cos(g, x));
    case WF_ROW_COS: return wf_neg(g, wf_mul(g, gy, wf_sin(g, x)));
    default: return NULL;
    }
}

wf_status wf_vjp_unary(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    if (wf_is_float(n->in[0]->dtype)) gin[0] = unary(g, (wf_row_code)n->op->row, n->in[0], n, gout[0]);
    return wf_graph_status(g);
}

wf_status wf_vjp_immediate(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    wf_node *x = n->in[0], *gy = gout[0];
    double c = n->attr.f[0];
    if (!wf_is_float(x->dtype)) return WF_OK;
    wf_node *zero = wf_constant(g, gy->dtype, 0), *limit = wf_constant(g, x->dtype, c);
    switch (n->op->row) {
    case WF_ROW_ADD_IMM: gin[0] = gy; break;
    case WF_ROW_MUL_IMM: gin[0] = wf_mul_c(g, gy, c); break;
    case WF_ROW_MAX_IMM: gin[0] = wf_where(g, wf_lt(g, limit, x), gy, zero); break;
    case WF_ROW_MIN_IMM: gin[0] = wf_where(g, wf_lt(g, x, limit), gy, zero); break;
    case WF_ROW_POW_IMM: gin[0] = c == 0 ? NULL : wf_mul(g, wf_mul_c(g, gy, c), wf_pow_c(g, x, c - 1)); break;
    default: break;
    }
    return wf_graph_status(g);
}

/* Whole gradient where a is the chosen side of max or min, half where both are equal. */
static wf_node *chosen(wf_graph *g, wf_node *gy, wf_node *low, wf_node *high) {
    wf_node *tie = wf_where(g, wf_eq(g, low, high), wf_mul_c(g, gy, 0.5), wf_constant(g, gy->dtype, 0));
    return wf_where(g, wf_lt(g, low, high), gy, tie);
}

/* d/da a^b = b a^(b-1); d/db a^b = a^b log a, and 0 at a = 0. */
static void derive_pow(wf_graph *g, wf_node *n, wf_node *gy, wf_node **ga, wf_node **gb) {
    wf_node *a = n->in[0], *b = n->in[1];
    *ga = wf_mul(g, wf_mul(g, gy, b), wf_pow(g, a, wf_add_c(g, b, -1)));
    wf_node *zero = wf_constant(g, a->dtype, 0), *one = wf_constant(g, a->dtype, 1);
    wf_node *positive = wf_lt(g, zero, a);
    *gb = wf_mul(g, gy, wf_mul(g, n, wf_log(g, wf_where(g, positive, a, one))));
}

/* d atan2(y, x) = (x dy - y dx) / (x^2 + y^2) */
static void derive_atan2(wf_graph *g, wf_node *n, wf_node *gy, wf_node **g_y, wf_node **g_x) {
    wf_node *y = n->in[0], *x = n->in[1];
    wf_node *per = wf_div(g, gy, wf_max_c(g, wf_add(g, wf_square(g, x), wf_square(g, y)), 1e-12));
    *g_y = wf_mul(g, per, x);
    *g_x = wf_neg(g, wf_mul(g, per, y));
}

wf_status wf_vjp_binary(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    wf_node *a = n->in[0], *b = n->in[1], *gy = gout[0], *ga = NULL, *gb = NULL;
    switch (n->op->row) {
    case WF_ROW_ADD: ga = gb = gy; break;
    case WF_ROW_SUB:
        ga = gy;
        gb = wf_is_float(b->dtype) ? wf_neg(g, wf_fit(g, gy, b)) : NULL;
        break;
    case WF_ROW_MUL:
        ga = wf_is_float(a->dtype) ? wf_mul(g, gy, b) : NULL;
        gb = wf_is_float(b->dtype) ? wf_mul(g, gy, a) : NULL;
        break;
    case WF_ROW_DIV:
        ga = wf_div(g, gy, b);
        gb = wf_is_float(b->dtype) ? wf_neg(g, wf_mul(g, ga, n)) : NULL;
        break;
    case WF_ROW_MAX:
        ga = chosen(g, gy, b, a);
        gb = chosen(g, gy, a, b);
        break;
    case WF_ROW_MIN:
        ga = chosen(g, gy, a, b);
        gb = chosen(g, gy, b, a);
        break;
    case WF_ROW_POW: derive_pow(g, n, gy, &ga, &gb); break;
    case WF_ROW_ATAN2: derive_atan2(g, n, gy, &ga, &gb); break;
    default: break;
    }
    if (wf_is_float(a->dtype)) gin[0] = wf_fit(g, ga, a);
    if (wf_is_float(b->dtype)) gin[1] = wf_fit(g, gb, b);
    return wf_graph_status(g);
}

wf_status wf_vjp_where(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    wf_node *c = n->in[0], *zero = wf_constant(g, gout[0]->dtype, 0);
    if (wf_is_float(n->in[1]->dtype)) gin[1] = wf_fit(g, wf_where(g, c, gout[0], zero), n->in[1]);
    if (wf_is_float(n->in[2]->dtype)) gin[2] = wf_fit(g, wf_where(g, c, zero, gout[0]), n->in[2]);
    return wf_graph_status(g);
}

wf_status wf_vjp_copy(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    if (wf_is_float(n->in[0]->dtype) && wf_is_float(n->dtype)) gin[0] = wf_cast(g, gout[0], n->in[0]->dtype);
    return wf_graph_status(g);
}
