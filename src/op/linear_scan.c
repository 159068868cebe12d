/* linear_scan.c: linear attention as a scan, S_t = decay_t S_{t-1} + k_t v_t^T, o_t = q_t S_t, in time linear in L.
 *
 * Chunks of 64 positions are computed as small matrix products, the state is carried from chunk to chunk (simd/linear_scan.c);
 * heads run in parallel. The backward operator computes the states again, keeps one a chunk, and goes back through the chunks.
 * With L = 1 and a state it is the decoding step. Sources: Katharopoulos et al. 2020; Yang et al. 2024 (chunks with decay).
 */
#include "op/linear_scan.h"
#include "op/op.h"
#include "op/rows.h"
#include "op/simd.h"

#include <math.h>
#include <omp.h>

extern const wf_scan_kernel wf_scan_kernel_f32_generic, wf_scan_kernel_f64_generic;
#if defined(__x86_64__)
extern const wf_scan_kernel wf_scan_kernel_f32_avx2, wf_scan_kernel_f64_avx2, wf_scan_kernel_f32_avx512,
    wf_scan_kernel_f64_avx512;
#endif

static const wf_scan_kernel *kernel_for(wf_dtype t) {
    bool f64 = t == WF_F64;
#if defined(__x86_64__)
    if (wf_isa() >= WF_ISA_AVX512) return f64 ? &wf_scan_kernel_f64_avx512 : &wf_scan_kernel_f32_avx512;
    if (wf_isa() >= WF_ISA_AVX2) return f64 ? &wf_scan_kernel_f64_avx2 : &wf_scan_kernel_f32_avx2;
#endif
    return f64 ? &wf_scan_kernel_f64_generic : &wf_scan_kernel_f32_generic;
}

/* attr.i[0]: which optional inputs follow q, k, v (and do, backward), in this order */
enum { HAS_DECAY = 1, HAS_STATE = 2, HAS_GSTATE = 4 };

static const wf_op scan_op, scan_backward_op;

static int option(const wf_node *n, int bit) {
    int required = n->op == &scan_op ? 3 : 4;
    return n->attr.i[0] & bit ? required + __builtin_popcountll((unsigned long long)n->attr.i[0] & (unsigned)(bit - 1)) : -1;
}

static wf_dtype real_of(wf_dtype t) {
    return t == WF_F64 ? WF_F64 : WF_F32;
}

/* ---- shape rules ---- */
static wf_status infer(wf_node *n) {
    n->dtype = n->in[2]->dtype;
    n->shape = n->in[2]->shape;
    return WF_OK;
}

static wf_status infer_state(const wf_node *n, int k, wf_dtype *t, wf_shape *s) {
    (void)k;
    const wf_shape *q = &n->in[0]->shape, *v = &n->in[2]->shape;
    *t = real_of(n->dtype);
    *s = WF_SHAPE(q->dim[0], q->dim[2], q->dim[3], v->dim[3]);
    return WF_OK;
}

static wf_status infer_backward(wf_node *n) {
    n->dtype = n->in[0]->dtype;
    n->shape = n->in[0]->shape;
    return WF_OK;
}

/* dk, dv, then the gradients of decay and state: one unused number where the input is absent. */
static wf_status infer_backward_more(const wf_node *n, int k, wf_dtype *t, wf_shape *s) {
    int j = k < 3 ? k : option(n, k == 3 ? HAS_DECAY : HAS_STATE);
    *t = j < 0 ? WF_F32 : n->in[j]->dtype;
    *s = j < 0 ? WF_SHAPE(1) : n->in[j]->shape;
    return WF_OK;
}

/* ---- running ---- */
typedef struct scan_state { /* scratch was sized for this many threads */
    int threads;
} scan_state;

static wf_status prepare(wf_node *n, void **state) {
    (void)n;
    scan_state *s = wf_alloc(sizeof *s);
    if (!s) return WF_ENOMEM;
    s->threads = wf_threads();
    *state = s;
    return WF_OK;
}

static size_t scratch_of_one(const wf_node *n) {
    const wf_shape *q = &n->in[0]->shape;
    const wf_scan_kernel *f = kernel_for(n->in[0]->dtype);
    size_t (*need)(int64_t, int, int) = n->op == &scan_op ? f->forward_scratch : f->backward_scratch;
    return need(q->dim[1], (int)q->dim[3], (int)n->in[2]->shape.dim[3]);
}
static size_t scratch(const wf_node *n) {
    return scratch_of_one(n) * (size_t)wf_threads();
}

