/* softmax.c: softmax, log-softmax and log-sum-exp over the last axis, composed of small operators. Their derivatives are
 * written in terms of the results, which are kept anyway, and are 0 (not NaN) for rows of -inf. */
#include "op/op.h"
#include "op/rows.h"

static const double LOWEST = -3.0e38; /* a finite float32: x - max(x) stays -inf, and not NaN, in a row of -inf */

static unsigned last_axis(const wf_node *x) {
    return 1u << (x->shape.rank - 1);
}

static bool unfit(wf_graph *g, const char *name, wf_node *x) {
    if (!x) return true;
    if (x->shape.rank > 0 && wf_is_float(x->dtype)) return false;
    wf_graph_fail(g, WF_EINVAL, "%s: takes floating-point input with at least one axis, not %s of rank %d", name,
                  wf_dtype_name(x->dtype), x->shape.rank);
    return true;
}

static wf_node *row_max(wf_graph *g, wf_node *x) {
    return wf_max_c(g, wf_amax(g, x, last_axis(x), true), LOWEST);
}

/* gx = y (gy - sum(gy y)) */
static wf_status vjp_softmax(wf_graph *g, void *ctx, wf_node *y, wf_node *const *in, int n_in, wf_node *gy, wf_node **gin) {
    (void)ctx, (void)in, (void)n_in;
    wf_node *inner = wf_sum(g, wf_mul(g, gy, y), last_axis(y), true);
    gin[0] = wf_mul(g, y, wf_sub(g, gy, inner));
    return wf_graph_status(g);
}

wf_node *wf_softmax(wf_graph *g, wf_node *x) {
    if (unfit(g, "softmax", x)) return NULL;
    wf_node *e = wf_exp(g, wf_sub(g, x, row_max(g, x)));
    wf_node *sum = wf_max_c(g, wf_sum(g, e, last_axis(x), true), 1e-30); /* at least 1, but 0 in a row of -inf */
    return wf_custom(g, wf_mul(g, e, wf_recip(g, sum)), &x, 1, vjp_softmax, NULL);
}

/* gx = gy exp(x - lse): the weights of the row */
static wf_status vjp_logsumexp(wf_graph *g, void *ctx, wf_node *lse, wf_node *const *in, int n_in, wf_node *gy, wf_node **gin) {
    (void)ctx, (void)n_in;
    gin[0] = wf_mul(g, gy, wf_exp(g, wf_sub(g, in[0], wf_max_c(g, lse, LOWEST))));
    return wf_graph_status(g);
}

static wf_node *logsumexp(wf_graph *g, wf_node *x) {
    wf_node *m = row_max(g, x);
    wf_node *sum = wf_sum(g, wf_exp(g, wf_sub(g, x, m)), last_axis(x), true);
    return wf_custom(g, wf_add(g, wf_log(g, sum), m), &x, 1, vjp_logsumexp, NULL);
}

wf_node *wf_logsumexp(wf_graph *g, wf_node *x, bool keep) {
    if (unfit(g, "logsumexp", x)) return NULL;
    wf_node *y = logsumexp(g, x);
    return keep || !y ? y : wf_squeeze(g, y, y->shape.rank - 1);
}

/* gx = gy - exp(y) sum(gy) */
static wf_status vjp_log_softmax(wf_graph *g, void *ctx, wf_node *y, wf_node *const *in, int n_in, wf_node *gy, wf_node **gin) {
    (void)ctx, (void)in, (void)n_in;
    gin[0] = wf_sub(g, gy, wf_mul(g, wf_exp(g, y), wf_sum(g, gy, last_axis(y), true)));
    return wf_graph_status(g);
}

wf_node *wf_log_softmax(wf_graph *g, wf_node *x) {
    if (unfit(g, "log_softmax", x)) return NULL;
    wf_node *m = row_max(g, x);
    wf_node *shifted = wf_sub(g, x, m);
    wf_node *log_sum = wf_max_c(g, wf_log(g, wf_sum(g, wf_exp(g, shifted), last_axis(x), true)), LOWEST);
    return wf_custom(g, wf_sub(g, shifted, log_sum), &x, 1, vjp_log_softmax, NULL);
}
