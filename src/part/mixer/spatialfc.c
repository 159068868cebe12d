/* spatialfc.c: one dense matrix over positions, learned (spatialfc) or frozen and random.
 *
 *     spatialfc  y_i = sum_j W_ij x_j, W [N,N], no bias, the same for all channels (Yu et al. 2021, after Tolstikhin et al. 2021)
 *     random     y_i = sum_j softmax(R)_ij x_j, R uniform and never trained (Yu et al. 2022)
 *
 * N is the model's number of tokens; a shorter input uses the first rows and columns.
 */
#include "part/mixer/tokens.h"

#include <math.h>

wf_status wf_positions_fixed(const wf_module *m, int64_t *n) {
    *n = m->model->max_length;
    if (*n > 0) return WF_OK;
    return wf_module_fail(m, WF_EINVAL,
                          "needs a fixed number of tokens, and the model leaves it open; give length or image_height");
}

wf_node *wf_unpadded(wf_build *b, wf_node *x) {
    if (!x) return NULL;
    x = wf_as(b, x, b->compute == WF_F64 ? WF_F64 : WF_F32);
    wf_node *keep = wf_keep_mask(b, x);
    return keep ? wf_mul(b->g, x, wf_unsqueeze(b->g, wf_as(b, keep, x->dtype), 2)) : x;
}

wf_node *wf_mix_positions(wf_build *b, const wf_module *m, wf_node *w, wf_node *x) {
    wf_graph *g = b->g;
    if (!w || !x) return NULL;
    int64_t L = x->shape.dim[1], N = w->shape.dim[0];
    if (L > N || (b->grid[0] > 0 && L != N))
        return wf_graph_fail(g, WF_EINVAL, "%s: %lld tokens, but its matrix is over %lld positions", m->name, (long long)L,
                             (long long)N);
    if (L < N) w = wf_slice(g, wf_slice(g, w, 0, 0, L), 1, 0, L);
    return wf_matmul(g, wf_as(b, w, b->compute), wf_as(b, wf_unpadded(b, x), b->compute), false, false);
}

static wf_status setup(wf_module *m) {
    int64_t N;
    WF_TRY(wf_positions_fixed(m, &N));
    wf_init init = {WF_INIT_UNIFORM, 1 / sqrt((double)N)};
    return wf_declare(m, "weight", WF_SHAPE(N, N), init, WF_PARAM_MATRIX) ? WF_OK : WF_ENOMEM;
}

static wf_node *forward(wf_build *b, wf_module *m, wf_node *x) {
    return wf_mix_positions(b, m, wf_use(b, m, "weight"), x);
}

const wf_part wf_mixer_spatialfc = {
    .slot = "mixer",
    .name = "spatialfc",
    .title = "one learned matrix over positions, the same for all channels",
    .paper = "Yu et al.: MetaFormer Is Actually What You Need for Vision, 2021, arXiv 2111.11418; Tolstikhin et al.: "
             "MLP-Mixer, 2021, "
             "arXiv 2105.01601",
    .sheet = "28",
    .formula = "y_i = sum_j W_ij x_j, W [N,N], no bias",
    .facts = "The number of tokens is fixed when the model is made. Positions are row-major (y, then x), special tokens first.",
    .cost = "2 N D FLOPs a token, N N parameters",
    .golden = "model.metaformer",
    .bidirectional_ok = true,
    .setup = setup,
    .forward = forward,
};

static wf_status random_setup(wf_module *m) {
    int64_t N;
    WF_TRY(wf_positions_fixed(m, &N));
    wf_init init = {WF_INIT_UNIFORM, 0.5}; /* a softmax does not see the mean */
    return wf_declare(m, "weight", WF_SHAPE(N, N), init, WF_PARAM_FROZEN | WF_PARAM_NO_DECAY) ? WF_OK : WF_ENOMEM;
}

/* Over the positions that there are: a shorter input has rows that sum to 1 too. */
static wf_node *random_forward(wf_build *b, wf_module *m, wf_node *x) {
    wf_node *w = wf_stop_gradient(b->g, wf_use(b, m, "weight"));
    if (!w || !x) return NULL;
    int64_t L = x->shape.dim[1];
    if (L < w->shape.dim[0]) w = wf_slice(b->g, wf_slice(b->g, w, 0, 0, L), 1, 0, L);
    return wf_mix_positions(b, m, wf_softmax(b->g, w), x);
}

const wf_part wf_mixer_random = {
    .slot = "mixer",
    .name = "random",
    .title = "a frozen random matrix over positions",
    .paper = "Yu et al.: MetaFormer Baselines for Vision, 2022, arXiv 2210.13452",
    .sheet = "28",
    .formula = "y_i = sum_j softmax(R)_ij x_j, R [N,N] uniform in [0,1), never trained",
    .facts = "An ablation: mixing that nobody chose. The matrix is in the file, but not among the trainable parameters.",
    .cost = "2 N D FLOPs a token, no trainable parameters, N N numbers kept",
    .golden = "",
    .bidirectional_ok = true,
    .setup = random_setup,
    .forward = random_forward,
};
