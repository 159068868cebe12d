/* splitting.c: Lie-Trotter and Strang-Marchuk splitting, exact and with Euler steps; the case lab.splitting-order. */
#include "check/splitting.h"

#include "check/case.h"

#include <math.h>
#include <string.h>

enum { TAYLOR = 18, FINE = 2048 /* Runge-Kutta steps over [0, T] of a reference */ };

/* ---- linear flows ---- */

static void product(const double *a, const double *b, int64_t n, double *out) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double s = 0;
            for (int64_t k = 0; k < n; k++) s += a[i * n + k] * b[k * n + j];
            out[i * n + j] = s;
        }
}

static double largest_row_sum(const double *A, int64_t n) {
    double most = 0;
    for (int64_t i = 0; i < n; i++) {
        double s = 0;
        for (int64_t j = 0; j < n; j++) s += fabs(A[i * n + j]);
        most = fmax(most, s);
    }
    return most;
}

wf_status wf_matrix_exponential(const double *A, int64_t n, double t, double *out) {
    size_t bytes = sizeof(double) * (size_t)(n * n);
    double size = largest_row_sum(A, n) * fabs(t);
    if (!isfinite(size) || size > 1e6) return wf_fail(WF_EINVAL, "a matrix of norm %g is too large for its exponential", size);
    int halvings = size > 0.5 ? (int)ceil(log2(size / 0.5)) : 0;
    double *term = wf_alloc(bytes + 1), *next = wf_alloc(bytes + 1), scale = ldexp(t, -halvings);
    if (!term || !next) {
        wf_free(term);
        wf_free(next);
        return WF_ENOMEM;
    }
    for (int64_t i = 0; i < n * n; i++) out[i] = term[i] = i % (n + 1) ? 0 : 1;
    for (int k = 1; k <= TAYLOR; k++) {
        product(term, A, n, next);
        for (int64_t i = 0; i < n * n; i++) out[i] += term[i] = next[i] * scale / k;
    }
    for (int k = 0; k < halvings; k++) {
        product(out, out, n, next);
        memcpy(out, next, bytes);
    }
    wf_free(term);
    wf_free(next);
    return WF_OK;
}

/* ---- one sub-flow over a fixed time, made once ---- */

typedef struct flow {
    const wf_field *field, *other; /* other: a second field added to it, or NULL */
    wf_flow_kind kind;
    double h;
    int64_t parts;   /* Runge-Kutta steps in h */
    double *map;     /* linear and exact: e^(h A) */
    double *work[5]; /* n each */
} flow;

static void flow_close(flow *f) {
    wf_free(f->map);
    for (int i = 0; i < 5; i++) wf_free(f->work[i]);
}

static wf_status flow_open(flow *f, const wf_field *field, const wf_field *other, wf_flow_kind kind, double h, int64_t parts) {
    int64_t n = field->n;
    *f = (flow){field, other, kind, h, parts > 0 ? parts : 1, NULL, {NULL}};
    for (int i = 0; i < 5; i++)
        if (!(f->work[i] = wf_alloc_array((size_t)n, sizeof(double)))) return WF_ENOMEM;
    if (kind != WF_FLOW_EXACT || !field->matrix || (other && !other->matrix)) return WF_OK;
    double *sum = wf_alloc_array((size_t)(n * n), sizeof(double));
    f->map = wf_alloc_array((size_t)(n * n), sizeof(double));
    wf_status s = sum && f->map ? WF_OK : WF_ENOMEM;
    for (int64_t i = 0; s == WF_OK && i < n * n; i++) sum[i] = field->matrix[i] + (other ? other->matrix[i] : 0);
    if (s == WF_OK) s = wf_matrix_exponential(sum, n, h, f->map);
    wf_free(sum);
    return s;
}

static void apply(const double *A, const double *x, int64_t n, double *y) {
    for (int64_t i = 0; i < n; i++) {
        y[i] = 0;
        for (int64_t j = 0; j < n; j++) y[i] += A[i * n + j] * x[j];
    }
}

static void rate_of(const wf_field *f, const double *x, double *dx) {
    if (f->matrix)
        apply(f->matrix, x, f->n, dx);
    else
        f->rate(f->ctx, x, dx);
}

static void rate(const flow *f, const double *x, double *dx, double *spare) {
    rate_of(f->field, x, dx);
    if (!f->other) return;
    rate_of(f->other, x, spare);
    for (int64_t i = 0; i < f->field->n; i++) dx[i] += spare[i];
}

