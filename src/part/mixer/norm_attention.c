/* norm_attention.c: NormAttention of TransNormer (Qin et al. 2022): linear attention without a denominator; the output is
 * normalised instead, over all heads together.
 *
 *     q, k = turn(f(W x + b)), o_i = q_i sum_j k_j^T v_j (j <= i if causal), y = W_o srms(concat o) + b_o
 *
 * f = elu or 1 + elu, positions after f. No 1/sqrt(d). Sums are float32 whatever b->compute: they grow with L.
 */
#include "part/mixer/transnormer.h"

#include <string.h>

typedef struct options {
    wf_heads_opt heads;
    const char *act, *init;
    double eps;
} options;

static const wf_option table[] = {
    WF_HEADS_OPTIONS(options, heads),
    {"act", WF_OPT_CHOICE, offsetof(options, act), "elu", 0, 0, "elu|1+elu", "feature map of q and k: elu is T1, 1+elu is T2"},
    {"eps", WF_OPT_REAL, offsetof(options, eps), "1e-8", 0, 1, NULL, "added to the root mean square of the output"},
    WF_TRANSNORMER_INIT(options),
    WF_OPT_END};

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    WF_TRY(wf_heads_setup_with(m, &o->heads, "lrpe"));
    const wf_heads *h = m->data;
    if (h->K != h->H)
        return wf_module_fail(m, WF_EUNSUPPORTED, "'kv_heads' other than 'heads' is not possible here; leave it out");
    if (h->position->part->bias)
        return wf_module_fail(m, WF_EUNSUPPORTED, "a bias on scores (position %s) needs scores; take lrpe, rope or none",
                              h->position->part->name);
    wf_xavier_heads(m, o->init, 0.70710678118654752);
    return WF_OK;
}

static wf_node *feature(wf_build *b, wf_node *x, const char *act, wf_dtype t) {
    wf_node *f = wf_elu1(b->g, wf_as(b, x, t));
    return strcmp(act, "elu") ? f : wf_add_c(b->g, f, -1);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    const wf_heads *h = m->data;
    wf_graph *g = b->g;
    wf_dtype t = b->compute == WF_F64 ? WF_F64 : WF_F32;
    wf_node *q, *k, *v, *y, *state = NULL;
    if (wf_heads_split(b, m, x, x, &q, &k, &v) != WF_OK) return NULL;
    q = feature(b, q, o->act, t);
    k = feature(b, k, o->act, t);
    v = wf_as(b, v, t);
    wf_node *keep = b->step ? NULL : wf_keep_mask(b, x);
    if (keep) v = wf_mul(g, v, wf_reshape(g, keep, WF_SHAPE(keep->shape.dim[0], keep->shape.dim[1], 1, 1)));
    if (h->position->part->rotate && h->position->part->rotate(b, h->position, &q, &k) != WF_OK) return NULL;
    if (b->step && !(state = wf_state(b, m, "S", t, WF_SHAPE(x->shape.dim[0], h->H, h->d, h->d)))) return NULL;
    if (b->causal) {
        y = wf_linear_scan(g, q, k, v, NULL, state);
        if (b->step && (!y || wf_keep(b, state, wf_output(y, 1)) != WF_OK)) return NULL;
    } else {
        y = wf_linear_all(g, q, k, v, NULL);
    }
    return wf_srms_merge(b, m, y, o->eps);
}

const wf_part wf_mixer_norm_attention = {
    .slot = "mixer",
    .name = "norm-attention",
    .title = "NormAttention: linear attention with a norm in place of the denominator (TransNormer)",
    .paper = "Qin, Han, Sun, Li, Kong, Barnes, Zhong: The Devil in Linear Transformer, 2022, arXiv 2210.10340",
    .sheet = "09",
    .formula = "q, k = turn(f(W x + b)); o_i = q_i sum_j k_j^T v_j, j <= i if causal; y = W_o srms(concat_heads o) + b_o\n"
               "f(z) = z for z > 0, e^z - 1 else (elu), or 1 more (1+elu); srms(o) = o / (|o|/sqrt(D) + eps)",
    .facts =
        "The norm bounds the gradients that a denominator near 0 lets explode. Alone it forgets where it looked: TransNormer\n"
        "has diag-attention in the first half of the layers (mixer: [diag-attention, norm-attention]).\n"
        "position: lrpe unless the option or the model names a rotary scheme; none turns it off.",
    .cost = "8 D D FLOPs a token for the linears, 4 d d H for the state; state H d d numbers",
    .golden = "mixer.norm-attention block.transnormer",
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
