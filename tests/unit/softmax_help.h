/* softmax_help.h: random tensors for the tests of attention and its linears. Header-only. */
#ifndef SOFTMAX_HELP_H
#define SOFTMAX_HELP_H

#include "gradcheck.h"
#include "parts_help.h"

static inline wf_tensor *noise(wf_shape s, uint64_t seed, double size) {
    wf_tensor *t = wf_tensor_new(WF_F32, s);
    gc_random(t, seed, 0, 0, 0);
    for (int64_t i = 0; i < wf_tensor_count(t); i++) wf_tensor_set(t, i, size * wf_tensor_get(t, i));
    return t;
}

static inline wf_tensor *as_double(const wf_tensor *t) {
    wf_tensor *d = wf_tensor_new(WF_F64, t->shape);
    for (int64_t i = 0; i < wf_tensor_count(t); i++) wf_tensor_set(d, i, wf_tensor_get(t, i));
    return d;
}

#endif
