/* account.c: what a plan costs and what it consists of: exact FLOPs and bytes, the steps as text, the profile. */
#include "graph/planned.h"

#include <stdlib.h>
#include <string.h>

/* ---- what a step computes ---- */

static bool reads(const wf_step *s, const wf_node *n) {
    for (int j = 0; j < s->n_in; j++)
        if (s->in[j] == n) return true;
    return false;
}

static int by_id(const void *a, const void *b) {
    return (*(wf_node *const *)a)->id - (*(wf_node *const *)b)->id;
}

static bool push(wf_plan *p, wf_node ***list, int *n, int *cap, wf_node *x) {
    if (p->seen[x->id] == p->stamp) return true;
    p->seen[x->id] = p->stamp;
    if (*n == *cap) {
        wf_node **q = wf_grow(*list, (size_t)*n * sizeof *q, (size_t)*cap * 2 * sizeof *q);
        if (!q) return false;
        *list = q;
        *cap *= 2;
    }
    (*list)[(*n)++] = x;
    return true;
}

/* A program's operators: everything behind its outputs up to the memory that it reads. */
wf_node **wf_step_members(wf_plan *p, const wf_step *s, int *n) {
    int cap = 32, all = 0;
    wf_node **list = wf_alloc_array((size_t)cap, sizeof *list);
    bool ok = list != NULL;
    *n = 0;
    p->stamp++;
    if (!s->program) {
        if (list) list[(*n)++] = s->node;
        return list;
    }
    for (int k = 0; ok && k < s->n_out; k++) ok = push(p, &list, &all, &cap, s->out[k]);
    for (int i = 0; ok && i < all; i++) {
        const wf_node *m = list[i];
        int n_in = m->op->flags & WF_OP_VIEW ? 1 : m->n_in;
        for (int j = 0; ok && j < n_in; j++)
            if (m->in[j]->op && !reads(s, m->in[j])) ok = push(p, &list, &all, &cap, m->in[j]);
    }
    for (int i = 0; i < all; i++)
        if (!(list[i]->op->flags & WF_OP_VIEW)) list[(*n)++] = list[i];
    if (list) qsort(list, (size_t)*n, sizeof *list, by_id);
    if (ok) return list;
    wf_free(list);
    return NULL;
}

void wf_step_name(wf_plan *p, const wf_step *s, wf_text *t) {
    int n;
    if (!s->program) {
        wf_text_add(t, "%s", s->op->name);
        return;
    }
    wf_node **m = wf_step_members(p, s, &n);
    wf_text_add(t, "rows(");
    for (int i = 0; m && i < n;) { /* runs of one operator: "mul*3" */
        int run = 1;
        while (i + run < n && m[i + run]->op == m[i]->op) run++;
        wf_text_add(t, "%s%s", i ? " " : "", m[i]->op->name);
        if (run > 1) wf_text_add(t, "*%d", run);
        i += run;
    }
    wf_text_add(t, ")");
    wf_free(m);
}

/* ---- cost ---- */

/* Bytes of the distinct elements: axes of stride 0 repeat the same ones. */
static double distinct_bytes(const wf_node *n) {
    double b = (double)wf_dtype_size(n->dtype);
    for (int a = 0; a < n->shape.rank; a++)
        if (n->stride[a] != 0) b *= (double)n->shape.dim[a];
    return b;
}

static void moved(const wf_step *s, wf_cost *c) {
    for (int j = 0; j < s->n_in; j++) c->bytes_read += distinct_bytes(s->in[j]);
    for (int k = 0; k < s->n_out; k++)
        if (s->out[k]) c->bytes_written += distinct_bytes(s->out[k]);
}

static wf_cost step_cost(wf_plan *p, wf_step *s) {
    wf_cost c = {0};
    if (wf_step_copy(s)) {
        c.bytes_read = c.bytes_written = (double)wf_node_bytes(s->node);
    } else if (!s->program && s->op->cost) {
        s->op->cost(s->node, &c);
    } else {
        moved(s, &c);
    }
    if (!s->program) return c;
    int n;
    wf_node **m = wf_step_members(p, s, &n);
    for (int i = 0; m && i < n; i++) {
        wf_cost one = {0};
        if (m[i]->op->cost) m[i]->op->cost(m[i], &one);
        c.flops += one.flops;
    }
    wf_free(m);
    return c;
}

void wf_plan_describe(const wf_plan *plan, wf_plan_info *info) {
    wf_plan *p = (wf_plan *)plan; /* marks of the walk only */
    *info = (wf_plan_info){.arena_bytes = p->arena_bytes,
                           .leaf_bytes = p->leaf_bytes,
                           .scratch_bytes = p->scratch_bytes,
                           .steps = p->n_steps,
                           .live_bytes = p->live_bytes};
    for (int i = 0; i < p->n_order; i++) {
        const wf_node *n = p->order[i];
        if (n->op && !(n->op->flags & WF_OP_VIEW) && n->op != &wf_op_output) info->nodes++;
    }
    for (int i = 0; i < p->n_steps; i++) {
        wf_cost c = step_cost(p, p->step[i]);
        info->flops += c.flops;
        info->bytes += c.bytes_read + c.bytes_written;
        if (!p->step[i]->program) continue;
        int n;
        wf_free(wf_step_members(p, p->step[i], &n));
        if (n > 1) info->fused_nodes += n;
    }
}

