/* transform_help.h: models as they are after training, comparing two of them, counting operators. Header-only, for tests. */
#ifndef TRANSFORM_HELP_H
#define TRANSFORM_HELP_H

#include "parts_help.h"

#include "transform/transform.h"

#include <math.h>

#define LM "name: lm, vocab: 13, length: 12, width: 12, layers: 2, mixer: {name: softmax, heads: 3}"
#define VIT                                                                                                                    \
    "name: vit, image_height: 8, channels: 2, patch: 4, classes: 5, width: 12, layers: 2, mixer: {name: softmax, heads: 3}"

#define META "name: metaformer, image_height: 16, channels: 2, classes: 5, layers: [1, 2], widths: [8, 12], patch: [3, 2, 1], "

/* ---- helpers ---- */

/* Away from first values, and with statistics that a net in use could have: variances stay positive. */
static inline wf_model *used(const char *text, uint64_t seed) {
    wf_model *m = model_of(text, seed);
    stir(m, 0.2);
    for (int i = 0; i < m->n_param; i++) {
        const char *name = m->param[i]->name;
        wf_tensor *v = m->param[i]->value;
        bool positive = strstr(name, "running_var") || strstr(name, "running_phi");
        for (int64_t j = 0; positive && j < wf_tensor_count(v); j++)
            wf_tensor_set(v, j, 0.3 + 0.1 * (double)(j % 7) + fabs(wf_tensor_get(v, j) - 1));
    }
    return m;
}

static inline wf_tensor *input_of(const wf_model *m) {
    if (!strcmp(m->root->part->name, "metaformer")) return rn_random(WF_F32, WF_SHAPE(2, 2, 16, 16), 4, 0);
    if (!strcmp(m->root->part->name, "vit")) return rn_random(WF_F32, WF_SHAPE(3, 2, 8, 8), 4, 0);
    return rn_random(WF_I32, WF_SHAPE(3, 9), 4, 13);
}

static inline void same_function(wf_model *a, wf_model *b, double bound, const char *what) {
    wf_tensor *x = input_of(a), *y = run_forward(a, x, NULL), *z = run_forward(b, x, NULL);
    double diff = 0, norm = 0;
    if (!y || !z) fail_msg("%s: %s", what, wf_message());
    for (int64_t i = 0; i < wf_tensor_count(y); i++) {
        double u = wf_tensor_get(y, i), v = wf_tensor_get(z, i);
        diff += (u - v) * (u - v);
        norm += u * u;
    }
    if (!(sqrt(diff) <= bound * sqrt(norm))) fail_msg("%s: outputs differ by %g", what, sqrt(diff / norm));
    wf_tensor_free(x);
    wf_tensor_free(y);
    wf_tensor_free(z);
}

/* Operators of a name in the graph of an evaluation. */
static inline int count_ops(wf_model *m, const char *name) {
    wf_graph *g = wf_graph_open();
    wf_build b;
    wf_build_start(&b, g);
    wf_tensor *x = input_of(m);
    if (!wf_apply(&b, m->root, wf_leaf(g, x, "x"))) fail_msg("%s", wf_graph_message(g));
    int n = 0;
    for (int i = 0; i < wf_graph_size(g); i++) {
        const wf_node *node = wf_graph_node(g, i);
        n += node->op && !strcmp(node->op->name, name);
    }
    wf_build_end(&b);
    wf_graph_free(g);
    wf_tensor_free(x);
    return n;
}

static inline bool noted(const wf_transform_report *r, bool kept, const char *text) {
    for (int i = 0; i < r->n; i++)
        if (r->note[i].kept == kept && strstr(r->note[i].text, text)) return true;
    return false;
}

static inline void show(const wf_transform_report *r) {
    for (int i = 0; i < r->n; i++)
        print_message("%s%s (%d)\n", r->note[i].kept ? "kept " : "", r->note[i].text, r->note[i].times);
}

#endif
