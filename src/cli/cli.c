/* cli.c: arguments from one table a verb, the help made of that table, errors and exit codes. */
#include "cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int64_t threads_wanted; /* --threads, common to all verbs */

static const wf_cli_option common[] = {
    {"threads", 0, WF_CLI_INT, &threads_wanted, "N", "threads to compute with (default: the cores this process may use)"},
    {"help", 'h', WF_CLI_FLAG, NULL, NULL, "this text"},
    WF_CLI_END,
};

static void print_option(const wf_cli_option *o) {
    char left[80];
    int n = o->letter ? snprintf(left, sizeof left, "-%c, --%s", o->letter, o->name)
                      : snprintf(left, sizeof left, "    --%s", o->name);
    if (o->value) snprintf(left + n, sizeof left - (size_t)n, " %s", o->value);
    if (strlen(left) > 26) {
        printf("  %s\n", left);
        wf_cli_wrap(stdout, o->help, 30, 100);
        return;
    }
    char *line = wf_format("%-28s%s", left, o->help);
    if (!line) return;
    if (strlen(line) <= 98) {
        printf("  %s\n", line);
    } else {
        printf("  %s\n", left);
        wf_cli_wrap(stdout, o->help, 30, 100);
    }
    wf_free(line);
}

static void print_help(const wf_cli_spec *s) {
    printf("usage: weft %s %s\n\n", s->verb, s->synopsis);
    wf_cli_wrap(stdout, s->about, 0, 100);
    printf("\noptions:\n");
    for (const wf_cli_option *o = s->options; o && o->name; o++) print_option(o);
    for (const wf_cli_option *o = common; o->name; o++) print_option(o);
    if (s->examples && *s->examples) {
        printf("\nexamples:\n");
        wf_cli_wrap(stdout, s->examples, 2, 120);
    }
}

static const wf_cli_option *find_long(const wf_cli_option *table, const char *name, size_t n) {
    for (const wf_cli_option *o = table; o && o->name; o++)
        if (strlen(o->name) == n && !memcmp(o->name, name, n)) return o;
    return NULL;
}

static const wf_cli_option *find_letter(const wf_cli_option *table, char c) {
    for (const wf_cli_option *o = table; o && o->name; o++)
        if (o->letter == c) return o;
    return NULL;
}

static int unknown_option(const wf_cli_spec *s, const char *name) {
    const char *names[64];
    int n = 0;
    for (const wf_cli_option *o = s->options; o && o->name && n < 60; o++) names[n++] = o->name;
    for (const wf_cli_option *o = common; o->name; o++) names[n++] = o->name;
    const char *near = wf_nearest(name, names, n);
    if (near) return wf_cli_usage(s->verb, "there is no option --%s; did you mean --%s?", name, near);
    return wf_cli_usage(s->verb, "there is no option --%s; `weft %s --help` lists them", name, s->verb);
}

/* Store one value; -1 to go on or the exit code. */
static int store(const wf_cli_spec *s, const wf_cli_option *o, const char *text) {
    char *end = NULL;
    errno = 0;
    switch (o->type) {
    case WF_CLI_FLAG: *(bool *)o->out = true; return -1;
    case WF_CLI_TEXT: *(const char **)o->out = text; return -1;
    case WF_CLI_INT: {
        long long v = strtoll(text, &end, 10);
        if (end == text || *end || errno) return wf_cli_usage(s->verb, "--%s wants a whole number, not '%s'", o->name, text);
        *(int64_t *)o->out = v;
        return -1;
    }
    case WF_CLI_REAL: {
        double v = strtod(text, &end);
        if (end == text || *end || errno || v != v)
            return wf_cli_usage(s->verb, "--%s wants a number, not '%s'", o->name, text);
        *(double *)o->out = v;
        return -1;
    }
    case WF_CLI_LIST: {
        wf_cli_list *l = o->out;
        if (l->n >= WF_CLI_MAX_WORDS)
            return wf_cli_usage(s->verb, "--%s was given more than %d times", o->name, WF_CLI_MAX_WORDS);
        l->item[l->n++] = text;
        return -1;
    }
    }
    return -1;
}

/* One option at argv[*i]; moves *i past its value. */
static int take_option(const wf_cli_spec *s, int argc, char **argv, int *i) {
    const char *a = argv[*i];
    const wf_cli_option *o;
    const char *inline_value = NULL;
    if (a[1] == '-') {
        const char *eq = strchr(a + 2, '=');
        size_t n = eq ? (size_t)(eq - a - 2) : strlen(a + 2);
        o = find_long(s->options, a + 2, n);
        if (!o) o = find_long(common, a + 2, n);
        if (eq) inline_value = eq + 1;
        if (!o) {
            char *name = wf_strndup(a + 2, n);
            int code = unknown_option(s, name ? name : "");
            wf_free(name);
            return code;
        }
    } else {
        o = find_letter(s->options, a[1]);
        if (!o) o = find_letter(common, a[1]);
        if (!o) return wf_cli_usage(s->verb, "there is no option -%c; `weft %s --help` lists them", a[1], s->verb);
        if (a[2]) inline_value = a + 2; /* -n200 */
    }
    if (o->type == WF_CLI_FLAG) {
        if (inline_value) return wf_cli_usage(s->verb, "--%s takes no value", o->name);
        return store(s, o, NULL);
    }
    if (inline_value) return store(s, o, inline_value);
    if (*i + 1 >= argc) return wf_cli_usage(s->verb, "--%s needs a value: --%s %s", o->name, o->name, o->value);
    return store(s, o, argv[++*i]);
}

int wf_cli_parse(const wf_cli_spec *s, int argc, char **argv, wf_cli_list *words) {
    words->n = 0;
    threads_wanted = 0;
    bool plain = false;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--"))
            break;
        else if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            print_help(s);
            return WF_EXIT_OK;
        }
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (!plain && !strcmp(a, "--")) {
            plain = true;
        } else if (plain || a[0] != '-' || !a[1]) {
            if (words->n >= WF_CLI_MAX_WORDS) return wf_cli_usage(s->verb, "more than %d arguments", WF_CLI_MAX_WORDS);
            words->item[words->n++] = a;
        } else {
            int code = take_option(s, argc, argv, &i);
            if (code >= 0) return code;
        }
    }
    if (words->n < s->min_words || (s->max_words >= 0 && words->n > s->max_words)) {
        const char *what = words->n < s->min_words ? "an argument is missing" : "too many arguments";
        return wf_cli_usage(s->verb, "%s\nusage: weft %s %s", what, s->verb, s->synopsis);
    }
    if (threads_wanted < 0 || threads_wanted > 4096) return wf_cli_usage(s->verb, "--threads must be between 1 and 4096");
    if (threads_wanted) wf_set_threads((int)threads_wanted);
    return -1;
}

int wf_cli_error(const char *verb, wf_status s) {
    fprintf(stderr, "weft %s: %s\n", verb, *wf_message() ? wf_message() : wf_status_name(s));
    switch (s) {
    case WF_OK: return WF_EXIT_OK;
    case WF_EINVAL:
    case WF_EFORMAT:
    case WF_EUNSUPPORTED:
    case WF_ENOTFOUND: return WF_EXIT_USAGE;
    case WF_EINTERRUPTED: return WF_EXIT_INTERRUPTED;
    default: return WF_EXIT_FAILED;
    }
}

int wf_cli_usage(const char *verb, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "weft %s: ", verb);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return WF_EXIT_USAGE;
}
