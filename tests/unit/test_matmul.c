/* test_matmul.c: the matrix product and linear: against loops in double on odd shapes, strides, broadcasts and dtypes;
 * derivatives; the same bits for any number of threads; every kernel family and instruction set of this machine. */
#include "check.h"
#include "gradcheck.h"
#include "runnode.h"

#include <sys/wait.h>

/* ---- reference ---- */

static double at(const wf_node *x, int64_t i) {
    return wf_tensor_get(x->base->leaf, x->offset + i);
}

/* Offset of item `index` of the result's leading axes in x, broadcast. */
static int64_t item_of(const wf_node *x, const wf_shape *s, int64_t index) {
    int64_t off = 0;
    for (int i = s->rank - 3; i >= 0; i--) {
        int xi = i - (s->rank - x->shape.rank);
        int64_t c = index % s->dim[i];
        index /= s->dim[i];
        if (xi >= 0 && x->shape.dim[xi] != 1) off += c * x->stride[xi];
    }
    return off;
}

/* Every element of y = a b + bias within rounding of the sum in double; a, b are views of leaves, before ta and tb. */
static void check_product(const wf_tensor *y, const wf_node *a, const wf_node *b, bool ta, bool tb, const wf_tensor *bias) {
    const wf_shape *s = &y->shape;
    int ar = a->shape.rank, br = b->shape.rank;
    int64_t m = s->dim[s->rank - 2], n = s->dim[s->rank - 1], k = a->shape.dim[ta ? ar - 2 : ar - 1];
    int64_t a_row = a->stride[ta ? ar - 1 : ar - 2], a_col = a->stride[ta ? ar - 2 : ar - 1];
    int64_t b_row = b->stride[tb ? br - 1 : br - 2], b_col = b->stride[tb ? br - 2 : br - 1];
    int64_t count = wf_tensor_count(y), step = count > 20000 ? 37 : 1;
    for (int64_t e = 0; e < count; e += step) {
        int64_t i = e / n % m, j = e % n, ai = item_of(a, s, e / (m * n)), bi = item_of(b, s, e / (m * n));
        double sum = bias ? wf_tensor_get(bias, j) : 0, size = fabs(sum);
        for (int64_t p = 0; p < k; p++) {
            double v = at(a, ai + i * a_row + p * a_col) * at(b, bi + p * b_row + j * b_col);
            sum += v;
            size += fabs(v);
        }
        double bound = y->dtype == WF_I32 ? 0 : y->dtype == WF_F64 ? 1e-14 * size : 1e-6 * size;
        if (y->dtype == WF_BF16) bound += fabs(sum) / 250;
        double got = wf_tensor_get(y, e);
        if (!(fabs(got - sum) <= bound))
            fail_msg("element %lld (%lld,%lld) of [%lld,%lld]: %.9g, must be %.9g", (long long)e, (long long)i, (long long)j,
                     (long long)m, (long long)n, got, sum);
    }
}

/* Runs y under 1, 2, 3 and 5 threads; all must give the same bytes. Returns the tensor. */
static wf_tensor *run_threads(wf_graph *g, wf_node *y) {
    static const int threads[] = {1, 2, 3, 5};
    wf_tensor *first = NULL;
    int before = wf_threads();
    for (int i = 0; i < 4; i++) {
        wf_set_threads(threads[i]);
        wf_tensor *t = rn_run(g, y);
        if (!t) fail_msg("run: %s", wf_message());
        if (first && memcmp(first->data, t->data, t->bytes)) fail_msg("%d threads give other bytes than 1", threads[i]);
        if (first)
            wf_tensor_free(t);
        else
            first = t;
    }
    wf_set_threads(before);
    return first;
}

typedef struct product_case {
    wf_shape a, b;
    bool ta, tb;
} product_case;

