/* test_attention_graph.c: attention, rotation and the linear scan as nodes of a graph: first and second derivatives in float64
 * against finite differences, fused against plain composition, gradients of bias, slopes and angles, decoding against one pass. */
#include "check.h"
#include "gradcheck.h"

typedef struct options {
    bool causal, lengths, packed, slopes, bias, lse, shared;
    int64_t back, forward;
    wf_normaliser normaliser;
    wf_score score;
    double score_bias, dropout;
} options;

static wf_tensor *integers(int n, const int32_t *x) {
    wf_tensor *t = wf_tensor_new(WF_I32, WF_SHAPE(n));
    memcpy(t->data, x, (size_t)n * sizeof *x);
    return t;
}

static wf_tensor *lengths, *offsets, *seed;

static int open_integers(void **state) {
    lengths = integers(2, (int32_t[]){5, 3});
    offsets = integers(4, (int32_t[]){0, 2, 2, 6});
    seed = integers(4, (int32_t[]){1, 2, 3, 4});
    return 0;
}
static int close_integers(void **state) {
    wf_tensor_free(lengths);
    wf_tensor_free(offsets);
    wf_tensor_free(seed);
    return 0;
}

static wf_attention_spec spec_of(wf_graph *g, wf_node **x, const options *o) {
    wf_attention_spec s = {.causal = o->causal,
                           .window_back = o->back,
                           .window_forward = o->forward,
                           .normaliser = o->normaliser,
                           .score = o->score,
                           .score_bias = o->score_bias,
                           .dropout = o->dropout,
                           .stream = 5};
    if (o->lengths) s.lengths = wf_leaf(g, lengths, "lengths");
    if (o->packed) s.offsets_q = wf_leaf(g, offsets, "offsets");
    if (o->dropout > 0) s.seed = wf_leaf(g, seed, "seed");
    if (o->slopes) s.slopes = x[3];
    if (o->bias) s.bias = x[3];
    return s;
}

static wf_node *with_lse(wf_graph *g, wf_node *y, const options *o) {
    if (!o->lse || !y) return y;
    wf_node *lse = wf_permute(g, wf_output(y, 1), (int[]){0, 2, 1});
    return wf_add(g, y, wf_unsqueeze(g, lse, 3));
}

static wf_node *build_attention(wf_graph *g, wf_node **x, void *ctx) {
    const options *o = ctx;
    wf_attention_spec s = spec_of(g, x, o);
    if (o->shared) return with_lse(g, wf_attention(g, x[0], x[0], x[0], &s), o);
    return with_lse(g, wf_attention(g, x[0], x[1], x[2], &s), o);
}

static void check_attention(const char *name, options o) {
    gc_case c = {.name = name, .build = build_attention, .ctx = &o, .n = 3, .seed = 3, .second = true};
    int64_t B = o.packed ? 1 : 2;
    c.shape[0] = WF_SHAPE(B, 6, 2, 3);
    c.shape[1] = WF_SHAPE(B, 6, 1, 3);
    c.shape[2] = WF_SHAPE(B, 6, 1, 4);
    if (o.shared) c.n = 1;
    if (o.slopes) c.shape[3] = WF_SHAPE(2), c.n = 4;
    if (o.bias) c.shape[3] = WF_SHAPE(2, 1, 6), c.n = 4;
    if (!gc_check(&c)) fail_msg("%s", name);
}

static void test_gradients(void **state) {
    check_attention("plain", (options){.causal = false});
    check_attention("causal", (options){.causal = true, .lse = true});
    check_attention("window", (options){.causal = true, .back = 3});
    check_attention("two-sided", (options){.back = 2, .forward = 3});
    check_attention("lengths", (options){.lengths = true, .lse = true});
    check_attention("packed", (options){.packed = true, .causal = true});
    check_attention("slopes", (options){.causal = true, .slopes = true});
    check_attention("bias", (options){.bias = true, .lse = true});
    check_attention("dropout", (options){.causal = true, .dropout = 0.3});
    check_attention("sigmoid",
                    (options){.causal = true, .normaliser = WF_NORMALISE_NONE, .score = WF_SCORE_SIGMOID, .score_bias = -1});
    check_attention("relu2", (options){.normaliser = WF_NORMALISE_NONE, .score = WF_SCORE_RELU2});
    check_attention("relu", (options){.causal = true, .normaliser = WF_NORMALISE_NONE, .score = WF_SCORE_RELU});
    check_attention("linear", (options){.causal = true, .normaliser = WF_NORMALISE_NONE});
    check_attention("softmax of sigmoid", (options){.score = WF_SCORE_SIGMOID});
}

