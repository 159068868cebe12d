/* topk.c: selection and order along the last axis: topk, argsort, argmax.
 *
 * One order everywhere: larger values first (argsort may ask for the reverse), equal values by lower index, NaN above all
 * numbers. Ties to the lower index make routers, pruning and token merging reproducible. Result indices are int32.
 */
#include "op/move.h"
#include "op/op.h"

#include <math.h>
#include <string.h>

static int64_t last_dim(const wf_node *n) {
    return n->shape.dim[n->shape.rank - 1];
}

static wf_status want_row(const wf_node *n) {
    char a[96];
    const wf_node *x = n->in[0];
    if (x->shape.rank >= 1 && last_dim(x) >= 1 && last_dim(x) <= INT32_MAX) return WF_OK;
    return wf_fail(WF_EINVAL, "%s: %s has no last axis to order", n->op->name, wf_shape_text(&x->shape, a));
}

/* Each dtype is compared as a signed integer of the same order: one comparison, NaN highest, -0 equal to 0. */
static inline int64_t key_f32(float f) {
    int32_t b;
    f += 0.0f; /* -0 becomes 0 */
    if (f != f) return INT64_MAX;
    memcpy(&b, &f, sizeof b);
    return b < 0 ? (int64_t)INT32_MIN - b : b;
}
static inline int64_t key_f64(double f) {
    int64_t b;
    f += 0.0;
    if (f != f) return INT64_MAX;
    memcpy(&b, &f, sizeof b);
    return b < 0 ? INT64_MIN - b : b;
}
static inline int64_t key_at(wf_dtype t, const void *x, int64_t i) {
    switch (t) {
    case WF_F32: return key_f32(((const float *)x)[i]);
    case WF_F64: return key_f64(((const double *)x)[i]);
    case WF_BF16: return key_f32(wf_bf16_to_f32(((const uint16_t *)x)[i]));
    case WF_I32: return ((const int32_t *)x)[i];
    case WF_I8: return ((const int8_t *)x)[i];
    default: return ((const uint8_t *)x)[i];
    }
}

/* Does entry a (key ka) come before entry b? */
static inline bool before(int64_t ka, int32_t a, int64_t kb, int32_t b) {
    return ka != kb ? ka > kb : a < b;
}

/* ---- topk: attr.i[0] = k ---- */
static wf_status topk_infer(wf_node *n) {
    char a[96];
    WF_TRY(want_row(n));
    if (n->attr.i[0] < 1 || n->attr.i[0] > last_dim(n->in[0]))
        return wf_fail(WF_EINVAL, "topk: k = %lld of a last axis of %lld (%s)", (long long)n->attr.i[0],
                       (long long)last_dim(n->in[0]), wf_shape_text(&n->in[0]->shape, a));
    n->dtype = n->in[0]->dtype;
    n->shape = n->in[0]->shape;
    n->shape.dim[n->shape.rank - 1] = n->attr.i[0];
    return WF_OK;
}

static wf_status topk_infer_more(const wf_node *n, int k, wf_dtype *t, wf_shape *s) {
    (void)k;
    *t = WF_I32;
    *s = n->shape;
    return WF_OK;
}

static size_t topk_scratch(const wf_node *n) {
    return (size_t)wf_shape_count(&n->shape) * sizeof(int64_t);
}

/* A heap of k entries whose root is the last in the order. */
static void sink(int64_t *key, int32_t *idx, int64_t k, int64_t at) {
    int64_t kv = key[at];
    int32_t iv = idx[at];
    for (int64_t child; (child = 2 * at + 1) < k; at = child) {
        if (child + 1 < k && before(key[child], idx[child], key[child + 1], idx[child + 1])) child++;
        if (!before(kv, iv, key[child], idx[child])) break;
        key[at] = key[child];
        idx[at] = idx[child];
    }
    key[at] = kv;
    idx[at] = iv;
}

/* Are 16 entries all numbers up to `least`? Then none of them enters the heap. */
static bool none_above(const float *x, float least) {
    int above = 0;
    for (int j = 0; j < 16; j++) above |= !(x[j] <= least);
    return !above;
}

