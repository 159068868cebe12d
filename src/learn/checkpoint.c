/* checkpoint.c: a run's folder, and how it survives a kill at any moment.
 *
 *   FOLDER/checkpoint-120/{model,state}.safetensors   one complete pair, never changed once `latest` names it
 *   FOLDER/latest -> checkpoint-120                   a symbolic link, switched by one rename: the moment of truth
 *   FOLDER/{model,state}.safetensors -> latest/...    names that stay
 *   FOLDER/log.jsonl                                  one line a step; cut back to the checkpoint's step on resume
 *
 * model.safetensors holds the weights to use (the weight average when there is one) and the recipe; state.safetensors the
 * optimizer's moments, the live weights when an average is kept, and what else decides the next step. The order of samples is
 * a function of (data_seed, step) and dropout of (seed, step), so the step is the whole position.
 */
#include "learn/inside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char PREFIX[] = "checkpoint-";

static wf_status sync_folder(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0 || fsync(fd)) {
        int e = errno;
        if (fd >= 0) close(fd);
        return wf_fail(WF_EIO, "%s: %s", path, strerror(e));
    }
    close(fd);
    return WF_OK;
}

/* ---- writing ---- */

/* Tensors of the state file, names in `arena`. */
static int state_items(const wf_run *r, wf_arena *arena, wf_st_item *item) {
    int n = 0;
    for (int i = 0; i < r->optimizer.n; i++) {
        const wf_slot *s = &r->optimizer.slot[i];
        const char *name = s->param->name;
        item[n++] = (wf_st_item){wf_arena_format(arena, "m.%s", name), s->m};
        if (s->v) item[n++] = (wf_st_item){wf_arena_format(arena, "v.%s", name), s->v};
        if (s->ema) item[n++] = (wf_st_item){wf_arena_format(arena, "live.%s", name), s->param->value};
    }
    return n;
}

static wf_status write_state(wf_run *r, const char *folder, const char *recipe) {
    wf_arena *arena = wf_arena_new();
    wf_st_item *item = arena ? wf_arena_alloc(arena, (size_t)(r->optimizer.n * 3 + 1) * sizeof *item) : NULL;
    wf_status s = WF_ENOMEM;
    if (item) {
        int n = state_items(r, arena, item);
        const char *key[] = {"format", "step", "task", "recipe"};
        const char *text[] = {"weft-state-1", wf_arena_format(arena, "%lld", (long long)r->step),
                              wf_arena_format(arena, "%016llx", (unsigned long long)r->task->fingerprint), recipe};
        char *path = wf_arena_format(arena, "%s/state.safetensors", folder);
        s = wf_st_save(path, item, n, key, text, 4);
    }
    wf_arena_free(arena);
    return s;
}

static wf_status write_model(wf_run *r, const char *folder) {
    char *path = wf_format("%s/model.safetensors", folder), *step = wf_format("%lld", (long long)r->step);
    const char *key[] = {"step", "weights"}, *text[] = {step, r->opt.ema > 0 ? "average" : "live"};
    wf_run_swap_average(r);
    wf_status s = path && step ? wf_model_save(r->model, path, WF_F32, key, text, 2) : WF_ENOMEM;
    wf_run_swap_average(r);
    wf_free(path);
    wf_free(step);
    return s;
}

/* Make or switch the symbolic link FOLDER/NAME -> target, by a rename. */
static wf_status point(const char *folder, const char *name, const char *target) {
    char *path = wf_format("%s/%s", folder, name), *tmp = wf_format("%s/.%s.new", folder, name);
    wf_status s = path && tmp ? WF_OK : WF_ENOMEM;
    char now[256];
    ssize_t n = s == WF_OK ? readlink(path, now, sizeof now - 1) : -1;
    bool same = n > 0 && (size_t)n == strlen(target) && !memcmp(now, target, (size_t)n);
    if (s == WF_OK && !same) {
        (void)unlink(tmp);
        if (symlink(target, tmp) || rename(tmp, path)) s = wf_fail(WF_EIO, "%s: %s", path, strerror(errno));
    }
    wf_free(path);
    wf_free(tmp);
    return s;
}

static bool read_latest(const char *folder, char name[256]) {
    char *path = wf_format("%s/latest", folder);
    ssize_t n = path ? readlink(path, name, 255) : -1;
    wf_free(path);
    if (n <= 0) return false;
    name[n] = 0;
    return !strncmp(name, PREFIX, sizeof PREFIX - 1) && !strchr(name, '/');
}

static void remove_folder(const char *path) {
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        char *inner = wf_format("%s/%s", path, e->d_name);
        if (inner) (void)unlink(inner);
        wf_free(inner);
    }
    if (d) closedir(d);
    (void)rmdir(path);
}

/* Remove earlier checkpoints and what killed writers left. */
static void remove_others(const char *folder, const char *keep) {
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (strncmp(e->d_name, PREFIX, sizeof PREFIX - 1) || !strcmp(e->d_name, keep)) continue;
        char *path = wf_format("%s/%s", folder, e->d_name);
        if (path) remove_folder(path);
        wf_free(path);
    }
    if (d) closedir(d);
}

