/* generate.c: continue a text with a model file.
 *
 *     cc generate.c $(pkg-config --cflags --libs weft) -o generate
 *     ./generate runs/lm-small "a small animal that"
 */
#include <stdio.h>
#include <string.h>
#include <weft.h>

static bool print_byte(void *context, int32_t token) {
    (void)context;
    putchar(token);
    return fflush(stdout) == 0;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: generate MODEL.safetensors PROMPT\n");
        return 2;
    }
    int32_t prompt[512];
    int64_t n = 0;
    for (const char *c = argv[2]; *c && n < 512; c++) prompt[n++] = (unsigned char)*c;
    weft_model *model = NULL;
    weft_status s = weft_load(argv[1], &model);
    weft_generate_options options = {.tokens = 200, .temperature = 0.8, .top_p = 0.95, .seed = 1};
    if (s == WEFT_OK) s = weft_generate(model, prompt, n, &options, print_byte, NULL);
    putchar('\n');
    if (s != WEFT_OK) fprintf(stderr, "generate: %s\n", weft_message());
    weft_free(model);
    return s != WEFT_OK;
}
