/* cache.c: keys and values of the past, for the step form.
 *
 * Unlimited attention: one row a position, [B,max_length,K,d]. A window of w < max_length: a ring of w rows; position p sits in
 * row p mod w. One token at a time reads the ring as it lies (softmax does not care for the order); several tokens, or scores
 * that depend on distance, first bring it into order of position.
 */
#include "part/mixer/heads.h"

static wf_node *as_state(wf_build *b, wf_module *m, const char *name, const wf_node *x, int64_t rows) {
    return wf_state(b, m, name, x->dtype, WF_SHAPE(x->shape.dim[0], rows, x->shape.dim[2], x->shape.dim[3]));
}

static wf_status all_keys(wf_build *b, wf_module *m, wf_node **k, wf_node **v, wf_attention_spec *s) {
    *k = wf_cache_write(b->g, as_state(b, m, "k", *k, b->max_length), *k, b->pos, false);
    *v = wf_cache_write(b->g, as_state(b, m, "v", *v, b->max_length), *v, b->pos, false);
    s->q_start = b->pos;
    return *k && *v ? WF_OK : WF_EINVAL;
}

static wf_status ring_as_it_lies(wf_build *b, wf_module *m, wf_node **k, wf_node **v, wf_attention_spec *s, int64_t w) {
    wf_graph *g = b->g;
    int64_t B = (*k)->shape.dim[0];
    *k = wf_cache_write(g, as_state(b, m, "k", *k, w), *k, b->pos, true);
    *v = wf_cache_write(g, as_state(b, m, "v", *v, w), *v, b->pos, true);
    wf_node *filled = wf_min_c(g, wf_add_c(g, wf_cast(g, b->pos, WF_F32), 1), (double)w);
    s->lengths = wf_cast(g, wf_add(g, wf_fill(g, WF_F32, WF_SHAPE(B), 0), filled), WF_I32);
    s->causal = false;
    s->window_back = s->window_forward = 0;
    return *k && *v && s->lengths ? WF_OK : WF_EINVAL;
}

/* The w-1 positions before this build's tokens, in order, then those: [B,w-1+T,K,d]. The ring then takes the last of them; its
 * new rows are cut from the concatenation, so that they cannot be written before the old ones are read. */
static wf_node *ring_in_order(wf_build *b, wf_module *m, const char *name, wf_node *x, int64_t w) {
    wf_graph *g = b->g;
    int64_t T = x->shape.dim[1], n = T < w ? T : w;
    wf_node *ring = as_state(b, m, name, x, w), *pos = wf_cast(g, b->pos, WF_F32);
    wf_node *p =
        wf_add_c(g, wf_add(g, wf_index(g, WF_F32, WF_SHAPE(w - 1), 0), pos), 1); /* pos-(w-1)+j, plus w to stay positive */
    wf_node *row = wf_sub(g, p, wf_mul_c(g, wf_floor(g, wf_mul_c(g, wf_add_c(g, p, 0.5), 1.0 / (double)w)), (double)w));
    wf_node *past = wf_gather(g, wf_transpose(g, ring, 0, 1), wf_cast(g, row, WF_I32));
    wf_node *both = wf_concat(g, (wf_node *[]){past ? wf_transpose(g, past, 0, 1) : NULL, x}, 2, 1);
    wf_node *last = wf_slice(g, both, 1, w - 1 + T - n, n);
    wf_node *at = wf_cast(g, wf_add_c(g, pos, (double)(T - n)), WF_I32);
    if (wf_keep(b, NULL, wf_cache_write(g, ring, last, at, true)) != WF_OK) return NULL;
    return both;
}

/* [1,1,1,w-1+T]: far below any score where the position before the start of the sequence does not exist. */
static wf_node *hide_missing(wf_build *b, int64_t w, int64_t T) {
    wf_graph *g = b->g;
    wf_node *j = wf_index(g, WF_F32, WF_SHAPE(1, 1, 1, w - 1 + T), 3);
    wf_node *p = wf_add_c(g, wf_add(g, j, wf_cast(g, b->pos, WF_F32)), -(double)(w - 1));
    wf_node *missing = wf_lt(g, p, wf_fill(g, WF_F32, WF_SHAPE(1), -0.5));
    return wf_mul_c(g, missing, -1e30);
}

wf_status wf_cache_keys(wf_build *b, wf_module *m, wf_node **k, wf_node **v, wf_attention_spec *s, int64_t window) {
    if (!b->causal) return wf_module_fail(m, WF_EINVAL, "only a causal model can be used step by step");
    if (!b->pos || b->max_length <= 0) return wf_module_fail(m, WF_EINVAL, "the step form needs wf_build.pos and max_length");
    int64_t T = (*k)->shape.dim[1];
    if (T > b->max_length)
        return wf_module_fail(m, WF_EINVAL, "%lld positions do not fit into caches of %lld", (long long)T,
                              (long long)b->max_length);
    if (window == 1) return WF_OK; /* every token sees itself alone */
    if (!window || window >= b->max_length) return all_keys(b, m, k, v, s);
    if (T == 1 && !s->slopes && !s->bias) return ring_as_it_lies(b, m, k, v, s, window);
    *k = ring_in_order(b, m, "k", *k, window);
    *v = ring_in_order(b, m, "v", *v, window);
    wf_node *hide = hide_missing(b, window, T);
    s->bias = s->bias ? wf_add(b->g, s->bias, hide) : hide;
    s->lengths = NULL;
    return *k && *v && s->bias ? WF_OK : WF_EINVAL;
}
