/* transforms.c: cases of system 11 (zero-mean linears, Pre-LN, Pre-RMSNorm and Pre-CRMSNorm forms of GPT and ViT) and of the fold of
 * system 18 (a Swin block with RepBN). */
#include "check/case.h"
#include "transform/transform.h"

#include <math.h>
#include <string.h>

static const char *const activations[] = {"exact (erf)", "gelu",      "exact",    "gelu",      "erf",       "gelu",
                                          "gelu_erf",    "gelu",      "gelu",     "gelu",      "gelu_tanh", "gelu_tanh",
                                          "tanh",        "gelu_tanh", "gelu_new", "gelu_tanh", NULL};
static const char *const nothing[] = {NULL};

static int64_t dim_of(wf_case *c, const char *name, int axis) {
    const wf_st_entry *e = wf_st_find(c->file, name);
    return e && e->shape.rank > axis ? e->shape.dim[axis] : 0;
}

static wf_status graph_error(const wf_case *c) {
    return wf_fail(WF_EFORMAT, "%s", wf_graph_message(c->graph));
}

static const char *yes(bool b) {
    return b ? "true" : "false";
}

/* ---- linear.zero-mean ---- */

static wf_status zero_mean(wf_case *c) {
    static const wf_name_rule rules[] = {{"weight", "weight", 0}, {"bias", "bias", 0}, {0}};
    static const wf_name_map map = {"zero-mean", "", rules, nothing};
    int64_t O = dim_of(c, "param.weight", 0), I = dim_of(c, "param.weight", 1);
    WF_TRY(wf_case_same(c, "in_features", I));
    WF_TRY(wf_case_same(c, "out_features", O));
    WF_TRY(wf_case_agrees(c, "bias", wf_case_has(c, "param.bias")));
    char *spec = wf_arena_format(c->arena, "{name: zero-mean, bias: %s}", yes(wf_case_has(c, "param.bias")));
    wf_model *m = wf_case_part(c, "linear", spec, I, O, false, 0, &map);
    if (!m) return WF_EINVAL;
    wf_case_out(c, "y", wf_apply(&c->build, m->root, wf_case_in(c, "x")));
    return wf_case_solve(c);
}

/* ---- model.gpt-norm-forms ---- */

#define BOTH(f, o)                                                                                                             \
    {f ".weight", o ".weight", 0}, {                                                                                           \
        f ".bias", o ".bias", 0                                                                                                \
    }
/* clang-format off */
static const wf_name_rule gpt_rules[] = {
    {"wte.weight", "embed.weight", 0},
    {"wpe.weight", "position.table", 0},
    BOTH("transformer.layers.{}.1.to_qkv", "blocks.{}.mixer.q"),
    BOTH("transformer.layers.{}.1.to_qkv", "blocks.{}.mixer.k"),
    BOTH("transformer.layers.{}.1.to_qkv", "blocks.{}.mixer.v"),
    BOTH("transformer.layers.{}.1.to_out", "blocks.{}.mixer.o"),
    BOTH("transformer.layers.{}.3.net.0", "blocks.{}.channel.up"),
    BOTH("transformer.layers.{}.3.net.2", "blocks.{}.channel.down"),
    BOTH("final_linear", "head"),
    {0},
};
/* clang-format on */
static const wf_name_map gpt_names = {"gpt", "", gpt_rules, nothing};

/* The same network in its training form with RMSNorm, or as Pre-LN. */
static char *gpt_recipe(wf_case *c, bool rms, int64_t n, int64_t H, double eps, const char *act) {
    int64_t V = dim_of(c, "param.wte.weight", 0), D = dim_of(c, "param.wte.weight", 1), P = dim_of(c, "param.wpe.weight", 0),
            qkv = dim_of(c, "param.transformer.layers.0.1.to_qkv.weight", 0),
            F = dim_of(c, "param.transformer.layers.0.3.net.0.weight", 0);
    if (H < 1 || qkv % (3 * H) || qkv < 3 * H) {
        wf_case_fail(c, "config: 'heads' %lld does not divide the %lld rows of to_qkv in three parts", (long long)H,
                     (long long)qkv);
        return NULL;
    }
    return wf_arena_format(
        c->arena,
        "{name: lm, vocab: %lld, length: %lld, layers: %lld, width: %lld, tied: false, centred: %s, linear: %s, "
        "norm: {name: %s, affine: false, eps: %.17g}, mixer: {name: softmax, heads: %lld, head_dim: %lld, qkv_bias: %s, "
        "out_bias: "
        "%s}, channel: {name: mlp, hidden: %lld, act: %s, bias: %s}, parts: {head: {bias: %s}}}",
        (long long)V, (long long)P, (long long)n, (long long)D, yes(rms), rms ? "{name: zero-mean, of: writers}" : "dense",
        rms ? "rmsnorm" : "layernorm", eps, (long long)H, (long long)(qkv / (3 * H)),
        yes(wf_case_has(c, "param.transformer.layers.0.1.to_qkv.bias")),
        yes(wf_case_has(c, "param.transformer.layers.0.1.to_out.bias")), (long long)F, act,
        yes(wf_case_has(c, "param.transformer.layers.0.3.net.0.bias")), yes(wf_case_has(c, "param.final_linear.bias")));
}

