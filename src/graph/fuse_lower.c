/* fuse_lower.c: values -> a row program: order and merging of axes, instructions with loads and stores, registers, block size.
 *
 * Operands of the type of arithmetic that are evenly spaced are read and written in memory by the instruction itself; others
 * are loaded (converted, gathered) into a register before their first use, or stored behind the instruction.
 */
#include "graph/fuse.h"

#include <string.h>

enum {
    CACHE = 24 * 1024,
    SECOND_CACHE = 256 * 1024,
    SHORT_AXIS = 32,
    FEW_INSTRUCTIONS = 2,
    MOST_ROWS = 4096,
    MOST_WIDE_ROWS = 256,
    LEAST_COLUMNS = 256
};

typedef struct wf_lowering {
    wf_builder *b;
    wf_rowprog *p;
    wf_row_arg *at;       /* by value: where it is */
    bool *settled;        /* by value */
    bool *virtual_narrow; /* by virtual register */
    int n_virtual, cap_instr;
    bool failed;
} wf_lowering;

/* ---- axes ---- */

static void mark_used_mems(const wf_builder *b, bool *used) {
    memset(used, 0, (size_t)b->n_mem * sizeof *used);
    for (int i = 0; i < b->n_value; i++) {
        const wf_value *v = &b->value[i];
        if (!wf_value_used(v)) continue;
        if (v->mem >= 0) used[v->mem] = true;
        if (v->out >= 0) used[v->out] = true;
    }
}

/* Values that exist once a row (and are not just read from memory): every row must then be whole. */
static bool has_row_values(const wf_builder *b) {
    for (int i = 0; i < b->n_value; i++) {
        const wf_value *v = &b->value[i];
        if (wf_value_used(v) && v->narrow && v->code != WF_ROW_NONE && v->code != WF_ROW_FILL) return true;
    }
    return false;
}

/* Axes i and i + 1 as one. */
static bool merge_axes(wf_builder *b, const bool *used, int i) {
    wf_shape *s = &b->space;
    if (b->reduced[i] != b->reduced[i + 1]) return false;
    for (int m = 0; m < b->n_mem; m++)
        if (used[m] && b->mem[m].stride[i] != b->mem[m].stride[i + 1] * s->dim[i + 1]) return false;
    s->dim[i + 1] *= s->dim[i];
    s->rank--;
    for (int k = i; k < s->rank; k++) {
        s->dim[k] = s->dim[k + 1];
        b->reduced[k] = b->reduced[k + 1];
    }
    for (int m = 0; m < b->n_mem; m++)
        for (int k = i; k < s->rank; k++) b->mem[m].stride[k] = b->mem[m].stride[k + 1];
    return true;
}

static void swap_axes(wf_builder *b, int i, int k) {
    int64_t d = b->space.dim[i];
    bool r = b->reduced[i];
    b->space.dim[i] = b->space.dim[k];
    b->space.dim[k] = d;
    b->reduced[i] = b->reduced[k];
    b->reduced[k] = r;
    for (int m = 0; m < b->n_mem; m++) {
        int64_t *s = b->mem[m].stride, t = s[i];
        s[i] = s[k];
        s[k] = t;
    }
}

static void prepend_axis(wf_builder *b) {
    for (int m = 0; m < b->n_mem; m++) {
        b->mem[m].stride[1] = b->mem[m].stride[0];
        b->mem[m].stride[0] = 0;
    }
    b->space.dim[1] = b->space.dim[0];
    b->space.dim[0] = 1;
    b->reduced[1] = b->reduced[0];
    b->reduced[0] = false;
    b->space.rank = 2;
}

/* Blocks run along the last row axis. A short one (groups of channels) changes places with a longer one before it, whose rows are then
 * further apart: true. */
static bool lengthen_inner(wf_builder *b) {
    int inner = b->space.rank - 2, with = inner - 1;
    if (with < 0 || b->reduced[inner] != b->reduced[with]) return false;
    if (b->space.dim[inner] >= SHORT_AXIS || b->space.dim[with] <= b->space.dim[inner]) return false;
    swap_axes(b, with, inner);
    return true;
}

