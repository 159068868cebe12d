/* placement.h: where norms stand around a sublayer. One row of a table says it all; nothing else in the engine knows it.
 *
 *     u = in(x);  y = out(f(u));  x <- res(stream * x + factor * gate * scale * y)
 */
#ifndef WF_PLACEMENT_H
#define WF_PLACEMENT_H

#include "part/part.h"

typedef struct wf_placement { /* `part` first: found by name in the catalogue, then cast */
    wf_part part;
    bool in, out, res, inside; /* which norms there are */
    bool final_norm;           /* a norm after the last block is needed */
    bool deep; /* DeepNorm: stream factor (2 layers)^(1/4), values and outputs start (8 layers)^(-1/4) smaller */
    bool gate; /* adaLN-zero: the branch is multiplied by a gate made of the model's condition, 0 at the start */
} wf_placement;

typedef struct wf_sublayer {
    const char *name; /* "mixer": its norms are "mixer_in_norm", "mixer_out_norm", "mixer_res_norm", its scale "mixer_scale" */
    wf_module *f, *in, *out, *res;
    double stream, factor, dropout, drop_path;
    const char *scale; /* parameter name, or NULL */
    wf_module *gate;   /* condition -> [.., D], or NULL */
} wf_sublayer;

typedef struct wf_sublayer_want { /* what a topology asks for */
    const char *name, *slot, *default_name;
    const wf_value *spec;
    wf_module *f;       /* a module to use again, or NULL: make one of spec */
    wf_module *in_norm; /* the norm in front, shared with others; NULL: one of its own where the placement has one */
    double factor, dropout, drop_path, layer_scale;
} wf_sublayer_want;

/* `place`: a module of slot placement. Children and parameters go to `block`. */
wf_status wf_sublayer_setup(wf_module *block, const wf_module *place, const wf_sublayer_want *w, wf_sublayer *s);
wf_node *wf_sublayer_forward(wf_build *b, wf_module *block, const wf_sublayer *s, wf_node *x);

extern const wf_placement wf_placements[];
extern const int wf_n_placements;

#endif
