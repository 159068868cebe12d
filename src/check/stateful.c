/* stateful.c: cases of norms that keep state: several training steps, each a forward and a backward pass, then evaluation. Buffers
 * start as in.buf.* and are compared after every step with out.buf.*_k. And the case of LayerNorm, RMSNorm and CRMSNorm. */
#include "check/case.h"

#include <string.h>

static const wf_name_rule plain_rules[] = {{"weight", "weight", 0}, {"bias", "bias", 0}, {0}};
static const wf_name_rule repbn_rules[] = {{"alpha", "alpha", 0}, {"bn.weight", "weight", 0}, {"bn.bias", "bias", 0}, {0}};
static const wf_name_rule prepbn_rules[] = {{"norm1.weight", "norm1.weight", 0}, {"norm1.bias", "norm1.bias", 0},
                                            {"norm2.alpha", "norm2.alpha", 0},   {"norm2.bn.weight", "norm2.weight", 0},
                                            {"norm2.bn.bias", "norm2.bias", 0},  {0}};
static const char *const nothing[] = {NULL};
static const wf_name_map names_plain = {"norm", "", plain_rules, nothing}, names_repbn = {"repbn", "", repbn_rules, nothing},
                         names_prepbn = {"prepbn", "", prepbn_rules, nothing};

typedef struct buffer_name {
    const char *file, *own;
} buffer_name;

typedef struct stateful {
    const buffer_name *buffer; /* ends with file == NULL; one that the file never speaks of keeps its first value */
    const char *mask;          /* NULL, "pad_mask" (1: padding) or "keep_mask" (1: counts) */
    int64_t steps;
} stateful;

static bool from_file(wf_case *c, const char *kind, const char *name, const char *step) {
    char *full = wf_arena_format(c->arena, "%s.buf.%s%s", kind, name, step);
    return full && wf_case_has(c, full);
}

static wf_status load_buffers(wf_case *c, wf_model *m, const stateful *s) {
    for (const buffer_name *n = s->buffer; n->file; n++) {
        if (!from_file(c, "in", n->file, "")) {
            bool told = !strcmp(n->file, "iters") && wf_case_key(c, "initial_iters");
            if (!told && from_file(c, "out", n->file, "_0"))
                return wf_case_fail(c, "tensor 'in.buf.%s' is missing: what out.buf.%s_0 started from", n->file, n->file);
            continue;
        }
        wf_param *p = wf_model_param(m, n->own);
        wf_tensor *t = p ? wf_case_read(c, wf_arena_format(c->arena, "in.buf.%s", n->file), p->value->dtype) : NULL;
        if (!t) return p ? WF_EFORMAT : wf_case_fail(c, "in.buf.%s: this norm keeps no such state", n->file);
        bool number = wf_tensor_count(t) == 1 && wf_tensor_count(p->value) == 1; /* [] or [1] */
        wf_status st = number || wf_shape_equal(&t->shape, &p->value->shape) ? WF_OK : WF_EINVAL;
        char a[96], b[96];
        if (st == WF_OK)
            memcpy(p->value->data, t->data, t->bytes);
        else
            wf_case_fail(c, "in.buf.%s is %s, the norm keeps %s", n->file, wf_shape_text(&t->shape, a),
                         wf_shape_text(&p->value->shape, b));
        wf_tensor_free(t);
        WF_TRY(st);
    }
    return WF_OK;
}

static wf_status read_mask(wf_case *c, const stateful *s) {
    if (!s->mask) return WF_OK;
    wf_node *mask = wf_case_in(c, s->mask);
    if (!mask) return wf_fail(WF_EFORMAT, "%s", wf_graph_message(c->graph));
    if (strcmp(s->mask, "pad_mask")) {
        c->build.keep = mask;
        return WF_OK;
    }
    c->build.keep = wf_eq(c->graph, mask, wf_fill(c->graph, mask->dtype, WF_SHAPE(1), 0));
    return wf_graph_status(c->graph);
}

static wf_status one_step(wf_case *c, wf_model *m, const stateful *s, const char *step, bool train) {
    WF_TRY(wf_case_begin(c, step));
    c->build.train = train;
    if (train) WF_TRY(read_mask(c, s));
    wf_case_out(c, "y", wf_apply(&c->build, m->root, wf_case_in(c, "x")));
    WF_TRY(wf_case_solve(c));
    for (const buffer_name *n = s->buffer; train && n->file; n++) {
        if (!from_file(c, "out", n->file, step)) continue;
        wf_param *p = wf_model_param(m, n->own);
        if (!p) return wf_case_fail(c, "out.buf.%s%s: this norm keeps no such state", n->file, step);
        char *name = wf_arena_format(c->arena, "buf.%s", n->file);
        WF_TRY(name ? wf_case_compare(c, name, p->value) : WF_ENOMEM);
    }
    return WF_OK;
}

