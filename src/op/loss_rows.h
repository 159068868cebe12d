/* loss_rows.h: the two row kernels of cross-entropy, one table per instruction set (src/op/simd/loss.c). */
#ifndef WF_LOSS_ROWS_H
#define WF_LOSS_ROWS_H

#include <stdbool.h>
#include <stdint.h>

/* Rows of V logits, float32 or (bf16) bfloat16 bits; arithmetic in float32, sums of blocks in float64. */
typedef struct wf_loss_rows {
    /* Returns log(sum_j e^x_j); *sum (may be NULL) receives sum_j x_j. One pass over the row. */
    double (*lse)(const void *x, bool bf16, int64_t V, double *sum);
    /* dx_j = scale (e^(x_j - lse) - shift) */
    void (*gradient)(void *dx, const void *x, bool bf16, int64_t V, float lse, float scale, float shift);
} wf_loss_rows;

extern const wf_loss_rows wf_loss_rows_generic;
#if defined(__x86_64__)
extern const wf_loss_rows wf_loss_rows_avx2, wf_loss_rows_avx512, wf_loss_rows_avx512bf16;
#endif

#endif
