/* matmul.c: the matrix product as an operator: shapes, derivative, cost, and which kernel runs it.
 *
 *     few rows (decoding)                     gemv.c     every weight read once
 *     bfloat16, int8 with instructions for it dnn_product.c  oneDNN in fixed blocks
 *     everything else up to float32           gemm.c     packed and tiled, this engine's own
 *     float64                                 matmul64.c plain loops, for checking
 *
 * The engine's own product runs float32 because it is measured at least as fast as oneDNN (bench/matmul.c prints both), fuses
 * bias and conversions into packing and tiles, and its result does not depend on the number of threads. The environment
 * variable WEFT_MATMUL (own | onednn) decides otherwise, for measuring.
 */
#include "op/op.h"
#include "op/dnn.h"
#include "op/dnn_product.h"
#include "op/gemm.h"
#include "op/gemv.h"
#include "op/matmul64.h"
#include <stdlib.h>
#include <string.h>

static bool is_byte(wf_dtype t) {
    return t == WF_I8 || t == WF_U8;
}

/* ---- shape rule: in a [.., M,K], b [.., K,N], bias [N] (optional); attr.i[0]: result dtype ---- */

static wf_status bad(const wf_node *n, const char *why) {
    char a[96], b[96];
    return wf_fail(WF_EINVAL, "matmul: %s x %s: %s", wf_shape_text(&n->in[0]->shape, a), wf_shape_text(&n->in[1]->shape, b),
                   why);
}

static wf_status infer_type(wf_node *n) {
    wf_dtype a = n->in[0]->dtype, b = n->in[1]->dtype, out = (wf_dtype)n->attr.i[0];
    bool fits;
    if (is_byte(a))
        fits = b == WF_I8 && out == WF_I32 && n->n_in == 2;
    else if (a == WF_F64 || b == WF_F64)
        fits = a == b && out == WF_F64;
    else
        fits = wf_is_float(a) && wf_is_float(b) && (out == WF_F32 || out == WF_BF16);
    if (fits && n->n_in == 3) fits = wf_is_float(n->in[2]->dtype) && (n->in[2]->dtype == WF_F64) == (out == WF_F64);
    if (!fits)
        return wf_fail(WF_EINVAL,
                       "matmul: %s x %s to %s is not offered; floats give float32 or bfloat16 (float64 only among themselves), "
                       "int8 or uint8 x int8 gives int32",
                       wf_dtype_name(a), wf_dtype_name(b), wf_dtype_name(out));
    n->dtype = out;
    return WF_OK;
}

static wf_status infer(wf_node *n) {
    const wf_shape *a = &n->in[0]->shape, *b = &n->in[1]->shape;
    if (a->rank < 2 || b->rank < 2) return bad(n, "both need at least 2 axes");
    if (a->dim[a->rank - 1] != b->dim[b->rank - 2])
        return bad(n, "the last axis of the first must equal the last but one of the second");
    WF_TRY(infer_type(n));
    wf_shape *s = &n->shape;
    s->rank = a->rank > b->rank ? a->rank : b->rank;
    for (int i = 0; i < s->rank - 2; i++) {
        int ai = i - (s->rank - a->rank), bi = i - (s->rank - b->rank);
        int64_t da = ai >= 0 ? a->dim[ai] : 1, db = bi >= 0 ? b->dim[bi] : 1;
        if (da != db && da != 1 && db != 1) return bad(n, "leading axes must be equal or 1");
        s->dim[i] = da == 1 ? db : da;
    }
    s->dim[s->rank - 2] = a->dim[a->rank - 2];
    s->dim[s->rank - 1] = b->dim[b->rank - 1];
    if (n->n_in == 3 && (n->in[2]->shape.rank != 1 || n->in[2]->shape.dim[0] != s->dim[s->rank - 1])) {
        char t[96];
        return wf_fail(WF_EINVAL, "matmul: bias is %s, must be [%lld]", wf_shape_text(&n->in[2]->shape, t),
                       (long long)s->dim[s->rank - 1]);
    }
    return WF_OK;
}

/* ---- from node to product ---- */

static int64_t batch_stride(const wf_node *x, int axis) {
    return axis < 0 || x->shape.dim[axis] == 1 ? 0 : x->stride[axis];
}

