/* report.c: the self-contained HTML page of a comparison. Fills the slots {{NAME}} of report.html; the table is written here, so
 * that it can be read, printed and spoken without scripts; curves are drawn from the results by the embedded chart library. */
#include "compare/assets.h"
#include "compare/compare.h"
#include "compare/designs.h"

#include <math.h>
#include <string.h>

static void put_escaped(wf_text *t, const char *s) {
    for (; *s; s++) {
        if (*s == '<')
            wf_text_add(t, "&lt;");
        else if (*s == '>')
            wf_text_add(t, "&gt;");
        else if (*s == '&')
            wf_text_add(t, "&amp;");
        else if (*s == '"')
            wf_text_add(t, "&quot;");
        else
            wf_text_put(t, s, 1);
    }
}

/* A table cell that sorts by `value` and shows a number with an SI prefix. */
static void put_si(wf_text *t, double value, const char *unit) {
    static const char *const prefix[] = {"", "k", "M", "G", "T", "P", "E"};
    if (!isfinite(value)) {
        wf_text_add(t, "<td data-v=\"\">&ndash;</td>");
        return;
    }
    double x = value;
    int u = 0;
    while (fabs(x) >= 999.5 && u < 6) x /= 1000, u++;
    wf_text_add(t, "<td data-v=\"%.9g\">%.3g&#8239;%s%s</td>", value, x, prefix[u], unit);
}

static void put_spread(wf_text *t, double mean, double sd, const char *format) {
    if (!isfinite(mean)) {
        wf_text_add(t, "<td data-v=\"\">&ndash;</td>");
        return;
    }
    char m[32], s[32];
    snprintf(m, sizeof m, format, mean);
    snprintf(s, sizeof s, format, sd);
    wf_text_add(t, "<td data-v=\"%.9g\">%s", mean, m);
    if (isfinite(sd)) wf_text_add(t, " <small>&plusmn; %s</small>", s);
    wf_text_add(t, "</td>");
}

static void put_state(wf_text *t, const wf_race *r, int d, const wf_summary *s) {
    if (s->failed == 0) {
        wf_text_add(t, "<td>%s</td>", s->done == r->n_seed ? "done" : "running");
        return;
    }
    wf_text_add(t, "<td class=\"bad\"><details><summary>failed in %d of %d</summary>", s->failed, r->n_seed);
    for (int i = 0; i < r->n_seed; i++) {
        const wf_entry *e = &r->entry[d * r->n_seed + i];
        if (e->failure == NULL) continue;
        wf_text_add(t, "<small>seed %d: ", e->seed + 1);
        put_escaped(t, e->failure);
        wf_text_add(t, "</small><br>");
    }
    wf_text_add(t, "</details></td>");
}

static void put_table(wf_text *t, const wf_race *r) {
    bool classes = r->task->objective == WF_OBJECTIVE_CLASSES, bits = !classes && r->task->bytes_per_token > 0;
    const char *unit = classes ? "sample" : "token";
    wf_text_add(t,
                "<table id=\"table\"><caption>Means over %d seeds, &plusmn; standard deviation. Click a heading to "
                "sort.</caption>\n<thead><tr>",
                r->n_seed);
    wf_text_add(t, "<th scope=\"col\">design</th><th scope=\"col\">validation loss</th>%s<th scope=\"col\">accuracy</th>",
                bits ? "<th scope=\"col\">bits/byte</th>" : "");
    wf_text_add(
        t, "<th scope=\"col\">parameters</th><th scope=\"col\">FLOPs a %s, forward</th><th scope=\"col\">training FLOPs</th>",
        unit);
    wf_text_add(t,
                "<th scope=\"col\">%ss/s in training</th><th scope=\"col\">seconds</th><th scope=\"col\">peak memory</th><th "
                "scope=\"col\">state</th></tr></thead>\n<tbody>\n",
                unit);
    for (int d = 0; d < r->n_design; d++) {
        wf_summary s;
        wf_race_summary(r, d, &s);
        const wf_run_cost *c = &r->design[d].cost;
        wf_text_add(t, "<tr data-design=\"%d\"><th scope=\"row\"><span class=\"key\" data-key=\"%d\"></span> ", d, d);
        put_escaped(t, r->design[d].name);
        wf_text_add(t, "</th>");
        put_spread(t, s.loss_mean, s.loss_sd, "%.4f");
        if (bits) put_spread(t, s.bits_mean, s.bits_sd, "%.4f");
        put_si(t, 100 * s.accuracy_mean, "%");
        put_si(t, (double)c->parameters, "");
        put_si(t, c->forward_flops_per_token, "");
        put_si(t, s.train_flops, "");
        put_si(t, s.tokens_per_second, "");
        put_si(t, s.train_seconds, "s");
        put_si(t, (double)c->peak_bytes, "B");
        put_state(t, r, d, &s);
        wf_text_add(t, "</tr>\n");
    }
    wf_text_add(t, "</tbody></table>\n");
}

static int design_at(const wf_race *r, int a, int b) {
    for (int d = 0; d < r->n_design; d++)
        if (r->design[d].in_grid && r->design[d].at[0] == a && r->design[d].at[1] == b) return d;
    return -1;
}

