/* test_model.c: whole models: sizes, streaming, placements, first numbers, files, foreign names. */
#include "parts_help.h"

#include "model/import.h"

#include <math.h>

static wf_tensor *ids_of(int64_t B, int64_t L, int64_t V, uint64_t seed) {
    return rn_random(WF_I32, WF_SHAPE(B, L), seed, V);
}

/* ---- sizes ---- */

static int64_t count_of(const char *text) {
    wf_value *v = yaml(text);
    wf_model *m = wf_model_build(v, 0);
    if (!m) fail_msg("%s: %s", text, wf_message());
    int64_t n = wf_model_count(m);
    wf_model_free(m);
    wf_value_free(v);
    return n;
}

/* n(layers) is linear in layers, so two small builds give the whole (and no half gigabyte is touched). */
static int64_t count_layers(const char *format, int layers) {
    char text[512];
    snprintf(text, sizeof text, format, 1);
    int64_t one = count_of(text);
    snprintf(text, sizeof text, format, 2);
    return one + (layers - 1) * (count_of(text) - one);
}

static void published_sizes_come_out(void **state) {
    assert_int_equal(
        count_layers("{name: lm, vocab: 50257, length: 1024, width: 768, layers: %d, mixer: {name: softmax, heads: 12}, "
                     "channel: {name: mlp, act: gelu_tanh}}",
                     12),
        124439808);
    assert_int_equal(
        count_layers("{name: bert, vocab: 30522, length: 512, width: 768, layers: %d, placement: post, mlm: false, "
                     "mixer: {name: softmax, heads: 12}}",
                     12),
        109482240);
    assert_int_equal(
        count_layers("{name: vit, image_height: 224, channels: 3, patch: 16, classes: 1000, width: 192, layers: %d, "
                     "mixer: {name: softmax, heads: 3}}",
                     12),
        5717416); /* DeiT-Ti */
}

/* ---- streaming ---- */

static const char *const designs[] = {
    "{name: lm, vocab: 13, length: 12, width: 12, layers: 2, mixer: {name: softmax, heads: 3}, channel: {name: mlp, act: "
    "gelu_tanh}}",
    "{name: lm, vocab: 13, length: 12, width: 12, layers: 2, norm: rmsnorm, position: rope, bias: false, tied: false, "
    "mixer: {name: softmax, heads: 2, kv_heads: 1}, channel: swiglu}",
    "{name: lm, vocab: 13, length: 12, width: 12, layers: 2, placement: peri, norm: rmsnorm, embed_norm: true, position: "
    "sinusoidal, "
    "embed_scale: sqrt_width, mixer: {name: softmax, heads: 2}}",
    "{name: lm, vocab: 13, length: 12, width: 12, layers: 2, placement: post, position: alibi, mixer: {name: softmax, heads: "
    "2}, channel: geglu}",
    "{name: lm, vocab: 13, length: 12, width: 12, layers: 2, placement: output, mixer: {name: softmax, heads: 2, qk_norm: "
    "rms_head}, norm: rmsnorm}",
    "{name: lm, vocab: 13, length: 12, width: 12, layers: 2, placement: normformer, mixer: {name: softmax, heads: 2, window: "
    "4}, layer_scale: 0.5}",
    "{name: lm, vocab: 13, length: 12, width: 12, layers: 2, placement: deepnorm, mixer: linear, position: none}",
    "{name: lm, vocab: 13, length: 12, width: 12, layers: 2, placement: sandwich, norm: {name: dyt}, mixer: {name: linear, "
    "heads: 2}}",
};
enum { N_DESIGNS = sizeof designs / sizeof *designs };

static void generation_equals_the_whole_pass(void **state) {
    static const int chunks[] = {3, 1, 1, 2, 1, 0};
    for (int i = 0; i < N_DESIGNS; i++) {
        wf_model *m = model_of(designs[i], 3);
        stir(m, 0.2);
        wf_tensor *ids = ids_of(2, 8, 13, 5), *y = run_forward(m, ids, NULL), *z = run_steps(m, ids, chunks, 12);
        assert_close(z, y, 2e-5, designs[i]);
        wf_tensor_free(ids);
        wf_tensor_free(y);
        wf_tensor_free(z);
        wf_model_free(m);
    }
}

