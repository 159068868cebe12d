/* position.h: position schemes, and the tables they share. */
#ifndef WF_POSITION_H
#define WF_POSITION_H

#include "part/part.h"

/* Rows pos .. pos+L-1 (pos: b->pos, or 0) of a [rows, n] leaf: [L, n]. Fails when L alone exceeds the table. */
wf_node *wf_position_rows(wf_build *b, const wf_module *m, wf_node *table, int64_t L);
/* How many rows a computed table needs in this build: the room of the caches when stepping, else L; rounded up. */
int64_t wf_position_room(const wf_build *b, const wf_module *m, int64_t L);
/* Angles (offset + t) base^(-2i/r), t < rows, i < r/2, reduced to [-pi, pi] in double so that float32 keeps its digits. */
wf_node *wf_rope_angles(wf_build *b, const wf_module *m, int64_t L, int64_t r, double base, int64_t offset);
/* [H]: 2^(-8h/H), h = 1..H; for H no power of two the published interpolation. */
void wf_alibi_slopes(int64_t H, double *slope);
/* Interleaved: table[t,2i] = sin(t base^(-2i/D)), [t,2i+1] = cos; halves: sines first, then cosines. float32 [rows, D] */
void wf_sinusoid_table(float *table, int64_t rows, int64_t D, double base, int64_t offset, bool halves);

extern const wf_part wf_position_none, wf_position_learned, wf_position_sinusoidal, wf_position_rope, wf_position_alibi;
extern const wf_part wf_position_lrpe;

#endif
