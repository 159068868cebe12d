/* reduce.c: sums, means, extrema over any set of axes, the adjoint of broadcasting, softmax and its relatives.
 *
 * Two row instructions do it: SUM, AMAX, AMIN reduce the last axis of [.., N] to [.., 1]; SUM_ROWS adds up other axes
 * (attr.i[0]: bit i = axis i), which stay with size 1. Builders bring every reduction into this form without moving data
 * where strides allow. Cost: one FLOP for each element read.
 */
#include "op/op.h"
#include "op/rows.h"
#include "op/view.h"

static void cost_reduce(const wf_node *n, wf_cost *c) {
    wf_cost_move(n, c);
    c->flops = (double)wf_shape_count(&n->in[0]->shape);
}

static wf_status infer_row(wf_node *n) {
    n->dtype = n->in[0]->dtype;
    n->shape = n->in[0]->shape;
    if (n->shape.rank < 1) return wf_fail(WF_EINVAL, "%s: needs at least one axis", n->op->name);
    n->shape.dim[n->shape.rank - 1] = 1;
    return WF_OK;
}

static wf_status infer_sum_rows(wf_node *n) {
    n->dtype = n->in[0]->dtype;
    n->shape = n->in[0]->shape;
    for (int i = 0; i < n->shape.rank - 1; i++)
        if (n->attr.i[0] >> i & 1) n->shape.dim[i] = 1;
    return WF_OK;
}

/* The gradient of a sum is the same for every element: a view with strides of 0. */
static wf_status vjp_sum(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    if (wf_is_float(n->dtype)) gin[0] = wf_expand(g, gout[0], n->in[0]->shape);
    return wf_graph_status(g);
}

static wf_status vjp_extremum(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    wf_node *x = n->in[0];
    if (!wf_is_float(n->dtype)) return WF_OK;
    wf_node *tie = wf_eq(g, x, n);
    wf_node *share = wf_div(g, gout[0], wf_sum(g, tie, 1u << (x->shape.rank - 1), true));
    gin[0] = wf_where(g, tie, share, wf_constant(g, x->dtype, 0));
    return wf_graph_status(g);
}

#define REDUCTION(code, name_, infer_, vjp_)                                                                                   \
    { .name = name_, .flags = WF_OP_ROW | WF_OP_STRIDED, .row = code, .infer = infer_, .vjp = vjp_, .cost = cost_reduce }
static const wf_op sum_op = REDUCTION(WF_ROW_SUM, "sum", infer_row, vjp_sum);
static const wf_op amax_op = REDUCTION(WF_ROW_AMAX, "amax", infer_row, vjp_extremum);
static const wf_op amin_op = REDUCTION(WF_ROW_AMIN, "amin", infer_row, vjp_extremum);
static const wf_op sum_rows_op = REDUCTION(WF_ROW_SUM_ROWS, "sum_rows", infer_sum_rows, vjp_sum);

/* ---- canonical form ---- */

enum { NARROW = 64, WIDE = 16384 }; /* rows below are merged, rows above are split, where that costs nothing */

/* Axes of size 1 need no work; along strides of 0 all elements are equal: keep one and count. */
static wf_node *drop_trivial(wf_graph *g, wf_node *x, unsigned *axes, double *factor) {
    for (int i = 0; x && i < x->shape.rank; i++) {
        if (!(*axes >> i & 1)) continue;
        if (x->shape.dim[i] > 1 && x->stride[i] == 0) {
            *factor *= (double)x->shape.dim[i];
            x = wf_slice(g, x, i, 0, 1);
        }
        if (x && x->shape.dim[i] == 1) *axes &= ~(1u << i);
    }
    return x;
}

/* x with axes from `first` to the last made one, when strides allow it without a copy. */
static wf_node *merge_last(wf_graph *g, wf_node *x, int first) {
    const wf_shape *s = &x->shape;
    for (int i = first; i + 1 < s->rank; i++)
        if (x->stride[i] != x->stride[i + 1] * s->dim[i + 1]) return NULL;
    wf_shape m = *s;
    m.rank = first + 1;
    for (int i = first + 1; i < s->rank; i++) m.dim[first] *= s->dim[i];
    return wf_reshape(g, x, m);
}

