/* gradcheck.h: gradients of a graph against central differences in float64; first and second order. Header-only, for tests.
 *
 *     static wf_node *build(wf_graph *g, wf_node **x, void *ctx) { return wf_mul(g, x[0], wf_exp(g, x[1])); }
 *     assert_true(gc_check(&(gc_case){.name = "mul exp", .build = build, .n = 2,
 *                                     .shape = {WF_SHAPE(3, 5), WF_SHAPE(5)}, .seed = 7, .second = true}));
 *
 * Inputs are float64 leaves: standard normal, or uniform in [lo, hi) where lo != hi, or what `fill` puts there. Integer inputs
 * (indices) come through ctx: the builder makes leaves of its own. An operator with several outputs is tested by a builder that
 * combines them (a sum of products with constants).
 *   First order:  with a random seed u, d<u, f(x)>/dx_i by wf_grad against (f(x + h e_i) - f(x - h e_i)) / 2h.
 *   Second order: s(x, u) = sum_i <v_i, d<u, f>/dx_i> with random v; its gradient in x and in u against differences of s.
 */
#ifndef GRADCHECK_H
#define GRADCHECK_H

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "op/op.h"

#define GC_MAX 8       /* inputs of a case */
#define GC_ENTRIES 300 /* entries checked of one input; larger inputs are sampled evenly */

typedef struct gc_case {
    const char *name;
    wf_node *(*build)(wf_graph *g, wf_node **x, void *ctx);
    void *ctx;
    int n;
    wf_shape shape[GC_MAX];
    double lo[GC_MAX], hi[GC_MAX];                    /* equal: standard normal */
    void (*fill)(void *ctx, int input, wf_tensor *t); /* may be NULL; called after the random fill */
    uint64_t seed;
    bool second;
    double step, tolerance; /* 0: 1e-5 and 1e-6; the error is taken relative to max(1, largest entry of that gradient) */
    bool no_fusion;
} gc_case;

typedef struct gc_work { /* tensors of one check: inputs, the seed of the output, directions of the second order */
    wf_tensor *x[GC_MAX], *u, *v[GC_MAX];
} gc_work;

static inline bool gc_say(const gc_case *c, const char *what) {
    fprintf(stderr, "gradcheck %s: %s: %s\n", c->name, what, wf_message());
    return false;
}

static inline void gc_random(wf_tensor *t, uint64_t seed, uint64_t stream, double lo, double hi) {
    wf_rng r = {seed, stream, 0};
    for (int64_t i = 0; i < wf_tensor_count(t); i++)
        wf_tensor_set(t, i, lo == hi ? wf_rng_normal(&r) : lo + (hi - lo) * wf_rng_uniform(&r));
}

static inline void gc_free(gc_work *w) {
    for (int i = 0; i < GC_MAX; i++) {
        wf_tensor_free(w->x[i]);
        wf_tensor_free(w->v[i]);
    }
    wf_tensor_free(w->u);
}

/* Value of <u, out> (or of a scalar) after a run. */
static inline double gc_value(wf_plan *p, const wf_tensor *u) {
    const double *y = wf_plan_out(p, 0);
    if (!u) return y[0];
    double s = 0;
    for (int64_t i = 0; i < wf_tensor_count(u); i++) s += y[i] * ((const double *)u->data)[i];
    return s;
}

/* Central difference of the plan's value along entry i of t; NaN after a failing run. */
static inline double gc_difference(wf_plan *p, const wf_tensor *u, wf_tensor *t, int64_t i, double h) {
    double *e = (double *)t->data + i, x = *e, f[2] = {NAN, NAN};
    for (int k = 0; k < 2; k++) {
        *e = k ? x - h : x + h;
        if (wf_plan_run(p) == WF_OK) f[k] = gc_value(p, u);
    }
    *e = x;
    return (f[0] - f[1]) / (2 * h);
}

/* Compare analytic gradient `a` of the plan's value in tensor t with differences; prints the worst entry on failure. */
static inline bool gc_compare(const gc_case *c, const char *order, int input, wf_plan *value, const wf_tensor *u, wf_tensor *t,
                              const double *a) {
    int64_t n = wf_tensor_count(t), stride = n > GC_ENTRIES ? (n + GC_ENTRIES - 1) / GC_ENTRIES : 1, at = -1, bad = 0, seen = 0;
    double scale = 1, worst = -1, wa = 0, wn = 0, tol = c->tolerance > 0 ? c->tolerance : 1e-6;
    for (int64_t i = 0; i < n; i++) scale = fmax(scale, fabs(a[i]));
    for (int64_t i = 0; i < n; i += stride, seen++) {
        double d = gc_difference(value, u, t, i, c->step > 0 ? c->step : 1e-5), e = fabs(d - a[i]) / scale;
        if (!(e <= tol)) bad++;
        if (!(e <= worst)) worst = e, at = i, wa = a[i], wn = d; /* NaN counts as worst */
        if (isnan(worst)) break;
    }
    if (!bad) return true;
    char text[96];
    fprintf(stderr,
            "gradcheck %s: %s order, input %d %s: %lld of %lld entries off; worst at %lld: gradient %.12g, difference %.12g, "
            "relative error %.3g > %.3g\n",
            c->name, order, input, wf_shape_text(&t->shape, text), (long long)bad, (long long)seen, (long long)at, wa, wn,
            worst, tol);
    if (isnan(wn)) fprintf(stderr, "  last message: %s\n", wf_message());
    return false;
}

