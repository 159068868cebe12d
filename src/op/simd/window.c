/* simd/window.c: sums and means over windows of tokens, compiled once per instruction set (op/window.h).
 *
 * First the rows of a window are added up, for a piece of columns and channels that stays in the L1 cache, then its columns; in that
 * order every time. A mean is taken as a token plus the mean of the others' differences from it: equal tokens have exactly their own
 * value as mean.
 */
#include "op/window.h"
#include "op/simd.h"

#define INLINE static inline __attribute__((always_inline))
enum { PITCH = WF_WINDOW_CHANNELS };

#define WINDOW(NAME, T)                                                                                                        \
    /* sum[c] = the rows top..bottom of column c, weighted, or (mean) their mean */                                            \
    INLINE void NAME##_rows(const wf_window_task *t, T *sum, int64_t c0, int64_t c1, const int n) {                            \
        for (int64_t c = c0; c < c1; c++, sum += PITCH) {                                                                      \
            const T *x = (const T *)t->x + t->top * t->row_pitch + c * t->pitch;                                               \
            const T *own = (const T *)t->x + t->row * t->row_pitch + c * t->pitch;                                             \
            T share = t->row_share ? (T)t->row_share[t->row] : 1, shift = t->row_share && !t->adjoint ? 1 : 0;                 \
            for (int j = 0; j < n; j++) sum[j] = 0;                                                                            \
            for (int64_t r = t->top; r < t->bottom; r++, x += t->row_pitch) {                                                  \
                T w = t->adjoint ? (T)(t->row_share[r] * t->column_share[c]) : 1;                                              \
                if (shift != 0)                                                                                                \
                    for (int j = 0; j < n; j++) sum[j] += x[j] - own[j];                                                       \
                else                                                                                                           \
                    for (int j = 0; j < n; j++) sum[j] += w * x[j];                                                            \
            }                                                                                                                  \
            if (shift != 0)                                                                                                    \
                for (int j = 0; j < n; j++) sum[j] = own[j] + sum[j] * share;                                                  \
        }                                                                                                                      \
    }                                                                                                                          \
    INLINE void NAME##_sized(const wf_window_task *t, const int n) {                                                           \
        T sum[(WF_WINDOW_COLUMNS + 2 * WF_WINDOW_MAX) * PITCH];                                                                \
        bool mean = t->column_share && !t->adjoint;                                                                            \
        int64_t c0 = t->from - t->left < 0 ? 0 : t->from - t->left;                                                            \
        int64_t c1 = t->to + t->right > t->columns ? t->columns : t->to + t->right;                                            \
        NAME##_rows(t, sum, c0, c1, n);                                                                                        \
        for (int64_t c = t->from; c < t->to; c++) {                                                                            \
            int64_t a = c - t->left < c0 ? c0 : c - t->left, b = c + t->right + 1 > c1 ? c1 : c + t->right + 1;                \
            const T *s = sum + (a - c0) * PITCH, *own = sum + (c - c0) * PITCH;                                                \
            const T *x = (const T *)t->x + t->row * t->row_pitch + c * t->pitch;                                               \
            T *y = (T *)t->y + t->row * t->row_pitch + c * t->pitch, acc[PITCH], minus = (T)t->minus;                          \
            for (int j = 0; j < n; j++) acc[j] = 0;                                                                            \
            for (int64_t i = a; i < b; i++, s += PITCH) {                                                                      \
                if (mean)                                                                                                      \
                    for (int j = 0; j < n; j++) acc[j] += s[j] - own[j];                                                       \
                else                                                                                                           \
                    for (int j = 0; j < n; j++) acc[j] += s[j];                                                                \
            }                                                                                                                  \
            if (mean) {                                                                                                        \
                T share = (T)t->column_share[c];                                                                               \
                for (int j = 0; j < n; j++) acc[j] = own[j] + acc[j] * share;                                                  \
            }                                                                                                                  \
            if (minus != 0)                                                                                                    \
                for (int j = 0; j < n; j++) y[j] = acc[j] - minus * x[j];                                                      \
            else                                                                                                               \
                for (int j = 0; j < n; j++) y[j] = acc[j];                                                                     \
        }                                                                                                                      \
    }                                                                                                                          \
    static void NAME(const wf_window_task *t) {                                                                                \
        if (t->n == PITCH)                                                                                                     \
            NAME##_sized(t, PITCH);                                                                                            \
        else                                                                                                                   \
            NAME##_sized(t, t->n);                                                                                             \
    }

WINDOW(single, float)
WINDOW(precise, double)

static void run(const wf_window_task *t) {
    if (t->wide)
        precise(t);
    else
        single(t);
}

const wf_window_fn WF_ISA_NAME(wf_window) = run;
