/* test_attention.c: the fused attention operator against its definition, for every option, dtype and layout; bytes for any
 * number of threads. Kernels run directly here; test_attention_graph.c runs them in plans. */
#include "attention_reference.h"
#include "op/attention_tiles.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

typedef struct trial {
    const char *name;
    int64_t B, L, S, H, K, d, e;
    bool causal;
    int64_t back, forward;
    bool lengths, packed, packed_k, slopes, bias, glse, views;
    bool start; /* with q_start */
    int64_t q_start;
    wf_normaliser normaliser;
    wf_score score;
    double score_bias, dropout, scale;
} trial;

typedef struct setup {
    trial t;
    ref_case c;
    ref_data r;
    wf_graph *g;
    wf_tensor *leaf[16];
    int n_leaf;
    wf_node *forward, *backward;
    int32_t lengths[8], q_start[1], offsets_q[8], offsets_k[8], seed[4];
    double slopes[64], *bias;
    void *o, *lse, *dq, *dk, *dv;
} setup;

static double *numbers(int64_t n, uint64_t stream, double size) {
    double *x = calloc((size_t)n, sizeof *x);
    wf_rng r = {7, stream, 0};
    for (int64_t i = 0; i < n; i++) x[i] = (double)wf_bf16_to_f32(wf_f32_to_bf16((float)(size * wf_rng_normal(&r))));
    return x;
}

static wf_node *leaf(setup *s, wf_dtype t, wf_shape shape, const double *x) {
    wf_tensor *w = wf_tensor_new(t, shape);
    assert_non_null(w);
    for (int64_t i = 0; i < wf_tensor_count(w); i++) wf_tensor_set(w, i, x[i]);
    s->leaf[s->n_leaf++] = w;
    return wf_leaf(s->g, w, "x");
}

static wf_node *integers(setup *s, int64_t n, const int32_t *x) {
    wf_tensor *w = wf_tensor_new(WF_I32, WF_SHAPE(n));
    memcpy(w->data, x, (size_t)n * sizeof *x);
    s->leaf[s->n_leaf++] = w;
    return wf_leaf(s->g, w, "i");
}

/* [B,rows,heads,width] inside of a wider tensor, as slices of one projection are */
static wf_node *operand(setup *s, wf_dtype t, int64_t rows, int64_t heads, int64_t width, const double *x) {
    int64_t B = s->t.B;
    if (!s->t.views) return leaf(s, t, WF_SHAPE(B, rows, heads, width), x);
    int64_t wide = heads * width + 3, n = B * rows * wide;
    double *y = calloc((size_t)n, sizeof *y);
    for (int64_t i = 0; i < n; i++) y[i] = NAN;
    for (int64_t r = 0; r < B * rows; r++) memcpy(y + r * wide + 2, x + r * heads * width, (size_t)(heads * width) * sizeof *y);
    wf_node *w = wf_slice(s->g, leaf(s, t, WF_SHAPE(B, rows, wide), y), 2, 2, heads * width);
    free(y);
    return wf_reshape(s->g, w, WF_SHAPE(B, rows, heads, width));
}

static void fill_case(setup *s, const trial *t) {
    static const int32_t cuts[] = {0, 5, 5, 70, 131}; /* an empty sequence, tiles that end anywhere */
    s->t = *t;
    s->c = (ref_case){.B = t->B,
                      .L = t->L,
                      .S = t->S,
                      .H = t->H,
                      .K = t->K,
                      .d = t->d,
                      .e = t->e,
                      .scale = t->scale,
                      .causal = t->causal,
                      .back = t->back,
                      .forward = t->forward,
                      .normaliser = t->normaliser,
                      .score = t->score,
                      .score_bias = t->score_bias,
                      .dropout = t->dropout,
                      .stream = 0x123456789abull};
    for (int b = 0; b < 8; b++) s->lengths[b] = (int32_t)(b == 0 ? t->S - 1 : b == 1 ? 0 : t->S / (b + 1));
    for (int n = 0; n < 5; n++) {
        s->offsets_q[n] = cuts[n] < t->L ? cuts[n] : (int32_t)t->L - 1; /* the last row belongs to nobody */
        s->offsets_k[n] = cuts[n] / 2 + n < t->S ? cuts[n] / 2 + n : (int32_t)t->S;
    }
    int32_t seed[4] = {11, 22, 33, 44};
    memcpy(s->seed, seed, sizeof seed);
    s->q_start[0] = (int32_t)t->q_start;
    if (t->lengths) s->c.lengths = s->lengths;
    if (t->start) s->c.q_start = s->q_start;
    if (t->packed) s->c.offsets_q = s->offsets_q, s->c.n_packed = 4;
    if (t->packed_k) s->c.offsets_k = s->offsets_k;
    if (t->dropout > 0) s->c.seed = s->seed;
    for (int h = 0; h < t->H; h++) s->slopes[h] = 0.0625 * (h + 1);
    if (t->slopes) s->c.slopes = s->slopes;
    s->bias = numbers(t->B * t->H * t->L * t->S, 9, 0.5);
    if (t->bias) s->c.bias = s->bias;
}

