/* topology.c: cases of wide attention, Activator, Macaron Net and the adaLN-zero block. */
#include "check/case.h"

#include <string.h>

#define LINEAR(f, o)                                                                                                           \
    {f ".weight", o ".weight", 0}, {                                                                                           \
        f ".bias", o ".bias", WF_NAME_OPTIONAL                                                                                 \
    }
#define NORM(f, o)                                                                                                             \
    {f ".weight", o ".weight", 0}, {                                                                                           \
        f ".bias", o ".bias", 0                                                                                                \
    }
/* q, k and v stacked in one matrix */
#define STACKED(w, b, o)                                                                                                       \
    {w, o ".q.weight", 0}, {w, o ".k.weight", 0}, {w, o ".v.weight", 0}, {b, o ".q.bias", WF_NAME_OPTIONAL},                   \
        {b, o ".k.bias", WF_NAME_OPTIONAL}, {                                                                                  \
        b, o ".v.bias", WF_NAME_OPTIONAL                                                                                       \
    }

static const char *const nothing[] = {NULL};
static const char *const activations[] = {"gelu_erf", "gelu",      "gelu", "gelu", "exact", "gelu", "gelu_tanh", "gelu_tanh",
                                          "tanh",     "gelu_tanh", "relu", "relu", "silu",  "silu", NULL};
static const char *const placements[] = {"pre", "pre", "post", "post", NULL};

static int64_t dim_of(wf_case *c, const char *name, int axis) {
    const wf_st_entry *e = wf_st_find(c->file, name);
    return e && e->shape.rank > axis ? e->shape.dim[axis] : 0;
}

static const char *truth(bool b) {
    return b ? "true" : "false";
}

/* [B,S], 1 is padding -> what hides those keys when added to scores: [B,1,1,S] */
static wf_node *hidden_keys(wf_case *c, wf_node *padded) {
    return wf_mul_c(c->graph, wf_unsqueeze(c->graph, wf_unsqueeze(c->graph, padded, 1), 1), -1e30);
}

/* What is 1 in a padding mask [B,L] counts nowhere: not as a key, not in means. */
static void hide_padding(wf_case *c, const char *name) {
    wf_node *padded = wf_case_in_or_null(c, name);
    if (!padded) return;
    c->build.keep = wf_sub(c->graph, wf_fill(c->graph, padded->dtype, WF_SHAPE(1), 1), padded);
    c->build.score_bias = hidden_keys(c, padded);
}

/* ---- model.wide-classifier ---- */

/* clang-format off */
static const wf_name_rule wide_rules[] = {
    {"tok.weight", "embed.weight", 0}, {"pos.weight", "position.table", 0}, {"cls", "class_token", WF_NAME_LEAD2},
    LINEAR("layers.{}.attn.q", "blocks.{}.mixer.q"), LINEAR("layers.{}.attn.k", "blocks.{}.mixer.k"),
    LINEAR("layers.{}.attn.v", "blocks.{}.mixer.v"), LINEAR("layers.{}.attn.out", "blocks.{}.mixer.o"),
    LINEAR("layers.{}.ffn.fc1", "blocks.{}.channel.up"), LINEAR("layers.{}.ffn.fc2", "blocks.{}.channel.down"),
    NORM("layers.{}.norm1", "blocks.{}.mixer_in_norm"), NORM("layers.{}.norm1", "blocks.{}.mixer_res_norm"),
    NORM("layers.{}.norm2", "blocks.{}.channel_in_norm"), NORM("layers.{}.norm2", "blocks.{}.channel_res_norm"),
    NORM("norm", "final_norm"), LINEAR("head", "head"), {0}};
static const wf_name_map names_wide = {"wide classifier", "", wide_rules, nothing};
/* clang-format on */

typedef struct wide {
    int64_t D, layers, heads, head_dim, inner, ffn, vocab, classes, L;
    double eps;
    const char *place, *act, *pool;
} wide;

