/* centre.c: taking the mean over the channels out of what writes to the residual stream, and asking whether it is out. */
#include "transform/centre.h"

#include <math.h>
#include <string.h>

/* Why the model's first vectors are not a sum of linears and tables; NULL: they are. */
static const char *start_why(const wf_edit *e) {
    const wf_module *root = e->m->root;
    wf_module *position = wf_module_find((wf_module *)(uintptr_t)root, "position"),
              *embed = wf_module_find((wf_module *)(uintptr_t)root, "embed_norm"),
              *patch = wf_module_find((wf_module *)(uintptr_t)root, "patch_out_norm");
    const char *fixed = wf_module_choice(root, "positions");
    if (!wf_module_writers(root)) return "this model does not say what its stream starts from";
    if (position && position->part->forward && !wf_module_is(position, "position", "learned") &&
        !wf_module_is(position, "position", "none"))
        return "its positions are a fixed table with a mean of its own; learned, rope and alibi positions can be centred";
    if (fixed && strcmp(fixed, "learned") && strcmp(fixed, "none"))
        return "its positions are a fixed table with a mean of its own; learned positions can be centred";
    if (embed && !wf_module_is(embed, "norm", "none")) return "the stream starts from a norm's output (embed_norm)";
    if (patch && !wf_module_is(patch, "norm", "none")) return "the stream starts from a norm's output (patch_out_norm)";
    return NULL;
}

wf_status wf_centre_linear(wf_edit *e, const wf_module *l) {
    const char *weight = wf_edit_name(e, l, "weight"), *bias = wf_edit_name(e, l, "bias");
    double *w = wf_edit_take(e, weight, NULL), *c = wf_edit_has(e, bias) ? wf_edit_take(e, bias, NULL) : NULL;
    if (!w) return WF_ENOMEM;
    wf_subtract_mean(l->out, l->in, 0, w);
    if (c) wf_subtract_mean(l->out, 1, 0, c);
    return WF_OK;
}

wf_status wf_edit_centre_start(wf_edit *e, const char **why) {
    enum { ROOM = 8 };
    wf_module *linear[ROOM];
    const char *param[ROOM];
    if ((*why = start_why(e))) return WF_OK;
    int n = wf_edit_starts(e, linear, param, ROOM);
    for (int i = 0; i < n; i++) {
        if (linear[i]) {
            WF_TRY(wf_centre_linear(e, linear[i]));
            continue;
        }
        wf_shape s;
        double *x = wf_edit_take(e, param[i], &s);
        if (!x) return WF_ENOMEM;
        int64_t D = s.dim[s.rank - 1];
        wf_subtract_mean(wf_shape_count(&s) / D, D, 1, x);
    }
    return WF_OK;
}

/* Largest |mean over channels| of the columns of x [n,D] (stride apart), over the root mean square of all entries. */
static double off_centre(int64_t lines, int64_t D, int64_t next, int64_t step, const double *x) {
    double worst = 0, square = 0;
    for (int64_t k = 0; k < lines; k++) {
        double sum = 0;
        for (int64_t i = 0; i < D; i++) {
            double v = x[k * next + i * step];
            sum += v;
            square += v * v;
        }
        worst = fmax(worst, fabs(sum / (double)D));
    }
    return square > 0 ? worst / sqrt(square / (double)(lines * D)) : 0;
}

static wf_status linear_off(wf_edit *e, const wf_module *l, double *worst) {
    const char *bias = wf_edit_name(e, l, "bias");
    const double *w = wf_edit_take(e, wf_edit_name(e, l, "weight"), NULL),
                 *c = wf_edit_has(e, bias) ? wf_edit_take(e, bias, NULL) : NULL;
    if (!w) return WF_ENOMEM;
    *worst = fmax(*worst, off_centre(l->in, l->out, 1, l->in, w));
    if (c) *worst = fmax(*worst, off_centre(1, l->out, 0, 1, c));
    return WF_OK;
}

wf_status wf_centre_measure(wf_edit *e, wf_module *const *writer, int n_writer, double *worst) {
    enum { ROOM = 8 };
    wf_module *linear[ROOM];
    const char *param[ROOM];
    int n = wf_edit_starts(e, linear, param, ROOM);
    *worst = 0;
    for (int i = 0; i < n_writer; i++) WF_TRY(linear_off(e, writer[i], worst));
    for (int i = 0; i < n; i++) {
        if (linear[i]) {
            WF_TRY(linear_off(e, linear[i], worst));
            continue;
        }
        wf_shape s;
        const double *x = wf_edit_take(e, param[i], &s);
        if (!x) return WF_ENOMEM;
        int64_t D = s.dim[s.rank - 1];
        *worst = fmax(*worst, off_centre(wf_shape_count(&s) / D, D, D, 1, x));
    }
    return WF_OK;
}

const char *wf_centre_start_why(const wf_edit *e) {
    return start_why(e);
}
