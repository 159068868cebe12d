/* test_probe.c: the measures of `weft probe`, and with them what 07 (Peri-LN) says about placements: scale invariance, variance
 * by depth, the gradient under large activations, causality. */
#include "softmax_help.h"

#include "learn/learn.h"
#include "learn/probe.h"
#include "part/placement/placement.h"

#include <math.h>

#define TASK "task: {name: associative-recall, length: 24, vocab: 101, pairs: 6, valid: 8}\n"

static wf_run *run_with(const char *model, int seed) {
    char text[700];
    snprintf(text, sizeof text, TASK "model: {name: lm, %s}\ntrain: {steps: 1, batch: 2, seed: %d}\n", model, seed);
    wf_value *v = yaml(text);
    wf_run *r = wf_run_new(v, NULL);
    wf_value_free(v);
    if (!r) fail_msg("%s: %s", model, wf_message());
    return r;
}

static wf_run *run_of(const char *model) {
    return run_with(model, 1);
}

static void measure(wf_run *r, const char *what, wf_probe_table *t) {
    wf_probe_input in = {wf_run_model(r), wf_run_task(r), 2};
    MUST(wf_probe_run(wf_probe_find(what), &in, t));
}

static int column(const wf_probe_table *t, const char *name) {
    for (int i = 0; t->probe->column[i]; i++)
        if (!strcmp(t->probe->column[i], name)) return i;
    fail_msg("no column %s", name);
    return -1;
}

static const wf_probe_row *row(const wf_probe_table *t, const char *name) {
    for (int i = 0; i < t->n; i++)
        if (!strcmp(t->row[i].name, name)) return &t->row[i];
    fail_msg("no row %s", name);
    return NULL;
}

/* ---- variance by depth at the start ---- */

/* Mean over first weights: one draw's sublayers lean to the stream or away from it by some tens of per cent in all. */
static void variances(const char *placement, double v[13]) {
    enum { SEEDS = 6 };
    char text[400];
    snprintf(text, sizeof text,
             "width: 64, layers: 12, placement: %s, norm: {name: rmsnorm, eps: 1e-12}, scale_residual: false, mixer: {name: "
             "softmax, heads: 4}",
             placement);
    for (int i = 0; i < 13; i++) v[i] = 0;
    for (int seed = 1; seed <= SEEDS; seed++) {
        wf_run *r = run_with(text, seed);
        wf_probe_table t;
        measure(r, "variance", &t);
        assert_int_equal(t.n, 13);
        bool post = !strcmp(placement, "post");
        for (int i = 0; i < 13; i++) v[i] += t.row[i].value[column(&t, post ? "mean square" : "variance")] / SEEDS;
        wf_probe_free(&t);
        wf_run_free(r);
    }
}

static void the_stream_grows_as_the_placement_says(void **state) {
    double peri[13], post[13], pre[13];
    variances("peri", peri);
    variances("post", post);
    variances("pre", pre);
    print_message("  variance after 12 blocks: peri %.2f, pre %.3f\n", peri[12], pre[12]);
    for (int l = 1; l <= 12; l++) {
        if (fabs(peri[l] - peri[0] - 2 * l) > 0.4 * 2 * l) fail_msg("peri, block %d: %g", l, peri[l]);
        if (fabs(post[l] - 1) > 0.01) fail_msg("post, block %d: mean square %g", l, post[l]);
    }
    assert_true(peri[12] > 20 && peri[12] < 32);
    assert_true(pre[12] < 1);
}

/* ---- scale of the last matrices ---- */

static wf_tensor *logits(wf_model *m, double factor) {
    for (int i = 0; i < m->n_param; i++)
        if (strstr(m->param[i]->name, "channel.down"))
            for (int64_t j = 0; j < wf_tensor_count(m->param[i]->value); j++)
                wf_tensor_set(m->param[i]->value, j, factor * wf_tensor_get(m->param[i]->value, j));
    wf_tensor *ids = wf_tensor_new(WF_I32, WF_SHAPE(2, 9));
    for (int i = 0; i < 18; i++) wf_tensor_set(ids, i, (i * 5) % 13);
    wf_tensor *y = run_forward(m, ids, NULL);
    wf_tensor_free(ids);
    return y;
}

