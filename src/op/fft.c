/* fft.c: real Fourier transform over the last axis and its inverse, by FFTW.
 *
 *     rfft   x [.., L]    -> y [.., m, 2]   y_k = s_k sum_j x_j e^(-2 pi i j k / n),   x cut or zero-padded to n points
 *     irfft  Y [.., m, 2] -> x [.., L]      x_j = Re sum_k s_k Y_k e^(2 pi i j k / n),  j < L, zero beyond n
 *
 * k < n/2+1, further bins are 0; s_k is `edge` at k = 0 and n/2 (n even), `inner` between. With the same n, lengths and scales
 * the two are each other's adjoint, so each is the other's derivative: rfft has scales 1 and 1, the inverse 1/n and 2/n.
 */
#include "op/op.h"
#include <fftw3.h>
#include <omp.h>
#include <pthread.h>
#include <string.h>

enum { A_N = 0, A_LENGTH = 1 /* L of irfft, m of rfft */ };
enum { F_EDGE = 0, F_INNER = 1 };

static pthread_mutex_t planner = PTHREAD_MUTEX_INITIALIZER; /* FFTW plans from one thread at a time; running needs no lock */

typedef struct fft_state {
    bool wide, inverse;
    int threads;
    int64_t n, bins;
    size_t real, complex_; /* bytes of one thread's two buffers */
    fftwf_plan narrow_plan;
    fftw_plan wide_plan;
} fft_state;

static size_t round64(size_t n) {
    return (n + 63) & ~(size_t)63;
}

static void size_up(const wf_node *n, bool inverse, fft_state *s) {
    memset(s, 0, sizeof *s);
    s->wide = n->dtype == WF_F64;
    s->inverse = inverse;
    s->threads = wf_threads();
    s->n = n->attr.i[A_N];
    s->bins = s->n / 2 + 1;
    s->real = round64((size_t)s->n * wf_dtype_size(n->dtype));
    s->complex_ = round64((size_t)s->bins * 2 * wf_dtype_size(n->dtype));
}

static size_t scratch(const wf_node *n) {
    fft_state s;
    size_up(n, false, &s);
    return (size_t)s.threads * (s.real + s.complex_);
}

static void release(void *state) {
    fft_state *s = state;
    if (!s) return;
    pthread_mutex_lock(&planner);
    if (s->narrow_plan) fftwf_destroy_plan(s->narrow_plan);
    if (s->wide_plan) fftw_destroy_plan(s->wide_plan);
    pthread_mutex_unlock(&planner);
    wf_free(s);
}

/* FFTW_ESTIMATE: the plan, and so every bit of the result, is the same each time. */
static wf_status prepare_as(const wf_node *n, bool inverse, void **state) {
    fft_state *s = wf_alloc(sizeof *s);
    if (!s) return WF_ENOMEM;
    size_up(n, inverse, s);
    void *real = wf_alloc(s->real), *complex_ = wf_alloc(s->complex_);
    if (real && complex_) {
        pthread_mutex_lock(&planner);
        if (s->wide && inverse)
            s->wide_plan = fftw_plan_dft_c2r_1d((int)s->n, complex_, real, FFTW_ESTIMATE);
        else if (s->wide)
            s->wide_plan = fftw_plan_dft_r2c_1d((int)s->n, real, complex_, FFTW_ESTIMATE);
        else if (inverse)
            s->narrow_plan = fftwf_plan_dft_c2r_1d((int)s->n, complex_, real, FFTW_ESTIMATE);
        else
            s->narrow_plan = fftwf_plan_dft_r2c_1d((int)s->n, real, complex_, FFTW_ESTIMATE);
        pthread_mutex_unlock(&planner);
    }
    bool failed = !s->wide_plan && !s->narrow_plan;
    wf_free(real);
    wf_free(complex_);
    if (failed) {
        release(s);
        return wf_fail(WF_ENOMEM, "%s: FFTW made no plan for %lld points", n->op->name, (long long)n->attr.i[A_N]);
    }
    *state = s;
    return WF_OK;
}
static wf_status prepare_rfft(wf_node *n, void **state) {
    return prepare_as(n, false, state);
}
static wf_status prepare_irfft(wf_node *n, void **state) {
    return prepare_as(n, true, state);
}

/* ---- kernels: each row goes through the thread's two buffers, which are aligned alike for every row ---- */

#define SCALE(k) ((k) == 0 || 2 * (k) == s->n ? edge : inner)

