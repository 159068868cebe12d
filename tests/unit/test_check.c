/* test_check.c: `weft check`'s engine: every golden case passes, wrong numbers fail, unusable files are told apart. */
#include "check.h"

#include "check/check.h"
#include "graph/graph.h"

#include <dirent.h>
#include <math.h>

static void golden(bool float64) {
    int files = 0;
    DIR *all = opendir("tests/golden");
    if (!all) fail_msg("tests/golden is not there");
    for (struct dirent *system; (system = readdir(all));) {
        char folder[300], path[600];
        if (system->d_name[0] == '.') continue;
        snprintf(folder, sizeof folder, "tests/golden/%s", system->d_name);
        DIR *d = opendir(folder);
        if (!d) fail_msg("%s is not there", folder);
        for (struct dirent *e; (e = readdir(d));) {
            if (!strstr(e->d_name, ".safetensors")) continue;
            snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
            wf_check_result r;
            wf_check_file(path, float64, &r);
            if (r.verdict != WF_CHECK_PASSED) {
                for (int k = 0; k < r.n; k++)
                    if (!r.row[k].pass) print_message("%s: %s relative %g\n", path, r.row[k].name, r.row[k].error);
                fail_msg("%s: %s %s", path, wf_verdict_name(r.verdict), r.reason ? r.reason : "");
            }
            assert_true(r.n > 0);
            for (int k = 0; k < r.n; k++)
                if (r.row[k].repeated) assert_true(r.row[k].largest < 1e-3); /* float64 stands in for rounding only */
            wf_check_free(&r);
            files++;
        }
        closedir(d);
    }
    closedir(all);
    assert_true(files >= 45);
}

static void all_golden_cases_pass(void **state) {
    golden(false);
}
static void all_golden_cases_pass_in_float64(void **state) {
    golden(true);
}

/* ---- cases made by changing one ---- */

typedef struct change {
    const char *config, *module; /* NULL: as it is */
    const char *drop;            /* tensors to leave out, space separated */
    const char *touch;           /* a tensor to change by `by` */
    double by;
    const char *flatten; /* a tensor to give one axis only */
    const char *add;     /* a tensor [2] of zeros to add, or .. */
    int square;          /* .. [n,n] of ones, the first of the last row 1 + `by` */
    bool no_config;
} change;

static char made[300];

static bool listed(const char *words, const char *name) {
    size_t n = strlen(name);
    for (const char *p = words; p && (p = strstr(p, name)); p += n)
        if ((p == words || p[-1] == ' ') && (!p[n] || p[n] == ' ')) return true;
    return false;
}

static void make(const char *from, const change *c) {
    wf_st_file f;
    wf_st_item item[300];
    wf_tensor *own[300];
    int n = 0;
    MUST(wf_st_open(from, &f));
    for (int i = 0; i < f.n; i++) {
        const wf_st_entry *e = &f.entry[i];
        if (listed(c->drop, e->name)) continue;
        own[n] = wf_st_read(e, e->dtype[0] == 'I' ? WF_I32 : e->dtype[0] == 'U' ? WF_U8 : WF_F32);
        assert_non_null(own[n]);
        if (c->flatten && !strcmp(e->name, c->flatten)) own[n]->shape = WF_SHAPE(wf_tensor_count(own[n]));
        if (c->touch && !strcmp(e->name, c->touch)) wf_tensor_set(own[n], 0, wf_tensor_get(own[n], 0) + c->by);
        item[n] = (wf_st_item){e->name, own[n]};
        n++;
    }
    if (c->add) {
        own[n] = wf_tensor_new(WF_F32, c->square ? WF_SHAPE(c->square, c->square) : WF_SHAPE(2));
        for (int64_t i = 0; i < c->square * c->square; i++) wf_tensor_set(own[n], i, 1);
        if (c->square) wf_tensor_set(own[n], (c->square - 1) * c->square, 1 + c->by);
        item[n] = (wf_st_item){c->add, own[n]};
        n++;
    }
    const char *key[2] = {"module", "config"},
               *text[2] = {c->module ? c->module : wf_st_meta(&f, "module"), c->config ? c->config : wf_st_meta(&f, "config")};
    snprintf(made, sizeof made, "%s/case.safetensors", test_folder());
    MUST(wf_st_save(made, item, n, key, text, c->no_config ? 1 : 2));
    for (int i = 0; i < n; i++) wf_tensor_free(own[i]);
    wf_st_close(&f);
}

