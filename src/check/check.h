/* check.h: `weft check`: does a part or model of this program give what a golden case says?
 *
 * A case is one .safetensors file (inputs, parameters, expected outputs, cotangents, expected gradients) whose metadata names
 * the module to build and its options. A tensor passes when ||a - b|| <= r ||b|| + 1e-6 sqrt(n), r = 1e-5 for outputs and
 * 1e-4 for gradients.
 *
 * Cases are run in float32. Some true gradients are exactly zero (a key bias under softmax) and come out as the rounding of
 * large terms, in any float32 program. So a tensor outside its bound is computed again in float64, by the same graph: it passes
 * when that is within the bound and the float32 deviation is small too, below ten times the bound plus 1e-6 of the largest
 * tensor of its kind in the case. Both numbers are shown.
 */
#ifndef WF_CHECK_ROOM_H
#define WF_CHECK_ROOM_H

#include "part/part.h"

typedef struct wf_check_row {
    char *name; /* "out.y", "grad.param.fc1.weight" */
    bool gradient, pass;
    int64_t count;
    double error;           /* ||a - b|| / ||b||; ||a - b|| when b is zero */
    double largest;         /* largest |a - b| */
    double relative, floor; /* the bound: relative ||b|| + floor */
    double norm;            /* ||b|| */
    bool repeated;          /* judged by float64 as said above */
    double error64;         /* then: the error there */
} wf_check_row;

typedef enum {
    WF_CHECK_PASSED = 0,
    WF_CHECK_FAILED,
    WF_CHECK_NOT_YET,  /* no adapter for this module */
    WF_CHECK_UNUSABLE, /* malformed, or says what makes no sense: see reason */
} wf_verdict;

typedef struct wf_check_result {
    wf_verdict verdict;
    char *path, *system, *module, *reason; /* may be NULL */
    int n, cap;
    wf_check_row *row;
    double seconds;
} wf_check_result;

/* Check one file. Everything that can be wrong with it is in the result; free with wf_check_free. */
void wf_check_file(const char *path, bool float64, wf_check_result *r);
void wf_check_free(wf_check_result *r);
const char *wf_verdict_name(wf_verdict v); /* "passed" ... */
/* Names of all modules that can be checked. */
const char *const *wf_check_modules(int *n);

#endif
