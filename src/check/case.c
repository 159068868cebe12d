/* case.c: a golden case: its tensors as leaves and parameters, its outputs by name. */
#include "check/case.h"

#include <string.h>

static int entry_index(const wf_case *c, const char *name) {
    const wf_st_entry *e = wf_st_find(c->file, name);
    return e ? (int)(e - c->file->entry) : -1;
}

bool wf_case_has(const wf_case *c, const char *name) {
    return entry_index(c, name) >= 0;
}

const wf_st_entry *wf_case_entry(wf_case *c, const char *name) {
    int i = entry_index(c, name);
    if (i < 0) {
        wf_case_fail(c, "tensor '%s' is missing", name);
        return NULL;
    }
    c->seen[i] = true;
    return &c->file->entry[i];
}

wf_tensor *wf_case_read(wf_case *c, const char *name, wf_dtype t) {
    const wf_st_entry *e = wf_case_entry(c, name);
    return e ? wf_st_read(e, t) : NULL;
}

/* ---- leaves ---- */

static wf_case_leaf *new_leaf(wf_case *c, const char *name, wf_tensor *t) {
    if (c->n_leaf == c->cap_leaf) {
        int cap = c->cap_leaf ? 2 * c->cap_leaf : 32;
        wf_case_leaf *grown = wf_grow(c->leaf, sizeof *grown * (size_t)c->cap_leaf, sizeof *grown * (size_t)cap);
        if (!grown) return wf_tensor_free(t), NULL;
        c->leaf = grown;
        c->cap_leaf = cap;
    }
    wf_case_leaf *l = &c->leaf[c->n_leaf];
    *l = (wf_case_leaf){wf_strdup(name), t, NULL, NULL};
    if (!l->name) return wf_tensor_free(t), NULL;
    c->n_leaf++;
    return l;
}

static wf_node *no_memory(wf_case *c) {
    return wf_graph_fail(c->graph, WF_ENOMEM, "%s", wf_message());
}

static wf_node *leaf_of(wf_case *c, const char *name, bool param) {
    for (int i = 0; i < c->n_leaf; i++)
        if (!strcmp(c->leaf[i].name, name)) {
            if (!c->leaf[i].node) c->leaf[i].node = wf_leaf(c->graph, c->leaf[i].value, c->leaf[i].name);
            return c->leaf[i].node;
        }
    const wf_st_entry *e = wf_case_entry(c, name);
    if (!e) return wf_graph_fail(c->graph, WF_EFORMAT, "%s", wf_message());
    bool integer = e->dtype[0] == 'I';
    wf_tensor *t = wf_st_read(e, integer ? WF_I32 : c->f64 ? WF_F64 : WF_F32);
    if (!t) return wf_graph_fail(c->graph, WF_EFORMAT, "%s", wf_message());
    wf_case_leaf *l = new_leaf(c, name, t);
    if (!l) return no_memory(c);
    if (param && !integer && !(l->sum = wf_alloc_array((size_t)wf_tensor_count(t) + 1, sizeof(double)))) return no_memory(c);
    return l->node = wf_leaf(c->graph, t, l->name);
}

wf_node *wf_case_constant(wf_case *c, const char *name, wf_tensor *t) {
    wf_case_leaf *l = t ? new_leaf(c, name, t) : NULL;
    return l ? wf_leaf(c->graph, t, l->name) : no_memory(c);
}

/* "in.x_0" when the file has it, else "in.x"; with neither there the name that belongs to this step. */
static const char *stepped(wf_case *c, const char *kind, const char *name) {
    char *with = wf_arena_format(c->arena, "%s.%s%s", kind, name, c->step),
         *plain = wf_arena_format(c->arena, "%s.%s", kind, name);
    if (!with || !plain) return "";
    return wf_case_has(c, with) || (*c->step && !wf_case_has(c, plain)) ? with : plain;
}

wf_node *wf_case_in(wf_case *c, const char *name) {
    return leaf_of(c, stepped(c, "in", name), false);
}

wf_node *wf_case_in_or_null(wf_case *c, const char *name) {
    const char *full = stepped(c, "in", name);
    return wf_case_has(c, full) ? leaf_of(c, full, false) : NULL;
}

wf_node *wf_case_param(wf_case *c, const char *name) {
    char *full = wf_arena_format(c->arena, "param.%s", name);
    return leaf_of(c, full ? full : "", true);
}

wf_node *wf_case_param_or_null(wf_case *c, const char *name) {
    char *full = wf_arena_format(c->arena, "param.%s", name);
    return full && wf_case_has(c, full) ? leaf_of(c, full, true) : NULL;
}

/* ---- models ---- */

