/* claim.c: reads a claim's recipe: base, designs laid over it, seeds, criteria. */
#include "lab/lab.h"

#include <string.h>

/* clang-format off */
const wf_quantity wf_quantities[WF_Q_COUNT] = {
    [WF_Q_LOSS]          = {"loss", "nats", "validation loss in evaluation mode; infinite when the run diverged", 4, false},
    [WF_Q_ACCURACY]      = {"accuracy", "%", "validation accuracy in percent; 0 when the run diverged", 2, false},
    [WF_Q_TRAIN_MODE]    = {"train_mode", "nats", "validation loss with the training form of every part (batch statistics)", 4, false},
    [WF_Q_GAP]           = {"gap", "nats", "|train_mode - loss|", 5, false},
    [WF_Q_VARIANCE]      = {"variance", "", "variance of the stream before the final norm: over channels, mean over tokens", 2, false},
    [WF_Q_ENTROPY]       = {"entropy_min", "nats", "attention entropy, mean over heads and queries, of the layer where it is least", 3, false},
    [WF_Q_ENTROPY_MAX]   = {"entropy_max", "nats", "the same of the layer where it is largest", 3, false},
    [WF_Q_GRAD_MAX]      = {"grad_max", "", "largest global gradient norm of the run", 2, false},
    [WF_Q_PARAMETERS]    = {"parameters", "", "trainable parameters", 0, true},
    [WF_Q_MFLOPS]        = {"mflops", "MFLOP", "FLOPs of a forward pass of one sample, in millions", 3, true},
    [WF_Q_FOLDED_LOSS]   = {"folded_loss", "nats", "validation loss after the norms were folded into the linears", 4, false},
    [WF_Q_FOLDED_CHANGE] = {"folded_change", "", "largest difference that folding makes to outputs, over the largest output", 7, false},
    [WF_Q_MS]            = {"ms", "ms", "one forward pass with one thread: median of calls that take turns with the other designs'", 4, false},
    [WF_Q_FOLDED_MS]     = {"folded_ms", "ms", "the same after the norms were folded into the linears", 4, false},
    [WF_Q_ERROR_RATIO]   = {"error_ratio", "", "error at the larger step divided by the error at half of it", 3, true},
};
/* clang-format on */

typedef struct claim_options {
    const char *title, *sheet, *point, *claim, *paper, *note;
    int64_t seeds;
    double seconds;
    const wf_value *task, *model, *train, *designs, *pass, *show, *time;
} claim_options;

#define AT(field) offsetof(claim_options, field)
const wf_option wf_claim_options[] = {
    {"title", WF_OPT_TEXT, AT(title), NULL, 0, 0, NULL, "a line: what is claimed"},
    {"sheet", WF_OPT_TEXT, AT(sheet), NULL, 0, 0, NULL,
     "number of the system: 02; `weft reproduce 02` runs all of that number"},
    {"point", WF_OPT_TEXT, AT(point), "", 0, 0, NULL, "which of the system's criteria this is"},
    {"claim", WF_OPT_TEXT, AT(claim), NULL, 0, 0, NULL, "the claim in full"},
    {"paper", WF_OPT_TEXT, AT(paper), "", 0, 0, NULL, "whose claim it is"},
    {"note", WF_OPT_TEXT, AT(note), "", 0, 0, NULL, "what a reader must know to weigh the figures"},
    {"seeds", WF_OPT_INT, AT(seeds), "3", 1, 100, NULL, "seeds 1 .. n of weights and of the order of samples"},
    {"seconds", WF_OPT_REAL, AT(seconds), "10", 0.001, 1e6, NULL, "of one run on one core: for estimates of the time only"},
    {"task", WF_OPT_VALUE, AT(task), "", 0, 0, NULL, "as in any recipe"},
    {"model", WF_OPT_VALUE, AT(model), "", 0, 0, NULL, "as in any recipe: the base of all designs"},
    {"train", WF_OPT_VALUE, AT(train), "", 0, 0, NULL, "as in any recipe; absent: nothing is trained, models are only timed"},
    {"designs", WF_OPT_VALUE, AT(designs), "", 0, 0, NULL,
     "map from a name (letters, digits, _) to what is laid over the base: {model: .., train: ..}; or {part: {slot: norm, spec: "
     "rmsnorm, width: 256, tokens: 4096}}, one part that is timed; or {experiment: {name: ..}}, a computation of its own"},
    {"pass", WF_OPT_VALUE, AT(pass), "", 0, 0, NULL,
     "list of criteria {says: words, holds: expression}, as in holds: a.loss <= 1.01 * b.loss; names are design.quantity, "
     "means "
     "over seeds; + - * / min max abs; the claim holds when all do"},
    {"show", WF_OPT_VALUE, AT(show), "", 0, 0, NULL, "list of quantities to show beside those of the criteria"},
    {"time", WF_OPT_VALUE, AT(time), "", 0, 0, NULL,
     "{batch: 1, length: 0, calls: 50}: what the quantities ms and folded_ms time; length 0: the task's"},
    WF_OPT_END};

