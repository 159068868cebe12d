/* bf16.h: bfloat16 to float and back, for loops that become vectors. */
#ifndef WF_SIMD_BF16_H
#define WF_SIMD_BF16_H

#include <stdint.h>

static inline float from_bf16(uint16_t b) {
    union {
        uint32_t u;
        float f;
    } x = {(uint32_t)b << 16};
    return x.f;
}

/* round to nearest even; NaN stays NaN */
static inline uint16_t to_bf16(float f) {
    union {
        float f;
        uint32_t u;
    } x = {f};
    uint32_t rounded = (x.u + 0x7FFFu + ((x.u >> 16) & 1)) >> 16, nan = (x.u >> 16) | 0x40u;
    return (uint16_t)((x.u & 0x7FFFFFFFu) > 0x7F800000u ? nan : rounded);
}

#endif
