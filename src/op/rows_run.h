/* rows_run.h: inside of the interpreter: rows.c (tasks, threads, sums over rows) and rows_block.c (a thread runs one block). */
#ifndef WF_ROWS_RUN_H
#define WF_ROWS_RUN_H

#include "op/rows.h"
#include "op/rows_kernel.h"

/* What is known before a run; derived from the program alone. */
typedef struct wf_run_shape {
    const wf_rowprog *p;
    int rank, n_outer;          /* outer axes: all row axes but the inner one */
    int64_t n, inner, outer;    /* columns; size of the inner axis; product of the outer ones */
    int64_t rows, cols, pieces; /* block; pieces of columns */
    int64_t blocks_inner;       /* blocks along the inner axis */
    size_t size;                /* of a number in registers */
    bool sums;                  /* over rows: */
    int64_t kept, summed_blocks, segments;
    int64_t tasks;                                                 /* blocks, or segments of sums */
    size_t accum_bytes;                                            /* of one task */
    int64_t tile;                                                  /* columns; at least cols: not tiled */
    size_t bound_bytes, register_bytes, total_bytes, thread_bytes; /* scratch of one thread */
} wf_run_shape;

/* Where a block is: outer coordinates, first row and number of rows along the inner axis, first column and their number. */
typedef struct wf_run_at {
    int64_t outer[WF_MAX_RANK];
    int64_t row, rows, col, width;
} wf_run_at;

/* One thread's view: instructions bound to registers and memory. */
typedef struct wf_run_thread {
    const wf_run_shape *s;
    const wf_call *call;
    const wf_row_kernels *k;
    struct wf_bound *bound;
    char *reg, *accum;
    double *total;       /* of reductions in tiles: rows numbers for each */
    int64_t rows, width; /* of the blocks that instructions are bound for */
} wf_run_thread;

static inline bool wf_accumulates(int code) {
    return code == WF_ROW_SUM_ROWS || code == WF_ROW_DOT_ROWS;
}
static inline size_t wf_run_pad(size_t bytes) {
    return (bytes + 63) & ~(size_t)63;
}
/* Bytes of an accumulation's sums. */
static inline size_t wf_run_sum_bytes(const wf_run_shape *s, const wf_row_instr *in) {
    return wf_run_pad(in->dst_narrow ? 8 : (size_t)s->cols * s->size);
}

size_t wf_run_bound_bytes(const wf_rowprog *p);
/* Lay out a thread's scratch, thread_bytes long and aligned to 64. */
void wf_run_open(wf_run_thread *t, const wf_run_shape *s, const wf_call *c, const wf_row_kernels *k, char *scratch);
void wf_run_block(wf_run_thread *t, const wf_run_at *at);
/* Memory of operand m where the block begins. */
char *wf_run_address(const wf_run_thread *t, const wf_row_mem *m, const wf_run_at *at);

#endif
