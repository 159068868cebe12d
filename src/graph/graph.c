/* graph.c: building a graph: nodes, leaves, views, further outputs, scopes, recomputation segments, errors.
 *
 * Equal nodes (operator, inputs, attributes, geometry) are merged when they are built, so what a derivative shares with the
 * forward pass is computed once. Nodes and everything they point to live in the graph's arena.
 */
#include "graph/inside.h"

#include <string.h>

enum { FEW_INPUTS = 16 };

/* ---- life, errors ---- */

wf_graph *wf_graph_new(const wf_backend *b) {
    wf_graph *g = wf_alloc(sizeof *g);
    if (!g) return NULL;
    g->backend = b;
    g->arena = wf_arena_new();
    if (g->arena) return g;
    wf_free(g);
    return NULL;
}

void wf_graph_free(wf_graph *g) {
    if (!g) return;
    wf_arena_free(g->arena);
    wf_free(g->node);
    wf_free(g->side);
    wf_free(g->table);
    wf_free(g);
}

wf_status wf_graph_status(const wf_graph *g) {
    return g ? g->status : WF_ENOMEM;
}

const char *wf_graph_message(const wf_graph *g) {
    return g && g->message ? g->message : "";
}

wf_arena *wf_graph_arena(wf_graph *g) {
    return g->arena;
}

int wf_graph_size(const wf_graph *g) {
    return g->n;
}

wf_node *wf_graph_node(const wf_graph *g, int id) {
    return id >= 0 && id < g->n ? g->node[id] : NULL;
}

static const char *path(const wf_graph *g) {
    return g->path ? g->path : "";
}

/* Make the thread's message the graph's error, with the scope in front; the first one stays. */
static wf_node *record(wf_graph *g, wf_status s) {
    if (g->status == WF_OK) {
        g->status = s;
        g->message =
            *path(g) ? wf_arena_format(g->arena, "%s: %s", path(g), wf_message()) : wf_arena_strdup(g->arena, wf_message());
    }
    if (g->message) wf_fail(g->status, "%s", g->message);
    return NULL;
}

wf_node *wf_graph_fail(wf_graph *g, wf_status s, const char *fmt, ...) {
    char text[2048];
    if (!g) return NULL;
    va_list ap;
    va_start(ap, fmt);
    if (vsnprintf(text, sizeof text, fmt, ap) < 0) text[0] = 0;
    va_end(ap);
    if (g->status == WF_OK) wf_fail(s, "%s", text);
    return record(g, s);
}

void *wf_graph_alloc(wf_graph *g, size_t bytes) {
    void *p = wf_arena_alloc(g->arena, bytes);
    if (!p) record(g, WF_ENOMEM);
    return p;
}

/* ---- scopes and segments ---- */

void wf_scope_push(wf_graph *g, const char *name) {
    if (!g) return;
    wf_scope *s = g->unused_scopes;
    if (s)
        g->unused_scopes = s->outer;
    else
        s = wf_graph_alloc(g, sizeof *s);
    if (!s) return;
    s->path = g->path;
    s->outer = g->scope;
    g->scope = s;
    g->path =
        *path(g) ? wf_arena_format(g->arena, "%s.%s", path(g), name ? name : "") : wf_arena_strdup(g->arena, name ? name : "");
}

void wf_scope_pop(wf_graph *g) {
    if (!g || !g->scope) return;
    wf_scope *s = g->scope;
    g->path = s->path;
    g->scope = s->outer;
    s->outer = g->unused_scopes;
    g->unused_scopes = s;
}

const char *wf_scope_swap(wf_graph *g, const char *p) {
    const char *old = g->path;
    g->path = p;
    return old;
}

/* Segments do not nest: an inner pair is part of the outer one. */
void wf_recompute_begin(wf_graph *g) {
    if (!g) return;
    if (g->depth++ > 0) return;
    g->segment = ++g->n_segments;
    g->region = ++g->n_regions;
}

