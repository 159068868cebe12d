/* linear.h: the linears. x [.., I] -> [.., O]. */
#ifndef WF_LINEAR_H
#define WF_LINEAR_H

#include "part/part.h"

/* clang-format off */
#define WF_LINEAR_BIAS_OPTION(type)                                                                                       \
    {"bias", WF_OPT_CHOICE, offsetof(type, bias), "model", 0, 0, "model|true|false", "bias; model: as the part around it asks"}
/* clang-format on */

/* The effective weight [O,I] of a sigma module, as a product or a convolution uses it; in training it brings u up to date. */
wf_node *wf_sigma_weight(wf_build *b, wf_module *m);

extern const wf_part wf_linear_dense, wf_linear_sigma, wf_linear_zero_mean;

#endif
