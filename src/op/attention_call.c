/* attention_call.c: what a call of the fused attention operator asks for: shapes, strides, options, and which keys a query
 * sees. Everything about visibility is here. */
#include "op/attention_tiles.h"
#include "op/simd.h"

#include <math.h>

extern const wf_attention_kernel wf_attention_kernel_f32_generic, wf_attention_kernel_f64_generic;
#if defined(__x86_64__)
extern const wf_attention_kernel wf_attention_kernel_f32_avx2, wf_attention_kernel_f64_avx2;
extern const wf_attention_kernel wf_attention_kernel_f32_avx512, wf_attention_kernel_f64_avx512;
#endif

const wf_attention_kernel *wf_attention_kernel_for(wf_dtype t) {
    bool f64 = t == WF_F64;
#if defined(__x86_64__)
    if (wf_isa() >= WF_ISA_AVX512) return f64 ? &wf_attention_kernel_f64_avx512 : &wf_attention_kernel_f32_avx512;
    if (wf_isa() >= WF_ISA_AVX2) return f64 ? &wf_attention_kernel_f64_avx2 : &wf_attention_kernel_f32_avx2;
#endif
    return f64 ? &wf_attention_kernel_f64_generic : &wf_attention_kernel_f32_generic;
}

int64_t wf_attention_sequences(const wf_node *n) {
    int packed = wf_attention_option(n, WF_AT_OFFSETS_Q);
    return packed < 0 ? n->in[0]->shape.dim[0] : n->in[packed]->shape.dim[0] - 1;
}

/* A tile pair of scores and the packed operands stay within half of a 512 KB L2 cache. */
void wf_attention_blocks(int64_t d, int64_t e, int *block_q, int *block_k) {
    int64_t width = d > e ? d : e;
    *block_q = width <= 128 ? 64 : 32;
    *block_k = width <= 64 ? 128 : width <= 128 ? 64 : 32;
}

int64_t wf_attention_row_blocks(const wf_node *n) {
    int bq, bk;
    const wf_shape *q = &n->in[0]->shape;
    wf_attention_blocks(q->dim[3], n->in[2]->shape.dim[3], &bq, &bk);
    int64_t sequences = wf_attention_sequences(n);
    return q->dim[0] * (q->dim[1] / bq) + sequences; /* every sequence ends in at most one partial block */
}

static void strides(const wf_node *x, int64_t s[3]) {
    for (int i = 0; i < 3; i++) s[i] = x->stride[i];
}

static int32_t entry(const wf_call *c, int j, int64_t i) {
    return ((const int32_t *)c->in[j])[i * c->node->in[j]->stride[0]];
}

static void read_shapes(const wf_call *c, wf_attention_call *a) {
    const wf_node *n = c->node;
    const wf_shape *q = &n->in[0]->shape, *v = &n->in[2]->shape;
    a->dtype = n->in[0]->dtype;
    a->kernel = wf_attention_kernel_for(a->dtype);
    a->B = q->dim[0], a->L = q->dim[1], a->H = q->dim[2], a->d = q->dim[3];
    a->S = v->dim[1], a->K = v->dim[2], a->e = v->dim[3];
    a->G = a->H / a->K;
    a->q = c->in[0], a->k = c->in[1], a->v = c->in[2];
    strides(n->in[0], a->sq), strides(n->in[1], a->sk), strides(n->in[2], a->sv);
    wf_attention_blocks(a->d, a->e, &a->block_q, &a->block_k);
    if (wf_attention_required(n) == 3) return;
    a->o = c->in[3], a->lse = c->in[4], a->go = c->in[5];
    strides(n->in[3], a->so), strides(n->in[4], a->slse), strides(n->in[5], a->sgo);
    if (wf_attention_required(n) == 7) a->dlse = c->in[6], strides(n->in[6], a->sdlse);
}

