/* fuse_build.c: a group of row operators as values over the group's iteration space: one for each operator, for each operand in
 * memory, and for what is computed in place of being read (constants, coordinates, random numbers, converted leaves). */
#include "graph/fuse.h"

#include <string.h>

/* ---- lists ---- */

static void *longer(wf_builder *b, void *list, int n, int *cap, size_t size) {
    if (n < *cap) return list;
    int more = *cap ? *cap * 2 : 32;
    void *p = wf_arena_alloc(b->f->arena, (size_t)more * size);
    if (!p) {
        b->failed = true;
        return NULL;
    }
    if (n) memcpy(p, list, (size_t)n * size);
    *cap = more;
    return p;
}

int wf_value_new(wf_builder *b, const wf_value *v) {
    void *p = longer(b, b->value, b->n_value, &b->cap_value, sizeof *b->value);
    if (!p) return 0;
    b->value = p;
    b->value[b->n_value] = *v;
    return b->n_value++;
}

static const wf_value blank = {.src = {-1, -1, -1}, .mem = -1, .out = -1};

int wf_value_constant(wf_builder *b, double c) {
    for (int i = 0; i < b->n_value; i++)
        if (b->value[i].code == WF_ROW_FILL && !memcmp(&b->value[i].imm, &c, sizeof c)) return i;
    wf_value v = blank;
    v.code = WF_ROW_FILL;
    v.imm = c;
    v.narrow = true;
    return wf_value_new(b, &v);
}

static int slot_of(wf_builder *b, wf_node *x) {
    for (int i = 0; i < b->n_in; i++)
        if (b->in[i] == x) return i;
    void *p = longer(b, b->in, b->n_in, &b->cap_in, sizeof *b->in);
    if (!p) return 0;
    b->in = p;
    b->in[b->n_in] = x;
    return b->n_in++;
}

/* slot -1: a linear index, no memory. */
static int mem_new(wf_builder *b, int slot, bool output, const wf_node *x, const int64_t *stride) {
    int cap = b->cap_mem;
    void *p = longer(b, b->mem, b->n_mem, &cap, sizeof *b->mem);
    void *q = longer(b, b->mem_node, b->n_mem, &b->cap_mem, sizeof *b->mem_node);
    if (!p || !q) return 0;
    b->mem = p;
    b->mem_node = q;
    wf_row_mem *m = &b->mem[b->n_mem];
    *m = (wf_row_mem){.slot = slot, .output = output, .dtype = x ? x->dtype : WF_I32};
    for (int i = 0; i < b->space.rank; i++) m->stride[i] = b->space.dim[i] == 1 ? 0 : stride[i];
    b->mem_node[b->n_mem] = x;
    return b->n_mem++;
}

/* ---- operands ---- */

/* x in memory; views of the same elements are one value. */
static int read_memory(wf_builder *b, wf_node *x, const int64_t *stride) {
    for (int i = 0; i < b->n_value; i++) {
        const wf_value *v = &b->value[i];
        if (v->code != WF_ROW_NONE) continue;
        const wf_node *y = b->mem_node[v->mem];
        if (y->base == x->base && y->offset == x->offset && wf_same_strides(&b->space, b->mem[v->mem].stride, stride)) return i;
    }
    wf_value v = blank;
    v.mem = mem_new(b, slot_of(b, x), false, x, stride);
    v.narrow = b->space.dim[b->space.rank - 1] == 1 || stride[b->space.rank - 1] == 0;
    return wf_value_new(b, &v);
}

static int64_t dense_stride(const wf_node *n, int axis) {
    int64_t s = 1;
    for (int i = axis + 1; i < n->shape.rank; i++) s *= n->shape.dim[i];
    return s;
}

/* Node n, a generator, over the linear index given by `stride` from `offset` on. */
static int generate(wf_builder *b, const wf_node *n, const int64_t *stride, int64_t offset) {
    wf_value v = blank;
    int64_t none[WF_MAX_RANK] = {0};
    if (n->op->row == WF_ROW_FILL) return wf_value_constant(b, n->attr.f[0]);
    v.code = (wf_row_code)n->op->row;
    if (v.code == WF_ROW_INDEX) {
        v.number[0] = dense_stride(n, (int)n->attr.i[0]);
        v.number[1] = n->shape.dim[n->attr.i[0]];
    } else {
        v.number[0] = n->attr.i[0];
        v.number[1] = n->dtype == WF_BF16 ? 8 : 24;
        v.src[0] = read_memory(b, n->in[0], none);
    }
    v.number[2] = offset;
    v.narrow = b->space.dim[b->space.rank - 1] == 1 || stride[b->space.rank - 1] == 0;
    v.mem = mem_new(b, -1, false, NULL, stride);
    return wf_value_new(b, &v);
}

