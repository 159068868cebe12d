/* test_norm_state.c: norms with state inside models and runs: counters over accumulation, recomputation and resuming, fresh state
 * for fine-tuning, recalibration, statistics that break, causality and streaming in evaluation. */
#include "parts_help.h"

#include "learn/inside.h"

#include <math.h>

static const char *const stateful[] = {"{name: unified, warmup_iters: 2, outlier_filtration: true}",
                                       "{name: power, group_num: 2, warmup_iters: 2}", "batchnorm", "repbn",
                                       "{name: prepbn, total_step: 4}"};
enum { N_STATEFUL = sizeof stateful / sizeof *stateful };
static const char *const counters[] = {"iters", "iters", NULL, NULL, "iter"};

/* `more` goes into train. */
static wf_run *open_run(const char *norm, const char *more) {
    char text[1024];
    snprintf(text, sizeof text,
             "task: {name: associative-recall, length: 16, vocab: 32, pairs: 4}\n"
             "model: {name: lm, layers: 2, width: 16, mixer: {name: softmax, heads: 2}, dropout: 0.1, norm: %s}\n"
             "train: {steps: 6, batch: 8, lr: 0.003, valid_batches: 2, seed: 3%s}\n",
             norm, more);
    wf_value *v = yaml(text);
    wf_run *r = wf_run_new(v, NULL);
    if (!r) fail_msg("%s: %s", norm, wf_message());
    wf_value_free(v);
    return r;
}

static void steps(wf_run *r, int n) {
    for (int i = 0; i < n; i++) MUST(wf_run_step(r, NULL));
}

static double counter(wf_run *r, const char *name) {
    char full[64];
    snprintf(full, sizeof full, "blocks.0.mixer_in_norm.%s", name);
    wf_param *p = wf_model_param(r->model, full);
    if (!p) fail_msg("%s", wf_message());
    return wf_tensor_get(p->value, 0);
}

static void compare(wf_run *a, wf_run *b, double bound, bool buffers_only) {
    for (int i = 0; i < a->model->n_param; i++) {
        const wf_param *p = a->model->param[i], *q = b->model->param[i];
        if (buffers_only && !(p->flags & WF_PARAM_BUFFER)) continue;
        double e = rn_error(q->value, p->value);
        if (!(e <= (p->value->dtype == WF_I32 ? 0 : bound))) fail_msg("%s differs by %g", p->name, e);
    }
}

/* ---- counting ---- */

static void every_forward_pass_counts_once(void **state) {
    for (int k = 0; k < N_STATEFUL; k++) {
        wf_run *plain = open_run(stateful[k], ""), *again = open_run(stateful[k], ", recompute: true"),
               *parts = open_run(stateful[k], ", accumulate: 4");
        steps(plain, 3);
        steps(again, 3);
        steps(parts, 3);
        compare(plain, again, 2e-4, false); /* other groups are fused: float32 rounding */
        if (counters[k]) {
            bool down = !strcmp(counters[k], "iter");
            assert_true(counter(plain, counters[k]) == (down ? 1 : 3));
            assert_true(counter(again, counters[k]) == (down ? 1 : 3));
            assert_true(counter(parts, counters[k]) == (down ? 0 : 12)); /* micro batches count */
        }
        wf_run_free(plain);
        wf_run_free(again);
        wf_run_free(parts);
    }
    wf_run *r = open_run("{name: prepbn, total_step: 4, forwards_per_step: 4}", ", accumulate: 4");
    steps(r, 3);
    assert_true(counter(r, "iter") == 1); /* unless told to count optimizer steps */
    wf_run_free(r);
}

static void threads_change_no_byte(void **state) {
    int threads = wf_threads();
    for (int k = 0; k < N_STATEFUL; k++) {
        wf_run *a = open_run(stateful[k], ""), *b = open_run(stateful[k], "");
        wf_set_threads(1);
        steps(a, 3);
        wf_set_threads(2);
        steps(b, 3);
        compare(a, b, 0, false);
        wf_run_free(a);
        wf_run_free(b);
    }
    wf_set_threads(threads);
}

