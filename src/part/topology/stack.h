/* stack.h: how sublayers follow each other, as data. A topology says which sublayers a block has (rows); a stack makes `layers`
 * blocks of them and an order in which blocks are applied.
 */
#ifndef WF_STACK_H
#define WF_STACK_H

#include "part/placement/placement.h"

typedef struct wf_stack_opt { /* the part of a model's options that its blocks are made by */
    int64_t layers;
    const wf_value *mixer, *channel, *norm, *placement, *topology, *linear, *position;
    double dropout, layer_scale, stochastic_depth, init_std;
    bool bias, scale_residual;
    const char *init;
    /* Set by models of several stacks: these blocks are number first .. of `all` in the network (stochastic depth); all 0: alone. */
    int64_t first, all;
} wf_stack_opt;

/* clang-format off */
#define WF_STACK_OPTIONS(type, at)                                                                                                    \
    {"layers", WF_OPT_INT, offsetof(type, at.layers), "4", 1, 4096, NULL, "blocks"},                                                  \
    {"mixer", WF_OPT_VALUE, offsetof(type, at.mixer), "", 0, 0, NULL, "token mixer: a name or {name: softmax, heads: 6}, or a list stretched over the blocks; default softmax"}, \
    {"channel", WF_OPT_VALUE, offsetof(type, at.channel), "", 0, 0, NULL, "channel mixer: mlp (default), swiglu, geglu .., or a list as mixer"},           \
    {"norm", WF_OPT_VALUE, offsetof(type, at.norm), "", 0, 0, NULL, "norm of all places: layernorm (default), rmsnorm .."},           \
    {"placement", WF_OPT_VALUE, offsetof(type, at.placement), "", 0, 0, NULL, "where norms stand: pre (default), post, peri .."},     \
    {"topology", WF_OPT_VALUE, offsetof(type, at.topology), "", 0, 0, NULL, "how sublayers follow each other: plain (default)"},      \
    {"linear", WF_OPT_VALUE, offsetof(type, at.linear), "", 0, 0, NULL, "linear layers inside the blocks: dense (default)"},          \
    {"position", WF_OPT_VALUE, offsetof(type, at.position), "", 0, 0, NULL, "positions: learned (default), sinusoidal, rope, alibi, none"}, \
    {"dropout", WF_OPT_REAL, offsetof(type, at.dropout), "0", 0, 0.99, NULL, "dropout of embeddings and of every branch's output"},   \
    {"layer_scale", WF_OPT_REAL, offsetof(type, at.layer_scale), "0", 0, 100, NULL,                                                   \
     "starting value of a learned gain on every branch's output (1e-4 .. 1); 0: none"},                                               \
    {"stochastic_depth", WF_OPT_REAL, offsetof(type, at.stochastic_depth), "0", 0, 0.99, NULL,                                        \
     "probability to skip a branch in training, growing linearly from 0 to this over the blocks"},                                    \
    {"bias", WF_OPT_BOOL, offsetof(type, at.bias), "true", 0, 0, NULL, "biases in the blocks' linears (GPT-2 has them, Llama none)"}, \
    {"init_std", WF_OPT_REAL, offsetof(type, at.init_std), "0.02", 0, 10, NULL, "standard deviation of initial weights"},             \
    {"init", WF_OPT_CHOICE, offsetof(type, at.init), "model", 0, 0, "model|normal|trunc_normal|xavier|fan_in",                        \
     "initial weights of the linears: normal of init_std (cut at 2 std: trunc_normal), uniform by Glorot (xavier: sqrt(6/(in+out))), or uniform 1/sqrt(in), biases too (fan_in); model: as the model has them"}, \
    {"scale_residual", WF_OPT_BOOL, offsetof(type, at.scale_residual), "true", 0, 0, NULL,                                            \
     "the last linear of every branch starts 1/sqrt(2 layers) smaller (GPT-2)"}
/* clang-format on */

/* In a model's setup, before children: tell the model's parts what its options say. */
wf_status wf_stack_prepare(wf_module *m, const wf_stack_opt *o, wf_init_kind kind);
/* Added positions become child "position"; rotary and bias schemes are handed to the mixers. */
wf_status wf_stack_position(wf_module *m, const wf_stack_opt *o, int64_t width);
/* Child "blocks". */
wf_module *wf_stack_child(wf_module *m, const wf_stack_opt *o, int64_t width);
/* Whether a final norm belongs after the blocks: choice "auto" (the placement says), "true", "false". */
bool wf_stack_final_norm(const wf_module *blocks, const char *choice);

/* ---- for topologies ---- */
typedef struct wf_sublayer_row {
    const char *name,
        *slot;     /* "mixer", "channel": the option of that name fills it; "cross": attention to the model's context, left
                                out where there is none */
    double factor; /* of the residual branch */
    double share;  /* channel: of the hidden width that the part would have, unless the recipe says `hidden`; 0: 1 */
} wf_sublayer_row;
typedef struct wf_block_plan { /* what every block of a topology is */
    const wf_sublayer_row *row;
    int n;
    int64_t blocks; /* 0: as many as the model's layers; else the heads of all layers stand side by side in so few blocks */
    bool one_norm;  /* one norm a block in front of all its sublayers (where the placement has norms there) */
} wf_block_plan;
wf_status wf_stack_setup(wf_module *m, const wf_block_plan *plan);
wf_node *wf_stack_forward(wf_build *b, wf_module *m, wf_node *x);

/* spec.c: the recipe entry of sublayer `row` of block `at`: the item of a list, with what the topology changes in it. NULL: the
 * slot's default. Owned by the model. */
wf_status wf_sublayer_spec(wf_module *block, const wf_stack_opt *o, const wf_block_plan *plan, const wf_sublayer_row *row,
                           int64_t at, const wf_value **spec);

extern const wf_part wf_topology_plain, wf_topology_macaron, wf_topology_wide, wf_topology_activator, wf_topology_mixer_only;

#endif
