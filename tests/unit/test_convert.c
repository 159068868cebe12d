/* test_convert.c: Pre-LN, Pre-RMSNorm and Pre-CRMSNorm: the same function both ways, a stream without mean, sizes, refusals, and the
 * training form with its zero-mean linears. */
#include "transform_help.h"

#include "learn/learn.h"

/* ---- Pre-LN, Pre-RMSNorm, Pre-CRMSNorm ---- */

static const char *const pre_ln[] = {
    "{" LM "}",
    "{" LM ", tied: false, bias: false, position: rope, channel: swiglu}",
    "{" LM ", norm: {name: layernorm, eps: 0.01}, embed_scale: sqrt_width, position: none}",
    "{" LM ", norm: {name: layernorm, affine: false}, topology: macaron, layer_scale: 0.5, position: alibi}",
    "{" LM ", norm: {name: layernorm, affine: false}, placement: peri}",
    "{" LM ", placement: normformer}",
    "{" LM ", topology: activator, parts: {\"blocks.*.mixer\": {name: linear, heads: 2}}}",
    "{" LM ", linear: sigma, parts: {\"blocks.1.mixer\": {name: flow, heads: 3}}}",
    "{" LM ", topology: {name: wide, blocks: 1}}",
    "{name: lm, vocab: 13, length: 12, width: 130, layers: 1}", /* heads and head width by default */
    "{" VIT "}",
    "{" VIT ", pool: mean, positions: none, layer_scale: 0.1}",
    "{" VIT ", distilled: true, channel: geglu}",
    "{name: classifier, vocab: 13, length: 12, classes: 4, width: 12, layers: 2, pool: class, mixer: {name: glu}}",
};
enum { N_PRE_LN = sizeof pre_ln / sizeof *pre_ln };

static wf_model *convert(wf_model *m, const char *to) {
    wf_transform_report r = {0};
    wf_model *c = wf_convert_norm(m, to, &r);
    if (!c) fail_msg("to %s: %s", to, wf_message());
    assert_true(r.changed > 0);
    wf_transform_report_free(&r);
    return c;
}

static void conversions_keep_the_function(void **state) {
    for (int i = 0; i < N_PRE_LN; i++) {
        wf_model *m = used(pre_ln[i], 3), *rms = convert(m, "rmsnorm"), *crms = convert(rms, "crmsnorm");
        same_function(m, rms, 1e-5, pre_ln[i]);
        same_function(m, crms, 1e-5, pre_ln[i]);
        wf_model *back = convert(crms, "rmsnorm"), *ln = convert(back, "layernorm"), *direct = convert(m, "crmsnorm"),
                 *ln2 = convert(direct, "layernorm");
        same_function(m, back, 1e-5, pre_ln[i]);
        same_function(m, ln, 1e-5, pre_ln[i]);
        same_function(m, direct, 1e-5, pre_ln[i]);
        same_function(m, ln2, 1e-5, pre_ln[i]);
        wf_model_free(m);
        wf_model_free(rms);
        wf_model_free(crms);
        wf_model_free(back);
        wf_model_free(ln);
        wf_model_free(direct);
        wf_model_free(ln2);
    }
}

typedef struct depths { /* |mean over channels| over the root mean square of the stream, largest of all depths and tokens */
    int n;
    wf_node *x[64];
} depths;

static void collect(void *ctx, const wf_module *m, const char *what, wf_node *n) {
    depths *d = ctx;
    if (!strcmp(what, "stream") || !strcmp(what, "hidden")) d->x[d->n++] = n;
}

