/* module.c: the tree of modules: declaring parameters, adding children, finding them, sharing tensors. */
#include "part/override.h"

#include <math.h>
#include <string.h>

static char *path_of(wf_model *model, const char *parent, const char *name) {
    if (!parent || !parent[0]) return wf_arena_strdup(model->arena, name);
    return wf_arena_format(model->arena, "%s.%s", parent, name);
}

wf_status wf_module_fail(const wf_module *m, wf_status s, const char *fmt, ...) {
    char text[768];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    const wf_part *p = m->part;
    const char *sep = m->name[0] ? " at " : "";
    if (m->where && m->where->file) return wf_value_fail(m->where, s, "%s.%s%s%s: %s", p->slot, p->name, sep, m->name, text);
    return wf_fail(s, "%s.%s%s%s: %s", p->slot, p->name, sep, m->name, text);
}

/* Append to an array of pointers in the model's arena (old copies die with it; modules have few entries). */
static void *append(wf_arena *a, void *old, int n, const void *item) {
    if (n && (n & (n - 1))) {
        ((const void **)old)[n] = item;
        return old;
    }
    const void **grown = wf_arena_alloc(a, sizeof(void *) * (n ? 2 * (size_t)n : 1));
    if (!grown) return NULL;
    if (n) memcpy(grown, old, sizeof(void *) * (size_t)n);
    grown[n] = item;
    return grown;
}

static wf_status attach(wf_module *m, const char *local, wf_param *p) {
    wf_arena *a = m->model->arena;
    wf_param **params = append(a, m->param, m->n_param, p);
    const char **names = append(a, m->param_name, m->n_param, local);
    if (!params || !names) return WF_ENOMEM;
    m->param = params;
    m->param_name = names;
    m->n_param++;
    return WF_OK;
}

static wf_status list_param(wf_model *model, wf_param *p) {
    if (model->n_param == model->cap_param) {
        int cap = model->cap_param ? 2 * model->cap_param : 64;
        wf_param **grown = wf_grow(model->param, sizeof(void *) * (size_t)model->cap_param, sizeof(void *) * (size_t)cap);
        if (!grown) return WF_ENOMEM;
        model->param = grown;
        model->cap_param = cap;
    }
    model->param[model->n_param++] = p;
    return WF_OK;
}

static int local_index(const wf_module *m, const char *name) {
    for (int i = 0; i < m->n_param; i++)
        if (!strcmp(m->param_name[i], name)) return i;
    return -1;
}

static wf_param *declare(wf_module *m, const char *name, wf_dtype t, wf_shape s, wf_init init, uint32_t flags) {
    wf_model *model = m->model;
    for (int i = 0; i < s.rank; i++)
        if (s.dim[i] <= 0) {
            char buf[96];
            wf_module_fail(m, WF_EINVAL, "parameter '%s' would have shape %s; every axis must be at least 1", name,
                           wf_shape_text(&s, buf));
            return NULL;
        }
    size_t bytes = wf_dtype_size(t);
    for (int i = 0; i < s.rank; i++)
        if (__builtin_mul_overflow(bytes, (size_t)s.dim[i], &bytes)) bytes = SIZE_MAX / 2;
    if (model->limit && (bytes > model->limit || model->bytes > model->limit - bytes)) {
        wf_module_fail(m, WF_ENOMEM, "parameter '%s' would make the model larger than the %zu bytes that its file can fill",
                       name, model->limit);
        return NULL;
    }
    model->bytes += bytes;
    if (local_index(m, name) >= 0) {
        wf_module_fail(m, WF_EINVAL, "parameter '%s' declared twice", name);
        return NULL;
    }
    wf_param *p = wf_arena_alloc(model->arena, sizeof *p);
    char *local = wf_arena_strdup(model->arena, name);
    if (!p || !local) return NULL;
    p->name = path_of(model, m->name, name);
    p->init = init;
    p->flags = flags;
    p->uses = 1;
    if (!p->name || !(p->value = wf_tensor_new(t, s))) return NULL;
    if (list_param(model, p) != WF_OK) {
        wf_tensor_free(p->value);
        return NULL;
    }
    return attach(m, local, p) == WF_OK ? p : NULL;
}

wf_param *wf_declare(wf_module *m, const char *name, wf_shape s, wf_init init, uint32_t flags) {
    return declare(m, name, WF_F32, s, init, flags);
}

