/* heads.c: from the stream to heads and back. */
#include "part/mixer/heads.h"

#include <math.h>
#include <string.h>

static wf_module *qk_norm(wf_module *m, const char *name, const wf_heads_opt *o, int64_t width) {
    if (strcmp(o->qk_norm, "ln_head"))
        return wf_child_text(m, name, "norm", width, width, "{name: rmsnorm, eps: %.17g}", o->qk_norm_eps);
    return wf_child_text(m, name, "norm", width, width, "{name: layernorm, eps: %.17g, bias: %s}", o->qk_norm_eps,
                         o->qk_norm_bias ? "true" : "false");
}

static wf_status norms_setup(wf_module *m, wf_heads *h, const wf_heads_opt *o) {
    if (!strcmp(o->qk_norm, "none")) return WF_OK;
    if (!strcmp(o->qk_norm, "l2")) {
        h->unit = true;
        wf_init start = {WF_INIT_CONST, sqrt((double)h->d)};
        return wf_declare(m, "tau", WF_SHAPE(h->H), start, WF_PARAM_NO_DECAY) ? WF_OK : WF_ENOMEM;
    }
    h->full = !strcmp(o->qk_norm, "rms_full");
    h->q_norm = qk_norm(m, "q_norm", o, h->full ? h->H * h->d : h->d);
    h->k_norm = qk_norm(m, "k_norm", o, h->full ? h->K * h->d : h->d);
    return h->q_norm && h->k_norm ? WF_OK : WF_EINVAL;
}

static wf_status sizes(const wf_module *m, wf_heads *h, const wf_heads_opt *o) {
    int64_t D = m->in;
    h->H = o->heads ? o->heads : D / 64 > 0 ? D / 64 : 1;
    h->K = o->kv_heads ? o->kv_heads : h->H;
    h->d = o->head_dim ? o->head_dim : D / h->H;
    if (!o->head_dim && D % h->H)
        return wf_module_fail(m, WF_EINVAL, "'heads' must divide the width (%lld does not divide %lld), or give head_dim",
                              (long long)h->H, (long long)D);
    if (h->H % h->K)
        return wf_module_fail(m, WF_EINVAL, "'kv_heads' must divide 'heads' (%lld does not divide %lld)", (long long)h->K,
                              (long long)h->H);
    return WF_OK;
}

static bool choose(const wf_module *m, const char *own, const char *all) {
    return wf_bias_wanted(m, !strcmp(own, "model") ? all : own);
}

wf_status wf_heads_setup(wf_module *m, const wf_heads_opt *o) {
    return wf_heads_setup_with(m, o, "none");
}

wf_status wf_heads_setup_with(wf_module *m, const wf_heads_opt *o, const char *position) {
    wf_heads *h = wf_arena_alloc(m->model->arena, sizeof *h);
    if (!h) return WF_ENOMEM;
    m->data = h;
    WF_TRY(sizes(m, h, o));
    bool qkv = choose(m, o->qkv_bias, o->bias);
    h->q = wf_child_linear(m, "q", m->in, h->H * h->d, qkv, WF_LINEAR_INNER);
    h->k = wf_child_linear(m, "k", m->in, h->K * h->d, qkv, WF_LINEAR_INNER);
    h->v = wf_child_linear(m, "v", m->in, h->K * h->d, qkv, WF_LINEAR_VALUE);
    if (!h->q || !h->k || !h->v) return WF_EINVAL;
    WF_TRY(norms_setup(m, h, o));
    h->position = wf_child_spec(m, "position", "position", position, o->position, h->d, h->d);
    if (!h->position) return WF_EINVAL;
    WF_TRY(wf_inner_norm_setup(m, h->H * h->d));
    h->o = wf_child_linear(m, "o", h->H * h->d, m->out, choose(m, o->out_bias, o->bias), WF_LINEAR_RESIDUAL);
    return h->o ? WF_OK : WF_EINVAL;
}

/* [B,L,n*d] -> [B,L,n,d], normed. */
static wf_node *split(wf_build *b, const wf_heads *h, wf_node *x, int64_t n, wf_module *norm) {
    if (!x) return NULL;
    if (norm && h->full) x = wf_apply(b, norm, x);
    if (!x) return NULL;
    x = wf_reshape(b->g, x, WF_SHAPE(x->shape.dim[0], x->shape.dim[1], n, h->d));
    if (norm && !h->full) x = wf_apply(b, norm, x);
    return wf_as(b, x, b->compute);
}

static wf_node *unit(wf_build *b, wf_node *x, wf_node *tau) {
    wf_graph *g = b->g;
    wf_node *q = wf_max_c(g, wf_sum(g, wf_square(g, x), 1u << 3, true), 1e-24);
    wf_node *y = wf_mul(g, x, wf_rsqrt(g, q));
    if (tau) y = wf_mul(g, y, wf_unsqueeze(g, tau, 1));
    return wf_as(b, y, b->compute);
}

wf_node *wf_heads_queries(wf_build *b, wf_module *m, wf_node *x) {
    const wf_heads *h = m->data;
    return split(b, h, wf_apply(b, h->q, x), h->H, h->q_norm);
}

