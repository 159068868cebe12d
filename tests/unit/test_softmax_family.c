/* test_softmax_family.c: sigmoid attention (47) and complex attention (43): golden cases (and those of 42), the definitions written
 * out, causality, step form, derivatives, cost, what is refused. */
#include "softmax_help.h"

#include "check/check.h"
#include "part/linear/spectral.h"

#include <dirent.h>
#include <math.h>

/* ---- golden cases ---- */

static void golden_cases_pass(void **state) {
    static const char *const systems[] = {"42-sigma-reparam", "43-complexformer", "47-sigmoid-attention"};
    int files = 0;
    for (int i = 0; i < 3; i++)
        for (int f64 = 0; f64 < 2; f64++) {
            char folder[128], path[512];
            snprintf(folder, sizeof folder, "tests/golden/%s", systems[i]);
            DIR *d = opendir(folder);
            if (!d) fail_msg("%s is not there", folder);
            for (struct dirent *e; (e = readdir(d));) {
                if (!strstr(e->d_name, ".safetensors")) continue;
                snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
                wf_check_result r;
                wf_check_file(path, f64, &r);
                if (r.verdict != WF_CHECK_PASSED)
                    fail_msg("%s: %s %s", path, wf_verdict_name(r.verdict), r.reason ? r.reason : "");
                wf_check_free(&r);
                files++;
            }
            closedir(d);
        }
    assert_int_equal(files, 2 * 13);
}

/* ---- one mixer, fused or composed ---- */

typedef struct seen { /* what a run tapped, by name */
    wf_node *weights, *scores, *q, *k, *lse;
} seen;

static void look(void *ctx, const wf_module *m, const char *what, wf_node *n) {
    seen *s = ctx;
    if (!strcmp(what, "weights")) s->weights = n;
    if (!strcmp(what, "scores")) s->scores = n;
    if (!strcmp(what, "q")) s->q = n;
    if (!strcmp(what, "k")) s->k = n;
}

typedef enum { WEIGHTS = 1, SCORES } wanted;

/* The output of a mixer on x, or in the composed form its weights or scores; in float64 if asked. */
static wf_tensor *mix(wf_model *m, wf_tensor *x, bool plain, int want, wf_dtype compute, wf_tensor *context) {
    wf_graph *g = wf_graph_open();
    wf_build b;
    seen s = {0};
    wf_build_start(&b, g);
    b.causal = m->causal;
    b.plain = plain;
    b.compute = compute;
    b.tap = look;
    b.tap_ctx = &s;
    if (context) b.context = wf_leaf(g, context, "context");
    wf_node *y = wf_apply(&b, m->root, wf_leaf(g, x, "x"));
    if (want == WEIGHTS) y = s.weights;
    if (want == SCORES) y = s.scores;
    wf_plan *p = y ? wf_plan_new(g, &y, 1, NULL, 0, NULL) : NULL;
    if (!p || wf_plan_run(p) != WF_OK) fail_msg("mixing: %s", wf_message());
    wf_tensor *t = wf_tensor_new(y->dtype, y->shape);
    memcpy(t->data, wf_plan_out(p, 0), t->bytes);
    wf_plan_free(p);
    wf_build_end(&b);
    wf_graph_free(g);
    return t;
}

/* Both forms, the step form in several cuts, and no look ahead. */
static void forms_agree(const char *text, bool causal, int64_t L) {
    enum { D = 12 };
    wf_model *m = part_of("mixer", text, D, causal, L);
    stir(m, 0.3);
    wf_tensor *x = noise(WF_SHAPE(2, L, D), 7, 1);
    wf_tensor *fused = mix(m, x, false, 0, WF_F32, NULL), *plain = mix(m, x, true, 0, WF_F32, NULL);
    assert_close(fused, plain, 1e-5, text);
    if (causal) {
        int ones[400] = {0}, cuts[] = {(int)L / 2, 1, (int)(L - L / 2 - 1), 0};
        for (int64_t i = 0; i < L; i++) ones[i] = 1;
        wf_tensor *a = run_steps(m, x, ones, L), *b = run_steps(m, x, cuts, L + 3);
        assert_close(a, fused, 1e-5, text);
        assert_close(b, fused, 1e-5, text);
        wf_tensor_free(a);
        wf_tensor_free(b);
        int64_t t = L / 2;
        for (int64_t i = 0; i < 2 * L * D; i++)
            if (i / D % L > t) wf_tensor_set(x, i, 5 - wf_tensor_get(x, i));
        a = mix(m, x, false, 0, WF_F32, NULL);
        for (int64_t i = 0; i < 2 * L * D; i++)
            if (i / D % L <= t && wf_tensor_get(a, i) != wf_tensor_get(fused, i))
                fail_msg("%s: position %d looks ahead", text, (int)(i / D % L));
        wf_tensor_free(a);
    }
    wf_tensor_free(x);
    wf_tensor_free(fused);
    wf_tensor_free(plain);
    wf_model_free(m);
}