#define FFT_ROWS(T, C, forward, backward)                                                                                      \
    static void forward##_row(const fft_state *s, const T *x, int64_t length, T *y, int64_t m, T edge, T inner, T *real,       \
                              T *spec) {                                                                                       \
        int64_t used = length < s->n ? length : s->n;                                                                          \
        memcpy(real, x, (size_t)used * sizeof(T));                                                                             \
        memset(real + used, 0, (size_t)(s->n - used) * sizeof(T));                                                             \
        forward(s, real, (C *)spec);                                                                                           \
        for (int64_t k = 0; k < m; k++)                                                                                        \
            for (int i = 0; i < 2; i++) y[2 * k + i] = k < s->bins ? SCALE(k) * spec[2 * k + i] : 0;                           \
    }                                                                                                                          \
    static void backward##_row(const fft_state *s, const T *y, int64_t m, T *x, int64_t length, T edge, T inner, T *real,      \
                               T *spec) {                                                                                      \
        for (int64_t k = 0; k < s->bins; k++) { /* FFTW adds each inner bin twice, itself and its mirror image */              \
            bool at_edge = k == 0 || 2 * k == s->n;                                                                            \
            T f = k >= m ? 0 : at_edge ? edge : inner / 2;                                                                     \
            spec[2 * k] = k < m ? f * y[2 * k] : 0;                                                                            \
            spec[2 * k + 1] = k < m && !at_edge ? f * y[2 * k + 1] : 0;                                                        \
        }                                                                                                                      \
        backward(s, (C *)spec, real);                                                                                          \
        int64_t used = length < s->n ? length : s->n;                                                                          \
        memcpy(x, real, (size_t)used * sizeof(T));                                                                             \
        memset(x + used, 0, (size_t)(length - used) * sizeof(T));                                                              \
    }

static void forward32(const fft_state *s, float *real, fftwf_complex *spec) {
    fftwf_execute_dft_r2c(s->narrow_plan, real, spec);
}
static void backward32(const fft_state *s, fftwf_complex *spec, float *real) {
    fftwf_execute_dft_c2r(s->narrow_plan, spec, real);
}
static void forward64(const fft_state *s, double *real, fftw_complex *spec) {
    fftw_execute_dft_r2c(s->wide_plan, real, spec);
}
static void backward64(const fft_state *s, fftw_complex *spec, double *real) {
    fftw_execute_dft_c2r(s->wide_plan, spec, real);
}

FFT_ROWS(float, fftwf_complex, forward32, backward32)
FFT_ROWS(double, fftw_complex, forward64, backward64)

static void one_row(const wf_call *c, const fft_state *s, int64_t r, int64_t length, int64_t m, void *real, void *spec) {
    const double *f = c->node->attr.f;
    int64_t from = r * (s->inverse ? 2 * m : length), to = r * (s->inverse ? length : 2 * m);
    if (s->wide) {
        const double *in = (const double *)c->in[0] + from;
        double *out = (double *)c->out[0] + to;
        if (s->inverse)
            backward64_row(s, in, m, out, length, f[F_EDGE], f[F_INNER], real, spec);
        else
            forward64_row(s, in, length, out, m, f[F_EDGE], f[F_INNER], real, spec);
    } else {
        const float *in = (const float *)c->in[0] + from;
        float *out = (float *)c->out[0] + to;
        if (s->inverse)
            backward32_row(s, in, m, out, length, (float)f[F_EDGE], (float)f[F_INNER], real, spec);
        else
            forward32_row(s, in, length, out, m, (float)f[F_EDGE], (float)f[F_INNER], real, spec);
    }
}

static wf_status forward(const wf_call *c) {
    const fft_state *s = c->state;
    const wf_shape *x = s->inverse ? &c->node->shape : &c->node->in[0]->shape,
                   *y = s->inverse ? &c->node->in[0]->shape : &c->node->shape;
    int64_t length = x->dim[x->rank - 1], m = y->dim[y->rank - 2], rows = 1;
    for (int i = 0; i < x->rank - 1; i++) rows *= x->dim[i];
    int threads = wf_threads() < s->threads ? wf_threads() : s->threads;
    if (rows * s->n < 1 << 14) threads = 1;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t r = 0; r < rows; r++) {
        char *real = (char *)c->scratch + (size_t)omp_get_thread_num() * (s->real + s->complex_);
        one_row(c, s, r, length, m, real, real + s->real);
    }
    return WF_OK;
}

/* ---- shape rules, cost, derivative ---- */