/* Leading axes of a are rows of one product when b is the same for all of them and they follow each other evenly. */
static void fold_axes(wf_product *p) {
    while (p->n_axes > 0) {
        int x = p->n_axes - 1;
        if (p->b_bs[x] != 0 || (p->m != 1 && p->a_bs[x] != p->m * p->a_rs)) return;
        if (p->m == 1) p->a_rs = p->a_bs[x];
        p->m *= p->dim[x];
        p->batch /= p->dim[x];
        p->n_axes--;
    }
}

static void describe(const wf_node *n, wf_product *p) {
    const wf_node *a = n->in[0], *b = n->in[1];
    int r = n->shape.rank, ar = a->shape.rank, br = b->shape.rank;
    memset(p, 0, sizeof *p);
    p->m = n->shape.dim[r - 2], p->n = n->shape.dim[r - 1], p->k = a->shape.dim[ar - 1];
    p->a_type = a->dtype, p->b_type = b->dtype, p->c_type = n->dtype;
    p->a_rs = a->stride[ar - 2], p->a_cs = p->k == 1 ? 1 : a->stride[ar - 1];
    p->b_rs = p->k == 1 ? p->n : b->stride[br - 2], p->b_cs = b->stride[br - 1];
    p->bias = n->n_in == 3;
    if (p->bias) p->bias_type = n->in[2]->dtype;
    p->batch = 1;
    for (int i = 0; i < r - 2; i++) {
        if (n->shape.dim[i] == 1) continue;
        int x = p->n_axes++;
        p->dim[x] = n->shape.dim[i];
        p->a_bs[x] = batch_stride(a, i - (r - ar));
        p->b_bs[x] = batch_stride(b, i - (r - br));
        p->batch *= p->dim[x];
    }
    if (p->batch > 0) fold_axes(p);
}

/* ---- kernels ---- */

typedef enum product_kind { PRODUCT_F64, PRODUCT_GEMV, PRODUCT_OWN, PRODUCT_DNN } product_kind;
typedef struct product_state {
    product_kind kind;
    wf_product product;
    wf_gemv_plan gemv;
    wf_gemm_plan gemm;
    wf_dnn_product *dnn;
    size_t scratch;
} product_state;

/* Whether oneDNN is the faster (and exact) choice here. */
static bool prefers_dnn(const wf_product *p) {
    const char *wish = getenv("WEFT_MATMUL");
    if (wish && !strcmp(wish, "own")) return false;
    if (p->c_type == WF_I32) return wf_dnn_int8_exact();
    if (p->a_type != p->b_type) return false;
    if (wish && !strcmp(wish, "onednn")) return true;
    return p->a_type == WF_BF16 && wf_dnn_bf16_native();
}

static void choose(const wf_node *n, product_state *s) {
    int threads = wf_threads();
    wf_product *p = &s->product;
    describe(n, p);
    if (p->c_type == WF_F64) {
        s->kind = PRODUCT_F64;
    } else if (wf_gemv_plan_make(&s->gemv, p, threads)) {
        s->kind = PRODUCT_GEMV;
        s->scratch = s->gemv.scratch;
    } else if (prefers_dnn(p) && (s->dnn = wf_dnn_product_new(p, threads))) {
        s->kind = PRODUCT_DNN;
        s->scratch = wf_dnn_product_scratch(s->dnn);
    } else {
        s->kind = PRODUCT_OWN;
        wf_gemm_plan_make(&s->gemm, p, threads);
        s->scratch = s->gemm.scratch;
    }
}

static void release(void *state) {
    product_state *s = state;
    if (s) wf_dnn_product_free(s->dnn);
    wf_free(s);
}

static wf_status prepare(wf_node *n, void **state) {
    product_state *s = wf_alloc(sizeof *s);
    if (!s) return WF_ENOMEM;
    choose(n, s);
    *state = s;
    return WF_OK;
}

static size_t scratch(const wf_node *n) {
    product_state s;
    memset(&s, 0, sizeof s);
    choose(n, &s);
    wf_dnn_product_free(s.dnn);
    return s.scratch;
}

