/* gather.c: rows and entries by index, and the adjoint sums: gather <-> scatter_add, take <-> put_add; one_hot.
 *
 * gather:      y[i, ..] = table[idx[i], ..]          scatter_add: y[r, ..] = sum of src[i, ..] over the i with idx[i] == r
 * take:        y[.., j] = x[.., idx[.., j]]          put_add:     y[.., r] = sum of src[.., j] over the j with idx[.., j] == r
 *
 * In the sums negative indices are skipped. Sums run in the order of the source entries, each destination by one thread, so
 * that the result does not depend on the number of threads. bfloat16 is summed in float32 and rounded once.
 */
#include "op/move.h"
#include "op/op.h"

#include <string.h>

static bool is_index(const wf_node *n) {
    return n->dtype == WF_I32;
}

static wf_status want_indices(const wf_node *n, const wf_node *idx) {
    if (is_index(idx)) return WF_OK;
    return wf_fail(WF_EINVAL, "%s: indices must be int32, not %s", n->op->name, wf_dtype_name(idx->dtype));
}

/* ---- gather: attr.i[0] != 0: a negative index gives a row of zeros (the adjoint of a sum that skips it) ---- */
static wf_status gather_infer(wf_node *n) {
    const wf_node *table = n->in[0], *idx = n->in[1];
    char a[96], b[96];
    WF_TRY(want_indices(n, idx));
    if (table->shape.rank < 1 || table->shape.rank - 1 + idx->shape.rank > WF_MAX_RANK)
        return wf_fail(WF_EINVAL,
                       "gather: table %s by indices %s: the table needs an axis of rows, and the result at most %d axes",
                       wf_shape_text(&table->shape, a), wf_shape_text(&idx->shape, b), WF_MAX_RANK);
    n->dtype = table->dtype;
    n->shape = idx->shape;
    for (int k = 1; k < table->shape.rank; k++) n->shape.dim[n->shape.rank++] = table->shape.dim[k];
    return WF_OK;
}

static wf_status gather_forward(const wf_call *c) {
    const wf_node *n = c->node, *table = n->in[0];
    const int32_t *idx = c->in[1];
    int64_t m = wf_shape_count(&n->in[1]->shape), rows = table->shape.dim[0];
    size_t bytes = (size_t)wf_span(&table->shape, 1, table->shape.rank) * wf_dtype_size(n->dtype);
    WF_TRY(wf_check_indices(n, idx, m, n->attr.i[0] ? INT32_MIN : 0, rows));
    const char *t = c->in[0];
    char *y = c->out[0];
    int workers = wf_workers((double)m * (double)bytes);
#pragma omp parallel for schedule(static) num_threads(workers) if (workers > 1)
    for (int64_t i = 0; i < m; i++) {
        if (idx[i] < 0)
            memset(y + (size_t)i * bytes, 0, bytes);
        else
            memcpy(y + (size_t)i * bytes, t + (size_t)idx[i] * bytes, bytes);
    }
    return WF_OK;
}

static wf_status gather_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    if (!gout[0] || !wf_is_float(n->dtype)) return WF_OK;
    gin[0] = wf_scatter_add(g, gout[0], n->in[1], n->in[0]->shape.dim[0]);
    return gin[0] ? WF_OK : wf_graph_status(g);
}

static void gather_cost(const wf_node *n, wf_cost *c) {
    double out = (double)wf_shape_count(&n->shape) * (double)wf_dtype_size(n->dtype);
    c->flops = 0;
    c->bytes_written = out;
    c->bytes_read = out + 4.0 * (double)wf_shape_count(&n->in[1]->shape);
}

static const wf_op gather_op = {
    .name = "gather", .infer = gather_infer, .forward = gather_forward, .vjp = gather_vjp, .cost = gather_cost};

static wf_node *gather_rows(wf_graph *g, wf_node *table, wf_node *idx, bool skip) {
    wf_attr a = {.i = {skip}};
    return wf_node_new(g, &gather_op, (wf_node *[]){table, idx}, 2, &a);
}

