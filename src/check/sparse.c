/* sparse.c: cases of attention over fewer pairs: Linformer, Longformer, BigBird, Performer, Reformer's LSH. */
#include "check/case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double hidden_score = -1e30; /* far below any score: a weight of exactly 0 beside a visible one */

static wf_status graph_error(const wf_case *c) {
    return wf_fail(WF_EFORMAT, "%s", wf_graph_message(c->graph));
}

/* x W^T (+ b) with param.<name>.weight and .bias, split into H heads: [B,L,H,d]. */
static wf_node *project(wf_case *c, const char *name, wf_node *x, int64_t H) {
    char *w = wf_arena_format(c->arena, "%s.weight", name), *b = wf_arena_format(c->arena, "%s.bias", name);
    wf_node *y = w && b ? wf_linear(c->graph, x, wf_case_param(c, w), wf_case_param_or_null(c, b)) : NULL;
    if (!y || H == 0) return y;
    int64_t D = y->shape.dim[2];
    if (D % H)
        return wf_graph_fail(c->graph, WF_EINVAL, "config: 'heads' %lld must divide the %lld rows of %s", (long long)H,
                             (long long)D, name);
    return wf_reshape(c->graph, y, WF_SHAPE(y->shape.dim[0], y->shape.dim[1], H, D / H));
}

static wf_node *merge(wf_graph *g, wf_node *o) {
    return o ? wf_reshape(g, o, WF_SHAPE(o->shape.dim[0], o->shape.dim[1], o->shape.dim[2] * o->shape.dim[3])) : NULL;
}

static wf_status read_x(wf_case *c, wf_node **x, int64_t *H, int64_t *L) {
    WF_TRY(wf_case_int(c, "heads", 0, H));
    if (*H < 1) return wf_case_fail(c, "config: 'heads' must be at least 1");
    *x = wf_case_in(c, "x");
    if (!*x) return graph_error(c);
    if ((*x)->shape.rank != 3) return wf_case_fail(c, "in.x must be [B,L,D]");
    *L = (*x)->shape.dim[1];
    return WF_OK;
}

/* ---- attention.linformer ---- */

/* E[0:L]^T x: [B,k,D] */
static wf_node *shorten(wf_graph *g, wf_node *E, wf_node *x, int64_t L) {
    return wf_matmul(g, wf_slice(g, E, 0, 0, L), x, true, false);
}

static wf_status linformer(wf_case *c) {
    wf_graph *g = c->graph;
    wf_node *x = NULL;
    int64_t H = 0, L = 0;
    WF_TRY(read_x(c, &x, &H, &L));
    wf_node *E = wf_case_param(c, "proj_k"), *F = wf_case_param_or_null(c, "proj_v");
    if (!E) return graph_error(c);
    if (!F) F = E;
    WF_TRY(wf_case_same(c, "max_length", E->shape.dim[0]));
    WF_TRY(wf_case_same(c, "k", E->shape.dim[1]));
    WF_TRY(wf_case_same(c, "length", L));
    if (L > E->shape.dim[0])
        return wf_case_fail(c, "a length of %lld is more than the %lld rows of proj_k", (long long)L,
                            (long long)E->shape.dim[0]);
    wf_node *q = project(c, "to_q", x, H), *k = shorten(g, E, project(c, "to_k", x, 0), L),
            *v = shorten(g, F, project(c, "to_v", x, 0), L);
    if (!q || !k || !v) return graph_error(c);
    int64_t B = x->shape.dim[0], d = q->shape.dim[3], S = E->shape.dim[1];
    if (k->shape.dim[2] != H * d || v->shape.dim[2] % H) return wf_case_fail(c, "to_k and to_v must have the rows of to_q");
    wf_attention_spec s = {0};
    wf_node *o = wf_attention(g, q, wf_reshape(g, k, WF_SHAPE(B, S, H, d)),
                              wf_reshape(g, v, WF_SHAPE(B, S, H, v->shape.dim[2] / H)), &s);
    wf_case_out(c, "y", project(c, "to_out", merge(g, o), 0));
    return wf_case_solve(c);
}

/* ---- masks as additive scores ---- */

/* The mask's leaf, 1 where visible, and the same as scores in the working type. */
static wf_node *as_scores(wf_case *c, wf_tensor *mask, wf_node **leaf) {
    wf_graph *g = c->graph;
    *leaf = wf_case_constant(c, "visible", mask);
    wf_node *hidden = wf_add_c(g, wf_neg(g, *leaf), 1);
    return wf_cast(g, wf_mul_c(g, hidden, hidden_score), c->f64 ? WF_F64 : WF_F32);
}