static void fill_data(setup *s) {
    const trial *t = &s->t;
    int64_t nq = t->B * t->L * t->H * t->d, nk = t->B * t->S * t->K * t->d, nv = t->B * t->S * t->K * t->e,
            no = t->B * t->L * t->H * t->e;
    ref_data *r = &s->r;
    r->q = numbers(nq, 1, 1), r->k = numbers(nk, 2, 1), r->v = numbers(nv, 3, 1), r->go = numbers(no, 4, 1);
    r->o = numbers(no, 5, 0), r->lse = numbers(t->B * t->H * t->L, 5, 0);
    r->dq = numbers(nq, 5, 0), r->dk = numbers(nk, 5, 0), r->dv = numbers(nv, 5, 0);
    r->glse = t->glse ? numbers(t->B * t->H * t->L, 6, 1) : NULL;
    ref_run(&s->c, r);
}

static void build(setup *s, wf_dtype type) {
    const trial *t = &s->t;
    wf_dtype real = type == WF_F64 ? WF_F64 : WF_F32;
    wf_attention_spec spec = {.scale = t->scale,
                              .causal = t->causal,
                              .window_back = t->back,
                              .window_forward = t->forward,
                              .normaliser = t->normaliser,
                              .score = t->score,
                              .score_bias = t->score_bias,
                              .dropout = t->dropout,
                              .stream = s->c.stream};
    s->g = wf_graph_open();
    if (t->lengths) spec.lengths = integers(s, t->B, s->lengths);
    if (t->start) spec.q_start = integers(s, 1, s->q_start);
    if (t->packed) spec.offsets_q = integers(s, 5, s->offsets_q);
    if (t->packed_k) spec.offsets_k = integers(s, 5, s->offsets_k);
    if (t->slopes) spec.slopes = leaf(s, real, WF_SHAPE(t->H), s->slopes);
    if (t->bias) spec.bias = leaf(s, real, WF_SHAPE(t->B, t->H, t->L, t->S), s->bias);
    if (t->dropout > 0) spec.seed = integers(s, 4, s->seed);
    wf_node *q = operand(s, type, t->L, t->H, t->d, s->r.q), *k = operand(s, type, t->S, t->K, t->d, s->r.k);
    wf_node *v = operand(s, type, t->S, t->K, t->e, s->r.v), *go = operand(s, type, t->L, t->H, t->e, s->r.go);
    s->forward = wf_attention(s->g, q, k, v, &spec);
    if (!s->forward) fail_msg("%s: %s", t->name, wf_graph_message(s->g));
    wf_node *glse = t->glse ? leaf(s, real, WF_SHAPE(t->B, t->H, t->L), s->r.glse) : NULL, *grad[3];
    assert_int_equal(wf_grad(s->g, (wf_node *[]){s->forward, wf_output(s->forward, 1)}, (wf_node *[]){go, glse}, glse ? 2 : 1,
                             (wf_node *[]){q, k, v}, 3, grad),
                     WF_OK);
    s->backward = grad[0];
    while (s->backward->op != &wf_op_attention_backward) s->backward = s->backward->in[0];
}

