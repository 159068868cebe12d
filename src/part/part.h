/* part.h: the contract of exchangeable parts, and what they are built with.
 *
 * A part is one file: a comment, an options table, `setup` (declares parameters and children), `forward` (reads like the
 * formula), `step` where it is causal, one registration struct. A module is one use of a part in a model, with its own
 * parameters under a dotted name. A model is itself a part (slot "model").
 *
 *     recipe --wf_model_new--> module tree + parameters --wf_model_forward(build, inputs)--> nodes
 */
#ifndef WF_PART_H
#define WF_PART_H

#include "file/file.h"
#include "op/op.h"

typedef struct wf_part wf_part;
typedef struct wf_module wf_module;
typedef struct wf_model wf_model;
typedef struct wf_build wf_build;

/* ---- parameters ---- */
typedef enum { WF_INIT_ZERO, WF_INIT_ONE, WF_INIT_CONST, WF_INIT_NORMAL, WF_INIT_UNIFORM, WF_INIT_TRUNC_NORMAL } wf_init_kind;
typedef struct wf_init {
    wf_init_kind kind;
    double a; /* CONST: value; NORMAL, TRUNC_NORMAL (cut at 2 std): std; UNIFORM: half-width */
} wf_init;
enum { /* wf_param.flags */
    WF_PARAM_NO_DECAY = 1, /* gains, biases, positions, tokens: no weight decay */
    WF_PARAM_BUFFER = 2,   /* state saved in checkpoints, no gradient (running statistics) */
    WF_PARAM_FROZEN = 4,   /* not trained */
    WF_PARAM_MATRIX = 8,   /* hidden 2-D weight: Muon may take it (not embeddings, not the head) */
};
typedef struct wf_param {
    const char *name;      /* dotted, unique in the model */
    wf_tensor *value;      /* float32 master (int32 for counters) */
    wf_init init;
    uint32_t flags;
    int uses;              /* modules that share it */
} wf_param;

/* ---- a module ---- */
struct wf_module {
    wf_model *model;
    const wf_part *part;
    const void *opt;       /* the parsed options struct */
    const wf_value *where; /* recipe node, for errors; may be NULL */
    const char *name;      /* dotted path: "blocks.0.mixer" */
    int64_t in, out;       /* widths: norm [.., in]; linear [.., in] -> [.., out]; mixer, channel: in == out == D */
    int n_child, n_param;
    wf_module **child;
    wf_param **param;
    void *data;            /* what setup wants to keep, in the model's arena */
};

/* One registration struct per part; the table of all is src/part/catalogue.c (model parts: src/model/). */
struct wf_part {
    const char *slot, *name;  /* "mixer", "softmax" */
    const char *title;        /* one line */
    const char *paper;        /* authors, title, year, arXiv */
    const char *sheet;        /* "00", "02": the system it belongs to */
    const char *formula;      /* a few lines, letters of the alphabet above */
    const char *facts;        /* what a user should know: pitfalls, when it works */
    const char *cost;         /* words: FLOPs, parameters, state per token */
    const char *golden;       /* module names of golden cases that cover it, space separated; "" none */
    const wf_option *options;
    size_t opt_size;
    bool causal_ok, bidirectional_ok; /* mixers */
    wf_status (*setup)(wf_module *m);
    wf_node *(*forward)(wf_build *b, wf_module *m, wf_node *x);
    wf_node *(*step)(wf_build *b, wf_module *m, wf_node *x); /* NULL: forward is token-local and serves */
};
const wf_part *wf_part_find(const char *slot, const char *name); /* NULL + message naming the nearest */
const wf_part *const *wf_part_all(int *n);
void wf_part_register_model(const wf_part *p); /* src/model adds its own at start (wf_models_register) */

/* In setup: declare a parameter / buffer, add a child. Return NULL + message on failure. */
wf_param *wf_declare(wf_module *m, const char *name, wf_shape s, wf_init init, uint32_t flags);
wf_param *wf_declare_buffer(wf_module *m, const char *name, wf_dtype t, wf_shape s, double value);
wf_module *wf_child(wf_module *m, const char *name, const wf_part *part, const wf_value *options, int64_t in, int64_t out);
/* `spec` is a recipe entry: a name ("softmax") or a map {name: softmax, heads: 6}; NULL: default_name. */
wf_module *wf_child_spec(wf_module *m, const char *name, const char *slot, const char *default_name, const wf_value *spec, int64_t in, int64_t out);
/* Make `m`'s parameter `name` an alias of another (tied embeddings, shared layers). */
wf_status wf_share(wf_module *m, const char *name, wf_param *p);
wf_module *wf_module_find(wf_module *m, const char *child);

