/* place.c: where results live. Liveness of storages over the steps, assignments, reuse in place, offsets in one arena.
 *
 * Views live in their base's storage. A step's result may take over the memory of an input that dies at that step, when the
 * fuser allows it; a value may be written straight into the leaf it is assigned to. Everything else is interval packing.
 */
#include "graph/planned.h"

#include <string.h>

/* ---- storages ---- */

int wf_storage_of(const wf_plan *p, const wf_node *n) {
    const wf_node *b = n->base;
    while (b->op && b->op->flags & WF_OP_IN_PLACE) b = b->in[0]->base;
    return p->storage_of[b->id];
}

int wf_storage_extra(wf_plan *p, size_t bytes, int first, int last) {
    if (p->n_storages == p->cap_storages) {
        int cap = p->cap_storages ? p->cap_storages * 2 : 256;
        wf_storage *s = wf_grow(p->storage, (size_t)p->n_storages * sizeof *s, (size_t)cap * sizeof *s);
        if (!s) return -1;
        p->storage = s;
        p->cap_storages = cap;
    }
    p->storage[p->n_storages] = (wf_storage){.bytes = bytes, .first = first, .last = last, .buffer = -1};
    return p->n_storages++;
}

static wf_status make_storages(wf_plan *p) {
    p->n_storages = 0;
    p->leaf_bytes = 0;
    for (int i = 0; i < p->n_ids; i++) p->storage_of[i] = -1;
    for (int i = 0; i < p->n_order; i++) {
        wf_node *n = p->order[i];
        if (n->base != n || (n->op && n->op->flags & WF_OP_IN_PLACE)) continue;
        int k = wf_storage_extra(p, wf_node_bytes(n), -1, -1);
        if (k < 0) return WF_ENOMEM;
        p->storage_of[n->id] = k;
        p->storage[k].owner = n;
        p->storage[k].leaf = n->leaf;
        p->storage[k].leaf_node = n->leaf ? n : NULL;
        if (n->leaf) p->leaf_bytes += wf_node_bytes(n);
    }
    return WF_OK;
}

/* ---- lives ---- */

static void touch(wf_plan *p, const wf_node *n, int step) {
    int k = n ? wf_storage_of(p, n) : -1;
    if (k >= 0 && p->storage[k].last < step) p->storage[k].last = step;
}

/* first: the step that writes; last: the last step that reads or writes (before assignments and results are considered). */
static void find_lives(wf_plan *p) {
    for (int i = 0; i < p->n_steps; i++) {
        wf_step *s = p->step[i];
        wf_copy *c = wf_step_copy(s);
        if (c) {
            p->storage[c->from].last = i;
            if (p->storage[c->to].first < 0) p->storage[c->to].first = i;
            p->storage[c->to].last = i;
        }
        for (int k = 0; k < s->n_out; k++) {
            int o = s->out[k] ? wf_storage_of(p, s->out[k]) : -1;
            if (o >= 0 && p->storage[o].first < 0) p->storage[o].first = i;
            touch(p, s->out[k], i);
        }
        for (int j = 0; j < s->n_in; j++) touch(p, s->in[j], i);
    }
}

/* ---- when may one memory serve an output and an input of the same step? ---- */

/* Every element of input mem `a` is at the address of the element of output mem `b` of the same iteration, and is used by no
 * instruction behind the one that writes b. */
static bool mem_fits(const wf_rowprog *r, int a, int b) {
    const wf_row_mem *x = &r->mem[a], *y = &r->mem[b];
    if (x->dtype != y->dtype) return false;
    for (int i = 0; i < r->space.rank; i++) {
        if (r->space.dim[i] == 1) continue;
        if (x->stride[i] != y->stride[i] || x->stride[i] == 0) return false;
    }
    int last_read = -1, first_write = r->n_instr;
    for (int i = r->n_instr - 1; i >= 0; i--) {
        const wf_row_instr *in = &r->instr[i];
        for (int k = 0; k < 3; k++)
            if (in->src[k].kind == WF_ARG_MEM && in->src[k].index == a && last_read < i) last_read = i;
        if (in->dst.kind == WF_ARG_MEM && in->dst.index == b) first_write = i;
    }
    return last_read <= first_write;
}

