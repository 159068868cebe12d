/* yaml.c: YAML text (libyaml events) to a value and back. Recipes are trees of plain text: anchors, aliases, tags and
 * several documents in a file are refused. */
#include "file/value_parts.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

typedef struct reader {
    yaml_parser_t parser;
    yaml_event_t event;
    bool have; /* event is to be deleted */
    const char *file;
    int count; /* values so far */
} reader;

static wf_status refuse(const reader *r, const yaml_mark_t *at, const char *why) {
    return wf_fail(WF_EFORMAT, "%s:%zu: %s", r->file, at->line + 1, why);
}

static wf_status next_event(reader *r) {
    if (r->have) yaml_event_delete(&r->event);
    r->have = false;
    const yaml_parser_t *p = &r->parser;
    if (yaml_parser_parse(&r->parser, &r->event)) {
        r->have = true;
        return WF_OK;
    }
    if (p->error == YAML_MEMORY_ERROR) return wf_fail(WF_ENOMEM, "%s: out of memory", r->file);
    if (p->error == YAML_READER_ERROR)
        return wf_fail(WF_EFORMAT, "%s: byte %zu: %s", r->file, p->problem_offset, p->problem ? p->problem : "not UTF-8 text");
    return wf_fail(WF_EFORMAT, "%s:%zu: %s%s%s", r->file, p->problem_mark.line + 1, p->problem ? p->problem : "malformed YAML",
                   p->context ? " " : "", p->context ? p->context : "");
}

static wf_value *here(reader *r, wf_value *v) {
    if (!v) return NULL;
    v->file = wf_strdup(r->file);
    v->line = (int)r->event.start_mark.line + 1;
    v->column = (int)r->event.start_mark.column + 1;
    if (v->file) return v;
    wf_value_free(v);
    return NULL;
}

static wf_status check_scalar(const reader *r) {
    const char *s = (const char *)r->event.data.scalar.value;
    if (r->event.data.scalar.tag) return refuse(r, &r->event.start_mark, "tags (!...) are not used in recipes: leave it out");
    if (strlen(s) != r->event.data.scalar.length) return refuse(r, &r->event.start_mark, "a text holds a zero byte");
    return WF_OK;
}

static wf_status read_scalar(reader *r, wf_value **out) {
    const char *s = (const char *)r->event.data.scalar.value;
    bool quoted = r->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    WF_TRY(check_scalar(r));
    if (!quoted && wf_text_is_null(s)) {
        *out = here(r, wf_value_null());
    } else {
        wf_value *v = wf_value_text(s);
        if (v) v->quoted = quoted;
        *out = here(r, v);
    }
    return *out ? WF_OK : WF_ENOMEM;
}

static wf_status read_value(reader *r, int depth, wf_value **out);

/* The map's own event is current; reads up to and including its end. */
static wf_status read_map(reader *r, int depth, wf_value *map) {
    for (;;) {
        WF_TRY(next_event(r));
        if (r->event.type == YAML_MAPPING_END_EVENT) break;
        yaml_mark_t at = r->event.start_mark;
        if (r->event.type != YAML_SCALAR_EVENT) return refuse(r, &at, "a key must be a plain word");
        if (r->event.data.scalar.anchor) return refuse(r, &at, "anchors (&...) are not used in recipes");
        WF_TRY(check_scalar(r));
        char *key = wf_strdup((const char *)r->event.data.scalar.value); /* as written: "null" is a name here */
        wf_value *item = NULL;
        wf_status s = key ? next_event(r) : WF_ENOMEM;
        if (s == WF_OK) s = read_value(r, depth, &item);
        if (s == WF_OK) s = wf_value_add(map, key, item);
        wf_free(key);
        WF_TRY(s);
    }
    const char *twice = wf_value_twice(map);
    for (int i = map->n; twice && i-- > 0;)
        if (strcmp(map->key[i], twice) == 0)
            return wf_value_fail(map->item[i], WF_EFORMAT, "the key '%s' stands twice in one map", twice);
    return WF_OK;
}

static wf_status read_list(reader *r, int depth, wf_value *list) {
    for (;;) {
        WF_TRY(next_event(r));
        if (r->event.type == YAML_SEQUENCE_END_EVENT) return WF_OK;
        wf_value *item = NULL;
        WF_TRY(read_value(r, depth, &item));
        WF_TRY(wf_value_append(list, item));
    }
}

/* The value that the current event begins; *out is NULL after an error. */
static wf_status read_value(reader *r, int depth, wf_value **out) {
    yaml_mark_t at = r->event.start_mark;
    *out = NULL;
    if (r->event.type == YAML_ALIAS_EVENT) return refuse(r, &at, "aliases (*...) are not used in recipes: write the value out");
    if (++r->count > WF_VALUE_COUNT) return refuse(r, &at, "too many values in one file");
    bool map = r->event.type == YAML_MAPPING_START_EVENT;
    yaml_char_t *anchor = map                                          ? r->event.data.mapping_start.anchor
                          : r->event.type == YAML_SEQUENCE_START_EVENT ? r->event.data.sequence_start.anchor
                                                                       : r->event.data.scalar.anchor;
    if (anchor) return refuse(r, &at, "anchors (&...) are not used in recipes");
    if (r->event.type == YAML_SCALAR_EVENT) return read_scalar(r, out);
    if (depth >= WF_VALUE_DEPTH) return refuse(r, &at, "nested deeper than 64 levels");
    if (map ? r->event.data.mapping_start.tag : r->event.data.sequence_start.tag)
        return refuse(r, &at, "tags (!...) are not used in recipes: leave it out");
    wf_value *v = here(r, map ? wf_value_map() : wf_value_list());
    if (!v) return WF_ENOMEM;
    wf_status s = map ? read_map(r, depth + 1, v) : read_list(r, depth + 1, v);
    if (s == WF_OK)
        *out = v;
    else
        wf_value_free(v);
    return s;
}

