/* train.c: `weft train RECIPE`. */
#include "cli/cli.h"
#include "learn/learn.h"

#include <math.h>
#include <string.h>

typedef struct train_view { /* what is shown while it runs */
    wf_progress progress;
    double loss, tokens_per_second; /* means over the last twenty steps or so */
    int64_t seen;                   /* steps of this process */
    const char *unit;               /* "tokens" or "samples" */
    double started, flops;
    wf_metrics last;
    bool validated;
} train_view;

static bool on_step(void *ctx, const wf_step_report *r) {
    train_view *v = ctx;
    double rate = r->seconds > 0 ? (double)r->tokens / r->seconds : 0;
    double share = ++v->seen < 20 ? 1.0 / (double)v->seen : 0.05;
    v->loss += share * (r->loss - v->loss);
    v->tokens_per_second += share * (rate - v->tokens_per_second);
    v->flops += r->flops;
    char note[160], n[32];
    snprintf(note, sizeof note, "loss %.4f, lr %.3g, norm %.2f, %s %s/s", v->loss, r->lr, r->grad_norm,
             wf_cli_count(v->tokens_per_second, n), v->unit);
    wf_progress_show(&v->progress, r->step, note);
    return true;
}

static void describe_metrics(const wf_metrics *m, char buf[160]) {
    int n = snprintf(buf, 160, "loss %.4f, accuracy %.2f %%", m->loss, 100 * m->accuracy);
    if (isfinite(m->bits_per_byte)) snprintf(buf + n, 160 - (size_t)n, ", %.4f bits/byte", m->bits_per_byte);
}

static void on_validate(void *ctx, int64_t step, const wf_metrics *m) {
    train_view *v = ctx;
    char text[160];
    v->last = *m;
    v->validated = true;
    if (v->progress.quiet) return;
    describe_metrics(m, text);
    fprintf(stderr, "%svalidation at step %lld: %s\n", v->progress.tty ? "\r\033[K" : "", (long long)step, text);
}

static int print_result(const train_view *v, wf_run *r, const char *folder, bool json) {
    char text[160];
    if (!json) {
        describe_metrics(&v->last, text);
        printf("%s/model.safetensors: step %lld, %s\n", folder, (long long)wf_run_steps_done(r),
               v->validated ? text : "not validated");
        return WF_EXIT_OK;
    }
    wf_value *o = wf_value_map();
    char *model = wf_format("%s/model.safetensors", folder);
    wf_cli_put(o, "model", model);
    wf_free(model);
    wf_cli_put_number(o, "step", (double)wf_run_steps_done(r));
    wf_cli_put_number(o, "parameters", (double)wf_model_count(wf_run_model(r)));
    wf_cli_put_number(o, "seconds", wf_seconds() - v->started);
    wf_cli_put_number(o, "tokens_per_second", v->tokens_per_second);
    wf_cli_put_number(o, "flops", v->flops);
    wf_cli_put_number(o, "train_loss", v->loss);
    if (v->validated) {
        wf_cli_put_number(o, "valid_loss", v->last.loss);
        wf_cli_put_number(o, "accuracy", v->last.accuracy);
        wf_cli_put_number(o, "bits_per_byte", v->last.bits_per_byte);
    }
    return wf_cli_print_json(o);
}

/* Load the checkpoint that --resume asks for, or refuse a folder that already holds one. */
static wf_status open_folder(wf_run *r, const char *folder, bool resume) {
    char *latest = wf_format("%s/latest", folder);
    if (!latest) return WF_ENOMEM;
    bool there = wf_path_exists(latest);
    wf_free(latest);
    if (resume) return wf_run_resume(r, folder);
    if (there)
        return wf_fail(WF_EINVAL, "%s already holds a run; go on with it by --resume, or choose another folder by -o", folder);
    return WF_OK;
}

