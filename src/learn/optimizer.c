/* optimizer.c: AdamW, Muon and SGD with momentum as small operators; the fuser makes one row program a parameter of them.
 *
 * With g the clipped gradient, t = 1, 2, .. the step, lr the scheduled rate and wd the decay (0 on gains, biases, positions):
 *   adamw  m += (1-b1)(g - m); v += (1-b2)(g^2 - v); p -= lr (m/(1-b1^t) / (sqrt(v/(1-b2^t)) + eps) + wd p)
 *          (Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019)
 *   muon   m = mu m + g; u = g + mu m; p -= muon_lr (0.2 sqrt(max(O,I)) newton_schulz(u) + wd p) for hidden matrices [O,I],
 *          adamw for the rest (Jordan et al., Muon, 2024; the factor 0.2 sqrt(max(O,I)), which gives the update adamw's
 *          size so that one learning rate serves both: Liu et al., Muon is Scalable for LLM Training, 2025)
 *   sgd    m = mu m + g; p -= lr (m + wd p)
 */
#include "learn/inside.h"

#include <math.h>
#include <string.h>

const char *const wf_optimizer_names[] = {"adamw", "muon", "sgd", NULL};

static wf_status open_slot(wf_optimizer *o, wf_slot *s, wf_param *p, const wf_train_opt *opt) {
    bool sgd = !strcmp(opt->optimizer, "sgd");
    s->param = p;
    s->muon = !strcmp(opt->optimizer, "muon") && (p->flags & WF_PARAM_MATRIX) && p->value->shape.rank == 2;
    wf_shape shape = p->value->shape;
    if (!(s->m = wf_tensor_new(WF_F32, shape))) return WF_ENOMEM;
    if (!sgd && !s->muon && !(s->v = wf_tensor_new(WF_F32, shape))) return WF_ENOMEM;
    if (opt->ema > 0) {
        if (!(s->ema = wf_tensor_new(WF_F32, shape))) return WF_ENOMEM;
        memcpy(s->ema->data, p->value->data, p->value->bytes);
    }
    if (o->own_grads) {
        s->grad = wf_tensor_new(WF_F32, shape);
    } else if ((s->grad = wf_alloc(sizeof *s->grad))) { /* data: where graph 1 leaves its result */
        *s->grad = (wf_tensor){.dtype = WF_F32, .shape = shape, .data = NULL, .bytes = p->value->bytes};
    }
    return s->grad ? WF_OK : WF_ENOMEM;
}

wf_status wf_optimizer_open(wf_optimizer *o, wf_model *m, const wf_train_opt *opt) {
    memset(o, 0, sizeof *o);
    o->own_grads = opt->accumulate > 1;
    o->slot = wf_alloc_array((size_t)m->n_param + 1, sizeof *o->slot);
    if (!o->slot) return WF_ENOMEM;
    for (int i = 0; i < m->n_param; i++) {
        wf_param *p = m->param[i];
        if (p->flags & (WF_PARAM_BUFFER | WF_PARAM_FROZEN)) continue;
        WF_TRY(open_slot(o, &o->slot[o->n++], p, opt));
    }
    if (o->n == 0) return wf_fail(WF_EINVAL, "the model has no trainable parameters");
    wf_tensor **scalar[] = {&o->lr, &o->muon_lr, &o->clip, &o->bias1, &o->bias2, &o->ema_rate};
    for (size_t i = 0; i < sizeof scalar / sizeof *scalar; i++)
        if (!(*scalar[i] = wf_tensor_new(WF_F32, WF_SHAPE(1)))) return WF_ENOMEM;
    return WF_OK;
}

void wf_optimizer_close(wf_optimizer *o) {
    wf_plan_free(o->norm);
    wf_plan_free(o->update);
    wf_graph_free(o->graph);
    for (int i = 0; o->slot && i < o->n; i++) {
        wf_slot *s = &o->slot[i];
        if (o->own_grads)
            wf_tensor_free(s->grad);
        else
            wf_free(s->grad);
        wf_tensor_free(s->m);
        wf_tensor_free(s->v);
        wf_tensor_free(s->ema);
    }
    wf_free(o->slot);
    wf_tensor *scalar[] = {o->lr, o->muon_lr, o->clip, o->bias1, o->bias2, o->ema_rate};
    for (size_t i = 0; i < sizeof scalar / sizeof *scalar; i++) wf_tensor_free(scalar[i]);
    memset(o, 0, sizeof *o);
}

