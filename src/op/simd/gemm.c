/* simd/gemm.c: micro-kernel and packing of the matrix product (op/gemm.h), once per instruction set.
 *
 * The micro-kernel keeps mr x nr sums in registers and streams two packed panels: per step of k it loads nr numbers of B and
 * broadcasts mr numbers of A. Tile shapes: as many sums as the registers hold beside one row of B and one broadcast.
 */
#include "op/gemm.h"
#include "op/simd.h"
#include <string.h>

#if defined(WF_ISA_IS_avx512) || defined(WF_ISA_IS_avx512bf16)
#define MR 8
#define NV 3 /* vectors in a row of the tile */
#define VW 16
#define KC 384
#elif defined(WF_ISA_IS_avx2)
#define MR 6
#define NV 2
#define VW 8
#elif defined(__aarch64__)
#define MR 6
#define NV 4
#define VW 4
#else
#define MR 6
#define NV 2
#define VW 4
#endif
#ifndef KC
#define KC 512
#endif
#define NR (NV * VW)
#define INLINE static inline __attribute__((always_inline))
#define AHEAD 16 /* steps: a row of the source is often a page of its own, where the hardware does not prefetch */
#define UNROLL _Pragma("GCC unroll 16")

typedef float vec __attribute__((vector_size(VW * 4)));
typedef float vec_u __attribute__((vector_size(VW * 4), aligned(4)));
typedef float v8 __attribute__((vector_size(32)));
typedef float v8_u __attribute__((vector_size(32), aligned(4)));
typedef uint32_t u8x __attribute__((vector_size(32)));
typedef uint16_t h8_u __attribute__((vector_size(16), aligned(2)));

INLINE uint16_t to_bf16(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16 | 0x40u) : rounded);
}

INLINE float from_bf16(uint16_t h) {
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

/* A tile that is not whole, or not float32, goes through memory. */
static void finish(const wf_gemm_tile *t, const float *acc) {
    for (int i = 0; i < t->rows; i++, acc += NR) {
        if (t->type == WF_I32) {
            int32_t *c = (int32_t *)t->c + i * t->ldc;
            const int32_t *part = (const int32_t *)t->part + i * t->ld_part;
            for (int j = 0; j < t->cols; j++) c[j] = (t->part ? part[j] : 0) + (int32_t)acc[j];
            continue;
        }
        float sum[NR];
        const float *part = (const float *)t->part + i * t->ld_part;
        for (int j = 0; j < t->cols; j++) sum[j] = t->part ? part[j] + acc[j] : acc[j];
        if (t->bias)
            for (int j = 0; j < t->cols; j++) sum[j] += t->bias[j];
        if (t->type == WF_F32) {
            memcpy((float *)t->c + i * t->ldc, sum, (size_t)t->cols * sizeof(float));
        } else {
            uint16_t *c = (uint16_t *)t->c + i * t->ldc;
            for (int j = 0; j < t->cols; j++) c[j] = to_bf16(sum[j]);
        }
    }
}

INLINE void tile_body(const wf_gemm_tile *t, const int rows, const int nv) {
    vec acc[MR][NV];
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < nv; j++) acc[i][j] = (vec){0};
    const float *a = t->a, *b = t->b;
    size_t row = (size_t)t->ldc * (t->type == WF_BF16 ? 2 : 4);
    UNROLL for (int i = 0; i < rows; i++) /* C arrives while the products are summed */
        for (int j = 0; j < nv * VW * 4; j += 64) __builtin_prefetch((char *)t->c + (size_t)i * row + j, 1);
    _Pragma("GCC unroll 2") for (int64_t p = 0; p < t->k; p++, a += MR, b += NR) {
        vec bv[NV];
        UNROLL for (int j = 0; j < nv; j++) bv[j] = *(const vec *)(b + j * VW);
        UNROLL for (int i = 0; i < rows; i++) {
            float x = a[i];
            UNROLL for (int j = 0; j < nv; j++) acc[i][j] += x * bv[j];
        }
    }
    if (t->type != WF_F32 || t->cols != nv * VW) {
        float buf[MR * NR] __attribute__((aligned(64)));
        UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < nv; j++) * (vec *)(buf + i * NR + j * VW) = acc[i][j];
        finish(t, buf);
        return;
    }
    float *c = t->c;
    const float *part = t->part;
    if (part)
        UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < nv; j++) acc[i][j] =
            *(const vec_u *)(part + i * t->ld_part + j * VW) + acc[i][j];
    if (t->bias) UNROLL for (int j = 0; j < nv; j++) {
            vec bias = *(const vec_u *)(t->bias + j * VW);
            UNROLL for (int i = 0; i < rows; i++) acc[i][j] += bias;
        }
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < nv; j++) * (vec_u *)(c + i * t->ldc + j * VW) = acc[i][j];
}

