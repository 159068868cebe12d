/* rows_math.h: elementary functions on vectors of floats, within about 2 units in the last place over the whole range; infinities,
 * NaN and denormal numbers as in libm. Series are Taylor's where nothing is said; other coefficients were fitted for this file
 * (Chebyshev, 40 digits). Written so that they hold with and without fused multiply-add. */
#ifndef WF_ROWS_MATH_H
#define WF_ROWS_MATH_H

#include "op/simd/vec.h"

#define V_INF splat(__builtin_inff())
#define V_NAN splat(__builtin_nanf(""))
/* log 2 in two parts; the first has 9 significant bits, so that whole multiples of it are exact. */
#define LN2_HI 0.693359375f
#define LN2_LO (-2.12194440e-4f)

/* 2^n, -126 <= n <= 127 */
VEC vf power_of_two(vi n) {
    return unbits((n + 127) << 23);
}

/* x = n log 2 + r, |r| <= 0.35 */
VEC vf reduce_exp(vf x, vi *n) {
    vf k = vround(x * 1.44269504f);
    *n = nearest(k);
    return (x - k * LN2_HI) - k * LN2_LO;
}

/* e^r - 1 - r, |r| <= 0.35 */
VEC vf exp_tail(vf r) {
    vf p = r * (1.0f / 5040) + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    return p * (r * r);
}

/* x within [lo, hi]; NaN stays. */
VEC vf within(vf x, float lo, float hi) {
#if defined(__AVX512F__)
    return (vf)_mm512_max_ps((__m512)splat(lo), _mm512_min_ps((__m512)splat(hi), (__m512)x));
#elif defined(__AVX2__)
    return (vf)_mm256_max_ps((__m256)splat(lo), _mm256_min_ps((__m256)splat(hi), (__m256)x));
#else
    return sel(x > hi, splat(hi), sel(x < lo, splat(lo), x));
#endif
}

/* The scale 2^n goes in two factors, so that results may be denormal or overflow. */
VEC vf vexp(vf x) {
    vi n;
    x = within(x, -105, 89);
    vf r = reduce_exp(x, &n);
    vi half = n >> 1;
    vf p = 1.0f + (r + exp_tail(r));
    return p * power_of_two(half) * power_of_two(n - half);
}

VEC vf vexpm1(vf x) {
    vi n;
    vf c = sel(x > 88.0f, splat(88.0f), sel(x < -30.0f, splat(-30.0f), x));
    vf r = reduce_exp(c, &n);
    vf scale = power_of_two(n);
    vf y = scale * exp_tail(r) + (scale * r + (scale - 1.0f));
    y = sel(n == 0, r + exp_tail(r), y);
    y = sel(x > 88.0f, vexp(x), y);
    return sel(x == 0.0f, x, y);
}

/* log(u) + c for u > 0 and a small correction c: u = 2^k (1 + f), s = f / (2 + f), log(1 + f) = 2 atanh(s) arranged so that the
 * large terms f and f^2/2 enter unrounded. */
VEC vf log_core(vf u, vf c) {
    vi tiny = u < 0x1p-126f;
    u = sel(tiny, u * 0x1p25f, u);
    vi b = bits(u) - 0x3f3504f3; /* from sqrt(1/2) on */
    vi k = b >> 23;
    vf f = unbits((b & 0x007fffff) + 0x3f3504f3) - 1.0f;
    vf e = to_float(k + (tiny & -25));
    vf s = f / (f + 2.0f), z = s * s;
    vf series = z * (2.0f / 3 + z * (2.0f / 5 + z * (2.0f / 7 + z * (2.0f / 9))));
    vf half = 0.5f * f * f;
    return e * LN2_HI + (f - (half - (s * (half + series) + (e * LN2_LO + c))));
}

VEC vf log_edges(vf u, vf y) {
    y = sel(u == V_INF, u, y);
    y = sel(u == 0.0f, -V_INF, y);
    return sel((u < 0.0f) | (u != u), V_NAN, y);
}

VEC vf vlog(vf x) {
    return log_edges(x, log_core(x, (vf){0}));
}

/* What 1 + x loses by rounding comes back as a correction of first order. */
VEC vf vlog1p(vf x) {
    vf u = x + 1.0f;
    vf lost = sel(x > 1.0f, 1.0f - (u - x), x - (u - 1.0f));
    vf y = log_edges(u, log_core(u, lost / u));
    return sel((vabs(x) < 1e-10f), x, y);
}

/* x P(x^2) / Q(x^2) on [-9, 9], relative error 2e-8 (least squares, weighted towards the largest error). Behind, P/Q has reached 1. */
VEC vf vtanh(vf x) {
    vf c = within(x, -9.1f, 9.1f), z = c * c;
    vf p = z * 1.335582587e-08f + 2.061000724e-05f;
    p = p * z + 3.495647724e-03f;
    p = p * z + 1.338107686e-01f;
    p = p * z + 9.999999795e-01f;
    vf q = z * 7.777060305e-07f + 3.285729956e-04f;
    q = q * z + 2.587721220e-02f;
    q = q * z + 4.671439249e-01f;
    q = q * z + 1.0f;
    return within(c * p / q, -1, 1);
}

VEC vf vsigmoid(vf x) {
    vf e = vexp(-vabs(x));
    return sel(x >= 0.0f, splat(1.0f), e) / (1.0f + e);
}

