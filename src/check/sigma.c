/* sigma.c: cases of sigmaReparam linears and convolutions, and of the attention-entropy probe (42). */
#include "check/case.h"
#include "part/linear/linear.h"
#include "part/linear/spectral.h"
#include "part/mixer/entropy.h"

#include <string.h>

static const wf_name_rule rules[] = {{"weight", "weight", 0}, {"bias", "bias", WF_NAME_OPTIONAL}, {"sigma", "gamma", 0}, {0}};
static const char *const nothing[] = {NULL}, *const no_gamma[] = {"sigma", NULL};
static const wf_name_map names = {"sigmaReparam", "", rules, nothing}, names_stats = {"sigmaReparam", "", rules, no_gamma};

/* One linear, or the convolution that its weight stands for. */
typedef struct linear {
    wf_model *model;
    wf_tensor *u;
    int64_t O, I;
    bool conv;
    int64_t in_channels, kernel[2];
    wf_conv_spec spec;
} linear;

static wf_status pair_or(wf_case *c, const char *key, int64_t otherwise, int64_t out[2]) {
    out[0] = out[1] = otherwise;
    const wf_value *v = wf_case_key(c, key);
    bool zero = v && v->kind == WF_V_TEXT && !strcmp(v->text, "0");
    if (zero) out[0] = out[1] = 0;
    return v && !zero ? wf_case_pair(c, key, &out[0], &out[1]) : WF_OK;
}

static wf_status read_conv(wf_case *c, linear *w) {
    int64_t groups;
    WF_TRY(wf_case_int(c, "in_ch", 1, &w->in_channels));
    WF_TRY(wf_case_same(c, "out_ch", w->O));
    WF_TRY(pair_or(c, "kernel", 1, w->kernel));
    WF_TRY(pair_or(c, "stride", 1, w->spec.stride));
    WF_TRY(pair_or(c, "padding", 0, w->spec.pad_before));
    WF_TRY(pair_or(c, "dilation", 1, w->spec.dilation));
    WF_TRY(wf_case_int(c, "groups", 1, &groups));
    memcpy(w->spec.pad_after, w->spec.pad_before, sizeof w->spec.pad_after);
    w->spec.groups = groups;
    if (groups != 1) return wf_case_fail(c, "config: 'groups' must be 1: the weight is one matrix");
    if (w->in_channels * w->kernel[0] * w->kernel[1] != w->I)
        return wf_case_fail(c, "config: 'in_ch' and 'kernel' do not make the %lld columns of the weight", (long long)w->I);
    return WF_OK;
}

static wf_node *apply(wf_case *c, const linear *w, wf_node *x) {
    if (!w->conv) return wf_apply(&c->build, w->model->root, x);
    wf_module *m = w->model->root;
    wf_node *k =
        wf_reshape(c->graph, wf_sigma_weight(&c->build, m), WF_SHAPE(w->O, w->in_channels, w->kernel[0], w->kernel[1]));
    return wf_conv2d(c->graph, x, k, wf_use_or_null(&c->build, m, "bias"), &w->spec);
}

static wf_status one_step(wf_case *c, const linear *w, const char *step, bool train) {
    WF_TRY(wf_case_begin(c, step));
    c->build.train = train;
    wf_case_out(c, "y", apply(c, w, wf_case_in(c, "x")));
    wf_node *sigma = wf_case_tapped(c, "sigma", 0);
    wf_case_out(c, "sigma_W", sigma);
    WF_TRY(wf_case_solve(c));
    return train ? wf_case_compare(c, "buf.u", w->u) : WF_OK;
}

static wf_status exact_sigma(wf_case *c, const linear *w) {
    if (!wf_case_has(c, "out.sigma_W_exact")) return WF_OK;
    wf_rows all = {wf_model_param(w->model, "weight")->value->data, w->O};
    double *u = wf_alloc_array((size_t)w->I, sizeof *u);
    wf_tensor *t = wf_tensor_new(WF_F64, WF_SHAPE(1));
    wf_status s = u && t ? WF_OK : WF_ENOMEM;
    if (s == WF_OK) {
        wf_tensor_set(t, 0, wf_largest_singular(&all, 1, w->I, u));
        s = wf_case_compare(c, "sigma_W_exact", t);
    }
    wf_free(u);
    wf_tensor_free(t);
    return s;
}

