/* unified.c: Unified Normalization (Yang et al. 2022): a quadratic-mean batch norm without centring whose statistics are smoothed
 * over a window of M steps, forward and backward; evaluation is one scale a channel, which folds into the next linear.
 *
 * Training step t = 1, 2, ..; per channel, q = mean over kept tokens of x^2, GM = geometric mean of q over the window:
 *     var = GM, or q in the first M steps, in the warm-up and in skipped steps;  z = x / sqrt(var + eps),  y = w z + b
 *     running_var <- mu running_var + (1-mu) var
 * Backward, approximate by design, g = w r dy, r = sqrt(var/running_var) in [1/5, 5] (1 early on): mean of g z over all tokens,
 * its mean over the window of M' steps, and of those a running mean ema_gz;  dx = (g - ema_gz z) / sqrt(var + eps).
 *
 * A step is skipped (M = 1: always) when outlier_filtration finds the arithmetic mean of the window far above the geometric one:
 * the window then takes running_var in place of q, and the exact gradient of the batch statistic is used.
 */
#include "part/norm/batch.h"

#include <math.h>
#include <string.h>

typedef struct options {
    const wf_value *window;
    int64_t warmup;
    double eps, momentum;
    bool filter, affine;
    const char *threshold, *skip_running;
} options;

/* clang-format off */
static const wf_option table[] = {
    {"window", WF_OPT_VALUE, offsetof(options, window), "", 0, 0, NULL,
     "steps of the windows, 1 .. 1024: a number, or [forward, backward]; default 4; 1: batch statistics with their true gradient"},
    {"warmup_iters", WF_OPT_INT, offsetof(options, warmup), "4000", 0, 1e9, NULL,
     "first steps, which use the batch's own statistic"},
    {"outlier_filtration", WF_OPT_BOOL, offsetof(options, filter), "false", 0, 0, NULL,
     "keep outlying batches out of the window (the authors: false for text, true for pictures)"},
    {"threshold", WF_OPT_CHOICE, offsetof(options, threshold), "code", 0, 0, "code|per_channel",
     "code: one bound from all slots and channels, any channel beyond it skips the step; per_channel: each judged and skipped alone"},
    {"skip_updates_running", WF_OPT_CHOICE, offsetof(options, skip_running), "code", 0, 0, "code|off",
     "whether a filtered step still moves running_var (as the authors' code does)"},
    {"eps", WF_OPT_REAL, offsetof(options, eps), "1e-5", 0, 1, NULL, "added to the mean square"},
    {"momentum", WF_OPT_REAL, offsetof(options, momentum), "0.9", 0, 1, NULL, "weight of the old value in running statistics"},
    WF_NORM_AFFINE_OPTIONS(options),
    WF_OPT_END};
/* clang-format on */

typedef struct windows {
    int64_t forward, backward;
} windows;

enum { WINDOW_MAX = 1024, CALIBRATED_AFTER = 1000 };

static wf_status read_windows(wf_module *m, const wf_value *v, windows *w) {
    *w = (windows){4, 4};
    if (!v) return WF_OK;
    bool pair = v->kind == WF_V_LIST && v->n == 2;
    const wf_value *f = pair ? v->item[0] : v, *k = pair ? v->item[1] : v;
    if (f->kind != WF_V_TEXT || k->kind != WF_V_TEXT || wf_value_int(f, &w->forward) != WF_OK ||
        wf_value_int(k, &w->backward) != WF_OK || w->forward < 1 || w->backward < 1 || w->forward > WINDOW_MAX ||
        w->backward > WINDOW_MAX)
        return wf_module_fail(m, WF_EINVAL, "'window' must be a number of 1 .. %d, or two: [forward, backward]",
                              (int)WINDOW_MAX);
    return WF_OK;
}

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    windows *w = m->data = wf_arena_alloc(m->model->arena, sizeof *w);
    if (!w) return WF_ENOMEM;
    WF_TRY(read_windows(m, o->window, w));
    if (!wf_declare_buffer(m, "running_var", WF_F32, WF_SHAPE(m->in), 1) ||
        !wf_declare_buffer(m, "ema_gz", WF_F32, WF_SHAPE(m->in), 0) ||
        !wf_declare_buffer(m, "buffer_x2", WF_F32, WF_SHAPE(w->forward, m->in), 0) ||
        !wf_declare_buffer(m, "buffer_gz", WF_F32, WF_SHAPE(w->backward, m->in), 0) ||
        !wf_declare_buffer(m, "iters", WF_I32, WF_SHAPE(1), 0) || !wf_declare_buffer(m, "skip_counter", WF_I32, WF_SHAPE(1), 0))
        return WF_ENOMEM;
    return wf_norm_affine_setup(m, o->affine, 1, o->affine);
}

