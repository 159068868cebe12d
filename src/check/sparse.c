/* sparse.c: cases of attention over fewer pairs: Linformer, Longformer, BigBird, Performer, Reformer's LSH. */
#include "check/case.h"
#include "part/mixer/sparse.h"

#include <string.h>

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
    wf_node *q = project(c, "to_q", x, H), *k = wf_linformer_shorten(g, E, project(c, "to_k", x, 0), NULL),
            *v = wf_linformer_shorten(g, F, project(c, "to_v", x, 0), NULL);
    if (!q || !k || !v) return graph_error(c);
    int64_t B = x->shape.dim[0], d = q->shape.dim[3], S = E->shape.dim[1];
    if (k->shape.dim[2] != H * d || v->shape.dim[2] % H) return wf_case_fail(c, "to_k and to_v must have the rows of to_q");
    wf_attention_spec s = {0};
    wf_node *o = wf_attention(g, q, wf_reshape(g, k, WF_SHAPE(B, S, H, d)),
                              wf_reshape(g, v, WF_SHAPE(B, S, H, v->shape.dim[2] / H)), &s);
    wf_case_out(c, "y", project(c, "to_out", merge(g, o), 0));
    return wf_case_solve(c);
}

/* ---- visible sets ---- */

/* What a spec shows, 1 or 0, [1,H,L,L]: the weights of equal scores. */
static wf_node *visible(wf_graph *g, int64_t H, int64_t L, const wf_attention_spec *s) {
    wf_node *none = wf_fill(g, WF_F32, WF_SHAPE(1, L, H, 1), 0), *weights = NULL;
    wf_attention_plain(g, none, none, none, s, &weights);
    return weights ? wf_lt(g, wf_fill(g, WF_F32, WF_SHAPE(1), 0), weights) : NULL;
}

static wf_status dense_fits(wf_case *c, int64_t H, int64_t L) {
    if (H * L * L <= 1 << 26) return WF_OK;
    return wf_case_fail(c, "out.mask of %lld tokens is too much for a dense check", (long long)L);
}

/* ---- attention.longformer ---- */

static wf_status read_globals(wf_case *c, int64_t L, wf_tensor **globals) {
    const wf_value *v = wf_case_key(c, "global_tokens");
    *globals = NULL;
    if (v && v->kind != WF_V_LIST) return wf_case_fail(c, "config: 'global_tokens' must be a list");
    bool *is = v && v->n ? wf_arena_alloc(c->arena, (size_t)L) : NULL;
    int64_t n = 0, at;
    for (int i = 0; is && i < v->n; i++) {
        if (wf_value_int(v->item[i], &at) != WF_OK || at < 0 || at >= L)
            return wf_case_fail(c, "config: 'global_tokens' must be positions below %lld", (long long)L);
        n += !is[at];
        is[at] = true;
    }
    if (!n) return WF_OK;
    if (!(*globals = wf_tensor_new(WF_I32, WF_SHAPE(n)))) return WF_ENOMEM;
    for (int64_t i = 0, k = 0; i < L; i++)
        if (is[i]) wf_tensor_set(*globals, k++, (double)i);
    return WF_OK;
}

static wf_status longformer(wf_case *c) {
    wf_graph *g = c->graph;
    wf_node *x = NULL;
    int64_t H = 0, L = 0, w;
    WF_TRY(read_x(c, &x, &H, &L));
    WF_TRY(wf_case_int(c, "one_sided_window", 0, &w));
    if (w < 0) return wf_case_fail(c, "config: 'one_sided_window' must not be negative");
    if (wf_case_has(c, "out.mask")) WF_TRY(dense_fits(c, 1, L));
    wf_tensor *globals;
    WF_TRY(read_globals(c, L, &globals));
    wf_node *list = globals ? wf_case_constant(c, "global tokens", globals) : NULL;
    wf_longformer s = {.window = w, .globals = globals};
    wf_node *o = wf_longformer_near(g, project(c, "q_proj", x, H), project(c, "k_proj", x, H), project(c, "v_proj", x, H), &s);
    bool far = globals || wf_case_has(c, "param.q_global.weight"); /* there, but without a global token of no effect */
    wf_node *q = far ? project(c, "q_global", x, H) : NULL, *k = far ? project(c, "k_global", x, H) : NULL,
            *v = far ? project(c, "v_global", x, H) : NULL;
    if (globals) o = wf_longformer_join(g, o, wf_longformer_far(g, wf_longformer_rows(g, q, &s), k, v, &s), &s);
    wf_case_out(c, "y", project(c, "out_proj", merge(g, o), 0));
    if (wf_case_has(c, "out.mask")) {
        wf_attention_spec near = {.window_back = w + 1, .window_forward = w + 1, .globals = list};
        wf_case_out(c, "mask", wf_reshape(g, visible(g, 1, L, &near), WF_SHAPE(L, L)));
    }
    return wf_case_solve(c);
}

