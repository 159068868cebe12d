/* attention_plain.c: attention as a composition of small operators: all L x S scores exist. It is the definition that the fused
 * operator is tested against, gives the weights, and carries second derivatives and the gradients of bias and slopes.
 *
 * Every visibility rule is a comparison between the key index j and the key position p_i of query i:
 *     causal j <= p_i; window p_i - back < j < p_i + forward; length j < lengths_b; packed start_n(i) <= j < end_n(i).
 */
#include "op/attention_plain.h"
#include "op/rows.h"

#include <math.h>

/* ---- checking ---- */
static bool shapes_fit(wf_graph *g, const wf_node *q, const wf_node *k, const wf_node *v) {
    char a[96], b[96], c[96];
    const int64_t *x = q->shape.dim, *y = k->shape.dim, *z = v->shape.dim;
    bool ok = q->shape.rank == 4 && k->shape.rank == 4 && v->shape.rank == 4;
    for (int i = 0; ok && i < 4; i++) ok = x[i] > 0 && y[i] > 0 && z[i] > 0;
    if (ok && x[0] == y[0] && y[0] == z[0] && y[1] == z[1] && y[2] == z[2] && x[3] == y[3] && x[2] % y[2] == 0) return true;
    wf_graph_fail(
        g, WF_EINVAL,
        "attention: q %s, k %s, v %s; q [B,L,H,d], k [B,S,K,d], v [B,S,K,e] expected, where K divides H and no axis is empty",
        wf_shape_text(&q->shape, a), wf_shape_text(&k->shape, b), wf_shape_text(&v->shape, c));
    return false;
}

static bool vector_fits(wf_graph *g, const char *name, const wf_node *x, wf_dtype t, int64_t n, const char *what) {
    char a[96];
    bool dtype = t == WF_I32 ? x->dtype == WF_I32 : wf_is_float(x->dtype);
    if (dtype && x->shape.rank == 1 && (n < 0 ? x->shape.dim[0] >= 2 : x->shape.dim[0] == n)) return true;
    wf_graph_fail(g, WF_EINVAL, "attention: %s must be %s %s, not %s %s", name, t == WF_I32 ? "int32" : "floating", what,
                  wf_dtype_name(x->dtype), wf_shape_text(&x->shape, a));
    return false;
}

static bool numbers_fit(wf_graph *g, const wf_attention_spec *s) {
    const char *wrong = NULL;
    if (s->window_back < 0 || s->window_forward < 0)
        wrong = "a window must not be negative (0: unlimited)";
    else if (!isfinite(s->scale) || !isfinite(s->score_bias))
        wrong = "scale and score_bias must be finite";
    else if (!(s->dropout >= 0 && s->dropout < 1))
        wrong = "dropout must be at least 0 and below 1";
    else if (s->dropout > 0 && !s->seed)
        wrong = "dropout needs a seed";
    else if ((unsigned)s->normaliser > WF_NORMALISE_NONE || (unsigned)s->score > WF_SCORE_RELU)
        wrong = "unknown normaliser or score";
    else if (s->window_block < 0 || s->block < 0)
        wrong = "blocks must not be negative";
    else if ((s->block || s->globals || s->tags_q) && (s->offsets_q || s->score != WF_SCORE_LINEAR))
        wrong = "patterns (globals, tags, blocks) exclude packed sequences and score functions";
    else if (!s->tags_q != !s->tags_k || (s->links && !s->block) ||
             (s->tags_q != NULL) + (s->globals != NULL) + (s->block > 0) > 1)
        wrong = "tags come in pairs, links with a block; globals, tags and blocks exclude each other";
    else if (s->block && (s->causal || s->window_back || s->window_forward || s->q_start))
        wrong = "blocks exclude causal, windows and q_start";
    else if (s->offsets_k && !s->offsets_q)
        wrong = "offsets_k without offsets_q";
    else if (s->offsets_q && (s->lengths || s->q_start))
        wrong = "packed sequences (offsets) exclude lengths and q_start";
    if (wrong) wf_graph_fail(g, WF_EINVAL, "attention: %s", wrong);
    return !wrong;
}

