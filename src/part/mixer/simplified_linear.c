/* simplified_linear.c: Simplified Linear Attention of SLAB (Guo et al. 2024): ReLU linear attention over the tokens of a
 * picture, and a depthwise convolution of the values.
 *
 *     q = relu(W_q x), k = relu(W_k x + P), P [N,D] learned;  by head z_i = 1/(q_i.sum_j k_j + eps)
 *     o_i = z_i q_i sum_j k_j v_j^T + conv(v)_i,  y = W_o concat(o) + b_o
 *
 * conv: 5x5 on the grid of tokens, zeros around it, one kernel [d,1,5,5] and bias [d] for all heads. (q k^T) v and q (k^T v) are
 * the same; whichever has fewer FLOPs is taken. A window cuts the grid into parts that do not see each other (P is then a
 * window's). Not causal.
 */
#include "part/mixer/heads.h"

#include <math.h>
#include <string.h>

typedef struct options {
    wf_heads_opt heads;
    int64_t kernel, window, height, width;
    double eps;
    const char *order;
} options;

static const wf_option table[] = {
    WF_HEADS_OPTIONS(options, heads),
    {"kernel", WF_OPT_INT, offsetof(options, kernel), "5", 1, 63, NULL, "rows and columns of the convolution (odd)"},
    {"eps", WF_OPT_REAL, offsetof(options, eps), "1e-6", 0, 1, NULL, "added to the denominator"},
    {"order", WF_OPT_CHOICE, offsetof(options, order), "auto", 0, 0, "auto|qk_first|kv_first",
     "(q k^T) v or q (k^T v); auto: the one with fewer FLOPs"},
    {"window", WF_OPT_INT, offsetof(options, window), "0", 0, 1 << 16, NULL,
     "rows and columns of windows that the grid is cut into; 0: the whole grid"},
    {"height", WF_OPT_INT, offsetof(options, height), "0", 0, 1 << 16, NULL, "rows of the grid of tokens; 0: the model's"},
    {"width", WF_OPT_INT, offsetof(options, width), "0", 0, 1 << 16, NULL, "columns of the grid; 0: the model's"},
    WF_OPT_END};

typedef struct plan {
    wf_heads heads; /* first: m->data is read as wf_heads */
    int64_t grid[2], part[2];
} plan;

static wf_status grid_setup(wf_module *m, plan *p) {
    const options *o = m->opt;
    const wf_model *model = m->model;
    p->grid[0] = o->height ? o->height : model->grid[0];
    p->grid[1] = o->width ? o->width : model->grid[1];
    if (p->grid[0] <= 0 || p->grid[1] <= 0)
        return wf_module_fail(
            m, WF_EINVAL,
            "works on the grid of a picture's tokens, and this model has none: give height and width, or take "
            "linear, flow or norm-attention");
    if (model->prefix && !o->height)
        return wf_module_fail(m, WF_EINVAL, "class and distillation tokens have no place in the grid; take pool: mean");
    if (o->kernel % 2 == 0) return wf_module_fail(m, WF_EINVAL, "'kernel' must be odd, not %lld", (long long)o->kernel);
    for (int i = 0; i < 2; i++) {
        p->part[i] = o->window ? o->window : p->grid[i];
        if (p->grid[i] % p->part[i])
            return wf_module_fail(m, WF_EINVAL, "'window' %lld must divide the grid of %lld x %lld", (long long)o->window,
                                  (long long)p->grid[0], (long long)p->grid[1]);
    }
    return WF_OK;
}

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    WF_TRY(wf_heads_setup(m, &o->heads));
    plan *p = wf_arena_alloc(m->model->arena, sizeof *p);
    if (!p) return WF_ENOMEM;
    p->heads = *(const wf_heads *)m->data;
    const wf_heads *h = m->data = p;
    if (h->K != h->H)
        return wf_module_fail(m, WF_EUNSUPPORTED, "'kv_heads' other than 'heads' is not possible here; leave it out");
    if (h->position->part->bias)
        return wf_module_fail(m, WF_EUNSUPPORTED,
                              "a bias on scores (position %s) needs scores; this mixer has positions of its own",
                              h->position->part->name);
    WF_TRY(grid_setup(m, p));
    int64_t N = p->part[0] * p->part[1], d = h->d, k = o->kernel;
    wf_init spread = {WF_INIT_UNIFORM, 1 / sqrt((double)(k * k))};
    if (!wf_declare(m, "positions", WF_SHAPE(N, h->H * d), (wf_init){WF_INIT_ZERO, 0}, WF_PARAM_NO_DECAY)) return WF_ENOMEM;
    if (!wf_declare(m, "conv.weight", WF_SHAPE(d, 1, k, k), spread, 0)) return WF_ENOMEM;
    return wf_declare(m, "conv.bias", WF_SHAPE(d), spread, WF_PARAM_NO_DECAY) ? WF_OK : WF_ENOMEM;
}