static void logits_do_not_know_the_future(void **state) {
    for (int i = 0; i < N_DESIGNS; i++) {
        wf_model *m = model_of(designs[i], 3);
        stir(m, 0.2);
        wf_tensor *ids = ids_of(1, 8, 13, 5), *y = run_forward(m, ids, NULL);
        wf_tensor_set(ids, 5, fmod(wf_tensor_get(ids, 5) + 4, 13));
        wf_tensor *z = run_forward(m, ids, NULL);
        for (int64_t j = 0; j < 5 * 13; j++)
            if (wf_tensor_get(y, j) != wf_tensor_get(z, j)) fail_msg("%s: logits at %d know id 5", designs[i], (int)(j / 13));
        assert_true(rn_error(y, z) > 1e-4);
        wf_tensor_free(ids);
        wf_tensor_free(y);
        wf_tensor_free(z);
        wf_model_free(m);
    }
}

static void bfloat16_is_near(void **state) {
    wf_model *m = model_of(designs[1], 3);
    run_spec o = {.compute = WF_BF16}, wide = {.compute = WF_F64};
    wf_tensor *ids = ids_of(2, 8, 13, 5), *y = run_forward(m, ids, NULL), *z = run_forward(m, ids, &o),
              *w = run_forward(m, ids, &wide);
    assert_int_equal(z->dtype, WF_BF16);
    assert_int_equal(w->dtype, WF_F64);
    assert_close(z, y, 0.02, "bfloat16");
    assert_close(y, w, 1e-6, "float64");
    wf_tensor_free(ids);
    wf_tensor_free(y);
    wf_tensor_free(z);
    wf_tensor_free(w);
    wf_model_free(m);
}

/* ---- placements (sheet 07) ---- */

typedef struct streams {
    int n;
    wf_node *x[32];
} streams;

static void collect(void *ctx, const wf_module *m, const char *what, wf_node *n) {
    streams *s = ctx;
    if (!strcmp(what, "stream") || !strcmp(what, "hidden")) s->x[s->n++] = n;
}

/* Variance of the stream over channels, mean over tokens, in front of every block and after the last. */
static int variances(wf_model *m, wf_tensor *ids, double *out) {
    wf_graph *g = wf_graph_open();
    streams s = {0};
    wf_build b;
    wf_build_start(&b, g);
    b.tap = collect;
    b.tap_ctx = &s;
    assert_non_null(wf_apply(&b, m->root, wf_leaf(g, ids, "ids")));
    for (int i = 0; i < s.n; i++) {
        wf_node *c = wf_sub(g, s.x[i], wf_mean(g, s.x[i], 1u << 2, true));
        s.x[i] = wf_mean(g, wf_square(g, c), 7, false);
    }
    wf_plan *p = wf_plan_new(g, s.x, s.n, NULL, 0, NULL);
    MUST(wf_plan_run(p));
    for (int i = 0; i < s.n; i++) out[i] = *(const float *)wf_plan_out(p, i);
    wf_plan_free(p);
    wf_build_end(&b);
    wf_graph_free(g);
    return s.n;
}

static double last_variance(const char *placement, double *all) {
    char text[256];
    snprintf(text, sizeof text,
             "{name: lm, vocab: 128, length: 24, width: 64, layers: 12, norm: rmsnorm, placement: %s, scale_residual: false, "
             "mixer: {name: softmax, heads: 4}, embed_norm: %s}",
             placement, strcmp(placement, "peri") ? "false" : "true");
    wf_model *m = model_of(text, 7);
    wf_tensor *ids = ids_of(4, 24, 128, 1);
    assert_int_equal(variances(m, ids, all), 13);
    wf_tensor_free(ids);
    wf_model_free(m);
    return all[12];
}

static void variance_grows_as_the_paper_says(void **state) {
    double v[32];
    double peri = last_variance("peri", v);
    assert_true(peri > 20 && peri < 32);
    for (int l = 1; l <= 12; l++) assert_true(fabs(v[l] - v[0] - 2 * l) < 0.4 * 2 * l);
    assert_true(last_variance("pre", v) < 1);
    last_variance("post", v);
    for (int l = 1; l <= 12; l++) assert_true(v[l] > 0.9 && v[l] < 1.01);
}

