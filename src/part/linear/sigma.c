/* sigma.c: sigmaReparam (Zhai et al. 2023): the weight divided by its largest singular value, times a learned number.
 *
 *     Wn = (gamma / sigma) W;  v = W u / |W u|, u <- W^T v / |W^T v|, sigma = v^T W u: one power iteration a training step
 *     dW = (gamma/sigma) (M - (<M,W>/sigma) v u^T), dgamma = <M,W>/sigma for M = dL/dWn: u, v are constants, sigma is not
 *
 * u is a buffer: training stores it once a step however often the module is applied or recomputed (readers see the old value);
 * evaluation iterates from it and stores nothing. The step form has Wn's factor as a constant of its plan. Queries, keys and
 * values count as one matrix unless `join` says otherwise: they share u, sigma and gamma.
 */
#include "part/linear/linear.h"
#include "part/linear/spectral.h"

#include <math.h>
#include <string.h>

typedef struct options {
    const char *gamma, *init_u, *join, *bias;
    bool stats_only;
} options;

static const wf_option table[] = {
    {"gamma", WF_OPT_CHOICE, offsetof(options, gamma), "sigma", 0, 0, "sigma|one",
     "first gamma: sigma of the first weight, which leaves the start as it is, or 1"},
    {"init_u", WF_OPT_CHOICE, offsetof(options, init_u), "svd", 0, 0, "svd|iterate",
     "first u: the true singular vector, or 20 power iterations from a random one"},
    {"join", WF_OPT_CHOICE, offsetof(options, join), "qkv", 0, 0, "qkv|qk+v|q+k+v",
     "which of a mixer's q, k, v count as one matrix"},
    WF_LINEAR_BIAS_OPTION(options),
    {"stats_only", WF_OPT_BOOL, offsetof(options, stats_only), "false", 0, 0, NULL, "keep track of sigma, but use W itself"},
    WF_OPT_END};

static bool is_named(const wf_module *m, const char *name) {
    const char *dot = strrchr(m->name, '.');
    return !strcmp(dot ? dot + 1 : m->name, name);
}

/* The module that owns u and gamma: q for those that are joined with it, else m itself. */
static wf_module *leader_of(wf_module *m) {
    const options *o = m->opt;
    bool joined = (is_named(m, "k") && strcmp(o->join, "q+k+v")) || (is_named(m, "v") && !strcmp(o->join, "qkv"));
    wf_module *q = joined && m->parent ? wf_module_find(m->parent, "q") : NULL;
    return q && q->part == m->part && q->in == m->in ? q : m;
}

/* All modules of m's group; at most 3. */
static int members_of(wf_module *m, wf_module *member[3]) {
    wf_module *leader = leader_of(m);
    int n = 0;
    for (int i = 0; leader->parent && i < leader->parent->n_child; i++) {
        wf_module *c = leader->parent->child[i];
        if (n < 3 && c->part == leader->part && leader_of(c) == leader) member[n++] = c;
    }
    if (n == 0) member[n++] = leader;
    return n;
}

static wf_param *own(const wf_module *m, const char *name) {
    for (int i = 0; i < m->n_param; i++)
        if (!strcmp(m->param_name[i], name)) return m->param[i];
    return NULL;
}

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    wf_module *leader = leader_of(m);
    WF_TRY(wf_linear_declare(m, o->bias));
    if (leader != m) {
        WF_TRY(wf_share(m, "u", own(leader, "u")));
        if (!o->stats_only) WF_TRY(wf_share(m, "gamma", own(leader, "gamma")));
    } else {
        if (!wf_declare_buffer(m, "u", WF_F32, WF_SHAPE(m->in), 0)) return WF_ENOMEM;
        if (!o->stats_only && !wf_declare(m, "gamma", WF_SHAPE(1), (wf_init){WF_INIT_ONE, 0}, WF_PARAM_NO_DECAY))
            return WF_ENOMEM;
    }
    return WF_OK;
}

/* ---- outside a graph: first numbers, folding ---- */

