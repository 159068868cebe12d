/* model.c: a model's own life: making it from a recipe, first numbers of its parameters, constant tables, freeing. */
#include "part/part.h"

#include <math.h>
#include <string.h>

wf_model *wf_model_alloc(void) {
    wf_model *m = wf_alloc(sizeof *m);
    if (!m) return NULL;
    m->arena = wf_arena_new();
    m->defaults = wf_value_map();
    m->made = wf_value_map();
    if (!m->arena || !m->defaults || !m->made) {
        wf_model_free(m);
        return NULL;
    }
    return m;
}

void wf_model_free(wf_model *m) {
    if (!m) return;
    for (int i = 0; i < m->n_param; i++) {
        wf_tensor *v = m->param[i]->value;
        if (m->slab && v) v->data = NULL; /* the slab's */
        wf_tensor_free(v);
    }
    if (m->slab) wf_unmap_pages(m->slab, m->slab_bytes);
    for (int i = 0; i < m->n_constant; i++) wf_tensor_free(m->constant[i].value);
    wf_free(m->param);
    wf_free(m->constant);
    wf_value_free(m->recipe);
    wf_value_free(m->defaults);
    wf_value_free(m->made);
    if (m->arena) wf_arena_free(m->arena);
    wf_free(m);
}

/* Move all parameters side by side onto huge pages, in order of declaration, which is about the order of use: decoding reads
 * every weight once a token, and many small blocks on small pages keep that from reaching the memory's speed. */
static wf_status pack(wf_model *m) {
    size_t bytes = 0;
    for (int i = 0; i < m->n_param; i++) bytes += (m->param[i]->value->bytes + 63) & ~(size_t)63;
    if (bytes < (size_t)1 << 20) return WF_OK;
    if (!(m->slab = wf_map_pages(bytes))) return WF_ENOMEM;
    m->slab_bytes = bytes;
    char *at = m->slab;
    for (int i = 0; i < m->n_param; i++) {
        wf_tensor *v = m->param[i]->value;
        memcpy(at, v->data, v->bytes);
        wf_free(v->data);
        v->data = at;
        at += (v->bytes + 63) & ~(size_t)63;
    }
    return WF_OK;
}

wf_model *wf_model_build(const wf_value *recipe, size_t limit) {
    if (!recipe || recipe->kind != WF_V_MAP) {
        wf_fail(WF_EINVAL, "a model's recipe is a map like  model: {name: lm, width: 128, layers: 4, vocab: 256, length: 256}");
        return NULL;
    }
    wf_model *m = wf_model_alloc();
    if (!m) return NULL;
    m->limit = limit;
    m->recipe = wf_value_copy(recipe);
    const wf_value *spec = m->recipe ? wf_value_get(m->recipe, "model") : NULL;
    if (!spec || spec->kind != WF_V_MAP) spec = m->recipe;
    const wf_value *name = spec ? wf_value_get(spec, "name") : NULL;
    const wf_part *part = NULL;
    if (!name || name->kind != WF_V_TEXT) {
        wf_fail(WF_EINVAL, "the recipe's model has no name; say for example  model: {name: lm, ...}");
    } else if (!(part = wf_part_find("model", name->text)) && name->file) {
        wf_value_fail(name, WF_ENOTFOUND, "%s", wf_message());
    }
    if (!part || !wf_model_root(m, part, spec) || pack(m) != WF_OK) {
        wf_model_free(m);
        return NULL;
    }
    return m;
}

wf_model *wf_model_new(const wf_value *recipe, uint64_t seed) {
    wf_model *m = wf_model_build(recipe, 0);
    if (m && wf_model_init(m, seed) != WF_OK) {
        wf_model_free(m);
        return NULL;
    }
    return m;
}

int64_t wf_model_count(const wf_model *m) {
    int64_t n = 0;
    for (int i = 0; i < m->n_param; i++)
        if (!(m->param[i]->flags & (WF_PARAM_BUFFER | WF_PARAM_FROZEN))) n += wf_tensor_count(m->param[i]->value);
    return n;
}

