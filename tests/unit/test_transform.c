/* test_transform.c: folding and converting norms: the same outputs, fewer operators, sizes, refusals, files. */
#include "parts_help.h"

#include "learn/learn.h"
#include "transform/transform.h"

#include <math.h>

#define LM "name: lm, vocab: 13, length: 12, width: 12, layers: 2, mixer: {name: softmax, heads: 3}"
#define VIT                                                                                                                    \
    "name: vit, image_height: 8, channels: 2, patch: 4, classes: 5, width: 12, layers: 2, mixer: {name: softmax, heads: 3}"

/* ---- helpers ---- */

/* Away from first values, and with statistics that a net in use could have: variances stay positive. */
static wf_model *used(const char *text, uint64_t seed) {
    wf_model *m = model_of(text, seed);
    stir(m, 0.2);
    for (int i = 0; i < m->n_param; i++) {
        const char *name = m->param[i]->name;
        wf_tensor *v = m->param[i]->value;
        bool positive = strstr(name, "running_var") || strstr(name, "running_phi");
        for (int64_t j = 0; positive && j < wf_tensor_count(v); j++)
            wf_tensor_set(v, j, 0.3 + 0.1 * (double)(j % 7) + fabs(wf_tensor_get(v, j) - 1));
    }
    return m;
}

static wf_tensor *input_of(const wf_model *m) {
    if (!strcmp(m->root->part->name, "vit")) return rn_random(WF_F32, WF_SHAPE(3, 2, 8, 8), 4, 0);
    return rn_random(WF_I32, WF_SHAPE(3, 9), 4, 13);
}

static void same_function(wf_model *a, wf_model *b, double bound, const char *what) {
    wf_tensor *x = input_of(a), *y = run_forward(a, x, NULL), *z = run_forward(b, x, NULL);
    double diff = 0, norm = 0;
    if (!y || !z) fail_msg("%s: %s", what, wf_message());
    for (int64_t i = 0; i < wf_tensor_count(y); i++) {
        double u = wf_tensor_get(y, i), v = wf_tensor_get(z, i);
        diff += (u - v) * (u - v);
        norm += u * u;
    }
    if (!(sqrt(diff) <= bound * sqrt(norm))) fail_msg("%s: outputs differ by %g", what, sqrt(diff / norm));
    wf_tensor_free(x);
    wf_tensor_free(y);
    wf_tensor_free(z);
}

/* Operators of a name in the graph of an evaluation. */
static int count_ops(wf_model *m, const char *name) {
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_build_start(&b, g);
    wf_tensor *x = input_of(m);
    if (!wf_apply(&b, m->root, wf_leaf(g, x, "x"))) fail_msg("%s", wf_graph_message(g));
    int n = 0;
    for (int i = 0; i < wf_graph_size(g); i++) {
        const wf_node *node = wf_graph_node(g, i);
        n += node->op && !strcmp(node->op->name, name);
    }
    wf_build_end(&b);
    wf_graph_free(g);
    wf_tensor_free(x);
    return n;
}

static bool noted(const wf_transform_report *r, bool kept, const char *text) {
    for (int i = 0; i < r->n; i++)
        if (r->note[i].kept == kept && strstr(r->note[i].text, text)) return true;
    return false;
}

static void show(const wf_transform_report *r) {
    for (int i = 0; i < r->n; i++)
        print_message("%s%s (%d)\n", r->note[i].kept ? "kept " : "", r->note[i].text, r->note[i].times);
}

/* Fold, compare, and return the folded model. */
static wf_model *folded(const char *text, const wf_fold_opt *o, wf_transform_report *r, wf_model **before) {
    wf_model *m = used(text, 2), *f = wf_fold(m, o, r);
    if (!f) fail_msg("%s: %s", text, wf_message());
    same_function(m, f, 1e-5, text);
    if (before)
        *before = m;
    else
        wf_model_free(m);
    return f;
}

/* ---- folding ---- */

