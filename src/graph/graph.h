/* graph.h: tensors, the graph, differentiation, planning and execution. Knows no arithmetic: that is src/op.
 *
 * A graph is built by plain calls (src/op/op.h). Every call takes the graph and nodes and returns a node, or NULL after an
 * error; NULL inputs give NULL, so a chain of calls is checked once, at its end: the first error stays in wf_message()
 * and wf_graph_status(g). Nodes belong to the graph and die with it.
 *
 *     leaf tensors --(calls)--> nodes --wf_grad--> more nodes --wf_plan_new--> steps in one arena --wf_plan_run--> bytes
 *
 * Views (reshape, permute, slice, expand) share storage with their base and cost nothing.
 */
#ifndef WF_GRAPH_H
#define WF_GRAPH_H

#include "base/base.h"

#define WF_MAX_RANK 6

typedef enum wf_dtype { WF_F32 = 0, WF_BF16, WF_I32, WF_U8, WF_F64, WF_I8, WF_DTYPES } wf_dtype;
size_t wf_dtype_size(wf_dtype t);
const char *wf_dtype_name(wf_dtype t); /* "float32" ... */
static inline bool wf_is_float(wf_dtype t) {
    return t == WF_F32 || t == WF_BF16 || t == WF_F64;
}

typedef struct wf_shape {
    int rank;
    int64_t dim[WF_MAX_RANK];
} wf_shape;
#define WF_SHAPE(...) ((wf_shape){(int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), {__VA_ARGS__}})
int64_t wf_shape_count(const wf_shape *s);
bool wf_shape_equal(const wf_shape *a, const wf_shape *b);
const char *wf_shape_text(const wf_shape *s, char buf[96]); /* "[2, 7, 12]" */

/* Dense row-major storage, owned. Parameters, states, inputs and results are tensors. */
typedef struct wf_tensor {
    wf_dtype dtype;
    wf_shape shape;
    void *data;
    size_t bytes;
} wf_tensor;
wf_tensor *wf_tensor_new(wf_dtype t, wf_shape s); /* zeroed; NULL on failure */
void wf_tensor_free(wf_tensor *t);
int64_t wf_tensor_count(const wf_tensor *t);
double wf_tensor_get(const wf_tensor *t, int64_t i); /* any dtype to double */
void wf_tensor_set(wf_tensor *t, int64_t i, double v);
float wf_bf16_to_f32(uint16_t b);
uint16_t wf_f32_to_bf16(float f); /* round to nearest even */

typedef struct wf_graph wf_graph;
typedef struct wf_node wf_node;
typedef struct wf_op wf_op;

/* Attributes of a node: small, plain, comparable. What each entry means is said where the operator is defined. */
typedef struct wf_attr {
    int64_t i[12];
    double f[6];
    void *p; /* owned by the graph's arena */
} wf_attr;

struct wf_node {
    const wf_op *op; /* NULL: a leaf */
    wf_graph *graph;
    int id; /* position in the graph; inputs have smaller ids, execution follows ids */
    wf_dtype dtype;
    wf_shape shape;
    int64_t stride[WF_MAX_RANK]; /* in elements; dense row-major unless a view */
    int64_t offset;              /* in elements, from the start of base's storage */
    wf_node *base;               /* a view's storage owner (itself not a view); self otherwise */
    int n_in;
    wf_node **in;
    int out_index; /* 0, or k for the k-th further output of in[0] (op == &wf_op_output) */
    wf_attr attr;
    wf_tensor *leaf;   /* a leaf's tensor: data is read when the plan runs */
    const char *scope; /* "blocks.3.mixer": where it was built; error messages and profiles show it */
    int segment;       /* recomputation segment, 0: none */
    uint32_t mark;     /* free for passes */
};

/* Cost of running a node once, exact by the definition of the operator: a multiply-add is 2 FLOPs. */
typedef struct wf_cost {
    double flops, bytes_read, bytes_written;
} wf_cost;

