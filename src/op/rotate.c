/* rotate.c: rotary positions (Su et al. 2021, RoFormer), one pass over x.
 *
 *     (y1, y2) = (x1 cos a - x2 sin a, x2 cos a + x1 sin a)   for the r/2 pairs of the first r entries of a head
 *
 * Pairs are (2i, 2i+1) or (i, i + r/2); the other d - r entries pass. Cosines and sines are ordinary nodes, shared by all that
 * rotate by the same angles; the derivative by x rotates back.
 */
#include "op/move.h"
#include "op/op.h"
#include "op/simd/bf16.h"

#include <string.h>

/* in: x [B,L,H,d], cosines and sines [L,r/2] or [B,L,r/2]; attr.i: 0 interleaved, 1 backwards */
static wf_status infer(wf_node *n) {
    n->dtype = n->in[0]->dtype;
    n->shape = n->in[0]->shape;
    return WF_OK;
}

/* y = x turned; `step` entries from pair to pair, `gap` entries between the two of a pair */
#define ROTATE_HEAD(name, type, real, from, to)                                                                                \
    static inline void name(type *y, const type *x, const real *c, const real *s, int64_t pairs, int64_t step, int64_t gap,    \
                            real sign) {                                                                                       \
        for (int64_t i = 0; i < pairs; i++) {                                                                                  \
            real a = from(x[i * step]), b = from(x[i * step + gap]), turn = sign * s[i];                                       \
            y[i * step] = to(a * c[i] - b * turn);                                                                             \
            y[i * step + gap] = to(b * c[i] + a * turn);                                                                       \
        }                                                                                                                      \
    }                                                                                                                          \
    static void name##_pairs(void *y, const void *x, const void *c, const void *s, int64_t pairs, bool interleaved,            \
                             bool backwards) {                                                                                 \
        real sign = backwards ? -1 : 1;                                                                                        \
        if (interleaved)                                                                                                       \
            name(y, x, c, s, pairs, 2, 1, sign);                                                                               \
        else                                                                                                                   \
            name(y, x, c, s, pairs, 1, pairs, sign);                                                                           \
    }
#define SAME(v) (v)
ROTATE_HEAD(rotate_f32, float, float, SAME, SAME)
ROTATE_HEAD(rotate_f64, double, double, SAME, SAME)
ROTATE_HEAD(rotate_bf16, uint16_t, float, from_bf16, to_bf16)

typedef void (*rotate_fn)(void *y, const void *x, const void *c, const void *s, int64_t pairs, bool interleaved,
                          bool backwards);

static wf_status forward(const wf_call *c) {
    const wf_node *n = c->node, *x = n->in[0], *turn = n->in[1];
    int64_t L = n->shape.dim[1], H = n->shape.dim[2], d = n->shape.dim[3], rows = n->shape.dim[0] * L;
    int last = turn->shape.rank - 1;
    int64_t pairs = turn->shape.dim[last], size = (int64_t)wf_dtype_size(n->dtype), real = (int64_t)wf_dtype_size(turn->dtype);
    rotate_fn rotate = n->dtype == WF_F64 ? rotate_f64_pairs : n->dtype == WF_BF16 ? rotate_bf16_pairs : rotate_f32_pairs;
    int workers = wf_workers((double)(rows * H * d) * 8);
#pragma omp parallel for schedule(static) num_threads(workers) if (workers > 1)
    for (int64_t r = 0; r < rows; r++) {
        int64_t b = r / L, l = r % L, at = (last == 2 ? r : l) * pairs * real;
        for (int64_t h = 0; h < H; h++) {
            const char *from = (const char *)c->in[0] + size * (b * x->stride[0] + l * x->stride[1] + h * x->stride[2]);
            char *to = (char *)c->out[0] + size * (r * H + h) * d;
            rotate(to, from, (const char *)c->in[1] + at, (const char *)c->in[2] + at, pairs, n->attr.i[0] != 0,
                   n->attr.i[1] != 0);
            memcpy(to + size * 2 * pairs, from + size * 2 * pairs, (size_t)(size * (d - 2 * pairs)));
        }
    }
    return WF_OK;
}

