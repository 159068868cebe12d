/* batch.h: what norms share whose statistics are taken over the tokens of a batch: batchnorm, unified, power, repbn, prepbn. */
#ifndef WF_NORM_BATCH_H
#define WF_NORM_BATCH_H

#include "part/norm/norm.h"

typedef struct wf_norm_tokens { /* x [.., D] as rows */
    int64_t n;                  /* tokens, padding included */
    wf_node *x;                 /* [n,D], at least float32 */
    wf_node *keep;              /* [n,1] in x's dtype: 1 where a token counts; NULL: all do */
    wf_node *counted;           /* [1]: how many count */
} wf_norm_tokens;
/* False after an error: a mask that is not one of x [B,L,..]. One vector a sample ([B,D]) is never masked. */
bool wf_norm_tokens_of(wf_build *b, wf_module *m, wf_node *x, wf_norm_tokens *t);
/* Mean of v [n,D] over the tokens that count: [D]; 0 when none does. */
wf_node *wf_norm_mean(wf_graph *g, const wf_norm_tokens *t, wf_node *v);
/* old * keep + now * (1 - keep) */
wf_node *wf_norm_blend(wf_graph *g, wf_node *old, wf_node *now, double keep);

/* Counters are int32 buffers of one entry, worked with in float64, which holds them all. wf_norm_count: the count with this step,
 * 1 for the first, which the buffer becomes. Flags are 1 or 0. */
wf_node *wf_norm_counter(wf_build *b, wf_module *m, const char *name);
wf_node *wf_norm_count(wf_build *b, wf_module *m, const char *name);
static inline wf_node *wf_norm_number(wf_graph *g, double v) {
    return wf_fill(g, WF_F64, WF_SHAPE(1), v);
}

/* A backward pass that changes state. `build` is NULL once the build has ended: nothing can be registered then. The first
 * derivative that is built registers, later ones of the same graph only compute. */
typedef struct wf_norm_backward {
    wf_build **build;
    wf_module *m;
    bool registered;
} wf_norm_backward;
wf_norm_backward *wf_norm_backward_new(wf_build *b, wf_module *m); /* in the graph's arena; NULL + error */
/* The build to register updates with, or NULL. */
wf_build *wf_norm_backward_begin(wf_norm_backward *w);

/* ---- batchnorm.c ---- */
typedef struct wf_batchnorm {
    double eps, momentum;
    double start; /* of the gain */
    bool affine;
    wf_node *gate; /* 0: running statistics stay as they are in this step; NULL: they always move */
} wf_batchnorm;
wf_status wf_batchnorm_setup(wf_module *m, const wf_batchnorm *o);
/* Training form on rows [n,D]; what padded tokens hold is up to the caller. */
wf_node *wf_batchnorm_train(wf_build *b, wf_module *m, const wf_norm_tokens *t, const wf_batchnorm *o);
wf_node *wf_batchnorm_eval(wf_build *b, wf_module *m, wf_node *x, double eps);
void wf_batchnorm_fold(const wf_module *m, double eps, double *a, double *c);

/* ---- repbn.c ---- */
/* The training form with a gate on the statistics, for prepbn. */
wf_node *wf_repbn_train(wf_build *b, wf_module *m, wf_node *x, wf_node *gate);

#endif
