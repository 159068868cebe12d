/* bench/matmul.c: matrix products through the graph against the multiply-add peak of this machine, measured in the same run.
 *
 * Peak: a loop of independent fused multiply-adds in registers, on all threads, with the widest vectors that the engine uses;
 * for bfloat16 the same with VDPBF16PS where the machine has it, else the float32 peak (bfloat16 is then computed in float32).
 * Each product runs several rounds; the table gives the median and the best. "oneDNN" is the same product with
 * WEFT_MATMUL=onednn. The second table is decoding: one row times weights beyond the cache, against plain reading.
 */
#include "op/op.h"
#include "op/dnn.h"
#include "op/simd.h"
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { ROUNDS = 15, SUMS = 12, SPIN = 400000 };

/* ---- peaks: GFLOP/s of one thread's loop are summed by timing all threads together ---- */

#define PEAK_LOOP(name, attribute, bytes)                                                                                      \
    typedef float name##_vec __attribute__((vector_size(bytes)));                                                              \
    attribute static double name(int spin) {                                                                                   \
        name##_vec x = {0}, y = {0}, a0 = {0};                                                                                 \
        x += 0.5f, y += (float)spin; /* sums that differ, or the compiler would keep one of them */                            \
        name##_vec a1 = a0 + 1, a2 = a0 + 2, a3 = a0 + 3, a4 = a0 + 4, a5 = a0 + 5, a6 = a0 + 6, a7 = a0 + 7, a8 = a0 + 8,     \
                   a9 = a0 + 9, a10 = a0 + 10, a11 = a0 + 11;                                                                  \
        for (int i = 0; i < spin; i++) {                                                                                       \
            a0 = a0 * x + y, a1 = a1 * x + y, a2 = a2 * x + y, a3 = a3 * x + y, a4 = a4 * x + y, a5 = a5 * x + y;              \
            a6 = a6 * x + y, a7 = a7 * x + y, a8 = a8 * x + y, a9 = a9 * x + y, a10 = a10 * x + y, a11 = a11 * x + y;          \
        }                                                                                                                      \
        a0 = a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9 + a10 + a11;                                                      \
        return (double)a0[0] * 1e-30 + 2.0 * SUMS * (bytes) / 4 * spin;                                                        \
    }
#define FAST __attribute__((noinline, optimize("O2", "fp-contract=fast")))
PEAK_LOOP(peak_generic, FAST, 16)
#if defined(__x86_64__)
PEAK_LOOP(peak_avx2, FAST __attribute__((target("avx2,fma"))), 32)
PEAK_LOOP(peak_avx512, FAST __attribute__((target("avx512f"))), 64)

FAST __attribute__((target("avx512f,avx512bf16"))) static double peak_bf16(int spin) {
    __m512 a[SUMS], one = _mm512_set1_ps(1);
    __m512bh x = _mm512_cvtne2ps_pbh(one, one);
#pragma GCC unroll 12
    for (int j = 0; j < SUMS; j++) a[j] = _mm512_set1_ps((float)j);
    for (int i = 0; i < spin; i++) {
#pragma GCC unroll 12
        for (int j = 0; j < SUMS; j++) a[j] = _mm512_dpbf16_ps(a[j], x, x);
    }
#pragma GCC unroll 12
    for (int j = 1; j < SUMS; j++) a[0] = _mm512_add_ps(a[0], a[j]);
    return (double)_mm512_reduce_add_ps(a[0]) * 1e-30 + 4.0 * SUMS * 16 * spin;
}
#endif

/* The best of several rounds on all threads, in FLOP/s. */
static double peak_of(double (*loop)(int)) {
    double best = 0;
    for (int r = 0; r < 12; r++) {
        double flops = 0, t = wf_seconds();
#pragma omp parallel num_threads(wf_threads()) reduction(+ : flops)
        flops += loop(SPIN);
        t = wf_seconds() - t;
        if (flops / t > best) best = flops / t;
    }
    return best;
}

