/* attention.c: the fused attention operator and its backward operator: builders, shapes, derivatives, cost. Kernels:
 * attention_tiles.c (forward), attention_decode.c (forward with few queries), attention_backward.c; the same function made of
 * small operators: attention_plain.c.
 *
 *     o_i = sum_j P_ij v_j,  P = normalise(f(scale q k^T - slopes |distance| + bias)) over visible j
 *
 * Sources: Vaswani et al. 2017; Dao 2023 (FlashAttention 2); Ainslie et al. 2023 (GQA); Press et al. 2021 (ALiBi).
 */
#include "op/attention_tiles.h"
#include "op/attention_plain.h"

#include <math.h>
#include <string.h>

int wf_attention_required(const wf_node *n) {
    if (n->op == &wf_op_attention) return 3;
    return n->attr.i[0] & WF_AT_DLSE ? 7 : 6;
}

int wf_attention_option(const wf_node *n, int bit) {
    int64_t bits = n->attr.i[0];
    return bits & bit
               ? wf_attention_required(n) + __builtin_popcountll((unsigned long long)bits & (unsigned long long)(bit - 1))
               : -1;
}

void wf_attention_spec_of(const wf_node *n, wf_node *const *in, wf_attention_spec *s) {
    *s = (wf_attention_spec){.scale = n->attr.f[0],
                             .causal = n->attr.i[0] & WF_AT_CAUSAL,
                             .window_back = n->attr.i[1],
                             .window_forward = n->attr.i[2],
                             .normaliser = (wf_normaliser)n->attr.i[3],
                             .score = (wf_score)n->attr.i[4],
                             .score_bias = n->attr.f[1],
                             .dropout = n->attr.f[2],
                             .stream = (uint64_t)n->attr.i[5],
                             .window_block = n->attr.i[6],
                             .block = n->attr.i[7],
                             .tags_before = n->attr.i[0] & WF_AT_TAGS_BEFORE};
    wf_node **to[WF_AT_OPTIONS] = {&s->lengths, &s->q_start, &s->offsets_q, &s->offsets_k, &s->slopes, &s->bias,
                                   &s->seed,    &s->globals, &s->tags_q,    &s->tags_k,    &s->links};
    for (int k = 0; k < WF_AT_OPTIONS; k++) {
        int j = wf_attention_option(n, 1 << k);
        *to[k] = j < 0 ? NULL : in[j];
    }
}

static wf_dtype real_of(wf_dtype t) {
    return t == WF_F64 ? WF_F64 : WF_F32;
}

/* ---- shape rules ---- */
static wf_status infer_forward(wf_node *n) {
    n->dtype = n->in[0]->dtype;
    n->shape = n->in[0]->shape;
    n->shape.dim[3] = n->in[2]->shape.dim[3];
    return WF_OK;
}

static wf_status infer_lse(const wf_node *n, int k, wf_dtype *t, wf_shape *s) {
    (void)k;
    const wf_shape *q = &n->in[0]->shape;
    *t = real_of(n->dtype);
    *s = WF_SHAPE(q->dim[0], q->dim[2], q->dim[1]);
    return WF_OK;
}

static wf_status infer_backward(wf_node *n) {
    n->dtype = n->in[0]->dtype;
    n->shape = n->in[0]->shape;
    return WF_OK;
}

static wf_status infer_backward_more(const wf_node *n, int k, wf_dtype *t, wf_shape *s) {
    *t = n->in[k]->dtype;
    *s = n->in[k]->shape;
    return WF_OK;
}

/* ---- running ---- */
typedef struct wf_attention_state { /* scratch was sized for this many threads */
    int threads;
} wf_attention_state;

static wf_status prepare(wf_node *n, void **state) {
    (void)n;
    wf_attention_state *s = wf_alloc(sizeof *s);
    if (!s) return WF_ENOMEM;
    s->threads = wf_threads();
    *state = s;
    return WF_OK;
}

static int threads_of(const wf_call *c) {
    int planned = ((const wf_attention_state *)c->state)->threads, now = wf_threads();
    return now < planned ? now : planned;
}

