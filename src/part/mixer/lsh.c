/* lsh.c: Reformer's attention by locality-sensitive hashing (Kitaev et al. 2020): tokens meet those of near buckets.
 *
 *     queries are keys: qk; keys are of unit length; scale 1/sqrt(d)
 *     bucket = argmax [x R; -x R], R [d,NB/2] random, in each of n rounds; tokens are sorted by (bucket, position)
 *     every chunk of c sorted tokens sees itself and the chunk before it, the very first one the last of the last round
 *     o = sum over rounds of softmax_rounds(lse) o_round; a token sees itself with score -5e4: only when it is alone
 *
 * Scores of a token with itself are left out of the kernel and added as one more partial result. Bucket and order carry no
 * gradient. Lengths that are no multiple of 2c end in keys that nobody sees. In training the rotations are drawn every step,
 * elsewhere they follow from a seed that is part of the model.
 */
#include "part/mixer/sparse.h"

#include <math.h>
#include <string.h>

enum { MOST_ROUNDS = 64 };

/* ---- the formula ---- */

int64_t wf_lsh_buckets(int64_t L, int64_t bucket) {
    return (L + 2 * bucket - 1) / (2 * bucket) * 2;
}

typedef struct sorted { /* of all rounds, by (round, bucket, position) */
    const wf_lsh *s;
    int64_t B, L, H, n, P, N; /* P: L made a multiple of 2c; N = n P */
    wf_node *bucket;          /* float [B,H,n,P] by position */
    wf_node *order, *at;      /* int32 and float64 [B,H,n,P]: position in every place */
    wf_node *place;           /* float64 [B,H,n,P]: place of every position in its round */
} sorted;

static wf_node *coordinate(wf_graph *g, int64_t n, int axis, int rank, double factor) {
    wf_shape s = {rank, {1, 1, 1, 1, 1, 1}};
    s.dim[axis] = n;
    return wf_mul_c(g, wf_index(g, WF_F64, s, axis), factor);
}

/* float [B,H,n,P]: the bucket of every token, behind all others where it does not count. */
static wf_node *hash(wf_graph *g, wf_node *qk, const sorted *o) {
    const wf_lsh *s = o->s;
    int64_t d = qk->shape.dim[3], half = o->P / s->bucket / 2;
    wf_node *R = wf_reshape(g, wf_cast(g, s->rotations, qk->dtype), WF_SHAPE(d, o->n * half));
    wf_node *p = wf_reshape(g, wf_matmul(g, wf_stop_gradient(g, qk), R, false, false), WF_SHAPE(o->B, o->L, o->H, o->n, half));
    wf_node *best = wf_cast(g, wf_argmax(g, wf_concat(g, (wf_node *[]){p, wf_neg(g, p)}, 2, 4)), WF_F32); /* [B,L,H,n] */
    wf_node *last = wf_fill(g, WF_F32, WF_SHAPE(1), (double)(2 * half));
    if (s->keep) best = wf_where(g, wf_reshape(g, s->keep, WF_SHAPE(o->B, o->L, 1, 1)), best, last);
    return wf_pad(g, wf_permute(g, best, (int[]){0, 2, 3, 1}), 3, 0, o->P - o->L, (double)(2 * half));
}

static bool sort(wf_graph *g, wf_node *qk, const wf_lsh *s, sorted *o) {
    const int64_t *dim = qk->shape.dim;
    *o = (sorted){.s = s, .B = dim[0], .L = dim[1], .H = dim[2], .n = s->hashes};
    o->P = wf_lsh_buckets(o->L, s->bucket) * s->bucket;
    o->N = o->n * o->P;
    o->bucket = hash(g, qk, o);
    o->order = wf_argsort(g, o->bucket, false);
    o->at = wf_cast(g, o->order, WF_F64);
    wf_node *ticket = wf_expand(g, wf_index(g, WF_F64, WF_SHAPE(1, 1, 1, o->P), 3), WF_SHAPE(o->B, o->H, o->n, o->P));
    o->place = wf_put_add(g, wf_contiguous(g, ticket), o->order, o->P);
    return o->place != NULL;
}

