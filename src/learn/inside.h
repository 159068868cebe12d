/* inside.h: what the files of the learn room share. Other rooms use learn.h.
 *
 * A step is two graphs. Graph 1 (train graph): batch -> mean loss and the gradient of every trainable parameter. Graph 2
 * (update): gradients -> parameters, moments and weight average, in place. Between them the loss and the global gradient
 * norm are looked at, so an update that is not finite is never applied. Everything that changes from step to step is a
 * leaf scalar, so plans are made once.
 */
#ifndef WF_LEARN_INSIDE_H
#define WF_LEARN_INSIDE_H

#include "learn/learn.h"

/* ---- options.c ---- */
wf_status wf_train_read(const wf_value *recipe, wf_train_opt *out);
wf_dtype wf_train_dtype(const wf_train_opt *o); /* of matrix products */

/* ---- recipe.c ---- */
wf_status wf_recipe_check_sections(const wf_value *recipe); /* only name, task, model, train */
/* Fill the entries of `model` that the recipe leaves to the task: vocab, length, classes, channels, picture sizes. */
wf_status wf_recipe_for_task(wf_value *recipe, const wf_task *t);
/* Whether a checkpoint's recipe may be continued under the present one; else WF_EINVAL and what differs. */
wf_status wf_recipe_compatible(const wf_value *saved, const wf_value *now);

/* ---- schedule.c ---- */
double wf_schedule(const wf_train_opt *o, int64_t step); /* factor on the learning rate for step 0, 1, .. */
extern const char *const wf_schedule_names[];

/* ---- objective.c ---- */
typedef struct wf_objective {  /* nodes of one model applied to one batch */
    wf_node *loss_sum;         /* sum over scored entries (with label smoothing when training), [] */
    wf_node *correct, *scored; /* counts, [] float32; only when measuring */
} wf_objective;
/* `batch`: leaves of the task's tensors in their order. */
wf_status wf_objective_build(wf_build *b, wf_model *m, const wf_task *t, wf_node *const *batch, double smoothing, bool measure,
                             wf_objective *o);
int64_t wf_objective_scored(const wf_task *t, const wf_batch *b); /* targets that are not negative */

/* ---- statistics.c ---- */
wf_status wf_run_start_from(wf_run *r);                   /* train.start, train.reset_state */
const wf_param *wf_run_broken_statistic(const wf_run *r); /* the first buffer that is not finite, or NULL */
wf_status wf_run_recalibrate(wf_run *r);                  /* train.recalibrate; part of the last step */
void wf_run_set_part(wf_run *r, int64_t k);               /* run.c: inputs and seed of part k of the batch */

/* ---- optimizer.c ---- */
typedef struct wf_slot { /* one trainable parameter */
    wf_param *param;
    wf_tensor *grad;        /* the graph-1 result, borrowed memory, or an accumulator that is owned */
    wf_tensor *m, *v, *ema; /* float32; NULL where the optimizer needs none */
    bool muon;
} wf_slot;
typedef struct wf_optimizer {
    int n;
    wf_slot *slot;
    bool own_grads;                                            /* accumulators */
    wf_tensor *lr, *muon_lr, *clip, *bias1, *bias2, *ema_rate; /* scalars, set every step */
    wf_graph *graph;
    wf_plan *norm, *update;
} wf_optimizer;
wf_status wf_optimizer_open(wf_optimizer *o, wf_model *m, const wf_train_opt *opt);
wf_status wf_optimizer_plan(wf_optimizer *o, const wf_train_opt *opt); /* builds graph 2 once */
void wf_optimizer_close(wf_optimizer *o);
wf_status wf_optimizer_norm(wf_optimizer *o, double *norm); /* global 2-norm of the gradients */
/* Step number `step` (0, 1, ..): sets the scalars and updates in place. */
wf_status wf_optimizer_step(wf_optimizer *o, const wf_train_opt *opt, int64_t step, double norm, double *lr);
extern const char *const wf_optimizer_names[];

/* ---- run.c ---- */
struct wf_run {
    wf_value *recipe;
    wf_task *task;
    bool own_task;
    wf_train_opt opt;
    wf_model *model;
    int64_t part;              /* samples a part: batch / accumulate */
    wf_batch *batch;           /* the whole optimizer step's samples */
    wf_tensor *input[4];       /* one part of them: leaves of graph 1 */
    wf_tensor *seed, *inverse; /* int32[4]; 1 / scored entries of the step */
    wf_graph *graph;
    wf_plan *plan; /* graph 1; NULL while it is given up for a validation */
    wf_plan_info train_info, norm_info, update_info;
    bool described;
    wf_optimizer optimizer;
    wf_tensor **saved; /* buffers before the step, by parameter; NULL for others */
    int64_t step;      /* steps done */
};
wf_status wf_run_prepare(wf_run *r); /* plans, if they are not there */
void wf_run_release(wf_run *r);      /* gives plan and arena of graph 1 back */

/* ---- validate.c ---- */
/* Exchange parameters with their averages and back (pointers only); nothing without averages. */
void wf_run_swap_average(wf_run *r);

/* ---- journal.c: log.jsonl, one object a line ---- */
typedef struct wf_journal wf_journal;
wf_journal *wf_journal_open(const char *folder, int64_t keep_steps); /* drops lines of later steps */
void wf_journal_step(wf_journal *l, const wf_step_report *r);
void wf_journal_validation(wf_journal *l, int64_t step, const wf_metrics *m);
wf_status wf_journal_flush(wf_journal *l); /* to the disk */
void wf_journal_close(wf_journal *l);

#endif
