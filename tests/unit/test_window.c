/* test_window.c: sums and means over windows of tokens (op/window.c): against plain loops, derivatives, threads, refusals. */
#include "check.h"
#include "gradcheck.h"
#include "runnode.h"

#include <math.h>

static double by_hand(const wf_tensor *x, const wf_window_spec *s, int64_t b, int64_t r, int64_t c, int64_t j) {
    int64_t R = x->shape.dim[1], C = x->shape.dim[2], D = x->shape.dim[3], n = 0;
    double sum = 0;
    for (int64_t i = r - s->up; i <= r + s->down; i++)
        for (int64_t k = c - s->left; k <= c + s->right; k++)
            if (i >= 0 && i < R && k >= 0 && k < C) sum += wf_tensor_get(x, ((b * R + i) * C + k) * D + j), n++;
    double y = s->mean ? sum / (double)n : sum;
    return s->minus_self ? y - wf_tensor_get(x, ((b * R + r) * C + c) * D + j) : y;
}

static wf_tensor *windowed(wf_tensor *x, const wf_window_spec *s) {
    wf_graph *g = wf_graph_open();
    wf_tensor *y = rn_run(g, wf_window(g, wf_leaf(g, x, "x"), s));
    if (!y) fail_msg("window: %s", wf_message());
    wf_graph_free(g);
    return y;
}

static const wf_window_spec windows[] = {
    {1, 1, 1, 1, true, true},  {1, 1, 1, 1, true, false},  {2, 2, 2, 2, true, true},  {0, 0, 3, 0, true, true},
    {0, 0, 0, 0, true, false}, {3, 0, 1, 2, false, false}, {0, 2, 0, 1, true, false}, {9, 9, 9, 9, true, false},
    {1, 1, 1, 1, false, true}, {0, 1, 70, 3, true, true},
};
enum { N_WINDOWS = sizeof windows / sizeof *windows };

static void windows_are_what_they_say(void **state) {
    const wf_shape shapes[] = {WF_SHAPE(2, 5, 7, 3), WF_SHAPE(1, 1, 150, 65), WF_SHAPE(2, 3, 1, 130), WF_SHAPE(1, 4, 66, 64)};
    for (int k = 0; k < 4; k++) {
        wf_tensor *x = rn_random(WF_F32, shapes[k], 7, 0);
        for (int i = 0; i < N_WINDOWS; i++) {
            wf_tensor *y = windowed(x, &windows[i]);
            const int64_t *d = x->shape.dim;
            for (int64_t e = 0; e < wf_tensor_count(x); e++) {
                double want =
                    by_hand(x, &windows[i], e / (d[1] * d[2] * d[3]), e / (d[2] * d[3]) % d[1], e / d[3] % d[2], e % d[3]);
                if (fabs(wf_tensor_get(y, e) - want) > 1e-5 * fmax(1, fabs(want)))
                    fail_msg("shape %d window %d entry %lld: %g, not %g", k, i, (long long)e, wf_tensor_get(y, e), want);
            }
            wf_tensor_free(y);
        }
        wf_tensor_free(x);
    }
}

static wf_node *build_window(wf_graph *g, wf_node **x, void *ctx) {
    return wf_window(g, x[0], ctx);
}

static void windows_have_their_derivatives(void **state) {
    for (int i = 0; i < N_WINDOWS; i++) {
        wf_window_spec s = windows[i];
        gc_case c = {.name = "window",
                     .build = build_window,
                     .ctx = &s,
                     .n = 1,
                     .shape = {WF_SHAPE(2, 3, 4, 5)},
                     .seed = 3,
                     .second = true};
        assert_true(gc_check(&c));
    }
}

static void windows_do_not_depend_on_threads(void **state) {
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 20, 70, 100), 5, 0);
    int before = wf_threads();
    wf_set_threads(1);
    wf_tensor *a = windowed(x, &windows[0]);
    wf_set_threads(3);
    wf_tensor *b = windowed(x, &windows[0]);
    wf_set_threads(before);
    assert_memory_equal(a->data, b->data, a->bytes);
    wf_tensor_free(a);
    wf_tensor_free(b);
    wf_tensor_free(x);
}

static void windows_refuse_what_they_cannot(void **state) {
    wf_graph *g = wf_graph_open();
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(1, 2, 2, 2), 1, 0), *flat = rn_random(WF_F32, WF_SHAPE(4, 2), 1, 0);
    assert_null(wf_window(g, wf_leaf(g, x, "x"), &(wf_window_spec){.left = 1000}));
    assert_non_null(strstr(wf_graph_message(g), "each must be 0 to 256"));
    wf_graph_free(g);
    g = wf_graph_open();
    assert_null(wf_window(g, wf_leaf(g, flat, "x"), &(wf_window_spec){.left = 1}));
    assert_non_null(strstr(wf_graph_message(g), "[B,R,C,D]"));
    wf_graph_free(g);
    wf_tensor_free(x);
    wf_tensor_free(flat);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_are_what_they_say),
        cmocka_unit_test(windows_have_their_derivatives),
        cmocka_unit_test(windows_do_not_depend_on_threads),
        cmocka_unit_test(windows_refuse_what_they_cannot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
