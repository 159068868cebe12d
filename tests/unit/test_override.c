/* test_override.c: the entry `parts` of a recipe: what single modules are instead, which entry holds, what fits nothing. */
#include "parts_help.h"

static const char start[] = "name: lm, vocab: 9, length: 8, width: 12, layers: 3, mixer: {name: softmax, heads: 2}, ";

static wf_model *with(const char *parts) {
    char text[1024];
    snprintf(text, sizeof text, "{%sparts: %s}", start, parts);
    return model_of(text, 1);
}

static void refuse(const char *parts, const char *message) {
    char text[1024];
    snprintf(text, sizeof text, "{%sparts: %s}", start, parts);
    refused(text, message);
}

static wf_module *at(wf_model *m, const char *path) {
    wf_module *x = m->root;
    char word[64];
    while (x && *path) {
        size_t n = strcspn(path, ".");
        snprintf(word, sizeof word, "%.*s", (int)n, path);
        x = wf_module_find(x, word);
        path += n + (path[n] == '.');
    }
    if (!x) fail_msg("no module");
    return x;
}

static void patterns_fit_word_by_word(void **state) {
    assert_int_equal(wf_path_fits("blocks.0.mixer", "blocks.0.mixer"), 0);
    assert_int_equal(wf_path_fits("blocks.*.mixer", "blocks.0.mixer"), 1);
    assert_int_equal(wf_path_fits("*.*.*", "blocks.0.mixer"), 3);
    assert_int_equal(wf_path_fits("*", "head"), 1);
    static const char *const not [] = {"",
                                       "*",
                                       "blocks",
                                       "blocks.*",
                                       "blocks.*.mixer.q",
                                       "blocks.*.mix",
                                       "blocks.*.mixer.",
                                       ".blocks.0.mixer",
                                       "blocks.**.mixer",
                                       "blocks.0*.mixer",
                                       "blocks..mixer",
                                       "..",
                                       "*.*"};
    for (size_t i = 0; i < sizeof not / sizeof *not ; i++)
        if (wf_path_fits(not [i], "blocks.0.mixer") >= 0) fail_msg("'%s' fits", not [i]);
    assert_int_equal(wf_path_fits("*", ""), -1);
    char s[32];
    wf_path_starred("blocks.12.mixer.q", s, sizeof s);
    assert_string_equal(s, "blocks.*.mixer.q");
    wf_path_starred("a.b1.2c.3", s, sizeof s);
    assert_string_equal(s, "a.b1.2c.*");
    wf_path_starred("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", s, sizeof s);
    assert_true(strlen(s) < sizeof s);
}

static void single_modules_can_be_chosen(void **state) {
    wf_model *m = with("{\"blocks.*.mixer_in_norm\": none, \"blocks.1.channel_in_norm\": {name: rmsnorm, eps: 0.5}, "
                       "head: {bias: true}, final_norm: {affine: false}}");
    assert_string_equal(at(m, "blocks.2.mixer_in_norm")->part->name, "none");
    assert_string_equal(at(m, "blocks.1.channel_in_norm")->part->name, "rmsnorm");
    assert_string_equal(at(m, "blocks.0.channel_in_norm")->part->name, "layernorm");
    assert_int_equal(at(m, "final_norm")->n_param, 0);
    assert_non_null(wf_model_param(m, "head.bias"));
    wf_model_free(m);
}

static void a_map_without_a_name_changes_options_and_another_name_the_part(void **state) {
    wf_model *m = with("{\"blocks.*.mixer\": {head_dim: 5}, \"blocks.0.mixer\": linear, \"blocks.1.mixer\": softmax}");
    wf_module *q = at(m, "blocks.2.mixer.q");
    assert_int_equal(q->out, 10); /* heads: 2 stands */
    assert_string_equal(at(m, "blocks.0.mixer")->part->name, "linear");
    assert_int_equal(at(m, "blocks.1.mixer.q")->out, 12); /* the same part, nothing changed; the more exact entry holds alone */
    wf_model_free(m);
    m = with("{\"blocks.*.mixer.q\": {bias: false}, \"blocks.0.*.q\": {bias: true}, \"blocks.0.mixer.o\": {bias: false}}");
    assert_int_equal(at(m, "blocks.0.mixer.q")->n_param, 2); /* one * each: the later holds */
    assert_int_equal(at(m, "blocks.1.mixer.q")->n_param, 1);
    assert_int_equal(at(m, "blocks.0.mixer.o")->n_param, 1);
    wf_model_free(m);
}