/* [M,1]: 1 in row t mod M. */
static wf_node *slot(wf_graph *g, wf_node *t, int64_t M, wf_dtype type) {
    wf_node *size = wf_norm_number(g, (double)M);
    wf_node *at = wf_sub(g, t, wf_mul(g, size, wf_floor(g, wf_div(g, t, size))));
    return wf_cast(g, wf_eq(g, wf_index(g, WF_F64, WF_SHAPE(M, 1), 0), at), type);
}

/* 1 where t <= last or t < before. */
static wf_node *early(wf_graph *g, wf_node *t, int64_t last, int64_t before, wf_dtype type) {
    wf_node *a = wf_le(g, t, wf_norm_number(g, (double)last)), *c = wf_lt(g, t, wf_norm_number(g, (double)before));
    return wf_cast(g, wf_max(g, a, c), type);
}

/* ---- forward ---- */

typedef struct step { /* one training step; per channel [D] unless said otherwise */
    wf_node *t;       /* [1] float64 */
    wf_node *q, *old; /* this batch's mean square; running_var before */
    wf_node *skip;    /* [1] or [D]: the exact gradient, the batch's own statistic */
    wf_node *outlier; /* the same for filtered steps only; NULL without a filter */
    wf_node *var, *r;
} step;

/* Unbiased variance of the roots of the window before this step, over slots and channels, or slots alone. */
static wf_node *recorded(wf_graph *g, wf_node *buffer, bool per_channel) {
    wf_node *x = wf_sqrt(g, buffer);
    if (!x) return NULL;
    unsigned axes = per_channel ? 1 : 3;
    int64_t n = x->shape.dim[0] * (per_channel ? 1 : x->shape.dim[1]);
    wf_node *c = wf_sub(g, x, wf_mean(g, x, axes, true));
    wf_node *v = wf_mul_c(g, wf_sum(g, wf_square(g, c), axes, true), 1.0 / (double)(n > 1 ? n - 1 : 1));
    return wf_reshape(g, v, WF_SHAPE(-1));
}

/* Arithmetic above geometric mean by more than M times the recorded variance. A millionth of the mean itself is rounding. */
static wf_node *find_outlier(const options *o, wf_graph *g, const step *s, wf_node *buffer, wf_node *window, wf_node *gm) {
    bool per_channel = !strcmp(o->threshold, "per_channel");
    if (!buffer) return NULL;
    wf_node *am = wf_mean(g, window, 1, false),
            *bound = wf_mul_c(g, recorded(g, buffer, per_channel), (double)buffer->shape.dim[0]);
    wf_node *over = wf_lt(g, wf_add(g, bound, wf_mul_c(g, am, 1e-6)), wf_sub(g, am, gm));
    if (!per_channel) over = wf_amax(g, over, 1, true);
    wf_node *late = wf_le(g, wf_norm_number(g, (double)o->warmup), s->t);
    return wf_mul(g, over, wf_cast(g, late, buffer->dtype));
}

