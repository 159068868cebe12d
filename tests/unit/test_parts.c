/* test_parts.c: parts one by one: the catalogue, norms, positions, mixers in forward and step form, errors. */
#include "mixers_help.h"

#include "part/position/position.h"

#include <math.h>

/* ---- catalogue ---- */

static void every_part_is_documented(void **state) {
    int n;
    const wf_part *const *p = wf_part_all(&n);
    assert_true(n > 20);
    for (int i = 0; i < n; i++) {
        if (!p[i]->title || !*p[i]->title || !p[i]->formula || !*p[i]->formula || !p[i]->facts || !p[i]->cost || !*p[i]->cost ||
            !p[i]->paper || !p[i]->golden || !p[i]->sheet)
            fail_msg("%s.%s lacks a documentation field", p[i]->slot, p[i]->name);
        for (int j = 0; j < i; j++)
            if (!strcmp(p[i]->slot, p[j]->slot) && !strcmp(p[i]->name, p[j]->name))
                fail_msg("%s.%s is there twice", p[i]->slot, p[i]->name);
        for (const wf_option *o = p[i]->options; o && o->name; o++)
            if (!o->help || !*o->help || o->offset >= p[i]->opt_size)
                fail_msg("%s.%s: option %s", p[i]->slot, p[i]->name, o->name);
        assert_ptr_equal(wf_part_find(p[i]->slot, p[i]->name), p[i]);
    }
}

static void an_unknown_part_names_the_nearest(void **state) {
    assert_null(wf_part_find("mixer", "softmx"));
    MESSAGE_HAS("did you mean 'softmax'");
    refused("{name: lm, vocab: 8, length: 4, mixer: softmx}", "test.yaml:1");
    refused("{name: lm, vocab: 8, length: 4, norm: {name: rmsnrm}}", "did you mean 'rmsnorm'");
    refused("{name: lm, vocab: 8, length: 4, mixer: [[softmax]]}", "a name or a map");
}

static void wrong_options_are_refused_with_place_and_fix(void **state) {
    refused("{name: lm, vocab: 8, length: 4, width: 64, mixer: {name: softmax, heads: 10}}",
            "'heads' must divide the width (10 does not divide 64)");
    refused("{name: lm, vocab: 8, length: 4, width: 64, mixer: {name: softmax, heads: 8, kv_heads: 3}}",
            "test.yaml:1: mixer.softmax at blocks.0.mixer");
    refused("{name: lm, vocab: 8, length: 4, width: 64, mixer: {name: softmax, head: 8}}", "did you mean 'heads'");
    refused("{name: lm, vocab: 8, length: 4, width: 64, position: {name: rope, dim: 3}, mixer: {name: softmax, heads: 8}}",
            "must be even");
    refused("{name: lm, vocab: 8, length: 4, width: 64, position: alibi, mixer: linear}", "needs scores");
    refused("{name: lm, length: 4}", "'vocab' is missing");
    refused("{name: lm, vocab: 4}", "'length' (the context) is missing");
    refused("{name: lm, vocab: 8, length: 4, norm: {name: groupnorm, over: sample}}", "causal");
    refused("{name: vit, image_height: 8, channels: 1}", "'classes' is missing");
    refused("{name: vit, image_height: 3, channels: 1, classes: 2, patch: 4}", "does not fit");
    refused(
        "{name: vit, image_height: 8, channels: 1, classes: 2, width: 18, positions: mae, mixer: {name: softmax, heads: 2}}",
        "multiple of 4");
    refused("{width: 3}", "has no name");
}

/* A mixer that cannot do what the model asks: made here, as all present ones can do both. */
static const wf_part one_way = {.slot = "mixer", .name = "one-way-for-test", .causal_ok = true};

static void a_mixer_must_suit_the_model(void **state) {
    static bool once;
    if (!once) wf_part_register_model(&one_way);
    once = true;
    refused("{name: vit, image_height: 8, channels: 1, classes: 2, mixer: one-way-for-test}",
            "only works from left to right; take mixer: softmax");
    refused("{name: vit, image_height: 8, channels: 1, classes: 2, mixer: one-way-for-test}", "test.yaml:1");
    refused("{name: lm, vocab: 8, length: 4, mixer: one-way-for-test, placement: nowhere}", "there is no placement 'nowhere'");
}

/* ---- norms ---- */

static wf_tensor *moved(const wf_tensor *x, double scale, double shift) {
    wf_tensor *y = wf_tensor_new(x->dtype, x->shape);
    for (int64_t i = 0; i < wf_tensor_count(x); i++) wf_tensor_set(y, i, scale * wf_tensor_get(x, i) + shift);
    return y;
}

