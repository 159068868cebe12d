/* attention_pattern.c: visible keys that are no interval: windows with global keys (Longformer), sorted and tagged keys
 * (Reformer), blocks with links (BigBird). Tiles that nobody needs are never visited; inside a tile the drivers' kernels know
 * intervals, and what is hidden within gets a bias of -inf. */
#include "op/attention_tiles.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool wf_attention_patterned(const wf_node *n) {
    return n->attr.i[7] > 0 || n->attr.i[0] & (WF_AT_GLOBALS | WF_AT_TAGS_Q);
}

/* Which blocks see which, for all heads: [H,n,n]. */
static void mark_blocks(const wf_attention_call *a, const wf_node *links, const int32_t *of, uint8_t *seen) {
    int64_t n = a->n_block;
    memset(seen, 0, (size_t)(a->H * n * n));
    for (int64_t h = 0; h < a->H; h++)
        for (int64_t r = 0; r < n; r++) {
            uint8_t *row = seen + (h * n + r) * n;
            row[0] = row[n - 1] = 1;
            if (r == 0 || r == n - 1) {
                memset(row, 1, (size_t)n);
                continue;
            }
            for (int64_t k = r - 1; k <= r + 1; k++) row[k] = 1;
            for (int64_t x = 0; links && x < links->shape.dim[2]; x++) {
                int32_t k = of[h * links->stride[0] + (r - 1) * links->stride[1] + x * links->stride[2]];
                if (k >= 0 && k < n) row[k] = 1;
            }
        }
}

void wf_attention_read_pattern(const wf_call *c, wf_attention_call *a, uint8_t *blocks) {
    const wf_node *n = c->node;
    int links = wf_attention_option(n, WF_AT_LINKS), globals = wf_attention_option(n, WF_AT_GLOBALS),
        tags_q = wf_attention_option(n, WF_AT_TAGS_Q), tags_k = wf_attention_option(n, WF_AT_TAGS_K);
    a->window_block = n->attr.i[6];
    a->pattern = wf_attention_patterned(n);
    a->tags_before = n->attr.i[0] & WF_AT_TAGS_BEFORE;
    a->masked_rule = a->rule;
    a->masked_rule.bare = false;
    if (globals >= 0) {
        a->globals = c->in[globals];
        a->n_globals = n->in[globals]->shape.dim[0];
        a->s_globals = n->in[globals]->stride[0];
    }
    if (tags_q >= 0) {
        a->tags_q = c->in[tags_q], a->tags_k = c->in[tags_k];
        for (int i = 0; i < 2; i++) a->s_tags_q[i] = n->in[tags_q]->stride[i], a->s_tags_k[i] = n->in[tags_k]->stride[i];
    }
    if (!(a->block = n->attr.i[7])) return;
    a->n_block = (a->S + a->block - 1) / a->block;
    a->block_seen = blocks;
    mark_blocks(a, links < 0 ? NULL : n->in[links], links < 0 ? NULL : c->in[links], blocks);
}

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* ---- which tiles ---- */

static bool blocks_meet(const wf_attention_call *a, const wf_sequence *s, int64_t h, int64_t i0, int64_t i1, int64_t j0,
                        int64_t j1) {
    (void)s;
    for (int64_t r = i0 / a->block; r <= (i1 - 1) / a->block; r++) {
        const uint8_t *row = a->block_seen + (h * a->n_block + r) * a->n_block;
        for (int64_t k = j0 / a->block; k <= (j1 - 1) / a->block; k++)
            if (row[k]) return true;
    }
    return false;
}

/* Key of global x in the coordinates of the sequence, -1 where queries up to i do not see it. */
static int64_t global_key(const wf_attention_call *a, const wf_sequence *s, int64_t x, int64_t i) {
    int64_t j = a->globals[x * a->s_globals];
    return j < 0 || j >= s->k1 - s->k0 || (a->causal && j > s->first + i) ? -1 : j;
}

int64_t wf_attention_next(const wf_attention_call *a, const wf_sequence *s, int64_t h, int64_t ib, int64_t jb) {
    int64_t first, end, i0 = ib * a->block_q, i1 = least(i0 + a->block_q, s->q1 - s->q0), keys = s->k1 - s->k0;
    if (a->block) {
        for (; jb * a->block_k < keys; jb++)
            if (blocks_meet(a, s, h, i0, i1, jb * a->block_k, least((jb + 1) * a->block_k, keys))) return jb;
        return WF_AT_NONE;
    }
    wf_attention_key_blocks(a, s, ib, &first, &end);
    int64_t next = jb < first ? first : jb;
    if (first == end || next >= end) next = WF_AT_NONE;
    for (int64_t x = 0; x < a->n_globals && next != jb; x++) {
        int64_t j = global_key(a, s, x, i1 - 1);
        if (j >= 0 && j / a->block_k >= jb) next = least(next, j / a->block_k);
    }
    return next;
}

