/* rows_generate.h: part of rows.c: coordinates and random numbers by linear index (what they are: generate.c). */

/* Coordinate (index / stride) mod size: constant over runs of `stride` columns, or counting when the stride is 1. */
static void index_numbers(const wf_row_args *a) {
    const int64_t stride = a->number[0], size = a->number[1];
    FOR_ROW {
        float *d = (float *)a->d + r * a->dp;
        int64_t at = a->index + r * a->sp[1];
        if (a->step == 1 && stride == 1) {
            int64_t c = at % size;
            for (int64_t i = 0; i < n; i++) {
                d[i] = (float)c;
                if (++c == size) c = 0;
            }
        } else if (a->step == 1) {
            for (int64_t i = 0; i < n;) {
                int64_t run = MIN2(n - i, stride - (at + i) % stride);
                float c = (float)((at + i) / stride % size);
                for (int64_t k = 0; k < run; k++) d[i + k] = c;
                i += run;
            }
        } else {
            for (int64_t i = 0; i < n; i++) d[i] = (float)((at + i * a->step) / stride % size);
        }
    }
}

VEC vu multiply_wide(vu a, uint32_t m, vu *high) {
#if defined(__AVX512F__)
    __m512i k = _mm512_set1_epi32((int)m), even = _mm512_mul_epu32((__m512i)a, k);
    __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64((__m512i)a, 32), k);
    *high = (vu)_mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
    return (vu)_mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
#elif defined(__AVX2__)
    __m256i k = _mm256_set1_epi32((int)m), even = _mm256_mul_epu32((__m256i)a, k);
    __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64((__m256i)a, 32), k);
    *high = (vu)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    return (vu)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
#else
    vu low;
    for (int j = 0; j < WF_LANES; j++) {
        uint64_t p = (uint64_t)a[j] * m;
        (*high)[j] = (uint32_t)(p >> 32);
        low[j] = (uint32_t)p;
    }
    return low;
#endif
}

typedef struct philox_key {
    uint32_t key[2], c1, c2, c3;
} philox_key;

/* Blocks q .. q + WF_LANES - 1 of the stream: out[k] holds their words k (wf_philox in base/random.c, a vector at a time). */
VEC void philox(const philox_key *k, uint64_t q, vu out[4]) {
    vu lane = (vu)lane_index(), c0 = (uint32_t)q + lane;
    vu carry = (vu)(c0 < lane); /* -1 where the low word went round */
    vu c1 = ((uint32_t)(q >> 32) - carry) ^ k->c1, c2 = (vu){0} + k->c2, c3 = (vu){0} + k->c3;
    uint32_t k0 = k->key[0], k1 = k->key[1];
    for (int round = 0; round < 10; round++) {
        vu h0, h1, l0 = multiply_wide(c0, 0xD2511F53u, &h0), l1 = multiply_wide(c2, 0xCD9E8D57u, &h1);
        c0 = h1 ^ c1 ^ k0;
        c2 = h0 ^ c3 ^ k1;
        c1 = l1;
        c3 = l0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

static philox_key random_key(const wf_row_args *a) {
    const uint32_t *s = a->s[0];
    uint64_t stream = (uint64_t)a->number[0];
    return (philox_key){{s[0], s[1]}, (uint32_t)(stream >> 32), s[2], s[3] ^ (uint32_t)stream};
}

/* Four vectors of words, in the order of their numbers. */
VEC void in_order(vf w[4]) {
    vf a = WF_ZIP_LO(w[0], w[2]), b = WF_ZIP_LO(w[1], w[3]), c = WF_ZIP_HI(w[0], w[2]), d = WF_ZIP_HI(w[1], w[3]);
    w[0] = WF_ZIP_LO(a, b);
    w[1] = WF_ZIP_HI(a, b);
    w[2] = WF_ZIP_LO(c, d);
    w[3] = WF_ZIP_HI(c, d);
}

VEC void uniform_block(const wf_row_args *a, const philox_key *key, uint64_t q, float to[4 * WF_LANES]) {
    vu out[4];
    vf w[4];
    philox(key, q, out);
    int drop = 32 - (int)a->number[1];
    float unit = 1.0f / (float)(1 << a->number[1]);
    for (int k = 0; k < 4; k++) w[k] = to_float((vi)(out[k] >> drop)) * unit;
    in_order(w);
    for (int k = 0; k < 4; k++) st(to + k * WF_LANES, w[k]);
}

/* Box and Muller: sqrt(-2 log u) (cos, sin)(2 pi v), u in (0, 1]. */
VEC void normal_block(const wf_row_args *a, const philox_key *key, uint64_t q, float to[4 * WF_LANES]) {
    vu out[4];
    vf w[4];
    (void)a;
    philox(key, q, out);
    for (int k = 0; k < 4; k += 2) {
        vf u = (to_float((vi)(out[k] >> 8)) + 1.0f) * 0x1p-24f, v = to_float((vi)(out[k + 1] >> 8)) * 0x1p-24f;
        vf radius = vsqrt(-2.0f * vlog(u)), angle = v * 6.28318531f;
        w[k] = radius * vcos(angle);
        w[k + 1] = radius * vsin(angle);
    }
    in_order(w);
    for (int k = 0; k < 4; k++) st(to + k * WF_LANES, w[k]);
}

#define GENERATE(name, block)                                                                                                  \
    static void name(const wf_row_args *a) {                                                                                   \
        philox_key key = random_key(a);                                                                                        \
        float part[4 * WF_LANES];                                                                                              \
        const int64_t step = a->step;                                                                                          \
        FOR_ROW {                                                                                                              \
            float *d = (float *)a->d + r * a->dp;                                                                              \
            int64_t at = a->index + r * a->sp[1];                                                                              \
            for (int64_t i = 0; i < n;) {                                                                                      \
                int64_t skip = (at + i * step) & 3, run = step == 1 ? MIN2(n - i, 4 * WF_LANES - skip) : 1;                    \
                uint64_t q = (uint64_t)(at + i * step) >> 2;                                                                   \
                if (run == 4 * WF_LANES) {                                                                                     \
                    block(a, &key, q, d + i);                                                                                  \
                } else {                                                                                                       \
                    block(a, &key, q, part);                                                                                   \
                    memcpy(d + i, part + skip, (size_t)run * sizeof *d);                                                       \
                }                                                                                                              \
                i += run;                                                                                                      \
            }                                                                                                                  \
        }                                                                                                                      \
    }
GENERATE(uniform_numbers, uniform_block)
GENERATE(normal_numbers, normal_block)
