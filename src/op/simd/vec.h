/* vec.h: vectors of WF_LANES floats for files in src/op/simd/, as wide as the instruction set at hand. GCC vector extensions
 * do the arithmetic; only what they lack is written per instruction set. Partial vectors go through ld_n and st_n, so an element
 * sees the same instructions wherever it stands in a row: results do not depend on how rows are cut. */
#ifndef WF_SIMD_VEC_H
#define WF_SIMD_VEC_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define WF_LANES 16
#elif defined(__AVX2__)
#define WF_LANES 8
#else
#define WF_LANES 4
#endif

typedef float vf __attribute__((vector_size(4 * WF_LANES)));
typedef int32_t vi __attribute__((vector_size(4 * WF_LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * WF_LANES)));

#define VEC static inline __attribute__((always_inline))

#if defined(__clang__)
#define WF_UNROLL _Pragma("clang loop unroll_count(4)")
#else
#define WF_UNROLL _Pragma("GCC unroll 4")
#endif

VEC vf ld(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
VEC void st(float *p, vf v) {
    memcpy(p, &v, sizeof v);
}
VEC vf splat(float x) {
    return x - (vf){0};
} /* x - 0 keeps the sign of 0 */
VEC vi splat_i(int32_t x) {
    return x + (vi){0};
}
VEC vi bits(vf x) {
    return (vi)x;
}
VEC vf unbits(vi x) {
    return (vf)x;
}

/* The first m lanes (0 < m < WF_LANES); the others are 0 and are not touched in memory. */
#if defined(__AVX512F__)
VEC vf ld_n(const float *p, int64_t m) {
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << m) - 1), p);
}
VEC void st_n(float *p, vf v, int64_t m) {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << m) - 1), (__m512)v);
}
#elif defined(__AVX2__)
VEC __m256i first_lanes(int64_t m) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)m), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
VEC vf ld_n(const float *p, int64_t m) {
    return (vf)_mm256_maskload_ps(p, first_lanes(m));
}
/* In halves: masked stores are slow on some machines. */
VEC void st_n(float *p, vf v, int64_t m) {
    __m128 part = _mm256_castps256_ps128((__m256)v);
    if (m & 4) {
        _mm_storeu_ps(p, part);
        part = _mm256_extractf128_ps((__m256)v, 1);
        p += 4;
    }
    if (m & 2) {
        _mm_storel_pi((__m64 *)(void *)p, part);
        part = _mm_movehl_ps(part, part);
        p += 2;
    }
    if (m & 1) _mm_store_ss(p, part);
}
#else
VEC vf ld_n(const float *p, int64_t m) {
    vf v = {0};
    for (int64_t k = 0; k < m; k++) v[k] = p[k];
    return v;
}
VEC void st_n(float *p, vf v, int64_t m) {
    for (int64_t k = 0; k < m; k++) p[k] = v[k];
}
#endif

/* m (lanes of 0 or -1) ? a : b */
VEC vf sel(vi m, vf a, vf b) {
#if defined(__AVX512F__)
    return (vf)_mm512_mask_blend_ps(_mm512_movepi32_mask((__m512i)m), (__m512)b, (__m512)a);
#elif defined(__AVX2__)
    return (vf)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)m);
#else
    return unbits((m & bits(a)) | (~m & bits(b)));
#endif
}

VEC int any(vi m) {
#if defined(__AVX512F__)
    return _mm512_movepi32_mask((__m512i)m) != 0;
#elif defined(__AVX2__)
    return _mm256_movemask_ps((__m256)m) != 0;
#else
    int32_t r = 0;
    for (int k = 0; k < WF_LANES; k++) r |= m[k];
    return r != 0;
#endif
}

/* a b + c; rounded once where the machine can */
VEC vf vfma(vf a, vf b, vf c) {
#if defined(__AVX512F__)
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__) && defined(__AVX2__)
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

VEC vf vabs(vf x) {
    return unbits(bits(x) & 0x7fffffff);
}
VEC vf with_sign(vf magnitude, vf sign) {
    return unbits(bits(magnitude) | (bits(sign) & (int32_t)0x80000000));
}

VEC vf vsqrt(vf x) {
#if defined(__AVX512F__)
    return (vf)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX2__)
    return (vf)_mm256_sqrt_ps((__m256)x);
