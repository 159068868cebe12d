/* runnode.h: run one node of a graph and look at its result. Header-only, for tests. */
#ifndef RUNNODE_H
#define RUNNODE_H

#include <math.h>
#include <string.h>

#include "op/op.h"

/* Output of `n` as a tensor of its own; NULL + wf_message() when planning or running fails. */
static inline wf_tensor *rn_run(wf_graph *g, wf_node *n) {
    if (!n) return NULL;
    wf_tensor *t = NULL;
    wf_plan *p = wf_plan_new(g, &n, 1, NULL, 0, NULL);
    if (p && wf_plan_run(p) == WF_OK && (t = wf_tensor_new(n->dtype, n->shape))) memcpy(t->data, wf_plan_out(p, 0), t->bytes);
    wf_plan_free(p);
    return t;
}

/* Standard normal numbers (integers: 0..limit-1) in a new tensor. */
static inline wf_tensor *rn_random(wf_dtype d, wf_shape s, uint64_t seed, int64_t limit) {
    wf_tensor *t = wf_tensor_new(d, s);
    wf_rng r = {seed, 0, 0};
    for (int64_t i = 0; t && i < wf_tensor_count(t); i++)
        wf_tensor_set(t, i, wf_is_float(d) ? wf_rng_normal(&r) : (double)wf_rng_below(&r, (uint64_t)limit));
    return t;
}

/* An int32 leaf with these numbers; its tensor is put into *keep for the caller to free. */
static inline wf_node *rn_indices(wf_graph *g, wf_shape s, const int *v, wf_tensor **keep) {
    wf_tensor *t = wf_tensor_new(WF_I32, s);
    for (int64_t i = 0; i < wf_tensor_count(t); i++) ((int32_t *)t->data)[i] = v[i];
    *keep = t;
    return wf_leaf(g, t, "idx");
}

/* Largest |a - b| over max(1, |b|). */
static inline double rn_error(const wf_tensor *a, const wf_tensor *b) {
    double worst = 0;
    if (!wf_shape_equal(&a->shape, &b->shape)) return INFINITY;
    for (int64_t i = 0; i < wf_tensor_count(a); i++) {
        double x = wf_tensor_get(a, i), y = wf_tensor_get(b, i), e = fabs(x - y) / fmax(1, fabs(y));
        if (x == y) continue; /* infinities too */
        if (!(e <= worst)) worst = isnan(e) ? INFINITY : e;
    }
    return worst;
}

#endif
