/* dense.c: the plain linear layer, y = W x + bias, W [O,I]. */
#include "part/linear/linear.h"

typedef struct options {
    const char *bias;
} options;

static const wf_option table[] = {WF_LINEAR_BIAS_OPTION(options), WF_OPT_END};

static wf_status setup(wf_module *m) {
    return wf_linear_declare(m, ((const options *)m->opt)->bias);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    return wf_project(b, x, wf_use(b, m, "weight"), wf_use_or_null(b, m, "bias"));
}

const wf_part wf_linear_dense = {
    .slot = "linear",
    .name = "dense",
    .title = "the plain linear layer",
    .paper = "",
    .sheet = "00",
    .formula = "y = W x + bias, W [O,I]",
    .facts = "Weights start normal(0, 0.02) or as the model says; the last linear of a residual branch may start smaller.",
    .cost = "2 I O FLOPs a token, I O + O parameters, no state",
    .golden = "",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .forward = forward,
};
