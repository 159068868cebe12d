/* complex.c: complex multi-head attention (ComplexFormer, 2025): channels i and i + h of a head (h = d/2) are one complex number
 * r e^(i p); magnitudes multiply, phase differences are scaled and shifted by head, and positions turn them as in RoPE.
 *
 *     s_mn = sum_i r_mi r_ni cos(delta_i (p_mi - p_ni) + bias_i + (m - n) w_i),  w_i = base^(-2i/d)
 *
 * With a_mi = delta_i p_mi + bias_i + m w_i and c_ni = delta_i p_ni + n w_i that is the product of q' = [r cos a ; r sin a] and
 * k' = [r cos c ; r sin c]: a map of queries and keys in front of ordinary attention. The cache holds k'.
 */
#include "part/mixer/heads.h"
#include "part/position/position.h"

#include <math.h>
#include <string.h>

typedef struct options {
    wf_heads_opt heads;
    int64_t window, offset;
    double base, eps, dropout, bias_std;
    bool scale;
    const char *delta, *init;
} options;

static const wf_option table[] = {
    WF_HEADS_OPTIONS_AS(options, heads, "false", "none", "1e-6", "false"),
    {"base", WF_OPT_REAL, offsetof(options, base), "10000", 1, 1e12, NULL, "ratio of the slowest and fastest turns"},
    {"offset", WF_OPT_INT, offsetof(options, offset), "0", 0, 1 << 30, NULL, "position of the first token"},
    {"eps", WF_OPT_REAL, offsetof(options, eps), "1e-9", 0, 1, NULL, "added to the squared magnitude"},
    {"scale", WF_OPT_BOOL, offsetof(options, scale), "false", 0, 0, NULL, "divide scores by sqrt(head_dim)"},
    {"delta", WF_OPT_CHOICE, offsetof(options, delta), "normal", 0, 0, "normal|one",
     "first scales of phases: normal with std 1/sqrt(head_dim/2), or 1, which is RoPE"},
    {"bias_std", WF_OPT_REAL, offsetof(options, bias_std), "0", 0, 10, NULL, "first shifts of phases: normal with this std"},
    {"init", WF_OPT_CHOICE, offsetof(options, init), "xavier", 0, 0, "xavier|model",
     "first weights of the projections: uniform in +-sqrt(6/(in+out)), or as the model has them"},
    {"window", WF_OPT_INT, offsetof(options, window), "0", 0, 1 << 30, NULL,
     "a token sees this many positions back (itself included); 0: all"},
    {"dropout", WF_OPT_REAL, offsetof(options, dropout), "0", 0, 0.99, NULL, "dropout of the attention weights"},
    WF_OPT_END};

static void xavier(wf_module *linear) {
    for (int i = 0; i < linear->n_param; i++)
        if (!strcmp(linear->param_name[i], "weight"))
            linear->param[i]->init = (wf_init){WF_INIT_UNIFORM, sqrt(6.0 / (double)(linear->in + linear->out))};
}

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    WF_TRY(wf_heads_setup(m, &o->heads));
    const wf_heads *h = m->data;
    if (h->d % 2)
        return wf_module_fail(m, WF_EINVAL, "a head of %lld channels is no row of complex numbers; the head width must be even",
                              (long long)h->d);
    if (h->position->part->rotate)
        return wf_module_fail(m, WF_EUNSUPPORTED,
                              "phases turn with the position already; with position: %s they would turn twice, take "
                              "position: none (in the mixer or in the model)",
                              h->position->part->name);
    if (!strcmp(o->init, "xavier")) xavier(h->q), xavier(h->k), xavier(h->v), xavier(h->o);
    bool one = !strcmp(o->delta, "one");
    wf_init delta = {one ? WF_INIT_ONE : WF_INIT_NORMAL, 1 / sqrt((double)h->d / 2)}, bias = {WF_INIT_NORMAL, o->bias_std};
    /* Heads that share keys share their scale, or k' would not be the same for all of them. */
    if (!wf_declare(m, "delta", WF_SHAPE(h->K, h->d / 2), delta, WF_PARAM_NO_DECAY)) return WF_ENOMEM;
    return wf_declare(m, "bias", WF_SHAPE(h->H, h->d / 2), bias, WF_PARAM_NO_DECAY) ? WF_OK : WF_ENOMEM;
}

