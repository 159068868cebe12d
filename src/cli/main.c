/* main.c: the tool. A table of verbs, --help, --version, and the nearest verb for a misspelt one. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

#ifndef WEFT_VERSION
#define WEFT_VERSION "0.1.0"
#endif

typedef struct wf_verb {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} wf_verb;

static const wf_verb verbs[] = {
    {"train", wf_cmd_train, "train a model from a recipe; resume it"},
    {"eval", wf_cmd_eval, "loss, accuracy and bits per byte of a model on a task"},
    {"generate", wf_cmd_generate, "continue a text with a language model"},
    {"compare", wf_cmd_compare, "train several designs on one task at one budget; table and HTML report"},
    {"transform", wf_cmd_transform, "make a model file into a faster or different one that computes the same"},
    {"plan", wf_cmd_plan, "parameters, FLOPs, bytes and peak memory of a recipe, before anything runs"},
    {"info", wf_cmd_info, "what is in a model file"},
    {"list", wf_cmd_list, "every part by slot with its paper; models, tasks, optimizers, schedules"},
    {"explain", wf_cmd_explain, "a part: formula, options, cost, facts"},
    {"check", wf_cmd_check, "compare a part with a golden case made by its authors' code"},
    {"bench", wf_cmd_bench, "speed and memory of a recipe or a model on this machine"},
    {"reproduce", wf_cmd_reproduce, "what the papers claim, trained small and judged"},
    {"probe", wf_cmd_probe, "what goes on inside a model: stream, gradients, attention entropy, spectral norms"},
    {"data", wf_cmd_data, "what a task's data is, and samples of it"},
};
enum { n_verbs = sizeof verbs / sizeof *verbs };

static void print_help(FILE *f) {
    fprintf(f, "weft: one engine in which every transformer design is a recipe of exchangeable parts\n\n"
               "usage: weft VERB [arguments]\n\nverbs:\n");
    for (int i = 0; i < n_verbs; i++) fprintf(f, "  %-10s %s\n", verbs[i].name, verbs[i].help);
    fprintf(f, "\n`weft VERB --help` says everything about a verb; `weft --version` the version.\n"
               "Start with: weft train recipes/lm-small.yaml\n"
               "Exit codes: 0 done, 1 failed, 2 wrong usage or unusable input, 130 stopped by Ctrl-C.\n");
}

static const wf_verb *find_verb(const char *name) {
    for (int i = 0; i < n_verbs; i++)
        if (!strcmp(name, verbs[i].name)) return &verbs[i];
    return NULL;
}

static int unknown_verb(const char *name) {
    const char *names[n_verbs];
    for (int i = 0; i < n_verbs; i++) names[i] = verbs[i].name;
    const char *near = wf_nearest(name, names, n_verbs);
    if (near)
        fprintf(stderr, "weft: there is no verb '%s'; did you mean `weft %s`?\n", name, near);
    else
        fprintf(stderr, "weft: there is no verb '%s'; `weft --help` lists them\n", name);
    return WF_EXIT_USAGE;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        print_help(stderr);
        return WF_EXIT_USAGE;
    }
    const char *word = argv[1];
    if (!strcmp(word, "--version") || !strcmp(word, "version")) {
        printf("weft %s\n", WEFT_VERSION);
        return WF_EXIT_OK;
    }
    if (!strcmp(word, "--help") || !strcmp(word, "-h") || (!strcmp(word, "help") && argc == 2)) {
        print_help(stdout);
        return WF_EXIT_OK;
    }
    if (!strcmp(word, "help")) { /* weft help train */
        const wf_verb *v = find_verb(argv[2]);
        char *args[] = {argv[2], "--help", NULL};
        return v ? v->run(2, args) : unknown_verb(argv[2]);
    }
    const wf_verb *v = find_verb(word);
    return v ? v->run(argc - 1, argv + 1) : unknown_verb(word);
}