/* Indices of the k first entries of x[0..len), in order. */
static void select_row(wf_dtype t, const void *x, int64_t len, int64_t k, int64_t *key, int32_t *idx) {
    for (int64_t i = 0; i < k; i++) {
        key[i] = key_at(t, x, i);
        idx[i] = (int32_t)i;
    }
    for (int64_t i = k / 2 - 1; i >= 0; i--) sink(key, idx, k, i);
    for (int64_t i = k; i < len; i++) {
        while (t == WF_F32 && i + 16 <= len && none_above((const float *)x + i, ((const float *)x)[idx[0]])) i += 16;
        if (i == len) break;
        int64_t v = key_at(t, x, i);
        if (v <= key[0]) continue; /* a later equal value never enters */
        key[0] = v;
        idx[0] = (int32_t)i;
        sink(key, idx, k, 0);
    }
    for (int64_t n = k - 1; n > 0; n--) { /* the last in order goes to the end */
        int64_t kv = key[0];
        int32_t iv = idx[0];
        key[0] = key[n];
        idx[0] = idx[n];
        key[n] = kv;
        idx[n] = iv;
        sink(key, idx, n, 0);
    }
}

static wf_status topk_forward(const wf_call *c) {
    const wf_node *n = c->node, *x = n->in[0];
    int64_t k = n->attr.i[0], len = last_dim(x), rows = wf_span(&n->shape, 0, n->shape.rank - 1);
    size_t size = wf_dtype_size(n->dtype);
    int workers = wf_workers((double)(rows * len) * 8);
#pragma omp parallel for schedule(static) num_threads(workers) if (workers > 1)
    for (int64_t r = 0; r < rows; r++) {
        const char *row = (const char *)c->in[0] + (size_t)(r * len) * size;
        char *y = (char *)c->out[0] + (size_t)(r * k) * size;
        int32_t *idx = (int32_t *)c->out[1] + r * k;
        select_row(n->dtype, row, len, k, (int64_t *)c->scratch + r * k, idx);
        for (int64_t j = 0; j < k; j++) memcpy(y + (size_t)j * size, row + (size_t)idx[j] * size, size);
    }
    return WF_OK;
}

static wf_status topk_vjp(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin) {
    if (!gout[0] || !wf_is_float(n->dtype)) return WF_OK;
    gin[0] = wf_put_add(g, gout[0], wf_output(n, 1), last_dim(n->in[0]));
    return gin[0] ? WF_OK : wf_graph_status(g);
}

static const wf_op topk_op = {.name = "topk",
                              .n_out = 2,
                              .infer = topk_infer,
                              .infer_more = topk_infer_more,
                              .forward = topk_forward,
                              .vjp = topk_vjp,
                              .scratch = topk_scratch};

wf_node *wf_topk(wf_graph *g, wf_node *x, int64_t k) {
    wf_attr a = {.i = {k}};
    return wf_node_new(g, &topk_op, (wf_node *[]){x}, 1, &a);
}

/* ---- argsort: attr.i[0] = descending ---- */
static wf_status argsort_infer(wf_node *n) {
    WF_TRY(want_row(n));
    n->dtype = WF_I32;
    n->shape = n->in[0]->shape;
    return WF_OK;
}

typedef struct sort_entry {
    int64_t key;
    int32_t idx;
} sort_entry;

static size_t argsort_scratch(const wf_node *n) {
    return 2 * (size_t)wf_shape_count(&n->shape) * sizeof(sort_entry);
}

/* Ascending, stable: insertion on runs of 16, then merges between two buffers. Returns the buffer with the result. */
static sort_entry *sort_row(sort_entry *a, sort_entry *b, int64_t n) {
    for (int64_t s = 0; s < n; s += 16) {
        int64_t end = s + 16 < n ? s + 16 : n;
        for (int64_t i = s + 1; i < end; i++) {
            sort_entry e = a[i];
            int64_t j = i;
            for (; j > s && a[j - 1].key > e.key; j--) a[j] = a[j - 1];
            a[j] = e;
        }
    }
    for (int64_t w = 16; w < n; w *= 2) {
        for (int64_t s = 0; s < n; s += 2 * w) {
            int64_t mid = s + w < n ? s + w : n, end = s + 2 * w < n ? s + 2 * w : n, i = s, j = mid;
            for (int64_t o = s; o < end; o++) b[o] = i < mid && (j >= end || a[i].key <= a[j].key) ? a[i++] : a[j++];
        }
        sort_entry *t = a;
        a = b;
        b = t;
    }
    return a;
}

