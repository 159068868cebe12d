/* offsets.c: packing of buffers with known lives into one arena (dynamic storage allocation).
 *
 * Buffers are placed one after the other, each into the smallest gap that no buffer alive at the same time occupies. Which
 * order is good depends on the graph: a few are tried (largest first, longest-lived first, by area, by time) and the best is
 * kept; the search ends when an order reaches the bound, the most bytes that are alive at one step.
 */
#include "graph/planned.h"

#include <stdlib.h>
#include <string.h>

typedef enum { BY_SIZE, BY_AREA, BY_LIFE, BY_TIME, ORDERS } order_kind;

typedef struct item {
    size_t bytes, offset;
    int first, last, index;
    double key; /* larger is placed earlier */
} item;

static int by_key(const void *a, const void *b) {
    const item *x = a, *y = b;
    if (x->key != y->key) return x->key > y->key ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes > y->bytes ? -1 : 1;
    return x->index - y->index;
}

static void order_items(item *it, int n, order_kind kind) {
    for (int i = 0; i < n; i++) {
        double life = it[i].last - it[i].first + 1.0, bytes = (double)it[i].bytes;
        it[i].key = kind == BY_SIZE ? bytes : kind == BY_AREA ? bytes * life : kind == BY_LIFE ? life : -it[i].first;
    }
    qsort(it, (size_t)n, sizeof *it, by_key);
}

/* Place it[0..n) in this order. placed[] holds those placed so far by ascending offset. Gives up beyond `best` bytes. */
static size_t place_in_order(item *it, int n, item **placed, size_t best) {
    size_t top = 0;
    for (int i = 0; i < n; i++) {
        item *x = &it[i];
        size_t at = 0, gap = SIZE_MAX, chosen = SIZE_MAX;
        for (int k = 0; k < i; k++) { /* gaps between the buffers that are alive together with x */
            const item *y = placed[k];
            if (y->last < x->first || x->last < y->first) continue;
            if (y->offset > at && y->offset - at >= x->bytes && y->offset - at < gap) {
                gap = y->offset - at;
                chosen = at;
            }
            if (y->offset + y->bytes > at) at = y->offset + y->bytes;
        }
        x->offset = chosen != SIZE_MAX ? chosen : at;
        if (x->offset + x->bytes > top) top = x->offset + x->bytes;
        if (top >= best) return top;
        int k = i;
        for (; k > 0 && placed[k - 1]->offset > x->offset; k--) placed[k] = placed[k - 1];
        placed[k] = x;
    }
    return top;
}

/* Most bytes alive at one step: no packing needs less. */
static size_t bound(const wf_buffer *b, int n, int64_t *delta, int n_steps) {
    int64_t live = 0, most = 0;
    for (int i = 0; i < n; i++) {
        delta[b[i].first] += (int64_t)b[i].bytes;
        delta[b[i].last + 1] -= (int64_t)b[i].bytes;
    }
    for (int s = 0; s <= n_steps; s++) {
        live += delta[s];
        if (live > most) most = live;
    }
    return (size_t)most;
}

wf_status wf_place_offsets(wf_buffer *b, int n, int n_steps, size_t *bytes, size_t *live) {
    item *it = wf_alloc_array((size_t)n + 1, sizeof *it);
    item **placed = wf_alloc_array((size_t)n + 1, sizeof *placed);
    int64_t *delta = wf_alloc_array((size_t)n_steps + 3, sizeof *delta);
    wf_status status = it && placed && delta ? WF_OK : WF_ENOMEM;
    size_t best = SIZE_MAX;
    *bytes = *live = 0;
    if (status == WF_OK) *live = bound(b, n, delta, n_steps);
    for (int kind = 0; kind < ORDERS && status == WF_OK && best > *live; kind++) {
        for (int i = 0; i < n; i++) it[i] = (item){.bytes = b[i].bytes, .first = b[i].first, .last = b[i].last, .index = i};
        order_items(it, n, (order_kind)kind);
        size_t top = place_in_order(it, n, placed, best);
        if (top >= best) continue;
        best = top;
        for (int i = 0; i < n; i++) b[it[i].index].offset = it[i].offset;
    }
    if (status == WF_OK) *bytes = best == SIZE_MAX ? 0 : best;
    wf_free(it);
    wf_free(placed);
    wf_free(delta);
    return status;
}