static bool patterns_fit(wf_graph *g, const wf_node *q, const wf_node *k, const wf_attention_spec *s) {
    char a[96];
    int64_t B = q->shape.dim[0], L = q->shape.dim[1], S = k->shape.dim[1], H = q->shape.dim[2];
    const wf_node *x[2] = {s->tags_q, s->tags_k};
    for (int i = 0; i < 2; i++)
        if (x[i] && (x[i]->dtype != WF_I32 || !wf_shape_equal(&x[i]->shape, &WF_SHAPE(B, i ? S : L))))
            return wf_graph_fail(g, WF_EINVAL, "attention: %s must be int32 %s, not %s %s", i ? "tags_k" : "tags_q",
                                 i ? "[B,S]" : "[B,L]", wf_dtype_name(x[i]->dtype), wf_shape_text(&x[i]->shape, a)),
                   false;
    if (s->globals && (s->globals->dtype != WF_I32 || s->globals->shape.rank != 1))
        return wf_graph_fail(g, WF_EINVAL, "attention: globals must be int32 [G], not %s %s", wf_dtype_name(s->globals->dtype),
                             wf_shape_text(&s->globals->shape, a)),
               false;
    if (!s->block) return true;
    if (L != S)
        return wf_graph_fail(g, WF_EINVAL, "attention: blocks need L = S (they are %lld, %lld)", (long long)L, (long long)S),
               false;
    int64_t n = (S + s->block - 1) / s->block;
    const wf_node *l = s->links;
    if (l && (l->dtype != WF_I32 || l->shape.rank != 3 || l->shape.dim[0] != H || l->shape.dim[1] < n - 2))
        return wf_graph_fail(g, WF_EINVAL, "attention: links must be int32 [%lld, %lld or more, R], not %s %s", (long long)H,
                             (long long)(n - 2), wf_dtype_name(l->dtype), wf_shape_text(&l->shape, a)),
               false;
    return true;
}

static bool options_fit(wf_graph *g, const wf_node *q, const wf_node *k, const wf_attention_spec *s) {
    char a[96];
    if (!numbers_fit(g, s)) return false;
    if (s->lengths && !vector_fits(g, "lengths", s->lengths, WF_I32, q->shape.dim[0], "[B]")) return false;
    if (s->q_start && !vector_fits(g, "q_start", s->q_start, WF_I32, 1, "[1]")) return false;
    if (s->offsets_q && !vector_fits(g, "offsets_q", s->offsets_q, WF_I32, -1, "[N+1]")) return false;
    if (s->offsets_k && !vector_fits(g, "offsets_k", s->offsets_k, WF_I32, s->offsets_q->shape.dim[0], "[N+1] as offsets_q"))
        return false;
    if (s->slopes && !vector_fits(g, "slopes", s->slopes, WF_F32, q->shape.dim[2], "[H]")) return false;
    if (s->seed && !vector_fits(g, "seed", s->seed, WF_I32, 4, "[4]")) return false;
    if (s->offsets_q && (q->shape.dim[0] != 1 || (!s->offsets_k && q->shape.dim[1] != k->shape.dim[1])))
        return wf_graph_fail(g, WF_EINVAL, "attention: packed sequences need B = 1 (q is %s) and, without offsets_k, L = S",
                             wf_shape_text(&q->shape, a)),
               false;
    if (!patterns_fit(g, q, k, s)) return false;
    if (s->bias && !wf_is_float(s->bias->dtype))
        return wf_graph_fail(g, WF_EINVAL, "attention: bias must be floating, not %s", wf_dtype_name(s->bias->dtype)), false;
    return true;
}

bool wf_attention_settle(wf_graph *g, wf_node **q, wf_node **k, wf_node **v, const wf_attention_spec *spec,
                         wf_attention_spec *s) {
    if (!*q || !*k || !*v || !shapes_fit(g, *q, *k, *v)) return false;
    *s = spec ? *spec : (wf_attention_spec){0};
    if (!options_fit(g, *q, *k, s)) return false;
    wf_dtype t = wf_promote(wf_promote((*q)->dtype, (*k)->dtype), (*v)->dtype), real = t == WF_F64 ? WF_F64 : WF_F32;
    if (!wf_is_float(t)) {
        wf_graph_fail(g, WF_EINVAL, "attention: q, k, v must be floating, not %s", wf_dtype_name(t));
        return false;
    }
    wf_node **x[3] = {q, k, v};
    for (int i = 0; i < 3; i++)
        if (!(*x[i] = wf_cast(g, *x[i], t))) return false;
    const int64_t *d = (*q)->shape.dim;
    if (s->scale == 0) s->scale = 1 / sqrt((double)d[3]);
    if (s->dropout == 0) s->seed = NULL, s->stream = 0;
    if (s->slopes && !(s->slopes = wf_cast(g, s->slopes, real))) return false;
    if (!s->bias) return true;
    s->bias = wf_expand(g, wf_cast(g, s->bias, real), WF_SHAPE(d[0], d[2], d[1], (*k)->shape.dim[1]));
    return s->bias != NULL;
}

