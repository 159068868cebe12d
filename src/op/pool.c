/* pool.c: mean and maximum over windows of the last 1 or 2 axes, and their derivatives as operators of their own.
 *
 *     pool_mean       x [B,C,..] -> y          adjoint: pool_mean_back  gy -> gx     (both linear: second order is free)
 *     pool_max        x -> y                   adjoint: pool_max_back   (x, gy) -> gx, to the first maximum of each window
 *     pool_max_take   (x, z) -> z at the first maximum of x in each window; the adjoint of pool_max_back in gy
 *
 * Inside everything is 2D. Planes (image, channel) are shared among threads; a plane is one thread's work, in fixed order.
 */
#include "op/op.h"
#include <math.h>
#include <string.h>

enum { A_SIZE = 0, A_STRIDE = 2, A_PAD = 4, A_COUNT_PAD = 6, A_AXES = 7, A_EXTENT = 8 /* x's size, for pool_mean_back */ };
enum { STRIP = 256 };
#define INLINE static inline __attribute__((always_inline))

typedef struct pool_shape {
    int64_t planes, in[2], out[2], size[2], stride[2], pad[2];
    bool count_pad;
} pool_shape;

/* ---- shape rules ---- */

static void extents(const wf_shape *s, const int64_t *a, int64_t out[2]) {
    out[0] = a[A_AXES] == 2 ? s->dim[s->rank - 2] : 1;
    out[1] = s->dim[s->rank - 1];
}

static void set_extents(wf_shape *s, const int64_t *a, const int64_t size[2]) {
    if (a[A_AXES] == 2) s->dim[s->rank - 2] = size[0];
    s->dim[s->rank - 1] = size[1];
}

static pool_shape shape_of(const wf_shape *x, const wf_shape *y, const int64_t *a) {
    pool_shape s = {.planes = 1, .count_pad = a[A_COUNT_PAD] != 0};
    for (int i = 0; i < x->rank - a[A_AXES]; i++) s.planes *= x->dim[i];
    extents(x, a, s.in);
    extents(y, a, s.out);
    memcpy(s.size, a + A_SIZE, sizeof s.size);
    memcpy(s.stride, a + A_STRIDE, sizeof s.stride);
    memcpy(s.pad, a + A_PAD, sizeof s.pad);
    return s;
}

/* y's shape from x = in[0]; a second input of pool_max_take has x's shape. */
static wf_status infer_pool(wf_node *n) {
    const int64_t *a = n->attr.i;
    char text[96];
    int64_t in[2], out[2];
    n->dtype = n->in[0]->dtype;
    n->shape = n->in[0]->shape;
    extents(&n->shape, a, in);
    for (int i = 0; i < 2; i++) {
        int64_t padded = in[i] + 2 * a[A_PAD + i];
        if (padded < a[A_SIZE + i])
            return wf_fail(WF_EINVAL, "%s: a window of %lld is larger than the padded axis of %s", n->op->name,
                           (long long)a[A_SIZE + i], wf_shape_text(&n->shape, text));
        out[i] = (padded - a[A_SIZE + i]) / a[A_STRIDE + i] + 1;
    }
    set_extents(&n->shape, a, out);
    return WF_OK;
}

static wf_status infer_mean_back(wf_node *n) {
    n->dtype = n->in[0]->dtype;
    n->shape = n->in[0]->shape;
    set_extents(&n->shape, n->attr.i, n->attr.i + A_EXTENT);
    return WF_OK;
}

static wf_status infer_max_back(wf_node *n) {
    n->dtype = n->in[0]->dtype;
    n->shape = n->in[0]->shape;
    return WF_OK;
}

/* ---- kernels: float32 or float64, computed in double ---- */

INLINE double get(const void *p, int64_t i, const bool wide) {
    return wide ? ((const double *)p)[i] : (double)((const float *)p)[i];
}
INLINE void put(void *p, int64_t i, double v, const bool wide) {
    if (wide)
        ((double *)p)[i] = v;
    else
        ((float *)p)[i] = (float)v;
}

