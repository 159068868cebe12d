/* build.c: a graph from modules: parameters as nodes, applying modules, the product every part uses, running statistics. */
#include "part/part.h"

#include <string.h>

typedef struct casts { /* node -> the same in another dtype, small and linear: a model has some hundred weights */
    int n, cap;
    struct {
        wf_node *from, *to;
    } * pair;
} casts;

void wf_build_start(wf_build *b, wf_graph *g) {
    memset(b, 0, sizeof *b);
    b->g = g;
    b->compute = WF_F32;
}

wf_build **wf_build_handle(wf_build *b) {
    if (!b->handle && (b->handle = wf_arena_alloc(wf_graph_arena(b->g), sizeof *b->handle))) *b->handle = b;
    return b->handle;
}

void wf_build_end(wf_build *b) {
    if (b->handle) *b->handle = NULL;
    b->handle = NULL;
    casts *c = b->memo;
    if (c) wf_free(c->pair);
    wf_free(c);
    wf_free(b->update);
    b->memo = NULL;
    b->update = NULL;
    b->n_update = b->cap_update = 0;
}

static wf_node *fail(wf_build *b, const wf_module *m, wf_status s, const char *why) {
    wf_module_fail(m, s, "%s", why);
    return wf_graph_fail(b->g, s, "%s", wf_message());
}

wf_node *wf_as(wf_build *b, wf_node *x, wf_dtype t) {
    if (!x || x->dtype == t) return x;
    casts *c = b->memo;
    if (!c && !(b->memo = c = wf_alloc(sizeof *c))) return wf_graph_fail(b->g, WF_ENOMEM, "%s", wf_message());
    for (int i = c->n - 1; i >= 0; i--)
        if (c->pair[i].from == x && c->pair[i].to->dtype == t) return c->pair[i].to;
    wf_node *y = wf_cast(b->g, x, t);
    if (!y) return NULL;
    if (c->n == c->cap) {
        int cap = c->cap ? 2 * c->cap : 64;
        void *grown = wf_grow(c->pair, sizeof *c->pair * (size_t)c->cap, sizeof *c->pair * (size_t)cap);
        if (!grown) return wf_graph_fail(b->g, WF_ENOMEM, "%s", wf_message());
        c->pair = grown;
        c->cap = cap;
    }
    c->pair[c->n].from = x;
    c->pair[c->n++].to = y;
    return y;
}

static wf_param *local(const wf_module *m, const char *name) {
    for (int i = 0; i < m->n_param; i++)
        if (!strcmp(m->param_name[i], name)) return m->param[i];
    return NULL;
}

wf_node *wf_use_or_null(wf_build *b, wf_module *m, const char *name) {
    wf_param *p = local(m, name);
    if (!p) return NULL;
    wf_node *x = wf_leaf(b->g, p->value, p->name);
    return b->compute == WF_F64 && p->value->dtype == WF_F32 ? wf_as(b, x, WF_F64) : x;
}

wf_node *wf_use(wf_build *b, wf_module *m, const char *name) {
    if (!local(m, name)) {
        wf_module_fail(m, WF_ENOTFOUND, "no parameter '%s'", name);
        return wf_graph_fail(b->g, WF_ENOTFOUND, "%s", wf_message());
    }
    return wf_use_or_null(b, m, name);
}

static wf_status effect(wf_build *b, wf_node *n) {
    if (!n) return wf_graph_status(b->g) != WF_OK ? wf_graph_status(b->g) : WF_EINVAL;
    if (b->n_update == b->cap_update) {
        int cap = b->cap_update ? 2 * b->cap_update : 16;
        void *grown = wf_grow(b->update, sizeof(void *) * (size_t)b->cap_update, sizeof(void *) * (size_t)cap);
        if (!grown) return WF_ENOMEM;
        b->update = grown;
        b->cap_update = cap;
    }
    b->update[b->n_update++] = n;
    return WF_OK;
}

wf_node *wf_keep_mask(wf_build *b, const wf_node *x) {
    if (b->keep || !b->lengths || !x || x->shape.rank < 3) return b->keep;
    wf_graph *g = b->g;
    int64_t B = x->shape.dim[0], L = x->shape.dim[1];
    wf_node *j = wf_index(g, WF_F32, WF_SHAPE(B, L), 1), *n = wf_unsqueeze(g, wf_cast(g, b->lengths, WF_F32), 1);
    return b->keep = wf_lt(g, j, n);
}

