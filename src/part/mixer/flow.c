/* flow.c: Flow-Attention (Wu et al. 2022): linear attention as a flow network. Sources (keys) compete for the flow that sinks
 * (queries) take in, because what flows is conserved.
 *
 *     I_i = (Q_i+e).(sum K + e), O_j = (K_j+e).(sum Q + e)                             flows, Q = f(q), K = f(k), f = sigmoid
 *     I'_i = (Q_i+e).(sum K/O + e), O'_j = clamp((K_j+e).(sum Q/I + e))                conserved flows
 *     w_j = S softmax_j(O'), a_i = sigmoid(I'_i L/S)                                   competition, allocation
 *     R_i = a_i (Q_i/I_i) sum_j K_j^T (w_j V_j)
 *
 * Causal, t from 1: sums run to t, K/O becomes t K/O in sums that are then divided by t (likewise Q/I), and source t competes
 * with those before it: w_t = t E_t / sum_{j<=t} E_j, E = exp(O'). Flows are float32 whatever b->compute.
 */
#include "part/mixer/heads.h"

#include <math.h>
#include <string.h>

typedef struct options {
    wf_heads_opt heads;
    bool cross;
    const char *kernel;
    double eps, clamp;
} options;

static const wf_option table[] = {
    WF_HEADS_OPTIONS(options, heads),
    {"kernel", WF_OPT_CHOICE, offsetof(options, kernel), "sigmoid", 0, 0, "sigmoid|relu",
     "what makes q and k positive; relu adds 1e-6 (the authors' Long Range Arena code)"},
    {"eps", WF_OPT_REAL, offsetof(options, eps), "1e-6", 0, 1, NULL, "added to both factors of the four flow products"},
    {"clamp", WF_OPT_REAL, offsetof(options, clamp), "1", 0, 1e4, NULL,
     "bound of the conserved outgoing flow: 1 (text, pictures), 5 (translation), 10 (control); 0: none (time series)"},
    {"cross", WF_OPT_BOOL, offsetof(options, cross), "false", 0, 0, NULL,
     "keys and values from the context, not from x itself"},
    WF_OPT_END};

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    WF_TRY(wf_heads_setup(m, &o->heads));
    m->opaque = o->cross;
    const wf_heads *h = m->data;
    if (h->K != h->H)
        return wf_module_fail(m, WF_EUNSUPPORTED, "'kv_heads' other than 'heads' is not possible here; leave it out");
    if (h->position->part->bias)
        return wf_module_fail(m, WF_EUNSUPPORTED,
                              "a bias on scores (position %s) needs scores; take rope, sinusoidal or learned positions",
                              h->position->part->name);
    if (o->cross && m->model->causal)
        return wf_module_fail(m, WF_EINVAL, "cross: true sees the whole context at once: leave it out in a causal model");
    return WF_OK;
}

static wf_node *kernel(wf_graph *g, const options *o, wf_node *x) {
    return strcmp(o->kernel, "relu") ? wf_sigmoid(g, x) : wf_add_c(g, wf_relu(g, x), 1e-6);
}

/* (x + e).(sums + e) by head: [B,L,H,1] */
static wf_node *flow(wf_graph *g, wf_node *x, wf_node *sums, double e) {
    return wf_sum(g, wf_mul(g, wf_add_c(g, x, e), wf_add_c(g, sums, e)), 1u << 3, true);
}

static wf_node *bounded(wf_graph *g, const options *o, wf_node *x) {
    return o->clamp > 0 ? wf_clamp(g, x, -o->clamp, o->clamp) : x;
}

/* ---- all positions at once ---- */

static wf_node *total(wf_graph *g, wf_node *x, wf_node *keep) {
    return wf_sum(g, keep ? wf_mul(g, x, keep) : x, 1u << 1, true);
}

/* How many tokens x [B,L,..] has, at least 1: [1] or, with keep [B,L,1,1], [B,1,1,1]. */
static wf_node *counted(wf_graph *g, wf_node *keep, const wf_node *x) {
    if (keep) return wf_max_c(g, wf_sum(g, keep, 1u << 1, true), 1);
    return wf_fill(g, x->dtype, WF_SHAPE(1), (double)x->shape.dim[1]);
}

/* [B,S,1,1] of the context of K [B,S,..], 1 where it is no padding; NULL: all count. */
static wf_node *context_mask(wf_build *b, const wf_node *K) {
    wf_graph *g = b->g;
    if (!b->context_lengths) return NULL;
    wf_node *j = wf_index(g, K->dtype, WF_SHAPE(K->shape.dim[0], K->shape.dim[1], 1, 1), 1);
    return wf_lt(g, j, wf_reshape(g, wf_cast(g, b->context_lengths, K->dtype), WF_SHAPE(K->shape.dim[0], 1, 1, 1)));
}

