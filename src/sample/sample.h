/* sample.h: decoding from a causal language model by its streaming form alone: feed tokens, look at the logits, pick one.
 *
 *     model --wf_session_new--> session --wf_session_feed(tokens)--> logits --wf_pick--> token --wf_session_feed--> ...
 *
 * A session owns the states (KV caches, scan states) and its plans: one for a single position, run once a token with
 * nothing allocated in between, and one for the last length of prompt it was fed. The model is borrowed.
 */
#ifndef WF_SAMPLE_H
#define WF_SAMPLE_H

#include "part/part.h"

typedef struct wf_session wf_session;
typedef struct wf_session_opt {
    int64_t max_length; /* room in the caches, positions; 0: the model's training length */
    int64_t batch;      /* sequences in lockstep; 0: 1 */
    int64_t chunk;      /* a longer prompt is fed in chunks of this; 0: 512 */
    wf_dtype compute;   /* of matrix products; WF_BF16 converts the weights once */
} wf_session_opt;
/* opt may be NULL. Fails if a mixer of the model has no streaming form. The caller frees; the model must live as long. */
wf_session *wf_session_new(wf_model *m, const wf_session_opt *opt);
void wf_session_free(wf_session *s);
void wf_session_reset(wf_session *s); /* to the start of a sequence */
/* The next n tokens of every sequence: int32 [B,n], 0 <= token < V. */
wf_status wf_session_feed(wf_session *s, const int32_t *tokens, int64_t n);
/* Logits [B,V] after the last token fed; valid until the next feed. NULL before the first. */
const float *wf_session_logits(const wf_session *s);
int64_t wf_session_position(const wf_session *s); /* tokens fed since the start */
int64_t wf_session_vocab(const wf_session *s);
size_t wf_session_bytes(const wf_session *s); /* states, arenas and converted weights, without the model */
wf_plan *wf_session_plan(wf_session *s);      /* of a single position, for costs and profiles; borrowed */

/* ---- picking a token ---- */
typedef struct wf_pick_opt {
    double temperature; /* logits / temperature; 0: greedy, ties to the lower token */
    int64_t top_k;      /* only the k largest logits; 0: all */
    double top_p;       /* only the smallest set of the likeliest with at least this mass (nucleus); 0 or 1: all */
} wf_pick_opt;
typedef struct wf_picker wf_picker; /* options, random numbers and work space for one vocabulary */
wf_picker *wf_picker_new(const wf_pick_opt *opt, int64_t vocab, uint64_t seed);
void wf_picker_free(wf_picker *p);
/* One token from logits [V]; -1 when no logit is a number. One random number is used a call (none when greedy). */
int32_t wf_pick(wf_picker *p, const float *logits);

/* ---- the loop ---- */
typedef struct wf_generate_opt {
    int64_t tokens; /* new tokens at most */
    wf_pick_opt pick;
    uint64_t seed;
    int32_t stop; /* this token ends the text and is not reported; negative: none */
} wf_generate_opt;
typedef struct wf_generate_report {
    int64_t prompt, tokens;
    double prefill_seconds, decode_seconds;
} wf_generate_report;
/* Called with every new token; false ends the text. */
typedef bool (*wf_on_token)(void *ctx, int32_t token);
/* Feed the prompt (at least one token) after what the session holds, then generate. Batch 1. report may be NULL. */
wf_status wf_generate(wf_session *s, const int32_t *prompt, int64_t n, const wf_generate_opt *opt, wf_on_token on_token,
                      void *ctx, wf_generate_report *report);

#endif
