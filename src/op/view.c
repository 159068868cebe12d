/* view.c: other shapes of the same bytes: reshape, permute, slice, expand; stop_gradient and custom derivatives.
 *
 * No kernel runs and nothing is copied (except by a reshape that strides forbid). The derivative of a view is the adjoint of
 * its index map: of a permutation the inverse one, of a slice zero padding, of a broadcast the sum over its copies.
 */
#include "op/op.h"
#include "op/view.h"

#include <string.h>

static bool want_axis(wf_graph *g, const char *name, const wf_node *x, int axis) {
    char a[96];
    if (axis >= 0 && axis < x->shape.rank) return true;
    wf_graph_fail(g, WF_EINVAL, "%s: axis %d of %s", name, axis, wf_shape_text(&x->shape, a));
    return false;
}

static wf_status done(wf_graph *g, wf_node *const *gin) {
    return *gin ? WF_OK : wf_graph_status(g);
}

/* ---- reshape ---- */

static wf_status reshape_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    gin[0] = wf_reshape(g, gout[0], n->in[0]->shape);
    return done(g, gin);
}

static const wf_op reshape_op = {.name = "reshape", .flags = WF_OP_VIEW, .vjp = reshape_vjp};

/* Put the missing size in the place of -1 and compare counts. */
static bool resolve(wf_graph *g, const wf_node *x, wf_shape *s) {
    char a[96], b[96];
    int64_t count = wf_shape_count(&x->shape), known = 1;
    int open = -1, opens = 0;
    wf_shape asked = *s;
    bool ok = s->rank >= 0 && s->rank <= WF_MAX_RANK;
    for (int i = 0; ok && i < s->rank; i++) {
        if (s->dim[i] == -1) {
            open = i;
            opens++;
        } else {
            ok = s->dim[i] >= 0 && !__builtin_mul_overflow(known, s->dim[i], &known);
        }
    }
    if (ok && opens == 1 && known > 0 && count % known == 0) {
        s->dim[open] = count / known;
        known = count;
    }
    if (ok && opens <= 1 && known == count && (opens == 0 || s->dim[open] >= 0)) return true;
    wf_graph_fail(g, WF_EINVAL, "reshape: %s (%lld elements) does not fit into %s", wf_shape_text(&x->shape, a),
                  (long long)count, wf_shape_text(&asked, b));
    return false;
}

/* Strides of x seen as s without a copy: group by group, the axes of both that cover the same elements must be evenly spaced. */
static bool restride(const wf_node *x, const wf_shape *s, int64_t *stride) {
    int64_t dim[WF_MAX_RANK], step[WF_MAX_RANK];
    int rank = 0, i = 0, k = 0;
    for (int a = 0; a < x->shape.rank; a++) { /* axes of size 1 do not matter */
        if (x->shape.dim[a] == 1) continue;
        dim[rank] = x->shape.dim[a];
        step[rank++] = x->stride[a];
    }
    while (i < rank && k < s->rank) {
        int i0 = i, k0 = k;
        int64_t have = dim[i++], want = s->dim[k++];
        while (have != want) {
            if (have < want && i < rank)
                have *= dim[i++];
            else if (want < have && k < s->rank)
                want *= s->dim[k++];
            else
                return false;
        }
        for (int a = i0; a + 1 < i; a++)
            if (step[a] != dim[a + 1] * step[a + 1]) return false;
        stride[k - 1] = step[i - 1];
        for (int a = k - 1; a > k0; a--) stride[a - 1] = stride[a] * s->dim[a];
    }
    for (; k < s->rank; k++) stride[k] = 1; /* of size 1 */
    return i == rank;
}

