/* rows.c: running row programs: blocks of rows through the program's instructions, threads, sums over rows.
 *
 * The space is outer axes x inner axis x columns. A block is up to block_rows rows along the inner axis (it never crosses its end,
 * so every operand has one pitch) times block_cols columns. Without sums over rows blocks are independent and threads take equal
 * ranges of them. With sums, a task is one segment of the rows that are added up, for one kept row and one range of columns; the
 * cut into segments depends on the shape alone and partial sums are added in their order, so results are the same for any
 * number of threads.
 */
#include "op/rows.h"
#include "op/rows_kernel.h"
#include "op/simd.h"

#include <string.h>

enum {
    SMALL = 16 * 1024,       /* elements below which one thread does it all */
    SEGMENTS = 64,           /* most segments in all */
    SEGMENT_ELEMENTS = 8192, /* fewest elements of a segment */
    SEGMENT_BYTES = 4 << 20, /* most memory for partial sums */
};

/* What is known before a run; derived from the program alone. */
typedef struct shape_of_run {
    const wf_rowprog *p;
    int rank, n_outer;          /* outer axes: all row axes but the inner one */
    int64_t n, inner, outer;    /* columns; size of the inner axis; product of the outer ones */
    int64_t rows, cols, pieces; /* block; pieces of columns */
    int64_t blocks_inner;       /* blocks along the inner axis */
    size_t size;                /* of a number in registers */
    /* with sums over rows */
    bool sums;
    int64_t kept, summed_blocks, segments, tasks;
    size_t accum_bytes; /* of one task */
    /* scratch of one thread */
    size_t arg_bytes, register_bytes, thread_bytes;
} shape_of_run;

static size_t pad(size_t b) {
    return (b + 63) & ~(size_t)63;
}
static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static bool is_accumulation(int code) {
    return code == WF_ROW_SUM_ROWS || code == WF_ROW_DOT_ROWS;
}
static bool is_reduction(int code) {
    return code == WF_ROW_SUM || code == WF_ROW_AMAX || code == WF_ROW_AMIN || code == WF_ROW_DOT;
}
static bool is_generator(int code) {
    return code == WF_ROW_INDEX || code == WF_ROW_UNIFORM || code == WF_ROW_NORMAL;
}

/* Tasks of a program with sums: kept rows x pieces of columns x segments. Axes that are summed come last, so the inner one is. */
static void cut_segments(shape_of_run *s) {
    int64_t summed_outer = 1;
    s->kept = 1;
    for (int a = 0; a < s->n_outer; a++) *(a < s->p->n_kept ? &s->kept : &summed_outer) *= s->p->space.dim[a];
    s->summed_blocks = summed_outer * s->blocks_inner;
    s->accum_bytes = 0;
    for (int i = 0; i < s->p->n_instr; i++)
        if (is_accumulation(s->p->instr[i].code))
            s->accum_bytes += pad(s->p->instr[i].dst_narrow ? 8 : (size_t)s->cols * s->size);
    int64_t wanted = most(1, SEGMENTS / most(1, s->kept * s->pieces));
    int64_t worth = most(1, s->summed_blocks * s->rows * s->cols / SEGMENT_ELEMENTS);
    int64_t room = most(1, SEGMENT_BYTES / (int64_t)(s->accum_bytes * (size_t)(s->kept * s->pieces) + 1));
    s->segments = least(least(wanted, worth), least(room, s->summed_blocks));
    s->tasks = s->kept * s->pieces * s->segments;
}

static shape_of_run describe(const wf_rowprog *p) {
    shape_of_run s = {.p = p, .rank = p->space.rank, .inner = 1, .outer = 1};
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
    s.arg_bytes =
        pad((size_t)p->n_instr * sizeof(wf_row_args)) + pad((size_t)p->n_instr * sizeof(wf_row_fn)) + pad((size_t)p->n_instr);
    s.register_bytes =
        (size_t)p->n_full * pad((size_t)(s.rows * s.cols) * s.size) + (size_t)p->n_narrow * pad((size_t)s.rows * 8);
    s.thread_bytes = pad(s.arg_bytes + s.register_bytes + s.accum_bytes) + 64;
    return s;
}

