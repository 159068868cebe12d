/* softmax_family.c: cases of sigmoid attention and its block (47), and of complex attention (43). */
#include "check/case.h"
#include "part/position/position.h"
#include "part/topology/stack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BOTH(f, o)                                                                                                             \
    {f ".weight", o ".weight", 0}, {                                                                                           \
        f ".bias", o ".bias", 0                                                                                                \
    }
#define NORMS(f, o) BOTH(f "q_norm", o "q_norm"), BOTH(f "k_norm", o "k_norm")
static const char *const nothing[] = {NULL};

static int64_t dim_of(wf_case *c, const char *name, int axis) {
    const wf_st_entry *e = wf_st_find(c->file, name);
    return e && e->shape.rank > axis ? e->shape.dim[axis] : 0;
}

static const char *yes(bool b) {
    return b ? "true" : "false";
}

static char *finish(wf_case *c, wf_text *t) {
    char *s = t->s && !t->failed ? wf_arena_strdup(c->arena, t->s) : NULL;
    wf_text_free(t);
    return s;
}

/* ---- 47: sigmoid attention ---- */

typedef struct sigmoid {
    int64_t H, K, d, D, L, window;
    double b, temperature, eps, scale;
    const char *activation, *position;
    bool qk_norm, norm_bias, qkv_bias, out_bias, causal, cross;
} sigmoid;

static const wf_name_rule sigmoid_rules[] = {BOTH("qkv", "q"),  BOTH("qkv", "k"), BOTH("qkv", "v"),
                                             BOTH("proj", "o"), NORMS("", ""),    {0}};
static const wf_name_map names_sigmoid = {"sigmoid attention", "", sigmoid_rules, nothing};
static const wf_name_rule cross_rules[] = {BOTH("q_proj", "q"),
                                           BOTH("kv_proj", "k"),
                                           BOTH("kv_proj", "v"),
                                           BOTH("proj", "o"),
                                           NORMS("", ""),
                                           BOTH("v_norm", "v_norm"),
                                           {0}};
static const wf_name_map names_cross = {"sigmoid cross attention", "", cross_rules, nothing};

/* In words, or a number. */
static wf_status read_scale(wf_case *c, double *scale) {
    const wf_value *v = wf_case_key(c, "scale");
    *scale = 0;
    if (!v) return WF_OK;
    static const char *const usual[] = {"d^-0.5 on q after norm and rotation", "1/sqrt(d)", "d^-0.5"};
    for (size_t i = 0; v->kind == WF_V_TEXT && i < sizeof usual / sizeof *usual; i++)
        if (!strcmp(v->text, usual[i])) return WF_OK;
    if (v->kind == WF_V_TEXT && !strcmp(v->text, "none")) return *scale = 1, WF_OK;
    WF_TRY(wf_case_real(c, "scale", 0, scale));
    return *scale > 0 ? WF_OK : wf_case_fail(c, "config: 'scale' must be positive");
}

