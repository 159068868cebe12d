/* plan.c: what runs, in which order. Live nodes -> steps (fuse.c) -> memory (place.c) -> operators prepared, pointers bound.
 *
 * A plan holds its own list of live nodes: nodes added to the graph later, other plans of the same graph and repeated runs do
 * not disturb it. Assignments are not steps of the fuser: a value is written straight into its leaf's memory by the step that
 * computes it where nothing can still see the old value, and copied otherwise (place.c).
 */
#include "graph/planned.h"

#include <string.h>

/* ---- the live set ---- */

static bool fresh(wf_plan *p) {
    size_t n = (size_t)p->n_ids + 1;
    p->order = wf_arena_alloc(p->arena, n * sizeof *p->order);
    p->keep = wf_arena_alloc(p->arena, n * sizeof *p->keep);
    p->seen = wf_arena_alloc(p->arena, n * sizeof *p->seen);
    p->storage_of = wf_arena_alloc(p->arena, n * sizeof *p->storage_of);
    return p->order && p->keep && p->seen && p->storage_of;
}

/* Results are dense: a strided view is copied. */
static wf_status take_outs(wf_plan *p, wf_node *const *outs, int n) {
    p->out = wf_arena_alloc(p->arena, ((size_t)n + 1) * sizeof *p->out);
    p->out_data = wf_arena_alloc(p->arena, ((size_t)n + 1) * sizeof *p->out_data);
    p->out_snapshot = wf_arena_alloc(p->arena, ((size_t)n + 1) * sizeof *p->out_snapshot);
    if (!p->out || !p->out_data || !p->out_snapshot) return WF_ENOMEM;
    for (p->n_out = 0; p->n_out < n; p->n_out++) {
        wf_node *o = outs[p->n_out];
        if (!o) return wf_fail(WF_EINVAL, "plan: output %d is missing", p->n_out);
        if (o->graph != p->graph) return wf_fail(WF_EINVAL, "plan: output %d is a node of another graph", p->n_out);
        o = wf_latest(o);
        if (!wf_is_dense(o)) o = p->graph->backend->contiguous(p->graph, o);
        if (!o) return p->graph->status;
        p->out[p->n_out] = o;
        p->out_snapshot[p->n_out] = -1;
    }
    return WF_OK;
}

static wf_status take_effects(wf_plan *p, wf_node *const *effects, int n) {
    p->assign = wf_arena_alloc(p->arena, ((size_t)n + 1) * sizeof *p->assign);
    if (!p->assign) return WF_ENOMEM;
    for (int k = 0; k < n; k++) {
        if (!effects[k]) return wf_fail(WF_EINVAL, "plan: effect %d is missing", k);
        wf_node *e = wf_latest(effects[k]);
        if (e->graph != p->graph) return wf_fail(WF_EINVAL, "plan: effect %d is a node of another graph", k);
        if (e->op != &wf_op_assign) continue; /* a collective or a cache write: alive like any result */
        bool listed = false;
        for (int i = 0; i < p->n_assign; i++) {
            if (p->assign[i].leaf == e->in[0] && p->assign[i].node != e)
                return wf_fail(WF_EINVAL, "plan: leaf %s is assigned twice", e->in[0]->scope);
            listed = listed || p->assign[i].node == e;
        }
        if (!listed) p->assign[p->n_assign++] = (wf_assignment){.node = e, .leaf = e->in[0], .value = e->in[1], .snapshot = -1};
    }
    return WF_OK;
}

enum { LIVE = 1 };

/* A view depends on in[0] alone: what else it lists (custom derivatives) is for differentiation. */
static int needed_inputs(const wf_node *n) {
    return n->op && n->op->flags & WF_OP_VIEW ? 1 : n->n_in;
}

static void find_live(wf_plan *p, wf_node *const *effects, int n_effects) {
    uint32_t *live = p->seen;
    for (int k = 0; k < p->n_out; k++) {
        live[p->out[k]->id] = LIVE;
        p->keep[p->out[k]->id] = p->keep[p->out[k]->base->id] = true;
    }
    for (int k = 0; k < p->n_assign; k++) {
        wf_node *v = p->assign[k].value;
        live[p->assign[k].leaf->id] = live[v->id] = LIVE;
        p->keep[v->id] = p->keep[v->base->id] = true;
    }
    for (int k = 0; k < n_effects; k++)
        if (effects[k]->op != &wf_op_assign) live[effects[k]->id] = LIVE;
    for (int id = p->n_ids - 1; id >= 0; id--) {
        const wf_node *n = p->graph->node[id];
        if (!live[id]) continue;
        for (int j = 0; j < needed_inputs(n); j++) live[n->in[j]->id] = LIVE;
    }
    for (int id = 0; id < p->n_ids; id++)
        if (live[id]) p->order[p->n_order++] = p->graph->node[id];
    memset(p->seen, 0, (size_t)p->n_ids * sizeof *p->seen);
}

