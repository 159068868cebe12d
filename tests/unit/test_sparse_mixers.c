/* test_sparse_mixers.c: performer, linformer, longformer, bigbird, lsh: equal to dense attention where they must be, causal,
 * deaf to padding, streaming, gradients, cost, random buffers, and inside whole models. */
#include "gradcheck.h"
#include "mixers_help.h"

#include "part/mixer/sparse.h"

#include <math.h>
#include <unistd.h>

static const char *const causal[] = {
    "{name: performer, heads: 2, features: 20}",
    "{name: performer, heads: 2, head_dim: 5, kernel: relu, position: {name: rope, dim: 4}}",
    "{name: performer, heads: 3, max_value: 1.5, eps_feature: 0.01, qk_norm: rms_head}",
    "{name: longformer, heads: 2, window: 2}",
    "{name: longformer, heads: 2, window: 1, global_tokens: [0]}",
    "{name: longformer, heads: 3, window: 2, global_tokens: [4, 1, 2], position: rope}",
    "{name: longformer, heads: 2, kv_heads: 1, window: 3, global_tokens: [6]}",
};
static const char *const others[] = {
    "{name: lsh, heads: 2, bucket_size: 2, n_hashes: 3}",
    "{name: lsh, heads: 3, bucket_size: 3, n_hashes: 1, position: rope}",
    "{name: lsh, heads: 1, bucket_size: 2, n_hashes: 2, attend_across_buckets: false}",
    "{name: lsh, heads: 2, bucket_size: 2, n_hashes: 2, allow_duplicates: false}",
    "{name: linformer, heads: 2, k: 5}",
    "{name: linformer, heads: 3, k: 4, share_kv: true, position: rope}",
    "{name: bigbird, heads: 2, block: 2, random_blocks: 1}",
    "{name: bigbird, heads: 3, block: 1, random_blocks: 2, kv_heads: 1, qk_norm: l2}",
    "{name: performer, heads: 2, max: sequence}",
};
enum { N_CAUSAL = sizeof causal / sizeof *causal, N_OTHERS = sizeof others / sizeof *others };

/* ---- streaming ---- */

static void step_equals_forward(void **state) {
    for (int i = 0; i < N_CAUSAL; i++) steps_are_forward(stirred(causal[i]), causal[i], 3e-5);
}

/* One step of a mixer that cannot stream: the message. */
static void cannot_stream(const char *text, bool causal_model, const char *says) {
    wf_model *m = part_of("mixer", text, 12, causal_model, 16);
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(1, 1, 12), 1, 0), *pos = wf_tensor_new(WF_I32, WF_SHAPE(1));
    wf_states *states = wf_states_new();
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_build_start(&b, g);
    b.step = b.causal = true;
    b.states = states;
    b.max_length = 16;
    b.pos = wf_leaf(g, pos, "pos");
    assert_null(wf_apply(&b, m->root, wf_leaf(g, x, "x")));
    if (!strstr(wf_graph_message(g), says)) fail_msg("%s: %s", text, wf_graph_message(g));
    wf_build_end(&b);
    wf_graph_free(g);
    wf_states_free(states);
    wf_tensor_free(x);
    wf_tensor_free(pos);
    wf_model_free(m);
}

static void what_cannot_stream_says_what_can(void **state) {
    cannot_stream(others[0], true, "train one with mixer: softmax");
    cannot_stream(others[0], true, "performer, longformer");
    cannot_stream("{name: performer, heads: 2, max: sequence}", true, "train with max: fixed");
}