/* The first r entries of [B,L,H,d] as two [B,L,H,r/2]: the parts of the pairs. */
static void halves(wf_graph *g, wf_node *x, int64_t pairs, bool interleaved, wf_node **a, wf_node **b) {
    *a = *b = NULL;
    if (!x) return;
    const int64_t *d = x->shape.dim;
    if (!interleaved) {
        *a = wf_slice(g, x, 3, 0, pairs);
        *b = wf_slice(g, x, 3, pairs, pairs);
        return;
    }
    wf_node *p = wf_reshape(g, wf_slice(g, x, 3, 0, 2 * pairs), WF_SHAPE(d[0], d[1], d[2], pairs, 2));
    *a = wf_squeeze(g, wf_slice(g, p, 4, 0, 1), 4);
    *b = wf_squeeze(g, wf_slice(g, p, 4, 1, 1), 4);
}

/* d cos = sum (g1 x1 + g2 x2), d sin = sum (g2 x1 - g1 x2) over heads (and batch); used where angles are learned. */
static wf_status vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    wf_node *turn = n->in[1], *a, *b, *ga, *gb, *go = wf_cast(g, gout[0], n->dtype);
    wf_attr back = n->attr;
    back.i[1] = !back.i[1];
    int last = turn->shape.rank - 1;
    int64_t pairs = turn->shape.dim[last];
    if (go && go->stride[3] != 1) go = wf_contiguous(g, go);
    gin[0] = wf_node_new(g, n->op, (wf_node *[]){go, n->in[1], n->in[2]}, 3, &back);
    halves(g, wf_cast(g, n->in[0], turn->dtype), pairs, n->attr.i[0], &a, &b);
    halves(g, wf_cast(g, go, turn->dtype), pairs, n->attr.i[0], &ga, &gb);
    unsigned axes = last == 2 ? 1u << 2 : 1u << 0 | 1u << 2;
    gin[1] = wf_sum(g, wf_add(g, wf_mul(g, ga, a), wf_mul(g, gb, b)), axes, false);
    wf_node *sine = wf_sum(g, wf_sub(g, wf_mul(g, gb, a), wf_mul(g, ga, b)), axes, false);
    gin[2] = n->attr.i[1] ? wf_neg(g, sine) : sine;
    return wf_graph_status(g);
}

/* Two products and a sum for each rotated entry. */
static void cost(const wf_node *n, wf_cost *c) {
    const wf_node *turn = n->in[1];
    double size = (double)wf_shape_count(&n->shape) * (double)wf_dtype_size(n->dtype);
    double pairs = (double)turn->shape.dim[turn->shape.rank - 1];
    c->flops = 6 * pairs * (double)(n->shape.dim[0] * n->shape.dim[1] * n->shape.dim[2]);
    c->bytes_read = size + 2 * (double)wf_shape_count(&turn->shape) * (double)wf_dtype_size(turn->dtype);
    c->bytes_written = size;
}

static const wf_op rotate_op = {
    .name = "rotate", .flags = WF_OP_STRIDED, .infer = infer, .forward = forward, .vjp = vjp, .cost = cost};

wf_node *wf_rotate(wf_graph *g, wf_node *x, wf_node *angle, bool interleaved) {
    char p[96], q[96];
    if (!x || !angle) return NULL;
    const int64_t *d = x->shape.dim, *t = angle->shape.dim;
    int rank = angle->shape.rank;
    bool ok = x->shape.rank == 4 && (rank == 2 || rank == 3) && wf_is_float(x->dtype) && wf_is_float(angle->dtype);
    ok = ok && (rank == 2 || t[0] == d[0]) && t[rank - 2] == d[1] && 2 * t[rank - 1] <= d[3];
    if (!ok)
        return wf_graph_fail(g, WF_EINVAL,
                             "rotate: x %s and angles %s; floating [B,L,H,d] and [L,r/2] or [B,L,r/2] with r <= d expected",
                             wf_shape_text(&x->shape, p), wf_shape_text(&angle->shape, q));
    wf_node *real = wf_cast(g, angle, x->dtype == WF_F64 ? WF_F64 : WF_F32);
    wf_node *c = wf_cos(g, real), *s = wf_sin(g, real);
    if (x->stride[3] != 1) x = wf_contiguous(g, x);
    wf_attr a = {.i = {interleaved, 0}};
    return wf_node_new(g, &rotate_op, (wf_node *[]){x, c, s}, 3, &a);
}
