/* bert.c: the bidirectional encoder with its two heads: ids int32 [B,L] -> masked-token logits [B,L,V].
 *
 *     x = norm(embed[ids] + positions + types[segment]);  hidden = blocks(x);  pooled = tanh(W h_0 + b);  nsp = W pooled + b
 *     logits = embed norm(gelu(W hidden + b)) + bias_V
 *
 * hidden, pooled and nsp are taps. Without the mlm head the result is `hidden`.
 */
#include "model/model.h"

#include "part/topology/stack.h"

typedef struct options {
    wf_stack_opt stack;
    int64_t vocab, length, width, types, padding_id;
    bool pooler, mlm, nsp;
    const char *act, *final_norm;
} options;

static const wf_option table[] = {
    {"vocab", WF_OPT_INT, offsetof(options, vocab), "0", 0, 1 << 30, NULL, "tokens; 0 or absent: the task's"},
    {"length", WF_OPT_INT, offsetof(options, length), "0", 0, 1 << 30, NULL, "longest sequence; 0 or absent: the task's"},
    {"width", WF_OPT_INT, offsetof(options, width), "128", 1, 1 << 20, NULL, "channels of the stream, D"},
    {"types", WF_OPT_INT, offsetof(options, types), "2", 0, 1024, NULL, "token types (segments); 0: none"},
    {"padding_id", WF_OPT_INT, offsetof(options, padding_id), "-1", -1, 1 << 30, NULL,
     "this id's look-up sends no gradient to the table; -1: none"},
    WF_STACK_OPTIONS(options, stack),
    {"final_norm", WF_OPT_CHOICE, offsetof(options, final_norm), "auto", 0, 0, "auto|true|false",
     "norm after the blocks; auto: as the placement needs"},
    {"pooler", WF_OPT_BOOL, offsetof(options, pooler), "true", 0, 0, NULL, "linear and tanh of the first token"},
    {"mlm", WF_OPT_BOOL, offsetof(options, mlm), "true", 0, 0, NULL, "head for masked tokens, tied to the embedding"},
    {"nsp", WF_OPT_BOOL, offsetof(options, nsp), "false", 0, 0, NULL, "head for next-sentence prediction; needs pooler"},
    {"head_act", WF_OPT_CHOICE, offsetof(options, act), "gelu", 0, 0, "relu|gelu|gelu_tanh|silu|tanh",
     "activation of the masked-token head"},
    WF_OPT_END};

static wf_status heads_setup(wf_module *m, const options *o) {
    int64_t D = o->width;
    if (o->pooler && !wf_child_dense(m, "pooler", D, D, true, WF_LINEAR_INNER)) return WF_EINVAL;
    if (o->nsp && !o->pooler) return wf_module_fail(m, WF_EINVAL, "nsp needs pooler: true");
    if (o->nsp && !wf_child_dense(m, "nsp", D, 2, true, WF_LINEAR_HEAD)) return WF_EINVAL;
    if (!o->mlm) return WF_OK;
    if (!wf_child_dense(m, "mlm", D, D, true, WF_LINEAR_INNER)) return WF_EINVAL;
    if (!wf_child_spec(m, "mlm_norm", "norm", "layernorm", NULL, D, D)) return WF_EINVAL;
    return wf_declare(m, "mlm_bias", WF_SHAPE(o->vocab), (wf_init){WF_INIT_ZERO, 0}, WF_PARAM_NO_DECAY) ? WF_OK : WF_ENOMEM;
}

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    int64_t D = o->width;
    if (o->vocab <= 0 || o->length <= 0)
        return wf_module_fail(m, WF_EINVAL, "'%s' is missing and no task gives it", o->vocab <= 0 ? "vocab" : "length");
    wf_init init = {WF_INIT_NORMAL, o->stack.init_std};
    m->model->max_length = o->length;
    m->in = m->out = D;
    WF_TRY(wf_stack_prepare(m, &o->stack, WF_INIT_NORMAL));
    m->model->residual_std = 0;
    if (!wf_declare(m, "embed.weight", WF_SHAPE(o->vocab, D), init, 0)) return WF_ENOMEM;
    WF_TRY(wf_stack_position(m, &o->stack, D));
    if (o->types && !wf_declare(m, "types.weight", WF_SHAPE(o->types, D), init, 0)) return WF_ENOMEM;
    if (!wf_child_spec(m, "embed_norm", "norm", "layernorm", NULL, D, D)) return WF_EINVAL;
    wf_module *blocks = wf_stack_child(m, &o->stack, D);
    if (!blocks) return WF_EINVAL;
    if (wf_stack_final_norm(blocks, o->final_norm) && !wf_child_spec(m, "final_norm", "norm", "layernorm", NULL, D, D))
        return WF_EINVAL;
    return heads_setup(m, o);
}

