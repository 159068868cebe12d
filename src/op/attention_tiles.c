/* attention_tiles.c: forward driver of the fused attention operator. A task is a few row blocks of one sequence and
 * key/value head; it packs each key block once and visits it with all its row blocks. Row blocks never depend on each other,
 * so any distribution of tasks gives the same bytes. */
#include "op/attention_tiles.h"

#include <math.h>
#include <omp.h>
#include <string.h>

enum { MOST_BLOCKS = 8 }; /* row blocks of a task */

/* Packed queries and accumulators of a task stay within an L2 cache of 512 KB. */
static int64_t blocks_of_task(int64_t d, int64_t e) {
    return (d > e ? d : e) <= 64 ? MOST_BLOCKS : MOST_BLOCKS / 2;
}

/* Buffers of one thread. */
typedef struct forward_space {
    wf_tile tile;        /* the parts that never change */
    char *q, *o, *m, *l; /* [blocks of a task] tiles or rows, q_step ... bytes apart */
    int64_t q_step, o_step, m_step;
    char *k, *kt, *v, *lse, *mask;
    int *lo, *hi;
} forward_space;

static size_t carve(char *base, const wf_node *n, forward_space *w) {
    const wf_attention_kernel *f = wf_attention_kernel_for(n->in[0]->dtype);
    int64_t d = n->in[0]->shape.dim[3], e = n->in[2]->shape.dim[3];
    int bq, bk;
    wf_attention_blocks(d, e, &bq, &bk);
    wf_pieces p = {base, 0};
    int64_t size = f->size, blocks = blocks_of_task(d, e);
    *w = (forward_space){.q_step = size * bq * f->ld(d), .o_step = size * bq * f->ld(e), .m_step = size * bq};
    w->q = wf_piece(&p, blocks * w->q_step);
    w->o = wf_piece(&p, blocks * w->o_step);
    w->m = wf_piece(&p, blocks * w->m_step);
    w->l = wf_piece(&p, blocks * w->m_step);
    w->lse = wf_piece(&p, w->m_step);
    w->tile.alpha = wf_piece(&p, w->m_step);
    w->k = wf_piece(&p, size * bk * f->ld(d));
    w->kt = wf_piece(&p, size * d * f->ld(bk));
    w->v = wf_piece(&p, size * bk * f->ld(e));
    w->tile.s = wf_piece(&p, size * bq * f->ld(bk));
    w->tile.temp = wf_piece(&p, size * 3 * f->ld(bk));
    w->lo = wf_piece(&p, (int64_t)sizeof(int) * bq);
    w->hi = wf_piece(&p, (int64_t)sizeof(int) * bq);
    if (wf_attention_patterned(n)) w->mask = wf_piece(&p, size * bq * f->ld(bk));
    w->tile.kt = w->kt;
    w->tile.v = w->v;
    return p.used;
}

size_t wf_attention_forward_scratch(const wf_node *n, int threads) {
    forward_space w;
    return wf_attention_front(n) + carve(NULL, n, &w) * (size_t)threads;
}

/* Row block r of a unit (sequence, key/value head): rows of one head of the group. */
typedef struct row_block {
    int64_t i0, h, next; /* first query, head, the key block it meets next */
    int rows;
} row_block;

static row_block block_at(const wf_attention_call *a, const wf_sequence *s, int64_t kv, int64_t r) {
    row_block b = {.i0 = r / a->G * a->block_q, .h = kv * a->G + r % a->G};
    int64_t left = s->q1 - s->q0 - b.i0;
    b.rows = left < a->block_q ? (int)left : a->block_q;
    b.next = wf_attention_next(a, s, b.h, r / a->G, 0);
    return b;
}

static const void *element(const wf_attention_call *a, const char *x, const int64_t stride[3], int64_t b, int64_t row,
                           int64_t head) {
    return x + (int64_t)wf_dtype_size(a->dtype) * (b * stride[0] + row * stride[1] + head * stride[2]);
}

static void start_block(const wf_attention_call *a, const wf_sequence *s, const row_block *b, forward_space *w, int x) {
    const wf_attention_kernel *f = a->kernel;
    f->pack(w->q + x * w->q_step, element(a, a->q, a->sq, s->batch, s->q0 + b->i0, b->h), a->dtype, a->sq[1], b->rows,
            (int)a->d, a->scale * a->rule.unit);
    f->fill(w->o + x * w->o_step, b->rows * f->ld(a->e), 0);
    f->fill(w->m + x * w->m_step, a->block_q, -INFINITY);
    f->fill(w->l + x * w->m_step, a->block_q, 0);
}

static void visit(const wf_attention_call *a, const wf_sequence *s, const row_block *b, forward_space *w, int x, int64_t j0,
                  int cols) {
    wf_tile t = w->tile;
    t.rows = b->rows, t.cols = cols;
    wf_attention_see(a, s, b->h, b->i0, j0, w->lo, w->hi, w->mask, &t);
    t.q = w->q + x * w->q_step;
    t.o = w->o + x * w->o_step;
    t.m = w->m + x * w->m_step;
    t.l = w->l + x * w->m_step;
    a->kernel->forward(&t);
}

static void end_block(const wf_call *c, const wf_attention_call *a, const wf_sequence *s, const row_block *b, forward_space *w,
                      int x) {
    const wf_attention_kernel *f = a->kernel;
    wf_tile t = w->tile;
    t.rule = &a->rule;
    t.rows = b->rows;
    t.m = w->m + x * w->m_step;
    t.l = w->l + x * w->m_step;
    int64_t row = s->q0 + b->i0, lse = (s->batch * a->H + b->h) * a->L + row;
    f->finish(&t, w->lse);
    f->unpack((char *)c->out[1] + f->size * lse, f->size == 8 ? WF_F64 : WF_F32, 0, w->lse, 0, 1, b->rows, 1, NULL);
    char *to = (char *)c->out[0] + (int64_t)wf_dtype_size(a->dtype) * ((s->batch * a->L + row) * a->H + b->h) * a->e;
    f->unpack(to, a->dtype, a->H * a->e, w->o + x * w->o_step, f->ld(a->e), b->rows, (int)a->e, 1, t.l);
}

