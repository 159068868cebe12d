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

/* A chain: instructions of which each goes on with what the one before it has in hand. A few vectors at a time go through all of them
 * without leaving the registers of the machine. `a` is what is in hand, x and y are operands of the instruction. */
typedef enum wf_chain_code {
    WF_CHAIN_NONE = 0,
    WF_CHAIN_LOAD,  /* a = x */
    WF_CHAIN_STORE, /* x = a */
    WF_CHAIN_NEG,
    WF_CHAIN_SQUARE,
    WF_CHAIN_ADD,
    WF_CHAIN_SUB,
    WF_CHAIN_RSUB, /* x - a */
    WF_CHAIN_MUL,
    WF_CHAIN_MUL_ADD,       /* a x + y */
    WF_CHAIN_MUL_RSUB,      /* y - a x */
    WF_CHAIN_ADD_MUL,       /* x y + a */
    WF_CHAIN_SUB_MUL,       /* a - x y */
    WF_CHAIN_RSUB_MUL,      /* x y - a */
    WF_CHAIN_ADD_TO,        /* x += a, the sums over rows */
    WF_CHAIN_ADD_TO_MUL,    /* x += a y */
    WF_CHAIN_ADD_TO_SQUARE, /* x += a a */
    WF_CHAIN_SUM,           /* over the row, the last step: a, a x, a a */
    WF_CHAIN_DOT,
    WF_CHAIN_SUM_SQUARE,
    WF_CHAIN_EXP,
    WF_CHAIN_TANH,
    WF_CHAIN_ERF,
    WF_CHAIN_SIGMOID,
} wf_chain_code;
enum { WF_CHAIN_STEPS = 6 };

typedef struct wf_chain_operand {
    void *const *p; /* where its address is; NULL: none */
    int64_t pitch;  /* from row to row */
    bool one;       /* one number a row, else numbers side by side */
} wf_chain_operand;
typedef struct wf_chain_step {
    wf_chain_code code;
    wf_chain_operand x, y;
} wf_chain_step;
typedef struct wf_chain wf_chain;
typedef struct wf_chain_run wf_chain_run;
typedef void (*wf_chain_fn)(const wf_chain *c, const wf_chain_run *run);
struct wf_chain {
    wf_chain_fn fn;
    int n_step;
    wf_chain_step *step;
    const wf_row_args *sum; /* of the reduction, NULL: there is none */
};
struct wf_chain_run { /* rows and columns of the block; first and last tile of the row */
    int64_t row, rows, col, n;
    bool begins, ends;
};
typedef struct wf_chain_kernel {
    wf_chain_code code[WF_CHAIN_STEPS];
    wf_chain_fn fn;
} wf_chain_kernel;

typedef struct wf_row_kernels {
    wf_row_fn op[WF_ROW_CODES][8];
    wf_row_fn round[WF_DTYPES];    /* d = s as dtype would hold it */
    wf_row_fn load[WF_DTYPES];     /* d (vector) = s in memory, converted; step 1 or any */
    wf_row_fn store[WF_DTYPES];    /* memory d = s (vector), converted; step 1 or any */
    wf_row_fn stream;              /* memory d = s, same type, past the caches */
    int lanes;                     /* numbers in a vector */
    wf_row_fn sum_rows_narrow;     /* *(double *)d += sum of s[0..n) */
    const wf_chain_kernel *chains; /* n_chains of them */
    int n_chains;
} wf_row_kernels;

extern const wf_row_kernels wf_row_kernels_generic, wf_row_kernels_avx2, wf_row_kernels_avx512, wf_row_kernels_avx512bf16;
extern const wf_row_kernels wf_row_kernels_double;

#endif
