/* transform.c: `weft transform HOW MODEL`: a model file made into another one that computes the same. */
#include "cli/cli.h"
#include "transform/transform.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct transform_args {
    const char *how, *to, *output;
    int64_t seed, pairs;
    bool keep_tied, overwrite, json;
} transform_args;

/* A relative difference above this is no rounding: the new model is not the same function, and is not written. */
static const double largest_difference = 1e-3;

static double relative(const wf_transform_figures *f) {
    return f->largest > 0 ? f->difference / f->largest : f->difference;
}

/* ---- output ---- */

static void print_notes(const wf_transform_report *r, bool kept, FILE *out) {
    for (int i = 0; i < r->n; i++) {
        if (r->note[i].kept != kept) continue;
        char times[32] = "";
        if (r->note[i].times > 1) snprintf(times, sizeof times, " (%d times)", r->note[i].times);
        fprintf(out, "  %s%s\n", r->note[i].text, times);
    }
}

static void print_text(const char *from, const char *to, const wf_transform_report *r, const wf_transform_figures *f,
                       const transform_args *a) {
    char x[32], y[32], z[32];
    printf("%s -> %s\nchanged\n", from, to);
    print_notes(r, false, stdout);
    if (r->n > r->changed) printf("kept\n");
    print_notes(r, true, stdout);
    printf("parameters  %s -> %s (%lld -> %lld)\n", wf_cli_count((double)r->parameters_before, x),
           wf_cli_count((double)r->parameters_after, y), (long long)r->parameters_before, (long long)r->parameters_after);
    if (f->length)
        snprintf(z, sizeof z, "%lld x %lld tokens", (long long)f->batch, (long long)f->length);
    else
        snprintf(z, sizeof z, "%lld pictures", (long long)f->batch);
    printf("difference  %.2g of the largest output, on random input (seed %lld, %s)\n", relative(f), (long long)a->seed, z);
    printf("operators   %d -> %d nodes, %s -> ", f->nodes_before, f->nodes_after, wf_cli_count(f->flops_before, x));
    printf("%s FLOPs a pass\n", wf_cli_count(f->flops_after, x));
    if (f->pairs)
        printf("speed       %s -> %s a pass, %.3f x as fast (median of %d passes each, in turn; %d threads)\n",
               wf_cli_time(f->before, x), wf_cli_time(f->after, y), f->gain, f->pairs, wf_threads());
}

static wf_value *notes(const wf_transform_report *r, bool kept) {
    wf_value *list = wf_value_list();
    for (int i = 0; i < r->n; i++) {
        if (r->note[i].kept != kept) continue;
        wf_value *o = wf_value_map();
        wf_cli_put(o, "what", r->note[i].text);
        wf_cli_put_number(o, "times", r->note[i].times);
        wf_cli_put_item(list, o);
    }
    return list;
}

static int print_json(const char *from, const char *to, const wf_transform_report *r, const wf_transform_figures *f,
                      const transform_args *a) {
    wf_value *o = wf_value_map();
    wf_cli_put(o, "transform", a->how);
    wf_cli_put(o, "from", from);
    wf_cli_put(o, "to", to);
    wf_cli_put_value(o, "changed", notes(r, false));
    wf_cli_put_value(o, "kept", notes(r, true));
    wf_cli_put_number(o, "parameters_before", (double)r->parameters_before);
    wf_cli_put_number(o, "parameters_after", (double)r->parameters_after);
    wf_cli_put_number(o, "relative_difference", relative(f));
    wf_cli_put_number(o, "seed", (double)a->seed);
    wf_cli_put_number(o, "nodes_before", f->nodes_before);
    wf_cli_put_number(o, "nodes_after", f->nodes_after);
    wf_cli_put_number(o, "flops_before", f->flops_before);
    wf_cli_put_number(o, "flops_after", f->flops_after);
    if (f->pairs) {
        wf_cli_put_number(o, "seconds_before", f->before);
        wf_cli_put_number(o, "seconds_after", f->after);
        wf_cli_put_number(o, "speedup", f->gain);
    }
    return wf_cli_print_json(o);
}

