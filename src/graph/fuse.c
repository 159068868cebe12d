/* fuse.c: which row operators share a program, and in which order the steps run.
 *
 * Operators are visited in id order. Each begins as a group of its own, which is then merged with the groups that produce its
 * operands, or that have just read the same ones, when
 *   - all members run over one iteration space and agree on the addresses of what they pass to each other (fuse_space.c);
 *   - no path leads from one group to the other through a third (sums over rows count as such: they are complete only when the
 *     program is): groups that others may join have a bit, and every unit has the set of bits that it depends on;
 *   - no result has to wait in memory, and no computation has to be done early, because of the merger.
 * Fills, coordinates, random numbers and conversions of leaves (WF_OP_CHEAP) are computed again in each group that reads them.
 */
#include "graph/fuse.h"

#include <limits.h>
#include <string.h>

enum { MOST_MEMBERS = 96, MOST_OPERANDS = 24, NEAR = 64 };

/* ---- inputs ---- */

static bool is_cheap(const wf_node *n) {
    return n->op && n->op->flags & WF_OP_CHEAP;
}

void wf_each_input(wf_fuser *f, wf_node *n, wf_see_input see, void *ctx) {
    int n_in = n->op->flags & WF_OP_VIEW ? 1 : n->n_in;
    for (int j = 0; j < n_in; j++) {
        wf_node *x = n->in[j];
        if (f->cloned[x->base->id])
            wf_each_input(f, x->base, see, ctx);
        else
            see(ctx, n, x);
    }
}

const wf_node *wf_memory_owner(const wf_node *n) {
    const wf_node *b = n->base;
    while (b->op && b->op->flags & WF_OP_IN_PLACE) b = b->in[0]->base;
    return b;
}

/* Does `unit` read n's result from memory, when it computes a reader of it? */
static bool reads_memory(const wf_fuser *f, int unit, const wf_node *n) {
    return unit != f->unit_of[n->id] && !wf_repeats(f, unit, n->id);
}

bool wf_needs_memory(const wf_fuser *f, const wf_node *n) {
    if (f->keep[n->id] || wf_is_accumulation(n->op->row)) return true;
    for (int k = f->reader_at[n->id]; k < f->reader_at[n->id + 1]; k++) {
        int r = f->reader[k];
        if (reads_memory(f, f->unit_of[r], n)) return true;
        for (int i = 0; i < f->n_repeat; i++)
            if (f->repeat[i].id == r && reads_memory(f, f->repeat[i].unit, n)) return true;
    }
    return false;
}

/* ---- dependences between units ---- */

typedef struct wf_depends {
    wf_fuser *f;
    const wf_unit *self;
    void (*on)(void *ctx, wf_unit *u);
    void *ctx;
} wf_depends;

static void depend(wf_depends *d, int unit) {
    if (unit >= 0 && d->f->unit[unit] != d->self) d->on(d->ctx, d->f->unit[unit]);
}

static void input_unit(void *ctx, wf_node *reader, wf_node *x) {
    wf_depends *d = ctx;
    if (!wf_repeats(d->f, d->self->index, x->base->id)) depend(d, d->f->unit_of[x->base->id]);
    for (int w = 0; w < d->f->n_writes; w++) { /* a leaf that was written in place before */
        const wf_node *write = d->f->write[w];
        if (write->id < reader->id && wf_memory_owner(write) == wf_memory_owner(x)) depend(d, d->f->unit_of[write->id]);
    }
}

/* An operator that writes in place waits for those who read the memory before. */
static void wait_for_readers(wf_depends *d, const wf_node *write) {
    const wf_fuser *f = d->f;
    for (int i = 0; i < f->n && f->order[i]->id < write->id; i++) {
        const wf_node *b = f->order[i];
        if (b->base != b || wf_memory_owner(b) != wf_memory_owner(write)) continue;
        for (int k = f->reader_at[b->id]; k < f->reader_at[b->id + 1]; k++)
            if (f->reader[k] < write->id) depend(d, f->unit_of[f->reader[k]]);
    }
}

