/* modelfile.c: a model as one .safetensors file: weights under their dotted names, the recipe in the metadata. */
#include "part/part.h"

#include <string.h>

static const char format_name[] = "weft-model-1";

/* A copy in another float type (the file's), or the tensor itself. */
static wf_tensor *converted(const wf_tensor *t, wf_dtype as) {
    wf_tensor *c = wf_tensor_new(as, t->shape);
    if (!c) return NULL;
    int64_t n = wf_tensor_count(t);
    for (int64_t i = 0; i < n; i++) wf_tensor_set(c, i, wf_tensor_get(t, i));
    return c;
}

wf_status wf_model_save(const wf_model *m, const char *path, wf_dtype as, const char *const *meta_key,
                        const char *const *meta_text, int n_meta) {
    if (as != WF_F32 && as != WF_BF16)
        return wf_fail(WF_EINVAL, "a model is saved as float32 or bfloat16, not %s", wf_dtype_name(as));
    int n = m->n_param;
    wf_st_item *item = wf_alloc_array((size_t)n + 1, sizeof *item);
    wf_tensor **own = wf_alloc_array((size_t)n + 1, sizeof *own);
    const char **key = wf_alloc_array((size_t)n_meta + 2, sizeof *key),
               **text = wf_alloc_array((size_t)n_meta + 2, sizeof *text);
    char *recipe = m->recipe ? wf_value_json(m->recipe, false) : wf_strdup("{}");
    wf_status s = item && own && key && text && recipe ? WF_OK : WF_ENOMEM;
    for (int i = 0; i < n && s == WF_OK; i++) {
        const wf_tensor *v = m->param[i]->value;
        if (v->dtype == WF_F32 && as != WF_F32 && !(m->param[i]->flags & WF_PARAM_BUFFER) && !(own[i] = converted(v, as)))
            s = WF_ENOMEM;
        item[i] = (wf_st_item){m->param[i]->name, own[i] ? own[i] : v};
    }
    if (s == WF_OK) {
        key[0] = "format", text[0] = format_name;
        key[1] = "recipe", text[1] = recipe;
        for (int i = 0; i < n_meta; i++) key[i + 2] = meta_key[i], text[i + 2] = meta_text[i];
        s = wf_st_save(path, item, n, key, text, n_meta + 2);
    }
    for (int i = 0; own && i < n; i++) wf_tensor_free(own[i]);
    wf_free(item);
    wf_free(own);
    wf_free(key);
    wf_free(text);
    wf_free(recipe);
    return s;
}

static wf_status read_one(wf_param *p, const wf_st_file *f) {
    const wf_st_entry *e = wf_st_find(f, p->name);
    if (!e) return wf_fail(WF_EFORMAT, "the file has no tensor '%s', which the model needs", p->name);
    char a[96], b[96];
    if (!wf_shape_equal(&e->shape, &p->value->shape))
        return wf_fail(WF_EFORMAT, "tensor '%s' is %s in the file and %s in the model", p->name, wf_shape_text(&e->shape, a),
                       wf_shape_text(&p->value->shape, b));
    wf_tensor *t = wf_st_read(e, p->value->dtype);
    if (!t) return WF_EFORMAT;
    memcpy(p->value->data, t->data, p->value->bytes);
    wf_tensor_free(t);
    return WF_OK;
}

wf_status wf_model_read_weights(wf_model *m, const wf_st_file *f) {
    for (int i = 0; i < f->n; i++)
        if (!wf_model_param(m, f->entry[i].name))
            return wf_fail(WF_EFORMAT, "the file has tensor '%s', which the model does not have", f->entry[i].name);
    for (int i = 0; i < m->n_param; i++) WF_TRY(read_one(m->param[i], f));
    return WF_OK;
}

static wf_model *load(const char *path, const wf_st_file *f) {
    const char *format = wf_st_meta(f, "format"), *recipe = wf_st_meta(f, "recipe");
    if (!format || strcmp(format, format_name) || !recipe) {
        wf_fail(WF_EFORMAT, "%s: not a model of this program (metadata 'format' is %s, expected %s)", path,
                format ? format : "absent", format_name);
        return NULL;
    }
    wf_value *v = wf_json_parse(recipe, strlen(recipe), path);
    wf_model *m = v ? wf_model_build(v, 4 * f->bytes.n + (1 << 16)) : NULL;
    wf_value_free(v);
    if (m && wf_model_read_weights(m, f) != WF_OK) {
        wf_fail_within(WF_EFORMAT, "%s", path);
        wf_model_free(m);
        return NULL;
    }
    return m;
}

wf_model *wf_model_load(const char *path) {
    wf_st_file f;
    if (wf_st_open(path, &f) != WF_OK) return NULL;
    wf_model *m = load(path, &f);
    wf_st_close(&f);
    return m;
}
