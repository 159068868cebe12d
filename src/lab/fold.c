/* fold.c: folding through the transform room, in memory. */
#include "lab/fold.h"
#include "transform/transform.h"

#include <math.h>

wf_status wf_fold_copy(wf_model *m, wf_model **out, double *change) {
    wf_transform_report report = {0};
    wf_transform_figures f = {0};
    *change = NAN;
    *out = wf_fold(m, NULL, &report);
    wf_transform_report_free(&report);
    if (!*out) return WF_EUNSUPPORTED;
    wf_status s = wf_transform_compare(m, *out, 1, &f);
    if (s == WF_OK) {
        *change = f.largest > 0 ? f.difference / f.largest : f.difference;
        return WF_OK;
    }
    wf_model_free(*out);
    *out = NULL;
    return s;
}
