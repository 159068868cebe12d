/* random.c: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3; SC 2011), a stable
 * hash and the seeded permutation.
 *
 * The k-th number of a stream is word k mod 4 of the block at counter {k / 4, stream} under the key `seed`: no state but a
 * position, so any thread can start anywhere. Doubles take two words of one block, normals one whole block.
 */
#include "base/base.h"

#include <math.h>

void wf_philox(const uint32_t key[2], const uint32_t ctr[4], uint32_t out[4]) {
    const uint32_t mul0 = 0xD2511F53u, mul1 = 0xCD9E8D57u;   /* section 3.3 of the paper */
    const uint32_t weyl0 = 0x9E3779B9u, weyl1 = 0xBB67AE85u; /* golden ratio, sqrt(3) - 1 */
    uint32_t k0 = key[0], k1 = key[1];
    uint32_t c0 = ctr[0], c1 = ctr[1], c2 = ctr[2], c3 = ctr[3];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)mul0 * c0, p1 = (uint64_t)mul1 * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += weyl0;
        k1 += weyl1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

static void block_at(const wf_rng *r, uint64_t block, uint32_t out[4]) {
    uint32_t key[2] = {(uint32_t)r->seed, (uint32_t)(r->seed >> 32)};
    uint32_t ctr[4] = {(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)r->stream, (uint32_t)(r->stream >> 32)};
    wf_philox(key, ctr, out);
}

uint32_t wf_rng_u32(wf_rng *r) {
    uint32_t w[4];
    block_at(r, r->index / 4, w);
    return w[r->index++ % 4];
}

/* The next aligned pair of words. */
static uint64_t next_u64(wf_rng *r) {
    uint32_t w[4];
    r->index += r->index & 1;
    block_at(r, r->index / 4, w);
    int at = (int)(r->index % 4);
    r->index += 2;
    return (uint64_t)w[at + 1] << 32 | w[at];
}

static double unit(uint64_t bits) {
    return (double)(bits >> 11) * 0x1p-53;
}

double wf_rng_uniform(wf_rng *r) {
    return unit(next_u64(r));
}

/* Box and Muller 1958; the sine half is left unused so that one number is one block. */
double wf_rng_normal(wf_rng *r) {
    uint32_t w[4];
    r->index = (r->index + 3) / 4 * 4;
    block_at(r, r->index / 4, w);
    r->index += 4;
    double u = 1.0 - unit((uint64_t)w[1] << 32 | w[0]); /* (0, 1] */
    double v = unit((uint64_t)w[3] << 32 | w[2]);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586476925 * v);
}

/* Multiply and keep the high word; low words under 2^64 mod n would make some results more likely (Lemire 2019). */
uint64_t wf_rng_below(wf_rng *r, uint64_t n) {
    if (n < 2) return 0;
    uint64_t refuse = (0 - n) % n;
    for (;;) {
        unsigned __int128 m = (unsigned __int128)next_u64(r) * n;
        if ((uint64_t)m >= refuse) return (uint64_t)(m >> 64);
    }
}

/* A bijection of 64 bits in which every input bit reaches every output bit. */
static uint64_t mix(uint64_t x) {
    x ^= x >> 32;
    x *= 0xD6E8FEB86659FD93u;
    x ^= x >> 32;
    x *= 0xD6E8FEB86659FD93u;
    return x ^ x >> 32;
}

uint64_t wf_hash(const void *p, size_t n, uint64_t seed) {
    const unsigned char *s = p;
    uint64_t h = mix(seed + 0x9E3779B97F4A7C15u) ^ (uint64_t)n * 0xC2B2AE3D27D4EB4Fu;
    size_t i = 0;
    for (; n - i >= 8; i += 8) {
        uint64_t w = 0;
        for (int k = 7; k >= 0; k--) w = w << 8 | s[i + (size_t)k];
        h = (h ^ mix(w)) * 0x9E3779B97F4A7C15u;
        h ^= h >> 29;
    }
    uint64_t rest = 0x80; /* marks where the last bytes begin */
    for (; i < n; i++) rest = rest << 8 | s[i];
    return mix(h ^ mix(rest));
}

/* The domain 2^bits < 2n is split in two halves of about bits / 2; each round xors one half with a function of the other,
 * which is a bijection whatever the function. Results >= n are sent through again, until one falls below n. */
uint64_t wf_shuffle(uint64_t i, uint64_t n, uint64_t seed) {
    if (n < 2 || i >= n) return i;
    int bits = 64 - __builtin_clzll(n - 1);
    int low_bits = (bits + 1) / 2;
    uint64_t low_mask = ((uint64_t)1 << low_bits) - 1;
    uint64_t high_mask = ((uint64_t)1 << (bits - low_bits)) - 1;
    uint64_t key = mix(seed ^ 0xA0761D6478BD642Fu);
    do {
        uint64_t low = i & low_mask, high = i >> low_bits;
        for (uint64_t round = 1; round <= 4; round++) {
            high ^= mix(low + key + round * 0x9E3779B97F4A7C15u) & high_mask;
            low ^= mix(high ^ (key - round * 0xC2B2AE3D27D4EB4Fu)) & low_mask;
        }
        i = high << low_bits | low;
    } while (i >= n);
    return i;
}
