/* metaformer.c: the hierarchy of MetaFormer and PoolFormer: pictures [B,C,H,W] -> logits [B,classes].
 *
 *     x = conv(picture);  for every stage: x (+ table) -> blocks -> conv to the next width (half the side)
 *     logits = head(mean over the map of norm(x))
 *
 * Inside a stage the map is tokens [B,N,C], row-major, so every mixer that works in vit works in a stage; between stages it is
 * [B,C,H,W]. Only matrices over positions and position tables fix the size of pictures.
 */
#include "model/model.h"

#include "part/topology/stack.h"

#include <math.h>
#include <string.h>

enum { STAGES = 8 };

typedef struct options {
    int64_t image_height, image_width, channels, classes;
    const wf_value *layers, *widths, *ratios, *mixer, *channel, *norm, *placement, *topology, *linear, *positions, *patch,
        *down, *downsamples;
    double dropout, layer_scale, stochastic_depth, init_std;
    bool bias, fork;
} options;

static const wf_option table[] = {
    {"image_height", WF_OPT_INT, offsetof(options, image_height), "0", 0, 1 << 16, NULL,
     "rows of a picture; 0 or absent: the task's"},
    {"image_width", WF_OPT_INT, offsetof(options, image_width), "0", 0, 1 << 16, NULL, "columns; 0: as image_height"},
    {"channels", WF_OPT_INT, offsetof(options, channels), "0", 0, 1024, NULL, "channels of a picture; 0 or absent: the task's"},
    {"classes", WF_OPT_INT, offsetof(options, classes), "0", 0, 1 << 24, NULL, "classes; 0 or absent: the task's"},
    {"layers", WF_OPT_VALUE, offsetof(options, layers), "", 0, 0, NULL,
     "blocks of each stage, a list; default [2, 2, 6, 2] (S12)"},
    {"widths", WF_OPT_VALUE, offsetof(options, widths), "", 0, 0, NULL,
     "channels of each stage, a list; default [64, 128, 320, 512] or its start"},
    {"ratios", WF_OPT_VALUE, offsetof(options, ratios), "", 0, 0, NULL,
     "hidden width of the mlp over the width: a number or one a stage; default 4"},
    {"mixer", WF_OPT_VALUE, offsetof(options, mixer), "", 0, 0, NULL, "token mixer, one or one a stage; default pool"},
    {"channel", WF_OPT_VALUE, offsetof(options, channel), "", 0, 0, NULL,
     "channel mixer of all stages; default mlp of `ratios`"},
    {"norm", WF_OPT_VALUE, offsetof(options, norm), "", 0, 0, NULL,
     "norm of all places; default {name: groupnorm, groups: 1, over: sample} (PoolFormer); hybrids: layernorm"},
    {"placement", WF_OPT_VALUE, offsetof(options, placement), "", 0, 0, NULL,
     "where norms stand: pre (default), post, peri .."},
    {"topology", WF_OPT_VALUE, offsetof(options, topology), "", 0, 0, NULL, "how sublayers follow each other: plain (default)"},
    {"linear", WF_OPT_VALUE, offsetof(options, linear), "", 0, 0, NULL, "linear layers inside the blocks: dense (default)"},
    {"positions", WF_OPT_VALUE, offsetof(options, positions), "", 0, 0, NULL,
     "a learned table at the entry of a stage: true or false, one a stage; default none"},
    {"patch", WF_OPT_VALUE, offsetof(options, patch), "", 0, 0, NULL,
     "first convolution: [size, stride, padding]; default [7, 4, 2]"},
    {"down", WF_OPT_VALUE, offsetof(options, down), "", 0, 0, NULL, "convolution between stages; default [3, 2, 1]"},
    {"downsamples", WF_OPT_VALUE, offsetof(options, downsamples), "", 0, 0, NULL,
     "whether one follows stage i, also where the width stays: true or false, one a stage; default true"},
    {"dropout", WF_OPT_REAL, offsetof(options, dropout), "0", 0, 0.99, NULL, "dropout of every branch's output"},
    {"layer_scale", WF_OPT_REAL, offsetof(options, layer_scale), "1e-5", 0, 100, NULL,
     "starting value of a learned gain on every branch's output (1e-5; 1e-6 from S36 on); 0: none"},
    {"stochastic_depth", WF_OPT_REAL, offsetof(options, stochastic_depth), "0", 0, 0.99, NULL,
     "probability to skip a branch in training, growing linearly from 0 to this over all blocks"},
    {"bias", WF_OPT_BOOL, offsetof(options, bias), "true", 0, 0, NULL, "biases in the blocks' linears"},
    {"init_std", WF_OPT_REAL, offsetof(options, init_std), "0.02", 0, 10, NULL,
     "standard deviation of initial weights of linears"},
    {"fork_feat", WF_OPT_BOOL, offsetof(options, fork), "false", 0, 0, NULL,
     "no head: every stage's map with a norm of its own (taps `map`), the last one the result"},
    WF_OPT_END};