static int run_training(wf_run *r, const char *folder, bool resume, bool json, bool quiet) {
    wf_status s = open_folder(r, folder, resume);
    if (s != WF_OK) return wf_cli_error("train", s);
    const wf_train_opt *o = wf_run_options(r);
    char n[32];
    if (!quiet)
        fprintf(stderr, "training into %s: %s parameters, steps %lld to %lld of %lld samples\n", folder,
                wf_cli_count((double)wf_model_count(wf_run_model(r)), n), (long long)wf_run_steps_done(r), (long long)o->steps,
                (long long)o->batch);
    train_view v = {.started = wf_seconds(), .unit = wf_run_task(r)->length > 0 ? "tokens" : "samples"};
    v.progress.quiet = quiet;
    wf_progress_start(&v.progress, "train", "step", o->steps);
    v.progress.done = v.progress.from = wf_run_steps_done(r);
    wf_train_hooks hooks = {&v, on_step, on_validate};
    wf_catch_interrupt();
    s = wf_train(r, folder, &hooks);
    if (s == WF_OK) {
        char note[64];
        snprintf(note, sizeof note, "loss %.4f", v.loss);
        wf_progress_end(&v.progress, note);
        return print_result(&v, r, folder, json);
    }
    if (v.progress.tty && !quiet) fputc('\n', stderr);
    return wf_cli_error("train", s);
}

int wf_cmd_train(int argc, char **argv) {
    const char *folder = NULL;
    bool resume = false, json = false, quiet = false;
    static wf_cli_list sets, words;
    sets.n = 0;
    const wf_cli_option options[] = {
        {"output", 'o', WF_CLI_TEXT, &folder, "FOLDER",
         "where checkpoints and the log go (default: runs/<name of the recipe>)"},
        {"resume", 0, WF_CLI_FLAG, &resume, NULL,
         "go on from the folder's last checkpoint, to the same bytes as a run never stopped"},
        {"set", 0, WF_CLI_LIST, &sets, "PATH=VALUE", "change an entry of the recipe, as train.lr=0.001; may be repeated"},
        {"json", 0, WF_CLI_FLAG, &json, NULL, "print the result as one JSON object"},
        {"quiet", 'q', WF_CLI_FLAG, &quiet, NULL, "no progress lines"},
        WF_CLI_END,
    };
    const wf_cli_spec spec = {
        "train",
        "RECIPE [-o FOLDER] [--resume] [--set PATH=VALUE]...",
        "Train the model of a recipe on its task. The folder gets model.safetensors (weights and recipe, always of the last "
        "complete checkpoint), state.safetensors (what --resume needs) and log.jsonl (a line for every step and validation). "
        "Checkpoints are made on time (train.checkpoint_minutes), at the end and on Ctrl-C; a kill at any moment leaves the "
        "last "
        "one whole. A loss that is not finite stops the run, names the first guilty operator and keeps the last checkpoint.\n"
        "\nEvery entry of `train` is explained by `weft explain train`.",
        "weft train recipes/lm-small.yaml\n"
        "weft train recipes/lm-small.yaml --set train.steps=200 --set train.lr=0.002 -o runs/quick\n"
        "weft train recipes/lm-small.yaml --resume --set train.steps=4000",
        options,
        1,
        1};
    int code = wf_cli_parse(&spec, argc, argv, &words);
    if (code >= 0) return code;
    wf_value *recipe = wf_cli_recipe(words.item[0], &sets);
    if (!recipe) return wf_cli_error("train", WF_EINVAL);
    char *name = wf_cli_recipe_name(recipe, words.item[0]);
    char *into = folder ? wf_strdup(folder) : wf_format("runs/%s", name ? name : "run");
    wf_run *r = into ? wf_run_new(recipe, NULL) : NULL;
    code = r ? run_training(r, into, resume, json, quiet) : wf_cli_error("train", WF_EINVAL);
    wf_run_free(r);
    wf_free(into);
    wf_free(name);
    wf_value_free(recipe);
    return code;
}
