/* norms.c: cases of the baseline norms. */
#include "check/case.h"

#include <string.h>

/* ---- norm.token-norms: many norms of one input, with one weight, bias and alpha for all ---- */

typedef struct one_norm {
    const char *out, *eps_key, *spec; /* spec: YAML without its end */
    bool groups, shift;
} one_norm;

/* clang-format off */
static const one_norm norms[] = {
    {"layernorm", "layernorm", "{name: layernorm", false, false},
    {"layernorm_noaffine", "layernorm_noaffine", "{name: layernorm, affine: false", false, false},
    {"rmsnorm", "rmsnorm", "{name: rmsnorm", false, false},
    {"rmsnorm_1pw", "rmsnorm", "{name: rmsnorm, one_plus_w: true", false, false},
    {"groupnorm_per_token", "groupnorm", "{name: groupnorm, over: token", true, false},
    {"groupnorm_per_sample", "groupnorm", "{name: groupnorm, over: sample", true, false},
    {"instancenorm", "instancenorm", "{name: groupnorm, groups: 0, over: sample", false, false},
    {"l2norm", "l2norm", "{name: l2norm", false, false},
    {"dyt", NULL, "{name: dyt", false, false},
    {"derf", NULL, "{name: dyt, function: erf", false, true},
};
/* clang-format on */
enum { N_NORMS = sizeof norms / sizeof *norms };

static const wf_name_rule affine_rules[] = {{"weight", "weight", 0}, {"bias", "bias", 0}, {"alpha", "alpha", 0}, {0}};
static const char *const affine_ignore[] = {"weight", "bias", "alpha", NULL};
static const wf_name_map names_affine = {"norms", "", affine_rules, affine_ignore};

/* Text of the eps of one norm, "" when its own default holds. */
static wf_status eps_of(wf_case *c, const one_norm *n, const char **text) {
    const wf_value *map = wf_case_key(c, "eps"), *v = map;
    double x;
    *text = "";
    if (!map || !n->eps_key) return WF_OK;
    if (map->kind == WF_V_MAP) v = wf_value_get(map, n->eps_key);
    if (!v || v->kind != WF_V_TEXT) return WF_OK;
    if (!strcmp(v->text, "max(norm,1e-12)")) return *text = "1e-12", WF_OK;
    if (wf_value_real(v, &x) != WF_OK) return wf_case_fail(c, "config: eps of %s must be a number, not %s", n->out, v->text);
    return *text = v->text, WF_OK;
}

/* "eps" is one number, or a map by norm. */
static wf_status known_eps(wf_case *c) {
    const wf_value *map = wf_case_key(c, "eps");
    if (!map || map->kind == WF_V_TEXT) return WF_OK;
    if (map->kind != WF_V_MAP) return wf_case_fail(c, "config: 'eps' must be a number or a map of numbers by norm");
    for (int k = 0; k < map->n; k++) {
        bool known = false;
        for (int i = 0; i < N_NORMS; i++) known |= norms[i].eps_key && !strcmp(norms[i].eps_key, map->key[k]);
        if (!known) return wf_case_fail(c, "config: 'eps' has no norm '%s'", map->key[k]);
    }
    return WF_OK;
}

static wf_module *one_child(wf_case *c, wf_module *top, const one_norm *n, int64_t D, int64_t groups, double shift) {
    const char *eps;
    if (eps_of(c, n, &eps) != WF_OK) return NULL;
    wf_text t = {0};
    wf_text_add(&t, "%s", n->spec);
    if (n->groups) wf_text_add(&t, ", groups: %lld", (long long)groups);
    if (n->shift) wf_text_add(&t, ", shift: %.17g", shift);
    if (*eps) wf_text_add(&t, ", eps: %s", eps);
    wf_module *m = t.s ? wf_child_text(top, n->out, "norm", D, D, "%s}", t.s) : NULL;
    wf_text_free(&t);
    return m;
}

/* The first norm that has a parameter lends it to the others, under its short name. */
static wf_status share_all(wf_module *m, wf_param *shared[3]) {
    static const char *const name[3] = {"weight", "bias", "alpha"};
    for (int i = 0; i < m->n_param; i++)
        for (int k = 0; k < 3; k++) {
            if (strcmp(m->param_name[i], name[k])) continue;
            if (shared[k])
                WF_TRY(wf_share(m, name[k], shared[k]));
            else
                shared[k] = m->param[i], shared[k]->name = name[k];
        }
    return WF_OK;
}

/* What no norm of this case uses has a gradient all the same: zero. */
static void unused_params(wf_case *c, wf_param *const shared[3]) {
    static const char *const name[3] = {"weight", "bias", "alpha"};
    for (int k = 0; k < 3; k++)
        if (!shared[k]) wf_case_param_or_null(c, name[k]);
}

static wf_status make_norms(wf_case *c, wf_module *top, wf_module **child, int64_t D, int64_t groups, double shift) {
    wf_param *shared[3] = {NULL};
    for (int i = 0; i < N_NORMS; i++) {
        char *out = wf_arena_format(c->arena, "out.%s", norms[i].out);
        if (!out) return WF_ENOMEM;
        if (!wf_case_has(c, out)) continue;
        if (!(child[i] = one_child(c, top, &norms[i], D, groups, shift))) return WF_EINVAL;
        WF_TRY(share_all(child[i], shared));
    }
    unused_params(c, shared);
    return WF_OK;
}

