/* test_rows.c: row operators (pointwise, activations, reductions) and what runs them: derivatives of first and second order in
 * float64, fused against unfused, one against several threads, strided and narrow operands, accuracy against libm, random numbers. */
#include "check.h"
#include "gradcheck.h"

#include <float.h>

/* ---- derivatives ---- */

typedef wf_node *(*unary)(wf_graph *, wf_node *);
typedef wf_node *(*binary)(wf_graph *, wf_node *, wf_node *);
typedef struct one_op {
    const char *name;
    unary f;
    double lo, hi; /* where it is smooth; equal: everywhere */
} one_op;
typedef struct two_op {
    const char *name;
    binary f;
    double lo, hi;
} two_op;

static const one_op unaries[] = {{"neg", wf_neg, 0, 0},
                                 {"exp", wf_exp, 0, 0},
                                 {"expm1", wf_expm1, 0, 0},
                                 {"log", wf_log, 0.3, 3},
                                 {"log1p", wf_log1p, -0.5, 2},
                                 {"sqrt", wf_sqrt, 0.3, 3},
                                 {"rsqrt", wf_rsqrt, 0.3, 3},
                                 {"recip", wf_recip, 0.4, 2},
                                 {"square", wf_square, 0, 0},
                                 {"tanh", wf_tanh, 0, 0},
                                 {"sigmoid", wf_sigmoid, 0, 0},
                                 {"softplus", wf_softplus, 0, 0},
                                 {"erf", wf_erf, 0, 0},
                                 {"sin", wf_sin, 0, 0},
                                 {"cos", wf_cos, 0, 0},
                                 {"abs", wf_abs, 0.1, 2},
                                 {"abs below 0", wf_abs, -2, -0.1},
                                 {"relu", wf_relu, 0.1, 2},
                                 {"relu2", wf_relu2, 0.1, 2},
                                 {"gelu", wf_gelu, 0, 0},
                                 {"gelu_tanh", wf_gelu_tanh, 0, 0},
                                 {"silu", wf_silu, 0, 0},
                                 {"elu1 above", wf_elu1, 0.1, 2},
                                 {"elu1 below", wf_elu1, -2, -0.1},
                                 {"softmax", wf_softmax, 0, 0},
                                 {"log_softmax", wf_log_softmax, 0, 0}};

static const two_op binaries[] = {{"add", wf_add, 0, 0},   {"sub", wf_sub, 0, 0},       {"mul", wf_mul, 0, 0},
                                  {"div", wf_div, 0.4, 2}, {"max", wf_max, 0, 0},       {"min", wf_min, 0, 0},
                                  {"pow", wf_pow, 0.4, 2}, {"atan2", wf_atan2, 0.4, 2}, {"atan2 left", wf_atan2, -2, -0.4}};

static wf_node *apply_one(wf_graph *g, wf_node **x, void *ctx) {
    return ((const one_op *)ctx)->f(g, x[0]);
}
static wf_node *apply_two(wf_graph *g, wf_node **x, void *ctx) {
    return ((const two_op *)ctx)->f(g, x[0], x[1]);
}

static void test_unary(void **state) {
    for (size_t i = 0; i < sizeof unaries / sizeof *unaries; i++) {
        const one_op *o = &unaries[i];
        gc_case c = {.name = o->name,
                     .build = apply_one,
                     .ctx = (void *)o,
                     .n = 1,
                     .shape = {WF_SHAPE(3, 2, 7)},
                     .seed = 5 + i,
                     .second = true};
        c.lo[0] = o->lo, c.hi[0] = o->hi;
        assert_true(gc_check(&c));
    }
}

