/* row.h: options that every row of the placement table has. */
#ifndef WF_PLACEMENT_ROW_H
#define WF_PLACEMENT_ROW_H

typedef struct wf_placement_opt {
    double residual_scale;
} wf_placement_opt;

#endif