static void run_case(const product_case *c, wf_dtype ad, wf_dtype bd, wf_dtype out, uint64_t seed) {
    wf_graph *g = wf_graph_open();
    wf_tensor *at = rn_random(ad, c->a, seed, 200), *bt = rn_random(bd, c->b, seed + 1, 200);
    wf_node *a = wf_leaf(g, at, "a"), *b = wf_leaf(g, bt, "b"), *y = wf_matmul_as(g, a, b, c->ta, c->tb, out);
    if (!y) fail_msg("%s", wf_message());
    wf_tensor *t = run_threads(g, y);
    check_product(t, a, b, c->ta, c->tb, NULL);
    wf_tensor_free(t);
    wf_graph_free(g);
    wf_tensor_free(at);
    wf_tensor_free(bt);
}

static const product_case cases[] = {
    {WF_SHAPE(7, 5), WF_SHAPE(5, 3), false, false},
    {WF_SHAPE(5, 7), WF_SHAPE(5, 3), true, false},
    {WF_SHAPE(7, 5), WF_SHAPE(3, 5), false, true},
    {WF_SHAPE(5, 7), WF_SHAPE(3, 5), true, true},
    {WF_SHAPE(1, 1), WF_SHAPE(1, 1), false, false},
    {WF_SHAPE(9, 1), WF_SHAPE(1, 17), false, false},
    {WF_SHAPE(13, 0), WF_SHAPE(0, 11), false, false},
    {WF_SHAPE(0, 4), WF_SHAPE(4, 5), false, false},
    {WF_SHAPE(1, 129), WF_SHAPE(129, 203), false, false}, /* one row: swept */
    {WF_SHAPE(1, 129), WF_SHAPE(203, 129), false, true},  /* one row: dot products */
    {WF_SHAPE(2, 67), WF_SHAPE(67, 131), false, false},
    {WF_SHAPE(3, 67), WF_SHAPE(131, 67), false, true},
    {WF_SHAPE(4, 300), WF_SHAPE(70, 300), false, true},
    {WF_SHAPE(7, 300), WF_SHAPE(70, 300), false, true},
    {WF_SHAPE(77, 6), WF_SHAPE(150, 77), true, true},
    {WF_SHAPE(301, 65), WF_SHAPE(65, 1), false, false}, /* one column */
    {WF_SHAPE(65, 301), WF_SHAPE(65, 2), true, false},
    {WF_SHAPE(301, 65), WF_SHAPE(3, 65), false, true},
    {WF_SHAPE(67, 1300), WF_SHAPE(1300, 45), false, false}, /* several stages of k */
    {WF_SHAPE(1300, 67), WF_SHAPE(1300, 45), true, false},
    {WF_SHAPE(67, 530), WF_SHAPE(345, 530), false, true},
    {WF_SHAPE(33, 40), WF_SHAPE(40, 3200), false, false}, /* several stages of columns */
    {WF_SHAPE(1100, 600), WF_SHAPE(600, 21), false, false},
    {WF_SHAPE(6, 23, 19), WF_SHAPE(6, 19, 29), false, false}, /* a batch */
    {WF_SHAPE(2, 3, 23, 19), WF_SHAPE(3, 29, 19), false, true},
    {WF_SHAPE(4, 1, 23, 19), WF_SHAPE(1, 3, 19, 29), false, false},
    {WF_SHAPE(23, 19), WF_SHAPE(5, 19, 29), false, false},
    {WF_SHAPE(5, 1, 19), WF_SHAPE(5, 29, 19), false, true},
    {WF_SHAPE(4, 9, 33), WF_SHAPE(33, 30), false, false}, /* leading axes are rows */
    {WF_SHAPE(2, 2, 9, 33), WF_SHAPE(30, 33), false, true},
    {WF_SHAPE(3, 33, 9), WF_SHAPE(33, 30), true, false},
    {WF_SHAPE(0, 4, 3), WF_SHAPE(3, 2), false, false},
    {WF_SHAPE(24, 40, 70), WF_SHAPE(24, 70, 50), false, false}, /* many items */
    {WF_SHAPE(3, 250, 130), WF_SHAPE(3, 130, 210), false, false},
};
enum { CASES = sizeof cases / sizeof cases[0] };

static void test_float32(void **s) {
    for (int i = 0; i < CASES; i++) run_case(&cases[i], WF_F32, WF_F32, WF_F32, 10 + (uint64_t)i);
}

static void test_float64(void **s) {
    for (int i = 0; i < CASES; i++) run_case(&cases[i], WF_F64, WF_F64, WF_F64, 50 + (uint64_t)i);
}

