/* results.c: results.json, written after every save and read back to continue a comparison. */
#include "compare/compare.h"
#include "compare/designs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void put_string(wf_text *t, const char *s) {
    wf_text_add(t, "\"");
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            wf_text_add(t, "\\%c", c);
        else if (c == '<')
            wf_text_add(t, "\\u003c"); /* so that the text can stand inside a <script> element */
        else if (c < 32)
            wf_text_add(t, "\\u%04x", c);
        else
            wf_text_put(t, s, 1);
    }
    wf_text_add(t, "\"");
}

static void put_number(wf_text *t, double x) {
    if (isfinite(x))
        wf_text_add(t, "%.17g", x); /* reads back as the same number */
    else
        wf_text_add(t, "null"); /* JSON has no NaN */
}

static void put_field(wf_text *t, const char *name, double x) {
    wf_text_add(t, "\"%s\": ", name);
    put_number(t, x);
}

static void put_curve(wf_text *t, const wf_entry *e) {
    wf_text_add(t, "\"curve\": [");
    for (int i = 0; i < e->n_curve; i++) {
        const wf_curve_point *p = &e->curve[i];
        wf_text_add(t, "%s[%lld, ", i > 0 ? ", " : "", (long long)p->step);
        put_number(t, p->loss);
        wf_text_add(t, ", %.17g, %.17g]", p->seconds, p->flops);
    }
    wf_text_add(t, "],\n     \"valid\": [");
    for (int i = 0; i < e->n_valid; i++) {
        const wf_valid_point *p = &e->valid[i];
        wf_text_add(t, "%s{\"step\": %lld, ", i > 0 ? ", " : "", (long long)p->step);
        put_field(t, "seconds", p->seconds);
        wf_text_add(t, ", ");
        put_field(t, "flops", p->flops);
        wf_text_add(t, ", ");
        put_field(t, "loss", p->metrics.loss);
        wf_text_add(t, ", ");
        put_field(t, "accuracy", p->metrics.accuracy);
        wf_text_add(t, ", ");
        put_field(t, "bits_per_byte", p->metrics.bits_per_byte);
        wf_text_add(t, ", \"scored\": %lld}", (long long)p->metrics.scored);
    }
    wf_text_add(t, "]");
}

static void put_entry(wf_text *t, const wf_entry *e) {
    static const char *const states[] = {"ready", "running", "done", "failed"};
    wf_text_add(t, "    {\"seed\": %d, \"state\": \"%s\", ", e->seed + 1, states[e->state]);
    if (e->failure != NULL) {
        wf_text_add(t, "\"failure\": ");
        put_string(t, e->failure);
        wf_text_add(t, ", ");
    }
    wf_text_add(t, "\"steps\": %lld, \"tokens_per_step\": %lld, ", (long long)e->steps_done, (long long)e->tokens_per_step);
    put_field(t, "step_seconds", wf_entry_step_seconds(e));
    wf_text_add(t, ", ");
    put_field(t, "seconds", e->seconds);
    wf_text_add(t, ", ");
    put_field(t, "flops", e->flops);
    wf_text_add(t, ",\n     ");
    put_curve(t, e);
    wf_text_add(t, "}");
}

static void put_place(wf_text *t, const wf_race *r, const wf_design *g) {
    if (g->in_grid) {
        wf_text_add(t, ", \"at\": [");
        for (int a = 0; a < r->n_axis; a++) wf_text_add(t, "%s%d", a > 0 ? ", " : "", g->at[a]);
        wf_text_add(t, "]");
    }
    if (g->solved != NULL) {
        wf_text_add(t, ", \"solved\": ");
        put_string(t, g->solved);
    }
}

static void put_grid(wf_text *t, const wf_race *r) {
    if (r->n_axis == 0) return;
    wf_text_add(t, ", \"grid\": [");
    for (int a = 0; a < r->n_axis; a++) {
        wf_text_add(t, "%s{\"path\": ", a > 0 ? ", " : "");
        put_string(t, r->axis[a].path);
        wf_text_add(t, ", \"values\": [");
        for (int i = 0; i < r->axis[a].n; i++) {
            if (i > 0) wf_text_add(t, ", ");
            put_string(t, wf_grid_label(r, a, i));
        }
        wf_text_add(t, "]}");
    }
    wf_text_add(t, "]");
}

