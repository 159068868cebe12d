/* test_plan.c: planning and running: memory reuse, recomputation, assignments, several plans, limits, checks, accounts. */
#include "check.h"

#include <math.h>

#include "graph/planned.h"
#include "op/op.h"

#define UNUSED __attribute__((unused))

enum { LAYERS = 6, ROWS = 40, WIDTH = 32 };

static void fill_random(wf_tensor *t, uint64_t stream) {
    wf_rng r = {11, stream, 0};
    for (int64_t i = 0; i < wf_tensor_count(t); i++) wf_tensor_set(t, i, wf_rng_normal(&r) * 0.3);
}

static wf_plan *plan_of(wf_graph *g, wf_node *const *outs, int n, wf_node *const *effects, int m, const wf_plan_options *o) {
    wf_plan *p = wf_plan_new(g, outs, n, effects, m, o);
    if (!p) fail_msg("%s", wf_message());
    return p;
}

static void run(wf_plan *p) {
    MUST(wf_plan_run(p));
}

/* ---- a small network of row operators and a product by broadcasting: x <- x + tanh(norm(x) * w + b) * v ---- */

typedef struct net {
    wf_graph *g;
    wf_tensor *x, *w[3 * LAYERS];
    wf_node *loss, *grad[3 * LAYERS + 1];
} net;

static wf_node *block(wf_graph *g, wf_node *x, wf_node *w, wf_node *b, wf_node *v) {
    wf_node *m = wf_mean(g, x, 2, true), *c = wf_sub(g, x, m);
    wf_node *r = wf_rsqrt(g, wf_add_c(g, wf_mean(g, wf_square(g, c), 2, true), 1e-5));
    wf_node *h = wf_tanh(g, wf_add(g, wf_mul(g, wf_mul(g, c, r), w), b));
    return wf_add(g, x, wf_mul(g, wf_contiguous(g, wf_flip(g, h, 1)), v)); /* flip: not a row operator */
}

static void net_open_as(net *n, bool recompute, wf_dtype t, bool keep_all) {
    wf_node *wrt[3 * LAYERS + 1];
    n->g = wf_graph_open();
    n->g->keep_all = keep_all;
    n->x = wf_tensor_new(t, WF_SHAPE(ROWS, WIDTH));
    fill_random(n->x, 99);
    wf_node *x = wrt[3 * LAYERS] = wf_leaf(n->g, n->x, "x");
    for (int l = 0; l < LAYERS; l++) {
        for (int k = 0; k < 3; k++) {
            n->w[3 * l + k] = wf_tensor_new(t, WF_SHAPE(WIDTH));
            fill_random(n->w[3 * l + k], (uint64_t)(3 * l + k));
            wrt[3 * l + k] = wf_leaf(n->g, n->w[3 * l + k], "w");
        }
        if (recompute) wf_recompute_begin(n->g);
        x = block(n->g, x, wrt[3 * l], wrt[3 * l + 1], wrt[3 * l + 2]);
        if (recompute) wf_recompute_end(n->g);
    }
    n->loss = wf_sum_all(n->g, wf_square(n->g, x));
    MUST(wf_grad(n->g, &n->loss, NULL, 1, wrt, 3 * LAYERS + 1, n->grad));
}

static void net_open(net *n, bool recompute, wf_dtype t) {
    net_open_as(n, recompute, t, false);
}

static void net_close(net *n) {
    wf_graph_free(n->g);
    wf_tensor_free(n->x);
    for (int k = 0; k < 3 * LAYERS; k++) wf_tensor_free(n->w[k]);
}

