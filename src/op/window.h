/* window.h: inside of the window operator, shared by window.c (operator, threads) and simd/window.c (one task on one thread). */
#ifndef WF_WINDOW_H
#define WF_WINDOW_H

#include "graph/graph.h"

enum { WF_WINDOW_COLUMNS = 64, WF_WINDOW_CHANNELS = 64, WF_WINDOW_MAX = 1 << 8 /* of each side */ };

/* Columns [from, to) of one row of results, `n` <= WF_WINDOW_CHANNELS channels of them. */
typedef struct wf_window_task {
    const void *x;            /* element [row 0, column 0, first channel] of the sample */
    void *y;                  /* the same of the result */
    int64_t row_pitch, pitch; /* elements from row to row, from column to column */
    int64_t row, top, bottom; /* the result's row; rows that its windows cover: [top, bottom) */
    int64_t from, to, columns, left, right;
    int n;
    const double *row_share, *column_share; /* 1 / how many rows and columns a window has; NULL: plain sums */
    bool adjoint;                           /* they multiply what is summed (by its own place), not the sums */
    double minus;                           /* times x itself, subtracted */
    bool wide;                              /* double, not float */
} wf_window_task;

typedef void (*wf_window_fn)(const wf_window_task *t);
extern const wf_window_fn wf_window_generic;
#if defined(__x86_64__)
extern const wf_window_fn wf_window_avx2, wf_window_avx512, wf_window_avx512bf16;
#endif

#endif