static void output_norms_take_the_scale_away(void **state) {
    for (int i = 0; i < wf_n_placements; i++) {
        const wf_placement *p = &wf_placements[i];
        if (!strcmp(p->part.name, "adaln-zero")) continue; /* needs a condition */
        char text[300];
        snprintf(text, sizeof text,
                 "{name: lm, vocab: 13, length: 9, width: 16, layers: 3, placement: %s, norm: {name: rmsnorm, eps: 1e-8}, "
                 "init_std: 0.3, "
                 "mixer: {name: softmax, heads: 2}}",
                 p->part.name);
        wf_model *m = model_of(text, 4);
        wf_tensor *a = logits(m, 1), *b = logits(m, 10);
        double e = rn_error(a, b);
        if (p->out ? e > 1e-4 : e < 1e-2) fail_msg("%s: logits change by %g", p->part.name, e);
        wf_tensor_free(a);
        wf_tensor_free(b);
        wf_model_free(m);
    }
}

/* ---- the gradient under large activations ---- */

typedef struct one { /* one MLP sublayer */
    wf_sublayer sub;
} one;
typedef struct one_options {
    const wf_value *placement;
} one_options;
static const wf_option one_table[] = {{"placement", WF_OPT_VALUE, offsetof(one_options, placement), "", 0, 0, NULL, ""},
                                      WF_OPT_END};

static wf_status one_setup(wf_module *m) {
    const one_options *o = m->opt;
    one *s = m->data = wf_arena_alloc(m->model->arena, sizeof *s);
    m->in = m->out = 16;
    m->model->layers = 1;
    m->model->bias = true;
    wf_value *norm = wf_yaml_parse("{name: rmsnorm, eps: 1e-12}", 27, NULL), *mlp = m->model->made;
    MUST(wf_value_set(m->model->defaults, "norm", norm));
    MUST(wf_value_set(mlp, "mlp", wf_yaml_parse("{name: mlp, act: relu, hidden: 40}", 34, NULL)));
    wf_module *place = wf_child_spec(m, "placement", "placement", "pre", o->placement, 16, 16);
    wf_sublayer_want w = {
        .name = "channel", .slot = "channel", .default_name = "mlp", .spec = wf_value_get(mlp, "mlp"), .factor = 1};
    return place ? wf_sublayer_setup(m, place, &w, &s->sub) : WF_EINVAL;
}
static wf_node *one_forward(wf_build *b, wf_module *m, wf_node *x) {
    return wf_sublayer_forward(b, m, &((one *)m->data)->sub, x);
}
static const wf_part one_part = {.slot = "model",
                                 .name = "one",
                                 .options = one_table,
                                 .opt_size = sizeof(one_options),
                                 .setup = one_setup,
                                 .forward = one_forward};

static void tap_a(void *ctx, const wf_module *m, const char *what, wf_node *n) {
    wf_node **h = ctx;
    const char *dot = strrchr(m->name, '.');
    if (dot && !strcmp(dot, ".down")) h[!strcmp(what, "output")] = n;
}