/* Pre-norm networks whose norms are affine in evaluation end without a norm operator. */
static void affine_norms_leave_no_operator(void **state) {
    static const char *const norms[] = {
        "batchnorm", "{name: batchnorm, affine: false}", "unified", "repbn", "{name: repbn, init: text}",
        "prepbn",    "{name: prepbn, norm1: rmsnorm}"};
    static const char *const models[] = {"{" LM ", norm: %s}",
                                         "{" LM ", norm: %s, bias: false, tied: false, channel: swiglu}",
                                         "{" LM ", norm: %s, placement: peri}",
                                         "{" VIT ", norm: %s}",
                                         "{" VIT ", norm: %s, pool: mean, layer_scale: 0.1}",
                                         "{" VIT ", norm: %s, distilled: true}",
                                         "{" LM ", norm: %s, topology: macaron}",
                                         "{" LM ", norm: %s, topology: activator}",
                                         "{" LM ", norm: %s, placement: normformer, channel: geglu}"};
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++)
        for (size_t k = 0; k < sizeof models / sizeof *models; k++) {
            char text[512];
            snprintf(text, sizeof text, models[k], norms[i]);
            wf_transform_report r = {0};
            wf_model *before, *f = folded(text, NULL, &r, &before);
            assert_true(count_ops(before, "rsqrt") + count_ops(before, "sqrt") > 0);
            if (count_ops(f, "rsqrt") || count_ops(f, "sqrt") || r.changed != r.n) {
                show(&r);
                fail_msg("%s: a norm was left", text);
            }
            wf_model_free(before);
            wf_model_free(f);
            wf_transform_report_free(&r);
        }
}

static void power_keeps_its_first_stage(void **state) {
    wf_transform_report r = {0};
    wf_model *before, *f = folded("{" LM ", norm: {name: power, group_num: 3}}", NULL, &r, &before);
    assert_int_equal(count_ops(before, "rsqrt"), 10);
    assert_int_equal(count_ops(f, "rsqrt"), 5);
    assert_string_equal(wf_module_find(f->root, "final_norm")->part->name, "groupscale");
    wf_model_free(before);
    wf_model_free(f);
    wf_transform_report_free(&r);
    f = folded("{" LM ", norm: {name: power, group_scale: false}}", NULL, &r, NULL);
    assert_int_equal(count_ops(f, "rsqrt"), 0);
    wf_model_free(f);
    wf_transform_report_free(&r);
}

static void gains_and_biases_go_into_the_next_linear(void **state) {
    static const char *const models[] = {
        "{" LM ", tied: false}",
        "{" LM ", tied: false, norm: rmsnorm, bias: false}",
        "{" LM ", tied: false, norm: {name: rmsnorm, one_plus_w: true}}",
        "{" LM ", tied: false, norm: {name: groupnorm, groups: 3}}",
        "{" LM ", tied: false, norm: dyt, position: rope}",
        "{" LM ", tied: false, bias: false}",
        "{" LM ", tied: false, placement: normformer, topology: activator}",
        "{" VIT ", patch_norm: true, norm: {name: groupnorm, over: sample}, pool: mean}",
        "{" LM ", tied: false, topology: {name: wide, blocks: 1}}",
    };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        wf_transform_report r = {0};
        wf_model *f = folded(models[i], NULL, &r, NULL);
        for (int k = 0; k < f->n_param; k++)
            if (strstr(f->param[k]->name, "norm.") && !strstr(f->param[k]->name, "alpha") &&
                !strstr(f->param[k]->name, "patch_out_norm"))
                fail_msg("%s: %s is left", models[i], f->param[k]->name);
        wf_model_free(f);
        wf_transform_report_free(&r);
    }
}

static void layer_scales_go_into_the_branch(void **state) {
    wf_transform_report r = {0};
    wf_model *f = folded("{" VIT ", layer_scale: 0.3}", NULL, &r, NULL);
    for (int i = 0; i < f->n_param; i++) assert_null(strstr(f->param[i]->name, "_scale"));
    assert_true(noted(&r, false, "blocks.*.channel_scale: layer scale into down"));
    wf_model_free(f);
    wf_transform_report_free(&r);
    f = folded("{" VIT ", layer_scale: 0.3, placement: peri}", NULL, &r, NULL); /* the output norm stands in between */
    assert_true(noted(&r, true, "blocks.*.channel_scale: stays: a norm stands between"));
    assert_non_null(wf_model_param(f, "blocks.0.mixer_scale"));
    wf_model_free(f);
    wf_transform_report_free(&r);
}

