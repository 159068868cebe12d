/* check.c: `weft check FILE...`: compare parts and models with golden cases. */
#include "check/check.h"
#include "cli/cli.h"

#include <string.h>

static void print_rows(const wf_check_result *r, bool all) {
    int wide = 24;
    for (int i = 0; i < r->n; i++)
        if ((int)strlen(r->row[i].name) > wide) wide = (int)strlen(r->row[i].name);
    printf("  %-*s %9s %12s %12s %12s\n", wide, "tensor", "numbers", "relative", "largest", "bound");
    for (int i = 0; i < r->n; i++) {
        const wf_check_row *w = &r->row[i];
        if (!all && w->pass && !w->repeated) continue;
        printf("  %-*s %9lld %12.2e %12.2e %12.0e%s", wide, w->name, (long long)w->count, w->error, w->largest, w->relative,
               w->pass ? "" : "  FAILED");
        if (w->repeated) printf("  (in float64 %.1e%s)", w->error64, w->pass ? ": rounding only" : "");
        printf("\n");
    }
}

static void print_result(const wf_check_result *r, bool all) {
    printf("%s: %s%s%s\n", r->path, r->module ? r->module : "?", r->system ? " of " : "", r->system ? r->system : "");
    if (r->reason) printf("  %s: %s\n", wf_verdict_name(r->verdict), r->reason);
    if (r->n && r->verdict <= WF_CHECK_FAILED) print_rows(r, all);
}

static void print_table(const wf_check_result *r, int n) {
    int wide = 4, module = 6, count[4] = {0};
    for (int i = 0; i < n; i++) {
        if ((int)strlen(r[i].path) > wide) wide = (int)strlen(r[i].path);
        if (r[i].module && (int)strlen(r[i].module) > module) module = (int)strlen(r[i].module);
    }
    printf("\n%-*s  %-*s  %8s  %12s  %12s  %s\n", wide, "case", module, "module", "tensors", "worst output", "worst grad",
           "result");
    for (int i = 0; i < n; i++) {
        double worst[2] = {0, 0};
        for (int k = 0; k < r[i].n; k++) {
            const wf_check_row *w = &r[i].row[k];
            if (w->pass && w->norm * w->relative < w->floor)
                continue; /* what should be zero has no relative error worth showing */
            if (w->error > worst[w->gradient]) worst[w->gradient] = w->error;
        }
        count[r[i].verdict]++;
        printf("%-*s  %-*s  %8d  %12.2e  %12.2e  %s\n", wide, r[i].path, module, r[i].module ? r[i].module : "?", r[i].n,
               worst[0], worst[1], wf_verdict_name(r[i].verdict));
    }
    printf("%d passed, %d failed, %d not yet supported, %d unusable\n", count[0], count[1], count[2], count[3]);
}

static wf_value *as_json(const wf_check_result *r) {
    wf_value *o = wf_value_map(), *rows = wf_value_list();
    wf_cli_put(o, "file", r->path);
    wf_cli_put(o, "system", r->system);
    wf_cli_put(o, "module", r->module);
    wf_cli_put(o, "result", wf_verdict_name(r->verdict));
    wf_cli_put(o, "reason", r->reason);
    wf_cli_put_number(o, "seconds", r->seconds);
    for (int i = 0; i < r->n; i++) {
        const wf_check_row *w = &r->row[i];
        wf_value *t = wf_value_map();
        wf_cli_put(t, "name", w->name);
        wf_cli_put_bool(t, "gradient", w->gradient);
        wf_cli_put_number(t, "numbers", (double)w->count);
        wf_cli_put_number(t, "relative_error", w->error);
        wf_cli_put_number(t, "largest_error", w->largest);
        wf_cli_put_number(t, "relative_bound", w->relative);
        wf_cli_put_number(t, "absolute_floor", w->floor);
        if (w->repeated) wf_cli_put_number(t, "relative_error_float64", w->error64);
        wf_cli_put_bool(t, "passed", w->pass);
        wf_cli_put_item(rows, t);
    }
    wf_cli_put_value(o, "tensors", rows);
    return o;
}

static int code_of(const wf_check_result *r, int n) {
    int code = WF_EXIT_OK;
    for (int i = 0; i < n; i++) {
        if (r[i].verdict >= WF_CHECK_NOT_YET)
            code = WF_EXIT_USAGE;
        else if (r[i].verdict == WF_CHECK_FAILED && code == WF_EXIT_OK)
            code = WF_EXIT_FAILED;
    }
    return code;
}

static int print_all_json(const wf_check_result *r, int n) {
    wf_value *o = wf_value_map(), *files = wf_value_list();
    int count[4] = {0};
    for (int i = 0; i < n; i++) {
        wf_cli_put_item(files, as_json(&r[i]));
        count[r[i].verdict]++;
    }
    wf_cli_put_value(o, "files", files);
    wf_cli_put_number(o, "passed", count[0]);
    wf_cli_put_number(o, "failed", count[1]);
    wf_cli_put_number(o, "not_yet_supported", count[2]);
    wf_cli_put_number(o, "unusable", count[3]);
    return wf_cli_print_json(o);
}

int wf_cmd_check(int argc, char **argv) {
    static wf_cli_list words;
    bool json = false, float64 = false, brief = false;
    const wf_cli_option options[] = {
        {"float64", 0, WF_CLI_FLAG, &float64, NULL, "compute in float64 instead of float32"},
        {"brief", 0, WF_CLI_FLAG, &brief, NULL, "show only tensors that fail, and the table"},
        {"json", 0, WF_CLI_FLAG, &json, NULL, "print one JSON object"},
        WF_CLI_END,
    };
    const wf_cli_spec spec = {
        "check",
        "FILE...",
        "Build the part or model that a golden case (.safetensors with inputs, parameters, expected outputs and gradients) "
        "names, run it and "
        "compare. A tensor passes when ||a - b|| <= r ||b|| + 1e-6 sqrt(n), r = 1e-5 for outputs and 1e-4 for gradients. One "
        "that misses this in "
        "float32 is computed again in float64; it passes if that is within the bound and the float32 deviation below ten times "
        "the bound plus 1e-6 "
        "of the case's largest tensor of its kind (gradients that should be exactly zero are the rounding of large terms). "
        "Both numbers are shown.\n"
        "Exit code: 0 all within bounds, 1 a tensor is not, 2 a file cannot be used or its module is not yet supported.",
        "weft check golden/00-vision-baseline/gpt2_hf_layout.safetensors\nweft check --brief golden/*/*.safetensors",
        options,
        1,
        -1};
    int code = wf_cli_parse(&spec, argc, argv, &words);
    if (code >= 0) return code;
    wf_check_result *r = wf_alloc_array((size_t)words.n, sizeof *r);
    if (!r) return wf_cli_error("check", WF_ENOMEM);
    for (int i = 0; i < words.n; i++) {
        wf_check_file(words.item[i], float64, &r[i]);
        if (!json) print_result(&r[i], !brief);
    }
    if (json)
        print_all_json(r, words.n);
    else
        print_table(r, words.n);
    fflush(stdout);
    code = code_of(r, words.n);
    for (int i = 0; i < words.n; i++) wf_check_free(&r[i]);
    wf_free(r);
    return code;
}
