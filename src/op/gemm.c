/* gemm.c: blocks, threads and buffers of the engine's own matrix product (gemm.h).
 *
 * A product runs in stages: kc steps of k by nc columns. In each stage the threads pack B together, then take tasks (mc rows,
 * a range of columns) one by one: pack the rows of A into a buffer of their own and run the micro-kernel over the task's
 * tiles. One barrier a stage: B is packed into two buffers in turn. Small items of a batch are instead taken whole.
 *
 * int8: the sum of 512 products of an unsigned and a signed byte stays below 2^24, so float32 holds it exactly; every stage
 * is then added to C in int32. (oneDNN's int8 products saturate in int16 on machines without VNNI.)
 */
#include "op/gemm.h"
#include "op/simd.h"
#include <omp.h>
#include <stdatomic.h>
#include <string.h>

enum { MC_MAX = 192, MC_MIN = 48, NC_MAX = 3072, NC_ITEM = 1024, MS_BF16 = 1024 };

extern const wf_gemm_kernels wf_gemm_kernels_generic;
#if defined(__x86_64__)
extern const wf_gemm_kernels wf_gemm_kernels_avx2, wf_gemm_kernels_avx512, wf_gemm_kernels_avx512bf16;
#endif

const wf_gemm_kernels *wf_gemm_best(void) {
    switch (wf_isa()) {
#if defined(__x86_64__)
    case WF_ISA_AVX512BF16: return &wf_gemm_kernels_avx512bf16;
    case WF_ISA_AVX512: return &wf_gemm_kernels_avx512;
    case WF_ISA_AVX2: return &wf_gemm_kernels_avx2;
#endif
    default: return &wf_gemm_kernels_generic;
    }
}

void wf_product_item(const wf_product *p, int64_t index, int64_t *a, int64_t *b) {
    *a = *b = 0;
    for (int x = p->n_axes - 1; x >= 0; x--) {
        int64_t at = index % p->dim[x];
        index /= p->dim[x];
        *a += at * p->a_bs[x];
        *b += at * p->b_bs[x];
    }
}

/* ---- planning ---- */

static int64_t min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static int64_t max64(int64_t a, int64_t b) {
    return a > b ? a : b;
}
static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
static int64_t round_up(int64_t a, int64_t to) {
    return ceil_div(a, to) * to;
}
/* The largest even cut of n that stays within `most`, in multiples of `unit`. */
static int64_t even_cut(int64_t n, int64_t most, int64_t unit) {
    if (n <= 0) return unit;
    return round_up(ceil_div(n, ceil_div(n, most)), unit);
}

/* A stage's tasks: at least four a thread, so that a thread that is held up is helped out by the others. */
static void cut_tasks(wf_gemm_plan *plan, const wf_gemm_kernels *kern, int team) {
    int64_t m = max64(plan->ms, 1), want = team > 1 ? 4 * team : 1;
    int64_t blocks = ceil_div(m, MC_MAX);
    if (team > 1) blocks = round_up(max64(blocks, min64(want, ceil_div(m, MC_MIN))), min64(team, ceil_div(m, MC_MIN)));
    plan->mc = round_up(ceil_div(m, blocks), kern->mr);
    int64_t panels = ceil_div(plan->nc, kern->nr);
    plan->split = max64(1, min64(ceil_div(want, ceil_div(m, plan->mc)), panels / 4));
}

