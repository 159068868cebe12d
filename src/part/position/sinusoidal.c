/* sinusoidal.c: sines and cosines of geometric frequencies, added to the stream (Vaswani et al. 2017).
 *
 *     table[t,2i] = sin(t base^(-2i/D)),  table[t,2i+1] = cos(t base^(-2i/D))
 */
#include "part/position/position.h"

#include <string.h>

typedef struct options {
    double base;
    int64_t offset;
    const char *layout;
} options;

static const wf_option table[] = {
    {"base", WF_OPT_REAL, offsetof(options, base), "10000", 1, 1e12, NULL, "ratio of the longest and shortest wave lengths"},
    {"layout", WF_OPT_CHOICE, offsetof(options, layout), "interleaved", 0, 0, "interleaved|halves",
     "sin, cos, sin, cos .. or all sines first"},
    {"offset", WF_OPT_INT, offsetof(options, offset), "0", 0, 1 << 30, NULL, "position of the first token"},
    WF_OPT_END};

static void fill(wf_tensor *t, const void *ctx) {
    const options *o = ctx;
    wf_sinusoid_table(t->data, t->shape.dim[0], t->shape.dim[1], o->base, o->offset, !strcmp(o->layout, "halves"));
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    const options *o = m->opt;
    if (!x) return NULL;
    int64_t L = x->shape.dim[x->shape.rank - 2], rows = wf_position_room(b, m, L);
    char key[128];
    snprintf(key, sizeof key, "sinusoid %s %lld %lld %.17g %lld", o->layout, (long long)rows, (long long)m->in, o->base,
             (long long)o->offset);
    wf_tensor *t = wf_model_constant(m->model, key, WF_F32, WF_SHAPE(rows, m->in), fill, o);
    if (!t) return wf_graph_fail(b->g, WF_ENOMEM, "%s", wf_message());
    wf_node *r = wf_position_rows(b, m, wf_leaf(b->g, t, "sinusoid"), L);
    wf_tap(b, m, "table", r);
    return wf_add(b->g, x, r);
}

const wf_part wf_position_sinusoidal = {
    .slot = "position",
    .name = "sinusoidal",
    .title = "sines and cosines of geometric frequencies, added to the embedding",
    .paper = "Vaswani et al.: Attention Is All You Need, 2017, arXiv 1706.03762",
    .sheet = "00",
    .formula = "x_t <- x_t + table_t; table[t,2i] = sin(t base^(-2i/D)), table[t,2i+1] = cos(t base^(-2i/D))",
    .facts = "Any length. The embedding is usually multiplied by sqrt(D) first (embed_scale: sqrt_width).",
    .cost = "D FLOPs a token, no parameters",
    .golden = "position.sinusoidal",
    .options = table,
    .opt_size = sizeof(options),
    .forward = forward,
};
