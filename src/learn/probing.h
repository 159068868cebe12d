/* probing.h: what the measures share: a model applied to one batch with everything that it taps. */
#ifndef WF_PROBING_H
#define WF_PROBING_H

#include "learn/probe.h"

typedef struct wf_probing_tap {
    const wf_module *module;
    const char *what;
    wf_node *node;
} wf_probing_tap;

typedef struct wf_probing {
    wf_graph *g;
    wf_build b;
    wf_batch *batch;
    wf_node *loss; /* mean over scored targets, [] */
    int n, cap;
    wf_probing_tap *tap; /* in the order of the forward pass */
    bool failed;
} wf_probing;

/* plain: attention is composed, so that its weights and scores are tapped. Close it also after a failure. */
wf_status wf_probing_open(wf_probing *p, const wf_probe_input *in, bool plain);
void wf_probing_close(wf_probing *p);
/* The n-th tap of a module with this name, NULL: none. module NULL: any. */
wf_node *wf_probing_find(const wf_probing *p, const wf_module *m, const char *what, int nth);
/* A plan that gives `out`, run once; NULL + message. */
wf_plan *wf_probing_run(const wf_probing *p, wf_node *const *out, int n);
/* Add a row; values[0..columns). */
wf_status wf_probe_add(wf_probe_table *t, const double *value, const char *fmt, ...) WF_PRINTF(3, 4);
double wf_probe_norm(const void *data, const wf_node *n); /* 2-norm of float32 data */
double wf_probe_largest(const void *data, const wf_node *n);

extern const wf_probe wf_probe_variance, wf_probe_gradient, wf_probe_massive, wf_probe_entropy, wf_probe_sigma;

#endif
