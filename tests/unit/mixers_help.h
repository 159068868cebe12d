/* mixers_help.h: what tests of token mixers share: stirred mixers, pieces of sequences, streaming, causality. Header-only. */
#ifndef MIXERS_HELP_H
#define MIXERS_HELP_H

#include "parts_help.h"

#include <math.h>

/* With every trained parameter moved away from its first value; buffers (reflections, tables) stay what they are. */
static inline wf_model *mixer(const char *text, int64_t width, bool causal) {
    wf_model *m = part_of("mixer", text, width, causal, 64);
    for (int i = 0; i < m->n_param; i++) {
        wf_rng r = {7, (uint64_t)i, 0};
        if (m->param[i]->flags & WF_PARAM_BUFFER) continue;
        for (int64_t j = 0; j < wf_tensor_count(m->param[i]->value); j++)
            wf_tensor_set(m->param[i]->value, j, wf_tensor_get(m->param[i]->value, j) + 0.3 * wf_rng_normal(&r));
    }
    return m;
}

static inline double at(const wf_tensor *t, int64_t i) {
    return wf_tensor_get(t, i);
}

/* Rows from .. from+n-1 of axis 1 of x [B,L,D]. */
static inline wf_tensor *part_rows(const wf_tensor *x, int64_t b, int64_t from, int64_t n) {
    int64_t L = x->shape.dim[1], D = x->shape.dim[2];
    wf_tensor *y = wf_tensor_new(x->dtype, WF_SHAPE(1, n, D));
    for (int64_t i = 0; i < n * D; i++) wf_tensor_set(y, i, at(x, (b * L + from) * D + i));
    return y;
}

/* A causal mixer of width 12 with every number stirred. */
static inline wf_model *stirred(const char *text) {
    wf_model *m = part_of("mixer", text, 12, true, 16);
    stir(m, 0.3);
    return m;
}

/* The step form, token by token and in chunks, gives what the parallel form gives on x [2,10,12]. Frees m. */
static inline void steps_are_forward(wf_model *m, const char *text, double bound) {
    static const int by_one[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0}, prefill[] = {6, 1, 1, 1, 1, 0}, at_once[] = {10, 0},
                     late[] = {1, 8, 1, 0}, odd[] = {3, 2, 5, 0};
    static const int *const ways[] = {by_one, prefill, at_once, late, odd};
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 10, 12), 40, 0), *y = run_forward(m, x, NULL);
    for (int w = 0; w < 5; w++) {
        wf_tensor *z = run_steps(m, x, ways[w], 16);
        char what[200];
        snprintf(what, sizeof what, "%s, way %d", text, w);
        assert_close(z, y, bound, what);
        wf_tensor_free(z);
    }
    wf_tensor_free(x);
    wf_tensor_free(y);
    wf_model_free(m);
}

/* Other tokens from position 5 on change no output before it by more than `bound`, and some after it. Frees m. */
static inline void does_not_look_ahead(wf_model *m, const char *text, double bound) {
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(1, 9, 12), 4, 0), *y = run_forward(m, x, NULL);
    for (int64_t j = 5 * 12; j < 9 * 12; j++) wf_tensor_set(x, j, 3 - at(x, j));
    wf_tensor *z = run_forward(m, x, NULL);
    double late = 0;
    for (int64_t j = 0; j < 9 * 12; j++) {
        double d = fabs(at(y, j) - at(z, j));
        if (j < 5 * 12 && d > bound) fail_msg("%s: position %d changed by %g", text, (int)(j / 12), d);
        if (j >= 5 * 12) late += d;
    }
    if (late <= 1e-3) fail_msg("%s: no position after the change noticed it", text);
    wf_tensor_free(x);
    wf_tensor_free(y);
    wf_tensor_free(z);
    wf_model_free(m);
}

#endif