/* [B,H,n,P] -> [B,H,c+N]: in front, what the first chunk looks back at. */
static wf_node *looped(wf_graph *g, wf_node *x, const sorted *o) {
    wf_node *flat = wf_reshape(g, x, WF_SHAPE(o->B, o->H, o->N));
    return wf_concat(g, (wf_node *[]){wf_slice(g, flat, 2, o->N - o->s->bucket, o->s->bucket), flat}, 2, 2);
}

/* Rows of x [B,L,H,w] at positions at [B,H,R], sequences and heads side by side: [B H,R,1,w] */
static wf_node *take_rows(wf_graph *g, wf_node *x, wf_node *at, const sorted *o) {
    if (!x || !at) return NULL;
    int64_t w = x->shape.dim[3], R = at->shape.dim[2];
    wf_node *row = wf_mul_c(g, wf_min_c(g, at, (double)(o->L - 1)), (double)o->H); /* what was added behind L is hidden */
    row = wf_add(g, row, coordinate(g, o->H, 1, 3, 1));
    row = wf_add(g, row, coordinate(g, o->B, 0, 3, (double)(o->L * o->H)));
    wf_node *y = wf_gather(g, wf_reshape(g, x, WF_SHAPE(o->B * o->L * o->H, w)), wf_cast(g, row, WF_I32));
    return wf_reshape(g, y, WF_SHAPE(o->B * o->H, R, 1, w));
}

/* Where position l of round r of head h lies among the sorted rows [B H N]: int32 [n,B,L,H] */
static wf_node *rows_of_positions(wf_graph *g, const sorted *o) {
    wf_node *p = wf_permute(g, wf_slice(g, o->place, 3, 0, o->L), (int[]){2, 0, 3, 1});
    p = wf_add(g, wf_add(g, p, coordinate(g, o->n, 0, 4, (double)o->P)), coordinate(g, o->H, 3, 4, (double)o->N));
    return wf_cast(g, wf_add(g, p, coordinate(g, o->B, 1, 4, (double)(o->H * o->N))), WF_I32);
}

/* How often each token meets itself: once a round, and again where the last chunk of the round before has it, if chunks see
 * other buckets; as a share of the rounds where pairs count once: [B,L,H,1] or [1] */
static wf_node *meetings(wf_graph *g, const sorted *o, wf_dtype t) {
    int64_t c = o->s->bucket;
    double each = o->s->duplicates ? 1 : 1 / ((double)o->n + 1e-9);
    if (!o->s->across || o->n == 1) return wf_fill(g, t, WF_SHAPE(1), (double)o->n * each);
    wf_node *first = wf_slice(g, o->at, 3, 0, c), *end = wf_slice(g, o->at, 3, o->P - c, c);
    end = wf_concat(g, (wf_node *[]){wf_slice(g, end, 2, o->n - 1, 1), wf_slice(g, end, 2, 0, o->n - 1)}, 2, 2);
    wf_node *same =
        wf_eq(g, wf_reshape(g, first, WF_SHAPE(o->B, o->H, o->n, c, 1)), wf_reshape(g, end, WF_SHAPE(o->B, o->H, o->n, 1, c)));
    wf_node *again = wf_put_add(g, wf_sum(g, same, 1u << 4, false), wf_slice(g, o->order, 3, 0, c), o->P); /* [B,H,n,P] */
    wf_node *m = wf_add_c(g, wf_slice(g, wf_sum(g, again, 1u << 2, false), 2, 0, o->L), (double)o->n);
    return wf_cast(g, wf_mul_c(g, wf_unsqueeze(g, wf_permute(g, m, (int[]){0, 2, 1}), 3), each), t);
}

/* ---- scores with a bias of their own: other buckets hidden, or pairs counted once ---- */

