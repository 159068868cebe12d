/* race.c: opening a comparison, advancing its runs in turn, saving and continuing. */
#include "compare/compare.h"
#include "compare/designs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CURVE_POINTS = 400 }; /* about this many points a curve, whatever the number of steps */

static wf_status read_seeds(wf_race *r) {
    const wf_value *v = wf_value_get(r->recipe, "seeds");
    int64_t n = 2;
    if (v != NULL) WF_TRY(wf_value_int(v, &n));
    if (n < 2 || n > 100)
        return wf_value_fail(v, WF_EINVAL, "seeds: %lld: at least 2 and at most 100, so that the spread can be shown",
                             (long long)n);
    r->n_seed = (int)n;
    return WF_OK;
}

static wf_status make_entries(wf_race *r) {
    r->n_entry = r->n_design * r->n_seed;
    r->entry = wf_alloc_array((size_t)r->n_entry, sizeof *r->entry);
    if (r->entry == NULL) return WF_ENOMEM;
    for (int i = 0; i < r->n_entry; i++) {
        r->entry[i].design = i / r->n_seed;
        r->entry[i].seed = i % r->n_seed;
        r->entry[i].last_loss = NAN;
    }
    return WF_OK;
}

char *wf_race_entry_folder(const wf_race *r, const wf_entry *e) {
    return wf_format("%s/%s/seed-%d", r->folder, r->design[e->design].name, e->seed);
}

static void entry_fail(wf_entry *e) {
    e->state = WF_ENTRY_FAILED;
    wf_free(e->failure);
    e->failure = wf_strdup(wf_message());
    wf_run_free(e->run);
    e->run = NULL;
}

/* Build an entry's run; continue its checkpoint when there is one. Failures are results, unless the recipe itself is wrong. */
static wf_status open_entry(wf_race *r, wf_entry *e) {
    wf_value *recipe = wf_value_copy(r->design[e->design].recipe);
    char seed[32];
    snprintf(seed, sizeof seed, "%d", e->seed + 1);
    wf_status s = recipe == NULL ? WF_ENOMEM : wf_value_set_path(recipe, "train.seed", seed);
    if (s == WF_OK) s = wf_value_set_path(recipe, "train.data_seed", seed);
    if (s == WF_OK) {
        e->run = wf_run_new(recipe, r->task);
        if (e->run == NULL) s = WF_EINVAL;
    }
    wf_value_free(recipe);
    if (s != WF_OK) return wf_fail_within(s, "design '%s'", r->design[e->design].name);
    if (!r->design[e->design].described) {
        WF_TRY(wf_run_describe(e->run, &r->design[e->design].cost));
        r->design[e->design].described = true;
    }
    char *folder = wf_race_entry_folder(r, e);
    if (folder == NULL) return WF_ENOMEM;
    s = wf_run_resume(e->run, folder);
    wf_free(folder);
    if (s == WF_ENOTFOUND) s = WF_OK;
    e->steps_done = wf_run_steps_done(e->run);
    e->state = WF_ENTRY_RUNNING;
    return s;
}

/* Results are written after checkpoints, so they may miss the last steps of a killed session, never the reverse. */
static void trim_to_checkpoint(wf_entry *e) {
    while (e->n_curve > 0 && e->curve[e->n_curve - 1].step > e->steps_done) e->n_curve--;
    while (e->n_valid > 0 && e->valid[e->n_valid - 1].step > e->steps_done) e->n_valid--;
    const wf_curve_point *last = e->n_curve > 0 ? &e->curve[e->n_curve - 1] : NULL;
    if (last != NULL && last->step == e->steps_done) {
        e->seconds = last->seconds;
        e->flops = last->flops;
    }
}

wf_race *wf_race_open(const char *path, wf_value *recipe, const char *folder) {
    wf_race *r = wf_alloc(sizeof *r);
    if (r == NULL) {
        wf_value_free(recipe);
        return NULL;
    }
    r->recipe = recipe;
    r->path = wf_strdup(path);
    r->folder = wf_strdup(folder);
    const wf_value *q = wf_value_get(recipe, "question");
    r->question = q != NULL && q->kind == WF_V_TEXT ? q->text : "";
    r->checkpoint_minutes = 5;
    wf_status s = r->path == NULL || r->folder == NULL ? WF_ENOMEM : read_seeds(r);
    if (s == WF_OK) s = wf_designs_read(r);
    if (s == WF_OK) s = make_entries(r);
    if (s == WF_OK) {
        r->task = wf_task_open(wf_value_get(recipe, "task"));
        if (r->task == NULL) s = WF_EINVAL;
    }
    if (s == WF_OK) s = wf_designs_size(r);
    if (s == WF_OK) s = wf_make_folder(folder);
    if (s == WF_OK) {
        s = wf_results_read(r, folder);
        if (s == WF_ENOTFOUND) s = WF_OK;
    }
    for (int i = 0; s == WF_OK && i < r->n_entry; i++) {
        wf_entry *e = &r->entry[i];
        if (e->state == WF_ENTRY_DONE || e->state == WF_ENTRY_FAILED) continue;
        s = open_entry(r, e);
        if (s == WF_ENOMEM) { /* a design over a memory limit is a result */
            entry_fail(e);
            s = WF_OK;
        } else if (s == WF_OK) {
            trim_to_checkpoint(e);
        }
    }
    if (s != WF_OK) {
        wf_race_close(r);
        return NULL;
    }
    r->started = wf_seconds();
    return r;
}

