/* rows.c: running row programs: blocks of rows through the program's instructions, threads, sums over rows.
 *
 * The space is outer axes x inner axis x columns. A block is up to block_rows rows along the inner axis (it never crosses its end,
 * so every operand has one pitch) times block_cols columns. Without sums over rows blocks are independent and threads take equal
 * ranges of them. With sums, a task is one segment of the rows that are added up, for one kept row and one range of columns; the
 * cut into segments depends on the shape alone and partial sums are added in their order, so results are the same for any
 * number of threads.
 */
#include "op/rows_run.h"
#include "op/simd.h"

#include <string.h>

enum {
    SMALL = 16 * 1024,       /* elements below which one thread does it all */
    GROUP = 16,              /* blocks of rows that go through a piece of the columns together */
    WOVEN = 2,               /* the same of rows whose axis changed places with the one before */
    SEGMENTS = 64,           /* most segments in all */
    SEGMENT_ELEMENTS = 8192, /* fewest elements of a segment */
    SEGMENT_BYTES = 4 << 20, /* most memory for partial sums */
};

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* Tasks of a program with sums: kept rows x pieces of columns x segments. Axes that are summed come last, so the inner one is. */
static void cut_segments(wf_run_shape *s) {
    int64_t summed_outer = 1;
    s->kept = 1;
    for (int a = 0; a < s->n_outer; a++) *(a < s->p->n_kept ? &s->kept : &summed_outer) *= s->p->space.dim[a];
    s->summed_blocks = summed_outer * s->blocks_inner;
    s->accum_bytes = 0;
    for (int i = 0; i < s->p->n_instr; i++)
        if (wf_accumulates(s->p->instr[i].code)) s->accum_bytes += wf_run_sum_bytes(s, &s->p->instr[i]);
    int64_t wanted = most(1, SEGMENTS / most(1, s->kept * s->pieces));
    int64_t worth = most(1, s->summed_blocks * s->rows * s->cols / SEGMENT_ELEMENTS);
    int64_t room = most(1, SEGMENT_BYTES / (int64_t)(s->accum_bytes * (size_t)(s->kept * s->pieces) + 1));
    s->segments = least(least(wanted, worth), least(room, s->summed_blocks));
    s->tasks = s->kept * s->pieces * s->segments;
}

static wf_run_shape describe(const wf_rowprog *p) {
    wf_run_shape s = {.p = p, .rank = p->space.rank, .inner = 1, .outer = 1};
    s.n_outer = s.rank > 2 ? s.rank - 2 : 0;
    s.n = p->space.dim[s.rank - 1];
    if (s.rank > 1) s.inner = p->space.dim[s.rank - 2];
    for (int a = 0; a < s.n_outer; a++) s.outer *= p->space.dim[a];
    s.rows = least(p->block_rows, s.inner);
    s.cols = p->block_cols;
    s.pieces = ceil_div(s.n, s.cols);
    s.blocks_inner = ceil_div(s.inner, s.rows);
    s.size = wf_dtype_size(p->compute);
    s.sums = p->n_accum > 0;
    if (s.sums)
        cut_segments(&s);
    else
        s.tasks = s.outer * s.blocks_inner * s.pieces;
    s.bound_bytes = wf_run_bound_bytes(p);
    s.register_bytes = (size_t)p->n_full * wf_run_pad((size_t)(s.rows * s.cols) * s.size) +
                       (size_t)p->n_narrow * wf_run_pad((size_t)s.rows * 8);
    s.tile = p->tile_cols ? p->tile_cols : s.cols;
    s.total_bytes = s.tile < s.cols ? (size_t)p->n_instr * (size_t)s.rows * sizeof(double) : 0;
    s.thread_bytes = wf_run_pad(s.bound_bytes + s.register_bytes + wf_run_pad(s.total_bytes) + s.accum_bytes) + 64;
    return s;
}

static bool is_small(const wf_run_shape *s) {
    return s->outer * s->inner * s->n < SMALL;
}

