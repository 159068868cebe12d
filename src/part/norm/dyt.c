/* dyt.c: dynamic tanh (Zhu, Chen, He, LeCun, Liu 2025): a squashing function in a norm's place; no statistics at all.
 *
 *     y = w tanh(alpha x) + b;   function: erf (Derf): y = w erf(alpha x + shift) + b
 *
 * alpha is one learned scalar a layer.
 */
#include "part/norm/norm.h"

#include <string.h>

typedef struct options {
    double alpha, shift;
    const char *function;
    bool affine;
} options;

static const wf_option table[] = {
    {"alpha", WF_OPT_REAL, offsetof(options, alpha), "0.5", 1e-6, 100, NULL, "starting value of alpha"},
    {"function", WF_OPT_CHOICE, offsetof(options, function), "tanh", 0, 0, "tanh|erf", "the squashing function"},
    {"shift", WF_OPT_REAL, offsetof(options, shift), "0", 0, 0, NULL, "constant added to alpha x"},
    WF_NORM_AFFINE_OPTIONS(options),
    WF_OPT_END};

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    if (!wf_declare(m, "alpha", WF_SHAPE(1), (wf_init){WF_INIT_CONST, o->alpha}, WF_PARAM_NO_DECAY)) return WF_ENOMEM;
    return wf_norm_affine_setup(m, o->affine, 1, o->affine);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    wf_node *z = wf_mul(g, x, wf_use(b, m, "alpha"));
    if (o->shift != 0) z = wf_add_c(g, z, o->shift);
    return wf_norm_affine(b, m, !strcmp(o->function, "erf") ? wf_erf(g, z) : wf_tanh(g, z));
}

const wf_part wf_norm_dyt = {
    .slot = "norm",
    .name = "dyt",
    .title = "dynamic tanh: a learned squashing function instead of a norm",
    .paper = "Zhu, Chen, He, LeCun, Liu: Transformers without Normalization, 2025, arXiv 2503.10622",
    .sheet = "00",
    .formula = "y = weight * tanh(alpha x) + bias\nfunction erf: y = weight * erf(alpha x + shift) + bias",
    .facts = "Pointwise, so it streams and fuses freely. alpha 0.2 to 1.0 in language models, larger in front of attention; a "
             "large\n"
             "alpha saturates and stops the gradient. Weight decay is not applied to alpha.",
    .cost = "about 4 D FLOPs a token and a tanh, 2 D + 1 parameters, no state",
    .golden = "norm.token-norms",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .forward = forward,
};
