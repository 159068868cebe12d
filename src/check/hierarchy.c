/* hierarchy.c: cases of pooling, PoolFormer blocks, and the hierarchies PoolFormer and MetaFormer under their official names. */
#include "check/case.h"

#include <stdlib.h>
#include <string.h>

enum { STAGES = 8, RULES = 160 };

static const char *const nothing[] = {NULL};
static const char *const activations[] = {"gelu_erf", "gelu", "gelu", "gelu", "gelu_tanh", "gelu_tanh",
                                          "relu",     "relu", "silu", "silu", NULL};
static const char *const norms[] = {"groupnorm1",
                                    "groupnorm",
                                    "groupnorm over channels and positions",
                                    "groupnorm",
                                    "layernorm over channels",
                                    "layernorm",
                                    "layernorm_channel",
                                    "layernorm",
                                    "layernorm",
                                    "layernorm",
                                    NULL};

static int64_t dim_of(wf_case *c, const char *name, int axis) {
    const wf_st_entry *e = wf_st_find(c->file, name);
    return e && e->shape.rank > axis ? e->shape.dim[axis] : 0;
}

static wf_status only_nchw(wf_case *c) {
    static const char *const layouts[] = {"NCHW", "NCHW", NULL};
    const char *layout;
    return wf_case_choice(c, "layout", layouts, "NCHW", &layout);
}

static char *norm_of(wf_case *c) {
    const char *norm;
    double eps;
    if (wf_case_choice(c, "norm", norms, "groupnorm", &norm) != WF_OK || wf_case_real(c, "norm_eps", 1e-5, &eps) != WF_OK)
        return NULL;
    bool group = !strcmp(norm, "groupnorm");
    return wf_arena_format(c->arena, "{name: %s, eps: %.17g%s}", norm, eps, group ? ", groups: 1, over: sample" : "");
}

/* Whether branches have a scale. Its starting value says nothing of a case that gives the scale itself; nor does the probability
 * of dropping a branch, in evaluation. */
static wf_status read_branch(wf_case *c, const char *scale_name, bool *scale) {
    double start, drop;
    bool eval;
    WF_TRY(wf_case_bool(c, "use_layer_scale", wf_case_has(c, scale_name), scale));
    WF_TRY(wf_case_bool(c, "layer_scale", *scale, scale));
    WF_TRY(wf_case_real(c, "layer_scale_init", 1e-5, &start));
    WF_TRY(wf_case_real(c, "layer_scale_init_value", start, &start));
    WF_TRY(wf_case_bool(c, "eval", true, &eval));
    for (int i = 0; i < 2; i++) {
        const char *key = i ? "drop_path" : "drop_path_rate";
        WF_TRY(wf_case_real(c, key, 0, &drop));
        if (drop < 0 || drop >= 1 || (drop > 0 && !eval))
            return wf_case_fail(
                c, "config: '%s' must be at least 0 and below 1, and 'eval' true: training draws numbers of its own", key);
    }
    return WF_OK;
}

/* [B,C,H,W] <-> [B,HW,C] */
static wf_node *to_tokens(wf_graph *g, wf_node *x) {
    if (!x || x->shape.rank != 4) return NULL;
    const int64_t *d = x->shape.dim;
    return wf_transpose(g, wf_reshape(g, x, WF_SHAPE(d[0], d[1], d[2] * d[3])), 1, 2);
}
static wf_node *to_map(wf_graph *g, wf_node *x, int64_t rows, int64_t columns) {
    if (!x) return NULL;
    const int64_t *d = x->shape.dim;
    return wf_reshape(g, wf_transpose(g, x, 1, 2), WF_SHAPE(d[0], d[2], rows, columns));
}

/* in.x as tokens, with the build told of their grid. */
static wf_node *tokens_in(wf_case *c) {
    wf_node *x = wf_case_in(c, "x");
    if (!x) return NULL;
    if (x->shape.rank != 4) return wf_graph_fail(c->graph, WF_EINVAL, "in.x must be [B,C,H,W]");
    c->build.grid[0] = x->shape.dim[2];
    c->build.grid[1] = x->shape.dim[3];
    return wf_contiguous(c->graph, to_tokens(c->graph, x));
}

