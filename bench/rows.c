/* rows.c: how near small operators come to the machine's copy bandwidth: LayerNorm forward and backward, an AdamW update, the
 * exact GELU and softmax, each written as small operators and run as plans of the graph, on tensors beyond the cache.
 *
 * usage: bench_rows [RUNS]
 * Copy bandwidth is measured in the same process, threads and memory (huge pages where granted): the best of a vector loop and
 * memcpy, bytes read plus bytes written. GB/s of a plan count the bytes it must move: LayerNorm forward reads x and writes y;
 * backward reads x and gy and writes gx (what has one number a row or a column is left out); AdamW reads p, g, m, v and writes
 * p, m, v. Medians of RUNS runs, measured in turn with copies so that noise falls on both alike.
 */
#include "op/op.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_RUNS = 101, COPY_FLOATS = 32 << 20 };

static int runs = 15;

/* ---- measuring ---- */

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *t, int n) {
    qsort(t, (size_t)n, sizeof *t, ascending);
    return t[n / 2];
}

static float *from, *to; /* of the copies */

static void copy_part(float *d, const float *s, size_t n, int way) {
    if (way) {
        memcpy(d, s, n * sizeof *d);
        return;
    }
#pragma omp simd
    for (size_t i = 0; i < n; i++) d[i] = s[i] * 1.0f; /* kept from becoming a call of memcpy */
}

static double copy_seconds(int way) {
    int threads = wf_threads();
    double start = wf_seconds();
#pragma omp parallel num_threads(threads)
    {
        size_t t = (size_t)omp_get_thread_num(), n = COPY_FLOATS / (size_t)threads;
        copy_part(to + t * n, from + t * n, n, way);
    }
    return wf_seconds() - start;
}

/* GB/s of the plan and of copies taken in between; prints a line. */
static int report(const char *what, wf_plan *p, double bytes) {
    static double plan[MOST_RUNS], loop[MOST_RUNS], block[MOST_RUNS];
    if (!p) return fprintf(stderr, "%s: %s\n", what, wf_message()), 1;
    for (int i = -2; i < runs; i++) { /* two to warm up */
        double start = wf_seconds();
        if (wf_plan_run(p) != WF_OK) return fprintf(stderr, "%s: %s\n", what, wf_message()), 1;
        double t = wf_seconds() - start, a = copy_seconds(0), b = copy_seconds(1);
        if (i < 0) continue;
        plan[i] = t;
        loop[i] = a;
        block[i] = b;
    }
    double copied = 2.0 * COPY_FLOATS * sizeof(float), t = median(plan, runs), a = median(loop, runs), b = median(block, runs);
    double best = copied / (a < b ? a : b), rate = bytes / t;
    printf("%-34s %9.3f ms %7.2f GB/s   copy %6.2f (loop) %6.2f (memcpy) GB/s   %5.1f %%\n", what, 1e3 * t, 1e-9 * rate,
           1e-9 * copied / a, 1e-9 * copied / b, 100 * rate / best);
    fflush(stdout);
    wf_plan_info info;
    wf_plan_describe(p, &info);
    if (info.steps > 3 && getenv("ROWS_STEPS")) {
        char *text = wf_plan_text(p);
        printf("%s", text);
        wf_free(text);
    }
    return 0;
}

/* A tensor over memory of huge pages; its data is never freed before the program ends. */
static wf_tensor *large(wf_shape s, uint64_t stream) {
    wf_tensor *t = wf_alloc(sizeof *t);
    if (!t) exit(1);
    *t = (wf_tensor){.dtype = WF_F32, .shape = s, .bytes = (size_t)wf_shape_count(&s) * sizeof(float)};
    t->data = wf_map_pages(t->bytes);
    if (!t->data) exit(1);
    for (int64_t i = 0; i < wf_shape_count(&s); i++) /* cheap and never 0 */
        ((float *)t->data)[i] = (float)((uint32_t)((uint64_t)(i + 1) * 2654435761u + stream * 97) >> 8) * 0x1p-24f + 0.1f;
    return t;
}

static void drop(wf_tensor *t) {
    wf_unmap_pages(t->data, t->bytes);
    wf_free(t);
}

/* ---- LayerNorm ---- */

static wf_node *layer_norm(wf_graph *g, wf_node *x, wf_node *w, wf_node *b) {
    unsigned last = 1u << (x->shape.rank - 1);
    wf_node *d = wf_sub(g, x, wf_mean(g, x, last, true));
    wf_node *r = wf_rsqrt(g, wf_add_c(g, wf_mean(g, wf_square(g, d), last, true), 1e-5));
    return wf_add(g, wf_mul(g, wf_mul(g, d, r), w), b);
}