/* Every way of broadcasting: equal, a row for all, a number a row, an axis in the middle, one number, fewer axes. */
static void test_binary(void **state) {
    const wf_shape a = WF_SHAPE(3, 4, 5);
    const wf_shape with[] = {a, WF_SHAPE(5), WF_SHAPE(3, 4, 1), WF_SHAPE(3, 1, 5), WF_SHAPE(1, 4, 1), WF_SHAPE(1)};
    for (size_t i = 0; i < sizeof binaries / sizeof *binaries; i++)
        for (size_t k = 0; k < sizeof with / sizeof *with; k++)
            for (int swap = 0; swap < 2; swap++) {
                const two_op *o = &binaries[i];
                gc_case c = {
                    .name = o->name, .build = apply_two, .ctx = (void *)o, .n = 2, .seed = 50 + 10 * i + k, .second = true};
                c.shape[swap] = a, c.shape[!swap] = with[k];
                for (int j = 0; j < 2; j++) c.lo[j] = o->lo, c.hi[j] = o->hi;
                assert_true(gc_check(&c));
            }
}

static wf_node *constants(wf_graph *g, wf_node **x, void *ctx) {
    wf_node *y = wf_add_c(g, wf_mul_c(g, x[0], -1.5), 0.25);
    y = wf_add(g, y, wf_clamp(g, x[0], -0.7, 0.9));
    y = wf_add(g, y, wf_pow_c(g, wf_add_c(g, wf_square(g, x[0]), 0.5), 1.7));
    y = wf_mul(g, y, wf_max_c(g, x[0], 0.05));
    return wf_sub(g, y, wf_min_c(g, x[0], -0.05));
}

static wf_node *choose(wf_graph *g, wf_node **x, void *ctx) {
    wf_node *c = wf_lt(g, x[0], wf_mul_c(g, x[1], 0.5));
    return wf_where(g, c, wf_mul(g, x[0], x[2]), wf_sin(g, x[1]));
}

static void test_constants_and_choice(void **state) {
    assert_true(gc_check(
        &(gc_case){.name = "immediates", .build = constants, .n = 1, .shape = {WF_SHAPE(5, 9)}, .seed = 3, .second = true}));
    assert_true(gc_check(&(gc_case){.name = "where",
                                    .build = choose,
                                    .n = 3,
                                    .shape = {WF_SHAPE(2, 3, 5), WF_SHAPE(3, 1), WF_SHAPE(5)},
                                    .seed = 4,
                                    .second = true}));
}

typedef wf_node *(*reduction)(wf_graph *, wf_node *, unsigned, bool);
typedef struct reduce_case {
    reduction f;
    unsigned axes;
    bool keep, strided;
} reduce_case;

static wf_node *reduced(wf_graph *g, wf_node **x, void *ctx) {
    const reduce_case *r = ctx;
    static const int order[] = {2, 0, 3, 1};
    wf_node *y = r->strided ? wf_permute(g, x[0], order) : x[0];
    return r->f(g, wf_mul(g, y, wf_sin(g, y)), r->axes, r->keep);
}

static wf_node *logsumexp(wf_graph *g, wf_node **x, void *ctx) {
    return wf_logsumexp(g, x[0], true);
}

static void test_reductions(void **state) {
    static const reduction all[] = {wf_sum, wf_mean, wf_amax, wf_amin};
    for (int f = 0; f < 4; f++)
        for (unsigned axes = 1; axes < 16; axes++)
            for (int k = 0; k < 4; k++) {
                reduce_case r = {all[f], axes, k & 1, k & 2};
                gc_case c = {.name = "reduction",
                             .build = reduced,
                             .ctx = &r,
                             .n = 1,
                             .shape = {WF_SHAPE(3, 2, 4, 5)},
                             .seed = axes,
                             .second = f < 2};
                if (!gc_check(&c)) fail_msg("reduction %d, axes %u, keep %d, strided %d", f, axes, r.keep, r.strided);
            }
    assert_true(gc_check(
        &(gc_case){.name = "logsumexp", .build = logsumexp, .n = 1, .shape = {WF_SHAPE(4, 7)}, .seed = 8, .second = true}));
}