void wf_recompute_end(wf_graph *g) {
    if (!g || g->depth == 0 || --g->depth > 0) return;
    g->segment = g->region = 0;
}

/* ---- geometry ---- */

static void dense_strides(wf_node *n) {
    int64_t s = 1;
    for (int a = n->shape.rank - 1; a >= 0; a--) {
        n->stride[a] = s;
        s *= n->shape.dim[a] ? n->shape.dim[a] : 1;
    }
}

bool wf_is_dense(const wf_node *n) {
    int64_t s = 1;
    if (wf_shape_count(&n->shape) == 0) return true;
    for (int a = n->shape.rank - 1; a >= 0; a--) {
        if (n->shape.dim[a] != 1 && n->stride[a] != s) return false;
        s *= n->shape.dim[a];
    }
    return true;
}

bool wf_is_view(const wf_node *n) {
    return n->base != n;
}

size_t wf_node_bytes(const wf_node *n) {
    return (size_t)wf_shape_count(&n->shape) * wf_dtype_size(n->dtype);
}

/* ---- merging of equal nodes ---- */

static uint64_t node_hash(const wf_node *n, int region) {
    if (!n->op) return wf_hash(&n->leaf, sizeof n->leaf, 1);
    int64_t key[8 + 2 * WF_MAX_RANK] = {
        (int64_t)(intptr_t)n->op, n->out_index, region, n->dtype, n->n_in, n->offset, n->shape.rank};
    for (int a = 0; a < n->shape.rank; a++) {
        key[8 + a] = n->shape.dim[a];
        key[8 + WF_MAX_RANK + a] = n->stride[a];
    }
    uint64_t h = wf_hash(key, sizeof key, 2);
    h = wf_hash(&n->attr, sizeof n->attr, h);
    return n->n_in ? wf_hash(n->in, (size_t)n->n_in * sizeof *n->in, h) : h;
}

static bool same_node(const wf_graph *g, const wf_node *a, const wf_node *n, int region) {
    if (!n->op) return !a->op && a->leaf == n->leaf;
    if (a->op != n->op || a->out_index != n->out_index || g->side[a->id].region != region || a->dtype != n->dtype ||
        a->n_in != n->n_in || a->offset != n->offset || !wf_shape_equal(&a->shape, &n->shape))
        return false;
    for (int i = 0; i < n->shape.rank; i++)
        if (a->stride[i] != n->stride[i]) return false;
    for (int i = 0; i < n->n_in; i++)
        if (a->in[i] != n->in[i]) return false;
    return !memcmp(&a->attr, &n->attr, sizeof n->attr);
}

static bool grow_table(wf_graph *g) {
    uint32_t size = g->table_size ? g->table_size * 2 : 1024;
    int *t = wf_alloc_array(size, sizeof *t);
    if (!t) {
        record(g, WF_ENOMEM);
        return false;
    }
    for (uint32_t i = 0; i < g->table_size; i++) {
        if (!g->table[i]) continue;
        const wf_node *n = g->node[g->table[i] - 1];
        uint32_t at = (uint32_t)node_hash(n, g->side[n->id].region) & (size - 1);
        while (t[at]) at = (at + 1) & (size - 1);
        t[at] = g->table[i];
    }
    wf_free(g->table);
    g->table = t;
    g->table_size = size;
    return true;
}

/* The equal node there is, or NULL and the place in the table for a new one. */
static wf_node *find(wf_graph *g, const wf_node *n, int region, uint32_t *place) {
    if (g->table_used * 2 >= g->table_size && !grow_table(g)) return NULL;
    uint32_t at = (uint32_t)node_hash(n, region) & (g->table_size - 1);
    for (; g->table[at]; at = (at + 1) & (g->table_size - 1)) {
        wf_node *a = g->node[g->table[at] - 1];
        if (same_node(g, a, n, region)) return a;
    }
    *place = at;
    return NULL;
}

/* ---- adding nodes ---- */

