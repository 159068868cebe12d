/* entropy.h: how evenly attention looks, and how low its entropy can be (Zhai et al. 2023).
 *
 * A row of T visible scores has entropy Ent = -sum_j p_j log p_j in nats, p their softmax. If s bounds the length of the row,
 * centred or not, then with beta = exp(-s sqrt(T/(T-1)))
 *     Ent >= log(1 + (T-1) beta) + s sqrt(T(T-1)) beta / (1 + (T-1) beta),
 * which one high score among equal others attains. T = 1: both are 0.
 */
#ifndef WF_ENTROPY_H
#define WF_ENTROPY_H

#include "op/op.h"

/* scores [..,L,S], visible of a shape that broadcasts to it (1 or 0) or NULL: all. Ent of every row [..,L]; differentiable. */
wf_node *wf_row_entropy(wf_graph *g, wf_node *scores, wf_node *visible);
/* Visible scores of every row [..,L], and the length of the row after its mean is taken off [..,L]: the sharpest s. */
wf_node *wf_row_count(wf_graph *g, wf_node *scores, wf_node *visible);
wf_node *wf_row_length(wf_graph *g, wf_node *scores, wf_node *visible);
/* The bound for s and T of any shapes that broadcast. */
wf_node *wf_entropy_bound(wf_graph *g, wf_node *s, wf_node *T);
double wf_entropy_bound_of(double s, double T); /* for one row */

#endif
