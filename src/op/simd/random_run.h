/* random_run.h: runs of consecutive numbers of a Philox stream (Salmon et al. 2011), as wf_uniform gives them one by one
 * (the rule is told in op/generate.c). */
#ifndef WF_RANDOM_RUN_H
#define WF_RANDOM_RUN_H

#include <stdint.h>

enum { RANDOM_BLOCKS = 20 }; /* blocks of four numbers in one go */

/* ten rounds over n blocks that differ in the first counter word only; all loops become vectors */
static inline void philox_blocks(const uint32_t seed[4], uint64_t stream, uint64_t block, int n,
                                 uint32_t out[4][RANDOM_BLOCKS]) {
    for (int i = 0; i < n; i++) {
        out[0][i] = (uint32_t)(block + (uint64_t)i);
        out[1][i] = (uint32_t)((block + (uint64_t)i) >> 32) ^ (uint32_t)(stream >> 32);
        out[2][i] = seed[2];
        out[3][i] = seed[3] ^ (uint32_t)stream;
    }
    uint32_t k0 = seed[0], k1 = seed[1];
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < n; i++) {
            uint64_t p0 = (uint64_t)0xD2511F53u * out[0][i], p1 = (uint64_t)0xCD9E8D57u * out[2][i];
            out[0][i] = (uint32_t)(p1 >> 32) ^ out[1][i] ^ k0;
            out[2][i] = (uint32_t)(p0 >> 32) ^ out[3][i] ^ k1;
            out[1][i] = (uint32_t)p1;
            out[3][i] = (uint32_t)p0;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

/* u[0..n) = numbers first .. first + n - 1 of (seed, step, stream), in [0,1); n <= 64 */
static inline void uniform_run(const uint32_t seed[4], uint64_t stream, uint64_t first, int n, float *u) {
    uint32_t w[4][RANDOM_BLOCKS];
    uint64_t block = first / 4;
    int blocks = (int)((first + (uint64_t)n - 1) / 4 - block) + 1;
    philox_blocks(seed, stream, block, blocks, w);
    for (int i = 0; i < n; i++) {
        uint64_t at = first + (uint64_t)i;
        u[i] = (float)(w[at % 4][at / 4 - block] >> 8) * 0x1p-24f;
    }
}

#endif