/* A model that has the parameters of another one, under the same names. */
static wf_model *twin(wf_case *c, const char *recipe, const wf_model *from) {
    wf_model *m = recipe ? wf_case_model(c, recipe, NULL) : NULL;
    for (int i = 0; m && i < m->n_param; i++) {
        const wf_param *p = wf_model_param(from, m->param[i]->name);
        if (!p || !wf_shape_equal(&p->value->shape, &m->param[i]->value->shape)) return NULL;
        memcpy(m->param[i]->value->data, p->value->data, p->value->bytes);
    }
    return m;
}

static wf_status gpt(wf_case *c) {
    int64_t n, H;
    double eps;
    bool causal;
    const char *act;
    WF_TRY(wf_case_int(c, "depth", 1, &n));
    WF_TRY(wf_case_int(c, "heads", 1, &H));
    WF_TRY(wf_case_real(c, "eps", 1e-5, &eps));
    WF_TRY(wf_case_bool(c, "causal", true, &causal));
    WF_TRY(wf_case_choice(c, "gelu", activations, "gelu", &act));
    WF_TRY(wf_case_same(c, "vocab", dim_of(c, "param.wte.weight", 0)));
    WF_TRY(wf_case_same(c, "dim", dim_of(c, "param.wte.weight", 1)));
    WF_TRY(wf_case_same(c, "max_len", dim_of(c, "param.wpe.weight", 0)));
    WF_TRY(wf_case_same(c, "mlp_dim", dim_of(c, "param.transformer.layers.0.3.net.0.weight", 0)));
    if (!causal) return wf_case_fail(c, "config: 'causal' false makes no sense for a language model");
    char *recipe = gpt_recipe(c, true, n, H, eps, act);
    wf_model *m = recipe ? wf_case_model(c, recipe, &gpt_names) : NULL;
    if (!m) return WF_EINVAL;
    wf_case_out(c, "logits", wf_apply(&c->build, m->root, wf_case_in(c, "ids")));
    if (wf_case_has(c, "out.logits_pre_ln")) {
        wf_model *ln = twin(c, gpt_recipe(c, false, n, H, eps, act), m);
        if (!ln) return WF_EINVAL;
        wf_case_out(c, "logits_pre_ln", wf_apply(&c->build, ln->root, wf_case_in(c, "ids")));
    }
    return wf_case_solve(c);
}

/* ---- transform.convert-norm-vit: tensors of all layers are stacked along a first axis ---- */

typedef struct stacked {
    const char *file, *own[4]; /* own: pieces one below the other; with %d the layer's number */
    bool layers;
    int64_t skip; /* first rows of ours that the file lacks: the class token has no position */
} stacked;

