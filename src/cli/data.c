/* data.c: `weft data list|show|stats`: which tasks there are, what their samples look like, and what is in them. */
#include "cli/data_show.h"

#include <math.h>
#include <string.h>

typedef struct request {
    const char *split, *output;
    int64_t samples, seed;
    bool json;
    wf_cli_list sets;
} request;

/* ---- list ---- */
static wf_value *option_json(const wf_option *o) {
    wf_value *v = wf_value_map();
    wf_cli_put(v, "name", o->name);
    wf_cli_put(v, "help", o->help);
    if (o->def)
        wf_cli_put(v, "default", o->def);
    else
        wf_cli_put_bool(v, "required", true);
    if (o->min != 0 || o->max != 0) {
        wf_cli_put_number(v, "min", o->min);
        wf_cli_put_number(v, "max", o->max);
    }
    if (o->choices) wf_cli_put(v, "choices", o->choices);
    return v;
}

static wf_value *type_json(const wf_task_type *t) {
    wf_value *v = wf_value_map(), *options = wf_value_list();
    wf_cli_put(v, "name", t->name);
    wf_cli_put(v, "title", t->title);
    wf_cli_put(v, "help", t->help);
    for (const wf_option *o = t->options; o->name; o++) wf_cli_put_item(options, option_json(o));
    wf_cli_put_value(v, "options", options);
    return v;
}

static void print_type(const wf_task_type *t) {
    printf("%s: %s\n", t->name, t->title);
    wf_cli_wrap(stdout, t->help, 2, 100);
    for (const wf_option *o = t->options; o->name; o++) {
        char *line = o->def && !*o->def
                         ? wf_format("%s", o->help)
                         : wf_format("%s (%s%s)", o->help, o->def ? "default " : "required", o->def ? o->def : "");
        if (line && strlen(line) > 84) {
            printf("    %s\n", o->name);
            wf_cli_wrap(stdout, line, 16, 100);
        } else {
            printf("    %-12s%s\n", o->name, line ? line : o->help);
        }
        wf_free(line);
    }
    printf("\n");
}

static int list_tasks(const request *q) {
    int n;
    const wf_task_type *const *types = wf_task_types(&n);
    wf_value *list = q->json ? wf_value_list() : NULL;
    for (int k = 0; k < n; k++) {
        if (list)
            wf_cli_put_item(list, type_json(types[k]));
        else
            print_type(types[k]);
    }
    return list ? wf_cli_print_json(list) : WF_EXIT_OK;
}

/* ---- opening ---- */
static bool is_task_name(const char *word) {
    int n;
    const wf_task_type *const *types = wf_task_types(&n);
    for (int k = 0; k < n; k++)
        if (!strcmp(types[k]->name, word)) return true;
    return false;
}

/* A recipe's `task` entry, a file that is such an entry itself, or a bare name; with --set applied. NULL + message. */
static wf_task *open_task(const char *word, const request *q) {
    wf_value *root = NULL;
    if (is_task_name(word) || !(wf_path_exists(word) || strchr(word, '.') || strchr(word, '/'))) {
        wf_value *task = wf_value_map();
        root = wf_value_map();
        wf_cli_put(task, "name", word);
        wf_cli_put_value(root, "task", task);
        if (root && wf_cli_apply_sets(root, &q->sets) != WF_OK) {
            wf_value_free(root);
            return NULL;
        }
    } else {
        root = wf_cli_recipe(word, &q->sets);
    }
    if (!root) return NULL;
    const wf_value *spec = wf_value_get(root, "task");
    wf_task *t = wf_task_open(spec ? spec : wf_value_get(root, "name") && !wf_value_get(root, "model") ? root : NULL);
    wf_value_free(root);
    return t;
}

