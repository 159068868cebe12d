/* test_sigma_reparam.c: sigmaReparam linears and the entropy of attention (42). Golden cases: test_softmax_family.c. */
#include "softmax_help.h"

#include "part/linear/linear.h"
#include "part/linear/spectral.h"
#include "part/mixer/entropy.h"

#include <math.h>

/* ---- the linear ---- */

static double exact_sigma(wf_model *m, const char *name, int64_t rows, int64_t cols, double *u) {
    memset(u, 0, sizeof *u * (size_t)cols);
    return wf_largest_singular(&(wf_rows){wf_model_param(m, name)->value->data, rows}, 1, cols, u);
}

/* Singular values of a matrix made to measure, and of awkward ones. */
static void the_largest_singular_value_is_found(void **state) {
    enum { R = 40, C = 23 };
    static float w[R * C];
    double u[C] = {0}, top = 0;
    for (int r = 0; r < R; r++) w[r * C + r % C] = r < C ? (float)(1 + r % 7) : 0; /* diagonal: values 1..7 */
    assert_true(fabs(wf_largest_singular(&(wf_rows){w, R}, 1, C, u) - 7) < 1e-9);
    memset(w, 0, sizeof w);
    memset(u, 0, sizeof u);
    assert_true(wf_largest_singular(&(wf_rows){w, R}, 1, C, u) == 0);
    for (int i = 0; i < R * C; i++) w[i] = (float)((i % C + 1) * (i / C - 7)); /* rank one */
    memset(u, 0, sizeof u);
    double want = 0, left = 0, right = 0;
    for (int c = 0; c < C; c++) right += (c + 1) * (c + 1);
    for (int r = 0; r < R; r++) left += (r - 7) * (r - 7);
    want = sqrt(left * right);
    assert_true(fabs(wf_largest_singular(&(wf_rows){w, R}, 1, C, u) - want) < 1e-9 * want);
    wf_rng g = {5, 0, 0};
    for (int i = 0; i < R * C; i++) w[i] = (float)wf_rng_normal(&g);
    memset(u, 0, sizeof u);
    double s = wf_largest_singular(&(wf_rows){w, R}, 1, C, u), v[R];
    for (int i = 0; i < 3000; i++) top = wf_power_step((wf_rows[]){{w, 10}, {w + 10 * C, R - 10}}, 2, C, u, v);
    assert_true(fabs(s - top) < 1e-9 * s);
}

typedef struct sigma_run {
    wf_graph *g;
    wf_build b;
    wf_plan *p;
    wf_node *sigma;
} sigma_run;

static void tap_sigma(void *ctx, const wf_module *m, const char *what, wf_node *n) {
    if (!strcmp(what, "sigma")) ((sigma_run *)ctx)->sigma = n;
}

/* y, sigma, and the gradients of <c, y> in weight and gamma, of a sigma linear; training brings u up to date. */
static void open_sigma(sigma_run *r, wf_model *m, wf_tensor *x, wf_tensor *c, bool train) {
    memset(r, 0, sizeof *r);
    r->g = wf_graph_open();
    wf_build_start(&r->b, r->g);
    r->b.train = train;
    r->b.tap = tap_sigma;
    r->b.tap_ctx = r;
    wf_node *y = wf_apply(&r->b, m->root, wf_leaf(r->g, x, "x"));
    wf_node *loss = wf_sum_all(r->g, wf_mul(r->g, y, wf_leaf(r->g, c, "c"))), *grad[2];
    wf_node *in[] = {wf_leaf(r->g, wf_model_param(m, "weight")->value, "w"),
                     wf_leaf(r->g, wf_model_param(m, "gamma")->value, "gamma")};
    MUST(wf_grad(r->g, &loss, NULL, 1, in, 2, grad));
    wf_node *out[] = {y, r->sigma, grad[0], grad[1], loss};
    r->p = wf_plan_new(r->g, out, 5, r->b.update, r->b.n_update, NULL);
    if (!r->p) fail_msg("%s", wf_message());
}

static void close_sigma(sigma_run *r) {
    wf_plan_free(r->p);
    wf_build_end(&r->b);
    wf_graph_free(r->g);
}

static double number(const sigma_run *r, int i) {
    return (double)*(const float *)wf_plan_out(r->p, i);
}

