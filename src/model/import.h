/* import.h: other programs' names for the same tensors, both ways, from tables.
 *
 * A rule pairs a foreign name with ours; {} stands for a layer's number in both. Several rules of one foreign name are pieces of
 * it, one below the other along its rows (q, k, v in one matrix). The same tables serve values, checkpoints and gradients.
 */
#ifndef WF_IMPORT_H
#define WF_IMPORT_H

#include "part/part.h"

enum {                         /* wf_name_rule.flags */
       WF_NAME_TRANSPOSED = 1, /* foreign weight is [in,out] (Hugging Face Conv1D) */
       WF_NAME_LEAD1 = 2,      /* foreign has one leading axis of 1 */
       WF_NAME_LEAD2 = 4,      /* two */
       WF_NAME_PATCH = 8,      /* foreign is a convolution [D,C,ph,pw] */
       WF_NAME_OPTIONAL = 16,  /* may be absent: zeros */
};
typedef struct wf_name_rule {
    const char *foreign, *own; /* foreign: a leading ~ stands for the map's prefix, which a file may lack */
    uint32_t flags;
} wf_name_rule;
typedef struct wf_name_map {
    const char *name, *prefix; /* "gpt2", "transformer." */
    const wf_name_rule *rule;  /* ends with foreign == NULL */
    const char *const
        *ignore; /* foreign names that carry nothing (masks, tied copies), {} allowed, may start with ~; ends with NULL */
} wf_name_map;
extern const wf_name_map wf_names_gpt2, wf_names_llama, wf_names_bert, wf_names_vit, wf_names_deit, wf_names_timm,
    wf_names_simple_vit;
const wf_name_map *wf_names_find(const char *name); /* NULL + message */

/* Named tensors, owned. */
typedef struct wf_named_tensor {
    char *name;
    wf_tensor *value;
} wf_named_tensor;
typedef struct wf_tensors {
    int n, cap;
    wf_named_tensor *item;
} wf_tensors;
wf_status wf_tensors_add(wf_tensors *s, const char *name, wf_tensor *value); /* takes value */
const wf_tensor *wf_tensors_get(const wf_tensors *s, const char *name);
void wf_tensors_free(wf_tensors *s);
/* All tensors of a file whose names start with `prefix` (which is cut off); floats become float32, integers int32. */
wf_status wf_tensors_read(wf_tensors *s, const wf_st_file *f, const char *prefix);

/* Fill the model's parameters. Every parameter needs its rule and tensor, every foreign tensor must be used or ignored. */
wf_status wf_import(const wf_name_map *map, wf_model *m, const wf_tensors *foreign);
/* The other way: value[i] belongs to m->param[i] (NULL: the parameter itself; value NULL: all). Shapes are the foreign ones. */
wf_status wf_export(const wf_name_map *map, const wf_model *m, const wf_tensor *const *value, wf_tensors *foreign);

/* A recipe of a Hugging Face config.json (gpt2, llama, bert, vit, deit); *map receives the table of its names. */
wf_value *wf_recipe_from_config(const wf_value *config, const wf_name_map **map);
/* A model of `folder`/model.safetensors and `folder`/config.json. */
wf_model *wf_model_import(const char *folder);
/* Weights under foreign names, in the file layout of their own programs. */
wf_status wf_model_export(const wf_model *m, const wf_name_map *map, const char *path);

#endif