/* clang-format off */
static const stacked vit_names[] = {
    {"att_in_linear_weight", {"blocks.%d.mixer.q.weight", "blocks.%d.mixer.k.weight", "blocks.%d.mixer.v.weight"}, true, 0},
    {"att_in_linear_bias", {"blocks.%d.mixer.q.bias", "blocks.%d.mixer.k.bias", "blocks.%d.mixer.v.bias"}, true, 0},
    {"att_out_linear_weight", {"blocks.%d.mixer.o.weight"}, true, 0},
    {"att_out_linear_bias", {"blocks.%d.mixer.o.bias"}, true, 0},
    {"mlp_in_linear_weight", {"blocks.%d.channel.up.weight"}, true, 0},
    {"mlp_in_linear_bias", {"blocks.%d.channel.up.bias"}, true, 0},
    {"mlp_out_linear_weight", {"blocks.%d.channel.down.weight"}, true, 0},
    {"mlp_out_linear_bias", {"blocks.%d.channel.down.bias"}, true, 0},
    {"patch_linear_weight", {"patch.weight"}, false, 0},
    {"patch_linear_bias", {"patch.bias"}, false, 0},
    {"cls_head_linear_weight", {"head.weight"}, false, 0},
    {"cls_head_linear_bias", {"head.bias"}, false, 0},
    {"cls_token", {"class_token"}, false, 0},
    {"pos_embedding", {"positions"}, false, 1},
    {0},
};
/* clang-format on */

/* Walk the pieces of a stacked tensor in the file's order; move numbers into the model (in) or out of it. sum: gradients in the
 * order of m->param, or NULL for the values. */
static wf_status walk(wf_case *c, wf_model *m, const stacked *s, double *const *sum, wf_tensor *t, bool in) {
    int64_t at = 0, n = wf_tensor_count(t);
    for (int64_t layer = 0; layer < (s->layers ? m->layers : 1); layer++)
        for (int k = 0; k < 4 && s->own[k]; k++) {
            char name[64];
            const char *hole = strstr(s->own[k], "%d");
            snprintf(name, sizeof name, "%.*s", hole ? (int)(hole - s->own[k]) : 63, s->own[k]);
            if (hole) snprintf(name + strlen(name), sizeof name - strlen(name), "%lld%s", (long long)layer, hole + 2);
            int p = 0;
            while (p < m->n_param && strcmp(m->param[p]->name, name)) p++;
            if (p == m->n_param) return wf_case_fail(c, "no parameter '%s'", name);
            wf_tensor *v = m->param[p]->value;
            int64_t count = wf_tensor_count(v), first = s->skip * v->shape.dim[v->shape.rank - 1];
            if (at + count - first > n) return wf_case_fail(c, "'%s' has too few numbers for this network", s->file);
            for (int64_t i = first; i < count; i++, at++)
                if (in)
                    wf_tensor_set(v, i, wf_tensor_get(t, at));
                else
                    wf_tensor_set(t, at, sum ? sum[p][i] : wf_tensor_get(v, i));
        }
    return at == n ? WF_OK : wf_case_fail(c, "'%s' has too many numbers for this network", s->file);
}

static wf_status vit_fill(wf_case *c, wf_model *m) {
    for (const stacked *s = vit_names; s->file; s++) {
        char *name = wf_arena_format(c->arena, "param.%s", s->file);
        wf_tensor *t = name ? wf_case_read(c, name, WF_F64) : NULL;
        if (!t) return WF_EFORMAT;
        wf_status st = walk(c, m, s, NULL, t, true);
        wf_tensor_free(t);
        WF_TRY(st);
    }
    return WF_OK;
}

/* Compare what the file has under `prefix` and our names with the model's numbers. */
static wf_status vit_compare(wf_case *c, wf_model *m, double *const *sum, const char *prefix) {
    for (const stacked *s = vit_names; s->file; s++) {
        char *name = wf_arena_format(c->arena, "%s%s", prefix, s->file);
        if (!name || !wf_case_has(c, name)) continue;
        wf_tensor *t = wf_tensor_new(WF_F64, wf_st_find(c->file, name)->shape);
        wf_status st = t ? walk(c, m, s, sum, t, false) : WF_ENOMEM;
        if (st == WF_OK) st = wf_case_compare_as(c, name, t);
        wf_tensor_free(t);
        WF_TRY(st);
    }
    return WF_OK;
}

