/* states.c: what a generation remembers between steps: KV caches, scan states, by module, name and application. */
#include "part/part.h"

#include <string.h>

typedef struct state {
    const wf_module *module;
    char *name;
    wf_tensor *value;
    uint64_t taken; /* serial of the build that last asked for it */
} state;

struct wf_states {
    int n, cap;
    state *item;
    uint64_t serial;
};

wf_states *wf_states_new(void) {
    return wf_alloc(sizeof(wf_states));
}

void wf_states_free(wf_states *s) {
    if (!s) return;
    for (int i = 0; i < s->n; i++) {
        wf_free(s->item[i].name);
        wf_tensor_free(s->item[i].value);
    }
    wf_free(s->item);
    wf_free(s);
}

void wf_states_reset(wf_states *s) {
    for (int i = 0; i < s->n; i++) memset(s->item[i].value->data, 0, s->item[i].value->bytes);
}

size_t wf_states_bytes(const wf_states *s) {
    size_t bytes = 0;
    for (int i = 0; i < s->n; i++) bytes += s->item[i].value->bytes;
    return bytes;
}

static state *new_state(wf_states *s, const wf_module *m, const char *name, wf_dtype t, wf_shape shape) {
    if (s->n == s->cap) {
        int cap = s->cap ? 2 * s->cap : 32;
        state *grown = wf_grow(s->item, sizeof(state) * (size_t)s->cap, sizeof(state) * (size_t)cap);
        if (!grown) return NULL;
        s->item = grown;
        s->cap = cap;
    }
    state *e = &s->item[s->n];
    *e = (state){m, wf_strdup(name), wf_tensor_new(t, shape), 0};
    if (!e->name || !e->value) {
        wf_free(e->name);
        wf_tensor_free(e->value);
        return NULL;
    }
    s->n++;
    return e;
}

wf_node *wf_state(wf_build *b, wf_module *m, const char *name, wf_dtype t, wf_shape shape) {
    wf_states *s = b->states;
    if (!s) return wf_graph_fail(b->g, WF_EINVAL, "%s: the step form needs wf_build.states", m->name);
    if (!b->serial) b->serial = ++s->serial;
    state *e = NULL;
    for (int i = 0; i < s->n && !e; i++)
        if (s->item[i].module == m && s->item[i].taken != b->serial && !strcmp(s->item[i].name, name)) e = &s->item[i];
    if (!e) e = new_state(s, m, name, t, shape);
    if (!e) return wf_graph_fail(b->g, WF_ENOMEM, "%s", wf_message());
    char was[96], now[96];
    if (e->value->dtype != t || !wf_shape_equal(&e->value->shape, &shape))
        return wf_graph_fail(b->g, WF_EINVAL,
                             "%s: state '%s' is %s, this build wants %s; make new states for another batch or length", m->name,
                             name, wf_shape_text(&e->value->shape, was), wf_shape_text(&shape, now));
    e->taken = b->serial;
    return wf_leaf(b->g, e->value, name);
}