wf_status wf_update(wf_build *b, wf_module *m, const char *name, wf_node *value) {
    wf_param *p = local(m, name);
    if (!p) return wf_module_fail(m, WF_ENOTFOUND, "no buffer '%s'", name);
    if (value && value->dtype != p->value->dtype) value = wf_cast(b->g, value, p->value->dtype);
    return effect(b, wf_assign(b->g, wf_leaf(b->g, p->value, p->name), wf_stop_gradient(b->g, value)));
}

wf_status wf_keep(wf_build *b, wf_node *state, wf_node *value) {
    if (!state) return effect(b, value);
    if (value && value->dtype != state->dtype) value = wf_cast(b->g, value, state->dtype);
    return effect(b, wf_assign(b->g, state, value));
}

wf_node *wf_centred(wf_build *b, wf_node *x) {
    return x ? wf_sub(b->g, x, wf_mean(b->g, x, 1u << (x->shape.rank - 1), true)) : NULL;
}

uint64_t wf_stream(wf_build *b) {
    return ++b->next_stream;
}

void wf_tap(wf_build *b, const wf_module *m, const char *what, wf_node *n) {
    if (b->tap && n) b->tap(b->tap_ctx, m, what, n);
}

wf_node *wf_drop(wf_build *b, const wf_module *m, wf_node *x, double p) {
    if (!b->train || b->no_dropout || p <= 0 || !x) return x;
    if (!b->seed) return fail(b, m, WF_EINVAL, "dropout needs a seed: set wf_build.seed");
    return wf_dropout(b->g, x, p, b->seed, wf_stream(b));
}

/* ---- applying ---- */

static const char *last_word(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

/* Name the mixers that can generate. */
static wf_node *no_stream(wf_build *b, const wf_module *m) {
    int n = 0;
    const wf_part *const *all = wf_part_all(&n);
    char why[512] = "";
    size_t at = (size_t)snprintf(why, sizeof why,
                                 "has no streaming form, so a model with it cannot generate step by step; train "
                                 "one with mixer: softmax to generate (all that can:");
    for (int i = 0, known = 0; i < n; i++)
        if (!strcmp(all[i]->slot, "mixer") && all[i]->step && at < sizeof why)
            at += (size_t)snprintf(why + at, sizeof why - at, "%s %s", known++ ? "," : "", all[i]->name);
    if (at < sizeof why) snprintf(why + at, sizeof why - at, ")");
    return fail(b, m, WF_EUNSUPPORTED, why);
}

wf_node *wf_apply(wf_build *b, wf_module *m, wf_node *x) {
    if (!x) return NULL;
    if (!m) return wf_graph_fail(b->g, WF_EINVAL, "no such module");
    const wf_part *p = m->part;
    if (b->step && !p->step && !strcmp(p->slot, "mixer")) return no_stream(b, m);
    if (!p->forward) return fail(b, m, WF_EUNSUPPORTED, "cannot be applied to a stream");
    bool named = m->name[0] != 0;
    if (b->tap_io) wf_tap(b, m, "input", x);
    if (named) wf_scope_push(b->g, last_word(m->name));
    wf_node *y = b->step && p->step ? p->step(b, m, x) : p->forward(b, m, x);
    if (named) wf_scope_pop(b->g);
    if (b->tap_io) wf_tap(b, m, "output", y);
    if (!y && wf_graph_status(b->g) == WF_OK) wf_graph_fail(b->g, WF_EINVAL, "%s", wf_message());
    return y;
}

wf_node *wf_apply_child(wf_build *b, wf_module *m, const char *child, wf_node *x) {
    wf_module *c = wf_module_find(m, child);
    if (c) return wf_apply(b, c, x);
    wf_module_fail(m, WF_ENOTFOUND, "no child '%s'", child);
    return wf_graph_fail(b->g, WF_ENOTFOUND, "%s", wf_message());
}

wf_node *wf_project(wf_build *b, wf_node *x, wf_node *w, wf_node *bias) {
    return wf_linear(b->g, wf_as(b, x, b->compute), wf_as(b, w, b->compute), bias ? wf_as(b, bias, b->compute) : NULL);
}

wf_node *wf_positions(wf_build *b, wf_dtype t, int64_t L) {
    wf_graph *g = b->g;
    wf_node *i = wf_index(g, WF_F32, WF_SHAPE(L), 0);
    if (b->pos) i = wf_add(g, i, wf_cast(g, b->pos, WF_F32)); /* exact up to 2^24 positions */
    return wf_cast(g, i, t);
}
