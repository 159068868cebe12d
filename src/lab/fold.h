/* fold.h: folding a model's norms into its linears, as the quantities folded_* need it. */
#ifndef WF_LAB_FOLD_H
#define WF_LAB_FOLD_H

#include "lab/lab.h"

/* Whether the model has norms that are affine maps in evaluation, so that folding leaves no statistic to compute. */
bool wf_fold_known(const wf_model *m);
/* The folded model; *change: largest difference of outputs on random input. NULL + message. */
wf_model *wf_fold_copy(const wf_model *m, double *change);

/* cell.c: the untrained run of a design. */
wf_run *wf_cell_open(const wf_claim *c, int design, int seed);

#endif
