/* test_vision_mixers.c: the mixers pool, identity, random, spatialfc, glu; the models metaformer and Activator. */
#include "gradcheck.h"
#include "mixers_help.h"

#include <math.h>

/* ---- pool, point 2 of system 28 ---- */

/* A mixer on tokens of a grid: model stack of one sublayer would add the residual, so the part itself with the build told. */
static wf_tensor *on_grid(wf_model *m, wf_tensor *x, int64_t rows, int64_t columns, int64_t prefix) {
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_build_start(&b, g);
    b.grid[0] = rows;
    b.grid[1] = columns;
    b.prefix = prefix;
    if (x->dtype == WF_F64) b.compute = WF_F64;
    wf_tensor *y = rn_run(g, wf_apply(&b, m->root, wf_leaf(g, x, "x")));
    if (!y) wf_fail(WF_EINVAL, "%s", wf_graph_message(g));
    wf_build_end(&b);
    wf_graph_free(g);
    return y;
}

static void pool_of_a_constant_is_exactly_zero(void **state) {
    static const double values[] = {1, 0.1, -3.7, 1e-20, 12345.678};
    for (int k = 3; k <= 9; k += 2)
        for (int i = 0; i < 5; i++) {
            char spec[64];
            snprintf(spec, sizeof spec, "{name: pool, pool_size: %d}", k);
            wf_model *m = part_of("mixer", spec, 5, false, 0);
            wf_tensor *x = wf_tensor_new(WF_F32, WF_SHAPE(2, 6 * 11, 5));
            for (int64_t j = 0; j < wf_tensor_count(x); j++) wf_tensor_set(x, j, values[i]);
            wf_tensor *y = on_grid(m, x, 6, 11, 0);
            for (int64_t j = 0; j < wf_tensor_count(y); j++) assert_true(wf_tensor_get(y, j) == 0);
            wf_tensor_free(x);
            wf_tensor_free(y);
            wf_model_free(m);
        }
}

static void pool_is_linear(void **state) {
    wf_model *m = part_of("mixer", "pool", 4, false, 0);
    wf_tensor *a = rn_random(WF_F32, WF_SHAPE(2, 30, 4), 1, 0), *b = rn_random(WF_F32, WF_SHAPE(2, 30, 4), 2, 0);
    wf_tensor *s = wf_tensor_new(WF_F32, a->shape), *sum = wf_tensor_new(WF_F32, a->shape);
    for (int64_t i = 0; i < wf_tensor_count(a); i++) wf_tensor_set(s, i, wf_tensor_get(a, i) + wf_tensor_get(b, i));
    wf_tensor *ya = on_grid(m, a, 5, 6, 0), *yb = on_grid(m, b, 5, 6, 0), *ys = on_grid(m, s, 5, 6, 0);
    for (int64_t i = 0; i < wf_tensor_count(a); i++) wf_tensor_set(sum, i, wf_tensor_get(ya, i) + wf_tensor_get(yb, i));
    assert_close(ys, sum, 2e-6, "pool(a+b)");
    wf_tensor *all[] = {a, b, s, sum, ya, yb, ys};
    for (int i = 0; i < 7; i++) wf_tensor_free(all[i]);
    wf_model_free(m);
}

static void borders_divide_by_what_is_there(void **state) {
    wf_model *m = part_of("mixer", "pool", 1, false, 0);
    wf_tensor *x = wf_tensor_new(WF_F32, WF_SHAPE(1, 9, 1));
    wf_tensor_set(x, 0, 12); /* top left of a 3x3 grid */
    wf_tensor *y = on_grid(m, x, 3, 3, 0);
    static const double want[] = {3 - 12, 2, 0, 2, 12.0 / 9, 0, 0, 0, 0};
    for (int i = 0; i < 9; i++) assert_true(fabs(wf_tensor_get(y, i) - want[i]) < 1e-6);
    wf_tensor_free(x);
    wf_tensor_free(y);
    wf_model_free(m);
}