static int pieces_of(wf_module *m, wf_rows piece[3], int64_t *rows) {
    wf_module *member[3];
    int n = members_of(m, member);
    *rows = 0;
    for (int i = 0; i < n; i++) {
        piece[i] = (wf_rows){own(member[i], "weight")->value->data, member[i]->out};
        *rows += member[i]->out;
    }
    return n;
}

/* u and gamma of the first weights. */
static wf_status start(wf_module *m) {
    const options *o = m->opt;
    if (leader_of(m) != m) return WF_OK;
    wf_rows piece[3];
    int64_t rows;
    int n = pieces_of(m, piece, &rows);
    double *u = wf_alloc_array((size_t)m->in, sizeof *u), *v = wf_alloc_array((size_t)rows, sizeof *v), sigma = -1;
    if (u && v && !strcmp(o->init_u, "svd")) {
        sigma = wf_largest_singular(piece, n, m->in, u);
    } else if (u && v) {
        wf_rng r = {2, 0, 0};
        for (int64_t i = 0; i < m->in; i++) u[i] = wf_rng_normal(&r);
        for (int i = 0; i < 20; i++) sigma = wf_power_step(piece, n, m->in, u, v);
    }
    for (int64_t i = 0; sigma >= 0 && i < m->in; i++) wf_tensor_set(own(m, "u")->value, i, u[i]);
    if (sigma >= 0 && !o->stats_only && strcmp(o->gamma, "one")) wf_tensor_set(own(m, "gamma")->value, 0, sigma);
    wf_free(u);
    wf_free(v);
    return sigma >= 0 ? WF_OK : WF_ENOMEM;
}

/* gamma / sigma, one iteration from the stored u. */
static wf_status factor_now(wf_module *m, double *factor) {
    const options *o = m->opt;
    wf_rows piece[3];
    int64_t rows;
    *factor = 1;
    if (o->stats_only) return WF_OK;
    int n = pieces_of(m, piece, &rows);
    double *u = wf_alloc_array((size_t)m->in, sizeof *u), *v = wf_alloc_array((size_t)rows, sizeof *v);
    if (u && v) {
        for (int64_t i = 0; i < m->in; i++) u[i] = wf_tensor_get(own(m, "u")->value, i);
        *factor = wf_tensor_get(own(m, "gamma")->value, 0) / wf_power_step(piece, n, m->in, u, v);
    }
    wf_free(u);
    wf_free(v);
    return u && v ? WF_OK : WF_ENOMEM;
}

static wf_status fold_weight(const wf_module *m, float *w) {
    double factor;
    wf_module *self = (wf_module *)(uintptr_t)m;
    WF_TRY(factor_now(self, &factor));
    const float *from = own(m, "weight")->value->data;
    for (int64_t i = 0; i < m->out * m->in; i++) w[i] = (float)(factor * (double)from[i]);
    return WF_OK;
}

/* ---- in a graph ---- */

static wf_node *length_of(wf_graph *g, wf_node *const *x, int n) {
    wf_node *sum = NULL;
    for (int i = 0; i < n; i++) {
        wf_node *s = wf_sum_all(g, wf_square(g, x[i]));
        sum = i ? wf_add(g, sum, s) : s;
    }
    return wf_sqrt(g, sum);
}

static wf_node *over_length(wf_graph *g, wf_node *x, wf_node *length) {
    return wf_stop_gradient(g, wf_div(g, x, wf_max_c(g, length, 1e-12)));
}

/* in: weights, then v [O,1] of each, then u [I,1]. dsigma/dW = v u^T. */
static wf_status sigma_vjp(wf_graph *g, void *ctx, wf_node *value, wf_node *const *in, int n_in, wf_node *gout, wf_node **gin) {
    (void)ctx, (void)value;
    int n = (n_in - 1) / 2;
    wf_node *u = wf_transpose(g, in[2 * n], 0, 1);
    for (int i = 0; i < n; i++) gin[i] = wf_mul(g, wf_mul(g, in[n + i], gout), u);
    return wf_graph_status(g);
}