/* ---- mixer.pool ---- */

static wf_status pool_of_size(wf_case *c, const wf_value *v, bool alone) {
    int64_t k, C = dim_of(c, "in.x", 1);
    char name[32];
    if (wf_value_int(v, &k) != WF_OK) return wf_case_fail(c, "config: 'pool_size' must be a whole number or a list of them");
    wf_model *m = wf_case_part(c, "mixer", wf_arena_format(c->arena, "{name: pool, pool_size: %lld}", (long long)k), C, C,
                               false, dim_of(c, "in.x", 2) * dim_of(c, "in.x", 3), NULL);
    if (!m) return WF_EINVAL;
    wf_node *y = wf_apply(&c->build, m->root, tokens_in(c));
    y = to_map(c->graph, y, c->build.grid[0], c->build.grid[1]);
    snprintf(name, sizeof name, "y%lld", (long long)k);
    wf_case_out(c, name, y);
    if (alone) wf_case_out(c, "y", y);
    return WF_OK;
}

static wf_status pool(wf_case *c) {
    wf_value three = {.kind = WF_V_TEXT, .text = (char *)(uintptr_t) "3"};
    const wf_value *sizes = wf_case_key(c, "pool_size");
    WF_TRY(only_nchw(c));
    if (dim_of(c, "in.x", 3) < 1) return wf_case_fail(c, "in.x must be [B,C,H,W]");
    if (sizes && sizes->kind == WF_V_LIST) {
        for (int i = 0; i < sizes->n; i++) WF_TRY(pool_of_size(c, sizes->item[i], sizes->n == 1));
    } else {
        WF_TRY(pool_of_size(c, sizes ? sizes : &three, true));
    }
    return wf_case_solve(c);
}

/* ---- names ---- */

typedef struct naming {
    wf_case *c;
    int n;
    wf_name_rule rule[RULES];
} naming;

static void name(naming *s, uint32_t flags, const char *foreign_at, const char *foreign, const char *own_at, const char *own) {
    if (s->n + 1 >= RULES) return;
    char *f = wf_arena_format(s->c->arena, "%s%s", foreign_at, foreign), *o = wf_arena_format(s->c->arena, "%s%s", own_at, own);
    if (f && o) s->rule[s->n++] = (wf_name_rule){f, o, flags};
}

