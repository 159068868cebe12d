/* test_linear_mixers.c: what flow, norm-attention, diag-attention and simplified-linear share, and Flow-Attention and simplified
 * linear attention alone. What TransNormer has of its own: test_transnormer.c. */
#include "gradcheck.h"
#include "mixers_help.h"

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

/* ---- step, causality, padding ---- */

static void step_equals_forward(void **state) {
    for (int i = 0; i < N_CAUSAL; i++) steps_are_forward(mixer(causal_mixers[i], 12, true), causal_mixers[i], 1e-5);
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
    for (int i = 0; i < N_CAUSAL; i++) does_not_look_ahead(mixer(causal_mixers[i], 12, true), causal_mixers[i], 0);
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
        cmocka_unit_test(flow_is_conserved),
        cmocka_unit_test(flow_follows_a_permutation),
        cmocka_unit_test(cross_flow_needs_its_context),
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
