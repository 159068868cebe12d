/* conv.c: convolution over 1 or 2 axes and its two derivatives, each an operator of its own: all three are linear in each of
 * their inputs, so the derivative of any of them is again built of them.
 *
 *     conv          x [B,C,..], w [O,C/groups,..] (, bias [O])  ->  y [B,O,..]
 *     conv_data     gy [B,O,..], w                              ->  gx [B,C,..]
 *     conv_weights  x, gy                                       ->  gw [O,C/groups,..]
 *
 * Inside everything is 2D; a 1D convolution has height 1. float32 runs in oneDNN (dnn.h) in chunks of images that depend on B
 * alone, each in one thread; weight gradients of the chunks are added in order. float64 (checking) runs in plain loops.
 */
#include "op/op.h"
#include "op/dnn.h"
#include <omp.h>
#include <stdatomic.h>
#include <string.h>

/* attr.i: how the window moves (2D form), groups, and what the output's shape rule cannot see */
enum { A_STRIDE = 0, A_BEFORE = 2, A_AFTER = 4, A_DILATION = 6, A_GROUPS = 8, A_EXTENT = 9 /* input size or kernel size */ };
enum { CHUNKS = 16, PARTS = 8 };

typedef wf_dnn_conv_shape conv_shape;

static int64_t result_size(int64_t size, int64_t kernel, const int64_t *a, int axis) {
    int64_t reach = (kernel - 1) * a[A_DILATION + axis] + 1, padded = size + a[A_BEFORE + axis] + a[A_AFTER + axis];
    return padded < reach ? 0 : (padded - reach) / a[A_STRIDE + axis] + 1;
}

/* Extents of the moving axes in 2D form. */
static void extents(const wf_shape *s, int64_t out[2]) {
    out[0] = s->rank == 4 ? s->dim[2] : 1;
    out[1] = s->dim[s->rank - 1];
}

/* The convolution that relates x, w and y of these shapes. */
static conv_shape shape_of(const wf_shape *x, const wf_shape *w, const wf_shape *y, const int64_t *a) {
    conv_shape s = {.batch = x->dim[0], .groups = a[A_GROUPS], .in = x->dim[1], .out = y->dim[1]};
    extents(x, s.size);
    extents(w, s.kernel);
    extents(y, s.result);
    memcpy(s.stride, a + A_STRIDE, sizeof s.stride);
    memcpy(s.before, a + A_BEFORE, sizeof s.before);
    memcpy(s.after, a + A_AFTER, sizeof s.after);
    memcpy(s.dilation, a + A_DILATION, sizeof s.dilation);
    return s;
}

static wf_shape image(int rank, int64_t batch, int64_t channels, const int64_t size[2]) {
    if (rank == 3) return WF_SHAPE(batch, channels, size[1]);
    return WF_SHAPE(batch, channels, size[0], size[1]);
}

/* ---- shape rules ---- */

static wf_status disagree(const wf_node *n, const char *why) {
    char a[96], b[96];
    return wf_fail(WF_EINVAL, "%s: %s and %s: %s", n->op->name, wf_shape_text(&n->in[0]->shape, a),
                   wf_shape_text(&n->in[1]->shape, b), why);
}

static wf_status infer_type(wf_node *n) {
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i]->dtype != n->in[0]->dtype || (n->in[0]->dtype != WF_F32 && n->in[0]->dtype != WF_F64))
            return disagree(n, "the operands must all be float32 or all float64");
    n->dtype = n->in[0]->dtype;
    return WF_OK;
}

static wf_status infer_conv(wf_node *n) {
    const wf_shape *x = &n->in[0]->shape, *w = &n->in[1]->shape;
    const int64_t *a = n->attr.i;
    WF_TRY(infer_type(n));
    if (w->rank != x->rank) return disagree(n, "input and weight must have the same number of axes");
    if (w->dim[1] * a[A_GROUPS] != x->dim[1] || w->dim[0] % a[A_GROUPS])
        return disagree(n, "the weight must be [O, C/groups, ..] for an input [B, C, ..], and groups must divide C and O");
    int64_t size[2], kernel[2], result[2];
    extents(x, size);
    extents(w, kernel);
    for (int i = 0; i < 2; i++) result[i] = result_size(size[i], kernel[i], a, i);
    if (kernel[0] < 1 || kernel[1] < 1 || result[0] < 1 || result[1] < 1)
        return disagree(n, "the kernel, with its dilation, is larger than the padded input");
    if (n->n_in == 3 && (n->in[2]->shape.rank != 1 || n->in[2]->shape.dim[0] != w->dim[0]))
        return disagree(n, "the bias must be [O]");
    n->shape = image(x->rank, x->dim[0], w->dim[0], result);
    return WF_OK;
}