/* [B,H,c+N] -> [B,H,1,chunks,2c] */
static wf_node *chunks_of_keys(wf_graph *g, wf_node *x, const sorted *o) {
    int64_t c = o->s->bucket, n = o->N / c;
    wf_node *before = wf_reshape(g, wf_slice(g, x, 2, 0, o->N), WF_SHAPE(o->B, o->H, n, c)),
            *own = wf_reshape(g, wf_slice(g, x, 2, c, o->N), WF_SHAPE(o->B, o->H, n, c));
    return wf_concat(g, (wf_node *[]){before, own}, 2, 3);
}

/* float64 [B,H,n,P] by position -> by place */
static wf_node *by_place(wf_graph *g, wf_node *x, const sorted *o) {
    return wf_take(g, x, o->order);
}

/* log of how many times a query and a key meet over all rounds: their chunks are equal, or the key's is the one before. */
static wf_node *log_meetings(wf_graph *g, const sorted *o) {
    int64_t c = o->s->bucket, chunks = o->N / c;
    wf_node *count = NULL;
    for (int64_t r = 0; r < o->n; r++) {
        wf_node *place = wf_slice(g, o->place, 2, r, 1); /* [B,H,1,P] by position */
        wf_node *chunk = wf_add_c(g, wf_floor(g, wf_mul_c(g, wf_add_c(g, place, 0.5), 1 / (double)c)), (double)(r * o->P / c));
        wf_node *next = wf_add_c(g, chunk, 1), *none = wf_fill(g, WF_F64, WF_SHAPE(1), (double)chunks);
        next = wf_where(g, wf_eq(g, next, none), wf_fill(g, WF_F64, WF_SHAPE(1), 0), next);
        wf_shape all = WF_SHAPE(o->B, o->H, o->n, o->P);
        if (!o->s->across) { /* and their buckets are equal */
            wf_node *b = wf_mul_c(g, wf_cast(g, wf_slice(g, o->bucket, 2, r, 1), WF_F64), 2.0 * (double)chunks);
            chunk = wf_add(g, chunk, b);
            next = wf_add(g, next, b);
        }
        wf_node *mine = by_place(g, wf_contiguous(g, wf_expand(g, chunk, all)), o),
                *then = by_place(g, wf_contiguous(g, wf_expand(g, next, all)), o);
        wf_node *q = wf_reshape(g, mine, WF_SHAPE(o->B, o->H, chunks, c, 1));
        wf_node *k[2] = {chunks_of_keys(g, looped(g, mine, o), o), chunks_of_keys(g, looped(g, then, o), o)};
        for (int i = 0; i < 2; i++) {
            wf_node *same = wf_eq(g, q, wf_unsqueeze(g, k[i], 3));
            count = count ? wf_add(g, count, same) : same;
        }
    }
    return wf_log(g, wf_add_c(g, count, 1e-9));
}

/* Additive scores float64 [B,H,chunks,c,2c] */
static wf_node *explicit_bias(wf_graph *g, const sorted *o) {
    int64_t c = o->s->bucket, chunks = o->N / c;
    wf_node *q = wf_reshape(g, o->at, WF_SHAPE(o->B, o->H, chunks, c, 1)),
            *k = wf_unsqueeze(g, chunks_of_keys(g, looped(g, o->at, o), o), 3);
    wf_node *hidden = o->s->causal ? wf_le(g, q, k) : wf_eq(g, q, k);
    wf_node *round = wf_mul_c(g, wf_index(g, WF_F64, WF_SHAPE(1, 1, o->n, 1), 2), 2.0 * (double)chunks);
    wf_node *bucket = wf_add(g, wf_cast(g, wf_take(g, o->bucket, o->order), WF_F64), round);
    wf_node *bk = wf_unsqueeze(g, chunks_of_keys(g, looped(g, bucket, o), o), 3);
    if (!o->s->across) hidden = wf_max(g, hidden, wf_ne(g, wf_reshape(g, bucket, WF_SHAPE(o->B, o->H, chunks, c, 1)), bk));
    /* what does not count lies in the bucket behind all others */
    wf_node *local =
        wf_unsqueeze(g, chunks_of_keys(g, looped(g, wf_cast(g, wf_take(g, o->bucket, o->order), WF_F64), o), o), 3);
    hidden = wf_max(g, hidden, wf_eq(g, local, wf_fill(g, WF_F64, WF_SHAPE(1), (double)(o->P / c))));
    wf_node *bias = wf_mul_c(g, hidden, -1e30);
    return o->s->duplicates ? bias : wf_sub(g, bias, log_meetings(g, o));
}

