/* test_conv.c: convolution, pooling and Fourier transform: against their definitions in double, derivatives of both orders,
 * float32 against float64, the same bits for any number of threads. */
#include "check.h"
#include "gradcheck.h"
#include "runnode.h"

/* ---- helpers ---- */

/* Under 1, 2 and 5 threads: the same bytes. */
static wf_tensor *run_threads(wf_graph *g, wf_node *y) {
    static const int threads[] = {1, 2, 5};
    wf_tensor *first = NULL;
    int before = wf_threads();
    if (!y) fail_msg("%s", wf_message());
    for (int i = 0; i < 3; i++) {
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

static void close_to(const char *what, const wf_tensor *got, const double *want, double tolerance) {
    double size = 1;
    for (int64_t i = 0; i < wf_tensor_count(got); i++) size = fmax(size, fabs(want[i]));
    for (int64_t i = 0; i < wf_tensor_count(got); i++) {
        double v = wf_tensor_get(got, i);
        if (!(fabs(v - want[i]) <= tolerance * size))
            fail_msg("%s: element %lld is %.9g, must be %.9g", what, (long long)i, v, want[i]);
    }
}

static wf_tensor *converted(const wf_tensor *t, wf_dtype d) {
    wf_tensor *r = wf_tensor_new(d, t->shape);
    for (int64_t i = 0; i < wf_tensor_count(t); i++) wf_tensor_set(r, i, wf_tensor_get(t, i));
    return r;
}

/* ---- convolution ---- */

typedef struct conv_case {
    int axes;
    wf_shape x, w;
    bool bias;
    wf_conv_spec spec;
} conv_case;

static const conv_case convs[] = {
    {2, WF_SHAPE(2, 3, 7, 6), WF_SHAPE(4, 3, 3, 2), true, {{0}, {0}, {0}, {0}, 0}},
    {2, WF_SHAPE(3, 3, 8, 8), WF_SHAPE(5, 3, 4, 4), true, {{4, 4}, {0}, {0}, {0}, 0}}, /* patches */
    {2, WF_SHAPE(2, 4, 7, 9), WF_SHAPE(6, 2, 3, 3), false, {{2, 1}, {1, 0}, {2, 1}, {1, 2}, 2}},
    {2, WF_SHAPE(1, 3, 5, 5), WF_SHAPE(3, 1, 3, 3), false, {{1, 1}, {1, 1}, {1, 1}, {1, 1}, 3}}, /* depthwise */
    {2, WF_SHAPE(2, 2, 1, 1), WF_SHAPE(3, 2, 1, 1), true, {{0}, {0}, {0}, {0}, 0}},
    {1, WF_SHAPE(2, 3, 11), WF_SHAPE(4, 3, 3), true, {{0}, {2, 0}, {0}, {0}, 0}}, /* causal */
    {1, WF_SHAPE(3, 4, 13), WF_SHAPE(4, 1, 5), false, {{2, 0}, {3, 0}, {1, 0}, {2, 0}, 4}},
    {1, WF_SHAPE(19, 2, 9), WF_SHAPE(3, 2, 2), true, {{0}, {0}, {0}, {0}, 0}}, /* more images than chunks */
};
enum { CONVS = sizeof convs / sizeof convs[0] };

static wf_node *build_conv(wf_graph *g, wf_node **x, void *ctx) {
    const conv_case *c = ctx;
    wf_node *bias = c->bias ? x[2] : NULL;
    return c->axes == 1 ? wf_conv1d(g, x[0], x[1], bias, &c->spec) : wf_conv2d(g, x[0], x[1], bias, &c->spec);
}

/* By the definition, in 2D form. */
static double *reference_conv(const conv_case *c, const wf_tensor *x, const wf_tensor *w, const wf_tensor *b,
                              const wf_shape *ys) {
    int o = c->axes == 1; /* index of the only axis of 1D: 1 */
    int64_t st[2] = {1, 1}, pad[2] = {0, 0}, dil[2] = {1, 1}, in[2] = {1, 1}, k[2] = {1, 1}, out[2] = {1, 1},
            groups = c->spec.groups ? c->spec.groups : 1;
    for (int i = 0; i < c->axes; i++) {
        st[i + o] = c->spec.stride[i] ? c->spec.stride[i] : 1;
        dil[i + o] = c->spec.dilation[i] ? c->spec.dilation[i] : 1;
        pad[i + o] = c->spec.pad_before[i];
        in[i + o] = x->shape.dim[2 + i], k[i + o] = w->shape.dim[2 + i], out[i + o] = ys->dim[2 + i];
    }
    int64_t C = x->shape.dim[1], O = w->shape.dim[0], cg = C / groups, og = O / groups;
    double *y = calloc((size_t)wf_shape_count(ys), sizeof *y);
    for (int64_t e = 0; e < wf_shape_count(ys); e++) {
        int64_t ox = e % out[1], oy = e / out[1] % out[0], oc = e / out[1] / out[0] % O, img = e / out[1] / out[0] / O;
        y[e] = b ? wf_tensor_get(b, oc) : 0;
        for (int64_t ci = 0; ci < cg; ci++)
            for (int64_t ky = 0; ky < k[0]; ky++)
                for (int64_t kx = 0; kx < k[1]; kx++) {
                    int64_t iy = oy * st[0] - pad[0] + ky * dil[0], ix = ox * st[1] - pad[1] + kx * dil[1];
                    if (iy < 0 || iy >= in[0] || ix < 0 || ix >= in[1]) continue;
                    y[e] += wf_tensor_get(x, ((img * C + oc / og * cg + ci) * in[0] + iy) * in[1] + ix) *
                            wf_tensor_get(w, ((oc * cg + ci) * k[0] + ky) * k[1] + kx);
                }
    }
    return y;
}

static void conv_forward(const conv_case *c, wf_dtype d, double tolerance) {
    wf_graph *g = wf_graph_open();
    wf_tensor *t[3] = {rn_random(d, c->x, 1, 0), rn_random(d, c->w, 2, 0), rn_random(d, WF_SHAPE(c->w.dim[0]), 3, 0)};
    wf_node *x[3] = {wf_leaf(g, t[0], "x"), wf_leaf(g, t[1], "w"), wf_leaf(g, t[2], "b")};
    wf_node *y = build_conv(g, x, (void *)c);
    wf_tensor *r = run_threads(g, y);
    double *want = reference_conv(c, t[0], t[1], c->bias ? t[2] : NULL, &y->shape);
    assert_int_equal(r->dtype, d);
    close_to("conv", r, want, tolerance);
    free(want);
    wf_tensor_free(r);
    wf_graph_free(g);
    for (int i = 0; i < 3; i++) wf_tensor_free(t[i]);
}

static void test_conv(void **s) {
    for (int i = 0; i < CONVS; i++) {
        conv_forward(&convs[i], WF_F64, 1e-13);
        conv_forward(&convs[i], WF_F32, 1e-6);
        conv_forward(&convs[i], WF_BF16, 1e-2);
    }
}

static void test_conv_derivatives(void **s) {
    for (int i = 0; i < CONVS; i++) {
        const conv_case *c = &convs[i];
        assert_true(gc_check(&(gc_case){.name = "conv",
                                        .build = build_conv,
                                        .ctx = (void *)c,
                                        .n = c->bias ? 3 : 2,
                                        .shape = {c->x, c->w, WF_SHAPE(c->w.dim[0])},
                                        .seed = (uint64_t)i,
                                        .second = true}));
    }
}

/* All gradients, and the gradients of a product of gradients, of build(x..) in dtype d. */
static int all_gradients(wf_node *(*build)(wf_graph *, wf_node **, void *), void *ctx, wf_tensor *const *t, int n, wf_dtype d,
                         wf_tensor **out) {
    wf_graph *g = wf_graph_open();
    wf_tensor *in[3];
    wf_node *x[3], *first[3], *second[3], *sum = NULL;
    for (int i = 0; i < n; i++) {
        in[i] = converted(t[i], d);
        x[i] = wf_leaf(g, in[i], "x");
    }
    wf_node *y = build(g, x, ctx), *loss = wf_sum_all(g, wf_mul(g, y, wf_square(g, y)));
    if (wf_grad(g, &loss, NULL, 1, x, n, first) != WF_OK) fail_msg("%s", wf_message());
    for (int i = 0; i < n; i++) {
        wf_node *sq = wf_sum_all(g, wf_square(g, first[i]));
        sum = i ? wf_add(g, sum, sq) : sq;
    }
    if (wf_grad(g, &sum, NULL, 1, x, n, second) != WF_OK) fail_msg("%s", wf_message());
    for (int i = 0; i < n; i++) {
        out[i] = run_threads(g, first[i]);
        out[n + i] = run_threads(g, second[i]);
    }
    wf_graph_free(g);
    for (int i = 0; i < n; i++) wf_tensor_free(in[i]);
    return 2 * n;
}

/* The float32 kernels against the float64 ones, gradients of both orders. */
static void narrow_against_wide(const char *what, wf_node *(*build)(wf_graph *, wf_node **, void *), void *ctx, wf_tensor **t,
                                int n) {
    wf_tensor *narrow[6], *wide[6];
    int count = all_gradients(build, ctx, t, n, WF_F32, narrow);
    all_gradients(build, ctx, t, n, WF_F64, wide);
    for (int i = 0; i < count; i++) {
        close_to(what, narrow[i], wide[i]->data, 2e-5);
        wf_tensor_free(narrow[i]);
        wf_tensor_free(wide[i]);
    }
    for (int i = 0; i < n; i++) wf_tensor_free(t[i]);
}

static void test_conv_narrow(void **s) {
    for (int i = 0; i < CONVS; i++) {
        const conv_case *c = &convs[i];
        wf_tensor *t[3] = {rn_random(WF_F32, c->x, 1, 0), rn_random(WF_F32, c->w, 2, 0),
                           c->bias ? rn_random(WF_F32, WF_SHAPE(c->w.dim[0]), 3, 0) : NULL};
        narrow_against_wide("conv gradient", build_conv, (void *)c, t, c->bias ? 3 : 2);
    }
}

/* ---- pooling ---- */

typedef struct pool_case {
    wf_shape x;
    wf_pool_spec spec;
} pool_case;

static const pool_case pools[] = {
    {WF_SHAPE(2, 3, 7, 6), {2, false, false, {3, 3}, {1, 1}, {1, 1}}},
    {WF_SHAPE(2, 3, 7, 6), {2, false, true, {3, 2}, {2, 1}, {1, 0}}},
    {WF_SHAPE(2, 3, 7, 6), {2, true, false, {3, 3}, {2, 2}, {1, 1}}},
    {WF_SHAPE(2, 8, 8), {2, true, false, {2, 2}, {2, 2}, {0, 0}}},
    {WF_SHAPE(2, 2, 11), {1, false, false, {3}, {2}, {1}}},
    {WF_SHAPE(2, 2, 11), {1, true, false, {4}, {3}, {2}}},
    {WF_SHAPE(1, 1, 300), {1, false, false, {5}, {1}, {2}}},
    {WF_SHAPE(3, 5), {1, true, false, {5}, {1}, {0}}},
};
enum { POOLS = sizeof pools / sizeof pools[0] };

static wf_node *build_pool(wf_graph *g, wf_node **x, void *ctx) {
    return wf_pool(g, x[0], &((const pool_case *)ctx)->spec);
}

static double *reference_pool(const pool_case *c, const wf_tensor *x, const wf_shape *ys) {
    int o = 2 - c->spec.axes, r = ys->rank;
    int64_t in[2] = {1, 1}, out[2] = {1, 1}, k[2] = {1, 1}, st[2] = {1, 1}, pad[2] = {0, 0};
    for (int i = 0; i < c->spec.axes; i++) {
        in[i + o] = x->shape.dim[r - c->spec.axes + i], out[i + o] = ys->dim[r - c->spec.axes + i];
        k[i + o] = c->spec.size[i], st[i + o] = c->spec.stride[i], pad[i + o] = c->spec.pad[i];
    }
    double *y = calloc((size_t)wf_shape_count(ys), sizeof *y);
    for (int64_t e = 0; e < wf_shape_count(ys); e++) {
        int64_t ox = e % out[1], oy = e / out[1] % out[0], plane = e / out[1] / out[0], inside = 0;
        double sum = 0, max = -INFINITY;
        for (int64_t ky = 0; ky < k[0]; ky++)
            for (int64_t kx = 0; kx < k[1]; kx++) {
                int64_t iy = oy * st[0] - pad[0] + ky, ix = ox * st[1] - pad[1] + kx;
                if (iy < 0 || iy >= in[0] || ix < 0 || ix >= in[1]) continue;
                double v = wf_tensor_get(x, (plane * in[0] + iy) * in[1] + ix);
                sum += v, max = fmax(max, v), inside++;
            }
        y[e] = c->spec.max ? max : sum / (double)(c->spec.count_pad ? k[0] * k[1] : inside);
    }
    return y;
}

static void test_pool(void **s) {
    for (int i = 0; i < POOLS; i++)
        for (int d = 0; d < 3; d++) {
            static const wf_dtype types[] = {WF_F32, WF_F64, WF_BF16};
            static const double tolerance[] = {1e-6, 1e-14, 1e-2};
            wf_graph *g = wf_graph_open();
            wf_tensor *t = rn_random(types[d], pools[i].x, (uint64_t)i, 0);
            wf_node *x = wf_leaf(g, t, "x"), *y = build_pool(g, &x, (void *)&pools[i]);
            wf_tensor *r = run_threads(g, y);
            double *want = reference_pool(&pools[i], t, &y->shape);
            close_to("pool", r, want, tolerance[d]);
            free(want);
            wf_tensor_free(r);
            wf_graph_free(g);
            wf_tensor_free(t);
        }
}

static void test_pool_derivatives(void **s) {
    for (int i = 0; i < POOLS; i++) {
        assert_true(gc_check(&(gc_case){.name = "pool",
                                        .build = build_pool,
                                        .ctx = (void *)&pools[i],
                                        .n = 1,
                                        .shape = {pools[i].x},
                                        .seed = 20 + (uint64_t)i,
                                        .second = true}));
        wf_tensor *t[1] = {rn_random(WF_F32, pools[i].x, 30 + (uint64_t)i, 0)};
        narrow_against_wide("pool gradient", build_pool, (void *)&pools[i], t, 1);
    }
}

/* Equal maxima: the whole gradient goes to the first. A NaN is the maximum. */
static void test_pool_ties(void **s) {
    wf_graph *g = wf_graph_open();
    wf_tensor *t = wf_tensor_new(WF_F32, WF_SHAPE(1, 6));
    const float v[6] = {1, 2, 2, 2, NAN, 0};
    memcpy(t->data, v, sizeof v);
    wf_pool_spec spec = {1, true, false, {3}, {3}, {0}};
    wf_node *x = wf_leaf(g, t, "x"), *y = wf_pool(g, x, &spec), *gx, *sum = wf_sum_all(g, y);
    MUST(wf_grad(g, &sum, NULL, 1, &x, 1, &gx));
    wf_tensor *a = rn_run(g, y), *b = rn_run(g, gx);
    static const float want[6] = {0, 1, 0, 0, 1, 0};
    assert_true(((float *)a->data)[0] == 2 && isnan(((float *)a->data)[1]));
    assert_memory_equal(b->data, want, sizeof want);
    wf_tensor_free(a);
    wf_tensor_free(b);
    wf_graph_free(g);
    wf_tensor_free(t);
}

/* ---- Fourier transform ---- */

typedef struct fft_case {
    wf_shape x;
    int64_t n;
    bool inverse;
} fft_case;

static const fft_case ffts[] = {
    {WF_SHAPE(3, 8), 8, false},      {WF_SHAPE(2, 3, 7), 7, false},     {WF_SHAPE(5), 9, false},
    {WF_SHAPE(2, 11), 6, false},     {WF_SHAPE(4, 1), 1, false},        {WF_SHAPE(3, 5, 2), 8, true},
    {WF_SHAPE(2, 3, 4, 2), 7, true}, {WF_SHAPE(3, 2), 9, true},         {WF_SHAPE(2, 6, 2), 5, true},
    {WF_SHAPE(1, 1, 2), 1, true},    {WF_SHAPE(40, 1000), 1000, false}, {WF_SHAPE(40, 257, 2), 512, true},
};
enum { FFTS = sizeof ffts / sizeof ffts[0], SMALL_FFTS = 10 };

static wf_node *build_fft(wf_graph *g, wf_node **x, void *ctx) {
    const fft_case *c = ctx;
    return c->inverse ? wf_irfft(g, x[0], c->n) : wf_rfft(g, x[0], c->n);
}

static double *reference_rfft(const fft_case *c, const wf_tensor *x) {
    int64_t L = x->shape.dim[x->shape.rank - 1], rows = wf_tensor_count(x) / L, m = c->n / 2 + 1;
    double *y = calloc((size_t)(rows * m * 2), sizeof *y);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < m; k++)
            for (int64_t j = 0; j < L && j < c->n; j++) {
                double a = 2 * acos(-1) * (double)(j * k % c->n) / (double)c->n, v = wf_tensor_get(x, r * L + j);
                y[(r * m + k) * 2] += v * cos(a);
                y[(r * m + k) * 2 + 1] -= v * sin(a);
            }
    return y;
}

/* The whole spectrum is the half and its mirror image; missing bins are zero. */
static double *reference_irfft(const fft_case *c, const wf_tensor *y) {
    int64_t m = y->shape.dim[y->shape.rank - 2], rows = wf_tensor_count(y) / m / 2, n = c->n;
    double *x = calloc((size_t)(rows * n), sizeof *x);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < n; j++)
            for (int64_t k = 0; k < n; k++) {
                int64_t bin = k <= n / 2 ? k : n - k;
                if (bin >= m) continue;
                double a = 2 * acos(-1) * (double)(j * k % n) / (double)n, re = wf_tensor_get(y, (r * m + bin) * 2);
                double im = wf_tensor_get(y, (r * m + bin) * 2 + 1) * (k <= n / 2 ? 1 : -1);
                if (bin == 0 || 2 * bin == n) im = 0;
                x[r * n + j] += (re * cos(a) - im * sin(a)) / (double)n;
            }
    return x;
}

