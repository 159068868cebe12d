/* language.c: cases of language models: GPT-2, BERT, and the placements of system 07. */
#include "check/case.h"

#include <math.h>
#include <string.h>

static const char *const activations[] = {"gelu_tanh", "gelu_tanh", "gelu_new", "gelu_tanh",   "tanh",  "gelu_tanh", "gelu_erf",
                                          "gelu",      "gelu",      "gelu",     "exact (erf)", "gelu",  "erf",       "gelu",
                                          "relu",      "relu",      "silu",     "silu",        "exact", "gelu",      NULL};

static int64_t dim_of(wf_case *c, const char *name, int axis) {
    const wf_st_entry *e = wf_st_find(c->file, name);
    return e && e->shape.rank > axis ? e->shape.dim[axis] : 0;
}

/* Mean cross-entropy of logits [B,L,V] (shifted: position t predicts ids t+1) against int32 targets; negative ones do not count. */
static wf_node *mean_loss(wf_graph *g, wf_node *logits, wf_node *target) {
    wf_node *zero = wf_fill(g, WF_F32, WF_SHAPE(1), -0.5);
    wf_node *counted = wf_sum_all(g, wf_lt(g, zero, wf_cast(g, target, WF_F32)));
    return wf_div(g, wf_sum_all(g, wf_cross_entropy(g, logits, target, 0)), wf_max_c(g, counted, 1));
}

/* ---- model.gpt2 ---- */

/* Greedy continuation through the step form: the first `given` ids in one call, then one at a time. */
static wf_status greedy(wf_case *c, wf_model *m, int64_t given, int64_t total, wf_tensor *out) {
    int64_t B = out->shape.dim[0], V = 0;
    wf_states *states = wf_states_new();
    wf_tensor *pos = wf_tensor_new(WF_I32, WF_SHAPE(1));
    wf_status s = states && pos ? WF_OK : WF_ENOMEM;
    for (int64_t at = 0; at < total - 1 && s == WF_OK;) {
        int64_t T = at ? 1 : given;
        wf_tensor *ids = wf_tensor_new(WF_I32, WF_SHAPE(B, T));
        wf_graph *g = wf_graph_open();
        wf_build b;
        wf_build_start(&b, g);
        for (int64_t i = 0; ids && i < B * T; i++) wf_tensor_set(ids, i, wf_tensor_get(out, i / T * total + at + i % T));
        wf_tensor_set(pos, 0, (double)at);
        b.step = b.last_only = true;
        b.states = states;
        b.max_length = total;
        b.pos = wf_leaf(g, pos, "pos");
        b.compute = c->f64 ? WF_F64 : WF_F32;
        wf_node *y = wf_apply(&b, m->root, wf_leaf(g, ids, "ids"));
        wf_plan *p = y ? wf_plan_new(g, &y, 1, b.update, b.n_update, NULL) : NULL;
        s = p ? wf_plan_run(p) : WF_EINVAL;
        if (s == WF_OK) {
            V = y->shape.dim[2];
            wf_tensor logits = {y->dtype, y->shape, (void *)(uintptr_t)wf_plan_out(p, 0), 0};
            for (int64_t r = 0; r < B; r++) {
                int64_t best = 0;
                for (int64_t v = 1; v < V; v++)
                    if (wf_tensor_get(&logits, r * V + v) > wf_tensor_get(&logits, r * V + best)) best = v;
                if (at + T < total) wf_tensor_set(out, r * total + at + T, (double)best);
            }
        }
        wf_plan_free(p);
        wf_build_end(&b);
        wf_graph_free(g);
        wf_tensor_free(ids);
        at += T;
    }
    wf_tensor_free(pos);
    wf_states_free(states);
    return s;
}

/* out.greedy [B,n]: 4 tokens chosen after the first n-4 ids (config may say how many: greedy_tokens). */
static wf_status check_greedy(wf_case *c, wf_model *m) {
    if (!wf_case_has(c, "out.greedy")) return WF_OK;
    int64_t chosen, n = dim_of(c, "out.greedy", 1), B = dim_of(c, "out.greedy", 0);
    WF_TRY(wf_case_int(c, "greedy_tokens", 4, &chosen));
    wf_tensor *ids = wf_case_read(c, "in.ids", WF_I32);
    if (!ids) return WF_EFORMAT;
    int64_t L = ids->shape.rank == 2 ? ids->shape.dim[1] : 0, given = n - chosen;
    wf_tensor *out = given >= 1 && given <= L && B == ids->shape.dim[0] ? wf_tensor_new(WF_I32, WF_SHAPE(B, n)) : NULL;
    if (!out) {
        wf_tensor_free(ids);
        return wf_case_fail(c, "out.greedy must be the first ids of every row and %lld tokens more", (long long)chosen);
    }
    for (int64_t r = 0; r < B; r++)
        for (int64_t t = 0; t < given; t++) wf_tensor_set(out, r * n + t, wf_tensor_get(ids, r * L + t));
    wf_status s = greedy(c, m, given, n, out);
    if (s == WF_OK) s = wf_case_compare(c, "greedy", out);
    wf_tensor_free(out);
    wf_tensor_free(ids);
    return s;
}