/* Input j of head (b, h): axes [B,L,H,..]; element strides of rows in *row. */
static const void *head_of(const wf_call *c, int j, int64_t b, int64_t h, int64_t *row) {
    if (j < 0) return NULL;
    const wf_node *x = c->node->in[j];
    *row = x->stride[1];
    return (const char *)c->in[j] + (int64_t)wf_dtype_size(x->dtype) * (b * x->stride[0] + h * x->stride[2]);
}

/* The same of a state [B,H,d,e] */
static const void *state_of(const wf_call *c, int j, int64_t b, int64_t h, int64_t *row) {
    if (j < 0) return NULL;
    const wf_node *x = c->node->in[j];
    *row = x->stride[2];
    return (const char *)c->in[j] + (int64_t)wf_dtype_size(x->dtype) * (b * x->stride[0] + h * x->stride[1]);
}

/* Head (b, h) of dense result k [B,L,H,width] */
static void *result(const wf_call *c, int k, wf_dtype t, int64_t b, int64_t h, int64_t width, int64_t *row) {
    const wf_shape *q = &c->node->in[0]->shape;
    *row = q->dim[2] * width;
    return (char *)c->out[k] + (int64_t)wf_dtype_size(t) * (b * q->dim[1] * *row + h * width);
}

static void fill_head(const wf_call *c, int64_t b, int64_t h, wf_scan_head *x) {
    const wf_node *n = c->node;
    const wf_shape *q = &n->in[0]->shape;
    wf_dtype t = n->in[0]->dtype, real = real_of(t);
    *x = (wf_scan_head){.L = q->dim[1], .d = (int)q->dim[3], .e = (int)n->in[2]->shape.dim[3], .dtype = t};
    int64_t unit = (int64_t)wf_dtype_size(real) * (b * q->dim[2] + h) * x->d * x->e;
    x->q = head_of(c, 0, b, h, &x->q_row);
    x->k = head_of(c, 1, b, h, &x->k_row);
    x->v = head_of(c, 2, b, h, &x->v_row);
    x->decay = head_of(c, option(n, HAS_DECAY), b, h, &x->decay_row);
    x->state = state_of(c, option(n, HAS_STATE), b, h, &x->state_row);
    if (n->op == &scan_op) {
        x->o = result(c, 0, t, b, h, x->e, &x->o_row);
        x->state_out = (char *)c->out[1] + unit;
        return;
    }
    x->go = head_of(c, 3, b, h, &x->go_row);
    x->gstate = state_of(c, option(n, HAS_GSTATE), b, h, &x->gstate_row);
    x->dq = result(c, 0, t, b, h, x->d, &x->dq_row);
    x->dk = result(c, 1, t, b, h, x->d, &x->dk_row);
    x->dv = result(c, 2, t, b, h, x->e, &x->dv_row);
    if (x->decay) x->ddecay = result(c, 3, real, b, h, 1, &x->ddecay_row);
    if (x->state) x->dstate = (char *)c->out[4] + unit;
}

static wf_status run(const wf_call *c) {
    const wf_node *n = c->node;
    const wf_scan_kernel *f = kernel_for(n->in[0]->dtype);
    bool back = n->op == &scan_backward_op;
    int64_t heads = n->in[0]->shape.dim[2], jobs = n->in[0]->shape.dim[0] * heads;
    int planned = ((const scan_state *)c->state)->threads, threads = wf_threads() < planned ? wf_threads() : planned;
    wf_cost cost = {0};
    n->op->cost(n, &cost);
    if (cost.flops < 2e5) threads = 1;
    if (threads > jobs) threads = (int)jobs;
    size_t one = scratch_of_one(n);
    for (int k = 3; back && k < 5; k++)
        if (option(n, k == 3 ? HAS_DECAY : HAS_STATE) < 0) *(float *)c->out[k] = 0;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (int64_t t = 0; t < jobs; t++) {
        wf_scan_head x;
        fill_head(c, t / heads, t % heads, &x);
        x.scratch = (char *)c->scratch + one * (size_t)omp_get_thread_num();
        (back ? f->backward : f->forward)(&x);
    }
    return WF_OK;
}

/* ---- cost by the recurrence: update and read of the state, 2 d e multiply-adds a position; backward: both states again and
 * five products of that size ---- */