/* Run a node's kernel; outputs of nodes `made` are in `data`. */
static void run(setup *s, wf_node *n, wf_node *made, void *const *data, void **out) {
    void *in[16];
    for (int j = 0; j < n->n_in; j++) {
        wf_node *x = n->in[j], *base = x->base;
        if (x == made || (x->n_in && x->in[0] == made && x->out_index > 0)) {
            in[j] = data[x->out_index];
            continue;
        }
        assert_non_null(base->leaf);
        in[j] = (char *)base->leaf->data + x->offset * (int64_t)wf_dtype_size(x->dtype);
    }
    wf_call c = {.node = n, .in = in, .out = out};
    assert_int_equal(n->op->prepare(n, &c.state), WF_OK);
    size_t bytes = n->op->scratch(n);
    c.scratch = aligned_alloc(64, (bytes + 127) / 64 * 64);
    memset(c.scratch, 0xff, bytes); /* NaN in every dtype */
    wf_status status = n->op->forward(&c);
    if (status != WF_OK) fail_msg("%s: %s", s->t.name, wf_message());
    free(c.scratch);
    n->op->release(c.state);
}

static void compute(setup *s) {
    const trial *t = &s->t;
    size_t n = (size_t)(t->B * t->H * ((t->L + t->S) * (t->d + t->e))) * 8 + 64;
    void **x[] = {&s->o, &s->lse, &s->dq, &s->dk, &s->dv};
    for (int i = 0; i < 5; i++) {
        *x[i] = malloc(n);
        memset(*x[i], 0xff, n);
    }
    run(s, s->forward, NULL, NULL, (void *[]){s->o, s->lse});
    run(s, s->backward, s->forward, (void *[]){s->o, s->lse}, (void *[]){s->dq, s->dk, s->dv});
}

static void release(setup *s) {
    wf_graph_free(s->g);
    for (int i = 0; i < s->n_leaf; i++) wf_tensor_free(s->leaf[i]);
    void *x[] = {s->o,   s->lse, s->dq,    s->dk,   s->dv,     s->bias, s->r.q,  s->r.k,
                 s->r.v, s->r.o, s->r.lse, s->r.go, s->r.glse, s->r.dq, s->r.dk, s->r.dv};
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) free(x[i]);
}

static double at(const void *x, wf_dtype t, int64_t i) {
    return t == WF_F64   ? ((const double *)x)[i]
           : t == WF_F32 ? (double)((const float *)x)[i]
                         : (double)wf_bf16_to_f32(((const uint16_t *)x)[i]);
}

static void compare(const setup *s, const char *what, const void *x, wf_dtype t, const double *want, int64_t n, double bound) {
    double off = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        double a = at(x, t, i);
        if (isinf(want[i])) {
            if (a != want[i])
                fail_msg("%s %s: %s[%lld] is %g, not %g", s->t.name, wf_dtype_name(t), what, (long long)i, a, want[i]);
            continue;
        }
        off += (a - want[i]) * (a - want[i]);
        size += want[i] * want[i];
    }
    if (!(sqrt(off) <= bound * (sqrt(size) + 0.1 * sqrt((double)n))))
        fail_msg("%s %s: %s is off by %.3g (bound %.3g)", s->t.name, wf_dtype_name(t), what, sqrt(off / size), bound);
}

static void check(const trial *t, wf_dtype type) {
    setup s = {0};
    double out = type == WF_F64   ? 1e-12
                 : type == WF_F32 ? 2e-6
                                  : 6e-3,
           grad = type == WF_F64   ? 1e-12
                  : type == WF_F32 ? 5e-6
                                   : 2e-2;
    wf_dtype real = type == WF_F64 ? WF_F64 : WF_F32;
    fill_case(&s, t);
    fill_data(&s);
    build(&s, type);
    compute(&s);
    compare(&s, "o", s.o, type, s.r.o, t->B * t->L * t->H * t->e, out);
    compare(&s, "lse", s.lse, real, s.r.lse, t->B * t->L * t->H, type == WF_BF16 ? 1e-5 : out);
    compare(&s, "dq", s.dq, type, s.r.dq, t->B * t->L * t->H * t->d, grad);
    compare(&s, "dk", s.dk, type, s.r.dk, t->B * t->S * t->K * t->d, grad);
    compare(&s, "dv", s.dv, type, s.r.dv, t->B * t->S * t->K * t->e, grad);
    release(&s);
}

