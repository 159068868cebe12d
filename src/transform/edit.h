/* edit.h: inside of the transform room: a model that is being changed. Its recipe is a tree, its tensors are doubles from the
 * moment they are touched; wf_edit_finish builds the new model of both. The old model is only read.
 */
#ifndef WF_EDIT_H
#define WF_EDIT_H

#include "transform/transform.h"

typedef struct wf_edit_tensor {
    char *name;
    wf_shape shape;
    double *x;
} wf_edit_tensor;

typedef struct wf_edit {
    const wf_model *m;
    wf_value *recipe, *spec; /* the new recipe; the model's own map in it */
    wf_value *parts;         /* module path -> what is laid over it */
    int n, cap;
    wf_edit_tensor *tensor;
    wf_arena *arena;
    wf_transform_report *report;
} wf_edit;

wf_edit *wf_edit_new(const wf_model *m, wf_transform_report *r); /* r: not owned */
void wf_edit_free(wf_edit *e);
/* The tensor as doubles, read from the model when first asked for; changes stay. NULL + message when there is none. */
double *wf_edit_take(wf_edit *e, const char *name, wf_shape *shape);
bool wf_edit_has(const wf_edit *e, const char *name);
/* A new tensor of zeros, or in place of the old one. */
double *wf_edit_make(wf_edit *e, const char *name, wf_shape shape);
/* Change the recipe: an option of the model; what is laid over one module ("{bias: true}"). */
wf_status wf_edit_option(wf_edit *e, const char *key, const char *text);
wf_status wf_edit_part(wf_edit *e, const char *path, const char *fmt, ...) WF_PRINTF(3, 4);
/* The new model; fills the report's counts. Frees nothing. */
wf_model *wf_edit_finish(wf_edit *e);

/* "path.name" in the edit's arena. */
const char *wf_edit_name(wf_edit *e, const wf_module *m, const char *name);
/* A line of the report: `path` is shown with * for its numbers, equal lines are counted. kept: a reason why nothing was done. */
void wf_edit_note(wf_edit *e, bool kept, const char *path, const char *fmt, ...) WF_PRINTF(4, 5);

/* ---- looking at modules ---- */
/* An option of a module's part by name; false when it has none of that name and type. */
bool wf_module_int(const wf_module *m, const char *option, int64_t *out);
bool wf_module_real(const wf_module *m, const char *option, double *out);
bool wf_module_flag(const wf_module *m, const char *option, bool *out);
const char *wf_module_choice(const wf_module *m, const char *option);
bool wf_module_is(const wf_module *m, const char *slot, const char *name); /* name NULL: any part of the slot */
const char *wf_module_local(const wf_module *m);                           /* the last word of its path */
/* The part's lists, NULL where they do not hold for this module. */
const char *wf_module_readers(const wf_module *m);
const char *wf_module_writers(const wf_module *m);
/* Children that a space-separated list names, those that exist; at most `room`. */
int wf_module_listed(const wf_module *m, const char *names, wf_module **out, int room);
/* Every module of the tree, parents first. */
typedef wf_status (*wf_module_visit)(wf_edit *e, wf_module *m, void *ctx);
wf_status wf_modules_each(wf_edit *e, wf_module *m, wf_module_visit visit, void *ctx);

/* ---- steps that both transforms use ---- */
/* A linear as plain numbers: its effective weight and bias become tensors of the edit, its part dense. */
wf_status wf_edit_plain(wf_edit *e, wf_module *linear);
/* Give a head that is tied to an embedding a weight of its own. */
wf_status wf_edit_untie(wf_edit *e);
bool wf_edit_tied(const wf_edit *e);
/* As wf_fold; stream: only what a change of norms needs (gains of the norms around sublayers, layer scales, plain linears). */
wf_status wf_edit_fold(wf_edit *e, const wf_fold_opt *opt, bool stream);
/* Subtract the mean over the channels from everything that puts the first vectors of the stream. The reason (NULL: done) why it
 * cannot be done is a sentence. */
wf_status wf_edit_centre_start(wf_edit *e, const char **why);
/* Names of the model part's writers that exist: linears (*linear) or parameters (by full name). */
int wf_edit_starts(const wf_edit *e, wf_module **linear, const char **param, int room);

#endif
