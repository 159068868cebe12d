/* describe.c: what a run costs and where its time goes, told from its plans. */
#include "learn/inside.h"

#include <string.h>

static size_t bytes_of(const wf_tensor *t) {
    return t ? t->bytes : 0;
}

wf_status wf_run_describe(wf_run *r, wf_run_cost *c) {
    memset(c, 0, sizeof *c);
    WF_TRY(wf_run_prepare(r));
    c->parameters = wf_model_count(r->model);
    for (int i = 0; i < r->model->n_param; i++) c->parameter_bytes += r->model->param[i]->value->bytes + bytes_of(r->saved[i]);
    for (int i = 0; i < r->model->n_constant; i++) c->parameter_bytes += bytes_of(r->model->constant[i].value);
    for (int i = 0; i < r->optimizer.n; i++) {
        const wf_slot *s = &r->optimizer.slot[i];
        c->optimizer_bytes += bytes_of(s->m) + bytes_of(s->v) + bytes_of(s->ema);
        if (r->optimizer.own_grads) c->gradient_bytes += s->grad->bytes;
    }
    c->arena_bytes = r->train_info.arena_bytes + r->train_info.scratch_bytes + r->norm_info.arena_bytes +
                     r->norm_info.scratch_bytes + r->update_info.arena_bytes + r->update_info.scratch_bytes;
    c->flops_per_step = r->train_info.flops * (double)r->opt.accumulate + r->norm_info.flops + r->update_info.flops;
    wf_metrics m;
    wf_plan_info eval = {0};
    wf_split split = r->task->count[WF_VALID] > 0 ? WF_VALID : WF_TRAIN;
    WF_TRY(wf_measure(r->model, r->task, split, r->part, -1, wf_train_dtype(&r->opt), &m, &eval));
    int64_t per_sample = r->task->length > 0 ? r->task->length : 1;
    c->forward_flops_per_token = eval.flops / (double)(r->part * per_sample);
    /* graph 1 is given up during a validation, so the larger of the two counts */
    size_t eval_arena = eval.arena_bytes + eval.scratch_bytes + r->norm_info.arena_bytes + r->update_info.arena_bytes;
    c->peak_bytes = c->parameter_bytes + c->gradient_bytes + c->optimizer_bytes +
                    (eval_arena > c->arena_bytes ? eval_arena : c->arena_bytes);
    for (int i = 0; i < r->task->n_tensor; i++) c->peak_bytes += r->batch->tensor[i]->bytes + r->input[i]->bytes;
    return WF_OK;
}

char *wf_run_plan_text(wf_run *r) {
    if (wf_run_prepare(r) != WF_OK) return NULL;
    char *a = wf_plan_text(r->plan), *b = wf_plan_text(r->optimizer.norm), *c = wf_plan_text(r->optimizer.update);
    char *all = a && b && c ? wf_format("# forward and backward\n%s# gradient norm\n%s# update\n%s", a, b, c) : NULL;
    wf_free(a);
    wf_free(b);
    wf_free(c);
    return all;
}

wf_status wf_run_profile(wf_run *r, bool on) {
    WF_TRY(wf_run_prepare(r));
    wf_plan_profile(r->plan, on);
    wf_plan_profile(r->optimizer.norm, on);
    wf_plan_profile(r->optimizer.update, on);
    return WF_OK;
}

char *wf_run_profile_text(wf_run *r) {
    if (!r->plan || !r->optimizer.update) return NULL;
    char *a = wf_plan_profile_text(r->plan), *b = wf_plan_profile_text(r->optimizer.norm),
         *c = wf_plan_profile_text(r->optimizer.update);
    char *all = a && b && c ? wf_format("forward and backward\n%s\ngradient norm\n%s\nupdate\n%s", a, b, c) : NULL;
    wf_free(a);
    wf_free(b);
    wf_free(c);
    return all;
}
