/* diag_attention.c: DiagAttention of TransNormer (Qin et al. 2022): attention within blocks of w tokens that do not overlap.
 *
 *     S = q k^T / sqrt(d) in a block, positions counted in the block
 *     relu (T1):     o = relu(S) v, y = W_o srms(concat o) + b_o
 *     softmax (T2):  o = softmax(S) v, y = W_o concat(o) + b_o
 *
 * The sequence is filled up to whole blocks with zeros behind the projections. Seen both ways, those zero keys take part in the
 * softmax of the last block as they do in the authors' code, unless mask_tail hides them.
 */
#include "part/mixer/transnormer.h"

#include <string.h>

typedef struct options {
    wf_heads_opt heads;
    int64_t block;
    const char *act, *init, *norm;
    bool mask_tail;
    double eps;
} options;

static const wf_option table[] = {
    WF_HEADS_OPTIONS(options, heads),
    {"block", WF_OPT_INT, offsetof(options, block), "64", 1, 1 << 20, NULL, "tokens of a block, w"},
    {"act", WF_OPT_CHOICE, offsetof(options, act), "relu", 0, 0, "relu|softmax",
     "weights: relu (and a norm of the output) is T1, softmax T2"},
    {"mask_tail", WF_OPT_BOOL, offsetof(options, mask_tail), "false", 0, 0, NULL,
     "softmax seen both ways: hide the zeros that fill up the last block"},
    {"norm", WF_OPT_CHOICE, offsetof(options, norm), "auto", 0, 0, "auto|srms|none",
     "norm of the heads' output; auto: srms with relu, none with softmax"},
    {"eps", WF_OPT_REAL, offsetof(options, eps), "1e-8", 0, 1, NULL, "added to the root mean square of the output"},
    WF_TRANSNORMER_INIT(options),
    WF_OPT_END};

static double norm_eps(const options *o) {
    bool auto_norm = !strcmp(o->norm, "auto");
    return !strcmp(o->norm, "srms") || (auto_norm && !strcmp(o->act, "relu")) ? o->eps : -1;
}

static bool is_relu(const options *o) {
    return !strcmp(o->act, "relu");
}

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    WF_TRY(wf_heads_setup_with(m, &o->heads, "lrpe"));
    const wf_heads *h = m->data;
    if (h->position->part->bias)
        return wf_module_fail(m, WF_EUNSUPPORTED, "positions count within blocks: position %s cannot; take lrpe, rope or none",
                              h->position->part->name);
    wf_xavier_heads(m, o->init, 1);
    return WF_OK;
}

static wf_attention_spec spec_of(const wf_module *m, bool causal) {
    const options *o = m->opt;
    const wf_heads *h = m->data;
    wf_attention_spec s = {.causal = causal, .scale = h->unit ? 1 : 0};
    if (!is_relu(o)) return s;
    s.normaliser = WF_NORMALISE_NONE;
    s.score = WF_SCORE_RELU;
    return s;
}

/* Turn by the position in the block: rows 0.. of x when pos is NULL. */
static wf_status turn(wf_build *b, wf_module *m, wf_node *pos, wf_node **q, wf_node **k) {
    const wf_heads *h = m->data;
    if (!h->position->part->rotate) return WF_OK;
    wf_node *before = b->pos;
    b->pos = pos;
    wf_status s = h->position->part->rotate(b, h->position, q, k);
    b->pos = before;
    return s;
}

/* int32 [B n]: how many keys of each block count; NULL: all. `valid` [B] or NULL: L. */
static wf_node *keys_of_blocks(wf_build *b, int64_t B, int64_t L, int64_t n, int64_t w) {
    wf_graph *g = b->g;
    wf_node *valid =
        b->lengths ? wf_unsqueeze(g, wf_cast(g, b->lengths, WF_F32), 1) : wf_fill(g, WF_F32, WF_SHAPE(B, 1), (double)L);
    wf_node *first = wf_mul_c(g, wf_index(g, WF_F32, WF_SHAPE(1, n), 1), (double)w);
    wf_node *count = wf_clamp(g, wf_sub(g, valid, first), 0, (double)w);
    return wf_cast(g, wf_reshape(g, count, WF_SHAPE(B * n)), WF_I32);
}

