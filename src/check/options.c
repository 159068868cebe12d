/* options.c: reading a case's config. */
#include "check/case.h"

#include <string.h>

wf_status wf_case_fail(const wf_case *c, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return wf_fail(WF_EINVAL, "%s", text);
}

const wf_value *wf_case_key(wf_case *c, const char *key) {
    const wf_value *v = wf_value_get(c->config, key);
    return v && v->kind != WF_V_NULL ? v : NULL;
}

wf_status wf_case_int(wf_case *c, const char *key, int64_t otherwise, int64_t *out) {
    const wf_value *v = wf_case_key(c, key);
    *out = otherwise;
    if (v && (wf_value_int(v, out) != WF_OK || *out < 0 || *out > 1 << 24))
        return wf_case_fail(c, "config: '%s' must be a whole number from 0 to 16777216%s%s", key, v->text ? ", not " : "",
                            v->text ? v->text : "");
    return WF_OK;
}

wf_status wf_case_real(wf_case *c, const char *key, double otherwise, double *out) {
    const wf_value *v = wf_case_key(c, key);
    *out = otherwise;
    if (v && wf_value_real(v, out) != WF_OK)
        return wf_case_fail(c, "config: '%s' must be a number%s%s", key, v->text ? ", not " : "", v->text ? v->text : "");
    return WF_OK;
}

wf_status wf_case_bool(wf_case *c, const char *key, bool otherwise, bool *out) {
    const wf_value *v = wf_case_key(c, key);
    *out = otherwise;
    if (v && wf_value_bool(v, out) != WF_OK)
        return wf_case_fail(c, "config: '%s' must be true or false%s%s", key, v->text ? ", not " : "", v->text ? v->text : "");
    return WF_OK;
}

wf_status wf_case_text(wf_case *c, const char *key, const char *otherwise, const char **out) {
    const wf_value *v = wf_case_key(c, key);
    *out = otherwise;
    if (v && v->kind != WF_V_TEXT) return wf_case_fail(c, "config: '%s' must be a text", key);
    if (v) *out = v->text;
    return WF_OK;
}

wf_status wf_case_choice(wf_case *c, const char *key, const char *const *pairs, const char *otherwise, const char **out) {
    const char *word = NULL;
    WF_TRY(wf_case_text(c, key, NULL, &word));
    *out = otherwise;
    if (!word) return WF_OK;
    for (const char *const *p = pairs; *p; p += 2)
        if (!strcmp(p[0], word)) {
            *out = p[1];
            return WF_OK;
        }
    wf_text known = {0};
    for (const char *const *p = pairs; *p; p += 2) wf_text_add(&known, "%s%s", known.n ? ", " : "", p[0]);
    wf_status s = wf_case_fail(c, "config: '%s' is '%s'; known are %s", key, word, known.s ? known.s : "none");
    wf_text_free(&known);
    return s;
}

wf_status wf_case_pair(wf_case *c, const char *key, int64_t *a, int64_t *b) {
    const wf_value *v = wf_case_key(c, key);
    if (!v) return wf_case_fail(c, "config: '%s' is missing", key);
    bool list = v->kind == WF_V_LIST;
    if (list && v->n != 2) return wf_case_fail(c, "config: '%s' must be a number or a list of two", key);
    if (wf_value_int(list ? v->item[0] : v, a) != WF_OK || wf_value_int(list ? v->item[1] : v, b) != WF_OK || *a <= 0 ||
        *b <= 0)
        return wf_case_fail(c, "config: '%s' must be a number or a list of two", key);
    return WF_OK;
}

wf_status wf_case_same(wf_case *c, const char *key, int64_t actual) {
    int64_t said;
    WF_TRY(wf_case_int(c, key, actual, &said));
    if (said == actual) return WF_OK;
    return wf_case_fail(c, "config: '%s' is %lld, but the tensors say %lld", key, (long long)said, (long long)actual);
}

wf_status wf_case_agrees(wf_case *c, const char *key, bool actual) {
    bool said;
    WF_TRY(wf_case_bool(c, key, actual, &said));
    if (said == actual) return WF_OK;
    return wf_case_fail(c, "config: '%s' is %s, but the tensors say %s", key, said ? "true" : "false",
                        actual ? "true" : "false");
}
