/* options.c: option tables: one declaration gives defaults, parsing, ranges and errors that name the fix. */
#include "file/value_parts.h"

#include <string.h>

/* ---- the nearest word ---- */
enum { WORD_MAX = 63 };

static int least(int a, int b) {
    return a < b ? a : b;
}

/* Edit distance with swapped neighbours (optimal string alignment), three rows of the table at a time. */
static int distance(const char *a, const char *b) {
    int n = (int)strlen(a), m = (int)strlen(b);
    int rows[3][WORD_MAX + 1];
    if (n > WORD_MAX || m > WORD_MAX) return WORD_MAX;
    for (int j = 0; j <= m; j++) rows[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *now = rows[i % 3], *last = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= m; j++) {
            int swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            now[j] = least(least(last[j], now[j - 1]) + 1, last[j - 1] + (a[i - 1] != b[j - 1]));
            if (swap) now[j] = least(now[j], before[j - 2] + 1);
        }
    }
    return rows[n % 3][m];
}

const char *wf_nearest(const char *word, const char *const *words, int n) {
    const char *best = NULL;
    int length = (int)strlen(word), best_d = 2 + (length > 3) + length / 8; /* first distance that is too far */
    for (int i = 0; i < n; i++) {
        int d = distance(word, words[i]);
        bool prefix = length >= 3 && strncmp(word, words[i], (size_t)length) == 0;
        if (prefix) d = least(d, 1);
        if (d >= best_d) continue;
        best = words[i];
        best_d = d;
    }
    return best;
}

/* ---- one option ---- */
typedef struct reading {
    const wf_option *o;
    const wf_value *v;
    const char *what;
} reading;

static const char *shown(const wf_value *v) {
    return v->kind == WF_V_TEXT ? v->text : v->kind == WF_V_MAP ? "a map" : v->kind == WF_V_LIST ? "a list" : "nothing";
}

static wf_status out_of_range(const reading *r) {
    return wf_value_fail(r->v, WF_EINVAL, "%s: '%s' must be between %.15g and %.15g (found %s)", r->what, r->o->name, r->o->min,
                         r->o->max, shown(r->v));
}

static bool in_range(const wf_option *o, double x) {
    return (o->min == 0 && o->max == 0) || (x >= o->min && x <= o->max);
}

static bool is_choice(const char *choices, const char *word) {
    size_t n = strlen(word);
    for (const char *c = choices; c && *c; c += strcspn(c, "|"), c += *c == '|')
        if (strcspn(c, "|") == n && strncmp(c, word, n) == 0) return true;
    return false;
}

static wf_status wrong_kind(const reading *r, const char *expected) {
    return wf_value_fail(r->v, WF_EINVAL, "%s: '%s' must be %s (found %s)", r->what, r->o->name, expected, shown(r->v));
}

static wf_status read_one(const reading *r, char *at) {
    const wf_option *o = r->o;
    int64_t i;
    double x;
    bool b;
    switch (o->type) {
    case WF_OPT_INT:
        if (wf_value_int(r->v, &i) != WF_OK) return wrong_kind(r, "a whole number");
        if (!in_range(o, (double)i)) return out_of_range(r);
        memcpy(at, &i, sizeof i);
        return WF_OK;
    case WF_OPT_REAL:
        if (wf_value_real(r->v, &x) != WF_OK) return wrong_kind(r, "a number");
        if (!in_range(o, x)) return out_of_range(r);
        memcpy(at, &x, sizeof x);
        return WF_OK;
    case WF_OPT_BOOL:
        if (wf_value_bool(r->v, &b) != WF_OK) return wrong_kind(r, "true or false");
        memcpy(at, &b, sizeof b);
        return WF_OK;
    case WF_OPT_TEXT:
    case WF_OPT_CHOICE:
        if (r->v->kind != WF_V_TEXT) return wrong_kind(r, o->type == WF_OPT_TEXT ? "a text" : o->choices);
        if (o->type == WF_OPT_CHOICE && !is_choice(o->choices, r->v->text))
            return wf_value_fail(r->v, WF_EINVAL, "%s: '%s' must be one of %s (found '%s')", r->what, o->name, o->choices,
                                 r->v->text);
        memcpy(at, &r->v->text, sizeof r->v->text);
        return WF_OK;
    case WF_OPT_VALUE: memcpy(at, &r->v, sizeof r->v); return WF_OK;
    }
    return wf_fail(WF_EINVAL, "%s: '%s' has an unknown type in its table", r->what, o->name);
}

/* Texts of a default point into the table itself, numbers are read like those of a recipe. */
static wf_status read_default(const wf_option *o, const char *what, char *at) {
    wf_value v = {.kind = WF_V_TEXT, .text = (char *)(uintptr_t)o->def};
    if (o->type == WF_OPT_VALUE || !*o->def) return WF_OK; /* zeroed: NULL */
    reading r = {o, &v, what};
    return read_one(&r, at);
}

/* ---- the whole table ---- */
static wf_status unknown_key(const wf_option *table, const wf_value *map, int at, const char *what) {
    const char *name[128] = {NULL};
    int n = 0;
    wf_text all = {0};
    for (const wf_option *o = table; o->name && n < 128; o++) {
        wf_text_add(&all, "%s%s", n ? ", " : "", o->name);
        name[n++] = o->name;
    }
    const char *near = wf_nearest(map->key[at], name, n);
    wf_status s = wf_value_fail(map->item[at], WF_EINVAL, "%s: unknown option '%s'%s%s%s (%s%s)", what, map->key[at],
                                near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "",
                                n ? "it has: " : "it has none", n && all.s ? all.s : "");
    wf_text_free(&all);
    return s;
}

static wf_status check_keys(const wf_option *table, const wf_value *map, const char *what, const char *const *also) {
    for (int i = 0; i < map->n; i++) {
        bool known = false;
        for (const wf_option *o = table; o->name && !known; o++) known = strcmp(o->name, map->key[i]) == 0;
        for (const char *const *a = also; a && *a && !known; a++) known = strcmp(*a, map->key[i]) == 0;
        if (!known) return unknown_key(table, map, i, what);
    }
    return WF_OK;
}

wf_status wf_options_read(const wf_option *table, const wf_value *map, const char *what, const char *const *also, void *out,
                          size_t size) {
    memset(out, 0, size);
    if (map && map->kind == WF_V_NULL) map = NULL;
    if (map && map->kind != WF_V_MAP)
        return wf_value_fail(map, WF_EINVAL, "%s: options must be a map of 'name: value' (found %s)", what, shown(map));
    if (map) WF_TRY(check_keys(table, map, what, also));
    for (const wf_option *o = table; o->name; o++) {
        const wf_value *v = map ? wf_value_get(map, o->name) : NULL;
        reading r = {o, v, what};
        if (v && v->kind != WF_V_NULL) /* `window: null` is the default */
            WF_TRY(read_one(&r, (char *)out + o->offset));
        else if (o->def)
            WF_TRY(read_default(o, what, (char *)out + o->offset));
        else
            return wf_value_fail(map, WF_EINVAL, "%s: '%s' is required: %s", what, o->name,
                                 o->help ? o->help : "give it a value");
    }
    return WF_OK;
}
