/* test_linear_scan.c: the chunkwise scan against its recurrence, forward and backward: chunk borders, decay, states at entry and
 * exit, dtypes, views, threads, and cost that grows with the length. Kernels run directly here; test_attention_graph.c runs
 * them in plans. */
#include "op/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

typedef struct trial {
    const char *name;
    int64_t B, L, H, d, e;
    bool decay, state, gstate, views;
    double least; /* decays lie between this and 1 */
} trial;

typedef struct setup {
    trial t;
    double *q, *k, *v, *g, *s0, *go, *gs;    /* operands */
    double *o, *s, *dq, *dk, *dv, *dg, *ds0; /* by the recurrence */
    void *got[7];                            /* by the kernels: o, s, dq, dk, dv, dg, ds0 */
    wf_graph *graph;
    wf_tensor *leaf[8];
    int n_leaf;
    wf_node *forward, *backward;
} setup;

static double *numbers(int64_t n, uint64_t stream, double size) {
    double *x = calloc((size_t)n, sizeof *x);
    wf_rng r = {3, stream, 0};
    for (int64_t i = 0; i < n; i++) x[i] = (double)wf_bf16_to_f32(wf_f32_to_bf16((float)(size * wf_rng_normal(&r))));
    return x;
}

/* One head; S [L+1][d e] states, walked forth and back. */
static void reference_head(setup *w, int64_t b, int64_t h, double *S) {
    const trial *t = &w->t;
    int64_t L = t->L, H = t->H, d = t->d, e = t->e, de = d * e, unit = (b * H + h) * de;
    double *G = calloc((size_t)de, sizeof *G);
    for (int64_t i = 0; i < de; i++) S[i] = t->state ? w->s0[unit + i] : 0;
    for (int64_t l = 0; l < L; l++) {
        int64_t at = (b * L + l) * H + h;
        double g = t->decay ? w->g[at] : 1, *now = S + (l + 1) * de;
        for (int64_t i = 0; i < de; i++) now[i] = g * S[l * de + i] + w->k[at * d + i / e] * w->v[at * e + i % e];
        for (int64_t y = 0; y < e; y++) w->o[at * e + y] = 0;
        for (int64_t i = 0; i < de; i++) w->o[at * e + i % e] += w->q[at * d + i / e] * now[i];
    }
    memcpy(w->s + unit, S + L * de, (size_t)de * sizeof *S);
    for (int64_t i = 0; i < de; i++) G[i] = t->gstate ? w->gs[unit + i] : 0;
    for (int64_t l = L - 1; l >= 0; l--) {
        int64_t at = (b * L + l) * H + h;
        double g = t->decay ? w->g[at] : 1, dg = 0;
        for (int64_t i = 0; i < de; i++) {
            int64_t x = at * d + i / e, y = at * e + i % e;
            G[i] += w->q[x] * w->go[y];
            w->dq[x] += S[(l + 1) * de + i] * w->go[y];
            w->dk[x] += G[i] * w->v[y];
            w->dv[y] += G[i] * w->k[x];
            dg += G[i] * S[l * de + i];
            G[i] *= g;
        }
        w->dg[at] = dg;
    }
    memcpy(w->ds0 + unit, G, (size_t)de * sizeof *G);
    free(G);
}

