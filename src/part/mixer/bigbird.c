/* bigbird.c: BigBird in its internal form, ITC (Zaheer et al. 2020): attention between blocks of tokens.
 *
 *     blocks 0 and n-1 see everything and are seen by all; block r sees r-1, r, r+1 and R random inner blocks of its own
 *     o = softmax(q k^T / sqrt(d)) v over the union of these blocks
 *
 * The random blocks differ by head, are drawn when the model is made and are part of its file. A length that is no multiple of
 * the block ends in a shorter one. One kernel visits the blocks that are seen; no other scores exist.
 */
#include "part/mixer/sparse.h"

#include <stdlib.h>

typedef struct options {
    wf_heads_opt heads;
    int64_t block, random, max_length;
} options;

static const wf_option table[] = {
    WF_HEADS_OPTIONS(options, heads),
    {"block", WF_OPT_INT, offsetof(options, block), "64", 1, 1 << 20, NULL, "tokens of a block"},
    {"random_blocks", WF_OPT_INT, offsetof(options, random), "3", 0, 1 << 16, NULL, "random blocks that a block sees, R"},
    {"max_length", WF_OPT_INT, offsetof(options, max_length), "0", 0, 1 << 30, NULL,
     "the longest sequence, for which random blocks are drawn; 0: the model's"},
    WF_OPT_END};

/* Random blocks of all inner blocks, without those seen anyway and without repetition; -1 where there are too few. [H,n-2,R] */
static void draw(wf_tensor *t, wf_rng *r, const void *ctx) {
    (void)ctx;
    int64_t H = t->shape.dim[0], inner = t->shape.dim[1], R = t->shape.dim[2];
    int32_t *to = t->data, *deck = wf_alloc_array((size_t)inner, sizeof *deck);
    for (int64_t i = 0; i < H * inner && deck; i++) {
        int64_t row = i % inner + 1, n = 0;
        for (int64_t k = 1; k <= inner; k++)
            if (llabs(k - row) > 1) deck[n++] = (int32_t)k;
        for (int64_t x = 0; x < R; x++) {
            if (n == 0) {
                to[i * R + x] = -1;
                continue;
            }
            int64_t at = (int64_t)wf_rng_below(r, (uint64_t)n);
            to[i * R + x] = deck[at];
            deck[at] = deck[--n];
        }
    }
    wf_free(deck);
}

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    WF_TRY(wf_heads_setup(m, &o->heads));
    const wf_heads *h = m->data;
    int64_t L = o->max_length ? o->max_length : m->model->max_length, n = (L + o->block - 1) / o->block;
    if (L <= 0) return wf_module_fail(m, WF_EINVAL, "'max_length' is missing and the model has no length of its own");
    if (!o->random || n < 3) return WF_OK;
    wf_param *p = wf_declare_buffer(m, "random", WF_I32, WF_SHAPE(h->H, n - 2, o->random), -1);
    if (!p) return WF_ENOMEM;
    p->fill = draw;
    return WF_OK;
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    wf_node *q, *k, *v;
    if (!x) return NULL;
    int64_t L = x->shape.dim[1], most = o->max_length ? o->max_length : m->model->max_length;
    if (L > (most + o->block - 1) / o->block * o->block) {
        wf_module_fail(m, WF_EINVAL,
                       "a sequence of %lld is longer than the %lld that random blocks were drawn for; make the "
                       "model's length or max_length larger",
                       (long long)L, (long long)most);
        return NULL;
    }
    if (wf_heads_project(b, m, x, x, &q, &k, &v) != WF_OK) return NULL;
    wf_attention_spec s = {.block = o->block, .links = wf_use_or_null(b, m, "random")};
    return wf_heads_merge(b, m, wf_heads_attend(b, m, q, k, v, &s, 0));
}

const wf_part wf_mixer_bigbird = {
    .slot = "mixer",
    .name = "bigbird",
    .title = "BigBird (ITC): attention between blocks: neighbours, first and last block, random blocks",
    .paper = "Zaheer et al.: Big Bird: Transformers for Longer Sequences, 2020, arXiv 2007.14062",
    .sheet = "00",
    .formula = "block r sees 0, n-1, r-1, r, r+1 and R random blocks (per head, fixed); blocks 0 and n-1 see everything\n"
               "o = softmax(q k^T/sqrt(d)) v over the union",
    .facts =
        "Bidirectional only, no streaming form. The random blocks are a buffer of the model's file. Up to about 5 + R blocks\n"
        "it is full attention.",
    .cost = "8 D D FLOPs a token for the linears, about 4 (5 + R) block d H for scores and values",
    .golden = "attention.bigbird",
    .options = table,
    .opt_size = sizeof(options),
    .bidirectional_ok = true,
    .setup = setup,
    .forward = forward,
    .readers = "q k v",
    .writers = "o",
};
