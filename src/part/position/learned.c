/* learned.c: one learned vector a position, added to the stream: x_t + table_t. */
#include "part/position/position.h"

typedef struct options {
    double std;
} options;

static const wf_option table[] = {
    {"std", WF_OPT_REAL, offsetof(options, std), "0.02", 0, 10, NULL, "standard deviation of the initial table"}, WF_OPT_END};

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    int64_t rows = m->model->max_length;
    if (rows <= 0) return wf_module_fail(m, WF_EINVAL, "learned positions need the model's 'length'");
    wf_init init = {m->model->init.kind == WF_INIT_TRUNC_NORMAL ? WF_INIT_TRUNC_NORMAL : WF_INIT_NORMAL, o->std};
    return wf_declare(m, "table", WF_SHAPE(rows, m->in), init, WF_PARAM_NO_DECAY) ? WF_OK : WF_ENOMEM;
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    if (!x) return NULL;
    return wf_add(b->g, x, wf_position_rows(b, m, wf_use(b, m, "table"), x->shape.dim[x->shape.rank - 2]));
}

const wf_part wf_position_learned = {
    .slot = "position",
    .name = "learned",
    .title = "a learned vector for every position, added to the embedding",
    .paper = "Gehring et al.: Convolutional Sequence to Sequence Learning, 2017, arXiv 1705.03122; as used by GPT-2 and ViT",
    .sheet = "00",
    .formula = "x_t <- x_t + table_t, table [length, D] starts normal(0, 0.02)",
    .facts = "Fixed to the training length. No weight decay.",
    .cost = "D FLOPs a token, length D parameters",
    .golden = "model.gpt2 model.vit",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .forward = forward,
};
