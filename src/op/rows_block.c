/* rows_block.c: one thread takes a block of rows through the instructions of a program.
 *
 * Kernels, registers and pitches are bound once for blocks of one size; from block to block only the addresses of operands in
 * memory change, and these are written where the instructions read them.
 */
#include "op/rows_bound.h"

#include <string.h>

enum { LINE = 64, FEW_INSTRUCTIONS = 2, CHAIN_COLUMNS = 2048 };

size_t wf_run_bound_bytes(const wf_rowprog *p) {
    size_t instr = (size_t)p->n_instr, mem = (size_t)p->n_mem;
    return wf_run_pad(sizeof(struct wf_bound)) + wf_run_pad(instr * sizeof(wf_bound_instr)) + wf_run_pad(wf_chain_bytes(p)) +
           wf_run_pad(4 * instr * sizeof(wf_bound_patch)) + wf_run_pad(mem * sizeof(int)) + wf_run_pad(mem * sizeof(char *));
}

static void *take(char **at, size_t bytes) {
    void *p = *at;
    *at += wf_run_pad(bytes);
    return p;
}

void wf_run_open(wf_run_thread *t, const wf_run_shape *s, const wf_call *c, const wf_row_kernels *k, char *scratch) {
    size_t instr = (size_t)s->p->n_instr, mem = (size_t)s->p->n_mem;
    *t = (wf_run_thread){.s = s, .call = c, .k = k, .rows = -1, .width = -1};
    t->bound = take(&scratch, sizeof *t->bound);
    t->bound->instr = take(&scratch, instr * sizeof *t->bound->instr);
    t->bound->patch = take(&scratch, 4 * instr * sizeof *t->bound->patch);
    t->bound->step = take(&scratch, wf_chain_bytes(s->p));
    t->bound->fetch = take(&scratch, mem * sizeof *t->bound->fetch);
    t->bound->address = take(&scratch, mem * sizeof *t->bound->address);
    t->reg = take(&scratch, s->register_bytes);
    t->total = take(&scratch, s->total_bytes);
    t->accum = scratch;
}

static int64_t pitch_of(const wf_run_shape *s, const wf_row_mem *m) {
    return s->inner == 1 ? 1 : m->stride[s->rank - 2];
}
static bool is_full(const wf_run_shape *s, const wf_row_mem *m) {
    return s->n != 1 && m->stride[s->rank - 1] != 0;
}

static char *register_at(const wf_run_thread *t, int r) {
    const wf_run_shape *s = t->s;
    size_t full = wf_run_pad((size_t)(s->rows * s->cols) * s->size);
    if (r < s->p->n_full) return t->reg + (size_t)r * full;
    return t->reg + (size_t)s->p->n_full * full + (size_t)(r - s->p->n_full) * wf_run_pad((size_t)s->rows * 8);
}

/* ---- binding ---- */

static void patch(wf_run_thread *t, const void **where, int mem) {
    t->bound->patch[t->bound->n_patch++] = (wf_bound_patch){where, mem};
}

/* Operand k of a full instruction: a vector or one number a row (then true); of a narrow one: the rows' numbers side by side,
 * or one for all (then true). */
static bool bind_operand(wf_run_thread *t, int i, int k, bool narrow) {
    const wf_row_instr *in = &t->s->p->instr[i];
    wf_row_args *a = &t->bound->instr[i].arg;
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
    patch(t, &a->s[k], src.index);
    a->sp[k] = pitch_of(t->s, m);
    return narrow ? a->sp[k] == 0 : !is_full(t->s, m);
}

/* A copy from or to memory that needs conversion or is not evenly filled. */
static bool bind_conversion(wf_run_thread *t, int i, bool narrow) {
    const wf_rowprog *p = t->s->p;
    const wf_row_instr *in = &p->instr[i];
    bool from = in->src[0].kind == WF_ARG_MEM;
    if (in->code != WF_ROW_COPY || (!from && in->dst.kind != WF_ARG_MEM)) return false;
    const wf_row_mem *m = &p->mem[from ? in->src[0].index : in->dst.index];
    int64_t step = narrow ? pitch_of(t->s, m) : m->stride[t->s->rank - 1];
    if (m->dtype == p->compute && (step == 1 || (from && step == 0))) return false;
    t->bound->instr[i].arg.step = step;
    t->bound->instr[i].fn = from ? t->k->load[m->dtype] : t->k->store[m->dtype];
    return true;
}

