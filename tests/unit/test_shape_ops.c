/* test_shape_ops.c: concat, pad, flip, cumsum, cache_write against naive loops; gradients; errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "gradcheck.h"
#include "runnode.h"

/* Element (i, j, k) of a [a, b, c] tensor. */
static double at3(const wf_tensor *t, int64_t i, int64_t j, int64_t k) {
    return wf_tensor_get(t, (i * t->shape.dim[1] + j) * t->shape.dim[2] + k);
}

static void concat_matches(void **state) {
    (void)state;
    const wf_dtype types[] = {WF_F32, WF_BF16, WF_I32, WF_U8, WF_F64};
    for (int d = 0; d < 5; d++)
        for (int axis = 0; axis < 3; axis++) {
            wf_graph *g = wf_graph_open();
            wf_tensor *t[3];
            wf_node *x[3];
            for (int k = 0; k < 3; k++) {
                wf_shape s = WF_SHAPE(4, 3, 5);
                s.dim[axis] = k + 1;
                t[k] = rn_random(types[d], s, (uint64_t)k + 1, 99);
                x[k] = wf_leaf(g, t[k], "x");
            }
            wf_tensor *y = rn_run(g, wf_concat(g, x, 3, axis));
            assert_non_null(y);
            assert_int_equal(y->shape.dim[axis], 6);
            int64_t p[3];
            for (p[0] = 0; p[0] < y->shape.dim[0]; p[0]++)
                for (p[1] = 0; p[1] < y->shape.dim[1]; p[1]++)
                    for (p[2] = 0; p[2] < y->shape.dim[2]; p[2]++) {
                        int k = p[axis] < 1 ? 0 : p[axis] < 3 ? 1 : 2;
                        int64_t q[3] = {p[0], p[1], p[2]};
                        q[axis] -= k == 0 ? 0 : k == 1 ? 1 : 3;
                        assert_true(at3(y, p[0], p[1], p[2]) == at3(t[k], q[0], q[1], q[2]));
                    }
            wf_tensor_free(y);
            wf_graph_free(g);
            for (int k = 0; k < 3; k++) wf_tensor_free(t[k]);
        }
}

/* Large enough for several threads, with inputs that are views. */
static void concat_of_views(void **state) {
    (void)state;
    enum { A = 70, B = 90, C = 33 };
    int before = wf_threads();
    for (int threads = 1; threads < 4; threads += 2) {
        wf_set_threads(threads);
        wf_graph *g = wf_graph_open();
        wf_tensor *t = rn_random(WF_F32, WF_SHAPE(B, A, C), 3, 0), *u = rn_random(WF_F32, WF_SHAPE(A, B, 50), 4, 0);
        wf_node *x[2] = {wf_transpose(g, wf_leaf(g, t, "t"), 0, 1), wf_slice(g, wf_leaf(g, u, "u"), 2, 7, 40)};
        wf_tensor *y = rn_run(g, wf_concat(g, x, 2, 2));
        for (int64_t i = 0; i < A; i++)
            for (int64_t j = 0; j < B; j++)
                for (int64_t k = 0; k < C + 40; k++)
                    assert_true(at3(y, i, j, k) == (k < C ? at3(t, j, i, k) : at3(u, i, j, k - C + 7)));
        wf_tensor_free(y);
        wf_graph_free(g);
        wf_tensor_free(t);
        wf_tensor_free(u);
    }
    wf_set_threads(before);
}

