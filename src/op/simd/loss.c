/* loss.c: row kernels of cross-entropy, compiled once per instruction set (op/simd.h, op/loss_rows.h).
 *
 * A row is read once, in blocks of 512 logits: block maximum, then the sum of e^(x - m) while the block is in the L1 cache. When
 * a block raises the maximum m, the sum so far is scaled down once. A block is summed in float32 over vector lanes, blocks in
 * float64, so rows of any length keep their accuracy.
 */
#include "op/loss_rows.h"
#include "op/simd.h"
#include "op/simd/rows_math.h"

enum { BLOCK = 512 };

/* Vector at entry i of n logits; past the end -inf, which adds nothing to a maximum or to a sum of exponentials. */
VEC vf load(const void *x, bool bf16, int64_t i, int64_t n) {
    float t[WF_LANES];
    if (i + WF_LANES <= n) {
        if (!bf16) return ld((const float *)x + i);
        vh h;
        memcpy(&h, (const uint16_t *)x + i, sizeof h);
        return from_bf16(h);
    }
    for (int k = 0; k < WF_LANES; k++) {
        uint32_t wide = bf16 && i + k < n ? (uint32_t)((const uint16_t *)x)[i + k] << 16 : 0;
        memcpy(&t[k], &wide, sizeof wide);
        if (!bf16 && i + k < n) t[k] = ((const float *)x)[i + k];
        if (i + k >= n) t[k] = -INFINITY;
    }
    return ld(t);
}

VEC void store(void *y, bool bf16, int64_t i, int64_t n, vf v) {
    int64_t m = n - i;
    if (!bf16) {
        if (m >= WF_LANES)
            st((float *)y + i, v);
        else
            st_n((float *)y + i, v, m);
        return;
    }
    vh h = to_bf16(v);
    memcpy((uint16_t *)y + i, &h, m >= WF_LANES ? sizeof h : (size_t)m * sizeof(uint16_t));
}

VEC float largest_of(const void *x, bool bf16, int64_t from, int64_t to) {
    vf a = splat(-INFINITY), b = a;
    int64_t i = from;
    for (; i + 2 * WF_LANES <= to; i += 2 * WF_LANES) {
        vf u = load(x, bf16, i, to), v = load(x, bf16, i + WF_LANES, to);
        a = sel(u > a, u, a);
        b = sel(v > b, v, b);
    }
    for (; i < to; i += WF_LANES) {
        vf u = load(x, bf16, i, to);
        a = sel(u > a, u, a);
    }
    a = sel(b > a, b, a);
    float m = a[0];
    for (int k = 1; k < WF_LANES; k++) m = a[k] > m ? a[k] : m;
    return m;
}

VEC double sum_exp(const void *x, bool bf16, int64_t from, int64_t to, float base) {
    vf s = {0};
    for (int64_t i = from; i < to; i += WF_LANES) s += vexp(load(x, bf16, i, to) - base);
    return sum_lanes(s);
}

VEC double sum_plain(const void *x, bool bf16, int64_t from, int64_t to) {
    vf s = {0};
    int64_t i = from;
    for (; i + WF_LANES <= to; i += WF_LANES) s += load(x, bf16, i, to);
    double total = sum_lanes(s);
    if (i < to) {
        vf rest = load(x, bf16, i, to);
        for (int64_t k = 0; k < to - i; k++) total += rest[k];
    }
    return total;
}

VEC double lse_of(const void *x, bool bf16, int64_t V, double *sum) {
    float m = -INFINITY;
    double s = 0, total = 0;
    for (int64_t j = 0; j < V; j += BLOCK) {
        int64_t end = V - j < BLOCK ? V : j + BLOCK;
        float top = largest_of(x, bf16, j, end);
        if (top > m) {
            s *= exp((double)m - (double)top);
            m = top;
        }
        s += sum_exp(x, bf16, j, end, m == -INFINITY ? 0 : m);
        if (sum) total += sum_plain(x, bf16, j, end);
    }
    if (sum) *sum = total;
    return (m == -INFINITY ? 0 : (double)m) + log(s);
}

VEC void gradient_of(void *dx, const void *x, bool bf16, int64_t V, float lse, float scale, float shift) {
    for (int64_t i = 0; i < V; i += WF_LANES) store(dx, bf16, i, V, scale * (vexp(load(x, bf16, i, V) - lse) - shift));
}

static double WF_ISA_NAME(lse)(const void *x, bool bf16, int64_t V, double *sum) {
    return bf16 ? lse_of(x, true, V, sum) : lse_of(x, false, V, sum);
}

static void WF_ISA_NAME(gradient)(void *dx, const void *x, bool bf16, int64_t V, float lse, float scale, float shift) {
    if (bf16)
        gradient_of(dx, x, true, V, lse, scale, shift);
    else
        gradient_of(dx, x, false, V, lse, scale, shift);
}

const wf_loss_rows WF_ISA_NAME(wf_loss_rows) = {WF_ISA_NAME(lse), WF_ISA_NAME(gradient)};
