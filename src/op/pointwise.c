/* pointwise.c: arithmetic, comparison and conversion by element: the operator table, shape rules, costs and builders.
 * Derivatives are in derive.c, constants and random numbers in generate.c. All of them run as row instructions.
 *
 * Cost: one FLOP for each element of the result, whatever the function (a transcendental one counts 1 like an addition);
 * copies and conversions count none.
 */
#include "op/op.h"
#include "op/rows.h"
#include "op/derive.h"
#include "op/view.h"

#include <string.h>

wf_dtype wf_promote(wf_dtype a, wf_dtype b) {
    if (a == b) return a;
    bool fa = wf_is_float(a), fb = wf_is_float(b);
    if (fa != fb) return fa ? a : b;
    if (!fa) return WF_I32;
    return a == WF_F64 || b == WF_F64 ? WF_F64 : WF_F32;
}

static wf_status infer_shape(wf_node *n) {
    wf_shape s = {0};
    for (int k = 0; k < n->n_in; k++) {
        const wf_shape *a = &n->in[k]->shape;
        if (a->rank > s.rank) s.rank = a->rank;
    }
    for (int i = 0; i < s.rank; i++) s.dim[i] = 1;
    for (int k = 0; k < n->n_in; k++) {
        const wf_shape *a = &n->in[k]->shape;
        for (int i = 0; i < a->rank; i++) {
            int64_t *d = &s.dim[i + s.rank - a->rank];
            if (a->dim[i] == 1 || a->dim[i] == *d) continue;
            if (*d != 1) {
                char t[3][96];
                for (int j = 0; j < 3; j++) wf_shape_text(j < n->n_in ? &n->in[j]->shape : &s, t[j]);
                return wf_fail(WF_EINVAL,
                               "%s: shapes %s%s%s%s%s do not broadcast (sizes of an axis must be equal or 1, axes are aligned "
                               "from the last)",
                               n->op->name, t[0], n->n_in > 1 ? ", " : "", n->n_in > 1 ? t[1] : "", n->n_in > 2 ? ", " : "",
                               n->n_in > 2 ? t[2] : "");
            }
            *d = a->dim[i];
        }
    }
    n->shape = s;
    return WF_OK;
}

/* Any dtype. */
static wf_status infer_any(wf_node *n) {
    n->dtype = n->in[0]->dtype;
    for (int k = 1; k < n->n_in; k++) n->dtype = wf_promote(n->dtype, n->in[k]->dtype);
    return infer_shape(n);
}

/* Functions that have no sense on integers. */
static wf_status infer_float(wf_node *n) {
    for (int k = 0; k < n->n_in; k++)
        if (!wf_is_float(n->in[k]->dtype))
            return wf_fail(WF_EINVAL, "%s: takes floating-point input, not %s; convert with wf_cast first", n->op->name,
                           wf_dtype_name(n->in[k]->dtype));
    return infer_any(n);
}

static wf_status infer_where(wf_node *n) {
    n->dtype = wf_promote(n->in[1]->dtype, n->in[2]->dtype);
    return infer_shape(n);
}

/* attr.i[0]: the new dtype + 1, or 0 for a copy. */
static wf_status infer_copy(wf_node *n) {
    n->dtype = n->attr.i[0] ? (wf_dtype)(n->attr.i[0] - 1) : n->in[0]->dtype;
    n->shape = n->in[0]->shape;
    return WF_OK;
}

void wf_cost_move(const wf_node *n, wf_cost *c) {
    *c = (wf_cost){.bytes_written = (double)wf_shape_count(&n->shape) * (double)wf_dtype_size(n->dtype)};
    for (int k = 0; k < n->n_in; k++) {
        const wf_node *x = n->in[k];
        double elements = 1;
        for (int i = 0; i < x->shape.rank; i++)
            if (x->stride[i]) elements *= (double)x->shape.dim[i];
        c->bytes_read += elements * (double)wf_dtype_size(x->dtype);
    }
}

void wf_cost_pointwise(const wf_node *n, wf_cost *c) {
    wf_cost_move(n, c);
    c->flops = (double)wf_shape_count(&n->shape);
}

#define ROW_OP(code_, name_, infer_, vjp_)                                                                                     \
    [code_] = {.name = name_,                                                                                                  \
               .flags = WF_OP_ROW | WF_OP_STRIDED,                                                                             \
               .row = code_,                                                                                                   \
               .infer = infer_,                                                                                                \
               .vjp = vjp_,                                                                                                    \
               .cost = wf_cost_pointwise}

