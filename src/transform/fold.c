/* fold.c: what is constant in evaluation goes into the weights beside it: affine norms, gains and biases of the others, layer
 * scales, linears that make their weight of several tensors.
 *
 *     after a norm y = a x + b:   W (a x + b) + c = (W diag(a)) x + (c + W b)
 *     in front of one:            a (W x + c) + b = (diag(a) W) x + (a c + b)
 */
#include "transform/fold.h"

#include "part/norm/norm.h"

#include <string.h>

enum { MAX_LINEARS = 16 };

typedef struct folding {
    const wf_fold_opt *opt;
    bool stream; /* only norms around sublayers */
    int scales, scales_folded;
} folding;

/* ---- where a norm stands ---- */

typedef struct place {
    int n;
    wf_module *linear[MAX_LINEARS]; /* what reads it, or (before) what it follows */
    bool before;
    const char *why; /* n == 0: why nothing can take it */
} place;

static bool ends_with(const char *s, const char *tail) {
    size_t n = strlen(s), k = strlen(tail);
    return n > k && !strcmp(s + n - k, tail);
}

/* The module that a norm "x_in_norm" belongs to: its sibling "x". */
static wf_module *owner(const wf_module *norm, const char *tail) {
    char name[128];
    const char *local = wf_module_local(norm);
    size_t n = strlen(local) - strlen(tail);
    if (n >= sizeof name) return NULL;
    memcpy(name, local, n);
    name[n] = 0;
    return wf_module_find(norm->parent, name);
}

static void linears_of(place *p, wf_module *m, bool writers) {
    if (!m) {
        p->why = "what reads it is no module beside it";
        return;
    }
    const char *names = writers ? wf_module_writers(m) : wf_module_readers(m);
    int before = p->n;
    if (wf_module_is(m, "linear", NULL))
        p->linear[p->n++] = m;
    else if (names)
        p->n += wf_module_listed(m, names, p->linear + p->n, MAX_LINEARS - p->n);
    if (p->n > before) return;
    p->n = 0;
    p->why = writers ? "what it follows does not end in linears" : "not only linears read it";
}

/* One norm in front of all sublayers of a block (activator). */
static void all_of_block(place *p, const wf_module *block) {
    for (int i = 0; i < block->n_child && !p->why; i++)
        if (wf_module_is(block->child[i], "mixer", NULL) || wf_module_is(block->child[i], "channel", NULL))
            linears_of(p, block->child[i], false);
}

static place place_of(const wf_module *norm) {
    place p = {0};
    const char *local = wf_module_local(norm);
    const wf_module *up = norm->parent;
    if (!up) {
        p.why = "it stands alone";
    } else if (!strcmp(local, "final_norm") && !up->parent) {
        p.n = wf_module_listed(up, wf_module_readers(up), p.linear, MAX_LINEARS);
        if (!p.n) p.why = "what the model makes of it is not linear";
    } else if (!strcmp(local, "in_norm") && wf_module_is(up, "block", NULL)) {
        all_of_block(&p, up);
    } else if (ends_with(local, "_in_norm")) {
        linears_of(&p, owner(norm, "_in_norm"), false);
    } else if (ends_with(local, "_out_norm")) {
        p.before = true;
        linears_of(&p, owner(norm, "_out_norm"), true);
    } else if (!strcmp(local, "inner_norm")) {
        linears_of(&p, norm->parent, true);
    } else if (ends_with(local, "_res_norm")) {
        p.why = "after the sum (post-norm) the residual stream reads it as well";
    } else if (!strcmp(local, "embed_norm")) {
        p.why = "the residual stream reads it";
    } else {
        p.why = "what reads it is not linear";
    }
    return p;
}

/* ---- what a norm gives away ---- */

static bool is_identity(const wf_split *s, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (s->a[i] != 1 || s->b[i] != 0) return false;
    return true;
}

static bool any(const double *b, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (b[i] != 0) return true;
    return false;
}