#elif defined(__x86_64__)
    return (vf)_mm_sqrt_ps((__m128)x);
#else
    for (int k = 0; k < WF_LANES; k++) x[k] = sqrtf(x[k]);
    return x;
#endif
}

/* Whole numbers: down, and to nearest with halves to even. From 2^23 on every float is whole. */
#if defined(__AVX512F__)
VEC vf vfloor(vf x) {
    return (vf)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
VEC vf vround(vf x) {
    return (vf)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#elif defined(__AVX2__)
VEC vf vfloor(vf x) {
    return (vf)_mm256_floor_ps((__m256)x);
}
VEC vf vround(vf x) {
    return (vf)_mm256_round_ps((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#else
VEC vf vround(vf x) {
    for (int k = 0; k < WF_LANES; k++) x[k] = rintf(x[k]);
    return x;
}
VEC vf vfloor(vf x) {
    for (int k = 0; k < WF_LANES; k++) x[k] = floorf(x[k]);
    return x;
}
#endif

/* Nearest int; |x| < 2^22. */
VEC vi nearest(vf x) {
#if defined(__AVX512F__)
    return (vi)_mm512_cvtps_epi32((__m512)x);
#elif defined(__AVX2__)
    return (vi)_mm256_cvtps_epi32((__m256)x);
#else
    const vf magic = splat(0x1.8p23f);
    return bits(x + magic) - bits(magic);
#endif
}
VEC vf to_float(vi x) {
    return __builtin_convertvector(x, vf);
}

/* The larger, the smaller; NaN when either is NaN. */
VEC vf vmax(vf a, vf b) {
    return sel((a > b) | (a != a), a, b);
}
VEC vf vmin(vf a, vf b) {
    return sel((a < b) | (a != a), a, b);
}

/* Lanes joined with those 8, 4, 2 and 1 away: then every lane has the reduction of all. */
#if WF_LANES == 16
#define WF_ACROSS8(v) __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)
#define WF_ACROSS4(v) __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11)
#define WF_ACROSS2(v) __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)
#define WF_ACROSS1(v) __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14)
#define WF_REDUCE(v, f) (v = f(v, WF_ACROSS8(v)), v = f(v, WF_ACROSS4(v)), v = f(v, WF_ACROSS2(v)), v = f(v, WF_ACROSS1(v)))
#elif WF_LANES == 8
#define WF_ACROSS4(v) __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3)
#define WF_ACROSS2(v) __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5)
#define WF_ACROSS1(v) __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6)
#define WF_REDUCE(v, f) (v = f(v, WF_ACROSS4(v)), v = f(v, WF_ACROSS2(v)), v = f(v, WF_ACROSS1(v)))
#else
#define WF_ACROSS2(v) __builtin_shufflevector(v, v, 2, 3, 0, 1)
#define WF_ACROSS1(v) __builtin_shufflevector(v, v, 1, 0, 3, 2)
#define WF_REDUCE(v, f) (v = f(v, WF_ACROSS2(v)), v = f(v, WF_ACROSS1(v)))
#endif
VEC vf vadd(vf a, vf b) {
    return a + b;
}
VEC float sum_lanes(vf v) {
    WF_REDUCE(v, vadd);
    return v[0];
}

VEC vi lane_index(void) {
    vi v = {0};
    for (int k = 0; k < WF_LANES; k++) v[k] = k;
    return v;
}

/* a0 b0 a1 b1 ..: low and high half */
#if WF_LANES == 16
#define WF_ZIP_LO(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define WF_ZIP_HI(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif WF_LANES == 8
#define WF_ZIP_LO(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define WF_ZIP_HI(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define WF_ZIP_LO(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define WF_ZIP_HI(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#endif

/* bfloat16 <-> float32, nearest even, NaN stays NaN */
typedef uint16_t vh __attribute__((vector_size(2 * WF_LANES)));
VEC vf from_bf16(vh h) {
    return (vf)(__builtin_convertvector(h, vu) << 16);
}
VEC vh to_bf16(vf x) {
    vu b = (vu)x;
    vu r = (b + 0x7fff + ((b >> 16) & 1)) >> 16;
    vu quiet = (b >> 16) | 0x40;
    vi nan = x != x;
    return __builtin_convertvector(((vu)nan & quiet) | (~(vu)nan & r), vh);
}

#endif
