/* lm.c: the causal language model: embedding, positions, blocks, final norm, head.
 *
 *     x = scale * embed[ids] (+ positions);  x = embed_norm(x);  x = blocks(x);  logits = head(final_norm(x))
 *
 * With learned positions, pre norms, tied embeddings and gelu_tanh it is GPT-2; with rope, rmsnorm and swiglu a Llama.
 * ids int32 [B,L] -> logits [B,L,V].
 */
#include "model/model.h"

#include "part/topology/stack.h"

#include <math.h>
#include <string.h>

typedef struct options {
    wf_stack_opt stack;
    int64_t vocab, length, width;
    bool tied, embed_norm, centred;
    const char *final_norm, *embed_scale;
    double embed_std;
} options;

static const wf_option table[] = {
    {"vocab", WF_OPT_INT, offsetof(options, vocab), "0", 0, 1 << 30, NULL, "tokens; 0 or absent: the task's"},
    {"length", WF_OPT_INT, offsetof(options, length), "0", 0, 1 << 30, NULL,
     "longest sequence (context); 0 or absent: the task's"},
    {"width", WF_OPT_INT, offsetof(options, width), "128", 1, 1 << 20, NULL, "channels of the stream, D"},
    WF_STACK_OPTIONS(options, stack),
    {"tied", WF_OPT_BOOL, offsetof(options, tied), "true", 0, 0, NULL, "the output matrix is the embedding"},
    {"final_norm", WF_OPT_CHOICE, offsetof(options, final_norm), "auto", 0, 0, "auto|true|false",
     "norm before the head; auto: as the placement needs"},
    {"centred", WF_OPT_BOOL, offsetof(options, centred), "false", 0, 0, NULL,
     "subtract the mean over the channels from every token before the blocks (trains a Pre-RMSNorm network: explain "
     "zero-mean)"},
    {"embed_norm", WF_OPT_BOOL, offsetof(options, embed_norm), "false", 0, 0, NULL, "norm of the embedding"},
    {"embed_scale", WF_OPT_CHOICE, offsetof(options, embed_scale), "none", 0, 0, "none|sqrt_width",
     "factor on embeddings before positions are added"},
    {"embed_std", WF_OPT_REAL, offsetof(options, embed_std), "0.02", 0, 10, NULL,
     "standard deviation of the initial embedding"},
    WF_OPT_END};

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    int64_t V = o->vocab, D = o->width;
    if (V <= 0) return wf_module_fail(m, WF_EINVAL, "'vocab' is missing and no task gives it");
    if (o->length <= 0) return wf_module_fail(m, WF_EINVAL, "'length' (the context) is missing and no task gives it");
    m->model->causal = true;
    m->model->max_length = o->length;
    m->in = m->out = D;
    WF_TRY(wf_stack_prepare(m, &o->stack, WF_INIT_NORMAL));
    wf_param *embed = wf_declare(m, "embed.weight", WF_SHAPE(V, D), (wf_init){WF_INIT_NORMAL, o->embed_std}, 0);
    if (!embed) return WF_ENOMEM;
    WF_TRY(wf_stack_position(m, &o->stack, D));
    if (o->embed_norm && !wf_child_spec(m, "embed_norm", "norm", "layernorm", NULL, D, D)) return WF_EINVAL;
    wf_module *blocks = wf_stack_child(m, &o->stack, D);
    if (!blocks) return WF_EINVAL;
    if (wf_stack_final_norm(blocks, o->final_norm) && !wf_child_spec(m, "final_norm", "norm", "layernorm", NULL, D, D))
        return WF_EINVAL;
    wf_module *head = wf_child_dense(m, "head", D, V, false, WF_LINEAR_HEAD);
    if (!head) return WF_EINVAL;
    return o->tied ? wf_share(head, "weight", embed) : WF_OK;
}

static wf_node *apply_if(wf_build *b, wf_module *m, const char *child, wf_node *x) {
    wf_module *c = wf_module_find(m, child);
    return c ? wf_apply(b, c, x) : x;
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *ids) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    if (!ids) return NULL;
    if (ids->shape.rank != 2 || ids->dtype != WF_I32) {
        char buf[96];
        return wf_graph_fail(g, WF_EINVAL, "lm: input must be token ids int32 [B,L], got %s %s", wf_dtype_name(ids->dtype),
                             wf_shape_text(&ids->shape, buf));
    }
    b->causal = true;
    wf_node *x = wf_gather(g, wf_use(b, m, "embed.weight"), ids);
    if (!strcmp(o->embed_scale, "sqrt_width")) x = wf_mul_c(g, x, sqrt((double)o->width));
    x = apply_if(b, m, "position", x);
    if (o->centred) x = wf_centred(b, x);
    x = wf_drop(b, m, apply_if(b, m, "embed_norm", x), o->stack.dropout);
    x = wf_apply_child(b, m, "blocks", x);
    wf_tap(b, m, "hidden", x);
    if (x && b->last_only) x = wf_slice(g, x, 1, x->shape.dim[1] - 1, 1);
    x = apply_if(b, m, "final_norm", x);
    return wf_apply_child(b, m, "head", x);
}

const wf_part wf_model_lm = {
    .slot = "model",
    .name = "lm",
    .title = "causal language model (GPT-2, Llama and what lies between)",
    .paper = "Radford et al.: Language Models are Unsupervised Multitask Learners, 2019; Touvron et al.: LLaMA, 2023, arXiv "
             "2302.13971",
    .sheet = "00",
    .formula = "x = embed[ids] + positions; x = blocks(x); logits = head(final_norm(x)); loss: next token",
    .facts =
        "GPT-2: position: learned, tied: true, channel: {name: mlp, act: gelu_tanh}. Llama: norm: rmsnorm, position: rope,\n"
        "channel: swiglu, bias: false, tied: false. Every slot of the blocks can be filled otherwise.",
    .cost = "2 x parameters FLOPs a token forward (embedding look-up free), plus the mixers' work over the length",
    .golden = "model.gpt2 model.placement-lm",
    .options = table,
    .opt_size = sizeof(options),
    .causal_ok = true,
    .setup = setup,
    .forward = forward,
    .step = forward,
    .readers = "head",
    .writers = "embed.weight position.table",
};