static void read_rule(const wf_call *c, wf_attention_call *a) {
    const wf_node *n = c->node;
    wf_score_rule *r = &a->rule;
    a->causal = n->attr.i[0] & WF_AT_CAUSAL;
    a->back = n->attr.i[1], a->forward = n->attr.i[2];
    a->scale = n->attr.f[0];
    r->normaliser = (wf_normaliser)n->attr.i[3];
    r->score = (wf_score)n->attr.i[4];
    r->unit = r->normaliser == WF_NORMALISE_SOFTMAX && r->score == WF_SCORE_LINEAR ? M_LOG2E : 1;
    r->score_bias = n->attr.f[1];
    r->dropout = n->attr.f[2];
    r->stream = (uint64_t)n->attr.i[5];
    int seed = wf_attention_option(n, WF_AT_SEED), slopes = wf_attention_option(n, WF_AT_SLOPES),
        bias = wf_attention_option(n, WF_AT_BIAS);
    for (int i = 0; seed >= 0 && i < 4; i++) r->seed[i] = (uint32_t)entry(c, seed, i);
    if (slopes >= 0) a->slopes = c->in[slopes], a->s_slopes = n->in[slopes]->stride[0];
    if (bias >= 0) {
        a->bias = c->in[bias];
        for (int i = 0; i < 4; i++) a->s_bias[i] = n->in[bias]->stride[i];
    }
    bool usual = r->score == (r->normaliser == WF_NORMALISE_SOFTMAX ? WF_SCORE_LINEAR : WF_SCORE_SIGMOID);
    r->bare = usual && r->dropout == 0 && !a->bias && !a->slopes;
}

static int64_t clamp(int64_t x, int64_t lo, int64_t hi) {
    return x < lo ? lo : x > hi ? hi : x;
}

static void read_batches(const wf_call *c, wf_attention_call *a, wf_sequence *seq) {
    int lengths = wf_attention_option(c->node, WF_AT_LENGTHS), start = wf_attention_option(c->node, WF_AT_Q_START);
    for (int64_t b = 0; b < a->B; b++) {
        wf_sequence *s = &seq[b];
        *s = (wf_sequence){.batch = b, .q1 = a->L, .k1 = a->S, .first = a->S - a->L};
        if (start >= 0) {
            s->first = entry(c, start, 0);
            s->k1 = clamp(s->first + a->L, 0, a->S);
        }
        if (lengths >= 0) s->k1 = clamp(entry(c, lengths, b), 0, s->k1);
    }
}

static wf_status read_offsets(const wf_call *c, wf_attention_call *a, wf_sequence *seq) {
    int oq = wf_attention_option(c->node, WF_AT_OFFSETS_Q), ok = wf_attention_option(c->node, WF_AT_OFFSETS_K);
    if (ok < 0) ok = oq;
    for (int64_t i = 0; i < a->n_seq; i++) {
        wf_sequence *s = &seq[i];
        *s = (wf_sequence){.q0 = entry(c, oq, i), .q1 = entry(c, oq, i + 1), .k0 = entry(c, ok, i), .k1 = entry(c, ok, i + 1)};
        if (s->q0 < 0 || s->q1 < s->q0 || s->q1 > a->L)
            return wf_fail(WF_EINVAL, "attention: query offsets %lld..%lld of sequence %lld must rise within 0..%lld",
                           (long long)s->q0, (long long)s->q1, (long long)i, (long long)a->L);
        if (s->k0 < 0 || s->k1 < s->k0 || s->k1 > a->S)
            return wf_fail(WF_EINVAL, "attention: key offsets %lld..%lld of sequence %lld must rise within 0..%lld",
                           (long long)s->k0, (long long)s->k1, (long long)i, (long long)a->S);
        s->first = (s->k1 - s->k0) - (s->q1 - s->q0);
    }
    return WF_OK;
}

static size_t sequence_bytes(const wf_node *n) {
    return ((size_t)wf_attention_sequences(n) * sizeof(wf_sequence) + 63) / 64 * 64;
}

size_t wf_attention_front(const wf_node *n) {
    int64_t block = n->attr.i[7], blocks = block ? (n->in[1]->shape.dim[1] + block - 1) / block : 0;
    return sequence_bytes(n) + ((size_t)(n->in[0]->shape.dim[2] * blocks * blocks) + 63) / 64 * 64;
}