static wf_status infer_data(wf_node *n) {
    const wf_shape *gy = &n->in[0]->shape, *w = &n->in[1]->shape;
    WF_TRY(infer_type(n));
    n->shape = image(gy->rank, gy->dim[0], w->dim[1] * n->attr.i[A_GROUPS], n->attr.i + A_EXTENT);
    return WF_OK;
}

static wf_status infer_weights(wf_node *n) {
    const wf_shape *x = &n->in[0]->shape, *gy = &n->in[1]->shape;
    WF_TRY(infer_type(n));
    n->shape = image(x->rank, gy->dim[1], x->dim[1] / n->attr.i[A_GROUPS], n->attr.i + A_EXTENT);
    return WF_OK;
}

static conv_shape shape_of_node(const wf_node *n, wf_dnn_conv_kind kind) {
    const wf_shape *p = &n->in[0]->shape, *q = &n->in[1]->shape, *out = &n->shape;
    if (kind == WF_DNN_CONV_FORWARD) return shape_of(p, q, out, n->attr.i);
    if (kind == WF_DNN_CONV_DATA) return shape_of(out, q, p, n->attr.i);
    return shape_of(p, out, q, n->attr.i);
}

/* ---- float64 ---- */

/* One plane of x, one of y and one kernel: the three sums differ only in which of the three is the result. */
static void plane64(wf_dnn_conv_kind kind, const conv_shape *s, double *x, double *w, double *y) {
    for (int64_t ky = 0; ky < s->kernel[0]; ky++)
        for (int64_t kx = 0; kx < s->kernel[1]; kx++) {
            double *wk = w + ky * s->kernel[1] + kx;
            for (int64_t oy = 0; oy < s->result[0]; oy++) {
                int64_t iy = oy * s->stride[0] - s->before[0] + ky * s->dilation[0];
                if (iy < 0 || iy >= s->size[0]) continue;
                for (int64_t ox = 0; ox < s->result[1]; ox++) {
                    int64_t ix = ox * s->stride[1] - s->before[1] + kx * s->dilation[1];
                    if (ix < 0 || ix >= s->size[1]) continue;
                    double *xi = x + iy * s->size[1] + ix, *yi = y + oy * s->result[1] + ox;
                    if (kind == WF_DNN_CONV_FORWARD)
                        *yi += *xi * *wk;
                    else if (kind == WF_DNN_CONV_DATA)
                        *xi += *yi * *wk;
                    else
                        *wk += *xi * *yi;
                }
            }
        }
}

/* x, w, y with the result among them already set to its start value. */
static void run64(wf_dnn_conv_kind kind, const conv_shape *s, double *x, double *w, double *y) {
    int64_t xs = s->size[0] * s->size[1], ws = s->kernel[0] * s->kernel[1], ys = s->result[0] * s->result[1];
    int64_t c_group = s->in / s->groups, o_group = s->out / s->groups;
    int64_t outer = kind == WF_DNN_CONV_FORWARD ? s->batch * s->out
                    : kind == WF_DNN_CONV_DATA  ? s->batch * s->in
                                                : s->out * c_group;
    int64_t inner = kind == WF_DNN_CONV_FORWARD ? c_group : kind == WF_DNN_CONV_DATA ? o_group : s->batch;
#pragma omp parallel for schedule(static) num_threads(wf_threads())
    for (int64_t i = 0; i < outer; i++)
        for (int64_t j = 0; j < inner; j++) {
            int64_t b, o, c; /* image, output channel, input channel within the group */
            if (kind == WF_DNN_CONV_FORWARD)
                b = i / s->out, o = i % s->out, c = j;
            else if (kind == WF_DNN_CONV_DATA)
                b = i / s->in, c = i % s->in % c_group, o = i % s->in / c_group * o_group + j;
            else
                b = j, o = i / c_group, c = i % c_group;
            int64_t channel = o / o_group * c_group + c;
            plane64(kind, s, x + (b * s->in + channel) * xs, w + (o * c_group + c) * ws, y + (b * s->out + o) * ys);
        }
}

