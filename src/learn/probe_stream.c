/* probe_stream.c: measures of the residual stream: its variance by depth, gradients by block, and the bound on the gradient of
 * an MLP's last matrix under large activations (Kim et al. 2025, Peri-LN). */
#include "learn/probing.h"

#include <math.h>
#include <string.h>

static const char *short_name(const wf_module *m) {
    return m->name[0] ? m->name : m->part->name;
}

/* ---- variance ---- */

static wf_status variance(const wf_probe_input *in, wf_probe_table *t) {
    wf_probing p;
    wf_status s = wf_probing_open(&p, in, false);
    int n = 0;
    wf_node **out = s == WF_OK ? wf_arena_alloc(wf_graph_arena(p.g), sizeof *out * 3 * (size_t)(p.n + 1)) : NULL;
    for (int i = 0; out && i < p.n; i++) {
        bool stream = !strcmp(p.tap[i].what, "stream"), end = !strcmp(p.tap[i].what, "hidden");
        wf_node *x = p.tap[i].node;
        if ((!stream && !end) || x->shape.rank < 2) continue;
        unsigned last = 1u << (x->shape.rank - 1), every = (last << 1) - 1;
        wf_node *d = wf_sub(p.g, x, wf_mean(p.g, x, last, true));
        out[n++] = wf_mean(p.g, wf_square(p.g, d), every, false);
        out[n++] = wf_mean(p.g, wf_square(p.g, x), every, false);
        out[n++] = wf_amax(p.g, wf_abs(p.g, x), every, false);
    }
    wf_plan *plan = n ? wf_probing_run(&p, out, n) : NULL;
    if (s == WF_OK && n && !plan) s = WF_EINVAL;
    for (int i = 0, k = 0; plan && i < p.n && s == WF_OK; i++) {
        bool stream = !strcmp(p.tap[i].what, "stream"), end = !strcmp(p.tap[i].what, "hidden");
        if ((!stream && !end) || p.tap[i].node->shape.rank < 2) continue;
        double v[WF_PROBE_COLUMNS];
        for (int c = 0; c < 3; c++) v[c] = (double)*(const float *)wf_plan_out(plan, k++);
        s = wf_probe_add(t, v, "%s", end ? "after the blocks" : short_name(p.tap[i].module));
    }
    wf_plan_free(plan);
    wf_probing_close(&p);
    return s;
}

const wf_probe wf_probe_variance = {
    .name = "variance",
    .title = "size of the residual stream in front of every block",
    .help = "variance: of a token's channels, mean over tokens; mean square; largest absolute number. With norms in front of "
            "sublayers alone it may grow without limit in training, with norms on their outputs it grows linearly with depth.",
    .column = {"variance", "mean square", "largest"},
    .run = variance,
};

/* ---- gradients ---- */

typedef struct gradients {
    int n_param, n_stream;
    wf_param **param;
    wf_node **wrt, **grad;
    const wf_module **block; /* of the streams */
} gradients;

static wf_status differentiate(wf_probing *p, const wf_probe_input *in, gradients *d) {
    wf_model *m = in->model;
    wf_arena *a = wf_graph_arena(p->g);
    size_t room = (size_t)(m->n_param + p->n + 1);
    d->param = wf_arena_alloc(a, sizeof *d->param * room);
    d->wrt = wf_arena_alloc(a, sizeof *d->wrt * room);
    d->grad = wf_arena_alloc(a, sizeof *d->grad * room);
    d->block = wf_arena_alloc(a, sizeof *d->block * room);
    if (!d->param || !d->wrt || !d->grad || !d->block) return WF_ENOMEM;
    for (int i = 0; i < m->n_param; i++) {
        wf_param *q = m->param[i];
        if (q->flags & (WF_PARAM_BUFFER | WF_PARAM_FROZEN)) continue;
        d->param[d->n_param] = q;
        d->wrt[d->n_param++] = wf_leaf(p->g, q->value, q->name);
    }
    for (int i = 0; i < p->n; i++) {
        if (strcmp(p->tap[i].what, "stream")) continue;
        d->block[d->n_stream] = p->tap[i].module;
        d->wrt[d->n_param + d->n_stream++] = p->tap[i].node;
    }
    return wf_grad(p->g, &p->loss, NULL, 1, d->wrt, d->n_param + d->n_stream, d->grad);
}

static bool inside(const char *name, const wf_module *m) {
    size_t n = strlen(m->name);
    return !strncmp(name, m->name, n) && name[n] == '.';
}