/* ---- who sees whom ---- */
typedef struct visibility {
    wf_graph *g;
    wf_dtype t;
    wf_node *p, *j; /* [L,1] key positions of the queries, [1,S] key indices */
    wf_node *seen;  /* 1 or 0, broadcastable to [B,H,L,S]; NULL: everything */
} visibility;

static void narrow(visibility *w, wf_node *condition) {
    w->seen = w->seen ? wf_mul(w->g, w->seen, condition) : condition;
}

static wf_node *row_of(visibility *w, wf_node *x, int64_t start, int64_t n) { /* int32 [..] -> real [1,n] */
    return wf_reshape(w->g, wf_cast(w->g, wf_slice(w->g, x, 0, start, n), w->t), WF_SHAPE(1, n));
}

/* Packed sequences: sum over n of (query i is of sequence n) * number of n */
static void see_packed(visibility *w, const wf_attention_spec *s, wf_node *i) {
    wf_graph *g = w->g;
    int64_t n = s->offsets_q->shape.dim[0] - 1;
    wf_node *offsets_k = s->offsets_k ? s->offsets_k : s->offsets_q;
    wf_node *q0 = row_of(w, s->offsets_q, 0, n), *q1 = row_of(w, s->offsets_q, 1, n);
    wf_node *k0 = row_of(w, offsets_k, 0, n), *k1 = row_of(w, offsets_k, 1, n);
    wf_node *member = wf_mul(g, wf_le(g, q0, i), wf_lt(g, i, q1)); /* [L,n] */
    w->p = wf_add(g, i, wf_sum(g, wf_mul(g, member, wf_sub(g, k1, q1)), 1u << 1, true));
    narrow(w, wf_le(g, wf_sum(g, wf_mul(g, member, k0), 1u << 1, true), w->j));
    narrow(w, wf_lt(g, w->j, wf_sum(g, wf_mul(g, member, k1), 1u << 1, true)));
}

/* floor(x / n) of whole numbers */
static wf_node *quotient(wf_graph *g, wf_node *x, int64_t n) {
    return wf_floor(g, wf_mul_c(g, wf_add_c(g, x, 0.5), 1 / (double)n));
}

static wf_node *either(wf_graph *g, wf_node *a, wf_node *b) {
    return wf_max(g, a, b);
}

static void see_window(visibility *w, const wf_attention_spec *s) {
    wf_graph *g = w->g;
    int64_t block = s->window_block > 1 ? s->window_block : 1;
    wf_node *first = block > 1 ? wf_mul_c(g, quotient(g, w->p, block), (double)block) : w->p;
    wf_node *near = NULL;
    if (s->window_back > 0) near = wf_lt(g, wf_add_c(g, first, -(double)s->window_back), w->j);
    if (s->window_forward > 0) {
        wf_node *ahead = wf_lt(g, w->j, wf_add_c(g, first, (double)(s->window_forward + block - 1)));
        near = near ? wf_mul(g, near, ahead) : ahead;
    }
    if (!near) return;
    if (s->globals) {
        wf_node *of = wf_cast(g, s->globals, w->t);
        wf_node *is = wf_amax(g, wf_eq(g, wf_unsqueeze(g, w->j, 2), of), 1u << 2, false); /* [1,S,G] -> [1,S] */
        near = either(g, near, is);
    }
    narrow(w, near);
}