typedef struct conv {
    int64_t size, stride, pad;
} conv;

typedef struct stage {
    int64_t layers, width, rows, columns;
    double ratio;
    bool table, down; /* position table at its entry; a convolution after it */
    const wf_value *mixer;
    wf_module *blocks;
} stage;

typedef struct network {
    int n;
    int64_t all; /* blocks of all stages */
    conv first, between;
    stage stage[STAGES];
} network;

/* ---- reading lists ---- */

/* Entry i of a value that is one for all stages or a list with one a stage; NULL: absent. */
static wf_status entry(const wf_module *m, const wf_value *v, const char *name, int i, int n, const wf_value **out) {
    *out = v && v->kind == WF_V_LIST ? NULL : v;
    if (!v || v->kind != WF_V_LIST) return WF_OK;
    if (v->n == n) return *out = v->item[i], WF_OK;
    return wf_module_fail(m, WF_EINVAL, "'%s' has %d entries for %d stages", name, v->n, n);
}

static wf_status whole(const wf_module *m, const wf_value *v, const char *name, int64_t low, int64_t *out) {
    if (v) WF_TRY(wf_value_int(v, out));
    if (*out >= low && *out <= 1 << 16) return WF_OK;
    return wf_module_fail(m, WF_EINVAL, "'%s' must hold whole numbers from %lld to 65536, not %lld", name, (long long)low,
                          (long long)*out);
}

static wf_status read_conv(const wf_module *m, const wf_value *v, const char *name, conv *c) {
    if (!v) return WF_OK;
    if (v->kind != WF_V_LIST || v->n != 3) return wf_module_fail(m, WF_EINVAL, "'%s' is a list [size, stride, padding]", name);
    WF_TRY(whole(m, v->item[0], name, 1, &c->size));
    WF_TRY(whole(m, v->item[1], name, 1, &c->stride));
    return whole(m, v->item[2], name, 0, &c->pad);
}

static wf_status read_stage(const wf_module *m, network *w, int i) {
    static const int64_t layers[] = {2, 2, 6, 2}, widths[] = {64, 128, 320, 512};
    const options *o = m->opt;
    stage *s = &w->stage[i];
    const wf_value *v;
    *s = (stage){.layers = layers[i & 3], .width = widths[i & 3], .ratio = 4, .down = true};
    WF_TRY(entry(m, o->layers, "layers", i, w->n, &v));
    WF_TRY(whole(m, v, "layers", 1, &s->layers));
    WF_TRY(entry(m, o->widths, "widths", i, w->n, &v));
    if (!v && i > 3) return wf_module_fail(m, WF_EINVAL, "'widths' has a default for 4 stages; give it for %d", w->n);
    WF_TRY(whole(m, v, "widths", 1, &s->width));
    WF_TRY(entry(m, o->ratios, "ratios", i, w->n, &v));
    if (v) WF_TRY(wf_value_real(v, &s->ratio));
    WF_TRY(entry(m, o->positions, "positions", i, w->n, &v));
    if (v) WF_TRY(wf_value_bool(v, &s->table));
    WF_TRY(entry(m, o->downsamples, "downsamples", i, w->n, &v));
    if (v) WF_TRY(wf_value_bool(v, &s->down));
    return entry(m, o->mixer, "mixer", i, w->n, &s->mixer);
}