/* ---- attention.longformer ---- */

static wf_status read_globals(wf_case *c, int64_t L, wf_tensor *is_global) {
    const wf_value *v = wf_case_key(c, "global_tokens");
    if (v && v->kind != WF_V_LIST) return wf_case_fail(c, "config: 'global_tokens' must be a list");
    for (int i = 0; v && i < v->n; i++) {
        int64_t at;
        if (wf_value_int(v->item[i], &at) != WF_OK || at < 0 || at >= L)
            return wf_case_fail(c, "config: 'global_tokens' must be positions below %lld", (long long)L);
        wf_tensor_set(is_global, at, 1);
    }
    return WF_OK;
}

static wf_status longformer(wf_case *c) {
    wf_graph *g = c->graph;
    wf_node *x = NULL, *seen;
    int64_t H = 0, L = 0, w;
    WF_TRY(read_x(c, &x, &H, &L));
    WF_TRY(wf_case_int(c, "one_sided_window", 0, &w));
    if (L > 1 << 12) return wf_case_fail(c, "a length of %lld is too much for a dense check", (long long)L);
    wf_tensor *global = wf_tensor_new(WF_F32, WF_SHAPE(1, L, 1, 1)), *mask = wf_tensor_new(WF_F32, WF_SHAPE(1, 1, L, L));
    wf_status s = global && mask ? read_globals(c, L, global) : WF_ENOMEM;
    for (int64_t i = 0; s == WF_OK && i < L; i++)
        for (int64_t j = 0; j < L; j++)
            if (llabs(i - j) <= w || wf_tensor_get(global, j) > 0) wf_tensor_set(mask, i * L + j, 1);
    if (s != WF_OK) {
        wf_tensor_free(global);
        wf_tensor_free(mask);
        return s;
    }
    wf_node *is_global = wf_case_constant(c, "global rows", global);
    wf_attention_spec near = {.bias = as_scores(c, mask, &seen)}, all = {0};
    wf_node *local = wf_attention(g, project(c, "q_proj", x, H), project(c, "k_proj", x, H), project(c, "v_proj", x, H), &near);
    wf_node *far =
        wf_attention(g, project(c, "q_global", x, H), project(c, "k_global", x, H), project(c, "v_global", x, H), &all);
    wf_node *o = wf_where(g, is_global, far, local);
    wf_case_out(c, "y", project(c, "out_proj", merge(g, o), 0));
    wf_case_out(c, "mask", wf_reshape(g, seen, WF_SHAPE(L, L)));
    return wf_case_solve(c);
}

/* ---- attention.bigbird (ITC) ---- */

static void open_block(wf_tensor *mask, int64_t L, int64_t block, int64_t h, int64_t row, int64_t col) {
    for (int64_t i = row * block; i < (row + 1) * block; i++)
        for (int64_t j = col * block; j < (col + 1) * block; j++) wf_tensor_set(mask, (h * L + i) * L + j, 1);
}

static wf_status bigbird_mask(wf_case *c, wf_tensor *mask, int64_t H, int64_t L, int64_t block, const wf_tensor *random,
                              int64_t R) {
    int64_t nb = L / block;
    for (int64_t h = 0; h < H; h++)
        for (int64_t r = 0; r < nb; r++) {
            bool border = r == 0 || r == nb - 1;
            for (int64_t k = 0; k < nb; k++)
                if (border || k == 0 || k == nb - 1 || llabs(k - r) <= 1) open_block(mask, L, block, h, r, k);
            for (int64_t i = 0; !border && i < R; i++) {
                double k = wf_tensor_get(random, (h * (nb - 2) + r - 1) * R + i);
                if (k < 0 || k >= (double)nb) return wf_case_fail(c, "in.rand_blocks has block %g of %lld", k, (long long)nb);
                open_block(mask, L, block, h, r, (int64_t)k);
            }
        }
    return WF_OK;
}

