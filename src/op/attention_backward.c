/* attention_backward.c: backward driver of the fused attention operator. A job owns dk and dv of one key block of one
 * sequence and key/value head; it runs over the heads of the group and over the row blocks that see it, computes the five
 * products of each tile once, and adds to dq. Additions to a row block of dq happen in the order of the key blocks, whoever
 * makes them. With enough heads for all threads one thread keeps a head to itself, and the packed queries, do and dq of the
 * whole head; otherwise a job waits until the key block before it has added its part. Both ways give the same bytes. */
#include "op/attention_tiles.h"

#include <math.h>
#include <omp.h>
#include <sched.h>
#include <string.h>

/* Buffers of the whole call. */
typedef struct backward_space {
    char *lse, *delta; /* [B,H,L]: in base 2, +inf where nothing is visible; sum_e do o - dlse */
    char *dq;          /* [row blocks, H] accumulators where dq itself cannot serve; NULL when threads keep heads */
    int *turn;         /* [row blocks, H] the key block that adds to dq next, WF_AT_NONE: all have */
    bool keeps;        /* threads keep heads */
    int64_t next_job;
} backward_space;

/* Buffers of one thread. */
typedef struct thread_space {
    wf_tile tile;
    char *q, *go, *dq; /* one tile, or where threads keep heads all row blocks of the heads of a group */
    int64_t q_step, go_step;
    char *k, *kt, *v, *vt, *dk, *dv;
    int *lo, *hi, *row_lo, *row_hi;
    void *mask;
} thread_space;

/* Row blocks of the heads that share a key/value head, for the longest sequence. */
static int64_t group_blocks(const wf_node *n, int bq) {
    const wf_shape *q = &n->in[0]->shape;
    return q->dim[2] / n->in[2]->shape.dim[2] * ((q->dim[1] + bq - 1) / bq);
}

enum { MOST_KEPT = 8 << 20 }; /* bytes of a head that a thread may keep */

static bool keeps_heads(const wf_node *n, int threads) {
    const wf_attention_kernel *f = wf_attention_kernel_for(n->in[0]->dtype);
    int64_t units = wf_attention_sequences(n) * n->in[2]->shape.dim[2], d = n->in[0]->shape.dim[3], e = n->in[2]->shape.dim[3];
    int bq, bk;
    wf_attention_blocks(d, e, &bq, &bk);
    int64_t bytes = group_blocks(n, bq) * bq * f->size * (2 * f->ld(d) + f->ld(e));
    return bytes <= MOST_KEPT && (units >= 4 * threads || units % threads == 0);
}

static size_t carve_thread(char *base, const wf_node *n, bool keeps, thread_space *w) {
    const wf_attention_kernel *f = wf_attention_kernel_for(n->in[0]->dtype);
    int64_t d = n->in[0]->shape.dim[3], e = n->in[2]->shape.dim[3];
    int bq, bk;
    wf_attention_blocks(d, e, &bq, &bk);
    wf_pieces p = {base, 0};
    int64_t size = f->size, ints = (int64_t)sizeof(int), blocks = keeps ? group_blocks(n, bq) : 1;
    *w = (thread_space){.q_step = size * bq * f->ld(d), .go_step = size * bq * f->ld(e)};
    w->q = wf_piece(&p, blocks * w->q_step);
    w->go = wf_piece(&p, blocks * w->go_step);
    if (keeps) w->dq = wf_piece(&p, blocks * w->q_step);
    w->k = wf_piece(&p, size * bk * f->ld(d));
    w->kt = wf_piece(&p, size * d * f->ld(bk));
    w->v = wf_piece(&p, size * bk * f->ld(e));
    w->vt = wf_piece(&p, size * e * f->ld(bk));
    w->dk = wf_piece(&p, size * bk * f->ld(d));
    w->dv = wf_piece(&p, size * bk * f->ld(e));
    w->lo = wf_piece(&p, ints * bq);
    w->hi = wf_piece(&p, ints * bq);
    w->row_lo = wf_piece(&p, ints * bk);
    w->row_hi = wf_piece(&p, ints * bk);
    if (wf_attention_patterned(n)) w->mask = wf_piece(&p, size * bq * f->ld(bk));
    void *s = wf_piece(&p, size * bq * f->ld(bk)), *dp = wf_piece(&p, size * bq * f->ld(bk)),
         *temp = wf_piece(&p, size * 3 * f->ld(bk));
    w->tile =
        (wf_tile){.k = w->k, .kt = w->kt, .v = w->v, .vt = w->vt, .dk = w->dk, .dv = w->dv, .s = s, .dp = dp, .temp = temp};
    return p.used;
}