static wf_status token_norms(wf_case *c) {
    static const wf_part together = {.slot = "norm", .name = "together"};
    const wf_st_entry *x = wf_case_entry(c, "in.x");
    int64_t groups;
    double shift;
    if (!x) return WF_EFORMAT;
    if (x->shape.rank != 3) return wf_case_fail(c, "in.x must be [B,L,D]");
    int64_t D = x->shape.dim[2];
    WF_TRY(wf_case_same(c, "B", x->shape.dim[0]));
    WF_TRY(wf_case_same(c, "L", x->shape.dim[1]));
    WF_TRY(wf_case_same(c, "D", D));
    WF_TRY(known_eps(c));
    WF_TRY(wf_case_int(c, "groups", 1, &groups));
    WF_TRY(wf_case_real(c, "derf_shift", 0, &shift));
    if (groups < 1 || D % groups)
        return wf_case_fail(c, "config: 'groups' %lld must divide the width %lld", (long long)groups, (long long)D);
    wf_model *m = wf_model_alloc();
    wf_module *top = m ? wf_model_root(m, &together, NULL) : NULL, *child[N_NORMS] = {NULL};
    if (!top || make_norms(c, top, child, D, groups, shift) != WF_OK) {
        wf_model_free(m);
        return WF_EINVAL;
    }
    WF_TRY(wf_case_adopt(c, m, &names_affine));
    for (int i = 0; i < N_NORMS; i++)
        if (child[i]) wf_case_out(c, norms[i].out, wf_apply(&c->build, child[i], wf_case_in(c, "x")));
    return wf_case_solve(c);
}

/* ---- norm.batchnorm-tokens: steps of training, then evaluation ---- */

static const wf_name_rule batch_rules[] = {{"weight", "weight", 0}, {"bias", "bias", 0}, {0}};
static const char *const nothing[] = {NULL};
static const wf_name_map names_batch = {"batchnorm", "", batch_rules, nothing};

static const char *const buffers[] = {"running_mean", "running_var"};

static wf_status load_buffers(wf_case *c, wf_model *m) {
    for (int i = 0; i < 2; i++) {
        char *name = wf_arena_format(c->arena, "in.buf.%s", buffers[i]);
        wf_param *p = wf_model_param(m, buffers[i]);
        wf_tensor *t = name && p ? wf_case_read(c, name, WF_F32) : NULL;
        if (!t) return WF_EFORMAT;
        bool fits = wf_shape_equal(&t->shape, &p->value->shape);
        wf_status s = fits ? WF_OK : wf_case_fail(c, "'%s' has not one number a channel", name);
        if (s == WF_OK) memcpy(p->value->data, t->data, t->bytes);
        wf_tensor_free(t);
        WF_TRY(s);
    }
    return WF_OK;
}

static wf_status batch_step(wf_case *c, wf_model *m, const char *step, bool train, bool masked) {
    WF_TRY(wf_case_begin(c, step));
    c->build.train = train;
    if (masked) c->build.keep = wf_case_in(c, "keep_mask");
    wf_case_out(c, "y", wf_apply(&c->build, m->root, wf_case_in(c, "x")));
    WF_TRY(wf_case_solve(c));
    for (int i = 0; train && i < 2; i++) {
        char *name = wf_arena_format(c->arena, "buf.%s", buffers[i]);
        if (!name) return WF_ENOMEM;
        WF_TRY(wf_case_compare(c, name, wf_model_param(m, buffers[i])->value));
    }
    return WF_OK;
}

static wf_status batchnorm_tokens(wf_case *c) {
    double momentum, eps;
    int64_t steps;
    bool masked;
    WF_TRY(wf_case_real(c, "momentum", 0.1, &momentum));
    WF_TRY(wf_case_real(c, "eps", 1e-5, &eps));
    WF_TRY(wf_case_int(c, "steps", 1, &steps));
    WF_TRY(wf_case_bool(c, "masked", false, &masked));
    const wf_st_entry *x = wf_case_entry(c, "in.x_0");
    if (!x) return WF_EFORMAT;
    if (x->shape.rank != 3) return wf_case_fail(c, "in.x_0 must be [B,L,D]");
    const wf_st_entry *keep = wf_case_has(c, "in.keep_mask") ? wf_case_entry(c, "in.keep_mask") : NULL;
    if (keep && !wf_shape_equal(&keep->shape, &WF_SHAPE(x->shape.dim[0], x->shape.dim[1])))
        return wf_case_fail(c, "in.keep_mask must be [B,L]");
    bool affine = wf_case_has(c, "param.weight");
    char *spec = wf_arena_format(c->arena, "{name: batchnorm, momentum: %.17g, eps: %.17g, affine: %s}", momentum, eps,
                                 affine ? "true" : "false");
    wf_model *m = wf_case_part(c, "norm", spec, x->shape.dim[2], x->shape.dim[2], false, x->shape.dim[1], &names_batch);
    if (!m) return WF_EINVAL;
    WF_TRY(load_buffers(c, m));
    for (int64_t k = 0; k < steps; k++) {
        char step[24];
        snprintf(step, sizeof step, "_%lld", (long long)k);
        WF_TRY(batch_step(c, m, step, true, masked));
    }
    return wf_case_has(c, "out.y_eval") ? batch_step(c, m, "_eval", false, false) : WF_OK;
}

/* clang-format off */
const wf_adapter wf_adapters_norm[] = {
    {"norm.token-norms", token_norms, ""},
    {"norm.batchnorm-tokens", batchnorm_tokens, "B L D"},
    {0},
};
/* clang-format on */