static void forward64(wf_dnn_conv_kind kind, const conv_shape *s, const wf_call *c) {
    double *p = c->in[0], *q = c->in[1], *out = c->out[0];
    int64_t ys = s->result[0] * s->result[1], n = wf_shape_count(&c->node->shape);
    if (kind == WF_DNN_CONV_FORWARD && c->node->n_in == 3)
        for (int64_t i = 0; i < n; i++) out[i] = ((const double *)c->in[2])[i / ys % s->out];
    else
        memset(out, 0, (size_t)n * sizeof *out);
    if (kind == WF_DNN_CONV_FORWARD)
        run64(kind, s, p, q, out);
    else if (kind == WF_DNN_CONV_DATA)
        run64(kind, s, out, q, p);
    else
        run64(kind, s, p, out, q);
}

/* ---- float32 ---- */

typedef struct conv_state {
    wf_dnn_conv_kind kind;
    conv_shape shape;
    int threads;
    int64_t chunk, chunks; /* images in a chunk; the last may have fewer */
    wf_dnn *full, *last;
    size_t work, part; /* one thread's work memory; one chunk's weight gradient (0 when there is one chunk) */
} conv_state;

static size_t round64(size_t n) {
    return (n + 63) & ~(size_t)63;
}

static void drop(void *state) {
    conv_state *s = state;
    if (!s) return;
    if (s->last != s->full) wf_dnn_free(s->last);
    wf_dnn_free(s->full);
    wf_free(s);
}

static conv_state *make(const wf_node *n, wf_dnn_conv_kind kind) {
    conv_state *s = wf_alloc(sizeof *s);
    if (!s) return NULL;
    s->kind = kind;
    s->shape = shape_of_node(n, kind);
    s->threads = wf_threads();
    if (n->dtype == WF_F64 || s->shape.batch == 0) return s;
    int64_t most = kind == WF_DNN_CONV_WEIGHTS ? PARTS : CHUNKS;
    s->chunk = (s->shape.batch + most - 1) / most;
    s->chunks = (s->shape.batch + s->chunk - 1) / s->chunk;
    conv_shape one = s->shape;
    one.batch = s->chunk;
    s->full = wf_dnn_conv(kind, &one, n->n_in == 3);
    one.batch = s->shape.batch - (s->chunks - 1) * s->chunk;
    s->last = s->full && one.batch != s->chunk ? wf_dnn_conv(kind, &one, n->n_in == 3) : s->full;
    if (!s->full || !s->last) {
        drop(s);
        return NULL;
    }
    size_t a = wf_dnn_work(s->full), b = wf_dnn_work(s->last);
    s->work = round64(a > b ? a : b);
    if (kind == WF_DNN_CONV_WEIGHTS && s->chunks > 1) s->part = round64((size_t)wf_shape_count(&n->shape) * sizeof(float));
    return s;
}

static size_t scratch_of(const wf_node *n, wf_dnn_conv_kind kind) {
    conv_state *s = make(n, kind);
    size_t bytes = s ? (size_t)s->threads * s->work + (size_t)s->chunks * s->part : 0;
    drop(s);
    return bytes;
}

static wf_status run_chunk(const conv_state *s, const wf_call *c, int64_t i, void *work, char *parts) {
    const conv_shape *sh = &s->shape;
    int64_t x = i * s->chunk * sh->in * sh->size[0] * sh->size[1], y = i * s->chunk * sh->out * sh->result[0] * sh->result[1];
    float *p = c->in[0], *q = c->in[1], *out = c->out[0];
    void *args[4] = {p + x, q, out + y, c->node->n_in == 3 ? c->in[2] : NULL};
    if (s->kind == WF_DNN_CONV_DATA) args[0] = p + y, args[2] = out + x;
    if (s->kind == WF_DNN_CONV_WEIGHTS)
        args[1] = q + y, args[2] = s->part ? (void *)(parts + (size_t)i * s->part) : (void *)out;
    return wf_dnn_run(i == s->chunks - 1 ? s->last : s->full, args, work);
}

