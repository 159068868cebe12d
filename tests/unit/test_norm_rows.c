/* test_norm_rows.c: what fusion makes of norms: bytes moved and nothing kept between passes over a batch, cheap values computed again
 * by their readers, mean and variance in one reading, rows in tiles, rows of groups; the same bytes for any number of threads. */
#include "check.h"
#include "gradcheck.h"
#include "parts_help.h"

/* ---- bytes of every norm of the catalogue, in units of x ---- */

typedef struct traffic {
    double bytes, arena;
} traffic;

static bool traffic_of(const char *spec, bool backward, bool masked, traffic *t) {
    const wf_shape s = WF_SHAPE(16, 256, 96);
    wf_value *v = yaml(spec);
    wf_model *m = wf_model_of_part("norm", v, 96, 96, false, 0, 1);
    wf_value_free(v);
    if (!m) return false; /* it needs more of its model than a width */
    wf_tensor *x = rn_random(WF_F32, s, 1, 0), *gy = rn_random(WF_F32, s, 2, 0),
              *keep = wf_tensor_new(WF_F32, WF_SHAPE(16, 256));
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_node *wrt[32], *out[33];
    int n = 0;
    wf_build_start(&b, g);
    b.train = true;
    if (masked) b.keep = wf_leaf(g, keep, "keep");
    wrt[n++] = wf_leaf(g, x, "x");
    out[0] = wf_apply(&b, m->root, wrt[0]);
    for (int i = 0; i < m->n_param; i++)
        if (!(m->param[i]->flags & WF_PARAM_BUFFER)) wrt[n++] = wf_leaf(g, m->param[i]->value, m->param[i]->name);
    wf_node *seed = wf_leaf(g, gy, "gy");
    if (backward) MUST(wf_grad(g, out, &seed, 1, wrt, n, out + 1));
    wf_plan *p = wf_plan_new(g, out, backward ? n + 1 : 1, b.update, b.n_update, NULL);
    if (!p) fail_msg("%s: %s", spec, wf_message());
    wf_plan_info info;
    wf_plan_describe(p, &info);
    *t = (traffic){info.bytes / (double)x->bytes, (double)info.arena_bytes / (double)x->bytes};
    wf_plan_free(p);
    wf_build_end(&b);
    wf_graph_free(g);
    wf_model_free(m);
    wf_tensor_free(x);
    wf_tensor_free(gy);
    wf_tensor_free(keep);
    return true;
}

static void check_traffic(const char *spec, bool masked, double forward, double both) {
    traffic f, fb;
    if (!traffic_of(spec, false, masked, &f) || !traffic_of(spec, true, masked, &fb)) return;
    print_message("  %-44s forward %.2f, with backward %.2f; arena %.2f, %.2f\n", spec, f.bytes, fb.bytes, f.arena, fb.arena);
    if (f.bytes > forward || fb.bytes > both)
        fail_msg("%s moves %.2f and %.2f times x, not %.1f and %.1f", spec, f.bytes, fb.bytes, forward, both);
    if (f.arena > 1.25 || fb.arena > 2.35) /* y; y and the gradient */
        fail_msg("%s keeps whole tensors: %.2f and %.2f times x", spec, f.arena, fb.arena);
}

/* Statistics of a token: x once, y; x and g once, gx. Over tokens: twice each. Columns and rows of one number come on top. */
static void test_traffic(void **state) {
    static const char *const over_tokens[] = {"batchnorm", "unified", "power", "repbn", "prepbn"};
    int n;
    const wf_part *const *part = wf_part_all(&n);
    for (int i = 0; i < n; i++) {
        if (strcmp(part[i]->slot, "norm") || !strcmp(part[i]->name, "none")) continue;
        bool over = false;
        for (size_t k = 0; k < sizeof over_tokens / sizeof *over_tokens; k++) over |= !strcmp(part[i]->name, over_tokens[k]);
        check_traffic(part[i]->name, false, over ? 3.3 : 2.2, over ? 8.6 : 5.4);
    }
    check_traffic("{name: groupnorm, groups: 6}", false, 2.3, 5.6);
    check_traffic("{name: groupnorm, groups: 6, over: sample}", false, 3.3, 8.8);
    check_traffic("batchnorm", true, 3.4, 8.7);
}

/* ---- numbers of every norm: fused, chained and threaded against one operator at a time ---- */

enum { MOST_OUT = 12 };

