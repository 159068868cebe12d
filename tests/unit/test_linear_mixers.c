/* test_linear_mixers.c: Flow-Attention, NormAttention, DiagAttention, simplified linear attention, LRPE, the gated unit. */
#include "gradcheck.h"
#include "parts_help.h"

#include "part/norm/norm.h"

#include <math.h>

/* ---- help ---- */

static const char *const causal_mixers[] = {
    "{name: flow, heads: 3}",
    "{name: flow, heads: 2, clamp: 0, eps: 0.001}",
    "{name: flow, heads: 3, clamp: 5, kernel: relu, position: rope}",
    "{name: norm-attention, heads: 3}",
    "{name: norm-attention, heads: 2, head_dim: 5, act: 1+elu, position: none}",
    "{name: norm-attention, heads: 2, act: 1+elu, position: {name: rope, style: interleaved}, init: model}",
    "{name: diag-attention, heads: 3, block: 4}",
    "{name: diag-attention, heads: 4, kv_heads: 2, block: 4, act: softmax}",
    "{name: diag-attention, heads: 2, head_dim: 5, block: 3, act: softmax, norm: srms, qk_norm: l2}",
    "{name: diag-attention, heads: 2, block: 16, norm: none, position: none}",
    "{name: diag-attention, heads: 2, block: 1}",
};
enum { N_CAUSAL = sizeof causal_mixers / sizeof *causal_mixers };

static const char *const two_way[] = {
    "{name: flow, heads: 3}",
    "{name: flow, heads: 2, clamp: 0}",
    "{name: flow, heads: 2, kernel: relu, clamp: 2}",
    "{name: norm-attention, heads: 3}",
    "{name: diag-attention, heads: 3, block: 4}",
    "{name: diag-attention, heads: 3, block: 4, act: softmax}",
    "{name: diag-attention, heads: 3, block: 4, act: softmax, mask_tail: true}",
    "{name: diag-attention, heads: 3, block: 16, act: softmax, mask_tail: true}",
};
enum { N_TWO_WAY = sizeof two_way / sizeof *two_way };

static wf_model *mixer(const char *text, int64_t width, bool causal) {
    wf_model *m = part_of("mixer", text, width, causal, 64);
    for (int i = 0; i < m->n_param; i++) { /* stir, but a reflection stays one */
        wf_rng r = {7, (uint64_t)i, 0};
        if (m->param[i]->flags & WF_PARAM_BUFFER) continue;
        for (int64_t j = 0; j < wf_tensor_count(m->param[i]->value); j++)
            wf_tensor_set(m->param[i]->value, j, wf_tensor_get(m->param[i]->value, j) + 0.3 * wf_rng_normal(&r));
    }
    return m;
}

static double at(const wf_tensor *t, int64_t i) {
    return wf_tensor_get(t, i);
}

/* Rows from .. from+n-1 of axis 1 of x [B,L,D]. */
static wf_tensor *part_rows(const wf_tensor *x, int64_t b, int64_t from, int64_t n) {
    int64_t L = x->shape.dim[1], D = x->shape.dim[2];
    wf_tensor *y = wf_tensor_new(x->dtype, WF_SHAPE(1, n, D));
    for (int64_t i = 0; i < n * D; i++) wf_tensor_set(y, i, at(x, (b * L + from) * D + i));
    return y;
}

/* ---- step, causality, padding ---- */

static void step_equals_forward(void **state) {
    static const int by_one[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0}, prefill[] = {6, 1, 1, 1, 1, 0}, at_once[] = {10, 0},
                     late[] = {1, 8, 1, 0}, odd[] = {3, 2, 5, 0};
    static const int *const ways[] = {by_one, prefill, at_once, late, odd};
    for (int i = 0; i < N_CAUSAL; i++) {
        wf_model *m = mixer(causal_mixers[i], 12, true);
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 10, 12), 40 + (uint64_t)i, 0), *y = run_forward(m, x, NULL);
        for (int w = 0; w < 5; w++) {
            wf_tensor *z = run_steps(m, x, ways[w], 16);
            char what[200];
            snprintf(what, sizeof what, "%s, way %d", causal_mixers[i], w);
            assert_close(z, y, 1e-5, what);
            wf_tensor_free(z);
        }
        wf_tensor_free(x);
        wf_tensor_free(y);
        wf_model_free(m);
    }
}

/* A long sequence, over many chunks of the scan and blocks. */
static void long_steps_equal_forward(void **state) {
    static const int ways[] = {100, 1, 1, 130, 1, 67, 0};
    static const char *const texts[] = {"{name: flow, heads: 2}", "{name: norm-attention, heads: 2}",
                                        "{name: diag-attention, heads: 2}"};
    for (int i = 0; i < 3; i++) {
        wf_model *m = part_of("mixer", texts[i], 16, true, 300);
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(1, 300, 16), 3, 0), *y = run_forward(m, x, NULL),
                  *z = run_steps(m, x, ways, 300);
        assert_close(z, y, 1e-5, texts[i]);
        wf_tensor_free(x);
        wf_tensor_free(y);
        wf_tensor_free(z);
        wf_model_free(m);
    }
}

static void causal_mixers_do_not_look_ahead(void **state) {
    for (int i = 0; i < N_CAUSAL; i++) {
        wf_model *m = mixer(causal_mixers[i], 12, true);
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(1, 9, 12), 4, 0), *y = run_forward(m, x, NULL);
        for (int64_t j = 5 * 12; j < 9 * 12; j++) wf_tensor_set(x, j, 3 - at(x, j));
        wf_tensor *z = run_forward(m, x, NULL);
        double late = 0;
        for (int64_t j = 0; j < 9 * 12; j++) {
            double d = fabs(at(y, j) - at(z, j));
            if (j < 5 * 12 && d != 0) fail_msg("%s: position %d changed by %g", causal_mixers[i], (int)(j / 12), d);
            if (j >= 5 * 12) late += d;
        }
        assert_true(late > 1e-3); /* the test can fail */
        wf_tensor_free(x);
        wf_tensor_free(y);
        wf_tensor_free(z);
        wf_model_free(m);
    }
}