static wf_status run_steps(wf_case *c, wf_model *m, const stateful *s) {
    WF_TRY(load_buffers(c, m, s));
    for (int64_t k = 0; k < s->steps; k++) {
        char step[24];
        snprintf(step, sizeof step, "_%lld", (long long)k);
        WF_TRY(one_step(c, m, s, step, true));
    }
    return wf_case_has(c, "out.y_eval") ? one_step(c, m, s, "_eval", false) : WF_OK;
}

/* Channels of in.x_0 [B,N,C], or [N,C]; 0 after an error. */
static int64_t channels(wf_case *c) {
    const wf_st_entry *x = wf_case_entry(c, "in.x_0");
    if (!x) return 0;
    if (x->shape.rank < 2 || x->shape.rank > 3) return wf_case_fail(c, "in.x_0 must be [B,N,C]"), 0;
    int64_t C = x->shape.dim[x->shape.rank - 1];
    return wf_case_same(c, "channels", C) == WF_OK ? C : 0;
}

static wf_status finish(wf_case *c, const char *spec, int64_t C, const wf_name_map *map, stateful *s) {
    WF_TRY(wf_case_int(c, "steps", 1, &s->steps));
    wf_model *m = spec ? wf_case_part(c, "norm", spec, C, C, false, 0, map) : NULL;
    return m ? run_steps(c, m, s) : WF_EINVAL;
}

/* "pad_mask": true in the config goes with in.pad_mask; initial_iters with in.buf.iters. */
static wf_status read_pads(wf_case *c, stateful *s) {
    bool padded;
    WF_TRY(wf_case_bool(c, "pad_mask", wf_case_has(c, "in.pad_mask") || wf_case_has(c, "in.pad_mask_0"), &padded));
    s->mask = padded ? "pad_mask" : NULL;
    return WF_OK;
}

/* The counter at the start: what the config says of it, which in.buf.* must not contradict. */
static wf_status begin_at(wf_case *c, wf_model *m, const char *key, const char *own, const char *file) {
    wf_param *p = wf_model_param(m, own);
    int64_t at;
    if (!p) return WF_ENOTFOUND;
    if (!from_file(c, "in", file, "")) {
        WF_TRY(wf_case_int(c, key, 0, &at));
        wf_tensor_set(p->value, 0, (double)at);
        return WF_OK;
    }
    wf_tensor *t = wf_case_read(c, wf_arena_format(c->arena, "in.buf.%s", file), WF_F64);
    wf_status s = !t ? WF_EFORMAT : wf_tensor_count(t) == 1 ? WF_OK : wf_case_fail(c, "in.buf.%s must be one number", file);
    if (s == WF_OK) s = wf_case_same(c, key, (int64_t)wf_tensor_get(t, 0));
    wf_tensor_free(t);
    return s;
}

static const char *yes(bool b) {
    return b ? "true" : "false";
}

/* ---- norm.unified ---- */

static wf_status unified(wf_case *c) {
    static const char *const thresholds[] = {"code", "code", "per_channel", "per_channel", NULL};
    static const char *const updates[] = {"code", "code", "off", "off", NULL};
    static const buffer_name buffers[] = {{"running_var", "running_var"},
                                          {"ema_gz", "ema_gz"},
                                          {"iters", "iters"},
                                          {"buffer_x2", "buffer_x2"},
                                          {"buffer_gz", "buffer_gz"},
                                          {"skip_counter", "skip_counter"},
                                          {0}};
    stateful s = {.buffer = buffers};
    int64_t C = channels(c), window, M, Mb, warmup;
    double eps, momentum;
    bool filter;
    const char *threshold, *running;
    if (!C) return WF_EFORMAT;
    WF_TRY(wf_case_int(c, "window", 4, &window));
    WF_TRY(wf_case_int(c, "window_fp", window, &M));
    WF_TRY(wf_case_int(c, "window_bp", window, &Mb));
    WF_TRY(wf_case_int(c, "warmup_iters", 4000, &warmup));
    WF_TRY(wf_case_bool(c, "outlier_filtration", false, &filter));
    WF_TRY(wf_case_choice(c, "threshold", thresholds, "code", &threshold));
    WF_TRY(wf_case_choice(c, "skip_updates_running", updates, "code", &running));
    WF_TRY(wf_case_real(c, "eps", 1e-5, &eps));
    WF_TRY(wf_case_real(c, "momentum", 0.9, &momentum));
    WF_TRY(wf_case_int(c, "steps", 1, &s.steps));
    WF_TRY(read_pads(c, &s));
    char *spec =
        wf_arena_format(c->arena,
                        "{name: unified, window: [%lld, %lld], warmup_iters: %lld, outlier_filtration: %s, threshold: %s, "
                        "skip_updates_running: %s, eps: %.17g, momentum: %.17g, affine: %s}",
                        (long long)M, (long long)Mb, (long long)warmup, yes(filter), threshold, running, eps, momentum,
                        yes(wf_case_has(c, "param.weight")));
    wf_model *m = spec ? wf_case_part(c, "norm", spec, C, C, false, 0, &names_plain) : NULL;
    if (!m) return WF_EINVAL;
    WF_TRY(begin_at(c, m, "initial_iters", "iters", "iters"));
    return run_steps(c, m, &s);
}

