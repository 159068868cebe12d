/* probe_attention.c: entropy of attention with its lower bounds, and spectral norms of weights (Zhai et al. 2023). */
#include "learn/probing.h"
#include "part/linear/spectral.h"
#include "part/mixer/entropy.h"
#include "part/mixer/heads.h"

#include <math.h>
#include <string.h>

static wf_param *parameter(const wf_module *m, const char *name) {
    for (int i = 0; i < m->n_param; i++)
        if (!strcmp(m->param_name[i], name)) return m->param[i];
    return NULL;
}

/* The weight [O,I] that a linear uses, with its bias as one more column if it has one: [O,I+1]. wf_free it. */
static float *weight_of(const wf_module *m, bool with_bias) {
    const wf_param *w = parameter(m, "weight"), *b = parameter(m, "bias");
    if (!m->part->fold_weight && (!w || strcmp(m->part->name, "dense"))) return NULL;
    int64_t O = m->out, I = m->in, cols = I + with_bias;
    float *flat = wf_alloc_array((size_t)(O * I), sizeof *flat), *x = wf_alloc_array((size_t)(O * cols), sizeof *x);
    bool ok = flat && x;
    if (ok && m->part->fold_weight)
        ok = m->part->fold_weight(m, flat) == WF_OK;
    else if (ok)
        memcpy(flat, w->value->data, sizeof *flat * (size_t)(O * I));
    for (int64_t r = 0; ok && r < O; r++) {
        memcpy(x + r * cols, flat + r * I, sizeof *x * (size_t)I);
        if (with_bias) x[r * cols + I] = b ? (float)wf_tensor_get(b->value, r) : 0;
    }
    wf_free(flat);
    if (ok) return x;
    wf_free(x);
    return NULL;
}

static double spectral_norm(const float *w, int64_t rows, int64_t cols) {
    double *u = wf_alloc_array((size_t)cols, sizeof *u);
    wf_rows all = {w, rows};
    double s = u ? wf_largest_singular(&all, 1, cols, u) : -1;
    wf_free(u);
    return s < 0 ? (double)NAN : s;
}

/* ---- entropy ---- */

/* One mixer on the batch. */
typedef struct attention {
    const wf_module *m;
    wf_node *x, *weights, *scores, *visible, *scale, *entropy, *length, *count, *mass;
} attention;

static int find_attention(const wf_probing *p, attention *out) {
    int n = 0;
    for (int i = 0; i < p->n; i++) {
        const wf_module *m = p->tap[i].module;
        if (strcmp(p->tap[i].what, "weights")) continue;
        int nth = 0; /* a shared mixer is applied several times */
        for (int k = 0; k < i; k++) nth += p->tap[k].module == m && !strcmp(p->tap[k].what, "weights");
        if (out)
            out[n] = (attention){.m = m,
                                 .x = wf_probing_find(p, m, "input", nth),
                                 .weights = p->tap[i].node,
                                 .scores = wf_probing_find(p, m, "scores", nth),
                                 .visible = wf_probing_find(p, m, "visible", nth),
                                 .scale = wf_probing_find(p, m, "scale", nth)};
        n++;
    }
    return n;
}

/* Entropy of the weights as they are: rows that do not sum to 1 are taken relative to their sum, their mass. */
static void build_attention(wf_graph *g, attention *a) {
    wf_node *mass = wf_sum(g, a->weights, 1u << 3, true);
    wf_node *p = wf_div(g, a->weights, wf_max_c(g, mass, 1e-30)), *tiny = wf_fill(g, p ? p->dtype : WF_F32, WF_SHAPE(1), 1e-37);
    wf_node *plain = wf_neg(g, wf_sum(g, wf_mul(g, p, wf_log(g, wf_max(g, p, tiny))), 1u << 3, false));
    bool normalised = strcmp(a->m->part->name, "sigmoid") && a->scores;
    a->entropy = normalised ? wf_row_entropy(g, a->scores, a->visible) : plain;
    a->length = normalised ? wf_row_length(g, a->scores, a->visible) : NULL;
    a->count = a->scores ? wf_row_count(g, a->scores, a->visible) : NULL;
    a->mass = wf_squeeze(g, mass, 3);
}

/* The largest singular value of rows q0..q0+d of the first weight transposed times rows k0.. of the second: of W_q^T W_k. */
static double product_norm(const float *q, const float *k, int64_t d, int64_t cols, bool turned) {
    if (turned) return spectral_norm(q, d, cols) * spectral_norm(k, d, cols); /* a rotation stands between them */
    float *x = wf_alloc_array((size_t)(cols * cols), sizeof *x);
    for (int64_t r = 0; x && r < d; r++)
        for (int64_t i = 0; i < cols; i++)
            for (int64_t j = 0; j < cols; j++) x[i * cols + j] += q[r * cols + i] * k[r * cols + j];
    double s = x ? spectral_norm(x, cols, cols) : (double)NAN;
    wf_free(x);
    return s;
}

