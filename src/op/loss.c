/* loss.c: cross-entropy of rows of logits, fused: no probabilities are stored.
 *
 *     p = softmax(x),  t = (1 - s) onehot(target) + s / V,  loss = -sum_j t_j log p_j = lse(x) - (1-s) x_target - (s/V) sum_j x_j
 *
 * Rows with a negative target count nothing: loss 0, gradient 0. Output 0: loss [..]; output 1: lse [..], which the backward
 * operator reads. FLOPs by definition: forward 4 an entry (max, subtract, exp, add; 5 with smoothing), backward 3 (subtract, exp,
 * multiply; 4 with smoothing).
 */
#include "op/loss_rows.h"
#include "op/move.h"
#include "op/op.h"
#include "op/simd.h"

#include <math.h>
#include <string.h>

static const wf_loss_rows *row_kernels(void) {
#if defined(__x86_64__)
    switch (wf_isa()) {
    case WF_ISA_AVX512BF16: return &wf_loss_rows_avx512bf16;
    case WF_ISA_AVX512: return &wf_loss_rows_avx512;
    case WF_ISA_AVX2: return &wf_loss_rows_avx2;
    default: break;
    }
#endif
    return &wf_loss_rows_generic;
}

static int64_t classes(const wf_node *logits) {
    return logits->shape.dim[logits->shape.rank - 1];
}

/* ---- forward: attr.f[0] = smoothing ---- */
static wf_status loss_infer(wf_node *n) {
    const wf_node *x = n->in[0], *t = n->in[1];
    char a[96], b[96];
    bool fits = x->shape.rank >= 1 && t->shape.rank == x->shape.rank - 1;
    for (int k = 0; fits && k < t->shape.rank; k++) fits = t->shape.dim[k] == x->shape.dim[k];
    if (!fits || t->dtype != WF_I32 || !wf_is_float(x->dtype))
        return wf_fail(WF_EINVAL, "cross_entropy: logits [.., V] and int32 targets [..] expected, not %s %s and %s %s",
                       wf_dtype_name(x->dtype), wf_shape_text(&x->shape, a), wf_dtype_name(t->dtype),
                       wf_shape_text(&t->shape, b));
    if (!(n->attr.f[0] >= 0 && n->attr.f[0] < 1))
        return wf_fail(WF_EINVAL, "cross_entropy: smoothing must be in [0, 1), not %g", n->attr.f[0]);
    n->dtype = x->dtype == WF_F64 ? WF_F64 : WF_F32;
    n->shape = t->shape;
    return WF_OK;
}

static wf_status loss_infer_more(const wf_node *n, int k, wf_dtype *t, wf_shape *s) {
    (void)k;
    *t = n->dtype;
    *s = n->shape;
    return WF_OK;
}

static double lse_f64(const double *x, int64_t V, double *sum) {
    double m = -INFINITY, s = 0;
    *sum = 0;
    for (int64_t j = 0; j < V; j++) {
        m = x[j] > m ? x[j] : m;
        *sum += x[j];
    }
    if (m == -INFINITY) m = 0;
    for (int64_t j = 0; j < V; j++) s += exp(x[j] - m);
    return m + log(s);
}