static void test_bfloat16(void **s) {
    for (int i = 0; i < CASES; i++) {
        run_case(&cases[i], WF_BF16, WF_BF16, WF_BF16, 100 + (uint64_t)i);
        run_case(&cases[i], WF_BF16, WF_BF16, WF_F32, 150 + (uint64_t)i);
        run_case(&cases[i], WF_F32, WF_BF16, i % 2 ? WF_F32 : WF_BF16, 200 + (uint64_t)i);
    }
}

static void test_int8(void **s) {
    for (int i = 0; i < CASES; i++) {
        run_case(&cases[i], WF_I8, WF_I8, WF_I32, 250 + (uint64_t)i);
        run_case(&cases[i], WF_U8, WF_I8, WF_I32, 300 + (uint64_t)i);
    }
}

/* The largest sums there are: no intermediate may saturate or round. */
static void test_int8_extremes(void **s) {
    static const int64_t rows[] = {1, 40};
    for (int r = 0; r < 2; r++)
        for (int low = 0; low < 2; low++) {
            wf_graph *g = wf_graph_open();
            wf_tensor *at = wf_tensor_new(WF_U8, WF_SHAPE(rows[r], 5001)), *bt = wf_tensor_new(WF_I8, WF_SHAPE(33, 5001));
            memset(at->data, 255, at->bytes);
            memset(bt->data, low ? -128 : 127, bt->bytes);
            wf_tensor *t = rn_run(g, wf_matmul(g, wf_leaf(g, at, "a"), wf_leaf(g, bt, "b"), false, true));
            assert_non_null(t);
            for (int64_t i = 0; i < wf_tensor_count(t); i++)
                assert_int_equal(((int32_t *)t->data)[i], 5001 * 255 * (low ? -128 : 127));
            wf_tensor_free(t);
            wf_graph_free(g);
            wf_tensor_free(at);
            wf_tensor_free(bt);
        }
}

/* The same shapes through oneDNN, cut into blocks. */
static void test_onednn(void **s) {
    setenv("WEFT_MATMUL", "onednn", 1);
    for (int i = 0; i < CASES; i++) run_case(&cases[i], WF_F32, WF_F32, WF_F32, 350 + (uint64_t)i);
    static const product_case large[] = {{WF_SHAPE(530, 64), WF_SHAPE(64, 700), false, false},
                                         {WF_SHAPE(512, 64), WF_SHAPE(640, 64), false, true},
                                         {WF_SHAPE(300, 530), WF_SHAPE(300, 128), true, false}};
    for (int i = 0; i < 3; i++) run_case(&large[i], WF_F32, WF_F32, WF_F32, 400 + (uint64_t)i);
    unsetenv("WEFT_MATMUL");
}

/* ---- strided operands ---- */

static void check_views(wf_graph *g, wf_node *a, wf_node *b, bool ta, bool tb) {
    wf_node *y = wf_matmul(g, a, b, ta, tb);
    if (!y) fail_msg("%s", wf_message());
    assert_ptr_equal(y->in[0]->base, a->base); /* read where it lies: no copy */
    assert_ptr_equal(y->in[1]->base, b->base);
    wf_tensor *t = run_threads(g, y);
    check_product(t, a, b, ta, tb, NULL);
    wf_tensor_free(t);
}

