/* prepbn.c: progressive re-parameterised BatchNorm (Guo, Chen, Tang, Wang 2024, SLAB): LayerNorm fades out while RepBN fades in,
 * so that what is left in use folds into linears.
 *
 *     training, warm > 0:  y = norm1(x), warm counts down, norm2 does not move
 *     training, warm = 0:  y = lam norm1(x) + (1-lam) norm2(x), lam = r0 iter / total_step, then iter counts down to 0
 *     evaluation:          y = norm2(x), whatever lam is
 *
 * forwards_per_step: with gradient accumulation both counters move once in so many forward passes, at the first of them.
 */
#include "part/norm/batch.h"

#include <string.h>

typedef struct options {
    int64_t warm, total, every;
    double r0, ln_eps, bn_eps, bn_momentum;
    const char *norm1, *init;
} options;

/* clang-format off */
static const wf_option table[] = {
    {"warm", WF_OPT_INT, offsetof(options, warm), "0", 0, 1 << 30, NULL, "first steps with norm1 alone (the authors, text: 10000)"},
    {"total_step", WF_OPT_INT, offsetof(options, total), "300000", 1, 1 << 30, NULL,
     "steps in which norm1 fades out: about 4/5 of the run; much shorter ones diverge"},
    {"r0", WF_OPT_REAL, offsetof(options, r0), "1", 0, 1, NULL, "share of norm1 at the start"},
    {"norm1", WF_OPT_CHOICE, offsetof(options, norm1), "layernorm", 0, 0, "layernorm|rmsnorm",
     "the norm that fades out (the authors, text: rmsnorm)"},
    {"ln_eps", WF_OPT_REAL, offsetof(options, ln_eps), "1e-5", 0, 1, NULL, "eps of norm1 (DeiT 1e-6)"},
    {"bn_eps", WF_OPT_REAL, offsetof(options, bn_eps), "1e-5", 0, 1, NULL, "eps of norm2"},
    {"bn_momentum", WF_OPT_REAL, offsetof(options, bn_momentum), "0.1", 0, 1, NULL,
     "weight of the new statistic in the running one"},
    {"init", WF_OPT_CHOICE, offsetof(options, init), "vision", 0, 0, "vision|text", "first numbers of norm2, see norm repbn"},
    {"forwards_per_step", WF_OPT_INT, offsetof(options, every), "1", 1, 1 << 20, NULL,
     "forward passes to one count (train.accumulate; the authors, text: 16)"},
    WF_OPT_END};
/* clang-format on */

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    if (!wf_declare_buffer(m, "warm", WF_I32, WF_SHAPE(1), (double)o->warm) ||
        !wf_declare_buffer(m, "iter", WF_I32, WF_SHAPE(1), (double)o->total) ||
        (o->every > 1 && !wf_declare_buffer(m, "num_step", WF_I32, WF_SHAPE(1), 0)))
        return WF_ENOMEM;
    if (!wf_child_text(m, "norm1", "norm", m->in, m->in, "{name: %s, eps: %.17g}", o->norm1, o->ln_eps)) return WF_EINVAL;
    return wf_child_text(m, "norm2", "norm", m->in, m->in, "{name: repbn, eps: %.17g, momentum: %.17g, init: %s}", o->bn_eps,
                         o->bn_momentum, o->init)
               ? WF_OK
               : WF_EINVAL;
}

/* Move the counters; *lam [1] is norm1's share of this step, *on is 1 when norm2 takes part. Both float64. */
static wf_status schedule(wf_build *b, wf_module *m, wf_node **lam, wf_node **on) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    wf_node *warm = wf_norm_counter(b, m, "warm"), *iter = wf_norm_counter(b, m, "iter"), *tick = wf_norm_number(g, 1);
    if (o->every > 1) {
        wf_node *n = wf_norm_counter(b, m, "num_step"), *zero = wf_norm_number(g, 0), *next = wf_add_c(g, n, 1);
        tick = wf_eq(g, n, zero);
        wf_node *full = wf_le(g, wf_norm_number(g, (double)o->every), next);
        WF_TRY(wf_update(b, m, "num_step", wf_where(g, full, zero, next)));
    }
    *on = wf_le(g, warm, wf_norm_number(g, 0));
    *lam = wf_where(g, *on, wf_mul_c(g, iter, o->r0 / (double)o->total), wf_norm_number(g, 1));
    WF_TRY(wf_update(b, m, "warm", wf_max_c(g, wf_sub(g, warm, tick), 0)));
    return wf_update(b, m, "iter", wf_max_c(g, wf_sub(g, iter, wf_mul(g, tick, *on)), 0));
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    wf_graph *g = b->g;
    if (!x || !b->train) return wf_apply_child(b, m, "norm2", x);
    wf_dtype T = x->dtype == WF_F64 ? WF_F64 : WF_F32;
    wf_node *lam, *on;
    if (schedule(b, m, &lam, &on) != WF_OK) return NULL;
    lam = wf_cast(g, lam, T);
    wf_node *y1 = wf_apply_child(b, m, "norm1", x);
    wf_scope_push(g, "norm2");
    wf_node *y2 = wf_repbn_train(b, wf_module_find(m, "norm2"), x, wf_cast(g, on, T));
    wf_scope_pop(g);
    return wf_add(g, wf_mul(g, y1, lam), wf_mul(g, y2, wf_sub(g, wf_fill(g, T, WF_SHAPE(1), 1), lam)));
}

static wf_status fold(const wf_module *m, double *a, double *c) {
    const wf_module *n = wf_module_find((wf_module *)(uintptr_t)m, "norm2");
    return n ? n->part->fold(n, a, c) : WF_ENOTFOUND;
}

const wf_part wf_norm_prepbn = {
    .slot = "norm",
    .name = "prepbn",
    .title = "PRepBN: LayerNorm fades into a foldable RepBN in the course of training",
    .paper = "Guo, Chen, Tang, Wang: SLAB: Efficient Transformers with Simplified Linear Attention and Progressive "
             "Re-parameterized Batch Normalization, 2024, arXiv 2405.11582",
    .sheet = "18",
    .formula =
        "train: y = lam norm1(x) + (1-lam) RepBN(x), lam = r0 iter/total_step, iter = total_step .. 0 after `warm` steps\n"
        "eval: y = RepBN(x)",
    .facts = "Set total_step to about 4/5 of the run: much shorter it diverges like plain BatchNorm, longer and lam has not "
             "reached "
             "0 at the end, so that evaluation measures a branch that was never alone; validation before that can look broken. "
             "The counters are in checkpoints. Recalibrate at the end (train.recalibrate).",
    .cost = "about 18 D FLOPs a token in training, 2 D (0 when folded) in use; 4 D + 1 parameters, 2 D running numbers",
    .golden = "norm.prepbn",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .forward = forward,
    .fold = fold,
};
