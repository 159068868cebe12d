/* convert.c: Pre-LN <-> Pre-RMSNorm <-> Pre-CRMSNorm (Jiang et al. 2023).
 *
 *     LN -> RMS     everything that writes to the stream loses its mean over the channels; then LN(x) = RMS(x)
 *     RMS -> CRMS   (zero-mean) x = (c, -sum c): writers lose their last output, readers W become W[:, :D-1] - W[:, D-1]
 *     CRMS -> RMS   writers get the output -(sum of all), readers a column of zeros
 *     RMS -> LN     (zero-mean) the norm alone changes
 */
#include "transform/centre.h"

#include <string.h>

typedef enum kind { LAYER, RMS, CRMS, KINDS } kind;
static const char *const names[KINDS] = {"layernorm", "rmsnorm", "crmsnorm"};

enum { MAX_LISTED = 8 };

typedef struct stream { /* what touches the residual stream of a model */
    int n_norm, cap_norm, n_part, cap_part, n_writer, cap_writer, n_reader, cap_reader;
    wf_module **norm, **part, **writer, **reader; /* part: what the branches are */
    kind is;
    double eps;
} stream;

static wf_status refuse(const wf_module *m, const char *fmt, ...) WF_PRINTF(2, 3);
static wf_status refuse(const wf_module *m, const char *fmt, ...) {
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return wf_fail(WF_EUNSUPPORTED, "%s%s%s", m->name, m->name[0] ? ": " : "", text);
}

/* ---- what there is ---- */

static wf_status add(wf_module ***list, int *n, int *cap, wf_module *m) {
    if (*n == *cap) {
        int more = *cap ? 2 * *cap : 16;
        wf_module **grown = wf_grow(*list, sizeof(void *) * (size_t)*cap, sizeof(void *) * (size_t)more);
        if (!grown) return WF_ENOMEM;
        *list = grown;
        *cap = more;
    }
    (*list)[(*n)++] = m;
    return WF_OK;
}

static wf_status add_norm(stream *s, wf_module *m) {
    for (int i = 0; i < s->n_norm; i++)
        if (s->norm[i] == m) return WF_OK;
    int k = 0;
    double eps = 0;
    while (k < KINDS && !wf_module_is(m, "norm", names[k])) k++;
    if (k == KINDS)
        return refuse(m, "is %s; only layernorm, rmsnorm and crmsnorm can be converted into each other", m->part->name);
    wf_module_real(m, "eps", &eps);
    int64_t divisor = 0;
    if (wf_module_int(m, "divisor", &divisor) && divisor && divisor != m->in + 1)
        return refuse(m, "divides by %lld, so its stream of %lld channels does not stand for one of %lld", (long long)divisor,
                      (long long)m->in, (long long)m->in + 1);
    if (s->n_norm && ((int)s->is != k || s->eps != eps))
        return refuse(m, "is %s with eps %g, while %s is %s with eps %g: the norms of the stream must be alike", names[k], eps,
                      s->norm[0]->name, names[s->is], s->eps);
    s->is = (kind)k;
    s->eps = eps;
    return add(&s->norm, &s->n_norm, &s->cap_norm, m);
}

static wf_module *beside(wf_module *block, const wf_module *m, const char *tail) {
    char name[128];
    snprintf(name, sizeof name, "%s%s", wf_module_local(m), tail);
    return wf_module_find(block, name);
}

static wf_status add_branch(stream *s, wf_module *block, wf_module *m) {
    wf_module *in = beside(block, m, "_in_norm"), *out = beside(block, m, "_out_norm"), *list[MAX_LISTED];
    if (wf_module_is(m, "placement", NULL)) return refuse(m, "the gate of a condition gives the branch's output a mean again");
    if (beside(block, m, "_res_norm"))
        return refuse(m, "a post-norm network cannot be converted: the norm's output is the stream itself, mean and all");
    if (!in) in = wf_module_find(block, "in_norm"); /* one for all sublayers (activator) */
    if (!in || wf_module_is(in, "norm", "none"))
        return refuse(
            m, "reads the stream without a norm (only placements with a norm in front of every sublayer can be converted)");
    if (!wf_module_readers(m) || !wf_module_writers(m))
        return refuse(m, "%s.%s does not read and write the stream by linears alone, so its output cannot be centred",
                      m->part->slot, m->part->name);
    WF_TRY(add_norm(s, in));
    if (out && !wf_module_is(out, "norm", "none")) WF_TRY(add_norm(s, out));
    WF_TRY(add(&s->part, &s->n_part, &s->cap_part, m));
    int n = wf_module_listed(m, wf_module_readers(m), list, MAX_LISTED);
    for (int i = 0; i < n; i++) WF_TRY(add(&s->reader, &s->n_reader, &s->cap_reader, list[i]));
    n = wf_module_listed(m, wf_module_writers(m), list, MAX_LISTED);
    for (int i = 0; i < n; i++) WF_TRY(add(&s->writer, &s->n_writer, &s->cap_writer, list[i]));
    return WF_OK;
}

