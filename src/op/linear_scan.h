/* linear_scan.h: inside of the linear scan operator, shared by linear_scan.c (operator, threads) and simd/linear_scan.c (one
 * head on one thread). REAL is float, or double for float64 operands. */
#ifndef WF_LINEAR_SCAN_H
#define WF_LINEAR_SCAN_H

#include "graph/graph.h"

enum { WF_SCAN_CHUNK = 64 };

/* One head of one sequence. Rows of operands are *_row elements apart; results likewise. */
typedef struct wf_scan_head {
    int64_t L;
    int d, e;
    wf_dtype dtype; /* of q, k, v, o and their gradients */
    const void *q, *k, *v;
    int64_t q_row, k_row, v_row;
    const void *decay; /* REAL, NULL: 1 */
    int64_t decay_row;
    const void *state; /* REAL, NULL: 0; rows state_row apart, columns dense */
    int64_t state_row;
    void *o, *state_out; /* state_out dense REAL [d,e] */
    int64_t o_row;
    const void *go, *gstate; /* backward; gstate REAL or NULL */
    int64_t go_row, gstate_row;
    void *dq, *dk, *dv, *ddecay, *dstate; /* ddecay, dstate: REAL, NULL where not wanted */
    int64_t dq_row, dk_row, dv_row, ddecay_row;
    void *scratch;
} wf_scan_head;

typedef struct wf_scan_kernel {
    size_t (*forward_scratch)(int64_t L, int d, int e);
    size_t (*backward_scratch)(int64_t L, int d, int e);
    void (*forward)(const wf_scan_head *h);
    void (*backward)(const wf_scan_head *h);
} wf_scan_kernel;

#endif
