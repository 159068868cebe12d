/* swiglu.c: y = W2 (silu(W1 x) * (W3 x)) (Shazeer 2020), the feed-forward network of Llama. */
#include "part/channel/gated.h"

static const wf_option table[] = {WF_GATED_OPTIONS, WF_OPT_END};

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    return wf_gated_forward(b, m, x, "silu");
}

const wf_part wf_channel_swiglu = {
    .slot = "channel",
    .name = "swiglu",
    .title = "gated feed-forward network with a SiLU gate",
    .paper = "Shazeer: GLU Variants Improve Transformer, 2020, arXiv 2002.05202",
    .sheet = "00",
    .formula = "y = W_down (silu(W_gate x) * (W_up x)), W_gate, W_up [F,D], W_down [D,F]",
    .facts = "At ratio 8/3 it has the parameters of an mlp of ratio 4 and usually a lower loss.",
    .cost = "6 D F FLOPs a token, 3 D F parameters, no state",
    .golden = "",
    .options = table,
    .opt_size = sizeof(wf_gated_opt),
    .setup = wf_gated_setup,
    .forward = forward,
    .readers = "gate up",
    .writers = "down",
};
