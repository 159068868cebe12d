/* transnormer.c: output norm and initial weights of norm-attention and diag-attention. */
#include "part/mixer/transnormer.h"

#include "part/norm/norm.h"

#include <math.h>
#include <string.h>

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
