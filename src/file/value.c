/* value.c: the tree that recipes and JSON become: access, building, overlay, typed reading. */
#include "file/value_parts.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- making and unmaking ---- */
static wf_value *make(wf_value_kind kind) {
    wf_value *v = calloc(1, sizeof *v);
    if (!v)
        wf_fail(WF_ENOMEM, "out of memory: a value");
    else
        v->kind = kind;
    return v;
}

void wf_value_free(wf_value *v) {
    if (!v) return;
    for (int i = 0; i < v->n; i++) {
        if (v->key) wf_free(v->key[i]);
        wf_value_free(v->item[i]);
    }
    free(v->key);
    free(v->item);
    wf_free(v->text);
    free((void *)(uintptr_t)v->file);
    free(v);
}

wf_value *wf_value_map(void) {
    return make(WF_V_MAP);
}

wf_value *wf_value_list(void) {
    return make(WF_V_LIST);
}

wf_value *wf_value_null(void) {
    return make(WF_V_NULL);
}

static wf_value *scalar(const char *s, bool quoted) {
    wf_value *v = make(WF_V_TEXT);
    if (!v) return NULL;
    v->quoted = quoted;
    v->text = wf_strdup(s);
    if (v->text) return v;
    wf_value_free(v);
    return NULL;
}

wf_value *wf_value_text(const char *s) {
    return scalar(s, true);
}

wf_value *wf_value_boolean(bool b) {
    return scalar(b ? "true" : "false", false);
}

/* The shortest decimal that reads back as the same double; what is not finite has no JSON form and becomes null. */
wf_value *wf_value_number(double x) {
    char s[40];
    if (!isfinite(x)) return wf_value_null();
    if (x == floor(x) && fabs(x) < 1e15) {
        snprintf(s, sizeof s, "%.0f", x == 0 ? 0.0 : x);
        return scalar(s, false);
    }
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(s, sizeof s, "%.*g", digits, x);
        if (strtod(s, NULL) == x) break;
    }
    return scalar(s, false);
}

/* Arrays have room for the next power of two, so capacity follows from n. */
static bool full(int n) {
    return n == 0 || (n >= 4 && (n & (n - 1)) == 0);
}

static bool widen(void *array, int n) {
    void **a = array;
    size_t cap = n < 4 ? 4 : (size_t)n * 2;
    void *p = n > 1 << 29 ? NULL : realloc(*a, cap * sizeof(void *));
    if (!p) {
        wf_fail(WF_ENOMEM, "out of memory: %d entries", n);
        return false;
    }
    *a = p;
    return true;
}

wf_status wf_value_append(wf_value *list, wf_value *item) {
    if (!list || !item || list->kind != WF_V_LIST || (full(list->n) && !widen(&list->item, list->n))) {
        wf_value_free(item);
        return list && item && list->kind != WF_V_LIST ? wf_fail(WF_EINVAL, "an entry was added to what is no list")
                                                       : WF_ENOMEM;
    }
    list->item[list->n++] = item;
    return WF_OK;
}

/* Adds without looking for the key: parsers check a whole map at once. */
wf_status wf_value_add(wf_value *map, const char *key, wf_value *item) {
    char *k = item ? wf_strdup(key) : NULL;
    if (!k || (full(map->n) && (!widen(&map->item, map->n) || !widen(&map->key, map->n)))) {
        wf_free(k);
        wf_value_free(item);
        return WF_ENOMEM;
    }
    map->key[map->n] = k;
    map->item[map->n++] = item;
    return WF_OK;
}

static int find(const wf_value *map, const char *key) {
    if (!map || map->kind != WF_V_MAP) return -1;
    for (int i = 0; i < map->n; i++)
        if (strcmp(map->key[i], key) == 0) return i;
    return -1;
}

wf_value *wf_value_get(const wf_value *map, const char *key) {
    int i = find(map, key);
    if (i < 0) return NULL;
    map->item[i]->used = true;
    return map->item[i];
}

wf_status wf_value_set(wf_value *map, const char *key, wf_value *item) {
    if (!item) return WF_ENOMEM; /* the failing constructor left the message */
    if (!map || map->kind != WF_V_MAP) {
        wf_value_free(item);
        return wf_fail(WF_EINVAL, "'%s' was set in what is no map", key);
    }
    int i = find(map, key);
    if (i < 0) return wf_value_add(map, key, item);
    wf_value_free(map->item[i]);
    map->item[i] = item;
    return WF_OK;
}

static bool place(wf_value *v, const char *file, int line, int column) {
    v->line = line;
    v->column = column;
    v->file = file ? wf_strdup(file) : NULL;
    return !file || v->file;
}

static wf_value *copy_head(const wf_value *v) {
    wf_value *c = v->kind == WF_V_TEXT ? scalar(v->text, v->quoted) : make(v->kind);
    if (c && place(c, v->file, v->line, v->column)) return c;
    wf_value_free(c);
    return NULL;
}