/* ---- show ---- */
static int show_task(const char *word, const request *q) {
    bool valid = q->split && !strcmp(q->split, "valid");
    if (q->split && !valid && strcmp(q->split, "train"))
        return wf_cli_usage("data", "--split is train or valid, not '%s'", q->split);
    if (q->samples < 1 || q->samples > 10000) return wf_cli_usage("data", "--samples must be between 1 and 10000");
    wf_task *t = open_task(word, q);
    if (!t) return wf_cli_error("data", WF_EINVAL);
    if (q->output && !t->channels) {
        wf_task_close(t);
        return wf_cli_usage("data", "-o writes a sheet of pictures; the samples of %s are tokens", word);
    }
    wf_batch *b = wf_batch_new(t, q->samples);
    wf_status s = b ? wf_batch_fill(t, valid ? WF_VALID : WF_TRAIN, (uint64_t)q->seed, 0, b, NULL) : WF_ENOMEM;
    if (s == WF_OK && q->output)
        s = wf_data_sheet(t, b, q->output);
    else if (s == WF_OK)
        wf_data_print(t, b);
    if (s == WF_OK && q->output) printf("%s: %lld pictures\n", q->output, (long long)b->size);
    wf_batch_free(b);
    wf_task_close(t);
    return s == WF_OK ? WF_EXIT_OK : wf_cli_error("data", s);
}

/* ---- stats ---- */
enum { PAIR_VOCAB = 512, READ_LIMIT = 400 << 20 }; /* pairs are counted up to this vocab; bytes of batches that are read */

typedef struct counts {
    int64_t samples, scored;
    int64_t *target;     /* [vocab or classes] */
    int64_t *pair;       /* [vocab, vocab]: token before, target; or NULL */
    double sum, squares; /* pixels, 0..1 */
    int64_t pixels;
} counts;

static void count_tokens(const wf_task *t, const wf_batch *b, int64_t rows, counts *c) {
    const int32_t *x = b->tensor[0]->data, *y = b->tensor[1]->data;
    for (int64_t i = 0; i < rows * t->length; i++) {
        if (y[i] < 0) continue;
        c->scored++;
        c->target[y[i]]++;
        if (c->pair) c->pair[x[i] * t->vocab + y[i]]++;
    }
}

static void count_labels(const wf_task *t, const wf_batch *b, int64_t rows, counts *c) {
    int64_t n = t->channels * t->height * t->width;
    const float *x = b->tensor[0]->data; /* read for pictures only: n is 0 for tokens */
    for (int64_t r = 0; r < rows; r++) c->target[((const int32_t *)b->tensor[1]->data)[r]]++;
    for (int64_t i = 0; i < rows * n; i++) {
        double v = (double)x[i] * t->std + t->mean;
        c->sum += v;
        c->squares += v * v;
    }
    c->pixels += rows * n;
    c->scored += rows;
}

/* Samples 0, 1, .. of the split until all are read or READ_LIMIT bytes. */
static wf_status count_split(const wf_task *t, wf_split split, counts *c) {
    bool labels = t->objective == WF_OBJECTIVE_CLASSES;
    int64_t kinds = labels ? t->classes : t->vocab, B = 64, limit = t->count[split];
    wf_batch *b = wf_batch_new(t, B);
    c->target = wf_alloc_array((size_t)kinds, sizeof *c->target);
    if (!labels && kinds <= PAIR_VOCAB) c->pair = wf_alloc_array((size_t)(kinds * kinds), sizeof *c->pair);
    if (!b || !c->target || (!labels && kinds <= PAIR_VOCAB && !c->pair)) {
        wf_batch_free(b);
        return WF_ENOMEM;
    }
    int64_t each = (int64_t)(b->tensor[0]->bytes + b->tensor[1]->bytes) / B, most = READ_LIMIT / each + 1;
    if (limit > most) limit = most;
    wf_status s = WF_OK;
    for (int64_t i = 0; i < limit && s == WF_OK; i += B) {
        int64_t rows = limit - i < B ? limit - i : B;
        s = wf_batch_fill(t, split, 0, i / B, b, NULL);
        if (s == WF_OK && labels)
            count_labels(t, b, rows, c);
        else if (s == WF_OK)
            count_tokens(t, b, rows, c);
        c->samples += rows;
    }
    wf_batch_free(b);
    return s;
}

/* Bits a target carries when only frequencies are known: sum of -n log2(n / total) / total. */
static double entropy(const int64_t *n, int64_t kinds, double total) {
    double h = 0;
    for (int64_t k = 0; k < kinds; k++)
        if (n[k]) h -= (double)n[k] * log2((double)n[k] / total);
    return h;
}

