/* recipe.c: what a model learns of its task, and whether two recipes mean the same run. */
#include "learn/inside.h"

#include <math.h>
#include <string.h>

/* ---- completing ---- */

static bool part_has(const wf_part *p, const char *option) {
    for (const wf_option *o = p->options; o && o->name; o++)
        if (!strcmp(o->name, option)) return true;
    return false;
}

/* Set model.<key> from the task unless the recipe says it; a recipe that cannot hold the task's is refused. */
static wf_status fill_in(wf_value *model, const wf_part *part, const char *key, int64_t value, bool may_exceed) {
    if (value <= 0 || !part_has(part, key)) return WF_OK;
    const wf_value *given = wf_value_get(model, key);
    int64_t v = 0;
    if (given) WF_TRY(wf_value_int(given, &v));
    if (v == 0) return wf_value_set(model, key, wf_value_number((double)value));
    if (v == value || (may_exceed && v > value)) return WF_OK;
    return wf_value_fail(given, WF_EINVAL, "model: '%s' is %lld, but the task has %lld; leave '%s' out to take the task's", key,
                         (long long)v, (long long)value, key);
}

wf_status wf_recipe_check_sections(const wf_value *recipe) {
    static const char *const known[] = {"name", "task", "model", "train"};
    for (int i = 0; recipe->kind == WF_V_MAP && i < recipe->n; i++) {
        bool found = false;
        for (int k = 0; k < 4; k++) found |= !strcmp(recipe->key[i], known[k]);
        if (found) continue;
        const char *near = wf_nearest(recipe->key[i], known, 4);
        return wf_value_fail(recipe->item[i], WF_EINVAL, "unknown entry '%s'%s%s%s; a recipe has name, task, model and train",
                             recipe->key[i], near ? ", did you mean '" : "", near ? near : "", near ? "'" : "");
    }
    return WF_OK;
}

wf_status wf_recipe_for_task(wf_value *recipe, const wf_task *t) {
    wf_value *model = wf_value_get(recipe, "model");
    const wf_value *name = wf_value_get(model, "name");
    if (!model || model->kind != WF_V_MAP || !name || name->kind != WF_V_TEXT)
        return wf_value_fail(recipe, WF_EINVAL,
                             "the recipe needs a model entry with a name, such as  model: {name: lm, layers: 4, width: 128}");
    const wf_part *part = wf_part_find("model", name->text);
    if (!part) return wf_value_fail(name, WF_ENOTFOUND, "%s", wf_message());
    WF_TRY(fill_in(model, part, "vocab", t->vocab, true));
    WF_TRY(fill_in(model, part, "length", t->length, true));
    WF_TRY(fill_in(model, part, "classes", t->classes, true));
    WF_TRY(fill_in(model, part, "channels", t->channels, false));
    WF_TRY(fill_in(model, part, "image_height", t->height, false));
    return fill_in(model, part, "image_width", t->width, false);
}

int64_t wf_recipe_parameters(const wf_value *recipe, const wf_task *t) {
    wf_value *copy = wf_value_copy(recipe);
    wf_model *m = copy && wf_recipe_for_task(copy, t) == WF_OK ? wf_model_build(copy, 0) : NULL;
    int64_t n = m ? wf_model_count(m) : -1;
    wf_model_free(m);
    wf_value_free(copy);
    return n;
}

/* ---- comparing ---- */

static bool same_text(const wf_value *a, const wf_value *b) {
    if (!strcmp(a->text, b->text)) return true;
    double x, y;
    return !a->quoted && !b->quoted && wf_value_real(a, &x) == WF_OK && wf_value_real(b, &y) == WF_OK && x == y;
}

static void describe(const wf_value *v, char buf[80]) {
    if (!v)
        snprintf(buf, 80, "nothing");
    else if (v->kind == WF_V_TEXT)
        snprintf(buf, 80, "'%.60s'", v->text);
    else
        snprintf(buf, 80, v->kind == WF_V_LIST ? "a list of %d" : "a map of %d", v->n);
}

