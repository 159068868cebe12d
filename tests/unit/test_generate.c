/* test_generate.c: picking tokens; sessions: a prompt in one piece, in chunks and token by token give the same logits. */
#include "check.h"

#include "learn/learn.h"
#include "sample/sample.h"

#include <math.h>

/* ---- picking ---- */

static void greedy_takes_the_lower_of_equals(void **state) {
    const float logits[] = {0.5f, 2.0f, 2.0f, NAN, -INFINITY};
    wf_picker *p = wf_picker_new(&(wf_pick_opt){.temperature = 0}, 5, 1);
    assert_non_null(p);
    assert_int_equal(wf_pick(p, logits), 1);
    wf_picker_free(p);
    const float none[] = {NAN, -INFINITY};
    p = wf_picker_new(&(wf_pick_opt){.temperature = 1}, 2, 1);
    assert_int_equal(wf_pick(p, none), -1);
    wf_picker_free(p);
}

/* Frequencies of 20000 draws against probabilities; 5 standard deviations. */
static void check_draws(const wf_pick_opt *opt, const float *logits, const double *want, int n) {
    enum { draws = 20000 };
    int count[16] = {0};
    wf_picker *p = wf_picker_new(opt, n, 7);
    assert_non_null(p);
    for (int i = 0; i < draws; i++) count[wf_pick(p, logits)]++;
    wf_picker_free(p);
    for (int i = 0; i < n; i++) {
        double sd = sqrt(want[i] * (1 - want[i]) / draws), got = (double)count[i] / draws;
        if (want[i] == 0)
            assert_int_equal(count[i], 0);
        else if (fabs(got - want[i]) > 5 * sd)
            fail_msg("token %d: frequency %g, probability %g", i, got, want[i]);
    }
}

static void draws_follow_the_distribution(void **state) {
    const float logits[] = {logf(0.1f), logf(0.4f), logf(0.2f), logf(0.3f)};
    check_draws(&(wf_pick_opt){.temperature = 1}, logits, (const double[]){0.1, 0.4, 0.2, 0.3}, 4);
    double z = 0.01 + 0.16 + 0.04 + 0.09; /* temperature 1/2 squares */
    check_draws(&(wf_pick_opt){.temperature = 0.5}, logits, (const double[]){0.01 / z, 0.16 / z, 0.04 / z, 0.09 / z}, 4);
    check_draws(&(wf_pick_opt){.temperature = 1, .top_k = 2}, logits, (const double[]){0, 4.0 / 7, 0, 3.0 / 7}, 4);
    /* 0.4 + 0.3 reach 0.65 */
    check_draws(&(wf_pick_opt){.temperature = 1, .top_p = 0.65}, logits, (const double[]){0, 4.0 / 7, 0, 3.0 / 7}, 4);
    check_draws(&(wf_pick_opt){.temperature = 1, .top_p = 0.75}, logits, (const double[]){0, 4.0 / 9, 2.0 / 9, 3.0 / 9}, 4);
    check_draws(&(wf_pick_opt){.temperature = 1, .top_k = 3, .top_p = 0.5}, logits, (const double[]){0, 4.0 / 7, 0, 3.0 / 7},
                4);
}

static void ties_at_the_edge_of_top_k_go_to_lower_tokens(void **state) {
    const float logits[] = {1, 1, 1, 1, 1, 1};
    check_draws(&(wf_pick_opt){.temperature = 1, .top_k = 2}, logits, (const double[]){0.5, 0.5, 0, 0, 0, 0}, 6);
}

static void seeds_decide(void **state) {
    const float logits[8] = {0};
    int differ = 0;
    wf_picker *a = wf_picker_new(&(wf_pick_opt){.temperature = 1}, 8, 3),
              *b = wf_picker_new(&(wf_pick_opt){.temperature = 1}, 8, 3),
              *c = wf_picker_new(&(wf_pick_opt){.temperature = 1}, 8, 4);
    for (int i = 0; i < 50; i++) {
        int32_t x = wf_pick(a, logits);
        assert_int_equal(x, wf_pick(b, logits));
        differ += x != wf_pick(c, logits);
    }
    assert_true(differ > 20);
    wf_picker_free(a);
    wf_picker_free(b);
    wf_picker_free(c);
}

