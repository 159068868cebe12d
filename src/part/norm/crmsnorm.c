/* crmsnorm.c: compressed RMSNorm (Jiang, Gu, Zhu, Pan 2023): RMSNorm of a vector without mean, of which all but the last entry are
 * stored.
 *
 *     c in R^D stands for (c, -sum c) in R^(D+1);  y = c / sqrt( (sum c^2 + (sum c)^2) / (D+1) + eps )
 *
 * A Pre-LN network of width D+1 turns into one of CRMSNorm and width D exactly (weft transform convert-norm).
 */
#include "part/norm/norm.h"

typedef struct options {
    double eps;
    int64_t divisor;
    bool affine;
} options;

static const wf_option table[] = {
    {"eps", WF_OPT_REAL, offsetof(options, eps), "1e-5", 0, 1, NULL, "added to the mean square; that of the norm it replaces"},
    {"divisor", WF_OPT_INT, offsetof(options, divisor), "0", 0, 1 << 30, NULL,
     "entries the sum of squares is divided by; 0: width + 1, those of the vector that is meant (a stream padded with a zero "
     "lane: the width itself)"},
    {"affine", WF_OPT_BOOL, offsetof(options, affine), "false", 0, 0, NULL, "learned gain"},
    WF_OPT_END};

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    return wf_norm_affine_setup(m, o->affine, 1, false);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    double d = (double)(o->divisor ? o->divisor : m->in + 1);
    wf_node *last = wf_sum(g, x, wf_last(x), true); /* minus the entry that is not stored */
    wf_node *q = wf_add(g, wf_sum(g, wf_square(g, x), wf_last(x), true), wf_square(g, last));
    return wf_norm_affine(b, m, wf_mul(g, x, wf_rsqrt(g, wf_add_c(g, wf_mul_c(g, q, 1 / d), o->eps))));
}

const wf_part wf_norm_crmsnorm = {
    .slot = "norm",
    .name = "crmsnorm",
    .title = "CRMSNorm: RMSNorm of a zero-mean vector that is stored without its last entry",
    .paper =
        "Jiang, Gu, Zhu, Pan: Pre-RMSNorm and Pre-CRMSNorm Transformers: Equivalent and Efficient Pre-LN Transformers, 2023, "
        "arXiv 2305.14858",
    .sheet = "11",
    .formula = "s = sum x; y = x / sqrt((sum x^2 + s^2)/(D+1) + eps)",
    .facts =
        "Equals LayerNorm of the vector (x, -sum x) with the same eps, without its last entry. Made by converting a Pre-LN "
        "network, or taken for a fresh one whose stream of D numbers stands for D + 1.",
    .cost = "about 5 D FLOPs a token, no parameters (D with affine), no state",
    .golden = "norm.ln-rms-crms",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .forward = forward,
};
