/* learn.h: training. A run is model + task + optimizer + schedule + position in the data; it advances one step at a time, so
 * that `weft compare` can interleave many runs, and its checkpoint restores it to the byte.
 */
#ifndef WF_LEARN_H
#define WF_LEARN_H

#include "data/data.h"
#include "part/part.h"

/* The recipe's `train` entry; option table wf_train_options (train.c), shown by `weft explain train`. */
typedef struct wf_train_options_t {
    int64_t steps, batch, accumulate; /* batch: samples an optimizer step, split into `accumulate` parts */
    const char *optimizer;            /* adamw | muon | sgd */
    double lr, weight_decay, beta1, beta2, eps, momentum;
    double muon_lr;       /* lr of matrices under muon */
    const char *schedule; /* cosine | linear | constant | wsd (warm-up, stable, decay) */
    int64_t warmup;
    double final_lr, decay_part; /* fraction of lr at the end; part of the steps that decays (wsd) */
    double clip;                 /* global gradient norm, 0: off */
    double ema;                  /* decay of the weight average, 0: off */
    double label_smoothing;
    const char *precision;              /* float32 | bfloat16 */
    bool recompute;                     /* activation recomputation of every block */
    int64_t seed;                       /* initial weights and dropout */
    int64_t data_seed;                  /* order of samples */
    int64_t valid_every, valid_batches; /* 0: only at the end; 0: whole split */
    double checkpoint_minutes;
    const char *start;   /* a model to start from, or NULL */
    bool reset_state;    /* its counters and running statistics begin anew */
    int64_t recalibrate; /* batches after the last step that move running statistics alone */
} wf_train_opt;
extern const wf_option wf_train_options[];

typedef struct wf_metrics {
    double loss;          /* mean nats per scored token (or sample) */
    double accuracy;      /* of scored positions, 0..1 */
    double bits_per_byte; /* NaN when meaningless */
    int64_t scored;
} wf_metrics;

typedef struct wf_step_report {
    int64_t step; /* steps done */
    double loss, lr, grad_norm, seconds, flops;
    int64_t tokens; /* tokens (or samples) consumed in this step */
} wf_step_report;

typedef struct wf_run wf_run;
/* recipe: map with model, task, train. The task may be shared between runs (compare): then `task` is borrowed, else NULL. */
wf_run *wf_run_new(const wf_value *recipe, wf_task *task);
void wf_run_free(wf_run *r);
/* One optimizer step. WF_ENONFINITE: parameters are those before the step, and the message names the first guilty
 * operator, its scope and the step. */
wf_status wf_run_step(wf_run *r, wf_step_report *out);
wf_status wf_run_validate(wf_run *r, wf_metrics *out); /* with the weight average when there is one */
/* Folder with model.safetensors, state.safetensors, log.jsonl; atomic: a kill at any moment leaves the previous or the new one
 * (how: checkpoint.c). */
wf_status wf_run_save(wf_run *r, const char *folder);
wf_status wf_run_resume(wf_run *r, const char *folder); /* WF_ENOTFOUND when there is none */
int64_t wf_run_steps_done(const wf_run *r);
wf_model *wf_run_model(wf_run *r);
wf_task *wf_run_task(wf_run *r);
const wf_train_opt *wf_run_options(const wf_run *r);
/* Mean loss, accuracy and bits per byte of a model over a split: at most `batches` batches of `size` samples (0: the whole split;
 * negative: only plan). info (may be NULL): the plan of one batch. */
wf_status wf_measure(wf_model *m, const wf_task *t, wf_split split, int64_t size, int64_t batches, wf_dtype compute,
                     wf_metrics *out, wf_plan_info *info);
/* Trainable parameters of the model that a recipe makes for a task, without giving it numbers; negative + message on error. */
int64_t wf_recipe_parameters(const wf_value *recipe, const wf_task *t);
/* Predicted from the plans, before anything runs. */
typedef struct wf_run_cost {
    int64_t parameters;
    double flops_per_step, forward_flops_per_token;
    size_t peak_bytes; /* parameters + gradients + optimizer + arenas */
    size_t parameter_bytes, gradient_bytes, optimizer_bytes, arena_bytes;
} wf_run_cost;
wf_status wf_run_describe(wf_run *r, wf_run_cost *c);
char *wf_run_plan_text(wf_run *r); /* the steps of forward, backward and update, one a line; free with wf_free */
/* Time every operator of the steps from here on; the table of what was seen so far (wf_free), NULL before. */
wf_status wf_run_profile(wf_run *r, bool on);
char *wf_run_profile_text(wf_run *r);

/* The whole loop of `weft train`: steps, validation, checkpoints on time, at the end and on Ctrl-C (returns WF_EINTERRUPTED). */
typedef struct wf_train_hooks {
    void *ctx;
    bool (*on_step)(void *ctx, const wf_step_report *r); /* false: stop as on Ctrl-C */
    void (*on_validate)(void *ctx, int64_t step, const wf_metrics *m);
} wf_train_hooks;
wf_status wf_train(wf_run *r, const char *folder, const wf_train_hooks *hooks);

#endif
