/* placement.c: one sublayer with its norms, dropout, layer scale and stochastic depth, as the row says. */
#include "part/placement/placement.h"

#include "part/norm/norm.h"
#include "part/placement/row.h"

#include <math.h>
#include <string.h>

static wf_module *norm(wf_module *block, bool wanted, const char *sub, const char *where, bool *ok) {
    if (!wanted) return NULL;
    char name[128];
    snprintf(name, sizeof name, "%s_%s_norm", sub, where);
    wf_module *n = wf_child_spec(block, name, "norm", "layernorm", NULL, block->in, block->in);
    if (!n) *ok = false;
    return n;
}

static const wf_sublayer_args *inner_args(wf_module *block, const wf_placement *p) {
    wf_sublayer_args *a = wf_arena_alloc(block->model->arena, sizeof *a);
    if (a && p->inside) a->inner_norm = wf_value_get(block->model->defaults, "norm");
    return a;
}

/* adaLN-zero's gate = W silu(c) + b, W and b zero at the start. */
static wf_module *gate(wf_module *block, const char *sub) {
    static const wf_part part = {.slot = "placement", .name = "gate"};
    char name[128];
    snprintf(name, sizeof name, "%s_gate", sub);
    wf_module *m = wf_child(block, name, &part, NULL, block->in, block->in);
    return m && wf_conditioned_setup(m, 1) == WF_OK ? m : NULL;
}

wf_status wf_sublayer_setup(wf_module *block, const wf_module *place, const wf_sublayer_want *w, wf_sublayer *s) {
    const wf_placement *p = (const wf_placement *)place->part;
    const wf_placement_opt *o = place->opt;
    bool ok = true;
    memset(s, 0, sizeof *s);
    s->name = wf_arena_strdup(block->model->arena, w->name);
    s->in = w->in_norm ? w->in_norm : norm(block, p->in, w->name, "in", &ok);
    s->f = w->f ? w->f
                : wf_child_with(block, w->name, w->slot, w->default_name, w->spec, block->in, block->in, inner_args(block, p));
    s->out = norm(block, p->out, w->name, "out", &ok);
    s->res = norm(block, p->res, w->name, "res", &ok);
    if (p->gate && !(s->gate = gate(block, w->name))) ok = false;
    s->factor = w->factor;
    s->stream = o->residual_scale > 0 ? o->residual_scale : p->deep ? pow(2.0 * (double)block->model->layers, 0.25) : 1;
    s->dropout = w->dropout;
    s->drop_path = w->drop_path;
    char scale[128];
    snprintf(scale, sizeof scale, "%s_scale", w->name);
    if (w->layer_scale > 0 && !wf_part_absent(block, scale)) {
        s->scale = wf_arena_strdup(block->model->arena, scale);
        wf_init start = {WF_INIT_CONST, w->layer_scale};
        if (!s->scale || !wf_declare(block, s->scale, WF_SHAPE(block->in), start, WF_PARAM_NO_DECAY)) ok = false;
    }
    return ok && s->f && s->name ? WF_OK : WF_EINVAL;
}

/* Stochastic depth (Huang et al. 2016): each sample keeps the branch with probability 1-p and then counts it 1/(1-p) times. */
static wf_node *drop_path(wf_build *b, const wf_module *block, wf_node *y, double p) {
    if (!b->train || b->no_dropout || p <= 0 || !y) return y;
    wf_shape s = y->shape;
    for (int i = 1; i < s.rank; i++) s.dim[i] = 1;
    return wf_mul(b->g, y, wf_drop(b, block, wf_fill(b->g, WF_F32, s, 1), p));
}

wf_node *wf_sublayer_forward(wf_build *b, wf_module *block, const wf_sublayer *s, wf_node *x) {
    wf_graph *g = b->g;
    wf_node *u = s->in ? wf_apply(b, s->in, x) : x;
    wf_node *y = wf_drop(b, block, wf_apply(b, s->f, u), s->dropout);
    if (s->out) y = wf_apply(b, s->out, y);
    if (s->scale) y = wf_mul(g, y, wf_use(b, block, s->scale));
    if (s->gate) y = wf_mul(g, y, wf_conditioned(b, s->gate, y));
    if (s->factor != 1) y = wf_mul_c(g, y, s->factor);
    y = drop_path(b, block, y, s->drop_path);
    y = wf_add(g, s->stream == 1 ? x : wf_mul_c(g, x, s->stream), y);
    return s->res ? wf_apply(b, s->res, y) : y;
}
