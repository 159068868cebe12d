/* crmsnorm.c: compressed RMSNorm (Jiang et al. 2023): RMSNorm of the zero-mean vector (x, -sum x) of D+1 entries, of which only
 * the first D are kept.
 *
 *     s = sum_D x;  y = w x / sqrt((sum_D x^2 + s^2) / (D + 1) + eps)
 */
#include "part/norm/norm.h"

typedef struct options {
    double eps;
    bool affine;
} options;

static const wf_option table[] = {{"eps", WF_OPT_REAL, offsetof(options, eps), "1e-5", 0, 1, NULL, "added to the mean square"},
                                  {"affine", WF_OPT_BOOL, offsetof(options, affine), "false", 0, 0, NULL, "learned gain"},
                                  WF_OPT_END};

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    return wf_norm_affine_setup(m, o->affine, 1, false);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    wf_node *q = wf_sum(g, wf_square(g, x), wf_last(x), true), *s = wf_square(g, wf_sum(g, x, wf_last(x), true));
    wf_node *mean = wf_mul_c(g, wf_add(g, q, s), 1 / (double)(m->in + 1));
    return wf_norm_affine(b, m, wf_mul(g, x, wf_rsqrt(g, wf_add_c(g, mean, o->eps))));
}

const wf_part wf_norm_crmsnorm = {
    .slot = "norm",
    .name = "crmsnorm",
    .title = "compressed RMSNorm: RMSNorm of a zero-mean vector whose last entry is not stored",
    .paper = "Jiang, Gu, Zhu, Pan: Pre-RMSNorm and Pre-CRMSNorm Transformers: Equivalent and Efficient Pre-LN Transformers, "
             "2023, arXiv 2305.14858",
    .sheet = "11",
    .formula = "s = sum_D x; y = x / sqrt((sum_D x^2 + s^2)/(D+1) + eps)",
    .facts = "The stream of width D stands for one of D+1 channels that sum to 0. `weft transform convert-norm` makes it of a "
             "Pre-LN network.",
    .cost = "about 5 D FLOPs a token, no parameters, no state",
    .golden = "norm.ln-rms-crms transform.convert-norm-vit",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .forward = forward,
};
