/* test_attention_pattern.c: windows counted by blocks, global keys, tags, blocks with links: the fused operator against its
 * composition of small operators, forward and backward, for any number of threads; what it refuses. */
#include "check.h"
#include "gradcheck.h"
#include "runnode.h"

typedef struct pattern {
    const char *name;
    int64_t B, L, S, H, K, d, e;
    int64_t window_back, window_forward, window_block, block, R;
    int n_globals, globals[8];
    bool causal, tags, before, lengths, bias;
} pattern;

static const pattern cases[] = {
    {"blocks of a window", 2, 50, 58, 2, 1, 5, 6, .window_back = 9, .window_forward = 1, .window_block = 8},
    {"blocks of a window, causal", 1, 130, 130, 2, 2, 16, 16, .window_back = 33, .window_block = 32, .causal = true},
    {"globals", 2, 150, 150, 3, 3, 8, 8, .window_back = 6, .window_forward = 6, .n_globals = 3, .globals = {0, 70, 149}},
    {"globals, no near key", 1, 300, 300, 1, 1, 4, 4, .window_back = 1, .window_forward = 1, .n_globals = 1, .globals = {5}},
    {"globals, causal", 2, 140, 140, 2, 1, 8, 8, .window_back = 4, .n_globals = 3, .globals = {2, 3, 90}, .causal = true},
    {"globals, lengths, bias", 2, 70, 70, 2, 2, 8, 8, .window_back = 4, .window_forward = 4, .n_globals = 2, .globals = {0, 60},
     .lengths = true, .bias = true},
    {"globals without a window", 1, 9, 9, 1, 1, 4, 4, .n_globals = 1, .globals = {3}},
    {"tags", 2, 40, 45, 2, 2, 6, 4, .tags = true, .bias = true},
    {"tags before", 3, 200, 208, 1, 1, 16, 16, .tags = true, .before = true, .window_back = 9, .window_forward = 1,
     .window_block = 8},
    {"blocks", 2, 90, 90, 2, 2, 8, 8, .block = 9, .R = 2},
    {"blocks of 64", 1, 640, 640, 2, 1, 8, 8, .block = 64, .R = 1},
    {"blocks of 48, lengths", 2, 301, 301, 1, 1, 4, 4, .block = 48, .R = 2, .lengths = true},
    {"blocks without links, bias", 1, 33, 33, 2, 2, 4, 4, .block = 4, .bias = true},
    {"two blocks", 1, 7, 7, 1, 1, 4, 4, .block = 4},
};
enum { N_CASES = sizeof cases / sizeof *cases };

typedef struct setting {
    const pattern *p;
    bool plain;
    wf_tensor *own[6];
} setting;

static wf_node *whole(wf_graph *g, setting *s, int slot, wf_shape shape, int64_t limit, int64_t shift, uint64_t seed) {
    if (!s->own[slot]) {
        s->own[slot] = rn_random(WF_I32, shape, seed, limit);
        for (int64_t i = 0; i < wf_tensor_count(s->own[slot]); i++) ((int32_t *)s->own[slot]->data)[i] += (int32_t)shift;
    }
    return wf_leaf(g, s->own[slot], "whole numbers");
}