/* What a block of this prefix holds, whatever its mixer is. */
static void name_block(naming *s, const char *f, const char *o) {
    static const char *const pairs[][2] = {{"norm1.weight", "mixer_in_norm.weight"},
                                           {"norm1.bias", "mixer_in_norm.bias"},
                                           {"norm2.weight", "channel_in_norm.weight"},
                                           {"norm2.bias", "channel_in_norm.bias"},
                                           {"mlp.fc1.weight", "channel.up.weight"},
                                           {"mlp.fc1.bias", "channel.up.bias"},
                                           {"mlp.fc2.weight", "channel.down.weight"},
                                           {"mlp.fc2.bias", "channel.down.bias"},
                                           {"layer_scale_1", "mixer_scale"},
                                           {"layer_scale_2", "channel_scale"},
                                           {"token_mixer.fc.weight", "mixer.weight"},
                                           {"token_mixer.qkv.weight", "mixer.q.weight"},
                                           {"token_mixer.qkv.weight", "mixer.k.weight"},
                                           {"token_mixer.qkv.weight", "mixer.v.weight"},
                                           {"token_mixer.qkv.bias", "mixer.q.bias"},
                                           {"token_mixer.qkv.bias", "mixer.k.bias"},
                                           {"token_mixer.qkv.bias", "mixer.v.bias"},
                                           {"token_mixer.proj.weight", "mixer.o.weight"},
                                           {"token_mixer.proj.bias", "mixer.o.bias"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) name(s, 0, f, pairs[i][0], o, pairs[i][1]);
}

static const wf_name_map *finished(naming *s, const char *what) {
    wf_name_map *map = wf_arena_alloc(s->c->arena, sizeof *map);
    if (!map) return NULL;
    s->rule[s->n] = (wf_name_rule){0};
    *map = (wf_name_map){what, "", s->rule, nothing};
    return map;
}

/* ---- block.poolformer ---- */

static wf_status poolformer_block(wf_case *c) {
    int64_t C = dim_of(c, "in.x", 1), H = dim_of(c, "in.x", 2), W = dim_of(c, "in.x", 3), k;
    double ratio;
    bool scale;
    const char *act;
    WF_TRY(only_nchw(c));
    WF_TRY(wf_case_same(c, "dim", C));
    WF_TRY(wf_case_int(c, "pool_size", 3, &k));
    WF_TRY(wf_case_real(c, "mlp_ratio", 4, &ratio));
    WF_TRY(wf_case_choice(c, "act", activations, "gelu", &act));
    WF_TRY(read_branch(c, "param.layer_scale_1", &scale));
    char *norm = norm_of(c);
    naming *s = wf_arena_alloc(c->arena, sizeof *s);
    if (!norm || !s) return WF_EINVAL;
    s->c = c;
    name_block(s, "", "blocks.0.");
    char *recipe =
        wf_arena_format(c->arena,
                        "{name: stack, width: %lld, layers: 1, grid_rows: %lld, grid_columns: %lld, mixer: {name: pool, "
                        "pool_size: %lld}, channel: {name: mlp, ratio: %.17g, act: %s}, norm: %s, layer_scale: %d}",
                        (long long)C, (long long)H, (long long)W, (long long)k, ratio, act, norm, scale);
    wf_model *m = wf_case_model(c, recipe, finished(s, "PoolFormer block"));
    if (!m) return WF_EINVAL;
    wf_case_out(c, "y", to_map(c->graph, wf_apply(&c->build, m->root, tokens_in(c)), H, W));
    return wf_case_solve(c);
}

/* ---- model.poolformer, model.metaformer ---- */

typedef struct net {
    int n;
    int64_t layers[STAGES], width[STAGES];
    bool table[STAGES], down[STAGES];
    wf_text mixers, tables, downs, sizes[3]; /* YAML lists; sizes: layers, widths, ratios */
} net;

static void free_net(net *w) {
    wf_text_free(&w->mixers);
    wf_text_free(&w->tables);
    wf_text_free(&w->downs);
    for (int i = 0; i < 3; i++) wf_text_free(&w->sizes[i]);
}

static bool has_bias(const wf_case *c) {
    for (int i = 0; i < c->file->n; i++)
        if (strstr(c->file->entry[i].name, "token_mixer.qkv.bias")) return true;
    return false;
}

/* "pool3", "pool", "identity", "spatialfc 2x3", "attention head_dim 4" -> an entry of a recipe */
static wf_status add_mixer(wf_case *c, net *w, int i, const wf_value *v, int64_t k) {
    const char *text = v && v->kind == WF_V_TEXT ? v->text : "pool", *sep = i ? ", " : "";
    char *end;
    if (!strncmp(text, "pool", 4) && strspn(text + 4, "0123456789") == strlen(text + 4)) {
        wf_text_add(&w->mixers, "%s{name: pool, pool_size: %lld}", sep, text[4] ? (long long)atoi(text + 4) : (long long)k);
    } else if (!strcmp(text, "identity")) {
        wf_text_add(&w->mixers, "%sidentity", sep);
    } else if (!strncmp(text, "spatialfc", 9)) {
        wf_text_add(&w->mixers, "%sspatialfc", sep);
    } else if (!strncmp(text, "attention", 9)) {
        const char *at = strstr(text, "head_dim");
        long long d = at ? strtoll(at + 8, &end, 10) : 32;
        if (d < 1 || w->width[i] % d)
            return wf_case_fail(c, "config: heads of %lld channels do not make a width of %lld", d, (long long)w->width[i]);
        wf_text_add(&w->mixers, "%s{name: softmax, heads: %lld, head_dim: %lld, qkv_bias: %s, out_bias: true}", sep,
                    (long long)w->width[i] / d, d, has_bias(c) ? "true" : "false");
    } else {
        return wf_case_fail(
            c, "config: token mixer '%s' is not known; known are poolK, identity, spatialfc, attention head_dim K", text);
    }
    return WF_OK;
}

static wf_status whole_of(wf_case *c, const wf_value *v, const char *key, int i, int64_t *out) {
    const wf_value *e = v && v->kind == WF_V_LIST ? (i < v->n ? v->item[i] : NULL) : v;
    if (!e || wf_value_int(e, out) != WF_OK || *out < 0 || *out > 1 << 20)
        return wf_case_fail(c, "config: '%s' must be a list with a whole number for each stage", key);
    return WF_OK;
}

static bool says_yes(const wf_value *v) {
    bool b = true;
    if (!v || v->kind == WF_V_NULL) return false;
    int64_t n;
    if (v->kind == WF_V_TEXT && wf_value_int(v, &n) == WF_OK) return n != 0;
    if (v->kind == WF_V_TEXT && wf_value_bool(v, &b) == WF_OK) return b;
    return true; /* "1x2" */
}

static wf_status read_stages(wf_case *c, net *w) {
    const wf_value *layers = wf_case_key(c, "layers"), *widths = wf_case_key(c, "embed_dims"),
                   *ratios = wf_case_key(c, "mlp_ratios"), *mixers = wf_case_key(c, "token_mixers"),
                   *tables = wf_case_key(c, "pos_emb"), *downs = wf_case_key(c, "downsamples");
    int64_t k;
    WF_TRY(wf_case_int(c, "pool_size", 3, &k));
    if (!layers || layers->kind != WF_V_LIST || layers->n < 1 || layers->n > STAGES)
        return wf_case_fail(c, "config: 'layers' must list the blocks of 1 to %d stages", STAGES);
    w->n = layers->n;
    if ((mixers && (mixers->kind != WF_V_LIST || mixers->n != w->n)) ||
        (tables && (tables->kind != WF_V_LIST || tables->n != w->n)) ||
        (ratios && ratios->kind == WF_V_LIST && ratios->n != w->n) ||
        (downs && downs->kind == WF_V_LIST && downs->n < w->n - 1))
        return wf_case_fail(c, "config: lists must have one entry for each of the %d stages", w->n);
    for (int i = 0; i < w->n; i++) {
        double ratio = 4;
        WF_TRY(whole_of(c, layers, "layers", i, &w->layers[i]));
        WF_TRY(whole_of(c, widths, "embed_dims", i, &w->width[i]));
        const wf_value *r = ratios && ratios->kind == WF_V_LIST ? ratios->item[i] : ratios;
        if (r && wf_value_real(r, &ratio) != WF_OK) return wf_case_fail(c, "config: 'mlp_ratios' must be numbers");
        w->table[i] = tables && says_yes(tables->item[i]);
        w->down[i] = !downs || (downs->kind == WF_V_LIST ? i >= downs->n || says_yes(downs->item[i]) : says_yes(downs));
        const char *sep = i ? ", " : "";
        wf_text_add(&w->sizes[0], "%s%lld", sep, (long long)w->layers[i]);
        wf_text_add(&w->sizes[1], "%s%lld", sep, (long long)w->width[i]);
        wf_text_add(&w->sizes[2], "%s%.17g", sep, ratio);
        wf_text_add(&w->tables, "%s%s", sep, w->table[i] ? "true" : "false");
        wf_text_add(&w->downs, "%s%s", sep, w->down[i] ? "true" : "false");
        WF_TRY(add_mixer(c, w, i, mixers ? mixers->item[i] : NULL, k));
    }
    return WF_OK;
}

/* Stages, convolutions and position tables share one counter in the official names. */
static const wf_name_map *names_of(wf_case *c, const net *w) {
    naming *s = wf_arena_alloc(c->arena, sizeof *s);
    char f[64], o[64];
    int k = 0;
    if (!s) return NULL;
    s->c = c;
    name(s, 0, "patch_embed.proj.weight", "", "patch.weight", "");
    name(s, 0, "patch_embed.proj.bias", "", "patch.bias", "");
    for (int i = 0; i < w->n; i++) {
        snprintf(f, sizeof f, "network.%d.pos_embed", k);
        snprintf(o, sizeof o, "positions.%d", i);
        if (w->table[i]) name(s, WF_NAME_LEAD1, f, "", o, ""), k++;
        snprintf(f, sizeof f, "network.%d.{}.", k++);
        snprintf(o, sizeof o, "stages.%d.{}.", i);
        name_block(s, f, o);
        if (i + 1 == w->n || (!w->down[i] && w->width[i] == w->width[i + 1])) continue;
        snprintf(f, sizeof f, "network.%d.proj.", k++);
        snprintf(o, sizeof o, "down.%d.", i);
        name(s, 0, f, "weight", o, "weight");
        name(s, 0, f, "bias", o, "bias");
    }
    name(s, 0, "norm.weight", "", "final_norm.weight", "");
    name(s, 0, "norm.bias", "", "final_norm.bias", "");
    name(s, 0, "head.weight", "", "head.weight", "");
    name(s, 0, "head.bias", "", "head.bias", "");
    return finished(s, "MetaFormer");
}

static wf_status read_triple(wf_case *c, const char *key, const char *otherwise, const char **text) {
    const wf_value *v = wf_case_key(c, key);
    int64_t x[3];
    *text = otherwise;
    if (!v) return WF_OK;
    for (int i = 0; i < 3; i++)
        if (v->kind != WF_V_LIST || v->n != 3 || wf_value_int(v->item[i], &x[i]) != WF_OK)
            return wf_case_fail(c, "config: '%s' must be [size, stride, padding]", key);
    *text = wf_arena_format(c->arena, "[%lld, %lld, %lld]", (long long)x[0], (long long)x[1], (long long)x[2]);
    return *text ? WF_OK : WF_ENOMEM;
}

static wf_status run_net(wf_case *c, net *w) {
    const char *first, *between, *act;
    bool scale;
    WF_TRY(only_nchw(c));
    WF_TRY(read_stages(c, w));
    WF_TRY(read_triple(c, "in_patch", "[7, 4, 2]", &first));
    WF_TRY(read_triple(c, "down_patch", "[3, 2, 1]", &between));
    WF_TRY(wf_case_choice(c, "act", activations, "gelu", &act));
    WF_TRY(read_branch(c, w->table[0] ? "param.network.1.0.layer_scale_1" : "param.network.0.0.layer_scale_1", &scale));
    WF_TRY(wf_case_same(c, "num_classes", dim_of(c, "param.head.weight", 0)));
    char *norm = norm_of(c);
    if (!norm || !w->mixers.s || !w->tables.s) return WF_EINVAL;
    char *recipe = wf_arena_format(
        c->arena,
        "{name: metaformer, image_height: %lld, image_width: %lld, channels: %lld, classes: %lld, layers: [%s], widths: [%s], "
        "ratios: "
        "[%s], mixer: [%s], positions: [%s], downsamples: [%s], patch: %s, down: %s, norm: %s, layer_scale: %d}",
        (long long)dim_of(c, "in.x", 2), (long long)dim_of(c, "in.x", 3), (long long)dim_of(c, "in.x", 1),
        (long long)dim_of(c, "param.head.weight", 0), w->sizes[0].s, w->sizes[1].s, w->sizes[2].s, w->mixers.s, w->tables.s,
        w->downs.s, first, between, norm, scale);
    wf_model *m = wf_case_model(c, recipe, names_of(c, w));
    if (!m) return WF_EINVAL;
    wf_case_out(c, "logits", wf_apply(&c->build, m->root, wf_case_in(c, "x")));
    wf_case_out(c, "tokens", wf_case_tapped(c, "hidden", 0));
    return wf_case_solve(c);
}

static wf_status network(wf_case *c) {
    net w = {0};
    wf_status s = run_net(c, &w);
    free_net(&w);
    return s;
}

/* clang-format off */
const wf_adapter wf_adapters_hierarchy[] = {
    {"mixer.pool", pool, ""},
    {"block.poolformer", poolformer_block, ""},
    {"model.poolformer", network, ""},
    {"model.metaformer", network, ""},
    {0},
};
/* clang-format on */
