/* plan.h: inside of planning, shared by plan.c (liveness, arena, execution) and fuse.c (row programs). Not for other rooms.
 *
 * Live nodes in id order -> wf_fuse -> steps in execution order -> liveness of storages -> one arena -> run.
 */
#ifndef WF_PLAN_H
#define WF_PLAN_H

#include "graph/graph.h"
#include "graph/rowprog.h"

/* One unit of execution: a plain operator's node, or a group of row operators as one program.
 * `in`: distinct nodes whose memory is read (leaves, results of other steps; views stand for themselves with their strides).
 * `out`: non-view nodes whose memory is written; nodes inside a group that nobody else reads have no memory at all. */
typedef struct wf_step {
    const wf_op *op; /* NULL for a row program */
    wf_node *node;   /* the plain operator's node; for a group its last node (scope, messages) */
    struct wf_rowprog *program;
    int n_in, n_out;
    wf_node **in, **out;
    /* may_alias[k] = j >= 0: out[k] may take over in[j]'s memory, when that memory dies at this step (-1: no). Every element
     * of in[j] is then read, for the last time, no later than the element of out[k] at the same place is written. */
    int *may_alias;
    /* filled by plan.c */
    wf_call call;
    double seconds;
    int64_t runs;
} wf_step;

/* A row program. Memory operands are addressed over the iteration space `space` (rank axes; last = columns). */
typedef enum { WF_ARG_REG, WF_ARG_MEM, WF_ARG_IMM /* the instruction's immediate */ } wf_arg_kind;
typedef struct wf_row_arg {
    wf_arg_kind kind;
    int index; /* register, or index into mem[] */
} wf_row_arg;
typedef struct wf_row_mem {
    int slot; /* index into step->in (input) or step->out (output) */
    bool output;
    wf_dtype dtype;
    int64_t stride[WF_MAX_RANK]; /* elements, over the program's axes */
} wf_row_mem;
typedef struct wf_row_instr {
    wf_row_code code;
    wf_row_arg dst, src[3];
    double imm;
    int64_t attr[2];   /* INDEX axis, UNIFORM/NORMAL stream */
    bool dst_narrow;   /* result is one number a row (reductions, arithmetic on such) */
    int64_t number[3]; /* generators: INDEX axis' stride and size, UNIFORM/NORMAL stream and bits; [2] first index */
    int index_mem;     /* generators: mem[] entry (slot -1) with the strides of the linear index */
} wf_row_instr;
typedef struct wf_rowprog {
    wf_shape space;   /* iteration space; space.dim[rank-1] = N */
    wf_dtype compute; /* WF_F32 or WF_F64 */
    int n_instr, n_mem, n_reg, n_in, n_out;
    wf_row_instr *instr;
    wf_row_mem *mem;
    bool *reg_narrow;               /* register holds [rows,1] */
    int n_accum;                    /* SUM_ROWS outputs */
    void *kernel;                   /* unused: the interpreter keeps nothing between runs */
    int64_t extra[8];               /* the fuser's and interpreter's own */
    int n_kept;                     /* the first n_kept row axes survive SUM_ROWS, the other row axes are summed over */
    int n_full, n_narrow;           /* registers: full ones first */
    bool woven;                     /* rows of the last outer axis lie between those of the inner one: better taken together */
    int64_t block_rows, block_cols; /* a block of registers; block_cols < N only without reductions over the row */
    int64_t tile_cols; /* instructions between two reductions run over this many columns after each other; 0: over all */
} wf_rowprog;

/* Group row operators among the live nodes `order` (n of them, id order, views and leaves included) and emit steps in a
 * valid execution order. keep[id]: the node's memory is wanted after the run. fuse false: one operator a step.
 * All memory comes from `arena`. Implemented in fuse.c. */
wf_status wf_fuse(wf_graph *g, wf_arena *arena, wf_node *const *order, int n, const bool *keep, bool fuse, wf_step ***steps,
                  int *n_steps);

#endif
