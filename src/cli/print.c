/* print.c: numbers for people, wrapped text, and JSON results for programs. */
#include "cli/cli.h"

#include <math.h>
#include <string.h>

static const char *with_prefix(double x, const char *const *unit, int n, char buf[32]) {
    int k = 0;
    while (fabs(x) >= 999.95 && k + 1 < n) x /= 1000, k++;
    snprintf(buf, 32, k == 0 && x == floor(x) ? "%.0f%s" : fabs(x) < 9.995 ? "%.2f%s" : "%.1f%s", x, unit[k]);
    return buf;
}

const char *wf_cli_count(double x, char buf[32]) {
    static const char *const unit[] = {"", " k", " M", " G", " T", " P"};
    return with_prefix(x, unit, 6, buf);
}

const char *wf_cli_bytes(double x, char buf[32]) {
    static const char *const unit[] = {" B", " kB", " MB", " GB", " TB"};
    return with_prefix(x, unit, 5, buf);
}

const char *wf_cli_time(double s, char buf[32]) {
    if (!(s >= 0))
        snprintf(buf, 32, "?");
    else if (s < 1e-3)
        snprintf(buf, 32, "%.1f us", s * 1e6);
    else if (s < 1)
        snprintf(buf, 32, "%.1f ms", s * 1e3);
    else if (s < 60)
        snprintf(buf, 32, "%.1f s", s);
    else if (s < 3600)
        snprintf(buf, 32, "%d min %02d s", (int)(s / 60), (int)fmod(s, 60));
    else
        snprintf(buf, 32, "%d h %02d min", (int)(s / 3600), (int)fmod(s / 60, 60));
    return buf;
}

int wf_cli_print_json(wf_value *v) {
    char *s = v ? wf_value_json(v, true) : NULL;
    wf_value_free(v);
    if (!s) return wf_cli_error("json", WF_ENOMEM);
    printf("%s\n", s);
    wf_free(s);
    return WF_EXIT_OK;
}

void wf_cli_put_value(wf_value *map, const char *key, wf_value *v) {
    if (map && v)
        (void)wf_value_set(map, key, v);
    else
        wf_value_free(v);
}

void wf_cli_put(wf_value *map, const char *key, const char *text) {
    wf_value *v = text ? wf_value_text(text) : NULL;
    if (v) v->quoted = true;
    wf_cli_put_value(map, key, v);
}

/* JSON has no NaN or Inf: such a number is left out. */
void wf_cli_put_number(wf_value *map, const char *key, double x) {
    if (isfinite(x)) wf_cli_put_value(map, key, wf_value_number(x));
}

void wf_cli_put_bool(wf_value *map, const char *key, bool x) {
    wf_cli_put_value(map, key, wf_value_boolean(x));
}

void wf_cli_put_item(wf_value *list, wf_value *v) {
    if (list && v)
        (void)wf_value_append(list, v);
    else
        wf_value_free(v);
}

/* One line of text, broken at spaces; words longer than the line stand alone. */
static void wrap_line(FILE *f, const char *s, size_t n, int indent, int width) {
    size_t room = (size_t)(width > indent + 20 ? width - indent : 20), lead = 0;
    while (lead < n && s[lead] == ' ') lead++; /* continuation lines keep the indentation of the line */
    if (lead > room / 2) lead = 0;
    size_t at = 0, pad = 0;
    while (at < n) {
        size_t take = n - at, limit = room - pad;
        if (take > limit) {
            take = limit;
            while (take > 0 && s[at + take] != ' ') take--;
            if (take == 0) {
                take = limit;
                while (at + take < n && s[at + take] != ' ') take++;
            }
        }
        fprintf(f, "%*s%.*s\n", indent + (int)pad, "", (int)take, s + at);
        at += take;
        while (at < n && s[at] == ' ') at++;
        pad = lead;
    }
    if (n == 0) fputc('\n', f);
}

void wf_cli_wrap(FILE *f, const char *text, int indent, int width) {
    for (const char *p = text; *p;) {
        const char *e = strchr(p, '\n');
        size_t n = e ? (size_t)(e - p) : strlen(p);
        wrap_line(f, p, n, indent, width);
        p += n + (e != NULL);
    }
}