/* A mask [B,L] summed over L as [B,L,1,1]: the columns of its producer are rows to the sum. */
static wf_node *reshaped_sum(wf_graph *g, wf_node **x, void *ctx) {
    const unsigned *axes = ctx;
    wf_node *y = wf_mul(g, x[0], wf_sin(g, x[0])), *s = wf_sum(g, wf_reshape(g, y, WF_SHAPE(2, 11, 1, 1)), *axes, true);
    return wf_add(g, wf_max_c(g, s, 0), wf_reshape(g, y, WF_SHAPE(2, 11, 1, 1)));
}

static void test_reshaped_sums(void **state) {
    for (unsigned axes = 1; axes < 16; axes++)
        if (!gc_check(&(gc_case){
                .name = "reshaped", .build = reshaped_sum, .ctx = &axes, .n = 1, .shape = {WF_SHAPE(2, 11)}, .seed = axes}))
            fail_msg("axes %u", axes);
}

static wf_node *layer_norm(wf_graph *g, wf_node **x, void *ctx) {
    wf_node *c = wf_sub(g, x[0], wf_mean(g, x[0], 4, true));
    wf_node *v = wf_mean(g, wf_square(g, c), 4, true);
    return wf_add(g, wf_mul(g, wf_mul(g, c, wf_rsqrt(g, wf_add_c(g, v, 1e-5))), x[1]), x[2]);
}

static void test_composed(void **state) {
    for (int plain = 0; plain < 2; plain++)
        assert_true(gc_check(&(gc_case){.name = "layer norm",
                                        .build = layer_norm,
                                        .n = 3,
                                        .shape = {WF_SHAPE(2, 3, 11), WF_SHAPE(11), WF_SHAPE(11)},
                                        .seed = 9,
                                        .second = true,
                                        .tolerance = 1e-5,
                                        .no_fusion = plain}));
}

static wf_node *broadcast_sum(wf_graph *g, wf_node **x, void *ctx) {
    return wf_sum_to(g, wf_exp(g, x[0]), ctx);
}

static void test_sum_to(void **state) {
    wf_shape to[] = {WF_SHAPE(4, 1, 5), WF_SHAPE(3, 1), WF_SHAPE(1), WF_SHAPE(3, 5), WF_SHAPE(4, 3, 1)};
    for (size_t i = 0; i < sizeof to / sizeof *to; i++)
        assert_true(gc_check(&(gc_case){
            .name = "sum_to", .build = broadcast_sum, .ctx = &to[i], .n = 1, .shape = {WF_SHAPE(4, 3, 5)}, .seed = i}));
}

/* ---- float32: fused against unfused, threads, narrow types ---- */

typedef struct outputs {
    int n;
    float *data[4];
    int64_t count[4];
} outputs;

/* LayerNorm's backward pass, a softmax and sums over rows, at sizes with several blocks and segments. */
static outputs run_program(wf_dtype t, bool fused, int threads) {
    wf_graph *g = wf_graph_open();
    const wf_shape s = WF_SHAPE(7, 61, 96), row = WF_SHAPE(96);
    wf_tensor *xt[4] = {wf_tensor_new(t, s), wf_tensor_new(WF_F32, row), wf_tensor_new(WF_F32, row), wf_tensor_new(WF_F32, s)};
    wf_node *x[4], *grads[3];
    for (int i = 0; i < 4; i++) {
        gc_random(xt[i], 77, (uint64_t)i, 0, 0);
        x[i] = wf_leaf(g, xt[i], "x");
    }
    wf_node *y = layer_norm(g, x, NULL);
    y = wf_add(g, wf_gelu(g, y), wf_softmax(g, wf_mul_c(g, x[0], 2)));
    MUST(wf_grad(g, &y, &x[3], 1, x, 3, grads));
    wf_node *outs[4] = {wf_cast(g, y, WF_F32), wf_cast(g, grads[0], WF_F32), grads[1], grads[2]};
    wf_plan_options o = {.no_fusion = !fused};
    wf_plan *p = wf_plan_new(g, outs, 4, NULL, 0, &o);
    if (!p) fail_msg("%s", wf_message());
    int before = wf_threads();
    wf_set_threads(threads);
    MUST(wf_plan_run(p));
    wf_set_threads(before);
    outputs r = {.n = 4};
    for (int i = 0; i < 4; i++) {
        r.count[i] = wf_shape_count(&outs[i]->shape);
        r.data[i] = malloc((size_t)r.count[i] * sizeof(float));
        memcpy(r.data[i], wf_plan_out(p, i), (size_t)r.count[i] * sizeof(float));
        assert_true(isfinite(r.data[i][0]));
    }
    wf_plan_free(p);
    wf_graph_free(g);
    for (int i = 0; i < 4; i++) wf_tensor_free(xt[i]);
    return r;
}