static wf_status put_design(wf_text *t, const wf_race *r, int d) {
    const wf_design *g = &r->design[d];
    wf_summary s;
    wf_race_summary(r, d, &s);
    char *recipe = wf_value_json(g->recipe, false);
    if (recipe == NULL) return WF_ENOMEM;
    wf_text_add(t, "  {\"name\": ");
    put_string(t, g->name);
    wf_text_add(t, ", \"parameters\": %lld, ", (long long)g->cost.parameters);
    const struct {
        const char *name;
        double value;
    } fields[] = {{"flops_per_step", g->cost.flops_per_step},
                  {"forward_flops_per_token", g->cost.forward_flops_per_token},
                  {"peak_bytes", (double)g->cost.peak_bytes},
                  {"loss", s.loss_mean},
                  {"loss_sd", s.loss_sd},
                  {"accuracy", s.accuracy_mean},
                  {"bits_per_byte", s.bits_mean},
                  {"bits_per_byte_sd", s.bits_sd},
                  {"tokens_per_second", s.tokens_per_second},
                  {"train_seconds", s.train_seconds},
                  {"train_flops", s.train_flops}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        put_field(t, fields[i].name, fields[i].value);
        wf_text_add(t, ", ");
    }
    wf_text_add(t, "\"done\": %d, \"failed\": %d, \"diverged\": %d", s.done, s.failed, s.diverged);
    put_place(t, r, g);
    wf_text_add(t, ",\n   \"recipe\": ");
    for (const char *c = recipe; *c; c++) /* strings of the recipe may hold '<' too */
        if (*c == '<')
            wf_text_add(t, "\\u003c");
        else
            wf_text_put(t, c, 1);
    wf_free(recipe);
    wf_text_add(t, ",\n   \"runs\": [\n");
    for (int i = 0; i < r->n_seed; i++) {
        put_entry(t, &r->entry[d * r->n_seed + i]);
        wf_text_add(t, "%s\n", i + 1 < r->n_seed ? "," : "");
    }
    wf_text_add(t, "   ]}");
    return WF_OK;
}

char *wf_results_json(const wf_race *r) {
    wf_text t = {0};
    char *verdict = wf_verdict(r);
    wf_text_add(&t, "{\"format\": \"weft-results-1\", \"question\": ");
    put_string(&t, r->question);
    wf_text_add(&t, ", \"verdict\": ");
    put_string(&t, verdict != NULL ? verdict : "");
    wf_text_add(&t, ", \"recipe_file\": ");
    put_string(&t, r->path);
    wf_text_add(&t, ", \"machine\": ");
    put_string(&t, r->machine != NULL ? r->machine : "");
    wf_text_add(&t, ", \"seeds\": %d, \"scored\": \"%s\"", r->n_seed,
                r->task->objective == WF_OBJECTIVE_CLASSES ? "sample" : "token");
    put_grid(&t, r);
    wf_text_add(&t, ",\n \"designs\": [\n");
    wf_free(verdict);
    wf_status s = WF_OK;
    for (int d = 0; s == WF_OK && d < r->n_design; d++) {
        s = put_design(&t, r, d);
        wf_text_add(&t, "%s\n", d + 1 < r->n_design ? "," : "");
    }
    wf_text_add(&t, " ]\n}\n");
    if (s != WF_OK || t.failed) {
        wf_text_free(&t);
        return NULL;
    }
    return t.s;
}

/* ---- reading back ---- */
static double number(const wf_value *map, const char *key) {
    double x = NAN;
    const wf_value *v = wf_value_get(map, key);
    if (v == NULL || v->kind == WF_V_NULL || wf_value_real(v, &x) != WF_OK) return NAN;
    return x;
}

static double item(const wf_value *list, int i) {
    double x = NAN;
    if (i >= list->n || list->item[i]->kind == WF_V_NULL || wf_value_real(list->item[i], &x) != WF_OK) return NAN;
    return x;
}

static wf_status read_curves(wf_entry *e, const wf_value *run) {
    const wf_value *curve = wf_value_get(run, "curve"), *valid = wf_value_get(run, "valid");
    if (curve == NULL || curve->kind != WF_V_LIST || valid == NULL || valid->kind != WF_V_LIST)
        return wf_value_fail(run, WF_EFORMAT, "a run needs 'curve' and 'valid' lists");
    e->cap_curve = e->n_curve = curve->n;
    e->cap_valid = e->n_valid = valid->n;
    e->curve = wf_alloc_array((size_t)curve->n + 1, sizeof *e->curve);
    e->valid = wf_alloc_array((size_t)valid->n + 1, sizeof *e->valid);
    if (e->curve == NULL || e->valid == NULL) return WF_ENOMEM;
    for (int i = 0; i < curve->n; i++) {
        const wf_value *p = curve->item[i];
        if (p->kind != WF_V_LIST) return wf_value_fail(p, WF_EFORMAT, "a point of a curve is a list of four numbers");
        e->curve[i] = (wf_curve_point){(int64_t)item(p, 0), item(p, 1), item(p, 2), item(p, 3)};
    }
    for (int i = 0; i < valid->n; i++) {
        const wf_value *p = valid->item[i];
        e->valid[i] = (wf_valid_point){
            (int64_t)number(p, "step"),
            number(p, "seconds"),
            number(p, "flops"),
            {number(p, "loss"), number(p, "accuracy"), number(p, "bits_per_byte"), (int64_t)number(p, "scored")}};
    }
    return WF_OK;
}