static void fused_composed_and_stepped_agree(void **state) {
    static const char *const causal[] = {
        "{name: sigmoid, heads: 3}",
        "{name: sigmoid, heads: 6, kv_heads: 2, position: {name: rope, style: interleaved}, bias: true, temperature: 0.3}",
        "{name: sigmoid, heads: 3, position: alibi, qk_norm: none, score_bias: -1.5, temperature: -0.4}",
        "{name: sigmoid, heads: 2, window: 4, row_scale: seq_len, score_bias: 0}",
        "{name: sigmoid, heads: 2, window: 5, position: alibi, row_scale: sqrt_seq_len, qk_norm: l2}",
        "{name: complex, heads: 3}",
        "{name: complex, heads: 4, kv_heads: 2, head_dim: 6, bias: true, bias_std: 0.3, scale: true, init: model}",
        "{name: complex, heads: 2, window: 4, base: 100, offset: 3, qk_norm: rms_head, delta: one}",
        "{name: complex, heads: 3, position: alibi}"};
    for (size_t i = 0; i < sizeof causal / sizeof *causal; i++) {
        forms_agree(causal[i], true, 11);
        forms_agree(causal[i], true, i % 3 ? 67 : 150); /* several tiles */
        forms_agree(causal[i], false, 70);
    }
}

/* ---- 47 ---- */

/* Weights of two ranges of keys add up to those of all: nothing has to be merged. */
static void ranges_of_keys_add_up(void **state) {
    enum { B = 2, L = 70, H = 2, D = 8, CUT = 33 };
    wf_graph *g = wf_graph_open();
    wf_tensor *t[3];
    wf_node *x[3];
    for (int i = 0; i < 3; i++) {
        t[i] = noise(WF_SHAPE(B, L, H, D), 20 + (uint64_t)i, 1);
        x[i] = wf_leaf(g, t[i], "x");
    }
    wf_attention_spec s = {.normaliser = WF_NORMALISE_NONE, .score = WF_SCORE_SIGMOID, .score_bias = -log(L)};
    wf_node *all = wf_attention(g, x[0], x[1], x[2], &s);
    wf_node *one = wf_attention(g, x[0], wf_slice(g, x[1], 1, 0, CUT), wf_slice(g, x[2], 1, 0, CUT), &s);
    wf_node *two = wf_attention(g, x[0], wf_slice(g, x[1], 1, CUT, L - CUT), wf_slice(g, x[2], 1, CUT, L - CUT), &s);
    wf_node *out[] = {all, wf_add(g, one, two)};
    wf_plan *p = wf_plan_new(g, out, 2, NULL, 0, NULL);
    MUST(wf_plan_run(p));
    wf_tensor a = {WF_F32, all->shape, (void *)(uintptr_t)wf_plan_out(p, 0), 0},
              b = {WF_F32, all->shape, (void *)(uintptr_t)wf_plan_out(p, 1), 0};
    assert_close(&a, &b, 1e-5, "two ranges");
    wf_plan_free(p);
    wf_graph_free(g);
    for (int i = 0; i < 3; i++) wf_tensor_free(t[i]);
}