/* Row axes that sums over rows keep come first, so that the rows that are added up follow each other. Fewer, longer axes where
 * all operands allow it; columns take up row axes as long as nothing in the program needs to know where a row ends. */
static void settle_axes(wf_builder *b, const bool *used) {
    wf_shape *s = &b->space;
    bool rows = has_row_values(b);
    while (!rows && s->rank > 1 && merge_axes(b, used, s->rank - 2)) {}
    if (s->rank == 1 && (rows || s->dim[0] == 1)) prepend_axis(b);
    int last = s->rank - 1;
    for (int i = 1; i < last; i++) /* stable: kept axes before reduced ones */
        for (int k = i; k > 0 && b->reduced[k - 1] && !b->reduced[k]; k--) swap_axes(b, k - 1, k);
    for (int i = last - 2; i >= 0; i--) merge_axes(b, used, i);
    b->woven = lengthen_inner(b);
}

/* ---- instructions ---- */

static int inner_axis(const wf_builder *b) {
    return b->space.rank - 2;
}

/* Pitch from row to row; over a single row anything will do. */
static int64_t row_pitch(const wf_builder *b, const wf_row_mem *m) {
    int i = inner_axis(b);
    return i < 0 || b->space.dim[i] == 1 ? 1 : m->stride[i];
}

static bool is_full_mem(const wf_builder *b, const wf_row_mem *m) {
    int last = b->space.rank - 1;
    return b->space.dim[last] != 1 && m->stride[last] != 0;
}

static wf_row_instr *add_instr(wf_lowering *l, wf_row_code code, bool narrow) {
    wf_rowprog *p = l->p;
    if (p->n_instr == l->cap_instr) {
        int cap = l->cap_instr ? l->cap_instr * 2 : 32;
        wf_row_instr *more = wf_arena_alloc(l->b->f->arena, (size_t)cap * sizeof *more);
        if (!more) {
            l->failed = true;
            return p->instr;
        }
        if (p->n_instr) memcpy(more, p->instr, (size_t)p->n_instr * sizeof *more);
        p->instr = more;
        l->cap_instr = cap;
    }
    wf_row_instr *in = &p->instr[p->n_instr++];
    *in = (wf_row_instr){.code = code, .dst_narrow = narrow, .index_mem = -1};
    for (int k = 0; k < 3; k++) in->src[k].index = -1;
    return in;
}

static wf_row_arg new_register(wf_lowering *l, bool narrow) {
    l->virtual_narrow[l->n_virtual] = narrow;
    return (wf_row_arg){WF_ARG_REG, l->n_virtual++};
}

static void settle(wf_lowering *l, int v, wf_row_arg a) {
    l->at[v] = a;
    l->settled[v] = true;
}

/* The instruction may read the operand where it lies. */
static bool readable(const wf_lowering *l, const wf_row_mem *m, bool narrow_instr) {
    const wf_builder *b = l->b;
    if (m->dtype != l->p->compute) return false;
    if (is_full_mem(b, m)) return m->stride[b->space.rank - 1] == 1;
    return !narrow_instr || row_pitch(b, m) == 1 || row_pitch(b, m) == 0;
}

static wf_row_arg load(wf_lowering *l, int v) {
    const wf_value *x = &l->b->value[v];
    wf_row_arg r = new_register(l, x->narrow);
    wf_row_instr *in = add_instr(l, x->code == WF_ROW_FILL ? WF_ROW_FILL : WF_ROW_COPY, x->narrow);
    in->dst = r;
    in->imm = x->imm;
    if (x->code == WF_ROW_NONE) in->src[0] = (wf_row_arg){WF_ARG_MEM, x->mem};
    settle(l, v, r);
    return r;
}