/* Calls `on` for the units that u (and no other) waits for; some more than once. */
static void each_dependence(wf_fuser *f, const wf_unit *u, void (*on)(void *, wf_unit *), void *ctx) {
    wf_depends d = {f, u, on, ctx};
    for (int i = 0; i < u->n; i++) {
        wf_node *n = wf_graph_node(f->g, u->member[i]);
        wf_each_input(f, n, input_unit, &d);
        if (n->op->flags & WF_OP_IN_PLACE) wait_for_readers(&d, n);
    }
}

static uint64_t bit(const wf_unit *u) {
    return u->slot >= 0 ? (uint64_t)1 << u->slot : 0;
}

static void add_mask(void *ctx, wf_unit *d) {
    *(uint64_t *)ctx |= d->mask | bit(d);
}

/* ---- may two groups become one? ---- */

typedef struct wf_pair {
    wf_fuser *f;
    const wf_unit *a, *b;
    uint64_t forbidden;
    bool cycle;
    int latest; /* last member id of the units seen */
} wf_pair;

static int last_member(const wf_unit *u) {
    return u->member[u->n - 1];
}

static void through_third(void *ctx, wf_unit *d) {
    wf_pair *p = ctx;
    if (d == p->a || d == p->b) return;
    if (d->mask & p->forbidden) p->cycle = true;
    if (last_member(d) > p->latest) p->latest = last_member(d);
}

/* The first operator so far, outside of both, that reads a result of u. */
static int first_reader(const wf_fuser *f, const wf_unit *u, const wf_unit *other) {
    int first = INT_MAX;
    for (int i = 0; i < u->n; i++)
        for (int k = f->reader_at[u->member[i]]; k < f->reader_at[u->member[i] + 1]; k++) {
            int r = f->reader[k], w = f->unit_of[r];
            if (w >= 0 && f->unit[w] != u && f->unit[w] != other && r < first) first = r;
        }
    return first;
}

static int64_t largest_result(const wf_fuser *f, const wf_unit *u) {
    int64_t most = 0;
    for (int i = 0; i < u->n; i++) {
        int64_t c = wf_shape_count(&wf_graph_node(f->g, u->member[i])->shape);
        if (c > most) most = c;
    }
    return most;
}

/* Order and memory: with readers of a's results already waiting, b's other inputs must be there by then, and b's results must
 * be small unless b comes right after a. */
static bool well_timed(wf_fuser *f, const wf_unit *a, const wf_unit *b) {
    wf_pair pa = {f, a, b, bit(b), false, -1}, pb = {f, a, b, bit(a), false, -1};
    each_dependence(f, a, through_third, &pa);
    each_dependence(f, b, through_third, &pb);
    if (pa.cycle || pb.cycle) return false;
    int ra = first_reader(f, a, b), rb = first_reader(f, b, a);
    if (pb.latest > ra || pa.latest > rb) return false;
    bool near = f->last_plain < last_member(a);
    if (ra != INT_MAX && !near && largest_result(f, b) * 8 > wf_space_rows(&a->space) * wf_space_cols(&a->space)) return false;
    return true;
}

/* Axes of the space that a sum over rows adds up, as bits. */
static unsigned reduced_axes(const wf_shape *space, const int64_t *result) {
    unsigned bits = 0;
    for (int i = 0; i < space->rank - 1; i++)
        if (space->dim[i] != 1 && result[i] == 0) bits |= 1u << i;
    return bits;
}

typedef struct wf_trial { /* all members of two units over one space */
    wf_fuser *f;
    const wf_unit *a, *b;
    const wf_shape *space;
    int64_t reduced; /* bits of the axes that sums over rows add up, -1: none yet */
    int n_seen;
    const wf_node *seen[MOST_OPERANDS + 1];
    wf_fit_class fit;
    bool ok;
} wf_trial;

static bool inside(const wf_trial *t, const wf_node *base) {
    int u = t->f->unit_of[base->id];
    return u >= 0 && (t->f->unit[u] == t->a || t->f->unit[u] == t->b);
}

