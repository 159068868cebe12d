/* softmax.c: softmax attention (Vaswani et al. 2017), multi-head, multi-query (Shazeer 2019), grouped (Ainslie et al. 2023).
 *
 *     o_i = sum_j softmax_j(q_i.k_j / sqrt(d)) v_j over the visible j: not padded, j <= i if causal, in the window if there is one
 *
 * A window of w shows the last w positions (causal) or |i-j| < w. A row with nothing visible gives 0.
 */
#include "part/mixer/heads.h"

typedef struct options {
    wf_heads_opt heads;
    int64_t window;
    double dropout, scale;
} options;

static const wf_option table[] = {
    WF_HEADS_OPTIONS(options, heads),
    {"window", WF_OPT_INT, offsetof(options, window), "0", 0, 1 << 30, NULL,
     "a token sees this many positions back (itself included); 0: all"},
    {"dropout", WF_OPT_REAL, offsetof(options, dropout), "0", 0, 0.99, NULL, "dropout of the attention weights"},
    {"scale", WF_OPT_REAL, offsetof(options, scale), "0", 0, 1e6, NULL,
     "factor of the scores; 0: 1/sqrt(head_dim), or 1 for qk_norm: l2"},
    WF_OPT_END};

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    return wf_heads_setup(m, &o->heads);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_node *q, *k, *v;
    if (wf_heads_project(b, m, x, x, &q, &k, &v) != WF_OK) return NULL;
    wf_attention_spec s = {.scale = o->scale, .dropout = o->dropout};
    wf_node *a = wf_heads_attend(b, m, q, k, v, &s, o->window);
    if (a && !b->plain) wf_tap(b, m, "lse", wf_output(a, 1));
    return wf_heads_merge(b, m, a);
}

const wf_part wf_mixer_softmax = {
    .slot = "mixer",
    .name = "softmax",
    .title = "softmax attention: multi-head, grouped-query or multi-query, causal or not, windowed",
    .paper = "Vaswani et al.: Attention Is All You Need, 2017, arXiv 1706.03762; Shazeer, 2019, arXiv 1911.02150; Ainslie et "
             "al.: GQA, "
             "2023, arXiv 2305.13245",
    .sheet = "00",
    .formula =
        "q,k,v = W x + bias in heads; S = q k^T/sqrt(d) + position bias + mask; o = softmax(S) v; y = W_o concat(o) + bias\n"
        "head h reads key/value head floor(h K/H)",
    .facts = "Exact attention through one tiled kernel: memory O(L d). kv_heads below heads shrinks the cache of generation.\n"
             "qk_norm keeps scores bounded in long or fast training. window makes the cost linear in L.",
    .cost =
        "8 D D FLOPs a token for the four linears, 4 L d H for scores and values (half if causal); cache 2 K d numbers a token",
    .golden = "attention.softmax attention.softmax-core attention.qk-norm",
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
