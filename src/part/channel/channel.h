/* channel.h: the channel mixers: [.., D] -> [.., D], token by token. */
#ifndef WF_CHANNEL_H
#define WF_CHANNEL_H

#include "part/part.h"

/* Width of the hidden layer: `hidden` if given, else ratio * D rounded up to a multiple of `multiple`. */
int64_t wf_hidden_width(int64_t D, int64_t hidden, double ratio, int64_t multiple);

extern const wf_part wf_channel_mlp, wf_channel_swiglu, wf_channel_geglu;
extern const wf_part wf_channel_glu;

#endif