/* ---- steps ---- */

static wf_node *live_output(const wf_plan *p, const wf_node *n, int k) {
    for (int i = 0; i < p->n_order; i++) {
        wf_node *o = p->order[i];
        if (o->op == &wf_op_output && o->in[0] == n && o->out_index == k) return o;
    }
    return NULL;
}

/* A plain step's in and out pair with the operator's own. */
static wf_status pair_operands(wf_plan *p, wf_step *s) {
    wf_node *n = s->node, *alias = s->may_alias && s->n_out > 0 && s->may_alias[0] >= 0 ? s->in[s->may_alias[0]] : NULL;
    int n_out = n->op->n_out > 0 ? n->op->n_out : 1;
    wf_node **out = wf_arena_alloc(p->arena, (size_t)n_out * sizeof *out);
    int *may = wf_arena_alloc(p->arena, (size_t)n_out * sizeof *may);
    if (!out || !may) return WF_ENOMEM;
    s->in = n->in;
    s->n_in = n->n_in;
    s->out = out;
    s->n_out = n_out;
    s->may_alias = may;
    for (int k = 0; k < n_out; k++) {
        out[k] = k ? live_output(p, n, k) : n;
        may[k] = -1;
    }
    for (int j = 0; alias && j < n->n_in; j++)
        if (n->in[j] == alias) may[0] = j;
    return WF_OK;
}

/* What one call of the fuser sees: the nodes of one phase, and cheap ones of earlier phases that only row operators read here. */
typedef struct part {
    wf_node **node;
    int n;
    bool *keep;    /* by id */
    uint8_t *read; /* by id: by whom */
} part;

enum { BY_ROWS = 1, BY_OTHERS = 2 };

static int phase_of(const wf_plan *p, int at) {
    return p->graph->side[p->order[at]->id].phase;
}

/* How do order[from..to) read what was made before? */
static void find_imports(const wf_plan *p, part *a, int from, int to) {
    int first = p->order[from]->id;
    memset(a->read, 0, (size_t)first);
    for (int i = from; i < to; i++) {
        const wf_node *n = p->order[i];
        bool row = n->op && n->op->flags & WF_OP_ROW;
        if (!n->op || n->op->flags & WF_OP_VIEW) continue;
        for (int j = 0; j < n->n_in; j++)
            if (n->in[j]->base->id < first) a->read[n->in[j]->base->id] |= row ? BY_ROWS : BY_OTHERS;
    }
}

/* Made again from leaves or from nothing in the phase that reads it. */
static bool is_import(const part *a, const wf_node *n) {
    if (a->read[n->id] != BY_ROWS || !n->op || !(n->op->flags & WF_OP_CHEAP) || !(n->op->flags & WF_OP_ROW)) return false;
    for (int j = 0; j < n->n_in; j++)
        if (n->in[j]->base->op) return false;
    return true;
}

/* Results that a later phase reads must stay in memory. */
static void keep_for_later(const wf_plan *p, part *a) {
    memcpy(a->keep, p->keep, (size_t)p->n_ids * sizeof *a->keep);
    for (int from = 0, to; from < p->n_order; from = to) {
        for (to = from + 1; to < p->n_order && phase_of(p, to) == phase_of(p, from);) to++;
        find_imports(p, a, from, to);
        for (int i = 0; i < from; i++) {
            const wf_node *n = p->order[i];
            if (a->read[n->id] && !is_import(a, n)) a->keep[n->id] = true;
        }
    }
}

static wf_status fuse_phases(wf_plan *p, part *a, bool fuse) {
    keep_for_later(p, a);
    p->n_steps = 0;
    for (int from = 0, to; from < p->n_order; from = to) {
        wf_step **step;
        int n;
        for (to = from + 1; to < p->n_order && phase_of(p, to) == phase_of(p, from);) to++;
        find_imports(p, a, from, to);
        a->n = 0;
        for (int i = 0; i < from; i++)
            if (is_import(a, p->order[i])) a->node[a->n++] = p->order[i];
        memcpy(a->node + a->n, p->order + from, (size_t)(to - from) * sizeof *a->node);
        a->n += to - from;
        WF_TRY(wf_fuse(p->graph, p->arena, a->node, a->n, a->keep, fuse, &step, &n));
        for (int i = 0; i < n; i++) {
            if (!step[i]->program && step[i]->node->op == &wf_op_output) continue; /* its parent's step writes it */
            if (!step[i]->program) {
                step[i]->op = step[i]->node->op;
                WF_TRY(pair_operands(p, step[i]));
            }
            p->step[p->n_steps++] = step[i];
        }
    }
    return WF_OK;
}