static int run_norm(const char *spec, bool masked, bool fused, int threads, wf_tensor **result) {
    const wf_shape s = WF_SHAPE(3, 37, 330);
    wf_model *m = part_of("norm", spec, 330, false, 0);
    wf_tensor *x = rn_random(WF_F32, s, 1, 0), *gy = rn_random(WF_F32, s, 2, 0), *keep = wf_tensor_new(WF_F32, WF_SHAPE(3, 37));
    for (int i = 0; i < 3 * 37; i++) wf_tensor_set(keep, i, i % 5 != 1);
    stir(m, 0.05);
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_node *wrt[MOST_OUT], *out[MOST_OUT + 1];
    int n = 0, before = wf_threads();
    wf_build_start(&b, g);
    b.train = true;
    if (masked) b.keep = wf_leaf(g, keep, "keep");
    wrt[n++] = wf_leaf(g, x, "x");
    out[0] = wf_apply(&b, m->root, wrt[0]);
    for (int i = 0; i < m->n_param; i++)
        if (!(m->param[i]->flags & WF_PARAM_BUFFER)) wrt[n++] = wf_leaf(g, m->param[i]->value, m->param[i]->name);
    wf_node *seed = wf_leaf(g, gy, "gy");
    MUST(wf_grad(g, out, &seed, 1, wrt, n, out + 1));
    wf_plan *p = wf_plan_new(g, out, n + 1, b.update, b.n_update, &(wf_plan_options){.no_fusion = !fused});
    if (!p) fail_msg("%s: %s", spec, wf_message());
    wf_set_threads(threads);
    MUST(wf_plan_run(p));
    wf_set_threads(before);
    for (int i = 0; i <= n; i++) {
        result[i] = wf_tensor_new(out[i]->dtype, out[i]->shape);
        memcpy(result[i]->data, wf_plan_out(p, i), result[i]->bytes);
    }
    wf_plan_free(p);
    wf_build_end(&b);
    wf_graph_free(g);
    wf_model_free(m);
    wf_tensor_free(x), wf_tensor_free(gy), wf_tensor_free(keep);
    return n + 1;
}

static double distance(const wf_tensor *a, const wf_tensor *b) {
    double off = 0, size = 0;
    for (int64_t i = 0; i < wf_tensor_count(a); i++) {
        off += pow(wf_tensor_get(a, i) - wf_tensor_get(b, i), 2);
        size += pow(wf_tensor_get(b, i), 2);
    }
    return size > 0 ? sqrt(off / size) : sqrt(off);
}

static void test_numbers(void **state) {
    static const char *const forms[] = {"{name: groupnorm, groups: 6}", "{name: groupnorm, groups: 6, over: sample}",
                                        "{name: dyt, function: erf}", "{name: power, warmup_iters: 0}"};
    int n_parts;
    const wf_part *const *part = wf_part_all(&n_parts);
    for (int i = 0; i < n_parts + 4; i++) {
        const char *spec = i < n_parts ? part[i]->name : forms[i - n_parts];
        if (i < n_parts && (strcmp(part[i]->slot, "norm") || !strcmp(spec, "adaln"))) continue;
        for (int masked = 0; masked < 2; masked++) {
            wf_tensor *a[MOST_OUT + 1], *b[MOST_OUT + 1], *c[MOST_OUT + 1];
            int n = run_norm(spec, masked, true, 1, a);
            run_norm(spec, masked, true, 3, b);
            run_norm(spec, masked, false, 1, c);
            for (int k = 0; k < n; k++) {
                assert_memory_equal(a[k]->data, b[k]->data, a[k]->bytes);
                if (!(distance(a[k], c[k]) < 3e-6)) fail_msg("%s, output %d: %g", spec, k, distance(a[k], c[k]));
                wf_tensor_free(a[k]), wf_tensor_free(b[k]), wf_tensor_free(c[k]);
            }
        }
    }
}

/* ---- values that their readers compute again ---- */

static wf_plan *plan_of(wf_graph *g, wf_node *const *out, int n, bool fused) {
    wf_plan *p = wf_plan_new(g, out, n, NULL, 0, &(wf_plan_options){.no_fusion = !fused});
    if (!p) fail_msg("%s", wf_message());
    return p;
}

typedef wf_node *(*builder)(wf_graph *g, wf_node *x, wf_node *w);

