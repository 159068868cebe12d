/* stack.c: blocks of sublayers, and the order in which they are applied. */
#include "part/topology/stack.h"

#include <math.h>
#include <string.h>

typedef struct block {
    int n;
    wf_sublayer sub[6];
} block;

typedef struct stack {
    wf_module *place;
    int n_block, n_order;
    wf_module **block;
    int *order; /* indices of blocks as they are applied; an index may come several times */
} stack;

static const wf_part block_part = {.slot = "block", .name = "sublayers"};

/* ---- for models ---- */

static wf_status set_default(wf_model *m, const char *slot, const wf_value *spec, const char *otherwise) {
    if (!spec && !otherwise) return WF_OK;
    return wf_value_set(m->defaults, slot, spec ? wf_value_copy(spec) : wf_value_text(otherwise));
}

static const wf_placement *placement_of(const wf_value *spec) {
    const wf_value *name = spec && spec->kind == WF_V_MAP ? wf_value_get(spec, "name") : spec;
    const wf_part *p = name && name->kind == WF_V_TEXT ? wf_part_find("placement", name->text) : &wf_placements[0].part;
    return (const wf_placement *)p;
}

static wf_init_kind named_init(const char *name, wf_init_kind of_model) {
    if (!name) return of_model;
    return !strcmp(name, "normal")         ? WF_INIT_NORMAL
           : !strcmp(name, "trunc_normal") ? WF_INIT_TRUNC_NORMAL
           : !strcmp(name, "xavier")       ? WF_INIT_XAVIER
           : !strcmp(name, "fan_in")       ? WF_INIT_FAN_IN
                                           : of_model;
}

/* What follows from the number of blocks. */
static void set_depth(wf_model *model, const wf_stack_opt *o, int64_t blocks) {
    const wf_placement *p = placement_of(o->placement);
    bool deep = p && p->deep;
    double beta = pow(8.0 * (double)blocks, -0.25);
    model->layers = blocks;
    model->residual_std = deep ? o->init_std * beta : o->scale_residual ? o->init_std / sqrt(2.0 * (double)blocks) : 0;
    model->value_std = deep ? o->init_std * beta : 0;
}

/* A gated placement modulates its norms too. */
static wf_status check_gated(const wf_module *m, const wf_value *norm) {
    const wf_value *name = norm && norm->kind == WF_V_MAP ? wf_value_get(norm, "name") : norm;
    if (!norm || (name && name->kind == WF_V_TEXT && !strcmp(name->text, "adaln"))) return WF_OK;
    wf_status s =
        wf_fail(WF_EINVAL, "placement adaln-zero modulates its norms: leave norm out, or say norm: adaln with its base, like "
                           "{name: adaln, base: rmsnorm}");
    return norm->file ? wf_value_fail(norm, s, "%s", wf_message()) : wf_module_fail(m, s, "%s", wf_message());
}

wf_status wf_stack_prepare(wf_module *m, const wf_stack_opt *o, wf_init_kind kind) {
    wf_model *model = m->model;
    const wf_placement *p = placement_of(o->placement);
    model->bias = o->bias;
    model->init = (wf_init){named_init(o->init, kind), o->init_std};
    set_depth(model, o, o->layers);
    if (p && p->gate) WF_TRY(check_gated(m, o->norm));
    WF_TRY(set_default(model, "norm", o->norm, p && p->gate ? "adaln" : "layernorm"));
    return set_default(model, "linear", o->linear, NULL);
}

wf_status wf_stack_position(wf_module *m, const wf_stack_opt *o, int64_t width) {
    const wf_value *name = o->position && o->position->kind == WF_V_MAP ? wf_value_get(o->position, "name") : o->position;
    const wf_part *p = wf_part_find("position", name && name->kind == WF_V_TEXT ? name->text : "learned");
    if (!p) return name && name->file ? wf_value_fail(name, WF_ENOTFOUND, "%s", wf_message()) : WF_ENOTFOUND;
    if (p->rotate || p->bias) WF_TRY(set_default(m->model, "position", o->position, NULL));
    if (!p->forward) return WF_OK;
    return wf_child_spec(m, "position", "position", "learned", o->position, width, width) ? WF_OK : WF_EINVAL;
}

