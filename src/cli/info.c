/* info.c: `weft info FILE`: what a model file (or any safetensors file) holds. */
#include "cli/cli.h"

#include <string.h>

static wf_value *shape_list(const wf_shape *s) {
    wf_value *l = wf_value_list();
    for (int i = 0; i < s->rank; i++) wf_cli_put_item(l, wf_value_number((double)s->dim[i]));
    return l;
}

static int print_json(const char *path, const wf_st_file *f) {
    wf_value *o = wf_value_map(), *meta = wf_value_map(), *list = wf_value_list();
    double count = 0;
    wf_cli_put(o, "file", path);
    wf_cli_put_number(o, "bytes", (double)f->bytes.n);
    for (int i = 0; i < f->n_meta; i++) {
        wf_value *recipe =
            strcmp(f->meta_key[i], "recipe") ? NULL : wf_json_parse(f->meta_text[i], strlen(f->meta_text[i]), path);
        if (recipe)
            wf_cli_put_value(meta, "recipe", recipe);
        else
            wf_cli_put(meta, f->meta_key[i], f->meta_text[i]);
    }
    for (int i = 0; i < f->n; i++) {
        wf_value *t = wf_value_map();
        wf_cli_put(t, "name", f->entry[i].name);
        wf_cli_put(t, "dtype", f->entry[i].dtype);
        wf_cli_put_value(t, "shape", shape_list(&f->entry[i].shape));
        wf_cli_put_item(list, t);
        count += (double)wf_shape_count(&f->entry[i].shape);
    }
    wf_cli_put_number(o, "numbers", count);
    wf_cli_put_value(o, "metadata", meta);
    wf_cli_put_value(o, "tensors", list);
    return wf_cli_print_json(o);
}

static void print_recipe(const char *text, const char *path) {
    wf_value *v = wf_json_parse(text, strlen(text), path);
    char *yaml = v ? wf_value_yaml(v) : NULL;
    printf("recipe\n");
    wf_cli_wrap(stdout, yaml ? yaml : text, 2, 110);
    wf_free(yaml);
    wf_value_free(v);
}

static int print_text(const char *path, const wf_st_file *f, bool brief) {
    char a[32], b[32];
    double count = 0;
    int wide = 10;
    for (int i = 0; i < f->n; i++) {
        count += (double)wf_shape_count(&f->entry[i].shape);
        if ((int)strlen(f->entry[i].name) > wide) wide = (int)strlen(f->entry[i].name);
    }
    printf("%s: %d tensors, %s numbers, %s\n", path, f->n, wf_cli_count(count, a), wf_cli_bytes((double)f->bytes.n, b));
    for (int i = 0; i < f->n_meta; i++)
        if (strcmp(f->meta_key[i], "recipe")) printf("%s: %.200s\n", f->meta_key[i], f->meta_text[i]);
    const char *recipe = wf_st_meta(f, "recipe");
    if (recipe) print_recipe(recipe, path);
    if (brief) return WF_EXIT_OK;
    printf("tensors\n");
    for (int i = 0; i < f->n; i++) {
        const wf_st_entry *e = &f->entry[i];
        char s[96];
        printf("  %-*s  %-5s %-18s %10s\n", wide, e->name, e->dtype, wf_shape_text(&e->shape, s),
               wf_cli_count((double)wf_shape_count(&e->shape), a));
    }
    return WF_EXIT_OK;
}

int wf_cmd_info(int argc, char **argv) {
    bool json = false, brief = false;
    static wf_cli_list words;
    const wf_cli_option options[] = {
        {"brief", 0, WF_CLI_FLAG, &brief, NULL, "without the list of tensors"},
        {"json", 0, WF_CLI_FLAG, &json, NULL, "print one JSON object"},
        WF_CLI_END,
    };
    const wf_cli_spec spec = {
        "info",
        "MODEL",
        "The recipe, the metadata and every tensor of a model file. MODEL is a .safetensors file (any, not only Weft's) or the "
        "folder of a run. The whole header is checked; nothing is computed.",
        "weft info runs/lm-small\nweft info model.safetensors --json",
        options,
        1,
        1};
    int code = wf_cli_parse(&spec, argc, argv, &words);
    if (code >= 0) return code;
    char *path = wf_cli_model_path(words.item[0]);
    wf_st_file f;
    wf_status s = path ? wf_st_open(path, &f) : WF_ENOTFOUND;
    if (s == WF_OK) {
        code = json ? print_json(path, &f) : print_text(path, &f, brief);
        wf_st_close(&f);
    } else {
        code = wf_cli_error("info", s);
    }
    wf_free(path);
    return code;
}
