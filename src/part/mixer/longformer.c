/* longformer.c: Longformer (Beltagy et al. 2020): a window, and global tokens with projections of their own.
 *
 *     local row i:   o_i = softmax(q_i.k_j / sqrt(d)) v over |i-j| <= w and the global tokens j
 *     global row g:  o_g = softmax(q'_g.k'_j / sqrt(d)) v' over all j;  q', k', v': the projections q_global, k_global, v_global
 *
 * Causal models see j <= i of this. Streaming keeps all keys; the global rows' keys up to the last global token.
 */
#include "part/mixer/sparse.h"

#include <stdlib.h>
#include <string.h>

typedef struct options {
    wf_heads_opt heads;
    int64_t window;
    const wf_value *globals;
} options;

static const wf_option table[] = {WF_HEADS_OPTIONS(options, heads),
                                  {"window", WF_OPT_INT, offsetof(options, window), "256", 0, 1 << 30, NULL,
                                   "one-sided: a token sees this many on each side (before it, if causal) and itself"},
                                  {"global_tokens", WF_OPT_VALUE, offsetof(options, globals), "", 0, 0, NULL,
                                   "positions like [0] that see everything and are seen by all; absent: none"},
                                  WF_OPT_END};

/* wf_heads first, as the shared functions expect it in m->data. */
typedef struct longformer {
    wf_heads heads;
    wf_tensor *globals; /* int32 [G] rising, the model's constant; NULL: none */
    wf_module *q, *k, *v;
    int64_t last;
} longformer;

static void fill_globals(wf_tensor *t, const void *ctx) {
    memcpy(t->data, ctx, t->bytes);
}

static int by_size(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static wf_status read_globals(wf_module *m, longformer *f) {
    const wf_value *list = ((const options *)m->opt)->globals;
    if (!list || list->kind == WF_V_NULL || (list->kind == WF_V_LIST && list->n == 0)) return WF_OK;
    if (list->kind != WF_V_LIST) return wf_value_fail(list, WF_EINVAL, "global_tokens: a list of positions like [0]");
    int32_t *at = wf_arena_alloc(m->model->arena, sizeof *at * (size_t)list->n);
    if (!at) return WF_ENOMEM;
    for (int i = 0; i < list->n; i++) {
        int64_t x, most = m->model->max_length;
        WF_TRY(wf_value_int(list->item[i], &x));
        if (x < 0 || x > INT32_MAX || (most > 0 && x >= most))
            return wf_value_fail(list, WF_EINVAL, "global_tokens: position %lld is outside of the model's length %lld",
                                 (long long)x, (long long)most);
        at[i] = (int32_t)x;
    }
    qsort(at, (size_t)list->n, sizeof *at, by_size);
    for (int i = 1; i < list->n; i++)
        if (at[i] == at[i - 1]) return wf_value_fail(list, WF_EINVAL, "global_tokens: position %d is there twice", at[i]);
    f->last = at[list->n - 1];
    char key[160];
    snprintf(key, sizeof key, "globals %s", m->name);
    f->globals = wf_model_constant(m->model, key, WF_I32, WF_SHAPE(list->n), fill_globals, at);
    return f->globals ? WF_OK : WF_ENOMEM;
}

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    WF_TRY(wf_heads_setup(m, &o->heads));
    longformer *f = wf_arena_alloc(m->model->arena, sizeof *f);
    if (!f) return WF_ENOMEM;
    f->heads = *(const wf_heads *)m->data;
    const wf_heads *h = m->data = f;
    WF_TRY(read_globals(m, f));
    if (!f->globals) return WF_OK;
    if (h->unit || h->q_norm || h->position->part->bias)
        return wf_module_fail(m, WF_EUNSUPPORTED,
                              "global tokens have no %s; take qk_norm: none and rope, sinusoidal or learned positions",
                              h->position->part->bias ? "position bias" : "qk_norm");
    bool bias = wf_bias_wanted(m, strcmp(o->heads.qkv_bias, "model") ? o->heads.qkv_bias : o->heads.bias);
    f->q = wf_child_linear(m, "q_global", m->in, h->H * h->d, bias, WF_LINEAR_INNER);
    f->k = wf_child_linear(m, "k_global", m->in, h->K * h->d, bias, WF_LINEAR_INNER);
    f->v = wf_child_linear(m, "v_global", m->in, h->K * h->d, bias, WF_LINEAR_VALUE);
    return f->q && f->k && f->v ? WF_OK : WF_EINVAL;
}

/* ---- the formula ---- */

