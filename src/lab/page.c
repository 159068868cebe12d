/* page.c: what a reader sees: a claim on the terminal, all claims as a Markdown page or JSON. */
#include "lab/inside.h"

#include <math.h>
#include <string.h>

static const char *const verdict_text[] = {"holds", "does not hold", "not run"};

/* ---- numbers ---- */
static const char *number(double x, int digits, char buf[32]) {
    if (isnan(x))
        snprintf(buf, 32, "-");
    else if (isinf(x))
        snprintf(buf, 32, "diverged");
    else if (digits > 0 && x != 0 && fabs(x) < pow(10, -digits))
        snprintf(buf, 32, "%.2g", x);
    else if (fabs(x) >= 1e9)
        snprintf(buf, 32, "%.4g", x);
    else
        snprintf(buf, 32, "%.*f", fabs(x) >= 1e4 && digits > 2 ? 2 : digits, x);
    return buf;
}

static int criterion_digits(double x) {
    return fabs(x) >= 1000 ? 1 : fabs(x) >= 100 ? 2 : 4;
}

/* ---- one claim's figures as rows ---- */
/* Whether a quantity is to be shown: asked for, and known for a design. */
static bool shown(const wf_lab_claim *c, int q) {
    if (!c->claim->want[q]) return false;
    for (int d = 0; d < c->claim->n_design; d++)
        for (int s = 0; s < (int)c->claim->seeds; s++)
            if (!isnan(wf_claim_value(c, d, (wf_quantity_id)q, s))) return true;
    return false;
}

static void put_figures(wf_text *t, const wf_lab_claim *c, bool markdown) {
    int n = (int)c->claim->seeds;
    char buf[32];
    wf_text_add(t, markdown ? "| quantity | design |" : "  %-14s %-24s", "quantity", "design");
    for (int s = 0; s < n; s++) wf_text_add(t, markdown ? " seed %d |" : "   seed %-4d", s + 1);
    wf_text_add(t, markdown ? " mean | sd |\n|---|---|" : " %11s %9s\n", "mean", "sd");
    for (int s = 0; markdown && s < n + 2; s++) wf_text_add(t, "---:|");
    if (markdown) wf_text_add(t, "\n");
    for (int q = 0; q < WF_Q_COUNT; q++) {
        const wf_quantity *k = &wf_quantities[q];
        for (int d = 0; shown(c, q) && d < c->claim->n_design; d++) {
            double mean = wf_claim_value(c, d, (wf_quantity_id)q, -1), sd = wf_claim_sd(c, d, (wf_quantity_id)q);
            bool any = false;
            for (int s = 0; s < n; s++) any |= !isnan(wf_claim_value(c, d, (wf_quantity_id)q, s));
            if (!any) continue;
            wf_text_add(t, markdown ? "| %s | %s |" : "  %-14s %-24s", k->name, c->claim->design[d].name);
            for (int s = 0; s < n; s++)
                wf_text_add(t, markdown ? " %s |" : " %11s",
                            k->once && s > 0 ? "" : number(wf_claim_value(c, d, (wf_quantity_id)q, s), k->digits, buf));
            wf_text_add(t, markdown ? " %s |" : " %11s", number(mean, k->digits, buf));
            wf_text_add(t, markdown ? " %s |\n" : " %9s\n", k->once || isnan(sd) ? "" : number(sd, k->digits, buf));
        }
    }
}

/* "1.5512 <= 1.5590" */
static void put_sides(wf_text *t, const wf_lab_claim *c, int k, int seed) {
    double side[8];
    int n = 0;
    char buf[32];
    wf_criterion_sides(c, k, seed, side, 8, &n);
    for (int i = 0; i < n; i++) {
        wf_text_add(t, "%s%s", i ? " " : "", number(side[i], criterion_digits(side[i]), buf));
        if (i + 1 < n) wf_text_add(t, " %s", wf_expr_sign(c->claim->criterion[k].expr, i));
    }
}

static int seeds_that_hold(const wf_lab_claim *c, int k) {
    int n = 0;
    for (int s = 0; s < (int)c->claim->seeds; s++) n += wf_criterion_verdict(c, k, s) == WF_HOLDS;
    return n;
}

