/* attention_tiles.h: inside of the fused attention operator: what attention.c (shapes, derivatives), attention_tiles.c
 * (forward driver), attention_backward.c, attention_decode.c and the kernels in simd/attention.c share.
 *
 * A sequence is cut into row blocks of queries and key blocks; one row block x one key block is a tile. All visibility rules
 * (causal, windows, lengths, packing) leave each query an interval of keys lo <= j < hi, and both bounds never decrease with
 * the query: that is the only form of mask the kernels know. Patterns (attention_pattern.c) are no intervals: what a tile of
 * theirs hides inside the interval is a bias of -inf, which the drivers write for the tile.
 */
#ifndef WF_ATTENTION_TILES_H
#define WF_ATTENTION_TILES_H

#include "op/op.h"

/* How scores become weights; constant over a call. With softmax of linear scores everything is kept in base 2: queries are
 * scaled by scale * log2(e), and so are bias and slopes. */
typedef struct wf_score_rule {
    wf_normaliser normaliser;
    wf_score score;
    bool bare;   /* plain softmax, or sigmoid without normaliser: no bias, slopes, dropout */
    double unit; /* log2(e) for linear scores under softmax, else 1: factor of bias and slopes */
    double score_bias;
    double dropout;
    uint32_t seed[4]; /* {seed lo, seed hi, step lo, step hi} */
    uint64_t stream;
} wf_score_rule;

/* One tile. REAL is float or double, as the kernel's; operands are packed tiles of simd/tile.h. */
typedef struct wf_tile {
    const wf_score_rule *rule;
    int rows, cols, d, e;       /* queries, keys, head widths */
    const int *lo, *hi;         /* [rows] visible columns of the tile, 0 <= lo <= hi <= cols where non-empty; NULL: all */
    const int *row_lo, *row_hi; /* [cols] the same seen from the keys (backward) */
    double slope;               /* of this head, times unit */
    int64_t distance;           /* key position of row 0 minus position of column 0 */
    const void *bias;           /* REAL, of (row 0, column 0); NULL: none */
    int64_t bias_row, bias_col;
    uint64_t number, number_row;     /* dropout: linear index of (row 0, column 0) in [B,H,L,S], and its step per row */
    const void *q, *k, *kt, *v, *vt; /* [rows,d] scaled, [cols,d], [d,cols], [cols,e], [e,cols] */
    void *s;                         /* [rows,cols] scores, then weights */
    void *temp;                      /* three rows of cols */
    void *o, *m, *l, *alpha;         /* forward: [rows,e], [rows] running maximum, sum, rescaling */
    const void *go;                  /* backward: [rows,e] */
    const void *lse, *delta;         /* [rows] in base 2 (+inf: nothing visible); sum_e do o - dlse */
    void *dp, *dq, *dk, *dv;         /* [rows,cols], [rows,d], [cols,d], [cols,e] */
    int64_t ld_dq;                   /* dq may be the result itself */
    bool first;                      /* dq is written, not added to */
} wf_tile;

/* A few queries against a run of keys, straight from memory (decode). */
typedef struct wf_decode {
    int rows, cols, d, e;
    const void *q;     /* [rows,d] packed, scaled */
    const void *k, *v; /* REAL; rows at k_row and v_row elements */
    int64_t k_row, v_row;
    void *s; /* [rows,cols] */
    int64_t ld_s;
    void *o; /* [rows,e] */
} wf_decode;