static wf_status loss_forward(const wf_call *c) {
    const wf_node *n = c->node, *x = n->in[0];
    const int32_t *target = c->in[1];
    const wf_loss_rows *rows = row_kernels();
    int64_t m = wf_shape_count(&n->shape), V = classes(x);
    double smooth = n->attr.f[0];
    size_t size = wf_dtype_size(x->dtype);
    WF_TRY(wf_check_indices(n, target, m, INT32_MIN, V));
    int workers = wf_workers((double)(m * V) * 16);
#pragma omp parallel for schedule(static) num_threads(workers) if (workers > 1)
    for (int64_t r = 0; r < m; r++) {
        const char *row = (const char *)c->in[0] + (size_t)(r * V) * size;
        double sum = 0, lse, loss = 0;
        if (x->dtype == WF_F64)
            lse = lse_f64((const double *)row, V, &sum);
        else
            lse = rows->lse(row, x->dtype == WF_BF16, V, smooth > 0 ? &sum : NULL);
        if (target[r] >= 0) {
            int64_t t = target[r];
            double hit = x->dtype == WF_F64    ? ((const double *)row)[t]
                         : x->dtype == WF_BF16 ? wf_bf16_to_f32(((const uint16_t *)row)[t])
                                               : ((const float *)row)[t];
            loss = lse - (1 - smooth) * hit;
            if (smooth > 0) loss -= smooth / (double)V * sum;
        }
        if (n->dtype == WF_F64) {
            ((double *)c->out[0])[r] = loss;
            ((double *)c->out[1])[r] = lse;
        } else {
            ((float *)c->out[0])[r] = (float)loss;
            ((float *)c->out[1])[r] = (float)lse;
        }
    }
    return WF_OK;
}

static void loss_cost(const wf_node *n, wf_cost *c) {
    double rows = (double)wf_shape_count(&n->shape), x = (double)wf_shape_count(&n->in[0]->shape);
    c->flops = x * (n->attr.f[0] > 0 ? 5 : 4);
    c->bytes_read = x * (double)wf_dtype_size(n->in[0]->dtype) + 4 * rows;
    c->bytes_written = 2 * rows * (double)wf_dtype_size(n->dtype);
}

/* ---- backward: in = {logits, target, lse, gradient of the loss}; attr.f[0] = smoothing ---- */
static wf_status slope_infer(wf_node *n) {
    n->dtype = n->in[0]->dtype;
    n->shape = n->in[0]->shape;
    return WF_OK;
}

static void slope_row_f64(double *dx, const double *x, int64_t V, double lse, double scale, double shift) {
    for (int64_t j = 0; j < V; j++) dx[j] = scale * (exp(x[j] - lse) - shift);
}

/* Subtract `v` from entry t of a row in dtype `type`. */
static void take_off(wf_dtype type, void *row, int64_t t, double v) {
    if (type == WF_F64)
        ((double *)row)[t] -= v;
    else if (type == WF_F32)
        ((float *)row)[t] -= (float)v;
}

static wf_status slope_forward(const wf_call *c) {
    const wf_node *n = c->node;
    const int32_t *target = c->in[1];
    const wf_loss_rows *rows = row_kernels();
    int64_t V = classes(n), m = wf_shape_count(&n->in[1]->shape);
    double smooth = n->attr.f[0], shift = smooth / (double)V;
    size_t bytes = (size_t)V * wf_dtype_size(n->dtype);
    WF_TRY(wf_check_indices(n, target, m, INT32_MIN, V));
    int workers = wf_workers((double)(m * V) * 16);
#pragma omp parallel for schedule(static) num_threads(workers) if (workers > 1)
    for (int64_t r = 0; r < m; r++) {
        const char *x = (const char *)c->in[0] + (size_t)r * bytes;
        char *dx = (char *)c->out[0] + (size_t)r * bytes;
        int64_t t = target[r];
        if (t < 0) {
            memset(dx, 0, bytes);
        } else if (n->dtype == WF_F64) {
            double scale = ((const double *)c->in[3])[r];
            slope_row_f64((double *)dx, (const double *)x, V, ((const double *)c->in[2])[r], scale, shift);
            take_off(WF_F64, dx, t, scale * (1 - smooth));
        } else {
            float scale = ((const float *)c->in[3])[r], lse = ((const float *)c->in[2])[r];
            rows->gradient(dx, x, n->dtype == WF_BF16, V, lse, scale, (float)shift);
            take_off(n->dtype, dx, t, scale * (1 - smooth));
            if (n->dtype == WF_BF16) /* one rounding, also where the target is */
                ((uint16_t *)dx)[t] = wf_f32_to_bf16(
                    scale * (expf(wf_bf16_to_f32(((const uint16_t *)x)[t]) - lse) - (float)shift - (float)(1 - smooth)));
        }
    }
    return WF_OK;
}