static void a_validation_moves_nothing(void **state) {
    for (int k = 0; k < N_STATEFUL; k++) {
        wf_run *a = open_run(stateful[k], ""), *b = open_run(stateful[k], "");
        wf_metrics m;
        steps(a, 2);
        steps(b, 2);
        MUST(wf_run_validate(b, &m));
        compare(a, b, 0, false);
        wf_run_free(a);
        wf_run_free(b);
    }
}

static void a_resumed_run_keeps_its_state(void **state) {
    for (int k = 0; k < N_STATEFUL; k++) {
        char folder[300];
        snprintf(folder, sizeof folder, "%s/resume-%d", test_folder(), k);
        wf_run *a = open_run(stateful[k], ""), *b = open_run(stateful[k], "");
        steps(a, 5);
        steps(b, 3);
        MUST(wf_run_save(b, folder));
        wf_run *c = open_run(stateful[k], "");
        MUST(wf_run_resume(c, folder));
        steps(c, 2);
        compare(a, c, 0, false);
        wf_run_free(a);
        wf_run_free(b);
        wf_run_free(c);
    }
}

/* ---- fine-tuning ---- */

static void a_run_may_start_from_a_model(void **state) {
    char folder[300], more[400];
    snprintf(folder, sizeof folder, "%s/start", test_folder());
    wf_run *a = open_run(stateful[0], "");
    steps(a, 4);
    MUST(wf_run_save(a, folder));
    snprintf(more, sizeof more, ", start: %s", folder);
    wf_run *b = open_run(stateful[0], more);
    assert_int_equal(wf_run_steps_done(b), 0);
    compare(a, b, 0, false);
    snprintf(more, sizeof more, ", start: %s/model.safetensors, reset_state: true", folder);
    wf_run *c = open_run(stateful[0], more), *fresh = open_run(stateful[0], "");
    compare(fresh, c, 0, true);
    assert_true(counter(a, "iters") == 4 && counter(b, "iters") == 4 && counter(c, "iters") == 0);
    for (int i = 0; i < a->model->n_param; i++)
        if (!(a->model->param[i]->flags & WF_PARAM_BUFFER))
            assert_memory_equal(a->model->param[i]->value->data, c->model->param[i]->value->data,
                                a->model->param[i]->value->bytes);
    wf_run_free(a);
    wf_run_free(b);
    wf_run_free(c);
    wf_run_free(fresh);
}

static void a_start_that_cannot_be_is_refused(void **state) {
    struct {
        const char *more, *says;
    } cases[] = {{", reset_state: true", "needs train.start"},
                 {", start: /nowhere/model.safetensors", "/nowhere/model.safetensors"}};
    for (int i = 0; i < 2; i++) {
        char text[512];
        snprintf(text, sizeof text,
                 "{task: {name: associative-recall, length: 16, vocab: 32, pairs: 4}, model: {name: lm, layers: 1, width: 8, "
                 "mixer: {name: softmax, heads: 2}}, train: {steps: 2, batch: 2%s}}",
                 cases[i].more);
        wf_value *v = yaml(text);
        assert_null(wf_run_new(v, NULL));
        MESSAGE_HAS(cases[i].says);
        wf_value_free(v);
    }
}

/* ---- recalibration ---- */

static void recalibration_moves_statistics_alone(void **state) {
    for (int k = 0; k < N_STATEFUL; k++) {
        wf_run *a = open_run(stateful[k], ""), *b = open_run(stateful[k], ", recalibrate: 40"),
               *c = open_run(stateful[k], ", recalibrate: 40");
        steps(a, 6);
        steps(b, 6);
        steps(c, 6);
        compare(b, c, 0, false);
        double moved = 0;
        for (int i = 0; i < a->model->n_param; i++) {
            const wf_param *p = a->model->param[i], *q = b->model->param[i];
            if (!(p->flags & WF_PARAM_BUFFER))
                assert_memory_equal(p->value->data, q->value->data, p->value->bytes);
            else if (strstr(p->name, "running"))
                moved = fmax(moved, rn_error(q->value, p->value));
            else if (strstr(p->name, "_gz")) /* no backward pass */
                assert_memory_equal(p->value->data, q->value->data, p->value->bytes);
        }
        assert_true(moved > 1e-3);
        wf_run_free(a);
        wf_run_free(b);
        wf_run_free(c);
    }
    wf_run *r = open_run("layernorm", ", recalibrate: 3"); /* nothing to do */
    steps(r, 6);
    wf_run_free(r);
}