static char *vit_recipe(wf_case *c) {
    int64_t B, n, H, image, patch, D = dim_of(c, "param.patch_linear_weight", 0), P = dim_of(c, "param.patch_linear_weight", 1),
                                   qkv = dim_of(c, "param.att_in_linear_weight", 1),
                                   F = dim_of(c, "param.mlp_in_linear_weight", 1),
                                   classes = dim_of(c, "param.cls_head_linear_weight", 0), N = dim_of(c, "in.x", 1);
    double eps;
    const char *act;
    if (wf_case_int(c, "batch_size", dim_of(c, "in.x", 0), &B) != WF_OK || wf_case_int(c, "depth", 1, &n) != WF_OK ||
        wf_case_int(c, "heads", 1, &H) != WF_OK || wf_case_int(c, "image_size", 0, &image) != WF_OK ||
        wf_case_int(c, "patch_size", 1, &patch) != WF_OK || wf_case_real(c, "eps", 1e-5, &eps) != WF_OK ||
        wf_case_choice(c, "gelu", activations, "gelu", &act) != WF_OK || wf_case_same(c, "dim", D) != WF_OK ||
        wf_case_same(c, "num_classes", classes) != WF_OK || wf_case_same(c, "tokens", N + 1) != WF_OK ||
        wf_case_same(c, "batch_size", dim_of(c, "in.x", 0)) != WF_OK)
        return NULL;
    if (patch < 1 || image < patch || image / patch * (image / patch) != N || P % (patch * patch) || dim_of(c, "in.x", 2) != P)
        return wf_case_fail(c, "in.x must be the patches of pictures of %lld x %lld in patches of %lld", (long long)image,
                            (long long)image, (long long)patch),
               NULL;
    if (H < 1 || qkv < 3 * H || qkv % (3 * H))
        return wf_case_fail(c, "config: 'heads' %lld does not divide the rows of att_in_linear_weight in three parts",
                            (long long)H),
               NULL;
    return wf_arena_format(
        c->arena,
        "{name: vit, image_height: %lld, channels: %lld, patch: %lld, classes: %lld, width: %lld, layers: %lld, mixer: {name: "
        "softmax, heads: %lld, head_dim: %lld}, channel: {name: mlp, hidden: %lld, act: %s}, norm: {name: layernorm, affine: "
        "false, eps: %.17g}}",
        (long long)(image / patch * patch), (long long)(P / (patch * patch)), (long long)patch, (long long)classes,
        (long long)D, (long long)n, (long long)H, (long long)(qkv / (3 * H)), (long long)F, act, eps);
}

/* in.x [B,N,C ph pw] as the pictures [B,C,H,W] that the patches were cut from. */
static wf_node *pictures(wf_case *c, int64_t patch) {
    wf_node *x = wf_case_in(c, "x");
    if (!x) return NULL;
    int64_t B = x->shape.dim[0], k = (int64_t)(sqrt((double)x->shape.dim[1]) + 0.5), C = x->shape.dim[2] / (patch * patch);
    x = wf_permute(c->graph, wf_reshape(c->graph, x, WF_SHAPE(B, k, k, C, patch, patch)), (const int[]){0, 3, 1, 4, 2, 5});
    return wf_reshape(c->graph, x, WF_SHAPE(B, C, k * patch, k * patch));
}

static wf_model *converted(wf_case *c, const wf_model *from, const char *to) {
    wf_transform_report r = {0};
    wf_model *m = wf_convert_norm(from, to, &r);
    wf_transform_report_free(&r);
    return m && wf_case_adopt(c, m, NULL) == WF_OK ? m : NULL;
}

static wf_status convert_vit(wf_case *c) {
    int64_t patch;
    char *recipe = vit_recipe(c);
    wf_model *ln = recipe ? wf_case_model(c, recipe, NULL) : NULL;
    if (!ln) return WF_EINVAL;
    WF_TRY(wf_case_int(c, "patch_size", 1, &patch));
    WF_TRY(vit_fill(c, ln));
    wf_model *rms = converted(c, ln, "rmsnorm"), *crms = rms ? converted(c, rms, "crmsnorm") : NULL;
    if (!crms) return WF_EINVAL;
    wf_node *x = pictures(c, patch);
    wf_case_out(c, "logits", wf_apply(&c->build, ln->root, x));
    wf_case_out(c, "logits_rms", wf_apply(&c->build, rms->root, x));
    wf_case_out(c, "logits_crms", wf_apply(&c->build, crms->root, x));
    WF_TRY(wf_case_solve(c));
    WF_TRY(vit_compare(c, ln, c->model[0].sum, "grad.param."));
    WF_TRY(vit_compare(c, rms, NULL, "out.zm_"));
    return vit_compare(c, crms, NULL, "out.compressed_");
}

/* ---- transform.fold-repbn-swin: x <- x + proj(window attention(RepBN x)); x <- x + mlp(RepBN x), then with RepBN folded away ---- */

