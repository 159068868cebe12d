/* lab.h: reproductions: what a paper claims, trained small and judged by figures.
 *
 * A claim is a recipe (recipes/reproduce/NN-name.yaml): a base of task, model and train like any other, designs laid over it,
 * seeds, and criteria as small expressions over what was measured. Every design runs with every seed in a process of its own,
 * with one thread, as many at a time as there are cores: these models are too small for threads to help.
 *
 *     recipes --wf_claim_read--> claims --wf_lab_add--> cells --wf_lab_go--> results.jsonl --> verdicts, page
 *
 * A cell (design, seed) is known by a hash of all that decides its figures, so a rerun continues, and two claims that train the
 * very same thing train it once.
 */
#ifndef WF_LAB_H
#define WF_LAB_H

#include "lab/expr.h"
#include "learn/learn.h"

/* ---- quantities: what can be measured of a run ---- */
typedef enum wf_quantity_id {
    WF_Q_LOSS,        /* validation, evaluation mode, nats; infinite when the run diverged */
    WF_Q_ACCURACY,    /* percent; 0 when the run diverged */
    WF_Q_TRAIN_MODE,  /* validation loss with the training form of every part */
    WF_Q_GAP,         /* |train_mode - loss| */
    WF_Q_VARIANCE,    /* of the stream before the final norm: over channels, mean over tokens */
    WF_Q_ENTROPY,     /* of attention, nats: mean over heads and queries; of the layer where it is least */
    WF_Q_ENTROPY_MAX, /* the same of the layer where it is largest */
    WF_Q_GRAD_MAX,    /* largest global gradient norm of the run */
    WF_Q_PARAMETERS,
    WF_Q_MFLOPS,        /* forward, a sample */
    WF_Q_FOLDED_LOSS,   /* loss after the norms were folded into the linears */
    WF_Q_FOLDED_CHANGE, /* largest difference of the folded model's outputs */
    WF_Q_MS,            /* milliseconds of one forward, one thread: median of interleaved calls */
    WF_Q_FOLDED_MS,     /* the same after folding */
    WF_Q_ERROR_RATIO,   /* experiments: how much an error shrinks when the step is halved */
    WF_Q_COUNT,
} wf_quantity_id;

typedef struct wf_quantity {
    const char *name, *unit, *help;
    int digits; /* after the point */
    bool once;  /* the same whatever the seed */
} wf_quantity;
extern const wf_quantity wf_quantities[WF_Q_COUNT];

/* ---- a claim ---- */
typedef struct wf_claim_design {
    const char *name;
    wf_value *recipe; /* base with what the design changes: task, model, train; or `part`, or `experiment` */
} wf_claim_design;

typedef struct wf_criterion {
    const char *says, *holds; /* in words, and the expression */
    wf_expr *expr;
} wf_criterion;

typedef struct wf_claim_timing { /* `time`: how the quantities ms and folded_ms are measured */
    int64_t batch, length, calls;
} wf_claim_timing;

typedef struct wf_claim {
    wf_value *file;
    const char *name; /* "02-flow": the file's name without .yaml */
    const char *title, *sheet, *point, *says, *paper, *note;
    int64_t seeds;
    double seconds; /* of one run on one core, for estimates */
    int n_design, n_criterion;
    wf_claim_design *design;
    wf_criterion *criterion;
    wf_claim_timing timing;
    bool want[WF_Q_COUNT]; /* asked for by a criterion or by `show` */
    void *opt;
} wf_claim;

extern const wf_option wf_claim_options[];
/* Takes over `v`; name: see above. NULL + message with file, line and the fix. */
wf_claim *wf_claim_read(wf_value *v, const char *name);
void wf_claim_free(wf_claim *c);
bool wf_claim_trains(const wf_claim_design *d);

/* The recipes in the program itself, by name. */
typedef struct wf_claim_text {
    const char *name, *text, *end;
} wf_claim_text;
extern const wf_claim_text wf_claim_texts[];
extern const int wf_n_claim_texts;