static void a_special_token_gets_the_mean_of_the_picture(void **state) {
    wf_model *m = part_of("mixer", "pool", 3, false, 0);
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 1 + 12, 3), 4, 0), *cells = wf_tensor_new(WF_F32, WF_SHAPE(2, 12, 3));
    for (int64_t i = 0; i < 72; i++) wf_tensor_set(cells, i, wf_tensor_get(x, i / 36 * 39 + 3 + i % 36));
    wf_tensor *y = on_grid(m, x, 3, 4, 1), *z = on_grid(m, cells, 3, 4, 0);
    for (int64_t b = 0; b < 2; b++)
        for (int64_t j = 0; j < 3; j++) {
            double mean = 0;
            for (int64_t i = 0; i < 12; i++) mean += wf_tensor_get(cells, (b * 12 + i) * 3 + j) / 12;
            assert_true(fabs(wf_tensor_get(y, b * 39 + j) - mean + wf_tensor_get(x, b * 39 + j)) < 1e-6);
            for (int64_t i = 0; i < 12; i++)
                assert_true(wf_tensor_get(y, b * 39 + (i + 1) * 3 + j) == wf_tensor_get(z, (b * 12 + i) * 3 + j));
        }
    assert_null(on_grid(m, cells, 3, 4, 1));
    MESSAGE_HAS("12 tokens are not 1 special ones and a grid of 3x4");
    wf_tensor *all[] = {x, cells, y, z};
    for (int i = 0; i < 4; i++) wf_tensor_free(all[i]);
    wf_model_free(m);
}

/* ---- sequences: causal form, step form, padding ---- */

static const char *const sequence_mixers[] = {"pool",
                                              "{name: pool, pool_size: 1}",
                                              "{name: pool, pool_size: 4}",
                                              "{name: pool, pool_size: 20}",
                                              "identity",
                                              "glu",
                                              "{name: glu, act: silu, hidden: 7}",
                                              "{name: glu, act: relu, inner_norm: false, bias: false, ratio: 0.5}"};
enum { N_SEQUENCE = sizeof sequence_mixers / sizeof *sequence_mixers };

static void step_equals_forward(void **state) {
    for (int i = 0; i < N_SEQUENCE; i++) steps_are_forward(stirred(sequence_mixers[i]), sequence_mixers[i], 2e-6);
}

static void causal_mixers_do_not_look_ahead(void **state) {
    for (int i = 0; i < N_SEQUENCE; i++) {
        wf_model *m = part_of("mixer", sequence_mixers[i], 6, true, 16);
        stir(m, 0.3);
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(1, 9, 6), 4, 0), *y = run_forward(m, x, NULL);
        for (int64_t j = 5 * 6; j < 9 * 6; j++) wf_tensor_set(x, j, 3 - wf_tensor_get(x, j));
        wf_tensor *z = run_forward(m, x, NULL);
        assert_memory_equal(y->data, z->data, 5 * 6 * sizeof(float));
        if (i != 1) assert_true(rn_error(y, z) > 1e-3); /* pooling over one token is 0 whatever comes */
        wf_tensor_free(x);
        wf_tensor_free(y);
        wf_tensor_free(z);
        wf_model_free(m);
    }
}

static void padding_does_not_matter(void **state) {
    static const char *const mixers[] = {"pool", "{name: pool, pool_size: 7}", "random", "spatialfc",
                                         "glu",  "{name: glu, axis: token}"};
    wf_tensor *lengths = wf_tensor_new(WF_I32, WF_SHAPE(2));
    wf_tensor_set(lengths, 0, 4);
    wf_tensor_set(lengths, 1, 7);
    for (int i = 0; i < 6; i++) {
        wf_model *m = part_of("mixer", mixers[i], 5, false, 7);
        stir(m, 0.3);
        run_spec o = {.lengths = lengths};
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 7, 5), 4, 0), *y = run_forward(m, x, &o);
        for (int64_t j = 4 * 5; j < 7 * 5; j++) wf_tensor_set(x, j, 5 - wf_tensor_get(x, j));
        wf_tensor *z = run_forward(m, x, &o);
        for (int64_t j = 0; j < 14 * 5; j++)
            if ((j < 4 * 5 || j >= 7 * 5) && wf_tensor_get(y, j) != wf_tensor_get(z, j))
                fail_msg("%s: padding matters", mixers[i]);
        wf_tensor_free(x);
        wf_tensor_free(y);
        wf_tensor_free(z);
        wf_model_free(m);
    }
    wf_tensor_free(lengths);
}