/* The table as this file has it: without its prefix when no name starts with it. */
static const wf_name_map *as_written(wf_case *c, const wf_name_map *map, const wf_tensors *set) {
    size_t n = strlen(map->prefix);
    for (int i = 0; i < set->n; i++)
        if (!strncmp(set->item[i].name, map->prefix, n)) return map;
    wf_name_map *bare = wf_arena_alloc(c->arena, sizeof *bare);
    if (!bare) return NULL;
    *bare = *map;
    bare->prefix = "";
    return bare;
}

static wf_status fill(wf_case *c, wf_case_model_ref *r) {
    wf_tensors set = {0};
    wf_status s = wf_tensors_read(&set, c->file, "param.");
    if (s == WF_OK && !(r->map = as_written(c, r->map, &set))) s = WF_ENOMEM;
    if (s == WF_OK) s = wf_import(r->map, r->model, &set);
    for (int i = 0; i < c->file->n; i++)
        if (!strncmp(c->file->entry[i].name, "param.", 6)) c->seen[i] = true;
    wf_tensors_free(&set);
    return s;
}

wf_status wf_case_adopt(wf_case *c, wf_model *m, const wf_name_map *map) {
    if (!m) return WF_EINVAL;
    if (c->n_model == (int)(sizeof c->model / sizeof *c->model)) {
        wf_model_free(m);
        return wf_case_fail(c, "too many models in one case");
    }
    wf_case_model_ref *r = &c->model[c->n_model++];
    *r = (wf_case_model_ref){m, map, wf_alloc_array((size_t)m->n_param + 1, sizeof(double *))};
    if (!r->sum) return WF_ENOMEM;
    for (int i = 0; i < m->n_param; i++)
        if (!(r->sum[i] = wf_alloc_array((size_t)wf_tensor_count(m->param[i]->value) + 1, sizeof(double)))) return WF_ENOMEM;
    return map ? fill(c, r) : WF_OK;
}

wf_model *wf_case_model(wf_case *c, const char *recipe, const wf_name_map *map) {
    wf_value *v = recipe ? wf_yaml_parse(recipe, strlen(recipe), NULL) : NULL;
    wf_model *m = v ? wf_model_build(v, 4 * c->file->bytes.n + (1 << 16)) : NULL;
    wf_value_free(v);
    return m && wf_case_adopt(c, m, map) == WF_OK ? m : NULL;
}

wf_model *wf_case_part(wf_case *c, const char *slot, const char *spec, int64_t in, int64_t out, bool causal, int64_t length,
                       const wf_name_map *map) {
    wf_value *v = spec ? wf_yaml_parse(spec, strlen(spec), NULL) : NULL;
    wf_model *m = v ? wf_model_of_part(slot, v, in, out, causal, length, 0) : NULL;
    wf_value_free(v);
    return m && wf_case_adopt(c, m, map) == WF_OK ? m : NULL;
}

/* ---- outputs and taps ---- */

void wf_case_out(wf_case *c, const char *name, wf_node *n) {
    char *full = wf_arena_format(c->arena, "out.%s%s", name, c->step);
    if (!full || !wf_case_has(c, full)) return;
    if (c->n_out == c->cap_out) {
        int cap = c->cap_out ? 2 * c->cap_out : 16;
        void *grown = wf_grow(c->out, sizeof *c->out * (size_t)c->cap_out, sizeof *c->out * (size_t)cap);
        if (!grown) return;
        c->out = grown;
        c->cap_out = cap;
    }
    c->out[c->n_out].name = full;
    c->out[c->n_out++].node = n;
}

void wf_case_tap(void *ctx, const wf_module *m, const char *what, wf_node *n) {
    wf_case *c = ctx;
    if (c->n_tap == (int)(sizeof c->tapped / sizeof *c->tapped)) return;
    c->tap_name[c->n_tap] = what;
    c->tap_module[c->n_tap] = m->name;
    c->tapped[c->n_tap++] = n;
}

wf_node *wf_case_tapped(const wf_case *c, const char *what, int nth) {
    for (int i = 0; i < c->n_tap; i++)
        if (!strcmp(c->tap_name[i], what) && nth-- == 0) return c->tapped[i];
    return NULL;
}

wf_status wf_case_begin(wf_case *c, const char *step) {
    if (c->graph) {
        wf_build_end(&c->build);
        wf_graph_free(c->graph);
    }
    c->graph = wf_graph_open();
    if (!c->graph) return WF_ENOMEM;
    c->step = wf_arena_strdup(c->arena, step);
    for (int i = 0; i < c->n_leaf; i++) c->leaf[i].node = NULL;
    c->n_out = c->n_tap = 0;
    wf_build_start(&c->build, c->graph);
    c->build.compute = c->f64 ? WF_F64 : WF_F32;
    c->build.tap = wf_case_tap;
    c->build.tap_ctx = c;
    return WF_OK;
}