/* Gain and bias at the end of any norm: parameters "weight" and "bias", switched off by the option `affine`. */
static wf_status split_gain(wf_edit *e, const wf_module *m, wf_split *s) {
    bool affine = false, one_plus = false;
    const char *weight = wf_edit_name(e, m, "weight"), *bias = wf_edit_name(e, m, "bias");
    if (!wf_module_flag(m, "affine", &affine) || !affine || !wf_edit_has(e, weight)) return WF_OK;
    wf_module_flag(m, "one_plus_w", &one_plus);
    const double *w = wf_edit_take(e, weight, NULL), *c = wf_edit_has(e, bias) ? wf_edit_take(e, bias, NULL) : NULL;
    if (!w) return WF_ENOMEM;
    for (int64_t i = 0; i < m->in; i++) {
        s->a[i] = w[i] + (one_plus ? 1 : 0);
        s->b[i] = c ? c[i] : 0;
    }
    s->something = true;
    s->rest = wf_arena_strdup(e->arena, "{affine: false}");
    return s->rest ? WF_OK : WF_ENOMEM;
}

wf_status wf_norm_split(wf_edit *e, const wf_module *m, wf_split *s) {
    memset(s, 0, sizeof *s);
    s->a = wf_arena_alloc(e->arena, sizeof(double) * (size_t)(m->in > 0 ? m->in : 1));
    s->b = wf_arena_alloc(e->arena, sizeof(double) * (size_t)(m->in > 0 ? m->in : 1));
    if (!s->a || !s->b) return WF_ENOMEM;
    int64_t groups;
    double eps;
    if (!m->part->fold) return split_gain(e, m, s);
    s->something = s->whole = true;
    s->rest = "none";
    if (!wf_module_is(m, "norm", "power") || wf_norm_power_rest(m, &groups, &eps) != WF_OK) return m->part->fold(m, s->a, s->b);
    s->rest = wf_arena_format(e->arena, "{name: groupscale, groups: %lld, eps: %.17g}", (long long)groups, eps);
    return s->rest ? wf_norm_power_fold(m, s->a, s->b) : WF_ENOMEM;
}

/* ---- one norm ---- */

/* A weight that another module uses too; an untied head has its own by now. */
static bool shared(const wf_edit *e, const wf_module *l, const char *weight) {
    for (int k = 0; k < l->n_param; k++)
        if (l->param[k]->uses > 1 && !strcmp(l->param[k]->name, weight)) return true;
    return !wf_edit_has(e, weight);
}

/* Whether every linear of a place can be changed: weights of its own, widths that fit. NULL: yes, else the reason. */
static const char *unusable(wf_edit *e, const wf_module *norm, const place *p) {
    for (int i = 0; i < p->n; i++) {
        const wf_module *l = p->linear[i];
        if (!wf_module_is(l, "linear", NULL)) return "what reads it is not linear";
        if ((p->before ? l->out : l->in) != norm->in) return "the linear beside it has another width";
        if (shared(e, l, wf_edit_name(e, l, "weight"))) return "the linear beside it shares its weight with another module";
    }
    return NULL;
}

wf_status wf_fold_into(wf_edit *e, wf_module *l, bool before, const double *a, const double *b) {
    const char *weight = wf_edit_name(e, l, "weight"), *bias = wf_edit_name(e, l, "bias");
    bool has = wf_edit_has(e, bias), wants = any(b, before ? l->out : l->in);
    double *w = wf_edit_take(e, weight, NULL), *c = NULL;
    if (w && (has || wants)) c = has ? wf_edit_take(e, bias, NULL) : wf_edit_make(e, bias, WF_SHAPE(l->out));
    if (!w || ((has || wants) && !c)) return WF_ENOMEM;
    if (before)
        wf_fold_writer(l->out, l->in, a, b, w, c);
    else
        wf_fold_reader(l->out, l->in, a, b, w, c);
    return c && !has ? wf_edit_part(e, l->name, "{bias: true}") : WF_OK;
}

