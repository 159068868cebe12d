/* norms_help.h: one norm in training, step by step: a plan that is made once, inputs and cotangents that change. Header-only. */
#ifndef NORMS_HELP_H
#define NORMS_HELP_H

#include "parts_help.h"

typedef struct norm_run {
    wf_model *m;
    wf_graph *g;
    wf_plan *plan;
    wf_tensor *x, *cot; /* [B,L,D] */
    int n_out;          /* y, dx, then a gradient for each trained parameter */
} norm_run;

/* keep: float [B,L] or NULL. recompute: the norm is a segment that the backward pass computes again. */
static inline norm_run norm_open(const char *text, wf_shape s, wf_tensor *keep, bool recompute) {
    norm_run r = {.m = part_of("norm", text, s.dim[s.rank - 1], false, 0), .g = wf_graph_open()};
    r.x = wf_tensor_new(WF_F32, s);
    r.cot = wf_tensor_new(WF_F32, s);
    wf_build b;
    wf_build_start(&b, r.g);
    b.train = true;
    if (keep) b.keep = wf_leaf(r.g, keep, "keep");
    wf_node *wrt[8], *out[16], *x = wf_leaf(r.g, r.x, "x"), *cot = wf_leaf(r.g, r.cot, "cot");
    int n = 0;
    wrt[n++] = x;
    for (int i = 0; i < r.m->n_param; i++)
        if (!(r.m->param[i]->flags & WF_PARAM_BUFFER)) wrt[n++] = wf_leaf(r.g, r.m->param[i]->value, r.m->param[i]->name);
    if (recompute) wf_recompute_begin(r.g);
    out[0] = wf_apply(&b, r.m->root, wf_mul_c(r.g, x, 1));
    if (recompute) wf_recompute_end(r.g);
    if (!out[0]) fail_msg("%s: %s", text, wf_graph_message(r.g));
    if (wf_grad(r.g, out, &cot, 1, wrt, n, out + 1) != WF_OK) fail_msg("%s: %s", text, wf_message());
    r.n_out = n + 1;
    r.plan = wf_plan_new(r.g, out, r.n_out, b.update, b.n_update, NULL);
    if (!r.plan) fail_msg("%s: %s", text, wf_message());
    wf_build_end(&b);
    return r;
}

static inline void norm_close(norm_run *r) {
    wf_plan_free(r->plan);
    wf_graph_free(r->g);
    wf_tensor_free(r->x);
    wf_tensor_free(r->cot);
    wf_model_free(r->m);
}

static inline void norm_step(norm_run *r) {
    if (wf_plan_run(r->plan) != WF_OK) fail_msg("step: %s", wf_message());
}

static inline const float *norm_out(const norm_run *r, int i) {
    return wf_plan_out(r->plan, i);
}

static inline wf_tensor *norm_buffer(const norm_run *r, const char *name) {
    wf_param *p = wf_model_param(r->m, name);
    if (!p) fail_msg("%s", wf_message());
    return p->value;
}

static inline double norm_at(const norm_run *r, const char *name, int64_t i) {
    return wf_tensor_get(norm_buffer(r, name), i);
}

/* New numbers in x, times `size` in channel c: size * (1 + c / 4); and in the cotangent. */
static inline void norm_fill(norm_run *r, wf_rng *rng, double size) {
    int64_t D = r->x->shape.dim[r->x->shape.rank - 1];
    for (int64_t i = 0; i < wf_tensor_count(r->x); i++) {
        wf_tensor_set(r->x, i, size * (1 + 0.25 * (double)(i % D)) * wf_rng_normal(rng));
        wf_tensor_set(r->cot, i, wf_rng_normal(rng));
    }
}

#endif
