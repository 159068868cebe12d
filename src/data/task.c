/* task.c: opening tasks by name, and batches: which samples stand in batch number k of a run.
 *
 * Training walks through epochs; epoch e is the permutation wf_shuffle(., count, hash(seed, e)). Validation walks through one
 * fixed permutation, the same for all runs, so that any prefix of it is a fair sample of the split. Both are pure functions
 * of (seed, step): nothing is remembered, a resumed run and every design of a comparison see the same batches.
 */
#include "data/tasks.h"

#include <string.h>

static const wf_task_type *const all_types[] = {
    &wf_task_text,           &wf_task_wordnet,        &wf_task_fashion_mnist,
    &wf_task_pictures,       &wf_task_selective_copy, &wf_task_associative_recall,
    &wf_task_wordnet_origin,
};
enum { N_TYPES = sizeof all_types / sizeof *all_types };

const wf_task_type *const *wf_task_types(int *n) {
    *n = N_TYPES;
    return all_types;
}

static const wf_task_type *find_type(const wf_value *where, const char *name) {
    const char *names[N_TYPES];
    wf_text all = {0};
    for (int k = 0; k < N_TYPES; k++) {
        names[k] = all_types[k]->name;
        if (strcmp(name, names[k]) == 0) {
            wf_text_free(&all);
            return all_types[k];
        }
        wf_text_add(&all, "%s%s", k ? ", " : "", names[k]);
    }
    const char *near = wf_nearest(name, names, N_TYPES);
    wf_value_fail(where, WF_ENOTFOUND, "there is no task '%s'%s%s%s (tasks: %s)", name, near ? "; did you mean '" : "",
                  near ? near : "", near ? "'?" : "", all.s ? all.s : "");
    wf_text_free(&all);
    return NULL;
}

static wf_status fill_task(wf_task *t, const wf_value *spec) {
    static const char *const also[] = {"name", NULL};
    const wf_value *name = spec->kind == WF_V_MAP ? wf_value_get(spec, "name") : spec;
    if (!name || name->kind != WF_V_TEXT)
        return wf_value_fail(spec, WF_EINVAL, "a task needs a name: `task: {name: wordnet}` (see `weft data list`)");
    if (!(t->type = find_type(spec, name->text))) return WF_ENOTFOUND;
    void *opt = wf_alloc(t->type->opt_size);
    if (!opt) return WF_ENOMEM;
    t->opt = opt;
    char what[64];
    snprintf(what, sizeof what, "task.%s", t->type->name);
    WF_TRY(wf_options_read(t->type->options, spec->kind == WF_V_MAP ? spec : NULL, what, also, opt, t->type->opt_size));
    WF_TRY(t->type->open(t));
    if (t->count[WF_TRAIN] < 1) return wf_value_fail(spec, WF_EINVAL, "%s: no training samples", what);
    return WF_OK;
}

wf_task *wf_task_open(const wf_value *spec) {
    if (!spec) {
        wf_fail(WF_EINVAL, "the recipe has no `task` entry: add `task: {name: wordnet}` (see `weft data list`)");
        return NULL;
    }
    for (int k = 0; spec->kind == WF_V_MAP && k < spec->n; k++)
        wf_value_get(spec, spec->key[k]); /* read on the caller's tree */
    wf_task *t = wf_alloc(sizeof *t);
    wf_value *own = t ? wf_value_copy(spec) : NULL; /* options point into it */
    if (!own) {
        wf_free(t);
        return NULL;
    }
    t->where = own;
    if (fill_task(t, own) == WF_OK) return t;
    wf_task_close(t);
    return NULL;
}

void wf_task_close(wf_task *t) {
    if (!t) return;
    if (t->type && t->type->close) t->type->close(t);
    wf_free((void *)(uintptr_t)t->opt);
    wf_value_free((wf_value *)(uintptr_t)t->where);
    wf_free(t);
}

char *wf_task_path(const wf_task *t, const char *path) {
    const char *file = t->where ? t->where->file : NULL, *slash = file ? strrchr(file, '/') : NULL;
    if (path[0] != '/' && slash && !wf_path_exists(path)) {
        char *beside = wf_format("%.*s/%s", (int)(slash - file), file, path);
        if (!beside || wf_path_exists(beside)) return beside;
        wf_free(beside);
    }
    return wf_strdup(path);
}

