/* test_topologies.c: how sublayers follow each other: per-block lists, macaron, wide, activator, cross attention, adaLN-zero; the
 * text classifier. */
#include "gradcheck.h"
#include "parts_help.h"

#include "part/placement/placement.h"

#include <math.h>

/* ---- lists: block i takes entry floor(i n / layers) ---- */

static const char *mixer_of(const wf_model *m, int block) {
    char name[48];
    snprintf(name, sizeof name, "%d", block);
    wf_module *k = wf_module_find(wf_module_find(m->root, "blocks"), name);
    return wf_module_find(k, "mixer")->part->name;
}

static const char *channel_of(const wf_model *m, int block) {
    char name[48];
    snprintf(name, sizeof name, "%d", block);
    wf_module *k = wf_module_find(wf_module_find(m->root, "blocks"), name);
    return wf_module_find(k, "channel")->part->name;
}

static void a_list_is_stretched_over_the_blocks(void **state) {
    wf_model *m = model_of("{name: lm, vocab: 8, length: 4, width: 8, layers: 5, mixer: [linear, {name: softmax, heads: 2}], "
                           "channel: [mlp, swiglu, geglu]}",
                           1);
    static const char *const mixer[] = {"linear", "linear", "linear", "softmax", "softmax"}, *const channel[] = {
                                                                                                 "mlp", "mlp", "swiglu",
                                                                                                 "swiglu", "geglu"};
    for (int i = 0; i < 5; i++) {
        assert_string_equal(mixer_of(m, i), mixer[i]);
        assert_string_equal(channel_of(m, i), channel[i]);
    }
    assert_int_equal(wf_model_param(m, "blocks.3.mixer.q.weight")->value->shape.dim[0], 8);
    wf_model_free(m);
    m = model_of("{name: lm, vocab: 8, length: 4, width: 8, layers: 3, mixer: [linear]}", 1);
    for (int i = 0; i < 3; i++) assert_string_equal(mixer_of(m, i), "linear");
    wf_model_free(m);
}

static void a_list_longer_than_the_blocks_is_refused(void **state) {
    refused("{name: lm, vocab: 8, length: 4, width: 8, layers: 2, mixer: [linear, softmax, linear]}",
            "'mixer' lists 3 parts for 2 blocks");
    refused("{name: lm, vocab: 8, length: 4, width: 8, layers: 2, channel: [mlp, mlp, mlp]}", "test.yaml:1");
    refused("{name: lm, vocab: 8, length: 4, width: 8, layers: 2, channel: []}", "lists 0 parts");
    refused("{name: lm, vocab: 8, length: 4, width: 8, layers: 2, mixer: [linear, softmx]}", "did you mean 'softmax'");
}

/* ---- macaron, points 2 and 3 of system 46 ---- */

static int64_t count_of(const char *text) {
    wf_model *m = model_of(text, 1);
    int64_t n = wf_model_count(m);
    wf_model_free(m);
    return n;
}

static void macaron_has_the_parameters_of_plain(void **state) {
    static const char lm[] = "{name: lm, vocab: 9, length: 6, width: 12, layers: 3, placement: %s, topology: %s, channel: %s}";
    static const char *const channel[] = {"mlp", "{name: mlp, ratio: 2.5}"}, *const places[] = {"pre", "post", "peri"};
    for (int c = 0; c < 2; c++)
        for (int p = 0; p < 3; p++) {
            char plain[256], macaron[256];
            snprintf(plain, sizeof plain, lm, places[p], "plain", channel[c]);
            snprintf(macaron, sizeof macaron, lm, places[p], "macaron", channel[c]);
            int64_t norms = p == 2 ? 2 : 1, D = 12;
            assert_int_equal(count_of(macaron), count_of(plain) + 3 * (norms * 2 * D + D));
        }
    wf_model *m = model_of(
        "{name: lm, vocab: 9, length: 6, width: 12, layers: 1, topology: macaron, channel: {name: mlp, hidden: 10}}", 1);
    assert_int_equal(wf_model_param(m, "blocks.0.channel2.up.weight")->value->shape.dim[0], 10);
    wf_model_free(m);
    m = model_of("{name: lm, vocab: 9, length: 6, width: 12, layers: 1, topology: macaron, channel: swiglu}", 1);
    assert_int_equal(wf_model_param(m, "blocks.0.channel1.up.weight")->value->shape.dim[0], 16);
    wf_model_free(m);
}

