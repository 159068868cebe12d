/* test_norms.c: norms one by one: true derivatives, folds, the laws of window, running and progressive statistics. */
#include "gradcheck.h"
#include "norms_help.h"

#include "part/norm/norm.h"

#include <math.h>

/* ---- derivatives that are the true ones ---- */

typedef struct norm_case {
    const char *text;
    wf_model *m;
    bool zero_rows, masked;
} norm_case;

/* Inputs: x [2,5,6], then the trained parameters in their order. */
static wf_node *build_norm(wf_graph *g, wf_node **x, void *ctx) {
    norm_case *c = ctx;
    static wf_tensor *keep;
    wf_build b;
    wf_build_start(&b, g);
    b.train = true;
    b.compute = WF_F64;
    if (c->masked) {
        if (!keep) keep = wf_tensor_new(WF_F32, WF_SHAPE(2, 5));
        for (int i = 0; i < 10; i++) wf_tensor_set(keep, i, i % 5 < 3 + i / 5);
        b.keep = wf_leaf(g, keep, "keep");
    }
    wf_node *y = wf_apply(&b, c->m->root, x[0]);
    wf_build_end(&b);
    return y;
}

static void fill_norm(void *ctx, int input, wf_tensor *t) {
    norm_case *c = ctx;
    for (int64_t i = 0; input == 0 && c->zero_rows && i < 6; i++) wf_tensor_set(t, i, 0);
}

