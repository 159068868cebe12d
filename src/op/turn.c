/* turn.c: a fixed reflection, then a rotation by learned angles, in one pass (LRPE, Qin et al. 2023).
 *
 *     z = x - 2 (x.u) u;   (y_2i, y_2i+1) = (z_2i cos a_i - z_2i+1 sin a_i, z_2i+1 cos a_i + z_2i sin a_i)
 *
 * The backward operator gives the gradients of x and of the angles together. Cosines and sines are ordinary nodes that the angles'
 * derivative already counts in; u has none. rotate.c is the rotation alone, by fixed angles.
 */
#include "op/turn.h"
#include "op/move.h"
#include "op/op.h"
#include "op/simd.h"

#define KERNELS(isa) extern const wf_turn_kernel wf_turn_kernel_f32_##isa, wf_turn_kernel_f64_##isa;
KERNELS(generic)
#if defined(__x86_64__)
KERNELS(avx2)
KERNELS(avx512)
#endif

static const wf_turn_kernel *kernel_for(wf_dtype t) {
    bool f64 = t == WF_F64;
#if defined(__x86_64__)
    if (wf_isa() >= WF_ISA_AVX512) return f64 ? &wf_turn_kernel_f64_avx512 : &wf_turn_kernel_f32_avx512;
    if (wf_isa() >= WF_ISA_AVX2) return f64 ? &wf_turn_kernel_f64_avx2 : &wf_turn_kernel_f32_avx2;
#endif
    return f64 ? &wf_turn_kernel_f64_generic : &wf_turn_kernel_f32_generic;
}

/* in: x, angle, cos, sin, g (backward), u (attr.i[0] says that there is one) */
static const wf_op turn_op, turn_back_op;

static wf_node *u_of(const wf_node *n, wf_node *const *in) {
    return n->attr.i[0] ? in[n->n_in - 1] : NULL;
}

static wf_status infer(wf_node *n) {
    n->dtype = n->in[0]->dtype;
    n->shape = n->in[0]->shape;
    return WF_OK;
}

static wf_status infer_more(const wf_node *n, int k, wf_dtype *t, wf_shape *s) {
    (void)k;
    *t = n->in[1]->dtype;
    *s = n->in[1]->shape;
    return WF_OK;
}

static wf_status run(const wf_call *c) {
    const wf_node *n = c->node, *x = n->in[0];
    bool back = n->op == &turn_back_op;
    const wf_node *g = back ? n->in[4] : x;
    const wf_turn_kernel *k = kernel_for(n->dtype);
    wf_turn t = {.B = x->shape.dim[0],
                 .L = x->shape.dim[1],
                 .H = x->shape.dim[2],
                 .d = x->shape.dim[3],
                 .pairs = n->in[1]->shape.dim[1],
                 .xb = x->stride[0],
                 .xl = x->stride[1],
                 .xh = x->stride[2],
                 .gb = g->stride[0],
                 .gl = g->stride[1],
                 .gh = g->stride[2],
                 .x = c->in[0],
                 .cos = c->in[2],
                 .sin = c->in[3],
                 .y = c->out[0]};
    if (n->attr.i[0]) t.u = c->in[n->n_in - 1];
    if (back) t.g = c->in[4], t.dangle = c->out[1];
    int workers = wf_workers((double)wf_shape_count(&x->shape) * 8);
#pragma omp parallel for schedule(static) num_threads(workers) if (workers > 1)
    for (int64_t l = 0; l < t.L; l++) (back ? k->backward : k->forward)(&t, l);
    return WF_OK;
}

/* ---- the same of small operators, for second derivatives ---- */

static wf_node *reflected(wf_graph *g, wf_node *x, wf_node *u) {
    if (!u) return x;
    wf_node *along = wf_sum(g, wf_mul(g, x, u), 1u << 3, true);
    return wf_sub(g, x, wf_mul(g, wf_mul_c(g, along, 2), u));
}

static wf_node *composed(wf_graph *g, wf_node *x, wf_node *angle, wf_node *u) {
    return wf_rotate(g, reflected(g, x, u), angle, true);
}