static wf_status gpt2(wf_case *c) {
    static const char *const names[] = {"hf-gpt2", "hf", NULL};
    int64_t V, P, n, H, D, F;
    double eps;
    const char *act, *layout;
    bool tied;
    WF_TRY(wf_case_int(c, "vocab_size", 0, &V));
    WF_TRY(wf_case_int(c, "block_size", 0, &P));
    WF_TRY(wf_case_int(c, "n_layer", 1, &n));
    WF_TRY(wf_case_int(c, "n_head", 1, &H));
    WF_TRY(wf_case_int(c, "n_embd", 0, &D));
    WF_TRY(wf_case_int(c, "n_inner", 4 * D, &F));
    WF_TRY(wf_case_real(c, "ln_eps", 1e-5, &eps));
    WF_TRY(wf_case_choice(c, "act", activations, "gelu_tanh", &act));
    WF_TRY(wf_case_bool(c, "tied", true, &tied));
    WF_TRY(wf_case_choice(c, "names", names, "hf", &layout));
    char *recipe = wf_arena_format(
        c->arena,
        "{name: lm, vocab: %lld, length: %lld, layers: %lld, width: %lld, tied: %s, mixer: {name: softmax, heads: %lld}, "
        "channel: {name: mlp, hidden: %lld, act: %s}, norm: {name: layernorm, eps: %.17g}}",
        (long long)V, (long long)P, (long long)n, (long long)D, tied ? "true" : "false", (long long)H, (long long)F, act, eps);
    wf_model *m = wf_case_model(c, recipe, &wf_names_gpt2);
    if (!m) return WF_EINVAL;
    wf_graph *g = c->graph;
    wf_node *ids = wf_case_in(c, "ids"), *logits = wf_apply(&c->build, m->root, ids);
    wf_case_out(c, "logits", logits);
    if (logits && wf_case_has(c, "out.loss")) {
        int64_t L = ids->shape.dim[1];
        if (L < 2) return wf_case_fail(c, "a loss needs at least two ids a row");
        wf_case_out(c, "loss", mean_loss(g, wf_slice(g, logits, 1, 0, L - 1), wf_slice(g, ids, 1, 1, L - 1)));
    }
    WF_TRY(wf_case_solve(c));
    return check_greedy(c, m);
}

/* ---- model.bert ---- */

static wf_status bert(wf_case *c) {
    static const char *const names[] = {"hf-bert", "hf", NULL};
    int64_t V, D, n, H, F, P;
    double eps, hide;
    const char *act, *layout;
    WF_TRY(wf_case_int(c, "vocab", 0, &V));
    WF_TRY(wf_case_int(c, "hidden", 0, &D));
    WF_TRY(wf_case_int(c, "layers", 1, &n));
    WF_TRY(wf_case_int(c, "heads", 1, &H));
    WF_TRY(wf_case_int(c, "inter", 4 * D, &F));
    WF_TRY(wf_case_int(c, "maxpos", 0, &P));
    WF_TRY(wf_case_real(c, "ln_eps", 1e-12, &eps));
    WF_TRY(wf_case_real(c, "mask_add", -10000, &hide));
    WF_TRY(wf_case_choice(c, "act", activations, "gelu", &act));
    WF_TRY(wf_case_choice(c, "names", names, "hf", &layout));
    int64_t types = dim_of(c, "param.bert.embeddings.token_type_embeddings.weight", 0);
    bool pooler = wf_case_has(c, "param.bert.pooler.dense.weight"),
         mlm = wf_case_has(c, "param.cls.predictions.transform.dense.weight");
    char *recipe = wf_arena_format(c->arena,
                                   "{name: bert, vocab: %lld, length: %lld, layers: %lld, width: %lld, types: %lld, "
                                   "padding_id: 0, placement: post, head_act: %s, pooler: %s, mlm: %s, "
                                   "nsp: %s, mixer: {name: softmax, heads: %lld}, channel: {name: mlp, hidden: %lld, act: %s}, "
                                   "norm: {name: layernorm, eps: %.17g}}",
                                   (long long)V, (long long)P, (long long)n, (long long)D, (long long)types, act,
                                   pooler ? "true" : "false", mlm ? "true" : "false",
                                   wf_case_has(c, "param.cls.seq_relationship.weight") ? "true" : "false", (long long)H,
                                   (long long)F, act, eps);
    wf_model *m = wf_case_model(c, recipe, &wf_names_bert);
    if (!m) return WF_EINVAL;
    wf_graph *g = c->graph;
    wf_build *b = &c->build;
    wf_node *mask = wf_case_in_or_null(c, "mask");
    b->types = wf_case_in_or_null(c, "token_type");
    if (mask && mask->shape.rank == 2) {
        wf_node *hidden = wf_add_c(g, wf_neg(g, wf_cast(g, mask, c->f64 ? WF_F64 : WF_F32)), 1);
        b->score_bias = wf_reshape(g, wf_mul_c(g, hidden, hide), WF_SHAPE(mask->shape.dim[0], 1, 1, mask->shape.dim[1]));
    }
    wf_node *y = wf_apply(b, m->root, wf_case_in(c, "ids"));
    if (mlm) wf_case_out(c, "mlm_logits", y);
    wf_case_out(c, "hidden", wf_case_tapped(c, "hidden", 0));
    wf_case_out(c, "pooled", wf_case_tapped(c, "pooled", 0));
    wf_case_out(c, "nsp_logits", wf_case_tapped(c, "nsp", 0));
    if (mlm && y && wf_case_has(c, "in.labels")) wf_case_out(c, "mlm_loss", mean_loss(g, y, wf_case_in(c, "labels")));
    return wf_case_solve(c);
}

