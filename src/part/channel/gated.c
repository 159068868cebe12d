/* gated.c: what SwiGLU and GEGLU share. */
#include "part/channel/gated.h"

wf_status wf_gated_setup(wf_module *m) {
    const wf_gated_opt *o = m->opt;
    int64_t F = wf_hidden_width(m->in, o->hidden, o->ratio, o->multiple);
    bool bias = wf_bias_wanted(m, o->bias);
    if (!wf_child_linear(m, "gate", m->in, F, bias, WF_LINEAR_INNER)) return WF_EINVAL;
    if (!wf_child_linear(m, "up", m->in, F, bias, WF_LINEAR_VALUE)) return WF_EINVAL;
    WF_TRY(wf_inner_norm_setup(m, F));
    return wf_child_linear(m, "down", F, m->out, bias, WF_LINEAR_RESIDUAL) ? WF_OK : WF_EINVAL;
}

wf_node *wf_gated_forward(wf_build *b, wf_module *m, wf_node *x, const char *act) {
    const wf_gated_opt *o = m->opt;
    wf_node *gate = wf_activation(b->g, act, wf_apply_child(b, m, "gate", x));
    wf_node *h = wf_mul(b->g, gate, wf_apply_child(b, m, "up", x));
    return wf_apply_child(b, m, "down", wf_drop(b, m, wf_inner_norm(b, m, h), o->dropout));
}