/* All results of a run, one behind the other; the caller frees. */
static char *results(net *n, const wf_plan_options *o, size_t *bytes, wf_plan_info *info) {
    wf_node *outs[3 * LAYERS + 2];
    memcpy(outs, n->grad, sizeof n->grad);
    outs[3 * LAYERS + 1] = n->loss;
    wf_plan *p = plan_of(n->g, outs, 3 * LAYERS + 2, NULL, 0, o);
    memset(p->memory, 0xff, p->memory_bytes); /* NaN: a result that reads dead or unwritten memory is seen */
    run(p);
    run(p);
    wf_text t = {0};
    for (int k = 0; k < 3 * LAYERS + 2; k++) wf_text_put(&t, wf_plan_out(p, k), wf_node_bytes(outs[k]));
    *bytes = t.n;
    wf_plan_describe(p, info);
    wf_plan_free(p);
    return t.s;
}

static void reuse_changes_no_byte(void **state UNUSED) {
    net n;
    size_t a, b;
    wf_plan_info reuse, apart;
    net_open(&n, false, WF_F32);
    char *x = results(&n, NULL, &a, &reuse), *y = results(&n, &(wf_plan_options){.no_reuse = true}, &b, &apart);
    assert_int_equal(a, b);
    assert_memory_equal(x, y, a);
    assert_true(reuse.arena_bytes < apart.arena_bytes);
    assert_true(reuse.arena_bytes >= reuse.live_bytes && reuse.arena_bytes <= reuse.live_bytes + reuse.live_bytes / 10);
    wf_free(x);
    wf_free(y);
    net_close(&n);
}

static void fusion_changes_little(void **state UNUSED) {
    net n;
    size_t a, b;
    wf_plan_info fused, single;
    net_open(&n, false, WF_F64);
    double *x = (double *)results(&n, NULL, &a, &fused),
           *y = (double *)results(&n, &(wf_plan_options){.no_fusion = true}, &b, &single);
    for (size_t i = 0; i < a / sizeof *x; i++)
        if (!(fabs(x[i] - y[i]) <= 1e-12 * (1 + fabs(y[i])))) fail_msg("%zu: %g, not %g", i, x[i], y[i]);
    assert_true(fused.steps <= single.steps);
    assert_true(fused.arena_bytes <= single.arena_bytes);
    wf_free(x);
    wf_free(y);
    net_close(&n);
}

/* A sum over rows of one number each, of values that others see as columns. */
static void sums_over_rows_of_one_number(void **state UNUSED) {
    wf_graph *g = wf_graph_open();
    wf_tensor *t = wf_tensor_new(WF_F32, WF_SHAPE(2, 6));
    for (int i = 0; i < 12; i++) wf_tensor_set(t, i, i % 6 + 10 * (i / 6));
    wf_node *k = wf_mul_c(g, wf_leaf(g, t, "x"), 2), *sum = wf_sum(g, wf_unsqueeze(g, k, 2), 1u << 1, false);
    wf_node *out[2] = {wf_mul_c(g, k, 3), sum};
    wf_plan *p = plan_of(g, out, 2, NULL, 0, NULL);
    run(p);
    const float *v = wf_plan_out(p, 1);
    assert_true(v[0] == 30 && v[1] == 150);
    wf_plan_free(p);
    wf_graph_free(g);
    wf_tensor_free(t);
}

static void recomputation_gives_the_same_gradients_in_less_memory(void **state UNUSED) {
    net keep, again;
    size_t a, b;
    wf_plan_info i, j;
    net_open(&keep, false, WF_F64);
    net_open(&again, true, WF_F64);
    double *x = (double *)results(&keep, NULL, &a, &i), *y = (double *)results(&again, NULL, &b, &j);
    assert_int_equal(a, b);
    for (size_t k = 0; k < a / sizeof *x; k++)
        if (!(fabs(x[k] - y[k]) <= 1e-12 * (1 + fabs(y[k])))) fail_msg("%zu: %g, not %g", k, x[k], y[k]);
    if (j.arena_bytes >= i.arena_bytes)
        fail_msg("recomputation needs %zu bytes, keeping needs %zu", j.arena_bytes, i.arena_bytes);
    assert_true(j.flops > i.flops);
    wf_free(x);
    wf_free(y);
    net_close(&keep);
    net_close(&again);
}