/* ---- building a graph from modules ---- */
typedef struct wf_states wf_states; /* tensors that live between steps of one generation (KV caches, scan states) */
wf_states *wf_states_new(void);
void wf_states_free(wf_states *s);
void wf_states_reset(wf_states *s); /* zero all */
size_t wf_states_bytes(const wf_states *s);

struct wf_build {
    wf_graph *g;
    bool train;            /* dropout on, running statistics updated */
    bool step;             /* streaming form: x holds the next T positions, states hold the past */
    bool causal;           /* what the model asks of its mixers */
    wf_dtype compute;      /* dtype of matrix products: WF_F32, WF_BF16 (weights cast, sums in float32), WF_F64 */
    wf_node *lengths;      /* int32 [B] valid positions, or NULL */
    wf_node *pos;          /* step: int32 [1], positions already seen; NULL otherwise */
    int64_t max_length;    /* step: room in caches */
    wf_node *seed;         /* int32[4] {seed lo, hi, step lo, hi}; NULL when nothing is random */
    uint64_t next_stream;  /* each random operator takes the next */
    wf_states *states;     /* step only */
    wf_node *context;      /* [B,S,D] for cross attention, condition vectors; or NULL */
    int n_update, cap_update;
    wf_node **update;      /* assigns of running statistics: effects of the plan */
};
void wf_build_start(wf_build *b, wf_graph *g);
void wf_build_end(wf_build *b);
/* Node of a parameter, in float32 (or float64 when b->compute is). */
wf_node *wf_use(wf_build *b, wf_module *m, const char *name);
wf_node *wf_use_or_null(wf_build *b, wf_module *m, const char *name); /* NULL when not declared (no bias) */
wf_status wf_update(wf_build *b, wf_module *m, const char *name, wf_node *value); /* running statistics */
/* State leaf of this module for the step form, zero at the start of a sequence. */
wf_node *wf_state(wf_build *b, wf_module *m, const char *name, wf_dtype t, wf_shape s);
uint64_t wf_stream(wf_build *b);
/* Apply a module: pushes its scope, calls forward or (b->step and it exists) step. A mixer without step fails in step mode. */
wf_node *wf_apply(wf_build *b, wf_module *m, wf_node *x);
wf_node *wf_apply_child(wf_build *b, wf_module *m, const char *child, wf_node *x);
/* x w^T + bias with the policy of b->compute; the product every part uses. w [O,I], bias may be NULL. Result in b->compute's dtype. */
wf_node *wf_project(wf_build *b, wf_node *x, wf_node *w, wf_node *bias);
/* Positions of this build's tokens, float or int32 [L]: pos + 0..L-1. */
wf_node *wf_positions(wf_build *b, wf_dtype t, int64_t L);

/* ---- models ---- */
struct wf_model {
    wf_arena *arena;
    wf_module *root;
    int n_param, cap_param;
    wf_param **param;      /* in order of declaration: the order of files and optimizers */
    wf_value *recipe;      /* owned copy of the whole recipe (model, task, train) */
};
/* Build from a recipe's `model` map ({name: lm, ...}); parameters are initialised from `seed` (each by its own stream, so that
 * designs that share a parameter name share its numbers). `recipe` may be the whole recipe or only the model map. */
wf_model *wf_model_new(const wf_value *recipe, uint64_t seed);
void wf_model_free(wf_model *m);
int64_t wf_model_count(const wf_model *m); /* trainable parameters, shared ones once */
wf_param *wf_model_param(const wf_model *m, const char *name);
/* Files: one .safetensors with weights and metadata {format: weft-model-1, recipe: JSON, ...}. */
wf_status wf_model_save(const wf_model *m, const char *path, wf_dtype as, const char *const *meta_key, const char *const *meta_text, int n_meta);
wf_model *wf_model_load(const char *path);
wf_status wf_model_read_weights(wf_model *m, const wf_st_file *f); /* every name and shape must match */

#endif