typedef struct swin {
    int64_t H, h, w, window, shift, D;
    double scale;
    wf_model *norm[2];
    wf_tensor *folded[4]; /* qkv and fc1: weight, bias; NULL: as the file has them */
} swin;

/* x [B,h,w,D] moved by -shift rows and columns, around the edges. */
static wf_node *roll(wf_graph *g, wf_node *x, int64_t shift, int axis) {
    if (!x || shift == 0) return x;
    int64_t n = x->shape.dim[axis], s = (shift % n + n) % n;
    return wf_concat(g, (wf_node *[]){wf_slice(g, x, axis, s, n - s), wf_slice(g, x, axis, 0, s)}, 2, axis);
}

/* [B,h,w,D] -> [B windows, window^2, D], or back. */
static wf_node *windows(wf_graph *g, const swin *s, wf_node *x, int64_t B, bool back) {
    int64_t k = s->window, ny = s->h / k, nx = s->w / k, D = s->D;
    x = wf_reshape(g, x, back ? WF_SHAPE(B, ny, nx, k, k, D) : WF_SHAPE(B, ny, k, nx, k, D));
    x = wf_permute(g, x, (const int[]){0, 1, 3, 2, 4, 5});
    return wf_reshape(g, x, back ? WF_SHAPE(B, s->h, s->w, D) : WF_SHAPE(B * ny * nx, k * k, D));
}

/* Row of the bias table for every pair in a window: int32 [n, n]. */
static wf_node *pair_rows(wf_case *c, int64_t k) {
    int64_t n = k * k;
    wf_tensor *t = wf_tensor_new(WF_I32, WF_SHAPE(n, n));
    for (int64_t i = 0; t && i < n * n; i++) {
        int64_t a = i / n, b = i % n, dy = a / k - b / k, dx = a % k - b % k;
        wf_tensor_set(t, i, (double)((dy + k - 1) * (2 * k - 1) + dx + k - 1));
    }
    return wf_case_constant(c, "pairs", t);
}

/* Which of the three stripes along an axis a moved row came from: neighbours in the picture share one. */
static int64_t stripe(int64_t at, int64_t n, int64_t window, int64_t shift) {
    return at < n - window ? 0 : at < n - shift ? 1 : 2;
}

/* [windows, 1, n, n]: -100 between tokens that only the shift made neighbours. */
static wf_node *shift_mask(wf_case *c, const swin *s) {
    int64_t k = s->window, n = k * k, nx = s->w / k, W = s->h / k * nx;
    wf_tensor *t = wf_tensor_new(c->f64 ? WF_F64 : WF_F32, WF_SHAPE(W, 1, n, n));
    for (int64_t i = 0; t && i < W * n * n; i++) {
        int64_t win = i / (n * n), pair[2] = {i / n % n, i % n}, id[2];
        for (int j = 0; j < 2; j++)
            id[j] = 3 * stripe(win / nx * k + pair[j] / k, s->h, k, s->shift) +
                    stripe(win % nx * k + pair[j] % k, s->w, k, s->shift);
        wf_tensor_set(t, i, id[0] == id[1] ? 0 : -100);
    }
    return wf_case_constant(c, "mask", t);
}

static wf_node *score_bias(wf_case *c, const swin *s, int64_t B) {
    wf_graph *g = c->graph;
    int64_t n = s->window * s->window, W = s->h / s->window * (s->w / s->window);
    wf_node *table = wf_gather(g, wf_case_param(c, "attn.relative_position_bias_table"), pair_rows(c, s->window));
    wf_node *bias = wf_reshape(g, wf_permute(g, table, (const int[]){2, 0, 1}), WF_SHAPE(1, s->H, n, n));
    if (s->shift == 0) return bias;
    wf_node *all = wf_unsqueeze(g, wf_add(g, bias, shift_mask(c, s)), 0);
    return wf_reshape(g, wf_expand(g, all, WF_SHAPE(B, W, s->H, n, n)), WF_SHAPE(B * W, s->H, n, n));
}

static wf_node *linear(wf_case *c, const char *name, wf_node *x) {
    char *w = wf_arena_format(c->arena, "%s.weight", name), *b = wf_arena_format(c->arena, "%s.bias", name);
    return wf_linear(c->graph, x, wf_case_param(c, w ? w : ""), wf_case_param_or_null(c, b ? b : ""));
}