/* Value v as an operand; *imm: the immediate is still free to hold a constant. */
static wf_row_arg operand(wf_lowering *l, int v, bool narrow_instr, bool *imm, double *constant) {
    const wf_value *x = &l->b->value[v];
    if (l->settled[v]) return l->at[v];
    if (x->code == WF_ROW_FILL && *imm) {
        *imm = false;
        *constant = x->imm;
        return (wf_row_arg){WF_ARG_IMM, 0};
    }
    if (x->code == WF_ROW_NONE && readable(l, &l->b->mem[x->mem], narrow_instr)) return (wf_row_arg){WF_ARG_MEM, x->mem};
    return load(l, v);
}

static bool has_immediate(wf_row_code c) {
    return c == WF_ROW_FILL || c == WF_ROW_ADD_IMM || c == WF_ROW_MUL_IMM || c == WF_ROW_MAX_IMM || c == WF_ROW_MIN_IMM ||
           c == WF_ROW_POW_IMM;
}

/* One number for each row of the block, side by side. */
static bool is_vector(const wf_lowering *l, wf_row_arg a) {
    return a.kind == WF_ARG_REG || (a.kind == WF_ARG_MEM && row_pitch(l->b, &l->p->mem[a.index]) == 1);
}

static void operands(wf_lowering *l, const wf_value *v, bool narrow_instr, wf_row_arg *src, double *constant) {
    bool imm = !has_immediate(v->code), vector = false;
    int first = -1;
    for (int k = 0; k < 3; k++) {
        src[k] = (wf_row_arg){WF_ARG_REG, -1};
        if (v->src[k] < 0) continue;
        if (wf_is_generator(v->code))
            src[k] = (wf_row_arg){WF_ARG_MEM, l->b->value[v->src[k]].mem}; /* the seed */
        else
            src[k] = operand(l, v->src[k], narrow_instr, &imm, constant);
        vector = vector || is_vector(l, src[k]);
        if (first < 0) first = k;
    }
    if (!narrow_instr || vector || first < 0 || wf_is_generator(v->code)) return;
    src[first] = load(l, v->src[first]);
}

/* May the instruction write the value straight to its memory? */
static bool writable(const wf_lowering *l, const wf_value *v) {
    const wf_builder *b = l->b;
    const wf_row_mem *m = &b->mem[v->out];
    if (wf_is_accumulation(v->code)) return true;
    if (m->dtype != l->p->compute || is_full_mem(b, m) == v->narrow) return false;
    return v->narrow ? row_pitch(b, m) == 1 : m->stride[b->space.rank - 1] == 1;
}

static void store(wf_lowering *l, const wf_value *v, wf_row_arg from) {
    const wf_row_mem *m = &l->b->mem[v->out];
    bool full = is_full_mem(l->b, m);
    if (full && v->narrow) { /* all columns alike */
        wf_row_instr *in = add_instr(l, WF_ROW_COPY, false);
        in->src[0] = from;
        in->dst = from = new_register(l, false);
    }
    wf_row_instr *in = add_instr(l, WF_ROW_COPY, !full);
    in->src[0] = from;
    in->dst = (wf_row_arg){WF_ARG_MEM, v->out};
}

/* A copy or conversion from memory to memory of the type of arithmetic: one load. */
static bool copies_memory(const wf_lowering *l, const wf_value *v) {
    if (v->code != WF_ROW_COPY || v->attr || v->out < 0 || l->settled[v->src[0]]) return false;
    const wf_value *s = &l->b->value[v->src[0]];
    return s->code == WF_ROW_NONE && s->narrow == v->narrow && s->uses == 1 && writable(l, v);
}