static void copy_param(wf_model *to, const char *a, wf_model *from, const char *b) {
    wf_param *p = wf_model_param(to, a), *q = wf_model_param(from, b);
    if (!p || !q) fail_msg("%s", wf_message());
    assert_int_equal(p->value->bytes, q->value->bytes);
    memcpy(p->value->data, q->value->data, q->value->bytes);
}

static void macaron_without_its_first_half_is_plain(void **state) {
    wf_model *plain = model_of("{name: lm, vocab: 9, length: 6, width: 12, layers: 2, channel: {name: mlp, hidden: 20}}", 1);
    wf_model *m = model_of("{name: lm, vocab: 9, length: 6, width: 12, layers: 2, topology: {name: macaron, factor: 1}, "
                           "channel: {name: mlp, hidden: 20}}",
                           2);
    stir(plain, 0.3);
    for (int i = 0; i < m->n_param; i++) {
        const char *name = m->param[i]->name, *at = strstr(name, ".channel2");
        char other[128];
        if (strstr(name, ".channel1")) {
            if (strstr(name, "down")) memset(m->param[i]->value->data, 0, m->param[i]->value->bytes);
            continue;
        }
        snprintf(other, sizeof other, "%s", name);
        if (at) snprintf(other, sizeof other, "%.*s.channel%s", (int)(at - name), name, at + 9);
        copy_param(m, name, plain, other);
    }
    wf_tensor *ids = rn_random(WF_I32, WF_SHAPE(2, 6), 1, 9), *y = run_forward(plain, ids, NULL),
              *z = run_forward(m, ids, NULL);
    assert_close(z, y, 1e-6, "macaron");
    wf_tensor_free(ids);
    wf_tensor_free(y);
    wf_tensor_free(z);
    wf_model_free(plain);
    wf_model_free(m);
}

static const char *const causal_models[] = {
    "{name: lm, vocab: 9, length: 8, width: 12, layers: 2, topology: macaron, mixer: {name: softmax, heads: 2}}",
    "{name: lm, vocab: 9, length: 8, width: 12, layers: 2, topology: macaron, placement: post, mixer: linear, position: rope}",
    "{name: lm, vocab: 9, length: 8, width: 12, layers: 4, topology: wide, mixer: {name: softmax, heads: 2}}",
    "{name: lm, vocab: 9, length: 8, width: 12, layers: 4, topology: {name: wide, blocks: 2}, placement: deepnorm, mixer: "
    "{name: softmax, heads: 4, kv_heads: 2}}",
    "{name: lm, vocab: 9, length: 8, width: 12, layers: 2, topology: activator, mixer: {name: softmax, heads: 2}, placement: "
    "peri}",
    "{name: lm, vocab: 9, length: 8, width: 12, layers: 2, topology: {name: activator, mlp: false}, mixer: glu, placement: "
    "normformer}",
    "{name: lm, vocab: 9, length: 8, width: 12, layers: 2, topology: mixer-only}",
    "{name: lm, vocab: 9, length: 8, width: 12, layers: 3, mixer: [pool, softmax, linear], channel: [mlp, swiglu]}",
};
enum { N_CAUSAL = sizeof causal_models / sizeof *causal_models };