static void sigma_converges_and_gradients_are_orthogonal(void **state) {
    enum { I = 9, O = 13 };
    wf_value *v = yaml("{name: sigma, gamma: one}");
    wf_model *m = wf_model_of_part("linear", v, I, O, false, 0, 6);
    wf_value_free(v);
    wf_tensor *u = wf_model_param(m, "u")->value, *w = wf_model_param(m, "weight")->value, *x = noise(WF_SHAPE(5, I), 1, 1),
              *c = noise(WF_SHAPE(5, O), 2, 1);
    for (int i = 0; i < I; i++) wf_tensor_set(u, i, i == 2); /* cold */
    wf_tensor_set(wf_model_param(m, "gamma")->value, 0, -0.7);
    sigma_run r;
    open_sigma(&r, m, x, c, true);
    double dot = 0, dd = 0, ww = 0, right[I], exact = exact_sigma(m, "weight", O, I, right);
    MUST(wf_plan_run(r.p));
    assert_true(number(&r, 1) < exact * 0.999); /* a cold u underestimates */
    const float *dw = wf_plan_out(r.p, 2);
    for (int i = 0; i < O * I; i++)
        dot += (double)dw[i] * wf_tensor_get(w, i), dd += (double)dw[i] * dw[i], ww += pow(wf_tensor_get(w, i), 2);
    assert_true(fabs(dot) <= 1e-6 * sqrt(dd * ww));
    for (int k = 0; k < 50; k++) MUST(wf_plan_run(r.p));
    assert_true(fabs(number(&r, 1) - exact) <= 1e-6 * exact);
    static float wn[O * I];
    MUST(m->root->part->fold_weight(m->root, wn));
    double z[I] = {0};
    assert_true(fabs(wf_largest_singular(&(wf_rows){wn, O}, 1, I, z) - 0.7) <= 1e-6);
    /* Once u has converged too, sigma's derivative is that of the true spectral norm. */
    double worst = 0, size = 0;
    for (int k = 0; k < 300; k++) MUST(wf_plan_run(r.p));
    MUST(wf_plan_run(r.p));
    static float grad[O * I];
    memcpy(grad, wf_plan_out(r.p, 2), sizeof grad);
    for (int i = 0; i < O * I; i++) size = fmax(size, fabs((double)grad[i]));
    for (int i = 0; i < O * I; i += 7) {
        double at = wf_tensor_get(w, i), f[2], h = 1e-4;
        for (int k = 0; k < 2; k++) {
            wf_tensor_set(w, i, k ? at - h : at + h);
            wf_tensor *xd = as_double(x);
            wf_tensor *y = run_forward(m, xd, &(run_spec){.compute = WF_F64});
            f[k] = 0;
            for (int j = 0; j < 5 * O; j++) f[k] += wf_tensor_get(y, j) * wf_tensor_get(c, j);
            wf_tensor_free(y);
            wf_tensor_free(xd);
        }
        double step = wf_tensor_get(w, i); /* float32 rounds the steps */
        wf_tensor_set(w, i, at + h);
        step = wf_tensor_get(w, i) - step;
        wf_tensor_set(w, i, at);
        worst = fmax(worst, fabs((f[0] - f[1]) / step - (double)grad[i]) / size);
    }
    if (!(worst <= 1e-4)) fail_msg("finite differences are off by %g", worst);
    close_sigma(&r);
    wf_tensor_free(x);
    wf_tensor_free(c);
    wf_model_free(m);
}

static void folding_gives_the_same_linear(void **state) {
    enum { D = 12 };
    for (int k = 0; k < 2; k++) {
        wf_model *m = part_of("linear", k ? "{name: sigma, init_u: iterate}" : "sigma", D, false, 0),
                 *plain = part_of("linear", "dense", D, false, 0);
        wf_tensor *x = noise(WF_SHAPE(7, D), 3, 1), *w = wf_model_param(plain, "weight")->value;
        memcpy(w->data, wf_model_param(m, "weight")->value->data, w->bytes);
        wf_tensor *y = run_forward(m, x, NULL), *y0 = run_forward(plain, x, NULL);
        assert_close(y, y0, k ? 1e-3 : 1e-6, "the start is the plain linear's"); /* 20 iterations do not find sigma exactly */
        stir(m, 0.05);
        MUST(m->root->part->fold_weight(m->root, w->data));
        memcpy(wf_model_param(plain, "bias")->value->data, wf_model_param(m, "bias")->value->data, D * sizeof(float));
        wf_tensor *a = run_forward(m, x, NULL), *b = run_forward(plain, x, NULL),
                  *s = run_steps(m, (wf_tensor[]){{x->dtype, WF_SHAPE(1, 7, D), x->data, x->bytes}}, (int[]){3, 4, 0}, 7);
        assert_close(a, b, 1e-6, "folded");
        s->shape = a->shape;
        assert_close(s, a, 1e-6, "stepped");
        wf_tensor *all[] = {x, y, y0, a, b, s};
        for (int i = 0; i < 6; i++) wf_tensor_free(all[i]);
        wf_model_free(m);
        wf_model_free(plain);
    }
}