static wf_status forward(const wf_call *c) {
    const product_state *s = c->state;
    const void *bias = s->product.bias ? c->in[2] : NULL;
    switch (s->kind) {
    case PRODUCT_F64: wf_matmul64(&s->product, c->in[0], c->in[1], bias, c->out[0]); return WF_OK;
    case PRODUCT_GEMV: wf_gemv_run(&s->gemv, wf_threads(), c->in[0], c->in[1], bias, c->out[0], c->scratch); return WF_OK;
    case PRODUCT_DNN: return wf_dnn_product_run(s->dnn, wf_threads(), c->in[0], c->in[1], bias, c->out[0], c->scratch);
    case PRODUCT_OWN: wf_gemm_run(&s->gemm, wf_threads(), c->in[0], c->in[1], bias, c->out[0], c->scratch); return WF_OK;
    }
    return WF_OK;
}

static void cost(const wf_node *n, wf_cost *c) {
    double out = (double)wf_shape_count(&n->shape), k = (double)n->in[0]->shape.dim[n->in[0]->shape.rank - 1];
    c->flops = 2 * out * k + (n->n_in == 3 ? out : 0);
    c->bytes_read = 0;
    for (int i = 0; i < n->n_in; i++)
        c->bytes_read += (double)wf_shape_count(&n->in[i]->shape) * (double)wf_dtype_size(n->in[i]->dtype);
    c->bytes_written = out * (double)wf_dtype_size(n->dtype);
}

/* ---- derivative ---- */

static wf_node *swap_last(wf_graph *g, wf_node *x) {
    return x ? wf_transpose(g, x, x->shape.rank - 2, x->shape.rank - 1) : NULL;
}

/* x lies transposed in memory: a gradient laid out alike needs no copy when the transposition is undone. */
static bool lies_transposed(const wf_node *x) {
    int r = x->shape.rank;
    return x->stride[r - 2] == 1 && x->stride[r - 1] != 1;
}

/* a^(ta) b^(tb) in the dtype, shape and layout of x: summed over what was broadcast. */
static wf_node *product_like(wf_graph *g, wf_node *x, wf_node *a, wf_node *b, bool ta, bool tb) {
    bool turned = lies_transposed(x);
    int64_t batch_a = 1, batch_x = 1;
    const wf_node *wide = a->shape.rank > b->shape.rank ? a : b;
    for (int i = 0; i < wide->shape.rank - 2; i++) batch_a *= wide->shape.dim[i];
    for (int i = 0; i < x->shape.rank - 2; i++) batch_x *= x->shape.dim[i];
    bool sums = batch_a != batch_x || wide->shape.rank != x->shape.rank;
    wf_dtype t = sums && x->dtype == WF_BF16 ? WF_F32 : x->dtype; /* sums of many terms are rounded once */
    wf_node *y = turned ? swap_last(g, wf_matmul_as(g, b, a, !tb, !ta, t)) : wf_matmul_as(g, a, b, ta, tb, t);
    if (y && sums) y = wf_sum_to(g, y, &x->shape);
    return y && y->dtype != x->dtype ? wf_cast(g, y, x->dtype) : y;
}

static wf_node *rows_of(wf_graph *g, wf_node *x) {
    return wf_reshape(g, x, WF_SHAPE(-1, x->shape.dim[x->shape.rank - 1]));
}

/* The gradient of b, when all of a's leading axes share it, is one product over all of a's rows. */
static bool shares_b(const wf_node *n) {
    const wf_shape *a = &n->in[0]->shape, *b = &n->in[1]->shape;
    if (a->rank != n->shape.rank || a->rank == 2) return false;
    for (int i = 0; i < b->rank - 2; i++)
        if (b->dim[i] != 1) return false;
    for (int i = 0; i < a->rank - 2; i++)
        if (a->dim[i] != n->shape.dim[i]) return false;
    return wf_shape_count(a) > 0 && wf_shape_count(&n->shape) > 0;
}