static wf_status read_wide(wf_case *c, wide *w) {
    static const char *const pools[] = {
        "mean over unpadded", "mean", "mean", "mean", "class token", "class", "class", "class", NULL};
    w->vocab = dim_of(c, "param.tok.weight", 0);
    w->D = dim_of(c, "param.tok.weight", 1);
    w->L = dim_of(c, "param.pos.weight", 0);
    w->classes = dim_of(c, "param.head.weight", 0);
    w->ffn = dim_of(c, "param.layers.0.ffn.fc1.weight", 0);
    w->inner = dim_of(c, "param.layers.0.attn.q.weight", 0);
    WF_TRY(wf_case_same(c, "vocab", w->vocab));
    WF_TRY(wf_case_same(c, "D", w->D));
    WF_TRY(wf_case_same(c, "classes", w->classes));
    WF_TRY(wf_case_same(c, "ffn", w->ffn));
    WF_TRY(wf_case_same(c, "attention_inner", w->inner));
    WF_TRY(wf_case_int(c, "layers", 1, &w->layers));
    WF_TRY(wf_case_int(c, "heads_per_layer", 1, &w->heads));
    if (w->layers < 1 || w->heads < 1) return wf_case_fail(c, "config: 'layers' and 'heads_per_layer' must be at least 1");
    WF_TRY(wf_case_int(c, "head_dim", w->inner / w->heads, &w->head_dim));
    if (w->head_dim * w->heads != w->inner)
        return wf_case_fail(c, "%lld heads of %lld channels do not make the %lld rows of q", (long long)w->heads,
                            (long long)w->head_dim, (long long)w->inner);
    WF_TRY(wf_case_real(c, "norm_eps", 1e-5, &w->eps));
    WF_TRY(wf_case_choice(c, "norm_placement", placements, "post", &w->place));
    WF_TRY(wf_case_choice(c, "activation", activations, "gelu", &w->act));
    return wf_case_choice(c, "pooling", pools, "mean", &w->pool);
}

/* As the topology means it: layers x heads layers of one head each, in `layers` blocks. */
static wf_status wide_classifier(wf_case *c) {
    wide w = {0};
    WF_TRY(read_wide(c, &w));
    bool token = !strcmp(w.pool, "class");
    char *recipe = wf_arena_format(c->arena,
                                   "{name: classifier, vocab: %lld, length: %lld, classes: %lld, width: %lld, pool: %s, "
                                   "layers: %lld, topology: {name: wide, "
                                   "blocks: %lld}, placement: %s, mixer: {name: softmax, heads: 1, head_dim: %lld}, channel: "
                                   "{name: mlp, hidden: %lld, act: "
                                   "%s}, norm: {name: layernorm, eps: %.17g}}",
                                   (long long)w.vocab, (long long)(w.L - token), (long long)w.classes, (long long)w.D, w.pool,
                                   (long long)(w.layers * w.heads), (long long)w.layers, w.place, (long long)w.head_dim,
                                   (long long)w.ffn, w.act, w.eps);
    wf_model *m = wf_case_model(c, recipe, &names_wide);
    if (!m) return WF_EINVAL;
    WF_TRY(wf_case_same(c, "parameters", wf_model_count(m)));
    hide_padding(c, "padding_mask");
    c->build.lengths = wf_case_in_or_null(c, "lengths");
    wf_case_out(c, "logits", wf_apply(&c->build, m->root, wf_case_in(c, "ids")));
    wf_case_out(c, "hidden", wf_case_tapped(c, "hidden", 0));
    return wf_case_solve(c);
}

/* ---- mixer.glu-gate, mixer.glu-variants, block.activator, model.activator-classifier ---- */

/* clang-format off */
static const wf_name_rule gate_rules[] = {LINEAR("proj_1", "gate"), LINEAR("proj_2", "value"), LINEAR("proj_3", "out"),
                                          NORM("norm", "norm"), {0}};