/* [B,rows x columns,..] <-> [B windows, rows x columns of a window, ..] */
static wf_node *cut(wf_graph *g, const plan *p, wf_node *x, bool back) {
    if (!x || (p->part[0] == p->grid[0] && p->part[1] == p->grid[1])) return x;
    int64_t h = p->part[0], w = p->part[1], ny = p->grid[0] / h, nx = p->grid[1] / w, D = x->shape.dim[2];
    int64_t B = x->shape.dim[0] / (back ? ny * nx : 1);
    x = wf_reshape(g, x, back ? WF_SHAPE(B, ny, nx, h, w, D) : WF_SHAPE(B, ny, h, nx, w, D));
    x = wf_permute(g, x, (const int[]){0, 1, 3, 2, 4, 5});
    return wf_reshape(g, x, back ? WF_SHAPE(B, ny * h * nx * w, D) : WF_SHAPE(B * ny * nx, h * w, D));
}

/* v [B,N,H,d] with the kernel [d,1,ky,kx] of all heads. */
static wf_node *convolve(wf_build *b, wf_module *m, wf_node *v) {
    const plan *p = m->data;
    wf_graph *g = b->g;
    wf_node *w = wf_use(b, m, "conv.weight"), *x = NULL;
    if (!v || !w) return NULL;
    x = wf_reshape(g, v, WF_SHAPE(v->shape.dim[0], p->part[0], p->part[1], p->heads.H * p->heads.d));
    w = wf_contiguous(g, wf_permute(g, wf_squeeze(g, w, 1), (const int[]){1, 2, 0}));
    x = wf_depthwise_conv(g, x, w);
    return x ? wf_add(g, wf_reshape(g, x, v->shape), wf_use(b, m, "conv.bias")) : NULL;
}

/* auto: (q k^T) v with N <= d, else q (k^T v). */
static wf_node *mix(wf_graph *g, const options *o, wf_node *q, wf_node *k, wf_node *v) {
    static const int heads_first[] = {0, 2, 1, 3};
    bool few = q && q->shape.dim[1] <= q->shape.dim[3], scores = !strcmp(o->order, "qk_first");
    if (!scores && !(few && !strcmp(o->order, "auto"))) return wf_linear_all(g, q, k, v, NULL);
    wf_node *s = wf_matmul(g, wf_permute(g, q, heads_first), wf_permute(g, k, heads_first), false, true);
    return wf_permute(g, wf_matmul(g, s, wf_permute(g, v, heads_first), false, false), heads_first);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    const plan *p = m->data;
    const wf_heads *h = &p->heads;
    wf_graph *g = b->g;
    wf_dtype t = b->compute == WF_F64 ? WF_F64 : WF_F32;
    wf_node *q, *k, *v;
    if (x->shape.rank != 3 || x->shape.dim[1] != p->grid[0] * p->grid[1])
        return wf_graph_fail(g, WF_EINVAL, "%s: %lld tokens do not fill the grid of %lld x %lld", m->name,
                             (long long)x->shape.dim[x->shape.rank - 2], (long long)p->grid[0], (long long)p->grid[1]);
    if (b->lengths || b->keep)
        return wf_graph_fail(g, WF_EUNSUPPORTED, "%s: a grid of tokens has no padding; leave out lengths and masks", m->name);
    x = cut(g, p, x, false);
    if (wf_heads_project(b, m, x, x, &q, &k, &v) != WF_OK) return NULL;
    q = wf_as(b, q, t), k = wf_as(b, k, t), v = wf_as(b, v, t);
    k = wf_add(g, k, wf_reshape(g, wf_use(b, m, "positions"), WF_SHAPE(x->shape.dim[1], h->H, h->d)));
    q = wf_relu(g, q), k = wf_relu(g, k);
    wf_node *below = wf_sum(g, wf_mul(g, q, wf_sum(g, k, 1u << 1, true)), 1u << 3, true);
    wf_node *y = wf_div(g, mix(g, o, q, k, v), wf_add_c(g, below, o->eps));
    y = wf_add(g, y, convolve(b, m, v));
    return cut(g, p, wf_heads_merge(b, m, wf_as(b, y, b->compute)), true);
}

const wf_part wf_mixer_simplified_linear = {
    .slot = "mixer",
    .name = "simplified-linear",
    .title = "Simplified Linear Attention: ReLU linear attention and a depthwise convolution over a picture's tokens (SLAB)",
    .paper = "Guo, Chen, Tang, Wang: SLAB: Efficient Transformers with Simplified Linear Attention and Progressive "
             "Re-parameterized Batch Normalization, 2024, arXiv 2405.11582",
    .sheet = "18",
    .formula = "q = relu(W_q x), k = relu(W_k x + P); z_i = 1/(q_i.sum_j k_j + eps)\n"
               "o_i = z_i q_i sum_j k_j v_j^T + conv5x5(v)_i; y = W_o concat_heads(o) + b_o",
    .facts =
        "The convolution gives back the local detail that linear attention blurs; all heads share its kernel. P fixes the\n"
        "number of tokens. A query of zeros gives the convolution alone, not NaN. No class token: pool: mean.",
    .cost =
        "8 D D FLOPs a token for the linears, 4 D min(N, d) for mixing, 50 D for the convolution; N D + 26 d parameters more",
    .golden = "mixer.simplified-linear-attention",
    .options = table,
    .opt_size = sizeof(options),
    .bidirectional_ok = true,
    .setup = setup,
    .forward = forward,
    .readers = "q k v",
    .writers = "o",
};