static void compare(outputs a, outputs b, double tolerance) {
    for (int i = 0; i < a.n; i++) {
        double off = 0, size = 0;
        for (int64_t k = 0; k < a.count[i]; k++) off += pow(a.data[i][k] - b.data[i][k], 2), size += pow(b.data[i][k], 2);
        if (tolerance == 0) assert_memory_equal(a.data[i], b.data[i], (size_t)a.count[i] * sizeof(float));
        if (!(sqrt(off) <= tolerance * sqrt(size))) fail_msg("output %d is off by %g", i, sqrt(off / size));
        free(b.data[i]);
    }
}

static void test_fused_and_threads(void **state) {
    outputs base = run_program(WF_F32, true, 1);
    compare(base, run_program(WF_F32, true, 2), 0);
    compare(base, run_program(WF_F32, true, 5), 0);
    compare(base, run_program(WF_F32, false, 2), 2e-6);
    compare(base, run_program(WF_BF16, true, 2), 2e-2);
    for (int i = 0; i < base.n; i++) free(base.data[i]);
}

/* Integers are computed exactly, in float64. */
static void test_integers(void **state) {
    wf_graph *g = wf_graph_open();
    wf_tensor *t = wf_tensor_new(WF_I32, WF_SHAPE(2, 3));
    int32_t *v = t->data;
    for (int i = 0; i < 6; i++) v[i] = 16777217 + i;
    wf_node *x = wf_leaf(g, t, "x"), *y = wf_add(g, x, wf_index(g, WF_I32, WF_SHAPE(2, 3), 1));
    assert_int_equal(y->dtype, WF_I32);
    wf_plan *p = wf_plan_new(g, &y, 1, NULL, 0, NULL);
    MUST(wf_plan_run(p));
    for (int i = 0; i < 6; i++) assert_int_equal(((const int32_t *)wf_plan_out(p, 0))[i], 16777217 + i + i % 3);
    wf_plan_free(p);
    wf_graph_free(g);
    wf_tensor_free(t);
}

/* ---- accuracy against libm, in units of the last place of float32 ---- */

typedef struct accuracy {
    const char *name;
    unary f;
    double (*exact)(double);
    double lo, hi, ulp;
} accuracy;

static double exact_sigmoid(double x) {
    return 1 / (1 + exp(-x));
}
static double exact_softplus(double x) {
    return x > 30 ? x : log1p(exp(x));
}
static double exact_rsqrt(double x) {
    return 1 / sqrt(x);
}

