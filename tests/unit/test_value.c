/* test_value.c: recipes and JSON as trees: places, refusals, overlays, dotted paths, round trips; option tables. */
#include "check.h"
#include "file/file.h"

#include <math.h>

static wf_value *yaml(const char *s) {
    wf_value *v = wf_yaml_parse(s, strlen(s), "r.yaml");
    if (!v) fail_msg("%s", wf_message());
    return v;
}

static void yaml_fails(const char *s, const char *part) {
    wf_value *v = wf_yaml_parse(s, strlen(s), "r.yaml");
    if (v) fail_msg("accepted: %s", s);
    MESSAGE_HAS(part);
    MESSAGE_HAS("r.yaml");
}

static void json_fails(const char *s, const char *part) {
    wf_value *v = wf_json_parse(s, strlen(s), "x.json");
    if (v) fail_msg("accepted: %s", s);
    MESSAGE_HAS(part);
    MESSAGE_HAS("x.json");
}

static void same_json(const wf_value *v, const char *expected) {
    char *s = wf_value_json(v, false);
    assert_string_equal(s, expected);
    wf_free(s);
}

static const char *RECIPE = "# a recipe\n"
                            "model:\n"
                            "  name: lm\n"
                            "  width: 64\n"
                            "  mixer: {name: softmax, heads: 4}\n"
                            "  title: \"12\"\n"
                            "train:\n"
                            "  lr: 3e-4\n"
                            "  decay: .1\n"
                            "  nothing: ~\n"
                            "  list: [1, two, true]\n";

static void places(void **state) {
    wf_value *v = yaml(RECIPE), *model = wf_value_get(v, "model"), *mixer = wf_value_get(model, "mixer");
    wf_value *heads = wf_value_get(mixer, "heads");
    assert_int_equal(v->kind, WF_V_MAP);
    assert_int_equal(wf_value_get(model, "width")->line, 4);
    assert_int_equal(heads->line, 5);
    assert_int_equal(heads->column, 33);
    assert_string_equal(heads->file, "r.yaml");
    assert_true(heads->used && !wf_value_get(v, "train")->item[0]->used);
    assert_null(wf_value_get(model, "depth"));
    assert_null(wf_value_get(heads, "x"));
    assert_null(wf_value_get(NULL, "x"));
    wf_value_fail(heads, WF_EINVAL, "%d is too many", 4);
    assert_string_equal(wf_message(), "r.yaml:5: 4 is too many");
    wf_value_fail(NULL, WF_EINVAL, "no place");
    assert_string_equal(wf_message(), "no place");
    char *unused = wf_value_unused(v);
    assert_string_equal(unused, "model.name");
    wf_free(unused);
    wf_value_free(v);
}

static void typed(void **state) {
    wf_value *v = yaml("a: 12\nb: 2e3\nc: -7.5\nd: true\ne: \"12\"\nf: 9223372036854775808\ng: 0x10\nh: nan\ni: 1.5e400\n"
                       "j: False\nk: '1'\nl: [1]\nm: yes\nn: +3\no: 1e\np: 12 13\n");
    int64_t i = 0;
    double x = 0;
    bool b = false;
    MUST(wf_value_int(wf_value_get(v, "a"), &i));
    assert_int_equal(i, 12);
    MUST(wf_value_int(wf_value_get(v, "b"), &i));
    assert_int_equal(i, 2000);
    MUST(wf_value_int(wf_value_get(v, "n"), &i));
    assert_int_equal(i, 3);
    MUST(wf_value_real(wf_value_get(v, "a"), &x));
    assert_true(x == 12);
    MUST(wf_value_real(wf_value_get(v, "c"), &x));
    assert_true(x == -7.5);
    MUST(wf_value_bool(wf_value_get(v, "d"), &b));
    assert_true(b);
    MUST(wf_value_bool(wf_value_get(v, "j"), &b));
    assert_false(b);
    MUST_FAIL(wf_value_int(wf_value_get(v, "c"), &i), WF_EINVAL, "r.yaml:3: a whole number was expected, found '-7.5'");
    MUST_FAIL(wf_value_int(wf_value_get(v, "e"), &i), WF_EINVAL, "the text \"12\"");
    MUST_FAIL(wf_value_int(wf_value_get(v, "f"), &i), WF_EINVAL, "r.yaml:6:");
    MUST_FAIL(wf_value_int(NULL, &i), WF_EINVAL, "nothing");
    const char *bad[] = {"g", "h", "i", "k", "l", "m", "o", "p", "d"};
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++)
        MUST_FAIL(wf_value_real(wf_value_get(v, bad[k]), &x), WF_EINVAL, "a number was expected");
    MUST_FAIL(wf_value_bool(wf_value_get(v, "m"), &b), WF_EINVAL, "r.yaml:13: true or false");
    wf_value_free(v);
}

