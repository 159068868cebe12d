/* gemv.c: products with a few rows or columns (gemv.h): who computes what, and the ends around the kernels.
 *
 * A task is one item of the batch and a block of outputs. Threads take contiguous ranges of tasks, so that each streams its
 * own part of the weights; more than 4 rows of x go over a block again while it is in the cache.
 */
#include "op/gemv.h"
#include "op/simd.h"
#include <omp.h>
#include <string.h>

enum { ROWS_MAX = 8, DOT_BLOCK = 32, SWEEP_MIN = 64, SWEEP_MAX = 512, WORTH_THREADS = 1 << 16, DOT_MIN = 16 };

extern const wf_gemv_kernels wf_gemv_kernels_generic;
#if defined(__x86_64__)
extern const wf_gemv_kernels wf_gemv_kernels_avx2, wf_gemv_kernels_avx512, wf_gemv_kernels_avx512bf16;
#endif

static const wf_gemv_kernels *best(void) {
    switch (wf_isa()) {
#if defined(__x86_64__)
    case WF_ISA_AVX512BF16: return &wf_gemv_kernels_avx512bf16;
    case WF_ISA_AVX512: return &wf_gemv_kernels_avx512;
    case WF_ISA_AVX2: return &wf_gemv_kernels_avx2;
#endif
    default: return &wf_gemv_kernels_generic;
    }
}

/* x and w as the kernels name them, whichever operand they are. */
typedef struct gemv_view {
    wf_dtype x_type, w_type;
    int64_t x_row, x_k, w_row, w_k; /* strides; w_row: from output to output */
} gemv_view;

static gemv_view view_of(const wf_product *p, bool swapped) {
    if (swapped) return (gemv_view){p->b_type, p->a_type, p->b_cs, p->b_rs, p->a_rs, p->a_cs};
    return (gemv_view){p->a_type, p->b_type, p->a_rs, p->a_cs, p->b_cs, p->b_rs};
}

static bool suits(const wf_product *p, bool swapped) {
    gemv_view v = view_of(p, swapped);
    int64_t rows = swapped ? p->n : p->m;
    if (rows > ROWS_MAX) return false;
    if (p->c_type == WF_I32) return !swapped && v.w_k == 1 && v.x_k == 1 && v.w_type == WF_I8;
    return (v.w_k == 1 && p->k >= DOT_MIN) || (v.w_row == 1 && rows <= WF_GEMV_ROWS);
}

bool wf_gemv_plan_make(wf_gemv_plan *plan, const wf_product *p, int threads) {
    bool direct = suits(p, false);
    if (!direct && !suits(p, true)) return false;
    memset(plan, 0, sizeof *plan);
    plan->product = *p;
    plan->swapped = !direct;
    plan->rows = direct ? p->m : p->n;
    plan->outs = direct ? p->n : p->m;
    gemv_view v = view_of(p, plan->swapped);
    plan->dots = v.w_k == 1 && (p->k >= DOT_MIN || v.w_row != 1);
    plan->block = DOT_BLOCK;
    if (!plan->dots) { /* long rows of w read best, but every thread needs some: the sums do not depend on the block */
        int64_t share = plan->outs * p->batch / (2 * threads) / SWEEP_MIN * SWEEP_MIN;
        plan->block = share < SWEEP_MIN ? SWEEP_MIN : share > SWEEP_MAX ? SWEEP_MAX : share;
    }
    bool dense = p->c_type == WF_I32 || (v.x_type == WF_F32 && v.x_k == 1 && !(plan->dots && v.w_type == WF_BF16));
    plan->x_bytes = dense ? 0 : (size_t)(p->batch * plan->rows * p->k) * sizeof(float);
    plan->scratch = plan->x_bytes;
    int64_t tasks = p->batch * ((plan->outs + plan->block - 1) / plan->block);
    plan->threads = threads > tasks ? (int)(tasks > 0 ? tasks : 1) : threads;
    if (p->batch * plan->outs * p->k < WORTH_THREADS) plan->threads = 1;
    return true;
}

/* x of the whole batch as dense float32 [batch, rows, k], in the order that the kernel wants. */
static void widen_x(const wf_gemv_plan *plan, const gemv_view *v, const void *a, const void *b, float *x) {
    const wf_product *p = &plan->product;
    for (int64_t item = 0; item < p->batch; item++) {
        int64_t ao, bo;
        wf_product_item(p, item, &ao, &bo);
        int64_t at = plan->swapped ? bo : ao;
        for (int64_t i = 0; i < plan->rows; i++, x += p->k) {
            for (int64_t q = 0; q < p->k; q++) {
                int64_t s = at + i * v->x_row + q * v->x_k;
                x[q] = v->x_type == WF_F32 ? ((const float *)(plan->swapped ? b : a))[s]
                                           : wf_bf16_to_f32(((const uint16_t *)(plan->swapped ? b : a))[s]);
            }
            if (plan->dots && v->w_type == WF_BF16) best()->pair(x, p->k);
        }
    }
}

