/* sigmoid.c: sigmoid attention (Ramapuram et al. 2024): every key is weighed by itself, nothing divides by a row sum.
 *
 *     o_i = r_i sum_j sigmoid(e^t q_i.k_j / sqrt(d) + b) v_j over the visible j
 *
 * b = -ln n, n the training length, makes the weights of a row sum to about 1 at the start, as softmax does. It belongs to the
 * model: generation of any length uses the same b. r_i = 1, or 1/i or 1/sqrt(i) for the i-th position. Parts of the keys just
 * add up, so the cache is softmax's. `cross`: keys and values of wf_build.context, values normed by head.
 */
#include "part/mixer/heads.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct options {
    wf_heads_opt heads;
    int64_t window;
    double dropout, scale, temperature;
    bool cross;
    const char *score_bias, *row_scale;
} options;

static const wf_option table[] = {
    WF_HEADS_OPTIONS_AS(options, heads, "false", "ln_head", "1e-5", "true"),
    {"score_bias", WF_OPT_TEXT, offsetof(options, score_bias), "auto", 0, 0, NULL,
     "b, added to the scaled score: a number, or auto: -ln of the training length"},
    {"temperature", WF_OPT_REAL, offsetof(options, temperature), "0", -20, 20, NULL, "t: scores are multiplied by e^t"},
    {"row_scale", WF_OPT_CHOICE, offsetof(options, row_scale), "none", 0, 0, "none|seq_len|sqrt_seq_len",
     "multiply the output of the i-th position by 1/i or 1/sqrt(i) (ablations; with score_bias: 0)"},
    {"window", WF_OPT_INT, offsetof(options, window), "0", 0, 1 << 30, NULL,
     "a token sees this many positions back (itself included); 0: all"},
    {"cross", WF_OPT_BOOL, offsetof(options, cross), "false", 0, 0, NULL,
     "keys and values of a second stream; values get a LayerNorm by head"},
    {"dropout", WF_OPT_REAL, offsetof(options, dropout), "0", 0, 0.99, NULL, "dropout of the attention weights"},
    {"scale", WF_OPT_REAL, offsetof(options, scale), "0", 0, 1e6, NULL,
     "factor of the scores; 0: 1/sqrt(head_dim), or 1 for qk_norm: l2"},
    WF_OPT_END};

typedef struct sigmoid { /* m->data; heads first, as heads.c has it */
    wf_heads heads;
    double b;
} sigmoid;

static wf_status read_bias(const wf_module *m, const char *text, double *b) {
    int64_t n = m->model->max_length;
    if (!strcmp(text, "auto")) {
        if (n < 1) return wf_module_fail(m, WF_EINVAL, "score_bias: auto needs the model's length; give a number (-ln length)");
        *b = -log((double)n);
        return WF_OK;
    }
    char *end;
    *b = strtod(text, &end);
    if (end == text || *end || !isfinite(*b))
        return wf_module_fail(m, WF_EINVAL, "'score_bias' is auto or a number, not '%s'", text);
    return WF_OK;
}

static wf_status cross_setup(wf_module *m, const options *o, const wf_heads *h) {
    const wf_part *root = m->model->root->part;
    m->opaque = true; /* k and v read another stream */
    if (!strcmp(root->slot, "model"))
        return wf_module_fail(m, WF_EUNSUPPORTED, "model.%s has no second stream for cross: true; leave it out", root->name);
    if (o->window || o->row_scale[0] != 'n' || h->position->part->rotate || h->position->part->bias)
        return wf_module_fail(m, WF_EUNSUPPORTED,
                              "cross: true has no positions between the streams; leave out window and row_scale, take "
                              "position: none");
    return wf_child_text(m, "v_norm", "norm", h->d, h->d, "{name: layernorm, eps: %.17g}", o->heads.qk_norm_eps) ? WF_OK
                                                                                                                 : WF_EINVAL;
}

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    WF_TRY(wf_heads_setup(m, &o->heads));
    m->opaque = o->cross;
    sigmoid *s = wf_arena_alloc(m->model->arena, sizeof *s);
    if (!s) return WF_ENOMEM;
    s->heads = *(const wf_heads *)m->data;
    m->data = s;
    WF_TRY(read_bias(m, o->score_bias, &s->b));
    return o->cross ? cross_setup(m, o, &s->heads) : WF_OK;
}