/* What padded keys hold does not matter at all, and a row that sees nothing gives 0. */
static void hidden_keys_count_nothing(void **state) {
    enum { L = 9, D = 8 };
    wf_model *m = part_of("mixer", "{name: sigmoid, heads: 2, bias: false}", D, false, L);
    wf_tensor *x = noise(WF_SHAPE(2, L, D), 3, 1), *lengths = wf_tensor_new(WF_I32, WF_SHAPE(2)), *y[2];
    wf_tensor_set(lengths, 0, 4); /* the second sample has none */
    for (int k = 0; k < 2; k++) {
        y[k] = run_forward(m, x, &(run_spec){.compute = WF_F32, .lengths = lengths});
        for (int64_t i = 4 * D; i < 2 * L * D; i++) wf_tensor_set(x, i, 1e4);
    }
    for (int64_t i = 0; i < 4 * D; i++) assert_true(wf_tensor_get(y[0], i) == wf_tensor_get(y[1], i));
    for (int64_t i = L * D; i < 2 * L * D; i++) assert_true(wf_tensor_get(y[0], i) == 0);
    wf_tensor *all[] = {x, lengths, y[0], y[1]};
    for (int i = 0; i < 4; i++) wf_tensor_free(all[i]);
    wf_model_free(m);
}

static double mean_row_sum(const char *text, int64_t n, int64_t length) {
    wf_model *m = part_of("mixer", text, 8, false, length);
    memset(wf_model_param(m, "q.weight")->value->data, 0, wf_model_param(m, "q.weight")->value->bytes); /* S = 0 */
    wf_tensor *x = noise(WF_SHAPE(1, n, 8), 5, 1), *p = mix(m, x, true, WEIGHTS, WF_F32, NULL);
    double sum = 0;
    for (int64_t i = 0; i < wf_tensor_count(p); i++) sum += wf_tensor_get(p, i);
    sum /= (double)(wf_tensor_count(p) / n);
    wf_tensor_free(x);
    wf_tensor_free(p);
    wf_model_free(m);
    return sum;
}

static void the_bias_belongs_to_the_training_length(void **state) {
    for (int64_t n = 10; n <= 160; n *= 4) {
        double want = (double)n / (double)(n + 1);
        double with = mean_row_sum("{name: sigmoid, heads: 2, qk_norm: none}", n, n);
        double without = mean_row_sum("{name: sigmoid, heads: 2, qk_norm: none, score_bias: 0}", n, n);
        if (fabs(with - want) > 0.01 * want || fabs(without - (double)n / 2) > 0.01 * (double)n)
            fail_msg("n %d: row sums %g and %g", (int)n, with, without);
    }
    double longer = mean_row_sum("{name: sigmoid, heads: 2, qk_norm: none}", 80, 40); /* b stays -ln 40 */
    if (fabs(longer - 80.0 / 41) > 0.01) fail_msg("twice the length: row sum %g", longer);
}

/* A model's file carries its length, and with it b: generation and evaluation at other lengths use the same. */
static void the_bias_is_in_the_file(void **state) {
    wf_model *m = model_of(
        "{name: lm, vocab: 11, length: 24, width: 16, layers: 1, mixer: {name: sigmoid, heads: 2}, position: none}", 3);
    char path[320];
    snprintf(path, sizeof path, "%s/sigmoid.safetensors", test_folder());
    MUST(wf_model_save(m, path, WF_F32, NULL, NULL, 0));
    wf_model *again = wf_model_load(path);
    if (!again) fail_msg("%s", wf_message());
    wf_tensor *ids = wf_tensor_new(WF_I32, WF_SHAPE(1, 7));
    for (int i = 0; i < 7; i++) wf_tensor_set(ids, i, (i * 5) % 11);
    wf_tensor *a = run_forward(m, ids, NULL), *b = run_forward(again, ids, NULL),
              *c = run_steps(again, ids, (int[]){3, 1, 3, 0}, 100);
    assert_close(a, b, 0, "saved and loaded");
    assert_close(a, c, 1e-5, "generation");
    wf_tensor *all[] = {ids, a, b, c};
    for (int i = 0; i < 4; i++) wf_tensor_free(all[i]);
    wf_model_free(m);
    wf_model_free(again);
}