wf_node *wf_gather(wf_graph *g, wf_node *table, wf_node *idx) {
    return gather_rows(g, table, idx, false);
}

/* ---- scatter_add: attr.i[0] = rows of the result ---- */
static wf_status scatter_infer(wf_node *n) {
    const wf_node *src = n->in[0], *idx = n->in[1];
    char a[96], b[96];
    WF_TRY(want_indices(n, idx));
    bool fits = src->shape.rank >= idx->shape.rank && src->shape.rank - idx->shape.rank + 1 <= WF_MAX_RANK;
    for (int k = 0; fits && k < idx->shape.rank; k++) fits = src->shape.dim[k] == idx->shape.dim[k];
    if (!fits)
        return wf_fail(WF_EINVAL, "scatter_add: source %s does not start with the axes of the indices %s",
                       wf_shape_text(&src->shape, a), wf_shape_text(&idx->shape, b));
    if (n->attr.i[0] < 1) return wf_fail(WF_EINVAL, "scatter_add: a result of %lld rows", (long long)n->attr.i[0]);
    if (!wf_is_float(src->dtype))
        return wf_fail(WF_EUNSUPPORTED, "scatter_add: source must be floating point, not %s", wf_dtype_name(src->dtype));
    n->dtype = src->dtype;
    n->shape.rank = 1;
    n->shape.dim[0] = n->attr.i[0];
    for (int k = idx->shape.rank; k < src->shape.rank; k++) n->shape.dim[n->shape.rank++] = src->shape.dim[k];
    return WF_OK;
}

/* Source rows sorted by destination, stable: rows of destination r are order[start[r]] .. order[start[r+1]-1]. */
static void bucket(const int32_t *idx, int64_t m, int64_t rows, int64_t *start, int64_t *order) {
    memset(start, 0, (size_t)(rows + 1) * sizeof *start);
    for (int64_t i = 0; i < m; i++)
        if (idx[i] >= 0) start[idx[i] + 1]++;
    for (int64_t r = 0; r < rows; r++) start[r + 1] += start[r];
    for (int64_t i = 0; i < m; i++)
        if (idx[i] >= 0) order[start[idx[i]]++] = i;
    for (int64_t r = rows; r > 0; r--) start[r] = start[r - 1];
    start[0] = 0;
}

static size_t scatter_scratch(const wf_node *n) {
    return (size_t)(n->attr.i[0] + 1 + wf_shape_count(&n->in[1]->shape)) * sizeof(int64_t);
}

#define SUM_COLUMNS 512 /* columns of one destination that one task sums */

#define SUM_ROWS(NAME, T)                                                                                                      \
    static void NAME(T *restrict y, const T *restrict src, const int64_t *order, int64_t n, int64_t stride, int64_t cols) {    \
        if (!n) {                                                                                                              \
            memset(y, 0, (size_t)cols * sizeof *y);                                                                            \
            return;                                                                                                            \
        }                                                                                                                      \
        memcpy(y, src + order[0] * stride, (size_t)cols * sizeof *y);                                                          \
        for (int64_t k = 1; k < n; k++) {                                                                                      \
            const T *restrict s = src + order[k] * stride;                                                                     \
            for (int64_t j = 0; j < cols; j++) y[j] += s[j];                                                                   \
        }                                                                                                                      \
    }
SUM_ROWS(sum_rows_f32, float)
SUM_ROWS(sum_rows_f64, double)

static void sum_rows_bf16(uint16_t *restrict y, const uint16_t *restrict src, const int64_t *order, int64_t n, int64_t stride,
                          int64_t cols) {
    float acc[SUM_COLUMNS] = {0};
    for (int64_t k = 0; k < n; k++)
        for (int64_t j = 0; j < cols; j++) acc[j] += wf_bf16_to_f32(src[order[k] * stride + j]);
    for (int64_t j = 0; j < cols; j++) y[j] = wf_f32_to_bf16(acc[j]);
}