bool wf_step_allows(const wf_step *s, int k, int j) {
    const wf_node *x = s->in[j], *y = s->out[k];
    if (!y || x->offset != 0) return false;
    if (s->may_alias && s->may_alias[k] == j) return true;
    if (!s->program || !s->may_alias || s->may_alias[k] < 0) return false; /* the fuser allows this output no partner at all */
    const wf_rowprog *r = s->program;
    bool read = false;
    for (int a = 0; a < r->n_mem; a++) {
        if (r->mem[a].output || r->mem[a].slot != j) continue;
        read = true;
        for (int b = 0; b < r->n_mem; b++)
            if (r->mem[b].output && r->mem[b].slot == k && !mem_fits(r, a, b)) return false;
    }
    return read;
}

/* May out[k] of the step overwrite storage `at`, which the step reads? Every operand in that storage must agree. */
static bool may_overwrite(const wf_plan *p, const wf_step *s, int k, int at) {
    bool read = false;
    for (int j = 0; j < s->n_in; j++) {
        if (wf_storage_of(p, s->in[j]) != at) continue;
        if (!wf_step_allows(s, k, j)) return false;
        read = true;
    }
    return read;
}

/* ---- assignments ---- */

enum { PIECE = 1 << 20 };

static wf_status copy_forward(const wf_call *c) {
    size_t bytes = wf_node_bytes(c->node), pieces = (bytes + PIECE - 1) / PIECE;
#pragma omp parallel for schedule(static) if (pieces > 1) num_threads(wf_threads())
    for (size_t i = 0; i < pieces; i++)
        memcpy((char *)c->out[0] + i * PIECE, (char *)c->in[0] + i * PIECE, i + 1 < pieces ? PIECE : bytes - i * PIECE);
    return WF_OK;
}

static const wf_op copy_op = {.name = "copy", .forward = copy_forward};

wf_copy *wf_step_copy(wf_step *s) {
    return s->op == &copy_op ? (wf_copy *)s : NULL;
}

/* Append a copy of node n's dense elements (in storage `from`) to storage `to`. */
static wf_status add_copy(wf_plan *p, wf_node *n, int from, size_t offset, int to) {
    wf_copy *c = wf_arena_alloc(p->arena, sizeof *c);
    void **ends = wf_arena_alloc(p->arena, 2 * sizeof *ends);
    if (!c || !ends) return WF_ENOMEM;
    c->step.op = &copy_op;
    c->step.node = n;
    c->step.call.in = ends;
    c->step.call.out = ends + 1;
    c->from = from;
    c->to = to;
    c->offset = offset;
    p->step[p->n_steps++] = &c->step;
    return WF_OK;
}

static wf_status add_copy_of(wf_plan *p, wf_node *n, int to) {
    return add_copy(p, n, wf_storage_of(p, n), (size_t)n->offset * wf_dtype_size(n->dtype), to);
}

static bool is_assigned(const wf_plan *p, int storage) {
    for (int i = 0; i < p->n_assign; i++)
        if (wf_storage_of(p, p->assign[i].leaf) == storage) return true;
    return false;
}

/* The step that writes the node; -1: a leaf. */
static int producer(const wf_plan *p, const wf_node *n) {
    int k = wf_storage_of(p, n);
    if (!p->storage[k].leaf) return p->storage[k].first;
    for (int i = p->n_steps - 1; i >= 0; i--) /* written in place */
        for (int o = 0; o < p->step[i]->n_out; o++)
            if (p->step[i]->out[o] == n->base) return i;
    return -1;
}

/* Can the step that computes the value write into the leaf's memory? Only where nobody sees the old value afterwards. */
static bool can_be_direct(const wf_plan *p, const wf_assignment *a) {
    int l = wf_storage_of(p, a->leaf), v = wf_storage_of(p, a->value);
    const wf_node *owner = a->value->base;
    if (p->options.no_reuse || p->storage[v].leaf || p->storage[l].first >= 0) return false;
    if (a->value->offset != 0 || wf_node_bytes(a->value) != wf_node_bytes(owner)) return false;
    int made = p->storage[v].first, seen = p->storage[l].last;
    if (seen != made) return seen < made;
    const wf_step *s = p->step[made];
    for (int k = 0; k < s->n_out; k++)
        if (s->out[k] == owner) return may_overwrite(p, s, k, l);
    return false;
}