/* The same attention chunk by chunk, heads being the chunks: [BH,N,1,e] and lse [BH,1,N] */
static wf_node *attend_chunks(wf_graph *g, wf_node *q, wf_node *k, wf_node *v, const sorted *o, wf_node **lse) {
    if (!q || !k || !v) return NULL;
    int64_t c = o->s->bucket, chunks = o->N / c, BH = o->B * o->H, d = q->shape.dim[3], e = v->shape.dim[3];
    wf_node *keys[2] = {k, v};
    for (int i = 0; i < 2; i++) {
        int64_t w = i ? e : d;
        wf_node *before = wf_reshape(g, wf_slice(g, keys[i], 1, 0, o->N), WF_SHAPE(BH * chunks, c, 1, w)),
                *own = wf_reshape(g, wf_slice(g, keys[i], 1, c, o->N), WF_SHAPE(BH * chunks, c, 1, w));
        keys[i] = wf_concat(g, (wf_node *[]){before, own}, 2, 1);
    }
    wf_attention_spec a = {.bias = wf_reshape(g, explicit_bias(g, o), WF_SHAPE(BH * chunks, 1, c, 2 * c))};
    wf_node *y = wf_attention(g, wf_reshape(g, q, WF_SHAPE(BH * chunks, c, 1, d)), keys[0], keys[1], &a);
    if (!y) return NULL;
    *lse = wf_reshape(g, wf_output(y, 1), WF_SHAPE(BH, 1, o->N));
    return wf_reshape(g, y, WF_SHAPE(BH, o->N, 1, e));
}

/* ---- all together ---- */

static wf_node *attend(wf_graph *g, wf_node *qk, wf_node *v, const sorted *o, wf_node **lse) {
    const wf_lsh *s = o->s;
    wf_node *size = wf_max_c(g, wf_sum(g, wf_square(g, qk), 1u << 3, true), 1e-24);
    wf_node *at_q = wf_reshape(g, o->at, WF_SHAPE(o->B, o->H, o->N)), *at_k = looped(g, o->at, o);
    wf_node *q = take_rows(g, qk, at_q, o), *k = take_rows(g, wf_mul(g, qk, wf_rsqrt(g, size)), at_k, o),
            *x = take_rows(g, v, at_k, o);
    if (!s->across || !s->duplicates) return attend_chunks(g, q, k, x, o, lse);
    wf_node *bucket = looped(g, wf_take(g, o->bucket, o->order), o);
    wf_node *out = wf_fill(g, WF_F32, WF_SHAPE(1), (double)(o->P / s->bucket));
    wf_node *tag = wf_where(g, wf_eq(g, bucket, out), wf_fill(g, WF_F64, WF_SHAPE(1), -1), at_k);
    wf_attention_spec a = {
        .window_back = s->bucket + 1, .window_forward = 1, .window_block = s->bucket, .tags_before = s->causal};
    a.tags_q = wf_reshape(g, o->order, WF_SHAPE(o->B * o->H, o->N));
    a.tags_k = wf_reshape(g, wf_cast(g, tag, WF_I32), WF_SHAPE(o->B * o->H, o->N + s->bucket));
    wf_node *y = wf_attention(g, q, k, x, &a);
    *lse = y ? wf_output(y, 1) : NULL;
    return y;
}

