/* rmsnorm.c: RMSNorm (Zhang, Sennrich 2019): LayerNorm without centring.
 *
 *     y = w x / sqrt(mean_D x^2 + eps);   one_plus_w (Gemma): y = (1 + w) x / sqrt(..), w starts at 0
 */
#include "part/norm/norm.h"

typedef struct options {
    double eps;
    bool affine, one_plus_w;
} options;

static const wf_option table[] = {{"eps", WF_OPT_REAL, offsetof(options, eps), "1e-6", 0, 1, NULL, "added to the mean square"},
                                  WF_NORM_AFFINE_OPTIONS(options),
                                  {"one_plus_w", WF_OPT_BOOL, offsetof(options, one_plus_w), "false", 0, 0, NULL,
                                   "gain is 1 + weight, weight starts at 0 (Gemma)"},
                                  WF_OPT_END};

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    return wf_norm_affine_setup(m, o->affine, o->one_plus_w ? 0 : 1, false);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    wf_node *q = wf_mean(g, wf_square(g, x), wf_last(x), true);
    wf_node *y = wf_mul(g, x, wf_rsqrt(g, wf_add_c(g, q, o->eps)));
    if (!o->one_plus_w || !o->affine) return wf_norm_affine(b, m, y);
    return wf_mul(g, y, wf_add_c(g, wf_use(b, m, "weight"), 1));
}

const wf_part wf_norm_rmsnorm = {
    .slot = "norm",
    .name = "rmsnorm",
    .title = "RMSNorm: every token has mean square 1 before the gain; no centring",
    .paper = "Zhang, Sennrich: Root Mean Square Layer Normalization, 2019, arXiv 1910.07467",
    .sheet = "00",
    .formula = "y = weight * x / sqrt(mean_D x^2 + eps)\none_plus_w: y = (1+weight) * x / sqrt(mean_D x^2 + eps)",
    .facts = "Equals LayerNorm on a stream without mean. eps matters for small activations (embeddings at 0.02 have mean "
             "square 4e-4).\n"
             "Weights of a one_plus_w model read as plain ones look almost right: the option belongs to the model.",
    .cost = "about 4 D FLOPs a token, D parameters, no state",
    .golden = "norm.token-norms",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .forward = forward,
};