static void layer_scales_can_be_left_out(void **state) {
    wf_model *m = with("{\"blocks.*.mixer_scale\": none}, layer_scale: 0.5");
    assert_non_null(wf_model_param(m, "blocks.0.channel_scale"));
    assert_null(wf_model_param(m, "blocks.0.mixer_scale"));
    wf_model_free(m);
}

static void what_fits_nothing_or_makes_no_sense_is_refused(void **state) {
    refuse("{\"blocks.*.mixer_in_nrom\": none}", "did you mean 'blocks.*.mixer_in_norm'");
    refuse("{\"blocks.7.mixer\": linear}", "test.yaml:1: parts: 'blocks.7.mixer'");
    refuse("{\"\": none}", "is no module");
    refuse("{\"blocks\": [plain]}", "must be a name or a map");
    refuse("[none]", "a map of module paths");
    refuse("none", "a map of module paths");
    refuse("{final_norm: nome}", "did you mean 'none'");
    refuse("{final_norm: null}", "must be a name or a map");
    refuse("{\"blocks.*.mixer.q\": {biass: true}}", "did you mean 'bias'");
    refuse("{\"blocks.*.mixer\": {heads: 5}}", "'heads' must divide the width");
    refuse("{\"blocks.*.mixer\": {name: [1]}}", "test.yaml:1: mixer: a name is a word");
    refuse("{\"blocks.0\": none}", "is no module");
    wf_text t = {0};
    wf_text_add(&t, "{%sparts: {", start);
    for (int i = 0; i < 5000; i++) wf_text_add(&t, "\"blocks.%d.mixer\": linear, ", i);
    wf_text_add(&t, "head: {bias: true}}}");
    refused(t.s, "more than 4096");
    wf_text_free(&t);
}

/* Any bytes in a key or a value: refused or built, never a crash. */
static void hostile_entries_do_no_harm(void **state) {
    static const char bits[] = "blocks.*0123mixernormqkvo_ind{}:,[]\"'\\. ";
    wf_rng r = {5, 0, 0};
    for (int i = 0; i < 3000; i++) {
        char key[40], value[40], text[512];
        size_t n = wf_rng_below(&r, 30), k = wf_rng_below(&r, 30);
        for (size_t j = 0; j < n; j++) key[j] = bits[wf_rng_below(&r, sizeof bits - 1)];
        for (size_t j = 0; j < k; j++) value[j] = bits[wf_rng_below(&r, sizeof bits - 1)];
        key[n] = value[k] = 0;
        snprintf(text, sizeof text, "{%sparts: {\"%s\": %s}}", start, i % 3 ? key : "blocks.*.mixer", value);
        wf_value *v = wf_yaml_parse(text, strlen(text), "fuzz.yaml");
        wf_model *m = v ? wf_model_build(v, 1 << 20) : NULL;
        if (v && !m) assert_true(*wf_message() != 0);
        wf_model_free(m);
        wf_value_free(v);
    }
}

static void a_model_with_parts_survives_its_file(void **state) {
    wf_model *m = with("{\"blocks.*.mixer_in_norm\": {name: rmsnorm, eps: 0.001}, head: {bias: true}}");
    stir(m, 0.3);
    char path[300];
    snprintf(path, sizeof path, "%s/parts.safetensors", test_folder());
    MUST(wf_model_save(m, path, WF_F32, NULL, NULL, 0));
    wf_model *l = wf_model_load(path);
    if (!l) fail_msg("%s", wf_message());
    wf_tensor *ids = rn_random(WF_I32, WF_SHAPE(2, 8), 3, 9), *a = run_forward(m, ids, NULL), *b = run_forward(l, ids, NULL);
    assert_close(b, a, 0, "loaded");
    wf_tensor_free(ids);
    wf_tensor_free(a);
    wf_tensor_free(b);
    wf_model_free(m);
    wf_model_free(l);
    test_folder_remove();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_fit_word_by_word),
        cmocka_unit_test(single_modules_can_be_chosen),
        cmocka_unit_test(a_map_without_a_name_changes_options_and_another_name_the_part),
        cmocka_unit_test(layer_scales_can_be_left_out),
        cmocka_unit_test(what_fits_nothing_or_makes_no_sense_is_refused),
        cmocka_unit_test(hostile_entries_do_no_harm),
        cmocka_unit_test(a_model_with_parts_survives_its_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
