/* store.c: FOLDER/results.jsonl: a line for every finished cell, appended when it is finished, so that nothing finished is ever
 * lost. A line counts for every cell that has its key: a hash of all that decides the figures.
 */
#include "lab/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char VERSION[] = "weft-reproduce-1"; /* changes when the same recipe would give other figures */

/* ---- keys ---- */
static uint64_t mix(uint64_t h, const void *p, size_t n) {
    return wf_hash(p, n, h);
}

static uint64_t time_key(const wf_lab *l, const wf_claim *c, char *const *recipe, int design, int seed) {
    uint64_t h = mix(2, VERSION, sizeof VERSION);
    for (int d = 0; d < c->n_design; d++) h = mix(h, recipe[d], strlen(recipe[d]));
    int64_t form[] = {c->timing.batch, c->timing.length, c->timing.calls, c->want[WF_Q_FOLDED_MS], design, seed};
    h = mix(h, form, sizeof form);
    return mix(h, l->machine, strlen(l->machine)) | 1;
}

static uint64_t train_key(const wf_claim *c, const char *recipe, int seed) {
    uint64_t h = mix(mix(1, VERSION, sizeof VERSION), recipe, strlen(recipe));
    int64_t form[] = {seed, c->want[WF_Q_TRAIN_MODE] || c->want[WF_Q_GAP], c->want[WF_Q_VARIANCE],
                      c->want[WF_Q_ENTROPY] || c->want[WF_Q_ENTROPY_MAX],
                      c->want[WF_Q_FOLDED_LOSS] || c->want[WF_Q_FOLDED_CHANGE]};
    return mix(h, form, sizeof form) | 1;
}

wf_status wf_store_keys(const wf_lab *l, wf_lab_claim *item) {
    const wf_claim *c = item->claim;
    char **recipe = wf_alloc_array((size_t)c->n_design, sizeof *recipe);
    wf_status s = recipe ? WF_OK : WF_ENOMEM;
    for (int d = 0; s == WF_OK && d < c->n_design; d++)
        if (!(recipe[d] = wf_value_json(c->design[d].recipe, false))) s = WF_ENOMEM;
    bool timed = c->want[WF_Q_MS] || c->want[WF_Q_FOLDED_MS];
    for (int d = 0; s == WF_OK && d < c->n_design; d++) {
        bool experiment = wf_value_get(c->design[d].recipe, "experiment") != NULL;
        for (int i = 0; i < (int)c->seeds; i++) {
            wf_cell *cell = wf_lab_cell(item, d, i);
            if (wf_claim_trains(&c->design[d]) || experiment) cell->key = train_key(c, recipe[d], i);
            if (timed && !experiment) cell->time_key = time_key(l, c, recipe, d, i);
        }
    }
    for (int d = 0; recipe && d < c->n_design; d++) wf_free(recipe[d]);
    wf_free(recipe);
    return s;
}

/* ---- lines ---- */
static void put_number(wf_text *t, double x) {
    if (isinf(x))
        wf_text_add(t, x > 0 ? "\"inf\"" : "\"-inf\""); /* JSON has no infinity */
    else
        wf_text_add(t, "%.17g", x);
}

char *wf_store_line(const wf_lab *l, const wf_lab_claim *item, int design, int seed, bool timing, const wf_cell_result *r) {
    const wf_cell *cell = wf_lab_cell(item, design, seed);
    wf_text t = {0};
    wf_text_add(&t, "{\"key\": \"%016llx\", \"claim\": ", (unsigned long long)(timing ? cell->time_key : cell->key));
    wf_text_json(&t, item->claim->name);
    wf_text_add(&t, ", \"design\": ");
    wf_text_json(&t, item->claim->design[design].name);
    wf_text_add(&t, ", \"seed\": %d, \"timing\": %s, \"seconds\": %.3f, \"diverged\": ", seed + 1, timing ? "true" : "false",
                r->seconds);
    wf_text_json(&t, r->diverged);
    wf_text_add(&t, ", \"machine\": ");
    wf_text_json(&t, l->machine);
    wf_text_add(&t, ", \"values\": {");
    int n = 0;
    for (int q = 0; q < WF_Q_COUNT; q++) {
        if (isnan(r->value[q])) continue;
        wf_text_add(&t, "%s\"%s\": ", n++ ? ", " : "", wf_quantities[q].name);
        put_number(&t, r->value[q]);
    }
    wf_text_add(&t, "}}");
    if (!t.failed) return t.s;
    wf_text_free(&t);
    return NULL;
}

static double number(const wf_value *v) {
    double x = NAN;
    if (!v || v->kind != WF_V_TEXT) return NAN;
    if (!strcmp(v->text, "inf")) return INFINITY;
    if (!strcmp(v->text, "-inf")) return -INFINITY;
    return wf_value_real(v, &x) == WF_OK ? x : NAN;
}