/* dq of full-width vectors is accumulated where it will be read. */
static bool needs_dq(const wf_attention_kernel *f, wf_dtype t, int64_t d) {
    return t == WF_BF16 || d % f->lanes != 0;
}

static size_t carve(char *base, const wf_node *n, int threads, backward_space *w) {
    const wf_attention_kernel *f = wf_attention_kernel_for(n->in[0]->dtype);
    const wf_shape *q = &n->in[0]->shape;
    int bq, bk;
    wf_attention_blocks(q->dim[3], n->in[2]->shape.dim[3], &bq, &bk);
    int64_t blocks = wf_attention_row_blocks(n) * q->dim[2], rows = q->dim[0] * q->dim[1] * q->dim[2];
    wf_pieces p = {base, 0};
    *w = (backward_space){.keeps = keeps_heads(n, threads)};
    wf_piece(&p, (int64_t)wf_attention_front(n));
    w->lse = wf_piece(&p, f->size * rows);
    w->delta = wf_piece(&p, f->size * rows);
    w->turn = wf_piece(&p, (int64_t)sizeof(int) * blocks);
    if (!w->keeps && needs_dq(f, n->in[0]->dtype, q->dim[3])) w->dq = wf_piece(&p, f->size * bq * f->ld(q->dim[3]) * blocks);
    return p.used;
}

size_t wf_attention_backward_scratch(const wf_node *n, int threads) {
    backward_space all;
    thread_space w;
    size_t common = carve(NULL, n, threads, &all);
    return common + carve_thread(NULL, n, all.keeps, &w) * (size_t)threads;
}

static const void *element(const wf_attention_call *a, const char *x, const int64_t stride[3], int64_t b, int64_t row,
                           int64_t head) {
    return x + (int64_t)wf_dtype_size(a->dtype) * (b * stride[0] + row * stride[1] + head * stride[2]);
}

/* Where head h of a row of a dense result [B,rows,heads,width] lies. */
static char *result(const wf_attention_call *a, void *x, int64_t b, int64_t rows, int64_t row, int64_t heads, int64_t h,
                    int64_t width) {
    return (char *)x + (int64_t)wf_dtype_size(a->dtype) * ((b * rows + row) * heads + h) * width;
}

static double real(const wf_attention_call *a, const char *x, int64_t i) {
    return a->kernel->size == 8 ? ((const double *)x)[i] : (double)((const float *)x)[i];
}

/* lse and delta of one row block of one head; dq of rows that see nothing. */
static void prepare_rows(const wf_call *c, const wf_attention_call *a, const wf_sequence *s, int64_t h, int64_t ib,
                         backward_space *all, thread_space *w) {
    const wf_attention_kernel *f = a->kernel;
    int64_t i0 = ib * a->block_q, row = s->q0 + i0, left = s->q1 - row, at = (s->batch * a->H + h) * a->L + row;
    int rows = left < a->block_q ? (int)left : a->block_q;
    char *lse = all->lse + f->size * at, *delta = all->delta + f->size * at;
    int64_t first = wf_attention_next(a, s, h, ib, 0);
    all->turn[(s->blocks_before + ib) * a->H + h] = (int)first;
    if (first == WF_AT_NONE) {
        char *to = result(a, c->out[0], s->batch, a->L, row, a->H, h, a->d);
        for (int r = 0; r < rows; r++)
            memset(to + r * a->H * a->d * (int64_t)wf_dtype_size(a->dtype), 0, (size_t)a->d * wf_dtype_size(a->dtype));
        return;
    }
    if (a->rule.normaliser != WF_NORMALISE_SOFTMAX) {
        f->fill(lse, rows, 0);
        f->fill(delta, rows, 0);
        return;
    }
    f->pack(w->v, element(a, a->o, a->so, s->batch, row, h), a->dtype, a->so[1], rows, (int)a->e, 1); /* block_k >= block_q */
    f->pack(w->go, element(a, a->go, a->sgo, s->batch, row, h), a->dtype, a->sgo[1], rows, (int)a->e, 1);
    f->row_dots(w->v, w->go, rows, (int)a->e, delta);
    for (int r = 0; r < rows; r++) {
        double x = real(a, a->lse, s->batch * a->slse[0] + h * a->slse[1] + (row + r) * a->slse[2]);
        f->fill(lse + f->size * r, 1, x == -INFINITY ? INFINITY : x * M_LOG2E);
        if (!a->dlse) continue;
        double g = real(a, a->dlse, s->batch * a->sdlse[0] + h * a->sdlse[1] + (row + r) * a->sdlse[2]);
        f->fill(delta + f->size * r, 1, real(a, delta, r) - (x == -INFINITY ? 0 : g));
    }
}