static void test_fft(void **s) {
    for (int i = 0; i < FFTS; i++)
        for (int d = 0; d < 2; d++) {
            wf_graph *g = wf_graph_open();
            wf_tensor *t = rn_random(d ? WF_F64 : WF_F32, ffts[i].x, (uint64_t)i, 0);
            wf_node *x = wf_leaf(g, t, "x"), *y = build_fft(g, &x, (void *)&ffts[i]);
            wf_tensor *r = run_threads(g, y);
            double *want = ffts[i].inverse ? reference_irfft(&ffts[i], t) : reference_rfft(&ffts[i], t);
            close_to("fft", r, want, d ? 1e-13 : 2e-6);
            free(want);
            wf_tensor_free(r);
            wf_graph_free(g);
            wf_tensor_free(t);
        }
}

static void test_fft_derivatives(void **s) {
    for (int i = 0; i < SMALL_FFTS; i++) {
        assert_true(gc_check(&(gc_case){.name = "fft",
                                        .build = build_fft,
                                        .ctx = (void *)&ffts[i],
                                        .n = 1,
                                        .shape = {ffts[i].x},
                                        .seed = 40 + (uint64_t)i,
                                        .second = true}));
        wf_tensor *t[1] = {rn_random(WF_F32, ffts[i].x, 50 + (uint64_t)i, 0)};
        narrow_against_wide("fft gradient", build_fft, (void *)&ffts[i], t, 1);
    }
}

