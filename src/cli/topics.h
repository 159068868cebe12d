/* topics.h: what `weft list` and `weft explain` say of a thing, whatever it is. */
#ifndef WF_CLI_TOPICS_H
#define WF_CLI_TOPICS_H

#include "cli/cli.h"
#include "learn/learn.h"

typedef struct wf_topic {
    const char *slot, *name, *title, *paper, *sheet, *formula, *cost, *facts, *golden;
    const wf_option *options;
} wf_topic;
const wf_topic *wf_topics(int *n);

#endif
