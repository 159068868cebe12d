/* probe.c: the table of measures, their rows, and the batch they look at. */
#include "learn/probe.h"

#include "learn/inside.h"
#include "learn/probing.h"

#include <math.h>
#include <string.h>

static const wf_probe *const all[] = {&wf_probe_variance, &wf_probe_gradient, &wf_probe_massive, &wf_probe_entropy,
                                      &wf_probe_sigma};
enum { N = sizeof all / sizeof *all };

const wf_probe *const *wf_probe_all(int *n) {
    *n = N;
    return all;
}

const wf_probe *wf_probe_find(const char *name) {
    const char *names[N];
    wf_text list = {0};
    for (int i = 0; i < N; i++) {
        if (!strcmp(all[i]->name, name)) {
            wf_text_free(&list);
            return all[i];
        }
        names[i] = all[i]->name;
        wf_text_add(&list, "%s%s", i ? ", " : "", names[i]);
    }
    const char *near = wf_nearest(name, names, N);
    wf_fail(WF_ENOTFOUND, "there is no measure '%s'%s%s%s (there are: %s)", name, near ? "; did you mean '" : "",
            near ? near : "", near ? "'?" : "", list.s ? list.s : "");
    wf_text_free(&list);
    return NULL;
}

wf_status wf_probe_run(const wf_probe *p, const wf_probe_input *in, wf_probe_table *out) {
    *out = (wf_probe_table){.probe = p};
    wf_status s = p->run(in, out);
    if (s == WF_OK && out->n == 0) s = wf_fail(WF_EUNSUPPORTED, "nothing in this model can be measured by '%s'", p->name);
    if (s != WF_OK) wf_probe_free(out);
    return s;
}

void wf_probe_free(wf_probe_table *t) {
    for (int i = 0; i < t->n; i++) wf_free(t->row[i].name);
    wf_free(t->row);
    t->row = NULL;
    t->n = t->cap = 0;
}

wf_status wf_probe_add(wf_probe_table *t, const double *value, const char *fmt, ...) {
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (t->n == t->cap) {
        int cap = t->cap ? 2 * t->cap : 16;
        wf_probe_row *grown = wf_grow(t->row, sizeof *grown * (size_t)t->cap, sizeof *grown * (size_t)cap);
        if (!grown) return WF_ENOMEM;
        t->row = grown;
        t->cap = cap;
    }
    wf_probe_row *r = &t->row[t->n];
    if (!(r->name = wf_strdup(text))) return WF_ENOMEM;
    for (int i = 0; i < WF_PROBE_COLUMNS; i++) r->value[i] = t->probe->column[i] ? value[i] : (double)NAN;
    t->n++;
    return WF_OK;
}

/* ---- a model on a batch ---- */

static void collect(void *ctx, const wf_module *m, const char *what, wf_node *n) {
    wf_probing *p = ctx;
    if (p->n == p->cap) {
        int cap = p->cap ? 2 * p->cap : 256;
        wf_probing_tap *grown = wf_grow(p->tap, sizeof *grown * (size_t)p->cap, sizeof *grown * (size_t)cap);
        if (!grown) {
            p->failed = true;
            return;
        }
        p->tap = grown;
        p->cap = cap;
    }
    p->tap[p->n++] = (wf_probing_tap){m, what, n};
}

static wf_status build(wf_probing *p, const wf_probe_input *in) {
    const wf_task *t = in->task;
    wf_node *batch[4];
    for (int i = 0; i < p->batch->n; i++) batch[i] = wf_leaf(p->g, p->batch->tensor[i], t->tensor_name[i]);
    wf_objective o;
    WF_TRY(wf_objective_build(&p->b, in->model, t, batch, 0, false, &o));
    int64_t scored = wf_objective_scored(t, p->batch);
    p->loss = wf_mul_c(p->g, o.loss_sum, 1 / (double)(scored > 0 ? scored : 1));
    return p->failed || !p->loss ? WF_ENOMEM : WF_OK;
}

wf_status wf_probing_open(wf_probing *p, const wf_probe_input *in, bool plain) {
    memset(p, 0, sizeof *p);
    const wf_task *t = in->task;
    if (!t) return wf_fail(WF_EINVAL, "this measure needs a task to take samples from");
    wf_split split = t->count[WF_VALID] > 0 ? WF_VALID : WF_TRAIN;
    if (!(p->batch = wf_batch_new(t, in->batch)) || !(p->g = wf_graph_open())) return WF_ENOMEM;
    WF_TRY(wf_batch_fill(t, split, 0, 0, p->batch, NULL));
    wf_build_start(&p->b, p->g);
    p->b.plain = plain;
    p->b.tap = collect;
    p->b.tap_ctx = p;
    p->b.tap_io = true;
    return build(p, in);
}

void wf_probing_close(wf_probing *p) {
    if (p->g) {
        wf_build_end(&p->b);
        wf_graph_free(p->g);
    }
    wf_batch_free(p->batch);
    wf_free(p->tap);
    memset(p, 0, sizeof *p);
}

wf_node *wf_probing_find(const wf_probing *p, const wf_module *m, const char *what, int nth) {
    for (int i = 0; i < p->n; i++)
        if ((!m || p->tap[i].module == m) && !strcmp(p->tap[i].what, what) && nth-- == 0) return p->tap[i].node;
    return NULL;
}

wf_plan *wf_probing_run(const wf_probing *p, wf_node *const *out, int n) {
    if (wf_graph_status(p->g) != WF_OK) {
        wf_fail(wf_graph_status(p->g), "%s", wf_graph_message(p->g));
        return NULL;
    }
    wf_plan *plan = wf_plan_new(p->g, out, n, NULL, 0, NULL);
    if (plan && wf_plan_run(plan) != WF_OK) {
        wf_plan_free(plan);
        return NULL;
    }
    return plan;
}

double wf_probe_norm(const void *data, const wf_node *n) {
    const float *x = data;
    double s = 0;
    for (int64_t i = 0; i < wf_shape_count(&n->shape); i++) s += (double)x[i] * x[i];
    return sqrt(s);
}

double wf_probe_largest(const void *data, const wf_node *n) {
    const float *x = data;
    double most = 0;
    for (int64_t i = 0; i < wf_shape_count(&n->shape); i++)
        if (!(fabs((double)x[i]) <= most)) most = fabs((double)x[i]);
    return most;
}