static void test_fft_round_trip(void **s) {
    for (int64_t n = 1; n < 40; n += 3) {
        wf_graph *g = wf_graph_open();
        wf_tensor *t = rn_random(WF_F32, WF_SHAPE(3, n), (uint64_t)n, 0);
        wf_tensor *r = rn_run(g, wf_irfft(g, wf_rfft(g, wf_leaf(g, t, "x"), n), n));
        assert_non_null(r);
        assert_true(rn_error(r, t) < 1e-6);
        wf_tensor_free(r);
        wf_graph_free(g);
        wf_tensor_free(t);
    }
}

/* ---- cost, errors, empty batches ---- */

static void test_cost(void **s) {
    wf_graph *g = wf_graph_open();
    wf_tensor *xt = wf_tensor_new(WF_F32, WF_SHAPE(2, 4, 7, 9)), *wt = wf_tensor_new(WF_F32, WF_SHAPE(6, 2, 3, 3));
    wf_conv_spec spec = {.groups = 2};
    wf_node *x = wf_leaf(g, xt, "x"), *w = wf_leaf(g, wt, "w"), *y = wf_conv2d(g, x, w, NULL, &spec);
    wf_plan *p = wf_plan_new(g, &y, 1, NULL, 0, NULL);
    assert_non_null(p);
    wf_plan_info info;
    wf_plan_describe(p, &info);
    assert_true(info.flops == 2.0 * (2 * 6 * 5 * 7) * (2 * 9));
    wf_plan_free(p);
    wf_graph_free(g);
    wf_tensor_free(xt);
    wf_tensor_free(wt);
}