static void expect(const char *from, change c, wf_verdict verdict, const char *reason) {
    make(from, &c);
    wf_check_result r;
    wf_check_file(made, false, &r);
    if (r.verdict != verdict)
        fail_msg("%s, not %s (%s)", wf_verdict_name(r.verdict), wf_verdict_name(verdict), r.reason ? r.reason : "");
    if (reason && (!r.reason || !strstr(r.reason, reason)))
        fail_msg("reason '%s' lacks '%s'", r.reason ? r.reason : "", reason);
    wf_check_free(&r);
}

static const char gqa[] = "tests/golden/00-attention-baseline/gqa_rope_half.safetensors";
static const char gpt2[] = "tests/golden/00-vision-baseline/gpt2_hf_layout.safetensors";
static const char batch[] = "tests/golden/00-norms-baseline/batchnorm_tokens.safetensors";
static const char alibi[] = "tests/golden/00-attention-baseline/alibi_causal_6heads.safetensors";

static void wrong_numbers_fail(void **state) {
    expect(gqa, (change){0}, WF_CHECK_PASSED, NULL);
    expect(gqa, (change){.touch = "out.y", .by = 1e-3}, WF_CHECK_FAILED, NULL);
    expect(gqa, (change){.touch = "in.x", .by = 1e-3}, WF_CHECK_FAILED, NULL);
    expect(gqa, (change){.touch = "grad.param.q_proj.weight", .by = 0.05}, WF_CHECK_FAILED, NULL);
    expect(gqa, (change){.touch = "out.k_cache", .by = 1e-3}, WF_CHECK_FAILED, NULL);
    expect(alibi, (change){.touch = "grad.param.k_proj.bias", .by = 1e-3}, WF_CHECK_FAILED, NULL); /* truly zero */
    expect(gpt2, (change){.touch = "out.greedy", .by = 1}, WF_CHECK_FAILED, NULL);
    expect(gpt2, (change){.touch = "param.transformer.h.1.mlp.c_proj.bias", .by = 0.01}, WF_CHECK_FAILED, NULL);
    expect(batch, (change){.touch = "out.buf.running_var_2", .by = 1e-3}, WF_CHECK_FAILED, NULL);
    expect(batch, (change){.touch = "in.buf.running_mean", .by = 1e-2}, WF_CHECK_FAILED, NULL);
}

static void wrong_options_fail(void **state) {
    expect(gqa,
           (change){.config = "{\"heads\": 4, \"kv_heads\": 2, \"head_dim\": 6, \"rope\": \"interleaved\", \"rope_dim\": 6, "
                              "\"rope_base\": 10000, "
                              "\"position_offset\": 0, \"causal\": true}"},
           WF_CHECK_FAILED, NULL);
    expect(
        gqa,
        (change){
            .config =
                "{\"heads\": 4, \"kv_heads\": 2, \"head_dim\": 6, \"rope\": \"half\", \"rope_base\": 100, \"causal\": true}"},
        WF_CHECK_FAILED, NULL);
    expect(gqa, (change){.config = "{\"heads\": 4, \"kv_heads\": 2, \"head_dim\": 6, \"rope\": \"half\", \"causal\": false}"},
           WF_CHECK_FAILED, NULL);
    expect(gqa, (change){.config = "{\"heads\": 4, \"kv_heads\": 2, \"rope\": \"half\", \"causal\": true}"}, WF_CHECK_PASSED,
           NULL); /* the rest follows */
}