/* e^t on what position and masks add to the scores: they stand inside the temperature. */
static void warm(wf_build *b, wf_attention_spec *s, double factor) {
    if (factor == 1) return;
    if (s->bias) s->bias = wf_mul_c(b->g, s->bias, factor);
    if (s->slopes) s->slopes = wf_mul_c(b->g, s->slopes, factor);
}

/* [L], r_i by position from 1 on. */
static wf_node *row_factors(wf_build *b, const char *kind, int64_t L) {
    if (!strcmp(kind, "none")) return NULL;
    wf_node *i = wf_add_c(b->g, wf_positions(b, b->compute == WF_F64 ? WF_F64 : WF_F32, L), 1);
    return !strcmp(kind, "seq_len") ? wf_recip(b->g, i) : wf_rsqrt(b->g, i);
}

static wf_node *attend(wf_build *b, wf_module *m, wf_node *q, wf_node *k, wf_node *v) {
    const options *o = m->opt;
    const sigmoid *s = m->data;
    wf_graph *g = b->g;
    wf_attention_spec a = {.normaliser = WF_NORMALISE_NONE, .score = WF_SCORE_SIGMOID, .dropout = o->dropout};
    double factor = exp(o->temperature);
    a.scale = factor * (o->scale > 0 ? o->scale : s->heads.unit ? 1 : 1 / sqrt((double)s->heads.d));
    a.score_bias = s->b;
    if (!q || wf_heads_settle(b, m, &k, &v, &a, o->window, o->cross) != WF_OK) return NULL;
    warm(b, &a, factor);
    wf_node *weights = NULL, *y = wf_heads_call(b, m, q, k, v, &a, &weights);
    wf_node *r = row_factors(b, o->row_scale, q->shape.dim[1]);
    if (r) {
        y = wf_as(b, wf_mul(g, y, wf_reshape(g, r, WF_SHAPE(r->shape.dim[0], 1, 1))), b->compute);
        if (weights) weights = wf_mul(g, weights, wf_unsqueeze(g, r, 1));
    }
    wf_tap(b, m, "weights", weights);
    return y;
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_node *q, *k, *v;
    if (o->cross && !b->context) return wf_graph_fail(b->g, WF_EINVAL, "%s: cross needs wf_build.context", m->name);
    if (wf_heads_project(b, m, x, o->cross ? b->context : x, &q, &k, &v) != WF_OK) return NULL;
    if (o->cross) v = wf_as(b, wf_apply_child(b, m, "v_norm", v), b->compute);
    return wf_heads_merge(b, m, attend(b, m, q, k, v));
}

const wf_part wf_mixer_sigmoid = {
    .slot = "mixer",
    .name = "sigmoid",
    .title = "sigmoid attention: each key is weighed by itself, no row is normalised",
    .paper = "Ramapuram et al.: Theory, Analysis, and Best Practices for Sigmoid Self-Attention, 2024, arXiv 2409.04431",
    .sheet = "47",
    .formula = "S = e^t (q k^T/sqrt(d) + position bias); P = sigmoid(S + b), 0 where hidden; o = P v; y = W_o concat(o)\n"
               "q, k with LayerNorm by head; b = -ln n for training length n",
    .facts = "b makes a row's weights sum to about 1 at the start; without it (0) they sum to n/2 and training starts with a "
             "spike.\n"
             "b stays that of the training length. Long language models want placement: hybrid as well; pictures layer_scale: "
             "1e-4.\n"
             "A query that sees nothing gives 0. Dropout acts on the weights, no denominator changes.",
    .cost = "8 D D FLOPs a token for the four linears, 4 L d H for scores and values (half if causal); cache 2 K d numbers a "
            "token; nothing kept for the backward pass but q, k, v",
    .golden = "mixer.sigmoid-attention block.sigmoid-attention",
    .options = table,
    .opt_size = sizeof(options),
    .causal_ok = true,
    .bidirectional_ok = true,
    .setup = setup,
    .forward = forward,
    .step = forward,
    .readers = "q k v",
    .writers = "o",
};