/* qkv (k = 0) or fc1 (k = 1) of the normed x, or the folded linear of x itself. */
static wf_node *normed(wf_case *c, swin *s, bool folded, int k, wf_node *x) {
    static const char *const name[] = {"attn.qkv", "mlp.fc1"};
    if (!folded) return linear(c, name[k], wf_apply(&c->build, s->norm[k]->root, x));
    wf_node *part[2];
    for (int i = 0; i < 2; i++) {
        part[i] = wf_case_constant(c, name[k], s->folded[2 * k + i]);
        s->folded[2 * k + i] = NULL;
    }
    return wf_linear(c->graph, x, part[0], part[1]);
}

static wf_node *swin_block(wf_case *c, swin *s, bool folded) {
    wf_graph *g = c->graph;
    wf_node *x = wf_case_in(c, "x");
    if (!x) return NULL;
    int64_t B = x->shape.dim[0], L = s->h * s->w, n = s->window * s->window, d = s->D / s->H;
    wf_node *u = normed(c, s, folded, 0, x), *part[3];
    for (int i = 0; i < 3; i++) {
        wf_node *p = wf_reshape(g, wf_slice(g, u, 2, i * s->D, s->D), WF_SHAPE(B, s->h, s->w, s->D));
        p = windows(g, s, roll(g, roll(g, p, s->shift, 1), s->shift, 2), B, false);
        part[i] = p ? wf_reshape(g, p, WF_SHAPE(p->shape.dim[0], n, s->H, d)) : NULL;
    }
    wf_attention_spec a = {.scale = s->scale, .bias = score_bias(c, s, B)};
    wf_node *o = a.bias ? wf_attention(g, part[0], part[1], part[2], &a) : NULL;
    o = o ? linear(c, "attn.proj", wf_reshape(g, o, WF_SHAPE(o->shape.dim[0], n, s->D))) : NULL;
    o = roll(g, roll(g, windows(g, s, o, B, true), -s->shift, 1), -s->shift, 2);
    x = wf_add(g, x, wf_reshape(g, o, WF_SHAPE(B, L, s->D)));
    return wf_add(g, x, linear(c, "mlp.fc2", wf_gelu(g, normed(c, s, folded, 1, x))));
}

/* norm1 or norm2 of the file as a module. */
static wf_model *repbn(wf_case *c, int at, int64_t D, double eps) {
    static const char *const names[][2] = {{"alpha", "alpha"},
                                           {"bn.weight", "weight"},
                                           {"bn.bias", "bias"},
                                           {"bn.running_mean", "running_mean"},
                                           {"bn.running_var", "running_var"}};
    wf_model *m = wf_case_part(c, "norm", wf_arena_format(c->arena, "{name: repbn, eps: %.17g}", eps), D, D, false, 0, NULL);
    for (int i = 0; m && i < 5; i++) {
        wf_param *p = wf_model_param(m, names[i][1]);
        wf_tensor *t = p ? wf_case_read(c, wf_arena_format(c->arena, "param.norm%d.%s", at, names[i][0]), WF_F32) : NULL;
        bool fits = t && t->bytes == p->value->bytes;
        if (fits) memcpy(p->value->data, t->data, t->bytes);
        if (t && !fits) wf_case_fail(c, "param.norm%d.%s has not one number a channel", at, names[i][0]);
        wf_tensor_free(t);
        if (!fits) return NULL;
    }
    return m;
}

/* The folded weight and bias of one linear, compared with the file's and kept for the second pass. */
static wf_status fold_linear(wf_case *c, swin *s, int k) {
    static const char *const name[] = {"attn.qkv", "mlp.fc1"};
    const wf_module *norm = s->norm[k]->root;
    double *a = wf_arena_alloc(c->arena, sizeof *a * (size_t)s->D), *b = wf_arena_alloc(c->arena, sizeof *b * (size_t)s->D);
    wf_tensor *w = wf_case_read(c, wf_arena_format(c->arena, "param.%s.weight", name[k]), WF_F64);
    char *bias = wf_arena_format(c->arena, "param.%s.bias", name[k]);
    if (!a || !b || !w || !bias) return wf_tensor_free(w), WF_EFORMAT;
    int64_t O = w->shape.dim[0];
    wf_tensor *v = wf_case_has(c, bias) ? wf_case_read(c, bias, WF_F64) : wf_tensor_new(WF_F64, WF_SHAPE(O));
    s->folded[2 * k] = w;
    s->folded[2 * k + 1] = v;
    if (!v || w->shape.rank != 2 || w->shape.dim[1] != s->D || wf_tensor_count(v) != O)
        return wf_case_fail(c, "%s does not fit a width of %lld", name[k], (long long)s->D);
    WF_TRY(norm->part->fold(norm, a, b));
    wf_fold_reader(O, s->D, a, b, w->data, v->data);
    WF_TRY(wf_case_compare(c, wf_arena_format(c->arena, "folded.%s.weight", name[k]), w));
    return wf_case_compare(c, wf_arena_format(c->arena, "folded.%s.bias", name[k]), v);
}

