/* matmul64.c: float64 products: plain loops over blocks of k, threads over rows. */
#include "op/matmul64.h"

enum { DEPTH = 64 };

/* One row of C, over k from p0 to p1. */
static void add_row(const wf_product *p, const double *a, const double *b, int64_t p0, int64_t p1, double *c) {
    if (p->b_cs == 1) {
        for (int64_t q = p0; q < p1; q++) {
            double x = a[q * p->a_cs];
            const double *row = b + q * p->b_rs;
            for (int64_t j = 0; j < p->n; j++) c[j] += x * row[j];
        }
        return;
    }
    for (int64_t j = 0; j < p->n; j++) {
        const double *col = b + j * p->b_cs;
        double sum = c[j];
        for (int64_t q = p0; q < p1; q++) sum += a[q * p->a_cs] * col[q * p->b_rs];
        c[j] = sum;
    }
}

void wf_matmul64(const wf_product *p, const void *va, const void *vb, const void *vbias, void *vc) {
    const double *a = va, *b = vb, *bias = vbias;
    double *c = vc;
    int64_t rows = p->batch * p->m;
    bool large = (double)rows * (double)p->n * (double)p->k > 1e5;
#pragma omp parallel for schedule(static) num_threads(wf_threads()) if (large)
    for (int64_t r = 0; r < rows; r++) {
        int64_t ao, bo;
        wf_product_item(p, r / p->m, &ao, &bo);
        double *row = c + r * p->n;
        for (int64_t j = 0; j < p->n; j++) row[j] = 0;
        for (int64_t q = 0; q < p->k; q += DEPTH)
            add_row(p, a + ao + r % p->m * p->a_rs, b + bo, q, q + DEPTH < p->k ? q + DEPTH : p->k, row);
        if (bias)
            for (int64_t j = 0; j < p->n; j++) row[j] += bias[j];
    }
}