/* What the backward pass computes again gives the same numbers in less memory. */
static void rematerialisation_changes_little(void **state UNUSED) {
    net keep, again;
    size_t a, b;
    wf_plan_info i, j;
    net_open_as(&keep, false, WF_F32, true);
    net_open_as(&again, false, WF_F32, false);
    char *x = results(&keep, NULL, &a, &i), *y = results(&again, NULL, &b, &j);
    assert_int_equal(a, b);
    const float *u = (float *)x, *v = (float *)y;
    for (size_t k = 0; k < a / sizeof *u; k++)
        if (!(fabsf(u[k] - v[k]) <= 1e-5f * (1 + fabsf(u[k])))) fail_msg("%zu: %g, not %g", k, v[k], u[k]);
    if (j.arena_bytes * 4 > i.arena_bytes * 3)
        fail_msg("%zu bytes of arena, %zu when everything is kept", j.arena_bytes, i.arena_bytes);
    wf_free(x);
    wf_free(y);
    net_close(&keep);
    net_close(&again);
}

/* A node that a custom derivative left with its caller means its new form once the backward pass was built again. */
static wf_status leave_square(wf_graph *g, void *ctx, wf_node *value, wf_node *const *in, int n_in, wf_node *gout,
                              wf_node **gin) {
    (void)in;
    (void)n_in;
    gin[0] = wf_mul(g, gout, value);
    *(wf_node **)ctx = wf_square(g, gin[0]);
    return wf_graph_status(g);
}

static void handles_outlive_rebuilding(void **state UNUSED) {
    wf_graph *g = wf_graph_open();
    wf_tensor *t = wf_tensor_new(WF_F64, WF_SHAPE(4)), *u = wf_tensor_new(WF_F64, WF_SHAPE(4));
    for (int i = 0; i < 4; i++) wf_tensor_set(t, i, 0.5 + i);
    wf_node *x = wf_leaf(g, t, "x"), *s = wf_leaf(g, u, "s"), *left = NULL, *d;
    wf_node *h = wf_exp(g, wf_flip(g, x, 0)), *y = wf_custom(g, wf_tanh(g, h), &h, 1, leave_square, &left),
            *loss = wf_sum_all(g, wf_square(g, y));
    MUST(wf_grad(g, &loss, NULL, 1, &x, 1, &d));
    assert_non_null(left);
    assert_ptr_not_equal(wf_latest(left), left);
    wf_node *twice = wf_mul_c(g, left, 2), *e = wf_assign(g, s, left);
    wf_plan *p = plan_of(g, (wf_node *[]){d, left, twice}, 3, &e, 1, NULL);
    run(p);
    int tanhs = 0;
    for (int i = 0; i < p->n_order; i++) tanhs += p->order[i]->op && !strcmp(p->order[i]->op->name, "tanh");
    assert_true(tanhs <= 1); /* one backward pass, not both forms of it */
    for (int i = 0; i < 4; i++) {
        double v = tanh(exp(3.5 - i)), want = 4 * v * v * v * v;
        assert_true(fabs(((const double *)wf_plan_out(p, 1))[i] - want) < 1e-12);
        assert_true(fabs(((const double *)wf_plan_out(p, 2))[i] - 2 * want) < 1e-12);
        assert_true(fabs(wf_tensor_get(u, i) - want) < 1e-12);
    }
    wf_plan_free(p);
    wf_graph_free(g);
    wf_tensor_free(t);
    wf_tensor_free(u);
}

/* The clones of a segment run behind the backward pass of the later layers, not at the start. */
static void clones_run_late(void **state UNUSED) {
    net n;
    net_open(&n, true, WF_F64);
    wf_plan *p = plan_of(n.g, n.grad, 3 * LAYERS + 1, NULL, 0, NULL);
    int flips = 0, first_scope = -1, last = 0;
    for (int s = 0; s < p->n_steps; s++) {
        if (p->step[s]->program || strcmp(p->step[s]->op->name, "flip") != 0) continue;
        flips++;
        last = s;
        if (flips == LAYERS) first_scope = s;
    }
    assert_true(flips >= 2 * LAYERS); /* each forward, once backward at least */
    assert_true(last > p->n_steps * 2 / 3);
    assert_true(first_scope < p->n_steps / 2);
    wf_plan_free(p);
    net_close(&n);
}