static void lower_value(wf_lowering *l, int i) {
    wf_value *v = &l->b->value[i];
    wf_row_arg src[3];
    double constant = v->imm;
    if (v->code == WF_ROW_COPY && l->b->value[v->src[0]].code == WF_ROW_FILL) { /* a constant that goes to memory */
        constant = l->b->value[v->src[0]].imm;
        v->code = WF_ROW_FILL;
        v->src[0] = -1;
        if (v->out >= 0) v->narrow = !is_full_mem(l->b, &l->b->mem[v->out]);
    }
    bool narrow_instr = v->narrow && !wf_is_row_reduction(v->code);
    if (copies_memory(l, v)) {
        wf_row_instr *in = add_instr(l, WF_ROW_COPY, v->narrow);
        in->src[0] = (wf_row_arg){WF_ARG_MEM, l->b->value[v->src[0]].mem};
        in->dst = (wf_row_arg){WF_ARG_MEM, v->out};
        settle(l, i, in->dst);
        return;
    }
    operands(l, v, narrow_instr, src, &constant);
    bool direct = v->out >= 0 && writable(l, v);
    wf_row_arg dst = direct ? (wf_row_arg){WF_ARG_MEM, v->out} : new_register(l, v->narrow);
    wf_row_instr *in = add_instr(l, v->code, v->narrow);
    in->dst = dst;
    memcpy(in->src, src, sizeof src);
    in->imm = constant;
    in->attr[0] = v->attr;
    memcpy(in->number, v->number, sizeof in->number);
    if (wf_is_generator(v->code)) in->index_mem = v->mem;
    if (wf_is_accumulation(v->code))
        l->p->n_accum++;
    else
        settle(l, i, dst);
    if (v->out >= 0 && !direct) store(l, v, dst);
}

static wf_status lower_values(wf_lowering *l) {
    const wf_builder *b = l->b;
    for (int i = 0; i < b->n_value && !l->failed; i++) {
        const wf_value *v = &b->value[i];
        if (wf_value_used(v) && v->code != WF_ROW_NONE && v->code != WF_ROW_FILL) lower_value(l, i);
    }
    return l->failed ? WF_ENOMEM : WF_OK;
}

/* ---- registers ---- */

typedef struct wf_allocation {
    int *last, *real, *unused[2], n_unused[2], n_real[2]; /* [0] full, [1] narrow */
} wf_allocation;

static void release_dead(const wf_lowering *l, wf_allocation *a, int i) {
    const wf_row_instr *in = &l->p->instr[i];
    for (int k = 0; k < 3; k++) {
        int v = in->src[k].kind == WF_ARG_REG ? in->src[k].index : -1;
        if (v < 0 || a->last[v] != i) continue;
        int c = l->virtual_narrow[v];
        a->unused[c][a->n_unused[c]++] = a->real[v];
        a->last[v] = -1; /* once, should it stand twice */
    }
}

/* In order of the instructions; a result may take the register of an operand that dies, for kernels work in place. */
static wf_status allocate(wf_lowering *l) {
    wf_rowprog *p = l->p;
    wf_allocation a = {0};
    int n = l->n_virtual + 1;
    int *memory = wf_alloc_array((size_t)n * 4, sizeof *memory);
    if (!memory) return WF_ENOMEM;
    a.last = memory, a.real = memory + n, a.unused[0] = memory + 2 * n, a.unused[1] = memory + 3 * n;
    for (int i = 0; i < p->n_instr; i++) {
        for (int k = 0; k < 3; k++)
            if (p->instr[i].src[k].kind == WF_ARG_REG && p->instr[i].src[k].index >= 0) a.last[p->instr[i].src[k].index] = i;
        if (p->instr[i].dst.kind == WF_ARG_REG) a.last[p->instr[i].dst.index] = i;
    }
    for (int i = 0; i < p->n_instr; i++) {
        wf_row_instr *in = &p->instr[i];
        release_dead(l, &a, i);
        for (int k = 0; k < 3; k++)
            if (in->src[k].kind == WF_ARG_REG && in->src[k].index >= 0) in->src[k].index = a.real[in->src[k].index];
        if (in->dst.kind != WF_ARG_REG) continue;
        int v = in->dst.index, c = l->virtual_narrow[v];
        a.real[v] = a.n_unused[c] ? a.unused[c][--a.n_unused[c]] : a.n_real[c]++;
        in->dst.index = a.real[v];
    }
    p->n_full = a.n_real[0];
    p->n_narrow = a.n_real[1];
    p->n_reg = p->n_full + p->n_narrow;
    wf_free(memory);
    return WF_OK;
}

