/* case.h: inside of checking: a golden case being worked on, and what adapters use.
 *
 * An adapter builds the module that the metadata names, in these steps: read options (wf_case_int ..), make leaves of inputs
 * (wf_case_in), bind a model to the parameters (wf_case_model) or take single ones (wf_case_param), name outputs
 * (wf_case_out), solve (wf_case_solve). Several steps: wf_case_begin(c, "_0"), build, solve, begin the next.
 * What a file holds and no adapter asked for is an error, never ignored.
 */
#ifndef WF_CASE_H
#define WF_CASE_H

#include "check/check.h"
#include "model/import.h"

typedef struct wf_case_leaf { /* something gradients may be wanted of */
    char *name;               /* "in.x", "param.tau" */
    wf_tensor *value;
    wf_node *node; /* in the present graph */
    double *sum;   /* parameters: gradient summed over steps */
} wf_case_leaf;

typedef struct wf_case_model_ref {
    wf_model *model;
    const wf_name_map *map;
    double **sum; /* by model->param */
} wf_case_model_ref;

typedef struct wf_case {
    wf_st_file *file;
    wf_value *config;
    wf_check_result *result;
    bool f64;
    const char *step; /* "", "_0" .. */
    bool *seen;       /* by file entry */
    wf_graph *graph;
    wf_build build;
    int n_leaf, cap_leaf, n_out, cap_out, n_model;
    wf_case_leaf *leaf;
    struct wf_case_output {
        char *name;
        wf_node *node;
    } * out;
    wf_case_model_ref model[8];
    wf_node *tapped[1024]; /* what wf_case_tap collects */
    const char *tap_name[1024], *tap_module[1024];
    int n_tap;
    wf_arena *arena;
} wf_case;

typedef wf_status (*wf_adapter_run)(wf_case *c);
typedef struct wf_adapter {
    const char *module;
    wf_adapter_run run;
    const char *ignore; /* config keys that only describe, space separated, beside those all cases may have */
} wf_adapter;
/* clang-format off */
extern const wf_adapter /* each ends with module == NULL */
    wf_adapters_attention[],
    wf_adapters_norm[],
    wf_adapters_vision[],
    wf_adapters_language[],
    wf_adapters_sparse[],
    wf_adapters_picture[],
    wf_adapters_stateful[],
    wf_adapters_softmax_family[],
    wf_adapters_sigma[],
    wf_adapters_linear[],
    wf_adapters_transform[];
/* clang-format on */

extern const wf_adapter wf_adapters_topology[], wf_adapters_hierarchy[], wf_adapters_splitting[];

/* ---- options; a key that is absent or null gives `otherwise`. Errors name key and value. ---- */
const wf_value *wf_case_key(wf_case *c, const char *key); /* NULL when absent or null */
wf_status wf_case_int(wf_case *c, const char *key, int64_t otherwise, int64_t *out);
wf_status wf_case_real(wf_case *c, const char *key, double otherwise, double *out);
wf_status wf_case_bool(wf_case *c, const char *key, bool otherwise, bool *out);
wf_status wf_case_text(wf_case *c, const char *key, const char *otherwise, const char **out);
/* {"word", "meaning", ...} ending in NULL: *out = meaning of the config's word. */
wf_status wf_case_choice(wf_case *c, const char *key, const char *const *pairs, const char *otherwise, const char **out);
/* "image": 12 or [8, 12] */
wf_status wf_case_pair(wf_case *c, const char *key, int64_t *a, int64_t *b);
wf_status wf_case_same(wf_case *c, const char *key, int64_t actual); /* a size the config repeats must be the true one */
wf_status wf_case_agrees(wf_case *c, const char *key, bool actual);  /* so must a truth: "bias": false without param.bias */

/* ---- tensors ---- */
bool wf_case_has(const wf_case *c, const char *name);              /* full name, "out.attn" */
const wf_st_entry *wf_case_entry(wf_case *c, const char *name);    /* required; NULL + message */
wf_tensor *wf_case_read(wf_case *c, const char *name, wf_dtype t); /* owned by the caller */

/* ---- building ---- */
wf_status wf_case_begin(wf_case *c, const char *step); /* a new graph; suffix of names of this step */
/* Leaf "in.<name><step>" (or without step): floats in the working type, integers int32, masks (u8, bool) as floats. */
wf_node *wf_case_in(wf_case *c, const char *name);
wf_node *wf_case_in_or_null(wf_case *c, const char *name);
wf_node *wf_case_constant(wf_case *c, const char *name, wf_tensor *t); /* takes t; a leaf that no gradient is wanted of */
wf_node *wf_case_param(wf_case *c, const char *name);                  /* leaf "param.<name>" */
wf_node *wf_case_param_or_null(wf_case *c, const char *name);
/* A model of this recipe (YAML), its parameters filled from param.* by the map. The case owns it. */
wf_model *wf_case_model(wf_case *c, const char *recipe, const wf_name_map *map);
wf_model *wf_case_part(wf_case *c, const char *slot, const char *spec, int64_t in, int64_t out, bool causal, int64_t length,
                       const wf_name_map *map);
wf_status wf_case_adopt(wf_case *c, wf_model *m, const wf_name_map *map);      /* the same for a model made elsewhere */
void wf_case_out(wf_case *c, const char *name, wf_node *n);                    /* "y": out.y<step>, if the file has it */
void wf_case_tap(void *ctx, const wf_module *m, const char *what, wf_node *n); /* for wf_build.tap with the case as ctx */
wf_node *wf_case_tapped(const wf_case *c, const char *what, int nth);          /* NULL when there is none */
wf_status wf_case_solve(wf_case *c); /* run, compare outputs and gradients of inputs */
/* An output that is computed outside the graph. */
wf_status wf_case_compare(wf_case *c, const char *name, const wf_tensor *value);
wf_status wf_case_compare_as(wf_case *c, const char *full, const wf_tensor *value); /* by the file's own name: "grad.param.x" */
wf_status wf_case_finish(wf_case *c);                                               /* gradients of parameters, leftovers */
wf_status wf_case_fail(const wf_case *c, const char *fmt, ...) WF_PRINTF(2, 3);     /* WF_EINVAL */

#endif