/* q, k and v are one node: each gradient must be counted once */
static void test_shared(void **state) {
    check_attention("shared", (options){.causal = true, .shared = true, .lse = true});
}

/* ---- float32: fused against plain ---- */
static void check_plain(const char *name, const options *o) {
    int64_t B = o->packed ? 1 : 2;
    wf_shape shape[4] = {WF_SHAPE(B, 6, 4, 8), WF_SHAPE(B, 6, 2, 8), WF_SHAPE(B, 6, 2, 8),
                         o->slopes ? WF_SHAPE(4) : WF_SHAPE(4, 1, 6)};
    wf_graph *g = wf_graph_open();
    wf_tensor *t[4];
    wf_node *x[4], *fused[5], *plain[5], *weights, *outs[10];
    for (int i = 0; i < 4; i++) {
        t[i] = wf_tensor_new(WF_F32, shape[i]);
        gc_random(t[i], 9, (uint64_t)i, 0, 0);
        x[i] = wf_leaf(g, t[i], "x");
    }
    wf_attention_spec s = spec_of(g, x, o);
    int n = o->slopes || o->bias ? 4 : 3;
    fused[0] = wf_attention(g, x[0], x[1], x[2], &s);
    plain[0] = wf_attention_plain(g, x[0], x[1], x[2], &s, &weights);
    wf_node *u = wf_sin(g, wf_index(g, WF_F32, WF_SHAPE(B, 6, 4, 8), 1));
    MUST(wf_grad(g, fused, &u, 1, x, n, fused + 1));
    MUST(wf_grad(g, plain, &u, 1, x, n, plain + 1));
    for (int i = 0; i <= n; i++) outs[2 * i] = fused[i], outs[2 * i + 1] = plain[i];
    wf_plan *p = wf_plan_new(g, outs, 2 * (n + 1), NULL, 0, NULL);
    assert_non_null(p);
    MUST(wf_plan_run(p));
    for (int i = 0; i <= n; i++) {
        const float *a = wf_plan_out(p, 2 * i), *b = wf_plan_out(p, 2 * i + 1);
        double off = 0, size = 0;
        for (int64_t k = 0; k < wf_shape_count(&fused[i]->shape); k++) off += pow(a[k] - b[k], 2), size += pow(b[k], 2);
        /* two orders of float32 rounding; relu2 has the largest scores */
        if (!(sqrt(off) <= 2e-5 * sqrt(size))) fail_msg("%s: output %d is off by %g", name, i, sqrt(off / size));
    }
    wf_plan_free(p);
    wf_graph_free(g);
    for (int i = 0; i < 4; i++) wf_tensor_free(t[i]);
}

static void test_plain(void **state) {
    check_plain("causal", &(options){.causal = true, .back = 4});
    check_plain("lengths", &(options){.lengths = true, .forward = 2});
    check_plain("packed", &(options){.packed = true, .causal = true, .slopes = true});
    check_plain("bias", &(options){.bias = true, .dropout = 0.4});
    check_plain("sigmoid", &(options){.normaliser = WF_NORMALISE_NONE, .score = WF_SCORE_SIGMOID, .dropout = 0.2});
    check_plain("relu", &(options){.normaliser = WF_NORMALISE_NONE, .score = WF_SCORE_RELU});
    check_plain("relu2", &(options){.score = WF_SCORE_RELU2, .slopes = true});
}

/* Weights of every visible row sum to 1, hidden ones are exactly 0. */
static void test_weights(void **state) {
    wf_graph *g = wf_graph_open();
    wf_tensor *t = wf_tensor_new(WF_F32, WF_SHAPE(2, 6, 2, 3));
    gc_random(t, 1, 1, 0, 0);
    wf_node *x = wf_leaf(g, t, "x"), *w = NULL;
    wf_attention_spec s = {.causal = true, .lengths = wf_leaf(g, lengths, "lengths")};
    assert_non_null(wf_attention_plain(g, x, x, x, &s, &w));
    wf_plan *p = wf_plan_new(g, &w, 1, NULL, 0, NULL);
    MUST(wf_plan_run(p));
    const float *a = wf_plan_out(p, 0);
    for (int r = 0; r < 24; r++) {
        int b = r / 12, i = r % 6;
        double sum = 0;
        for (int j = 0; j < 6; j++) {
            sum += a[r * 6 + j];
            if (j > i || j >= (b ? 3 : 5)) assert_true(a[r * 6 + j] == 0);
        }
        assert_true(fabs(sum - 1) < 1e-6);
    }
    wf_plan_free(p);
    wf_graph_free(g);
    wf_tensor_free(t);
}

