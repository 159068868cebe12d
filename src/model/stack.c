/* stack.c: blocks alone: a stream [B,L,D] -> [B,L,D], with what an encoder, a decoder or a diffusion network has around it.
 *
 *     y = final_norm(blocks(x));  outputs > 0: z = head(y)
 *
 * context: blocks have cross attention to wf_build.context [B,S,D] (encoder-decoder). condition: wf_build.condition [B,C] or [B,L,C]
 * is what norms adaln and placement adaln-zero modulate by; the head then starts at zero, as DiT's final layer does.
 */
#include "model/model.h"

#include "part/topology/stack.h"

#include <string.h>

typedef struct options {
    wf_stack_opt stack;
    int64_t width, length, condition, outputs, rows, columns, prefix;
    bool causal, context;
    const char *final_norm;
} options;

static const wf_option table[] = {
    {"width", WF_OPT_INT, offsetof(options, width), "128", 1, 1 << 20, NULL, "channels of the stream, D"},
    {"length", WF_OPT_INT, offsetof(options, length), "0", 0, 1 << 30, NULL, "longest sequence; 0: the grid, or open"},
    {"causal", WF_OPT_BOOL, offsetof(options, causal), "false", 0, 0, NULL, "mixers do not look ahead"},
    {"context", WF_OPT_BOOL, offsetof(options, context), "false", 0, 0, NULL, "cross attention to a second stream [B,S,D]"},
    {"condition", WF_OPT_INT, offsetof(options, condition), "0", 0, 1 << 20, NULL, "channels C of the condition; 0: none"},
    {"grid_rows", WF_OPT_INT, offsetof(options, rows), "0", 0, 1 << 16, NULL,
     "tokens stand on a grid of so many rows; 0: no grid"},
    {"grid_columns", WF_OPT_INT, offsetof(options, columns), "0", 0, 1 << 16, NULL, "and columns"},
    {"prefix", WF_OPT_INT, offsetof(options, prefix), "0", 0, 1 << 16, NULL, "special tokens in front of the grid"},
    WF_STACK_OPTIONS(options, stack),
    {"final_norm", WF_OPT_CHOICE, offsetof(options, final_norm), "false", 0, 0, "auto|true|false",
     "norm after the blocks; auto: as the placement needs"},
    {"outputs", WF_OPT_INT, offsetof(options, outputs), "0", 0, 1 << 24, NULL,
     "a linear to so many channels at the end; 0: none"},
    WF_OPT_END};

static wf_status head_setup(wf_module *m, const options *o) {
    wf_module *head = wf_child_dense(m, "head", o->width, o->outputs, true, WF_LINEAR_HEAD);
    if (!head) return WF_EINVAL;
    for (int i = 0; o->condition && i < head->n_param; i++) head->param[i]->init = (wf_init){WF_INIT_ZERO, 0};
    return WF_OK;
}

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    wf_model *model = m->model;
    int64_t D = o->width, cells = o->rows * o->columns;
    if (!o->rows != !o->columns) return wf_module_fail(m, WF_EINVAL, "a grid needs grid_rows and grid_columns");
    if (o->length && cells && o->length != o->prefix + cells)
        return wf_module_fail(m, WF_EINVAL, "length %lld is not prefix %lld and a grid of %lldx%lld; leave length out",
                              (long long)o->length, (long long)o->prefix, (long long)o->rows, (long long)o->columns);
    m->in = D;
    m->out = o->outputs ? o->outputs : D;
    model->causal = o->causal;
    model->context = o->context;
    model->condition = o->condition;
    model->max_length = cells ? o->prefix + cells : o->length;
    WF_TRY(wf_stack_prepare(m, &o->stack, WF_INIT_NORMAL));
    if (o->stack.position) WF_TRY(wf_stack_position(m, &o->stack, D));
    wf_module *blocks = wf_stack_child(m, &o->stack, D);
    if (!blocks) return WF_EINVAL;
    if (wf_stack_final_norm(blocks, o->final_norm) && !wf_child_spec(m, "final_norm", "norm", "layernorm", NULL, D, D))
        return WF_EINVAL;
    return o->outputs ? head_setup(m, o) : WF_OK;
}

static wf_node *apply_if(wf_build *b, wf_module *m, const char *child, wf_node *x) {
    wf_module *c = wf_module_find(m, child);
    return c ? wf_apply(b, c, x) : x;
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    if (!x) return NULL;
    if (x->shape.rank != 3 || x->shape.dim[2] != o->width || !wf_is_float(x->dtype)) {
        char buf[96];
        return wf_graph_fail(b->g, WF_EINVAL, "stack: input must be a stream of floats [B,L,%lld], got %s %s",
                             (long long)o->width, wf_dtype_name(x->dtype), wf_shape_text(&x->shape, buf));
    }
    b->causal = o->causal;
    b->grid[0] = o->rows;
    b->grid[1] = o->columns;
    b->prefix = o->prefix;
    x = wf_apply_child(b, m, "blocks", wf_drop(b, m, apply_if(b, m, "position", x), o->stack.dropout));
    wf_tap(b, m, "hidden", x);
    return apply_if(b, m, "head", apply_if(b, m, "final_norm", x));
}

const wf_part wf_model_stack = {
    .slot = "model",
    .name = "stack",
    .title = "blocks alone: encoder, decoder with cross attention, conditioned blocks (DiT)",
    .paper = "Vaswani et al.: Attention Is All You Need, 2017, arXiv 1706.03762; Peebles, Xie: DiT, 2022, arXiv 2212.09748",
    .sheet = "00",
    .formula = "y = final_norm(blocks(x)), x [B,L,D]; z = head(y)",
    .facts = "What other models put their blocks into: here the stream itself is the input, as for a golden case or another "
             "program.\n"
             "context: true gives every block attention to a second stream; condition: C gives adaln something to modulate by.",
    .cost = "the sum of its blocks",
    .golden = "block.macaron-encoder block.macaron-decoder block.activator block.poolformer block.dit-adaln-zero",
    .options = table,
    .opt_size = sizeof(options),
    .causal_ok = true,
    .bidirectional_ok = true,
    .setup = setup,
    .forward = forward,
    .step = forward,
    .readers = "head",
};
