/* attention.c: cases of softmax and linear attention, rotary and other positions, QK-norm. */
#include "check/case.h"
#include "part/mixer/heads.h"

#include <math.h>
#include <string.h>

#define LINEAR(f, o)                                                                                                           \
    {f ".weight", o ".weight", 0}, {                                                                                           \
        f ".bias", o ".bias", WF_NAME_OPTIONAL                                                                                 \
    }

static const char *const nothing[] = {NULL};
/* clang-format off */
static const wf_name_rule separate[] = {LINEAR("q_proj", "q"), LINEAR("k_proj", "k"), LINEAR("v_proj", "v"), LINEAR("out_proj", "o"),
                                        {"q_norm.weight", "q_norm.weight", 0}, {"k_norm.weight", "k_norm.weight", 0},
                                        {"q_norm.bias", "q_norm.bias", 0}, {"k_norm.bias", "k_norm.bias", 0}, {"tau", "tau", 0}, {0}};
static const wf_name_map names_separate = {"attention", "", separate, nothing};
static const wf_name_rule stacked[] = {{"in_proj_weight", "q.weight", 0}, {"in_proj_weight", "k.weight", 0}, {"in_proj_weight", "v.weight", 0},
                                       {"in_proj_bias", "q.bias", 0}, {"in_proj_bias", "k.bias", 0}, {"in_proj_bias", "v.bias", 0},
                                       LINEAR("out_proj", "o"), {0}};
static const wf_name_map names_stacked = {"stacked attention", "", stacked, nothing};
static const wf_name_rule short_names[] = {LINEAR("q", "q"), LINEAR("k", "k"), LINEAR("v", "v"), LINEAR("o", "o"),
                                           {"q_norm.weight", "q_norm.weight", 0}, {"k_norm.weight", "k_norm.weight", 0},
                                           {"q_norm.bias", "q_norm.bias", 0}, {"k_norm.bias", "k_norm.bias", 0}, {"tau", "tau", 0}, {0}};
static const wf_name_map names_short = {"attention", "", short_names, nothing};
/* clang-format on */

/* "1/sqrt(d)" (0: what the kernel takes by itself), "none" (1), or a number. */
static wf_status read_scale(wf_case *c, double *scale) {
    const wf_value *v = wf_case_key(c, "scale");
    *scale = 0;
    if (!v) return WF_OK;
    if (v->kind == WF_V_TEXT && (!strcmp(v->text, "1/sqrt(d)") || !strcmp(v->text, "d^-0.5"))) return WF_OK;
    if (v->kind == WF_V_TEXT && !strcmp(v->text, "none")) return *scale = 1, WF_OK;
    WF_TRY(wf_case_real(c, "scale", 0, scale));
    return *scale > 0 ? WF_OK : wf_case_fail(c, "config: 'scale' must be positive");
}

static int64_t rows_of(wf_case *c, const char *name) {
    const wf_st_entry *e = wf_st_find(c->file, name);
    return e && e->shape.rank ? e->shape.dim[0] : 0;
}

/* [B,L,H,d] <-> [B,H,L,d] */
static wf_node *swap(wf_graph *g, wf_node *x) {
    if (x && x->shape.rank != 4) return wf_graph_fail(g, WF_EINVAL, "a tensor [B,H,L,d] was expected");
    return x ? wf_transpose(g, x, 1, 2) : NULL;
}

typedef struct wanted {
    int64_t H, K, d, window, rope_dim, offset, in, out, L;
    double scale, base, eps;
    bool causal, qkv_bias, out_bias, norm_bias, alibi;
    const char *rope, *qk_norm;
} wanted;

static char *recipe_of(wf_case *c, const wanted *w) {
    wf_text t = {0};
    wf_text_add(
        &t,
        "{name: softmax, heads: %lld, kv_heads: %lld, head_dim: %lld, window: %lld, scale: %.17g, qkv_bias: %s, out_bias: %s",
        (long long)w->H, (long long)w->K, (long long)w->d, (long long)w->window, w->scale, w->qkv_bias ? "true" : "false",
        w->out_bias ? "true" : "false");
    wf_text_add(&t, ", qk_norm: %s, qk_norm_eps: %.17g, qk_norm_bias: %s", w->qk_norm, w->eps, w->norm_bias ? "true" : "false");
    if (w->alibi)
        wf_text_add(&t, ", position: alibi");
    else if (strcmp(w->rope, "none"))
        wf_text_add(&t, ", position: {name: rope, style: %s, dim: %lld, base: %.17g, offset: %lld}", w->rope,
                    (long long)w->rope_dim, w->base, (long long)w->offset);
    wf_text_add(&t, "}");
    char *s = t.s && !t.failed ? wf_arena_strdup(c->arena, t.s) : NULL;
    wf_text_free(&t);
    return s;
}