static double change_by_scaling(const char *placement) {
    char text[256];
    snprintf(text, sizeof text,
             "{name: lm, vocab: 11, length: 8, width: 12, layers: 2, norm: rmsnorm, placement: %s, mixer: {name: softmax, "
             "heads: 2}}",
             placement);
    wf_model *m = model_of(text, 7);
    stir(m, 0.2);
    wf_tensor *ids = ids_of(2, 8, 11, 1), *y = run_forward(m, ids, NULL);
    for (int i = 0; i < m->n_param; i++)
        if (strstr(m->param[i]->name, "channel.down."))
            for (int64_t j = 0; j < wf_tensor_count(m->param[i]->value); j++)
                wf_tensor_set(m->param[i]->value, j, 10 * wf_tensor_get(m->param[i]->value, j));
    wf_tensor *z = run_forward(m, ids, NULL);
    double e = rn_error(y, z);
    wf_tensor_free(ids);
    wf_tensor_free(y);
    wf_tensor_free(z);
    wf_model_free(m);
    return e;
}

static void output_norms_take_the_branch_s_size_away(void **state) {
    assert_true(change_by_scaling("peri") < 1e-4);
    assert_true(change_by_scaling("output") < 1e-4);
    assert_true(change_by_scaling("pre") > 0.05);
}

static void padded_ids_do_not_matter_to_bert(void **state) {
    wf_model *m = model_of(
        "{name: bert, vocab: 11, length: 8, width: 12, layers: 2, placement: post, mixer: {name: softmax, heads: 2}}", 3);
    stir(m, 0.2);
    wf_tensor *ids = ids_of(2, 8, 11, 5), *lengths = wf_tensor_new(WF_I32, WF_SHAPE(2));
    wf_tensor_set(lengths, 0, 5);
    wf_tensor_set(lengths, 1, 8);
    run_spec o = {.lengths = lengths};
    wf_tensor *y = run_forward(m, ids, &o);
    for (int64_t i = 5; i < 8; i++) wf_tensor_set(ids, i, fmod(wf_tensor_get(ids, i) + 3, 11));
    wf_tensor *z = run_forward(m, ids, &o), *open = run_forward(m, ids, NULL);
    for (int64_t i = 0; i < 16 * 11; i++)
        if (i / 11 < 5 || i / 11 >= 8) assert_true(wf_tensor_get(y, i) == wf_tensor_get(z, i));
    assert_true(rn_error(open, z) > 1e-4);
    wf_tensor_free(ids);
    wf_tensor_free(lengths);
    wf_tensor_free(y);
    wf_tensor_free(z);
    wf_tensor_free(open);
    wf_model_free(m);
}

/* ---- pictures ---- */

static void patches_without_positions_are_a_bag(void **state) {
    static const char *const tables[] = {"none", "simple_vit", "learned"};
    for (int k = 0; k < 3; k++) {
        char text[256];
        snprintf(
            text, sizeof text,
            "{name: vit, image_height: 8, channels: 2, patch: 4, classes: 3, width: 12, layers: 2, pool: mean, positions: %s, "
            "mixer: {name: softmax, heads: 2}}",
            tables[k]);
        wf_model *m = model_of(text, 1);
        stir(m, 0.2);
        wf_tensor *x = rn_random(WF_F32, WF_SHAPE(1, 2, 8, 8), 3, 0), *y = run_forward(m, x, NULL);
        for (int64_t c = 0; c < 2; c++) /* exchange the upper and the lower half */
            for (int64_t i = 0; i < 32; i++) {
                double a = wf_tensor_get(x, c * 64 + i), b = wf_tensor_get(x, c * 64 + 32 + i);
                wf_tensor_set(x, c * 64 + i, b);
                wf_tensor_set(x, c * 64 + 32 + i, a);
            }
        wf_tensor *z = run_forward(m, x, NULL);
        double e = rn_error(y, z);
        if (k == 0)
            assert_true(e < 1e-5);
        else
            assert_true(e > 1e-3);
        wf_tensor_free(x);
        wf_tensor_free(y);
        wf_tensor_free(z);
        wf_model_free(m);
    }
}