static const wf_op table[WF_ROW_CODES] = {
    ROW_OP(WF_ROW_NEG, "neg", infer_any, wf_vjp_unary),
    ROW_OP(WF_ROW_ABS, "abs", infer_any, wf_vjp_unary),
    ROW_OP(WF_ROW_SIGN, "sign", infer_any, NULL),
    ROW_OP(WF_ROW_EXP, "exp", infer_float, wf_vjp_unary),
    ROW_OP(WF_ROW_EXPM1, "expm1", infer_float, wf_vjp_unary),
    ROW_OP(WF_ROW_LOG, "log", infer_float, wf_vjp_unary),
    ROW_OP(WF_ROW_LOG1P, "log1p", infer_float, wf_vjp_unary),
    ROW_OP(WF_ROW_SQRT, "sqrt", infer_float, wf_vjp_unary),
    ROW_OP(WF_ROW_RSQRT, "rsqrt", infer_float, wf_vjp_unary),
    ROW_OP(WF_ROW_RECIP, "recip", infer_float, wf_vjp_unary),
    ROW_OP(WF_ROW_SQUARE, "square", infer_any, wf_vjp_unary),
    ROW_OP(WF_ROW_TANH, "tanh", infer_float, wf_vjp_unary),
    ROW_OP(WF_ROW_SIGMOID, "sigmoid", infer_float, wf_vjp_unary),
    ROW_OP(WF_ROW_SOFTPLUS, "softplus", infer_float, wf_vjp_unary),
    ROW_OP(WF_ROW_ERF, "erf", infer_float, wf_vjp_unary),
    ROW_OP(WF_ROW_SIN, "sin", infer_float, wf_vjp_unary),
    ROW_OP(WF_ROW_COS, "cos", infer_float, wf_vjp_unary),
    ROW_OP(WF_ROW_FLOOR, "floor", infer_any, NULL),
    ROW_OP(WF_ROW_ROUND, "round", infer_any, NULL),
    ROW_OP(WF_ROW_IS_FINITE, "is_finite", infer_any, NULL),
    ROW_OP(WF_ROW_ADD_IMM, "add_c", infer_any, wf_vjp_immediate),
    ROW_OP(WF_ROW_MUL_IMM, "mul_c", infer_any, wf_vjp_immediate),
    ROW_OP(WF_ROW_MAX_IMM, "max_c", infer_any, wf_vjp_immediate),
    ROW_OP(WF_ROW_MIN_IMM, "min_c", infer_any, wf_vjp_immediate),
    ROW_OP(WF_ROW_POW_IMM, "pow_c", infer_float, wf_vjp_immediate),
    ROW_OP(WF_ROW_ADD, "add", infer_any, wf_vjp_binary),
    ROW_OP(WF_ROW_SUB, "sub", infer_any, wf_vjp_binary),
    ROW_OP(WF_ROW_MUL, "mul", infer_any, wf_vjp_binary),
    ROW_OP(WF_ROW_DIV, "div", infer_any, wf_vjp_binary),
    ROW_OP(WF_ROW_MAX, "max", infer_any, wf_vjp_binary),
    ROW_OP(WF_ROW_MIN, "min", infer_any, wf_vjp_binary),
    ROW_OP(WF_ROW_POW, "pow", infer_float, wf_vjp_binary),
    ROW_OP(WF_ROW_ATAN2, "atan2", infer_float, wf_vjp_binary),
    ROW_OP(WF_ROW_LT, "lt", infer_any, NULL),
    ROW_OP(WF_ROW_LE, "le", infer_any, NULL),
    ROW_OP(WF_ROW_EQ, "eq", infer_any, NULL),
    ROW_OP(WF_ROW_NE, "ne", infer_any, NULL),
    ROW_OP(WF_ROW_WHERE, "where", infer_where, wf_vjp_where),
};

/* A copy may be a conversion of a leaf, which is done again where it is needed instead of being kept. */
static const wf_op copy_op = {.name = "copy",
                              .flags = WF_OP_ROW | WF_OP_STRIDED,
                              .row = WF_ROW_COPY,
                              .infer = infer_copy,
                              .vjp = wf_vjp_copy,
                              .cost = wf_cost_move};
static const wf_op cast_leaf_op = {.name = "cast",
                                   .flags = WF_OP_ROW | WF_OP_STRIDED | WF_OP_CHEAP,
                                   .row = WF_ROW_COPY,
                                   .infer = infer_copy,
                                   .vjp = wf_vjp_copy,
                                   .cost = wf_cost_move};

