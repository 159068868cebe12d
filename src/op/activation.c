/* activation.c: activations composed of small operators; fused with their neighbours into one row program. */
#include "op/op.h"

#include <string.h>

wf_node *wf_relu(wf_graph *g, wf_node *x) {
    return wf_max_c(g, x, 0);
}

wf_node *wf_relu2(wf_graph *g, wf_node *x) {
    return wf_square(g, wf_relu(g, x));
}

wf_node *wf_gelu(wf_graph *g, wf_node *x) {
    wf_node *phi = wf_add_c(g, wf_mul_c(g, wf_erf(g, wf_mul_c(g, x, 0.70710678118654752)), 0.5), 0.5); /* x / sqrt(2) */
    return wf_mul(g, x, phi);
}

/* x sigmoid(2 u) with u = sqrt(2/pi) (x + 0.044715 x^3) equals x (1 + tanh u) / 2 and loses nothing for x far below 0. */
wf_node *wf_gelu_tanh(wf_graph *g, wf_node *x) {
    const double c = 1.5957691216057308; /* 2 sqrt(2/pi) */
    wf_node *factor = wf_add_c(g, wf_mul_c(g, wf_square(g, x), 0.044715 * c), c);
    return wf_mul(g, x, wf_sigmoid(g, wf_mul(g, x, factor)));
}

wf_node *wf_silu(wf_graph *g, wf_node *x) {
    return wf_mul(g, x, wf_sigmoid(g, x));
}

/* The exponential is held below e where it is not chosen, so that it cannot overflow; at 0 the derivative is 1 from both sides. */
wf_node *wf_elu1(wf_graph *g, wf_node *x) {
    if (!x) return NULL;
    wf_node *positive = wf_lt(g, wf_fill(g, x->dtype, (wf_shape){0}, 0), x);
    return wf_where(g, positive, wf_add_c(g, x, 1), wf_exp(g, wf_min_c(g, x, 1)));
}

static wf_node *identity(wf_graph *g, wf_node *x) {
    (void)g;
    return x;
}

wf_node *wf_activation(wf_graph *g, const char *name, wf_node *x) {
    static const struct {
        const char *name;
        wf_node *(*build)(wf_graph *, wf_node *);
    } known[] = {{"relu", wf_relu}, {"relu2", wf_relu2},     {"gelu", wf_gelu}, {"gelu_tanh", wf_gelu_tanh},
                 {"silu", wf_silu}, {"sigmoid", wf_sigmoid}, {"tanh", wf_tanh}, {"identity", identity}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i].name, name)) return known[i].build(g, x);
    return wf_graph_fail(
        g, WF_EINVAL, "activation '%s' is unknown; choose relu, relu2, gelu, gelu_tanh, silu, sigmoid, tanh or identity", name);
}
