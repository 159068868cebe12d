/* simd/window.c: sums over windows of tokens, compiled once per instruction set (op/window.h).
 *
 * First the rows of a window are added up, for a piece of columns and channels that stays in the L1 cache, then its columns.
 * Every sum is taken in the order of rows and columns.
 */
#include "op/window.h"
#include "op/simd.h"

#define INLINE static inline __attribute__((always_inline))

#define WINDOW(NAME, T)                                                                                                        \
    INLINE void NAME##_rows(const wf_window_task *t, T *sum, int64_t c0, int64_t c1, const int n) {                            \
        for (int64_t c = c0; c < c1; c++, sum += WF_WINDOW_CHANNELS) {                                                         \
            const T *x = (const T *)t->x + t->top * t->row_pitch + c * t->pitch;                                               \
            for (int j = 0; j < n; j++) sum[j] = 0;                                                                            \
            for (int64_t r = t->top; r < t->bottom; r++, x += t->row_pitch) {                                                  \
                T w = t->row_weight ? (T)t->row_weight[r] : 1;                                                                 \
                for (int j = 0; j < n; j++) sum[j] += w * x[j];                                                                \
            }                                                                                                                  \
            if (!t->column_weight) continue;                                                                                   \
            T w = (T)t->column_weight[c];                                                                                      \
            for (int j = 0; j < n; j++) sum[j] *= w;                                                                           \
        }                                                                                                                      \
    }                                                                                                                          \
    INLINE void NAME##_sized(const wf_window_task *t, const int n) {                                                           \
        T sum[(WF_WINDOW_COLUMNS + 2 * WF_WINDOW_MAX) * WF_WINDOW_CHANNELS];                                                   \
        int64_t c0 = t->from - t->left < 0 ? 0 : t->from - t->left;                                                            \
        int64_t c1 = t->to + t->right > t->columns ? t->columns : t->to + t->right;                                            \
        NAME##_rows(t, sum, c0, c1, n);                                                                                        \
        for (int64_t c = t->from; c < t->to; c++) {                                                                            \
            int64_t a = c - t->left < c0 ? c0 : c - t->left, b = c + t->right + 1 > c1 ? c1 : c + t->right + 1;                \
            const T *s = sum + (a - c0) * WF_WINDOW_CHANNELS;                                                                  \
            const T *x = (const T *)t->x + t->row * t->row_pitch + c * t->pitch;                                               \
            T *y = (T *)t->y + t->row * t->row_pitch + c * t->pitch, acc[WF_WINDOW_CHANNELS];                                  \
            T scale = (T)(t->column_scale ? t->row_scale * t->column_scale[c] : t->row_scale), minus = (T)t->minus;            \
            for (int j = 0; j < n; j++) acc[j] = s[j];                                                                         \
            for (int64_t i = a + 1; i < b; i++) {                                                                              \
                s += WF_WINDOW_CHANNELS;                                                                                       \
                for (int j = 0; j < n; j++) acc[j] += s[j];                                                                    \
            }                                                                                                                  \
            if (minus != 0)                                                                                                    \
                for (int j = 0; j < n; j++) y[j] = acc[j] * scale - minus * x[j];                                              \
            else                                                                                                               \
                for (int j = 0; j < n; j++) y[j] = acc[j] * scale;                                                             \
        }                                                                                                                      \
    }                                                                                                                          \
    static void NAME(const wf_window_task *t) {                                                                                \
        if (t->n == WF_WINDOW_CHANNELS)                                                                                        \
            NAME##_sized(t, WF_WINDOW_CHANNELS);                                                                               \
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