static wf_status run_forward(const wf_call *c) {
    return wf_attention_decodes(c->node) ? wf_attention_decode(c, threads_of(c)) : wf_attention_forward(c, threads_of(c));
}
static wf_status run_backward(const wf_call *c) {
    return wf_attention_backward(c, ((const wf_attention_state *)c->state)->threads);
}
static size_t scratch_forward(const wf_node *n) {
    return wf_attention_decodes(n) ? wf_attention_decode_scratch(n, wf_threads())
                                   : wf_attention_forward_scratch(n, wf_threads());
}
static size_t scratch_backward(const wf_node *n) {
    return wf_attention_backward_scratch(n, wf_threads());
}

/* ---- cost: products over visible pairs; what lengths, offsets and q_start hide is known only when it runs ---- */
static double visible_pairs(const wf_node *n) {
    const wf_shape *q = &n->in[0]->shape, *k = &n->in[1]->shape;
    int64_t L = q->dim[1], S = k->dim[1], back = n->attr.i[1], forward = n->attr.i[2];
    bool end_aligned = wf_attention_option(n, WF_AT_Q_START) < 0 && wf_attention_option(n, WF_AT_OFFSETS_Q) < 0;
    if (wf_attention_patterned(n)) return (double)(q->dim[0] * q->dim[2]) * wf_attention_pattern_pairs(n);
    if (!end_aligned) return (double)(q->dim[0] * q->dim[2]) * (double)L * (double)S;
    double pairs = 0;
    for (int64_t i = 0; i < L; i++) {
        int64_t p = S - L + i, lo = 0, hi = S, block = n->attr.i[6] > 1 ? n->attr.i[6] : 1, p0 = p - p % block;
        if (back > 0 && p0 - back + 1 > lo) lo = p0 - back + 1;
        if (n->attr.i[0] & WF_AT_CAUSAL && p + 1 < hi) hi = p + 1;
        if (forward > 0 && p0 + block - 1 + forward < hi) hi = p0 + block - 1 + forward;
        if (hi > lo) pairs += (double)(hi - lo);
    }
    return pairs * (double)(q->dim[0] * q->dim[2]);
}

static void cost_of(const wf_node *n, double products_d, double products_e, int outputs, wf_cost *c) {
    double d = (double)n->in[0]->shape.dim[3], e = (double)n->in[2]->shape.dim[3];
    c->flops = visible_pairs(n) * 2 * (products_d * d + products_e * e);
    for (int j = 0; j < n->n_in; j++)
        c->bytes_read += (double)wf_shape_count(&n->in[j]->shape) * (double)wf_dtype_size(n->in[j]->dtype);
    for (int k = 0; k < outputs; k++) {
        wf_dtype t = n->dtype;
        wf_shape s = n->shape;
        if (k > 0) n->op->infer_more(n, k, &t, &s);
        c->bytes_written += (double)wf_shape_count(&s) * (double)wf_dtype_size(t);
    }
}

static void cost_forward(const wf_node *n, wf_cost *c) {
    cost_of(n, 1, 1, 2, c);
}
static void cost_backward(const wf_node *n, wf_cost *c) {
    cost_of(n, 3, 2, 3, c);
}

/* ---- derivatives ---- */
static wf_status compose_forward(wf_graph *g, wf_node *n, wf_node *const *in, wf_node **out) {
    wf_attention_spec s;
    wf_attention_spec_of(n, in, &s);
    return wf_attention_compose(g, in[0], in[1], in[2], &s, out, NULL);
}

static wf_node *unit_columns(wf_graph *g, wf_node *x) {
    return !x || x->stride[3] == 1 || x->shape.dim[3] == 1 ? x : wf_contiguous(g, x);
}

