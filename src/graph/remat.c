/* remat.c: which values of the forward pass are kept for the backward pass, and which are computed again there.
 *
 * Pointwise results are cheap to compute and dear to keep: a normalised row, a gate, an activation follow from a matrix
 * product's result that is kept anyway. So a minimum cut is sought between the leaves and what the backward pass reads: every
 * value weighs its bytes, values of matrix products and the like can only be kept, pointwise ones may lie behind the cut and
 * are then computed from it (the partitioning of functorch's min-cut recomputation). Of equal cuts the one nearest to the
 * backward pass is taken, which computes least.
 *
 * Long-lived values stay: a residual stream is kept where a later layer's pointwise operator reads it, else every layer would
 * recompute all layers before it; and no chain of recomputed operators is longer than CHAIN.
 *
 * The backward pass is then built once more, operator by operator, with clones in front of their reader. Operators that run on
 * their own share a clone, which then lies in memory. For pointwise readers behind such an operator the value is computed once
 * more, within their own row program: that costs arithmetic but no memory.
 */
#include "graph/inside.h"
#include "graph/mincut.h"
#include "graph/rowprog.h"

#include <string.h>

enum { CHAIN = 32 };

typedef struct remat {
    wf_graph *g;
    int first, end;             /* backward nodes: [first, end) */
    bool *live;                 /* by id: reached from the results; of forward nodes: read by the backward pass */
    bool *fixed;                /* forward, by id: may only be kept */
    int *depth, *chain;         /* forward, by id: heavy operators on the longest path; pointwise ones since the last kept */
    bool *again;                /* forward, by id of a base: computed again */
    wf_node **copy;             /* by id: the last clone of a forward node, the new form of a backward node */
    int *made;                  /* forward, by id: the stretch in which the clone was made */
    int stretch;                /* operators so far that run on their own */
    int region, region_stretch; /* of clones; those of different stretches are not merged */
    const char *scope, *scope_grad;
} remat;

static bool is_view_op(const wf_node *n) {
    return n->op && n->op->flags & WF_OP_VIEW;
}

static bool is_reduction(const wf_node *n) {
    return n->op->flags & WF_OP_ROW && n->op->row >= WF_ROW_SUM;
}

/* Cheap enough to run twice: pointwise operators and what says so of itself. */
static bool is_cheap(const wf_node *n) {
    if (!n->op || n->op->flags & (WF_OP_EFFECT | WF_OP_IN_PLACE | WF_OP_VIEW) || n->op->n_out > 1) return false;
    return n->op->flags & WF_OP_CHEAP || (n->op->flags & WF_OP_ROW && !is_reduction(n));
}

static void find_read_values(remat *r, wf_node *const *res, int n) {
    for (int i = 0; i < n; i++) r->live[res[i]->id] = res[i]->id >= r->first;
    for (int id = r->end - 1; id >= r->first; id--) {
        const wf_node *b = r->g->node[id];
        if (!r->live[id]) continue;
        for (int j = 0; j < (is_view_op(b) ? 1 : b->n_in); j++) r->live[b->in[j]->id] = true;
    }
}

/* A leaf that is written in place has no value to go back to. */
static void fix_written_leaves(remat *r) {
    for (int id = 0; id < r->first; id++) {
        const wf_node *n = r->g->node[id];
        if (!n->op || !(n->op->flags & WF_OP_IN_PLACE)) continue;
        r->fixed[id] = r->fixed[n->in[0]->base->id] = true;
    }
    for (int id = 0; id < r->first; id++) {
        const wf_node *n = r->g->node[id];
        if (!is_cheap(n)) continue;
        for (int j = 0; j < n->n_in; j++)
            if (r->fixed[n->in[j]->base->id] && (!n->in[j]->base->op || n->in[j]->base->op->flags & WF_OP_IN_PLACE))
                r->fixed[id] = true;
    }
}

static void measure(remat *r) {
    for (int id = 0; id < r->first; id++) {
        const wf_node *n = r->g->node[id];
        int depth = 0, chain = 0;
        for (int j = 0; j < n->n_in; j++) {
            int x = n->in[j]->id;
            if (r->depth[x] > depth) depth = r->depth[x];
            if (r->chain[x] > chain) chain = r->chain[x];
        }
        bool cheap = is_cheap(n);
        r->depth[id] = depth + (n->op && !cheap && !is_view_op(n) && !is_reduction(n));
        if (cheap && chain + 1 >= CHAIN) r->fixed[id] = true;
        r->chain[id] = is_view_op(n) ? chain : cheap && !r->fixed[id] ? chain + 1 : 0;
        for (int j = 0; cheap && j < n->n_in; j++) { /* read by a deeper pointwise operator: a stream that skips */
            const wf_node *x = n->in[j]->base;
            if (r->depth[x->id] > 0 && r->depth[x->id] < depth) r->fixed[x->id] = true;
        }
    }
}