static wf_status bigbird(wf_case *c) {
    wf_graph *g = c->graph;
    wf_node *x = NULL, *seen;
    int64_t H = 0, L = 0, block, R;
    WF_TRY(read_x(c, &x, &H, &L));
    WF_TRY(wf_case_int(c, "block", 1, &block));
    WF_TRY(wf_case_int(c, "random_blocks", 0, &R));
    if (block < 1 || L % block || L / block < 3 || H * L * L > 1 << 26)
        return wf_case_fail(c, "config: a length of %lld must be at least three blocks of 'block' %lld", (long long)L,
                            (long long)block);
    wf_tensor *random = R ? wf_case_read(c, "in.rand_blocks", WF_I32) : NULL;
    if (R && !random) return WF_EFORMAT;
    if (random && wf_tensor_count(random) != H * (L / block - 2) * R) {
        wf_tensor_free(random);
        return wf_case_fail(c, "in.rand_blocks must be [%lld,%lld,%lld]", (long long)H, (long long)(L / block - 2),
                            (long long)R);
    }
    wf_tensor *mask = wf_tensor_new(WF_F32, WF_SHAPE(1, H, L, L));
    wf_status s = mask ? bigbird_mask(c, mask, H, L, block, random, R) : WF_ENOMEM;
    wf_tensor_free(random);
    if (s != WF_OK) {
        wf_tensor_free(mask);
        return s;
    }
    wf_attention_spec spec = {.bias = as_scores(c, mask, &seen)};
    wf_node *o = wf_attention(g, project(c, "q_proj", x, H), project(c, "k_proj", x, H), project(c, "v_proj", x, H), &spec);
    wf_case_out(c, "y", project(c, "out_proj", merge(g, o), 0));
    wf_case_out(c, "mask", wf_reshape(g, seen, WF_SHAPE(H, L, L)));
    return wf_case_solve(c);
}

/* ---- attention.performer (FAVOR+) ---- */

/* M^(-1/2) (exp(w.u - |u|^2/2 - max) + eps), u = z d^(-1/4); max over `axes` of w.u, a constant for the gradient. z [B,H,L,d] */
static wf_node *favor(wf_graph *g, wf_node *z, wf_node *w, unsigned axes, double eps) {
    if (!z || !w) return NULL;
    int64_t d = z->shape.dim[3], M = w->shape.dim[0];
    wf_node *u = wf_mul_c(g, z, pow((double)d, -0.25));
    wf_node *p = wf_matmul(g, u, w, false, true), *most = wf_stop_gradient(g, wf_amax(g, p, axes, true));
    wf_node *half = wf_mul_c(g, wf_sum(g, wf_square(g, u), 1u << 3, true), 0.5);
    wf_node *e = wf_exp(g, wf_sub(g, wf_sub(g, p, half), most));
    return wf_mul_c(g, wf_add_c(g, e, eps), 1 / sqrt((double)M));
}

static wf_status performer(wf_case *c) {
    wf_graph *g = c->graph;
    double eps_feature, eps;
    bool causal;
    wf_node *q = wf_case_in(c, "q"), *k = wf_case_in(c, "k"), *v = wf_case_in(c, "v"), *w = wf_case_param(c, "projection");
    if (!q || !k || !v || !w) return graph_error(c);
    WF_TRY(wf_case_real(c, "eps_feature", 1e-4, &eps_feature));
    WF_TRY(wf_case_bool(c, "causal", false, &causal));
    WF_TRY(wf_case_real(c, "eps_denominator", causal ? 1e-6 : 0, &eps));
    if (q->shape.rank != 4 || k->shape.rank != 4 || v->shape.rank != 4 || w->shape.rank != 2 ||
        w->shape.dim[1] != q->shape.dim[3])
        return wf_case_fail(c, "in.q, in.k, in.v must be [B,H,L,d] and param.projection [M,d]");
    WF_TRY(wf_case_same(c, "features", w->shape.dim[0]));
    wf_node *fq = favor(g, q, w, 1u << 3, eps_feature), *fk = favor(g, k, w, 1u << 2 | 1u << 3, eps_feature);
    wf_case_out(c, "q_feat", fq);
    wf_case_out(c, "k_feat", fk);
    int64_t e = v->shape.dim[3];
    wf_shape ones = v->shape;
    ones.dim[3] = 1;
    wf_node *v1 = wf_concat(g, (wf_node *[]){v, wf_fill(g, v->dtype, ones, 1)}, 2, 3), *o;
    if (causal)
        o = wf_transpose(
            g, wf_linear_scan(g, wf_transpose(g, fq, 1, 2), wf_transpose(g, fk, 1, 2), wf_transpose(g, v1, 1, 2), NULL, NULL),
            1, 2);
    else
        o = wf_matmul(g, fq, wf_matmul(g, fk, v1, true, false), false, false);
    wf_node *below = wf_add(g, wf_slice(g, o, 3, e, 1), wf_mul_c(g, wf_sum(g, fq, 1u << 3, true), eps)); /* q.(z + eps) */
    wf_case_out(c, "o", wf_div(g, wf_slice(g, o, 3, 0, e), below));
    return wf_case_solve(c);
}