/* ---- files ---- */

/* "x/model.safetensors" -> "x/model-fold.safetensors" */
static char *default_output(const char *path, const transform_args *a) {
    static const char tail[] = ".safetensors";
    size_t n = strlen(path), k = sizeof tail - 1;
    if (n > k && !strcmp(path + n - k, tail)) n -= k;
    return wf_format("%.*s-%s%s", (int)n, path, a->to ? a->to : a->how, tail);
}

static bool same_file(const char *a, const char *b) {
    char *x = realpath(a, NULL), *y = realpath(b, NULL);
    bool same = x && y && !strcmp(x, y);
    free(x);
    free(y);
    return same;
}

/* Everything the old file said beside its recipe (vocabulary, steps), and what was done. */
static wf_status save(const char *from, const char *to, const wf_model *m, const transform_args *a) {
    wf_st_file f;
    WF_TRY(wf_st_open(from, &f));
    const char **key = wf_alloc_array((size_t)f.n_meta + 1, sizeof *key),
               **text = wf_alloc_array((size_t)f.n_meta + 1, sizeof *text);
    const char *before = wf_st_meta(&f, "transforms");
    char *done =
        wf_format("%s%s%s%s%s", before ? before : "", before ? ", " : "", a->how, a->to ? " to " : "", a->to ? a->to : "");
    wf_status s = key && text && done ? WF_OK : WF_ENOMEM;
    int n = 0;
    for (int i = 0; s == WF_OK && i < f.n_meta; i++) {
        if (!strcmp(f.meta_key[i], "format") || !strcmp(f.meta_key[i], "recipe") || !strcmp(f.meta_key[i], "transforms"))
            continue;
        key[n] = f.meta_key[i];
        text[n++] = f.meta_text[i];
    }
    if (s == WF_OK) {
        key[n] = "transforms";
        text[n++] = done;
        s = wf_model_save(m, to, WF_F32, key, text, n);
    }
    wf_free(done);
    wf_free(key);
    wf_free(text);
    wf_st_close(&f);
    return s;
}

/* ---- the work ---- */

static wf_status compare(wf_model *before, wf_model *after, const transform_args *a, wf_transform_figures *f) {
    wf_status s = a->pairs ? wf_transform_time(before, after, (uint64_t)a->seed, (int)a->pairs, f)
                           : wf_transform_compare(before, after, (uint64_t)a->seed, f);
    if (s != WF_OK) return s;
    if (relative(f) <= largest_difference) return WF_OK;
    return wf_fail(WF_EUNSUPPORTED,
                   "the new model's outputs differ by %.2g of the largest, which is no rounding; nothing was written",
                   relative(f));
}

static int transform(const char *from, const char *to, const transform_args *a) {
    wf_transform_report r = {0};
    wf_transform_figures f = {0};
    wf_model *before = wf_model_load(from), *after = NULL;
    if (before && !strcmp(a->how, "fold"))
        after = wf_fold(before, &(wf_fold_opt){.keep_tied = a->keep_tied}, &r);
    else if (before)
        after = wf_convert_norm(before, a->to, &r);
    wf_status s = after ? compare(before, after, a, &f) : WF_EUNSUPPORTED;
    if (s == WF_OK) s = save(from, to, after, a);
    int code = WF_EXIT_OK;
    if (s != WF_OK)
        code = wf_cli_error("transform", s);
    else if (a->json)
        code = print_json(from, to, &r, &f, a);
    else
        print_text(from, to, &r, &f, a);
    if (s != WF_OK && before && !after) print_notes(&r, true, stderr);
    wf_transform_report_free(&r);
    wf_model_free(before);
    wf_model_free(after);
    return code;
}

