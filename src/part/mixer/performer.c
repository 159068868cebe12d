/* performer.c: FAVOR+ (Choromanski et al. 2020): softmax attention estimated by positive random features.
 *
 *     u = z d^(-1/4);  f(z) = M^(-1/2) (exp(w u - |u|^2/2 - max) + eps), or relu(w u) + eps;  w [M,d] random orthogonal rows
 *     o_i = f(q_i) S / f(q_i).(z + eps'), S = sum_j f(k_j) v_j^T, z = sum_j f(k_j); j <= i if causal
 *
 * max: for a query over its features; for keys over all features of the sequence, a constant for the gradient. A causal model
 * must not look ahead, so there keys subtract a fixed number, which is also what its streaming form does. The projection is a
 * buffer of the model and is drawn anew every `redraw` steps of training.
 */
#include "part/mixer/sparse.h"

#include <math.h>
#include <string.h>

typedef struct options {
    wf_heads_opt heads;
    int64_t features, redraw;
    const char *kernel, *max;
    double eps_feature, eps_denominator, max_value;
} options;

static const wf_option table[] = {
    WF_HEADS_OPTIONS(options, heads),
    {"features", WF_OPT_INT, offsetof(options, features), "0", 0, 1 << 20, NULL, "random features, M; 0: d ln d rounded down"},
    {"kernel", WF_OPT_CHOICE, offsetof(options, kernel), "softmax", 0, 0, "softmax|relu",
     "features of the softmax kernel, or the generalised relu(w u)"},
    {"redraw", WF_OPT_INT, offsetof(options, redraw), "1000", 0, 1 << 30, NULL,
     "steps of training between two draws of the projection; 0: never"},
    {"max", WF_OPT_CHOICE, offsetof(options, max), "auto", 0, 0, "auto|sequence|fixed",
     "what keys subtract: the maximum of the sequence, or max_value; auto: fixed where causal. sequence in a causal model "
     "looks "
     "ahead and cannot generate"},
    {"max_value", WF_OPT_REAL, offsetof(options, max_value), "0", -1e4, 1e4, NULL, "the fixed maximum"},
    {"eps_feature", WF_OPT_REAL, offsetof(options, eps_feature), "-1", -1, 1, NULL,
     "added to every feature; -1: 1e-4, or 1e-3 with kernel: relu"},
    {"eps_denominator", WF_OPT_REAL, offsetof(options, eps_denominator), "-1", -1, 1, NULL,
     "added to the sums of key features; -1: 1e-6 if causal, else 0"},
    WF_OPT_END};

static void draw(wf_tensor *t, wf_rng *r, const void *ctx) {
    (void)ctx;
    wf_orthogonal_rows(t->data, t->shape.dim[0], t->shape.dim[1], r);
}

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    WF_TRY(wf_heads_setup(m, &o->heads));
    WF_TRY(wf_needs_no_scores(m));
    int64_t d = ((const wf_heads *)m->data)->d, M = o->features ? o->features : (int64_t)floor((double)d * log((double)d));
    wf_param *w = wf_declare_buffer(m, "projection", WF_F32, WF_SHAPE(M > 0 ? M : 1, d), 0);
    if (!w) return WF_ENOMEM;
    w->fill = draw;
    return WF_OK;
}

/* exp(w u - |u|^2/2 - max), the maximum over the features (keys: and over the length) */
static wf_node *softmax_features(wf_graph *g, wf_node *p, wf_node *half, const wf_favor *f, bool keys, wf_node *counts) {
    if (!p) return NULL;
    wf_node *low = wf_fill(g, p->dtype, WF_SHAPE(1), -1e30), *max;
    if (keys && f->fixed)
        max = wf_fill(g, p->dtype, WF_SHAPE(1), f->max);
    else
        max = wf_amax(g, keys && counts ? wf_where(g, counts, p, low) : p, 1u << 3, true);
    if (keys && !f->fixed) max = wf_amax(g, max, 1u << 1, true);
    return wf_exp(g, wf_sub(g, wf_sub(g, p, half), wf_stop_gradient(g, max)));
}