static wf_status read_network(wf_module *m, network *w) {
    const options *o = m->opt;
    if (o->image_height <= 0 || o->channels <= 0 || (o->classes <= 0 && !o->fork))
        return wf_module_fail(m, WF_EINVAL, "'%s' is missing and no task gives it",
                              o->image_height <= 0 ? "image_height"
                              : o->channels <= 0   ? "channels"
                                                   : "classes");
    w->n = !o->layers ? 4 : o->layers->kind == WF_V_LIST ? o->layers->n : 1;
    if (w->n < 1 || w->n > STAGES) return wf_module_fail(m, WF_EINVAL, "%d stages; there can be 1 to %d", w->n, STAGES);
    w->first = (conv){7, 4, 2};
    w->between = (conv){3, 2, 1};
    WF_TRY(read_conv(m, o->patch, "patch", &w->first));
    WF_TRY(read_conv(m, o->down, "down", &w->between));
    for (int i = 0; i < w->n; i++) {
        WF_TRY(read_stage(m, w, i));
        w->all += w->stage[i].layers;
    }
    for (int i = 0; i < w->n; i++)
        w->stage[i].down = i + 1 < w->n && (w->stage[i].down || w->stage[i].width != w->stage[i + 1].width);
    return WF_OK;
}

static int64_t after(const conv *c, int64_t n) {
    return n + 2 * c->pad < c->size ? 0 : (n + 2 * c->pad - c->size) / c->stride + 1;
}

static wf_status measure(const wf_module *m, network *w) {
    const options *o = m->opt;
    int64_t rows = after(&w->first, o->image_height),
            columns = after(&w->first, o->image_width ? o->image_width : o->image_height);
    for (int i = 0; i < w->n; i++) {
        stage *s = &w->stage[i];
        s->rows = rows;
        s->columns = columns;
        if (rows < 1 || columns < 1)
            return wf_module_fail(
                m, WF_EINVAL, "a picture of %lldx%lld leaves nothing for stage %d; take fewer stages or smaller steps",
                (long long)o->image_height, (long long)(o->image_width ? o->image_width : o->image_height), i);
        if (s->down) rows = after(&w->between, rows), columns = after(&w->between, columns);
    }
    return WF_OK;
}

/* ---- setup ---- */

/* Parameters NAME.weight [O,I,k,k] and NAME.bias, uniform up to 1/sqrt(fan in). */
static wf_status conv_setup(wf_module *m, const char *name, const conv *c, int64_t in, int64_t out) {
    char local[48];
    wf_init init = {WF_INIT_UNIFORM, 1 / sqrt((double)(in * c->size * c->size))};
    snprintf(local, sizeof local, "%s.weight", name);
    if (!wf_declare(m, local, WF_SHAPE(out, in, c->size, c->size), init, 0)) return WF_ENOMEM;
    snprintf(local, sizeof local, "%s.bias", name);
    return wf_declare(m, local, WF_SHAPE(out), init, WF_PARAM_NO_DECAY) ? WF_OK : WF_ENOMEM;
}

/* mlp of the stage's ratio, kept by the model. */
static const wf_value *channel_of(wf_module *m, int i, double ratio) {
    char text[64], key[48];
    int n = snprintf(text, sizeof text, "{name: mlp, ratio: %.17g}", ratio);
    snprintf(key, sizeof key, "stages.%d.channel", i);
    wf_value *v = wf_yaml_parse(text, (size_t)n, NULL);
    return v && wf_value_set(m->model->made, key, v) == WF_OK ? v : NULL;
}

static const wf_value *pool_of(wf_module *m) {
    wf_value *v = wf_value_text("pool");
    return v && wf_value_set(m->model->made, "stages.mixer", v) == WF_OK ? v : NULL;
}

