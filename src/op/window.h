/* window.h: inside of the window operator, shared by window.c (operator, threads) and simd/window.c (one task on one thread). */
#ifndef WF_WINDOW_H
#define WF_WINDOW_H

#include "graph/graph.h"

enum {
    WF_WINDOW_MAX = 1 << 8,  /* tokens to each side */
    WF_WINDOW_RING = 1 << 14 /* numbers that a task keeps: those of left + right + 1 columns */
};

/* Columns [from, to) of one row of results, n channels of them. */
typedef struct wf_window_task {
    const void *x;            /* element [row 0, column 0, first channel] of the sample */
    void *y;                  /* the same of the result */
    int64_t row_pitch, pitch; /* elements from row to row, from column to column */
    int64_t row, top, bottom; /* the result's row; rows that its windows cover: [top, bottom) */
    int64_t from, to, columns, left, right, n;
    const double *row_share, *column_share; /* 1 / how many rows and columns a window has; NULL: plain sums */
    bool adjoint;                           /* they multiply what is summed (by its own place), not the sums */
    bool minus_self;
    bool wide; /* double, not float */
} wf_window_task;

typedef void (*wf_window_fn)(const wf_window_task *t);
extern const wf_window_fn wf_window_generic;
#if defined(__x86_64__)
extern const wf_window_fn wf_window_avx2, wf_window_avx512, wf_window_avx512bf16;
#endif

/* Channels of a task, so that its ring stays in the L1 cache or near it: a multiple of 32 below D, or D. */
static inline int64_t wf_window_channels(int64_t left, int64_t right, int64_t D) {
    int64_t fit = WF_WINDOW_RING / 2 / (left + right + 1) / 32 * 32;
    fit = fit < 32 ? 32 : fit;
    return fit < D ? fit : D;
}

#endif
