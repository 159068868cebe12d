/* test_learn.c: schedules, options, optimizers against their formulas in double, runs: repeatable to the byte over threads,
 * stops and resumes; what is refused; what is not finite. */
#include "check.h"

#include "learn/inside.h"

#include <math.h>
#include <sys/resource.h>

static wf_value *parse(const char *text) {
    wf_value *v = wf_yaml_parse(text, strlen(text), "test.yaml");
    if (!v) fail_msg("%s", wf_message());
    return v;
}

/* ---- options and schedules ---- */

static void read_train(const char *text, wf_train_opt *o) {
    static wf_value *v; /* the options' strings point into it */
    wf_value_free(v);
    v = parse(text);
    MUST(wf_train_read(v, o));
}

static void options_have_defaults_and_refuse_nonsense(void **state) {
    wf_train_opt o;
    read_train("train: {steps: 200}", &o);
    assert_int_equal(o.warmup, 10);
    assert_string_equal(o.optimizer, "adamw");
    assert_true(o.muon_lr == o.lr);
    wf_value *v = parse("train: {batch: 10, accumulate: 3}");
    MUST_FAIL(wf_train_read(v, &o), WF_EINVAL, "3 does not divide 10");
    wf_value_free(v);
    v = parse("train: {step: 10}");
    assert_int_not_equal(wf_train_read(v, &o), WF_OK);
    MESSAGE_HAS("steps");
    wf_value_free(v);
}

static void schedules_have_their_shapes(void **state) {
    wf_train_opt o;
    read_train("train: {steps: 100, warmup: 10, final_lr: 0.1, schedule: cosine}", &o);
    assert_float_equal(wf_schedule(&o, 0), 0.1, 1e-12);
    assert_float_equal(wf_schedule(&o, 9), 1, 1e-12);
    assert_float_equal(wf_schedule(&o, 10), 1, 1e-12);
    assert_float_equal(wf_schedule(&o, 55), 0.55, 1e-12);
    assert_float_equal(wf_schedule(&o, 100), 0.1, 1e-12);
    read_train("train: {steps: 100, warmup: 0, final_lr: 0, schedule: linear}", &o);
    assert_float_equal(wf_schedule(&o, 0), 1, 1e-12);
    assert_float_equal(wf_schedule(&o, 25), 0.75, 1e-12);
    read_train("train: {steps: 10, warmup: 20, schedule: cosine}", &o); /* a short trial of a long recipe */
    assert_float_equal(wf_schedule(&o, 9), 0.5, 1e-12);
    read_train("train: {steps: 100, warmup: 4, schedule: constant}", &o);
    assert_float_equal(wf_schedule(&o, 99), 1, 1e-12);
    read_train("train: {steps: 100, warmup: 4, schedule: wsd, decay_part: 0.2, final_lr: 0}", &o);
    assert_float_equal(wf_schedule(&o, 80), 1, 1e-12);
    assert_float_equal(wf_schedule(&o, 90), 0.5, 1e-12);
}

/* ---- optimizers ---- */

enum { ROWS = 3, COLS = 5, MATRIX = ROWS * COLS, STEPS = 4 };

typedef struct by_hand { /* two parameters in double: a matrix [3,5] and a gain [5] without decay */
    double p[2][MATRIX], m[2][MATRIX], v[2][MATRIX], e[2][MATRIX];
} by_hand;

static int size_of(int k) {
    return k == 0 ? MATRIX : COLS;
}
static double gradient(int k, int i, int t) {
    return sin(1.3 * i + 2.1 * k + 0.7 * t) * (1 + 0.2 * t);
}

/* x <- orthogonalised x, by the definition of Newton-Schulz. */
static void newton_schulz(double x[MATRIX]) {
    double n = 0, a[ROWS][ROWS], aa[ROWS][ROWS], y[MATRIX];
    for (int i = 0; i < MATRIX; i++) n += x[i] * x[i];
    for (int i = 0; i < MATRIX; i++) x[i] /= sqrt(n) + 1e-7;
    for (int it = 0; it < 5; it++) {
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < ROWS; j++) {
                a[i][j] = 0;
                for (int k = 0; k < COLS; k++) a[i][j] += x[i * COLS + k] * x[j * COLS + k];
            }
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < ROWS; j++) {
                aa[i][j] = 0;
                for (int k = 0; k < ROWS; k++) aa[i][j] += a[i][k] * a[k][j];
            }
        for (int i = 0; i < ROWS; i++)
            for (int k = 0; k < COLS; k++) {
                y[i * COLS + k] = 3.4445 * x[i * COLS + k];
                for (int j = 0; j < ROWS; j++) y[i * COLS + k] += (-4.7750 * a[i][j] + 2.0315 * aa[i][j]) * x[j * COLS + k];
            }
        memcpy(x, y, sizeof y);
    }
}