static void slope_cost(const wf_node *n, wf_cost *c) {
    double rows = (double)wf_shape_count(&n->in[1]->shape), x = (double)wf_shape_count(&n->shape);
    c->flops = x * (n->attr.f[0] > 0 ? 4 : 3);
    c->bytes_written = x * (double)wf_dtype_size(n->dtype);
    c->bytes_read = c->bytes_written + 4 * rows + 2 * rows * (double)wf_dtype_size(n->in[2]->dtype);
}

/* p = e^(x - lse) in the dtype of lse, [.., V] */
static wf_node *probabilities(wf_graph *g, wf_node *x, wf_node *lse) {
    return wf_exp(g, wf_sub(g, wf_cast(g, x, lse->dtype), wf_unsqueeze(g, lse, lse->shape.rank)));
}

/* dx = g valid (p - t) with p = e^(x - lse), as a function of x, lse and g: its three partial derivatives. */
static wf_status slope_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    if (!gout[0]) return WF_OK;
    wf_node *x = n->in[0], *target = n->in[1], *lse = n->in[2];
    wf_dtype f = lse->dtype;
    int last = x->shape.rank - 1;
    double smooth = n->attr.f[0], V = (double)classes(x);
    wf_node *valid = wf_le(g, wf_fill(g, f, (wf_shape){.rank = 0}, 0), wf_cast(g, target, f));
    wf_node *p = probabilities(g, x, lse);
    wf_node *cot = wf_mul(g, wf_cast(g, gout[0], f), wf_unsqueeze(g, valid, last)); /* masked once, serves all three */
    wf_node *t = wf_add_c(g, wf_mul_c(g, wf_one_hot(g, target, (int64_t)V, f), 1 - smooth), smooth / V);
    wf_node *cp = wf_mul(g, wf_mul(g, cot, wf_unsqueeze(g, n->in[3], last)), p);
    gin[0] = wf_cast(g, cp, x->dtype);
    gin[2] = wf_neg(g, wf_sum(g, cp, 1u << last, false));
    gin[3] = wf_sum(g, wf_mul(g, cot, wf_sub(g, p, t)), 1u << last, false);
    return gin[0] && gin[2] && gin[3] ? WF_OK : wf_graph_status(g);
}

static const wf_op slope_op = {
    .name = "cross_entropy_backward", .infer = slope_infer, .forward = slope_forward, .vjp = slope_vjp, .cost = slope_cost};

static wf_status loss_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    wf_node *x = n->in[0], *lse = wf_output(n, 1), *dx = NULL;
    if (gout[0]) {
        dx = wf_node_new(g, &slope_op, (wf_node *[]){x, n->in[1], lse, gout[0]}, 4, &n->attr);
        if (!dx) return wf_graph_status(g);
    }
    if (gout[1]) { /* d lse / dx = p */
        wf_node *d = wf_mul(g, wf_unsqueeze(g, gout[1], gout[1]->shape.rank), probabilities(g, x, lse));
        d = wf_cast(g, d, x->dtype);
        dx = dx ? wf_add(g, dx, d) : d;
        if (!dx) return wf_graph_status(g);
    }
    gin[0] = dx;
    return WF_OK;
}

static const wf_op loss_op = {.name = "cross_entropy",
                              .n_out = 2,
                              .infer = loss_infer,
                              .infer_more = loss_infer_more,
                              .forward = loss_forward,
                              .vjp = loss_vjp,
                              .cost = loss_cost};

wf_node *wf_cross_entropy(wf_graph *g, wf_node *logits, wf_node *target, double smoothing) {
    wf_attr a = {.f = {smoothing}};
    return wf_node_new(g, &loss_op, (wf_node *[]){logits, target}, 2, &a);
}
