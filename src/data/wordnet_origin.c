/* wordnet_origin.c: task `wordnet-origin`: which of WordNet's files a snippet of bytes comes from: glosses of nouns or of verbs,
 * or of all four parts of speech. A classification of byte text that needs no more than WordNet.
 *
 * Glosses go to the splits as in task `wordnet` (by the hash of their text) and are joined, one a line, a text for every part and
 * split. Sample `index` is of class index mod classes, and starts at a place that follows from (split, index) alone; so every
 * class is equally frequent and nothing but the snippets themselves tells them apart.
 */
#include "data/glosses.h"

#include <string.h>

typedef struct origin_options {
    const char *path, *parts;
    int64_t length, train, valid;
    double valid_part;
} origin_options;

static const wf_option options[] = {
    {"path", WF_OPT_TEXT, offsetof(origin_options, path), "/usr/share/wordnet", 0, 0, NULL,
     "folder with data.noun, data.verb, data.adj, data.adv"},
    {"parts", WF_OPT_CHOICE, offsetof(origin_options, parts), "noun-verb", 0, 0, "noun-verb|all",
     "the classes: nouns against verbs, or nouns, verbs, adjectives, adverbs"},
    {"length", WF_OPT_INT, offsetof(origin_options, length), "256", 1, 1 << 16, NULL, "L: bytes of a snippet"},
    {"train", WF_OPT_INT, offsetof(origin_options, train), "100000", 1, 1LL << 40, NULL, "training samples of an epoch"},
    {"valid", WF_OPT_INT, offsetof(origin_options, valid), "2000", 1, 1LL << 40, NULL, "validation samples"},
    {"valid_part", WF_OPT_REAL, offsetof(origin_options, valid_part), "0.1", 0.001, 0.9, NULL,
     "part of the glosses kept for validation"},
    WF_OPT_END};

typedef struct origin {
    wf_text text[2][WF_GLOSS_PARTS]; /* by split and class */
} origin;

static wf_status join(origin *d, const wf_glosses *g, int classes, double valid_part) {
    bool failed = false;
    for (int64_t i = 0; i < g->n; i++) {
        const wf_gloss *q = &g->item[wf_shuffle((uint64_t)i, (uint64_t)g->n, 3)];
        if (q->part >= classes) continue;
        bool valid = (double)(wf_hash(q->s, q->n, 0) >> 11) * 0x1p-53 < valid_part;
        wf_text *t = &d->text[valid][q->part];
        wf_text_put(t, q->s, q->n);
        wf_text_put(t, "\n", 1);
        failed |= t->failed;
    }
    return failed ? wf_fail(WF_ENOMEM, "task.wordnet-origin: out of memory for the text") : WF_OK;
}

static wf_status open_origin(wf_task *t) {
    const origin_options *o = t->opt;
    wf_task_set_tokens(t, 256, o->length);
    t->objective = WF_OBJECTIVE_CLASSES;
    t->classes = strcmp(o->parts, "all") ? 2 : WF_GLOSS_PARTS;
    t->class_names = wf_gloss_parts;
    t->tensor_name[1] = "labels";
    t->tensor_shape[1] = (wf_shape){.rank = 0};
    t->count[WF_TRAIN] = o->train;
    t->count[WF_VALID] = o->valid;
    origin *d = t->data = wf_alloc(sizeof *d);
    if (!d) return WF_ENOMEM;
    wf_glosses g = {0};
    wf_status s = wf_glosses_open(t, o->path, &g);
    if (s == WF_OK) s = join(d, &g, (int)t->classes, o->valid_part);
    wf_glosses_close(&g);
    WF_TRY(s);
    uint64_t h = (uint64_t)o->length;
    for (int k = 0; k < 2 * (int)t->classes; k++) {
        const wf_text *text = &d->text[k % 2][k / 2];
        if (text->n < (size_t)o->length)
            return wf_value_fail(t->where, WF_EINVAL,
                                 "task.wordnet-origin: the %s glosses of the %s split have %zu bytes, less than one snippet of "
                                 "length %lld",
                                 wf_gloss_parts[k / 2], k % 2 ? "validation" : "training", text->n, (long long)o->length);
        h = wf_hash(text->s, text->n, h);
    }
    t->fingerprint = h;
    return WF_OK;
}

static void close_origin(wf_task *t) {
    origin *d = t->data;
    for (int k = 0; d && k < 2 * WF_GLOSS_PARTS; k++) wf_text_free(&d->text[k % 2][k / 2]);
    wf_free(d);
    t->data = NULL;
}

static wf_status sample_origin(const wf_task *t, wf_split split, int64_t index, int64_t b, wf_tensor *const *tensors) {
    const origin *d = t->data;
    int64_t kind = index % t->classes;
    const wf_text *text = &d->text[split][kind];
    wf_rng r = {(uint64_t)split, (uint64_t)index, 0};
    const char *s = text->s + wf_rng_below(&r, text->n - (uint64_t)t->length + 1);
    int32_t *x = (int32_t *)tensors[0]->data + b * t->length;
    for (int64_t i = 0; i < t->length; i++) x[i] = (uint8_t)s[i];
    ((int32_t *)tensors[1]->data)[b] = (int32_t)kind;
    return WF_OK;
}

const wf_task_type wf_task_wordnet_origin = {
    .name = "wordnet-origin",
    .title = "whether a snippet of bytes was written to define nouns or verbs",
    .help =
        "Classification of byte text (vocab 256): a snippet of `length` bytes at a random place of WordNet's glosses of nouns "
        "or of verbs (or of all four parts of speech); the classes are equally frequent and no gloss is in both splits. Needs "
        "the Debian package wordnet-base. Metric: accuracy.",
    .options = options,
    .opt_size = sizeof(origin_options),
    .open = open_origin,
    .close = close_origin,
    .sample = sample_origin,
};