static void step_by_hand(by_hand *h, const wf_train_opt *o, int t, double norm) {
    double clip = norm > o->clip && o->clip > 0 ? o->clip / norm : 1, lr = o->lr * wf_schedule(o, t),
           keep = (1 + t + 1.0) / (10 + t + 1.0);
    if (keep > o->ema) keep = o->ema;
    for (int k = 0; k < 2; k++) {
        double u[MATRIX];
        bool muon = !strcmp(o->optimizer, "muon") && k == 0, sgd = !strcmp(o->optimizer, "sgd");
        for (int i = 0; i < size_of(k); i++) {
            double g = gradient(k, i, t) * clip, *m = &h->m[k][i], *v = &h->v[k][i];
            if (muon || sgd) {
                *m = o->momentum * *m + g;
                u[i] = muon ? g + o->momentum * *m : *m;
            } else {
                *m += (1 - o->beta1) * (g - *m);
                *v += (1 - o->beta2) * (g * g - *v);
                u[i] = *m / (1 - pow(o->beta1, t + 1)) / (sqrt(*v / (1 - pow(o->beta2, t + 1))) + o->eps);
            }
        }
        if (muon) {
            newton_schulz(u);
            for (int i = 0; i < MATRIX; i++) u[i] *= 0.2 * sqrt(COLS);
        }
        for (int i = 0; i < size_of(k); i++) {
            h->p[k][i] -= lr * (u[i] + (k == 0 ? o->weight_decay * h->p[k][i] : 0));
            h->e[k][i] += (1 - keep) * (h->p[k][i] - h->e[k][i]);
        }
    }
}

static void check_optimizer(const char *recipe, bool tall) {
    wf_train_opt o;
    read_train(recipe, &o);
    wf_param par[2] = {{.name = "matrix", .flags = WF_PARAM_MATRIX}, {.name = "gain", .flags = WF_PARAM_NO_DECAY}};
    wf_param *list[2] = {&par[0], &par[1]};
    wf_model m = {.n_param = 2, .param = list};
    par[0].value = wf_tensor_new(WF_F32, tall ? WF_SHAPE(COLS, ROWS) : WF_SHAPE(ROWS, COLS));
    par[1].value = wf_tensor_new(WF_F32, WF_SHAPE(COLS));
    by_hand h = {0};
    /* a tall matrix is handled as its transpose */
#define AT(k, i) (tall && (k) == 0 ? (i) % COLS * ROWS + (i) / COLS : (i))
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < size_of(k); i++) {
            h.p[k][i] = h.e[k][i] = (float)cos(0.9 * i + k);
            ((float *)par[k].value->data)[AT(k, i)] = (float)h.p[k][i];
        }
    wf_optimizer opt;
    MUST(wf_optimizer_open(&opt, &m, &o));
    float grad[2][MATRIX];
    for (int k = 0; k < 2; k++) opt.slot[k].grad->data = grad[k];
    MUST(wf_optimizer_plan(&opt, &o));
    for (int t = 0; t < STEPS; t++) {
        double norm = 0, got;
        for (int k = 0; k < 2; k++)
            for (int i = 0; i < size_of(k); i++) {
                grad[k][AT(k, i)] = (float)gradient(k, i, t);
                norm += gradient(k, i, t) * gradient(k, i, t);
            }
        norm = sqrt(norm);
        MUST(wf_optimizer_norm(&opt, &got));
        assert_true(fabs(got - norm) < 1e-5 * norm);
        MUST(wf_optimizer_step(&opt, &o, t, got, NULL));
        step_by_hand(&h, &o, t, norm);
    }
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < size_of(k); i++) {
            double p = ((float *)par[k].value->data)[AT(k, i)];
            if (!(fabs(p - h.p[k][i]) < 2e-5)) fail_msg("%s: parameter %d[%d] is %g, by hand %g", recipe, k, i, p, h.p[k][i]);
            double e = opt.slot[k].ema ? ((float *)opt.slot[k].ema->data)[AT(k, i)] : h.e[k][i];
            if (!(fabs(e - h.e[k][i]) < 2e-5)) fail_msg("%s: average %d[%d] is %g, by hand %g", recipe, k, i, e, h.e[k][i]);
        }
    wf_optimizer_close(&opt);
    wf_tensor_free(par[0].value);
    wf_tensor_free(par[1].value);
}