static void add_parts(const conv_state *s, const char *parts, float *out, int64_t n) {
    for (int64_t j = 0; j < n; j++) {
        float sum = 0;
        for (int64_t i = 0; i < s->chunks; i++) sum += ((const float *)(parts + (size_t)i * s->part))[j];
        out[j] = sum;
    }
}

static wf_status run(const wf_call *c) {
    const conv_state *s = c->state;
    int64_t n = wf_shape_count(&c->node->shape);
    if (s->shape.batch == 0) {
        memset(c->out[0], 0, (size_t)n * wf_dtype_size(c->node->dtype));
        return WF_OK;
    }
    if (c->node->dtype == WF_F64) {
        forward64(s->kind, &s->shape, c);
        return WF_OK;
    }
    char *parts = (char *)c->scratch + (size_t)s->threads * s->work;
    atomic_int failed = WF_OK;
    int threads = wf_threads() < s->threads ? wf_threads() : s->threads;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < s->chunks; i++) {
        void *work = s->work ? (char *)c->scratch + (size_t)omp_get_thread_num() * s->work : NULL;
        wf_status status = run_chunk(s, c, i, work, parts);
        if (status != WF_OK) atomic_store(&failed, (int)status);
    }
    if (s->part) add_parts(s, parts, c->out[0], n);
    wf_status status = (wf_status)atomic_load(&failed);
    return status == WF_OK ? status : wf_fail(status, "%s: oneDNN failed", c->node->op->name);
}

/* ---- operators ---- */

static const wf_op conv_op, conv_data_op, conv_weights_op;

static void cost_of(const wf_node *n, wf_cost *c, wf_dnn_conv_kind kind) {
    conv_shape s = shape_of_node(n, kind);
    double y = (double)(s.batch * s.out * s.result[0] * s.result[1]);
    c->flops = 2 * y * (double)(s.in / s.groups * s.kernel[0] * s.kernel[1]) + (n->n_in == 3 ? y : 0);
    c->bytes_read = 0;
    for (int i = 0; i < n->n_in; i++)
        c->bytes_read += (double)wf_shape_count(&n->in[i]->shape) * (double)wf_dtype_size(n->dtype);
    c->bytes_written = (double)wf_shape_count(&n->shape) * (double)wf_dtype_size(n->dtype);
}

static wf_node *derived(wf_graph *g, const wf_op *op, wf_node *p, wf_node *q, const wf_node *like, const wf_shape *extent) {
    wf_attr attr = like->attr;
    attr.i[A_EXTENT] = attr.i[A_EXTENT + 1] = 0;
    if (extent) extents(extent, attr.i + A_EXTENT);
    wf_node *in[2] = {p, q};
    return wf_node_new(g, op, in, 2, &attr);
}

static wf_status conv_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    wf_node *x = n->in[0], *w = n->in[1], *gy = gout[0];
    if (!gy) return WF_OK;
    gin[0] = derived(g, &conv_data_op, gy, w, n, &x->shape);
    gin[1] = derived(g, &conv_weights_op, x, gy, n, &w->shape);
    if (n->n_in == 3) gin[2] = wf_sum(g, gy, n->shape.rank == 4 ? 13u : 5u, false); /* all axes but the channels */
    return wf_graph_status(g);
}

static wf_status data_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    wf_node *gy = n->in[0], *w = n->in[1], *u = gout[0];
    if (!u) return WF_OK;
    gin[0] = derived(g, &conv_op, u, w, n, NULL);
    gin[1] = derived(g, &conv_weights_op, u, gy, n, &w->shape);
    return wf_graph_status(g);
}

static wf_status weights_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    wf_node *x = n->in[0], *gy = n->in[1], *u = gout[0];
    if (!u) return WF_OK;
    gin[0] = derived(g, &conv_data_op, gy, u, n, &x->shape);
    gin[1] = derived(g, &conv_op, x, u, n, NULL);
    return wf_graph_status(g);
}

#define CONV_FUNCTIONS(prefix, kind)                                                                                           \
    static size_t prefix##_scratch(const wf_node *n) {                                                                         \
        return scratch_of(n, kind);                                                                                            \
    }                                                                                                                          \
    static void prefix##_cost(const wf_node *n, wf_cost *c) {                                                                  \
        cost_of(n, c, kind);                                                                                                   \
    }                                                                                                                          \
    static wf_status prefix##_prepare(wf_node *n, void **state) {                                                              \
        *state = make(n, kind);                                                                                                \
        return *state ? WF_OK : wf_fail_within(WF_EUNSUPPORTED, "%s", n->op->name);                                            \
    }