static void topologies_stream_and_do_not_look_ahead(void **state) {
    static const int by_one[] = {1, 1, 1, 1, 1, 1, 1, 1, 0}, parts[] = {3, 4, 1, 0};
    for (int i = 0; i < N_CAUSAL; i++) {
        wf_model *m = model_of(causal_models[i], 1);
        stir(m, 0.1);
        wf_tensor *ids = rn_random(WF_I32, WF_SHAPE(2, 8), 1, 9), *y = run_forward(m, ids, NULL);
        for (int w = 0; w < 2; w++) {
            wf_tensor *z = run_steps(m, ids, w ? parts : by_one, 8);
            assert_close(z, y, 2e-5, causal_models[i]);
            wf_tensor_free(z);
        }
        for (int64_t b = 0; b < 2; b++)
            for (int64_t t = 5; t < 8; t++) wf_tensor_set(ids, b * 8 + t, 8 - wf_tensor_get(ids, b * 8 + t));
        wf_tensor *z = run_forward(m, ids, NULL);
        for (int64_t b = 0; b < 2; b++)
            assert_memory_equal((float *)y->data + b * 72, (float *)z->data + b * 72, 5 * 9 * sizeof(float));
        assert_true(rn_error(y, z) > 1e-4);
        wf_tensor_free(ids);
        wf_tensor_free(y);
        wf_tensor_free(z);
        wf_model_free(m);
    }
}

/* Every topology with every placement builds, and its gradients reach all parameters. */
static void every_placement_fits_every_topology(void **state) {
    static const char *const topologies[] = {"plain", "macaron", "wide", "activator", "mixer-only"};
    for (int t = 0; t < 5; t++)
        for (int p = 0; p < wf_n_placements; p++) {
            char text[300];
            bool gate = wf_placements[p].gate;
            snprintf(text, sizeof text,
                     "{name: stack, width: 8, layers: 2, topology: %s, placement: %s, mixer: {name: softmax, heads: 2}%s}",
                     topologies[t], wf_placements[p].part.name, gate ? ", condition: 5" : "");
            wf_model *m = model_of(text, 1);
            wf_graph *g = wf_graph_open();
            wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 4, 8), 1, 0), *c = rn_random(WF_F32, WF_SHAPE(2, 5), 2, 0);
            wf_build b;
            wf_build_start(&b, g);
            stir(m, 0.2);
            if (gate) b.condition = wf_leaf(g, c, "c");
            wf_node *loss = wf_sum_all(g, wf_square(g, wf_apply(&b, m->root, wf_leaf(g, x, "x")))), *wrt[64], *grad[64];
            for (int i = 0; i < m->n_param; i++) wrt[i] = wf_leaf(g, m->param[i]->value, m->param[i]->name);
            if (!loss || wf_grad(g, &loss, NULL, 1, wrt, m->n_param, grad) != WF_OK) fail_msg("%s: %s", text, wf_message());
            wf_plan *plan = wf_plan_new(g, grad, m->n_param, NULL, 0, NULL);
            if (!plan || wf_plan_run(plan) != WF_OK) fail_msg("%s: %s", text, wf_message());
            for (int i = 0; i < m->n_param; i++) {
                const float *v = wf_plan_out(plan, i);
                double most = 0;
                for (int64_t j = 0; j < wf_tensor_count(m->param[i]->value); j++) most = fmax(most, fabs((double)v[j]));
                if (most == 0) fail_msg("%s: no gradient for %s", text, m->param[i]->name);
            }
            wf_plan_free(plan);
            wf_build_end(&b);
            wf_graph_free(g);
            wf_tensor_free(x);
            wf_tensor_free(c);
            wf_model_free(m);
        }
}

/* ---- wide, points 2 and 3 of system 24 ---- */

