/* dnn_product.c: cuts a product into blocks of C by its shape alone, one oneDNN primitive of one thread a block, so that the
 * result does not depend on the number of threads (oneDNN itself may split k over threads). A product with many rows first
 * reorders B into the primitive's own layout, each block of columns once for all blocks of rows.
 */
#include "op/dnn_product.h"
#include "op/dnn.h"
#include <omp.h>
#include <stdatomic.h>
#include <string.h>

enum {
    ROWS_MAX = 256,
    ROWS_MIN = 64,
    COLS_MAX = 512,
    COLS_MIN = 128,
    ROW_UNIT = 16,
    COL_UNIT = 64,
    TASKS = 32,
    PACK_ROWS = 256
};

struct wf_dnn_product {
    wf_product p;
    int threads;
    int64_t bm, bn, rows, cols; /* a block, and how many of them there are down and across */
    wf_dnn *block[2][2];        /* [last row of blocks][last column of blocks] */
    wf_dnn *pack[2];            /* [last column]: B into the primitive's layout; NULL: B is used as it is */
    size_t work, packed;        /* one thread's work memory; one packed block of columns */
};

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static void cut(wf_dnn_product *d) {
    const wf_product *p = &d->p;
    d->bm = ROWS_MAX, d->bn = COLS_MAX;
    while (d->bm > ROWS_MIN && ceil_div(p->m, d->bm) * ceil_div(p->n, d->bn) * p->batch < TASKS) {
        d->bm /= 2;
        if (d->bn > COLS_MIN) d->bn /= 2;
    }
    d->bm = ceil_div(ceil_div(p->m, ceil_div(p->m, d->bm)), ROW_UNIT) * ROW_UNIT;
    d->bn = ceil_div(ceil_div(p->n, ceil_div(p->n, d->bn)), COL_UNIT) * COL_UNIT;
    d->rows = ceil_div(p->m, d->bm);
    d->cols = ceil_div(p->n, d->bn);
}

static wf_dnn_matrix b_block(const wf_dnn_product *d, int last_col) {
    const wf_product *p = &d->p;
    int64_t cols = last_col ? p->n - (d->cols - 1) * d->bn : d->bn;
    return (wf_dnn_matrix){p->b_type, p->k, cols, p->b_rs, p->b_cs};
}

static wf_dnn *make_block(const wf_dnn_product *d, int last_row, int last_col, bool packed) {
    const wf_product *p = &d->p;
    wf_dnn_matrix b = b_block(d, last_col);
    int64_t rows = last_row ? p->m - (d->rows - 1) * d->bm : d->bm;
    wf_dnn_matrix a = {p->a_type, rows, p->k, p->a_rs, p->a_cs}, c = {p->c_type, rows, b.cols, p->n, 1};
    return wf_dnn_matmul(&a, &b, &c, p->bias ? &p->bias_type : NULL, packed);
}

/* The four shapes of block; a shape that does not occur stays NULL. */
static bool make_blocks(wf_dnn_product *d, bool packed) {
    for (int r = 0; r < 2; r++)
        for (int c = 0; c < 2; c++) {
            if ((r == 0 && d->rows == 1) || (c == 0 && d->cols == 1)) continue;
            if (!(d->block[r][c] = make_block(d, r, c, packed))) return false;
            size_t work = (wf_dnn_work(d->block[r][c]) + 63) & ~(size_t)63;
            if (work > d->work) d->work = work;
        }
    return true;
}

static void drop_blocks(wf_dnn_product *d) {
    for (int i = 0; i < 4; i++) {
        wf_dnn_free(d->block[i / 2][i % 2]);
        d->block[i / 2][i % 2] = NULL;
    }
    for (int i = 0; i < 2; i++) {
        wf_dnn_free(d->pack[i]);
        d->pack[i] = NULL;
    }
    d->work = d->packed = 0;
}