static wf_status stage_setup(wf_module *m, network *w, int i, int64_t first) {
    const options *o = m->opt;
    stage *s = &w->stage[i];
    char name[48];
    wf_stack_opt *k = wf_arena_alloc(m->model->arena, sizeof *k);
    if (!k) return WF_ENOMEM;
    *k = (wf_stack_opt){.layers = s->layers,
                        .mixer = s->mixer ? s->mixer : pool_of(m),
                        .channel = o->channel ? o->channel : channel_of(m, i, s->ratio),
                        .placement = o->placement,
                        .topology = o->topology,
                        .dropout = o->dropout,
                        .layer_scale = o->layer_scale,
                        .stochastic_depth = o->stochastic_depth,
                        .init_std = o->init_std,
                        .bias = o->bias,
                        .first = first,
                        .all = w->all};
    m->model->max_length = s->rows * s->columns; /* what matrices over positions of this stage are made for */
    snprintf(name, sizeof name, "positions.%d", i);
    if (s->table &&
        !wf_declare(m, name, WF_SHAPE(s->width, s->rows * s->columns), (wf_init){WF_INIT_ZERO, 0}, WF_PARAM_NO_DECAY))
        return WF_ENOMEM;
    snprintf(name, sizeof name, "stages.%d", i);
    s->blocks = wf_child_with(m, name, "topology", "plain", o->topology, s->width, s->width, k);
    if (!s->blocks) return WF_EINVAL;
    snprintf(name, sizeof name, "norms.%d", i);
    if (o->fork && !wf_child_spec(m, name, "norm", "layernorm", NULL, s->width, s->width)) return WF_EINVAL;
    snprintf(name, sizeof name, "down.%d", i);
    return s->down ? conv_setup(m, name, &w->between, s->width, w->stage[i + 1].width) : WF_OK;
}

static wf_status prepare(wf_module *m, const network *w) {
    static const char group[] = "{name: groupnorm, groups: 1, over: sample}";
    const options *o = m->opt;
    wf_value *v = o->norm ? NULL : wf_yaml_parse(group, sizeof group - 1, NULL);
    if (!o->norm && !v) return WF_ENOMEM;
    wf_stack_opt k = {.layers = w->all,
                      .norm = o->norm ? o->norm : v,
                      .placement = o->placement,
                      .linear = o->linear,
                      .init_std = o->init_std,
                      .bias = o->bias};
    wf_status s = wf_stack_prepare(m, &k, WF_INIT_NORMAL);
    wf_value_free(v);
    return s;
}

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    network *w = m->data = wf_arena_alloc(m->model->arena, sizeof *w);
    if (!w) return WF_ENOMEM;
    WF_TRY(read_network(m, w));
    WF_TRY(measure(m, w));
    WF_TRY(prepare(m, w));
    WF_TRY(conv_setup(m, "patch", &w->first, o->channels, w->stage[0].width));
    int64_t first = 0;
    for (int i = 0; i < w->n; first += w->stage[i++].layers) WF_TRY(stage_setup(m, w, i, first));
    m->model->layers = w->all;
    m->model->max_length = w->stage[0].rows * w->stage[0].columns;
    int64_t D = m->in = m->out = w->stage[w->n - 1].width;
    if (o->fork) return WF_OK;
    if (!wf_child_spec(m, "final_norm", "norm", "layernorm", NULL, D, D)) return WF_EINVAL;
    return wf_child_dense(m, "head", D, o->classes, true, WF_LINEAR_HEAD) ? WF_OK : WF_EINVAL;
}

/* ---- forward ---- */

static wf_node *convolve(wf_build *b, wf_module *m, const char *name, const conv *c, wf_node *x) {
    char weight[48], bias[48];
    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    wf_conv_spec s = {.stride = {c->stride, c->stride}, .pad_before = {c->pad, c->pad}, .pad_after = {c->pad, c->pad}};
    return wf_conv2d(b->g, x, wf_use(b, m, weight), wf_use(b, m, bias), &s);
}

/* [B,C,H,W] <-> [B,HW,C] */
static wf_node *to_tokens(wf_graph *g, wf_node *x) {
    if (!x) return NULL;
    const int64_t *d = x->shape.dim;
    return wf_transpose(g, wf_reshape(g, x, WF_SHAPE(d[0], d[1], d[2] * d[3])), 1, 2);
}
static wf_node *to_map(wf_graph *g, wf_node *x, int64_t rows, int64_t columns) {
    if (!x) return NULL;
    const int64_t *d = x->shape.dim;
    return wf_reshape(g, wf_transpose(g, x, 1, 2), WF_SHAPE(d[0], d[2], rows, columns));
}

