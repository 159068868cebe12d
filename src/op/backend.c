/* backend.c: what the graph room needs from this one. */
#include "op/op.h"
#include "op/rows.h"

wf_graph *wf_graph_open(void) {
    static const wf_backend backend = {
        .add = wf_add, .contiguous = wf_contiguous, .fill = wf_fill, .run_rows = wf_run_rows, .rows_scratch = wf_rows_scratch};
    return wf_graph_new(&backend);
}
