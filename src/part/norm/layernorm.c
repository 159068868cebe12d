/* layernorm.c: LayerNorm (Ba, Kiros, Hinton 2016).
 *
 *     mu = mean_D x,  v = mean_D (x - mu)^2,  y = w (x - mu) / sqrt(v + eps) + b
 *
 * The variance is taken of the centred row (two passes over a row in cache), never as E[x^2] - mu^2.
 */
#include "part/norm/norm.h"

typedef struct options {
    double eps;
    bool affine, bias;
} options;

static const wf_option table[] = {
    {"eps", WF_OPT_REAL, offsetof(options, eps), "1e-5", 0, 1, NULL, "added to the variance (ViT 1e-6, BERT 1e-12)"},
    WF_NORM_AFFINE_OPTIONS(options),
    {"bias", WF_OPT_BOOL, offsetof(options, bias), "true", 0, 0, NULL, "learned bias; needs affine"},
    WF_OPT_END};

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    return wf_norm_affine_setup(m, o->affine, 1, o->affine && o->bias);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    wf_node *c = wf_sub(g, x, wf_mean(g, x, wf_last(x), true));
    wf_node *v = wf_mean(g, wf_square(g, c), wf_last(x), true);
    return wf_norm_affine(b, m, wf_mul(g, c, wf_rsqrt(g, wf_add_c(g, v, o->eps))));
}

const wf_part wf_norm_layernorm = {
    .slot = "norm",
    .name = "layernorm",
    .title = "LayerNorm: every token has mean 0 and variance 1 before gain and bias",
    .paper = "Ba, Kiros, Hinton: Layer Normalization, 2016, arXiv 1607.06450",
    .sheet = "00",
    .formula = "mu = mean_D x; v = mean_D (x-mu)^2\ny = weight * (x-mu)/sqrt(v+eps) + bias",
    .facts = "Invariant to shift and scale of a token. Gain and bias fold into the next linear: W' = W diag(w), bias' = bias + "
             "W b.\n"
             "eps differs between families (GPT-2 1e-5, ViT 1e-6, BERT 1e-12): a wrong one is small but visible.",
    .cost = "about 8 D FLOPs a token, 2 D parameters, no state",
    .golden = "norm.token-norms",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .forward = forward,
};