static void names_of(const place *p, char *out, size_t size) {
    size_t n = 0;
    out[0] = 0;
    for (int i = 0; i < p->n && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s%s", i ? ", " : "", wf_module_local(p->linear[i]));
}

/* Nothing linear stands beside an affine norm: two operations a number remain, and no square root. */
static wf_status leave_affine(wf_edit *e, wf_module *norm, const wf_split *s, const char *why) {
    if (wf_module_is(norm, "norm", "affine") || strcmp(s->rest, "none")) {
        wf_edit_note(e, true, norm->name, "%s stays: %s", norm->part->name, why);
        return WF_OK;
    }
    double *a = wf_edit_make(e, wf_edit_name(e, norm, "weight"), WF_SHAPE(norm->in));
    double *b = wf_edit_make(e, wf_edit_name(e, norm, "bias"), WF_SHAPE(norm->in));
    if (!a || !b) return WF_ENOMEM;
    memcpy(a, s->a, sizeof *a * (size_t)norm->in);
    memcpy(b, s->b, sizeof *b * (size_t)norm->in);
    wf_edit_note(e, false, norm->name, "%s becomes affine, y = a x + b: %s", norm->part->name, why);
    return wf_edit_part(e, norm->name, "{name: affine}");
}

static wf_status take_from(wf_edit *e, wf_module *norm, const wf_split *s, const place *p, bool stream) {
    const char *what = any(s->b, norm->in) ? "gain and bias" : "gain";
    char names[128];
    names_of(p, names, sizeof names);
    for (int i = 0; i < p->n; i++) WF_TRY(wf_fold_into(e, p->linear[i], p->before, s->a, s->b));
    if (s->whole && !strcmp(s->rest, "none"))
        wf_edit_note(e, false, norm->name, "%s into %s", norm->part->name, names);
    else if (s->whole)
        wf_edit_note(e, false, norm->name, "running statistics, gain and bias of %s into %s; its statistics of a token stay",
                     norm->part->name, names);
    else if (stream)
        wf_edit_note(e, false, norm->name, "%s into %s", what, names);
    else
        wf_edit_note(e, false, norm->name, "%s into %s; %s stays, its statistics are those of a token", what, names,
                     norm->part->name);
    return wf_edit_part(e, norm->name, "%s", s->rest);
}

static bool in_stream(const wf_module *norm) {
    const char *l = wf_module_local(norm);
    return !strcmp(l, "in_norm") || ends_with(l, "_in_norm") || ends_with(l, "_out_norm") || !strcmp(l, "final_norm");
}

static wf_status fold_norm(wf_edit *e, wf_module *norm, void *ctx) {
    folding *f = ctx;
    wf_split s;
    if (!wf_module_is(norm, "norm", NULL) || wf_module_is(norm->parent, "norm", NULL)) return WF_OK;
    if (f->stream && (!in_stream(norm) || norm->part->fold)) return WF_OK;
    wf_status st = wf_norm_split(e, norm, &s);
    if (st == WF_EUNSUPPORTED) return wf_edit_note(e, true, norm->name, "%s stays: %s", norm->part->name, wf_message()), WF_OK;
    WF_TRY(st);
    if (!s.something) return WF_OK;
    if (is_identity(&s, norm->in)) {
        wf_edit_note(e, false, norm->name, s.whole ? "%s does nothing and is left out" : "gain 1 and bias 0 of %s are left out",
                     norm->part->name);
        return wf_edit_part(e, norm->name, "%s", s.rest);
    }
    place p = place_of(norm);
    if (p.n && p.before && !s.whole) p = (place){.why = "it ends a branch, and what follows is the residual stream"};
    if (p.n && !p.before && !strcmp(wf_module_local(norm), "final_norm") && wf_edit_tied(e)) {
        if (f->opt && f->opt->keep_tied)
            p = (place){.why = "the head is tied to the embedding"};
        else
            WF_TRY(wf_edit_untie(e));
    }
    const char *why = p.n ? unusable(e, norm, &p) : p.why;
    if (!why) return take_from(e, norm, &s, &p, f->stream);
    if (s.whole) return leave_affine(e, norm, &s, why);
    wf_edit_note(e, true, norm->name, "gain and bias of %s stay: %s", norm->part->name, why);
    return WF_OK;
}

/* ---- layer scales ---- */

/* Parameter "x_scale" of a block: y = scale * x(..), into the linears that x ends in. */
static wf_status fold_scale(wf_edit *e, wf_module *block, int at, folding *f) {
    char name[128];
    const char *local = block->param_name[at];
    size_t n = strlen(local) - strlen("_scale");
    if (n + 16 > sizeof name) return WF_OK;
    snprintf(name, sizeof name, "%.*s", (int)n, local);
    wf_module *m = wf_module_find(block, name);
    snprintf(name + n, sizeof name - n, "_out_norm");
    wf_module *out = wf_module_find(block, name);
    const char *path = wf_edit_name(e, block, local), *why = NULL;
    place p = {.before = true};
    f->scales++;
    if (!m) return WF_OK;
    linears_of(&p, m, true);
    if (!p.n) why = "its branch does not end in a linear";
    if (out && !wf_module_is(out, "norm", "none") && !out->part->fold) why = "a norm stands between it and the branch's linear";
    if (!why) why = unusable(e, block, &p);
    if (why) {
        wf_edit_note(e, true, path, "stays: %s", why);
        return WF_OK;
    }
    const double *a = wf_edit_take(e, path, NULL);
    double *b = wf_arena_alloc(e->arena, sizeof *b * (size_t)block->in);
    if (!a || !b) return WF_ENOMEM;
    for (int i = 0; i < p.n; i++) WF_TRY(wf_fold_into(e, p.linear[i], true, a, b));
    char names[128];
    names_of(&p, names, sizeof names);
    f->scales_folded++;
    wf_edit_note(e, false, path, "layer scale into %s", names);
    return wf_edit_part(e, path, "none");
}

static wf_status fold_scales(wf_edit *e, wf_module *m, void *ctx) {
    for (int i = 0; wf_module_is(m, "block", NULL) && i < m->n_param; i++)
        if (ends_with(m->param_name[i], "_scale")) WF_TRY(fold_scale(e, m, i, ctx));
    return WF_OK;
}

/* ---- all together ---- */

static wf_status plain(wf_edit *e, wf_module *m, void *ctx) {
    return wf_module_is(m, "linear", NULL) ? wf_edit_plain(e, m) : WF_OK;
}

static wf_status centre(wf_edit *e, const wf_fold_opt *opt) {
    bool centred = false;
    const char *why = NULL;
    if (!wf_module_flag(e->m->root, "centred", &centred) || !centred) return WF_OK;
    if (wf_edit_tied(e)) {
        if (opt && opt->keep_tied)
            why = "the head is tied to the embedding";
        else
            WF_TRY(wf_edit_untie(e));
    }
    if (!why) WF_TRY(wf_edit_centre_start(e, &why));
    if (why) {
        wf_edit_note(e, true, "centred", "the mean of the embedding is still subtracted in every pass: %s", why);
        return WF_OK;
    }
    wf_edit_note(e, false, "centred", "the embedding is centred once and for all");
    return wf_edit_option(e, "centred", "false");
}

wf_status wf_edit_fold(wf_edit *e, const wf_fold_opt *opt, bool stream) {
    folding f = {.opt = opt, .stream = stream};
    WF_TRY(wf_modules_each(e, e->m->root, plain, NULL));
    WF_TRY(centre(e, opt));
    WF_TRY(wf_modules_each(e, e->m->root, fold_norm, &f));
    return wf_modules_each(e, e->m->root, fold_scales, &f);
}

wf_model *wf_fold(const wf_model *m, const wf_fold_opt *opt, wf_transform_report *r) {
    wf_edit *e = wf_edit_new(m, r);
    wf_status s = e ? wf_edit_fold(e, opt, false) : WF_ENOMEM;
    wf_model *out = NULL;
    if (s == WF_OK && r->changed)
        out = wf_edit_finish(e);
    else if (s == WF_OK)
        wf_fail(WF_EUNSUPPORTED, "there is nothing in this model that can be folded%s%s%s", r->n ? " (" : "",
                r->n ? r->note[0].text : "", r->n ? ")" : "");
    wf_edit_free(e);
    return out;
}
