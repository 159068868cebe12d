/* test_unified.c: Unified Normalization's laws: constant data, windows of zeros, the spread of its statistic, outliers. */
#include "norms_help.h"

#include <math.h>

/* One batch for ever: running_var goes to q by the factor mu a step, GM is q once the window is full, r goes to 1. */
static void unified_settles_on_constant_data(void **state) {
    norm_run r = norm_open("{name: unified, outlier_filtration: true, warmup_iters: 8}", WF_SHAPE(2, 8, 3), NULL, false);
    wf_rng rng = {2, 0, 0};
    norm_fill(&r, &rng, 1.5);
    wf_tensor_set(norm_buffer(&r, "iters"), 0, 2000); /* r is at work from the start */
    double q[3] = {0}, gap[3] = {0}, first_r = 0;
    for (int64_t i = 0; i < 48; i++) q[i % 3] += pow(wf_tensor_get(r.x, i), 2) / 16;
    for (int64_t i = 0; i < 12; i++) wf_tensor_set(norm_buffer(&r, "buffer_x2"), i, q[i % 3]);
    for (int t = 0; t < 60; t++) {
        norm_step(&r);
        for (int64_t c = 0; c < 3; c++) {
            double now = norm_at(&r, "running_var", c) - q[c], zg = 0, y = norm_out(&r, 0)[c], x = wf_tensor_get(r.x, c);
            if (t > 0 && t < 20) assert_true(fabs(now / gap[c] - 0.9) < 1e-3);
            gap[c] = now;
            assert_true(fabs(y - x / sqrt(q[c] + 1e-5)) < 1e-4); /* the geometric mean is q */
            for (int64_t i = c; i < 48; i += 3) zg += wf_tensor_get(r.cot, i) * norm_out(&r, 0)[i];
            double ratio = norm_out(&r, 2)[c] / zg; /* the gain's gradient is r times that */
            if (t == 0 && c == 2) first_r = ratio;
            if (t == 59) assert_true(fabs(ratio - 1) < 2e-3);
        }
    }
    assert_true(fabs(first_r - sqrt(q[2])) < 1e-3 && fabs(first_r - 1) > 0.2); /* running_var was 1 */
    assert_true(norm_at(&r, "skip_counter", 0) == 0 && norm_at(&r, "iters", 0) == 2060);
    norm_close(&r);
}

/* Windows of zeros (the first steps), dead channels and batches of zeros. */
static void unified_never_gives_nan(void **state) {
    static const char *const norms[] = {"{name: unified, outlier_filtration: true, warmup_iters: 0}",
                                        "{name: unified, warmup_iters: 0, window: [3, 5]}",
                                        "{name: unified, outlier_filtration: true, warmup_iters: 0, threshold: per_channel}",
                                        "{name: unified, outlier_filtration: true, warmup_iters: 0, window: 1}"};
    for (size_t k = 0; k < 4; k++) {
        norm_run r = norm_open(norms[k], WF_SHAPE(1, 4, 5), NULL, false);
        wf_rng rng = {9, k, 0};
        for (int t = 0; t < 30; t++) {
            norm_fill(&r, &rng, t % 7 == 6 ? 0 : 1);
            for (int64_t i = 0; i < 20; i += 5) wf_tensor_set(r.x, i, 0); /* channel 0 is dead */
            norm_step(&r);
            for (int o = 0; o < 2; o++)
                for (int64_t i = 0; i < 20; i++) assert_true(isfinite(norm_out(&r, o)[i]));
        }
        for (int i = 0; i < r.m->n_param; i++)
            for (int64_t j = 0; j < wf_tensor_count(r.m->param[i]->value); j++)
                assert_true(isfinite(wf_tensor_get(r.m->param[i]->value, j)));
        assert_true(k != 0 || norm_at(&r, "skip_counter", 0) >= 3); /* the window's zeros look like outliers */
        norm_close(&r);
    }
}

/* Statistics of x ~ N(0, s_c^2 f_t^2), log f_t ~ N(0, 0.15^2); 3 % of the batches ten times as large if `outliers`. */
typedef struct lab {
    double var_spread, q_spread; /* standard deviations over steps of the logs */
    double error, ema_error;     /* mean relative errors of running_var and of a plain running mean of q */
    int outliers;
    double skipped;
} lab;