/* |W_K W_Q^T| by head: what a score row's length is bounded by, up to |X X^T| and the scale. False: scores are made otherwise. */
static bool head_norms(const attention *a, double *norm) {
    if (strcmp(a->m->part->name, "softmax") || !a->x || !a->scale) return false;
    const wf_heads *h = a->m->data;
    if (h->q_norm || h->k_norm || h->unit || h->position->part->bias) return false;
    float *q = weight_of(h->q, true), *k = weight_of(h->k, true);
    int64_t cols = h->q->in + 1;
    for (int64_t i = 0; q && k && i < h->H; i++)
        norm[i] = product_norm(q + i * h->d * cols, k + i * h->K / h->H * h->d * cols, h->d, cols, h->position->part->rotate);
    bool ok = q && k;
    wf_free(q);
    wf_free(k);
    return ok;
}

/* |X X^T| of every sample, X with a column of ones beside it. */
static void input_norms(const float *x, int64_t B, int64_t L, int64_t D, double *norm) {
    float *one = wf_alloc_array((size_t)(L * (D + 1)), sizeof *one);
    for (int64_t b = 0; b < B; b++) {
        for (int64_t t = 0; one && t < L; t++) {
            memcpy(one + t * (D + 1), x + (b * L + t) * D, sizeof *one * (size_t)D);
            one[t * (D + 1) + D] = 1;
        }
        norm[b] = one ? pow(spectral_norm(one, L, D + 1), 2) : (double)NAN;
    }
    wf_free(one);
}

typedef struct numbers { /* of one mixer, from the plan */
    const float *x, *scores, *entropy, *length, *count, *mass, *scale;
    int64_t B, H, L, S, D;
    double *head, *sample; /* NULL: no bound by weights */
} numbers;

enum { ENTROPY, LOWEST, MOST, MASS, BOUND_ROW, BOUND_SPECTRAL, BOUND_PRODUCT };

/* Means over samples and queries of head h. */
static void head_row(const numbers *n, int64_t h, double v[WF_PROBE_COLUMNS]) {
    double per = 1 / (double)(n->B * n->L);
    for (int i = 0; i < WF_PROBE_COLUMNS; i++) v[i] = 0;
    v[LOWEST] = INFINITY;
    for (int64_t b = 0; b < n->B; b++) {
        double spectral = n->length ? spectral_norm(n->scores + (b * n->H + h) * n->L * n->S, n->L, n->S) : (double)NAN;
        double product = n->head ? (double)n->scale[0] * n->head[h] * n->sample[b] : (double)NAN;
        for (int64_t t = 0; t < n->L; t++) {
            int64_t i = (b * n->H + h) * n->L + t;
            double T = n->count ? (double)n->count[i] : (double)n->S, e = (double)n->entropy[i];
            v[ENTROPY] += per * e;
            if (T > 1.5) v[LOWEST] = fmin(v[LOWEST], e);
            v[MOST] += T > 0 ? per * log(T) : 0;
            v[MASS] += per * (double)n->mass[i];
            v[BOUND_ROW] += n->length ? per * wf_entropy_bound_of((double)n->length[i], T) : (double)NAN;
            v[BOUND_SPECTRAL] += per * wf_entropy_bound_of(spectral, T);
            v[BOUND_PRODUCT] += per * wf_entropy_bound_of(product, T);
        }
    }
}

static wf_status add_rows(const attention *a, numbers *n, wf_probe_table *t) {
    double all[WF_PROBE_COLUMNS] = {0};
    n->head = wf_alloc_array((size_t)n->H, sizeof *n->head);
    n->sample = wf_alloc_array((size_t)n->B, sizeof *n->sample);
    if (!n->head || !n->sample) return WF_ENOMEM;
    double *head = n->head;
    if (head_norms(a, n->head))
        input_norms(n->x, n->B, n->L, n->D, n->sample);
    else
        n->head = NULL;
    wf_status s = WF_OK;
    all[LOWEST] = INFINITY;
    for (int64_t h = 0; h < n->H && s == WF_OK; h++) {
        double v[WF_PROBE_COLUMNS];
        head_row(n, h, v);
        s = wf_probe_add(t, v, "%s head %lld", a->m->name[0] ? a->m->name : a->m->part->name, (long long)h);
        for (int i = 0; i < WF_PROBE_COLUMNS; i++) all[i] = i == LOWEST ? fmin(all[i], v[i]) : all[i] + v[i] / (double)n->H;
    }
    wf_free(head);
    wf_free(n->sample);
    return s == WF_OK ? wf_probe_add(t, all, "%s", a->m->name[0] ? a->m->name : a->m->part->name) : s;
}

enum { PER = 7 };

