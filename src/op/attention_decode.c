/* attention_decode.c: a few queries against many keys. The keys are cut into chunks of a fixed size, each chunk gives a
 * partial softmax (m, l, o) of every query, and the partial results are merged in order (LeanAttention, Sanovar et al. 2024;
 * the merge is associative). Keys and values are read once, where they lie. */
#include "op/attention_tiles.h"

#include <math.h>
#include <omp.h>

enum { MOST_QUERIES = 8, CHUNK = 128, ROWS_PADDED = 16 };

/* Partial results, by unit (batch, key/value head), chunk, and row x = head of the group * L + query. */
typedef struct partials {
    char *m, *l, *o; /* [units, chunks, G L], and o [.., ld(e)] */
    int64_t chunks, rows;
} partials;

typedef struct decode_space {
    char *q, *k, *v, *s, *m, *l, *alpha, *temp, *row;
    int lo[ROWS_PADDED], hi[ROWS_PADDED];
} decode_space;

bool wf_attention_decodes(const wf_node *n) {
    return n->in[0]->shape.dim[1] <= MOST_QUERIES && wf_attention_option(n, WF_AT_OFFSETS_Q) < 0 && !wf_attention_patterned(n);
}

static size_t carve(char *base, const wf_node *n, partials *p) {
    const wf_attention_kernel *f = wf_attention_kernel_for(n->in[0]->dtype);
    const wf_shape *q = &n->in[0]->shape, *v = &n->in[2]->shape;
    wf_pieces at = {base, 0};
    p->chunks = (v->dim[1] + CHUNK - 1) / CHUNK;
    p->rows = q->dim[2] / v->dim[2] * q->dim[1];
    int64_t all = q->dim[0] * v->dim[2] * p->chunks * p->rows;
    wf_piece(&at, (int64_t)wf_attention_front(n));
    p->m = wf_piece(&at, f->size * all);
    p->l = wf_piece(&at, f->size * all);
    p->o = wf_piece(&at, f->size * all * f->ld(v->dim[3]));
    return at.used;
}

static size_t carve_thread(char *base, const wf_node *n, decode_space *w) {
    const wf_attention_kernel *f = wf_attention_kernel_for(n->in[0]->dtype);
    const wf_shape *q = &n->in[0]->shape, *v = &n->in[2]->shape;
    int64_t size = f->size, rows = q->dim[2] / v->dim[2] * q->dim[1];
    bool convert = n->in[0]->dtype == WF_BF16;
    wf_pieces p = {base, 0};
    w->q = wf_piece(&p, size * rows * f->ld(q->dim[3]));
    w->s = wf_piece(&p, size * rows * f->ld(CHUNK));
    w->m = wf_piece(&p, size * ROWS_PADDED);
    w->l = wf_piece(&p, size * ROWS_PADDED);
    w->alpha = wf_piece(&p, size * ROWS_PADDED);
    w->temp = wf_piece(&p, size * 3 * f->ld(CHUNK));
    w->row = wf_piece(&p, size * f->ld(v->dim[3]));
    w->k = convert ? wf_piece(&p, size * CHUNK * f->ld(q->dim[3])) : NULL;
    w->v = convert ? wf_piece(&p, size * CHUNK * f->ld(v->dim[3])) : NULL;
    return p.used;
}

size_t wf_attention_decode_scratch(const wf_node *n, int threads) {
    partials p;
    decode_space w;
    return carve(NULL, n, &p) + carve_thread(NULL, n, &w) * (size_t)threads;
}

static const void *element(const wf_attention_call *a, const char *x, const int64_t stride[3], int64_t b, int64_t row,
                           int64_t head) {
    return x + (int64_t)wf_dtype_size(a->dtype) * (b * stride[0] + row * stride[1] + head * stride[2]);
}

/* Scores of one head's queries to weights; m and l of the partial result. */
static void weigh_head(const wf_attention_call *a, const wf_sequence *s, int64_t kv, int64_t g, int64_t j0, int cols,
                       const partials *p, int64_t at, decode_space *w) {
    const wf_attention_kernel *f = a->kernel;
    int rows = (int)a->L;
    wf_tile t = {.rows = rows,
                 .cols = cols,
                 .s = w->s + f->size * g * a->L * f->ld(cols),
                 .temp = w->temp,
                 .m = w->m,
                 .l = w->l,
                 .alpha = w->alpha};
    wf_attention_place(a, s, kv * a->G + g, 0, j0, &t);
    if (!wf_attention_tile_mask(a, s, 0, rows, j0, cols, w->lo, w->hi)) t.lo = w->lo, t.hi = w->hi;
    f->fill(w->m, ROWS_PADDED, a->rule.normaliser == WF_NORMALISE_SOFTMAX ? -INFINITY : 0);
    f->fill(w->l, ROWS_PADDED, 0);
    f->weigh(&t);
    wf_dtype real = f->size == 8 ? WF_F64 : WF_F32;
    f->unpack(p->m + f->size * (at + g * a->L), real, 0, w->m, 0, 1, rows, 1, NULL);
    f->unpack(p->l + f->size * (at + g * a->L), real, 0, w->l, 0, 1, rows, 1, NULL);
}