static void the_parameter_formula_of_wide_is_exact(void **state) {
    static const int64_t cases[][5] = {
        {8, 6, 4, 10, 1}, {8, 1, 3, 10, 2}, {10, 5, 3, 12, 1}, {16, 2, 16, 5, 3}, {7, 3, 5, 9, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t D = cases[i][0], H = cases[i][1], d = cases[i][2], F = cases[i][3], n = cases[i][4], I = H * d;
        char text[400];
        snprintf(text, sizeof text,
                 "{name: classifier, vocab: 13, length: 7, classes: 2, width: %lld, layers: %lld, topology: {name: wide, "
                 "blocks: %lld}, "
                 "placement: post, mixer: {name: softmax, heads: 1, head_dim: %lld}, channel: {name: mlp, hidden: %lld}}",
                 (long long)D, (long long)(n * H), (long long)n, (long long)d, (long long)F);
        int64_t layer = 4 * D * I + (3 * I + D) + 2 * D * F + (F + D) + 4 * D;
        assert_int_equal(count_of(text), n * layer + 13 * D + 7 * D + 2 * D + 2);
        wf_model *m = model_of(text, 1);
        wf_tensor *ids = rn_random(WF_I32, WF_SHAPE(2, 7), 1, 13), *y = run_forward(m, ids, NULL);
        if (!y) fail_msg("%s", wf_message());
        wf_tensor_free(ids);
        wf_tensor_free(y);
        wf_model_free(m);
    }
}

static void wide_keeps_the_width_of_heads(void **state) {
    wf_model *m = model_of("{name: lm, vocab: 9, length: 8, width: 24, layers: 6, topology: {name: wide, blocks: 2}, mixer: "
                           "{name: softmax, heads: 4, kv_heads: 2}}",
                           1);
    assert_int_equal(wf_model_param(m, "blocks.1.mixer.q.weight")->value->shape.dim[0], 12 * 6);
    assert_int_equal(wf_model_param(m, "blocks.1.mixer.k.weight")->value->shape.dim[0], 6 * 6);
    assert_int_equal(m->layers, 2);
    assert_null(wf_model_param(m, "blocks.2.mixer.q.weight"));
    wf_model_free(m);
    refused("{name: lm, vocab: 9, length: 8, width: 24, layers: 3, topology: {name: wide, blocks: 2}, mixer: {name: softmax, "
            "heads: 3}}",
            "3 layers of 3 heads do not spread evenly over 2 blocks");
    refused("{name: lm, vocab: 9, length: 8, width: 24, layers: 3, topology: wide, mixer: pool}",
            "no heads that could stand side by side");
}

/* Rows [from, from+n) of b into a at `to` (columns when `by_columns`). */
static void move_rows(wf_tensor *a, int64_t to, const wf_tensor *b, int64_t from, int64_t n, bool by_columns) {
    int64_t rows = b->shape.dim[0], cols = wf_tensor_count(b) / rows, wide = wf_tensor_count(a) / a->shape.dim[0];
    for (int64_t r = 0; r < (by_columns ? rows : n); r++)
        for (int64_t c = 0; c < (by_columns ? n : cols); c++) {
            int64_t source = by_columns ? r * cols + from + c : (from + r) * cols + c;
            wf_tensor_set(a, by_columns ? r * wide + to + c : (to + r) * wide + c, wf_tensor_get(b, source));
        }
}

/* Heads [from, from+n) of b to those from `to` on of a. */
static void move_heads(wf_model *a, int64_t to, wf_model *b, int64_t from, int64_t n, int64_t d) {
    static const char *const in[] = {"q.weight", "q.bias", "k.weight", "k.bias", "v.weight", "v.bias"};
    for (int i = 0; i < 6; i++)
        move_rows(wf_model_param(a, in[i])->value, to * d, wf_model_param(b, in[i])->value, from * d, n * d, false);
    move_rows(wf_model_param(a, "o.weight")->value, to * d, wf_model_param(b, "o.weight")->value, from * d, n * d, true);
}

static void permuted_heads_give_the_same(void **state) {
    wf_model *a = part_of("mixer", "{name: softmax, heads: 5, head_dim: 3}", 8, false, 9),
             *b = part_of("mixer", "{name: softmax, heads: 5, head_dim: 3}", 8, false, 9);
    stir(a, 0.4);
    copy_param(b, "o.bias", a, "o.bias");
    for (int64_t h = 0; h < 5; h++) move_heads(b, (h * 3 + 1) % 5, a, h, 1, 3);
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 9, 8), 1, 0), *y = run_forward(a, x, NULL), *z = run_forward(b, x, NULL);
    assert_close(z, y, 2e-6, "permuted heads");
    wf_tensor_free(x);
    wf_tensor_free(y);
    wf_tensor_free(z);
    wf_model_free(a);
    wf_model_free(b);
}