/* Does every number of dtype a exist in dtype b? */
static bool holds(wf_dtype b, wf_dtype a) {
    if (a == b || b == WF_F64) return true;
    if (a == WF_U8 || a == WF_I8) return b == WF_I32 || b == WF_F32 || b == WF_BF16;
    return a == WF_BF16 && b == WF_F32;
}

static int64_t rounding(wf_dtype from, wf_dtype to) {
    return holds(to, from) ? 0 : (int64_t)to + 1;
}

/* Operand x of n. */
static int operand(wf_builder *b, wf_node *n, wf_node *x, wf_fit_class c) {
    int64_t stride[WF_MAX_RANK];
    wf_node *base = x->base;
    const wf_unit *u = b->unit;
    if (b->f->cloned[base->id] && base->op->row == WF_ROW_FILL) return wf_value_constant(b, base->attr.f[0]);
    for (int i = 0; i < u->n; i++)
        if (u->member[i] == base->id) return b->value_of[i];
    if (!wf_operand_strides(n, x, &b->space, c, stride)) b->failed = true;
    if (!b->f->cloned[base->id]) return read_memory(b, x, stride);
    if (wf_is_generator(base->op->row)) return generate(b, base, stride, x->offset);
    wf_value v = blank; /* a converted leaf */
    v.src[0] = read_memory(b, base->in[0], stride);
    v.attr = rounding(base->in[0]->dtype, base->dtype);
    if (!v.attr) return v.src[0];
    v.code = WF_ROW_COPY;
    v.narrow = b->value[v.src[0]].narrow;
    return wf_value_new(b, &v);
}

/* ---- members ---- */

/* Over a row of equal numbers, or of one. */
static void reduce_equal(wf_value *v, int64_t cols) {
    if (v->code == WF_ROW_SUM && cols != 1) {
        v->code = WF_ROW_MUL_IMM;
        v->imm = (double)cols;
    } else {
        v->code = WF_ROW_COPY;
    }
}

static int expand(wf_builder *b, int src) {
    wf_value v = blank;
    v.code = WF_ROW_COPY;
    v.src[0] = src;
    return wf_value_new(b, &v);
}

/* A sum over rows: full or narrow like its result; a copy when there is nothing to add up. */
static void accumulate(wf_builder *b, wf_value *v, const int64_t *result) {
    bool some = false;
    int last = b->space.rank - 1;
    for (int i = 0; i < last; i++) {
        if (b->space.dim[i] == 1 || result[i] != 0) continue;
        b->reduced[i] = true;
        some = true;
    }
    v->narrow = b->space.dim[last] == 1 || result[last] == 0;
    if (!some) v->code = WF_ROW_COPY;
    if (!v->narrow && b->value[v->src[0]].narrow) v->src[0] = expand(b, v->src[0]);
}

/* Integers are computed as floating-point numbers: what can leave their range or fall between them is brought back. */
static int keep_integer(wf_builder *b, const wf_node *n, int v) {
    static const bool leaves[WF_ROW_CODES] = {
        [WF_ROW_ADD] = true,     [WF_ROW_SUB] = true,     [WF_ROW_MUL] = true,     [WF_ROW_DIV] = true,
        [WF_ROW_POW] = true,     [WF_ROW_NEG] = true,     [WF_ROW_ABS] = true,     [WF_ROW_SQUARE] = true,
        [WF_ROW_ADD_IMM] = true, [WF_ROW_MUL_IMM] = true, [WF_ROW_MAX_IMM] = true, [WF_ROW_MIN_IMM] = true,
        [WF_ROW_SUM] = true};
    if (wf_is_float(n->dtype) || !leaves[n->op->row]) return v;
    wf_value r = blank;
    r.code = WF_ROW_COPY;
    r.src[0] = v;
    r.attr = (int64_t)n->dtype + 1;
    r.narrow = b->value[v].narrow;
    return wf_value_new(b, &r);
}

