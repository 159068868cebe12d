/* batchnorm.c: BatchNorm over tokens (Ioffe, Szegedy 2015): statistics per channel over all kept tokens of the batch.
 *
 *     training:   mu, v = mean and biased variance over the N kept tokens;  y = w (x - mu)/sqrt(v + eps) + b
 *                 running_mean <- (1-m) running_mean + m mu;  running_var <- (1-m) running_var + m v N/(N-1)
 *     evaluation: the same with the running statistics: an affine map that folds into the next linear
 *
 * Padded tokens (wf_keep_mask) do not count and are 0 in training.
 */
#include "part/norm/norm.h"

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

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    if (!wf_declare_buffer(m, "running_mean", WF_F32, WF_SHAPE(m->in), 0)) return WF_ENOMEM;
    if (!wf_declare_buffer(m, "running_var", WF_F32, WF_SHAPE(m->in), 1)) return WF_ENOMEM;
    return wf_norm_affine_setup(m, o->affine, 1, o->affine);
}

static wf_node *blend(wf_graph *g, wf_node *old, wf_node *now, double m) {
    return wf_add(g, wf_mul_c(g, old, 1 - m), wf_mul_c(g, now, m));
}

static wf_node *train(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    int64_t D = m->in, rows = wf_shape_count(&x->shape) / D;
    wf_node *keep = wf_keep_mask(b, x), *u = wf_reshape(g, x, WF_SHAPE(rows, D));
    wf_node *n = keep ? wf_sum_all(g, keep) : wf_fill(g, u->dtype, WF_SHAPE(1), (double)rows);
    wf_node *k = keep ? wf_reshape(g, wf_as(b, keep, x->dtype), WF_SHAPE(rows, 1)) : NULL;
    wf_node *inv = wf_recip(g, wf_max_c(g, n, 1));
    wf_node *mu = wf_mul(g, wf_sum(g, k ? wf_mul(g, u, k) : u, 1, false), inv);
    wf_node *c = wf_sub(g, u, mu);
    if (k) c = wf_mul(g, c, k);
    wf_node *v = wf_mul(g, wf_sum(g, wf_square(g, c), 1, false), inv);
    wf_node *y = wf_norm_affine(b, m, wf_mul(g, c, wf_rsqrt(g, wf_add_c(g, v, o->eps))));
    if (k) y = wf_mul(g, y, k);
    /* One token has no unbiased variance: the running one stays. */
    wf_node *rm = wf_use(b, m, "running_mean"), *rv = wf_use(b, m, "running_var");
    wf_node *unbiased = wf_mul(g, v, wf_div(g, n, wf_max_c(g, wf_add_c(g, n, -1), 1)));
    wf_node *many = wf_lt(g, wf_fill(g, n ? n->dtype : WF_F32, WF_SHAPE(1), 1.5), n);
    if (wf_update(b, m, "running_mean", blend(g, rm, mu, o->momentum)) != WF_OK) return NULL;
    if (wf_update(b, m, "running_var", wf_where(g, many, blend(g, rv, unbiased, o->momentum), rv)) != WF_OK) return NULL;
    return wf_reshape(g, y, x->shape);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    if (b->train && x) return train(b, m, x);
    wf_node *r = wf_rsqrt(g, wf_add_c(g, wf_use(b, m, "running_var"), o->eps));
    return wf_norm_affine(b, m, wf_mul(g, wf_sub(g, x, wf_use(b, m, "running_mean")), r));
}

static wf_status fold(const wf_module *m, double *a, double *b) {
    const options *o = m->opt;
    const float *mean = m->param[0]->value->data, *var = m->param[1]->value->data;
    const float *w = o->affine ? m->param[2]->value->data : NULL, *c = o->affine ? m->param[3]->value->data : NULL;
    for (int64_t i = 0; i < m->in; i++) {
        a[i] = (w ? w[i] : 1) / sqrt((double)var[i] + o->eps);
        b[i] = (c ? c[i] : 0) - a[i] * mean[i];
    }
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