/* The largest divisor of n from 256 to 4096, or n. */
static int64_t row_length(int64_t n) {
    for (int64_t d = 4096; d >= 256; d--)
        if (n % d == 0) return d;
    return n;
}

/* Sum over the last axis: merged with reduced axes before it when it is short, cut in pieces when it is long. Axes of the
 * result: those of x before the last, size 1 for the last; *axes loses what is done. */
static wf_node *sum_last(wf_graph *g, wf_node *x, unsigned *axes) {
    int last = x->shape.rank - 1, first = last;
    int64_t n = x->shape.dim[last];
    wf_shape kept = x->shape;
    while (n < NARROW && first > 0 && (*axes >> (first - 1) & 1) && n * x->shape.dim[first - 1] <= WIDE)
        n *= x->shape.dim[--first];
    if (first < last) {
        wf_node *merged = merge_last(g, x, first);
        if (merged)
            x = merged;
        else
            first = last;
    }
    for (int i = first; i <= last; i++) {
        kept.dim[i] = 1;
        *axes &= ~(1u << i);
    }
    int64_t piece = n > WIDE && first == last && x->shape.rank < WF_MAX_RANK ? row_length(n) : n;
    if (piece != n) {
        wf_shape cut = x->shape;
        cut.dim[last] = n / piece;
        cut.dim[cut.rank++] = piece;
        wf_node *pieces = wf_node_new(g, &sum_op, (wf_node *[]){wf_reshape(g, x, cut)}, 1, NULL);
        wf_attr a = {.i = {1 << last}};
        x = wf_node_new(g, &sum_rows_op, &pieces, 1, &a);
    } else {
        x = wf_node_new(g, &sum_op, &x, 1, NULL);
    }
    return wf_reshape(g, x, kept);
}

static bool bad_axes(wf_graph *g, const char *name, wf_node *x, unsigned axes) {
    if (!x) return true;
    if (axes >> x->shape.rank == 0) return false;
    char t[96];
    wf_graph_fail(g, WF_EINVAL, "%s: axis set 0x%x names axes outside of shape %s", name, axes, wf_shape_text(&x->shape, t));
    return true;
}

static wf_node *drop_axes(wf_graph *g, wf_node *y, unsigned axes) {
    if (!y) return NULL;
    wf_shape s = {0};
    for (int i = 0; i < y->shape.rank; i++)
        if (!(axes >> i & 1)) s.dim[s.rank++] = y->shape.dim[i];
    return wf_reshape(g, y, s);
}

/* The same number all along the axes of a tensor of rank `rank` to which k broadcasts? */
static bool constant_along(const wf_node *k, int rank, unsigned axes) {
    for (int i = 0; i < k->shape.rank; i++)
        if (axes >> (i + rank - k->shape.rank) & 1 && k->shape.dim[i] != 1 && k->stride[i] != 0) return false;
    return true;
}

/* k with size 1 along the axes, of rank `rank`. */
static wf_node *one_along(wf_graph *g, wf_node *k, int rank, unsigned axes) {
    wf_shape s = {.rank = rank};
    for (int i = 0; i < rank; i++) s.dim[i] = i < rank - k->shape.rank ? 1 : k->shape.dim[i - rank + k->shape.rank];
    wf_node *small = wf_repeated(k);
    if (small) return one_along(g, small, rank, axes);
    k = wf_reshape(g, k, s);
    for (int i = 0; k && i < rank; i++)
        if (axes >> i & 1 && s.dim[i] != 1) k = wf_slice(g, k, i, 0, 1);
    return k;
}

/* sum(a k) = sum(a) k where k does not change along the summed axes: the product of whole tensors may not be needed at all, and sums
 * of the same a are one. x itself when it is no such product; else *k is what to multiply the sum of the result with. */
static wf_node *factor_out(wf_graph *g, wf_node *x, unsigned axes, wf_node **k) {
    *k = NULL;
    if (!axes || x->op != wf_row_op(WF_ROW_MUL) || (x->dtype != WF_F32 && x->dtype != WF_F64)) return x;
    for (int j = 0; j < 2; j++) {
        wf_node *a = x->in[!j], *b = x->in[j];
        if (a->dtype != x->dtype || b->dtype != x->dtype || !wf_shape_equal(&a->shape, &x->shape)) continue;
        if (!constant_along(b, x->shape.rank, axes) || constant_along(a, x->shape.rank, axes)) continue;
        *k = one_along(g, b, x->shape.rank, axes);
        return a;
    }
    return x;
}