static wf_status statistics(wf_build *b, wf_module *m, wf_node *q, step *s) {
    const options *o = m->opt;
    const windows *w = m->data;
    wf_graph *g = b->g;
    wf_node *buffer = wf_use(b, m, "buffer_x2");
    s->q = q;
    s->old = wf_use(b, m, "running_var");
    s->t = wf_norm_count(b, m, "iters");
    if (!q || !buffer || !s->t) return WF_EINVAL;
    wf_dtype T = q->dtype;
    wf_node *at = slot(g, s->t, w->forward, T), *window = wf_where(g, at, q, buffer);
    wf_node *gm = wf_exp(g, wf_mean(g, wf_log(g, window), 1, false)); /* a slot that is 0 makes it exp(-inf) = 0 */
    s->skip = wf_fill(g, T, WF_SHAPE(1), w->forward == 1);
    if (o->filter) {
        s->outlier = find_outlier(o, g, s, buffer, window, gm);
        window = wf_where(g, wf_mul(g, at, s->outlier), s->old, window);
        s->skip = wf_max(g, s->skip, s->outlier);
        wf_node *any = wf_cast(g, wf_amax(g, s->outlier, 1, true), WF_F64);
        WF_TRY(wf_update(b, m, "skip_counter", wf_add(g, wf_norm_counter(b, m, "skip_counter"), any)));
    }
    WF_TRY(wf_update(b, m, "buffer_x2", window));
    s->var = wf_where(g, wf_max(g, early(g, s->t, w->forward, o->warmup, T), s->skip), q, gm);
    int64_t calibrated = o->warmup > CALIBRATED_AFTER ? o->warmup : CALIBRATED_AFTER;
    wf_node *r = wf_sqrt(g, wf_div(g, wf_add_c(g, s->var, o->eps), wf_add_c(g, s->old, o->eps)));
    wf_node *off = wf_max(g, early(g, s->t, calibrated, 0, T), s->skip);
    s->r = wf_where(g, off, wf_fill(g, T, WF_SHAPE(1), 1), wf_clamp(g, r, 0.2, 5));
    wf_node *next = wf_norm_blend(g, s->old, s->var, o->momentum);
    if (s->outlier && !strcmp(o->skip_running, "off")) next = wf_where(g, s->outlier, s->old, next);
    return wf_update(b, m, "running_var", next);
}

/* ---- backward ---- */

enum { IN_X, IN_INV, IN_R, IN_SKIP, IN_T, IN_EMA, IN_BUFFER, IN_WEIGHT, IN_BIAS, N_IN };

/* The running gradient statistics of this step; *s: what of z is taken off. gz [D]: mean of g z. */
static wf_status correct(wf_graph *g, wf_norm_backward *k, wf_node *const *in, wf_node *gz, wf_node **s) {
    const options *o = k->m->opt;
    const windows *w = k->m->data;
    wf_node *ema = in[IN_EMA], *skip = in[IN_SKIP], *t = in[IN_T];
    wf_dtype T = ema->dtype;
    wf_node *window = wf_where(g, slot(g, t, w->backward, T), wf_where(g, skip, ema, gz), in[IN_BUFFER]);
    wf_node *plain = wf_max(g, early(g, t, w->backward, o->warmup, T), skip);
    wf_node *mean = wf_where(g, plain, gz, wf_mean(g, window, 1, false));
    wf_node *next = wf_norm_blend(g, ema, mean, o->momentum);
    *s = wf_where(g, skip, mean, next);
    wf_build *b = wf_norm_backward_begin(k);
    if (!b) return WF_OK;
    WF_TRY(wf_update(b, k->m, "buffer_gz", window));
    return wf_update(b, k->m, "ema_gz", next);
}

/* Per channel: dx = w r inv dy - s inv^2 x, with the two sums over tokens that also give the gradients of w and b. */
static wf_status backward(wf_graph *g, void *ctx, wf_node *value, wf_node *const *in, int n_in, wf_node *gout, wf_node **gin) {
    wf_node *x = in[IN_X], *inv = in[IN_INV], *r = in[IN_R], *s = NULL;
    wf_node *gain = n_in > IN_WEIGHT ? wf_mul(g, in[IN_WEIGHT], r) : r;
    wf_node *dot = wf_mul(g, inv, wf_sum(g, wf_mul(g, gout, x), 1, false)); /* sum of dy z */
    wf_node *gz = wf_mul_c(g, wf_mul(g, gain, dot), 1.0 / (double)(x->shape.dim[0] > 0 ? x->shape.dim[0] : 1));
    if (!gz) return wf_graph_status(g);
    WF_TRY(correct(g, ctx, in, gz, &s));
    gin[IN_X] = wf_sub(g, wf_mul(g, gout, wf_mul(g, gain, inv)), wf_mul(g, x, wf_mul(g, s, wf_square(g, inv))));
    if (n_in > IN_WEIGHT) {
        gin[IN_WEIGHT] = wf_mul(g, r, dot);
        gin[IN_BIAS] = wf_sum(g, gout, 1, false);
    }
    return wf_graph_status(g);
}