static wf_node *attend(wf_graph *g, wf_node *q, wf_node *k, wf_node *v, const wf_attention_spec *a, const wf_longformer *s) {
    return s->plain ? wf_attention_plain(g, q, k, v, a, s->weights) : wf_attention(g, q, k, v, a);
}

static wf_node *leaf(wf_graph *g, const wf_tensor *t) {
    return t ? wf_leaf(g, (wf_tensor *)(uintptr_t)t, "global tokens") : NULL;
}

wf_node *wf_longformer_near(wf_graph *g, wf_node *q, wf_node *k, wf_node *v, const wf_longformer *s) {
    wf_attention_spec a = {.causal = s->causal, .window_back = s->window + 1, .lengths = s->lengths};
    a.window_forward = s->causal ? 0 : s->window + 1;
    a.globals = leaf(g, s->globals);
    return attend(g, q, k, v, &a, s);
}

wf_node *wf_longformer_rows(wf_graph *g, wf_node *x, const wf_longformer *s) {
    if (!x) return NULL;
    wf_shape flat = x->shape;
    int64_t B = flat.dim[0], L = flat.dim[1];
    flat.rank--;
    flat.dim[0] = B * L;
    for (int i = 1; i < flat.rank; i++) flat.dim[i] = x->shape.dim[i + 1];
    wf_node *first = wf_mul_c(g, wf_index(g, WF_F64, WF_SHAPE(B, 1), 0), (double)L);
    wf_node *at = wf_cast(g, wf_add(g, first, wf_cast(g, leaf(g, s->globals), WF_F64)), WF_I32);
    return wf_gather(g, wf_reshape(g, x, flat), at); /* [B,G,..] */
}

wf_node *wf_longformer_far(wf_graph *g, wf_node *q, wf_node *k, wf_node *v, const wf_longformer *s) {
    wf_attention_spec a = {.lengths = s->lengths};
    if (!q || !k) return NULL;
    if (s->causal) {
        int64_t G = q->shape.dim[1];
        wf_node *at = wf_reshape(g, wf_cast(g, leaf(g, s->globals), WF_F32), WF_SHAPE(1, 1, G, 1));
        wf_node *later = wf_lt(g, at, wf_index(g, WF_F32, WF_SHAPE(1, 1, G, k->shape.dim[1]), 3));
        a.bias = wf_mul_c(g, later, -1e30); /* a row sees at least itself */
    }
    wf_longformer quiet = *s;
    quiet.weights = NULL;
    return attend(g, q, k, v, &a, &quiet);
}

wf_node *wf_longformer_join(wf_graph *g, wf_node *near, wf_node *far, const wf_longformer *s) {
    if (!near || !far) return NULL;
    int64_t L = near->shape.dim[1], at = 0, G = s->globals->shape.dim[0], n = 0;
    const int32_t *of = s->globals->data;
    wf_node **part = wf_arena_alloc(wf_graph_arena(g), sizeof *part * (size_t)(2 * G + 1));
    if (!part) return wf_graph_fail(g, WF_ENOMEM, "%s", wf_message());
    for (int64_t x = 0, run; x < G; x += run) {
        for (run = 1; x + run < G && of[x + run] == of[x] + run;) run++;
        if (of[x] > at) part[n++] = wf_slice(g, near, 1, at, of[x] - at);
        part[n++] = wf_slice(g, far, 1, x, run);
        at = of[x] + run;
    }
    if (at < L) part[n++] = wf_slice(g, near, 1, at, L - at);
    return wf_concat(g, part, (int)n, 1);
}

/* ---- the part ---- */

static wf_node *split(wf_build *b, const wf_heads *h, wf_node *x, int64_t n) {
    if (!x) return NULL;
    return wf_as(b, wf_reshape(b->g, x, WF_SHAPE(x->shape.dim[0], x->shape.dim[1], n, h->d)), b->compute);
}

/* Projections of the global rows: queries of those alone, unless positions turn them where they stand. */
static wf_status project_far(wf_build *b, wf_module *m, wf_node *x, const wf_longformer *s, bool all, wf_node **q, wf_node **k,
                             wf_node **v) {
    const longformer *f = m->data;
    const wf_heads *h = &f->heads;
    bool turn = h->position->part->rotate;
    *k = split(b, h, wf_apply(b, f->k, x), h->K);
    *v = split(b, h, wf_apply(b, f->v, x), h->K);
    *q = split(b, h, wf_apply(b, f->q, turn || all ? x : wf_longformer_rows(b->g, x, s)), h->H);
    if (turn) WF_TRY(h->position->part->rotate(b, h->position, q, k));
    if (turn && !all) *q = wf_longformer_rows(b->g, *q, s);
    return *q && *k && *v ? WF_OK : WF_EINVAL;
}