static void see_tags(visibility *w, const wf_attention_spec *s, int64_t B, int64_t L, int64_t S) {
    wf_graph *g = w->g;
    wf_node *q = wf_reshape(g, wf_cast(g, s->tags_q, w->t), WF_SHAPE(B, 1, L, 1)),
            *k = wf_reshape(g, wf_cast(g, s->tags_k, w->t), WF_SHAPE(B, 1, 1, S));
    narrow(w, wf_le(g, wf_constant(g, w->t, 0), k));
    narrow(w, s->tags_before ? wf_lt(g, k, q) : wf_ne(g, k, q));
}

static void see_blocks(visibility *w, const wf_attention_spec *s, int64_t L, int64_t S) {
    wf_graph *g = w->g;
    int64_t n = (S + s->block - 1) / s->block;
    wf_node *row = quotient(g, wf_index(g, w->t, WF_SHAPE(L, 1), 0), s->block), *col = quotient(g, w->j, s->block);
    wf_node *zero = wf_constant(g, w->t, 0), *last = wf_constant(g, w->t, (double)(n - 1));
    wf_node *end[2] = {either(g, wf_eq(g, row, zero), wf_eq(g, row, last)),
                       either(g, wf_eq(g, col, zero), wf_eq(g, col, last))};
    wf_node *near = wf_le(g, wf_abs(g, wf_sub(g, row, col)), wf_constant(g, w->t, 1));
    wf_node *seen = either(g, near, either(g, end[0], end[1]));
    if (s->links && n > 2) {
        wf_node *at = wf_clamp(g, wf_add_c(g, wf_reshape(g, row, WF_SHAPE(L)), -1), 0, (double)(n - 3));
        wf_node *of = wf_gather(g, wf_permute(g, s->links, (int[]){1, 0, 2}), wf_cast(g, at, WF_I32)); /* [L,H,R] */
        of = wf_unsqueeze(g, wf_cast(g, wf_permute(g, of, (int[]){1, 0, 2}), w->t), 2);                /* [H,L,1,R] */
        wf_node *linked = wf_amax(g, wf_eq(g, of, wf_reshape(g, col, WF_SHAPE(1, 1, S, 1))), 1u << 3, false);
        seen = either(g, linked, seen);
    }
    narrow(w, seen);
}

static visibility see(wf_graph *g, wf_dtype t, int64_t B, int64_t L, int64_t S, const wf_attention_spec *s) {
    visibility w = {.g = g, .t = t};
    wf_node *i = wf_index(g, t, WF_SHAPE(L, 1), 0);
    w.j = wf_index(g, t, WF_SHAPE(1, S), 1);
    if (s->offsets_q) {
        see_packed(&w, s, i);
    } else if (s->q_start) {
        wf_node *first = row_of(&w, s->q_start, 0, 1);
        w.p = wf_add(g, i, first);
        narrow(&w, wf_lt(g, w.j, wf_add_c(g, first, (double)L)));
    } else {
        w.p = wf_add_c(g, i, (double)(S - L));
    }
    see_window(&w, s);
    if (s->causal) narrow(&w, wf_le(g, w.j, w.p));
    if (s->tags_q) see_tags(&w, s, B, L, S);
    if (s->block) see_blocks(&w, s, L, S);
    if (s->lengths) narrow(&w, wf_lt(g, w.j, wf_reshape(g, wf_cast(g, s->lengths, t), WF_SHAPE(B, 1, 1, 1))));
    return w;
}

/* ---- the function ---- */

/* [B,rows,heads,width] -> [B,K,G,rows,width] with heads = K G */
static wf_node *by_head(wf_graph *g, wf_node *x, int64_t K) {
    if (!x) return NULL;
    const int64_t *d = x->shape.dim;
    wf_node *y = wf_permute(g, x, (int[]){0, 2, 1, 3});
    return wf_reshape(g, y, WF_SHAPE(d[0], K, d[2] / K, d[1], d[3]));
}

