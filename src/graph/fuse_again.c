/* fuse_again.c: what a program computes again instead of reading it.
 *
 * A sum over rows is complete only when its program is, so what needs the sum runs in a second program over the same rows. Cheap
 * results that both of them use (a difference from a mean, a product with a gain) would be written by the first and read by the
 * second; mostly the second reads their operands anyway, or reads one tensor in place of another. Then it computes them itself
 * and nothing is written.
 *
 * A candidate is a pointwise result of full size that only other row programs read from memory. With everything pointwise behind it
 * in its group it becomes a member of all its readers' groups as well, if the bytes that they read more are fewer than those
 * that are neither written nor read any longer.
 */
#include "graph/fuse.h"

#include <string.h>

enum { MOST_CHAIN = 8, MOST_READERS = 8, MOST_FRESH = 8, MOST_MEMBERS = 96, MOST_PASSES = 4 };

bool wf_repeats(const wf_fuser *f, int unit, int id) {
    for (int i = 0; i < f->n_repeat; i++)
        if (f->repeat[i].unit == unit && f->repeat[i].id == id) return true;
    return false;
}

/* Arithmetic that costs less than to fetch a number. */
static bool is_light(const wf_node *n) {
    static const bool light[WF_ROW_CODES] = {
        [WF_ROW_COPY] = true,    [WF_ROW_NEG] = true,     [WF_ROW_ABS] = true,     [WF_ROW_SQUARE] = true,
        [WF_ROW_ADD_IMM] = true, [WF_ROW_MUL_IMM] = true, [WF_ROW_MAX_IMM] = true, [WF_ROW_MIN_IMM] = true,
        [WF_ROW_ADD] = true,     [WF_ROW_SUB] = true,     [WF_ROW_MUL] = true,     [WF_ROW_MAX] = true,
        [WF_ROW_MIN] = true,     [WF_ROW_LT] = true,      [WF_ROW_LE] = true,      [WF_ROW_EQ] = true,
        [WF_ROW_NE] = true,      [WF_ROW_WHERE] = true,
    };
    return wf_is_row(n) && light[n->op->row] && !(n->op->flags & (WF_OP_IN_PLACE | WF_OP_EFFECT));
}

/* One reading group and what it would have to compute. */
typedef struct wf_again {
    wf_fuser *f;
    const wf_unit *unit; /* the reader */
    int home;            /* unit of the candidate */
    int chain[MOST_CHAIN], n_chain;
    const wf_node *fresh[MOST_FRESH]; /* full operands that the group does not read so far */
    int n_fresh;
    int64_t fresh_bytes;
    wf_fit_class fit;
    const wf_node *wanted; /* of reads_already */
    bool ok, found;
} wf_again;

static int64_t bytes_of(const wf_node *n) {
    int64_t b = (int64_t)wf_dtype_size(n->dtype);
    for (int i = 0; i < n->shape.rank; i++)
        if (n->stride[i] != 0) b *= n->shape.dim[i];
    return b;
}

static void see_read(void *ctx, wf_node *reader, wf_node *x) {
    wf_again *a = ctx;
    if (x->base == a->wanted) a->found = true;
}

static bool reads_already(wf_again *a, const wf_node *base) {
    a->wanted = base;
    a->found = false;
    for (int i = 0; i < a->n_fresh; i++)
        if (a->fresh[i] == base) return true;
    for (int i = 0; i < a->unit->n && !a->found; i++)
        wf_each_input(a->f, wf_graph_node(a->f->g, a->unit->member[i]), see_read, a);
    return a->found;
}

/* A leaf that is written in place is not what it was. */
static bool is_written(const wf_fuser *f, const wf_node *x) {
    for (int w = 0; w < f->n_writes; w++)
        if (wf_memory_owner(f->write[w]) == wf_memory_owner(x)) return true;
    return false;
}

static bool in_chain(const wf_again *a, int id) {
    for (int i = 0; i < a->n_chain; i++)
        if (a->chain[i] == id) return true;
    return false;
}

static void follow(wf_again *a, wf_node *n);

static void see_operand(void *ctx, wf_node *reader, wf_node *x) {
    wf_again *a = ctx;
    wf_node *b = x->base;
    int64_t read[WF_MAX_RANK], made[WF_MAX_RANK], all = wf_space_rows(&a->unit->space) * wf_space_cols(&a->unit->space);
    int home = a->f->unit_of[b->id];
    if (!a->ok) return;
    a->ok = wf_operand_strides(reader, x, &a->unit->space, WF_FIT_FULL, read) && !is_written(a->f, x);
    if (!a->ok) return;
    bool inner = home == a->unit->index || wf_repeats(a->f, a->unit->index, b->id);
    if (inner || (home == a->home && is_light(b) && wf_shape_count(&b->shape) == all && !a->f->keep[b->id])) {
        a->ok = x->offset == 0 && !(inner && wf_is_accumulation(b->op->row)) && wf_fit_in(b, &a->unit->space) == WF_FIT_FULL &&
                wf_result_strides(b, &a->unit->space, WF_FIT_FULL, made) && wf_same_strides(&a->unit->space, read, made);
        if (a->ok && !inner) follow(a, b);
        return;
    }
    /* in memory: made elsewhere, or a small result of the same home, which is then written */
    if (home == a->home && !a->f->keep[b->id] && wf_shape_count(&b->shape) * 8 > all) {
        a->ok = false;
        return;
    }
    if (reads_already(a, b)) return;
    a->ok = a->n_fresh < MOST_FRESH;
    if (!a->ok) return;
    a->fresh[a->n_fresh++] = b;
    a->fresh_bytes += bytes_of(x);
}

