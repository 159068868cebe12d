/* explain.c: `weft explain NAME`: formula, options with defaults and ranges, cost, facts, golden cases of a part, a task, the
 * `train` entry, an optimizer or a schedule. */
#include "cli/topics.h"

#include <stdlib.h>
#include <string.h>

static wf_topic of_part(const wf_part *p) {
    return (wf_topic){p->slot, p->name, p->title, p->paper, p->sheet, p->formula, p->cost, p->facts, p->golden, p->options};
}

/* All topics of that name (a name can stand in several slots), at most `room`. "slot.name" and "slot/name" pick one. */
static int find(const char *word, wf_topic *out, int room) {
    int n = 0, all;
    const wf_part *const *parts = wf_part_all(&all);
    for (int i = 0; i < all && n < room; i++) {
        size_t slot = strlen(parts[i]->slot);
        bool full = !strncmp(word, parts[i]->slot, slot) && (word[slot] == '.' || word[slot] == '/') &&
                    !strcmp(word + slot + 1, parts[i]->name);
        if (full || !strcmp(word, parts[i]->name)) out[n++] = of_part(parts[i]);
    }
    const wf_task_type *const *tasks = wf_task_types(&all);
    for (int i = 0; i < all && n < room; i++)
        if (!strcmp(word, tasks[i]->name))
            out[n++] = (wf_topic){"task", tasks[i]->name, tasks[i]->title, NULL, NULL,
                                  NULL,   NULL,           tasks[i]->help,  NULL, tasks[i]->options};
    const wf_topic *fixed = wf_topics(&all);
    for (int i = 0; i < all && n < room; i++)
        if (!strcmp(word, fixed[i].name)) out[n++] = fixed[i];
    return n;
}

static const char *type_name(const wf_option *o) {
    switch (o->type) {
    case WF_OPT_INT: return "whole number";
    case WF_OPT_REAL: return "number";
    case WF_OPT_BOOL: return "true or false";
    case WF_OPT_TEXT: return "text";
    case WF_OPT_CHOICE: return o->choices;
    case WF_OPT_VALUE: return "an entry of its own";
    }
    return "";
}

static void print_option(const wf_option *o) {
    char range[96] = "";
    if (o->min != 0 || o->max != 0) snprintf(range, sizeof range, ", %g to %g", o->min, o->max);
    printf("  %-18s %s%s%s%s\n", o->name, type_name(o), range,
           o->def == NULL ? ", required"
           : *o->def      ? ", default "
                          : "",
           o->def ? o->def : "");
    if (o->help) wf_cli_wrap(stdout, o->help, 21, 110);
}

static void section(const char *name, const char *text) {
    if (!text || !*text) return;
    printf("\n%s\n", name);
    wf_cli_wrap(stdout, text, 2, 110);
}

static void print_topic(const wf_topic *t) {
    printf("%s (%s)%s%s\n", t->name, t->slot, t->title ? ": " : "", t->title ? t->title : "");
    section("paper", t->paper);
    section("formula", t->formula);
    if (t->options && t->options->name) printf("\noptions\n");
    for (const wf_option *o = t->options; o && o->name; o++) print_option(o);
    section("cost", t->cost);
    section("facts", t->facts);
    section("golden cases", t->golden);
    if (t->sheet && *t->sheet) printf("\nsheet %s\n", t->sheet);
}

static wf_value *to_json(const wf_topic *t) {
    wf_value *o = wf_value_map();
    const struct {
        const char *key, *text;
    } field[] = {{"slot", t->slot},       {"name", t->name}, {"title", t->title}, {"paper", t->paper},  {"sheet", t->sheet},
                 {"formula", t->formula}, {"cost", t->cost}, {"facts", t->facts}, {"golden", t->golden}};
    for (size_t i = 0; i < sizeof field / sizeof *field; i++) wf_cli_put(o, field[i].key, field[i].text);
    wf_value *list = wf_value_list();
    for (const wf_option *p = t->options; p && p->name; p++) {
        wf_value *x = wf_value_map();
        wf_cli_put(x, "name", p->name);
        wf_cli_put(x, "type", type_name(p));
        wf_cli_put_bool(x, "required", p->def == NULL);
        if (p->def && *p->def) wf_cli_put(x, "default", p->def);
        if (p->min != 0 || p->max != 0) {
            wf_cli_put_number(x, "min", p->min);
            wf_cli_put_number(x, "max", p->max);
        }
        wf_cli_put(x, "help", p->help);
        wf_cli_put_item(list, x);
    }
    wf_cli_put_value(o, "options", list);
    return o;
}

static int unknown(const char *word) {
    const char *names[512];
    int n = 0, all;
    const wf_part *const *parts = wf_part_all(&all);
    for (int i = 0; i < all && n < 400; i++) names[n++] = parts[i]->name;
    const wf_task_type *const *tasks = wf_task_types(&all);
    for (int i = 0; i < all && n < 480; i++) names[n++] = tasks[i]->name;
    const wf_topic *fixed = wf_topics(&all);
    for (int i = 0; i < all; i++) names[n++] = fixed[i].name;
    const char *near = wf_nearest(word, names, n);
    if (near) return wf_cli_usage("explain", "there is nothing named '%s'; did you mean '%s'?", word, near);
    return wf_cli_usage("explain", "there is nothing named '%s'; `weft list` shows all names", word);
}

int wf_cmd_explain(int argc, char **argv) {
    bool json = false;
    static wf_cli_list words;
    const wf_cli_option options[] = {{"json", 0, WF_CLI_FLAG, &json, NULL, "print one JSON list"}, WF_CLI_END};
    const wf_cli_spec spec = {
        "explain",
        "NAME",
        "Formula, options with defaults and ranges, cost, facts and golden cases of a part; the options of a task or of the "
        "recipe's train entry; the rule of an optimizer or a schedule. A name that stands in several slots shows all; "
        "slot.name picks one.",
        "weft explain softmax\nweft explain position.none\nweft explain train\nweft explain muon",
        options,
        1,
        1};
    int code = wf_cli_parse(&spec, argc, argv, &words);
    if (code >= 0) return code;
    wf_topic found[16];
    int n = find(words.item[0], found, 16);
    if (n == 0) return unknown(words.item[0]);
    if (json) {
        wf_value *list = wf_value_list();
        for (int i = 0; i < n; i++) wf_cli_put_item(list, to_json(&found[i]));
        return wf_cli_print_json(list);
    }
    for (int i = 0; i < n; i++) {
        if (i) printf("\n%s\n\n", "----------------");
        print_topic(&found[i]);
    }
    return WF_EXIT_OK;
}
