/* test_gather.c: gather, scatter_add, take, put_add, one_hot, topk, argsort, argmax against naive loops; gradients; errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "gradcheck.h"
#include "runnode.h"

static const int rows_idx[12] = {3, 0, 6, 3, 3, 1, 6, 5, 0, 3, 2, 6};

static void gather_matches(void **state) {
    (void)state;
    const wf_dtype types[] = {WF_F32, WF_BF16, WF_I32, WF_U8, WF_F64};
    for (int k = 0; k < 5; k++) {
        wf_graph *g = wf_graph_open();
        wf_tensor *table = rn_random(types[k], WF_SHAPE(7, 5, 3), 1, 100), *it;
        wf_node *idx = rn_indices(g, WF_SHAPE(3, 4), rows_idx, &it);
        wf_tensor *y = rn_run(g, wf_gather(g, wf_leaf(g, table, "t"), idx));
        assert_non_null(y);
        assert_true(y->dtype == types[k] && wf_shape_equal(&y->shape, &WF_SHAPE(3, 4, 5, 3)));
        for (int i = 0; i < 12; i++)
            for (int j = 0; j < 15; j++)
                assert_true(wf_tensor_get(y, i * 15 + j) == wf_tensor_get(table, rows_idx[i] * 15 + j));
        wf_tensor_free(y);
        wf_graph_free(g);
        wf_tensor_free(table);
        wf_tensor_free(it);
    }
}

static void scalar_index(void **state) {
    (void)state;
    wf_graph *g = wf_graph_open();
    wf_tensor *table = rn_random(WF_F32, WF_SHAPE(4, 6), 2, 0), *it;
    wf_node *idx = rn_indices(g, (wf_shape){.rank = 0}, (int[]){2}, &it);
    wf_tensor *y = rn_run(g, wf_gather(g, wf_leaf(g, table, "t"), idx));
    assert_true(wf_shape_equal(&y->shape, &WF_SHAPE(6)));
    assert_memory_equal(y->data, (float *)table->data + 12, 24);
    wf_tensor_free(y);
    wf_graph_free(g);
    wf_tensor_free(table);
    wf_tensor_free(it);
}

/* A strided table: the transpose of a leaf. */
static void gather_of_view(void **state) {
    (void)state;
    wf_graph *g = wf_graph_open();
    wf_tensor *table = rn_random(WF_F32, WF_SHAPE(5, 7), 2, 0), *it;
    wf_node *idx = rn_indices(g, WF_SHAPE(12), rows_idx, &it);
    wf_tensor *y = rn_run(g, wf_gather(g, wf_transpose(g, wf_leaf(g, table, "t"), 0, 1), idx));
    for (int i = 0; i < 12; i++)
        for (int j = 0; j < 5; j++) assert_true(wf_tensor_get(y, i * 5 + j) == wf_tensor_get(table, j * 7 + rows_idx[i]));
    wf_tensor_free(y);
    wf_graph_free(g);
    wf_tensor_free(table);
    wf_tensor_free(it);
}

static void scatter_matches(void **state) {
    (void)state;
    const wf_dtype types[] = {WF_F32, WF_BF16, WF_F64};
    static const int idx[12] = {3, 0, -1, 3, 3, 1, 6, 5, 0, 3, -7, 6};
    for (int k = 0; k < 3; k++) {
        wf_graph *g = wf_graph_open();
        wf_tensor *src = rn_random(types[k], WF_SHAPE(12, 600), 4, 0), *it; /* more columns than one task sums */
        wf_tensor *y = rn_run(g, wf_scatter_add(g, wf_leaf(g, src, "s"), rn_indices(g, WF_SHAPE(12), idx, &it), 8));
        assert_non_null(y);
        for (int r = 0; r < 8; r++)
            for (int j = 0; j < 600; j++) {
                double s = 0;
                for (int i = 0; i < 12; i++)
                    if (idx[i] == r) s += wf_tensor_get(src, i * 600 + j);
                assert_true(fabs(wf_tensor_get(y, r * 600 + j) - s) <= (types[k] == WF_BF16 ? 0.004 : 1e-6) * (1 + fabs(s)));
            }
        wf_tensor_free(y);
        wf_graph_free(g);
        wf_tensor_free(src);
        wf_tensor_free(it);
    }
}