static wf_node *noise_block(wf_graph *g, wf_node *x, wf_node *seed, uint64_t stream) {
    return wf_tanh(g, wf_flip(g, wf_dropout(g, wf_exp(g, x), 0.5, seed, stream), 0));
}

static void recomputed_dropout_repeats_its_numbers(void **state UNUSED) {
    double grad[2][64];
    for (int k = 0; k < 2; k++) {
        wf_graph *g = wf_graph_open();
        wf_tensor *t = wf_tensor_new(WF_F64, WF_SHAPE(64)), *s = wf_tensor_new(WF_I32, WF_SHAPE(4));
        fill_random(t, 1);
        wf_tensor_set(s, 0, 7);
        wf_node *x = wf_leaf(g, t, "x"), *seed = wf_leaf(g, s, "seed"), *h = x, *d;
        for (int l = 0; l < 2; l++) {
            if (k) wf_recompute_begin(g);
            h = noise_block(g, h, seed, (uint64_t)l);
            if (k) wf_recompute_end(g);
        }
        wf_node *y = wf_sum_all(g, h);
        MUST(wf_grad(g, &y, NULL, 1, &x, 1, &d));
        wf_plan *p = plan_of(g, &d, 1, NULL, 0, NULL);
        run(p);
        memcpy(grad[k], wf_plan_out(p, 0), sizeof grad[k]);
        wf_plan_free(p);
        wf_graph_free(g);
        wf_tensor_free(t);
        wf_tensor_free(s);
    }
    int zeros = 0;
    for (int i = 0; i < 64; i++) {
        assert_true(fabs(grad[0][i] - grad[1][i]) < 1e-14);
        zeros += grad[0][i] == 0;
    }
    assert_true(zeros > 0 && zeros < 64);
}

/* ---- assignments ---- */

static void leaves_can_be_swapped(void **state UNUSED) {
    for (int reuse = 0; reuse < 2; reuse++) {
        wf_graph *g = wf_graph_open();
        wf_tensor *a = wf_tensor_new(WF_F64, WF_SHAPE(3)), *b = wf_tensor_new(WF_F64, WF_SHAPE(3)),
                  *c = wf_tensor_new(WF_F64, WF_SHAPE(3));
        for (int i = 0; i < 3; i++) wf_tensor_set(a, i, i), wf_tensor_set(b, i, 10 + i), wf_tensor_set(c, i, 100 + i);
        wf_node *x = wf_leaf(g, a, "a"), *y = wf_leaf(g, b, "b"), *z = wf_leaf(g, c, "c"), *out = x;
        wf_node *e[] = {wf_assign(g, x, y), wf_assign(g, y, x), wf_assign(g, z, wf_add(g, x, z))};
        wf_plan *p = plan_of(g, &out, 1, e, 3, &(wf_plan_options){.no_reuse = reuse});
        run(p);
        for (int i = 0; i < 3; i++) {
            assert_true(wf_tensor_get(a, i) == 10 + i && wf_tensor_get(b, i) == i && wf_tensor_get(c, i) == 100 + 2 * i);
            assert_true(((const double *)wf_plan_out(p, 0))[i] == i); /* results see the old value */
        }
        run(p);
        for (int i = 0; i < 3; i++)
            assert_true(wf_tensor_get(a, i) == i && wf_tensor_get(b, i) == 10 + i && wf_tensor_get(c, i) == 110 + 3 * i);
        wf_plan_free(p);
        wf_graph_free(g);
        wf_tensor_free(a);
        wf_tensor_free(b);
        wf_tensor_free(c);
    }
}