static void views_of(wf_dtype d, int64_t L) {
    wf_graph *g = wf_graph_open();
    wf_tensor *qt = rn_random(d, WF_SHAPE(2, L, 3, 16), 1, 100), *wt = rn_random(d, WF_SHAPE(3, 90, 70), 2, 100);
    wf_node *q = wf_leaf(g, qt, "q"), *w = wf_leaf(g, wt, "w");
    static const int heads[] = {0, 2, 1, 3};
    wf_node *qh = wf_permute(g, q, heads); /* [B,H,L,d] */
    check_views(g, qh, qh, false, true);
    check_views(g, qh, qh, true, false);
    check_views(g, wf_slice(g, qh, 2, 1, L - 2), wf_slice(g, qh, 2, 2, L > 7 ? 5 : L - 2), false, true);
    wf_node *one = wf_slice(g, wf_slice(g, w, 0, 1, 1), 2, 3, 9); /* [1,90,9], the same for all rows of q */
    check_views(g, wf_slice(g, q, 3, 4, 9), one, false, true);
    check_views(g, wf_expand(g, wf_slice(g, q, 0, 1, 1), WF_SHAPE(4, L, 3, 16)),
                wf_slice(g, wf_slice(g, w, 0, 1, 1), 2, 11, 16), false, true);
    check_views(g, wf_transpose(g, w, 0, 1), wf_transpose(g, w, 0, 1), true, false);
    check_views(g, wf_transpose(g, w, 0, 2), wf_transpose(g, wf_slice(g, w, 1, 7, 20), 0, 2), false, true);
    wf_graph_free(g);
    wf_tensor_free(qt);
    wf_tensor_free(wt);
}

static void test_strided(void **s) {
    static const wf_dtype types[] = {WF_F32, WF_BF16, WF_F64};
    for (int i = 0; i < 3; i++) {
        views_of(types[i], 3);
        views_of(types[i], 40);
    }
}

/* ---- linear ---- */

static void linear_case(wf_dtype xd, wf_dtype wd, wf_dtype bd, wf_shape xs, int64_t O) {
    wf_graph *g = wf_graph_open();
    int64_t I = xs.dim[xs.rank - 1];
    wf_tensor *xt = rn_random(xd, xs, 3, 0), *wt = rn_random(wd, WF_SHAPE(O, I), 4, 0), *bt = rn_random(bd, WF_SHAPE(O), 5, 0);
    wf_node *x = wf_leaf(g, xt, "x"), *w = wf_leaf(g, wt, "w"), *y = wf_linear(g, x, w, wf_leaf(g, bt, "b"));
    if (!y) fail_msg("%s", wf_message());
    assert_int_equal(y->dtype, xd);
    assert_int_equal(y->shape.rank, xs.rank);
    wf_tensor *t = run_threads(g, y);
    if (xs.rank == 1) {
        x = wf_unsqueeze(g, x, 0);
        t->shape = WF_SHAPE(1, O);
    }
    check_product(t, x, w, false, true, bt);
    wf_tensor_free(t);
    wf_graph_free(g);
    wf_tensor_free(xt);
    wf_tensor_free(wt);
    wf_tensor_free(bt);
}

static void test_linear(void **s) {
    static const wf_dtype types[][3] = {{WF_F32, WF_F32, WF_F32},
                                        {WF_F32, WF_BF16, WF_F32},
                                        {WF_BF16, WF_BF16, WF_BF16},
                                        {WF_BF16, WF_F32, WF_F32},
                                        {WF_F64, WF_F64, WF_F64}};
    for (int i = 0; i < 5; i++) {
        const wf_dtype *t = types[i];
        linear_case(t[0], t[1], t[2], WF_SHAPE(70), 33);
        linear_case(t[0], t[1], t[2], WF_SHAPE(1, 70), 133);
        linear_case(t[0], t[1], t[2], WF_SHAPE(5, 70), 133);
        linear_case(t[0], t[1], t[2], WF_SHAPE(3, 7, 70), 33);
        linear_case(t[0], t[1], t[2], WF_SHAPE(2, 3, 7, 600), 35);
        linear_case(t[0], t[1], t[2], WF_SHAPE(90, 40), 1);
        linear_case(t[0], t[1], t[2], WF_SHAPE(9, 0), 5);
    }
}

/* ---- derivatives ---- */

static wf_node *build_plain(wf_graph *g, wf_node **x, void *ctx) {
    const product_case *c = ctx;
    return wf_matmul(g, x[0], x[1], c->ta, c->tb);
}
static wf_node *build_linear(wf_graph *g, wf_node **x, void *ctx) {
    return wf_linear(g, x[0], x[1], x[2]);
}
/* both operands are views, one of them the same tensor twice */
static wf_node *build_heads(wf_graph *g, wf_node **x, void *ctx) {
    static const int heads[] = {0, 2, 1, 3};
    wf_node *q = wf_permute(g, x[0], heads);
    return wf_matmul(g, wf_matmul(g, q, q, false, true), wf_permute(g, x[1], heads), false, false);
}