const wf_op *wf_row_op(wf_row_code code) {
    if (code == WF_ROW_COPY) return &copy_op;
    return code > WF_ROW_NONE && code < WF_ROW_CODES && table[code].name ? &table[code] : NULL;
}

/* Of an operand that is a small one repeated (the gradient of a sum is), the result is computed once and repeated itself. */
static wf_node *unary(wf_graph *g, wf_row_code code, wf_node *a) {
    wf_node *one = wf_repeated(a);
    if (one) return wf_expand(g, unary(g, code, one), a->shape);
    return wf_node_new(g, &table[code], &a, 1, NULL);
}

static wf_node *immediate(wf_graph *g, wf_row_code code, wf_node *a, double c) {
    wf_attr attr = {.f = {c}};
    wf_node *one = wf_repeated(a);
    if (one) return wf_expand(g, immediate(g, code, one, c), a->shape);
    return wf_node_new(g, &table[code], &a, 1, &attr);
}

static bool broadcast_shape(wf_node *a, wf_node *b, wf_shape *s) {
    wf_node n = {.op = &table[WF_ROW_ADD], .n_in = 2, .in = (wf_node *[]){a, b}};
    bool ok = infer_shape(&n) == WF_OK;
    *s = n.shape;
    return ok;
}

static wf_node *binary(wf_graph *g, wf_row_code code, wf_node *a, wf_node *b) {
    wf_node *x = wf_repeated(a), *y = wf_repeated(b);
    wf_shape full, small;
    if (a && b && (x || y) && broadcast_shape(a, b, &full) && broadcast_shape(x ? x : a, y ? y : b, &small) &&
        wf_shape_count(&small) < wf_shape_count(&full))
        return wf_expand(g, binary(g, code, x ? x : a, y ? y : b), full);
    return wf_node_new(g, &table[code], (wf_node *[]){a, b}, 2, NULL);
}

wf_node *wf_add(wf_graph *g, wf_node *a, wf_node *b) {
    return binary(g, WF_ROW_ADD, a, b);
}
wf_node *wf_sub(wf_graph *g, wf_node *a, wf_node *b) {
    return binary(g, WF_ROW_SUB, a, b);
}
wf_node *wf_mul(wf_graph *g, wf_node *a, wf_node *b) {
    return binary(g, WF_ROW_MUL, a, b);
}
wf_node *wf_div(wf_graph *g, wf_node *a, wf_node *b) {
    return binary(g, WF_ROW_DIV, a, b);
}
wf_node *wf_max(wf_graph *g, wf_node *a, wf_node *b) {
    return binary(g, WF_ROW_MAX, a, b);
}
wf_node *wf_min(wf_graph *g, wf_node *a, wf_node *b) {
    return binary(g, WF_ROW_MIN, a, b);
}
wf_node *wf_pow(wf_graph *g, wf_node *a, wf_node *b) {
    return binary(g, WF_ROW_POW, a, b);
}
wf_node *wf_atan2(wf_graph *g, wf_node *y, wf_node *x) {
    return binary(g, WF_ROW_ATAN2, y, x);
}
wf_node *wf_lt(wf_graph *g, wf_node *a, wf_node *b) {
    return binary(g, WF_ROW_LT, a, b);
}
wf_node *wf_le(wf_graph *g, wf_node *a, wf_node *b) {
    return binary(g, WF_ROW_LE, a, b);
}
wf_node *wf_eq(wf_graph *g, wf_node *a, wf_node *b) {
    return binary(g, WF_ROW_EQ, a, b);
}
wf_node *wf_ne(wf_graph *g, wf_node *a, wf_node *b) {
    return binary(g, WF_ROW_NE, a, b);
}

