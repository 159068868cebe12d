/* cross.c: attention to a second stream (Vaswani et al. 2017): queries of x, keys and values of the model's context.
 *
 *     o_i = sum_j softmax_j(q_i.k_j / sqrt(d)) v_j, q = W_q x, k, v = W c, c = context [B,S,D], j < its valid length
 *
 * wf_build.context_bias [B|1,H|1,L|1,S] is added to the scores: masks of any form
 *
 * All of the context is visible to every position, so causal models may have it, and a step needs no cache of its own.
 */
#include "part/mixer/heads.h"
#include "part/mixer/tokens.h"

typedef struct options {
    wf_heads_opt heads;
    double dropout, scale;
} options;

static const wf_option table[] = {
    WF_HEADS_OPTIONS(options, heads),
    {"dropout", WF_OPT_REAL, offsetof(options, dropout), "0", 0, 0.99, NULL, "dropout of the attention weights"},
    {"scale", WF_OPT_REAL, offsetof(options, scale), "0", 0, 1e6, NULL,
     "factor of the scores; 0: 1/sqrt(head_dim), or 1 for qk_norm: l2"},
    WF_OPT_END};

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    if (!m->model->context)
        return wf_module_fail(m, WF_EINVAL,
                              "this model has no context to attend to; take mixer: softmax, or a model with a context (stack)");
    WF_TRY(wf_heads_setup(m, &o->heads));
    const wf_heads *h = m->data;
    if (!h->position->part->rotate && !h->position->part->bias) return WF_OK;
    return wf_module_fail(m, WF_EUNSUPPORTED, "positions of two streams have no distance; take position: none (it is %s)",
                          h->position->part->name);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    const wf_heads *h = m->data;
    wf_graph *g = b->g;
    wf_node *q, *k, *v;
    if (!b->context) return wf_graph_fail(g, WF_EINVAL, "%s: wf_build.context is not set", m->name);
    if (wf_heads_project(b, m, x, b->context, &q, &k, &v) != WF_OK) return NULL;
    wf_attention_spec s = {.scale = o->scale > 0 ? o->scale
                                    : h->unit    ? 1
                                                 : 0,
                           .lengths = b->context_lengths,
                           .bias = b->context_bias};
    if (b->train && o->dropout > 0) {
        if (!b->seed) return wf_graph_fail(g, WF_EINVAL, "%s: dropout needs a seed: set wf_build.seed", m->name);
        s.dropout = o->dropout;
        s.seed = b->seed;
        s.stream = wf_stream(b);
    }
    wf_node *weights = NULL, *y = b->plain ? wf_attention_plain(g, q, k, v, &s, &weights) : wf_attention(g, q, k, v, &s);
    wf_tap(b, m, "weights", weights);
    return wf_heads_merge(b, m, y);
}

const wf_part wf_mixer_cross = {
    .slot = "mixer",
    .name = "cross",
    .title = "softmax attention to a second stream, the model's context",
    .paper = "Vaswani et al.: Attention Is All You Need, 2017, arXiv 1706.03762",
    .sheet = "00",
    .formula = "q = W_q x; k, v = W c, c = context [B,S,D]; o = softmax(q k^T/sqrt(d)) v; y = W_o concat(o) + bias",
    .facts =
        "Topologies put it between token mixer and channel mixer when the model has a context; it then has the mixer's heads.",
    .cost = "4 D D FLOPs a token and 4 D D a position of the context for the linears, 4 S d H for scores and values; no state",
    .golden = "block.macaron-decoder",
    .options = table,
    .opt_size = sizeof(options),
    .causal_ok = true,
    .bidirectional_ok = true,
    .setup = setup,
    .forward = forward,
    .step = forward,
    .readers = "q",
    .writers = "o",
};