/* Row blocks r0 .. r1 - 1 of a unit. */
static void forward_task(const wf_call *c, const wf_attention_call *a, const wf_sequence *s, int64_t kv, int64_t r0, int64_t r1,
                         forward_space *w) {
    const wf_attention_kernel *f = a->kernel;
    row_block b[MOST_BLOCKS];
    int n = (int)(r1 - r0);
    int64_t keys = s->k1 - s->k0, jb = WF_AT_NONE, then;
    for (int x = 0; x < n; x++) {
        b[x] = block_at(a, s, kv, r0 + x);
        start_block(a, s, &b[x], w, x);
        if (b[x].next < jb) jb = b[x].next;
    }
    for (; jb != WF_AT_NONE; jb = then) {
        int64_t j0 = jb * a->block_k;
        int cols = keys - j0 < a->block_k ? (int)(keys - j0) : a->block_k;
        f->pack(w->k, element(a, a->k, a->sk, s->batch, s->k0 + j0, kv), a->dtype, a->sk[1], cols, (int)a->d, 1);
        f->transpose(w->kt, w->k, cols, (int)a->d);
        f->pack(w->v, element(a, a->v, a->sv, s->batch, s->k0 + j0, kv), a->dtype, a->sv[1], cols, (int)a->e, 1);
        then = WF_AT_NONE;
        for (int x = 0; x < n; x++) {
            if (b[x].next == jb) {
                visit(a, s, &b[x], w, x, j0, cols);
                b[x].next = wf_attention_next(a, s, b[x].h, b[x].i0 / a->block_q, jb + 1);
            }
            if (b[x].next < then) then = b[x].next;
        }
    }
    for (int x = 0; x < n; x++) end_block(c, a, s, &b[x], w, x);
}

/* Row blocks of one unit of a sequence. */
static int64_t unit_blocks(const wf_attention_call *a, const wf_sequence *s) {
    return (s->q1 - s->q0 + a->block_q - 1) / a->block_q * a->G;
}

static int64_t count_tasks(const wf_attention_call *a, wf_sequence *seq, int64_t task_blocks) {
    int64_t tasks = 0;
    for (int i = 0; i < a->n_seq; i++) {
        seq[i].tasks_before = tasks;
        tasks += a->K * ((unit_blocks(a, &seq[i]) + task_blocks - 1) / task_blocks);
    }
    return tasks;
}

static void run_task(const wf_call *c, const wf_attention_call *a, int64_t task, int64_t task_blocks, forward_space *w) {
    int lo = 0, hi = a->n_seq; /* the last sequence with tasks_before <= task */
    while (hi - lo > 1) {
        int mid = (lo + hi) / 2;
        if (a->seq[mid].tasks_before <= task)
            lo = mid;
        else
            hi = mid;
    }
    const wf_sequence *s = &a->seq[lo];
    int64_t blocks = unit_blocks(a, s), parts = (blocks + task_blocks - 1) / task_blocks, at = task - s->tasks_before;
    int64_t part = parts - 1 - at % parts; /* under a causal mask the last rows are the longest: first */
    int64_t r0 = part * task_blocks, r1 = r0 + task_blocks < blocks ? r0 + task_blocks : blocks;
    forward_task(c, a, s, at / parts, r0, r1, w);
}

/* Rows of a packed batch that belong to no sequence. */
static void clear_unowned(const wf_call *c, const wf_attention_call *a) {
    int64_t at = 0, row = a->H * a->e * (int64_t)wf_dtype_size(a->dtype);
    for (int i = 0; i <= a->n_seq; i++) {
        int64_t to = i < a->n_seq ? a->seq[i].q0 : a->L;
        for (int64_t r = at; r < to; r++) {
            memset((char *)c->out[0] + r * row, 0, (size_t)row);
            for (int64_t h = 0; h < a->H; h++) {
                char *lse = (char *)c->out[1] + a->kernel->size * (h * a->L + r);
                a->kernel->fill(lse, 1, a->rule.normaliser == WF_NORMALISE_SOFTMAX ? -INFINITY : 0);
            }
        }
        if (i < a->n_seq && a->seq[i].q1 > at) at = a->seq[i].q1;
    }
}

wf_status wf_attention_forward(const wf_call *c, int threads) {
    wf_attention_call a;
    wf_sequence *seq = c->scratch; /* the front begins with them */
    WF_TRY(wf_attention_read(c, &a, c->scratch));
    threads = wf_attention_threads(&a, threads);
    int64_t task_blocks = blocks_of_task(a.d, a.e), tasks;
    while ((tasks = count_tasks(&a, seq, task_blocks)) < 4 * threads && task_blocks > 1) task_blocks /= 2;
    if (wf_attention_option(c->node, WF_AT_OFFSETS_Q) >= 0) clear_unowned(c, &a);
    forward_space w;
    size_t one = carve(NULL, c->node, &w);
    char *base = (char *)c->scratch + wf_attention_front(c->node);
    if (tasks < threads) threads = tasks > 1 ? (int)tasks : 1;
    int64_t next = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        forward_space mine;
        carve(base + one * (size_t)omp_get_thread_num(), c->node, &mine);
        for (int64_t t; (t = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < tasks;) run_task(c, &a, t, task_blocks, &mine);
    }
    return WF_OK;
}