static void a_mask_hides_beside_what_the_options_hide(void **state) {
    static const char core[] = "tests/golden/00-attention-baseline/flash_causal.safetensors";
    expect(gqa, (change){.add = "in.mask", .square = 7}, WF_CHECK_PASSED, NULL);
    expect(gqa, (change){.add = "in.mask", .square = 7, .by = -1}, WF_CHECK_FAILED, NULL);
    expect(gqa, (change){.add = "in.mask", .square = 6}, WF_CHECK_UNUSABLE, NULL);
    expect(core, (change){.add = "in.mask", .square = 9}, WF_CHECK_PASSED, NULL);
    expect(core, (change){.add = "in.mask", .square = 9, .by = -1}, WF_CHECK_FAILED, NULL);
}

static void unusable_files_say_why(void **state) {
    expect(gqa, (change){.config = "{\"heads\": 5, \"kv_heads\": 2}"}, WF_CHECK_UNUSABLE, "'kv_heads' 2 must divide 'heads' 5");
    expect(gqa, (change){.config = "{\"heads\": 5}"}, WF_CHECK_UNUSABLE, "do not make");
    expect(gqa, (change){.config = "{\"heads\": 4, \"kv_heads\": 2, \"rope\": \"half\", \"causal\": true, \"sharpness\": 3}"},
           WF_CHECK_UNUSABLE, "'sharpness' is not known");
    expect(gqa, (change){.config = "{\"heads\": 4, \"kv_heads\": 2, \"rope\": \"sideways\", \"causal\": true}"},
           WF_CHECK_UNUSABLE, "'rope' is 'sideways'");
    expect(gqa, (change){.config = "{\"heads\": \"four\"}"}, WF_CHECK_UNUSABLE, "'heads' must be a whole number");
    expect(gqa, (change){.config = "{\"heads\": 4,"}, WF_CHECK_UNUSABLE, "config");
    expect(gqa, (change){.config = "[4]"}, WF_CHECK_UNUSABLE, "not a JSON object");
    expect(gqa, (change){.no_config = true}, WF_CHECK_UNUSABLE, "no config");
    expect(gqa, (change){.module = "attention.sideways"}, WF_CHECK_NOT_YET, "not yet supported");
    expect(gqa, (change){.module = ""}, WF_CHECK_UNUSABLE, "names no module");
    expect(gqa, (change){.drop = "in.x"}, WF_CHECK_UNUSABLE, "'in.x' is missing");
    expect(gqa, (change){.drop = "param.v_proj.weight"}, WF_CHECK_UNUSABLE, "'v_proj.weight' is missing");
    expect(gqa, (change){.add = "param.gate"}, WF_CHECK_UNUSABLE, "'gate' has no place");
    expect(gqa, (change){.add = "in.gate"}, WF_CHECK_UNUSABLE, "'in.gate' has no meaning");
    expect(gqa, (change){.add = "in.mask"}, WF_CHECK_UNUSABLE, "in.mask must be [L,S]");
    expect(gqa, (change){.add = "out.entropy"}, WF_CHECK_UNUSABLE, "expects 'out.entropy'");
    expect(gpt2, (change){.drop = "param.transformer.h.0.ln_1.bias"}, WF_CHECK_UNUSABLE, "ln_1.bias");
    wf_check_result r;
    wf_check_file("no/such/file", false, &r);
    assert_int_equal(r.verdict, WF_CHECK_UNUSABLE);
    assert_non_null(strstr(r.reason, "no/such/file"));
    wf_check_free(&r);
    wf_check_file("tests/unit/test_check.c", false, &r);
    assert_int_equal(r.verdict, WF_CHECK_UNUSABLE);
    wf_check_free(&r);
}

