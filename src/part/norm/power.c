/* power.c: PowerNorm (Shen et al. 2020): per-token group scaling, then a quadratic-mean batch norm without centring that uses the
 * running statistic already in training, with an approximate backward pass.
 *
 *     stage 1: u = x / sqrt(mean over the group of x^2 + group_eps), groups of consecutive channels of one token
 *     stage 2, step t = 1, 2, ..; per channel, q = mean over kept tokens of u^2:
 *         z = u / sqrt(phi + eps), in the warm-up u / sqrt(q + eps);  y = w z + b
 *         phi <- cumulative mean of q in the warm-up, then always phi <- alpha_fwd phi + (1-alpha_fwd) q
 *     backward of stage 2, g = w dy: a = g - (1-alpha_bkw) ema_gz z;  ema_gz <- ema_gz + mean over all tokens of a z;
 *         du = a / sqrt(q + eps)
 *
 * variant vanilla (PN-V) always uses q, with its true gradient. Norm groupscale is stage 1 alone: what a fold leaves.
 */
#include "part/norm/batch.h"

#include <math.h>
#include <string.h>

typedef struct options {
    int64_t groups, warmup;
    double alpha_fwd, alpha_bkw, eps, group_eps;
    const char *variant, *scale;
    bool group_scale, affine;
} options;

/* clang-format off */
static const wf_option table[] = {
    {"group_num", WF_OPT_INT, offsetof(options, groups), "1", 1, 1 << 20, NULL, "groups of stage 1 (the authors: as many as heads)"},
    {"warmup_iters", WF_OPT_INT, offsetof(options, warmup), "10000", 0, 1e9, NULL,
     "first steps, which use the batch's own statistic (the authors: the learning rate's warm-up; 1000 in final norms)"},
    {"alpha_fwd", WF_OPT_REAL, offsetof(options, alpha_fwd), "0.9", 0, 1, NULL, "weight of the old value in running_phi"},
    {"alpha_bkw", WF_OPT_REAL, offsetof(options, alpha_bkw), "0.9", 0, 1, NULL,
     "1 minus the strength of the gradient's correction; raise it if ema_gz drifts"},
    {"variant", WF_OPT_CHOICE, offsetof(options, variant), "power", 0, 0, "power|vanilla",
     "power: running statistics in training, approximate gradient; vanilla (PN-V): batch statistics, true gradient"},
    {"bwd_scale", WF_OPT_CHOICE, offsetof(options, scale), "batch", 0, 0, "batch|running",
     "what the gradient is divided by: this batch's statistic (the authors' code), or what the forward pass used (the paper)"},
    {"group_scale", WF_OPT_BOOL, offsetof(options, group_scale), "true", 0, 0, NULL, "stage 1; without it training is not stable"},
    {"eps", WF_OPT_REAL, offsetof(options, eps), "1e-5", 0, 1, NULL, "added to the mean square of stage 2"},
    {"group_eps", WF_OPT_REAL, offsetof(options, group_eps), "1e-5", 0, 1, NULL,
     "added to that of stage 1 (the authors' code has 1e-5 there whatever eps is)"},
    WF_NORM_AFFINE_OPTIONS(options),
    WF_OPT_END};
/* clang-format on */

static bool vanilla(const options *o) {
    return !strcmp(o->variant, "vanilla");
}

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    WF_TRY(wf_group_scale_check(m, "group_num", o->groups));
    if (!wf_declare_buffer(m, "running_phi", WF_F32, WF_SHAPE(m->in), 1)) return WF_ENOMEM;
    if (!vanilla(o) && !wf_declare_buffer(m, "ema_gz", WF_F32, WF_SHAPE(m->in), 0)) return WF_ENOMEM;
    if (!wf_declare_buffer(m, "iters", WF_I32, WF_SHAPE(1), 0)) return WF_ENOMEM;
    return wf_norm_affine_setup(m, o->affine, 1, o->affine);
}

/* phi after a step. */
static wf_status move_phi(wf_build *b, wf_module *m, wf_node *t, wf_node *phi, wf_node *q) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    if (!q || !t) return WF_EINVAL;
    wf_node *share = wf_cast(g, wf_recip(g, t), q->dtype), *early = wf_lt(g, t, wf_norm_number(g, (double)o->warmup));
    wf_node *mean = wf_add(g, phi, wf_mul(g, wf_sub(g, q, phi), share));
    wf_node *base = wf_where(g, wf_cast(g, early, q->dtype), mean, phi);
    return wf_update(b, m, "running_phi", wf_norm_blend(g, base, q, o->alpha_fwd));
}

enum { IN_X, IN_INV, IN_BATCH, IN_EMA, IN_WEIGHT, IN_BIAS, N_IN };

/* inv: what the forward pass multiplied by; batch: 1/sqrt(q + eps). */
static wf_status backward(wf_graph *g, void *ctx, wf_node *value, wf_node *const *in, int n_in, wf_node *gout, wf_node **gin) {
    wf_norm_backward *k = ctx;
    const options *o = k->m->opt;
    wf_node *u = in[IN_X], *inv = in[IN_INV], *ema = in[IN_EMA], *w = n_in > IN_WEIGHT ? in[IN_WEIGHT] : NULL;
    double share = 1.0 / (double)(u->shape.dim[0] > 0 ? u->shape.dim[0] : 1);
    wf_node *dot = wf_mul(g, inv, wf_sum(g, wf_mul(g, gout, u), 1, false)); /* sum of dy z */
    wf_node *gz = wf_mul_c(g, w ? wf_mul(g, w, dot) : dot, share);
    wf_node *zz = wf_mul_c(g, wf_mul(g, wf_square(g, inv), wf_sum(g, wf_square(g, u), 1, false)), share);
    wf_node *nu = wf_mul_c(g, ema, 1 - o->alpha_bkw), *az = wf_sub(g, gz, wf_mul(g, nu, zz));
    wf_node *scale = !strcmp(o->scale, "running") ? inv : in[IN_BATCH];
    wf_node *along = wf_mul(g, gout, w ? wf_mul(g, w, scale) : scale);
    gin[IN_X] = wf_sub(g, along, wf_mul(g, u, wf_mul(g, wf_mul(g, nu, inv), scale)));
    if (w) {
        gin[IN_WEIGHT] = dot;
        gin[IN_BIAS] = wf_sum(g, gout, 1, false);
    }
    wf_build *b = wf_norm_backward_begin(k);
    return b ? wf_update(b, k->m, "ema_gz", wf_add(g, ema, az)) : wf_graph_status(g);
}