#define SIZES(b, l, s, h, k, x, y) .B = b, .L = l, .S = s, .H = h, .K = k, .d = x, .e = y
#define SOFT SIZES(2, 70, 141, 4, 2, 20, 12)
static const trial trials[] = {
    {"full", SIZES(2, 9, 11, 3, 3, 5, 5)},
    {"one", SIZES(1, 1, 1, 1, 1, 1, 1)},
    {"causal 63", SIZES(1, 63, 63, 2, 2, 64, 64), .causal = true},
    {"causal 64", SIZES(1, 64, 64, 2, 2, 64, 64), .causal = true},
    {"causal 65", SIZES(1, 65, 65, 2, 1, 64, 64), .causal = true},
    {"causal 129", SIZES(1, 129, 129, 2, 2, 64, 64), .causal = true},
    {"causal 300", SIZES(1, 300, 300, 2, 1, 80, 64), .causal = true},
    {"wide", SIZES(1, 70, 90, 2, 2, 144, 200), .causal = true},
    {"more queries", SIZES(1, 140, 70, 2, 2, 16, 16), .causal = true}, /* the first rows see nothing */
    {"views", SIZES(2, 70, 70, 4, 2, 24, 16), .causal = true, .views = true},
    {"odd views", SIZES(2, 33, 47, 4, 2, 5, 7), .views = true},
    {"window", SOFT, .causal = true, .back = 17},
    {"window 1", SIZES(1, 200, 200, 1, 1, 8, 8), .causal = true, .back = 1},
    {"two-sided", SOFT, .back = 9, .forward = 30},
    {"forward", SOFT, .forward = 3},
    {"lengths", SIZES(3, 70, 141, 4, 2, 20, 12), .lengths = true},
    {"lengths causal", SIZES(3, 141, 141, 4, 2, 20, 12), .lengths = true, .causal = true},
    {"q_start", SOFT, .causal = true, .start = true, .q_start = 50},
    {"q_start far", SOFT, .causal = true, .start = true, .q_start = 139},
    {"packed", SIZES(1, 132, 132, 2, 2, 16, 24), .packed = true},
    {"packed causal", SIZES(1, 132, 132, 2, 1, 16, 24), .packed = true, .causal = true, .slopes = true},
    {"packed rectangular", SIZES(1, 132, 80, 4, 2, 16, 24), .packed = true, .packed_k = true, .causal = true, .back = 20},
    {"slopes", SOFT, .slopes = true},
    {"slopes causal", SIZES(2, 141, 141, 3, 1, 20, 12), .slopes = true, .causal = true},
    {"bias", SOFT, .bias = true, .causal = true},
    {"dlse", SOFT, .causal = true, .glse = true},
    {"dlse empty rows", SIZES(2, 30, 20, 2, 2, 8, 8), .causal = true, .glse = true},
    {"dropout", SOFT, .dropout = 0.3, .causal = true},
    {"dropout full", SIZES(1, 130, 257, 2, 2, 32, 32), .dropout = 0.1},
    {"sigmoid", SOFT, .normaliser = WF_NORMALISE_NONE, .score = WF_SCORE_SIGMOID, .score_bias = -2, .causal = true},
    {"relu2", SOFT, .normaliser = WF_NORMALISE_NONE, .score = WF_SCORE_RELU2, .scale = 0.05},
    {"relu2 dropout", SOFT, .normaliser = WF_NORMALISE_NONE, .score = WF_SCORE_RELU2, .dropout = 0.5, .causal = true},
    {"relu", SOFT, .normaliser = WF_NORMALISE_NONE, .score = WF_SCORE_RELU, .scale = 0.1, .causal = true, .lengths = true},
    {"softmax of relu", SOFT, .score = WF_SCORE_RELU, .scale = 0.2},
    {"linear", SOFT, .normaliser = WF_NORMALISE_NONE, .causal = true, .scale = 0.1},
    {"softmax of sigmoid", SOFT, .score = WF_SCORE_SIGMOID, .score_bias = 0.5, .causal = true},
    {"softmax of relu2", SOFT, .score = WF_SCORE_RELU2, .scale = 0.2, .back = 40},
    {"everything", SIZES(3, 70, 141, 4, 2, 20, 12), .lengths = true, .causal = true, .back = 50, .slopes = true, .bias = true,
     .dropout = 0.2, .glse = true, .scale = 0.4, .views = true},
    {"decode 1", SIZES(2, 1, 700, 4, 4, 64, 64), .causal = true},
    {"decode 1 gqa", SIZES(2, 1, 700, 4, 1, 20, 12), .causal = true, .start = true, .q_start = 600, .views = true},
    {"decode 5", SIZES(2, 5, 515, 4, 2, 64, 80), .causal = true, .slopes = true},
    {"decode 8 window", SIZES(1, 8, 600, 2, 2, 12, 12), .causal = true, .back = 270, .start = true, .q_start = 590,
     .dropout = 0.1, .bias = true},
    {"decode lengths", SIZES(3, 3, 513, 2, 1, 16, 16), .lengths = true},
    {"decode sigmoid", SIZES(3, 2, 513, 2, 1, 16, 16), .normaliser = WF_NORMALISE_NONE, .score = WF_SCORE_SIGMOID,
     .causal = true},
};
enum { TRIALS = sizeof trials / sizeof *trials };

