/* turn.c: kernels of the reflected rotation, compiled once per instruction set, for float and double. */
#include "op/turn.h"
#include "op/simd.h"

#define REAL float
#define D(name) name##_f32
#include "op/simd/turn_body.h"
#undef REAL
#undef D
#define REAL double
#define D(name) name##_f64
#include "op/simd/turn_body.h"