static double pair_entropy(const counts *c, int64_t vocab) {
    double h = 0;
    for (int64_t x = 0; x < vocab; x++) {
        double row = 0;
        for (int64_t y = 0; y < vocab; y++) row += (double)c->pair[x * vocab + y];
        if (row > 0) h += entropy(c->pair + x * vocab, vocab, row);
    }
    return h / (double)c->scored;
}

static double most_frequent(const counts *c, int64_t kinds) {
    int64_t top = 0;
    for (int64_t k = 0; k < kinds; k++) top = c->target[k] > top ? c->target[k] : top;
    return (double)top / (double)c->scored;
}

static wf_value *split_json(const wf_task *t, wf_split split, const counts *c) {
    int64_t kinds = t->classes ? t->classes : t->vocab;
    wf_value *v = wf_value_map();
    wf_cli_put_number(v, "samples", (double)t->count[split]);
    wf_cli_put_number(v, "samples_read", (double)c->samples);
    if (c->scored) {
        wf_cli_put_number(v, "scored_per_sample", (double)c->scored / (double)c->samples);
        wf_cli_put_number(v, "most_frequent_target", most_frequent(c, kinds));
        wf_cli_put_number(v, "bits_per_target", entropy(c->target, kinds, (double)c->scored) / (double)c->scored);
    }
    if (c->scored && c->pair) wf_cli_put_number(v, "bits_per_target_given_token", pair_entropy(c, t->vocab));
    if (c->pixels) {
        double mean = c->sum / (double)c->pixels;
        wf_cli_put_number(v, "pixel_mean", mean);
        wf_cli_put_number(v, "pixel_std", sqrt(fmax(0, c->squares / (double)c->pixels - mean * mean)));
    }
    if (t->classes) {
        wf_value *list = wf_value_map();
        for (int64_t k = 0; k < t->classes; k++) {
            char name[32];
            snprintf(name, sizeof name, "%lld", (long long)k);
            wf_cli_put_number(list, t->class_names ? t->class_names[k] : name, (double)c->target[k]);
        }
        wf_cli_put_value(v, "classes", list);
    }
    return v;
}

static void print_split(const wf_task *t, wf_split split, const counts *c) {
    int64_t kinds = t->classes ? t->classes : t->vocab;
    printf("%s: %lld samples", split == WF_TRAIN ? "train" : "valid", (long long)t->count[split]);
    if (c->samples < t->count[split]) printf(" (figures from %lld of them)", (long long)c->samples);
    printf("\n");
    if (!c->scored) return;
    if (!t->classes)
        printf("  scored positions a sample   %.1f of %lld\n", (double)c->scored / (double)c->samples, (long long)t->length);
    printf("  most frequent target        %.1f %% of all: the accuracy of always guessing it\n", 100 * most_frequent(c, kinds));
    printf("  bits a target               %.3f from frequencies alone",
           entropy(c->target, kinds, (double)c->scored) / (double)c->scored);
    if (c->pair) printf(", %.3f from the token before", pair_entropy(c, t->vocab));
    printf("\n");
    if (c->pixels) {
        double mean = c->sum / (double)c->pixels;
        printf("  pixels 0..1                 mean %.4f, standard deviation %.4f\n", mean,
               sqrt(fmax(0, c->squares / (double)c->pixels - mean * mean)));
    }
    for (int64_t k = 0; k < t->classes; k++)
        printf("  %3lld %-24s%8lld\n", (long long)k, t->class_names ? t->class_names[k] : "", (long long)c->target[k]);
}

static void print_head(const wf_task *t) {
    printf("%s: %s\n", t->type->name, t->type->title);
    if (t->channels)
        printf("pictures [%lld,%lld,%lld], %lld classes, fingerprint %016llx\n", (long long)t->channels, (long long)t->height,
               (long long)t->width, (long long)t->classes, (unsigned long long)t->fingerprint);
    else if (t->classes)
        printf("length %lld, vocab %lld, %lld classes, fingerprint %016llx\n", (long long)t->length, (long long)t->vocab,
               (long long)t->classes, (unsigned long long)t->fingerprint);
    else
        printf("length %lld, vocab %lld, fingerprint %016llx\n", (long long)t->length, (long long)t->vocab,
               (unsigned long long)t->fingerprint);
}

