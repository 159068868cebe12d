/* eval.c: `weft eval MODEL`: loss, accuracy and bits per byte on a task's split. */
#include "cli/cli.h"
#include "learn/learn.h"

#include <math.h>
#include <string.h>

typedef struct eval_args {
    const char *task, *precision;
    int64_t batch, batches;
    bool train_split, json;
} eval_args;

static int print_metrics(const char *path, const wf_metrics *m, const eval_args *a, double seconds) {
    if (a->json) {
        wf_value *o = wf_value_map();
        wf_cli_put(o, "model", path);
        wf_cli_put(o, "split", a->train_split ? "train" : "valid");
        wf_cli_put_number(o, "loss", m->loss);
        wf_cli_put_number(o, "accuracy", m->accuracy);
        wf_cli_put_number(o, "bits_per_byte", m->bits_per_byte);
        wf_cli_put_number(o, "scored", (double)m->scored);
        wf_cli_put_number(o, "seconds", seconds);
        return wf_cli_print_json(o);
    }
    char n[32], t[32];
    printf("loss           %.5f nats\naccuracy       %.3f %%\n", m->loss, 100 * m->accuracy);
    if (isfinite(m->bits_per_byte)) printf("bits per byte  %.5f\n", m->bits_per_byte);
    printf("scored         %s targets in %s\n", wf_cli_count((double)m->scored, n), wf_cli_time(seconds, t));
    return WF_EXIT_OK;
}

static const wf_value *find_task(const wf_model *m, const wf_value *other, const char *path) {
    const wf_value *spec = other ? wf_value_get(other, "task") : wf_value_get(m->recipe, "task");
    if (!spec) wf_fail(WF_EINVAL, "%s names no task; give a recipe that has one by --task", path);
    return spec;
}

static int evaluate(wf_model *m, const char *path, const wf_value *other, const eval_args *a) {
    const wf_value *spec = find_task(m, other, path);
    wf_task *task = spec ? wf_task_open(spec) : NULL;
    if (!task) return wf_cli_error("eval", WF_EINVAL);
    wf_metrics result;
    double started = wf_seconds();
    wf_catch_interrupt();
    wf_status s = wf_measure(m, task, a->train_split ? WF_TRAIN : WF_VALID, a->batch, a->batches,
                             strcmp(a->precision, "bfloat16") ? WF_F32 : WF_BF16, &result, NULL);
    int code = s == WF_OK ? print_metrics(path, &result, a, wf_seconds() - started) : wf_cli_error("eval", s);
    wf_task_close(task);
    return code;
}

int wf_cmd_eval(int argc, char **argv) {
    eval_args a = {.precision = "float32", .batch = 16};
    static wf_cli_list sets, words;
    sets.n = 0;
    const wf_cli_option options[] = {
        {"task", 't', WF_CLI_TEXT, &a.task, "RECIPE",
         "measure on this recipe's task (default: the task the model was trained on)"},
        {"set", 0, WF_CLI_LIST, &sets, "PATH=VALUE", "change an entry of the task's recipe; may be repeated"},
        {"train-split", 0, WF_CLI_FLAG, &a.train_split, NULL, "measure on training samples instead of held-out ones"},
        {"batch", 'b', WF_CLI_INT, &a.batch, "N", "samples at once (default 16)"},
        {"batches", 0, WF_CLI_INT, &a.batches, "N", "only the first N batches (default: the whole split)"},
        {"precision", 0, WF_CLI_TEXT, &a.precision, "P", "of matrix products: float32 (default) or bfloat16"},
        {"json", 0, WF_CLI_FLAG, &a.json, NULL, "print one JSON object"},
        WF_CLI_END,
    };
    const wf_cli_spec spec = {
        "eval",
        "MODEL [--task RECIPE]",
        "Mean loss, accuracy and, for text, bits per byte of a model over the held-out samples of a task. MODEL is a "
        "model.safetensors or the folder of a run.",
        "weft eval runs/lm-small\nweft eval model.safetensors --task recipes/other.yaml --json",
        options,
        1,
        1};
    int code = wf_cli_parse(&spec, argc, argv, &words);
    if (code >= 0) return code;
    if (a.batch < 1 || a.batches < 0) return wf_cli_usage("eval", "--batch must be at least 1 and --batches at least 0");
    if (strcmp(a.precision, "float32") && strcmp(a.precision, "bfloat16"))
        return wf_cli_usage("eval", "--precision is float32 or bfloat16, not '%s'", a.precision);
    if (sets.n && !a.task) return wf_cli_usage("eval", "--set changes the recipe given by --task, which is missing");
    wf_value *other = a.task ? wf_cli_recipe(a.task, &sets) : NULL;
    char *path = !a.task || other ? wf_cli_model_path(words.item[0]) : NULL;
    wf_model *m = path ? wf_model_load(path) : NULL;
    code = m ? evaluate(m, path, other, &a) : wf_cli_error("eval", WF_EINVAL);
    wf_model_free(m);
    wf_free(path);
    wf_value_free(other);
    return code;
}