static wf_node *scores(wf_graph *g, wf_node *q, wf_node *k, const wf_attention_spec *s, const visibility *w) {
    const int64_t *d = q->shape.dim, K = k->shape.dim[2];
    wf_node *x = wf_matmul(g, by_head(g, q, K), by_head(g, k, K), false, true);
    x = wf_mul_c(g, wf_reshape(g, x, WF_SHAPE(d[0], d[2], d[1], k->shape.dim[1])), s->scale);
    if (s->slopes) {
        wf_node *slope = wf_reshape(g, s->slopes, WF_SHAPE(d[2], 1, 1));
        x = wf_sub(g, x, wf_mul(g, slope, wf_abs(g, wf_sub(g, w->p, w->j))));
    }
    if (s->bias) x = wf_add(g, x, s->bias);
    if (s->score == WF_SCORE_SIGMOID) return wf_sigmoid(g, wf_add_c(g, x, s->score_bias));
    return s->score == WF_SCORE_RELU2 ? wf_relu2(g, x) : s->score == WF_SCORE_RELU ? wf_relu(g, x) : x;
}

/* Softmax over the last axis, 0 for rows of -inf; *lse [B,H,L]. */
static wf_node *normalise(wf_graph *g, wf_node *x, wf_dtype t, wf_node **lse) {
    wf_node *none = wf_constant(g, t, -INFINITY), *zero = wf_constant(g, t, 0), *one = wf_constant(g, t, 1);
    wf_node *top = wf_stop_gradient(g, wf_amax(g, x, 1u << 3, true));
    wf_node *base = wf_where(g, wf_eq(g, top, none), zero, top);
    wf_node *p = wf_exp(g, wf_sub(g, x, base));
    wf_node *sum = wf_sum(g, p, 1u << 3, true), *empty = wf_eq(g, sum, zero);
    wf_node *safe = wf_where(g, empty, one, sum);
    *lse = wf_squeeze(g, wf_where(g, empty, none, wf_add(g, base, wf_log(g, safe))), 3);
    return wf_div(g, p, safe);
}

wf_status wf_attention_compose(wf_graph *g, wf_node *q, wf_node *k, wf_node *v, const wf_attention_spec *s, wf_node **out,
                               wf_node **weights) {
    if (!q || !k || !v) return wf_graph_status(g);
    wf_dtype t = q->dtype == WF_F64 ? WF_F64 : WF_F32, type = q->dtype;
    q = wf_cast(g, q, t), k = wf_cast(g, k, t), v = wf_cast(g, v, t);
    if (!q || !k || !v) return wf_graph_status(g);
    int64_t B = q->shape.dim[0], L = q->shape.dim[1], H = q->shape.dim[2], S = k->shape.dim[1], K = k->shape.dim[2],
            e = v->shape.dim[3];
    visibility w = see(g, t, B, L, S, s);
    wf_node *x = scores(g, q, k, s, &w), *lse = NULL;
    if (s->normaliser == WF_NORMALISE_SOFTMAX) {
        if (w.seen) x = wf_where(g, w.seen, x, wf_constant(g, t, -INFINITY));
        x = normalise(g, x, t, &lse);
    } else {
        if (w.seen) x = wf_where(g, w.seen, x, wf_constant(g, t, 0));
        lse = wf_fill(g, t, WF_SHAPE(B, H, L), 0);
    }
    if (weights) *weights = x;
    if (s->dropout > 0) { /* the numbers are float32's whatever the dtype, as in the fused operator */
        wf_node *u = wf_uniform(g, WF_F32, WF_SHAPE(B, H, L, S), s->seed, s->stream);
        wf_node *kept = wf_cast(g, wf_le(g, wf_constant(g, WF_F32, s->dropout), u), t);
        x = wf_mul(g, x, wf_mul_c(g, kept, 1 / (1 - s->dropout)));
    }
    x = wf_matmul(g, wf_reshape(g, x, WF_SHAPE(B, K, H / K, L, S)), by_head(g, v, K), false, false);
    x = wf_permute(g, wf_reshape(g, x, WF_SHAPE(B, H, L, e)), (int[]){0, 2, 1, 3});
    out[0] = wf_cast(g, x, type);
    out[1] = lse;
    return wf_graph_status(g);
}

wf_node *wf_attention_plain(wf_graph *g, wf_node *q, wf_node *k, wf_node *v, const wf_attention_spec *spec, wf_node **weights) {
    wf_attention_spec s;
    wf_node *out[2] = {NULL, NULL}, *w = NULL;
    if (!wf_attention_settle(g, &q, &k, &v, spec, &s)) return NULL;
    if (wf_attention_compose(g, q, k, v, &s, out, &w) != WF_OK) return NULL;
    if (weights) *weights = w;
    return out[0];
}