static void bind_generator(wf_run_thread *t, int i, bool narrow) {
    const wf_row_instr *in = &t->s->p->instr[i];
    const wf_row_mem *m = &t->s->p->mem[in->index_mem];
    wf_row_args *a = &t->bound->instr[i].arg;
    int64_t pitch = t->s->inner == 1 ? 0 : m->stride[t->s->rank - 2];
    a->step = narrow ? pitch : m->stride[t->s->rank - 1];
    a->sp[1] = narrow ? 0 : pitch;
    memcpy(a->number, in->number, sizeof a->number);
    if (in->src[0].kind == WF_ARG_MEM && in->src[0].index >= 0) patch(t, &a->s[0], in->src[0].index);
    t->bound->instr[i].fn = t->k->op[in->code][0];
}

static bool is_tiled(const wf_run_thread *t) {
    return t->s->tile < t->width;
}

/* All operands of an instruction without a gap between rows: the block is one long row. */
static bool is_flat(const wf_run_thread *t, int i) {
    const wf_run_shape *s = t->s;
    const wf_row_instr *in = &s->p->instr[i];
    const wf_row_args *a = &t->bound->instr[i].arg;
    if (wf_accumulates(in->code) || wf_reduces(in->code) || wf_generates(in->code) || a->dp != t->width || a->step ||
        is_tiled(t))
        return false;
    for (int k = 0; k < 3; k++) {
        wf_row_arg x = in->src[k];
        if (x.kind == WF_ARG_IMM || x.index < 0) continue;
        bool one = x.kind == WF_ARG_REG ? x.index >= s->p->n_full : !is_full(s, &s->p->mem[x.index]);
        if (a->sp[k] != (one ? 0 : t->width)) return false;
    }
    return true;
}

/* Only registers: the kernel may run over whole vectors, and no part of one has to be masked. The lanes behind the last row hold
 * its number again: left alone they would become denormal, which costs more than all the rest. */
static bool is_padded(const wf_run_thread *t, const wf_row_instr *in) {
    if (t->s->p->compute != WF_F32 || in->dst.kind != WF_ARG_REG || wf_generates(in->code) || wf_reduces(in->code))
        return false;
    for (int k = 0; k < 3; k++)
        if (in->src[k].kind == WF_ARG_MEM) return false;
    return true;
}

static void bind_result(wf_run_thread *t, int i, char **accum) {
    const wf_row_instr *in = &t->s->p->instr[i];
    wf_row_args *a = &t->bound->instr[i].arg;
    if (wf_accumulates(in->code)) {
        a->d = *accum;
        *accum += wf_run_sum_bytes(t->s, in);
    } else if (in->dst.kind == WF_ARG_REG) {
        a->d = register_at(t, in->dst.index);
        a->dp = in->dst_narrow ? 1 : t->width;
    } else {
        patch(t, (const void **)&a->d, in->dst.index);
        a->dp = pitch_of(t->s, &t->s->p->mem[in->dst.index]);
    }
}

