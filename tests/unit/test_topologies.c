/* test_topologies.c: how sublayers follow each other: per-block lists and the topologies. */
#include "parts_help.h"

/* ---- lists: block i takes entry floor(i n / layers) ---- */

static const char *mixer_of(const wf_model *m, int block) {
    char name[48];
    snprintf(name, sizeof name, "%d", block);
    wf_module *k = wf_module_find(wf_module_find(m->root, "blocks"), name);
    return wf_module_find(k, "mixer")->part->name;
}

static const char *channel_of(const wf_model *m, int block) {
    char name[48];
    snprintf(name, sizeof name, "%d", block);
    wf_module *k = wf_module_find(wf_module_find(m->root, "blocks"), name);
    return wf_module_find(k, "channel")->part->name;
}

static void a_list_is_stretched_over_the_blocks(void **state) {
    wf_model *m = model_of("{name: lm, vocab: 8, length: 4, width: 8, layers: 5, mixer: [linear, {name: softmax, heads: 2}], "
                           "channel: [mlp, swiglu, geglu]}",
                           1);
    static const char *const mixer[] = {"linear", "linear", "linear", "softmax", "softmax"}, *const channel[] = {
                                                                                                 "mlp", "mlp", "swiglu",
                                                                                                 "swiglu", "geglu"};
    for (int i = 0; i < 5; i++) {
        assert_string_equal(mixer_of(m, i), mixer[i]);
        assert_string_equal(channel_of(m, i), channel[i]);
    }
    assert_int_equal(wf_model_param(m, "blocks.3.mixer.q.weight")->value->shape.dim[0], 8);
    wf_model_free(m);
    m = model_of("{name: lm, vocab: 8, length: 4, width: 8, layers: 3, mixer: [linear]}", 1);
    for (int i = 0; i < 3; i++) assert_string_equal(mixer_of(m, i), "linear");
    wf_model_free(m);
}

static void a_list_longer_than_the_blocks_is_refused(void **state) {
    refused("{name: lm, vocab: 8, length: 4, width: 8, layers: 2, mixer: [linear, softmax, linear]}",
            "'mixer' lists 3 parts for 2 blocks");
    refused("{name: lm, vocab: 8, length: 4, width: 8, layers: 2, channel: [mlp, mlp, mlp]}", "test.yaml:1");
    refused("{name: lm, vocab: 8, length: 4, width: 8, layers: 2, channel: []}", "lists 0 parts");
    refused("{name: lm, vocab: 8, length: 4, width: 8, layers: 2, mixer: [linear, softmx]}", "did you mean 'softmax'");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_is_stretched_over_the_blocks),
        cmocka_unit_test(a_list_longer_than_the_blocks_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