/* Gradients in all tensors t[0..n) (leaves x) of the scalar or seeded node `out`; compared with differences of its value. */
static inline bool gc_order(const gc_case *c, const char *order, wf_graph *g, wf_node *out, wf_node *seed, const wf_tensor *u,
                            wf_node **x, wf_tensor **t, wf_node **grads, int n) {
    wf_plan_options opts = {.no_fusion = c->no_fusion};
    wf_plan *value = wf_plan_new(g, &out, 1, NULL, 0, &opts);
    if (!value) return gc_say(c, "plan of the value");
    if (wf_grad(g, &out, seed ? &seed : NULL, 1, x, n, grads) != WF_OK) {
        wf_plan_free(value);
        return gc_say(c, "wf_grad");
    }
    wf_plan *slope = wf_plan_new(g, grads, n, NULL, 0, &opts);
    bool ok = slope && wf_plan_run(slope) == WF_OK;
    if (!ok) gc_say(c, "run of the gradients");
    for (int i = 0; ok && i < n; i++) {
        if (!wf_shape_equal(&grads[i]->shape, &t[i]->shape)) {
            char sa[96], sb[96];
            fprintf(stderr, "gradcheck %s: %s order: gradient of input %d has shape %s, not %s\n", c->name, order, i,
                    wf_shape_text(&grads[i]->shape, sa), wf_shape_text(&t[i]->shape, sb));
            ok = false;
        } else {
            ok = gc_compare(c, order, i, value, u, t[i], wf_plan_out(slope, i));
        }
    }
    wf_plan_free(slope);
    wf_plan_free(value);
    return ok;
}

static inline bool gc_second(const gc_case *c, wf_graph *g, gc_work *w, wf_node **x, wf_node **grads, wf_node *seed) {
    wf_node *s = NULL, *wrt[GC_MAX + 1], *grads2[GC_MAX + 1];
    wf_tensor *t[GC_MAX + 1];
    for (int i = 0; i < c->n; i++) {
        w->v[i] = wf_tensor_new(WF_F64, c->shape[i]);
        gc_random(w->v[i], c->seed, 200 + (uint64_t)i, 0, 0);
        wf_node *d = wf_sum_all(g, wf_mul(g, wf_leaf(g, w->v[i], "v"), grads[i]));
        s = i ? wf_add(g, s, d) : d;
        wrt[i] = x[i];
        t[i] = w->x[i];
    }
    wrt[c->n] = seed;
    t[c->n] = w->u;
    if (!s) return gc_say(c, "building the second order");
    return gc_order(c, "second", g, s, NULL, NULL, wrt, t, grads2, c->n + 1);
}

/* True when every gradient of the case agrees; otherwise says on stderr what does not. */
static inline bool gc_check(const gc_case *c) {
    gc_work w;
    memset(&w, 0, sizeof w);
    wf_graph *g = wf_graph_open();
    wf_node *x[GC_MAX], *grads[GC_MAX], *out = NULL, *seed = NULL;
    for (int i = 0; i < c->n; i++) {
        w.x[i] = wf_tensor_new(WF_F64, c->shape[i]);
        gc_random(w.x[i], c->seed, (uint64_t)i, c->lo[i], c->hi[i]);
        if (c->fill) c->fill(c->ctx, i, w.x[i]);
        x[i] = wf_leaf(g, w.x[i], "x");
    }
    out = c->build(g, x, c->ctx);
    bool ok = out && out->dtype == WF_F64;
    if (!out)
        gc_say(c, "building");
    else if (!ok)
        fprintf(stderr, "gradcheck %s: result is %s, not float64\n", c->name, wf_dtype_name(out->dtype));
    if (ok) {
        w.u = wf_tensor_new(WF_F64, out->shape);
        gc_random(w.u, c->seed, 100, 0, 0);
        seed = wf_leaf(g, w.u, "u");
        ok = gc_order(c, "first", g, out, seed, w.u, x, w.x, grads, c->n);
    }
    if (ok && c->second) ok = gc_second(c, g, &w, x, grads, seed);
    wf_graph_free(g);
    gc_free(&w);
    return ok;
}

#endif
