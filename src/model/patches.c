/* patches.c: fixed tables of two-dimensional positions and their change to another grid. */
#include "model/model.h"

#include <math.h>
#include <string.h>

wf_status wf_sincos2d(const char *style, int64_t h, int64_t w, int64_t D, double T, float *table) {
    if (D % 4) return wf_fail(WF_EINVAL, "2-D sines and cosines need a width that is a multiple of 4, not %lld", (long long)D);
    bool simple = !strcmp(style, "simple_vit"), timm = !strcmp(style, "timm");
    int64_t n = D / 4;
    double m = simple ? (double)n - 1 : (double)n;
    if (m <= 0)
        return wf_fail(WF_EINVAL, "2-D positions of style %s need a width of at least 8, not %lld", style, (long long)D);
    for (int64_t p = 0; p < h * w; p++) {
        double y = (double)(p / w), x = (double)(p % w);
        float *row = table + p * D;
        for (int64_t i = 0; i < n; i++) {
            double f = pow(T, -(double)i / m);
            double v[4] = {sin(x * f), cos(x * f), sin(y * f), cos(y * f)};
            static const int order[2][4] = {{0, 1, 2, 3}, {2, 0, 3, 1}};
            for (int k = 0; k < 4; k++) row[k * n + i] = (float)v[order[timm][k]];
        }
    }
    return WF_OK;
}

static double cubic(double t) { /* A = -0.75 */
    const double A = -0.75;
    t = fabs(t);
    if (t <= 1) return ((A + 2) * t - (A + 3)) * t * t + 1;
    return t < 2 ? ((A * t - 5 * A) * t + 8 * A) * t - 4 * A : 0;
}

void wf_bicubic_weights(int64_t n, int64_t m, float *weight) {
    for (int64_t i = 0; i < m; i++) {
        double at = ((double)i + 0.5) * (double)n / (double)m - 0.5, base = floor(at);
        double row[4];
        memset(weight + i * n, 0, sizeof(float) * (size_t)n);
        for (int k = 0; k < 4; k++) {
            row[k] = cubic(at - (base - 1 + k));
            int64_t j = (int64_t)base - 1 + k;
            j = j < 0 ? 0 : j >= n ? n - 1 : j;
            weight[i * n + j] += (float)row[k];
        }
    }
}