/* Values and results that live in an assigned leaf are read at the very end, before anything overwrites them. */
static wf_status find_late_readers(wf_plan *p) {
    int end = p->n_steps;
    for (int i = 0; i < p->n_out; i++) {
        if (!is_assigned(p, wf_storage_of(p, p->out[i]))) continue;
        touch(p, p->out[i], end);
        if ((p->out_snapshot[i] = wf_storage_extra(p, wf_node_bytes(p->out[i]), -1, -1)) < 0) return WF_ENOMEM;
    }
    for (int i = 0; i < p->n_assign; i++) {
        wf_assignment *a = &p->assign[i];
        if (!is_assigned(p, wf_storage_of(p, a->value))) continue;
        touch(p, a->value, end);
        if ((a->snapshot = wf_storage_extra(p, wf_node_bytes(a->value), -1, -1)) < 0) return WF_ENOMEM;
    }
    return WF_OK;
}

static wf_status decide_assignments(wf_plan *p) {
    if (p->n_assign == 0) return WF_OK;
    WF_TRY(find_late_readers(p));
    for (int i = 0; i < p->n_assign; i++) {
        wf_assignment *a = &p->assign[i];
        int l = wf_storage_of(p, a->leaf), v = wf_storage_of(p, a->value), made = producer(p, a->value);
        a->direct = can_be_direct(p, a);
        a->after = a->snapshot >= 0 ? p->n_steps : p->storage[l].last > made ? p->storage[l].last : made;
        if (!a->direct) continue;
        p->storage[v].leaf = p->storage[l].leaf; /* from here on the value's memory is the leaf's */
        p->storage[v].leaf_node = a->leaf;
    }
    return WF_OK;
}

static wf_status add_assign_copies(wf_plan *p, int after) {
    for (int k = 0; k < p->n_assign; k++) {
        wf_assignment *a = &p->assign[k];
        int l = wf_storage_of(p, a->leaf);
        if (a->direct || a->after != after) continue;
        if (a->snapshot >= 0)
            WF_TRY(add_copy(p, a->node, a->snapshot, 0, l));
        else
            WF_TRY(add_copy_of(p, a->value, l));
    }
    return WF_OK;
}

/* Rewrite the list of steps with the copies in it. */
static wf_status insert_copies(wf_plan *p) {
    int end = p->n_steps;
    wf_step **old = wf_alloc_array((size_t)end + 1, sizeof *old);
    if (!old) return WF_ENOMEM;
    memcpy(old, p->step, (size_t)end * sizeof *old);
    p->n_steps = 0;
    wf_status status = add_assign_copies(p, -1);
    for (int i = 0; i < end && status == WF_OK; i++) {
        p->step[p->n_steps++] = old[i];
        status = add_assign_copies(p, i);
    }
    for (int i = 0; i < p->n_out && status == WF_OK; i++)
        if (p->out_snapshot[i] >= 0) status = add_copy_of(p, p->out[i], p->out_snapshot[i]);
    for (int i = 0; i < p->n_assign && status == WF_OK; i++)
        if (p->assign[i].snapshot >= 0) status = add_copy_of(p, p->assign[i].value, p->assign[i].snapshot);
    if (status == WF_OK) status = add_assign_copies(p, end);
    wf_free(old);
    return status;
}

/* ---- final lives and pieces of the arena ---- */

/* Kernels get memory for outputs nobody asked for, too. */
static wf_status give_idle_outputs(wf_plan *p, wf_step *s, int step) {
    for (int k = 0; k < s->n_out; k++) {
        wf_dtype t;
        wf_shape shape;
        if (s->out[k]) continue;
        WF_TRY(s->op->infer_more(s->node, k, &t, &shape));
        int at = wf_storage_extra(p, (size_t)wf_shape_count(&shape) * wf_dtype_size(t), step, step);
        if (at < 0) return WF_ENOMEM;
        s->call.out[k] = (void *)(intptr_t)(at + 1); /* bound by plan.c */
    }
    return WF_OK;
}