/* Sums over the parameters of block m (NULL: of no block). */
static bool sum_block(const gradients *d, const wf_plan *plan, const wf_module *m, double v[WF_PROBE_COLUMNS]) {
    double g = 0, w = 0, most = 0;
    bool any = false;
    for (int i = 0; i < d->n_param; i++) {
        bool mine = m && inside(d->param[i]->name, m);
        for (int k = 0; !m && k <= d->n_stream; k++) {
            mine = k == d->n_stream;
            if (!mine && inside(d->param[i]->name, d->block[k])) break;
        }
        if (!mine) continue;
        any = true;
        g += pow(wf_probe_norm(wf_plan_out(plan, i), d->grad[i]), 2);
        w += pow(wf_probe_norm(d->param[i]->value->data, d->wrt[i]), 2);
        most = fmax(most, wf_probe_largest(wf_plan_out(plan, i), d->grad[i]));
    }
    v[0] = sqrt(g), v[1] = most, v[2] = sqrt(w), v[3] = w > 0 ? sqrt(g / w) : (double)NAN;
    return any;
}

static wf_status gradient(const wf_probe_input *in, wf_probe_table *t) {
    wf_probing p;
    gradients d = {0};
    wf_status s = wf_probing_open(&p, in, false);
    if (s == WF_OK) s = differentiate(&p, in, &d);
    wf_plan *plan = s == WF_OK ? wf_probing_run(&p, d.grad, d.n_param + d.n_stream) : NULL;
    if (s == WF_OK && !plan) s = WF_EINVAL;
    for (int i = 0; i < d.n_stream && s == WF_OK; i++) {
        double v[WF_PROBE_COLUMNS];
        sum_block(&d, plan, d.block[i], v);
        v[4] = wf_probe_norm(wf_plan_out(plan, d.n_param + i), d.grad[d.n_param + i]);
        s = wf_probe_add(t, v, "%s", short_name(d.block[i]));
    }
    double v[WF_PROBE_COLUMNS];
    if (s == WF_OK && sum_block(&d, plan, NULL, v)) {
        v[4] = NAN;
        s = wf_probe_add(t, v, "outside the blocks");
    }
    wf_plan_free(plan);
    wf_probing_close(&p);
    return s;
}

const wf_probe wf_probe_gradient = {
    .name = "gradient",
    .title = "gradient of the mean loss, by block",
    .help =
        "gradient: 2-norm over the block's parameters; largest entry; 2-norm of the parameters; the ratio of the two norms; "
        "stream: 2-norm of the gradient in the block's input.",
    .column = {"gradient", "largest", "parameters", "ratio", "stream"},
    .run = gradient,
};

/* ---- large activations ---- */

typedef struct last_linear {
    const wf_module *down, *norm; /* norm: on the branch's output, or NULL */
    wf_node *h, *a, *o, *weight;  /* input and output of the linear, what the stream receives of it, its weight */
} last_linear;

static wf_param *parameter(const wf_module *m, const char *name) {
    for (int i = 0; i < m->n_param; i++)
        if (!strcmp(m->param_name[i], name)) return m->param[i];
    return NULL;
}

/* Last linears of channel mixers; out may be NULL to count. */
static int find_last(const wf_probing *p, last_linear *out) {
    int n = 0;
    for (int i = 0; i < p->n; i++) {
        const wf_module *m = p->tap[i].module, *channel = m->parent, *block = channel ? channel->parent : NULL;
        const char *dot = strrchr(m->name, '.');
        if (strcmp(p->tap[i].what, "output") || !dot || strcmp(dot, ".down") || strcmp(channel->part->slot, "channel"))
            continue;
        wf_param *w = parameter(m, "weight");
        if (!w || !block) continue;
        if (out) {
            char name[96];
            snprintf(name, sizeof name, "%s_out_norm",
                     strrchr(channel->name, '.') ? strrchr(channel->name, '.') + 1 : channel->name);
            const wf_module *norm = wf_module_find((wf_module *)(uintptr_t)block, name);
            out[n] = (last_linear){
                m, norm, wf_probing_find(p, m, "input", 0), p->tap[i].node, NULL, wf_leaf(p->g, w->value, w->name)};
            out[n].o = norm ? wf_probing_find(p, norm, "output", 0) : out[n].a;
            if (!out[n].o) out[n].o = out[n].a, out[n].norm = NULL;
        }
        n++;
    }
    return n;
}

/* What no entry of the weight's gradient can exceed: sum over tokens of |dL/da_t| times the largest |h_t|, where through a norm
 * |dL/da| <= 4 gain sqrt(D) |dL/do| / |a|. */