typedef struct wf_attention_kernel {
    int size;                    /* sizeof(REAL) */
    int lanes;                   /* e and d of tiles are padded to whole vectors of so many */
    int64_t (*ld)(int64_t cols); /* leading dimension of a tile */
    /* Copy rows x cols of any float dtype (columns dense) into a tile, times `factor`; pad columns to vectors with zeros. */
    void (*pack)(void *tile, const void *src, wf_dtype t, int64_t row_stride, int rows, int cols, double factor);
    void (*transpose)(void *tile, const void *src_tile, int rows, int cols); /* tile [rows,cols] -> tile [cols,rows], padded */
    /* Tile (leading dimension ld) -> memory, row r times factor * row[r] (row NULL: 1). */
    void (*unpack)(void *dst, wf_dtype t, int64_t row_stride, const void *tile, int64_t ld, int rows, int cols, double factor,
                   const void *row);
    void (*forward)(const wf_tile *t);
    void (*finish)(const wf_tile *t,
                   void *lse); /* l -> 1/l in place, lse [rows] REAL in natural units; o is left unnormalised */
    void (*backward)(const wf_tile *t);
    void (*row_dots)(const void *a, const void *b, int rows, int cols, void *out); /* out[r] = a_r . b_r of two tiles */
    void (*decode_scores)(const wf_decode *c);
    void (*weigh)(const wf_tile *t);           /* scores -> weights and m, l as in forward, no products */
    void (*decode_values)(const wf_decode *c); /* o = s v */
    /* One query's n partial results (m, l, o), part c at m[c * ml_step], o + c * o_step, into out [e] and lse [1], in order. */
    void (*merge)(const wf_score_rule *rule, int n, const void *m, const void *l, int64_t ml_step, const void *o,
                  int64_t o_step, int e, void *out, void *lse);
    void (*fill)(void *x, int64_t n, double value);
} wf_attention_kernel;

const wf_attention_kernel *wf_attention_kernel_for(wf_dtype t); /* best of this machine */

/* One sequence: rows q0..q1 of the query axis and k0..k1 of the key axis; query q0 + i stands at key k0 + first + i. */
typedef struct wf_sequence {
    int64_t batch, q0, q1, k0, k1, first;
    int64_t blocks_before; /* row blocks of the sequences before it */
    int64_t tasks_before;  /* the driver's own count */
} wf_sequence;

/* The whole call, read off the node. */
typedef struct wf_attention_call {
    const wf_attention_kernel *kernel;
    wf_dtype dtype;
    int64_t B, L, S, H, K, G, d, e; /* G = H / K query heads share a key/value head */
    bool causal;
    int64_t back, forward;
    double scale;
    wf_score_rule rule;
    int n_seq;
    const wf_sequence *seq;
    const char *q, *k, *v, *o, *go;
    int64_t sq[3], sk[3], sv[3], so[3], sgo[3]; /* element strides of batch, position, head */
    const char *lse, *dlse;
    int64_t slse[3], sdlse[3]; /* of batch, head, position */
    const char *slopes, *bias;
    int64_t s_slopes, s_bias[4];
    int block_q, block_k;
    int64_t row_blocks; /* over all sequences */
    /* patterns */
    bool pattern;              /* there is one */
    wf_score_rule masked_rule; /* of tiles with hidden pairs inside */
    int64_t window_block, block, n_block;
    const uint8_t *block_seen; /* [H,n_block,n_block], 1: visible */
    const int32_t *globals, *tags_q, *tags_k;
    int64_t n_globals, s_globals, s_tags_q[2], s_tags_k[2];
    bool tags_before;
} wf_attention_call;

/* Which optional inputs a node has, in this order after the required ones: attr.i[0] bits. */
enum {
    WF_AT_LENGTHS = 1 << 0,
    WF_AT_Q_START = 1 << 1,
    WF_AT_OFFSETS_Q = 1 << 2,
    WF_AT_OFFSETS_K = 1 << 3,
    WF_AT_SLOPES = 1 << 4,
    WF_AT_BIAS = 1 << 5,
    WF_AT_SEED = 1 << 6,
    WF_AT_GLOBALS = 1 << 7,
    WF_AT_TAGS_Q = 1 << 8,
    WF_AT_TAGS_K = 1 << 9,
    WF_AT_LINKS = 1 << 10,
    WF_AT_OPTIONS = 11, /* how many */
    WF_AT_CAUSAL = 1 << 16,
    WF_AT_DLSE = 1 << 17, /* backward: the lse has a gradient too */
    WF_AT_TAGS_BEFORE = 1 << 18,
    WF_AT_MOST_INPUTS = 7 + WF_AT_OPTIONS,
};
/* attr.i: 0 bits, 1 back, 2 forward, 3 normaliser, 4 score, 5 stream, 6 window_block, 7 block.
 * attr.f: 0 scale (never 0), 1 score_bias, 2 dropout. */

extern const wf_op wf_op_attention, wf_op_attention_backward;