/* ---- model.placement-lm (07) ---- */

#define BOTH(f, o)                                                                                                             \
    {f ".weight", o ".weight", 0}, {                                                                                           \
        f ".bias", o ".bias", WF_NAME_OPTIONAL                                                                                 \
    }
static const char *const nothing[] = {NULL};
/* clang-format off */
static const wf_name_rule placement_rules[] = {
    {"emb.weight", "embed.weight", 0},
    {"pos.weight", "position.table", 0},
    BOTH("embed_norm", "embed_norm"),
    BOTH("final_norm", "final_norm"),
    {"head.weight", "head.weight", 0},
    BOTH("layers.{}.attn_in_norm", "blocks.{}.mixer_in_norm"),
    BOTH("layers.{}.attn_out_norm", "blocks.{}.mixer_out_norm"),
    BOTH("layers.{}.attn_res_norm", "blocks.{}.mixer_res_norm"),
    BOTH("layers.{}.mlp_in_norm", "blocks.{}.channel_in_norm"),
    BOTH("layers.{}.mlp_out_norm", "blocks.{}.channel_out_norm"),
    BOTH("layers.{}.mlp_res_norm", "blocks.{}.channel_res_norm"),
    BOTH("layers.{}.attn.q", "blocks.{}.mixer.q"),
    BOTH("layers.{}.attn.k", "blocks.{}.mixer.k"),
    BOTH("layers.{}.attn.v", "blocks.{}.mixer.v"),
    BOTH("layers.{}.attn.o", "blocks.{}.mixer.o"),
    BOTH("layers.{}.attn.q_norm", "blocks.{}.mixer.q_norm"),
    BOTH("layers.{}.attn.k_norm", "blocks.{}.mixer.k_norm"),
    BOTH("layers.{}.mlp.fc1", "blocks.{}.channel.up"),
    BOTH("layers.{}.mlp.fc2", "blocks.{}.channel.down"),
    {0},
};
/* clang-format on */
static const wf_name_map names_placement = {"placement-lm", "", placement_rules, nothing};

/* [n]: mean over tokens of the biased variance over D of the n streams. */
static wf_node *variances(wf_graph *g, wf_node *const *stream, int n) {
    wf_node *part[64];
    for (int i = 0; i < n; i++) {
        unsigned last = 1u << (stream[i]->shape.rank - 1);
        wf_node *d = wf_sub(g, stream[i], wf_mean(g, stream[i], last, true));
        part[i] = wf_reshape(g, wf_mean(g, wf_square(g, d), (last << 1) - 1, false), WF_SHAPE(1));
    }
    return wf_concat(g, part, n, 0);
}

