/* none.c: no positions. A causal model still tells them apart by how much each token sees. */
#include "part/position/position.h"

const wf_part wf_position_none = {
    .slot = "position",
    .name = "none",
    .title = "no position information",
    .paper = "as studied in Haviv et al.: Transformer Language Models without Positional Encodings Still Learn Positional "
             "Information, 2022, "
             "arXiv 2203.16634",
    .sheet = "00",
    .formula = "nothing is added or turned",
    .facts = "A causal model still tells positions apart; a bidirectional one sees a bag of tokens.",
    .cost = "nothing",
    .golden = "",
};
