/* rows_bound.h: instructions bound to one thread's registers and to memory, shared by rows_block.c (binds and runs them) and
 * rows_chain.c (finds those that run together). */
#ifndef WF_ROWS_BOUND_H
#define WF_ROWS_BOUND_H

#include "op/rows_run.h"

typedef struct wf_bound_patch {
    const void **where;
    int mem;
} wf_bound_patch;

typedef struct wf_bound_instr {
    wf_row_fn fn;
    wf_row_args arg;
    int lines;          /* of the next block, to be asked for before the instruction */
    int pad;            /* lanes behind the last row of a narrow register that repeat its number */
    int ones;           /* set of operands that are one number a row */
    bool fast;          /* once a row: cheap, and not to be tiled */
    int64_t advance[4]; /* bytes from column to column of d and s[] */
    int chained;        /* so many instructions, this one first, run as `chain`; 0: it runs alone */
    bool flat;          /* the chain has no gap between rows */
    wf_chain chain;
} wf_bound_instr;

struct wf_bound {
    int n_patch, n_fetch;
    wf_bound_instr *instr;
    wf_bound_patch *patch;
    wf_chain_step *step;
    int *fetch;     /* operands in memory that are at another place in each block */
    char **address; /* by operand in memory: where the block begins */
};

static inline bool wf_reduces(int code) {
    return code == WF_ROW_SUM || code == WF_ROW_AMAX || code == WF_ROW_AMIN || code == WF_ROW_DOT;
}
static inline bool wf_generates(int code) {
    return code == WF_ROW_INDEX || code == WF_ROW_UNIFORM || code == WF_ROW_NORMAL;
}
static inline bool wf_same_place(wf_row_arg a, wf_row_arg b) {
    return a.kind == b.kind && a.index == b.index && a.index >= 0 && a.kind != WF_ARG_IMM;
}

/* rows_chain.c: memory for the steps of a program's chains; find the chains among bound instructions. */
size_t wf_chain_bytes(const wf_rowprog *p);
void wf_chain_find(wf_run_thread *t);

#endif
