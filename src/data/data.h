/* data.h: tasks: where batches come from. A task is options plus a reader; order of samples is a seeded permutation of each
 * epoch, a pure function of (seed, index), so that a resumed run continues exactly where it was and all designs of a
 * comparison see the same batches.
 */
#ifndef WF_DATA_H
#define WF_DATA_H

#include "file/file.h"

typedef enum { WF_TRAIN = 0, WF_VALID = 1 } wf_split;
typedef enum { WF_OBJECTIVE_NEXT_TOKEN, WF_OBJECTIVE_CLASSES } wf_objective_kind;

typedef struct wf_task wf_task;
typedef struct wf_task_type {
    const char *name, *title,
        *help; /* "text", "fashion-mnist", "pictures", "selective-copy", "associative-recall", "wordnet" */
    const wf_option *options;
    size_t opt_size;
    wf_status (*open)(wf_task *t); /* fills what follows in wf_task; may load data into t->data */
    void (*close)(wf_task *t);
    /* Write sample `index` (0 .. count[split]-1) as row b of the batch tensors. Thread-safe. */
    wf_status (*sample)(const wf_task *t, wf_split split, int64_t index, int64_t b, wf_tensor *const *tensors);
} wf_task_type;

struct wf_task {
    const wf_task_type *type;
    const void *opt;
    const wf_value *where;
    wf_objective_kind objective;
    int64_t count[2];                /* samples a split (a text window, a picture, a generated sequence) */
    int64_t vocab, length;           /* tokens; 0 for pictures */
    int64_t classes;                 /* 0 for language modelling */
    int64_t channels, height, width; /* pictures */
    double bytes_per_token;          /* 1 for byte text: lets a metric be given in bits/byte; 0: meaningless */
    int n_tensor;                    /* of a batch, in order */
    const char *tensor_name
        [4]; /* "tokens" i32 [B,L], "targets" i32 [B,L] (< 0: not scored); "images" f32 [B,C,H,W], "labels" i32 [B] */
    wf_dtype tensor_type[4];
    wf_shape tensor_shape[4];       /* without the batch axis */
    const char *const *class_names; /* or NULL */
    void *data;
    uint64_t fingerprint; /* of the data itself: a resumed run refuses other data */
    double mean, std;     /* pictures: what a model sees is (pixel / 255 - mean) / std */
};
/* `spec`: the recipe's `task` entry ({name: text, path: x.txt, length: 256}). */
wf_task *wf_task_open(const wf_value *spec);
void wf_task_close(wf_task *t);
const wf_task_type *const *wf_task_types(int *n);

typedef struct wf_batch {
    int64_t size;
    int n;
    wf_tensor *tensor[4]; /* [B, ..] in the order of the task */
} wf_batch;
wf_batch *wf_batch_new(const wf_task *t, int64_t size);
void wf_batch_free(wf_batch *b);
/* Training batch number `step` under `seed`: samples step*B .. of the endless sequence of permuted epochs. Validation: samples
 * step*B .. in fixed order, wrapping; *valid (may be NULL) rows are new. */
wf_status wf_batch_fill(const wf_task *t, wf_split split, uint64_t seed, int64_t step, wf_batch *b, int64_t *valid);

#endif