static wf_status read_entry(wf_entry *e, const wf_value *run) {
    const wf_value *state = wf_value_get(run, "state"), *failure = wf_value_get(run, "failure");
    WF_TRY(read_curves(e, run));
    e->steps_done = (int64_t)number(run, "steps");
    e->tokens_per_step = (int64_t)number(run, "tokens_per_step");
    e->step_median = number(run, "step_seconds");
    e->seconds = number(run, "seconds");
    e->flops = number(run, "flops");
    if (e->n_curve > 0) e->last_loss = e->curve[e->n_curve - 1].loss;
    if (state != NULL && state->kind == WF_V_TEXT && !strcmp(state->text, "done")) e->state = WF_ENTRY_DONE;
    if (state != NULL && state->kind == WF_V_TEXT && !strcmp(state->text, "failed")) {
        e->state = WF_ENTRY_FAILED;
        e->failure = wf_strdup(failure != NULL && failure->kind == WF_V_TEXT ? failure->text : "failed");
    }
    return WF_OK;
}

/* As it comes back from a file: numbers written otherwise (3e-3, 0.003) are the same. Caller frees. */
static char *read_back(const wf_value *recipe) {
    char *text = wf_value_json(recipe, false);
    wf_value *v = text != NULL ? wf_json_parse(text, strlen(text), "recipe") : NULL;
    char *again = v != NULL ? wf_value_json(v, false) : NULL;
    wf_value_free(v);
    wf_free(text);
    return again;
}

/* Results count only for the very same recipe of the design. */
static wf_status same_recipe(const wf_race *r, int d, const wf_value *saved) {
    char *now = read_back(r->design[d].recipe), *then = wf_value_json(wf_value_get(saved, "recipe"), false);
    wf_status s = WF_OK;
    if (now == NULL || then == NULL)
        s = WF_ENOMEM;
    else if (strcmp(now, then) != 0)
        s = wf_fail(WF_EINVAL,
                    "design '%s' differs from the one whose results are in %s; choose another folder (-o) or remove that one\n "
                    " then: %s\n  now:  %s",
                    r->design[d].name, r->folder, then, now);
    wf_free(now);
    wf_free(then);
    return s;
}

static void read_cost(wf_design *g, const wf_value *saved) {
    g->cost.parameters = (int64_t)number(saved, "parameters");
    g->cost.flops_per_step = number(saved, "flops_per_step");
    g->cost.forward_flops_per_token = number(saved, "forward_flops_per_token");
    g->cost.peak_bytes = (size_t)number(saved, "peak_bytes");
    g->described = true;
}

static wf_status read_design(wf_race *r, const wf_value *saved) {
    const wf_value *name = wf_value_get(saved, "name"), *runs = wf_value_get(saved, "runs");
    if (name == NULL || name->kind != WF_V_TEXT || runs == NULL || runs->kind != WF_V_LIST)
        return wf_value_fail(saved, WF_EFORMAT, "a design needs 'name' and 'runs'");
    int d = 0;
    while (d < r->n_design && strcmp(r->design[d].name, name->text) != 0) d++;
    if (d == r->n_design) return WF_OK; /* a design that left the recipe */
    WF_TRY(same_recipe(r, d, saved));
    read_cost(&r->design[d], saved);
    for (int i = 0; i < runs->n && i < r->n_seed; i++) WF_TRY(read_entry(&r->entry[d * r->n_seed + i], runs->item[i]));
    return WF_OK;
}

wf_status wf_results_read(wf_race *r, const char *folder) {
    char *path = wf_format("%s/results.json", folder);
    if (path == NULL) return WF_ENOMEM;
    wf_status s = WF_OK;
    wf_bytes b = {0};
    wf_value *v = NULL;
    if (!wf_path_exists(path))
        s = WF_ENOTFOUND;
    else
        s = wf_bytes_open(path, &b);
    if (s == WF_OK) {
        v = wf_json_parse((const char *)b.p, b.n, path);
        wf_bytes_close(&b);
        if (v == NULL) s = WF_EFORMAT;
    }
    const wf_value *designs = v != NULL ? wf_value_get(v, "designs") : NULL;
    if (s == WF_OK && (designs == NULL || designs->kind != WF_V_LIST))
        s = wf_fail(WF_EFORMAT, "%s: not the results of a comparison", path);
    for (int i = 0; s == WF_OK && i < designs->n; i++) s = read_design(r, designs->item[i]);
    wf_value_free(v);
    wf_free(path);
    return s;
}