wf_node *wf_reshape(wf_graph *g, wf_node *x, wf_shape s) {
    int64_t stride[WF_MAX_RANK] = {0};
    if (!x || !resolve(g, x, &s)) return NULL;
    if (wf_shape_equal(&x->shape, &s)) return x;
    if (wf_shape_count(&s) == 0) {
        for (int a = 0; a < s.rank; a++) stride[a] = 1;
    } else if (!restride(x, &s, stride)) {
        x = wf_contiguous(g, x);
        if (!x || !restride(x, &s, stride)) return NULL;
    }
    return wf_view_new(g, &reshape_op, x, s, stride, 0, NULL);
}

wf_node *wf_unsqueeze(wf_graph *g, wf_node *x, int axis) {
    char a[96];
    if (!x) return NULL;
    wf_shape s = x->shape;
    if (axis < 0 || axis > s.rank || s.rank == WF_MAX_RANK)
        return wf_graph_fail(g, WF_EINVAL, "unsqueeze: a new axis %d in %s (at most %d axes)", axis, wf_shape_text(&s, a),
                             WF_MAX_RANK);
    memmove(s.dim + axis + 1, s.dim + axis, (size_t)(s.rank - axis) * sizeof *s.dim);
    s.dim[axis] = 1;
    s.rank++;
    return wf_reshape(g, x, s);
}

wf_node *wf_squeeze(wf_graph *g, wf_node *x, int axis) {
    char a[96];
    if (!x || !want_axis(g, "squeeze", x, axis)) return NULL;
    wf_shape s = x->shape;
    if (s.dim[axis] != 1)
        return wf_graph_fail(g, WF_EINVAL, "squeeze: axis %d of %s is not of size 1", axis, wf_shape_text(&s, a));
    s.rank--;
    memmove(s.dim + axis, s.dim + axis + 1, (size_t)(s.rank - axis) * sizeof *s.dim);
    return wf_reshape(g, x, s);
}

/* ---- permute: attr.i[a] = axes[a] ---- */

static wf_status permute_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    int back[WF_MAX_RANK];
    for (int a = 0; a < n->shape.rank; a++) back[n->attr.i[a]] = a;
    gin[0] = wf_permute(g, gout[0], back);
    return done(g, gin);
}

static const wf_op permute_op = {.name = "permute", .flags = WF_OP_VIEW, .vjp = permute_vjp};

wf_node *wf_permute(wf_graph *g, wf_node *x, const int *axes) {
    if (!x) return NULL;
    wf_shape s = x->shape;
    wf_attr attr = {0};
    int64_t stride[WF_MAX_RANK];
    unsigned seen = 0;
    bool same = true;
    for (int a = 0; a < s.rank; a++) {
        char text[96];
        if (axes[a] < 0 || axes[a] >= s.rank || seen & 1u << axes[a])
            return wf_graph_fail(g, WF_EINVAL, "permute: axis %d at place %d of %s (each axis once)", axes[a], a,
                                 wf_shape_text(&x->shape, text));
        seen |= 1u << axes[a];
        same = same && axes[a] == a;
        s.dim[a] = x->shape.dim[axes[a]];
        stride[a] = x->stride[axes[a]];
        attr.i[a] = axes[a];
    }
    return same ? x : wf_view_new(g, &permute_op, x, s, stride, 0, &attr);
}

wf_node *wf_transpose(wf_graph *g, wf_node *x, int a, int b) {
    int axes[WF_MAX_RANK];
    if (!x || !want_axis(g, "transpose", x, a) || !want_axis(g, "transpose", x, b)) return NULL;
    for (int i = 0; i < x->shape.rank; i++) axes[i] = i == a ? b : i == b ? a : i;
    return wf_permute(g, x, axes);
}

/* ---- slice: attr.i = {axis, start, length} ---- */

static wf_status slice_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    const wf_node *x = n->in[0];
    int axis = (int)n->attr.i[0];
    gin[0] = n->attr.i[2] ? wf_unslice(g, gout[0], axis, n->attr.i[1], x->shape.dim[axis]) : wf_fill(g, x->dtype, x->shape, 0);
    return done(g, gin);
}

static const wf_op slice_op = {.name = "slice", .flags = WF_OP_VIEW, .vjp = slice_vjp};

