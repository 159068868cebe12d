/* windows.c: byte text as a language-modelling task: windows of L bytes, the target of each byte is the next one. */
#include "data/tasks.h"

#include <string.h>

typedef struct windows {
    uint8_t *text[2];
    int64_t length, stride[2];
} windows;

/* Windows of length+1 bytes (the last target included) that start `stride` apart in n bytes. */
static int64_t count_windows(size_t n, int64_t length, int64_t stride) {
    return (int64_t)n < length + 1 ? 0 : ((int64_t)n - length - 1) / stride + 1;
}

wf_status wf_windows_open(wf_task *t, uint8_t *train, size_t n_train, uint8_t *valid, size_t n_valid, int64_t length,
                          int64_t stride) {
    windows *w = wf_alloc(sizeof *w);
    if (!w) {
        wf_free(train);
        wf_free(valid);
        return WF_ENOMEM;
    }
    *w = (windows){{train, valid}, length, {stride > 0 ? stride : length, length}};
    t->data = w;
    wf_task_set_tokens(t, 256, length);
    t->bytes_per_token = 1;
    t->count[WF_TRAIN] = count_windows(n_train, length, w->stride[WF_TRAIN]);
    t->count[WF_VALID] = count_windows(n_valid, length, length);
    if (!t->count[WF_TRAIN])
        return wf_value_fail(t->where, WF_EINVAL,
                             "task.%s: %zu bytes of training text are less than one window of length %lld + 1", t->type->name,
                             n_train, (long long)length);
    uint64_t h = wf_hash(train, n_train, 1);
    int64_t form[2] = {length, w->stride[WF_TRAIN]};
    t->fingerprint = wf_hash(form, sizeof form, wf_hash(valid, n_valid, h));
    return WF_OK;
}

void wf_windows_close(wf_task *t) {
    windows *w = t->data;
    if (!w) return;
    wf_free(w->text[0]);
    wf_free(w->text[1]);
    wf_free(w);
    t->data = NULL;
}

wf_status wf_windows_sample(const wf_task *t, wf_split split, int64_t index, int64_t b, wf_tensor *const *tensors) {
    const windows *w = t->data;
    const uint8_t *s = w->text[split] + index * w->stride[split];
    int32_t *tokens = (int32_t *)tensors[0]->data + b * w->length, *targets = (int32_t *)tensors[1]->data + b * w->length;
    for (int64_t i = 0; i < w->length; i++) {
        tokens[i] = s[i];
        targets[i] = s[i + 1];
    }
    return WF_OK;
}