static wf_status read_heads(wf_case *c, wanted *w, const char *key, const char *q_rows, int64_t parts) {
    WF_TRY(wf_case_int(c, key, 0, &w->H));
    if (w->H < 1) return wf_case_fail(c, "config: '%s' must be at least 1", key);
    WF_TRY(wf_case_int(c, "kv_heads", w->H, &w->K));
    int64_t rows = rows_of(c, q_rows) / parts;
    if (w->K < 1 || w->H % w->K)
        return wf_case_fail(c, "config: 'kv_heads' %lld must divide 'heads' %lld", (long long)w->K, (long long)w->H);
    WF_TRY(wf_case_int(c, "head_dim", rows / w->H, &w->d));
    if (w->d < 1 || w->d * w->H != rows)
        return wf_case_fail(c, "%lld heads of %lld channels do not make the %lld rows of %s", (long long)w->H, (long long)w->d,
                            (long long)rows, q_rows);
    return WF_OK;
}

static wf_status read_x(wf_case *c, wanted *w) {
    const wf_st_entry *e = wf_case_entry(c, "in.x");
    if (!e) return WF_EFORMAT;
    if (e->shape.rank != 3) return wf_case_fail(c, "in.x must be [B,L,D]");
    w->L = e->shape.dim[1];
    w->in = e->shape.dim[2];
    return WF_OK;
}

/* in.mask [L,S], [B,L,S] or [B,H,L,S], not 0: visible, beside what the options hide. As a term of the score; NULL: none. */
static wf_status read_mask(wf_case *c, wf_node **bias) {
    wf_graph *g = c->graph;
    wf_node *mask = wf_case_in_or_null(c, "mask");
    *bias = NULL;
    if (!mask) return WF_OK;
    if (mask->shape.rank < 2 || mask->shape.rank > 4) return wf_case_fail(c, "in.mask must be [L,S], [B,L,S] or [B,H,L,S]");
    wf_dtype t = c->f64 ? WF_F64 : WF_F32;
    mask = wf_cast(g, mask, t);
    if (mask && mask->shape.rank == 3) mask = wf_unsqueeze(g, mask, 1);
    wf_node *zero = wf_fill(g, t, WF_SHAPE(1), 0);
    *bias = wf_where(g, wf_ne(g, mask, zero), zero, wf_fill(g, t, WF_SHAPE(1), -INFINITY));
    return *bias ? WF_OK : wf_fail(wf_graph_status(g), "%s", wf_graph_message(g));
}

/* What is visible, from the part itself: with all parameters zero every visible weight is positive. */
static wf_status visible(wf_case *c, const wanted *w) {
    if (!wf_case_has(c, "out.mask")) return WF_OK;
    wf_graph *g = c->graph;
    wf_model *m = wf_case_part(c, "mixer", recipe_of(c, w), w->in, w->out, w->causal, w->L, NULL);
    if (!m) return WF_EINVAL;
    for (int i = 0; i < m->n_param; i++) memset(m->param[i]->value->data, 0, m->param[i]->value->bytes);
    wf_node *x = wf_case_in(c, "x");
    bool plain = c->build.plain;
    int before = c->n_tap;
    c->build.plain = true;
    wf_apply(&c->build, m->root, x);
    c->build.plain = plain;
    wf_node *weights = NULL;
    for (int i = before; i < c->n_tap; i++)
        if (!strcmp(c->tap_name[i], "weights")) weights = c->tapped[i];
    wf_node *seen = wf_lt(g, wf_fill(g, WF_F32, WF_SHAPE(1), 0), weights);
    const wf_st_entry *e = wf_case_entry(c, "out.mask");
    if (e->shape.rank < 4) seen = wf_squeeze(g, wf_slice(g, seen, 1, 0, 1), 1);
    if (e->shape.rank < 3) seen = wf_squeeze(g, wf_slice(g, seen, 0, 0, 1), 0);
    wf_case_out(c, "mask", seen);
    c->n_tap = before;
    return WF_OK;
}