/* |dW2| of L = <o, R> with W1 and b1 multiplied by c; no entry may exceed the sum over tokens of 4 sqrt(D) |R| |h| / |a|. */
static double gradient_norm(const char *placement, double c) {
    wf_value *v = yaml(placement);
    wf_model *m = wf_model_alloc();
    m->recipe = v;
    if (!wf_model_root(m, &one_part, v)) fail_msg("%s", wf_message());
    MUST(wf_model_init(m, 3));
    stir(m, 0); /* as it is */
    for (int i = 0; i < m->n_param; i++) {
        bool up = strstr(m->param[i]->name, ".up."), bias = up && strstr(m->param[i]->name, "bias");
        for (int64_t j = 0; up && j < wf_tensor_count(m->param[i]->value); j++)
            wf_tensor_set(m->param[i]->value, j,
                          c * (bias ? 0.01 * (double)(j % 5 - 2) : wf_tensor_get(m->param[i]->value, j)));
    }
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_node *h[2] = {NULL, NULL};
    wf_build_start(&b, g);
    b.tap = tap_a;
    b.tap_ctx = h;
    b.tap_io = true;
    wf_tensor *x = noise(WF_SHAPE(1, 7, 16), 1, 1), *r = noise(WF_SHAPE(1, 7, 16), 2, 1);
    wf_node *loss = wf_sum_all(g, wf_mul(g, wf_apply(&b, m->root, wf_leaf(g, x, "x")), wf_leaf(g, r, "R")));
    wf_node *w = wf_leaf(g, wf_model_param(m, "channel.down.weight")->value, "w"), *out[3];
    MUST(wf_grad(g, &loss, NULL, 1, &w, 1, out));
    out[1] = h[0], out[2] = h[1];
    wf_plan *p = wf_plan_new(g, out, 3, NULL, 0, NULL);
    MUST(wf_plan_run(p));
    const float *dw = wf_plan_out(p, 0), *act = wf_plan_out(p, 1), *a = wf_plan_out(p, 2);
    double norm = 0, most = 0, bound = 0;
    for (int i = 0; i < 16 * 40; i++) norm += (double)dw[i] * dw[i], most = fmax(most, fabs((double)dw[i]));
    for (int t = 0; t < 7; t++) {
        double top = 0, aa = 0, rr = 0;
        for (int i = 0; i < 40; i++) top = fmax(top, (double)act[t * 40 + i]);
        for (int i = 0; i < 16; i++) aa += pow((double)a[t * 16 + i], 2), rr += pow(wf_tensor_get(r, t * 16 + i), 2);
        bound += 4 * sqrt(16) * sqrt(rr) * top / sqrt(aa);
    }
    if (strstr(placement, "peri") && most > bound) fail_msg("%s, c %g: entry %g above %g", placement, c, most, bound);
    wf_plan_free(p);
    wf_build_end(&b);
    wf_graph_free(g);
    wf_tensor_free(x);
    wf_tensor_free(r);
    wf_model_free(m);
    return sqrt(norm);
}

static void large_activations_do_not_reach_the_gradient_behind_a_norm(void **state) {
    double pre = gradient_norm("{placement: pre}", 1), peri = gradient_norm("{placement: peri}", 1);
    for (double c = 10; c <= 100; c *= 10) {
        double a = gradient_norm("{placement: pre}", c), b = gradient_norm("{placement: peri}", c);
        if (fabs(a / pre - c) > 0.01 * c || fabs(b / peri - 1) > 0.01)
            fail_msg("c %g: pre grows %g times, peri %g times", c, a / pre, b / peri);
    }
}

/* The measure says the same of a whole model, and its bound holds. */
static void the_measured_bound_holds(void **state) {
    static const char *const placements[] = {"pre", "peri", "output", "post"}, *const norms[] = {
                                                                                   "rmsnorm", "layernorm",
                                                                                   "{name: rmsnorm, one_plus_w: true}"};
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 3; k++) {
            char text[300];
            snprintf(text, sizeof text,
                     "width: 16, layers: 2, placement: %s, norm: %s, channel: {name: %s}, mixer: {name: softmax, heads: 2}",
                     placements[i], norms[k], k == 1 ? "swiglu" : "mlp");
            wf_run *r = run_of(text);
            stir(wf_run_model(r), 0.3);
            wf_probe_table t;
            measure(r, "massive", &t);
            assert_int_equal(t.n, 2);
            for (int j = 0; j < t.n; j++) {
                const double *v = t.row[j].value;
                if (!(v[column(&t, "largest")] <= v[column(&t, "bound")] && v[0] > 0))
                    fail_msg("%s: %g above %g", text, v[3], v[4]);
            }
            wf_probe_free(&t);
            wf_run_free(r);
        }
}

/* ---- causality and streaming ---- */

