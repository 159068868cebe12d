/* timing.c: forward passes of all designs of a claim that take turns: one thread, calls of all designs interleaved, and the order
 * turned round after every round, so that what disturbs the machine falls on all alike. The figure is the median. */
#include "lab/fold.h"
#include "lab/lab.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WARM_UP = 3 };

typedef struct lane { /* one thing to be timed */
    wf_run *run;      /* NULL: a part alone */
    wf_model *own;    /* folded model or part; else the run's */
    wf_tensor *input;
    wf_graph *graph;
    wf_build build;
    wf_plan *plan;
    double *seconds;
    int design;
    bool folded;
} lane;

static void close_lane(lane *l) {
    wf_plan_free(l->plan);
    if (l->graph) wf_build_end(&l->build);
    wf_graph_free(l->graph);
    wf_tensor_free(l->input);
    wf_model_free(l->own);
    wf_run_free(l->run);
    wf_free(l->seconds);
}

/* Validation samples, the first `length` tokens of each. */
static wf_status task_input(lane *l, const wf_claim *c) {
    const wf_task *t = wf_run_task(l->run);
    wf_batch *b = wf_batch_new(t, c->timing.batch);
    if (!b) return WF_ENOMEM;
    wf_status s = wf_batch_fill(t, WF_VALID, 0, 0, b, NULL);
    wf_tensor *x = b->tensor[0];
    int64_t L = t->length, want = c->timing.length ? c->timing.length : L;
    if (s == WF_OK && want > L && L > 0)
        s = wf_fail(WF_EINVAL, "time: length %lld is more than the task's %lld", (long long)want, (long long)L);
    wf_shape shape = x->shape;
    if (L > 0) shape.dim[1] = want;
    if (s == WF_OK && !(l->input = wf_tensor_new(x->dtype, shape))) s = WF_ENOMEM;
    if (s == WF_OK) {
        size_t row = l->input->bytes / (size_t)c->timing.batch, from = x->bytes / (size_t)c->timing.batch;
        for (int64_t i = 0; i < c->timing.batch; i++)
            memcpy((char *)l->input->data + (size_t)i * row, (const char *)x->data + (size_t)i * from, row);
    }
    wf_batch_free(b);
    return s;
}

typedef struct part_options {
    const char *slot;
    const wf_value *spec;
    int64_t width, tokens;
} part_options;

static wf_status open_part(lane *l, const wf_value *part, int seed) {
    static const wf_option table[] = {
        {"slot", WF_OPT_CHOICE, offsetof(part_options, slot), "norm", 0, 0, "norm|mixer|channel|linear", "the part's slot"},
        {"spec", WF_OPT_VALUE, offsetof(part_options, spec), "", 0, 0, NULL,
         "as in a recipe: rmsnorm, {name: softmax, heads: 6}"},
        {"width", WF_OPT_INT, offsetof(part_options, width), "256", 1, 1 << 16, NULL, "channels"},
        {"tokens", WF_OPT_INT, offsetof(part_options, tokens), "1024", 1, 1 << 20, NULL, "tokens"},
        WF_OPT_END};
    part_options o;
    WF_TRY(wf_options_read(table, part, "part", NULL, &o, sizeof o));
    if (!o.spec) return wf_value_fail(part, WF_EINVAL, "part: 'spec' is missing");
    if (!(l->own = wf_model_of_part(o.slot, o.spec, o.width, o.width, false, o.tokens, (uint64_t)seed))) return WF_EINVAL;
    if (!(l->input = wf_tensor_new(WF_F32, WF_SHAPE(1, o.tokens, o.width)))) return WF_ENOMEM;
    wf_rng r = {(uint64_t)seed, 7, 0};
    for (int64_t i = 0; i < o.tokens * o.width; i++) ((float *)l->input->data)[i] = (float)wf_rng_normal(&r);
    return WF_OK;
}

static wf_status open_lane(lane *l, const wf_claim *c, int seed) {
    const wf_value *part = wf_value_get(c->design[l->design].recipe, "part");
    if (part) {
        WF_TRY(open_part(l, part, seed));
    } else {
        if (!(l->run = wf_cell_open(c, l->design, seed))) return WF_EINVAL;
        WF_TRY(task_input(l, c));
        if (l->folded) WF_TRY(wf_fold_copy(wf_run_model(l->run), &l->own, &(double){0}));
    }
    wf_model *m = l->own ? l->own : wf_run_model(l->run);
    if (!(l->graph = wf_graph_open())) return WF_ENOMEM;
    wf_build_start(&l->build, l->graph);
    l->build.causal = m->causal;
    wf_node *y = wf_apply(&l->build, m->root, wf_leaf(l->graph, l->input, "input"));
    if (!y) return wf_fail(wf_graph_status(l->graph), "%s", wf_graph_message(l->graph));
    l->plan = wf_plan_new(l->graph, &y, 1, NULL, 0, NULL);
    l->seconds = wf_alloc_array((size_t)c->timing.calls, sizeof *l->seconds);
    return l->plan && l->seconds ? WF_OK : WF_EINVAL;
}

static wf_status run_lanes(lane *l, int n, int64_t calls) {
    for (int64_t i = -WARM_UP; i < calls; i++) {
        for (int k = 0; k < n; k++) {
            lane *now = &l[i % 2 ? n - 1 - k : k];
            double t = wf_seconds();
            WF_TRY(wf_plan_run(now->plan));
            if (i >= 0) now->seconds[i] = wf_seconds() - t;
        }
        if (wf_interrupted()) return wf_fail(WF_EINTERRUPTED, "stopped");
    }
    return WF_OK;
}

wf_status wf_cell_time(const wf_claim *c, int seed, wf_cell_result *out) {
    lane *l = wf_alloc_array((size_t)c->n_design * 2, sizeof *l);
    if (!l) return WF_ENOMEM;
    int n = 0;
    wf_status s = WF_OK;
    for (int d = 0; d < c->n_design && s == WF_OK; d++) {
        for (int q = 0; q < WF_Q_COUNT; q++) out[d].value[q] = NAN;
        if (wf_value_get(c->design[d].recipe, "experiment")) continue;
        l[n].design = d;
        s = open_lane(&l[n++], c, seed);
        bool whole = !wf_value_get(c->design[d].recipe, "part");
        if (s != WF_OK || !whole || !c->want[WF_Q_FOLDED_MS]) continue;
        l[n].design = d;
        l[n].folded = true;
        s = open_lane(&l[n++], c, seed);
        if (s != WF_EUNSUPPORTED) continue;
        close_lane(&l[--n]); /* nothing to fold: not timed */
        memset(&l[n], 0, sizeof l[n]);
        s = WF_OK;
    }
    if (s == WF_OK) s = run_lanes(l, n, c->timing.calls);
    for (int k = 0; k < n; k++) {
        if (s == WF_OK)
            out[l[k].design].value[l[k].folded ? WF_Q_FOLDED_MS : WF_Q_MS] = 1e3 * wf_median(l[k].seconds, c->timing.calls);
        if (s == WF_OK && l[k].run) out[l[k].design].value[WF_Q_PARAMETERS] = (double)wf_model_count(wf_run_model(l[k].run));
        close_lane(&l[k]);
    }
    wf_free(l);
    return s;
}
