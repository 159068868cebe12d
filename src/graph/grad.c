/* grad.c: reverse-mode differentiation, built out of graph calls, so that it can be applied to its own results.
 *
 * Nodes are visited in descending id. Only what lies on a path from a wrt to an out is visited; nothing flows through integer
 * nodes, nor through operators without a vjp (comparisons, sign, floor, argmax, stop_gradient, cache writes): their derivative
 * is taken as 0. Contributions to one node are added as soon as they exist. Backward nodes carry the scope of the forward node
 * with a ' behind it, so that messages and profiles name the module.
 *
 * A recomputation segment is cloned when the visit first reaches one of its nodes; derivatives are then built on the clones.
 * Execution follows ids: clones run right before the backward nodes that need them, and the originals' memory dies early.
 */
#include "graph/inside.h"

#include <string.h>

typedef struct pass {
    wf_graph *g;
    int n;                            /* nodes when the pass began */
    uint8_t *need;                    /* by id: 1 an out depends on it, 3 it also depends on a wrt */
    wf_node **adjoint;                /* by id */
    wf_node ***more;                  /* by id: adjoints of the further outputs of a node */
    wf_node **clone;                  /* by id */
    int *segment_head, *segment_next; /* members of segments in id order, -1 ends */
    uint8_t *cloned;                  /* by segment */
    const char *scope, *scope_grad;   /* the last scope and its derivative's */
} pass;

enum { REACHED = 1, VARIES = 2, ON_PATH = 3 };

/* ---- preparation ---- */

static bool lists(pass *p) {
    int segments = p->g->n_segments + 1;
    p->segment_head = wf_alloc_array((size_t)segments, sizeof(int));
    p->segment_next = wf_alloc_array((size_t)p->n + 1, sizeof(int));
    p->cloned = wf_alloc_array((size_t)segments, 1);
    if (!p->segment_head || !p->segment_next || !p->cloned) return false;
    for (int s = 0; s < segments; s++) p->segment_head[s] = -1;
    for (int id = p->n - 1; id >= 0; id--) {
        int s = p->g->node[id]->segment;
        p->segment_next[id] = p->segment_head[s];
        p->segment_head[s] = id;
    }
    return true;
}

static bool open_pass(pass *p, wf_graph *g) {
    size_t n = (size_t)g->n + 1;
    *p = (pass){.g = g, .n = g->n};
    p->need = wf_alloc_array(n, 1);
    p->adjoint = wf_alloc_array(n, sizeof *p->adjoint);
    p->more = wf_alloc_array(n, sizeof *p->more);
    p->clone = wf_alloc_array(n, sizeof *p->clone);
    return p->need && p->adjoint && p->more && p->clone && lists(p);
}

static void close_pass(pass *p) {
    for (int id = 0; p->more && id < p->n; id++) wf_free(p->more[id]);
    wf_free(p->need);
    wf_free(p->adjoint);
    wf_free(p->more);
    wf_free(p->clone);
    wf_free(p->segment_head);
    wf_free(p->segment_next);
    wf_free(p->cloned);
}

static void mark(pass *p, wf_node *const *outs, int n_outs, wf_node *const *wrt, int n_wrt) {
    for (int k = 0; k < n_outs; k++) p->need[outs[k]->id] = REACHED;
    for (int id = p->n - 1; id >= 0; id--) {
        const wf_node *n = p->g->node[id];
        if (!(p->need[id] & REACHED)) continue;
        for (int j = 0; j < n->n_in; j++) p->need[n->in[j]->id] |= REACHED;
    }
    for (int i = 0; i < n_wrt; i++) p->need[wrt[i]->id] |= VARIES;
    for (int id = 0; id < p->n; id++) {
        const wf_node *n = p->g->node[id];
        if (!wf_is_float(n->dtype)) {
            p->need[id] &= REACHED;
            continue;
        }
        for (int j = 0; j < n->n_in; j++) p->need[id] |= p->need[n->in[j]->id] & VARIES;
    }
}

/* "blocks.0.mixer" -> "blocks.0.mixer'" */
static void enter_scope(pass *p, const wf_node *n) {
    if (n->scope != p->scope || !p->scope_grad) {
        const char *s = n->scope ? n->scope : "";
        p->scope = n->scope;
        p->scope_grad = wf_arena_format(p->g->arena, "%s'", s);
    }
    p->g->path = p->scope_grad;
}

/* ---- recomputation ---- */