wf_node *wf_lsh_attention(wf_graph *g, wf_node *qk, wf_node *v, const wf_lsh *s, wf_node **buckets) {
    sorted o;
    wf_node *lse = NULL, *size[MOST_ROUNDS];
    if (!qk || !v || !s->rotations || !sort(g, qk, s, &o)) return NULL;
    if (buckets) *buckets = wf_slice(g, o.bucket, 3, 0, o.L);
    wf_node *y = attend(g, qk, v, &o, &lse);
    if (!y) return NULL;
    int64_t e = v->shape.dim[3], rows = o.B * o.H * o.N;
    wf_node *row = rows_of_positions(g, &o), *parts = wf_gather(g, wf_reshape(g, y, WF_SHAPE(rows, e)), row),
            *sizes = wf_gather(g, wf_reshape(g, lse, WF_SHAPE(rows, 1)), row); /* [n,B,L,H,e], [n,B,L,H,1] */
    wf_node *self = wf_add_c(g, wf_log(g, meetings(g, &o, qk->dtype)), s->self), *most = self;
    for (int64_t r = 0; r < o.n; r++) {
        size[r] = wf_squeeze(g, wf_slice(g, sizes, 0, r, 1), 0);
        most = wf_max(g, most, size[r]);
    }
    most = wf_stop_gradient(g, most);
    wf_node *sum = wf_exp(g, wf_sub(g, self, most)), *o_sum = wf_mul(g, v, sum);
    for (int64_t r = 0; r < o.n; r++) {
        wf_node *w = wf_exp(g, wf_sub(g, size[r], most));
        sum = wf_add(g, sum, w);
        o_sum = wf_add(g, o_sum, wf_mul(g, wf_squeeze(g, wf_slice(g, parts, 0, r, 1), 0), w));
    }
    return wf_div(g, o_sum, sum);
}

/* ---- the part ---- */

typedef struct options {
    int64_t heads, head_dim, bucket, hashes;
    bool across, duplicates;
    const char *bias;
    const wf_value *position;
} options;

static const wf_option table[] = {
    {"heads", WF_OPT_INT, offsetof(options, heads), "0", 0, 4096, NULL, "heads; 0: one for every 64 channels, at least one"},
    {"head_dim", WF_OPT_INT, offsetof(options, head_dim), "0", 0, 4096, NULL, "channels of a head; 0: width / heads"},
    {"bucket_size", WF_OPT_INT, offsetof(options, bucket), "64", 1, 1 << 20, NULL, "tokens of a bucket (and of a chunk), c"},
    {"n_hashes", WF_OPT_INT, offsetof(options, hashes), "8", 1, MOST_ROUNDS, NULL, "rounds of hashing, n"},
    {"attend_across_buckets", WF_OPT_BOOL, offsetof(options, across), "true", 0, 0, NULL, "chunks see other buckets"},
    {"allow_duplicates", WF_OPT_BOOL, offsetof(options, duplicates), "true", 0, 0, NULL,
     "pairs that meet in several rounds count so often; false: once, which costs a matrix of all chunks' scores"},
    {"bias", WF_OPT_CHOICE, offsetof(options, bias), "model", 0, 0, "model|true|false",
     "biases of the linears; model: as the model says"},
    {"position", WF_OPT_VALUE, offsetof(options, position), "", 0, 0, NULL, "rotary scheme of this mixer; absent: the model's"},
    WF_OPT_END};