static void combinations_are_refused_when_read(void **state) {
    refused("{name: lm, vocab: 8, length: 8, width: 12, mixer: {name: linformer, heads: 2}}", "sees later positions");
    refused("{name: lm, vocab: 8, length: 8, width: 12, mixer: {name: bigbird, heads: 2}}", "take mixer: softmax");
    refused("{name: lm, vocab: 8, length: 8, width: 12, mixer: {name: performer, heads: 2, kv_heads: 1}}", "kv_heads");
    refused("{name: lm, vocab: 8, length: 8, width: 12, position: alibi, mixer: {name: performer, heads: 2}}", "needs scores");
    refused("{name: lm, vocab: 8, length: 8, width: 12, position: alibi, mixer: {name: lsh, heads: 2}}", "needs scores");
    refused("{name: lm, vocab: 8, length: 8, width: 12, mixer: {name: performer, heads: 2, qk_norm: l2}}", "take rms_head");
    refused("{name: lm, vocab: 8, length: 8, width: 12, mixer: {name: lsh, heads: 5}}", "'heads' must divide the width");
    refused("{name: lm, vocab: 8, length: 8, width: 12, mixer: {name: longformer, heads: 2, global_tokens: 3}}",
            "a list of positions");
    refused("{name: lm, vocab: 8, length: 8, width: 12, mixer: {name: longformer, heads: 2, global_tokens: [8]}}",
            "outside of the model's length 8");
    refused("{name: lm, vocab: 8, length: 8, width: 12, mixer: {name: longformer, heads: 2, global_tokens: [1, 1]}}", "twice");
    refused("{name: lm, vocab: 8, length: 8, width: 12, mixer: {name: longformer, heads: 2, global_tokens: [1], qk_norm: "
            "rms_head}}",
            "global tokens have no qk_norm");
}

/* ---- causality and padding ---- */

static void causal_mixers_do_not_look_ahead(void **state) {
    for (int i = 0; i < N_CAUSAL; i++) does_not_look_ahead(stirred(causal[i]), causal[i], 1e-6);
}

static wf_tensor *lsh_run(wf_tensor *qk, wf_tensor *v, wf_tensor *rotations, wf_lsh s) {
    wf_graph *g = wf_graph_open();
    s.rotations = wf_leaf(g, rotations, "R");
    wf_tensor *y = rn_run(g, wf_lsh_attention(g, wf_leaf(g, qk, "qk"), wf_leaf(g, v, "v"), &s, NULL));
    if (!y) fail_msg("%s", wf_message());
    wf_graph_free(g);
    return y;
}

/* Which tokens share a chunk depends on all buckets, so the later tokens change in a way that keeps those: length, and values. */
static void lsh_weighs_earlier_tokens_only(void **state) {
    wf_tensor *qk = rn_random(WF_F32, WF_SHAPE(2, 23, 2, 6), 1, 0), *v = rn_random(WF_F32, WF_SHAPE(2, 23, 2, 4), 2, 0);
    wf_lsh s = {.bucket = 3, .hashes = 2, .causal = true, .across = true, .duplicates = true, .self = -5e4};
    wf_tensor *R = rn_random(WF_F32, WF_SHAPE(6, 2, wf_lsh_buckets(23, 3) / 2), 3, 0);
    for (int both = 0; both < 2; both++, s.duplicates = false) {
        wf_tensor *a = lsh_run(qk, v, R, s);
        for (int64_t b = 0; b < 2; b++)
            for (int64_t l = 12; l < 23; l++) {
                for (int64_t i = 0; i < 12; i++)
                    wf_tensor_set(qk, (b * 23 + l) * 12 + i, 2 * wf_tensor_get(qk, (b * 23 + l) * 12 + i));
                for (int64_t i = 0; i < 8; i++)
                    wf_tensor_set(v, (b * 23 + l) * 8 + i, 7 - wf_tensor_get(v, (b * 23 + l) * 8 + i));
            }
        wf_tensor *c = lsh_run(qk, v, R, s);
        for (int64_t i = 0; i < wf_tensor_count(a); i++) {
            double d = fabs(wf_tensor_get(a, i) - wf_tensor_get(c, i));
            if (i / 8 % 23 < 12 ? d > 1e-6 : 0) fail_msg("position %d changed by %g", (int)(i / 8 % 23), d);
        }
        assert_true(rn_error(a, c) > 0.1);
        wf_tensor_free(a);
        wf_tensor_free(c);
    }
    wf_tensor_free(qk);
    wf_tensor_free(v);
    wf_tensor_free(R);
}

