/* picture.c: cases of fixed 2-D positions, resized position tables, mixup, cutmix and soft targets. */
#include "check/case.h"
#include "model/model.h"

#include <string.h>

/* "3x3->4x5 bicubic ..." */
static wf_status read_resize(wf_case *c, int64_t from[2], int64_t to[2]) {
    const char *text;
    long long a, b, d, e;
    int used = 0;
    WF_TRY(wf_case_text(c, "interp", "", &text));
    if (sscanf(text, "%lldx%lld->%lldx%lld bicubic%n", &a, &b, &d, &e, &used) != 4 || !used || a < 1 || b < 1 || d < 1 ||
        e < 1 || a > 4096 || b > 4096 || d > 4096 || e > 4096)
        return wf_case_fail(c, "config: 'interp' must be like '3x3->4x5 bicubic align_corners=False A=-0.75'");
    const char *rest = text + used;
    if (*rest && strcmp(rest, " align_corners=False A=-0.75"))
        return wf_case_fail(c, "config: 'interp': only align_corners=False and A=-0.75 are known, not '%s'", rest);
    from[0] = a, from[1] = b, to[0] = d, to[1] = e;
    return WF_OK;
}

/* pos [1,h w,D] -> [1,h' w',D]: rows, then columns. */
static wf_status resize(wf_case *c) {
    int64_t from[2], to[2];
    wf_graph *g = c->graph;
    WF_TRY(read_resize(c, from, to));
    wf_node *x = wf_case_in(c, "pos_old");
    if (!x) return WF_EFORMAT;
    if (x->shape.rank != 3 || x->shape.dim[1] != from[0] * from[1])
        return wf_case_fail(c, "in.pos_old does not have %lld positions", (long long)(from[0] * from[1]));
    int64_t B = x->shape.dim[0], D = x->shape.dim[2];
    wf_dtype t = c->f64 ? WF_F64 : WF_F32;
    wf_node *w[2];
    for (int k = 0; k < 2; k++) {
        wf_tensor *table = wf_tensor_new(WF_F32, WF_SHAPE(to[k], from[k]));
        if (!table) return WF_ENOMEM;
        wf_bicubic_weights(from[k], to[k], table->data);
        w[k] = wf_cast(g, wf_case_constant(c, k ? "resize columns" : "resize rows", table), t);
    }
    x = wf_reshape(g, x, WF_SHAPE(B, from[0], from[1] * D));
    x = wf_matmul(g, w[0], x, false, false); /* [B,h',w D] */
    x = wf_reshape(g, x, WF_SHAPE(B * to[0], from[1], D));
    x = wf_matmul(g, w[1], x, false, false); /* [B h',w',D] */
    wf_case_out(c, "pos_new", wf_reshape(g, x, WF_SHAPE(B, to[0] * to[1], D)));
    return WF_OK;
}

static wf_status tables(wf_case *c) {
    static const char *const styles[] = {"simple_vit", "mae", "timm"};
    int64_t h, w, d;
    double T;
    WF_TRY(wf_case_int(c, "h", 0, &h));
    WF_TRY(wf_case_int(c, "w", 0, &w));
    WF_TRY(wf_case_int(c, "d", 0, &d));
    WF_TRY(wf_case_real(c, "T", 10000, &T));
    for (int i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "sincos_%s", styles[i]);
        char *full = wf_arena_format(c->arena, "out.%s", name);
        if (!full || !wf_case_has(c, full)) continue;
        if (h < 1 || w < 1 || d < 1 || h > 4096 || w > 4096 || h * w * d > 1 << 26 || T < 1)
            return wf_case_fail(c, "config: 'h', 'w', 'd', 'T' make no table");
        wf_tensor *t = wf_tensor_new(WF_F32, WF_SHAPE(h * w, d));
        if (!t) return WF_ENOMEM;
        wf_status s = wf_sincos2d(styles[i], h, w, d, T, t->data);
        if (s == WF_OK) s = wf_case_compare(c, name, t);
        wf_tensor_free(t);
        WF_TRY(s);
    }
    return WF_OK;
}

