/* depthwise.c: depthwise convolution of pictures whose channels lie side by side, [B,Y,X,C]: a kernel for each channel, or one
 * shared by several groups of channels (heads).
 *
 *     y[b,p,q,j] = sum_{dy,dx} w[dy,dx,j mod c] x[b, p + dy - ky/2, q + dx - kx/2, j], zeros outside
 *
 * The derivative by x is the same with the kernel turned round; that by w is an operator of its own, whose derivatives are the
 * first again: both are linear in each operand. conv.c (oneDNN) has all other convolutions.
 */
#include "op/depthwise.h"
#include "op/move.h"
#include "op/op.h"
#include "op/simd.h"

#define KERNELS(isa) extern const wf_depthwise_kernel wf_depthwise_kernel_f32_##isa, wf_depthwise_kernel_f64_##isa;
KERNELS(generic)
#if defined(__x86_64__)
KERNELS(avx2)
KERNELS(avx512)
#endif

static const wf_depthwise_kernel *kernel_for(wf_dtype t) {
    bool f64 = t == WF_F64;
#if defined(__x86_64__)
    if (wf_isa() >= WF_ISA_AVX512) return f64 ? &wf_depthwise_kernel_f64_avx512 : &wf_depthwise_kernel_f32_avx512;
    if (wf_isa() >= WF_ISA_AVX2) return f64 ? &wf_depthwise_kernel_f64_avx2 : &wf_depthwise_kernel_f32_avx2;
#endif
    return f64 ? &wf_depthwise_kernel_f64_generic : &wf_depthwise_kernel_f32_generic;
}

static wf_node *apply(wf_graph *g, wf_node *x, wf_node *w);
static wf_node *kernel_gradient(wf_graph *g, wf_node *x, wf_node *gy, const int64_t *kernel);

static wf_depthwise task_of(const wf_shape *x, const int64_t *kernel) {
    return (wf_depthwise){
        .B = x->dim[0], .Y = x->dim[1], .X = x->dim[2], .C = x->dim[3], .ky = kernel[0], .kx = kernel[1], .c = kernel[2]};
}

static void cost(const wf_node *n, wf_cost *c) {
    const wf_shape *x = &n->in[0]->shape, *w = n->attr.i[0] ? NULL : &n->in[1]->shape;
    const int64_t *k = w ? w->dim : n->attr.i;
    double size = (double)wf_dtype_size(n->dtype);
    c->flops = 2 * (double)wf_shape_count(x) * (double)(k[0] * k[1]);
    c->bytes_read = size * (double)(wf_shape_count(x) + wf_shape_count(&n->in[1]->shape));
    c->bytes_written = size * (double)wf_shape_count(&n->shape);
}

/* ---- y of x, w ---- */
static wf_status infer(wf_node *n) {
    n->dtype = n->in[0]->dtype;
    n->shape = n->in[0]->shape;
    return WF_OK;
}

static wf_status forward(const wf_call *c) {
    wf_depthwise t = task_of(&c->node->shape, c->node->in[1]->shape.dim);
    const wf_depthwise_kernel *k = kernel_for(c->node->dtype);
    t.x = c->in[0], t.w = c->in[1], t.y = c->out[0];
    int workers = wf_workers((double)wf_shape_count(&c->node->shape) * (double)(t.ky * t.kx));
#pragma omp parallel for schedule(static) num_threads(workers) if (workers > 1)
    for (int64_t i = 0; i < t.B * t.Y; i++) k->row(&t, i / t.Y, i % t.Y);
    return WF_OK;
}

static wf_status vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    if (!gout[0]) return WF_OK;
    gin[0] = apply(g, gout[0], wf_flip(g, wf_flip(g, n->in[1], 0), 1));
    gin[1] = kernel_gradient(g, n->in[0], gout[0], n->in[1]->shape.dim);
    return wf_graph_status(g);
}

/* ---- dw of x, gy: attr.i = the kernel's shape ---- */
static wf_status infer_kernel(wf_node *n) {
    n->dtype = n->in[0]->dtype;
    n->shape = WF_SHAPE(n->attr.i[0], n->attr.i[1], n->attr.i[2]);
    return WF_OK;
}