static void padding_does_not_matter(void **state) {
    wf_tensor *lengths = wf_tensor_new(WF_I32, WF_SHAPE(2));
    wf_tensor_set(lengths, 0, 7); /* holds the last global token */
    wf_tensor_set(lengths, 1, 11);
    for (int i = 0; i < 2 * N_CAUSAL + N_OTHERS; i++) {
        const char *text = i < 2 * N_CAUSAL ? causal[i / 2] : others[i - 2 * N_CAUSAL];
        wf_model *m = part_of("mixer", text, 12, i < 2 * N_CAUSAL && i % 2, 16);
        stir(m, 0.3);
        run_spec o = {.lengths = lengths};
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 11, 12), 4, 0), *y = run_forward(m, x, &o);
        if (!y) fail_msg("%s: %s", text, wf_message());
        for (int64_t j = 7 * 12; j < 11 * 12; j++) wf_tensor_set(x, j, 5 - wf_tensor_get(x, j));
        wf_tensor *z = run_forward(m, x, &o);
        for (int64_t j = 0; j < 22 * 12; j++) {
            if (!isfinite(wf_tensor_get(y, j))) fail_msg("%s: not finite", text);
            if ((j < 7 * 12 || j >= 11 * 12) && fabs(wf_tensor_get(y, j) - wf_tensor_get(z, j)) > 1e-6)
                fail_msg("%s: padding matters at %d", text, (int)(j / 12));
        }
        wf_tensor_free(x);
        wf_tensor_free(y);
        wf_tensor_free(z);
        wf_model_free(m);
    }
    wf_tensor_free(lengths);
}

/* ---- sparse is dense ---- */

/* Copy parameters of the same name from a to b. */
static void same_parameters(const wf_model *a, wf_model *b) {
    for (int i = 0; i < b->n_param; i++)
        for (int j = 0; j < a->n_param; j++)
            if (!strcmp(a->param[j]->name, b->param[i]->name))
                memcpy(b->param[i]->value->data, a->param[j]->value->data, b->param[i]->value->bytes);
}

static void full_patterns_are_softmax_attention(void **state) {
    static const struct {
        const char *sparse;
        bool causal;
    } cases[] = {{"{name: longformer, heads: 2, window: 12}", false},
                 {"{name: longformer, heads: 2, window: 40}", true},
                 {"{name: bigbird, heads: 2, block: 2, random_blocks: 7}", false},
                 {"{name: bigbird, heads: 2, block: 5, random_blocks: 0}", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        wf_model *d = part_of("mixer", "{name: softmax, heads: 2}", 12, cases[i].causal, 13),
                 *s = part_of("mixer", cases[i].sparse, 12, cases[i].causal, 13);
        stir(d, 0.5);
        same_parameters(d, s);
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 13, 12), 8, 0), *y = run_forward(d, x, NULL), *z = run_forward(s, x, NULL);
        assert_close(z, y, 1e-6, cases[i].sparse);
        wf_tensor_free(x);
        wf_tensor_free(y);
        wf_tensor_free(z);
        wf_model_free(d);
        wf_model_free(s);
    }
    wf_model *few = part_of("mixer", "{name: bigbird, heads: 2, block: 2, random_blocks: 0}", 12, false, 13), /* can fail */
        *all = part_of("mixer", "{name: softmax, heads: 2}", 12, false, 13);
    stir(all, 0.5);
    same_parameters(all, few);
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 13, 12), 8, 0), *y = run_forward(few, x, NULL), *z = run_forward(all, x, NULL);
    assert_true(rn_error(y, z) > 1e-3);
    wf_tensor_free(x);
    wf_tensor_free(y);
    wf_tensor_free(z);
    wf_model_free(few);
    wf_model_free(all);
}

