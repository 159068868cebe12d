/* none.c: no norm. */
#include "part/norm/norm.h"

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    return x;
}

const wf_part wf_norm_none = {
    .slot = "norm",
    .name = "none",
    .title = "no norm: the identity",
    .paper = "",
    .sheet = "00",
    .formula = "y = x",
    .facts = "For ablations and for designs that train without norms (sigma-reparametrised weights).",
    .cost = "nothing",
    .golden = "",
    .forward = forward,
};
