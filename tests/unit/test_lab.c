/* test_lab.c: criteria as expressions, claims read from recipes, verdicts over seeds, results kept and shared, the page. */
#include "parts_help.h"

#include "lab/inside.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- expressions ---- */
static double numbers(void *ctx, const char *design, const char *quantity) {
    (void)ctx;
    if (!strcmp(design, "nan")) return NAN;
    if (!strcmp(design, "inf")) return INFINITY;
    return strlen(design) + 10.0 * (double)strlen(quantity); /* a.x is 11 */
}

static int judge(const char *text) {
    wf_expr *e = wf_expr_parse(text, NULL, NULL);
    if (!e) fail_msg("%s: %s", text, wf_message());
    int holds = wf_expr_holds(e, numbers, NULL, NULL, 0, NULL);
    wf_expr_free(e);
    return holds;
}

static void expressions_compare(void **state) {
    (void)state;
    static const char *const yes[] = {
        "a.x == 11",
        "1 + 2 * 3 == 7",
        "(1 + 2) * 3 == 9",
        "8 / 4 / 2 == 1",
        "8 - 4 - 2 == 2",
        "-2 * -3 == 6",
        "- (1 + 1) < 0",
        "2 <= 2",
        "2 >= 2",
        "min(3, 1, 2) == 1",
        "max(3, 1, 2) == 3",
        "abs(a.x - 20) == 9",
        "1.7 <= 1.8 <= 1.9 < 2",
        "max(a.x, bb.x) - min(a.x, bb.x) == 1",
        "1e-3 < .5",
        "inf.x > 1e300",
        "a . x\t== 11",
    };
    static const char *const no[] = {"1 < 1", "2 > 2", "1 == 2", "1 < 2 < 2", "3 < 2 < 4", "inf.x <= 1", "abs(0-1) < 1"};
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
        if (judge(yes[i]) != 1) fail_msg("%s should hold", yes[i]);
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        if (judge(no[i]) != 0) fail_msg("%s should not hold", no[i]);
    assert_int_equal(judge("nan.x < 1"), -1);
    assert_int_equal(judge("min(nan.x, 1) <= 1"), -1); /* not fmin's way of leaving NaN out */
    assert_int_equal(judge("1 < 2 < nan.x"), -1);
}