static wf_status load_u(wf_case *c, linear *w) {
    wf_tensor *t = wf_case_read(c, "in.buf.u", WF_F32);
    if (!t) return WF_EFORMAT;
    w->u = wf_model_param(w->model, "u")->value;
    wf_status s = t->bytes == w->u->bytes ? WF_OK : wf_case_fail(c, "in.buf.u has not one number a column of the weight");
    if (s == WF_OK) memcpy(w->u->data, t->data, t->bytes);
    wf_tensor_free(t);
    return s;
}

/* stats_only: y does not depend on gamma. */
static wf_status no_gradient(wf_case *c, const char *name) {
    if (!wf_case_has(c, name)) return WF_OK;
    wf_tensor *zero = wf_tensor_new(WF_F64, WF_SHAPE(1));
    wf_status s = zero ? wf_case_compare_as(c, name, zero) : WF_ENOMEM;
    wf_tensor_free(zero);
    return s;
}

static wf_status run(wf_case *c, linear *w) {
    const wf_st_entry *e = wf_case_entry(c, "param.weight");
    int64_t steps;
    bool stats;
    if (!e) return WF_EFORMAT;
    if (e->shape.rank != 2) return wf_case_fail(c, "param.weight must be a matrix");
    w->O = e->shape.dim[0];
    w->I = e->shape.dim[1];
    WF_TRY(wf_case_int(c, "steps", 1, &steps));
    WF_TRY(wf_case_bool(c, "stats_only", false, &stats));
    WF_TRY(wf_case_agrees(c, "bias", wf_case_has(c, "param.bias")));
    if (w->conv)
        WF_TRY(read_conv(c, w));
    else
        WF_TRY(wf_case_same(c, "in_features", w->I));
    if (!w->conv) WF_TRY(wf_case_same(c, "out_features", w->O));
    w->model = wf_case_part(c, "linear", stats ? "{name: sigma, stats_only: true}" : "{name: sigma}", w->I, w->O, false, 0,
                            stats ? &names_stats : &names);
    if (!w->model) return WF_EINVAL;
    WF_TRY(load_u(c, w));
    if (stats) WF_TRY(no_gradient(c, "grad.param.sigma"));
    WF_TRY(exact_sigma(c, w));
    for (int64_t k = 0; k < steps; k++) {
        char step[24];
        snprintf(step, sizeof step, "_%lld", (long long)k);
        WF_TRY(one_step(c, w, step, true));
    }
    return wf_case_has(c, "out.y_eval") ? one_step(c, w, "_eval", false) : WF_OK;
}

static wf_status sigma_linear(wf_case *c) {
    linear w = {0};
    return run(c, &w);
}

static wf_status sigma_conv(wf_case *c) {
    linear w = {.conv = true};
    return run(c, &w);
}

/* ---- the entropy probe ---- */

/* Spectral norm of every [T,T] of the logits, and the bound that follows. */
static wf_status spectral(wf_case *c, wf_node *logits, int64_t T) {
    if (!wf_case_has(c, "out.logit_spectral_norm") && !wf_case_has(c, "out.bound_spectral")) return WF_OK;
    wf_node *plain = wf_cast(c->graph, logits, WF_F32);
    wf_plan *p = wf_plan_new(c->graph, &plain, 1, NULL, 0, NULL);
    wf_shape s = WF_SHAPE(logits->shape.dim[0], logits->shape.dim[1]);
    wf_tensor *norm = wf_tensor_new(WF_F64, s), *bound = wf_tensor_new(WF_F64, s);
    double *u = wf_alloc_array((size_t)T, sizeof *u);
    wf_status st = p && norm && bound && u ? wf_plan_run(p) : WF_ENOMEM;
    for (int64_t i = 0; st == WF_OK && i < wf_tensor_count(norm); i++) {
        wf_rows all = {(const float *)wf_plan_out(p, 0) + i * T * T, T};
        memset(u, 0, sizeof *u * (size_t)T);
        double x = wf_largest_singular(&all, 1, T, u);
        wf_tensor_set(norm, i, x);
        wf_tensor_set(bound, i, wf_entropy_bound_of(x, (double)T));
    }
    if (st == WF_OK) st = wf_case_compare(c, "logit_spectral_norm", norm);
    if (st == WF_OK) st = wf_case_compare(c, "bound_spectral", bound);
    wf_free(u);
    wf_tensor_free(norm);
    wf_tensor_free(bound);
    wf_plan_free(p);
    return st;
}

