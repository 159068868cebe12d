/* fuzz_expr.c: any bytes as a criterion of `weft reproduce`; what parses is evaluated. */
#include "lab/expr.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static double value(void *ctx, const char *design, const char *quantity) {
    (void)ctx;
    return (double)strlen(design) - (double)strlen(quantity);
}

static void see(void *ctx, const char *design, const char *quantity) {
    if (!*design || !*quantity) abort();
    ++*(int *)ctx;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    char *text = malloc(n + 1);
    if (!text) return 0;
    memcpy(text, p, n);
    text[n] = 0;
    wf_expr *e = wf_expr_parse(text, NULL, NULL);
    if (e) {
        double side[4];
        int sides = 0, names = 0;
        int holds = wf_expr_holds(e, value, NULL, side, 4, &sides);
        if (holds < -1 || holds > 1 || sides < 2 || !*wf_expr_sign(e, 0)) abort();
        wf_expr_names(e, see, &names);
    } else if (!*wf_message()) {
        abort();
    }
    wf_expr_free(e);
    free(text);
    return 0;
}