wf_node *wf_latest(wf_node *n) {
    while (n && n->graph->side[n->id].moved) n = n->graph->side[n->id].moved;
    return n;
}

static bool grow_nodes(wf_graph *g) {
    if (g->n < g->cap) return true;
    int cap = g->cap ? g->cap * 2 : 256;
    wf_node **node = wf_grow(g->node, (size_t)g->n * sizeof *node, (size_t)cap * sizeof *node);
    if (node) g->node = node;
    void *side = node ? wf_grow(g->side, (size_t)g->n * sizeof *g->side, (size_t)cap * sizeof *g->side) : NULL;
    if (!side) return record(g, WF_ENOMEM) != NULL;
    g->side = side;
    g->cap = cap;
    return true;
}

/* Nodes that stand for themselves: effects, and a view that is its input under another name (a variable of its own to
 * differentiate by). */
static bool is_single(const wf_node *t) {
    if (!t->op) return false;
    if (t->op->flags & (WF_OP_EFFECT | WF_OP_IN_PLACE)) return true;
    if (!t->base) return false;
    const wf_node *x = t->in[0];
    return t->n_in == 1 && t->offset == x->offset && wf_shape_equal(&t->shape, &x->shape) &&
           !memcmp(t->stride, x->stride, (size_t)x->shape.rank * sizeof *x->stride);
}

/* Give the draft `t` (complete but for id and base) a place in the graph, or return the equal node that is there already. */
static wf_node *enter(wf_graph *g, wf_node *t, int region) {
    uint32_t place = 0;
    bool single = is_single(t);
    if (!single) {
        wf_node *same = find(g, t, region, &place);
        if (same || g->status != WF_OK) return same;
    }
    if (!grow_nodes(g)) return NULL;
    wf_node *n = wf_graph_alloc(g, sizeof *n + (size_t)t->n_in * sizeof *n->in);
    if (!n) return NULL;
    *n = *t;
    n->in = t->n_in ? (wf_node **)(n + 1) : NULL;
    if (t->n_in) memcpy(n->in, t->in, (size_t)t->n_in * sizeof *n->in);
    n->graph = g;
    n->id = g->n;
    if (!n->base) n->base = n;
    if (!n->scope) n->scope = path(g);
    g->node[g->n] = n;
    g->side[g->n].region = region;
    g->side[g->n].phase = g->phase;
    g->side[g->n].moved = NULL;
    g->n++;
    if (!single) {
        g->table[place] = n->id + 1;
        g->table_used++;
    }
    return n;
}

wf_node *wf_leaf(wf_graph *g, wf_tensor *t, const char *name) {
    if (!g || g->status != WF_OK) return NULL;
    if (!t) return wf_graph_fail(g, WF_EINVAL, "leaf %s: no tensor", name ? name : "");
    if (wf_shape_check(&t->shape, t->dtype) != WF_OK) {
        wf_fail_within(WF_EINVAL, "leaf %s", name ? name : "");
        return record(g, WF_EINVAL);
    }
    wf_node draft = {.leaf = t, .dtype = t->dtype, .shape = t->shape};
    dense_strides(&draft);
    uint32_t place;
    wf_node *n = find(g, &draft, 0, &place);
    if (n || g->status != WF_OK) return n;
    draft.scope = name && *name ? wf_arena_strdup(g->arena, name) : path(g);
    return enter(g, &draft, 0);
}

/* A cache written in place is a leaf, seen directly or after earlier writes. */
static bool leads_to_leaf(const wf_node *n) {
    while (n->op && (n->op->flags & WF_OP_IN_PLACE)) n = n->in[0]->base;
    return !n->op;
}