static void put_criteria(wf_text *t, const wf_lab_claim *c, bool markdown) {
    int n = (int)c->claim->seeds;
    for (int k = 0; k < c->claim->n_criterion; k++) {
        const wf_criterion *q = &c->claim->criterion[k];
        wf_verdict_kind v = wf_criterion_verdict(c, k, -1);
        wf_text_add(t, markdown ? "%s- **%s**: %s: `%s`" : "%s  %s: %s\n      %s", markdown || k ? "" : "\n", verdict_text[v],
                    q->says, q->holds);
        if (v != WF_NOT_RUN) {
            wf_text_add(t, markdown ? ": " : "   that is   ");
            put_sides(t, c, k, -1);
            if (n > 1) wf_text_add(t, "; true of %d of %d seeds", seeds_that_hold(c, k), n);
        }
        wf_text_add(t, "\n");
    }
}

static void put_failures(wf_text *t, const wf_lab_claim *c, bool markdown) {
    for (int d = 0; d < c->claim->n_design; d++)
        for (int s = 0; s < (int)c->claim->seeds; s++) {
            const wf_cell *cell = wf_lab_cell(c, d, s);
            const char *name = c->claim->design[d].name, *why = cell->failure ? cell->failure : cell->result.diverged;
            if (!*why) continue;
            wf_text_add(t, "%s%s, seed %d: %s: %s\n", markdown ? "- " : "  ", name, s + 1,
                        cell->failure ? "failed" : "diverged", why);
        }
}

/* `text` in lines of at most 110 columns, each behind `indent` spaces. */
static void put_wrapped(wf_text *t, const char *text, int indent) {
    int column = 0;
    for (const char *at = text; *at;) {
        int n = (int)strcspn(at, " \n");
        if (column > 0 && column + 1 + n > 110) {
            wf_text_add(t, "\n");
            column = 0;
        }
        if (column == 0)
            wf_text_add(t, "%*s", indent, "");
        else
            wf_text_add(t, " ");
        wf_text_put(t, at, (size_t)n);
        column += n + (column ? 1 : indent);
        at += n;
        while (*at == ' ' || *at == '\n') at++;
    }
    wf_text_add(t, "\n");
}

static char *finish(wf_text *t) {
    if (!t->failed && t->s) return t->s;
    wf_text_free(t);
    return NULL;
}

static const char *dot_point(const wf_claim *c) {
    return *c->point ? ", point " : "";
}

char *wf_claim_text_of(const wf_lab_claim *c) {
    wf_text t = {0};
    const wf_claim *k = c->claim;
    wf_text_add(&t, "%s: %s\n  system %s%s%s\n", k->name, k->title, k->sheet, dot_point(k), k->point);
    put_wrapped(&t, k->says, 2);
    if (*k->note) put_wrapped(&t, k->note, 2);
    wf_text_add(&t, "\n");
    put_figures(&t, c, false);
    put_criteria(&t, c, false);
    put_failures(&t, c, false);
    wf_text_add(&t, "  verdict: %s\n", verdict_text[wf_claim_verdict(c)]);
    return finish(&t);
}

static void count(const wf_lab *l, int n[3], int criteria[3]) {
    memset(n, 0, 3 * sizeof *n);
    memset(criteria, 0, 3 * sizeof *criteria);
    for (int i = 0; i < l->n; i++) {
        n[wf_claim_verdict(&l->item[i])]++;
        for (int k = 0; k < l->item[i].claim->n_criterion; k++) criteria[wf_criterion_verdict(&l->item[i], k, -1)]++;
    }
}

char *wf_lab_summary(const wf_lab *l) {
    int n[3], k[3];
    count(l, n, k);
    wf_text t = {0};
    wf_text_add(&t, "%d of %d claims hold", n[WF_HOLDS], l->n);
    if (n[WF_DOES_NOT_HOLD]) wf_text_add(&t, ", %d do not", n[WF_DOES_NOT_HOLD]);
    if (n[WF_NOT_RUN]) wf_text_add(&t, ", %d not run", n[WF_NOT_RUN]);
    wf_text_add(&t, " (%d of %d criteria hold)", k[WF_HOLDS], k[0] + k[1] + k[2]);
    return finish(&t);
}

/* ---- the page ---- */
static void put_head(wf_text *t, const wf_lab *l, const char *command) {
    char *summary = wf_lab_summary(l);
    wf_text_add(
        t,
        "# Reproductions\n\n"
        "What the papers claim, tried small. Each claim is a recipe under `recipes/reproduce/`: a base, the designs laid\n"
        "over it, seeds, and criteria that were fixed before the runs. Criteria are judged by means over seeds; how many\n"
        "seeds agree by themselves is said beside. A claim that does not hold here is a result: it says that the effect is\n"
        "not there at this size, on this data and budget; it does not refute the paper's own figures.\n\n"
        "**%s.**\n\n"
        "Written by `%s` on %s. Training and measuring use one thread a run.\n\n"
        "| claim | system | what | verdict |\n|---|---|---|---|\n",
        summary ? summary : "", command, l->machine);
    wf_free(summary);
    for (int i = 0; i < l->n; i++) {
        const wf_claim *c = l->item[i].claim;
        wf_text_add(t, "| [%s](#%s) | %s%s%s | %s | %s |\n", c->name, c->name, c->sheet, dot_point(c), c->point, c->title,
                    verdict_text[wf_claim_verdict(&l->item[i])]);
    }
}