/* What a kernel receives. Data pointers include view offsets. in[k]/out[k] pair with node->in[k] / outputs. */
typedef struct wf_call {
    wf_node *node;
    void **in;
    void **out;
    void *scratch; /* op->scratch bytes, 64-byte aligned, contents undefined */
    void *state;   /* what op->prepare made */
    void *program; /* the row program of a fused step */
} wf_call;

enum {                          /* wf_op.flags */
       WF_OP_VIEW = 1 << 0,     /* output shares in[0]'s storage; no kernel */
       WF_OP_STRIDED = 1 << 1,  /* kernel reads node->in[k]->stride; otherwise strided inputs are copied first */
       WF_OP_ROW = 1 << 2,      /* runs as instruction `row` of a row program, fused with its neighbours */
       WF_OP_CHEAP = 1 << 3,    /* may be computed again instead of kept (fills, random numbers, casts of leaves) */
       WF_OP_IN_PLACE = 1 << 4, /* output storage IS in[0]'s storage, which must be a leaf (cache writes) */
       WF_OP_EFFECT = 1 << 5,   /* always kept, never merged (assign, collectives) */
       WF_OP_INF_OK =
           1 << 6, /* +Inf in a result is legitimate; wf_plan_run_checked then looks for NaN alone (-Inf always passes) */
};

/* The operator contract: everything the engine knows of an operator is in this struct. */
struct wf_op {
    const char *name;
    uint32_t flags;
    int row;   /* row instruction (src/graph/rowprog.h) when WF_OP_ROW */
    int n_out; /* 0 means 1 */
    /* Shape rule: read node->in, attr; set node->dtype, shape (strides are filled in). Fails by wf_fail naming op and shapes. */
    wf_status (*infer)(wf_node *n);
    /* Shape of further outputs k = 1..n_out-1. */
    wf_status (*infer_more)(const wf_node *n, int k, wf_dtype *t, wf_shape *s);
    wf_status (*forward)(const wf_call *c);
    /* Build gradients with graph calls. gout[k] may be NULL (no gradient flows into output k); set gin[j] or leave NULL.
     * No vjp: the derivative is taken as 0 (comparisons, rounding, indices). */
    wf_status (*vjp)(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin);
    void (*cost)(const wf_node *n, wf_cost *c);     /* NULL: 0 FLOPs, bytes of inputs and outputs */
    size_t (*scratch)(const wf_node *n);            /* NULL: none */
    wf_status (*prepare)(wf_node *n, void **state); /* once, at planning (oneDNN primitives); may be NULL */
    void (*release)(void *state);
    /* The sum of two gradients that are both results of this operator, as one node, where that is cheaper than adding them; NULL
     * (without an error) where it is not. May be NULL. */
    wf_node *(*accumulate)(wf_graph *g, wf_node *a, wf_node *b);
};

/* What the graph room needs from the operator room, handed over at creation (src/op/backend.c). */
typedef struct wf_backend {
    wf_node *(*add)(wf_graph *g, wf_node *a, wf_node *b); /* gradient accumulation */
    wf_node *(*contiguous)(wf_graph *g, wf_node *x);      /* dense copy of a strided view */
    wf_node *(*fill)(wf_graph *g, wf_dtype t, wf_shape s, double v);
    wf_status (*run_rows)(const wf_call *c); /* executes a wf_rowprog */
    size_t (*rows_scratch)(const void *program);
} wf_backend;

wf_graph *wf_graph_new(const wf_backend *b);
void wf_graph_free(wf_graph *g);
wf_status wf_graph_status(const wf_graph *g); /* WF_OK or the first error; its text: wf_graph_message */
const char *wf_graph_message(const wf_graph *g);
/* Record an error (first one wins) and return NULL; for builders and parts. */
wf_node *wf_graph_fail(wf_graph *g, wf_status s, const char *fmt, ...) WF_PRINTF(3, 4);
wf_arena *wf_graph_arena(wf_graph *g);
int wf_graph_size(const wf_graph *g);
wf_node *wf_graph_node(const wf_graph *g, int id);

