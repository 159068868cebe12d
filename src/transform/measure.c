/* measure.c: what a transform changed: outputs of both models on the same random input, and their speed in turn. */
#include "transform/edit.h"

#include <math.h>
#include <stdlib.h>

typedef struct runner { /* one model with its plan on one input */
    wf_graph *g;
    wf_build b;
    wf_plan *p;
    wf_node *y;
} runner;

static void close_runner(runner *r) {
    if (r->p) wf_plan_free(r->p);
    if (r->g) {
        wf_build_end(&r->b);
        wf_graph_free(r->g);
    }
}

static wf_status open_runner(runner *r, wf_model *m, wf_tensor *x) {
    r->g = wf_graph_open();
    if (!r->g) return WF_ENOMEM;
    wf_build_start(&r->b, r->g);
    r->b.causal = m->causal;
    r->y = wf_apply(&r->b, m->root, wf_leaf(r->g, x, "input"));
    if (!r->y) return wf_fail(wf_graph_status(r->g), "%s", wf_graph_message(r->g));
    r->p = wf_plan_new(r->g, &r->y, 1, r->b.update, r->b.n_update, NULL);
    return r->p ? WF_OK : WF_EINVAL;
}

static int64_t option_or(const wf_module *m, const char *name, int64_t otherwise) {
    int64_t v = 0;
    return wf_module_int(m, name, &v) && v > 0 ? v : otherwise;
}

/* Token numbers [B,L] or pictures [B,C,H,W], as the model's options say. NULL + message for models of neither. */
static wf_tensor *random_input(const wf_model *m, uint64_t seed, wf_transform_figures *f) {
    const wf_module *root = m->root;
    wf_rng r = {seed, 0, 0};
    int64_t V = option_or(root, "vocab", 0), h = option_or(root, "image_height", 0);
    wf_tensor *t = NULL;
    if (V) {
        f->length = option_or(root, "length", 64);
        if (f->length > 256) f->length = 256;
        f->batch = f->length < 512 ? 1024 / f->length : 2;
        if (f->batch > 16) f->batch = 16;
        t = wf_tensor_new(WF_I32, WF_SHAPE(f->batch, f->length));
        for (int64_t i = 0; t && i < wf_tensor_count(t); i++) wf_tensor_set(t, i, (double)wf_rng_below(&r, (uint64_t)V));
    } else if (h) {
        f->length = 0;
        f->batch = 8;
        t = wf_tensor_new(WF_F32, WF_SHAPE(f->batch, option_or(root, "channels", 1), h, option_or(root, "image_width", h)));
        for (int64_t i = 0; t && i < wf_tensor_count(t); i++) wf_tensor_set(t, i, wf_rng_normal(&r));
    } else {
        wf_fail(WF_EUNSUPPORTED, "model.%s takes neither tokens nor pictures, so there is no random input for it",
                root->part->name);
    }
    return t;
}

static void differ(const runner *a, const runner *b, wf_transform_figures *f) {
    int64_t n = wf_shape_count(&a->y->shape);
    const float *x = wf_plan_out(a->p, 0), *y = wf_plan_out(b->p, 0);
    f->difference = f->largest = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)x[i] - (double)y[i]);
        if (!(d <= f->difference)) f->difference = isnan(d) ? INFINITY : d;
        if (fabs((double)x[i]) > f->largest) f->largest = fabs((double)x[i]);
    }
}

static void describe(const runner *r, int *nodes, double *flops) {
    wf_plan_info i;
    wf_plan_describe(r->p, &i);
    *nodes = i.nodes;
    *flops = i.flops;
}

static wf_status timed(const runner *r, double *seconds) {
    double t = wf_seconds();
    wf_status s = wf_plan_run(r->p);
    *seconds = wf_seconds() - t;
    return s;
}

/* In turn, and the first of a pair alternates, so that drift of the machine's speed falls on both. */
static wf_status race(const runner *a, const runner *b, int pairs, wf_transform_figures *f) {
    double *t = wf_alloc_array(3 * (size_t)pairs, sizeof *t);
    if (!t) return WF_ENOMEM;
    double *u = t + pairs, *ratio = u + pairs;
    wf_status s = WF_OK;
    for (int i = 0; i < pairs && s == WF_OK; i++) {
        bool swap = i % 2;
        s = timed(swap ? b : a, swap ? &u[i] : &t[i]);
        if (s == WF_OK) s = timed(swap ? a : b, swap ? &t[i] : &u[i]);
        ratio[i] = u[i] > 0 ? t[i] / u[i] : 1;
        if (s == WF_OK && wf_interrupted()) s = wf_fail(WF_EINTERRUPTED, "stopped");
    }
    f->pairs = pairs;
    if (s == WF_OK) {
        f->before = wf_median(t, pairs);
        f->after = wf_median(u, pairs);
        f->gain = wf_median(ratio, pairs);
    }
    wf_free(t);
    return s;
}

static wf_status measure(wf_model *a, wf_model *b, uint64_t seed, int pairs, wf_transform_figures *f) {
    runner x = {0}, y = {0};
    wf_tensor *in = random_input(a, seed, f);
    wf_status s = in ? open_runner(&x, a, in) : WF_EUNSUPPORTED;
    if (s == WF_OK) s = open_runner(&y, b, in);
    if (s == WF_OK && !wf_shape_equal(&x.y->shape, &y.y->shape))
        s = wf_fail(WF_EINVAL, "the outputs of the two models have different shapes");
    if (s == WF_OK) s = wf_plan_run(x.p); /* also warms both up */
    if (s == WF_OK) s = wf_plan_run(y.p);
    if (s == WF_OK) {
        differ(&x, &y, f);
        describe(&x, &f->nodes_before, &f->flops_before);
        describe(&y, &f->nodes_after, &f->flops_after);
    }
    if (s == WF_OK && pairs > 0) s = race(&x, &y, pairs, f);
    close_runner(&x);
    close_runner(&y);
    wf_tensor_free(in);
    return s;
}

wf_status wf_transform_compare(wf_model *a, wf_model *b, uint64_t seed, wf_transform_figures *f) {
    return measure(a, b, seed, 0, f);
}

wf_status wf_transform_time(wf_model *a, wf_model *b, uint64_t seed, int pairs, wf_transform_figures *f) {
    return measure(a, b, seed, pairs, f);
}