static void must_refuse(wf_node *(*build)(wf_graph *, wf_node **, void *), void *ctx, wf_shape a, wf_shape b,
                        const char *part) {
    wf_graph *g = wf_graph_open();
    wf_tensor *at = wf_tensor_new(WF_F32, a), *bt = wf_tensor_new(WF_F32, b);
    wf_node *x[3] = {wf_leaf(g, at, "a"), wf_leaf(g, bt, "b"), NULL};
    assert_null(build(g, x, ctx));
    assert_int_equal(wf_graph_status(g), WF_EINVAL);
    if (!strstr(wf_graph_message(g), part)) fail_msg("'%s' lacks '%s'", wf_graph_message(g), part);
    wf_graph_free(g);
    wf_tensor_free(at);
    wf_tensor_free(bt);
}

static void test_errors(void **s) {
    conv_case plain = {.axes = 2}, backwards = {.axes = 2, .spec = {.stride = {-1, 1}}},
              groups = {.axes = 2, .spec = {.groups = 2}};
    must_refuse(build_conv, &plain, WF_SHAPE(1, 3, 5, 5), WF_SHAPE(4, 2, 3, 3), "conv: [1, 3, 5, 5] and [4, 2, 3, 3]");
    must_refuse(build_conv, &plain, WF_SHAPE(1, 3, 5, 5), WF_SHAPE(4, 3, 7, 3), "larger than the padded input");
    must_refuse(build_conv, &plain, WF_SHAPE(3, 5, 5), WF_SHAPE(4, 3, 7), "must have 4 axes");
    must_refuse(build_conv, &backwards, WF_SHAPE(1, 3, 5, 5), WF_SHAPE(4, 3, 3, 3), "must be positive");
    must_refuse(build_conv, &groups, WF_SHAPE(1, 4, 5, 5), WF_SHAPE(3, 2, 3, 3), "groups must divide");
    pool_case wide = {.spec = {1, true, false, {9}, {1}, {0}}}, padded = {.spec = {1, true, false, {3}, {1}, {3}}},
              none = {.spec = {.axes = 3}};
    must_refuse(build_pool, &wide, WF_SHAPE(1, 5), WF_SHAPE(1), "window of 9");
    must_refuse(build_pool, &padded, WF_SHAPE(1, 5), WF_SHAPE(1), "smaller than the window");
    must_refuse(build_pool, &none, WF_SHAPE(1, 5), WF_SHAPE(1), "axes must be 1 or 2");
    fft_case zero = {.n = 0}, real = {.n = 4, .inverse = true};
    must_refuse(build_fft, &zero, WF_SHAPE(1, 5), WF_SHAPE(1), "rfft: float32 [1, 5] to 0 points");
    must_refuse(build_fft, &real, WF_SHAPE(2, 5), WF_SHAPE(1), "[.., bins, 2]");
}

