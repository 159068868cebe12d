/* resize.c: 8-bit pictures to a square. Each side on its own, as a sparse matrix: an output pixel is the mean of the input it
 * covers where the side shrinks (area), and a mix of the two nearest centres where it grows (bilinear). Sums in float32.
 */
#include "data/tasks.h"

#include <math.h>

typedef struct span { /* input entries first .. first+n-1 with weight[0..n) */
    int64_t first, n;
    float *weight;
} span;

static void span_area(span *s, int64_t o, double scale, int64_t in) {
    double from = (double)o * scale, to = from + scale;
    s->first = (int64_t)from;
    s->n = 0;
    for (int64_t i = s->first; i < in && (double)i < to - 1e-9; i++) {
        double lo = from > (double)i ? from : (double)i, hi = to < (double)i + 1 ? to : (double)i + 1;
        s->weight[s->n++] = (float)((hi - lo) / scale);
    }
}

static void span_linear(span *s, int64_t o, double scale, int64_t in) {
    double at = ((double)o + 0.5) * scale - 0.5, low = floor(at), w = at - low;
    int64_t a = (int64_t)low, b = a + 1;
    if (a < 0) a = 0;
    if (b > in - 1) b = in - 1;
    s->first = a;
    s->n = b > a ? 2 : 1;
    s->weight[0] = b > a ? (float)(1 - w) : 1;
    s->weight[1] = (float)w;
}

/* Spans of all outputs of one side; `weights` has room for size * (in / size + 3) numbers. */
static void make_spans(span *s, float *weights, int64_t in, int64_t size) {
    double scale = (double)in / (double)size;
    for (int64_t o = 0; o < size; o++) {
        s[o].weight = weights + o * (in / size + 3);
        if (in > size)
            span_area(&s[o], o, scale, in);
        else
            span_linear(&s[o], o, scale, in);
    }
}

/* Rows y0.. and columns x0.. of the used part; mid: one row of spans applied down the rows, [used width]. */
static void resize(const uint8_t *in, int64_t w, int c, int64_t y0, int64_t x0, int64_t used_w, const span *down,
                   const span *across, int64_t size, float *mid, uint8_t *out) {
    for (int k = 0; k < c; k++)
        for (int64_t y = 0; y < size; y++) {
            for (int64_t x = 0; x < used_w; x++) mid[x] = 0;
            for (int64_t i = 0; i < down[y].n; i++) {
                const uint8_t *row = in + ((y0 + down[y].first + i) * w + x0) * c + k;
                for (int64_t x = 0; x < used_w; x++) mid[x] += down[y].weight[i] * row[x * c];
            }
            for (int64_t x = 0; x < size; x++) {
                float v = 0.5f;
                for (int64_t i = 0; i < across[x].n; i++) v += across[x].weight[i] * mid[across[x].first + i];
                out[(k * size + y) * size + x] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
            }
        }
}

wf_status wf_resize_square(const uint8_t *in, int64_t h, int64_t w, int c, bool crop, int64_t size, uint8_t *out) {
    int64_t side = h < w ? h : w, uh = crop ? side : h, uw = crop ? side : w;
    float *down_w = wf_alloc_array((size_t)(size * (uh / size + 3)), sizeof *down_w);
    float *across_w = wf_alloc_array((size_t)(size * (uw / size + 3)), sizeof *across_w);
    float *mid = wf_alloc_array((size_t)uw, sizeof *mid);
    span *down = wf_alloc_array((size_t)size, sizeof *down), *across = wf_alloc_array((size_t)size, sizeof *across);
    bool ok = down_w && across_w && mid && down && across;
    if (ok) {
        make_spans(down, down_w, uh, size);
        make_spans(across, across_w, uw, size);
        resize(in, w, c, (h - uh) / 2, (w - uw) / 2, uw, down, across, size, mid, out);
    }
    wf_free(down_w);
    wf_free(across_w);
    wf_free(mid);
    wf_free(down);
    wf_free(across);
    return ok ? WF_OK : WF_ENOMEM;
}
