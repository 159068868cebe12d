/* generate.c: `weft generate MODEL --prompt TEXT`: tokens to stdout as they come. */
#include "cli/cli.h"
#include "sample/sample.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct generate_args {
    const char *prompt, *prompt_file, *precision;
    wf_generate_opt opt;
    int64_t n, seed, stop, length;
    bool json, numbers, quiet;
} generate_args;

typedef struct sink { /* where new tokens go */
    wf_text text;
    wf_value *list;
    bool json, numbers;
} sink;

static bool on_token(void *ctx, int32_t token) {
    sink *s = ctx;
    char c = (char)token;
    if (s->json && s->numbers) {
        wf_cli_put_item(s->list, wf_value_number(token));
    } else if (s->json) {
        wf_text_put(&s->text, &c, 1);
    } else {
        if (s->numbers)
            printf("%d ", token);
        else
            putchar(c);
        fflush(stdout);
    }
    return !ferror(stdout);
}

/* Tokens of the prompt: bytes, or with --numbers whole numbers between spaces. wf_free it; NULL + message. */
static int32_t *read_prompt(const char *text, size_t n, bool numbers, int64_t *count) {
    int32_t *t = wf_alloc_array(n + 1, sizeof *t);
    *count = 0;
    if (t && !numbers) {
        for (size_t i = 0; i < n; i++) t[(*count)++] = (uint8_t)text[i];
    } else if (t) {
        for (const char *p = text; *p;) {
            char *end;
            long v = strtol(p, &end, 10);
            if (end == p) {
                while (*p == ' ' || *p == '\n' || *p == ',') p++;
                if (!*p) break;
                wf_fail(WF_EINVAL, "--numbers: '%s' is no list of token numbers", text);
                wf_free(t);
                return NULL;
            }
            t[(*count)++] = v < 0 || v > INT32_MAX ? -1 : (int32_t)v;
            p = end;
        }
    }
    if (t && *count == 0) {
        wf_fail(WF_EINVAL, "the prompt is empty; a model continues at least one token");
        wf_free(t);
        return NULL;
    }
    return t;
}

static int finish(const char *path, const generate_args *a, sink *out, const wf_generate_report *r) {
    double rate = r->decode_seconds > 0 && r->tokens > 1 ? (double)(r->tokens - 1) / r->decode_seconds : 0;
    if (a->json) {
        wf_value *o = wf_value_map();
        wf_cli_put(o, "model", path);
        if (a->numbers)
            wf_cli_put_value(o, "tokens", out->list);
        else
            wf_cli_put(o, "text", out->text.s ? out->text.s : "");
        wf_cli_put_number(o, "prompt_tokens", (double)r->prompt);
        wf_cli_put_number(o, "new_tokens", (double)r->tokens);
        wf_cli_put_number(o, "prefill_seconds", r->prefill_seconds);
        wf_cli_put_number(o, "decode_seconds", r->decode_seconds);
        wf_cli_put_number(o, "tokens_per_second", rate);
        wf_cli_put_number(o, "seed", (double)a->seed);
        return wf_cli_print_json(o);
    }
    putchar('\n');
    char t[32];
    if (!a->quiet)
        fprintf(stderr, "prompt of %lld tokens in %s; %lld new tokens, %.1f tokens/s\n", (long long)r->prompt,
                wf_cli_time(r->prefill_seconds, t), (long long)r->tokens, rate);
    return WF_EXIT_OK;
}

static int generate(wf_model *m, const char *path, const char *text, size_t bytes, generate_args *a) {
    int64_t n;
    int32_t *prompt = read_prompt(text, bytes, a->numbers, &n);
    if (!prompt) return wf_cli_error("generate", WF_EINVAL);
    wf_session_opt so = {.max_length = a->length > 0 ? a->length : n + a->n,
                         .compute = strcmp(a->precision, "bfloat16") ? WF_F32 : WF_BF16};
    wf_session *s = wf_session_new(m, &so);
    sink out = {.json = a->json, .numbers = a->numbers, .list = a->json && a->numbers ? wf_value_list() : NULL};
    int code;
    wf_generate_report report = {0};
    if (s && !a->numbers && wf_session_vocab(s) != 256) {
        code = wf_cli_usage("generate", "%s has %lld tokens, not bytes; give --numbers and the prompt as token numbers", path,
                            (long long)wf_session_vocab(s));
    } else {
        if (s && !a->json && !a->numbers) fwrite(text, 1, bytes, stdout);
        if (s) wf_catch_interrupt();
        wf_status status = s ? wf_generate(s, prompt, n, &a->opt, on_token, &out, &report) : WF_EINVAL;
        if (status == WF_EINTERRUPTED) {
            finish(path, a, &out, &report);
            code = WF_EXIT_INTERRUPTED;
        } else {
            code = status == WF_OK ? finish(path, a, &out, &report) : wf_cli_error("generate", status);
        }
    }
    wf_text_free(&out.text);
    wf_session_free(s);
    wf_free(prompt);
    return code;
}