static size_t partial_bytes(const wf_run_shape *s) {
    return s->sums && s->segments > 1 ? wf_run_pad((size_t)s->tasks * s->accum_bytes) : 0;
}

size_t wf_rows_scratch(const void *program) {
    wf_rowprog *p = (wf_rowprog *)program;
    wf_run_shape s = describe(p);
    int64_t threads = is_small(&s) ? 1 : least(wf_threads(), s.tasks);
    p->extra[0] = threads;
    return partial_bytes(&s) + (size_t)threads * s.thread_bytes;
}

static void decode_outer(const wf_run_shape *s, int64_t index, int from, int to, wf_run_at *b) {
    for (int a = to - 1; a >= from; a--) {
        b->outer[a] = index % s->p->space.dim[a];
        index /= s->p->space.dim[a];
    }
}

static void place_rows(const wf_run_shape *s, int64_t inner_block, wf_run_at *b) {
    b->row = inner_block * s->rows;
    b->rows = least(s->rows, s->inner - b->row);
}

static void place_cols(const wf_run_shape *s, int64_t piece, wf_run_at *b) {
    b->col = piece * s->cols;
    b->width = least(s->cols, s->n - b->col);
}

/* Independent blocks [first, last). A few blocks of rows go through one piece of the columns before the next, so that what all rows
 * share stays in the cache; the same with rows of a woven axis, so that the memory between two rows is there when it is their turn. */
static void run_range(wf_run_thread *t, int64_t first, int64_t last) {
    const wf_run_shape *s = t->s;
    int far = s->p->woven ? s->n_outer - 1 : s->n_outer;
    const int64_t together = s->p->woven ? WOVEN : GROUP;
    int64_t parts = s->pieces * (far < s->n_outer ? s->p->space.dim[far] : 1), slab = s->blocks_inner * parts;
    for (int64_t i = first; i < last; i++) {
        wf_run_at b = {0};
        int64_t at = i % slab, group = at / (together * parts), rest = at % (together * parts);
        int64_t blocks = least(together, s->blocks_inner - group * together), part = rest / blocks;
        place_cols(s, part % s->pieces, &b);
        place_rows(s, group * together + rest % blocks, &b);
        decode_outer(s, i / slab, 0, far, &b);
        if (far < s->n_outer) b.outer[far] = part / s->pieces;
        wf_run_block(t, &b);
    }
}

/* ---- sums over rows ---- */

/* Add up one segment in t->accum. */
static void run_segment(wf_run_thread *t, int64_t task) {
    const wf_run_shape *s = t->s;
    int64_t segment = task % s->segments, piece = task / s->segments % s->pieces, kept = task / s->segments / s->pieces;
    int64_t first = s->summed_blocks * segment / s->segments, last = s->summed_blocks * (segment + 1) / s->segments;
    wf_run_at b = {0};
    place_cols(s, piece, &b);
    memset(t->accum, 0, s->accum_bytes);
    decode_outer(s, kept, 0, s->p->n_kept, &b);
    for (int64_t i = first; i < last; i++) {
        place_rows(s, i % s->blocks_inner, &b);
        decode_outer(s, i / s->blocks_inner, s->p->n_kept, s->n_outer, &b);
        wf_run_block(t, &b);
    }
}

static void store_sum(const wf_run_thread *t, const wf_row_mem *m, bool narrow, void *sum, const wf_run_at *b) {
    float number;
    wf_row_args a = {.d = wf_run_address(t, m, b), .s = {sum}, .rows = 1, .n = narrow ? 1 : b->width, .step = 1};
    if (narrow && t->s->p->compute == WF_F32) {
        number = (float)*(double *)sum;
        a.s[0] = &number;
    }
    t->k->store[m->dtype](&a);
}

