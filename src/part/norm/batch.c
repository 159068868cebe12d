/* batch.c: norms over the tokens of a batch: tokens as rows, means over those that count, counters, state changed in a backward
 * pass. */
#include "part/norm/batch.h"

bool wf_norm_tokens_of(wf_build *b, wf_module *m, wf_node *x, wf_norm_tokens *t) {
    wf_graph *g = b->g;
    if (!x) return false;
    t->n = wf_shape_count(&x->shape) / m->in;
    t->x = wf_reshape(g, wf_as(b, x, x->dtype == WF_F64 ? WF_F64 : WF_F32), WF_SHAPE(t->n, m->in));
    t->keep = NULL;
    wf_node *keep = x->shape.rank >= 3 ? wf_keep_mask(b, x) : NULL;
    if (keep) {
        const int64_t *k = keep->shape.dim, *d = x->shape.dim;
        if (keep->shape.rank != 2 || k[0] != d[0] || k[1] != d[1]) {
            char is[96], at[96];
            wf_module_fail(m, WF_EINVAL, "tokens %s need a mask of their first two axes, not %s", wf_shape_text(&x->shape, at),
                           wf_shape_text(&keep->shape, is));
            return wf_graph_fail(g, WF_EINVAL, "%s", wf_message()) != NULL;
        }
        wf_node *rows = wf_reshape(g, wf_as(b, keep, t->x ? t->x->dtype : WF_F32), WF_SHAPE(k[0] * k[1], 1));
        int64_t each = k[0] > 0 && k[1] > 0 ? t->n / (k[0] * k[1]) : 1; /* heads of a token stand behind each other */
        if (each != 1) rows = wf_expand(g, rows, WF_SHAPE(k[0] * k[1], each));
        t->keep = wf_reshape(g, rows, WF_SHAPE(t->n, 1));
    }
    t->counted = keep ? wf_reshape(g, wf_sum_all(g, t->keep), WF_SHAPE(1))
                      : wf_fill(g, t->x ? t->x->dtype : WF_F32, WF_SHAPE(1), (double)t->n);
    return t->counted != NULL;
}

wf_node *wf_norm_mean(wf_graph *g, const wf_norm_tokens *t, wf_node *v) {
    wf_node *sum = wf_sum(g, t->keep ? wf_mul(g, v, t->keep) : v, 1, false);
    if (!t->keep) return wf_mul_c(g, sum, 1.0 / (double)(t->n > 0 ? t->n : 1));
    return wf_mul(g, sum, wf_recip(g, wf_max_c(g, t->counted, 1)));
}

wf_node *wf_norm_blend(wf_graph *g, wf_node *old, wf_node *now, double keep) {
    return wf_add(g, wf_mul_c(g, old, keep), wf_mul_c(g, now, 1 - keep));
}

wf_node *wf_norm_counter(wf_build *b, wf_module *m, const char *name) {
    return wf_cast(b->g, wf_use(b, m, name), WF_F64);
}

wf_node *wf_norm_count(wf_build *b, wf_module *m, const char *name) {
    wf_node *t = wf_add_c(b->g, wf_norm_counter(b, m, name), 1);
    return wf_update(b, m, name, t) == WF_OK ? t : NULL;
}

wf_norm_backward *wf_norm_backward_new(wf_build *b, wf_module *m) {
    wf_norm_backward *w = wf_arena_alloc(wf_graph_arena(b->g), sizeof *w);
    wf_build **handle = wf_build_handle(b);
    if (!w || !handle) {
        wf_graph_fail(b->g, WF_ENOMEM, "%s", wf_message());
        return NULL;
    }
    *w = (wf_norm_backward){handle, m, false};
    return w;
}

wf_build *wf_norm_backward_begin(wf_norm_backward *w) {
    if (w->registered || !*w->build) return NULL;
    w->registered = true;
    return *w->build;
}
