/* linear_scan.c: chunkwise linear attention of one head, forward and backward, compiled once per instruction set and for float
 * and double. Operator and threads: op/linear_scan.c. */
#include "op/linear_scan.h"
#include "op/simd/bf16.h"

#define TILE_DOUBLE 0
#include "op/simd/tile.h"
#include "op/simd/tile_pack.h"
#include "op/simd/linear_scan_body.h"
#undef TILE_DOUBLE
#define TILE_DOUBLE 1
#include "op/simd/tile.h"
#include "op/simd/tile_pack.h"
#include "op/simd/linear_scan_body.h"
