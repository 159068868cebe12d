/* rows_kernel.h: what an instruction of a row program hands to its kernel. One kernel works on a block of rows, for one
 * instruction, one arrangement of operands and one instruction set. */
#ifndef WF_ROWS_KERNEL_H
#define WF_ROWS_KERNEL_H

#include "graph/rowprog.h"

/* d and s are the first element of the block; pitches are from row to row, in elements. An operand is either a vector (n numbers
 * a row, side by side) or one number a row; the kernel table is indexed by the set of operands that are one number. */
typedef struct wf_row_args {
    void *d;
    const void *s[3];
    int64_t dp, sp[3];
    int64_t rows, n;
    double imm;
    float imm_f;       /* an immediate operand of a float program points here, of a double program at imm */
    int64_t step;      /* strided loads and stores: from element to element; generators: from column to column */
    int64_t index;     /* generators: linear index of the block's first element; sp[1] from row to row */
    int64_t number[3]; /* generators: axis' stride and size, or stream and bits */
    double *total;     /* reductions of a row in tiles: what is known so far, a number a row; NULL: the row is whole */
    bool begins, ends; /* with total: first tile, last tile (d is written) */
} wf_row_args;
typedef void (*wf_row_fn)(const wf_row_args *a);

typedef struct wf_row_kernels {
    wf_row_fn op[WF_ROW_CODES][8];
    wf_row_fn round[WF_DTYPES]; /* d = s as dtype would hold it */
    wf_row_fn load[WF_DTYPES];  /* d (vector) = s in memory, converted; step 1 or any */
    wf_row_fn store[WF_DTYPES]; /* memory d = s (vector), converted; step 1 or any */
    wf_row_fn stream;           /* memory d = s, same type, past the caches */
    int lanes;                  /* numbers in a vector */
    wf_row_fn sum_rows_narrow;  /* *(double *)d += sum of s[0..n) */
} wf_row_kernels;

extern const wf_row_kernels wf_row_kernels_generic, wf_row_kernels_avx2, wf_row_kernels_avx512, wf_row_kernels_avx512bf16;
extern const wf_row_kernels wf_row_kernels_double;

#endif