static const wf_option timing_options[] = {
    {"batch", WF_OPT_INT, offsetof(wf_claim_timing, batch), "1", 1, 4096, NULL, "samples of a forward pass"},
    {"length", WF_OPT_INT, offsetof(wf_claim_timing, length), "0", 0, 1 << 20, NULL, "tokens; 0: the task's length"},
    {"calls", WF_OPT_INT, offsetof(wf_claim_timing, calls), "50", 1, 100000, NULL, "calls of every design a repetition"},
    WF_OPT_END};

static int quantity_of(const char *name) {
    for (int q = 0; q < WF_Q_COUNT; q++)
        if (!strcmp(wf_quantities[q].name, name)) return q;
    return -1;
}

static wf_status no_quantity(const wf_value *where, const char *name) {
    const char *names[WF_Q_COUNT];
    wf_text all = {0};
    for (int q = 0; q < WF_Q_COUNT; q++) {
        names[q] = wf_quantities[q].name;
        wf_text_add(&all, "%s%s", q ? ", " : "", names[q]);
    }
    const char *near = wf_nearest(name, names, WF_Q_COUNT);
    wf_status s = wf_value_fail(where, WF_EINVAL, "there is no quantity '%s'%s%s%s (quantities: %s)", name,
                                near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "", all.s ? all.s : "");
    wf_text_free(&all);
    return s;
}

static int design_of(const wf_claim *c, const char *name) {
    for (int d = 0; d < c->n_design; d++)
        if (!strcmp(c->design[d].name, name)) return d;
    return -1;
}

/* ---- designs ---- */
static bool is_name(const char *s) {
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
    return s[0] && !(s[0] >= '0' && s[0] <= '9') && strlen(s) < 64 && strspn(s, good) == strlen(s);
}

static wf_status check_design(const char *name, const wf_value *v) {
    static const char *const known[] = {"model", "train", "part", "experiment"};
    if (!is_name(name))
        return wf_value_fail(v, WF_EINVAL, "designs: '%s': a name is letters, digits and _, the first no digit", name);
    if (v->kind != WF_V_MAP && v->kind != WF_V_NULL)
        return wf_value_fail(v, WF_EINVAL, "designs.%s: a map of what differs from the base, like {model: {norm: rmsnorm}}",
                             name);
    for (int i = 0; v->kind == WF_V_MAP && i < v->n; i++) {
        bool found = false;
        for (int k = 0; k < 4; k++) found |= !strcmp(v->key[i], known[k]);
        if (!found)
            return wf_value_fail(v->item[i], WF_EINVAL, "designs.%s: '%s' is not model, train, part or experiment", name,
                                 v->key[i]);
        if (strcmp(v->key[i], "part") && strcmp(v->key[i], "experiment")) continue;
        if (v->n > 1)
            return wf_value_fail(v, WF_EINVAL, "designs.%s: '%s' stands alone, there is nothing to train", name, v->key[i]);
        if (!strcmp(v->key[i], "experiment")) WF_TRY(wf_experiment_check(v->item[i]));
    }
    return WF_OK;
}

