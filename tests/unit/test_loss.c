/* test_loss.c: cross-entropy against a naive float64 loop, for extreme logits, long rows, ignored rows; gradients to second order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "gradcheck.h"
#include "runnode.h"

typedef struct row_truth {
    double loss, lse;
} row_truth;

static row_truth naive(const wf_tensor *x, int64_t row, int64_t V, int target, double s) {
    double m = -INFINITY, sum = 0, loss = 0;
    for (int64_t j = 0; j < V; j++) m = fmax(m, wf_tensor_get(x, row * V + j));
    for (int64_t j = 0; j < V; j++) sum += exp(wf_tensor_get(x, row * V + j) - m);
    double lse = m + log(sum);
    for (int64_t j = 0; j < V && target >= 0; j++) {
        double t = (j == target ? 1 - s : 0) + s / (double)V;
        if (t > 0) loss -= t * (wf_tensor_get(x, row * V + j) - lse);
    }
    return (row_truth){loss, lse};
}

static double naive_slope(const wf_tensor *x, int64_t row, int64_t V, int64_t j, int target, double s, double lse) {
    if (target < 0) return 0;
    return exp(wf_tensor_get(x, row * V + j) - lse) - (j == target ? 1 - s : 0) - s / (double)V;
}

static void loss_case(wf_dtype d, int64_t rows, int64_t V, double smoothing, double spread) {
    wf_graph *g = wf_graph_open();
    wf_tensor *x = rn_random(d, WF_SHAPE(rows, V), 3, 0), *t = rn_random(WF_I32, WF_SHAPE(rows), 4, V),
              *w = rn_random(WF_F64, WF_SHAPE(rows), 5, 0);
    for (int64_t i = 0; i < wf_tensor_count(x); i++) wf_tensor_set(x, i, spread * wf_tensor_get(x, i));
    for (int64_t i = 0; i < rows; i++) wf_tensor_set(w, i, wf_bf16_to_f32(wf_f32_to_bf16((float)wf_tensor_get(w, i))));
    ((int32_t *)t->data)[1] = -5;
    wf_node *leaf = wf_leaf(g, x, "x"), *loss = wf_cross_entropy(g, leaf, wf_leaf(g, t, "t"), smoothing);
    wf_node *seed = wf_cast(g, wf_leaf(g, w, "w"), loss->dtype), *slope;
    assert_int_equal(wf_grad(g, &loss, &seed, 1, &leaf, 1, &slope), WF_OK);
    wf_tensor *y = rn_run(g, loss), *l = rn_run(g, wf_output(loss, 1)), *dx = rn_run(g, slope);
    assert_non_null(y);
    assert_non_null(l);
    assert_non_null(dx);
    assert_true(y->dtype == (d == WF_F64 ? WF_F64 : WF_F32) && dx->dtype == d);
    double tol = d == WF_F64 ? 1e-12 : 4e-6, tol_dx = d == WF_F64 ? 1e-12 : d == WF_F32 ? 4e-6 : 0.005;
    for (int64_t r = 0; r < rows; r++) {
        int target = ((int32_t *)t->data)[r];
        row_truth want = naive(x, r, V, target, smoothing);
        double seen = wf_tensor_get(y, r), scale = wf_tensor_get(w, r);
        if (!(fabs(seen - want.loss) <= tol * (1 + fabs(want.lse) + fabs(want.loss))))
            fail_msg("V %d row %d: loss %.9g, not %.9g", (int)V, (int)r, seen, want.loss);
        assert_true(fabs(wf_tensor_get(l, r) - want.lse) <= tol * (1 + fabs(want.lse)));
        double lse = wf_tensor_get(l, r); /* the rounding of lse is in the forward tolerance */
        for (int64_t j = 0; j < V; j++) {
            double a = wf_tensor_get(dx, r * V + j), b = scale * naive_slope(x, r, V, j, target, smoothing, lse);
            if (!(fabs(a - b) <= tol_dx * (fabs(b) + fabs(scale))))
                fail_msg("V %d (%d,%d): slope %.9g, not %.9g", (int)V, (int)r, (int)j, a, b);
        }
    }
    wf_graph_free(g);
    wf_tensor *all[] = {x, t, w, y, l, dx};
    for (int k = 0; k < 6; k++) wf_tensor_free(all[k]);
}

