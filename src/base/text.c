/* text.c: copies of strings, formatted strings, the growing string. */
#define _GNU_SOURCE
#include "base/base.h"

#include <stdlib.h>
#include <string.h>

static char *copy(const char *s, size_t n) {
    char *p = n < PTRDIFF_MAX ? malloc(n + 1) : NULL;
    if (!p) {
        wf_fail(WF_ENOMEM, "out of memory: a text of %zu bytes", n);
        return NULL;
    }
    if (n) memcpy(p, s, n);
    p[n] = 0;
    return p;
}

char *wf_strdup(const char *s) {
    return copy(s, strlen(s));
}

char *wf_strndup(const char *s, size_t n) {
    return copy(s, strnlen(s, n));
}

char *wf_format(const char *fmt, ...) {
    char *p = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&p, fmt, ap);
    va_end(ap);
    if (n >= 0) return p;
    wf_fail(WF_ENOMEM, "out of memory: a formatted text");
    return NULL;
}

/* Room for n more bytes and the closing zero. After a failure the text stays as it is: `failed` tells at the end. */
static bool reserve(wf_text *t, size_t n) {
    if (t->failed) return false;
    if (t->cap > t->n && n < t->cap - t->n) return true;
    size_t cap = t->cap ? t->cap : 128;
    while (cap <= t->n || cap - t->n <= n) {
        if (cap > PTRDIFF_MAX / 2) {
            cap = 0;
            break;
        }
        cap *= 2;
    }
    char *s = cap ? realloc(t->s, cap) : NULL;
    if (!s) {
        t->failed = true;
        wf_fail(WF_ENOMEM, "out of memory: a text of more than %zu bytes", t->n);
        return false;
    }
    t->s = s;
    t->cap = cap;
    return true;
}

void wf_text_put(wf_text *t, const char *bytes, size_t n) {
    if (!reserve(t, n)) return;
    if (n) memcpy(t->s + t->n, bytes, n);
    t->n += n;
    t->s[t->n] = 0;
}

void wf_text_add(wf_text *t, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) t->failed = true;
    if (n < 0 || !reserve(t, (size_t)n)) return;
    va_start(ap, fmt);
    vsnprintf(t->s + t->n, (size_t)n + 1, fmt, ap);
    va_end(ap);
    t->n += (size_t)n;
}

void wf_text_free(wf_text *t) {
    free(t->s);
    *t = (wf_text){0};
}