static wf_status write_pair(wf_run *r, const char *folder, const char *name) {
    char *path = wf_format("%s/%s", folder, name), *recipe = wf_value_json(r->recipe, false);
    wf_status s = path && recipe ? WF_OK : WF_ENOMEM;
    if (s == WF_OK) {
        remove_folder(path); /* what a killed writer left under this name */
        s = wf_make_folder(path);
    }
    if (s == WF_OK) s = write_model(r, path);
    if (s == WF_OK) s = write_state(r, path, recipe);
    if (s == WF_OK) s = sync_folder(path);
    wf_free(path);
    wf_free(recipe);
    return s;
}

wf_status wf_run_save(wf_run *r, const char *folder) {
    WF_TRY(wf_make_folder(folder));
    char now[256], name[64];
    snprintf(name, sizeof name, "%s%lld", PREFIX, (long long)r->step);
    /* never write into the checkpoint that `latest` names */
    if (read_latest(folder, now) && !strcmp(now, name)) snprintf(name, sizeof name, "%s%lld-again", PREFIX, (long long)r->step);
    wf_status s = write_pair(r, folder, name);
    if (s == WF_OK) s = sync_folder(folder);
    if (s == WF_OK) s = point(folder, "latest", name);
    if (s == WF_OK) s = point(folder, "model.safetensors", "latest/model.safetensors");
    if (s == WF_OK) s = point(folder, "state.safetensors", "latest/state.safetensors");
    if (s == WF_OK) s = sync_folder(folder);
    if (s != WF_OK) return wf_fail_within(s, "checkpoint of step %lld", (long long)r->step);
    remove_others(folder, name);
    return WF_OK;
}

/* ---- reading ---- */

static wf_status read_into(const wf_st_file *f, const char *prefix, const char *name, wf_tensor *out) {
    if (!out) return WF_OK;
    char *full = wf_format("%s%s", prefix, name);
    const wf_st_entry *e = full ? wf_st_find(f, full) : NULL;
    wf_free(full);
    if (!e) return wf_fail(WF_EFORMAT, "the state file has no tensor %s%s", prefix, name);
    if (!wf_shape_equal(&e->shape, &out->shape) || strcmp(e->dtype, "F32") || e->bytes != out->bytes) {
        char a[96], b[96];
        return wf_fail(WF_EFORMAT, "the state file's %s%s is %s %s, expected F32 %s", prefix, name, e->dtype,
                       wf_shape_text(&e->shape, a), wf_shape_text(&out->shape, b));
    }
    memcpy(out->data, e->p, out->bytes);
    return WF_OK;
}

static wf_status check_state(const wf_run *r, const wf_st_file *f, int64_t *step) {
    const char *format = wf_st_meta(f, "format"), *at = wf_st_meta(f, "step"), *task = wf_st_meta(f, "task"),
               *text = wf_st_meta(f, "recipe");
    if (!format || strcmp(format, "weft-state-1") || !at || !task || !text)
        return wf_fail(WF_EFORMAT, "not a state file of weft train");
    wf_value *saved = wf_json_parse(text, strlen(text), "state.safetensors");
    if (!saved) return WF_EFORMAT;
    wf_status s = wf_recipe_compatible(saved, r->recipe);
    wf_value_free(saved);
    WF_TRY(s);
    char now[32], *end;
    snprintf(now, sizeof now, "%016llx", (unsigned long long)r->task->fingerprint);
    if (strcmp(now, task))
        return wf_fail(WF_EINVAL,
                       "the data of task %s is not what the checkpoint was trained on (fingerprint %s, then %s): put the data "
                       "back, or train into another folder",
                       r->task->type->name, now, task);
    *step = strtoll(at, &end, 10);
    if (*end || *step < 0) return wf_fail(WF_EFORMAT, "the state file's step '%s' is no step", at);
    return WF_OK;
}

static wf_status read_pair(wf_run *r, const wf_st_file *model, const wf_st_file *state) {
    int64_t step = 0;
    WF_TRY(check_state(r, state, &step));
    const char *at = wf_st_meta(model, "step");
    if (!at || strtoll(at, NULL, 10) != step) return wf_fail(WF_EFORMAT, "model and state are of different steps");
    wf_run_swap_average(r); /* the model file holds the average when there is one */
    wf_status s = wf_model_read_weights(r->model, model);
    wf_run_swap_average(r);
    WF_TRY(s);
    for (int i = 0; i < r->optimizer.n; i++) {
        wf_slot *slot = &r->optimizer.slot[i];
        WF_TRY(read_into(state, "m.", slot->param->name, slot->m));
        WF_TRY(read_into(state, "v.", slot->param->name, slot->v));
        if (slot->ema) WF_TRY(read_into(state, "live.", slot->param->name, slot->param->value));
    }
    r->step = step;
    return WF_OK;
}

wf_status wf_run_resume(wf_run *r, const char *folder) {
    char name[256];
    if (!read_latest(folder, name)) return wf_fail(WF_ENOTFOUND, "%s: there is no checkpoint", folder);
    char *a = wf_format("%s/%s/model.safetensors", folder, name), *b = wf_format("%s/%s/state.safetensors", folder, name);
    wf_st_file model, state;
    wf_status s = a && b ? wf_st_open(a, &model) : WF_ENOMEM;
    if (s == WF_OK) {
        s = wf_st_open(b, &state);
        if (s == WF_OK) {
            s = read_pair(r, &model, &state);
            wf_st_close(&state);
        }
        wf_st_close(&model);
    }
    wf_free(a);
    wf_free(b);
    return s == WF_OK ? s : wf_fail_within(s, "%s", folder);
}
