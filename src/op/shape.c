/* shape.c: copies that change shape: concat, pad and crop, flip; and cache_write, which writes rows into a state in place.
 * Inputs may be strided views: every operator here is one or a few strided block copies (move.h).
 */
#include "op/move.h"
#include "op/op.h"

#include <string.h>

static void dense_strides(const wf_shape *s, int64_t *stride) {
    int64_t n = 1;
    for (int a = s->rank - 1; a >= 0; a--) {
        stride[a] = n;
        n *= s->dim[a];
    }
}

/* Copy all of input k to the dense output, starting at element `at` of the output. */
static void put_block(const wf_call *c, int k, int64_t at) {
    const wf_node *n = c->node, *x = n->in[k];
    int64_t to[WF_MAX_RANK];
    size_t size = wf_dtype_size(n->dtype);
    dense_strides(&n->shape, to);
    wf_move_strided((char *)c->out[0] + at * (int64_t)size, to, c->in[k], x->stride, x->shape.dim, x->shape.rank, size);
}

static wf_status want_axis(const char *name, const wf_node *x, int64_t axis) {
    char a[96];
    if (axis >= 0 && axis < x->shape.rank) return WF_OK;
    return wf_fail(WF_EINVAL, "%s: axis %lld of %s", name, (long long)axis, wf_shape_text(&x->shape, a));
}

/* ---- concat: attr.i[0] = axis ---- */
static wf_status concat_infer(wf_node *n) {
    int axis = (int)n->attr.i[0];
    const wf_node *first = n->in[0];
    char a[96], b[96];
    WF_TRY(want_axis("concat", first, n->attr.i[0]));
    n->dtype = first->dtype;
    n->shape = first->shape;
    for (int k = 1; k < n->n_in; k++) {
        const wf_node *x = n->in[k];
        bool fits = x->shape.rank == first->shape.rank;
        for (int d = 0; fits && d < x->shape.rank; d++) fits = d == axis || x->shape.dim[d] == first->shape.dim[d];
        if (!fits)
            return wf_fail(WF_EINVAL, "concat: input %d %s does not fit input 0 %s along axis %d", k,
                           wf_shape_text(&x->shape, a), wf_shape_text(&first->shape, b), axis);
        if (x->dtype != n->dtype)
            return wf_fail(WF_EINVAL, "concat: input %d is %s, input 0 is %s: cast one of them", k, wf_dtype_name(x->dtype),
                           wf_dtype_name(n->dtype));
        n->shape.dim[axis] += x->shape.dim[axis];
    }
    return WF_OK;
}

static wf_status concat_forward(const wf_call *c) {
    const wf_node *n = c->node;
    int axis = (int)n->attr.i[0];
    int64_t inner = wf_span(&n->shape, axis + 1, n->shape.rank), at = 0;
    for (int k = 0; k < n->n_in; k++) {
        put_block(c, k, at);
        at += n->in[k]->shape.dim[axis] * inner;
    }
    return WF_OK;
}

static wf_status concat_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    if (!gout[0]) return WF_OK;
    int axis = (int)n->attr.i[0];
    int64_t start = 0;
    for (int k = 0; k < n->n_in; k++) {
        int64_t len = n->in[k]->shape.dim[axis];
        gin[k] = wf_slice(g, gout[0], axis, start, len);
        if (!gin[k]) return wf_graph_status(g);
        start += len;
    }
    return WF_OK;
}

static const wf_op concat_op = {
    .name = "concat", .flags = WF_OP_STRIDED, .infer = concat_infer, .forward = concat_forward, .vjp = concat_vjp};

wf_node *wf_concat(wf_graph *g, wf_node *const *x, int n, int axis) {
    if (n < 1) return wf_graph_fail(g, WF_EINVAL, "concat: no inputs");
    for (int k = 0; k < n; k++)
        if (!x[k]) return NULL;
    wf_attr a = {.i = {axis}};
    return n == 1 ? x[0] : wf_node_new(g, &concat_op, x, n, &a);
}

