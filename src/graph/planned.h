/* planned.h: what a plan is made of, shared by plan.c (what runs, in which order), place.c (where results live), exec.c (runs)
 * and account.c (cost and text). Not for other rooms.
 */
#ifndef WF_PLANNED_H
#define WF_PLANNED_H

#include "graph/inside.h"
#include "graph/plan.h"

/* Memory of one node that is not a view: a leaf's tensor or a piece of the arena. Alive from step `first` to step `last`,
 * both included; last = n_steps: still wanted after the run. */
typedef struct wf_storage {
    wf_node *owner;
    wf_tensor *leaf; /* the memory is this tensor's */
    wf_node *leaf_node;
    size_t bytes;
    int first, last;
    int buffer; /* index of the piece of arena, -1: leaf */
} wf_storage;

typedef struct wf_buffer { /* a piece of the arena, taken by one storage after the other (in place) */
    size_t bytes, offset;
    int first, last;
} wf_buffer;

/* A pointer that follows a leaf's tensor: refreshed before every run. */
typedef struct wf_patch {
    void **slot;
    const wf_node *leaf;
    size_t offset;
} wf_patch;

/* An assignment: direct (the value's step writes the leaf's memory), or a copy behind step `after` (n_steps: at the very end). */
typedef struct wf_assignment {
    wf_node *node, *leaf, *value;
    bool direct;
    int after;
    int snapshot; /* storage that keeps a value which is itself (part of) an assigned leaf; -1: none */
} wf_assignment;

/* A step of the plan's own: dense bytes from one storage to another. It has no in and out nodes. */
typedef struct wf_copy {
    wf_step step;
    int from, to;
    size_t offset; /* in `from` */
} wf_copy;

/* A plain operator's step has in = node->in and out[k] = its output k, NULL when nobody asked for it. */
struct wf_plan {
    wf_graph *graph;
    wf_plan_options options;
    wf_arena *arena; /* of this struct's arrays */
    int n_ids;       /* nodes of the graph when it was planned */
    wf_node **order; /* live nodes in id order, without assignments */
    int n_order;
    bool *keep;    /* by id */
    wf_node **out; /* results, dense */
    void **out_data;
    int *out_snapshot; /* storage that keeps an out from being overwritten by an assignment, -1: none */
    int n_out;
    wf_assignment *assign;
    int n_assign;
    wf_step **step;
    int n_steps;
    int *storage_of; /* by id of a base node, -1: none */
    wf_storage *storage;
    int n_storages, cap_storages;
    wf_buffer *buffer;
    int n_buffers;
    wf_patch *patch;
    int n_patches, cap_patches;
    char *memory;
    size_t memory_bytes, arena_bytes, scratch_bytes, leaf_bytes, live_bytes; /* live_bytes: most that is alive at one step */
    bool profile;
    uint32_t *seen; /* by id, for walks */
    uint32_t stamp;
};

/* Index of the storage that holds n's elements, -1 if none. */
int wf_storage_of(const wf_plan *p, const wf_node *n);
/* A new piece of memory that no node owns; -1 without memory. */
int wf_storage_extra(wf_plan *p, size_t bytes, int first, int last);
/* May out[k] take over in[j]'s memory? */
bool wf_step_allows(const wf_step *s, int k, int j);
/* The step as a copy, NULL if it is none. */
wf_copy *wf_step_copy(wf_step *s);

/* place.c: liveness, assignments, in-place reuse, offsets. */
wf_status wf_place(wf_plan *p);
/* Offsets for n buffers such that buffers alive at the same step do not overlap; returns the bytes needed. Exact multiples of 64. */
wf_status wf_place_offsets(wf_buffer *b, int n, int n_steps, size_t *bytes, size_t *live);

/* account.c: the operators that a step computes, in id order; the array belongs to the caller (wf_free). */
wf_node **wf_step_members(wf_plan *p, const wf_step *s, int *n);
/* "matmul", "rows(mul add exp)" */
void wf_step_name(wf_plan *p, const wf_step *s, wf_text *t);

#endif