static void optimizers_follow_their_formulas(void **state) {
    check_optimizer("train: {optimizer: adamw, lr: 0.01, weight_decay: 0.1, clip: 1, warmup: 2, steps: 10}", false);
    check_optimizer("train: {optimizer: adamw, lr: 0.01, weight_decay: 0, clip: 0, ema: 0.9, steps: 10}", false);
    check_optimizer("train: {optimizer: sgd, lr: 0.1, momentum: 0.9, weight_decay: 0.1, clip: 2, steps: 10}", false);
    check_optimizer("train: {optimizer: muon, lr: 0.02, weight_decay: 0.1, clip: 1, steps: 10, ema: 0.99}", false);
    check_optimizer("train: {optimizer: muon, lr: 0.02, weight_decay: 0.1, clip: 1, steps: 10}", true);
}

/* ---- runs ---- */

#define TASK "task: {name: associative-recall, length: 32, vocab: 32, pairs: 4}\n"
#define MODEL "model: {name: lm, layers: 2, width: 32, mixer: {name: softmax, heads: 2}, dropout: 0.1}\n"
#define RECIPE                                                                                                                 \
    TASK MODEL "train: {steps: 12, batch: 8, lr: 0.003, ema: 0.9, label_smoothing: 0.1, valid_batches: 4, seed: 3%s}\n"

static wf_run *open_run(const char *fmt, const char *more) {
    char text[1024];
    snprintf(text, sizeof text, fmt, more);
    wf_value *v = parse(text);
    wf_run *r = wf_run_new(v, NULL);
    if (!r) fail_msg("%s", wf_message());
    wf_value_free(v);
    return r;
}

static void steps(wf_run *r, int n) {
    wf_step_report report;
    for (int i = 0; i < n; i++) MUST(wf_run_step(r, &report));
}

static void assert_same_numbers(wf_run *a, wf_run *b) {
    wf_model *x = wf_run_model(a), *y = wf_run_model(b);
    assert_int_equal(x->n_param, y->n_param);
    for (int i = 0; i < x->n_param; i++)
        if (memcmp(x->param[i]->value->data, y->param[i]->value->data, x->param[i]->value->bytes))
            fail_msg("%s differs", x->param[i]->name);
}

static double largest_difference(wf_run *a, wf_run *b) {
    double d = 0;
    for (int i = 0; i < a->model->n_param; i++)
        for (int64_t k = 0; k < wf_tensor_count(a->model->param[i]->value); k++)
            d = fmax(d, fabs(wf_tensor_get(a->model->param[i]->value, k) - wf_tensor_get(b->model->param[i]->value, k)));
    return d;
}

static void the_same_run_gives_the_same_bytes_with_any_threads(void **state) {
    int threads = wf_threads();
    wf_run *a = open_run(RECIPE, ""), *b = open_run(RECIPE, ""), *c = open_run(RECIPE, ", data_seed: 2");
    wf_set_threads(1);
    steps(a, 4);
    wf_set_threads(2);
    steps(b, 4);
    steps(c, 4);
    wf_set_threads(threads);
    assert_same_numbers(a, b);
    assert_true(largest_difference(a, c) > 1e-5);
    wf_run_free(a);
    wf_run_free(b);
    wf_run_free(c);
}

static void accumulation_gives_the_same_mean(void **state) {
    /* no dropout: its masks are counted by part */
    const char *recipe = TASK "model: {name: lm, layers: 1, width: 32, mixer: {name: softmax, heads: 2}}\n"
                              "train: {steps: 12, batch: 8, lr: 0.003, optimizer: sgd, clip: 0%s}\n";
    wf_run *a = open_run(recipe, ""), *b = open_run(recipe, ", accumulate: 4");
    wf_step_report x, y;
    for (int i = 0; i < 3; i++) {
        MUST(wf_run_step(a, &x));
        MUST(wf_run_step(b, &y));
        assert_true(fabs(x.loss - y.loss) < 1e-5);
        assert_true(fabs(x.grad_norm - y.grad_norm) < 1e-4 * x.grad_norm);
    }
    assert_true(largest_difference(a, b) < 1e-5);
    wf_run_free(a);
    wf_run_free(b);
}

