/* cell.c: one design with one seed: trained, then measured. Runs in a worker process with one thread. */
#include "lab/fold.h"
#include "lab/lab.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_LAYERS = 64, PROBE_BATCHES = 24 };

static void nothing(wf_cell_result *out) {
    memset(out, 0, sizeof *out);
    for (int q = 0; q < WF_Q_COUNT; q++) out->value[q] = NAN;
}

/* ---- quantities that need a look inside ---- */
typedef enum probe_kind { TRAIN_FORM, EVAL_FORM, STREAM, ENTROPY } probe_kind;

typedef struct probe {
    probe_kind kind;
    wf_build b;
    wf_node *seen[MAX_LAYERS]; /* what the taps caught */
    int n;
} probe;

static void tap(void *ctx, const wf_module *m, const char *what, wf_node *n) {
    probe *p = ctx;
    const char *wanted = p->kind == STREAM ? "hidden" : p->kind == ENTROPY ? "weights" : "";
    if (!strcmp(what, wanted) && p->n < MAX_LAYERS) p->seen[p->n++] = n;
}

/* x [B,L,D]: biased variance over D, mean over tokens. */
static wf_node *variance(wf_graph *g, wf_node *x) {
    if (!x) return NULL;
    unsigned last = 1u << (x->shape.rank - 1);
    return wf_mean(g, wf_square(g, wf_sub(g, x, wf_mean(g, x, last, true))), (last << 1) - 1, false);
}

/* P [B,H,L,S], rows sum to one: - sum P ln P, mean over rows; 0 ln 0 = 0. */
static wf_node *entropy(wf_graph *g, wf_node *p) {
    if (!p) return NULL;
    unsigned last = 1u << (p->shape.rank - 1);
    wf_node *rows = wf_neg(g, wf_sum(g, wf_mul(g, p, wf_log(g, wf_max_c(g, p, 1e-30))), last, false));
    return wf_mean(g, rows, last - 1, false);
}

static wf_plan *plan_probe(probe *p, wf_run *r, wf_batch *batch, wf_tensor *seed) {
    wf_build *b = &p->b;
    wf_graph *g = b->g;
    b->train = p->kind == TRAIN_FORM;
    b->plain = p->kind == ENTROPY;
    b->causal = wf_run_task(r)->objective == WF_OBJECTIVE_NEXT_TOKEN;
    b->seed = wf_leaf(g, seed, "seed");
    b->tap = tap;
    b->tap_ctx = p;
    wf_node *logits = wf_apply(b, wf_run_model(r)->root, wf_leaf(g, batch->tensor[0], "input")), *out[MAX_LAYERS];
    int n = 0;
    if (p->kind == TRAIN_FORM || p->kind == EVAL_FORM)
        out[n++] = logits ? wf_sum_all(g, wf_cross_entropy(g, logits, wf_leaf(g, batch->tensor[1], "targets"), 0)) : NULL;
    else
        for (int i = 0; logits && i < p->n; i++)
            out[n++] = p->kind == STREAM ? variance(g, p->seen[i]) : entropy(g, p->seen[i]);
    if (wf_graph_status(g) != WF_OK) {
        wf_fail(wf_graph_status(g), "%s", wf_graph_message(g));
        return NULL;
    }
    if (n == 0) {
        wf_fail(WF_EUNSUPPORTED, "the model shows no '%s' to measure", p->kind == STREAM ? "hidden" : "weights");
        return NULL;
    }
    p->n = n;
    return wf_plan_new(g, out, n, NULL, 0, NULL); /* without effects: running statistics stay as they are */
}

static int64_t scored(const wf_tensor *targets) {
    int64_t n = 0;
    for (int64_t i = 0; i < wf_tensor_count(targets); i++) n += ((const int32_t *)targets->data)[i] >= 0;
    return n;
}