static void test_accuracy(void **state) {
    static const accuracy all[] = {{"exp", wf_exp, exp, -87, 88, 3},
                                   {"log", wf_log, log, 1e-30, 1e30, 3},
                                   {"log near 1", wf_log, log, 0.5, 2, 3},
                                   {"tanh", wf_tanh, tanh, -12, 12, 4},
                                   {"tanh small", wf_tanh, tanh, -1e-3, 1e-3, 4},
                                   {"sigmoid", wf_sigmoid, exact_sigmoid, -80, 80, 4},
                                   {"softplus", wf_softplus, exact_softplus, -80, 80, 5},
                                   {"erf", wf_erf, erf, -4.5, 4.5, 4},
                                   {"erf small", wf_erf, erf, -1e-3, 1e-3, 4},
                                   {"sin", wf_sin, sin, -1e5, 1e5, 4},
                                   {"cos", wf_cos, cos, -1e5, 1e5, 4},
                                   {"expm1", wf_expm1, expm1, -20, 20, 4},
                                   {"expm1 small", wf_expm1, expm1, -1e-3, 1e-3, 4},
                                   {"log1p", wf_log1p, log1p, -0.9, 100, 4},
                                   {"log1p small", wf_log1p, log1p, -1e-4, 1e-4, 4},
                                   {"rsqrt", wf_rsqrt, exact_rsqrt, 1e-20, 1e20, 3}};
    enum { N = 20000 };
    wf_tensor *t = wf_tensor_new(WF_F32, WF_SHAPE(N));
    float *v = t->data;
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        const accuracy *a = &all[k];
        bool wide = a->lo > 0 && a->hi / a->lo > 1e6; /* then evenly by magnitude */
        for (int i = 0; i < N; i++) {
            double u = i / (double)(N - 1);
            v[i] = (float)(wide ? a->lo * pow(a->hi / a->lo, u) : a->lo + (a->hi - a->lo) * u);
        }
        wf_graph *g = wf_graph_open();
        wf_node *y = a->f(g, wf_leaf(g, t, "x"));
        wf_plan *p = wf_plan_new(g, &y, 1, NULL, 0, NULL);
        MUST(wf_plan_run(p));
        const float *got = wf_plan_out(p, 0);
        double worst = 0, where = 0;
        for (int i = 0; i < N; i++) {
            double want = a->exact(v[i]), unit = fmax(fabs(want) * FLT_EPSILON, FLT_MIN);
            bool angle = a->f == wf_sin || a->f == wf_cos; /* near a zero of a sine only the absolute error can be small */
            if (angle) unit = FLT_EPSILON;
            double off = fabs(got[i] - want) / unit;
            if (!(off <= worst)) worst = off, where = v[i];
        }
        print_message("  %-12s %.2f ulp at %g\n", a->name, worst, where);
        if (!(worst <= a->ulp)) fail_msg("%s: %.2f ulp at %.9g, allowed %.1f", a->name, worst, where, a->ulp);
        wf_plan_free(p);
        wf_graph_free(g);
    }
    wf_tensor_free(t);
}

static void test_extremes(void **state) {
    const float inf = INFINITY;
    const struct {
        unary f;
        float x, y;
    } all[] = {{wf_exp, -inf, 0},  {wf_exp, inf, inf}, {wf_exp, 1000, inf},       {wf_exp, -1000, 0},     {wf_log, 0, -inf},
               {wf_log, inf, inf}, {wf_tanh, inf, 1},  {wf_tanh, -1e30f, -1},     {wf_sigmoid, -inf, 0},  {wf_sigmoid, inf, 1},
               {wf_erf, inf, 1},   {wf_erf, -50, -1},  {wf_softplus, 1000, 1000}, {wf_softplus, -inf, 0}, {wf_sqrt, 0, 0},
               {wf_rsqrt, inf, 0}, {wf_gelu, -50, 0},  {wf_silu, -1000, 0}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        wf_graph *g = wf_graph_open();
        wf_tensor *t = wf_tensor_new(WF_F32, WF_SHAPE(3, 17));
        for (int k = 0; k < 51; k++) wf_tensor_set(t, k, all[i].x);
        wf_node *y = all[i].f(g, wf_leaf(g, t, "x"));
        wf_plan *p = wf_plan_new(g, &y, 1, NULL, 0, NULL);
        MUST(wf_plan_run(p));
        for (int k = 0; k < 51; k++) {
            float got = ((const float *)wf_plan_out(p, 0))[k];
            if (got != all[i].y) fail_msg("case %zu: f(%g) = %g, not %g", i, all[i].x, got, all[i].y);
        }
        wf_plan_free(p);
        wf_graph_free(g);
        wf_tensor_free(t);
    }
}