static wf_value *base_of(const claim_options *o) {
    wf_value *base = wf_value_map();
    const struct {
        const char *key;
        const wf_value *v;
    } part[] = {{"task", o->task}, {"model", o->model}, {"train", o->train}};
    for (size_t i = 0; base && i < 3; i++) {
        if (!part[i].v) continue;
        wf_value *copy = wf_value_copy(part[i].v);
        if (copy && wf_value_set(base, part[i].key, copy) == WF_OK) continue;
        wf_value_free(base);
        return NULL;
    }
    return base;
}

static wf_status read_designs(wf_claim *c, const claim_options *o) {
    const wf_value *v = o->designs;
    if (!v || v->kind != WF_V_MAP || v->n < 1)
        return wf_value_fail(v ? v : c->file, WF_EINVAL,
                             "a claim needs 'designs': a map from a name to what differs from the base");
    wf_value *base = base_of(o);
    c->design = wf_alloc_array((size_t)v->n, sizeof *c->design);
    wf_status s = base && c->design ? WF_OK : WF_ENOMEM;
    for (int i = 0; s == WF_OK && i < v->n; i++) {
        const wf_value *over = v->item[i];
        if ((s = check_design(v->key[i], over)) != WF_OK) break;
        bool own = wf_value_get(over, "part") || wf_value_get(over, "experiment");
        wf_claim_design *d = &c->design[c->n_design++];
        d->name = v->key[i];
        d->recipe = own ? wf_value_copy(over) : wf_value_merge(base, over->kind == WF_V_MAP ? over : NULL);
        if (!d->recipe) s = WF_ENOMEM;
        if (s == WF_OK && !own && (!wf_value_get(d->recipe, "model") || !wf_value_get(d->recipe, "task")))
            s = wf_value_fail(over, WF_EINVAL, "designs.%s: neither the base nor the design has '%s'", d->name,
                              wf_value_get(d->recipe, "model") ? "task" : "model");
    }
    wf_value_free(base);
    return s;
}

bool wf_claim_trains(const wf_claim_design *d) {
    return wf_value_get(d->recipe, "train") != NULL;
}

/* ---- criteria ---- */
typedef struct checking {
    wf_claim *c;
    const wf_value *where;
} checking;

static wf_status can_measure(const wf_claim *c, const wf_value *where, int d, int q) {
    const wf_value *r = c->design[d].recipe;
    bool train = wf_claim_trains(&c->design[d]), part = wf_value_get(r, "part"), experiment = wf_value_get(r, "experiment");
    bool ok = q == WF_Q_ERROR_RATIO ? experiment
              : q == WF_Q_MS        ? !experiment
              : q == WF_Q_FOLDED_MS ? !experiment && !part
                                    : train;
    if (q == WF_Q_PARAMETERS || q == WF_Q_MFLOPS) ok = !experiment && !part;
    if (ok) return WF_OK;
    return wf_value_fail(where, WF_EINVAL, "%s.%s cannot be measured: the design %s", c->design[d].name, wf_quantities[q].name,
                         experiment ? "is an experiment"
                         : part     ? "is a single part"
                                    : "is not trained");
}

static wf_status check_name(void *ctx, const char *design, const char *quantity) {
    checking *k = ctx;
    int d = design_of(k->c, design), q = quantity_of(quantity);
    if (d < 0) {
        const char *names[64], *near;
        int n = 0;
        for (; n < k->c->n_design && n < 64; n++) names[n] = k->c->design[n].name;
        near = wf_nearest(design, names, n);
        return wf_value_fail(k->where, WF_EINVAL, "there is no design '%s'%s%s%s", design, near ? "; did you mean '" : "",
                             near ? near : "", near ? "'?" : "");
    }
    if (q < 0) return no_quantity(k->where, quantity);
    k->c->want[q] = true;
    return can_measure(k->c, k->where, d, q);
}