static wf_status run_part(wf_case *c, const wanted *w, const wf_name_map *map) {
    wf_graph *g = c->graph;
    wf_model *m = wf_case_part(c, "mixer", recipe_of(c, w), w->in, w->out, w->causal, w->L, map);
    if (!m) return WF_EINVAL;
    wf_build *b = &c->build;
    b->causal = w->causal;
    b->plain = wf_case_has(c, "out.attn");
    b->lengths = wf_case_in_or_null(c, "lengths");
    WF_TRY(read_mask(c, &b->score_bias));
    wf_node *y = wf_apply(b, m->root, wf_case_in(c, "x"));
    wf_case_out(c, "y", y);
    wf_case_out(c, "attn", wf_case_tapped(c, "weights", 0));
    wf_case_out(c, "lse", wf_case_tapped(c, "lse", 0));
    wf_case_out(c, "slopes", wf_case_tapped(c, "slopes", 0));
    wf_case_out(c, "k_cache", swap(g, wf_case_tapped(c, "k", 0)));
    wf_case_out(c, "v_cache", swap(g, wf_case_tapped(c, "v", 0)));
    WF_TRY(visible(c, w));
    return wf_case_solve(c);
}

static wf_status softmax(wf_case *c) {
    wanted w = {.qk_norm = "none", .eps = 1e-6};
    static const char *const rope[] = {"half", "half", "interleaved", "interleaved", "none", "none",
                                       "neox", "half", "gptj",        "interleaved", NULL};
    static const char *const position[] = {"none", "none", "alibi", "alibi", "rope", "rope", NULL};
    static const char *const norms[] = {"none",     "none",     "rms_head", "rms_head", "ln_head", "ln_head",
                                        "rms_full", "rms_full", "l2",       "l2",       NULL};
    bool stacked_weights = wf_case_has(c, "param.in_proj_weight");
    const char *scheme = "none";
    WF_TRY(read_x(c, &w));
    WF_TRY(
        read_heads(c, &w, "heads", stacked_weights ? "param.in_proj_weight" : "param.q_proj.weight", stacked_weights ? 3 : 1));
    WF_TRY(wf_case_bool(c, "causal", false, &w.causal));
    WF_TRY(wf_case_bool(c, "alibi", wf_case_has(c, "out.slopes"), &w.alibi));
    WF_TRY(wf_case_choice(c, "position", position, "none", &scheme));
    if (!strcmp(scheme, "alibi")) w.alibi = true;
    WF_TRY(wf_case_choice(c, "rope", rope, strcmp(scheme, "rope") ? "none" : "half", &w.rope));
    WF_TRY(wf_case_int(c, "rope_dim", 0, &w.rope_dim));
    WF_TRY(wf_case_real(c, "rope_base", 10000, &w.base));
    WF_TRY(wf_case_int(c, "position_offset", 0, &w.offset));
    WF_TRY(wf_case_int(c, "window", 0, &w.window));
    WF_TRY(wf_case_choice(c, "qk_norm", norms, "none", &w.qk_norm));
    WF_TRY(wf_case_real(c, "eps", 1e-6, &w.eps));
    WF_TRY(read_scale(c, &w.scale));
    if (w.base < 1) return wf_case_fail(c, "config: 'rope_base' must be at least 1");
    w.out = rows_of(c, "param.out_proj.weight");
    w.qkv_bias = wf_case_has(c, "param.in_proj_bias") || wf_case_has(c, "param.q_proj.bias") ||
                 wf_case_has(c, "param.k_proj.bias") || wf_case_has(c, "param.v_proj.bias");
    w.out_bias = wf_case_has(c, "param.out_proj.bias");
    w.norm_bias = wf_case_has(c, "param.q_norm.bias");
    return run_part(c, &w, stacked_weights ? &names_stacked : &names_separate);
}

static wf_status qk_norm(wf_case *c) {
    static const char *const modes[] = {"none",     "none",     "rms_head", "rms_head", "ln_head", "ln_head",
                                        "rms_full", "rms_full", "l2",       "l2",       NULL};
    wanted w = {.rope = "none"};
    WF_TRY(read_x(c, &w));
    WF_TRY(wf_case_same(c, "D", w.in));
    WF_TRY(read_heads(c, &w, "H", "param.q.weight", 1));
    WF_TRY(wf_case_choice(c, "mode", modes, "rms_head", &w.qk_norm));
    WF_TRY(wf_case_real(c, "eps", 1e-6, &w.eps));
    WF_TRY(wf_case_bool(c, "causal", false, &w.causal));
    w.out = rows_of(c, "param.o.weight");
    w.qkv_bias = wf_case_has(c, "param.q.bias") || wf_case_has(c, "param.k.bias") || wf_case_has(c, "param.v.bias");
    w.out_bias = wf_case_has(c, "param.o.bias");
    w.norm_bias = wf_case_has(c, "param.q_norm.bias");
    return run_part(c, &w, &names_short);
}

