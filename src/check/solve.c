/* solve.c: running a case and comparing what came out with what the file says. */
#include "check/case.h"

#include <math.h>
#include <string.h>

static const double out_bound = 1e-5, grad_bound = 1e-4, floor_bound = 1e-6;

/* ---- comparing ---- */

static wf_check_row *new_row(wf_check_result *r, const char *name) {
    if (r->n == r->cap) {
        int cap = r->cap ? 2 * r->cap : 32;
        wf_check_row *grown = wf_grow(r->row, sizeof *grown * (size_t)r->cap, sizeof *grown * (size_t)cap);
        if (!grown) return NULL;
        r->row = grown;
        r->cap = cap;
    }
    wf_check_row *row = &r->row[r->n];
    *row = (wf_check_row){.name = wf_strdup(name)};
    if (!row->name) return NULL;
    r->n++;
    return row;
}

/* Compare n numbers (a or, where a is NULL, tensor t) with the file's tensor `name`. */
static wf_status compare(wf_case *c, const char *name, const double *a, const wf_tensor *t, int64_t n) {
    const wf_st_entry *e = wf_case_entry(c, name);
    wf_tensor *b = e ? wf_st_read(e, WF_F64) : NULL;
    if (!b) return WF_EFORMAT;
    wf_status s = WF_OK;
    wf_check_row *row = NULL;
    if (wf_tensor_count(b) != n) {
        char buf[96];
        s = wf_case_fail(c, "'%s' is %s in the file, but the module gives %lld numbers", name, wf_shape_text(&b->shape, buf),
                         (long long)n);
    } else if (!(row = new_row(c->result, name))) {
        s = WF_ENOMEM;
    } else {
        double diff = 0, norm = 0;
        for (int64_t i = 0; i < n; i++) {
            double x = a ? a[i] : wf_tensor_get(t, i), y = wf_tensor_get(b, i);
            double d = x == y ? 0 : fabs(x - y); /* equal infinities are equal */
            if (isnan(x) && isnan(y)) d = 0;
            if (isfinite(y)) norm += y * y;
            diff += d * d;
            if (!(d <= row->largest)) row->largest = isnan(d) ? INFINITY : d;
        }
        row->gradient = !strncmp(name, "grad.", 5);
        row->relative = row->gradient ? grad_bound : out_bound;
        row->floor = floor_bound * sqrt((double)n);
        row->count = n;
        diff = sqrt(diff);
        norm = sqrt(norm);
        row->norm = norm;
        row->error = norm > 0 ? diff / norm : diff;
        row->pass = diff <= row->relative * norm + row->floor;
    }
    wf_tensor_free(b);
    return s;
}

static bool same_shape(const wf_shape *a, const wf_shape *b) {
    if (wf_shape_equal(a, b)) return true;
    return wf_shape_count(a) == 1 && wf_shape_count(b) == 1; /* a loss is [] or [1] */
}

wf_status wf_case_compare(wf_case *c, const char *name, const wf_tensor *value) {
    char *full = wf_arena_format(c->arena, "out.%s%s", name, c->step);
    if (!full || !wf_case_has(c, full)) return full ? WF_OK : WF_ENOMEM;
    if (!value) return WF_EINVAL;
    const wf_st_entry *e = wf_case_entry(c, full);
    char a[96], b[96];
    if (!same_shape(&e->shape, &value->shape))
        return wf_case_fail(c, "'%s' is %s in the file, but the module gives %s", full, wf_shape_text(&e->shape, a),
                            wf_shape_text(&value->shape, b));
    return compare(c, full, NULL, value, wf_tensor_count(value));
}

wf_status wf_case_compare_as(wf_case *c, const char *full, const wf_tensor *value) {
    return compare(c, full, NULL, value, wf_tensor_count(value));
}

/* ---- one step ---- */

