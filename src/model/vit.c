/* vit.c: the vision transformer: pictures [B,C,H,W] -> logits [B,classes].
 *
 *     patches = linear(cut(x)), row-major;  x = [class, distillation, patches] + positions;  x = final_norm(blocks(x))
 *     pool class: logits = head(x_0);  distilled: mean of head(x_0) and head_dist(x_1);  pool mean: head(mean of the patches)
 *
 * A patch is one vector, channel-major (c, row, column) as a convolution's weight, or (row, column, c). Pixels that do not
 * fill a patch are cropped.
 */
#include "model/model.h"

#include "part/topology/stack.h"

#include <string.h>

typedef struct options {
    wf_stack_opt stack;
    const wf_value *patch_linear;
    int64_t image_height, image_width, channels, patch, patch_width, classes, width;
    const char *pool, *positions, *patch_order, *final_norm;
    bool distilled, patch_norm, head_bias, centred;
    double temperature, patch_norm_eps;
} options;

static const wf_option table[] = {
    {"image_height", WF_OPT_INT, offsetof(options, image_height), "0", 0, 1 << 16, NULL,
     "rows of a picture; 0 or absent: the task's"},
    {"image_width", WF_OPT_INT, offsetof(options, image_width), "0", 0, 1 << 16, NULL, "columns; 0: as image_height"},
    {"channels", WF_OPT_INT, offsetof(options, channels), "0", 0, 1024, NULL, "channels of a picture; 0 or absent: the task's"},
    {"classes", WF_OPT_INT, offsetof(options, classes), "0", 0, 1 << 24, NULL, "classes; 0 or absent: the task's"},
    {"patch", WF_OPT_INT, offsetof(options, patch), "4", 1, 1 << 12, NULL, "rows (and columns) of a patch"},
    {"patch_width", WF_OPT_INT, offsetof(options, patch_width), "0", 0, 1 << 12, NULL, "columns of a patch; 0: as patch"},
    {"patch_order", WF_OPT_CHOICE, offsetof(options, patch_order), "channel_first", 0, 0, "channel_first|channel_last",
     "order inside a patch's vector: (channel, row, column) or (row, column, channel)"},
    {"patch_linear", WF_OPT_VALUE, offsetof(options, patch_linear), "", 0, 0, NULL,
     "linear of the patch projection; dense (default), sigma .."},
    {"patch_norm", WF_OPT_BOOL, offsetof(options, patch_norm), "false", 0, 0, NULL,
     "LayerNorm before and after the patch projection (SimpleViT)"},
    {"patch_norm_eps", WF_OPT_REAL, offsetof(options, patch_norm_eps), "1e-5", 0, 1, NULL, "eps of those"},
    {"width", WF_OPT_INT, offsetof(options, width), "128", 1, 1 << 20, NULL, "channels of the stream, D"},
    WF_STACK_OPTIONS(options, stack),
    {"positions", WF_OPT_CHOICE, offsetof(options, positions), "learned", 0, 0, "learned|simple_vit|mae|timm|none",
     "table added to the tokens: learned, or fixed 2-D sines and cosines in one of three conventions"},
    {"temperature", WF_OPT_REAL, offsetof(options, temperature), "10000", 1, 1e9, NULL, "of the fixed tables"},
    {"pool", WF_OPT_CHOICE, offsetof(options, pool), "class", 0, 0, "class|mean",
     "what the head reads: a class token, or the mean of the patches"},
    {"distilled", WF_OPT_BOOL, offsetof(options, distilled), "false", 0, 0, NULL,
     "a distillation token with a head of its own (DeiT); needs pool: class"},
    {"final_norm", WF_OPT_CHOICE, offsetof(options, final_norm), "auto", 0, 0, "auto|true|false",
     "norm after the blocks; auto: as the placement needs"},
    {"head_bias", WF_OPT_BOOL, offsetof(options, head_bias), "true", 0, 0, NULL, "bias of the head"},
    {"centred", WF_OPT_BOOL, offsetof(options, centred), "false", 0, 0, NULL,
     "subtract the mean over the channels from every token before the blocks (trains a Pre-RMSNorm network: explain "
     "zero-mean)"},
    WF_OPT_END};

typedef struct sizes {
    int64_t ph, pw, rows, cols, n, prefix;
} sizes;

static int64_t picture_width(const options *o) {
    return o->image_width ? o->image_width : o->image_height;
}

static wf_status measure(wf_module *m, sizes *s) {
    const options *o = m->opt;
    if (o->image_height <= 0 || o->channels <= 0 || o->classes <= 0)
        return wf_module_fail(m, WF_EINVAL, "'%s' is missing and no task gives it",
                              o->image_height <= 0 ? "image_height"
                              : o->channels <= 0   ? "channels"
                                                   : "classes");
    s->ph = o->patch;
    s->pw = o->patch_width ? o->patch_width : o->patch;
    s->rows = o->image_height / s->ph;
    s->cols = picture_width(o) / s->pw;
    s->n = s->rows * s->cols;
    bool class_token = !strcmp(o->pool, "class");
    s->prefix = class_token + o->distilled;
    if (s->n <= 0)
        return wf_module_fail(m, WF_EINVAL, "a patch of %lldx%lld does not fit into a picture of %lldx%lld", (long long)s->ph,
                              (long long)s->pw, (long long)o->image_height, (long long)picture_width(o));
    if (o->distilled && !class_token) return wf_module_fail(m, WF_EINVAL, "distilled needs pool: class");
    return WF_OK;
}