/* n as a member of the reading group: over its space, with everything behind it. */
static void follow(wf_again *a, wf_node *n) {
    int64_t stride[WF_MAX_RANK];
    if (!a->ok || in_chain(a, n->id)) return;
    a->ok = a->n_chain < MOST_CHAIN && is_light(n) && wf_fit_in(n, &a->unit->space) == WF_FIT_FULL &&
            wf_result_strides(n, &a->unit->space, WF_FIT_FULL, stride) && wf_try_clones(a->f, n, &a->unit->space, WF_FIT_FULL);
    if (!a->ok) return;
    a->chain[a->n_chain++] = n->id;
    wf_each_input(a->f, n, see_operand, a);
}

/* The reading group's operators must find n where they look for it. */
static void see_use(void *ctx, wf_node *reader, wf_node *x) {
    wf_again *a = ctx;
    int64_t read[WF_MAX_RANK], made[WF_MAX_RANK];
    if (!a->ok || x->base != a->wanted) return;
    wf_fit_class c = wf_fit_in(reader, &a->unit->space);
    a->ok = c == WF_FIT_FULL && !wf_is_generator(reader->op->row) && !a->f->cloned[reader->id] && x->offset == 0 &&
            wf_operand_strides(reader, x, &a->unit->space, c, read) &&
            wf_result_strides(x->base, &a->unit->space, WF_FIT_FULL, made) && wf_same_strides(&a->unit->space, read, made);
}

/* May `unit` compute n itself, and what would it read more? */
static bool could_repeat(wf_again *a, wf_fuser *f, int unit, wf_node *n) {
    *a = (wf_again){.f = f, .unit = f->unit[unit], .home = f->unit_of[n->id], .ok = true};
    if (!a->unit->row || a->unit->compute != f->unit[a->home]->compute || a->unit->n + MOST_CHAIN > MOST_MEMBERS) return false;
    if (wf_shape_count(&n->shape) != wf_space_rows(&a->unit->space) * wf_space_cols(&a->unit->space)) return false;
    follow(a, n);
    a->wanted = n;
    for (int i = 0; i < a->unit->n && a->ok; i++) wf_each_input(f, wf_graph_node(f->g, a->unit->member[i]), see_use, a);
    return a->ok;
}

static wf_status add_repeat(wf_fuser *f, int unit, int id) {
    wf_unit *u = f->unit[unit];
    int *all = wf_alloc_array((size_t)u->n + 1, sizeof *all), at = 0;
    if (!all) return WF_ENOMEM;
    if (f->n_repeat == f->cap_repeat) {
        int cap = f->cap_repeat ? 2 * f->cap_repeat : 32;
        wf_repeat *r = wf_grow(f->repeat, (size_t)f->n_repeat * sizeof *r, (size_t)cap * sizeof *r);
        if (!r) {
            wf_free(all);
            return WF_ENOMEM;
        }
        f->repeat = r;
        f->cap_repeat = cap;
    }
    f->repeat[f->n_repeat++] = (wf_repeat){unit, id};
    while (at < u->n && u->member[at] < id) at++;
    memcpy(all, u->member, (size_t)at * sizeof *all);
    all[at] = id;
    memcpy(all + at + 1, u->member + at, (size_t)(u->n - at) * sizeof *all);
    wf_free(u->member);
    u->member = all;
    u->n++;
    return WF_OK;
}

/* Other groups that read n from memory; -1: one of them is no row program, or they are too many. */
static int list_readers(const wf_fuser *f, const wf_node *n, int *unit) {
    int count = 0;
    for (int k = f->reader_at[n->id]; k < f->reader_at[n->id + 1]; k++)
        for (int i = -1; i < f->n_repeat; i++) {
            if (i >= 0 && f->repeat[i].id != f->reader[k]) continue;
            int u = i < 0 ? f->unit_of[f->reader[k]] : f->repeat[i].unit;
            bool listed = u < 0 || u == f->unit_of[n->id] || wf_repeats(f, u, n->id);
            for (int j = 0; j < count && !listed; j++) listed = unit[j] == u;
            if (listed) continue;
            if (count == MOST_READERS || !f->unit[u]->row) return -1;
            unit[count++] = u;
        }
    return count;
}

static wf_status consider(wf_fuser *f, wf_node *n) {
    wf_again again[MOST_READERS];
    int reader[MOST_READERS], count = list_readers(f, n, reader);
    int64_t more = 0, bytes = bytes_of(n);
    if (count <= 0) return WF_OK;
    for (int i = 0; i < count; i++) {
        if (!could_repeat(&again[i], f, reader[i], n)) return WF_OK;
        more += again[i].fresh_bytes;
    }
    if (more >= bytes * (count + 1)) return WF_OK;
    for (int i = 0; i < count; i++)
        for (int k = 0; k < again[i].n_chain; k++)
            if (!wf_repeats(f, reader[i], again[i].chain[k])) WF_TRY(add_repeat(f, reader[i], again[i].chain[k]));
    return WF_OK;
}

static wf_status pass(wf_fuser *f) {
    for (int i = 0; i < f->n; i++) {
        wf_node *n = f->order[i];
        int home = f->unit_of[n->id];
        if (home < 0 || n->base != n || f->cloned[n->id] || f->keep[n->id] || !is_light(n)) continue;
        const wf_shape *space = &f->unit[home]->space;
        if (wf_shape_count(&n->shape) == wf_space_rows(space) * wf_space_cols(space)) WF_TRY(consider(f, n));
    }
    return WF_OK;
}

/* A repeated result may bring its operand to a group that did not read it: then that operand is looked at again. */
wf_status wf_repeat_cheap(wf_fuser *f) {
    for (int passes = 0, before = -1; passes < MOST_PASSES && before != f->n_repeat; passes++) {
        before = f->n_repeat;
        WF_TRY(pass(f));
    }
    return WF_OK;
}
