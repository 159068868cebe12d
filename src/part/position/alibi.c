/* alibi.c: a penalty on distance (Press, Smith, Lewis 2022): score_ij -= m_h |i - j|, m_h = 2^(-8h/H). */
#include "part/position/position.h"

static void fill(wf_tensor *t, const void *ctx) {
    int64_t H = t->shape.dim[0];
    double s[H];
    wf_alibi_slopes(H, s);
    for (int64_t h = 0; h < H; h++) wf_tensor_set(t, h, s[h]);
}

static wf_status bias(wf_build *b, wf_module *m, int64_t heads, wf_attention_spec *s) {
    char key[64];
    snprintf(key, sizeof key, "alibi %lld", (long long)heads);
    wf_tensor *t = wf_model_constant(m->model, key, WF_F32, WF_SHAPE(heads), fill, NULL);
    if (!t) return WF_ENOMEM;
    s->slopes = wf_leaf(b->g, t, "slopes");
    wf_tap(b, m, "slopes", s->slopes);
    return WF_OK;
}

const wf_part wf_position_alibi = {
    .slot = "position",
    .name = "alibi",
    .title = "ALiBi: scores fall linearly with distance, each head at its own rate",
    .paper =
        "Press, Smith, Lewis: Train Short, Test Long: Attention with Linear Biases Enables Input Length Extrapolation, 2022, "
        "arXiv 2108.12409",
    .sheet = "00",
    .formula = "score_ij <- score_ij - m_h |i-j|, m_h = 2^(-8h/H), h = 1..H",
    .facts = "Extrapolates to longer sequences than trained on. H no power of two: slopes of the next lower power, then every "
             "other one\n"
             "of the next higher.",
    .cost = "one multiply-add a score, no parameters",
    .golden = "attention.softmax",
    .bias = bias,
};
