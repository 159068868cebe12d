/* error.c: the one message that a failing call leaves for its thread. */
#include "base/base.h"

#include <string.h>

enum { MESSAGE_MAX = 4096 };

static _Thread_local char message[MESSAGE_MAX];

/* A message that was cut says so instead of ending in half a character. */
static void mark_cut(char *s, int wanted) {
    if (wanted < MESSAGE_MAX) return;
    size_t end = MESSAGE_MAX - 4;
    while (end > 0 && ((unsigned char)s[end] & 0xC0) == 0x80) end--;
    memcpy(s + end, "...", 4);
}

wf_status wf_fail(wf_status s, const char *fmt, ...) {
    char next[MESSAGE_MAX]; /* the arguments may point into the present message */
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(next, sizeof next, fmt, ap);
    va_end(ap);
    if (n < 0) {
        next[0] = 0;
        n = 0;
    }
    mark_cut(next, n);
    memcpy(message, next, strlen(next) + 1);
    return s;
}

wf_status wf_fail_within(wf_status s, const char *fmt, ...) {
    char next[MESSAGE_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(next, sizeof next, fmt, ap);
    va_end(ap);
    if (n < 0) n = 0;
    if (n >= MESSAGE_MAX) n = MESSAGE_MAX - 1;
    int more = snprintf(next + n, sizeof next - (size_t)n, ": %s", message);
    mark_cut(next, n + more);
    memcpy(message, next, strlen(next) + 1);
    return s;
}

const char *wf_message(void) {
    return message;
}

const char *wf_status_name(wf_status s) {
    switch (s) {
    case WF_OK: return "ok";
    case WF_EINVAL: return "invalid argument";
    case WF_ENOMEM: return "out of memory";
    case WF_EIO: return "input/output error";
    case WF_EFORMAT: return "malformed file";
    case WF_EUNSUPPORTED: return "unsupported";
    case WF_ENOTFOUND: return "not found";
    case WF_EINTERRUPTED: return "interrupted";
    case WF_ENONFINITE: return "not a finite number";
    }
    return "unknown status";
}
