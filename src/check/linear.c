/* linear.c: cases of linear and block-wise mixers: Flowformer (02), TransNormer (09), SLAB's simplified linear attention (18). */
#include "check/case.h"
#include "part/norm/norm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LINEAR(f, o)                                                                                                           \
    {f ".weight", o ".weight", 0}, {                                                                                           \
        f ".bias", o ".bias", WF_NAME_OPTIONAL                                                                                 \
    }
static const char *const nothing[] = {NULL};

static int64_t dim_of(wf_case *c, const char *name, int axis) {
    const wf_st_entry *e = wf_st_find(c->file, name);
    return e && e->shape.rank > axis ? e->shape.dim[axis] : 0;
}

static const char *yes(bool x) {
    return x ? "true" : "false";
}

/* "srms eps 1e-8", "pre-LayerNorm eps 1e-5": the number after eps, else `otherwise`; the words before it must start with `kind`. */
static wf_status named_eps(wf_case *c, const char *key, const char *kind, double otherwise, double *eps) {
    const wf_value *v = wf_case_key(c, key);
    *eps = otherwise;
    if (!v) return WF_OK;
    if (v->kind != WF_V_TEXT || strncmp(v->text, kind, strlen(kind)))
        return wf_case_fail(c, "config: '%s' must be '%s eps <number>'%s%s", key, kind, v->text ? ", not " : "",
                            v->text ? v->text : "");
    const char *at = strstr(v->text, "eps");
    char *end = NULL;
    if (!at) return WF_OK;
    *eps = strtod(at + 3, &end);
    return end != at + 3 && *eps >= 0 ? WF_OK : wf_case_fail(c, "config: '%s' has no number after eps", key);
}

/* ---- 02: mixer.flow-attention, model.flowformer-gpt ---- */

/* clang-format off */
static const wf_name_rule flow_rules[] = {LINEAR("query_projection", "q"), LINEAR("key_projection", "k"),
                                          LINEAR("value_projection", "v"), LINEAR("out_projection", "o"), {0}};
static const wf_name_map names_flow = {"flow attention", "", flow_rules, nothing};
static const wf_name_rule gpt_rules[] = {
    {"~wte.weight", "embed.weight", 0}, {"~wpe.weight", "position.table", 0},
    LINEAR("~h.{}.ln_1", "blocks.{}.mixer_in_norm"), LINEAR("~h.{}.ln_2", "blocks.{}.channel_in_norm"),
    LINEAR("~h.{}.attn.query_projection", "blocks.{}.mixer.q"), LINEAR("~h.{}.attn.key_projection", "blocks.{}.mixer.k"),
    LINEAR("~h.{}.attn.value_projection", "blocks.{}.mixer.v"), LINEAR("~h.{}.attn.out_projection", "blocks.{}.mixer.o"),
    LINEAR("~h.{}.mlp.c_fc", "blocks.{}.channel.up"), LINEAR("~h.{}.mlp.c_proj", "blocks.{}.channel.down"),
    LINEAR("~ln_f", "final_norm"), {"lm_head.weight", "head.weight", 0}, {0}};
static const wf_name_map names_gpt = {"flowformer gpt", "transformer.", gpt_rules, nothing};
/* clang-format on */

/* Absent: 1; null, none or 0: no clamp; a number c, or [-c, c]. */
static wf_status read_clamp(wf_case *c, double *clamp) {
    const wf_value *v = wf_case_key(c, "clamp");
    *clamp = wf_value_get(c->config, "clamp") ? 0 : 1;
    if (!v || (v->kind == WF_V_TEXT && !strcmp(v->text, "none"))) return WF_OK;
    if (v->kind != WF_V_LIST) WF_TRY(wf_case_real(c, "clamp", 1, clamp));
    double low = 0;
    if (v->kind == WF_V_LIST &&
        (v->n != 2 || wf_value_real(v->item[0], &low) != WF_OK || wf_value_real(v->item[1], clamp) != WF_OK || low != -*clamp))
        return wf_case_fail(c, "config: 'clamp' must be a number c or [-c, c]");
    return *clamp >= 0 ? WF_OK : wf_case_fail(c, "config: 'clamp' must not be negative");
}

