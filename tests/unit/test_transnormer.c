/* test_transnormer.c: NormAttention, DiagAttention and LRPE: rows of zeros, distances, blocks, the theory of the norm. */
#include "gradcheck.h"
#include "mixers_help.h"

#include "part/norm/norm.h"

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zero_rows_have_finite_gradients), cmocka_unit_test(relu_rows_of_zero_train),
        cmocka_unit_test(lrpe_depends_on_distance_alone),  cmocka_unit_test(turning_has_its_derivatives),
        cmocka_unit_test(blocks_do_not_see_each_other),    cmocka_unit_test(a_hidden_tail_leaves_softmax_attention),
        cmocka_unit_test(diag_attends_to_the_nearest),     cmocka_unit_test(the_norm_bounds_gradients_of_scores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