/* The part of window `o` that lies inside the axis: [*from, *to). */
INLINE void window(const pool_shape *s, int axis, int64_t o, int64_t *from, int64_t *to) {
    int64_t a = o * s->stride[axis] - s->pad[axis], b = a + s->size[axis];
    *from = a < 0 ? 0 : a;
    *to = b > s->in[axis] ? s->in[axis] : b;
}

INLINE double divisor(const pool_shape *s, int64_t rows, int64_t ox) {
    if (s->count_pad) return (double)(s->size[0] * s->size[1]);
    int64_t from, to;
    window(s, 1, ox, &from, &to);
    return (double)(rows * (to - from));
}

/* Column offset k of the windows ox0 .. ox0+n-1: those that lie inside are [*from, *to). */
INLINE void columns(const pool_shape *s, int64_t k, int64_t ox0, int64_t n, int64_t *from, int64_t *to) {
    int64_t st = s->stride[1], shift = s->pad[1] - k; /* ix = ox * st - shift, 0 <= ix < in */
    int64_t a = shift > 0 ? (shift + st - 1) / st : 0, b = s->in[1] + shift;
    b = b <= 0 ? 0 : (b + st - 1) / st;
    *from = a < ox0 ? ox0 : a > ox0 + n ? ox0 + n : a;
    *to = b > ox0 + n ? ox0 + n : b;
}

/* A strip of one row of y: sums or maxima, one row and column of the window after the other. */
INLINE void strip(const pool_shape *s, const void *x, int64_t x0, void *y, int64_t y0, int64_t oy, int64_t ox0, int64_t n,
                  const bool max, const bool wide) {
    double acc[STRIP];
    for (int64_t i = 0; i < n; i++) acc[i] = max ? -INFINITY : 0;
    int64_t top, bottom;
    window(s, 0, oy, &top, &bottom);
    for (int64_t iy = top; iy < bottom; iy++)
        for (int64_t k = 0; k < s->size[1]; k++) {
            int64_t from, to, row = x0 + iy * s->in[1] - s->pad[1] + k;
            columns(s, k, ox0, n, &from, &to);
            for (int64_t ox = from; ox < to; ox++) {
                double v = get(x, row + ox * s->stride[1], wide), m = acc[ox - ox0];
                acc[ox - ox0] = !max ? m + v : v > m || v != v ? v : m;
            }
        }
    for (int64_t i = 0; i < n; i++) {
        double v = max ? acc[i] : acc[i] / divisor(s, bottom - top, ox0 + i);
        put(y, y0 + oy * s->out[1] + ox0 + i, v, wide);
    }
}

INLINE void pool_plane(const pool_shape *s, int64_t plane, const void *x, void *y, const bool max, const bool wide) {
    int64_t x0 = plane * s->in[0] * s->in[1], y0 = plane * s->out[0] * s->out[1];
    for (int64_t oy = 0; oy < s->out[0]; oy++)
        for (int64_t ox = 0; ox < s->out[1]; ox += STRIP)
            strip(s, x, x0, y, y0, oy, ox, s->out[1] - ox < STRIP ? s->out[1] - ox : STRIP, max, wide);
}

INLINE void mean_back_plane(const pool_shape *s, int64_t plane, const void *gy, void *gx, const bool wide) {
    int64_t x0 = plane * s->in[0] * s->in[1], y0 = plane * s->out[0] * s->out[1];
    for (int64_t i = 0; i < s->in[0] * s->in[1]; i++) put(gx, x0 + i, 0, wide);
    for (int64_t oy = 0; oy < s->out[0]; oy++)
        for (int64_t ox = 0; ox < s->out[1]; ox++) {
            int64_t top, bottom, left, right;
            window(s, 0, oy, &top, &bottom);
            window(s, 1, ox, &left, &right);
            double g = get(gy, y0 + oy * s->out[1] + ox, wide) / divisor(s, bottom - top, ox);
            for (int64_t iy = top; iy < bottom; iy++)
                for (int64_t ix = left; ix < right; ix++)
                    put(gx, x0 + iy * s->in[1] + ix, get(gx, x0 + iy * s->in[1] + ix, wide) + g, wide);
        }
}