/* A padded sequence gives what it gives alone: padding takes no part and is not counted. */
static void padding_is_as_if_it_were_not_there(void **state) {
    wf_tensor *lengths = wf_tensor_new(WF_I32, WF_SHAPE(2));
    wf_tensor_set(lengths, 0, 6);
    wf_tensor_set(lengths, 1, 11);
    for (int i = 0; i < N_TWO_WAY + N_CAUSAL; i++) {
        const char *text = i < N_TWO_WAY ? two_way[i] : causal_mixers[i - N_TWO_WAY];
        wf_model *m = mixer(text, 12, i >= N_TWO_WAY);
        run_spec o = {.lengths = lengths};
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 11, 12), 4, 0), *y = run_forward(m, x, &o);
        if (!y) fail_msg("%s: %s", text, wf_message());
        for (int b = 0; b < 2; b++) {
            int64_t n = b ? 11 : 6;
            wf_tensor *alone = part_rows(x, b, 0, n), *z = run_forward(m, alone, NULL), *w = part_rows(y, b, 0, n);
            assert_close(w, z, 3e-6, text);
            wf_tensor_free(alone);
            wf_tensor_free(z);
            wf_tensor_free(w);
        }
        for (int64_t j = 0; j < wf_tensor_count(y); j++) assert_true(isfinite(at(y, j)));
        wf_tensor_free(x);
        wf_tensor_free(y);
        wf_model_free(m);
    }
    wf_tensor_free(lengths);
}

/* x [1,L,12] with a context [1,S,12] of which `valid` (0: all) count. */
static wf_tensor *with_context(wf_model *m, wf_tensor *x, wf_tensor *context, int valid) {
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_build_start(&b, g);
    wf_tensor *n = wf_tensor_new(WF_I32, WF_SHAPE(1));
    wf_tensor_set(n, 0, valid);
    b.context = wf_leaf(g, context, "context");
    if (valid) b.context_lengths = wf_leaf(g, n, "lengths");
    wf_node *y = wf_apply(&b, m->root, wf_leaf(g, x, "x"));
    if (!y) fail_msg("%s", wf_graph_message(g));
    wf_plan *p = wf_plan_new(g, &y, 1, NULL, 0, NULL);
    assert_int_equal(wf_plan_run(p), WF_OK);
    wf_tensor *out = wf_tensor_new(WF_F32, y->shape);
    memcpy(out->data, wf_plan_out(p, 0), out->bytes);
    wf_plan_free(p);
    wf_build_end(&b);
    wf_graph_free(g);
    wf_tensor_free(n);
    return out;
}

/* Flow from another stream: what pads that stream is no source, and is not counted. */
static void padding_of_the_context_is_as_if_it_were_not_there(void **state) {
    static const char *const all[] = {"{name: flow, heads: 3, cross: true}", "{name: flow, heads: 2, cross: true, clamp: 0}"};
    for (int i = 0; i < 2; i++) {
        wf_model *m = mixer(all[i], 12, false);
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(1, 5, 12), 4, 0), *context = rn_random(WF_F32, WF_SHAPE(1, 11, 12), 5, 0),
                  *six = part_rows(context, 0, 0, 6);
        wf_tensor *padded = with_context(m, x, context, 6), *alone = with_context(m, x, six, 0),
                  *whole = with_context(m, x, context, 0);
        assert_close(padded, alone, 3e-6, all[i]);
        assert_true(fabs(at(padded, 0) - at(whole, 0)) > 1e-4); /* the test can fail */
        wf_tensor *used[] = {x, context, six, padded, alone, whole};
        for (int k = 0; k < 6; k++) wf_tensor_free(used[k]);
        wf_model_free(m);
    }
}

static void results_do_not_depend_on_threads(void **state) {
    int before = wf_threads();
    for (int i = 0; i < N_CAUSAL + N_TWO_WAY; i++) {
        bool causal = i < N_CAUSAL;
        wf_model *m = mixer(causal ? causal_mixers[i] : two_way[i - N_CAUSAL], 12, causal);
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(3, 150, 12), 4, 0), *y[2];
        for (int t = 0; t < 2; t++) {
            wf_set_threads(t + 1);
            y[t] = run_forward(m, x, NULL);
        }
        assert_memory_equal(y[0]->data, y[1]->data, y[0]->bytes);
        wf_tensor_free(x);
        wf_tensor_free(y[0]);
        wf_tensor_free(y[1]);
        wf_model_free(m);
    }
    wf_set_threads(before);
}

/* ---- gradients in float64, of the input and of every trained parameter ---- */

typedef struct part_case {
    wf_model *m;
    wf_param *param[GC_MAX + 1]; /* ends with NULL */
    wf_tensor *own[GC_MAX];
    bool causal, two_sources;
    int first;
} part_case;

static wf_node *build_part(wf_graph *g, wf_node **x, void *ctx) {
    part_case *p = ctx;
    wf_build b;
    wf_build_start(&b, g);
    b.compute = WF_F64;
    b.causal = p->causal;
    if (p->two_sources) b.context = x[1];
    for (int i = p->first; p->param[i]; i++) p->param[i]->value = x[i]->leaf;
    wf_node *y = wf_apply(&b, p->m->root, x[0]);
    wf_build_end(&b);
    return y;
}