static wf_status scatter_forward(const wf_call *c) {
    const wf_node *n = c->node;
    const int32_t *idx = c->in[1];
    int64_t m = wf_shape_count(&n->in[1]->shape), rows = n->attr.i[0], width = wf_span(&n->shape, 1, n->shape.rank);
    WF_TRY(wf_check_indices(n, idx, m, INT32_MIN, rows));
    int64_t *start = c->scratch, *order = start + rows + 1;
    bucket(idx, m, rows, start, order);
    int64_t blocks = (width + SUM_COLUMNS - 1) / SUM_COLUMNS;
    int workers = wf_workers((double)(m + rows) * (double)width * (double)wf_dtype_size(n->dtype));
#pragma omp parallel for schedule(dynamic, 4) num_threads(workers) if (workers > 1)
    for (int64_t task = 0; task < rows * blocks; task++) {
        int64_t r = task / blocks, j = task % blocks * SUM_COLUMNS, cols = width - j < SUM_COLUMNS ? width - j : SUM_COLUMNS;
        int64_t k = start[r + 1] - start[r], at = r * width + j;
        const int64_t *o = order + start[r];
        if (n->dtype == WF_F32)
            sum_rows_f32((float *)c->out[0] + at, (float *)c->in[0] + j, o, k, width, cols);
        else if (n->dtype == WF_F64)
            sum_rows_f64((double *)c->out[0] + at, (double *)c->in[0] + j, o, k, width, cols);
        else
            sum_rows_bf16((uint16_t *)c->out[0] + at, (uint16_t *)c->in[0] + j, o, k, width, cols);
    }
    return WF_OK;
}

static wf_status scatter_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    if (!gout[0]) return WF_OK;
    gin[0] = gather_rows(g, gout[0], n->in[1], true);
    return gin[0] ? WF_OK : wf_graph_status(g);
}

static void sum_cost(const wf_node *n, wf_cost *c) { /* scatter_add and put_add: one addition an entry of the source */
    double src = (double)wf_shape_count(&n->in[0]->shape), size = (double)wf_dtype_size(n->dtype);
    c->flops = src;
    c->bytes_read = src * size + 4.0 * (double)wf_shape_count(&n->in[1]->shape);
    c->bytes_written = (double)wf_shape_count(&n->shape) * size;
}

static const wf_op scatter_op = {.name = "scatter_add",
                                 .infer = scatter_infer,
                                 .forward = scatter_forward,
                                 .vjp = scatter_vjp,
                                 .cost = sum_cost,
                                 .scratch = scatter_scratch};

wf_node *wf_scatter_add(wf_graph *g, wf_node *src, wf_node *idx, int64_t n) {
    wf_attr a = {.i = {n}};
    return wf_node_new(g, &scatter_op, (wf_node *[]){src, idx}, 2, &a);
}

/* ---- take and put_add: along the last axis; all other axes agree ---- */
static wf_status last_axis_infer(wf_node *n, int64_t last) {
    const wf_node *x = n->in[0], *idx = n->in[1];
    char a[96], b[96];
    WF_TRY(want_indices(n, idx));
    bool fits = x->shape.rank >= 1 && x->shape.rank == idx->shape.rank;
    for (int k = 0; fits && k < x->shape.rank - 1; k++) fits = x->shape.dim[k] == idx->shape.dim[k];
    if (!fits)
        return wf_fail(WF_EINVAL, "%s: %s by indices %s: all axes but the last must agree", n->op->name,
                       wf_shape_text(&x->shape, a), wf_shape_text(&idx->shape, b));
    n->dtype = x->dtype;
    n->shape = x->shape;
    n->shape.dim[n->shape.rank - 1] = last;
    return WF_OK;
}

/* attr.i[0] != 0: a negative index gives zero */
static wf_status take_infer(wf_node *n) {
    return last_axis_infer(n, n->in[1]->shape.rank ? n->in[1]->shape.dim[n->in[1]->shape.rank - 1] : 1);
}