/* Narrow registers are numbered behind the full ones. An instruction's narrow operands are known by its own kind: see rows.c. */
static wf_status number_registers(wf_lowering *l, const bool *src_narrow) {
    wf_rowprog *p = l->p;
    p->reg_narrow = wf_arena_alloc(l->b->f->arena, (size_t)p->n_reg + 1);
    if (!p->reg_narrow) return WF_ENOMEM;
    for (int r = p->n_full; r < p->n_reg; r++) p->reg_narrow[r] = true;
    for (int i = 0; i < p->n_instr; i++) {
        wf_row_instr *in = &p->instr[i];
        for (int k = 0; k < 3; k++)
            if (in->src[k].kind == WF_ARG_REG && in->src[k].index >= 0 && src_narrow[i * 3 + k]) in->src[k].index += p->n_full;
        if (in->dst.kind == WF_ARG_REG && in->dst_narrow) in->dst.index += p->n_full;
    }
    return WF_OK;
}

static wf_status settle_registers(wf_lowering *l) {
    wf_rowprog *p = l->p;
    bool *narrow = wf_alloc_array((size_t)p->n_instr * 3 + 1, sizeof *narrow);
    if (!narrow) return WF_ENOMEM;
    for (int i = 0; i < p->n_instr; i++)
        for (int k = 0; k < 3; k++) {
            wf_row_arg s = p->instr[i].src[k];
            if (s.kind == WF_ARG_REG && s.index >= 0) narrow[i * 3 + k] = l->virtual_narrow[s.index];
        }
    wf_status s = allocate(l);
    if (s == WF_OK) s = number_registers(l, narrow);
    wf_free(narrow);
    return s;
}

/* ---- blocks ---- */

static int64_t clamp(int64_t x, int64_t lo, int64_t hi) {
    return x < lo ? lo : x > hi ? hi : x;
}

/* A number of each row, or one for all of them? */
static bool varies_by_row(const wf_builder *b, const wf_row_mem *m) {
    for (int i = 0; i < b->space.rank - 1; i++)
        if (m->stride[i] != 0) return true;
    return b->space.rank == 1;
}

/* At most `rows`, and if possible such that all blocks along the last row axis are alike: kernels are bound for one size. */
static int64_t even_rows(const wf_shape *space, int64_t rows) {
    int64_t inner = space->rank > 1 ? space->dim[space->rank - 2] : 1;
    for (int64_t r = rows; r > 1 && r * 3 >= rows * 2; r--)
        if (inner % r == 0) return r;
    return rows;
}

static int full_instructions(const wf_rowprog *p) {
    int n = 0;
    for (int i = 0; i < p->n_instr; i++) n += !p->instr[i].dst_narrow || wf_is_row_reduction(p->instr[i].code);
    return n;
}

/* Registers and the memory that a block touches stay in the first cache. A row that does not, goes through the program in tiles. */
static void choose_blocks(wf_lowering *l, const bool *used) {
    wf_rowprog *p = l->p;
    const wf_builder *b = l->b;
    int64_t cols = wf_space_cols(&p->space), size = (int64_t)wf_dtype_size(p->compute);
    int64_t full = p->n_full * size, narrow = p->n_narrow * 8,
            once = 0; /* bytes: of a column of a row, of a row, of a column */
    bool whole = has_row_values(b);
    for (int m = 0; m < p->n_mem; m++) {
        if (!used[m] || p->mem[m].slot < 0) continue;
        int64_t bytes = (int64_t)wf_dtype_size(p->mem[m].dtype);
        if (!is_full_mem(b, &p->mem[m]))
            narrow += 8;
        else if (varies_by_row(b, &p->mem[m]))
            full += bytes;
        else
            once += bytes;
    }
    p->block_cols = cols;
    if (full == 0) full = size;
    if (cols == 1) {
        p->block_rows = clamp(CACHE / (narrow + 1), 64, MOST_ROWS);
        return;
    }
    int64_t room = wf_space_rows(&p->space) > 1 ? SECOND_CACHE : CACHE; /* rows that follow each other share what is once */
    if (!whole && cols * (full + once) > room) {
        int64_t pieces = (cols * (full + once) + room - 1) / room;
        p->block_cols = clamp(((cols + pieces - 1) / pieces + 63) & ~(int64_t)63, LEAST_COLUMNS, cols);
        cols = p->block_cols;
    }
    p->block_rows = even_rows(&p->space, clamp((CACHE - cols * once) / (cols * full), 1, MOST_WIDE_ROWS));
    if (size == 4 && p->block_rows == 1 && room == SECOND_CACHE && cols > WF_ROW_PIECE &&
        full_instructions(p) > FEW_INSTRUCTIONS)
        p->tile_cols = WF_ROW_PIECE;
}