static wf_status argsort_forward(const wf_call *c) {
    const wf_node *n = c->node, *x = n->in[0];
    int64_t len = last_dim(x), rows = wf_span(&n->shape, 0, n->shape.rank - 1);
    size_t size = wf_dtype_size(x->dtype);
    int workers = wf_workers((double)(rows * len) * 64);
#pragma omp parallel for schedule(static) num_threads(workers) if (workers > 1)
    for (int64_t r = 0; r < rows; r++) {
        const char *row = (const char *)c->in[0] + (size_t)(r * len) * size;
        sort_entry *a = (sort_entry *)c->scratch + 2 * r * len;
        for (int64_t j = 0; j < len; j++) {
            int64_t k = key_at(x->dtype, row, j);
            a[j] = (sort_entry){n->attr.i[0] ? -1 - k : k, (int32_t)j};
        }
        a = sort_row(a, a + len, len);
        for (int64_t j = 0; j < len; j++) ((int32_t *)c->out[0])[r * len + j] = a[j].idx;
    }
    return WF_OK;
}

static const wf_op argsort_op = {
    .name = "argsort", .infer = argsort_infer, .forward = argsort_forward, .scratch = argsort_scratch};

wf_node *wf_argsort(wf_graph *g, wf_node *x, bool descending) {
    wf_attr a = {.i = {descending}};
    return wf_node_new(g, &argsort_op, (wf_node *[]){x}, 1, &a);
}

/* ---- argmax ---- */
static wf_status argmax_infer(wf_node *n) {
    WF_TRY(want_row(n));
    n->dtype = WF_I32;
    n->shape = n->in[0]->shape;
    n->shape.rank--;
    return WF_OK;
}

/* The largest of a float row in eight independent lanes, then the first place that holds it. */
static int32_t argmax_f32(const float *x, int64_t len) {
    float lane[8], top = -INFINITY;
    int nan = 0;
    int64_t j = 0;
    for (int k = 0; k < 8; k++) lane[k] = -INFINITY;
    for (; j + 8 <= len; j += 8)
        for (int k = 0; k < 8; k++) {
            lane[k] = x[j + k] > lane[k] ? x[j + k] : lane[k];
            nan |= x[j + k] != x[j + k];
        }
    for (; j < len; j++) {
        top = x[j] > top ? x[j] : top;
        nan |= x[j] != x[j];
    }
    for (int k = 0; k < 8; k++) top = lane[k] > top ? lane[k] : top;
    for (j = 0; nan ? x[j] == x[j] : x[j] != top; j++) {}
    return (int32_t)j;
}

static int32_t argmax_any(wf_dtype t, const void *x, int64_t len) {
    int64_t best = key_at(t, x, 0), at = 0;
    for (int64_t j = 1; j < len; j++) {
        int64_t k = key_at(t, x, j);
        if (k > best) best = k, at = j;
    }
    return (int32_t)at;
}

static wf_status argmax_forward(const wf_call *c) {
    const wf_node *n = c->node, *x = n->in[0];
    int64_t len = last_dim(x), rows = wf_shape_count(&n->shape);
    size_t size = wf_dtype_size(x->dtype);
    int32_t *y = c->out[0];
    int workers = wf_workers((double)(rows * len) * 8);
#pragma omp parallel for schedule(static) num_threads(workers) if (workers > 1)
    for (int64_t r = 0; r < rows; r++) {
        const char *row = (const char *)c->in[0] + (size_t)(r * len) * size;
        y[r] = x->dtype == WF_F32 ? argmax_f32((const float *)row, len) : argmax_any(x->dtype, row, len);
    }
    return WF_OK;
}

static const wf_op argmax_op = {.name = "argmax", .infer = argmax_infer, .forward = argmax_forward};

wf_node *wf_argmax(wf_graph *g, wf_node *x) {
    return wf_node_new(g, &argmax_op, (wf_node *[]){x}, 1, NULL);
}
