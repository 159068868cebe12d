/* adaln.c: adaptive LayerNorm (Peebles, Xie 2022, DiT): a norm without affine whose scale and shift are made of a condition.
 *
 *     y = N(x) (1 + scale) + shift;  (shift, scale) = W silu(c) + b, c [B,C] or [B,L,C] from the model, W and b zero at the start
 *
 * In front of every sublayer, with a gate on the branch, it is adaLN-zero (placement adaln-zero). One condition a sample costs
 * nothing a token: scale and shift are [B,1,D].
 */
#include "part/norm/norm.h"

#include <string.h>

typedef struct options {
    double eps;
    const char *base;
} options;

static const wf_option table[] = {{"eps", WF_OPT_REAL, offsetof(options, eps), "1e-6", 0, 1, NULL, "eps of the norm"},
                                  {"base", WF_OPT_CHOICE, offsetof(options, base), "layernorm", 0, 0, "layernorm|rmsnorm",
                                   "the norm that is modulated, without gain and bias of its own"},
                                  WF_OPT_END};

wf_status wf_conditioned_setup(wf_module *m, int64_t n) {
    int64_t C = m->model->condition;
    if (!C)
        return wf_module_fail(m, WF_EINVAL,
                              "this model gives no condition to make shifts, scales and gates of; take norm: layernorm and "
                              "placement: pre, or a model with a condition (stack)");
    wf_init zero = {WF_INIT_ZERO, 0};
    if (!wf_declare(m, "weight", WF_SHAPE(n * m->in, C), zero, 0)) return WF_ENOMEM;
    return wf_declare(m, "bias", WF_SHAPE(n * m->in), zero, WF_PARAM_NO_DECAY) ? WF_OK : WF_ENOMEM;
}

wf_node *wf_conditioned(wf_build *b, wf_module *m, const wf_node *x) {
    wf_node *c = b->condition;
    if (!x) return NULL;
    int64_t C = m->model->condition;
    bool ok = c && x->shape.rank == 3 && c->shape.dim[c->shape.rank - 1] == C && c->shape.dim[0] == x->shape.dim[0] &&
              (c->shape.rank == 2 || (c->shape.rank == 3 && c->shape.dim[1] == x->shape.dim[1]));
    if (!ok) {
        char at[96], is[96] = "absent";
        if (c) wf_shape_text(&c->shape, is);
        return wf_graph_fail(b->g, WF_EINVAL, "%s: for a stream %s the condition must be [B,%lld] or [B,L,%lld]; it is %s",
                             m->name, wf_shape_text(&x->shape, at), (long long)C, (long long)C, is);
    }
    wf_node *y = wf_project(b, wf_silu(b->g, c), wf_use(b, m, "weight"), wf_use(b, m, "bias"));
    y = wf_as(b, y, b->compute == WF_F64 ? WF_F64 : WF_F32);
    return y && y->shape.rank == 2 ? wf_unsqueeze(b->g, y, 1) : y;
}

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    if (!wf_child_text(m, "base", "norm", m->in, m->in, "{name: %s, eps: %.17g, affine: false}", o->base, o->eps))
        return WF_EINVAL;
    return wf_conditioned_setup(m, 2);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    wf_graph *g = b->g;
    int64_t D = m->in;
    wf_node *both = wf_conditioned(b, m, x);
    if (!both) return NULL;
    wf_node *shift = wf_slice(g, both, 2, 0, D), *scale = wf_slice(g, both, 2, D, D);
    return wf_add(g, wf_mul(g, wf_apply_child(b, m, "base", x), wf_add_c(g, scale, 1)), shift);
}

const wf_part wf_norm_adaln = {
    .slot = "norm",
    .name = "adaln",
    .title = "adaptive LayerNorm: scale and shift are made of a condition",
    .paper = "Peebles, Xie: Scalable Diffusion Models with Transformers, 2022, arXiv 2212.09748",
    .sheet = "00",
    .formula = "y = N(x) (1 + scale) + shift; (shift, scale) = W silu(c) + b, W [2D,C]; N without gain and bias",
    .facts =
        "Needs a model with a condition. Starts as the plain norm, for W and b are zero. With a gate on every branch it is\n"
        "placement: adaln-zero.",
    .cost = "the norm and 2 D FLOPs a token; 4 D C FLOPs a sample (a token where the condition is one a token); 2 D C + 2 D "
            "parameters; no state",
    .golden = "block.dit-adaln-zero",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .forward = forward,
};
