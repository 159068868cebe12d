/* images.c: what picture tasks share: 8-bit pixels in memory, shown to models as float32 (x / 255 - mean) / std. */
#include "data/tasks.h"

#include <string.h>

void wf_images_open(wf_task *t, wf_images *im) {
    size_t pixels = (size_t)(t->channels * t->height * t->width);
    t->data = im;
    for (int v = 0; v < 256; v++) im->level[v] = (float)((v / 255.0 - t->mean) / t->std);
    uint64_t h = 2;
    for (int k = 0; k < 2; k++) {
        h = wf_hash(im->pixels[k], (size_t)t->count[k] * pixels, h);
        h = wf_hash(im->labels[k], (size_t)t->count[k], h);
    }
    t->fingerprint = h;
}

void wf_images_close(wf_task *t) {
    wf_images *im = t->data;
    if (!im) return;
    for (int k = 0; k < 2; k++) {
        wf_free(im->pixels[k]);
        wf_free(im->labels[k]);
    }
    for (int k = 0; k < im->n_names; k++) wf_free(im->names[k]);
    wf_free(im->names);
    wf_free(im);
    t->data = NULL;
}

wf_status wf_images_sample(const wf_task *t, wf_split split, int64_t index, int64_t b, wf_tensor *const *tensors) {
    const wf_images *im = t->data;
    int64_t n = t->channels * t->height * t->width;
    const uint8_t *x = im->pixels[split] + index * n;
    float *y = (float *)tensors[0]->data + b * n;
    for (int64_t i = 0; i < n; i++) y[i] = im->level[x[i]];
    ((int32_t *)tensors[1]->data)[b] = im->labels[split][index];
    return WF_OK;
}
