/* train.c: build a small language model from a recipe, train it on a text file, save it, look at its output for one input.
 *
 *     cc train.c $(pkg-config --cflags --libs weft) -o train
 *     ./train book.txt runs/book
 */
#include <stdio.h>
#include <stdlib.h>
#include <weft.h>

static bool show(void *context, const weft_progress *p) {
    (void)context;
    if (p->step % 10 == 0 || p->step == p->steps)
        fprintf(stderr, "step %lld of %lld: loss %.4f\n", (long long)p->step, (long long)p->steps, p->loss);
    return true;
}

static int fail(const char *what) {
    fprintf(stderr, "train: %s: %s\n", what, weft_message());
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: train TEXT FOLDER\n");
        return 2;
    }
    char recipe[1024], path[512];
    snprintf(recipe, sizeof recipe,
             "task: {name: text, path: \"%s\", length: 64}\n"
             "model: {name: lm, width: 64, layers: 2, mixer: {name: softmax, heads: 4}, norm: rmsnorm, position: rope, "
             "channel: swiglu}\n"
             "train: {steps: 30, batch: 8, lr: 3e-3, warmup: 5}\n",
             argv[1]);
    weft_model *model = NULL;
    if (weft_train(recipe, argv[2], show, NULL, &model) != WEFT_OK) return fail("training");
    snprintf(path, sizeof path, "%s/trained.safetensors", argv[2]);
    if (weft_save(model, path) != WEFT_OK) return fail(path);

    int64_t vocabulary = 0;
    if (weft_output_size(model, &vocabulary) != WEFT_OK) return fail("output size");
    const int32_t tokens[] = {'t', 'h', 'e', ' '};
    float *logits = malloc(4 * (size_t)vocabulary * sizeof *logits);
    if (logits == NULL || weft_run_tokens(model, tokens, 1, 4, logits, 4 * (size_t)vocabulary) != WEFT_OK)
        return fail("running");
    const float *last = logits + 3 * vocabulary;
    int64_t best = 0;
    for (int64_t v = 1; v < vocabulary; v++)
        if (last[v] > last[best]) best = v;
    printf("%lld parameters; after \"the \" the likeliest byte is '%c'\n", (long long)weft_parameter_count(model), (char)best);
    free(logits);
    weft_free(model);
    return 0;
}
