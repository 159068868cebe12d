/* mixers.c: time of every token mixer as a part, forward and forward + backward (gradients of the input and of all parameters),
 * float32, width 384, 6 heads. Peer: mixers.py, the same formulas in plain PyTorch.
 *
 * usage: bench_mixers THREADS BxL NAME...      NAME as in the table below; prints "NAME BxL forward_ms total_ms", medians
 *        bench_mixers list                     names and their specifications
 */
#include "part/part.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 384, HEADS = 6, MOST_RUNS = 60 };
static const double spend = 1.2; /* seconds a figure */

typedef struct contender {
    const char *name, *spec;
    bool causal;
} contender;

/* clang-format off */
static const contender table[] = {
    {"softmax", "{name: softmax, heads: 6}", true},
    {"sigmoid", "{name: sigmoid, heads: 6}", true},
    {"complex", "{name: complex, heads: 6}", true},
    {"linear", "{name: linear, heads: 6}", true},
    {"flow", "{name: flow, heads: 6}", true},
    {"flow-bidirectional", "{name: flow, heads: 6}", false},
    {"norm-attention", "{name: norm-attention, heads: 6}", true},
    {"diag-attention", "{name: diag-attention, heads: 6}", true},
    {"performer", "{name: performer, heads: 6}", true},
    {"lsh", "{name: lsh, heads: 6}", true},
    {"simplified-linear", "{name: simplified-linear, heads: 6, height: %d, width: %d}", false},
    {"linformer", "{name: linformer, heads: 6}", false},
    {"longformer", "{name: longformer, heads: 6}", false},
    {"bigbird", "{name: bigbird, heads: 6}", false},
    {"pool", "{name: pool}", false},
    {"identity", "{name: identity}", false},
    {"random", "{name: random}", false},
    {"spatialfc", "{name: spatialfc}", false},
    {"glu", "{name: glu}", true},
};
/* clang-format on */
enum { N_TABLE = sizeof table / sizeof *table };

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_ms(wf_plan *p) {
    double t[MOST_RUNS], spent = 0;
    int n = 0;
    for (int run = -1; n < 3 || (spent < spend && n < MOST_RUNS); run++) {
        double start = wf_seconds();
        if (wf_plan_run(p) != WF_OK) return -1;
        double d = wf_seconds() - start;
        spent += d;
        if (run >= 0) t[n++] = d; /* the first run warms up */
    }
    qsort(t, (size_t)n, sizeof *t, ascending);
    return 1e3 * t[n / 2];
}

static wf_tensor *noise(wf_shape s, uint64_t stream) {
    wf_tensor *x = wf_tensor_new(WF_F32, s);
    wf_rng r = {1, stream, 0};
    for (int64_t i = 0; x && i < wf_tensor_count(x); i++) wf_tensor_set(x, i, wf_rng_normal(&r));
    return x;
}

static wf_model *make(const contender *c, int64_t L) {
    char text[160];
    int side = (int)(sqrt((double)L) + 0.5); /* of a grid of tokens, for those that need one */
    snprintf(text, sizeof text, c->spec, side, side);
    wf_value *spec = wf_yaml_parse(text, strlen(text), "bench");
    wf_model *m = spec ? wf_model_of_part("mixer", spec, WIDTH, WIDTH, c->causal, L, 1) : NULL;
    wf_value_free(spec);
    return m;
}

static bool trains(const wf_param *p) {
    return !(p->flags & (WF_PARAM_BUFFER | WF_PARAM_FROZEN));
}

/* y = mixer(x) and, with gy, the gradients; the plan holds them all. */
static wf_plan *plan_of(wf_graph *g, wf_build *b, wf_model *m, wf_tensor *x, wf_tensor *gy, wf_plan **forward) {
    wf_node *in = wf_leaf(g, x, "x"), *y = wf_apply(b, m->root, in);
    if (!y || !(*forward = wf_plan_new(g, &y, 1, b->update, b->n_update, NULL))) return NULL;
    wf_node **wrt = calloc((size_t)m->n_param + 1, sizeof *wrt), **out = calloc((size_t)m->n_param + 2, sizeof *out);
    wf_node *seed = wf_leaf(g, gy, "gy");
    int n = 0;
    wrt[n++] = in;
    for (int i = 0; i < m->n_param; i++)
        if (trains(m->param[i])) wrt[n++] = wf_leaf(g, m->param[i]->value, m->param[i]->name);
    wf_plan *p = NULL;
    out[0] = y;
    if (wf_grad(g, &y, &seed, 1, wrt, n, out + 1) == WF_OK) p = wf_plan_new(g, out, n + 1, b->update, b->n_update, NULL);
    free(wrt);
    free(out);
    return p;
}

static int measure(const contender *c, int64_t B, int64_t L) {
    wf_model *m = make(c, L);
    if (!m) return fprintf(stderr, "%s: %s\n", c->name, wf_message()), 1;
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_build_start(&b, g);
    b.train = true;
    b.causal = c->causal;
    b.grid[0] = b.grid[1] = (int64_t)(sqrt((double)L) + 0.5);
    wf_tensor *x = noise(WF_SHAPE(B, L, WIDTH), 1), *gy = noise(WF_SHAPE(B, L, WIDTH), 2),
              *seed = wf_tensor_new(WF_I32, WF_SHAPE(4));
    b.seed = wf_leaf(g, seed, "seed");
    wf_plan *forward = NULL, *both = plan_of(g, &b, m, x, gy, &forward);
    double one = both ? median_ms(forward) : -1, all = both ? median_ms(both) : -1;
    int failed = one < 0 || all < 0;
    if (failed)
        fprintf(stderr, "%s: %s\n", c->name, wf_message());
    else
        printf("%s %lldx%lld %.3f %.3f\n", c->name, (long long)B, (long long)L, one, all);
    if (!failed && getenv("WEFT_BENCH_PROFILE")) {
        wf_plan_profile(both, true);
        for (int i = 0; i < 5; i++) wf_plan_run(both);
        char *text = wf_plan_profile_text(both);
        if (text) fputs(text, stdout);
        wf_free(text);
    }
    fflush(stdout);
    wf_plan_free(forward);
    wf_plan_free(both);
    wf_build_end(&b);
    wf_graph_free(g);
    wf_tensor_free(x);
    wf_tensor_free(gy);
    wf_tensor_free(seed);
    wf_model_free(m);
    return failed;
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "list")) {
        for (int i = 0; i < N_TABLE; i++) printf("%s %s\n", table[i].name, table[i].causal ? "causal" : "bidirectional");
        return 0;
    }
    long long B, L;
    if (argc < 4 || sscanf(argv[2], "%lldx%lld", &B, &L) != 2) {
        fprintf(stderr, "usage: bench_mixers THREADS BxL NAME... | bench_mixers list\n");
        return 2;
    }
    wf_set_threads(atoi(argv[1]));
    int failed = 0;
    for (int i = 3; i < argc; i++) {
        const contender *c = NULL;
        for (int k = 0; k < N_TABLE; k++)
            if (!strcmp(argv[i], table[k].name)) c = &table[k];
        if (!c) return fprintf(stderr, "%s: unknown; `bench_mixers list` names all\n", argv[i]), 2;
        failed |= measure(c, B, L);
    }
    return failed;
}