static wf_status look_at(wf_edit *e, wf_module *m, void *ctx) {
    if (!wf_module_is(m, "block", NULL)) return WF_OK;
    for (int i = 0; i < m->n_child; i++)
        if (!wf_module_is(m->child[i], "norm", NULL)) WF_TRY(add_branch(ctx, m, m->child[i]));
    return WF_OK;
}

static wf_status find_stream(wf_edit *e, stream *s) {
    wf_module *root = e->m->root, *final = wf_module_find(root, "final_norm"), *list[MAX_LISTED];
    const char *why = wf_centre_start_why(e);
    WF_TRY(wf_modules_each(e, root, look_at, s));
    if (!s->n_part) return refuse(root, "there are no blocks of sublayers in this model");
    if (!final || wf_module_is(final, "norm", "none"))
        return refuse(root, "there is no final norm: the head reads the stream itself, mean and all");
    WF_TRY(add_norm(s, final));
    if (why) return refuse(root, "cannot be converted: %s", why);
    int n = wf_module_listed(root, wf_module_readers(root), list, MAX_LISTED);
    if (!n) return refuse(root, "what the model makes of its final norm is not linear");
    for (int i = 0; i < n; i++) WF_TRY(add(&s->reader, &s->n_reader, &s->cap_reader, list[i]));
    return WF_OK;
}

static wf_status scales_gone(wf_edit *e, wf_module *m, void *ctx) {
    for (int i = 0; wf_module_is(m, "block", NULL) && i < m->n_param; i++) {
        const char *name = m->param_name[i];
        size_t n = strlen(name);
        if (n > 6 && !strcmp(name + n - 6, "_scale") && !wf_value_get(e->parts, wf_edit_name(e, m, name)))
            return refuse(m, "%s could not be folded, so its branch's output has a mean", name);
    }
    return WF_OK;
}

/* After folding: no gain may stand between a branch's last linear and the stream. */
static wf_status check_free(wf_edit *e, const stream *s) {
    for (int i = 0; i < s->n_norm; i++) {
        bool affine = false;
        const wf_value *now = wf_value_get(e->parts, s->norm[i]->name);
        if (wf_module_flag(s->norm[i], "affine", &affine) && affine && !now)
            return refuse(s->norm[i],
                          "has a gain that no linear can take, so its output has a mean (norms on a branch's output, as in "
                          "peri, must have affine: false)");
    }
    return wf_modules_each(e, e->m->root, scales_gone, NULL);
}

static wf_status check_zero_mean(wf_edit *e, const stream *s) {
    double worst;
    WF_TRY(wf_centre_measure(e, s->writer, s->n_writer, &worst));
    if (worst <= 1e-5) return WF_OK;
    return wf_fail(WF_EUNSUPPORTED,
                   "the stream of this %s network has a mean (up to %.2g of a writer's size), as in Llama; only networks that "
                   "came from layernorm, or were trained with linear: {name: zero-mean}, can be converted",
                   names[s->is], worst);
}

/* ---- widths ---- */

/* Sizes that follow the width unless they are given: give them. */
static wf_status fix_sizes(wf_edit *e, const wf_module *m) {
    wf_module *r[MAX_LISTED];
    int64_t H, d, F;
    if (!wf_module_listed(m, wf_module_readers(m), r, MAX_LISTED)) return WF_OK;
    if (wf_module_int(m, "hidden", &F)) WF_TRY(wf_edit_part(e, m->name, "{hidden: %lld}", (long long)r[0]->out));
    if (!wf_module_int(m, "heads", &H)) return WF_OK;
    if (H == 0) H = m->in / 64 > 0 ? m->in / 64 : 1; /* the mixers' default */
    bool given = wf_module_int(m, "head_dim", &d);
    return wf_edit_part(e, m->name, given ? "{heads: %lld, head_dim: %lld}" : "{heads: %lld}", (long long)H,
                        (long long)(r[0]->out / H));
}

static bool has_option(const wf_part *p, const char *name) {
    for (const wf_option *o = p->options; o && o->name; o++)
        if (!strcmp(o->name, name)) return true;
    return false;
}

