/* lrpe.c: linearised relative positions with learned angles (Qin et al. 2022): a fixed reflection, then a rotation.
 *
 *     z <- z - 2 (z.u) u, u a fixed random unit vector;  (z_2i, z_2i+1) turned by t theta_i, theta learned, t from 0
 *
 * q.k then depends on the positions through their difference alone. Of an odd number of channels the last is not turned.
 */
#include "part/position/position.h"

#include <math.h>

typedef struct options {
    double base;
    bool reflect;
} options;

static const wf_option table[] = {
    {"base", WF_OPT_REAL, offsetof(options, base), "10000", 1, 1e12, NULL, "theta_i starts at base^(-2i/d)"},
    {"reflect", WF_OPT_BOOL, offsetof(options, reflect), "true", 0, 0, NULL, "the reflection in front of the rotation"},
    WF_OPT_END};

static wf_status setup(wf_module *m) {
    const options *o = m->opt;
    int64_t d = m->in, pairs = d / 2;
    if (pairs < 1) return wf_module_fail(m, WF_EINVAL, "turns pairs of channels; a head of %lld has none", (long long)d);
    wf_init start = {WF_INIT_GEOMETRIC, pow(o->base, 2.0 * (double)pairs / (double)d)};
    if (!wf_declare(m, "theta", WF_SHAPE(pairs), start, WF_PARAM_NO_DECAY)) return WF_ENOMEM;
    uint32_t fixed = WF_PARAM_BUFFER | WF_PARAM_NO_DECAY;
    return !o->reflect || wf_declare(m, "u", WF_SHAPE(d), (wf_init){WF_INIT_DIRECTION, 1}, fixed) ? WF_OK : WF_ENOMEM;
}

static wf_node *turn(wf_build *b, wf_node *z, wf_node *u, wf_node *angle) {
    wf_graph *g = b->g;
    if (!z) return NULL;
    wf_dtype t = z->dtype;
    if (u) {
        wf_node *along = wf_sum(g, wf_mul(g, z, u), 1u << 3, true);
        z = wf_as(b, wf_sub(g, z, wf_mul(g, wf_mul_c(g, along, 2), u)), t);
    }
    return wf_rotate(g, z, angle, true);
}

static wf_status rotate(wf_build *b, wf_module *m, wf_node **q, wf_node **k) {
    wf_node *x = *q ? *q : *k;
    if (!x) return WF_EINVAL;
    wf_graph *g = b->g;
    wf_node *theta = wf_use(b, m, "theta"), *u = wf_use_or_null(b, m, "u");
    wf_node *t = wf_positions(b, b->compute == WF_F64 ? WF_F64 : WF_F32, x->shape.dim[1]);
    wf_node *angle = t ? wf_mul(g, wf_unsqueeze(g, t, 1), theta) : NULL;
    if (*q) *q = turn(b, *q, u, angle);
    if (*k) *k = turn(b, *k, u, angle);
    return angle ? WF_OK : WF_EINVAL;
}

const wf_part wf_position_lrpe = {
    .slot = "position",
    .name = "lrpe",
    .title = "LRPE: a fixed reflection, then rotation by learned angles",
    .paper =
        "Qin, Sun, Lu, Deng, Li, Han, Dai, Kong, Zhong: Linearized Relative Positional Encoding, 2023, arXiv 2307.09270; as "
        "used by TransNormer",
    .sheet = "09",
    .formula = "z <- z - 2 (z.u) u;  angle_i = t theta_i;  (z_2i, z_2i+1) -> (z_2i cos - z_2i+1 sin, z_2i+1 cos + z_2i sin)",
    .facts = "theta [d/2] is trained and shared by the heads of a layer, u [d] is drawn once and kept in the model file.\n"
             "Keys and queries may be turned after a feature map: weights of linear attention can then be negative.",
    .cost = "7 d FLOPs a token and head for q and for k; d/2 parameters a layer",
    .golden = "mixer.norm-attention mixer.diag-attention block.transnormer",
    .options = table,
    .opt_size = sizeof(options),
    .setup = setup,
    .rotate = rotate,
};