static void a_layer_is_the_sum_of_its_heads(void **state) {
    wf_model *all = part_of("mixer", "{name: softmax, heads: 5, head_dim: 3}", 8, false, 9);
    wf_model *two = part_of("mixer", "{name: softmax, heads: 2, head_dim: 3}", 8, false, 9),
             *three = part_of("mixer", "{name: softmax, heads: 3, head_dim: 3}", 8, false, 9);
    stir(all, 0.4);
    move_heads(two, 0, all, 0, 2, 3);
    move_heads(three, 0, all, 2, 3, 3);
    copy_param(two, "o.bias", all, "o.bias");
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 9, 8), 1, 0), *y = run_forward(all, x, NULL), *u = run_forward(two, x, NULL),
              *v = run_forward(three, x, NULL);
    for (int64_t i = 0; i < wf_tensor_count(u); i++) wf_tensor_set(u, i, wf_tensor_get(u, i) + wf_tensor_get(v, i));
    assert_close(u, y, 2e-6, "sum of heads");
    wf_tensor *t[] = {x, y, u, v};
    for (int i = 0; i < 4; i++) wf_tensor_free(t[i]);
    wf_model_free(all);
    wf_model_free(two);
    wf_model_free(three);
}

/* ---- the text classifier, point 4 of system 24 ---- */

static wf_tensor *padded_ids(int64_t L, double filler) { /* lengths 4 and 6, then token 0; beyond L nothing */
    wf_tensor *ids = rn_random(WF_I32, WF_SHAPE(2, L), 3, 0 + 9);
    wf_rng r = {5, 0, 0};
    for (int64_t b = 0; b < 2; b++)
        for (int64_t t = 0; t < L; t++) wf_tensor_set(ids, b * L + t, t < 4 + 2 * b ? 1 + (double)wf_rng_below(&r, 8) : filler);
    return ids;
}

static void padding_does_not_reach_the_logits(void **state) {
    static const char *const kinds[] = {"pool: mean, placement: post",
                                        "pool: class, placement: pre",
                                        "pool: mean, mixer: linear",
                                        "pool: mean, mixer: {name: pool, pool_size: 5}",
                                        "pool: mean, mixer: {name: glu, axis: token}",
                                        "pool: class, mixer: random, topology: macaron"};
    for (int i = 0; i < 6; i++) {
        char text[300];
        snprintf(text, sizeof text,
                 "{name: classifier, vocab: 9, length: 10, classes: 3, width: 8, layers: 2, padding_id: 0, %s}", kinds[i]);
        wf_model *m = model_of(text, 1);
        stir(m, 0.2);
        wf_tensor *a = padded_ids(6, 0), *b = padded_ids(10, 0), *c = padded_ids(10, 7),
                  *lengths = wf_tensor_new(WF_I32, WF_SHAPE(2));
        for (int64_t r = 0, at = 0; r < 2; r++) /* the same tokens in both */
            for (int64_t t = 0; t < 4 + 2 * r; t++, at++) {
                double id = (double)(1 + (at * 5 + 2) % 8);
                wf_tensor_set(a, r * 6 + t, id);
                wf_tensor_set(b, r * 10 + t, id);
                wf_tensor_set(c, r * 10 + t, id);
            }
        wf_tensor_set(lengths, 0, 4);
        wf_tensor_set(lengths, 1, 6);
        run_spec o = {.lengths = lengths};
        wf_tensor *y = run_forward(m, a, NULL), *z = run_forward(m, b, NULL), *w = run_forward(m, c, &o);
        if (i < 5) assert_close(z, y, 1e-6, kinds[i]); /* a softmax over positions does see how many there are */
        assert_close(w, z, 1e-6, kinds[i]);
        wf_tensor *t[] = {a, b, c, lengths, y, z, w};
        for (int k = 0; k < 7; k++) wf_tensor_free(t[k]);
        wf_model_free(m);
    }
}