/* softmax over visible j of q_i.k_j / |k_j| / sqrt(d); j = i only when nothing else is there. */
static void dense_lsh(const wf_tensor *qk, const wf_tensor *v, bool causal_only, double *o) {
    int64_t L = qk->shape.dim[1], H = qk->shape.dim[2], d = qk->shape.dim[3], e = v->shape.dim[3];
    for (int64_t h = 0; h < H; h++)
        for (int64_t i = 0; i < L; i++) {
            double sum = 0;
            for (int64_t x = 0; x < e; x++) o[(i * H + h) * e + x] = 0;
            for (int64_t j = 0; j < L; j++) {
                double dot = 0, size = 0;
                for (int64_t c = 0; c < d; c++) {
                    double k = wf_tensor_get(qk, (j * H + h) * d + c);
                    dot += wf_tensor_get(qk, (i * H + h) * d + c) * k;
                    size += k * k;
                }
                bool alone = causal_only && i == 0 && j == 0;
                if (!alone && (j == i || (causal_only && j > i))) continue;
                double w = exp(dot / sqrt(size) / sqrt((double)d));
                sum += w;
                for (int64_t x = 0; x < e; x++) o[(i * H + h) * e + x] += w * wf_tensor_get(v, (j * H + h) * e + x);
            }
            for (int64_t x = 0; x < e; x++) o[(i * H + h) * e + x] /= sum;
        }
}

static void one_pair_of_buckets_is_dense(void **state) {
    for (int i = 0; i < 8; i++) {
        bool look_back = i % 2, duplicates = i / 2 % 2;
        int64_t L = i < 4 ? 14 : 11; /* 11: three positions are added and hidden */
        wf_tensor *qk = rn_random(WF_F32, WF_SHAPE(1, L, 2, 6), 5, 0), *v = rn_random(WF_F32, WF_SHAPE(1, L, 2, 4), 6, 0),
                  *R = rn_random(WF_F32, WF_SHAPE(6, 1, 1), 7, 0), *o = wf_tensor_new(WF_F64, v->shape);
        wf_lsh s = {7, 1, look_back, true, duplicates, -5e4, NULL, NULL};
        dense_lsh(qk, v, look_back, o->data);
        wf_tensor *y = lsh_run(qk, v, R, s);
        assert_close(y, o, 1e-5, "lsh");
        wf_tensor_free(qk);
        wf_tensor_free(v);
        wf_tensor_free(R);
        wf_tensor_free(o);
        wf_tensor_free(y);
    }
}

/* ---- linformer ---- */

/* Shortening before the linears, as the part does where it can, against the definition. */
static void shortening_commutes_with_linears(void **state) {
    wf_tensor *lengths = wf_tensor_new(WF_I32, WF_SHAPE(2));
    wf_tensor_set(lengths, 0, 5);
    wf_tensor_set(lengths, 1, 9);
    for (int padded = 0; padded < 2; padded++) {
        wf_model *b = part_of("mixer", "{name: linformer, heads: 2, k: 4}", 12, false, 11);
        stir(b, 0.4);
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 9, 12), 3, 0);
        run_spec o = {.lengths = padded ? lengths : NULL};
        wf_tensor *y = run_forward(b, x, &o);
        wf_graph *g = wf_graph_open();
        wf_build build;
        wf_build_start(&build, g);
        if (padded) build.lengths = wf_leaf(g, lengths, "lengths");
        wf_node *in = wf_leaf(g, x, "x"), *q, *k, *v, *keep = wf_keep_mask(&build, in);
        assert_int_equal(wf_heads_project(&build, b->root, in, in, &q, &k, &v), WF_OK);
        wf_node *kv[2] = {k, v};
        for (int i = 0; i < 2; i++)
            kv[i] = wf_reshape(
                g,
                wf_linformer_shorten(g, wf_use(&build, b->root, i ? "F" : "E"), wf_reshape(g, kv[i], WF_SHAPE(2, 9, 12)), keep),
                WF_SHAPE(2, 4, 2, 6));
        wf_tensor *z = rn_run(g, wf_heads_merge(&build, b->root, wf_attention(g, q, kv[0], kv[1], NULL)));
        assert_close(y, z, 1e-5, "linformer");
        wf_build_end(&build);
        wf_graph_free(g);
        wf_tensor_free(x);
        wf_tensor_free(y);
        wf_tensor_free(z);
        wf_model_free(b);
    }
    wf_tensor_free(lengths);
}

