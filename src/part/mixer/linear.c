/* linear.c: kernelised linear attention (Katharopoulos et al. 2020), feature map f = elu + 1.
 *
 *     o_i = f(q_i) S / (f(q_i).z + eps), S = sum_j f(k_j) v_j^T, z = sum_j f(k_j); j <= i if causal, all unpadded j otherwise
 *
 * z is one more column of S: values get a column of ones. No 1/sqrt(d). The state stays float32 whatever b->compute.
 */
#include "part/mixer/heads.h"

typedef struct options {
    wf_heads_opt heads;
    double eps;
} options;

static const wf_option table[] = {WF_HEADS_OPTIONS(options, heads),
                                  {"eps", WF_OPT_REAL, offsetof(options, eps), "1e-6", 0, 1, NULL, "added to the denominator"},
                                  WF_OPT_END};

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    WF_TRY(wf_heads_setup(m, &o->heads));
    const wf_heads *h = m->data;
    if (h->K != h->H)
        return wf_module_fail(m, WF_EUNSUPPORTED, "'kv_heads' other than 'heads' is not possible here; leave it out");
    if (h->position->part->bias)
        return wf_module_fail(m, WF_EUNSUPPORTED,
                              "a bias on scores (position %s) needs scores; take rope, sinusoidal or learned positions",
                              h->position->part->name);
    return WF_OK;
}

wf_node *wf_linear_all(wf_graph *g, wf_node *q, wf_node *k, wf_node *v, wf_node **after) {
    static const int heads_first[] = {0, 2, 1, 3};
    if (!q || !k || !v) return NULL;
    wf_node *S = wf_matmul(g, wf_permute(g, k, heads_first), wf_permute(g, v, heads_first), true, false); /* [B,H,d,e] */
    if (after) *after = S;
    return wf_permute(g, wf_matmul(g, wf_permute(g, q, heads_first), S, false, false), heads_first);
}

wf_node *wf_feature_attention(wf_graph *g, wf_node *q, wf_node *k, wf_node *v, bool causal, wf_node *state, wf_node **after) {
    if (!q || !k || !v) return NULL;
    wf_node *ones = wf_fill(g, v->dtype, WF_SHAPE(v->shape.dim[0], v->shape.dim[1], v->shape.dim[2], 1), 1), *S = NULL;
    wf_node *v1 = wf_concat(g, (wf_node *[]){v, ones}, 2, 3);
    wf_node *o = causal ? wf_linear_scan(g, q, k, v1, NULL, state) : wf_linear_all(g, q, k, v1, &S);
    if (after && o) *after = causal ? wf_output(o, 1) : S;
    return o;
}

wf_node *wf_linear_attention(wf_build *b, wf_node *q, wf_node *k, wf_node *v, wf_node *keep, bool causal, double eps,
                             wf_node *state, wf_node **after) {
    wf_graph *g = b->g;
    if (!q || !k || !v) return NULL;
    wf_dtype t = b->compute == WF_F64 ? WF_F64 : WF_F32;
    int64_t e = v->shape.dim[3];
    q = wf_elu1(g, wf_as(b, q, t));
    k = wf_elu1(g, wf_as(b, k, t));
    if (keep) k = wf_mul(g, k, wf_reshape(g, keep, WF_SHAPE(keep->shape.dim[0], keep->shape.dim[1], 1, 1)));
    wf_node *o = wf_feature_attention(g, q, k, wf_as(b, v, t), causal, state, after);
    return wf_div(g, wf_slice(g, o, 3, 0, e), wf_add_c(g, wf_slice(g, o, 3, e, 1), eps));
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    const wf_heads *h = m->data;
    wf_node *q, *k, *v, *state = NULL, *after = NULL;
    if (wf_heads_project(b, m, x, x, &q, &k, &v) != WF_OK) return NULL;
    if (b->step) {
        state = wf_state(b, m, "S", b->compute == WF_F64 ? WF_F64 : WF_F32, WF_SHAPE(q->shape.dim[0], h->H, h->d, h->d + 1));
        if (!state) return NULL;
    }
    wf_node *keep = b->step ? NULL : wf_keep_mask(b, x);
    wf_node *y = wf_linear_attention(b, q, k, v, keep, b->causal, o->eps, state, &after);
    if (b->step && wf_keep(b, state, after) != WF_OK) return NULL;
    wf_tap(b, m, "state", after);
    return wf_heads_merge(b, m, wf_as(b, y, b->compute));
}

const wf_part wf_mixer_linear = {
    .slot = "mixer",
    .name = "linear",
    .title = "linear attention with the feature map elu + 1",
    .paper = "Katharopoulos, Vyas, Pappas, Fleuret: Transformers are RNNs: Fast Autoregressive Transformers with Linear "
             "Attention, 2020, "
             "arXiv 2006.16236",
    .sheet = "00",
    .formula = "o_i = f(q_i) S / (f(q_i).z + eps); S = sum_j f(k_j) v_j^T, z = sum_j f(k_j); f(z) = z+1 for z > 0, e^z else",
    .facts = "Generation needs a fixed state however long the sequence. Weaker than softmax at recalling single tokens.",
    .cost = "8 D D FLOPs a token for the linears, 4 d d H for the state; state H d (d+1) numbers",
    .golden = "attention.linear",
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
