/* plan.c: `weft plan RECIPE`: what a run will cost, from its plans, before anything runs. */
#include "cli/cli.h"
#include "learn/learn.h"

#include <string.h>

static int print_plan(const char *name, wf_run *r, const wf_run_cost *c, bool json) {
    const wf_train_opt *o = wf_run_options(r);
    const wf_task *t = wf_run_task(r);
    double per_step = (double)o->batch * (double)(t->length > 0 ? t->length : 1);
    if (json) {
        wf_value *v = wf_value_map();
        wf_cli_put(v, "recipe", name);
        wf_cli_put_number(v, "parameters", (double)c->parameters);
        wf_cli_put_number(v, "tokens_per_step", per_step);
        wf_cli_put_number(v, "flops_per_step", c->flops_per_step);
        wf_cli_put_number(v, "forward_flops_per_token", c->forward_flops_per_token);
        wf_cli_put_number(v, "total_flops", c->flops_per_step * (double)o->steps);
        wf_cli_put_number(v, "peak_bytes", (double)c->peak_bytes);
        wf_cli_put_number(v, "parameter_bytes", (double)c->parameter_bytes);
        wf_cli_put_number(v, "gradient_bytes", (double)c->gradient_bytes);
        wf_cli_put_number(v, "optimizer_bytes", (double)c->optimizer_bytes);
        wf_cli_put_number(v, "arena_bytes", (double)c->arena_bytes);
        return wf_cli_print_json(v);
    }
    char a[32], b[32];
    const char *unit = t->length > 0 ? "token" : "sample";
    printf("parameters             %s (%lld)\n", wf_cli_count((double)c->parameters, a), (long long)c->parameters);
    printf("FLOPs, forward         %s a %s\n", wf_cli_count(c->forward_flops_per_token, a), unit);
    printf("FLOPs, training        %s a %s, %s a step of %.0f %ss\n", wf_cli_count(c->flops_per_step / per_step, a), unit,
           wf_cli_count(c->flops_per_step, b), per_step, unit);
    printf("FLOPs, whole run       %s in %lld steps\n", wf_cli_count(c->flops_per_step * (double)o->steps, a),
           (long long)o->steps);
    printf("peak memory, training  %s\n", wf_cli_bytes((double)c->peak_bytes, a));
    printf("  parameters           %s\n", wf_cli_bytes((double)c->parameter_bytes, a));
    printf("  optimizer            %s\n", wf_cli_bytes((double)c->optimizer_bytes, a));
    printf("  gradients            %s\n",
           o->accumulate > 1 ? wf_cli_bytes((double)c->gradient_bytes, a) : "in the arena, beside what is still live");
    printf("  arena                %s\n", wf_cli_bytes((double)c->arena_bytes, a));
    printf("The tool itself, its libraries and the task's data come on top.\n");
    return WF_EXIT_OK;
}

static int print_steps(wf_run *r) {
    char *text = wf_run_plan_text(r);
    if (!text) return wf_cli_error("plan", WF_EINVAL);
    fputs(text, stdout);
    wf_free(text);
    return WF_EXIT_OK;
}

int wf_cmd_plan(int argc, char **argv) {
    bool json = false, steps = false;
    static wf_cli_list sets, words;
    sets.n = 0;
    const wf_cli_option options[] = {
        {"set", 0, WF_CLI_LIST, &sets, "PATH=VALUE", "change an entry of the recipe; may be repeated"},
        {"steps", 0, WF_CLI_FLAG, &steps, NULL, "the planned operators of a training step, one a line"},
        {"json", 0, WF_CLI_FLAG, &json, NULL, "print one JSON object"},
        WF_CLI_END,
    };
    const wf_cli_spec spec = {
        "plan",
        "RECIPE [--set PATH=VALUE]...",
        "Parameters, FLOPs and peak memory of a recipe's training, computed from the plans that `weft train` would run, "
        "without running them. A multiply-add counts as 2 FLOPs.",
        "weft plan recipes/lm-small.yaml\nweft plan recipes/lm-small.yaml --set model.layers=12 --json",
        options,
        1,
        1};
    int code = wf_cli_parse(&spec, argc, argv, &words);
    if (code >= 0) return code;
    wf_value *recipe = wf_cli_recipe(words.item[0], &sets);
    wf_run *r = recipe ? wf_run_new(recipe, NULL) : NULL;
    wf_run_cost cost;
    wf_status s = r ? wf_run_describe(r, &cost) : WF_EINVAL;
    if (s != WF_OK)
        code = wf_cli_error("plan", s);
    else
        code = steps ? print_steps(r) : print_plan(words.item[0], r, &cost, json);
    wf_run_free(r);
    wf_value_free(recipe);
    return code;
}
