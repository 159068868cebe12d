/* op.h: every operator's builder. One family of operators to a file; kernels take plain pointers, sizes and strides.
 *
 * Shapes in one alphabet: B batch, L length of queries, S length of keys, D width, H heads, K key/value heads, d head width,
 * V vocabulary, F hidden. Broadcasting is NumPy's. All builders return NULL after an error (see graph.h).
 * Dtypes: mixed floats give the widest; bfloat16 is computed in float32; float64 is for checking and computes in float64.
 */
#ifndef WF_OP_H
#define WF_OP_H

#include "graph/graph.h"

wf_graph *wf_graph_open(void); /* a graph on this room's backend (backend.c) */

/* ---- view.c: no kernel, no cost ---- */
wf_node *wf_reshape(wf_graph *g, wf_node *x, wf_shape s);      /* one dim may be -1; copies first when strides forbid */
wf_node *wf_permute(wf_graph *g, wf_node *x, const int *axes); /* y.dim[i] = x.dim[axes[i]] */
wf_node *wf_transpose(wf_graph *g, wf_node *x, int a, int b);
wf_node *wf_slice(wf_graph *g, wf_node *x, int axis, int64_t start, int64_t len);
wf_node *wf_expand(wf_graph *g, wf_node *x, wf_shape s); /* broadcast to s by strides of 0 */
wf_node *wf_unsqueeze(wf_graph *g, wf_node *x, int axis);
wf_node *wf_squeeze(wf_graph *g, wf_node *x, int axis);
wf_node *wf_stop_gradient(wf_graph *g, wf_node *x);
/* `value` forward; its derivative is what `vjp` builds (straight-through, approximate backward passes of 03 and 23).
 * in[j] receive gin[j]; nothing flows into value's own inputs. ctx lives in the graph's arena. */
typedef wf_status (*wf_custom_vjp)(wf_graph *g, void *ctx, wf_node *value, wf_node *const *in, int n_in, wf_node *gout,
                                   wf_node **gin);
wf_node *wf_custom(wf_graph *g, wf_node *value, wf_node *const *in, int n_in, wf_custom_vjp vjp, void *ctx);