/* One task's sums, [rows, n] with rows apart by plan->block, into C. */
static void put(const wf_gemv_plan *plan, const void *y, int64_t item, int64_t o0, int64_t n, const void *bias, void *c) {
    const wf_product *p = &plan->product;
    int64_t row = plan->swapped ? 1 : p->n, col = plan->swapped ? p->n : 1, base = item * p->m * p->n + o0 * col;
    for (int64_t i = 0; i < plan->rows; i++)
        for (int64_t o = 0; o < n; o++) {
            int64_t at = base + i * row + o * col;
            if (p->c_type == WF_I32) {
                ((int32_t *)c)[at] = ((const int32_t *)y)[i * plan->block + o];
                continue;
            }
            float f = ((const float *)y)[i * plan->block + o];
            int64_t j = plan->swapped ? i : o0 + o;
            if (bias) f += p->bias_type == WF_F32 ? ((const float *)bias)[j] : wf_bf16_to_f32(((const uint16_t *)bias)[j]);
            if (p->c_type == WF_F32)
                ((float *)c)[at] = f;
            else
                ((uint16_t *)c)[at] = wf_f32_to_bf16(f);
        }
}

static void run_task(const wf_gemv_plan *plan, const gemv_view *v, int64_t task, const void *a, const void *b,
                     const float *dense_x, const void *bias, void *c) {
    const wf_product *p = &plan->product;
    const wf_gemv_kernels *kern = best();
    int64_t blocks = (plan->outs + plan->block - 1) / plan->block, item = task / blocks, o0 = task % blocks * plan->block;
    int64_t n = plan->outs - o0 < plan->block ? plan->outs - o0 : plan->block, ao, bo;
    wf_product_item(p, item, &ao, &bo);
    const char *w = plan->swapped ? a : b;
    w += ((plan->swapped ? ao : bo) + o0 * v->w_row) * (int64_t)wf_dtype_size(v->w_type);
    const char *x = plan->swapped ? b : a;
    x += (plan->swapped ? bo : ao) * (int64_t)wf_dtype_size(v->x_type);
    int64_t ldx = v->x_row;
    if (dense_x) {
        x = (const char *)(dense_x + item * plan->rows * p->k);
        ldx = p->k;
    }
    union {
        float f[ROWS_MAX * SWEEP_MAX];
        int32_t i[ROWS_MAX * SWEEP_MAX];
    } y;
    for (int64_t i = 0; i < plan->rows; i += WF_GEMV_ROWS) {
        int rows = (int)(plan->rows - i < WF_GEMV_ROWS ? plan->rows - i : WF_GEMV_ROWS);
        if (p->c_type == WF_I32)
            kern->dot_i8(y.i + i * plan->block, plan->block, x + i * ldx, v->x_type == WF_U8, ldx, rows, (const int8_t *)w,
                         v->w_row, n, p->k);
        else if (plan->dots)
            kern->dot(y.f + i * plan->block, plan->block, (const float *)x + i * ldx, ldx, rows, w, v->w_type, v->w_row, n,
                      p->k);
        else
            kern->sweep(y.f + i * plan->block, plan->block, (const float *)x + i * ldx, ldx, rows, w, v->w_type, v->w_k, n,
                        p->k);
    }
    put(plan, &y, item, o0, n, bias, c);
}

void wf_gemv_run(const wf_gemv_plan *plan, int threads, const void *a, const void *b, const void *bias, void *c,
                 void *scratch) {
    const wf_product *p = &plan->product;
    if (plan->rows == 0 || plan->outs == 0 || p->batch == 0) return;
    gemv_view v = view_of(p, plan->swapped);
    float *dense_x = plan->x_bytes ? scratch : NULL;
    if (dense_x) widen_x(plan, &v, a, b, dense_x);
    int64_t tasks = p->batch * ((plan->outs + plan->block - 1) / plan->block);
    if (threads > plan->threads) threads = plan->threads;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t task = 0; task < tasks; task++) run_task(plan, &v, task, a, b, dense_x, p->bias ? bias : NULL, c);
}
