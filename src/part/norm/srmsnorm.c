/* srmsnorm.c: simple RMSNorm (Qin et al. 2022, TransNormer): no gain, eps outside the root.
 *
 *     y = x / (||x|| / sqrt(D) + eps)
 *
 * The derivative of the length at 0 is taken as 0, so that a row of zeros passes g / eps back and never 0 * inf.
 */
#include "part/norm/norm.h"

typedef struct options {
    double eps;
} options;

static const wf_option table[] = {
    {"eps", WF_OPT_REAL, offsetof(options, eps), "1e-8", 1e-30, 1, NULL, "added to the root mean square"}, WF_OPT_END};

wf_node *wf_srms(wf_graph *g, wf_node *x, double eps) {
    if (!x) return NULL;
    wf_node *q = wf_mean(g, wf_square(g, x), wf_last(x), true);
    if (!q) return NULL;
    /* The root never sees a 0: its derivative there would be infinite. */
    wf_node *zero = wf_fill(g, q->dtype, WF_SHAPE(1), 0), *one = wf_fill(g, q->dtype, WF_SHAPE(1), 1);
    wf_node *rms = wf_where(g, q, wf_sqrt(g, wf_where(g, q, q, one)), zero);
    return wf_mul(g, x, wf_recip(g, wf_add_c(g, rms, eps)));
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    return x ? wf_srms(b->g, wf_as(b, x, x->dtype == WF_F64 ? WF_F64 : WF_F32), o->eps) : NULL;
}

const wf_part wf_norm_srmsnorm = {
    .slot = "norm",
    .name = "srmsnorm",
    .title = "simple RMSNorm: a token divided by its root mean square plus eps; no gain",
    .paper = "Qin, Han, Sun, Li, Kong, Barnes, Zhong: The Devil in Linear Transformer, 2022, arXiv 2210.10340",
    .sheet = "09",
    .formula = "y = x / (||x||/sqrt(D) + eps)",
    .facts = "eps stands outside the root: rows of zeros have a gradient of g/eps (1e8 g), which ReLU attention blocks; clip "
             "gradients. The linear layer behind it takes the gain's place.",
    .cost = "about 3 D FLOPs a token, no parameters, no state",
    .golden = "mixer.norm-attention mixer.diag-attention",
    .options = table,
    .opt_size = sizeof(options),
    .forward = forward,
};
