/* groupnorm.c: GroupNorm (Wu, He 2018): channels in G consecutive groups, each with its own mean and variance.
 *
 *     over = token:  statistics over the D/G channels of one token's group
 *     over = sample: statistics over all L tokens and the D/G channels of a group; G = D is InstanceNorm. Sees the whole
 *                    sequence, so it is not for causal models.
 *
 * The affine part is per channel.
 */
#include "part/norm/norm.h"

#include <string.h>

typedef struct options {
    double eps;
    bool affine;
    int64_t groups;
    const char *over;
} options;

static const wf_option table[] = {{"groups", WF_OPT_INT, offsetof(options, groups), "1", 0, 1 << 20, NULL,
                                   "groups of channels; 0: one a channel (InstanceNorm with over: sample)"},
                                  {"over", WF_OPT_CHOICE, offsetof(options, over), "token", 0, 0, "token|sample",
                                   "what a statistic covers: one token's group, or a group over the whole sequence"},
                                  {"eps", WF_OPT_REAL, offsetof(options, eps), "1e-5", 0, 1, NULL, "added to the variance"},
                                  WF_NORM_AFFINE_OPTIONS(options),
                                  WF_OPT_END};

static int64_t groups_of(const wf_module *m) {
    const options *o = m->opt;
    return o->groups ? o->groups : m->in;
}

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    int64_t G = groups_of(m);
    if (m->in % G)
        return wf_module_fail(m, WF_EINVAL, "'groups' must divide the width (%lld does not divide %lld)", (long long)G,
                              (long long)m->in);
    if (m->model->causal && !strcmp(o->over, "sample"))
        return wf_module_fail(m, WF_EINVAL,
                              "over: sample sees the whole sequence, so it cannot be used in a causal model; take over: token");
    return wf_norm_affine_setup(m, o->affine, 1, o->affine);
}

static wf_node *over_token(wf_graph *g, wf_node *u, double eps) {
    wf_node *c = wf_sub(g, u, wf_mean(g, u, wf_last(u), true));
    wf_node *v = wf_mean(g, wf_square(g, c), wf_last(u), true);
    return wf_mul(g, c, wf_rsqrt(g, wf_add_c(g, v, eps)));
}

/* The tokens do not stay in the cache: both statistics in one reading. */
static wf_node *over_sample(wf_graph *g, wf_node *u, double eps) {
    wf_node *mu, *v = wf_moments(g, u, 1u << 1 | 1u << 3, NULL, NULL, &mu);
    return wf_mul(g, wf_sub(g, u, mu), wf_rsqrt(g, wf_add_c(g, v, eps)));
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    if (!x) return NULL;
    int64_t D = m->in, G = groups_of(m), rows = wf_shape_count(&x->shape) / D;
    wf_shape shape = x->shape;
    bool sample = !strcmp(o->over, "sample");
    int64_t outer = sample ? shape.dim[0] : rows, inner = rows / (outer ? outer : 1);
    wf_node *u = wf_reshape(g, x, WF_SHAPE(outer, inner, G, D / G));
    wf_node *y = sample ? over_sample(g, u, o->eps) : over_token(g, u, o->eps);
    return wf_norm_affine(b, m, wf_reshape(g, y, shape));
}

const wf_part wf_norm_groupnorm = {
    .slot = "norm",
    .name = "groupnorm",
    .title = "GroupNorm: mean and variance by group of channels, in a token or over a whole sample",
    .paper = "Wu, He: Group Normalization, 2018, arXiv 1803.08494",
    .sheet = "00",
    .formula = "u = x in G groups of D/G channels\ny = weight * (u - mean u)/sqrt(var u + eps) + bias; mean, var over the "
               "group (token) or over L and the group (sample)",
    .facts = "groups: 1, over: token is LayerNorm; groups: 0, over: sample is InstanceNorm. over: sample looks ahead.",
    .cost = "about 8 D FLOPs a token, 2 D parameters, no state",
    .golden = "norm.token-norms",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .forward = forward,
};
