/* statistics.c: running statistics and counters of norms as a run sees them: a run that starts from another's model, statistics that
 * are no longer finite, recalibration after the last step. */
#include "learn/inside.h"

#include <math.h>
#include <sys/stat.h>

/* ---- starting from a model ---- */

static char *model_file(const char *path) {
    struct stat st;
    bool folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    return folder ? wf_format("%s/model.safetensors", path) : wf_strdup(path);
}

wf_status wf_run_start_from(wf_run *r) {
    if (!r->opt.start) {
        if (!r->opt.reset_state) return WF_OK;
        return wf_fail(WF_EINVAL, "train.reset_state needs train.start: a run from the beginning has nothing to reset");
    }
    char *path = model_file(r->opt.start);
    wf_st_file f;
    wf_status s = path ? wf_st_open(path, &f) : WF_ENOMEM;
    if (s == WF_OK) {
        s = wf_model_read_weights(r->model, &f);
        if (s != WF_OK) s = wf_fail_within(s, "train.start: %s", path);
        wf_st_close(&f);
    }
    if (s == WF_OK && r->opt.reset_state) wf_model_reset_state(r->model);
    wf_free(path);
    return s;
}

/* ---- statistics that are not finite ---- */

static bool all_finite(const wf_tensor *t) {
    const float *x = t->data;
    float sum = 0; /* 0 * x is NaN for what is not finite */
    for (int64_t i = 0, n = wf_tensor_count(t); i < n; i++) sum += 0 * x[i];
    return sum == 0;
}

const wf_param *wf_run_broken_statistic(const wf_run *r) {
    for (int i = 0; i < r->model->n_param; i++) {
        const wf_param *p = r->model->param[i];
        if (p->flags & WF_PARAM_BUFFER && p->value->dtype == WF_F32 && !all_finite(p->value)) return p;
    }
    return NULL;
}

/* ---- recalibration ---- */

/* A forward pass of the training graph without dropout; its effects alone. The loss is kept so that there is a result. */
static wf_status plan_forward(wf_run *r, wf_build *b, wf_plan **plan) {
    wf_node *batch[4];
    for (int i = 0; i < r->task->n_tensor; i++) batch[i] = wf_leaf(b->g, r->input[i], r->task->tensor_name[i]);
    wf_objective o;
    WF_TRY(wf_objective_build(b, r->model, r->task, batch, 0, false, &o));
    if (b->n_update == 0) return WF_OK;
    *plan = wf_plan_new(b->g, &o.loss_sum, 1, b->update, b->n_update, NULL);
    return *plan ? WF_OK : WF_EINVAL;
}

static wf_status run_forward(wf_run *r, wf_plan *plan) {
    for (int64_t k = 0; k < r->opt.recalibrate; k++) {
        WF_TRY(wf_batch_fill(r->task, WF_TRAIN, (uint64_t)r->opt.data_seed, r->step + k, r->batch, NULL));
        for (int64_t i = 0; i < r->opt.accumulate; i++) {
            wf_run_set_part(r, i);
            WF_TRY(wf_plan_run(plan));
        }
    }
    return WF_OK;
}

wf_status wf_run_recalibrate(wf_run *r) {
    wf_run_release(r);
    wf_graph *g = wf_graph_open();
    if (!g) return WF_ENOMEM;
    wf_run_swap_average(r); /* the model that is saved */
    wf_build b;
    wf_build_start(&b, g);
    b.train = b.no_dropout = true;
    b.compute = wf_train_dtype(&r->opt);
    b.seed = wf_leaf(g, r->seed, "seed");
    wf_plan *plan = NULL;
    wf_status s = plan_forward(r, &b, &plan);
    wf_build_end(&b);
    if (s == WF_OK && plan) s = run_forward(r, plan);
    wf_plan_free(plan);
    wf_graph_free(g);
    wf_run_swap_average(r);
    return s;
}