static wf_status differ(const char *path, const wf_value *a, const wf_value *b) {
    char x[80], y[80];
    describe(a, x);
    describe(b, y);
    return wf_fail(WF_EINVAL,
                   "the checkpoint was made with another recipe: %s was %s and is now %s; set it back, or train into "
                   "another folder",
                   path, x, y);
}

static wf_status same_value(const char *path, const wf_value *a, const wf_value *b) {
    if (!a != !b || (a && a->kind != b->kind)) return differ(path, a, b);
    if (!a || a->kind == WF_V_NULL) return WF_OK;
    if (a->kind == WF_V_TEXT) return same_text(a, b) ? WF_OK : differ(path, a, b);
    if (a->kind == WF_V_LIST && a->n != b->n) return differ(path, a, b);
    for (int i = 0; i < a->n; i++) {
        char inner[512];
        if (a->kind == WF_V_LIST)
            snprintf(inner, sizeof inner, "%s[%d]", path, i);
        else
            snprintf(inner, sizeof inner, "%s.%s", path, a->key[i]);
        WF_TRY(same_value(inner, a->item[i], a->kind == WF_V_LIST ? b->item[i] : wf_value_get(b, a->key[i])));
    }
    for (int i = 0; a->kind == WF_V_MAP && i < b->n; i++) {
        char inner[512];
        snprintf(inner, sizeof inner, "%s.%s", path, b->key[i]);
        if (!wf_value_get(a, b->key[i])) return differ(inner, NULL, b->item[i]);
    }
    return WF_OK;
}

/* Options that may change between a checkpoint and its continuation: they do not enter the arithmetic of a step. */
static bool may_change(const char *name) {
    static const char *const free_ones[] = {"steps",  "valid_every", "valid_batches", "checkpoint_minutes",
                                            "warmup", "start",       "reset_state"};
    for (size_t i = 0; i < sizeof free_ones / sizeof *free_ones; i++)
        if (!strcmp(name, free_ones[i])) return true;
    return false;
}

static wf_status same_train(const wf_value *saved, const wf_value *now) {
    wf_train_opt a, b;
    WF_TRY(wf_train_read(saved, &a));
    WF_TRY(wf_train_read(now, &b));
    if (b.steps < a.steps)
        return wf_fail(WF_EINVAL, "the checkpoint's run has train.steps %lld; it can be extended, not shortened to %lld",
                       (long long)a.steps, (long long)b.steps);
    const char *p = (const char *)&a, *q = (const char *)&b;
    for (const wf_option *o = wf_train_options; o->name; o++) {
        if (may_change(o->name)) continue;
        char x[64] = "", y[64] = "";
        if (o->type == WF_OPT_INT) {
            snprintf(x, sizeof x, "%lld", (long long)*(const int64_t *)(p + o->offset));
            snprintf(y, sizeof y, "%lld", (long long)*(const int64_t *)(q + o->offset));
        } else if (o->type == WF_OPT_REAL) {
            snprintf(x, sizeof x, "%.17g", *(const double *)(p + o->offset));
            snprintf(y, sizeof y, "%.17g", *(const double *)(q + o->offset));
        } else if (o->type == WF_OPT_BOOL) {
            snprintf(x, sizeof x, "%d", *(const bool *)(p + o->offset));
            snprintf(y, sizeof y, "%d", *(const bool *)(q + o->offset));
        } else {
            const char *was = *(const char *const *)(p + o->offset), *is = *(const char *const *)(q + o->offset);
            snprintf(x, sizeof x, "%s", was ? was : "");
            snprintf(y, sizeof y, "%s", is ? is : "");
        }
        if (strcmp(x, y))
            return wf_fail(WF_EINVAL,
                           "the checkpoint was made with another recipe: train.%s was %s and is now %s; set it back, or "
                           "train into another folder",
                           o->name, x, y);
    }
    return WF_OK;
}

wf_status wf_recipe_compatible(const wf_value *saved, const wf_value *now) {
    WF_TRY(same_value("model", wf_value_get(saved, "model"), wf_value_get(now, "model")));
    WF_TRY(same_value("task", wf_value_get(saved, "task"), wf_value_get(now, "task")));
    return same_train(saved, now);
}