/* ---- inside a tile ---- */

typedef struct area { /* the tile's corner, and the columns its interval spans */
    const wf_attention_call *a;
    const wf_sequence *s;
    int64_t h, i0, j0;
    int c0, c1;
} area;

/* Widen lo..hi of all rows to one interval around everything visible. */
static void span_rows(area *p, const wf_tile *t, int *lo, int *hi) {
    for (int r = 0; r < t->rows; r++) lo[r] = p->c0, hi[r] = p->c1;
}

/* hidden[0..cols) of row r: 1 where hidden. */
static void hide_by_globals(const area *p, int r, const int *lo, const int *hi, uint8_t *hidden) {
    for (int c = p->c0; c < p->c1; c++) hidden[c] = c < lo[r] || c >= hi[r];
    for (int64_t x = 0; x < p->a->n_globals; x++) {
        int64_t j = global_key(p->a, p->s, x, p->i0 + r) - p->j0;
        if (j >= p->c0 && j < p->c1) hidden[j] = 0;
    }
}

static void hide_by_tags(const area *p, int r, uint8_t *hidden) {
    const wf_attention_call *a = p->a;
    int32_t mine = a->tags_q[p->s->batch * a->s_tags_q[0] + (p->s->q0 + p->i0 + r) * a->s_tags_q[1]];
    const int32_t *k = a->tags_k + p->s->batch * a->s_tags_k[0] + (p->s->k0 + p->j0) * a->s_tags_k[1];
    int64_t step = a->s_tags_k[1];
    if (step != 1)
        for (int c = p->c0; c < p->c1; c++)
            hidden[c] = k[c * step] < 0 || (a->tags_before ? k[c * step] >= mine : k[c * step] == mine);
    else if (a->tags_before)
        for (int c = p->c0; c < p->c1; c++) hidden[c] = (uint32_t)k[c] >= (uint32_t)mine; /* -1 becomes the largest */
    else
        for (int c = p->c0; c < p->c1; c++) hidden[c] = (k[c] < 0) | (k[c] == mine);
}

static void hide_by_blocks(const area *p, int r, uint8_t *hidden) {
    const wf_attention_call *a = p->a;
    const uint8_t *row = a->block_seen + (p->h * a->n_block + (p->i0 + r) / a->block) * a->n_block;
    for (int64_t c = p->c0; c < p->c1;) {
        int64_t k = (p->j0 + c) / a->block, end = least((k + 1) * a->block - p->j0, p->c1);
        memset(hidden + c, !row[k], (size_t)(end - c));
        c = end;
    }
}

static double real(const void *p, int size, int64_t i) {
    return size == 8 ? ((const double *)p)[i] : (double)((const float *)p)[i];
}

/* Row r of the mask: the call's own bias where there is one, -inf where hidden. */
static void write_row(const area *p, const wf_tile *t, const uint8_t *hidden, int r, void *mask, int64_t ld) {
    int size = p->a->kernel->size;
    if (!t->bias && size == 4) {
        float *to = (float *)mask + r * ld;
        for (int c = p->c0; c < p->c1; c++) to[c] = hidden[c] ? -INFINITY : 0.0f;
        return;
    }
    for (int c = p->c0; c < p->c1; c++) {
        double x = hidden[c] ? -INFINITY : t->bias ? real(t->bias, size, r * t->bias_row + c * t->bias_col) : 0;
        if (size == 8)
            ((double *)mask)[r * ld + c] = x;
        else
            ((float *)mask)[r * ld + c] = (float)x;
    }
}

/* The columns of a tile of blocks that any row sees; true: and every row sees all of them. */
static bool block_columns(area *p, const wf_tile *t) {
    const wf_attention_call *a = p->a;
    int64_t r0 = p->i0 / a->block, r1 = (p->i0 + t->rows - 1) / a->block, k0 = p->j0 / a->block,
            k1 = (p->j0 + t->cols - 1) / a->block, first = INT64_MAX, last = -1, seen = 0;
    for (int64_t r = r0; r <= r1; r++) {
        const uint8_t *row = a->block_seen + (p->h * a->n_block + r) * a->n_block;
        for (int64_t k = k0; k <= k1; k++) {
            if (!row[k]) continue;
            seen++;
            first = least(first, k);
            if (k > last) last = k;
        }
    }
    if (last < 0) return p->c0 = p->c1 = 0, true;
    int64_t c0 = first * a->block - p->j0, c1 = (last + 1) * a->block - p->j0;
    p->c0 = c0 < 0 ? 0 : (int)c0;
    p->c1 = (int)least(c1, t->cols);
    return seen == (r1 - r0 + 1) * (last - first + 1);
}