static const wf_name_map names_gate = {"gating unit", "", gate_rules, nothing};
static const wf_name_rule activator_rules[] = {
    NORM("model.{}.norm", "blocks.{}.in_norm"), NORM("model.{}.actgu.norm", "blocks.{}.mixer.norm"),
    LINEAR("model.{}.actgu.proj_1", "blocks.{}.mixer.gate"), LINEAR("model.{}.actgu.proj_2", "blocks.{}.mixer.value"),
    LINEAR("model.{}.actgu.proj_3", "blocks.{}.mixer.out"), LINEAR("model.{}.ffn.net.0", "blocks.{}.channel.up"),
    LINEAR("model.{}.ffn.net.3", "blocks.{}.channel.down"), {"patcher.weight", "patch.weight", WF_NAME_PATCH},
    {"patcher.bias", "patch.bias", 0}, LINEAR("classifier", "head"), {0}};
static const wf_name_map names_activator = {"Activator", "", activator_rules, nothing};
/* clang-format on */

/* Sizes of the unit whose first matrix is `proj`, and its options. */
static wf_status read_unit(wf_case *c, const char *prefix, const char *width_key, const char *hidden_key, int64_t *D,
                           char **options) {
    double eps;
    bool norm;
    *D = 0;
    *options = NULL;
    char *proj = wf_arena_format(c->arena, "param.%sproj_1.weight", prefix);
    char *bias = wf_arena_format(c->arena, "param.%sproj_1.bias", prefix);
    char *gain = wf_arena_format(c->arena, "param.%snorm.weight", prefix);
    if (!proj || !bias || !gain || !wf_case_has(c, proj)) return wf_case_fail(c, "param.%sproj_1.weight is missing", prefix);
    int64_t F = dim_of(c, proj, 0);
    *D = dim_of(c, proj, 1);
    WF_TRY(wf_case_same(c, width_key, *D));
    WF_TRY(wf_case_same(c, hidden_key, F));
    WF_TRY(wf_case_real(c, "ln_eps", 1e-5, &eps));
    WF_TRY(wf_case_bool(c, "inner_norm", wf_case_has(c, gain), &norm));
    *options = wf_arena_format(c->arena, "name: glu, hidden: %lld, eps: %.17g, inner_norm: %s, bias: %s", (long long)F, eps,
                               truth(norm), truth(wf_case_has(c, bias)));
    return *options ? WF_OK : WF_ENOMEM;
}

static wf_status gate(wf_case *c) {
    int64_t D;
    char *options;
    const char *act;
    WF_TRY(read_unit(c, "", "dim", "hidden", &D, &options));
    WF_TRY(wf_case_choice(c, "act", activations, "gelu", &act));
    wf_model *m =
        wf_case_part(c, "mixer", wf_arena_format(c->arena, "{%s, act: %s}", options, act), D, D, false, 0, &names_gate);
    if (!m) return WF_EINVAL;
    wf_case_out(c, "y", wf_apply(&c->build, m->root, wf_case_in(c, "x")));
    return wf_case_solve(c);
}

/* All of b's parameters become a's. Those of the first unit carry the short names. */
static wf_status share_unit(wf_module *a, wf_module *b) {
    for (int i = 0; i < b->n_child; i++)
        for (int k = 0; k < b->child[i]->n_param; k++) {
            wf_param *p = a->child[i]->param[k];
            const char *local = strchr(p->name, '.');
            if (a == b)
                p->name = local ? local + 1 : p->name;
            else
                WF_TRY(wf_share(b->child[i], b->child[i]->param_name[k], p));
        }
    return WF_OK;
}