static void bind_instr(wf_run_thread *t, int i, char **accum) {
    const wf_row_instr *in = &t->s->p->instr[i];
    wf_row_args *a = &t->bound->instr[i].arg;
    bool narrow = in->dst_narrow && !wf_reduces(in->code);
    int ones = 0;
    memset(a, 0, sizeof *a);
    t->bound->instr[i].pad = t->bound->instr[i].ones = 0;
    a->imm = in->imm;
    a->rows = narrow ? 1 : t->rows;
    a->n = narrow ? t->rows : t->width;
    bind_result(t, i, accum);
    int whole = (int)((t->rows + t->k->lanes - 1) / t->k->lanes) * t->k->lanes;
    if (in->dst.kind == WF_ARG_REG && in->dst_narrow && t->s->p->compute == WF_F32 && !is_padded(t, in))
        t->bound->instr[i].pad = whole - (int)t->rows;
    if (wf_generates(in->code)) {
        bind_generator(t, i, narrow);
        return;
    }
    for (int k = 0; k < 3; k++)
        if (in->src[k].kind == WF_ARG_IMM || in->src[k].index >= 0) ones |= (int)bind_operand(t, i, k, narrow) << k;
    t->bound->instr[i].ones = ones;
    if (bind_conversion(t, i, narrow)) return;
    if (wf_accumulates(in->code) && narrow) {
        t->bound->instr[i].fn = t->k->sum_rows_narrow;
        return;
    }
    if (narrow && is_padded(t, in)) {
        a->n = whole;
    } else if (!narrow && is_flat(t, i)) {
        a->rows = 1;
        a->n = t->rows * t->width;
    }
    t->bound->instr[i].fn = in->code == WF_ROW_COPY && in->attr[0] ? t->k->round[in->attr[0] - 1] : t->k->op[in->code][ones];
}

/* Is the next block the one beside this one, or that below? */
static bool by_columns(const wf_run_shape *s) {
    return s->inner == 1;
}

/* Operands, read or written, whose next block is worth asking for while this one is computed. */
static void choose_fetches(wf_run_thread *t) {
    const wf_run_shape *s = t->s;
    t->bound->n_fetch = 0;
    for (int m = 0; m < s->p->n_mem; m++) {
        const wf_row_mem *x = &s->p->mem[m];
        if (x->slot < 0 || s->n == 1 || x->stride[s->rank - 1] != 1) continue;
        if (by_columns(s) || (s->rank > 1 && x->stride[s->rank - 2] != 0)) t->bound->fetch[t->bound->n_fetch++] = m;
    }
}

/* Instruction behind i, or behind the chain that begins with it. */
static int after(const wf_run_thread *t, int i) {
    return i + (t->bound->instr[i].chained ? t->bound->instr[i].chained : 1);
}

/* The lines of a block, shared among the instructions that take time. */
static void share_fetches(wf_run_thread *t) {
    const wf_rowprog *p = t->s->p;
    int64_t lines = 0, slow = 0;
    for (int f = 0; f < t->bound->n_fetch; f++)
        lines += t->rows * (t->width * (int64_t)wf_dtype_size(p->mem[t->bound->fetch[f]].dtype) / LINE + 1);
    int64_t tiles = (t->width + t->s->tile - 1) / t->s->tile;
    for (int i = 0; i < p->n_instr; i = after(t, i)) slow += t->bound->instr[i].fast ? 0 : tiles;
    if (slow <= FEW_INSTRUCTIONS) lines = 0; /* memory is read one time at once: the machine sees that by itself */
    for (int i = 0; i < p->n_instr; i++)
        t->bound->instr[i].lines = t->bound->instr[i].fast || slow == 0 ? 0 : (int)((lines + slow - 1) / slow);
}

static int64_t column_bytes(const wf_run_thread *t, wf_row_arg x) {
    const wf_run_shape *s = t->s;
    if (x.kind == WF_ARG_IMM || x.index < 0) return 0;
    if (x.kind == WF_ARG_REG) return x.index < s->p->n_full ? (int64_t)s->size : 0;
    const wf_row_mem *m = &s->p->mem[x.index];
    return is_full(s, m) ? m->stride[s->rank - 1] * (int64_t)wf_dtype_size(m->dtype) : 0;
}

/* What changes from tile to tile. */
static void bind_tiles(wf_run_thread *t, int i) {
    const wf_row_instr *in = &t->s->p->instr[i];
    wf_bound_instr *x = &t->bound->instr[i];
    if (!is_tiled(t)) return;
    if (wf_reduces(in->code)) x->arg.total = t->total + (int64_t)i * t->s->rows;
    x->advance[0] = wf_accumulates(in->code) ? (int64_t)t->s->size : column_bytes(t, in->dst);
    for (int k = 0; k < 3; k++) x->advance[k + 1] = wf_generates(in->code) ? 0 : column_bytes(t, in->src[k]);
    if (wf_reduces(in->code)) x->advance[0] = 0;
}

