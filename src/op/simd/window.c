/* simd/window.c: sums and means over windows of tokens, compiled once per instruction set (op/window.h).
 *
 * A task walks along one row of results. The rows of a window are added up column by column into a ring of as many columns as a
 * window has; a result is the sum over the ring. So the input streams through the caches in as many rows as a window covers, and
 * every sum is taken in the same order. A mean is a token plus the mean of the others' differences from it: equal tokens have exactly
 * their own value as mean.
 */
#include "op/window.h"
#include "op/simd.h"

#if defined(WF_ISA_IS_avx512) || defined(WF_ISA_IS_avx512bf16)
#define BYTES 64
#elif defined(WF_ISA_IS_avx2)
#define BYTES 32
#else
#define BYTES 16
#endif
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

#define REAL float
#define NAME(f) single_##f
#include "op/simd/window_body.h"
#undef REAL
#undef NAME
#define REAL double
#define NAME(f) double_##f
#include "op/simd/window_body.h"

static void run(const wf_window_task *t) {
    if (t->wide)
        double_row(t);
    else
        single_row(t);
}

const wf_window_fn WF_ISA_NAME(wf_window) = run;
