/* batchnorm.c: BatchNorm over tokens (Ioffe, Szegedy 2015): statistics per channel over all kept tokens of the batch.
 *
 *     training:   mu, v = mean and biased variance over the N kept tokens;  y = w (x - mu)/sqrt(v + eps) + b
 *                 running_mean <- (1-m) running_mean + m mu;  running_var <- (1-m) running_var + m v N/(N-1)
 *     evaluation: the same with the running statistics: an affine map that folds into the next linear
 *
 * Padded tokens (wf_keep_mask) do not count and are 0 in training.
 */
#include "part/norm/batch.h"

#include <math.h>

typedef struct options {
    double eps, momentum;
    bool affine;
} options;

static const wf_option table[] = {
    {"eps", WF_OPT_REAL, offsetof(options, eps), "1e-5", 0, 1, NULL, "added to the variance"},
    {"momentum", WF_OPT_REAL, offsetof(options, momentum), "0.1", 0, 1, NULL, "weight of the new statistic in the running one"},
    WF_NORM_AFFINE_OPTIONS(options),
    WF_OPT_END};

wf_status wf_batchnorm_setup(wf_module *m, const wf_batchnorm *o) {
    if (!wf_declare_buffer(m, "running_mean", WF_F32, WF_SHAPE(m->in), 0)) return WF_ENOMEM;
    if (!wf_declare_buffer(m, "running_var", WF_F32, WF_SHAPE(m->in), 1)) return WF_ENOMEM;
    return wf_norm_affine_setup(m, o->affine, o->start, o->affine);
}

/* A running statistic moves, except in a step that the gate or `may` (either may be NULL) forbids. */
static wf_status move(wf_build *b, wf_module *m, const char *name, wf_node *now, const wf_batchnorm *o, wf_node *may) {
    wf_graph *g = b->g;
    wf_node *old = wf_use(b, m, name), *next = wf_norm_blend(g, old, now, 1 - o->momentum);
    if (may) next = wf_where(g, may, next, old);
    return wf_update(b, m, name, o->gate ? wf_where(g, o->gate, next, old) : next);
}

wf_node *wf_batchnorm_train(wf_build *b, wf_module *m, const wf_norm_tokens *t, const wf_batchnorm *o) {
    wf_graph *g = b->g;
    wf_node *n = t->counted, *mu, *v = wf_moments(g, t->x, 1, t->keep, t->keep ? wf_max_c(g, n, 1) : NULL, &mu);
    wf_node *w = wf_use_or_null(b, m, "weight"), *c = wf_use_or_null(b, m, "bias");
    wf_node *r = wf_rsqrt(g, wf_add_c(g, v, o->eps));
    wf_node *y = wf_mul(g, wf_sub(g, t->x, mu), w ? wf_mul(g, r, w) : r); /* one factor a channel */
    if (c) y = wf_add(g, y, c);
    v = wf_reshape(g, v, WF_SHAPE(m->in));
    mu = wf_reshape(g, mu, WF_SHAPE(m->in));
    /* One token has no unbiased variance: the running one stays. */
    wf_node *unbiased = wf_mul(g, v, wf_div(g, n, wf_max_c(g, wf_add_c(g, n, -1), 1)));
    wf_node *many = n ? wf_lt(g, wf_fill(g, n->dtype, WF_SHAPE(1), 1.5), n) : NULL;
    wf_node *some = n ? wf_lt(g, wf_fill(g, n->dtype, WF_SHAPE(1), 0.5), n) : NULL;
    if (!many || !some) return NULL;
    if (move(b, m, "running_mean", mu, o, some) != WF_OK) return NULL;
    return move(b, m, "running_var", unbiased, o, many) == WF_OK ? y : NULL;
}

wf_node *wf_batchnorm_eval(wf_build *b, wf_module *m, wf_node *x, double eps) {
    wf_graph *g = b->g;
    wf_node *r = wf_rsqrt(g, wf_add_c(g, wf_use(b, m, "running_var"), eps));
    return wf_norm_affine(b, m, wf_mul(g, wf_sub(g, x, wf_use(b, m, "running_mean")), r));
}

void wf_batchnorm_fold(const wf_module *m, double eps, double *a, double *c) {
    const wf_tensor *mean = wf_norm_tensor(m, "running_mean"), *var = wf_norm_tensor(m, "running_var");
    for (int64_t i = 0; i < m->in; i++) {
        a[i] = 1 / sqrt(wf_tensor_get(var, i) + eps);
        c[i] = -wf_tensor_get(mean, i) * a[i];
    }
    wf_norm_affine_fold(m, a, c);
}

static wf_batchnorm with(const wf_module *m) {
    const options *o = m->opt;
    return (wf_batchnorm){.eps = o->eps, .momentum = o->momentum, .start = 1, .affine = o->affine};
}

static wf_status setup(wf_module *m) {
    wf_batchnorm o = with(m);
    return wf_batchnorm_setup(m, &o);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    wf_batchnorm o = with(m);
    wf_norm_tokens t;
    if (!x) return NULL;
    if (!b->train) return wf_batchnorm_eval(b, m, x, o.eps);
    if (!wf_norm_tokens_of(b, m, x, &t)) return NULL;
    wf_node *y = wf_batchnorm_train(b, m, &t, &o);
    if (t.keep) y = wf_mul(b->g, y, t.keep);
    return wf_reshape(b->g, y, x->shape);
}

static wf_status fold(const wf_module *m, double *a, double *c) {
    wf_batchnorm_fold(m, with(m).eps, a, c);
    return WF_OK;
}

const wf_part wf_norm_batchnorm = {
    .slot = "norm",
    .name = "batchnorm",
    .title = "BatchNorm over tokens: statistics per channel over the batch, running ones for inference",
    .paper = "Ioffe, Szegedy: Batch Normalization, 2015, arXiv 1502.03167",
    .sheet = "00",
    .formula = "train: y = weight * (x-mu)/sqrt(v+eps) + bias, mu and v over all kept tokens\neval: the same with "
               "running_mean, running_var",
    .facts = "Statistics see later tokens and other sequences in training: causality holds in evaluation only. Small batches "
             "show a gap\n"
             "between training and evaluation. In evaluation it folds into a linear and costs nothing.",
    .cost = "about 8 D FLOPs a token in training, 2 D (0 when folded) in use; 2 D parameters, 2 D running numbers",
    .golden = "norm.batchnorm-tokens",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .forward = forward,
    .fold = fold,
};