wf_param *wf_model_param(const wf_model *m, const char *name) {
    for (int i = 0; i < m->n_param; i++)
        if (!strcmp(m->param[i]->name, name)) return m->param[i];
    wf_fail(WF_ENOTFOUND, "the model has no parameter '%s'", name);
    return NULL;
}

/* ---- first numbers ---- */

static double draw(const wf_init *init, wf_rng *r) {
    switch (init->kind) {
    case WF_INIT_ZERO: return 0;
    case WF_INIT_ONE: return 1;
    case WF_INIT_CONST: return init->a;
    case WF_INIT_NORMAL: return init->a * wf_rng_normal(r);
    case WF_INIT_UNIFORM: return init->a * (2 * wf_rng_uniform(r) - 1);
    case WF_INIT_TRUNC_NORMAL: {
        double z = wf_rng_normal(r);
        while (fabs(z) > 2) z = wf_rng_normal(r);
        return init->a * z;
    }
    default: return 0; /* those that need more than one entry to be known */
    }
}

static void init_whole(float *x, int64_t n, const wf_init *init, wf_rng *r) {
    double square = 0;
    for (int64_t i = 0; i < n; i++) {
        double v = init->kind == WF_INIT_GEOMETRIC ? pow(init->a, -(double)i / (double)n) : wf_rng_normal(r);
        square += v * v;
        x[i] = (float)v;
    }
    for (int64_t i = 0; init->kind == WF_INIT_DIRECTION && i < n; i++) x[i] = (float)(init->a * (double)x[i] / sqrt(square));
}

static void init_param(wf_param *p, uint64_t seed) {
    wf_rng r = {seed, wf_hash(p->name, strlen(p->name), 0), 0};
    int64_t n = wf_tensor_count(p->value);
    if (p->fill) {
        p->fill(p->value, &r, p->fill_ctx);
        return;
    }
    if (p->value->dtype != WF_F32) {
        for (int64_t i = 0; i < n; i++) wf_tensor_set(p->value, i, draw(&p->init, &r));
        return;
    }
    float *x = p->value->data;
    if (p->init.kind == WF_INIT_GEOMETRIC || p->init.kind == WF_INIT_DIRECTION) {
        init_whole(x, n, &p->init, &r);
        return;
    }
    for (int64_t i = 0; i < n; i++) x[i] = (float)draw(&p->init, &r);
}

static wf_status start_modules(wf_module *m) {
    if (m->part->start) WF_TRY(m->part->start(m));
    for (int i = 0; i < m->n_child; i++) WF_TRY(start_modules(m->child[i]));
    return WF_OK;
}

/* Every parameter has a stream of its own, by name: the numbers depend neither on the order nor on the number of threads. */
wf_status wf_model_init(wf_model *m, uint64_t seed) {
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < m->n_param; i++) init_param(m->param[i], seed);
    return m->root ? start_modules(m->root) : WF_OK;
}

void wf_model_reset_state(wf_model *m) {
    for (int i = 0; i < m->n_param; i++)
        if (m->param[i]->flags & WF_PARAM_BUFFER) init_param(m->param[i], 0);
}

/* ---- constants ---- */

wf_tensor *wf_model_constant(wf_model *m, const char *key, wf_dtype t, wf_shape s, void (*fill)(wf_tensor *t, const void *ctx),
                             const void *ctx) {
    for (int i = 0; i < m->n_constant; i++)
        if (!strcmp(m->constant[i].key, key)) return m->constant[i].value;
    if (m->n_constant == m->cap_constant) {
        int cap = m->cap_constant ? 2 * m->cap_constant : 8;
        void *grown = wf_grow(m->constant, sizeof *m->constant * (size_t)m->cap_constant, sizeof *m->constant * (size_t)cap);
        if (!grown) return NULL;
        m->constant = grown;
        m->cap_constant = cap;
    }
    const char *own = wf_arena_strdup(m->arena, key);
    wf_tensor *v = own ? wf_tensor_new(t, s) : NULL;
    if (!v) return NULL;
    fill(v, ctx);
    m->constant[m->n_constant].key = own;
    m->constant[m->n_constant++].value = v;
    return v;
}
