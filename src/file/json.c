/* json.c: JSON text (jansson) to a value and back. */
#include "file/value_parts.h"

#include <jansson.h>
#include <string.h>

static wf_value *convert(const json_t *j, const char *file, int depth, int *count);

static wf_value *convert_items(const json_t *j, const char *file, int depth, int *count) {
    bool map = json_is_object(j);
    wf_value *v = map ? wf_value_map() : wf_value_list();
    wf_status s = v ? WF_OK : WF_ENOMEM;
    if (depth >= WF_VALUE_DEPTH) s = wf_fail(WF_EFORMAT, "%s: nested deeper than %d levels", file, WF_VALUE_DEPTH);
    for (void *at = map ? json_object_iter((json_t *)(uintptr_t)j) : NULL; s == WF_OK && at;
         at = json_object_iter_next((json_t *)(uintptr_t)j, at)) {
        wf_value *item = convert(json_object_iter_value(at), file, depth + 1, count);
        s = item ? wf_value_add(v, json_object_iter_key(at), item) : WF_EFORMAT;
    }
    for (size_t i = 0; !map && s == WF_OK && i < json_array_size(j); i++) {
        wf_value *item = convert(json_array_get(j, i), file, depth + 1, count);
        s = item ? wf_value_append(v, item) : WF_EFORMAT;
    }
    if (s == WF_OK) return v;
    wf_value_free(v);
    return NULL;
}

static wf_value *convert(const json_t *j, const char *file, int depth, int *count) {
    wf_value *v = NULL;
    if (++*count > WF_VALUE_COUNT) {
        wf_fail(WF_EFORMAT, "%s: more than %d values", file, WF_VALUE_COUNT);
        return NULL;
    }
    switch (json_typeof(j)) {
    case JSON_OBJECT:
    case JSON_ARRAY: v = convert_items(j, file, depth, count); break;
    case JSON_STRING: v = wf_value_text(json_string_value(j)); break;
    case JSON_TRUE:
    case JSON_FALSE: v = wf_value_boolean(json_is_true(j)); break;
    case JSON_NULL: v = wf_value_null(); break;
    case JSON_REAL: v = wf_value_number(json_real_value(j)); break;
    case JSON_INTEGER: {
        char s[32];
        snprintf(s, sizeof s, "%" JSON_INTEGER_FORMAT, json_integer_value(j));
        v = wf_value_text(s);
        if (v) v->quoted = false;
        break;
    }
    }
    if (v && !v->file) v->file = wf_strdup(file);
    return v;
}

/* jansson keeps no places: line and column are 0, errors name the file. */
wf_value *wf_json_parse(const char *text, size_t n, const char *file) {
    json_error_t e;
    if (!file) file = "JSON";
    if (n > WF_VALUE_BYTES) {
        wf_fail(WF_EFORMAT, "%s: %zu bytes are too long (limit %d)", file, n, (int)WF_VALUE_BYTES);
        return NULL;
    }
    json_t *j = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
    if (!j) {
        wf_fail(WF_EFORMAT, "%s:%d: %s", file, e.line, e.text);
        return NULL;
    }
    int count = 0;
    wf_value *v = convert(j, file, 0, &count);
    json_decref(j);
    return v;
}

/* ---- writing ---- */
/* Length of the well-formed UTF-8 character at s, 0 if it is none (overlong, surrogate, cut). */
static int utf8_length(const unsigned char *s) {
    if (s[0] < 0x80) return 1;
    int n = s[0] >= 0xF0 && s[0] <= 0xF4 ? 4 : s[0] >= 0xE0 && s[0] < 0xF0 ? 3 : s[0] >= 0xC2 && s[0] < 0xE0 ? 2 : 0;
    for (int i = 1; i < n; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    if ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F)) return 0;
    if ((s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] > 0x8F)) return 0;
    return n;
}

void wf_text_json(wf_text *t, const char *s) {
    wf_text_put(t, "\"", 1);
    for (const unsigned char *c = (const unsigned char *)s; *c;) {
        int n = utf8_length(c);
        if (n == 0)
            wf_text_put(t, "\xEF\xBF\xBD", 3);
        else if (*c == '"' || *c == '\\')
            wf_text_add(t, "\\%c", *c);
        else if (*c == '\n')
            wf_text_put(t, "\\n", 2);
        else if (*c == '\t')
            wf_text_put(t, "\\t", 2);
        else if (*c < 0x20 || *c == 0x7F)
            wf_text_add(t, "\\u%04x", *c);
        else
            wf_text_put(t, (const char *)c, (size_t)n);
        c += n ? n : 1;
    }
    wf_text_put(t, "\"", 1);
}

/* JSON knows no leading plus, no bare point, no leading zeros. */
static bool is_json_number(const char *s) {
    if (*s == '-') s++;
    size_t digits = strspn(s, "0123456789");
    if (digits == 0 || (*s == '0' && digits > 1)) return false;
    s += digits;
    if (*s == '.') {
        digits = strspn(s + 1, "0123456789");
        if (digits == 0) return false;
        s += 1 + digits;
    }
    if (*s == 'e' || *s == 'E') {
        s += 1 + (s[1] == '+' || s[1] == '-');
        digits = strspn(s, "0123456789");
        if (digits == 0) return false;
        s += digits;
    }
    return *s == 0;
}

static void put_scalar(wf_text *t, const wf_value *v) {
    double x;
    bool b;
    if (v->quoted)
        wf_text_json(t, v->text);
    else if (wf_text_is_bool(v->text, &b))
        wf_text_add(t, b ? "true" : "false");
    else if (!wf_text_is_number(v->text, &x))
        wf_text_json(t, v->text);
    else if (is_json_number(v->text))
        wf_text_add(t, "%s", v->text);
    else
        wf_text_add(t, "%.17g", x);
}

static void new_line(wf_text *t, bool pretty, int depth) {
    if (pretty) wf_text_add(t, "\n%*s", depth * 2, "");
}

static void put(wf_text *t, const wf_value *v, bool pretty, int depth) {
    if (v->kind == WF_V_NULL) wf_text_put(t, "null", 4);
    if (v->kind == WF_V_TEXT) put_scalar(t, v);
    if (v->kind == WF_V_NULL || v->kind == WF_V_TEXT) return;
    bool map = v->kind == WF_V_MAP;
    wf_text_put(t, map ? "{" : "[", 1);
    for (int i = 0; i < v->n; i++) {
        if (i) wf_text_put(t, ",", 1);
        new_line(t, pretty, depth + 1);
        if (map) {
            wf_text_json(t, v->key[i]);
            wf_text_put(t, ": ", pretty ? 2 : 1);
        }
        put(t, v->item[i], pretty, depth + 1);
    }
    if (v->n) new_line(t, pretty, depth);
    wf_text_put(t, map ? "}" : "]", 1);
}

char *wf_value_json(const wf_value *v, bool pretty) {
    wf_text t = {0};
    if (!v) {
        wf_fail(WF_EINVAL, "no value to write as JSON");
        return NULL;
    }
    put(&t, v, pretty, 0);
    if (!t.failed) return t.s;
    wf_text_free(&t);
    return NULL;
}
