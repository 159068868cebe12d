/* source.c: where a verb's recipe or model comes from: YAML with --set overrides, a model file, a run's folder. */
#include "cli/cli.h"

#include <string.h>
#include <sys/stat.h>

wf_status wf_cli_apply_sets(wf_value *root, const wf_cli_list *sets) {
    for (int i = 0; sets && i < sets->n; i++) {
        const char *eq = strchr(sets->item[i], '=');
        if (!eq || eq == sets->item[i])
            return wf_fail(WF_EINVAL, "--set wants path=value, such as train.lr=0.001, not '%s'", sets->item[i]);
        char *path = wf_strndup(sets->item[i], (size_t)(eq - sets->item[i]));
        if (!path) return WF_ENOMEM;
        wf_status s = wf_value_set_path(root, path, eq + 1);
        wf_free(path);
        if (s != WF_OK) return wf_fail_within(s, "--set %s", sets->item[i]);
    }
    return WF_OK;
}

wf_value *wf_cli_recipe(const char *path, const wf_cli_list *sets) {
    wf_value *v = wf_yaml_load(path);
    if (!v) return NULL;
    if (v->kind != WF_V_MAP) {
        wf_value_fail(v, WF_EFORMAT, "a recipe is a map with the entries model, task and train");
    } else if (wf_cli_apply_sets(v, sets) == WF_OK) {
        return v;
    }
    wf_value_free(v);
    return NULL;
}

static bool is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool ends_with(const char *s, const char *tail) {
    size_t n = strlen(s), t = strlen(tail);
    return n >= t && !strcmp(s + n - t, tail);
}

bool wf_cli_is_model(const char *path) {
    return ends_with(path, ".safetensors") || is_folder(path);
}

char *wf_cli_model_path(const char *path) {
    if (!is_folder(path)) {
        if (!wf_path_exists(path)) {
            wf_fail(WF_ENOTFOUND, "%s: there is no such model file or run folder", path);
            return NULL;
        }
        return wf_strdup(path);
    }
    char *p = wf_format("%s/model.safetensors", path);
    if (p && !wf_path_exists(p)) {
        wf_fail(WF_ENOTFOUND, "%s: the folder holds no model.safetensors; a run's first checkpoint makes it", path);
        wf_free(p);
        return NULL;
    }
    return p;
}

char *wf_cli_recipe_name(const wf_value *recipe, const char *path) {
    const wf_value *name = wf_value_get(recipe, "name");
    if (name && name->kind == WF_V_TEXT && *name->text && !strchr(name->text, '/')) return wf_strdup(name->text);
    const char *base = strrchr(path, '/');
    base = base ? base + 1 : path;
    size_t n = strlen(base);
    if (ends_with(base, ".yaml"))
        n -= 5;
    else if (ends_with(base, ".yml"))
        n -= 4;
    return n ? wf_strndup(base, n) : wf_strdup("run");
}