/* A sum over rows between two uses of a difference; the second use far from a whole chain; a result that is wanted itself. */
static wf_node *centred(wf_graph *g, wf_node *x, wf_node *w) {
    wf_node *c = wf_mul(g, wf_sub(g, x, w), w);
    return wf_mul(g, c, wf_rsqrt(g, wf_add_c(g, wf_mean(g, wf_square(g, c), 1, true), 1e-5)));
}
static wf_node *twice(wf_graph *g, wf_node *x, wf_node *w) {
    wf_node *c = wf_sub(g, x, wf_mean(g, x, 1, true)), *d = wf_sub(g, c, wf_mean(g, wf_square(g, c), 1, true));
    wf_node *e = wf_mul(g, d, wf_sum(g, wf_mul(g, d, c), 1, true));
    return wf_add(g, wf_mul(g, e, w), wf_mul(g, c, d));
}
static wf_node *dear(wf_graph *g, wf_node *x, wf_node *w) { /* an exponential is not computed twice */
    wf_node *e = wf_exp(g, x);
    return wf_mul(g, e, wf_mean(g, wf_mul(g, e, w), 1, true));
}

static void test_repeats(void **state) {
    static const builder all[] = {centred, twice, dear};
    static const double at_most[] = {3.3, 5.3, 5.3};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(600, 96), 7, 0), *w = rn_random(WF_F32, WF_SHAPE(96), 8, 0);
        wf_graph *g = wf_graph_open();
        wf_node *y = all[k](g, wf_leaf(g, x, "x"), wf_leaf(g, w, "w"));
        wf_plan *a = plan_of(g, &y, 1, true), *b = plan_of(g, &y, 1, false);
        wf_plan_info info;
        wf_plan_describe(a, &info);
        if (info.bytes > at_most[k] * (double)x->bytes)
            fail_msg("case %zu moves %.2f times x", k, info.bytes / (double)x->bytes);
        MUST(wf_plan_run(a));
        MUST(wf_plan_run(b));
        const float *p = wf_plan_out(a, 0), *q = wf_plan_out(b, 0);
        for (int i = 0; i < 600 * 96; i++)
            if (!(fabsf(p[i] - q[i]) <= 2e-4f * fmaxf(1, fabsf(q[i])))) fail_msg("case %zu, %d: %g, not %g", k, i, p[i], q[i]);
        wf_plan_free(a);
        wf_plan_free(b);
        wf_graph_free(g);
        wf_tensor_free(x);
        wf_tensor_free(w);
    }
}

/* A leaf that is written in place between two readers of a difference: the second must not compute it of the new content. */
static void test_no_repeat_of_what_changes(void **state) {
    wf_tensor *s = rn_random(WF_F32, WF_SHAPE(1, 300, 64), 3, 0), *new = rn_random(WF_F32, WF_SHAPE(1, 7, 64), 4, 0);
    wf_tensor *old = wf_tensor_new(WF_F32, s->shape), *pos = wf_tensor_new(WF_I32, WF_SHAPE(1));
    memcpy(old->data, s->data, s->bytes);
    wf_graph *g = wf_graph_open();
    wf_node *x = wf_leaf(g, s, "state"), *c = wf_mul_c(g, x, 3), *q = wf_mean(g, wf_square(g, c), 2, true);
    wf_node *w = wf_cache_write(g, x, wf_leaf(g, new, "new"), wf_leaf(g, pos, "pos"), false);
    wf_node *out[2] = {wf_mul(g, c, q), w};
    wf_plan *p = plan_of(g, out, 2, true);
    MUST(wf_plan_run(p));
    const float *y = wf_plan_out(p, 0), *v = old->data;
    for (int j = 0; j < 64; j++) {
        double mean = 0;
        for (int i = 0; i < 300; i++) mean += 9.0 * v[i * 64 + j] * v[i * 64 + j] / 300;
        for (int i = 0; i < 300; i++)
            if (!(fabs(y[i * 64 + j] - 3 * v[i * 64 + j] * mean) < 1e-3)) fail_msg("row %d, column %d", i, j);
    }
    wf_plan_free(p);
    wf_graph_free(g);
    wf_tensor_free(s), wf_tensor_free(new), wf_tensor_free(old), wf_tensor_free(pos);
}

/* ---- moments ---- */

static wf_node *moments(wf_graph *g, wf_node **x, void *ctx) {
    const unsigned *axes = ctx;
    wf_node *mean,
        *keep = axes[1] ? wf_lt(g, wf_index(g, WF_F64, WF_SHAPE(3, 20, 1, 1), 1), wf_fill(g, WF_F64, WF_SHAPE(1), 13)) : NULL;
    wf_node *n = keep ? wf_fill(g, WF_F64, WF_SHAPE(1), axes[0] & 1 ? 39 : 13) : NULL;
    wf_node *v = wf_moments(g, x[0], axes[0], keep, n, &mean);
    return wf_add(g, wf_mul(g, mean, wf_sin(g, v)), wf_square(g, mean));
}