static wf_node *embed(wf_build *b, wf_module *m, wf_node *ids) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    wf_node *x = wf_gather(g, wf_use(b, m, "embed.weight"), ids);
    if (o->padding_id >= 0) {
        wf_node *pad = wf_fill(g, WF_F32, WF_SHAPE(1), (double)o->padding_id);
        wf_node *is = wf_unsqueeze(g, wf_eq(g, wf_cast(g, ids, WF_F32), pad), 2);
        x = wf_where(g, is, wf_stop_gradient(g, x), x);
    }
    wf_module *p = wf_module_find(m, "position");
    if (p) x = wf_apply(b, p, x);
    if (!o->types) return x;
    wf_node *t = wf_use(b, m, "types.weight");
    return wf_add(g, x, b->types ? wf_gather(g, t, b->types) : wf_slice(g, t, 0, 0, 1));
}

static wf_node *mlm(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    x = wf_activation(b->g, o->act, wf_apply_child(b, m, "mlm", x));
    x = wf_apply_child(b, m, "mlm_norm", x);
    return wf_project(b, x, wf_use(b, m, "embed.weight"), wf_use(b, m, "mlm_bias"));
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *ids) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    if (!ids) return NULL;
    if (ids->shape.rank != 2 || ids->dtype != WF_I32) {
        char buf[96];
        return wf_graph_fail(g, WF_EINVAL, "bert: input must be token ids int32 [B,L], got %s %s", wf_dtype_name(ids->dtype),
                             wf_shape_text(&ids->shape, buf));
    }
    b->causal = false;
    wf_node *x = wf_drop(b, m, wf_apply_child(b, m, "embed_norm", embed(b, m, ids)), o->stack.dropout);
    x = wf_apply_child(b, m, "blocks", x);
    wf_module *f = wf_module_find(m, "final_norm");
    if (f) x = wf_apply(b, f, x);
    wf_tap(b, m, "hidden", x);
    if (o->pooler && x) {
        wf_node *pooled = wf_tanh(g, wf_apply_child(b, m, "pooler", wf_squeeze(g, wf_slice(g, x, 1, 0, 1), 1)));
        wf_tap(b, m, "pooled", pooled);
        if (o->nsp) wf_tap(b, m, "nsp", wf_apply_child(b, m, "nsp", pooled));
    }
    return o->mlm ? mlm(b, m, x) : x;
}

const wf_part wf_model_bert = {
    .slot = "model",
    .name = "bert",
    .title = "bidirectional encoder with masked-token and next-sentence heads",
    .paper = "Devlin, Chang, Lee, Toutanova: BERT, 2018, arXiv 1810.04805",
    .sheet = "00",
    .formula = "x = norm(embed[ids] + positions + types); hidden = blocks(x); logits = embed norm(gelu(W hidden + b)) + bias",
    .facts = "BERT itself: placement: post, norm: {name: layernorm, eps: 1e-12}, channel: mlp. Padded rows still produce "
             "numbers: keep them\n"
             "out of the loss.",
    .cost = "2 x parameters FLOPs a token forward, plus attention over the length",
    .golden = "model.bert",
    .options = table,
    .opt_size = sizeof(options),
    .bidirectional_ok = true,
    .setup = setup,
    .forward = forward,
};