/* The backward pass is made of q, k, v and the incoming gradient alone: no forward attention, nothing of L x L. */
static void nothing_is_kept_for_the_backward_pass(void **state) {
    enum { L = 512 };
    wf_graph *g = wf_graph_open();
    wf_tensor *t[4];
    wf_node *x[4], *grad[3];
    for (int i = 0; i < 4; i++) {
        t[i] = noise(WF_SHAPE(1, L, 2, 8), 30 + (uint64_t)i, 1);
        x[i] = wf_leaf(g, t[i], "x");
    }
    wf_attention_spec s = {.normaliser = WF_NORMALISE_NONE, .score = WF_SCORE_SIGMOID, .score_bias = -log(L), .causal = true};
    wf_node *o = wf_attention(g, x[0], x[1], x[2], &s);
    MUST(wf_grad(g, &o, &x[3], 1, x, 3, grad));
    wf_plan *p = wf_plan_new(g, grad, 3, NULL, 0, NULL);
    wf_plan_info info;
    wf_plan_describe(p, &info);
    char *text = wf_plan_text(p);
    if (strstr(text, "attention ") || strstr(text, "sum")) fail_msg("the backward pass runs\n%s", text);
    assert_true(info.arena_bytes < 4 * t[0]->bytes + 4096);
    wf_free(text);
    wf_plan_free(p);
    wf_graph_free(g);
    for (int i = 0; i < 4; i++) wf_tensor_free(t[i]);
}

/* Jacobian [n D, n D] of a bare self-attention in float64. */
static double jacobian_norm(const double *x0, bool sigmoid, double *weights_norm) {
    enum { N = 8, D = 4, ND = N * D };
    wf_graph *g = wf_graph_open();
    wf_tensor *t = wf_tensor_new(WF_F64, WF_SHAPE(1, N, 1, D)), *seed = wf_tensor_new(WF_F64, WF_SHAPE(1, N, 1, D));
    memcpy(t->data, x0, t->bytes);
    wf_node *x = wf_leaf(g, t, "x"), *u = wf_leaf(g, seed, "u"), *w = NULL, *out[2];
    wf_attention_spec s = {0};
    if (sigmoid) s = (wf_attention_spec){.normaliser = WF_NORMALISE_NONE, .score = WF_SCORE_SIGMOID, .score_bias = -log(N)};
    wf_node *y = wf_attention_plain(g, x, x, x, &s, &w);
    out[1] = w;
    MUST(wf_grad(g, &y, &u, 1, &x, 1, out));
    wf_plan *p = wf_plan_new(g, out, 2, NULL, 0, NULL);
    static float j[ND * ND], pw[N * N];
    for (int r = 0; r < ND; r++) {
        for (int i = 0; i < ND; i++) wf_tensor_set(seed, i, i == r);
        MUST(wf_plan_run(p));
        for (int i = 0; i < ND; i++) j[r * ND + i] = (float)((const double *)wf_plan_out(p, 0))[i];
    }
    for (int i = 0; i < N * N; i++) pw[i] = (float)((const double *)wf_plan_out(p, 1))[i];
    double v[ND] = {0}, v2[N] = {0};
    double norm = wf_largest_singular(&(wf_rows){j, ND}, 1, ND, v);
    *weights_norm = wf_largest_singular(&(wf_rows){pw, N}, 1, N, v2);
    wf_plan_free(p);
    wf_graph_free(g);
    wf_tensor_free(t);
    wf_tensor_free(seed);
    return norm;
}

/* Regularity: o_i = sum_j s(x_i.x_j / 2 + b) x_j gives |J| <= |P| + 1/4 1/2 2 sum_j |x_j|^2: quadratic in the inputs. */
static void the_jacobian_of_sigmoid_attention_is_bounded(void **state) {
    enum { N = 8, D = 4 };
    double x[N * D], unit[N * D], P;
    wf_rng r = {4, 0, 0};
    for (int i = 0; i < N * D; i++) unit[i] = wf_rng_normal(&r);
    for (int t = 0; t < N; t++) {
        double length = 0;
        for (int i = 0; i < D; i++) length += unit[t * D + i] * unit[t * D + i];
        for (int i = 0; i < D; i++) unit[t * D + i] /= sqrt(length);
    }
    for (double R = 1; R <= 8; R *= 2) {
        for (int i = 0; i < N * D; i++) x[i] = R * unit[i];
        double soft = jacobian_norm(x, false, &P), sig = jacobian_norm(x, true, &P), bound = P + 0.25 * N * R * R;
        print_message("  radius %g: |J| softmax %.3f, sigmoid %.3f, bound %.3f\n", R, soft, sig, bound);
        if (!(sig <= bound)) fail_msg("radius %g: |J| %g above %g", R, sig, bound);
    }
}