static void fill_part(void *ctx, int input, wf_tensor *t) {
    part_case *p = ctx;
    for (int64_t i = 0; input >= p->first && i < wf_tensor_count(t); i++) wf_tensor_set(t, i, at(p->own[input], i));
}

static void gradients_of(const char *slot, const char *text, int64_t L, int64_t D, bool causal, int64_t S) {
    wf_model *m = !strcmp(slot, "mixer") ? mixer(text, D, causal) : part_of(slot, text, D, causal, L);
    part_case p = {.m = m, .causal = causal, .two_sources = S > 0, .first = S > 0 ? 2 : 1};
    gc_case c = {.name = text, .build = build_part, .ctx = &p, .fill = fill_part, .n = p.first, .seed = 5};
    c.shape[0] = WF_SHAPE(2, L, D);
    if (S > 0) c.shape[1] = WF_SHAPE(2, S, D);
    for (int i = 0; i < m->n_param; i++) {
        if (m->param[i]->flags & WF_PARAM_BUFFER) continue;
        assert_true(c.n < GC_MAX);
        p.param[c.n] = m->param[i];
        p.own[c.n] = m->param[i]->value;
        c.shape[c.n++] = m->param[i]->value->shape;
    }
    bool ok = gc_check(&c);
    for (int i = p.first; i < c.n; i++) p.param[i]->value = p.own[i];
    wf_model_free(m);
    if (!ok) fail_msg("%s %s", slot, text);
}

static void gradients_agree_with_differences(void **state) {
    static const char *const causal_ones[] = {
        "{name: flow, heads: 2, clamp: 1, qkv_bias: false}",
        "{name: flow, heads: 2, clamp: 0, kernel: relu, eps: 0.1, qkv_bias: false}",
        "{name: norm-attention, heads: 2, qkv_bias: false}",
        "{name: norm-attention, heads: 2, head_dim: 3, act: 1+elu, qkv_bias: false}",
        "{name: diag-attention, heads: 2, block: 3, qkv_bias: false}",
        "{name: diag-attention, heads: 2, block: 4, act: softmax, qkv_bias: false}",
    };
    for (int i = 0; i < 12; i++) gradients_of("mixer", causal_ones[i / 2], 7, 6, i % 2, 0);
    gradients_of("mixer", "{name: flow, heads: 2, cross: true, qkv_bias: false}", 4, 6, false, 7);
    gradients_of("mixer", "{name: diag-attention, heads: 2, block: 4, act: softmax, mask_tail: true, qkv_bias: false}", 6, 6,
                 false, 0);
    gradients_of("mixer", "{name: simplified-linear, heads: 2, height: 3, width: 4, qkv_bias: false, out_bias: false}", 12, 6,
                 false, 0);
    gradients_of("mixer", "{name: simplified-linear, heads: 1, height: 2, width: 4, window: 2, kernel: 3, bias: false}", 8, 6,
                 false, 0);
    gradients_of("channel", "{name: glu, act: silu}", 3, 6, false, 0);
    gradients_of("channel", "glu", 3, 6, false, 0);
}

/* ---- srms: rows of zeros ---- */

static void zero_rows_have_finite_gradients(void **state) {
    wf_graph *g = wf_graph_open();
    wf_tensor *t = rn_random(WF_F32, WF_SHAPE(2, 6), 3, 0), *u = rn_random(WF_F32, WF_SHAPE(2, 6), 4, 0);
    for (int i = 0; i < 6; i++) wf_tensor_set(t, i, 0);
    wf_node *x = wf_leaf(g, t, "x"), *seed = wf_leaf(g, u, "u"), *y = wf_srms(g, x, 1e-2), *gx = NULL;
    assert_int_equal(wf_grad(g, &y, &seed, 1, &x, 1, &gx), WF_OK);
    wf_plan *p = wf_plan_new(g, (wf_node *[]){y, gx}, 2, NULL, 0, NULL);
    assert_int_equal(wf_plan_run(p), WF_OK);
    const float *out = wf_plan_out(p, 0), *in = wf_plan_out(p, 1);
    double size = 0;
    for (int i = 0; i < 6; i++) {
        assert_true(out[i] == 0 && fabs(in[i] - 100 * at(u, i)) < 1e-3);
        size += pow(at(t, 6 + i), 2);
    }
    for (int i = 6; i < 12; i++) assert_true(fabs(out[i] - at(t, i) / (sqrt(size / 6) + 1e-2)) < 1e-5 && isfinite(in[i]));
    wf_plan_free(p);
    wf_graph_free(g);
    wf_tensor_free(t);
    wf_tensor_free(u);
}

/* The first token of a block sees only itself: q.k < 0 in all heads makes a row of exactly 0. */
static void relu_rows_of_zero_train(void **state) {
    wf_model *m = part_of("mixer", "{name: diag-attention, heads: 1, block: 2, position: none, bias: false}", 4, true, 8);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            wf_tensor_set(wf_model_param(m, "q.weight")->value, i * 4 + j, i == j);
            wf_tensor_set(wf_model_param(m, "k.weight")->value, i * 4 + j, i == j ? -1 : 0);
        }
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_build_start(&b, g);
    b.causal = true;
    wf_tensor *t = rn_random(WF_F32, WF_SHAPE(1, 4, 4), 3, 0);
    wf_node *x = wf_leaf(g, t, "x"), *y = wf_apply(&b, m->root, x), *gx = NULL, *loss = wf_sum_all(g, wf_square(g, y));
    assert_int_equal(wf_grad(g, &loss, NULL, 1, &x, 1, &gx), WF_OK);
    wf_plan *p = wf_plan_new(g, (wf_node *[]){y, gx}, 2, NULL, 0, NULL);
    assert_int_equal(wf_plan_run_checked(p), WF_OK);
    for (int i = 0; i < 4; i++) assert_true(((const float *)wf_plan_out(p, 0))[i] == 0);
    wf_plan_free(p);
    wf_build_end(&b);
    wf_graph_free(g);
    wf_tensor_free(t);
    wf_model_free(m);
}

