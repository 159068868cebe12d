/* classifier.c: the text classifier: ids int32 [B,L] -> logits [B,classes]; of pairs, ids [B,2,L].
 *
 *     x = blocks(embed[ids] + positions);  f = mean of x over the unpadded positions, or x of a class token;  logits = head(f)
 *     pairs (Tay et al. 2020): one encoder for both, f = relu(W [a, b, a b, a - b] + bias)
 *
 * Padding is at the end of a sequence: ids equal to padding_id, or beyond wf_build.lengths. It changes nothing.
 */
#include "model/model.h"

#include "part/topology/stack.h"

#include <string.h>

typedef struct options {
    wf_stack_opt stack;
    int64_t vocab, length, width, classes, inputs, padding_id, head_hidden;
    const char *pool, *final_norm;
    double embed_std;
} options;

static const wf_option table[] = {
    {"vocab", WF_OPT_INT, offsetof(options, vocab), "0", 0, 1 << 30, NULL, "tokens; 0 or absent: the task's"},
    {"length", WF_OPT_INT, offsetof(options, length), "0", 0, 1 << 30, NULL, "longest sequence; 0 or absent: the task's"},
    {"classes", WF_OPT_INT, offsetof(options, classes), "0", 0, 1 << 24, NULL, "classes; 0 or absent: the task's"},
    {"width", WF_OPT_INT, offsetof(options, width), "128", 1, 1 << 20, NULL, "channels of the stream, D"},
    {"inputs", WF_OPT_INT, offsetof(options, inputs), "1", 1, 2, NULL, "sequences to a decision: 2 for pairs, ids [B,2,L]"},
    {"head_hidden", WF_OPT_INT, offsetof(options, head_hidden), "0", 0, 1 << 24, NULL,
     "pairs: width of the hidden layer before the head; 0: as width"},
    {"padding_id", WF_OPT_INT, offsetof(options, padding_id), "-1", -1, 1 << 30, NULL,
     "the token that fills short sequences up at their end; -1: none"},
    WF_STACK_OPTIONS(options, stack),
    {"pool", WF_OPT_CHOICE, offsetof(options, pool), "mean", 0, 0, "mean|class",
     "what the head reads: the mean of the unpadded positions, or a class token in front"},
    {"final_norm", WF_OPT_CHOICE, offsetof(options, final_norm), "auto", 0, 0, "auto|true|false",
     "norm after the blocks; auto: as the placement needs"},
    {"embed_std", WF_OPT_REAL, offsetof(options, embed_std), "0.02", 0, 10, NULL,
     "standard deviation of the initial embedding"},
    WF_OPT_END};

static bool has_class_token(const options *o) {
    return !strcmp(o->pool, "class");
}

static wf_status head_setup(wf_module *m, const options *o) {
    int64_t D = o->width, F = o->inputs == 1 ? D : o->head_hidden ? o->head_hidden : D;
    if (o->inputs > 1 && !wf_child_dense(m, "pair", 4 * D, F, true, WF_LINEAR_HEAD)) return WF_EINVAL;
    return wf_child_dense(m, "head", F, o->classes, true, WF_LINEAR_HEAD) ? WF_OK : WF_EINVAL;
}

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    int64_t D = o->width;
    if (o->vocab <= 0 || o->length <= 0 || o->classes <= 0)
        return wf_module_fail(m, WF_EINVAL, "'%s' is missing and no task gives it",
                              o->vocab <= 0    ? "vocab"
                              : o->length <= 0 ? "length"
                                               : "classes");
    wf_init init = {WF_INIT_NORMAL, o->embed_std};
    m->in = m->out = D;
    m->opaque = o->inputs > 1; /* products of features */
    m->model->max_length = o->length + has_class_token(o);
    WF_TRY(wf_stack_prepare(m, &o->stack, WF_INIT_NORMAL));
    if (!wf_declare(m, "embed.weight", WF_SHAPE(o->vocab, D), init, 0)) return WF_ENOMEM;
    if (has_class_token(o) && !wf_declare(m, "class_token", WF_SHAPE(D), init, WF_PARAM_NO_DECAY)) return WF_ENOMEM;
    WF_TRY(wf_stack_position(m, &o->stack, D));
    wf_module *blocks = wf_stack_child(m, &o->stack, D);
    if (!blocks) return WF_EINVAL;
    if (wf_stack_final_norm(blocks, o->final_norm) && !wf_child_spec(m, "final_norm", "norm", "layernorm", NULL, D, D))
        return WF_EINVAL;
    return head_setup(m, o);
}

/* b->lengths of these ids, the class token counted. */
static wf_status measure(wf_build *b, const options *o, wf_node *ids) {
    wf_graph *g = b->g;
    wf_node *n = b->lengths ? wf_cast(g, b->lengths, WF_F32) : NULL;
    if (o->padding_id >= 0 && !n) {
        wf_node *pad = wf_fill(g, WF_F32, WF_SHAPE(1), (double)o->padding_id);
        n = wf_sum(g, wf_ne(g, wf_cast(g, ids, WF_F32), pad), 1u << 1, false);
    }
    if (has_class_token(o) && b->keep)
        return wf_fail(WF_EUNSUPPORTED, "classifier: a class token needs lengths, not a mask of its own; take pool: mean");
    if (n && has_class_token(o)) n = wf_add_c(g, n, 1);
    b->lengths = n ? wf_cast(g, n, WF_I32) : NULL;
    return WF_OK;
}