typedef struct solving {
    int n_cot, n_wrt, n_node;
    wf_node **cot_out, **cot, **wrt, **grad, **node;
    wf_tensor **held; /* cotangents' tensors */
    double **sum;     /* where the gradient of wrt[i] is added; NULL: compared at once */
    char **wrt_name;  /* "grad.in.x", for those */
} solving;

static void *slots(wf_arena *a, int n) {
    return wf_arena_alloc(a, sizeof(void *) * ((size_t)n + 1));
}

static wf_status gather_cotangents(wf_case *c, solving *s) {
    for (int i = 0; i < c->n_out; i++) {
        wf_node *n = c->out[i].node;
        const wf_st_entry *e = wf_case_entry(c, c->out[i].name);
        char a[96], b[96];
        if (!n) return wf_case_fail(c, "%s: %s", c->out[i].name, wf_graph_message(c->graph));
        if (!same_shape(&e->shape, &n->shape))
            return wf_case_fail(c, "'%s' is %s in the file, but the module gives %s", c->out[i].name,
                                wf_shape_text(&e->shape, a), wf_shape_text(&n->shape, b));
        char *cot = wf_arena_format(c->arena, "cot.%s", c->out[i].name + 4);
        if (!cot || !wf_case_has(c, cot)) continue;
        e = wf_case_entry(c, cot);
        if (!same_shape(&e->shape, &n->shape))
            return wf_case_fail(c, "'%s' is %s, its output %s", cot, wf_shape_text(&e->shape, a), wf_shape_text(&n->shape, b));
        wf_tensor *t = wf_st_read(e, n->dtype);
        if (!t) return WF_EFORMAT;
        t->shape = n->shape;
        s->held[s->n_cot] = t;
        s->cot_out[s->n_cot] = n;
        s->cot[s->n_cot++] = wf_leaf(c->graph, t, cot);
    }
    return WF_OK;
}

static void want(solving *s, wf_node *leaf, double *sum, char *name) {
    s->wrt[s->n_wrt] = leaf;
    s->sum[s->n_wrt] = sum;
    s->wrt_name[s->n_wrt++] = name;
}

static wf_status gather_wanted(wf_case *c, solving *s) {
    for (int i = 0; i < c->n_leaf; i++) {
        wf_case_leaf *l = &c->leaf[i];
        if (!l->node || !wf_is_float(l->value->dtype)) continue;
        char *name = wf_arena_format(c->arena, "grad.%s", l->name);
        if (!name) return WF_ENOMEM;
        if (l->sum)
            want(s, l->node, l->sum, NULL);
        else if (wf_case_has(c, name))
            want(s, l->node, NULL, name);
    }
    for (int k = 0; k < c->n_model; k++)
        for (int i = 0; i < c->model[k].model->n_param; i++) {
            wf_param *p = c->model[k].model->param[i];
            if (!(p->flags & WF_PARAM_BUFFER)) want(s, wf_leaf(c->graph, p->value, p->name), c->model[k].sum[i], NULL);
        }
    return WF_OK;
}

static wf_status read_results(wf_case *c, const solving *s, const wf_plan *plan) {
    for (int i = 0; i < s->n_node; i++) {
        const wf_node *n = s->node[i];
        wf_tensor view = {n->dtype, n->shape, (void *)(uintptr_t)wf_plan_out(plan, i), 0};
        int64_t count = wf_shape_count(&n->shape);
        if (i < c->n_out) {
            WF_TRY(compare(c, c->out[i].name, NULL, &view, count));
            continue;
        }
        int k = i - c->n_out;
        if (s->wrt_name[k])
            WF_TRY(compare(c, s->wrt_name[k], NULL, &view, count));
        else
            for (int64_t j = 0; j < count; j++) s->sum[k][j] += wf_tensor_get(&view, j);
    }
    return WF_OK;
}

