/* designs.c: the designs of a comparison: those named one by one, those of a grid, and their sizes made equal.
 *
 *     grid: {model.norm: [layernorm, rmsnorm], model.placement: [pre, post, peri]}     every pairing is a design: rmsnorm-peri
 *     size: match-parameters                                                           hidden widths solved for equal parameters
 */
#include "compare/designs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DESIGNS = 1024 };

/* ---- one design ---- */

static bool is_folder_name(const char *s) {
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.+";
    return s[0] && s[0] != '.' && strlen(s) < 128 && strspn(s, good) == strlen(s);
}

static wf_status check_design(const char *name, const wf_value *overlay) {
    if (!is_folder_name(name))
        return wf_value_fail(overlay, WF_EINVAL,
                             "designs: '%s' becomes the name of a folder: letters, digits, - _ . and + only, no . in front",
                             name);
    if (overlay->kind != WF_V_MAP && overlay->kind != WF_V_NULL)
        return wf_value_fail(overlay, WF_EINVAL,
                             "designs.%s: a map of what differs from the base, like {model: {norm: rmsnorm}}", name);
    if (overlay->kind == WF_V_MAP && wf_value_get(overlay, "task") != NULL) /* equal data is the point */
        return wf_value_fail(overlay, WF_EINVAL, "designs.%s: 'task' belongs to the comparison, not to one design", name);
    return WF_OK;
}

/* The base: the comparison's recipe without what only a comparison has. */
static wf_value *base_recipe(const wf_value *recipe) {
    static const char *const own[] = {"designs", "grid", "size", "seeds", "question"};
    static const char *const kept[] = {"task", "model", "train", "name"};
    wf_value *base = wf_value_map();
    for (int i = 0; base != NULL && i < recipe->n; i++) {
        const char *key = recipe->key[i];
        bool is_own = false, is_kept = false;
        for (size_t k = 0; k < sizeof own / sizeof *own; k++) is_own |= !strcmp(key, own[k]);
        for (size_t k = 0; k < sizeof kept / sizeof *kept; k++) is_kept |= !strcmp(key, kept[k]);
        if (is_own) continue;
        if (!is_kept)
            wf_value_fail(
                recipe->item[i], WF_EINVAL,
                "unknown key '%s' in a comparison; known are question, task, model, train, seeds, designs, grid, size", key);
        wf_value *copy = is_kept ? wf_value_copy(recipe->item[i]) : NULL;
        if (copy == NULL || wf_value_set(base, key, copy) != WF_OK) {
            wf_value_free(base);
            return NULL;
        }
    }
    return base;
}

/* Takes `recipe`; the design keeps a copy of the name, which is also the recipe's own. */
static wf_status add_design(wf_race *r, const char *name, wf_value *recipe) {
    wf_value *label = wf_value_text(name);
    wf_status s = recipe == NULL || label == NULL ? WF_ENOMEM : WF_OK;
    for (int i = 0; s == WF_OK && i < r->n_design; i++)
        if (!strcmp(r->design[i].name, name)) s = wf_value_fail(r->recipe, WF_EINVAL, "two designs have the name '%s'", name);
    if (s == WF_OK && r->n_design == MAX_DESIGNS) s = wf_value_fail(r->recipe, WF_EINVAL, "more than %d designs", MAX_DESIGNS);
    if (s == WF_OK) {
        s = wf_value_set(recipe, "name", label); /* takes label */
    } else {
        wf_value_free(label);
    }
    wf_design *grown =
        s == WF_OK ? wf_grow(r->design, sizeof *grown * (size_t)r->n_design, sizeof *grown * (size_t)(r->n_design + 1)) : NULL;
    if (grown == NULL) {
        wf_value_free(recipe);
        return s == WF_OK ? WF_ENOMEM : s;
    }
    r->design = grown;
    grown[r->n_design] = (wf_design){.name = wf_value_get(recipe, "name")->text, .recipe = recipe};
    r->n_design++;
    return WF_OK;
}