/* ---- attention.reformer-lsh: one head, queries are keys ---- */

typedef struct lsh {
    int64_t B, L, d, e, c, n, NB; /* c bucket size, n hashes, NB buckets */
    bool causal, across;
    double self;
} lsh;

/* float [B, n L]: bucket + hash NB */
static wf_node *buckets(wf_graph *g, const lsh *s, wf_node *qk, wf_node *rotations) {
    wf_node *R = wf_permute(g, rotations, (const int[]){0, 2, 1, 3}); /* [1,n,d,NB/2] */
    wf_node *p = wf_matmul(g, wf_unsqueeze(g, qk, 1), R, false, false);
    wf_node *best = wf_argmax(g, wf_concat(g, (wf_node *[]){p, wf_neg(g, p)}, 2, 3)); /* [B,n,L] */
    wf_node *hash = wf_index(g, WF_F32, WF_SHAPE(1, s->n, 1), 1);
    wf_node *b = wf_add(g, wf_cast(g, best, WF_F32), wf_mul_c(g, hash, (double)s->NB));
    return wf_reshape(g, b, WF_SHAPE(s->B, s->n * s->L));
}

/* Rows of x [B,R,d] by float positions [B,N] (below R): [B,N,d] */
static wf_node *rows(wf_graph *g, wf_node *x, wf_node *at) {
    if (!x || !at) return NULL;
    int64_t B = x->shape.dim[0], R = x->shape.dim[1], d = x->shape.dim[2];
    wf_node *first = wf_mul_c(g, wf_index(g, WF_F32, WF_SHAPE(B, 1), 0), (double)R);
    return wf_gather(g, wf_reshape(g, x, WF_SHAPE(B * R, d)), wf_cast(g, wf_add(g, at, first), WF_I32));
}

/* [B,chunks,c,w] -> [B,chunks,2c,w]: each chunk and the one before it, the first one's being the last. */
static wf_node *look_back(wf_graph *g, wf_node *x) {
    if (!x) return NULL;
    int64_t n = x->shape.dim[1];
    wf_node *before = wf_concat(g, (wf_node *[]){wf_slice(g, x, 1, n - 1, 1), wf_slice(g, x, 1, 0, n - 1)}, 2, 1);
    return wf_concat(g, (wf_node *[]){x, before}, 2, 2);
}

static wf_node *chunks(wf_graph *g, const lsh *s, wf_node *x, int64_t w) {
    return wf_reshape(g, x, WF_SHAPE(s->B, s->n * s->NB, s->c, w));
}

/* Scores [B,chunks,c,2c] with their masks; at, bucket: float [B, n L] of the sorted entries. */
static wf_node *scores(wf_graph *g, const lsh *s, wf_node *sorted, wf_node *at, wf_node *bucket) {
    wf_node *length = wf_max_c(g, wf_sum(g, wf_square(g, sorted), 1u << 2, true), 1e-24);
    wf_node *k = look_back(g, chunks(g, s, wf_mul(g, sorted, wf_rsqrt(g, length)), s->d));
    wf_node *dots = wf_mul_c(g, wf_matmul(g, chunks(g, s, sorted, s->d), k, false, true), 1 / sqrt((double)s->d));
    wf_node *tq = chunks(g, s, at, 1), *tk = wf_transpose(g, look_back(g, tq), 2, 3);
    wf_dtype t = dots ? dots->dtype : WF_F32;
    if (s->causal) dots = wf_where(g, wf_lt(g, tq, tk), wf_fill(g, t, WF_SHAPE(1), hidden_score), dots);
    dots = wf_where(g, wf_eq(g, tq, tk), wf_fill(g, t, WF_SHAPE(1), s->self), dots);
    if (s->across) return dots;
    wf_node *bq = chunks(g, s, bucket, 1), *bk = wf_transpose(g, look_back(g, bq), 2, 3);
    return wf_where(g, wf_ne(g, bq, bk), wf_fill(g, t, WF_SHAPE(1), hidden_score), dots);
}