/* o and lse in one number field: sum of o, and lse where something is visible. */
static wf_node *build(wf_graph *g, wf_node **x, void *ctx) {
    setting *s = ctx;
    const pattern *p = s->p;
    wf_attention_spec a = {.causal = p->causal,
                           .window_back = p->window_back,
                           .window_forward = p->window_forward,
                           .window_block = p->window_block,
                           .block = p->block,
                           .tags_before = p->before};
    int64_t n = p->block ? (p->L + p->block - 1) / p->block : 0;
    if (p->n_globals) {
        a.globals = whole(g, s, 0, WF_SHAPE(p->n_globals), 1, 0, 1);
        for (int i = 0; i < p->n_globals; i++) ((int32_t *)s->own[0]->data)[i] = p->globals[i];
    }
    if (p->tags) {
        a.tags_q = whole(g, s, 1, WF_SHAPE(p->B, p->L), 12, 0, 2);
        a.tags_k = whole(g, s, 2, WF_SHAPE(p->B, p->S), 13, -1, 3);
    }
    if (p->R) a.links = whole(g, s, 3, WF_SHAPE(p->H, n - 2, p->R), n, -1, 4);
    if (p->lengths) {
        a.lengths = whole(g, s, 4, WF_SHAPE(p->B), 1, (int)p->S - 17, 5);
        ((int32_t *)s->own[4]->data)[0] = (int32_t)p->S;
    }
    if (p->bias) a.bias = x[3];
    wf_node *o, *lse;
    if (s->plain) {
        wf_node *weights;
        o = wf_attention_plain(g, x[0], x[1], x[2], &a, &weights);
        return o;
    }
    o = wf_attention(g, x[0], x[1], x[2], &a);
    lse = o ? wf_output(o, 1) : NULL;
    wf_node *none = lse ? wf_fill(g, lse->dtype, WF_SHAPE(1), -1e20) : NULL;
    lse = lse ? wf_where(g, wf_lt(g, none, lse), lse, wf_mul_c(g, none, 0)) : NULL; /* rows that see nothing */
    return o ? wf_add(g, o, wf_unsqueeze(g, wf_permute(g, wf_cast(g, lse, o->dtype), (int[]){0, 2, 1}), 3)) : NULL;
}

static void shapes(const pattern *p, wf_shape s[4]) {
    s[0] = WF_SHAPE(p->B, p->L, p->H, p->d);
    s[1] = WF_SHAPE(p->B, p->S, p->K, p->d);
    s[2] = WF_SHAPE(p->B, p->S, p->K, p->e);
    s[3] = WF_SHAPE(1, p->H, p->L, p->S);
}

static void forget(setting *s) {
    for (int i = 0; i < 6; i++) wf_tensor_free(s->own[i]);
}

static void gradients_of_output_and_lse(void **state) {
    for (int i = 0; i < N_CASES; i++) {
        if (cases[i].L * cases[i].S > 5000) continue; /* compared with the composition below */
        setting s = {.p = &cases[i]};
        gc_case c = {.name = cases[i].name, .build = build, .ctx = &s, .n = cases[i].bias ? 4 : 3, .seed = 3};
        shapes(&cases[i], c.shape);
        c.second = cases[i].L * cases[i].S < 1500;
        if (!gc_check(&c)) fail_msg("%s", cases[i].name);
        forget(&s);
    }
}

/* out[0..n): the output and the gradients of x for a fixed cotangent; `plain`: composed */
static void run(const pattern *p, bool plain, wf_dtype t, int threads, wf_tensor **out) {
    int before = wf_threads();
    wf_set_threads(threads);
    setting s = {.p = p, .plain = plain};
    wf_shape shape[4];
    shapes(p, shape);
    wf_graph *g = wf_graph_open();
    wf_node *x[4], *results[4], *grads[3];
    wf_tensor *own[5];
    for (int i = 0; i < 4; i++) x[i] = wf_leaf(g, own[i] = rn_random(t, shape[i], 7 + (uint64_t)i, 0), "x");
    results[0] = build(g, x, &s);
    if (!results[0]) fail_msg("%s: %s", p->name, wf_graph_message(g));
    if (!plain) { /* the output without the lse, which the composition does not give */
        wf_node *sum = results[0];
        results[0] = sum->in[0];
    }
    wf_node *seed = wf_leaf(g, own[4] = rn_random(t, results[0]->shape, 12, 0), "seed");
    assert_int_equal(wf_grad(g, results, &seed, 1, x, 3, grads), WF_OK);
    for (int i = 0; i < 3; i++) results[i + 1] = grads[i];
    wf_plan *plan = wf_plan_new(g, results, 4, NULL, 0, NULL);
    if (!plan || wf_plan_run(plan) != WF_OK) fail_msg("%s: %s", p->name, wf_message());
    for (int i = 0; i < 4; i++) {
        out[i] = wf_tensor_new(results[i]->dtype, results[i]->shape);
        memcpy(out[i]->data, wf_plan_out(plan, i), out[i]->bytes);
    }
    wf_plan_free(plan);
    wf_graph_free(g);
    for (int i = 0; i < 5; i++) wf_tensor_free(own[i]);
    forget(&s);
    wf_set_threads(before);
}

