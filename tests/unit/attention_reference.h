/* attention_reference.h: attention by its definition, in double precision, one pair (i, j) at a time; forward and gradients.
 * Shares nothing with the kernels but the random number rule of op/generate.c. */
#ifndef ATTENTION_REFERENCE_H
#define ATTENTION_REFERENCE_H

#include "op/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct ref_case {
    int64_t B, L, S, H, K, d, e;
    double scale;
    bool causal;
    int64_t back, forward;
    wf_normaliser normaliser;
    wf_score score;
    double score_bias, dropout;
    uint64_t stream;
    const int32_t *lengths, *q_start, *offsets_q, *offsets_k, *seed; /* NULL: absent */
    int64_t n_packed;
    const double *slopes, *bias; /* [H], [B,H,L,S] */
} ref_case;

typedef struct ref_data { /* dense, in the operator's layouts */
    double *q, *k, *v, *o, *lse, *go, *glse, *dq, *dk, *dv;
} ref_data;

static double ref_uniform(const int32_t *seed, uint64_t stream, uint64_t index) {
    uint64_t at = index / 4;
    uint32_t key[2] = {(uint32_t)seed[0], (uint32_t)seed[1]}, w[4];
    uint32_t ctr[4] = {(uint32_t)at, (uint32_t)(at >> 32) ^ (uint32_t)(stream >> 32), (uint32_t)seed[2],
                       (uint32_t)seed[3] ^ (uint32_t)stream};
    wf_philox(key, ctr, w);
    return (double)(w[index % 4] >> 8) * 0x1p-24;
}

/* Is key j visible to query i of batch b, and where does the query stand? */
static bool ref_sees(const ref_case *c, int64_t b, int64_t i, int64_t j, int64_t *p) {
    int64_t lo = 0, hi = c->S;
    *p = i + c->S - c->L;
    if (c->q_start) {
        *p = i + *c->q_start;
        if (*c->q_start + c->L < hi) hi = *c->q_start + c->L;
    }
    if (c->lengths && c->lengths[b] < hi) hi = c->lengths[b];
    if (c->offsets_q) {
        const int32_t *ok = c->offsets_k ? c->offsets_k : c->offsets_q;
        hi = 0;
        for (int64_t n = 0; n < c->n_packed; n++)
            if (i >= c->offsets_q[n] && i < c->offsets_q[n + 1]) {
                lo = ok[n], hi = ok[n + 1];
                *p = i - c->offsets_q[n + 1] + ok[n + 1];
            }
    }
    if (j < lo || j >= hi) return false;
    if (c->causal && j > *p) return false;
    if (c->back && j <= *p - c->back) return false;
    return !c->forward || j < *p + c->forward;
}

/* x = f(score) and f'(score) */
static double ref_score(const ref_case *c, double s, double *slope) {
    *slope = 1;
    if (c->score == WF_SCORE_SIGMOID) {
        double y = 1 / (1 + exp(-(s + c->score_bias)));
        *slope = y * (1 - y);
        return y;
    }
    if (c->score == WF_SCORE_RELU2) {
        *slope = s > 0 ? 2 * s : 0;
        return s > 0 ? s * s : 0;
    }
    if (c->score == WF_SCORE_RELU) {
        *slope = s > 0;
        return s > 0 ? s : 0;
    }
    return s;
}

/* One query row: o, lse, and (go != NULL) its part of the gradients. */
static void ref_row(const ref_case *c, ref_data *r, int64_t b, int64_t h, int64_t i, double *x, double *fs, double *keep) {
    int64_t kv = h / (c->H / c->K);
    const double *q = r->q + ((b * c->L + i) * c->H + h) * c->d;
    double *o = r->o + ((b * c->L + i) * c->H + h) * c->e, top = -INFINITY, sum = 0;
    double scale = c->scale != 0 ? c->scale : 1 / sqrt((double)c->d);
    for (int64_t j = 0; j < c->S; j++) {
        int64_t p;
        const double *k = r->k + ((b * c->S + j) * c->K + kv) * c->d;
        double s = 0;
        keep[j] = 1;
        if (!ref_sees(c, b, i, j, &p)) {
            x[j] = c->normaliser == WF_NORMALISE_SOFTMAX ? -INFINITY : 0;
            fs[j] = 0;
            continue;
        }
        for (int64_t y = 0; y < c->d; y++) s += q[y] * k[y];
        s *= scale;
        int64_t at = ((b * c->H + h) * c->L + i) * c->S + j;
        if (c->slopes) s -= c->slopes[h] * (double)llabs(p - j);
        if (c->bias) s += c->bias[at];
        x[j] = ref_score(c, s, &fs[j]);
        if (c->dropout > 0)
            keep[j] = ref_uniform(c->seed, c->stream, (uint64_t)at) >= (double)(float)c->dropout ? 1 / (1 - c->dropout) : 0;
        if (x[j] > top) top = x[j];
    }
    bool softmax = c->normaliser == WF_NORMALISE_SOFTMAX;
    for (int64_t j = 0; softmax && j < c->S; j++) sum += top == -INFINITY ? 0 : exp(x[j] - top);
    double lse = softmax ? (sum > 0 ? top + log(sum) : -INFINITY) : 0;
    r->lse[(b * c->H + h) * c->L + i] = lse;
    for (int64_t j = 0; softmax && j < c->S; j++) x[j] = sum > 0 ? exp(x[j] - lse) : 0;
    for (int64_t y = 0; y < c->e; y++) {
        o[y] = 0;
        for (int64_t j = 0; j < c->S; j++) o[y] += keep[j] * x[j] * r->v[((b * c->S + j) * c->K + kv) * c->e + y];
    }
    if (!r->go) return;
    const double *go = r->go + ((b * c->L + i) * c->H + h) * c->e;
    double glse = r->glse ? r->glse[(b * c->H + h) * c->L + i] : 0, delta = 0;
    for (int64_t y = 0; y < c->e; y++) delta += go[y] * o[y];
    for (int64_t j = 0; j < c->S; j++) {
        double dp = 0, *dv = r->dv + ((b * c->S + j) * c->K + kv) * c->e, *dk = r->dk + ((b * c->S + j) * c->K + kv) * c->d;
        for (int64_t y = 0; y < c->e; y++) {
            dp += go[y] * r->v[((b * c->S + j) * c->K + kv) * c->e + y];
            dv[y] += keep[j] * x[j] * go[y];
        }
        dp *= keep[j];
        double ds = fs[j] * (softmax ? x[j] * (dp - delta + glse) : dp) * scale;
        for (int64_t y = 0; y < c->d; y++) {
            r->dq[((b * c->L + i) * c->H + h) * c->d + y] += ds * r->k[((b * c->S + j) * c->K + kv) * c->d + y];
            dk[y] += ds * q[y];
        }
    }
}

static void ref_run(const ref_case *c, ref_data *r) {
    double *x = calloc((size_t)c->S * 3, sizeof *x);
    if (r->go) {
        memset(r->dq, 0, (size_t)(c->B * c->L * c->H * c->d) * sizeof(double));
        memset(r->dk, 0, (size_t)(c->B * c->S * c->K * c->d) * sizeof(double));
        memset(r->dv, 0, (size_t)(c->B * c->S * c->K * c->e) * sizeof(double));
    }
    for (int64_t b = 0; b < c->B; b++)
        for (int64_t h = 0; h < c->H; h++)
            for (int64_t i = 0; i < c->L; i++) ref_row(c, r, b, h, i, x, x + c->S, x + 2 * c->S);
    free(x);
}

#endif
