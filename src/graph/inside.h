/* inside.h: the graph's own memory, shared by graph.c, grad.c, remat.c and plan.c. Not for other rooms. */
#ifndef WF_GRAPH_INSIDE_H
#define WF_GRAPH_INSIDE_H

#include "graph/graph.h"

typedef struct wf_scope { /* a path to return to */
    const char *path;
    struct wf_scope *outer;
} wf_scope;

struct wf_graph {
    const wf_backend *backend;
    wf_arena *arena;
    wf_node **node;
    int n, cap;
    wf_status status;
    const char *message;
    const char *path; /* the present scope; NULL: none */
    wf_scope *scope, *unused_scopes;
    int segment, n_segments, depth; /* the open recomputation segment (0: none), segments so far, open begins */
    /* Equal nodes of one region are merged. 0: ordinary; a recomputation segment has its own, and so has each set of clones:
     * a clone that was merged with its original would keep the original's memory. */
    int region, n_regions;
    struct {
        int region, phase;
        wf_node *moved; /* a node of a backward pass that was built again (remat.c): its new form */
    } * side;           /* by id */
    int phase; /* rises with ids: backward passes and recomputed segments begin a new one. Steps do not span phases, else what is
                     * recomputed would be computed early, beside the original */
    bool keep_all;  /* tests: every value that the backward pass reads is kept, none is computed again */
    int grad_depth; /* a derivative may itself be built by differentiating (op/compose.c) */
    int *table;     /* ids + 1 by hash, open addressing; views, operators and leaves */
    uint32_t table_size, table_used;
};

extern const wf_op wf_op_assign;
/* Rank, sizes and bytes that a tensor can have at all? */
wf_status wf_shape_check(const wf_shape *s, wf_dtype t);
/* Same operator and attributes on other inputs (scope and recomputation segment are the graph's present ones). */
wf_node *wf_node_clone(wf_graph *g, const wf_node *n, wf_node *const *in);
/* A handle to a node of a backward pass that was built again means its new form. */
wf_node *wf_latest(wf_node *n);
/* `bytes` of zeroed memory of the graph; records the error when there is none. */
void *wf_graph_alloc(wf_graph *g, size_t bytes);
/* Bytes of a dense copy of the node. */
size_t wf_node_bytes(const wf_node *n);
/* Replace the present path, for nodes that are derived from a node built elsewhere; returns the old one. */
const char *wf_scope_swap(wf_graph *g, const char *path);

/* remat.c: nodes [first, graph size) are a backward pass whose results are res[0..n). Which values of the forward pass does it
 * keep, which does it compute again? Rebuilds the backward pass accordingly and replaces res. */
wf_status wf_rematerialise(wf_graph *g, int first, wf_node **res, int n);

#endif