static void true_derivatives_agree_with_differences(void **state) {
    norm_case cases[] = {
        {.text = "{name: unified, window: 1}"},
        {.text = "{name: unified, window: 1, outlier_filtration: true, warmup_iters: 0, affine: false}"},
        {.text = "{name: unified, window: [1, 3]}"},
        {.text = "{name: power, variant: vanilla, group_num: 3}"},
        {.text = "{name: power, variant: vanilla, group_num: 2}", .masked = true},
        {.text = "{name: power, variant: vanilla, group_scale: false, affine: false}", .masked = true},
        {.text = "batchnorm", .masked = true},
        {.text = "repbn"},
        {.text = "repbn", .masked = true},
        {.text = "{name: prepbn, r0: 0.3}"},
        {.text = "{name: prepbn, norm1: rmsnorm, r0: 0.6, warm: 2}"},
        {.text = "crmsnorm"},
        {.text = "{name: crmsnorm, divisor: 6, affine: true}"},
        {.text = "srmsnorm"},
        {.text = "{name: srmsnorm, eps: 0.5}", .zero_rows = true},
        {.text = "{name: groupscale, groups: 2}"},
        {.text = "affine"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        norm_case *c = &cases[i];
        c->m = part_of("norm", c->text, 6, false, 0);
        stir(c->m, 0.2);
        bool custom = strstr(c->text, "unified"); /* a derivative given by hand has no second order to speak of */
        bool ok = gc_check(&(gc_case){.name = c->text,
                                      .build = build_norm,
                                      .ctx = c,
                                      .n = 1,
                                      .shape = {WF_SHAPE(2, 5, 6)},
                                      .fill = fill_norm,
                                      .seed = 5 + i,
                                      .second = !custom && !c->zero_rows,
                                      .tolerance = c->zero_rows ? 1e-4 : 1e-6});
        wf_model_free(c->m);
        if (!ok) fail_msg("%s", c->text);
    }
}

/* Gradients of gain, bias and alpha against the sums they are. */
static void parameters_have_their_gradients(void **state) {
    norm_run r = norm_open("repbn", WF_SHAPE(2, 3, 4), NULL, false);
    wf_rng rng = {3, 0, 0};
    norm_fill(&r, &rng, 1);
    norm_step(&r);
    double alpha = 0;
    for (int64_t i = 0; i < 24; i++) alpha += wf_tensor_get(r.x, i) * wf_tensor_get(r.cot, i);
    assert_true(fabs(norm_out(&r, 2)[0] - alpha) < 1e-4);
    norm_close(&r);
    r = norm_open("{name: unified, window: 1}", WF_SHAPE(2, 3, 4), NULL, false);
    norm_fill(&r, &rng, 1);
    norm_step(&r);
    for (int64_t c = 0; c < 4; c++) {
        double gain = 0, bias = 0;
        for (int64_t i = c; i < 24; i += 4) {
            bias += wf_tensor_get(r.cot, i);
            gain += wf_tensor_get(r.cot, i) * norm_out(&r, 0)[i];
        }
        assert_true(fabs(norm_out(&r, 2)[c] - gain) < 1e-4 && fabs(norm_out(&r, 3)[c] - bias) < 1e-4);
    }
    norm_close(&r);
}

static void a_row_of_zeros_is_safe_in_srmsnorm(void **state) {
    norm_run r = norm_open("srmsnorm", WF_SHAPE(1, 3, 5), NULL, false);
    wf_rng rng = {1, 0, 0};
    norm_fill(&r, &rng, 1);
    for (int64_t i = 5; i < 10; i++) wf_tensor_set(r.x, i, 0);
    for (int64_t i = 10; i < 15; i++) wf_tensor_set(r.x, i, 1e-30); /* squares vanish: as zeros */
    norm_step(&r);
    for (int64_t i = 0; i < 15; i++) {
        double want = wf_tensor_get(r.cot, i) / 1e-8;
        assert_true(isfinite(norm_out(&r, 0)[i]) && isfinite(norm_out(&r, 1)[i]));
        if (i >= 5) assert_true(fabs(norm_out(&r, 1)[i] - want) < 1e-5 * fabs(want));
    }
    norm_close(&r);
}

/* ---- folds ---- */

static void evaluation_is_the_affine_map_of_the_fold(void **state) {
    static const char *const norms[] = {
        "batchnorm",
        "{name: batchnorm, affine: false, eps: 0.01}",
        "{name: unified, warmup_iters: 2, window: [2, 3]}",
        "{name: unified, affine: false}",
        "repbn",
        "{name: prepbn, total_step: 3}",
        "{name: prepbn, norm1: rmsnorm, init: text, warm: 1}",
        "affine",
        "{name: affine, bias: false}",
        "{name: power, group_scale: false, warmup_iters: 2}",
    };
    for (size_t k = 0; k < sizeof norms / sizeof *norms; k++) {
        norm_run r = norm_open(norms[k], WF_SHAPE(3, 4, 6), NULL, false);
        wf_rng rng = {17, k, 0};
        for (int i = 0; i < 5; i++) norm_fill(&r, &rng, 2), norm_step(&r);
        for (int i = 0; i < r.m->n_param; i++) /* gains, biases and alpha somewhere */
            for (int64_t j = 0; !(r.m->param[i]->flags & WF_PARAM_BUFFER) && j < wf_tensor_count(r.m->param[i]->value); j++)
                wf_tensor_set(r.m->param[i]->value, j, 0.5 + wf_rng_normal(&rng));
        double a[6], c[6], worst = 0;
        assert_non_null(r.m->root->part->fold);
        MUST(r.m->root->part->fold(r.m->root, a, c));
        wf_tensor *y = run_forward(r.m, r.x, NULL);
        double w[6]; /* and folded into one row of a linear: W diag(a), bias + W c */
        for (int j = 0; j < 6; j++) w[j] = wf_rng_normal(&rng);
        for (int64_t t = 0; t < 12; t++) {
            double before = 0, after = 0;
            for (int j = 0; j < 6; j++) {
                double x = wf_tensor_get(r.x, t * 6 + j), v = wf_tensor_get(y, t * 6 + j);
                worst = fmax(worst, fabs(v - (a[j] * x + c[j])) / fmax(1, fabs(v)));
                before += w[j] * v;
                after += w[j] * a[j] * x + w[j] * c[j];
            }
            worst = fmax(worst, fabs(before - after) / fmax(1, fabs(before)));
        }
        if (!(worst < 2e-6)) fail_msg("%s: fold is off by %g", norms[k], worst);
        wf_tensor_free(y);
        norm_close(&r);
    }
}

/* Stage 2 of a power norm folds; groupscale stays. */
static void power_folds_to_groupscale(void **state) {
    norm_run r = norm_open("{name: power, group_num: 3, warmup_iters: 2, eps: 0.01}", WF_SHAPE(3, 4, 6), NULL, false);
    wf_rng rng = {8, 0, 0};
    for (int i = 0; i < 6; i++) norm_fill(&r, &rng, 2), norm_step(&r);
    double a[6], c[6], eps;
    int64_t groups;
    MUST_FAIL(r.m->root->part->fold(r.m->root, a, c), WF_EUNSUPPORTED, "groupscale");
    MUST(wf_norm_power_fold(r.m->root, a, c));
    MUST(wf_norm_power_rest(r.m->root, &groups, &eps));
    assert_true(groups == 3 && eps == 1e-5);
    wf_model *rest = part_of("norm", "{name: groupscale, groups: 3}", 6, false, 0);
    wf_tensor *y = run_forward(r.m, r.x, NULL), *u = run_forward(rest, r.x, NULL);
    for (int64_t i = 0; i < 72; i++)
        assert_true(fabs(wf_tensor_get(y, i) - (a[i % 6] * wf_tensor_get(u, i) + c[i % 6])) < 1e-5);
    wf_tensor_free(y);
    wf_tensor_free(u);
    wf_model_free(rest);
    norm_close(&r);
}

static void norms_that_do_not_fold_say_so(void **state) {
    static const char *const names[] = {"layernorm", "rmsnorm",  "groupnorm", "groupscale",
                                        "crmsnorm",  "srmsnorm", "dyt",       "l2norm"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) assert_null(wf_part_find("norm", names[i])->fold);
}

/* ---- laws of the token norms ---- */

static void gradients_of_normalised_tokens_are_orthogonal(void **state) {
    struct {
        const char *text;
        bool ones, itself;
    } cases[] = {{"{name: layernorm, affine: false}", true, true},
                 {"{name: rmsnorm, affine: false}", false, true},
                 {"{name: crmsnorm, eps: 1e-6}", false, true},
                 {"srmsnorm", false, true}};
    for (size_t k = 0; k < 4; k++) {
        norm_run r = norm_open(cases[k].text, WF_SHAPE(1, 4, 8), NULL, false);
        wf_rng rng = {4, k, 0};
        norm_fill(&r, &rng, 1);
        norm_step(&r);
        for (int64_t t = 0; t < 4; t++) {
            double ones = 0, itself = 0;
            for (int64_t i = t * 8; i < t * 8 + 8; i++) {
                ones += norm_out(&r, 1)[i];
                itself += norm_out(&r, 1)[i] * wf_tensor_get(r.x, i);
            }
            if (cases[k].ones) assert_true(fabs(ones) < 1e-5);
            assert_true(fabs(itself) < 1e-4);
        }
        norm_close(&r);
    }
}

static void norms_are_each_others_special_cases(void **state) {
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 3, 9), 6, 0), *c = wf_tensor_new(WF_F32, WF_SHAPE(2, 3, 9)),
              *short_ = wf_tensor_new(WF_F32, WF_SHAPE(2, 3, 8)), *cut = wf_tensor_new(WF_F32, WF_SHAPE(2, 3, 8));
    for (int64_t t = 0; t < 6; t++) {
        double mean = 0;
        for (int64_t i = 0; i < 9; i++) mean += wf_tensor_get(x, t * 9 + i) / 9;
        for (int64_t i = 0; i < 9; i++) wf_tensor_set(c, t * 9 + i, wf_tensor_get(x, t * 9 + i) - mean);
        for (int64_t i = 0; i < 8; i++) wf_tensor_set(short_, t * 8 + i, wf_tensor_get(c, t * 9 + i));
    }
    wf_model *ln = part_of("norm", "{name: layernorm, eps: 1e-5, affine: false}", 9, false, 0),
             *rms = part_of("norm", "{name: rmsnorm, eps: 1e-5, affine: false}", 9, false, 0),
             *crms = part_of("norm", "crmsnorm", 8, false, 0), *scale = part_of("norm", "groupscale", 9, false, 0);
    wf_tensor *a = run_forward(ln, x, NULL), *b = run_forward(rms, c, NULL), *d = run_forward(crms, short_, NULL),
              *e = run_forward(scale, c, NULL);
    for (int64_t t = 0; t < 6; t++)
        for (int64_t i = 0; i < 8; i++) wf_tensor_set(cut, t * 8 + i, wf_tensor_get(a, t * 9 + i));
    assert_close(b, a, 1e-6, "RMSNorm of the mean-free vector is LayerNorm");
    assert_close(d, cut, 1e-6, "CRMSNorm is LayerNorm without the last entry");
    assert_close(e, b, 1e-6, "groupscale with one group is RMSNorm without gain");
    wf_tensor *all[] = {x, c, short_, cut, a, b, d, e};
    wf_model *models[] = {ln, rms, crms, scale};
    for (int i = 0; i < 8; i++) wf_tensor_free(all[i]);
    for (int i = 0; i < 4; i++) wf_model_free(models[i]);
}