static wf_node *train(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    wf_norm_tokens t;
    step s = {0};
    if (!wf_norm_tokens_of(b, m, x, &t) || statistics(b, m, wf_norm_mean(g, &t, wf_square(g, t.x)), &s) != WF_OK) return NULL;
    wf_norm_backward *k = wf_norm_backward_new(b, m);
    wf_node *inv = wf_rsqrt(g, wf_add_c(g, s.var, o->eps)), *w = wf_use_or_null(b, m, "weight"),
            *c = wf_use_or_null(b, m, "bias");
    wf_node *y = wf_mul(g, t.x, w ? wf_mul(g, inv, w) : inv);
    if (c) y = wf_add(g, y, c);
    wf_node *in[N_IN] = {t.x, inv, s.r, s.skip, s.t, wf_use(b, m, "ema_gz"), wf_use(b, m, "buffer_gz"), w, c};
    if (!k) return NULL;
    return wf_reshape(g, wf_custom(g, y, in, w ? N_IN : IN_WEIGHT, backward, k), x->shape);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    if (!x) return NULL;
    if (b->train) return train(b, m, x);
    wf_node *a = wf_rsqrt(g, wf_add_c(g, wf_use(b, m, "running_var"), o->eps)), *w = wf_use_or_null(b, m, "weight");
    wf_node *y = wf_mul(g, x, w ? wf_mul(g, a, w) : a);
    return w ? wf_add(g, y, wf_use(b, m, "bias")) : y;
}

static wf_status fold(const wf_module *m, double *a, double *c) {
    const options *o = m->opt;
    const wf_tensor *var = wf_norm_tensor(m, "running_var");
    for (int64_t i = 0; i < m->in; i++) a[i] = 1 / sqrt(wf_tensor_get(var, i) + o->eps), c[i] = 0;
    wf_norm_affine_fold(m, a, c);
    return WF_OK;
}

const wf_part wf_norm_unified = {
    .slot = "norm",
    .name = "unified",
    .title = "Unified Normalization: batch statistics smoothed over a window, one foldable scale in use",
    .paper =
        "Yang, Zhang, Lan et al.: Unified Normalization for Accelerating and Stabilizing Transformers, 2022, arXiv 2208.01313",
    .sheet = "03",
    .formula = "q = mean over tokens of x^2; var = geometric mean of q over the last M steps (early or skipped: q)\n"
               "y = weight * x/sqrt(var+eps) + bias; running_var <- mu running_var + (1-mu) var\n"
               "dx = (g - ema_gz z)/sqrt(var+eps), g = weight r dy: window and running mean of the mean of g z\n"
               "eval: y = weight * x/sqrt(running_var+eps) + bias",
    .facts =
        "Set warmup_iters to a part of the run (the authors: 4000 of 100000 steps, as the learning rate's). The backward pass "
        "is approximate by design and keeps state: one backward to each forward; every micro batch counts as a step. Wants "
        "a stream of unit scale: embeddings of standard deviation 1, not 0.02. Batch statistics see later tokens in training. "
        "For fine-tuning start from fresh counters and windows: train.start with train.reset_state. The filter protects the "
        "window, not running_var, which outliers still move (skip_updates_running: off keeps them out).",
    .cost = "about 8 D FLOPs a token in training, 2 D (0 when folded) in use; 2 D parameters, (M + M' + 2) D running numbers",
    .golden = "norm.unified",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .forward = forward,
    .fold = fold,
};