/* ---- gradients of whole mixers in float64 ---- */

typedef struct mixer_case {
    wf_model *m;
    int64_t rows, columns, prefix;
} mixer_case;

static wf_node *build_mixer(wf_graph *g, wf_node **x, void *ctx) {
    mixer_case *k = ctx;
    static wf_build b;
    wf_build_end(&b);
    wf_build_start(&b, g);
    b.compute = WF_F64;
    b.causal = k->m->causal;
    b.grid[0] = k->rows;
    b.grid[1] = k->columns;
    b.prefix = k->prefix;
    return wf_apply(&b, k->m->root, x[0]);
}

static void mixers_have_their_derivatives(void **state) {
    static const struct {
        const char *spec;
        bool causal;
        int64_t rows, columns, prefix;
    } cases[] = {{"pool", false, 2, 3, 0},
                 {"pool", false, 1, 5, 1},
                 {"{name: pool, pool_size: 4}", true, 0, 0, 0},
                 {"identity", false, 0, 0, 0},
                 {"random", false, 0, 0, 0},
                 {"spatialfc", false, 0, 0, 0},
                 {"glu", false, 0, 0, 0},
                 {"{name: glu, act: silu}", true, 0, 0, 0},
                 {"{name: glu, axis: token, hidden: 5}", false, 0, 0, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mixer_case k = {part_of("mixer", cases[i].spec, 4, cases[i].causal, 6), cases[i].rows, cases[i].columns,
                        cases[i].prefix};
        stir(k.m, 0.3);
        gc_case c = {.name = cases[i].spec,
                     .build = build_mixer,
                     .ctx = &k,
                     .n = 1,
                     .shape = {WF_SHAPE(2, 6, 4)},
                     .seed = 3,
                     .second = true,
                     .tolerance = 2e-5};
        assert_true(gc_check(&c));
        wf_model_free(k.m);
    }
}

/* ---- point 3 of system 28: parameters ---- */

static int64_t parameters(const char *mixer) {
    char text[256];
    snprintf(text, sizeof text,
             "{name: vit, image_height: 8, channels: 1, classes: 3, patch: 2, width: 12, layers: 2, pool: mean, positions: "
             "none, mixer: %s}",
             mixer);
    wf_model *m = model_of(text, 1);
    int64_t n = wf_model_count(m);
    wf_model_free(m);
    return n;
}

static void mixers_have_the_parameters_they_should(void **state) {
    int64_t C = 12, N = 16, none = parameters("identity");
    assert_int_equal(parameters("pool"), none);
    assert_int_equal(parameters("random"), none);
    assert_int_equal(parameters("{name: softmax, heads: 3, qkv_bias: false}"), none + 2 * (4 * C * C + C));
    assert_int_equal(parameters("spatialfc"), none + 2 * N * N);
}

/* ---- point 4: layer scale folded into the linear before it, in the whole hierarchy ---- */

static const char small_hierarchy[] = "{name: metaformer, image_height: 20, image_width: 24, channels: 2, classes: 3, layers: "
                                      "[1, 2], widths: [6, 8], ratios: 2, layer_scale: %s}";

static void a_folded_layer_scale_gives_the_same(void **state) {
    char text[300];
    snprintf(text, sizeof text, small_hierarchy, "0.3");
    wf_model *a = model_of(text, 1);
    stir(a, 0.2);
    snprintf(text, sizeof text, small_hierarchy, "0");
    wf_model *b = model_of(text, 1);
    for (int i = 0; i < b->n_param; i++) {
        wf_param *p = wf_model_param(a, b->param[i]->name);
        memcpy(b->param[i]->value->data, p->value->data, p->value->bytes);
        const char *at = strstr(p->name, ".channel.down.");
        if (!at) continue;
        char name[128];
        snprintf(name, sizeof name, "%.*s.channel_scale", (int)(at - p->name), p->name);
        wf_tensor *s = wf_model_param(a, name)->value, *w = b->param[i]->value;
        int64_t rows = w->shape.dim[0], columns = wf_tensor_count(w) / rows;
        for (int64_t j = 0; j < rows * columns; j++) wf_tensor_set(w, j, wf_tensor_get(w, j) * wf_tensor_get(s, j / columns));
    }
    /* What multiplies a mixer without parameters cannot be folded: the same in both. */
    for (int i = 0; i < a->n_param; i++)
        if (strstr(a->param[i]->name, "mixer_scale"))
            for (int64_t j = 0; j < wf_tensor_count(a->param[i]->value); j++) wf_tensor_set(a->param[i]->value, j, 1);
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 2, 20, 24), 6, 0), *y = run_forward(a, x, NULL), *z = run_forward(b, x, NULL);
    assert_close(z, y, 1e-5, "folded");
    wf_tensor_free(x);
    wf_tensor_free(y);
    wf_tensor_free(z);
    wf_model_free(a);
    wf_model_free(b);
}

