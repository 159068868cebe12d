/* orthogonal.c: random projections with orthogonal rows (Choromanski et al. 2020, arXiv 2009.14794), and their renewal while a
 * model trains. The step is part of the seed, so a resumed run draws what the unbroken one does. */
#include "op/op.h"
#include "op/rows.h"

#include <math.h>
#include <string.h>

/* v minus its parts along the n unit rows of w */
static void remove_parts(double *v, const double *w, int64_t n, int64_t d) {
    for (int64_t i = 0; i < n; i++) {
        double dot = 0;
        for (int64_t c = 0; c < d; c++) dot += v[c] * w[i * d + c];
        for (int64_t c = 0; c < d; c++) v[c] -= dot * w[i * d + c];
    }
}

static double length_of(const double *v, int64_t d) {
    double sum = 0;
    for (int64_t c = 0; c < d; c++) sum += v[c] * v[c];
    return sqrt(sum);
}

static double normal_length(int64_t d, wf_rng *r) {
    double sum = 0;
    for (int64_t c = 0; c < d; c++) {
        double z = wf_rng_normal(r);
        sum += z * z;
    }
    return sqrt(sum);
}

void wf_orthogonal_rows(float *w, int64_t rows, int64_t d, wf_rng *r) {
    double *block = wf_alloc_array((size_t)(d * d), sizeof *block);
    if (!block) return;
    for (int64_t row = 0; row < rows; row++) {
        int64_t at = row % d;
        double *v = block + at * d, length = 0;
        while (length < 1e-6) { /* a vector in the span of those before has probability 0 */
            for (int64_t c = 0; c < d; c++) v[c] = wf_rng_normal(r);
            remove_parts(v, block, at, d);
            remove_parts(v, block, at, d); /* once more for rounding */
            length = length_of(v, d);
        }
        for (int64_t c = 0; c < d; c++) v[c] /= length;
        double size = normal_length(d, r);
        for (int64_t c = 0; c < d; c++) w[row * d + c] = (float)(size * v[c]);
    }
    wf_free(block);
}

/* attr.i: [0] steps between two draws, [1] stream */
static wf_status infer(wf_node *n) {
    const wf_node *w = n->in[0], *seed = n->in[1];
    char a[96], b[96];
    if (w->dtype != WF_F32 || w->shape.rank != 2 || seed->dtype != WF_I32 || wf_shape_count(&seed->shape) != 4)
        return wf_fail(WF_EINVAL, "orthogonal_redraw: float32 [rows,d] and a seed int32 [4] expected, not %s %s and %s %s",
                       wf_dtype_name(w->dtype), wf_shape_text(&w->shape, a), wf_dtype_name(seed->dtype),
                       wf_shape_text(&seed->shape, b));
    if (n->attr.i[0] < 1)
        return wf_fail(WF_EINVAL, "orthogonal_redraw: every %lld steps; at least 1 expected", (long long)n->attr.i[0]);
    n->dtype = WF_F32;
    n->shape = w->shape;
    return WF_OK;
}

static wf_status forward(const wf_call *c) {
    const wf_node *n = c->node;
    const uint32_t *s = c->in[1];
    uint64_t seed = s[0] | (uint64_t)s[1] << 32, step = s[2] | (uint64_t)s[3] << 32;
    if (step == 0 || step % (uint64_t)n->attr.i[0]) {
        memcpy(c->out[0], c->in[0], (size_t)wf_shape_count(&n->shape) * sizeof(float));
        return WF_OK;
    }
    wf_rng r = {wf_hash(&seed, sizeof seed, step), (uint64_t)n->attr.i[1], 0};
    wf_orthogonal_rows(c->out[0], n->shape.dim[0], n->shape.dim[1], &r);
    return WF_OK;
}

static const wf_op redraw_op = {.name = "orthogonal_redraw", .infer = infer, .forward = forward, .cost = wf_cost_move};

wf_node *wf_orthogonal_redraw(wf_graph *g, wf_node *w, wf_node *seed, int64_t every, uint64_t stream) {
    wf_attr a = {.i = {every, (int64_t)stream}};
    return wf_node_new(g, &redraw_op, (wf_node *[]){w, seed}, 2, &a);
}