static double peak_float32(void) {
#if defined(__x86_64__)
    if (wf_isa() >= WF_ISA_AVX512) return peak_of(peak_avx512);
    if (wf_isa() >= WF_ISA_AVX2) return peak_of(peak_avx2);
#endif
    return peak_of(peak_generic);
}

static double peak_bfloat16(double float32) {
#if defined(__x86_64__)
    if (wf_dnn_bf16_native()) return peak_of(peak_bf16);
#endif
    return float32;
}

/* Bytes a second of reading 256 MB on all threads. */
static double read_bandwidth(void) {
    size_t n = (size_t)64 << 20;
    float *p = wf_map_pages(n * sizeof *p);
    double best = 0;
    if (!p) return 0;
    for (int r = 0; r < 6; r++) {
        double t = wf_seconds();
        float sum = 0;
#pragma omp parallel for schedule(static) num_threads(wf_threads()) reduction(+ : sum)
        for (size_t b = 0; b < n / 4096; b++) {
            float s[64] = {0};
            for (size_t i = 0; i < 4096; i += 64)
                for (int j = 0; j < 64; j++) s[j] += p[b * 4096 + i + (size_t)j];
            for (int j = 0; j < 64; j++) sum += s[j];
        }
        t = wf_seconds() - t;
        if (sum == 0 && (double)n * 4 / t > best) best = (double)n * 4 / t;
    }
    wf_unmap_pages(p, n * sizeof *p);
    return best;
}

/* ---- products ---- */

typedef struct timing {
    double median, best;
} timing;

static int by_size(const void *a, const void *b) {
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static wf_tensor *numbers(wf_dtype d, int64_t rows, int64_t cols) {
    wf_tensor *t = wf_tensor_new(d, WF_SHAPE(rows, cols));
    if (!t) return NULL;
    for (int64_t i = 0; i < rows * cols; i++) {
        float f = (float)(i * 7919 % 127) / 127 - 0.5f;
        if (d == WF_BF16)
            ((uint16_t *)t->data)[i] = wf_f32_to_bf16(f);
        else
            ((float *)t->data)[i] = f;
    }
    return t;
}

/* Seconds of C [m,n] = op(A) op(B). A median of 0 means failure; the message says why. */
static timing time_product(int64_t m, int64_t n, int64_t k, bool ta, bool tb, wf_dtype d) {
    timing r = {0, 0};
    wf_graph *g = wf_graph_open();
    wf_tensor *a = ta ? numbers(d, k, m) : numbers(d, m, k), *b = tb ? numbers(d, n, k) : numbers(d, k, n);
    wf_node *y = a && b ? wf_matmul(g, wf_leaf(g, a, "a"), wf_leaf(g, b, "b"), ta, tb) : NULL;
    wf_plan *p = y ? wf_plan_new(g, &y, 1, NULL, 0, NULL) : NULL;
    double t[ROUNDS];
    bool ok = p && wf_plan_run(p) == WF_OK;
    for (int i = 0; i < ROUNDS && ok; i++) {
        t[i] = wf_seconds();
        ok = wf_plan_run(p) == WF_OK;
        t[i] = wf_seconds() - t[i];
    }
    if (ok) {
        qsort(t, ROUNDS, sizeof *t, by_size);
        r = (timing){t[ROUNDS / 2], t[0]};
    }
    wf_plan_free(p);
    wf_graph_free(g);
    wf_tensor_free(a);
    wf_tensor_free(b);
    return r;
}

typedef struct shape {
    int64_t m, n, k;
    bool ta, tb;
    const char *what;
    double want; /* share of peak that float32 must reach; 0: none */
} shape;

static const shape shapes[] = {
    {1024, 1024, 1024, false, false, "square", 0.85},          {4096, 1536, 384, false, false, "width to hidden", 0.85},
    {4096, 1536, 384, false, true, "linear D->F", 0},          {4096, 384, 1536, false, true, "linear F->D", 0},
    {4096, 384, 1536, false, false, "gradient of x, D->F", 0}, {4096, 1536, 384, false, false, "gradient of x, F->D", 0},
    {384, 1536, 4096, true, false, "gradient of w, F->D", 0},  {1536, 384, 4096, true, false, "gradient of w, D->F", 0},
    {384, 384, 4096, true, false, "gradient of w, D->D", 0},   {4096, 384, 384, false, true, "linear D->D", 0},
    {4096, 1152, 384, false, true, "linear D->3D", 0},         {4096, 256, 384, false, true, "bytes' logits", 0},
};

static void product_table(wf_dtype d, double peak, double want_bf16) {
    printf("%-22s %-24s %9s %8s %6s", wf_dtype_name(d), "[m,k]x[k,n]", "GFLOP/s", "of peak", "best");
    printf(d == WF_F32 ? " %8s %6s\n" : "\n", "oneDNN", "best");
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const shape *s = &shapes[i];
        double flops = 2.0 * (double)s->m * (double)s->n * (double)s->k,
               want = d == WF_F32 || s->want == 0 ? s->want : want_bf16;
        timing own = time_product(s->m, s->n, s->k, s->ta, s->tb, d);
        if (own.median == 0) {
            printf("%-22s failed: %s\n", s->what, wf_message());
            continue;
        }
        char text[64];
        snprintf(text, sizeof text, "[%d,%d]%s [%d,%d]%s", (int)(s->ta ? s->k : s->m), (int)(s->ta ? s->m : s->k),
                 s->ta ? "'" : "", (int)(s->tb ? s->n : s->k), (int)(s->tb ? s->k : s->n), s->tb ? "'" : "");
        printf("%-22s %-24s %9.1f %7.1f%% %5.1f%%", s->what, text, flops / own.median * 1e-9, 100 * flops / own.median / peak,
               100 * flops / own.best / peak);
        if (d == WF_F32) {
            setenv("WEFT_MATMUL", "onednn", 1);
            timing other = time_product(s->m, s->n, s->k, s->ta, s->tb, d);
            unsetenv("WEFT_MATMUL");
            if (other.median > 0)
                printf(" %7.1f%% %5.1f%%", 100 * flops / other.median / peak, 100 * flops / other.best / peak);
        }
        printf(want > 0 ? "   must reach %.0f%%\n" : "\n", 100 * want);
    }
    printf("\n");
}

