/* look.c: what transforms ask of modules: options by name, listed children, who writes to the stream. */
#include "transform/edit.h"

#include <string.h>

static const void *option(const wf_module *m, const char *name, wf_opt_type type) {
    for (const wf_option *o = m->part->options; o && o->name; o++)
        if (o->type == type && !strcmp(o->name, name)) return (const char *)m->opt + o->offset;
    return NULL;
}

bool wf_module_int(const wf_module *m, const char *name, int64_t *out) {
    const int64_t *p = option(m, name, WF_OPT_INT);
    if (p) *out = *p;
    return p != NULL;
}

bool wf_module_real(const wf_module *m, const char *name, double *out) {
    const double *p = option(m, name, WF_OPT_REAL);
    if (p) *out = *p;
    return p != NULL;
}

bool wf_module_flag(const wf_module *m, const char *name, bool *out) {
    const bool *p = option(m, name, WF_OPT_BOOL);
    if (p) *out = *p;
    return p != NULL;
}

const char *wf_module_choice(const wf_module *m, const char *name) {
    const char *const *p = option(m, name, WF_OPT_CHOICE);
    return p ? *p : NULL;
}

bool wf_module_is(const wf_module *m, const char *slot, const char *name) {
    return m && !strcmp(m->part->slot, slot) && (!name || !strcmp(m->part->name, name));
}

const char *wf_module_local(const wf_module *m) {
    const char *dot = strrchr(m->name, '.');
    return dot ? dot + 1 : m->name;
}

const char *wf_module_readers(const wf_module *m) {
    return m->opaque ? NULL : m->part->readers;
}

const char *wf_module_writers(const wf_module *m) {
    return m->opaque ? NULL : m->part->writers;
}

/* The next word of a space-separated list, moved past; NULL at its end. */
static const char *next_word(const char **list, char *word, size_t size) {
    while (**list == ' ') ++*list;
    size_t n = strcspn(*list, " ");
    if (!n || n >= size) return NULL;
    memcpy(word, *list, n);
    word[n] = 0;
    *list += n;
    return word;
}

int wf_module_listed(const wf_module *m, const char *names, wf_module **out, int room) {
    char word[128];
    int n = 0;
    while (names && n < room && next_word(&names, word, sizeof word)) {
        wf_module *c = wf_module_find((wf_module *)(uintptr_t)m, word);
        if (c) out[n++] = c;
    }
    return n;
}

wf_status wf_modules_each(wf_edit *e, wf_module *m, wf_module_visit visit, void *ctx) {
    WF_TRY(visit(e, m, ctx));
    for (int i = 0; i < m->n_child; i++) WF_TRY(wf_modules_each(e, m->child[i], visit, ctx));
    return WF_OK;
}

int wf_edit_starts(const wf_edit *e, wf_module **linear, const char **param, int room) {
    const wf_module *root = e->m->root;
    const char *names = wf_module_writers(root);
    char word[128];
    int n = 0;
    while (names && n < room && next_word(&names, word, sizeof word)) {
        wf_module *c = wf_module_find((wf_module *)(uintptr_t)root, word);
        linear[n] = wf_module_is(c, "linear", NULL) ? c : NULL;
        param[n] = NULL;
        for (int i = 0; !linear[n] && i < e->m->n_param; i++)
            if (!strcmp(e->m->param[i]->name, word)) param[n] = e->m->param[i]->name;
        if (linear[n] || param[n]) n++;
    }
    return n;
}

/* ---- the tied head ---- */

bool wf_edit_tied(const wf_edit *e) {
    wf_module *head = wf_module_find(e->m->root, "head");
    bool tied;
    return head && head->n_param && head->param[0]->uses > 1 && wf_module_flag(e->m->root, "tied", &tied) && tied &&
           !wf_edit_has(e, "head.weight");
}

wf_status wf_edit_untie(wf_edit *e) {
    wf_module *head = wf_module_find(e->m->root, "head");
    wf_shape s;
    double *from = wf_edit_take(e, head->param[0]->name, &s), *to = wf_edit_make(e, "head.weight", s);
    if (!from || !to) return WF_ENOMEM;
    memcpy(to, from, sizeof(double) * (size_t)wf_shape_count(&s));
    wf_edit_note(e, false, "head", "untied from the embedding, as one of the two changes (%lld parameters more)",
                 (long long)wf_shape_count(&s));
    return wf_edit_option(e, "tied", "false");
}

/* ---- linears as plain numbers ---- */

wf_status wf_edit_plain(wf_edit *e, wf_module *l) {
    if (!l->part->fold_weight && !l->part->fold_bias) return WF_OK;
    const char *weight = wf_edit_name(e, l, "weight"), *bias = wf_edit_name(e, l, "bias");
    bool has_bias = wf_edit_has(e, bias);
    int64_t n = l->out * l->in;
    float *w = wf_alloc_array((size_t)(n > l->out ? n : l->out), sizeof *w);
    wf_status s = w ? WF_OK : WF_ENOMEM;
    if (s == WF_OK && l->part->fold_weight) s = l->part->fold_weight(l, w);
    double *x = s == WF_OK && l->part->fold_weight ? wf_edit_make(e, weight, WF_SHAPE(l->out, l->in)) : NULL;
    for (int64_t i = 0; x && i < n; i++) x[i] = w[i];
    if (s == WF_OK && has_bias && l->part->fold_bias) {
        s = l->part->fold_bias(l, w);
        double *c = s == WF_OK ? wf_edit_make(e, bias, WF_SHAPE(l->out)) : NULL;
        for (int64_t i = 0; c && i < l->out; i++) c[i] = w[i];
    }
    wf_free(w);
    WF_TRY(s);
    wf_edit_note(e, false, l->name, "%s becomes dense", l->part->name);
    return wf_edit_part(e, l->name, "{name: dense, bias: %s}", has_bias ? "true" : "false");
}
