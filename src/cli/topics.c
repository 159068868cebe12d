/* topics.c: what can be listed and explained beside parts and tasks: the train entry, optimizers, schedules. */
#include "cli/topics.h"
#include "lab/lab.h"

static const wf_topic topics[] = {
    {"recipe", "train", "the recipe's `train` entry", NULL, NULL, NULL, NULL,
     "Loss: cross-entropy, mean over the scored targets of the whole batch. Weight decay is decoupled and not on gains, biases "
     "and "
     "positions. A step whose loss or gradient norm is not finite is not applied.",
     NULL, wf_train_options},
    {"recipe", "reproduce", "a claim for `weft reproduce`: what is compared, and what must hold", NULL, NULL, NULL, NULL,
     "Every design runs with every seed; criteria are judged by means over seeds. Quantities: loss, accuracy (percent), "
     "train_mode, "
     "gap, variance, entropy_min, entropy_max, grad_max, parameters, mflops, folded_loss, folded_change, ms, folded_ms. The "
     "recipes "
     "that come with the program are in recipes/reproduce/.",
     NULL, wf_claim_options},
    {"optimizer", "adamw", "Adam with decoupled weight decay",
     "I. Loshchilov, F. Hutter, Decoupled Weight Decay Regularization, 2019, arXiv:1711.05101", NULL,
     "m += (1-beta1)(g - m); v += (1-beta2)(g^2 - v)\np -= lr (m/(1-beta1^t) / (sqrt(v/(1-beta2^t)) + eps) + weight_decay p)",
     "two float32 numbers of state a parameter; one pass over memory", "g is the gradient after clipping, t the step from 1.",
     NULL, NULL},
    {"optimizer", "muon", "orthogonalised momentum for hidden matrices, adamw for the rest",
     "K. Jordan et al., Muon: An optimizer for hidden layers, 2024; J. Liu et al., Muon is Scalable for LLM Training, 2025, "
     "arXiv:2502.16982",
     NULL,
     "m = momentum m + g; u = g + momentum m\nX = u/||u||; five times: A = X X^T; X = 3.4445 X + (-4.7750 A + 2.0315 A A) X\n"
     "p -= muon_lr (0.2 sqrt(max(O,I)) X + weight_decay p)        for hidden matrices [O,I]",
     "one number of state a matrix entry; 5 x (4 n^2 m + 2 n^3) FLOPs a step for n <= m",
     "Embeddings, the head, gains and biases go by adamw. The factor 0.2 sqrt(max(O,I)) (Liu et al.) gives updates the size of "
     "adamw's, so "
     "one learning rate and weight decay serve both.",
     NULL, NULL},
    {"optimizer", "sgd", "gradient descent with momentum", NULL, NULL, "m = momentum m + g; p -= lr (m + weight_decay p)",
     "one number of state a parameter", "Weight decay is decoupled here too.", NULL, NULL},
    {"recipe", "parts", "the recipe's entry model.parts: what single modules are", NULL, NULL,
     "parts: {\"blocks.*.mixer_in_norm\": none, \"blocks.0.mixer.q\": {bias: true}, final_norm: {name: rmsnorm, eps: 1e-5}}",
     "as the parts it names",
     "A key is a module's path (`weft info MODEL` shows them before the last dot of every tensor); * stands for any one word. "
     "A map without "
     "a name changes options of what the model would make there, another name replaces it. Of several keys that fit, the one "
     "with the "
     "fewest * holds, the later of equals. blocks.*.mixer_scale: none leaves out a layer scale. A key that fits nothing is "
     "refused. "
     "Transforms write this entry.",
     NULL, NULL},
    {"verb", "transform", "fold and convert-norm: a model file into another one that computes the same",
     "Jiang et al., Pre-RMSNorm and Pre-CRMSNorm Transformers, 2023, arXiv 2305.14858 (convert-norm)", NULL,
     "fold, after a norm y = a x + b:  W' = W diag(a), bias' = bias + W b\n"
     "fold, in front of one:           W' = diag(a) W, bias' = a bias + b\n"
     "LN -> RMS: every writer of the stream W' = W - mean over outputs, bias' = bias - its mean; tables lose the mean of every "
     "row\n"
     "RMS -> CRMS: writers lose the last output, readers W' = W[:, :D-1] - W[:, D-1]; stream of D-1 channels\n"
     "CRMS -> RMS: writers get -(sum of the outputs) as one more, readers a column of zeros;  RMS (no mean) -> LN: as it is",
     "Folded batch norms (batchnorm, unified, repbn, prepbn) cost nothing; power keeps its first stage (groupscale); of "
     "layernorm and rmsnorm "
     "gain and bias alone go. RMS saves the pass for the mean; CRMS one channel of every matrix beside the stream, but an odd "
     "width is "
     "often slower: measure.",
     "Folded as well: layer scales (into the last linear of the branch), sigma and zero-mean linears, the centring of an "
     "embedding. A norm "
     "after the sum (post-norm) or of the embedding becomes affine, y = a x + b. A head tied to the embedding gets a matrix of "
     "its own, "
     "as the two change differently (--keep-tied leaves the final norm instead).\n"
     "Refused: post-norm networks (the stream is the norm's output), branches that do not end in linears (pooling), gains on a "
     "branch's output (peri with affine norms), fixed position tables, an embedding norm, RMSNorm networks with a mean (Llama) "
     "to layernorm or crmsnorm. Dropout and batch statistics differ in training: transform when training is over.",
     NULL, NULL},
    {"schedule", "cosine", "half a cosine", NULL, NULL,
     "f + (1-f)(1 + cos(pi x))/2, x from 0 to 1 after the warm-up, f = final_lr", NULL, NULL, NULL, NULL},
    {"schedule", "linear", "a straight line", NULL, NULL, "1 - (1-f) x, x from 0 to 1 after the warm-up, f = final_lr", NULL,
     NULL, NULL, NULL},
    {"schedule", "constant", "constant after the warm-up", NULL, NULL, NULL, NULL, NULL, NULL, NULL},
    {"schedule", "wsd", "warm-up, stable, decay", NULL, NULL,
     "1, and over the last decay_part of the steps linearly down to final_lr", NULL, NULL, NULL, NULL},
};

const wf_topic *wf_topics(int *n) {
    *n = sizeof topics / sizeof *topics;
    return topics;
}