/* x [B,L,n,d] -> the same with every complex number's phase p replaced by delta p + turn. delta [K,1,h], turn [L,K or 1,n/K or
 * 1,h]. In float32 at least: angles have to keep their digits. */
static wf_node *turn_phases(wf_build *b, wf_module *m, wf_node *x, wf_node *turn) {
    const options *o = m->opt;
    const wf_heads *s = m->data;
    wf_graph *g = b->g;
    wf_shape whole = x->shape;
    int64_t h = s->d / 2;
    x = wf_as(b, x, b->compute == WF_F64 ? WF_F64 : WF_F32);
    x = wf_reshape(g, x, WF_SHAPE(whole.dim[0], whole.dim[1], s->K, whole.dim[2] / s->K, s->d));
    wf_node *re = wf_slice(g, x, 4, 0, h), *im = wf_slice(g, x, 4, h, h);
    wf_node *r = wf_sqrt(g, wf_add_c(g, wf_add(g, wf_square(g, re), wf_square(g, im)), o->eps));
    wf_node *delta = wf_reshape(g, wf_use(b, m, "delta"), WF_SHAPE(s->K, 1, h));
    wf_node *p = wf_add(g, wf_mul(g, wf_atan2(g, im, re), delta), turn);
    wf_node *y = wf_concat(g, (wf_node *[]){wf_mul(g, r, wf_cos(g, p)), wf_mul(g, r, wf_sin(g, p))}, 2, 4);
    return wf_as(b, wf_reshape(g, y, whole), b->compute);
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    const wf_heads *h = m->data;
    wf_graph *g = b->g;
    wf_node *q, *k, *v;
    if (wf_heads_project(b, m, x, x, &q, &k, &v) != WF_OK) return NULL;
    int64_t L = q->shape.dim[1], half = h->d / 2;
    wf_node *angle = wf_reshape(g, wf_rope_angles(b, m, L, h->d, o->base, o->offset), WF_SHAPE(L, 1, 1, half));
    wf_node *shift = wf_reshape(g, wf_use(b, m, "bias"), WF_SHAPE(h->K, h->H / h->K, half));
    q = turn_phases(b, m, q, wf_add(g, shift, angle));
    k = turn_phases(b, m, k, angle);
    wf_attention_spec s = {.scale = o->scale ? 0 : 1, .dropout = o->dropout};
    wf_node *a = wf_heads_attend(b, m, q, k, v, &s, o->window);
    if (a && !b->plain) wf_tap(b, m, "lse", wf_output(a, 1));
    return wf_heads_merge(b, m, a);
}

const wf_part wf_mixer_complex = {
    .slot = "mixer",
    .name = "complex",
    .title = "complex multi-head attention: learned scale and shift of phase differences, by head",
    .paper = "ComplexFormer: Disruptively Advancing Transformer Inference Ability via Head-Specific Complex Vector Attention, "
             "2025 (preprint, withdrawn by its authors)",
    .sheet = "43",
    .formula = "z = (x_i, x_(i+h)) = r e^(i p); s_mn = sum_i r_mi r_ni cos(delta_i (p_mi - p_ni) + bias_i + (m-n) w_i)\n"
               "= q'_m.k'_n, q' = [r cos a; r sin a], a = delta p + bias + m w, k' without bias; o = softmax(s) v",
    .facts = "delta = 1, bias = 0 is RoPE of style half. Scores are not divided by sqrt(d) unless scale: true, so attention "
             "starts peaked.\n"
             "Phases jump by 2 pi on the negative real axis: unless delta is whole, the score is not continuous there.\n"
             "Positions are inside: take position: none or learned, not rope.",
    .cost = "softmax attention and 4 D functions (arctangent, sine, cosine, root) a token; H d more parameters; cache 2 K d "
            "numbers a token",
    .golden = "mixer.complex-attention",
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
