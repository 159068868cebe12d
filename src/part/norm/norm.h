/* norm.h: what the norms share. x [.., D]; statistics over the last axis unless said otherwise. */
#ifndef WF_NORM_H
#define WF_NORM_H

#include "part/part.h"

/* clang-format off */
#define WF_NORM_AFFINE_OPTIONS(type)                                                                                      \
    {"affine", WF_OPT_BOOL, offsetof(type, affine), "true", 0, 0, NULL, "learned gain (and bias, where the norm has one)"}
/* clang-format on */

/* Declare "weight" (at `start`) and, if wanted, "bias" of m->in entries. */
wf_status wf_norm_affine_setup(wf_module *m, bool weight, double start, bool bias);
/* x * weight + bias, as far as they are declared. */
wf_node *wf_norm_affine(wf_build *b, wf_module *m, wf_node *x);

static inline unsigned wf_last(const wf_node *x) {
    return x ? 1u << (x->shape.rank - 1) : 0;
}

extern const wf_part wf_norm_layernorm, wf_norm_rmsnorm, wf_norm_groupnorm, wf_norm_l2norm, wf_norm_dyt, wf_norm_batchnorm,
    wf_norm_crmsnorm, wf_norm_none;

#endif
