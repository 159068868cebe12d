/* test_graph.c: tensors, building, views, merging of equal nodes, errors, and differentiation to second order. */
#include "check.h"

#include "gradcheck.h"
#include "op/op.h"

#define UNUSED __attribute__((unused))

static wf_tensor *ramp(wf_dtype t, wf_shape s, double from, double step) {
    wf_tensor *x = wf_tensor_new(t, s);
    for (int64_t i = 0; i < wf_tensor_count(x); i++) wf_tensor_set(x, i, from + step * (double)i);
    return x;
}

/* Plan and run outs, compare out k with want[k][..] within 1e-12. */
static void expect(wf_graph *g, wf_node *const *outs, int n, const double *const *want) {
    wf_plan *p = wf_plan_new(g, outs, n, NULL, 0, NULL);
    if (!p) fail_msg("%s", wf_message());
    if (wf_plan_run(p) != WF_OK) fail_msg("%s", wf_message());
    for (int k = 0; k < n; k++) {
        const double *y = wf_plan_out(p, k);
        for (int64_t i = 0; i < wf_shape_count(&outs[k]->shape); i++)
            if (!(fabs(y[i] - want[k][i]) <= 1e-12 * (1 + fabs(want[k][i]))))
                fail_msg("out %d, element %lld: %g, not %g", k, (long long)i, y[i], want[k][i]);
    }
    wf_plan_free(p);
}

/* ---- tensors ---- */

static void dtypes_and_shapes(void **state UNUSED) {
    char a[96];
    assert_int_equal(wf_dtype_size(WF_BF16), 2);
    assert_string_equal(wf_dtype_name(WF_F32), "float32");
    assert_string_equal(wf_shape_text(&WF_SHAPE(2, 7, 12), a), "[2, 7, 12]");
    assert_string_equal(wf_shape_text(&(wf_shape){0}, a), "[]");
    wf_shape huge = {6, {INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX}};
    assert_true(strlen(wf_shape_text(&huge, a)) < 96);
    assert_null(wf_tensor_new(WF_F32, huge));
    assert_null(wf_tensor_new(WF_F32, WF_SHAPE(3, -1)));
    assert_null(wf_tensor_new((wf_dtype)77, WF_SHAPE(3)));
    assert_null(wf_tensor_new(WF_F32, (wf_shape){.rank = 7}));
    assert_int_equal(wf_shape_count(&(wf_shape){0}), 1);
}

static void bf16_rounds_to_nearest_even(void **state UNUSED) {
    assert_int_equal(wf_f32_to_bf16(1.0f), 0x3f80);
    assert_int_equal(wf_f32_to_bf16(1.00390625f), 0x3f80); /* half way: even */
    assert_int_equal(wf_f32_to_bf16(1.01171875f), 0x3f82); /* half way: even is up */
    assert_int_equal(wf_f32_to_bf16(1.004f), 0x3f81);
    assert_int_equal(wf_f32_to_bf16(3.4e38f), 0x7f80); /* beyond the largest: infinity */
    assert_true(isnan(wf_bf16_to_f32(wf_f32_to_bf16(NAN))));
    assert_true(isinf(wf_bf16_to_f32(wf_f32_to_bf16(INFINITY))));
    for (uint32_t b = 0; b < 0x7f80; b++) assert_int_equal(wf_f32_to_bf16(wf_bf16_to_f32((uint16_t)b)), b);
}

static void tensor_elements(void **state UNUSED) {
    const wf_dtype kind[] = {WF_F32, WF_BF16, WF_I32, WF_U8, WF_F64, WF_I8};
    for (int k = 0; k < 6; k++) {
        wf_tensor *t = wf_tensor_new(kind[k], WF_SHAPE(2, 3));
        assert_non_null(t);
        assert_int_equal(t->bytes, 6 * wf_dtype_size(kind[k]));
        for (int i = 0; i < 6; i++) assert_true(wf_tensor_get(t, i) == 0);
        wf_tensor_set(t, 4, 100);
        assert_true(wf_tensor_get(t, 4) == 100);
        wf_tensor_free(t);
    }
    wf_tensor *t = wf_tensor_new(WF_U8, WF_SHAPE(2));
    wf_tensor_set(t, 0, 1e9);
    wf_tensor_set(t, 1, NAN);
    assert_true(wf_tensor_get(t, 0) == 255 && wf_tensor_get(t, 1) == 0);
    wf_tensor_free(t);
    wf_tensor_free(NULL);
}