static void reparametrised_linears_become_dense(void **state) {
    wf_transform_report r = {0};
    wf_model *f = folded("{" LM ", linear: sigma, norm: none}", NULL, &r, NULL);
    for (int i = 0; i < f->n_param; i++) assert_null(strstr(f->param[i]->name, "gamma"));
    assert_true(noted(&r, false, "blocks.*.mixer.q: sigma becomes dense"));
    wf_model_free(f);
    wf_transform_report_free(&r);
    wf_model *before;
    f = folded("{" LM ", linear: {name: zero-mean, of: writers}, centred: true, norm: {name: rmsnorm, affine: false}}", NULL,
               &r, &before);
    assert_true(noted(&r, false, "centred once"));
    assert_true(count_ops(f, "sub") < count_ops(before, "sub"));
    wf_model_free(f);
    wf_model_free(before);
    wf_transform_report_free(&r);
    f = folded("{" LM ", linear: sigma, norm: batchnorm, layer_scale: 0.5}", NULL, &r, NULL);
    assert_int_equal(count_ops(f, "rsqrt"), 0);
    wf_model_free(f);
    wf_transform_report_free(&r);
}

static void a_tied_head_is_untied_or_kept(void **state) {
    wf_transform_report r = {0};
    wf_model *before, *f = folded("{" LM ", norm: batchnorm}", NULL, &r, &before);
    assert_true(noted(&r, false, "head: untied"));
    assert_non_null(wf_model_param(f, "head.weight"));
    assert_non_null(wf_model_param(f, "head.bias"));
    int64_t gains = 2 * 5 * 12, head = 13 * 12 + 13;
    assert_int_equal(r.parameters_before, wf_model_count(before));
    assert_int_equal(r.parameters_after, r.parameters_before - gains + head);
    wf_model_free(f);
    wf_model_free(before);
    wf_transform_report_free(&r);
    f = folded("{" LM ", norm: batchnorm}", &(wf_fold_opt){.keep_tied = true}, &r, NULL);
    assert_null(wf_model_param(f, "head.weight"));
    assert_string_equal(wf_module_find(f->root, "final_norm")->part->name, "affine");
    assert_int_equal(count_ops(f, "rsqrt"), 0);
    wf_model_free(f);
    wf_transform_report_free(&r);
    f = folded("{" LM "}", &(wf_fold_opt){.keep_tied = true}, &r, NULL);
    assert_true(noted(&r, true, "final_norm: gain and bias of layernorm stay: the head is tied"));
    wf_model_free(f);
    wf_transform_report_free(&r);
}

static void what_no_linear_follows_becomes_affine_or_stays(void **state) {
    wf_transform_report r = {0};
    wf_model *f = folded("{" LM ", norm: batchnorm, placement: post}", NULL, &r, NULL);
    assert_true(noted(&r, false, "blocks.*.mixer_res_norm: batchnorm becomes affine, y = a x + b: after the sum (post-norm)"));
    assert_int_equal(count_ops(f, "rsqrt"), 0);
    wf_model_free(f);
    wf_transform_report_free(&r);
    f = folded("{" LM ", norm: batchnorm, embed_norm: true}", NULL, &r, NULL);
    assert_true(noted(&r, false, "embed_norm: batchnorm becomes affine"));
    wf_model_free(f);
    wf_transform_report_free(&r);
    wf_model *m = used("{" LM ", placement: post}", 1);
    assert_null(wf_fold(m, NULL, &r));
    MESSAGE_HAS("nothing in this model that can be folded");
    assert_true(noted(&r, true, "residual stream"));
    wf_model_free(m);
    wf_transform_report_free(&r);
    m = used("{" LM ", norm: {name: rmsnorm, affine: false}}", 1);
    assert_null(wf_fold(m, NULL, &r));
    MESSAGE_HAS("nothing in this model");
    wf_model_free(m);
    wf_transform_report_free(&r);
}

static void folding_twice_changes_nothing_more(void **state) {
    wf_transform_report r = {0}, again = {0};
    wf_model *f = folded("{" LM ", norm: batchnorm, parts: {final_norm: layernorm, \"blocks.0.mixer.q\": {bias: false}}}", NULL,
                         &r, NULL);
    assert_non_null(wf_model_param(f, "blocks.0.mixer.q.bias"));
    assert_null(wf_fold(f, NULL, &again));
    wf_transform_report_free(&again);
    wf_model *c = wf_convert_norm(f, "rmsnorm", &again); /* blocks without norms are no Pre-LN network */
    assert_null(c);
    MESSAGE_HAS("reads the stream without a norm");
    wf_model_free(f);
    wf_transform_report_free(&r);
    wf_transform_report_free(&again);
}