/* An operand that a member computes must be at the same place in both views; others must have an address at all. */
static void try_input(void *ctx, wf_node *reader, wf_node *x) {
    wf_trial *t = ctx;
    int64_t read[WF_MAX_RANK], made[WF_MAX_RANK];
    bool generator = wf_is_generator(reader->op->row);
    if (!t->ok) return;
    if (!generator && !t->f->cloned[reader->id] && !wf_operand_strides(reader, x, t->space, t->fit, read)) {
        t->ok = false;
        return;
    }
    if (inside(t, x->base)) {
        const wf_node *m = x->base;
        wf_fit_class c = wf_fit_in(m, t->space);
        t->ok = !generator && !t->f->cloned[reader->id] && !wf_is_accumulation(m->op->row) && x->offset == 0 &&
                c != WF_FIT_NO && wf_result_strides(m, t->space, c, made) && wf_same_strides(t->space, read, made);
        return;
    }
    for (int i = 0; i < t->n_seen; i++)
        if (t->seen[i] == x->base) return;
    if (t->n_seen == MOST_OPERANDS)
        t->ok = false;
    else
        t->seen[t->n_seen++] = x->base;
}

bool wf_try_clones(const wf_fuser *f, const wf_node *n, const wf_shape *space, wf_fit_class fit) {
    int64_t s[WF_MAX_RANK];
    for (int j = 0; j < n->n_in; j++) {
        const wf_node *c = n->in[j]->base;
        if (!f->cloned[c->id] || c->op->row == WF_ROW_FILL) continue;
        if (!wf_operand_strides(n, n->in[j], space, fit, s)) return false;
    }
    return true;
}

static bool try_member(wf_trial *t, wf_node *n) {
    int64_t result[WF_MAX_RANK];
    const wf_shape *s = wf_iteration_shape(n);
    t->fit = wf_fit_in(n, t->space);
    if (t->fit == WF_FIT_NO || !wf_result_strides(n, t->space, t->fit, result)) return false;
    int64_t last = s->rank ? s->dim[s->rank - 1] : 1;
    if (wf_is_row_reduction(n->op->row) && last != 1 && (t->fit != WF_FIT_FULL || last != wf_space_cols(t->space)))
        return false;
    if (wf_is_accumulation(n->op->row)) {
        int64_t bits = reduced_axes(t->space, result);
        /* What n takes for rows of one number would be the program's columns, and those it cannot add up. */
        if (t->fit == WF_FIT_FULL && wf_space_cols(t->space) > 1 && result[t->space->rank - 1] == 0) return false;
        if (t->reduced >= 0 && t->reduced != bits) return false;
        t->reduced = bits;
    }
    if (!wf_try_clones(t->f, n, t->space, t->fit)) return false;
    wf_each_input(t->f, n, try_input, t);
    return t->ok;
}

static bool fits(wf_fuser *f, const wf_unit *a, const wf_unit *b, const wf_shape *space) {
    wf_trial t = {.f = f, .a = a, .b = b, .space = space, .reduced = -1, .ok = true};
    for (int i = 0; i < b->n; i++) /* the newer one first: it fails more often */
        if (!try_member(&t, wf_graph_node(f->g, b->member[i]))) return false;
    for (int i = 0; i < a->n; i++)
        if (!try_member(&t, wf_graph_node(f->g, a->member[i]))) return false;
    return true;
}

/* ---- merging ---- */

/* Ascending ids of both. */
static bool join_members(wf_unit *a, const wf_unit *b) {
    int *all = wf_alloc_array((size_t)(a->n + b->n), sizeof *all), n = 0;
    if (!all) return false;
    for (int i = 0, j = 0; i < a->n || j < b->n;)
        all[n++] = j == b->n || (i < a->n && a->member[i] < b->member[j]) ? a->member[i++] : b->member[j++];
    wf_free(a->member);
    a->member = all;
    a->n = n;
    return true;
}

static bool merge(wf_fuser *f, wf_unit *a, wf_unit *b, const wf_shape *space) {
    if (!join_members(a, b)) return false;
    a->space = *space;
    for (int i = 0; i < b->n; i++) f->unit_of[b->member[i]] = a->index;
    uint64_t old_b = bit(b), bit_a = bit(a), mask = 0;
    b->gone = true;
    f->open[b->slot] = NULL;
    b->slot = -1;
    each_dependence(f, a, add_mask, &mask);
    mask &= ~(old_b | bit_a);
    for (int i = 0; i < f->n_units; i++) {
        wf_unit *u = f->unit[i];
        if (u->gone || u == a) continue;
        if (u->mask & (old_b | bit_a)) u->mask = (u->mask & ~old_b) | bit_a | mask;
    }
    a->mask = mask;
    return true;
}