#define TAKE_ROW(T)                                                                                                            \
    for (int64_t j = 0; j < k; j++) ((T *)y)[j] = i[j] < 0 ? (T)0 : ((const T *)x)[i[j]];

static void take_row(char *y, const char *x, const int32_t *i, int64_t k, size_t size) {
    switch (size) {
    case 1: TAKE_ROW(uint8_t) break;
    case 2: TAKE_ROW(uint16_t) break;
    case 4: TAKE_ROW(uint32_t) break;
    default: TAKE_ROW(uint64_t) break;
    }
}

static wf_status take_forward(const wf_call *c) {
    const wf_node *n = c->node, *x = n->in[0];
    const int32_t *idx = c->in[1];
    int64_t k = n->shape.dim[n->shape.rank - 1], len = x->shape.dim[n->shape.rank - 1],
            rows = wf_span(&n->shape, 0, n->shape.rank - 1);
    size_t size = wf_dtype_size(n->dtype);
    WF_TRY(wf_check_indices(n, idx, rows * k, n->attr.i[0] ? INT32_MIN : 0, len));
    int workers = wf_workers((double)(rows * k) * 16);
#pragma omp parallel for schedule(static) num_threads(workers) if (workers > 1)
    for (int64_t r = 0; r < rows; r++)
        take_row((char *)c->out[0] + (size_t)(r * k) * size, (char *)c->in[0] + (size_t)(r * len) * size, idx + r * k, k, size);
    return WF_OK;
}

static wf_status take_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    if (!gout[0] || !wf_is_float(n->dtype)) return WF_OK;
    const wf_shape *s = &n->in[0]->shape;
    gin[0] = wf_put_add(g, gout[0], n->in[1], s->dim[s->rank - 1]);
    return gin[0] ? WF_OK : wf_graph_status(g);
}

static const wf_op take_op = {
    .name = "take", .infer = take_infer, .forward = take_forward, .vjp = take_vjp, .cost = gather_cost};

static wf_node *take_entries(wf_graph *g, wf_node *x, wf_node *idx, bool skip) {
    wf_attr a = {.i = {skip}};
    return wf_node_new(g, &take_op, (wf_node *[]){x, idx}, 2, &a);
}

wf_node *wf_take(wf_graph *g, wf_node *x, wf_node *idx) {
    return take_entries(g, x, idx, false);
}

/* attr.i[0] = length of the result's last axis */
static wf_status put_infer(wf_node *n) {
    char a[96], b[96];
    WF_TRY(last_axis_infer(n, n->attr.i[0]));
    const wf_node *src = n->in[0], *idx = n->in[1];
    if (!wf_shape_equal(&src->shape, &idx->shape))
        return wf_fail(WF_EINVAL, "put_add: source %s and indices %s must have one shape", wf_shape_text(&src->shape, a),
                       wf_shape_text(&idx->shape, b));
    if (n->attr.i[0] < 1) return wf_fail(WF_EINVAL, "put_add: a last axis of %lld", (long long)n->attr.i[0]);
    if (!wf_is_float(src->dtype))
        return wf_fail(WF_EUNSUPPORTED, "put_add: source must be floating point, not %s", wf_dtype_name(src->dtype));
    return WF_OK;
}

static size_t put_scratch(const wf_node *n) { /* float32 sums of bfloat16 */
    return n->dtype == WF_BF16 ? (size_t)wf_shape_count(&n->shape) * sizeof(float) : 0;
}

#define PUT_ROW(T)                                                                                                             \
    for (int64_t j = 0; j < k; j++)                                                                                            \
        if (i[j] >= 0) ((T *)y)[i[j]] += ((const T *)src)[j];

