/* view.h: views as unslice.c and builders of other operators see them. */
#ifndef WF_VIEW_H
#define WF_VIEW_H

#include "graph/graph.h"

/* x as elements start.. of an axis of the given size, zeros around it: the adjoint of wf_slice, whose arguments were checked. */
wf_node *wf_unslice(wf_graph *g, wf_node *x, int axis, int64_t start, int64_t size);
/* What a broadcast view (wf_expand) repeats; NULL when x is none. */
wf_node *wf_repeated(const wf_node *x);

#endif
