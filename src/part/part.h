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
typedef enum {
    WF_INIT_ZERO,
    WF_INIT_ONE,
    WF_INIT_CONST,
    WF_INIT_NORMAL,
    WF_INIT_UNIFORM,
    WF_INIT_TRUNC_NORMAL,
    WF_INIT_GEOMETRIC, /* entry i of n: a^(-i/n) */
    WF_INIT_DIRECTION, /* a random vector of length a */
    WF_INIT_XAVIER,    /* of linear weights only (wf_linear_init): uniform, half-width sqrt(6 / (in + out)) */
    WF_INIT_FAN_IN,    /* the same: uniform, half-width 1 / sqrt(in), and so the biases */
} wf_init_kind;
typedef struct wf_init {
    wf_init_kind kind;
    double a; /* CONST: value; NORMAL, TRUNC_NORMAL (cut at 2 std): std; UNIFORM: half-width */
} wf_init;
enum {                        /* wf_param.flags */
       WF_PARAM_NO_DECAY = 1, /* gains, biases, positions, tokens: no weight decay */
       WF_PARAM_BUFFER = 2,   /* state saved in checkpoints, no gradient (running statistics) */
       WF_PARAM_FROZEN = 4,   /* not trained */
       WF_PARAM_MATRIX = 8,   /* hidden 2-D weight: Muon may take it (not embeddings, not the head) */
};
typedef struct wf_param {
    const char *name; /* dotted, unique in the model */
    wf_tensor *value; /* float32 master (int32 for counters) */
    wf_init init;
    uint32_t flags;
    int uses; /* modules that share it */
    /* First numbers that are no independent draws of `init` (orthogonal rows, random lists): set after declaring, else NULL. */
    void (*fill)(wf_tensor *t, wf_rng *r, const void *ctx);
    const void *fill_ctx;
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
    void *data;              /* what setup wants to keep, in the model's arena */
    const char **param_name; /* local names ("weight"), pair with param */
    wf_module *parent;
    const void
        *args;   /* what the parent hands over beside options: wf_linear_args, wf_sublayer_args, wf_stack_opt; may be NULL */
    bool opaque; /* set in setup: with these options `readers` and `writers` of the part do not hold */
};

/* One registration struct per part; the table of all is src/part/catalogue.c (model parts: src/model/). */
struct wf_part {
    const char *slot, *name; /* "mixer", "softmax" */
    const char *title;       /* one line */
    const char *paper;       /* authors, title, year, arXiv */
    const char *sheet;       /* "00", "02": the system it belongs to */
    const char *formula;     /* a few lines, letters of the alphabet above */
    const char *facts;       /* what a user should know: pitfalls, when it works */
    const char *cost;        /* words: FLOPs, parameters, state per token */
    const char *golden;      /* module names of golden cases that cover it, space separated; "" none */
    const wf_option *options;
    size_t opt_size;
    bool causal_ok, bidirectional_ok; /* mixers */
    wf_status (*setup)(wf_module *m);
    wf_node *(*forward)(wf_build *b, wf_module *m, wf_node *x);
    wf_node *(*step)(wf_build *b, wf_module *m, wf_node *x); /* NULL: forward is token-local and serves */
    /* Positions. Added to the stream: forward ([B,L,D] -> [B,L,D]). Rotary: rotate q [B,L,H,d] and k [B,L,K,d]. Bias on the
     * scores: fill the spec (slopes, bias). What a scheme does not do is NULL. Models apply `forward`, mixers the others. */
    wf_status (*rotate)(wf_build *b, wf_module *m, wf_node **q, wf_node **k);
    wf_status (*bias)(wf_build *b, wf_module *m, int64_t heads, wf_attention_spec *s);
    /* Norms that are an affine map in evaluation: fill a[D], b[D] of y = a x + b from the module's present numbers. NULL: never;
     * WF_EUNSUPPORTED + reason: not with these options. */
    wf_status (*fold)(const wf_module *m, double *a, double *b);
    /* After all parameters of a new model have their first numbers: set those that follow from others. May be NULL. */
    wf_status (*start)(wf_module *m);
    /* Linears that make their weight of several tensors: write the effective weight [O,I]. NULL: "weight" is it. */
    wf_status (*fold_weight)(const wf_module *m, float *w);
    /* The same of their bias [O]. NULL: "bias" is it, where there is one. */
    wf_status (*fold_bias)(const wf_module *m, float *bias);
    /* For transforms of finished models (src/transform). Space-separated names of what is inside the part.
     * readers: the children of slot linear that read x, the part's input: they and nothing else, each of them x itself and all
     *   of it. What scales x can then be put into them. Mixers of wf_heads: "q k v"; mlp: "up"; swiglu, geglu: "gate up".
     *   Options under which this does not hold set wf_module.opaque in setup.
     * writers: the children of slot linear whose output is the part's output y: y is the sum of what they give and of nothing
     *   else, and an inner norm stands directly in front of them. Mixers of wf_heads: "o"; channel mixers: "down".
     * Of a model: readers read the final norm's output ("head"); writers put the first vectors of the stream, and are children
     *   of slot linear, or parameters [.., D] ("embed.weight position.table").
     * NULL: something else touches x or y too (pooling, products of x with itself): nothing can be put there. */
    const char *readers, *writers;
};
const wf_part *wf_part_find(const char *slot, const char *name); /* NULL + message naming the nearest */
const wf_part *const *wf_part_all(int *n);
void wf_part_register_model(const wf_part *p); /* src/model adds its own at start (wf_models_register) */
/* Implemented by src/model; the catalogue calls it once, so that no program can forget to. */
void wf_models_register(void);

