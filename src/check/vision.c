/* vision.c: cases of ViT, SimpleViT and distilled DeiT. */
#include "check/case.h"

#include <string.h>

static const char *const activations[] = {"gelu_erf", "gelu", "gelu", "gelu", "gelu_tanh", "gelu_tanh",
                                          "relu",     "relu", "silu", "silu", NULL};

typedef struct wanted {
    int64_t h, w, ph, pw, C, D, n, H, d, F, classes;
    double eps;
    const char *act;
    bool qkv_bias, out_bias;
} wanted;

static int64_t dim_of(wf_case *c, const char *name, int axis) {
    const wf_st_entry *e = wf_st_find(c->file, name);
    return e && e->shape.rank > axis ? e->shape.dim[axis] : 0;
}

static wf_status read_common(wf_case *c, wanted *v, double eps) {
    const wf_st_entry *x = wf_case_entry(c, "in.x");
    if (!x) return WF_EFORMAT;
    if (x->shape.rank != 4) return wf_case_fail(c, "in.x must be [B,C,H,W]");
    v->C = x->shape.dim[1];
    WF_TRY(wf_case_pair(c, "image", &v->h, &v->w));
    WF_TRY(wf_case_pair(c, "patch", &v->ph, &v->pw));
    if (v->h != x->shape.dim[2] || v->w != x->shape.dim[3])
        return wf_case_fail(c, "config: 'image' is %lld x %lld, in.x has %lld x %lld", (long long)v->h, (long long)v->w,
                            (long long)x->shape.dim[2], (long long)x->shape.dim[3]);
    WF_TRY(wf_case_same(c, "in_chans", v->C));
    WF_TRY(wf_case_int(c, "dim", 0, &v->D));
    WF_TRY(wf_case_int(c, "depth", 1, &v->n));
    WF_TRY(wf_case_int(c, "heads", 1, &v->H));
    if (v->H < 1 || v->D < 1) return wf_case_fail(c, "config: 'heads' and 'dim' must be at least 1");
    WF_TRY(wf_case_int(c, "dim_head", v->D / v->H, &v->d));
    WF_TRY(wf_case_int(c, "mlp", 4 * v->D, &v->F));
    WF_TRY(wf_case_real(c, "ln_eps", eps, &v->eps));
    return wf_case_choice(c, "act", activations, "gelu", &v->act);
}

/* `more`: the entries that tell the kinds apart. */
static char *recipe_of(wf_case *c, const wanted *v, const char *more) {
    return wf_arena_format(c->arena,
                           "{name: vit, image_height: %lld, image_width: %lld, channels: %lld, patch: %lld, patch_width: %lld, "
                           "width: %lld, layers: %lld, "
                           "classes: %lld, mixer: {name: softmax, heads: %lld, head_dim: %lld, qkv_bias: %s, out_bias: %s}, "
                           "channel: {name: mlp, hidden: %lld, act: %s, bias: true}, norm: {name: layernorm, eps: %.17g}, %s}",
                           (long long)v->h, (long long)v->w, (long long)v->C, (long long)v->ph, (long long)v->pw,
                           (long long)v->D, (long long)v->n, (long long)v->classes, (long long)v->H, (long long)v->d,
                           v->qkv_bias ? "true" : "false", v->out_bias ? "true" : "false", (long long)v->F, v->act, v->eps,
                           more);
}

static wf_status run(wf_case *c, const char *recipe, const wf_name_map *map) {
    wf_model *m = recipe ? wf_case_model(c, recipe, map) : NULL;
    if (!m) return WF_EINVAL;
    wf_node *y = wf_apply(&c->build, m->root, wf_case_in(c, "x"));
    wf_case_out(c, "logits", y);
    wf_case_out(c, "eval_logits", y);
    wf_case_out(c, "train_logits", wf_case_tapped(c, "head", 0));
    wf_case_out(c, "train_dist_logits", wf_case_tapped(c, "head_dist", 0));
    wf_case_out(c, "features", wf_case_tapped(c, "features", 0));
    wf_case_out(c, "patches", wf_case_tapped(c, "patches", 0));
    wf_case_out(c, "pos", wf_case_tapped(c, "positions", 0));
    return wf_case_solve(c);
}

