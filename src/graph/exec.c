/* exec.c: running a plan: refresh the pointers into leaves, run the steps in order; with checks or with a clock on demand.
 *
 * The checked run flags NaN and +Inf in every floating-point result that has memory. -Inf is the logarithm of zero, legitimate
 * in masks and log-sum-exps, and is let pass: where it is wrong, it soon turns into NaN or +Inf. Operators with WF_OP_INF_OK are
 * searched for NaN only. Copies made by assignments are not searched: their source was.
 */
#include "graph/planned.h"

#include <string.h>

static wf_status refresh(wf_plan *p) {
    for (int i = 0; i < p->n_patches; i++) {
        const wf_patch *q = &p->patch[i];
        char *data = q->leaf->leaf->data;
        if (!data) return wf_fail(WF_EINVAL, "leaf %s has no data", q->leaf->scope);
        *q->slot = data + q->offset;
    }
    return WF_OK;
}

static inline wf_status run_step(const wf_plan *p, const wf_step *s) {
    return s->program ? p->graph->backend->run_rows(&s->call) : s->op->forward(&s->call);
}

static wf_status run_timed(const wf_plan *p, wf_step *s) {
    double t = wf_seconds();
    wf_status status = run_step(p, s);
    s->seconds += wf_seconds() - t;
    s->runs++;
    return status;
}

static wf_status blame(const wf_step *s, wf_status status) {
    return s->node->scope && *s->node->scope ? wf_fail_within(status, "%s", s->node->scope) : status;
}

wf_status wf_plan_run(wf_plan *p) {
    WF_TRY(refresh(p));
    for (int i = 0; i < p->n_steps; i++) {
        wf_step *s = p->step[i];
        wf_status status = p->profile ? run_timed(p, s) : run_step(p, s);
        if (status != WF_OK) return blame(s, status);
    }
    return WF_OK;
}

const void *wf_plan_out(const wf_plan *p, int i) {
    return i >= 0 && i < p->n_out ? p->out_data[i] : NULL;
}

/* ---- the checked run ---- */

typedef enum { FINE, IS_NAN, IS_INF } flaw;

/* Kind of number i: all exponent bits set is NaN, or an infinity when the fraction is zero. */
static flaw flaw_at(wf_dtype t, const void *data, int64_t i, bool inf_ok) {
    uint64_t fraction, negative;
    if (t == WF_F64) {
        uint64_t u;
        memcpy(&u, (const double *)data + i, sizeof u);
        if ((~u & 0x7ff0000000000000u) != 0) return FINE;
        fraction = u & 0xfffffffffffffu;
        negative = u >> 63;
    } else {
        uint32_t u;
        if (t == WF_F32)
            memcpy(&u, (const float *)data + i, sizeof u);
        else
            u = (uint32_t)((const uint16_t *)data)[i] << 16;
        if ((~u & 0x7f800000u) != 0) return FINE;
        fraction = u & 0x7fffffu;
        negative = u >> 31;
    }
    return fraction ? IS_NAN : negative || inf_ok ? FINE : IS_INF;
}

enum { CHUNK = 1 << 16 };

/* The first flawed element, -1: none. */
static int64_t find_flaw(wf_dtype t, const void *data, int64_t n, bool inf_ok) {
    int64_t chunks = (n + CHUNK - 1) / CHUNK, first = INT64_MAX;
#pragma omp parallel for schedule(static) reduction(min : first) if (chunks > 1) num_threads(wf_threads())
    for (int64_t c = 0; c < chunks; c++) {
        int64_t end = (c + 1) * CHUNK < n ? (c + 1) * CHUNK : n;
        for (int64_t i = c * CHUNK; i < end && i < first; i++)
            if (flaw_at(t, data, i, inf_ok) != FINE) first = i;
    }
    return first == INT64_MAX ? -1 : first;
}

static wf_status report(wf_plan *p, const wf_step *s, int k, int64_t at, flaw f) {
    char shape[96];
    wf_text name = {0};
    wf_step_name(p, s, &name);
    const wf_node *o = s->out[k];
    wf_status status = wf_fail(WF_ENONFINITE, "%s in %s: output %d (%s, %s %s, element %lld)", f == IS_NAN ? "NaN" : "Inf",
                               name.s ? name.s : "a step", k, o->op->name, wf_dtype_name(o->dtype),
                               wf_shape_text(&o->shape, shape), (long long)at);
    wf_text_free(&name);
    return blame(s, status);
}

static wf_status check_step(wf_plan *p, const wf_step *s) {
    for (int k = 0; k < s->n_out; k++) {
        const wf_node *o = s->out[k];
        if (!o || !wf_is_float(o->dtype)) continue;
        const wf_op *op = s->program ? o->op : s->op;
        bool inf_ok = op->flags & WF_OP_INF_OK;
        int64_t at = find_flaw(o->dtype, s->call.out[k], wf_shape_count(&o->shape), inf_ok);
        if (at >= 0) return report(p, s, k, at, flaw_at(o->dtype, s->call.out[k], at, inf_ok));
    }
    return WF_OK;
}

wf_status wf_plan_run_checked(wf_plan *p) {
    WF_TRY(refresh(p));
    for (int i = 0; i < p->n_steps; i++) {
        wf_step *s = p->step[i];
        wf_status status = p->profile ? run_timed(p, s) : run_step(p, s);
        if (status != WF_OK) return blame(s, status);
        WF_TRY(check_step(p, s));
    }
    return WF_OK;
}