static void cross_attention_reads_the_context(void **state) {
    wf_model *m = part_of("mixer", "{name: sigmoid, heads: 2, cross: true, score_bias: -2}", 8, false, 0);
    stir(m, 0.3);
    assert_non_null(wf_model_param(m, "v_norm.weight"));
    wf_tensor *x = noise(WF_SHAPE(2, 5, 8), 1, 1), *c = noise(WF_SHAPE(2, 9, 8), 2, 1);
    wf_tensor *a = mix(m, x, false, 0, WF_F32, c), *b = mix(m, x, true, 0, WF_F32, c), *p = mix(m, x, true, WEIGHTS, WF_F32, c);
    assert_close(a, b, 1e-5, "cross");
    assert_int_equal(p->shape.dim[3], 9);
    wf_tensor *all[] = {x, c, a, b, p};
    for (int i = 0; i < 5; i++) wf_tensor_free(all[i]);
    wf_model_free(m);
}

/* ---- 43 ---- */

/* The scores as the paper writes them, one cosine for every pair and channel. */
static void complex_scores_are_the_triple_sum(void **state) {
    enum { L = 6, H = 2, D = 12, d = 6, h = 3 };
    wf_model *m = part_of("mixer", "{name: complex, heads: 2, bias_std: 0.5}", D, false, L);
    wf_tensor *x = noise(WF_SHAPE(1, L, D), 9, 1), *xd = as_double(x), *s = mix(m, xd, true, SCORES, WF_F64, NULL);
    const wf_tensor *w[2] = {wf_model_param(m, "q.weight")->value, wf_model_param(m, "k.weight")->value};
    const wf_tensor *delta = wf_model_param(m, "delta")->value, *bias = wf_model_param(m, "bias")->value;
    double z[2][L][D];
    for (int k = 0; k < 2; k++)
        for (int t = 0; t < L; t++)
            for (int o = 0; o < D; o++) {
                z[k][t][o] = 0;
                for (int i = 0; i < D; i++) z[k][t][o] += wf_tensor_get(w[k], o * D + i) * wf_tensor_get(x, t * D + i);
            }
    for (int a = 0; a < H; a++)
        for (int i = 0; i < L; i++)
            for (int j = 0; j < L; j++) {
                double sum = 0;
                for (int c = 0; c < h; c++) {
                    double qr = z[0][i][a * d + c], qi = z[0][i][a * d + h + c], kr = z[1][j][a * d + c],
                           ki = z[1][j][a * d + h + c];
                    double phase = wf_tensor_get(delta, a * h + c) * (atan2(qi, qr) - atan2(ki, kr)) +
                                   wf_tensor_get(bias, a * h + c) + (i - j) * pow(10000, -2.0 * c / d);
                    sum += sqrt(qr * qr + qi * qi + 1e-9) * sqrt(kr * kr + ki * ki + 1e-9) * cos(phase);
                }
                double got = wf_tensor_get(s, (a * L + i) * L + j);
                if (fabs(got - sum) > 1e-5 * fmax(1, fabs(sum))) fail_msg("head %d, (%d, %d): %g, not %g", a, i, j, got, sum);
            }
    wf_tensor_free(x);
    wf_tensor_free(xd);
    wf_tensor_free(s);
    wf_model_free(m);
}

/* delta = 1, bias = 0: RoPE of style half; without the division by sqrt(d) its scores times sqrt(d). */
static void with_delta_one_it_is_rope(void **state) {
    enum { L = 40, D = 16 };
    wf_model *m[2] = {
        part_of("mixer", "{name: complex, heads: 2, delta: one}", D, true, L),
        part_of("mixer", "{name: softmax, heads: 2, bias: false, position: {name: rope, style: half}}", D, true, L)};
    for (int i = 0; i < 4; i++) {
        char name[16];
        snprintf(name, sizeof name, "%c.weight", "qkvo"[i]);
        memcpy(wf_model_param(m[1], name)->value->data, wf_model_param(m[0], name)->value->data,
               wf_model_param(m[0], name)->value->bytes);
    }
    wf_tensor *x = noise(WF_SHAPE(2, L, D), 5, 1), *a = mix(m[0], x, true, SCORES, WF_F32, NULL),
              *b = mix(m[1], x, true, SCORES, WF_F32, NULL);
    for (int64_t i = 0; i < wf_tensor_count(b); i++) wf_tensor_set(b, i, wf_tensor_get(b, i) * sqrt(8));
    assert_close(a, b, 1e-4, "scores of RoPE");
    wf_tensor *all[] = {x, a, b};
    for (int i = 0; i < 3; i++) wf_tensor_free(all[i]);
    for (int i = 0; i < 2; i++) wf_model_free(m[i]);
}

