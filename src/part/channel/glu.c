/* glu.c: the gated linear unit of TransNormer: y = W_down (act(W_gate x) * (W_up x)), hidden width floor(8/3 D).
 *
 * The authors' recipes ask for swish, but the released code runs the identity: a bilinear unit. Both are here.
 */
#include "part/channel/gated.h"

static const wf_option table[] = {
    {"hidden", WF_OPT_INT, offsetof(wf_gated_opt, hidden), "0", 0, 1 << 24, NULL, "hidden width; 0: from ratio"},
    {"ratio", WF_OPT_REAL, offsetof(wf_gated_opt, ratio), "2.6666666666666665", 0.001, 1000, NULL,
     "hidden width over width, rounded down"},
    {"multiple", WF_OPT_INT, offsetof(wf_gated_opt, multiple), "1", 1, 4096, NULL,
     "a hidden width from ratio is rounded up to a multiple of this"},
    {"act", WF_OPT_CHOICE, offsetof(wf_gated_opt, act), "identity", 0, 0, "identity|silu",
     "activation of the gate; identity is what the authors' figures were made with"},
    {"bias", WF_OPT_CHOICE, offsetof(wf_gated_opt, bias), "model", 0, 0, "model|true|false",
     "biases; model: as the model says"},
    {"dropout", WF_OPT_REAL, offsetof(wf_gated_opt, dropout), "0", 0, 0.99, NULL, "dropout of the hidden layer"},
    WF_OPT_END};

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const wf_gated_opt *o = m->opt;
    return wf_gated_forward(b, m, x, o->act);
}

const wf_part wf_channel_glu = {
    .slot = "channel",
    .name = "glu",
    .title = "gated linear unit, bilinear or with a SiLU gate",
    .paper = "Qin, Han, Sun, Li, Kong, Barnes, Zhong: The Devil in Linear Transformer, 2022, arXiv 2210.10340",
    .sheet = "09",
    .formula = "y = W_down (act(W_gate x + b1) * (W_up x + b2)) + b3, W_gate, W_up [F,D], F = floor(8/3 D)",
    .facts = "act: identity is the released TransNormer (its word for swish was unknown to its own table), silu what its "
             "recipe says.",
    .cost = "6 D F FLOPs a token, 3 D F + 2 F + D parameters, no state",
    .golden = "block.transnormer",
    .options = table,
    .opt_size = sizeof(wf_gated_opt),
    .setup = wf_gated_setup,
    .forward = forward,
    .readers = "gate up",
    .writers = "down",
};