static bool updates(const wf_build *b, const wf_node *leaf) {
    for (int i = 0; i < b->n_update; i++)
        for (int j = 0; j < b->update[i]->n_in; j++)
            if (b->update[i]->in[j] == leaf) return true;
    return false;
}

/* sigma [] of the group; in training also the next u. */
static wf_node *spectral_norm(wf_build *b, wf_module *m) {
    wf_graph *g = b->g;
    wf_module *member[3], *leader = leader_of(m);
    int n = members_of(m, member);
    wf_node *in[7], *p[3], *t = NULL, *u = wf_unsqueeze(g, wf_use(b, leader, "u"), 1);
    for (int i = 0; i < n; i++) p[i] = wf_matmul(g, in[i] = wf_use(b, member[i], "weight"), u, false, false);
    wf_node *length = length_of(g, p, n);
    for (int i = 0; i < n; i++) {
        in[n + i] = over_length(g, p[i], length);
        wf_node *s = wf_matmul(g, in[i], in[n + i], true, false);
        t = i ? wf_add(g, t, s) : s;
    }
    in[2 * n] = over_length(g, t, length_of(g, &t, 1));
    if (!in[2 * n]) return NULL;
    wf_node *sigma = wf_custom(g, wf_sum_all(g, wf_mul(g, t, in[2 * n])), in, 2 * n + 1, sigma_vjp, NULL);
    wf_tap(b, m, "sigma", sigma);
    if (b->train && !updates(b, wf_leaf(g, own(leader, "u")->value, NULL)) &&
        wf_update(b, leader, "u", wf_squeeze(g, in[2 * n], 1)) != WF_OK)
        return NULL;
    return sigma;
}

wf_node *wf_sigma_weight(wf_build *b, wf_module *m) {
    const options *o = m->opt;
    wf_node *w = wf_use(b, m, "weight"), *sigma = spectral_norm(b, m);
    if (o->stats_only) return sigma ? w : NULL;
    return wf_mul(b->g, w, wf_div(b->g, wf_use(b, m, "gamma"), sigma));
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    return wf_project(b, x, wf_sigma_weight(b, m), wf_use_or_null(b, m, "bias"));
}

/* Token by token an iteration would cost more than the product: the factor of the present weights goes into the plan. */
static wf_node *step(wf_build *b, wf_module *m, wf_node *x) {
    double factor;
    wf_node *bias = wf_use_or_null(b, m, "bias");
    if (factor_now(m, &factor) != WF_OK) return wf_graph_fail(b->g, WF_ENOMEM, "%s", wf_message());
    wf_node *y = wf_mul_c(b->g, wf_project(b, x, wf_use(b, m, "weight"), NULL), factor);
    return bias ? wf_as(b, wf_add(b->g, y, bias), b->compute) : y;
}

const wf_part wf_linear_sigma = {
    .slot = "linear",
    .name = "sigma",
    .title = "sigmaReparam: the weight over its spectral norm, times a learned number",
    .paper = "Zhai et al.: Stabilizing Transformer Training by Preventing Attention Entropy Collapse, 2023, arXiv 2303.06296",
    .sheet = "42",
    .formula = "y = (gamma/sigma) W x + bias, sigma the largest singular value of W by one power iteration a step\n"
               "dW = (gamma/sigma) (M - (<M,W>/sigma) v u^T), M = dL/dWn",
    .facts =
        "The gradient is orthogonal to W: its size does not matter, gamma carries the scale. Keeps the scores of attention "
        "from growing\n"
        "step by step, so high learning rates, and models without norms, train. Everything but embeddings and norms may "
        "use it.\n"
        "weft transform fold turns it into a plain linear.",
    .cost = "6 I O FLOPs a training step beside the product, none after folding; I numbers and gamma",
    .golden = "linear.sigma-reparam linear.sigma-reparam-conv2d",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .forward = forward,
    .step = step,
    .start = start,
    .fold_weight = fold_weight,
};