/* A later reader, a reader through a view of other order, and a value that is used further: all see the old value. */
static void readers_see_the_old_value(void **state UNUSED) {
    for (int k = 0; k < 4; k++) {
        wf_graph *g = wf_graph_open();
        wf_tensor *a = wf_tensor_new(WF_F64, WF_SHAPE(2, 2));
        for (int i = 0; i < 4; i++) wf_tensor_set(a, i, i + 1);
        wf_node *x = wf_leaf(g, a, "a"), *turned = wf_transpose(g, x, 0, 1);
        wf_node *value = wf_add(g, wf_mul_c(g, x, 2), turned); /* new = 2 x + x^T */
        wf_node *later = wf_flip(g, wf_mul(g, wf_flip(g, value, 0), x), 0), *e = wf_assign(g, x, value);
        wf_plan *p = plan_of(g, &later, 1, &e, 1, &(wf_plan_options){.no_reuse = k & 1, .no_fusion = k & 2});
        run(p);
        const double want[] = {3, 7, 8, 12}, *y = wf_plan_out(p, 0);
        const double product[] = {3 * 3, 7 * 4, 8 * 1, 12 * 2};
        for (int i = 0; i < 4; i++) {
            assert_true(wf_tensor_get(a, i) == want[i]);
            assert_true(y[i] == product[i]);
        }
        wf_plan_free(p);
        wf_graph_free(g);
        wf_tensor_free(a);
    }
}

/* An optimizer update in small operators writes its states in place: no arena for them, no copies. */
static void updates_run_in_place(void **state UNUSED) {
    double result[2][3];
    enum { N = 4096 };
    for (int reuse = 0; reuse < 2; reuse++) {
        wf_graph *g = wf_graph_open();
        wf_tensor *t[4];
        for (int k = 0; k < 4; k++) {
            t[k] = wf_tensor_new(WF_F32, WF_SHAPE(N));
            fill_random(t[k], (uint64_t)k);
            for (int i = 0; k == 2 && i < N; i++) wf_tensor_set(t[k], i, fabs(wf_tensor_get(t[k], i)));
        }
        wf_node *w = wf_leaf(g, t[0], "w"), *m = wf_leaf(g, t[1], "m"), *v = wf_leaf(g, t[2], "v"), *d = wf_leaf(g, t[3], "d");
        wf_node *m2 = wf_add(g, wf_mul_c(g, m, 0.9), wf_mul_c(g, d, 0.1)),
                *v2 = wf_add(g, wf_mul_c(g, v, 0.99), wf_mul_c(g, wf_square(g, d), 0.01));
        wf_node *step = wf_div(g, m2, wf_add_c(g, wf_sqrt(g, v2), 1e-8)), *w2 = wf_sub(g, w, wf_mul_c(g, step, 1e-3));
        wf_node *e[] = {wf_assign(g, w, w2), wf_assign(g, m, m2), wf_assign(g, v, v2)};
        wf_plan *p = plan_of(g, NULL, 0, e, 3, &(wf_plan_options){.no_reuse = !reuse});
        wf_plan_info info;
        wf_plan_describe(p, &info);
        if (reuse && info.fused_nodes > 0) {
            assert_int_equal(info.steps, 1);
            assert_int_equal(info.arena_bytes, 0);
            assert_true(info.bytes == 7.0 * N * 4); /* four read, three written */
        }
        run(p);
        run(p);
        for (int k = 0; k < 3; k++) result[reuse][k] = wf_tensor_get(t[k], 1234);
        wf_plan_free(p);
        wf_graph_free(g);
        for (int k = 0; k < 4; k++) wf_tensor_free(t[k]);
    }
    assert_memory_equal(result[0], result[1], sizeof result[0]);
}