static char *placement_recipe(wf_case *c, int64_t *layers) {
    static const char *const places[] = {"pre",      "pre",      "post",        "post",     "peri",        "peri",
                                         "output",   "output",   "output-only", "output",   "output_only", "output",
                                         "sandwich", "sandwich", "deepnorm",    "deepnorm", NULL};
    static const char *const kinds[] = {"rms",       "rmsnorm", "RMSNorm", "rmsnorm",   "LayerNorm", "layernorm", "ln",
                                        "layernorm", "rmsnorm", "rmsnorm", "layernorm", "layernorm", NULL};
    static const char *const qk[] = {"none", "none", "per head over d, before scaling", "head", "head", "head", NULL};
    const char *place, *kind, *gelu, *qk_norm;
    int64_t H, n;
    double eps, scale;
    bool embed_norm, causal;
    int64_t V = dim_of(c, "param.emb.weight", 0), D = dim_of(c, "param.emb.weight", 1),
            F = dim_of(c, "param.layers.0.mlp.fc1.weight", 0);
    if (wf_case_choice(c, "placement", places, "pre", &place) != WF_OK ||
        wf_case_choice(c, "norm", kinds, "rmsnorm", &kind) != WF_OK ||
        wf_case_choice(c, "gelu", activations, "gelu", &gelu) != WF_OK ||
        wf_case_choice(c, "qk_norm", qk, "none", &qk_norm) != WF_OK || wf_case_int(c, "H", 1, &H) != WF_OK ||
        wf_case_int(c, "layers", 1, &n) != WF_OK || wf_case_real(c, "eps", 1e-6, &eps) != WF_OK ||
        wf_case_real(c, "residual_scale", 1, &scale) != WF_OK || wf_case_bool(c, "embed_norm", false, &embed_norm) != WF_OK ||
        wf_case_bool(c, "causal", true, &causal) != WF_OK || wf_case_same(c, "D", D) != WF_OK ||
        wf_case_same(c, "vocab", V) != WF_OK || wf_case_same(c, "mlp_hidden", F) != WF_OK ||
        wf_case_same(c, "B", dim_of(c, "in.ids", 0)) != WF_OK || wf_case_same(c, "L", dim_of(c, "in.ids", 1)) != WF_OK)
        return NULL;
    if (!causal) return wf_case_fail(c, "config: 'causal' false makes no sense for a language model"), NULL;
    if (scale <= 0) return wf_case_fail(c, "config: 'residual_scale' must be positive"), NULL;
    *layers = n;
    bool layer = !strcmp(kind, "layernorm"), normed = strcmp(qk_norm, "none");
    return wf_arena_format(
        c->arena,
        "{name: lm, vocab: %lld, length: %lld, layers: %lld, width: %lld, tied: %s, embed_norm: %s, final_norm: %s, bias: %s, "
        "placement: {name: %s, residual_scale: %.17g}, norm: {name: %s, eps: %.17g}, channel: {name: mlp, hidden: %lld, act: "
        "%s}, "
        "mixer: {name: softmax, heads: %lld, qk_norm: %s, qk_norm_eps: %.17g, qk_norm_bias: %s}}",
        (long long)V, (long long)dim_of(c, "param.pos.weight", 0), (long long)n, (long long)D,
        wf_case_has(c, "param.head.weight") ? "false" : "true", embed_norm ? "true" : "false",
        wf_case_has(c, "param.final_norm.weight") ? "true" : "false",
        wf_case_has(c, "param.layers.0.attn.q.bias") ? "true" : "false", place, scale, kind, eps, (long long)F, gelu,
        (long long)H,
        !normed ? "none"
        : layer ? "ln_head"
                : "rms_head",
        eps, normed && layer && wf_case_has(c, "param.layers.0.attn.q_norm.bias") ? "true" : "false");
}

static wf_status placement_lm(wf_case *c) {
    int64_t n = 0;
    char *recipe = placement_recipe(c, &n);
    wf_model *m = recipe ? wf_case_model(c, recipe, &names_placement) : NULL;
    if (!m) return WF_EINVAL;
    if (n > 62) return wf_case_fail(c, "config: 'layers' above 62 is more than this check holds");
    wf_node *logits = wf_apply(&c->build, m->root, wf_case_in(c, "ids"));
    wf_case_out(c, "logits", logits);
    wf_node *hidden = wf_case_tapped(c, "hidden", 0), *stream[64];
    wf_case_out(c, "hidden", hidden);
    for (int64_t i = 0; i < n; i++) stream[i] = wf_case_tapped(c, "stream", (int)i);
    stream[n] = hidden;
    if (hidden && wf_case_has(c, "out.resid_var")) wf_case_out(c, "resid_var", variances(c->graph, stream, (int)n + 1));
    return wf_case_solve(c);
}

/* clang-format off */
const wf_adapter wf_adapters_language[] = {
    {"model.gpt2", gpt2, ""},
    {"model.bert", bert, ""},
    {"model.placement-lm", placement_lm, ""},
    {0},
};
/* clang-format on */
