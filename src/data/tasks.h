/* tasks.h: inside of the data room: the table of tasks and what several of them share. Not for other rooms. */
#ifndef WF_TASKS_H
#define WF_TASKS_H

#include "data/data.h"

extern const wf_task_type wf_task_text, wf_task_wordnet, wf_task_fashion_mnist, wf_task_pictures, wf_task_selective_copy,
    wf_task_associative_recall, wf_task_wordnet_origin;

/* A path of a recipe: as given; or, when nothing is there, relative to the recipe's own folder. wf_free it; NULL: no memory. */
char *wf_task_path(const wf_task *t, const char *path);

/* Set what every token task has in common: objective, vocab, length, tensors "tokens" and "targets" [L]. */
void wf_task_set_tokens(wf_task *t, int64_t vocab, int64_t length);
/* The same of picture tasks: "images" [C,H,W] and "labels". */
void wf_task_set_pictures(wf_task *t, int64_t classes, int64_t c, int64_t h, int64_t w);

/* ---- windows.c: byte text cut into windows of `length` bytes, the target being the next byte ---- */
/* Takes over both texts (wf_alloc memory), also on failure. Training windows start `stride` bytes apart (0: length),
 * validation windows `length` apart, so that each byte is scored once. */
wf_status wf_windows_open(wf_task *t, uint8_t *train, size_t n_train, uint8_t *valid, size_t n_valid, int64_t length,
                          int64_t stride);
void wf_windows_close(wf_task *t);
wf_status wf_windows_sample(const wf_task *t, wf_split split, int64_t index, int64_t b, wf_tensor *const *tensors);

/* ---- images.c: 8-bit pictures in memory, shown to models as (x / 255 - t->mean) / t->std ---- */
typedef struct wf_images {
    uint8_t *pixels[2]; /* [count, C,H,W] a split, wf_alloc memory */
    uint8_t *labels[2];
    float level[256]; /* normalised value of each byte; filled by wf_images_open */
    char **names;     /* class names, wf_alloc'd together with what they point to by the task; may be NULL */
    int n_names;
} wf_images;
/* t->data = im (wf_alloc memory) once counts, shapes, mean and std of `t` are set; fills the levels and the fingerprint. */
void wf_images_open(wf_task *t, wf_images *im);
void wf_images_close(wf_task *t);
wf_status wf_images_sample(const wf_task *t, wf_split split, int64_t index, int64_t b, wf_tensor *const *tensors);

/* Square resize of 8-bit [h,w,c] to [c,size,size] (resize.c): by area where a side shrinks, bilinear where it grows.
 * crop: the largest centred square is used; otherwise the picture is stretched. */
wf_status wf_resize_square(const uint8_t *in, int64_t h, int64_t w, int c, bool crop, int64_t size, uint8_t *out);

#endif
