/* splitting.h: splitting schemes for dx/dt = F(x) + G(x), by which Macaron Net reads a transformer's layer (Lu et al. 2019): F is
 * attention, G the feed-forward network.
 *
 *     Lie-Trotter       x <- G_h(F_h(x))                what the usual layer does; local error O(h^2)
 *     Strang-Marchuk    x <- G_h/2(F_h(G_h/2(x)))       what Macaron does; local error O(h^3)
 *
 * F_h is the flow of F over time h: exact, or one explicit Euler step, as a network's layer has it (both schemes are then of first
 * order). All in double precision.
 */
#ifndef WF_SPLITTING_H
#define WF_SPLITTING_H

#include "base/base.h"

typedef struct wf_field { /* a vector field on R^n */
    int64_t n;
    const double *matrix; /* linear: dx = matrix x, [n,n]; NULL: `rate` */
    void (*rate)(const void *ctx, const double *x, double *dx);
    const void *ctx;
} wf_field;

typedef enum { WF_SPLIT_LIE_TROTTER, WF_SPLIT_STRANG } wf_split_scheme;
typedef enum {
    WF_FLOW_EXACT,
    WF_FLOW_EULER
} wf_flow_kind; /* EXACT of a field that is not linear: Runge-Kutta of order 4 in tiny steps */

/* e^(t A), [n,n]: scaled until small, Taylor, squared again. */
wf_status wf_matrix_exponential(const double *A, int64_t n, double t, double *out);
/* x [n] from time 0 to T in `steps` equal steps of the scheme, in place. */
wf_status wf_split_solve(const wf_field *F, const wf_field *G, wf_split_scheme scheme, wf_flow_kind kind, double T,
                         int64_t steps, double *x);
/* The same of F + G without splitting: what the schemes are measured against. */
wf_status wf_split_reference(const wf_field *F, const wf_field *G, double T, double *x);

/* A pair that is not linear: L particles of width d, x [L,d]. F: sum_j softmax_j(x_i Q . x_j K / sqrt(d)) V^T x_j; G: W2 tanh(W1 x_i).
 * All matrices are [d,d], drawn from `seed`. Free with wf_particles_free. */
typedef struct wf_particles {
    int64_t L, d;
    double *q, *k, *v, *w1, *w2;
    wf_field F, G; /* their ctx is this struct: do not move it */
} wf_particles;
wf_status wf_particles_make(wf_particles *p, int64_t L, int64_t d, uint64_t seed);
void wf_particles_free(wf_particles *p);

#endif