/* Tokens of stage i from its map, and what it taps. */
static wf_node *run_stage(wf_build *b, wf_module *m, int i, wf_node *x) {
    const options *o = m->opt;
    network *w = m->data;
    stage *s = &w->stage[i];
    char name[48];
    if (!x) return NULL;
    b->grid[0] = x->shape.dim[2];
    b->grid[1] = x->shape.dim[3];
    snprintf(name, sizeof name, "positions.%d", i);
    if (s->table && (b->grid[0] != s->rows || b->grid[1] != s->columns))
        return wf_graph_fail(b->g, WF_EINVAL, "metaformer: stage %d has a position table for %lldx%lld tokens, not %lldx%lld",
                             i, (long long)s->rows, (long long)s->columns, (long long)b->grid[0], (long long)b->grid[1]);
    if (s->table) x = wf_add(b->g, x, wf_reshape(b->g, wf_use(b, m, name), WF_SHAPE(s->width, s->rows, s->columns)));
    wf_node *y = wf_apply(b, s->blocks, wf_contiguous(b->g, to_tokens(b->g, x)));
    snprintf(name, sizeof name, "norms.%d", i);
    if (o->fork) wf_tap(b, m, "map", to_map(b->g, wf_apply_child(b, m, name, y), b->grid[0], b->grid[1]));
    return y;
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    network *w = m->data;
    wf_graph *g = b->g;
    char name[48];
    if (!x) return NULL;
    if (x->shape.rank != 4 || x->shape.dim[1] != o->channels) {
        char buf[96];
        return wf_graph_fail(g, WF_EINVAL, "metaformer: input must be pictures [B,%lld,H,W], got %s", (long long)o->channels,
                             wf_shape_text(&x->shape, buf));
    }
    b->causal = false;
    b->prefix = 0;
    x = convolve(b, m, "patch", &w->first, wf_as(b, x, b->compute == WF_F64 ? WF_F64 : WF_F32));
    for (int i = 0; i < w->n; i++) {
        wf_node *y = run_stage(b, m, i, x);
        if (i + 1 == w->n) x = y;
        if (i + 1 == w->n || !y) break;
        snprintf(name, sizeof name, "down.%d", i);
        x = to_map(g, y, b->grid[0], b->grid[1]);
        if (w->stage[i].down) x = convolve(b, m, name, &w->between, x);
    }
    wf_tap(b, m, "hidden", to_map(g, x, b->grid[0], b->grid[1]));
    if (o->fork) {
        snprintf(name, sizeof name, "norms.%d", w->n - 1);
        return to_map(g, wf_apply_child(b, m, name, x), b->grid[0], b->grid[1]);
    }
    x = wf_apply_child(b, m, "final_norm", x);
    x = x ? wf_mean(g, x, 1u << 1, false) : NULL;
    wf_tap(b, m, "features", x);
    return wf_apply_child(b, m, "head", x);
}

const wf_part wf_model_metaformer = {
    .slot = "model",
    .name = "metaformer",
    .title = "hierarchical vision network with any token mixer a stage (PoolFormer, MetaFormer hybrids)",
    .paper = "Yu et al.: MetaFormer Is Actually What You Need for Vision, 2021, arXiv 2111.11418",
    .sheet = "28",
    .formula = "x = conv(picture); a stage: x <- x + s1 mixer(N(x)); x <- x + s2 mlp(N(x)); conv to the next; logits = "
               "head(mean N(x))",
    .facts = "PoolFormer: S12 layers [2,2,6,2], S24 [4,4,12,4], S36 [6,6,18,6] with widths [64,128,320,512]; M36 [6,6,18,6], "
             "M48 [8,8,24,8]\n"
             "with [96,192,384,768]; layer_scale 1e-5, from S36 on 1e-6; stochastic_depth 0.1, 0.1, 0.2, 0.3, 0.4. Hybrids: "
             "mixer: [pool,\n"
             "pool, softmax, softmax], norm: layernorm, positions: [false, false, true, false]. The default norm sees the "
             "whole picture: do\n"
             "not pad pictures. At layer_scale 1e-5 blocks start almost as the identity; small trials want 0.1.",
    .cost = "16 C C FLOPs a position and block with ratio 4; linear in pixels with pool, quadratic in attention's part",
    .golden = "model.poolformer model.metaformer",
    .options = table,
    .opt_size = sizeof(options),
    .bidirectional_ok = true,
    .setup = setup,
    .forward = forward,
    .readers = "head",
};