static wf_status read_criterion(wf_claim *c, const wf_value *v) {
    static const wf_option table[] = {
        {"says", WF_OPT_TEXT, offsetof(wf_criterion, says), NULL, 0, 0, NULL, "the criterion in words"},
        {"holds", WF_OPT_TEXT, offsetof(wf_criterion, holds), NULL, 0, 0, NULL, "the expression"},
        WF_OPT_END};
    wf_criterion *k = &c->criterion[c->n_criterion++];
    WF_TRY(wf_options_read(table, v, "pass", NULL, k, sizeof *k));
    const wf_value *holds = wf_value_get(v, "holds");
    checking check = {c, holds};
    k->expr = wf_expr_parse(k->holds, check_name, &check);
    if (k->expr) return WF_OK;
    return strstr(wf_message(), "column") ? wf_value_fail(holds, WF_EINVAL, "%s", wf_message()) : WF_EINVAL;
}

static wf_status read_criteria(wf_claim *c, const claim_options *o) {
    if (!o->pass || o->pass->kind != WF_V_LIST || o->pass->n < 1)
        return wf_value_fail(o->pass ? o->pass : c->file, WF_EINVAL,
                             "a claim needs 'pass': a list of criteria {says: words, holds: expression}");
    if (!(c->criterion = wf_alloc_array((size_t)o->pass->n, sizeof *c->criterion))) return WF_ENOMEM;
    for (int i = 0; i < o->pass->n; i++) WF_TRY(read_criterion(c, o->pass->item[i]));
    if (!o->show) return WF_OK;
    if (o->show->kind != WF_V_LIST) return wf_value_fail(o->show, WF_EINVAL, "'show' is a list of quantities, as [loss, gap]");
    for (int i = 0; i < o->show->n; i++) {
        const wf_value *v = o->show->item[i];
        int q = v->kind == WF_V_TEXT ? quantity_of(v->text) : -1;
        if (q < 0) return no_quantity(v, v->kind == WF_V_TEXT ? v->text : "(no text)");
        c->want[q] = true;
    }
    return WF_OK;
}

/* ---- the whole ---- */
static wf_status fill(wf_claim *c) {
    claim_options *o = c->opt = wf_alloc(sizeof *o);
    if (!o) return WF_ENOMEM;
    WF_TRY(wf_options_read(wf_claim_options, c->file, "reproduce", NULL, o, sizeof *o));
    c->title = o->title;
    c->sheet = o->sheet;
    c->point = o->point ? o->point : "";
    c->says = o->claim;
    c->paper = o->paper ? o->paper : "";
    c->note = o->note ? o->note : "";
    c->seeds = o->seeds;
    c->seconds = o->seconds;
    WF_TRY(wf_options_read(timing_options, o->time, "time", NULL, &c->timing, sizeof c->timing));
    WF_TRY(read_designs(c, o));
    return read_criteria(c, o);
}

wf_claim *wf_claim_read(wf_value *v, const char *name) {
    wf_claim *c = wf_alloc(sizeof *c);
    if (!c) {
        wf_value_free(v);
        return NULL;
    }
    c->file = v;
    c->name = wf_strdup(name);
    if (c->name && fill(c) == WF_OK) return c;
    wf_claim_free(c);
    return NULL;
}

void wf_claim_free(wf_claim *c) {
    if (!c) return;
    for (int i = 0; i < c->n_design; i++) wf_value_free(c->design[i].recipe);
    for (int i = 0; i < c->n_criterion; i++) wf_expr_free(c->criterion[i].expr);
    wf_free(c->design);
    wf_free(c->criterion);
    wf_free(c->opt);
    wf_free((char *)(uintptr_t)c->name);
    wf_value_free(c->file);
    wf_free(c);
}
