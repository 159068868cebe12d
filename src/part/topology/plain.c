/* plain.c: the usual block: token mixer, then channel mixer; every block has its own weights. */
#include "part/topology/stack.h"

static const wf_sublayer_row rows[] = {{"mixer", "mixer", 1}, {"channel", "channel", 1}};

static wf_status setup(wf_module *m) {
    return wf_stack_setup(m, rows, 2);
}

const wf_part wf_topology_plain = {
    .slot = "topology",
    .name = "plain",
    .title = "token mixer, channel mixer, in every block",
    .paper = "Vaswani et al.: Attention Is All You Need, 2017, arXiv 1706.03762",
    .sheet = "00",
    .formula = "x <- S(x, mixer); x <- S(x, channel); S as the placement says",
    .facts = "The common transformer.",
    .cost = "the sum of its sublayers",
    .golden = "model.gpt2 model.vit model.placement-lm",
    .setup = setup,
    .forward = wf_stack_forward,
};