/* The merged unit, or b as it was. */
static wf_unit *try_merge(wf_fuser *f, wf_unit *a, wf_unit *b) {
    if (a == b || !a || a->gone || a->slot < 0 || b->slot < 0 || a->compute != b->compute || a->n + b->n > MOST_MEMBERS)
        return b;
    int64_t ca = wf_space_rows(&a->space) * wf_space_cols(&a->space), cb = wf_space_rows(&b->space) * wf_space_cols(&b->space);
    const wf_shape *first = ca >= cb ? &a->space : &b->space, *second = ca >= cb ? &b->space : &a->space;
    bool one = fits(f, a, b, first);
    if (!one && ca == cb && !wf_shape_equal(first, second) && fits(f, a, b, second)) {
        first = second;
        one = true;
    }
    wf_shape space = *first;
    if (!one || !well_timed(f, a, b) || !merge(f, a, b, &space)) return b;
    return a;
}

/* ---- visiting ---- */

static void close_slot(wf_fuser *f, int slot) {
    uint64_t old = (uint64_t)1 << slot;
    f->open[slot]->slot = -1;
    f->open[slot] = NULL;
    for (int i = 0; i < f->n_units; i++) f->unit[i]->mask &= ~old;
}

/* A free slot, if need be that of the group that has been left alone longest. */
static int take_slot(wf_fuser *f) {
    int oldest = 0;
    for (int s = 0; s < 64; s++) {
        if (!f->open[s]) return s;
        if (last_member(f->open[s]) < last_member(f->open[oldest])) oldest = s;
    }
    close_slot(f, oldest);
    return oldest;
}

/* Arithmetic is in float32, but in float64 where an operand or the result is, and where all are integers. */
static wf_dtype compute_type(const wf_node *n) {
    bool floats = false;
    for (int k = -1; k < n->n_in; k++) {
        wf_dtype t = k < 0 ? n->dtype : n->in[k]->dtype;
        if (k >= 0 && wf_is_generator(n->op->row)) continue; /* the seed is no number */
        if (t == WF_F64) return WF_F64;
        floats = floats || wf_is_float(t);
    }
    return floats ? WF_F32 : WF_F64;
}

static wf_unit *new_unit(wf_fuser *f, wf_node *n) {
    wf_unit *u = wf_arena_alloc(f->arena, sizeof *u);
    if (!u || !(u->member = wf_alloc_array(1, sizeof *u->member))) return NULL;
    u->member[0] = n->id;
    u->n = 1;
    u->slot = -1;
    u->index = f->n_units;
    u->row = wf_is_row(n);
    f->unit[f->n_units++] = u;
    f->unit_of[n->id] = u->index;
    each_dependence(f, u, add_mask, &u->mask);
    if (!u->row) return u;
    u->space = wf_iteration_space(n);
    u->compute = compute_type(n);
    u->slot = take_slot(f);
    u->mask &= ~bit(u); /* the slot was another group's until now */
    f->open[u->slot] = u;
    return u;
}

static wf_unit *unit_of(wf_fuser *f, const wf_node *base) {
    int u = f->unit_of[base->id];
    return u < 0 ? NULL : f->unit[u];
}

/* Producers of n's operands first, then groups that have just read the same ones. */
static void place_row(wf_fuser *f, wf_node *n, wf_unit *u) {
    for (int j = n->n_in - 1; j >= 0; j--) {
        wf_unit *p = unit_of(f, n->in[j]->base);
        if (p && p->row) u = try_merge(f, p, u);
    }
    for (int j = 0; j < n->n_in; j++) {
        const wf_node *b = n->in[j]->base;
        int last = f->last_reader[b->id];
        wf_unit *r = last < 0 ? NULL : f->unit[f->unit_of[last]];
        bool full = wf_shape_count(&n->in[j]->shape) == wf_shape_count(wf_iteration_shape(n)) && wf_shape_count(&b->shape) > 1;
        if (r && full && last_member(r) > f->last_plain && n->id - last_member(r) <= NEAR) u = try_merge(f, r, u);
    }
    for (int j = 0; j < n->n_in; j++) f->last_reader[n->in[j]->base->id] = n->id;
}