/* What mixer and model have in common, as YAML without its end. */
static wf_status flow_spec(wf_case *c, int64_t D, bool *causal, char **spec) {
    static const char *const kernels[] = {"sigmoid", "sigmoid", "relu", "relu", NULL};
    int64_t H;
    double eps, clamp;
    const char *kernel;
    WF_TRY(wf_case_int(c, "heads", 1, &H));
    WF_TRY(wf_case_real(c, "eps", 1e-6, &eps));
    WF_TRY(wf_case_choice(c, "kernel", kernels, "sigmoid", &kernel));
    WF_TRY(wf_case_bool(c, "causal", false, causal));
    WF_TRY(read_clamp(c, &clamp));
    if (H < 1 || D < 1 || D % H)
        return wf_case_fail(c, "config: 'heads' %lld must divide the width %lld", (long long)H, (long long)D);
    *spec = wf_arena_format(c->arena, "name: flow, heads: %lld, head_dim: %lld, eps: %.17g, clamp: %.17g, kernel: %s",
                            (long long)H, (long long)(D / H), eps, clamp, kernel);
    return *spec ? WF_OK : WF_ENOMEM;
}

static wf_status flow(wf_case *c) {
    bool causal, cross;
    char *spec;
    int64_t D = dim_of(c, "param.query_projection.weight", 0), in = dim_of(c, "param.query_projection.weight", 1),
            out = dim_of(c, "param.out_projection.weight", 0);
    WF_TRY(flow_spec(c, D, &causal, &spec));
    WF_TRY(wf_case_bool(c, "cross", wf_case_has(c, "in.kv"), &cross));
    WF_TRY(wf_case_same(c, "d_input", in));
    WF_TRY(wf_case_same(c, "d_model", D));
    WF_TRY(wf_case_same(c, "d_output", out));
    bool qkv_bias = wf_case_has(c, "param.query_projection.bias"), out_bias = wf_case_has(c, "param.out_projection.bias");
    wf_model *m = wf_case_part(c, "mixer",
                               wf_arena_format(c->arena, "{%s, cross: %s, qkv_bias: %s, out_bias: %s}", spec, yes(cross),
                                               yes(qkv_bias), yes(out_bias)),
                               in, out, causal, 0, &names_flow);
    if (!m) return WF_EINVAL;
    wf_build *b = &c->build;
    b->causal = causal;
    /* Lengths are those of keys. */
    if (cross)
        b->context_lengths = wf_case_in_or_null(c, "lengths");
    else
        b->lengths = wf_case_in_or_null(c, "lengths");
    bool named_q = wf_case_has(c, "in.q");
    if (cross) b->context = wf_case_in(c, "kv");
    wf_case_out(c, "y", wf_apply(b, m->root, wf_case_in(c, named_q ? "q" : "x")));
    return wf_case_solve(c);
}

static wf_status flow_gpt(wf_case *c) {
    static const char *const acts[] = {"gelu_tanh", "gelu_tanh", "gelu_new", "gelu_tanh", "gelu", "gelu", "relu", "relu", NULL};
    int64_t V, P, n, F, D;
    double eps;
    bool causal;
    char *mixer;
    const char *act;
    WF_TRY(wf_case_int(c, "width", dim_of(c, "param.transformer.wte.weight", 1), &D));
    WF_TRY(flow_spec(c, D, &causal, &mixer));
    WF_TRY(wf_case_int(c, "vocab", 0, &V));
    WF_TRY(wf_case_int(c, "block_size", 0, &P));
    WF_TRY(wf_case_int(c, "layers", 1, &n));
    F = dim_of(c, "param.transformer.h.0.mlp.c_fc.weight", 0);
    WF_TRY(wf_case_same(c, "ffn", F));
    WF_TRY(wf_case_choice(c, "act", acts, "gelu_tanh", &act));
    WF_TRY(named_eps(c, "norm", "pre-LayerNorm", 1e-5, &eps));
    if (wf_case_key(c, "causal") && !causal)
        return wf_case_fail(c, "config: 'causal' false makes no sense for a language model");
    bool tied = !wf_case_has(c, "param.lm_head.weight"), bias = wf_case_has(c, "param.transformer.h.0.mlp.c_fc.bias");
    wf_model *m = wf_case_model(
        c,
        wf_arena_format(c->arena,
                        "{name: lm, vocab: %lld, length: %lld, layers: %lld, width: %lld, tied: %s, bias: %s, mixer: {%s}, "
                        "channel: {name: mlp, hidden: %lld, act: %s}, norm: {name: layernorm, eps: %.17g}}",
                        (long long)V, (long long)P, (long long)n, (long long)D, yes(tied), yes(bias), mixer, (long long)F, act,
                        eps),
        &names_gpt);
    if (!m) return WF_EINVAL;
    wf_case_out(c, "logits", wf_apply(&c->build, m->root, wf_case_in(c, "ids")));
    return wf_case_solve(c);
}

/* ---- 09: mixer.norm-attention, mixer.diag-attention, block.transnormer; tensors are [L,B,D] ---- */

