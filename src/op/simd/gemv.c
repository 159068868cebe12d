/* simd/gemv.c: kernels for products with up to 4 rows (op/gemv.h), once per instruction set.
 *
 * An output's sum has the same shape wherever it lies in a block: a fixed number of vector sums, added up in a fixed order,
 * then the tail of k one by one. Several rows of w are read side by side, which keeps more of the memory's lines in flight.
 */
#include "op/gemv.h"
#include "op/simd.h"
#include <string.h>

#if defined(WF_ISA_IS_avx512) || defined(WF_ISA_IS_avx512bf16)
#define VW 16
#elif defined(WF_ISA_IS_avx2)
#define VW 8
#else
#define VW 4
#endif
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

typedef float vec __attribute__((vector_size(VW * 4)));
typedef float vec_u __attribute__((vector_size(VW * 4), aligned(4)));
typedef uint32_t uvec __attribute__((vector_size(VW * 4)));
typedef uint32_t uvec_u __attribute__((vector_size(VW * 4), aligned(2)));
typedef uint16_t half_u __attribute__((vector_size(VW * 2), aligned(2)));

INLINE float weight(const void *w, int64_t i, const wf_dtype type) {
    if (type == WF_F32) return ((const float *)w)[i];
    uint32_t u = (uint32_t)((const uint16_t *)w)[i] << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

INLINE void load(vec *r, const void *w, int64_t i, const wf_dtype type) {
    if (type == WF_F32)
        *r = *(const vec_u *)((const float *)w + i);
    else
        *r = (vec)(__builtin_convertvector(*(const half_u *)((const uint16_t *)w + i), uvec) << 16);
}

INLINE float total(const vec *v) {
    float part[VW];
    memcpy(part, v, sizeof part);
    for (int n = VW / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++) part[i] += part[i + n];
    return part[0];
}

/* Two bfloat16 vectors lie interleaved in one load: the even numbers are the words' upper halves after a shift, the odd ones
 * after a mask. x is put in the same order once (pair), which spares widening every weight. */
INLINE void load_pair(vec r[2], const void *w, int64_t i) {
    uvec u = *(const uvec_u *)((const uint16_t *)w + i);
    r[0] = (vec)(u << 16);
    r[1] = (vec)(u & 0xffff0000u);
}

static void pair(float *x, int64_t k) {
    for (; k >= 2 * VW; k -= 2 * VW, x += 2 * VW) {
        float t[2 * VW];
        memcpy(t, x, sizeof t);
        for (int i = 0; i < VW; i++) x[i] = t[2 * i], x[VW + i] = t[2 * i + 1];
    }
}

/* `outs` rows of w against `rows` rows of x: two vectors of k a step, each with a sum of its own when there is one row. */
INLINE void dot_block(float *y, int64_t ldy, const float *x, int64_t ldx, const int rows, const void *w, const wf_dtype type,
                      int64_t ldw, const int outs, int64_t k) {
    const int sums = rows == 1 ? 2 : 1;
    vec acc[4][4][2];
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int o = 0; o < outs; o++) UNROLL for (int s = 0; s < sums; s++)
        acc[i][o][s] = (vec){0};
    int64_t p = 0;
    for (; p + 2 * VW <= k; p += 2 * VW) {
        vec wv[4][2];
        UNROLL for (int o = 0; o < outs; o++) {
            if (type == WF_BF16) {
                load_pair(wv[o], w, o * ldw + p);
            } else {
                wv[o][0] = *(const vec_u *)((const float *)w + o * ldw + p);
                wv[o][1] = *(const vec_u *)((const float *)w + o * ldw + p + VW);
            }
        }
        UNROLL for (int i = 0; i < rows; i++) UNROLL for (int s = 0; s < 2; s++) {
            vec xv = *(const vec_u *)(x + i * ldx + p + s * VW);
            UNROLL for (int o = 0; o < outs; o++) acc[i][o][s % sums] += xv * wv[o][s];
        }
    }
    for (int i = 0; i < rows; i++)
        for (int o = 0; o < outs; o++) {
            vec v = acc[i][o][0];
            if (sums == 2) v += acc[i][o][1];
            float sum = total(&v);
            for (int64_t q = p; q < k; q++) sum += x[i * ldx + q] * weight(w, o * ldw + q, type);
            y[i * ldy + o] = sum;
        }
}

