/* journal.c: log.jsonl of a run: one JSON object a line for every step and validation. */
#include "learn/inside.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct wf_journal {
    FILE *f;
    char *path;
};

/* Step number of a line {"step": N, ..}, -1 if it is none. */
static int64_t line_step(const char *s, size_t n) {
    static const char head[] = "{\"step\": ";
    if (n < sizeof head || memcmp(s, head, sizeof head - 1) || s[n - 1] != '}') return -1;
    return strtoll(s + sizeof head - 1, NULL, 10);
}

/* Lines up to step `keep`; a line that a kill cut short is dropped with the rest. */
static wf_status truncate_log(const char *path, int64_t keep) {
    wf_bytes b;
    WF_TRY(wf_bytes_open(path, &b));
    size_t n = 0;
    while (n < b.n) {
        const char *s = (const char *)b.p + n, *e = memchr(s, '\n', b.n - n);
        if (!e) break;
        int64_t step = line_step(s, (size_t)(e - s));
        if (step < 0 || step > keep) break;
        n += (size_t)(e - s) + 1;
    }
    wf_writer *w = wf_writer_open(path);
    wf_status s = w ? wf_writer_put(w, b.p, n) : WF_EIO;
    if (w && s == WF_OK)
        s = wf_writer_commit(w);
    else if (w)
        wf_writer_abort(w);
    wf_bytes_close(&b);
    return s;
}

wf_journal *wf_journal_open(const char *folder, int64_t keep_steps) {
    wf_journal *j = wf_alloc(sizeof *j);
    if (!j) return NULL;
    j->path = wf_format("%s/log.jsonl", folder);
    bool ok = j->path != NULL;
    if (ok && wf_path_exists(j->path)) ok = truncate_log(j->path, keep_steps) == WF_OK;
    if (ok && !(j->f = fopen(j->path, "a"))) {
        wf_fail(WF_EIO, "%s: %s", j->path, strerror(errno));
        ok = false;
    }
    if (ok) return j;
    wf_journal_close(j);
    return NULL;
}

/* JSON has no NaN: null stands for it. */
static void put(FILE *f, const char *key, double x) {
    if (isfinite(x))
        fprintf(f, ", \"%s\": %.9g", key, x);
    else
        fprintf(f, ", \"%s\": null", key);
}

void wf_journal_step(wf_journal *j, const wf_step_report *r) {
    fprintf(j->f, "{\"step\": %lld", (long long)r->step);
    put(j->f, "loss", r->loss);
    put(j->f, "lr", r->lr);
    put(j->f, "grad_norm", r->grad_norm);
    fprintf(j->f, ", \"tokens\": %lld", (long long)r->tokens);
    put(j->f, "seconds", r->seconds);
    fprintf(j->f, "}\n");
    fflush(j->f);
}

void wf_journal_validation(wf_journal *j, int64_t step, const wf_metrics *m) {
    fprintf(j->f, "{\"step\": %lld", (long long)step);
    put(j->f, "valid_loss", m->loss);
    put(j->f, "accuracy", m->accuracy);
    put(j->f, "bits_per_byte", m->bits_per_byte);
    fprintf(j->f, ", \"scored\": %lld}\n", (long long)m->scored);
    fflush(j->f);
}

wf_status wf_journal_flush(wf_journal *j) {
    if (fflush(j->f) || ferror(j->f) || fsync(fileno(j->f))) return wf_fail(WF_EIO, "%s: %s", j->path, strerror(errno));
    return WF_OK;
}

void wf_journal_close(wf_journal *j) {
    if (!j) return;
    if (j->f) fclose(j->f);
    wf_free(j->path);
    wf_free(j);
}