wf_node *wf_slice(wf_graph *g, wf_node *x, int axis, int64_t start, int64_t len) {
    char a[96];
    if (!x || !want_axis(g, "slice", x, axis)) return NULL;
    wf_shape s = x->shape;
    if (start < 0 || len < 0 || start > s.dim[axis] || len > s.dim[axis] - start)
        return wf_graph_fail(g, WF_EINVAL, "slice: %lld elements from %lld on, along axis %d of %s", (long long)len,
                             (long long)start, axis, wf_shape_text(&s, a));
    if (len == s.dim[axis]) return x;
    s.dim[axis] = len;
    wf_attr attr = {.i = {axis, start, len}};
    return wf_view_new(g, &slice_op, x, s, x->stride, len ? start * x->stride[axis] : 0, &attr);
}

/* ---- expand ---- */

static wf_status expand_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    gin[0] = wf_sum_to(g, gout[0], &n->in[0]->shape);
    return done(g, gin);
}

static const wf_op expand_op = {.name = "expand", .flags = WF_OP_VIEW, .vjp = expand_vjp};

wf_node *wf_repeated(const wf_node *x) {
    return x && x->op == &expand_op ? x->in[0] : NULL;
}

wf_node *wf_expand(wf_graph *g, wf_node *x, wf_shape s) {
    char a[96], b[96];
    if (!x) return NULL;
    if (wf_shape_equal(&x->shape, &s)) return x;
    int64_t stride[WF_MAX_RANK] = {0};
    int lead = s.rank - x->shape.rank;
    bool ok = lead >= 0 && s.rank <= WF_MAX_RANK;
    for (int i = 0; ok && i < x->shape.rank; i++) {
        bool same = x->shape.dim[i] == s.dim[lead + i];
        ok = same || x->shape.dim[i] == 1;
        stride[lead + i] = same ? x->stride[i] : 0;
    }
    if (!ok)
        return wf_graph_fail(g, WF_EINVAL, "expand: %s does not broadcast to %s", wf_shape_text(&x->shape, a),
                             wf_shape_text(&s, b));
    return wf_view_new(g, &expand_op, x, s, stride, 0, NULL);
}

/* ---- identity forward, another derivative ---- */

static const wf_op stop_op = {.name = "stop_gradient", .flags = WF_OP_VIEW};

wf_node *wf_stop_gradient(wf_graph *g, wf_node *x) {
    return x ? wf_node_new(g, &stop_op, &x, 1, NULL) : NULL;
}

/* in[0] is the value, in[1..] what receives gradients; attr.p the caller's function. */
typedef struct custom {
    wf_custom_vjp vjp;
    void *ctx;
} custom;

static wf_status custom_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    const custom *c = n->attr.p;
    return c->vjp(g, c->ctx, n->in[0], n->in + 1, n->n_in - 1, gout[0], gin + 1);
}

static const wf_op custom_op = {.name = "custom", .flags = WF_OP_VIEW, .vjp = custom_vjp};

wf_node *wf_custom(wf_graph *g, wf_node *value, wf_node *const *in, int n_in, wf_custom_vjp vjp, void *ctx) {
    if (!value) return NULL;
    if (n_in < 1 || !vjp) return wf_graph_fail(g, WF_EINVAL, "custom: needs inputs and a derivative");
    custom *c = wf_arena_alloc(wf_graph_arena(g), sizeof *c);
    wf_node **all = wf_arena_alloc(wf_graph_arena(g), (size_t)(n_in + 1) * sizeof *all);
    if (!c || !all) return wf_graph_fail(g, WF_ENOMEM, "custom: %s", wf_message());
    *c = (custom){vjp, ctx};
    all[0] = value;
    memcpy(all + 1, in, (size_t)n_in * sizeof *all);
    wf_attr attr = {.p = c};
    return wf_node_new(g, &custom_op, all, n_in + 1, &attr);
}