/* ---- pointwise.c: row instructions; immediates are doubles ---- */
wf_node *wf_add(wf_graph *g, wf_node *a, wf_node *b);
wf_node *wf_sub(wf_graph *g, wf_node *a, wf_node *b);
wf_node *wf_mul(wf_graph *g, wf_node *a, wf_node *b);
wf_node *wf_div(wf_graph *g, wf_node *a, wf_node *b);
wf_node *wf_max(wf_graph *g, wf_node *a, wf_node *b);
wf_node *wf_min(wf_graph *g, wf_node *a, wf_node *b);
wf_node *wf_pow(wf_graph *g, wf_node *a, wf_node *b);
/* The angle of (x, y) in [-pi, pi], 0 at the origin; its derivative takes x^2 + y^2 to be at least 1e-12. */
wf_node *wf_atan2(wf_graph *g, wf_node *y, wf_node *x);
wf_node *wf_add_c(wf_graph *g, wf_node *a, double c);
wf_node *wf_mul_c(wf_graph *g, wf_node *a, double c);
wf_node *wf_max_c(wf_graph *g, wf_node *a, double c);
wf_node *wf_min_c(wf_graph *g, wf_node *a, double c);
wf_node *wf_pow_c(wf_graph *g, wf_node *a, double c);
wf_node *wf_clamp(wf_graph *g, wf_node *a, double lo, double hi); /* gradient 0 outside */
wf_node *wf_neg(wf_graph *g, wf_node *a);
wf_node *wf_abs(wf_graph *g, wf_node *a);
wf_node *wf_sign(wf_graph *g, wf_node *a);
wf_node *wf_exp(wf_graph *g, wf_node *a);
wf_node *wf_expm1(wf_graph *g, wf_node *a);
wf_node *wf_log(wf_graph *g, wf_node *a);
wf_node *wf_log1p(wf_graph *g, wf_node *a);
wf_node *wf_sqrt(wf_graph *g, wf_node *a);
wf_node *wf_rsqrt(wf_graph *g, wf_node *a);
wf_node *wf_recip(wf_graph *g, wf_node *a);
wf_node *wf_square(wf_graph *g, wf_node *a);
wf_node *wf_tanh(wf_graph *g, wf_node *a);
wf_node *wf_sigmoid(wf_graph *g, wf_node *a);
wf_node *wf_softplus(wf_graph *g, wf_node *a);
wf_node *wf_erf(wf_graph *g, wf_node *a);
wf_node *wf_sin(wf_graph *g, wf_node *a);
wf_node *wf_cos(wf_graph *g, wf_node *a);
wf_node *wf_floor(wf_graph *g, wf_node *a);
wf_node *wf_round(wf_graph *g, wf_node *a); /* half to even */
wf_node *wf_is_finite(wf_graph *g, wf_node *a);
wf_node *wf_lt(wf_graph *g, wf_node *a, wf_node *b); /* comparisons: 1 or 0 in the operands' dtype, no gradient */
wf_node *wf_le(wf_graph *g, wf_node *a, wf_node *b);
wf_node *wf_eq(wf_graph *g, wf_node *a, wf_node *b);
wf_node *wf_ne(wf_graph *g, wf_node *a, wf_node *b);
wf_node *wf_where(wf_graph *g, wf_node *c, wf_node *a, wf_node *b);
wf_node *wf_cast(wf_graph *g, wf_node *x, wf_dtype t);
wf_node *wf_contiguous(wf_graph *g, wf_node *x);
wf_node *wf_fill(wf_graph *g, wf_dtype t, wf_shape s, double v);
wf_node *wf_index(wf_graph *g, wf_dtype t, wf_shape s, int axis); /* coordinate along axis */
/* Philox; seed: int32[4] {seed lo, seed hi, step lo, step hi}; the number depends on (seed, step, stream, linear index) alone. */
wf_node *wf_uniform(wf_graph *g, wf_dtype t, wf_shape s, wf_node *seed, uint64_t stream); /* [0,1) */
wf_node *wf_normal(wf_graph *g, wf_dtype t, wf_shape s, wf_node *seed, uint64_t stream);
wf_node *wf_dropout(wf_graph *g, wf_node *x, double p, wf_node *seed, uint64_t stream); /* kept entries / (1-p) */

/* ---- activation.c: composed of the above ---- */
wf_node *wf_relu(wf_graph *g, wf_node *x);
wf_node *wf_relu2(wf_graph *g, wf_node *x);
wf_node *wf_gelu(wf_graph *g, wf_node *x); /* exact: x Phi(x) */
wf_node *wf_gelu_tanh(wf_graph *g, wf_node *x);
wf_node *wf_silu(wf_graph *g, wf_node *x);
wf_node *wf_elu1(wf_graph *g, wf_node *x); /* elu(x)+1 = x+1 for x > 0, e^x else */
/* By the names of recipes: relu relu2 gelu gelu_tanh silu sigmoid tanh identity; NULL + error if unknown. */
wf_node *wf_activation(wf_graph *g, const char *name, wf_node *x);

/* ---- reduce.c. `axes`: bit i = axis i. keep: reduced axes stay with size 1 ---- */
wf_node *wf_sum(wf_graph *g, wf_node *x, unsigned axes, bool keep);
wf_node *wf_mean(wf_graph *g, wf_node *x, unsigned axes, bool keep);
wf_node *wf_amax(wf_graph *g, wf_node *x, unsigned axes, bool keep); /* gradient shared equally between ties */
wf_node *wf_amin(wf_graph *g, wf_node *x, unsigned axes, bool keep);
wf_node *wf_sum_all(wf_graph *g, wf_node *x);                   /* [] */
wf_node *wf_sum_to(wf_graph *g, wf_node *x, const wf_shape *s); /* adjoint of broadcasting to x's shape */
wf_node *wf_softmax(wf_graph *g, wf_node *x);                   /* over the last axis; composed */
wf_node *wf_log_softmax(wf_graph *g, wf_node *x);
wf_node *wf_logsumexp(wf_graph *g, wf_node *x, bool keep); /* over the last axis; -inf for rows of -inf */
/* Mean and biased variance over `axes` (which keep size 1), in one reading of x: moments.c. keep: 0 or 1, broadcastable to x, NULL:
 * all count; then n is the number that count. */