static void expressions_refuse(void **state) {
    (void)state;
    static const struct {
        const char *text, *word;
    } bad[] = {{"", "ends too early"},
               {"1", "compares"},
               {"1 + < 2", "expected"},
               {"a < 1", "'.' is missing"},
               {"a. < 1", "the quantity is missing"},
               {"sin(1) < 2", "min, max and abs"},
               {"min(1) < 2", "at least two"},
               {"abs(1, 2) < 2", "one argument"},
               {"(1 < 2", "')' is missing"},
               {"1 < 2 )", "expected, or the end"},
               {"1 = 2", "expected, or the end"},
               {"1 ! 2", "expected, or the end"},
               {"1 <", "ends too early"},
               {"1e999 < 2", "too large"},
               {"1 < 2; a.x", "expected, or the end"},
               {"1<1<1<1<1<1<1<1<1<1", "too many comparisons"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        wf_expr *e = wf_expr_parse(bad[i].text, NULL, NULL);
        if (e) fail_msg("accepted: %s", bad[i].text);
        if (!strstr(wf_message(), bad[i].word)) fail_msg("%s: '%s' lacks '%s'", bad[i].text, wf_message(), bad[i].word);
    }
    char deep[4096];
    memset(deep, '(', 2000);
    strcpy(deep + 2000, "1 < 2");
    assert_null(wf_expr_parse(deep, NULL, NULL));
    assert_non_null(strstr(wf_message(), "deeply"));
    memset(deep, '-', 2000);
    assert_null(wf_expr_parse(deep, NULL, NULL));
    char *at = deep;
    for (int i = 0; i < 300; i++) at += sprintf(at, "1+");
    strcpy(at, "1 < 2");
    assert_null(wf_expr_parse(deep, NULL, NULL));
    assert_non_null(strstr(wf_message(), "too long"));
}

/* Bytes of the grammar in random order: read or refused, never worse (sanitizers look on). */
static void expressions_survive_noise(void **state) {
    (void)state;
    static const char *const token[] = {"a.x",  "1",    "2.5", "(",  ")", "+",  "-", "*", "/",  "min(",
                                        "max(", "abs(", ",",   "<=", "<", "==", " ", "$", "..", "e"};
    wf_rng r = {5, 5, 0};
    int good = 0;
    for (int i = 0; i < 20000; i++) {
        char text[256] = "";
        int n = 3 + (int)wf_rng_below(&r, 5);
        for (int k = 0; k < n; k++) strcat(text, token[wf_rng_below(&r, sizeof token / sizeof *token)]);
        wf_expr *e = wf_expr_parse(text, NULL, NULL);
        if (e) wf_expr_holds(e, numbers, NULL, NULL, 0, NULL);
        good += e != NULL;
        wf_expr_free(e);
    }
    assert_true(good > 10);
}

/* ---- claims ---- */
#define HEAD                                                                                                                   \
    "title: t\nsheet: '02'\nclaim: c\ntask: {name: x}\nmodel: {name: lm, width: 8, norm: layernorm}\ntrain: {steps: 1}\n"

static wf_claim *claim_of(const char *text) {
    wf_value *v = yaml(text);
    return wf_claim_read(v, "99-test");
}

static wf_claim *good_claim(void) {
    wf_claim *c = claim_of(HEAD "seeds: 2\ndesigns:\n  a: {}\n  b: {model: {norm: rmsnorm}}\n"
                                "pass:\n  - {says: b is no worse, holds: b.loss <= 1.1 * a.loss}\n"
                                "  - {says: b is more accurate, holds: b.accuracy > a.accuracy}\nshow: [gap]\n");
    if (!c) fail_msg("%s", wf_message());
    return c;
}

static void claims_are_read(void **state) {
    (void)state;
    wf_claim *c = good_claim();
    assert_int_equal(c->n_design, 2);
    assert_int_equal(c->n_criterion, 2);
    assert_true(c->want[WF_Q_LOSS] && c->want[WF_Q_ACCURACY] && c->want[WF_Q_GAP] && !c->want[WF_Q_MS]);
    const wf_value *norm = wf_value_get(wf_value_get(c->design[1].recipe, "model"), "norm");
    assert_string_equal(norm->text, "rmsnorm");
    assert_string_equal(wf_value_get(wf_value_get(c->design[1].recipe, "model"), "width")->text, "8"); /* of the base */
    wf_claim_free(c);
}

static void claim_refused(const char *text, const char *word) {
    wf_claim *c = claim_of(text);
    if (c) fail_msg("accepted: %s", text);
    if (!strstr(wf_message(), word)) fail_msg("'%s' lacks '%s'", wf_message(), word);
    if (!strstr(wf_message(), "test.yaml:")) fail_msg("'%s' has no place", wf_message());
}

static void wrong_claims_say_where(void **state) {
    (void)state;
    claim_refused(HEAD "designs: {a: {}}\n", "pass");
    claim_refused(HEAD "pass: [{says: s, holds: a.loss < 1}]\n", "designs");
    claim_refused(HEAD "designs: {a: {}}\npass: [{says: s, holds: b.loss < 1}]\n", "there is no design 'b'");
    claim_refused(HEAD "designs: {a: {}}\npass: [{says: s, holds: a.los < 1}]\n", "did you mean 'loss'");
    claim_refused(HEAD "designs: {a: {}}\npass: [{says: s, holds: a.loss <}]\n", "column 9");
    claim_refused(HEAD "designs: {a: {}}\npass: [{says: s, holds: a.loss < 1}]\nshow: [nothing]\n", "there is no quantity");
    claim_refused(HEAD "designs: {a-b: {}}\npass: [{says: s, holds: 1 < 2}]\n", "letters, digits and _");
    claim_refused(HEAD "designs: {a: {task: {name: y}}}\npass: [{says: s, holds: 1 < 2}]\n", "not model, train, part");
    claim_refused(HEAD "designs: {a: {experiment: {name: none}}}\npass: [{says: s, holds: 1 < 2}]\n", "splitting_order");
    claim_refused(HEAD "designs: {a: {part: {spec: rmsnorm}}}\npass: [{says: s, holds: a.loss < 2}]\n", "single part");
    claim_refused(HEAD "designs: {a: {}}\npass: [{says: s, holds: a.error_ratio < 2}]\n", "cannot be measured");
    claim_refused(HEAD "designs: {a: {}}\npas: [{says: s, holds: 1 < 2}]\n", "did you mean 'pass'");
    claim_refused("title: t\nsheet: 1\nclaim: c\ndesigns: {a: {}}\npass: [{says: s, holds: 1 < 2}]\n", "has 'model'");
}

/* Every recipe that comes with the program can be read. */
static void built_in_claims_are_sound(void **state) {
    (void)state;
    assert_true(wf_n_claim_texts > 10);
    for (int i = 0; i < wf_n_claim_texts; i++) {
        const wf_claim_text *t = &wf_claim_texts[i];
        wf_value *v = wf_yaml_parse(t->text, (size_t)(t->end - t->text), t->name);
        wf_claim *c = v ? wf_claim_read(v, t->name) : NULL;
        if (!c) fail_msg("%s: %s", t->name, wf_message());
        if (strncmp(t->name, c->sheet, 2)) fail_msg("%s: sheet %s", t->name, c->sheet);
        if (c->seeds < 3 && wf_claim_trains(&c->design[0])) fail_msg("%s: %d seeds", t->name, (int)c->seeds);
        wf_claim_free(c);
    }
}

/* ---- results ---- */
static wf_lab *lab_of(const char *folder) {
    wf_lab *l = wf_lab_open(folder, "a machine");
    assert_non_null(l);
    assert_int_equal(wf_lab_add(l, good_claim()), WF_OK);
    return l;
}

static wf_cell_result result_of(double loss, double accuracy) {
    wf_cell_result r = {.seconds = 2};
    for (int q = 0; q < WF_Q_COUNT; q++) r.value[q] = NAN;
    r.value[WF_Q_LOSS] = loss;
    r.value[WF_Q_ACCURACY] = accuracy;
    return r;
}

static void put(wf_lab *l, int design, int seed, double loss, double accuracy, const char *diverged) {
    wf_cell_result r = result_of(loss, accuracy);
    snprintf(r.diverged, sizeof r.diverged, "%s", diverged);
    char *line = wf_store_line(l, &l->item[0], design, seed, false, &r);
    assert_non_null(line);
    assert_true(wf_store_take(l, line, strlen(line)));
    assert_int_equal(wf_store_append(l, line, strlen(line)), WF_OK);
    wf_free(line);
}

static void verdicts_by_means(void **state) {
    wf_lab *l = lab_of(*state);
    assert_int_equal(wf_lab_load(l, true), WF_OK);
    assert_int_equal(wf_claim_verdict(&l->item[0]), WF_NOT_RUN);
    put(l, 0, 0, 2.0, 50, "");
    put(l, 0, 1, 1.0, 60, "");
    put(l, 1, 0, 1.5, 70, "");
    assert_int_equal(wf_claim_verdict(&l->item[0]), WF_NOT_RUN);
    assert_false(wf_claim_finished(&l->item[0]));
    put(l, 1, 1, 1.75, 30, "");
    assert_true(wf_claim_finished(&l->item[0]));
    const wf_lab_claim *c = &l->item[0];
    assert_float_equal(wf_claim_value(c, 0, WF_Q_LOSS, -1), 1.5, 1e-12);
    assert_float_equal(wf_claim_sd(c, 0, WF_Q_LOSS), sqrt(0.5), 1e-12);
    assert_int_equal(wf_criterion_verdict(c, 0, -1), WF_HOLDS);         /* 1.625 <= 1.65 */
    assert_int_equal(wf_criterion_verdict(c, 0, 0), WF_HOLDS);          /* 1.5 <= 2.2 */
    assert_int_equal(wf_criterion_verdict(c, 0, 1), WF_DOES_NOT_HOLD);  /* 1.75 <= 1.1 */
    assert_int_equal(wf_criterion_verdict(c, 1, -1), WF_DOES_NOT_HOLD); /* 50 > 55 */
    assert_int_equal(wf_claim_verdict(c), WF_DOES_NOT_HOLD);
    char *page = wf_lab_page(l, "weft reproduce x");
    static const char *const wanted[] = {
        "# Reproductions",
        "## 99-test",
        "| loss | a | 2.0000 | 1.0000 | 1.5000 | 0.7071 |",
        "| accuracy | b | 70.00 | 30.00 | 50.00 | 28.28 |",
        "- **holds**: b is no worse: `b.loss <= 1.1 * a.loss`: 1.6250 <= 1.6500; true of 1 of 2 seeds",
        "- **does not hold**: b is more accurate",
        "Verdict: **does not hold**",
        "0 of 1 claims hold, 1 do not (1 of 2 criteria hold)",
        "a machine"};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (!strstr(page, wanted[i])) fail_msg("the page lacks '%s':\n%s", wanted[i], page);
    wf_free(page);
    char *json = wf_lab_json(l);
    wf_value *v = wf_json_parse(json, strlen(json), "json");
    assert_non_null(v);
    wf_value_free(v);
    wf_free(json);
    wf_lab_close(l);
}

/* A run that diverged has an infinite loss, which survives the file; criteria see it. */
static void divergence_is_a_result(void **state) {
    wf_lab *l = lab_of(*state);
    assert_int_equal(wf_lab_load(l, true), WF_OK);
    put(l, 0, 0, 2.0, 50, "");
    put(l, 0, 1, INFINITY, 0, "step 7: the loss is not finite");
    put(l, 1, 0, 1.5, 70, "");
    put(l, 1, 1, 1.5, 70, "");
    wf_lab_close(l);
    l = lab_of(*state);
    assert_int_equal(wf_lab_load(l, false), WF_OK);
    assert_true(isinf(wf_claim_value(&l->item[0], 0, WF_Q_LOSS, -1)));
    assert_int_equal(wf_claim_verdict(&l->item[0]), WF_HOLDS);
    char *text = wf_claim_text_of(&l->item[0]);
    assert_non_null(strstr(text, "a, seed 2: diverged: step 7"));
    wf_free(text);
    wf_lab_close(l);
}

/* What is in the file is not run again; --fresh drops the lines of these claims alone; half a line does no harm. */
static void results_are_kept(void **state) {
    wf_lab *l = lab_of(*state);
    assert_int_equal(wf_lab_load(l, true), WF_OK);
    put(l, 0, 0, 2.0, 50, "");
    static const char other[] = "{\"key\": \"0123456789abcdef\", \"values\": {\"loss\": 1}}";
    assert_int_equal(wf_store_append(l, other, strlen(other)), WF_OK);
    static const char half[] = "{\"key\": \"0123";
    char *path = wf_format("%s/results.jsonl", (const char *)*state);
    FILE *f = fopen(path, "a");
    fputs(half, f);
    fclose(f);
    wf_lab_close(l);
    l = lab_of(*state);
    double seconds;
    assert_int_equal(wf_lab_load(l, false), WF_OK);
    assert_int_equal(wf_claim_missing(&l->item[0], &seconds), 3);
    assert_int_equal(wf_lab_cell(&l->item[0], 0, 0)->state, WF_CELL_DONE);
    assert_int_equal(wf_lab_load(l, true), WF_OK);
    wf_lab_close(l);
    wf_bytes b;
    assert_int_equal(wf_bytes_open(path, &b), WF_OK);
    assert_int_equal(b.n, strlen(other) + 1);
    assert_memory_equal(b.p, other, strlen(other));
    wf_bytes_close(&b);
    wf_free(path);
}

static void hostile_lines_are_no_results(void **state) {
    wf_lab *l = lab_of(*state);
    static const char *const line[] = {
        "",        "{}", "[]", "null", "{\"key\": 5}", "{\"key\": \"zz\", \"values\": {}}", "{\"key\": \"1\", \"values\": 3}",
        "\xff\xfe"};
    for (size_t i = 0; i < sizeof line / sizeof *line; i++) {
        wf_store_take(l, line[i], strlen(line[i]));
        double s;
        assert_int_equal(wf_claim_missing(&l->item[0], &s), 4);
    }
    wf_lab_close(l);
}

/* ---- initial weights by shape, which the recipes of reproductions ask for ---- */
static double largest(const wf_model *m, const char *name, double *deviation) {
    wf_param *p = wf_model_param(m, name);
    double most = 0, sum = 0;
    int64_t n = wf_tensor_count(p->value);
    for (int64_t i = 0; i < n; i++) {
        double x = wf_tensor_get(p->value, i);
        most = fmax(most, fabs(x));
        sum += x * x;
    }
    *deviation = sqrt(sum / (double)n);
    return most;
}

static void initial_weights_by_shape(void **state) {
    (void)state;
    double sd;
    wf_model *m = model_of(
        "{name: lm, vocab: 100, length: 8, width: 64, layers: 2, tied: false, init: xavier, scale_residual: false}", 1);
    double half = sqrt(6.0 / (64 + 256));
    double most = largest(m, "blocks.0.channel.up.weight", &sd);
    assert_true(most <= half && most > 0.98 * half);
    assert_float_equal(sd, half / sqrt(3), 0.02 * half);
    wf_model_free(m);
    m = model_of("{name: lm, vocab: 100, length: 8, width: 64, layers: 2, tied: false, init: fan_in}", 1);
    most = largest(m, "blocks.0.mixer.q.weight", &sd);
    assert_true(most <= 1.0 / 8 && most > 0.98 / 8);
    most = largest(m, "blocks.0.mixer.o.weight", &sd); /* last of a branch: 1/sqrt(2 layers) smaller */
    assert_true(most <= 1.0 / 16 && most > 0.98 / 16);
    most = largest(m, "blocks.0.channel.down.bias", &sd);
    assert_true(most <= 1.0 / 16 && most > 0.8 / 16);
    wf_model_free(m);
}

static int make_folder(void **state) {
    static char folder[] = "/tmp/weft-lab-XXXXXX";
    *state = mkdtemp(folder);
    return *state ? 0 : -1;
}

static int drop_folder(void **state) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", (const char *)*state);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expressions_compare),       cmocka_unit_test(expressions_refuse),
        cmocka_unit_test(expressions_survive_noise), cmocka_unit_test(claims_are_read),
        cmocka_unit_test(wrong_claims_say_where),    cmocka_unit_test(built_in_claims_are_sound),
        cmocka_unit_test(verdicts_by_means),         cmocka_unit_test(divergence_is_a_result),
        cmocka_unit_test(results_are_kept),          cmocka_unit_test(hostile_lines_are_no_results),
        cmocka_unit_test(initial_weights_by_shape),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