/* ---- performer ---- */

/* Mean |f(q).f(k) - exp(q.k/sqrt(d))| over pairs of fixed q, k and several projections of M rows */
static double kernel_error(int64_t M) {
    enum { L = 12, d = 8, DRAWS = 24 };
    wf_tensor *q = rn_random(WF_F64, WF_SHAPE(1, L, 1, d), 1, 0), *k = rn_random(WF_F64, WF_SHAPE(1, L, 1, d), 2, 0);
    double error = 0;
    for (int64_t i = 0; i < L * d; i++) /* long vectors have estimates with heavy tails */
        ((double *)q->data)[i] *= 0.5, ((double *)k->data)[i] *= 0.5;
    for (uint64_t n = 0; n < DRAWS; n++) {
        wf_rng r = {n, 5, 0};
        wf_tensor *rows = wf_tensor_new(WF_F32, WF_SHAPE(M, d));
        wf_orthogonal_rows(rows->data, M, d, &r);
        wf_graph *g = wf_graph_open();
        wf_node *w = wf_cast(g, wf_leaf(g, rows, "w"), WF_F64);
        wf_favor f = {.fixed = true};
        wf_tensor *a = rn_run(g, wf_favor_features(g, wf_favor_bare(g, wf_leaf(g, q, "q"), w, &f, true, NULL), &f, NULL)),
                  *b = rn_run(g, wf_favor_features(g, wf_favor_bare(g, wf_leaf(g, k, "k"), w, &f, true, NULL), &f, NULL));
        for (int64_t i = 0; i < L; i++)
            for (int64_t j = 0; j < L; j++) {
                double dot = 0, estimate = 0;
                for (int64_t c = 0; c < d; c++) dot += wf_tensor_get(q, i * d + c) * wf_tensor_get(k, j * d + c);
                for (int64_t c = 0; c < M; c++) estimate += wf_tensor_get(a, i * M + c) * wf_tensor_get(b, j * M + c);
                error += fabs(estimate - exp(dot / sqrt(d))) / (L * L * DRAWS);
            }
        wf_graph_free(g);
        wf_tensor_free(rows);
        wf_tensor_free(a);
        wf_tensor_free(b);
    }
    wf_tensor_free(q);
    wf_tensor_free(k);
    return error;
}

static void the_estimate_improves_with_features(void **state) {
    double e16 = kernel_error(16), e64 = kernel_error(64), e256 = kernel_error(256);
    if (!(e16 / e256 > 2.5 && e16 / e256 < 6 && e16 > e64 && e64 > e256)) fail_msg("errors %g %g %g", e16, e64, e256);
}

static void rows_are_orthogonal_in_blocks(void **state) {
    enum { M = 19, d = 8 };
    float w[M * d];
    wf_rng r = {3, 0, 0};
    wf_orthogonal_rows(w, M, d, &r);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < i; j++) {
            double dot = 0;
            for (int c = 0; c < d; c++) dot += (double)w[i * d + c] * (double)w[j * d + c];
            if (i / d == j / d) assert_true(fabs(dot) < 1e-4);
        }
    double size[2] = {0};
    for (int c = 0; c < d; c++) size[0] += (double)w[c] * (double)w[c], size[1] += (double)w[d + c] * (double)w[d + c];
    assert_true(fabs(size[0] - size[1]) > 1e-3); /* lengths are random */
}

