/* mlp.c: the feed-forward network: y = W2 act(W1 x + b1) + b2. */
#include "part/channel/channel.h"

#include <math.h>

typedef struct options {
    int64_t hidden;
    double ratio, dropout;
    const char *act, *bias;
} options;

static const wf_option table[] = {
    {"hidden", WF_OPT_INT, offsetof(options, hidden), "0", 0, 1 << 24, NULL, "hidden width; 0: ratio times the width"},
    {"ratio", WF_OPT_REAL, offsetof(options, ratio), "4", 0.001, 1000, NULL, "hidden width over width"},
    {"act", WF_OPT_CHOICE, offsetof(options, act), "gelu", 0, 0, "relu|relu2|gelu|gelu_tanh|silu|sigmoid|tanh|identity",
     "activation; gelu is exact (erf), gelu_tanh GPT-2's"},
    {"bias", WF_OPT_CHOICE, offsetof(options, bias), "model", 0, 0, "model|true|false", "biases; model: as the model says"},
    {"dropout", WF_OPT_REAL, offsetof(options, dropout), "0", 0, 0.99, NULL, "dropout of the hidden layer"},
    WF_OPT_END};

int64_t wf_hidden_width(int64_t D, int64_t hidden, double ratio, int64_t multiple) {
    if (hidden) return hidden;
    int64_t n = (int64_t)floor(ratio * (double)D + 1e-9);
    n = (n + multiple - 1) / multiple * multiple;
    return n > 0 ? n : 1;
}

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    int64_t F = wf_hidden_width(m->in, o->hidden, o->ratio, 1);
    bool bias = wf_bias_wanted(m, o->bias);
    if (!wf_child_linear(m, "up", m->in, F, bias, WF_LINEAR_VALUE)) return WF_EINVAL;
    WF_TRY(wf_inner_norm_setup(m, F));
    return wf_child_linear(m, "down", F, m->out, bias, WF_LINEAR_RESIDUAL) ? WF_OK : WF_EINVAL;
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_node *h = wf_activation(b->g, o->act, wf_apply_child(b, m, "up", x));
    h = wf_drop(b, m, wf_inner_norm(b, m, h), o->dropout);
    return wf_apply_child(b, m, "down", h);
}

const wf_part wf_channel_mlp = {
    .slot = "channel",
    .name = "mlp",
    .title = "the feed-forward network: linear, activation, linear",
    .paper = "Vaswani et al.: Attention Is All You Need, 2017, arXiv 1706.03762",
    .sheet = "00",
    .formula = "y = W2 act(W1 x + b1) + b2, W1 [F,D], W2 [D,F]",
    .facts = "gelu and gelu_tanh differ by up to 5e-4: enough to fail a comparison, not to notice in text.",
    .cost = "4 D F FLOPs a token, 2 D F + F + D parameters, no state",
    .golden = "model.gpt2 model.vit model.placement-lm",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .forward = forward,
    .readers = "up",
    .writers = "down",
};