static void test_f64(void **state) {
    for (int i = 0; i < TRIALS; i++) check(&trials[i], WF_F64);
}
static void test_f32(void **state) {
    for (int i = 0; i < TRIALS; i++) check(&trials[i], WF_F32);
}
static void test_bf16(void **state) {
    for (int i = 0; i < TRIALS; i++) check(&trials[i], WF_BF16);
}

static void same_bytes(const setup *a, const setup *b) {
    const trial *t = &a->t;
    int64_t nq = t->B * t->L * t->H, nk = t->B * t->S * t->K;
    assert_memory_equal(a->o, b->o, (size_t)(nq * t->e) * 4);
    assert_memory_equal(a->lse, b->lse, (size_t)nq * 4);
    assert_memory_equal(a->dq, b->dq, (size_t)(nq * t->d) * 4);
    assert_memory_equal(a->dk, b->dk, (size_t)(nk * t->d) * 4);
    assert_memory_equal(a->dv, b->dv, (size_t)(nk * t->e) * 4);
}

/* One head and long sequences make threads share heads; everything must come out the same. */
static void test_threads(void **state) {
    static const trial shared[] = {
        {"one head", SIZES(1, 1100, 1100, 1, 1, 32, 32), .causal = true},
        {"three heads", SIZES(1, 700, 900, 3, 1, 20, 12), .back = 300, .forward = 200},
        {"many heads", SIZES(2, 300, 300, 6, 6, 16, 16), .causal = true},
        {"packed", SIZES(1, 132, 132, 4, 2, 64, 64), .packed = true, .causal = true},
        {"decode", SIZES(2, 4, 3000, 4, 2, 64, 64), .causal = true},
    };
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++) {
        setup one = {0}, many = {0};
        for (int k = 0; k < 2; k++) {
            setup *s = k ? &many : &one;
            wf_set_threads(k ? 4 : 1);
            fill_case(s, &shared[i]);
            fill_data(s);
            build(s, WF_F32);
            compute(s);
        }
        same_bytes(&one, &many);
        compare(&many, "dq", many.dq, WF_F32, many.r.dq, shared[i].B * shared[i].L * shared[i].H * shared[i].d, 5e-6);
        release(&one);
        release(&many);
    }
    wf_set_threads(2);
}

static void test_wrong_offsets(void **state) {
    trial t = {"packed", SIZES(1, 132, 132, 2, 2, 16, 24), .packed = true};
    setup s = {0};
    fill_case(&s, &t);
    fill_data(&s);
    s.offsets_q[2] = 200;
    build(&s, WF_F32);
    void *in[16], *out[2] = {malloc(1 << 20), malloc(1 << 20)};
    for (int j = 0; j < s.forward->n_in; j++) in[j] = s.forward->in[j]->base->leaf->data;
    wf_call c = {.node = s.forward,
                 .in = in,
                 .out = out,
                 .scratch = aligned_alloc(64, (s.forward->op->scratch(s.forward) + 127) / 64 * 64)};
    s.forward->op->prepare(s.forward, &c.state);
    assert_int_equal(s.forward->op->forward(&c), WF_EINVAL);
    assert_non_null(strstr(wf_message(), "offsets"));
    s.forward->op->release(c.state);
    free(c.scratch);
    free(out[0]);
    free(out[1]);
    release(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f64),     cmocka_unit_test(test_f32),           cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_threads), cmocka_unit_test(test_wrong_offsets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
