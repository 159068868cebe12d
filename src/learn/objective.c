/* objective.c: model outputs -> loss and counts. Next-token prediction and classification are both a cross-entropy over the
 * last axis; what differs is which axes are scored, and the targets say that (negative: not scored). */
#include "learn/inside.h"

#include <string.h>

/* sum over all entries of (argmax logits == target) and of (target >= 0); all in float32. */
static void count_correct(wf_graph *g, wf_node *logits, wf_node *target, wf_objective *o) {
    wf_node *t = wf_cast(g, target, WF_F32), *best = wf_cast(g, wf_argmax(g, logits), WF_F32);
    o->correct = wf_sum_all(g, wf_eq(g, best, t));
    o->scored = wf_sum_all(g, wf_le(g, wf_fill(g, WF_F32, WF_SHAPE(1), 0), t));
}

/* logits [B,L,V] with targets [B,L], or [B,C] with labels [B]. */
wf_status wf_objective_build(wf_build *b, wf_model *m, const wf_task *t, wf_node *const *batch, double smoothing, bool measure,
                             wf_objective *o) {
    memset(o, 0, sizeof *o);
    if (t->n_tensor < 2)
        return wf_fail(WF_EINVAL, "task %s has %d batch tensors, a loss needs inputs and targets", t->type->name, t->n_tensor);
    wf_graph *g = b->g;
    b->causal = t->objective == WF_OBJECTIVE_NEXT_TOKEN;
    wf_node *logits = wf_apply(b, m->root, batch[0]), *target = batch[1];
    if (!logits) return wf_graph_status(g) != WF_OK ? wf_fail(wf_graph_status(g), "%s", wf_graph_message(g)) : WF_EINVAL;
    if (logits->shape.rank != target->shape.rank + 1) {
        char x[96], y[96];
        return wf_fail(WF_EINVAL, "the model gives %s for targets %s of task %s: it does not suit this task",
                       wf_shape_text(&logits->shape, x), wf_shape_text(&target->shape, y), t->type->name);
    }
    wf_scope_push(g, "objective");
    o->loss_sum = wf_sum_all(g, wf_cross_entropy(g, logits, target, smoothing));
    if (measure) count_correct(g, logits, target, o);
    wf_scope_pop(g);
    if (!o->loss_sum || (measure && (!o->correct || !o->scored))) return wf_fail(wf_graph_status(g), "%s", wf_graph_message(g));
    return WF_OK;
}

int64_t wf_objective_scored(const wf_task *t, const wf_batch *b) {
    const int32_t *p = b->tensor[1]->data;
    int64_t n = wf_tensor_count(b->tensor[1]), scored = 0;
    for (int64_t i = 0; i < n; i++) scored += p[i] >= 0;
    return scored;
}