static wf_status tokens_setup(wf_module *m, const sizes *s) {
    const options *o = m->opt;
    wf_init init = {WF_INIT_TRUNC_NORMAL, o->stack.init_std};
    int64_t D = o->width;
    bool class_token = !strcmp(o->pool, "class"), learned = !strcmp(o->positions, "learned");
    if (class_token && !wf_declare(m, "class_token", WF_SHAPE(D), init, WF_PARAM_NO_DECAY)) return WF_ENOMEM;
    if (o->distilled && !wf_declare(m, "dist_token", WF_SHAPE(D), init, WF_PARAM_NO_DECAY)) return WF_ENOMEM;
    if (learned && !wf_declare(m, "positions", WF_SHAPE(s->n + s->prefix, D), init, WF_PARAM_NO_DECAY)) return WF_ENOMEM;
    if (!learned && strcmp(o->positions, "none") && D % 4)
        return wf_module_fail(m, WF_EINVAL, "positions: %s needs a width that is a multiple of 4 (it is %lld)", o->positions,
                              (long long)D);
    return WF_OK;
}

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    sizes *s = m->data = wf_arena_alloc(m->model->arena, sizeof *s);
    if (!s) return WF_ENOMEM;
    WF_TRY(measure(m, s));
    int64_t D = o->width, I = o->channels * s->ph * s->pw;
    m->in = m->out = D;
    m->model->max_length = s->n + s->prefix;
    m->model->grid[0] = s->rows;
    m->model->grid[1] = s->cols;
    m->model->prefix = s->prefix;
    WF_TRY(wf_stack_prepare(m, &o->stack, WF_INIT_TRUNC_NORMAL));
    if (o->patch_norm && !wf_child_text(m, "patch_in_norm", "norm", I, I, "{name: layernorm, eps: %.17g}", o->patch_norm_eps))
        return WF_EINVAL;
    static const wf_linear_args patch = {true, WF_LINEAR_HEAD};
    if (!(o->patch_linear ? wf_child_with(m, "patch", "linear", "dense", o->patch_linear, I, D, &patch)
                          : wf_child_dense(m, "patch", I, D, true, WF_LINEAR_HEAD)))
        return WF_EINVAL;
    if (o->patch_norm && !wf_child_text(m, "patch_out_norm", "norm", D, D, "{name: layernorm, eps: %.17g}", o->patch_norm_eps))
        return WF_EINVAL;
    WF_TRY(tokens_setup(m, s));
    if (o->stack.position) WF_TRY(wf_stack_position(m, &o->stack, D));
    wf_module *blocks = wf_stack_child(m, &o->stack, D);
    if (!blocks) return WF_EINVAL;
    if (wf_stack_final_norm(blocks, o->final_norm) && !wf_child_spec(m, "final_norm", "norm", "layernorm", NULL, D, D))
        return WF_EINVAL;
    if (!wf_child_dense(m, "head", D, o->classes, o->head_bias, WF_LINEAR_HEAD)) return WF_EINVAL;
    if (o->distilled && !wf_child_dense(m, "head_dist", D, o->classes, o->head_bias, WF_LINEAR_HEAD)) return WF_EINVAL;
    return WF_OK;
}

/* [B,C,H,W] -> [B,N,patch vector] */
static wf_node *cut(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    const sizes *s = m->data;
    wf_graph *g = b->g;
    int64_t B = x->shape.dim[0], C = o->channels;
    x = wf_slice(g, wf_slice(g, x, 2, 0, s->rows * s->ph), 3, 0, s->cols * s->pw);
    x = wf_reshape(g, x, WF_SHAPE(B, C, s->rows, s->ph, s->cols, s->pw));
    static const int first[] = {0, 2, 4, 1, 3, 5}, last[] = {0, 2, 4, 3, 5, 1};
    x = wf_permute(g, x, !strcmp(o->patch_order, "channel_first") ? first : last);
    return wf_reshape(g, x, WF_SHAPE(B, s->n, C * s->ph * s->pw));
}

typedef struct table_spec {
    const options *o;
    const sizes *s;
} table_spec;

static void fill_table(wf_tensor *t, const void *ctx) {
    const table_spec *c = ctx;
    wf_sincos2d(c->o->positions, c->s->rows, c->s->cols, t->shape.dim[1], c->o->temperature, t->data);
}

static wf_node *apply_if(wf_build *b, wf_module *m, const char *child, wf_node *x) {
    wf_module *c = wf_module_find(m, child);
    return c ? wf_apply(b, c, x) : x;
}

