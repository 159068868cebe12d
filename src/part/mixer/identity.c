/* identity.c: no token mixing at all (Yu et al. 2021, ablation): y = x. What a block can do without moving information. */
#include "part/mixer/tokens.h"

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    return x;
}

const wf_part wf_mixer_identity = {
    .slot = "mixer",
    .name = "identity",
    .title = "no token mixing: y = x",
    .paper = "Yu et al.: MetaFormer Is Actually What You Need for Vision, 2021, arXiv 2111.11418 (ablation)",
    .sheet = "28",
    .formula = "y = x",
    .facts = "The floor that a token mixer must beat. In a hierarchy the convolutions between stages still mix; in an "
             "isotropic network\n"
             "only the final mean does.",
    .cost = "nothing; no parameters, no state",
    .golden = "",
    .causal_ok = true,
    .bidirectional_ok = true,
    .forward = forward,
    .step = forward,
};