wf_param *wf_declare_buffer(wf_module *m, const char *name, wf_dtype t, wf_shape s, double value) {
    return declare(m, name, t, s, (wf_init){WF_INIT_CONST, value}, WF_PARAM_BUFFER | WF_PARAM_NO_DECAY);
}

static void unlist(wf_model *model, wf_param *p) {
    for (int i = 0; i < model->n_param; i++) {
        if (model->param[i] != p) continue;
        memmove(model->param + i, model->param + i + 1, sizeof(void *) * (size_t)(model->n_param - i - 1));
        model->n_param--;
        wf_tensor_free(p->value);
        p->value = NULL;
        return;
    }
}

wf_status wf_share(wf_module *m, const char *name, wf_param *p) {
    if (!p) return WF_EINVAL;
    int i = local_index(m, name);
    if (i >= 0 && m->param[i] == p) return WF_OK;
    if (i >= 0) {
        wf_param *old = m->param[i];
        char a[96], b[96];
        if (!wf_shape_equal(&old->value->shape, &p->value->shape))
            return wf_module_fail(m, WF_EINVAL, "'%s' %s cannot be the same tensor as '%s' %s", name,
                                  wf_shape_text(&old->value->shape, a), p->name, wf_shape_text(&p->value->shape, b));
        m->param[i] = p;
        if (--old->uses == 0) unlist(m->model, old);
    } else {
        char *local = wf_arena_strdup(m->model->arena, name);
        if (!local) return WF_ENOMEM;
        WF_TRY(attach(m, local, p));
    }
    p->uses++;
    return WF_OK;
}

/* ---- children ---- */

static wf_status read_options(wf_module *m, const wf_value *options) {
    const wf_part *part = m->part;
    static const char *const of_part[] = {"name", NULL}, *const of_model[] = {"name", "parts", NULL};
    const char *const *also = m->parent || strcmp(part->slot, "model") ? of_part : of_model;
    size_t size = part->opt_size ? part->opt_size : 1;
    char what[160];
    snprintf(what, sizeof what, "%s.%s", part->slot, part->name);
    void *opt = wf_arena_alloc(m->model->arena, size);
    if (!opt) return WF_ENOMEM;
    static const wf_option none[] = {WF_OPT_END};
    m->opt = opt;
    return wf_options_read(part->options ? part->options : none, options, what, also, opt, size);
}

static wf_module *make_child(wf_module *m, wf_model *model, const char *name, const wf_part *part, const wf_value *options,
                             int64_t in, int64_t out, const void *args) {
    wf_module *c = wf_arena_alloc(model->arena, sizeof *c);
    if (!c) return NULL;
    c->model = model;
    c->part = part;
    c->where = options ? options : m ? m->where : NULL;
    c->name = path_of(model, m ? m->name : "", name);
    c->in = in;
    c->out = out;
    c->parent = m;
    c->args = args;
    if (!c->name) return NULL;
    if (m) {
        wf_module **list = append(model->arena, m->child, m->n_child, c);
        if (!list) return NULL;
        m->child = list;
        m->n_child++;
    } else {
        model->root = c;
    }
    if (read_options(c, options && options->kind == WF_V_MAP ? options : NULL) != WF_OK) return NULL;
    if (part->setup && part->setup(c) != WF_OK) return NULL;
    return c;
}

wf_module *wf_child(wf_module *m, const char *name, const wf_part *part, const wf_value *options, int64_t in, int64_t out) {
    return part ? make_child(m, m->model, name, part, options, in, out, NULL) : NULL;
}

/* A mixer must be able to do what the model asks; say what can instead. */
static wf_status check_mixer(const wf_model *model, const wf_part *part, const wf_value *spec) {
    if (strcmp(part->slot, "mixer") || (model->causal ? part->causal_ok : part->bidirectional_ok)) return WF_OK;
    const char *why =
        model->causal ? "sees later positions, so it cannot be used in a causal model" : "only works from left to right";
    int n = 0;
    const wf_part *const *all = wf_part_all(&n);
    wf_text names = {0};
    for (int i = 0; i < n; i++)
        if (!strcmp(all[i]->slot, "mixer") && (model->causal ? all[i]->causal_ok : all[i]->bidirectional_ok))
            wf_text_add(&names, "%s%s", names.n ? ", " : "", all[i]->name);
    bool placed = spec && spec->file;
    wf_status s = wf_fail(WF_EINVAL, "mixer.%s %s; take mixer: softmax instead (all that work: %s)", part->name, why,
                          names.s ? names.s : "none");
    if (placed) s = wf_value_fail(spec, s, "%s", wf_message());
    wf_text_free(&names);
    return s;
}