static void test_empty(void **s) {
    wf_graph *g = wf_graph_open();
    wf_tensor *xt = wf_tensor_new(WF_F32, WF_SHAPE(0, 3, 5)), *wt = rn_random(WF_F32, WF_SHAPE(2, 3, 3), 1, 0);
    wf_node *x[2] = {wf_leaf(g, xt, "x"), wf_leaf(g, wt, "w")}, *y = wf_conv1d(g, x[0], x[1], NULL, NULL),
            *sum = wf_sum_all(g, y), *grads[2];
    MUST(wf_grad(g, &sum, NULL, 1, x, 2, grads));
    wf_tensor *gw = rn_run(g, grads[1]);
    if (!gw) fail_msg("%s", wf_message());
    for (int64_t i = 0; i < wf_tensor_count(gw); i++) assert_true(wf_tensor_get(gw, i) == 0);
    wf_tensor_free(gw);
    wf_graph_free(g);
    wf_tensor_free(xt);
    wf_tensor_free(wt);
}

/* ---- depthwise, channels last ---- */

static wf_node *build_depthwise(wf_graph *g, wf_node **x, void *ctx) {
    return wf_depthwise_conv(g, x[0], x[1]);
}

/* The same through conv2d: channels first, the kernel of a group repeated. */
static wf_node *build_depthwise_plain(wf_graph *g, wf_node **x, void *ctx) {
    const int64_t *d = x[0]->shape.dim, *k = x[1]->shape.dim, heads = d[3] / k[2];
    wf_node *w = wf_reshape(g, wf_permute(g, x[1], (const int[]){2, 0, 1}), WF_SHAPE(1, k[2], 1, k[0], k[1]));
    w = wf_reshape(g, wf_expand(g, w, WF_SHAPE(heads, k[2], 1, k[0], k[1])), WF_SHAPE(d[3], 1, k[0], k[1]));
    wf_conv_spec s = {.pad_before = {k[0] / 2, k[1] / 2}, .pad_after = {k[0] / 2, k[1] / 2}, .groups = d[3]};
    return wf_permute(g, wf_conv2d(g, wf_permute(g, x[0], (const int[]){0, 3, 1, 2}), w, NULL, &s), (const int[]){0, 2, 3, 1});
}