static void reference(setup *w, const trial *t) {
    int64_t n = t->B * t->L * t->H, m = t->B * t->H * t->d * t->e;
    w->t = *t;
    w->q = numbers(n * t->d, 1, 0.5), w->k = numbers(n * t->d, 2, 0.5), w->v = numbers(n * t->e, 3, 1),
    w->go = numbers(n * t->e, 4, 1);
    w->s0 = numbers(m, 5, 1), w->gs = numbers(m, 6, 1), w->g = numbers(n, 7, 1);
    for (int64_t i = 0; i < n; i++) w->g[i] = i % 7 == 3 ? 1 : t->least + (1 - t->least) / (1 + exp(w->g[i]));
    for (int64_t i = 0; i < n; i++) w->g[i] = (double)wf_bf16_to_f32(wf_f32_to_bf16((float)w->g[i]));
    w->o = numbers(n * t->e, 1, 0), w->s = numbers(m, 1, 0), w->dq = numbers(n * t->d, 1, 0), w->dk = numbers(n * t->d, 1, 0);
    w->dv = numbers(n * t->e, 1, 0), w->dg = numbers(n, 1, 0), w->ds0 = numbers(m, 1, 0);
    double *S = calloc((size_t)((t->L + 1) * t->d * t->e), sizeof *S);
    for (int64_t b = 0; b < t->B; b++)
        for (int64_t h = 0; h < t->H; h++) reference_head(w, b, h, S);
    free(S);
}

static wf_node *leaf(setup *w, wf_dtype t, wf_shape s, const double *x) {
    wf_tensor *y = wf_tensor_new(t, s);
    for (int64_t i = 0; i < wf_tensor_count(y); i++) wf_tensor_set(y, i, x[i]);
    w->leaf[w->n_leaf++] = y;
    return wf_leaf(w->graph, y, "x");
}

/* [B,L,H,width], stored head-major when views are wanted */
static wf_node *operand(setup *w, wf_dtype t, int64_t width, const double *x) {
    int64_t B = w->t.B, L = w->t.L, H = w->t.H;
    if (!w->t.views) return leaf(w, t, WF_SHAPE(B, L, H, width), x);
    double *y = calloc((size_t)(B * L * H * width), sizeof *y);
    for (int64_t i = 0; i < B * L * H; i++) {
        int64_t b = i / (L * H), l = i / H % L, h = i % H;
        memcpy(y + ((b * H + h) * L + l) * width, x + i * width, (size_t)width * sizeof *y);
    }
    wf_node *n = wf_permute(w->graph, leaf(w, t, WF_SHAPE(B, H, L, width), y), (int[]){0, 2, 1, 3});
    free(y);
    return n;
}

static void run(wf_node *n, void **in, void **out) {
    wf_call c = {.node = n, .in = in, .out = out};
    assert_int_equal(n->op->prepare(n, &c.state), WF_OK);
    size_t bytes = n->op->scratch(n);
    c.scratch = aligned_alloc(64, (bytes + 127) / 64 * 64);
    memset(c.scratch, 0xff, bytes);
    assert_int_equal(n->op->forward(&c), WF_OK);
    free(c.scratch);
    n->op->release(c.state);
}

static void compute(setup *w, wf_dtype type) {
    const trial *t = &w->t;
    wf_dtype real = type == WF_F64 ? WF_F64 : WF_F32;
    wf_graph *g = w->graph = wf_graph_open();
    wf_node *q = operand(w, type, t->d, w->q), *k = operand(w, type, t->d, w->k), *v = operand(w, type, t->e, w->v);
    wf_node *decay = t->decay ? leaf(w, real, WF_SHAPE(t->B, t->L, t->H), w->g) : NULL;
    wf_node *state = t->state ? leaf(w, real, WF_SHAPE(t->B, t->H, t->d, t->e), w->s0) : NULL;
    w->forward = wf_linear_scan(g, q, k, v, decay, state);
    if (!w->forward) fail_msg("%s: %s", t->name, wf_graph_message(g));
    wf_node *go = operand(w, type, t->e, w->go),
            *gs = t->gstate ? leaf(w, real, WF_SHAPE(t->B, t->H, t->d, t->e), w->gs) : NULL, *grad[3];
    assert_int_equal(wf_grad(g, (wf_node *[]){w->forward, wf_output(w->forward, 1)}, (wf_node *[]){go, gs}, gs ? 2 : 1,
                             (wf_node *[]){q, k, v}, 3, grad),
                     WF_OK);
    w->backward = grad[0];
    while (strcmp(w->backward->op->name, "linear_scan_backward")) w->backward = w->backward->in[0];
    size_t n = (size_t)(t->B * t->L * t->H * (t->d + t->e)) * 8, m = (size_t)(t->B * t->H * t->d * t->e) * 8;
    for (int i = 0; i < 7; i++) {
        w->got[i] = malloc(n + m);
        memset(w->got[i], 0xff, n + m);
    }
    void *in[8];
    for (int x = 0; x < 2; x++) {
        wf_node *node = x ? w->backward : w->forward;
        for (int j = 0; j < node->n_in; j++)
            in[j] = (char *)node->in[j]->base->leaf->data + node->in[j]->offset * (int64_t)wf_dtype_size(node->in[j]->dtype);
        run(node, in, w->got + 2 * x);
    }
}