static void pictures_of_another_size_are_refused(void **state) {
    wf_model *m = model_of(
        "{name: vit, image_height: 8, channels: 2, classes: 3, width: 12, layers: 1, mixer: {name: softmax, heads: 2}}", 1);
    wf_tensor *x = rn_random(WF_F32, WF_SHAPE(1, 2, 8, 9), 3, 0), *ids = ids_of(1, 3, 4, 1);
    assert_null(run_forward(m, x, NULL));
    MESSAGE_HAS("[1, 2, 8, 9]");
    assert_null(run_forward(m, ids, NULL));
    wf_tensor_free(x);
    wf_tensor_free(ids);
    wf_model_free(m);
}

/* ---- training switches ---- */

static void stochastic_depth_grows_over_the_blocks(void **state) {
    wf_model *m = model_of(
        "{name: lm, vocab: 5, length: 4, width: 8, layers: 2, stochastic_depth: 0.9, mixer: {name: softmax, heads: 1}}", 1);
    stir(m, 0.3);
    wf_tensor *ids = ids_of(64, 4, 5, 2), *seed = wf_tensor_new(WF_I32, WF_SHAPE(4));
    run_spec train = {.train = true, .seed = seed};
    wf_tensor *y = run_forward(m, ids, NULL), *a = run_forward(m, ids, &train), *b = run_forward(m, ids, &train);
    assert_true(rn_error(a, b) == 0);
    for (int i = 0; i < m->n_param; i++) { /* a model whose last block adds nothing */
        const char *name = m->param[i]->name;
        if (strstr(name, "blocks.1.mixer.o.") || strstr(name, "blocks.1.channel.down."))
            memset(m->param[i]->value->data, 0, m->param[i]->value->bytes);
    }
    wf_tensor_free(y);
    y = run_forward(m, ids, NULL);
    int same = 0; /* a sample loses both branches of the last block with probability 0.81, as a whole; the first block stays */
    for (int64_t s = 0; s < 64; s++) {
        int equal = 0;
        for (int64_t j = 0; j < 20; j++) equal += fabs(wf_tensor_get(a, s * 20 + j) - wf_tensor_get(y, s * 20 + j)) < 1e-6;
        assert_true(equal == 20 || equal < 10);
        same += equal == 20;
    }
    assert_true(same > 38 && same < 63);
    wf_tensor_free(y);
    wf_tensor_free(a);
    wf_tensor_free(b);
    wf_tensor_free(ids);
    wf_tensor_free(seed);
    wf_model_free(m);
}

static void recomputation_changes_nothing(void **state) {
    wf_model *m = model_of(designs[0], 3);
    wf_tensor *ids = ids_of(2, 8, 13, 5), *out[2];
    for (int k = 0; k < 2; k++) {
        wf_graph *g = wf_graph_open();
        wf_build b;
        wf_build_start(&b, g);
        b.train = true;
        b.recompute = k == 1;
        wf_node *y = wf_apply(&b, m->root, wf_leaf(g, ids, "ids")), *loss = wf_sum_all(g, wf_square(g, y)), *grad;
        wf_node *w = wf_leaf(g, wf_model_param(m, "blocks.0.mixer.q.weight")->value, "w");
        MUST(wf_grad(g, &loss, NULL, 1, &w, 1, &grad));
        out[k] = rn_run(g, grad);
        wf_build_end(&b);
        wf_graph_free(g);
    }
    assert_close(out[0], out[1], 0, "recomputation");
    wf_tensor_free(out[0]);
    wf_tensor_free(out[1]);
    wf_tensor_free(ids);
    wf_model_free(m);
}

/* ---- first numbers ---- */

static double spread(const wf_model *m, const char *name) {
    const wf_tensor *t = wf_model_param(m, name)->value;
    double sum = 0;
    for (int64_t i = 0; i < wf_tensor_count(t); i++) sum += pow(wf_tensor_get(t, i), 2);
    return sqrt(sum / (double)wf_tensor_count(t));
}

