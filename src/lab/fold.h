/* fold.h: folding a model's norms into its linears, as the quantities folded_* need it. */
#ifndef WF_LAB_FOLD_H
#define WF_LAB_FOLD_H

#include "lab/lab.h"

/* The folded model, and the largest difference of outputs on random input over the largest output. WF_EUNSUPPORTED: nothing to
 * fold. */
wf_status wf_fold_copy(wf_model *m, wf_model **out, double *change);

/* cell.c: the untrained run of a design. */
wf_run *wf_cell_open(const wf_claim *c, int design, int seed);

#endif