static bool is_small(const shape_of_run *s) {
    return s->outer * s->inner * s->n < SMALL;
}

static size_t partial_bytes(const shape_of_run *s) {
    return s->sums && s->segments > 1 ? pad((size_t)s->tasks * s->accum_bytes) : 0;
}

size_t wf_rows_scratch(const void *program) {
    wf_rowprog *p = (wf_rowprog *)program;
    shape_of_run s = describe(p);
    int64_t threads = is_small(&s) ? 1 : least(wf_threads(), s.tasks);
    p->extra[0] = threads;
    return partial_bytes(&s) + (size_t)threads * s.thread_bytes;
}

/* ---- one thread's view: instructions bound to registers and memory ---- */

typedef struct thread_state {
    const shape_of_run *s;
    const wf_call *call;
    const wf_row_kernels *k;
    wf_row_args *arg; /* by instruction */
    wf_row_fn *fn;
    uint8_t *mode; /* ROWS, FLAT, NARROW */
    char *reg, *accum;
    int64_t width; /* columns that args are bound for */
} thread_state;

enum { ROWS, FLAT, NARROW };

static int64_t pitch_of(const shape_of_run *s, const wf_row_mem *m) {
    return s->inner == 1 ? 1 : m->stride[s->rank - 2];
}
static bool is_full(const shape_of_run *s, const wf_row_mem *m) {
    return s->n != 1 && m->stride[s->rank - 1] != 0;
}

static char *register_at(const thread_state *t, int r) {
    const shape_of_run *s = t->s;
    size_t full = pad((size_t)(s->rows * s->cols) * s->size);
    if (r < s->p->n_full) return t->reg + (size_t)r * full;
    return t->reg + (size_t)s->p->n_full * full + (size_t)(r - s->p->n_full) * pad((size_t)s->rows * 8);
}

/* Base of an operand's memory: first element of the tensor (blocks add to it). */
static char *memory_at(const thread_state *t, const wf_row_mem *m) {
    return m->output ? t->call->out[m->slot] : m->slot >= 0 ? t->call->in[m->slot] : NULL;
}

/* Operand k of a full instruction: a vector or one number a row; of a narrow one: numbers of the rows side by side, or one for all. */
static bool bind_operand(thread_state *t, int i, int k, bool narrow) {
    const wf_row_instr *in = &t->s->p->instr[i];
    wf_row_args *a = &t->arg[i];
    wf_row_arg src = in->src[k];
    if (src.kind == WF_ARG_IMM) {
        a->imm_f = (float)in->imm;
        a->s[k] = t->s->p->compute == WF_F64 ? (const void *)&a->imm : (const void *)&a->imm_f;
        a->sp[k] = 0;
        return true;
    }
    if (src.kind == WF_ARG_REG) {
        bool one = src.index >= t->s->p->n_full;
        a->s[k] = register_at(t, src.index);
        a->sp[k] = one ? 1 : t->width;
        return one && !narrow;
    }
    const wf_row_mem *m = &t->s->p->mem[src.index];
    a->s[k] = memory_at(t, m);
    a->sp[k] = pitch_of(t->s, m);
    return narrow ? a->sp[k] == 0 : !is_full(t->s, m);
}