static void first_numbers_follow_names(void **state) {
    wf_model *a = model_of("{name: lm, vocab: 40, length: 8, width: 48, layers: 2, mixer: {name: softmax, heads: 2}}", 5);
    wf_model *b =
        model_of("{name: lm, vocab: 40, length: 8, width: 48, layers: 2, mixer: linear, norm: rmsnorm, placement: peri}", 5);
    wf_model *c = model_of("{name: lm, vocab: 40, length: 8, width: 48, layers: 2, mixer: {name: softmax, heads: 2}}", 6);
    static const char *const shared[] = {"embed.weight", "blocks.1.mixer.q.weight", "blocks.0.channel.down.weight"};
    for (int i = 0; i < 3; i++) {
        assert_close(wf_model_param(a, shared[i])->value, wf_model_param(b, shared[i])->value, 0, shared[i]);
        assert_true(rn_error(wf_model_param(a, shared[i])->value, wf_model_param(c, shared[i])->value) > 0.01);
    }
    assert_true(fabs(spread(a, "blocks.0.mixer.q.weight") / 0.02 - 1) < 0.05);
    assert_true(fabs(spread(a, "blocks.0.mixer.o.weight") / 0.01 - 1) < 0.05); /* 0.02 / sqrt(2 layers) */
    assert_true(fabs(spread(a, "blocks.0.channel.down.weight") / 0.01 - 1) < 0.05);
    int threads = wf_threads();
    wf_set_threads(1);
    wf_model *d = model_of("{name: lm, vocab: 40, length: 8, width: 48, layers: 2, mixer: {name: softmax, heads: 2}}", 5);
    wf_set_threads(threads);
    for (int i = 0; i < a->n_param; i++) assert_close(a->param[i]->value, d->param[i]->value, 0, a->param[i]->name);
    for (int i = 0; i < a->n_param; i++) {
        const wf_param *p = a->param[i];
        bool matrix = p->value->shape.rank == 2 && strncmp(p->name, "blocks", 6) == 0;
        assert_int_equal((p->flags & WF_PARAM_MATRIX) != 0, matrix);
        assert_int_equal((p->flags & WF_PARAM_NO_DECAY) != 0, !matrix && strcmp(p->name, "embed.weight") != 0);
    }
    wf_model_free(a);
    wf_model_free(b);
    wf_model_free(c);
    wf_model_free(d);
}

/* ---- files ---- */

static void a_model_survives_its_file(void **state) {
    char path[300];
    snprintf(path, sizeof path, "%s/m.safetensors", test_folder());
    for (int i = 0; i < N_DESIGNS; i++) {
        wf_model *m = model_of(designs[i], 3);
        stir(m, 0.2);
        const char *key = "step", *text = "7";
        MUST(wf_model_save(m, path, WF_F32, &key, &text, 1));
        wf_model *l = wf_model_load(path);
        if (!l) fail_msg("%s", wf_message());
        assert_int_equal(l->n_param, m->n_param);
        for (int p = 0; p < m->n_param; p++) assert_close(l->param[p]->value, m->param[p]->value, 0, m->param[p]->name);
        wf_model_free(l);
        MUST(wf_model_save(m, path, WF_BF16, NULL, NULL, 0));
        assert_non_null(l = wf_model_load(path));
        for (int p = 0; p < m->n_param; p++) assert_close(l->param[p]->value, m->param[p]->value, 0.01, m->param[p]->name);
        wf_model_free(l);
        wf_model_free(m);
    }
}

static void files_of_other_models_are_refused(void **state) {
    char path[300];
    snprintf(path, sizeof path, "%s/n.safetensors", test_folder());
    wf_model *a = model_of(designs[0], 3), *b = model_of(designs[1], 3);
    MUST(wf_model_save(a, path, WF_F32, NULL, NULL, 0));
    wf_st_file f;
    MUST(wf_st_open(path, &f));
    MUST_FAIL(wf_model_read_weights(b, &f), WF_EFORMAT, "does not have");
    wf_st_close(&f);
    assert_null(wf_model_load("tests/golden/00-vision-baseline/gpt2_hf_layout.safetensors"));
    MESSAGE_HAS("weft-model-1");
    assert_null(wf_model_load("no/such/file.safetensors"));
    wf_model_free(a);
    wf_model_free(b);
}