static int check_args(const transform_args *a) {
    bool fold = !strcmp(a->how, "fold"), convert = !strcmp(a->how, "convert-norm");
    if (!fold && !convert) {
        const char *known[] = {"fold", "convert-norm"}, *near = wf_nearest(a->how, known, 2);
        return wf_cli_usage("transform", "there is no transform '%s'%s%s%s (there are: fold, convert-norm)", a->how,
                            near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    }
    if (convert && !a->to) return wf_cli_usage("transform", "convert-norm needs --to layernorm, rmsnorm or crmsnorm");
    if (fold && a->to) return wf_cli_usage("transform", "--to belongs to convert-norm");
    if (convert && a->keep_tied) return wf_cli_usage("transform", "--keep-tied belongs to fold");
    if (a->seed < 0) return wf_cli_usage("transform", "--seed must be at least 0");
    if (a->pairs < 0 || a->pairs > 10000) return wf_cli_usage("transform", "--pairs must be between 0 and 10000");
    return -1;
}

int wf_cmd_transform(int argc, char **argv) {
    transform_args a = {.seed = 1, .pairs = 15};
    static wf_cli_list words;
    const wf_cli_option options[] = {
        {"output", 'o', WF_CLI_TEXT, &a.output, "FILE",
         "the new model (default: beside MODEL, as model-fold.safetensors or model-rmsnorm.safetensors)"},
        {"to", 0, WF_CLI_TEXT, &a.to, "NORM", "convert-norm: layernorm, rmsnorm or crmsnorm"},
        {"keep-tied", 0, WF_CLI_FLAG, &a.keep_tied, NULL,
         "fold: a head that is tied to the embedding stays so, and the norm in front of it stays too (default: the head gets a "
         "matrix of its own)"},
        {"overwrite", 0, WF_CLI_FLAG, &a.overwrite, NULL, "write over a file that is there, even over MODEL itself"},
        {"seed", 's', WF_CLI_INT, &a.seed, "N", "of the random input that both models are compared on (default 1)"},
        {"pairs", 0, WF_CLI_INT, &a.pairs, "N", "timed passes of both models, in turn; 0: do not time (default 15)"},
        {"json", 0, WF_CLI_FLAG, &a.json, NULL, "print one JSON object"},
        WF_CLI_END,
    };
    const wf_cli_spec spec = {
        "transform",
        "fold MODEL [-o FILE]\n       weft transform convert-norm MODEL --to NORM [-o FILE]",
        "Make a new model file that computes the same function. MODEL is a model.safetensors or the folder of a run; it is "
        "only "
        "read.\n"
        "\n"
        "fold puts into the weights what is constant in use: norms with running statistics (batchnorm, unified, repbn, ..), "
        "gains "
        "and biases of the others, layer scales, re-parametrised linears. The new model has fewer operators.\n"
        "\n"
        "convert-norm turns a Pre-LN network into the equal Pre-RMSNorm one (the mean over the channels is taken out of "
        "everything "
        "that writes to the residual stream, so that no norm needs to) or Pre-CRMSNorm one (the stream is one channel "
        "narrower), and "
        "back.\n"
        "\n"
        "What was changed and kept is listed, with the largest difference of the outputs on random input and the time of both "
        "models. What cannot be done exactly is refused with the reason, and then nothing is written. `weft explain transform` "
        "says "
        "more.",
        "weft transform fold runs/lm-small\n"
        "weft transform convert-norm runs/lm-small --to rmsnorm -o lm-rms.safetensors\n"
        "weft transform fold model.safetensors --keep-tied --json",
        options,
        2,
        2};
    int code = wf_cli_parse(&spec, argc, argv, &words);
    if (code >= 0) return code;
    a.how = words.item[0];
    if ((code = check_args(&a)) >= 0) return code;
    char *from = wf_cli_model_path(words.item[1]);
    if (!from) return wf_cli_error("transform", WF_ENOTFOUND);
    char *to = a.output ? wf_strdup(a.output) : default_output(from, &a);
    if (to && !a.overwrite && same_file(from, to))
        code = wf_cli_usage("transform", "%s is the model itself; name another file by -o, or say --overwrite", to);
    else if (to && !a.overwrite && wf_path_exists(to))
        code = wf_cli_usage("transform", "%s is there already; name another file by -o, or say --overwrite", to);
    wf_catch_interrupt();
    if (code < 0) code = to ? transform(from, to, &a) : wf_cli_error("transform", WF_ENOMEM);
    wf_free(from);
    wf_free(to);
    return code;
}