static wf_tensor *scatter_large(wf_tensor *src, wf_tensor *idx, int threads) {
    wf_set_threads(threads);
    wf_graph *g = wf_graph_open();
    wf_tensor *y = rn_run(g, wf_scatter_add(g, wf_leaf(g, src, "s"), wf_leaf(g, idx, "i"), 50));
    wf_graph_free(g);
    return y;
}

static void scatter_for_any_threads(void **state) {
    (void)state;
    int before = wf_threads();
    wf_tensor *src = rn_random(WF_F32, WF_SHAPE(40, 25, 96), 4, 0), *idx = rn_random(WF_I32, WF_SHAPE(40, 25), 5, 50);
    wf_tensor *a = scatter_large(src, idx, 1), *b = scatter_large(src, idx, 3);
    wf_set_threads(before);
    assert_memory_equal(a->data, b->data, a->bytes);
    float s = 0; /* in the order of the source rows */
    for (int i = 0; i < 1000; i++)
        if (((int32_t *)idx->data)[i] == 7) s += ((float *)src->data)[i * 96 + 5];
    assert_true(((float *)a->data)[7 * 96 + 5] == s);
    wf_tensor_free(a);
    wf_tensor_free(b);
    wf_tensor_free(src);
    wf_tensor_free(idx);
}

static void take_and_put(void **state) {
    (void)state;
    const wf_dtype types[] = {WF_F32, WF_BF16, WF_F64};
    for (int k = 0; k < 3; k++) {
        wf_graph *g = wf_graph_open();
        wf_tensor *x = rn_random(types[k], WF_SHAPE(3, 2, 9), 6, 0), *i = rn_random(WF_I32, WF_SHAPE(3, 2, 5), 7, 9);
        wf_node *in = wf_leaf(g, i, "i"), *y = wf_take(g, wf_leaf(g, x, "x"), in);
        wf_tensor *ty = rn_run(g, y), *tz = rn_run(g, wf_put_add(g, y, in, 9));
        for (int r = 0; r < 6; r++) {
            double sum[9] = {0};
            for (int j = 0; j < 5; j++) {
                int at = (int)wf_tensor_get(i, r * 5 + j);
                assert_true(wf_tensor_get(ty, r * 5 + j) == wf_tensor_get(x, r * 9 + at));
                sum[at] += wf_tensor_get(x, r * 9 + at);
            }
            for (int j = 0; j < 9; j++)
                assert_true(fabs(wf_tensor_get(tz, r * 9 + j) - sum[j]) <= (types[k] == WF_BF16 ? 0.02 : 1e-6));
        }
        wf_tensor_free(ty);
        wf_tensor_free(tz);
        wf_graph_free(g);
        wf_tensor_free(x);
        wf_tensor_free(i);
    }
}

static void one_hot_rows(void **state) {
    (void)state;
    const wf_dtype types[] = {WF_F32, WF_BF16, WF_F64, WF_I32, WF_U8};
    for (int k = 0; k < 5; k++) {
        wf_graph *g = wf_graph_open();
        wf_tensor *it, *y = rn_run(g, wf_one_hot(g, rn_indices(g, WF_SHAPE(2, 2), (int[]){4, -1, 0, 4}, &it), 5, types[k]));
        assert_true(wf_shape_equal(&y->shape, &WF_SHAPE(2, 2, 5)));
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 5; j++) assert_true(wf_tensor_get(y, i * 5 + j) == (((int32_t *)it->data)[i] == j));
        wf_tensor_free(y);
        wf_graph_free(g);
        wf_tensor_free(it);
    }
}

/* ---- order ---- */
/* Small integers as values: many ties. Row 1 has NaN and zeros of both signs. */
static wf_tensor *ties(wf_dtype d, int rows, int n) {
    wf_tensor *t = rn_random(WF_I32, WF_SHAPE(rows, n), 8, 7), *x = wf_tensor_new(d, WF_SHAPE(rows, n));
    for (int64_t i = 0; i < wf_tensor_count(t); i++) wf_tensor_set(x, i, wf_tensor_get(t, i) - (d == WF_U8 ? 0 : 3));
    if (wf_is_float(d)) {
        wf_tensor_set(x, n + 3, NAN);
        wf_tensor_set(x, n + 1, -0.0);
        wf_tensor_set(x, n + 2, 0.0);
    }
    wf_tensor_free(t);
    return x;
}

