/* import.c: the table-driven importer and exporter. */
#include "model/import.h"

#include <stdlib.h>
#include <string.h>

/* ---- names ---- */

/* Whether `name` fits `pattern`; {} takes digits, stored in *number (-1: none). */
static bool fits(const char *pattern, const char *name, long *number) {
    *number = -1;
    while (*pattern) {
        if (pattern[0] == '{' && pattern[1] == '}') {
            char *end;
            if (*name < '0' || *name > '9') return false;
            long n = strtol(name, &end, 10);
            if (*number >= 0 && n != *number) return false;
            *number = n;
            name = end;
            pattern += 2;
        } else if (*pattern++ != *name++) {
            return false;
        }
    }
    return *name == 0;
}

/* Pattern with the number put in and ~ replaced by `prefix`. */
static bool expand(const char *pattern, const char *prefix, long number, char *out, size_t size) {
    size_t n = 0;
    if (*pattern == '~') {
        pattern++;
        n = (size_t)snprintf(out, size, "%s", prefix);
    }
    const char *hole = strstr(pattern, "{}");
    int len = hole ? snprintf(out + n, size - n, "%.*s%ld%s", (int)(hole - pattern), pattern, number, hole + 2)
                   : snprintf(out + n, size - n, "%s", pattern);
    return len >= 0 && n + (size_t)len < size;
}

static bool ignored(const wf_name_map *map, const char *name) {
    long n;
    for (const char *const *p = map->ignore; *p; p++) {
        const char *pattern = *p, *rest = name;
        size_t k = strlen(map->prefix);
        if (*pattern == '~') {
            pattern++;
            if (!strncmp(name, map->prefix, k)) rest = name + k;
        }
        if (fits(pattern, rest, &n)) return true;
    }
    return false;
}

static const wf_name_rule *rule_of(const wf_name_map *map, const char *own, long *number) {
    for (const wf_name_rule *r = map->rule; r->foreign; r++)
        if (fits(r->own, own, number)) return r;
    return NULL;
}

static int index_of(const wf_tensors *s, const char *name) {
    for (int i = 0; i < s->n; i++)
        if (!strcmp(s->item[i].name, name)) return i;
    return -1;
}

/* Index of the foreign tensor of a rule: with the prefix, without it, or under the old names gamma and beta; -1: absent. */
static int find_foreign(const wf_name_map *map, const wf_name_rule *r, long number, const wf_tensors *s) {
    char name[256];
    const char *prefixes[2] = {map->prefix, ""};
    for (int i = 0; i < 2; i++) {
        if (!expand(r->foreign, prefixes[i], number, name, sizeof name)) return -1;
        int at = index_of(s, name);
        if (at >= 0) return at;
        size_t n = strlen(name);
        if (n > 17 && !strcmp(name + n - 17, ".LayerNorm.weight"))
            strcpy(name + n - 6, "gamma");
        else if (n > 15 && !strcmp(name + n - 15, ".LayerNorm.bias"))
            strcpy(name + n - 4, "beta");
        else
            continue;
        if ((at = index_of(s, name)) >= 0) return at;
    }
    return -1;
}

/* ---- pieces ---- */

static wf_param *own_of(const wf_model *m, const char *pattern, long number) {
    char name[256];
    if (!expand(pattern, "", number, name, sizeof name)) return NULL;
    for (int i = 0; i < m->n_param; i++)
        if (!strcmp(m->param[i]->name, name)) return m->param[i];
    return NULL;
}

/* Rows before this rule's piece in the foreign tensor, and all its rows. Pieces are in the order of the table. */
static void pieces(const wf_name_map *map, const wf_model *m, const wf_name_rule *mine, long number, int64_t *before,
                   int64_t *all) {
    *before = *all = 0;
    for (const wf_name_rule *r = map->rule; r->foreign; r++) {
        if (strcmp(r->foreign, mine->foreign)) continue;
        wf_param *p = own_of(m, r->own, number);
        if (!p) continue;
        int64_t rows = p->value->shape.rank ? p->value->shape.dim[0] : 1;
        if (r < mine) *before += rows;
        *all += rows;
    }
}

