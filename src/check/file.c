/* file.c: one golden file from opening to verdict. */
#include "check/case.h"

#include <math.h>
#include <string.h>

/* clang-format off */
static const wf_adapter *const tables[] = {
    wf_adapters_attention,
    wf_adapters_norm,
    wf_adapters_vision,
    wf_adapters_language,
    wf_adapters_sparse,
    wf_adapters_picture,
    wf_adapters_stateful,
    wf_adapters_softmax_family,
    wf_adapters_sigma,
    wf_adapters_linear,
    wf_adapters_transform,
    wf_adapters_topology,
    wf_adapters_hierarchy,
    wf_adapters_splitting,
};
/* clang-format on */
enum { N_TABLES = sizeof tables / sizeof *tables };

static const wf_adapter *find(const char *module) {
    for (int t = 0; t < N_TABLES; t++)
        for (const wf_adapter *a = tables[t]; a->module; a++)
            if (!strcmp(a->module, module)) return a;
    return NULL;
}

const char *const *wf_check_modules(int *n) {
    static const char *names[128];
    *n = 0;
    for (int t = 0; t < N_TABLES; t++)
        for (const wf_adapter *a = tables[t]; a->module && *n < 128; a++) names[(*n)++] = a->module;
    return names;
}

const char *wf_verdict_name(wf_verdict v) {
    static const char *const names[] = {"passed", "failed", "not yet supported", "unusable"};
    return names[v];
}

void wf_check_free(wf_check_result *r) {
    for (int i = 0; i < r->n; i++) wf_free(r->row[i].name);
    wf_free(r->row);
    wf_free(r->path);
    wf_free(r->system);
    wf_free(r->module);
    wf_free(r->reason);
    memset(r, 0, sizeof *r);
}

static void unusable(wf_check_result *r, const char *why) {
    r->verdict = WF_CHECK_UNUSABLE;
    wf_free(r->reason);
    r->reason = wf_strdup(why && *why ? why : "no reason was given");
}

static bool listed(const char *words, const char *word) {
    size_t n = strlen(word);
    for (const char *p = words; p && *p; p += strcspn(p, " "), p += *p == ' ')
        if (strcspn(p, " ") == n && !strncmp(p, word, n)) return true;
    return false;
}

/* Keys that every case may carry to say in words what its tensors already say. */
static const char descriptive[] = "module names note notes comment description source layout_note linear_layout";

/* "dropout": 0 says nothing, and in evaluation no probability does. */
static bool no_dropout(const char *key, const wf_value *v, bool eval) {
    double p;
    if (!strstr(key, "dropout") && !strstr(key, "drop_path")) return false;
    return v->kind == WF_V_TEXT && wf_value_real(v, &p) == WF_OK && (p == 0 || (eval && p > 0 && p < 1));
}

/* "eval": true, which may be said of any case. */
static bool says_eval(const wf_case *c) {
    for (int i = 0; i < c->config->n; i++) {
        wf_value *v = c->config->item[i];
        bool eval = false;
        if (strcmp(c->config->key[i], "eval") || v->kind != WF_V_TEXT || wf_value_bool(v, &eval) != WF_OK || !eval) continue;
        return v->used = true;
    }
    return false;
}

static wf_status leftovers(const wf_case *c, const wf_adapter *a) {
    bool eval = says_eval(c);
    for (int i = 0; i < c->config->n; i++) {
        const char *key = c->config->key[i];
        if (!c->config->item[i]->used && !listed(descriptive, key) && !listed(a->ignore, key) &&
            !no_dropout(key, c->config->item[i], eval))
            return wf_case_fail(c, "config: '%s' is not known for module %s", key, a->module);
    }
    return WF_OK;
}

static void release(wf_case *c) {
    if (c->graph) {
        wf_build_end(&c->build);
        wf_graph_free(c->graph);
    }
    for (int i = 0; i < c->n_leaf; i++) {
        wf_free(c->leaf[i].name);
        wf_free(c->leaf[i].sum);
        wf_tensor_free(c->leaf[i].value);
    }
    for (int k = 0; k < c->n_model; k++) {
        for (int i = 0; c->model[k].sum && i < c->model[k].model->n_param; i++) wf_free(c->model[k].sum[i]);
        wf_free(c->model[k].sum);
        wf_model_free(c->model[k].model);
    }
    wf_free(c->leaf);
    wf_free(c->out);
    wf_free(c->seen);
    wf_value_free(c->config);
    if (c->arena) wf_arena_free(c->arena);
}