static int stats_task(const char *word, const request *q) {
    wf_task *t = open_task(word, q);
    if (!t) return wf_cli_error("data", WF_EINVAL);
    wf_value *root = q->json ? wf_value_map() : NULL;
    char mark[32];
    snprintf(mark, sizeof mark, "%016llx", (unsigned long long)t->fingerprint);
    wf_cli_put(root, "task", t->type->name);
    wf_cli_put(root, "fingerprint", mark);
    wf_cli_put_number(root, t->vocab ? "vocab" : "classes", (double)(t->vocab ? t->vocab : t->classes));
    if (!root) print_head(t);
    wf_status s = WF_OK;
    for (int k = 0; k < 2 && s == WF_OK; k++) {
        counts c = {0};
        if (t->count[k]) s = count_split(t, (wf_split)k, &c);
        if (s == WF_OK && root)
            wf_cli_put_value(root, k ? "valid" : "train", split_json(t, (wf_split)k, &c));
        else if (s == WF_OK)
            print_split(t, (wf_split)k, &c);
        wf_free(c.target);
        wf_free(c.pair);
    }
    wf_task_close(t);
    if (s != WF_OK) {
        wf_value_free(root);
        return wf_cli_error("data", s);
    }
    return root ? wf_cli_print_json(root) : WF_EXIT_OK;
}

/* ---- the verb ---- */
int wf_cmd_data(int argc, char **argv) {
    static request q;
    static wf_cli_list words;
    q = (request){.samples = 4};
    const wf_cli_option options[] = {
        {"samples", 'n', WF_CLI_INT, &q.samples, "N", "show: how many samples (default 4)"},
        {"split", 0, WF_CLI_TEXT, &q.split, "SPLIT", "show: train or valid (default train)"},
        {"seed", 0, WF_CLI_INT, &q.seed, "N", "show: order of the training samples, as train.data_seed (default 0)"},
        {"output", 'o', WF_CLI_TEXT, &q.output, "FILE.png", "show: write pictures as one sheet instead of printing them"},
        {"set", 0, WF_CLI_LIST, &q.sets, "PATH=VALUE", "change an entry of the recipe: --set task.length=64; repeatable"},
        {"json", 0, WF_CLI_FLAG, &q.json, NULL, "list, stats: print JSON"},
        WF_CLI_END};
    const wf_cli_spec spec = {"data",
                              "list | show TASK | stats TASK",
                              "Tasks: where batches come from. `list` names them with their options; `show` prints samples as "
                              "a model sees them; `stats` counts "
                              "samples, classes and tokens, and says what guessing by frequency would reach. TASK is the name "
                              "of a task or a recipe with a `task` entry.",
                              "weft data list\n"
                              "weft data show wordnet --samples 3\n"
                              "weft data show associative-recall --set task.length=64 --set task.pairs=8\n"
                              "weft data show fashion-mnist --samples 64 -o sheet.png\n"
                              "weft data stats recipes/lm-small.yaml --json",
                              options,
                              1,
                              2};
    int code = wf_cli_parse(&spec, argc, argv, &words);
    if (code >= 0) return code;
    const char *what = words.item[0];
    static const char *const verbs[] = {"list", "show", "stats"};
    if (!strcmp(what, "list") && words.n == 1) return list_tasks(&q);
    if (!strcmp(what, "show") && words.n == 2) return show_task(words.item[1], &q);
    if (!strcmp(what, "stats") && words.n == 2) return stats_task(words.item[1], &q);
    const char *near = wf_nearest(what, verbs, 3);
    if (!near) return wf_cli_usage("data", "there is no `weft data %s`: it is list, show TASK or stats TASK", what);
    if (strcmp(what, near)) return wf_cli_usage("data", "there is no `weft data %s`; did you mean `weft data %s`?", what, near);
    return wf_cli_usage("data",
                        strcmp(what, "list") ? "`weft data %s` needs a task: a name of `weft data list`, or a recipe"
                                             : "`weft data %s` takes no further word",
                        what);
}
