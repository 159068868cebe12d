/* table.c: the placements, one row each. A new one is a new row. */
#include "part/placement/placement.h"

#include "part/placement/row.h"

static const wf_option options[] = {{"residual_scale", WF_OPT_REAL, offsetof(wf_placement_opt, residual_scale), "0", 0, 1e6,
                                     NULL,
                                     "factor of the stream before the branch is added; 0: 1, or (2 layers)^(1/4) for deepnorm"},
                                    WF_OPT_END};

/* clang-format off */
#define ROW(n, t, p, s, f, fa)                                                                                            \
    .part = {.slot = "placement",                                                                                         \
             .name = n,                                                                                                   \
             .title = t,                                                                                                  \
             .paper = p,                                                                                                  \
             .sheet = s,                                                                                                  \
             .formula = f,                                                                                                \
             .facts = fa,                                                                                                 \
             .cost = "one norm of D for every N in the formula; nothing is cached",                                       \
             .golden = "model.placement-lm",                                                                              \
             .options = options,                                                                                          \
             .opt_size = sizeof(wf_placement_opt)}

const wf_placement wf_placements[] = {
    {ROW("pre", "norm in front of every sublayer", "Xiong et al.: On Layer Normalization in the Transformer Architecture, 2020, arXiv 2002.04745",
         "07", "x <- x + f(N(x)); a final norm before the head",
         "Trains without care. The stream's variance grows with depth, in the worst case exponentially."),
     .in = true, .final_norm = true},
    {ROW("post", "norm after every residual sum", "Vaswani et al.: Attention Is All You Need, 2017, arXiv 1706.03762", "07",
         "x <- N(x + f(x)); no final norm", "The original. Needs warm-up and a lower learning rate, the more so the deeper it is."),
     .res = true},
    {ROW("peri", "norms on input and output of every sublayer",
         "Kim et al.: Peri-LN: Revisiting Layer Normalization in the Transformer Architecture, 2025, arXiv 2502.02732", "07",
         "x <- x + N2(f(N1(x))); final norm; embed_norm recommended",
         "The stream's variance grows linearly with depth at most. Do not start output matrices at zero: N2 divides by their size."),
     .in = true, .out = true, .final_norm = true},
    {ROW("sandwich", "the wiring of peri as CogView and Gemma have it",
         "Ding et al.: CogView: Mastering Text-to-Image Generation via Transformers, 2021, arXiv 2105.13290", "07",
         "x <- x + N2(f(N1(x))); final norm", "Same wiring as peri; without a norm of the embedding (Gemma scales it by sqrt(D) and uses 1+w gains)."),
     .in = true, .out = true, .final_norm = true},
    {ROW("hybrid", "the wiring of peri as sigmoid attention has it for long sequences",
         "Ramapuram et al.: Theory, Analysis, and Best Practices for Sigmoid Self-Attention, 2024, arXiv 2409.04431", "47",
         "x <- x + N2(f(N1(x))); final norm",
         "Same wiring as peri. Keeps the sum of unnormalised attention weights from reaching the stream; for language models of length 4096 and more."),
     .in = true, .out = true, .final_norm = true},
    {ROW("output", "norm on the output of every sublayer only", "OLMo Team: 2 OLMo 2 Furious, 2024, arXiv 2501.00656", "07",
         "x <- x + N(f(x)); final norm", "Use with qk_norm: nothing normalises what attention reads."),
     .out = true, .final_norm = true},
    {ROW("normformer", "pre, and a norm in front of the last linear inside every sublayer",
         "Shleifer, Weston, Ott: NormFormer: Improved Transformer Pretraining with Extra Normalization, 2021, arXiv 2110.09456", "07",
         "x <- x + f(N(x)), f with a norm after the heads' concatenation / after the activation; final norm",
         "Evens out gradients between early and late layers."),
     .in = true, .inside = true, .final_norm = true},
    {ROW("deepnorm", "post with a scaled stream and smaller first weights",
         "Wang et al.: DeepNet: Scaling Transformers to 1,000 Layers, 2022, arXiv 2203.00555", "07",
         "x <- N(alpha x + f(x)), alpha = (2 layers)^(1/4); values, hidden and output weights start (8 layers)^(-1/4) times smaller",
         "Makes post stable at great depth."),
     .res = true, .deep = true},
    {ROW("adaln-zero", "norms modulated by a condition, and a gate of it on every branch, all zero at the start",
         "Peebles, Xie: Scalable Diffusion Models with Transformers, 2022, arXiv 2212.09748", "00",
         "(shift, scale, gate) = W silu(c) + b;  x <- x + gate * f(LN(x) (1 + scale) + shift);  final norm modulated too",
         "Needs a model with a condition c [B,C] or [B,L,C]. Every block is the identity at the start, and only W and b of the gates\n"
         "have a gradient in the first step. Norms are adaln; {name: adaln, base: rmsnorm} for the RMS form."),
     .in = true, .final_norm = true, .gate = true},
};
/* clang-format on */
const int wf_n_placements = sizeof wf_placements / sizeof *wf_placements;
