/* fold.c: folding through the transform room, in memory. */
#include "lab/fold.h"

#include <string.h>

static bool has_folding_norm(const wf_module *m) {
    static const char *const name[] = {"batchnorm", "unified", "repbn", "prepbn", "power"};
    for (size_t i = 0; !strcmp(m->part->slot, "norm") && i < sizeof name / sizeof *name; i++)
        if (!strcmp(m->part->name, name[i])) return true;
    for (int i = 0; i < m->n_child; i++)
        if (has_folding_norm(m->child[i])) return true;
    return false;
}

#if __has_include("transform/transform.h")
#error "call the transform room here"
#else
bool wf_fold_known(const wf_model *m) {
    (void)has_folding_norm;
    (void)m;
    return false;
}

wf_model *wf_fold_copy(const wf_model *m, double *change) {
    wf_fail(WF_EUNSUPPORTED, "this build cannot fold");
    return NULL;
}
#endif