static wf_status settle_lives(wf_plan *p) {
    for (int i = 0; i < p->n_storages; i++) p->storage[i].first = p->storage[i].last = -1;
    find_lives(p);
    for (int i = 0; i < p->n_out; i++) {
        int k = p->out_snapshot[i] >= 0 ? p->out_snapshot[i] : wf_storage_of(p, p->out[i]);
        p->storage[k].last = p->n_steps;
    }
    for (int i = 0; i < p->n_steps; i++) {
        wf_step *s = p->step[i];
        if (wf_step_copy(s)) continue;
        s->call.in = wf_arena_alloc(p->arena, ((size_t)s->n_in + 1) * sizeof *s->call.in);
        s->call.out = wf_arena_alloc(p->arena, ((size_t)s->n_out + 1) * sizeof *s->call.out);
        if (!s->call.in || !s->call.out) return WF_ENOMEM;
        WF_TRY(give_idle_outputs(p, s, i));
    }
    return WF_OK;
}

static size_t padded(size_t bytes) {
    return (bytes + 63) & ~(size_t)63;
}

/* The dying input whose memory out[k] can take over, -1: none. */
static int partner(const wf_plan *p, const wf_step *s, int step, int k) {
    int o = s->out[k] ? wf_storage_of(p, s->out[k]) : -1;
    if (o < 0 || p->storage[o].leaf || p->storage[o].first != step || p->storage[o].last == step) return -1;
    for (int j = 0; j < s->n_in; j++) {
        int i = wf_storage_of(p, s->in[j]);
        const wf_storage *x = &p->storage[i];
        if (x->leaf || x->last != step || padded(x->bytes) != padded(p->storage[o].bytes)) continue;
        if (p->buffer[x->buffer].last == step && may_overwrite(p, s, k, i)) return i;
    }
    return -1;
}

static wf_status make_buffers(wf_plan *p) {
    p->n_buffers = 0;
    p->buffer = wf_alloc_array((size_t)p->n_storages + 1, sizeof *p->buffer);
    int *by_first = wf_alloc_array((size_t)p->n_steps + 1, sizeof *by_first); /* storages by the step that makes them */
    int *next = wf_alloc_array((size_t)p->n_storages + 1, sizeof *next);
    bool ok = p->buffer && by_first && next;
    for (int i = 0; ok && i < p->n_steps; i++) by_first[i] = -1;
    for (int k = 0; ok && k < p->n_storages; k++) {
        wf_storage *s = &p->storage[k];
        s->buffer = -1;
        if (s->leaf || s->first < 0) continue;
        next[k] = by_first[s->first];
        by_first[s->first] = k;
    }
    for (int i = 0; ok && i < p->n_steps; i++) {
        const wf_step *s = p->step[i];
        for (int k = 0; k < s->n_out && !p->options.no_reuse; k++) {
            int from = partner(p, s, i, k);
            if (from < 0) continue;
            wf_storage *o = &p->storage[wf_storage_of(p, s->out[k])];
            o->buffer = p->storage[from].buffer;
            p->buffer[o->buffer].last = o->last;
        }
        for (int k = by_first[i]; k >= 0; k = next[k]) {
            wf_storage *o = &p->storage[k];
            if (o->buffer >= 0) continue;
            o->buffer = p->n_buffers;
            p->buffer[p->n_buffers++] = (wf_buffer){.bytes = padded(o->bytes), .first = o->first, .last = o->last};
        }
    }
    wf_free(by_first);
    wf_free(next);
    return ok ? WF_OK : WF_ENOMEM;
}

wf_status wf_place(wf_plan *p) {
    WF_TRY(make_storages(p));
    find_lives(p);
    WF_TRY(decide_assignments(p));
    WF_TRY(insert_copies(p));
    WF_TRY(settle_lives(p));
    WF_TRY(make_buffers(p));
    if (p->options.no_reuse) {
        p->arena_bytes = 0;
        for (int i = 0; i < p->n_buffers; i++) {
            p->buffer[i].offset = p->arena_bytes;
            p->arena_bytes += p->buffer[i].bytes;
        }
        p->live_bytes = p->arena_bytes;
        return WF_OK;
    }
    return wf_place_offsets(p->buffer, p->n_buffers, p->n_steps, &p->arena_bytes, &p->live_bytes);
}