wf_node *wf_moments(wf_graph *g, wf_node *x, unsigned axes, wf_node *keep, wf_node *n, wf_node **mean);
wf_node *wf_cumsum(wf_graph *g, wf_node *x, int axis, bool reverse, bool exclusive); /* scan.c */

/* ---- matmul.c: oneDNN behind one file. a [.., M,K] x b [.., K,N] (after the transposes); leading axes broadcast ---- */
wf_node *wf_matmul(wf_graph *g, wf_node *a, wf_node *b, bool ta, bool tb);
/* Result dtype chosen: bf16 x bf16 -> f32 or bf16; i8/u8 x i8 -> i32 (accumulated in int32). */
wf_node *wf_matmul_as(wf_graph *g, wf_node *a, wf_node *b, bool ta, bool tb, wf_dtype out);
/* y = x w^T + bias: x [.., I], w [O,I], bias [O] or NULL; y [.., O] in x's dtype. Bias is fused into the product. */
wf_node *wf_linear(wf_graph *g, wf_node *x, wf_node *w, wf_node *bias);

/* ---- gather.c ---- */
/* rows of table [N, ..] by int32 idx [..]: y [idx.., ..]; derivative: scatter-add. Out-of-range index: WF_EINVAL at run. */
wf_node *wf_gather(wf_graph *g, wf_node *table, wf_node *idx);
/* y [n, ..] = sum of rows src [idx.., ..] at idx, in order of the source rows (deterministic). idx < 0 is skipped. */
wf_node *wf_scatter_add(wf_graph *g, wf_node *src, wf_node *idx, int64_t n);
/* y[.., j] = x[.., idx[.., j]] along the last axis (take_along_axis) and its adjoint */
wf_node *wf_take(wf_graph *g, wf_node *x, wf_node *idx);
wf_node *wf_put_add(wf_graph *g, wf_node *src, wf_node *idx, int64_t n);
wf_node *wf_one_hot(wf_graph *g, wf_node *idx, int64_t n, wf_dtype t); /* [.., n] */
/* Largest k of the last axis, descending, ties to the lower index: values [.., k], wf_output(.,1) int32 indices. */
wf_node *wf_topk(wf_graph *g, wf_node *x, int64_t k);
wf_node *wf_argsort(wf_graph *g, wf_node *x, bool descending); /* stable; int32 */
wf_node *wf_argmax(wf_graph *g, wf_node *x);                   /* last axis, ties to the lower index; int32 [..] */

/* ---- shape.c: copying ---- */
wf_node *wf_concat(wf_graph *g, wf_node *const *x, int n, int axis);
wf_node *wf_pad(wf_graph *g, wf_node *x, int axis, int64_t before, int64_t after, double value); /* negative crops */
wf_node *wf_flip(wf_graph *g, wf_node *x, int axis);
/* Write value [B,T,..] into the leaf state [B,S,..] at rows pos[0] + 0..T-1 of axis 1 (KV caches), in place; the result is the
 * updated state. pos int32 [1]. With ring, row indices are taken modulo S. No gradient. */
wf_node *wf_cache_write(wf_graph *g, wf_node *state, wf_node *value, wf_node *pos, bool ring);

