/* l2norm.c: every token on the unit sphere: y = x / max(||x||, eps). No parameters. */
#include "part/norm/norm.h"

typedef struct options {
    double eps;
} options;

static const wf_option table[] = {
    {"eps", WF_OPT_REAL, offsetof(options, eps), "1e-12", 0, 1, NULL, "smallest length divided by"}, WF_OPT_END};

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    /* The clamp is on the square, so that its derivative at 0 is 0 and not 0/0. */
    wf_node *q = wf_max_c(g, wf_sum(g, wf_square(g, x), wf_last(x), true), o->eps * o->eps);
    return wf_mul(g, x, wf_rsqrt(g, q));
}

const wf_part wf_norm_l2norm = {
    .slot = "norm",
    .name = "l2norm",
    .title = "unit length: every token divided by its 2-norm",
    .paper = "as in Henry et al.: Query-Key Normalization for Transformers, 2020, arXiv 2010.04245",
    .sheet = "00",
    .formula = "y = x / max(||x||, eps)",
    .facts = "The output is sqrt(D) times smaller than RMSNorm's; give the next layer a scale.",
    .cost = "about 3 D FLOPs a token, no parameters, no state",
    .golden = "norm.token-norms",
    .options = table,
    .opt_size = sizeof(options),
    .forward = forward,
};