VEC vf vsoftplus(vf x) {
    return sel(x > 0.0f, x, (vf){0}) + vlog1p(vexp(-vabs(x)));
}

/* As tanh: x P(x^2) / Q(x^2) on [-3.92, 3.92], relative error 2e-8. */
VEC vf verf(vf x) {
    vf c = within(x, -3.95f, 3.95f), z = c * c;
    vf p = z * 2.050140179e-06f + 2.848755137e-04f;
    p = p * z + 3.765298179e-03f;
    p = p * z + 5.274772805e-02f;
    p = p * z + 1.903990069e-01f;
    p = p * z + 1.128379146e+00f;
    vf q = z * 3.809189625e-05f + 1.162458456e-03f;
    q = q * z + 1.496857424e-02f;
    q = q * z + 1.141060206e-01f;
    q = q * z + 5.020694688e-01f;
    q = q * z + 1.0f;
    return within(c * p / q, -1, 1);
}

/* sine and cosine on |r| <= pi/4 */
VEC vf sin_core(vf r) {
    vf z = r * r;
    vf p = z * (-1.0f / 39916800) + 1.0f / 362880;
    p = p * z - 1.0f / 5040;
    p = p * z + 1.0f / 120;
    p = p * z - 1.0f / 6;
    return r + r * (z * p);
}
VEC vf cos_core(vf r) {
    vf z = r * r;
    vf p = z * (1.0f / 479001600) - 1.0f / 3628800;
    p = p * z + 1.0f / 40320;
    p = p * z - 1.0f / 720;
    p = p * z + 1.0f / 24;
    return 1.0f + (z * -0.5f + z * z * p);
}

/* x = k pi/2 + r for |x| <= 1e5. With fused multiply-add three floats of pi/2 suffice: every product is exact, and so is the first
 * difference. Without it, in double. */
VEC vf reduce_quarter(vf x, vi *k) {
    vf q = vround(x * 0.636619772f);
    *k = nearest(q);
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) /* where a * b + c is contracted */
    vf r = vfma(q, splat(-1.57079637e+00f), x);
    r = vfma(q, splat(4.37113883e-08f), r);
    return vfma(q, splat(1.71512451e-15f), r);
#else
    vf r;
    for (int j = 0; j < WF_LANES; j++) {
        double t = (double)x[j] - (double)q[j] * 1.57079632673412561417e+00; /* 33 bits of pi/2, and the rest */
        r[j] = (float)(t - (double)q[j] * 6.07710050650619224932e-11);
    }
    return r;
#endif
}

/* sin(x + shift pi/2) */
VEC vf sin_shifted(vf x, int32_t shift) {
    vi k;
    vf r = reduce_quarter(x, &k);
    k += shift;
    vf y = sel((k & 1) != 0, cos_core(r), sin_core(r));
    y = unbits(bits(y) ^ ((k & 2) << 30));
    if (any(~(vabs(x) <= 1e5f)))
        for (int j = 0; j < WF_LANES; j++)
            if (!(fabsf(x[j]) <= 1e5f)) y[j] = shift ? cosf(x[j]) : sinf(x[j]);
    return y;
}
VEC vf vsin(vf x) {
    return sel(x == 0.0f, x, sin_shifted(x, 0));
}
VEC vf vcos(vf x) {
    return sin_shifted(x, 1);
}

/* Angle of (x, y). atan of t = lo / hi in [0, 1]; above tan(pi/8) it is pi/4 + atan((lo - hi) / (lo + hi)). The octant brings the
 * rest of the circle; pi/2 and pi are added in two parts. Numbers whose sum would overflow, or whose quotient would lose digits
 * to denormals, go through libm. */
VEC vf vatan2(vf y, vf x) {
    vf ax = vabs(x), ay = vabs(y), hi = sel(ax > ay, ax, ay), lo = sel(ax > ay, ay, ax);
    vi steep = lo > hi * 0.414213562f;
    vf t = sel(steep, lo - hi, lo) / sel(steep, lo + hi, sel(hi == 0.0f, splat(1.0f), hi)), z = t * t;
    vf p = z * -0.0608345307f + 0.105960011f;
    p = p * z - 0.142438486f;
    p = p * z + 0.199984893f;
    p = p * z - 0.333333164f;
    vf a = t + t * (z * p);
    a = sel(steep, (a - 2.18556942e-08f) + 0.785398185f, a);
    a = sel(ay > ax, 1.57079637f - (a + 4.37113883e-08f), a);
    a = sel(bits(x) < 0, 3.14159274f - (a + 8.74227766e-08f), a);
    a = with_sign(a, y);
    vi hard = (hi > 1e37f) | ((hi < 1e-30f) & (hi != 0.0f)) | (x != x) | (y != y);
    if (any(hard))
        for (int j = 0; j < WF_LANES; j++)
            if (hard[j]) a[j] = atan2f(y[j], x[j]);
    return a;
}

VEC vf vsign(vf x) {
    vf one = with_sign(splat(1.0f), x);
    return sel((x == 0.0f) | (x != x), x, one);
}
VEC vf vtruth(vi m) {
    return unbits(m & bits(splat(1.0f)));
}

static inline vf vpow(vf x, vf y) {
    for (int k = 0; k < WF_LANES; k++) x[k] = powf(x[k], y[k]);
    return x;
}

#endif
