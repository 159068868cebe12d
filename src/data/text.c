/* text.c: task `text`: any file as bytes. The tail is for validation, so that no window spans both splits. */
#include "data/tasks.h"

#include <string.h>

typedef struct text_options {
    const char *path;
    int64_t length, stride;
    double valid;
} text_options;

static const wf_option options[] = {
    {"path", WF_OPT_TEXT, offsetof(text_options, path), NULL, 0, 0, NULL,
     "text file, read as bytes; relative to the working folder or to the recipe"},
    {"length", WF_OPT_INT, offsetof(text_options, length), "256", 1, 1 << 20, NULL, "L: bytes a window"},
    {"valid", WF_OPT_REAL, offsetof(text_options, valid), "0.1", 0, 0.9, NULL,
     "part of the file, a contiguous tail, kept for validation"},
    {"stride", WF_OPT_INT, offsetof(text_options, stride), "0", 0, 1 << 20, NULL,
     "bytes between starts of training windows; 0: length (no overlap)"},
    WF_OPT_END};

static wf_status split_file(wf_task *t, const wf_bytes *b) {
    const text_options *o = t->opt;
    size_t n_valid = (size_t)((double)b->n * o->valid), n_train = b->n - n_valid;
    if (n_valid > 0 && n_valid < (size_t)o->length + 1)
        return wf_fail(WF_EINVAL,
                       "%s: valid %g of %zu bytes is less than one window of length %lld + 1: use a larger part, a "
                       "smaller length, or valid: 0",
                       o->path, o->valid, b->n, (long long)o->length);
    uint8_t *train = wf_alloc(n_train + 1), *valid = wf_alloc(n_valid + 1);
    if (!train || !valid) {
        wf_free(train);
        wf_free(valid);
        return WF_ENOMEM;
    }
    if (n_train) memcpy(train, b->p, n_train); /* a copy: the file may change under a mapping */
    if (n_valid) memcpy(valid, b->p + n_train, n_valid);
    return wf_windows_open(t, train, n_train, valid, n_valid, o->length, o->stride);
}

static wf_status open_text(wf_task *t) {
    const text_options *o = t->opt;
    wf_bytes b;
    char *path = wf_task_path(t, o->path);
    if (!path) return WF_ENOMEM;
    wf_status s = wf_bytes_open(path, &b);
    wf_free(path);
    if (s != WF_OK) return wf_value_fail(t->where, s, "task.text: %s", wf_message());
    s = split_file(t, &b);
    wf_bytes_close(&b);
    return s;
}

const wf_task_type wf_task_text = {
    .name = "text",
    .title = "any text file, byte by byte",
    .help =
        "Language modelling of one file as bytes (vocab 256): windows of `length` bytes, each byte's target is the next one. "
        "The last part of the file is the validation split. Metric: bits per byte.",
    .options = options,
    .opt_size = sizeof(text_options),
    .open = open_text,
    .close = wf_windows_close,
    .sample = wf_windows_sample,
};