/* ---- Flow-Attention ---- */

typedef struct taps {
    wf_node *Q, *K, *Qn, *Kn;
} taps;
static void take_tap(void *ctx, const wf_module *m, const char *what, wf_node *n) {
    taps *t = ctx;
    if (!strcmp(what, "Q")) t->Q = n;
    if (!strcmp(what, "K")) t->K = n;
    if (!strcmp(what, "Q/I")) t->Qn = n;
    if (!strcmp(what, "K/O")) t->Kn = n;
}

/* What flows out of every source and into every sink is 1 after the division: sum_i Q_i.(K_j/O_j) = 1 = sum_j (Q_i/I_i).K_j. */
static void flow_is_conserved(void **state) {
    for (int cross = 0; cross < 2; cross++) {
        wf_model *m = mixer(cross ? "{name: flow, heads: 3, cross: true}" : "{name: flow, heads: 3}", 12, false);
        wf_graph *g = wf_graph_open();
        wf_build b;
        taps t = {0};
        wf_build_start(&b, g);
        b.tap = take_tap;
        b.tap_ctx = &t;
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 9, 12), 3, 0), *c = rn_random(WF_F32, WF_SHAPE(2, 31, 12), 4, 0);
        if (cross) b.context = wf_leaf(g, c, "context");
        assert_non_null(wf_apply(&b, m->root, wf_leaf(g, x, "x")));
        unsigned last = 1u << 3;
        wf_node *out[2] = {wf_sum(g, wf_mul(g, wf_sum(g, t.Q, 1u << 1, true), t.Kn), last, false),
                           wf_sum(g, wf_mul(g, wf_sum(g, t.K, 1u << 1, true), t.Qn), last, false)};
        wf_plan *p = wf_plan_new(g, out, 2, NULL, 0, NULL);
        assert_int_equal(wf_plan_run(p), WF_OK);
        for (int k = 0; k < 2; k++)
            for (int64_t i = 0; i < wf_shape_count(&out[k]->shape); i++)
                assert_true(fabs(((const float *)wf_plan_out(p, k))[i] - 1) < 1e-4);
        assert_int_equal(out[0]->shape.dim[1], cross ? 31 : 9);
        wf_plan_free(p);
        wf_build_end(&b);
        wf_graph_free(g);
        wf_tensor_free(x);
        wf_tensor_free(c);
        wf_model_free(m);
    }
}

static void flow_follows_a_permutation(void **state) {
    enum { L = 13, D = 12 };
    wf_model *m = mixer("{name: flow, heads: 3}", D, false);
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(1, L, D), 3, 0), *turned = wf_tensor_new(WF_F32, WF_SHAPE(1, L, D));
    for (int i = 0; i < L; i++)
        for (int j = 0; j < D; j++) wf_tensor_set(turned, i * D + j, at(x, i * 5 % L * D + j));
    wf_tensor *y = run_forward(m, x, NULL), *z = run_forward(m, turned, NULL);
    double moved = 0;
    for (int i = 0; i < L; i++)
        for (int j = 0; j < D; j++) {
            assert_true(fabs(at(z, i * D + j) - at(y, i * 5 % L * D + j)) < 1e-5);
            moved += fabs(at(z, i * D + j) - at(y, i * D + j));
        }
    assert_true(moved > 0.1);
    wf_tensor_free(x);
    wf_tensor_free(turned);
    wf_tensor_free(y);
    wf_tensor_free(z);
    wf_model_free(m);
}

static void cross_flow_needs_its_context(void **state) {
    wf_model *m = mixer("{name: flow, heads: 3, cross: true}", 12, false);
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(1, 3, 12), 3, 0);
    assert_null(run_forward(m, x, NULL));
    MESSAGE_HAS("needs a context");
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_build_start(&b, g);
    b.context = wf_leaf(g, x, "context");
    b.context_bias = wf_fill(g, WF_F32, WF_SHAPE(1, 1, 1, 3), 0);
    assert_null(wf_apply(&b, m->root, wf_leaf(g, x, "x")));
    assert_non_null(strstr(wf_graph_message(g), "with holes"));
    wf_build_end(&b);
    wf_graph_free(g);
    wf_tensor_free(x);
    wf_model_free(m);
}

/* ---- LRPE ---- */

static void lrpe_depends_on_distance_alone(void **state) {
    enum { L = 12 };
    for (int64_t d = 4; d <= 5; d++) {
        wf_model *m = part_of("position", "lrpe", d, false, 0);
        wf_graph *g = wf_graph_open();
        wf_build b;
        wf_build_start(&b, g);
        wf_tensor *one[2] = {rn_random(WF_F32, WF_SHAPE(1, 1, 1, d), 3, 0), rn_random(WF_F32, WF_SHAPE(1, 1, 1, d), 4, 0)};
        wf_node *qk[2];
        for (int i = 0; i < 2; i++) qk[i] = wf_contiguous(g, wf_expand(g, wf_leaf(g, one[i], "one"), WF_SHAPE(1, L, 1, d)));
        assert_int_equal(m->root->part->rotate(&b, m->root, &qk[0], &qk[1]), WF_OK);
        wf_node *s = wf_matmul(g, wf_squeeze(g, qk[0], 2), wf_squeeze(g, qk[1], 2), false, true);
        wf_plan *p = wf_plan_new(g, &s, 1, NULL, 0, NULL);
        assert_int_equal(wf_plan_run(p), WF_OK);
        const float *score = wf_plan_out(p, 0);
        double spread = 0;
        for (int i = 0; i < L; i++)
            for (int j = 0; j < L; j++) {
                int far = i - j, i0 = far > 0 ? far : 0;
                assert_true(fabs(score[i * L + j] - score[i0 * L + i0 - far]) < 1e-5);
                spread = fmax(spread, fabs(score[i * L + j] - score[0]));
            }
        assert_true(spread > 1e-2);
        wf_tensor *u = wf_model_param(m, "u")->value, *theta = wf_model_param(m, "theta")->value;
        double length = 0;
        for (int i = 0; i < d; i++) length += pow(at(u, i), 2);
        assert_true(fabs(length - 1) < 1e-6 && at(theta, 0) == 1 && fabs(at(theta, 1) - pow(10000, -2.0 / (double)d)) < 1e-6);
        assert_int_equal(wf_model_count(m), 2); /* u is not trained */
        wf_plan_free(p);
        wf_build_end(&b);
        wf_graph_free(g);
        wf_tensor_free(one[0]);
        wf_tensor_free(one[1]);
        wf_model_free(m);
    }
}