/* One training step of an lm; u's and the gradients' sum of all parameters. */
static void train_once(wf_model *m, bool recompute, double *u_sum, double *grad_sum) {
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_build_start(&b, g);
    b.train = b.causal = true;
    b.recompute = recompute;
    wf_tensor *ids = wf_tensor_new(WF_I32, WF_SHAPE(2, 6));
    for (int i = 0; i < 12; i++) wf_tensor_set(ids, i, (i * 3) % 7);
    wf_node *in[64], *grad[64], *loss = wf_sum_all(g, wf_square(g, wf_apply(&b, m->root, wf_leaf(g, ids, "ids"))));
    int n = 0;
    for (int i = 0; i < m->n_param; i++)
        if (!(m->param[i]->flags & WF_PARAM_BUFFER)) in[n++] = wf_leaf(g, m->param[i]->value, m->param[i]->name);
    MUST(wf_grad(g, &loss, NULL, 1, in, n, grad));
    wf_plan *p = wf_plan_new(g, grad, n, b.update, b.n_update, NULL);
    MUST(wf_plan_run(p));
    *u_sum = *grad_sum = 0;
    for (int i = 0; i < n; i++)
        for (int64_t j = 0; j < wf_shape_count(&grad[i]->shape); j++)
            *grad_sum += fabs((double)((const float *)wf_plan_out(p, i))[j]);
    for (int i = 0; i < m->n_param; i++)
        for (int64_t j = 0; m->param[i]->flags & WF_PARAM_BUFFER && j < wf_tensor_count(m->param[i]->value); j++)
            *u_sum += (double)(j + 1) * wf_tensor_get(m->param[i]->value, j);
    wf_plan_free(p);
    wf_build_end(&b);
    wf_graph_free(g);
    wf_tensor_free(ids);
}

static void recomputation_moves_u_once(void **state) {
    double u[2], grad[2], before = 0;
    for (int k = 0; k < 2; k++) {
        wf_model *m = model_of("{name: lm, vocab: 7, length: 6, width: 8, layers: 2, linear: {name: sigma, init_u: iterate}, "
                               "mixer: {name: softmax, heads: 2}}",
                               2);
        for (int i = 0; i < m->n_param; i++) /* far from the singular vector, so that every iteration shows */
            if (m->param[i]->flags & WF_PARAM_BUFFER)
                for (int64_t j = 0; j < wf_tensor_count(m->param[i]->value); j++)
                    wf_tensor_set(m->param[i]->value, j, j == 1), before += k == 0 && j == 1 ? 2 : 0;
        train_once(m, k, &u[k], &grad[k]);
        wf_model_free(m);
    }
    assert_true(fabs(u[0] - before) > 1e-3);
    if (fabs(u[0] - u[1]) > 1e-5 * fabs(u[0]) || fabs(grad[0] - grad[1]) > 1e-5 * grad[0])
        fail_msg("u %.9g and %.9g, gradients %.9g and %.9g", u[0], u[1], grad[0], grad[1]);
}

/* Queries, keys and values are one matrix, or as `join` says. */
static void joined_projections_share_sigma(void **state) {
    static const char *const join[] = {"qkv", "qk+v", "q+k+v"};
    for (int i = 0; i < 3; i++) {
        char text[160];
        snprintf(text, sizeof text,
                 "{name: lm, vocab: 7, length: 6, width: 8, layers: 1, linear: {name: sigma, join: %s}, mixer: {name: softmax, "
                 "heads: 2}}",
                 join[i]);
        wf_model *m = model_of(text, 2);
        int n = 0;
        for (int k = 0; k < m->n_param; k++) n += strstr(m->param[k]->name, "gamma") != NULL;
        assert_int_equal(n, 4 + i); /* q (k, v), o, up, down */
        double u[8] = {0}, want;
        wf_rows part[3];
        for (int k = 0; k < 3; k++) {
            char name[32];
            snprintf(name, sizeof name, "blocks.0.mixer.%c.weight", "qkv"[k]);
            part[k] = (wf_rows){wf_model_param(m, name)->value->data, 8};
        }
        want = wf_largest_singular(part, 3 - i, 8, u);
        assert_true(fabs(wf_tensor_get(wf_model_param(m, "blocks.0.mixer.q.gamma")->value, 0) - want) < 1e-6 * want);
        wf_model_free(m);
    }
}