static void assignment_errors(void **state UNUSED) {
    wf_graph *g = wf_graph_open();
    wf_tensor *a = wf_tensor_new(WF_F64, WF_SHAPE(2));
    wf_node *x = wf_leaf(g, a, "a"), *e[] = {wf_assign(g, x, wf_exp(g, x)), wf_assign(g, x, wf_neg(g, x))};
    assert_null(wf_plan_new(g, NULL, 0, e, 2, NULL));
    MESSAGE_HAS("leaf a is assigned twice");
    wf_plan_free(plan_of(g, NULL, 0, (wf_node *[]){e[0], e[0]}, 2, NULL)); /* the same one twice is one */
    wf_node *none = NULL;
    assert_null(wf_plan_new(g, &none, 1, NULL, 0, NULL));
    MESSAGE_HAS("output 0");
    assert_null(wf_plan_new(g, NULL, 0, &none, 1, NULL));
    MESSAGE_HAS("effect 0");
    wf_graph_free(g);
    wf_tensor_free(a);
}

/* ---- caches written in place ---- */

static void cache_writes_are_seen_by_later_readers(void **state UNUSED) {
    for (int k = 0; k < 2; k++) {
        wf_graph *g = wf_graph_open();
        wf_tensor *c = wf_tensor_new(WF_F64, WF_SHAPE(1, 4, 2)), *v = wf_tensor_new(WF_F64, WF_SHAPE(1, 1, 2)),
                  *at = wf_tensor_new(WF_I32, WF_SHAPE(1));
        wf_tensor_set(v, 0, 5), wf_tensor_set(v, 1, 6);
        wf_node *cache = wf_leaf(g, c, "cache"), *before = wf_mul_c(g, cache, 3);
        wf_node *now = wf_cache_write(g, cache, wf_leaf(g, v, "v"), wf_leaf(g, at, "at"), false);
        wf_node *outs[] = {wf_add(g, before, wf_mul_c(g, now, 100)), now, before};
        wf_plan *p = plan_of(g, outs, 3, NULL, 0, &(wf_plan_options){.no_fusion = k});
        for (int step = 0; step < 3; step++) {
            wf_tensor_set(at, 0, step);
            run(p);
        }
        const double *y = wf_plan_out(p, 0), *z = wf_plan_out(p, 1);
        const double want[] = {515, 618, 515, 618, 500, 600, 0, 0}; /* rows 0 and 1 were there before the third write */
        for (int i = 0; i < 8; i++) assert_true(y[i] == want[i]);
        assert_ptr_equal(z, c->data);
        assert_true(wf_tensor_get(c, 5) == 6);
        wf_plan_free(p);
        wf_graph_free(g);
        wf_tensor_free(c);
        wf_tensor_free(v);
        wf_tensor_free(at);
    }
}

/* ---- several outputs ---- */

static void outputs_nobody_asks_for(void **state UNUSED) {
    wf_graph *g = wf_graph_open();
    wf_tensor *a = wf_tensor_new(WF_F64, WF_SHAPE(4));
    const double v[] = {3, 9, 1, 5};
    memcpy(a->data, v, sizeof v);
    wf_node *x = wf_leaf(g, a, "a"), *top = wf_topk(g, x, 2), *which = wf_output(top, 1);
    assert_ptr_equal(which, wf_output(top, 1));
    assert_ptr_equal(top, wf_output(top, 0));
    for (int k = 0; k < 3; k++) {
        wf_node *outs[2] = {k == 1 ? which : top, which};
        wf_plan *p = plan_of(g, outs, k == 2 ? 2 : 1, NULL, 0, NULL);
        run(p);
        if (k != 1) assert_true(((const double *)wf_plan_out(p, 0))[1] == 5);
        if (k != 0) assert_int_equal(((const int32_t *)wf_plan_out(p, k == 2))[0], 1);
        wf_plan_free(p);
    }
    wf_graph_free(g);
    wf_tensor_free(a);
}

/* ---- plans side by side, leaves that move ---- */

