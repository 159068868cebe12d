/* matrix.c: the arithmetic of transforms, in double and on plain numbers. */
#include "transform/transform.h"

void wf_fold_reader(int64_t O, int64_t I, const double *a, const double *b, double *w, double *bias) {
    for (int64_t o = 0; o < O; o++) {
        double sum = 0;
        for (int64_t i = 0; i < I; i++) {
            sum += w[o * I + i] * b[i];
            w[o * I + i] *= a[i];
        }
        if (bias) bias[o] += sum;
    }
}

void wf_fold_writer(int64_t O, int64_t I, const double *a, const double *b, double *w, double *bias) {
    for (int64_t o = 0; o < O; o++) {
        for (int64_t i = 0; i < I; i++) w[o * I + i] *= a[o];
        if (bias) bias[o] = a[o] * bias[o] + b[o];
    }
}

void wf_subtract_mean(int64_t n, int64_t m, int axis, double *x) {
    int64_t lines = axis ? n : m, length = axis ? m : n, step = axis ? 1 : m, next = axis ? m : 1;
    for (int64_t k = 0; k < lines; k++) {
        double sum = 0, *p = x + k * next;
        for (int64_t i = 0; i < length; i++) sum += p[i * step];
        for (int64_t i = 0; i < length; i++) p[i * step] -= sum / (double)length;
    }
}