static wf_status swin_sizes(wf_case *c, swin *s) {
    const wf_st_entry *x = wf_case_entry(c, "in.x");
    if (!x) return WF_EFORMAT;
    if (x->shape.rank != 3) return wf_case_fail(c, "in.x must be [B,L,D]");
    s->D = x->shape.dim[2];
    WF_TRY(wf_case_same(c, "dim", s->D));
    WF_TRY(wf_case_int(c, "heads", 1, &s->H));
    WF_TRY(wf_case_pair(c, "resolution", &s->h, &s->w));
    WF_TRY(wf_case_int(c, "window", 7, &s->window));
    WF_TRY(wf_case_int(c, "shift", 0, &s->shift));
    WF_TRY(wf_case_same(c, "mlp_hidden", dim_of(c, "param.mlp.fc1.weight", 0)));
    WF_TRY(wf_case_real(c, "qk_scale", 0, &s->scale));
    int64_t least = s->h < s->w ? s->h : s->w;
    if (least <= s->window) s->window = least, s->shift = 0; /* as the authors: one window, nothing to shift */
    if (s->window < 1 || s->h % s->window || s->w % s->window || s->shift >= s->window)
        return wf_case_fail(c, "config: windows of %lld (shifted by %lld) do not fit %lld x %lld", (long long)s->window,
                            (long long)s->shift, (long long)s->h, (long long)s->w);
    if (s->H < 1 || s->D % s->H || x->shape.dim[1] != s->h * s->w)
        return wf_case_fail(c, "config: 'heads' %lld must divide the width %lld, and 'resolution' give %lld tokens",
                            (long long)s->H, (long long)s->D, (long long)x->shape.dim[1]);
    return WF_OK;
}

static wf_status run_swin(wf_case *c, swin *s) {
    double eps;
    WF_TRY(swin_sizes(c, s));
    WF_TRY(wf_case_real(c, "bn_eps", 1e-5, &eps));
    for (int k = 0; k < 2; k++)
        if (!(s->norm[k] = repbn(c, k + 1, s->D, eps))) return WF_EFORMAT;
    wf_case_out(c, "y", swin_block(c, s, false));
    WF_TRY(wf_case_solve(c));
    for (int k = 0; k < 2; k++) WF_TRY(fold_linear(c, s, k));
    if (wf_case_has(c, "cot.y")) return WF_OK;
    for (int i = 0; i < 4 && !c->f64; i++) {
        wf_tensor *narrow = wf_tensor_new(WF_F32, s->folded[i]->shape);
        for (int64_t j = 0; narrow && j < wf_tensor_count(narrow); j++)
            wf_tensor_set(narrow, j, wf_tensor_get(s->folded[i], j));
        wf_tensor_free(s->folded[i]);
        if (!(s->folded[i] = narrow)) return WF_ENOMEM;
    }
    WF_TRY(wf_case_begin(c, ""));
    wf_node *y = swin_block(c, s, true);
    if (!y) return graph_error(c);
    wf_case_out(c, "y", y);
    return wf_case_solve(c);
}

static wf_status fold_swin(wf_case *c) {
    swin s = {0};
    wf_status st = run_swin(c, &s);
    for (int i = 0; i < 4; i++) wf_tensor_free(s.folded[i]);
    return st;
}

/* clang-format off */
const wf_adapter wf_adapters_transform[] = {
    {"linear.zero-mean", zero_mean, ""},
    {"model.gpt-norm-forms", gpt, ""},
    {"transform.convert-norm-vit", convert_vit, ""},
    {"transform.fold-repbn-swin", fold_swin, ""},
    {0},
};
/* clang-format on */