/* Over `batches` batches of the validation split: losses a scored target, or means of what was tapped. */
static wf_status run_probe(probe *p, wf_run *r, wf_plan *plan, wf_batch *batch, int64_t batches, double *out) {
    bool loss = p->kind == TRAIN_FORM || p->kind == EVAL_FORM;
    double weight = 0;
    memset(out, 0, (size_t)p->n * sizeof *out);
    for (int64_t i = 0; i < batches; i++) {
        WF_TRY(wf_batch_fill(wf_run_task(r), WF_VALID, 0, i, batch, NULL));
        WF_TRY(wf_plan_run(plan));
        for (int k = 0; k < p->n; k++) out[k] += (double)*(const float *)wf_plan_out(plan, k);
        weight += loss ? (double)scored(batch->tensor[1]) : 1;
        if (wf_interrupted()) return wf_fail(WF_EINTERRUPTED, "stopped");
    }
    for (int k = 0; k < p->n; k++) out[k] /= weight;
    return WF_OK;
}

static wf_status look(wf_run *r, probe_kind kind, double out[MAX_LAYERS], int *n) {
    const wf_train_opt *o = wf_run_options(r);
    int64_t size = o->batch / o->accumulate, all = wf_run_task(r)->count[WF_VALID] / size;
    int64_t batches = kind == TRAIN_FORM || kind == EVAL_FORM ? o->valid_batches : PROBE_BATCHES;
    if (batches <= 0 || batches > all) batches = all;
    if (batches < 1) return wf_fail(WF_EINVAL, "the validation split has less than one batch of %lld", (long long)size);
    probe p = {.kind = kind};
    wf_tensor *seed = wf_tensor_new(WF_I32, WF_SHAPE(4));
    wf_batch *batch = wf_batch_new(wf_run_task(r), size);
    wf_graph *g = seed && batch ? wf_graph_open() : NULL;
    wf_status s = g ? WF_OK : WF_ENOMEM;
    if (s == WF_OK) {
        wf_build_start(&p.b, g);
        wf_plan *plan = plan_probe(&p, r, batch, seed);
        s = plan ? run_probe(&p, r, plan, batch, batches, out) : WF_EINVAL;
        wf_plan_free(plan);
        wf_build_end(&p.b);
        *n = p.n;
    }
    wf_graph_free(g);
    wf_batch_free(batch);
    wf_tensor_free(seed);
    return s;
}

/* Weights of a run that diverged may give no number: then it is infinite, as its loss. */
static double known(double x) {
    return isnan(x) ? INFINITY : x;
}

static wf_status measure_inside(const wf_claim *c, wf_run *r, double *value) {
    double x[MAX_LAYERS], y[MAX_LAYERS];
    int n = 0;
    if (c->want[WF_Q_TRAIN_MODE] || c->want[WF_Q_GAP]) {
        WF_TRY(look(r, TRAIN_FORM, x, &n));
        WF_TRY(look(r, EVAL_FORM, y, &n));
        value[WF_Q_TRAIN_MODE] = known(x[0]);
        value[WF_Q_GAP] = known(fabs(x[0] - y[0]));
    }
    if (c->want[WF_Q_VARIANCE]) {
        WF_TRY(look(r, STREAM, x, &n));
        value[WF_Q_VARIANCE] = known(x[0]);
    }
    if (c->want[WF_Q_ENTROPY] || c->want[WF_Q_ENTROPY_MAX]) {
        WF_TRY(look(r, ENTROPY, x, &n));
        value[WF_Q_ENTROPY] = value[WF_Q_ENTROPY_MAX] = known(x[0]);
        for (int i = 1; i < n; i++) {
            value[WF_Q_ENTROPY] = fmin(value[WF_Q_ENTROPY], known(x[i]));
            value[WF_Q_ENTROPY_MAX] = fmax(value[WF_Q_ENTROPY_MAX], known(x[i]));
        }
    }
    return WF_OK;
}

