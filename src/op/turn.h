/* turn.h: inside of the reflected rotation, shared by turn.c (operators, threads) and simd/turn.c (all heads at one position).
 * REAL is float or double. */
#ifndef WF_TURN_H
#define WF_TURN_H

#include <stdint.h>

typedef struct wf_turn { /* x [B,L,H,d] by strides in elements; the others dense */
    int64_t B, L, H, d, pairs;
    int64_t xb, xl, xh, gb, gl, gh;    /* strides of x and g */
    const void *x, *g, *cos, *sin, *u; /* cos, sin [L,pairs]; u [d] or NULL */
    void *y, *dangle;                  /* y [B,L,H,d]: the result, or the gradient of x; dangle [L,pairs] */
} wf_turn;

typedef struct wf_turn_kernel {
    void (*forward)(const wf_turn *t, int64_t l);
    void (*backward)(const wf_turn *t, int64_t l);
} wf_turn_kernel;

enum { WF_TURN_MOST = 1024 }; /* channels of a head */

#endif