static void put_row(wf_dtype t, void *y, const void *src, const int32_t *i, int64_t k, int64_t len, float *sum) {
    if (t == WF_BF16)
        memset(sum, 0, (size_t)len * sizeof *sum);
    else
        memset(y, 0, (size_t)len * wf_dtype_size(t));
    if (t == WF_F32) {
        PUT_ROW(float)
    } else if (t == WF_F64) {
        PUT_ROW(double)
    } else {
        for (int64_t j = 0; j < k; j++)
            if (i[j] >= 0) sum[i[j]] += wf_bf16_to_f32(((const uint16_t *)src)[j]);
        for (int64_t j = 0; j < len; j++) ((uint16_t *)y)[j] = wf_f32_to_bf16(sum[j]);
    }
}

static wf_status put_forward(const wf_call *c) {
    const wf_node *n = c->node;
    const int32_t *idx = c->in[1];
    int last = n->shape.rank - 1;
    int64_t k = n->in[0]->shape.dim[last], len = n->attr.i[0], rows = wf_span(&n->shape, 0, last);
    size_t size = wf_dtype_size(n->dtype);
    WF_TRY(wf_check_indices(n, idx, rows * k, INT32_MIN, len));
    int workers = wf_workers((double)(rows * (k + len)) * 8);
#pragma omp parallel for schedule(static) num_threads(workers) if (workers > 1)
    for (int64_t r = 0; r < rows; r++)
        put_row(n->dtype, (char *)c->out[0] + (size_t)(r * len) * size, (char *)c->in[0] + (size_t)(r * k) * size, idx + r * k,
                k, len, n->dtype == WF_BF16 ? (float *)c->scratch + r * len : NULL);
    return WF_OK;
}

static wf_status put_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    if (!gout[0]) return WF_OK;
    gin[0] = take_entries(g, gout[0], n->in[1], true);
    return gin[0] ? WF_OK : wf_graph_status(g);
}

static const wf_op put_op = {
    .name = "put_add", .infer = put_infer, .forward = put_forward, .vjp = put_vjp, .cost = sum_cost, .scratch = put_scratch};

wf_node *wf_put_add(wf_graph *g, wf_node *src, wf_node *idx, int64_t n) {
    wf_attr a = {.i = {n}};
    return wf_node_new(g, &put_op, (wf_node *[]){src, idx}, 2, &a);
}

/* ---- one_hot: attr.i[0] = n, attr.i[1] = dtype; a negative index gives a row of zeros ---- */
static wf_status one_hot_infer(wf_node *n) {
    char a[96];
    WF_TRY(want_indices(n, n->in[0]));
    if (n->attr.i[0] < 1 || n->in[0]->shape.rank + 1 > WF_MAX_RANK)
        return wf_fail(WF_EINVAL, "one_hot: indices %s into %lld columns", wf_shape_text(&n->in[0]->shape, a),
                       (long long)n->attr.i[0]);
    n->dtype = (wf_dtype)n->attr.i[1];
    n->shape = n->in[0]->shape;
    n->shape.dim[n->shape.rank++] = n->attr.i[0];
    return WF_OK;
}

static wf_status one_hot_forward(const wf_call *c) {
    const wf_node *n = c->node;
    const int32_t *idx = c->in[0];
    int64_t m = wf_shape_count(&n->in[0]->shape), cols = n->attr.i[0];
    size_t size = wf_dtype_size(n->dtype);
    uint8_t one[8], zero[8] = {0};
    WF_TRY(wf_check_indices(n, idx, m, INT32_MIN, cols));
    wf_move_encode(n->dtype, 1, one);
    wf_move_fill(c->out[0], zero, m * cols, size);
    for (int64_t i = 0; i < m; i++)
        if (idx[i] >= 0) memcpy((char *)c->out[0] + (size_t)(i * cols + idx[i]) * size, one, size);
    return WF_OK;
}

static const wf_op one_hot_op = {.name = "one_hot", .infer = one_hot_infer, .forward = one_hot_forward};

wf_node *wf_one_hot(wf_graph *g, wf_node *idx, int64_t n, wf_dtype t) {
    wf_attr a = {.i = {n, t}};
    return wf_node_new(g, &one_hot_op, (wf_node *[]){idx}, 1, &a);
}
