/* probe.c: `weft probe MODEL|RECIPE`: measures of what goes on inside a model on a batch of held-out samples. */
#include "cli/cli.h"
#include "learn/learn.h"
#include "learn/probe.h"

#include <math.h>
#include <string.h>

typedef struct probe_args {
    const char *what, *task;
    int64_t batch;
    bool json;
} probe_args;

static void print_number(double x, int width) {
    char text[32];
    if (isnan(x))
        snprintf(text, sizeof text, "-");
    else if (fabs(x) < 1e-12 || (fabs(x) >= 1e-3 && fabs(x) < 1e5))
        snprintf(text, sizeof text, "%.4f", x);
    else
        snprintf(text, sizeof text, "%.3e", x);
    printf("  %*s", width, text);
}

static void print_table(const wf_probe_table *t) {
    int name = 4, width = 11;
    for (int i = 0; i < t->n; i++) name = (int)strlen(t->row[i].name) > name ? (int)strlen(t->row[i].name) : name;
    printf("%s: %s\n", t->probe->name, t->probe->title);
    wf_cli_wrap(stdout, t->probe->help, 2, 110);
    printf("\n%-*s", name, "");
    for (int c = 0; t->probe->column[c]; c++) printf("  %*s", width, t->probe->column[c]);
    printf("\n");
    for (int i = 0; i < t->n; i++) {
        printf("%-*s", name, t->row[i].name);
        for (int c = 0; t->probe->column[c]; c++) print_number(t->row[i].value[c], width);
        printf("\n");
    }
}

static wf_value *json_of(const wf_probe_table *t) {
    wf_value *o = wf_value_map(), *rows = wf_value_list();
    wf_cli_put(o, "measure", t->probe->name);
    for (int i = 0; i < t->n; i++) {
        wf_value *r = wf_value_map();
        wf_cli_put(r, "name", t->row[i].name);
        for (int c = 0; t->probe->column[c]; c++) wf_cli_put_number(r, t->probe->column[c], t->row[i].value[c]);
        wf_cli_put_item(rows, r);
    }
    wf_cli_put_value(o, "rows", rows);
    return o;
}

/* One measure; with `all`, those that do not apply to the model are passed over. */
static int measure(const wf_probe *p, const wf_probe_input *in, const probe_args *a, bool every, wf_value *list) {
    wf_probe_table t;
    static int printed;
    wf_status s = wf_probe_run(p, in, &t);
    if (s == WF_EUNSUPPORTED && every) return WF_EXIT_OK;
    if (s != WF_OK) return wf_cli_error("probe", s);
    if (a->json) {
        wf_cli_put_item(list, json_of(&t));
    } else {
        if (printed++) printf("\n");
        print_table(&t);
    }
    wf_probe_free(&t);
    return WF_EXIT_OK;
}

static int probe(const wf_probe_input *in, const char *path, const probe_args *a) {
    bool every = !strcmp(a->what, "all");
    const wf_probe *one = every ? NULL : wf_probe_find(a->what);
    if (!every && !one) return wf_cli_error("probe", WF_EINVAL);
    int n = 0, code = WF_EXIT_OK;
    const wf_probe *const *all = wf_probe_all(&n);
    wf_value *list = a->json ? wf_value_list() : NULL;
    for (int i = 0; i < n && code == WF_EXIT_OK; i++)
        if (every || all[i] == one) code = measure(all[i], in, a, every, list);
    if (!a->json || code != WF_EXIT_OK) {
        wf_value_free(list);
        return code;
    }
    wf_value *o = wf_value_map();
    wf_cli_put(o, "model", path);
    wf_cli_put_value(o, "measures", list);
    return wf_cli_print_json(o);
}

/* A model file or a run's folder, on its own task or another recipe's. */
static int probe_model(const char *word, const wf_value *other, const probe_args *a) {
    char *path = wf_cli_model_path(word);
    wf_model *m = path ? wf_model_load(path) : NULL;
    const wf_value *spec = m ? wf_value_get(other ? other : m->recipe, "task") : NULL;
    if (m && !spec) wf_fail(WF_EINVAL, "%s names no task; give a recipe that has one by --task", other ? a->task : path);
    wf_task *task = spec ? wf_task_open(spec) : NULL;
    int code = task ? probe(&(wf_probe_input){m, task, a->batch}, path, a) : wf_cli_error("probe", WF_EINVAL);
    if (task) wf_task_close(task);
    wf_model_free(m);
    wf_free(path);
    return code;
}

/* The fresh model of a recipe. */
static int probe_recipe(const char *path, const wf_value *recipe, const probe_args *a) {
    wf_run *r = wf_run_new(recipe, NULL);
    int code =
        r ? probe(&(wf_probe_input){wf_run_model(r), wf_run_task(r), a->batch}, path, a) : wf_cli_error("probe", WF_EINVAL);
    wf_run_free(r);
    return code;
}

int wf_cmd_probe(int argc, char **argv) {
    probe_args a = {.what = "all", .batch = 4};
    static wf_cli_list sets, words;
    sets.n = 0;
    const wf_cli_option options[] = {
        {"what", 'w', WF_CLI_TEXT, &a.what, "MEASURE", "variance, gradient, massive, entropy, sigma or all (default)"},
        {"task", 't', WF_CLI_TEXT, &a.task, "RECIPE", "take samples of this recipe's task (default: the model's own)"},
        {"set", 0, WF_CLI_LIST, &sets, "PATH=VALUE", "change an entry of the recipe; may be repeated"},
        {"batch", 'b', WF_CLI_INT, &a.batch, "N", "samples to look at (default 4)"},
        {"json", 0, WF_CLI_FLAG, &a.json, NULL, "print one JSON object"},
        WF_CLI_END,
    };
    const wf_cli_spec spec = {"probe",
                              "MODEL|RECIPE [--what MEASURE] [--task RECIPE]",
                              "Look inside a model on a batch of held-out samples: the size of the residual stream by depth, "
                              "gradients by block, large "
                              "activations and the bound on their gradient, entropy of attention with its lower bounds, "
                              "spectral norms of weights. MODEL "
                              "is a model.safetensors or the folder of a run; of a RECIPE the untrained model is taken.",
                              "weft probe runs/lm-small\nweft probe runs/lm-small --what entropy --json\nweft probe "
                              "recipes/lm-small.yaml --what variance "
                              "--set model.placement=peri",
                              options,
                              1,
                              1};
    int code = wf_cli_parse(&spec, argc, argv, &words);
    if (code >= 0) return code;
    if (a.batch < 1) return wf_cli_usage("probe", "--batch must be at least 1");
    bool model = wf_cli_is_model(words.item[0]);
    if (sets.n && model && !a.task) return wf_cli_usage("probe", "--set changes a recipe; a model has none to change");
    if (a.task && !model) return wf_cli_usage("probe", "--task is for models; a recipe has its own task");
    wf_value *recipe = model && !a.task ? NULL : wf_cli_recipe(model ? a.task : words.item[0], &sets);
    if (!recipe && !(model && !a.task)) return wf_cli_error("probe", WF_EINVAL);
    code = model ? probe_model(words.item[0], recipe, &a) : probe_recipe(words.item[0], recipe, &a);
    wf_value_free(recipe);
    return code;
}
