/* rope.c: rotary positions (Su et al. 2021): queries and keys are turned by angles that grow with the position, so that their
 * product depends on the distance alone.
 *
 *     angle_i = t base^(-2i/r), i < r/2;  (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin)
 *     style half: pairs (i, i + r/2) (Llama, NeoX); interleaved: pairs (2i, 2i+1) (GPT-J, the paper). The rest of d passes.
 */
#include "part/position/position.h"

#include <string.h>

typedef struct options {
    double base;
    int64_t dim, offset;
    const char *style;
} options;

static const wf_option table[] = {
    {"style", WF_OPT_CHOICE, offsetof(options, style), "half", 0, 0, "half|interleaved",
     "which channels turn together: (i, i+r/2) or (2i, 2i+1)"},
    {"base", WF_OPT_REAL, offsetof(options, base), "10000", 1, 1e12, NULL, "ratio of the slowest and fastest turns"},
    {"dim", WF_OPT_INT, offsetof(options, dim), "0", 0, 1 << 20, NULL, "channels of a head that turn (even); 0: all"},
    {"offset", WF_OPT_INT, offsetof(options, offset), "0", 0, 1 << 30, NULL, "position of the first token"},
    WF_OPT_END};

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    int64_t d = m->in, r = o->dim ? o->dim : d;
    if (r % 2 || r > d)
        return wf_module_fail(m, WF_EINVAL,
                              "turns %lld of %lld channels of a head; 'dim' must be even and at most the head width",
                              (long long)r, (long long)d);
    return WF_OK;
}

static wf_status rotate(wf_build *b, wf_module *m, wf_node **q, wf_node **k) {
    const options *o = m->opt;
    wf_node *x = *q ? *q : *k;
    if (!x) return WF_EINVAL;
    int64_t r = o->dim ? o->dim : m->in;
    bool interleaved = !strcmp(o->style, "interleaved");
    wf_node *angle = wf_rope_angles(b, m, x->shape.dim[1], r, o->base, o->offset);
    if (*q) *q = wf_rotate(b->g, *q, angle, interleaved);
    if (*k) *k = wf_rotate(b->g, *k, angle, interleaved);
    return angle ? WF_OK : WF_EINVAL;
}

const wf_part wf_position_rope = {
    .slot = "position",
    .name = "rope",
    .title = "rotary positions: queries and keys turn with their position",
    .paper = "Su et al.: RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021, arXiv 2104.09864",
    .sheet = "00",
    .formula = "angle_i = t base^(-2i/r); (x1,x2) -> (x1 cos - x2 sin, x2 cos + x1 sin) for q and k, not v",
    .facts = "The two styles are different models for the same weights. Keys are cached after turning.",
    .cost = "3 r FLOPs a token and head for q and for k, no parameters",
    .golden = "attention.softmax",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .rotate = rotate,
};