wf_status wf_heads_split(wf_build *b, wf_module *m, wf_node *x, wf_node *source, wf_node **q, wf_node **k, wf_node **v) {
    const wf_heads *h = m->data;
    *q = wf_heads_queries(b, m, x);
    *k = split(b, h, wf_apply(b, h->k, source), h->K, h->k_norm);
    *v = split(b, h, wf_apply(b, h->v, source), h->K, NULL);
    if (!*q || !*k || !*v) return WF_EINVAL;
    if (h->unit) {
        *q = unit(b, *q, wf_use(b, m, "tau"));
        *k = unit(b, *k, NULL);
    }
    return *q && *k ? WF_OK : WF_EINVAL;
}

wf_status wf_heads_project(wf_build *b, wf_module *m, wf_node *x, wf_node *source, wf_node **q, wf_node **k, wf_node **v) {
    const wf_heads *h = m->data;
    WF_TRY(wf_heads_split(b, m, x, source, q, k, v));
    if (h->position->part->rotate) WF_TRY(h->position->part->rotate(b, h->position, q, k));
    wf_tap(b, m, "q", *q);
    wf_tap(b, m, "k", *k);
    wf_tap(b, m, "v", *v);
    return *q && *k && *v ? WF_OK : WF_EINVAL;
}

static wf_status dropout(wf_build *b, const wf_module *m, wf_attention_spec *s) {
    if (!b->train || b->no_dropout || s->dropout <= 0) return s->dropout = 0, WF_OK;
    s->seed = b->seed;
    s->stream = wf_stream(b);
    if (b->seed) return WF_OK;
    wf_graph_fail(b->g, WF_EINVAL, "%s: dropout needs a seed: set wf_build.seed", m->name);
    return WF_EINVAL;
}

wf_status wf_heads_settle(wf_build *b, wf_module *m, wf_node **k, wf_node **v, wf_attention_spec *s, int64_t window,
                          bool cross) {
    const wf_heads *h = m->data;
    if (!*k || !*v) return WF_EINVAL;
    if (h->unit && s->scale == 0) s->scale = 1;
    if (cross) s->lengths = b->context_lengths, s->bias = b->context_bias;
    if (cross) return dropout(b, m, s);
    s->causal = b->causal;
    s->lengths = b->lengths;
    s->bias = b->score_bias;
    s->window_back = window;
    s->window_forward = b->causal ? 0 : window;
    if (h->position->part->bias) WF_TRY(h->position->part->bias(b, h->position, h->H, s));
    WF_TRY(dropout(b, m, s));
    return b->step ? wf_cache_keys(b, m, k, v, s, window) : WF_OK;
}

wf_node *wf_heads_call(wf_build *b, wf_module *m, wf_node *q, wf_node *k, wf_node *v, const wf_attention_spec *s,
                       wf_node **weights) {
    wf_graph *g = b->g;
    if (!b->plain) return wf_attention(g, q, k, v, s);
    if (b->tap) { /* as weights without a function: the scores; and with scores of 0: who sees whom */
        wf_attention_spec bare = *s;
        wf_node *scores = NULL, *half = NULL;
        bare.normaliser = WF_NORMALISE_NONE;
        bare.score = WF_SCORE_LINEAR;
        bare.dropout = 0;
        wf_attention_plain(g, q, k, v, &bare, &scores);
        wf_tap(b, m, "scores", scores);
        if (q)
            wf_tap(b, m, "scale", wf_fill(g, WF_F32, WF_SHAPE(1), s->scale > 0 ? s->scale : 1 / sqrt((double)q->shape.dim[3])));
        bare.score = WF_SCORE_SIGMOID;
        bare.score_bias = 0;
        bare.slopes = bare.bias = NULL;
        wf_attention_plain(g, q ? wf_mul_c(g, q, 0) : NULL, k, v, &bare, &half);
        wf_tap(b, m, "visible", wf_mul_c(g, half, 2));
    }
    return wf_attention_plain(g, q, k, v, s, weights);
}

wf_node *wf_heads_attend(wf_build *b, wf_module *m, wf_node *q, wf_node *k, wf_node *v, wf_attention_spec *s, int64_t window) {
    wf_node *weights = NULL;
    if (!q || wf_heads_settle(b, m, &k, &v, s, window, false) != WF_OK) return NULL;
    wf_node *o = wf_heads_call(b, m, q, k, v, s, &weights);
    wf_tap(b, m, "weights", weights);
    return o;
}

wf_node *wf_heads_merge(wf_build *b, wf_module *m, wf_node *o) {
    const wf_heads *h = m->data;
    if (!o) return NULL;
    o = wf_reshape(b->g, o, WF_SHAPE(o->shape.dim[0], o->shape.dim[1], h->H * h->d));
    return wf_apply(b, h->o, wf_inner_norm(b, m, o));
}

wf_status wf_needs_no_scores(const wf_module *m) {
    const wf_heads *h = m->data;
    if (h->K != h->H)
        return wf_module_fail(m, WF_EUNSUPPORTED, "'kv_heads' other than 'heads' is not possible here; leave it out");
    if (h->unit)
        return wf_module_fail(m, WF_EUNSUPPORTED,
                              "qk_norm: l2 learns a scale of scores, which do not exist here; take rms_head");
    if (h->position->part->bias)
        return wf_module_fail(m, WF_EUNSUPPORTED,
                              "a bias on scores (position %s) needs scores; take rope, sinusoidal or learned positions",
                              h->position->part->name);
    return WF_OK;
}

wf_node *wf_refuse(wf_build *b, const wf_module *m, const char *why) {
    wf_module_fail(m, WF_EUNSUPPORTED, "%s", why);
    return wf_graph_fail(b->g, WF_EUNSUPPORTED, "%s", wf_message());
}