static bool admit(wf_graph *g, const wf_op *op, wf_node *const *in, int n_in, wf_node **take) {
    for (int k = 0; k < n_in; k++) {
        if (!in[k]) {
            const char *why = *wf_message() ? wf_message() : "no message";
            return wf_graph_fail(g, WF_EINVAL, "%s: input %d is missing; a call before failed (%s)", op->name, k, why) != NULL;
        }
        if (in[k]->graph != g)
            return wf_graph_fail(g, WF_EINVAL, "%s: input %d is a node of another graph", op->name, k) != NULL;
        take[k] = wf_latest(in[k]);
        if (op->flags & (WF_OP_STRIDED | WF_OP_ROW | WF_OP_VIEW) || wf_is_dense(take[k])) continue;
        take[k] = g->backend->contiguous(g, take[k]);
        if (!take[k]) return false;
    }
    if (op->flags & WF_OP_IN_PLACE && (n_in < 1 || wf_is_view(take[0]) || !leads_to_leaf(take[0])))
        return wf_graph_fail(g, WF_EINVAL, "%s: writes in place, so its first input must be a leaf", op->name) != NULL;
    return true;
}

/* Shape rule, then the laws that every node obeys. */
static bool infer(wf_graph *g, wf_node *t) {
    char text[96];
    wf_status s = t->op->infer ? t->op->infer(t) : WF_OK;
    if (s != WF_OK) return record(g, s) != NULL;
    s = wf_shape_check(&t->shape, t->dtype);
    if (s != WF_OK) {
        wf_fail_within(s, "%s", t->op->name);
        return record(g, s) != NULL;
    }
    if (t->op->flags & WF_OP_IN_PLACE && (t->dtype != t->in[0]->dtype || !wf_shape_equal(&t->shape, &t->in[0]->shape)))
        return wf_graph_fail(g, WF_EINVAL, "%s: result %s is not its leaf written in place", t->op->name,
                             wf_shape_text(&t->shape, text)) != NULL;
    return true;
}

static void view_of(wf_node *t, const wf_node *x) {
    t->dtype = x->dtype;
    t->base = x->base;
    if (wf_is_dense(t)) dense_strides(t);
}

wf_node *wf_node_new(wf_graph *g, const wf_op *op, wf_node *const *in, int n_in, const wf_attr *attr) {
    wf_node *few[FEW_INPUTS], **take = few, *n = NULL;
    if (!g || g->status != WF_OK) return NULL;
    if (n_in > FEW_INPUTS && !(take = wf_alloc_array((size_t)n_in, sizeof *take))) return record(g, WF_ENOMEM);
    if (admit(g, op, in, n_in, take)) {
        wf_node t = {.op = op, .graph = g, .in = take, .n_in = n_in, .segment = g->segment};
        if (attr) t.attr = *attr;
        if (op->flags & WF_OP_VIEW) { /* in[0] itself, under another derivative */
            t.shape = take[0]->shape;
            t.offset = take[0]->offset;
            memcpy(t.stride, take[0]->stride, sizeof t.stride);
            view_of(&t, take[0]);
            n = enter(g, &t, g->region);
        } else if (infer(g, &t)) {
            dense_strides(&t);
            n = enter(g, &t, g->region);
        }
    }
    if (take != few) wf_free(take);
    return n;
}

/* First and last element that the view touches must lie in the base. */
static bool inside_base(const wf_node *t, const wf_node *base) {
    int64_t lo = t->offset, hi = t->offset;
    if (wf_shape_count(&t->shape) == 0) return true;
    for (int a = 0; a < t->shape.rank; a++) {
        int64_t reach = (t->shape.dim[a] - 1) * t->stride[a];
        *(reach < 0 ? &lo : &hi) += reach;
    }
    return lo >= 0 && hi < wf_shape_count(&base->shape);
}