static void bind(wf_run_thread *t, int64_t rows, int64_t width) {
    char *accum = t->accum;
    t->rows = rows;
    t->width = width;
    t->bound->n_patch = 0;
    for (int i = 0; i < t->s->p->n_instr; i++) {
        const wf_row_instr *in = &t->s->p->instr[i];
        t->bound->instr[i].fast = in->dst_narrow && !wf_reduces(in->code);
        bind_instr(t, i, &accum);
        bind_tiles(t, i);
    }
    wf_chain_find(t);
    choose_fetches(t);
    share_fetches(t);
}

/* ---- running ---- */

static int64_t element_of(const wf_run_shape *s, const wf_row_mem *m, const wf_run_at *at) {
    int64_t e = at->col * m->stride[s->rank - 1];
    for (int a = 0; a < s->n_outer; a++) e += at->outer[a] * m->stride[a];
    if (s->rank > 1) e += at->row * m->stride[s->rank - 2];
    return e;
}

char *wf_run_address(const wf_run_thread *t, const wf_row_mem *m, const wf_run_at *at) {
    char *base = m->output ? t->call->out[m->slot] : t->call->in[m->slot];
    return base + element_of(t->s, m, at) * (int64_t)wf_dtype_size(m->dtype);
}

/* The block that follows in memory (the next rows, or the next piece of the columns) is asked for line by line while this one is
 * computed: a few lines before each instruction, since only so many can be under way at a time. */
typedef struct wf_fetch {
    const wf_run_thread *t;
    const char *line, *end, *row; /* of the row at hand */
    int64_t pitch, bytes, rows;   /* rows left, this one included */
    int next;                     /* operand after this one */
    bool output;
} wf_fetch;

static void next_operand(wf_fetch *f, const wf_run_at *at) {
    const wf_run_shape *s = f->t->s;
    const struct wf_bound *b = f->t->bound;
    f->line = f->end = NULL;
    f->rows = 0;
    if (f->next >= b->n_fetch) return;
    int m = b->fetch[f->next++];
    int64_t size = (int64_t)wf_dtype_size(s->p->mem[m].dtype);
    f->output = s->p->mem[m].output;
    f->bytes = at->width * size;
    f->pitch = by_columns(s) ? f->bytes : s->p->mem[m].stride[s->rank - 2] * size;
    f->rows = at->rows;
    f->line = f->row = b->address[m] + at->rows * f->pitch;
    f->end = f->row + f->bytes;
}

static void start_fetch(wf_fetch *f, const wf_run_thread *t, const wf_run_at *at) {
    const wf_run_shape *s = t->s;
    bool more = by_columns(s) ? at->col + at->width < s->n : at->row + at->rows < s->inner;
    *f = (wf_fetch){.t = t, .next = more ? 0 : t->bound->n_fetch};
    next_operand(f, at);
}

static void fetch(wf_fetch *f, const wf_run_at *at, int lines) {
    while (lines > 0 && f->line) {
        for (; lines > 0 && f->line < f->end; lines--, f->line += LINE) {
            if (f->output)
                __builtin_prefetch(f->line, 1);
            else
                __builtin_prefetch(f->line);
        }
        if (f->line < f->end) return;
        if (--f->rows > 0) {
            f->row += f->pitch;
            f->line = f->row;
            f->end = f->row + f->bytes;
        } else {
            next_operand(f, at);
        }
    }
}

/* Does instruction `at` read what a reduction among first.. leaves, or write over it? */
static bool reads_reduction(const wf_run_thread *t, int first, int at) {
    const wf_row_instr *in = t->s->p->instr;
    for (int i = first; i < at; i++) {
        if (!wf_reduces(in[i].code)) continue;
        for (int k = 0; k < 3; k++)
            if (wf_same_place(in[i].dst, in[at].src[k])) return true;
        if (wf_same_place(in[i].dst, in[at].dst)) return true;
    }
    return false;
}

/* The number of the last row behind it. */
static inline void repeat_last(const wf_bound_instr *x, int64_t rows) {
    float *end = (float *)x->arg.d + rows;
    for (int k = 0; k < x->pad; k++) end[k] = end[-1];
}