static wf_status visit(wf_fuser *f) {
    for (int i = 0; i < f->n; i++) {
        wf_node *n = f->order[i];
        if (!n->op || n->op->flags & WF_OP_VIEW || f->cloned[n->id]) continue;
        if (n->op == &wf_op_output) { /* written by the step of its operator */
            f->unit_of[n->id] = f->unit_of[n->in[0]->id];
            continue;
        }
        wf_unit *u = new_unit(f, n);
        if (!u) return WF_ENOMEM;
        if (u->row && f->fuse) place_row(f, n, u);
        if (!u->row) f->last_plain = n->id;
        if (n->op->flags & WF_OP_IN_PLACE) f->write[f->n_writes++] = n;
    }
    return WF_OK;
}

/* ---- preparation ---- */

static int inputs_of(const wf_node *n) {
    return n->op && !(n->op->flags & WF_OP_VIEW) ? n->n_in : 0;
}

static wf_status list_readers(wf_fuser *f) {
    f->reader_at = wf_alloc_array((size_t)f->n_ids + 2, sizeof *f->reader_at);
    if (!f->reader_at) return WF_ENOMEM;
    int *at = f->reader_at, total = 0;
    for (int i = 0; i < f->n; i++)
        for (int j = 0; j < inputs_of(f->order[i]); j++, total++) at[f->order[i]->in[j]->base->id + 2]++;
    f->reader = wf_alloc_array((size_t)total + 1, sizeof *f->reader);
    if (!f->reader) return WF_ENOMEM;
    for (int id = 0; id <= f->n_ids; id++) at[id + 1] += at[id];
    for (int i = 0; i < f->n; i++)
        for (int j = 0; j < inputs_of(f->order[i]); j++) f->reader[at[f->order[i]->in[j]->base->id + 1]++] = f->order[i]->id;
    return WF_OK;
}

static bool read_from_start(const wf_node *reader, const wf_node *base) {
    for (int j = 0; j < reader->n_in; j++)
        if (reader->in[j]->base == base && reader->in[j]->offset != 0) return false;
    return true;
}

/* Worth computing in every reader: row operators read it, each element once. A fill is one number in any shape. */
static void choose_clones(wf_fuser *f) {
    for (int i = 0; f->fuse && i < f->n; i++) {
        const wf_node *n = f->order[i];
        if (!is_cheap(n) || f->keep[n->id]) continue;
        bool clone = true;
        for (int k = f->reader_at[n->id]; clone && k < f->reader_at[n->id + 1]; k++) {
            const wf_node *r = wf_graph_node(f->g, f->reader[k]);
            bool random = n->op->row == WF_ROW_UNIFORM || n->op->row == WF_ROW_NORMAL;
            clone = wf_is_row(r) && !wf_is_generator(r->op->row) && !is_cheap(r);
            if (clone && random) clone = wf_shape_count(wf_iteration_shape(r)) == wf_shape_count(&n->shape);
            if (clone && n->op->row == WF_ROW_COPY) clone = wf_is_dense(n->in[0]) && read_from_start(r, n);
        }
        f->cloned[n->id] = clone;
    }
}

static wf_status open_fuser(wf_fuser *f) {
    size_t n = (size_t)f->n_ids + 1;
    f->unit_of = wf_alloc_array(n, sizeof *f->unit_of);
    f->cloned = wf_alloc_array(n, sizeof *f->cloned);
    f->last_reader = wf_alloc_array(n, sizeof *f->last_reader);
    f->unit = wf_alloc_array(n, sizeof *f->unit);
    f->write = wf_alloc_array(n, sizeof *f->write);
    if (!f->unit_of || !f->cloned || !f->last_reader || !f->unit || !f->write) return WF_ENOMEM;
    for (int id = 0; id < f->n_ids; id++) f->unit_of[id] = f->last_reader[id] = -1;
    f->last_plain = -1;
    WF_TRY(list_readers(f));
    choose_clones(f);
    return WF_OK;
}

