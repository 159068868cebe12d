/* depthwise.c: kernels of the depthwise convolution, compiled once per instruction set, for float and double. */
#include "op/depthwise.h"
#include "op/simd.h"

#include <string.h>

#if defined(__AVX512F__)
#define STRIP 64
#elif defined(__AVX2__)
#define STRIP 32
#else
#define STRIP 16
#endif

#define REAL float
#define REAL_LANES (STRIP / 4)
#define D(name) name##_f32
#include "op/simd/depthwise_body.h"
#undef REAL
#undef REAL_LANES
#undef D
#define REAL double
#define REAL_LANES (STRIP / 8)
#define D(name) name##_f64
#include "op/simd/depthwise_body.h"
