/* window.c: sums and means over windows of tokens that stand on a grid, channels last.
 *
 *     x [B,R,C,D]: y[b,r,c] = s(r,c) sum of x[b,r+i,c+j] - m x[b,r,c],  -up <= i <= down, -left <= j <= right, inside the grid
 *
 * s = 1, or 1 / how many those are (mean). It is linear; its adjoint is the same operator with the sides exchanged and, for a mean,
 * each summand divided by the count of its own window. One pass over x, one over y, whatever the window.
 */
#include "op/window.h"
#include "op/move.h"
#include "op/op.h"
#include "op/simd.h"

#include <string.h>

enum { A_UP = 0, A_DOWN, A_LEFT, A_RIGHT, A_KIND, A_MINUS };
enum { SUM = 0, MEAN, MEAN_ADJOINT };

static wf_status infer(wf_node *n) {
    const wf_node *x = n->in[0];
    char text[96];
    if (x->shape.rank != 4) return wf_fail(WF_EINVAL, "window: input is %s, must be [B,R,C,D]", wf_shape_text(&x->shape, text));
    if (x->dtype != WF_F32 && x->dtype != WF_F64)
        return wf_fail(WF_EUNSUPPORTED, "window: input is %s, must be float32 or float64", wf_dtype_name(x->dtype));
    n->dtype = x->dtype;
    n->shape = x->shape;
    return WF_OK;
}

static int64_t cut(int64_t i, int64_t n) {
    return i < 0 ? 0 : i > n ? n : i;
}

/* 1 / how many of n entries a window of `before` and `after` around entry i has. */
static void reciprocals(double *out, int64_t n, int64_t before, int64_t after) {
    for (int64_t i = 0; i < n; i++) out[i] = 1.0 / (double)(cut(i + after + 1, n) - cut(i - before, n));
}

static wf_window_fn kernel(void) {
#if defined(__x86_64__)
    static const wf_window_fn *const by_level[] = {&wf_window_generic, &wf_window_avx2, &wf_window_avx512,
                                                   &wf_window_avx512bf16};
    return *by_level[wf_isa()];
#else
    return wf_window_generic;
#endif
}

static size_t scratch(const wf_node *n) {
    return sizeof(double) * (size_t)(n->shape.dim[1] + n->shape.dim[2]);
}

static wf_status forward(const wf_call *c) {
    const wf_node *n = c->node;
    const int64_t *a = n->attr.i, *d = n->shape.dim, R = d[1], C = d[2], D = d[3];
    int64_t around = a[A_LEFT] + a[A_RIGHT], piece = around > 16 ? 4 * around : 64,
            channels = wf_window_channels(a[A_LEFT], a[A_RIGHT], D);
    int64_t pieces = (C + piece - 1) / piece, slabs = (D + channels - 1) / channels;
    double *by_row = c->scratch, *by_column = by_row + R;
    bool sum = a[A_KIND] == SUM, adjoint = a[A_KIND] == MEAN_ADJOINT;
    if (adjoint) { /* the counts of the windows whose adjoint this is */
        reciprocals(by_row, R, a[A_DOWN], a[A_UP]);
        reciprocals(by_column, C, a[A_RIGHT], a[A_LEFT]);
    } else {
        reciprocals(by_row, R, a[A_UP], a[A_DOWN]);
        reciprocals(by_column, C, a[A_LEFT], a[A_RIGHT]);
    }
    wf_window_fn run = kernel();
    size_t size = wf_dtype_size(n->dtype);
    int workers = wf_workers((double)wf_shape_count(&n->shape) * 8);
#pragma omp parallel for schedule(static) num_threads(workers) if (workers > 1)
    for (int64_t i = 0; i < d[0] * R * pieces * slabs; i++) {
        int64_t slab = i % slabs * channels, from = i / slabs % pieces * piece;
        int64_t row = i / slabs / pieces % R, first = i / slabs / pieces / R * R * C * D + slab;
        wf_window_task t = {.x = (const char *)c->in[0] + (size_t)first * size,
                            .y = (char *)c->out[0] + (size_t)first * size,
                            .row_pitch = C * D,
                            .pitch = D,
                            .row = row,
                            .top = cut(row - a[A_UP], R),
                            .bottom = cut(row + a[A_DOWN] + 1, R),
                            .from = from,
                            .to = cut(from + piece, C),
                            .columns = C,
                            .left = a[A_LEFT],
                            .right = a[A_RIGHT],
                            .n = D - slab < channels ? D - slab : channels,
                            .row_share = sum ? NULL : by_row,
                            .column_share = sum ? NULL : by_column,
                            .adjoint = adjoint,
                            .minus_self = a[A_MINUS],
                            .wide = n->dtype == WF_F64};
        run(&t);
    }
    return WF_OK;
}

static const wf_op window_op;

static wf_status vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    static const int64_t adjoint[] = {SUM, MEAN_ADJOINT, MEAN};
    const int64_t *a = n->attr.i;
    wf_attr attr = {.i = {a[A_DOWN], a[A_UP], a[A_RIGHT], a[A_LEFT], adjoint[a[A_KIND]], a[A_MINUS]}};
    if (gout[0]) gin[0] = wf_node_new(g, &window_op, gout, 1, &attr);
    return wf_graph_status(g);
}

/* The rows of a window are added, then its columns, then the scale and what is subtracted. */
static void cost(const wf_node *n, wf_cost *c) {
    const int64_t *a = n->attr.i;
    double count = (double)wf_shape_count(&n->shape), size = (double)wf_dtype_size(n->dtype);
    c->flops = count * (double)(a[A_UP] + a[A_DOWN] + a[A_LEFT] + a[A_RIGHT] + (a[A_KIND] != SUM) + a[A_MINUS]);
    c->bytes_read = c->bytes_written = count * size;
}

static const wf_op window_op = {
    .name = "window", .infer = infer, .forward = forward, .vjp = vjp, .cost = cost, .scratch = scratch};

wf_node *wf_window(wf_graph *g, wf_node *x, const wf_window_spec *s) {
    if (!x) return NULL;
    const int64_t side[4] = {s->up, s->down, s->left, s->right};
    wf_attr attr = {.i = {[A_KIND] = s->mean ? MEAN : SUM, [A_MINUS] = s->minus_self}};
    for (int i = 0; i < 4; i++) {
        if (side[i] < 0 || side[i] > WF_WINDOW_MAX)
            return wf_graph_fail(g, WF_EINVAL, "window: a side of %lld tokens; each must be 0 to %d", (long long)side[i],
                                 WF_WINDOW_MAX);
        attr.i[i] = side[i];
    }
    return wf_node_new(g, &window_op, &x, 1, &attr);
}