static void yaml_refusals(void **state) {
    yaml_fails("a: 1\nb: 2\na: 3\n", "the key 'a' stands twice");
    yaml_fails("a: &x 1\n", "r.yaml:1: anchors");
    yaml_fails("a: &x {b: 1}\nc: *x\n", "anchors");
    yaml_fails("a: 1\nc: *x\n", "r.yaml:2: aliases");
    yaml_fails("a: !!str 1\n", "tags");
    yaml_fails("a: !x {b: 1}\n", "tags");
    yaml_fails("{a: 1}: 2\n", "a key must be");
    yaml_fails("a: 1\n---\nb: 2\n", "only one document");
    yaml_fails("a: [1, 2\n", "r.yaml:2");
    yaml_fails("a: 1\n b: 2\n", "r.yaml:2");
    yaml_fails("\ta: 1\n", "r.yaml:1");
    yaml_fails("a: \"\\0\"\n", "zero byte");
    yaml_fails("a: \xff\xfe\n", "r.yaml");
    char deep[1000];
    memset(deep, '[', 500);
    memset(deep + 500, ']', 499);
    deep[999] = 0;
    yaml_fails(deep, "deeper");
    assert_null(wf_yaml_load("no/such/file.yaml"));
    MESSAGE_HAS("no/such/file.yaml");
    wf_value *v = yaml("");
    assert_int_equal(v->kind, WF_V_NULL);
    wf_value_free(v);
}

static void json_refusals(void **state) {
    json_fails("{\"a\": 1, \"a\": 2}", "duplicate");
    json_fails("{\"a\": 1", "x.json:1");
    json_fails("{\"a\": \"\\u0000\"}", "x.json");
    json_fails("[1] 2", "x.json");
    json_fails("", "x.json");
    json_fails("\"\xff\"", "x.json");
    char deep[2001];
    memset(deep, '[', 1000);
    memset(deep + 1000, ']', 1000);
    deep[2000] = 0;
    json_fails(deep, "deeper");
}

static void truncated_everywhere(void **state) {
    size_t n = strlen(RECIPE);
    for (size_t i = 0; i < n; i++) wf_value_free(wf_yaml_parse(RECIPE, i, "cut"));
    wf_value *v = yaml(RECIPE);
    char *s = wf_value_json(v, true);
    for (size_t i = 0; i < strlen(s); i++) assert_null(wf_json_parse(s, i, "cut"));
    wf_free(s);
    wf_value_free(v);
}

static void output(void **state) {
    wf_value *v = yaml(RECIPE);
    const char *json =
        "{\"model\":{\"name\":\"lm\",\"width\":64,\"mixer\":{\"name\":\"softmax\",\"heads\":4},\"title\":\"12\"},"
        "\"train\":{\"lr\":3e-4,\"decay\":0.10000000000000001,\"nothing\":null,\"list\":[1,\"two\",true]}}";
    same_json(v, json);
    char *y = wf_value_yaml(v);
    wf_value *again = yaml(y), *j = wf_json_parse(json, strlen(json), "x");
    same_json(again, json);
    assert_non_null(j);
    char *s = wf_value_json(j, false);
    assert_non_null(strstr(s, "\"lr\":0.0003,\"decay\":0.1,"));
    wf_free(s);
    wf_free(y);
    wf_value_free(v);
    wf_value_free(again);
    wf_value_free(j);
}