static wf_node *clone_one(pass *p, wf_node *n) {
    wf_node *few[16], **in = few, *c = NULL;
    if (!n->op || n->op->flags & (WF_OP_EFFECT | WF_OP_IN_PLACE)) return n;
    if (n->n_in > 16 && !(in = wf_alloc_array((size_t)n->n_in, sizeof *in))) return NULL;
    for (int j = 0; j < n->n_in; j++) {
        wf_node *x = n->in[j];
        in[j] = x->segment == n->segment && p->clone[x->id] ? p->clone[x->id] : x;
    }
    c = wf_node_clone(p->g, n, in);
    if (in != few) wf_free(in);
    return c;
}

static bool clone_segment(pass *p, int s) {
    wf_graph *g = p->g;
    int region = g->region;
    p->cloned[s] = 1;
    g->region = ++g->n_regions;
    g->phase++;
    for (int id = p->segment_head[s]; id >= 0 && g->status == WF_OK; id = p->segment_next[id]) {
        if (!(p->need[id] & REACHED)) continue;
        enter_scope(p, g->node[id]);
        p->clone[id] = clone_one(p, g->node[id]);
    }
    g->region = region;
    return g->status == WF_OK;
}

/* The node that a derivative may refer to: n itself, or its clone. A segment that is still open is not recomputed: this pass
 * is then itself part of it. */
static wf_node *stand_in(pass *p, wf_node *n) {
    int s = n->segment;
    if (s == 0 || s == p->g->segment) return n;
    if (!p->cloned[s] && !clone_segment(p, s)) return NULL;
    return p->clone[n->id] ? p->clone[n->id] : n;
}

/* ---- the visit ---- */

static wf_node *total(wf_graph *g, wf_node *sum, wf_node *grad) {
    if (!sum) return grad;
    if (sum->op && sum->op == grad->op && sum->op->accumulate) {
        wf_node *one = sum->op->accumulate(g, sum, grad);
        if (one || g->status != WF_OK) return one;
    }
    return g->backend->add(g, sum, grad);
}

static bool accumulate(pass *p, const wf_node *from, int j, wf_node *x, wf_node *grad) {
    char a[96], b[96];
    if (!grad || p->need[x->id] != ON_PATH) return true;
    if (!wf_shape_equal(&grad->shape, &x->shape) || grad->dtype != x->dtype) {
        wf_graph_fail(p->g, WF_EINVAL, "%s: its derivative gives %s %s for input %d, which is %s %s", from->op->name,
                      wf_dtype_name(grad->dtype), wf_shape_text(&grad->shape, a), j, wf_dtype_name(x->dtype),
                      wf_shape_text(&x->shape, b));
        return false;
    }
    p->adjoint[x->id] = total(p->g, p->adjoint[x->id], grad);
    return p->adjoint[x->id] != NULL;
}

/* Adjoints of all outputs of an operator that has several. */
static wf_node **more_of(pass *p, const wf_node *n) {
    wf_node ***more = &p->more[n->id];
    if (!*more) *more = wf_alloc_array((size_t)n->op->n_out, sizeof **more);
    return *more;
}

static bool pass_to_parent(pass *p, wf_node *output) {
    wf_node **more = more_of(p, output->in[0]);
    if (more) more[output->out_index] = p->adjoint[output->id];
    return more != NULL;
}

static bool visit(pass *p, wf_node *n) {
    wf_node *few[16] = {0}, **gin = few, **gout = &p->adjoint[n->id];
    if (n->op == &wf_op_output) return pass_to_parent(p, n);
    if (!n->op->vjp) return true;
    if (n->op->n_out > 1) {
        if (!(gout = more_of(p, n))) return false;
        gout[0] = p->adjoint[n->id];
    }
    wf_node *base = stand_in(p, n);
    if (!base || (n->n_in > 16 && !(gin = wf_alloc_array((size_t)n->n_in, sizeof *gin)))) return false;
    enter_scope(p, n);
    wf_status s = n->op->vjp(p->g, base, gout, gin);
    bool ok = s == WF_OK && p->g->status == WF_OK;
    if (s != WF_OK && p->g->status == WF_OK) wf_graph_fail(p->g, s, "derivative of %s: %s", n->op->name, wf_message());
    for (int j = 0; ok && j < n->n_in; j++) ok = accumulate(p, n, j, n->in[j], gin[j]);
    if (gin != few) wf_free(gin);
    return ok;
}

static bool seed(pass *p, wf_node *const *outs, wf_node *const *seeds, int n_outs) {
    char a[96], b[96];
    wf_graph *g = p->g;
    for (int k = 0; k < n_outs; k++) {
        wf_node *o = outs[k], *s = seeds[k];
        if (p->need[o->id] != ON_PATH) continue;
        enter_scope(p, o);
        if (!s) s = g->backend->fill(g, o->dtype, o->shape, 1);
        if (!s) return false;
        if (!wf_shape_equal(&s->shape, &o->shape) || s->dtype != o->dtype) {
            wf_graph_fail(g, WF_EINVAL, "gradient: seed %d is %s %s, but the output is %s %s", k, wf_dtype_name(s->dtype),
                          wf_shape_text(&s->shape, a), wf_dtype_name(o->dtype), wf_shape_text(&o->shape, b));
            return false;
        }
        if (!(p->adjoint[o->id] = total(g, p->adjoint[o->id], s))) return false;
    }
    return true;
}

