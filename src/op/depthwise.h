/* depthwise.h: inside of the depthwise convolution, shared by depthwise.c (operators, threads) and simd/depthwise.c (one row of
 * pixels, its part of the kernel's gradient). REAL is float or double. */
#ifndef WF_DEPTHWISE_H
#define WF_DEPTHWISE_H

#include <stdint.h>

typedef struct wf_depthwise { /* x, y dense [B,Y,X,C], w dense [ky,kx,c]; channel j has kernel j mod c */
    int64_t B, Y, X, C, c, ky, kx;
    const void *x, *w, *gy;
    void *y;
} wf_depthwise;

typedef struct wf_depthwise_kernel {
    /* Row `row` of picture b. */
    void (*row)(const wf_depthwise *t, int64_t b, int64_t row);
    /* What row `row` of gy of picture b adds to the gradient of w: all [ky,kx,c]. */
    void (*gradient)(const wf_depthwise *t, int64_t b, int64_t row, double *all);
} wf_depthwise_kernel;

enum { WF_DEPTHWISE_MOST = 63 }; /* rows and columns of a kernel */

#endif