static void decode_table(double bandwidth) {
    static const int64_t sizes[][2] = {{16384, 2048}, {1536, 384}, {384, 1536}};
    printf("%-22s %-24s %9s %8s %9s\n", "decoding, 1 row", "weights [O,I]", "GB/s", "of read", "us");
    for (int i = 0; i < 3; i++)
        for (int half = 0; half < 2; half++) {
            int64_t o = sizes[i][0], k = sizes[i][1];
            timing t = time_product(1, o, k, false, true, half ? WF_BF16 : WF_F32);
            double bytes = (double)o * (double)k * (half ? 2 : 4);
            if (t.median == 0) continue;
            printf("%-22s [%d,%d]%*s %9.1f %7.1f%% %9.1f%s\n", half ? "bfloat16" : "float32", (int)o, (int)k,
                   o > 9999 ? 12 : 14, "", bytes / t.median * 1e-9, 100 * bytes / t.median / bandwidth, t.median * 1e6,
                   bytes < 16e6 ? "  (in cache)" : "");
        }
}

int main(void) {
    double narrow = peak_float32(), half = peak_bfloat16(narrow), bandwidth = read_bandwidth();
    printf("%d threads, %s; multiply-add peak %.1f GFLOP/s float32, %.1f bfloat16 (%s); reading %.1f GB/s\n\n", wf_threads(),
           wf_isa_name(wf_isa()), narrow * 1e-9, half * 1e-9,
           wf_dnn_bf16_native() ? "VDPBF16PS" : "no bfloat16 instructions: computed in float32, so float32's peak",
           bandwidth * 1e-9);
    product_table(WF_F32, narrow, 0);
    product_table(WF_BF16, half, 0.70);
    decode_table(bandwidth);
    return 0;
}