/* Where the first maximum (or the first NaN) of a window lies. */
INLINE int64_t first_maximum(const pool_shape *s, const void *x, int64_t x0, int64_t oy, int64_t ox, const bool wide) {
    int64_t top, bottom, left, right;
    window(s, 0, oy, &top, &bottom);
    window(s, 1, ox, &left, &right);
    int64_t at = x0 + top * s->in[1] + left;
    double m = get(x, at, wide);
    for (int64_t iy = top; iy < bottom; iy++)
        for (int64_t ix = left; ix < right; ix++) {
            double v = get(x, x0 + iy * s->in[1] + ix, wide);
            if (v > m || (v != v && m == m)) m = v, at = x0 + iy * s->in[1] + ix;
        }
    return at;
}

/* back: gx = gy added at the maxima of x; else y = z at the maxima of x. */
INLINE void max_plane(const pool_shape *s, int64_t plane, const void *x, const void *from, void *to, const bool back,
                      const bool wide) {
    int64_t x0 = plane * s->in[0] * s->in[1], y0 = plane * s->out[0] * s->out[1];
    if (back)
        for (int64_t i = 0; i < s->in[0] * s->in[1]; i++) put(to, x0 + i, 0, wide);
    for (int64_t oy = 0; oy < s->out[0]; oy++)
        for (int64_t ox = 0; ox < s->out[1]; ox++) {
            int64_t at = first_maximum(s, x, x0, oy, ox, wide), o = y0 + oy * s->out[1] + ox;
            if (back)
                put(to, at, get(to, at, wide) + get(from, o, wide), wide);
            else
                put(to, o, get(from, at, wide), wide);
        }
}

#define PLANES(call)                                                                                                           \
    do {                                                                                                                       \
        bool wide = c->node->dtype == WF_F64;                                                                                  \
        _Pragma("omp parallel for schedule(static) num_threads(wf_threads())") for (int64_t p = 0; p < s.planes; p++) {        \
            if (wide) {                                                                                                        \
                const bool w = true;                                                                                           \
                call;                                                                                                          \
            } else {                                                                                                           \
                const bool w = false;                                                                                          \
                call;                                                                                                          \
            }                                                                                                                  \
        }                                                                                                                      \
    } while (0)

static wf_status run_mean(const wf_call *c) {
    pool_shape s = shape_of(&c->node->in[0]->shape, &c->node->shape, c->node->attr.i);
    PLANES(pool_plane(&s, p, c->in[0], c->out[0], false, w));
    return WF_OK;
}

static wf_status run_max(const wf_call *c) {
    pool_shape s = shape_of(&c->node->in[0]->shape, &c->node->shape, c->node->attr.i);
    PLANES(pool_plane(&s, p, c->in[0], c->out[0], true, w));
    return WF_OK;
}

static wf_status run_mean_back(const wf_call *c) {
    pool_shape s = shape_of(&c->node->shape, &c->node->in[0]->shape, c->node->attr.i);
    PLANES(mean_back_plane(&s, p, c->in[0], c->out[0], w));
    return WF_OK;
}

static wf_status run_max_back(const wf_call *c) {
    pool_shape s = shape_of(&c->node->shape, &c->node->in[1]->shape, c->node->attr.i);
    PLANES(max_plane(&s, p, c->in[0], c->in[1], c->out[0], true, w));
    return WF_OK;
}

static wf_status run_max_take(const wf_call *c) {
    pool_shape s = shape_of(&c->node->in[0]->shape, &c->node->shape, c->node->attr.i);
    PLANES(max_plane(&s, p, c->in[0], c->in[1], c->out[0], false, w));
    return WF_OK;
}

/* One addition or comparison an element of each window. */
static void cost(const wf_node *n, wf_cost *c) {
    const int64_t *a = n->attr.i;
    double small = (double)wf_shape_count(&n->shape);
    for (int i = 0; i < n->n_in; i++)
        if ((double)wf_shape_count(&n->in[i]->shape) < small) small = (double)wf_shape_count(&n->in[i]->shape);
    c->flops = small * (double)(a[A_SIZE] * a[A_SIZE + 1]);
    c->bytes_read = 0;
    for (int i = 0; i < n->n_in; i++)
        c->bytes_read += (double)wf_shape_count(&n->in[i]->shape) * (double)wf_dtype_size(n->dtype);
    c->bytes_written = (double)wf_shape_count(&n->shape) * (double)wf_dtype_size(n->dtype);
}