/* ---- norm.power ---- */

static wf_status power(wf_case *c) {
    static const char *const variants[] = {"power", "power", "PN", "power", "vanilla", "vanilla", "PN-V", "vanilla", NULL};
    static const char *const scales[] = {"batch", "batch", "running", "running", NULL};
    static const buffer_name buffers[] = {{"running_phi", "running_phi"}, {"ema_gz", "ema_gz"}, {"iters", "iters"}, {0}};
    stateful s = {.buffer = buffers};
    int64_t C = channels(c), groups, warmup;
    double forward, backward, eps, group_eps;
    bool group_scale;
    const char *variant, *scale;
    if (!C) return WF_EFORMAT;
    WF_TRY(wf_case_int(c, "group_num", 1, &groups));
    WF_TRY(wf_case_int(c, "warmup_iters", 10000, &warmup));
    WF_TRY(wf_case_real(c, "alpha_fwd", 0.9, &forward));
    WF_TRY(wf_case_real(c, "alpha_bkw", 0.9, &backward));
    WF_TRY(wf_case_real(c, "eps", 1e-5, &eps));
    WF_TRY(wf_case_real(c, "group_eps", 1e-5, &group_eps));
    WF_TRY(wf_case_bool(c, "group_scale", true, &group_scale));
    WF_TRY(wf_case_choice(c, "variant", variants, "power", &variant));
    WF_TRY(wf_case_choice(c, "bwd_scale", scales, "batch", &scale));
    WF_TRY(wf_case_int(c, "steps", 1, &s.steps));
    WF_TRY(read_pads(c, &s));
    char *spec =
        wf_arena_format(c->arena,
                        "{name: power, group_num: %lld, warmup_iters: %lld, alpha_fwd: %.17g, alpha_bkw: %.17g, eps: %.17g, "
                        "group_eps: %.17g, group_scale: %s, variant: %s, bwd_scale: %s, affine: %s}",
                        (long long)groups, (long long)warmup, forward, backward, eps, group_eps, yes(group_scale), variant,
                        scale, yes(wf_case_has(c, "param.weight")));
    wf_model *m = spec ? wf_case_part(c, "norm", spec, C, C, false, 0, &names_plain) : NULL;
    if (!m) return WF_EINVAL;
    WF_TRY(begin_at(c, m, "initial_iters", "iters", "iters"));
    return run_steps(c, m, &s);
}

/* ---- norm.repbn, norm.prepbn ---- */

static wf_status repbn(wf_case *c) {
    static const buffer_name buffers[] = {{"running_mean", "running_mean"}, {"running_var", "running_var"}, {0}};
    stateful s = {.buffer = buffers};
    int64_t C = channels(c);
    double eps, momentum;
    if (!C) return WF_EFORMAT;
    WF_TRY(wf_case_real(c, "eps", 1e-5, &eps));
    WF_TRY(wf_case_real(c, "bn_eps", eps, &eps));
    WF_TRY(wf_case_real(c, "bn_momentum", 0.1, &momentum));
    s.mask = wf_case_has(c, "in.keep_mask") || wf_case_has(c, "in.keep_mask_0") ? "keep_mask" : NULL;
    return finish(c, wf_arena_format(c->arena, "{name: repbn, eps: %.17g, momentum: %.17g}", eps, momentum), C, &names_repbn,
                  &s);
}