static const char macaron[] = "tests/golden/46-macaron/encoder_layer_post_norm.safetensors";
static const char pool[] = "tests/golden/28-metaformer-poolformer/poolformer_block.safetensors";
static const char centred[] = "tests/golden/11-pre-rmsnorm-crmsnorm/linear_zero_mean.safetensors";
static const char sigma[] = "tests/golden/42-sigma-reparam/snlinear_cold_u.safetensors";
static const char unified[] = "tests/golden/03-unified-normalization/calibrated_after_1000.safetensors";
static const char repbn[] = "tests/golden/18-slab/repbn_masked_lm.safetensors";
static const char peri[] = "tests/golden/07-peri-ln/output_only_rms.safetensors";

/* What says nothing of a case's numbers may be said; what contradicts its tensors may not. */
static void options_that_only_describe(void **state) {
    expect(macaron, (change){.config = "{\"heads\": 3, \"dropout\": 0.1, \"attention_dropout\": 0.2, \"eval\": true}"},
           WF_CHECK_PASSED, NULL);
    expect(macaron, (change){.config = "{\"heads\": 3, \"dropout\": 0.1}"}, WF_CHECK_UNUSABLE, "'dropout' is not known");
    expect(macaron, (change){.config = "{\"heads\": 3, \"dropout\": 1.5, \"eval\": true}"}, WF_CHECK_UNUSABLE,
           "'dropout' is not known");
    expect(macaron, (change){.config = "{\"heads\": 3, \"eval\": false}"}, WF_CHECK_UNUSABLE, "'eval' is not known");
    expect(pool, (change){.config = "{\"mlp_ratio\": 2.5, \"layer_scale_init\": 1e-6, \"drop_path_rate\": 0.1}"},
           WF_CHECK_PASSED, NULL);
    expect(pool, (change){.config = "{\"mlp_ratio\": 2.5, \"use_layer_scale\": true}"}, WF_CHECK_PASSED, NULL);
    expect(pool, (change){.config = "{\"mlp_ratio\": 2.5, \"drop_path_rate\": 0.1, \"eval\": false}"}, WF_CHECK_UNUSABLE,
           "'eval' true");
    expect(pool, (change){.config = "{\"mlp_ratio\": 2.5, \"drop_path_rate\": 1}"}, WF_CHECK_UNUSABLE, "below 1");
    expect(centred, (change){.config = "{\"bias\": true}"}, WF_CHECK_PASSED, NULL);
    expect(centred, (change){.config = "{\"bias\": false}"}, WF_CHECK_UNUSABLE, "'bias' is false, but the tensors say true");
    expect(sigma, (change){.config = "{\"steps\": 4, \"bias\": true}"}, WF_CHECK_PASSED, NULL);
    expect(sigma, (change){.config = "{\"steps\": 4, \"stats_only\": true}"}, WF_CHECK_FAILED, NULL); /* gamma's is zero */
    expect(unified,
           (change){.config = "{\"window_fp\": 3, \"window_bp\": 5, \"warmup_iters\": 3, \"steps\": 9, \"initial_iters\": 7}"},
           WF_CHECK_UNUSABLE, "'initial_iters' is 7, but the tensors say");
    expect(repbn, (change){.config = "{\"eps\": 1e-6, \"steps\": 3}"}, WF_CHECK_PASSED, NULL);
    expect(repbn, (change){.config = "{\"eps\": 0.5, \"steps\": 3}"}, WF_CHECK_FAILED, NULL);
    expect(peri,
           (change){.config = "{\"placement\": \"output-only\", \"norm\": \"RMSNorm\", \"H\": 2, \"layers\": 2, \"qk_norm\": "
                              "\"head\"}"},
           WF_CHECK_PASSED, NULL);
}