static wf_node *build_turn(wf_graph *g, wf_node **x, void *ctx) {
    const wf_tensor *u = ctx;
    return wf_turn_by(g, x[0], x[1], u ? wf_cast(g, wf_leaf(g, (wf_tensor *)(uintptr_t)u, "u"), WF_F64) : NULL);
}

static void turning_has_its_derivatives(void **state) {
    for (int64_t d = 2; d < 40; d += 11) {
        wf_model *m = part_of("position", "lrpe", d, false, 0);
        for (int reflect = 0; reflect < 2; reflect++) {
            gc_case c = {.name = "turn", .build = build_turn, .n = 2, .seed = 3, .second = true};
            c.shape[0] = WF_SHAPE(2, 3, 2, d);
            c.shape[1] = WF_SHAPE(3, d / 2);
            c.ctx = reflect ? wf_model_param(m, "u")->value : NULL;
            assert_true(gc_check(&c));
        }
        wf_model_free(m);
    }
}

/* ---- DiagAttention ---- */

static void blocks_do_not_see_each_other(void **state) {
    static const char *const texts[] = {"{name: diag-attention, heads: 3, block: 4}",
                                        "{name: diag-attention, heads: 3, block: 4, act: softmax}"};
    for (int i = 0; i < 4; i++) {
        wf_model *m = mixer(texts[i / 2], 12, i % 2);
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(1, 14, 12), 3, 0), *y = run_forward(m, x, NULL);
        for (int64_t j = 4 * 12; j < 8 * 12; j++) wf_tensor_set(x, j, 2 - at(x, j));
        wf_tensor *z = run_forward(m, x, NULL);
        double inside = 0;
        for (int64_t j = 0; j < 14 * 12; j++) {
            bool mine = j >= 4 * 12 && j < 8 * 12;
            if (mine)
                inside += fabs(at(y, j) - at(z, j));
            else
                assert_true(at(y, j) == at(z, j));
        }
        assert_true(inside > 1e-2);
        wf_tensor_free(x);
        wf_tensor_free(y);
        wf_tensor_free(z);
        wf_model_free(m);
    }
}

/* With its tail hidden a partial block is softmax attention of its own tokens. */
static void a_hidden_tail_leaves_softmax_attention(void **state) {
    wf_model *diag =
                 mixer("{name: diag-attention, heads: 3, block: 4, act: softmax, mask_tail: true, position: none, init: model}",
                       12, false),
             *open = mixer("{name: diag-attention, heads: 3, block: 4, act: softmax, position: none, init: model}", 12, false),
             *soft = mixer("{name: softmax, heads: 3}", 12, false);
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(1, 10, 12), 3, 0), *tail = part_rows(x, 0, 8, 2);
    wf_tensor *y = run_forward(diag, x, NULL), *ours = part_rows(y, 0, 8, 2), *z = run_forward(soft, tail, NULL);
    wf_tensor *w = run_forward(open, x, NULL), *seen = part_rows(w, 0, 8, 2);
    assert_close(ours, z, 1e-5, "hidden tail");
    assert_true(rn_error(seen, z) > 1e-2);
    wf_tensor *all[] = {x, tail, y, ours, z, w, seen};
    for (int i = 0; i < 7; i++) wf_tensor_free(all[i]);
    wf_model_free(diag);
    wf_model_free(open);
    wf_model_free(soft);
}

/* Share of attention on the nearest tenth of the tokens (the token itself and those before it): of weights [1,H,L,L]. */
static double nearest_tenth(const float *p, int64_t H, int64_t L, int64_t block) {
    double near = 0, all = 0;
    for (int64_t h = 0; h < H; h++)
        for (int64_t i = L / 10; i < L; i++)
            for (int64_t j = i / block * block; j <= i; j++) {
                double w = p[((i / block * H + h) * block + i % block) * block + j % block];
                all += w;
                if (i - j < L / 10) near += w;
            }
    return near / all;
}

static void take_weights(void *ctx, const wf_module *m, const char *what, wf_node *n) {
    wf_node **w = ctx;
    if (!strcmp(what, "weights")) w[0] = n;
    if (!strcmp(what, "q")) w[1] = n;
    if (!strcmp(what, "k")) w[2] = n;
}

