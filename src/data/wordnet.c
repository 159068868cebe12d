/* wordnet.c: task `wordnet`: the glosses (definitions and examples) of WordNet 3.0 as byte text, from Debian's wordnet-base.
 *
 * Each gloss goes to one split by the hash of its own text, so a gloss that occurs twice is never in both. Within a split glosses
 * follow in one fixed pseudo-random order, one a line: both splits are then samples of the same distribution.
 */
#include "data/glosses.h"

#include <string.h>

typedef struct wordnet_options {
    const char *path, *entries;
    int64_t length, stride;
    double valid;
} wordnet_options;

static const wf_option options[] = {
    {"path", WF_OPT_TEXT, offsetof(wordnet_options, path), "/usr/share/wordnet", 0, 0, NULL,
     "folder with data.noun, data.verb, data.adj, data.adv"},
    {"length", WF_OPT_INT, offsetof(wordnet_options, length), "256", 1, 1 << 20, NULL, "L: bytes a window"},
    {"valid", WF_OPT_REAL, offsetof(wordnet_options, valid), "0.05", 0, 0.9, NULL, "part of the glosses kept for validation"},
    {"stride", WF_OPT_INT, offsetof(wordnet_options, stride), "0", 0, 1 << 20, NULL,
     "bytes between starts of training windows; 0: length (no overlap)"},
    {"entries", WF_OPT_CHOICE, offsetof(wordnet_options, entries), "gloss", 0, 0, "gloss|dictionary",
     "gloss: glosses alone; dictionary: 'word, word (noun): gloss'"},
    WF_OPT_END};

/* "word, other word (noun): " of a synset's line: `offset nn t w_cnt(hex) word lex_id word lex_id ..`. */
static void put_words(wf_text *t, const wf_gloss *g) {
    const char *p = g->line, *end = g->s - 3;
    int words = 0;
    for (int field = 0; field < 3 && p < end; field++) {
        while (p < end && *p != ' ') p++;
        p++;
    }
    for (int k = 0; k < 2 && p < end; k++, p++) {
        int digit = *p >= '0' && *p <= '9' ? *p - '0' : *p >= 'a' && *p <= 'f' ? *p - 'a' + 10 : 0;
        words = words * 16 + digit;
    }
    for (int k = 0; k < words && p < end; k++) {
        const char *s = ++p;
        while (p < end && *p != ' ') p++;
        if (k) wf_text_put(t, ", ", 2);
        for (; s < p && *s != '('; s++) wf_text_put(t, *s == '_' ? " " : s, 1); /* "(a)" marks where an adjective stands */
        do p++;
        while (p < end && *p != ' ');
    }
    wf_text_add(t, " (%s): ", wf_gloss_parts[g->part]);
}

static wf_status join(wf_task *t, const wf_glosses *g) {
    const wordnet_options *o = t->opt;
    wf_text text[2] = {{0}, {0}};
    bool dictionary = strcmp(o->entries, "dictionary") == 0;
    for (int64_t i = 0; i < g->n; i++) {
        const wf_gloss *q = &g->item[wf_shuffle((uint64_t)i, (uint64_t)g->n, 3)];
        bool valid = (double)(wf_hash(q->s, q->n, 0) >> 11) * 0x1p-53 < o->valid;
        if (dictionary) put_words(&text[valid], q);
        wf_text_put(&text[valid], q->s, q->n);
        wf_text_put(&text[valid], "\n", 1);
    }
    size_t n[2] = {text[0].n, text[1].n};
    uint8_t *copy[2] = {wf_alloc(n[0] + 1), wf_alloc(n[1] + 1)};
    bool ok = copy[0] && copy[1] && !text[0].failed && !text[1].failed;
    for (int k = 0; k < 2; k++) {
        if (ok && n[k]) memcpy(copy[k], text[k].s, n[k]);
        wf_text_free(&text[k]);
    }
    if (ok) return wf_windows_open(t, copy[0], n[0], copy[1], n[1], o->length, o->stride);
    wf_free(copy[0]);
    wf_free(copy[1]);
    return wf_fail(WF_ENOMEM, "task.wordnet: out of memory for the text");
}

static wf_status open_wordnet(wf_task *t) {
    const wordnet_options *o = t->opt;
    wf_glosses g = {0};
    wf_status s = wf_glosses_open(t, o->path, &g);
    if (s == WF_OK) s = join(t, &g);
    wf_glosses_close(&g);
    return s;
}

const wf_task_type wf_task_wordnet = {
    .name = "wordnet",
    .title = "117,659 glosses of WordNet 3.0, byte by byte",
    .help = "Language modelling of the definitions and examples of WordNet as bytes (vocab 256), one gloss a line; no gloss is "
            "in both "
            "splits. Needs the Debian package wordnet-base. Metric: bits per byte.",
    .options = options,
    .opt_size = sizeof(wordnet_options),
    .open = open_wordnet,
    .close = wf_windows_close,
    .sample = wf_windows_sample,
};
