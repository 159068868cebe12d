/* table.c: the terminal's table of a race, one row a design, and the verdict in words. */
#include "compare/compare.h"

#include <math.h>
#include <string.h>

/* 1234567 -> "1.23M"; powers of 1000. */
static const char *short_number(double x, char buf[16]) {
    static const char *const unit[] = {"", "k", "M", "G", "T", "P", "E"};
    int u = 0;
    if (!isfinite(x)) return strcpy(buf, "-");
    while (fabs(x) >= 999.5 && u < 6) x /= 1000, u++;
    snprintf(buf, 16, fabs(x) >= 99.95 ? "%.0f%s" : fabs(x) >= 9.995 ? "%.1f%s" : "%.2f%s", x, unit[u]);
    return buf;
}

static const char *loss_text(double mean, double sd, char buf[32]) {
    if (!isfinite(mean)) return strcpy(buf, "-");
    if (isfinite(sd))
        snprintf(buf, 32, "%.4f +-%.4f", mean, sd);
    else
        snprintf(buf, 32, "%.4f", mean);
    return buf;
}

typedef struct row {
    int64_t steps, total;
    double train_loss, left;
    int running, failed;
} row;

/* Where a design's runs stand; `left`: seconds of computing until they are done, at their own pace. */
static row row_of(const wf_race *r, int d) {
    row w = {.train_loss = 0};
    int seen = 0;
    for (int i = 0; i < r->n_seed; i++) {
        const wf_entry *e = &r->entry[d * r->n_seed + i];
        int64_t total = e->run != NULL ? wf_run_options(e->run)->steps : e->steps_done;
        w.steps += e->steps_done;
        w.total += total;
        w.running += e->state == WF_ENTRY_RUNNING;
        w.failed += e->state == WF_ENTRY_FAILED;
        if (e->state == WF_ENTRY_RUNNING && e->steps_done > 0)
            w.left += (double)(total - e->steps_done) * e->seconds / (double)e->steps_done;
        if (isfinite(e->last_loss)) w.train_loss += e->last_loss, seen++;
    }
    w.train_loss = seen > 0 ? w.train_loss / seen : NAN;
    return w;
}

static int name_width(const wf_race *r) {
    size_t n = 12;
    for (int d = 0; d < r->n_design; d++)
        if (strlen(r->design[d].name) > n) n = strlen(r->design[d].name);
    return n < 28 ? (int)n : 28;
}

static void add_row(wf_text *t, const wf_race *r, int d, int columns) {
    wf_summary s;
    wf_race_summary(r, d, &s);
    row w = row_of(r, d);
    char a[32], b[16], c[16], e[16], f[32], line[256];
    const char *state = w.failed == r->n_seed ? "failed" : w.running > 0 ? "running" : w.failed > 0 ? "part failed" : "done";
    int wide = name_width(r),
        n = snprintf(line, sizeof line, "%-*.*s %-11s %5.0f%% %7s  %-17s %7s %8s %8s", wide, wide, r->design[d].name, state,
                     w.total > 0 ? 100.0 * (double)w.steps / (double)w.total : 0.0, loss_text(w.train_loss, NAN, f),
                     loss_text(s.loss_mean, s.loss_sd, a), short_number((double)r->design[d].cost.parameters, b),
                     short_number(s.tokens_per_second, c), short_number((double)r->design[d].cost.peak_bytes, e));
    if (columns > 0 && n > columns) line[columns] = '\0';
    wf_text_add(t, "%s\n", line);
}

char *wf_race_table(const wf_race *r, int columns) {
    wf_text t = {0};
    char head[256];
    snprintf(head, sizeof head, "%-*s %-11s %6s %7s  %-17s %7s %8s %8s", name_width(r), "design", "state", "steps", "train",
             "validation loss", "params", "tokens/s", "memory");
    if (columns > 0 && (int)strlen(head) > columns) head[columns] = '\0';
    wf_text_add(&t, "%s\n", head);
    double left = 0;
    for (int d = 0; d < r->n_design; d++) {
        add_row(&t, r, d, columns);
        left += row_of(r, d).left;
    }
    if (left > 0) wf_text_add(&t, "about %.0f:%02d left\n", floor(left / 60), (int)fmod(left, 60));
    if (t.failed) {
        wf_text_free(&t);
        return NULL;
    }
    return t.s;
}