/* ---- decoding: token by token out of a cache, as one pass ---- */
static void decode(int64_t step, int64_t d, int64_t H, int64_t K, wf_tensor **t, int64_t L, const float *want, double *worst) {
    wf_tensor *start = wf_tensor_new(WF_I32, WF_SHAPE(1));
    for (int64_t at = 0; at < L; at += step) {
        int64_t n = L - at < step ? L - at : step;
        wf_graph *g = wf_graph_open();
        ((int32_t *)start->data)[0] = (int32_t)at;
        wf_node *q = wf_slice(g, wf_leaf(g, t[0], "q"), 1, at, n), *k = wf_leaf(g, t[1], "k"), *v = wf_leaf(g, t[2], "v");
        wf_attention_spec s = {.causal = true, .q_start = wf_leaf(g, start, "start")};
        wf_node *y = wf_attention(g, q, k, v, &s);
        wf_plan *p = wf_plan_new(g, &y, 1, NULL, 0, NULL);
        assert_non_null(p);
        MUST(wf_plan_run(p));
        const float *a = wf_plan_out(p, 0);
        for (int64_t b = 0; b < 2; b++)
            for (int64_t i = 0; i < n * H * d; i++)
                *worst = fmax(*worst, fabs((double)a[b * n * H * d + i] - (double)want[(b * L + at) * H * d + i]));
        wf_plan_free(p);
        wf_graph_free(g);
    }
    wf_tensor_free(start);
    (void)K;
}

static void test_decode(void **state) {
    enum { L = 90, H = 4, K = 2, D = 16 };
    wf_tensor *t[3] = {wf_tensor_new(WF_F32, WF_SHAPE(2, L, H, D)), wf_tensor_new(WF_F32, WF_SHAPE(2, L, K, D)),
                       wf_tensor_new(WF_F32, WF_SHAPE(2, L, K, D))};
    for (int i = 0; i < 3; i++) gc_random(t[i], 2, (uint64_t)i, 0, 0);
    wf_graph *g = wf_graph_open();
    wf_attention_spec s = {.causal = true};
    wf_node *y = wf_attention(g, wf_leaf(g, t[0], "q"), wf_leaf(g, t[1], "k"), wf_leaf(g, t[2], "v"), &s);
    wf_plan *p = wf_plan_new(g, &y, 1, NULL, 0, NULL);
    MUST(wf_plan_run(p));
    double worst = 0;
    decode(1, D, H, K, t, L, wf_plan_out(p, 0), &worst);
    decode(20, D, H, K, t, L, wf_plan_out(p, 0), &worst);
    assert_true(worst < 2e-6);
    wf_plan_free(p);
    wf_graph_free(g);
    for (int i = 0; i < 3; i++) wf_tensor_free(t[i]);
}

/* ---- rotation ---- */
static wf_node *build_halves(wf_graph *g, wf_node **x, void *ctx) {
    return wf_rotate(g, x[0], x[1], false);
}
static wf_node *build_pairs(wf_graph *g, wf_node **x, void *ctx) {
    return wf_rotate(g, x[0], x[1], true);
}

static void test_rotate(void **state) {
    gc_case c = {.name = "halves",
                 .build = build_halves,
                 .n = 2,
                 .shape = {WF_SHAPE(2, 3, 2, 7), WF_SHAPE(3, 2)},
                 .seed = 1,
                 .second = true};
    assert_true(gc_check(&c));
    c.name = "pairs", c.build = build_pairs;
    assert_true(gc_check(&c));
    c.name = "angles of a batch", c.shape[1] = WF_SHAPE(2, 3, 3);
    assert_true(gc_check(&c));
}

static void check_turn(wf_dtype type, double bound) {
    wf_graph *g = wf_graph_open();
    wf_tensor *x = wf_tensor_new(type, WF_SHAPE(2, 5, 3, 20)), *a = wf_tensor_new(WF_F32, WF_SHAPE(5, 8));
    gc_random(x, 4, 1, 0, 0);
    gc_random(a, 4, 2, 0, 0);
    wf_node *y[2];
    for (int k = 0; k < 2; k++) y[k] = wf_rotate(g, wf_slice(g, wf_leaf(g, x, "x"), 3, 1, 18), wf_leaf(g, a, "a"), k);
    wf_plan *p = wf_plan_new(g, y, 2, NULL, 0, NULL);
    MUST(wf_plan_run(p));
    for (int64_t i = 0; i < 2 * 5 * 3 * 18; i++) {
        int64_t c = i % 18, row = i / 18, l = row / 3 % 5;
        for (int k = 0; k < 2; k++) {
            wf_tensor out = {.dtype = type, .shape = WF_SHAPE(2, 5, 3, 18), .data = (void *)(uintptr_t)wf_plan_out(p, k)};
            int64_t pair = k ? c / 2 : c % 8, first = k ? c % 2 == 0 : c < 8,
                    mate = k ? (first ? c + 1 : c - 1) : (first ? c + 8 : c - 8);
            double want = wf_tensor_get(x, row * 20 + 1 + c);
            if (c < 16) {
                double angle = wf_tensor_get(a, l * 8 + pair), other = wf_tensor_get(x, row * 20 + 1 + mate);
                want = want * cos(angle) + (first ? -other : other) * sin(angle);
            }
            assert_true(fabs(wf_tensor_get(&out, i) - want) <= bound * (1 + fabs(want)));
        }
    }
    wf_plan_free(p);
    wf_graph_free(g);
    wf_tensor_free(x);
    wf_tensor_free(a);
}