static wf_status vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    wf_node *a = n->in[0], *b = n->in[1], *gy = gout[0];
    if (!gy || !wf_is_float(n->dtype)) return WF_OK;
    gin[0] = product_like(g, a, gy, b, false, true);
    if (shares_b(n)) {
        wf_node *flat = b->shape.rank == 2
                            ? b
                            : wf_reshape(g, b, WF_SHAPE(b->shape.dim[b->shape.rank - 2], b->shape.dim[b->shape.rank - 1]));
        if (!flat) return wf_graph_status(g);
        gin[1] = product_like(g, flat, rows_of(g, a), rows_of(g, gy), true, false);
        if (flat != b) gin[1] = wf_reshape(g, gin[1], b->shape);
    } else {
        gin[1] = product_like(g, b, a, gy, true, false);
    }
    if (n->n_in == 3) {
        wf_node *bias = n->in[2], *wide = gy->dtype == WF_BF16 ? wf_cast(g, gy, WF_F32) : gy;
        wf_node *sum = wf_sum(g, wide, (1u << (n->shape.rank - 1)) - 1, false);
        gin[2] = sum && sum->dtype != bias->dtype ? wf_cast(g, sum, bias->dtype) : sum;
    }
    return wf_graph_status(g);
}

static const wf_op matmul_op = {.name = "matmul",
                                .flags = WF_OP_STRIDED,
                                .infer = infer,
                                .forward = forward,
                                .vjp = vjp,
                                .cost = cost,
                                .scratch = scratch,
                                .prepare = prepare,
                                .release = release};

/* ---- builders ---- */

wf_node *wf_matmul_as(wf_graph *g, wf_node *a, wf_node *b, bool ta, bool tb, wf_dtype out) {
    if (!a || !b) return NULL;
    if (a->shape.rank < 2 || b->shape.rank < 2) {
        char s[96], t[96];
        return wf_graph_fail(g, WF_EINVAL, "matmul: %s x %s: both need at least 2 axes", wf_shape_text(&a->shape, s),
                             wf_shape_text(&b->shape, t));
    }
    if (out == WF_F64 && a->dtype != WF_F64) a = wf_cast(g, a, WF_F64);
    if (out == WF_F64 && b->dtype != WF_F64) b = wf_cast(g, b, WF_F64);
    wf_node *in[2] = {ta ? swap_last(g, a) : a, tb ? swap_last(g, b) : b};
    wf_attr attr = {.i = {out}};
    return wf_node_new(g, &matmul_op, in, 2, &attr);
}

wf_node *wf_matmul(wf_graph *g, wf_node *a, wf_node *b, bool ta, bool tb) {
    if (!a || !b) return NULL;
    wf_dtype out = WF_F32;
    if (is_byte(a->dtype))
        out = WF_I32;
    else if (a->dtype == WF_F64 || b->dtype == WF_F64)
        out = WF_F64;
    else if (a->dtype == WF_BF16 && b->dtype == WF_BF16)
        out = WF_BF16;
    return wf_matmul_as(g, a, b, ta, tb, out);
}

wf_node *wf_linear(wf_graph *g, wf_node *x, wf_node *w, wf_node *bias) {
    if (!x || !w) return NULL;
    char s[96], t[96];
    if (w->shape.rank != 2 || x->shape.rank < 1 || x->shape.dim[x->shape.rank - 1] != w->shape.dim[1])
        return wf_graph_fail(g, WF_EINVAL, "linear: x %s and weight %s: the weight must be [O, I] with I the last axis of x",
                             wf_shape_text(&x->shape, s), wf_shape_text(&w->shape, t));
    if (!wf_is_float(x->dtype) || !wf_is_float(w->dtype))
        return wf_graph_fail(g, WF_EINVAL, "linear: x is %s and the weight %s; both must be floating", wf_dtype_name(x->dtype),
                             wf_dtype_name(w->dtype));
    bool single = x->shape.rank == 1;
    if (single) x = wf_unsqueeze(g, x, 0);
    wf_dtype wide = x && x->dtype == WF_F64 ? WF_F64
                    : w->dtype == WF_F64    ? WF_F32
                                            : w->dtype; /* float64 goes with float64 only */
    if (w->dtype != wide) w = wf_cast(g, w, wide);
    if (bias && (bias->dtype == WF_F64) != (wide == WF_F64)) bias = wf_cast(g, bias, wide == WF_F64 ? WF_F64 : WF_F32);
    wf_node *in[3] = {x, swap_last(g, w), bias};
    if (!in[0] || !in[1]) return NULL;
    wf_attr attr = {.i = {x->dtype}};
    wf_node *y = wf_node_new(g, &matmul_op, in, bias ? 3 : 2, &attr);
    return single ? wf_squeeze(g, y, 0) : y;
}