/* ---- operators ---- */

static const wf_op mean_op, mean_back_op, max_op, max_back_op, max_take_op;

static wf_status mean_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    wf_attr attr = n->attr;
    extents(&n->in[0]->shape, attr.i, attr.i + A_EXTENT);
    if (gout[0]) gin[0] = wf_node_new(g, &mean_back_op, gout, 1, &attr);
    return wf_graph_status(g);
}

static wf_status mean_back_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    wf_attr attr = n->attr;
    attr.i[A_EXTENT] = attr.i[A_EXTENT + 1] = 0;
    if (gout[0]) gin[0] = wf_node_new(g, &mean_op, gout, 1, &attr);
    return wf_graph_status(g);
}

static wf_status max_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    wf_node *in[2] = {n->in[0], gout[0]};
    if (gout[0]) gin[0] = wf_node_new(g, &max_back_op, in, 2, &n->attr);
    return wf_graph_status(g);
}

/* Which element is the maximum does not change with x: no gradient flows into x. */
static wf_status max_back_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    wf_node *in[2] = {n->in[0], gout[0]};
    if (gout[0]) gin[1] = wf_node_new(g, &max_take_op, in, 2, &n->attr);
    return wf_graph_status(g);
}

static wf_status max_take_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    wf_node *in[2] = {n->in[0], gout[0]};
    if (gout[0]) gin[1] = wf_node_new(g, &max_back_op, in, 2, &n->attr);
    return wf_graph_status(g);
}

static const wf_op mean_op = {.name = "pool_mean", .infer = infer_pool, .forward = run_mean, .vjp = mean_vjp, .cost = cost};
static const wf_op mean_back_op = {
    .name = "pool_mean_back", .infer = infer_mean_back, .forward = run_mean_back, .vjp = mean_back_vjp, .cost = cost};
static const wf_op max_op = {.name = "pool_max", .infer = infer_pool, .forward = run_max, .vjp = max_vjp, .cost = cost};
static const wf_op max_back_op = {
    .name = "pool_max_back", .infer = infer_max_back, .forward = run_max_back, .vjp = max_back_vjp, .cost = cost};
static const wf_op max_take_op = {
    .name = "pool_max_take", .infer = infer_pool, .forward = run_max_take, .vjp = max_take_vjp, .cost = cost};

wf_node *wf_pool(wf_graph *g, wf_node *x, const wf_pool_spec *s) {
    if (!x) return NULL;
    char text[96];
    if ((s->axes != 1 && s->axes != 2) || x->shape.rank < s->axes + 1)
        return wf_graph_fail(g, WF_EINVAL, "pool: %d axes of %s; axes must be 1 or 2 and leave at least one more", s->axes,
                             wf_shape_text(&x->shape, text));
    if (!wf_is_float(x->dtype))
        return wf_graph_fail(g, WF_EINVAL, "pool: input is %s, must be floating", wf_dtype_name(x->dtype));
    wf_attr attr = {.i = {1, 1, 1, 1, 0, 0, !s->max && s->count_pad, s->axes}};
    for (int i = 0; i < s->axes; i++) {
        int to = i + 2 - s->axes;
        int64_t size = s->size[i], stride = s->stride[i] ? s->stride[i] : 1, pad = s->pad[i];
        if (size < 1 || stride < 1 || pad < 0 || pad >= size || size > 1 << 20 || stride > 1 << 20)
            return wf_graph_fail(
                g, WF_EINVAL,
                "pool: window %lld, stride %lld, padding %lld: window and stride must be 1 to 2^20 and padding "
                "smaller than the window",
                (long long)size, (long long)stride, (long long)pad);
        attr.i[A_SIZE + to] = size, attr.i[A_STRIDE + to] = stride, attr.i[A_PAD + to] = pad;
    }
    wf_dtype t = x->dtype;
    wf_node *in = t == WF_BF16 ? wf_cast(g, x, WF_F32) : x;
    wf_node *y = wf_node_new(g, s->max ? &max_op : &mean_op, &in, 1, &attr);
    return t == WF_BF16 ? wf_cast(g, y, t) : y;
}