/* What goes with a tensor that is not there, or is there in another shape, is not taken for granted. */
static void tensors_that_do_not_belong_together_are_refused(void **state) {
    static const char bird[] = "tests/golden/00-attention-baseline/bigbird_itc.safetensors",
                      rep[] = "tests/golden/18-slab/repbn_train_eval.safetensors",
                      norms[] = "tests/golden/00-norms-baseline/token_norms.safetensors";
    expect(alibi, (change){.drop = "param.k_proj.bias"}, WF_CHECK_UNUSABLE, "no 'param.k_proj.bias'");
    expect(alibi, (change){.drop = "out.y"}, WF_CHECK_UNUSABLE, "no 'out.y'");
    expect(alibi, (change){.flatten = "grad.in.x"}, WF_CHECK_UNUSABLE, "'grad.in.x' is [168], 'in.x' is [2, 7, 12]");
    expect(alibi, (change){.flatten = "cot.y"}, WF_CHECK_UNUSABLE, "'cot.y' is [168], its output [2, 7, 12]");
    expect(batch, (change){.config = "{\"steps\": 16777216}"}, WF_CHECK_UNUSABLE, "'in.x_3' is missing");
    expect(bird, (change){.flatten = "in.rand_blocks"}, WF_CHECK_UNUSABLE, "in.rand_blocks must be [2,5,1]");
    expect(rep, (change){.flatten = "out.y_eval"}, WF_CHECK_UNUSABLE, "'out.y_eval' is [70]");
    expect(batch, (change){.flatten = "in.keep_mask"}, WF_CHECK_UNUSABLE, "in.keep_mask must be [B,L]");
    expect(norms, (change){.config = "{\"groups\": 3, \"eps\": {\"groopnorm\": 1}}"}, WF_CHECK_UNUSABLE, "no norm 'groopnorm'");
    expect(norms,
           (change){.config = "{\"groups\": 3, \"eps\": {\"l2norm\": \"max(norm,1e-9)\", \"layernorm_noaffine\": 1e-6, "
                              "\"rmsnorm\": 1e-6}, \"derf_shift\": 0.125}"},
           WF_CHECK_PASSED, NULL);
    expect(norms, (change){.config = "{\"groups\": 3, \"eps\": {\"l2norm\": \"max(norm,x)\"}}"}, WF_CHECK_UNUSABLE,
           "not max(norm,x)");
    expect(norms, (change){.config = "{\"groups\": 3, \"eps\": [1]}"}, WF_CHECK_UNUSABLE, "'eps' must be a number or a map");
    expect(rep, (change){.drop = "in.buf.running_mean"}, WF_CHECK_UNUSABLE, "'in.buf.running_mean' is missing");
    /* A parameter that only the dropped norms used has a gradient of zero; the others' gradients are of more outputs. */
    expect(norms, (change){.drop = "out.dyt cot.dyt out.derf cot.derf"}, WF_CHECK_FAILED, NULL);
}

static void options_that_only_describe_are_read_too(void **state) {
    static const char layer[] = "tests/golden/09-transnormer/layer_t1_norm.safetensors",
                      norm[] = "tests/golden/09-transnormer/norm_bidir_elu.safetensors",
                      cached[] = "tests/golden/43-complexformer/cmha_kv_cache.safetensors",
                      block[] = "tests/golden/47-sigmoid-attention/block_layerscale_rope.safetensors",
                      sla[] = "tests/golden/18-slab/sla_kv_first.safetensors";
    expect(layer, (change){.config = "{\"heads\": 3, \"kind\": \"norm\"}"}, WF_CHECK_UNUSABLE, "'kind' is 'norm'");
    expect(layer, (change){.config = "{\"heads\": 3, \"diag_act\": \"tanh\"}"}, WF_CHECK_UNUSABLE, "'diag_act' is 'tanh'");
    expect(layer, (change){.config = "{\"heads\": 3, \"glu_act\": []}"}, WF_CHECK_UNUSABLE, "'glu_act' must start");
    expect(layer, (change){.config = "{\"heads\": 3, \"glu_hidden\": 31}"}, WF_CHECK_UNUSABLE, "'glu_hidden' is 31");
    expect(layer, (change){.config = "{\"heads\": 3, \"block\": 0}"}, WF_CHECK_UNUSABLE, "'block' must be at least 1");
    expect(layer, (change){.config = "{\"heads\": 3, \"lrpe\": 7}"}, WF_CHECK_UNUSABLE, "'lrpe' must be");
    expect(norm, (change){.config = "{\"heads\": 3, \"lrpe\": true}"}, WF_CHECK_UNUSABLE, "do not agree");
    expect(sla, (change){.config = "{\"heads\": 3, \"path\": \"vk\"}"}, WF_CHECK_UNUSABLE, "'path' is 'vk'");
    expect(cached, (change){.config = "{\"heads\": 3, \"prefill\": 4, \"causal\": false}"}, WF_CHECK_UNUSABLE,
           "'causal' must be true");
    expect(block, (change){.config = "{\"heads\": 3, \"layer_scale\": false}"}, WF_CHECK_UNUSABLE, "do not agree");
}