/* The visible columns turned round: rows that see each column. */
static void turn_mask(const int *lo, const int *hi, int rows, int cols, int *row_lo, int *row_hi) {
    int first = 0, end = 0;
    for (int c = 0; c < cols; c++) {
        while (first < rows && hi[first] <= c) first++;
        while (end < rows && lo[end] <= c) end++;
        row_lo[c] = first;
        row_hi[c] = end;
    }
}

/* One tile of key block jb with row block ib of head h. */
static void visit(const wf_call *c, const wf_attention_call *a, const wf_sequence *s, int64_t h, int64_t ib, int64_t jb,
                  bool first, bool last, backward_space *all, thread_space *w) {
    const wf_attention_kernel *f = a->kernel;
    wf_tile t = w->tile;
    int64_t i0 = ib * a->block_q, j0 = jb * a->block_k, row = s->q0 + i0, at = (s->batch * a->H + h) * a->L + row;
    int64_t rows = s->q1 - row, cols = s->k1 - s->k0 - j0;
    t.rows = rows < a->block_q ? (int)rows : a->block_q;
    t.cols = cols < a->block_k ? (int)cols : a->block_k;
    wf_attention_see(a, s, h, i0, j0, w->lo, w->hi, w->mask, &t);
    if (t.lo) {
        turn_mask(w->lo, w->hi, t.rows, t.cols, w->row_lo, w->row_hi);
        t.row_lo = w->row_lo, t.row_hi = w->row_hi;
    }
    int64_t slot = all->keeps ? ib * a->G + h % a->G : 0;
    char *q = w->q + slot * w->q_step, *go = w->go + slot * w->go_step;
    if (first || !all->keeps) {
        f->pack(q, element(a, a->q, a->sq, s->batch, row, h), a->dtype, a->sq[1], t.rows, (int)a->d, a->scale * a->rule.unit);
        f->pack(go, element(a, a->go, a->sgo, s->batch, row, h), a->dtype, a->sgo[1], t.rows, (int)a->e, 1);
    }
    t.q = q, t.go = go;
    t.lse = all->lse + f->size * at;
    t.delta = all->delta + f->size * at;
    char *to = result(a, c->out[0], s->batch, a->L, row, a->H, h, a->d);
    t.first = first;
    t.dq = all->keeps ? w->dq + slot * w->q_step : all->dq ? all->dq + w->q_step * ((s->blocks_before + ib) * a->H + h) : to;
    t.ld_dq = t.dq != to ? f->ld(a->d) : a->H * a->d;
    f->backward(&t);
    if (last && t.dq != to) f->unpack(to, a->dtype, a->H * a->d, t.dq, t.ld_dq, t.rows, (int)a->d, 1, NULL);
}

/* In order of the key blocks: wait until the ones before jb have added to this row block. Jobs are handed out in an order in
 * which those come earlier, so somebody is at work on them. */
static void wait_turn(int *turn, int64_t jb) {
    for (int spins = 0; __atomic_load_n(turn, __ATOMIC_ACQUIRE) != jb; spins++)
        if (spins > 100) sched_yield();
}

static void key_block(const wf_call *c, const wf_attention_call *a, const wf_sequence *s, int64_t kv, int64_t jb,
                      backward_space *all, thread_space *w) {
    const wf_attention_kernel *f = a->kernel;
    int64_t j0 = jb * a->block_k, row = s->k0 + j0, left = s->k1 - row, nib = (s->q1 - s->q0 + a->block_q - 1) / a->block_q;
    int cols = left < a->block_k ? (int)left : a->block_k;
    const void *k = element(a, a->k, a->sk, s->batch, row, kv);
    f->pack(w->k, k, a->dtype, a->sk[1], cols, (int)a->d, 1);
    f->transpose(w->kt, w->k, cols, (int)a->d);
    f->pack(w->k, k, a->dtype, a->sk[1], cols, (int)a->d, a->scale); /* for dq = scale ds k */
    f->pack(w->v, element(a, a->v, a->sv, s->batch, row, kv), a->dtype, a->sv[1], cols, (int)a->e, 1);
    f->transpose(w->vt, w->v, cols, (int)a->e);
    f->fill(w->dk, cols * f->ld(a->d), 0);
    f->fill(w->dv, cols * f->ld(a->e), 0);
    for (int64_t g = 0; g < a->G; g++)
        for (int64_t ib = 0; ib < nib; ib++) {
            int64_t h = kv * a->G + g;
            if (wf_attention_next(a, s, h, ib, jb) != jb) continue;
            int64_t first = wf_attention_next(a, s, h, ib, 0), next = wf_attention_next(a, s, h, ib, jb + 1);
            int *turn = &all->turn[(s->blocks_before + ib) * a->H + h];
            wait_turn(turn, jb);
            visit(c, a, s, h, ib, jb, jb == first, next == WF_AT_NONE, all, w);
            __atomic_store_n(turn, (int)next, __ATOMIC_RELEASE);
        }
    f->unpack(result(a, c->out[1], s->batch, a->S, row, a->K, kv, a->d), a->dtype, a->K * a->d, w->dk, f->ld(a->d), cols,
              (int)a->d, 1 / a->rule.unit, NULL); /* q carries scale * unit */
    f->unpack(result(a, c->out[2], s->batch, a->S, row, a->K, kv, a->e), a->dtype, a->K * a->e, w->dv, f->ld(a->e), cols,
              (int)a->e, 1, NULL);
}

