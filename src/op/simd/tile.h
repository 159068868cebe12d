/* tile.h: small dense tiles in cache: products, packing, vector arithmetic. A template for files of src/op/simd/: include it
 * once with TILE_DOUBLE 0 (float, suffix _f32) and once with TILE_DOUBLE 1 (double, suffix _f64).
 *
 * A tile is row-major with a leading dimension of tile_ld() elements: an odd number of cache lines, so that the rows of a
 * tile spread over all sets of the L1 cache. Columns are padded with zeros to whole vectors; products always run over
 * whole vectors of columns, and over exact numbers of rows and terms.
 */
#include "graph/graph.h"
#include "op/simd.h"

#include <math.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifndef TILE_COMMON
#define TILE_COMMON
#if defined(__AVX512F__)
#define TILE_BYTES 64
#define TILE_MR 8
#elif defined(__AVX2__)
#define TILE_BYTES 32
#define TILE_MR 6
#else
#define TILE_BYTES 16
#define TILE_MR 6
#endif
#define TILE_NV 2 /* vectors of columns in a micro-kernel */
#define TILE_INLINE static inline __attribute__((always_inline, unused))
#define TILE_UNUSED static __attribute__((unused))
#if defined(__clang__)
#define TILE_UNROLL _Pragma("unroll")
#else
#define TILE_UNROLL _Pragma("GCC unroll 16")
#endif
enum { TILE_SET = 0, TILE_ADD, TILE_SCALE_ADD }; /* C = AB, C += AB, C = diag(scale) C + AB */

/* Visible part of a product: for row r of C, columns (or terms) lo[r] <= x < hi[r]; both never decrease. NULL: everything. */
typedef struct tile_range {
    const int *lo, *hi;
} tile_range;
#endif

#undef REAL
#undef T
#undef TILE_LANES
#if TILE_DOUBLE
#define REAL double
#define T(f) f##_f64
typedef int64_t T(tile_int);
#else
#define REAL float
#define T(f) f##_f32
typedef int32_t T(tile_int);
#endif
#define TILE_LANES (TILE_BYTES / (int)sizeof(REAL))

typedef REAL T(vec) __attribute__((vector_size(TILE_BYTES)));
typedef REAL T(vecu) __attribute__((vector_size(TILE_BYTES), aligned(__alignof__(REAL)), may_alias)); /* anywhere in memory */
typedef T(tile_int) T(ivec) __attribute__((vector_size(TILE_BYTES)));

TILE_INLINE T(vec) T(vload)(const REAL *p) {
    return *(const T(vecu) *)p;
}
TILE_INLINE void T(vstore)(REAL *p, T(vec) x) {
    *(T(vecu) *)p = x;
}
/* x - 0 is x for every x and costs nothing; x + 0 is not x for -0 */
TILE_INLINE T(vec) T(vsplat)(REAL x) {
    return x - (T(vec)){0};
}
TILE_INLINE T(vec) T(vpick)(T(ivec) mask, T(vec) a, T(vec) b) {
    return (T(vec))((mask & (T(ivec))a) | (~mask & (T(ivec))b));
}

/* the larger one; b where either is NaN */
TILE_INLINE T(vec) T(vmax)(T(vec) a, T(vec) b) {
#if defined(__AVX512F__)
    return TILE_DOUBLE ? (T(vec))_mm512_max_pd((__m512d)a, (__m512d)b) : (T(vec))_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return TILE_DOUBLE ? (T(vec))_mm256_max_pd((__m256d)a, (__m256d)b) : (T(vec))_mm256_max_ps((__m256)a, (__m256)b);
#else
    return T(vpick)(a > b, a, b);
#endif
}