/* ---- conv.c (oneDNN), pool.c, fft.c (FFTW) ---- */
typedef struct wf_conv_spec {
    int64_t stride[2], pad_before[2], pad_after[2], dilation[2], groups; /* 1D uses entry 0; zeros mean 1 (0 for pads) */
} wf_conv_spec;
wf_node *wf_conv1d(wf_graph *g, wf_node *x, wf_node *w, wf_node *bias, const wf_conv_spec *s); /* [B,C,L], [O,C/groups,k] */
wf_node *wf_conv2d(wf_graph *g, wf_node *x, wf_node *w, wf_node *bias,
                   const wf_conv_spec *s); /* [B,C,H,W], [O,C/groups,kh,kw] */
/* depthwise.c: a kernel for each channel, channels last, zeros around, the same size out: x [B,Y,X,C] float32 or float64,
 * w [ky,kx,c], odd ky and kx, c a divisor of C: channel j has kernel j mod c (heads share one). */
wf_node *wf_depthwise_conv(wf_graph *g, wf_node *x, wf_node *w);
/* Pooling over the last 1 or 2 axes of [B,C,L] / [B,C,H,W]. mean: count_pad says whether padding counts in the divisor. */
typedef struct wf_pool_spec {
    int axes; /* 1 or 2 */
    bool max, count_pad;
    int64_t size[2], stride[2], pad[2];
} wf_pool_spec;
wf_node *wf_pool(wf_graph *g, wf_node *x, const wf_pool_spec *s);
/* Windows of tokens on a grid, channels last (window.c): x [B,R,C,D], y[b,r,c] = sum (or mean) of x[b,r-up..r+down,c-left..c+right],
 * as far as they are inside the grid, and less x[b,r,c] itself where asked. Sides up to 256; float32 or float64. */
typedef struct wf_window_spec {
    int64_t up, down, left, right;
    bool mean, minus_self;
} wf_window_spec;
wf_node *wf_window(wf_graph *g, wf_node *x, const wf_window_spec *s);
/* Real FFT over the last axis, n points (zero-padded or cropped): [.., n/2+1, 2]; unnormalised. And its inverse (divides by n). */
wf_node *wf_rfft(wf_graph *g, wf_node *x, int64_t n);
wf_node *wf_irfft(wf_graph *g, wf_node *x, int64_t n);

/* ---- loss.c ---- */
/* Per-row cross-entropy: logits [.., V], target int32 [..] (negative: ignored, loss 0); smoothing s: target mass 1-s + s/V. */
wf_node *wf_cross_entropy(wf_graph *g, wf_node *logits, wf_node *target, double smoothing);

/* ---- attention.c: one tiled kernel, forward and backward ---- */
typedef enum { WF_NORMALISE_SOFTMAX = 0, WF_NORMALISE_NONE } wf_normaliser;
typedef enum {
    WF_SCORE_LINEAR = 0,
    WF_SCORE_SIGMOID,
    WF_SCORE_RELU2,
    WF_SCORE_RELU
} wf_score; /* applied before the normaliser */
typedef struct wf_attention_spec {
    double scale;                        /* 0: 1/sqrt(d) */
    bool causal;                         /* key j visible to query i when j <= i + first, first = S - L or *q_start */
    int64_t window_back, window_forward; /* 0: unlimited; back w: j > i + first - w; forward w: j < i + first + w */
    int64_t window_block; /* > 1: windows count from the first (back) and the last (forward) of the query's block of so many
                             positions, all of which then see the same keys */
    wf_normaliser normaliser;
    wf_score score;
    double score_bias; /* added to the scaled score before a sigmoid */
    wf_node *lengths;  /* int32 [B]: keys j < lengths[b] are visible; NULL: all */
    wf_node *q_start;  /* int32 [1]: key position of query 0; NULL: S - L. With it keys j >= q_start + L are invisible */
    wf_node *offsets_q,
        *offsets_k;  /* int32 [N+1]: packed batches, then B = 1 and sequence n is rows offsets[n]..offsets[n+1] */
    wf_node *slopes; /* [H]: score -= slope_h * |i + first - j| (ALiBi) */
    wf_node *bias;   /* additive, broadcastable to [B,H,L,S]; has a gradient */
    /* Patterns: keys that are no interval. Not with offsets or score functions. */
    wf_node
        *globals; /* int32 [G], different keys: every query sees them whatever the windows say (not before causal, lengths) */
    wf_node *tags_q, *tags_k; /* int32 [B,L], [B,S]: key visible when its tag is not negative and ..                      */
    bool tags_before;         /* .. below the query's (true), or another than the query's (false)                       */
    int64_t block;  /* > 0 (BigBird, L = S): blocks of so many positions. Block r sees the first, the last, itself and */
    wf_node *links; /* its neighbours, and links[h, r-1, :] (int32 [H, n-2 or more, R], < 0: none; NULL: none); the first
                                 and the last of the n blocks see everything */
    double dropout; /* on the normalised weights; counted by (b, h, i, j), independent of threads */
    wf_node *seed;  /* int32[4], as wf_uniform */
    uint64_t stream;
} wf_attention_spec;
/* q [B,L,H,d], k [B,S,K,d], v [B,S,K,e], K divides H (head h reads kv head h*K/H). Result o [B,L,H,e];
 * wf_output(o,1): lse float32 [B,H,L] (softmax; -inf for a row with nothing visible, whose o is 0). */
