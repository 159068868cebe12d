/* safetensors_save.c: writing. Tensors lie in order of element size, then name, so that every one is aligned; the header
 * is padded with blanks to 8 bytes. The same tensors give the same bytes. */
#include "file/safetensors_parts.h"

#include <stdlib.h>
#include <string.h>

static const char *const KIND[WF_DTYPES] = {
    [WF_F32] = "F32", [WF_BF16] = "BF16", [WF_I32] = "I32", [WF_U8] = "U8", [WF_F64] = "F64", [WF_I8] = "I8",
};

static int by_size_and_name(const void *a, const void *b) {
    const wf_st_item *x = a, *y = b;
    size_t m = wf_dtype_size(x->tensor->dtype), n = wf_dtype_size(y->tensor->dtype);
    return m != n ? (m > n ? -1 : 1) : strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static wf_status check_names(const char *path, const wf_st_item *items, int n) {
    wf_status s = WF_OK;
    const char **name = wf_alloc_array((size_t)n + 1, sizeof *name);
    if (!name) return WF_ENOMEM;
    for (int i = 0; i < n; i++) name[i] = items[i].name;
    qsort(name, (size_t)n, sizeof *name, by_name);
    for (int i = 0; i < n && s == WF_OK; i++) {
        if (i > 0 && strcmp(name[i - 1], name[i]) == 0) s = wf_fail(WF_EINVAL, "%s: two tensors are named '%s'", path, name[i]);
        if (strcmp(name[i], "__metadata__") == 0) s = wf_fail(WF_EINVAL, "%s: no tensor may be named '%s'", path, name[i]);
    }
    wf_free(name);
    return s;
}

static void put_entry(wf_text *t, const wf_st_item *it, size_t begin) {
    const wf_tensor *x = it->tensor;
    wf_text_json(t, it->name);
    wf_text_add(t, ":{\"dtype\":\"%s\",\"shape\":[", KIND[x->dtype]);
    for (int d = 0; d < x->shape.rank; d++) wf_text_add(t, d ? ",%lld" : "%lld", (long long)x->shape.dim[d]);
    wf_text_add(t, "],\"data_offsets\":[%zu,%zu]}", begin, begin + x->bytes);
}

static void put_meta(wf_text *t, const char *const *key, const char *const *text, int n, bool more) {
    if (n == 0) return;
    wf_text_add(t, "\"__metadata__\":{");
    for (int i = 0; i < n; i++) {
        if (i) wf_text_put(t, ",", 1);
        wf_text_json(t, key[i]);
        wf_text_put(t, ":", 1);
        wf_text_json(t, text[i]);
    }
    wf_text_put(t, more ? "}," : "}", more ? 2 : 1);
}

static wf_status write_all(const char *path, const wf_text *head, const wf_st_item *items, int n) {
    uint8_t length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)((uint64_t)head->n >> 8 * i);
    wf_writer *w = wf_writer_open(path);
    if (!w) return WF_EIO;
    wf_status s = wf_writer_put(w, length, 8);
    if (s == WF_OK) s = wf_writer_put(w, head->s, head->n);
    for (int i = 0; i < n && s == WF_OK; i++) s = wf_writer_put(w, items[i].tensor->data, items[i].tensor->bytes);
    if (s == WF_OK) return wf_writer_commit(w);
    wf_writer_abort(w);
    return s;
}

wf_status wf_st_save(const char *path, const wf_st_item *items, int n, const char *const *meta_key,
                     const char *const *meta_text, int n_meta) {
    if (n < 0 || n_meta < 0) return wf_fail(WF_EINVAL, "%s: a negative number of tensors", path);
    WF_TRY(check_names(path, items, n));
    wf_st_item *sorted = wf_alloc_array((size_t)n + 1, sizeof *sorted);
    if (!sorted) return WF_ENOMEM;
    if (n) memcpy(sorted, items, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_size_and_name);
    wf_text head = {0};
    size_t at = 0;
    wf_text_put(&head, "{", 1);
    put_meta(&head, meta_key, meta_text, n_meta, n > 0);
    for (int i = 0; i < n; i++) {
        if (i) wf_text_put(&head, ",", 1);
        put_entry(&head, &sorted[i], at);
        at += sorted[i].tensor->bytes;
    }
    wf_text_put(&head, "}", 1);
    while (head.n % 8 && !head.failed) wf_text_put(&head, " ", 1);
    wf_status s = head.failed ? WF_ENOMEM : write_all(path, &head, sorted, n);
    wf_text_free(&head);
    wf_free(sorted);
    return s;
}