/* ---- attention.bigbird (ITC) ---- */

static wf_status read_links(wf_case *c, int64_t H, int64_t nb, int64_t R, wf_node **links) {
    *links = NULL;
    if (!R) return WF_OK;
    wf_tensor *t = wf_case_read(c, "in.rand_blocks", WF_I32);
    if (!t) return WF_EFORMAT;
    bool fits = wf_shape_equal(&t->shape, &WF_SHAPE(H, nb - 2, R));
    for (int64_t i = 0; fits && i < wf_tensor_count(t); i++) {
        double k = wf_tensor_get(t, i);
        if (k >= 0 && k < (double)nb) continue;
        wf_tensor_free(t);
        return wf_case_fail(c, "in.rand_blocks has block %g of %lld", k, (long long)nb);
    }
    if (!fits) {
        wf_tensor_free(t);
        return wf_case_fail(c, "in.rand_blocks must be [%lld,%lld,%lld]", (long long)H, (long long)(nb - 2), (long long)R);
    }
    *links = wf_case_constant(c, "random blocks", t);
    return *links ? WF_OK : graph_error(c);
}

static wf_status bigbird(wf_case *c) {
    wf_graph *g = c->graph;
    wf_node *x = NULL;
    int64_t H = 0, L = 0, block, R;
    WF_TRY(read_x(c, &x, &H, &L));
    WF_TRY(wf_case_int(c, "block", 1, &block));
    WF_TRY(wf_case_int(c, "random_blocks", 0, &R));
    if (block < 1 || L % block || L / block < 3 || R < 0)
        return wf_case_fail(c, "config: a length of %lld must be at least three blocks of 'block' %lld", (long long)L,
                            (long long)block);
    wf_attention_spec s = {.block = block};
    WF_TRY(read_links(c, H, L / block, R, &s.links));
    wf_node *o = wf_attention(g, project(c, "q_proj", x, H), project(c, "k_proj", x, H), project(c, "v_proj", x, H), &s);
    wf_case_out(c, "y", project(c, "out_proj", merge(g, o), 0));
    if (wf_case_has(c, "out.mask")) {
        WF_TRY(dense_fits(c, H, L));
        wf_case_out(c, "mask", wf_reshape(g, visible(g, H, L, &s), WF_SHAPE(H, L, L)));
    }
    return wf_case_solve(c);
}

/* ---- attention.performer (FAVOR+) ---- */

static wf_status performer(wf_case *c) {
    wf_graph *g = c->graph;
    wf_favor f = {0};
    double eps;
    bool causal;
    static const char *const kernels[] = {"softmax", "softmax", "relu", "relu", NULL};
    const char *kernel;
    wf_node *q = wf_case_in(c, "q"), *k = wf_case_in(c, "k"), *v = wf_case_in(c, "v"), *w = wf_case_param(c, "projection");
    if (!q || !k || !v || !w) return graph_error(c);
    WF_TRY(wf_case_choice(c, "kernel", kernels, "softmax", &kernel));
    f.relu = !strcmp(kernel, "relu");
    WF_TRY(wf_case_real(c, "eps_feature", f.relu ? 1e-3 : 1e-4, &f.eps));
    WF_TRY(wf_case_bool(c, "causal", false, &causal));
    WF_TRY(wf_case_real(c, "eps_denominator", causal ? 1e-6 : 0, &eps));
    if (q->shape.rank != 4 || k->shape.rank != 4 || v->shape.rank != 4 || w->shape.rank != 2 ||
        w->shape.dim[1] != q->shape.dim[3])
        return wf_case_fail(c, "in.q, in.k, in.v must be [B,H,L,d] and param.projection [M,d]");
    WF_TRY(wf_case_same(c, "features", w->shape.dim[0]));
    wf_node *bq = wf_favor_bare(g, wf_transpose(g, q, 1, 2), w, &f, false, NULL),
            *bk = wf_favor_bare(g, wf_transpose(g, k, 1, 2), w, &f, true, NULL);
    if (!bq || !bk) return graph_error(c);
    wf_case_out(c, "q_feat", wf_transpose(g, wf_favor_features(g, bq, &f, NULL), 1, 2));
    wf_case_out(c, "k_feat", wf_transpose(g, wf_favor_features(g, bk, &f, NULL), 1, 2));
    wf_node *o = wf_favor_attention(g, bq, bk, wf_transpose(g, v, 1, 2), &f, causal, eps, NULL, NULL, NULL);
    wf_case_out(c, "o", o ? wf_transpose(g, o, 1, 2) : NULL);
    return wf_case_solve(c);
}