/* What the statistics were before is forgotten; what was dropped in training is not (the averaged model is the one measured). */
static void recalibration_forgets_what_was(void **state) {
    const char *more = ", ema: 0.5, recalibrate: 300";
    wf_run *a = open_run("{name: batchnorm, momentum: 0.05}", more), *b = open_run("{name: batchnorm, momentum: 0.05}", more);
    steps(a, 5);
    steps(b, 5);
    for (int i = 0; i < b->model->n_param; i++)
        if (strstr(b->model->param[i]->name, "running_mean"))
            for (int64_t j = 0; j < 16; j++) wf_tensor_set(b->model->param[i]->value, j, 100);
    steps(a, 1);
    steps(b, 1);
    compare(a, b, 1e-3, true);
    wf_run_free(a);
    wf_run_free(b);
}

/* ---- what breaks is named ---- */

static void a_broken_statistic_is_named(void **state) {
    wf_run *r = open_run("batchnorm", "");
    wf_param *p = wf_model_param(r->model, "blocks.1.channel_in_norm.running_var");
    steps(r, 1);
    float kept = *(const float *)r->model->param[0]->value->data;
    wf_tensor_set(p->value, 2, INFINITY);
    MUST_FAIL(wf_run_step(r, NULL), WF_ENONFINITE, "step 2: the running statistic blocks.1.channel_in_norm.running_var");
    assert_true(*(const float *)r->model->param[0]->value->data == kept); /* nothing was updated */
    wf_tensor_set(p->value, 2, 1);
    steps(r, 1);
    wf_run_free(r);
    r = open_run("{name: power, warmup_iters: 0}", "");
    wf_tensor_set(wf_model_param(r->model, "final_norm.ema_gz")->value, 0, INFINITY);
    MUST_FAIL(wf_run_step(r, NULL), WF_ENONFINITE, "final_norm");
    wf_run_free(r);
}

/* A batch far above running_phi makes the recursion of ema_gz diverge; the run stops before a parameter is touched. */
static void power_diverges_with_a_message(void **state) {
    wf_run *r = open_run("{name: power, warmup_iters: 0, alpha_bkw: 0, alpha_fwd: 1, group_scale: false}", "");
    for (int i = 0; i < r->model->n_param; i++)
        if (strstr(r->model->param[i]->name, "running_phi"))
            for (int64_t j = 0; j < 16; j++) wf_tensor_set(r->model->param[i]->value, j, 1e-4);
    wf_status s = WF_OK;
    r->opt.steps = 1000;
    for (int i = 0; i < 200 && s == WF_OK; i++) s = wf_run_step(r, NULL);
    assert_int_equal(s, WF_ENONFINITE);
    MESSAGE_HAS("norm");
    for (int i = 0; i < r->model->n_param; i++)
        for (int64_t j = 0; j < wf_tensor_count(r->model->param[i]->value); j++)
            assert_true(isfinite(wf_tensor_get(r->model->param[i]->value, j)));
    wf_run_free(r);
}

/* ---- inside models ---- */

static const char *const all[] = {"{name: unified, warmup_iters: 1}",
                                  "{name: power, group_num: 3}",
                                  "batchnorm",
                                  "repbn",
                                  "{name: prepbn, norm1: rmsnorm}",
                                  "crmsnorm",
                                  "srmsnorm",
                                  "affine",
                                  "{name: groupscale, groups: 2}"};

static void in_evaluation_they_are_causal_and_stream(void **state) {
    static const int one_by_one[] = {1, 1, 1, 1, 1, 1, 1, 1, 0};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        char text[300];
        snprintf(text, sizeof text,
                 "{name: lm, vocab: 11, length: 8, width: 12, layers: 2, mixer: {name: softmax, heads: 2}, norm: %s}", all[k]);
        wf_model *m = model_of(text, 1);
        stir(m, 0.05);
        wf_tensor *x = rn_random(WF_I32, WF_SHAPE(2, 8), 3, 11), *y = run_forward(m, x, NULL);
        wf_tensor *z = run_steps(m, x, one_by_one, 8);
        assert_close(z, y, 1e-5, all[k]);
        for (int i = 0; i < 2; i++) wf_tensor_set(x, i * 8 + 7, 0), wf_tensor_set(x, i * 8 + 6, 1);
        wf_tensor *w = run_forward(m, x, NULL);
        for (int64_t i = 0; i < wf_tensor_count(y); i++)
            if (i / 11 % 8 < 6) assert_true(wf_tensor_get(w, i) == wf_tensor_get(y, i));
        wf_tensor_free(x);
        wf_tensor_free(y);
        wf_tensor_free(z);
        wf_tensor_free(w);
        wf_model_free(m);
    }
}

