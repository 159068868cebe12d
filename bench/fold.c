/* fold.c: is one language model as fast as another? Made for a model whose norms were folded into its weights (weft transform fold)
 * against the same network without any norm.
 *
 * usage: bench_fold MODEL OTHER [PAIRS]      model files, or folders that hold a model.safetensors
 * Both prefill the same PROMPT tokens and then decode TOKENS one by one, in turn, PAIRS times (default 21), the first of a pair
 * changing from pair to pair. Printed are the median times and the median of the pairs' ratios OTHER / MODEL.
 */
#include "sample/sample.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPT = 192, TOKENS = 64, MOST_PAIRS = 201 };
static const double AIM = 1.02;

typedef struct side {
    wf_model *model;
    wf_session *session;
    double prefill[MOST_PAIRS], decode[MOST_PAIRS]; /* seconds; of a token */
} side;

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *t, int n) {
    qsort(t, (size_t)n, sizeof *t, ascending);
    return n % 2 ? t[n / 2] : 0.5 * (t[n / 2 - 1] + t[n / 2]);
}

static wf_status open_side(side *s, const char *path) {
    char *inside = wf_format("%s/model.safetensors", path);
    if (!inside) return WF_ENOMEM;
    s->model = wf_model_load(wf_path_exists(inside) ? inside : path);
    wf_free(inside);
    if (!s->model) return WF_EINVAL;
    s->session = wf_session_new(s->model, &(wf_session_opt){.max_length = PROMPT + TOKENS, .chunk = PROMPT});
    return s->session ? WF_OK : WF_EINVAL;
}

static void close_side(side *s) {
    wf_session_free(s->session);
    wf_model_free(s->model);
}

static wf_status run(side *s, int pair) {
    int32_t token[PROMPT];
    int64_t vocab = wf_session_vocab(s->session);
    for (int i = 0; i < PROMPT; i++) token[i] = (int32_t)(wf_hash(&i, sizeof i, 1) % (uint64_t)vocab);
    wf_session_reset(s->session);
    double start = wf_seconds();
    WF_TRY(wf_session_feed(s->session, token, PROMPT));
    double between = wf_seconds();
    for (int i = 0; i < TOKENS; i++) WF_TRY(wf_session_feed(s->session, &token[i], 1));
    if (pair < 0) return WF_OK; /* plans are made */
    s->prefill[pair] = between - start;
    s->decode[pair] = (wf_seconds() - between) / TOKENS;
    return WF_OK;
}

/* true: within the aim */
static bool report(const char *what, double *a, double *b, int pairs) {
    static double ratio[MOST_PAIRS];
    for (int i = 0; i < pairs; i++) ratio[i] = b[i] / a[i];
    double r = median(ratio, pairs);
    printf("%-8s %9.3f ms, other %9.3f ms: other / first %.3f\n", what, 1e3 * median(a, pairs), 1e3 * median(b, pairs), r);
    return r <= AIM;
}

int main(int argc, char **argv) {
    static side a, b;
    int pairs = argc > 3 ? atoi(argv[3]) : 21;
    if (argc < 3 || pairs < 1 || pairs > MOST_PAIRS)
        return fprintf(stderr, "usage: %s MODEL OTHER [PAIRS], 1 to %d\n", argv[0], (int)MOST_PAIRS), 2;
    wf_status s = open_side(&a, argv[1]);
    if (s == WF_OK) s = open_side(&b, argv[2]);
    for (int i = -2; i < pairs && s == WF_OK; i++) {
        s = run(i & 1 ? &b : &a, i);
        if (s == WF_OK) s = run(i & 1 ? &a : &b, i);
    }
    if (s == WF_OK) {
        printf("%lld and %lld parameters, prefill of %d tokens, %d decoded, %d threads, %d pairs\n",
               (long long)wf_model_count(a.model), (long long)wf_model_count(b.model), (int)PROMPT, (int)TOKENS, wf_threads(),
               pairs);
        bool fast = report("prefill", a.prefill, b.prefill, pairs);
        fast &= report("decode", a.decode, b.decode, pairs);
        printf("the other is %s %.2f times the first's time\n", fast ? "within" : "over", AIM);
    } else {
        fprintf(stderr, "%s\n", wf_message());
    }
    close_side(&a);
    close_side(&b);
    return s == WF_OK ? 0 : 1;
}
