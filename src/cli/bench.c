/* bench.c: `weft bench MODEL|RECIPE`: training step, prefill, decode and memory on this machine. */
#include "cli/cli.h"
#include "learn/learn.h"
#include "sample/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

typedef struct bench_args {
    int64_t steps, prompt, tokens;
    const char *precision; /* of prefill and decode */
    bool json, profile;
} bench_args;

typedef struct bench_result {
    bool trained, decoded;
    const char *unit; /* of a training step: "tokens" or "samples" */
    double step_median, step_best, tokens_per_step, flops_per_step;
    double prefill, decode_median, decode_best, session_bytes;
    size_t planned_peak;
    int64_t parameters;
} bench_result;

static size_t peak_memory(void) {
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) == 0 ? (size_t)u.ru_maxrss * 1024 : 0;
}

static wf_status bench_training(wf_run *r, const bench_args *a, bench_result *out) {
    double *seconds = wf_alloc_array((size_t)a->steps, sizeof *seconds);
    if (!seconds) return WF_ENOMEM;
    wf_step_report report;
    wf_status s = wf_run_step(r, &report); /* the first one makes plans */
    if (s == WF_OK && a->profile) s = wf_run_profile(r, true);
    for (int64_t i = 0; s == WF_OK && i < a->steps; i++) {
        s = wf_run_step(r, &report);
        seconds[i] = report.seconds;
        if (s == WF_OK && wf_interrupted()) s = wf_fail(WF_EINTERRUPTED, "stopped");
    }
    if (s == WF_OK) {
        out->trained = true;
        out->step_median = wf_median(seconds, a->steps);
        out->step_best = seconds[0];
        out->tokens_per_step = (double)report.tokens;
        out->unit = wf_run_task(r)->length > 0 ? "tokens" : "samples";
        out->flops_per_step = report.flops;
        wf_run_cost c;
        if (a->profile) {
            char *text = wf_run_profile_text(r);
            fprintf(stderr, "%s\n", text ? text : "");
            wf_free(text);
        }
        s = wf_run_describe(r, &c);
        out->planned_peak = s == WF_OK ? c.peak_bytes : 0;
    }
    wf_free(seconds);
    return s;
}

static wf_status time_decode(wf_session *s, const bench_args *a, bench_result *out) {
    int32_t *tokens = wf_alloc_array((size_t)a->prompt, sizeof *tokens);
    double *seconds = wf_alloc_array((size_t)a->tokens, sizeof *seconds);
    wf_status status = tokens && seconds ? WF_OK : WF_ENOMEM;
    int64_t vocab = wf_session_vocab(s);
    for (int64_t i = 0; status == WF_OK && i < a->prompt; i++)
        tokens[i] = (int32_t)(wf_hash(&i, sizeof i, 1) % (uint64_t)vocab);
    if (status == WF_OK) status = wf_session_feed(s, tokens, a->prompt); /* makes the plan of this length */
    wf_session_reset(s);
    double t = wf_seconds();
    if (status == WF_OK) status = wf_session_feed(s, tokens, a->prompt);
    out->prefill = wf_seconds() - t;
    if (status == WF_OK && a->profile) wf_plan_profile(wf_session_plan(s), true);
    for (int64_t i = 0; status == WF_OK && i < a->tokens; i++) {
        const float *logits = wf_session_logits(s);
        t = wf_seconds();
        int32_t best = 0;
        for (int64_t j = 1; j < vocab; j++)
            if (logits[j] > logits[best]) best = (int32_t)j;
        status = wf_session_feed(s, &best, 1);
        seconds[i] = wf_seconds() - t;
    }
    if (status == WF_OK) {
        out->decoded = true;
        out->decode_median = wf_median(seconds, a->tokens);
        out->decode_best = seconds[0];
        out->session_bytes = (double)wf_session_bytes(s);
    }
    wf_free(tokens);
    wf_free(seconds);
    return status;
}

static wf_status bench_decoding(wf_model *m, const bench_args *a, bench_result *out) {
    wf_session_opt opt = {.max_length = a->prompt + a->tokens,
                          .chunk = a->prompt,
                          .compute = strcmp(a->precision, "bfloat16") ? WF_F32 : WF_BF16};
    wf_session *s = wf_session_new(m, &opt);
    if (!s) return WF_EUNSUPPORTED;
    wf_status status = time_decode(s, a, out);
    if (status == WF_OK && a->profile) {
        char *text = wf_plan_profile_text(wf_session_plan(s));
        fprintf(stderr, "decode\n%s\n", text ? text : "");
        wf_free(text);
    }
    wf_session_free(s);
    return status;
}

static int print_json(const bench_result *b, const bench_args *a) {
    wf_value *o = wf_value_map();
    wf_cli_put_number(o, "threads", wf_threads());
    wf_cli_put_number(o, "parameters", (double)b->parameters);
    if (b->trained) {
        wf_cli_put_number(o, "train_step_seconds", b->step_median);
        wf_cli_put_number(o, "train_step_seconds_best", b->step_best);
        wf_cli_put_number(o, "train_tokens_per_second", b->tokens_per_step / b->step_median);
        wf_cli_put_number(o, "train_flops_per_second", b->flops_per_step / b->step_median);
        wf_cli_put_number(o, "planned_peak_bytes", (double)b->planned_peak);
    }
    if (b->decoded) {
        wf_cli_put_number(o, "prefill_tokens_per_second", (double)a->prompt / b->prefill);
        wf_cli_put_number(o, "decode_token_seconds", b->decode_median);
        wf_cli_put_number(o, "decode_tokens_per_second", 1 / b->decode_median);
        wf_cli_put_number(o, "session_bytes", b->session_bytes);
    }
    wf_cli_put_number(o, "process_peak_bytes", (double)peak_memory());
    return wf_cli_print_json(o);
}