static void plans_are_independent_and_read_leaves_when_they_run(void **state UNUSED) {
    wf_graph *g = wf_graph_open();
    wf_tensor *a = wf_tensor_new(WF_F64, WF_SHAPE(2));
    wf_node *x = wf_leaf(g, a, "a"), *y = wf_exp(g, x), *z = wf_mul_c(g, y, 2);
    wf_plan *p = plan_of(g, &y, 1, NULL, 0, NULL), *q = plan_of(g, &z, 1, NULL, 0, NULL);
    wf_node *later = wf_neg(g, z);
    wf_plan *r = plan_of(g, (wf_node *[]){later, x}, 2, NULL, 0, NULL);
    run(p), run(q), run(r);
    assert_true(*(const double *)wf_plan_out(p, 0) == 1 && *(const double *)wf_plan_out(q, 0) == 2 &&
                *(const double *)wf_plan_out(r, 0) == -2);
    assert_ptr_equal(wf_plan_out(r, 1), a->data);
    assert_null(wf_plan_out(r, 2));
    double other[2] = {1, 1}, *old = a->data;
    a->data = other; /* the caller swaps the tensor's memory */
    run(r);
    assert_true(fabs(*(const double *)wf_plan_out(r, 0) + 2 * exp(1)) < 1e-12);
    assert_true(*(const double *)wf_plan_out(q, 0) == 2);
    a->data = NULL;
    MUST_FAIL(wf_plan_run(r), WF_EINVAL, "leaf a has no data");
    a->data = old;
    wf_plan_free(q);
    run(p);
    wf_plan_free(p);
    wf_plan_free(r);
    wf_plan_free(NULL);
    wf_graph_free(g);
    wf_tensor_free(a);
}

static void empty_plans_and_empty_tensors(void **state UNUSED) {
    wf_graph *g = wf_graph_open();
    wf_plan *p = plan_of(g, NULL, 0, NULL, 0, NULL);
    run(p);
    wf_plan_free(p);
    wf_tensor *none = wf_tensor_new(WF_F64, WF_SHAPE(0, 3)), *some = wf_tensor_new(WF_F64, WF_SHAPE(2, 3));
    wf_node *x = wf_leaf(g, none, "none"), *y = wf_slice(g, wf_leaf(g, some, "some"), 0, 1, 0);
    wf_node *outs[] = {wf_reshape(g, x, WF_SHAPE(3, 0, 2)), y, wf_transpose(g, y, 0, 1)};
    p = plan_of(g, outs, 3, NULL, 0, NULL);
    run(p);
    for (int k = 0; k < 3; k++) assert_non_null(wf_plan_out(p, k));
    wf_plan_free(p);
    wf_graph_free(g);
    wf_tensor_free(none);
    wf_tensor_free(some);
}

/* ---- limits, checks, accounts ---- */

static void memory_limits(void **state UNUSED) {
    net n;
    wf_plan_info info;
    net_open(&n, false, WF_F32);
    wf_plan *p = plan_of(n.g, n.grad, 3 * LAYERS + 1, NULL, 0, NULL);
    wf_plan_describe(p, &info);
    wf_plan_free(p);
    assert_int_equal(info.leaf_bytes, (ROWS * WIDTH + 3 * LAYERS * WIDTH) * 4);
    size_t need = info.arena_bytes + info.leaf_bytes;
    p = plan_of(n.g, n.grad, 3 * LAYERS + 1, NULL, 0, &(wf_plan_options){.memory_limit = need});
    wf_plan_free(p);
    assert_null(wf_plan_new(n.g, n.grad, 3 * LAYERS + 1, NULL, 0, &(wf_plan_options){.memory_limit = need - 1}));
    char bytes[64];
    snprintf(bytes, sizeof bytes, "needs %zu bytes", need);
    MESSAGE_HAS(bytes);
    snprintf(bytes, sizeof bytes, "but %zu are allowed: 1 too many", need - 1);
    MESSAGE_HAS(bytes);
    net_close(&n);
}