/* ---- attention.reformer-lsh: one head, queries are keys ---- */

static wf_status read_lsh(wf_case *c, wf_lsh *s) {
    WF_TRY(wf_case_int(c, "bucket_size", 0, &s->bucket));
    WF_TRY(wf_case_int(c, "n_hashes", 1, &s->hashes));
    WF_TRY(wf_case_bool(c, "causal", false, &s->causal));
    WF_TRY(wf_case_bool(c, "attend_across_buckets", true, &s->across));
    WF_TRY(wf_case_bool(c, "allow_duplicates", true, &s->duplicates));
    WF_TRY(wf_case_real(c, "self_value", -5e4, &s->self));
    if (s->hashes < 1 || s->hashes > 64) return wf_case_fail(c, "config: 'n_hashes' must be 1 to 64");
    return WF_OK;
}

static wf_status reformer(wf_case *c) {
    wf_graph *g = c->graph;
    wf_lsh s = {0};
    wf_node *qk = wf_case_in(c, "qk"), *v = wf_case_in(c, "v"), *R = wf_case_in(c, "rotations"), *buckets = NULL;
    if (!qk || !v || !R) return graph_error(c);
    WF_TRY(read_lsh(c, &s));
    if (qk->shape.rank != 3 || v->shape.rank != 3 || R->shape.rank != 4)
        return wf_case_fail(c, "in.qk, in.v must be [B,L,d], in.rotations [1,d,n,NB/2]");
    int64_t B = qk->shape.dim[0], L = qk->shape.dim[1], d = qk->shape.dim[2], e = v->shape.dim[2];
    if (s.bucket < 1 || L % (2 * s.bucket))
        return wf_case_fail(c, "the length %lld must be a multiple of two buckets of %lld", (long long)L, (long long)s.bucket);
    int64_t NB = wf_lsh_buckets(L, s.bucket);
    if (R->shape.dim[1] != d || R->shape.dim[2] != s.hashes || R->shape.dim[3] * 2 != NB)
        return wf_case_fail(c, "in.rotations must be [1,d,n_hashes,L/bucket_size/2]");
    s.rotations = wf_squeeze(g, R, 0);
    wf_node *o =
        wf_lsh_attention(g, wf_reshape(g, qk, WF_SHAPE(B, L, 1, d)), wf_reshape(g, v, WF_SHAPE(B, L, 1, e)), &s, &buckets);
    if (!o) return graph_error(c);
    wf_node *round = wf_mul_c(g, wf_index(g, WF_F32, WF_SHAPE(1, 1, s.hashes, 1), 2), (double)NB);
    wf_case_out(c, "buckets", wf_reshape(g, wf_add(g, buckets, round), WF_SHAPE(B, s.hashes * L)));
    wf_case_out(c, "o", wf_reshape(g, o, WF_SHAPE(B, L, e)));
    return wf_case_solve(c);
}

/* clang-format off */
const wf_adapter wf_adapters_sparse[] = {
    {"attention.linformer", linformer, "B L D"}, {"attention.longformer", longformer, "B L D"},   {"attention.bigbird", bigbird, "B L D"},
    {"attention.performer", performer, "B H L d"}, {"attention.reformer-lsh", reformer, "B L d"}, {0},
};
/* clang-format on */