/* More rows of x need more sums each: fewer rows of w side by side. */
INLINE void dot_typed(float *y, int64_t ldy, const float *x, int64_t ldx, const int rows, const void *w, const wf_dtype type,
                      int64_t ldw, int64_t outs, int64_t k) {
    const int side = rows <= 2 ? 4 : 2;
    const int64_t size = type == WF_F32 ? 4 : 2;
    int64_t o = 0;
    for (; o + side <= outs; o += side)
        dot_block(y + o, ldy, x, ldx, rows, (const char *)w + o * ldw * size, type, ldw, side, k);
    for (; o < outs; o++) dot_block(y + o, ldy, x, ldx, rows, (const char *)w + o * ldw * size, type, ldw, 1, k);
}

/* y += `depth` rows of w times their numbers of x, which are added in order of k; y stays in the L1 cache. */
INLINE void sweep_rows(float *y, int64_t ldy, const float *x, int64_t ldx, const int rows, const void *w, const wf_dtype type,
                       int64_t ldw, int64_t outs, const int depth) {
    int64_t o = 0;
    for (; o + VW <= outs; o += VW) {
        vec wv[4];
        UNROLL for (int d = 0; d < depth; d++) load(&wv[d], w, d * ldw + o, type);
        UNROLL for (int i = 0; i < rows; i++) {
            vec sum = *(const vec_u *)(y + i * ldy + o);
            UNROLL for (int d = 0; d < depth; d++) sum += x[i * ldx + d] * wv[d];
            *(vec_u *)(y + i * ldy + o) = sum;
        }
    }
    for (; o < outs; o++)
        for (int i = 0; i < rows; i++)
            for (int d = 0; d < depth; d++) y[i * ldy + o] += x[i * ldx + d] * weight(w, d * ldw + o, type);
}

INLINE void sweep_typed(float *y, int64_t ldy, const float *x, int64_t ldx, const int rows, const void *w, const wf_dtype type,
                        int64_t ldw, int64_t outs, int64_t k) {
    const int64_t size = type == WF_F32 ? 4 : 2;
    for (int i = 0; i < rows; i++) memset(y + i * ldy, 0, (size_t)outs * sizeof *y);
    int64_t p = 0;
    for (; p + 4 <= k; p += 4) sweep_rows(y, ldy, x + p, ldx, rows, (const char *)w + p * ldw * size, type, ldw, outs, 4);
    for (; p < k; p++) sweep_rows(y, ldy, x + p, ldx, rows, (const char *)w + p * ldw * size, type, ldw, outs, 1);
}

#define BY_ROWS(f, type)                                                                                                       \
    switch (rows) {                                                                                                            \
    case 1: f(y, ldy, x, ldx, 1, w, type, ldw, outs, k); break;                                                                \
    case 2: f(y, ldy, x, ldx, 2, w, type, ldw, outs, k); break;                                                                \
    case 3: f(y, ldy, x, ldx, 3, w, type, ldw, outs, k); break;                                                                \
    default: f(y, ldy, x, ldx, 4, w, type, ldw, outs, k); break;                                                               \
    }

static void dot(float *y, int64_t ldy, const float *x, int64_t ldx, int rows, const void *w, wf_dtype type, int64_t ldw,
                int64_t outs, int64_t k) {
    if (type == WF_BF16)
        BY_ROWS(dot_typed, WF_BF16)
    else
        BY_ROWS(dot_typed, WF_F32)
}

static void sweep(float *y, int64_t ldy, const float *x, int64_t ldx, int rows, const void *w, wf_dtype type, int64_t ldw,
                  int64_t outs, int64_t k) {
    if (type == WF_BF16)
        BY_ROWS(sweep_typed, WF_BF16)
    else
        BY_ROWS(sweep_typed, WF_F32)
}

/* Through int16: the compiler has a multiply-add of pairs for it. */
static void dot_i8(int32_t *y, int64_t ldy, const void *x, bool unsigned_x, int64_t ldx, int rows, const int8_t *w, int64_t ldw,
                   int64_t outs, int64_t k) {
    for (int64_t o = 0; o < outs; o++)
        for (int i = 0; i < rows; i++) {
            const int8_t *row = w + o * ldw, *xs = (const int8_t *)x + i * ldx;
            const uint8_t *xu = (const uint8_t *)xs;
            int32_t sum = 0;
            if (unsigned_x)
                for (int64_t p = 0; p < k; p++) sum += (int32_t)(int16_t)xu[p] * (int16_t)row[p];
            else
                for (int64_t p = 0; p < k; p++) sum += (int32_t)(int16_t)xs[p] * (int16_t)row[p];
            y[i * ldy + o] = sum;
        }
}

const wf_gemv_kernels WF_ISA_NAME(wf_gemv_kernels) = {pair, dot, sweep, dot_i8};
