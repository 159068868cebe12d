/* generate.c: constants, coordinates and random numbers: row instructions without a full-size operand, so cheap that they are
 * computed again wherever they are read.
 *
 * attr.i: [0] axis (index) or stream (random), [1] rank, [2..7] dims, [8] dtype; attr.f[0] the constant.
 * A random number depends on seed, step, stream and the linear index in the node's own shape: with q = index / 4 it is made
 * from word index mod 4 of the Philox block at counter {q, q >> 32 ^ stream >> 32, step lo, step hi ^ stream} under the key
 * {seed lo, seed hi}; uniform numbers take the upper 24 bits (8 in bfloat16, which has no more), normal numbers are pairs by Box
 * and Muller's method (words 0, 1 and words 2, 3).
 */
#include "op/op.h"
#include "op/rows.h"

static wf_status infer_generated(wf_node *n) {
    n->dtype = (wf_dtype)n->attr.i[8];
    n->shape.rank = (int)n->attr.i[1];
    for (int i = 0; i < n->shape.rank; i++) n->shape.dim[i] = n->attr.i[2 + i];
    return WF_OK;
}

static wf_status infer_random(wf_node *n) {
    const wf_node *seed = n->in[0];
    if (seed->dtype != WF_I32 || wf_shape_count(&seed->shape) != 4 || !wf_is_dense(seed))
        return wf_fail(WF_EINVAL, "%s: the seed must be int32 [4] {seed low, seed high, step low, step high}, not %s",
                       n->op->name, wf_dtype_name(seed->dtype));
    return infer_generated(n);
}

#define GENERATOR (WF_OP_ROW | WF_OP_STRIDED | WF_OP_CHEAP)
static const wf_op fill_op = {
    .name = "fill", .flags = GENERATOR, .row = WF_ROW_FILL, .infer = infer_generated, .cost = wf_cost_move};
static const wf_op index_op = {
    .name = "index", .flags = GENERATOR, .row = WF_ROW_INDEX, .infer = infer_generated, .cost = wf_cost_move};
static const wf_op uniform_op = {
    .name = "uniform", .flags = GENERATOR, .row = WF_ROW_UNIFORM, .infer = infer_random, .cost = wf_cost_pointwise};
static const wf_op normal_op = {
    .name = "normal", .flags = GENERATOR, .row = WF_ROW_NORMAL, .infer = infer_random, .cost = wf_cost_pointwise};

static wf_node *generate(wf_graph *g, const wf_op *op, wf_dtype t, const wf_shape *s, wf_node *seed, int64_t number,
                         double value) {
    if ((unsigned)t >= WF_DTYPES) return wf_graph_fail(g, WF_EINVAL, "%s: no dtype has the number %d", op->name, (int)t);
    if (s->rank < 0 || s->rank > WF_MAX_RANK)
        return wf_graph_fail(g, WF_EINVAL, "%s: rank %d; tensors have up to %d axes", op->name, s->rank, WF_MAX_RANK);
    wf_attr a = {.i = {number, s->rank}, .f = {value}};
    for (int i = 0; i < s->rank; i++) {
        if (s->dim[i] < 1) return wf_graph_fail(g, WF_EINVAL, "%s: axis %d has size %lld", op->name, i, (long long)s->dim[i]);
        a.i[2 + i] = s->dim[i];
    }
    a.i[8] = t;
    return wf_node_new(g, op, &seed, op == &uniform_op || op == &normal_op ? 1 : 0, &a);
}

wf_node *wf_fill(wf_graph *g, wf_dtype t, wf_shape s, double v) {
    return generate(g, &fill_op, t, &s, NULL, 0, v);
}

wf_node *wf_index(wf_graph *g, wf_dtype t, wf_shape s, int axis) {
    if (axis < 0 || axis >= s.rank) {
        char text[96];
        return wf_graph_fail(g, WF_EINVAL, "index: axis %d is outside of shape %s", axis, wf_shape_text(&s, text));
    }
    return generate(g, &index_op, t, &s, NULL, axis, 0);
}

static wf_node *random_numbers(wf_graph *g, const wf_op *op, wf_dtype t, const wf_shape *s, wf_node *seed, uint64_t stream) {
    if ((unsigned)t < WF_DTYPES && !wf_is_float(t))
        return wf_graph_fail(g, WF_EINVAL, "%s: makes floating-point numbers, not %s", op->name, wf_dtype_name(t));
    return generate(g, op, t, s, seed, (int64_t)stream, 0);
}

wf_node *wf_uniform(wf_graph *g, wf_dtype t, wf_shape s, wf_node *seed, uint64_t stream) {
    return random_numbers(g, &uniform_op, t, &s, seed, stream);
}

wf_node *wf_normal(wf_graph *g, wf_dtype t, wf_shape s, wf_node *seed, uint64_t stream) {
    return random_numbers(g, &normal_op, t, &s, seed, stream);
}

wf_node *wf_dropout(wf_graph *g, wf_node *x, double p, wf_node *seed, uint64_t stream) {
    if (!(p >= 0 && p < 1)) return wf_graph_fail(g, WF_EINVAL, "dropout: p = %g; it must be at least 0 and below 1", p);
    if (!x || p == 0) return x;
    wf_node *u = wf_uniform(g, WF_F32, x->shape, seed, stream);
    wf_node *kept = wf_le(g, wf_constant(g, WF_F32, p), u);
    return wf_where(g, kept, wf_mul_c(g, x, 1 / (1 - p)), wf_constant(g, x->dtype, 0));
}
