/* affine.c: gain and bias at the end of a norm; and, as a part of its own, the affine map that is left of a folded norm where no
 * linear follows it.
 *
 *     y = weight x + bias
 */
#include "part/norm/norm.h"

#include <string.h>

wf_status wf_norm_affine_setup(wf_module *m, bool weight, double start, bool bias) {
    wf_init init = {WF_INIT_CONST, start};
    if (weight && !wf_declare(m, "weight", WF_SHAPE(m->in), init, WF_PARAM_NO_DECAY)) return WF_ENOMEM;
    if (bias && !wf_declare(m, "bias", WF_SHAPE(m->in), (wf_init){WF_INIT_ZERO, 0}, WF_PARAM_NO_DECAY)) return WF_ENOMEM;
    return WF_OK;
}

wf_node *wf_norm_affine(wf_build *b, wf_module *m, wf_node *x) {
    wf_node *w = wf_use_or_null(b, m, "weight"), *c = wf_use_or_null(b, m, "bias");
    if (w) x = wf_mul(b->g, x, w);
    return c ? wf_add(b->g, x, c) : x;
}

const wf_tensor *wf_norm_tensor(const wf_module *m, const char *name) {
    for (int i = 0; i < m->n_param; i++)
        if (!strcmp(m->param_name[i], name)) return m->param[i]->value;
    return NULL;
}

void wf_norm_affine_fold(const wf_module *m, double *a, double *c) {
    const wf_tensor *w = wf_norm_tensor(m, "weight"), *bias = wf_norm_tensor(m, "bias");
    for (int64_t i = 0; i < m->in; i++) {
        double gain = w ? wf_tensor_get(w, i) : 1;
        a[i] *= gain;
        c[i] = c[i] * gain + (bias ? wf_tensor_get(bias, i) : 0);
    }
}

/* ---- the part ---- */

typedef struct options {
    bool bias;
} options;

static const wf_option table[] = {{"bias", WF_OPT_BOOL, offsetof(options, bias), "true", 0, 0, NULL, "learned bias"},
                                  WF_OPT_END};

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    return wf_norm_affine_setup(m, true, 1, o->bias);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    return x ? wf_norm_affine(b, m, x) : NULL;
}

static wf_status fold(const wf_module *m, double *a, double *c) {
    for (int64_t i = 0; i < m->in; i++) a[i] = 1, c[i] = 0;
    wf_norm_affine_fold(m, a, c);
    return WF_OK;
}

const wf_part wf_norm_affinemap = {
    .slot = "norm",
    .name = "affine",
    .title = "gain and bias a channel, no statistics: a folded norm where no linear follows it",
    .paper = "Touvron et al.: ResMLP, 2021, arXiv 2105.03404 (as a norm's replacement in training)",
    .sheet = "03",
    .formula = "y = weight * x + bias",
    .facts = "What `weft transform fold` leaves of a norm with running statistics whose output something else than a linear "
             "reads. "
             "As a norm to train with it normalises nothing: streams may grow without bound.",
    .cost = "2 D FLOPs a token, 2 D parameters, no state",
    .golden = "",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .forward = forward,
    .fold = fold,
};
