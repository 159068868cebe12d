/* geglu.c: y = W2 (gelu(W1 x) * (W3 x)) (Shazeer 2020); the tanh form is Gemma's. */
#include "part/channel/gated.h"

static const wf_option table[] = {WF_GATED_OPTIONS,
                                  {"act", WF_OPT_CHOICE, offsetof(wf_gated_opt, act), "gelu", 0, 0,
                                   "gelu|gelu_tanh|relu|sigmoid|identity", "activation of the gate"},
                                  WF_OPT_END};

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const wf_gated_opt *o = m->opt;
    return wf_gated_forward(b, m, x, o->act);
}

const wf_part wf_channel_geglu = {
    .slot = "channel",
    .name = "geglu",
    .title = "gated feed-forward network with a GELU gate (or ReLU, sigmoid, none)",
    .paper = "Shazeer: GLU Variants Improve Transformer, 2020, arXiv 2002.05202",
    .sheet = "00",
    .formula = "y = W_down (act(W_gate x) * (W_up x)), act = gelu",
    .facts = "act: relu is ReGLU, sigmoid the first GLU, identity the bilinear one.",
    .cost = "6 D F FLOPs a token, 3 D F parameters, no state",
    .golden = "",
    .options = table,
    .opt_size = sizeof(wf_gated_opt),
    .setup = wf_gated_setup,
    .forward = forward,
    .readers = "gate up",
    .writers = "down",
};