static wf_status read_named(wf_race *r, const wf_value *base, const wf_value *designs) {
    if (designs->kind != WF_V_MAP)
        return wf_value_fail(designs, WF_EINVAL, "designs: a map from a name to what differs from the base");
    for (int i = 0; i < designs->n; i++) {
        const wf_value *over = designs->item[i];
        WF_TRY(check_design(designs->key[i], over));
        WF_TRY(add_design(r, designs->key[i], wf_value_merge(base, over->kind == WF_V_MAP ? over : NULL)));
    }
    return WF_OK;
}

/* ---- the grid ---- */

/* {a: {b: item}} of "a.b". */
static wf_value *nest(const char *path, const wf_value *item) {
    char *words = wf_strdup(path);
    wf_value *v = wf_value_copy(item);
    while (words != NULL && v != NULL && *words) {
        char *dot = strrchr(words, '.'), *word = dot != NULL ? dot + 1 : words;
        wf_value *map = wf_value_map();
        if (map == NULL || wf_value_set(map, word, v) != WF_OK) {
            wf_value_free(map);
            v = NULL;
            break;
        }
        v = map;
        *(dot != NULL ? dot : words) = '\0';
    }
    wf_free(words);
    return v;
}

/* What a value is called: itself, or the name in its map ({name: power, groups: 4, label: power4}: label first). */
static const char *label_of(const wf_value *v) {
    const wf_value *label = v->kind == WF_V_MAP ? wf_value_get(v, "label") : NULL;
    if (label == NULL) label = v->kind == WF_V_MAP ? wf_value_get(v, "name") : v;
    return label != NULL && label->kind == WF_V_TEXT ? label->text : NULL;
}

static wf_value *without_label(const wf_value *v) {
    if (v->kind != WF_V_MAP) return wf_value_copy(v);
    wf_value *copy = wf_value_map();
    for (int i = 0; copy != NULL && i < v->n; i++)
        if (strcmp(v->key[i], "label") != 0) wf_value_set(copy, v->key[i], wf_value_copy(v->item[i]));
    return copy;
}

static wf_status read_axes(wf_race *r, const wf_value *grid) {
    if (grid->kind != WF_V_MAP || grid->n < 1 || grid->n > WF_GRID_AXES)
        return wf_value_fail(grid, WF_EINVAL,
                             "grid: a map of 1 to %d paths with lists, like {model.norm: [layernorm, rmsnorm], "
                             "model.placement: [pre, peri]}",
                             WF_GRID_AXES);
    for (int a = 0; a < grid->n; a++) {
        const wf_value *list = grid->item[a];
        if (list->kind != WF_V_LIST || list->n < 1 || !strncmp(grid->key[a], "task", 4))
            return wf_value_fail(list, WF_EINVAL, "grid.%s: a list of values (of model or train; the task is the same for all)",
                                 grid->key[a]);
        r->axis[a] = (wf_grid_axis){.path = grid->key[a], .n = list->n};
        for (int i = 0; i < list->n; i++) {
            const char *label = label_of(list->item[i]);
            if (label == NULL || !is_folder_name(label))
                return wf_value_fail(
                    list->item[i], WF_EINVAL,
                    "grid.%s: a name, a number, or a map with a name (or a label, when two have the same name)", grid->key[a]);
        }
    }
    r->n_axis = grid->n;
    return WF_OK;
}