/* In setup: declare a parameter / buffer, add a child. Return NULL + message on failure. */
wf_param *wf_declare(wf_module *m, const char *name, wf_shape s, wf_init init, uint32_t flags);
wf_param *wf_declare_buffer(wf_module *m, const char *name, wf_dtype t, wf_shape s, double value);
wf_module *wf_child(wf_module *m, const char *name, const wf_part *part, const wf_value *options, int64_t in, int64_t out);
/* `spec` is a recipe entry: a name ("softmax") or a map {name: softmax, heads: 6}; NULL: what the model says for the slot
 * (model->defaults), else default_name. A mixer that cannot do what the model asks (causal or not) fails here, with place and remedy. */
wf_module *wf_child_spec(wf_module *m, const char *name, const char *slot, const char *default_name, const wf_value *spec,
                         int64_t in, int64_t out);
/* Make `m`'s parameter `name` an alias of another (tied embeddings, shared layers). */
wf_status wf_share(wf_module *m, const char *name, wf_param *p);
wf_module *wf_module_find(wf_module *m, const char *child);
/* As wf_child_spec, with args for the child's setup. */
wf_module *wf_child_with(wf_module *m, const char *name, const char *slot, const char *default_name, const wf_value *spec,
                         int64_t in, int64_t out, const void *args);
/* A child that the part itself specifies: fmt gives YAML like "{name: layernorm, eps: 1e-6}". */
wf_module *wf_child_text(wf_module *m, const char *name, const char *slot, int64_t in, int64_t out, const char *fmt, ...)
    WF_PRINTF(6, 7);
/* A child of slot "linear" as the model wants it (linear: in the recipe). What it is for sets its initial weights. */
typedef enum {
    WF_LINEAR_INNER = 0,
    WF_LINEAR_RESIDUAL, /* last of a residual branch */
    WF_LINEAR_HEAD,     /* outputs, patches: no hidden matrix */
    WF_LINEAR_VALUE,    /* what the branch's size is made of: values, the hidden layer */
} wf_linear_role;
typedef struct wf_linear_args {
    bool bias;
    wf_linear_role role;
} wf_linear_args;
wf_module *wf_child_linear(wf_module *m, const char *name, int64_t in, int64_t out, bool bias, wf_linear_role role);
/* A dense linear whatever the model wants of its linears (heads, patch embeddings). */
wf_module *wf_child_dense(wf_module *m, const char *name, int64_t in, int64_t out, bool bias, wf_linear_role role);
/* Whether a linear has a bias: its option `bias`, "model" meaning what the part around it asked for. */
bool wf_linear_bias(const wf_module *m, const char *choice);
/* In a linear's setup: parameters "weight" [O,I] and, if so, "bias" [O], with the first numbers their model and role ask for. */
wf_status wf_linear_declare(wf_module *m, const char *bias);
wf_init wf_linear_init(const wf_module *m);      /* in a linear's setup: the initial weights its model and role ask for */
wf_init wf_linear_bias_init(const wf_module *m); /* the same of its bias */
/* "model" | "true" | "false", as options named `bias` have it. */
bool wf_bias_wanted(const wf_module *m, const char *choice);
/* What a placement tells the part inside: a norm in front of its last linear (NormFormer). Call in setup of mixers and channels:
 * makes child "inner_norm" if wanted. Then wf_inner_norm(b, m, x) applies it, or returns x. */
typedef struct wf_sublayer_args {
    const wf_value *inner_norm; /* NULL: none */
} wf_sublayer_args;
wf_status wf_inner_norm_setup(wf_module *m, int64_t width);
wf_node *wf_inner_norm(wf_build *b, wf_module *m, wf_node *x);
wf_status wf_module_fail(const wf_module *m, wf_status s, const char *fmt, ...)
    WF_PRINTF(3, 4); /* with file:line and the module's name */