static void cost_of(const wf_node *n, double products, wf_cost *c) {
    const wf_shape *q = &n->in[0]->shape;
    double positions = (double)(q->dim[0] * q->dim[1] * q->dim[2]), d = (double)q->dim[3], e = (double)n->in[2]->shape.dim[3];
    c->flops = 2 * products * positions * d * e;
    for (int j = 0; j < n->n_in; j++)
        c->bytes_read += (double)wf_shape_count(&n->in[j]->shape) * (double)wf_dtype_size(n->in[j]->dtype);
    for (int k = 0; k < n->op->n_out; k++) {
        wf_dtype t = n->dtype;
        wf_shape s = n->shape;
        if (k > 0) n->op->infer_more(n, k, &t, &s);
        c->bytes_written += (double)wf_shape_count(&s) * (double)wf_dtype_size(t);
    }
}
static void cost(const wf_node *n, wf_cost *c) {
    cost_of(n, 2, c);
}
static void cost_backward(const wf_node *n, wf_cost *c) {
    cost_of(n, 6, c);
}

/* ---- the masked quadratic form, for second derivatives ---- */
static wf_node *heads_first(wf_graph *g, wf_node *x) {
    return x ? wf_permute(g, x, (int[]){0, 2, 1, 3}) : NULL;
}

/* out[0] = o, out[1] = state after the last position. decay and state may be NULL. */
static wf_status compose(wf_graph *g, wf_node *q, wf_node *k, wf_node *v, wf_node *decay, wf_node *state, wf_node **out) {
    wf_dtype type = q->dtype, t = real_of(type);
    const int64_t *dim = q->shape.dim, B = dim[0], L = dim[1], H = dim[2];
    q = heads_first(g, wf_cast(g, q, t)), k = heads_first(g, wf_cast(g, k, t)), v = heads_first(g, wf_cast(g, v, t));
    wf_node *i = wf_index(g, t, WF_SHAPE(L, 1), 0), *j = wf_index(g, t, WF_SHAPE(1, L), 1), *past = wf_le(g, j, i);
    wf_node *p = wf_matmul(g, q, k, false, true), *kept = k, *a = NULL, *last = NULL;
    if (decay) { /* a_i = sum of logarithms up to i; products of decays are exponentials of differences */
        a = wf_cumsum(g, wf_reshape(g, wf_permute(g, wf_log(g, decay), (int[]){0, 2, 1}), WF_SHAPE(B, H, L, 1)), 2, false,
                      false);
        last = wf_slice(g, a, 2, L - 1, 1);
        wf_node *gap = wf_where(g, past, wf_sub(g, a, wf_reshape(g, a, WF_SHAPE(B, H, 1, L))), wf_constant(g, t, -INFINITY));
        p = wf_mul(g, p, wf_exp(g, gap));
        kept = wf_mul(g, k, wf_exp(g, wf_sub(g, last, a)));
    } else {
        p = wf_mul(g, p, past);
    }
    wf_node *o = wf_matmul(g, p, v, false, false), *s = wf_matmul(g, kept, v, true, false);
    if (state) {
        wf_node *read = wf_matmul(g, q, state, false, false);
        o = wf_add(g, o, a ? wf_mul(g, read, wf_exp(g, a)) : read);
        s = wf_add(g, s, last ? wf_mul(g, state, wf_exp(g, last)) : state);
    }
    out[0] = wf_cast(g, heads_first(g, o), type);
    out[1] = s;
    return wf_graph_status(g);
}

static wf_node *optional(const wf_node *n, wf_node *const *in, int bit) {
    return option(n, bit) < 0 ? NULL : in[option(n, bit)];
}

/* ---- derivatives ---- */
static wf_node *unit_columns(wf_graph *g, wf_node *x) {
    int last = x ? x->shape.rank - 1 : 0;
    return !x || x->stride[last] == 1 || x->shape.dim[last] == 1 ? x : wf_contiguous(g, x);
}

static wf_status vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    if (!gout[0] && !gout[1]) return WF_OK;
    wf_node *go = gout[0] ? wf_cast(g, gout[0], n->dtype) : wf_fill(g, n->dtype, n->shape, 0);
    wf_node *in[8] = {n->in[0], n->in[1], n->in[2], unit_columns(g, go)};
    int at = 4;
    wf_attr a = n->attr;
    for (int j = 3; j < n->n_in; j++) in[at++] = n->in[j];
    if (gout[1]) {
        a.i[0] |= HAS_GSTATE;
        in[at++] = unit_columns(g, wf_cast(g, gout[1], real_of(n->dtype)));
    }
    wf_node *back = wf_node_new(g, &scan_backward_op, in, at, &a);
    for (int k = 0; k < 3; k++) gin[k] = wf_output(back, k);
    for (int k = 3; k < 5; k++) {
        int j = option(n, k == 3 ? HAS_DECAY : HAS_STATE);
        if (j >= 0) gin[j] = wf_output(back, k);
    }
    return wf_graph_status(g);
}