static wf_status make_steps(wf_plan *p, bool fuse) {
    part a = {0};
    size_t n = (size_t)p->n_order;
    /* cheap nodes once a phase at most; a copy and a snapshot of each assignment, and a snapshot of each result */
    size_t most = n * (1 + (size_t)(n ? phase_of(p, p->n_order - 1) - phase_of(p, 0) : 0)) + 2 * (size_t)p->n_assign +
                  (size_t)p->n_out + 1;
    p->step = wf_arena_alloc(p->arena, most * sizeof *p->step);
    a.node = wf_alloc_array(n + 1, sizeof *a.node);
    a.keep = wf_alloc_array((size_t)p->n_ids + 1, sizeof *a.keep);
    a.read = wf_alloc_array((size_t)p->n_ids + 1, sizeof *a.read);
    wf_status status = p->step && a.node && a.keep && a.read ? fuse_phases(p, &a, fuse) : WF_ENOMEM;
    wf_free(a.node);
    wf_free(a.keep);
    wf_free(a.read);
    return status;
}

static wf_node *memory_owner(const wf_node *n) {
    wf_node *b = n->base;
    while (b->op && b->op->flags & WF_OP_IN_PLACE) b = b->in[0]->base;
    return b;
}

/* Does the group compute, on the wrong side of the write in place at step w, an operator that reads the written leaf directly? */
static bool misplaced(wf_plan *p, int r, int w) {
    const wf_node *write = p->step[w]->node;
    bool wrong = false;
    int n;
    if (!p->step[r]->program) return false;
    wf_node **member = wf_step_members(p, p->step[r], &n);
    for (int i = 0; member && i < n; i++)
        for (int j = 0; j < member[i]->n_in; j++)
            if (memory_owner(member[i]->in[j]) == memory_owner(write) && (member[i]->id < write->id) != (r < w)) wrong = true;
    wf_free(member);
    return wrong;
}

/* Fusion may run a reader earlier or later than its id. A reader of a leaf must not change sides with a write in place. */
static bool disordered(wf_plan *p) {
    for (int w = 0; w < p->n_steps; w++) {
        const wf_node *write = p->step[w]->node;
        if (p->step[w]->program || !(write->op->flags & WF_OP_IN_PLACE)) continue;
        for (int r = 0; r < p->n_steps; r++)
            for (int j = 0; j < p->step[r]->n_in; j++)
                if (memory_owner(p->step[r]->in[j]) == memory_owner(write) && misplaced(p, r, w)) return true;
    }
    return false;
}

/* ---- operators and pointers ---- */

static wf_status size_scratch(wf_plan *p) {
    p->scratch_bytes = 0;
    for (int i = 0; i < p->n_steps; i++) {
        const wf_step *s = p->step[i];
        size_t b = s->program ? p->graph->backend->rows_scratch(s->program) : s->op->scratch ? s->op->scratch(s->node) : 0;
        if (b > p->scratch_bytes) p->scratch_bytes = b;
    }
    p->scratch_bytes = (p->scratch_bytes + 63) & ~(size_t)63;
    return WF_OK;
}

static wf_status map_memory(wf_plan *p) {
    size_t need = p->arena_bytes + p->leaf_bytes, limit = p->options.memory_limit;
    if (limit && need > limit)
        return wf_fail(WF_ENOMEM,
                       "the plan needs %zu bytes (%zu for activations and temporaries, %zu for tensors), but %zu are allowed: "
                       "%zu too many; "
                       "a smaller batch, shorter sequences or recomputation need less",
                       need, p->arena_bytes, p->leaf_bytes, limit, need - limit);
    p->memory_bytes = p->arena_bytes + p->scratch_bytes;
    p->memory = wf_map_pages(p->memory_bytes);
    return p->memory ? WF_OK : WF_ENOMEM;
}