/* A copy from or to memory that needs conversion or is not evenly filled. */
static bool bind_conversion(thread_state *t, int i, bool narrow) {
    const wf_rowprog *p = t->s->p;
    const wf_row_instr *in = &p->instr[i];
    bool from = in->src[0].kind == WF_ARG_MEM;
    if (in->code != WF_ROW_COPY || (!from && in->dst.kind != WF_ARG_MEM)) return false;
    const wf_row_mem *m = &p->mem[from ? in->src[0].index : in->dst.index];
    int64_t step = narrow ? pitch_of(t->s, m) : m->stride[t->s->rank - 1];
    if (m->dtype == p->compute && (step == 1 || (from && step == 0))) return false;
    t->arg[i].step = step;
    t->fn[i] = from ? t->k->load[m->dtype] : t->k->store[m->dtype];
    return true;
}

static void bind_generator(thread_state *t, int i, bool narrow) {
    const wf_row_instr *in = &t->s->p->instr[i];
    const wf_row_mem *m = &t->s->p->mem[in->index_mem];
    wf_row_args *a = &t->arg[i];
    int64_t pitch = t->s->inner == 1 ? 0 : m->stride[t->s->rank - 2];
    a->step = narrow ? pitch : m->stride[t->s->rank - 1];
    a->sp[1] = narrow ? 0 : pitch;
    memcpy(a->number, in->number, sizeof a->number);
    if (in->src[0].kind == WF_ARG_MEM && in->src[0].index >= 0) a->s[0] = memory_at(t, &t->s->p->mem[in->src[0].index]);
    t->fn[i] = t->k->op[in->code][0];
}

/* All operands of an instruction without a gap between rows: the block is one long row. */
static bool is_flat(const thread_state *t, int i) {
    const shape_of_run *s = t->s;
    const wf_row_instr *in = &s->p->instr[i];
    const wf_row_args *a = &t->arg[i];
    if (is_accumulation(in->code) || is_reduction(in->code) || is_generator(in->code) || a->dp != t->width || a->step)
        return false;
    for (int k = 0; k < 3; k++) {
        wf_row_arg x = in->src[k];
        if (x.kind == WF_ARG_IMM || x.index < 0) continue;
        bool one = x.kind == WF_ARG_REG ? x.index >= s->p->n_full : !is_full(s, &s->p->mem[x.index]);
        if (a->sp[k] != (one ? 0 : t->width)) return false;
    }
    return true;
}

/* Kernel, pitches and registers of every instruction for blocks that are `width` columns wide. */
static void bind(thread_state *t, int64_t width) {
    const wf_rowprog *p = t->s->p;
    char *accum = t->accum;
    t->width = width;
    for (int i = 0; i < p->n_instr; i++) {
        const wf_row_instr *in = &p->instr[i];
        wf_row_args *a = &t->arg[i];
        bool narrow = in->dst_narrow && !is_reduction(in->code);
        int ones = 0;
        memset(a, 0, sizeof *a);
        a->imm = in->imm;
        if (is_accumulation(in->code)) {
            a->d = accum;
            accum += pad(narrow ? 8 : (size_t)t->s->cols * t->s->size);
        } else if (in->dst.kind == WF_ARG_REG) {
            a->d = register_at(t, in->dst.index);
            a->dp = in->dst_narrow ? 1 : width;
        } else {
            a->d = memory_at(t, &p->mem[in->dst.index]);
            a->dp = pitch_of(t->s, &p->mem[in->dst.index]);
        }
        t->mode[i] = narrow ? NARROW : ROWS;
        if (is_generator(in->code)) {
            bind_generator(t, i, narrow);
            continue;
        }
        for (int k = 0; k < 3; k++)
            if (in->src[k].kind == WF_ARG_IMM || in->src[k].index >= 0) ones |= (int)bind_operand(t, i, k, narrow) << k;
        if (bind_conversion(t, i, narrow)) continue;
        if (!narrow && is_flat(t, i)) t->mode[i] = FLAT;
        if (in->code == WF_ROW_COPY && in->attr[0])
            t->fn[i] = t->k->round[in->attr[0] - 1];
        else if (is_accumulation(in->code) && narrow)
            t->fn[i] = t->k->sum_rows_narrow;
        else
            t->fn[i] = t->k->op[in->code][ones];
    }
}