/* Leaves. The tensor is borrowed and must live as long as plans of the graph; one tensor gives one node. */
wf_node *wf_leaf(wf_graph *g, wf_tensor *t, const char *name);
/* Scope of nodes built from here on; nests ("blocks.0" then "mixer" gives "blocks.0.mixer"). */
void wf_scope_push(wf_graph *g, const char *name);
void wf_scope_pop(wf_graph *g);
/* Nodes between begin and end are recomputed in the backward pass instead of kept (activation checkpointing). */
void wf_recompute_begin(wf_graph *g);
void wf_recompute_end(wf_graph *g);

/* Add a node (for builders in src/op): runs infer, copies strided inputs when the operator cannot read them. */
wf_node *wf_node_new(wf_graph *g, const wf_op *op, wf_node *const *in, int n_in, const wf_attr *attr);
/* Output k >= 1 of a node with several outputs; k = 0 is the node itself. */
wf_node *wf_output(wf_node *n, int k);
extern const wf_op wf_op_output; /* the operator of such a node: no kernel; in[0]'s step writes its memory */
/* A view node: same storage, new shape, strides and offset (offset counted from x's own first element). */
wf_node *wf_view_new(wf_graph *g, const wf_op *op, wf_node *x, wf_shape s, const int64_t *stride, int64_t offset,
                     const wf_attr *attr);
bool wf_is_dense(const wf_node *n);
bool wf_is_view(const wf_node *n);

/* Reverse-mode differentiation, built out of graph calls, so it can be applied again.
 * grads[i] = sum over outputs k of <seed_k, d out_k / d wrt_i>; seeds may be NULL for a scalar output (seed 1).
 * grads[i] is NULL-free: an input that does not matter gets zeros. Recompute segments are cloned here. Pointwise values that
 * follow from values kept anyway are computed again in the backward pass instead of kept (remat.c). */
wf_status wf_grad(wf_graph *g, wf_node *const *outs, wf_node *const *seeds, int n_outs, wf_node *const *wrt, int n_wrt,
                  wf_node **grads);

/* When the plan runs, write `value` over the leaf's tensor. All readers of the leaf in the same plan see the old value. */
wf_node *wf_assign(wf_graph *g, wf_node *leaf, wf_node *value);

/* ---- plans ---- */
typedef struct wf_plan wf_plan;
typedef struct wf_plan_options {
    bool no_fusion;      /* every row operator on its own (tests) */
    bool no_reuse;       /* every buffer its own memory (tests) */
    size_t memory_limit; /* bytes of arena + leaves, 0: none; planning over it fails with WF_ENOMEM and says by how much */
} wf_plan_options;
/* `outs` (results to be read after a run) and effects (assigns) are computed. Nodes must be of one graph. opts may be NULL. */
wf_plan *wf_plan_new(wf_graph *g, wf_node *const *outs, int n_outs, wf_node *const *effects, int n_effects,
                     const wf_plan_options *opts);
void wf_plan_free(wf_plan *p);
wf_status wf_plan_run(wf_plan *p);
/* Dense data of out i of the last run, in the node's dtype; valid until the next run. */
const void *wf_plan_out(const wf_plan *p, int i);
/* As wf_plan_run, but checks every step's floating outputs and fails with WF_ENONFINITE naming the first guilty operator and scope. */
wf_status wf_plan_run_checked(wf_plan *p);

typedef struct wf_plan_info {
    double flops, bytes; /* exact, of one run */
    size_t arena_bytes;  /* activations and temporaries */
    size_t leaf_bytes;   /* distinct leaf tensors touched */
    size_t scratch_bytes;
    int nodes, steps, fused_nodes;
    size_t live_bytes; /* most that is alive at one step: no arena could be smaller */
} wf_plan_info;
void wf_plan_describe(const wf_plan *p, wf_plan_info *info);
/* Seconds per step kind after wf_plan_profile(p, true) and runs: text table, caller frees with wf_free. */
void wf_plan_profile(wf_plan *p, bool on);
char *wf_plan_profile_text(const wf_plan *p);
/* The steps, one a line (for `weft plan --steps` and for understanding). */
char *wf_plan_text(const wf_plan *p);

#endif