/* Rows in at most 16 segments, whatever the number of threads; their sums, in double, are added up in order. */
enum { SEGMENTS = 16 };

static int64_t segments_of(const wf_shape *x) {
    int64_t rows = x->dim[0] * x->dim[1];
    return rows < SEGMENTS ? rows : SEGMENTS;
}

static size_t scratch_kernel(const wf_node *n) {
    return (size_t)(segments_of(&n->in[0]->shape) * wf_shape_count(&n->shape)) * sizeof(double);
}

static wf_status forward_kernel(const wf_call *c) {
    const wf_node *n = c->node;
    wf_depthwise t = task_of(&n->in[0]->shape, n->attr.i);
    const wf_depthwise_kernel *k = kernel_for(n->dtype);
    t.x = c->in[0], t.gy = c->in[1];
    int64_t rows = t.B * t.Y, segments = segments_of(&n->in[0]->shape), size = wf_shape_count(&n->shape);
    double *sum = c->scratch;
    int workers = wf_workers((double)wf_shape_count(&n->in[0]->shape) * (double)(t.ky * t.kx));
#pragma omp parallel for schedule(static) num_threads(workers) if (workers > 1)
    for (int64_t s = 0; s < segments; s++) {
        double *mine = sum + s * size;
        for (int64_t i = 0; i < size; i++) mine[i] = 0;
        for (int64_t i = rows * s / segments; i < rows * (s + 1) / segments; i++) k->gradient(&t, i / t.Y, i % t.Y, mine);
    }
    for (int64_t i = 0; i < size; i++) {
        double all = 0;
        for (int64_t s = 0; s < segments; s++) all += sum[s * size + i];
        if (n->dtype == WF_F64)
            ((double *)c->out[0])[i] = all;
        else
            ((float *)c->out[0])[i] = (float)all;
    }
    return WF_OK;
}

static wf_status vjp_kernel(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    if (!gout[0]) return WF_OK;
    gin[0] = apply(g, n->in[1], wf_flip(g, wf_flip(g, gout[0], 0), 1));
    gin[1] = apply(g, n->in[0], gout[0]);
    return wf_graph_status(g);
}

static const wf_op op = {.name = "depthwise", .infer = infer, .forward = forward, .vjp = vjp, .cost = cost};
static const wf_op kernel_op = {.name = "depthwise_kernel",
                                .infer = infer_kernel,
                                .forward = forward_kernel,
                                .vjp = vjp_kernel,
                                .cost = cost,
                                .scratch = scratch_kernel};

static wf_node *apply(wf_graph *g, wf_node *x, wf_node *w) {
    return wf_node_new(g, &op, (wf_node *[]){x, w ? wf_cast(g, w, x ? x->dtype : WF_F32) : NULL}, 2, NULL);
}

static wf_node *kernel_gradient(wf_graph *g, wf_node *x, wf_node *gy, const int64_t *kernel) {
    wf_attr a = {.i = {kernel[0], kernel[1], kernel[2]}};
    return wf_node_new(g, &kernel_op, (wf_node *[]){x, gy}, 2, &a);
}

wf_node *wf_depthwise_conv(wf_graph *g, wf_node *x, wf_node *w) {
    char a[96], b[96];
    if (!x || !w) return NULL;
    const int64_t *k = w->shape.dim;
    bool ok = x->shape.rank == 4 && w->shape.rank == 3 && (x->dtype == WF_F32 || x->dtype == WF_F64) && wf_is_float(w->dtype);
    ok = ok && k[0] % 2 == 1 && k[1] % 2 == 1 && k[0] <= WF_DEPTHWISE_MOST && k[1] <= WF_DEPTHWISE_MOST && k[2] > 0;
    if (!ok || x->shape.dim[3] % k[2])
        return wf_graph_fail(
            g, WF_EINVAL,
            "depthwise: x %s, w %s; float32 or float64 [B,Y,X,C] and [ky,kx,c] with odd ky, kx up to %d and c a "
            "divisor of C expected",
            wf_shape_text(&x->shape, a), wf_shape_text(&w->shape, b), (int)WF_DEPTHWISE_MOST);
    return apply(g, x, w);
}