/* clang-format off */
#define TRANSNORMER(f, o)                                                                                                        \
    LINEAR(f "q_proj", o "q"), LINEAR(f "k_proj", o "k"), LINEAR(f "v_proj", o "v"), LINEAR(f "out_proj", o "o"),              \
        {f "urpe.theta", o "position.theta", WF_NAME_LEAD2}, {f "urpe.v", o "position.u", 0}
static const wf_name_rule transnormer_rules[] = {TRANSNORMER("", ""), {0}};
static const wf_name_map names_transnormer = {"transnormer attention", "", transnormer_rules, nothing};
static const wf_name_rule layer_rules[] = {TRANSNORMER("self_attn.", "self_attn."), LINEAR("glu.l1", "glu.gate"),
                                           LINEAR("glu.l2", "glu.up"), LINEAR("glu.l3", "glu.down"), {0}};
static const wf_name_map names_layer = {"transnormer layer", "", layer_rules, nothing};
/* clang-format on */

/* What the case says of its positions must be what its tensors say. */
static wf_status lrpe_spec(wf_case *c, const char *prefix, const char **spec) {
    char *theta = wf_arena_format(c->arena, "param.%surpe.theta", prefix),
         *v = wf_arena_format(c->arena, "param.%surpe.v", prefix);
    if (!theta || !v) return WF_ENOMEM;
    const wf_value *said = wf_value_get(c->config, "lrpe");
    const wf_value *key = wf_case_key(c, "lrpe");
    bool has = wf_case_has(c, theta), off = said && (!key || (key->kind == WF_V_TEXT && !strcmp(key->text, "false")));
    bool rotary = off || !key || (key->kind == WF_V_TEXT && (!strcmp(key->text, "true") || strstr(key->text, "rope")));
    if (!rotary) return wf_case_fail(c, "config: 'lrpe' must be null, true, false or 'householder(..)+rope(..)'");
    if (said && has == off) return wf_case_fail(c, "config: 'lrpe' and the tensor %s do not agree", theta);
    *spec = !has ? "none" : wf_case_has(c, v) ? "lrpe" : "{name: lrpe, reflect: false}";
    return WF_OK;
}

typedef struct attention_spec {
    int64_t D, H;
    bool causal;
    char *yaml;
} attention_spec;

static const char *const feature_maps[] = {"elu", "elu", "1+elu", "1+elu", "elu+1", "1+elu", NULL};
static const char *const diag_acts[] = {"relu", "relu", "softmax", "softmax", NULL};

static wf_status read_common(wf_case *c, const char *prefix, attention_spec *s, const char **position) {
    char *q = wf_arena_format(c->arena, "param.%sq_proj.weight", prefix);
    if (!q) return WF_ENOMEM;
    s->D = dim_of(c, q, 0);
    WF_TRY(wf_case_int(c, "heads", 1, &s->H));
    if (s->H < 1 || s->D < 1 || s->D % s->H)
        return wf_case_fail(c, "config: 'heads' %lld must divide the width %lld", (long long)s->H, (long long)s->D);
    WF_TRY(wf_case_bool(c, "causal", false, &s->causal));
    return lrpe_spec(c, prefix, position);
}

static wf_status norm_spec(wf_case *c, const char *prefix, const char *act_key, attention_spec *s) {
    const char *act, *position = NULL;
    double eps;
    WF_TRY(read_common(c, prefix, s, &position));
    WF_TRY(wf_case_choice(c, act_key, feature_maps, "elu", &act));
    WF_TRY(named_eps(c, "norm", "srms", 1e-8, &eps));
    if (wf_value_get(c->config, "norm") && !wf_case_key(c, "norm"))
        return wf_case_fail(c, "config: norm attention without a norm is not known");
    s->yaml = wf_arena_format(c->arena, "{name: norm-attention, heads: %lld, act: %s, eps: %.17g, position: %s}",
                              (long long)s->H, act, eps, position);
    return s->yaml ? WF_OK : WF_ENOMEM;
}

