/* simd.h: how kernels get wide instructions and still run on any machine.
 *
 * A file src/op/simd/NAME.c is compiled once per instruction set (CMakeLists.txt): generic everywhere, and on x86-64 also
 * avx2 (+FMA, F16C) and avx512 (F, BW, DQ, VL) and avx512bf16. Inside, WF_ISA_NAME(f) gives the function its own name (f_avx2), and plain loops
 * with `#pragma omp simd` or GCC vector extensions become the wide instructions. The file ends in a table of function pointers
 * that the family's dispatcher picks from once, by wf_isa().
 */
#ifndef WF_SIMD_H
#define WF_SIMD_H

typedef enum wf_isa_level { WF_ISA_GENERIC = 0, WF_ISA_AVX2, WF_ISA_AVX512, WF_ISA_AVX512BF16 } wf_isa_level;
/* The best level this machine runs; the environment variable WEFT_ISA (generic|avx2|avx512|avx512bf16) can lower it. */
wf_isa_level wf_isa(void);
const char *wf_isa_name(wf_isa_level l);

#define WF_PASTE_(a, b) a##_##b
#define WF_PASTE(a, b) WF_PASTE_(a, b)
#ifdef WF_ISA /* set by the build for files in src/op/simd/ */
#define WF_ISA_NAME(f) WF_PASTE(f, WF_ISA)
#endif

#endif