/* The columns of a tile that its window or a global key makes visible; true: no global key is in it. */
static bool global_columns(area *p, const wf_tile *t, const int *lo, const int *hi) {
    bool none = true;
    p->c0 = t->cols, p->c1 = 0;
    for (int64_t x = 0; x < p->a->n_globals; x++) {
        int64_t j = global_key(p->a, p->s, x, p->i0 + t->rows - 1) - p->j0;
        if (j < 0 || j >= t->cols) continue;
        none = false;
        p->c0 = (int)least(p->c0, j);
        if (j + 1 > p->c1) p->c1 = (int)j + 1;
    }
    for (int r = 0; r < t->rows; r++) {
        if (lo[r] >= hi[r]) continue;
        p->c0 = (int)least(p->c0, lo[r]);
        if (hi[r] > p->c1) p->c1 = hi[r];
    }
    return none;
}

/* Write the mask of a tile whose pairs p->c0 .. c1 - 1 are partly hidden. */
static void mask_tile(area *p, const int *lo, const int *hi, void *mask, wf_tile *t) {
    uint8_t hidden[256];
    int64_t ld = p->a->kernel->ld(t->cols);
    for (int r = 0; r < t->rows; r++) {
        if (p->a->globals)
            hide_by_globals(p, r, lo, hi, hidden);
        else if (p->a->tags_q)
            hide_by_tags(p, r, hidden);
        else
            hide_by_blocks(p, r, hidden);
        write_row(p, t, hidden, r, mask, ld);
    }
    t->rule = &p->a->masked_rule;
    t->bias = mask;
    t->bias_row = ld, t->bias_col = 1;
}

void wf_attention_see(const wf_attention_call *a, const wf_sequence *s, int64_t h, int64_t i0, int64_t j0, int *lo, int *hi,
                      void *mask, wf_tile *t) {
    wf_attention_place(a, s, h, i0, j0, t);
    t->lo = t->hi = NULL;
    area p = {a, s, h, i0, j0, 0, t->cols};
    if (a->block) {
        bool plain = block_columns(&p, t);
        span_rows(&p, t, lo, hi);
        if (p.c0 > 0 || p.c1 < t->cols) t->lo = lo, t->hi = hi;
        if (!plain) mask_tile(&p, lo, hi, mask, t);
        return;
    }
    bool all = wf_attention_tile_mask(a, s, i0, t->rows, j0, t->cols, lo, hi);
    if (!all) t->lo = lo, t->hi = hi;
    if (!a->pattern || (a->globals && (all || global_columns(&p, t, lo, hi)))) return;
    mask_tile(&p, lo, hi, mask, t);
    if (a->globals) span_rows(&p, t, lo, hi);
}

/* ---- cost ---- */

/* Over blocks r: rows of r times columns it sees, links taken as different from all others. */
static double block_pairs(const wf_node *n) {
    int64_t S = n->in[1]->shape.dim[1], block = n->attr.i[7], blocks = (S + block - 1) / block;
    int links = wf_attention_option(n, WF_AT_LINKS);
    int64_t R = links < 0 ? 0 : n->in[links]->shape.dim[2], tail = S - (blocks - 1) * block;
    double pairs = 0;
    for (int64_t r = 0; r < blocks; r++) {
        double rows = (double)(r == blocks - 1 ? tail : block);
        int64_t seen = r == 0 || r == blocks - 1 ? blocks : least(blocks, 5 - (r == 1) - (r == blocks - 2) + R);
        pairs += rows * (seen == blocks ? (double)S : (double)((seen - 1) * block + tail));
    }
    return pairs;
}

double wf_attention_pattern_pairs(const wf_node *n) {
    if (n->attr.i[7]) return block_pairs(n);
    int64_t L = n->in[0]->shape.dim[1], S = n->in[1]->shape.dim[1], back = n->attr.i[1], forward = n->attr.i[2];
    int globals = wf_attention_option(n, WF_AT_GLOBALS);
    int64_t G = globals < 0 ? 0 : n->in[globals]->shape.dim[0], block = n->attr.i[6] > 1 ? n->attr.i[6] : 1;
    const wf_tensor *known = globals < 0 ? NULL : n->in[globals]->leaf;
    if (wf_attention_option(n, WF_AT_Q_START) >= 0) return (double)L * (double)S;
    double pairs = 0;
    for (int64_t i = 0; i < L; i++) {
        int64_t p = S - L + i, p0 = p - p % block, lo = back > 0 ? p0 - back + 1 : 0, hi = S, more = known ? 0 : G;
        if (n->attr.i[0] & WF_AT_CAUSAL) hi = least(hi, p + 1);
        for (int64_t x = 0; known && x < G; x++) {
            int32_t j = ((const int32_t *)known->data)[x];
            int64_t end = forward > 0 ? least(hi, p0 + block - 1 + forward) : hi;
            more += j >= 0 && j < hi && (j < lo || j >= end);
        }
        if (forward > 0) hi = least(hi, p0 + block - 1 + forward);
        if (lo < 0) lo = 0;
        pairs += (double)least((hi > lo ? hi - lo : 0) + more, S);
    }
    return pairs;
}