static void pairs_share_one_encoder(void **state) {
    wf_model *m = model_of(
        "{name: classifier, vocab: 9, length: 6, classes: 3, width: 8, layers: 1, inputs: 2, head_hidden: 5, padding_id: 0}",
        1);
    assert_int_equal(wf_model_param(m, "pair.weight")->value->shape.dim[1], 32);
    stir(m, 0.2);
    wf_tensor *ids = wf_tensor_new(WF_I32, WF_SHAPE(2, 2, 6));
    for (int64_t i = 0; i < 24; i++) wf_tensor_set(ids, i, i % 6 < 4 ? (double)(1 + i % 8) : 0);
    wf_tensor *y = run_forward(m, ids, NULL);
    if (!y) fail_msg("%s", wf_message());
    assert_int_equal(y->shape.dim[0], 2);
    assert_int_equal(y->shape.dim[1], 3);
    wf_tensor_free(ids);
    wf_tensor_free(y);
    ids = rn_random(WF_I32, WF_SHAPE(2, 6), 1, 9);
    assert_null(run_forward(m, ids, NULL));
    MESSAGE_HAS("[B,2,L]");
    wf_tensor_free(ids);
    wf_model_free(m);
    refused("{name: classifier, vocab: 9, length: 6}", "'classes' is missing");
}

/* ---- activator: one norm ---- */

static void sublayers_share_the_norm(void **state) {
    wf_model *m = model_of("{name: stack, width: 8, layers: 1, topology: activator, mixer: glu}", 1);
    assert_non_null(wf_model_param(m, "blocks.0.in_norm.weight"));
    assert_null(wf_model_param(m, "blocks.0.channel_in_norm.weight"));
    wf_model_free(m);
    m = model_of("{name: stack, width: 8, layers: 1, topology: activator, mixer: glu, placement: post}", 1);
    assert_null(wf_model_param(m, "blocks.0.in_norm.weight"));
    wf_model_free(m);
}

/* ---- cross attention ---- */

static wf_tensor *with_context(wf_model *m, wf_tensor *x, wf_tensor *context, wf_tensor *lengths, wf_tensor *bias) {
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_build_start(&b, g);
    b.context = wf_leaf(g, context, "context");
    if (lengths) b.context_lengths = wf_leaf(g, lengths, "lengths");
    if (bias) b.context_bias = wf_leaf(g, bias, "bias");
    wf_tensor *y = rn_run(g, wf_apply(&b, m->root, wf_leaf(g, x, "x")));
    if (!y) wf_fail(WF_EINVAL, "%s", wf_graph_message(g));
    wf_build_end(&b);
    wf_graph_free(g);
    return y;
}

static void blocks_read_a_context_up_to_its_length(void **state) {
    static const char *const topologies[] = {"plain", "macaron", "mixer-only"};
    for (int i = 0; i < 3; i++) {
        char text[256];
        snprintf(text, sizeof text,
                 "{name: stack, width: 8, layers: 2, causal: true, context: true, position: rope, topology: %s, mixer: {name: "
                 "softmax, heads: 2}}",
                 topologies[i]);
        wf_model *m = model_of(text, 1);
        stir(m, 0.2);
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 5, 8), 1, 0), *c = rn_random(WF_F32, WF_SHAPE(2, 7, 8), 2, 0),
                  *n = wf_tensor_new(WF_I32, WF_SHAPE(2));
        wf_tensor_set(n, 0, 4);
        wf_tensor_set(n, 1, 4);
        wf_tensor *all = with_context(m, x, c, NULL, NULL), *y = with_context(m, x, c, n, NULL);
        for (int64_t b = 0; b < 2; b++)
            for (int64_t j = 4 * 8; j < 7 * 8; j++) wf_tensor_set(c, b * 56 + j, 9);
        wf_tensor *z = with_context(m, x, c, n, NULL);
        assert_true(rn_error(y, z) == 0 && rn_error(y, all) > 1e-4);
        assert_null(run_forward(m, x, NULL));
        MESSAGE_HAS("context is not set");
        wf_tensor *t[] = {x, c, n, all, y, z};
        for (int k = 0; k < 6; k++) wf_tensor_free(t[k]);
        wf_model_free(m);
    }
}