static wf_status grid_design(wf_race *r, const wf_value *base, const wf_value *grid, const int *at) {
    wf_value *recipe = wf_value_copy(base);
    wf_text name = {0};
    for (int a = 0; a < grid->n && recipe != NULL; a++) {
        const wf_value *item = grid->item[a]->item[at[a]];
        wf_text_add(&name, "%s%s", a > 0 ? "-" : "", label_of(item));
        wf_value *plain = without_label(item), *over = plain != NULL ? nest(grid->key[a], plain) : NULL;
        wf_value *next = over != NULL ? wf_value_merge(recipe, over) : NULL;
        wf_value_free(plain);
        wf_value_free(over);
        wf_value_free(recipe);
        recipe = next;
    }
    wf_status s = name.s != NULL ? add_design(r, name.s, recipe) : WF_ENOMEM;
    wf_text_free(&name);
    if (s != WF_OK) return s;
    wf_design *d = &r->design[r->n_design - 1];
    d->in_grid = true;
    for (int a = 0; a < grid->n; a++) d->at[a] = at[a];
    return WF_OK;
}

const char *wf_grid_label(const wf_race *r, int axis, int i) {
    const wf_value *grid = wf_value_get(r->recipe, "grid");
    return label_of(grid->item[axis]->item[i]);
}

static wf_status read_grid(wf_race *r, const wf_value *base, const wf_value *grid) {
    WF_TRY(read_axes(r, grid));
    int at[WF_GRID_AXES] = {0};
    for (;;) {
        WF_TRY(grid_design(r, base, grid, at));
        int a = grid->n - 1;
        while (a >= 0 && ++at[a] == r->axis[a].n) at[a--] = 0;
        if (a < 0) return WF_OK;
    }
}

wf_status wf_designs_read(wf_race *r) {
    const wf_value *designs = wf_value_get(r->recipe, "designs"), *grid = wf_value_get(r->recipe, "grid");
    if (grid == NULL && (designs == NULL || designs->kind != WF_V_MAP || designs->n < 1))
        return wf_value_fail(r->recipe, WF_EINVAL,
                             "a comparison needs 'designs': a map from a name to what differs from the base, "
                             "for example  designs: {gpt: {}, llama: {model: {norm: rmsnorm}}}; or a 'grid'");
    wf_value *base = base_recipe(r->recipe);
    if (base == NULL) return WF_EINVAL;
    wf_status s = designs != NULL ? read_named(r, base, designs) : WF_OK;
    if (s == WF_OK && grid != NULL) s = read_grid(r, base, grid);
    wf_value_free(base);
    return s;
}

/* ---- equal sizes ---- */

typedef struct sizing {
    const char *by; /* the entry that is solved */
    int64_t target, step;
    double within;
} sizing;

/* Parameters of the design when entry `by` is n; negative on error. */
static int64_t count_at(const wf_race *r, const wf_design *d, const sizing *z, int64_t n, wf_value **made) {
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)n);
    wf_value *v = wf_value_copy(d->recipe);
    int64_t count = -1;
    if (v != NULL && wf_value_set_path(v, z->by, text) == WF_OK) count = wf_recipe_parameters(v, r->task);
    if (count >= 0 && made != NULL)
        *made = v;
    else
        wf_value_free(v);
    return count;
}