static void test_turn(void **state) {
    check_turn(WF_F64, 1e-7);
    check_turn(WF_F32, 1e-6);
    check_turn(WF_BF16, 4e-3);
}

/* ---- linear scan ---- */
typedef struct scan_options {
    bool decay, state, final;
} scan_options;

static wf_node *build_scan(wf_graph *g, wf_node **x, void *ctx) {
    const scan_options *o = ctx;
    wf_node *y = wf_linear_scan(g, x[0], x[1], x[2], o->decay ? x[3] : NULL, o->state ? x[o->decay ? 4 : 3] : NULL);
    if (!o->final || !y) return y;
    wf_node *s = wf_sum(g, wf_output(y, 1), 1u << 2, true); /* [B,H,1,e] */
    return wf_add(g, y, wf_permute(g, s, (int[]){0, 2, 1, 3}));
}

static void check_scan(const char *name, scan_options o) {
    gc_case c = {.name = name, .build = build_scan, .ctx = &o, .n = 3, .seed = 5, .second = true};
    c.shape[0] = c.shape[1] = WF_SHAPE(2, 5, 2, 3);
    c.shape[2] = WF_SHAPE(2, 5, 2, 4);
    if (o.decay) c.shape[c.n] = WF_SHAPE(2, 5, 2), c.lo[c.n] = 0.4, c.hi[c.n++] = 0.99;
    if (o.state) c.shape[c.n++] = WF_SHAPE(2, 2, 3, 4);
    if (!gc_check(&c)) fail_msg("%s", name);
}

static void test_scan(void **state) {
    check_scan("scan", (scan_options){.decay = false});
    check_scan("scan, final state", (scan_options){.final = true});
    check_scan("scan, decay", (scan_options){.decay = true});
    check_scan("scan, state", (scan_options){.state = true, .final = true});
    check_scan("scan, everything", (scan_options){.decay = true, .state = true, .final = true});
}

/* ---- errors ---- */
static void refuse(const wf_attention_spec *s, wf_shape k, const char *part) {
    wf_graph *g = wf_graph_open();
    wf_tensor *a = wf_tensor_new(WF_F32, WF_SHAPE(2, 4, 4, 3)), *b = wf_tensor_new(WF_F32, k);
    wf_node *x = wf_leaf(g, a, "a"), *y = wf_leaf(g, b, "b");
    assert_null(wf_attention(g, x, y, y, s));
    assert_int_equal(wf_graph_status(g), WF_EINVAL);
    if (!strstr(wf_graph_message(g), part)) fail_msg("'%s' lacks '%s'", wf_graph_message(g), part);
    wf_graph_free(g);
    wf_tensor_free(a);
    wf_tensor_free(b);
}

static void test_errors(void **state) {
    refuse(&(wf_attention_spec){.causal = true}, WF_SHAPE(2, 4, 3, 3), "[2, 4, 3, 3]");
    refuse(&(wf_attention_spec){.causal = true}, WF_SHAPE(2, 4, 4, 5), "[2, 4, 4, 5]");
    refuse(&(wf_attention_spec){.window_back = -1}, WF_SHAPE(2, 4, 4, 3), "window");
    refuse(&(wf_attention_spec){.dropout = 0.1}, WF_SHAPE(2, 4, 4, 3), "seed");
    refuse(&(wf_attention_spec){.dropout = 1}, WF_SHAPE(2, 4, 4, 3), "dropout");
    refuse(&(wf_attention_spec){.score = 9}, WF_SHAPE(2, 4, 4, 3), "score");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients), cmocka_unit_test(test_shared), cmocka_unit_test(test_plain),
        cmocka_unit_test(test_weights),   cmocka_unit_test(test_decode), cmocka_unit_test(test_rotate),
        cmocka_unit_test(test_turn),      cmocka_unit_test(test_scan),   cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, open_integers, close_integers);
}