/* One repeated batch: both running statistics go to the batch's own by the factor 1 - momentum a step. */
static void batchnorm_statistics_converge_geometrically(void **state) {
    norm_run r = norm_open("{name: batchnorm, momentum: 0.25}", WF_SHAPE(2, 6, 2), NULL, false);
    wf_rng rng = {7, 0, 0};
    double mean[2] = {0}, var[2] = {0}, gap[2][2] = {{0}};
    norm_fill(&r, &rng, 3);
    for (int64_t i = 0; i < 24; i++) mean[i % 2] += wf_tensor_get(r.x, i) / 12;
    for (int64_t i = 0; i < 24; i++) var[i % 2] += pow(wf_tensor_get(r.x, i) - mean[i % 2], 2) / 11; /* unbiased */
    for (int t = 0; t < 8; t++) {
        norm_step(&r);
        for (int c = 0; c < 2; c++) {
            double m = norm_at(&r, "running_mean", c) - mean[c], v = norm_at(&r, "running_var", c) - var[c];
            if (t) assert_true(fabs(m / gap[0][c] - 0.75) < 1e-4 && fabs(v / gap[1][c] - 0.75) < 1e-4);
            gap[0][c] = m, gap[1][c] = v;
        }
    }
    norm_close(&r);
}

/* One group a channel over the sample is InstanceNorm: every channel of every sample has mean 0 and variance 1. */
static void a_group_a_channel_is_instance_norm(void **state) {
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 9, 4), 3, 0);
    wf_model *m = part_of("norm", "{name: groupnorm, groups: 4, over: sample, affine: false}", 4, false, 0);
    wf_tensor *y = run_forward(m, x, NULL);
    for (int64_t s = 0; s < 2; s++)
        for (int64_t c = 0; c < 4; c++) {
            double mean = 0, var = 0;
            for (int64_t l = 0; l < 9; l++) mean += wf_tensor_get(x, (s * 9 + l) * 4 + c) / 9;
            for (int64_t l = 0; l < 9; l++) var += pow(wf_tensor_get(x, (s * 9 + l) * 4 + c) - mean, 2) / 9;
            for (int64_t l = 0; l < 9; l++) {
                int64_t i = (s * 9 + l) * 4 + c;
                assert_true(fabs(wf_tensor_get(y, i) - (wf_tensor_get(x, i) - mean) / sqrt(var + 1e-5)) < 1e-5);
            }
        }
    wf_tensor_free(x);
    wf_tensor_free(y);
    wf_model_free(m);
}