/* prefix: where the attention's parameters stand, "param." or "param.attn." */
static wf_status read_sigmoid(wf_case *c, const char *prefix, sigmoid *w) {
    static const char *const kinds[] = {"sigmoid",
                                        "none",
                                        "seq_len_normalized_sigmoid",
                                        "seq_len",
                                        "sqrt_seq_len_normalized_sigmoid",
                                        "sqrt_seq_len",
                                        "softmax",
                                        "softmax",
                                        NULL};
    static const char *const positions[] = {"none", "none", "rope", "rope", "alibi", "alibi", NULL};
    char name[8][96];
    static const char *const suffix[8] = {"q_norm.weight", "q_norm.bias", "qkv.bias",    "q_proj.bias",
                                          "kv_proj.bias",  "proj.bias",   "proj.weight", "q_proj.weight"};
    for (int i = 0; i < 8; i++) snprintf(name[i], sizeof name[i], "%s%s", prefix, suffix[i]);
    WF_TRY(wf_case_int(c, "heads", 0, &w->H));
    if (w->H < 1) return wf_case_fail(c, "config: 'heads' must be at least 1");
    WF_TRY(wf_case_int(c, "kv_heads", w->H, &w->K));
    if (w->K < 1 || w->H % w->K) return wf_case_fail(c, "config: 'kv_heads' must divide 'heads'");
    WF_TRY(wf_case_int(c, "head_dim", dim_of(c, name[6], 1) / w->H, &w->d));
    if (w->d < 1 || w->d * w->H != dim_of(c, name[6], 1))
        return wf_case_fail(c, "%lld heads do not make the %lld columns of %s", (long long)w->H,
                            (long long)dim_of(c, name[6], 1), name[6]);
    WF_TRY(wf_case_choice(c, "activation", kinds, "none", &w->activation));
    WF_TRY(wf_case_choice(c, "position", positions, "none", &w->position));
    WF_TRY(wf_case_real(c, "attn_bias", 0, &w->b));
    WF_TRY(wf_case_real(c, "attn_temp", 0, &w->temperature));
    WF_TRY(wf_case_real(c, "qk_norm_eps", 1e-5, &w->eps));
    WF_TRY(wf_case_bool(c, "qk_norm", wf_case_has(c, name[0]), &w->qk_norm));
    WF_TRY(wf_case_bool(c, "causal", false, &w->causal));
    WF_TRY(wf_case_int(c, "window", 0, &w->window));
    WF_TRY(read_scale(c, &w->scale));
    if (!isfinite(w->b)) return wf_case_fail(c, "config: 'attn_bias' must be a finite number");
    w->norm_bias = wf_case_has(c, name[1]);
    w->qkv_bias = wf_case_has(c, name[2]) || wf_case_has(c, name[3]) || wf_case_has(c, name[4]);
    w->out_bias = wf_case_has(c, name[5]);
    w->cross = wf_case_has(c, name[7]);
    if (w->cross && (w->causal || w->window || strcmp(w->activation, "none")))
        return wf_case_fail(c, "config: cross attention sees all keys alike: no 'causal', no 'window', 'activation' sigmoid");
    if (w->cross && strcmp(w->position, "none"))
        return wf_case_fail(c, "config: 'position' of cross attention must be none, not %s", w->position);
    return WF_OK;
}

static char *sigmoid_recipe(wf_case *c, const sigmoid *w) {
    wf_text t = {0};
    bool softmax = !strcmp(w->activation, "softmax"), alibi = !strcmp(w->position, "alibi");
    wf_text_add(&t, "{name: %s, heads: %lld, kv_heads: %lld, head_dim: %lld, qkv_bias: %s, out_bias: %s, window: %lld",
                softmax ? "softmax" : "sigmoid", (long long)w->H, (long long)w->K, (long long)w->d, yes(w->qkv_bias),
                yes(w->out_bias), (long long)w->window);
    wf_text_add(&t, ", qk_norm: %s, qk_norm_eps: %.17g, qk_norm_bias: %s", w->qk_norm ? "ln_head" : "none", w->eps,
                yes(w->norm_bias));
    if (softmax) {
        double scale = w->scale > 0 ? w->scale : 1 / sqrt((double)w->d);
        wf_text_add(&t, ", scale: %.17g", exp(w->temperature) * scale);
    } else {
        wf_text_add(&t, ", scale: %.17g, score_bias: %.17g, temperature: %.17g, row_scale: %s, cross: %s", w->scale, w->b,
                    w->temperature, w->activation, yes(w->cross));
    }
    if (!strcmp(w->position, "rope"))
        wf_text_add(&t, ", position: {name: rope, style: interleaved}");
    else
        wf_text_add(&t, ", position: %s", alibi && w->causal ? "alibi" : "none");
    wf_text_add(&t, "}");
    return finish(c, &t);
}

/* Their ALiBi has a sign: slope (j - i), also for keys behind the query, where ours takes the distance. */
static wf_node *signed_alibi(wf_case *c, const sigmoid *w) {
    wf_graph *g = c->graph;
    wf_dtype t = c->f64 ? WF_F64 : WF_F32;
    double slope[w->H];
    wf_alibi_slopes(w->H, slope);
    wf_tensor *v = wf_tensor_new(t, WF_SHAPE(w->H, 1, 1));
    for (int64_t h = 0; v && h < w->H; h++) wf_tensor_set(v, h, slope[h]);
    wf_node *far = wf_sub(g, wf_index(g, t, WF_SHAPE(1, w->L), 1), wf_index(g, t, WF_SHAPE(w->L, 1), 0));
    return wf_unsqueeze(g, wf_mul(g, wf_case_constant(c, "slopes", v), far), 0);
}