wf_node *wf_favor_bare(wf_graph *g, wf_node *z, wf_node *w, const wf_favor *f, bool keys, wf_node *keep) {
    if (!z || !w) return NULL;
    double root = pow((double)z->shape.dim[3], -0.25);
    wf_node *counts = keep && keys ? wf_reshape(g, keep, WF_SHAPE(keep->shape.dim[0], keep->shape.dim[1], 1, 1)) : NULL;
    wf_node *p = wf_matmul(g, z, wf_mul_c(g, w, root), false, true), *y;
    if (f->relu) {
        y = wf_relu(g, p);
    } else {
        wf_node *half = wf_mul_c(g, wf_sum(g, wf_square(g, z), 1u << 3, true), root * root / 2);
        y = softmax_features(g, p, half, f, keys, counts);
    }
    return counts ? wf_mul(g, y, counts) : y;
}

static double factor(const wf_favor *f, const wf_node *features) {
    return f->relu ? 1 : 1 / sqrt((double)features->shape.dim[3]);
}

wf_node *wf_favor_features(wf_graph *g, wf_node *bare, const wf_favor *f, wf_node *keep) {
    if (!bare) return NULL;
    wf_node *y = wf_mul_c(g, wf_add_c(g, bare, f->eps), factor(f, bare));
    return keep ? wf_mul(g, y, wf_reshape(g, keep, WF_SHAPE(keep->shape.dim[0], keep->shape.dim[1], 1, 1))) : y;
}

/* All positions, from bare features: with f = c (b + eps) everything that eps adds is a sum over positions or features, so no
 * array of features is made; c cancels. */
static wf_node *all_positions(wf_graph *g, wf_node *q, wf_node *k, wf_node *v, const wf_favor *f, double eps, wf_node *keep) {
    wf_node *counts =
        keep ? wf_reshape(g, wf_cast(g, keep, v->dtype), WF_SHAPE(keep->shape.dim[0], keep->shape.dim[1], 1, 1)) : NULL;
    wf_node *n =
        keep ? wf_reshape(g, wf_sum(g, wf_cast(g, keep, v->dtype), 1u << 1, true), WF_SHAPE(keep->shape.dim[0], 1, 1, 1))
             : wf_fill(g, v->dtype, WF_SHAPE(1), (double)v->shape.dim[1]);
    wf_node *sum_v = wf_transpose(g, wf_sum(g, counts ? wf_mul(g, v, counts) : v, 1u << 1, true), 1, 2); /* [B,H,1,e] */
    wf_node *S = wf_matmul(g, wf_transpose(g, k, 1, 2), wf_transpose(g, v, 1, 2), true, false);          /* [B,H,M,e] */
    S = wf_add(g, S, wf_mul_c(g, sum_v, f->eps));
    wf_node *z = wf_add(g, wf_sum(g, k, 1u << 1, true), wf_mul_c(g, n, f->eps)); /* [B,1,H,M] */
    z = wf_add_c(g, z, eps / factor(f, q));
    wf_node *o = wf_matmul(g, wf_transpose(g, q, 1, 2), S, false, false); /* [B,H,L,e] */
    wf_node *rest = wf_transpose(g, wf_sum(g, S, 1u << 2, true), 1, 2);   /* [B,1,H,e] */
    wf_node *below = wf_add(g, wf_sum(g, wf_mul(g, q, z), 1u << 3, true), wf_mul_c(g, wf_sum(g, z, 1u << 3, true), f->eps));
    if (!o || !rest) return NULL;
    o = wf_add(g, wf_transpose(g, o, 1, 2), wf_mul_c(g, rest, f->eps));
    return wf_div(g, o, wf_max_c(g, below, 1e-30)); /* a sequence without any key gives 0 */
}

