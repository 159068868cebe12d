/* activator.c: the Activator block (Abdullah, Sun 2024): a gating unit where attention was, with or without the feed-forward
 * network after it, and ONE norm for both sublayers.
 *
 *     x <- x + mixer(N(x));  x <- x + channel(N(x)), the same N (its gradient is the sum of both uses);  mlp: false leaves out the second
 */
#include "part/topology/stack.h"

typedef struct options {
    bool mlp;
} options;

static const wf_option table[] = {
    {"mlp", WF_OPT_BOOL, offsetof(options, mlp), "true", 0, 0, NULL, "the channel mixer too; false: gating units alone"},
    WF_OPT_END};

static wf_status setup(wf_module *m) {
    static const wf_sublayer_row rows[] = {{"mixer", "mixer", 1, 1}, {"channel", "channel", 1, 1}};
    const options *o = m->opt;
    return wf_stack_setup(m, &(wf_block_plan){.row = rows, .n = o->mlp ? 2 : 1, .one_norm = true});
}

const wf_part wf_topology_activator = {
    .slot = "topology",
    .name = "activator",
    .title = "token mixer and channel mixer behind one shared norm",
    .paper = "Abdullah, Sun: Activator: GLU Activation Function as the Core Component of a Vision Transformer, 2024, arXiv "
             "2405.15953",
    .sheet = "44",
    .formula = "x <- x + mixer(N(x)); x <- x + channel(N(x)); N the same module, statistics of its own input",
    .facts = "The authors' networks have mixer: glu, which moves nothing between tokens: a bag of patches. Any mixer works. A "
             "placement\n"
             "without norms in front of sublayers has nothing to share.",
    .cost = "as plain, one norm a block less",
    .golden = "block.activator model.activator-classifier",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .forward = wf_stack_forward,
};