static double bound_of(const last_linear *l, const float *h, const float *a, const float *r) {
    int64_t D = l->a->shape.dim[l->a->shape.rank - 1], F = l->h->shape.dim[l->h->shape.rank - 1],
            rows = wf_shape_count(&l->a->shape) / D;
    const wf_param *gain = l->norm ? parameter(l->norm, "weight") : NULL;
    double most_gain = l->norm ? 1 : 0, sum = 0;
    bool centre = l->norm && !strcmp(l->norm->part->name, "layernorm");
    if (gain) most_gain = 0;
    double one =
        gain && (gain->init.kind == WF_INIT_ZERO || (gain->init.kind == WF_INIT_CONST && gain->init.a == 0)); /* 1 + w */
    for (int64_t i = 0; gain && i < D; i++) most_gain = fmax(most_gain, fabs(one + wf_tensor_get(gain->value, i)));
    for (int64_t t = 0; t < rows; t++) {
        double top = 0, aa = 0, rr = 0, mean = 0;
        for (int64_t i = 0; i < F; i++) top = fmax(top, fabs((double)h[t * F + i]));
        for (int64_t i = 0; centre && i < D; i++) mean += (double)a[t * D + i] / (double)D;
        for (int64_t i = 0; i < D; i++) aa += pow((double)a[t * D + i] - mean, 2), rr += pow((double)r[t * D + i], 2);
        sum += top * sqrt(rr) * (l->norm ? 4 * most_gain * sqrt((double)D / fmax(aa, 1e-30)) : 1);
    }
    return sum;
}

static wf_status measure_last(wf_probing *p, const last_linear *l, int n, wf_probe_table *t) {
    wf_node **wrt = wf_arena_alloc(wf_graph_arena(p->g), sizeof *wrt * 6 * (size_t)n);
    if (!wrt) return WF_ENOMEM;
    wf_node **grad = wrt + 2 * n, **out = wrt + 4 * n;
    for (int i = 0; i < n; i++) wrt[2 * i] = l[i].weight, wrt[2 * i + 1] = l[i].o;
    WF_TRY(wf_grad(p->g, &p->loss, NULL, 1, wrt, 2 * n, grad));
    for (int i = 0; i < n; i++) out[2 * i] = l[i].h, out[2 * i + 1] = l[i].a;
    wf_node **every = wf_arena_alloc(wf_graph_arena(p->g), sizeof *every * 4 * (size_t)n);
    if (!every) return WF_ENOMEM;
    for (int i = 0; i < 2 * n; i++) every[i] = grad[i], every[2 * n + i] = out[i];
    wf_plan *plan = wf_probing_run(p, every, 4 * n);
    wf_status s = plan ? WF_OK : WF_EINVAL;
    for (int i = 0; i < n && s == WF_OK; i++) {
        const void *dw = wf_plan_out(plan, 2 * i), *r = wf_plan_out(plan, 2 * i + 1), *h = wf_plan_out(plan, 2 * n + 2 * i),
                   *a = wf_plan_out(plan, 2 * n + 2 * i + 1);
        double v[WF_PROBE_COLUMNS];
        v[0] = wf_probe_largest(h, l[i].h);
        v[1] = wf_probe_norm(a, l[i].a) / sqrt((double)wf_shape_count(&l[i].a->shape));
        v[2] = wf_probe_norm(dw, grad[2 * i]);
        v[3] = wf_probe_largest(dw, grad[2 * i]);
        bool known = !l[i].norm || !strcmp(l[i].norm->part->name, "rmsnorm") || !strcmp(l[i].norm->part->name, "layernorm");
        v[4] = known ? bound_of(&l[i], h, a, r) : (double)NAN;
        s = wf_probe_add(t, v, "%s", l[i].down->name);
    }
    wf_plan_free(plan);
    return s;
}

static wf_status massive(const wf_probe_input *in, wf_probe_table *t) {
    wf_probing p;
    wf_status s = wf_probing_open(&p, in, false);
    int n = s == WF_OK ? find_last(&p, NULL) : 0;
    last_linear *l = n ? wf_arena_alloc(wf_graph_arena(p.g), sizeof *l * (size_t)n) : NULL;
    if (n && !l) s = WF_ENOMEM;
    if (s == WF_OK && n) {
        find_last(&p, l);
        s = measure_last(&p, l, n, t);
    }
    wf_probing_close(&p);
    return s;
}

const wf_probe wf_probe_massive = {
    .name = "massive",
    .title = "large activations in front of the MLPs' last matrix, and its gradient",
    .help =
        "activation: largest |h| in front of the matrix; branch: root mean square behind it; gradient: 2-norm of its gradient; "
        "largest entry; bound: what no entry can exceed: with a norm on the branch's output the sum over tokens of 4 gain "
        "sqrt(D) |dL/do| |h|/|a|, else of |dL/da| |h|.",
    .column = {"activation", "branch", "gradient", "largest", "bound"},
    .run = massive,
};
