/* parts_help.h: models from one line of YAML, inputs of random numbers, forward and step runs. Header-only, for tests. */
#ifndef PARTS_HELP_H
#define PARTS_HELP_H

#include "check.h"
#include "runnode.h"

#include "part/part.h"

static inline wf_value *yaml(const char *text) {
    wf_value *v = wf_yaml_parse(text, strlen(text), "test.yaml");
    if (!v) fail_msg("%s: %s", text, wf_message());
    return v;
}

static inline wf_model *model_of(const char *text, uint64_t seed) {
    wf_value *v = yaml(text);
    wf_model *m = wf_model_new(v, seed);
    wf_value_free(v);
    if (!m) fail_msg("%s: %s", text, wf_message());
    return m;
}

static inline wf_model *part_of(const char *slot, const char *text, int64_t width, bool causal, int64_t length) {
    wf_value *v = yaml(text);
    wf_model *m = wf_model_of_part(slot, v, width, width, causal, length, 1);
    wf_value_free(v);
    if (!m) fail_msg("%s %s: %s", slot, text, wf_message());
    return m;
}

/* The recipe must be refused with a message that has `part`. */
static inline void refused(const char *text, const char *part) {
    wf_value *v = yaml(text);
    wf_model *m = wf_model_new(v, 0);
    if (m) fail_msg("'%s' was accepted", text);
    if (!strstr(wf_message(), part)) fail_msg("'%s': message '%s' lacks '%s'", text, wf_message(), part);
    wf_value_free(v);
}

/* Move every parameter away from its first value, so that gains, biases and scales are tested too. */
static inline void stir(wf_model *m, double size) {
    wf_rng r = {99, 0, 0};
    for (int i = 0; i < m->n_param; i++)
        for (int64_t j = 0; m->param[i]->value->dtype == WF_F32 && j < wf_tensor_count(m->param[i]->value); j++)
            wf_tensor_set(m->param[i]->value, j, wf_tensor_get(m->param[i]->value, j) + size * wf_rng_normal(&r));
}

typedef struct run_spec {
    bool train, causal;
    wf_dtype compute;
    wf_tensor *lengths, *seed;
} run_spec;

static inline wf_tensor *run_forward(wf_model *m, wf_tensor *x, const run_spec *o) {
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_build_start(&b, g);
    b.causal = m->causal;
    if (o) {
        b.train = o->train;
        b.compute = o->compute;
        if (o->lengths) b.lengths = wf_leaf(g, o->lengths, "lengths");
        if (o->seed) b.seed = wf_leaf(g, o->seed, "seed");
    }
    wf_node *y = wf_apply(&b, m->root, wf_leaf(g, x, "x"));
    wf_tensor *t = NULL;
    if (y) {
        wf_plan *p = wf_plan_new(g, &y, 1, b.update, b.n_update, NULL);
        if (!p || wf_plan_run(p) != WF_OK) fail_msg("running: %s", wf_message());
        t = wf_tensor_new(y->dtype, y->shape);
        memcpy(t->data, wf_plan_out(p, 0), t->bytes);
        wf_plan_free(p);
    } else {
        wf_fail(wf_graph_status(g), "%s", wf_graph_message(g));
    }
    wf_build_end(&b);
    wf_graph_free(g);
    return t;
}

/* Feed x [B,L,..] in chunks of the given lengths (ending in 0) through the step form; the outputs side by side: as forward. */
static inline wf_tensor *run_steps(wf_model *m, const wf_tensor *x, const int *chunk, int64_t room) {
    int64_t B = x->shape.dim[0], L = x->shape.dim[1], w = wf_tensor_count(x) / (B * L), at = 0, v = 0;
    wf_states *states = wf_states_new();
    wf_tensor *all = NULL, *pos = wf_tensor_new(WF_I32, WF_SHAPE(1));
    for (; *chunk; chunk++) {
        int64_t T = *chunk;
        wf_shape s = x->shape;
        s.dim[1] = T;
        wf_tensor *part = wf_tensor_new(x->dtype, s);
        for (int64_t i = 0; i < B * T * w; i++)
            wf_tensor_set(part, i, wf_tensor_get(x, (i / (T * w) * L + at) * w + i % (T * w)));
        wf_tensor_set(pos, 0, (double)at);
        wf_graph *g = wf_graph_open();
        wf_build b;
        wf_build_start(&b, g);
        b.step = b.causal = true;
        b.states = states;
        b.max_length = room;
        b.pos = wf_leaf(g, pos, "pos");
        wf_node *y = wf_apply(&b, m->root, wf_leaf(g, part, "x"));
        wf_plan *p = y ? wf_plan_new(g, &y, 1, b.update, b.n_update, NULL) : NULL;
        if (!p || wf_plan_run(p) != WF_OK) fail_msg("stepping: %s", wf_message());
        if (!all) {
            s = y->shape;
            s.dim[1] = L;
            all = wf_tensor_new(y->dtype, s);
            v = wf_tensor_count(all) / (B * L);
        }
        wf_tensor out = {y->dtype, y->shape, (void *)(uintptr_t)wf_plan_out(p, 0), 0};
        for (int64_t i = 0; i < B * T * v; i++)
            wf_tensor_set(all, (i / (T * v) * L + at) * v + i % (T * v), wf_tensor_get(&out, i));
        at += T;
        wf_plan_free(p);
        wf_build_end(&b);
        wf_graph_free(g);
        wf_tensor_free(part);
    }
    assert_int_equal(at, L);
    wf_tensor_free(pos);
    wf_states_free(states);
    return all;
}

static inline void assert_close(const wf_tensor *a, const wf_tensor *b, double bound, const char *what) {
    if (!a || !b) fail_msg("%s: %s", what, wf_message());
    double e = rn_error(a, b);
    if (!(e <= bound)) fail_msg("%s: differ by %g (bound %g)", what, e, bound);
}

#endif