/* Copy between own [rows, cols] and rows before.. of the foreign tensor, whose other axis is its columns (transposed: its rows). */
static void move(const wf_name_rule *r, wf_tensor *own, wf_tensor *foreign, int64_t before, int64_t all, bool import) {
    int64_t n = wf_tensor_count(own), rows = own->shape.rank ? own->shape.dim[0] : 1, cols = n / rows;
    for (int64_t i = 0; i < n; i++) {
        int64_t row = before + i / cols, col = i % cols;
        int64_t at = r->flags & WF_NAME_TRANSPOSED ? col * all + row : row * cols + col;
        if (import)
            wf_tensor_set(own, i, wf_tensor_get(foreign, at));
        else
            wf_tensor_set(foreign, at, wf_tensor_get(own, i));
    }
}

static wf_status import_one(const wf_name_map *map, wf_model *m, wf_param *p, const wf_tensors *foreign, bool *used) {
    long number;
    const wf_name_rule *r = rule_of(map, p->name, &number);
    if (!r) return wf_fail(WF_EUNSUPPORTED, "names '%s' have none for the parameter '%s'", map->name, p->name);
    int at = find_foreign(map, r, number, foreign);
    char name[256] = "";
    expand(r->foreign, map->prefix, number, name, sizeof name);
    if (at < 0 && r->flags & WF_NAME_OPTIONAL) {
        memset(p->value->data, 0, p->value->bytes);
        return WF_OK;
    }
    if (at < 0) return wf_fail(WF_EFORMAT, "tensor '%s' is missing (for the parameter '%s')", name, p->name);
    used[at] = true;
    int64_t before, all;
    pieces(map, m, r, number, &before, &all);
    int64_t rows = p->value->shape.rank ? p->value->shape.dim[0] : 1, cols = wf_tensor_count(p->value) / rows;
    const wf_tensor *f = foreign->item[at].value;
    char a[96], b[96];
    int64_t first = r->flags & WF_NAME_TRANSPOSED ? cols : all;
    bool lead = r->flags & (WF_NAME_LEAD1 | WF_NAME_LEAD2);
    if (wf_tensor_count(f) != all * cols || (!lead && f->shape.rank > 0 && f->shape.dim[0] != first))
        return wf_fail(WF_EFORMAT, "tensor '%s' is %s; '%s' %s needs %lld x %lld numbers of it", foreign->item[at].name,
                       wf_shape_text(&f->shape, a), p->name, wf_shape_text(&p->value->shape, b), (long long)all,
                       (long long)cols);
    move(r, p->value, (wf_tensor *)(uintptr_t)f, before, all, true);
    return WF_OK;
}

wf_status wf_import(const wf_name_map *map, wf_model *m, const wf_tensors *foreign) {
    bool *used = wf_alloc_array((size_t)foreign->n + 1, sizeof *used);
    if (!used) return WF_ENOMEM;
    wf_status s = WF_OK;
    for (int i = 0; i < m->n_param && s == WF_OK; i++)
        if (!(m->param[i]->flags & WF_PARAM_BUFFER) || rule_of(map, m->param[i]->name, &(long){0}))
            s = import_one(map, m, m->param[i], foreign, used);
    for (int i = 0; i < foreign->n && s == WF_OK; i++)
        if (!used[i] && !ignored(map, foreign->item[i].name))
            s = wf_fail(WF_EFORMAT, "tensor '%s' has no place in this model", foreign->item[i].name);
    wf_free(used);
    return s;
}

