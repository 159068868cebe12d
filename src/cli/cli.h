/* cli.h: what the verbs of the tool share: the table of verbs, arguments with help from one table a verb, errors, printing.
 *
 * A verb is one file: `int wf_cmd_<verb>(int argc, char **argv)`, argv[0] being the verb. Exit codes of every verb:
 * 0 done, 1 the work failed (or a check did), 2 wrong usage or input that cannot be used, 130 stopped by Ctrl-C.
 * Results go to stdout, progress and errors to stderr.
 */
#ifndef WF_CLI_H
#define WF_CLI_H

#include "file/file.h"

int wf_cmd_train(int argc, char **argv);
int wf_cmd_eval(int argc, char **argv);
int wf_cmd_generate(int argc, char **argv);
int wf_cmd_compare(int argc, char **argv);
int wf_cmd_plan(int argc, char **argv);
int wf_cmd_info(int argc, char **argv);
int wf_cmd_list(int argc, char **argv);
int wf_cmd_explain(int argc, char **argv);
int wf_cmd_check(int argc, char **argv);
int wf_cmd_bench(int argc, char **argv);
int wf_cmd_data(int argc, char **argv);
int wf_cmd_transform(int argc, char **argv);
int wf_cmd_reproduce(int argc, char **argv);
int wf_cmd_probe(int argc, char **argv);

enum { WF_EXIT_OK = 0, WF_EXIT_FAILED = 1, WF_EXIT_USAGE = 2, WF_EXIT_INTERRUPTED = 130 };

/* ---- arguments ---- */
#define WF_CLI_MAX_WORDS 1024
typedef struct wf_cli_list { /* repeated options and words, borrowed from argv */
    int n;
    const char *item[WF_CLI_MAX_WORDS];
} wf_cli_list;

typedef enum {
    WF_CLI_FLAG, /* bool *: becomes true */
    WF_CLI_TEXT, /* const char ** */
    WF_CLI_INT,  /* int64_t * */
    WF_CLI_REAL, /* double * */
    WF_CLI_LIST, /* wf_cli_list *: may be given several times */
} wf_cli_type;

typedef struct wf_cli_option {
    const char *name; /* "output" for --output; a table ends with NULL */
    char letter;      /* 'o' for -o, 0: none */
    wf_cli_type type;
    void *out;         /* holds the default before parsing */
    const char *value; /* word for the value in the help: "FOLDER"; NULL for flags */
    const char *help;  /* one sentence, with the default */
} wf_cli_option;
#define WF_CLI_END                                                                                                             \
    { NULL, 0, WF_CLI_FLAG, NULL, NULL, NULL }

typedef struct wf_cli_spec {
    const char *verb;     /* "train" */
    const char *synopsis; /* "RECIPE [-o FOLDER] [--resume]" */
    const char *about;    /* a paragraph or two */
    const char *examples; /* lines, each a command and what it does */
    const wf_cli_option *options;
    int min_words, max_words; /* words that are no options; max -1: any number */
} wf_cli_spec;

/* Parse argv. Every verb also has --help and --threads N. Returns -1 when the verb should go on, else the exit code to
 * return at once (help was printed: 0; wrong usage, said on stderr with the fix: 2). Options may follow words; `--` ends them. */
int wf_cli_parse(const wf_cli_spec *s, int argc, char **argv, wf_cli_list *words);

/* ---- errors ---- */
/* "weft VERB: <wf_message()>" on stderr; the exit code that fits the status. */
int wf_cli_error(const char *verb, wf_status s);
/* The same with a message of the verb's own; exit code 2. */
int wf_cli_usage(const char *verb, const char *fmt, ...) WF_PRINTF(2, 3);

/* ---- recipes and models ---- */
/* Load a YAML recipe and apply `--set path=value` entries (may be NULL). NULL + message. */
wf_value *wf_cli_recipe(const char *path, const wf_cli_list *sets);
wf_status wf_cli_apply_sets(wf_value *root, const wf_cli_list *sets);
/* The model file meant by `path`: itself, or, of a run's folder, its newest model.safetensors. wf_free it; NULL + message. */
char *wf_cli_model_path(const char *path);
/* Whether `path` names a model (a .safetensors file or a run's folder) rather than a recipe. */
bool wf_cli_is_model(const char *path);
/* "lm-small" of "recipes/lm-small.yaml" (or the recipe's own `name`). wf_free it. */
char *wf_cli_recipe_name(const wf_value *recipe, const char *path);

/* ---- printing ---- */
const char *wf_cli_count(double x, char buf[32]); /* "10.6 M" */
const char *wf_cli_bytes(double x, char buf[32]); /* "42.5 MB", powers of 1000 */
const char *wf_cli_time(double s, char buf[32]);  /* "1 h 02 min", "3 min 20 s", "12.3 s", "4.1 ms" */
/* Processor, threads, system, in a line; wf_free it. */
char *wf_cli_machine(void);
/* Print as indented JSON on stdout and free it; WF_EXIT_OK. */
int wf_cli_print_json(wf_value *v);
/* Shorthands that build maps for --json; failures surface at wf_cli_print_json. */
void wf_cli_put(wf_value *map, const char *key, const char *text);
void wf_cli_put_number(wf_value *map, const char *key, double x);
void wf_cli_put_bool(wf_value *map, const char *key, bool x);
void wf_cli_put_value(wf_value *map, const char *key, wf_value *v);
void wf_cli_put_item(wf_value *list, wf_value *v); /* append; takes ownership */
/* Wrap `text` to `width` columns with `indent` spaces in front of every line; lines of the text stay lines. */
void wf_cli_wrap(FILE *f, const char *text, int indent, int width);

#endif
