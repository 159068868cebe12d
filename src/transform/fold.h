/* fold.h: inside of the transform room: what folding and converting share. */
#ifndef WF_FOLD_H
#define WF_FOLD_H

#include "transform/edit.h"

/* The constant part of a norm, y = a (what stays)(x) + b, a, b [in]. */
typedef struct wf_split {
    double *a, *b;
    const char *rest; /* what stays, as an entry of `parts`: "none", "{affine: false}" */
    bool something;   /* there is a constant part */
    bool whole;       /* statistics are constant too: not only gain and bias */
} wf_split;
wf_status wf_norm_split(wf_edit *e, const wf_module *norm, wf_split *s);
/* Change a linear that reads a x + b, or (before) is followed by it; it gains a bias where it needs one. */
wf_status wf_fold_into(wf_edit *e, wf_module *linear, bool before, const double *a, const double *b);

#endif