static wf_status vjp_forward(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    bool lse = gout[1] && n->attr.i[3] == WF_NORMALISE_SOFTMAX;
    if (!gout[0] && !lse) return WF_OK;
    int learned[2] = {wf_attention_option(n, WF_AT_SLOPES), wf_attention_option(n, WF_AT_BIAS)};
    if (learned[0] >= 0 || learned[1] >= 0) WF_TRY(wf_vjp_by_composition(g, n, gout, gin, compose_forward));
    /* Weights that nothing normalises are made again from q and k: o and lse are not read, and v stands in for them. */
    bool normalised = n->attr.i[3] == WF_NORMALISE_SOFTMAX;
    wf_node *in[WF_AT_MOST_INPUTS] = {n->in[0], n->in[1], n->in[2], normalised ? n : n->in[2],
                                      normalised ? wf_output(n, 1) : n->in[2]};
    in[5] = gout[0] ? unit_columns(g, wf_cast(g, gout[0], n->dtype)) : wf_fill(g, n->dtype, n->shape, 0);
    in[5] = unit_columns(g, in[5]);
    int at = 6;
    wf_attr a = n->attr;
    if (lse) {
        in[at++] = wf_cast(g, gout[1], real_of(n->dtype));
        a.i[0] |= WF_AT_DLSE;
    }
    for (int j = 3; j < n->n_in; j++) in[at++] = n->in[j];
    wf_node *back = wf_node_new(g, &wf_op_attention_backward, in, at, &a);
    for (int k = 0; k < 3; k++) gin[k] = wf_output(back, k);
    return wf_graph_status(g);
}

/* dq, dk, dv as a function of q, k, v and the incoming gradients, o and lse being functions of q, k, v. */
static wf_status compose_backward(wf_graph *g, wf_node *n, wf_node *const *in, wf_node **out) {
    wf_attention_spec s;
    wf_node *made[2], *seed[2] = {in[5], n->attr.i[0] & WF_AT_DLSE ? in[6] : NULL};
    wf_attention_spec_of(n, in, &s);
    WF_TRY(wf_attention_compose(g, in[0], in[1], in[2], &s, made, NULL));
    return wf_grad(g, made, seed, seed[1] ? 2 : 1, in, 3, out);
}

static wf_status vjp_backward(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    WF_TRY(wf_vjp_by_composition(g, n, gout, gin, compose_backward));
    gin[3] = gin[4] = NULL;
    return wf_graph_status(g);
}

const wf_op wf_op_attention = {.name = "attention",
                               .flags = WF_OP_STRIDED,
                               .n_out = 2,
                               .infer = infer_forward,
                               .infer_more = infer_lse,
                               .forward = run_forward,
                               .vjp = vjp_forward,
                               .cost = cost_forward,
                               .scratch = scratch_forward,
                               .prepare = prepare,
                               .release = wf_free};
const wf_op wf_op_attention_backward = {.name = "attention_backward",
                                        .flags = WF_OP_STRIDED,
                                        .n_out = 3,
                                        .infer = infer_backward,
                                        .infer_more = infer_backward_more,
                                        .forward = run_backward,
                                        .vjp = vjp_backward,
                                        .cost = cost_backward,
                                        .scratch = scratch_backward,
                                        .prepare = prepare,
                                        .release = wf_free};

/* ---- builder ---- */
wf_node *wf_attention(wf_graph *g, wf_node *q, wf_node *k, wf_node *v, const wf_attention_spec *spec) {
    wf_attention_spec s;
    if (!wf_attention_settle(g, &q, &k, &v, spec, &s)) return NULL;
    wf_node *in[WF_AT_MOST_INPUTS] = {unit_columns(g, q), unit_columns(g, k), unit_columns(g, v)};
    wf_node *option[WF_AT_OPTIONS] = {s.lengths, s.q_start, s.offsets_q, s.offsets_k, s.slopes, s.bias,
                                      s.seed,    s.globals, s.tags_q,    s.tags_k,    s.links};
    int at = 3;
    wf_attr a = {.i = {(s.causal ? WF_AT_CAUSAL : 0) | (s.tags_before ? WF_AT_TAGS_BEFORE : 0), s.window_back, s.window_forward,
                       s.normaliser, s.score, (int64_t)s.stream, s.window_block, s.block},
                 .f = {s.scale, s.score_bias, s.dropout}};
    for (int x = 0; x < WF_AT_OPTIONS; x++) {
        if (!option[x]) continue;
        a.i[0] |= 1 << x;
        in[at++] = option[x];
    }
    return wf_node_new(g, &wf_op_attention, in, at, &a);
}