/* ---- building ---- */

static void equal_nodes_are_one(void **state UNUSED) {
    wf_graph *g = wf_graph_open();
    wf_tensor *t = ramp(WF_F64, WF_SHAPE(2, 3), 1, 1), *u = ramp(WF_F64, WF_SHAPE(2, 3), 2, 1);
    wf_node *x = wf_leaf(g, t, "x"), *y = wf_leaf(g, u, "y");
    assert_ptr_equal(wf_leaf(g, t, "again"), x);
    assert_ptr_not_equal(x, y);
    assert_ptr_equal(wf_mul(g, x, y), wf_mul(g, x, y));
    assert_ptr_not_equal(wf_mul(g, x, y), wf_add(g, x, y));
    assert_ptr_not_equal(wf_mul_c(g, x, 2), wf_mul_c(g, x, 3));
    assert_ptr_equal(wf_transpose(g, x, 0, 1), wf_transpose(g, x, 1, 0));
    int n = wf_graph_size(g);
    for (int i = 0; i < 5000; i++) assert_non_null(wf_add_c(g, x, i + 1)); /* the table grows */
    for (int i = 0; i < 5000; i++) assert_non_null(wf_add_c(g, x, i + 1));
    assert_int_equal(wf_graph_size(g), n + 5000);
    wf_node *before = wf_exp(g, x);
    wf_recompute_begin(g);
    wf_node *within = wf_exp(g, x);
    wf_recompute_end(g);
    assert_ptr_not_equal(before, within); /* the one within is recomputed, the other kept */
    assert_ptr_equal(wf_exp(g, x), before);
    wf_graph_free(g);
    wf_tensor_free(t);
    wf_tensor_free(u);
}

static void errors_name_operator_shapes_and_scope(void **state UNUSED) {
    wf_graph *g = wf_graph_open();
    wf_tensor *t = ramp(WF_F64, WF_SHAPE(2, 3), 1, 1), *u = ramp(WF_F64, WF_SHAPE(4), 2, 1);
    wf_node *x = wf_leaf(g, t, "x"), *y = wf_leaf(g, u, "y");
    wf_scope_push(g, "blocks.3");
    wf_scope_push(g, "mixer");
    wf_node *z = wf_exp(g, wf_add(g, x, y));
    assert_null(z);
    assert_int_equal(wf_graph_status(g), WF_EINVAL);
    const char *m = wf_graph_message(g);
    assert_non_null(strstr(m, "blocks.3.mixer: add"));
    assert_non_null(strstr(m, "[2, 3]"));
    assert_non_null(strstr(m, "[4]"));
    assert_string_equal(wf_message(), m);
    char first[256];
    snprintf(first, sizeof first, "%s", m);
    assert_null(wf_reshape(g, x, WF_SHAPE(5))); /* the first error stays */
    assert_string_equal(wf_graph_message(g), first);
    assert_null(wf_plan_new(g, &x, 1, NULL, 0, NULL));
    assert_string_equal(wf_message(), first);
    wf_graph_free(g);
    wf_tensor_free(t);
    wf_tensor_free(u);
}

