/* tables.c: choosing rows of position tables, and the computed tables themselves. */
#include "part/position/position.h"

#include <math.h>
#include <string.h>

wf_node *wf_position_rows(wf_build *b, const wf_module *m, wf_node *table, int64_t L) {
    if (!table) return NULL;
    int64_t rows = table->shape.dim[0];
    if (L > rows) {
        wf_module_fail(m, WF_EINVAL,
                       "a sequence of %lld is longer than the %lld positions of the model; train it with a larger 'length'",
                       (long long)L, (long long)rows);
        return wf_graph_fail(b->g, WF_EINVAL, "%s", wf_message());
    }
    if (b->pos) return wf_gather(b->g, table, wf_positions(b, WF_I32, L));
    return L == rows ? table : wf_slice(b->g, table, 0, 0, L);
}

int64_t wf_position_room(const wf_build *b, const wf_module *m, int64_t L) {
    int64_t n = L, most = m->model->max_length;
    if (b->pos && b->max_length > n) n = b->max_length;
    int64_t room = 64;
    while (room < n) room *= 2;
    return n <= most && most < room ? most : room;
}

typedef struct angle_spec {
    double base;
    int64_t offset;
} angle_spec;

static void fill_angles(wf_tensor *t, const void *ctx) {
    const angle_spec *s = ctx;
    int64_t rows = t->shape.dim[0], half = t->shape.dim[1];
    float *a = t->data;
    for (int64_t i = 0; i < half; i++) {
        double w = pow(s->base, -(double)i / (double)half);
        for (int64_t p = 0; p < rows; p++) a[p * half + i] = (float)remainder((double)(p + s->offset) * w, 2 * M_PI);
    }
}

wf_node *wf_rope_angles(wf_build *b, const wf_module *m, int64_t L, int64_t r, double base, int64_t offset) {
    int64_t rows = wf_position_room(b, m, L);
    char key[128];
    snprintf(key, sizeof key, "rope %lld %lld %.17g %lld", (long long)rows, (long long)r, base, (long long)offset);
    angle_spec s = {base, offset};
    wf_tensor *t = wf_model_constant(m->model, key, WF_F32, WF_SHAPE(rows, r / 2), fill_angles, &s);
    return t ? wf_position_rows(b, m, wf_leaf(b->g, t, "angles"), L) : NULL;
}

void wf_alibi_slopes(int64_t H, double *slope) {
    int64_t low = 1;
    while (2 * low <= H) low *= 2;
    for (int64_t h = 0; h < low; h++) slope[h] = pow(2, -8.0 * (double)(h + 1) / (double)low);
    for (int64_t h = low; h < H; h++) slope[h] = pow(2, -8.0 * (double)(2 * (h - low) + 1) / (double)(2 * low));
}

void wf_sinusoid_table(float *table, int64_t rows, int64_t D, double base, int64_t offset, bool halves) {
    int64_t half = (D + 1) / 2;
    for (int64_t i = 0; i < half; i++) {
        double w = pow(base, -2.0 * (double)i / (double)D);
        int64_t s = halves ? i : 2 * i, c = halves ? half + i : 2 * i + 1;
        for (int64_t t = 0; t < rows; t++) {
            double a = (double)(t + offset) * w;
            table[t * D + s] = (float)sin(a);
            if (c < D) table[t * D + c] = (float)cos(a);
        }
    }
}
