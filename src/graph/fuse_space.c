/* fuse_space.c: addresses of operands over a common iteration space.
 *
 * Operators of one program may have shapes that differ by reshapes and by axes of size 1. Whatever an operand's shape and
 * strides, over the program's axes it is again a set of strides, if it can be reshaped to these axes without a copy; two
 * operands denote the same element everywhere exactly if these strides are equal.
 */
#include "graph/fuse.h"

#include <string.h>

const wf_shape *wf_iteration_shape(const wf_node *n) {
    int c = n->op->row;
    return wf_is_row_reduction(c) || wf_is_accumulation(c) ? &n->in[0]->shape : &n->shape;
}

wf_shape wf_iteration_space(const wf_node *n) {
    const wf_shape *s = wf_iteration_shape(n);
    wf_shape g = {0};
    for (int i = 0; i < s->rank - 1; i++)
        if (s->dim[i] != 1) g.dim[g.rank++] = s->dim[i];
    g.dim[g.rank++] = s->rank ? s->dim[s->rank - 1] : 1;
    return g;
}

int64_t wf_space_rows(const wf_shape *space) {
    int64_t r = 1;
    for (int i = 0; i < space->rank - 1; i++) r *= space->dim[i];
    return r;
}

enum { FEW_COLUMNS = 16384 };

wf_fit_class wf_fit_in(const wf_node *n, const wf_shape *space) {
    int64_t count = wf_shape_count(wf_iteration_shape(n)), rows = wf_space_rows(space), cols = wf_space_cols(space);
    if (count == rows * cols) return WF_FIT_FULL;
    if (cols > 1 && count == rows && (rows > 1 || cols <= FEW_COLUMNS)) return WF_FIT_NARROW;
    return WF_FIT_NO;
}

/* Strides over axes `to` of the elements that `dim` and `stride` enumerate: each run of axes with the same product must be
 * evenly spaced. Both have the same number of elements. */
static bool restride(const int64_t *dim, const int64_t *stride, int rank, const int64_t *to, int to_rank, int64_t *out) {
    int i = 0, j = 0;
    for (int k = 0; k < to_rank; k++) out[k] = 0;
    for (;;) {
        while (i < rank && dim[i] == 1) i++;
        while (j < to_rank && to[j] == 1) j++;
        if (i == rank || j == to_rank) return i == rank && j == to_rank;
        int i0 = i, j0 = j;
        int64_t a = dim[i++], b = to[j++];
        while (a != b) {
            if (a < b) {
                if (i == rank) return false;
                a *= dim[i++];
            } else {
                if (j == to_rank) return false;
                b *= to[j++];
            }
        }
        int last = i - 1;
        while (dim[last] == 1) last--;
        int64_t s = stride[last], expect = s * dim[last];
        for (int k = last - 1; k >= i0; k--) {
            if (dim[k] == 1) continue;
            if (stride[k] != expect) return false;
            expect *= dim[k];
        }
        for (int k = j - 1; k >= j0; k--) {
            if (to[k] == 1) continue;
            out[k] = s;
            s *= to[k];
        }
    }
}

static bool over_space(const wf_shape *iteration, const int64_t *stride, const wf_shape *space, wf_fit_class c, int64_t *out) {
    out[space->rank - 1] = 0;
    return restride(iteration->dim, stride, iteration->rank, space->dim, c == WF_FIT_FULL ? space->rank : space->rank - 1, out);
}

/* x's strides along the axes of s, to which it broadcasts. */
static void broadcast(const wf_node *x, const wf_shape *s, int64_t *stride) {
    int lead = s->rank - x->shape.rank;
    for (int i = 0; i < s->rank; i++) stride[i] = i < lead || x->shape.dim[i - lead] == 1 ? 0 : x->stride[i - lead];
}

bool wf_operand_strides(const wf_node *n, const wf_node *x, const wf_shape *space, wf_fit_class c, int64_t *stride) {
    int64_t over[WF_MAX_RANK];
    const wf_shape *s = wf_iteration_shape(n);
    broadcast(x, s, over);
    return over_space(s, over, space, c, stride);
}

bool wf_result_strides(const wf_node *n, const wf_shape *space, wf_fit_class c, int64_t *stride) {
    int64_t over[WF_MAX_RANK];
    const wf_shape *s = wf_iteration_shape(n);
    broadcast(n, s, over);
    if (!over_space(s, over, space, c, stride)) return false;
    /* A sum over rows cannot run along the columns, which another operator's shape may make of them. */
    int last = space->rank - 1;
    return !wf_is_accumulation(n->op->row) || c == WF_FIT_NARROW || space->dim[last] == 1 || stride[last] != 0;
}

bool wf_same_strides(const wf_shape *space, const int64_t *a, const int64_t *b) {
    for (int i = 0; i < space->rank; i++)
        if (space->dim[i] != 1 && a[i] != b[i]) return false;
    return true;
}