/* ---- foreign names ---- */

static void round_trip(const char *path, const char *recipe, const wf_name_map *map) {
    wf_st_file f;
    MUST(wf_st_open(path, &f));
    wf_tensors in = {0}, out = {0};
    MUST(wf_tensors_read(&in, &f, "param."));
    wf_model *m = model_of(recipe, 1);
    MUST(wf_import(map, m, &in));
    MUST(wf_export(map, m, NULL, &out));
    assert_int_equal(in.n, out.n);
    for (int i = 0; i < in.n; i++) {
        const wf_tensor *t = wf_tensors_get(&out, in.item[i].name);
        if (!t) fail_msg("%s did not come back", in.item[i].name);
        assert_close(t, in.item[i].value, 0, in.item[i].name);
    }
    wf_tensors_free(&in);
    wf_tensors_free(&out);
    wf_model_free(m);
    wf_st_close(&f);
}

static void foreign_names_come_back(void **state) {
    round_trip("tests/golden/00-vision-baseline/gpt2_hf_layout.safetensors",
               "{name: lm, vocab: 11, length: 9, width: 8, layers: 2, mixer: {name: softmax, heads: 2}}", &wf_names_gpt2);
    round_trip("tests/golden/00-vision-baseline/vit_class_token.safetensors",
               "{name: vit, image_height: 12, image_width: 8, channels: 3, classes: 5, width: 12, layers: 2, mixer: {name: "
               "softmax, heads: 3}, "
               "channel: {name: mlp, hidden: 24}}",
               &wf_names_vit);
    round_trip("tests/golden/00-vision-baseline/deit_distilled.safetensors",
               "{name: vit, image_height: 10, patch: 5, channels: 1, classes: 4, width: 8, layers: 1, distilled: true, mixer: "
               "{name: softmax, heads: 2}, "
               "channel: {name: mlp, hidden: 24}}",
               &wf_names_timm);
    round_trip("tests/golden/00-vision-baseline/bert_hf.safetensors",
               "{name: bert, vocab: 13, length: 10, width: 8, layers: 2, placement: post, nsp: true, mixer: {name: softmax, "
               "heads: 2}, "
               "channel: {name: mlp, hidden: 12}}",
               &wf_names_bert);
    round_trip("tests/golden/00-vision-baseline/simple_vit_mean_sincos.safetensors",
               "{name: vit, image_height: 8, image_width: 12, channels: 3, classes: 5, width: 12, layers: 2, patch_norm: true, "
               "pool: mean, "
               "positions: simple_vit, patch_order: channel_last, mixer: {name: softmax, heads: 2, head_dim: 5, bias: false}, "
               "channel: {name: mlp, hidden: 20}}",
               &wf_names_simple_vit);
}