static void statistics_alone_change_nothing(void **state) {
    wf_model *m = part_of("linear", "{name: sigma, stats_only: true}", 6, false, 0),
             *plain = part_of("linear", "dense", 6, false, 0);
    wf_tensor *x = noise(WF_SHAPE(3, 6), 3, 1);
    memcpy(wf_model_param(plain, "weight")->value->data, wf_model_param(m, "weight")->value->data, 36 * sizeof(float));
    wf_tensor *a = run_forward(m, x, &(run_spec){.train = true, .compute = WF_F32}), *b = run_forward(plain, x, NULL);
    assert_close(a, b, 0, "statistics only");
    assert_int_equal(m->n_param, 3); /* weight, u, bias */
    wf_tensor *all[] = {x, a, b};
    for (int i = 0; i < 3; i++) wf_tensor_free(all[i]);
    wf_model_free(m);
    wf_model_free(plain);
}

static void every_linear_of_a_vit_can_be_sigma(void **state) {
    wf_model *m = model_of("{name: vit, image_height: 8, channels: 1, classes: 3, patch: 4, width: 8, layers: 1, norm: none, "
                           "linear: sigma, patch_linear: sigma, mixer: {name: complex, heads: 2}}",
                           1);
    assert_non_null(wf_model_param(m, "patch.gamma"));
    assert_non_null(wf_model_param(m, "blocks.0.channel.up.gamma"));
    wf_tensor *x = noise(WF_SHAPE(2, 1, 8, 8), 3, 1), *y = run_forward(m, x, NULL);
    assert_int_equal(y->shape.dim[1], 3);
    wf_tensor_free(x);
    wf_tensor_free(y);
    wf_model_free(m);
}

/* ---- entropy and its bound ---- */

typedef struct rows { /* of scores [R,T] in float64: entropy, length, bound */
    wf_graph *g;
    wf_plan *p;
    wf_tensor *scores;
    const double *entropy, *length, *bound;
} rows;

static void open_rows(rows *r, int64_t R, int64_t T) {
    r->g = wf_graph_open();
    r->scores = wf_tensor_new(WF_F64, WF_SHAPE(R, T));
    wf_node *s = wf_leaf(r->g, r->scores, "s"), *length = wf_row_length(r->g, s, NULL);
    wf_node *out[] = {wf_row_entropy(r->g, s, NULL), length, wf_entropy_bound(r->g, length, wf_row_count(r->g, s, NULL))};
    r->p = wf_plan_new(r->g, out, 3, NULL, 0, NULL);
    if (!r->p) fail_msg("%s", wf_message());
}

static void run_rows(rows *r) {
    MUST(wf_plan_run(r->p));
    r->entropy = wf_plan_out(r->p, 0), r->length = wf_plan_out(r->p, 1), r->bound = wf_plan_out(r->p, 2);
}

static void close_rows(rows *r) {
    wf_plan_free(r->p);
    wf_graph_free(r->g);
    wf_tensor_free(r->scores);
}

static void no_row_is_below_the_bound(void **state) {
    enum { R = 1000 };
    for (int64_t T = 1; T <= 33; T += 8) {
        rows r;
        open_rows(&r, R, T);
        wf_rng g = {6, (uint64_t)T, 0};
        for (int64_t i = 0; i < R * T; i++) wf_tensor_set(r.scores, i, (0.01 + (double)(i / T) * 0.01) * wf_rng_normal(&g) + 3);
        run_rows(&r);
        for (int i = 0; i < R; i++) {
            if (!(r.entropy[i] >= r.bound[i] - 1e-9))
                fail_msg("T %d, row %d: entropy %.12g below %.12g", (int)T, i, r.entropy[i], r.bound[i]);
            if (T == 1) assert_true(fabs(r.entropy[i]) < 1e-12 && r.bound[i] == 0);
            assert_true(fabs(wf_entropy_bound_of(r.length[i], (double)T) - r.bound[i]) < 1e-9);
        }
        close_rows(&r);
    }
}