/* S softmax_j(O'); keep [B,S,1,1] or NULL, sources = S. */
static wf_node *competition(wf_graph *g, const options *o, wf_node *out, wf_node *keep, wf_node *sources) {
    wf_node *x = bounded(g, o, out);
    if (keep) x = wf_where(g, keep, x, wf_fill(g, out ? out->dtype : WF_F32, WF_SHAPE(1), -1e30));
    if (keep || o->clamp <= 0) x = wf_sub(g, x, wf_stop_gradient(g, wf_amax(g, x, 1u << 1, true)));
    wf_node *e = wf_exp(g, x);
    if (keep) e = wf_mul(g, e, keep);
    wf_node *sum = wf_sum(g, e, 1u << 1, true);
    return wf_mul(g, e, wf_div(g, sources, keep ? wf_max_c(g, sum, 1e-30) : sum));
}

static wf_node *both_ways(wf_build *b, wf_module *m, wf_node *Q, wf_node *K, wf_node *v, wf_node *keep) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    if (!Q || !K || !v) return NULL;
    wf_node *sources_keep = o->cross ? context_mask(b, K) : keep;
    double e = o->eps;
    wf_node *I = flow(g, Q, total(g, K, sources_keep), e), *O = flow(g, K, total(g, Q, keep), e);
    wf_node *Qn = wf_div(g, Q, I), *Kn = wf_div(g, K, O);
    wf_node *in = flow(g, Q, total(g, Kn, sources_keep), e), *out = flow(g, K, total(g, Qn, keep), e);
    wf_node *sources = counted(g, sources_keep, K), *w = competition(g, o, out, sources_keep, sources);
    if (o->cross) in = wf_mul(g, in, wf_div(g, counted(g, keep, Q), sources)); /* else sinks are sources */
    wf_node *a = wf_sigmoid(g, in);
    wf_tap(b, m, "Q/I", Qn);
    wf_tap(b, m, "K/O", Kn);
    return wf_linear_all(g, wf_mul(g, Qn, a), K, wf_mul(g, v, w), NULL);
}

/* ---- causal ---- */

/* Sum over positions up to each, with what the state `name` holds of those before. */
static wf_node *running(wf_build *b, wf_module *m, const char *name, wf_node *x) {
    wf_graph *g = b->g;
    wf_node *sum = wf_cumsum(g, x, 1, false, false);
    if (!b->step || !sum) return sum;
    wf_shape s = x->shape;
    s.dim[1] = 1;
    wf_node *state = wf_state(b, m, name, x->dtype, s);
    sum = wf_add(g, sum, state);
    return wf_keep(b, state, wf_slice(g, sum, 1, x->shape.dim[1] - 1, 1)) == WF_OK ? sum : NULL;
}

/* [1,L,1,1] or [B,L,1,1]: how many tokens there are up to each, itself included. */
static wf_node *counts(wf_build *b, wf_node *keep, wf_dtype t, int64_t L) {
    wf_graph *g = b->g;
    if (keep) return wf_max_c(g, wf_cumsum(g, keep, 1, false, false), 1);
    wf_node *n = wf_positions(b, t, L);
    return n ? wf_reshape(g, wf_add_c(g, n, 1), WF_SHAPE(1, L, 1, 1)) : NULL;
}

static wf_node *masked(wf_graph *g, wf_node *x, wf_node *keep) {
    return keep ? wf_mul(g, x, keep) : x;
}

static wf_node *causal(wf_build *b, wf_module *m, wf_node *Q, wf_node *K, wf_node *v, wf_node *keep) {
    const options *o = m->opt;
    const wf_heads *h = m->data;
    wf_graph *g = b->g;
    if (!Q || !K || !v) return NULL;
    double e = o->eps, top = o->clamp > 0 ? o->clamp : 60; /* beyond e^60 float32 sums would end */
    wf_node *t = counts(b, keep, Q->dtype, Q->shape.dim[1]);
    wf_node *Qk = masked(g, Q, keep), *Kk = masked(g, K, keep);
    wf_node *I = flow(g, Q, running(b, m, "K", Kk), e), *O = flow(g, K, running(b, m, "Q", Qk), e);
    wf_node *in = flow(g, Q, running(b, m, "K/O", wf_mul(g, Kk, wf_div(g, t, O))), e);
    wf_node *out = flow(g, K, running(b, m, "Q/I", wf_mul(g, Qk, wf_div(g, t, I))), e);
    wf_node *E = masked(g, wf_exp(g, wf_clamp(g, wf_div(g, out, t), -top, top)), keep);
    wf_node *sum = running(b, m, "E", E);
    wf_node *w = wf_div(g, wf_mul(g, E, t), keep ? wf_max_c(g, sum, 1e-30) : sum);
    wf_node *q = wf_mul(g, Q, wf_div(g, wf_sigmoid(g, wf_div(g, in, t)), I)), *state = NULL;
    if (b->step && !(state = wf_state(b, m, "S", Q->dtype, WF_SHAPE(Q->shape.dim[0], h->H, h->d, h->d)))) return NULL;
    wf_node *y = wf_linear_scan(g, q, K, wf_mul(g, v, w), NULL, state);
    return !b->step || (y && wf_keep(b, state, wf_output(y, 1)) == WF_OK) ? y : NULL;
}

