/* glu.c: the gating unit of Activator (Abdullah, Sun 2024) in the place of attention.
 *
 *     u = N(act(W1 x + b1));  v = N(W2 x + b2);  y = W3 (u * v) + b3;  W1, W2 [F,D], W3 [D,F]
 *
 * N is ONE LayerNorm over F: the same gain and bias for both branches, statistics of each; its gradient is the sum of both uses. The
 * activation comes before the norm, on the gate's branch alone. As the authors have it the unit works on each token by itself: nothing
 * moves between tokens. axis: token, an extension of this project, applies it along the tokens, as MLP-Mixer does.
 */
#include "part/mixer/tokens.h"

#include "part/channel/channel.h"

#include <string.h>

typedef struct options {
    int64_t hidden;
    double ratio, eps;
    const char *act, *bias, *axis;
    bool inner_norm;
} options;

static const wf_option table[] = {
    {"hidden", WF_OPT_INT, offsetof(options, hidden), "0", 0, 1 << 24, NULL, "F; 0: ratio times the width (or the tokens)"},
    {"ratio", WF_OPT_REAL, offsetof(options, ratio), "2", 0.001, 1000, NULL, "F over the width"},
    {"act", WF_OPT_CHOICE, offsetof(options, act), "gelu", 0, 0, "gelu|silu|relu",
     "activation of the gate; gelu is exact (erf)"},
    {"inner_norm", WF_OPT_BOOL, offsetof(options, inner_norm), "true", 0, 0, NULL,
     "the shared norm of both branches; false: none (Uniform Activator)"},
    {"eps", WF_OPT_REAL, offsetof(options, eps), "1e-5", 0, 1, NULL, "eps of that norm"},
    {"bias", WF_OPT_CHOICE, offsetof(options, bias), "model", 0, 0, "model|true|false", "biases; model: as the model says"},
    {"axis", WF_OPT_CHOICE, offsetof(options, axis), "channel", 0, 0, "channel|token",
     "channel: each token by itself, as published; token: along the tokens (an extension)"},
    WF_OPT_END};

static bool over_tokens(const wf_module *m) {
    return !strcmp(((const options *)m->opt)->axis, "token");
}

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    int64_t I = m->in;
    m->opaque = over_tokens(m);
    if (m->opaque) {
        if (m->model->causal)
            return wf_module_fail(
                m, WF_EINVAL,
                "axis: token sees later positions, so it cannot be used in a causal model; take axis: channel, or "
                "mixer: pool to move something between tokens");
        WF_TRY(wf_positions_fixed(m, &I));
    }
    int64_t F = wf_hidden_width(I, o->hidden, o->ratio, 1);
    bool bias = wf_bias_wanted(m, o->bias);
    if (!wf_child_linear(m, "gate", I, F, bias, WF_LINEAR_INNER)) return WF_EINVAL;
    if (!wf_child_linear(m, "value", I, F, bias, WF_LINEAR_VALUE)) return WF_EINVAL;
    if (o->inner_norm && !wf_child_text(m, "norm", "norm", F, F, "{name: layernorm, eps: %.17g}", o->eps)) return WF_EINVAL;
    WF_TRY(wf_inner_norm_setup(m, F));
    return wf_child_linear(m, "out", F, I, bias, WF_LINEAR_RESIDUAL) ? WF_OK : WF_EINVAL;
}

/* x [.., I] -> [.., I] */
static wf_node *unit(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_node *u = wf_activation(b->g, o->act, wf_apply_child(b, m, "gate", x)), *v = wf_apply_child(b, m, "value", x);
    if (o->inner_norm) {
        u = wf_apply_child(b, m, "norm", u);
        v = wf_apply_child(b, m, "norm", v);
    }
    return wf_apply_child(b, m, "out", wf_inner_norm(b, m, wf_mul(b->g, u, v)));
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    wf_graph *g = b->g;
    if (!x || !over_tokens(m)) return unit(b, m, x);
    int64_t N = m->model->max_length, L = x->shape.dim[1];
    wf_module *gate = wf_module_find(m, "gate");
    if (L > gate->in)
        return wf_graph_fail(g, WF_EINVAL, "%s: %lld tokens, but it was made for %lld", m->name, (long long)L,
                             (long long)gate->in);
    N = gate->in;
    x = wf_unpadded(b, x);
    if (L < N) x = wf_pad(g, x, 1, 0, N - L, 0);
    wf_node *y = wf_transpose(g, unit(b, m, wf_transpose(g, x, 1, 2)), 1, 2);
    return L < N ? wf_slice(g, y, 1, 0, L) : y;
}

const wf_part wf_mixer_glu = {
    .slot = "mixer",
    .name = "glu",
    .title = "gating unit in the place of attention (Activator)",
    .paper = "Abdullah, Sun: Activator: GLU Activation Function as the Core Component of a Vision Transformer, 2024, arXiv "
             "2405.15953",
    .sheet = "44",
    .formula = "u = N(act(W1 x + b1)); v = N(W2 x + b2); y = W3 (u * v) + b3; N one LayerNorm over F for both",
    .facts = "As published it moves nothing between tokens: shuffling the patches of a picture changes nothing, and only the "
             "final mean\n"
             "joins them. axis: token is an extension of this project. The product of two normed vectors has heavy tails: mind "
             "small\n"
             "floats.",
    .cost = "6 D F FLOPs a token, 3 D F + 4 F + D parameters, no state",
    .golden = "mixer.glu-gate mixer.glu-variants block.activator model.activator-classifier",
    .options = table,
    .opt_size = sizeof(options),
    .causal_ok = true,
    .bidirectional_ok = true,
    .setup = setup,
    .forward = forward,
    .step = forward,
    .readers = "gate value",
    .writers = "out",
};