static void recomputation_changes_nothing(void **state) {
    wf_run *a = open_run(RECIPE, ""), *b = open_run(RECIPE, ", recompute: true");
    steps(a, 3);
    steps(b, 3);
    /* other groups are fused, so other multiply-adds are contracted: float32 rounding, no more (test_plan has it in float64) */
    assert_true(largest_difference(a, b) < 1e-5);
    wf_run_free(a);
    wf_run_free(b);
}

static void a_resumed_run_is_one_never_stopped(void **state) {
    char folder[300];
    snprintf(folder, sizeof folder, "%s/resume", test_folder());
    const char *kinds[] = {", optimizer: adamw", ", optimizer: muon", ", optimizer: sgd, accumulate: 2"};
    for (int k = 0; k < 3; k++) {
        wf_run *a = open_run(RECIPE, kinds[k]), *b = open_run(RECIPE, kinds[k]), *c = open_run(RECIPE, kinds[k]);
        steps(a, 6);
        steps(b, 3);
        MUST(wf_run_save(b, folder));
        steps(b, 1); /* after the checkpoint: lost */
        MUST(wf_run_resume(c, folder));
        assert_int_equal(wf_run_steps_done(c), 3);
        steps(c, 3);
        assert_same_numbers(a, c);
        wf_metrics x, y;
        MUST(wf_run_validate(a, &x));
        MUST(wf_run_validate(c, &y));
        assert_true(x.loss == y.loss && x.accuracy == y.accuracy && x.scored == y.scored && x.scored > 0);
        steps(a, 1); /* a validation leaves no trace */
        steps(c, 1);
        assert_same_numbers(a, c);
        wf_run_free(a);
        wf_run_free(b);
        wf_run_free(c);
    }
    /* the model file is the weight average, and loads by itself */
    char path[400];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    wf_model *m = wf_model_load(path);
    if (!m) fail_msg("%s", wf_message());
    wf_model_free(m);
}

static void saving_twice_at_one_step_is_safe(void **state) {
    char folder[300];
    snprintf(folder, sizeof folder, "%s/twice", test_folder());
    wf_run *a = open_run(RECIPE, ""), *b = open_run(RECIPE, "");
    steps(a, 2);
    for (int i = 0; i < 3; i++) MUST(wf_run_save(a, folder));
    MUST(wf_run_resume(b, folder));
    assert_same_numbers(a, b);
    wf_run_free(a);
    wf_run_free(b);
}

static void resume_refuses_another_recipe(void **state) {
    char folder[300];
    snprintf(folder, sizeof folder, "%s/other", test_folder());
    wf_run *a = open_run(RECIPE, "");
    MUST_FAIL(wf_run_resume(a, folder), WF_ENOTFOUND, "no checkpoint");
    steps(a, 2);
    MUST(wf_run_save(a, folder));
    wf_run_free(a);
    wf_run *r = open_run(RECIPE, ", beta1: 0.8");
    MUST_FAIL(wf_run_resume(r, folder), WF_EINVAL, "train.beta1 was 0.9");
    wf_run_free(r);
    r = open_run(TASK "model: {name: lm, layers: 2, width: 32, mixer: {name: softmax, heads: 4}, dropout: 0.1}\n"
                      "train: {steps: 12%s}",
                 "");
    MUST_FAIL(wf_run_resume(r, folder), WF_EINVAL, "model.mixer.heads");
    wf_run_free(r);
    r = open_run("task: {name: associative-recall, length: 32, vocab: 32, pairs: 5}\n" MODEL "train: {steps: 12%s}", "");
    MUST_FAIL(wf_run_resume(r, folder), WF_EINVAL, "task.pairs");
    wf_run_free(r);
    const char *longer =
        TASK MODEL "train: {steps: 20, batch: 8, lr: 3e-3, ema: 0.9, label_smoothing: 0.1, valid_batches: 2, seed: 3%s}\n";
    r = open_run(longer, "");
    MUST(wf_run_resume(r, folder));
    wf_run_free(r);
}

