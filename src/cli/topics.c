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
     "Every design runs with every seed; criteria are judged by means over seeds. Quantities: loss, accuracy (percent), train_mode, "
     "gap, variance, entropy_min, entropy_max, grad_max, parameters, mflops, folded_loss, folded_change, ms, folded_ms. The recipes "
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
