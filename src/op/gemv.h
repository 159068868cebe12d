/* gemv.h: products with a few rows only (decoding): every weight is read once, so what counts is memory bandwidth.
 *
 *     y[i,o] = sum_k x[i,k] w[o,k] + bias[o],   x [M,K] with M small, w [O,K] with either axis contiguous
 *
 * gemv.c shares the rows (or columns) of w among threads, in blocks that do not depend on their number; simd/gemv.c holds the
 * kernels. float32 and bfloat16 weights are summed in float32, int8 in int32.
 */
#ifndef WF_GEMV_H
#define WF_GEMV_H

#include "op/gemm.h"

enum { WF_GEMV_ROWS = 4 }; /* rows of x that one call of a kernel takes */

typedef struct wf_gemv_plan {
    wf_product product;
    bool swapped;       /* x is b^T and w is a: few columns instead of few rows */
    int64_t rows, outs; /* M and O */
    bool dots;          /* k is contiguous in w: a dot product an output; else w is swept row by row */
    int64_t block;      /* outputs that one task computes */
    size_t x_bytes;     /* x of the whole batch in float32, when it is not so already */
    size_t scratch;
    int threads;
} wf_gemv_plan;

/* Whether p is such a product and gains by it; fills the plan. */
bool wf_gemv_plan_make(wf_gemv_plan *plan, const wf_product *p, int threads);
void wf_gemv_run(const wf_gemv_plan *plan, int threads, const void *a, const void *b, const void *bias, void *c, void *scratch);

/* ---- what simd/gemv.c provides, once per instruction set. y is [rows, ldy], rows <= WF_GEMV_ROWS ---- */
typedef struct wf_gemv_kernels {
    /* Puts a row of x into the order in which dot reads bfloat16 weights. */
    void (*pair)(float *x, int64_t k);
    /* w[o*ldw + k], k contiguous; x[i*ldx + k], put in order by pair when w is bfloat16 */
    void (*dot)(float *y, int64_t ldy, const float *x, int64_t ldx, int rows, const void *w, wf_dtype type, int64_t ldw,
                int64_t outs, int64_t k);
    /* w[k*ldw + o], o contiguous */
    void (*sweep)(float *y, int64_t ldy, const float *x, int64_t ldx, int rows, const void *w, wf_dtype type, int64_t ldw,
                  int64_t outs, int64_t k);
    /* int8 w[o*ldw + k], k contiguous; x int8 or (unsigned_x) uint8 */
    void (*dot_i8)(int32_t *y, int64_t ldy, const void *x, bool unsigned_x, int64_t ldx, int rows, const int8_t *w, int64_t ldw,
                   int64_t outs, int64_t k);
} wf_gemv_kernels;

#endif