static void bad_options_are_refused(void **state) {
    assert_null(wf_picker_new(&(wf_pick_opt){.temperature = -1}, 8, 3));
    assert_null(wf_picker_new(&(wf_pick_opt){.temperature = NAN}, 8, 3));
    assert_null(wf_picker_new(&(wf_pick_opt){.temperature = 1, .top_p = 1.5}, 8, 3));
    assert_null(wf_picker_new(&(wf_pick_opt){.temperature = 1, .top_k = -1}, 8, 3));
    MESSAGE_HAS("top_k");
}

/* ---- sessions ---- */

static wf_model *small_model(const char *more) {
    char *text =
        wf_format("{name: lm, vocab: 256, length: 48, layers: 2, width: 32, mixer: {name: softmax, heads: 4}%s}", more);
    wf_value *v = wf_yaml_parse(text, strlen(text), "test");
    wf_model *m = v ? wf_model_new(v, 5) : NULL;
    if (!m) fail_msg("%s", wf_message());
    wf_value_free(v);
    wf_free(text);
    return m;
}

static double distance(const float *a, const float *b, int64_t n) {
    double d = 0, s = 0;
    for (int64_t i = 0; i < n; i++) d += (a[i] - b[i]) * (a[i] - b[i]), s += b[i] * b[i];
    return sqrt(d / s);
}

static void feed(wf_model *m, const wf_session_opt *opt, const int32_t *t, int64_t n, int64_t piece, float out[256]) {
    wf_session *s = wf_session_new(m, opt);
    if (!s) fail_msg("%s", wf_message());
    for (int64_t i = 0; i < n; i += piece) MUST(wf_session_feed(s, t + i, piece < n - i ? piece : n - i));
    assert_int_equal(wf_session_position(s), n);
    memcpy(out, wf_session_logits(s), 256 * sizeof *out);
    wf_session_free(s);
}

/* Logits of the last position by the whole-sequence form. */
static void whole(wf_model *m, const int32_t *t, int64_t n, float out[256]) {
    wf_tensor *in = wf_tensor_new(WF_I32, WF_SHAPE(1, n));
    memcpy(in->data, t, (size_t)n * sizeof *t);
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_build_start(&b, g);
    b.causal = true;
    wf_node *y =
        wf_contiguous(g, wf_slice(g, wf_cast(g, wf_apply(&b, m->root, wf_leaf(g, in, "tokens")), WF_F32), 1, n - 1, 1));
    if (!y) fail_msg("%s", wf_graph_message(g));
    wf_plan *p = wf_plan_new(g, &y, 1, NULL, 0, NULL);
    if (!p) fail_msg("%s", wf_message());
    MUST(wf_plan_run(p));
    memcpy(out, wf_plan_out(p, 0), 256 * sizeof *out);
    wf_build_end(&b);
    wf_plan_free(p);
    wf_graph_free(g);
    wf_tensor_free(in);
}

static void check_streaming(const char *more) {
    wf_model *m = small_model(more);
    int32_t t[37];
    for (int i = 0; i < 37; i++) t[i] = (i * 73 + 11) % 256;
    float want[256], got[256];
    whole(m, t, 37, want);
    const int64_t piece[] = {1, 37, 16, 5};
    for (int i = 0; i < 4; i++) {
        feed(m, NULL, t, 37, piece[i], got);
        double d = distance(got, want, 256);
        if (!(d < 1e-5)) fail_msg("%s: pieces of %d: logits differ by %g", more, (int)piece[i], d);
    }
    feed(m, &(wf_session_opt){.chunk = 8, .max_length = 37}, t, 37, 37, got);
    assert_true(distance(got, want, 256) < 1e-5);
    feed(m, &(wf_session_opt){.compute = WF_BF16}, t, 37, 1, got);
    double d = distance(got, want, 256);
    if (!(d < 0.05)) fail_msg("%s: bfloat16 logits differ by %g", more, d);
    wf_model_free(m);
}

