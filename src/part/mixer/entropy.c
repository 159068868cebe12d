/* entropy.c: entropy of attention rows and its lower bound, as a graph and as numbers. */
#include "part/mixer/entropy.h"

#include <math.h>

static unsigned last(const wf_node *x) {
    return 1u << (x->shape.rank - 1);
}

/* Hidden scores are finite: 0 times them stays 0, also in the derivative. */
wf_node *wf_row_entropy(wf_graph *g, wf_node *scores, wf_node *visible) {
    if (!scores) return NULL;
    wf_node *x = visible ? wf_where(g, visible, scores, wf_fill(g, scores->dtype, WF_SHAPE(1), -1e30)) : scores;
    wf_node *log_p = wf_log_softmax(g, x);
    return log_p ? wf_neg(g, wf_sum(g, wf_mul(g, wf_exp(g, log_p), log_p), last(log_p), false)) : NULL;
}

wf_node *wf_row_count(wf_graph *g, wf_node *scores, wf_node *visible) {
    if (!scores) return NULL;
    wf_node *one = wf_fill(g, scores->dtype, scores->shape, 1);
    return wf_sum(g, visible ? wf_mul(g, one, visible) : one, last(scores), false);
}

wf_node *wf_row_length(wf_graph *g, wf_node *scores, wf_node *visible) {
    if (!scores) return NULL;
    wf_node *n = wf_unsqueeze(g, wf_row_count(g, scores, visible), scores->shape.rank - 1);
    wf_node *seen = visible ? wf_mul(g, scores, visible) : scores;
    wf_node *c = wf_sub(g, scores, wf_div(g, wf_sum(g, seen, last(scores), true), wf_max_c(g, n, 1)));
    if (visible) c = wf_mul(g, c, visible);
    return wf_sqrt(g, wf_sum(g, wf_square(g, c), last(scores), false));
}

wf_node *wf_entropy_bound(wf_graph *g, wf_node *s, wf_node *T) {
    if (!s || !T) return NULL;
    wf_node *many = wf_max_c(g, T, 2), *less = wf_add_c(g, many, -1);
    wf_node *beta = wf_exp(g, wf_neg(g, wf_mul(g, s, wf_sqrt(g, wf_div(g, many, less)))));
    wf_node *rest = wf_mul(g, less, beta);
    wf_node *lift = wf_div(g, wf_mul(g, wf_mul(g, s, beta), wf_sqrt(g, wf_mul(g, many, less))), wf_add_c(g, rest, 1));
    wf_node *bound = wf_add(g, wf_log1p(g, rest), lift);
    return wf_where(g, wf_lt(g, T, wf_fill(g, T->dtype, WF_SHAPE(1), 1.5)), wf_fill(g, s->dtype, WF_SHAPE(1), 0), bound);
}

double wf_entropy_bound_of(double s, double T) {
    if (T < 1.5) return 0;
    double beta = exp(-s * sqrt(T / (T - 1)));
    return log1p((T - 1) * beta) + s * sqrt(T * (T - 1)) * beta / (1 + (T - 1) * beta);
}