static wf_status measure_folded(const wf_claim *c, wf_run *r, double *value) {
    if (!c->want[WF_Q_FOLDED_LOSS] && !c->want[WF_Q_FOLDED_CHANGE]) return WF_OK;
    const wf_train_opt *o = wf_run_options(r);
    wf_metrics m;
    double change;
    wf_model *folded;
    wf_status s = wf_fold_copy(wf_run_model(r), &folded, &change);
    if (s == WF_EUNSUPPORTED) return WF_OK; /* nothing to fold: not measured */
    WF_TRY(s);
    s = wf_measure(folded, wf_run_task(r), WF_VALID, o->batch / o->accumulate, o->valid_batches, WF_F32, &m, NULL);
    wf_model_free(folded);
    WF_TRY(s);
    value[WF_Q_FOLDED_LOSS] = m.loss;
    value[WF_Q_FOLDED_CHANGE] = change;
    return WF_OK;
}

static wf_status measure(const wf_claim *c, wf_run *r, wf_cell_result *out) {
    wf_metrics m;
    wf_plan_info info;
    WF_TRY(wf_run_validate(r, &m));
    out->value[WF_Q_LOSS] = *out->diverged ? INFINITY : m.loss;
    out->value[WF_Q_ACCURACY] = *out->diverged ? 0 : 100 * m.accuracy;
    WF_TRY(measure_inside(c, r, out->value));
    WF_TRY(measure_folded(c, r, out->value));
    out->value[WF_Q_PARAMETERS] = (double)wf_model_count(wf_run_model(r));
    WF_TRY(wf_measure(wf_run_model(r), wf_run_task(r), WF_VALID, 1, -1, WF_F32, &m, &info));
    out->value[WF_Q_MFLOPS] = 1e-6 * info.flops;
    return WF_OK;
}

/* ---- training ---- */

/* A run that diverges is a result: it stops with the weights before the step that went wrong. */
static wf_status train(wf_run *r, wf_cell_step step, void *ctx, wf_cell_result *out) {
    int64_t steps = wf_run_options(r)->steps;
    double largest = 0;
    while (wf_run_steps_done(r) < steps) {
        wf_step_report report;
        wf_status s = wf_run_step(r, &report);
        if (s == WF_ENONFINITE) {
            snprintf(out->diverged, sizeof out->diverged, "%s", wf_message());
            largest = INFINITY;
            break;
        }
        WF_TRY(s);
        largest = fmax(largest, report.grad_norm);
        if (step && !step(ctx, report.step, steps)) return wf_fail(WF_EINTERRUPTED, "stopped");
    }
    out->value[WF_Q_GRAD_MAX] = largest;
    return WF_OK;
}

/* The design's run with weights and order of samples by the seed. */
wf_run *wf_cell_open(const wf_claim *c, int design, int seed) {
    wf_value *recipe = wf_value_copy(c->design[design].recipe);
    char text[32];
    snprintf(text, sizeof text, "%d", seed);
    wf_status s = recipe ? WF_OK : WF_ENOMEM;
    if (s == WF_OK) s = wf_value_set_path(recipe, "train.seed", text);
    if (s == WF_OK) s = wf_value_set_path(recipe, "train.data_seed", text);
    wf_run *r = s == WF_OK ? wf_run_new(recipe, NULL) : NULL;
    wf_value_free(recipe);
    return r;
}

/* Of this process, all threads: the cost of a run, whatever else the machine does. */
static double processor_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

wf_status wf_cell_run(const wf_claim *c, int design, int seed, wf_cell_step step, void *ctx, wf_cell_result *out) {
    nothing(out);
    double started = processor_seconds();
    const wf_value *experiment = wf_value_get(c->design[design].recipe, "experiment");
    wf_status s;
    if (experiment) {
        s = wf_experiment_run(experiment, out->value);
    } else {
        wf_run *r = wf_cell_open(c, design, seed);
        s = r ? train(r, step, ctx, out) : WF_EINVAL;
        if (s == WF_OK) s = measure(c, r, out);
        wf_run_free(r);
    }
    out->seconds = processor_seconds() - started;
    return s;
}