static void pad_matches(void **state) {
    (void)state;
    const int amounts[][2] = {{2, 3}, {0, 1}, {-1, 2}, {2, -2}, {-1, -2}, {0, 0}};
    for (int axis = 0; axis < 3; axis++)
        for (int c = 0; c < 6; c++) {
            wf_graph *g = wf_graph_open();
            wf_tensor *t = rn_random(c % 2 ? WF_BF16 : WF_F32, WF_SHAPE(5, 4, 6), 3, 0);
            wf_node *x = wf_transpose(g, wf_leaf(g, t, "t"), 0, 2); /* a view [6, 4, 5] */
            int64_t before = amounts[c][0], after = amounts[c][1];
            wf_tensor *y = rn_run(g, wf_pad(g, x, axis, before, after, 1.5));
            assert_non_null(y);
            assert_int_equal(y->shape.dim[axis], x->shape.dim[axis] + before + after);
            int64_t p[3];
            for (p[0] = 0; p[0] < y->shape.dim[0]; p[0]++)
                for (p[1] = 0; p[1] < y->shape.dim[1]; p[1]++)
                    for (p[2] = 0; p[2] < y->shape.dim[2]; p[2]++) {
                        int64_t q[3] = {p[0], p[1], p[2]};
                        q[axis] -= before;
                        bool inside = q[axis] >= 0 && q[axis] < x->shape.dim[axis];
                        assert_true(at3(y, p[0], p[1], p[2]) == (inside ? at3(t, q[2], q[1], q[0]) : 1.5));
                    }
            wf_tensor_free(y);
            wf_graph_free(g);
            wf_tensor_free(t);
        }
}

static void flip_matches(void **state) {
    (void)state;
    for (int axis = 0; axis < 3; axis++) {
        wf_graph *g = wf_graph_open();
        wf_tensor *t = rn_random(WF_I32, WF_SHAPE(5, 4, 6), 3, 1000);
        wf_tensor *y = rn_run(g, wf_flip(g, wf_transpose(g, wf_leaf(g, t, "t"), 0, 1), axis)); /* [4, 5, 6] */
        for (int64_t i = 0; i < 4; i++)
            for (int64_t j = 0; j < 5; j++)
                for (int64_t k = 0; k < 6; k++)
                    assert_true(at3(y, i, j, k) == at3(t, axis == 1 ? 4 - j : j, axis == 0 ? 3 - i : i, axis == 2 ? 5 - k : k));
        wf_tensor_free(y);
        wf_graph_free(g);
        wf_tensor_free(t);
    }
}

static void cumsum_case(wf_dtype d, int axis, bool reverse, bool exclusive) {
    wf_graph *g = wf_graph_open();
    wf_tensor *t = rn_random(d, WF_SHAPE(5, 9, 70), 3, 50);
    wf_tensor *y = rn_run(g, wf_cumsum(g, wf_leaf(g, t, "t"), axis, reverse, exclusive));
    assert_non_null(y);
    int64_t p[3], len = t->shape.dim[axis];
    for (p[0] = 0; p[0] < 5; p[0]++)
        for (p[1] = 0; p[1] < 9; p[1]++)
            for (p[2] = 0; p[2] < 70; p[2] += 3) {
                double s = 0;
                for (int64_t q = 0; q < len; q++) {
                    int64_t r[3] = {p[0], p[1], p[2]}, away = reverse ? q - p[axis] : p[axis] - q;
                    r[axis] = q;
                    if (away > 0 || (away == 0 && !exclusive)) s += at3(t, r[0], r[1], r[2]);
                }
                assert_true(fabs(at3(y, p[0], p[1], p[2]) - s) <= (d == WF_BF16 ? 0.004 : 1e-6) * (1 + fabs(s)));
            }
    wf_tensor_free(y);
    wf_graph_free(g);
    wf_tensor_free(t);
}

static void cumsum_matches(void **state) {
    (void)state;
    const wf_dtype types[] = {WF_F32, WF_BF16, WF_I32, WF_F64};
    for (int d = 0; d < 4; d++)
        for (int axis = 0; axis < 3; axis++)
            for (int form = 0; form < 4; form++) cumsum_case(types[d], axis, form & 1, form & 2);
}