/* A few rows of a chain at a time, so that lines are asked for all along. */
static void run_chain(const wf_run_thread *t, int i, const wf_run_at *at, wf_fetch *next, wf_chain_run run) {
    wf_bound_instr *x = &t->bound->instr[i];
    int64_t rows = x->flat ? 1 : at->rows, few = run.n < CHAIN_COLUMNS ? CHAIN_COLUMNS / run.n : 1;
    if (x->flat) run.n *= at->rows;
    for (run.row = 0; run.row < rows; run.row += few) {
        run.rows = rows - run.row < few ? rows - run.row : few;
        fetch(next, at, (int)((x->lines * run.rows + rows - 1) / rows));
        x->chain.fn(&x->chain, &run);
    }
    if (run.ends) repeat_last(&x[x->chained - 1], at->rows);
}

/* Instructions from `from` on as far as none needs a reduction of another: tile by tile through all of them, so that what one
 * leaves for the next is still in the first cache. Returns where the next stretch begins. Arithmetic on numbers of whole rows begins
 * one: it may read a reduction, and may overwrite what an instruction before it reads in every tile. */
static int run_tiles(wf_run_thread *t, const wf_run_at *at, wf_fetch *next, int from) {
    wf_bound_instr *x = t->bound->instr;
    int n = t->s->p->n_instr, first = from, end;
    for (; first < n && x[first].fast; first++) {
        x[first].fn(&x[first].arg);
        repeat_last(&x[first], at->rows);
    }
    for (end = first; end < n && !x[end].fast && !reads_reduction(t, first, end);) end++;
    for (int64_t col = 0; col < t->width; col += t->s->tile) {
        int64_t rest = t->width - col;
        bool ends = rest <= t->s->tile;
        for (int i = first; i < end; i = after(t, i)) {
            if (x[i].chained) {
                wf_chain_run run = {.col = col, .n = ends ? rest : t->s->tile, .begins = col == 0, .ends = ends};
                run_chain(t, i, at, next, run);
                continue;
            }
            wf_row_args a = x[i].arg;
            a.n = ends ? rest : t->s->tile;
            a.d = (char *)a.d + col * x[i].advance[0];
            for (int k = 0; k < 3; k++)
                if (x[i].advance[k + 1]) a.s[k] = (const char *)a.s[k] + col * x[i].advance[k + 1];
            if (t->s->p->instr[i].index_mem >= 0) a.index += col * a.step;
            a.begins = col == 0;
            a.ends = ends;
            fetch(next, at, x[i].lines);
            x[i].fn(&a);
            if (ends) repeat_last(&x[i], at->rows);
        }
    }
    return end;
}

void wf_run_block(wf_run_thread *t, const wf_run_at *at) {
    const wf_rowprog *p = t->s->p;
    struct wf_bound *b = t->bound;
    wf_fetch next;
    if (at->width != t->width || at->rows != t->rows) bind(t, at->rows, at->width);
    for (int m = 0; m < p->n_mem; m++)
        if (p->mem[m].slot >= 0) b->address[m] = wf_run_address(t, &p->mem[m], at);
    for (int k = 0; k < b->n_patch; k++) *b->patch[k].where = b->address[b->patch[k].mem];
    start_fetch(&next, t, at);
    for (int i = 0; i < p->n_instr; i++)
        if (p->instr[i].index_mem >= 0)
            b->instr[i].arg.index = p->instr[i].number[2] + element_of(t->s, &p->mem[p->instr[i].index_mem], at);
    if (is_tiled(t)) {
        for (int i = 0; i < p->n_instr;) i = run_tiles(t, at, &next, i);
        return;
    }
    for (int i = 0; i < p->n_instr; i = after(t, i)) {
        wf_bound_instr *x = &b->instr[i];
        if (x->chained) {
            run_chain(t, i, at, &next, (wf_chain_run){.n = at->width, .begins = true, .ends = true});
            continue;
        }
        fetch(&next, at, x->lines);
        x->fn(&x->arg);
        repeat_last(x, at->rows);
    }
}
