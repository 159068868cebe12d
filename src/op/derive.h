/* derive.h: derivatives of the pointwise operators, for their table. */
#ifndef WF_DERIVE_H
#define WF_DERIVE_H

#include "graph/graph.h"

wf_status wf_vjp_unary(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin);
wf_status wf_vjp_immediate(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin);
wf_status wf_vjp_binary(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin);
wf_status wf_vjp_where(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin);
wf_status wf_vjp_copy(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin);

#endif
