/* scan.c: cumulative sums along one axis. attr.i = {axis, reverse, exclusive}.
 *     y_t = sum over s <= t of x_s      (exclusive: s < t; reverse: s >= t, s > t)
 * Sums are carried in float64 (integers in int64, wrapped to the dtype). The derivative is the sum in the other direction.
 */
#include "op/move.h"
#include "op/op.h"

#include <string.h>

#define SCAN_COLUMNS 64 /* neighbouring columns that one task carries along the axis */

static wf_status cumsum_infer(wf_node *n) {
    const wf_node *x = n->in[0];
    char a[96];
    if (n->attr.i[0] < 0 || n->attr.i[0] >= x->shape.rank)
        return wf_fail(WF_EINVAL, "cumsum: axis %lld of %s", (long long)n->attr.i[0], wf_shape_text(&x->shape, a));
    if (x->dtype == WF_U8 || x->dtype == WF_I8)
        return wf_fail(WF_EUNSUPPORTED, "cumsum: %s: cast to int32 or float32 first", wf_dtype_name(x->dtype));
    n->dtype = x->dtype;
    n->shape = x->shape;
    return WF_OK;
}

/* `cols` sequences of n entries side by side, `apart` elements from one to the next; their first entries are at x and y, their
 * further ones `step` elements on (backwards when negative). */
#define SCAN(NAME, T, ACC, LOAD, STORE)                                                                                        \
    static inline void NAME(void *to, const void *from, int64_t n, int64_t step, int64_t cols, int64_t apart,                  \
                            bool exclusive) {                                                                                  \
        T *y = to;                                                                                                             \
        const T *x = from;                                                                                                     \
        ACC acc[SCAN_COLUMNS] = {0};                                                                                           \
        for (int64_t t = 0; t < n; t++, x += step, y += step) {                                                                \
            if (exclusive)                                                                                                     \
                for (int64_t j = 0; j < cols; j++) y[j * apart] = STORE(acc[j]);                                               \
            for (int64_t j = 0; j < cols; j++) acc[j] += LOAD(x[j * apart]);                                                   \
            if (!exclusive)                                                                                                    \
                for (int64_t j = 0; j < cols; j++) y[j * apart] = STORE(acc[j]);                                               \
        }                                                                                                                      \
    }
#define STORE_BF16(v) wf_f32_to_bf16((float)(v))
SCAN(scan_f32, float, double, (double), (float))
SCAN(scan_f64, double, double, (double), (double))
SCAN(scan_i32, int32_t, int64_t, (int64_t), (int32_t))
SCAN(scan_bf16, uint16_t, double, wf_bf16_to_f32, STORE_BF16)

static inline void scan_block(wf_dtype t, void *y, const void *x, int64_t n, int64_t step, int64_t cols, int64_t apart,
                              bool exclusive) {
    switch (t) {
    case WF_F32: scan_f32(y, x, n, step, cols, apart, exclusive); break;
    case WF_F64: scan_f64(y, x, n, step, cols, apart, exclusive); break;
    case WF_I32: scan_i32(y, x, n, step, cols, apart, exclusive); break;
    default: scan_bf16(y, x, n, step, cols, apart, exclusive); break;
    }
}

/* Sequences are taken several at a time: neighbours in memory where the axis is not the last one, else eight rows, whose
 * chains of additions then run beside each other. */
static wf_status cumsum_forward(const wf_call *c) {
    const wf_node *n = c->node;
    int axis = (int)n->attr.i[0];
    bool reverse = n->attr.i[1], exclusive = n->attr.i[2];
    int64_t len = n->shape.dim[axis], inner = wf_span(&n->shape, axis + 1, n->shape.rank), outer = wf_span(&n->shape, 0, axis);
    int64_t lines = inner > 1 ? inner : outer, group = inner > 1 ? SCAN_COLUMNS : 8, blocks = (lines + group - 1) / group;
    int64_t tasks = inner > 1 ? outer * blocks : blocks, step = reverse ? -inner : inner;
    int64_t size = (int64_t)wf_dtype_size(n->dtype);
    int workers = wf_workers((double)wf_shape_count(&n->shape) * 8);
#pragma omp parallel for schedule(static) num_threads(workers) if (workers > 1)
    for (int64_t task = 0; task < tasks; task++) {
        int64_t line = task % blocks * group, cols = lines - line < group ? lines - line : group;
        int64_t at = inner > 1 ? task / blocks * len * inner + line : line * len;
        if (reverse) at += (len - 1) * inner;
        char *y = (char *)c->out[0] + at * size;
        const char *x = (const char *)c->in[0] + at * size;
        if (inner > 1)
            scan_block(n->dtype, y, x, len, step, cols, 1, exclusive);
        else if (cols == 8)
            scan_block(n->dtype, y, x, len, step, 8, len, exclusive);
        else
            scan_block(n->dtype, y, x, len, step, cols, len, exclusive);
    }
    return WF_OK;
}

static wf_status cumsum_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    if (!gout[0] || !wf_is_float(n->dtype)) return WF_OK;
    gin[0] = wf_cumsum(g, gout[0], (int)n->attr.i[0], !n->attr.i[1], n->attr.i[2]);
    return gin[0] ? WF_OK : wf_graph_status(g);
}

static void cumsum_cost(const wf_node *n, wf_cost *c) {
    double count = (double)wf_shape_count(&n->shape), size = (double)wf_dtype_size(n->dtype);
    c->flops = count;
    c->bytes_read = c->bytes_written = count * size;
}

static const wf_op cumsum_op = {
    .name = "cumsum", .infer = cumsum_infer, .forward = cumsum_forward, .vjp = cumsum_vjp, .cost = cumsum_cost};

wf_node *wf_cumsum(wf_graph *g, wf_node *x, int axis, bool reverse, bool exclusive) {
    wf_attr a = {.i = {axis, reverse, exclusive}};
    return wf_node_new(g, &cumsum_op, &x, 1, &a);
}
