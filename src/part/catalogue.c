/* catalogue.c: the one table of all parts, by slot. A new part is one line here. Models add their own (src/model/registry.c). */
#include "part/channel/channel.h"
#include "part/linear/linear.h"
#include "part/mixer/heads.h"
#include "part/mixer/sparse.h"
#include "part/mixer/tokens.h"
#include "part/norm/norm.h"
#include "part/placement/placement.h"
#include "part/position/position.h"
#include "part/topology/stack.h"

#include <pthread.h>
#include <string.h>

/* clang-format off */
static const wf_part *const parts[] = {
    /* norm */
    &wf_norm_layernorm, &wf_norm_rmsnorm, &wf_norm_groupnorm, &wf_norm_batchnorm, &wf_norm_dyt, &wf_norm_l2norm, &wf_norm_none,
    &wf_norm_unified, &wf_norm_power, &wf_norm_groupscale, &wf_norm_repbn, &wf_norm_prepbn, &wf_norm_crmsnorm, &wf_norm_srmsnorm, &wf_norm_affinemap,
    &wf_norm_adaln,
    /* linear */
    &wf_linear_dense, &wf_linear_sigma, &wf_linear_zero_mean,
    /* position */
    &wf_position_learned, &wf_position_sinusoidal, &wf_position_rope, &wf_position_alibi, &wf_position_none,
    &wf_position_lrpe,
    /* mixer */
    &wf_mixer_softmax, &wf_mixer_linear, &wf_mixer_sigmoid, &wf_mixer_complex,
    &wf_mixer_flow, &wf_mixer_norm_attention, &wf_mixer_diag_attention, &wf_mixer_simplified_linear,
    &wf_mixer_pool, &wf_mixer_identity, &wf_mixer_random, &wf_mixer_spatialfc, &wf_mixer_glu, &wf_mixer_cross,
    &wf_mixer_performer, &wf_mixer_linformer, &wf_mixer_longformer, &wf_mixer_bigbird, &wf_mixer_lsh,
    /* channel */
    &wf_channel_mlp, &wf_channel_swiglu, &wf_channel_geglu,
    &wf_channel_glu,
    /* topology */
    &wf_topology_plain, &wf_topology_macaron, &wf_topology_wide, &wf_topology_activator, &wf_topology_mixer_only,
};
/* clang-format on */

enum { MAX_PARTS = 512 };
static const wf_part *all[MAX_PARTS];
static int n_all;
static pthread_once_t once = PTHREAD_ONCE_INIT;

void wf_part_register_model(const wf_part *p) {
    if (n_all < MAX_PARTS) all[n_all++] = p;
}

static void gather(void) {
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) all[n_all++] = parts[i];
    for (int i = 0; i < wf_n_placements; i++) all[n_all++] = &wf_placements[i].part;
    wf_models_register();
}

const wf_part *const *wf_part_all(int *n) {
    pthread_once(&once, gather);
    *n = n_all;
    return all;
}

const wf_part *wf_part_find(const char *slot, const char *name) {
    int n = 0, known = 0;
    const wf_part *const *p = wf_part_all(&n);
    const char *names[MAX_PARTS];
    wf_text list = {0};
    for (int i = 0; i < n; i++) {
        if (strcmp(p[i]->slot, slot)) continue;
        if (!strcmp(p[i]->name, name)) {
            wf_text_free(&list);
            return p[i];
        }
        wf_text_add(&list, "%s%s", known ? ", " : "", p[i]->name);
        names[known++] = p[i]->name;
    }
    const char *near = wf_nearest(name, names, known);
    wf_fail(WF_ENOTFOUND, "there is no %s '%s'%s%s%s (there are: %s)", slot, name, near ? "; did you mean '" : "",
            near ? near : "", near ? "'?" : "", list.s ? list.s : "none");
    wf_text_free(&list);
    return NULL;
}