static double stream_mean(wf_model *m, bool largest, int *n) {
    wf_graph *g = wf_graph_open();
    wf_build b;
    depths d = {0};
    wf_build_start(&b, g);
    b.tap = collect;
    b.tap_ctx = &d;
    wf_tensor *x = input_of(m);
    if (!wf_apply(&b, m->root, wf_leaf(g, x, "x"))) fail_msg("%s", wf_graph_message(g));
    wf_plan *p = wf_plan_new(g, d.x, d.n, NULL, 0, NULL);
    MUST(wf_plan_run(p));
    double most = 0, least = INFINITY;
    for (int i = 0; i < d.n; i++) {
        const float *v = wf_plan_out(p, i);
        int64_t D = m->root->in, rows = wf_shape_count(&d.x[i]->shape) / D;
        double mean = 0, square = 0;
        for (int64_t r = 0; r < rows; r++) {
            double sum = 0;
            for (int64_t k = 0; k < D; k++) sum += v[r * D + k], square += (double)v[r * D + k] * v[r * D + k];
            mean = fmax(mean, fabs(sum / (double)D));
        }
        double q = mean / sqrt(square / (double)(rows * D));
        most = fmax(most, q);
        least = fmin(least, q);
    }
    *n = d.n;
    wf_plan_free(p);
    wf_build_end(&b);
    wf_graph_free(g);
    wf_tensor_free(x);
    return largest ? most : least;
}

static void the_converted_stream_has_no_mean(void **state) {
    for (int i = 0; i < N_PRE_LN; i++) {
        int n;
        wf_model *m = used(pre_ln[i], 3), *rms = convert(m, "rmsnorm");
        assert_true(stream_mean(m, false, &n) > 1e-3);
        assert_true(n >= 2); /* in front of every block and at the end */
        double worst = stream_mean(rms, true, &n);
        if (!(worst < 1e-6)) fail_msg("%s: %g", pre_ln[i], worst);
        wf_model_free(m);
        wf_model_free(rms);
    }
}

static int64_t size_of(const wf_model *m, const char *name) {
    wf_param *p = wf_model_param(m, name);
    if (!p) fail_msg("%s", wf_message());
    return wf_tensor_count(p->value);
}

static void a_crms_network_is_one_channel_narrower(void **state) {
    wf_model *m = used("{" LM ", tied: false}", 3), *rms = convert(m, "rmsnorm"), *crms = convert(rms, "crmsnorm");
    int64_t D = 12, hd = 12, F = 48, V = 13, layers = 2;
    assert_int_equal(crms->root->in, D - 1);
    assert_int_equal(size_of(crms, "embed.weight"), V * (D - 1));
    assert_int_equal(size_of(crms, "blocks.1.mixer.q.weight"), hd * (D - 1));
    assert_int_equal(size_of(crms, "blocks.1.mixer.o.weight"), (D - 1) * hd);
    assert_int_equal(size_of(crms, "blocks.1.channel.up.weight"), F * (D - 1));
    assert_int_equal(size_of(crms, "blocks.1.channel.down.bias"), D - 1);
    assert_int_equal(size_of(crms, "blocks.1.channel.up.bias"), F);
    assert_int_equal(size_of(crms, "head.weight"), V * (D - 1));
    int64_t lost = V + 12 + V + layers * (3 * hd + hd + 1 + 2 * F + 1); /* a row or column of every reader, writer, table */
    assert_int_equal(wf_model_count(rms) - wf_model_count(crms), lost);
    wf_model_free(m);
    wf_model_free(rms);
    wf_model_free(crms);
}

static void refuse_conversion(const char *text, const char *to, const char *why) {
    wf_model *m = used(text, 1);
    wf_transform_report r = {0};
    wf_model *c = wf_convert_norm(m, to, &r);
    if (c) fail_msg("%s to %s was not refused", text, to);
    if (!strstr(wf_message(), why)) fail_msg("%s to %s: '%s' lacks '%s'", text, to, wf_message(), why);
    wf_transform_report_free(&r);
    wf_model_free(m);
}