static void decode_chunk(const wf_attention_call *a, int64_t unit, int64_t chunk, const partials *p, decode_space *w) {
    const wf_attention_kernel *f = a->kernel;
    const wf_sequence *s = &a->seq[unit / a->K];
    int64_t kv = unit % a->K, at = (unit * p->chunks + chunk) * p->rows, lo, hi, unused, j0 = chunk * CHUNK, j1 = j0 + CHUNK;
    wf_attention_bounds(a, s, 0, &lo, &unused);
    wf_attention_bounds(a, s, a->L - 1, &unused, &hi);
    if (lo > j0) j0 = lo;
    if (hi < j1) j1 = hi;
    if (j0 >= j1) {
        f->fill(p->m + f->size * at, p->rows, -INFINITY);
        return;
    }
    for (int64_t g = 0; g < a->G; g++)
        f->pack(w->q + f->size * g * a->L * f->ld(a->d), element(a, a->q, a->sq, s->batch, 0, kv * a->G + g), a->dtype,
                a->sq[1], (int)a->L, (int)a->d, a->scale * a->rule.unit);
    const void *k = element(a, a->k, a->sk, s->batch, j0, kv), *v = element(a, a->v, a->sv, s->batch, j0, kv);
    int cols = (int)(j1 - j0);
    wf_decode c = {.rows = (int)p->rows,
                   .cols = cols,
                   .d = (int)a->d,
                   .e = (int)a->e,
                   .q = w->q,
                   .k = k,
                   .v = v,
                   .k_row = a->sk[1],
                   .v_row = a->sv[1],
                   .s = w->s,
                   .ld_s = f->ld(cols),
                   .o = p->o + f->size * at * f->ld(a->e)};
    if (w->k) {
        f->pack(w->k, k, a->dtype, a->sk[1], cols, (int)a->d, 1);
        f->pack(w->v, v, a->dtype, a->sv[1], cols, (int)a->e, 1);
        c.k = w->k, c.v = w->v, c.k_row = f->ld(a->d), c.v_row = f->ld(a->e);
    }
    f->decode_scores(&c);
    for (int64_t g = 0; g < a->G; g++) weigh_head(a, s, kv, g, j0, cols, p, at, w);
    f->decode_values(&c);
}

/* Query i of head h of batch b: the chunks' partial results to o and lse. */
static void merge_row(const wf_call *c, const wf_attention_call *a, int64_t b, int64_t h, int64_t i, const partials *p,
                      decode_space *w) {
    const wf_attention_kernel *f = a->kernel;
    int64_t unit = b * a->K + h / a->G, at = unit * p->chunks * p->rows + h % a->G * a->L + i;
    f->merge(&a->rule, (int)p->chunks, p->m + f->size * at, p->l + f->size * at, p->rows, p->o + f->size * at * f->ld(a->e),
             p->rows * f->ld(a->e), (int)a->e, w->row, (char *)c->out[1] + f->size * ((b * a->H + h) * a->L + i));
    char *to = (char *)c->out[0] + (int64_t)wf_dtype_size(a->dtype) * ((b * a->L + i) * a->H + h) * a->e;
    f->unpack(to, a->dtype, 0, w->row, 0, 1, (int)a->e, 1, NULL);
}

wf_status wf_attention_decode(const wf_call *c, int threads) {
    wf_attention_call a;
    partials p;
    WF_TRY(wf_attention_read(c, &a, c->scratch));
    if (a.L == 0) return WF_OK;
    threads = wf_attention_threads(&a, threads);
    char *base = (char *)c->scratch + carve(c->scratch, c->node, &p);
    decode_space unused;
    size_t one = carve_thread(NULL, c->node, &unused);
    int64_t units = a.B * a.K, merges = a.B * a.H * a.L;
    int share = units > threads ? (int)((units + threads - 1) / threads) : 1;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        decode_space w;
        carve_thread(base + one * (size_t)omp_get_thread_num(), c->node, &w);
        /* chunk by chunk, all heads of a chunk together: their keys lie side by side */
#pragma omp for schedule(static, share)
        for (int64_t t = 0; t < units * p.chunks; t++) decode_chunk(&a, t % units, t / units, &p, &w);
#pragma omp for schedule(static)
        for (int64_t t = 0; t < merges; t++) merge_row(c, &a, t / (a.H * a.L), t / a.L % a.H, t % a.L, &p, &w);
    }
    return WF_OK;
}