/* Best and second by mean loss; -1 when there is none. */
static void rank(const wf_race *r, int *best, int *second, wf_summary *sum) {
    *best = *second = -1;
    for (int d = 0; d < r->n_design; d++) {
        wf_race_summary(r, d, &sum[d]);
        if (!isfinite(sum[d].loss_mean) || sum[d].done < r->n_seed) continue;
        if (*best < 0 || sum[d].loss_mean < sum[*best].loss_mean) {
            *second = *best;
            *best = d;
        } else if (*second < 0 || sum[d].loss_mean < sum[*second].loss_mean) {
            *second = d;
        }
    }
}

/* Seeds are paired (same batches), so the difference is taken seed by seed; n is small, so the words are careful. */
static bool wins_every_seed(const wf_race *r, int a, int b) {
    for (int i = 0; i < r->n_seed; i++) {
        const wf_entry *x = &r->entry[a * r->n_seed + i], *y = &r->entry[b * r->n_seed + i];
        if (x->n_valid == 0 || y->n_valid == 0 ||
            x->valid[x->n_valid - 1].metrics.loss >= y->valid[y->n_valid - 1].metrics.loss)
            return false;
    }
    return true;
}

static void add_diverged(wf_text *t, const wf_race *r, const wf_summary *sum) {
    int n = 0;
    for (int d = 0; d < r->n_design; d++) n += sum[d].diverged > 0;
    if (n == 0) return;
    wf_text_add(t, "Diverged (failed, or ended %.1f above the lowest validation loss) in", WF_DIVERGED);
    for (int d = 0, k = 0; d < r->n_design; d++)
        if (sum[d].diverged > 0)
            wf_text_add(t, "%s %s %d of %d", k++ > 0 ? "," : "", r->design[d].name, sum[d].diverged, r->n_seed);
    wf_text_add(t, " seeds; the table says more. ");
}

char *wf_verdict(const wf_race *r) {
    wf_summary *sum = wf_alloc_array((size_t)r->n_design, sizeof *sum);
    if (sum == NULL) return NULL;
    int best, second, open = 0;
    rank(r, &best, &second, sum);
    wf_text t = {0};
    for (int d = 0; d < r->n_design; d++) open += sum[d].done + sum[d].failed < r->n_seed;
    if (open > 0) wf_text_add(&t, "The comparison is still running: %d of %d designs are not finished. ", open, r->n_design);
    if (best >= 0 && second >= 0) {
        double gap = sum[second].loss_mean - sum[best].loss_mean;
        double spread = fmax(sum[best].loss_sd, sum[second].loss_sd);
        bool clear = wins_every_seed(r, best, second) && gap > 2 * spread;
        if (clear)
            wf_text_add(&t,
                        "%s is best: validation loss %.4f, %.4f below %s, in each of %d seeds and by more than twice the "
                        "spread between seeds. ",
                        r->design[best].name, sum[best].loss_mean, gap, r->design[second].name, r->n_seed);
        else
            wf_text_add(&t, "No clear winner: %s (%.4f) and %s (%.4f) differ by %.4f, with a spread between seeds of %.4f. ",
                        r->design[best].name, sum[best].loss_mean, r->design[second].name, sum[second].loss_mean, gap, spread);
    } else if (best >= 0) {
        wf_text_add(&t, "%s: validation loss %.4f. ", r->design[best].name, sum[best].loss_mean);
    }
    add_diverged(&t, r, sum);
    wf_free(sum);
    if (t.failed || t.s == NULL) {
        wf_text_free(&t);
        return wf_strdup("Nothing has been measured.");
    }
    return t.s;
}
