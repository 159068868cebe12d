/* file.h: formats. Everything read here is checked before use; a hostile file gives WF_EFORMAT, never a crash or a huge
 * allocation. Writers write to a temporary name, flush, rename. */
#ifndef WF_FILE_H
#define WF_FILE_H

#include "graph/graph.h"

/* ---- bytes.c ---- */
typedef struct wf_bytes { /* a whole file, mapped read-only or held in memory */
    const uint8_t *p;
    size_t n;
    void *handle;
} wf_bytes;
wf_status wf_bytes_open(const char *path, wf_bytes *b);
void wf_bytes_close(wf_bytes *b);
wf_status wf_gunzip(const uint8_t *p, size_t n, size_t limit, uint8_t **out, size_t *n_out); /* more than limit bytes: error */
/* Atomic write: temporary name beside `path`, fsync, rename, fsync of the folder. */
typedef struct wf_writer wf_writer;
wf_writer *wf_writer_open(const char *path);
wf_status wf_writer_put(wf_writer *w, const void *p, size_t n);
wf_status wf_writer_commit(wf_writer *w); /* frees w */
void wf_writer_abort(wf_writer *w);
wf_status wf_write_text(const char *path, const char *text);
wf_status wf_make_folder(const char *path); /* with parents; ok if there */
bool wf_path_exists(const char *path);

/* ---- value.c: one tree for YAML recipes (libyaml) and JSON (jansson), with places ---- */
typedef enum { WF_V_NULL, WF_V_TEXT, WF_V_LIST, WF_V_MAP } wf_value_kind;
typedef struct wf_value wf_value;
struct wf_value {
    wf_value_kind kind;
    char *text;  /* scalars: as written; typed when asked for */
    bool quoted; /* written in quotes: a string, not a number */
    int n;
    char **key; /* maps, in order */
    wf_value **item;
    const char *file;
    int line, column; /* 1-based; 0 when made by code */
    bool used;        /* set by wf_value_get; wf_value_unused finds keys nobody read */
};
wf_value *wf_yaml_parse(const char *text, size_t n, const char *file); /* aliases, duplicate keys, depth > 64: errors */
wf_value *wf_yaml_load(const char *path);
wf_value *wf_json_parse(const char *text, size_t n, const char *file);
void wf_value_free(wf_value *v);
wf_value *wf_value_copy(const wf_value *v);
wf_value *wf_value_get(const wf_value *map, const char *key); /* NULL if absent or not a map; marks it used */
wf_value *wf_value_map(void);
wf_value *wf_value_text(const char *s);
wf_value *wf_value_number(double x); /* null when not finite */
wf_value *wf_value_boolean(bool b);
wf_value *wf_value_null(void);
wf_value *wf_value_list(void);
wf_status wf_value_append(wf_value *list, wf_value *item); /* takes ownership */
char *wf_value_unused(const wf_value *v); /* dotted path of the first key nobody read, NULL if none; free with wf_free */
wf_status wf_value_set(wf_value *map, const char *key, wf_value *item); /* takes ownership; replaces */
/* Overlay: keys of `over` replace or (both maps) merge into a copy of `base`; a map with another `name` replaces, for the options of
 * one part mean nothing to another; `softmax` under {heads: 8} is {name: softmax, heads: 8}. Designs in compare recipes are overlays. */
wf_value *wf_value_merge(const wf_value *base, const wf_value *over);
/* Change one entry by dotted path, creating maps ("train.lr", "0.001"): --set on the command line. */
wf_status wf_value_set_path(wf_value *root, const char *path, const char *yaml_text);
wf_status wf_value_int(const wf_value *v, int64_t *out); /* errors say file:line and what was found */
wf_status wf_value_real(const wf_value *v, double *out);
wf_status wf_value_bool(const wf_value *v, bool *out);
char *wf_value_json(const wf_value *v, bool pretty); /* numbers and booleans unquoted; free with wf_free */
char *wf_value_yaml(const wf_value *v);
void wf_text_json(wf_text *t, const char *s); /* adds s as a JSON string with its quotes; bad UTF-8 becomes U+FFFD */
/* "recipes/x.yaml:12: <message>" */
wf_status wf_value_fail(const wf_value *v, wf_status s, const char *fmt, ...) WF_PRINTF(3, 4);

