/* generate.c: sessions, plans of the streaming form, and the loop that generates. */
#include "sample/sample.h"

#include <stdlib.h>
#include <string.h>

typedef struct step_plan { /* the model on T positions of every sequence */
    int64_t length;
    wf_tensor *tokens; /* int32 [B,T] */
    wf_graph *graph;
    wf_plan *plan; /* out 0: logits [B,1,V] float32 */
    int64_t vocab;
} step_plan;

struct wf_session {
    wf_model *model;
    wf_session_opt opt;
    wf_states *states;
    wf_tensor *pos; /* int32 [1]: positions the states hold */
    int64_t position;
    step_plan one, many;
    wf_tensor **weight; /* bfloat16 copies by parameter, NULL where float32 is used; NULL: none */
    void *slab;         /* their memory */
    size_t slab_bytes;
    const float *logits;
};

static void close_plan(step_plan *p) {
    wf_plan_free(p->plan);
    wf_graph_free(p->graph);
    wf_tensor_free(p->tokens);
    memset(p, 0, sizeof *p);
}

/* ---- weights in bfloat16 ---- */

static void exchange_weights(wf_session *s) {
    for (int i = 0; s->weight && i < s->model->n_param; i++) {
        if (!s->weight[i]) continue;
        wf_tensor *t = s->model->param[i]->value;
        s->model->param[i]->value = s->weight[i];
        s->weight[i] = t;
    }
}

/* Whether the graph reads this leaf only to cast it to bfloat16. */
static bool only_cast(const wf_graph *g, const wf_tensor *t) {
    bool read = false;
    for (int i = 0; i < wf_graph_size(g); i++) {
        const wf_node *n = wf_graph_node(g, i);
        for (int j = 0; j < n->n_in; j++) {
            if (n->in[j]->leaf != t) continue;
            if (n->dtype != WF_BF16 || strcmp(n->op->name, "cast")) return false;
            read = true;
        }
    }
    return read;
}

/* Copies side by side on huge pages, as the model has its own. */
static wf_status convert_weights(wf_session *s, const wf_graph *g) {
    wf_model *m = s->model;
    if (!(s->weight = wf_alloc_array((size_t)m->n_param + 1, sizeof *s->weight))) return WF_ENOMEM;
    for (int i = 0; i < m->n_param; i++) {
        const wf_tensor *from = m->param[i]->value;
        if (from->dtype != WF_F32 || !only_cast(g, from)) continue;
        if (!(s->weight[i] = wf_alloc(sizeof(wf_tensor)))) return WF_ENOMEM;
        *s->weight[i] = (wf_tensor){.dtype = WF_BF16, .shape = from->shape, .bytes = from->bytes / 2};
        s->slab_bytes += (from->bytes / 2 + 63) & ~(size_t)63;
    }
    if (s->slab_bytes > 0 && !(s->slab = wf_map_pages(s->slab_bytes))) return WF_ENOMEM;
    char *at = s->slab;
    for (int i = 0; i < m->n_param; i++) {
        wf_tensor *to = s->weight[i];
        if (!to) continue;
        const float *from = m->param[i]->value->data;
        to->data = at;
        for (int64_t k = 0, n = wf_tensor_count(to); k < n; k++) ((uint16_t *)at)[k] = wf_f32_to_bf16(from[k]);
        at += (to->bytes + 63) & ~(size_t)63;
    }
    return WF_OK;
}

/* ---- plans ---- */

static wf_node *build(wf_session *s, step_plan *p, wf_build *b) {
    wf_build_start(b, p->graph);
    b->step = true;
    b->causal = true;
    b->last_only = true;
    b->compute = s->opt.compute;
    b->pos = wf_leaf(p->graph, s->pos, "pos");
    b->max_length = s->opt.max_length;
    b->states = s->states;
    wf_node *y = wf_apply(b, s->model->root, wf_leaf(p->graph, p->tokens, "tokens"));
    if (y && (y->shape.rank != 3 || y->shape.dim[1] != 1)) {
        char text[96];
        return wf_graph_fail(p->graph, WF_EUNSUPPORTED,
                             "the model gives %s, not logits [B, 1, V] of the last position: it is no language model",
                             wf_shape_text(&y->shape, text));
    }
    return wf_contiguous(p->graph, wf_cast(p->graph, y, WF_F32));
}

static wf_status build_graph(wf_session *s, step_plan *p, bool plan) {
    wf_build b;
    exchange_weights(s);
    wf_node *y = (p->graph = wf_graph_open()) ? build(s, p, &b) : NULL;
    exchange_weights(s);
    if (!p->graph) return WF_ENOMEM;
    wf_status status =
        y ? WF_OK
          : wf_fail(wf_graph_status(p->graph) ? wf_graph_status(p->graph) : WF_EINVAL, "%s", wf_graph_message(p->graph));
    if (y && plan) {
        p->vocab = y->shape.dim[2];
        if (!(p->plan = wf_plan_new(p->graph, &y, 1, b.update, b.n_update, NULL))) status = WF_EINVAL;
    }
    wf_build_end(&b);
    return status;
}

static wf_status make_plan(wf_session *s, step_plan *p, int64_t length) {
    close_plan(p);
    p->length = length;
    p->tokens = wf_tensor_new(WF_I32, WF_SHAPE(s->opt.batch, length));
    wf_status status = p->tokens ? WF_OK : WF_ENOMEM;
    if (status == WF_OK && s->opt.compute == WF_BF16 && !s->weight) { /* a first graph shows which weights are only cast */
        status = build_graph(s, p, false);
        if (status == WF_OK) status = convert_weights(s, p->graph);
        wf_graph_free(p->graph);
        p->graph = NULL;
    }
    if (status == WF_OK) status = build_graph(s, p, true);
    if (status != WF_OK) close_plan(p);
    return status;
}