static void fused_is_the_composition(void **state) {
    for (int i = 0; i < 2 * N_CASES; i++) {
        const pattern *p = &cases[i / 2];
        wf_dtype t = i % 2 ? WF_F64 : WF_F32;
        wf_tensor *a[4], *b[4], *c[4];
        run(p, false, t, 1, a);
        run(p, true, t, 1, b);
        run(p, false, t, 3, c);
        for (int k = 0; k < 4; k++) {
            double e = rn_error(a[k], b[k]);
            if (!(e < (t == WF_F64 ? 1e-12 : 2e-5))) fail_msg("%s: result %d differs by %g", p->name, k, e);
            if (memcmp(a[k]->data, c[k]->data, a[k]->bytes)) fail_msg("%s: threads change result %d", p->name, k);
            wf_tensor_free(a[k]);
            wf_tensor_free(b[k]);
            wf_tensor_free(c[k]);
        }
    }
}

static void cost_counts_visible_pairs(void **state) {
    for (int i = 0; i < N_CASES; i++) {
        const pattern *p = &cases[i];
        if (p->lengths || p->tags || p->R) continue; /* known only when it runs, or an upper bound */
        setting s = {.p = p};
        wf_shape shape[4];
        shapes(p, shape);
        wf_graph *g = wf_graph_open();
        wf_node *x[4], *weights = NULL, *y;
        wf_tensor *own[4];
        for (int k = 0; k < 4; k++) x[k] = wf_leaf(g, own[k] = rn_random(WF_F32, shape[k], 1, 0), "x");
        y = build(g, x, &s)->in[0];
        wf_attention_spec a = {.causal = p->causal,
                               .window_back = p->window_back,
                               .window_forward = p->window_forward,
                               .window_block = p->window_block,
                               .block = p->block};
        if (p->n_globals) a.globals = wf_leaf(g, s.own[0], "globals");
        wf_attention_plain(g, x[0], x[1], x[2], &a, &weights);
        wf_tensor *w = rn_run(g, wf_lt(g, wf_fill(g, WF_F32, WF_SHAPE(1), 0), weights));
        double pairs = 0;
        for (int64_t k = 0; k < wf_tensor_count(w); k++) pairs += wf_tensor_get(w, k);
        wf_cost c = {0};
        y->op->cost(y, &c);
        if (c.flops != 2 * pairs * (double)(p->d + p->e)) fail_msg("%s: %g FLOPs for %g pairs", p->name, c.flops, pairs);
        wf_tensor_free(w);
        wf_graph_free(g);
        for (int k = 0; k < 4; k++) wf_tensor_free(own[k]);
        forget(&s);
    }
}

static void wrong_patterns_are_refused(void **state) {
    struct {
        wf_attention_spec s;
        const char *says;
    } wrong[] = {{{.window_block = -1}, "negative"},
                 {{.block = 2, .causal = true}, "blocks exclude causal"},
                 {{.block = 2, .score = WF_SCORE_SIGMOID}, "score functions"}};
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(1, 8, 2, 4), 1, 0), *few = rn_random(WF_I32, WF_SHAPE(2, 1, 1), 1, 2),
              *tags = rn_random(WF_I32, WF_SHAPE(1, 8), 1, 3);
    for (size_t i = 0; i < 3 + sizeof wrong / sizeof *wrong; i++) {
        wf_graph *g = wf_graph_open();
        wf_node *q = wf_leaf(g, x, "x"), *short_list = wf_leaf(g, few, "few"), *t = wf_leaf(g, tags, "tags");
        wf_attention_spec extra[] = {{.block = 2, .links = short_list}, {.tags_q = t}, {.tags_q = t, .tags_k = t, .block = 2}};
        const char *says[] = {"links must be int32 [2, 2 or more, R]", "tags come in pairs", "exclude each other"};
        assert_null(wf_attention(g, q, q, q, i < 3 ? &extra[i] : &wrong[i - 3].s));
        if (!strstr(wf_graph_message(g), i < 3 ? says[i] : wrong[i - 3].says)) fail_msg("%d: %s", (int)i, wf_graph_message(g));
        wf_graph_free(g);
    }
    wf_tensor_free(x);
    wf_tensor_free(few);
    wf_tensor_free(tags);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_of_output_and_lse),
        cmocka_unit_test(fused_is_the_composition),
        cmocka_unit_test(cost_counts_visible_pairs),
        cmocka_unit_test(wrong_patterns_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