/* [B,T,D] -> [B,H,T,D/H] */
static wf_node *heads(wf_graph *g, wf_node *x, int64_t H) {
    if (!x) return NULL;
    const int64_t *d = x->shape.dim;
    return wf_transpose(g, wf_reshape(g, x, WF_SHAPE(d[0], d[1], H, d[2] / H)), 1, 2);
}

static wf_status read_probe(wf_case *c, int64_t *H, bool *causal, double *scale) {
    const wf_st_entry *x = wf_case_entry(c, "in.x"), *w = wf_st_find(c->file, "param.wq");
    if (!x) return WF_EFORMAT;
    if (x->shape.rank != 3) return wf_case_fail(c, "in.x must be [B,T,D]");
    WF_TRY(wf_case_same(c, "B", x->shape.dim[0]));
    WF_TRY(wf_case_same(c, "T", x->shape.dim[1]));
    WF_TRY(wf_case_same(c, "D", x->shape.dim[2]));
    WF_TRY(wf_case_int(c, "H", 1, H));
    WF_TRY(wf_case_bool(c, "causal", false, causal));
    WF_TRY(wf_case_real(c, "scale", 1, scale));
    if (*H < 1 || !w || w->shape.rank != 2 || w->shape.dim[0] % *H)
        return wf_case_fail(c, "config: 'H' must divide the rows of param.wq");
    return WF_OK;
}

static wf_status entropy(wf_case *c) {
    wf_graph *g = c->graph;
    int64_t H;
    bool causal;
    double scale;
    WF_TRY(read_probe(c, &H, &causal, &scale));
    wf_node *x = wf_case_in(c, "x"), *q = heads(g, wf_linear(g, x, wf_case_param(c, "wq"), NULL), H),
            *k = heads(g, wf_linear(g, x, wf_case_param(c, "wk"), NULL), H);
    wf_node *logits = wf_mul_c(g, wf_matmul(g, q, k, false, true), scale), *visible = NULL;
    if (!logits) return wf_fail(WF_EFORMAT, "%s", wf_graph_message(g));
    int64_t T = logits->shape.dim[2];
    wf_dtype t = logits->dtype;
    if (causal) visible = wf_le(g, wf_index(g, t, WF_SHAPE(1, T), 1), wf_index(g, t, WF_SHAPE(T, 1), 0));
    wf_node *ent = wf_row_entropy(g, logits, visible), *length = wf_row_length(g, logits, visible);
    wf_node *p = wf_softmax(g, visible ? wf_where(g, visible, logits, wf_fill(g, t, WF_SHAPE(1), -1e30)) : logits);
    wf_case_out(c, "entropy", ent);
    wf_case_out(c, "entropy_head_mean", wf_mean(g, ent, 1u << 0 | 1u << 2, false));
    wf_case_out(c, "row_sigma", length);
    wf_case_out(c, "bound_row", wf_entropy_bound(g, length, wf_row_count(g, logits, visible)));
    wf_node *soft = wf_sum(g, wf_mul(g, p, wf_log(g, wf_add_c(g, p, 1e-6))), 1u << 3, false);
    wf_case_out(c, "entropy_eps_mean", wf_neg(g, wf_mean(g, soft, 7u, false)));
    if (causal) logits = wf_mul(g, logits, visible);
    WF_TRY(spectral(c, logits, T));
    return wf_case_solve(c);
}

/* clang-format off */
const wf_adapter wf_adapters_sigma[] = {
    {"linear.sigma-reparam", sigma_linear, "initial_u"},
    {"linear.sigma-reparam-conv2d", sigma_conv, "initial_u"},
    {"probe.attention-entropy", entropy, ""},
    {0},
};
/* clang-format on */