static wf_status attend(wf_case *c, const lsh *s, wf_node *qk, wf_node *v, wf_node *rotations) {
    wf_graph *g = c->graph;
    int64_t N = s->n * s->L;
    wf_node *bucket = buckets(g, s, qk, rotations);
    wf_case_out(c, "buckets", bucket);
    wf_node *ticket = wf_index(g, WF_F32, WF_SHAPE(1, N), 1);
    wf_node *turn = wf_mul_c(g, wf_floor(g, wf_mul_c(g, wf_add_c(g, ticket, 0.5), 1.0 / (double)s->L)), (double)s->L);
    wf_node *position = wf_sub(g, ticket, turn); /* ticket mod L */
    wf_node *key = wf_add(g, wf_mul_c(g, bucket, (double)s->L), position);
    wf_node *order = wf_argsort(g, key, false), *undo = wf_argsort(g, wf_cast(g, order, WF_F32), false);
    wf_node *of = wf_cast(g, order, WF_F32);
    wf_node *at = wf_sub(g, of, wf_mul_c(g, wf_floor(g, wf_mul_c(g, wf_add_c(g, of, 0.5), 1.0 / (double)s->L)), (double)s->L));
    wf_node *sorted_bucket = wf_take(g, bucket, order);
    wf_node *dots = scores(g, s, rows(g, qk, at), at, sorted_bucket);
    wf_node *lse = wf_logsumexp(g, dots, true);
    wf_node *o = wf_matmul(g, wf_exp(g, wf_sub(g, dots, lse)), look_back(g, chunks(g, s, rows(g, v, at), s->e)), false, false);
    wf_node *back = wf_cast(g, undo, WF_F32);
    wf_node *oh = wf_reshape(g, rows(g, wf_reshape(g, o, WF_SHAPE(s->B, N, s->e)), back), WF_SHAPE(s->B, s->n, s->L, s->e));
    wf_node *lh = wf_reshape(g, rows(g, wf_reshape(g, lse, WF_SHAPE(s->B, N, 1)), back), WF_SHAPE(s->B, s->n, s->L, 1));
    wf_node *most = wf_stop_gradient(g, wf_amax(g, lh, 1u << 1, true));
    wf_node *share = wf_exp(g, wf_sub(g, lh, most));
    share = wf_div(g, share, wf_sum(g, share, 1u << 1, true));
    wf_case_out(c, "o", wf_sum(g, wf_mul(g, oh, share), 1u << 1, false));
    return wf_case_solve(c);
}

static wf_status reformer(wf_case *c) {
    lsh s = {0};
    bool duplicates;
    wf_node *qk = wf_case_in(c, "qk"), *v = wf_case_in(c, "v"), *R = wf_case_in(c, "rotations");
    if (!qk || !v || !R) return graph_error(c);
    WF_TRY(wf_case_int(c, "bucket_size", 0, &s.c));
    WF_TRY(wf_case_int(c, "n_hashes", 1, &s.n));
    WF_TRY(wf_case_bool(c, "causal", false, &s.causal));
    WF_TRY(wf_case_bool(c, "attend_across_buckets", true, &s.across));
    WF_TRY(wf_case_bool(c, "allow_duplicates", true, &duplicates));
    WF_TRY(wf_case_real(c, "self_value", -5e4, &s.self));
    if (!duplicates) return wf_case_fail(c, "config: 'allow_duplicates' false is not built");
    if (qk->shape.rank != 3 || v->shape.rank != 3 || R->shape.rank != 4)
        return wf_case_fail(c, "in.qk, in.v must be [B,L,d], in.rotations [1,d,n,NB/2]");
    s.B = qk->shape.dim[0], s.L = qk->shape.dim[1], s.d = qk->shape.dim[2], s.e = v->shape.dim[2];
    if (s.c < 1 || s.n < 1 || s.L % (2 * s.c))
        return wf_case_fail(c, "the length %lld must be a multiple of two buckets of %lld", (long long)s.L, (long long)s.c);
    s.NB = s.L / s.c;
    if (R->shape.dim[1] != s.d || R->shape.dim[2] != s.n || R->shape.dim[3] * 2 != s.NB)
        return wf_case_fail(c, "in.rotations must be [1,d,n_hashes,L/bucket_size/2]");
    if (s.n * s.NB * s.L > 1 << 24) return wf_case_fail(c, "sort keys above 2^24 would lose digits");
    return attend(c, &s, qk, v, R);
}

/* clang-format off */
const wf_adapter wf_adapters_sparse[] = {
    {"attention.linformer", linformer, "B L D"}, {"attention.longformer", longformer, "B L D"},   {"attention.bigbird", bigbird, "B L D"},
    {"attention.performer", performer, "B H L d"}, {"attention.reformer-lsh", reformer, "B L d"}, {0},
};
/* clang-format on */