/* ---- single modules of a recipe (override.c) ----
 * The entry `parts` of a recipe's model says of single modules what they are instead of what the model would make them:
 *     parts: {"blocks.*.mixer.q": {bias: true}, "blocks.0.channel_in_norm": none, final_norm: {name: rmsnorm, eps: 1e-5}}
 * A key is a module's path; * stands for any one word of it. A value is laid over what the module would be: a map without a
 * name (or with the same) changes options, another name replaces the part. Of several keys that fit, the one with the fewest *
 * holds, the later one of equals. A layer scale (blocks.*.channel_scale) can be `none`. A key that fits nothing is an error. */
/* Whether `parts` says that the parameter m.name is not there. */
bool wf_part_absent(wf_module *m, const char *name);
/* Whether `path` fits `pattern`, and how many * that took (-1: it does not fit). */
int wf_path_fits(const char *pattern, const char *path);
/* `path` with * in place of its numbers ("blocks.*.mixer.q"), cut to `size`. */
void wf_path_starred(const char *path, char *out, size_t size);

/* ---- building a graph from modules ---- */
typedef struct wf_states wf_states; /* tensors that live between steps of one generation (KV caches, scan states) */
wf_states *wf_states_new(void);
void wf_states_free(wf_states *s);
void wf_states_reset(wf_states *s); /* zero all */
size_t wf_states_bytes(const wf_states *s);

struct wf_build {
    wf_graph *g;
    bool train;           /* dropout on, running statistics updated */
    bool step;            /* streaming form: x holds the next T positions, states hold the past */
    bool causal;          /* what the model asks of its mixers */
    wf_dtype compute;     /* dtype of matrix products: WF_F32, WF_BF16 (weights cast, sums in float32), WF_F64 */
    wf_node *lengths;     /* int32 [B] valid positions, or NULL */
    wf_node *pos;         /* step: int32 [1], positions already seen; NULL otherwise */
    int64_t max_length;   /* step: room in caches */
    wf_node *seed;        /* int32[4] {seed lo, hi, step lo, hi}; NULL when nothing is random */
    uint64_t next_stream; /* each random operator takes the next */
    wf_states *states;    /* step only */
    wf_node *context;     /* [B,S,D] for cross attention, condition vectors; or NULL */
    int n_update, cap_update;
    wf_node **update; /* assigns of running statistics and states: effects of the plan */
    /* Called with named inner results (mixers: q, k, v, lse, weights; lm: hidden ...) when set. `plain`: attention is composed
     * of small operators, so that "weights" exist. */
    void (*tap)(void *ctx, const wf_module *m, const char *what, wf_node *n);
    void *tap_ctx;
    bool plain;
    bool last_only;          /* step: only the last position's output is wanted ([B,1,V]) */
    int64_t grid[2], prefix; /* pictures: tokens are `prefix` special ones, then grid[0] rows of grid[1]; zeros elsewhere */
    wf_node *keep;           /* float [B,L]: 1 for tokens that count (batch statistics), or NULL: all, or by `lengths` */
    wf_node *score_bias;     /* added to attention scores, broadcastable to [B,H,L,S] (masks of any form), or NULL */
    wf_node *types;          /* int32 [B,L]: token types (BERT's segments), or NULL: all 0 */
    uint64_t serial;         /* of this build among those that use `states` */
    void *memo;              /* casts made so far */
    bool recompute;          /* topologies put every block between wf_recompute_begin and _end (train.recompute) */

    wf_node *condition;       /* [B,C] or, for each token, [B,L,C]: what adaLN makes its shifts, scales and gates of; or NULL */
    wf_node *context_lengths; /* int32 [B]: valid positions of context, or NULL: all */
    wf_node *
        context_bias; /* added to scores of attention to the context, broadcastable to [B,H,L,S] (masks of any form), or NULL */
    bool no_dropout;  /* with train: statistics move, nothing is dropped (recalibration) */
    wf_build **handle; /* what wf_build_handle gave out, or NULL */
    bool tap_io;       /* the tap also gets "input" and "output" of every module that is applied */
};
void wf_build_start(wf_build *b, wf_graph *g);
void wf_build_end(wf_build *b); /* before the graph is freed; after wf_grad where parts change state in their backward pass */
/* For derivatives, which are built when the build may be over: *handle is the build, NULL once it has ended. */
wf_build **wf_build_handle(wf_build *b);
/* Node of a parameter, in float32 (or float64 when b->compute is). */
wf_node *wf_use(wf_build *b, wf_module *m, const char *name);
wf_node *wf_use_or_null(wf_build *b, wf_module *m, const char *name);             /* NULL when not declared (no bias) */
wf_status wf_update(wf_build *b, wf_module *m, const char *name, wf_node *value); /* running statistics */
/* State leaf of this module for the step form, zero at the start of a sequence. A module that is applied several times in one
 * model (shared, looped) has a state for each application. */
