/* probe.h: what goes on inside a model on a real batch: one table a measure, one row a layer (or head, or weight).
 *
 * A measure is one struct: a name, its columns, a function that fills rows. A new one is a line in the table of probe.c.
 */
#ifndef WF_PROBE_H
#define WF_PROBE_H

#include "data/data.h"
#include "part/part.h"

enum { WF_PROBE_COLUMNS = 8 };

typedef struct wf_probe_row {
    char *name;                     /* "blocks.3", "blocks.3.mixer head 0" */
    double value[WF_PROBE_COLUMNS]; /* NaN: does not apply here */
} wf_probe_row;

typedef struct wf_probe wf_probe;
typedef struct wf_probe_table {
    const wf_probe *probe;
    int n, cap;
    wf_probe_row *row; /* owned; wf_probe_free */
} wf_probe_table;

typedef struct wf_probe_input {
    wf_model *model;
    const wf_task *task;
    int64_t batch; /* samples, held-out ones */
} wf_probe_input;

struct wf_probe {
    const char *name, *title; /* "variance", one line */
    const char *help;         /* what the columns are */
    const char *column[WF_PROBE_COLUMNS + 1];
    wf_status (*run)(const wf_probe_input *in, wf_probe_table *t);
};

const wf_probe *const *wf_probe_all(int *n);
const wf_probe *wf_probe_find(const char *name); /* NULL + message naming the nearest */
/* Fill `out` (zeroed here). The model is used as for evaluation and not changed. WF_EUNSUPPORTED: nothing in it can be measured so. */
wf_status wf_probe_run(const wf_probe *p, const wf_probe_input *in, wf_probe_table *out);
void wf_probe_free(wf_probe_table *t);

#endif
