/* compare.c: the verb `weft compare`: a race of designs with a live table, results and a report. */
#include "cli/cli.h"
#include "compare/compare.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const char about[] = "Trains several designs on one task at one budget and shows which is better and what it costs. "
                            "Steps of all designs and seeds take "
                            "turns, so that noise of the machine falls on all alike; seed n of every design sees the same "
                            "batches in the same order. A table "
                            "is shown while it runs; results.json and report.html (one self-contained page: curves against "
                            "steps, seconds and FLOPs, the table, "
                            "the recipes) are written to the folder at the end, every five minutes, and on Ctrl-C. The same "
                            "command continues where it stopped.\n"
                            "The recipe has `task`, `model` and `train` like any other and `designs`: a map from a name to "
                            "what differs from them. A design that "
                            "diverges or does not fit into memory is a result, not an error.";
static const char examples[] = "weft compare recipes/compare/demo.yaml              four small language models on WordNet\n"
                               "weft compare task.yaml -o runs/trial --set train.steps=100\n"
                               "weft compare task.yaml --json > results.json";

typedef struct screen {
    bool tty, quiet;
    int lines; /* of the table now on the terminal */
    double last;
} screen;

static int columns_of(int fd) {
    struct winsize w;
    return ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col - 1 : 80;
}

static int count_lines(const char *s) {
    int n = 0;
    for (; *s; s++) n += *s == '\n';
    return n;
}

/* On a terminal the table is redrawn in place twice a second; elsewhere it is printed once in a while. */
static void show(void *ctx, const wf_race *r, bool last) {
    screen *s = ctx;
    double now = wf_seconds(), pause = s->tty ? 0.5 : 30;
    if (s->quiet || (!last && now - s->last < pause)) return;
    s->last = now;
    char *table = wf_race_table(r, s->tty ? columns_of(STDERR_FILENO) : 0);
    if (table == NULL) return;
    if (s->tty && s->lines > 0) fprintf(stderr, "\033[%dA\033[J", s->lines);
    fputs(table, stderr);
    if (!s->tty && !last) fputc('\n', stderr);
    fflush(stderr);
    s->lines = count_lines(table);
    wf_free(table);
}

/* The command that gives these results again. */
static char *command_text(const char *recipe, const wf_cli_list *sets) {
    wf_text t = {0};
    wf_text_add(&t, "weft compare %s", recipe);
    for (int i = 0; i < sets->n; i++) wf_text_add(&t, " --set %s", sets->item[i]);
    return t.s;
}

static void print_result(const wf_race *r, bool json) {
    if (json) {
        char *text = wf_results_json(r);
        if (text != NULL) fputs(text, stdout);
        wf_free(text);
        return;
    }
    char *verdict = wf_verdict(r);
    printf("%s\nreport:  %s/report.html\nresults: %s/results.json\n", verdict != NULL ? verdict : "", r->folder, r->folder);
    wf_free(verdict);
}

int wf_cmd_compare(int argc, char **argv) {
    const char *folder = NULL;
    double minutes = 5;
    bool json = false, quiet = false;
    wf_cli_list sets = {0}, words = {0};
    const wf_cli_option options[] = {
        {"output", 'o', WF_CLI_TEXT, &folder, "FOLDER", "where results go (default: runs/<name of the recipe>)"},
        {"set", 0, WF_CLI_LIST, &sets, "PATH=VALUE",
         "change an entry of the recipe, for example train.steps=100; may be repeated"},
        {"checkpoint-minutes", 0, WF_CLI_REAL, &minutes, "M", "minutes between checkpoints (default: 5)"},
        {"json", 0, WF_CLI_FLAG, &json, NULL, "print results.json on stdout at the end"},
        {"quiet", 'q', WF_CLI_FLAG, &quiet, NULL, "no table while it runs"},
        WF_CLI_END,
    };
    const wf_cli_spec spec = {"compare", "RECIPE [-o FOLDER] [--set PATH=VALUE]...", about, examples, options, 1, 1};
    int code = wf_cli_parse(&spec, argc, argv, &words);
    if (code >= 0) return code;
    wf_value *recipe = wf_cli_recipe(words.item[0], &sets);
    if (recipe == NULL) return wf_cli_error("compare", WF_EINVAL);
    char *name = wf_cli_recipe_name(recipe, words.item[0]);
    char *target = folder != NULL ? wf_strdup(folder) : wf_format("runs/%s", name != NULL ? name : "compare");
    wf_free(name);
    wf_catch_interrupt();
    wf_race *race = wf_race_open(words.item[0], recipe, target);
    wf_free(target);
    if (race == NULL) return wf_cli_error("compare", WF_EINVAL);
    race->checkpoint_minutes = minutes;
    race->machine = wf_cli_machine();
    race->command = command_text(words.item[0], &sets);
    screen s = {.tty = isatty(STDERR_FILENO), .quiet = quiet, .last = wf_seconds()};
    wf_status status = wf_race_go(race, show, &s);
    if (status == WF_OK) print_result(race, json);
    code = status == WF_OK ? WF_EXIT_OK : wf_cli_error("compare", status);
    wf_race_close(race);
    return code;
}