static void the_projection_is_redrawn_in_training(void **state) {
    wf_model *m = part_of("mixer", "{name: performer, heads: 2, redraw: 3}", 12, true, 16);
    wf_tensor *w = wf_model_param(m, "projection")->value, *x = rn_random(WF_F32, WF_SHAPE(1, 4, 12), 1, 0),
              *seed = wf_tensor_new(WF_I32, WF_SHAPE(4)), *was = wf_tensor_new(WF_F32, w->shape);
    assert_int_equal(w->shape.dim[0], 10); /* 6 ln 6 */
    run_spec train = {.train = true, .seed = seed};
    for (int step = 0; step < 8; step++) {
        memcpy(was->data, w->data, w->bytes);
        wf_tensor_set(seed, 2, step);
        wf_tensor_free(run_forward(m, x, &train));
        bool changed = memcmp(was->data, w->data, w->bytes) != 0;
        assert_int_equal(changed, step > 0 && step % 3 == 0);
    }
    wf_tensor_free(run_forward(m, x, NULL));
    train.seed = NULL;
    memcpy(was->data, w->data, w->bytes);
    wf_tensor_free(run_forward(m, x, &train));
    assert_memory_equal(was->data, w->data, w->bytes);
    wf_tensor_free(x);
    wf_tensor_free(seed);
    wf_tensor_free(was);
    wf_model_free(m);
}

/* ---- gradients ---- */

typedef struct applied {
    wf_model *m;
    bool causal;
} applied;

static wf_node *apply(wf_graph *g, wf_node **x, void *ctx) {
    applied *a = ctx;
    wf_build b;
    wf_build_start(&b, g);
    b.causal = a->causal;
    b.compute = WF_F64;
    wf_node *y = wf_apply(&b, a->m->root, x[0]);
    wf_build_end(&b);
    return y;
}

static void gradient_of(const char *text, bool causal_model) {
    applied a = {part_of("mixer", text, 12, causal_model, 16), causal_model};
    stir(a.m, 0.3);
    gc_case c = {.name = text, .build = apply, .ctx = &a, .n = 1, .shape = {WF_SHAPE(1, 7, 12)}, .seed = 5};
    if (!gc_check(&c)) fail_msg("%s", text);
    wf_model_free(a.m);
}

/* Performer's maxima are constants of its gradient: it is the true derivative where they cancel, without the small numbers. */
static void gradients(void **state) {
    for (int i = 0; i < 2 * N_CAUSAL + N_OTHERS; i++) {
        const char *text = i < 2 * N_CAUSAL ? causal[i / 2] : others[i - 2 * N_CAUSAL];
        if (!strstr(text, "performer") || strstr(text, "relu")) gradient_of(text, i < 2 * N_CAUSAL && i % 2);
    }
    gradient_of("{name: performer, heads: 2, eps_feature: 0, eps_denominator: 0}", false);
    gradient_of("{name: performer, heads: 2, eps_feature: 0, eps_denominator: 0}", true);
}

/* ---- cost ---- */

static double flops(const char *text, int64_t L) {
    wf_model *m = part_of("mixer", text, 32, false, L);
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_build_start(&b, g);
    wf_tensor *x = wf_tensor_new(WF_F32, WF_SHAPE(1, L, 32));
    wf_node *in = wf_leaf(g, x, "x"), *y = wf_apply(&b, m->root, in), *grad[2];
    assert_int_equal(wf_grad(g, &y, &in, 1, &in, 1, grad), WF_OK);
    grad[1] = y;
    wf_plan *p = wf_plan_new(g, grad, 2, b.update, b.n_update, NULL);
    if (!p) fail_msg("%s: %s", text, wf_message());
    wf_plan_info info;
    wf_plan_describe(p, &info);
    wf_plan_free(p);
    wf_build_end(&b);
    wf_graph_free(g);
    wf_tensor_free(x);
    wf_model_free(m);
    return info.flops;
}