static wf_node *cached(wf_build *b, wf_module *m, const char *name, wf_node *x) {
    wf_shape s = x->shape;
    s.dim[1] = b->max_length;
    return wf_cache_write(b->g, wf_state(b, m, name, x->dtype, s), x, b->pos, false);
}

/* Streaming with global tokens: every key is kept. Which rows are global is known when it runs. */
static wf_node *step(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    const longformer *f = m->data;
    wf_graph *g = b->g;
    wf_node *q, *k, *v, *qg, *kg, *vg;
    if (!f->globals) {
        if (wf_heads_project(b, m, x, x, &q, &k, &v) != WF_OK) return NULL;
        wf_attention_spec s = {0};
        return wf_heads_merge(b, m, wf_heads_attend(b, m, q, k, v, &s, o->window + 1));
    }
    if (wf_heads_project(b, m, x, x, &q, &k, &v) != WF_OK || project_far(b, m, x, NULL, true, &qg, &kg, &vg) != WF_OK)
        return NULL;
    int64_t L = x->shape.dim[1], seen = f->last + 1 < b->max_length ? f->last + 1 : b->max_length;
    wf_attention_spec near = {.causal = true, .window_back = o->window + 1, .globals = leaf(g, f->globals), .q_start = b->pos},
                      far = {.causal = true, .q_start = b->pos};
    wf_node *local = wf_attention(g, q, cached(b, m, "k", k), cached(b, m, "v", v), &near);
    wf_node *all = wf_attention(g, qg, wf_slice(g, cached(b, m, "k_global", kg), 1, 0, seen),
                                wf_slice(g, cached(b, m, "v_global", vg), 1, 0, seen), &far);
    wf_node *at = wf_reshape(g, wf_positions(b, WF_F32, L), WF_SHAPE(L, 1));
    wf_node *is = wf_amax(g, wf_eq(g, at, wf_cast(g, leaf(g, f->globals), WF_F32)), 1u << 1, false); /* [L] */
    return wf_heads_merge(b, m, wf_where(g, wf_reshape(g, is, WF_SHAPE(1, L, 1, 1)), all, local));
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    const longformer *f = m->data;
    wf_node *q, *k, *v, *weights = NULL;
    if (!x) return NULL;
    if (f->globals && f->last >= x->shape.dim[1]) {
        wf_module_fail(m, WF_EINVAL, "global token %lld is outside of a sequence of %lld", (long long)f->last,
                       (long long)x->shape.dim[1]);
        return NULL;
    }
    if (b->score_bias && f->globals)
        return wf_refuse(b, m, "masks of any form and global tokens do not go together; take softmax, or no global_tokens");
    if (wf_heads_project(b, m, x, x, &q, &k, &v) != WF_OK) return NULL;
    if (!f->globals) {
        wf_attention_spec s = {0};
        return wf_heads_merge(b, m, wf_heads_attend(b, m, q, k, v, &s, o->window + 1));
    }
    wf_longformer s = {o->window, f->globals, b->causal, b->plain, b->lengths, &weights};
    wf_node *near = wf_longformer_near(b->g, q, k, v, &s);
    wf_tap(b, m, "weights", weights);
    if (project_far(b, m, x, &s, false, &q, &k, &v) != WF_OK) return NULL;
    return wf_heads_merge(b, m, wf_longformer_join(b->g, near, wf_longformer_far(b->g, q, k, v, &s), &s));
}

const wf_part wf_mixer_longformer = {
    .slot = "mixer",
    .name = "longformer",
    .title = "Longformer: a window, and global tokens with projections of their own",
    .paper = "Beltagy, Peters, Cohan: Longformer: The Long-Document Transformer, 2020, arXiv 2004.05150",
    .sheet = "00",
    .formula = "o_i = softmax(q_i.k_j/sqrt(d)) v over |i-j| <= window and global j (j <= i if causal)\n"
               "global rows: o_g = softmax(q'_g.k'_j/sqrt(d)) v' over all j; q', k', v' of q_global, k_global, v_global",
    .facts = "The window is one-sided: 2 window + 1 tokens in all. For a class token take global_tokens: [0].\n"
             "Without global tokens it is softmax with a window. Streaming with global tokens keeps all keys.",
    .cost = "8 D D FLOPs a token for the linears (12 D D with global tokens), 4 (2 window + 1 + G) d H, half if causal",
    .golden = "attention.longformer",
    .options = table,
    .opt_size = sizeof(options),
    .causal_ok = true,
    .bidirectional_ok = true,
    .setup = setup,
    .forward = forward,
    .step = step,
    .readers = "q k v q_global k_global v_global",
    .writers = "o",
};