/* Every refused call gives NULL and a message that holds `part`; each on a fresh graph. */
typedef wf_node *(*refused)(wf_graph *g, wf_node *x); /* x: [2, 3] */
static wf_node *r_count(wf_graph *g, wf_node *x) {
    return wf_reshape(g, x, WF_SHAPE(4, 2));
}
static wf_node *r_two(wf_graph *g, wf_node *x) {
    return wf_reshape(g, x, WF_SHAPE(-1, -1));
}
static wf_node *r_div(wf_graph *g, wf_node *x) {
    return wf_reshape(g, x, WF_SHAPE(-1, 4));
}
static wf_node *r_axes(wf_graph *g, wf_node *x) {
    return wf_permute(g, x, (int[]){0, 0});
}
static wf_node *r_axis(wf_graph *g, wf_node *x) {
    return wf_transpose(g, x, 0, 2);
}
static wf_node *r_slice(wf_graph *g, wf_node *x) {
    return wf_slice(g, x, 1, 2, 2);
}
static wf_node *r_start(wf_graph *g, wf_node *x) {
    return wf_slice(g, x, 1, -1, 2);
}
static wf_node *r_over(wf_graph *g, wf_node *x) {
    return wf_slice(g, x, 1, 2, INT64_MAX);
}
static wf_node *r_expand(wf_graph *g, wf_node *x) {
    return wf_expand(g, x, WF_SHAPE(4, 3));
}
static wf_node *r_rank(wf_graph *g, wf_node *x) {
    return wf_expand(g, x, WF_SHAPE(3));
}
static wf_node *r_squeeze(wf_graph *g, wf_node *x) {
    return wf_squeeze(g, x, 0);
}
static wf_node *r_unsq(wf_graph *g, wf_node *x) {
    return wf_unsqueeze(g, x, 3);
}
static wf_node *r_assign(wf_graph *g, wf_node *x) {
    return wf_assign(g, wf_exp(g, x), x);
}
static wf_node *r_shape(wf_graph *g, wf_node *x) {
    return wf_assign(g, x, wf_transpose(g, x, 0, 1));
}
static wf_node *r_output(wf_graph *g, wf_node *x) {
    (void)g;
    return wf_output(x, 1);
}
static wf_node *r_leaf(wf_graph *g, wf_node *x) {
    (void)x;
    return wf_leaf(g, NULL, "w");
}
static wf_node *r_custom(wf_graph *g, wf_node *x) {
    return wf_custom(g, x, &x, 1, NULL, NULL);
}

static void bad_calls_are_refused(void **state UNUSED) {
    const struct {
        refused call;
        const char *part;
    } bad[] = {{r_count, "reshape: [2, 3]"},
               {r_two, "reshape"},
               {r_div, "reshape"},
               {r_axes, "permute"},
               {r_axis, "transpose: axis 2 of [2, 3]"},
               {r_slice, "slice: 2 elements from 2"},
               {r_start, "slice"},
               {r_over, "slice"},
               {r_expand, "expand: [2, 3]"},
               {r_rank, "expand"},
               {r_squeeze, "squeeze: axis 0 of [2, 3]"},
               {r_unsq, "unsqueeze"},
               {r_assign, "assign"},
               {r_shape, "assign"},
               {r_output, "output 1 of 1"},
               {r_leaf, "leaf w"},
               {r_custom, "custom"}};
    wf_tensor *t = ramp(WF_F64, WF_SHAPE(2, 3), 1, 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        wf_graph *g = wf_graph_open();
        assert_null(bad[i].call(g, wf_leaf(g, t, "x")));
        if (!strstr(wf_graph_message(g), bad[i].part)) fail_msg("'%s' does not say '%s'", wf_graph_message(g), bad[i].part);
        assert_int_not_equal(wf_graph_status(g), WF_OK);
        wf_graph_free(g);
    }
    wf_tensor_free(t);
    wf_graph_free(NULL);
    assert_null(wf_add(NULL, NULL, NULL));
}

static void nodes_of_two_graphs_do_not_mix(void **state UNUSED) {
    wf_graph *g = wf_graph_open(), *h = wf_graph_open();
    wf_tensor *t = ramp(WF_F64, WF_SHAPE(3), 1, 1);
    wf_node *x = wf_leaf(g, t, "x"), *y = wf_leaf(h, t, "x"), *d;
    assert_int_not_equal(wf_grad(g, &y, &y, 1, &x, 1, &d), WF_OK);
    assert_null(wf_plan_new(g, &y, 1, NULL, 0, NULL));
    assert_int_equal(wf_graph_status(g), WF_OK); /* a refused plan leaves the graph as it was */
    assert_null(wf_add(g, x, y));
    wf_graph_free(g);
    wf_graph_free(h);
    wf_tensor_free(t);
}

/* ---- views ---- */

