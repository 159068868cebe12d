/* rows.h: inside of the row operators: the operator table, gradient helpers and the interpreter of row programs. */
#ifndef WF_ROWS_H
#define WF_ROWS_H

#include "graph/graph.h"
#include "graph/plan.h"

/* The operator of a row instruction (pointwise.c and reduce.c); NULL for instructions that only the fuser makes. */
const wf_op *wf_row_op(wf_row_code code);
extern const wf_op wf_row_reductions[];

/* Dtype of arithmetic between a and b: the widest float; a float before any integer; int32 for unlike integers. */
wf_dtype wf_promote(wf_dtype a, wf_dtype b);
/* Cost of one FLOP for each element of the result; bytes of distinct elements of inputs and of the result. */
void wf_cost_pointwise(const wf_node *n, wf_cost *c);
void wf_cost_move(const wf_node *n, wf_cost *c);
/* Gradient `x` of a broadcast operand `in`: summed to in's shape, in in's dtype. */
wf_node *wf_fit(wf_graph *g, wf_node *x, const wf_node *in);
/* A constant that broadcasts against anything: fill of shape []. */
wf_node *wf_constant(wf_graph *g, wf_dtype t, double v);
wf_status wf_vjp_reduction(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin);

/* rows.c */
wf_status wf_run_rows(const wf_call *c);
size_t wf_rows_scratch(const void *program);

#endif
