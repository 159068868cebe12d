/* norms.c: how near every norm of the catalogue comes to the machine's copy bandwidth, in training: forward, and forward with
 * backward (gradients of x and of all parameters), float32, as plans of small operators; no norm has a kernel.
 *
 * usage: bench_norms [RUNS [NAME..]]; NORMS_STEPS=1 also prints the steps of each plan
 *
 * The bytes of a norm are those that no program over tensors beyond the caches can save, T = bytes of x:
 *   a norm whose statistics stay within a token   forward 2 T (reads x, writes y), backward 3 T (reads x, g, writes gx)
 *   one whose statistics reach over tokens        forward 3 T (reads x for them, x again, writes y), backward 5 T (reads x, g
 *                                                 for the sums over tokens, x, g again, writes gx)
 * Which of the two a norm is, is tried out: does a token's output change with another token? Whatever has one number a row or a
 * channel is left out, and a pass more than these (a variance about a mean that must be known before, say) is the norm's loss.
 * Bandwidth of copying is measured in the same run, process, threads and kind of memory: bytes read plus bytes written by the
 * faster of a vector loop and memcpy. A run of the plan is paired with a copy; the median ratio of all pairs is printed, and the
 * ratio of the fastest run to the fastest copy, which a busy machine disturbs less.
 */
#include "part/part.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_RUNS = 101, COPY_FLOATS = 16 << 20, LENGTH = 256 };
static const double AIM = 60; /* per cent */

static int runs = 15, misses;

/* ---- copies ---- */

static float *from, *to;

static double copy_seconds(bool block) {
    int threads = wf_threads();
    double start = wf_seconds();
#pragma omp parallel num_threads(threads)
    {
        size_t t = (size_t)omp_get_thread_num(), n = COPY_FLOATS / (size_t)threads;
        float *d = to + t * n;
        const float *s = from + t * n;
        if (block) {
            memcpy(d, s, n * sizeof *d);
        } else {
#pragma omp simd
            for (size_t i = 0; i < n; i++) d[i] = s[i] * 1.0f; /* kept from becoming a call of memcpy */
        }
    }
    return wf_seconds() - start;
}

