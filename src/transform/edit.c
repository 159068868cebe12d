/* edit.c: a model being changed: tensors, recipe, report; and the new model that comes out. */
#include "transform/edit.h"

#include <stdlib.h>
#include <string.h>

wf_edit *wf_edit_new(const wf_model *m, wf_transform_report *r) {
    wf_edit *e = wf_alloc(sizeof *e);
    if (!e) return NULL;
    e->m = m;
    e->report = r;
    e->arena = wf_arena_new();
    e->parts = wf_value_map();
    e->recipe = m->recipe ? wf_value_copy(m->recipe) : wf_value_map();
    e->spec = e->recipe ? wf_value_get(e->recipe, "model") : NULL;
    if (!e->spec || e->spec->kind != WF_V_MAP) e->spec = e->recipe;
    if (e->arena && e->parts && e->recipe) return e;
    wf_edit_free(e);
    return NULL;
}

void wf_edit_free(wf_edit *e) {
    if (!e) return;
    for (int i = 0; i < e->n; i++) {
        wf_free(e->tensor[i].name);
        wf_free(e->tensor[i].x);
    }
    wf_free(e->tensor);
    wf_value_free(e->recipe);
    wf_value_free(e->parts);
    if (e->arena) wf_arena_free(e->arena);
    wf_free(e);
}

/* ---- tensors ---- */

static wf_edit_tensor *find(const wf_edit *e, const char *name) {
    for (int i = 0; i < e->n; i++)
        if (!strcmp(e->tensor[i].name, name)) return &e->tensor[i];
    return NULL;
}

static wf_param *old_param(const wf_edit *e, const char *name) {
    for (int i = 0; i < e->m->n_param; i++)
        if (!strcmp(e->m->param[i]->name, name)) return e->m->param[i];
    return NULL;
}

double *wf_edit_make(wf_edit *e, const char *name, wf_shape shape) {
    double *x = wf_alloc_array((size_t)wf_shape_count(&shape) + 1, sizeof *x);
    wf_edit_tensor *t = find(e, name);
    if (!x) return NULL;
    if (!t && e->n == e->cap) {
        int cap = e->cap ? 2 * e->cap : 64;
        wf_edit_tensor *grown = wf_grow(e->tensor, sizeof *grown * (size_t)e->cap, sizeof *grown * (size_t)cap);
        if (!grown) return wf_free(x), NULL;
        e->tensor = grown;
        e->cap = cap;
    }
    if (!t) {
        char *own = wf_strdup(name);
        if (!own) return wf_free(x), NULL;
        t = &e->tensor[e->n++];
        *t = (wf_edit_tensor){.name = own};
    }
    wf_free(t->x);
    t->x = x;
    t->shape = shape;
    return x;
}

double *wf_edit_take(wf_edit *e, const char *name, wf_shape *shape) {
    wf_edit_tensor *t = find(e, name);
    if (!t) {
        wf_param *p = old_param(e, name);
        if (!p) {
            wf_fail(WF_ENOTFOUND, "the model has no tensor '%s'", name);
            return NULL;
        }
        double *x = wf_edit_make(e, name, p->value->shape);
        int64_t n = wf_tensor_count(p->value);
        for (int64_t i = 0; x && i < n; i++) x[i] = wf_tensor_get(p->value, i);
        if (!x) return NULL;
        t = find(e, name);
    }
    if (shape) *shape = t->shape;
    return t->x;
}

bool wf_edit_has(const wf_edit *e, const char *name) {
    return find(e, name) || old_param(e, name);
}

/* ---- recipe ---- */

wf_status wf_edit_option(wf_edit *e, const char *key, const char *text) {
    wf_value *v = wf_yaml_parse(text, strlen(text), NULL);
    return v ? wf_value_set(e->spec, key, v) : WF_ENOMEM;
}

wf_status wf_edit_part(wf_edit *e, const char *path, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    wf_value *v = wf_yaml_parse(text, strlen(text), NULL), *old = wf_value_get(e->parts, path), *both = v;
    const wf_value *is = v && v->kind == WF_V_MAP ? wf_value_get(v, "name") : v;
    if (v && old && old->kind == WF_V_MAP && !is) {
        both = wf_value_merge(old, v);
        wf_value_free(v);
    }
    return both ? wf_value_set(e->parts, path, both) : WF_ENOMEM;
}