static wf_status compose_backward(wf_graph *g, wf_node *n, wf_node *const *in, wf_node **out) {
    wf_node *y = composed(g, in[0], in[1], u_of(n, in)), *wrt[2] = {in[0], in[1]}, *seed = in[4];
    return wf_grad(g, &y, &seed, 1, wrt, 2, out);
}

static wf_status vjp_backward(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    return wf_vjp_by_composition(g, n, gout, gin, compose_backward);
}

static wf_node *unit_columns(wf_graph *g, wf_node *x) {
    return !x || x->stride[3] == 1 ? x : wf_contiguous(g, x);
}

static wf_status vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    if (!gout[0]) return WF_OK;
    wf_node *in[6] = {n->in[0], n->in[1], n->in[2], n->in[3], unit_columns(g, wf_cast(g, gout[0], n->dtype)), u_of(n, n->in)};
    wf_node *back = wf_node_new(g, &turn_back_op, in, n->attr.i[0] ? 6 : 5, &n->attr);
    gin[0] = back;
    gin[1] = back ? wf_output(back, 1) : NULL;
    return wf_graph_status(g);
}

/* Reflection 4 d, rotation 3 d; backward the reflection twice, the rotation, and 2 d for the angles. */
static void cost_of(const wf_node *n, double flops, double passes, wf_cost *c) {
    double count = (double)wf_shape_count(&n->shape), size = (double)wf_dtype_size(n->dtype);
    c->flops = flops * count;
    c->bytes_read = size * (passes * count + 3 * (double)wf_shape_count(&n->in[1]->shape));
    c->bytes_written = size * count;
}
static void cost(const wf_node *n, wf_cost *c) {
    cost_of(n, n->attr.i[0] ? 7 : 3, 1, c);
}
static void cost_backward(const wf_node *n, wf_cost *c) {
    cost_of(n, n->attr.i[0] ? 13 : 5, 2, c);
}

static const wf_op turn_op = {.name = "turn", .flags = WF_OP_STRIDED, .infer = infer, .forward = run, .vjp = vjp, .cost = cost};
static const wf_op turn_back_op = {.name = "turn_backward",
                                   .flags = WF_OP_STRIDED,
                                   .n_out = 2,
                                   .infer = infer,
                                   .infer_more = infer_more,
                                   .forward = run,
                                   .vjp = vjp_backward,
                                   .cost = cost_backward};

wf_node *wf_turn_by(wf_graph *g, wf_node *x, wf_node *angle, wf_node *u) {
    char p[96], q[96];
    if (!x || !angle) return NULL;
    bool ok = x->shape.rank == 4 && angle->shape.rank == 2 && wf_is_float(x->dtype) && wf_is_float(angle->dtype) &&
              x->shape.dim[1] == angle->shape.dim[0] && 2 * angle->shape.dim[1] <= x->shape.dim[3] &&
              x->shape.dim[3] <= WF_TURN_MOST && (!u || (u->shape.rank == 1 && u->shape.dim[0] == x->shape.dim[3]));
    if (!ok)
        return wf_graph_fail(
            g, WF_EINVAL,
            "turn: x %s and angles %s; floating [B,L,H,d] with d up to %d, [L,r/2] with r <= d, and u [d] expected",
            wf_shape_text(&x->shape, p), wf_shape_text(&angle->shape, q), (int)WF_TURN_MOST);
    wf_dtype real = x->dtype == WF_F64 ? WF_F64 : WF_F32;
    wf_node *a = wf_contiguous(g, wf_cast(g, angle, real)), *by = wf_stop_gradient(g, a);
    wf_node *in[5] = {unit_columns(g, wf_cast(g, x, real)), a, wf_cos(g, by), wf_sin(g, by),
                      u ? wf_contiguous(g, wf_cast(g, u, real)) : NULL};
    wf_attr attr = {.i = {u != NULL}};
    return wf_cast(g, wf_node_new(g, &turn_op, in, u ? 5 : 4, &attr), x->dtype);
}