wf_node *wf_neg(wf_graph *g, wf_node *a) {
    return unary(g, WF_ROW_NEG, a);
}
wf_node *wf_abs(wf_graph *g, wf_node *a) {
    return unary(g, WF_ROW_ABS, a);
}
wf_node *wf_sign(wf_graph *g, wf_node *a) {
    return unary(g, WF_ROW_SIGN, a);
}
wf_node *wf_exp(wf_graph *g, wf_node *a) {
    return unary(g, WF_ROW_EXP, a);
}
wf_node *wf_expm1(wf_graph *g, wf_node *a) {
    return unary(g, WF_ROW_EXPM1, a);
}
wf_node *wf_log(wf_graph *g, wf_node *a) {
    return unary(g, WF_ROW_LOG, a);
}
wf_node *wf_log1p(wf_graph *g, wf_node *a) {
    return unary(g, WF_ROW_LOG1P, a);
}
wf_node *wf_sqrt(wf_graph *g, wf_node *a) {
    return unary(g, WF_ROW_SQRT, a);
}
wf_node *wf_rsqrt(wf_graph *g, wf_node *a) {
    return unary(g, WF_ROW_RSQRT, a);
}
wf_node *wf_recip(wf_graph *g, wf_node *a) {
    return unary(g, WF_ROW_RECIP, a);
}
wf_node *wf_square(wf_graph *g, wf_node *a) {
    return unary(g, WF_ROW_SQUARE, a);
}
wf_node *wf_tanh(wf_graph *g, wf_node *a) {
    return unary(g, WF_ROW_TANH, a);
}
wf_node *wf_sigmoid(wf_graph *g, wf_node *a) {
    return unary(g, WF_ROW_SIGMOID, a);
}
wf_node *wf_softplus(wf_graph *g, wf_node *a) {
    return unary(g, WF_ROW_SOFTPLUS, a);
}
wf_node *wf_erf(wf_graph *g, wf_node *a) {
    return unary(g, WF_ROW_ERF, a);
}
wf_node *wf_sin(wf_graph *g, wf_node *a) {
    return unary(g, WF_ROW_SIN, a);
}
wf_node *wf_cos(wf_graph *g, wf_node *a) {
    return unary(g, WF_ROW_COS, a);
}
wf_node *wf_floor(wf_graph *g, wf_node *a) {
    return unary(g, WF_ROW_FLOOR, a);
}
wf_node *wf_round(wf_graph *g, wf_node *a) {
    return unary(g, WF_ROW_ROUND, a);
}
wf_node *wf_is_finite(wf_graph *g, wf_node *a) {
    return unary(g, WF_ROW_IS_FINITE, a);
}

wf_node *wf_add_c(wf_graph *g, wf_node *a, double c) {
    return c == 0 ? a : immediate(g, WF_ROW_ADD_IMM, a, c);
}
wf_node *wf_mul_c(wf_graph *g, wf_node *a, double c) {
    return c == 1 ? a : immediate(g, WF_ROW_MUL_IMM, a, c);
}
wf_node *wf_max_c(wf_graph *g, wf_node *a, double c) {
    return immediate(g, WF_ROW_MAX_IMM, a, c);
}
wf_node *wf_min_c(wf_graph *g, wf_node *a, double c) {
    return immediate(g, WF_ROW_MIN_IMM, a, c);
}

wf_node *wf_pow_c(wf_graph *g, wf_node *a, double c) {
    if (c == 1) return a;
    if (c == 2) return wf_square(g, a);
    if (c == 3) return wf_mul(g, wf_square(g, a), a);
    if (c == 0.5) return wf_sqrt(g, a);
    if (c == -1) return wf_recip(g, a);
    if (c == -0.5) return wf_rsqrt(g, a);
    return immediate(g, WF_ROW_POW_IMM, a, c);
}

wf_node *wf_clamp(wf_graph *g, wf_node *a, double lo, double hi) {
    if (lo > hi) return wf_graph_fail(g, WF_EINVAL, "clamp: lower limit %g is above the upper limit %g", lo, hi);
    if (!a) return NULL;
    wf_node *low = wf_constant(g, a->dtype, lo), *high = wf_constant(g, a->dtype, hi);
    return wf_where(g, wf_lt(g, a, low), low, wf_where(g, wf_lt(g, high, a), high, a)); /* NaN stays; gradient at the limits */
}

wf_node *wf_where(wf_graph *g, wf_node *c, wf_node *a, wf_node *b) {
    return wf_node_new(g, &table[WF_ROW_WHERE], (wf_node *[]){c, a, b}, 3, NULL);
}

wf_node *wf_cast(wf_graph *g, wf_node *x, wf_dtype t) {
    if (!x || x->dtype == t) return x;
    if ((unsigned)t >= WF_DTYPES) return wf_graph_fail(g, WF_EINVAL, "cast: no dtype has the number %d", (int)t);
    wf_attr attr = {.i = {(int64_t)t + 1}};
    return wf_node_new(g, x->base->leaf ? &cast_leaf_op : &copy_op, &x, 1, &attr);
}

wf_node *wf_contiguous(wf_graph *g, wf_node *x) {
    if (!x || (wf_is_dense(x) && !wf_is_view(x))) return x;
    wf_attr attr = {0};
    return wf_node_new(g, &copy_op, &x, 1, &attr);
}
