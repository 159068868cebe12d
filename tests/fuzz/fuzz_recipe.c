/* fuzz_recipe.c: any bytes as a recipe (YAML) and as JSON; what parses must survive writing, reading again, overlay and an
 * option table. */
#include "file/file.h"

#include <stdlib.h>
#include <string.h>

typedef struct options {
    int64_t width;
    double lr;
    bool bias;
    const char *path, *act;
    const wf_value *inner;
} options;

static const wf_option TABLE[] = {
    {"width", WF_OPT_INT, offsetof(options, width), "64", 1, 4096, NULL, ""},
    {"lr", WF_OPT_REAL, offsetof(options, lr), "1e-3", 0, 1, NULL, ""},
    {"bias", WF_OPT_BOOL, offsetof(options, bias), "true", 0, 0, NULL, ""},
    {"path", WF_OPT_TEXT, offsetof(options, path), "", 0, 0, NULL, ""},
    {"act", WF_OPT_CHOICE, offsetof(options, act), "gelu", 0, 0, "relu|gelu", ""},
    {"inner", WF_OPT_VALUE, offsetof(options, inner), "", 0, 0, NULL, ""},
    WF_OPT_END,
};

static void use(const wf_value *v) {
    options o;
    (void)wf_options_read(TABLE, v, "fuzz", NULL, &o, sizeof o);
    int64_t i;
    double x;
    bool b;
    (void)wf_value_int(v, &i);
    (void)wf_value_real(v, &x);
    (void)wf_value_bool(v, &b);
    for (int k = 0; k < v->n; k++) use(v->item[k]);
}

/* Text that we wrote ourselves must parse, and give the same text again. */
static void round_trip(const wf_value *v) {
    char *y = wf_value_yaml(v), *j = wf_value_json(v, true);
    if (!y || !j) abort();
    wf_value *a = wf_yaml_parse(y, strlen(y), "yaml"), *b = wf_json_parse(j, strlen(j), "json");
    if (!a) abort();
    char *j2 = wf_value_json(a, true);
    if (!j2 || strcmp(j, j2) != 0) abort();
    wf_free(j2);
    wf_free(y);
    wf_free(j);
    wf_value_free(a);
    wf_value_free(b);
}

static void check(wf_value *v) {
    if (!v) return;
    use(v);
    round_trip(v);
    wf_value *m = wf_value_merge(v, v);
    if (!m) abort();
    (void)wf_value_set_path(m, "train.lr", "0.5");
    (void)wf_value_set_path(m, "model.mixer.0", "{a: [1]}");
    wf_free(wf_value_unused(m));
    wf_value_free(m);
    wf_value_free(v);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    check(wf_yaml_parse((const char *)p, n, "fuzz"));
    check(wf_json_parse((const char *)p, n, "fuzz"));
    return 0;
}