static void test_depthwise(void **state) {
    static const int64_t all[][6] = {
        {3, 4, 4, 2, 3, 3}, {5, 11, 6, 3, 5, 5}, {2, 3, 34, 17, 5, 3}, {1, 9, 20, 20, 1, 7}, {4, 20, 32, 16, 3, 5}};
    for (int i = 0; i < 5; i++) {
        const int64_t *a = all[i];
        wf_shape xs = WF_SHAPE(2, a[0], a[1], a[2]), ws = WF_SHAPE(a[4], a[5], a[3]);
        gc_case c = {.name = "depthwise", .build = build_depthwise, .n = 2, .shape = {xs, ws}, .seed = 3, .second = i < 4};
        assert_true(gc_check(&c));
        wf_graph *g = wf_graph_open();
        wf_tensor *t[2] = {wf_tensor_new(WF_F32, xs), wf_tensor_new(WF_F32, ws)}, *u = wf_tensor_new(WF_F32, xs);
        for (int k = 0; k < 2; k++) gc_random(t[k], 5, (uint64_t)k, 0, 0);
        gc_random(u, 5, 9, 0, 0);
        wf_node *x[2] = {wf_leaf(g, t[0], "x"), wf_leaf(g, t[1], "w")}, *seed = wf_leaf(g, u, "u"), *out[6];
        for (int k = 0; k < 2; k++) {
            out[3 * k] = k ? build_depthwise_plain(g, x, NULL) : build_depthwise(g, x, NULL);
            assert_int_equal(wf_grad(g, &out[3 * k], &seed, 1, x, 2, out + 3 * k + 1), WF_OK);
        }
        wf_plan *p = wf_plan_new(g, out, 6, NULL, 0, NULL);
        assert_int_equal(wf_plan_run(p), WF_OK);
        for (int k = 0; k < 3; k++)
            for (int64_t j = 0; j < wf_shape_count(&out[k]->shape); j++)
                assert_true(fabs(((const float *)wf_plan_out(p, k))[j] - ((const float *)wf_plan_out(p, k + 3))[j]) < 1e-4);
        wf_plan_free(p);
        wf_graph_free(g);
        wf_tensor_free(t[0]);
        wf_tensor_free(t[1]);
        wf_tensor_free(u);
    }
    must_refuse(build_depthwise, NULL, WF_SHAPE(1, 4, 4, 6), WF_SHAPE(3, 3, 4), "a divisor of C");
    must_refuse(build_depthwise, NULL, WF_SHAPE(1, 4, 4, 6), WF_SHAPE(2, 3, 6), "odd ky");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv),      cmocka_unit_test(test_conv_derivatives), cmocka_unit_test(test_conv_narrow),
        cmocka_unit_test(test_pool),      cmocka_unit_test(test_pool_derivatives), cmocka_unit_test(test_pool_ties),
        cmocka_unit_test(test_fft),       cmocka_unit_test(test_fft_derivatives),  cmocka_unit_test(test_fft_round_trip),
        cmocka_unit_test(test_cost),      cmocka_unit_test(test_errors),           cmocka_unit_test(test_empty),
        cmocka_unit_test(test_depthwise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