wf_node *wf_attention(wf_graph *g, wf_node *q, wf_node *k, wf_node *v, const wf_attention_spec *s);
/* The same function composed of small operators; *weights (may be NULL) receives the normalised weights [B,H,L,S]. */
wf_node *wf_attention_plain(wf_graph *g, wf_node *q, wf_node *k, wf_node *v, const wf_attention_spec *s, wf_node **weights);
/* Rotary phases: x [B,L,H,d], rotates the first r entries of d by angle[l, r/2] (float [L,r/2] or [B,L,r/2]); interleaved pairs
 * (2i,2i+1) or halves (i, i+r/2). Linear in x; its derivative rotates back. */
wf_node *wf_rotate(wf_graph *g, wf_node *x, wf_node *angle, bool interleaved);

/* turn.c: z = x - 2 (x.u) u, then interleaved pairs of z turned by learned angles [L,r/2], in one pass with one backward pass.
 * u [d], a unit vector without derivative, or NULL: no reflection. x [B,L,H,d], d at most 1024. */
wf_node *wf_turn_by(wf_graph *g, wf_node *x, wf_node *angle, wf_node *u);

/* ---- linear_scan.c: chunkwise linear attention, forward and backward ---- */
/* S_t = decay_t S_{t-1} + k_t v_t^T, o_t = q_t S_t. q,k [B,L,H,d], v [B,L,H,e], decay [B,L,H] in (0,1] or NULL (1),
 * state [B,H,d,e] at entry or NULL (0). Result o [B,L,H,e]; wf_output(o,1): state after the last position.
 * A denominator is one more column of ones in v. */
wf_node *wf_linear_scan(wf_graph *g, wf_node *q, wf_node *k, wf_node *v, wf_node *decay, wf_node *state);

/* ---- orthogonal.c: random rows for feature maps ---- */
/* rows x d: blocks of d orthogonal random rows, each as long as an independent vector of d standard normal numbers. */
void wf_orthogonal_rows(float *w, int64_t rows, int64_t d, wf_rng *r);
/* w float32 [rows,d], drawn anew (wf_orthogonal_rows) in every `every`-th step but the first, w itself in all others. No gradient. */
wf_node *wf_orthogonal_redraw(wf_graph *g, wf_node *w, wf_node *seed, int64_t every, uint64_t stream);

/* Helper for fused operators: build the vjp of node n by differentiating an equivalent composition of small operators.
 * `compose` rebuilds n's outputs from inputs; gives second order for free. */
typedef wf_status (*wf_compose)(wf_graph *g, wf_node *n, wf_node *const *in, wf_node **out);
wf_status wf_vjp_by_composition(wf_graph *g, wf_node *n, wf_node *const *gout, wf_node **gin, wf_compose compose);

#endif
