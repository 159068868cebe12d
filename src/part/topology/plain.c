/* plain.c: the usual block: token mixer, then channel mixer; every block has its own weights. mixer-only leaves the second out. */
#include "part/topology/stack.h"

static const wf_sublayer_row rows[] = {{"mixer", "mixer", 1, 1}, {"cross", "cross", 1, 1}, {"channel", "channel", 1, 1}};

static wf_status setup(wf_module *m) {
    return wf_stack_setup(m, &(wf_block_plan){.row = rows, .n = 3});
}

const wf_part wf_topology_plain = {
    .slot = "topology",
    .name = "plain",
    .title = "token mixer, channel mixer, in every block",
    .paper = "Vaswani et al.: Attention Is All You Need, 2017, arXiv 1706.03762",
    .sheet = "00",
    .formula =
        "x <- S(x, mixer); x <- S(x, channel); S as the placement says; between them attention to the context if there is one",
    .facts = "The common transformer.",
    .cost = "the sum of its sublayers",
    .golden = "model.gpt2 model.vit model.placement-lm block.dit-adaln-zero block.poolformer",
    .setup = setup,
    .forward = wf_stack_forward,
};

static wf_status mixer_only(wf_module *m) {
    return wf_stack_setup(m, &(wf_block_plan){.row = rows, .n = 2});
}

const wf_part wf_topology_mixer_only = {
    .slot = "topology",
    .name = "mixer-only",
    .title = "token mixers alone, no channel mixer",
    .paper = "Yu et al.: MetaFormer Is Actually What You Need for Vision, 2021, arXiv 2111.11418 (ablation)",
    .sheet = "28",
    .formula = "x <- S(x, mixer)",
    .facts = "An ablation: most designs lose much without the channel mixer. `channel` is not used.",
    .cost = "the sum of its mixers",
    .golden = "",
    .setup = mixer_only,
    .forward = wf_stack_forward,
};