/* All round the circle, at every size, and where the quadrants meet. */
static void test_atan2(void **state) {
    enum { N = 40000, EDGES = 14 };
    static const float edge[EDGES][3] = {{0.0f, 1, 0},
                                         {-0.0f, 1, -0.0f},
                                         {0.0f, -1, 3.14159274f},
                                         {-0.0f, -1, -3.14159274f},
                                         {0, 0, 0},
                                         {1, 0, 1.57079637f},
                                         {-1, 0, -1.57079637f},
                                         {INFINITY, 1, 1.57079637f},
                                         {1, INFINITY, 0},
                                         {0.0f, -0.0f, 3.14159274f},
                                         {INFINITY, INFINITY, 0.785398185f},
                                         {-INFINITY, -INFINITY, -2.3561945f},
                                         {1e-40f, 1e-40f, 0.785398185f},
                                         {3e38f, 3e38f, 0.785398185f}};
    wf_tensor *y = wf_tensor_new(WF_F32, WF_SHAPE(N + EDGES)), *x = wf_tensor_new(WF_F32, WF_SHAPE(N + EDGES));
    float *a = y->data, *b = x->data;
    for (int i = 0; i < N; i++) {
        double angle = (2 * i / (double)N - 1) * M_PI, size = pow(10, 60.0 * ((i * 7919L) % N) / N - 30);
        a[i] = (float)(size * sin(angle)), b[i] = (float)(size * cos(angle));
    }
    for (int i = 0; i < EDGES; i++) a[N + i] = edge[i][0], b[N + i] = edge[i][1];
    wf_graph *g = wf_graph_open();
    wf_node *r = wf_atan2(g, wf_leaf(g, y, "y"), wf_leaf(g, x, "x"));
    wf_plan *p = wf_plan_new(g, &r, 1, NULL, 0, NULL);
    MUST(wf_plan_run(p));
    const float *got = wf_plan_out(p, 0);
    double worst = 0;
    for (int i = 0; i < N; i++) {
        double want = atan2(a[i], b[i]);
        worst = fmax(worst, fabs(got[i] - want) / fmax(fabs(want) * FLT_EPSILON, FLT_MIN));
    }
    print_message("  atan2 %.2f ulp\n", worst);
    if (!(worst <= 4)) fail_msg("atan2: %.2f ulp", worst);
    for (int i = 0; i < EDGES; i++)
        if (got[N + i] != edge[i][2] || signbit(got[N + i]) != signbit(edge[i][2]))
            fail_msg("atan2(%g, %g) = %.9g, not %.9g", edge[i][0], edge[i][1], got[N + i], edge[i][2]);
    wf_plan_free(p);
    wf_graph_free(g);
    wf_tensor_free(y);
    wf_tensor_free(x);
}

/* Masked rows: a softmax with nothing visible gives zeros, its log-sum-exp -inf, and no gradient is NaN. */
static void test_masked_rows(void **state) {
    wf_graph *g = wf_graph_open();
    wf_tensor *t = wf_tensor_new(WF_F32, WF_SHAPE(2, 9));
    for (int i = 0; i < 18; i++) wf_tensor_set(t, i, i < 9 ? -INFINITY : 0.1 * i);
    wf_node *x = wf_leaf(g, t, "x"), *outs[] = {wf_softmax(g, x), wf_logsumexp(g, x, false), NULL},
            *seed = wf_index(g, WF_F32, WF_SHAPE(2, 9), 1);
    MUST(wf_grad(g, outs, &seed, 1, &x, 1, outs + 2));
    wf_plan *p = wf_plan_new(g, outs, 3, NULL, 0, NULL);
    MUST(wf_plan_run(p));
    for (int i = 0; i < 9; i++) {
        assert_true(((const float *)wf_plan_out(p, 0))[i] == 0);
        assert_true(((const float *)wf_plan_out(p, 2))[i] == 0);
        assert_true(isfinite(((const float *)wf_plan_out(p, 2))[9 + i]));
    }
    assert_true(((const float *)wf_plan_out(p, 1))[0] == -INFINITY);
    wf_plan_free(p);
    wf_graph_free(g);
    wf_tensor_free(t);
}

