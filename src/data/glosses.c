/* glosses.c: reads the glosses of WordNet's data files.
 *
 * A line of data.{noun,verb,adj,adv} is one synset: `offset lex_filenum ss_type w_cnt word lex_id .. | gloss` (wndb(5WN)).
 */
#define _GNU_SOURCE /* memmem */
#include "data/glosses.h"

#include <string.h>

const char *const wf_gloss_parts[] = {"noun", "verb", "adj", "adv"};

static wf_status add_gloss(wf_glosses *g, wf_gloss item) {
    if (g->n == g->cap) {
        int64_t cap = g->cap ? 2 * g->cap : 4096;
        wf_gloss *p = wf_grow(g->item, (size_t)g->cap * sizeof *p, (size_t)cap * sizeof *p);
        if (!p) return WF_ENOMEM;
        g->item = p;
        g->cap = cap;
    }
    g->item[g->n++] = item;
    return WF_OK;
}

static wf_status read_part(const wf_bytes *b, const char *file, int part, wf_glosses *g) {
    const char *p = (const char *)b->p, *end = p + b->n;
    for (int line = 1; p < end; line++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p)), *next = stop ? stop + 1 : end;
        if (!stop) stop = end;
        if (*p != ' ' && stop > p) { /* lines of the licence begin with a blank */
            const char *bar = memmem(p, (size_t)(stop - p), " | ", 3);
            if (!bar) return wf_fail(WF_EFORMAT, "%s:%d: a synset without a gloss (no ' | ')", file, line);
            const char *s = bar + 3, *e = stop;
            while (e > s && (e[-1] == ' ' || e[-1] == '\r')) e--;
            while (s < e && *s == ' ') s++;
            if (e > s) WF_TRY(add_gloss(g, (wf_gloss){s, (size_t)(e - s), p, part}));
        }
        p = next;
    }
    return WF_OK;
}

static wf_status open_part(wf_task *t, const char *folder, int k, wf_bytes *b, wf_glosses *g) {
    char *file = wf_format("%s/data.%s", folder, wf_gloss_parts[k]);
    if (!file) return WF_ENOMEM;
    wf_status s = wf_bytes_open(file, b);
    if (s == WF_ENOTFOUND)
        s = wf_value_fail(t->where, s,
                          "task.%s: %s is not there: install the Debian package wordnet-base (apt install wordnet-base), "
                          "or give its folder as 'path'",
                          t->type->name, file);
    if (s == WF_OK) s = read_part(b, file, k, g);
    wf_free(file);
    return s;
}

wf_status wf_glosses_open(wf_task *t, const char *path, wf_glosses *g) {
    char *folder = wf_task_path(t, path);
    wf_status s = folder ? WF_OK : WF_ENOMEM;
    for (int k = 0; k < WF_GLOSS_PARTS && s == WF_OK; k++) s = open_part(t, folder, k, &g->file[k], g);
    wf_free(folder);
    return s;
}

void wf_glosses_close(wf_glosses *g) {
    for (int k = 0; k < WF_GLOSS_PARTS; k++) wf_bytes_close(&g->file[k]);
    wf_free(g->item);
    *g = (wf_glosses){0};
}