void wf_gemm_plan_make(wf_gemm_plan *plan, const wf_product *p, int threads) {
    const wf_gemm_kernels *kern = wf_gemm_best();
    double item = 2.0 * (double)p->m * (double)p->n * (double)p->k, all = item * (double)p->batch;
    memset(plan, 0, sizeof *plan);
    plan->product = *p;
    if (all < 1e6) threads = 1; /* not worth waking anybody */
    plan->by_item = threads > 1 && p->batch > 1 && (p->batch >= 4 * threads || item < 8e6);
    if (plan->by_item && threads > p->batch) threads = (int)p->batch;
    plan->threads = threads;
    int team = plan->by_item ? 1 : threads;
    plan->kc = even_cut(p->k, kern->kc, 8);
    plan->nc = even_cut(p->n, plan->by_item ? NC_ITEM : NC_MAX, kern->nr);
    bool part = p->c_type == WF_BF16 && p->k > plan->kc;
    plan->ms = part ? even_cut(p->m, MS_BF16, kern->mr) : max64(p->m, 1);
    cut_tasks(plan, kern, team);
    size_t each = sizeof(float), slack = 64;
    plan->a_bytes = (size_t)round_up(plan->mc * plan->kc * (int64_t)each + (int64_t)slack, 64);
    plan->b_bytes = (size_t)round_up(plan->nc * plan->kc * (int64_t)each + (int64_t)slack, 64);
    plan->part_bytes = part ? (size_t)round_up(plan->ms * plan->nc * (int64_t)each, 64) : 0;
    plan->bias_bytes = p->bias ? (size_t)round_up(p->n * (int64_t)each, 64) : 0;
    size_t stages = team > 1 ? 2 : 1, private = plan->by_item ? (size_t)threads : 1;
    plan->scratch = plan->bias_bytes + (size_t)threads * plan->a_bytes + private * (stages * plan->b_bytes + plan->part_bytes);
}

/* ---- execution ---- */

/* The threads that work on one item together; a team of one needs no barrier. */
typedef struct gemm_team {
    int size;
    atomic_int next[2]; /* the next task of even and odd stages */
} gemm_team;

typedef struct gemm_item {
    const wf_gemm_plan *plan;
    const wf_gemm_kernels *kern;
    const char *a, *b;
    char *c;
    const float *bias;
    char *pack_a, *pack_b; /* this thread's A block; the team's one or two B buffers */
    float *part;           /* the team's sums, for a bfloat16 result */
    int tid;
    int64_t stage;
} gemm_item;

typedef struct gemm_stage {
    int64_t i0, rows, j0, cols, p0, depth; /* this part of C and of k */
    const float *b;
} gemm_stage;

static void run_task(const gemm_item *it, const gemm_stage *st, int64_t task) {
    const wf_gemm_plan *plan = it->plan;
    const wf_product *p = &plan->product;
    int mr = it->kern->mr, nr = it->kern->nr;
    int64_t blocks = ceil_div(st->rows, plan->mc), panels = ceil_div(st->cols, nr);
    int64_t range = task / blocks, i0 = task % blocks * plan->mc, rows = min64(plan->mc, st->rows - i0);
    int64_t from = panels * range / plan->split, to = panels * (range + 1) / plan->split;
    if (from == to) return;
    const char *a = it->a + ((st->i0 + i0) * p->a_rs + st->p0 * p->a_cs) * (int64_t)wf_dtype_size(p->a_type);
    float *pack_a = (float *)it->pack_a;
    it->kern->pack(pack_a, mr, a, p->a_type, p->a_rs, p->a_cs, rows, st->depth);
    bool first = st->p0 == 0, last = st->p0 + st->depth >= p->k;
    wf_gemm_tile t = {.k = st->depth, .ld_part = p->n, .ldc = p->n, .type = p->c_type};
    size_t c_size = wf_dtype_size(p->c_type);
    for (int64_t q = from; q < to; q++) {
        int64_t j = q * nr;
        t.cols = (int)min64(nr, st->cols - j);
        t.b = st->b + j * st->depth;
        t.bias = last && it->bias ? it->bias + st->j0 + j : NULL;
        for (int64_t i = 0; i < rows; i += mr) {
            t.rows = (int)min64(mr, rows - i);
            t.a = pack_a + i * st->depth;
            t.c = it->c + (size_t)((st->i0 + i0 + i) * p->n + st->j0 + j) * c_size;
            t.part = first ? NULL : t.c;
            if (it->part) { /* float32 sums apart from C until the last stage */
                float *part = it->part + (i0 + i) * plan->nc + j;
                t.part = first ? NULL : part;
                t.ld_part = plan->nc;
                if (!last) t.c = part;
                t.ldc = last ? p->n : plan->nc;
                t.type = last ? p->c_type : WF_F32;
            }
            it->kern->tile(&t);
        }
    }
}