wf_node *wf_favor_attention(wf_graph *g, wf_node *q, wf_node *k, wf_node *v, const wf_favor *f, bool causal, double eps,
                            wf_node *keep, wf_node *state, wf_node **after) {
    if (!q || !k || !v) return NULL;
    if (!causal) return all_positions(g, q, k, v, f, eps, keep);
    int64_t e = v->shape.dim[3];
    wf_node *fq = wf_favor_features(g, q, f, NULL);
    wf_node *o = wf_feature_attention(g, fq, wf_favor_features(g, k, f, keep), v, true, state, after);
    if (!o) return NULL;
    wf_node *below = wf_slice(g, o, 3, e, 1);
    if (eps > 0) below = wf_add(g, below, wf_mul_c(g, wf_sum(g, fq, 1u << 3, true), eps));
    return wf_div(g, wf_slice(g, o, 3, 0, e), wf_max_c(g, below, 1e-30));
}

static wf_node *projection(wf_build *b, wf_module *m, wf_dtype t) {
    const options *o = m->opt;
    wf_node *w = wf_use(b, m, "projection");
    if (!b->train || !b->seed || !o->redraw) return wf_as(b, w, t);
    w = wf_orthogonal_redraw(b->g, wf_as(b, w, WF_F32), b->seed, o->redraw, wf_stream(b));
    return wf_update(b, m, "projection", w) == WF_OK ? wf_as(b, w, t) : NULL;
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    const wf_heads *h = m->data;
    bool relu = !strcmp(o->kernel, "relu"), fixed = strcmp(o->max, "auto") ? !strcmp(o->max, "fixed") : b->causal;
    wf_favor f = {relu, fixed, o->eps_feature < 0 ? relu ? 1e-3 : 1e-4 : o->eps_feature, o->max_value};
    wf_dtype t = b->compute == WF_F64 ? WF_F64 : WF_F32;
    wf_node *q, *k, *v, *state = NULL, *after = NULL, *keep = b->step ? NULL : wf_keep_mask(b, x);
    if (b->step && !fixed && !relu)
        return wf_refuse(b, m, "'max: sequence' needs the whole sequence and cannot generate; train with max: fixed");
    if (wf_heads_project(b, m, x, x, &q, &k, &v) != WF_OK) return NULL;
    wf_node *w = projection(b, m, t);
    if (!w) return NULL;
    if (b->step && !(state = wf_state(b, m, "S", t, WF_SHAPE(q->shape.dim[0], h->H, w->shape.dim[0], h->d + 1)))) return NULL;
    q = wf_favor_bare(b->g, wf_as(b, q, t), w, &f, false, NULL);
    k = wf_favor_bare(b->g, wf_as(b, k, t), w, &f, true, keep);
    double eps = o->eps_denominator < 0 ? b->causal ? 1e-6 : 0 : o->eps_denominator;
    wf_node *y = wf_favor_attention(b->g, q, k, wf_as(b, v, t), &f, b->causal, eps, keep, state, &after);
    if (b->step && wf_keep(b, state, after) != WF_OK) return NULL;
    return wf_heads_merge(b, m, wf_as(b, y, b->compute));
}

const wf_part wf_mixer_performer = {
    .slot = "mixer",
    .name = "performer",
    .title = "FAVOR+: softmax attention in linear time by positive orthogonal random features",
    .paper = "Choromanski et al.: Rethinking Attention with Performers, 2020, arXiv 2009.14794",
    .sheet = "00",
    .formula = "u = z d^(-1/4); f(z) = M^(-1/2) (exp(w u - |u|^2/2 - max) + eps); o_i = f(q_i) S / f(q_i).(z + eps')\n"
               "S = sum_j f(k_j) v_j^T, z = sum_j f(k_j); w [M,d]: blocks of orthogonal rows with lengths of normal vectors",
    .facts =
        "An estimate of softmax attention whose error falls as 1/sqrt(features). kernel: relu is no estimate but trains as "
        "well.\n"
        "Causal models subtract the fixed max_value from keys, so that no position sees a later one.",
    .cost = "8 D D FLOPs a token for the linears, 4 d M H for features, 4 M d H for the state; state H M (d+1) numbers",
    .golden = "attention.performer",
    .options = table,
    .opt_size = sizeof(options),
    .causal_ok = true,
    .bidirectional_ok = true,
    .setup = setup,
    .forward = forward,
    .step = forward,
    .readers = "q k v",
    .writers = "o",
};
