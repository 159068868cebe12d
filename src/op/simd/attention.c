/* attention.c: micro-kernels of the fused attention operator, compiled once per instruction set and for float and double.
 * Drivers: op/attention_tiles.c, attention_backward.c, attention_decode.c. */
#include "op/attention_tiles.h"
#include "op/simd/bf16.h"
#include "op/simd/random_run.h"

#define TILE_DOUBLE 0
#include "op/simd/tile.h"
#include "op/simd/tile_pack.h"
#include "op/simd/attention_rows.h"
#include "op/simd/attention_body.h"
#undef TILE_DOUBLE
#define TILE_DOUBLE 1
#include "op/simd/tile.h"
#include "op/simd/tile_pack.h"
#include "op/simd/attention_rows.h"
#include "op/simd/attention_body.h"
