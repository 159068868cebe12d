/* sparse.h: mixers that do not compare all tokens with all: their formulas, for their parts and for `weft check`.
 *
 * Shapes: q, k [B,L,H,d], v [B,L,H,e]; keep float [B,L], 1 where a key counts, or NULL: all count.
 */
#ifndef WF_SPARSE_H
#define WF_SPARSE_H

#include "part/mixer/heads.h"

/* ---- performer.c ---- */
typedef struct wf_favor {
    bool relu;  /* features relu(w.u), not those of the softmax kernel */
    bool fixed; /* keys subtract `max`, not their own maximum over the sequence */
    double eps; /* added to every feature */
    double max;
} wf_favor;
/* What a feature is made of, [B,L,H,M]: exp(..) or relu(..) of z by the projection w [M,d]; `keys`: 0 where keep is. */
wf_node *wf_favor_bare(wf_graph *g, wf_node *z, wf_node *w, const wf_favor *f, bool keys, wf_node *keep);
/* The features themselves: M^(-1/2) (bare + eps), or bare + eps (relu). */
wf_node *wf_favor_features(wf_graph *g, wf_node *bare, const wf_favor *f, wf_node *keep);
/* o_i = f(q_i) S / f(q_i).(z + eps) of bare q and k; state, *after (causal): as in wf_feature_attention. */
wf_node *wf_favor_attention(wf_graph *g, wf_node *q, wf_node *k, wf_node *v, const wf_favor *f, bool causal, double eps,
                            wf_node *keep, wf_node *state, wf_node **after);

/* ---- linformer.c ---- */
/* E[0:L]^T x: [B,k,D] of x [B,L,D] and E [Lmax,k]. */
wf_node *wf_linformer_shorten(wf_graph *g, wf_node *E, wf_node *x, wf_node *keep);

/* ---- longformer.c ---- */
typedef struct wf_longformer {
    int64_t window;           /* one-sided: |i-j| <= window */
    const wf_tensor *globals; /* int32 [G], rising, below L; NULL: none */
    bool causal, plain;
    wf_node *lengths;  /* as in wf_attention_spec */
    wf_node **weights; /* plain: receives the window's weights; may be NULL */
} wf_longformer;
/* Rows of the window and the global keys. */
wf_node *wf_longformer_near(wf_graph *g, wf_node *q, wf_node *k, wf_node *v, const wf_longformer *s);
/* Rows of the global tokens: q [B,G,H,d] over all keys, [B,G,H,e]. */
wf_node *wf_longformer_far(wf_graph *g, wf_node *q, wf_node *k, wf_node *v, const wf_longformer *s);
/* `near` with the rows of the global tokens taken from `far`. */
wf_node *wf_longformer_join(wf_graph *g, wf_node *near, wf_node *far, const wf_longformer *s);
/* The rows of the global tokens of x [B,L,..] */
wf_node *wf_longformer_rows(wf_graph *g, wf_node *x, const wf_longformer *s);

/* ---- lsh.c ---- */
typedef struct wf_lsh {
    int64_t bucket, hashes; /* size of a bucket, c; rounds of hashing, n */
    bool causal, across,
        duplicates;     /* across: chunks see other buckets; duplicates: pairs met in several rounds count so often */
    double self;        /* score of a token with itself: it counts when it is alone */
    wf_node *rotations; /* [d,n,NB/2], NB = buckets: the length, made a multiple of 2c, over c */
    wf_node *keep;
} wf_lsh;
int64_t wf_lsh_buckets(int64_t L, int64_t bucket); /* NB */
/* o [B,L,H,e] of shared queries and keys qk; *buckets (may be NULL): float [B,H,n,L], NB for tokens that do not count. */
wf_node *wf_lsh_attention(wf_graph *g, wf_node *qk, wf_node *v, const wf_lsh *s, wf_node **buckets);

extern const wf_part wf_mixer_performer, wf_mixer_linformer, wf_mixer_longformer, wf_mixer_bigbird, wf_mixer_lsh;

#endif