static double rank_value(const wf_tensor *x, int64_t i) {
    return isnan(wf_tensor_get(x, i)) ? 1e9 : wf_tensor_get(x, i);
}

/* Place of entry j in the descending order of its row. */
static int place_of(const wf_tensor *x, int row, int n, int j, bool descending) {
    int before = 0;
    double v = rank_value(x, row * n + j);
    for (int i = 0; i < n; i++) {
        double u = rank_value(x, row * n + i);
        before += descending ? u > v : u < v;
        before += u == v && i < j;
    }
    return before;
}

static void order_matches(void **state) {
    (void)state;
    const wf_dtype types[] = {WF_F32, WF_BF16, WF_F64, WF_I32, WF_U8};
    enum { R = 4, N = 83 };
    for (int k = 0; k < 5; k++) {
        wf_graph *g = wf_graph_open();
        wf_tensor *x = ties(types[k], R, N);
        wf_node *leaf = wf_leaf(g, x, "x"), *top = wf_topk(g, leaf, 20);
        wf_tensor *v = rn_run(g, top), *i = rn_run(g, wf_output(top, 1)), *down = rn_run(g, wf_argsort(g, leaf, true));
        wf_tensor *up = rn_run(g, wf_argsort(g, leaf, false)), *best = rn_run(g, wf_argmax(g, leaf)),
                  *all = rn_run(g, wf_output(wf_topk(g, leaf, N), 1));
        assert_true(v->dtype == types[k] && i->dtype == WF_I32);
        for (int r = 0; r < R; r++)
            for (int j = 0; j < N; j++) {
                int p = place_of(x, r, N, j, true);
                assert_int_equal(((int32_t *)down->data)[r * N + p], j);
                assert_int_equal(((int32_t *)all->data)[r * N + p], j);
                assert_int_equal(((int32_t *)up->data)[r * N + place_of(x, r, N, j, false)], j);
                if (p == 0) assert_int_equal(((int32_t *)best->data)[r], j);
                if (p >= 20) continue;
                assert_int_equal(((int32_t *)i->data)[r * 20 + p], j);
                assert_true(rank_value(v, r * 20 + p) == rank_value(x, r * N + j));
            }
        wf_tensor *all_results[] = {x, v, i, down, up, best, all};
        wf_graph_free(g);
        for (int t = 0; t < 7; t++) wf_tensor_free(all_results[t]);
    }
}

/* ---- gradients ---- */
static wf_tensor *grad_idx;
static wf_node *build_gather(wf_graph *g, wf_node **x, void *ctx) {
    (void)ctx;
    return wf_gather(g, wf_mul(g, x[0], wf_square(g, x[0])), wf_leaf(g, grad_idx, "i"));
}
static wf_node *build_scatter(wf_graph *g, wf_node **x, void *ctx) {
    (void)ctx;
    return wf_scatter_add(g, wf_mul(g, x[0], wf_square(g, x[0])), wf_leaf(g, grad_idx, "i"), 9);
}
static wf_node *build_take(wf_graph *g, wf_node **x, void *ctx) {
    (void)ctx;
    return wf_square(g, wf_take(g, x[0], wf_leaf(g, grad_idx, "i")));
}
static wf_node *build_put(wf_graph *g, wf_node **x, void *ctx) {
    (void)ctx;
    return wf_square(g, wf_put_add(g, x[0], wf_leaf(g, grad_idx, "i"), 7));
}
static wf_node *build_topk(wf_graph *g, wf_node **x, void *ctx) {
    (void)ctx;
    return wf_square(g, wf_topk(g, x[0], 3));
}

static void gradients(void **state) {
    (void)state;
    grad_idx = rn_random(WF_I32, WF_SHAPE(3, 5), 11, 7);
    assert_true(gc_check(
        &(gc_case){.name = "gather", .build = build_gather, .n = 1, .shape = {WF_SHAPE(7, 2, 3)}, .seed = 1, .second = true}));
    ((int32_t *)grad_idx->data)[4] = -1; /* skipped in sums */
    assert_true(gc_check(&(gc_case){
        .name = "scatter_add", .build = build_scatter, .n = 1, .shape = {WF_SHAPE(3, 5, 2)}, .seed = 2, .second = true}));
    assert_true(gc_check(
        &(gc_case){.name = "put_add", .build = build_put, .n = 1, .shape = {WF_SHAPE(3, 5)}, .seed = 3, .second = true}));
    ((int32_t *)grad_idx->data)[4] = 6;
    assert_true(gc_check(
        &(gc_case){.name = "take", .build = build_take, .n = 1, .shape = {WF_SHAPE(3, 7)}, .seed = 4, .second = true}));
    assert_true(gc_check(
        &(gc_case){.name = "topk", .build = build_topk, .n = 1, .shape = {WF_SHAPE(4, 7)}, .seed = 5, .second = true}));
    wf_tensor_free(grad_idx);
}