static wf_status prepare_sigmoid(wf_case *c, const sigmoid *w) {
    wf_build *b = &c->build;
    b->causal = w->causal;
    b->plain = wf_case_has(c, "out.attn");
    /* Lengths are those of keys. */
    if (w->cross)
        b->context_lengths = wf_case_in_or_null(c, "lengths");
    else
        b->lengths = wf_case_in_or_null(c, "lengths");
    if (strcmp(w->position, "alibi") || w->causal) return WF_OK;
    if (!strcmp(w->activation, "softmax") && w->temperature != 0)
        return wf_case_fail(c, "config: softmax with ALiBi in both directions has no 'attn_temp' here");
    return (b->score_bias = signed_alibi(c, w)) ? WF_OK : WF_ENOMEM;
}

static wf_status sigmoid_attention(wf_case *c) {
    sigmoid w = {0};
    WF_TRY(read_sigmoid(c, "param.", &w));
    const char *q_name = wf_case_has(c, "in.x") ? "x" : wf_case_has(c, "in.q") ? "q" : "x";
    char full[16];
    snprintf(full, sizeof full, "in.%s", q_name);
    const wf_st_entry *x = wf_case_entry(c, full);
    if (!x) return WF_EFORMAT;
    if (x->shape.rank != 3) return wf_case_fail(c, "%s must be [B,L,D]", full);
    w.L = x->shape.dim[1];
    w.D = x->shape.dim[2];
    wf_model *m = wf_case_part(c, "mixer", sigmoid_recipe(c, &w), w.D, dim_of(c, "param.proj.weight", 0), w.causal && !w.cross,
                               w.L, w.cross ? &names_cross : &names_sigmoid);
    if (!m) return WF_EINVAL;
    WF_TRY(prepare_sigmoid(c, &w));
    if (w.cross) c->build.context = wf_case_in(c, wf_case_has(c, "in.kv") ? "kv" : "context");
    wf_case_out(c, "y", wf_apply(&c->build, m->root, wf_case_in(c, q_name)));
    wf_case_out(c, "attn", wf_case_tapped(c, "weights", 0));
    return wf_case_solve(c);
}

/* The block as a model of its own: one layer of a plain stack, without embedding and head. */
typedef struct block_options {
    wf_stack_opt stack;
    int64_t width;
    bool causal;
} block_options;

static const wf_option block_table[] = {WF_STACK_OPTIONS(block_options, stack),
                                        {"width", WF_OPT_INT, offsetof(block_options, width), NULL, 1, 1 << 20, NULL, ""},
                                        {"causal", WF_OPT_BOOL, offsetof(block_options, causal), NULL, 0, 0, NULL, ""},
                                        WF_OPT_END};

static wf_status block_setup(wf_module *m) {
    const block_options *o = m->opt;
    m->in = m->out = o->width;
    m->model->causal = o->causal;
    WF_TRY(wf_stack_prepare(m, &o->stack, WF_INIT_NORMAL));
    return wf_stack_child(m, &o->stack, o->width) ? WF_OK : WF_EINVAL;
}

static wf_node *block_forward(wf_build *b, wf_module *m, wf_node *x) {
    return wf_apply_child(b, m, "blocks", x);
}

static const wf_part block_part = {.slot = "model",
                                   .name = "block",
                                   .options = block_table,
                                   .opt_size = sizeof(block_options),
                                   .causal_ok = true,
                                   .bidirectional_ok = true,
                                   .setup = block_setup,
                                   .forward = block_forward};

static const wf_name_rule block_rules[] = {BOTH("attn.qkv", "blocks.0.mixer.q"),       BOTH("attn.qkv", "blocks.0.mixer.k"),
                                           BOTH("attn.qkv", "blocks.0.mixer.v"),       BOTH("attn.proj", "blocks.0.mixer.o"),
                                           NORMS("attn.", "blocks.0.mixer."),          BOTH("norm1", "blocks.0.mixer_in_norm"),
                                           BOTH("norm2", "blocks.0.channel_in_norm"),  BOTH("post1", "blocks.0.mixer_out_norm"),
                                           BOTH("post2", "blocks.0.channel_out_norm"), {"ls1.gamma", "blocks.0.mixer_scale", 0},
                                           {"ls2.gamma", "blocks.0.channel_scale", 0}, BOTH("mlp.fc1", "blocks.0.channel.up"),
                                           BOTH("mlp.fc2", "blocks.0.channel.down"),   {0}};
static const wf_name_map names_block = {"sigmoid block", "", block_rules, nothing};

