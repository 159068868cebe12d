/* gemm.h: the engine's own matrix product, packed and tiled after Goto and van de Geijn 2008 / BLIS (Van Zee 2015).
 *
 *     C[m,n] = A[m,k] B[k,n] (+ bias[n]), for every item of a batch, any strides, float32 / bfloat16 / int8 operands
 *
 * gemm.c cuts the product into blocks and shares them among threads; simd/gemm.c holds the micro-kernel and the packing.
 * Packing turns every operand into float32, so there is one micro-kernel; products of int8 are exact in it (see gemm.c).
 * Every element of C is one chain of multiply-adds in ascending k, cut at multiples of kc: its bits depend neither on the
 * number of threads nor on where in a block it lies.
 */
#ifndef WF_GEMM_H
#define WF_GEMM_H

#include "graph/graph.h"

#define WF_GEMM_BATCH_AXES (WF_MAX_RANK - 2)

/* A product as the operator sees it. Strides are in elements; C is dense: item after item, row after row. */
typedef struct wf_product {
    int64_t m, n, k;
    wf_dtype a_type, b_type, c_type, bias_type;
    int64_t a_rs, a_cs, b_rs, b_cs; /* A[i,p] at i*a_rs + p*a_cs, B[p,j] at p*b_rs + j*b_cs */
    int n_axes;                     /* batch axes and each operand's strides along them */
    int64_t dim[WF_GEMM_BATCH_AXES], a_bs[WF_GEMM_BATCH_AXES], b_bs[WF_GEMM_BATCH_AXES];
    int64_t batch;
    bool bias;
} wf_product;

/* Where item `index` of the batch starts in each operand, in elements. */
void wf_product_item(const wf_product *p, int64_t index, int64_t *a, int64_t *b);

/* How a product is cut. Depends on the thread count; the result's bits do not. */
typedef struct wf_gemm_plan {
    wf_product product;
    int threads;
    bool by_item;                                    /* threads take whole items of the batch instead of sharing each one */
    int64_t kc, nc, ms;                              /* depth, columns and rows of one packed stage */
    int64_t mc, split;                               /* a stage's tasks: blocks of mc rows, times `split` ranges of columns */
    size_t a_bytes, b_bytes, part_bytes, bias_bytes; /* one thread's A block, one stage's B, float32 sums, bias */
    size_t scratch;
} wf_gemm_plan;

void wf_gemm_plan_make(wf_gemm_plan *plan, const wf_product *p, int threads);
/* threads: at most plan->threads are used. scratch: plan->scratch bytes, 64-byte aligned. */
void wf_gemm_run(const wf_gemm_plan *plan, int threads, const void *a, const void *b, const void *bias, void *c, void *scratch);

/* ---- what simd/gemm.c provides, once per instruction set ---- */

/* One micro-tile: rows x cols <= mr x nr of C, k deep. */
typedef struct wf_gemm_tile {
    int64_t k;
    const float *a, *b; /* panels: a[p*mr + i], b[p*nr + j] */
    int rows, cols;
    const void *part; /* sums of earlier stages to add (int32 when type is WF_I32, else float32), NULL: none; may be c */
    void *c;
    int64_t ld_part, ldc;
    wf_dtype type;     /* of c: WF_F32, WF_BF16, WF_I32 */
    const float *bias; /* cols numbers, or NULL */
} wf_gemm_tile;

typedef struct wf_gemm_kernels {
    int mr, nr, kc; /* tile; kc: depth of a stage, at most 512 (int8 must stay exact) */
    void (*tile)(const wf_gemm_tile *t);
    /* Panels of `width` lines (mr rows of A or nr columns of B), each k deep: dst[(l / width)*width*k + p*width + l % width] =
     * src[l*line + p*step]; missing lines of the last panel are 0. dst has room for 8 floats more. */
    void (*pack)(float *dst, int width, const void *src, wf_dtype type, int64_t line, int64_t step, int64_t lines, int64_t k);
    void (*to_f32)(float *dst, const void *src, wf_dtype type, int64_t n); /* n dense numbers */
} wf_gemm_kernels;
const wf_gemm_kernels *wf_gemm_best(void); /* for wf_isa() */

#endif
