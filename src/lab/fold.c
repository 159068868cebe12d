/* fold.c: folding through the transform room, in memory. */
#include "lab/fold.h"

#include "transform/transform.h"

#include <string.h>

static bool has_folding_norm(const wf_module *m) {
    if (!strcmp(m->part->slot, "norm") && m->part->fold) return true;
    for (int i = 0; i < m->n_child; i++)
        if (has_folding_norm(m->child[i])) return true;
    return false;
}

bool wf_fold_known(const wf_model *m) {
    return has_folding_norm(m->root);
}

wf_model *wf_fold_copy(const wf_model *m, double *change) {
    wf_transform_report r = {0};
    wf_transform_figures f = {0};
    wf_model *folded = wf_fold(m, NULL, &r);
    if (folded && wf_transform_compare((wf_model *)(uintptr_t)m, folded, 1, &f) != WF_OK) {
        wf_model_free(folded);
        folded = NULL;
    }
    *change = f.largest > 0 ? f.difference / f.largest : f.difference;
    wf_transform_report_free(&r);
    return folded;
}
