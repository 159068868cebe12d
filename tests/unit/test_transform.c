/* test_transform.c: folding: the same outputs, fewer operators, what is kept and why, files, figures. */
#include "transform_help.h"

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
                                         "{" VIT
                                         ", norm: %s, patch_norm: true, parts: {patch_in_norm: repbn, patch_out_norm: repbn}}",
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

/* Whatever mixes tokens or channels: folding and converting keep the function, or are refused. */
static void every_mixer_and_channel_keeps_its_function(void **state) {
    int n, made = 0;
    const wf_part *const *all = wf_part_all(&n);
    for (int i = 0; i < n; i++) {
        bool mixer = !strcmp(all[i]->slot, "mixer"), causal = !mixer || all[i]->causal_ok;
        if ((!mixer && strcmp(all[i]->slot, "channel")) || !strcmp(all[i]->name, "cross")) continue; /* needs a context */
        char text[400];
        snprintf(
            text, sizeof text,
            causal ? "{name: lm, vocab: 13, length: 12, width: 12, layers: 2, position: none, norm: %%s, %s: %s}"
                   : "{name: vit, image_height: 8, channels: 2, patch: 2, classes: 5, width: 12, layers: 2, pool: mean, norm: "
                     "%%s, %s: %s}",
            all[i]->slot, all[i]->name);
        char batch[440], layer[440];
        snprintf(batch, sizeof batch, text, "batchnorm");
        snprintf(layer, sizeof layer, text, "layernorm");
        wf_transform_report r = {0};
        wf_model *f = folded(batch, NULL, &r, NULL);
        for (int k = 0; k < f->n_param; k++) assert_null(strstr(f->param[k]->name, "running_"));
        wf_model_free(f);
        wf_transform_report_free(&r);
        wf_model *m = used(layer, 2), *c = wf_convert_norm(m, "crmsnorm", &r);
        if (c)
            same_function(m, c, 1e-5, layer);
        else
            MESSAGE_HAS("by linears alone");
        made += c != NULL;
        wf_model_free(m);
        wf_model_free(c);
        wf_transform_report_free(&r);
    }
    assert_true(made >= 10);
}

/* PoolFormer's LayerScale: that of the mlp goes into its last linear, that of the pooled map stays; no linear follows a norm there. */
static void pooling_keeps_what_no_linear_takes(void **state) {
    wf_transform_report r = {0};
    wf_model *f = folded("{" META "layer_scale: 0.2}", NULL, &r, NULL);
    assert_true(noted(&r, true, "stages.*.*.mixer_scale: stays: its branch does not end in a linear"));
    assert_true(noted(&r, false, "stages.*.*.channel_scale: layer scale into down"));
    assert_true(noted(&r, true, "stages.*.*.mixer_in_norm: gain and bias of groupnorm stay: not only linears read it"));
    assert_true(noted(&r, false, "final_norm: gain and bias into head"));
    assert_null(wf_model_param(f, "stages.1.0.channel_scale"));
    assert_non_null(wf_model_param(f, "stages.1.0.mixer_scale"));
    wf_model_free(f);
    wf_transform_report_free(&r);
    f = folded("{" META "norm: batchnorm, mixer: [pool, {name: softmax, heads: 3}]}", NULL, &r, NULL);
    assert_int_equal(count_ops(f, "rsqrt"), 0);
    assert_true(noted(&r, false, "stages.*.*.mixer_in_norm: batchnorm becomes affine"));
    assert_true(noted(&r, false, "stages.*.*.mixer_in_norm: batchnorm into q, k, v"));
    wf_model_free(f);
    wf_transform_report_free(&r);
    f = folded(
        "{name: classifier, vocab: 13, length: 12, classes: 4, width: 12, layers: 2, norm: batchnorm, pool: class, mixer: "
        "{name: glu}}",
        NULL, &r, NULL);
    assert_true(noted(&r, false, "blocks.*.mixer_in_norm: batchnorm into gate, value"));
    assert_int_equal(count_ops(f, "rsqrt"), 4); /* the units' own norms */
    wf_model_free(f);
    wf_transform_report_free(&r);
    f = folded("{" VIT ", norm: batchnorm, parts: {\"blocks.*.mixer\": {name: glu, axis: token}}}", NULL, &r, NULL);
    assert_true(noted(&r, false, "blocks.*.mixer_in_norm: batchnorm becomes affine, y = a x + b: not only linears read it"));
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
        cmocka_unit_test(every_mixer_and_channel_keeps_its_function),
        cmocka_unit_test(pooling_keeps_what_no_linear_takes),
        cmocka_unit_test(a_folded_model_streams_and_survives_its_file),
        cmocka_unit_test(figures_show_what_changed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
