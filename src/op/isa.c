/* isa.c: the widest instruction set that this machine runs and the environment allows. */
#include "op/simd.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"generic", "avx2", "avx512", "avx512bf16"};

static wf_isa_level machine_level(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return WF_ISA_GENERIC;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512vl"))
        return WF_ISA_AVX2;
    return __builtin_cpu_supports("avx512bf16") ? WF_ISA_AVX512BF16 : WF_ISA_AVX512;
#else
    return WF_ISA_GENERIC;
#endif
}

wf_isa_level wf_isa(void) {
    static atomic_int known; /* level + 1; two threads that both find it out store the same number */
    int k = atomic_load_explicit(&known, memory_order_relaxed);
    if (k) return (wf_isa_level)(k - 1);
    wf_isa_level l = machine_level();
    const char *wish = getenv("WEFT_ISA");
    for (int i = 0; wish && i < (int)l; i++)
        if (!strcmp(wish, names[i])) l = (wf_isa_level)i;
    atomic_store_explicit(&known, (int)l + 1, memory_order_relaxed);
    return l;
}

const char *wf_isa_name(wf_isa_level l) {
    return l <= WF_ISA_AVX512BF16 ? names[l] : "unknown";
}
