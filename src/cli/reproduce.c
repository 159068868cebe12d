/* reproduce.c: the verb `weft reproduce`: claims of the papers, trained small and judged. */
#include "cli/cli.h"
#include "lab/lab.h"

#include <stdlib.h>
#include <string.h>

static const char about[] =
    "Trains what a paper compares, small, and judges its claim by criteria that were fixed beforehand: prints the claim, the "
    "figures of every seed with mean and standard deviation, and whether it holds. The claims come with the program "
    "(`--list`); a "
    "recipe of your own works the same (`weft explain reproduce` says what stands in it).\n"
    "Runs are processes with one thread each, as many at a time as --threads (default: the cores). Results are kept in "
    "FOLDER/results.jsonl as each run ends: Ctrl-C loses nothing that is finished, and the same command goes on; --fresh "
    "starts "
    "anew. The figures do not depend on the number of processes; milliseconds are measured with nothing else running here.\n"
    "A claim that does not hold is a result, and so is a run that diverges: the exit code is 0 unless a run failed technically "
    "(1: "
    "a part or a data package is missing, out of memory).";
static const char examples[] = "weft reproduce --list                                 all claims, and how long they take\n"
                               "weft reproduce 07                                     the claims about system 07\n"
                               "weft reproduce 28-isotropic\n"
                               "weft reproduce all --write docs/reproductions.md\n"
                               "weft reproduce mine.yaml --json";

typedef struct view {
    wf_progress progress;
    bool json;
} view;

static void on_progress(void *ctx, double done, double total, const char *note) {
    view *v = ctx;
    if (!v->progress.what) wf_progress_start(&v->progress, "reproduce", "core second", (int64_t)(total + 0.5));
    wf_progress_show(&v->progress, (int64_t)done, note);
}

static void on_finished(void *ctx, const wf_lab_claim *c) {
    view *v = ctx;
    if (v->json) return;
    if (v->progress.tty && !v->progress.quiet) fprintf(stderr, "\r\033[K");
    char *text = wf_claim_text_of(c);
    printf("%s\n", text ? text : "");
    fflush(stdout);
    wf_free(text);
}

/* ---- which claims ---- */
static bool matches(const char *word, const char *name) {
    size_t n = strlen(word);
    if (!strcmp(word, "all")) return true;
    return !strncmp(word, name, n) && (name[n] == 0 || name[n] == '-');
}

static bool is_file(const char *word) {
    size_t n = strlen(word);
    return strchr(word, '/') || (n > 5 && !strcmp(word + n - 5, ".yaml"));
}

static bool has(const wf_lab *l, const char *name) {
    for (int i = 0; i < l->n; i++)
        if (!strcmp(l->item[i].claim->name, name)) return true;
    return false;
}

static wf_status add_text(wf_lab *l, const wf_claim_text *t) {
    if (has(l, t->name)) return WF_OK;
    char *path = wf_format("recipes/reproduce/%s.yaml", t->name);
    wf_value *v = path ? wf_yaml_parse(t->text, (size_t)(t->end - t->text), path) : NULL;
    wf_claim *c = v ? wf_claim_read(v, t->name) : NULL;
    wf_free(path);
    return c ? wf_lab_add(l, c) : WF_EINVAL;
}

static wf_status add_file(wf_lab *l, const char *path, const wf_cli_list *sets) {
    wf_value *v = wf_cli_recipe(path, sets);
    const char *base = strrchr(path, '/');
    base = base ? base + 1 : path;
    size_t n = strcspn(base, ".");
    char *name = wf_strndup(base, n ? n : 1);
    wf_claim *c = v && name ? wf_claim_read(v, name) : NULL;
    wf_free(name);
    return c ? wf_lab_add(l, c) : WF_EINVAL;
}