/* Several units of one set of weights, one for each gate activation. */
static wf_status variants(wf_case *c) {
    static const wf_part together = {.slot = "mixer", .name = "together"};
    static const struct { const char *act, *out; } known[] = {{"gelu", "geglu"}, {"silu", "swiglu"}, {"relu", "reglu"}};
    const wf_value *acts = wf_case_key(c, "acts");
    wf_module *unit[3] = {NULL}, *first = NULL;
    int64_t D;
    char *options;
    WF_TRY(read_unit(c, "", "dim", "hidden", &D, &options));
    wf_model *m = wf_model_alloc();
    wf_module *top = m ? wf_model_root(m, &together, NULL) : NULL;
    wf_status s = top ? WF_OK : WF_ENOMEM;
    for (int k = 0; s == WF_OK && k < 3; k++) {
        bool wanted = !acts;
        for (int i = 0; acts && i < acts->n; i++)
            wanted |= acts->item[i]->kind == WF_V_TEXT && !strncmp(acts->item[i]->text, known[k].act, 4);
        if (!wanted) continue;
        unit[k] = wf_child_text(top, known[k].act, "mixer", D, D, "{%s, act: %s}", options, known[k].act);
        s = unit[k] ? share_unit(first ? first : unit[k], unit[k]) : WF_EINVAL;
        if (!first) first = unit[k];
    }
    if (s == WF_OK && !first) s = wf_case_fail(c, "config: 'acts' must list some of gelu, silu, relu");
    if (s != WF_OK) return wf_model_free(m), s;
    WF_TRY(wf_case_adopt(c, m, &names_gate));
    for (int k = 0; k < 3; k++)
        if (unit[k]) wf_case_out(c, known[k].out, wf_apply(&c->build, unit[k], wf_case_in(c, "x")));
    return wf_case_solve(c);
}

/* The entries that both forms of Activator share: topology, mixer, channel, norm, layers. */
static char *activator_blocks(wf_case *c, int64_t *D) {
    static const char *const kinds[] = {"glu+mlp", "true", "glu", "false", "glu only", "false", "only_GEGLU", "false", NULL};
    char *options;
    const char *act, *mlp;
    int64_t layers;
    double dropout;
    bool eval;
    if (read_unit(c, "model.0.actgu.", "d_model", "d_ffn", D, &options) != WF_OK ||
        wf_case_choice(c, "act", activations, "gelu", &act) != WF_OK || wf_case_int(c, "layers", 1, &layers) != WF_OK ||
        wf_case_real(c, "dropout", 0, &dropout) != WF_OK || wf_case_bool(c, "eval", true, &eval) != WF_OK ||
        wf_case_choice(c, "variant", kinds, wf_case_has(c, "param.model.0.ffn.net.0.weight") ? "true" : "false", &mlp) != WF_OK)
        return NULL;
    if (!eval && dropout > 0) {
        wf_case_fail(c, "config: 'dropout' in training draws numbers of its own; 'eval' must be true");
        return NULL;
    }
    int64_t F = dim_of(c, "param.model.0.actgu.proj_1.weight", 0);
    return wf_arena_format(
        c->arena,
        "layers: %lld, topology: {name: activator, mlp: %s}, mixer: {%s, act: %s}, channel: {name: mlp, hidden: "
        "%lld, act: gelu}, norm: {name: layernorm, eps: 1e-5}",
        (long long)layers, mlp, options, act, (long long)F);
}

static wf_status activator_block(wf_case *c) {
    int64_t D;
    char *blocks = activator_blocks(c, &D);
    if (!blocks) return WF_EINVAL;
    wf_model *m =
        wf_case_model(c, wf_arena_format(c->arena, "{name: stack, width: %lld, %s}", (long long)D, blocks), &names_activator);
    if (!m) return WF_EINVAL;
    wf_case_out(c, "y", wf_apply(&c->build, m->root, wf_case_in(c, "x")));
    return wf_case_solve(c);
}