/* ids [B,L] -> features [B,D] */
static wf_node *encode(wf_build *b, wf_module *m, wf_node *ids) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    if (measure(b, o, ids) != WF_OK) return NULL;
    wf_node *x = wf_gather(g, wf_use(b, m, "embed.weight"), ids);
    if (x && has_class_token(o)) {
        wf_shape one = WF_SHAPE(x->shape.dim[0], 1, o->width);
        wf_node *token = wf_expand(g, wf_reshape(g, wf_use(b, m, "class_token"), WF_SHAPE(1, 1, o->width)), one);
        x = wf_concat(g, (wf_node *[]){token, x}, 2, 1);
    }
    wf_module *p = wf_module_find(m, "position"), *f = wf_module_find(m, "final_norm");
    if (p) x = wf_apply(b, p, x);
    x = wf_apply_child(b, m, "blocks", wf_drop(b, m, x, o->stack.dropout));
    if (f) x = wf_apply(b, f, x);
    wf_tap(b, m, "hidden", x);
    if (!x || has_class_token(o)) return wf_squeeze(g, wf_slice(g, x, 1, 0, 1), 1);
    wf_node *keep = wf_keep_mask(b, x);
    if (!keep) return wf_mean(g, x, 1u << 1, false);
    keep = wf_as(b, keep, x->dtype);
    wf_node *count = wf_max_c(g, wf_sum(g, keep, 1u << 1, true), 1);
    return wf_div(g, wf_sum(g, wf_mul(g, x, wf_unsqueeze(g, keep, 2)), 1u << 1, false), count);
}

static wf_node *pair(wf_build *b, wf_module *m, wf_node *f) {
    wf_graph *g = b->g;
    if (!f) return NULL;
    int64_t B = f->shape.dim[0] / 2, D = f->shape.dim[1];
    f = wf_reshape(g, f, WF_SHAPE(B, 2, D));
    wf_node *a = wf_squeeze(g, wf_slice(g, f, 1, 0, 1), 1), *c = wf_squeeze(g, wf_slice(g, f, 1, 1, 1), 1);
    wf_node *all = wf_concat(g, (wf_node *[]){a, c, wf_mul(g, a, c), wf_sub(g, a, c)}, 4, 1);
    return wf_relu(g, wf_apply_child(b, m, "pair", all));
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *ids) {
    const options *o = m->opt;
    wf_graph *g = b->g;
    if (!ids) return NULL;
    bool pairs = o->inputs == 2;
    if (ids->dtype != WF_I32 || ids->shape.rank != 2 + pairs || (pairs && ids->shape.dim[1] != 2)) {
        char buf[96];
        return wf_graph_fail(g, WF_EINVAL, "classifier: input must be token ids int32 %s, got %s %s",
                             pairs ? "[B,2,L]" : "[B,L]", wf_dtype_name(ids->dtype), wf_shape_text(&ids->shape, buf));
    }
    b->causal = false;
    if (pairs) {
        int64_t B = ids->shape.dim[0], L = ids->shape.dim[2];
        ids = wf_reshape(g, ids, WF_SHAPE(2 * B, L));
        if (b->lengths) b->lengths = wf_reshape(g, b->lengths, WF_SHAPE(2 * B));
    }
    wf_node *f = encode(b, m, ids);
    if (pairs) f = pair(b, m, f);
    wf_tap(b, m, "features", f);
    return wf_apply_child(b, m, "head", f);
}

const wf_part wf_model_classifier = {
    .slot = "model",
    .name = "classifier",
    .title = "text classifier: token encoder, mean or class token, linear head; pairs too",
    .paper = "Vaswani et al.: Attention Is All You Need, 2017, arXiv 1706.03762; Tay et al.: Long Range Arena, 2020, arXiv "
             "2011.04006",
    .sheet = "24",
    .formula = "x = blocks(embed[ids] + positions); f = mean over unpadded x, or x of the class token; logits = head(f)\n"
               "pairs: f = relu(W [a, b, a b, a - b] + bias), one encoder for both",
    .facts = "Give padding_id where sequences are filled up: padding then changes nothing. topology: wide puts all heads into "
             "one layer;\n"
             "embed_std 0.02 with post norms learns slowly at first.",
    .cost = "2 x parameters FLOPs a token forward (embedding look-up free), plus attention over the length",
    .golden = "model.wide-classifier",
    .options = table,
    .opt_size = sizeof(options),
    .bidirectional_ok = true,
    .setup = setup,
    .forward = forward,
    .readers = "head",
    .writers = "embed.weight class_token position.table",
};