/* ---- point 5 of 28, point 4 of 44: FLOPs by the plan ---- */

static double flops_of(wf_model *m, wf_shape s, int64_t rows, int64_t columns) {
    wf_tensor *x = wf_tensor_new(WF_F32, s);
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_build_start(&b, g);
    b.grid[0] = rows;
    b.grid[1] = columns;
    wf_node *y = wf_apply(&b, m->root, wf_leaf(g, x, "x"));
    wf_plan *p = y ? wf_plan_new(g, &y, 1, NULL, 0, NULL) : NULL;
    if (!p) fail_msg("%s", wf_message());
    wf_plan_info info;
    wf_plan_describe(p, &info);
    wf_plan_free(p);
    wf_build_end(&b);
    wf_graph_free(g);
    wf_tensor_free(x);
    return info.flops;
}

static double block_flops(const char *mixer, int64_t side, int64_t D) {
    char text[300];
    snprintf(
        text, sizeof text,
        "{name: stack, width: %lld, layers: 1, grid_rows: %lld, grid_columns: %lld, mixer: %s, channel: {name: mlp, ratio: 2}}",
        (long long)D, (long long)side, (long long)side, mixer);
    wf_model *m = model_of(text, 1);
    double f = flops_of(m, WF_SHAPE(1, side * side, D), side, side);
    wf_model_free(m);
    return f;
}

static void pooling_is_linear_in_pixels_and_attention_quadratic(void **state) {
    double pool = block_flops("pool", 8, 16), big = block_flops("pool", 16, 16);
    assert_true(fabs(big / pool / 4 - 1) < 0.15);
    /* The score part alone: what is left when the linears' work, which grows 4 times, is taken off. */
    double s = block_flops("{name: softmax, heads: 1}", 16, 16), t = block_flops("{name: softmax, heads: 1}", 32, 16);
    double u = block_flops("{name: softmax, heads: 1}", 64, 16), first = t - 4 * s, second = u - 4 * t;
    assert_true(first > 0 && fabs(second / first / 16 - 1) < 0.15);
}