static wf_status activator_classifier(wf_case *c) {
    int64_t D, h, w, ph, pw, C = dim_of(c, "in.x", 1), classes = dim_of(c, "param.classifier.weight", 0);
    char *blocks = activator_blocks(c, &D);
    if (!blocks) return WF_EINVAL;
    WF_TRY(wf_case_pair(c, "image", &h, &w));
    WF_TRY(wf_case_pair(c, "patch", &ph, &pw));
    WF_TRY(wf_case_same(c, "classes", classes));
    char *recipe = wf_arena_format(
        c->arena,
        "{name: vit, image_height: %lld, image_width: %lld, channels: %lld, patch: %lld, patch_width: "
        "%lld, classes: %lld, width: %lld, pool: mean, positions: none, final_norm: false, %s}",
        (long long)h, (long long)w, (long long)C, (long long)ph, (long long)pw, (long long)classes, (long long)D, blocks);
    wf_model *m = wf_case_model(c, recipe, &names_activator);
    if (!m) return WF_EINVAL;
    wf_case_out(c, "logits", wf_apply(&c->build, m->root, wf_case_in(c, "x")));
    wf_case_out(c, "tokens", wf_case_tapped(c, "patches", 0));
    return wf_case_solve(c);
}

/* ---- block.macaron-encoder, block.macaron-decoder ---- */

/* clang-format off */
#define BOTH(f, o) NORM(f, "blocks.0." o "_in_norm"), NORM(f, "blocks.0." o "_res_norm")
static const wf_name_rule macaron_rules[] = {
    LINEAR("ffn1.fc1", "blocks.0.channel1.up"), LINEAR("ffn1.fc2", "blocks.0.channel1.down"),
    LINEAR("ffn2.fc1", "blocks.0.channel2.up"), LINEAR("ffn2.fc2", "blocks.0.channel2.down"),
    STACKED("self_attn.in_proj_weight", "self_attn.in_proj_bias", "blocks.0.mixer"), LINEAR("self_attn.out_proj", "blocks.0.mixer.o"),
    STACKED("encoder_attn.in_proj_weight", "encoder_attn.in_proj_bias", "blocks.0.cross"), LINEAR("encoder_attn.out_proj", "blocks.0.cross.o"),
    BOTH("norm_ffn1", "channel1"), BOTH("norm_attn", "mixer"), BOTH("norm_cross", "cross"), BOTH("norm_ffn2", "channel2"), {0}};
static const wf_name_map names_macaron = {"Macaron layer", "", macaron_rules, nothing};
/* clang-format on */

static wf_status macaron(wf_case *c, bool decoder) {
    int64_t D = dim_of(c, "in.x", 2), heads, F = dim_of(c, "param.ffn1.fc1.weight", 0);
    double factor, eps;
    bool causal, cross;
    const char *place, *act;
    wf_build *b = &c->build;
    WF_TRY(wf_case_same(c, "D", D));
    WF_TRY(wf_case_same(c, "ffn", F));
    WF_TRY(wf_case_int(c, "heads", 1, &heads));
    WF_TRY(wf_case_real(c, "ffn_factor", 0.5, &factor));
    WF_TRY(wf_case_real(c, "norm_eps", 1e-5, &eps));
    WF_TRY(wf_case_bool(c, "causal", decoder, &causal));
    WF_TRY(wf_case_bool(c, "cross_attention", wf_case_has(c, "in.encoder_out"), &cross));
    WF_TRY(wf_case_choice(c, "norm_placement", placements, "post", &place));
    WF_TRY(wf_case_choice(c, "activation", activations, "relu", &act));
    char *recipe =
        wf_arena_format(c->arena,
                        "{name: stack, width: %lld, layers: 1, causal: %s, context: %s, topology: {name: macaron, factor: "
                        "%.17g}, placement: %s, mixer: {name: softmax, heads: %lld, bias: true}, channel: {name: mlp, "
                        "hidden: %lld, act: %s}, norm: {name: layernorm, eps: %.17g}}",
                        (long long)D, truth(causal), truth(cross), factor, place, (long long)heads, (long long)F, act, eps);
    wf_model *m = wf_case_model(c, recipe, &names_macaron);
    if (!m) return WF_EINVAL;
    hide_padding(c, "padding_mask");
    if (cross) b->context = wf_case_in(c, "encoder_out");
    wf_node *padded = cross ? wf_case_in_or_null(c, "encoder_padding_mask") : NULL;
    if (padded) b->context_bias = hidden_keys(c, padded); /* anywhere in the context */
    wf_case_out(c, "y", wf_apply(b, m->root, wf_case_in(c, "x")));
    return wf_case_solve(c);
}