/* a b + c in one instruction where there is one, whatever the flags say about contraction */
TILE_INLINE T(vec) T(vfma)(T(vec) a, T(vec) b, T(vec) c) {
#if defined(__AVX512F__)
    return TILE_DOUBLE ? (T(vec))_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c)
                       : (T(vec))_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__) && defined(__AVX2__)
    return TILE_DOUBLE ? (T(vec))_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c)
                       : (T(vec))_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    return TILE_DOUBLE ? (T(vec))vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b)
                       : (T(vec))vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

TILE_INLINE T(vec) T(vabs)(T(vec) a) {
    return T(vpick)(a < 0, -a, a);
}

/* Sums and maxima over the lanes, by halves. */
#if defined(__AVX2__) && !TILE_DOUBLE
TILE_INLINE __m256 T(half_lanes)(T(vec) x, int which) {
#if defined(__AVX512F__)
    return which ? _mm512_extractf32x8_ps((__m512)x, 1) : _mm512_castps512_ps256((__m512)x);
#else
    return which ? _mm256_setzero_ps() : (__m256)x;
#endif
}
TILE_INLINE float T(vsum)(T(vec) x) {
    __m256 h = TILE_LANES == 16 ? _mm256_add_ps(T(half_lanes)(x, 0), T(half_lanes)(x, 1)) : T(half_lanes)(x, 0);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
TILE_INLINE float T(vtop)(T(vec) x) {
    __m256 h = TILE_LANES == 16 ? _mm256_max_ps(T(half_lanes)(x, 0), T(half_lanes)(x, 1)) : T(half_lanes)(x, 0);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
#else
TILE_INLINE REAL T(vsum)(T(vec) x) {
    REAL t[TILE_LANES];
    memcpy(t, &x, sizeof t);
    for (int half = TILE_LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) t[i] += t[i + half];
    return t[0];
}
TILE_INLINE REAL T(vtop)(T(vec) x) {
    REAL t[TILE_LANES];
    memcpy(t, &x, sizeof t);
    for (int half = TILE_LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) t[i] = t[i] > t[i + half] ? t[i] : t[i + half];
    return t[0];
}
#endif

/* 2^x for x <= 128; exactly 0 below -126.5 and at -inf; NaN stays NaN. float: degree 5 near-minimax polynomial on
 * [-1/2, 1/2], relative error below 2e-7. */
TILE_INLINE T(vec) T(vexp2)(T(vec) x) {
#if TILE_DOUBLE
    T(vec) r;
    for (int i = 0; i < TILE_LANES; i++) r[i] = exp2(x[i]);
    return r;
#else
    const float magic = 12582912.0f + 127.0f; /* 1.5 * 2^23 + exponent bias: rounds to an integer in the low bits */
    x = T(vmax)(T(vsplat)(-127.0f), x);       /* an exponent of -127 is the number 0; NaN passes, as second operand */
    T(vec) t = x + magic;
    T(vec) f = x - (t - magic);
    static const float c[] = {0.0555071327f, 0.240221197f, 0.693146967f, 1.0f};
    T(vec) p = T(vfma)(T(vsplat)(0.00132764720f), f, T(vsplat)(0.00967554134f));
    TILE_UNROLL for (int i = 0; i < 4; i++) p = T(vfma)(p, f, T(vsplat)(c[i]));
    T(vec) power = (T(vec))((T(ivec))t << 23);
    return p * power;
#endif
}

/* to[c, r] = from[r, c] for TILE_LANES rows and n <= TILE_LANES columns */
#if defined(__AVX2__) && !TILE_DOUBLE
TILE_INLINE void T(transpose_eight)(float *to, int64_t ld, const float *from, int64_t from_ld) {
    __m256 a[8], b[8];
    TILE_UNROLL for (int r = 0; r < 8; r++) a[r] = _mm256_loadu_ps(from + r * from_ld);
    TILE_UNROLL for (int r = 0; r < 8; r += 2) {
        b[r] = _mm256_unpacklo_ps(a[r], a[r + 1]);
        b[r + 1] = _mm256_unpackhi_ps(a[r], a[r + 1]);
    }
    TILE_UNROLL for (int r = 0; r < 8; r += 4) {
        a[r] = _mm256_shuffle_ps(b[r], b[r + 2], 0x44);
        a[r + 1] = _mm256_shuffle_ps(b[r], b[r + 2], 0xEE);
        a[r + 2] = _mm256_shuffle_ps(b[r + 1], b[r + 3], 0x44);
        a[r + 3] = _mm256_shuffle_ps(b[r + 1], b[r + 3], 0xEE);
    }
    TILE_UNROLL for (int r = 0; r < 4; r++) {
        _mm256_storeu_ps(to + r * ld, _mm256_permute2f128_ps(a[r], a[r + 4], 0x20));
        _mm256_storeu_ps(to + (r + 4) * ld, _mm256_permute2f128_ps(a[r], a[r + 4], 0x31));
    }
}
#endif
TILE_INLINE void T(transpose_square)(REAL *to, int64_t ld, const REAL *from, int64_t from_ld, int n) {
#if defined(__AVX2__) && !TILE_DOUBLE
    if (n == TILE_LANES) {
        for (int r = 0; r < TILE_LANES; r += 8)
            for (int c = 0; c < TILE_LANES; c += 8) T(transpose_eight)(to + c * ld + r, ld, from + r * from_ld + c, from_ld);
        return;
    }
#endif
    for (int c = 0; c < n; c++)
        for (int r = 0; r < TILE_LANES; r++) to[c * ld + r] = from[r * from_ld + c];
}

/* Leading dimension of a tile with `cols` columns. */
TILE_INLINE int64_t T(tile_ld)(int64_t cols) {
    int64_t line = 64 / (int64_t)sizeof(REAL);
    return (((cols + line - 1) / line) | 1) * line;
}
TILE_INLINE int T(tile_pad)(int64_t cols) {
    return (int)((cols + TILE_LANES - 1) / TILE_LANES * TILE_LANES);
}

/* ---- product of a block of mr rows and nv vectors of columns over k terms. at: A is given transposed, [k, m] ---- */
TILE_INLINE void T(micro)(int mr, int nv, int at, int64_t k, const REAL *a, int64_t lda, const REAL *b, int64_t ldb, REAL *c,
                          int64_t ldc, const REAL *scale, int mode) {
    T(vec) acc[TILE_MR][TILE_NV];
    TILE_UNROLL for (int r = 0; r < mr; r++) TILE_UNROLL for (int v = 0; v < nv; v++) acc[r][v] = (T(vec)){0};
    for (int64_t p = 0; p < k; p++) {
        T(vec) bv[TILE_NV];
        TILE_UNROLL for (int v = 0; v < nv; v++) bv[v] = T(vload)(b + v * TILE_LANES);
        TILE_UNROLL for (int r = 0; r < mr; r++) {
            T(vec) x = T(vsplat)(at ? a[r] : a[r * lda]);
            TILE_UNROLL for (int v = 0; v < nv; v++) acc[r][v] = T(vfma)(x, bv[v], acc[r][v]);
        }
        a += at ? lda : 1;
        b += ldb;
    }
    TILE_UNROLL for (int r = 0; r < mr; r++) TILE_UNROLL for (int v = 0; v < nv; v++) {
        REAL *to = c + r * ldc + v * TILE_LANES;
        if (mode == TILE_ADD) acc[r][v] += T(vload)(to);
        if (mode == TILE_SCALE_ADD) acc[r][v] = T(vfma)(T(vsplat)(scale[r]), T(vload)(to), acc[r][v]);
        T(vstore)(to, acc[r][v]);
    }
}

typedef void (*T(micro_fn))(int64_t k, const REAL *a, int64_t lda, const REAL *b, int64_t ldb, REAL *c, int64_t ldc,
                            const REAL *scale, int mode);
#define MICRO(mr, nv, at)                                                                                                      \
    TILE_UNUSED void T(micro_##mr##_##nv##_##at)(int64_t k, const REAL *a, int64_t lda, const REAL *b, int64_t ldb, REAL *c,   \
                                                 int64_t ldc, const REAL *scale, int mode) {                                   \
        T(micro)(mr, nv, at, k, a, lda, b, ldb, c, ldc, scale, mode);                                                          \
    }
#define MICRO_ROW(mr) MICRO(mr, 1, 0) MICRO(mr, 2, 0) MICRO(mr, 1, 1) MICRO(mr, 2, 1)
MICRO_ROW(1)
MICRO_ROW(2)
MICRO_ROW(3)
MICRO_ROW(4)
MICRO_ROW(5)
MICRO_ROW(6)
#if TILE_MR == 8
MICRO_ROW(7)
MICRO_ROW(8)
#define MICRO_LIST(nv, at)                                                                                                     \
    {                                                                                                                          \
        T(micro_1_##nv##_##at), T(micro_2_##nv##_##at), T(micro_3_##nv##_##at), T(micro_4_##nv##_##at),                        \
            T(micro_5_##nv##_##at), T(micro_6_##nv##_##at), T(micro_7_##nv##_##at), T(micro_8_##nv##_##at)                     \
    }
#else
#define MICRO_LIST(nv, at)                                                                                                     \
    {                                                                                                                          \
        T(micro_1_##nv##_##at), T(micro_2_##nv##_##at), T(micro_3_##nv##_##at), T(micro_4_##nv##_##at),                        \
            T(micro_5_##nv##_##at), T(micro_6_##nv##_##at)                                                                     \
    }
#endif
static const T(micro_fn)
    T(micros)[2][TILE_NV][TILE_MR] = {{MICRO_LIST(1, 0), MICRO_LIST(2, 0)}, {MICRO_LIST(1, 1), MICRO_LIST(2, 1)}};
#undef MICRO
#undef MICRO_ROW
#undef MICRO_LIST

/* The operands of one product C [m,n] = A [m,k] B [k,n]; n is a whole number of vectors. */
typedef struct T(tile_product) {
    int m, n, k;
    bool at; /* a is stored [k,m] */
    const REAL *a, *b;
    REAL *c;
    int64_t lda, ldb, ldc;
    int mode;
    const REAL *scale; /* [m] for TILE_SCALE_ADD */
    tile_range columns, terms;
} T(tile_product);

/* Rows in groups of TILE_MR; a group that cannot see a panel of columns is left out (its C is then undefined), and terms that
 * no row of the group can see are left out of the sum. */
TILE_UNUSED void T(tile_multiply)(const T(tile_product) * t) {
    for (int n0 = 0; n0 < t->n; n0 += TILE_NV * TILE_LANES) {
        int nv = t->n - n0 >= TILE_NV * TILE_LANES ? TILE_NV : 1;
        for (int m0 = 0; m0 < t->m; m0 += TILE_MR) {
            int mr = t->m - m0 < TILE_MR ? t->m - m0 : TILE_MR, last = m0 + mr - 1, k0 = 0, k1 = t->k;
            if (t->columns.lo && (t->columns.hi[last] <= n0 || t->columns.lo[m0] >= n0 + nv * TILE_LANES)) continue;
            if (t->terms.lo) {
                k0 = t->terms.lo[m0] > 0 ? t->terms.lo[m0] : 0;
                k1 = t->terms.hi[last] < t->k ? t->terms.hi[last] : t->k;
                if (k1 < k0) k1 = k0;
                if (k1 == k0 && t->mode == TILE_ADD) continue;
            }
            const REAL *a = t->at ? t->a + k0 * t->lda + m0 : t->a + m0 * t->lda + k0;
            T(micros)
            [t->at][nv - 1][mr - 1](k1 - k0, a, t->lda, t->b + k0 * t->ldb + n0, t->ldb, t->c + m0 * t->ldc + n0, t->ldc,
                                    t->scale ? t->scale + m0 : NULL, t->mode);
        }
    }
}
