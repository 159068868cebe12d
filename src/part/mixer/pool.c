/* pool.c: average pooling as a token mixer (Yu et al. 2021, PoolFormer): no parameters.
 *
 *     y = avg(x) - x;  avg: the mean over k x k neighbours on the grid, at the border over those that exist
 *
 * x is subtracted because the block adds it again. Special tokens in front of a picture stand nowhere on the grid: their window is
 * the whole picture, and they are in nobody's. An extension of this project: a sequence without a grid is pooled over the k tokens
 * around each (padding left out), in a causal model over the last k; then it has a step form.
 */
#include "part/mixer/tokens.h"

typedef struct options {
    int64_t size;
} options;

static const wf_option table[] = {{"pool_size", WF_OPT_INT, offsetof(options, size), "3", 1, 255, NULL,
                                   "k: neighbours along each side of the grid (odd), or tokens of a sequence"},
                                  WF_OPT_END};

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    if (o->size % 2 || m->model->causal) return WF_OK;
    return wf_module_fail(m, WF_EINVAL, "'pool_size' must be odd (found %lld): a window has its token in the middle; take %lld",
                          (long long)o->size, (long long)o->size + 1);
}

static wf_node *on_grid(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    int64_t B = x->shape.dim[0], L = x->shape.dim[1], D = x->shape.dim[2], P = b->prefix, R = b->grid[0], C = b->grid[1];
    if (L != P + R * C)
        return wf_graph_fail(g, WF_EINVAL, "%s: %lld tokens are not %lld special ones and a grid of %lldx%lld", m->name,
                             (long long)L, (long long)P, (long long)R, (long long)C);
    int64_t half = o->size / 2;
    wf_window_spec w = {half, half, half, half, true, true};
    wf_node *cells = P ? wf_slice(g, x, 1, P, R * C) : x;
    wf_node *y = wf_reshape(g, wf_window(g, wf_reshape(g, cells, WF_SHAPE(B, R, C, D)), &w), WF_SHAPE(B, R * C, D));
    if (!P) return y;
    wf_node *special = wf_sub(g, wf_mean(g, cells, 1u << 1, true), wf_slice(g, x, 1, 0, P));
    return wf_concat(g, (wf_node *[]){special, y}, 2, 1);
}

/* Mean over the k tokens around each that are not padding. */
static wf_node *around(wf_build *b, const options *o, wf_node *x) {
    wf_graph *g = b->g;
    int64_t B = x->shape.dim[0], L = x->shape.dim[1], D = x->shape.dim[2], half = o->size / 2;
    wf_window_spec w = {0, 0, half, half, true, true};
    wf_node *keep = wf_keep_mask(b, x);
    if (!keep) return wf_reshape(g, wf_window(g, wf_reshape(g, x, WF_SHAPE(B, 1, L, D)), &w), WF_SHAPE(B, L, D));
    w.mean = w.minus_self = false;
    keep = wf_as(b, keep, x->dtype);
    wf_node *sum = wf_window(g, wf_reshape(g, wf_unpadded(b, x), WF_SHAPE(B, 1, L, D)), &w);
    wf_node *count = wf_window(g, wf_reshape(g, keep, WF_SHAPE(B, 1, L, 1)), &w);
    wf_node *mean = wf_div(g, sum, wf_max_c(g, count, 1));
    return wf_sub(g, wf_reshape(g, mean, WF_SHAPE(B, L, D)), x);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    if (!x) return NULL;
    x = wf_as(b, x, b->compute == WF_F64 ? WF_F64 : WF_F32);
    if (!b->causal) return b->grid[0] > 0 ? on_grid(b, m, x) : around(b, o, x);
    int64_t B = x->shape.dim[0], L = x->shape.dim[1], D = x->shape.dim[2];
    wf_window_spec last = {0, 0, o->size - 1, 0, true, true};
    return wf_reshape(g, wf_window(g, wf_reshape(g, x, WF_SHAPE(B, 1, L, D)), &last), WF_SHAPE(B, L, D));
}

/* The last k-1 tokens are the state; before the start of the sequence they are 0 and do not count. */
static wf_node *step(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    if (!x) return NULL;
    wf_dtype t = b->compute == WF_F64 ? WF_F64 : WF_F32;
    int64_t B = x->shape.dim[0], T = x->shape.dim[1], D = x->shape.dim[2], past = o->size - 1;
    x = wf_as(b, x, t);
    if (!past) return wf_sub(g, x, x);
    wf_node *state = wf_state(b, m, "last", t, WF_SHAPE(B, past, D));
    wf_node *all = wf_concat(g, (wf_node *[]){state, x}, 2, 1);
    wf_window_spec last = {.left = past};
    wf_node *sum = wf_window(g, wf_reshape(g, all, WF_SHAPE(B, 1, past + T, D)), &last);
    sum = wf_slice(g, wf_reshape(g, sum, WF_SHAPE(B, past + T, D)), 1, past, T);
    wf_node *count = wf_min_c(g, wf_add_c(g, wf_positions(b, t, T), 1), (double)o->size);
    wf_node *y = wf_sub(g, wf_div(g, sum, wf_reshape(g, count, WF_SHAPE(T, 1))), x);
    return wf_keep(b, state, wf_slice(g, all, 1, T, past)) == WF_OK ? y : NULL;
}

const wf_part wf_mixer_pool = {
    .slot = "mixer",
    .name = "pool",
    .title = "average pooling over neighbours, less the token itself: no parameters",
    .paper = "Yu et al.: MetaFormer Is Actually What You Need for Vision, 2021, arXiv 2111.11418",
    .sheet = "28",
    .formula = "y = avg(x) - x; avg = mean over the k x k neighbours inside the grid",
    .facts =
        "At the border the mean is over the 4 or 6 tokens that exist, not over 9. A class token gets the mean of the picture.\n"
        "Sequences (an extension, not of the paper): the k tokens around each, or in a causal model the last k.",
    .cost = "2 (k-1) + 2 FLOPs a number, no parameters; state (k-1) D numbers where causal",
    .golden = "mixer.pool block.poolformer model.poolformer model.metaformer",
    .options = table,
    .opt_size = sizeof(options),
    .causal_ok = true,
    .bidirectional_ok = true,
    .setup = setup,
    .forward = forward,
    .step = step,
};