/* A bias of the scores hides positions wherever they stand; the same ones at the end are a length. */
static void a_bias_hides_positions_of_the_context(void **state) {
    wf_model *m = model_of("{name: stack, width: 8, layers: 1, context: true, topology: macaron, mixer: {name: softmax, heads: "
                           "2}}",
                           1);
    stir(m, 0.2);
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 5, 8), 1, 0), *c = rn_random(WF_F32, WF_SHAPE(2, 6, 8), 2, 0),
              *swapped = wf_tensor_new(WF_F32, WF_SHAPE(2, 6, 8)), *bias = wf_tensor_new(WF_F32, WF_SHAPE(2, 1, 1, 6)),
              *n = wf_tensor_new(WF_I32, WF_SHAPE(2));
    for (int64_t b = 0; b < 2; b++) {
        wf_tensor_set(n, b, 5);
        wf_tensor_set(bias, b * 6 + 1 + b, -1e30); /* hidden: position 1 + b, which `swapped` has at the end */
        for (int64_t j = 0; j < 6; j++) {
            int64_t from = j == 5 ? 1 + b : j == 1 + b ? 5 : j;
            for (int64_t k = 0; k < 8; k++)
                wf_tensor_set(swapped, (b * 6 + j) * 8 + k, wf_tensor_get(c, (b * 6 + from) * 8 + k));
        }
    }
    wf_tensor *y = with_context(m, x, c, NULL, bias), *z = with_context(m, x, swapped, n, NULL),
              *all = with_context(m, x, c, NULL, NULL);
    assert_true(rn_error(y, z) < 1e-6 && rn_error(y, all) > 1e-4);
    wf_tensor *t[] = {x, c, swapped, bias, n, y, z, all};
    for (int k = 0; k < 8; k++) wf_tensor_free(t[k]);
    wf_model_free(m);
}

/* ---- adaLN, point 5 of the baseline norms ---- */

static wf_tensor *conditioned(wf_model *m, wf_tensor *x, wf_tensor *c, bool wide) {
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_build_start(&b, g);
    if (wide) b.compute = WF_F64;
    if (c) b.condition = wf_leaf(g, c, "c");
    wf_tensor *y = rn_run(g, wf_apply(&b, m->root, wf_leaf(g, x, "x")));
    if (!y) wf_fail(WF_EINVAL, "%s", wf_graph_message(g));
    wf_build_end(&b);
    wf_graph_free(g);
    return y;
}

static void an_adaln_zero_block_starts_as_the_identity(void **state) {
    static const char *const kinds[] = {"topology: plain", "topology: macaron", "norm: {name: adaln, base: rmsnorm}",
                                        "mixer: [linear, {name: softmax, heads: 4}], channel: swiglu"};
    for (int i = 0; i < 4; i++) {
        char text[300];
        snprintf(text, sizeof text, "{name: stack, width: 16, layers: 3, condition: 6, placement: adaln-zero, %s}", kinds[i]);
        wf_model *m = model_of(text, 7);
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 9, 16), 1, 0), *c = rn_random(WF_F32, WF_SHAPE(2, 6), 2, 0),
                  *y = conditioned(m, x, c, false);
        if (!y) fail_msg("%s", wf_message());
        assert_memory_equal(x->data, y->data, x->bytes);
        stir(m, 0.2);
        wf_tensor *z = conditioned(m, x, c, false);
        assert_true(rn_error(z, x) > 1e-2);
        wf_tensor *t[] = {x, c, y, z};
        for (int k = 0; k < 4; k++) wf_tensor_free(t[k]);
        wf_model_free(m);
    }
}