static double at(const void *x, wf_dtype t, int64_t i) {
    return t == WF_F64   ? ((const double *)x)[i]
           : t == WF_F32 ? (double)((const float *)x)[i]
                         : (double)wf_bf16_to_f32(((const uint16_t *)x)[i]);
}

static void compare(const setup *w, const char *what, int k, wf_dtype t, const double *want, int64_t n, double bound) {
    double off = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        double a = at(w->got[k], t, i);
        off += (a - want[i]) * (a - want[i]);
        size += want[i] * want[i];
    }
    if (!(sqrt(off) <= bound * sqrt(size)))
        fail_msg("%s %s: %s is off by %.3g (bound %.3g)", w->t.name, wf_dtype_name(t), what, sqrt(off / size), bound);
}

static void release(setup *w) {
    wf_graph_free(w->graph);
    for (int i = 0; i < w->n_leaf; i++) wf_tensor_free(w->leaf[i]);
    double *x[] = {w->q, w->k, w->v, w->g, w->s0, w->go, w->gs, w->o, w->s, w->dq, w->dk, w->dv, w->dg, w->ds0};
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) free(x[i]);
    for (int i = 0; i < 7; i++) free(w->got[i]);
}

static void check(const trial *t, wf_dtype type) {
    setup w = {0};
    wf_dtype real = type == WF_F64 ? WF_F64 : WF_F32;
    double bound = type == WF_F64 ? 1e-12 : type == WF_F32 ? 3e-6 : 5e-3;
    int64_t n = t->B * t->L * t->H, m = t->B * t->H * t->d * t->e;
    reference(&w, t);
    compute(&w, type);
    compare(&w, "o", 0, type, w.o, n * t->e, bound);
    compare(&w, "state", 1, real, w.s, m, bound);
    compare(&w, "dq", 2, type, w.dq, n * t->d, bound);
    compare(&w, "dk", 3, type, w.dk, n * t->d, bound);
    compare(&w, "dv", 4, type, w.dv, n * t->e, bound);
    if (t->decay) compare(&w, "ddecay", 5, real, w.dg, n, 3 * bound);
    if (t->state) compare(&w, "dstate", 6, real, w.ds0, m, bound);
    release(&w);
}

static const trial trials[] = {
    {"one", 1, 1, 1, 1, 1, .decay = true, .state = true, .gstate = true, .least = 0.3},
    {"step", 2, 1, 3, 16, 12, .state = true},
    {"step decay", 2, 1, 3, 16, 12, .state = true, .decay = true, .gstate = true, .least = 0.5},
    {"plain", 2, 150, 2, 5, 7, .decay = false},
    {"63", 1, 63, 1, 8, 8, .decay = true, .least = 0.9},
    {"64", 1, 64, 1, 8, 8, .decay = true, .state = true, .least = 0.9},
    {"65", 1, 65, 1, 8, 8, .decay = true, .gstate = true, .least = 0.9},
    {"decay", 2, 200, 2, 20, 12, .decay = true, .state = true, .gstate = true, .least = 0.8},
    {"strong decay", 1, 130, 2, 20, 12, .decay = true, .state = true, .gstate = true, .least = 0.001},
    {"state", 2, 129, 2, 64, 65, .state = true, .gstate = true},
    {"views", 2, 70, 3, 16, 24, .decay = true, .state = true, .views = true, .least = 0.7},
    {"wide", 1, 70, 1, 140, 90, .decay = true, .least = 0.9},
};