static void test_derivatives(void **s) {
    static product_case c[] = {
        {WF_SHAPE(3, 5), WF_SHAPE(5, 4), false, false},      {WF_SHAPE(5, 3), WF_SHAPE(4, 5), true, true},
        {WF_SHAPE(2, 3, 5), WF_SHAPE(2, 4, 5), false, true}, {WF_SHAPE(2, 3, 5), WF_SHAPE(4, 5), false, true},
        {WF_SHAPE(2, 5, 3), WF_SHAPE(5, 4), true, false},    {WF_SHAPE(2, 1, 3, 5), WF_SHAPE(3, 5, 2), false, false},
        {WF_SHAPE(3, 5), WF_SHAPE(2, 5, 4), false, false},   {WF_SHAPE(2, 2, 3, 5), WF_SHAPE(1, 1, 5, 4), false, false},
        {WF_SHAPE(3, 1), WF_SHAPE(1, 4), false, false}};
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++)
        assert_true(gc_check(&(gc_case){.name = "matmul",
                                        .build = build_plain,
                                        .ctx = &c[i],
                                        .n = 2,
                                        .shape = {c[i].a, c[i].b},
                                        .seed = i,
                                        .second = true}));
    assert_true(gc_check(&(gc_case){.name = "linear",
                                    .build = build_linear,
                                    .n = 3,
                                    .shape = {WF_SHAPE(2, 3, 5), WF_SHAPE(4, 5), WF_SHAPE(4)},
                                    .seed = 3,
                                    .second = true}));
    assert_true(gc_check(&(gc_case){.name = "heads",
                                    .build = build_heads,
                                    .n = 2,
                                    .shape = {WF_SHAPE(2, 3, 2, 4), WF_SHAPE(2, 3, 2, 5)},
                                    .seed = 4,
                                    .second = true}));
}

/* float32 and bfloat16 gradients of a linear layer against the float64 ones: dtype, layout, values. */
static void gradients_of(wf_dtype d, double tolerance) {
    wf_tensor *grad[2][3];
    for (int wide = 0; wide < 2; wide++) {
        wf_graph *g = wf_graph_open();
        wf_shape shapes[3] = {WF_SHAPE(3, 20, 30), WF_SHAPE(40, 30), WF_SHAPE(40)};
        wf_tensor *t[4];
        wf_node *x[3], *grads[3];
        for (int i = 0; i < 3; i++) {
            wf_tensor *narrow = rn_random(d, shapes[i], 20 + (uint64_t)i, 0);
            t[i] = wf_tensor_new(wide ? WF_F64 : d, shapes[i]);
            for (int64_t e = 0; e < wf_tensor_count(t[i]); e++) wf_tensor_set(t[i], e, wf_tensor_get(narrow, e));
            wf_tensor_free(narrow);
            x[i] = wf_leaf(g, t[i], "x");
        }
        wf_node *y = wf_sum_all(g, wf_square(g, wf_linear(g, x[0], x[1], x[2])));
        MUST(wf_grad(g, &y, NULL, 1, x, 3, grads));
        for (int i = 0; i < 3; i++) {
            assert_int_equal(grads[i]->dtype, x[i]->dtype);
            assert_true(wf_is_dense(grads[i]));
            grad[wide][i] = rn_run(g, grads[i]);
            assert_non_null(grad[wide][i]);
        }
        wf_graph_free(g);
        for (int i = 0; i < 3; i++) wf_tensor_free(t[i]);
    }
    for (int i = 0; i < 3; i++) {
        double diff = 0, size = 0;
        for (int64_t e = 0; e < wf_tensor_count(grad[0][i]); e++) {
            double a = wf_tensor_get(grad[0][i], e), b = wf_tensor_get(grad[1][i], e);
            diff += (a - b) * (a - b), size += b * b;
        }
        if (!(sqrt(diff / size) < tolerance))
            fail_msg("%s gradient %d: relative error %g", wf_dtype_name(d), i, sqrt(diff / size));
        wf_tensor_free(grad[0][i]);
        wf_tensor_free(grad[1][i]);
    }
}