static wf_status build_and_run(wf_case *c, solving *s) {
    WF_TRY(wf_graph_status(c->graph) == WF_OK ? WF_OK : wf_fail(wf_graph_status(c->graph), "%s", wf_graph_message(c->graph)));
    WF_TRY(gather_cotangents(c, s));
    WF_TRY(gather_wanted(c, s));
    if (s->n_cot) WF_TRY(wf_grad(c->graph, s->cot_out, s->cot, s->n_cot, s->wrt, s->n_wrt, s->grad));
    for (int i = 0; i < c->n_out; i++) s->node[s->n_node++] = c->out[i].node;
    for (int i = 0; s->n_cot && i < s->n_wrt; i++) s->node[s->n_node++] = s->grad[i];
    wf_plan *plan = wf_plan_new(c->graph, s->node, s->n_node, c->build.update, c->build.n_update, NULL);
    if (!plan) return WF_EINVAL;
    wf_status st = wf_plan_run(plan);
    if (st == WF_OK) st = read_results(c, s, plan);
    wf_plan_free(plan);
    return st;
}

wf_status wf_case_solve(wf_case *c) {
    int wrt = c->n_leaf, out = c->n_out;
    for (int k = 0; k < c->n_model; k++) wrt += c->model[k].model->n_param;
    solving s = {.cot_out = slots(c->arena, out),
                 .cot = slots(c->arena, out),
                 .held = slots(c->arena, out),
                 .wrt = slots(c->arena, wrt),
                 .grad = slots(c->arena, wrt),
                 .node = slots(c->arena, out + wrt),
                 .sum = slots(c->arena, wrt),
                 .wrt_name = slots(c->arena, wrt)};
    if (!s.cot_out || !s.cot || !s.held || !s.wrt || !s.grad || !s.node || !s.sum || !s.wrt_name) return WF_ENOMEM;
    wf_status st = build_and_run(c, &s);
    for (int i = 0; i < s.n_cot; i++) wf_tensor_free(s.held[i]);
    return st;
}

/* ---- the end ---- */

static wf_status model_gradients(wf_case *c, const wf_case_model_ref *r) {
    if (!r->map) return WF_OK;
    wf_model *m = r->model;
    wf_tensors set = {0};
    wf_tensor **value = slots(c->arena, m->n_param);
    wf_status s = value ? WF_OK : WF_ENOMEM;
    for (int i = 0; s == WF_OK && i < m->n_param; i++) {
        value[i] = wf_tensor_new(WF_F64, m->param[i]->value->shape);
        if (!value[i])
            s = WF_ENOMEM;
        else
            memcpy(value[i]->data, r->sum[i], value[i]->bytes);
    }
    if (s == WF_OK) s = wf_export(r->map, m, (const wf_tensor *const *)value, &set);
    for (int i = 0; s == WF_OK && i < set.n; i++) {
        char *name = wf_arena_format(c->arena, "grad.param.%s", set.item[i].name);
        if (!name)
            s = WF_ENOMEM;
        else if (wf_case_has(c, name))
            s = compare(c, name, NULL, set.item[i].value, wf_tensor_count(set.item[i].value));
    }
    for (int i = 0; value && i < m->n_param; i++) wf_tensor_free(value[i]);
    wf_tensors_free(&set);
    return s;
}

wf_status wf_case_finish(wf_case *c) {
    for (int i = 0; i < c->n_leaf; i++) {
        char *name = wf_arena_format(c->arena, "grad.%s", c->leaf[i].name);
        if (!name) return WF_ENOMEM;
        if (c->leaf[i].sum && wf_case_has(c, name))
            WF_TRY(compare(c, name, c->leaf[i].sum, NULL, wf_tensor_count(c->leaf[i].value)));
    }
    for (int k = 0; k < c->n_model; k++) WF_TRY(model_gradients(c, &c->model[k]));
    for (int i = 0; i < c->file->n; i++) {
        const char *name = c->file->entry[i].name;
        bool told = !strncmp(name, "out.", 4) || !strncmp(name, "grad.", 5);
        if (!c->seen[i])
            return wf_case_fail(
                c, told ? "the file expects '%s', which module %s does not give" : "'%s' has no meaning for module %s", name,
                c->result->module);
    }
    return WF_OK;
}