wf_node *wf_view_new(wf_graph *g, const wf_op *op, wf_node *x, wf_shape s, const int64_t *stride, int64_t offset,
                     const wf_attr *attr) {
    char a[96], b[96];
    wf_node *in[1];
    if (!g || g->status != WF_OK || !admit(g, op, &x, 1, in)) return NULL;
    x = in[0];
    if (wf_shape_check(&s, x->dtype) != WF_OK) {
        wf_fail_within(WF_EINVAL, "%s of %s", op->name, wf_shape_text(&x->shape, a));
        return record(g, WF_EINVAL);
    }
    wf_node t = {.op = op, .graph = g, .in = in, .n_in = 1, .segment = g->segment, .shape = s, .offset = x->offset + offset};
    for (int i = 0; i < s.rank; i++) t.stride[i] = stride[i];
    if (attr) t.attr = *attr;
    view_of(&t, x);
    if (!inside_base(&t, x->base))
        return wf_graph_fail(g, WF_EINVAL, "%s: %s reaches outside of %s", op->name, wf_shape_text(&s, a),
                             wf_shape_text(&x->base->shape, b));
    return enter(g, &t, g->region);
}

/* ---- further outputs ---- */

const wf_op wf_op_output = {.name = "output"};

wf_node *wf_output(wf_node *n, int k) {
    if (!n || k == 0) return n;
    n = wf_latest(n);
    wf_graph *g = n->graph;
    int n_out = n->op && n->op->n_out ? n->op->n_out : 1;
    if (g->status != WF_OK) return NULL;
    if (k < 0 || k >= n_out) return wf_graph_fail(g, WF_EINVAL, "%s: output %d of %d", n->op ? n->op->name : "leaf", k, n_out);
    wf_node t = {
        .op = &wf_op_output, .graph = g, .in = &n, .n_in = 1, .out_index = k, .segment = n->segment, .scope = n->scope};
    wf_status s = n->op->infer_more ? n->op->infer_more(n, k, &t.dtype, &t.shape) : WF_EINVAL;
    if (s == WF_OK)
        s = wf_shape_check(&t.shape, t.dtype);
    else if (!n->op->infer_more)
        wf_fail(s, "%s: has no shape rule for output %d", n->op->name, k);
    if (s != WF_OK) return record(g, s);
    dense_strides(&t);
    return enter(g, &t, g->side[n->id].region); /* one node an output, wherever it is asked for */
}

/* ---- copies on other inputs ---- */

wf_node *wf_node_clone(wf_graph *g, const wf_node *n, wf_node *const *in) {
    if (!g || g->status != WF_OK) return NULL;
    if (!n->op) return wf_graph_node(g, n->id);
    if (n->op == &wf_op_output) return wf_output(in[0], n->out_index);
    wf_node t = *n;
    t.in = (wf_node **)in;
    t.segment = g->segment;
    t.scope = NULL;
    t.base = NULL;
    t.mark = 0;
    if (wf_is_view(n) || n->op->flags & WF_OP_VIEW) {
        t.offset = in[0]->offset + n->offset - n->in[0]->offset;
        t.base = in[0]->base;
    }
    return enter(g, &t, g->region);
}

/* ---- assignment; carried out by the plan (plan.c) ---- */

static wf_status assign_infer(wf_node *n) {
    const wf_node *leaf = n->in[0], *value = n->in[1];
    char a[96], b[96];
    if (leaf->op) return wf_fail(WF_EINVAL, "assign: the target must be a leaf, not the result of %s", leaf->op->name);
    if (leaf->dtype != value->dtype || !wf_shape_equal(&leaf->shape, &value->shape))
        return wf_fail(WF_EINVAL, "assign: leaf %s is %s %s, but the value is %s %s; cast or reshape it first", leaf->scope,
                       wf_dtype_name(leaf->dtype), wf_shape_text(&leaf->shape, a), wf_dtype_name(value->dtype),
                       wf_shape_text(&value->shape, b));
    n->dtype = leaf->dtype;
    n->shape = leaf->shape;
    return WF_OK;
}

const wf_op wf_op_assign = {.name = "assign", .flags = WF_OP_EFFECT, .infer = assign_infer};

wf_node *wf_assign(wf_graph *g, wf_node *leaf, wf_node *value) {
    return wf_node_new(g, &wf_op_assign, (wf_node *[]){leaf, value}, 2, NULL);
}