static void test_moments_derivative(void **state) {
    static unsigned all[][2] = {{1, 0}, {2, 0}, {3, 0}, {10, 0}, {3, 1}, {2, 1}, {8, 0}};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++)
        assert_true(gc_check(&(gc_case){.name = "moments",
                                        .build = moments,
                                        .ctx = all[k],
                                        .n = 1,
                                        .shape = {WF_SHAPE(3, 20, 2, 3)},
                                        .seed = k,
                                        .second = true}));
}

/* Far from zero, with outliers where the shift is looked for, and with padding: digits must not be lost. */
static void test_moments_accuracy(void **state) {
    enum { R = 5000, C = 8 };
    static const double centre[C] = {0, 1000, -3e4, 1e-3, 5, 0, 0, 2e5}, spread[C] = {1, 1, 3, 1e-4, 0, 1, 1e-6, 50};
    for (int masked = 0; masked < 2; masked++) {
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(R, C), 5, 0), *keep = wf_tensor_new(WF_F32, WF_SHAPE(R, 1));
        float *d = x->data, *k = keep->data;
        for (int i = 0; i < R; i++) {
            k[i] = masked ? i % 3 != 0 : 1;
            for (int j = 0; j < C; j++) d[i * C + j] = (float)(centre[j] + spread[j] * d[i * C + j]);
        }
        d[5] = 1e4f; /* one outlier, among the first */
        wf_graph *g = wf_graph_open();
        wf_node *kn = wf_leaf(g, keep, "keep"), *mean;
        wf_node *v = wf_moments(g, wf_leaf(g, x, "x"), 1, masked ? kn : NULL, masked ? wf_sum_all(g, kn) : NULL, &mean);
        wf_plan *p = plan_of(g, (wf_node *[]){mean, v}, 2, true);
        MUST(wf_plan_run(p));
        for (int j = 0; j < C; j++) {
            double m = 0, q = 0, n = 0;
            for (int i = 0; i < R; i++) m += k[i] * (double)d[i * C + j], n += k[i];
            m /= n;
            for (int i = 0; i < R; i++) q += k[i] * (d[i * C + j] - m) * (d[i * C + j] - m) / n;
            double a = ((const float *)wf_plan_out(p, 0))[j], b = ((const float *)wf_plan_out(p, 1))[j];
            if (!(fabs(a - m) <= 3e-6 * (fabs(m) + sqrt(q)))) fail_msg("channel %d: mean %.9g, not %.9g", j, a, m);
            if (!(fabs(b - q) <= 2e-5 * q + 1e-13 * m * m)) fail_msg("channel %d: variance %.9g, not %.9g", j, b, q);
        }
        wf_plan_free(p);
        wf_graph_free(g);
        wf_tensor_free(x);
        wf_tensor_free(keep);
    }
}

/* ---- rows in tiles, rows of groups ---- */

/* Every reduction of a row, numbers of a row between them, a generator, sums over rows. */
static int long_rows(wf_graph *g, wf_node *x, wf_node *w, wf_node **out) {
    unsigned last = 1u << (x->shape.rank - 1);
    wf_node *c = wf_sub(g, x, wf_mean(g, x, last, true)), *r = wf_rsqrt(g, wf_mean(g, wf_square(g, c), last, true));
    wf_node *hi = wf_amax(g, c, last, true), *lo = wf_amin(g, wf_mul(g, c, w), last, true);
    wf_node *i = wf_mul_c(g, wf_index(g, WF_F32, x->shape, x->shape.rank - 1), 1e-3);
    wf_node *y = wf_add(g, wf_mul(g, wf_mul(g, c, r), w), wf_mul(g, i, wf_sub(g, hi, lo)));
    wf_node *s = wf_softmax(g, wf_mul(g, y, r));
    out[0] = wf_add(g, y, s);
    out[1] = wf_sum(g, wf_mul(g, y, c), ~last & ((1u << x->shape.rank) - 1), false);
    out[2] = wf_sum(g, wf_mul(g, out[0], w), last, false);
    return 3;
}

static void run_long(wf_shape s, bool fused, int threads, wf_dtype t, wf_tensor **result) {
    wf_shape row = WF_SHAPE(s.dim[s.rank - 1]);
    wf_tensor *x = rn_random(WF_F32, s, 11, 0), *w = rn_random(WF_F32, row, 12, 0);
    wf_graph *g = wf_graph_open();
    wf_node *out[3];
    int n = long_rows(g, wf_cast(g, wf_leaf(g, x, "x"), t), wf_cast(g, wf_leaf(g, w, "w"), t), out), before = wf_threads();
    wf_plan *p = plan_of(g, out, n, fused);
    wf_set_threads(threads);
    MUST(wf_plan_run(p));
    wf_set_threads(before);
    for (int i = 0; i < n; i++) {
        result[i] = wf_tensor_new(out[i]->dtype, out[i]->shape);
        memcpy(result[i]->data, wf_plan_out(p, i), result[i]->bytes);
    }
    wf_plan_free(p);
    wf_graph_free(g);
    wf_tensor_free(x);
    wf_tensor_free(w);
}