#define CASE(r, v)                                                                                                             \
    case (r)*8 + (v):                                                                                                          \
        tile_body(t, r, v);                                                                                                    \
        break;
#if NV == 2
#define ROW(r) CASE(r, 1) CASE(r, 2)
#elif NV == 3
#define ROW(r) CASE(r, 1) CASE(r, 2) CASE(r, 3)
#else
#define ROW(r) CASE(r, 1) CASE(r, 2) CASE(r, 3) CASE(r, 4)
#endif

static void tile(const wf_gemm_tile *t) {
    switch (t->rows * 8 + (t->cols + VW - 1) / VW) {
        /* macro rows without semicolons, which the formatter lays out anew each time */
        /* clang-format off */
        ROW(1)
        ROW(2) ROW(3) ROW(4) ROW(5) ROW(6)
#if MR == 8
            ROW(7) ROW(8)
#endif
        /* clang-format on */
    }
}

/* ---- packing ---- */

INLINE float load1(const void *src, int64_t i, const wf_dtype type) {
    switch (type) {
    case WF_BF16: return from_bf16(((const uint16_t *)src)[i]);
    case WF_I8: return ((const int8_t *)src)[i];
    case WF_U8: return ((const uint8_t *)src)[i];
    default: return ((const float *)src)[i];
    }
}

/* 8 numbers of float32 or bfloat16 at once. */
INLINE void load8(v8 *r, const void *src, int64_t i, const wf_dtype type) {
    if (type == WF_F32)
        *r = *(const v8_u *)((const float *)src + i);
    else
        *r = (v8)(__builtin_convertvector(*(const h8_u *)((const uint16_t *)src + i), u8x) << 16);
}

#define LOW(x, y) __builtin_shufflevector(x, y, 0, 8, 1, 9, 4, 12, 5, 13)
#define HIGH(x, y) __builtin_shufflevector(x, y, 2, 10, 3, 11, 6, 14, 7, 15)
#define LOW2(x, y) __builtin_shufflevector(x, y, 0, 1, 8, 9, 4, 5, 12, 13)
#define HIGH2(x, y) __builtin_shufflevector(x, y, 2, 3, 10, 11, 6, 7, 14, 15)
#define LOW4(x, y) __builtin_shufflevector(x, y, 0, 1, 2, 3, 8, 9, 10, 11)
#define HIGH4(x, y) __builtin_shufflevector(x, y, 4, 5, 6, 7, 12, 13, 14, 15)

INLINE void transpose8(v8 r[8]) {
    v8 t0 = LOW(r[0], r[1]), t1 = HIGH(r[0], r[1]), t2 = LOW(r[2], r[3]), t3 = HIGH(r[2], r[3]);
    v8 t4 = LOW(r[4], r[5]), t5 = HIGH(r[4], r[5]), t6 = LOW(r[6], r[7]), t7 = HIGH(r[6], r[7]);
    v8 u0 = LOW2(t0, t2), u1 = HIGH2(t0, t2), u2 = LOW2(t1, t3), u3 = HIGH2(t1, t3);
    v8 u4 = LOW2(t4, t6), u5 = HIGH2(t4, t6), u6 = LOW2(t5, t7), u7 = HIGH2(t5, t7);
    r[0] = LOW4(u0, u4), r[1] = LOW4(u1, u5), r[2] = LOW4(u2, u6), r[3] = LOW4(u3, u7);
    r[4] = HIGH4(u0, u4), r[5] = HIGH4(u1, u5), r[6] = HIGH4(u2, u6), r[7] = HIGH4(u3, u7);
}

/* One panel element by element: any strides, and the lines past the end. */
INLINE void pack_plain(float *dst, const int width, const void *src, const wf_dtype type, int64_t line, int64_t step, int lines,
                       int64_t from, int64_t k) {
    for (int64_t p = from; p < k; p++) {
        for (int l = 0; l < lines; l++) dst[p * width + l] = load1(src, l * line + p * step, type);
        for (int l = lines; l < width; l++) dst[p * width + l] = 0;
    }
}

