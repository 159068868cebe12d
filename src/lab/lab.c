/* lab.c: a set of claims with their cells, and what the figures say of them. */
#include "lab/inside.h"

#include <math.h>
#include <string.h>

wf_lab *wf_lab_open(const char *folder, const char *machine) {
    wf_lab *l = wf_alloc(sizeof *l);
    if (!l) return NULL;
    l->folder = wf_strdup(folder);
    l->machine = wf_strdup(machine ? machine : "");
    if (l->folder && l->machine) return l;
    wf_lab_close(l);
    return NULL;
}

void wf_lab_close(wf_lab *l) {
    if (!l) return;
    for (int i = 0; i < l->n; i++) {
        wf_lab_claim *c = &l->item[i];
        for (int k = 0; c->cell && k < c->claim->n_design * (int)c->claim->seeds; k++) wf_free(c->cell[k].failure);
        wf_free(c->cell);
        wf_claim_free(c->claim);
    }
    wf_free(l->item);
    wf_free(l->folder);
    wf_free(l->machine);
    wf_free(l);
}

wf_status wf_lab_add(wf_lab *l, wf_claim *claim) {
    if (l->n == l->cap) {
        int cap = l->cap ? 2 * l->cap : 16;
        wf_lab_claim *grown = wf_grow(l->item, (size_t)l->cap * sizeof *grown, (size_t)cap * sizeof *grown);
        if (!grown) {
            wf_claim_free(claim);
            return WF_ENOMEM;
        }
        l->item = grown;
        l->cap = cap;
    }
    wf_lab_claim *c = &l->item[l->n++];
    int n = claim->n_design * (int)claim->seeds;
    *c = (wf_lab_claim){claim, wf_alloc_array((size_t)n, sizeof *c->cell)};
    if (!c->cell) return WF_ENOMEM;
    for (int i = 0; i < n; i++)
        for (int q = 0; q < WF_Q_COUNT; q++) c->cell[i].result.value[q] = NAN;
    return wf_store_keys(l, c);
}

/* ---- figures ---- */
static int design_of(const wf_claim *c, const char *name) {
    for (int d = 0; d < c->n_design; d++)
        if (!strcmp(c->design[d].name, name)) return d;
    return -1;
}

static wf_quantity_id quantity_of(const char *name) {
    int q = 0;
    while (q < WF_Q_COUNT && strcmp(wf_quantities[q].name, name)) q++;
    return (wf_quantity_id)q;
}

double wf_claim_value(const wf_lab_claim *c, int design, wf_quantity_id q, int seed) {
    int n = (int)c->claim->seeds;
    if (q >= WF_Q_COUNT || design < 0) return NAN;
    if (seed >= 0) return wf_lab_cell(c, design, seed)->result.value[q];
    double sum = 0;
    for (int i = 0; i < n; i++) sum += wf_lab_cell(c, design, i)->result.value[q];
    return sum / n;
}

double wf_claim_sd(const wf_lab_claim *c, int design, wf_quantity_id q) {
    int n = (int)c->claim->seeds;
    double mean = wf_claim_value(c, design, q, -1), sum = 0;
    for (int i = 0; i < n; i++) {
        double d = wf_lab_cell(c, design, i)->result.value[q] - mean;
        sum += d * d;
    }
    return n > 1 ? sqrt(sum / (n - 1)) : NAN;
}

/* ---- verdicts ---- */
typedef struct asking {
    const wf_lab_claim *c;
    int seed;
} asking;

static double lookup(void *ctx, const char *design, const char *quantity) {
    const asking *a = ctx;
    return wf_claim_value(a->c, design_of(a->c->claim, design), quantity_of(quantity), a->seed);
}

int wf_criterion_sides(const wf_lab_claim *c, int criterion, int seed, double *side, int room, int *n) {
    asking a = {c, seed};
    return wf_expr_holds(c->claim->criterion[criterion].expr, lookup, &a, side, room, n);
}

wf_verdict_kind wf_criterion_verdict(const wf_lab_claim *c, int criterion, int seed) {
    int holds = wf_criterion_sides(c, criterion, seed, NULL, 0, NULL);
    return holds > 0 ? WF_HOLDS : holds == 0 ? WF_DOES_NOT_HOLD : WF_NOT_RUN;
}

wf_verdict_kind wf_claim_verdict(const wf_lab_claim *c) {
    wf_verdict_kind all = WF_HOLDS;
    for (int k = 0; k < c->claim->n_criterion; k++) {
        wf_verdict_kind v = wf_criterion_verdict(c, k, -1);
        if (v == WF_NOT_RUN) return v;
        if (v == WF_DOES_NOT_HOLD) all = v;
    }
    return all;
}

/* ---- what is left to do ---- */
bool wf_claim_finished(const wf_lab_claim *c) {
    for (int i = 0; i < c->claim->n_design * (int)c->claim->seeds; i++)
        if (c->cell[i].state != WF_CELL_DONE && c->cell[i].state != WF_CELL_FAILED) return false;
    return true;
}

int wf_claim_missing(const wf_lab_claim *c, double *seconds) {
    int n = 0;
    *seconds = 0;
    for (int i = 0; i < c->claim->n_design * (int)c->claim->seeds; i++) {
        const wf_cell *cell = &c->cell[i];
        if (cell->state == WF_CELL_DONE) continue;
        n++;
        if (cell->key && !cell->trained) *seconds += c->claim->seconds;
    }
    return n;
}
