/* weft.h: the public C interface of Weft.
 *
 * A model is one .safetensors file with its recipe inside. Here: load a model, run it, continue a text with it, build one from a
 * recipe and train it. Link with `pkg-config --cflags --libs weft`.
 *
 * Errors. Every call that can fail returns a weft_status; weft_message() then has one sentence for the calling thread, with
 * the file, the line and the fix where there are any. Nothing here prints or exits the process.
 * Ownership. What a call hands out through a `**` argument is the caller's and goes to the matching _free; everything passed in
 * stays the caller's and may be released after the call.
 * Threads. A model may be used by one thread at a time; different models by different threads. The arithmetic itself uses
 * weft_set_threads() threads.
 *
 * Shapes: B batch, L length, V vocabulary, C classes.
 */
#ifndef WEFT_H
#define WEFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum weft_status {
    WEFT_OK = 0,
    WEFT_INVALID, /* wrong argument, recipe or option */
    WEFT_NO_MEMORY,
    WEFT_IO,     /* the operating system refused a file */
    WEFT_FORMAT, /* a file's content is malformed */
    WEFT_UNSUPPORTED,
    WEFT_NOT_FOUND,
    WEFT_INTERRUPTED, /* a callback asked to stop */
    WEFT_NOT_FINITE,  /* NaN or Inf while training; the last good checkpoint is kept */
} weft_status;

/* The calling thread's last message; "" before the first failure. Valid until the thread's next failing call. */
const char *weft_message(void);
const char *weft_version(void);
/* Threads for the arithmetic; default: the cores this process may use. */
void weft_set_threads(int n);

/* ---- models ---- */
typedef struct weft_model weft_model;

weft_status weft_load(const char *path, weft_model **model);
weft_status weft_save(const weft_model *model, const char *path);
/* A new model with initial weights from a recipe in YAML (its text, not a path), for example
 *     "model: {name: lm, width: 128, layers: 2, vocab: 256, max_length: 128}" */
weft_status weft_build(const char *recipe, uint64_t seed, weft_model **model);
void weft_free(weft_model *model);

/* Trainable parameters, shared ones once. */
int64_t weft_parameter_count(const weft_model *model);
/* The recipe as JSON; the caller frees the string with weft_free_text. */
weft_status weft_recipe(const weft_model *model, char **json);
void weft_free_text(char *text);
/* A named parameter's values, in place (float32, row-major), and its shape (rank <= 6). */
weft_status weft_parameter(weft_model *model, const char *name, float **data, int *rank, int64_t dim[6]);

/* ---- running ---- */
/* Language models: logits [B,L,V] of tokens [B,L] (0 <= token < V, checked). `logits` has room for `room` floats. */
weft_status weft_run_tokens(weft_model *model, const int32_t *tokens, int64_t batch, int64_t length, float *logits,
                            size_t room);
/* Picture models: logits [B,C] of pictures [B,channels,height,width], with the sizes the model was made for. */
weft_status weft_run_pictures(weft_model *model, const float *pictures, int64_t batch, float *logits, size_t room);
/* V or C: numbers a position or a picture gets. */
weft_status weft_output_size(weft_model *model, int64_t *size);

/* ---- continuing a text (byte-level language models) ---- */
typedef struct weft_generate_options {
    int64_t tokens;     /* new tokens at most */
    double temperature; /* 0: always the likeliest */
    int64_t top_k;      /* 0: all */
    double top_p;       /* 0 or 1: all */
    uint64_t seed;
} weft_generate_options;
/* Called with every new token; false ends the text (not an error). */
typedef bool (*weft_on_token)(void *context, int32_t token);
weft_status weft_generate(weft_model *model, const int32_t *prompt, int64_t length, const weft_generate_options *options,
                          weft_on_token on_token, void *context);

/* ---- training ---- */
typedef struct weft_progress {
    int64_t step, steps; /* done and wanted */
    double loss;         /* of this step, nats */
    double seconds;      /* of this step */
} weft_progress;
/* Called after every step; false saves a checkpoint and ends with WEFT_INTERRUPTED. */
typedef bool (*weft_on_step)(void *context, const weft_progress *progress);
/* Train what a recipe says (YAML text with `model`, `task` and `train`), keep checkpoints in `folder` (made if need be; a
 * checkpoint found there is continued), hand out the trained model. */
weft_status weft_train(const char *recipe, const char *folder, weft_on_step on_step, void *context, weft_model **model);

#ifdef __cplusplus
}
#endif
#endif