/* ---- the update graph ---- */

typedef struct wf_update_graph {
    wf_graph *g;
    const wf_train_opt *opt;
    wf_node *lr, *muon_lr, *clip, *bias1, *bias2, *ema_rate;
    wf_node **effect;
    int n_effect;
} wf_update_graph;

static void write_back(wf_update_graph *u, wf_tensor *t, wf_node *value) {
    u->effect[u->n_effect++] = wf_assign(u->g, wf_leaf(u->g, t, NULL), value);
}

/* a + c (b - a): a moving average with rate c. */
static wf_node *toward(wf_graph *g, wf_node *a, wf_node *b, double c) {
    return wf_add(g, a, wf_mul_c(g, wf_sub(g, b, a), c));
}

static wf_node *adam_direction(wf_update_graph *u, wf_slot *s, wf_node *grad) {
    wf_graph *g = u->g;
    wf_node *m = toward(g, wf_leaf(g, s->m, NULL), grad, 1 - u->opt->beta1);
    wf_node *v = toward(g, wf_leaf(g, s->v, NULL), wf_square(g, grad), 1 - u->opt->beta2);
    write_back(u, s->m, m);
    write_back(u, s->v, v);
    wf_node *root = wf_add_c(g, wf_sqrt(g, wf_mul(g, v, u->bias2)), u->opt->eps);
    return wf_div(g, wf_mul(g, m, u->bias1), root);
}

/* The nearest half-orthogonal matrix, nearly: five steps of X <- aX + (bA + cA^2)X, A = X X^T, on X/||X|| with the short side
 * first. Singular values end between about 0.7 and 1.2. */
static wf_node *newton_schulz(wf_graph *g, wf_node *x, wf_dtype compute) {
    const double a = 3.4445, b = -4.7750, c = 2.0315;
    bool tall = x->shape.dim[0] > x->shape.dim[1];
    wf_node *size = wf_sqrt(g, wf_reshape(g, wf_sum_all(g, wf_square(g, x)), WF_SHAPE(1)));
    x = wf_cast(g, wf_div(g, x, wf_add_c(g, size, 1e-7)), compute);
    if (tall) x = wf_contiguous(g, wf_transpose(g, x, 0, 1));
    for (int i = 0; i < 5; i++) {
        wf_node *xx = wf_matmul(g, x, x, false, true);
        wf_node *poly = wf_add(g, wf_mul_c(g, xx, b), wf_mul_c(g, wf_matmul(g, xx, xx, false, false), c));
        x = wf_add(g, wf_mul_c(g, x, a), wf_matmul(g, poly, x, false, false));
    }
    if (tall) x = wf_transpose(g, x, 0, 1);
    return wf_cast(g, x, WF_F32);
}

static wf_node *muon_direction(wf_update_graph *u, wf_slot *s, wf_node *grad) {
    wf_graph *g = u->g;
    wf_node *m = wf_add(g, wf_mul_c(g, wf_leaf(g, s->m, NULL), u->opt->momentum), grad);
    write_back(u, s->m, m);
    wf_node *nesterov = wf_add(g, grad, wf_mul_c(g, m, u->opt->momentum));
    const wf_shape *shape = &s->param->value->shape;
    double side = (double)(shape->dim[0] > shape->dim[1] ? shape->dim[0] : shape->dim[1]);
    return wf_mul_c(g, newton_schulz(g, nesterov, wf_train_dtype(u->opt)), 0.2 * sqrt(side));
}