/* Every module gets every option map of the golden files of other modules: an error or a verdict, never a crash. */
static void strange_combinations_do_not_crash(void **state) {
    static const char *const configs[] = {
        "{}",
        "{\"heads\": 0}",
        "{\"heads\": 2, \"block\": 0}",
        "{\"heads\": 1, \"block\": 16777216}",
        "{\"length\": 0, \"width\": 0}",
        "{\"eps\": -1, \"groups\": 0}",
        "{\"bucket_size\": 0}",
        "{\"vocab_size\": 0}",
        "{\"vocab_size\": 16777216, \"n_layer\": 100000, \"n_embd\": 8, \"n_head\": 2}",
        "{\"image\": [0, 4], \"patch\": 0}",
        "{\"image\": 12, \"patch\": 4, \"dim\": 12, \"heads\": 5}",
        "{\"vocab_size\": 16777216, \"n_layer\": 1, \"n_embd\": 16777216, \"n_head\": 1, \"block_size\": 16777216}",
        "{\"interp\": \"1x1->\", \"h\": 100000, \"w\": 100000, \"d\": 4}",
        "{\"placement\": \"pre\", \"H\": 7, \"layers\": 0}",
        "{\"mode\": \"l2\", \"H\": 0, \"eps\": null}",
        "{\"heads\": 3, \"k\": 4, \"length\": 99}"};
    static const char *const files[] = {gqa, gpt2, "tests/golden/00-attention-baseline/bigbird_itc.safetensors",
                                        "tests/golden/00-vision-baseline/vit_class_token.safetensors",
                                        "tests/golden/00-vision-baseline/positions_and_augment.safetensors"};
    int n;
    const char *const *modules = wf_check_modules(&n);
    assert_true(n >= 20);
    for (size_t f = 0; f < sizeof files / sizeof *files; f++)
        for (int m = 0; m < n; m++)
            for (size_t k = 0; k < sizeof configs / sizeof *configs; k++) {
                change c = {.config = configs[k], .module = modules[m]};
                make(files[f], &c);
                wf_check_result r;
                wf_check_file(made, false, &r);
                if (r.verdict == WF_CHECK_UNUSABLE && (!r.reason || !*r.reason))
                    fail_msg("%s %s: no reason", modules[m], configs[k]);
                wf_check_free(&r);
            }
}

static int clean(void **state) {
    test_folder_remove();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_golden_cases_pass),
        cmocka_unit_test(all_golden_cases_pass_in_float64),
        cmocka_unit_test(wrong_numbers_fail),
        cmocka_unit_test(wrong_options_fail),
        cmocka_unit_test(unusable_files_say_why),
        cmocka_unit_test(strange_combinations_do_not_crash),
        cmocka_unit_test(a_mask_hides_beside_what_the_options_hide),
        cmocka_unit_test(tensors_that_do_not_belong_together_are_refused),
        cmocka_unit_test(options_that_only_describe_are_read_too),
        cmocka_unit_test(options_that_only_describe),
    };
    return cmocka_run_group_tests(tests, NULL, clean);
}
