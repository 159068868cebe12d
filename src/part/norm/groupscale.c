/* groupscale.c: every group of channels of a token divided by its root mean square, no parameters: the first stage of PowerNorm
 * (power.c), and what folding leaves of one.
 *
 *     y = x / sqrt(mean over the group of x^2 + eps);   groups = 1 is RMSNorm without gain
 */
#include "part/norm/norm.h"

typedef struct options {
    int64_t groups;
    double eps;
} options;

static const wf_option table[] = {
    {"groups", WF_OPT_INT, offsetof(options, groups), "1", 1, 1 << 20, NULL, "groups of consecutive channels"},
    {"eps", WF_OPT_REAL, offsetof(options, eps), "1e-5", 0, 1, NULL, "added to the mean square"},
    WF_OPT_END};

wf_status wf_group_scale_check(const wf_module *m, const char *option, int64_t groups) {
    if (m->in % groups == 0) return WF_OK;
    return wf_module_fail(m, WF_EINVAL, "'%s' must divide the width (%lld does not divide %lld)", option, (long long)groups,
                          (long long)m->in);
}

wf_node *wf_group_scale(wf_build *b, const wf_module *m, wf_node *x, int64_t groups, double eps) {
    wf_graph *g = b->g;
    if (!x) return NULL;
    x = wf_as(b, x, x->dtype == WF_F64 ? WF_F64 : WF_F32);
    int64_t rows = x ? wf_shape_count(&x->shape) / m->in : 0;
    wf_node *u = groups > 1 ? wf_reshape(g, x, WF_SHAPE(rows, groups, m->in / groups)) : x;
    wf_node *q = wf_mean(g, wf_square(g, u), wf_last(u), true);
    wf_node *y = wf_mul(g, u, wf_rsqrt(g, wf_add_c(g, q, eps)));
    return x ? wf_reshape(g, y, x->shape) : NULL;
}

static wf_status setup(wf_module *m) {
    return wf_group_scale_check(m, "groups", ((const options *)m->opt)->groups);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    return wf_group_scale(b, m, x, o->groups, o->eps);
}

const wf_part wf_norm_groupscale = {
    .slot = "norm",
    .name = "groupscale",
    .title = "groups of channels divided by their root mean square; no parameters",
    .paper = "Shen, Yao, Gholami, Mahoney, Keutzer: PowerNorm: Rethinking Batch Normalization in Transformers, 2020, arXiv "
             "2003.07845 (its first stage)",
    .sheet = "23",
    .formula = "y = x / sqrt(mean over the group of x^2 + eps)",
    .facts =
        "With one group it is RMSNorm without gain. What remains of a power norm whose scale is folded into the next linear.",
    .cost = "about 3 D FLOPs a token and a root for each group, no parameters, no state",
    .golden = "norm.power",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .forward = forward,
};
