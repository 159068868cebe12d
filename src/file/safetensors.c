/* safetensors.c: reading. 8 bytes little-endian header length, a JSON header, then the data. The header must account for
 * every byte of the data exactly once; nothing of a file is used before all of it has been checked. */
#include "file/safetensors_parts.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const size_t HEADER_MAX = (size_t)100 << 20;

static const wf_st_kind KINDS[] = {
    {"F32", 4}, {"BF16", 2}, {"F16", 2},  {"F64", 8}, {"I64", 8}, {"I32", 4}, {"I16", 2},
    {"I8", 1},  {"U8", 1},   {"BOOL", 1}, {"U16", 2}, {"U32", 4}, {"U64", 8},
};

const wf_st_kind *wf_st_kind_find(const char *name) {
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++)
        if (strcmp(KINDS[i].name, name) == 0) return &KINDS[i];
    return NULL;
}

typedef struct header {
    const char *file;
    const uint8_t *data;
    size_t n_data;
    wf_st_file *out;
} header;

static wf_status bad(const header *h, const char *tensor, const char *why) {
    return wf_fail(WF_EFORMAT, "%s: tensor '%s': %s", h->file, tensor, why);
}

/* Shape to count of elements; every product is checked. */
static wf_status read_shape(const header *h, const char *name, const json_t *j, wf_shape *s, size_t *count) {
    if (!json_is_array(j)) return bad(h, name, "'shape' must be a list");
    size_t rank = json_array_size(j);
    if (rank > WF_MAX_RANK)
        return wf_fail(WF_EUNSUPPORTED, "%s: tensor '%s' has %zu axes, at most %d are possible", h->file, name, rank,
                       WF_MAX_RANK);
    *s = (wf_shape){.rank = (int)rank};
    *count = 1;
    size_t extent = 1; /* zeros left out: strides must not overflow either */
    for (size_t i = 0; i < rank; i++) {
        const json_t *d = json_array_get(j, i);
        json_int_t dim = json_integer_value(d);
        if (!json_is_integer(d) || dim < 0) return bad(h, name, "'shape' must hold whole numbers from 0");
        if (__builtin_mul_overflow(extent, dim ? (size_t)dim : 1, &extent) || extent > PTRDIFF_MAX / 8)
            return bad(h, name, "'shape' overflows");
        *count *= (size_t)dim;
        s->dim[i] = dim;
    }
    return WF_OK;
}

static wf_status read_offsets(const header *h, const char *name, const json_t *j, size_t *begin, size_t *end) {
    const json_t *b = json_array_get(j, 0), *e = json_array_get(j, 1);
    if (!json_is_array(j) || json_array_size(j) != 2 || !json_is_integer(b) || !json_is_integer(e) ||
        json_integer_value(b) < 0 || json_integer_value(e) < json_integer_value(b))
        return bad(h, name, "'data_offsets' must be [begin, end], 0 <= begin <= end");
    *begin = (size_t)json_integer_value(b);
    *end = (size_t)json_integer_value(e);
    if (*end > h->n_data)
        return wf_fail(WF_EFORMAT, "%s: tensor '%s' ends at byte %zu of the data, which has %zu: the file is cut or damaged",
                       h->file, name, *end, h->n_data);
    return WF_OK;
}

static wf_status read_entry(const header *h, const char *name, const json_t *j, wf_st_entry *e) {
    if (!json_is_object(j) || json_object_size(j) != 3)
        return bad(h, name, "must have dtype, shape and data_offsets, nothing else");
    const char *dtype = json_string_value(json_object_get(j, "dtype"));
    if (!dtype) return bad(h, name, "'dtype' must be a text");
    const wf_st_kind *kind = wf_st_kind_find(dtype);
    if (!kind) return wf_fail(WF_EUNSUPPORTED, "%s: tensor '%s' has the unknown dtype '%.20s'", h->file, name, dtype);
    size_t count = 0, begin = 0, end = 0, bytes = 0;
    WF_TRY(read_shape(h, name, json_object_get(j, "shape"), &e->shape, &count));
    WF_TRY(read_offsets(h, name, json_object_get(j, "data_offsets"), &begin, &end));
    if (__builtin_mul_overflow(count, kind->size, &bytes) || bytes != end - begin) {
        char buf[96];
        return wf_fail(WF_EFORMAT, "%s: tensor '%s': %s %s does not take the %zu bytes of its data_offsets", h->file, name,
                       dtype, wf_shape_text(&e->shape, buf), end - begin);
    }
    e->name = wf_arena_strdup(h->out->arena, name);
    e->dtype = kind->name;
    e->p = h->data + begin;
    e->bytes = bytes;
    return e->name ? WF_OK : WF_ENOMEM;
}