/* x[0..n) of the first segment = the sum over all segments, in their order, in double. */
static void add_segments(const wf_run_shape *s, char *x, int64_t n, bool doubles) {
    enum { PART = 64 };
    for (int64_t from = 0; from < n; from += PART) {
        double sum[PART] = {0};
        int64_t m = least(PART, n - from);
        for (int64_t g = 0; g < s->segments; g++) {
            const char *y = x + (size_t)g * s->accum_bytes;
            for (int64_t j = 0; j < m; j++)
                sum[j] += doubles ? ((const double *)y)[from + j] : (double)((const float *)y)[from + j];
        }
        for (int64_t j = 0; j < m; j++) {
            if (doubles)
                ((double *)x)[from + j] = sum[j];
            else
                ((float *)x)[from + j] = (float)sum[j];
        }
    }
}

/* Segments of one kept row and piece (the first one's sums are at `partial`) into the result's memory. */
static void finish_sums(const wf_run_thread *t, char *partial, int64_t group) {
    const wf_run_shape *s = t->s;
    wf_run_at b = {0};
    place_cols(s, group % s->pieces, &b);
    decode_outer(s, group / s->pieces, 0, s->p->n_kept, &b);
    for (int i = 0; i < s->p->n_instr; i++) {
        const wf_row_instr *in = &s->p->instr[i];
        if (!wf_accumulates(in->code)) continue;
        bool narrow = in->dst_narrow;
        if (s->segments > 1) add_segments(s, partial, narrow ? 1 : b.width, narrow || s->p->compute == WF_F64);
        store_sum(t, &s->p->mem[in->dst.index], narrow, partial, &b);
        partial += wf_run_sum_bytes(s, in);
    }
}

static void run_tasks(wf_run_thread *t, char *partial, int64_t first, int64_t last) {
    const wf_run_shape *s = t->s;
    for (int64_t i = first; i < last; i++) {
        run_segment(t, i);
        if (s->segments > 1)
            memcpy(partial + (size_t)i * s->accum_bytes, t->accum, s->accum_bytes);
        else
            finish_sums(t, t->accum, i);
    }
}

/* ---- the run ---- */

static const wf_row_kernels *kernels(wf_dtype compute) {
    if (compute == WF_F64) return &wf_row_kernels_double;
#if defined(__x86_64__)
    switch (wf_isa()) {
    case WF_ISA_AVX2: return &wf_row_kernels_avx2;
    case WF_ISA_AVX512: return &wf_row_kernels_avx512;
    case WF_ISA_AVX512BF16: return &wf_row_kernels_avx512bf16;
    default: break;
    }
#endif
    return &wf_row_kernels_generic;
}

static wf_run_thread open_thread(const wf_run_shape *s, const wf_call *c, int64_t thread) {
    wf_run_thread t;
    char *own = (char *)c->scratch + partial_bytes(s) + (size_t)thread * s->thread_bytes;
    wf_run_open(&t, s, c, kernels(s->p->compute), own);
    return t;
}

static void run_part(const wf_run_shape *s, const wf_call *c, int64_t part, int64_t parts) {
    wf_run_thread t = open_thread(s, c, part);
    int64_t first = s->tasks * part / parts, last = s->tasks * (part + 1) / parts;
    if (first == last) return;
    if (s->sums)
        run_tasks(&t, c->scratch, first, last);
    else
        run_range(&t, first, last);
}

wf_status wf_run_rows(const wf_call *c) {
    const wf_rowprog *p = c->program;
    wf_run_shape s = describe(p);
    int64_t threads = least(most(1, p->extra[0]), wf_threads());
    if (threads == 1) {
        run_part(&s, c, 0, 1);
    } else {
#pragma omp parallel for schedule(static, 1) num_threads((int)threads)
        for (int64_t part = 0; part < threads; part++) run_part(&s, c, part, threads);
    }
    if (s.sums && s.segments > 1) {
        wf_run_thread t = open_thread(&s, c, 0);
        int64_t groups = s.kept * s.pieces;
#pragma omp parallel for schedule(static) num_threads((int)threads) if (threads > 1 && groups > 1)
        for (int64_t g = 0; g < groups; g++) finish_sums(&t, (char *)c->scratch + (size_t)(g * s.segments) * s.accum_bytes, g);
    }
    return WF_OK;
}