wf_status wf_attention_read(const wf_call *c, wf_attention_call *a, void *front) {
    wf_sequence *seq = front;
    *a = (wf_attention_call){0};
    read_shapes(c, a);
    read_rule(c, a);
    wf_attention_read_pattern(c, a, (uint8_t *)front + sequence_bytes(c->node));
    a->n_seq = (int)wf_attention_sequences(c->node);
    a->seq = seq;
    if (wf_attention_option(c->node, WF_AT_OFFSETS_Q) >= 0)
        WF_TRY(read_offsets(c, a, seq));
    else
        read_batches(c, a, seq);
    for (int i = 0; i < a->n_seq; i++) {
        seq[i].blocks_before = a->row_blocks;
        a->row_blocks += (seq[i].q1 - seq[i].q0 + a->block_q - 1) / a->block_q;
    }
    return WF_OK;
}

void wf_attention_bounds(const wf_attention_call *a, const wf_sequence *s, int64_t i, int64_t *lo, int64_t *hi) {
    int64_t p = s->first + i, low = 0, high = s->k1 - s->k0, first = p, last = p;
    if (a->window_block > 1) {
        first = p - p % a->window_block;
        last = first + a->window_block - 1;
    }
    if (a->back > 0 && first - a->back + 1 > low) low = first - a->back + 1;
    if (a->causal && p + 1 < high) high = p + 1;
    if (a->forward > 0 && last + a->forward < high) high = last + a->forward;
    *lo = low;
    *hi = high;
}

void wf_attention_key_blocks(const wf_attention_call *a, const wf_sequence *s, int64_t ib, int64_t *first, int64_t *end) {
    int64_t i0 = ib * a->block_q, i1 = i0 + a->block_q, lo, hi, unused;
    if (i1 > s->q1 - s->q0) i1 = s->q1 - s->q0;
    wf_attention_bounds(a, s, i0, &lo, &unused);
    wf_attention_bounds(a, s, i1 - 1, &unused, &hi);
    *first = *end = 0;
    if (lo >= hi) return;
    *first = lo / a->block_k;
    *end = (hi + a->block_k - 1) / a->block_k;
}

bool wf_attention_tile_mask(const wf_attention_call *a, const wf_sequence *s, int64_t i0, int rows, int64_t j0, int cols,
                            int *lo, int *hi) {
    for (int r = 0; r < rows; r++) {
        int64_t low, high;
        wf_attention_bounds(a, s, i0 + r, &low, &high);
        lo[r] = (int)clamp(low - j0, 0, cols);
        hi[r] = (int)clamp(high - j0, 0, cols);
    }
    return lo[rows - 1] == 0 && hi[0] == cols;
}

static double real(const wf_attention_call *a, const char *p, int64_t i) {
    return a->kernel->size == 8 ? ((const double *)p)[i] : (double)((const float *)p)[i];
}

void wf_attention_place(const wf_attention_call *a, const wf_sequence *s, int64_t h, int64_t i0, int64_t j0, wf_tile *t) {
    t->rule = &a->rule;
    t->d = (int)a->d, t->e = (int)a->e;
    t->distance = s->first + i0 - j0;
    int64_t row = s->q0 + i0, col = s->k0 + j0;
    if (a->slopes) t->slope = a->rule.unit * real(a, a->slopes, h * a->s_slopes);
    if (a->bias) {
        t->bias =
            a->bias + a->kernel->size * (s->batch * a->s_bias[0] + h * a->s_bias[1] + row * a->s_bias[2] + col * a->s_bias[3]);
        t->bias_row = a->s_bias[2], t->bias_col = a->s_bias[3];
    }
    t->number = (uint64_t)(((s->batch * a->H + h) * a->L + row) * a->S + col);
    t->number_row = (uint64_t)a->S;
}

/* Waking threads costs about as much as 10^5 multiply-adds. */
int wf_attention_threads(const wf_attention_call *a, int threads) {
    double work = (double)a->B * (double)a->H * (double)a->L * (double)a->S * (double)(a->d + a->e);
    return work < 3e5 ? 1 : threads;
}
