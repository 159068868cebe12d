/* affine.c: gain and bias at the end of a norm. */
#include "part/norm/norm.h"

wf_status wf_norm_affine_setup(wf_module *m, bool weight, double start, bool bias) {
    wf_init init = {WF_INIT_CONST, start};
    if (weight && !wf_declare(m, "weight", WF_SHAPE(m->in), init, WF_PARAM_NO_DECAY)) return WF_ENOMEM;
    if (bias && !wf_declare(m, "bias", WF_SHAPE(m->in), (wf_init){WF_INIT_ZERO, 0}, WF_PARAM_NO_DECAY)) return WF_ENOMEM;
    return WF_OK;
}

wf_node *wf_norm_affine(wf_build *b, wf_module *m, wf_node *x) {
    wf_node *w = wf_use_or_null(b, m, "weight"), *c = wf_use_or_null(b, m, "bias");
    if (w) x = wf_mul(b->g, x, w);
    return c ? wf_add(b->g, x, c) : x;
}
