/* override.h: inside of the part room: what a recipe's `parts` say of single modules (part.h explains the entry). */
#ifndef WF_OVERRIDE_H
#define WF_OVERRIDE_H

#include "part/part.h"

/* Take the entry `parts` of a model's options and check its form. */
wf_status wf_overrides_read(wf_model *m, const wf_value *options);
/* Lay what `parts` say of the module at `path` over *spec (NULL: default_name), in a tree the model owns. */
wf_status wf_override(wf_model *m, const char *path, const char *default_name, const wf_value **spec);
/* After all modules are made: every entry must have fitted one. */
wf_status wf_overrides_check(const wf_model *m);

#endif