/* ---- power ---- */

/* The code's buffer is the paper's Algorithm 2: nu = (1-alpha) ema_gz, nu' = nu (1 - (1-alpha) mean z^2) + (1-alpha) mean g z. */
static void power_is_the_papers_recursion(void **state) {
    norm_run r = norm_open("{name: power, group_num: 2, warmup_iters: 5, alpha_bkw: 0.8}", WF_SHAPE(2, 6, 4), NULL, false);
    wf_rng rng = {21, 0, 0};
    double nu[4] = {0};
    for (int t = 0; t < 40; t++) {
        norm_fill(&r, &rng, 1 + 0.5 * sin(t));
        norm_step(&r); /* gain 1, bias 0: y is z, the cotangent is g */
        for (int64_t c = 0; c < 4; c++) {
            double gamma = 0, lambda = 0;
            for (int64_t i = c; i < 48; i += 4) {
                gamma += pow(norm_out(&r, 0)[i], 2) / 12;
                lambda += wf_tensor_get(r.cot, i) * norm_out(&r, 0)[i] / 12;
            }
            nu[c] = nu[c] * (1 - 0.2 * gamma) + 0.2 * lambda;
            assert_true(fabs(0.2 * norm_at(&r, "ema_gz", c) - nu[c]) < 1e-5);
        }
    }
    norm_close(&r);
}