static void gating_is_linear_in_patches(void **state) {
    static const char glu[] = "{name: stack, width: 8, layers: 1, topology: {name: activator, mlp: %s}, mixer: {name: glu, "
                              "hidden: 16}, channel: {name: mlp, hidden: 16}}";
    char text[300];
    double f[2][3];
    for (int k = 0; k < 2; k++) {
        snprintf(text, sizeof text, glu, k ? "true" : "false");
        wf_model *m = model_of(text, 1);
        for (int i = 0; i < 3; i++) f[k][i] = flops_of(m, WF_SHAPE(1, 16 << (2 * i), 8), 0, 0);
        assert_true(fabs(f[k][1] / f[k][0] - 4) < 0.04 && fabs(f[k][2] / f[k][1] - 4) < 0.04);
        wf_model_free(m);
    }
    wf_model *vit =
        model_of("{name: stack, width: 8, layers: 1, mixer: {name: softmax, heads: 1}, channel: {name: mlp, hidden: 16}}", 1);
    double v = flops_of(vit, WF_SHAPE(1, 64, 8), 0, 0);
    assert_true(v > 2 * f[0][1]); /* 64 patches are 8 widths */
    wf_model_free(vit);
}

/* ---- points 2, 3 and 5 of 44 ---- */

static const char activator[] =
    "{name: vit, image_height: 12, image_width: 16, channels: 1, classes: 4, patch: 4, width: 8, layers: 2, pool: mean, "
    "positions: none, final_norm: false, topology: {name: activator, mlp: %s}, mixer: {name: glu, hidden: 12%s}, "
    "channel: {name: mlp, hidden: 12}}";

/* The 4x4 patches of a picture [1,12,16] in another order. */
static void shuffle_patches(const wf_tensor *x, wf_tensor *y) {
    for (int64_t i = 0; i < wf_tensor_count(x); i++) {
        int64_t b = i / 192, r = i / 16 % 12, c = i % 16, patch = r / 4 * 4 + c / 4, to = (patch * 5 + 3) % 12;
        wf_tensor_set(y, b * 192 + (to / 4 * 4 + r % 4) * 16 + to % 4 * 4 + c % 4, wf_tensor_get(x, i));
    }
}

static double change_by_shuffling(const char *mlp, const char *more) {
    char text[400];
    snprintf(text, sizeof text, activator, mlp, more);
    wf_model *m = model_of(text, 1);
    stir(m, 0.3);
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(3, 1, 12, 16), 8, 0), *shuffled = wf_tensor_new(WF_F32, x->shape);
    shuffle_patches(x, shuffled);
    wf_tensor *y = run_forward(m, x, NULL), *z = run_forward(m, shuffled, NULL);
    double e = rn_error(y, z);
    wf_tensor *all[] = {x, shuffled, y, z};
    for (int i = 0; i < 4; i++) wf_tensor_free(all[i]);
    wf_model_free(m);
    return e;
}

static void shuffled_patches_give_the_same_unless_tokens_mix(void **state) {
    assert_true(change_by_shuffling("true", "") < 1e-5);
    assert_true(change_by_shuffling("false", "") < 1e-5);
    assert_true(change_by_shuffling("true", ", axis: token") > 1e-3);
}

static void patches_can_be_streamed(void **state) {
    wf_model *m = model_of(
        "{name: stack, width: 8, layers: 3, causal: true, topology: activator, mixer: glu, channel: {name: mlp, ratio: 2}}", 1);
    stir(m, 0.2);
    static const int by_one[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0};
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 12, 8), 8, 0), *y = run_forward(m, x, NULL), *z = run_steps(m, x, by_one, 12);
    assert_close(z, y, 1e-6, "streamed");
    wf_tensor_free(x);
    wf_tensor_free(y);
    wf_tensor_free(z);
    wf_model_free(m);
}

static int64_t block_matrices(const wf_model *m) {
    int64_t n = 0;
    for (int i = 0; i < m->n_param; i++)
        if (!strncmp(m->param[i]->name, "blocks.", 7) && m->param[i]->value->shape.rank == 2)
            n += wf_tensor_count(m->param[i]->value);
    return n;
}