void wf_race_close(wf_race *r) {
    if (r == NULL) return;
    for (int i = 0; r->entry != NULL && i < r->n_entry; i++) {
        wf_entry *e = &r->entry[i];
        wf_run_free(e->run);
        wf_free(e->failure);
        wf_free(e->curve);
        wf_free(e->valid);
        wf_free(e->step_seconds);
    }
    for (int i = 0; r->design != NULL && i < r->n_design; i++) {
        wf_value_free(r->design[i].recipe);
        wf_free(r->design[i].solved);
    }
    wf_free(r->entry);
    wf_free(r->design);
    wf_task_close(r->task);
    wf_value_free(r->recipe);
    wf_free((char *)r->path);
    wf_free((char *)r->folder);
    wf_free(r->machine);
    wf_free(r->command);
    wf_free(r);
}

/* Room for one more item of `size` bytes in a growing array. */
static wf_status grow(void **items, int n, int *cap, size_t size) {
    if (n < *cap) return WF_OK;
    int wanted = *cap > 0 ? 2 * *cap : 64;
    void *p = wf_grow(*items, (size_t)*cap * size, (size_t)wanted * size);
    if (p == NULL) return WF_ENOMEM;
    *items = p;
    *cap = wanted;
    return WF_OK;
}

static wf_status add_valid(wf_entry *e) {
    wf_valid_point p = {.step = e->steps_done, .seconds = e->seconds, .flops = e->flops};
    if (e->n_valid > 0 && e->valid[e->n_valid - 1].step == e->steps_done) return WF_OK;
    WF_TRY(wf_run_validate(e->run, &p.metrics));
    WF_TRY(grow((void **)&e->valid, e->n_valid, &e->cap_valid, sizeof *e->valid));
    e->valid[e->n_valid++] = p;
    return WF_OK;
}

/* Curve points average the training loss over a window of steps, so that the curve is readable and small. */
static wf_status add_curve(wf_entry *e, const wf_step_report *rep, int64_t every, double *sum, int *n) {
    *sum += rep->loss;
    *n += 1;
    if (e->steps_done % every != 0 && e->steps_done != 1) return WF_OK;
    WF_TRY(grow((void **)&e->curve, e->n_curve, &e->cap_curve, sizeof *e->curve));
    e->curve[e->n_curve++] = (wf_curve_point){e->steps_done, *sum / *n, e->seconds, e->flops};
    *sum = 0;
    *n = 0;
    return WF_OK;
}

typedef struct window {
    double sum;
    int n;
} window;

static wf_status advance(wf_entry *e, window *w) {
    const wf_train_opt *o = wf_run_options(e->run);
    wf_step_report rep;
    WF_TRY(wf_run_step(e->run, &rep));
    e->steps_done = rep.step;
    e->seconds += rep.seconds;
    e->flops += rep.flops;
    e->tokens_per_step = rep.tokens;
    e->last_loss = isnan(e->last_loss) ? rep.loss : 0.9 * e->last_loss + 0.1 * rep.loss;
    WF_TRY(grow((void **)&e->step_seconds, e->n_step_seconds, &e->cap_step_seconds, sizeof *e->step_seconds));
    e->step_seconds[e->n_step_seconds++] = rep.seconds;
    int64_t every = o->steps / CURVE_POINTS > 1 ? o->steps / CURVE_POINTS : 1;
    if (o->steps >= 100 && every < 5) every = 5;
    WF_TRY(add_curve(e, &rep, every, &w->sum, &w->n));
    bool last = e->steps_done >= o->steps;
    if (last || (o->valid_every > 0 && e->steps_done % o->valid_every == 0)) WF_TRY(add_valid(e));
    return WF_OK;
}

/* A finished run keeps its weights on disk and gives its memory back. */
static wf_status finish(wf_race *r, wf_entry *e) {
    char *folder = wf_race_entry_folder(r, e);
    wf_status s = folder == NULL ? WF_ENOMEM : wf_run_save(e->run, folder);
    wf_free(folder);
    wf_run_free(e->run);
    e->run = NULL;
    e->state = WF_ENTRY_DONE;
    return s;
}

static wf_status turn(wf_race *r, wf_entry *e, window *w) {
    const wf_train_opt *o = wf_run_options(e->run);
    if (e->steps_done >= o->steps) { /* resumed exactly at its end */
        WF_TRY(add_valid(e));
        return finish(r, e);
    }
    wf_status s = advance(e, w);
    if (s == WF_ENONFINITE || s == WF_ENOMEM) { /* divergence and want of memory are results */
        entry_fail(e);
        return WF_OK;
    }
    WF_TRY(s);
    return e->steps_done >= o->steps ? finish(r, e) : WF_OK;
}