/* The child that `spec` names, by now with what `parts` say of it. */
static wf_module *child_of(wf_module *m, const char *name, const char *slot, const char *default_name, const wf_value *spec,
                           int64_t in, int64_t out, const void *args) {
    wf_model *model = m->model;
    const char *want = default_name;
    if (spec && spec->kind == WF_V_TEXT) {
        want = spec->text;
    } else if (spec && spec->kind == WF_V_MAP) {
        const wf_value *n = wf_value_get(spec, "name");
        if (n && n->kind != WF_V_TEXT) {
            wf_value_fail(n, WF_EINVAL, "%s: a name is a word, like {name: %s}", slot, default_name);
            return NULL;
        }
        if (n) want = n->text;
    } else if (spec && spec->kind != WF_V_NULL) {
        wf_value_fail(spec, WF_EINVAL, "%s: a name or a map with a name, like {name: %s}", slot, default_name);
        return NULL;
    }
    const wf_part *part = wf_part_find(slot, want);
    if (!part) {
        if (spec) wf_value_fail(spec, WF_ENOTFOUND, "%s", wf_message());
        return NULL;
    }
    if (check_mixer(model, part, spec) != WF_OK) return NULL;
    return make_child(m, model, name, part, spec, in, out, args);
}

wf_module *wf_child_with(wf_module *m, const char *name, const char *slot, const char *default_name, const wf_value *spec,
                         int64_t in, int64_t out, const void *args) {
    wf_model *model = m->model;
    if (!spec && model->defaults) spec = wf_value_get(model->defaults, slot);
    if (model->parts) {
        char *path = path_of(model, m->name, name);
        if (!path || wf_override(model, path, default_name, &spec) != WF_OK) return NULL;
    }
    return child_of(m, name, slot, default_name, spec, in, out, args);
}

wf_module *wf_child_spec(wf_module *m, const char *name, const char *slot, const char *default_name, const wf_value *spec,
                         int64_t in, int64_t out) {
    return wf_child_with(m, name, slot, default_name, spec, in, out, NULL);
}

wf_module *wf_child_text(wf_module *m, const char *name, const char *slot, int64_t in, int64_t out, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    char *path = path_of(m->model, m->name, name);
    wf_value *spec = path && n > 0 && n < (int)sizeof text ? wf_yaml_parse(text, (size_t)n, NULL) : NULL;
    if (!spec || wf_value_set(m->model->made, path, spec) != WF_OK) return NULL;
    wf_module *c = wf_child_spec(m, name, slot, "none", spec, in, out);
    if (c) c->where = m->where;
    return c;
}

static wf_linear_args *linear_args(wf_module *m, bool bias, wf_linear_role role) {
    wf_linear_args *a = wf_arena_alloc(m->model->arena, sizeof *a);
    if (a) *a = (wf_linear_args){bias, role};
    return a;
}

wf_module *wf_child_linear(wf_module *m, const char *name, int64_t in, int64_t out, bool bias, wf_linear_role role) {
    wf_linear_args *a = linear_args(m, bias, role);
    return a ? wf_child_with(m, name, "linear", "dense", NULL, in, out, a) : NULL;
}

wf_module *wf_child_dense(wf_module *m, const char *name, int64_t in, int64_t out, bool bias, wf_linear_role role) {
    wf_linear_args *a = linear_args(m, bias, role);
    const wf_value *spec = NULL;
    char *path = path_of(m->model, m->name, name);
    if (!a || !path || wf_override(m->model, path, "dense", &spec) != WF_OK) return NULL;
    return child_of(m, name, "linear", "dense", spec, in, out, a);
}

bool wf_linear_bias(const wf_module *m, const char *choice) {
    const wf_linear_args *a = m->args;
    return choice && strcmp(choice, "model") ? !strcmp(choice, "true") : a ? a->bias : m->model->bias;
}