static void only_the_distance_of_positions_matters(void **state) {
    enum { L = 30, D = 16 };
    wf_tensor *x = noise(WF_SHAPE(1, L, D), 6, 1), *y[2];
    for (int k = 0; k < 2; k++) {
        wf_model *m = part_of(
            "mixer", k ? "{name: complex, heads: 2, offset: 1000, bias_std: 1}" : "{name: complex, heads: 2, bias_std: 1}", D,
            true, L);
        y[k] = mix(m, x, true, SCORES, WF_F32, NULL);
        wf_model_free(m);
    }
    assert_close(y[0], y[1], 1e-3, "shifted by 1000");
    wf_tensor_free(x);
    wf_tensor_free(y[0]);
    wf_tensor_free(y[1]);
}

/* Arena bytes and FLOPs of forward and backward of one mixer. */
static wf_plan_info cost_of(const char *text, int64_t L) {
    enum { D = 64 };
    wf_model *m = part_of("mixer", text, D, true, L);
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_build_start(&b, g);
    b.causal = b.train = true;
    wf_tensor *x = wf_tensor_new(WF_F32, WF_SHAPE(1, L, D));
    wf_node *in[32], *grad[33], *loss = wf_sum_all(g, wf_square(g, wf_apply(&b, m->root, in[0] = wf_leaf(g, x, "x"))));
    int n = 1;
    for (int i = 0; i < m->n_param; i++) in[n++] = wf_leaf(g, m->param[i]->value, m->param[i]->name);
    MUST(wf_grad(g, &loss, NULL, 1, in, n, grad));
    wf_plan *p = wf_plan_new(g, grad, n, NULL, 0, NULL);
    wf_plan_info info;
    wf_plan_describe(p, &info);
    wf_plan_free(p);
    wf_build_end(&b);
    wf_graph_free(g);
    wf_tensor_free(x);
    wf_model_free(m);
    return info;
}

static void complex_attention_costs_what_rope_costs(void **state) {
    static const char complex[] = "{name: complex, heads: 2}",
                      rope[] = "{name: softmax, heads: 2, bias: false, position: rope}";
    wf_plan_info a = cost_of(complex, 512), b = cost_of(rope, 512), twice = cost_of(complex, 1024);
    assert_true(a.flops < 1.1 * b.flops);
    assert_true(a.arena_bytes < 512 * 512 * 16 * sizeof(float));  /* no [L,L,d/2] */
    assert_true(twice.arena_bytes < 2.2 * (double)a.arena_bytes); /* nothing quadratic at all */
    wf_plan_info s = cost_of("{name: sigmoid, heads: 2}", 512), s2 = cost_of("{name: sigmoid, heads: 2}", 1024);
    assert_true(s2.arena_bytes < 2.2 * (double)s.arena_bytes);
}

/* Tokens that are all zero (padding) have no phase; nothing becomes NaN. */
static void zero_vectors_have_gradients(void **state) {
    wf_model *m = part_of("mixer", "{name: complex, heads: 2}", 8, true, 5);
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_build_start(&b, g);
    b.causal = b.train = true;
    wf_tensor *x = wf_tensor_new(WF_F32, WF_SHAPE(1, 5, 8));
    wf_node *in[8], *grad[8], *loss = wf_sum_all(g, wf_apply(&b, m->root, in[0] = wf_leaf(g, x, "x")));
    for (int i = 0; i < m->n_param; i++) in[i + 1] = wf_leaf(g, m->param[i]->value, "w");
    MUST(wf_grad(g, &loss, NULL, 1, in, m->n_param + 1, grad));
    wf_plan *p = wf_plan_new(g, grad, m->n_param + 1, NULL, 0, NULL);
    MUST(wf_plan_run_checked(p));
    wf_plan_free(p);
    wf_build_end(&b);
    wf_graph_free(g);
    wf_tensor_free(x);
    wf_model_free(m);
}