static void every_placement_is_token_local(void **state) {
    for (int i = 0; i < wf_n_placements; i++) {
        if (!strcmp(wf_placements[i].part.name, "adaln-zero")) continue;
        char text[300];
        snprintf(text, sizeof text,
                 "{name: lm, vocab: 13, length: 9, width: 16, layers: 2, placement: %s, norm: rmsnorm, embed_norm: true, "
                 "mixer: {name: softmax, "
                 "heads: 2, qk_norm: rms_head}}",
                 wf_placements[i].part.name);
        wf_model *m = model_of(text, 4);
        stir(m, 0.2);
        wf_tensor *ids = wf_tensor_new(WF_I32, WF_SHAPE(1, 9));
        for (int k = 0; k < 9; k++) wf_tensor_set(ids, k, (k * 5) % 13);
        wf_tensor *a = run_forward(m, ids, NULL), *b = run_steps(m, ids, (int[]){2, 1, 1, 5, 0}, 9);
        assert_close(b, a, 1e-5, text);
        for (int k = 5; k < 9; k++) wf_tensor_set(ids, k, 1);
        wf_tensor *c = run_forward(m, ids, NULL);
        for (int k = 0; k < 5 * 13; k++) assert_true(wf_tensor_get(c, k) == wf_tensor_get(a, k));
        wf_tensor *all[] = {ids, a, b, c};
        for (int k = 0; k < 4; k++) wf_tensor_free(all[k]);
        wf_model_free(m);
    }
}

/* ---- the other measures ---- */

/* Squares of the blocks' gradients and the rest's make up that of all. */
static void gradients_add_up(void **state) {
    wf_run *r = run_of("width: 16, layers: 3, mixer: {name: softmax, heads: 2}");
    wf_probe_table t;
    measure(r, "gradient", &t);
    assert_int_equal(t.n, 4);
    double sum = 0;
    for (int i = 0; i < t.n; i++) sum += pow(t.row[i].value[0], 2);
    assert_true(isnan(row(&t, "outside the blocks")->value[4]) && row(&t, "blocks.1")->value[4] > 0);
    wf_probe_free(&t);
    /* The same by hand. */
    wf_model *m = wf_run_model(r);
    wf_task *task = wf_run_task(r);
    wf_batch *b = wf_batch_new(task, 2);
    MUST(wf_batch_fill(task, WF_VALID, 0, 0, b, NULL));
    wf_graph *g = wf_graph_open();
    wf_build build;
    wf_build_start(&build, g);
    build.causal = true;
    wf_node *y = wf_apply(&build, m->root, wf_leaf(g, b->tensor[0], "x"));
    wf_node *loss = wf_sum_all(g, wf_cross_entropy(g, y, wf_leaf(g, b->tensor[1], "t"), 0)), *in[80], *out[80];
    for (int i = 0; i < m->n_param; i++) in[i] = wf_leaf(g, m->param[i]->value, "w");
    MUST(wf_grad(g, &loss, NULL, 1, in, m->n_param, out));
    wf_plan *p = wf_plan_new(g, out, m->n_param, NULL, 0, NULL);
    MUST(wf_plan_run(p));
    double whole = 0, scored = 0;
    for (int i = 0; i < m->n_param; i++)
        for (int64_t j = 0; j < wf_shape_count(&out[i]->shape); j++)
            whole += pow((double)((const float *)wf_plan_out(p, i))[j], 2);
    for (int64_t i = 0; i < wf_tensor_count(b->tensor[1]); i++) scored += wf_tensor_get(b->tensor[1], i) >= 0;
    whole /= scored * scored;
    if (fabs(sum - whole) > 1e-5 * whole) fail_msg("blocks make %g, all %g", sum, whole);
    wf_plan_free(p);
    wf_build_end(&build);
    wf_graph_free(g);
    wf_batch_free(b);
    wf_run_free(r);
}