wf_init wf_linear_init(const wf_module *m) {
    const wf_model *model = m->model;
    const wf_linear_args *a = m->args;
    wf_init init = model->init.kind == WF_INIT_ZERO ? (wf_init){WF_INIT_NORMAL, 0.02} : model->init;
    if (a && a->role == WF_LINEAR_RESIDUAL && model->residual_std > 0) init.a = model->residual_std;
    if (a && a->role == WF_LINEAR_VALUE && model->value_std > 0) init.a = model->value_std;
    if (init.kind != WF_INIT_XAVIER && init.kind != WF_INIT_FAN_IN) return init;
    /* These take their size from the shape; what the model says of residual branches is a factor on it. */
    double part = model->init.a > 0 ? init.a / model->init.a : 1;
    double width = init.kind == WF_INIT_XAVIER ? sqrt(6.0 / (double)(m->in + m->out)) : 1 / sqrt((double)m->in);
    return (wf_init){WF_INIT_UNIFORM, width * part};
}

wf_init wf_linear_bias_init(const wf_module *m) {
    if (m->model->init.kind != WF_INIT_FAN_IN) return (wf_init){WF_INIT_ZERO, 0};
    return (wf_init){WF_INIT_UNIFORM, 1 / sqrt((double)m->in)};
}

wf_status wf_linear_declare(wf_module *m, const char *bias) {
    const wf_linear_args *a = m->args;
    uint32_t flags = a && a->role == WF_LINEAR_HEAD ? 0 : WF_PARAM_MATRIX;
    if (!wf_declare(m, "weight", WF_SHAPE(m->out, m->in), wf_linear_init(m), flags)) return WF_ENOMEM;
    if (wf_linear_bias(m, bias) && !wf_declare(m, "bias", WF_SHAPE(m->out), wf_linear_bias_init(m), WF_PARAM_NO_DECAY))
        return WF_ENOMEM;
    return WF_OK;
}

bool wf_bias_wanted(const wf_module *m, const char *choice) {
    return !choice || !strcmp(choice, "model") ? m->model->bias : !strcmp(choice, "true");
}

wf_module *wf_module_find(wf_module *m, const char *child) {
    if (!m) return NULL;
    size_t skip = m->name[0] ? strlen(m->name) + 1 : 0;
    for (int i = 0; i < m->n_child; i++)
        if (!strcmp(m->child[i]->name + skip, child)) return m->child[i];
    return NULL;
}

/* ---- a norm inside a sublayer, where the placement asks for one ---- */

wf_status wf_inner_norm_setup(wf_module *m, int64_t width) {
    const wf_sublayer_args *a = m->args;
    if (!a || !a->inner_norm) return WF_OK;
    return wf_child_spec(m, "inner_norm", "norm", "layernorm", a->inner_norm, width, width) ? WF_OK : WF_EINVAL;
}

wf_node *wf_inner_norm(wf_build *b, wf_module *m, wf_node *x) {
    wf_module *n = wf_module_find(m, "inner_norm");
    return n ? wf_apply(b, n, x) : x;
}

/* ---- the root ---- */

wf_model *wf_model_of_part(const char *slot, const wf_value *spec, int64_t in, int64_t out, bool causal, int64_t max_length,
                           uint64_t seed) {
    wf_model *model = wf_model_alloc();
    if (!model) return NULL;
    model->causal = causal;
    model->bias = true;
    model->max_length = max_length;
    model->layers = 1;
    if (spec) model->recipe = wf_value_copy(spec);
    const wf_value *name = spec && spec->kind == WF_V_MAP ? wf_value_get(model->recipe, "name") : model->recipe;
    const wf_part *part = name && name->kind == WF_V_TEXT ? wf_part_find(slot, name->text) : NULL;
    if (!name) wf_fail(WF_EINVAL, "a %s needs a name", slot);
    if (!part || check_mixer(model, part, name) != WF_OK || !make_child(NULL, model, "", part, model->recipe, in, out, NULL) ||
        wf_model_init(model, seed) != WF_OK) {
        wf_model_free(model);
        return NULL;
    }
    return model;
}

wf_module *wf_model_root(wf_model *model, const wf_part *part, const wf_value *options) {
    if (!strcmp(part->slot, "model") && wf_overrides_read(model, options) != WF_OK) return NULL;
    wf_module *root = make_child(NULL, model, "", part, options, 0, 0, NULL);
    return root && wf_overrides_check(model) == WF_OK ? root : NULL;
}
