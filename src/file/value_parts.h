/* value_parts.h: what the files of this room share about wf_value beyond file.h. */
#ifndef WF_VALUE_PARTS_H
#define WF_VALUE_PARTS_H

#include "file/file.h"

enum {
    WF_VALUE_DEPTH = 64,         /* nesting of maps and lists */
    WF_VALUE_BYTES = 16 << 20,   /* length of a text to parse */
    WF_VALUE_COUNT = 500 * 1000, /* values in one tree */
};

wf_status wf_value_add(wf_value *map, const char *key, wf_value *item); /* the key is known to be new; takes item */
const char *wf_value_twice(const wf_value *map);                        /* a key that stands twice, or NULL */
bool wf_text_is_number(const char *s, double *x);
bool wf_text_is_bool(const char *s, bool *b);
bool wf_text_is_null(const char *s);

#endif