/* GB/s */
static double copy_rate(void) {
    double a = copy_seconds(false), b = copy_seconds(true);
    return 2e-9 * COPY_FLOATS * sizeof(float) / (a < b ? a : b);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* ---- one norm ---- */

static wf_tensor *numbers(wf_shape s, uint64_t stream) {
    wf_tensor *t = wf_alloc(sizeof *t);
    if (!t) exit(1);
    *t = (wf_tensor){.dtype = WF_F32, .shape = s, .bytes = (size_t)wf_shape_count(&s) * sizeof(float)};
    t->data = wf_map_pages(t->bytes); /* huge pages where granted, as plans have them */
    if (!t->data) exit(1);
    for (int64_t i = 0; i < wf_shape_count(&s); i++) /* cheap, from -2 to 2 */
        ((float *)t->data)[i] = (float)((uint32_t)((uint64_t)(i + 1) * 2654435761u + stream * 97) >> 8) * 0x1p-22f - 2;
    return t;
}

static void drop(wf_tensor *t) {
    wf_unmap_pages(t->data, t->bytes);
    wf_free(t);
}

static wf_model *model_of(const char *spec, int64_t width) {
    wf_value *v = wf_yaml_parse(spec, strlen(spec), "norm");
    wf_model *m = v ? wf_model_of_part("norm", v, width, width, false, 0, 1) : NULL;
    wf_value_free(v);
    return m;
}

typedef struct built {
    wf_model *model;
    wf_graph *graph;
    wf_build build;
    wf_plan *plan;
} built;

static void close_built(built *b) {
    wf_plan_free(b->plan);
    wf_build_end(&b->build);
    wf_graph_free(b->graph);
    wf_model_free(b->model);
}

/* y, and with gy also the gradients of x and of all parameters. */
static wf_status make(built *b, const char *spec, wf_tensor *x, wf_tensor *gy) {
    wf_node *out[64], *wrt[64];
    int n = 0;
    b->model = model_of(spec, x->shape.dim[x->shape.rank - 1]);
    if (!b->model) return WF_EINVAL;
    wf_graph *g = b->graph = wf_graph_open();
    wf_build_start(&b->build, g);
    b->build.train = true;
    wrt[n++] = wf_leaf(g, x, "x");
    out[0] = wf_apply(&b->build, b->model->root, wrt[0]);
    for (int i = 0; i < b->model->n_param && n < 63; i++)
        if (!(b->model->param[i]->flags & (WF_PARAM_BUFFER | WF_PARAM_FROZEN)))
            wrt[n++] = wf_leaf(g, b->model->param[i]->value, b->model->param[i]->name);
    if (gy) {
        wf_node *seed = wf_leaf(g, gy, "gy");
        WF_TRY(wf_grad(g, out, &seed, 1, wrt, n, out + 1));
    }
    b->plan = out[0] ? wf_plan_new(g, out, gy ? n + 1 : 1, b->build.update, b->build.n_update, NULL) : NULL;
    return b->plan ? WF_OK : WF_EINVAL;
}

/* Does the first token's output change with the last one? -1 after an error. */
static int reaches_over_tokens(const char *spec) {
    enum { D = 48, L = 6 };
    float first[2][D];
    for (int k = 0; k < 2; k++) {
        wf_tensor *x = numbers(WF_SHAPE(1, L, D), 5);
        built b = {0};
        if (k) ((float *)x->data)[(L - 1) * D] += 3;
        wf_status s = make(&b, spec, x, NULL);
        if (s == WF_OK) s = wf_plan_run(b.plan);
        if (s == WF_OK) memcpy(first[k], wf_plan_out(b.plan, 0), sizeof first[k]);
        close_built(&b);
        drop(x);
        if (s != WF_OK) return -1;
    }
    return memcmp(first[0], first[1], sizeof first[0]) != 0;
}

/* Prints two ratios; false after an error. */
static bool measure(const char *spec, wf_tensor *x, wf_tensor *gy, double passes) {
    static double pair[MOST_RUNS];
    double best = 0, copied = 0, moved = 1e-9 * passes * (double)x->bytes;
    built b = {0};
    if (make(&b, spec, x, gy) != WF_OK) {
        close_built(&b);
        return false;
    }
    for (int i = -2; i < runs; i++) { /* two to warm up */
        double start = wf_seconds();
        if (wf_plan_run(b.plan) != WF_OK) return false;
        double rate = moved / (wf_seconds() - start), c = copy_rate();
        if (i < 0) continue;
        pair[i] = rate / c;
        if (rate > best) best = rate;
        if (c > copied) copied = c;
    }
    qsort(pair, (size_t)runs, sizeof *pair, ascending);
    double median = 100 * pair[runs / 2], quiet = 100 * best / copied;
    bool miss = median < AIM && quiet < AIM;
    misses += miss;
    printf("   %s %5.1f %% (best %5.1f %%)%s", gy ? "with backward" : "forward", median, quiet, miss ? " *" : "  ");
    fflush(stdout);
    if (getenv("NORMS_STEPS")) {
        char *text = wf_plan_text(b.plan);
        printf("\n%s\n", text ? text : "");
        wf_free(text);
    }
    close_built(&b);
    return true;
}

static bool norm(const char *spec, wf_tensor *x, wf_tensor *gy) {
    wf_model *m = model_of(spec, x->shape.dim[x->shape.rank - 1]);
    if (!m) { /* a part that needs something else of its model (a condition) */
        printf("  %-44s   not by itself: %s\n", spec, wf_message());
        return true;
    }
    wf_model_free(m);
    int over = reaches_over_tokens(spec);
    if (over < 0) return false;
    printf("  %-44s", spec);
    bool ok = measure(spec, x, NULL, over ? 3 : 2) && measure(spec, x, gy, over ? 8 : 5);
    printf("\n");
    return ok;
}

/* ---- all ---- */

static const char *const forms[] = {/* of parts with more than one shape of arithmetic */
                                    "{name: groupnorm, groups: 6}", "{name: groupnorm, groups: 6, over: sample}",
                                    "{name: dyt, function: erf}"};

static bool wanted(const char *spec, char **names, int n) {
    if (!strcmp(spec, "none")) return false;
    for (int i = 0; i < n; i++)
        if (strstr(spec, names[i])) return true;
    return n == 0;
}

static bool width(int64_t tokens, int64_t D, char **names, int n) {
    wf_shape s = WF_SHAPE(tokens / LENGTH, LENGTH, D);
    wf_tensor *x = numbers(s, 1), *gy = numbers(s, 2);
    int n_parts;
    const wf_part *const *part = wf_part_all(&n_parts);
    bool ok = true;
    printf("[%lld, %lld]\n", (long long)tokens, (long long)D);
    for (int i = 0; ok && i < n_parts; i++)
        if (!strcmp(part[i]->slot, "norm") && wanted(part[i]->name, names, n)) ok = norm(part[i]->name, x, gy);
    for (size_t i = 0; ok && i < sizeof forms / sizeof *forms; i++)
        if (wanted(forms[i], names, n) && (D % 6 == 0 || !strstr(forms[i], "groups: 6"))) ok = norm(forms[i], x, gy);
    if (!ok) fprintf(stderr, "%s\n", wf_message());
    drop(x);
    drop(gy);
    return ok;
}

int main(int argc, char **argv) {
    if (argc > 1) runs = atoi(argv[1]);
    if (runs < 1 || runs > MOST_RUNS)
        return fprintf(stderr, "usage: %s [RUNS [NAME..]], 1 to %d\n", argv[0], (int)MOST_RUNS), 2;
    char **names = argv + 2;
    int n = argc > 2 ? argc - 2 : 0;
    from = wf_map_pages(COPY_FLOATS * sizeof *from);
    to = wf_map_pages(COPY_FLOATS * sizeof *to);
    if (!from || !to) return fprintf(stderr, "%s\n", wf_message()), 1;
    for (size_t i = 0; i < COPY_FLOATS; i++) from[i] = to[i] = 1; /* pages are there before they are timed */
    printf("norms in training against copying (%.1f GB/s now), %d threads, medians of %d pairs; * below %.0f %%\n", copy_rate(),
           wf_threads(), runs, AIM);
    if (!width(16384, 384, names, n) || !width(16384, 1536, names, n) || !width(8192, 4096, names, n)) return 1;
    printf("%d below %.0f %%\n", misses, AIM);
    return 0;
}