static const char *const name_tables[] = {"hf-vit", "vit", "hf-deit", "deit", "timm", "timm", NULL};
static const char *const pools[] = {"class token", "class", "class", "class", "mean", "mean", "avg", "mean", NULL};

/* model.vit and model.deit-distilled under Hugging Face's or timm's names. */
static wf_status vit_as(wf_case *c, const char *default_names, bool distilled) {
    wanted v = {0};
    const char *names, *pool;
    bool says;
    WF_TRY(read_common(c, &v, 1e-6));
    WF_TRY(wf_case_choice(c, "names", name_tables, default_names, &names));
    WF_TRY(wf_case_choice(c, "pool", pools, "class", &pool));
    WF_TRY(wf_case_bool(c, "distilled", distilled, &says));
    const wf_name_map *map = wf_names_find(names);
    bool timm = !strcmp(names, "timm");
    const char *qkv = timm ? "param.blocks.0.attn.qkv.bias"
                           : wf_arena_format(c->arena, "param.%sencoder.layer.0.attention.attention.query.bias", map->prefix);
    const char *head = timm                    ? "param.head.weight"
                       : !strcmp(names, "vit") ? "param.classifier.weight"
                                               : "param.cls_classifier.weight";
    v.qkv_bias = qkv && wf_case_has(c, qkv);
    v.out_bias = true;
    v.classes = dim_of(c, head, 0);
    WF_TRY(wf_case_same(c, "classes", v.classes));
    char more[128];
    snprintf(more, sizeof more, "pool: %s, distilled: %s", pool, says ? "true" : "false");
    return run(c, recipe_of(c, &v, more), map);
}

static wf_status vit(wf_case *c) {
    return vit_as(c, "hf-vit", false);
}
static wf_status deit(wf_case *c) {
    return vit_as(c, "timm", true);
}

static wf_status simple_vit(wf_case *c) {
    static const char *const tables[] = {
        "sincos2d simple_vit", "simple_vit", "sincos2d mae", "mae", "sincos2d timm", "timm", NULL};
    wanted v = {0};
    const char *pool, *positions;
    double T;
    WF_TRY(read_common(c, &v, 1e-5));
    WF_TRY(wf_case_choice(c, "pool", pools, "mean", &pool));
    WF_TRY(wf_case_choice(c, "pos", tables, "simple_vit", &positions));
    WF_TRY(wf_case_real(c, "T", 10000, &T));
    if (strcmp(pool, "mean")) return wf_case_fail(c, "config: SimpleViT has no class token; 'pool' must be mean");
    if (T < 1) return wf_case_fail(c, "config: 'T' must be at least 1");
    v.classes = dim_of(c, "param.linear_head.weight", 0);
    WF_TRY(wf_case_same(c, "classes", v.classes));
    v.qkv_bias = wf_case_has(c, "param.transformer.layers.0.0.to_qkv.bias");
    v.out_bias = wf_case_has(c, "param.transformer.layers.0.0.to_out.bias");
    char more[256];
    snprintf(
        more, sizeof more,
        "pool: mean, positions: %s, temperature: %.17g, patch_norm: true, patch_norm_eps: %.17g, patch_order: channel_last",
        positions, T, v.eps);
    return run(c, recipe_of(c, &v, more), &wf_names_simple_vit);
}

/* clang-format off */
const wf_adapter wf_adapters_vision[] = {
    {"model.vit", vit, ""},
    {"model.vit-simple", simple_vit, ""},
    {"model.deit-distilled", deit, ""},
    {0},
};
/* clang-format on */