static wf_status infer_rfft(wf_node *n) {
    n->dtype = n->in[0]->dtype;
    n->shape = n->in[0]->shape;
    n->shape.dim[n->shape.rank - 1] = n->attr.i[A_LENGTH];
    n->shape.dim[n->shape.rank++] = 2;
    return WF_OK;
}

static wf_status infer_irfft(wf_node *n) {
    n->dtype = n->in[0]->dtype;
    n->shape = n->in[0]->shape;
    n->shape.rank--;
    n->shape.dim[n->shape.rank - 1] = n->attr.i[A_LENGTH];
    return WF_OK;
}

/* By the usual count of a real transform: 2.5 n log2 n. */
static void cost(const wf_node *n, wf_cost *c) {
    const wf_shape *small = n->shape.rank < n->in[0]->shape.rank ? &n->shape : &n->in[0]->shape;
    double rows = 1, points = (double)n->attr.i[A_N], levels = 0;
    for (int i = 0; i < small->rank - 1; i++) rows *= (double)small->dim[i];
    for (double p = points; p > 1; p /= 2) levels++;
    c->flops = 2.5 * rows * points * levels;
    c->bytes_read = (double)wf_shape_count(&n->in[0]->shape) * (double)wf_dtype_size(n->dtype);
    c->bytes_written = (double)wf_shape_count(&n->shape) * (double)wf_dtype_size(n->dtype);
}

static const wf_op rfft_op, irfft_op;

static wf_status rfft_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    wf_attr attr = n->attr;
    attr.i[A_LENGTH] = n->in[0]->shape.dim[n->in[0]->shape.rank - 1];
    if (gout[0]) gin[0] = wf_node_new(g, &irfft_op, gout, 1, &attr);
    return wf_graph_status(g);
}

static wf_status irfft_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    wf_attr attr = n->attr;
    attr.i[A_LENGTH] = n->in[0]->shape.dim[n->in[0]->shape.rank - 2];
    if (gout[0]) gin[0] = wf_node_new(g, &rfft_op, gout, 1, &attr);
    return wf_graph_status(g);
}

static const wf_op rfft_op = {.name = "rfft",
                              .infer = infer_rfft,
                              .forward = forward,
                              .vjp = rfft_vjp,
                              .cost = cost,
                              .scratch = scratch,
                              .prepare = prepare_rfft,
                              .release = release};
static const wf_op irfft_op = {.name = "irfft",
                               .infer = infer_irfft,
                               .forward = forward,
                               .vjp = irfft_vjp,
                               .cost = cost,
                               .scratch = scratch,
                               .prepare = prepare_irfft,
                               .release = release};

/* ---- builders ---- */

static wf_node *build(wf_graph *g, const wf_op *op, wf_node *x, const wf_attr *attr) {
    wf_dtype t = x->dtype;
    wf_node *in = t == WF_BF16 ? wf_cast(g, x, WF_F32) : x;
    wf_node *y = wf_node_new(g, op, &in, 1, attr);
    return t == WF_BF16 ? wf_cast(g, y, t) : y;
}

wf_node *wf_rfft(wf_graph *g, wf_node *x, int64_t n) {
    if (!x) return NULL;
    char s[96];
    if (x->shape.rank < 1 || x->shape.rank >= WF_MAX_RANK || !wf_is_float(x->dtype) || n < 1 || n > 1 << 28)
        return wf_graph_fail(g, WF_EINVAL,
                             "rfft: %s %s to %lld points: needs a floating input of 1 to %d axes and 1 to 2^28 points",
                             wf_dtype_name(x->dtype), wf_shape_text(&x->shape, s), (long long)n, WF_MAX_RANK - 1);
    wf_attr attr = {.i = {n, n / 2 + 1}, .f = {1, 1}};
    return build(g, &rfft_op, x, &attr);
}

wf_node *wf_irfft(wf_graph *g, wf_node *x, int64_t n) {
    if (!x) return NULL;
    char s[96];
    if (x->shape.rank < 2 || x->shape.dim[x->shape.rank - 1] != 2 || !wf_is_float(x->dtype) || n < 1 || n > 1 << 28)
        return wf_graph_fail(g, WF_EINVAL,
                             "irfft: %s %s to %lld points: needs a floating input [.., bins, 2] and 1 to 2^28 points",
                             wf_dtype_name(x->dtype), wf_shape_text(&x->shape, s), (long long)n);
    wf_attr attr = {.i = {n, n}, .f = {1.0 / (double)n, 2.0 / (double)n}};
    return build(g, &irfft_op, x, &attr);
}