static void runge_kutta(const flow *f, double *x, double h) {
    static const double at[] = {0, 0.5, 0.5, 1}, weight[] = {1.0 / 6, 1.0 / 3, 1.0 / 3, 1.0 / 6};
    int64_t n = f->field->n;
    double *k = f->work[0], *y = f->work[1], *sum = f->work[2], *spare = f->work[3];
    memset(sum, 0, sizeof *sum * (size_t)n);
    memset(k, 0, sizeof *k * (size_t)n);
    for (int s = 0; s < 4; s++) {
        for (int64_t i = 0; i < n; i++) y[i] = x[i] + at[s] * h * k[i];
        rate(f, y, k, spare);
        for (int64_t i = 0; i < n; i++) sum[i] += weight[s] * k[i];
    }
    for (int64_t i = 0; i < n; i++) x[i] += h * sum[i];
}

static void flow_run(const flow *f, double *x) {
    int64_t n = f->field->n;
    if (f->map) {
        apply(f->map, x, n, f->work[4]);
        memcpy(x, f->work[4], sizeof *x * (size_t)n);
    } else if (f->kind == WF_FLOW_EULER) {
        rate(f, x, f->work[0], f->work[3]);
        for (int64_t i = 0; i < n; i++) x[i] += f->h * f->work[0][i];
    } else {
        for (int64_t k = 0; k < f->parts; k++) runge_kutta(f, x, f->h / (double)f->parts);
    }
}

/* ---- schemes ---- */

wf_status wf_split_solve(const wf_field *F, const wf_field *G, wf_split_scheme scheme, wf_flow_kind kind, double T,
                         int64_t steps, double *x) {
    if (steps < 1 || F->n != G->n || F->n < 1)
        return wf_fail(WF_EINVAL, "splitting needs at least one step and fields of one size");
    bool strang = scheme == WF_SPLIT_STRANG;
    double h = T / (double)steps;
    flow f, g;
    wf_status s = flow_open(&f, F, NULL, kind, h, FINE / steps);
    wf_status t = flow_open(&g, G, NULL, kind, strang ? h / 2 : h, FINE / steps);
    for (int64_t k = 0; s == WF_OK && t == WF_OK && k < steps; k++) {
        if (strang) flow_run(&g, x);
        flow_run(&f, x);
        flow_run(&g, x);
    }
    flow_close(&f);
    flow_close(&g);
    return s != WF_OK ? s : t;
}

wf_status wf_split_reference(const wf_field *F, const wf_field *G, double T, double *x) {
    if (F->n != G->n || F->n < 1) return wf_fail(WF_EINVAL, "splitting needs fields of one size");
    flow f;
    wf_status s = flow_open(&f, F, G, WF_FLOW_EXACT, T, FINE);
    if (s == WF_OK) flow_run(&f, x);
    flow_close(&f);
    return s;
}

/* ---- particles ---- */

static void rows_by(const double *x, const double *w, int64_t L, int64_t d, double *y) { /* y_i = W x_i */
    for (int64_t i = 0; i < L; i++) apply(w, x + i * d, d, y + i * d);
}

static double dot(const double *a, const double *b, int64_t n) {
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += a[i] * b[i];
    return s;
}

static void attention_rate(const void *ctx, const double *x, double *dx) {
    const wf_particles *p = ctx;
    int64_t L = p->L, d = p->d;
    double q[L * d], k[L * d], v[L * d], w[L];
    rows_by(x, p->q, L, d, q);
    rows_by(x, p->k, L, d, k);
    rows_by(x, p->v, L, d, v);
    for (int64_t i = 0; i < L; i++) {
        double most = -INFINITY, sum = 0;
        for (int64_t j = 0; j < L; j++) most = fmax(most, w[j] = dot(q + i * d, k + j * d, d) / sqrt((double)d));
        for (int64_t j = 0; j < L; j++) sum += w[j] = exp(w[j] - most);
        for (int64_t c = 0; c < d; c++) {
            dx[i * d + c] = 0;
            for (int64_t j = 0; j < L; j++) dx[i * d + c] += w[j] / sum * v[j * d + c];
        }
    }
}

static void network_rate(const void *ctx, const double *x, double *dx) {
    const wf_particles *p = ctx;
    double h[p->L * p->d];
    rows_by(x, p->w1, p->L, p->d, h);
    for (int64_t i = 0; i < p->L * p->d; i++) h[i] = tanh(h[i]);
    rows_by(h, p->w2, p->L, p->d, dx);
}

void wf_particles_free(wf_particles *p) {
    wf_free(p->q);
    memset(p, 0, sizeof *p);
}