/* ---- options.c: an option table gives parsing, errors, `weft explain` and the documentation ---- */
typedef enum { WF_OPT_INT, WF_OPT_REAL, WF_OPT_BOOL, WF_OPT_TEXT, WF_OPT_CHOICE, WF_OPT_VALUE } wf_opt_type;
typedef struct wf_option {
    const char *name;
    wf_opt_type type;
    size_t offset;       /* into the options struct: int64_t, double, bool, const char *, const char *, const wf_value * */
    const char *def;     /* default as text; NULL: required; "" for TEXT/VALUE: absent (NULL) */
    double min, max;     /* INT and REAL, inclusive; both 0: unlimited */
    const char *choices; /* "a|b|c" */
    const char *help;
} wf_option; /* a table ends with name == NULL */
#define WF_OPT_END                                                                                                             \
    { NULL, WF_OPT_INT, 0, NULL, 0, 0, NULL, NULL }
/* Fill `out` (size bytes, zeroed here) from a map; strings point into the map or the table. `map` NULL: all defaults.
 * An unknown key fails and names the nearest known one. `what` names the owner: "mixer.softmax". `also` keys are allowed. */
wf_status wf_options_read(const wf_option *table, const wf_value *map, const char *what, const char *const *also, void *out,
                          size_t size);
const char *wf_nearest(const char *word, const char *const *words, int n); /* by edit distance; NULL if none is near */

/* ---- safetensors.c ---- */
typedef struct wf_st_entry {
    const char *name;
    const char *dtype; /* "F32", "BF16", "F16", "I64", "I32", "U8", "BOOL", "F64", "I8" */
    wf_shape shape;    /* rank <= 6 */
    const uint8_t *p;  /* unaligned: copy, do not cast */
    size_t bytes;
} wf_st_entry;
typedef struct wf_st_file {
    int n;
    wf_st_entry *entry; /* sorted by name */
    int n_meta;
    char **meta_key, **meta_text;
    wf_bytes bytes;
    wf_arena *arena;
} wf_st_file;
wf_status wf_st_open(const char *path, wf_st_file *f); /* header, offsets, overlaps and holes all checked here */
wf_status wf_st_parse(const uint8_t *p, size_t n, const char *name, wf_st_file *f); /* borrowed bytes (fuzzing, tests) */
void wf_st_close(wf_st_file *f);
const wf_st_entry *wf_st_find(const wf_st_file *f, const char *name);
const char *wf_st_meta(const wf_st_file *f, const char *key);
wf_tensor *wf_st_read(const wf_st_entry *e,
                      wf_dtype as); /* converts (I64 -> i32 with range check, F16/BF16 -> f32, BOOL -> u8..) */
typedef struct wf_st_item {
    const char *name;
    const wf_tensor *tensor;
} wf_st_item;
wf_status wf_st_save(const char *path, const wf_st_item *items, int n, const char *const *meta_key,
                     const char *const *meta_text, int n_meta);

/* ---- idx.c, png.c, table.c ---- */
/* idx (optionally gzipped) of unsigned bytes: shape and data (wf_free). */
wf_status wf_idx_parse(const uint8_t *p, size_t n, wf_shape *s, uint8_t **data);
wf_status wf_idx_load(const char *path, wf_shape *s, uint8_t **data);
/* PNG to 8-bit pixels [h,w,channels], channels 1 or 3 (0: as the file has). Limits: 64 megapixels. */
wf_status wf_png_parse(const uint8_t *p, size_t n, int channels, int64_t *h, int64_t *w, int *c, uint8_t **data);
wf_status wf_png_load(const char *path, int channels, int64_t *h, int64_t *w, int *c, uint8_t **data);
wf_status wf_png_save(const char *path, const uint8_t *data, int64_t h, int64_t w, int c);

#endif