/* ---- cache_write ---- */
static void cache_writes(void **state) {
    (void)state;
    for (int ring = 0; ring < 2; ring++) {
        wf_graph *g = wf_graph_open();
        wf_tensor *s = wf_tensor_new(WF_F32, WF_SHAPE(2, 6, 3)), *v = rn_random(WF_F32, WF_SHAPE(2, 4, 3), 3, 0), *pos;
        wf_node *at = rn_indices(g, WF_SHAPE(1), (int[]){0}, &pos), *value = wf_leaf(g, v, "v");
        wf_node *w = wf_cache_write(g, wf_leaf(g, s, "s"), value, at, ring);
        wf_node *sum = wf_sum_all(g, w);
        wf_node *outs[1] = {sum};
        wf_plan *p = wf_plan_new(g, outs, 1, NULL, 0, NULL);
        assert_non_null(p);
        for (int step = 0; step < 3; step++) {
            int first = step * 2;
            *(int32_t *)pos->data = first + (ring ? 6000 : 0);
            wf_status st = wf_plan_run(p);
            if (!ring && first + 4 > 6) {
                assert_int_equal(st, WF_EINVAL);
                assert_non_null(strstr(wf_message(), "cache_write: rows 4..7 do not fit a cache of 6"));
                continue;
            }
            assert_int_equal(st, WF_OK);
            double total = 0;
            for (int64_t i = 0; i < wf_tensor_count(s); i++) total += wf_tensor_get(s, i);
            for (int b = 0; b < 2; b++)
                for (int t = 0; t < 4; t++)
                    for (int k = 0; k < 3; k++) assert_true(at3(s, b, (first + t) % 6, k) == at3(v, b, t, k));
            assert_true(fabs(*(const float *)wf_plan_out(p, 0) - total) < 1e-4); /* readers see the new rows */
        }
        *(int32_t *)pos->data = -1;
        assert_int_equal(wf_plan_run(p), WF_EINVAL);
        wf_plan_free(p);
        wf_graph_free(g);
        wf_tensor_free(s);
        wf_tensor_free(v);
        wf_tensor_free(pos);
    }
}

/* A window longer than the ring keeps its last rows; the value may be a view and of another dtype. */
static void cache_ring_overflow(void **state) {
    (void)state;
    wf_graph *g = wf_graph_open();
    wf_tensor *s = wf_tensor_new(WF_BF16, WF_SHAPE(2, 3, 4)), *v = rn_random(WF_F32, WF_SHAPE(8, 2, 4), 3, 0), *pos;
    wf_node *at = rn_indices(g, WF_SHAPE(1), (int[]){5}, &pos);
    wf_tensor *y = rn_run(g, wf_cache_write(g, wf_leaf(g, s, "s"), wf_transpose(g, wf_leaf(g, v, "v"), 0, 1), at, true));
    assert_non_null(y);
    for (int b = 0; b < 2; b++)
        for (int t = 5; t < 8; t++)
            for (int k = 0; k < 4; k++)
                assert_true(at3(s, b, (5 + t) % 3, k) == wf_bf16_to_f32(wf_f32_to_bf16((float)at3(v, t, b, k))));
    wf_tensor_free(y);
    wf_graph_free(g);
    wf_tensor_free(s);
    wf_tensor_free(v);
    wf_tensor_free(pos);
}

/* ---- gradients ---- */
static wf_node *build_concat(wf_graph *g, wf_node **x, void *ctx) {
    wf_node *a[3] = {wf_square(g, x[0]), wf_transpose(g, wf_mul(g, x[1], x[1]), 0, 1), x[0]};
    return wf_concat(g, a, 3, *(int *)ctx);
}
static wf_node *build_pad(wf_graph *g, wf_node **x, void *ctx) {
    return wf_square(g, wf_pad(g, wf_pad(g, x[0], *(int *)ctx, 2, -1, 0.5), 0, -1, 1, 2));
}
static wf_node *build_flip(wf_graph *g, wf_node **x, void *ctx) {
    return wf_mul(g, wf_flip(g, x[0], *(int *)ctx), wf_square(g, x[0]));
}
static wf_node *build_cumsum(wf_graph *g, wf_node **x, void *ctx) {
    int form = *(int *)ctx;
    return wf_square(g, wf_cumsum(g, x[0], form / 4, form & 1, form & 2));
}