static void not_finite_leaves_the_parameters(void **state) {
    wf_run *r = open_run(RECIPE, "");
    steps(r, 1);
    wf_param *p = NULL;
    for (int i = 0; i < r->model->n_param && !p; i++)
        if (strstr(r->model->param[i]->name, "1.mixer") && r->model->param[i]->value->shape.rank == 2) p = r->model->param[i];
    assert_non_null(p);
    ((float *)p->value->data)[7] = INFINITY;
    wf_tensor *copy = wf_tensor_new(WF_F32, r->model->param[0]->value->shape);
    memcpy(copy->data, r->model->param[0]->value->data, copy->bytes);
    wf_step_report report;
    MUST_FAIL(wf_run_step(r, &report), WF_ENONFINITE, "step 2");
    MESSAGE_HAS("1.mixer");
    assert_memory_equal(copy->data, r->model->param[0]->value->data, copy->bytes);
    assert_int_equal(wf_run_steps_done(r), 1);
    wf_tensor_free(copy);
    wf_run_free(r);
}

static void the_loss_falls(void **state) {
    wf_run *r = open_run(TASK "model: {name: lm, layers: 2, width: 32, mixer: {name: softmax, heads: 2}}\n"
                              "train: {steps: 60, batch: 16, lr: 0.005, schedule: constant, valid_batches: 4%s}",
                         "");
    wf_step_report first, last;
    MUST(wf_run_step(r, &first));
    steps(r, 58);
    MUST(wf_run_step(r, &last));
    assert_true(first.loss > 2.5 && first.loss < 5);
    if (!(last.loss < 0.85 * first.loss)) fail_msg("loss went from %g to %g", first.loss, last.loss);
    wf_metrics m;
    MUST(wf_run_validate(r, &m));
    assert_true(m.loss < first.loss && m.accuracy > 0 && m.scored > 0);
    wf_run_free(r);
}

static void costs_are_told_before_anything_runs(void **state) {
    wf_run *r = open_run(RECIPE, "");
    wf_run_cost c;
    MUST(wf_run_describe(r, &c));
    assert_int_equal(c.parameters, wf_model_count(wf_run_model(r)));
    assert_true(c.parameter_bytes == 4 * (size_t)c.parameters);
    assert_true(c.optimizer_bytes == 12 * (size_t)c.parameters); /* m, v, average */
    assert_int_equal(c.gradient_bytes, 0);
    assert_true(c.peak_bytes >= c.parameter_bytes + c.optimizer_bytes + c.arena_bytes);
    wf_step_report report;
    MUST(wf_run_step(r, &report));
    assert_true(report.flops == c.flops_per_step);
    assert_true(c.forward_flops_per_token > 2.0 * (double)c.parameters * 0.5);
    wf_run_free(r);
    r = open_run(RECIPE, ", accumulate: 2, optimizer: sgd");
    MUST(wf_run_describe(r, &c));
    assert_true(c.gradient_bytes == 4 * (size_t)c.parameters);
    assert_true(c.optimizer_bytes == 8 * (size_t)c.parameters);
    wf_run_free(r);
}

