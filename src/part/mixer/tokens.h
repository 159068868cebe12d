/* tokens.h: mixers that work on the tokens themselves: pooling, identity, fixed matrices over positions, gating units. */
#ifndef WF_TOKENS_H
#define WF_TOKENS_H

#include "part/part.h"

/* In setup: how many tokens there are, m->model->max_length; fails where the model leaves it open. */
wf_status wf_positions_fixed(const wf_module *m, int64_t *n);
/* y[b,i] = sum_j w[i,j] x[b,j] over the first L positions of w [N,N]; x [B,L,D]. Padded tokens count as 0. */
wf_node *wf_mix_positions(wf_build *b, const wf_module *m, wf_node *w, wf_node *x);
/* x in the type of the stream's arithmetic, padded tokens 0. */
wf_node *wf_unpadded(wf_build *b, wf_node *x);

extern const wf_part wf_mixer_pool, wf_mixer_identity, wf_mixer_random, wf_mixer_spatialfc, wf_mixer_glu, wf_mixer_cross;

#endif