static wf_status softmax_core(wf_case *c) {
    wf_graph *g = c->graph;
    wf_attention_spec s = {0};
    static const char *const aligned[] = {"query i sits at key position i+Lk-Lq", "end", "end", "end", NULL};
    const char *alignment;
    WF_TRY(wf_case_bool(c, "causal", false, &s.causal));
    WF_TRY(wf_case_int(c, "window_back", 0, &s.window_back));
    WF_TRY(wf_case_int(c, "window_forward", 0, &s.window_forward));
    /* A case counts the positions beside its own (null: unlimited), the kernel counts its own too. */
    if (wf_case_key(c, "window_back")) s.window_back++;
    if (wf_case_key(c, "window_forward")) s.window_forward++;
    WF_TRY(wf_case_choice(c, "alignment", aligned, "end", &alignment));
    WF_TRY(read_scale(c, &s.scale));
    wf_node *q = swap(g, wf_case_in(c, "q")), *k = swap(g, wf_case_in(c, "k")), *v = swap(g, wf_case_in(c, "v"));
    s.lengths = wf_case_in_or_null(c, "lengths");
    WF_TRY(read_mask(c, &s.bias));
    wf_node *o = wf_attention(g, q, k, v, &s);
    wf_case_out(c, "o", swap(g, o));
    wf_case_out(c, "lse", o ? wf_output(o, 1) : NULL);
    if (wf_case_has(c, "out.attn")) {
        wf_node *weights = NULL;
        wf_attention_plain(g, q, k, v, &s, &weights);
        wf_case_out(c, "attn", weights);
    }
    return wf_case_solve(c);
}

static wf_status linear(wf_case *c) {
    wf_graph *g = c->graph;
    static const char *const features[] = {"elu+1", "elu1", NULL};
    const char *feature;
    double eps;
    bool causal;
    WF_TRY(wf_case_choice(c, "feature", features, "elu1", &feature));
    WF_TRY(wf_case_real(c, "eps", 1e-6, &eps));
    WF_TRY(wf_case_bool(c, "causal", false, &causal));
    wf_node *q = swap(g, wf_case_in(c, "q")), *k = swap(g, wf_case_in(c, "k")), *v = swap(g, wf_case_in(c, "v"));
    c->build.lengths = wf_case_in_or_null(c, "lengths");
    wf_node *after = NULL;
    wf_node *o = wf_linear_attention(&c->build, q, k, v, wf_keep_mask(&c->build, k), causal, eps, NULL, &after);
    wf_case_out(c, "o", swap(g, o));
    if (after) {
        int64_t e = after->shape.dim[3] - 1;
        wf_case_out(c, "state_S", wf_slice(g, after, 3, 0, e));
        wf_case_out(c, "state_z", wf_squeeze(g, wf_slice(g, after, 3, e, 1), 3));
    }
    return wf_case_solve(c);
}

static wf_status sinusoidal(wf_case *c) {
    static const char *const layouts[] = {
        "interleaved sin,cos", "interleaved", "interleaved", "interleaved", "halves", "halves",
        "sin then cos",        "halves",      "half",        "halves",      NULL};
    int64_t L, D, offset;
    double base;
    const char *layout;
    wf_graph *g = c->graph;
    WF_TRY(wf_case_int(c, "length", 0, &L));
    WF_TRY(wf_case_int(c, "width", 0, &D));
    WF_TRY(wf_case_int(c, "position_offset", 0, &offset));
    WF_TRY(wf_case_real(c, "base", 10000, &base));
    WF_TRY(wf_case_choice(c, "layout", layouts, "interleaved", &layout));
    if (L < 1 || D < 1 || L * D > 1 << 26)
        return wf_case_fail(c, "config: 'length' and 'width' must be at least 1 and not huge");
    if (wf_case_has(c, "in.dummy") && !wf_case_entry(c, "in.dummy")) return WF_EFORMAT;
    char *spec =
        wf_arena_format(c->arena, "{name: sinusoidal, base: %.17g, layout: %s, offset: %lld}", base, layout, (long long)offset);
    wf_model *m = wf_case_part(c, "position", spec, D, D, false, L, NULL);
    if (!m) return WF_EINVAL;
    wf_node *x = wf_case_in_or_null(c, "x");
    wf_node *y = wf_apply(&c->build, m->root, x ? x : wf_fill(g, c->f64 ? WF_F64 : WF_F32, WF_SHAPE(1, L, D), 0));
    wf_case_out(c, "table", wf_case_tapped(c, "table", 0));
    wf_case_out(c, "y", y);
    return wf_case_solve(c);
}

/* clang-format off */
const wf_adapter wf_adapters_attention[] = {
    {"attention.softmax", softmax, "B L D"},
    {"attention.softmax-core", softmax_core, "B H L d"},
    {"attention.qk-norm", qk_norm, "B L"},
    {"attention.linear", linear, "B H L d"},
    {"position.sinusoidal", sinusoidal, ""},
    {0},
};
/* clang-format on */
