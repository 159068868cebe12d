/* experiment.c: computations that are claims of their own, without a network that trains.
 *
 * splitting_order: a transformer layer read as a step of x' = F(x) + G(x) (Lu et al. 2019: F is attention, G the feed-forward
 * layer). The Lie-Trotter step is F then G over h; the Strang step G over h/2, F over h, G over h/2. With exact sub-flows the
 * first has global error O(h), the second O(h^2); when each sub-flow is one Euler step, both are O(h). Error at time 1 against
 * the classical Runge-Kutta method with steps so small that their error does not show.
 */
#include "lab/lab.h"

#include <math.h>
#include <string.h>

enum { PARTICLES = 4, CHANNELS = 3, N = PARTICLES * CHANNELS, FINE = 64 };

typedef struct splitting_options {
    const char *name, *scheme, *subflow, *pair;
    int64_t steps;
} splitting_options;

static const wf_option options[] = {
    {"name", WF_OPT_CHOICE, offsetof(splitting_options, name), NULL, 0, 0, "splitting_order", "the experiment"},
    {"scheme", WF_OPT_CHOICE, offsetof(splitting_options, scheme), "strang", 0, 0, "strang|lie", "half-G F half-G, or F G"},
    {"subflow", WF_OPT_CHOICE, offsetof(splitting_options, subflow), "exact", 0, 0, "exact|euler",
     "how F and G alone are followed"},
    {"pair", WF_OPT_CHOICE, offsetof(splitting_options, pair), "linear", 0, 0, "linear|attention",
     "two matrices that do not commute, or a softmax attention and a tanh field"},
    {"steps", WF_OPT_INT, offsetof(splitting_options, steps), "16", 1, 4096, NULL,
     "steps to time 1; compared with twice as many"},
    WF_OPT_END};

typedef struct world { /* the two fields, made of fixed random numbers */
    bool attention;
    double a[N][N], b[N][N]; /* linear: x' = A x, x' = B x */
    double key[CHANNELS][CHANNELS], value[CHANNELS][CHANNELS], w1[2 * CHANNELS][CHANNELS], w2[CHANNELS][2 * CHANNELS];
} world;

static void fill(double *p, int n, double size, wf_rng *r) {
    for (int i = 0; i < n; i++) p[i] = size * wf_rng_normal(r);
}

static void make_world(world *w, bool attention, double x[N]) {
    wf_rng r = {46, 1, 0};
    w->attention = attention;
    fill(&w->a[0][0], N * N, 0.3, &r);
    fill(&w->b[0][0], N * N, 0.3, &r);
    fill(&w->key[0][0], CHANNELS * CHANNELS, 0.7, &r);
    fill(&w->value[0][0], CHANNELS * CHANNELS, 0.7, &r);
    fill(&w->w1[0][0], 2 * CHANNELS * CHANNELS, 0.7, &r);
    fill(&w->w2[0][0], 2 * CHANNELS * CHANNELS, 0.7, &r);
    fill(x, N, 1, &r);
}

static void times(const double *m, int rows, int cols, const double *x, double *y) {
    for (int i = 0; i < rows; i++) {
        y[i] = 0;
        for (int j = 0; j < cols; j++) y[i] += m[i * cols + j] * x[j];
    }
}

/* F: every particle is drawn to values of all, weighted by the softmax of x_i K x_j. */
static void field_f(const world *w, const double *x, double *dx) {
    if (!w->attention) {
        times(&w->a[0][0], N, N, x, dx);
        return;
    }
    double k[PARTICLES][CHANNELS], v[PARTICLES][CHANNELS];
    for (int j = 0; j < PARTICLES; j++) {
        times(&w->key[0][0], CHANNELS, CHANNELS, x + j * CHANNELS, k[j]);
        times(&w->value[0][0], CHANNELS, CHANNELS, x + j * CHANNELS, v[j]);
    }
    memset(dx, 0, N * sizeof *dx);
    for (int i = 0; i < PARTICLES; i++) {
        double p[PARTICLES], sum = 0;
        for (int j = 0; j < PARTICLES; j++) {
            double s = 0;
            for (int c = 0; c < CHANNELS; c++) s += x[i * CHANNELS + c] * k[j][c];
            sum += p[j] = exp(s);
        }
        for (int j = 0; j < PARTICLES; j++)
            for (int c = 0; c < CHANNELS; c++) dx[i * CHANNELS + c] += p[j] / sum * v[j][c];
    }
}