static void test_f64(void **state) {
    for (size_t i = 0; i < sizeof trials / sizeof *trials; i++) check(&trials[i], WF_F64);
}
static void test_f32(void **state) {
    for (size_t i = 0; i < sizeof trials / sizeof *trials; i++) check(&trials[i], WF_F32);
}
static void test_bf16(void **state) {
    for (size_t i = 0; i < sizeof trials / sizeof *trials; i++) check(&trials[i], WF_BF16);
}

/* A decay of exactly 0 forgets everything before it. */
static void test_forgets(void **state) {
    trial t = {"forgets", 1, 100, 1, 8, 8, .decay = true, .state = true, .least = 0.5};
    setup w = {0}, x = {0};
    reference(&w, &t);
    w.g[70] = 0;
    compute(&w, WF_F32);
    reference(&x, &t);
    x.g[70] = 0;
    for (int i = 0; i < 70 * 8; i++) x.v[i] += 1;
    compute(&x, WF_F32);
    assert_memory_not_equal(w.got[0], x.got[0], 70 * 8 * 4);
    assert_memory_equal((float *)w.got[0] + 70 * 8, (float *)x.got[0] + 70 * 8, 30 * 8 * 4);
    release(&w);
    release(&x);
}

static void test_threads(void **state) {
    trial t = {"threads", 2, 300, 3, 16, 16, .decay = true, .state = true, .gstate = true, .least = 0.9};
    setup w[2] = {{.n_leaf = 0}, {.n_leaf = 0}};
    for (int k = 0; k < 2; k++) {
        wf_set_threads(k ? 3 : 1);
        reference(&w[k], &t);
        compute(&w[k], WF_F32);
    }
    int64_t n = t.B * t.L * t.H, m = t.B * t.H * t.d * t.e, count[] = {n * t.e, m, n * t.d, n * t.d, n * t.e, n, m};
    for (int i = 0; i < 7; i++) assert_memory_equal(w[0].got[i], w[1].got[i], (size_t)count[i] * 4);
    for (int k = 0; k < 2; k++) release(&w[k]);
    wf_set_threads(2);
}

static void test_cost(void **state) {
    double flops[2];
    for (int k = 0; k < 2; k++) {
        trial t = {"cost", 1, k ? 200 : 100, 2, 8, 4, .decay = false};
        setup w = {0};
        reference(&w, &t);
        compute(&w, WF_F32);
        wf_cost c = {0};
        w.forward->op->cost(w.forward, &c);
        flops[k] = c.flops;
        release(&w);
    }
    assert_true(flops[0] == 2 * 2 * 100 * 2 * 8 * 4 && flops[1] == 2 * flops[0]);
}

static void test_errors(void **state) {
    wf_graph *g = wf_graph_open();
    wf_tensor *a = wf_tensor_new(WF_F32, WF_SHAPE(1, 4, 2, 3)), *b = wf_tensor_new(WF_F32, WF_SHAPE(1, 5, 2, 3));
    wf_node *x = wf_leaf(g, a, "a"), *y = wf_leaf(g, b, "b");
    assert_null(wf_linear_scan(g, x, x, y, NULL, NULL));
    assert_int_equal(wf_graph_status(g), WF_EINVAL);
    assert_non_null(strstr(wf_graph_message(g), "[1, 5, 2, 3]"));
    wf_graph_free(g);
    wf_tensor_free(a);
    wf_tensor_free(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f64),     cmocka_unit_test(test_f32),     cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_forgets), cmocka_unit_test(test_threads), cmocka_unit_test(test_cost),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