/* Zeros for rows that no sequence owns, or that lie behind its visible keys. */
static void clear_rows(const wf_attention_call *a, void *x, int64_t b, int64_t rows, int64_t from, int64_t to, int64_t width) {
    if (from < to) memset(result(a, x, b, rows, from, 1, 0, width), 0, (size_t)((to - from) * width) * wf_dtype_size(a->dtype));
}

static void clear_unowned(const wf_call *c, const wf_attention_call *a) {
    bool packed = wf_attention_option(c->node, WF_AT_OFFSETS_Q) >= 0;
    int64_t q = 0, k = 0;
    for (int i = 0; i < a->n_seq; i++) {
        const wf_sequence *s = &a->seq[i];
        if (!packed) q = k = 0;
        clear_rows(a, c->out[0], s->batch, a->L, q, s->q0, a->H * a->d);
        for (int x = 1; x <= 2; x++) clear_rows(a, c->out[x], s->batch, a->S, k, s->k0, a->K * (x == 1 ? a->d : a->e));
        q = s->q1, k = s->k1;
        if (packed && i < a->n_seq - 1) continue;
        clear_rows(a, c->out[0], s->batch, a->L, q, a->L, a->H * a->d);
        for (int x = 1; x <= 2; x++) clear_rows(a, c->out[x], s->batch, a->S, k, a->S, a->K * (x == 1 ? a->d : a->e));
    }
}

static int64_t most_key_blocks(const wf_attention_call *a) {
    int64_t most = 0;
    for (int i = 0; i < a->n_seq; i++) {
        int64_t n = (a->seq[i].k1 - a->seq[i].k0 + a->block_k - 1) / a->block_k;
        if (n > most) most = n;
    }
    return most;
}

static void work(const wf_call *c, const wf_attention_call *a, backward_space *all, thread_space *w) {
    int64_t t, units = (int64_t)a->n_seq * a->K, most = most_key_blocks(a);
    for (int i = 0; i < a->n_seq; i++) {
        const wf_sequence *s = &a->seq[i];
        int64_t blocks = (s->q1 - s->q0 + a->block_q - 1) / a->block_q * a->H;
#pragma omp for schedule(static) nowait
        for (int64_t x = 0; x < blocks; x++) prepare_rows(c, a, s, x % a->H, x / a->H, all, w);
    }
#pragma omp barrier
    bool whole = all->keeps;
    while ((t = __atomic_fetch_add(&all->next_job, 1, __ATOMIC_RELAXED)) < (whole ? units : units * most)) {
        int64_t u = t % units, first = whole ? 0 : t / units, end = whole ? most : first + 1;
        const wf_sequence *s = &a->seq[u / a->K];
        int64_t blocks = (s->k1 - s->k0 + a->block_k - 1) / a->block_k;
        for (int64_t jb = first; jb < end && jb < blocks; jb++) key_block(c, a, s, u % a->K, jb, all, w);
    }
}

wf_status wf_attention_backward(const wf_call *c, int planned) {
    wf_attention_call a;
    WF_TRY(wf_attention_read(c, &a, c->scratch));
    backward_space all;
    thread_space w;
    char *base = (char *)c->scratch + carve(c->scratch, c->node, planned, &all);
    size_t one = carve_thread(NULL, c->node, all.keeps, &w);
    clear_unowned(c, &a);
    int threads = wf_threads() < planned ? wf_threads() : planned;
    threads = wf_attention_threads(&a, threads);
    int64_t units = (int64_t)a.n_seq * a.K, most = most_key_blocks(&a);
    if (units * most < threads) threads = units * most > 1 ? (int)(units * most) : 1;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        thread_space mine;
        carve_thread(base + one * (size_t)omp_get_thread_num(), c->node, all.keeps, &mine);
        work(c, &a, &all, &mine);
    }
    return WF_OK;
}