static wf_status read_stream(reader *r, wf_value **out) {
    WF_TRY(next_event(r)); /* stream start */
    WF_TRY(next_event(r));
    if (r->event.type == YAML_STREAM_END_EVENT) { /* an empty file */
        *out = here(r, wf_value_null());
        return *out ? WF_OK : WF_ENOMEM;
    }
    WF_TRY(next_event(r)); /* past document start */
    WF_TRY(read_value(r, 0, out));
    WF_TRY(next_event(r)); /* document end */
    WF_TRY(next_event(r));
    if (r->event.type != YAML_STREAM_END_EVENT) return refuse(r, &r->event.start_mark, "only one document (---) a file");
    return WF_OK;
}

wf_value *wf_yaml_parse(const char *text, size_t n, const char *file) {
    reader r = {.file = file ? file : "recipe"};
    wf_value *v = NULL;
    if (n > WF_VALUE_BYTES) {
        wf_fail(WF_EFORMAT, "%s: %zu bytes are too long for a recipe (limit %d)", r.file, n, (int)WF_VALUE_BYTES);
        return NULL;
    }
    if (!yaml_parser_initialize(&r.parser)) {
        wf_fail(WF_ENOMEM, "%s: out of memory", r.file);
        return NULL;
    }
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, n);
    wf_status s = read_stream(&r, &v);
    if (r.have) yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    if (s == WF_OK) return v;
    wf_value_free(v);
    return NULL;
}

wf_value *wf_yaml_load(const char *path) {
    wf_bytes b;
    if (wf_bytes_open(path, &b) != WF_OK) return NULL;
    wf_value *v = wf_yaml_parse(b.p ? (const char *)b.p : "", b.n, path);
    wf_bytes_close(&b);
    return v;
}

/* ---- writing ---- */
static int collect(void *to, unsigned char *bytes, size_t n) {
    wf_text_put(to, (const char *)bytes, n);
    return !((wf_text *)to)->failed;
}

/* Text that would read back as something else (a number, true, null) goes in quotes. */
static bool needs_quotes(const wf_value *v) {
    double x;
    bool b;
    return v->quoted && (wf_text_is_null(v->text) || wf_text_is_number(v->text, &x) || wf_text_is_bool(v->text, &b));
}

static bool emit_scalar(yaml_emitter_t *e, const char *s, bool quotes) {
    yaml_event_t ev;
    return yaml_scalar_event_initialize(&ev, NULL, NULL, (const yaml_char_t *)s, (int)strlen(s), 1, 1,
                                        quotes ? YAML_DOUBLE_QUOTED_SCALAR_STYLE : YAML_PLAIN_SCALAR_STYLE) &&
           yaml_emitter_emit(e, &ev);
}

static bool all_scalars(const wf_value *v) {
    for (int i = 0; i < v->n; i++)
        if (v->item[i]->kind > WF_V_TEXT) return false;
    return true;
}

static bool emit(yaml_emitter_t *e, const wf_value *v) {
    yaml_event_t ev;
    if (v->kind == WF_V_NULL) return emit_scalar(e, "null", false);
    if (v->kind == WF_V_TEXT) return emit_scalar(e, v->text, needs_quotes(v));
    bool map = v->kind == WF_V_MAP;
    if (!(map ? yaml_mapping_start_event_initialize(&ev, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE)
              : yaml_sequence_start_event_initialize(&ev, NULL, NULL, 1,
                                                     all_scalars(v) ? YAML_FLOW_SEQUENCE_STYLE : YAML_BLOCK_SEQUENCE_STYLE)) ||
        !yaml_emitter_emit(e, &ev))
        return false;
    for (int i = 0; i < v->n; i++) {
        if (map && !emit_scalar(e, v->key[i], false)) return false;
        if (!emit(e, v->item[i])) return false;
    }
    return (map ? yaml_mapping_end_event_initialize(&ev) : yaml_sequence_end_event_initialize(&ev)) &&
           yaml_emitter_emit(e, &ev);
}

static bool emit_document(yaml_emitter_t *e, const wf_value *v) {
    yaml_event_t ev;
    return yaml_stream_start_event_initialize(&ev, YAML_UTF8_ENCODING) && yaml_emitter_emit(e, &ev) &&
           yaml_document_start_event_initialize(&ev, NULL, NULL, NULL, 1) && yaml_emitter_emit(e, &ev) && emit(e, v) &&
           yaml_document_end_event_initialize(&ev, 1) && yaml_emitter_emit(e, &ev) && yaml_stream_end_event_initialize(&ev) &&
           yaml_emitter_emit(e, &ev);
}

char *wf_value_yaml(const wf_value *v) {
    yaml_emitter_t e;
    wf_text t = {0};
    if (!v || !yaml_emitter_initialize(&e)) {
        wf_fail(WF_EINVAL, "no value to write as YAML");
        return NULL;
    }
    yaml_emitter_set_output(&e, collect, &t);
    yaml_emitter_set_unicode(&e, 1);
    yaml_emitter_set_width(&e, 120);
    bool ok = emit_document(&e, v);
    if (!ok) wf_fail(WF_EINVAL, "YAML: %s", e.problem ? e.problem : "cannot be written");
    yaml_emitter_delete(&e);
    if (ok && !t.failed) return t.s;
    wf_text_free(&t);
    return NULL;
}
