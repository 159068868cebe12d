/* moments.c: mean and variance in one reading of the data.
 *
 * E[x^2] - E[x]^2 loses all digits when the mean is large against the spread; centring by the mean first reads everything twice.
 * Here x is shifted by a number near its mean, the mean of SAMPLE entries: with e = x - s
 *
 *     mean = s + E[e],   var = E[e^2] - E[e]^2
 *
 * and the loss is E[e]^2/var units of rounding, which is about 1/SAMPLE, and for the worst data (one outlier, in the sample, among N
 * entries) N/SAMPLE^2. The result does not depend on s, so s has no derivative.
 */
#include "op/op.h"

enum { SAMPLE = 16 };

/* Sum over the axes but the last, then over the last if it is among them: with kept axes in between, whole rows are added up. */
static wf_node *sum(wf_graph *g, wf_node *x, unsigned axes) {
    unsigned last = 1u << (x->shape.rank - 1);
    if (axes & last && axes & ~last) return wf_sum(g, wf_sum(g, x, axes & ~last, true), last, true);
    return wf_sum(g, x, axes, true);
}

static wf_node *first_entries(wf_graph *g, wf_node *x, int axis) {
    return x && x->shape.dim[axis] > SAMPLE ? wf_slice(g, x, axis, 0, SAMPLE) : x;
}

wf_node *wf_moments(wf_graph *g, wf_node *x, unsigned axes, wf_node *keep, wf_node *n, wf_node **mean) {
    *mean = NULL;
    if (!x) return NULL;
    int axis = 0;
    while (axis + 1 < x->shape.rank && !(axes >> axis & 1)) axis++;
    if (axes >> x->shape.rank || !(axes >> axis & 1))
        return wf_graph_fail(g, WF_EINVAL, "moments: axis set 0x%x of a tensor of rank %d", axes, x->shape.rank);
    double count = 1;
    for (int i = 0; i < x->shape.rank; i++)
        if (axes >> i & 1) count *= (double)x->shape.dim[i];
    wf_node *part = first_entries(g, x, axis), *s;
    if (keep) {
        wf_node *k = first_entries(g, wf_expand(g, keep, x->shape), axis);
        s = wf_div(g, sum(g, wf_mul(g, part, k), axes), wf_max_c(g, sum(g, k, axes), 1));
    } else {
        s = wf_mean(g, part, axes, true);
    }
    s = wf_stop_gradient(g, s);
    wf_node *e = wf_sub(g, x, s), *inv = n ? wf_recip(g, n) : NULL;
    if (keep) e = wf_mul(g, e, keep);
    wf_node *m = sum(g, e, axes), *q = sum(g, wf_square(g, e), axes);
    m = inv ? wf_mul(g, m, inv) : wf_mul_c(g, m, 1 / count);
    q = inv ? wf_mul(g, q, inv) : wf_mul_c(g, q, 1 / count);
    *mean = wf_add(g, s, m);
    return wf_max_c(g, wf_sub(g, q, wf_square(g, m)), 0);
}
