/* test_api.c: the public C interface as a stranger would use it, misuse included. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <weft.h>

static const char recipe[] = "model: {name: lm, width: 32, layers: 2, vocab: 50, length: 16, mixer: {name: softmax, heads: 4}, "
                             "norm: rmsnorm, position: rope}";

static weft_model *build(void) {
    weft_model *m = NULL;
    if (weft_build(recipe, 7, &m) != WEFT_OK) fail_msg("%s", weft_message());
    assert_non_null(m);
    return m;
}

static void test_run(void **state) {
    (void)state;
    weft_model *m = build();
    int64_t V = 0;
    assert_int_equal(weft_output_size(m, &V), WEFT_OK);
    assert_int_equal(V, 50);
    const int32_t tokens[6] = {1, 2, 3, 4, 5, 6};
    float a[6 * 50], b[6 * 50];
    if (weft_run_tokens(m, tokens, 2, 3, a, 300) != WEFT_OK) fail_msg("%s", weft_message());
    assert_int_equal(weft_run_tokens(m, tokens + 3, 1, 3, b, 300), WEFT_OK); /* another shape: another plan */
    for (int i = 0; i < 150; i++) assert_true(fabsf(a[150 + i] - b[i]) < 1e-5f);
    assert_int_equal(weft_run_tokens(m, tokens, 2, 3, a, 299), WEFT_INVALID);
    assert_non_null(strstr(weft_message(), "room"));
    const int32_t bad[1] = {50};
    assert_int_equal(weft_run_tokens(m, bad, 1, 1, a, 300), WEFT_INVALID);
    assert_int_equal(weft_run_tokens(m, tokens, 1, 17, a, 300), WEFT_INVALID);
    assert_int_equal(weft_run_pictures(m, a, 1, b, 300), WEFT_INVALID);
    weft_free(m);
}

static void test_save_load(void **state) {
    (void)state;
    char path[] = "/tmp/weft-api-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    weft_model *m = build(), *n = NULL;
    assert_int_equal(weft_save(m, path), WEFT_OK);
    if (weft_load(path, &n) != WEFT_OK) fail_msg("%s", weft_message());
    assert_int_equal(weft_parameter_count(m), weft_parameter_count(n));
    const int32_t tokens[4] = {9, 8, 7, 6};
    float a[200], b[200];
    assert_int_equal(weft_run_tokens(m, tokens, 1, 4, a, 200), WEFT_OK);
    assert_int_equal(weft_run_tokens(n, tokens, 1, 4, b, 200), WEFT_OK);
    assert_memory_equal(a, b, sizeof a);
    float *data = NULL;
    int rank = 0;
    int64_t dim[6];
    assert_int_equal(weft_parameter(n, "embed.weight", &data, &rank, dim), WEFT_OK);
    assert_true(rank == 2 && dim[0] == 50 && dim[1] == 32);
    assert_int_equal(weft_parameter(n, "no.such", &data, &rank, dim), WEFT_NOT_FOUND);
    char *json = NULL;
    assert_int_equal(weft_recipe(n, &json), WEFT_OK);
    assert_non_null(strstr(json, "rmsnorm"));
    weft_free_text(json);
    weft_free(m);
    weft_free(n);
    unlink(path);
}

typedef struct heard {
    int n;
    int32_t token[16];
} heard;

static bool hear(void *context, int32_t token) {
    heard *h = context;
    h->token[h->n++] = token;
    return h->n < 8;
}

static void test_generate(void **state) {
    (void)state;
    weft_model *m = build();
    const int32_t prompt[3] = {1, 2, 3};
    weft_generate_options o = {.tokens = 12, .temperature = 1, .seed = 3};
    heard a = {0}, b = {0};
    if (weft_generate(m, prompt, 3, &o, hear, &a) != WEFT_OK) fail_msg("%s", weft_message());
    assert_int_equal(weft_generate(m, prompt, 3, &o, hear, &b), WEFT_OK);
    assert_int_equal(a.n, 8); /* the callback ended it */
    assert_memory_equal(a.token, b.token, sizeof a.token);
    o.tokens = -1;
    assert_int_equal(weft_generate(m, prompt, 3, &o, hear, &a), WEFT_INVALID);
    assert_int_equal(weft_generate(m, prompt, 0, &o, hear, &a), WEFT_INVALID);
    weft_free(m);
}

static void test_pictures(void **state) {
    (void)state;
    weft_model *m = NULL;
    if (weft_build("model: {name: vit, image_height: 8, channels: 1, classes: 3, patch: 4, width: 16, layers: 1, mixer: {name: "
                   "softmax, heads: 2}}",
                   1, &m) != WEFT_OK)
        fail_msg("%s", weft_message());
    float x[2 * 64], y[6], z[3];
    for (int i = 0; i < 128; i++) x[i] = sinf((float)i);
    int64_t C = 0;
    assert_int_equal(weft_output_size(m, &C), WEFT_OK);
    assert_int_equal(C, 3);
    if (weft_run_pictures(m, x, 2, y, 6) != WEFT_OK) fail_msg("%s", weft_message());
    assert_int_equal(weft_run_pictures(m, x + 64, 1, z, 3), WEFT_OK);
    for (int i = 0; i < 3; i++) assert_true(isfinite(z[i]) && fabsf(z[i] - y[3 + i]) < 1e-5f);
    assert_int_equal(weft_run_pictures(m, x, 0, y, 6), WEFT_INVALID);
    const int32_t token[1] = {1};
    assert_int_equal(weft_run_tokens(m, token, 1, 1, y, 6), WEFT_INVALID);
    weft_free(m);
}

static bool stop_at_three(void *context, const weft_progress *p) {
    *(int64_t *)context = p->step;
    return p->step < 3;
}

/* A callback stops the training; the same call goes on from the checkpoint. */
static void test_train(void **state) {
    (void)state;
    char folder[] = "/tmp/weft-api-XXXXXX", command[64];
    assert_non_null(mkdtemp(folder));
    static const char recipe[] =
        "task: {name: selective-copy, length: 24, memorise: 4}\n"
        "model: {name: lm, width: 16, layers: 1, mixer: {name: softmax, heads: 2}}\ntrain: {steps: 5, batch: 4}\n";
    weft_model *m = NULL;
    int64_t at = 0;
    weft_status stopped = weft_train(recipe, folder, stop_at_three, &at, &m);
    if (stopped != WEFT_INTERRUPTED) fail_msg("%d: %s", (int)stopped, weft_message());
    assert_null(m);
    assert_int_equal(at, 3);
    if (weft_train(recipe, folder, NULL, NULL, &m) != WEFT_OK) fail_msg("%s", weft_message());
    assert_non_null(m);
    weft_free(m);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
}

static void test_errors(void **state) {
    (void)state;
    weft_model *m = NULL;
    assert_int_equal(weft_load("/nowhere/at-all.safetensors", &m), WEFT_INVALID);
    assert_null(m);
    assert_true(strlen(weft_message()) > 0);
    assert_int_equal(weft_build("model: {name: lm, widht: 3}", 1, &m), WEFT_INVALID);
    assert_non_null(strstr(weft_message(), "width")); /* the nearest known option */
    assert_int_equal(weft_build(NULL, 1, &m), WEFT_INVALID);
    assert_int_equal(weft_load(NULL, &m), WEFT_INVALID);
    weft_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run),      cmocka_unit_test(test_save_load), cmocka_unit_test(test_generate),
        cmocka_unit_test(test_pictures), cmocka_unit_test(test_train),     cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