static wf_status diag_spec(wf_case *c, const char *prefix, const char *act_key, attention_spec *s) {
    static const char *const scales[] = {"d^-0.5 on q after bias", "root", "d^-0.5", "root", "1/sqrt(d)", "root", NULL};
    const char *act, *position = NULL, *scale;
    double eps;
    int64_t w;
    bool mask_tail;
    WF_TRY(read_common(c, prefix, s, &position));
    WF_TRY(wf_case_choice(c, act_key, diag_acts, "relu", &act));
    WF_TRY(wf_case_choice(c, "scale", scales, "root", &scale));
    WF_TRY(wf_case_int(c, "block", 64, &w));
    WF_TRY(wf_case_bool(c, "mask_tail", false, &mask_tail));
    WF_TRY(named_eps(c, "norm", "srms", 1e-8, &eps));
    if (w < 1) return wf_case_fail(c, "config: 'block' must be at least 1");
    const char *norm = !wf_value_get(c->config, "norm") ? "auto" : wf_case_key(c, "norm") ? "srms" : "none";
    s->yaml = wf_arena_format(c->arena,
                              "{name: diag-attention, heads: %lld, block: %lld, act: %s, norm: %s, eps: %.17g, mask_tail: %s, "
                              "position: %s}",
                              (long long)s->H, (long long)w, act, norm, eps, yes(mask_tail), position);
    return s->yaml ? WF_OK : WF_ENOMEM;
}

/* in.x and out.y are time first. */
static wf_node *time_first(wf_graph *g, wf_node *x) {
    if (x && x->shape.rank != 3) return wf_graph_fail(g, WF_EINVAL, "a tensor [L,B,D] was expected");
    return x ? wf_transpose(g, x, 0, 1) : NULL;
}

static wf_status one_attention(wf_case *c, const char *kind,
                               wf_status (*spec)(wf_case *, const char *, const char *, attention_spec *)) {
    attention_spec s = {0};
    const char *said;
    WF_TRY(wf_case_text(c, "kind", kind, &said));
    if (strcmp(said, kind)) return wf_case_fail(c, "config: 'kind' is '%s', not '%s'", said, kind);
    WF_TRY(spec(c, "", "act", &s));
    wf_model *m = wf_case_part(c, "mixer", s.yaml, dim_of(c, "param.q_proj.weight", 1), dim_of(c, "param.out_proj.weight", 0),
                               s.causal, 0, &names_transnormer);
    if (!m) return WF_EINVAL;
    c->build.causal = s.causal;
    wf_node *y = wf_apply(&c->build, m->root, time_first(c->graph, wf_case_in(c, "x")));
    wf_case_out(c, "y", time_first(c->graph, y));
    return wf_case_solve(c);
}

static wf_status norm_attention(wf_case *c) {
    return one_attention(c, "norm", norm_spec);
}

static wf_status diag_attention(wf_case *c) {
    return one_attention(c, "diag", diag_spec);
}

/* The first word, which may be followed by an explanation. */
static const char *first_word(wf_case *c, const char *key, const char *otherwise) {
    const wf_value *v = wf_case_key(c, key);
    if (!v) return otherwise;
    if (v->kind != WF_V_TEXT) return NULL;
    size_t n = strcspn(v->text, " (");
    char *word = wf_arena_strdup(c->arena, v->text);
    if (word) word[n] = 0;
    return word;
}

static wf_module *layer_children(wf_case *c, wf_model *m, const attention_spec *s, int64_t hidden, const char *act) {
    static const wf_part layer = {.slot = "block", .name = "transnormer"};
    wf_module *top = wf_model_root(m, &layer, NULL);
    if (!top) return NULL;
    m->causal = s->causal;
    m->bias = true;
    bool ok = wf_child_text(top, "self_attn", "mixer", s->D, s->D, "%s", s->yaml) &&
              wf_child_text(top, "glu", "channel", s->D, s->D, "{name: glu, hidden: %lld, act: %s}", (long long)hidden, act);
    return ok ? top : NULL;
}