wf_node *wf_sum(wf_graph *g, wf_node *x, unsigned axes, bool keep) {
    if (bad_axes(g, "sum", x, axes)) return NULL;
    if (x->dtype == WF_U8 || x->dtype == WF_I8) x = wf_cast(g, x, WF_I32);
    wf_node *k, *rest = factor_out(g, x, axes, &k);
    if (k) {
        wf_node *y = wf_mul(g, wf_sum(g, rest, axes, true), k);
        return keep ? y : drop_axes(g, y, axes);
    }
    unsigned todo = axes;
    double factor = 1;
    wf_node *y = drop_trivial(g, x, &todo, &factor);
    if (y && todo && todo >> (y->shape.rank - 1) & 1) y = sum_last(g, y, &todo);
    if (y && todo) {
        wf_attr a = {.i = {(int64_t)todo}};
        y = wf_node_new(g, &sum_rows_op, &y, 1, &a);
    }
    y = wf_mul_c(g, y, factor);
    return keep ? y : drop_axes(g, y, axes);
}

wf_node *wf_mean(wf_graph *g, wf_node *x, unsigned axes, bool keep) {
    if (bad_axes(g, "mean", x, axes)) return NULL;
    if (!wf_is_float(x->dtype)) x = wf_cast(g, x, WF_F32);
    double n = 1;
    for (int i = 0; i < x->shape.rank; i++)
        if (axes >> i & 1) n *= (double)x->shape.dim[i];
    return wf_mul_c(g, wf_sum(g, x, axes, keep), 1 / n);
}

/* The reduced axes go last and become one, so that ties are counted over all of them. */
static wf_node *extremum(wf_graph *g, const wf_op *op, wf_node *x, unsigned axes, bool keep) {
    if (bad_axes(g, op->name, x, axes)) return NULL;
    if (!axes) return x;
    int order[WF_MAX_RANK], rank = x->shape.rank, k = 0;
    wf_shape merged = {0}, kept = x->shape;
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        if (!(axes >> i & 1)) {
            merged.dim[merged.rank++] = x->shape.dim[i];
            order[k++] = i;
        }
    for (int i = 0; i < rank; i++)
        if (axes >> i & 1) {
            n *= x->shape.dim[i];
            kept.dim[i] = 1;
            order[k++] = i;
        }
    if (n == 1) return keep ? x : drop_axes(g, x, axes);
    merged.dim[merged.rank++] = n;
    if (axes != 1u << (rank - 1)) x = wf_reshape(g, wf_permute(g, x, order), merged);
    wf_node *y = wf_node_new(g, op, &x, 1, NULL);
    return keep ? wf_reshape(g, y, kept) : drop_axes(g, wf_reshape(g, y, kept), axes);
}

wf_node *wf_amax(wf_graph *g, wf_node *x, unsigned axes, bool keep) {
    return extremum(g, &amax_op, x, axes, keep);
}
wf_node *wf_amin(wf_graph *g, wf_node *x, unsigned axes, bool keep) {
    return extremum(g, &amin_op, x, axes, keep);
}

wf_node *wf_sum_all(wf_graph *g, wf_node *x) {
    if (!x) return NULL;
    if (x->shape.rank == 0) return x;
    return wf_sum(g, x, (1u << x->shape.rank) - 1, false);
}

wf_node *wf_sum_to(wf_graph *g, wf_node *x, const wf_shape *s) {
    if (!x || wf_shape_equal(&x->shape, s)) return x;
    int lead = x->shape.rank - s->rank;
    unsigned axes = lead > 0 ? (1u << lead) - 1 : 0;
    bool fits = lead >= 0;
    for (int i = 0; fits && i < s->rank; i++) {
        if (s->dim[i] == x->shape.dim[i + lead]) continue;
        fits = s->dim[i] == 1;
        axes |= 1u << (i + lead);
    }
    if (!fits) {
        char a[96], b[96];
        return wf_graph_fail(g, WF_EINVAL, "sum_to: %s does not broadcast to %s", wf_shape_text(s, a),
                             wf_shape_text(&x->shape, b));
    }
    return wf_reshape(g, wf_sum(g, x, axes, true), *s);
}