static wf_status block_recipe(wf_case *c, const sigmoid *w, const char **out) {
    static const char *const acts[] = {"gelu exact", "gelu", "gelu", "gelu", "gelu_tanh", "gelu_tanh", "gelu tanh",
                                       "gelu_tanh",  "relu", "relu", "silu", "silu",      NULL};
    static const char *const kinds[] = {"layernorm", "layernorm", "LayerNorm", "layernorm", "rmsnorm",
                                        "rmsnorm",   "RMSNorm",   "rmsnorm",   NULL};
    const char *act, *norm;
    double eps;
    bool scaled, hybrid;
    int64_t F;
    WF_TRY(wf_case_choice(c, "mlp_act", acts, "gelu", &act));
    WF_TRY(wf_case_choice(c, "norm", kinds, wf_case_has(c, "param.norm1.bias") ? "layernorm" : "rmsnorm", &norm));
    WF_TRY(wf_case_real(c, "block_norm_eps", 1e-6, &eps));
    const wf_value *start = wf_case_key(c, "layer_scale"); /* true, or where gamma started */
    scaled = wf_case_has(c, "param.ls1.gamma");
    double gamma;
    bool said = scaled;
    if (start && wf_value_real(start, &gamma) != WF_OK) WF_TRY(wf_case_bool(c, "layer_scale", scaled, &said));
    if (said != scaled) return wf_case_fail(c, "config: 'layer_scale' and the tensor param.ls1.gamma do not agree");
    WF_TRY(wf_case_bool(c, wf_case_key(c, "hybrid") ? "hybrid" : "hybrid_norm", wf_case_has(c, "param.post1.weight"), &hybrid));
    F = dim_of(c, "param.mlp.fc1.weight", 0);
    WF_TRY(wf_case_same(c, "mlp_hidden", F));
    bool layernorm = !strcmp(norm, "layernorm");
    *out = wf_arena_format(
        c->arena,
        "{name: block, layers: 1, width: %lld, causal: %s, bias: false, layer_scale: %d, placement: %s, mixer: %s, "
        "channel: {name: mlp, hidden: %lld, act: %s, bias: %s}, norm: {name: %s, eps: %.17g%s}}",
        (long long)w->D, yes(w->causal), scaled, hybrid ? "hybrid" : "pre", sigmoid_recipe(c, w), (long long)F, act,
        yes(wf_case_has(c, "param.mlp.fc1.bias")), norm, eps,
        layernorm && !wf_case_has(c, "param.norm1.bias") ? ", bias: false" : "");
    return *out ? WF_OK : WF_ENOMEM;
}

static wf_status sigmoid_block(wf_case *c) {
    sigmoid w = {0};
    const char *recipe = NULL;
    WF_TRY(read_sigmoid(c, "param.attn.", &w));
    const wf_st_entry *x = wf_case_entry(c, "in.x");
    if (!x) return WF_EFORMAT;
    if (x->shape.rank != 3 || w.cross) return wf_case_fail(c, "in.x must be [B,L,D], and the attention no cross attention");
    w.L = x->shape.dim[1];
    w.D = x->shape.dim[2];
    WF_TRY(block_recipe(c, &w, &recipe));
    wf_model *m = wf_model_alloc();
    if (!m) return WF_ENOMEM;
    m->recipe = wf_yaml_parse(recipe, strlen(recipe), NULL);
    m->max_length = w.L;
    if (!m->recipe || !wf_model_root(m, &block_part, m->recipe)) {
        wf_model_free(m);
        return WF_EINVAL;
    }
    WF_TRY(wf_case_adopt(c, m, &names_block));
    WF_TRY(prepare_sigmoid(c, &w));
    wf_case_out(c, "y", wf_apply(&c->build, m->root, wf_case_in(c, "x")));
    wf_case_out(c, "attn", wf_case_tapped(c, "weights", 0));
    return wf_case_solve(c);
}

/* ---- 43: complex attention ---- */

typedef struct complex {
    int64_t H, K, prefill, decode;
    wf_model *model;
} complex;

static const wf_name_rule complex_rules[] = {BOTH("W_q", "q"),
                                             BOTH("W_k", "k"),
                                             BOTH("W_v", "v"),
                                             BOTH("W_o", "o"),
                                             {"delta_params", "delta", 0},
                                             {"bias_params", "bias", 0},
                                             {0}};
static const wf_name_map names_complex = {"complex attention", "", complex_rules, nothing};

/* "10000^(-2i/d)" */
static wf_status read_base(wf_case *c, double *base) {
    const char *text;
    char *end;
    *base = 10000;
    WF_TRY(wf_case_text(c, "freq", NULL, &text));
    if (!text) return WF_OK;
    *base = strtod(text, &end);
    if (end == text || *base < 1 || strcmp(end, "^(-2i/d)"))
        return wf_case_fail(c, "config: 'freq' must be like 10000^(-2i/d), not %s", text);
    return WF_OK;
}