/* Dilution: linear attention spreads over everything it sees, diag cannot. */
static void diag_attends_to_the_nearest(void **state) {
    enum { L = 640, D = 32, H = 2 };
    static const char *const texts[] = {"{name: diag-attention, heads: 2, act: softmax, block: 64}",
                                        "{name: linear, heads: 2}"};
    double share[2];
    for (int i = 0; i < 2; i++) {
        wf_model *m = part_of("mixer", texts[i], D, true, L);
        wf_graph *g = wf_graph_open();
        wf_build b;
        wf_node *w[3] = {0};
        wf_build_start(&b, g);
        b.causal = b.plain = true;
        b.tap = take_weights;
        b.tap_ctx = w;
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(1, L, D), 3, 0);
        assert_non_null(wf_apply(&b, m->root, wf_leaf(g, x, "x")));
        if (i) { /* normalised by nearest_tenth */
            wf_node *q = wf_permute(g, wf_elu1(g, w[1]), (const int[]){0, 2, 1, 3}),
                    *k = wf_permute(g, wf_elu1(g, w[2]), (const int[]){0, 2, 1, 3});
            wf_node *p = wf_mul(g, wf_matmul(g, q, k, false, true),
                                wf_le(g, wf_index(g, WF_F32, WF_SHAPE(L, L), 1), wf_index(g, WF_F32, WF_SHAPE(L, L), 0)));
            w[0] = wf_div(g, p, wf_sum(g, p, 1u << 3, true));
        }
        wf_plan *p = wf_plan_new(g, &w[0], 1, NULL, 0, NULL);
        assert_int_equal(wf_plan_run(p), WF_OK);
        share[i] = nearest_tenth(wf_plan_out(p, 0), H, L, i ? L : 64);
        wf_plan_free(p);
        wf_build_end(&b);
        wf_graph_free(g);
        wf_tensor_free(x);
        wf_model_free(m);
    }
    assert_true(fabs(share[0] - 1) < 1e-6);
    assert_true(share[1] < 0.5);
}

/* ---- the theory of NormAttention: gradients of weights by scores ---- */

typedef enum { SOFTMAX_OF, SHARE_OF, NORM_OF } how;

/* Largest |d out / d s| over all entries, s [n] the scores times `by`; *size: root mean square of what the norm divides by. */
static double steepest(how what, const wf_tensor *scores, const wf_tensor *values, double by, double eps, double *size) {
    wf_graph *g = wf_graph_open();
    int64_t n = scores->shape.dim[1], D = values->shape.dim[1];
    wf_tensor *scaled = wf_tensor_new(WF_F64, scores->shape);
    for (int64_t i = 0; i < n; i++) wf_tensor_set(scaled, i, by * at(scores, i));
    wf_node *s = wf_leaf(g, scaled, "s"), *out,
            *o = wf_matmul(g, s, wf_leaf(g, (wf_tensor *)(uintptr_t)values, "v"), false, false);
    if (what == SOFTMAX_OF) out = wf_softmax(g, s);
    if (what == SHARE_OF) out = wf_div(g, s, wf_sum(g, s, 1u << 1, true));
    if (what == NORM_OF) out = wf_srms(g, o, eps);
    double most = 0;
    int64_t m = what == NORM_OF ? D : n;
    for (int64_t j = 0; j < m; j++) {
        wf_node *one = wf_sum_all(g, wf_slice(g, out, 1, j, 1)), *gs = NULL;
        assert_int_equal(wf_grad(g, &one, NULL, 1, &s, 1, &gs), WF_OK);
        wf_plan *p = wf_plan_new(g, (wf_node *[]){gs, o}, 2, NULL, 0, NULL);
        assert_int_equal(wf_plan_run(p), WF_OK);
        for (int64_t k = 0; k < n; k++) most = fmax(most, fabs(((const double *)wf_plan_out(p, 0))[k]));
        double square = 0;
        for (int64_t k = 0; k < D; k++) square += pow(((const double *)wf_plan_out(p, 1))[k], 2);
        *size = sqrt(square / (double)D);
        wf_plan_free(p);
    }
    wf_graph_free(g);
    wf_tensor_free(scaled);
    return most;
}

static void the_norm_bounds_gradients_of_scores(void **state) {
    wf_tensor *s = wf_tensor_new(WF_F64, WF_SHAPE(1, 8)), *v = rn_random(WF_F64, WF_SHAPE(8, 6), 4, 0);
    for (int i = 0; i < 8; i++) wf_tensor_set(s, i, 0.2 + 0.3 * i);
    double size[2], soft[2], share[2], norm[2], floor_at[2];
    for (int i = 0; i < 2; i++) {
        double by = i ? 1e-3 : 1;
        soft[i] = steepest(SOFTMAX_OF, s, v, by, 0, &size[i]);
        share[i] = steepest(SHARE_OF, s, v, by, 0, &size[i]);
        norm[i] = steepest(NORM_OF, s, v, by, 1e-8, &size[i]) * size[i]; /* relative to the scale of the output */
        floor_at[i] = steepest(NORM_OF, s, v, by * 1e-3, 1e-2, &size[i]);
    }
    assert_true(soft[0] <= 0.25 && soft[1] <= 0.25);
    assert_true(share[1] / share[0] > 900 && share[1] / share[0] < 1100);
    assert_true(norm[1] / norm[0] < 2 && norm[1] / norm[0] > 0.5);
    assert_true(floor_at[1] < 2 * floor_at[0]); /* with an eps that counts, scores near 0 do not blow it up either */
    wf_tensor_free(s);
    wf_tensor_free(v);
}

/* ---- simplified linear attention ---- */

static void both_orders_agree(void **state) {
    for (int64_t side = 2; side <= 5; side++) {
        char a[160], b[160];
        snprintf(a, sizeof a, "{name: simplified-linear, heads: 2, height: %d, width: %d, order: qk_first}", (int)side,
                 (int)side + 1);
        snprintf(b, sizeof b, "{name: simplified-linear, heads: 2, height: %d, width: %d, order: kv_first}", (int)side,
                 (int)side + 1);
        wf_model *ma = mixer(a, 24, false), *mb = mixer(b, 24, false);
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, side * (side + 1), 24), 3, 0), *y = run_forward(ma, x, NULL),
                  *z = run_forward(mb, x, NULL);
        assert_close(y, z, 1e-5, a);
        wf_tensor_free(x);
        wf_tensor_free(y);
        wf_tensor_free(z);
        wf_model_free(ma);
        wf_model_free(mb);
    }
}