static void same_output(const char *slot, const char *a, const char *b, wf_tensor *x, wf_tensor *y, double bound) {
    int64_t D = x->shape.dim[x->shape.rank - 1];
    wf_model *ma = part_of(slot, a, D, false, 0), *mb = part_of(slot, b, D, false, 0);
    wf_tensor *u = run_forward(ma, x, NULL), *v = run_forward(mb, y, NULL);
    assert_close(u, v, bound, a);
    wf_tensor_free(u);
    wf_tensor_free(v);
    wf_model_free(ma);
    wf_model_free(mb);
}

static void norms_have_their_invariances(void **state) {
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 3, 12), 5, 0), *up = moved(x, 1, 40), *big = moved(x, 50, 0);
    same_output("norm", "layernorm", "layernorm", x, up, 1e-4);
    same_output("norm", "{name: layernorm, eps: 1e-12}", "{name: layernorm, eps: 1e-12}", x, big, 1e-5);
    same_output("norm", "{name: rmsnorm, eps: 1e-12}", "{name: rmsnorm, eps: 1e-12}", x, big, 1e-5);
    same_output("norm", "rmsnorm", "{name: rmsnorm, one_plus_w: true}", x, x, 0);
    same_output("norm", "layernorm", "{name: groupnorm, groups: 1}", x, x, 1e-6);
    same_output("norm", "l2norm", "l2norm", x, big, 1e-6);
    same_output("norm", "none", "none", x, x, 0);
    wf_tensor *l = NULL;
    wf_model *m = part_of("norm", "{name: layernorm, affine: false}", 12, false, 0);
    assert_int_equal(m->n_param, 0);
    l = run_forward(m, x, NULL); /* LN is RMSNorm of the centred token */
    for (int64_t r = 0; r < 6; r++) {
        double sum = 0, square = 0;
        for (int64_t i = 0; i < 12; i++) sum += wf_tensor_get(l, r * 12 + i), square += pow(wf_tensor_get(l, r * 12 + i), 2);
        assert_true(fabs(sum) < 1e-5 && fabs(square / 12 - 1) < 1e-3);
    }
    wf_tensor_free(l);
    wf_tensor_free(x);
    wf_tensor_free(up);
    wf_tensor_free(big);
    wf_model_free(m);
}

static void batchnorm_learns_its_statistics(void **state) {
    wf_model *m = part_of("norm", "{name: batchnorm, momentum: 0.5}", 3, false, 0);
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(4, 5, 3), 3, 0), *batch = moved(x, 2, 7);
    run_spec train = {.train = true};
    double before = 7;
    for (int step = 0; step < 3; step++) { /* one repeated batch: the distance to its mean shrinks by 1 - momentum */
        wf_tensor_free(run_forward(m, batch, &train));
        double mean = 0;
        for (int64_t i = 0; i < 20; i++) mean += wf_tensor_get(batch, i * 3) / 20;
        double gap = fabs(wf_tensor_get(wf_model_param(m, "running_mean")->value, 0) - mean);
        if (step) assert_true(fabs(gap / before - 0.5) < 1e-4);
        before = gap;
    }
    assert_int_equal(wf_model_count(m), 6); /* buffers are not trained */
    wf_tensor_free(x);
    wf_tensor_free(batch);
    wf_model_free(m);
}

/* ---- positions ---- */

static void slopes_of_alibi(void **state) {
    double s[12];
    wf_alibi_slopes(8, s);
    assert_true(s[0] == 0.5 && fabs(s[7] - 1.0 / 256) < 1e-15);
    wf_alibi_slopes(6, s); /* four of H = 4, then the 1st and 3rd of H = 8 */
    assert_true(fabs(s[0] - 0.25) < 1e-15 && fabs(s[3] - 1.0 / 256) < 1e-15 && fabs(s[4] - 0.5) < 1e-15 &&
                fabs(s[5] - 0.125) < 1e-15);
}

static void rope_depends_on_distance_alone(void **state) {
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(1, 9, 16), 8, 0);
    same_output("mixer", "{name: softmax, heads: 2, position: rope}",
                "{name: softmax, heads: 2, position: {name: rope, offset: 1000}}", x, x, 1e-5);
    same_output("mixer", "{name: softmax, heads: 2, position: {name: rope, style: interleaved}}",
                "{name: softmax, heads: 2, position: {name: rope, style: interleaved, offset: 100000}}", x, x, 1e-4);
    wf_tensor_free(x);
}