static void a_checkpoint_folder_is_read(void **state) {
    static const struct {
        const char *config;
        const wf_name_map *map;
    } cases[] = {
        {"{\"model_type\": \"gpt2\", \"n_layer\": 2, \"n_head\": 2, \"n_embd\": 8, \"n_positions\": 9, \"vocab_size\": 11}",
         &wf_names_gpt2},
        {"{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "
         "\"hidden_size\": 8, "
         "\"intermediate_size\": 12, \"vocab_size\": 11, \"max_position_embeddings\": 9, \"rope_theta\": 500000.0}",
         &wf_names_llama},
        {"{\"model_type\": \"bert\", \"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"hidden_size\": 8, "
         "\"intermediate_size\": 12, "
         "\"vocab_size\": 11, \"max_position_embeddings\": 9}",
         &wf_names_bert},
        {"{\"model_type\": \"vit\", \"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"hidden_size\": 8, "
         "\"intermediate_size\": 12, "
         "\"image_size\": 8, \"patch_size\": 4, \"num_channels\": 1, \"num_labels\": 3}",
         &wf_names_vit},
        {"{\"model_type\": \"deit\", \"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"hidden_size\": 8, "
         "\"intermediate_size\": 12, "
         "\"image_size\": 8, \"patch_size\": 4, \"num_channels\": 1, \"num_labels\": 3}",
         &wf_names_deit},
    };
    char path[400];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        wf_value *config = wf_json_parse(cases[i].config, strlen(cases[i].config), "config.json");
        const wf_name_map *map = NULL;
        wf_value *recipe = wf_recipe_from_config(config, &map);
        if (!recipe) fail_msg("%s: %s", cases[i].config, wf_message());
        assert_ptr_equal(map, cases[i].map);
        wf_model *m = wf_model_new(recipe, 9);
        if (!m) fail_msg("%s: %s", cases[i].config, wf_message());
        snprintf(path, sizeof path, "%s/model.safetensors", test_folder());
        MUST(wf_model_export(m, map, path));
        snprintf(path, sizeof path, "%s/config.json", test_folder());
        MUST(wf_write_text(path, cases[i].config));
        wf_model *back = wf_model_import(test_folder());
        if (!back) fail_msg("%s: %s", cases[i].config, wf_message());
        for (int p = 0; p < m->n_param; p++) assert_close(back->param[p]->value, m->param[p]->value, 0, m->param[p]->name);
        wf_model_free(m);
        wf_model_free(back);
        wf_value_free(config);
        wf_value_free(recipe);
    }
    wf_value *other = wf_json_parse("{\"model_type\": \"t5\"}", 20, "config.json");
    const wf_name_map *map;
    assert_null(wf_recipe_from_config(other, &map));
    MESSAGE_HAS("'t5' is not known");
    wf_value_free(other);
}

static void missing_and_strange_tensors_are_named(void **state) {
    wf_model *m = model_of("{name: lm, vocab: 11, length: 9, width: 8, layers: 1, mixer: {name: softmax, heads: 2}}", 1);
    wf_tensors set = {0};
    MUST(wf_export(&wf_names_gpt2, m, NULL, &set));
    MUST(wf_tensors_add(&set, "transformer.h.0.attn.bias", wf_tensor_new(WF_F32, WF_SHAPE(1, 1, 9, 9)))); /* the causal mask */
    MUST(wf_import(&wf_names_gpt2, m, &set));
    MUST(wf_tensors_add(&set, "transformer.h.0.attn.rotary", wf_tensor_new(WF_F32, WF_SHAPE(2))));
    MUST_FAIL(wf_import(&wf_names_gpt2, m, &set), WF_EFORMAT, "'transformer.h.0.attn.rotary' has no place");
    set.n -= 1;
    wf_free(set.item[set.n].name);
    wf_tensor_free(set.item[set.n].value);
    strcpy(set.item[0].name, "x");
    MUST_FAIL(wf_import(&wf_names_gpt2, m, &set), WF_EFORMAT, "is missing");
    wf_tensors_free(&set);
    wf_model_free(m);
}

static int clean(void **state) {
    test_folder_remove();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_sizes_come_out),
        cmocka_unit_test(generation_equals_the_whole_pass),
        cmocka_unit_test(logits_do_not_know_the_future),
        cmocka_unit_test(bfloat16_is_near),
        cmocka_unit_test(variance_grows_as_the_paper_says),
        cmocka_unit_test(output_norms_take_the_branch_s_size_away),
        cmocka_unit_test(padded_ids_do_not_matter_to_bert),
        cmocka_unit_test(patches_without_positions_are_a_bag),
        cmocka_unit_test(pictures_of_another_size_are_refused),
        cmocka_unit_test(stochastic_depth_grows_over_the_blocks),
        cmocka_unit_test(recomputation_changes_nothing),
        cmocka_unit_test(first_numbers_follow_names),
        cmocka_unit_test(a_model_survives_its_file),
        cmocka_unit_test(files_of_other_models_are_refused),
        cmocka_unit_test(foreign_names_come_back),
        cmocka_unit_test(a_checkpoint_folder_is_read),
        cmocka_unit_test(missing_and_strange_tensors_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, clean);
}