/* ---- memory that an output may take over ---- */

/* May output memory y (out[k]) be that of in[j]? Same addresses for the same element, and read no later than y is written. */
static bool may_take(const wf_lowering *l, const wf_step *s, int y, int j) {
    const wf_rowprog *p = l->p;
    const wf_node *x = s->in[j], *o = s->out[p->mem[y].slot];
    bool read = false;
    if (x->offset != 0 || x->dtype != o->dtype || wf_shape_count(&x->base->shape) != wf_shape_count(&o->shape)) return false;
    for (int k = 0; k < s->n_in; k++)
        if (k != j && s->in[k]->base == x->base) return false;
    int write = -1;
    for (int i = p->n_instr - 1; i >= 0; i--)
        if (p->instr[i].dst.kind == WF_ARG_MEM && p->instr[i].dst.index == y) write = i;
    if (write < 0 || wf_is_accumulation(p->instr[write].code)) return false;
    for (int i = 0; i < p->n_instr; i++)
        for (int k = 0; k < 3; k++) {
            wf_row_arg a = p->instr[i].src[k];
            if (a.kind != WF_ARG_MEM || p->mem[a.index].slot != j || p->mem[a.index].output) continue;
            if (i > write || !wf_same_strides(&p->space, p->mem[a.index].stride, p->mem[y].stride)) return false;
            read = true;
        }
    return read;
}

static wf_status choose_aliases(const wf_lowering *l, wf_step *s) {
    s->may_alias = wf_arena_alloc(l->b->f->arena, ((size_t)s->n_out + 1) * sizeof *s->may_alias);
    if (!s->may_alias) return WF_ENOMEM;
    for (int k = 0; k < s->n_out; k++) s->may_alias[k] = -1;
    for (int m = 0; m < l->p->n_mem; m++) {
        if (!l->p->mem[m].output) continue;
        int *choice = &s->may_alias[l->p->mem[m].slot];
        for (int j = 0; *choice < 0 && j < s->n_in; j++)
            if (may_take(l, s, m, j)) *choice = j;
    }
    return WF_OK;
}

wf_status wf_lower(wf_builder *b, wf_step *s) {
    wf_lowering l = {.b = b};
    wf_arena *arena = b->f->arena;
    wf_rowprog *p = l.p = s->program = wf_arena_alloc(arena, sizeof *p);
    bool *used = wf_arena_alloc(arena, (size_t)b->n_mem + 1);
    size_t most = (size_t)b->n_value * 4 + 8; /* a value takes a load for each operand, a register, and one to be expanded */
    l.at = wf_arena_alloc(arena, (size_t)(b->n_value + 1) * sizeof *l.at);
    l.settled = wf_arena_alloc(arena, (size_t)b->n_value + 1);
    l.virtual_narrow = wf_arena_alloc(arena, most);
    if (!p || !used || !l.at || !l.settled || !l.virtual_narrow) return WF_ENOMEM;
    mark_used_mems(b, used);
    settle_axes(b, used);
    p->compute = b->unit->compute;
    p->mem = b->mem;
    p->n_mem = b->n_mem;
    p->n_in = s->n_in;
    p->n_out = s->n_out;
    WF_TRY(lower_values(&l));
    p->space = b->space;
    p->woven = b->woven;
    for (p->n_kept = 0; p->n_kept < b->space.rank - 1 && !b->reduced[p->n_kept];) p->n_kept++;
    WF_TRY(settle_registers(&l));
    choose_blocks(&l, used);
    return choose_aliases(&l, s);
}