/* Vertices: 0 source, 1 sink, 2 + 2 id value computed from its inputs, 3 + 2 id value available. */
static wf_status cut(remat *r) {
    wf_flow *f = wf_flow_new(2 + 2 * r->first);
    bool *behind = wf_alloc_array(2 + 2 * (size_t)r->first, sizeof *behind),
         *reach = wf_alloc_array((size_t)r->first + 1, sizeof *reach);
    wf_status status = f && behind && reach ? WF_OK : WF_ENOMEM;
    for (int id = r->first - 1; id >= 0 && status == WF_OK; id--) {
        const wf_node *n = r->g->node[id];
        if (r->live[id]) {
            wf_flow_edge(f, 3 + 2 * n->base->id, 1, WF_FLOW_MAX);
            reach[n->base->id] = true;
        }
        if (n->base != n || !reach[id]) continue;
        int64_t weight = n->op ? (int64_t)wf_node_bytes(n) : 0;
        bool cheap = is_cheap(n) && !r->fixed[id];
        wf_flow_edge(f, cheap ? 2 + 2 * id : 0, 3 + 2 * id, weight);
        for (int j = 0; cheap && j < n->n_in; j++) {
            int x = n->in[j]->base->id;
            wf_flow_edge(f, 3 + 2 * x, 2 + 2 * id, WF_FLOW_MAX);
            reach[x] = true;
        }
    }
    if (status == WF_OK) status = wf_flow_cut(f, 0, 1, behind);
    for (int id = 0; id < r->first && status == WF_OK; id++)
        r->again[id] = reach[id] && is_cheap(r->g->node[id]) && !r->fixed[id] && behind[2 + 2 * id];
    wf_free(reach);
    wf_free(behind);
    wf_flow_free(f);
    return status;
}

/* ---- building the backward pass again ---- */

static void enter_scope(remat *r, const wf_node *n) {
    if (n->scope != r->scope || !r->scope_grad) {
        r->scope = n->scope;
        r->scope_grad = wf_arena_format(r->g->arena, "%s'", n->scope ? n->scope : "");
    }
    r->g->path = r->scope_grad;
}

static wf_node *clone(remat *r, wf_node *n);

static bool runs_in_rows(const wf_node *n) {
    return n->op->flags & WF_OP_ROW;
}

/* A clone for the present stretch of row operators. */
static wf_node *again(remat *r, wf_node *x) {
    wf_graph *g = r->g;
    int region = g->region;
    const char *path = g->path;
    if (r->region_stretch != r->stretch || !r->region) {
        r->region = ++g->n_regions;
        r->region_stretch = r->stretch;
    }
    g->region = r->region;
    r->copy[x->id] = clone(r, x);
    r->made[x->id] = r->stretch;
    g->region = region;
    g->path = path;
    return r->copy[x->id];
}

/* What a rebuilt operator, or a clone, reads instead of x. */
static wf_node *now(remat *r, wf_node *x, bool by_rows) {
    if (x->id >= r->first) return r->copy[x->id];
    if (!r->again[x->base->id]) return x;
    if (r->copy[x->id] && (!by_rows || r->made[x->id] == r->stretch)) return r->copy[x->id];
    return again(r, x);
}

static wf_node *clone(remat *r, wf_node *n) {
    wf_node *few[16], **in = few, *c = NULL;
    if (n->n_in > 16 && !(in = wf_alloc_array((size_t)n->n_in, sizeof *in))) return NULL;
    bool ok = true, forward = n->id < r->first;
    for (int j = 0; j < n->n_in && ok; j++) {
        bool follow = !forward || j == 0 || !is_view_op(n);
        in[j] = follow ? now(r, n->in[j], forward || runs_in_rows(n)) : n->in[j];
        ok = in[j] != NULL;
    }
    if (ok) {
        if (forward)
            enter_scope(r, n);
        else
            r->g->path = n->scope;
        c = wf_node_clone(r->g, n, in);
    }
    if (in != few) wf_free(in);
    return c;
}

static wf_status rebuild(remat *r) {
    wf_graph *g = r->g;
    const char *path = g->path;
    int region = g->region, fresh = g->n_regions + 1;
    g->n_regions += fresh; /* the new forms are merged among each other as the old ones were, but never with them */
    for (int id = r->first; id < r->end && g->status == WF_OK; id++) {
        wf_node *b = g->node[id];
        r->copy[id] = b;
        if (!b->op) continue;
        if (id == r->first || g->side[id].phase != g->side[id - 1].phase) g->phase++;
        g->region = fresh + g->side[id].region;
        wf_node *c = clone(r, b);
        r->copy[id] = c;
        if (c != b) g->side[id].moved = c;
        if (r->live[id] && !runs_in_rows(b) && !is_view_op(b) && b->op != &wf_op_output) r->stretch++;
    }
    g->region = region;
    g->path = path;
    return g->status;
}

static bool worth_it(const remat *r) {
    for (int id = 0; id < r->first; id++)
        if (r->live[id] && r->again[r->g->node[id]->base->id]) return true;
    return false;
}

wf_status wf_rematerialise(wf_graph *g, int first, wf_node **res, int n) {
    size_t all = (size_t)g->n + 1, forward = (size_t)first + 1;
    remat r = {.g = g, .first = first, .end = g->n};
    if (first == g->n) return WF_OK;
    r.live = wf_alloc_array(all, sizeof *r.live);
    r.copy = wf_alloc_array(all, sizeof *r.copy);
    r.made = wf_alloc_array(forward, sizeof *r.made);
    r.fixed = wf_alloc_array(forward, sizeof *r.fixed);
    r.again = wf_alloc_array(forward, sizeof *r.again);
    r.depth = wf_alloc_array(forward, sizeof *r.depth);
    r.chain = wf_alloc_array(forward, sizeof *r.chain);
    wf_status status = r.live && r.copy && r.made && r.fixed && r.again && r.depth && r.chain ? WF_OK : WF_ENOMEM;
    if (status == WF_OK) {
        find_read_values(&r, res, n);
        fix_written_leaves(&r);
        measure(&r);
        status = cut(&r);
    }
    if (status == WF_OK && worth_it(&r)) {
        status = rebuild(&r);
        for (int i = 0; i < n; i++) res[i] = wf_latest(res[i]);
    }
    wf_free(r.live);
    wf_free(r.copy);
    wf_free(r.made);
    wf_free(r.fixed);
    wf_free(r.again);
    wf_free(r.depth);
    wf_free(r.chain);
    return status;
}