wf_value *wf_value_copy(const wf_value *v) {
    wf_value *c = v ? copy_head(v) : NULL;
    for (int i = 0; c && i < v->n; i++) {
        wf_value *item = wf_value_copy(v->item[i]);
        wf_status s = !item ? WF_ENOMEM : v->kind == WF_V_MAP ? wf_value_add(c, v->key[i], item) : wf_value_append(c, item);
        if (s == WF_OK) continue;
        wf_value_free(c);
        return NULL;
    }
    return c;
}

static wf_status open_up(wf_value **at);

/* The options of one part mean nothing to another: a map that names another part replaces the old one. */
static bool names_another(const wf_value *old, const wf_value *next) {
    int i = find(old, "name"), j = find(next, "name");
    const char *was = old->kind == WF_V_TEXT                      ? old->text
                      : i >= 0 && old->item[i]->kind == WF_V_TEXT ? old->item[i]->text
                                                                  : NULL;
    const char *is = j >= 0 && next->item[j]->kind == WF_V_TEXT ? next->item[j]->text : NULL;
    return is && (!was || strcmp(was, is) != 0);
}

static wf_status overlay(wf_value *base, const wf_value *over) {
    for (int i = 0; i < over->n; i++) {
        int at = find(base, over->key[i]);
        const wf_value *next = over->item[i];
        bool both =
            at >= 0 && next->kind == WF_V_MAP && (base->item[at]->kind == WF_V_MAP || base->item[at]->kind == WF_V_TEXT);
        if (both && !names_another(base->item[at], next)) {
            WF_TRY(open_up(&base->item[at]));
            WF_TRY(overlay(base->item[at], next));
        } else
            WF_TRY(wf_value_set(base, over->key[i], wf_value_copy(next)));
    }
    return WF_OK;
}

wf_value *wf_value_merge(const wf_value *base, const wf_value *over) {
    if (!base || !over || base->kind != WF_V_MAP || over->kind != WF_V_MAP) return wf_value_copy(over ? over : base);
    wf_value *v = wf_value_copy(base);
    if (v && overlay(v, over) == WF_OK) return v;
    wf_value_free(v);
    return NULL;
}

/* ---- dotted paths ---- */
/* The entry that one word of a path names: the pointer to it in its parent, made when it is absent from a map. */
static wf_value **slot_of(wf_value *v, const char *word, const char *path) {
    if (v->kind == WF_V_LIST) {
        char *end;
        long i = strtol(word, &end, 10);
        if (*word && !*end && i >= 0 && i < v->n) return &v->item[i];
        wf_fail(WF_EINVAL, "--set %s: '%s' must be a number below %d: the list has %d entries", path, word, v->n, v->n);
        return NULL;
    }
    int at = find(v, word);
    if (at < 0) {
        if (wf_value_add(v, word, wf_value_map()) != WF_OK) return NULL;
        at = v->n - 1;
    }
    return &v->item[at];
}

/* `mixer: softmax` is short for `mixer: {name: softmax}`; a path that goes below it writes it out. */
static wf_status open_up(wf_value **at) {
    wf_value *old = *at;
    if (old->kind == WF_V_MAP || old->kind == WF_V_LIST) return WF_OK;
    wf_value *map = wf_value_map();
    if (!map || !place(map, old->file, old->line, old->column)) {
        wf_value_free(map);
        return WF_ENOMEM;
    }
    *at = map;
    if (old->kind == WF_V_TEXT) return wf_value_add(map, "name", old);
    wf_value_free(old);
    return WF_OK;
}

static wf_status put_at(wf_value *root, char *words, const char *path, wf_value **item) {
    wf_value *v = root;
    for (int depth = 0;; depth++) {
        char *dot = strchr(words, '.');
        if (dot) *dot = 0;
        if (!*words) return wf_fail(WF_EINVAL, "--set %s: an empty name between dots", path);
        if (depth >= WF_VALUE_DEPTH) return wf_fail(WF_EINVAL, "--set %s: deeper than %d levels", path, WF_VALUE_DEPTH);
        wf_value **at = slot_of(v, words, path);
        if (!at) return WF_EINVAL;
        if (!dot) {
            wf_value_free(*at);
            *at = *item;
            *item = NULL;
            return WF_OK;
        }
        WF_TRY(open_up(at));
        v = *at;
        words = dot + 1;
    }
}

wf_status wf_value_set_path(wf_value *root, const char *path, const char *yaml_text) {
    if (!root || root->kind != WF_V_MAP) return wf_fail(WF_EINVAL, "--set %s: the recipe is no map", path);
    char *label = wf_format("--set %s", path), *words = wf_strdup(path);
    wf_value *item = NULL;
    wf_status s = label && words ? WF_OK : WF_ENOMEM;
    if (s == WF_OK) {
        item = wf_yaml_parse(yaml_text, strlen(yaml_text), label);
        s = item ? put_at(root, words, path, &item) : WF_EINVAL;
    }
    wf_value_free(item);
    wf_free(label);
    wf_free(words);
    return s;
}