wf_status wf_particles_make(wf_particles *p, int64_t L, int64_t d, uint64_t seed) {
    memset(p, 0, sizeof *p);
    if (L < 1 || d < 1 || L * d > 4096)
        return wf_fail(WF_EINVAL, "%lld particles of width %lld: 1 to 4096 numbers", (long long)L, (long long)d);
    wf_rng r = {seed, 0, 0};
    int64_t n = d * d;
    if (!(p->q = wf_alloc_array((size_t)(5 * n), sizeof(double)))) return WF_ENOMEM;
    for (int64_t i = 0; i < 5 * n; i++) p->q[i] = wf_rng_normal(&r) / sqrt((double)d);
    p->L = L, p->d = d;
    p->k = p->q + n, p->v = p->k + n, p->w1 = p->v + n, p->w2 = p->w1 + n;
    p->F = (wf_field){L * d, NULL, attention_rate, p};
    p->G = (wf_field){L * d, NULL, network_rate, p};
    return WF_OK;
}

/* ---- lab.splitting-order ---- */

static wf_status rows_of(wf_case *c, const char *name, const wf_field *A, const wf_field *B, const wf_tensor *x0, double T,
                         const wf_value *steps, wf_split_scheme scheme, wf_flow_kind kind) {
    int64_t n = A->n, k = 0;
    wf_tensor *out = wf_tensor_new(WF_F64, WF_SHAPE(steps->n, n));
    wf_status s = out ? WF_OK : WF_ENOMEM;
    for (int i = 0; s == WF_OK && i < steps->n; i++) {
        double *x = (double *)out->data + i * n;
        memcpy(x, x0->data, sizeof *x * (size_t)n);
        if (wf_value_int(steps->item[i], &k) != WF_OK || k < 1 || k > 1 << 20)
            s = wf_case_fail(c, "config: 'steps' must list whole numbers from 1 to 2^20");
        else
            s = wf_split_solve(A, B, scheme, kind, T, k, x);
    }
    if (s == WF_OK) s = wf_case_compare(c, name, out);
    wf_tensor_free(out);
    return s;
}

static wf_status compare_all(wf_case *c, const wf_tensor *a, const wf_tensor *b, wf_tensor *x) {
    double T;
    const wf_value *steps = wf_case_key(c, "steps");
    WF_TRY(wf_case_real(c, "T", 1, &T));
    if (x->shape.rank != 1 || a->shape.rank != 2 || !wf_shape_equal(&a->shape, &b->shape) ||
        a->shape.dim[0] != x->shape.dim[0] || a->shape.dim[1] != x->shape.dim[0] || x->shape.dim[0] < 1 ||
        x->shape.dim[0] > 512)
        return wf_case_fail(c, "in.A and in.B must be [n,n] and in.x0 [n], n at most 512");
    WF_TRY(wf_case_same(c, "n", x->shape.dim[0]));
    if (!steps || steps->kind != WF_V_LIST || steps->n < 1) return wf_case_fail(c, "config: 'steps' must be a list");
    wf_field A = {x->shape.dim[0], a->data, NULL, NULL}, B = {x->shape.dim[0], b->data, NULL, NULL};
    WF_TRY(rows_of(c, "lie_trotter", &A, &B, x, T, steps, WF_SPLIT_LIE_TROTTER, WF_FLOW_EXACT));
    WF_TRY(rows_of(c, "strang", &A, &B, x, T, steps, WF_SPLIT_STRANG, WF_FLOW_EXACT));
    WF_TRY(rows_of(c, "euler_lie", &A, &B, x, T, steps, WF_SPLIT_LIE_TROTTER, WF_FLOW_EULER));
    WF_TRY(rows_of(c, "euler_strang", &A, &B, x, T, steps, WF_SPLIT_STRANG, WF_FLOW_EULER));
    WF_TRY(wf_split_reference(&A, &B, T, x->data));
    return wf_case_compare(c, "exact", x);
}

static wf_status splitting_order(wf_case *c) {
    wf_tensor *a = wf_case_read(c, "in.A", WF_F64), *b = a ? wf_case_read(c, "in.B", WF_F64) : NULL,
              *x = b ? wf_case_read(c, "in.x0", WF_F64) : NULL;
    wf_status s = x ? compare_all(c, a, b, x) : WF_EFORMAT;
    wf_tensor_free(a);
    wf_tensor_free(b);
    wf_tensor_free(x);
    return s;
}

const wf_adapter wf_adapters_splitting[] = {{"lab.splitting-order", splitting_order, ""}, {0}};