/* Each counted from its own first token. */
static wf_status turn(wf_build *b, wf_module *m, wf_node **q, wf_node **k) {
    const wf_heads *h = m->data;
    const wf_part *p = h->position->part;
    wf_node *none = NULL;
    if (!p->rotate) return WF_OK;
    WF_TRY(p->rotate(b, h->position, q, &none));
    return p->rotate(b, h->position, &none, k);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    wf_dtype t = b->compute == WF_F64 ? WF_F64 : WF_F32;
    wf_node *q, *k, *v, *keep = NULL, *source = o->cross ? b->context : x;
    if (!source) return wf_graph_fail(g, WF_EINVAL, "flow: cross: true needs a context to read");
    if (o->cross && b->context_bias)
        return wf_graph_fail(g, WF_EUNSUPPORTED, "flow: a context with holes is not possible; take mixer: softmax for one");
    if (source->shape.rank != 3 || source->shape.dim[0] != x->shape.dim[0] || source->shape.dim[2] != m->in)
        return wf_graph_fail(g, WF_EINVAL, "flow: the context must be [%lld,S,%lld]", (long long)x->shape.dim[0],
                             (long long)m->in);
    if (wf_heads_split(b, m, x, source, &q, &k, &v) != WF_OK || turn(b, m, &q, &k) != WF_OK) return NULL;
    /* Padding at the end needs no mask where nothing looks ahead. */
    if (!b->step && !(b->causal && b->lengths)) keep = wf_keep_mask(b, x);
    if (keep) keep = wf_as(b, wf_reshape(g, keep, WF_SHAPE(keep->shape.dim[0], keep->shape.dim[1], 1, 1)), t);
    wf_node *Q = kernel(g, o, wf_as(b, q, t)), *K = kernel(g, o, wf_as(b, k, t));
    v = wf_as(b, v, t);
    wf_tap(b, m, "Q", Q);
    wf_tap(b, m, "K", K);
    wf_node *y = b->causal ? causal(b, m, Q, K, v, keep) : both_ways(b, m, Q, K, v, keep);
    return wf_heads_merge(b, m, wf_as(b, y, b->compute));
}

const wf_part wf_mixer_flow = {
    .slot = "mixer",
    .name = "flow",
    .title = "Flow-Attention: linear attention with competition and allocation from conserved flows (Flowformer)",
    .paper = "Wu, Wu, Xu, Wang, Long: Flowformer: Linearizing Transformers with Conservation Flows, 2022, arXiv 2202.06258",
    .sheet = "02",
    .formula = "I_i = (Q_i+e).(sum K + e), O_j = (K_j+e).(sum Q + e), Q = sigmoid(q), K = sigmoid(k)\n"
               "I'_i = (Q_i+e).(sum K/O + e), O'_j = clamp((K_j+e).(sum Q/I + e), -1, 1)\n"
               "o_i = sigmoid(I'_i L/S) (Q_i/I_i) sum_j K_j^T (S softmax_j(O')_j V_j)\n"
               "causal: sums to t; I', O' of sums of t K/O, t Q/I divided by t; w_t = t E_t / sum_{j<=t} E_j, E = exp(O')",
    .facts =
        "O' is 1 on average, so about half of all sources sit above a clamp of 1 and get no gradient from competing.\n"
        "clamp changes results. Causal is not the masked two-way form. No bias on scores: positions come with the embedding.\n"
        "Padding is left out of all sums and counts. The authors drop out 0.05 of the output: dropout: 0.05 of the model.",
    .cost =
        "8 D D FLOPs a token for the linears, 4 d d H for the context, about 30 D for flows; state H (d d + 4 d + 1) numbers",
    .golden = "mixer.flow-attention model.flowformer-gpt",
    .options = table,
    .opt_size = sizeof(options),
    .causal_ok = true,
    .bidirectional_ok = true,
    .setup = setup,
    .forward = forward,
    .step = forward,
    .readers = "q k v",
    .writers = "o",
};
