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

/* Of the module's own tensors; NULL if it has none of that name. */
const wf_tensor *wf_norm_tensor(const wf_module *m, const char *name);
/* In a fold: what weight and bias, as far as they are declared, make of y = a x + c. */
void wf_norm_affine_fold(const wf_module *m, double *a, double *c);

/* srmsnorm.c: x / (|x| / sqrt(D) + eps) over the last axis; at a row of zeros dx = g / eps. */
wf_node *wf_srms(wf_graph *g, wf_node *x, double eps);

static inline unsigned wf_last(const wf_node *x) {
    return x ? 1u << (x->shape.rank - 1) : 0;
}

/* adaln.c: what a condition c = b->condition makes: W silu(c) + b in n vectors of m->in each, W [n D,C] and b [n D] zero at the
 * start. setup declares "weight" and "bias" and refuses a model without a condition; the other gives vector 0 .. n-1 side by side,
 * [B,1,n D] or [B,L,n D], for x [B,L,D]. */
wf_status wf_conditioned_setup(wf_module *m, int64_t n);
wf_node *wf_conditioned(wf_build *b, wf_module *m, const wf_node *x);

extern const wf_part wf_norm_layernorm, wf_norm_rmsnorm, wf_norm_groupnorm, wf_norm_l2norm, wf_norm_dyt, wf_norm_batchnorm,
    wf_norm_none, wf_norm_adaln, wf_norm_unified, wf_norm_power, wf_norm_groupscale, wf_norm_repbn, wf_norm_prepbn,
    wf_norm_crmsnorm, wf_norm_srmsnorm, wf_norm_affinemap;

/* groupscale.c: x [.., D] divided by sqrt(mean over its group of x^2 + eps), at least float32. */
wf_status wf_group_scale_check(const wf_module *m, const char *option, int64_t groups);
wf_node *wf_group_scale(wf_build *b, const wf_module *m, wf_node *x, int64_t groups, double eps);

/* power.c: stage 2 of a power norm in evaluation as y = a u + c. What is left of it then is norm groupscale of these options. */
wf_status wf_norm_power_fold(const wf_module *m, double *a, double *c);
wf_status wf_norm_power_rest(const wf_module *m, int64_t *groups, double *eps); /* WF_ENOTFOUND: nothing, there is no stage 1 */

#endif