/* Blocks of q, k, v [B,L,H,d] as a batch of their own: [B,L,H,d]. */
static wf_node *blocks(wf_build *b, wf_module *m, wf_node *q, wf_node *k, wf_node *v) {
    const options *o = m->opt;
    const wf_heads *h = m->data;
    wf_graph *g = b->g;
    if (!q || !k || !v) return NULL;
    int64_t B = q->shape.dim[0], L = q->shape.dim[1], w = o->block, d = h->d;
    bool tail_seen = !b->causal && !is_relu(o) && !o->mask_tail;
    if (L < w && !tail_seen) w = L;
    int64_t n = (L + w - 1) / w, fill = n * w - L;
    wf_node **x[3] = {&q, &k, &v};
    for (int i = 0; i < 3; i++) {
        if (fill) *x[i] = wf_pad(g, *x[i], 1, 0, fill, 0);
        *x[i] = wf_reshape(g, *x[i], WF_SHAPE(B * n, w, i ? h->K : h->H, d));
    }
    if (turn(b, m, NULL, &q, &k) != WF_OK) return NULL;
    wf_attention_spec s = spec_of(m, b->causal);
    if (!b->causal && !is_relu(o) && o->mask_tail && (fill || b->lengths)) s.lengths = keys_of_blocks(b, B, L, n, w);
    wf_node *weights = NULL, *y = b->plain ? wf_attention_plain(g, q, k, v, &s, &weights) : wf_attention(g, q, k, v, &s);
    wf_tap(b, m, "weights", weights); /* [B n,H,w,w] */
    y = y ? wf_reshape(g, y, WF_SHAPE(B, n * w, h->H, d)) : NULL;
    return fill ? wf_slice(g, y, 1, 0, L) : y;
}

/* ---- step: keys and values of the block so far, row = position in the block, keys as projected ---- */

/* float [1]: pos mod w */
static wf_node *in_block(wf_build *b, int64_t w) {
    wf_graph *g = b->g;
    wf_node *p = wf_cast(g, b->pos, WF_F32);
    return wf_sub(g, p, wf_mul_c(g, wf_floor(g, wf_mul_c(g, wf_add_c(g, p, 0.5), 1.0 / (double)w)), (double)w));
}

static wf_node *cache(wf_build *b, wf_module *m, const char *name, const wf_node *x, int64_t w) {
    return wf_state(b, m, name, x->dtype, WF_SHAPE(x->shape.dim[0], w, x->shape.dim[2], x->shape.dim[3]));
}

static wf_node *step_one(wf_build *b, wf_module *m, wf_node *q, wf_node *k, wf_node *v, int64_t w) {
    wf_graph *g = b->g;
    int64_t B = q->shape.dim[0];
    wf_node *r = in_block(b, w), *none = NULL;
    k = wf_cache_write(g, cache(b, m, "k", k, w), k, b->pos, true);
    v = wf_cache_write(g, cache(b, m, "v", v, w), v, b->pos, true);
    if (turn(b, m, wf_cast(g, r, WF_I32), &q, &none) != WF_OK || turn(b, m, NULL, &none, &k) != WF_OK) return NULL;
    wf_attention_spec s = spec_of(m, false);
    s.lengths = wf_cast(g, wf_add(g, wf_fill(g, WF_F32, WF_SHAPE(B), 1), r), WF_I32);
    return wf_attention(g, q, k, v, &s);
}

/* Rows `at` (float [n]) of axis 1. */
static wf_node *rows(wf_graph *g, wf_node *x, wf_node *at) {
    wf_node *y = x && at ? wf_gather(g, wf_transpose(g, x, 0, 1), wf_cast(g, at, WF_I32)) : NULL;
    return y ? wf_transpose(g, y, 0, 1) : NULL;
}

/* Cache and new tokens as whole blocks, the first of them the block that b->pos lies in: [B,F,H,d]. The cache then takes the
 * last tokens; they are cut from the concatenation, so that nothing is overwritten before it is read. */
