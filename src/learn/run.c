/* run.c: one training run that advances a step at a time: batch -> graph 1 -> look at loss and norm -> graph 2. */
#include "learn/inside.h"

#include <math.h>
#include <string.h>

/* ---- opening and closing ---- */

static wf_status open_inputs(wf_run *r) {
    r->part = r->opt.batch / r->opt.accumulate;
    if (!(r->batch = wf_batch_new(r->task, r->opt.batch))) return WF_ENOMEM;
    for (int i = 0; i < r->task->n_tensor; i++) {
        wf_shape s = {.rank = r->task->tensor_shape[i].rank + 1, .dim = {r->part}};
        memcpy(s.dim + 1, r->task->tensor_shape[i].dim, sizeof(int64_t) * (size_t)(s.rank - 1));
        if (!(r->input[i] = wf_tensor_new(r->task->tensor_type[i], s))) return WF_ENOMEM;
    }
    r->seed = wf_tensor_new(WF_I32, WF_SHAPE(4));
    r->inverse = wf_tensor_new(WF_F32, WF_SHAPE(1));
    return r->seed && r->inverse ? WF_OK : WF_ENOMEM;
}

static wf_status open_buffers(wf_run *r) {
    r->saved = wf_alloc_array((size_t)r->model->n_param + 1, sizeof *r->saved);
    if (!r->saved) return WF_ENOMEM;
    for (int i = 0; i < r->model->n_param; i++) {
        wf_param *p = r->model->param[i];
        if ((p->flags & WF_PARAM_BUFFER) && !(r->saved[i] = wf_tensor_new(p->value->dtype, p->value->shape))) return WF_ENOMEM;
    }
    return WF_OK;
}

static wf_status open_run(wf_run *r, const wf_value *recipe, wf_task *task) {
    WF_TRY(wf_recipe_check_sections(recipe));
    WF_TRY(wf_train_read(recipe, &r->opt));
    if (!(r->recipe = wf_value_copy(recipe))) return WF_ENOMEM;
    r->task = task;
    if (!task) {
        const wf_value *spec = wf_value_get(recipe, "task");
        if (!spec) return wf_value_fail(recipe, WF_EINVAL, "the recipe needs a task entry, such as  task: {name: wordnet}");
        r->own_task = true;
        if (!(r->task = wf_task_open(spec))) return WF_EINVAL;
    }
    WF_TRY(wf_recipe_for_task(r->recipe, r->task));
    WF_TRY(wf_train_read(r->recipe, &r->opt)); /* its strings live in the run's own copy */
    if (!(r->model = wf_model_new(r->recipe, (uint64_t)r->opt.seed))) return WF_EINVAL;
    WF_TRY(wf_run_start_from(r));
    WF_TRY(open_inputs(r));
    WF_TRY(open_buffers(r));
    return wf_optimizer_open(&r->optimizer, r->model, &r->opt);
}

wf_run *wf_run_new(const wf_value *recipe, wf_task *task) {
    wf_run *r = wf_alloc(sizeof *r);
    if (!r) return NULL;
    if (open_run(r, recipe, task) == WF_OK) return r;
    wf_run_free(r);
    return NULL;
}

void wf_run_release(wf_run *r) {
    wf_plan_free(r->plan);
    wf_graph_free(r->graph);
    r->plan = NULL;
    r->graph = NULL;
}

void wf_run_free(wf_run *r) {
    if (!r) return;
    wf_run_release(r);
    wf_optimizer_close(&r->optimizer);
    for (int i = 0; i < 4; i++) wf_tensor_free(r->input[i]);
    wf_tensor_free(r->seed);
    wf_tensor_free(r->inverse);
    for (int i = 0; r->saved && i < r->model->n_param; i++) wf_tensor_free(r->saved[i]);
    wf_free(r->saved);
    wf_batch_free(r->batch);
    wf_model_free(r->model);
    if (r->own_task) wf_task_close(r->task);
    wf_value_free(r->recipe);
    wf_free(r);
}

/* ---- graph 1 ---- */

/* outs: the part's share of the mean loss, then (without accumulation) every gradient. Effects: running statistics, and
 * accumulator += gradient. */