/* ---- random numbers ---- */

static void test_random(void **state) {
    enum { N = 40000 };
    wf_tensor *seed = wf_tensor_new(WF_I32, WF_SHAPE(4));
    ((int32_t *)seed->data)[0] = 12;
    wf_graph *g = wf_graph_open();
    wf_node *s = wf_leaf(g, seed, "seed"), *u = wf_uniform(g, WF_F32, WF_SHAPE(200, 200), s, 3),
            *n = wf_normal(g, WF_F32, WF_SHAPE(200, 200), s, 4);
    wf_node *d = wf_dropout(g, wf_fill(g, WF_F32, WF_SHAPE(200, 200), 1), 0.3, s, 5),
            *outs[] = {u, n, d, wf_uniform(g, WF_F32, WF_SHAPE(200, 200), s, 6)};
    wf_plan *p = wf_plan_new(g, outs, 4, NULL, 0, NULL);
    MUST(wf_plan_run(p));
    double mu = 0, mn = 0, vn = 0, md = 0, both = 0;
    static float first[N];
    for (int i = 0; i < N; i++) {
        float a = ((const float *)wf_plan_out(p, 0))[i], b = ((const float *)wf_plan_out(p, 1))[i],
              c = ((const float *)wf_plan_out(p, 2))[i];
        assert_true(a >= 0 && a < 1);
        assert_true(c == 0 || fabsf(c - 1 / 0.7f) < 1e-6f);
        mu += a / N, mn += b / N, vn += (double)b * b / N, md += c / N;
        both += (a - 0.5) * (((const float *)wf_plan_out(p, 3))[i] - 0.5) / N;
        first[i] = a;
    }
    assert_true(fabs(mu - 0.5) < 0.008 && fabs(mn) < 0.025 && fabs(vn - 1) < 0.035 && fabs(md - 1) < 0.02 &&
                fabs(both) < 0.003);
    MUST(wf_plan_run(p)); /* the same step: the same numbers */
    assert_memory_equal(first, wf_plan_out(p, 0), sizeof first);
    ((int32_t *)seed->data)[2] = 1; /* the next step: others */
    MUST(wf_plan_run(p));
    assert_memory_not_equal(first, wf_plan_out(p, 0), sizeof first);
    wf_plan_free(p);
    wf_graph_free(g);
    wf_tensor_free(seed);
}

static void test_errors(void **state) {
    wf_graph *g = wf_graph_open();
    wf_tensor *a = wf_tensor_new(WF_F32, WF_SHAPE(2, 3)), *b = wf_tensor_new(WF_F32, WF_SHAPE(4));
    assert_null(wf_add(g, wf_leaf(g, a, "a"), wf_leaf(g, b, "b")));
    assert_non_null(strstr(wf_graph_message(g), "add"));
    assert_non_null(strstr(wf_graph_message(g), "[2, 3]"));
    assert_non_null(strstr(wf_graph_message(g), "[4]"));
    assert_null(wf_exp(g, NULL)); /* a broken chain stays broken, with its first message */
    assert_non_null(strstr(wf_graph_message(g), "add"));
    wf_graph_free(g);
    wf_tensor_free(a);
    wf_tensor_free(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unary),
        cmocka_unit_test(test_binary),
        cmocka_unit_test(test_constants_and_choice),
        cmocka_unit_test(test_reductions),
        cmocka_unit_test(test_reshaped_sums),
        cmocka_unit_test(test_composed),
        cmocka_unit_test(test_sum_to),
        cmocka_unit_test(test_fused_and_threads),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_accuracy),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_atan2),
        cmocka_unit_test(test_masked_rows),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
