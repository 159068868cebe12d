/* compose.c: the derivative of a fused operator by way of an equivalent composition of small operators. */
#include "op/op.h"

#include <string.h>

static wf_status infer_alias(wf_node *n) {
    n->dtype = n->in[0]->dtype;
    n->shape = n->in[0]->shape;
    return WF_OK;
}

static wf_status vjp_alias(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    (void)g;
    (void)n;
    gin[0] = gout[0];
    return WF_OK;
}

/* The same bytes under another node. Derivatives with respect to it are partial derivatives: when one input of the fused
 * operator is computed from another, nothing flows between the two; and it lets second derivatives through. */
static const wf_op alias_op = {.name = "alias", .flags = WF_OP_VIEW | WF_OP_STRIDED, .infer = infer_alias, .vjp = vjp_alias};

enum { MOST = 16 };

wf_status wf_vjp_by_composition(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin, wf_compose compose) {
    wf_node *in[MOST], *out[MOST] = {0}, *chosen[MOST], *seed[MOST], *wrt[MOST], *grad[MOST];
    int n_out = n->op->n_out > 0 ? n->op->n_out : 1, n_chosen = 0, n_wrt = 0;
    if (n->n_in > MOST || n_out > MOST)
        return wf_fail(WF_EINVAL, "%s: more than %d inputs or outputs to compose", n->op->name, (int)MOST);
    for (int j = 0; j < n->n_in; j++) {
        in[j] = wf_view_new(g, &alias_op, n->in[j], n->in[j]->shape, n->in[j]->stride, 0, NULL);
        if (!in[j]) return wf_graph_status(g);
        if (wf_is_float(in[j]->dtype)) wrt[n_wrt++] = in[j];
    }
    WF_TRY(compose(g, n, in, out));
    for (int k = 0; k < n_out; k++) {
        if (!gout[k] || !out[k]) continue;
        chosen[n_chosen] = out[k];
        seed[n_chosen++] = gout[k];
    }
    if (n_chosen == 0 || n_wrt == 0) return wf_graph_status(g);
    WF_TRY(wf_grad(g, chosen, seed, n_chosen, wrt, n_wrt, grad));
    for (int j = 0, w = 0; j < n->n_in; j++)
        if (wf_is_float(in[j]->dtype)) gin[j] = grad[w++];
    return wf_graph_status(g);
}