/* ---- pad: attr.i = {axis, before, after}, attr.f[0] = value; negative amounts crop ---- */
static wf_status pad_infer(wf_node *n) {
    const wf_node *x = n->in[0];
    char a[96];
    WF_TRY(want_axis("pad", x, n->attr.i[0]));
    int64_t len = x->shape.dim[n->attr.i[0]], before = n->attr.i[1], after = n->attr.i[2], limit = INT64_MAX / 16;
    if (before > limit || after > limit || before <= -len || after <= -len || len + before + after < 1)
        return wf_fail(WF_EINVAL, "pad: %lld before and %lld after axis %lld of %s", (long long)before, (long long)after,
                       (long long)n->attr.i[0], wf_shape_text(&x->shape, a));
    n->dtype = x->dtype;
    n->shape = x->shape;
    n->shape.dim[n->attr.i[0]] = len + before + after;
    return WF_OK;
}

/* Fill `rows` blocks of `count` elements, `step` elements apart, from element `at` on. */
static void fill_blocks(const wf_call *c, const uint8_t *value, int64_t at, int64_t count, int64_t step, int64_t rows,
                        size_t size) {
    if (count < 1) return;
    for (int64_t r = 0; r < rows; r++) wf_move_fill((char *)c->out[0] + (at + r * step) * (int64_t)size, value, count, size);
}

static wf_status pad_forward(const wf_call *c) {
    const wf_node *n = c->node, *x = n->in[0];
    int axis = (int)n->attr.i[0], rank = n->shape.rank;
    size_t size = wf_dtype_size(n->dtype);
    int64_t before = n->attr.i[1], after = n->attr.i[2], inner = wf_span(&n->shape, axis + 1, rank),
            rows = wf_span(&n->shape, 0, axis);
    int64_t step = n->shape.dim[axis] * inner, skip = before < 0 ? -before : 0, lead = before > 0 ? before : 0;
    int64_t dims[WF_MAX_RANK], to[WF_MAX_RANK];
    uint8_t value[8];
    wf_move_encode(n->dtype, n->attr.f[0], value);
    memcpy(dims, x->shape.dim, sizeof dims);
    dims[axis] -= skip + (after < 0 ? -after : 0);
    dense_strides(&n->shape, to);
    fill_blocks(c, value, 0, lead * inner, step, rows, size);
    fill_blocks(c, value, (lead + dims[axis]) * inner, after * inner, step, rows, size);
    wf_move_strided((char *)c->out[0] + lead * inner * (int64_t)size, to,
                    (const char *)c->in[0] + skip * x->stride[axis] * (int64_t)size, x->stride, dims, rank, size);
    return WF_OK;
}

static wf_status pad_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    if (!gout[0]) return WF_OK;
    gin[0] = wf_pad(g, gout[0], (int)n->attr.i[0], -n->attr.i[1], -n->attr.i[2], 0);
    return gin[0] ? WF_OK : wf_graph_status(g);
}

static const wf_op pad_op = {.name = "pad", .flags = WF_OP_STRIDED, .infer = pad_infer, .forward = pad_forward, .vjp = pad_vjp};

wf_node *wf_pad(wf_graph *g, wf_node *x, int axis, int64_t before, int64_t after, double value) {
    if (!x) return NULL;
    if (before == 0 && after == 0) return x;
    if (before <= 0 && after <= 0 && axis >= 0 && axis < x->shape.rank && x->shape.dim[axis] + before + after > 0)
        return wf_slice(g, x, axis, -before, x->shape.dim[axis] + before + after); /* a pure crop is a view */
    wf_attr a = {.i = {axis, before, after}, .f = {value}};
    return wf_node_new(g, &pad_op, &x, 1, &a);
}

/* ---- flip: attr.i[0] = axis ---- */
static wf_status flip_infer(wf_node *n) {
    WF_TRY(want_axis("flip", n->in[0], n->attr.i[0]));
    n->dtype = n->in[0]->dtype;
    n->shape = n->in[0]->shape;
    return WF_OK;
}

static wf_status flip_forward(const wf_call *c) {
    const wf_node *n = c->node, *x = n->in[0];
    int axis = (int)n->attr.i[0];
    size_t size = wf_dtype_size(n->dtype);
    int64_t to[WF_MAX_RANK], from[WF_MAX_RANK], last = (x->shape.dim[axis] - 1) * x->stride[axis];
    dense_strides(&n->shape, to);
    memcpy(from, x->stride, sizeof from);
    from[axis] = -from[axis];
    wf_move_strided(c->out[0], to, (const char *)c->in[0] + last * (int64_t)size, from, x->shape.dim, x->shape.rank, size);
    return WF_OK;
}