/* Where a block is. */
typedef struct block_at {
    int64_t outer[WF_MAX_RANK];
    int64_t row, rows, col; /* along the inner axis, how many, first column */
} block_at;

static int64_t element_of(const shape_of_run *s, const wf_row_mem *m, const block_at *b) {
    int64_t e = b->col * m->stride[s->rank - 1];
    for (int a = 0; a < s->n_outer; a++) e += b->outer[a] * m->stride[a];
    if (s->rank > 1) e += b->row * m->stride[s->rank - 2];
    return e;
}

static void *address_of(const thread_state *t, const wf_row_mem *m, const block_at *b) {
    return memory_at(t, m) + element_of(t->s, m, b) * (int64_t)wf_dtype_size(m->dtype);
}

static void run_block(thread_state *t, const block_at *b, int64_t width) {
    const wf_rowprog *p = t->s->p;
    if (width != t->width) bind(t, width);
    for (int i = 0; i < p->n_instr; i++) {
        const wf_row_instr *in = &p->instr[i];
        wf_row_args *a = &t->arg[i];
        if (in->dst.kind == WF_ARG_MEM && !is_accumulation(in->code)) a->d = address_of(t, &p->mem[in->dst.index], b);
        if (is_generator(in->code)) {
            a->index = in->number[2] + element_of(t->s, &p->mem[in->index_mem], b);
        } else {
            for (int k = 0; k < 3; k++)
                if (in->src[k].kind == WF_ARG_MEM) a->s[k] = address_of(t, &p->mem[in->src[k].index], b);
        }
        a->rows = t->mode[i] == ROWS ? b->rows : 1;
        a->n = t->mode[i] == ROWS ? width : t->mode[i] == FLAT ? b->rows * width : b->rows;
        t->fn[i](a);
    }
}

static void decode_outer(const shape_of_run *s, int64_t index, int from, int to, block_at *b) {
    for (int a = to - 1; a >= from; a--) {
        b->outer[a] = index % s->p->space.dim[a];
        index /= s->p->space.dim[a];
    }
}

static void place_rows(const shape_of_run *s, int64_t inner_block, block_at *b) {
    b->row = inner_block * s->rows;
    b->rows = least(s->rows, s->inner - b->row);
}

/* Independent blocks [first, last): pieces of columns inside, then rows. */
static void run_range(thread_state *t, int64_t first, int64_t last) {
    const shape_of_run *s = t->s;
    for (int64_t i = first; i < last; i++) {
        block_at b = {.col = i % s->pieces * s->cols};
        int64_t row_block = i / s->pieces;
        place_rows(s, row_block % s->blocks_inner, &b);
        decode_outer(s, row_block / s->blocks_inner, 0, s->n_outer, &b);
        run_block(t, &b, least(s->cols, s->n - b.col));
    }
}

/* ---- sums over rows ---- */

/* Add up one segment in t->accum. */
static void run_segment(thread_state *t, int64_t task) {
    const shape_of_run *s = t->s;
    int64_t segment = task % s->segments, piece = task / s->segments % s->pieces, kept = task / s->segments / s->pieces;
    int64_t first = s->summed_blocks * segment / s->segments, last = s->summed_blocks * (segment + 1) / s->segments;
    block_at b = {.col = piece * s->cols};
    memset(t->accum, 0, s->accum_bytes);
    decode_outer(s, kept, 0, s->p->n_kept, &b);
    for (int64_t i = first; i < last; i++) {
        place_rows(s, i % s->blocks_inner, &b);
        decode_outer(s, i / s->blocks_inner, s->p->n_kept, s->n_outer, &b);
        run_block(t, &b, least(s->cols, s->n - b.col));
    }
}