/* ---- measuring one cell; in the process that does it ---- */
typedef struct wf_cell_result {
    double value[WF_Q_COUNT]; /* NaN: not measured */
    double seconds;           /* of processor time */
    char diverged[512];       /* why and when, "" if it did not */
} wf_cell_result;
typedef bool (*wf_cell_step)(void *ctx, int64_t done, int64_t total); /* false: stop */
wf_status wf_cell_run(const wf_claim *c, int design, int seed, wf_cell_step step, void *ctx, wf_cell_result *out);
/* One repetition of the timing of all designs, interleaved: ms and folded_ms of out[design]. */
wf_status wf_cell_time(const wf_claim *c, int seed, wf_cell_result *out);
/* experiment.c: designs that are computations of their own. */
wf_status wf_experiment_check(const wf_value *spec);
wf_status wf_experiment_run(const wf_value *spec, double *value);

/* ---- many claims ---- */
typedef enum { WF_CELL_WAITING, WF_CELL_RUNNING, WF_CELL_DONE, WF_CELL_FAILED } wf_cell_state;
typedef struct wf_cell {
    wf_cell_state state;
    uint64_t key;      /* of the training part; 0: the cell is only timed */
    uint64_t time_key; /* of the timing; 0: not timed */
    bool trained, timed;
    wf_cell_result result;
    char *failure; /* message, when FAILED */
} wf_cell;

typedef struct wf_lab_claim {
    wf_claim *claim;
    wf_cell *cell; /* design-major */
} wf_lab_claim;

typedef struct wf_lab {
    char *folder, *machine;
    int n, cap;
    wf_lab_claim *item;
} wf_lab;

wf_lab *wf_lab_open(const char *folder, const char *machine);
void wf_lab_close(wf_lab *l);
wf_status wf_lab_add(wf_lab *l, wf_claim *c); /* takes over c */
/* Earlier results of FOLDER/results.jsonl; fresh: those of the present claims are dropped from the file first. */
wf_status wf_lab_load(wf_lab *l, bool fresh);
typedef struct wf_lab_hooks {
    void *ctx;
    void (*progress)(void *ctx, double done, double total, const char *note); /* in estimated seconds on one core */
    void (*finished)(void *ctx, const wf_lab_claim *c);                       /* once a claim, in the order of wf_lab_add */
} wf_lab_hooks;
/* Runs what is missing with `workers` processes. WF_EINTERRUPTED: everything finished is in the file. Failed cells are no error
 * here: see wf_claim_verdict. */
wf_status wf_lab_go(wf_lab *l, int workers, const wf_lab_hooks *hooks);
bool wf_claim_finished(const wf_lab_claim *c);
int wf_claim_missing(const wf_lab_claim *c, double *seconds); /* cells without results, and what they will take on one core */

/* ---- verdicts and pages ---- */
typedef enum { WF_HOLDS, WF_DOES_NOT_HOLD, WF_NOT_RUN } wf_verdict_kind;
wf_verdict_kind wf_claim_verdict(const wf_lab_claim *c);
wf_verdict_kind wf_criterion_verdict(const wf_lab_claim *c, int criterion, int seed); /* seed -1: by means over seeds */
double wf_claim_value(const wf_lab_claim *c, int design, wf_quantity_id q, int seed); /* seed -1: mean; NaN: unknown */
double wf_claim_sd(const wf_lab_claim *c, int design, wf_quantity_id q);
char *wf_claim_text_of(const wf_lab_claim *c);           /* for a terminal; wf_free */
char *wf_lab_summary(const wf_lab *l);                   /* one line; wf_free */
char *wf_lab_page(const wf_lab *l, const char *command); /* Markdown; wf_free */
char *wf_lab_json(const wf_lab *l);                      /* wf_free */

#endif