static void test_long_rows(void **state) {
    static const int64_t width[] = {1023, 1024, 1025, 2048, 4096, 5003, 9000};
    for (size_t k = 0; k < sizeof width / sizeof *width; k++) {
        wf_tensor *exact[3], *one[3], *many[3];
        wf_shape s = WF_SHAPE(5, 7, width[k]);
        run_long(s, true, 1, WF_F64, exact);
        run_long(s, true, 1, WF_F32, one);
        run_long(s, true, 3, WF_F32, many);
        for (int i = 0; i < 3; i++) {
            double size = 0;
            for (int64_t j = 0; j < wf_tensor_count(exact[i]); j++) size = fmax(size, fabs(wf_tensor_get(exact[i], j)));
            for (int64_t j = 0; j < wf_tensor_count(exact[i]); j++)
                if (!(fabs(wf_tensor_get(one[i], j) - wf_tensor_get(exact[i], j)) <= 3e-6 * size))
                    fail_msg("width %d, output %d, entry %d: %.9g, not %.9g", (int)width[k], i, (int)j,
                             wf_tensor_get(one[i], j), wf_tensor_get(exact[i], j));
            assert_memory_equal(one[i]->data, many[i]->data, one[i]->bytes);
            wf_tensor_free(exact[i]), wf_tensor_free(one[i]), wf_tensor_free(many[i]);
        }
    }
}

/* Groups of channels: short row axes change places with long ones. */
static void test_groups(void **state) {
    static const wf_shape all[] = {{4, {3, 50, 6, 16}}, {4, {1, 90, 7, 5}}, {4, {2, 3, 31, 40}}, {4, {5, 64, 2, 33}}};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        wf_tensor *a[3], *b[3], *c[3];
        run_long(all[k], true, 1, WF_F32, a);
        run_long(all[k], true, 4, WF_F32, b);
        run_long(all[k], false, 2, WF_F32, c);
        for (int i = 0; i < 3; i++) {
            assert_memory_equal(a[i]->data, b[i]->data, a[i]->bytes);
            if (!(rn_error(a[i], c[i]) < 1e-4)) fail_msg("shape %zu, output %d: %g", k, i, rn_error(a[i], c[i]));
            wf_tensor_free(a[i]), wf_tensor_free(b[i]), wf_tensor_free(c[i]);
        }
    }
}

/* Arithmetic on a repeated number is done once: its FLOPs are those of the small tensor. */
static void test_repeated_operands(void **state) {
    wf_tensor *t = rn_random(WF_F32, WF_SHAPE(8), 1, 0), *u = rn_random(WF_F32, WF_SHAPE(1000, 8), 2, 0);
    wf_graph *g = wf_graph_open();
    wf_node *x = wf_expand(g, wf_leaf(g, t, "t"), WF_SHAPE(1000, 8));
    wf_node *y = wf_exp(g, wf_mul(g, wf_mul_c(g, x, 2), wf_add(g, x, wf_fill(g, WF_F32, WF_SHAPE(1), 3))));
    wf_node *z = wf_sum(g, wf_mul(g, wf_leaf(g, u, "u"), y), 1, false); /* sum(u y) = sum(u) y */
    wf_plan *p = plan_of(g, &z, 1, true);
    wf_plan_info info;
    wf_plan_describe(p, &info);
    assert_true(info.flops < 8000 + 8 * 8);
    MUST(wf_plan_run(p));
    for (int j = 0; j < 8; j++) {
        double sum = 0, v = wf_tensor_get(t, j);
        for (int i = 0; i < 1000; i++) sum += wf_tensor_get(u, i * 8 + j);
        assert_true(fabs(((const float *)wf_plan_out(p, 0))[j] - sum * exp(2 * v * (v + 3))) <
                    1e-4 * fmax(1, fabs(sum)) * exp(2 * v * (v + 3)));
    }
    wf_plan_free(p);
    wf_graph_free(g);
    wf_tensor_free(t), wf_tensor_free(u);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_traffic),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_repeats),
        cmocka_unit_test(test_no_repeat_of_what_changes),
        cmocka_unit_test(test_moments_derivative),
        cmocka_unit_test(test_moments_accuracy),
        cmocka_unit_test(test_long_rows),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_repeated_operands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
