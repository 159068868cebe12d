/* validate.c: mean loss, accuracy and bits per byte of a model over a split. */
#include "learn/inside.h"

#include <math.h>
#include <string.h>

static wf_plan *plan_measure(wf_graph *g, wf_model *m, const wf_task *t, const wf_batch *batch, wf_dtype compute) {
    wf_build b;
    memset(&b, 0, sizeof b);
    wf_build_start(&b, g);
    b.compute = compute;
    wf_node *in[4];
    for (int i = 0; i < batch->n; i++) in[i] = wf_leaf(g, batch->tensor[i], t->tensor_name[i]);
    wf_objective o;
    wf_plan *p = NULL;
    if (wf_objective_build(&b, m, t, in, 0, true, &o) == WF_OK) {
        wf_node *out[] = {o.loss_sum, o.correct, o.scored};
        p = wf_plan_new(g, out, 3, NULL, 0, NULL);
    }
    wf_build_end(&b);
    return p;
}

/* Rows that repeat earlier samples (the last batch wraps) are not scored. */
static void unscore(const wf_batch *b, int64_t from) {
    int64_t row = wf_tensor_count(b->tensor[1]) / b->size;
    int32_t *p = b->tensor[1]->data;
    for (int64_t i = from * row; i < b->size * row; i++) p[i] = -1;
}

static wf_status run_batches(wf_plan *p, const wf_task *t, wf_split split, wf_batch *b, int64_t batches, wf_metrics *out) {
    double loss = 0, correct = 0, scored = 0;
    for (int64_t i = 0; i < batches; i++) {
        int64_t fresh = b->size;
        WF_TRY(wf_batch_fill(t, split, 0, i, b, &fresh));
        unscore(b, fresh);
        WF_TRY(wf_plan_run(p));
        loss += (double)*(const float *)wf_plan_out(p, 0);
        correct += (double)*(const float *)wf_plan_out(p, 1);
        scored += (double)*(const float *)wf_plan_out(p, 2);
        if (wf_interrupted()) return wf_fail(WF_EINTERRUPTED, "stopped during a validation");
    }
    if (scored == 0) return wf_fail(WF_EINVAL, "the split has no scored targets");
    out->loss = loss / scored;
    out->accuracy = correct / scored;
    out->scored = (int64_t)scored;
    out->bits_per_byte = t->bytes_per_token > 0 ? out->loss / log(2.0) / t->bytes_per_token : (double)NAN;
    return WF_OK;
}

/* batches < 0: only plan, to learn the cost. */
wf_status wf_measure(wf_model *m, const wf_task *t, wf_split split, int64_t size, int64_t batches, wf_dtype compute,
                     wf_metrics *out, wf_plan_info *info) {
    memset(out, 0, sizeof *out);
    if (t->count[split] <= 0) return wf_fail(WF_EINVAL, "task %s has no samples in this split", t->type->name);
    int64_t all = (t->count[split] + size - 1) / size;
    wf_batch *b = wf_batch_new(t, size);
    wf_graph *g = b ? wf_graph_open() : NULL;
    wf_plan *p = g ? plan_measure(g, m, t, b, compute) : NULL;
    wf_status s = p ? WF_OK : WF_EINVAL;
    if (p && info) wf_plan_describe(p, info);
    if (p && batches >= 0) s = run_batches(p, t, split, b, batches == 0 || batches > all ? all : batches, out);
    wf_plan_free(p);
    wf_graph_free(g);
    wf_batch_free(b);
    return s;
}

void wf_run_swap_average(wf_run *r) {
    for (int i = 0; i < r->optimizer.n; i++) {
        wf_slot *s = &r->optimizer.slot[i];
        if (!s->ema) return;
        wf_tensor *t = s->param->value;
        s->param->value = s->ema;
        s->ema = t;
    }
}

wf_status wf_run_validate(wf_run *r, wf_metrics *out) {
    wf_run_release(r); /* its arena is larger than this one's: the peak stays where training has it */
    wf_run_swap_average(r);
    wf_status s = wf_measure(r->model, r->task, WF_VALID, r->part, r->opt.valid_batches, wf_train_dtype(&r->opt), out, NULL);
    wf_run_swap_average(r);
    return s;
}
