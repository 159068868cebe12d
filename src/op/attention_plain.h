/* attention_plain.h: what the fused attention operator and its plain composition have in common. Not for other rooms. */
#ifndef WF_ATTENTION_PLAIN_H
#define WF_ATTENTION_PLAIN_H

#include "op/op.h"

/* Check shapes and options; bring q, k, v to one dtype; fill in the scale; give bias and slopes the dtype of the arithmetic and
 * bias the shape [B,H,L,S]. False after an error (recorded in the graph). spec may be NULL: plain full softmax attention. */
bool wf_attention_settle(wf_graph *g, wf_node **q, wf_node **k, wf_node **v, const wf_attention_spec *spec,
                         wf_attention_spec *s);
/* The composition for settled operands. out[0] = o in q's dtype, out[1] = lse; *weights (may be NULL) the normalised weights,
 * before dropout. */
wf_status wf_attention_compose(wf_graph *g, wf_node *q, wf_node *k, wf_node *v, const wf_attention_spec *s, wf_node **out,
                               wf_node **weights);

#endif