/* A cotangent has the shape of its output, a gradient that of what it is of. */
static wf_status pairs_match(const wf_case *c) {
    for (int i = 0; i < c->file->n; i++) {
        const wf_st_entry *e = &c->file->entry[i];
        char other[512], a[96], b[96];
        if (!strncmp(e->name, "grad.", 5))
            snprintf(other, sizeof other, "%s", e->name + 5);
        else if (!strncmp(e->name, "cot.", 4))
            snprintf(other, sizeof other, "out.%s", e->name + 4);
        else
            continue;
        const wf_st_entry *of = wf_st_find(c->file, other);
        if (!of) return wf_case_fail(c, "the file has '%s', but no '%s'", e->name, other);
        bool scalars = wf_shape_count(&e->shape) == 1 && wf_shape_count(&of->shape) == 1;
        if (!scalars && !wf_shape_equal(&e->shape, &of->shape))
            return wf_case_fail(c, "'%s' is %s, '%s' is %s", e->name, wf_shape_text(&e->shape, a), other,
                                wf_shape_text(&of->shape, b));
    }
    return WF_OK;
}

static wf_status run_case(wf_case *c, const wf_adapter *a) {
    WF_TRY(wf_case_begin(c, ""));
    WF_TRY(a->run(c));
    WF_TRY(pairs_match(c));
    WF_TRY(leftovers(c, a));
    WF_TRY(wf_case_finish(c));
    return c->result->n ? WF_OK : wf_case_fail(c, "the file expects no output that could be compared");
}

static void check_open_file(wf_st_file *f, bool float64, wf_check_result *r) {
    const char *module = wf_st_meta(f, "module"), *config = wf_st_meta(f, "config"), *system = wf_st_meta(f, "system");
    if (system) r->system = wf_strdup(system);
    if (!module || !*module) return unusable(r, "the metadata names no module");
    r->module = wf_strdup(module);
    const wf_adapter *a = find(module);
    if (!a) {
        r->verdict = WF_CHECK_NOT_YET;
        r->reason = wf_format("module %s is not yet supported", module);
        return;
    }
    if (!config) return unusable(r, "the metadata has no config");
    wf_case c = {.file = f, .result = r, .f64 = float64, .step = ""};
    c.config = wf_json_parse(config, strlen(config), "config");
    c.arena = wf_arena_new();
    c.seen = wf_alloc_array((size_t)f->n + 1, sizeof *c.seen);
    wf_status s = c.config && c.arena && c.seen ? WF_OK : WF_EFORMAT;
    if (s == WF_OK && c.config->kind != WF_V_MAP) s = wf_case_fail(&c, "config is not a JSON object");
    if (s == WF_OK) s = run_case(&c, a);
    if (s != WF_OK) unusable(r, wf_message());
    for (int i = 0; s == WF_OK && i < r->n; i++)
        if (!r->row[i].pass) r->verdict = WF_CHECK_FAILED;
    release(&c);
}

static void check_once(const char *path, bool float64, wf_check_result *r) {
    memset(r, 0, sizeof *r);
    r->path = wf_strdup(path);
    wf_st_file f;
    if (wf_st_open(path, &f) != WF_OK) return unusable(r, wf_message());
    check_open_file(&f, float64, r);
    wf_st_close(&f);
}

static double largest_norm(const wf_check_result *r, bool gradient) {
    double most = 0;
    for (int i = 0; i < r->n; i++)
        if (r->row[i].gradient == gradient && r->row[i].norm > most) most = r->row[i].norm;
    return most;
}

/* Rows outside their bound in float32: is it only rounding? (check.h) */
static void repeat(const char *path, wf_check_result *r) {
    static const double near = 10, rounding = 1e-6;
    wf_check_result wide;
    check_once(path, true, &wide);
    bool all = true;
    for (int i = 0; i < r->n; i++) {
        wf_check_row *w = &r->row[i];
        if (!w->pass && wide.verdict <= WF_CHECK_FAILED && wide.n == r->n && !strcmp(wide.row[i].name, w->name)) {
            double deviation = w->norm > 0 ? w->error * w->norm : w->error;
            w->repeated = true;
            w->error64 = wide.row[i].error;
            w->pass = wide.row[i].pass &&
                      deviation <= near * (w->relative * w->norm + w->floor) + rounding * largest_norm(r, w->gradient);
        }
        all &= w->pass;
    }
    if (all) r->verdict = WF_CHECK_PASSED;
    wf_check_free(&wide);
}

void wf_check_file(const char *path, bool float64, wf_check_result *r) {
    double started = wf_seconds();
    check_once(path, float64, r);
    if (r->verdict == WF_CHECK_FAILED && !float64) repeat(path, r);
    r->seconds = wf_seconds() - started;
}
