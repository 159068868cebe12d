/* wide.c: wide attention (Brown et al. 2022): the heads of all layers side by side in one layer (or a few).
 *
 *     layers x heads heads of unchanged width d in `blocks` blocks: W_q, W_k, W_v [I,D], W_o [D,I], I = layers heads d / blocks
 *
 * Attention has the parameters it had; channel mixers, norms and residual steps are as many as blocks.
 */
#include "part/topology/stack.h"

typedef struct options {
    int64_t blocks;
} options;

static const wf_option table[] = {
    {"blocks", WF_OPT_INT, offsetof(options, blocks), "1", 1, 4096, NULL, "blocks that hold the heads of all `layers`"},
    WF_OPT_END};

static wf_status setup(wf_module *m) {
    static const wf_sublayer_row rows[] = {{"mixer", "mixer", 1, 1}, {"cross", "cross", 1, 1}, {"channel", "channel", 1, 1}};
    const options *o = m->opt;
    return wf_stack_setup(m, &(wf_block_plan){.row = rows, .n = 3, .blocks = o->blocks});
}

const wf_part wf_topology_wide = {
    .slot = "topology",
    .name = "wide",
    .title = "the heads of all layers in one wide layer",
    .paper = "Brown et al.: Wide Attention Is The Way Forward For Transformers?, 2022, arXiv 2210.00640",
    .sheet = "24",
    .formula = "blocks x H' = layers x heads, d unchanged: I = H' d, W_q, W_k, W_v [I,D], W_o [D,I]; the block as plain",
    .facts =
        "`layers` and `heads` say what the deep model would be. Equal heads, fewer parameters: say which is compared. "
        "Composition\n"
        "(induction, recall over several hops) needs depth; text classification mostly does not. Fastest at batch 1 on a CPU.",
    .cost = "attention as in the deep model; channel mixers and norms of `blocks` blocks only",
    .golden = "model.wide-classifier",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .forward = wf_stack_forward,
};