/* Rows from..from+T of x [B,L,w] (a file's in.x) as a leaf. */
static wf_node *some_rows(wf_case *c, const wf_tensor *x, int64_t from, int64_t T) {
    int64_t B = x->shape.dim[0], L = x->shape.dim[1], D = x->shape.dim[2];
    wf_tensor *t = wf_tensor_new(x->dtype, WF_SHAPE(B, T, D));
    for (int64_t i = 0; t && i < B * T * D; i++)
        wf_tensor_set(t, i, wf_tensor_get(x, (i / (T * D) * L + from) * D + i % (T * D)));
    return wf_case_constant(c, "rows", t);
}

/* Put a node's [B,T,K,d] at positions from.. of to [B,K,L,d], or [B,T,D] of to [B,L,D]. */
static void place(const wf_node *n, const void *data, wf_tensor *to, int64_t from) {
    wf_tensor part = {n->dtype, n->shape, (void *)(uintptr_t)data, 0};
    const int64_t *s = n->shape.dim;
    int64_t K = n->shape.rank == 4 ? s[2] : 1, d = n->shape.dim[n->shape.rank - 1], T = s[1],
            L = wf_tensor_count(to) / (s[0] * K * d);
    for (int64_t i = 0; i < s[0] * T * K * d; i++) {
        int64_t b = i / (T * K * d), t = i / (K * d) % T, k = i / d % K;
        wf_tensor_set(to, ((b * K + k) * L + from + t) * d + i % d, wf_tensor_get(&part, i));
    }
}

typedef struct stepping {
    wf_states *states;
    wf_tensor *pos, *x, *y, *k, *v;
} stepping;

static wf_status one_step(wf_case *c, const complex *w, stepping *s, int64_t from, int64_t T) {
    WF_TRY(wf_case_begin(c, ""));
    wf_build *b = &c->build;
    wf_tensor_set(s->pos, 0, (double)from);
    b->step = b->causal = true;
    b->states = s->states;
    b->max_length = s->x->shape.dim[1];
    b->pos = wf_leaf(c->graph, s->pos, "pos");
    wf_node *y = wf_apply(b, w->model->root, some_rows(c, s->x, from, T));
    wf_node *out[] = {y, wf_case_tapped(c, "k", 0), wf_case_tapped(c, "v", 0)};
    if (!y) return wf_fail(wf_graph_status(c->graph), "%s", wf_graph_message(c->graph));
    wf_plan *p = wf_plan_new(c->graph, out, 3, b->update, b->n_update, NULL);
    wf_status st = p ? wf_plan_run(p) : WF_EINVAL;
    wf_tensor *to[] = {s->y, s->k, s->v};
    for (int i = 0; i < 3 && st == WF_OK; i++) place(out[i], wf_plan_out(p, i), to[i], from);
    wf_plan_free(p);
    return st;
}

/* The first `prefill` positions at once, the others one by one; the keys and values that went into the cache, before the map. */
static wf_status step_through(wf_case *c, const complex *w, stepping *s) {
    int64_t L = s->x->shape.dim[1];
    if (w->prefill > 0) WF_TRY(one_step(c, w, s, 0, w->prefill));
    for (int64_t at = w->prefill; at < L; at++) WF_TRY(one_step(c, w, s, at, 1));
    WF_TRY(wf_case_begin(c, ""));
    WF_TRY(wf_case_compare(c, "y", s->y));
    WF_TRY(wf_case_compare(c, "cache_k", s->k));
    return wf_case_compare(c, "cache_v", s->v);
}