/* One score s sqrt((T-1)/T), the others -s/sqrt(T(T-1)). */
static void the_extremal_row_attains_it(void **state) {
    enum { R = 12, T = 9 };
    rows r;
    open_rows(&r, R, T);
    for (int i = 0; i < R * T; i++) {
        double s = 0.5 * (i / T + 1);
        wf_tensor_set(r.scores, i, i % T == i / T % T ? s * sqrt((T - 1.0) / T) : -s / sqrt(T * (T - 1.0)));
    }
    run_rows(&r);
    for (int i = 0; i < R; i++) {
        assert_true(fabs(r.length[i] - 0.5 * (i + 1)) < 1e-9);
        if (fabs(r.entropy[i] - r.bound[i]) > 1e-6 * r.bound[i])
            fail_msg("row %d: entropy %g, bound %g", i, r.entropy[i], r.bound[i]);
    }
    close_rows(&r);
}

enum { L = 10, D = 8 };

/* Scores x W_q^T (x W_k^T)^T of one random head; also its three bounds on the lengths of rows. */
static void scores_of(const wf_tensor *x, const float *wq, const float *wk, float *scores, double *spectral, double *product) {
    static float q[L * D], k[L * D], a[D * D], flat[L * D];
    double u[D] = {0}, v[L] = {0}, u2[D] = {0};
    for (int t = 0; t < L; t++)
        for (int o = 0; o < D; o++) {
            double sq = 0, sk = 0;
            for (int i = 0; i < D; i++)
                sq += wq[o * D + i] * wf_tensor_get(x, t * D + i), sk += wk[o * D + i] * wf_tensor_get(x, t * D + i);
            q[t * D + o] = (float)sq, k[t * D + o] = (float)sk;
        }
    for (int i = 0; i < L; i++)
        for (int j = 0; j < L; j++) {
            scores[i * L + j] = 0;
            for (int o = 0; o < D; o++) scores[i * L + j] += q[i * D + o] * k[j * D + o];
        }
    for (int i = 0; i < D; i++)
        for (int j = 0; j < D; j++) {
            a[i * D + j] = 0;
            for (int o = 0; o < D; o++) a[i * D + j] += wq[o * D + i] * wk[o * D + j];
        }
    for (int i = 0; i < L * D; i++) flat[i] = (float)wf_tensor_get(x, i);
    *spectral = wf_largest_singular(&(wf_rows){scores, L}, 1, L, v);
    double input = wf_largest_singular(&(wf_rows){flat, L}, 1, D, u);
    *product = wf_largest_singular(&(wf_rows){a, D}, 1, D, u2) * input * input;
}

static void the_three_bounds_are_in_order(void **state) {
    static float scores[L * L];
    for (uint64_t seed = 0; seed < 20; seed++) {
        wf_tensor *x = noise(WF_SHAPE(L, D), seed, 0.3), *wq = noise(WF_SHAPE(D, D), seed + 50, 0.3),
                  *wk = noise(WF_SHAPE(D, D), seed + 90, 0.3);
        double spectral, product;
        scores_of(x, wq->data, wk->data, scores, &spectral, &product);
        rows r;
        open_rows(&r, L, L);
        for (int i = 0; i < L * L; i++) wf_tensor_set(r.scores, i, (double)scores[i]);
        run_rows(&r);
        double s = wf_entropy_bound_of(spectral, L), p = wf_entropy_bound_of(product, L);
        for (int i = 0; i < L; i++)
            if (!(p <= s + 1e-9 && s <= r.bound[i] + 1e-9 && r.bound[i] <= r.entropy[i] + 1e-9))
                fail_msg("seed %d, row %d: %g <= %g <= %g <= %g does not hold", (int)seed, i, p, s, r.bound[i], r.entropy[i]);
        close_rows(&r);
        wf_tensor_free(x);
        wf_tensor_free(wq);
        wf_tensor_free(wk);
    }
}