static wf_status read_meta(const header *h, const json_t *j) {
    wf_st_file *f = h->out;
    const char *key;
    json_t *text;
    if (!json_is_object(j)) return wf_fail(WF_EFORMAT, "%s: __metadata__ must be a map of texts", h->file);
    size_t n = json_object_size(j);
    f->meta_key = wf_arena_alloc(f->arena, n * sizeof *f->meta_key);
    f->meta_text = wf_arena_alloc(f->arena, n * sizeof *f->meta_text);
    if (!f->meta_key || !f->meta_text) return WF_ENOMEM;
    json_object_foreach((json_t *)(uintptr_t)j, key, text) {
        if (!json_is_string(text)) return wf_fail(WF_EFORMAT, "%s: __metadata__ '%s' must be a text", h->file, key);
        f->meta_key[f->n_meta] = wf_arena_strdup(f->arena, key);
        f->meta_text[f->n_meta] = wf_arena_strdup(f->arena, json_string_value(text));
        if (!f->meta_key[f->n_meta] || !f->meta_text[f->n_meta]) return WF_ENOMEM;
        f->n_meta++;
    }
    return WF_OK;
}

static int by_place(const void *a, const void *b) {
    const wf_st_entry *x = a, *y = b;
    if (x->p != y->p) return x->p < y->p ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const wf_st_entry *)a)->name, ((const wf_st_entry *)b)->name);
}

/* In order of place, each tensor must begin where the one before it ended, the last end where the file ends. */
static wf_status check_layout(const header *h) {
    wf_st_file *f = h->out;
    const uint8_t *at = h->data;
    if (f->n) qsort(f->entry, (size_t)f->n, sizeof *f->entry, by_place);
    for (int i = 0; i < f->n; i++) {
        if (f->entry[i].p < at) return bad(h, f->entry[i].name, "overlaps another tensor");
        if (f->entry[i].p > at) return bad(h, f->entry[i].name, "leaves a hole in the data before it");
        at += f->entry[i].bytes;
    }
    if (at != h->data + h->n_data)
        return wf_fail(WF_EFORMAT, "%s: %zu bytes after the last tensor belong to none", h->file,
                       (size_t)(h->data + h->n_data - at));
    if (f->n) qsort(f->entry, (size_t)f->n, sizeof *f->entry, by_name);
    return WF_OK;
}

static wf_status read_header(const header *h, const json_t *j) {
    wf_st_file *f = h->out;
    const char *name;
    json_t *entry;
    size_t n = json_object_size(j);
    if (!json_is_object(j)) return wf_fail(WF_EFORMAT, "%s: the header must be a JSON map", h->file);
    if (n > INT32_MAX) return wf_fail(WF_EFORMAT, "%s: too many tensors", h->file);
    f->entry = wf_arena_alloc(f->arena, n * sizeof *f->entry);
    if (!f->entry) return WF_ENOMEM;
    json_object_foreach((json_t *)(uintptr_t)j, name, entry) {
        if (strcmp(name, "__metadata__") == 0)
            WF_TRY(read_meta(h, entry));
        else
            WF_TRY(read_entry(h, name, entry, &f->entry[f->n++]));
    }
    return check_layout(h);
}

static wf_status parse(const uint8_t *p, size_t n, const char *name, wf_st_file *f) {
    json_error_t err;
    uint64_t length = 0;
    if (n < 8) return wf_fail(WF_EFORMAT, "%s: not a safetensors file: only %zu bytes", name, n);
    for (int i = 7; i >= 0; i--) length = length << 8 | p[i];
    if (length > HEADER_MAX || length > n - 8)
        return wf_fail(WF_EFORMAT, "%s: not a safetensors file, or cut: its header claims %llu bytes, %zu follow", name,
                       (unsigned long long)length, n - 8);
    json_t *j = json_loadb((const char *)p + 8, (size_t)length, JSON_REJECT_DUPLICATES, &err);
    if (!j) return wf_fail(WF_EFORMAT, "%s: header, byte %d: %s", name, err.position, err.text);
    header h = {name, p + 8 + length, n - 8 - (size_t)length, f};
    f->arena = wf_arena_new();
    wf_status s = f->arena ? read_header(&h, j) : WF_ENOMEM;
    json_decref(j);
    return s;
}

wf_status wf_st_parse(const uint8_t *p, size_t n, const char *name, wf_st_file *f) {
    *f = (wf_st_file){0};
    wf_status s = parse(p, n, name, f);
    if (s != WF_OK) wf_st_close(f);
    return s;
}

wf_status wf_st_open(const char *path, wf_st_file *f) {
    wf_bytes b;
    *f = (wf_st_file){0};
    WF_TRY(wf_bytes_open(path, &b));
    wf_status s = wf_st_parse(b.p, b.n, path, f);
    if (s == WF_OK)
        f->bytes = b;
    else
        wf_bytes_close(&b);
    return s;
}

void wf_st_close(wf_st_file *f) {
    wf_arena_free(f->arena);
    wf_bytes_close(&f->bytes);
    *f = (wf_st_file){0};
}

const wf_st_entry *wf_st_find(const wf_st_file *f, const char *name) {
    wf_st_entry key = {.name = name};
    return f->n ? bsearch(&key, f->entry, (size_t)f->n, sizeof *f->entry, by_name) : NULL;
}

const char *wf_st_meta(const wf_st_file *f, const char *key) {
    for (int i = 0; i < f->n_meta; i++)
        if (strcmp(f->meta_key[i], key) == 0) return f->meta_text[i];
    return NULL;
}