static wf_status check(wf_graph *g, wf_node *const *outs, wf_node *const *seeds, int n_outs, wf_node *const *wrt, int n_wrt) {
    char a[96];
    if (g->status != WF_OK) return wf_fail(g->status, "%s", wf_graph_message(g));
    for (int k = 0; k < n_outs; k++) {
        if (!outs[k]) return wf_fail(WF_EINVAL, "gradient: output %d is missing", k);
        if (outs[k]->graph != g) return wf_fail(WF_EINVAL, "gradient: output %d is a node of another graph", k);
        if ((!seeds || !seeds[k]) && wf_shape_count(&outs[k]->shape) != 1)
            return wf_fail(WF_EINVAL, "gradient: output %d %s is not a scalar, so it needs a seed", k,
                           wf_shape_text(&outs[k]->shape, a));
    }
    for (int i = 0; i < n_wrt; i++) {
        if (!wrt[i]) return wf_fail(WF_EINVAL, "gradient: input %d is missing", i);
        if (wrt[i]->graph != g) return wf_fail(WF_EINVAL, "gradient: input %d is a node of another graph", i);
        if (!wf_is_float(wrt[i]->dtype))
            return wf_fail(WF_EINVAL, "gradient: input %d (%s) is %s; only floating-point nodes have gradients", i,
                           wrt[i]->scope ? wrt[i]->scope : "", wf_dtype_name(wrt[i]->dtype));
    }
    return WF_OK;
}

static bool run(pass *p, wf_node *const *wrt, int n_wrt, wf_node **grads) {
    wf_graph *g = p->g;
    for (int id = p->n - 1; id >= 0; id--) {
        wf_node *n = g->node[id];
        if (!n->op || p->need[id] != ON_PATH || !(p->adjoint[id] || p->more[id])) continue;
        if (!visit(p, n)) return false;
    }
    for (int i = 0; i < n_wrt; i++) {
        wf_node *x = wrt[i];
        enter_scope(p, x);
        grads[i] = p->adjoint[x->id] ? p->adjoint[x->id] : g->backend->fill(g, x->dtype, x->shape, 0);
        if (!grads[i]) return false;
    }
    return true;
}

static wf_status differentiate(wf_graph *g, wf_node *const *outs, wf_node *const *seeds, int n_outs, wf_node *const *wrt,
                               int n_wrt, wf_node **grads) {
    pass p;
    const char *path = g->path;
    if (g->grad_depth++ == 0 && !g->segment) g->phase++;
    bool ok = open_pass(&p, g);
    int first = p.n;
    if (ok) {
        mark(&p, outs, n_outs, wrt, n_wrt);
        ok = seed(&p, outs, seeds, n_outs) && run(&p, wrt, n_wrt, grads);
    }
    close_pass(&p);
    g->path = path;
    g->grad_depth--;
    if (g->status != WF_OK) return wf_fail(g->status, "%s", wf_graph_message(g));
    if (!ok) return WF_ENOMEM;
    /* An inner derivative is part of the outer pass, or of a segment, and is treated with it. */
    if (g->grad_depth > 0 || g->segment || g->keep_all) return WF_OK;
    return wf_rematerialise(g, first, grads, n_wrt);
}

wf_status wf_grad(wf_graph *g, wf_node *const *outs, wf_node *const *seeds, int n_outs, wf_node *const *wrt, int n_wrt,
                  wf_node **grads) {
    if (!g) return wf_fail(WF_EINVAL, "gradient: no graph");
    WF_TRY(check(g, outs, seeds, n_outs, wrt, n_wrt));
    wf_node **list = wf_alloc_array((size_t)(2 * n_outs + n_wrt) + 1, sizeof *list);
    if (!list) return WF_ENOMEM;
    for (int k = 0; k < n_outs; k++) {
        list[k] = wf_latest(outs[k]);
        list[n_outs + k] = seeds ? wf_latest(seeds[k]) : NULL;
    }
    for (int i = 0; i < n_wrt; i++) list[2 * n_outs + i] = wf_latest(wrt[i]);
    wf_status status = differentiate(g, list, list + n_outs, n_outs, list + 2 * n_outs, n_wrt, grads);
    wf_free(list);
    return status;
}
