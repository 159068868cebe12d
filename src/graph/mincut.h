/* mincut.h: minimum cut of a network with integer capacities. */
#ifndef WF_MINCUT_H
#define WF_MINCUT_H

#include "base/base.h"

#define WF_FLOW_MAX ((int64_t)1 << 60) /* cannot be cut */

typedef struct wf_flow wf_flow;
wf_flow *wf_flow_new(int n); /* vertices 0..n-1 */
void wf_flow_free(wf_flow *f);
void wf_flow_edge(wf_flow *f, int from, int to, int64_t capacity);
/* Of the minimum cuts the one closest to the sink; sink_side[v]: v is behind it. WF_ENOMEM when an edge found no memory. */
wf_status wf_flow_cut(wf_flow *f, int source, int sink, bool *sink_side);

#endif