static void a_condition_may_differ_from_token_to_token(void **state) {
    wf_model *m =
        model_of("{name: stack, width: 8, layers: 2, condition: 3, placement: adaln-zero, final_norm: auto, outputs: 5}", 7);
    stir(m, 0.3);
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 4, 8), 1, 0), *c = rn_random(WF_F32, WF_SHAPE(2, 3), 2, 0),
              *each = wf_tensor_new(WF_F32, WF_SHAPE(2, 4, 3));
    for (int64_t i = 0; i < 24; i++) wf_tensor_set(each, i, wf_tensor_get(c, i / 12 * 3 + i % 3));
    wf_tensor *y = conditioned(m, x, c, false), *z = conditioned(m, x, each, false);
    assert_close(z, y, 1e-6, "one condition a token");
    assert_int_equal(y->shape.dim[2], 5);
    for (int64_t j = 0; j < 3; j++) wf_tensor_set(each, 9 + j, 5); /* the last token of the first sample */
    wf_tensor *w = conditioned(m, x, each, false);
    assert_true(rn_error(w, z) > 1e-4);
    assert_null(conditioned(m, x, NULL, false));
    MESSAGE_HAS("it is absent");
    wf_tensor *t[] = {x, c, each, y, z, w};
    for (int k = 0; k < 6; k++) wf_tensor_free(t[k]);
    wf_model_free(m);
    m = model_of("{name: stack, width: 8, layers: 1, condition: 3, placement: adaln-zero, outputs: 2}", 7);
    x = rn_random(WF_F32, WF_SHAPE(1, 4, 8), 1, 0), c = rn_random(WF_F32, WF_SHAPE(1, 3), 2, 0);
    y = conditioned(m, x, c, false); /* the final layer starts at zero */
    for (int64_t i = 0; i < wf_tensor_count(y); i++) assert_true(wf_tensor_get(y, i) == 0);
    wf_tensor_free(x);
    wf_tensor_free(c);
    wf_tensor_free(y);
    wf_model_free(m);
}

static void a_condition_must_be_there(void **state) {
    refused("{name: lm, vocab: 8, length: 4, width: 8, placement: adaln-zero}", "gives no condition");
    refused("{name: vit, image_height: 8, channels: 1, classes: 2, norm: adaln}", "take norm: layernorm");
    refused("{name: stack, width: 8, condition: 4, placement: adaln-zero, norm: rmsnorm}", "norm: adaln");
}

static wf_node *build_adaln(wf_graph *g, wf_node **x, void *ctx) {
    static wf_build b;
    wf_build_end(&b);
    wf_build_start(&b, g);
    b.compute = WF_F64;
    b.condition = x[1];
    return wf_apply(&b, ((wf_model *)ctx)->root, x[0]);
}

static void adaln_has_its_derivatives(void **state) {
    wf_model *m = model_of(
        "{name: stack, width: 4, layers: 1, condition: 3, placement: adaln-zero, final_norm: auto, mixer: identity}", 7);
    stir(m, 0.5);
    gc_case one = {.name = "adaln",
                   .build = build_adaln,
                   .ctx = m,
                   .n = 2,
                   .shape = {WF_SHAPE(2, 3, 4), WF_SHAPE(2, 3)},
                   .seed = 3,
                   .second = true,
                   .tolerance = 1e-5};
    gc_case each = {.name = "adaln by token",
                    .build = build_adaln,
                    .ctx = m,
                    .n = 2,
                    .shape = {WF_SHAPE(2, 3, 4), WF_SHAPE(2, 3, 3)},
                    .seed = 4,
                    .second = true,
                    .tolerance = 1e-5};
    assert_true(gc_check(&one));
    assert_true(gc_check(&each));
    wf_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_is_stretched_over_the_blocks),
        cmocka_unit_test(a_list_longer_than_the_blocks_is_refused),
        cmocka_unit_test(macaron_has_the_parameters_of_plain),
        cmocka_unit_test(macaron_without_its_first_half_is_plain),
        cmocka_unit_test(topologies_stream_and_do_not_look_ahead),
        cmocka_unit_test(every_placement_fits_every_topology),
        cmocka_unit_test(the_parameter_formula_of_wide_is_exact),
        cmocka_unit_test(wide_keeps_the_width_of_heads),
        cmocka_unit_test(permuted_heads_give_the_same),
        cmocka_unit_test(a_layer_is_the_sum_of_its_heads),
        cmocka_unit_test(padding_does_not_reach_the_logits),
        cmocka_unit_test(pairs_share_one_encoder),
        cmocka_unit_test(sublayers_share_the_norm),
        cmocka_unit_test(blocks_read_a_context_up_to_its_length),
        cmocka_unit_test(a_bias_hides_positions_of_the_context),
        cmocka_unit_test(an_adaln_zero_block_starts_as_the_identity),
        cmocka_unit_test(a_condition_may_differ_from_token_to_token),
        cmocka_unit_test(a_condition_must_be_there),
        cmocka_unit_test(adaln_has_its_derivatives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
