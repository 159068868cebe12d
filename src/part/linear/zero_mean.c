/* zero_mean.c: a linear whose outputs have mean 0 over the channels (Jiang et al. 2023): the training form of Pre-RMSNorm.
 *
 *     W~ = W - mean_o W[o,:],  b~ = b - mean b,  y = W~ x + b~
 *
 * Where everything that writes to the residual stream is one, LayerNorm and RMSNorm of the stream are the same function. The
 * centring is part of the graph, so the derivative with respect to W is that of the Pre-LN network, and any optimizer does
 * exactly what it would do there.
 */
#include "part/linear/linear.h"

#include <string.h>

typedef struct options {
    const char *bias, *of;
} options;

static const wf_option table[] = {
    WF_LINEAR_BIAS_OPTION(options),
    {"of", WF_OPT_CHOICE, offsetof(options, of), "all", 0, 0, "all|writers",
     "writers: only the last linear of every residual branch is centred, others are plain (for a model's `linear`)"},
    WF_OPT_END};

static bool centred(const wf_module *m) {
    const options *o = m->opt;
    const wf_linear_args *a = m->args;
    return strcmp(o->of, "writers") || (a && a->role == WF_LINEAR_RESIDUAL);
}

static wf_status setup(wf_module *m) {
    return wf_linear_declare(m, ((const options *)m->opt)->bias);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    wf_graph *g = b->g;
    wf_node *w = wf_use(b, m, "weight"), *c = wf_use_or_null(b, m, "bias");
    if (centred(m)) {
        w = wf_sub(g, w, wf_mean(g, w, 1u << 0, true));
        if (c) c = wf_sub(g, c, wf_mean(g, c, 1u << 0, true));
    }
    return wf_project(b, x, w, c);
}

/* out[o,i] = p[o,i] - mean over o, [O,I] */
static wf_status without_mean(const wf_module *m, const char *name, int64_t I, float *out) {
    const float *p = NULL;
    for (int i = 0; i < m->n_param; i++)
        if (!strcmp(m->param_name[i], name)) p = m->param[i]->value->data;
    if (!p) return wf_module_fail(m, WF_ENOTFOUND, "no parameter '%s'", name);
    for (int64_t i = 0; i < I; i++) {
        double sum = 0;
        for (int64_t o = 0; o < m->out; o++) sum += p[o * I + i];
        double mean = centred(m) ? sum / (double)m->out : 0;
        for (int64_t o = 0; o < m->out; o++) out[o * I + i] = (float)(p[o * I + i] - mean);
    }
    return WF_OK;
}

static wf_status fold_weight(const wf_module *m, float *w) {
    return without_mean(m, "weight", m->in, w);
}

static wf_status fold_bias(const wf_module *m, float *bias) {
    return without_mean(m, "bias", 1, bias);
}

const wf_part wf_linear_zero_mean = {
    .slot = "linear",
    .name = "zero-mean",
    .title = "a linear whose outputs sum to 0: the training form of Pre-RMSNorm",
    .paper = "Jiang, Gu, Zhu, Pan: Pre-RMSNorm and Pre-CRMSNorm Transformers: Equivalent and Efficient Pre-LN Transformers, "
             "2023, arXiv 2305.14858",
    .sheet = "11",
    .formula = "W~ = W - mean over outputs; b~ = b - mean b; y = W~ x + b~",
    .facts =
        "linear: {name: zero-mean, of: writers}, centred: true and norm: {name: rmsnorm, affine: false, eps: 1e-5} train "
        "exactly as\n"
        "layernorm would, without its mean. `weft transform fold` puts the centring into the weights when training is over.",
    .cost = "as dense, and 2 I O FLOPs a step for the centring",
    .golden = "linear.zero-mean model.gpt-norm-forms",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .forward = forward,
    .fold_weight = fold_weight,
    .fold_bias = fold_bias,
};