static void entropy_is_between_its_bounds(void **state) {
    static const char *const mixers[] = {"{name: softmax, heads: 2}", "{name: softmax, heads: 4, kv_heads: 2, position: rope}",
                                         "{name: softmax, heads: 2, position: alibi}",
                                         "{name: softmax, heads: 2, qk_norm: rms_head, window: 5}",
                                         "{name: complex, heads: 2}"};
    for (int i = 0; i < 5; i++) {
        char text[300];
        snprintf(text, sizeof text, "width: 16, layers: 2, position: none, linear: %s, mixer: %s", i % 2 ? "sigma" : "dense",
                 mixers[i]);
        wf_run *r = run_of(text);
        stir(wf_run_model(r), 0.15);
        wf_probe_table t;
        measure(r, "entropy", &t);
        int e = column(&t, "entropy"), most = column(&t, "most"), by_row = column(&t, "bound row"),
            spectral = column(&t, "spectral"), product = column(&t, "product");
        for (int k = 0; k < t.n; k++) {
            const double *v = t.row[k].value;
            bool ok = v[e] <= v[most] + 1e-6 && v[by_row] <= v[e] + 1e-6 && v[spectral] <= v[by_row] + 1e-6 &&
                      fabs(v[column(&t, "mass")] - 1) < 1e-5;
            if (i < 2) ok = ok && v[product] <= v[spectral] + 1e-6 && v[product] > 0;
            if (i >= 2) ok = ok && isnan(v[product]);
            if (!ok)
                fail_msg("%s, %s: entropy %g of %g, bounds %g %g %g", text, t.row[k].name, v[e], v[most], v[by_row],
                         v[spectral], v[product]);
        }
        row(&t, "blocks.1.mixer");
        row(&t, "blocks.0.mixer head 1");
        wf_probe_free(&t);
        wf_run_free(r);
    }
}

static void sigmoid_attention_shows_its_mass(void **state) {
    wf_run *r = run_of("width: 16, layers: 1, mixer: {name: sigmoid, heads: 2}");
    wf_probe_table t;
    measure(r, "entropy", &t);
    const double *v = row(&t, "blocks.0.mixer")->value;
    assert_true(v[column(&t, "mass")] > 0.05 && v[column(&t, "mass")] < 0.95 && isnan(v[column(&t, "bound row")]));
    wf_probe_free(&t);
    wf_run_free(r);
}

static void growth_of_spectral_norms_is_seen(void **state) {
    wf_run *r = run_of("width: 16, layers: 1, linear: sigma, mixer: {name: softmax, heads: 2}");
    wf_tensor *w = wf_model_param(wf_run_model(r), "blocks.0.mixer.o.weight")->value;
    for (int64_t i = 0; i < wf_tensor_count(w); i++) wf_tensor_set(w, i, 3 * wf_tensor_get(w, i));
    wf_probe_table t;
    measure(r, "sigma", &t);
    const double *v = row(&t, "blocks.0.mixer.o")->value, *q = row(&t, "blocks.0.channel.up")->value;
    assert_true(fabs(v[column(&t, "growth")] - 3) < 1e-5 && fabs(q[column(&t, "growth")] - 1) < 1e-6);
    assert_true(fabs(v[column(&t, "used")] - v[column(&t, "first")]) < 1e-5 * v[0]); /* the product's weight did not grow */
    assert_true(v[column(&t, "stable rank")] >= 1 && v[column(&t, "stable rank")] <= 16);
    wf_probe_free(&t);
    wf_run_free(r);
}

static void unknown_measures_and_models_without_one_are_refused(void **state) {
    assert_null(wf_probe_find("entrpy"));
    MESSAGE_HAS("did you mean 'entropy'");
    wf_run *r = run_of("width: 16, layers: 1, mixer: {name: linear, heads: 2}");
    wf_probe_input in = {wf_run_model(r), wf_run_task(r), 2};
    wf_probe_table t;
    MUST_FAIL(wf_probe_run(wf_probe_find("entropy"), &in, &t), WF_EUNSUPPORTED, "'entropy'");
    in.task = NULL;
    MUST_FAIL(wf_probe_run(wf_probe_find("variance"), &in, &t), WF_EINVAL, "needs a task");
    wf_run_free(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_stream_grows_as_the_placement_says),
        cmocka_unit_test(output_norms_take_the_scale_away),
        cmocka_unit_test(large_activations_do_not_reach_the_gradient_behind_a_norm),
        cmocka_unit_test(the_measured_bound_holds),
        cmocka_unit_test(every_placement_is_token_local),
        cmocka_unit_test(gradients_add_up),
        cmocka_unit_test(entropy_is_between_its_bounds),
        cmocka_unit_test(sigmoid_attention_shows_its_mass),
        cmocka_unit_test(growth_of_spectral_norms_is_seen),
        cmocka_unit_test(unknown_measures_and_models_without_one_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
