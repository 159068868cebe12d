/* override.c: the entry `parts` of a recipe: single modules that are something else than the model would make them. */
#include "part/override.h"

#include <string.h>

enum { MAX_ENTRIES = 4096 };

int wf_path_fits(const char *pattern, const char *path) {
    int stars = 0;
    for (;;) {
        size_t n = strcspn(pattern, "."), k = strcspn(path, ".");
        bool star = n == 1 && *pattern == '*' && k > 0;
        if (!star && (n != k || memcmp(pattern, path, n))) return -1;
        stars += star;
        pattern += n;
        path += k;
        if (!*pattern || !*path) return *pattern == *path ? stars : -1;
        pattern++;
        path++;
    }
}

wf_status wf_overrides_read(wf_model *m, const wf_value *options) {
    const wf_value *map = options ? wf_value_get(options, "parts") : NULL;
    if (!map || map->kind == WF_V_NULL) return WF_OK;
    if (map->kind != WF_V_MAP)
        return wf_value_fail(map, WF_EINVAL, "parts: a map of module paths, like {\"blocks.*.mixer_in_norm\": none}");
    if (map->n > MAX_ENTRIES)
        return wf_value_fail(map, WF_EINVAL, "parts: %d entries are more than %d; let * stand for numbers", map->n,
                             MAX_ENTRIES);
    for (int i = 0; i < map->n; i++)
        if (map->item[i]->kind != WF_V_TEXT && map->item[i]->kind != WF_V_MAP)
            return wf_value_fail(map->item[i], WF_EINVAL, "parts: '%s' must be a name or a map like {name: dense, bias: true}",
                                 map->key[i]);
    m->parts = map;
    m->parts_used = wf_arena_alloc(m->arena, sizeof(bool) * ((size_t)map->n + 1));
    return m->parts_used ? WF_OK : WF_ENOMEM;
}

/* The entry that holds for a path: the fewest *, then the later one; NULL: none. */
static const wf_value *entry_for(wf_model *m, const char *path) {
    const wf_value *best = NULL;
    int least = 0;
    for (int i = 0; m->parts && i < m->parts->n; i++) {
        int stars = wf_path_fits(m->parts->key[i], path);
        if (stars < 0) continue;
        m->parts_used[i] = true;
        if (best && stars > least) continue;
        best = m->parts->item[i];
        least = stars;
    }
    return best;
}

static const char *name_of(const wf_value *spec) {
    const wf_value *n = spec && spec->kind == WF_V_MAP ? wf_value_get(spec, "name") : spec;
    return n && n->kind == WF_V_TEXT ? n->text : NULL;
}

/* The entry, and what the old spec says beside it where both are of one part. */
static wf_value *laid_over(const wf_value *entry, const wf_value *old, const char *default_name) {
    const char *is = name_of(entry), *was = old ? name_of(old) : default_name;
    if (old && old->kind == WF_V_MAP && !was) was = default_name;
    bool other = is && (!was || strcmp(is, was));
    if (!other && entry->kind == WF_V_TEXT) return old ? wf_value_copy(old) : wf_value_copy(entry);
    wf_value *v = wf_value_copy(entry);
    if (other || !v) return v;
    wf_status s = WF_OK;
    for (int i = 0; old && old->kind == WF_V_MAP && i < old->n && s == WF_OK; i++)
        if (!wf_value_get(v, old->key[i])) s = wf_value_set(v, old->key[i], wf_value_copy(old->item[i]));
    if (s == WF_OK && !wf_value_get(v, "name") && was) s = wf_value_set(v, "name", wf_value_text(was));
    if (s == WF_OK) return v;
    wf_value_free(v);
    return NULL;
}

wf_status wf_override(wf_model *m, const char *path, const char *default_name, const wf_value **spec) {
    const wf_value *entry = entry_for(m, path);
    if (!entry) return WF_OK;
    wf_value *whole = laid_over(entry, *spec, default_name);
    if (!whole) return WF_ENOMEM;
    *spec = whole;
    return wf_value_set(m->made, path, whole);
}

bool wf_part_absent(wf_module *m, const char *name) {
    if (!m->model->parts) return false;
    char *path = m->name[0] ? wf_arena_format(m->model->arena, "%s.%s", m->name, name) : wf_arena_strdup(m->model->arena, name);
    const wf_value *e = path ? entry_for(m->model, path) : NULL;
    const char *is = name_of(e);
    return is && !strcmp(is, "none");
}

/* ---- what fitted nothing ---- */

/* A path with * in place of its numbers, as recipes mostly have them. */
void wf_path_starred(const char *path, char *out, size_t size) {
    size_t n = 0;
    while (*path && n + 2 < size) {
        size_t k = strcspn(path, ".");
        if (k > 0 && strspn(path, "0123456789") == k)
            out[n++] = '*';
        else
            for (size_t i = 0; i < k && n + 2 < size; i++) out[n++] = path[i];
        path += k;
        if (*path) out[n++] = *path++;
    }
    out[n] = 0;
}

static void collect(const wf_module *m, char (*list)[128], const char **word, int *n, int room) {
    for (int i = 0; i < m->n_child && *n < room; i++) {
        wf_path_starred(m->child[i]->name, list[*n], sizeof *list);
        bool known = false;
        for (int k = 0; k < *n && !known; k++) known = !strcmp(list[k], list[*n]);
        if (!known) {
            word[*n] = list[*n];
            ++*n;
        }
        collect(m->child[i], list, word, n, room);
    }
}

static wf_status no_such_module(const wf_model *m, int entry) {
    enum { ROOM = 256 };
    char(*list)[128] = wf_alloc_array(ROOM, sizeof *list), key[128];
    const char **word = wf_alloc_array(ROOM, sizeof *word);
    if (!list || !word) {
        wf_free(list);
        wf_free(word);
        return WF_ENOMEM;
    }
    int n = 0;
    collect(m->root, list, word, &n, ROOM);
    wf_path_starred(m->parts->key[entry], key, sizeof key);
    const char *near = n ? wf_nearest(key, word, n) : NULL;
    wf_text some = {0};
    for (int i = 0; !near && i < n && i < 8; i++) wf_text_add(&some, "%s%s", i ? ", " : "", word[i]);
    wf_status s = wf_value_fail(m->parts->item[entry], WF_ENOTFOUND,
                                "parts: '%.100s' is no module of this model whose part can be chosen%s%s%s%s%s%s",
                                m->parts->key[entry], near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "",
                                some.s ? " (there are: " : "", some.s ? some.s : "", some.s ? ", ..)" : "");
    wf_text_free(&some);
    wf_free(list);
    wf_free(word);
    return s;
}

wf_status wf_overrides_check(const wf_model *m) {
    for (int i = 0; m->parts && i < m->parts->n; i++)
        if (!m->parts_used[i]) return no_such_module(m, i);
    return WF_OK;
}