wf_node *wf_state(wf_build *b, wf_module *m, const char *name, wf_dtype t, wf_shape s);
/* The state's next value, when the plan runs; state NULL: value writes itself (wf_cache_write) and is only to be kept alive. */
wf_status wf_keep(wf_build *b, wf_node *state, wf_node *value);
/* float [B,L]: 1 where a token of x [B,L,..] counts (b->keep, else made of b->lengths); NULL: all count. */
wf_node *wf_keep_mask(wf_build *b, const wf_node *x);
void wf_tap(wf_build *b, const wf_module *m, const char *what, wf_node *n);
/* x minus its mean over the last axis. */
wf_node *wf_centred(wf_build *b, wf_node *x);
/* x in another dtype; one cast a graph however often it is asked for. */
wf_node *wf_as(wf_build *b, wf_node *x, wf_dtype t);
/* Dropout in training, x itself otherwise. */
wf_node *wf_drop(wf_build *b, const wf_module *m, wf_node *x, double p);
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
    wf_param **param; /* in order of declaration: the order of files and optimizers */
    wf_value *recipe; /* owned copy of the whole recipe (model, task, train) */
    /* What a model says to its parts before it makes them (in its setup). */
    bool causal;        /* mixers must not look ahead */
    bool bias;          /* linears have biases, where a part leaves it open */
    int64_t max_length; /* longest sequence of training; 0: open */
    int64_t layers;
    int64_t grid[2], prefix; /* pictures: as wf_build has them, where one grid holds for all layers; zeros elsewhere */
    wf_init init;            /* of linear weights; kind ZERO: normal 0.02 */
    double residual_std;     /* of the last linear of a residual branch; 0: as init */
    double value_std;        /* of role VALUE; 0: as init */
    wf_value *defaults;      /* slot -> recipe entry, for slots a part leaves open (linear, norm, position); owned */
    size_t bytes, limit;     /* of all parameters so far; what they may take, 0: any */
    wf_value *made; /* module path -> spec that stands nowhere in the recipe: parts' own, or changed by `parts`; owned */
    int n_constant, cap_constant;
    struct wf_constant {
        const char *key;
        wf_tensor *value;
    } * constant;
    void *slab; /* the memory of all parameters, side by side; NULL: each has its own */
    size_t slab_bytes;
    int64_t condition;     /* channels C of wf_build.condition; 0: the model gives none */
    bool context;          /* the model gives wf_build.context [B,S,D]: blocks have cross attention */
    const wf_value *parts; /* the recipe's `parts`; NULL: none */
    bool *parts_used;      /* by entry: it fitted something */
};
/* Tables that are computed, not learned (sines, slopes): one a key and model, made by `fill` when first asked for. */
wf_tensor *wf_model_constant(wf_model *m, const char *key, wf_dtype t, wf_shape s, void (*fill)(wf_tensor *t, const void *ctx),
                             const void *ctx);
/* Build from a recipe's `model` map ({name: lm, ...}); parameters are initialised from `seed` (each by its own stream, so that
 * designs that share a parameter name share its numbers). `recipe` may be the whole recipe or only the model map. */
wf_model *wf_model_new(const wf_value *recipe, uint64_t seed);
/* The same with all parameters still zero (to be loaded, or only counted). limit: bytes they may take, 0: any; over it WF_ENOMEM
 * before anything is allocated (recipes out of files). */
wf_model *wf_model_build(const wf_value *recipe, size_t limit);
void wf_model_free(wf_model *m);
int64_t wf_model_count(const wf_model *m); /* trainable parameters, shared ones once */
wf_param *wf_model_param(const wf_model *m, const char *name);
wf_model *wf_model_alloc(void); /* no root yet: for wf_model_new and wf_model_of_part */
wf_module *wf_model_root(wf_model *model, const wf_part *part, const wf_value *options); /* make and set it */
/* A model that is one part alone: tests, `weft check`, measuring. `spec` as in wf_child_spec. in, out: widths. */
wf_model *wf_model_of_part(const char *slot, const wf_value *spec, int64_t in, int64_t out, bool causal, int64_t max_length,
                           uint64_t seed);
/* Fill all parameters with their initial numbers. */
wf_status wf_model_init(wf_model *m, uint64_t seed);
/* Counters and running statistics as they were at first (fine-tuning). */
void wf_model_reset_state(wf_model *m);
/* Files: one .safetensors with weights and metadata {format: weft-model-1, recipe: JSON, ...}. */
wf_status wf_model_save(const wf_model *m, const char *path, wf_dtype as, const char *const *meta_key,
                        const char *const *meta_text, int n_meta);
wf_model *wf_model_load(const char *path);
wf_status wf_model_read_weights(wf_model *m, const wf_st_file *f); /* every name and shape must match */

#endif