static wf_node *train(wf_build *b, wf_module *m, wf_node *u) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    wf_norm_tokens s;
    if (!wf_norm_tokens_of(b, m, u, &s)) return NULL;
    wf_node *q = wf_norm_mean(g, &s, wf_square(g, s.x)), *phi = wf_use(b, m, "running_phi"), *t = wf_norm_count(b, m, "iters");
    if (move_phi(b, m, t, phi, q) != WF_OK) return NULL;
    wf_node *batch = wf_rsqrt(g, wf_add_c(g, q, o->eps)), *w = wf_use_or_null(b, m, "weight");
    if (vanilla(o)) return wf_reshape(g, wf_norm_affine(b, m, wf_mul(g, s.x, batch)), u->shape);
    wf_node *warm = wf_le(g, t, wf_norm_number(g, (double)o->warmup));
    wf_node *inv = wf_where(g, wf_cast(g, warm, q->dtype), batch, wf_rsqrt(g, wf_add_c(g, phi, o->eps)));
    wf_node *c = wf_use_or_null(b, m, "bias"), *y = wf_mul(g, s.x, w ? wf_mul(g, inv, w) : inv);
    if (c) y = wf_add(g, y, c);
    wf_node *in[N_IN] = {s.x, inv, batch, wf_use(b, m, "ema_gz"), w, c};
    wf_norm_backward *k = wf_norm_backward_new(b, m);
    return k ? wf_reshape(g, wf_custom(g, y, in, w ? N_IN : IN_WEIGHT, backward, k), u->shape) : NULL;
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    wf_node *u = o->group_scale ? wf_group_scale(b, m, x, o->groups, o->group_eps) : x;
    if (!u) return NULL;
    if (b->train) return train(b, m, u);
    wf_node *a = wf_rsqrt(g, wf_add_c(g, wf_use(b, m, "running_phi"), o->eps)), *w = wf_use_or_null(b, m, "weight");
    wf_node *y = wf_mul(g, u, w ? wf_mul(g, a, w) : a);
    return w ? wf_add(g, y, wf_use(b, m, "bias")) : y;
}

/* ---- folding ---- */

wf_status wf_norm_power_fold(const wf_module *m, double *a, double *c) {
    const options *o = m->opt;
    const wf_tensor *phi = wf_norm_tensor(m, "running_phi");
    for (int64_t i = 0; i < m->in; i++) a[i] = 1 / sqrt(wf_tensor_get(phi, i) + o->eps), c[i] = 0;
    wf_norm_affine_fold(m, a, c);
    return WF_OK;
}

wf_status wf_norm_power_rest(const wf_module *m, int64_t *groups, double *eps) {
    const options *o = m->opt;
    *groups = o->groups;
    *eps = o->group_eps;
    return o->group_scale ? WF_OK : WF_ENOTFOUND;
}

static wf_status fold(const wf_module *m, double *a, double *c) {
    if (((const options *)m->opt)->group_scale)
        return wf_module_fail(m, WF_EUNSUPPORTED,
                              "stage 1 divides every token by its own mean square, which no affine map does; stage 2 folds and "
                              "norm groupscale stays");
    return wf_norm_power_fold(m, a, c);
}

const wf_part wf_norm_power = {
    .slot = "norm",
    .name = "power",
    .title = "PowerNorm: group scaling of a token, then running quadratic means, forward and backward",
    .paper = "Shen, Yao, Gholami, Mahoney, Keutzer: PowerNorm: Rethinking Batch Normalization in Transformers, 2020, arXiv "
             "2003.07845",
    .sheet = "23",
    .formula = "u = x/sqrt(mean over group of x^2 + group_eps); q = mean over tokens of u^2\n"
               "y = weight * u/sqrt(running_phi+eps) + bias (warm-up: q in running_phi's place)\n"
               "running_phi <- alpha_fwd running_phi + (1-alpha_fwd) q\n"
               "a = weight dy - (1-alpha_bkw) ema_gz z; ema_gz <- ema_gz + mean a z; du = a/sqrt(q+eps)",
    .facts =
        "Training and use agree closely, also at small batches. The backward pass is approximate by design and keeps state: "
        "one backward to each forward; every micro batch counts as a step. ema_gz settles near ten times the mean of g z. It "
        "is "
        "stable only while (1-alpha_bkw) mean z^2 < 2: a batch far above running_phi makes it diverge, and the run then stops "
        "by name; raise alpha_bkw. The authors use it in encoders and keep LayerNorm in decoders.",
    .cost =
        "about 12 D FLOPs a token in training, 5 D in use (3 D when stage 2 is folded); 2 D parameters, 2 D running numbers",
    .golden = "norm.power",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .forward = forward,
    .fold = fold,
};