static void draw_seed(wf_tensor *t, wf_rng *r, const void *ctx) {
    (void)ctx;
    for (int64_t i = 0; i < 4; i++) ((int32_t *)t->data)[i] = (int32_t)(wf_rng_u32(r) >> 1);
}

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    wf_heads *h = m->data = wf_arena_alloc(m->model->arena, sizeof *h);
    if (!h) return WF_ENOMEM;
    h->H = h->K = o->heads ? o->heads : m->in / 64 > 0 ? m->in / 64 : 1;
    h->d = o->head_dim ? o->head_dim : m->in / h->H;
    if (!o->head_dim && m->in % h->H)
        return wf_module_fail(m, WF_EINVAL, "'heads' must divide the width (%lld does not divide %lld), or give head_dim",
                              (long long)h->H, (long long)m->in);
    bool bias = wf_bias_wanted(m, o->bias);
    h->q = h->k = wf_child_linear(m, "qk", m->in, h->H * h->d, bias, WF_LINEAR_INNER);
    h->v = wf_child_linear(m, "v", m->in, h->H * h->d, bias, WF_LINEAR_VALUE);
    h->position = wf_child_spec(m, "position", "position", "none", o->position, h->d, h->d);
    if (!h->q || !h->v || !h->position) return WF_EINVAL;
    WF_TRY(wf_needs_no_scores(m));
    WF_TRY(wf_inner_norm_setup(m, h->H * h->d));
    h->o = wf_child_linear(m, "o", h->H * h->d, m->out, bias, WF_LINEAR_RESIDUAL);
    if (!h->o) return WF_EINVAL;
    wf_param *seed = wf_declare_buffer(m, "seed", WF_I32, WF_SHAPE(4), 0);
    if (!seed) return WF_ENOMEM;
    seed->fill = draw_seed;
    return WF_OK;
}

static wf_node *heads(wf_build *b, const wf_heads *h, wf_module *linear, wf_node *x) {
    wf_node *y = wf_apply(b, linear, x);
    if (!y) return NULL;
    return wf_as(b, wf_reshape(b->g, y, WF_SHAPE(x->shape.dim[0], x->shape.dim[1], h->H, h->d)),
                 b->compute == WF_F64 ? WF_F64 : WF_F32);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    const wf_heads *h = m->data;
    if (!x) return NULL;
    if (b->score_bias)
        return wf_refuse(b, m, "has no scores for all pairs, so masks of any form cannot be applied; take softmax");
    wf_node *qk = heads(b, h, h->q, x), *v = heads(b, h, h->v, x), *same = qk;
    if (h->position->part->rotate && h->position->part->rotate(b, h->position, &qk, &same) != WF_OK) return NULL;
    bool drawn = b->train && b->seed;
    uint64_t stream = drawn ? wf_stream(b) : 0;
    wf_node *seed = drawn ? b->seed : wf_use(b, m, "seed");
    int64_t half = wf_lsh_buckets(x->shape.dim[1], o->bucket) / 2;
    wf_lsh s = {o->bucket, o->hashes, b->causal, o->across, o->duplicates, -5e4, NULL, wf_keep_mask(b, x)};
    s.rotations = wf_normal(b->g, WF_F32, WF_SHAPE(h->d, o->hashes, half), seed, stream);
    wf_node *y = wf_lsh_attention(b->g, qk, v, &s, NULL);
    return wf_heads_merge(b, m, wf_as(b, y, b->compute));
}

const wf_part wf_mixer_lsh = {
    .slot = "mixer",
    .name = "lsh",
    .title = "Reformer: attention within buckets of locality-sensitive hashing, queries shared with keys",
    .paper = "Kitaev, Kaiser, Levskaya: Reformer: The Efficient Transformer, 2020, arXiv 2001.04451",
    .sheet = "00",
    .formula = "bucket = argmax [x R; -x R], n rounds; sorted by (round, bucket, position), a chunk of c sees itself and the "
               "one before\n"
               "per round o, lse over keys qk/|qk|, scale 1/sqrt(d), self only when alone; o = sum softmax_rounds(lse) o_round",
    .facts = "Rotations are drawn every step in training; elsewhere they follow from the model's own seed.\n"
             "Causal: weights look back only, but which earlier tokens share a chunk depends on the whole sequence. No "
             "streaming form.",
    .cost = "6 D D FLOPs a token for the linears, n d NB H for hashing, 8 n c d H for scores and values",
    .golden = "attention.reformer-lsh",
    .options = table,
    .opt_size = sizeof(options),
    .causal_ok = true,
    .bidirectional_ok = true,
    .setup = setup,
    .forward = forward,
    .readers = "qk v",
    .writers = "o",
};
