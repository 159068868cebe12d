/* move.h: moving elements without arithmetic: strided copies, index checks, row counting. Shared by gather.c, topk.c, shape.c,
 * scan.c and loss.c.
 */
#ifndef WF_MOVE_H
#define WF_MOVE_H

#include "graph/graph.h"

/* Copy a block of `dims` elements of `size` bytes (1, 2, 4, 8) from src to dst; strides in elements, negative ones allowed.
 * The two blocks must not overlap. Runs on all threads when it pays. */
void wf_move_strided(void *dst, const int64_t *dst_stride, const void *src, const int64_t *src_stride, const int64_t *dims,
                     int rank, size_t size);
/* n elements of `size` bytes, each a copy of *value; on all threads when it pays. */
void wf_move_fill(void *dst, const void *value, int64_t n, size_t size);
/* Element of dtype t with the value v, as bytes. */
void wf_move_encode(wf_dtype t, double v, uint8_t bytes[8]);

/* All m indices in lo..hi-1? Otherwise WF_EINVAL naming the operator, the index, its place and the limit. */
wf_status wf_check_indices(const wf_node *n, const int32_t *idx, int64_t m, int64_t lo, int64_t hi);

/* Product of dims [from, to). */
static inline int64_t wf_span(const wf_shape *s, int from, int to) {
    int64_t n = 1;
    for (int a = from; a < to; a++) n *= s->dim[a];
    return n;
}

/* Whether `bytes` of traffic are worth waking the other threads. */
static inline int wf_workers(double bytes) {
    return bytes < 65536 ? 1 : wf_threads();
}

#endif