/* bwd_scale: running divides by what the forward pass used; both agree where the batch statistic is the running one. */
static void power_divides_the_gradient_as_told(void **state) {
    norm_run a = norm_open("{name: power, group_scale: false, warmup_iters: 0}", WF_SHAPE(1, 6, 2), NULL, false),
             b = norm_open("{name: power, group_scale: false, warmup_iters: 0, bwd_scale: running}", WF_SHAPE(1, 6, 2), NULL,
                           false);
    wf_rng ra = {5, 0, 0}, rb = {5, 0, 0};
    norm_fill(&a, &ra, 3);
    norm_fill(&b, &rb, 3);
    double q[2] = {0};
    for (int64_t i = 0; i < 12; i++) q[i % 2] += pow(wf_tensor_get(a.x, i), 2) / 6;
    norm_step(&a);
    norm_step(&b);
    for (int64_t i = 0; i < 12; i++) { /* running_phi was 1 */
        double scale = sqrt((q[i % 2] + 1e-5) / (1 + 1e-5));
        assert_true(fabs(norm_out(&b, 1)[i] - norm_out(&a, 1)[i] * scale) < 1e-5);
    }
    norm_close(&a);
    norm_close(&b);
}

/* ---- prepbn ---- */

/* norm2 starts silent (init: text), so that y / norm1(x) is lam itself. */
static void prepbn_shares_follow_the_schedule(void **state) {
    norm_run r = norm_open("{name: prepbn, warm: 2, total_step: 5, r0: 0.5, init: text}", WF_SHAPE(2, 3, 4), NULL, false);
    wf_model *ln = part_of("norm", "layernorm", 4, false, 0);
    wf_rng rng = {6, 0, 0};
    for (int t = 0; t < 10; t++) {
        norm_fill(&r, &rng, 1);
        norm_step(&r);
        wf_tensor *y = run_forward(ln, r.x, NULL);
        double lam = t < 2 ? 1 : t < 7 ? 0.5 * (5 - (t - 2)) / 5 : 0;
        for (int64_t i = 0; i < 24; i++) assert_true(fabs(norm_out(&r, 0)[i] - lam * wf_tensor_get(y, i)) < 1e-6);
        assert_true(norm_at(&r, "warm", 0) == (t < 2 ? 1 - t : 0) && norm_at(&r, "iter", 0) == (t < 2 ? 5 : t < 7 ? 6 - t : 0));
        if (t < 2) assert_true(norm_at(&r, "norm2.running_var", 0) == 1); /* norm2 takes no part yet */
        if (t == 2) assert_true(norm_at(&r, "norm2.running_var", 0) != 1);
        wf_tensor_free(y);
    }
    wf_model_free(ln);
    norm_close(&r);
}