static void streaming_equals_the_whole(void **state) {
    check_streaming("");
    check_streaming(", position: rope, norm: rmsnorm, channel: swiglu");
    check_streaming(", position: learned, tied: true");
}

static void weights_are_as_before_after_bfloat16(void **state) {
    wf_model *m = small_model("");
    wf_tensor **before = calloc((size_t)m->n_param, sizeof *before);
    for (int i = 0; i < m->n_param; i++) before[i] = m->param[i]->value;
    wf_session *s = wf_session_new(m, &(wf_session_opt){.compute = WF_BF16});
    if (!s) fail_msg("%s", wf_message());
    for (int i = 0; i < m->n_param; i++) {
        assert_ptr_equal(before[i], m->param[i]->value);
        assert_int_equal(before[i]->dtype, WF_F32);
    }
    wf_session_free(s);
    free(before);
    wf_model_free(m);
}

static void a_session_says_what_is_wrong(void **state) {
    wf_model *m = small_model("");
    wf_session *s = wf_session_new(m, &(wf_session_opt){.max_length = 4});
    if (!s) fail_msg("%s", wf_message());
    assert_null(wf_session_logits(s));
    MUST_FAIL(wf_session_feed(s, (int32_t[]){256}, 1), WF_EINVAL, "256");
    MUST_FAIL(wf_session_feed(s, (int32_t[]){-1}, 1), WF_EINVAL, "-1");
    MUST_FAIL(wf_session_feed(s, (int32_t[]){1}, 0), WF_EINVAL, "nothing");
    MUST(wf_session_feed(s, (int32_t[]){1, 2, 3}, 3));
    MUST_FAIL(wf_session_feed(s, (int32_t[]){1, 2}, 2), WF_EINVAL, "room for 4");
    MUST(wf_session_feed(s, (int32_t[]){1}, 1));
    wf_session_reset(s);
    assert_int_equal(wf_session_position(s), 0);
    MUST(wf_session_feed(s, (int32_t[]){1, 2, 3}, 3));
    wf_session_free(s);
    wf_model_free(m);
}

typedef struct taken {
    int n;
    int32_t token[64];
} taken;

static bool take(void *ctx, int32_t token) {
    taken *t = ctx;
    t->token[t->n++] = token;
    return true;
}

static void generating_repeats_with_the_seed(void **state) {
    wf_model *m = small_model("");
    wf_session *s = wf_session_new(m, NULL);
    if (!s) fail_msg("%s", wf_message());
    wf_generate_opt o = {.tokens = 20, .pick = {.temperature = 1}, .seed = 9, .stop = -1};
    taken a = {0}, b = {0}, c = {0};
    wf_generate_report r;
    MUST(wf_generate(s, (int32_t[]){65, 66}, 2, &o, take, &a, &r));
    assert_int_equal(r.tokens, 20);
    assert_int_equal(a.n, 20);
    wf_session_reset(s);
    MUST(wf_generate(s, (int32_t[]){65, 66}, 2, &o, take, &b, NULL));
    assert_memory_equal(a.token, b.token, sizeof a.token);
    wf_session_reset(s);
    o.stop = a.token[3];
    MUST(wf_generate(s, (int32_t[]){65, 66}, 2, &o, take, &c, &r));
    assert_true(c.n <= 3);
    MUST_FAIL(wf_generate(s, NULL, 0, &o, take, &c, &r), WF_EINVAL, "empty");
    wf_session_free(s);
    wf_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_lower_of_equals),
        cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(ties_at_the_edge_of_top_k_go_to_lower_tokens),
        cmocka_unit_test(seeds_decide),
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(streaming_equals_the_whole),
        cmocka_unit_test(weights_are_as_before_after_bfloat16),
        cmocka_unit_test(a_session_says_what_is_wrong),
        cmocka_unit_test(generating_repeats_with_the_seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