/* The same in the recipe's own entry, for topologies that compute with it (wide: heads of all layers side by side). */
static wf_status fix_entry(wf_edit *e) {
    const wf_value *old = wf_value_get(e->spec, "mixer"),
                   *name = old && old->kind == WF_V_MAP ? wf_value_get(old, "name") : old;
    const wf_part *p = wf_part_find("mixer", name && name->kind == WF_V_TEXT ? name->text : "softmax");
    int64_t D = e->m->root->in, H = 0, d = 0;
    if (!p || (old && old->kind == WF_V_LIST) || !has_option(p, "heads") || !has_option(p, "head_dim")) return WF_OK;
    wf_value *map = old && old->kind == WF_V_MAP ? wf_value_copy(old) : wf_value_map();
    const wf_value *heads = map ? wf_value_get(map, "heads") : NULL, *dim = map ? wf_value_get(map, "head_dim") : NULL;
    wf_status s = !map ? WF_ENOMEM : name ? WF_OK : wf_value_set(map, "name", wf_value_text(p->name));
    if (s == WF_OK && name && !wf_value_get(map, "name")) s = wf_value_set(map, "name", wf_value_copy(name));
    if (s == WF_OK && heads) s = wf_value_int(heads, &H);
    if (s == WF_OK && dim) s = wf_value_int(dim, &d);
    if (H == 0) H = D / 64 > 0 ? D / 64 : 1;
    if (s == WF_OK) s = wf_value_set(map, "heads", wf_value_number((double)H));
    if (s == WF_OK) s = wf_value_set(map, "head_dim", wf_value_number((double)(d ? d : D / H)));
    if (s == WF_OK) return wf_value_set(e->spec, "mixer", map);
    wf_value_free(map);
    return s;
}

/* Rows of x [n,D] cut to D-1 (shrink), or with -(their sum) appended. Columns likewise through step. */
static wf_status resize_table(wf_edit *e, const char *name, bool shrink, double factor) {
    wf_shape s;
    const double *old = wf_edit_take(e, name, &s);
    if (!old) return WF_ENOMEM;
    int64_t D = s.dim[s.rank - 1], n = wf_shape_count(&s) / D, w = shrink ? D - 1 : D + 1;
    double *copy = wf_alloc_array((size_t)(n * D), sizeof *copy);
    if (!copy) return WF_ENOMEM;
    memcpy(copy, old, sizeof *copy * (size_t)(n * D));
    s.dim[s.rank - 1] = w;
    double *x = wf_edit_make(e, name, s);
    for (int64_t r = 0; x && r < n; r++) {
        double sum = 0;
        for (int64_t i = 0; i < D; i++) sum += copy[r * D + i];
        for (int64_t i = 0; i < w; i++) x[r * w + i] = factor * (i < D ? copy[r * D + i] : -sum);
    }
    wf_free(copy);
    return x ? WF_OK : WF_ENOMEM;
}

/* A writer [O,I] loses its last output, or gets -(the sum of all) as one more. */
static wf_status resize_writer(wf_edit *e, const wf_module *l, bool shrink) {
    const char *weight = wf_edit_name(e, l, "weight"), *bias = wf_edit_name(e, l, "bias");
    int64_t O = l->out, I = l->in, w = shrink ? O - 1 : O + 1;
    const double *old = wf_edit_take(e, weight, NULL);
    double *copy = old ? wf_alloc_array((size_t)(O * I), sizeof *copy) : NULL;
    if (!copy) return WF_ENOMEM;
    memcpy(copy, old, sizeof *copy * (size_t)(O * I));
    double *x = wf_edit_make(e, weight, WF_SHAPE(w, I));
    for (int64_t o = 0; x && o < w; o++)
        for (int64_t i = 0; i < I; i++) {
            double v = 0;
            if (o < O) v = copy[o * I + i];
            for (int64_t k = 0; o == O && k < O; k++) v -= copy[k * I + i];
            x[o * I + i] = v;
        }
    wf_free(copy);
    if (!x) return WF_ENOMEM;
    return wf_edit_has(e, bias) ? resize_table(e, bias, shrink, 1) : WF_OK;
}

/* A reader [O,I]: the last column is subtracted from the others and goes; or a column of zeros comes. */
static wf_status resize_reader(wf_edit *e, const wf_module *l, bool shrink) {
    const char *weight = wf_edit_name(e, l, "weight");
    int64_t O = l->out, I = l->in, w = shrink ? I - 1 : I + 1;
    const double *old = wf_edit_take(e, weight, NULL);
    double *copy = old ? wf_alloc_array((size_t)(O * I), sizeof *copy) : NULL;
    if (!copy) return WF_ENOMEM;
    memcpy(copy, old, sizeof *copy * (size_t)(O * I));
    double *x = wf_edit_make(e, weight, WF_SHAPE(O, w));
    for (int64_t o = 0; x && o < O; o++)
        for (int64_t i = 0; i < w; i++)
            x[o * w + i] = shrink ? copy[o * I + i] - copy[o * I + I - 1] : i < I ? copy[o * I + i] : 0;
    wf_free(copy);
    return x ? WF_OK : WF_ENOMEM;
}