static wf_status compose_backward(wf_graph *g, wf_node *n, wf_node *const *in, wf_node **out) {
    wf_node *made[2], *decay = optional(n, in, HAS_DECAY), *state = optional(n, in, HAS_STATE),
                      *gstate = optional(n, in, HAS_GSTATE);
    WF_TRY(compose(g, in[0], in[1], in[2], decay, state, made));
    wf_node *wrt[5] = {in[0], in[1], in[2]}, *grad[5];
    int n_wrt = 3, at = 3;
    if (decay) wrt[n_wrt++] = decay;
    if (state) wrt[n_wrt++] = state;
    WF_TRY(wf_grad(g, made, (wf_node *[]){in[3], gstate}, gstate ? 2 : 1, wrt, n_wrt, grad));
    for (int k = 0; k < 3; k++) out[k] = grad[k];
    out[3] = decay ? grad[at++] : NULL;
    out[4] = state ? grad[at++] : NULL;
    return WF_OK;
}

static wf_status vjp_backward(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    return wf_vjp_by_composition(g, n, gout, gin, compose_backward);
}

static const wf_op scan_op = {.name = "linear_scan",
                              .flags = WF_OP_STRIDED,
                              .n_out = 2,
                              .infer = infer,
                              .infer_more = infer_state,
                              .forward = run,
                              .vjp = vjp,
                              .cost = cost,
                              .scratch = scratch,
                              .prepare = prepare,
                              .release = wf_free};
static const wf_op scan_backward_op = {.name = "linear_scan_backward",
                                       .flags = WF_OP_STRIDED,
                                       .n_out = 5,
                                       .infer = infer_backward,
                                       .infer_more = infer_backward_more,
                                       .forward = run,
                                       .vjp = vjp_backward,
                                       .cost = cost_backward,
                                       .scratch = scratch,
                                       .prepare = prepare,
                                       .release = wf_free};

/* ---- builder ---- */
static bool shapes_fit(wf_graph *g, const wf_node *q, const wf_node *k, const wf_node *v, const wf_node *decay,
                       const wf_node *state) {
    char t[5][96];
    const int64_t *a = q->shape.dim, *c = v->shape.dim;
    bool ok = q->shape.rank == 4 && v->shape.rank == 4 && wf_shape_equal(&q->shape, &k->shape);
    for (int i = 0; ok && i < 3; i++) ok = a[i] == c[i] && a[i] > 0;
    ok = ok && a[3] > 0 && c[3] > 0 && wf_is_float(q->dtype) && wf_is_float(k->dtype) && wf_is_float(v->dtype);
    if (ok && decay) ok = wf_is_float(decay->dtype) && wf_shape_equal(&decay->shape, &WF_SHAPE(a[0], a[1], a[2]));
    if (ok && state) ok = wf_is_float(state->dtype) && wf_shape_equal(&state->shape, &WF_SHAPE(a[0], a[2], a[3], c[3]));
    if (ok) return true;
    wf_graph_fail(g, WF_EINVAL,
                  "linear_scan: q %s, k %s, v %s, decay %s, state %s; floating [B,L,H,d], [B,L,H,d], [B,L,H,e], [B,L,H], "
                  "[B,H,d,e] expected",
                  wf_shape_text(&q->shape, t[0]), wf_shape_text(&k->shape, t[1]), wf_shape_text(&v->shape, t[2]),
                  decay ? wf_shape_text(&decay->shape, t[3]) : "none", state ? wf_shape_text(&state->shape, t[4]) : "none");
    return false;
}

wf_node *wf_linear_scan(wf_graph *g, wf_node *q, wf_node *k, wf_node *v, wf_node *decay, wf_node *state) {
    if (!q || !k || !v || !shapes_fit(g, q, k, v, decay, state)) return NULL;
    wf_dtype t = wf_promote(wf_promote(q->dtype, k->dtype), v->dtype), real = real_of(t);
    wf_node *in[5] = {unit_columns(g, wf_cast(g, q, t)), unit_columns(g, wf_cast(g, k, t)), unit_columns(g, wf_cast(g, v, t))};
    int at = 3;
    wf_attr a = {.i = {(decay ? HAS_DECAY : 0) | (state ? HAS_STATE : 0)}};
    if (decay) in[at++] = wf_cast(g, decay, real);
    if (state) in[at++] = unit_columns(g, wf_cast(g, state, real));
    return wf_node_new(g, &scan_op, in, at, &a);
}