static wf_status flip_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    if (!gout[0]) return WF_OK;
    gin[0] = wf_flip(g, gout[0], (int)n->attr.i[0]);
    return gin[0] ? WF_OK : wf_graph_status(g);
}

static const wf_op flip_op = {
    .name = "flip", .flags = WF_OP_STRIDED, .infer = flip_infer, .forward = flip_forward, .vjp = flip_vjp};

wf_node *wf_flip(wf_graph *g, wf_node *x, int axis) {
    wf_attr a = {.i = {axis}};
    return wf_node_new(g, &flip_op, &x, 1, &a);
}

/* ---- cache_write: in = {state, value, pos}, attr.i[0] = ring ---- */
static wf_status cache_infer(wf_node *n) {
    const wf_node *s = n->in[0], *v = n->in[1], *pos = n->in[2];
    char a[96], b[96];
    bool fits = s->shape.rank >= 2 && v->shape.rank == s->shape.rank && (n->attr.i[0] || v->shape.dim[1] <= s->shape.dim[1]);
    for (int k = 0; fits && k < s->shape.rank; k++) fits = k == 1 || s->shape.dim[k] == v->shape.dim[k];
    if (!fits)
        return wf_fail(WF_EINVAL, "cache_write: value %s does not fit state %s", wf_shape_text(&v->shape, a),
                       wf_shape_text(&s->shape, b));
    if (pos->dtype != WF_I32 || wf_shape_count(&pos->shape) != 1)
        return wf_fail(WF_EINVAL, "cache_write: pos must be int32 [1], not %s %s", wf_dtype_name(pos->dtype),
                       wf_shape_text(&pos->shape, a));
    n->dtype = s->dtype;
    n->shape = s->shape;
    return WF_OK;
}

/* Copy value rows t .. t+rows-1 to state rows `to` .. of every batch entry. */
static void cache_rows(const wf_call *c, int64_t t, int64_t rows, int64_t to) {
    const wf_node *n = c->node, *v = n->in[1];
    int64_t out[WF_MAX_RANK], dims[WF_MAX_RANK];
    size_t size = wf_dtype_size(n->dtype);
    dense_strides(&n->shape, out);
    memcpy(dims, v->shape.dim, sizeof dims);
    dims[1] = rows;
    wf_move_strided((char *)c->out[0] + to * out[1] * (int64_t)size, out,
                    (const char *)c->in[1] + t * v->stride[1] * (int64_t)size, v->stride, dims, n->shape.rank, size);
}

static wf_status cache_forward(const wf_call *c) {
    const wf_node *n = c->node;
    int64_t room = n->shape.dim[1], rows = n->in[1]->shape.dim[1], pos = *(const int32_t *)c->in[2], t = 0;
    if (pos < 0 || (!n->attr.i[0] && pos + rows > room))
        return wf_fail(WF_EINVAL, "cache_write: rows %lld..%lld do not fit a cache of %lld rows", (long long)pos,
                       (long long)(pos + rows - 1), (long long)room);
    if (rows > room) t = rows - room; /* in a ring earlier rows would be overwritten */
    while (t < rows) {
        int64_t to = (pos + t) % room, count = room - to < rows - t ? room - to : rows - t;
        cache_rows(c, t, count, to);
        t += count;
    }
    return WF_OK;
}

static void cache_cost(const wf_node *n, wf_cost *c) {
    c->flops = 0;
    c->bytes_written = (double)wf_shape_count(&n->in[1]->shape) * (double)wf_dtype_size(n->dtype);
    c->bytes_read = c->bytes_written + 4;
}

static const wf_op cache_op = {.name = "cache_write",
                               .flags = WF_OP_IN_PLACE | WF_OP_STRIDED | WF_OP_EFFECT,
                               .infer = cache_infer,
                               .forward = cache_forward,
                               .cost = cache_cost};

wf_node *wf_cache_write(wf_graph *g, wf_node *state, wf_node *value, wf_node *pos, bool ring) {
    if (!state || !value || !pos) return NULL;
    if (value->dtype != state->dtype) value = wf_cast(g, value, state->dtype);
    wf_attr a = {.i = {ring}};
    return wf_node_new(g, &cache_op, (wf_node *[]){state, value, pos}, 3, &a);
}