/* With values of 1, no convolution and the identity behind it, the output is the sum of a row's weights: 1 - eps z, and 0 for a
 * query of zeros. */
static void weights_of_a_row_sum_to_one(void **state) {
    enum { N = 12, D = 6 };
    static const char *const texts[] = {"{name: simplified-linear, heads: 1, height: 3, width: 4, order: qk_first}",
                                        "{name: simplified-linear, heads: 1, height: 3, width: 4}"};
    for (int i = 0; i < 2; i++) {
        wf_model *m = mixer(texts[i], D, false);
        static const char *const zero[] = {"v.weight", "o.weight", "o.bias", "conv.weight", "conv.bias", "q.bias"};
        for (int k = 0; k < 6; k++)
            memset(wf_model_param(m, zero[k])->value->data, 0, wf_model_param(m, zero[k])->value->bytes);
        for (int k = 0; k < D; k++) {
            wf_tensor_set(wf_model_param(m, "v.bias")->value, k, 1);
            wf_tensor_set(wf_model_param(m, "o.weight")->value, k * D + k, 1);
        }
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(1, N, D), 3, 0);
        for (int k = 0; k < D; k++) wf_tensor_set(x, 5 * D + k, 0);
        wf_tensor *y = run_forward(m, x, NULL);
        int ones = 0;
        for (int r = 0; r < N; r++) {
            double sum = at(y, r * D);
            if (r == 5)
                assert_true(sum == 0);
            else if (fabs(sum - 1) < 1e-4)
                ones++;
            else
                assert_true(sum == 0);
        }
        assert_true(ones > 8);
        wf_tensor_free(x);
        wf_tensor_free(y);
        wf_model_free(m);
    }
}

static void windows_are_pictures_of_their_own(void **state) {
    wf_model *whole = mixer("{name: simplified-linear, heads: 2, height: 4, width: 6, window: 2}", 8, false),
             *one = mixer("{name: simplified-linear, heads: 2, height: 2, width: 2}", 8, false);
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(1, 24, 8), 3, 0), *part = wf_tensor_new(WF_F32, WF_SHAPE(1, 4, 8));
    wf_tensor *y = run_forward(whole, x, NULL);
    for (int w = 0; w < 6; w++) {
        int row = w / 3 * 2, col = w % 3 * 2;
        for (int i = 0; i < 32; i++) wf_tensor_set(part, i, at(x, ((row + i / 16) * 6 + col + i / 8 % 2) * 8 + i % 8));
        wf_tensor *z = run_forward(one, part, NULL);
        for (int i = 0; i < 32; i++)
            assert_true(fabs(at(z, i) - at(y, ((row + i / 16) * 6 + col + i / 8 % 2) * 8 + i % 8)) < 1e-5);
        wf_tensor_free(z);
    }
    wf_tensor_free(x);
    wf_tensor_free(part);
    wf_tensor_free(y);
    wf_model_free(whole);
    wf_model_free(one);
}

/* ---- cost: counted by the plan ---- */

typedef struct spent {
    double flops, bytes, memory;
} spent;

/* Of forward and backward together. */
static spent cost_of(const char *text, bool causal, int64_t L, int64_t D, bool plain) {
    wf_model *m = part_of("mixer", text, D, causal, L);
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_build_start(&b, g);
    b.causal = causal;
    b.plain = plain;
    wf_tensor *t = wf_tensor_new(WF_F32, WF_SHAPE(1, L, D));
    wf_node *x = wf_leaf(g, t, "x"), *y = wf_apply(&b, m->root, x), *loss = wf_sum_all(g, wf_square(g, y)), *gx[8],
            *wrt[8] = {x};
    int n = 1;
    for (int i = 0; i < m->n_param && n < 8; i++)
        if (!(m->param[i]->flags & WF_PARAM_BUFFER)) wrt[n++] = wf_leaf(g, m->param[i]->value, "p");
    if (!y || wf_grad(g, &loss, NULL, 1, wrt, n, gx) != WF_OK) fail_msg("%s: %s", text, wf_graph_message(g));
    wf_plan *p = wf_plan_new(g, gx, n, NULL, 0, NULL);
    wf_plan_info info;
    wf_plan_describe(p, &info);
    wf_plan_free(p);
    wf_build_end(&b);
    wf_graph_free(g);
    wf_tensor_free(t);
    wf_model_free(m);
    return (spent){info.flops, info.bytes, (double)info.arena_bytes};
}

static void cost_is_linear_in_length(void **state) {
    static const char *const texts[] = {"{name: flow, heads: 2}", "{name: norm-attention, heads: 2}",
                                        "{name: diag-attention, heads: 2}", "{name: diag-attention, heads: 2, act: softmax}"};
    for (int i = 0; i < 8; i++) {
        spent a = cost_of(texts[i / 2], i % 2, 2048, 32, false), b = cost_of(texts[i / 2], i % 2, 4096, 32, false);
        if (b.flops > 2.3 * a.flops || b.bytes > 2.3 * a.bytes || b.memory > 2.3 * a.memory)
            fail_msg("%s: %g x FLOPs, %g x bytes, %g x memory", texts[i / 2], b.flops / a.flops, b.bytes / a.bytes,
                     b.memory / a.memory);
    }
    spent a = cost_of("{name: softmax, heads: 2}", true, 512, 32, true),
          b = cost_of("{name: softmax, heads: 2}", true, 1024, 32, true);
    assert_true(b.memory > 3 * a.memory && b.flops > 3 * a.flops); /* what it would look like otherwise */
}

