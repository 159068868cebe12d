/* transform.h: model file -> model file. A transform takes a finished model and makes another one that computes the same
 * function more cheaply, or in another form; the new recipe describes the new network, so that everything else (generate, eval,
 * train, serve) works on it unchanged.
 *
 *     model --wf_fold | wf_convert_norm--> new model + report --wf_transform_compare, _time--> figures
 *
 * What cannot be done exactly is not done, and the report says why.
 */
#ifndef WF_TRANSFORM_H
#define WF_TRANSFORM_H

#include "part/part.h"

/* ---- what was done ---- */
typedef struct wf_transform_note {
    char *text; /* "blocks.*.mixer_in_norm: gain and bias into q k v, layernorm stays without them" */
    int times;  /* modules that it says this of */
    bool kept;  /* not a change, but why there is none */
} wf_transform_note;
typedef struct wf_transform_report { /* zero-initialise; free with wf_transform_report_free */
    int n, cap, changed;             /* changed: notes that are changes */
    wf_transform_note *note;
    int64_t parameters_before, parameters_after; /* trainable ones */
} wf_transform_report;
void wf_transform_report_free(wf_transform_report *r);

/* ---- fold.c ---- */
typedef struct wf_fold_opt {
    bool keep_tied; /* a tied head stays tied: what stands in front of it is not folded */
} wf_fold_opt;
/* Put into the weights what is constant in evaluation:
 *     norms that are affine (batchnorm and its kin) into the linears after them, W' = W diag(a), bias' = bias + W b, or, on a branch's
 *     output, into the one before, W' = diag(a) W, bias' = a bias + b; of other norms gain and bias alone;
 *     layer scales into the last linear of their branch;
 *     linears that make their weight of several tensors (sigma, zero-mean) become dense; a centred embedding is centred once.
 * The result belongs to the caller. NULL + message when nothing can be folded (WF_EUNSUPPORTED) or on failure. opt may be NULL.
 * Sources: Yang et al. 2022, Jiang et al. 2023, Guo et al. 2024, Shen et al. 2020, Zhai et al. 2023. */
wf_model *wf_fold(const wf_model *m, const wf_fold_opt *opt, wf_transform_report *r);

/* ---- convert.c ---- */
/* Pre-LN <-> Pre-RMSNorm <-> Pre-CRMSNorm: `to` is layernorm, rmsnorm or crmsnorm. Everything that writes to the stream loses its mean
 * over the channels; crmsnorm then leaves the last channel out (stream width D-1). NULL + message with the reason when the
 * two networks would not be the same function. Source: Jiang et al. 2023. */
wf_model *wf_convert_norm(const wf_model *m, const char *to, wf_transform_report *r);

/* ---- measure.c ---- */
typedef struct wf_transform_figures {
    int64_t batch, length;      /* of the random input: tokens of a sequence, 0 for pictures */
    double difference, largest; /* largest |a - b| of the outputs and largest |a| */
    double before, after;       /* seconds of a forward pass, medians */
    double gain;                /* median over pairs of before/after */
    int pairs;
    int nodes_before, nodes_after;
    double flops_before, flops_after; /* of one pass */
} wf_transform_figures;
/* Outputs of both on the same random input (token numbers or normal pixels, by `seed`), in evaluation. */
wf_status wf_transform_compare(wf_model *a, wf_model *b, uint64_t seed, wf_transform_figures *f);
/* Forward passes of both in turn, `pairs` of them. Fills before, after, gain. */
wf_status wf_transform_time(wf_model *a, wf_model *b, uint64_t seed, int pairs, wf_transform_figures *f);

/* ---- matrix.c: the arithmetic, on plain numbers. w [O,I] row-major, bias [O] or NULL ---- */
/* What reads a x + b: w <- w diag(a), bias <- bias + w b. bias may be NULL when b is 0. */
void wf_fold_reader(int64_t O, int64_t I, const double *a, const double *b, double *w, double *bias);
/* What is followed by a y + b: w <- diag(a) w, bias <- a bias + b. */
void wf_fold_writer(int64_t O, int64_t I, const double *a, const double *b, double *w, double *bias);
/* Subtract from x [n,m] the mean over n of every column (axis 0), or over m of every row (axis 1). */
void wf_subtract_mean(int64_t n, int64_t m, int axis, double *x);

#endif