static void views_share_their_base(void **state UNUSED) {
    wf_graph *g = wf_graph_open();
    wf_tensor *t = ramp(WF_F64, WF_SHAPE(2, 3, 4), 0, 1);
    wf_node *x = wf_leaf(g, t, "x");
    wf_node *p = wf_permute(g, x, (int[]){2, 0, 1}), *s = wf_slice(g, p, 0, 1, 2), *v = wf_transpose(g, s, 1, 2);
    assert_ptr_equal(v->base, x);
    assert_true(wf_is_view(v) && !wf_is_dense(v) && !wf_is_view(x) && wf_is_dense(x));
    assert_int_equal(v->offset, 1);
    assert_int_equal(v->stride[0], 1);
    assert_int_equal(v->stride[1], 4);
    assert_int_equal(v->stride[2], 12);
    /* strides that allow it: no copy */
    assert_ptr_equal(wf_reshape(g, x, WF_SHAPE(6, -1))->base, x);
    wf_node *head = wf_reshape(g, wf_slice(g, x, 2, 0, 2), WF_SHAPE(6, 2));
    assert_ptr_equal(head->base, x);
    assert_int_equal(head->stride[0], 4);
    wf_node *split = wf_reshape(g, wf_transpose(g, x, 0, 2), WF_SHAPE(2, 2, 3, 2));
    assert_ptr_equal(split->base, x);
    assert_ptr_equal(wf_reshape(g, wf_expand(g, wf_slice(g, x, 2, 0, 1), WF_SHAPE(2, 3, 5)), WF_SHAPE(6, 5))->base, x);
    /* strides that forbid it: a copy */
    wf_node *copy = wf_reshape(g, wf_transpose(g, x, 0, 2), WF_SHAPE(24));
    assert_ptr_not_equal(copy->base, x);
    double want[24], want2[12];
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 3; j++)
            for (int k = 0; k < 2; k++) want[(i * 3 + j) * 2 + k] = k * 12 + j * 4 + i;
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 3; j++)
            for (int k = 0; k < 2; k++) want2[(i * 3 + j) * 2 + k] = k * 12 + j * 4 + i + 1;
    wf_node *outs[] = {copy, v}; /* v is made dense for wf_plan_out */
    expect(g, outs, 2, (const double *[]){want, want2});
    wf_graph_free(g);
    wf_tensor_free(t);
}