static void cost_of_simplified_linear(void **state) {
    spent a = cost_of("{name: simplified-linear, heads: 2, height: 32, width: 32}", false, 1024, 64, false),
          b = cost_of("{name: simplified-linear, heads: 2, height: 32, width: 64}", false, 2048, 64, false);
    assert_true(b.flops < 2.2 * a.flops && b.bytes < 2.2 * a.bytes);
    spent c = cost_of("{name: softmax, heads: 2}", false, 1024, 64, false),
          d = cost_of("{name: softmax, heads: 2}", false, 2048, 64, false);
    assert_true(d.flops > 3 * c.flops);
}

/* ---- models, refusals, the gated unit ---- */

static void they_work_in_models(void **state) {
    static const char *const texts[] = {"flow", "norm-attention", "{name: diag-attention, block: 4}",
                                        "{name: diag-attention, block: 4, act: softmax}", "simplified-linear"};
    char recipe[256];
    for (int i = 0; i < 5; i++) {
        snprintf(recipe, sizeof recipe,
                 "{name: vit, image_height: 12, channels: 1, classes: 3, width: 16, layers: 2, patch: 3, pool: mean, mixer: "
                 "%s, channel: glu}",
                 texts[i]);
        wf_model *m = model_of(recipe, 1);
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 1, 12, 12), 3, 0), *y = run_forward(m, x, NULL);
        assert_non_null(y);
        wf_tensor_free(x);
        wf_tensor_free(y);
        wf_model_free(m);
        if (i == 4) break;
        static const int ways[] = {4, 1, 1, 4, 0};
        snprintf(recipe, sizeof recipe, "{name: lm, vocab: 11, length: 12, width: 16, layers: 2, mixer: %s, channel: glu}",
                 texts[i]);
        m = model_of(recipe, 1);
        x = rn_random(WF_I32, WF_SHAPE(2, 10), 1, 11);
        y = run_forward(m, x, NULL);
        wf_tensor *z = run_steps(m, x, ways, 12);
        assert_close(z, y, 1e-5, recipe);
        wf_tensor_free(x);
        wf_tensor_free(y);
        wf_tensor_free(z);
        wf_model_free(m);
    }
}

static void what_cannot_be_is_refused(void **state) {
#define LM(mixer) "{name: lm, vocab: 8, length: 4, width: 12, mixer: " mixer "}"
    refused(LM("simplified-linear"), "sees later positions");
    refused(LM("{name: flow, cross: true}"), "leave it out in a causal model");
    refused(LM("{name: flow, heads: 4, kv_heads: 2}"), "'kv_heads' other than 'heads'");
    refused(LM("{name: norm-attention, heads: 4, kv_heads: 2}"), "'kv_heads' other than 'heads'");
    refused(LM("{name: flow, position: alibi}"), "needs scores");
    refused(LM("{name: norm-attention, position: alibi}"), "take lrpe, rope or none");
    refused(LM("{name: diag-attention, position: alibi}"), "take lrpe, rope or none");
    refused(LM("{name: norm-attention, heads: 12}"), "turns pairs of channels");
    refused(LM("{name: flow, kernel: tanh}"), "sigmoid|relu");
#define VIT(more) "{name: vit, image_height: 12, channels: 1, classes: 3, width: 16, layers: 1, patch: 3, " more "}"
    refused(VIT("mixer: simplified-linear"), "take pool: mean");
    refused(VIT("pool: mean, mixer: {name: simplified-linear, window: 3}"), "must divide the grid of 4 x 4");
    refused(VIT("pool: mean, mixer: {name: simplified-linear, kernel: 4}"), "must be odd");
    refused("{name: bert, vocab: 8, length: 8, width: 16, layers: 1, mixer: simplified-linear}", "this model has none");
}

static void the_gated_unit_has_its_width(void **state) {
    static const int64_t widths[][2] = {{10, 26}, {12, 32}, {512, 1365}, {1, 2}};
    for (int i = 0; i < 4; i++) {
        wf_model *m = part_of("channel", "glu", widths[i][0], false, 0);
        assert_int_equal(wf_model_param(m, "gate.weight")->value->shape.dim[0], widths[i][1]);
        assert_non_null(wf_model_param(m, "down.bias"));
        wf_model_free(m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(step_equals_forward),
        cmocka_unit_test(long_steps_equal_forward),
        cmocka_unit_test(causal_mixers_do_not_look_ahead),
        cmocka_unit_test(padding_is_as_if_it_were_not_there),
        cmocka_unit_test(padding_of_the_context_is_as_if_it_were_not_there),
        cmocka_unit_test(results_do_not_depend_on_threads),
        cmocka_unit_test(gradients_agree_with_differences),
        cmocka_unit_test(zero_rows_have_finite_gradients),
        cmocka_unit_test(relu_rows_of_zero_train),
        cmocka_unit_test(flow_is_conserved),
        cmocka_unit_test(flow_follows_a_permutation),
        cmocka_unit_test(cross_flow_needs_its_context),
        cmocka_unit_test(lrpe_depends_on_distance_alone),
        cmocka_unit_test(turning_has_its_derivatives),
        cmocka_unit_test(blocks_do_not_see_each_other),
        cmocka_unit_test(a_hidden_tail_leaves_softmax_attention),
        cmocka_unit_test(diag_attends_to_the_nearest),
        cmocka_unit_test(the_norm_bounds_gradients_of_scores),
        cmocka_unit_test(both_orders_agree),
        cmocka_unit_test(weights_of_a_row_sum_to_one),
        cmocka_unit_test(windows_are_pictures_of_their_own),
        cmocka_unit_test(cost_is_linear_in_length),
        cmocka_unit_test(cost_of_simplified_linear),
        cmocka_unit_test(they_work_in_models),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(the_gated_unit_has_its_width),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
