/* train.c: the whole loop of `weft train`: steps, validation, the log, checkpoints on time, at the end and on Ctrl-C. */
#include "learn/inside.h"

#include <string.h>

typedef struct wf_loop {
    wf_run *r;
    const char *folder;
    const wf_train_hooks *hooks;
    wf_journal *log;
    double last_save;
    int64_t saved_step; /* -1: no checkpoint by this process yet */
} wf_loop;

/* The log reaches the disk before the checkpoint that stands on it. */
static wf_status save(wf_loop *l) {
    if (l->saved_step == l->r->step) return WF_OK;
    WF_TRY(wf_journal_flush(l->log));
    WF_TRY(wf_run_save(l->r, l->folder));
    l->saved_step = l->r->step;
    l->last_save = wf_seconds();
    return WF_OK;
}

static wf_status validate(wf_loop *l) {
    wf_metrics m;
    if (l->r->task->count[WF_VALID] <= 0) return WF_OK; /* the task keeps nothing back */
    WF_TRY(wf_run_validate(l->r, &m));
    wf_journal_validation(l->log, l->r->step, &m);
    if (l->hooks && l->hooks->on_validate) l->hooks->on_validate(l->hooks->ctx, l->r->step, &m);
    return WF_OK;
}

static wf_status interrupted(wf_loop *l) {
    WF_TRY(save(l));
    return wf_fail(WF_EINTERRUPTED, "stopped at step %lld; the checkpoint is in %s, --resume goes on from it",
                   (long long)l->r->step, l->folder);
}

static wf_status not_finite(wf_loop *l) {
    if (l->saved_step >= 0)
        return wf_fail_within(WF_ENONFINITE, "%s keeps the last good checkpoint (step %lld)", l->folder,
                              (long long)l->saved_step);
    return wf_fail_within(WF_ENONFINITE, "no checkpoint had been made yet");
}

static wf_status loop(wf_loop *l) {
    const wf_train_opt *o = &l->r->opt;
    bool validated = false;
    while (l->r->step < o->steps) {
        wf_step_report report;
        wf_status s = wf_run_step(l->r, &report);
        if (s == WF_ENONFINITE) return not_finite(l);
        WF_TRY(s);
        wf_journal_step(l->log, &report);
        bool go_on = !l->hooks || !l->hooks->on_step || l->hooks->on_step(l->hooks->ctx, &report);
        validated = false;
        if (!go_on || wf_interrupted()) return interrupted(l);
        if (o->valid_every > 0 && l->r->step % o->valid_every == 0) {
            s = validate(l);
            if (s == WF_EINTERRUPTED) return interrupted(l);
            WF_TRY(s);
            validated = true;
        }
        if (o->checkpoint_minutes > 0 && wf_seconds() - l->last_save >= 60 * o->checkpoint_minutes) WF_TRY(save(l));
    }
    WF_TRY(save(l));
    if (validated) return WF_OK;
    wf_status s = validate(l);
    return s == WF_EINTERRUPTED ? interrupted(l) : s;
}

wf_status wf_train(wf_run *r, const char *folder, const wf_train_hooks *hooks) {
    WF_TRY(wf_make_folder(folder));
    wf_loop l = {.r = r, .folder = folder, .hooks = hooks, .last_save = wf_seconds(), .saved_step = r->step > 0 ? r->step : -1};
    if (!(l.log = wf_journal_open(folder, r->step))) return WF_EIO;
    wf_status s = loop(&l);
    wf_journal_close(l.log);
    return s;
}