static void a_sequence_beyond_the_table_is_refused(void **state) {
    wf_model *m = model_of("{name: lm, vocab: 8, length: 4, width: 8, layers: 1}", 1);
    wf_tensor *ids = rn_random(WF_I32, WF_SHAPE(1, 5), 1, 8);
    assert_null(run_forward(m, ids, NULL));
    MESSAGE_HAS("longer than the 4 positions");
    wf_tensor_free(ids);
    wf_model_free(m);
}

/* ---- mixers: step against forward, causality, padding ---- */

static const char *const mixers[] = {
    "softmax",
    "{name: softmax, heads: 4}",
    "{name: softmax, heads: 4, kv_heads: 2, head_dim: 6, position: rope}",
    "{name: softmax, heads: 3, kv_heads: 1, head_dim: 4, position: {name: rope, style: interleaved, dim: 2, offset: 5}}",
    "{name: softmax, heads: 3, head_dim: 4, position: alibi}",
    "{name: softmax, heads: 2, window: 3}",
    "{name: softmax, heads: 2, window: 1}",
    "{name: softmax, heads: 2, window: 4, position: rope}",
    "{name: softmax, heads: 2, window: 4, position: alibi}",
    "{name: softmax, heads: 2, window: 100}",
    "{name: softmax, heads: 2, qk_norm: rms_head}",
    "{name: softmax, heads: 2, qk_norm: ln_head, qk_norm_bias: true}",
    "{name: softmax, heads: 2, qk_norm: rms_full, position: rope}",
    "{name: softmax, heads: 2, qk_norm: l2, bias: false}",
    "linear",
    "{name: linear, heads: 3, head_dim: 4, position: rope, eps: 0.001}",
};
enum { N_MIXERS = sizeof mixers / sizeof *mixers };

static void step_equals_forward(void **state) {
    for (int i = 0; i < N_MIXERS; i++) steps_are_forward(stirred(mixers[i]), mixers[i], 2e-5);
}

static void causal_mixers_do_not_look_ahead(void **state) {
    for (int i = 0; i < N_MIXERS; i++) does_not_look_ahead(stirred(mixers[i]), mixers[i], 0);
}

static void padding_does_not_matter(void **state) {
    wf_tensor *lengths = wf_tensor_new(WF_I32, WF_SHAPE(2));
    wf_tensor_set(lengths, 0, 4);
    wf_tensor_set(lengths, 1, 7);
    for (int i = 0; i < 2 * N_MIXERS; i++) {
        wf_model *m = part_of("mixer", mixers[i / 2], 12, i % 2, 16);
        stir(m, 0.3);
        run_spec o = {.lengths = lengths};
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 7, 12), 4, 0), *y = run_forward(m, x, &o);
        for (int64_t j = 4 * 12; j < 7 * 12; j++) wf_tensor_set(x, j, 5 - wf_tensor_get(x, j));
        wf_tensor *z = run_forward(m, x, &o);
        for (int64_t j = 0; j < 14 * 12; j++)
            if ((j < 4 * 12 || j >= 7 * 12) && wf_tensor_get(y, j) != wf_tensor_get(z, j))
                fail_msg("%s: padding matters", mixers[i / 2]);
        wf_tensor_free(x);
        wf_tensor_free(y);
        wf_tensor_free(z);
        wf_model_free(m);
    }
    wf_tensor_free(lengths);
}

static void grouped_heads_with_repeated_weights_are_heads(void **state) {
    wf_model *g = part_of("mixer", "{name: softmax, heads: 4, kv_heads: 2}", 8, true, 16),
             *f = part_of("mixer", "{name: softmax, heads: 4}", 8, true, 16);
    stir(g, 0.4);
    static const char *const same[] = {"q.weight", "q.bias", "o.weight", "o.bias"}, *const split[] = {"k.weight", "k.bias",
                                                                                                      "v.weight", "v.bias"};
    for (int i = 0; i < 4; i++)
        memcpy(wf_model_param(f, same[i])->value->data, wf_model_param(g, same[i])->value->data,
               wf_model_param(g, same[i])->value->bytes);
    for (int i = 0; i < 4; i++) {
        wf_tensor *a = wf_model_param(g, split[i])->value, *b = wf_model_param(f, split[i])->value;
        int64_t head = wf_tensor_count(a) / 2;
        for (int64_t j = 0; j < wf_tensor_count(b); j++)
            wf_tensor_set(b, j, wf_tensor_get(a, j / (2 * head) * head + j % head));
    }
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 6, 8), 2, 0), *y = run_forward(g, x, NULL), *z = run_forward(f, x, NULL);
    assert_close(y, z, 1e-6, "grouped");
    wf_tensor_free(x);
    wf_tensor_free(y);
    wf_tensor_free(z);
    wf_model_free(g);
    wf_model_free(f);
}

