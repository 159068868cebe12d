/* linformer.c: Linformer (Wang et al. 2020): keys and values are brought to k rows by learned matrices over the length.
 *
 *     K' = E^T K, V' = F^T V, E, F [Lmax,k];  o = softmax(q K'^T / sqrt(d)) V'
 *
 * E and F are shared by all heads, or are one matrix (share_kv). A shorter sequence uses their first rows, padded tokens none.
 * Every K' row mixes all positions, so no causal form exists.
 */
#include "part/mixer/sparse.h"

#include <math.h>
#include <string.h>

typedef struct options {
    wf_heads_opt heads;
    int64_t k, max_length;
    bool share_kv;
} options;

static const wf_option table[] = {
    WF_HEADS_OPTIONS(options, heads),
    {"k", WF_OPT_INT, offsetof(options, k), "256", 1, 1 << 20, NULL, "rows that keys and values are brought to"},
    {"share_kv", WF_OPT_BOOL, offsetof(options, share_kv), "false", 0, 0, NULL, "one matrix for keys and values, F = E"},
    {"max_length", WF_OPT_INT, offsetof(options, max_length), "0", 0, 1 << 30, NULL,
     "rows of E and F: the longest sequence; 0: the model's"},
    WF_OPT_END};

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    WF_TRY(wf_heads_setup(m, &o->heads));
    WF_TRY(wf_needs_no_scores(m));
    int64_t rows = o->max_length ? o->max_length : m->model->max_length;
    if (rows <= 0) return wf_module_fail(m, WF_EINVAL, "'max_length' is missing and the model has no length of its own");
    wf_init init = {WF_INIT_UNIFORM, 1 / sqrt((double)o->k)};
    for (int i = 0; i < (o->share_kv ? 1 : 2); i++)
        if (!wf_declare(m, i ? "F" : "E", WF_SHAPE(rows, o->k), init, WF_PARAM_MATRIX)) return WF_ENOMEM;
    return WF_OK;
}

wf_node *wf_linformer_shorten(wf_graph *g, wf_node *E, wf_node *x, wf_node *keep) {
    if (!E || !x) return NULL;
    int64_t L = x->shape.dim[1];
    if (keep) x = wf_mul(g, x, wf_unsqueeze(g, wf_cast(g, keep, x->dtype), 2));
    return wf_matmul(g, wf_slice(g, E, 0, 0, L), x, true, false);
}

static wf_node *shorten(wf_build *b, wf_module *m, const char *name, wf_node *x, wf_node *keep) {
    int64_t B = x->shape.dim[0], L = x->shape.dim[1], H = x->shape.dim[2], d = x->shape.dim[3];
    wf_node *E = wf_as(b, wf_use(b, m, name), b->compute);
    wf_node *y = wf_linformer_shorten(b->g, E, wf_reshape(b->g, x, WF_SHAPE(B, L, H * d)), keep);
    return y ? wf_reshape(b->g, y, WF_SHAPE(B, y->shape.dim[1], H, d)) : NULL;
}

/* E^T (x W^T + 1 b^T) = (E^T x) W^T + (E^T 1) b^T: a dense linear needs k rows only, where nothing stands between it and E. */
static wf_node *shorten_first(wf_build *b, wf_module *m, const char *name, wf_module *linear, wf_node *x, wf_node *keep) {
    const wf_heads *h = m->data;
    wf_graph *g = b->g;
    wf_node *E = wf_as(b, wf_use(b, m, name), b->compute), *bias = wf_use_or_null(b, linear, "bias");
    int64_t L = x->shape.dim[1];
    x = wf_linformer_shorten(g, E, wf_as(b, x, b->compute), keep);
    wf_node *y = wf_project(b, x, wf_use(b, linear, "weight"), NULL);
    if (!y) return NULL;
    int64_t B = y->shape.dim[0], k = y->shape.dim[1];
    if (bias) {
        wf_node *ones = keep ? wf_unsqueeze(g, wf_cast(g, keep, E->dtype), 2) : wf_fill(g, E->dtype, WF_SHAPE(1, L, 1), 1);
        wf_node *sums = wf_linformer_shorten(g, E, ones, NULL); /* [B,k,1] or [1,k,1] */
        y = wf_add(g, y, wf_mul(g, sums, wf_as(b, bias, b->compute)));
    }
    return wf_reshape(g, y, WF_SHAPE(B, k, h->K, h->d));
}

static bool plain_keys(const wf_heads *h) {
    return !h->k_norm && !h->position->part->rotate && !strcmp(h->k->part->name, "dense") && !strcmp(h->v->part->name, "dense");
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_node *q, *k, *v, *E = wf_use(b, m, "E"), *weights = NULL;
    if (!x || !E) return NULL;
    if (x->shape.dim[1] > E->shape.dim[0]) {
        wf_module_fail(m, WF_EINVAL,
                       "a sequence of %lld is longer than the %lld rows of E; make the model's length or max_length larger",
                       (long long)x->shape.dim[1], (long long)E->shape.dim[0]);
        return NULL;
    }
    if (b->score_bias)
        return wf_refuse(b, m, "has no scores between tokens, so masks of any form cannot be applied; take softmax");
    const wf_heads *h = m->data;
    const char *F = o->share_kv ? "E" : "F";
    wf_node *keep = wf_keep_mask(b, x);
    if (plain_keys(h)) {
        if (!(q = wf_heads_queries(b, m, x))) return NULL;
        k = shorten_first(b, m, "E", h->k, x, keep);
        v = shorten_first(b, m, F, h->v, x, keep);
        wf_tap(b, m, "q", q);
    } else {
        if (wf_heads_project(b, m, x, x, &q, &k, &v) != WF_OK) return NULL;
        k = shorten(b, m, "E", k, keep);
        v = shorten(b, m, F, v, keep);
    }
    wf_node *y = b->plain ? wf_attention_plain(b->g, q, k, v, NULL, &weights) : wf_attention(b->g, q, k, v, NULL);
    wf_tap(b, m, "weights", weights);
    return wf_heads_merge(b, m, y);
}

const wf_part wf_mixer_linformer = {
    .slot = "mixer",
    .name = "linformer",
    .title = "Linformer: softmax attention over keys and values projected along the length",
    .paper = "Wang, Li, Khabsa, Fang, Ma: Linformer: Self-Attention with Linear Complexity, 2020, arXiv 2006.04768",
    .sheet = "00",
    .formula = "K' = E^T K, V' = F^T V, E, F [Lmax,k] shared by heads; o = softmax(q K'^T/sqrt(d)) V'",
    .facts = "Bidirectional only. Bound to a longest length; a shorter input uses the first rows of E and F.\n"
             "share_kv: one matrix for both. No streaming form.",
    .cost =
        "8 D D FLOPs a token for the linears, 4 k D for shortening, 4 k d H for scores and values; Lmax k parameters, twice",
    .golden = "attention.linformer",
    .options = table,
    .opt_size = sizeof(options),
    .bidirectional_ok = true,
    .setup = setup,
    .forward = forward,
    .readers = "q k v",
    .writers = "o",
};