static wf_shape foreign_shape(const wf_model *m, const wf_name_rule *r, const wf_tensor *own, int64_t all) {
    wf_shape s = own->shape;
    if (s.rank) s.dim[0] = all;
    if (r->flags & WF_NAME_TRANSPOSED && s.rank == 2) return WF_SHAPE(s.dim[1], s.dim[0]);
    if (r->flags & WF_NAME_LEAD1) return WF_SHAPE(1, s.dim[0], s.dim[1]);
    if (r->flags & WF_NAME_LEAD2) return WF_SHAPE(1, 1, s.dim[0]);
    if (r->flags & WF_NAME_PATCH) {
        const wf_value *model = wf_value_get(m->recipe, "model");
        if (!model || model->kind != WF_V_MAP) model = m->recipe;
        int64_t C = 1, p = 4, w = 0;
        const wf_value *v;
        if ((v = wf_value_get(model, "channels"))) wf_value_int(v, &C);
        if ((v = wf_value_get(model, "patch"))) wf_value_int(v, &p);
        if ((v = wf_value_get(model, "patch_width"))) wf_value_int(v, &w);
        if (!w) w = p;
        if (C * p * w == s.dim[1]) return WF_SHAPE(s.dim[0], C, p, w);
    }
    return s;
}

static wf_status export_one(const wf_name_map *map, const wf_model *m, const wf_param *p, const wf_tensor *value,
                            wf_tensors *foreign) {
    long number;
    const wf_name_rule *r = rule_of(map, p->name, &number);
    char name[256];
    if (!r || !expand(r->foreign, map->prefix, number, name, sizeof name))
        return wf_fail(WF_EUNSUPPORTED, "names '%s' have none for the parameter '%s'", map->name, p->name);
    int64_t before, all;
    pieces(map, m, r, number, &before, &all);
    int at = index_of(foreign, name);
    if (at < 0) {
        wf_tensor *t = wf_tensor_new(value->dtype, foreign_shape(m, r, value, all));
        if (!t) return WF_ENOMEM;
        WF_TRY(wf_tensors_add(foreign, name, t));
        at = foreign->n - 1;
    }
    move(r, (wf_tensor *)(uintptr_t)value, foreign->item[at].value, before, all, false);
    return WF_OK;
}

wf_status wf_export(const wf_name_map *map, const wf_model *m, const wf_tensor *const *value, wf_tensors *foreign) {
    for (int i = 0; i < m->n_param; i++) {
        const wf_param *p = m->param[i];
        if (p->flags & WF_PARAM_BUFFER) continue;
        WF_TRY(export_one(map, m, p, value && value[i] ? value[i] : p->value, foreign));
    }
    return WF_OK;
}

/* ---- sets ---- */

wf_status wf_tensors_add(wf_tensors *s, const char *name, wf_tensor *value) {
    if (!value) return WF_ENOMEM;
    if (s->n == s->cap) {
        int cap = s->cap ? 2 * s->cap : 64;
        wf_named_tensor *grown = wf_grow(s->item, sizeof *grown * (size_t)s->cap, sizeof *grown * (size_t)cap);
        if (!grown) {
            wf_tensor_free(value);
            return WF_ENOMEM;
        }
        s->item = grown;
        s->cap = cap;
    }
    char *own = wf_strdup(name);
    if (!own) {
        wf_tensor_free(value);
        return WF_ENOMEM;
    }
    s->item[s->n++] = (wf_named_tensor){own, value};
    return WF_OK;
}

const wf_tensor *wf_tensors_get(const wf_tensors *s, const char *name) {
    int i = index_of(s, name);
    return i < 0 ? NULL : s->item[i].value;
}

void wf_tensors_free(wf_tensors *s) {
    for (int i = 0; i < s->n; i++) {
        wf_free(s->item[i].name);
        wf_tensor_free(s->item[i].value);
    }
    wf_free(s->item);
    *s = (wf_tensors){0};
}

wf_status wf_tensors_read(wf_tensors *s, const wf_st_file *f, const char *prefix) {
    size_t n = strlen(prefix);
    for (int i = 0; i < f->n; i++) {
        const wf_st_entry *e = &f->entry[i];
        if (strncmp(e->name, prefix, n)) continue;
        bool is_float = e->dtype[0] == 'F' || e->dtype[0] == 'B';
        wf_tensor *t = wf_st_read(e, is_float && strcmp(e->dtype, "BOOL") ? WF_F32 : WF_I32);
        if (!t) return WF_EFORMAT;
        WF_TRY(wf_tensors_add(s, e->name + n, t));
    }
    return WF_OK;
}
