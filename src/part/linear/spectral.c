/* spectral.c: power and Lanczos iterations on W^T W, in double. */
#include "part/linear/spectral.h"

#include "base/base.h"

#include <math.h>
#include <string.h>

static double dot(const double *a, const double *b, int64_t n) {
    double s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < n; i++) s += a[i] * b[i];
    return s;
}

static void add_times(double *y, double a, const double *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
}

/* Divide by the length, which is returned. */
static double normalise(double *x, int64_t n) {
    double length = sqrt(dot(x, x, n)), by = length > 1e-12 ? length : 1e-12;
    for (int64_t i = 0; i < n; i++) x[i] /= by;
    return length;
}

/* v = W u */
static int64_t times(const wf_rows *part, int n_part, int64_t cols, const double *u, double *v) {
    int64_t at = 0;
    for (int k = 0; k < n_part; k++)
        for (int64_t r = 0; r < part[k].rows; r++) {
            const float *w = part[k].w + r * cols;
            double s = 0;
#pragma omp simd reduction(+ : s)
            for (int64_t c = 0; c < cols; c++) s += (double)w[c] * u[c];
            v[at++] = s;
        }
    return at;
}

/* u = W^T v */
static void times_transposed(const wf_rows *part, int n_part, int64_t cols, const double *v, double *u) {
    memset(u, 0, sizeof(double) * (size_t)cols);
    for (int k = 0; k < n_part; k++)
        for (int64_t r = 0; r < part[k].rows; r++) {
            const float *w = part[k].w + r * cols;
            double x = *v++;
            for (int64_t c = 0; c < cols; c++) u[c] += x * (double)w[c];
        }
}

double wf_power_step(const wf_rows *part, int n_part, int64_t cols, double *u, double *v) {
    int64_t rows = times(part, n_part, cols, u, v);
    normalise(v, rows);
    times_transposed(part, n_part, cols, v, u);
    double length = sqrt(dot(u, u, cols));
    normalise(u, cols);
    return length > 1e-12 ? length : length * length / 1e-12; /* v^T W u */
}

enum { BASIS = 24, RESTARTS = 60 };

/* The largest eigenvalue of the symmetric a [n,n] and its vector, by Jacobi rotations; a is used up. */
static double largest_eigen(double a[BASIS][BASIS], int n, double vector[BASIS]) {
    double q[BASIS][BASIS] = {{0}};
    for (int i = 0; i < n; i++) q[i][i] = 1;
    for (int sweep = 0; sweep < 40; sweep++) {
        double off = 0, all = 0;
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) all += a[i][j] * a[i][j], off += i != j ? a[i][j] * a[i][j] : 0;
        if (off <= 1e-32 * all) break;
        for (int i = 0; i < n; i++)
            for (int j = i + 1; j < n; j++) {
                if (a[i][j] == 0) continue;
                double theta = (a[j][j] - a[i][i]) / (2 * a[i][j]);
                double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1)), c = 1 / sqrt(t * t + 1), s = t * c;
                for (int k = 0; k < n; k++) {
                    double x = a[k][i], y = a[k][j];
                    a[k][i] = c * x - s * y, a[k][j] = s * x + c * y;
                }
                for (int k = 0; k < n; k++) {
                    double x = a[i][k], y = a[j][k];
                    a[i][k] = c * x - s * y, a[j][k] = s * x + c * y;
                }
                for (int k = 0; k < n; k++) {
                    double x = q[k][i], y = q[k][j];
                    q[k][i] = c * x - s * y, q[k][j] = s * x + c * y;
                }
            }
    }
    int top = 0;
    for (int i = 1; i < n; i++)
        if (a[i][i] > a[top][top]) top = i;
    for (int k = 0; k < n; k++) vector[k] = q[k][top];
    return a[top][top];
}

/* One run of Lanczos from the unit vector u, with full orthogonalisation; u becomes the best vector of the basis. Returns how far
 * it is from an eigenvector, relative to its value. */
static double lanczos(const wf_rows *part, int n_part, int64_t cols, double *u, double *basis, double *v, double *square) {
    double t[BASIS][BASIS] = {{0}}, weight[BASIS], rest = 0;
    int most = cols < BASIS ? (int)cols : BASIS, n = 0;
    memcpy(basis, u, sizeof(double) * (size_t)cols);
    while (n < most) {
        double *now = basis + (int64_t)n * cols, *next = now + cols; /* room for BASIS + 1 vectors */
        times(part, n_part, cols, now, v);
        times_transposed(part, n_part, cols, v, next);
        t[n][n] = dot(next, now, cols);
        for (int twice = 0; twice < 2; twice++)
            for (int k = 0; k <= n; k++)
                add_times(next, -dot(next, basis + (int64_t)k * cols, cols), basis + (int64_t)k * cols, cols);
        rest = sqrt(dot(next, next, cols));
        n++;
        if (rest <= 1e-14 * t[0][0] || n == most) break;
        t[n - 1][n] = t[n][n - 1] = rest;
        for (int64_t i = 0; i < cols; i++) next[i] /= rest;
    }
    *square = largest_eigen(t, n, weight);
    memset(u, 0, sizeof(double) * (size_t)cols);
    for (int k = 0; k < n; k++) add_times(u, weight[k], basis + (int64_t)k * cols, cols);
    normalise(u, cols);
    return *square > 0 ? rest * fabs(weight[n - 1]) / *square : 0;
}

double wf_largest_singular(const wf_rows *part, int n_part, int64_t cols, double *u) {
    int64_t rows = 0;
    for (int k = 0; k < n_part; k++) rows += part[k].rows;
    double *basis = wf_alloc_array((size_t)(BASIS + 1) * (size_t)cols, sizeof *basis),
           *v = wf_alloc_array((size_t)rows + 1, sizeof *v);
    double square = -1;
    if (basis && v) {
        if (dot(u, u, cols) == 0) {
            wf_rng r = {1, 0, 0};
            for (int64_t i = 0; i < cols; i++) u[i] = wf_rng_normal(&r);
        }
        normalise(u, cols);
        for (int i = 0; i < RESTARTS && lanczos(part, n_part, cols, u, basis, v, &square) > 1e-9; i++) continue;
    }
    wf_free(basis);
    wf_free(v);
    return square > 0 ? sqrt(square) : square;
}