static wf_status plan_graph(wf_run *r, wf_build *b, wf_node **node) {
    wf_graph *g = b->g;
    int n = r->optimizer.n;
    wf_node **param = node, **grad = node + n, **out = node + 2 * n, **effect = node + 3 * n + 1, *batch[4];
    for (int i = 0; i < r->task->n_tensor; i++) batch[i] = wf_leaf(g, r->input[i], r->task->tensor_name[i]);
    wf_objective o;
    WF_TRY(wf_objective_build(b, r->model, r->task, batch, r->opt.label_smoothing, false, &o));
    wf_node *loss = wf_sum_all(g, wf_mul(g, o.loss_sum, wf_leaf(g, r->inverse, "one_over_scored")));
    for (int i = 0; i < n; i++) param[i] = wf_leaf(g, r->optimizer.slot[i].param->value, r->optimizer.slot[i].param->name);
    if (!loss || wf_graph_status(g) != WF_OK) return wf_fail(wf_graph_status(g), "%s", wf_graph_message(g));
    WF_TRY(wf_grad(g, &loss, NULL, 1, param, n, grad));
    int n_out = 0, n_effect = 0;
    out[n_out++] = loss;
    for (int i = 0; i < n; i++) {
        if (!r->optimizer.own_grads) {
            out[n_out++] = grad[i];
        } else {
            wf_node *sum = wf_leaf(g, r->optimizer.slot[i].grad, NULL);
            effect[n_effect++] = wf_assign(g, sum, wf_add(g, sum, grad[i]));
        }
    }
    for (int i = 0; i < b->n_update; i++) effect[n_effect++] = b->update[i];
    if (wf_graph_status(g) != WF_OK) return wf_fail(wf_graph_status(g), "%s", wf_graph_message(g));
    r->plan = wf_plan_new(g, out, n_out, effect, n_effect, NULL);
    return r->plan ? WF_OK : WF_EINVAL;
}

wf_status wf_run_prepare(wf_run *r) {
    if (r->plan) return WF_OK;
    WF_TRY(wf_optimizer_plan(&r->optimizer, &r->opt));
    if (!(r->graph = wf_graph_open())) return WF_ENOMEM;
    wf_build b;
    memset(&b, 0, sizeof b);
    wf_build_start(&b, r->graph);
    b.train = true;
    b.compute = wf_train_dtype(&r->opt);
    b.recompute = r->opt.recompute;
    b.seed = wf_leaf(r->graph, r->seed, "seed");
    size_t room = (size_t)r->optimizer.n * 5 + (size_t)r->model->n_param * 4 + 64; /* parameters, gradients, outs, effects */
    wf_node **node = wf_arena_alloc(wf_graph_arena(r->graph), room * sizeof *node);
    wf_status s = node ? plan_graph(r, &b, node) : WF_ENOMEM;
    wf_build_end(&b);
    if (s != WF_OK) {
        wf_run_release(r);
        return s;
    }
    wf_plan_describe(r->plan, &r->train_info);
    wf_plan_describe(r->optimizer.norm, &r->norm_info);
    wf_plan_describe(r->optimizer.update, &r->update_info);
    r->described = true;
    return WF_OK;
}

/* ---- a step ---- */

static void save_buffers(wf_run *r, bool back) {
    for (int i = 0; i < r->model->n_param; i++) {
        wf_tensor *now = r->model->param[i]->value, *kept = r->saved[i];
        if (kept) memcpy(back ? now->data : kept->data, back ? kept->data : now->data, kept->bytes);
    }
}

/* Point graph 1 at part `k` of the batch, with random numbers of its own. */
void wf_run_set_part(wf_run *r, int64_t k) {
    for (int i = 0; i < r->task->n_tensor; i++)
        memcpy(r->input[i]->data, (const char *)r->batch->tensor[i]->data + (size_t)k * r->input[i]->bytes, r->input[i]->bytes);
    uint64_t seed = (uint64_t)r->opt.seed, draw = (uint64_t)(r->step * r->opt.accumulate + k);
    uint32_t words[4] = {(uint32_t)seed, (uint32_t)(seed >> 32), (uint32_t)draw, (uint32_t)(draw >> 32)};
    memcpy(r->seed->data, words, sizeof words);
}

