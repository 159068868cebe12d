/* safetensors_parts.h: shared by the reading, converting and writing of safetensors files. */
#ifndef WF_SAFETENSORS_PARTS_H
#define WF_SAFETENSORS_PARTS_H

#include "file/file.h"

typedef struct wf_st_kind {
    const char *name; /* "F32" */
    size_t size;      /* bytes an element */
} wf_st_kind;
const wf_st_kind *wf_st_kind_find(const char *name); /* NULL if there is no such dtype */

#endif
