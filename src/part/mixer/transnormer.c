/* transnormer.c: output norm and initial weights of norm-attention and diag-attention. */
#include "part/mixer/transnormer.h"

#include <math.h>
#include <string.h>

wf_node *wf_srms(wf_graph *g, wf_node *x, double eps) {
    if (!x) return NULL;
    int last = x->shape.rank - 1;
    wf_node *square = wf_sum(g, wf_square(g, x), 1u << last, true);
    wf_node *some = square ? wf_lt(g, wf_fill(g, square->dtype, WF_SHAPE(1), 0), square) : NULL;
    /* sqrt is kept away from 0, where its slope is infinite */
    wf_node *size = wf_mul(g, wf_sqrt(g, wf_where(g, some, square, wf_fill(g, x->dtype, WF_SHAPE(1), 1))), some);
    return wf_div(g, x, wf_add_c(g, wf_mul_c(g, size, 1 / sqrt((double)x->shape.dim[last])), eps));
}

wf_node *wf_srms_merge(wf_build *b, wf_module *m, wf_node *o, double eps) {
    const wf_heads *h = m->data;
    if (!o) return NULL;
    o = wf_reshape(b->g, o, WF_SHAPE(o->shape.dim[0], o->shape.dim[1], h->H * h->d));
    if (eps >= 0) o = wf_srms(b->g, wf_as(b, o, b->compute == WF_F64 ? WF_F64 : WF_F32), eps);
    return wf_apply(b, h->o, wf_inner_norm(b, m, wf_as(b, o, b->compute)));
}

static void xavier(wf_module *linear, double gain) {
    double width = gain * sqrt(6.0 / (double)(linear->in + linear->out));
    for (int i = 0; i < linear->n_param; i++)
        if (!strcmp(linear->param_name[i], "weight")) linear->param[i]->init = (wf_init){WF_INIT_UNIFORM, width};
}

void wf_xavier_heads(wf_module *m, const char *choice, double gain) {
    const wf_heads *h = m->data;
    if (strcmp(choice, "xavier") || m->model->value_std > 0) return; /* deepnorm has a scale of its own */
    xavier(h->q, gain);
    xavier(h->k, gain);
    xavier(h->v, gain);
    xavier(h->o, 1);
}