static void hard_texts(void **state) {
    const char *texts[] = {"",     "true",       "null",  "~",     "12", "1e3",       "- a",         "a: b",
                           "#x",   "two\nlines", " lead", "\"q\"", "\\", "tab\there", "caf\xc3\xa9", "\xf0\x9f\x98\x80",
                           "'",    "[",          "{}",    "&a",    "*a", "!t",        "%",           "@",
                           "a #b", ".5"};
    wf_value *v = wf_value_map();
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) MUST(wf_value_set(v, texts[i], wf_value_text(texts[i])));
    char *y = wf_value_yaml(v), *j = wf_value_json(v, true);
    wf_value *a = yaml(y), *b = wf_json_parse(j, strlen(j), "j");
    assert_non_null(b);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_string_equal(wf_value_get(a, texts[i])->text, texts[i]);
        assert_string_equal(wf_value_get(b, texts[i])->text, texts[i]);
    }
    wf_text t = {0};
    wf_text_json(&t, "a\xff\xed\xa0\x80\xc0\xaf\x01");
    assert_string_equal(t.s, "\"a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\\u0001\"");
    wf_text_free(&t);
    wf_free(y);
    wf_free(j);
    wf_value_free(a);
    wf_value_free(b);
    wf_value_free(v);
}

static void numbers(void **state) {
    const double xs[] = {0, -0.0, 1, -3, 0.1, 1.0 / 3, 1e300, 5e-324, 123456789012.0, 1e15, 2.5, -1e-7};
    for (size_t i = 0; i < sizeof xs / sizeof *xs; i++) {
        wf_value *v = wf_value_number(xs[i]);
        double x;
        MUST(wf_value_real(v, &x));
        assert_true(x == xs[i]);
        char *s = wf_value_json(v, false);
        wf_value *w = wf_json_parse(s, strlen(s), "n");
        MUST(wf_value_real(w, &x));
        assert_true(x == xs[i]);
        wf_free(s);
        wf_value_free(v);
        wf_value_free(w);
    }
    wf_value *v = wf_value_number(0.1);
    assert_string_equal(v->text, "0.1");
    wf_value_free(v);
    v = wf_value_number(NAN);
    same_json(v, "null");
    wf_value_free(v);
}

static void built(void **state) {
    wf_value *v = wf_value_map(), *l = wf_value_list();
    for (int i = 0; i < 100; i++) MUST(wf_value_append(l, wf_value_number(i)));
    MUST(wf_value_set(v, "list", l));
    MUST(wf_value_set(v, "on", wf_value_boolean(true)));
    MUST(wf_value_set(v, "on", wf_value_boolean(false)));
    assert_int_equal(v->n, 2);
    assert_int_equal(wf_value_get(v, "list")->n, 100);
    wf_value *c = wf_value_copy(v);
    char *a = wf_value_json(v, true), *b = wf_value_json(c, true);
    assert_string_equal(a, b);
    MUST_FAIL(wf_value_set(wf_value_get(v, "list"), "x", wf_value_text("y")), WF_EINVAL, "no map");
    MUST_FAIL(wf_value_append(v, wf_value_text("y")), WF_EINVAL, "no list");
    wf_free(a);
    wf_free(b);
    wf_value_free(v);
    wf_value_free(c);
    wf_value_free(NULL);
}

