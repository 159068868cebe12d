/* heads.h: what multi-head mixers share: projections to heads, QK-norm, positions, caches, the way back.
 *
 * x [B,L,D] -> q [B,L,H,d], k, v [B,L,K,d] (K divides H: head h reads key/value head h*K/H) -> o [B,L,H,d] -> y [B,L,D].
 */
#ifndef WF_HEADS_H
#define WF_HEADS_H

#include "part/part.h"

typedef struct wf_heads_opt {
    int64_t heads, kv_heads, head_dim;
    const char *bias, *qkv_bias, *out_bias, *qk_norm;
    double qk_norm_eps;
    bool qk_norm_bias;
    const wf_value *position;
} wf_heads_opt;

/* clang-format off */
#define WF_HEADS_OPTIONS_AS(type, at, linear_bias, norm, eps, norm_bias)                                                                                                  \
    {"heads", WF_OPT_INT, offsetof(type, at.heads), "0", 0, 4096, NULL, "heads; 0: one for every 64 channels, at least one"},       \
    {"kv_heads", WF_OPT_INT, offsetof(type, at.kv_heads), "0", 0, 4096, NULL, "key/value heads, shared by groups of heads; 0: as heads"}, \
    {"head_dim", WF_OPT_INT, offsetof(type, at.head_dim), "0", 0, 4096, NULL, "channels of a head; 0: width / heads"},              \
    {"bias", WF_OPT_CHOICE, offsetof(type, at.bias), linear_bias, 0, 0, "model|true|false", "biases of the linears; model: as the model says"}, \
    {"qkv_bias", WF_OPT_CHOICE, offsetof(type, at.qkv_bias), "model", 0, 0, "model|true|false", "biases of q, k, v alone; model: as bias"}, \
    {"out_bias", WF_OPT_CHOICE, offsetof(type, at.out_bias), "model", 0, 0, "model|true|false", "bias of the output linear alone; model: as bias"}, \
    {"qk_norm", WF_OPT_CHOICE, offsetof(type, at.qk_norm), norm, 0, 0, "none|rms_head|ln_head|rms_full|l2",                        \
     "norm of queries and keys, before positions: by head, over all heads, or unit vectors with a learned scale a head"},           \
    {"qk_norm_eps", WF_OPT_REAL, offsetof(type, at.qk_norm_eps), eps, 0, 1, NULL, "eps of that norm"},                           \
    {"qk_norm_bias", WF_OPT_BOOL, offsetof(type, at.qk_norm_bias), norm_bias, 0, 0, NULL, "ln_head: with bias"},                      \
    {"position", WF_OPT_VALUE, offsetof(type, at.position), "", 0, 0, NULL, "rotary or bias scheme of this mixer; absent: the model's"}
#define WF_HEADS_OPTIONS(type, at) WF_HEADS_OPTIONS_AS(type, at, "model", "none", "1e-6", "false")
/* clang-format on */

typedef struct wf_heads {
    int64_t H, K, d;
    wf_module *q, *k, *v, *o, *q_norm, *k_norm, *position;
    bool full, unit; /* norm before the split; l2 */
} wf_heads;

/* Children q, k, v, o, q_norm, k_norm, position, parameter tau; m->data = wf_heads. */
wf_status wf_heads_setup(wf_module *m, const wf_heads_opt *o);
/* The same with a position scheme of the mixer's own where neither the option nor the model names one. */
wf_status wf_heads_setup_with(wf_module *m, const wf_heads_opt *o, const char *position);
/* Queries of x, keys and values of `source` (x itself for self-attention), normed and turned, in b->compute. */
wf_status wf_heads_project(wf_build *b, wf_module *m, wf_node *x, wf_node *source, wf_node **q, wf_node **k, wf_node **v);
/* The same before positions: for mixers that turn later, or not all tokens alike. */
wf_status wf_heads_split(wf_build *b, wf_module *m, wf_node *x, wf_node *source, wf_node **q, wf_node **k, wf_node **v);
/* The queries alone, before l2 norm and positions. */
wf_node *wf_heads_queries(wf_build *b, wf_module *m, wf_node *x);
/* Attention over this build's keys, and in the step form over those before (cached): o [B,L,H,d]. `s` says score, normaliser,
 * scale, dropout; causality, window (0: none), lengths, bias by position are filled in here. */
wf_node *wf_heads_attend(wf_build *b, wf_module *m, wf_node *q, wf_node *k, wf_node *v, wf_attention_spec *s, int64_t window);
/* Its first half: what is filled in, and the keys and values of the past. cross: keys are another stream's, all of them visible. */
wf_status wf_heads_settle(wf_build *b, wf_module *m, wf_node **k, wf_node **v, wf_attention_spec *s, int64_t window,
                          bool cross);
/* Its second half. In a plain build *weights (may be NULL) receives the weights [B,H,L,S], and two taps tell what they are made of:
 * "scores" (0 where hidden) and "visible" (1 or 0); "scale" is the factor of q k^T. */
wf_node *wf_heads_call(wf_build *b, wf_module *m, wf_node *q, wf_node *k, wf_node *v, const wf_attention_spec *s,
                       wf_node **weights);
/* [B,L,H,d] -> [B,L,D]: heads side by side, inner norm if the placement has one, output linear. */
wf_node *wf_heads_merge(wf_build *b, wf_module *m, wf_node *o);
/* Keys and values of all positions a window of `window` can reach from this build's T tokens; what the ring needs in `s`. */
wf_status wf_cache_keys(wf_build *b, wf_module *m, wf_node **k, wf_node **v, wf_attention_spec *s, int64_t window);

/* For mixers without a score for every pair of tokens: refuse, in setup, options of heads that need them. */
wf_status wf_needs_no_scores(const wf_module *m);
/* In forward: what cannot be done, and what can; NULL. */
wf_node *wf_refuse(wf_build *b, const wf_module *m, const char *why);

/* linear.c: o_i = f(q_i) S / (f(q_i).z + eps), S = sum f(k_j) v_j^T, z = sum f(k_j), f = elu + 1. q,k [B,L,H,d], v [B,L,H,e].
 * keep [B,L] or NULL: 0 where a key does not count. state [B,H,d,e+1] (S and z side by side) or NULL; *after receives it. */
wf_node *wf_linear_attention(wf_build *b, wf_node *q, wf_node *k, wf_node *v, wf_node *keep, bool causal, double eps,
                             wf_node *state, wf_node **after);

/* linear.c: the same for features that are there already: [B,L,H,e+1], column e the denominators q_i.z. */
wf_node *wf_feature_attention(wf_graph *g, wf_node *q, wf_node *k, wf_node *v, bool causal, wf_node *state, wf_node **after);

/* q S in one piece, S = k^T v over all positions [B,H,d,e]; *after (may be NULL) receives S. q [B,L,H,d], k [B,S,H,d]. */
wf_node *wf_linear_all(wf_graph *g, wf_node *q, wf_node *k, wf_node *v, wf_node **after);

extern const wf_part wf_mixer_softmax, wf_mixer_linear, wf_mixer_sigmoid, wf_mixer_complex;
extern const wf_part wf_mixer_flow, wf_mixer_norm_attention, wf_mixer_diag_attention, wf_mixer_simplified_linear;

#endif