wf_status wf_race_go(wf_race *r, wf_race_show show, void *ctx) {
    window *w = wf_alloc_array((size_t)r->n_entry, sizeof *w);
    if (w == NULL) return WF_ENOMEM;
    double saved = wf_seconds();
    wf_status s = WF_OK;
    for (bool busy = true; busy && s == WF_OK;) {
        busy = false;
        for (int i = 0; i < r->n_entry && s == WF_OK; i++) {
            wf_entry *e = &r->entry[i];
            if (e->state != WF_ENTRY_RUNNING) continue;
            busy = true;
            s = turn(r, e, &w[i]);
            if (s == WF_OK && wf_interrupted()) s = wf_fail(WF_EINTERRUPTED, "stopped; the same command continues");
            if (show != NULL) show(ctx, r, false);
        }
        if (s == WF_OK && wf_seconds() - saved > 60 * r->checkpoint_minutes) {
            s = wf_race_save(r);
            saved = wf_seconds();
        }
    }
    wf_free(w);
    if (s == WF_OK || s == WF_EINTERRUPTED) {
        wf_status saved_ok = wf_race_save(r);
        if (saved_ok != WF_OK)
            s = saved_ok;
        else if (s == WF_EINTERRUPTED)
            wf_fail(s, "stopped; everything is in %s, the same command continues", r->folder);
    }
    if (show != NULL) show(ctx, r, true);
    return s;
}

wf_status wf_race_save(wf_race *r) {
    for (int i = 0; i < r->n_entry; i++) {
        wf_entry *e = &r->entry[i];
        if (e->state != WF_ENTRY_RUNNING || e->run == NULL) continue;
        char *folder = wf_race_entry_folder(r, e);
        wf_status s = folder == NULL ? WF_ENOMEM : wf_run_save(e->run, folder);
        wf_free(folder);
        WF_TRY(s);
    }
    char *json = wf_results_json(r);
    char *path = wf_format("%s/results.json", r->folder), *page = wf_format("%s/report.html", r->folder);
    wf_status s = json == NULL || path == NULL || page == NULL ? WF_ENOMEM : wf_write_text(path, json);
    if (s == WF_OK) s = wf_report_write(r, page);
    wf_free(json);
    wf_free(path);
    wf_free(page);
    return s;
}

static double median_of(const double *v, int n) {
    double *copy = n > 0 ? wf_alloc_array((size_t)n, sizeof *copy) : NULL;
    if (copy == NULL) return NAN;
    memcpy(copy, v, (size_t)n * sizeof *copy);
    double m = wf_median(copy, n);
    wf_free(copy);
    return m;
}

static void mean_sd(const double *v, int n, double *mean, double *sd) {
    double m = 0, q = 0;
    for (int i = 0; i < n; i++) m += v[i] / n;
    for (int i = 0; i < n; i++) q += (v[i] - m) * (v[i] - m);
    *mean = n > 0 ? m : NAN;
    *sd = n > 1 ? sqrt(q / (n - 1)) : NAN;
}

/* Of this process when it ran steps, else as an earlier session measured it. */
double wf_entry_step_seconds(const wf_entry *e) {
    return e->n_step_seconds > 0 ? median_of(e->step_seconds, e->n_step_seconds) : e->step_median;
}

bool wf_entry_diverged(const wf_entry *e) {
    double lowest = INFINITY;
    for (int i = 0; i < e->n_valid; i++) lowest = fmin(lowest, e->valid[i].metrics.loss);
    if (e->state == WF_ENTRY_FAILED) return true;
    return e->n_valid > 0 && !(e->valid[e->n_valid - 1].metrics.loss <= lowest + WF_DIVERGED);
}

void wf_race_summary(const wf_race *r, int design, wf_summary *s) {
    double loss[100], accuracy[100], bits[100], unused;
    int n = 0, n_speed = 0;
    double speed = 0, seconds = 0, flops = 0;
    *s = (wf_summary){0};
    for (int i = 0; i < r->n_seed; i++) {
        const wf_entry *e = &r->entry[design * r->n_seed + i];
        s->done += e->state == WF_ENTRY_DONE;
        s->failed += e->state == WF_ENTRY_FAILED;
        s->diverged += wf_entry_diverged(e);
        double m = wf_entry_step_seconds(e);
        if (e->steps_done > 0 && m > 0 && e->tokens_per_step > 0) speed += (double)e->tokens_per_step / m, n_speed++;
        seconds += e->seconds / r->n_seed;
        flops += e->flops / r->n_seed;
        if (e->state == WF_ENTRY_FAILED || e->n_valid == 0) continue;
        const wf_metrics *q = &e->valid[e->n_valid - 1].metrics;
        loss[n] = q->loss, accuracy[n] = q->accuracy, bits[n] = q->bits_per_byte;
        n++;
    }
    mean_sd(loss, n, &s->loss_mean, &s->loss_sd);
    mean_sd(accuracy, n, &s->accuracy_mean, &unused);
    mean_sd(bits, n, &s->bits_mean, &s->bits_sd);
    s->tokens_per_second = n_speed > 0 ? speed / n_speed : NAN;
    s->train_seconds = seconds;
    s->train_flops = flops;
}