static void loss_matches(void **state) {
    (void)state;
    const int64_t widths[] = {1, 2, 17, 256, 511, 513, 1500};
    const wf_dtype types[] = {WF_F32, WF_BF16, WF_F64};
    for (int d = 0; d < 3; d++)
        for (int k = 0; k < 7; k++) {
            loss_case(types[d], 5, widths[k], 0, 1);
            loss_case(types[d], 5, widths[k], 0.1, 4);
            loss_case(types[d], 5, widths[k], 0, 1000); /* far beyond the range of e^x */
        }
    loss_case(WF_F32, 3, 50257, 0.1, 3);
    loss_case(WF_BF16, 3, 50257, 0, 3);
}

/* Rising rows make the running maximum change in every block; -inf marks classes that cannot be. */
static void loss_of_hard_rows(void **state) {
    (void)state;
    enum { V = 3000 };
    wf_graph *g = wf_graph_open();
    wf_tensor *x = wf_tensor_new(WF_F32, WF_SHAPE(3, V)), *it;
    float *p = x->data;
    for (int j = 0; j < V; j++) {
        p[j] = (float)j * 0.5f;
        p[V + j] = j < 2000 ? -INFINITY : 1;
        p[2 * V + j] = -3e38f;
    }
    wf_node *leaf = wf_leaf(g, x, "x"),
            *loss = wf_cross_entropy(g, leaf, rn_indices(g, WF_SHAPE(3), (int[]){V - 1, 2500, 7}, &it), 0), *slope;
    wf_node *seed = wf_fill(g, WF_F32, WF_SHAPE(3), 1);
    assert_int_equal(wf_grad(g, &loss, &seed, 1, &leaf, 1, &slope), WF_OK);
    wf_tensor *y = rn_run(g, loss), *dx = rn_run(g, slope);
    assert_true(fabs(wf_tensor_get(y, 0) - 0.9327521) < 1e-3); /* -log(1 - e^-1/2), lse is about 1500 */
    assert_true(fabs(wf_tensor_get(y, 1) - log(1000)) < 1e-5);
    assert_true(wf_tensor_get(dx, V + 5) == 0 && fabs(wf_tensor_get(dx, V + 2001) - 1e-3) < 1e-8);
    assert_true(isfinite(wf_tensor_get(y, 2)));
    wf_graph_free(g);
    wf_tensor *all[] = {x, it, y, dx};
    for (int k = 0; k < 4; k++) wf_tensor_free(all[k]);
}

static void nan_is_not_hidden(void **state) {
    (void)state;
    wf_graph *g = wf_graph_open();
    wf_tensor *x = wf_tensor_new(WF_F32, WF_SHAPE(1, 40)), *it;
    ((float *)x->data)[21] = NAN;
    wf_tensor *y = rn_run(g, wf_cross_entropy(g, wf_leaf(g, x, "x"), rn_indices(g, WF_SHAPE(1), (int[]){3}, &it), 0));
    assert_true(isnan(wf_tensor_get(y, 0)));
    wf_graph_free(g);
    wf_tensor_free(x);
    wf_tensor_free(y);
    wf_tensor_free(it);
}

static void same_for_any_threads(void **state) {
    (void)state;
    int before = wf_threads();
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(64, 700), 3, 0), *t = rn_random(WF_I32, WF_SHAPE(64), 4, 700), *y[2], *dx[2];
    for (int k = 0; k < 2; k++) {
        wf_set_threads(k ? 3 : 1);
        wf_graph *g = wf_graph_open();
        wf_node *leaf = wf_leaf(g, x, "x"), *loss = wf_cross_entropy(g, leaf, wf_leaf(g, t, "t"), 0.1),
                *total = wf_sum_all(g, loss), *slope;
        assert_int_equal(wf_grad(g, &total, NULL, 1, &leaf, 1, &slope), WF_OK);
        y[k] = rn_run(g, loss);
        dx[k] = rn_run(g, slope);
        wf_graph_free(g);
    }
    wf_set_threads(before);
    assert_memory_equal(y[0]->data, y[1]->data, y[0]->bytes);
    assert_memory_equal(dx[0]->data, dx[1]->data, dx[0]->bytes);
    wf_tensor *all[] = {x, t, y[0], y[1], dx[0], dx[1]};
    for (int k = 0; k < 6; k++) wf_tensor_free(all[k]);
}

