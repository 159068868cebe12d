/* gated.h: gated feed-forward networks, y = W2 (act(W1 x) * (W3 x)); SwiGLU and GEGLU are two activations of it. */
#ifndef WF_GATED_H
#define WF_GATED_H

#include "part/channel/channel.h"

typedef struct wf_gated_opt {
    int64_t hidden, multiple;
    double ratio, dropout;
    const char *bias, *act;
} wf_gated_opt;

/* clang-format off */
#define WF_GATED_OPTIONS                                                                                                              \
    {"hidden", WF_OPT_INT, offsetof(wf_gated_opt, hidden), "0", 0, 1 << 24, NULL, "hidden width; 0: from ratio"},                     \
    {"ratio", WF_OPT_REAL, offsetof(wf_gated_opt, ratio), "2.6666666666666665", 0.001, 1000, NULL,                                    \
     "hidden width over width; 8/3 has the parameters of an mlp of ratio 4"},                                                         \
    {"multiple", WF_OPT_INT, offsetof(wf_gated_opt, multiple), "8", 1, 4096, NULL, "a hidden width from ratio is rounded up to a multiple of this"}, \
    {"bias", WF_OPT_CHOICE, offsetof(wf_gated_opt, bias), "model", 0, 0, "model|true|false", "biases; model: as the model says"},     \
    {"dropout", WF_OPT_REAL, offsetof(wf_gated_opt, dropout), "0", 0, 0.99, NULL, "dropout of the hidden layer"}
/* clang-format on */

wf_status wf_gated_setup(wf_module *m);
wf_node *wf_gated_forward(wf_build *b, wf_module *m, wf_node *x, const char *act);

#endif
