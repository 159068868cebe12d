/* rows_convert.h: part of rows.c: conversion between registers (float) and memory of any dtype. Integers are cut towards 0 and
 * held to their range; NaN becomes 0. */

static inline float hold(float x, float lo, float hi) {
    return x >= lo ? (x <= hi ? x : hi) : (x < lo ? lo : 0.0f);
}
static inline int32_t as_i32(float x) {
    return x >= 2147483648.0f ? INT32_MAX : (int32_t)hold(x, -2147483648.0f, 2147483520.0f);
}
static inline int8_t as_i8(float x) {
    return (int8_t)hold(x, -128.0f, 127.0f);
}
static inline uint8_t as_u8(float x) {
    return (uint8_t)hold(x, 0.0f, 255.0f);
}
static inline uint16_t bf16_of(float x) {
    uint32_t b;
    memcpy(&b, &x, 4);
    return x != x ? (uint16_t)(b >> 16 | 0x40) : (uint16_t)((b + 0x7fff + (b >> 16 & 1)) >> 16);
}
static inline float bf16_value(uint16_t h) {
    uint32_t b = (uint32_t)h << 16;
    float x;
    memcpy(&x, &b, 4);
    return x;
}

#define LOAD(name, type, expr)                                                                                                 \
    static void name(const wf_row_args *a) {                                                                                   \
        const int64_t step = a->step;                                                                                          \
        FOR_ROW {                                                                                                              \
            const type *p = (const type *)a->s[0] + r * a->sp[0];                                                              \
            float *d = (float *)a->d + r * a->dp;                                                                              \
            if (step == 1)                                                                                                     \
                for (int64_t i = 0; i < n; i++) {                                                                              \
                    type x = p[i];                                                                                             \
                    d[i] = expr;                                                                                               \
                }                                                                                                              \
            else                                                                                                               \
                for (int64_t i = 0; i < n; i++) {                                                                              \
                    type x = p[i * step];                                                                                      \
                    d[i] = expr;                                                                                               \
                }                                                                                                              \
        }                                                                                                                      \
    }
LOAD(load_f32, float, x)
LOAD(load_i32, int32_t, (float)x)
LOAD(load_u8, uint8_t, (float)x)
LOAD(load_i8, int8_t, (float)x)
LOAD(load_f64, double, (float)x)
LOAD(load_bf16_any, uint16_t, bf16_value(x))

static void load_bf16(const wf_row_args *a) {
    if (a->step != 1) {
        load_bf16_any(a);
        return;
    }
    FOR_ROW {
        const uint16_t *p = (const uint16_t *)a->s[0] + r * a->sp[0];
        float *d = (float *)a->d + r * a->dp;
        int64_t i = 0;
        WF_UNROLL for (; i + WF_LANES <= n; i += WF_LANES) {
            vh h;
            memcpy(&h, p + i, sizeof h);
            st(d + i, from_bf16(h));
        }
        for (; i < n; i++) d[i] = bf16_value(p[i]);
    }
}

#define STORE(name, type, expr)                                                                                                \
    static void name(const wf_row_args *a) {                                                                                   \
        const int64_t step = a->step;                                                                                          \
        FOR_ROW {                                                                                                              \
            const float *p = (const float *)a->s[0] + r * a->sp[0];                                                            \
            type *d = (type *)a->d + r * a->dp;                                                                                \
            if (step == 1)                                                                                                     \
                for (int64_t i = 0; i < n; i++) {                                                                              \
                    float x = p[i];                                                                                            \
                    d[i] = expr;                                                                                               \
                }                                                                                                              \
            else                                                                                                               \
                for (int64_t i = 0; i < n; i++) {                                                                              \
                    float x = p[i];                                                                                            \
                    d[i * step] = expr;                                                                                        \
                }                                                                                                              \
        }                                                                                                                      \
    }
STORE(store_f32, float, x)
STORE(store_i32, int32_t, as_i32(x))
STORE(store_u8, uint8_t, as_u8(x))
STORE(store_i8, int8_t, as_i8(x))
STORE(store_f64, double, (double)x)
STORE(store_bf16_any, uint16_t, bf16_of(x))

static void store_bf16(const wf_row_args *a) {
    if (a->step != 1) {
        store_bf16_any(a);
        return;
    }
    FOR_ROW {
        const float *p = (const float *)a->s[0] + r * a->sp[0];
        uint16_t *d = (uint16_t *)a->d + r * a->dp;
        int64_t i = 0;
        WF_UNROLL for (; i + WF_LANES <= n; i += WF_LANES) {
            vh h = to_bf16(ld(p + i));
            memcpy(d + i, &h, sizeof h);
        }
        for (; i < n; i++) d[i] = bf16_of(p[i]);
    }
}

KERNEL1(round_bf16_, from_bf16(to_bf16(x)))
static void round_bf16(const wf_row_args *a) {
    round_bf16__v(a);
}
#define ROUND(name, expr)                                                                                                      \
    static void name(const wf_row_args *a) {                                                                                   \
        FOR_ROW {                                                                                                              \
            const float *p = (const float *)a->s[0] + r * a->sp[0];                                                            \
            float *d = (float *)a->d + r * a->dp;                                                                              \
            for (int64_t i = 0; i < n; i++) d[i] = (float)expr(p[i]);                                                          \
        }                                                                                                                      \
    }
ROUND(round_i32, as_i32)
ROUND(round_u8, as_u8)
ROUND(round_i8, as_i8)

/* Whole cache lines past the caches: memory that nobody reads soon need not be fetched before it is written. */
static void stream_f32(const wf_row_args *a) {
    FOR_ROW {
        const float *p = (const float *)a->s[0] + r * a->sp[0];
        float *d = (float *)a->d + r * a->dp;
        int64_t i = 0;
#if defined(__x86_64__)
        for (; i < n && ((uintptr_t)(d + i) & 63); i++) d[i] = p[i];
        for (; i + 16 <= n; i += 16)
#if WF_LANES == 16
            _mm512_stream_ps(d + i, (__m512)ld(p + i));
#elif WF_LANES == 8
            for (int k = 0; k < 16; k += 8) _mm256_stream_ps(d + i + k, (__m256)ld(p + i + k));
#else
            for (int k = 0; k < 16; k += 4) _mm_stream_ps(d + i + k, (__m128)ld(p + i + k));
#endif
#endif
        for (; i < n; i++) d[i] = p[i];
    }
}
