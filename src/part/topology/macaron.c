/* macaron.c: Macaron Net (Lu et al. 2019): half a step of the channel mixer, the token mixer, half a step again: the symmetric
 * splitting (Strang, Marchuk) of dx/dt = mixer(x) + channel(x), where the usual block is the first-order one (Lie, Trotter).
 *
 *     x <- S_f(x, channel1);  x <- S_1(x, mixer);  [x <- S_1(x, context)];  x <- S_f(x, channel2);  f = 1/2
 *
 * The two channel mixers have weights of their own and each half the hidden width, so that parameters stay as they were.
 */
#include "part/topology/stack.h"

typedef struct options {
    double factor;
} options;

static const wf_option table[] = {
    {"factor", WF_OPT_REAL, offsetof(options, factor), "0.5", 0, 10, NULL, "of the channel mixers' branches, both"},
    WF_OPT_END};

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    const wf_sublayer_row rows[] = {{"channel1", "channel", o->factor, 0.5},
                                    {"mixer", "mixer", 1, 1},
                                    {"cross", "cross", 1, 1},
                                    {"channel2", "channel", o->factor, 0.5}};
    return wf_stack_setup(m, &(wf_block_plan){.row = rows, .n = 4});
}

const wf_part wf_topology_macaron = {
    .slot = "topology",
    .name = "macaron",
    .title = "half channel mixer, token mixer, half channel mixer",
    .paper =
        "Lu et al.: Understanding and Improving Transformer From a Multi-Particle Dynamic System Point of View, 2019, arXiv "
        "1906.02762",
    .sheet = "46",
    .formula =
        "x <- S_f(x, channel1); x <- S_1(x, mixer); x <- S_f(x, channel2); f = 1/2; S_c(x, h) = x + c h(N(x)) or N(x + c h(x))",
    .facts = "Each channel mixer has half the hidden width of the plain block's, unless the recipe gives `hidden`, which then "
             "holds for\n"
             "each: compare at equal parameters. The last channel mixer of a block and the first of the next stand side by "
             "side; they\n"
             "are not one.",
    .cost = "as plain at the same total hidden width, one norm (2 D parameters) and one output bias (D) a block more",
    .golden = "block.macaron-encoder block.macaron-decoder",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .forward = wf_stack_forward,
};