static void overlays(void **state) {
    wf_value *base = yaml("model: {name: lm, mixer: {name: softmax, heads: 4}, depth: 2}\nlist: [1, 2]\n");
    wf_value *over = yaml("model: {mixer: {heads: 8, window: 16}, norm: rmsnorm}\nlist: [3]\n");
    wf_value *v = wf_value_merge(base, over);
    same_json(v, "{\"model\":{\"name\":\"lm\",\"mixer\":{\"name\":\"softmax\",\"heads\":8,\"window\":16},\"depth\":2,\"norm\":"
                 "\"rmsnorm\"},\"list\":[3]}");
    same_json(base, "{\"model\":{\"name\":\"lm\",\"mixer\":{\"name\":\"softmax\",\"heads\":4},\"depth\":2},\"list\":[1,2]}");
    wf_value *c = wf_value_merge(base, NULL);
    assert_int_equal(c->n, 2);
    wf_value_free(c);
    wf_value_free(v);
    wf_value_free(base);
    wf_value_free(over);
    /* another part brings none of the old one's options; the short form keeps its name */
    base = yaml("channel: {name: mlp, hidden: 8, act: gelu}\nnorm: rmsnorm\nmixer: {heads: 2}\n");
    over = yaml("channel: {name: swiglu, hidden: 4}\nnorm: {eps: 1}\nmixer: {name: linear}\n");
    v = wf_value_merge(base, over);
    same_json(v, "{\"channel\":{\"name\":\"swiglu\",\"hidden\":4},\"norm\":{\"name\":\"rmsnorm\",\"eps\":1},\"mixer\":{"
                 "\"name\":\"linear\"}}");
    wf_value_free(v);
    wf_value_free(base);
    wf_value_free(over);
}

static void dotted_paths(void **state) {
    wf_value *v = yaml("model: {mixer: softmax, norm: ~}\nruns: [{lr: 1}, {lr: 2}]\n");
    MUST(wf_value_set_path(v, "train.lr", "0.001"));
    MUST(wf_value_set_path(v, "model.mixer.heads", "6"));
    MUST(wf_value_set_path(v, "model.norm", "{name: rmsnorm}"));
    MUST(wf_value_set_path(v, "runs.1.lr", "3"));
    MUST(wf_value_set_path(v, "seed", "7"));
    same_json(v, "{\"model\":{\"mixer\":{\"name\":\"softmax\",\"heads\":6},\"norm\":{\"name\":\"rmsnorm\"}},"
                 "\"runs\":[{\"lr\":1},{\"lr\":3}],\"train\":{\"lr\":0.001},\"seed\":7}");
    MUST_FAIL(wf_value_set_path(v, "runs.2.lr", "3"), WF_EINVAL, "below 2");
    MUST_FAIL(wf_value_set_path(v, "a..b", "3"), WF_EINVAL, "empty name");
    MUST_FAIL(wf_value_set_path(v, "", "3"), WF_EINVAL, "empty name");
    MUST_FAIL(wf_value_set_path(v, "a", "[1"), WF_EINVAL, "--set a");
    MUST_FAIL(wf_value_set_path(NULL, "a", "1"), WF_EINVAL, "no map");
    wf_value_free(v);
}

/* ---- option tables ---- */
typedef struct options {
    int64_t heads;
    double lr;
    bool bias;
    const char *path, *act;
    const wf_value *inner;
} options;

static const wf_option TABLE[] = {
    {"heads", WF_OPT_INT, offsetof(options, heads), "4", 1, 64, NULL, "attention heads"},
    {"lr", WF_OPT_REAL, offsetof(options, lr), "1e-3", 0, 0, NULL, "step size"},
    {"bias", WF_OPT_BOOL, offsetof(options, bias), "true", 0, 0, NULL, "add a bias"},
    {"path", WF_OPT_TEXT, offsetof(options, path), "", 0, 0, NULL, "a file"},
    {"act", WF_OPT_CHOICE, offsetof(options, act), "gelu", 0, 0, "relu|gelu|silu", "activation"},
    {"inner", WF_OPT_VALUE, offsetof(options, inner), "", 0, 0, NULL, "a part"},
    WF_OPT_END,
};

static wf_status read_options(const char *s, options *o) {
    static wf_value *v;
    const char *also[] = {"name", NULL};
    wf_value_free(v);
    v = s ? yaml(s) : NULL;
    return wf_options_read(TABLE, v, "mixer.flow", also, o, sizeof *o);
}