static void the_checked_run_names_the_guilty(void **state UNUSED) {
    wf_graph *g = wf_graph_open();
    wf_tensor *a = wf_tensor_new(WF_F32, WF_SHAPE(5));
    for (int i = 0; i < 5; i++) wf_tensor_set(a, i, i + 1);
    wf_node *x = wf_leaf(g, a, "a");
    wf_scope_push(g, "blocks.7");
    wf_node *y = wf_flip(g, wf_log(g, x), 0);
    wf_scope_pop(g);
    wf_node *z = wf_exp(g, y);
    wf_plan *p = plan_of(g, (wf_node *[]){z, y}, 2, NULL, 0, NULL);
    MUST(wf_plan_run_checked(p));
    wf_tensor_set(a, 2, 0); /* log 0 = -Inf is legitimate */
    MUST(wf_plan_run_checked(p));
    wf_tensor_set(a, 2, -1);
    MUST_FAIL(wf_plan_run_checked(p), WF_ENONFINITE, "blocks.7: NaN in ");
    MESSAGE_HAS("log");
    MESSAGE_HAS("element 2");
    run(p); /* the plain run does not look */
    wf_tensor_set(a, 2, INFINITY);
    MUST_FAIL(wf_plan_run_checked(p), WF_ENONFINITE, "Inf in ");
    wf_plan_free(p);
    wf_graph_free(g);
    wf_tensor_free(a);
}

static void accounts_are_exact(void **state UNUSED) {
    wf_graph *g = wf_graph_open();
    wf_tensor *a = wf_tensor_new(WF_F32, WF_SHAPE(8, 16)), *b = wf_tensor_new(WF_F32, WF_SHAPE(16));
    wf_node *x = wf_leaf(g, a, "x"), *w = wf_leaf(g, b, "w");
    wf_scope_push(g, "here");
    wf_node *y = wf_mul(g, wf_exp(g, x), w);
    wf_scope_pop(g);
    wf_plan *p = plan_of(g, &y, 1, NULL, 0, NULL), *q = plan_of(g, &y, 1, NULL, 0, &(wf_plan_options){.no_fusion = true});
    wf_plan_info i, j;
    wf_plan_describe(p, &i);
    wf_plan_describe(q, &j);
    assert_true(i.flops == 2 * 128 && j.flops == 2 * 128);
    assert_true(j.bytes == 4 * (128 + 128 + 128 + 16 + 128));
    assert_int_equal(i.nodes, 2);
    assert_int_equal(i.leaf_bytes, 4 * (128 + 16));
    if (i.steps == 1) {
        assert_true(i.bytes == 4 * (128 + 16 + 128));
        assert_int_equal(i.fused_nodes, 2);
        assert_int_equal(i.arena_bytes, 512);
    }
    char *text = wf_plan_text(p);
    assert_non_null(strstr(text, "exp"));
    assert_non_null(strstr(text, "float32 [8, 16]@0  here"));
    wf_free(text);
    wf_plan_profile(q, true);
    run(q);
    run(q);
    text = wf_plan_profile_text(q);
    assert_non_null(strstr(text, "2 runs"));
    assert_non_null(strstr(text, "mul"));
    wf_free(text);
    wf_plan_free(p);
    wf_plan_free(q);
    wf_graph_free(g);
    wf_tensor_free(a);
    wf_tensor_free(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reuse_changes_no_byte),
        cmocka_unit_test(fusion_changes_little),
        cmocka_unit_test(sums_over_rows_of_one_number),
        cmocka_unit_test(recomputation_gives_the_same_gradients_in_less_memory),
        cmocka_unit_test(rematerialisation_changes_little),
        cmocka_unit_test(handles_outlive_rebuilding),
        cmocka_unit_test(clones_run_late),
        cmocka_unit_test(recomputed_dropout_repeats_its_numbers),
        cmocka_unit_test(leaves_can_be_swapped),
        cmocka_unit_test(readers_see_the_old_value),
        cmocka_unit_test(updates_run_in_place),
        cmocka_unit_test(assignment_errors),
        cmocka_unit_test(cache_writes_are_seen_by_later_readers),
        cmocka_unit_test(outputs_nobody_asks_for),
        cmocka_unit_test(plans_are_independent_and_read_leaves_when_they_run),
        cmocka_unit_test(memory_limits),
        cmocka_unit_test(the_checked_run_names_the_guilty),
        cmocka_unit_test(accounts_are_exact),
        cmocka_unit_test(empty_plans_and_empty_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
