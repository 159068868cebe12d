/* fuse.h: inside of the fuser: fuse.c (which operators share a program), fuse_again.c (what a program computes again instead of
 * reading), fuse_space.c (addresses over a common iteration space), fuse_build.c (operators -> values), fuse_peep.c (peepholes),
 * fuse_lower.c (values -> instructions, registers, blocks). */
#ifndef WF_FUSE_H
#define WF_FUSE_H

#include "graph/plan.h"

/* ---- iteration spaces ---- */

typedef enum { WF_FIT_NO, WF_FIT_FULL, WF_FIT_NARROW } wf_fit_class;

/* The axes over which a row operator runs: its input's for reductions, its result's otherwise. */
const wf_shape *wf_iteration_shape(const wf_node *n);
/* Space of an operator alone: axes of size 1 dropped, but for the columns. */
wf_shape wf_iteration_space(const wf_node *n);
int64_t wf_space_rows(const wf_shape *space);
static inline int64_t wf_space_cols(const wf_shape *space) {
    return space->dim[space->rank - 1];
}
/* Can n run over `space`? FULL: an element of n's iteration shape for each element; NARROW: one for each row. */
wf_fit_class wf_fit_in(const wf_node *n, const wf_shape *space);
/* Element strides of n's operand x, or of n's result, over the space; false when the space cuts n's axes unsuitably. */
bool wf_operand_strides(const wf_node *n, const wf_node *x, const wf_shape *space, wf_fit_class c, int64_t *stride);
bool wf_result_strides(const wf_node *n, const wf_shape *space, wf_fit_class c, int64_t *stride);
bool wf_same_strides(const wf_shape *space, const int64_t *a, const int64_t *b);

static inline bool wf_is_row_reduction(int code) {
    return code == WF_ROW_SUM || code == WF_ROW_AMAX || code == WF_ROW_AMIN || code == WF_ROW_DOT;
}
static inline bool wf_is_accumulation(int code) {
    return code == WF_ROW_SUM_ROWS || code == WF_ROW_DOT_ROWS;
}
static inline bool wf_is_generator(int code) {
    return code == WF_ROW_INDEX || code == WF_ROW_UNIFORM || code == WF_ROW_NORMAL;
}
static inline bool wf_is_row(const wf_node *n) {
    return n->op && n->op->flags & WF_OP_ROW;
}

/* ---- groups ---- */

/* A group of row operators, or one plain operator. */
typedef struct wf_unit {
    bool row, gone;      /* gone: merged into another unit */
    int *member, n, cap; /* node ids, ascending */
    int index;
    wf_shape space;
    wf_dtype compute;
    int slot;      /* bit of the unit in masks while others may join it, -1 */
    uint64_t mask; /* slots of the units that this one depends on */
    bool emitted;
    int mark; /* times its dependences were put before it */
} wf_unit;

/* An operator of one group that another group computes once more for itself. */
typedef struct wf_repeat {
    int unit, id;
} wf_repeat;

typedef struct wf_fuser {
    wf_graph *g;
    wf_arena *arena;
    wf_node *const *order;
    int n, n_ids;
    const bool *keep;
    bool fuse;
    int *unit_of;            /* by id; -1: leaf, view or computed where it is read */
    bool *cloned;            /* by id: computed again by each reader (WF_OP_CHEAP) */
    int *reader_at, *reader; /* readers of base node b: reader[reader_at[b] .. reader_at[b+1]) */
    int *last_reader;        /* by id of a base: the row operator that read it last */
    wf_unit **unit;
    int n_units;
    wf_unit *open[64];
    int last_plain;  /* id of the last plain operator so far */
    wf_node **write; /* operators that write in place */
    int n_writes;
    wf_repeat *repeat;
    int n_repeat, cap_repeat;
} wf_fuser;

/* Memory inputs of n behind operands that are computed in place of being read: calls `see` for each. */
typedef void (*wf_see_input)(void *ctx, wf_node *reader, wf_node *x);
void wf_each_input(wf_fuser *f, wf_node *n, wf_see_input see, void *ctx);

/* Whose storage it is: views and writes in place go back to the node that owns the memory. */
const wf_node *wf_memory_owner(const wf_node *n);
/* Operands that are computed in place of being read have addresses over the space, too. */
bool wf_try_clones(const wf_fuser *f, const wf_node *n, const wf_shape *space, wf_fit_class fit);

/* fuse_again.c: let groups compute cheap operators of other groups once more where that moves fewer bytes; once groups are settled. */
wf_status wf_repeat_cheap(wf_fuser *f);
/* Does the unit compute node `id`, whose home is another unit, once more? */
bool wf_repeats(const wf_fuser *f, int unit, int id);

/* Is the member's result wanted in memory? */
bool wf_needs_memory(const wf_fuser *f, const wf_node *n);

/* fuse_build.c: the unit as a step; NULL when nothing of it is wanted in memory. */
wf_status wf_build_step(wf_fuser *f, wf_unit *u, wf_step **step);

/* ---- values: a program before registers and instructions are settled ---- */

typedef struct wf_value {
    wf_row_code code; /* NONE: an operand in memory */
    int src[3];       /* values, -1 */
    double imm;
    int64_t attr, number[3]; /* attr: dtype + 1 to round to (COPY) */
    bool narrow;             /* one number a row */
    int mem;                 /* operand in memory, or linear index of a generator; index into mem, -1 */
    int out;                 /* written to this mem, -1 */
    int uses;
} wf_value;

typedef struct wf_builder {
    wf_fuser *f;
    wf_unit *unit;
    wf_shape space;            /* axes, then their final order */
    bool reduced[WF_MAX_RANK]; /* axes summed over by SUM_ROWS */
    wf_value *value;
    int n_value, cap_value;
    wf_row_mem *mem;
    const wf_node **mem_node; /* the node whose memory it is; NULL for linear indices */
    int n_mem, cap_mem;
    int *value_of; /* by member, parallel to unit->member; -1 */
    bool *wanted;  /* by member */
    bool woven;    /* the last two row axes changed places */
    wf_node **in, **out;
    int n_in, n_out, cap_in;
    bool failed; /* out of memory */
} wf_builder;

int wf_value_new(wf_builder *b, const wf_value *v);
int wf_value_constant(wf_builder *b, double c);
static inline bool wf_value_used(const wf_value *v) {
    return v->uses > 0 || v->out >= 0;
}

/* fuse_peep.c: copies, constants, equal values, multiply-add chains; counts uses. */
void wf_peephole(wf_builder *b);

/* fuse_lower.c */
wf_status wf_lower(wf_builder *b, wf_step *step);

#endif