/* With accumulation the counters move at the first of every four forward passes. */
static void prepbn_counts_optimizer_steps(void **state) {
    norm_run r =
        norm_open("{name: prepbn, warm: 2, total_step: 3, forwards_per_step: 4, init: text}", WF_SHAPE(1, 3, 4), NULL, false);
    wf_rng rng = {6, 1, 0};
    int warm = 2, iter = 3, n = 0;
    for (int t = 0; t < 26; t++) {
        norm_fill(&r, &rng, 1);
        norm_step(&r);
        if (warm > 0)
            warm -= n == 0;
        else if (iter > 0)
            iter -= n == 0;
        n = (n + 1) % 4;
        assert_true(norm_at(&r, "warm", 0) == warm && norm_at(&r, "iter", 0) == iter && norm_at(&r, "num_step", 0) == n);
    }
    assert_true(warm == 0 && iter == 0);
    norm_close(&r);
}

/* ---- masks, segments, refusals ---- */

#define SOME_NORMS                                                                                                             \
    "{name: unified, warmup_iters: 1, outlier_filtration: true}", "{name: power, group_num: 2, warmup_iters: 1}", "batchnorm", \
        "repbn", "{name: prepbn, total_step: 4}"

/* What stands in padded tokens reaches no statistic and no other token. */
static void padding_reaches_no_statistic(void **state) {
    static const char *const norms[] = {SOME_NORMS};
    wf_tensor *keep = wf_tensor_new(WF_F32, WF_SHAPE(2, 4));
    for (int i = 0; i < 8; i++) wf_tensor_set(keep, i, i % 4 < 2 + i / 4);
    for (size_t k = 0; k < sizeof norms / sizeof *norms; k++) {
        norm_run a = norm_open(norms[k], WF_SHAPE(2, 4, 6), keep, false),
                 b = norm_open(norms[k], WF_SHAPE(2, 4, 6), keep, false);
        wf_rng ra = {30, k, 0}, rb = {30, k, 0};
        for (int t = 0; t < 4; t++) {
            norm_fill(&a, &ra, 1);
            norm_fill(&b, &rb, 1);
            for (int64_t i = 0; i < 48; i++)
                if (wf_tensor_get(keep, i / 6) == 0) {
                    wf_tensor_set(b.x, i, 7);
                    wf_tensor_set(a.cot, i, 0); /* the backward sums of unified and power do include padding */
                    wf_tensor_set(b.cot, i, 0);
                }
            norm_step(&a);
            norm_step(&b);
            for (int64_t i = 0; i < 48; i++)
                if (wf_tensor_get(keep, i / 6) != 0) assert_true(fabs(norm_out(&a, 0)[i] - norm_out(&b, 0)[i]) < 1e-6);
        }
        norm_close(&a);
        norm_close(&b);
    }
    /* a mask of tokens also serves vectors by head, [B,L,H,d] */
    norm_run r = norm_open("repbn", WF_SHAPE(2, 4, 3, 2), keep, false);
    wf_rng rng = {31, 0, 0};
    norm_fill(&r, &rng, 1);
    for (int64_t i = 0; i < 48; i++)
        if (wf_tensor_get(keep, i / 6) == 0) wf_tensor_set(r.x, i, 1000);
    norm_step(&r);
    assert_true(norm_at(&r, "running_var", 0) < 2 && norm_at(&r, "running_var", 1) < 2);
    norm_close(&r);
    wf_tensor_free(keep);
}

/* A recomputed segment moves state once, and to the same numbers. */
static void recomputation_moves_state_once(void **state) {
    static const char *const norms[] = {SOME_NORMS};
    for (size_t k = 0; k < sizeof norms / sizeof *norms; k++) {
        norm_run a = norm_open(norms[k], WF_SHAPE(2, 4, 6), NULL, false),
                 b = norm_open(norms[k], WF_SHAPE(2, 4, 6), NULL, true);
        wf_rng ra = {40, k, 0}, rb = {40, k, 0};
        for (int t = 0; t < 6; t++) {
            norm_fill(&a, &ra, 1 + t);
            norm_fill(&b, &rb, 1 + t);
            norm_step(&a);
            norm_step(&b);
            for (int i = 0; i < a.m->n_param; i++) {
                const wf_tensor *p = a.m->param[i]->value, *q = b.m->param[i]->value;
                double bound = p->dtype == WF_I32 ? 0 : 1e-5;
                if (!(rn_error(q, p) <= bound)) fail_msg("%s: %s differs", norms[k], a.m->param[i]->name);
            }
            for (int64_t i = 0; i < 48; i++) assert_true(fabs(norm_out(&a, 1)[i] - norm_out(&b, 1)[i]) < 1e-4);
        }
        norm_close(&a);
        norm_close(&b);
    }
}