/* Let *slot point to byte `offset` of a storage. */
static wf_status bind(wf_plan *p, void **slot, int storage, int64_t offset) {
    const wf_storage *s = &p->storage[storage];
    if (s->buffer >= 0) {
        *slot = p->memory + p->buffer[s->buffer].offset + offset;
        return WF_OK;
    }
    if (p->n_patches == p->cap_patches) {
        int cap = p->cap_patches ? p->cap_patches * 2 : 64;
        wf_patch *q = wf_grow(p->patch, (size_t)p->n_patches * sizeof *q, (size_t)cap * sizeof *q);
        if (!q) return WF_ENOMEM;
        p->patch = q;
        p->cap_patches = cap;
    }
    p->patch[p->n_patches++] = (wf_patch){slot, s->leaf_node, (size_t)offset};
    return WF_OK;
}

static wf_status bind_node(wf_plan *p, void **slot, const wf_node *n) {
    return bind(p, slot, wf_storage_of(p, n), n->offset * (int64_t)wf_dtype_size(n->dtype));
}

static wf_status bind_step(wf_plan *p, wf_step *s) {
    wf_copy *c = wf_step_copy(s);
    if (c) {
        WF_TRY(bind(p, &s->call.in[0], c->from, (int64_t)c->offset));
        WF_TRY(bind(p, &s->call.out[0], c->to, 0));
    }
    for (int j = 0; j < s->n_in; j++) WF_TRY(bind_node(p, &s->call.in[j], s->in[j]));
    for (int k = 0; k < s->n_out; k++) {
        int idle = (int)(intptr_t)s->call.out[k] - 1; /* storage of an output nobody asked for */
        if (s->out[k])
            WF_TRY(bind_node(p, &s->call.out[k], s->out[k]));
        else
            WF_TRY(bind(p, &s->call.out[k], idle, 0));
    }
    s->call.node = s->node;
    s->call.program = s->program;
    s->call.scratch = p->memory + p->arena_bytes;
    return WF_OK;
}

static wf_status prepare(wf_plan *p) {
    for (int i = 0; i < p->n_steps; i++) {
        wf_step *s = p->step[i];
        if (s->program || !s->op->prepare) continue;
        wf_status status = s->op->prepare(s->node, &s->call.state);
        if (status != WF_OK) return wf_fail_within(status, "%s: preparing %s", s->node->scope, s->op->name);
    }
    return WF_OK;
}

static wf_status bind_all(wf_plan *p) {
    for (int i = 0; i < p->n_steps; i++) WF_TRY(bind_step(p, p->step[i]));
    for (int k = 0; k < p->n_out; k++) {
        if (p->out_snapshot[k] >= 0)
            WF_TRY(bind(p, &p->out_data[k], p->out_snapshot[k], 0));
        else
            WF_TRY(bind_node(p, &p->out_data[k], p->out[k]));
    }
    return WF_OK;
}

/* ---- life ---- */

static wf_status build(wf_plan *p, wf_node *const *outs, int n_outs, wf_node *const *effects, int n_effects) {
    WF_TRY(take_outs(p, outs, n_outs));
    WF_TRY(take_effects(p, effects, n_effects));
    p->n_ids = p->graph->n;
    if (!fresh(p)) return WF_ENOMEM;
    find_live(p, effects, n_effects);
    WF_TRY(make_steps(p, !p->options.no_fusion));
    if (!p->options.no_fusion && disordered(p)) WF_TRY(make_steps(p, false));
    WF_TRY(wf_place(p));
    WF_TRY(size_scratch(p));
    WF_TRY(map_memory(p));
    WF_TRY(prepare(p));
    return bind_all(p);
}

wf_plan *wf_plan_new(wf_graph *g, wf_node *const *outs, int n_outs, wf_node *const *effects, int n_effects,
                     const wf_plan_options *opts) {
    if (!g || g->status != WF_OK) {
        wf_fail(g ? g->status : WF_EINVAL, "%s", g ? wf_graph_message(g) : "plan: no graph");
        return NULL;
    }
    wf_plan *p = wf_alloc(sizeof *p);
    if (!p) return NULL;
    p->graph = g;
    if (opts) p->options = *opts;
    p->arena = wf_arena_new();
    if (p->arena && build(p, outs, n_outs, effects, n_effects) == WF_OK) return p;
    wf_plan_free(p);
    return NULL;
}

void wf_plan_free(wf_plan *p) {
    if (!p) return;
    for (int i = 0; i < p->n_steps; i++) {
        wf_step *s = p->step[i];
        if (!s->program && s->op && s->op->release && s->call.state) s->op->release(s->call.state);
    }
    wf_unmap_pages(p->memory, p->memory_bytes);
    wf_free(p->patch);
    wf_free(p->storage);
    wf_free(p->buffer);
    wf_arena_free(p->arena);
    wf_free(p);
}