static void work_grows_with_the_length(void **state) {
    static const struct {
        const char *text;
        double lo, hi; /* growth from 1024 to 4096 */
    } cases[] = {{"{name: softmax, heads: 2}", 12, 16},
                 {"{name: softmax, heads: 2, window: 64}", 3.9, 4.4},
                 {"{name: linear, heads: 2}", 3.9, 4.1},
                 {"{name: performer, heads: 2}", 3.9, 4.1},
                 {"{name: linformer, heads: 2, k: 64}", 3.9, 4.1},
                 {"{name: longformer, heads: 2, window: 64, global_tokens: [0]}", 3.9, 4.4},
                 {"{name: bigbird, heads: 2, block: 32}", 3.9, 4.4}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double growth = flops(cases[i].text, 4096) / flops(cases[i].text, 1024);
        if (growth < cases[i].lo || growth > cases[i].hi) fail_msg("%s: FLOPs grow by %g", cases[i].text, growth);
    }
}

/* ---- in models ---- */

/* Gradients of a model on random input are finite, and every parameter of the first block matters. (In the last one a head that reads
 * the class token alone leaves some out.) */
static void trains(const char *text, wf_tensor *input) {
    wf_model *m = model_of(text, 3);
    stir(m, 0.05);
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_build_start(&b, g);
    b.train = true;
    wf_tensor *seed = wf_tensor_new(WF_I32, WF_SHAPE(4));
    b.seed = wf_leaf(g, seed, "seed");
    wf_node *y = wf_apply(&b, m->root, wf_leaf(g, input, "input"));
    if (!y) fail_msg("%s: %s", text, wf_graph_message(g));
    wf_node *loss = wf_sum_all(g, wf_square(g, y)), *leaf[256], *grad[256];
    const char *name[256];
    int n = 0;
    for (int i = 0; i < m->n_param; i++)
        if (!(m->param[i]->flags & WF_PARAM_BUFFER))
            name[n] = m->param[i]->name, leaf[n++] = wf_leaf(g, m->param[i]->value, m->param[i]->name);
    assert_int_equal(wf_grad(g, &loss, NULL, 1, leaf, n, grad), WF_OK);
    wf_plan *p = wf_plan_new(g, grad, n, b.update, b.n_update, NULL);
    if (!p || wf_plan_run_checked(p) != WF_OK) fail_msg("%s: %s", text, wf_message());
    for (int k = 0; k < n; k++) {
        const float *d = wf_plan_out(p, k);
        double size = 0;
        for (int64_t j = 0; j < wf_shape_count(&grad[k]->shape); j++) size += fabs((double)d[j]);
        bool matters = !strncmp(name[k], "blocks.0.", 9) && !strstr(name[k], "k.bias") &&
                       !strstr(name[k], "k_global.bias"); /* those cancel in a softmax */
        if (!isfinite(size) || (matters && size == 0)) fail_msg("%s: the gradient of %s is %g", text, name[k], size);
    }
    wf_plan_free(p);
    wf_build_end(&b);
    wf_graph_free(g);
    wf_tensor_free(seed);
    wf_model_free(m);
}

static void mixers_work_in_models(void **state) {
    wf_tensor *ids = rn_random(WF_I32, WF_SHAPE(2, 13), 1, 9), *picture = rn_random(WF_F32, WF_SHAPE(2, 1, 12, 12), 2, 0);
    char text[400];
    for (int i = 0; i < N_CAUSAL + 2; i++) {
        const char *mixer = i < N_CAUSAL ? causal[i] : others[i - N_CAUSAL];
        snprintf(text, sizeof text, "{name: lm, vocab: 9, length: 16, width: 12, layers: 2, mixer: %s}", mixer);
        trains(text, ids);
    }
    for (int i = 0; i < N_CAUSAL + N_OTHERS; i++) {
        const char *mixer = i < N_CAUSAL ? causal[i] : others[i - N_CAUSAL];
        snprintf(
            text, sizeof text,
            "{name: vit, image_height: 12, channels: 1, classes: 3, patch: 4, pool: class, width: 12, layers: 2, mixer: %s}",
            mixer);
        trains(text, picture);
    }
    wf_tensor_free(ids);
    wf_tensor_free(picture);
}