CONV_FUNCTIONS(conv, WF_DNN_CONV_FORWARD)
CONV_FUNCTIONS(data, WF_DNN_CONV_DATA)
CONV_FUNCTIONS(weights, WF_DNN_CONV_WEIGHTS)

static const wf_op conv_op = {.name = "conv",
                              .infer = infer_conv,
                              .forward = run,
                              .vjp = conv_vjp,
                              .cost = conv_cost,
                              .scratch = conv_scratch,
                              .prepare = conv_prepare,
                              .release = drop};
static const wf_op conv_data_op = {.name = "conv_data",
                                   .infer = infer_data,
                                   .forward = run,
                                   .vjp = data_vjp,
                                   .cost = data_cost,
                                   .scratch = data_scratch,
                                   .prepare = data_prepare,
                                   .release = drop};
static const wf_op conv_weights_op = {.name = "conv_weights",
                                      .infer = infer_weights,
                                      .forward = run,
                                      .vjp = weights_vjp,
                                      .cost = weights_cost,
                                      .scratch = weights_scratch,
                                      .prepare = weights_prepare,
                                      .release = drop};

/* ---- builders ---- */

static bool spec_to_attr(wf_graph *g, const wf_conv_spec *s, int axes, int64_t *a) {
    static const wf_conv_spec plain;
    if (!s) s = &plain;
    a[A_STRIDE] = a[A_STRIDE + 1] = a[A_DILATION] = a[A_DILATION + 1] = 1;
    for (int i = 0; i < axes; i++) {
        int to = i + 2 - axes;
        a[A_STRIDE + to] = s->stride[i] ? s->stride[i] : 1;
        a[A_DILATION + to] = s->dilation[i] ? s->dilation[i] : 1;
        a[A_BEFORE + to] = s->pad_before[i];
        a[A_AFTER + to] = s->pad_after[i];
    }
    a[A_GROUPS] = s->groups ? s->groups : 1;
    for (int i = 0; i < 9; i++) {
        bool pad = i >= A_BEFORE && i < A_DILATION;
        if (a[i] < (pad ? 0 : 1) || a[i] > 1 << 20) {
            wf_graph_fail(g, WF_EINVAL,
                          "conv%dd: stride, dilation and groups must be positive, padding not negative, none above 2^20", axes);
            return false;
        }
    }
    return true;
}

static wf_node *build(wf_graph *g, wf_node *x, wf_node *w, wf_node *bias, const wf_conv_spec *spec, int axes) {
    if (!x || !w) return NULL;
    wf_attr attr = {.i = {0}};
    if (!spec_to_attr(g, spec, axes, attr.i)) return NULL;
    char s[96];
    if (x->shape.rank != axes + 2)
        return wf_graph_fail(g, WF_EINVAL, "conv%dd: input is %s, must have %d axes", axes, wf_shape_text(&x->shape, s),
                             axes + 2);
    if (!wf_is_float(x->dtype) || !wf_is_float(w->dtype) || (bias && !wf_is_float(bias->dtype)))
        return wf_graph_fail(g, WF_EINVAL, "conv%dd: input is %s and weight %s; both must be floating", axes,
                             wf_dtype_name(x->dtype), wf_dtype_name(w->dtype));
    wf_dtype result = x->dtype, t = x->dtype == WF_F64 ? WF_F64 : WF_F32; /* bfloat16 is computed in float32 */
    wf_node *in[3] = {wf_cast(g, x, t), wf_cast(g, w, t), bias ? wf_cast(g, bias, t) : NULL};
    wf_node *y = wf_node_new(g, &conv_op, in, bias ? 3 : 2, &attr);
    return result == t ? y : wf_cast(g, y, result);
}

wf_node *wf_conv1d(wf_graph *g, wf_node *x, wf_node *w, wf_node *bias, const wf_conv_spec *s) {
    return build(g, x, w, bias, s, 1);
}
wf_node *wf_conv2d(wf_graph *g, wf_node *x, wf_node *w, wf_node *bias, const wf_conv_spec *s) {
    return build(g, x, w, bias, s, 2);
}