static int check_args(const generate_args *a) {
    if (a->n < 0) return wf_cli_usage("generate", "-n must be at least 0");
    if (a->prompt && a->prompt_file) return wf_cli_usage("generate", "give --prompt or --prompt-file, not both");
    if (strcmp(a->precision, "float32") && strcmp(a->precision, "bfloat16"))
        return wf_cli_usage("generate", "--precision is float32 or bfloat16, not '%s'", a->precision);
    return -1;
}

int wf_cmd_generate(int argc, char **argv) {
    generate_args a = {
        .precision = "float32", .n = 200, .seed = -1, .stop = -1, .opt = {.pick = {.temperature = 0.8, .top_p = 1}}};
    static wf_cli_list words;
    const wf_cli_option options[] = {
        {"prompt", 'p', WF_CLI_TEXT, &a.prompt, "TEXT", "text to continue (default: a line end)"},
        {"prompt-file", 'f', WF_CLI_TEXT, &a.prompt_file, "FILE", "text to continue, from a file"},
        {"tokens", 'n', WF_CLI_INT, &a.n, "N", "new tokens (default 200)"},
        {"temperature", 't', WF_CLI_REAL, &a.opt.pick.temperature, "X",
         "below 1 likelier, above 1 wilder; 0: always the likeliest (default 0.8)"},
        {"top-k", 'k', WF_CLI_INT, &a.opt.pick.top_k, "K", "only the K likeliest tokens (default: all)"},
        {"top-p", 0, WF_CLI_REAL, &a.opt.pick.top_p, "P",
         "only the likeliest tokens that together have probability P (default 1: all)"},
        {"seed", 's', WF_CLI_INT, &a.seed, "N", "the same seed gives the same text (default: from the clock, and said)"},
        {"stop", 0, WF_CLI_INT, &a.stop, "TOKEN", "end at this token, as 10 for a line end (default: none)"},
        {"max-length", 0, WF_CLI_INT, &a.length, "N", "room for prompt and text together (default: what they need)"},
        {"precision", 0, WF_CLI_TEXT, &a.precision, "P",
         "of matrix products: float32 (default) or bfloat16, weights converted once"},
        {"numbers", 0, WF_CLI_FLAG, &a.numbers, NULL,
         "prompt and text are token numbers, for models whose tokens are no bytes"},
        {"json", 0, WF_CLI_FLAG, &a.json, NULL, "print one JSON object at the end, without the prompt's text"},
        {"quiet", 'q', WF_CLI_FLAG, &a.quiet, NULL, "do not report speed on stderr"},
        WF_CLI_END,
    };
    const wf_cli_spec spec = {
        "generate",
        "MODEL [--prompt TEXT] [-n N] [--temperature X] [--top-k K] [--top-p P] [--seed N]",
        "Continue a text with a causal language model. Tokens go to stdout as they are made, speed to stderr. MODEL is a "
        "model.safetensors or the folder of a run. Only the streaming form of the model is used: each position is computed "
        "once and remembered.",
        "weft generate runs/lm-small --prompt 'a small ' -n 300\n"
        "weft generate runs/lm-small -p 'the ' -t 0 --json\n"
        "weft generate runs/copy --numbers -p '1 2 3'",
        options,
        1,
        1};
    int code = wf_cli_parse(&spec, argc, argv, &words);
    if (code >= 0 || (code = check_args(&a)) >= 0) return code;
    if (a.seed < 0) a.seed = (int64_t)(time(NULL) % 1000000);
    a.opt.tokens = a.n;
    a.opt.seed = (uint64_t)a.seed;
    a.opt.stop = a.stop < 0 ? -1 : (int32_t)a.stop;
    wf_bytes file = {0};
    if (a.prompt_file && wf_bytes_open(a.prompt_file, &file) != WF_OK) return wf_cli_error("generate", WF_EIO);
    const char *text = a.prompt ? a.prompt : "\n";
    size_t bytes = a.prompt_file ? file.n : strlen(text);
    char *copy = wf_alloc(bytes + 1);
    if (copy) memcpy(copy, a.prompt_file ? (const char *)file.p : text, bytes);
    char *path = wf_cli_model_path(words.item[0]);
    wf_model *m = path ? wf_model_load(path) : NULL;
    code = m && copy ? generate(m, path, copy, bytes, &a) : wf_cli_error("generate", WF_EINVAL);
    wf_model_free(m);
    wf_free(path);
    wf_free(copy);
    if (a.prompt_file) wf_bytes_close(&file);
    return code;
}