/* The multiple of `step` whose count is nearest to the target; counts grow with n. */
static wf_status solve_size(wf_race *r, wf_design *d, const sizing *z) {
    int64_t before = wf_recipe_parameters(d->recipe, r->task);
    if (before < 0) return WF_EINVAL;
    int64_t lo = 1, hi = 2;
    int64_t c = count_at(r, d, z, z->step * hi, NULL);
    while (c >= 0 && c < z->target && hi < 1 << 24) lo = hi, hi *= 2, c = count_at(r, d, z, z->step * hi, NULL);
    while (c >= 0 && hi - lo > 1) {
        int64_t mid = lo + (hi - lo) / 2;
        c = count_at(r, d, z, z->step * mid, NULL);
        if (c < z->target)
            lo = mid;
        else
            hi = mid;
    }
    int64_t below = c < 0 ? -1 : count_at(r, d, z, z->step * lo, NULL),
            above = c < 0 ? -1 : count_at(r, d, z, z->step * hi, NULL);
    if (below < 0 || above < 0) return wf_fail_within(WF_EINVAL, "design '%s', size", d->name);
    int64_t n = llabs(below - z->target) <= llabs(above - z->target) ? lo : hi;
    wf_value *made = NULL;
    int64_t got = count_at(r, d, z, z->step * n, &made);
    double off = (double)(got - z->target) / (double)z->target;
    if (got < 0 || fabs(off) > z->within) {
        wf_value_free(made);
        return wf_value_fail(r->recipe, WF_EINVAL,
                             "design '%s' cannot be given %lld parameters by %s alone: %lld is the nearest it comes to "
                             "(%.1f %% off, %.1f %% are allowed); change its width, or take it out of the comparison",
                             d->name, (long long)z->target, z->by, (long long)got, 100 * off, 100 * z->within);
    }
    wf_value_free(d->recipe);
    d->recipe = made;
    d->name = wf_value_get(made, "name")->text;
    d->solved = wf_format("%s %lld: %lld parameters, %+.2f %% of the target (%lld before)", z->by, (long long)(z->step * n),
                          (long long)got, 100 * off, (long long)before);
    return d->solved != NULL ? WF_OK : WF_ENOMEM;
}

static wf_status read_sizing(const wf_race *r, const wf_value *v, sizing *z) {
    *z = (sizing){.by = "model.channel.hidden", .step = 1, .within = 0.02};
    const wf_value *match = v->kind == WF_V_MAP ? wf_value_get(v, "match") : v;
    const char *word = match != NULL && match->kind == WF_V_TEXT ? match->text : "";
    if (!strcmp(word, "none")) return WF_OK;
    if (strcmp(word, "match-parameters") != 0 && strcmp(word, "parameters") != 0)
        return wf_value_fail(v, WF_EINVAL,
                             "size: match-parameters, none, or a map like {match: parameters, of: NAME, by: "
                             "model.channel.hidden, step: 1, within: 0.02}");
    const char *of = r->design[0].name;
    for (int i = 0; v->kind == WF_V_MAP && i < v->n; i++) {
        const wf_value *x = v->item[i];
        if (!strcmp(v->key[i], "of") && x->kind == WF_V_TEXT)
            of = x->text;
        else if (!strcmp(v->key[i], "by") && x->kind == WF_V_TEXT)
            z->by = x->text;
        else if (!strcmp(v->key[i], "step"))
            WF_TRY(wf_value_int(x, &z->step));
        else if (!strcmp(v->key[i], "within"))
            WF_TRY(wf_value_real(x, &z->within));
        else if (strcmp(v->key[i], "match") != 0)
            return wf_value_fail(x, WF_EINVAL, "size: unknown key '%s'; known are match, of, by, step, within", v->key[i]);
    }
    if (z->step < 1 || !(z->within > 0)) return wf_value_fail(v, WF_EINVAL, "size: 'step' and 'within' must be above 0");
    for (int d = 0; d < r->n_design; d++)
        if (!strcmp(r->design[d].name, of)) {
            z->target = wf_recipe_parameters(r->design[d].recipe, r->task);
            return z->target > 0 ? WF_OK : wf_fail_within(WF_EINVAL, "design '%s'", of);
        }
    return wf_value_fail(v, WF_ENOTFOUND, "size: there is no design '%s' to match", of);
}

wf_status wf_designs_size(wf_race *r) {
    const wf_value *v = wf_value_get(r->recipe, "size");
    sizing z;
    if (v == NULL) return WF_OK;
    WF_TRY(read_sizing(r, v, &z));
    for (int d = 0; z.target > 0 && d < r->n_design; d++) {
        int64_t n = wf_recipe_parameters(r->design[d].recipe, r->task);
        if (n < 0) return wf_fail_within(WF_EINVAL, "design '%s'", r->design[d].name);
        if (fabs((double)n / (double)z.target - 1) > z.within / 4) WF_TRY(solve_size(r, &r->design[d], &z));
    }
    return WF_OK;
}