/* One panel whose lines are contiguous along k: 8 x 8 blocks are transposed in registers. A width that is no multiple of 8
 * is stored 8 wide: the excess is overwritten by the step, or the panel, that comes next. */
INLINE void pack_transposed(float *dst, const int width, const void *src, const wf_dtype type, int64_t line, int64_t k) {
    int64_t p = 0;
    for (; p + 8 <= k; p += 8) {
        UNROLL for (int l = 0; l < width; l += 8) {
            v8 r[8];
            UNROLL for (int i = 0; i < 8; i++) {
                r[i] = (v8){0};
                if (l + i < width) load8(&r[i], src, (l + i) * line + p, type);
            }
            transpose8(r);
            UNROLL for (int i = 0; i < 8; i++) * (v8_u *)(dst + (p + i) * width + l) = r[i];
        }
    }
    pack_plain(dst, width, src, type, line, 1, width, p, k);
}

/* Several whole panels whose steps are contiguous across lines: rows are copied. A store wider than the panel spoils only
 * the panel's next step, which is written later; the last step has none. */
INLINE void pack_copied(float *dst, const int width, const void *src, const wf_dtype type, int64_t step, int panels,
                        int64_t k) {
    for (int64_t p = 0; p < k; p++) {
        for (int q = 0; q < panels; q++) {
            float *d = dst + (q * k + p) * width;
            int64_t s = p * step + q * width;
            __builtin_prefetch((const char *)src + (s + AHEAD * step) * (type == WF_F32 ? 4 : 2));
            if (width % 8 == 0) {
                UNROLL for (int l = 0; l < width; l += 8) {
                    v8 x;
                    load8(&x, src, s + l, type);
                    *(v8_u *)(d + l) = x;
                }
            } else if (p + 1 < k && q + 1 < panels) { /* the source has at least one panel more */
                v8 x;
                load8(&x, src, s, type);
                *(v8_u *)d = x;
            } else {
                UNROLL for (int l = 0; l < width; l++) d[l] = load1(src, s + l, type);
            }
        }
    }
}

INLINE void pack_typed(float *dst, const int width, const void *src, const wf_dtype type, int64_t line, int64_t step,
                       int64_t lines, int64_t k) {
    const char *from = src;
    size_t size = type == WF_F32 ? 4 : type == WF_BF16 ? 2 : 1;
    int64_t done = 0;
    if (line == 1 && size > 1)
        for (; done + width <= lines;) { /* up to 8 panels at once: a cache line of the source is then read once */
            int64_t left = (lines - done) / width;
            int panels = left < 8 ? (int)left : 8;
            pack_copied(dst + done * k, width, from + (size_t)done * size, type, step, panels, k);
            done += (int64_t)panels * width;
        }
    for (; done < lines; done += width) {
        int n = lines - done < width ? (int)(lines - done) : width;
        const char *s = from + done * line * (int64_t)size;
        if (step == 1 && n == width && size > 1)
            pack_transposed(dst + done * k, width, s, type, line, k);
        else
            pack_plain(dst + done * k, width, s, type, line, step, n, 0, k);
    }
}

static void pack(float *dst, int width, const void *src, wf_dtype type, int64_t line, int64_t step, int64_t lines, int64_t k) {
#define PACK(t)                                                                                                                \
    case t:                                                                                                                    \
        if (width == MR)                                                                                                       \
            pack_typed(dst, MR, src, t, line, step, lines, k);                                                                 \
        else                                                                                                                   \
            pack_typed(dst, NR, src, t, line, step, lines, k);                                                                 \
        break;
    switch (type) {
        PACK(WF_BF16)
        PACK(WF_I8)
        PACK(WF_U8)
    default: PACK(WF_F32)
    }
}

static void to_f32(float *dst, const void *src, wf_dtype type, int64_t n) {
    if (type == WF_BF16)
        for (int64_t i = 0; i < n; i++) dst[i] = from_bf16(((const uint16_t *)src)[i]);
    else
        for (int64_t i = 0; i < n; i++) dst[i] = load1(src, i, type);
}

const wf_gemm_kernels WF_ISA_NAME(wf_gemm_kernels) = {MR, NR, KC, tile, pack, to_f32};