static wf_status add_member(wf_builder *b, int i) {
    wf_node *n = wf_graph_node(b->f->g, b->unit->member[i]);
    wf_fit_class c = wf_fit_in(n, &b->space);
    int64_t result[WF_MAX_RANK], cols = b->space.dim[b->space.rank - 1];
    if (c == WF_FIT_NO || !wf_result_strides(n, &b->space, c, result))
        return wf_fail(WF_EINVAL, "fusion: %s does not fit", n->op->name);
    if (wf_is_generator(n->op->row) || n->op->row == WF_ROW_FILL) {
        b->value_of[i] = generate(b, n, result, 0);
    } else {
        wf_value v = blank;
        v.code = (wf_row_code)n->op->row;
        v.narrow = true;
        v.imm = n->attr.f[0];
        for (int j = 0; j < n->n_in; j++) {
            v.src[j] = operand(b, n, n->in[j], c);
            if (b->failed) return WF_ENOMEM;
            v.narrow = v.narrow && b->value[v.src[j]].narrow;
        }
        if (v.code == WF_ROW_COPY) v.attr = rounding(n->in[0]->dtype, n->dtype);
        if (wf_is_row_reduction(v.code) && b->value[v.src[0]].narrow) reduce_equal(&v, c == WF_FIT_FULL ? cols : 1);
        if (wf_is_row_reduction(v.code)) v.narrow = true;
        if (wf_is_accumulation(v.code)) accumulate(b, &v, result);
        b->value_of[i] = keep_integer(b, n, wf_value_new(b, &v));
    }
    bool own = b->f->unit_of[n->id] == b->unit->index;
    if (b->failed || !own || !wf_needs_memory(b->f, n)) return b->failed ? WF_ENOMEM : WF_OK;
    if (b->value[b->value_of[i]].out >= 0 || b->value[b->value_of[i]].code == WF_ROW_FILL) { /* one memory a value */
        wf_value v = blank;
        v.code = WF_ROW_COPY;
        v.src[0] = b->value_of[i];
        v.narrow = b->value[v.src[0]].narrow;
        b->value_of[i] = wf_value_new(b, &v);
    }
    b->value[b->value_of[i]].out = mem_new(b, b->n_out, true, n, result);
    b->out[b->n_out++] = n;
    return b->failed ? WF_ENOMEM : WF_OK;
}

static void want_operand(void *ctx, wf_node *reader, wf_node *x) {
    wf_builder *b = ctx;
    for (int i = 0; i < b->unit->n; i++)
        if (b->unit->member[i] == x->base->id) b->wanted[i] = true;
}

/* Members behind results that go to memory: others compute the rest for themselves. */
static bool find_wanted(wf_builder *b) {
    bool some = false;
    for (int i = b->unit->n - 1; i >= 0; i--) {
        wf_node *n = wf_graph_node(b->f->g, b->unit->member[i]);
        if (b->f->unit_of[n->id] == b->unit->index && wf_needs_memory(b->f, n)) b->wanted[i] = some = true;
        if (b->wanted[i]) wf_each_input(b->f, n, want_operand, b);
    }
    return some;
}

wf_status wf_build_step(wf_fuser *f, wf_unit *u, wf_step **step) {
    wf_builder b = {.f = f, .unit = u, .space = u->space};
    wf_step *s = wf_arena_alloc(f->arena, sizeof *s);
    b.value_of = wf_arena_alloc(f->arena, (size_t)u->n * sizeof *b.value_of);
    b.out = wf_arena_alloc(f->arena, (size_t)u->n * sizeof *b.out);
    b.wanted = wf_arena_alloc(f->arena, (size_t)u->n * sizeof *b.wanted);
    *step = NULL;
    if (!s || !b.value_of || !b.out || !b.wanted) return WF_ENOMEM;
    if (!find_wanted(&b)) return WF_OK;
    for (int i = 0; i < u->n; i++) b.value_of[i] = -1;
    for (int i = 0; i < u->n; i++)
        if (b.wanted[i]) WF_TRY(add_member(&b, i));
    if (f->fuse)
        wf_peephole(&b);
    else
        for (int i = 0; i < b.n_value; i++)
            for (int j = 0; j < 3; j++)
                if (b.value[i].src[j] >= 0) b.value[b.value[i].src[j]].uses++;
    if (b.failed) return WF_ENOMEM;
    s->node = wf_graph_node(f->g, u->member[u->n - 1]);
    s->in = b.in;
    s->n_in = b.n_in;
    s->out = b.out;
    s->n_out = b.n_out;
    *step = s;
    return wf_lower(&b, s);
}