static void gradients(void **state) {
    (void)state;
    for (int axis = 0; axis < 2; axis++)
        assert_true(gc_check(&(gc_case){.name = "concat",
                                        .build = build_concat,
                                        .ctx = &axis,
                                        .n = 2,
                                        .shape = {WF_SHAPE(3, 3), WF_SHAPE(3, 3)},
                                        .seed = 1,
                                        .second = true}));
    for (int axis = 0; axis < 3; axis++) {
        assert_true(gc_check(&(gc_case){
            .name = "pad", .build = build_pad, .ctx = &axis, .n = 1, .shape = {WF_SHAPE(5, 3, 2)}, .seed = 2, .second = true}));
        assert_true(gc_check(&(gc_case){.name = "flip",
                                        .build = build_flip,
                                        .ctx = &axis,
                                        .n = 1,
                                        .shape = {WF_SHAPE(3, 4, 2)},
                                        .seed = 3,
                                        .second = true}));
        for (int form = 4 * axis; form < 4 * axis + 4; form++)
            assert_true(gc_check(&(gc_case){.name = "cumsum",
                                            .build = build_cumsum,
                                            .ctx = &form,
                                            .n = 1,
                                            .shape = {WF_SHAPE(3, 4, 2)},
                                            .seed = 4,
                                            .second = true}));
    }
}

/* ---- errors ---- */
static void refused(wf_node *n, const char *word) {
    assert_null(n);
    if (!strstr(wf_message(), word)) fail_msg("message '%s' lacks '%s'", wf_message(), word);
}

static void shapes_refused(void **state) {
    (void)state;
    wf_tensor *t = rn_random(WF_F32, WF_SHAPE(7, 5), 1, 0), *u = rn_random(WF_F32, WF_SHAPE(6, 4), 1, 0),
              *h = wf_tensor_new(WF_BF16, WF_SHAPE(7, 5));
    wf_tensor *state3 = wf_tensor_new(WF_F32, WF_SHAPE(2, 3, 4)), *long3 = wf_tensor_new(WF_F32, WF_SHAPE(2, 5, 4)),
              *bytes = wf_tensor_new(WF_U8, WF_SHAPE(3));
    for (int k = 0; k < 12; k++) {
        wf_graph *g = wf_graph_open();
        wf_node *x = wf_leaf(g, t, "t"), *y = wf_leaf(g, u, "u"), *z = wf_leaf(g, h, "h"), *s = wf_leaf(g, state3, "s"), *pos;
        wf_tensor *tp;
        pos = rn_indices(g, WF_SHAPE(1), (int[]){0}, &tp);
        if (k == 0) refused(wf_concat(g, (wf_node *[]){x, y}, 2, 0), "concat: input 1 [6, 4]");
        if (k == 1) refused(wf_concat(g, (wf_node *[]){x, x}, 2, 2), "axis 2");
        if (k == 2) refused(wf_concat(g, (wf_node *[]){x, z}, 2, 0), "bfloat16");
        if (k == 3) refused(wf_concat(g, NULL, 0, 0), "no inputs");
        if (k == 4) refused(wf_pad(g, x, 1, -3, -2, 0), "pad");
        if (k == 5) refused(wf_pad(g, x, 1, -8, 9, 0), "pad");
        if (k == 6) refused(wf_pad(g, x, 5, 1, 1, 0), "axis 5");
        if (k == 7) refused(wf_flip(g, x, -1), "flip");
        if (k == 8) refused(wf_cumsum(g, x, 2, false, false), "cumsum");
        if (k == 9) refused(wf_cumsum(g, wf_leaf(g, bytes, "b"), 0, false, false), "cast");
        if (k == 10) refused(wf_cache_write(g, s, wf_leaf(g, long3, "l"), pos, false), "[2, 5, 4]");
        if (k == 11) refused(wf_cache_write(g, wf_neg(g, s), s, pos, false), "must be a leaf");
        wf_graph_free(g);
        wf_tensor_free(tp);
    }
    wf_tensor *all[] = {t, u, h, state3, long3, bytes};
    for (int k = 0; k < 6; k++) wf_tensor_free(all[k]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(concat_matches),      cmocka_unit_test(concat_of_views), cmocka_unit_test(pad_matches),
        cmocka_unit_test(flip_matches),        cmocka_unit_test(cumsum_matches),  cmocka_unit_test(cache_writes),
        cmocka_unit_test(cache_ring_overflow), cmocka_unit_test(gradients),       cmocka_unit_test(shapes_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
