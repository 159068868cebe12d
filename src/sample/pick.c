/* pick.c: one token from logits: greedy, temperature, the k largest, the nucleus of mass p (Holtzman et al. 2020). */
#include "sample/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct candidate {
    float logit;
    int32_t token;
} candidate;

struct wf_picker {
    wf_pick_opt opt;
    int64_t vocab;
    wf_rng rng;
    candidate *c;
    double *mass;
};

wf_picker *wf_picker_new(const wf_pick_opt *opt, int64_t vocab, uint64_t seed) {
    if (!(opt->temperature >= 0) || opt->top_k < 0 || !(opt->top_p >= 0 && opt->top_p <= 1) || vocab < 1) {
        wf_fail(WF_EINVAL, "temperature %g must be 0 or more, top_k %lld 0 or more, top_p %g between 0 and 1", opt->temperature,
                (long long)opt->top_k, opt->top_p);
        return NULL;
    }
    wf_picker *p = wf_alloc(sizeof *p);
    if (!p) return NULL;
    p->opt = *opt;
    p->vocab = vocab;
    p->rng = (wf_rng){.seed = seed, .stream = 0x67656e};
    p->c = wf_alloc_array((size_t)vocab, sizeof *p->c);
    p->mass = wf_alloc_array((size_t)vocab, sizeof *p->mass);
    if (p->c && p->mass) return p;
    wf_picker_free(p);
    return NULL;
}

void wf_picker_free(wf_picker *p) {
    if (!p) return;
    wf_free(p->c);
    wf_free(p->mass);
    wf_free(p);
}

static bool before(const candidate *a, const candidate *b) {
    return a->logit > b->logit || (a->logit == b->logit && a->token < b->token);
}

static int by_logit(const void *x, const void *y) {
    return before(x, y) ? -1 : 1;
}

/* Heap of the k best with the worst on top. */
static void sift_down(candidate *h, int64_t n, int64_t i) {
    for (;;) {
        int64_t worst = i, l = 2 * i + 1;
        if (l < n && before(&h[worst], &h[l])) worst = l;
        if (l + 1 < n && before(&h[worst], &h[l + 1])) worst = l + 1;
        if (worst == i) return;
        candidate t = h[i];
        h[i] = h[worst];
        h[worst] = t;
        i = worst;
    }
}

/* The numbers among the logits, at most top_k of them; returns how many. */
static int64_t gather(wf_picker *p, const float *logits) {
    int64_t k = p->opt.top_k > 0 && p->opt.top_k < p->vocab ? p->opt.top_k : p->vocab, n = 0;
    for (int64_t i = 0; i < p->vocab; i++) {
        if (isnan(logits[i]) || logits[i] == -INFINITY) continue;
        candidate c = {logits[i], (int32_t)i};
        if (n < k) {
            p->c[n++] = c;
            if (n == k && k < p->vocab)
                for (int64_t j = k / 2; j-- > 0;) sift_down(p->c, k, j);
        } else if (before(&c, &p->c[0])) {
            p->c[0] = c;
            sift_down(p->c, k, 0);
        }
    }
    return n;
}

static int32_t greedy(const wf_picker *p, const float *logits) {
    int32_t best = -1;
    for (int64_t i = 0; i < p->vocab; i++)
        if (!isnan(logits[i]) && logits[i] > -INFINITY && (best < 0 || logits[i] > logits[best])) best = (int32_t)i;
    return best;
}

int32_t wf_pick(wf_picker *p, const float *logits) {
    if (p->opt.temperature == 0 || p->opt.top_k == 1) return greedy(p, logits);
    int64_t n = gather(p, logits);
    double u = wf_rng_uniform(&p->rng), sum = 0, high = -INFINITY;
    if (n == 0) return -1;
    bool nucleus = p->opt.top_p > 0 && p->opt.top_p < 1;
    if (nucleus || n < p->vocab) qsort(p->c, (size_t)n, sizeof *p->c, by_logit);
    for (int64_t i = 0; i < n; i++)
        if (p->c[i].logit > high) high = p->c[i].logit;
    if (high == INFINITY) return greedy(p, logits);
    for (int64_t i = 0; i < n; i++) sum += p->mass[i] = exp((p->c[i].logit - high) / p->opt.temperature);
    if (nucleus) {
        double want = p->opt.top_p * sum, got = 0;
        int64_t m = 0;
        while (m < n && got < want) got += p->mass[m++];
        n = m;
        sum = got;
    }
    double at = u * sum;
    for (int64_t i = 0; i < n; i++)
        if ((at -= p->mass[i]) < 0) return p->c[i].token;
    return p->c[n - 1].token;
}