wf_session *wf_session_new(wf_model *m, const wf_session_opt *opt) {
    wf_session *s = wf_alloc(sizeof *s);
    if (!s) return NULL;
    s->model = m;
    if (opt) s->opt = *opt;
    if (s->opt.max_length <= 0) s->opt.max_length = m->max_length > 0 ? m->max_length : 1024;
    if (s->opt.batch <= 0) s->opt.batch = 1;
    if (s->opt.chunk <= 0) s->opt.chunk = 512;
    s->states = wf_states_new();
    s->pos = wf_tensor_new(WF_I32, WF_SHAPE(1));
    if (s->states && s->pos && make_plan(s, &s->one, 1) == WF_OK) return s;
    wf_session_free(s);
    return NULL;
}

void wf_session_free(wf_session *s) {
    if (!s) return;
    close_plan(&s->one);
    close_plan(&s->many);
    wf_states_free(s->states);
    wf_tensor_free(s->pos);
    for (int i = 0; s->weight && i < s->model->n_param; i++) wf_free(s->weight[i]);
    wf_free(s->weight);
    if (s->slab) wf_unmap_pages(s->slab, s->slab_bytes);
    wf_free(s);
}

void wf_session_reset(wf_session *s) {
    wf_states_reset(s->states);
    s->position = 0;
    s->logits = NULL;
}

static wf_status run(wf_session *s, step_plan *p, const int32_t *tokens, int64_t stride) {
    for (int64_t b = 0; b < s->opt.batch; b++)
        memcpy((int32_t *)p->tokens->data + b * p->length, tokens + b * stride, (size_t)p->length * sizeof *tokens);
    *(int32_t *)s->pos->data = (int32_t)s->position;
    WF_TRY(wf_plan_run(p->plan));
    s->position += p->length;
    s->logits = wf_plan_out(p->plan, 0);
    return WF_OK;
}

wf_status wf_session_feed(wf_session *s, const int32_t *tokens, int64_t n) {
    if (n < 1) return wf_fail(WF_EINVAL, "nothing to feed: n is %lld", (long long)n);
    if (n > s->opt.max_length - s->position)
        return wf_fail(
            WF_EINVAL,
            "the session has room for %lld positions, %lld are taken and %lld more were given; make max_length larger",
            (long long)s->opt.max_length, (long long)s->position, (long long)n);
    for (int64_t i = 0; i < n * s->opt.batch; i++)
        if (tokens[i] < 0 || tokens[i] >= s->one.vocab)
            return wf_fail(WF_EINVAL, "token %d is not below the vocabulary of %lld", tokens[i], (long long)s->one.vocab);
    for (int64_t done = 0; done < n;) {
        int64_t part = n - done < s->opt.chunk ? n - done : s->opt.chunk;
        step_plan *p = part == 1 ? &s->one : &s->many;
        if (p->length != part) WF_TRY(make_plan(s, p, part));
        WF_TRY(run(s, p, tokens + done, n));
        done += part;
    }
    return WF_OK;
}

const float *wf_session_logits(const wf_session *s) {
    return s->logits;
}
int64_t wf_session_position(const wf_session *s) {
    return s->position;
}
int64_t wf_session_vocab(const wf_session *s) {
    return s->one.vocab;
}
wf_plan *wf_session_plan(wf_session *s) {
    return s->one.plan;
}

size_t wf_session_bytes(const wf_session *s) {
    size_t n = wf_states_bytes(s->states) + s->slab_bytes;
    const step_plan *p[] = {&s->one, &s->many};
    for (int i = 0; i < 2; i++) {
        if (!p[i]->plan) continue;
        wf_plan_info info;
        wf_plan_describe(p[i]->plan, &info);
        n += info.arena_bytes + info.scratch_bytes;
    }
    return n;
}

/* ---- the loop ---- */

static wf_status decode(wf_session *s, wf_picker *picker, const wf_generate_opt *opt, wf_on_token on_token, void *ctx,
                        int64_t *made) {
    for (*made = 0; *made < opt->tokens;) {
        int32_t token = wf_pick(picker, s->logits);
        if (token < 0) return wf_fail(WF_ENONFINITE, "no logit at position %lld is a number", (long long)s->position);
        if (token == opt->stop && opt->stop >= 0) return WF_OK;
        ++*made;
        if (on_token && !on_token(ctx, token)) return WF_OK;
        if (*made == opt->tokens) return WF_OK;
        if (wf_interrupted()) return wf_fail(WF_EINTERRUPTED, "stopped");
        WF_TRY(wf_session_feed(s, &token, 1));
    }
    return WF_OK;
}

wf_status wf_generate(wf_session *s, const int32_t *prompt, int64_t n, const wf_generate_opt *opt, wf_on_token on_token,
                      void *ctx, wf_generate_report *report) {
    wf_generate_report r = {.prompt = n};
    if (s->opt.batch != 1)
        return wf_fail(WF_EINVAL, "wf_generate wants a session of batch 1, not %lld", (long long)s->opt.batch);
    if (n < 1) return wf_fail(WF_EINVAL, "the prompt is empty; give at least one token");
    wf_picker *picker = wf_picker_new(&opt->pick, s->one.vocab, opt->seed);
    if (!picker) return WF_EINVAL;
    double t0 = wf_seconds();
    wf_status status = wf_session_feed(s, prompt, n);
    double t1 = wf_seconds();
    if (status == WF_OK) status = decode(s, picker, opt, on_token, ctx, &r.tokens);
    r.prefill_seconds = t1 - t0;
    r.decode_seconds = wf_seconds() - t1;
    wf_picker_free(picker);
    if (report) *report = r;
    return status;
}