static void inexact_conversions_are_refused(void **state) {
    refuse_conversion("{" LM ", placement: post}", "rmsnorm", "a post-norm network cannot be converted");
    refuse_conversion("{" LM ", placement: deepnorm}", "crmsnorm", "a post-norm network cannot be converted");
    refuse_conversion("{" LM ", placement: output}", "rmsnorm", "reads the stream without a norm");
    refuse_conversion("{" LM ", placement: peri}", "rmsnorm", "gain that no linear can take");
    refuse_conversion("{" LM ", embed_norm: true}", "rmsnorm", "embed_norm");
    refuse_conversion("{" LM ", position: sinusoidal}", "rmsnorm", "fixed table");
    refuse_conversion("{" VIT ", positions: mae}", "rmsnorm", "fixed table");
    refuse_conversion("{" VIT ", patch_norm: true}", "rmsnorm", "patch_out_norm");
    refuse_conversion("{" LM ", norm: rmsnorm}", "layernorm", "has a mean");
    refuse_conversion("{" LM ", norm: {name: rmsnorm, affine: false}}", "crmsnorm", "has a mean");
    refuse_conversion("{" LM ", norm: batchnorm}", "rmsnorm", "only layernorm, rmsnorm and crmsnorm");
    refuse_conversion("{" LM ", norm: {name: crmsnorm, divisor: 12}}", "rmsnorm", "divides by 12");
    refuse_conversion("{" LM "}", "layernorm", "layernorm already");
    refuse_conversion("{" LM "}", "batchnorm", "not 'batchnorm'");
    refuse_conversion("{" LM ", final_norm: false}", "rmsnorm", "no final norm");
    refuse_conversion("{" LM ", parts: {final_norm: {eps: 0.5}}}", "rmsnorm", "must be alike");
    refuse_conversion("{" LM ", parts: {\"blocks.1.mixer_in_norm\": none}}", "rmsnorm", "without a norm");
    refuse_conversion("{name: lm, vocab: 13, length: 12, width: 1, layers: 1, mixer: {name: softmax, heads: 1}}", "crmsnorm",
                      "cannot lose a channel");
    refuse_conversion(
        "{name: bert, vocab: 13, length: 12, width: 12, layers: 1, placement: pre, mixer: {name: softmax, heads: 2}}",
        "rmsnorm", "cannot be converted");
}

/* ---- the training form ---- */

static wf_run *train(const char *design) {
    char text[900];
    snprintf(text, sizeof text,
             "task: {name: associative-recall, length: 16, vocab: 16, pairs: 3}\n"
             "model: {name: lm, width: 16, layers: 2, tied: false, mixer: {name: softmax, heads: 2}, %s}\n"
             "train: {steps: 20, batch: 4, lr: 0.003, warmup: 2, optimizer: adamw, weight_decay: 0.1}\n",
             design);
    wf_value *v = yaml(text);
    wf_run *r = wf_run_new(v, NULL);
    wf_value_free(v);
    if (!r) fail_msg("%s", wf_message());
    return r;
}

/* Adam, weight decay and all: the recentred network is the Pre-LN one at every step. */
static void the_training_form_trains_as_pre_ln(void **state) {
    wf_run *a = train("norm: {name: layernorm, affine: false}");
    wf_run *b = train("norm: {name: rmsnorm, affine: false, eps: 1e-5}, linear: {name: zero-mean, of: writers}, centred: true");
    for (int i = 0; i < 20; i++) {
        wf_step_report x, y;
        MUST(wf_run_step(a, &x));
        MUST(wf_run_step(b, &y));
        if (fabs(x.loss - y.loss) > 1e-4) fail_msg("step %d: %g and %g", i, x.loss, y.loss);
    }
    wf_model *m = wf_run_model(a), *n = wf_run_model(b);
    assert_int_equal(m->n_param, n->n_param);
    for (int i = 0; i < m->n_param; i++) {
        wf_param *p = m->param[i], *q = wf_model_param(n, p->name);
        double diff = 0, norm = 0;
        for (int64_t j = 0; j < wf_tensor_count(p->value); j++) {
            double u = wf_tensor_get(p->value, j), v = wf_tensor_get(q->value, j);
            diff += (u - v) * (u - v);
            norm += u * u;
        }
        /* a key bias has no gradient but rounding, which adam makes steps of */
        if (strstr(p->name, "k.bias")) continue;
        if (sqrt(diff) > 1e-4 * sqrt(norm)) fail_msg("%s: %g", p->name, sqrt(diff / norm));
    }
    wf_transform_report r = {0};
    wf_model *f = wf_fold(n, NULL, &r);
    if (!f) fail_msg("%s", wf_message());
    wf_transform_figures figures = {0};
    MUST(wf_transform_compare(n, f, 7, &figures));
    assert_true(figures.difference <= 1e-5 * figures.largest);
    wf_transform_report_free(&r);
    wf_model_free(f);
    wf_run_free(a);
    wf_run_free(b);
}