static void close_fuser(wf_fuser *f) {
    for (int i = 0; f->unit && i < f->n_units; i++) wf_free(f->unit[i]->member);
    wf_free(f->unit_of);
    wf_free(f->cloned);
    wf_free(f->last_reader);
    wf_free(f->unit);
    wf_free(f->write);
    wf_free(f->repeat);
    wf_free(f->reader_at);
    wf_free(f->reader);
}

/* ---- order of steps ---- */

typedef struct wf_emitter {
    wf_fuser *f;
    wf_unit **stack;
    int depth, cap;
    wf_step **step;
    int n;
    bool failed;
} wf_emitter;

static void push_pending(void *ctx, wf_unit *d) {
    wf_emitter *e = ctx;
    if (d->emitted || e->failed) return;
    if (e->depth == e->cap) {
        int cap = e->cap ? e->cap * 2 : 256;
        wf_unit **s = wf_grow(e->stack, (size_t)e->depth * sizeof *s, (size_t)cap * sizeof *s);
        if (!s) {
            e->failed = true;
            return;
        }
        e->stack = s;
        e->cap = cap;
    }
    e->stack[e->depth++] = d;
}

static wf_status plain_step(wf_fuser *f, wf_node *n, wf_step **step) {
    wf_step *s = wf_arena_alloc(f->arena, sizeof *s);
    if (!s || !(s->may_alias = wf_arena_alloc(f->arena, sizeof *s->may_alias)) ||
        !(s->out = wf_arena_alloc(f->arena, sizeof *s->out)))
        return WF_ENOMEM;
    s->op = n->op;
    s->node = n;
    s->in = n->in;
    s->n_in = n->n_in;
    s->n_out = 1;
    s->out[0] = n;
    s->may_alias[0] = -1;
    *step = s;
    return WF_OK;
}

static wf_status emit_one(wf_emitter *e, wf_unit *u) {
    u->emitted = true;
    wf_step **step = &e->step[e->n];
    WF_TRY(u->row ? wf_build_step(e->f, u, step) : plain_step(e->f, wf_graph_node(e->f->g, u->member[0]), step));
    if (*step) e->n++;
    return WF_OK;
}

/* u, after everything that it waits for. A unit is looked at once before and once after its dependences. */
static wf_status emit(wf_emitter *e, wf_unit *u) {
    e->depth = 0;
    push_pending(e, u);
    while (e->depth && !e->failed) {
        wf_unit *top = e->stack[e->depth - 1];
        int before = e->depth;
        if (!top->emitted) each_dependence(e->f, top, push_pending, e);
        if (e->depth > before) {
            if (++top->mark > 1) return wf_fail(WF_EINVAL, "fusion: groups wait for each other (node %d)", last_member(top));
            continue;
        }
        e->depth--;
        if (!top->emitted) WF_TRY(emit_one(e, top));
    }
    return e->failed ? WF_ENOMEM : WF_OK;
}

/* Units by their last member: close to the order in which the graph was built. */
static wf_status emit_all(wf_fuser *f, wf_step ***steps, int *n_steps) {
    wf_emitter e = {.f = f};
    e.step = wf_arena_alloc(f->arena, ((size_t)f->n_units + 1) * sizeof *e.step);
    wf_status s = e.step ? WF_OK : WF_ENOMEM;
    for (int i = 0; i < f->n && s == WF_OK; i++) {
        int id = f->order[i]->id;
        wf_unit *u = f->unit_of[id] < 0 ? NULL : f->unit[f->unit_of[id]];
        if (u && !u->emitted && last_member(u) == id) s = emit(&e, u);
    }
    wf_free(e.stack);
    *steps = e.step;
    *n_steps = e.n;
    return s;
}

wf_status wf_fuse(wf_graph *g, wf_arena *arena, wf_node *const *order, int n, const bool *keep, bool fuse, wf_step ***steps,
                  int *n_steps) {
    wf_fuser f = {.g = g, .arena = arena, .order = order, .n = n, .keep = keep, .fuse = fuse};
    f.n_ids = n ? order[n - 1]->id + 1 : 0;
    wf_status s = open_fuser(&f);
    if (s == WF_OK) s = visit(&f);
    if (s == WF_OK && fuse) s = wf_repeat_cheap(&f);
    if (s == WF_OK) s = emit_all(&f, steps, n_steps);
    close_fuser(&f);
    return s;
}