/* Every reshape of every permutation agrees with index arithmetic, view or copy. */
static void reshapes_of_permutations(void **state UNUSED) {
    static const int perm[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    const wf_shape to[] = {WF_SHAPE(24),   WF_SHAPE(4, 6),        WF_SHAPE(6, 4),         WF_SHAPE(2, 2, 6),
                           WF_SHAPE(3, 8), WF_SHAPE(1, 12, 1, 2), WF_SHAPE(2, 1, 3, 2, 2)};
    const int64_t dim[3] = {2, 3, 4}, stride[3] = {12, 4, 1};
    wf_tensor *t = ramp(WF_F64, WF_SHAPE(2, 3, 4), 0, 1);
    wf_graph *g = wf_graph_open();
    wf_node *x = wf_leaf(g, t, "x");
    for (int p = 0; p < 6; p++) {
        double want[24];
        int64_t i = 0;
        for (int64_t a = 0; a < dim[perm[p][0]]; a++)
            for (int64_t b = 0; b < dim[perm[p][1]]; b++)
                for (int64_t c = 0; c < dim[perm[p][2]]; c++)
                    want[i++] = (double)(a * stride[perm[p][0]] + b * stride[perm[p][1]] + c * stride[perm[p][2]]);
        for (size_t s = 0; s < sizeof to / sizeof *to; s++) {
            wf_node *y = wf_reshape(g, wf_permute(g, x, perm[p]), to[s]);
            assert_non_null(y);
            expect(g, &y, 1, (const double *[]){want});
        }
    }
    wf_graph_free(g);
    wf_tensor_free(t);
}

static wf_node *g_views(wf_graph *g, wf_node **x, void *c UNUSED) {
    wf_node *p = wf_permute(g, x[0], (int[]){2, 0, 1}), *s = wf_slice(g, p, 0, 1, 2);
    return wf_mul(g, wf_reshape(g, s, WF_SHAPE(12)), wf_reshape(g, wf_expand(g, x[1], WF_SHAPE(4, 3)), WF_SHAPE(12)));
}
static wf_node *g_diamond(wf_graph *g, wf_node **x, void *c UNUSED) {
    wf_node *e = wf_exp(g, x[0]), *a = wf_mul(g, e, x[1]), *b = wf_tanh(g, wf_add(g, e, a));
    return wf_add(g, wf_mul(g, a, b), wf_mul(g, b, wf_mul(g, e, b)));
}
static wf_node *g_shared(wf_graph *g, wf_node **x, void *c UNUSED) {
    wf_node *h = x[0];
    for (int i = 0; i < 3; i++) h = wf_tanh(g, wf_add(g, wf_mul(g, h, x[1]), x[2])); /* one layer, used three times */
    return h;
}

/* Slices in any order, adjoining, overlapping, with gaps. */
static wf_node *g_slices(wf_graph *g, wf_node **x, void *c UNUSED) {
    wf_node *q = wf_slice(g, x[0], 1, 4, 2), *k = wf_slice(g, x[0], 1, 0, 2), *v = wf_slice(g, x[0], 1, 2, 2),
            *o = wf_slice(g, x[0], 1, 5, 2);
    return wf_add(g, wf_mul(g, wf_mul(g, q, k), wf_exp(g, v)), wf_mul(g, o, k));
}

static void gradients_of_adjoining_slices_are_one_operator(void **state UNUSED) {
    wf_graph *g = wf_graph_open();
    wf_tensor *t = ramp(WF_F64, WF_SHAPE(2, 6), 1, 0.1);
    wf_node *x = wf_leaf(g, t, "x"), *part[3], *d;
    for (int i = 0; i < 3; i++) part[i] = wf_slice(g, x, 1, 2 * i, 2);
    wf_node *y = wf_sum_all(g, wf_mul(g, wf_mul(g, part[2], part[0]), part[1]));
    MUST(wf_grad(g, &y, NULL, 1, &x, 1, &d));
    assert_string_equal(d->op->name, "unslice");
    assert_int_equal(d->n_in, 3);
    wf_graph_free(g);
    wf_tensor_free(t);
}

static void gradients_of_views_diamonds_and_shared_weights(void **state UNUSED) {
    assert_true(gc_check(&(gc_case){
        .name = "views", .build = g_views, .n = 2, .shape = {WF_SHAPE(2, 3, 4), WF_SHAPE(1, 3)}, .seed = 1, .second = true}));
    assert_true(gc_check(
        &(gc_case){.name = "slices", .build = g_slices, .n = 1, .shape = {WF_SHAPE(3, 8)}, .seed = 4, .second = true}));
    assert_true(gc_check(&(gc_case){
        .name = "diamond", .build = g_diamond, .n = 2, .shape = {WF_SHAPE(3, 5), WF_SHAPE(5)}, .seed = 2, .second = true}));
    assert_true(gc_check(&(gc_case){.name = "shared",
                                    .build = g_shared,
                                    .n = 3,
                                    .shape = {WF_SHAPE(4, 3), WF_SHAPE(3), WF_SHAPE(1)},
                                    .seed = 3,
                                    .second = true}));
}

/* ---- differentiation ---- */

static void cube_to_third_order(void **state UNUSED) {
    wf_graph *g = wf_graph_open();
    wf_tensor *t = ramp(WF_F64, WF_SHAPE(3), 1.5, 1);
    wf_node *x = wf_leaf(g, t, "x"), *y = wf_sum_all(g, wf_mul(g, wf_mul(g, x, x), x)), *d[3], *from = y;
    for (int k = 0; k < 3; k++) {
        assert_int_equal(wf_grad(g, &from, NULL, 1, &x, 1, &d[k]), WF_OK);
        from = wf_sum_all(g, d[k]);
    }
    double w[3][3];
    for (int i = 0; i < 3; i++) {
        double v = 1.5 + i;
        w[0][i] = 3 * v * v, w[1][i] = 6 * v, w[2][i] = 6;
    }
    expect(g, d, 3, (const double *[]){w[0], w[1], w[2]});
    wf_graph_free(g);
    wf_tensor_free(t);
}

static void gradients_of_what_does_not_matter_are_zero(void **state UNUSED) {
    wf_graph *g = wf_graph_open();
    wf_tensor *t = ramp(WF_F64, WF_SHAPE(2), 1, 1), *u = ramp(WF_F64, WF_SHAPE(2), 5, 1);
    wf_node *x = wf_leaf(g, t, "x"), *y = wf_leaf(g, u, "y");
    wf_node *z = wf_add(g, wf_mul(g, x, wf_stop_gradient(g, x)), wf_mul(g, wf_lt(g, x, y), y));
    wf_node *wrt[] = {x, y, wf_exp(g, x)}, *d[3];
    wf_node *s = wf_sum_all(g, z);
    assert_int_equal(wf_grad(g, &s, NULL, 1, wrt, 3, d), WF_OK);
    expect(g, d, 3, (const double *[]){(double[]){1, 2}, (double[]){1, 1}, (double[]){0, 0}});
    wf_graph_free(g);
    wf_tensor_free(t);
    wf_tensor_free(u);
}

static void gradients_by_intermediate_nodes_and_of_several_outputs(void **state UNUSED) {
    wf_graph *g = wf_graph_open();
    wf_tensor *t = ramp(WF_F64, WF_SHAPE(2), 1, 1), *u = ramp(WF_F64, WF_SHAPE(2), 10, 10);
    wf_node *x = wf_leaf(g, t, "x"), *h = wf_mul(g, x, x), *a = wf_mul(g, h, x), *seed = wf_leaf(g, u, "seed");
    wf_node *outs[] = {a, h, a}, *seeds[] = {seed, seed, seed}, *wrt[] = {x, h, a}, *d[3];
    assert_int_equal(wf_grad(g, outs, seeds, 3, wrt, 3, d), WF_OK);
    /* <s, 2 x^3 + x^2>: dx = s (6 x^2 + 2 x); dh = s (2 x + 1); da = 2 s */
    expect(g, d, 3, (const double *[]){(double[]){80, 560}, (double[]){30, 100}, (double[]){20, 40}});
    wf_graph_free(g);
    wf_tensor_free(t);
    wf_tensor_free(u);
}

static void gradient_calls_that_make_no_sense(void **state UNUSED) {
    wf_graph *g = wf_graph_open();
    wf_tensor *t = ramp(WF_F64, WF_SHAPE(2), 1, 1), *i = ramp(WF_I32, WF_SHAPE(2), 0, 1);
    wf_node *x = wf_leaf(g, t, "x"), *k = wf_leaf(g, i, "k"), *y = wf_exp(g, x), *d, *missing = NULL, *s = wf_sum_all(g, y);
    assert_int_equal(wf_grad(g, &y, NULL, 1, &x, 1, &d), WF_EINVAL);
    assert_non_null(strstr(wf_message(), "[2] is not a scalar"));
    assert_int_equal(wf_grad(g, &s, NULL, 1, &k, 1, &d), WF_EINVAL);
    assert_non_null(strstr(wf_message(), "int32"));
    assert_int_equal(wf_grad(g, &missing, NULL, 1, &x, 1, &d), WF_EINVAL);
    assert_int_equal(wf_grad(g, &s, NULL, 1, &missing, 1, &d), WF_EINVAL);
    assert_int_equal(wf_graph_status(g), WF_OK);
    assert_int_equal(wf_grad(g, &y, &s, 1, &x, 1, &d), WF_EINVAL); /* the seed's shape */
    assert_non_null(strstr(wf_message(), "seed"));
    wf_graph_free(g);
    wf_tensor_free(t);
    wf_tensor_free(i);
}

static void scopes_of_backward_nodes(void **state UNUSED) {
    wf_graph *g = wf_graph_open();
    wf_tensor *t = ramp(WF_F64, WF_SHAPE(2), 1, 1);
    wf_node *x = wf_leaf(g, t, "x"), *d;
    wf_scope_push(g, "blocks.0");
    wf_scope_push(g, "mlp");
    wf_node *y = wf_sum_all(g, wf_square(g, wf_exp(g, x)));
    assert_string_equal(y->scope, "blocks.0.mlp");
    wf_scope_pop(g);
    assert_string_equal(wf_add(g, x, y)->scope, "blocks.0");
    wf_scope_pop(g);
    wf_scope_pop(g); /* one too many does no harm */
    assert_int_equal(wf_grad(g, &y, NULL, 1, &x, 1, &d), WF_OK);
    assert_string_equal(d->scope, "blocks.0.mlp'");
    assert_string_equal(wf_exp(g, y)->scope, "");
    wf_graph_free(g);
    wf_tensor_free(t);
}

/* Of an operator with several outputs only one may matter; the other's gradient is then NULL and not a neighbour's. */
static wf_node *g_first_output(wf_graph *g, wf_node **x, void *target) {
    return wf_exp(g, wf_cross_entropy(g, x[0], wf_leaf(g, target, "target"), 0));
}

static void gradients_of_one_output_of_several(void **state UNUSED) {
    wf_tensor *t = ramp(WF_I32, WF_SHAPE(4), 0, 1);
    assert_true(gc_check(&(gc_case){.name = "first output",
                                    .build = g_first_output,
                                    .ctx = t,
                                    .n = 1,
                                    .shape = {WF_SHAPE(4, 5)},
                                    .seed = 9,
                                    .second = true}));
    wf_tensor_free(t);
}

/* y = x^2 forward; backward pretends y = 5 x + 7 w */
static wf_status pretend(wf_graph *g, void *ctx, wf_node *value, wf_node *const *in, int n_in, wf_node *gout, wf_node **gin) {
    assert_int_equal(n_in, 2);
    assert_non_null(value);
    assert_non_null(in[1]);
    gin[0] = wf_mul_c(g, gout, *(double *)ctx);
    gin[1] = wf_sum_to(g, wf_mul_c(g, gout, 7), &in[1]->shape);
    return wf_graph_status(g);
}

static void custom_derivatives(void **state UNUSED) {
    wf_graph *g = wf_graph_open();
    wf_tensor *t = ramp(WF_F64, WF_SHAPE(2), 3, 1), *u = ramp(WF_F64, WF_SHAPE(1), 1, 1);
    wf_node *x = wf_leaf(g, t, "x"), *w = wf_leaf(g, u, "w"), *d[2];
    double five = 5;
    wf_node *y = wf_custom(g, wf_square(g, x), (wf_node *[]){x, w}, 2, pretend, &five), *s = wf_sum_all(g, y);
    assert_int_equal(wf_grad(g, &s, NULL, 1, (wf_node *[]){x, w}, 2, d), WF_OK);
    expect(g, (wf_node *[]){y, d[0], d[1]}, 3, (const double *[]){(double[]){9, 16}, (double[]){5, 5}, (double[]){14}});
    wf_graph_free(g);
    wf_tensor_free(t);
    wf_tensor_free(u);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dtypes_and_shapes),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(tensor_elements),
        cmocka_unit_test(equal_nodes_are_one),
        cmocka_unit_test(errors_name_operator_shapes_and_scope),
        cmocka_unit_test(bad_calls_are_refused),
        cmocka_unit_test(nodes_of_two_graphs_do_not_mix),
        cmocka_unit_test(views_share_their_base),
        cmocka_unit_test(reshapes_of_permutations),
        cmocka_unit_test(gradients_of_views_diamonds_and_shared_weights),
        cmocka_unit_test(gradients_of_adjoining_slices_are_one_operator),
        cmocka_unit_test(cube_to_third_order),
        cmocka_unit_test(gradients_of_what_does_not_matter_are_zero),
        cmocka_unit_test(gradients_by_intermediate_nodes_and_of_several_outputs),
        cmocka_unit_test(gradient_calls_that_make_no_sense),
        cmocka_unit_test(scopes_of_backward_nodes),
        cmocka_unit_test(gradients_of_one_output_of_several),
        cmocka_unit_test(custom_derivatives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