/* A derivative taken after the build has ended still computes, and registers nothing. */
static void a_late_derivative_leaves_state_alone(void **state) {
    wf_model *m = part_of("norm", "{name: unified, window: 2}", 3, false, 0);
    wf_graph *g = wf_graph_open();
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(1, 4, 3), 1, 0), *u = rn_random(WF_F32, WF_SHAPE(1, 4, 3), 2, 0);
    wf_build *b = wf_alloc(sizeof *b);
    wf_build_start(b, g);
    b->train = true;
    wf_node *leaf = wf_leaf(g, x, "x"), *y = wf_apply(b, m->root, leaf), *seed = wf_leaf(g, u, "u"), *dx[2];
    wf_build_end(b);
    memset(b, 0xff, sizeof *b); /* whatever stands there now */
    wf_free(b);
    MUST(wf_grad(g, &y, &seed, 1, &leaf, 1, dx));
    MUST(wf_grad(g, &y, &seed, 1, &leaf, 1, dx + 1));
    wf_tensor *d = rn_run(g, dx[0]);
    assert_non_null(d);
    assert_true(wf_tensor_get(wf_model_param(m, "ema_gz")->value, 0) == 0);
    wf_tensor_free(d);
    wf_graph_free(g);
    wf_tensor_free(x);
    wf_tensor_free(u);
    wf_model_free(m);
}

static void impossible_norms_are_refused(void **state) {
#define NORM(text) "{name: lm, vocab: 8, length: 4, width: 6, mixer: {name: softmax, heads: 2}, norm: " text "}"
    refused(NORM("{name: unified, window: 0}"), "1 .. 1024");
    refused(NORM("{name: unified, window: [1, 2, 3]}"), "[forward, backward]");
    refused(NORM("{name: unified, window: {a: 1}}"), "test.yaml:1");
    refused(NORM("{name: unified, window: [2, x]}"), "[forward, backward]");
    refused(NORM("{name: unified, momentum: 1.5}"), "momentum");
    refused(NORM("{name: unified, treshold: code}"), "did you mean 'threshold'");
    refused(NORM("{name: power, group_num: 4}"), "'group_num' must divide the width (4 does not divide 6)");
    refused(NORM("{name: groupscale, groups: 4}"), "must divide");
    refused(NORM("{name: prepbn, norm1: batchnorm}"), "layernorm|rmsnorm");
    refused(NORM("{name: prepbn, total_step: 0}"), "total_step");
    refused(NORM("{name: srmsnorm, eps: 0}"), "eps");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(true_derivatives_agree_with_differences),
        cmocka_unit_test(parameters_have_their_gradients),
        cmocka_unit_test(a_row_of_zeros_is_safe_in_srmsnorm),
        cmocka_unit_test(evaluation_is_the_affine_map_of_the_fold),
        cmocka_unit_test(power_folds_to_groupscale),
        cmocka_unit_test(norms_that_do_not_fold_say_so),
        cmocka_unit_test(gradients_of_normalised_tokens_are_orthogonal),
        cmocka_unit_test(norms_are_each_others_special_cases),
        cmocka_unit_test(batchnorm_statistics_converge_geometrically),
        cmocka_unit_test(a_group_a_channel_is_instance_norm),
        cmocka_unit_test(power_is_the_papers_recursion),
        cmocka_unit_test(power_divides_the_gradient_as_told),
        cmocka_unit_test(prepbn_shares_follow_the_schedule),
        cmocka_unit_test(prepbn_counts_optimizer_steps),
        cmocka_unit_test(padding_reaches_no_statistic),
        cmocka_unit_test(recomputation_moves_state_once),
        cmocka_unit_test(a_late_derivative_leaves_state_alone),
        cmocka_unit_test(impossible_norms_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
