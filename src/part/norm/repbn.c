/* repbn.c: re-parameterised BatchNorm (Guo, Chen, Tang, Wang 2024, SLAB): a batch norm beside a scaled identity.
 *
 *     y = BN(x) + alpha x, alpha one learned scalar; BN over all kept tokens (batchnorm.c)
 *
 * In training padded tokens get x in BN's place: y = (1 + alpha) x. In evaluation a mask changes nothing and y = a x + c.
 */
#include "part/norm/batch.h"

#include <string.h>

typedef struct options {
    double eps, momentum;
    const char *init;
} options;

static const wf_option table[] = {
    {"eps", WF_OPT_REAL, offsetof(options, eps), "1e-5", 0, 1, NULL, "added to the variance"},
    {"momentum", WF_OPT_REAL, offsetof(options, momentum), "0.1", 0, 1, NULL, "weight of the new statistic in the running one"},
    {"init", WF_OPT_CHOICE, offsetof(options, init), "vision", 0, 0, "vision|text",
     "vision: alpha and the gain start at 1; text: both at 0, so that the branch starts silent (inside prepbn)"},
    WF_OPT_END};

static wf_batchnorm with(const wf_module *m) {
    const options *o = m->opt;
    double start = !strcmp(o->init, "text") ? 0 : 1;
    return (wf_batchnorm){.eps = o->eps, .momentum = o->momentum, .start = start, .affine = true};
}

static wf_status setup(wf_module *m) {
    wf_batchnorm o = with(m);
    if (!wf_declare(m, "alpha", WF_SHAPE(1), (wf_init){WF_INIT_CONST, o.start}, WF_PARAM_NO_DECAY)) return WF_ENOMEM;
    return wf_batchnorm_setup(m, &o);
}

wf_node *wf_repbn_train(wf_build *b, wf_module *m, wf_node *x, wf_node *gate) {
    wf_batchnorm o = with(m);
    wf_graph *g = b->g;
    wf_norm_tokens t;
    if (!wf_norm_tokens_of(b, m, x, &t)) return NULL;
    o.gate = gate;
    wf_node *y = wf_batchnorm_train(b, m, &t, &o);
    if (t.keep) y = wf_where(g, t.keep, y, t.x);
    return wf_reshape(g, wf_add(g, y, wf_mul(g, t.x, wf_use(b, m, "alpha"))), x->shape);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    if (!x) return NULL;
    if (b->train) return wf_repbn_train(b, m, x, NULL);
    return wf_add(b->g, wf_batchnorm_eval(b, m, x, with(m).eps), wf_mul(b->g, x, wf_use(b, m, "alpha")));
}

static wf_status fold(const wf_module *m, double *a, double *c) {
    wf_batchnorm_fold(m, with(m).eps, a, c);
    for (int64_t i = 0; i < m->in; i++) a[i] += wf_tensor_get(wf_norm_tensor(m, "alpha"), 0);
    return WF_OK;
}

const wf_part wf_norm_repbn = {
    .slot = "norm",
    .name = "repbn",
    .title = "RepBN: BatchNorm over tokens plus a learned share of its input",
    .paper = "Guo, Chen, Tang, Wang: SLAB: Efficient Transformers with Simplified Linear Attention and Progressive "
             "Re-parameterized Batch Normalization, 2024, arXiv 2405.11582",
    .sheet = "18",
    .formula = "y = BN(x) + alpha x\nfolded: a = weight/sqrt(running_var+eps) + alpha, "
               "c = bias - weight running_mean/sqrt(running_var+eps)",
    .facts = "Weight decay is not applied to alpha. Statistics see later tokens and other sequences in training. Dropout and "
             "stochastic depth shift the variance: recalibrate at the end (train.recalibrate).",
    .cost = "about 10 D FLOPs a token in training, 2 D (0 when folded) in use; 2 D + 1 parameters, 2 D running numbers",
    .golden = "norm.repbn",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .forward = forward,
    .fold = fold,
};
