/* options.c: the recipe's `train` entry. */
#include "learn/inside.h"

#include <string.h>

#define AT(field) offsetof(wf_train_opt, field)

const wf_option wf_train_options[] = {
    {"steps", WF_OPT_INT, AT(steps), "1000", 1, 1e12, NULL, "optimizer steps"},
    {"batch", WF_OPT_INT, AT(batch), "16", 1, 1e6, NULL, "samples an optimizer step"},
    {"accumulate", WF_OPT_INT, AT(accumulate), "1", 1, 1e6, NULL,
     "parts that a step's batch is split into to save memory; must divide batch; the mean is over the whole batch"},
    {"optimizer", WF_OPT_CHOICE, AT(optimizer), "adamw", 0, 0, "adamw|muon|sgd",
     "adamw; muon for hidden matrices with adamw for the rest; sgd with momentum"},
    {"lr", WF_OPT_REAL, AT(lr), "0.001", 0, 1e38, NULL, "peak learning rate"},
    {"weight_decay", WF_OPT_REAL, AT(weight_decay), "0.1", 0, 1e3, NULL,
     "decoupled: p -= lr * weight_decay * p; not on gains, biases, positions"},
    {"beta1", WF_OPT_REAL, AT(beta1), "0.9", 0, 0.999999, NULL, "adamw: decay of the mean of gradients"},
    {"beta2", WF_OPT_REAL, AT(beta2), "0.95", 0, 0.9999999, NULL, "adamw: decay of the mean of squared gradients"},
    {"eps", WF_OPT_REAL, AT(eps), "1e-8", 1e-20, 1, NULL, "adamw: added to the root of the second moment"},
    {"momentum", WF_OPT_REAL, AT(momentum), "0.95", 0, 0.999999, NULL, "muon (Nesterov) and sgd"},
    {"muon_lr", WF_OPT_REAL, AT(muon_lr), "0", 0, 1e3, NULL,
     "learning rate of matrices under muon; 0: lr (updates are scaled to adamw's size, see `weft explain muon`)"},
    {"schedule", WF_OPT_CHOICE, AT(schedule), "cosine", 0, 0, "cosine|linear|constant|wsd",
     "how the learning rate goes down after the warm-up; wsd: stable, then linear decay in the last part"},
    {"warmup", WF_OPT_INT, AT(warmup), "-1", -1, 1e12, NULL,
     "steps of linear warm-up, may be more than there are; -1: a twentieth of the steps"},
    {"final_lr", WF_OPT_REAL, AT(final_lr), "0.1", 0, 1, NULL, "learning rate at the end, as a fraction of lr"},
    {"decay_part", WF_OPT_REAL, AT(decay_part), "0.2", 0, 1, NULL, "wsd: part of the steps that decays"},
    {"clip", WF_OPT_REAL, AT(clip), "1", 0, 1e9, NULL, "largest global gradient norm; larger ones are scaled down; 0: off"},
    {"ema", WF_OPT_REAL, AT(ema), "0", 0, 0.9999999, NULL,
     "decay of the weight average that is validated and saved as the model; 0: off"},
    {"label_smoothing", WF_OPT_REAL, AT(label_smoothing), "0", 0, 0.99, NULL, "s: target mass 1-s plus s/V on every class"},
    {"precision", WF_OPT_CHOICE, AT(precision), "float32", 0, 0, "float32|bfloat16",
     "of matrix products; parameters and moments stay float32"},
    {"recompute", WF_OPT_BOOL, AT(recompute), "false", 0, 0, NULL,
     "keep only the inputs of blocks and compute the rest again in the backward pass: less memory, about a third more work"},
    {"seed", WF_OPT_INT, AT(seed), "1", 0, 9e15, NULL, "initial weights and dropout"},
    {"data_seed", WF_OPT_INT, AT(data_seed), "1", 0, 9e15, NULL, "order of the samples"},
    {"valid_every", WF_OPT_INT, AT(valid_every), "0", 0, 1e12, NULL, "steps between validations; 0: only at the end"},
    {"valid_batches", WF_OPT_INT, AT(valid_batches), "0", 0, 1e12, NULL, "batches of a validation; 0: the whole split"},
    {"checkpoint_minutes", WF_OPT_REAL, AT(checkpoint_minutes), "10", 0, 1e6, NULL,
     "minutes between checkpoints; 0: only at the end and on Ctrl-C"},
    {"start", WF_OPT_TEXT, AT(start), "", 0, 0, NULL,
     "a model of the same shape to start from (fine-tuning): a .safetensors file or a run's folder"},
    {"reset_state", WF_OPT_BOOL, AT(reset_state), "false", 0, 0, NULL,
     "with start: counters, windows and running statistics of norms begin anew (wanted by norms unified and power on new "
     "data)"},
    {"recalibrate", WF_OPT_INT, AT(recalibrate), "0", 0, 1e9, NULL,
     "batches after the last step that move the running statistics of norms alone: parameters stay, nothing is dropped; 0: "
     "none"},
    WF_OPT_END,
};

wf_status wf_train_read(const wf_value *recipe, wf_train_opt *o) {
    const wf_value *map = wf_value_get(recipe, "train");
    WF_TRY(wf_options_read(wf_train_options, map, "train", NULL, o, sizeof *o));
    if (o->batch % o->accumulate)
        return wf_value_fail(map ? map : recipe, WF_EINVAL,
                             "train: 'accumulate' must divide 'batch' (%lld does not divide %lld)", (long long)o->accumulate,
                             (long long)o->batch);
    if (o->warmup < 0) o->warmup = o->steps / 20;
    if (o->muon_lr == 0) o->muon_lr = o->lr;
    return WF_OK;
}

wf_dtype wf_train_dtype(const wf_train_opt *o) {
    return strcmp(o->precision, "bfloat16") ? WF_F32 : WF_BF16;
}
