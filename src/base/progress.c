/* progress.c: how far long work is: one line that rewrites itself on a terminal, plain lines elsewhere (stderr). */
#include "base/base.h"

#include <sys/ioctl.h>
#include <unistd.h>

static const double EVERY_TTY = 0.2, EVERY_PLAIN = 10.0; /* seconds between lines */

static const char *duration(double s, char buf[32]) {
    if (!(s >= 0) || s > 359999.0) return "?";
    int64_t t = (int64_t)(s + 0.5);
    if (t < 60)
        snprintf(buf, 32, "%ds", (int)t);
    else if (t < 3600)
        snprintf(buf, 32, "%dm%02ds", (int)(t / 60), (int)(t % 60));
    else
        snprintf(buf, 32, "%dh%02dm", (int)(t / 3600), (int)(t / 60 % 60));
    return buf;
}

/* A line that is longer than the terminal is wide could not be rewritten. */
static void cut_to_terminal(wf_text *line) {
    struct winsize w;
    if (line->failed || ioctl(STDERR_FILENO, TIOCGWINSZ, &w) != 0 || w.ws_col < 2 || line->n < w.ws_col) return;
    line->n = w.ws_col - 1u;
    while (line->n > 0 && ((unsigned char)line->s[line->n] & 0xC0) == 0x80) line->n--; /* whole characters */
    line->s[line->n] = 0;
}

static void show(const wf_progress *p, const char *note, bool last) {
    char left[32];
    double passed = wf_seconds() - p->started;
    double rate = passed > 0 ? (double)(p->done - p->from) / passed : 0;
    wf_text line = {0};
    wf_text_add(&line, "%s: %lld", p->what, (long long)p->done);
    if (p->total > 0) wf_text_add(&line, "/%lld", (long long)p->total);
    if (p->unit && *p->unit) wf_text_add(&line, " %s%s", p->unit, p->total == 1 || p->unit[0] == 0 ? "" : "s");
    if (rate > 0) wf_text_add(&line, rate < 10 ? ", %.2f/s" : ", %.0f/s", rate);
    if (last)
        wf_text_add(&line, ", took %s", duration(passed, left));
    else if (p->total > p->done && rate > 0)
        wf_text_add(&line, ", %s left", duration((double)(p->total - p->done) / rate, left));
    if (note && *note) wf_text_add(&line, ", %s", note);
    if (p->tty) cut_to_terminal(&line);
    if (!line.failed && p->tty)
        fprintf(stderr, "\r\033[K%s%s", line.s, last ? "\n" : "");
    else if (!line.failed)
        fprintf(stderr, "%s\n", line.s);
    fflush(stderr);
    wf_text_free(&line);
}

void wf_progress_start(wf_progress *p, const char *what, const char *unit, int64_t total) {
    bool quiet = p->quiet;
    double now = wf_seconds();
    *p = (wf_progress){.what = what, .unit = unit, .total = total, .started = now, .last = now, .quiet = quiet};
    p->tty = isatty(STDERR_FILENO) == 1;
}

void wf_progress_show(wf_progress *p, int64_t done, const char *note) {
    double now = wf_seconds();
    p->done = done;
    if (p->quiet || now - p->last < (p->tty ? EVERY_TTY : EVERY_PLAIN)) return;
    p->last = now;
    show(p, note, false);
}

void wf_progress_end(wf_progress *p, const char *note) {
    if (!p->quiet) show(p, note, true);
}