static void put_legend(wf_text *t, const wf_lab *l) {
    wf_text_add(t, "\nQuantities:");
    int n = 0;
    for (int q = 0; q < WF_Q_COUNT; q++) {
        bool any = false;
        for (int i = 0; i < l->n; i++) any |= l->item[i].claim->want[q];
        if (!any) continue;
        const wf_quantity *k = &wf_quantities[q];
        wf_text_add(t, "%s `%s`%s%s%s %s", n++ ? ";" : "", k->name, *k->unit ? " (" : "", k->unit, *k->unit ? ")" : "",
                    k->help);
    }
    wf_text_add(t, ".\n");
}

char *wf_lab_page(const wf_lab *l, const char *command) {
    wf_text t = {0};
    put_head(&t, l, command);
    put_legend(&t, l);
    for (int i = 0; i < l->n; i++) {
        const wf_lab_claim *c = &l->item[i];
        const wf_claim *k = c->claim;
        double seconds = 0;
        for (int j = 0; j < k->n_design * (int)k->seeds; j++) seconds += c->cell[j].result.seconds;
        wf_text_add(&t, "\n## %s\n\n%s (system %s%s%s%s%s)\n\n%s\n\n", k->name, k->title, k->sheet, dot_point(k), k->point,
                    *k->paper ? "; " : "", k->paper, k->says);
        put_figures(&t, c, true);
        wf_text_add(&t, "\n");
        put_criteria(&t, c, true);
        put_failures(&t, c, true);
        wf_text_add(&t, "\nVerdict: **%s**. ", verdict_text[wf_claim_verdict(c)]);
        if (*k->note) wf_text_add(&t, "%s ", k->note);
        wf_text_add(&t, "Again: `weft reproduce %s` (%d runs, %.0f s of one core; recipe `recipes/reproduce/%s.yaml`).\n",
                    k->name, k->n_design * (int)k->seeds, seconds, k->name);
    }
    return finish(&t);
}

/* ---- JSON ---- */
static void put_json_values(wf_text *t, const wf_lab_claim *c, int d) {
    int n = 0;
    for (int q = 0; q < WF_Q_COUNT; q++) {
        double mean = wf_claim_value(c, d, (wf_quantity_id)q, -1);
        if (!c->claim->want[q] || isnan(mean)) continue;
        wf_text_add(t, "%s\"%s\": [", n++ ? ", " : "", wf_quantities[q].name);
        for (int s = 0; s < (int)c->claim->seeds; s++) {
            double x = wf_claim_value(c, d, (wf_quantity_id)q, s);
            wf_text_add(t, isfinite(x) ? "%s%.9g" : "%snull", s ? ", " : "", x);
        }
        wf_text_add(t, "]");
    }
}

char *wf_lab_json(const wf_lab *l) {
    wf_text t = {0};
    wf_text_add(&t, "{\"format\": \"weft-reproductions-1\", \"machine\": ");
    wf_text_json(&t, l->machine);
    wf_text_add(&t, ", \"claims\": [\n");
    for (int i = 0; i < l->n; i++) {
        const wf_lab_claim *c = &l->item[i];
        wf_text_add(&t, " {\"name\": ");
        wf_text_json(&t, c->claim->name);
        wf_text_add(&t, ", \"verdict\": \"%s\", \"criteria\": [", verdict_text[wf_claim_verdict(c)]);
        for (int k = 0; k < c->claim->n_criterion; k++) {
            wf_text_add(&t, "%s{\"holds\": ", k ? ", " : "");
            wf_text_json(&t, c->claim->criterion[k].holds);
            wf_text_add(&t, ", \"verdict\": \"%s\"}", verdict_text[wf_criterion_verdict(c, k, -1)]);
        }
        wf_text_add(&t, "], \"designs\": {");
        for (int d = 0; d < c->claim->n_design; d++) {
            wf_text_add(&t, "%s\"%s\": {", d ? ", " : "", c->claim->design[d].name);
            put_json_values(&t, c, d);
            wf_text_add(&t, "}");
        }
        wf_text_add(&t, "}}%s\n", i + 1 < l->n ? "," : "");
    }
    wf_text_add(&t, "]}\n");
    return finish(&t);
}