static void a_wide_window_is_no_window(void **state) {
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 9, 12), 8, 0);
    same_output("mixer", "{name: softmax, heads: 2}", "{name: softmax, heads: 2, window: 9}", x, x, 1e-6);
    same_output("mixer", "{name: softmax, heads: 2, kv_heads: 2}", "{name: softmax, heads: 2, window: 1000}", x, x, 1e-6);
    wf_model *a = part_of("mixer", "{name: softmax, heads: 2}", 12, true, 9),
             *b = part_of("mixer", "{name: softmax, heads: 2, window: 8}", 12, true, 9);
    wf_tensor *y = run_forward(a, x, NULL), *z = run_forward(b, x, NULL);
    for (int64_t i = 0; i < 18 * 12; i++) /* only the last token of nine misses one */
        if (i / 12 % 9 < 8) assert_true(fabs(wf_tensor_get(y, i) - wf_tensor_get(z, i)) < 1e-6);
    assert_true(rn_error(y, z) > 1e-7);
    wf_tensor_free(x);
    wf_tensor_free(y);
    wf_tensor_free(z);
    wf_model_free(a);
    wf_model_free(b);
}

/* ---- channel mixers, dropout ---- */

static void hidden_widths(void **state) {
    struct {
        const char *text;
        int64_t hidden;
    } cases[] = {{"mlp", 48},
                 {"{name: mlp, ratio: 2.5}", 30},
                 {"{name: mlp, hidden: 7}", 7},
                 {"swiglu", 32},
                 {"{name: geglu, act: relu, multiple: 1}", 32},
                 {"{name: swiglu, hidden: 5}", 5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        wf_model *m = part_of("channel", cases[i].text, 12, false, 0);
        assert_int_equal(wf_model_param(m, "up.weight")->value->shape.dim[0], cases[i].hidden);
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 3, 12), 1, 0), *y = run_forward(m, x, NULL);
        assert_non_null(y);
        wf_tensor_free(x);
        wf_tensor_free(y);
        wf_model_free(m);
    }
}

static void dropout_is_seeded_and_off_outside_training(void **state) {
    wf_model *m = part_of("channel", "{name: mlp, dropout: 0.5}", 12, false, 0);
    stir(m, 0.3);
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 3, 12), 1, 0), *seed = wf_tensor_new(WF_I32, WF_SHAPE(4));
    run_spec train = {.train = true, .seed = seed};
    wf_tensor *plain = run_forward(m, x, NULL), *a = run_forward(m, x, &train), *b = run_forward(m, x, &train);
    assert_true(rn_error(a, b) == 0 && rn_error(a, plain) > 1e-3);
    wf_tensor_set(seed, 2, 1);
    wf_tensor *c = run_forward(m, x, &train);
    assert_true(rn_error(a, c) > 1e-3);
    train.seed = NULL;
    assert_null(run_forward(m, x, &train));
    MESSAGE_HAS("needs a seed");
    wf_tensor_free(plain);
    wf_tensor_free(a);
    wf_tensor_free(b);
    wf_tensor_free(c);
    wf_tensor_free(x);
    wf_tensor_free(seed);
    wf_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_part_is_documented),
        cmocka_unit_test(an_unknown_part_names_the_nearest),
        cmocka_unit_test(wrong_options_are_refused_with_place_and_fix),
        cmocka_unit_test(norms_have_their_invariances),
        cmocka_unit_test(batchnorm_learns_its_statistics),
        cmocka_unit_test(slopes_of_alibi),
        cmocka_unit_test(rope_depends_on_distance_alone),
        cmocka_unit_test(a_sequence_beyond_the_table_is_refused),
        cmocka_unit_test(step_equals_forward),
        cmocka_unit_test(causal_mixers_do_not_look_ahead),
        cmocka_unit_test(padding_does_not_matter),
        cmocka_unit_test(grouped_heads_with_repeated_weights_are_heads),
        cmocka_unit_test(a_wide_window_is_no_window),
        cmocka_unit_test(hidden_widths),
        cmocka_unit_test(dropout_is_seeded_and_off_outside_training),
        cmocka_unit_test(a_mixer_must_suit_the_model), /* last: it adds a part */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