/* ---- gradients ---- */
static double smoothing;
static wf_tensor *targets;
static wf_node *build_loss(wf_graph *g, wf_node **x, void *ctx) {
    (void)ctx;
    return wf_cross_entropy(g, wf_mul_c(g, x[0], 1.5), wf_leaf(g, targets, "t"), smoothing);
}
static wf_node *build_both(wf_graph *g, wf_node **x, void *ctx) { /* the second output has a gradient too (z-loss) */
    (void)ctx;
    wf_node *loss = wf_cross_entropy(g, x[0], wf_leaf(g, targets, "t"), smoothing);
    return wf_add(g, loss, wf_square(g, wf_output(loss, 1)));
}

static void gradients(void **state) {
    (void)state;
    targets = rn_random(WF_I32, WF_SHAPE(3, 4), 9, 7);
    ((int32_t *)targets->data)[5] = -1;
    for (int k = 0; k < 2; k++) {
        smoothing = k * 0.2;
        assert_true(gc_check(&(gc_case){
            .name = "cross_entropy", .build = build_loss, .n = 1, .shape = {WF_SHAPE(3, 4, 7)}, .seed = 1, .second = true}));
        assert_true(gc_check(&(gc_case){.name = "cross_entropy and lse",
                                        .build = build_both,
                                        .n = 1,
                                        .shape = {WF_SHAPE(3, 4, 7)},
                                        .seed = 2,
                                        .second = true}));
    }
    wf_tensor_free(targets);
}

/* ---- errors and cost ---- */
static void errors(void **state) {
    (void)state;
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(3, 7), 1, 0), *t, *u;
    wf_graph *g = wf_graph_open();
    wf_node *leaf = wf_leaf(g, x, "x"), *bad = rn_indices(g, WF_SHAPE(3), (int[]){0, 7, 1}, &t);
    assert_null(rn_run(g, wf_cross_entropy(g, leaf, bad, 0)));
    assert_non_null(strstr(wf_message(), "cross_entropy: index 7 (entry 1"));
    assert_null(wf_cross_entropy(g, leaf, leaf, 0));
    assert_non_null(strstr(wf_message(), "float32 [3, 7]"));
    wf_graph_free(g);
    g = wf_graph_open();
    assert_null(wf_cross_entropy(g, wf_leaf(g, x, "x"), rn_indices(g, WF_SHAPE(4), (int[]){0, 0, 0, 0}, &u), 0));
    wf_graph_free(g);
    wf_tensor_free(u);
    g = wf_graph_open();
    assert_null(wf_cross_entropy(g, wf_leaf(g, x, "x"), wf_leaf(g, t, "t"), 1));
    assert_non_null(strstr(wf_message(), "smoothing"));
    wf_graph_free(g);
    wf_tensor_free(x);
    wf_tensor_free(t);
}

static void exact_cost(void **state) {
    (void)state;
    wf_graph *g = wf_graph_open();
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(3, 7), 1, 0), *t;
    wf_node *loss = wf_cross_entropy(g, wf_leaf(g, x, "x"), rn_indices(g, WF_SHAPE(3), (int[]){0, 6, 1}, &t), 0);
    wf_cost c = {0};
    loss->op->cost(loss, &c);
    assert_true(c.flops == 4 * 21 && c.bytes_read == 4 * 21 + 4 * 3 && c.bytes_written == 2 * 4 * 3);
    wf_graph_free(g);
    wf_tensor_free(x);
    wf_tensor_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loss_matches),         cmocka_unit_test(loss_of_hard_rows), cmocka_unit_test(nan_is_not_hidden),
        cmocka_unit_test(same_for_any_threads), cmocka_unit_test(gradients),         cmocka_unit_test(errors),
        cmocka_unit_test(exact_cost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