/* Dotted path of the first entry that nobody asked for, NULL if all were; free with wf_free. */
char *wf_value_unused(const wf_value *v) {
    for (int i = 0; v && v->kind == WF_V_MAP && i < v->n; i++) {
        if (!v->item[i]->used) return wf_strdup(v->key[i]);
        char *below = wf_value_unused(v->item[i]);
        if (!below) continue;
        char *path = wf_format("%s.%s", v->key[i], below);
        wf_free(below);
        return path;
    }
    return NULL;
}

/* ---- errors and typed reading ---- */
wf_status wf_value_fail(const wf_value *v, wf_status s, const char *fmt, ...) {
    wf_text t = {0};
    if (v && v->file && v->line > 0)
        wf_text_add(&t, "%s:%d: ", v->file, v->line);
    else if (v && v->file)
        wf_text_add(&t, "%s: ", v->file);
    va_list ap;
    va_start(ap, fmt);
    char body[2048];
    vsnprintf(body, sizeof body, fmt, ap);
    va_end(ap);
    wf_text_add(&t, "%s", body);
    wf_fail(s, "%s", t.s ? t.s : body);
    wf_text_free(&t);
    return s;
}

static const char *found(const wf_value *v, char buf[64]) {
    if (!v) return "nothing";
    if (v->kind == WF_V_NULL) return "nothing";
    if (v->kind == WF_V_LIST) return "a list";
    if (v->kind == WF_V_MAP) return "a map";
    snprintf(buf, 64, v->quoted ? "the text \"%.40s\"" : "'%.40s'", v->text);
    return buf;
}

/* Digits, one sign, point and exponent: what strtod takes beyond that (hex, inf, nan, blanks) is no number here. */
bool wf_text_is_number(const char *s, double *x) {
    if (!*s || strspn(s, "+-.0123456789eE") != strlen(s)) return false;
    const char *digit = s + strcspn(s, "0123456789");
    if (!*digit || strchr("eE", *s)) return false;
    char *end;
    errno = 0;
    *x = strtod(s, &end);
    return *end == 0 && isfinite(*x);
}

wf_status wf_value_real(const wf_value *v, double *out) {
    char buf[64];
    if (v && v->kind == WF_V_TEXT && !v->quoted && wf_text_is_number(v->text, out)) return WF_OK;
    return wf_value_fail(v, WF_EINVAL, "a number was expected, found %s", found(v, buf));
}

/* "20000" and "2e4" are the same whole number. */
wf_status wf_value_int(const wf_value *v, int64_t *out) {
    char buf[64];
    double x;
    if (v && v->kind == WF_V_TEXT && !v->quoted) {
        char *end;
        errno = 0;
        long long n = strtoll(v->text, &end, 10);
        if (end != v->text && *end == 0 && errno == 0 && !strchr(" \t\n", v->text[0])) {
            *out = n;
            return WF_OK;
        }
        if (wf_text_is_number(v->text, &x) && x == floor(x) && fabs(x) <= 0x1p53 && strpbrk(v->text, ".eE")) {
            *out = (int64_t)x;
            return WF_OK;
        }
    }
    return wf_value_fail(v, WF_EINVAL, "a whole number was expected, found %s", found(v, buf));
}

bool wf_text_is_bool(const char *s, bool *b) {
    *b = strcmp(s, "true") == 0 || strcmp(s, "True") == 0 || strcmp(s, "TRUE") == 0;
    return *b || strcmp(s, "false") == 0 || strcmp(s, "False") == 0 || strcmp(s, "FALSE") == 0;
}

wf_status wf_value_bool(const wf_value *v, bool *out) {
    char buf[64];
    if (v && v->kind == WF_V_TEXT && !v->quoted && wf_text_is_bool(v->text, out)) return WF_OK;
    return wf_value_fail(v, WF_EINVAL, "true or false was expected, found %s", found(v, buf));
}

bool wf_text_is_null(const char *s) {
    return !*s || strcmp(s, "~") == 0 || strcmp(s, "null") == 0 || strcmp(s, "Null") == 0 || strcmp(s, "NULL") == 0;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted, so that a hostile map of a hundred thousand keys costs no time. */
const char *wf_value_twice(const wf_value *map) {
    if (map->n < 2) return NULL;
    const char **key = wf_alloc_array((size_t)map->n, sizeof *key);
    const char *twice = NULL;
    if (!key) return map->key[0];
    memcpy(key, map->key, (size_t)map->n * sizeof *key);
    qsort(key, (size_t)map->n, sizeof *key, by_text);
    for (int i = 1; i < map->n && !twice; i++)
        if (strcmp(key[i - 1], key[i]) == 0) twice = key[i];
    wf_free(key);
    return twice;
}
