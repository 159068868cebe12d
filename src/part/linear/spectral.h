/* spectral.h: the largest singular value of a matrix that lies in memory in one or several pieces, one below the other. */
#ifndef WF_SPECTRAL_H
#define WF_SPECTRAL_H

#include <stdint.h>

typedef struct wf_rows { /* rows x cols numbers, dense */
    const float *w;
    int64_t rows;
} wf_rows;

/* One power iteration: v = W u / |W u|, u <- W^T v / |W^T v|; the result is v^T W u with the new u. u [cols] unit. v: scratch for
 * all rows. Lengths below 1e-12 count as 1e-12. */
double wf_power_step(const wf_rows *part, int n_part, int64_t cols, double *u, double *v);
/* The largest singular value and its right vector u [cols], by Lanczos iteration with restarts; u is also where it starts (zero: it
 * finds its own start). The same numbers on every run. Negative: out of memory. */
double wf_largest_singular(const wf_rows *part, int n_part, int64_t cols, double *u);

#endif