static lab statistics_lab(const char *text, bool outliers, uint64_t seed) {
    enum { STEPS = 600, FROM = 60, N = 64, C = 16 };
    norm_run r = norm_open(text, WF_SHAPE(1, N, C), NULL, false);
    wf_rng rng = {seed, 0, 0};
    double ema[C], sum[2][C] = {{0}}, square[2][C] = {{0}};
    lab l = {0};
    for (int c = 0; c < C; c++) ema[c] = 1;
    for (int t = 0; t < STEPS; t++) {
        double f = exp(0.15 * wf_rng_normal(&rng)), q[C] = {0};
        bool out = outliers && t >= FROM && wf_rng_uniform(&rng) < 0.03;
        l.outliers += out;
        norm_fill(&r, &rng, f * (out ? 10 : 1));
        norm_step(&r);
        for (int64_t i = 0; i < N * C; i++) q[i % C] += pow(wf_tensor_get(r.x, i), 2) / N;
        for (int c = 0; c < C; c++) {
            double s = 1 + 0.25 * c, truth = s * s * exp(2 * 0.15 * 0.15);
            double var = pow(wf_tensor_get(r.x, c) / norm_out(&r, 0)[c], 2); /* what x was divided by */
            double v[2] = {log(var), log(q[c])};
            ema[c] = 0.9 * ema[c] + 0.1 * q[c];
            if (t < FROM) continue;
            for (int k = 0; k < 2; k++) sum[k][c] += v[k], square[k][c] += v[k] * v[k];
            l.error += fabs(norm_at(&r, "running_var", c) - truth) / truth / ((STEPS - FROM) * C);
            l.ema_error += fabs(ema[c] - truth) / truth / ((STEPS - FROM) * C);
        }
    }
    for (int c = 0; c < C; c++)
        for (int k = 0; k < 2; k++) {
            double mean = sum[k][c] / (STEPS - FROM), d = sqrt(square[k][c] / (STEPS - FROM) - mean * mean);
            *(k ? &l.q_spread : &l.var_spread) += d / C;
        }
    l.skipped = norm_at(&r, "skip_counter", 0);
    norm_close(&r);
    return l;
}

#define LAB "{name: unified, window: 4, warmup_iters: 50, affine: false"

static void the_window_halves_the_spread(void **state) {
    lab l = statistics_lab(LAB "}", false, 1);
    double ratio = l.var_spread / l.q_spread;
    if (!(ratio > 0.45 && ratio < 0.55)) fail_msg("spread %g of %g: %g, not 1/2", l.var_spread, l.q_spread, ratio);
}

static void the_geometric_mean_resists_outliers(void **state) {
    lab off = statistics_lab(LAB "}", true, 2), on = statistics_lab(LAB ", outlier_filtration: true}", true, 2),
        kept = statistics_lab(LAB ", outlier_filtration: true, skip_updates_running: off}", true, 2);
    if (!(off.error <= 0.2 * off.ema_error)) fail_msg("filter off: error %g, plain mean %g", off.error, off.ema_error);
    /* the filter guards the window, while outliers still move running_var; unless that is switched off */
    if (!(fabs(on.error / on.ema_error - 1) < 0.15)) fail_msg("filter on: error %g, plain mean %g", on.error, on.ema_error);
    assert_true(on.skipped >= on.outliers && on.skipped < on.outliers + 60 && on.outliers > 5);
    if (!(kept.error < 0.2 * on.error)) fail_msg("outliers kept out: error %g", kept.error);
    /* judged by channel, a plain run of the same data skips channels now and then, never all the time */
    lab each = statistics_lab(LAB ", outlier_filtration: true, threshold: per_channel}", true, 2);
    assert_true(each.skipped >= each.outliers && isfinite(each.error));
}

/* The outlier's slot holds running_var as it was, and the counter counts. */
static void a_filtered_slot_holds_the_running_value(void **state) {
    norm_run r = norm_open("{name: unified, outlier_filtration: true, warmup_iters: 4}", WF_SHAPE(2, 32, 3), NULL, false);
    wf_rng rng = {12, 0, 0};
    for (int t = 1; t <= 12; t++) norm_fill(&r, &rng, 1), norm_step(&r);
    double before = norm_at(&r, "running_var", 1), count = norm_at(&r, "skip_counter", 0);
    norm_fill(&r, &rng, 100);
    norm_step(&r); /* t = 13: slot 1 */
    assert_true(fabs(norm_at(&r, "buffer_x2", 1 * 3 + 1) - before) < 1e-6 * before);
    assert_true(norm_at(&r, "skip_counter", 0) == count + 1);
    assert_true(norm_at(&r, "running_var", 1) > 10 * before); /* and yet it has moved */
    norm_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unified_settles_on_constant_data),
        cmocka_unit_test(unified_never_gives_nan),
        cmocka_unit_test(the_window_halves_the_spread),
        cmocka_unit_test(the_geometric_mean_resists_outliers),
        cmocka_unit_test(a_filtered_slot_holds_the_running_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