/* lam a + (1 - lam) (a with the batch reversed) */
static wf_node *blend(wf_graph *g, wf_node *a, double lam) {
    return wf_add(g, wf_mul_c(g, a, lam), wf_mul_c(g, wf_flip(g, a, 0), 1 - lam));
}

/* The box [y0,y1) x [x0,x1) is the partner's; *lam: what is left of the sample itself. */
static wf_status cutmix(wf_case *c, wf_node *x, double *lam) {
    const wf_value *v = wf_case_key(c, "cut_box");
    int64_t box[4], H = x->shape.dim[2], W = x->shape.dim[3];
    wf_graph *g = c->graph;
    if (!v || v->kind != WF_V_LIST || v->n != 4) return wf_case_fail(c, "config: 'cut_box' must be a list of four");
    for (int i = 0; i < 4; i++)
        if (wf_value_int(v->item[i], &box[i]) != WF_OK) return wf_case_fail(c, "config: 'cut_box' must be four whole numbers");
    if (box[0] < 0 || box[1] < box[0] || box[1] > H || box[2] < 0 || box[3] < box[2] || box[3] > W)
        return wf_case_fail(c, "config: 'cut_box' lies outside pictures of %lld x %lld", (long long)H, (long long)W);
    wf_dtype t = x->dtype;
    wf_node *in = NULL;
    for (int k = 0; k < 2; k++) {
        wf_shape s = WF_SHAPE(1, 1, k ? 1 : H, k ? W : 1);
        wf_node *i = wf_index(g, t, s, 2 + k);
        wf_node *low = wf_lt(g, wf_fill(g, t, WF_SHAPE(1), (double)box[2 * k] - 0.5), i);
        wf_node *high = wf_lt(g, i, wf_fill(g, t, WF_SHAPE(1), (double)box[2 * k + 1] - 0.5));
        wf_node *both = wf_mul(g, low, high);
        in = in ? wf_mul(g, in, both) : both;
    }
    wf_case_out(c, "cutmix", wf_where(g, in, wf_flip(g, x, 0), x));
    *lam = 1 - (double)((box[1] - box[0]) * (box[3] - box[2])) / (double)(H * W);
    return WF_OK;
}

static wf_status mixing(wf_case *c) {
    wf_graph *g = c->graph;
    wf_node *x = wf_case_in_or_null(c, "images"), *labels = wf_case_in_or_null(c, "labels");
    double lam, smoothing, cut = 1;
    int64_t K;
    WF_TRY(wf_case_real(c, "lam", 1, &lam));
    WF_TRY(wf_case_real(c, "smoothing", 0, &smoothing));
    WF_TRY(wf_case_int(c, "classes", 0, &K));
    if (!x || !labels) return x || labels ? wf_case_fail(c, "in.images and in.labels belong together") : WF_OK;
    if (x->shape.rank != 4 || labels->shape.rank != 1 || K < 1 || K > 1 << 16)
        return wf_case_fail(c, "in.images must be [B,C,H,W], in.labels [B], 'classes' at least 1");
    wf_case_out(c, "mixup", blend(g, x, lam));
    if (wf_case_has(c, "out.cutmix")) WF_TRY(cutmix(c, x, &cut));
    wf_node *target = wf_add_c(g, wf_mul_c(g, wf_one_hot(g, labels, K, x->dtype), 1 - smoothing), smoothing / (double)K);
    wf_node *mixed = blend(g, target, lam);
    wf_case_out(c, "mixup_target", mixed);
    wf_case_out(c, "cutmix_target", blend(g, target, cut));
    if (wf_case_has(c, "out.soft_ce")) {
        wf_node *logp = wf_log_softmax(g, wf_case_in(c, "logits"));
        wf_case_out(c, "soft_ce", wf_mul_c(g, wf_sum_all(g, wf_mul(g, mixed, logp)), -1.0 / (double)x->shape.dim[0]));
    }
    return WF_OK;
}

static wf_status positions_and_augment(wf_case *c) {
    WF_TRY(tables(c));
    if (wf_case_has(c, "out.pos_new")) WF_TRY(resize(c));
    WF_TRY(mixing(c));
    return wf_case_solve(c);
}

const wf_adapter wf_adapters_picture[] = {{"data.positions-and-augment", positions_and_augment, ""}, {0}};