static void store_sum(const thread_state *t, const wf_row_mem *m, bool narrow, void *sum, const block_at *b, int64_t width) {
    float number;
    wf_row_args a = {.d = address_of(t, m, b), .s = {sum}, .rows = 1, .n = narrow ? 1 : width, .step = 1};
    if (narrow && t->s->p->compute == WF_F32) {
        number = (float)*(double *)sum;
        a.s[0] = &number;
    }
    t->k->store[m->dtype](&a);
}

/* Segments of one kept row and piece (the first one's sums are at `partial`), added in order, into the result's memory. */
static void finish_sums(const thread_state *t, char *partial, int64_t group) {
    const shape_of_run *s = t->s;
    int64_t piece = group % s->pieces, kept = group / s->pieces;
    block_at b = {.col = piece * s->cols};
    int64_t width = least(s->cols, s->n - b.col);
    decode_outer(s, kept, 0, s->p->n_kept, &b);
    size_t at = 0;
    for (int i = 0; i < s->p->n_instr; i++) {
        const wf_row_instr *in = &s->p->instr[i];
        if (!is_accumulation(in->code)) continue;
        bool narrow = in->dst_narrow, doubles = narrow || s->p->compute == WF_F64;
        int64_t n = narrow ? 1 : width;
        char *first = partial + at;
        for (int64_t j = 0; j < n && s->segments > 1; j++) {
            double sum = 0;
            for (int64_t g = 0; g < s->segments; g++) {
                const char *x = first + (size_t)g * s->accum_bytes;
                sum += doubles ? ((const double *)x)[j] : (double)((const float *)x)[j];
            }
            if (doubles)
                ((double *)first)[j] = sum;
            else
                ((float *)first)[j] = (float)sum;
        }
        store_sum(t, &s->p->mem[in->dst.index], narrow, first, &b, width);
        at += pad(narrow ? 8 : (size_t)s->cols * s->size);
    }
}

static void run_tasks(thread_state *t, char *partial, int64_t first, int64_t last) {
    const shape_of_run *s = t->s;
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

static thread_state open_thread(const shape_of_run *s, const wf_call *c, int64_t thread) {
    char *own = (char *)c->scratch + partial_bytes(s) + (size_t)thread * s->thread_bytes;
    size_t args = pad((size_t)s->p->n_instr * sizeof(wf_row_args)), fns = pad((size_t)s->p->n_instr * sizeof(wf_row_fn));
    return (thread_state){.s = s,
                          .call = c,
                          .k = kernels(s->p->compute),
                          .arg = (wf_row_args *)own,
                          .fn = (wf_row_fn *)(own + args),
                          .mode = (uint8_t *)own + args + fns,
                          .reg = own + s->arg_bytes,
                          .accum = own + s->arg_bytes + s->register_bytes,
                          .width = -1};
}

static void run_part(const shape_of_run *s, const wf_call *c, int64_t part, int64_t parts) {
    thread_state t = open_thread(s, c, part);
    int64_t first = s->tasks * part / parts, last = s->tasks * (part + 1) / parts;
    if (first == last) return;
    if (s->sums)
        run_tasks(&t, c->scratch, first, last);
    else
        run_range(&t, first, last);
}

wf_status wf_run_rows(const wf_call *c) {
    const wf_rowprog *p = c->program;
    shape_of_run s = describe(p);
    int64_t threads = least(most(1, p->extra[0]), wf_threads());
    if (threads == 1) {
        run_part(&s, c, 0, 1);
    } else {
#pragma omp parallel for schedule(static, 1) num_threads((int)threads)
        for (int64_t part = 0; part < threads; part++) run_part(&s, c, part, threads);
    }
    if (s.sums && s.segments > 1) {
        thread_state t = open_thread(&s, c, 0);
        int64_t groups = s.kept * s.pieces;
#pragma omp parallel for schedule(static) num_threads((int)threads) if (threads > 1 && groups > 1)
        for (int64_t g = 0; g < groups; g++) finish_sums(&t, (char *)c->scratch + (size_t)(g * s.segments) * s.accum_bytes, g);
    }
    return WF_OK;
}
