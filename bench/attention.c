/* attention.c: time of the fused attention, forward and forward + backward, as plans of the graph. Peer: attention.py.
 *
 * usage: bench_attention THREADS DTYPE CAUSAL BxLxHxd...
 * prints one line a shape: BxLxHxd forward_ms total_ms, both the best of the runs, and GFLOP/s of the total (exact products of
 * visible pairs).
 */
#include "op/op.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_RUNS = 50 };
static const double spend = 2; /* seconds a shape */

static wf_tensor *noise(wf_dtype t, wf_shape s, uint64_t stream) {
    wf_tensor *x = wf_tensor_new(t, s);
    wf_rng r = {1, stream, 0};
    for (int64_t i = 0; x && i < wf_tensor_count(x); i++) wf_tensor_set(x, i, wf_rng_normal(&r));
    return x;
}

/* Best time of the plan's runs in milliseconds; negative after an error. */
static double best_ms(wf_plan *p) {
    double best = 1e30, spent = 0;
    for (int run = 0; p && (run < 3 || (spent < spend && run < MOST_RUNS)); run++) {
        double start = wf_seconds();
        if (wf_plan_run(p) != WF_OK) return -1;
        double t = wf_seconds() - start;
        spent += t;
        if (run > 0 && t < best) best = t; /* the first run warms up */
    }
    return p ? 1e3 * best : -1;
}

static int measure(const char *text, wf_dtype type, bool causal) {
    long long B, L, H, d;
    if (sscanf(text, "%lldx%lldx%lldx%lld", &B, &L, &H, &d) != 4) return fprintf(stderr, "%s: BxLxHxd expected\n", text), 2;
    wf_graph *g = wf_graph_open();
    wf_tensor *t[4];
    wf_node *x[4], *grad[3];
    for (int i = 0; i < 4; i++) {
        t[i] = noise(type, WF_SHAPE(B, L, H, d), (uint64_t)i);
        if (!t[i]) return fprintf(stderr, "%s\n", wf_message()), 1;
        x[i] = wf_leaf(g, t[i], "x");
    }
    wf_attention_spec spec = {.causal = causal};
    wf_node *o = wf_attention(g, x[0], x[1], x[2], &spec);
    wf_plan *forward = wf_plan_new(g, &o, 1, NULL, 0, NULL), *both = NULL;
    if (wf_grad(g, &o, &x[3], 1, x, 3, grad) == WF_OK)
        both = wf_plan_new(g, (wf_node *[]){o, grad[0], grad[1], grad[2]}, 4, NULL, 0, NULL);
    double one = best_ms(forward), all = best_ms(both);
    if (one < 0 || all < 0) return fprintf(stderr, "%s\n", wf_message()), 1;
    wf_plan_info info;
    wf_plan_describe(both, &info);
    printf("%s %.3f %.3f %.1f\n", text, one, all, 1e-6 * info.flops / all);
    fflush(stdout);
    wf_plan_free(forward);
    wf_plan_free(both);
    wf_graph_free(g);
    for (int i = 0; i < 4; i++) wf_tensor_free(t[i]);
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 5 || (strcmp(argv[2], "float32") && strcmp(argv[2], "bfloat16"))) {
        fprintf(stderr, "usage: bench_attention THREADS float32|bfloat16 CAUSAL(0|1) BxLxHxd...\n");
        return 2;
    }
    wf_set_threads(atoi(argv[1]));
    for (int i = 4; i < argc; i++) {
        int failed = measure(argv[i], strcmp(argv[2], "float32") ? WF_BF16 : WF_F32, argv[3][0] == '1');
        if (failed) return failed;
    }
    return 0;
}