/* attention.c */
int wf_attention_option(const wf_node *n, int bit); /* index of the optional input, -1: absent */
int wf_attention_required(const wf_node *n);        /* 3 forward, 6 or 7 backward */
/* The spec that built n, with the optional inputs taken from `in` (n's own or their stand-ins). */
void wf_attention_spec_of(const wf_node *n, wf_node *const *in, wf_attention_spec *s);

/* attention_call.c: reading a call, visibility */
/* `front`: the first wf_attention_front bytes of scratch; sequences and blocks of patterns are kept there. */
wf_status wf_attention_read(const wf_call *c, wf_attention_call *a, void *front);
size_t wf_attention_front(const wf_node *n);
int64_t wf_attention_sequences(const wf_node *n);  /* bounds that hold for any data, for scratch */
int64_t wf_attention_row_blocks(const wf_node *n); /* over all sequences */
void wf_attention_blocks(int64_t d, int64_t e, int *block_q, int *block_k);
/* Keys lo <= j < hi that query i of the sequence sees; lo >= hi: none. */
void wf_attention_bounds(const wf_attention_call *a, const wf_sequence *s, int64_t i, int64_t *lo, int64_t *hi);
/* Key blocks *first <= jb < *end that row block ib meets, patterns aside. */
void wf_attention_key_blocks(const wf_attention_call *a, const wf_sequence *s, int64_t ib, int64_t *first, int64_t *end);
/* Visible columns of the rows of a tile, in its own coordinates; true: everything is visible. */
bool wf_attention_tile_mask(const wf_attention_call *a, const wf_sequence *s, int64_t i0, int rows, int64_t j0, int cols,
                            int *lo, int *hi);
/* Set slope, distance, bias and dropout numbers of the tile at query i0, key j0 (of the sequence) and head h. */
void wf_attention_place(const wf_attention_call *a, const wf_sequence *s, int64_t h, int64_t i0, int64_t j0, wf_tile *t);
int wf_attention_threads(const wf_attention_call *a, int threads); /* fewer for small work */

/* attention_pattern.c */
bool wf_attention_patterned(const wf_node *n);
void wf_attention_read_pattern(const wf_call *c, wf_attention_call *a, uint8_t *blocks);
/* The first key block >= jb that row block ib of head h meets; WF_AT_NONE: none. */
enum { WF_AT_NONE = INT32_MAX };
int64_t wf_attention_next(const wf_attention_call *a, const wf_sequence *s, int64_t h, int64_t ib, int64_t jb);
/* Set rule, slope, distance, bias, dropout numbers and visible columns of the tile (rows, cols are set) at query i0, key j0 of
 * head h. lo, hi: room for rows; mask: room for a tile of scores (calls with patterns). */
void wf_attention_see(const wf_attention_call *a, const wf_sequence *s, int64_t h, int64_t i0, int64_t j0, int *lo, int *hi,
                      void *mask, wf_tile *t);
/* Visible pairs of one head, for the cost. */
double wf_attention_pattern_pairs(const wf_node *n);

/* Piecewise use of a scratch buffer; base NULL: only counts. Pieces start on cache lines. */
typedef struct wf_pieces {
    char *base;
    size_t used;
} wf_pieces;
static inline void *wf_piece(wf_pieces *p, int64_t bytes) {
    void *at = p->base ? p->base + p->used : NULL;
    p->used += ((size_t)bytes + 63) / 64 * 64;
    return at;
}

/* attention_tiles.c */
size_t wf_attention_forward_scratch(const wf_node *n, int threads);
wf_status wf_attention_forward(const wf_call *c, int threads);
/* attention_decode.c: few queries, many keys: keys are cut in chunks of a fixed size, partial results merged in order
 * (LeanAttention, Sanovar et al. 2024) */
bool wf_attention_decodes(const wf_node *n);
size_t wf_attention_decode_scratch(const wf_node *n, int threads);
wf_status wf_attention_decode(const wf_call *c, int threads);
/* attention_backward.c */
size_t wf_attention_backward_scratch(const wf_node *n, int threads);
wf_status wf_attention_backward(const wf_call *c, int planned); /* threads that scratch was planned for */

#endif