static double resident(bool most) {
    struct rusage u;
    long pages = 0;
    if (most) return getrusage(RUSAGE_SELF, &u) == 0 ? (double)u.ru_maxrss * 1024 : 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%*s %ld", &pages) != 1) pages = 0;
    if (f) fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

/* What the process really takes, against the plan's figure; some percent of pages are never touched. */
static void memory_is_as_planned(void **state) {
#ifndef __SANITIZE_ADDRESS__
    double before = resident(false);
    wf_run *r = open_run("task: {name: associative-recall, length: 128, vocab: 64}\n"
                         "model: {name: lm, layers: 3, width: 128}\ntrain: {steps: 12, batch: 16, valid_batches: 1%s}\n",
                         "");
    wf_run_cost c;
    wf_metrics m;
    MUST(wf_run_describe(r, &c));
    steps(r, 2);
    MUST(wf_run_validate(r, &m));
    steps(r, 1);
    double used = resident(true) - before, planned = (double)c.peak_bytes;
    assert_true(planned > 20e6);
    if (!(used > 0.8 * planned && used < 1.15 * planned + 6e6))
        fail_msg("planned %.1f MB, used %.1f MB", planned / 1e6, used / 1e6);
    wf_run_free(r);
#endif
}

static void a_task_may_keep_nothing_back(void **state) {
    char folder[300], file[400], text[1024];
    snprintf(folder, sizeof folder, "%s/unvalidated", test_folder());
    snprintf(file, sizeof file, "%s/text.txt", test_folder());
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = 0;
    MUST(wf_write_text(file, text));
    snprintf(text, sizeof text,
             "task: {name: text, path: %s, length: 16, valid: 0}\n"
             "model: {name: lm, layers: 1, width: 32}\ntrain: {steps: 2, batch: 4%%s}\n",
             file);
    wf_run *r = open_run(text, "");
    wf_run_cost c;
    MUST(wf_run_describe(r, &c));
    MUST(wf_train(r, folder, NULL));
    wf_run_free(r);
}

static void refuse(const char *text, const char *part) {
    wf_value *v = parse(text);
    wf_run *r = wf_run_new(v, NULL);
    if (r) fail_msg("accepted: %s", text);
    MESSAGE_HAS(part);
    wf_value_free(v);
}

static void bad_recipes_say_what_is_missing(void **state) {
    refuse(MODEL "train: {steps: 2}", "task");
    refuse(TASK "train: {steps: 2}", "model");
    refuse(TASK MODEL "train: {stepps: 2}", "steps");
    refuse(TASK "model: {name: lmm, layers: 1}", "lm");
    refuse(TASK MODEL "train: {optimizer: adam}", "adamw");
}

/* ---- the log ---- */

static void the_log_is_cut_back_on_resume(void **state) {
    char path[400];
    snprintf(path, sizeof path, "%s/log.jsonl", test_folder());
    wf_journal *j = wf_journal_open(test_folder(), 0);
    assert_non_null(j);
    for (int i = 1; i <= 5; i++) wf_journal_step(j, &(wf_step_report){.step = i, .loss = i == 3 ? NAN : 1.0 / i});
    wf_journal_validation(j, 5, &(wf_metrics){.loss = 1, .bits_per_byte = NAN});
    MUST(wf_journal_flush(j));
    wf_journal_close(j);
    FILE *f = fopen(path, "a");
    fputs("{\"step\": 6, \"lo", f); /* a kill cut it short */
    fclose(f);
    j = wf_journal_open(test_folder(), 4);
    wf_journal_step(j, &(wf_step_report){.step = 5, .loss = 2});
    wf_journal_close(j);
    wf_bytes b;
    MUST(wf_bytes_open(path, &b));
    int n = 0;
    const char *p = (const char *)b.p, *end = p + b.n;
    while (p < end) {
        const char *e = memchr(p, '\n', (size_t)(end - p));
        assert_non_null(e);
        wf_value *v = wf_json_parse(p, (size_t)(e - p), "log");
        assert_non_null(v);
        int64_t step;
        MUST(wf_value_int(wf_value_get(v, "step"), &step));
        assert_int_equal(step, ++n);
        wf_value_free(v);
        p = e + 1;
    }
    assert_int_equal(n, 5);
    wf_bytes_close(&b);
}

static int group_end(void **state) {
    test_folder_remove();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_have_defaults_and_refuse_nonsense),
        cmocka_unit_test(schedules_have_their_shapes),
        cmocka_unit_test(optimizers_follow_their_formulas),
        cmocka_unit_test(the_same_run_gives_the_same_bytes_with_any_threads),
        cmocka_unit_test(accumulation_gives_the_same_mean),
        cmocka_unit_test(recomputation_changes_nothing),
        cmocka_unit_test(a_resumed_run_is_one_never_stopped),
        cmocka_unit_test(saving_twice_at_one_step_is_safe),
        cmocka_unit_test(resume_refuses_another_recipe),
        cmocka_unit_test(not_finite_leaves_the_parameters),
        cmocka_unit_test(the_loss_falls),
        cmocka_unit_test(costs_are_told_before_anything_runs),
        cmocka_unit_test(memory_is_as_planned),
        cmocka_unit_test(a_task_may_keep_nothing_back),
        cmocka_unit_test(bad_recipes_say_what_is_missing),
        cmocka_unit_test(the_log_is_cut_back_on_resume),
    };
    return cmocka_run_group_tests(tests, NULL, group_end);
}