static void glu_alone_has_three_fifths(void **state) {
    char text[400];
    snprintf(text, sizeof text, activator, "true", "");
    wf_model *both = model_of(text, 1);
    snprintf(text, sizeof text, activator, "false", "");
    wf_model *one = model_of(text, 1);
    assert_int_equal(5 * block_matrices(one), 3 * block_matrices(both));
    wf_model_free(both);
    wf_model_free(one);
}

/* ---- everything inside the models ---- */

static const char *const anywhere[] = {"pool", "identity", "glu"}, *const vision_only[] = {"random", "spatialfc",
                                                                                           "{name: glu, axis: token}"};

static void they_work_in_lm_and_vit(void **state) {
    char text[300];
    wf_tensor *ids = rn_random(WF_I32, WF_SHAPE(2, 9), 1, 11), *x = rn_random(WF_F32, WF_SHAPE(2, 3, 12, 12), 1, 0);
    static const int by_one[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 0};
    for (int i = 0; i < 3; i++) {
        snprintf(text, sizeof text, "{name: lm, vocab: 11, length: 9, width: 12, layers: 2, mixer: %s}", anywhere[i]);
        wf_model *m = model_of(text, 1);
        wf_tensor *y = run_forward(m, ids, NULL), *z = run_steps(m, ids, by_one, 9);
        assert_close(z, y, 2e-5, text);
        wf_tensor_free(y);
        wf_tensor_free(z);
        wf_model_free(m);
    }
    for (int i = 0; i < 6; i++) {
        const char *mixer = i < 3 ? anywhere[i] : vision_only[i - 3];
        for (int k = 0; k < 2; k++) {
            snprintf(
                text, sizeof text,
                "{name: vit, image_height: 12, channels: 3, classes: 5, patch: 3, width: 12, layers: 2, pool: %s, mixer: %s}",
                k ? "mean" : "class", mixer);
            wf_model *m = model_of(text, 1);
            wf_tensor *y = run_forward(m, x, NULL);
            if (!y) fail_msg("%s: %s", text, wf_message());
            wf_tensor_free(y);
            wf_model_free(m);
        }
    }
    wf_tensor_free(ids);
    wf_tensor_free(x);
}

static void impossible_combinations_are_refused(void **state) {
    refused("{name: lm, vocab: 8, length: 4, width: 8, mixer: random}", "sees later positions");
    refused("{name: lm, vocab: 8, length: 4, width: 8, mixer: spatialfc}", "take mixer: softmax instead");
    refused("{name: lm, vocab: 8, length: 4, width: 8, mixer: {name: glu, axis: token}}", "take axis: channel");
    refused("{name: lm, vocab: 8, length: 4, width: 8, mixer: cross}", "no context to attend to");
    refused("{name: vit, image_height: 8, channels: 1, classes: 2, mixer: {name: pool, pool_size: 4}}",
            "must be odd (found 4)");
    refused("{name: stack, width: 8, mixer: spatialfc}", "needs a fixed number of tokens");
    refused("{name: metaformer, image_height: 6, channels: 1, classes: 2, patch: [7, 4, 0]}", "leaves nothing for stage 0");
    refused("{name: metaformer, image_height: 64, channels: 1, classes: 2, mixer: [pool, pool]}",
            "'mixer' has 2 entries for 4 stages");
    refused("{name: metaformer, image_height: 64, channels: 1, classes: 2, layers: [1, 0]}",
            "'layers' must hold whole numbers");
    refused("{name: metaformer, image_height: 64, channels: 1}", "'classes' is missing");
    refused("{name: metaformer, image_height: 64, channels: 1, classes: 2, patch: [7, 4]}", "[size, stride, padding]");
}