/* ---- derivatives in float64 ---- */

typedef struct part_case {
    wf_model *m;
    bool train;
} part_case;

/* x[0]: input; x[1..]: stand in for the parameters. */
static wf_node *part_with(wf_graph *g, wf_node **x, void *ctx) {
    part_case *c = ctx;
    wf_build b;
    wf_build_start(&b, g);
    b.compute = WF_F64;
    b.causal = c->m->causal;
    wf_node *y = wf_apply(&b, c->m->root, x[0]);
    wf_build_end(&b);
    return y;
}

static void derivatives_are_exact(void **state) {
    static const char *const mixers[] = {
        "{name: sigmoid, heads: 2, position: {name: rope, style: interleaved}}",
        "{name: sigmoid, heads: 2, kv_heads: 1, row_scale: sqrt_seq_len, position: alibi, temperature: 0.4}",
        "{name: complex, heads: 2, bias_std: 0.5}", "{name: complex, heads: 2, kv_heads: 1, scale: true}"};
    for (size_t i = 0; i < sizeof mixers / sizeof *mixers; i++)
        for (int causal = 0; causal < 2; causal++) {
            part_case p = {.m = part_of("mixer", mixers[i], 8, causal, 5)};
            gc_case c = {.name = mixers[i],
                         .build = part_with,
                         .ctx = &p,
                         .n = 1,
                         .shape = {WF_SHAPE(2, 5, 8)},
                         .seed = 3 + i,
                         .second = true};
            assert_true(gc_check(&c));
            wf_model_free(p.m);
        }
}

/* ---- what does not go together ---- */

static void impossible_combinations_are_refused(void **state) {
#define LM "{name: lm, vocab: 8, length: 4, width: 12, "
    refused(LM "position: rope, mixer: {name: complex, heads: 2}}", "take position: none");
    refused(LM "mixer: {name: complex, heads: 4}}", "must be even");
    refused(LM "mixer: {name: sigmoid, heads: 2, cross: true}}", "no second stream");
    refused(LM "mixer: {name: sigmoid, heads: 2, score_bias: low}}", "auto or a number, not 'low'");
    refused(LM "mixer: {name: sigmoid, heads: 2, row_scale: len}}", "seq_len");
    refused(LM "mixer: {name: sigmoid, heads: 2, scorebias: 1}}", "did you mean 'score_bias'");
    refused(LM "linear: {name: sigma, gamma: two}}", "gamma");
    refused(LM "linear: sigm}", "did you mean 'sigma'");
    wf_value *v = yaml("{name: sigmoid, heads: 2}");
    assert_null(wf_model_of_part("mixer", v, 8, 8, false, 0, 1));
    MESSAGE_HAS("needs the model's length");
    wf_value_free(v);
}

static int clean(void **state) {
    test_folder_remove();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_cases_pass),
        cmocka_unit_test(fused_composed_and_stepped_agree),
        cmocka_unit_test(ranges_of_keys_add_up),
        cmocka_unit_test(hidden_keys_count_nothing),
        cmocka_unit_test(the_bias_belongs_to_the_training_length),
        cmocka_unit_test(the_bias_is_in_the_file),
        cmocka_unit_test(nothing_is_kept_for_the_backward_pass),
        cmocka_unit_test(the_jacobian_of_sigmoid_attention_is_bounded),
        cmocka_unit_test(cross_attention_reads_the_context),
        cmocka_unit_test(complex_scores_are_the_triple_sum),
        cmocka_unit_test(with_delta_one_it_is_rope),
        cmocka_unit_test(only_the_distance_of_positions_matters),
        cmocka_unit_test(complex_attention_costs_what_rope_costs),
        cmocka_unit_test(zero_vectors_have_gradients),
        cmocka_unit_test(derivatives_are_exact),
        cmocka_unit_test(impossible_combinations_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, clean);
}