static wf_node *frame(wf_build *b, wf_module *m, const char *name, wf_node *x, wf_node *r, int64_t F, int64_t w) {
    wf_graph *g = b->g;
    int64_t T = x->shape.dim[1], n = T < w ? T : w;
    wf_node *old = cache(b, m, name, x, w);
    wf_node *both = wf_concat(g, (wf_node *[]){old, x}, 2, 1);
    wf_node *f = wf_index(g, WF_F32, WF_SHAPE(F), 0),
            *new = wf_min_c(g, wf_add_c(g, wf_sub(g, f, r), (double)w), (double)(w + T - 1));
    wf_node *at = wf_cast(g, wf_add_c(g, wf_cast(g, b->pos, WF_F32), (double)(T - n)), WF_I32);
    wf_node *write = wf_cache_write(g, old, wf_slice(g, both, 1, w + T - n, n), at, true);
    if (wf_keep(b, NULL, write) != WF_OK) return NULL;
    return rows(g, both, wf_where(g, wf_lt(g, f, r), f, new));
}

static wf_node *step_many(wf_build *b, wf_module *m, wf_node *q, wf_node *k, wf_node *v, int64_t w) {
    wf_graph *g = b->g;
    int64_t T = q->shape.dim[1], F = (w - 1 + T + w - 1) / w * w;
    wf_node *r = in_block(b, w);
    k = frame(b, m, "k", k, r, F, w);
    v = frame(b, m, "v", v, r, F, w);
    wf_node *f = wf_sub(g, wf_index(g, WF_F32, WF_SHAPE(F), 0), r);
    q = rows(g, q, wf_clamp(g, f, 0, (double)(T - 1)));
    wf_node *y = blocks(b, m, q, k, v);
    return rows(g, y, wf_add(g, wf_index(g, WF_F32, WF_SHAPE(T), 0), r));
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    wf_node *q, *k, *v, *y;
    if (b->score_bias)
        return wf_graph_fail(g, WF_EUNSUPPORTED, "%s: a mask over pairs of tokens has no place in blocks; take lengths",
                             m->name);
    if (wf_heads_split(b, m, x, x, &q, &k, &v) != WF_OK) return NULL;
    if (b->step) {
        if (!b->pos) return wf_graph_fail(g, WF_EINVAL, "%s: the step form needs wf_build.pos", m->name);
        y = x->shape.dim[1] == 1 ? step_one(b, m, q, k, v, o->block) : step_many(b, m, q, k, v, o->block);
    } else {
        wf_node *keep = b->causal ? NULL : wf_keep_mask(b, x);
        if (keep) {
            keep = wf_as(b, wf_reshape(g, keep, WF_SHAPE(keep->shape.dim[0], keep->shape.dim[1], 1, 1)), b->compute);
            k = wf_mul(g, k, keep);
            v = wf_mul(g, v, keep);
        }
        y = blocks(b, m, q, k, v);
    }
    return wf_srms_merge(b, m, y, norm_eps(o));
}

const wf_part wf_mixer_diag_attention = {
    .slot = "mixer",
    .name = "diag-attention",
    .title = "DiagAttention: attention within blocks, weights by relu or softmax (TransNormer)",
    .paper = "Qin, Han, Sun, Li, Kong, Barnes, Zhong: The Devil in Linear Transformer, 2022, arXiv 2210.10340",
    .sheet = "09",
    .formula =
        "S = q k^T/sqrt(d) within each block of w tokens, positions counted in the block\n"
        "relu: o = relu(S) v, y = W_o srms(concat_heads o) + b_o;  softmax: o = softmax(S) v, y = W_o concat_heads(o) + b_o",
    .facts =
        "Nothing passes from block to block: for the lower layers, below mixers that see everything.\n"
        "relu makes rows of exactly 0 (all visible scores negative); the norm's derivative is 0 / eps there: clip gradients.\n"
        "Seen both ways with softmax, the zeros that fill the last block count as keys unless mask_tail hides them.",
    .cost = "8 D D FLOPs a token for the linears, 4 w D for scores and values (half if causal); cache 2 w D numbers",
    .golden = "mixer.diag-attention",
    .options = table,
    .opt_size = sizeof(options),
    .causal_ok = true,
    .bidirectional_ok = true,
    .setup = setup,
    .forward = forward,
    .step = forward,
    .readers = "q k v",
    .writers = "o",
};