static wf_status gradients(wf_run *r, bool checked, double *loss) {
    *loss = 0;
    for (int i = 0; r->optimizer.own_grads && i < r->optimizer.n; i++)
        memset(r->optimizer.slot[i].grad->data, 0, r->optimizer.slot[i].grad->bytes);
    for (int64_t k = 0; k < r->opt.accumulate; k++) {
        wf_run_set_part(r, k);
        WF_TRY(checked ? wf_plan_run_checked(r->plan) : wf_plan_run(r->plan));
        *loss += (double)*(const float *)wf_plan_out(r->plan, 0);
    }
    for (int i = 0; !r->optimizer.own_grads && i < r->optimizer.n; i++)
        r->optimizer.slot[i].grad->data = (void *)wf_plan_out(r->plan, i + 1);
    return WF_OK;
}

/* A running statistic went wrong in this step; the buffers go back to what they were. */
static wf_status broken_statistic(wf_run *r, const wf_param *p) {
    save_buffers(r, true);
    return wf_fail(WF_ENONFINITE,
                   "step %lld: the running statistic %s is no longer finite: the run diverges; lower train.lr or lengthen its "
                   "warm-up (for ema_gz of norm power raise its alpha_bkw, see `weft explain power`)",
                   (long long)r->step + 1, p->name);
}

/* The step went wrong: nothing was updated; run it again, looking at every operator. */
static wf_status name_guilty(wf_run *r, double loss, double norm) {
    save_buffers(r, true);
    double again;
    wf_status s = gradients(r, true, &again);
    save_buffers(r, true);
    long long step = (long long)r->step + 1;
    if (s == WF_ENONFINITE) return wf_fail_within(s, "step %lld", step);
    if (s != WF_OK) return s;
    if (!isfinite(norm) && isfinite(loss))
        return wf_fail(WF_ENONFINITE,
                       "step %lld: every operator is finite but the squared gradient norm is beyond float32: the run "
                       "diverges; lower train.lr",
                       step);
    return wf_fail(WF_ENONFINITE, "step %lld: the loss is not finite (%g)", step, loss);
}

wf_status wf_run_step(wf_run *r, wf_step_report *out) {
    double started = wf_seconds(), loss, norm, lr;
    WF_TRY(wf_run_prepare(r));
    WF_TRY(wf_batch_fill(r->task, WF_TRAIN, (uint64_t)r->opt.data_seed, r->step, r->batch, NULL));
    int64_t scored = wf_objective_scored(r->task, r->batch);
    if (scored == 0) return wf_fail(WF_EINVAL, "step %lld: no target of the batch is scored", (long long)r->step + 1);
    *(float *)r->inverse->data = (float)(1.0 / (double)scored);
    save_buffers(r, false);
    WF_TRY(gradients(r, false, &loss));
    WF_TRY(wf_optimizer_norm(&r->optimizer, &norm));
    if (!isfinite(loss) || !isfinite(norm)) return name_guilty(r, loss, norm);
    const wf_param *broken = wf_run_broken_statistic(r);
    if (broken) return broken_statistic(r, broken);
    WF_TRY(wf_optimizer_step(&r->optimizer, &r->opt, r->step, norm, &lr));
    r->step++;
    if (r->step == r->opt.steps && r->opt.recalibrate > 0) WF_TRY(wf_run_recalibrate(r));
    if (!out) return WF_OK;
    int64_t per_sample = r->task->length > 0 ? r->task->length : 1;
    *out =
        (wf_step_report){.step = r->step,
                         .loss = loss,
                         .lr = lr,
                         .grad_norm = norm,
                         .tokens = r->opt.batch * per_sample,
                         .flops = r->train_info.flops * (double)r->opt.accumulate + r->norm_info.flops + r->update_info.flops,
                         .seconds = wf_seconds() - started};
    return WF_OK;
}

/* ---- what others ask ---- */

int64_t wf_run_steps_done(const wf_run *r) {
    return r->step;
}
wf_model *wf_run_model(wf_run *r) {
    return r->model;
}
wf_task *wf_run_task(wf_run *r) {
    return r->task;
}
const wf_train_opt *wf_run_options(const wf_run *r) {
    return &r->opt;
}