static wf_status unknown(const char *word) {
    const char *names[256];
    int n = 0;
    for (; n < wf_n_claim_texts && n < 256; n++) names[n] = wf_claim_texts[n].name;
    const char *near = wf_nearest(word, names, n);
    return wf_fail(WF_ENOTFOUND, "there is no claim '%s'%s%s%s; `weft reproduce --list` shows all", word,
                   near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static wf_status add_word(wf_lab *l, const char *word, const wf_cli_list *sets) {
    if (is_file(word)) return add_file(l, word, sets);
    bool any = false;
    for (int i = 0; i < wf_n_claim_texts; i++) {
        if (!matches(word, wf_claim_texts[i].name)) continue;
        any = true;
        WF_TRY(add_text(l, &wf_claim_texts[i]));
    }
    return any ? WF_OK : unknown(word);
}

/* ---- what is printed ---- */
static int print_list(const wf_lab *l) {
    double all = 0, left = 0;
    char a[32], b[32];
    printf("%-22s %-9s %5s %9s  %s\n", "claim", "system", "runs", "one core", "what");
    for (int i = 0; i < l->n; i++) {
        const wf_claim *c = l->item[i].claim;
        int runs = 0;
        double missing, seconds = 0;
        for (int d = 0; d < c->n_design; d++)
            if (wf_claim_trains(&c->design[d])) runs += (int)c->seeds;
        seconds = runs * c->seconds;
        int open = wf_claim_missing(&l->item[i], &missing);
        all += seconds;
        left += missing;
        char *system = wf_format("%s%s%s", c->sheet, *c->point ? "." : "", c->point);
        printf("%-22s %-9s %5d %9s  %s%s\n", c->name, system ? system : "", runs, wf_cli_time(seconds, a), c->title,
               open ? "" : " (done)");
        wf_free(system);
    }
    printf("%d claims: about %s", l->n, wf_cli_time(all / wf_threads(), a));
    printf(" on %d cores, %s of it still to do in %s\n", wf_threads(), wf_cli_time(left / wf_threads(), b), l->folder);
    return WF_EXIT_OK;
}

static bool any_failed(const wf_lab *l) {
    for (int i = 0; i < l->n; i++)
        for (int k = 0; k < l->item[i].claim->n_design * (int)l->item[i].claim->seeds; k++)
            if (l->item[i].cell[k].state == WF_CELL_FAILED) return true;
    return false;
}

static wf_status print_results(const wf_lab *l, const view *v, const char *page, const char *command) {
    if (v->json) {
        char *text = wf_lab_json(l);
        if (!text) return WF_ENOMEM;
        fputs(text, stdout);
        wf_free(text);
    } else {
        char *summary = wf_lab_summary(l);
        printf("%s\n", summary ? summary : "");
        wf_free(summary);
    }
    if (!page) return WF_OK;
    char *text = wf_lab_page(l, command);
    wf_status s = text ? wf_write_text(page, text) : WF_ENOMEM;
    wf_free(text);
    return s;
}

static int run(wf_lab *l, view *v, bool fresh, bool list, const char *page, const char *command) {
    wf_status s = wf_lab_load(l, fresh && !list);
    if (s != WF_OK) return wf_cli_error("reproduce", s);
    if (list) return print_list(l);
    wf_catch_interrupt();
    wf_lab_hooks hooks = {v, on_progress, on_finished};
    s = wf_lab_go(l, wf_threads(), &hooks);
    if (v->progress.what && s == WF_OK) {
        v->progress.done = v->progress.total;
        wf_progress_end(&v->progress, "");
    }
    if (s == WF_OK) s = print_results(l, v, page, command);
    if (s != WF_OK) return wf_cli_error("reproduce", s);
    return any_failed(l) ? WF_EXIT_FAILED : WF_EXIT_OK;
}

int wf_cmd_reproduce(int argc, char **argv) {
    const char *folder = "runs/reproduce", *page = NULL;
    bool list = false, fresh = false, quiet = false, json = false;
    static wf_cli_list words, sets;
    sets.n = 0;
    const wf_cli_option options[] = {
        {"list", 'l', WF_CLI_FLAG, &list, NULL, "show claims and how long they take; run nothing"},
        {"output", 'o', WF_CLI_TEXT, &folder, "FOLDER", "where results are kept (default: runs/reproduce)"},
        {"fresh", 0, WF_CLI_FLAG, &fresh, NULL, "forget earlier results of these claims"},
        {"write", 'w', WF_CLI_TEXT, &page, "FILE.md", "write a page: every claim with its figures and verdict"},
        {"set", 0, WF_CLI_LIST, &sets, "PATH=VALUE", "change an entry of a recipe given by its path; may be repeated"},
        {"json", 0, WF_CLI_FLAG, &json, NULL, "print figures and verdicts as JSON at the end"},
        {"quiet", 'q', WF_CLI_FLAG, &quiet, NULL, "no progress"},
        WF_CLI_END,
    };
    const wf_cli_spec spec = {"reproduce", "all|NN|NAME|RECIPE.yaml... [--list] [--write FILE.md]", about, examples, options, 0,
                              -1};
    int code = wf_cli_parse(&spec, argc, argv, &words);
    if (code >= 0) return code;
    if (words.n == 0 && !list) return wf_cli_usage("reproduce", "name claims, or `all`; `weft reproduce --list` shows them");
    if (words.n == 0) words.item[words.n++] = "all";
    char *machine = wf_cli_machine();
    wf_lab *l = wf_lab_open(folder, machine);
    wf_free(machine);
    wf_text command = {0};
    wf_text_add(&command, "weft reproduce");
    wf_status s = l ? WF_OK : WF_ENOMEM;
    for (int i = 0; i < words.n && s == WF_OK; i++) {
        s = add_word(l, words.item[i], &sets);
        wf_text_add(&command, " %s", words.item[i]);
    }
    view v = {.json = json};
    v.progress.quiet = quiet;
    code = s == WF_OK ? run(l, &v, fresh, list, page, command.s ? command.s : "") : wf_cli_error("reproduce", s);
    wf_text_free(&command);
    wf_lab_close(l);
    return code;
}