static int print_text(const bench_result *b, const bench_args *a) {
    char x[32], y[32], z[32];
    printf("%s parameters, %d threads\n", wf_cli_count((double)b->parameters, x), wf_threads());
    if (b->trained) {
        printf("train step  %s (best %s), %s %s/s, ", wf_cli_time(b->step_median, x), wf_cli_time(b->step_best, y),
               wf_cli_count(b->tokens_per_step / b->step_median, z), b->unit);
        printf("%s FLOP/s\n", wf_cli_count(b->flops_per_step / b->step_median, x));
    }
    if (b->decoded) {
        printf("prefill     %s for %lld tokens, %s tokens/s\n", wf_cli_time(b->prefill, x), (long long)a->prompt,
               wf_cli_count((double)a->prompt / b->prefill, y));
        printf("decode      %s a token (best %s), %s tokens/s; caches and arenas %s\n", wf_cli_time(b->decode_median, x),
               wf_cli_time(b->decode_best, y), wf_cli_count(1 / b->decode_median, z),
               wf_cli_bytes(b->session_bytes, (char[32]){0}));
    }
    if (b->trained)
        printf("memory      planned peak %s, ", wf_cli_bytes((double)b->planned_peak, x));
    else
        printf("memory      ");
    printf("this process %s\n", wf_cli_bytes((double)peak_memory(), y));
    return WF_EXIT_OK;
}

/* Recipes train and, where the model streams, decode; models only decode. */
static wf_status bench(const char *path, const wf_cli_list *sets, const bench_args *a, bench_result *out) {
    if (wf_cli_is_model(path)) {
        char *file = wf_cli_model_path(path);
        wf_model *m = file ? wf_model_load(file) : NULL;
        if (m) out->parameters = wf_model_count(m);
        wf_status s = m ? bench_decoding(m, a, out) : WF_EINVAL;
        wf_model_free(m);
        wf_free(file);
        return s;
    }
    wf_value *recipe = wf_cli_recipe(path, sets);
    wf_run *r = recipe ? wf_run_new(recipe, NULL) : NULL;
    wf_status s = r ? bench_training(r, a, out) : WF_EINVAL;
    if (r) out->parameters = wf_model_count(wf_run_model(r));
    if (s == WF_OK && wf_run_task(r)->objective == WF_OBJECTIVE_NEXT_TOKEN) s = bench_decoding(wf_run_model(r), a, out);
    wf_run_free(r);
    wf_value_free(recipe);
    return s;
}

int wf_cmd_bench(int argc, char **argv) {
    bench_args a = {.steps = 5, .prompt = 128, .tokens = 128, .precision = "float32"};
    static wf_cli_list sets, words;
    sets.n = 0;
    const wf_cli_option options[] = {
        {"steps", 0, WF_CLI_INT, &a.steps, "N", "training steps that are timed, after one that is not (default 5)"},
        {"prompt", 0, WF_CLI_INT, &a.prompt, "N", "tokens fed at once for the prefill (default 128)"},
        {"tokens", 'n', WF_CLI_INT, &a.tokens, "N", "tokens decoded one by one (default 128)"},
        {"precision", 0, WF_CLI_TEXT, &a.precision, "P",
         "of prefill and decode: float32 (default) or bfloat16; training has train.precision"},
        {"set", 0, WF_CLI_LIST, &sets, "PATH=VALUE", "change an entry of the recipe; may be repeated"},
        {"profile", 0, WF_CLI_FLAG, &a.profile, NULL, "seconds by operator on stderr"},
        {"json", 0, WF_CLI_FLAG, &a.json, NULL, "print one JSON object"},
        WF_CLI_END,
    };
    const wf_cli_spec spec = {
        "bench",
        "MODEL|RECIPE [--set PATH=VALUE]...",
        "Speed and memory on this machine. Of a recipe: training steps (median and best), and for language models prefill and "
        "decode with the untrained weights. Of a model file or a run's folder: prefill and decode.",
        "weft bench recipes/lm-small.yaml --profile\nweft bench runs/lm-small --prompt 512 -n 512 --json",
        options,
        1,
        1};
    int code = wf_cli_parse(&spec, argc, argv, &words);
    if (code >= 0) return code;
    if (a.steps < 1 || a.prompt < 1 || a.tokens < 1 || a.steps > 1000000 || a.prompt > 1000000 || a.tokens > 1000000)
        return wf_cli_usage("bench", "--steps, --prompt and --tokens must be between 1 and 1000000");
    if (strcmp(a.precision, "float32") && strcmp(a.precision, "bfloat16"))
        return wf_cli_usage("bench", "--precision is float32 or bfloat16, not '%s'", a.precision);
    wf_catch_interrupt();
    bench_result b = {0};
    wf_status s = bench(words.item[0], &sets, &a, &b);
    if (s != WF_OK) return wf_cli_error("bench", s);
    return a.json ? print_json(&b, &a) : print_text(&b, &a);
}
