/* transnormer.h: what the two attentions of TransNormer share: the norm of their output and their initial weights. */
#ifndef WF_TRANSNORMER_H
#define WF_TRANSNORMER_H

#include "part/mixer/heads.h"

/* [B,L,H,d] -> [B,L,D]: heads side by side, srms over all of them (eps < 0: none), the placement's inner norm, output linear. */
wf_node *wf_srms_merge(wf_build *b, wf_module *m, wf_node *o, double eps);
/* choice "xavier": weights of q, k, v start uniform with Xavier's width times `gain`, those of o with gain 1; "model": as they
 * are. Call after wf_heads_setup. */
void wf_xavier_heads(wf_module *m, const char *choice, double gain);

/* clang-format off */
#define WF_TRANSNORMER_INIT(type)                                                                                          \
    {"init", WF_OPT_CHOICE, offsetof(type, init), "xavier", 0, 0, "xavier|model",                                          \
     "initial weights: the authors' Xavier-uniform, or what the model gives all linears"}
/* clang-format on */

#endif