/* The embedding's factor sqrt(width) follows the width; the table takes the difference. */
static double embed_factor(const wf_edit *e, int64_t D, int64_t w) {
    const char *scale = wf_module_choice(e->m->root, "embed_scale");
    return scale && !strcmp(scale, "sqrt_width") ? __builtin_sqrt((double)D / (double)w) : 1;
}

static wf_status resize(wf_edit *e, const stream *s, bool shrink) {
    enum { ROOM = 8 };
    int64_t D = e->m->root->in, w = shrink ? D - 1 : D + 1;
    wf_module *linear[ROOM];
    const char *param[ROOM];
    char width[32];
    if (w < 1) return refuse(e->m->root, "a width of 1 cannot lose a channel");
    if (wf_edit_tied(e)) WF_TRY(wf_edit_untie(e));
    int n = wf_edit_starts(e, linear, param, ROOM);
    for (int i = 0; i < n; i++)
        WF_TRY(linear[i] ? resize_writer(e, linear[i], shrink)
                         : resize_table(e, param[i], shrink, !strcmp(param[i], "embed.weight") ? embed_factor(e, D, w) : 1));
    for (int i = 0; i < s->n_writer; i++) WF_TRY(resize_writer(e, s->writer[i], shrink));
    for (int i = 0; i < s->n_reader; i++) WF_TRY(resize_reader(e, s->reader[i], shrink));
    for (int i = 0; i < s->n_part; i++) WF_TRY(fix_sizes(e, s->part[i]));
    WF_TRY(fix_entry(e));
    snprintf(width, sizeof width, "%lld", (long long)w);
    wf_edit_note(e, false, "width", "the stream has %lld channels instead of %lld", (long long)w, (long long)D);
    return wf_edit_option(e, "width", width);
}

/* ---- all together ---- */

static wf_status set_norms(wf_edit *e, const stream *s, kind to) {
    for (int i = 0; i < s->n_norm; i++) {
        WF_TRY(wf_edit_part(e, s->norm[i]->name, "{name: %s, affine: false, eps: %.17g}", names[to], s->eps));
        wf_edit_note(e, false, s->norm[i]->name, "%s becomes %s", names[s->is], names[to]);
    }
    return WF_OK;
}

static wf_status centre_all(wf_edit *e, const stream *s) {
    const char *why = NULL;
    for (int i = 0; i < s->n_writer; i++) {
        WF_TRY(wf_centre_linear(e, s->writer[i]));
        wf_edit_note(e, false, s->writer[i]->name, "mean over its outputs taken out");
    }
    WF_TRY(wf_edit_centre_start(e, &why));
    if (why) return refuse(e->m->root, "cannot be converted: %s", why);
    wf_edit_note(e, false, "embedding", "mean over the channels taken out");
    return WF_OK;
}

static wf_status convert(wf_edit *e, stream *s, kind to) {
    WF_TRY(find_stream(e, s));
    if (s->is == to) return wf_fail(WF_EUNSUPPORTED, "the norms of this model are %s already", names[to]);
    WF_TRY(wf_edit_fold(e, NULL, true));
    WF_TRY(check_free(e, s));
    if (s->is == LAYER)
        WF_TRY(centre_all(e, s));
    else if (s->is == RMS)
        WF_TRY(check_zero_mean(e, s));
    if (to == CRMS || s->is == CRMS) WF_TRY(resize(e, s, to == CRMS));
    return set_norms(e, s, to);
}

wf_model *wf_convert_norm(const wf_model *m, const char *to, wf_transform_report *r) {
    int k = 0;
    while (k < KINDS && strcmp(names[k], to)) k++;
    if (k == KINDS) {
        wf_fail(WF_EINVAL, "norms can be converted to layernorm, rmsnorm or crmsnorm, not '%s'", to);
        return NULL;
    }
    stream s = {0};
    wf_edit *e = wf_edit_new(m, r);
    wf_status st = e ? convert(e, &s, (kind)k) : WF_ENOMEM;
    wf_model *out = st == WF_OK ? wf_edit_finish(e) : NULL;
    wf_edit_free(e);
    wf_free(s.norm);
    wf_free(s.part);
    wf_free(s.writer);
    wf_free(s.reader);
    return out;
}