static void blocks_of_different_kinds_fold_each_in_its_way(void **state) {
    wf_transform_report r = {0};
    wf_model *f = folded("{" LM ", norm: batchnorm, parts: {\"blocks.1.mixer_in_norm\": rmsnorm, "
                         "\"blocks.0.channel\": swiglu, \"blocks.*.channel_in_norm\": {eps: 0.1}}}",
                         NULL, &r, NULL);
    assert_int_equal(count_ops(f, "rsqrt"), 1);
    wf_model_free(f);
    wf_transform_report_free(&r);
    f = folded("{name: lm, vocab: 13, length: 12, width: 12, layers: 4, norm: unified, mixer: [{name: softmax, heads: 2}, "
               "linear, flow, "
               "sigmoid]}",
               NULL, &r, NULL);
    for (int i = 0; i < f->n_param; i++) assert_null(strstr(f->param[i]->name, "running_"));
    assert_true(noted(&r, true, "mixer.q_norm: gain and bias of layernorm stay: what reads it is not linear"));
    wf_model_free(f);
    wf_transform_report_free(&r);
}

static void a_folded_model_streams_and_survives_its_file(void **state) {
    static const int chunks[] = {3, 1, 1, 2, 2, 0};
    wf_transform_report r = {0};
    wf_model *f = folded("{" LM ", norm: unified, position: rope}", NULL, &r, NULL);
    char path[300];
    snprintf(path, sizeof path, "%s/folded.safetensors", test_folder());
    MUST(wf_model_save(f, path, WF_F32, NULL, NULL, 0));
    wf_model *l = wf_model_load(path);
    if (!l) fail_msg("%s", wf_message());
    wf_tensor *x = input_of(f), *y = run_forward(f, x, NULL), *z = run_steps(l, x, chunks, 12);
    assert_close(z, y, 2e-5, "steps of the loaded model");
    wf_tensor_free(x);
    wf_tensor_free(y);
    wf_tensor_free(z);
    wf_model_free(f);
    wf_model_free(l);
    wf_transform_report_free(&r);
    test_folder_remove();
}

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

/* ---- figures ---- */

static void figures_show_what_changed(void **state) {
    wf_transform_report r = {0};
    wf_model *before, *f = folded("{" VIT ", norm: batchnorm}", NULL, &r, &before);
    wf_transform_figures a = {0}, b = {0};
    MUST(wf_transform_time(before, f, 1, 3, &a));
    assert_true(a.pairs == 3 && a.before > 0 && a.after > 0 && a.gain > 0 && a.largest > 0);
    assert_true(a.nodes_after < a.nodes_before && a.flops_after < a.flops_before);
    assert_true(a.difference <= 1e-5 * a.largest);
    MUST(wf_transform_compare(before, f, 1, &b));
    assert_true(a.difference == b.difference);
    wf_tensor_set(wf_model_param(f, "head.bias")->value, 0, 100);
    MUST(wf_transform_compare(before, f, 1, &b));
    assert_true(b.difference > 10);
    wf_model_free(before);
    wf_model_free(f);
    wf_transform_report_free(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(affine_norms_leave_no_operator),
        cmocka_unit_test(power_keeps_its_first_stage),
        cmocka_unit_test(gains_and_biases_go_into_the_next_linear),
        cmocka_unit_test(layer_scales_go_into_the_branch),
        cmocka_unit_test(reparametrised_linears_become_dense),
        cmocka_unit_test(a_tied_head_is_untied_or_kept),
        cmocka_unit_test(what_no_linear_follows_becomes_affine_or_stays),
        cmocka_unit_test(folding_twice_changes_nothing_more),
        cmocka_unit_test(blocks_of_different_kinds_fold_each_in_its_way),
        cmocka_unit_test(a_folded_model_streams_and_survives_its_file),
        cmocka_unit_test(conversions_keep_the_function),
        cmocka_unit_test(the_converted_stream_has_no_mean),
        cmocka_unit_test(a_crms_network_is_one_channel_narrower),
        cmocka_unit_test(inexact_conversions_are_refused),
        cmocka_unit_test(the_training_form_trains_as_pre_ln),
        cmocka_unit_test(zero_mean_has_its_derivative_and_no_mean),
        cmocka_unit_test(figures_show_what_changed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