static wf_status prepbn(wf_case *c) {
    static const char *const norms[] = {"layernorm", "layernorm", "LayerNorm", "layernorm", "LN",      "layernorm", "rmsnorm",
                                        "rmsnorm",   "RMSNorm",   "rmsnorm",   "RMS",       "rmsnorm", NULL};
    static const buffer_name buffers[] = {{"running_mean", "norm2.running_mean"},
                                          {"running_var", "norm2.running_var"},
                                          {"warm", "warm"},
                                          {"iter", "iter"},
                                          {"num_step", "num_step"},
                                          {0}};
    stateful s = {.buffer = buffers};
    int64_t C = channels(c), warm, total, every;
    double r0, eps, ln_eps, bn_eps, momentum;
    const char *norm1;
    if (!C) return WF_EFORMAT;
    WF_TRY(wf_case_int(c, "warm", 0, &warm));
    WF_TRY(wf_case_int(c, "total_step", 300000, &total));
    WF_TRY(wf_case_int(c, "forwards_per_step", from_file(c, "in", "num_step", "") ? 16 : 1, &every));
    WF_TRY(wf_case_real(c, "r0", 1, &r0));
    WF_TRY(wf_case_real(c, "eps", 1e-5, &eps)); /* the text variant has one for both */
    WF_TRY(wf_case_real(c, "ln_eps", eps, &ln_eps));
    WF_TRY(wf_case_real(c, "bn_eps", eps, &bn_eps));
    WF_TRY(wf_case_real(c, "bn_momentum", 0.1, &momentum));
    WF_TRY(wf_case_choice(c, "norm1", norms, wf_case_has(c, "param.norm1.bias") ? "layernorm" : "rmsnorm", &norm1));
    s.mask = wf_case_has(c, "in.keep_mask") || wf_case_has(c, "in.keep_mask_0") ? "keep_mask" : NULL;
    return finish(
        c,
        wf_arena_format(c->arena,
                        "{name: prepbn, warm: %lld, total_step: %lld, r0: %.17g, norm1: %s, ln_eps: %.17g, bn_eps: %.17g, "
                        "bn_momentum: %.17g, forwards_per_step: %lld}",
                        (long long)warm, (long long)total, r0, norm1, ln_eps, bn_eps, momentum, (long long)every),
        C, &names_prepbn, &s);
}

/* ---- norm.ln-rms-crms: three norms without affine, of x [..,D] and of c, which stores all but the last of its entries ---- */

static wf_status bare_norm(wf_case *c, const char *name, const char *out, const char *in, double eps) {
    const wf_st_entry *e = wf_case_entry(c, in);
    char *full = wf_arena_format(c->arena, "out.%s", out);
    if (!full || !wf_case_has(c, full)) return WF_OK;
    if (!e) return WF_EFORMAT;
    if (e->shape.rank < 1) return wf_case_fail(c, "%s has no axis to normalise", in);
    int64_t D = e->shape.dim[e->shape.rank - 1];
    wf_model *m = wf_case_part(c, "norm", wf_arena_format(c->arena, "{name: %s, eps: %.17g, affine: false}", name, eps), D, D,
                               false, 0, NULL);
    if (!m) return WF_EINVAL;
    wf_case_out(c, out, wf_apply(&c->build, m->root, wf_case_in(c, in + 3)));
    return WF_OK;
}

static wf_status ln_rms_crms(wf_case *c) {
    double eps;
    bool affine;
    WF_TRY(wf_case_real(c, "eps", 1e-5, &eps));
    WF_TRY(wf_case_bool(c, "affine", false, &affine));
    if (affine) return wf_case_fail(c, "config: 'affine' must be false: a gain is folded away before these norms are compared");
    const wf_st_entry *x = wf_case_has(c, "in.x") ? wf_case_entry(c, "in.x") : NULL;
    if (x && x->shape.rank > 0) WF_TRY(wf_case_same(c, "D", x->shape.dim[x->shape.rank - 1]));
    const wf_st_entry *k = !x && wf_case_has(c, "in.c") ? wf_case_entry(c, "in.c") : NULL;
    if (k && k->shape.rank > 0) WF_TRY(wf_case_same(c, "D", k->shape.dim[k->shape.rank - 1] + 1));
    if (x) WF_TRY(bare_norm(c, "layernorm", "ln_x", "in.x", eps));
    if (x) WF_TRY(bare_norm(c, "rmsnorm", "rms_x", "in.x", eps));
    if (wf_case_has(c, "in.c")) WF_TRY(bare_norm(c, "crmsnorm", "crms_c", "in.c", eps));
    return wf_case_solve(c);
}

/* clang-format off */
const wf_adapter wf_adapters_stateful[] = {
    {"norm.unified", unified, ""},
    {"norm.power", power, ""},
    {"norm.repbn", repbn, ""},
    {"norm.prepbn", prepbn, ""},
    {"norm.ln-rms-crms", ln_rms_crms, ""},
    {0},
};
/* clang-format on */