/* ---- text ---- */

static void put_place(const wf_plan *p, wf_text *t, int storage) {
    const wf_storage *s = storage >= 0 ? &p->storage[storage] : NULL;
    if (!s) return;
    if (s->buffer >= 0)
        wf_text_add(t, "@%zu", p->buffer[s->buffer].offset);
    else
        wf_text_add(t, "@%s", s->leaf_node && s->leaf_node->scope && *s->leaf_node->scope ? s->leaf_node->scope : "leaf");
}

char *wf_plan_text(const wf_plan *plan) {
    wf_plan *p = (wf_plan *)plan;
    wf_text t = {0};
    char shape[96];
    for (int i = 0; i < p->n_steps; i++) {
        wf_step *s = p->step[i];
        wf_copy *c = wf_step_copy(s);
        wf_text_add(&t, "%5d  ", i);
        wf_step_name(p, s, &t);
        if (c) {
            wf_text_add(&t, "  %s %s", wf_dtype_name(s->node->dtype), wf_shape_text(&s->node->shape, shape));
            put_place(p, &t, c->to);
        }
        for (int k = 0; k < s->n_out; k++) {
            if (!s->out[k]) continue;
            wf_text_add(&t, "%s%s %s", k ? ", " : "  ", wf_dtype_name(s->out[k]->dtype),
                        wf_shape_text(&s->out[k]->shape, shape));
            put_place(p, &t, wf_storage_of(p, s->out[k]));
        }
        wf_text_add(&t, "  %s\n", s->node->scope ? s->node->scope : "");
    }
    if (!t.failed) return t.s ? t.s : wf_strdup("");
    wf_text_free(&t);
    return NULL;
}

/* ---- profile ---- */

void wf_plan_profile(wf_plan *p, bool on) {
    p->profile = on;
    for (int i = 0; on && i < p->n_steps; i++) {
        p->step[i]->seconds = 0;
        p->step[i]->runs = 0;
    }
}

typedef struct row { /* steps of one name */
    char *name;
    double seconds, flops, bytes;
    int64_t runs;
    int steps;
} row;

static int by_name(const void *a, const void *b) {
    return strcmp(((const row *)a)->name, ((const row *)b)->name);
}

static int by_seconds(const void *a, const void *b) {
    const row *x = a, *y = b;
    return x->seconds > y->seconds ? -1 : x->seconds < y->seconds ? 1 : strcmp(x->name, y->name);
}

/* One row a step, then rows of equal names added up; the number of rows left. */
static int make_rows(wf_plan *p, row *r) {
    int n = 0, kept = 0;
    for (int i = 0; i < p->n_steps; i++) {
        wf_step *s = p->step[i];
        wf_text t = {0};
        wf_step_name(p, s, &t);
        wf_cost c = step_cost(p, s);
        if (t.failed || !t.s) {
            wf_text_free(&t);
            continue;
        }
        r[n++] =
            (row){t.s, s->seconds, c.flops * (double)s->runs, (c.bytes_read + c.bytes_written) * (double)s->runs, s->runs, 1};
    }
    qsort(r, (size_t)n, sizeof *r, by_name);
    for (int i = 0; i < n; i++) {
        row *last = kept ? &r[kept - 1] : NULL;
        if (!last || strcmp(last->name, r[i].name) != 0) {
            r[kept++] = r[i];
            continue;
        }
        last->seconds += r[i].seconds;
        last->flops += r[i].flops;
        last->bytes += r[i].bytes;
        last->steps++;
        wf_free(r[i].name);
    }
    qsort(r, (size_t)kept, sizeof *r, by_seconds);
    return kept;
}

char *wf_plan_profile_text(const wf_plan *plan) {
    wf_plan *p = (wf_plan *)plan;
    row *r = wf_alloc_array((size_t)p->n_steps + 1, sizeof *r);
    wf_text t = {0};
    double total = 0;
    if (!r) return NULL;
    int n = make_rows(p, r);
    int64_t runs = n ? r[0].runs : 0;
    for (int i = 0; i < n; i++) total += r[i].seconds;
    wf_text_add(&t, "%lld runs, %.3f ms a run\n%10s %6s %6s %9s %8s  step\n", (long long)runs,
                runs ? total / (double)runs * 1e3 : 0.0, "ms a run", "share", "steps", "GFLOP/s", "GB/s");
    for (int i = 0; i < n; i++) {
        double s = r[i].seconds > 0 ? r[i].seconds : 1e-30;
        wf_text_add(&t, "%10.3f %5.1f%% %6d %9.1f %8.1f  %s\n", runs ? r[i].seconds / (double)runs * 1e3 : 0.0,
                    total > 0 ? 100 * r[i].seconds / total : 0.0, r[i].steps, r[i].flops / s * 1e-9, r[i].bytes / s * 1e-9,
                    r[i].name);
        wf_free(r[i].name);
    }
    wf_free(r);
    if (!t.failed) return t.s;
    wf_text_free(&t);
    return NULL;
}