static void random_buffers_are_in_the_file(void **state) {
    char path[64];
    snprintf(path, sizeof path, "/tmp/weft-sparse-%d.safetensors", (int)getpid());
    static const char *const drawn[] = {"{name: bigbird, heads: 2, block: 2, random_blocks: 2}",
                                        "{name: lsh, heads: 2, bucket_size: 2}", "{name: performer, heads: 2}"};
    wf_tensor *picture = rn_random(WF_F32, WF_SHAPE(2, 1, 16, 16), 2, 0);
    for (int i = 0; i < 3; i++) {
        char text[400];
        snprintf(text, sizeof text,
                 "{name: vit, image_height: 16, channels: 1, classes: 3, patch: 4, width: 12, layers: 1, mixer: %s}", drawn[i]);
        wf_model *m = model_of(text, 5);
        stir(m, 0.2);
        assert_int_equal(wf_model_save(m, path, WF_F32, NULL, NULL, 0), WF_OK);
        wf_model *n = wf_model_load(path);
        if (!n) fail_msg("%s", wf_message());
        wf_tensor *y = run_forward(m, picture, NULL), *z = run_forward(n, picture, NULL);
        if (rn_error(y, z) != 0) fail_msg("%s: the loaded model differs", drawn[i]);
        wf_tensor_free(y);
        wf_tensor_free(z);
        wf_model_free(m);
        wf_model_free(n);
    }
    unlink(path);
    wf_tensor_free(picture);
}

static void random_blocks_are_others(void **state) {
    wf_model *m = part_of("mixer", "{name: bigbird, heads: 3, block: 2, random_blocks: 2}", 12, false, 20);
    const wf_tensor *t = wf_model_param(m, "random")->value; /* [3,8,2] */
    bool heads_differ = false;
    for (int64_t i = 0; i < 3 * 8; i++) {
        int32_t row = (int32_t)(i % 8) + 1, a = ((int32_t *)t->data)[2 * i], b = ((int32_t *)t->data)[2 * i + 1];
        assert_true(a != b && a > 0 && a < 9 && b > 0 && b < 9 && abs(a - row) > 1 && abs(b - row) > 1);
        if (i >= 8 && a != ((int32_t *)t->data)[2 * (i % 8)]) heads_differ = true;
    }
    assert_true(heads_differ);
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(1, 21, 12), 1, 0);
    assert_null(run_forward(m, x, NULL));
    MESSAGE_HAS("longer than the 20");
    wf_tensor_free(x);
    wf_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(step_equals_forward),
        cmocka_unit_test(what_cannot_stream_says_what_can),
        cmocka_unit_test(combinations_are_refused_when_read),
        cmocka_unit_test(causal_mixers_do_not_look_ahead),
        cmocka_unit_test(lsh_weighs_earlier_tokens_only),
        cmocka_unit_test(padding_does_not_matter),
        cmocka_unit_test(full_patterns_are_softmax_attention),
        cmocka_unit_test(one_pair_of_buckets_is_dense),
        cmocka_unit_test(shortening_commutes_with_linears),
        cmocka_unit_test(the_estimate_improves_with_features),
        cmocka_unit_test(rows_are_orthogonal_in_blocks),
        cmocka_unit_test(the_projection_is_redrawn_in_training),
        cmocka_unit_test(gradients),
        cmocka_unit_test(work_grows_with_the_length),
        cmocka_unit_test(mixers_work_in_models),
        cmocka_unit_test(random_buffers_are_in_the_file),
        cmocka_unit_test(random_blocks_are_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
