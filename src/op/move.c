/* move.c: strided copies, fills and index checks (move.h). */
#include "op/move.h"

#include <string.h>

/* A block copy with axes merged where both sides allow it; the last axis is the run. */
typedef struct run_block {
    int rank;
    int64_t dim[WF_MAX_RANK + 1], to[WF_MAX_RANK + 1], from[WF_MAX_RANK + 1];
} run_block;

static void merge_axes(run_block *b, const int64_t *to, const int64_t *from, const int64_t *dims, int rank) {
    b->rank = 0;
    for (int a = 0; a < rank; a++) {
        if (dims[a] == 1) continue;
        int last = b->rank - 1;
        if (last >= 0 && b->to[last] == to[a] * dims[a] && b->from[last] == from[a] * dims[a]) {
            b->dim[last] *= dims[a];
        } else {
            last = b->rank++;
            b->dim[last] = dims[a];
        }
        b->to[last] = to[a];
        b->from[last] = from[a];
    }
    if (!b->rank) {
        b->rank = 1;
        b->dim[0] = b->to[0] = b->from[0] = 1;
    }
}

#define COPY_LOOP(T)                                                                                                           \
    do {                                                                                                                       \
        T *d = (T *)dst;                                                                                                       \
        const T *s = (const T *)src;                                                                                           \
        for (int64_t i = 0; i < n; i++) d[i * to] = s[i * from];                                                               \
    } while (0)

static void copy_run(void *dst, int64_t to, const void *src, int64_t from, int64_t n, size_t size) {
    if (to == 1 && from == 1) {
        memcpy(dst, src, (size_t)n * size);
        return;
    }
    switch (size) {
    case 1: COPY_LOOP(uint8_t); break;
    case 2: COPY_LOOP(uint16_t); break;
    case 4: COPY_LOOP(uint32_t); break;
    default: COPY_LOOP(uint64_t); break;
    }
}

/* Runs first .. first+count-1 of the block, one odometer a caller. */
static void copy_runs(const run_block *b, char *dst, const char *src, int64_t first, int64_t count, size_t size) {
    int outer = b->rank - 1;
    int64_t at[WF_MAX_RANK + 1], d = 0, s = 0, rest = first;
    for (int a = outer - 1; a >= 0; a--) {
        at[a] = rest % b->dim[a];
        rest /= b->dim[a];
        d += at[a] * b->to[a];
        s += at[a] * b->from[a];
    }
    for (int64_t r = 0; r < count; r++) {
        copy_run(dst + d * (int64_t)size, b->to[outer], src + s * (int64_t)size, b->from[outer], b->dim[outer], size);
        for (int a = outer - 1; a >= 0; a--) {
            d += b->to[a];
            s += b->from[a];
            if (++at[a] < b->dim[a]) break;
            d -= b->to[a] * b->dim[a];
            s -= b->from[a] * b->dim[a];
            at[a] = 0;
        }
    }
}

/* Cut a long run into pieces of about 64 KiB so that several threads find work; an uneven rest keeps the run whole. */
static void split_run(run_block *b, size_t size) {
    int last = b->rank - 1;
    int64_t piece = 65536 / (int64_t)size;
    if (b->rank > WF_MAX_RANK || b->dim[last] < 2 * piece) return;
    while (piece > 256 && b->dim[last] % piece) piece--;
    if (b->dim[last] % piece) return;
    b->dim[last + 1] = piece;
    b->to[last + 1] = b->to[last];
    b->from[last + 1] = b->from[last];
    b->dim[last] /= piece;
    b->to[last] *= piece;
    b->from[last] *= piece;
    b->rank++;
}

void wf_move_strided(void *dst, const int64_t *dst_stride, const void *src, const int64_t *src_stride, const int64_t *dims,
                     int rank, size_t size) {
    run_block b;
    int64_t runs = 1;
    for (int a = 0; a < rank; a++)
        if (dims[a] < 1) return;
    merge_axes(&b, dst_stride, src_stride, dims, rank);
    double bytes = 2.0 * (double)size;
    for (int a = 0; a < b.rank; a++) bytes *= (double)b.dim[a];
    int workers = wf_workers(bytes);
    if (workers > 1) split_run(&b, size);
    for (int a = 0; a < b.rank - 1; a++) runs *= b.dim[a];
    if (workers > runs) workers = (int)runs;
#pragma omp parallel for schedule(static, 1) num_threads(workers) if (workers > 1)
    for (int w = 0; w < workers; w++) {
        int64_t first = runs * w / workers, end = runs * (w + 1) / workers;
        copy_runs(&b, dst, src, first, end - first, size);
    }
}

static void fill_part(char *dst, const void *value, int64_t n, size_t size) {
    for (int64_t i = 0; i < n && i < 512; i++) memcpy(dst + i * (int64_t)size, value, size);
    for (int64_t i = 512; i < n; i += 512) memcpy(dst + i * (int64_t)size, dst, (size_t)(n - i < 512 ? n - i : 512) * size);
}

void wf_move_fill(void *dst, const void *value, int64_t n, size_t size) {
    int workers = wf_workers((double)n * (double)size);
#pragma omp parallel for schedule(static, 1) num_threads(workers) if (workers > 1)
    for (int w = 0; w < workers; w++) {
        int64_t first = n * w / workers, end = n * (w + 1) / workers;
        fill_part((char *)dst + first * (int64_t)size, value, end - first, size);
    }
}

void wf_move_encode(wf_dtype t, double v, uint8_t bytes[8]) {
    float f = (float)v;
    uint16_t h = wf_f32_to_bf16(f);
    int32_t i = (int32_t)v;
    memset(bytes, 0, 8);
    switch (t) {
    case WF_F32: memcpy(bytes, &f, sizeof f); break;
    case WF_BF16: memcpy(bytes, &h, sizeof h); break;
    case WF_I32: memcpy(bytes, &i, sizeof i); break;
    case WF_F64: memcpy(bytes, &v, sizeof v); break;
    default: bytes[0] = (uint8_t)i; break;
    }
}

wf_status wf_check_indices(const wf_node *n, const int32_t *idx, int64_t m, int64_t lo, int64_t hi) {
    int bad = 0;
    for (int64_t i = 0; i < m; i++) bad |= (idx[i] < lo) | (idx[i] >= hi);
    if (!bad) return WF_OK;
    int64_t at = 0;
    while (idx[at] >= lo && idx[at] < hi) at++;
    return wf_fail(WF_EINVAL, "%s: index %d (entry %lld of the indices) is outside %lld..%lld", n->op->name, (int)idx[at],
                   (long long)at, (long long)lo, (long long)hi - 1);
}