static void test_narrow_gradients(void **s) {
    gradients_of(WF_F32, 1e-6);
    gradients_of(WF_BF16, 1e-2);
}

/* ---- cost, errors ---- */

static void test_cost(void **s) {
    wf_graph *g = wf_graph_open();
    wf_tensor *xt = wf_tensor_new(WF_F32, WF_SHAPE(2, 3, 7)), *wt = wf_tensor_new(WF_F32, WF_SHAPE(5, 7)),
              *bt = wf_tensor_new(WF_F32, WF_SHAPE(5));
    wf_node *y = wf_linear(g, wf_leaf(g, xt, "x"), wf_leaf(g, wt, "w"), wf_leaf(g, bt, "b"));
    wf_plan *p = wf_plan_new(g, &y, 1, NULL, 0, NULL);
    assert_non_null(p);
    wf_plan_info info;
    wf_plan_describe(p, &info);
    assert_true(info.flops == 2.0 * 6 * 5 * 7 + 6 * 5);
    assert_true(info.bytes == 4.0 * (6 * 7 + 5 * 7 + 5 + 6 * 5));
    wf_plan_free(p);
    wf_graph_free(g);
    wf_tensor_free(xt);
    wf_tensor_free(wt);
    wf_tensor_free(bt);
}

static void must_refuse(wf_dtype ad, wf_shape a, wf_dtype bd, wf_shape b, const char *part, bool linear) {
    wf_graph *g = wf_graph_open();
    wf_tensor *at = wf_tensor_new(ad, a), *bt = wf_tensor_new(bd, b);
    wf_node *x = wf_leaf(g, at, "a"), *w = wf_leaf(g, bt, "b");
    assert_null(linear ? wf_linear(g, x, w, NULL) : wf_matmul(g, x, w, false, false));
    assert_int_equal(wf_graph_status(g), WF_EINVAL);
    if (!strstr(wf_graph_message(g), part)) fail_msg("'%s' lacks '%s'", wf_graph_message(g), part);
    wf_graph_free(g);
    wf_tensor_free(at);
    wf_tensor_free(bt);
}

static void test_errors(void **s) {
    must_refuse(WF_F32, WF_SHAPE(3, 4), WF_F32, WF_SHAPE(5, 6), "matmul: [3, 4] x [5, 6]", false);
    must_refuse(WF_F32, WF_SHAPE(4), WF_F32, WF_SHAPE(4, 6), "at least 2 axes", false);
    must_refuse(WF_F32, WF_SHAPE(2, 3, 4), WF_F32, WF_SHAPE(3, 4, 6), "leading axes", false);
    must_refuse(WF_I32, WF_SHAPE(3, 4), WF_F32, WF_SHAPE(4, 6), "int32 x float32", false);
    must_refuse(WF_I8, WF_SHAPE(3, 4), WF_U8, WF_SHAPE(4, 6), "int8 x uint8", false);
    must_refuse(WF_F32, WF_SHAPE(3, 4), WF_F32, WF_SHAPE(6, 5), "linear: x [3, 4] and weight [6, 5]", true);
    must_refuse(WF_I8, WF_SHAPE(3, 4), WF_I8, WF_SHAPE(6, 4), "floating", true);
}

/* Everything again with the narrower instruction sets of this machine. */
static void test_instruction_sets(void **s) {
    if (getenv("WEFT_ISA")) skip();
    static const char *const levels[] = {"generic", "avx2", "avx512"};
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0) skip();
    self[n] = 0;
    for (int i = 0; i < 3; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            setenv("WEFT_ISA", levels[i], 1);
            execl(self, self, (char *)NULL);
            _exit(127);
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFEXITED(status) || WEXITSTATUS(status)) fail_msg("the tests fail with WEFT_ISA=%s", levels[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_float32),
        cmocka_unit_test(test_float64),
        cmocka_unit_test(test_bfloat16),
        cmocka_unit_test(test_int8),
        cmocka_unit_test(test_int8_extremes),
        cmocka_unit_test(test_onednn),
        cmocka_unit_test(test_strided),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_derivatives),
        cmocka_unit_test(test_narrow_gradients),
        cmocka_unit_test(test_cost),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_instruction_sets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
