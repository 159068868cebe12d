/* glosses.h: the glosses of WordNet in the order of its files, for the tasks made of them. Not for other rooms. */
#ifndef WF_GLOSSES_H
#define WF_GLOSSES_H

#include "data/tasks.h"

enum { WF_GLOSS_PARTS = 4 };
extern const char *const wf_gloss_parts[]; /* "noun", "verb", "adj", "adv" */

typedef struct wf_gloss {
    const char *s; /* the gloss, in the file's bytes */
    size_t n;
    const char *line; /* the synset's line, for its words */
    int part;
} wf_gloss;

typedef struct wf_glosses {
    wf_gloss *item;
    int64_t n, cap;
    wf_bytes file[WF_GLOSS_PARTS];
} wf_glosses;

/* `path`: folder with data.noun, data.verb, data.adj, data.adv. Zeroed before; close it also after a failure. */
wf_status wf_glosses_open(wf_task *t, const char *path, wf_glosses *g);
void wf_glosses_close(wf_glosses *g);

#endif