/* Mean entropy and row bound of attention whose query weight is multiplied by c. */
static void sharpen(const char *linear, double c, double *entropy, double *bound) {
    char text[200];
    snprintf(text, sizeof text,
             "{name: lm, vocab: 7, length: 10, width: 8, layers: 1, bias: false, linear: {name: %s}, mixer: {name: softmax, "
             "heads: 1}}",
             linear);
    wf_model *m = model_of(text, 5);
    wf_module *q = wf_module_find(wf_module_find(wf_module_find(wf_module_find(m->root, "blocks"), "0"), "mixer"), "q"),
              *k = wf_module_find(q->parent, "k");
    wf_tensor *w = wf_model_param(m, "blocks.0.mixer.q.weight")->value,
              *wk = wf_model_param(m, "blocks.0.mixer.k.weight")->value;
    for (int i = 0; i < D * D; i++)
        wf_tensor_set(w, i, 30 * c * wf_tensor_get(w, i)), wf_tensor_set(wk, i, 30 * wf_tensor_get(wk, i));
    static float fq[D * D], fk[D * D], scores[L * L];
    memcpy(fq, w->data, sizeof fq), memcpy(fk, wk->data, sizeof fk);
    if (q->part->fold_weight) {
        for (int i = 0; i < 2; i++) { /* u as training finds it; gamma large enough for attention to choose */
            wf_module *one = i ? k : q;
            const char *name = i ? "blocks.0.mixer.k" : "blocks.0.mixer.q";
            char u[64], gamma[64];
            snprintf(u, sizeof u, "%s.u", name), snprintf(gamma, sizeof gamma, "%s.gamma", name);
            double v[D] = {0};
            wf_largest_singular(&(wf_rows){i ? wk->data : w->data, D}, 1, D, v);
            for (int j = 0; j < D; j++) wf_tensor_set(wf_model_param(m, u)->value, j, v[j]);
            wf_tensor_set(wf_model_param(m, gamma)->value, 0, 2);
            MUST(one->part->fold_weight(one, i ? fk : fq));
        }
    }
    wf_tensor *x = noise(WF_SHAPE(L, D), 3, 1);
    double spectral, product;
    scores_of(x, fq, fk, scores, &spectral, &product);
    rows r;
    open_rows(&r, L, L);
    for (int i = 0; i < L * L; i++) wf_tensor_set(r.scores, i, (double)scores[i]);
    run_rows(&r);
    *entropy = *bound = 0;
    for (int i = 0; i < L; i++) {
        *entropy += r.entropy[i] / L, *bound += r.bound[i] / L;
        assert_true(r.entropy[i] >= r.bound[i] - 1e-9);
    }
    close_rows(&r);
    wf_tensor_free(x);
    wf_model_free(m);
}

static void sharper_queries_lower_the_entropy_unless_reparametrised(void **state) {
    double last = INFINITY, first = 0;
    for (double c = 1; c <= 64; c *= 4) {
        double plain, sigma, bound;
        sharpen("dense", c, &plain, &bound);
        assert_true(plain < last && plain >= bound);
        last = plain;
        sharpen("sigma, join: q+k+v", c, &sigma, &bound);
        if (c == 1) first = sigma;
        if (fabs(sigma - first) > 1e-5 * first) fail_msg("c %g: entropy %g, not %g", c, sigma, first);
    }
    assert_true(last < 0.1 && first > 0.5); /* collapsed, and not */
}

static wf_node *entropy_node(wf_graph *g, wf_node **x, void *ctx) {
    wf_node *seen = wf_le(g, wf_index(g, WF_F64, WF_SHAPE(1, 7), 1), wf_index(g, WF_F64, WF_SHAPE(7, 1), 0));
    return wf_add(g, wf_row_entropy(g, x[0], seen), wf_row_entropy(g, wf_square(g, x[0]), NULL));
}

static void entropy_has_a_derivative(void **state) {
    gc_case c = {.name = "entropy", .build = entropy_node, .n = 1, .shape = {WF_SHAPE(2, 7, 7)}, .seed = 3, .second = true};
    assert_true(gc_check(&c));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_largest_singular_value_is_found),
        cmocka_unit_test(sigma_converges_and_gradients_are_orthogonal),
        cmocka_unit_test(folding_gives_the_same_linear),
        cmocka_unit_test(recomputation_moves_u_once),
        cmocka_unit_test(joined_projections_share_sigma),
        cmocka_unit_test(statistics_alone_change_nothing),
        cmocka_unit_test(every_linear_of_a_vit_can_be_sigma),
        cmocka_unit_test(no_row_is_below_the_bound),
        cmocka_unit_test(the_extremal_row_attains_it),
        cmocka_unit_test(the_three_bounds_are_in_order),
        cmocka_unit_test(sharper_queries_lower_the_entropy_unless_reparametrised),
        cmocka_unit_test(entropy_has_a_derivative),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