static void every_mixer_works_in_every_stage(void **state) {
    wf_model *m = model_of(
        "{name: metaformer, image_height: 24, image_width: 32, channels: 1, classes: 3, layers: [2, 1, 1, 1, 1], widths: [4, "
        "6, 8, 8, 8], "
        "downsamples: [true, true, false, false, false], mixer: [pool, identity, {name: softmax, heads: 2}, spatialfc, "
        "linear], "
        "norm: layernorm, positions: [false, true, true, false, false], layer_scale: 0.1, stochastic_depth: 0.5, dropout: 0.1}",
        1);
    assert_int_equal(wf_tensor_count(wf_model_param(m, "stages.3.0.mixer.weight")->value), 4 * 4);
    assert_null(wf_model_param(m, "down.2.weight"));
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 1, 24, 32), 1, 0), *seed = wf_tensor_new(WF_I32, WF_SHAPE(4));
    run_spec train = {.train = true, .seed = seed};
    wf_tensor *y = run_forward(m, x, NULL), *z = run_forward(m, x, &train);
    if (!y || !z) fail_msg("%s", wf_message());
    assert_int_equal(y->shape.dim[1], 3);
    wf_tensor_free(y);
    wf_tensor_free(z);
    wf_tensor_free(x);
    x = rn_random(WF_F32, WF_SHAPE(2, 1, 40, 32), 1, 0);
    assert_null(run_forward(m, x, NULL)); /* a table fixes the size */
    MESSAGE_HAS("position table");
    wf_tensor_free(x);
    wf_tensor_free(seed);
    wf_model_free(m);
}

static void pooling_takes_pictures_of_any_size(void **state) {
    char text[300];
    snprintf(text, sizeof text, small_hierarchy, "0.3");
    wf_model *m = model_of(text, 1);
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(1, 2, 31, 18), 6, 0), *y = run_forward(m, x, NULL);
    if (!y) fail_msg("%s", wf_message());
    wf_tensor_free(x);
    wf_tensor_free(y);
    wf_model_free(m);
}

static int maps;
static void count_maps(void *ctx, const wf_module *m, const char *what, wf_node *n) {
    if (!strcmp(what, "map")) maps++;
}

static void fork_feat_gives_every_stage_its_norm(void **state) {
    wf_model *m =
        model_of("{name: metaformer, image_height: 32, channels: 1, layers: [1, 1, 1], widths: [4, 6, 8], fork_feat: true}", 1);
    assert_non_null(wf_model_param(m, "norms.1.weight"));
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(2, 1, 32, 32), 1, 0);
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_build_start(&b, g);
    b.tap = count_maps;
    maps = 0;
    wf_node *y = wf_apply(&b, m->root, wf_leaf(g, x, "x"));
    assert_non_null(y);
    assert_int_equal(maps, 3);
    assert_int_equal(y->shape.rank, 4);
    assert_int_equal(y->shape.dim[2], 2);
    wf_build_end(&b);
    wf_graph_free(g);
    wf_tensor_free(x);
    wf_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pool_of_a_constant_is_exactly_zero),
        cmocka_unit_test(pool_is_linear),
        cmocka_unit_test(borders_divide_by_what_is_there),
        cmocka_unit_test(a_special_token_gets_the_mean_of_the_picture),
        cmocka_unit_test(step_equals_forward),
        cmocka_unit_test(causal_mixers_do_not_look_ahead),
        cmocka_unit_test(padding_does_not_matter),
        cmocka_unit_test(mixers_have_their_derivatives),
        cmocka_unit_test(mixers_have_the_parameters_they_should),
        cmocka_unit_test(a_folded_layer_scale_gives_the_same),
        cmocka_unit_test(pooling_is_linear_in_pixels_and_attention_quadratic),
        cmocka_unit_test(gating_is_linear_in_patches),
        cmocka_unit_test(shuffled_patches_give_the_same_unless_tokens_mix),
        cmocka_unit_test(patches_can_be_streamed),
        cmocka_unit_test(glu_alone_has_three_fifths),
        cmocka_unit_test(they_work_in_lm_and_vit),
        cmocka_unit_test(impossible_combinations_are_refused),
        cmocka_unit_test(every_mixer_works_in_every_stage),
        cmocka_unit_test(pooling_takes_pictures_of_any_size),
        cmocka_unit_test(fork_feat_gives_every_stage_its_norm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