static void give(wf_cell *cell, const wf_value *v, bool timing) {
    const wf_value *values = wf_value_get(v, "values"), *why = wf_value_get(v, "diverged");
    for (int q = 0; q < WF_Q_COUNT; q++) {
        double x = number(wf_value_get(values, wf_quantities[q].name));
        if (!isnan(x)) cell->result.value[q] = x;
    }
    double seconds = number(wf_value_get(v, "seconds"));
    if (!isnan(seconds)) cell->result.seconds += seconds;
    if (why && why->kind == WF_V_TEXT && *why->text)
        snprintf(cell->result.diverged, sizeof cell->result.diverged, "%s", why->text);
    if (timing)
        cell->timed = true;
    else
        cell->trained = true;
    if ((cell->trained || !cell->key) && (cell->timed || !cell->time_key)) cell->state = WF_CELL_DONE;
}

bool wf_store_take(wf_lab *l, const char *line, size_t n) {
    wf_value *v = wf_json_parse(line, n, "results.jsonl");
    const wf_value *key = v ? wf_value_get(v, "key") : NULL;
    char *end = NULL;
    uint64_t k = key && key->kind == WF_V_TEXT ? strtoull(key->text, &end, 16) : 0;
    bool good = k && end && !*end && wf_value_get(v, "values");
    for (int i = 0; good && i < l->n; i++)
        for (int j = 0; j < l->item[i].claim->n_design * (int)l->item[i].claim->seeds; j++) {
            wf_cell *cell = &l->item[i].cell[j];
            if (cell->key == k && !cell->trained) give(cell, v, false);
            if (cell->time_key == k && !cell->timed) give(cell, v, true);
        }
    wf_value_free(v);
    return good;
}

/* ---- the file ---- */
static char *path_of(const wf_lab *l) {
    return wf_format("%s/results.jsonl", l->folder);
}

wf_status wf_store_append(const wf_lab *l, const char *line, size_t n) {
    char *path = path_of(l), *whole = wf_format("%.*s\n", (int)n, line);
    int fd = path && whole ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;
    wf_status s = WF_OK;
    if (fd < 0 || write(fd, whole, n + 1) != (ssize_t)n + 1 || fsync(fd)) s = wf_fail(WF_EIO, "%s: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    wf_free(path);
    wf_free(whole);
    return s;
}

/* Whether a line belongs to one of the claims (by key), so that --fresh drops it. */
static bool is_ours(const wf_lab *l, const char *line, size_t n) {
    static const char head[] = "{\"key\": \"";
    if (n < sizeof head + 16 || memcmp(line, head, sizeof head - 1)) return true; /* not a whole line: drop it too */
    uint64_t k = strtoull(line + sizeof head - 1, NULL, 16);
    for (int i = 0; i < l->n; i++)
        for (int j = 0; j < l->item[i].claim->n_design * (int)l->item[i].claim->seeds; j++)
            if (l->item[i].cell[j].key == k || l->item[i].cell[j].time_key == k) return true;
    return false;
}

static wf_status rewrite(const wf_lab *l, const char *path, const wf_bytes *b) {
    wf_writer *w = wf_writer_open(path);
    wf_status s = w ? WF_OK : WF_EIO;
    for (size_t at = 0; s == WF_OK && at < b->n;) {
        const char *line = (const char *)b->p + at, *stop = memchr(line, '\n', b->n - at);
        size_t n = stop ? (size_t)(stop - line) : b->n - at;
        if (!is_ours(l, line, n)) s = wf_writer_put(w, line, n + (stop ? 1 : 0));
        at += n + 1;
    }
    if (w && s == WF_OK) return wf_writer_commit(w);
    if (w) wf_writer_abort(w);
    return s;
}

wf_status wf_lab_load(wf_lab *l, bool fresh) {
    WF_TRY(wf_make_folder(l->folder));
    char *path = path_of(l);
    if (!path) return WF_ENOMEM;
    wf_bytes b = {0};
    wf_status s = wf_path_exists(path) ? wf_bytes_open(path, &b) : WF_OK;
    if (s == WF_OK && fresh && b.n) s = rewrite(l, path, &b);
    for (size_t at = 0; s == WF_OK && !fresh && at < b.n;) {
        const char *line = (const char *)b.p + at, *stop = memchr(line, '\n', b.n - at);
        if (!stop) break; /* a killed writer's half line */
        wf_store_take(l, line, (size_t)(stop - line));
        at += (size_t)(stop - line) + 1;
    }
    wf_bytes_close(&b);
    wf_free(path);
    return s;
}