/* ---- errors ---- */
static void fails_to_run(wf_graph *g, wf_node *n, const char *word, const char *number) {
    wf_tensor *y = rn_run(g, n);
    assert_null(y);
    if (!strstr(wf_message(), word) || !strstr(wf_message(), number))
        fail_msg("message '%s' lacks '%s' or '%s'", wf_message(), word, number);
}

static void indices_out_of_range(void **state) {
    (void)state;
    wf_graph *g = wf_graph_open();
    wf_tensor *t = rn_random(WF_F32, WF_SHAPE(7, 5), 1, 0), *i[4];
    wf_node *x = wf_leaf(g, t, "t"), *over = rn_indices(g, WF_SHAPE(7), (int[]){0, 1, 2, 3, 77, 5, 6}, &i[0]);
    wf_node *under = rn_indices(g, WF_SHAPE(2), (int[]){0, -3}, &i[1]),
            *col = rn_indices(g, WF_SHAPE(7, 1), (int[]){0, 1, 2, 3, 4, 5, 0}, &i[2]);
    fails_to_run(g, wf_gather(g, x, over), "gather: index 77 (entry 4", "0..6");
    fails_to_run(g, wf_gather(g, x, under), "gather: index -3 (entry 1", "0..6");
    fails_to_run(g, wf_scatter_add(g, x, over, 7), "scatter_add: index 77", "..6");
    fails_to_run(g, wf_take(g, x, col), "take: index 5", "0..4");
    fails_to_run(g, wf_put_add(g, wf_slice(g, x, 1, 0, 1), col, 3), "put_add: index 3", "..2");
    fails_to_run(g, wf_one_hot(g, over, 10, WF_F32), "one_hot: index 77", "..9");
    wf_graph_free(g);
    wf_tensor_free(t);
    for (int k = 0; k < 3; k++) wf_tensor_free(i[k]);
}

static void refused(wf_node *n, const char *word) {
    assert_null(n);
    if (!strstr(wf_message(), word)) fail_msg("message '%s' lacks '%s'", wf_message(), word);
}

static void shapes_refused(void **state) {
    (void)state;
    wf_tensor *t = rn_random(WF_F32, WF_SHAPE(7, 5), 1, 0), *i = wf_tensor_new(WF_I32, WF_SHAPE(7, 2));
    for (int k = 0; k < 8; k++) {
        wf_graph *g = wf_graph_open(); /* the first error of a graph stays */
        wf_node *x = wf_leaf(g, t, "t"), *idx = wf_leaf(g, i, "i");
        if (k == 0) refused(wf_gather(g, x, x), "int32");
        if (k == 1) refused(wf_scatter_add(g, x, idx, 9), "[7, 5]");
        if (k == 2) refused(wf_scatter_add(g, wf_expand(g, x, WF_SHAPE(7, 2, 7, 5)), idx, 0), "scatter_add");
        if (k == 3) refused(wf_take(g, wf_transpose(g, x, 0, 1), idx), "take");
        if (k == 4) refused(wf_put_add(g, x, idx, 9), "put_add");
        if (k == 5) refused(wf_topk(g, x, 6), "topk: k = 6");
        if (k == 6) refused(wf_topk(g, x, 0), "topk: k = 0");
        if (k == 7) refused(wf_one_hot(g, idx, 0, WF_F32), "one_hot");
        wf_graph_free(g);
    }
    wf_tensor_free(t);
    wf_tensor_free(i);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gather_matches),
        cmocka_unit_test(scalar_index),
        cmocka_unit_test(gather_of_view),
        cmocka_unit_test(scatter_matches),
        cmocka_unit_test(scatter_for_any_threads),
        cmocka_unit_test(take_and_put),
        cmocka_unit_test(one_hot_rows),
        cmocka_unit_test(order_matches),
        cmocka_unit_test(gradients),
        cmocka_unit_test(indices_out_of_range),
        cmocka_unit_test(shapes_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