static wf_status complex_cached(wf_case *c, const complex *w) {
    stepping s = {.x = wf_case_read(c, "in.x", c->f64 ? WF_F64 : WF_F32)};
    if (!s.x) return WF_EFORMAT;
    int64_t B = s.x->shape.dim[0], L = s.x->shape.dim[1], rows = dim_of(c, "param.W_k.weight", 0);
    s.states = wf_states_new();
    s.pos = wf_tensor_new(WF_I32, WF_SHAPE(1));
    s.y = wf_tensor_new(s.x->dtype, WF_SHAPE(B, L, dim_of(c, "param.W_o.weight", 0)));
    s.k = wf_tensor_new(s.x->dtype, WF_SHAPE(B, w->K, L, rows / w->K));
    s.v = wf_tensor_new(s.x->dtype, WF_SHAPE(B, w->K, L, rows / w->K));
    wf_status st = s.states && s.pos && s.y && s.k && s.v ? WF_OK : WF_ENOMEM;
    if (st == WF_OK && (w->prefill > L || (w->decode && w->prefill + w->decode != L)))
        st = wf_case_fail(c, "config: 'prefill' and 'decode' do not make the %lld positions of in.x", (long long)L);
    if (st == WF_OK) st = step_through(c, w, &s);
    if (s.states) wf_states_free(s.states);
    wf_tensor *all[] = {s.x, s.pos, s.y, s.k, s.v};
    for (int i = 0; i < 5; i++) wf_tensor_free(all[i]);
    return st;
}

static wf_status complex_attention(wf_case *c) {
    static const char *const halves[] = {"first half real, second half imaginary", "halves", "halves", "halves", NULL};
    complex w = {0};
    double eps, base, scale;
    bool causal;
    const char *split;
    const wf_st_entry *x = wf_case_entry(c, "in.x");
    if (!x) return WF_EFORMAT;
    if (x->shape.rank != 3) return wf_case_fail(c, "in.x must be [B,L,D]");
    WF_TRY(wf_case_int(c, "heads", 0, &w.H));
    int64_t rows = dim_of(c, "param.W_q.weight", 0), D = x->shape.dim[2];
    if (w.H < 1 || rows < w.H || rows % w.H)
        return wf_case_fail(c, "config: 'heads' must divide the %lld rows of W_q", (long long)rows);
    WF_TRY(wf_case_int(c, "kv_heads", dim_of(c, "param.W_k.weight", 0) / (rows / w.H), &w.K));
    if (w.K < 1 || w.H % w.K) return wf_case_fail(c, "config: 'kv_heads' must divide 'heads'");
    WF_TRY(wf_case_bool(c, "causal", false, &causal));
    WF_TRY(wf_case_real(c, "eps", 1e-9, &eps));
    WF_TRY(read_base(c, &base));
    const wf_value *unscaled = wf_case_key(c, "scale");
    if (!unscaled || (unscaled->kind == WF_V_TEXT && !strcmp(unscaled->text, "none")))
        scale = 1;
    else
        WF_TRY(read_scale(c, &scale));
    if (scale != 0 && scale != 1) return wf_case_fail(c, "config: 'scale' is none or 1/sqrt(d)");
    WF_TRY(wf_case_choice(c, "split", halves, "halves", &split));
    WF_TRY(wf_case_int(c, "prefill", 0, &w.prefill));
    WF_TRY(wf_case_int(c, "decode", 0, &w.decode));
    char *spec =
        wf_arena_format(c->arena,
                        "{name: complex, heads: %lld, kv_heads: %lld, head_dim: %lld, qkv_bias: %s, out_bias: %s, eps: %.17g, "
                        "base: %.17g, scale: %s, position: none}",
                        (long long)w.H, (long long)w.K, (long long)(rows / w.H), yes(wf_case_has(c, "param.W_q.bias")),
                        yes(wf_case_has(c, "param.W_o.bias")), eps, base, yes(scale == 0));
    w.model = wf_case_part(c, "mixer", spec, D, dim_of(c, "param.W_o.weight", 0), causal, x->shape.dim[1], &names_complex);
    if (!w.model) return WF_EINVAL;
    bool cached = wf_case_key(c, "prefill") || wf_case_has(c, "out.cache_k");
    if (cached && !causal) return wf_case_fail(c, "config: 'causal' must be true: positions are put in one after another");
    if (cached) WF_TRY(complex_cached(c, &w));
    if (cached && !wf_case_has(c, "cot.y")) return WF_OK;
    c->build.causal = causal;
    c->build.plain = wf_case_has(c, "out.attn");
    c->build.lengths = wf_case_in_or_null(c, "lengths");
    wf_case_out(c, "y", wf_apply(&c->build, w.model->root, wf_case_in(c, "x")));
    wf_case_out(c, "attn", wf_case_tapped(c, "weights", 0));
    return wf_case_solve(c);
}

/* clang-format off */
const wf_adapter wf_adapters_softmax_family[] = {
    {"mixer.sigmoid-attention", sigmoid_attention, "B L D"},
    {"block.sigmoid-attention", sigmoid_block, "B L D"},
    {"mixer.complex-attention", complex_attention, "B L D"},
    {0},
};
/* clang-format on */