void wf_task_set_tokens(wf_task *t, int64_t vocab, int64_t length) {
    t->objective = WF_OBJECTIVE_NEXT_TOKEN;
    t->vocab = vocab;
    t->length = length;
    t->n_tensor = 2;
    t->tensor_name[0] = "tokens";
    t->tensor_name[1] = "targets";
    for (int k = 0; k < 2; k++) {
        t->tensor_type[k] = WF_I32;
        t->tensor_shape[k] = WF_SHAPE(length);
    }
}

void wf_task_set_pictures(wf_task *t, int64_t classes, int64_t c, int64_t h, int64_t w) {
    t->objective = WF_OBJECTIVE_CLASSES;
    t->classes = classes;
    t->channels = c;
    t->height = h;
    t->width = w;
    t->n_tensor = 2;
    t->tensor_name[0] = "images";
    t->tensor_type[0] = WF_F32;
    t->tensor_shape[0] = WF_SHAPE(c, h, w);
    t->tensor_name[1] = "labels";
    t->tensor_type[1] = WF_I32;
    t->tensor_shape[1] = (wf_shape){.rank = 0};
}

/* ---- batches ---- */
wf_batch *wf_batch_new(const wf_task *t, int64_t size) {
    if (size < 1) {
        wf_fail(WF_EINVAL, "a batch of %lld samples", (long long)size);
        return NULL;
    }
    wf_batch *b = wf_alloc(sizeof *b);
    if (!b) return NULL;
    b->size = size;
    b->n = t->n_tensor;
    for (int k = 0; k < b->n; k++) {
        wf_shape s = {.rank = t->tensor_shape[k].rank + 1, .dim = {size}};
        memcpy(s.dim + 1, t->tensor_shape[k].dim, (size_t)t->tensor_shape[k].rank * sizeof *s.dim);
        if (!(b->tensor[k] = wf_tensor_new(t->tensor_type[k], s))) {
            wf_batch_free(b);
            return NULL;
        }
    }
    return b;
}

void wf_batch_free(wf_batch *b) {
    if (!b) return;
    for (int k = 0; k < b->n; k++) wf_tensor_free(b->tensor[k]);
    wf_free(b);
}

static int64_t sample_index(const wf_task *t, wf_split split, uint64_t seed, int64_t i) {
    int64_t count = t->count[split];
    uint64_t key[2] = {seed, (uint64_t)(i / count)};
    if (split == WF_VALID) key[0] = key[1] = 0;
    return (int64_t)wf_shuffle((uint64_t)(i % count), (uint64_t)count, wf_hash(key, sizeof key, 0));
}

wf_status wf_batch_fill(const wf_task *t, wf_split split, uint64_t seed, int64_t step, wf_batch *b, int64_t *valid) {
    int64_t first, failed = -1;
    size_t bytes = 0;
    if (t->count[split] < 1)
        return wf_fail(WF_EINVAL, "task %s has no %s samples", t->type->name, split == WF_TRAIN ? "training" : "validation");
    if (step < 0 || __builtin_mul_overflow(step, b->size, &first) || first > INT64_MAX - b->size)
        return wf_fail(WF_EINVAL, "task %s: batch number %lld", t->type->name, (long long)step);
    for (int k = 0; k < b->n; k++) bytes += b->tensor[k]->bytes;
    int workers = bytes < 65536 ? 1 : wf_threads();
#pragma omp parallel for schedule(static) num_threads(workers) if (workers > 1)
    for (int64_t r = 0; r < b->size; r++)
        if (t->type->sample(t, split, sample_index(t, split, seed, first + r), r, b->tensor) != WF_OK) {
#pragma omp atomic write
            failed = r;
        }
    if (failed >= 0) /* again, on the caller's thread, for its message */
        WF_TRY(t->type->sample(t, split, sample_index(t, split, seed, first + failed), failed, b->tensor));
    if (valid) {
        int64_t left = t->count[split] - first;
        *valid = split == WF_TRAIN || left > b->size ? b->size : left < 0 ? 0 : left;
    }
    return WF_OK;
}