/* G: W2 tanh(W1 x) of each particle. */
static void field_g(const world *w, const double *x, double *dx) {
    if (!w->attention) {
        times(&w->b[0][0], N, N, x, dx);
        return;
    }
    for (int i = 0; i < PARTICLES; i++) {
        double h[2 * CHANNELS];
        times(&w->w1[0][0], 2 * CHANNELS, CHANNELS, x + i * CHANNELS, h);
        for (int c = 0; c < 2 * CHANNELS; c++) h[c] = tanh(h[c]);
        times(&w->w2[0][0], CHANNELS, 2 * CHANNELS, h, dx + i * CHANNELS);
    }
}

typedef enum field { F = 1, G = 2, BOTH = 3 } field;

static void slope(const world *w, field f, const double *x, double *dx) {
    double other[N];
    if (f & F) field_f(w, x, dx);
    if (f & G) field_g(w, x, f == BOTH ? other : dx);
    for (int i = 0; f == BOTH && i < N; i++) dx[i] += other[i];
}

/* Classical Runge-Kutta over `time` in n steps. */
static void follow(const world *w, field f, double time, int n, double *x) {
    double h = time / n, k[4][N], y[N];
    for (int s = 0; s < n; s++) {
        static const double at[] = {0, 0.5, 0.5, 1};
        for (int q = 0; q < 4; q++) {
            for (int i = 0; i < N; i++) y[i] = x[i] + (q ? at[q] * h * k[q - 1][i] : 0);
            slope(w, f, y, k[q]);
        }
        for (int i = 0; i < N; i++) x[i] += h / 6 * (k[0][i] + 2 * k[1][i] + 2 * k[2][i] + k[3][i]);
    }
}

static void euler(const world *w, field f, double h, double *x) {
    double k[N];
    slope(w, f, x, k);
    for (int i = 0; i < N; i++) x[i] += h * k[i];
}

static void sub(const world *w, const splitting_options *o, field f, double h, double *x) {
    if (strcmp(o->subflow, "euler"))
        follow(w, f, h, FINE, x);
    else
        euler(w, f, h, x);
}

static double error(const world *w, const splitting_options *o, const double *start, int64_t steps) {
    double x[N], exact[N], e = 0, h = 1.0 / (double)steps;
    memcpy(x, start, sizeof x);
    memcpy(exact, start, sizeof exact);
    follow(w, BOTH, 1, 4096, exact);
    for (int64_t s = 0; s < steps; s++) {
        if (!strcmp(o->scheme, "lie")) {
            sub(w, o, F, h, x);
            sub(w, o, G, h, x);
        } else {
            sub(w, o, G, h / 2, x);
            sub(w, o, F, h, x);
            sub(w, o, G, h / 2, x);
        }
    }
    for (int i = 0; i < N; i++) e += (x[i] - exact[i]) * (x[i] - exact[i]);
    return sqrt(e);
}

wf_status wf_experiment_check(const wf_value *spec) {
    splitting_options o;
    return wf_options_read(options, spec, "experiment", NULL, &o, sizeof o);
}

wf_status wf_experiment_run(const wf_value *spec, double *value) {
    splitting_options o;
    WF_TRY(wf_options_read(options, spec, "experiment", NULL, &o, sizeof o));
    world w;
    double start[N];
    make_world(&w, !strcmp(o.pair, "attention"), start);
    value[WF_Q_ERROR_RATIO] = error(&w, &o, start, o.steps) / error(&w, &o, start, 2 * o.steps);
    return WF_OK;
}