static wf_status macaron_encoder(wf_case *c) {
    return macaron(c, false);
}
static wf_status macaron_decoder(wf_case *c) {
    return macaron(c, true);
}

/* ---- block.dit-adaln-zero ---- */

/* clang-format off */
#define PIECES(k)                                                                                              \
    {"ada." k, "blocks.0.mixer_in_norm." k, WF_NAME_OPTIONAL}, {"ada." k, "blocks.0.mixer_gate." k, WF_NAME_OPTIONAL}, \
    {"ada." k, "blocks.0.channel_in_norm." k, WF_NAME_OPTIONAL}, {"ada." k, "blocks.0.channel_gate." k, WF_NAME_OPTIONAL}
static const wf_name_rule dit_rules[] = {
    PIECES("weight"), PIECES("bias"), STACKED("qkv.weight", "qkv.bias", "blocks.0.mixer"), LINEAR("proj", "blocks.0.mixer.o"),
    LINEAR("fc1", "blocks.0.channel.up"), LINEAR("fc2", "blocks.0.channel.down"), LINEAR("final_ada", "final_norm"),
    LINEAR("final", "head"), {0}};
static const wf_name_map names_dit = {"DiT block", "", dit_rules, nothing};
/* clang-format on */

static wf_status dit(wf_case *c) {
    int64_t D = dim_of(c, "in.x", 2), H, F = dim_of(c, "param.fc1.weight", 0), C = dim_of(c, "param.ada.weight", 1);
    int64_t outputs = dim_of(c, "param.final.weight", 0);
    double eps;
    const char *act;
    bool final_layer = wf_case_has(c, "param.final_ada.weight");
    WF_TRY(wf_case_same(c, "D", D));
    WF_TRY(wf_case_same(c, "cond", C));
    WF_TRY(wf_case_same(c, "mlp_hidden", F));
    WF_TRY(wf_case_int(c, "H", 1, &H));
    WF_TRY(wf_case_real(c, "eps", 1e-6, &eps));
    static const char *const gelus[] = {"tanh", "gelu_tanh", "erf", "gelu", "exact", "gelu", "exact (erf)", "gelu", NULL};
    WF_TRY(wf_case_choice(c, "gelu", gelus, "gelu_tanh", &act));
    char *recipe = wf_arena_format(
        c->arena,
        "{name: stack, width: %lld, layers: 1, condition: %lld, placement: adaln-zero, norm: {name: adaln, eps: %.17g}, "
        "final_norm: %s, outputs: %lld, mixer: {name: softmax, heads: %lld}, channel: {name: mlp, hidden: %lld, act: %s}}",
        (long long)D, (long long)C, eps, truth(final_layer), (long long)outputs, (long long)H, (long long)F, act);
    wf_model *m = wf_case_model(c, recipe, &names_dit);
    if (!m) return WF_EINVAL;
    c->build.condition = wf_case_in(c, "c");
    wf_case_out(c, "z", wf_apply(&c->build, m->root, wf_case_in(c, "x")));
    wf_case_out(c, "y", wf_case_tapped(c, "hidden", 0));
    return wf_case_solve(c);
}

/* clang-format off */
const wf_adapter wf_adapters_topology[] = {
    {"model.wide-classifier", wide_classifier, "B L"},
    {"mixer.glu-gate", gate, ""},
    {"mixer.glu-variants", variants, ""},
    {"block.activator", activator_block, ""},
    {"model.activator-classifier", activator_classifier, ""},
    {"block.macaron-encoder", macaron_encoder, "B L"},
    {"block.macaron-decoder", macaron_decoder, "B L"},
    {"block.dit-adaln-zero", dit, "B L"},
    {0},
};
/* clang-format on */
