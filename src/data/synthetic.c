/* synthetic.c: tasks `selective-copy` and `associative-recall`: small generated problems that separate token mixers in a minute.
 * Sample `index` of a split is a pure function of (task, seed, split, index); nothing is stored. Targets are negative where the
 * sequence is not scored.
 *
 * Selective copying (Gu, Dao: Mamba, 2023, arXiv 2312.00752, section 4.1.1; after Jing et al. 2019): `memorise` content tokens
 * stand at random places of a context of noise; the last `memorise` positions are markers, at which the content is to be
 * produced in order. The gaps vary, so a fixed convolution cannot solve it: the mixer must select by content.
 *     tokens   0 0 a 0 b 0 0 c 1 1 1        0 noise, 1 marker, 2 .. vocab-1 content
 *     targets  - - - - - - - - a b c
 *
 * Associative recall with several queries (MQAR; Arora et al.: Zoology, 2023, arXiv 2312.04927, section 4; after Fu et al.: H3,
 * 2022, arXiv 2212.14052): `pairs` of a key and a value, then every key again, once, at gaps from a power law; at a key's
 * second place its value is the target.
 *     tokens   k v q w 0 0 q w 0 0 k v      0 filler, 1 .. h keys, h+1 .. 2h values, h = (vocab - 1) / 2
 *     targets  - - - - - - w - - - v -
 */
#include "data/tasks.h"

#include <math.h>
#include <string.h>

typedef struct synthetic_options {
    int64_t length, vocab, items, train, valid, seed;
    double power;
} synthetic_options;

#define COMMON_OPTIONS                                                                                                         \
    {"train", WF_OPT_INT, offsetof(synthetic_options, train), "1000000", 1, 1LL << 40, NULL, "training samples of an epoch"},  \
        {"valid", WF_OPT_INT, offsetof(synthetic_options, valid), "2000", 1, 1LL << 40, NULL, "validation samples"},           \
        {"seed", WF_OPT_INT, offsetof(synthetic_options, seed), "0", 0, 0, NULL, "another seed is another data set"},          \
        WF_OPT_END

static const wf_option copy_options[] = {
    {"length", WF_OPT_INT, offsetof(synthetic_options, length), "256", 4, 1 << 16, NULL, "L: context and markers together"},
    {"vocab", WF_OPT_INT, offsetof(synthetic_options, vocab), "16", 4, 1 << 16, NULL,
     "V: noise, marker and vocab - 2 content tokens"},
    {"memorise", WF_OPT_INT, offsetof(synthetic_options, items), "16", 1, 1 << 15, NULL, "content tokens to be copied"},
    COMMON_OPTIONS};

static const wf_option recall_options[] = {
    {"length", WF_OPT_INT, offsetof(synthetic_options, length), "256", 8, 1 << 16, NULL, "L: at least 4 x pairs"},
    {"vocab", WF_OPT_INT, offsetof(synthetic_options, vocab), "256", 5, 1 << 16, NULL,
     "V: filler, and (vocab - 1) / 2 keys and as many values"},
    {"pairs", WF_OPT_INT, offsetof(synthetic_options, items), "16", 1, 1 << 14, NULL, "key-value pairs, each asked for once"},
    {"power", WF_OPT_REAL, offsetof(synthetic_options, power), "0.01", 0.001, 1, NULL,
     "a: the chance of a gap g before a query falls as g^(a-1); 1: all gaps alike"},
    COMMON_OPTIONS};

static wf_rng sample_rng(const wf_task *t, wf_split split, int64_t index) {
    const synthetic_options *o = t->opt;
    return (wf_rng){wf_hash(t->type->name, strlen(t->type->name), (uint64_t)o->seed), (uint64_t)index * 2 + (uint64_t)split, 0};
}

static wf_status open_synthetic(wf_task *t) {
    const synthetic_options *o = t->opt;
    wf_task_set_tokens(t, o->vocab, o->length);
    t->count[WF_TRAIN] = o->train;
    t->count[WF_VALID] = o->valid;
    t->fingerprint = wf_hash(o, sizeof *o, wf_hash(t->type->name, strlen(t->type->name), 3)); /* the struct has no padding */
    return WF_OK;
}
_Static_assert(sizeof(synthetic_options) == 6 * sizeof(int64_t) + sizeof(double), "hashed as bytes");

/* ---- selective copy ---- */
static wf_status open_copy(wf_task *t) {
    const synthetic_options *o = t->opt;
    if (o->length < 2 * o->items)
        return wf_value_fail(t->where, WF_EINVAL,
                             "task.selective-copy: length %lld does not hold %lld content tokens and as many markers: "
                             "'length' must be at least 2 x 'memorise'",
                             (long long)o->length, (long long)o->items);
    return open_synthetic(t);
}