/* With B in the primitives' own layout, on which all blocks of a column of blocks must agree. */
static bool make_packed(wf_dnn_product *d) {
    if (d->p.batch != 1 || d->p.m < PACK_ROWS || !make_blocks(d, true)) return false;
    for (int c = 0; c < 2; c++) {
        wf_dnn *block = d->block[1][c];
        if (!block) continue;
        if (d->block[0][c] && !wf_dnn_same_b(d->block[0][c], block)) return false;
        size_t bytes = (wf_dnn_packed_bytes(block) + 63) & ~(size_t)63;
        wf_dnn_matrix b = b_block(d, c);
        if (!bytes || !(d->pack[c] = wf_dnn_pack_b(&b, block))) return false;
        if (bytes > d->packed) d->packed = bytes;
        size_t work = (wf_dnn_work(d->pack[c]) + 63) & ~(size_t)63;
        if (work > d->work) d->work = work;
    }
    return true;
}

wf_dnn_product *wf_dnn_product_new(const wf_product *p, int threads) {
    if (p->m == 0 || p->n == 0 || p->k == 0 || p->batch == 0) {
        wf_fail(WF_EUNSUPPORTED, "an empty product needs no oneDNN");
        return NULL;
    }
    wf_dnn_product *d = wf_alloc(sizeof *d);
    if (!d) return NULL;
    d->p = *p;
    d->threads = threads;
    cut(d);
    if (make_packed(d)) return d;
    drop_blocks(d);
    if (make_blocks(d, false)) return d;
    wf_dnn_product_free(d);
    return NULL;
}

void wf_dnn_product_free(wf_dnn_product *d) {
    if (!d) return;
    drop_blocks(d);
    wf_free(d);
}

size_t wf_dnn_product_scratch(const wf_dnn_product *d) {
    return (size_t)d->cols * d->packed + (size_t)d->threads * d->work;
}

static const char *element(const void *p, wf_dtype t, int64_t i) {
    return (const char *)p + i * (int64_t)wf_dtype_size(t);
}

static wf_status run_block(const wf_dnn_product *d, int64_t task, const void *a, const void *b, const void *bias, void *c,
                           char *packed, void *work) {
    const wf_product *p = &d->p;
    int64_t row = task % d->rows, col = task / d->rows % d->cols, item = task / d->rows / d->cols, ao, bo;
    wf_product_item(p, item, &ao, &bo);
    int64_t i = row * d->bm, j = col * d->bn;
    bool last_col = col == d->cols - 1;
    const char *from = d->packed ? packed + (size_t)col * d->packed : element(b, p->b_type, bo + j * p->b_cs);
    void *args[4] = {(void *)element(a, p->a_type, ao + i * p->a_rs), (void *)from,
                     (void *)element(c, p->c_type, (item * p->m + i) * p->n + j),
                     p->bias ? (void *)element(bias, p->bias_type, j) : NULL};
    return wf_dnn_run(d->block[row == d->rows - 1][last_col], args, work);
}

/* Threads take tasks one by one; the first failure is kept with its message's status. */
wf_status wf_dnn_product_run(const wf_dnn_product *d, int threads, const void *a, const void *b, const void *bias, void *c,
                             void *scratch) {
    char *packed = scratch, *works = packed + (size_t)d->cols * d->packed;
    int64_t tasks = d->rows * d->cols * d->p.batch;
    atomic_int failed = WF_OK;
    if (threads > d->threads) threads = d->threads;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        void *work = d->work ? works + (size_t)omp_get_thread_num() * d->work : NULL;
        if (d->packed) {
#pragma omp for schedule(dynamic, 1)
            for (int64_t col = 0; col < d->cols; col++) {
                void *args[2] = {(void *)element(b, d->p.b_type, col * d->bn * d->p.b_cs), packed + (size_t)col * d->packed};
                wf_status s = wf_dnn_run(d->pack[col == d->cols - 1], args, work);
                if (s != WF_OK) atomic_store(&failed, (int)s);
            }
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < tasks; task++) {
            wf_status s = run_block(d, task, a, b, bias, c, packed, work);
            if (s != WF_OK) atomic_store(&failed, (int)s);
        }
    }
    wf_status s = (wf_status)atomic_load(&failed);
    return s == WF_OK ? s
                      : wf_fail(s, "matmul: oneDNN failed on a block of [%lld, %lld]", (long long)d->p.m, (long long)d->p.n);
}