static void update_slot(wf_update_graph *u, wf_slot *s) {
    wf_graph *g = u->g;
    wf_scope_push(g, s->param->name);
    wf_node *p = wf_leaf(g, s->param->value, s->param->name), *d;
    wf_node *grad = wf_leaf(g, s->grad, NULL);
    if (u->opt->clip > 0) grad = wf_mul(g, grad, u->clip);
    if (s->muon) {
        d = muon_direction(u, s, grad);
    } else if (s->v) {
        d = adam_direction(u, s, grad);
    } else {
        d = wf_add(g, wf_mul_c(g, wf_leaf(g, s->m, NULL), u->opt->momentum), grad);
        write_back(u, s->m, d);
    }
    if (u->opt->weight_decay > 0 && !(s->param->flags & WF_PARAM_NO_DECAY))
        d = wf_add(g, d, wf_mul_c(g, p, u->opt->weight_decay));
    p = wf_sub(g, p, wf_mul(g, d, s->muon ? u->muon_lr : u->lr));
    write_back(u, s->param->value, p);
    if (s->ema) {
        wf_node *e = wf_leaf(g, s->ema, NULL);
        write_back(u, s->ema, wf_add(g, e, wf_mul(g, wf_sub(g, p, e), u->ema_rate)));
    }
    wf_scope_pop(g);
}

static wf_plan *plan_norm(wf_optimizer *o, wf_graph *g) {
    wf_node **part = wf_arena_alloc(wf_graph_arena(g), (size_t)o->n * sizeof *part);
    if (!part) return NULL;
    wf_scope_push(g, "gradient_norm");
    for (int i = 0; i < o->n; i++)
        part[i] = wf_reshape(g, wf_sum_all(g, wf_square(g, wf_leaf(g, o->slot[i].grad, NULL))), WF_SHAPE(1));
    wf_node *all = wf_sum_all(g, o->n > 1 ? wf_concat(g, part, o->n, 0) : part[0]);
    wf_scope_pop(g);
    return all ? wf_plan_new(g, &all, 1, NULL, 0, NULL) : NULL;
}

wf_status wf_optimizer_plan(wf_optimizer *o, const wf_train_opt *opt) {
    if (o->update) return WF_OK;
    wf_graph *g = o->graph = wf_graph_open();
    if (!g) return WF_ENOMEM;
    wf_update_graph u = {.g = g,
                         .opt = opt,
                         .lr = wf_leaf(g, o->lr, "lr"),
                         .muon_lr = wf_leaf(g, o->muon_lr, "muon_lr"),
                         .clip = wf_leaf(g, o->clip, "clip"),
                         .bias1 = wf_leaf(g, o->bias1, "bias1"),
                         .bias2 = wf_leaf(g, o->bias2, "bias2"),
                         .ema_rate = wf_leaf(g, o->ema_rate, "ema_rate")};
    u.effect = wf_arena_alloc(wf_graph_arena(g), (size_t)o->n * 4 * sizeof *u.effect);
    if (!u.effect) return WF_ENOMEM;
    o->norm = plan_norm(o, g);
    wf_scope_push(g, "update");
    for (int i = 0; i < o->n; i++) update_slot(&u, &o->slot[i]);
    wf_scope_pop(g);
    if (wf_graph_status(g) != WF_OK) return wf_fail(wf_graph_status(g), "%s", wf_graph_message(g));
    o->update = wf_plan_new(g, NULL, 0, u.effect, u.n_effect, NULL);
    return o->norm && o->update ? WF_OK : WF_EINVAL;
}

wf_status wf_optimizer_norm(wf_optimizer *o, double *norm) {
    WF_TRY(wf_plan_run(o->norm));
    *norm = sqrt((double)*(const float *)wf_plan_out(o->norm, 0));
    return WF_OK;
}

static void set(wf_tensor *t, double v) {
    *(float *)t->data = (float)v;
}

wf_status wf_optimizer_step(wf_optimizer *o, const wf_train_opt *opt, int64_t step, double norm, double *lr) {
    double factor = wf_schedule(opt, step), t = (double)(step + 1);
    set(o->lr, opt->lr * factor);
    set(o->muon_lr, opt->muon_lr * factor);
    set(o->clip, opt->clip > 0 && norm > opt->clip ? opt->clip / norm : 1);
    set(o->bias1, 1 / (1 - pow(opt->beta1, t)));
    set(o->bias2, 1 / (1 - pow(opt->beta2, t)));
    /* The average follows quickly at first: decay min(ema, (1+t)/(10+t)). */
    double decay = (1 + t) / (10 + t);
    set(o->ema_rate, 1 - (decay < opt->ema ? decay : opt->ema));
    if (lr) *lr = opt->lr * factor;
    return wf_plan_run(o->update);
}