/* What `parts` of the old recipe say of a path; NULL: nothing. */
static const wf_value *said(const wf_edit *e, const char *path) {
    const wf_value *map = wf_value_get(e->spec, "parts"), *best = NULL;
    int least = 0;
    for (int i = 0; map && map->kind == WF_V_MAP && i < map->n; i++) {
        int stars = wf_path_fits(map->key[i], path);
        if (stars < 0 || (best && stars > least)) continue;
        best = map->item[i];
        least = stars;
    }
    return best;
}

/* Lay a change over what the recipe said: {name: sigma} and {name: dense, bias: true} give the second. */
static wf_value *laid_over(const wf_value *old, const wf_value *change) {
    wf_value *base = wf_value_map(), *v = NULL;
    const wf_value *named = change->kind == WF_V_MAP ? wf_value_get(change, "name") : change;
    if (!old || named) {
        wf_value_free(base);
        return wf_value_copy(change);
    }
    if (old->kind == WF_V_TEXT && base) (void)wf_value_set(base, "name", wf_value_copy(old));
    v = wf_value_merge(old->kind == WF_V_MAP ? old : base, change);
    wf_value_free(base);
    return v;
}

typedef struct members {
    const char *pattern;
    int n;
} members;

static void count_modules(const wf_module *m, members *k) {
    for (int i = 0; i < m->n_child; i++) {
        char star[256];
        wf_path_starred(m->child[i]->name, star, sizeof star);
        k->n += !strcmp(star, k->pattern);
        count_modules(m->child[i], k);
    }
}

static int count_members(const wf_edit *e, const char *pattern) {
    members k = {pattern, 0};
    count_modules(e->m->root, &k);
    for (int i = 0; i < e->m->n_param && k.n == 0; i++) { /* layer scales are parameters */
        int n = 0;
        for (int j = 0; j < e->m->n_param; j++) {
            char star[256];
            wf_path_starred(e->m->param[j]->name, star, sizeof star);
            n += !strcmp(star, pattern);
        }
        return n;
    }
    return k.n;
}

static char *text_of(const wf_value *v) {
    return wf_value_json(v, false);
}

/* Put the change of path i into `map`: under its pattern with * when all that fit it change alike, else by itself. */
static wf_status place_one(wf_edit *e, wf_value *all, int i, wf_value *map, wf_value *done) {
    char star[256], other[256];
    wf_path_starred(all->key[i], star, sizeof star);
    if (wf_value_get(done, star)) return WF_OK;
    char *mine = text_of(all->item[i]);
    int same = 0;
    for (int k = 0; mine && k < all->n; k++) {
        wf_path_starred(all->key[k], other, sizeof other);
        if (strcmp(star, other)) continue;
        char *text = text_of(all->item[k]);
        same += text && !strcmp(text, mine);
        wf_free(text);
    }
    bool whole = mine && same == count_members(e, star);
    wf_free(mine);
    if (!mine || (whole && wf_value_set(done, star, wf_value_null()) != WF_OK)) return WF_ENOMEM;
    return wf_value_set(map, whole ? star : all->key[i], wf_value_copy(all->item[i]));
}

/* The old entries that no changed module needs any more are left out: those that fit changed ones alone, or nothing. */
static wf_status keep_old(const wf_edit *e, const wf_value *old, const wf_value *all, wf_value *map) {
    for (int i = 0; old && old->kind == WF_V_MAP && i < old->n; i++) {
        int changed = 0, fitting = 0;
        for (int k = 0; k < all->n; k++) changed += wf_path_fits(old->key[i], all->key[k]) >= 0;
        if (changed) {
            char star[256];
            wf_path_starred(all->n ? old->key[i] : "", star, sizeof star);
            fitting = !strcmp(star, old->key[i]) ? count_members(e, star) : 1;
        }
        if (changed && changed >= fitting) continue;
        WF_TRY(wf_value_set(map, old->key[i], wf_value_copy(old->item[i])));
    }
    return WF_OK;
}

