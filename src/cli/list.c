/* list.c: `weft list [SLOT]`: every part by slot with its paper; and the models, tasks, optimizers and schedules. */
#include "cli/topics.h"

#include <string.h>

static const struct {
    const char *slot, *help;
} slots[] = {
    {"model", "whole networks made of parts"},
    {"mixer", "[B,L,D] -> [B,L,D], what mixes tokens"},
    {"channel", "[..,D] -> [..,D], token by token"},
    {"norm", "[..,D] -> [..,D]"},
    {"linear", "[..,I] -> [..,O]"},
    {"position", "added to the stream, rotary, or a bias on scores"},
    {"placement", "where norms stand around a sublayer"},
    {"topology", "how sublayers follow, share, repeat"},
};

typedef struct line { /* one thing that a recipe can name */
    const char *slot, *name, *title, *paper, *sheet;
} line;

static void add(wf_value *list, const line *l) {
    wf_value *o = wf_value_map();
    wf_cli_put(o, "slot", l->slot);
    wf_cli_put(o, "name", l->name);
    wf_cli_put(o, "title", l->title);
    wf_cli_put(o, "paper", l->paper);
    wf_cli_put(o, "sheet", l->sheet);
    wf_cli_put_item(list, o);
}

/* Heading, then lines; returns how many there were. */
static int show_slot(const char *slot, const char *help, const line *lines, int n, wf_value *json) {
    if (n == 0) return 0;
    if (!json) printf("%s%s%s\n", slot, help ? ": " : "", help ? help : "");
    for (int i = 0; i < n; i++) {
        if (json) {
            add(json, &lines[i]);
            continue;
        }
        printf("  %-20s %s\n", lines[i].name, lines[i].title ? lines[i].title : "");
        if (lines[i].paper && *lines[i].paper) wf_cli_wrap(stdout, lines[i].paper, 23, 116);
    }
    if (!json) printf("\n");
    return n;
}

static int parts_of(const char *slot, line *out, int room) {
    int all, n = 0;
    const wf_part *const *p = wf_part_all(&all);
    for (int i = 0; i < all && n < room; i++)
        if (!strcmp(p[i]->slot, slot)) out[n++] = (line){slot, p[i]->name, p[i]->title, p[i]->paper, p[i]->sheet};
    return n;
}

static int tasks(line *out, int room) {
    int all, n = 0;
    const wf_task_type *const *t = wf_task_types(&all);
    for (int i = 0; i < all && n < room; i++) out[n++] = (line){"task", t[i]->name, t[i]->title, NULL, NULL};
    return n;
}

static int topics_of(const char *slot, line *out, int room) {
    int all, n = 0;
    const wf_topic *t = wf_topics(&all);
    for (int i = 0; i < all && n < room; i++)
        if (!strcmp(t[i].slot, slot)) out[n++] = (line){slot, t[i].name, t[i].title, t[i].paper, t[i].sheet};
    return n;
}

static bool wanted(const char *slot, const char *asked) {
    if (!asked || !strcmp(slot, asked)) return true;
    size_t n = strlen(slot); /* "mixers" too */
    return !strncmp(slot, asked, n) && !strcmp(asked + n, "s");
}

static int show(const char *asked, wf_value *json) {
    line buf[256];
    int shown = 0;
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++)
        if (wanted(slots[i].slot, asked))
            shown += show_slot(slots[i].slot, slots[i].help, buf, parts_of(slots[i].slot, buf, 256), json);
    if (wanted("task", asked)) shown += show_slot("task", "where batches come from", buf, tasks(buf, 256), json);
    if (wanted("optimizer", asked))
        shown += show_slot("optimizer", "train.optimizer", buf, topics_of("optimizer", buf, 256), json);
    if (wanted("schedule", asked)) shown += show_slot("schedule", "train.schedule", buf, topics_of("schedule", buf, 256), json);
    return shown;
}

int wf_cmd_list(int argc, char **argv) {
    bool json = false;
    static wf_cli_list words;
    const wf_cli_option options[] = {{"json", 0, WF_CLI_FLAG, &json, NULL, "print one JSON list"}, WF_CLI_END};
    const wf_cli_spec spec = {
        "list",
        "[SLOT]",
        "Everything a recipe can name, by slot, each with its paper: parts (model, mixer, channel, norm, linear, position, "
        "placement, topology), tasks, optimizers and schedules. `weft explain NAME` says more of one.",
        "weft list\nweft list mixer\nweft list --json",
        options,
        0,
        1};
    int code = wf_cli_parse(&spec, argc, argv, &words);
    if (code >= 0) return code;
    wf_value *list = json ? wf_value_list() : NULL;
    const char *asked = words.n ? words.item[0] : NULL;
    if (show(asked, list) == 0 && asked) {
        const char *names[16];
        int n = 0;
        for (size_t i = 0; i < sizeof slots / sizeof *slots; i++) names[n++] = slots[i].slot;
        names[n++] = "task", names[n++] = "optimizer", names[n++] = "schedule";
        const char *near = wf_nearest(asked, names, n);
        wf_value_free(list);
        return wf_cli_usage("list",
                            near ? "there is no slot '%s'; did you mean '%s'?" : "there is no slot '%s'; `weft list` shows all",
                            asked, near);
    }
    return json ? wf_cli_print_json(list) : WF_EXIT_OK;
}