static wf_node *token(wf_build *b, wf_module *m, const char *name, int64_t B, int64_t D) {
    return wf_expand(b->g, wf_reshape(b->g, wf_use(b, m, name), WF_SHAPE(1, 1, D)), WF_SHAPE(B, 1, D));
}

/* Patches -> tokens with positions. Fixed tables have no rows for the special tokens. */
static wf_node *tokens(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    const sizes *s = m->data;
    wf_graph *g = b->g;
    if (!x) return NULL;
    int64_t B = x->shape.dim[0], D = o->width;
    bool learned = !strcmp(o->positions, "learned"), none = !strcmp(o->positions, "none");
    if (!learned && !none) {
        char key[64];
        snprintf(key, sizeof key, "sincos2d %.20s", m->name);
        table_spec spec = {o, s};
        wf_tensor *t = wf_model_constant(m->model, key, WF_F32, WF_SHAPE(s->n, D), fill_table, &spec);
        if (!t) return wf_graph_fail(g, WF_ENOMEM, "%s", wf_message());
        wf_node *leaf = wf_leaf(g, t, "sincos2d");
        wf_tap(b, m, "positions", leaf);
        x = wf_add(g, x, leaf);
    }
    wf_node *part[3];
    int n = 0;
    if (s->prefix > 0) part[n++] = token(b, m, "class_token", B, D);
    if (s->prefix > 1) part[n++] = token(b, m, "dist_token", B, D);
    part[n++] = wf_as(b, x, b->compute == WF_F64 ? WF_F64 : WF_F32);
    x = n > 1 ? wf_concat(g, part, n, 1) : x;
    if (learned) x = wf_add(g, x, wf_use(b, m, "positions"));
    x = apply_if(b, m, "position", x);
    if (o->centred) x = wf_centred(b, x);
    return wf_drop(b, m, x, o->stack.dropout);
}

static wf_node *at(wf_graph *g, wf_node *x, int64_t i) {
    return wf_squeeze(g, wf_slice(g, x, 1, i, 1), 1);
}

static wf_node *heads(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    const sizes *s = m->data;
    wf_graph *g = b->g;
    if (!x) return NULL;
    if (!strcmp(o->pool, "mean")) {
        wf_node *f = wf_mean(g, x, 1u << 1, false);
        wf_tap(b, m, "features", f);
        return wf_apply_child(b, m, "head", f);
    }
    wf_node *f = at(g, x, 0);
    wf_tap(b, m, "features", f);
    wf_node *y = wf_apply_child(b, m, "head", f);
    if (s->prefix < 2) return y;
    wf_node *z = wf_apply_child(b, m, "head_dist", at(g, x, 1));
    wf_tap(b, m, "head", y);
    wf_tap(b, m, "head_dist", z);
    return wf_mul_c(g, wf_add(g, y, z), 0.5);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    const sizes *s = m->data;
    if (!x) return NULL;
    const int64_t *d = x->shape.dim;
    if (x->shape.rank != 4 || d[1] != o->channels || d[2] != o->image_height || d[3] != picture_width(o)) {
        char buf[96];
        return wf_graph_fail(b->g, WF_EINVAL, "vit: input must be pictures [B,%lld,%lld,%lld], got %s", (long long)o->channels,
                             (long long)o->image_height, (long long)picture_width(o), wf_shape_text(&x->shape, buf));
    }
    b->causal = false;
    b->grid[0] = s->rows;
    b->grid[1] = s->cols;
    b->prefix = s->prefix;
    x = apply_if(b, m, "patch_in_norm", cut(b, m, x));
    x = apply_if(b, m, "patch_out_norm", wf_apply_child(b, m, "patch", x));
    wf_tap(b, m, "patches", x);
    x = wf_apply_child(b, m, "blocks", tokens(b, m, x));
    wf_tap(b, m, "hidden", x);
    return heads(b, m, apply_if(b, m, "final_norm", x));
}

const wf_part wf_model_vit = {
    .slot = "model",
    .name = "vit",
    .title = "vision transformer for classification (ViT, DeiT, SimpleViT)",
    .paper = "Dosovitskiy et al.: An Image is Worth 16x16 Words, 2020, arXiv 2010.11929; Touvron et al.: DeiT, 2020, arXiv "
             "2012.12877; "
             "Beyer, Zhai, Kolesnikov: Better plain ViT baselines, 2022, arXiv 2205.01580",
    .sheet = "00",
    .formula = "x = [class, patches W + b] + positions; x = final_norm(blocks(x)); logits = head(x_0) or head(mean x)",
    .facts = "Without positions and with pool: mean it does not know where a patch was. SimpleViT: patch_norm, positions: "
             "simple_vit,\n"
             "pool: mean, patch_order: channel_last. DeiT: distilled: true; the two heads are averaged.",
    .cost = "N (24 D D + 4 N D) FLOPs a block for N patches",
    .golden = "model.vit model.vit-simple model.deit-distilled",
    .options = table,
    .opt_size = sizeof(options),
    .bidirectional_ok = true,
    .setup = setup,
    .forward = forward,
    .readers = "head head_dist",
    .writers = "patch class_token dist_token positions position.table",
};