static wf_status write_parts(wf_edit *e) {
    if (!e->parts->n) return WF_OK;
    wf_value *all = wf_value_map(), *map = wf_value_map(), *done = wf_value_map();
    wf_status s = all && map && done ? WF_OK : WF_ENOMEM;
    for (int i = 0; i < e->parts->n && s == WF_OK; i++)
        s = wf_value_set(all, e->parts->key[i], laid_over(said(e, e->parts->key[i]), e->parts->item[i]));
    if (s == WF_OK) s = keep_old(e, wf_value_get(e->spec, "parts"), all, map);
    for (int i = 0; i < e->parts->n && s == WF_OK; i++) s = place_one(e, all, i, map, done);
    wf_value_free(all);
    wf_value_free(done);
    if (s == WF_OK) return wf_value_set(e->spec, "parts", map);
    wf_value_free(map);
    return s;
}

/* ---- the new model ---- */

static wf_status fill(const wf_edit *e, wf_param *p) {
    const wf_edit_tensor *t = find(e, p->name);
    const wf_param *old = t ? NULL : old_param(e, p->name);
    char a[96], b[96];
    if (!t && !old) return wf_fail(WF_EUNSUPPORTED, "the new model wants a tensor '%s' that the old one has not", p->name);
    const wf_shape *s = t ? &t->shape : &old->value->shape;
    if (!wf_shape_equal(s, &p->value->shape))
        return wf_fail(WF_EUNSUPPORTED,
                       "'%s' would have to be %s and is %s: sizes inside that part follow the width of the stream in a way "
                       "that cannot be given in its options",
                       p->name, wf_shape_text(&p->value->shape, a), wf_shape_text(s, b));
    if (old && old->value->dtype == p->value->dtype) {
        memcpy(p->value->data, old->value->data, p->value->bytes);
        return WF_OK;
    }
    int64_t n = wf_shape_count(s);
    for (int64_t i = 0; i < n; i++) wf_tensor_set(p->value, i, t ? t->x[i] : wf_tensor_get(old->value, i));
    return WF_OK;
}

wf_model *wf_edit_finish(wf_edit *e) {
    if (write_parts(e) != WF_OK) return NULL;
    wf_model *m = wf_model_build(e->recipe, 0);
    wf_status s = m ? WF_OK : WF_EUNSUPPORTED;
    for (int i = 0; m && i < m->n_param && s == WF_OK; i++) s = fill(e, m->param[i]);
    if (s != WF_OK) {
        wf_model_free(m);
        return NULL;
    }
    e->report->parameters_before = wf_model_count(e->m);
    e->report->parameters_after = wf_model_count(m);
    return m;
}

/* ---- report ---- */

const char *wf_edit_name(wf_edit *e, const wf_module *m, const char *name) {
    const char *s = m->name[0] ? wf_arena_format(e->arena, "%s.%s", m->name, name) : wf_arena_strdup(e->arena, name);
    return s ? s : "";
}

void wf_edit_note(wf_edit *e, bool kept, const char *path, const char *fmt, ...) {
    wf_transform_report *r = e->report;
    char what[400], star[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    wf_path_starred(path, star, sizeof star);
    char *line = wf_format("%s: %s", star, what);
    for (int i = 0; line && i < r->n; i++)
        if (r->note[i].kept == kept && !strcmp(r->note[i].text, line)) {
            r->note[i].times++;
            wf_free(line);
            return;
        }
    if (line && r->n == r->cap) {
        int cap = r->cap ? 2 * r->cap : 32;
        wf_transform_note *grown = wf_grow(r->note, sizeof *grown * (size_t)r->cap, sizeof *grown * (size_t)cap);
        if (!grown) {
            wf_free(line);
            return;
        }
        r->note = grown;
        r->cap = cap;
    }
    if (!line) return;
    r->note[r->n++] = (wf_transform_note){line, 1, kept};
    r->changed += !kept;
}

void wf_transform_report_free(wf_transform_report *r) {
    for (int i = 0; i < r->n; i++) wf_free(r->note[i].text);
    wf_free(r->note);
    *r = (wf_transform_report){0};
}