static wf_status transnormer(wf_case *c) {
    static const char *const kinds[] = {"norm", "norm", "diag", "diag", NULL};
    static const char *const acts[] = {"identity", "identity", "swish", "identity", "silu", "silu", NULL};
    static const char *const only[] = {"layer", "layer", NULL};
    const char *kind, *word = first_word(c, "glu_act", "identity"), *act = NULL, *of_others;
    attention_spec s = {0};
    int64_t hidden, w;
    double eps;
    WF_TRY(wf_case_choice(c, "kind", only, "layer", &kind));
    WF_TRY(wf_case_choice(c, "attention", kinds, "norm", &kind));
    WF_TRY(named_eps(c, "prenorm", "srms", 1e-8, &eps));
    hidden = dim_of(c, "param.glu.l1.weight", 0);
    WF_TRY(wf_case_same(c, "glu_hidden", hidden));
    for (const char *const *p = acts; *p && word; p += 2)
        if (!strcmp(*p, word)) act = p[1];
    if (!act) return wf_case_fail(c, "config: 'glu_act' must start with identity or silu");
    bool norm = !strcmp(kind, "norm");
    WF_TRY(norm ? norm_spec(c, "self_attn.", "norm_act", &s) : diag_spec(c, "self_attn.", "diag_act", &s));
    /* The other half of the layers has options too. */
    WF_TRY(wf_case_choice(c, norm ? "diag_act" : "norm_act", norm ? diag_acts : feature_maps, NULL, &of_others));
    WF_TRY(wf_case_int(c, "block", 64, &w));
    if (w < 1) return wf_case_fail(c, "config: 'block' must be at least 1");
    wf_model *m = wf_model_alloc();
    wf_module *top = m ? layer_children(c, m, &s, hidden, act) : NULL;
    if (!top) {
        wf_model_free(m);
        return WF_EINVAL;
    }
    WF_TRY(wf_case_adopt(c, m, &names_layer));
    wf_graph *g = c->graph;
    wf_build *b = &c->build;
    b->causal = s.causal;
    wf_node *x = time_first(g, wf_case_in(c, "x"));
    x = wf_add(g, x, wf_apply_child(b, top, "self_attn", wf_srms(g, x, eps)));
    x = wf_add(g, x, wf_apply_child(b, top, "glu", wf_srms(g, x, eps)));
    wf_case_out(c, "y", time_first(g, x));
    return wf_case_solve(c);
}

/* ---- 18: mixer.simplified-linear-attention ---- */

/* clang-format off */
static const wf_name_rule sla_rules[] = {
    {"qkv.weight", "q.weight", 0}, {"qkv.weight", "k.weight", 0}, {"qkv.weight", "v.weight", 0},
    {"qkv.bias", "q.bias", 0}, {"qkv.bias", "k.bias", 0}, {"qkv.bias", "v.bias", 0},
    LINEAR("proj", "o"), {"positional_encoding", "positions", WF_NAME_LEAD1}, {"dwc.weight", "conv.weight", 0}, {"dwc.bias", "conv.bias", 0}, {0}};
static const wf_name_map names_sla = {"simplified linear attention", "", sla_rules, nothing};
/* clang-format on */

static wf_status simplified_linear(wf_case *c) {
    int64_t D, H, kernel, h, w;
    double eps;
    const char *order;
    const wf_st_entry *x = wf_case_entry(c, "in.x");
    if (!x) return WF_EFORMAT;
    if (x->shape.rank != 3) return wf_case_fail(c, "in.x must be [B,N,C]");
    int64_t N = x->shape.dim[1];
    WF_TRY(wf_case_int(c, "dim", x->shape.dim[2], &D));
    WF_TRY(wf_case_int(c, "heads", 1, &H));
    WF_TRY(wf_case_int(c, "dwc_kernel", 5, &kernel));
    WF_TRY(wf_case_real(c, "eps", 1e-6, &eps));
    static const char *const paths[] = {"kv first", "kv_first", "kv_first", "kv_first", "qk first", "qk_first",
                                        "qk_first", "qk_first", "auto",     "auto",     NULL};
    WF_TRY(wf_case_choice(c, "path", paths, "auto", &order)); /* both orders give the same */
    h = w = (int64_t)(sqrt((double)N) + 0.5);
    if (wf_case_key(c, "window")) WF_TRY(wf_case_pair(c, "window", &h, &w));
    if (h * w != N)
        return wf_case_fail(c, "config: a window of %lld x %lld has not the %lld tokens of in.x", (long long)h, (long long)w,
                            (long long)N);
    wf_model *m = wf_case_part(c, "mixer",
                               wf_arena_format(c->arena,
                                               "{name: simplified-linear, heads: %lld, kernel: %lld, eps: %.17g, height: %lld, "
                                               "width: %lld, order: %s, qkv_bias: %s, out_bias: %s}",
                                               (long long)H, (long long)kernel, eps, (long long)h, (long long)w, order,
                                               yes(wf_case_has(c, "param.qkv.bias")), yes(wf_case_has(c, "param.proj.bias"))),
                               D, D, false, N, &names_sla);
    if (!m) return WF_EINVAL;
    wf_case_out(c, "y", wf_apply(&c->build, m->root, wf_case_in(c, "x")));
    return wf_case_solve(c);
}

/* clang-format off */
const wf_adapter wf_adapters_linear[] = {
    {"mixer.flow-attention", flow, "B L S"},
    {"model.flowformer-gpt", flow_gpt, "B L"},
    {"mixer.norm-attention", norm_attention, "B L D"},
    {"mixer.diag-attention", diag_attention, "B L D"},
    {"block.transnormer", transnormer, "B L D"},
    {"mixer.simplified-linear-attention", simplified_linear, "B N C"},
    {0},
};
/* clang-format on */