static void option_tables(void **state) {
    options o;
    MUST(read_options(NULL, &o));
    assert_true(o.heads == 4 && o.lr == 1e-3 && o.bias && !o.path && !o.inner);
    assert_string_equal(o.act, "gelu");
    MUST(read_options("{name: flow, heads: 8, lr: 2, bias: false, path: x.txt, act: relu, inner: {name: mlp}}", &o));
    assert_true(o.heads == 8 && o.lr == 2 && !o.bias && o.inner->kind == WF_V_MAP);
    assert_string_equal(o.path, "x.txt");
    assert_string_equal(o.act, "relu");
    MUST(read_options("heads: ~\n", &o));
    assert_int_equal(o.heads, 4);
    MUST_FAIL(read_options("a: 1\n", &o), WF_EINVAL, "r.yaml:1: mixer.flow: unknown option 'a'");
    MUST_FAIL(read_options("name: flow\nhaeds: 1\n", &o), WF_EINVAL,
              "r.yaml:2: mixer.flow: unknown option 'haeds'; did you mean 'heads'?");
    MUST_FAIL(read_options("heads: 65\n", &o), WF_EINVAL, "'heads' must be between 1 and 64 (found 65)");
    MUST_FAIL(read_options("heads: many\n", &o), WF_EINVAL, "'heads' must be a whole number (found many)");
    MUST_FAIL(read_options("act: tanh\n", &o), WF_EINVAL, "'act' must be one of relu|gelu|silu (found 'tanh')");
    MUST_FAIL(read_options("act: gel\n", &o), WF_EINVAL, "one of");
    MUST_FAIL(read_options("path: [1]\n", &o), WF_EINVAL, "'path' must be a text (found a list)");
    MUST_FAIL(read_options("bias: 1\n", &o), WF_EINVAL, "true or false");
    MUST_FAIL(read_options("[1]\n", &o), WF_EINVAL, "must be a map");
    static const wf_option required[] = {{"path", WF_OPT_TEXT, 0, NULL, 0, 0, NULL, "the text to learn"}, WF_OPT_END};
    const char *path;
    MUST_FAIL(wf_options_read(required, NULL, "task.text", NULL, &path, sizeof path), WF_EINVAL,
              "'path' is required: the text to learn");
    MUST(read_options(NULL, &o));
}

static void nearest(void **state) {
    const char *words[] = {"softmax", "sigmoid", "flow", "linear", "lmu"};
    assert_string_equal(wf_nearest("sofmax", words, 5), "softmax");
    assert_string_equal(wf_nearest("flw", words, 5), "flow");
    assert_string_equal(wf_nearest("flwo", words, 5), "flow");
    assert_string_equal(wf_nearest("sig", words, 5), "sigmoid");
    assert_null(wf_nearest("transformer", words, 5));
    assert_null(wf_nearest("x", words, 0));
    char longest[200];
    memset(longest, 'a', 199);
    longest[199] = 0;
    assert_null(wf_nearest(longest, words, 5));
}

/* Work must grow with the length of a hostile text, not with its square. */
static void many_keys(void **state) {
    wf_text t = {0};
    for (int i = 0; i < 100000; i++) wf_text_add(&t, "k%d: 1\n", i);
    double start = wf_seconds();
    wf_value *v = wf_yaml_parse(t.s, t.n, "many");
    assert_non_null(v);
    wf_text_add(&t, "k77: 1\n");
    assert_null(wf_yaml_parse(t.s, t.n, "many"));
    MESSAGE_HAS("k77");
    assert_true(wf_seconds() - start < 20);
    wf_value_free(v);
    wf_text_free(&t);
    for (int i = 0; i < 600000; i++) wf_text_put(&t, i ? ",1" : "[1", 2);
    wf_text_put(&t, "]", 1);
    assert_null(wf_yaml_parse(t.s, t.n, "many"));
    MESSAGE_HAS("too many values");
    assert_null(wf_json_parse(t.s, t.n, "many"));
    wf_text_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places),        cmocka_unit_test(typed),        cmocka_unit_test(yaml_refusals),
        cmocka_unit_test(json_refusals), cmocka_unit_test(output),       cmocka_unit_test(truncated_everywhere),
        cmocka_unit_test(hard_texts),    cmocka_unit_test(numbers),      cmocka_unit_test(built),
        cmocka_unit_test(overlays),      cmocka_unit_test(dotted_paths), cmocka_unit_test(option_tables),
        cmocka_unit_test(nearest),       cmocka_unit_test(many_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