static void pictures_pass_through_them(void **state) {
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        char text[300];
        snprintf(text, sizeof text,
                 "{name: vit, image_height: 8, channels: 1, classes: 5, patch: 4, width: 12, layers: 1, mixer: {name: softmax, "
                 "heads: 2}, norm: %s}",
                 all[k]);
        wf_model *m = model_of(text, 1);
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(3, 1, 8, 8), 3, 0);
        for (int train = 0; train < 2; train++) {
            wf_tensor *y = run_forward(m, x, &(run_spec){.train = train});
            assert_non_null(y);
            for (int64_t i = 0; i < 15; i++) assert_true(isfinite(wf_tensor_get(y, i)));
            wf_tensor_free(y);
        }
        wf_tensor_free(x);
        wf_model_free(m);
    }
}

/* With gains of 1 a score of rms_head lies in [-sqrt(d), sqrt(d)], one of l2 in [-tau, tau]. */
typedef struct taken {
    wf_node *q, *k;
} taken;

static void take(void *ctx, const wf_module *m, const char *what, wf_node *n) {
    taken *t = ctx;
    if (!strcmp(what, "q")) t->q = n;
    if (!strcmp(what, "k")) t->k = n;
}

static void normalised_queries_bound_the_scores(void **state) {
    wf_model *m = part_of("mixer", "{name: softmax, heads: 3, qk_norm: rms_head}", 12, true, 8);
    for (int i = 0; i < m->n_param; i++) /* large projections, gains as they are */
        if (m->param[i]->value->shape.rank == 2)
            for (int64_t j = 0; j < wf_tensor_count(m->param[i]->value); j++)
                wf_tensor_set(m->param[i]->value, j, 50 * wf_tensor_get(m->param[i]->value, j));
    wf_graph *g = wf_graph_open();
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 8, 12), 1, 0);
    wf_build b;
    taken t = {0};
    wf_build_start(&b, g);
    b.causal = true;
    b.tap = take;
    b.tap_ctx = &t;
    assert_non_null(wf_apply(&b, m->root, wf_leaf(g, x, "x")));
    assert_true(t.q && t.k);
    wf_node *s = wf_matmul(g, wf_transpose(g, t.q, 1, 2), wf_transpose(g, t.k, 1, 2), false, true); /* [B,H,L,L] */
    wf_tensor *score = rn_run(g, wf_mul_c(g, s, 0.5));                                              /* 1/sqrt(4) */
    double most = 0;
    for (int64_t i = 0; i < wf_tensor_count(score); i++) most = fmax(most, fabs(wf_tensor_get(score, i)));
    assert_true(most <= 2 + 1e-5 && most > 1.5);
    wf_build_end(&b);
    wf_graph_free(g);
    wf_tensor_free(score);
    wf_tensor_free(x);
    wf_model_free(m);
}

static int leave(void **state) {
    test_folder_remove();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_forward_pass_counts_once),
        cmocka_unit_test(threads_change_no_byte),
        cmocka_unit_test(a_validation_moves_nothing),
        cmocka_unit_test(a_resumed_run_keeps_its_state),
        cmocka_unit_test(a_run_may_start_from_a_model),
        cmocka_unit_test(a_start_that_cannot_be_is_refused),
        cmocka_unit_test(recalibration_moves_statistics_alone),
        cmocka_unit_test(recalibration_forgets_what_was),
        cmocka_unit_test(a_broken_statistic_is_named),
        cmocka_unit_test(power_diverges_with_a_message),
        cmocka_unit_test(in_evaluation_they_are_causal_and_stream),
        cmocka_unit_test(pictures_pass_through_them),
        cmocka_unit_test(normalised_queries_bound_the_scores),
    };
    return cmocka_run_group_tests(tests, NULL, leave);
}
