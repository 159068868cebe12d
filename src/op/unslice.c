/* unslice.c: the adjoint of slices: pieces along one axis of a tensor that is zero elsewhere.
 *
 * attr.i = {axis, size of the axis, start of each piece..}, pieces by ascending start, without overlap. When the gradients of
 * several slices of one tensor (queries, keys and values of one projection) are added, their pieces become one operator:
 * a concatenation, and no sum of padded tensors.
 */
#include "op/move.h"
#include "op/op.h"
#include "op/view.h"

#include <string.h>

enum { PIECES = 10 };

static wf_status unslice_infer(wf_node *n) {
    n->dtype = n->in[0]->dtype;
    n->shape = n->in[0]->shape;
    n->shape.dim[n->attr.i[0]] = n->attr.i[1];
    return WF_OK;
}

/* Copy src (strides; NULL: zeros) to [start, start + len) of the axis. */
static void put(const wf_call *c, int64_t start, int64_t len, const void *src, const int64_t *stride) {
    static const int64_t zero = 0, none[WF_MAX_RANK] = {0};
    const wf_node *n = c->node;
    int axis = (int)n->attr.i[0];
    int64_t dims[WF_MAX_RANK];
    size_t size = wf_dtype_size(n->dtype);
    if (len < 1) return;
    memcpy(dims, n->shape.dim, sizeof dims);
    dims[axis] = len;
    wf_move_strided((char *)c->out[0] + start * n->stride[axis] * (int64_t)size, n->stride, src ? src : &zero,
                    src ? stride : none, dims, n->shape.rank, size);
}

static wf_status unslice_forward(const wf_call *c) {
    const wf_node *n = c->node;
    int64_t done = 0;
    for (int k = 0; k < n->n_in; k++) {
        int64_t start = n->attr.i[2 + k], len = n->in[k]->shape.dim[n->attr.i[0]];
        put(c, done, start - done, NULL, NULL);
        put(c, start, len, c->in[k], n->in[k]->stride);
        done = start + len;
    }
    put(c, done, n->attr.i[1] - done, NULL, NULL);
    return WF_OK;
}

static wf_status unslice_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    int axis = (int)n->attr.i[0];
    for (int k = 0; k < n->n_in; k++) {
        gin[k] = wf_slice(g, gout[0], axis, n->attr.i[2 + k], n->in[k]->shape.dim[axis]);
        if (!gin[k]) return wf_graph_status(g);
    }
    return WF_OK;
}

static wf_node *unslice_accumulate(wf_graph *g, wf_node *a, wf_node *b);

static const wf_op unslice_op = {.name = "unslice",
                                 .flags = WF_OP_STRIDED,
                                 .infer = unslice_infer,
                                 .forward = unslice_forward,
                                 .vjp = unslice_vjp,
                                 .accumulate = unslice_accumulate};

/* Both sets of pieces in one, or NULL where they overlap or are too many. */
static wf_node *unslice_accumulate(wf_graph *g, wf_node *a, wf_node *b) {
    wf_node *in[PIECES];
    wf_attr attr = {.i = {a->attr.i[0], a->attr.i[1]}};
    int64_t end = 0;
    int n = a->n_in + b->n_in, i = 0, j = 0;
    if (n > PIECES || a->attr.i[0] != b->attr.i[0] || a->attr.i[1] != b->attr.i[1]) return NULL;
    for (int k = 0; k < n; k++) {
        bool from_a = j == b->n_in || (i < a->n_in && a->attr.i[2 + i] < b->attr.i[2 + j]);
        const wf_node *s = from_a ? a : b;
        int at = from_a ? i++ : j++;
        if (s->attr.i[2 + at] < end) return NULL;
        in[k] = s->in[at];
        attr.i[2 + k] = s->attr.i[2 + at];
        end = attr.i[2 + k] + in[k]->shape.dim[attr.i[0]];
    }
    return wf_node_new(g, &unslice_op, in, n, &attr);
}

wf_node *wf_unslice(wf_graph *g, wf_node *x, int axis, int64_t start, int64_t size) {
    wf_attr attr = {.i = {axis, size, start}};
    return x ? wf_node_new(g, &unslice_op, &x, 1, &attr) : NULL;
}
