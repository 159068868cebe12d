/* inside.h: what the files of the lab room share. Other rooms use lab.h. */
#ifndef WF_LAB_INSIDE_H
#define WF_LAB_INSIDE_H

#include "lab/lab.h"

/* ---- store.c: results as lines of JSON ---- */
/* Sets the keys of a claim's cells. */
wf_status wf_store_keys(const wf_lab *l, wf_lab_claim *c);
/* One line, without its end; `timing`: the result holds times. wf_free. */
char *wf_store_line(const wf_lab *l, const wf_lab_claim *c, int design, int seed, bool timing, const wf_cell_result *r);
/* Give a line's result to every cell with its key. False: the line is no result (a killed writer may leave half a one). */
bool wf_store_take(wf_lab *l, const char *line, size_t n);
wf_status wf_store_append(const wf_lab *l, const char *line, size_t n);

/* As wf_criterion_verdict with the values between the comparison signs: 1 holds, 0 does not, -1 unknown. */
int wf_criterion_sides(const wf_lab_claim *c, int criterion, int seed, double *side, int room, int *n);

static inline wf_cell *wf_lab_cell(const wf_lab_claim *c, int design, int seed) { /* seed from 0 */
    return &c->cell[design * (int)c->claim->seeds + seed];
}

#endif