static wf_status measure_attention(const wf_probing *p, attention *a, wf_probe_table *t) {
    build_attention(p->g, a);
    wf_node *dummy = a->mass, *out[PER] = {a->entropy,
                                           a->mass,
                                           a->count ? a->count : dummy,
                                           a->length ? a->length : dummy,
                                           a->scores ? a->scores : dummy,
                                           a->x ? a->x : dummy,
                                           a->scale ? a->scale : dummy};
    wf_plan *plan = wf_probing_run(p, out, PER);
    if (!plan) return WF_EINVAL;
    const int64_t *d = a->weights->shape.dim;
    numbers n = {.B = d[0], .H = d[1], .L = d[2], .S = d[3], .D = a->x ? a->x->shape.dim[a->x->shape.rank - 1] : 0};
    n.entropy = wf_plan_out(plan, 0);
    n.mass = wf_plan_out(plan, 1);
    n.count = a->count ? wf_plan_out(plan, 2) : NULL;
    n.length = a->length ? wf_plan_out(plan, 3) : NULL;
    n.scores = a->scores ? wf_plan_out(plan, 4) : NULL;
    n.x = a->x ? wf_plan_out(plan, 5) : NULL;
    n.scale = a->scale ? wf_plan_out(plan, 6) : NULL;
    wf_status s = add_rows(a, &n, t);
    wf_plan_free(plan);
    return s;
}

static wf_status entropy(const wf_probe_input *in, wf_probe_table *t) {
    wf_probing p;
    wf_status s = wf_probing_open(&p, in, true);
    int n = s == WF_OK ? find_attention(&p, NULL) : 0;
    attention *a = n ? wf_arena_alloc(wf_graph_arena(p.g), sizeof *a * (size_t)n) : NULL;
    if (n && !a) s = WF_ENOMEM;
    if (a) find_attention(&p, a);
    for (int i = 0; i < n && s == WF_OK; i++)
        s = measure_attention(&p, &a[i], t); /* layer by layer: all weights at once are large */
    wf_probing_close(&p);
    return s;
}

const wf_probe wf_probe_entropy = {
    .name = "entropy",
    .title = "entropy of attention by layer and head, with three lower bounds",
    .help = "in nats, mean over samples and queries: entropy; lowest of a query that sees at least two keys; most: log of the "
            "keys seen; "
            "mass: sum of a query's weights. bound row: from the length of the query's centred scores; spectral: from the "
            "spectral "
            "norm of all scores; product: from the norms of weights and input. 0 is attention to one key.",
    .column = {"entropy", "lowest", "most", "mass", "bound row", "spectral", "product"},
    .run = entropy,
};

/* ---- spectral norms of weights ---- */

static bool is_matrix(const wf_module *m) {
    const wf_param *w = parameter(m, "weight");
    return !strcmp(m->part->slot, "linear") && w && w->value->shape.rank == 2 && w->value->shape.dim[0] == m->out &&
           w->value->shape.dim[1] == m->in && w->value->dtype == WF_F32;
}

static wf_status add_weights(const wf_module *m, const wf_model *first, wf_probe_table *t) {
    if (is_matrix(m)) {
        const wf_param *w = parameter(m, "weight"), *w0 = first ? wf_model_param(first, w->name) : NULL;
        double v[WF_PROBE_COLUMNS] = {0}, size = wf_probe_norm(w->value->data, &(wf_node){.shape = w->value->shape});
        float *used = weight_of(m, false);
        v[0] = spectral_norm(w->value->data, m->out, m->in);
        v[1] = w0 ? spectral_norm(w0->value->data, m->out, m->in) : (double)NAN;
        v[2] = v[0] / v[1];
        v[3] = used ? spectral_norm(used, m->out, m->in) : (double)NAN;
        v[4] = v[0] > 0 ? pow(size / v[0], 2) : (double)NAN;
        wf_free(used);
        WF_TRY(wf_probe_add(t, v, "%s", m->name[0] ? m->name : m->part->name));
    }
    for (int i = 0; i < m->n_child; i++) WF_TRY(add_weights(m->child[i], first, t));
    return WF_OK;
}

static wf_status sigma(const wf_probe_input *in, wf_probe_table *t) {
    const wf_value *train = in->model->recipe ? wf_value_get(in->model->recipe, "train") : NULL,
                   *seed = train ? wf_value_get(train, "seed") : NULL;
    int64_t number = 1;
    if (seed) WF_TRY(wf_value_int(seed, &number));
    wf_model *first = in->model->recipe ? wf_model_new(in->model->recipe, (uint64_t)number) : NULL;
    wf_status s = add_weights(in->model->root, first, t);
    wf_model_free(first);
    return s;
}

const wf_probe wf_probe_sigma = {
    .name = "sigma",
    .title = "spectral norms of the linears' weights, and how they grew",
    .help =
        "now: largest singular value; first: the same of the first weights (made again from the recipe's seed); growth: their "
        "ratio; "
        "used: of the weight that the product really uses (sigmaReparam: |gamma|); stable rank: squared Frobenius norm over "
        "squared spectral norm.",
    .column = {"now", "first", "growth", "used", "stable rank"},
    .run = sigma,
};