/* A cell's shade: 0 the lowest loss of the grid, 9 the highest (of those that did not diverge). */
static void put_cell(wf_text *t, const wf_race *r, int d, double low, double high) {
    wf_summary s;
    wf_race_summary(r, d, &s);
    if (s.diverged == r->n_seed || !isfinite(s.loss_mean)) {
        wf_text_add(t, "<td class=\"gone\">%s</td>", s.diverged > 0 ? "diverged" : "&ndash;");
        return;
    }
    double x = high > low ? (s.loss_mean - low) / (high - low) : 0;
    wf_text_add(t, "<td style=\"--shade: %.2f\">%.3f <small>&plusmn; %.3f</small>", fmin(x, 1), s.loss_mean, s.loss_sd);
    if (s.diverged > 0) wf_text_add(t, "<br><small class=\"bad\">%d of %d diverged</small>", s.diverged, r->n_seed);
    wf_text_add(t, "</td>");
}

/* Two axes: the validation losses as a table of their own. */
static void put_grid(wf_text *t, const wf_race *r) {
    if (r->n_axis != 2) return;
    double low = INFINITY, high = -INFINITY;
    for (int d = 0; d < r->n_design; d++) {
        wf_summary s;
        wf_race_summary(r, d, &s);
        if (!r->design[d].in_grid || s.diverged > 0 || !isfinite(s.loss_mean)) continue;
        low = fmin(low, s.loss_mean);
        high = fmax(high, s.loss_mean);
    }
    wf_text_add(t, "<h2>Validation loss by ");
    put_escaped(t, r->axis[0].path);
    wf_text_add(t, " and ");
    put_escaped(t, r->axis[1].path);
    wf_text_add(
        t,
        "</h2>\n<div class=\"scroll\"><table class=\"grid\"><caption>Mean over %d seeds, &plusmn; standard deviation; the "
        "darker, the lower. Diverged: failed, or ended more than %.1f nats above its lowest validation loss.</caption>\n"
        "<thead><tr><td></td>",
        r->n_seed, WF_DIVERGED);
    for (int b = 0; b < r->axis[1].n; b++) {
        wf_text_add(t, "<th scope=\"col\">");
        put_escaped(t, wf_grid_label(r, 1, b));
        wf_text_add(t, "</th>");
    }
    wf_text_add(t, "</tr></thead>\n<tbody>");
    for (int a = 0; a < r->axis[0].n; a++) {
        wf_text_add(t, "<tr><th scope=\"row\">");
        put_escaped(t, wf_grid_label(r, 0, a));
        wf_text_add(t, "</th>");
        for (int b = 0; b < r->axis[1].n; b++) put_cell(t, r, design_at(r, a, b), low, high);
        wf_text_add(t, "</tr>\n");
    }
    wf_text_add(t, "</tbody></table></div>\n");
}

static void put_recipes(wf_text *t, const wf_race *r) {
    for (int d = 0; d < r->n_design; d++) {
        char *yaml = wf_value_yaml(r->design[d].recipe);
        wf_text_add(t, "<details><summary>");
        put_escaped(t, r->design[d].name);
        wf_text_add(t, "</summary>");
        if (r->design[d].solved != NULL) {
            wf_text_add(t, "<p>Made equal in size: ");
            put_escaped(t, r->design[d].solved);
            wf_text_add(t, ".</p>");
        }
        wf_text_add(t, "<pre>");
        put_escaped(t, yaml != NULL ? yaml : "");
        wf_text_add(t, "</pre></details>\n");
        wf_free(yaml);
    }
}

static wf_status put_slot(wf_text *t, const wf_race *r, const char *name, size_t n) {
#define IS(word) (n == strlen(word) && !memcmp(name, word, n))
    char *s = NULL;
    if (IS("QUESTION"))
        put_escaped(t, r->question[0] ? r->question : "Comparison");
    else if (IS("VERDICT"))
        put_escaped(t, s = wf_verdict(r));
    else if (IS("TABLE"))
        put_table(t, r);
    else if (IS("GRID"))
        put_grid(t, r);
    else if (IS("RECIPES"))
        put_recipes(t, r);
    else if (IS("MACHINE"))
        put_escaped(t, r->machine != NULL ? r->machine : "");
    else if (IS("COMMAND"))
        put_escaped(t, r->command != NULL ? r->command : r->path);
    else if (IS("CHART"))
        wf_text_add(t, "%s", wf_asset_chart);
    else if (IS("DATA"))
        wf_text_add(t, "%s", s = wf_results_json(r));
    else
        return wf_fail(WF_EINVAL, "report.html: unknown slot '%.*s'", (int)n, name);
#undef IS
    wf_free(s);
    return WF_OK;
}

wf_status wf_report_write(const wf_race *r, const char *path) {
    wf_text t = {0};
    wf_status s = WF_OK;
    for (const char *p = wf_asset_page; s == WF_OK && *p;) {
        const char *open = strstr(p, "{{"), *close = open != NULL ? strstr(open, "}}") : NULL;
        if (close == NULL) {
            wf_text_add(&t, "%s", p);
            break;
        }
        wf_text_put(&t, p, (size_t)(open - p));
        s = put_slot(&t, r, open + 2, (size_t)(close - open - 2));
        p = close + 2;
    }
    if (s == WF_OK) s = t.failed ? wf_fail(WF_ENOMEM, "no memory for the report") : wf_write_text(path, t.s);
    wf_text_free(&t);
    return s;
}