/* <u, y> of a module in float64. */
static double product(wf_model *m, wf_tensor *x, wf_tensor *u, wf_param *wrt, double *grad) {
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_build_start(&b, g);
    b.compute = WF_F64;
    wf_node *y = wf_apply(&b, m->root, wf_leaf(g, x, "x")), *s = wf_sum_all(g, wf_mul(g, y, wf_leaf(g, u, "u"))),
            *out[2] = {s, NULL};
    wf_node *leaf = wrt ? wf_leaf(g, wrt->value, wrt->name) : NULL;
    if (wrt) MUST(wf_grad(g, &s, NULL, 1, &leaf, 1, &out[1]));
    wf_plan *p = wf_plan_new(g, out, wrt ? 2 : 1, NULL, 0, NULL);
    MUST(wf_plan_run(p));
    double value = *(const double *)wf_plan_out(p, 0);
    wf_tensor view = {wrt ? out[1]->dtype : WF_F64, wrt ? out[1]->shape : (wf_shape){0},
                      (void *)(uintptr_t)(wrt ? wf_plan_out(p, 1) : NULL), 0};
    for (int64_t i = 0; wrt && i < wf_tensor_count(wrt->value); i++) grad[i] = wf_tensor_get(&view, i);
    wf_plan_free(p);
    wf_build_end(&b);
    wf_graph_free(g);
    return value;
}

static void zero_mean_has_its_derivative_and_no_mean(void **state) {
    wf_model *m = part_of("linear", "zero-mean", 6, false, 0);
    stir(m, 0.5);
    wf_tensor *x = rn_random(WF_F64, WF_SHAPE(4, 6), 1, 0), *u = rn_random(WF_F64, WF_SHAPE(4, 6), 2, 0);
    for (int i = 0; i < m->n_param; i++) {
        wf_param *p = m->param[i];
        double grad[36],
            h = 1.0 / 1024; /* exact in float32 beside numbers of this size, nearly; linear, so any step is right */
        product(m, x, u, p, grad);
        for (int64_t j = 0; j < wf_tensor_count(p->value); j++) {
            double at = wf_tensor_get(p->value, j);
            wf_tensor_set(p->value, j, at + h);
            double hi = wf_tensor_get(p->value, j), up = product(m, x, u, NULL, NULL);
            wf_tensor_set(p->value, j, at - h);
            double lo = wf_tensor_get(p->value, j), down = product(m, x, u, NULL, NULL);
            wf_tensor_set(p->value, j, at);
            assert_true(fabs((up - down) / (hi - lo) - grad[j]) < 1e-6);
        }
    }
    wf_tensor *y = run_forward(m, x, NULL);
    for (int64_t r = 0; r < 4; r++) {
        double sum = 0;
        for (int64_t i = 0; i < 6; i++) sum += wf_tensor_get(y, r * 6 + i);
        assert_true(fabs(sum) < 1e-5);
    }
    wf_tensor_free(x);
    wf_tensor_free(u);
    wf_tensor_free(y);
    wf_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conversions_keep_the_function),          cmocka_unit_test(the_converted_stream_has_no_mean),
        cmocka_unit_test(a_crms_network_is_one_channel_narrower), cmocka_unit_test(inexact_conversions_are_refused),
        cmocka_unit_test(the_training_form_trains_as_pre_ln),     cmocka_unit_test(zero_mean_has_its_derivative_and_no_mean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
