/* compare.h: the race: several designs, one task, one budget, several seeds; and the report of it.
 *
 * A comparison's recipe has `task`, `model` and `train` like any other (the base), and `designs`: a map from a name to what
 * is laid over the base, or `grid`: paths with lists of values, every combination a design. `size: match-parameters` makes
 * their parameters equal. Runs (design x seed) advance one step at a time in turn, so that noise of the machine and time of day
 * fall on all alike; run s of every design sees the same batches in the same order.
 *
 *     recipe --wf_race_open--> runs --wf_race_go--> curves and measures --wf_race_save--> results.json, report.html
 */
#ifndef WF_COMPARE_H
#define WF_COMPARE_H

#include "learn/learn.h"

typedef enum { WF_ENTRY_READY, WF_ENTRY_RUNNING, WF_ENTRY_DONE, WF_ENTRY_FAILED } wf_entry_state;

typedef struct wf_curve_point {
    int64_t step;
    double loss, seconds, flops; /* mean training loss since the last point; seconds and FLOPs since the start */
} wf_curve_point;

typedef struct wf_valid_point {
    int64_t step;
    double seconds, flops;
    wf_metrics metrics;
} wf_valid_point;

enum { WF_GRID_AXES = 4 };

/* One design with one seed. */
typedef struct wf_entry {
    int design, seed;
    wf_entry_state state;
    char *failure; /* the message, when failed */
    wf_run *run;
    int64_t steps_done;
    double seconds, flops; /* spent in training steps so far */
    double last_loss;      /* smoothed, for the table */
    int n_curve, cap_curve, n_valid, cap_valid;
    wf_curve_point *curve;
    wf_valid_point *valid;
    int64_t tokens_per_step;
    double step_median;   /* seconds of a step as an earlier session measured it; 0: none */
    double *step_seconds; /* one a step of this process, for the median */
    int n_step_seconds, cap_step_seconds;
} wf_entry;

typedef struct wf_design {
    const char *name;
    wf_value *recipe; /* base with this design's overlay, without `designs` */
    wf_run_cost cost;
    bool described;
    bool in_grid;
    int at[WF_GRID_AXES]; /* its place in the grid */
    char *solved;         /* what `size` changed, in words, or NULL */
} wf_design;

typedef struct wf_grid_axis {
    const char *path; /* "model.norm" */
    int n;
} wf_grid_axis;

typedef struct wf_race {
    wf_value *recipe;
    const char *question, *path, *folder;
    int n_design, n_seed, n_entry;
    wf_design *design;
    int n_axis; /* of the recipe's `grid` */
    wf_grid_axis axis[WF_GRID_AXES];
    wf_entry *entry; /* design-major: entry[design * n_seed + seed] */
    wf_task *task;
    double checkpoint_minutes;
    double started, elapsed_before;
    char *machine, *command; /* said in the report; set by who knows them, may be NULL */
} wf_race;

#define WF_DIVERGED 0.5
/* Summary of a design over its seeds, computed from the entries. NaN where nothing is known. */
typedef struct wf_summary {
    int done, failed;
    int diverged; /* failed, or ended more than WF_DIVERGED nats above their lowest validation loss */
    double loss_mean, loss_sd, accuracy_mean, bits_mean, bits_sd;
    double tokens_per_second, train_seconds, train_flops;
} wf_summary;

/* `path`: the recipe. `folder`: where results go. Finds earlier results there and continues them; refuses results of another
 * recipe. */
wf_race *wf_race_open(const char *path, wf_value *recipe, const char *folder);
void wf_race_close(wf_race *r);
typedef void (*wf_race_show)(void *ctx, const wf_race *r, bool last);
/* Runs to the end, or to an interrupt (WF_EINTERRUPTED; everything is saved). */
wf_status wf_race_go(wf_race *r, wf_race_show show, void *ctx);
wf_status wf_race_save(wf_race *r); /* checkpoints of unfinished runs, results.json, report.html */
void wf_race_summary(const wf_race *r, int design, wf_summary *s);
/* Failed, or its last validation loss is not a number or more than WF_DIVERGED above its lowest. */
bool wf_entry_diverged(const wf_entry *e);
double wf_entry_step_seconds(const wf_entry *e); /* median */

char *wf_race_entry_folder(const wf_race *r, const wf_entry *e); /* caller frees */

/* ---- results.c ---- */
char *wf_results_json(const wf_race *r);                 /* caller frees with wf_free */
wf_status wf_results_read(wf_race *r, const char *path); /* curves of an earlier session; WF_ENOTFOUND if there are none */
/* ---- report.c ---- */
wf_status wf_report_write(const wf_race *r, const char *path);
/* One sentence or two: which design is best, and whether the seeds' spread allows to say so. Caller frees. */
char *wf_verdict(const wf_race *r);
/* ---- table.c: the terminal table, at most `columns` wide ---- */
char *wf_race_table(const wf_race *r, int columns);

#endif