static void run_stage(gemm_item *it, gemm_team *team, gemm_stage *st) {
    const wf_product *p = &it->plan->product;
    int nr = it->kern->nr, turn = (int)(it->stage++ & 1);
    float *pack_b = (float *)(it->pack_b + (team->size > 1 ? (size_t)turn * it->plan->b_bytes : 0));
    int64_t panels = ceil_div(st->cols, nr), from = panels * it->tid / team->size * nr;
    int64_t to = min64(panels * (it->tid + 1) / team->size * nr, st->cols);
    const char *b = it->b + (st->p0 * p->b_rs + (st->j0 + from) * p->b_cs) * (int64_t)wf_dtype_size(p->b_type);
    if (to > from) it->kern->pack(pack_b + from * st->depth, nr, b, p->b_type, p->b_cs, p->b_rs, to - from, st->depth);
    st->b = pack_b;
    /* Everybody left the stage before last at the barrier of the last one, so its counter is free. */
    if (it->tid == 0) atomic_store(&team->next[turn], 0);
    if (team->size > 1) {
#pragma omp barrier
    }
    int tasks = (int)(ceil_div(st->rows, it->plan->mc) * it->plan->split);
    for (int t; (t = atomic_fetch_add(&team->next[turn], 1)) < tasks;) run_task(it, st, t);
}

static void run_item(gemm_item *it, gemm_team *team) {
    const wf_gemm_plan *plan = it->plan;
    const wf_product *p = &plan->product;
    gemm_stage st;
    for (st.i0 = 0; st.i0 < p->m; st.i0 += plan->ms)
        for (st.j0 = 0; st.j0 < p->n; st.j0 += plan->nc)
            for (st.p0 = 0; st.p0 == 0 || st.p0 < p->k; st.p0 += plan->kc) {
                st.rows = min64(plan->ms, p->m - st.i0);
                st.cols = min64(plan->nc, p->n - st.j0);
                st.depth = min64(plan->kc, p->k - st.p0);
                run_stage(it, team, &st);
            }
}

static void point_to(gemm_item *it, const void *a, const void *b, void *c, int64_t index) {
    const wf_product *p = &it->plan->product;
    int64_t ao, bo;
    wf_product_item(p, index, &ao, &bo);
    it->a = (const char *)a + ao * (int64_t)wf_dtype_size(p->a_type);
    it->b = (const char *)b + bo * (int64_t)wf_dtype_size(p->b_type);
    it->c = (char *)c + index * p->m * p->n * (int64_t)wf_dtype_size(p->c_type);
}

void wf_gemm_run(const wf_gemm_plan *plan, int threads, const void *a, const void *b, const void *bias, void *c,
                 void *scratch) {
    const wf_product *p = &plan->product;
    if (p->m == 0 || p->n == 0 || p->batch == 0) return;
    gemm_item base = {.plan = plan, .kern = wf_gemm_best()};
    char *at = scratch;
    if (p->bias) {
        base.kern->to_f32((float *)at, bias, p->bias_type, p->n);
        base.bias = (float *)at;
        at += plan->bias_bytes;
    }
    char *pack_a = at, *shared = at + (size_t)plan->threads * plan->a_bytes;
    size_t private = plan->b_bytes + plan->part_bytes;
    gemm_team all = {.size = 1};
    atomic_llong item = 0;
    if (threads > plan->threads) threads = plan->threads;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        gemm_item it = base;
        gemm_team alone = {.size = 1};
        int tid = omp_get_thread_num(), size = omp_get_num_threads();
        it.pack_a = pack_a + (size_t)tid * plan->a_bytes;
        if (plan->by_item) {
            it.pack_b = shared + (size_t)tid * private;
            it.part = plan->part_bytes ? (float *)(it.pack_b + plan->b_bytes) : NULL;
            for (int64_t i; (i = atomic_fetch_add(&item, 1)) < p->batch;) {
                point_to(&it, a, b, c, i);
                run_item(&it, &alone);
            }
        } else {
#pragma omp single
            all.size = size;
            it.tid = tid;
            it.pack_b = shared;
            it.part = plan->part_bytes ? (float *)(shared + (plan->threads > 1 ? 2 : 1) * plan->b_bytes) : NULL;
            for (int64_t i = 0; i < p->batch; i++) {
                point_to(&it, a, b, c, i);
                run_item(&it, &all);
            }
        }
    }
}
