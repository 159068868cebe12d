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

/* `outs` rows of w against `rows` rows of x, with `sums` vector sums an output. */
INLINE void dot_block(float *y, int64_t ldy, const float *x, int64_t ldx, const int rows, const void *w, const wf_dtype type,
                      int64_t ldw, const int outs, const int sums, int64_t k) {
    vec acc[4][4][2];
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int o = 0; o < outs; o++) UNROLL for (int s = 0; s < sums; s++)
        acc[i][o][s] = (vec){0};
    int64_t p = 0;
    for (; p + VW * sums <= k; p += VW * sums) {
        UNROLL for (int s = 0; s < sums; s++) {
            vec wv[4];
            UNROLL for (int o = 0; o < outs; o++) load(&wv[o], w, o * ldw + p + s * VW, type);
            UNROLL for (int i = 0; i < rows; i++) {
                vec xv = *(const vec_u *)(x + i * ldx + p + s * VW);
                UNROLL for (int o = 0; o < outs; o++) acc[i][o][s] += xv * wv[o];
            }
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
    const int side = rows <= 2 ? 4 : 2, sums = rows == 1 ? 2 : 1;
    const size_t size = type == WF_F32 ? 4 : 2;
    int64_t o = 0;
    for (; o + side <= outs; o += side)
        dot_block(y + o, ldy, x, ldx, rows, (const char *)w + o * ldw * (int64_t)size, type, ldw, side, sums, k);
    for (; o < outs; o++) dot_block(y + o, ldy, x, ldx, rows, (const char *)w + o * ldw * (int64_t)size, type, ldw, 1, sums, k);
}

/* `nv` vectors of columns. */
INLINE void sweep_block(float *y, int64_t ldy, const float *x, int64_t ldx, const int rows, const void *w, const wf_dtype type,
                        int64_t ldw, const int nv, int64_t k) {
    vec acc[4][8];
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < nv; j++) acc[i][j] = (vec){0};
    for (int64_t p = 0; p < k; p++) {
        UNROLL for (int j = 0; j < nv; j++) {
            vec wv;
            load(&wv, w, p * ldw + j * VW, type);
            UNROLL for (int i = 0; i < rows; i++) acc[i][j] += x[i * ldx + p] * wv;
        }
    }
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < nv; j++) * (vec_u *)(y + i * ldy + j * VW) = acc[i][j];
}

INLINE void sweep_typed(float *y, int64_t ldy, const float *x, int64_t ldx, const int rows, const void *w, const wf_dtype type,
                        int64_t ldw, int64_t outs, int64_t k) {
    const int nv = rows == 1 ? 8 : rows == 2 ? 4 : 2;
    const size_t size = type == WF_F32 ? 4 : 2;
    int64_t o = 0;
    for (; o + nv * VW <= outs; o += nv * VW)
        sweep_block(y + o, ldy, x, ldx, rows, (const char *)w + (size_t)o * size, type, ldw, nv, k);
    for (; o + VW <= outs; o += VW) sweep_block(y + o, ldy, x, ldx, rows, (const char *)w + (size_t)o * size, type, ldw, 1, k);
    for (; o < outs; o++)
        for (int i = 0; i < rows; i++) {
            float sum = 0;
            for (int64_t p = 0; p < k; p++) sum += x[i * ldx + p] * weight(w, p * ldw + o, type);
            y[i * ldy + o] = sum;
        }
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

const wf_gemv_kernels WF_ISA_NAME(wf_gemv_kernels) = {dot, sweep, dot_i8};