static int norm(int64_t rows, int64_t width) {
    char name[64];
    wf_tensor *t[4] = {large(WF_SHAPE(rows, width), 1), large(WF_SHAPE(rows, width), 2), large(WF_SHAPE(width), 3),
                       large(WF_SHAPE(width), 4)};
    wf_graph *g = wf_graph_open();
    wf_node *x = wf_leaf(g, t[0], "x"), *gy = wf_leaf(g, t[1], "gy"), *w = wf_leaf(g, t[2], "w"), *b = wf_leaf(g, t[3], "b"),
            *grad[3];
    wf_node *y = layer_norm(g, x, w, b);
    double bytes = (double)(rows * width) * sizeof(float);
    wf_plan *forward = wf_plan_new(g, &y, 1, NULL, 0, NULL), *backward = NULL;
    if (wf_grad(g, &y, &gy, 1, (wf_node *[]){x, w, b}, 3, grad) == WF_OK) backward = wf_plan_new(g, grad, 3, NULL, 0, NULL);
    snprintf(name, sizeof name, "layernorm forward [%lld, %lld]", (long long)rows, (long long)width);
    int bad = report(name, forward, 2 * bytes);
    snprintf(name, sizeof name, "layernorm backward [%lld, %lld]", (long long)rows, (long long)width);
    bad |= report(name, backward, 3 * bytes);
    wf_plan_free(forward);
    wf_plan_free(backward);
    wf_graph_free(g);
    for (int i = 0; i < 4; i++) drop(t[i]);
    return bad;
}

/* ---- AdamW, as src/learn/optimizer.c writes it ---- */

static wf_node *toward(wf_graph *g, wf_node *a, wf_node *b, double c) {
    return wf_add(g, a, wf_mul_c(g, wf_sub(g, b, a), c));
}

static int adamw(int64_t n) {
    char name[64];
    wf_tensor *big[4], *scalar[4];
    wf_graph *g = wf_graph_open();
    for (int i = 0; i < 4; i++) {
        big[i] = large(WF_SHAPE(n), (uint64_t)i);
        scalar[i] = wf_tensor_new(WF_F32, WF_SHAPE(1));
        if (!scalar[i]) return 1;
        wf_tensor_set(scalar[i], 0, i ? 1.5 : 1e-6);
    }
    wf_node *p = wf_leaf(g, big[0], "p"), *grad = wf_leaf(g, big[1], "g"), *lr = wf_leaf(g, scalar[0], "lr");
    wf_node *bias1 = wf_leaf(g, scalar[1], "bias1"), *bias2 = wf_leaf(g, scalar[2], "bias2"),
            *clip = wf_leaf(g, scalar[3], "clip");
    wf_node *effect[3], *m0 = wf_leaf(g, big[2], "m"), *v0 = wf_leaf(g, big[3], "v");
    grad = wf_mul(g, grad, clip);
    wf_node *m = toward(g, m0, grad, 0.1), *v = toward(g, v0, wf_square(g, grad), 0.05);
    wf_node *root = wf_add_c(g, wf_sqrt(g, wf_mul(g, v, bias2)), 1e-8);
    wf_node *d = wf_add(g, wf_div(g, wf_mul(g, m, bias1), root), wf_mul_c(g, p, 0.1));
    effect[0] = wf_assign(g, m0, m);
    effect[1] = wf_assign(g, v0, v);
    effect[2] = wf_assign(g, p, wf_sub(g, p, wf_mul(g, d, lr)));
    wf_plan *plan = effect[2] ? wf_plan_new(g, NULL, 0, effect, 3, NULL) : NULL;
    snprintf(name, sizeof name, "adamw [%lld]", (long long)n);
    int bad = report(name, plan, 7.0 * (double)n * sizeof(float));
    wf_plan_free(plan);
    wf_graph_free(g);
    for (int i = 0; i < 4; i++) {
        drop(big[i]);
        wf_tensor_free(scalar[i]);
    }
    return bad;
}

/* ---- others: one tensor in, one out ---- */

static int pointwise(const char *what, wf_node *(*build)(wf_graph *, wf_node *), int64_t rows, int64_t width) {
    char name[64];
    wf_tensor *t = large(WF_SHAPE(rows, width), 1);
    wf_graph *g = wf_graph_open();
    wf_node *y = build(g, wf_leaf(g, t, "x"));
    wf_plan *p = wf_plan_new(g, &y, 1, NULL, 0, NULL);
    snprintf(name, sizeof name, "%s [%lld, %lld]", what, (long long)rows, (long long)width);
    int bad = report(name, p, 2.0 * (double)(rows * width) * sizeof(float));
    wf_plan_free(p);
    wf_graph_free(g);
    drop(t);
    return bad;
}

int main(int argc, char **argv) {
    if (argc > 1) runs = atoi(argv[1]);
    if (runs < 1 || runs > MOST_RUNS) return fprintf(stderr, "usage: %s [RUNS], 1 to %d\n", argv[0], (int)MOST_RUNS), 2;
    from = wf_map_pages(COPY_FLOATS * sizeof *from);
    to = wf_map_pages(COPY_FLOATS * sizeof *to);
    if (!from || !to) return fprintf(stderr, "%s\n", wf_message()), 1;
    for (size_t i = 0; i < COPY_FLOATS; i++) from[i] = to[i] = 1; /* pages are there before they are timed */
    printf("%d threads, medians of %d runs\n", wf_threads(), runs);
    int bad = norm(16384, 384);
    bad |= norm(65536, 384);
    bad |= norm(16384, 1536);
    bad |= norm(16384, 4096);
    bad |= adamw(16 << 20);
    bad |= pointwise("gelu", wf_gelu, 16384, 1536);
    bad |= pointwise("softmax", wf_softmax, 65536, 256);
    return bad;
}