wf_module *wf_stack_child(wf_module *m, const wf_stack_opt *o, int64_t width) {
    return wf_child_with(m, "blocks", "topology", "plain", o->topology, width, width, o);
}

bool wf_stack_final_norm(const wf_module *blocks, const char *choice) {
    if (strcmp(choice, "auto")) return !strcmp(choice, "true");
    const stack *s = blocks->data;
    return ((const wf_placement *)s->place->part)->final_norm;
}

/* ---- for topologies ---- */

static wf_status block_setup(wf_module *m, const wf_stack_opt *o, const wf_module *place, int64_t at,
                             const wf_block_plan *plan) {
    block *k = m->data = wf_arena_alloc(m->model->arena, sizeof *k);
    if (!k) return WF_ENOMEM;
    int64_t all = o->all ? o->all : plan->blocks ? plan->blocks : o->layers;
    double depth = all > 1 ? (double)(o->first + at) / (double)(all - 1) : 0;
    wf_module *shared = NULL;
    if (plan->one_norm && ((const wf_placement *)place->part)->in &&
        !(shared = wf_child_spec(m, "in_norm", "norm", "layernorm", NULL, m->in, m->in)))
        return WF_EINVAL;
    for (int i = 0; i < plan->n; i++) {
        const wf_sublayer_row *row = &plan->row[i];
        if (!strcmp(row->slot, "cross") && !m->model->context) continue;
        wf_sublayer_want w = {.name = row->name,
                              .slot = strcmp(row->slot, "channel") ? "mixer" : "channel",
                              .default_name = strcmp(row->slot, "channel") ? "softmax" : "mlp",
                              .in_norm = shared,
                              .factor = row->factor,
                              .dropout = o->dropout,
                              .drop_path = o->stochastic_depth * depth,
                              .layer_scale = o->layer_scale};
        WF_TRY(wf_sublayer_spec(m, o, plan, row, at, &w.spec));
        WF_TRY(wf_sublayer_setup(m, place, &w, &k->sub[k->n++]));
    }
    return WF_OK;
}

wf_status wf_stack_setup(wf_module *m, const wf_block_plan *plan) {
    const wf_stack_opt *o = m->args;
    if (!o) return wf_module_fail(m, WF_EUNSUPPORTED, "a topology is part of a model; take model: stack to have blocks alone");
    stack *s = m->data = wf_arena_alloc(m->model->arena, sizeof *s);
    if (!s) return WF_ENOMEM;
    s->n_block = s->n_order = (int)(plan->blocks ? plan->blocks : o->layers);
    if (plan->blocks) set_depth(m->model, o, plan->blocks);
    s->block = wf_arena_alloc(m->model->arena, sizeof(void *) * (size_t)s->n_block);
    s->order = wf_arena_alloc(m->model->arena, sizeof(int) * (size_t)s->n_order);
    s->place = wf_child_spec(m, "placement", "placement", "pre", o->placement, m->in, m->out);
    if (!s->block || !s->order || !s->place) return WF_EINVAL;
    for (int i = 0; i < s->n_block; i++) {
        char name[24];
        snprintf(name, sizeof name, "%d", i);
        s->block[i] = wf_child(m, name, &block_part, NULL, m->in, m->out);
        if (!s->block[i]) return WF_ENOMEM;
        WF_TRY(block_setup(s->block[i], o, s->place, i, plan));
        s->order[i] = i;
    }
    return WF_OK;
}

static wf_node *apply_block(wf_build *b, wf_module *m, wf_node *x) {
    const block *k = m->data;
    const char *dot = strrchr(m->name, '.');
    wf_scope_push(b->g, dot ? dot + 1 : m->name);
    if (b->recompute && b->train) wf_recompute_begin(b->g);
    wf_tap(b, m, "stream", x);
    for (int i = 0; i < k->n; i++) x = wf_sublayer_forward(b, m, &k->sub[i], x);
    if (b->recompute && b->train) wf_recompute_end(b->g);
    wf_scope_pop(b->g);
    return x;
}

wf_node *wf_stack_forward(wf_build *b, wf_module *m, wf_node *x) {
    const stack *s = m->data;
    for (int i = 0; i < s->n_order && x; i++) x = apply_block(b, s->block[s->order[i]], x);
    return x;
}