static wf_status sample_copy(const wf_task *t, wf_split split, int64_t index, int64_t b, wf_tensor *const *tensors) {
    const synthetic_options *o = t->opt;
    int32_t *x = (int32_t *)tensors[0]->data + b * o->length, *y = (int32_t *)tensors[1]->data + b * o->length;
    int64_t context = o->length - o->items, placed = 0;
    wf_rng r = sample_rng(t, split, index);
    for (int64_t i = 0; i < context; i++) { /* every set of places is equally likely */
        x[i] = 0;
        y[i] = -1;
        if (wf_rng_below(&r, (uint64_t)(context - i)) >= (uint64_t)(o->items - placed)) continue;
        x[i] = 2 + (int32_t)wf_rng_below(&r, (uint64_t)o->vocab - 2);
        y[context + placed++] = x[i];
    }
    for (int64_t i = context; i < o->length; i++) x[i] = 1;
    return WF_OK;
}

const wf_task_type wf_task_selective_copy = {
    .name = "selective-copy",
    .title = "copy the tokens that matter out of noise (Gu, Dao 2023)",
    .help = "`memorise` content tokens stand at random places among noise tokens (0); at the `memorise` markers (1) at the end "
            "they are to be "
            "produced in order. Only these are scored. Needs selection by content. Metric: accuracy.",
    .options = copy_options,
    .opt_size = sizeof(synthetic_options),
    .open = open_copy,
    .sample = sample_copy,
};

/* ---- associative recall ---- */
static wf_status open_recall(wf_task *t) {
    const synthetic_options *o = t->opt;
    if (o->length < 4 * o->items)
        return wf_value_fail(t->where, WF_EINVAL,
                             "task.associative-recall: length %lld does not hold %lld pairs twice: 'length' must be at "
                             "least 4 x 'pairs'",
                             (long long)o->length, (long long)o->items);
    if ((o->vocab - 1) / 2 < o->items)
        return wf_value_fail(t->where, WF_EINVAL,
                             "task.associative-recall: vocab %lld has %lld keys for %lld pairs: 'vocab' must be at least "
                             "2 x 'pairs' + 1",
                             (long long)o->vocab, (long long)(o->vocab - 1) / 2, (long long)o->items);
    return open_synthetic(t);
}

/* The first `n` of a random order of slots 0..slots-1, drawn one after another with chances proportional to (i+1)^(power-1):
 * slots in the order of exponential waiting times with these rates. */
static void draw_slots(wf_rng *r, double power, int64_t slots, int64_t n, double *wait, int64_t *slot) {
    for (int64_t i = 0; i < slots; i++) wait[i] = -log(1 - wf_rng_uniform(r)) * pow((double)(i + 1), 1 - power);
    for (int64_t k = 0; k < n; k++) {
        int64_t best = 0;
        for (int64_t i = 1; i < slots; i++)
            if (wait[i] < wait[best]) best = i;
        slot[k] = best;
        wait[best] = INFINITY;
    }
}

static wf_status sample_recall(const wf_task *t, wf_split split, int64_t index, int64_t b, wf_tensor *const *tensors) {
    const synthetic_options *o = t->opt;
    int32_t *x = (int32_t *)tensors[0]->data + b * o->length, *y = (int32_t *)tensors[1]->data + b * o->length;
    int64_t n = o->items, slots = (o->length - 2 * n) / 2, half = (o->vocab - 1) / 2;
    double *wait = wf_alloc_array((size_t)slots, sizeof *wait);
    int64_t *slot = wf_alloc_array((size_t)n, sizeof *slot);
    if (!wait || !slot) {
        wf_free(wait);
        wf_free(slot);
        return WF_ENOMEM;
    }
    wf_rng r = sample_rng(t, split, index);
    uint64_t order = (uint64_t)wf_rng_u32(&r) << 32 | wf_rng_u32(&r);
    for (int64_t i = 0; i < o->length; i++) {
        x[i] = 0;
        y[i] = -1;
    }
    draw_slots(&r, o->power, slots, n, wait, slot);
    for (int64_t k = 0; k < n; k++) {
        int32_t key = 1 + (int32_t)wf_shuffle((uint64_t)k, (uint64_t)half, order); /* distinct keys */
        int32_t value = 1 + (int32_t)half + (int32_t)wf_rng_below(&r, (uint64_t)half);
        int64_t at = 2 * n + 2 * slot[k];
        x[2 * k] = x[at] = key;
        x[2 * k + 1] = x[at + 1] = y[at] = value;
    }
    wf_free(wait);
    wf_free(slot);
    return WF_OK;
}

const wf_task_type wf_task_associative_recall = {
    .name = "associative-recall",
    .title = "recall the value that followed a key (Arora et al. 2023)",
    .help = "`pairs` key-value pairs, then every key once more, spread over the rest by a power law; at a key's second place "
            "its value is the "
            "target. Only these are scored. Needs comparison of all positions. Metric: accuracy.",
    .options = recall_options,
    .opt_size = sizeof(synthetic_options),
    .open = open_recall,
    .sample = sample_recall,
};
