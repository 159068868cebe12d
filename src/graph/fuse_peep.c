/* fuse_peep.c: making a program's values fewer: copies and equal values are read where they come from, constants go into
 * immediates, a product that only one sum reads becomes a multiply-add or a dot product. */
#include "graph/fuse.h"

#include <string.h>

static bool is_constant(const wf_builder *b, int v) {
    return v >= 0 && b->value[v].code == WF_ROW_FILL;
}
static double constant(const wf_builder *b, int v) {
    return b->value[v].imm;
}

static void becomes(wf_value *v, wf_row_code code, int a, int c, double imm) {
    v->code = code;
    v->src[0] = a;
    v->src[1] = c;
    v->src[2] = -1;
    v->imm = imm;
}

/* x + k, x * k, .. with constant k as an immediate. */
static void fold_binary(wf_builder *b, wf_value *v) {
    int x = v->src[0], y = v->src[1];
    bool kx = is_constant(b, x), ky = is_constant(b, y);
    double k = ky ? constant(b, y) : kx ? constant(b, x) : 0;
    if (kx == ky) return;
    int other = ky ? x : y;
    switch (v->code) {
    case WF_ROW_ADD: becomes(v, WF_ROW_ADD_IMM, other, -1, k); break;
    case WF_ROW_MUL: becomes(v, WF_ROW_MUL_IMM, other, -1, k); break;
    case WF_ROW_MAX: becomes(v, WF_ROW_MAX_IMM, other, -1, k); break;
    case WF_ROW_MIN: becomes(v, WF_ROW_MIN_IMM, other, -1, k); break;
    case WF_ROW_SUB:
        if (ky)
            becomes(v, WF_ROW_ADD_IMM, x, -1, -k);
        else if (k == 0)
            becomes(v, WF_ROW_NEG, y, -1, 0);
        break;
    default: break;
    }
}

/* Arithmetic of constants, as far as gradients bring it about; returns true when *c is the value. */
static bool fold_constant(const wf_builder *b, const wf_value *v, double *c) {
    int x = v->src[0], y = v->src[1];
    if (!is_constant(b, x)) return false;
    double k = constant(b, x);
    if (v->code == WF_ROW_MUL_IMM)
        *c = k * v->imm;
    else if (v->code == WF_ROW_ADD_IMM)
        *c = k + v->imm;
    else if (v->code == WF_ROW_NEG)
        *c = -k;
    else if (v->code == WF_ROW_SQUARE)
        *c = k * k;
    else if (!is_constant(b, y))
        return false;
    else if (v->code == WF_ROW_MUL)
        *c = k * constant(b, y);
    else if (v->code == WF_ROW_ADD)
        *c = k + constant(b, y);
    else if (v->code == WF_ROW_SUB)
        *c = k - constant(b, y);
    else
        return false;
    return true;
}

/* The value that v is just another name for, or -1. */
static int source(const wf_builder *b, const wf_value *v) {
    if (v->code == WF_ROW_COPY && !v->attr && v->narrow == b->value[v->src[0]].narrow) return v->src[0];
    if (v->code == WF_ROW_ADD_IMM && v->imm == 0) return v->src[0];
    if (v->code == WF_ROW_MUL_IMM && v->imm == 1) return v->src[0];
    if (v->code != WF_ROW_WHERE || !is_constant(b, v->src[0])) return -1;
    int chosen = constant(b, v->src[0]) != 0 ? v->src[1] : v->src[2];
    return b->value[chosen].narrow == v->narrow ? chosen : -1;
}

static bool equal(const wf_builder *b, const wf_value *v, const wf_value *w) {
    if (v->code != w->code || v->attr != w->attr || v->narrow != w->narrow || memcmp(v->src, w->src, sizeof v->src) ||
        memcmp(&v->imm, &w->imm, sizeof v->imm) || memcmp(v->number, w->number, sizeof v->number))
        return false;
    if (v->mem < 0 || w->mem < 0) return v->mem == w->mem;
    return wf_same_strides(&b->space, b->mem[v->mem].stride, b->mem[w->mem].stride);
}

static bool plain(const wf_value *v) {
    return v->code != WF_ROW_NONE && !wf_is_accumulation(v->code);
}

static int equal_before(const wf_builder *b, int i) {
    for (int j = 0; j < i; j++)
        if (plain(&b->value[j]) && equal(b, &b->value[i], &b->value[j])) return j;
    return -1;
}

/* First pass: every operand is replaced by the value that it is another name for. */
static void simplify(wf_builder *b, int *name) {
    for (int i = 0, n = b->n_value; i < n; i++) {
        double c;
        for (int k = 0; k < 3; k++)
            if (b->value[i].src[k] >= 0) b->value[i].src[k] = name[b->value[i].src[k]];
        name[i] = i;
        if (!plain(&b->value[i]) || b->value[i].code == WF_ROW_FILL) continue;
        if (fold_constant(b, &b->value[i], &c)) {
            int k = wf_value_constant(b, c); /* may move b->value */
            if (b->failed) return;
            becomes(&b->value[i], WF_ROW_COPY, k, -1, 0);
            b->value[i].narrow = true;
        }
        fold_binary(b, &b->value[i]);
        int from = source(b, &b->value[i]);
        if (from < 0) from = equal_before(b, i);
        if (from < 0) continue;
        name[i] = from;
        if (b->value[i].out < 0 || b->value[i].code == WF_ROW_COPY) continue;
        becomes(&b->value[i], WF_ROW_COPY, from, -1, 0); /* memory of its own, still */
        b->value[i].attr = 0;
    }
}

static void count_uses(wf_builder *b) {
    for (int i = 0; i < b->n_value; i++) b->value[i].uses = 0;
    for (int i = b->n_value - 1; i >= 0; i--) { /* constants may stand behind their readers; they read nothing */
        const wf_value *v = &b->value[i];
        if (!wf_value_used(v)) continue;
        for (int k = 0; k < 3; k++)
            if (v->src[k] >= 0) b->value[v->src[k]].uses++;
    }
}

/* A copy that only goes to memory: let its source be written there. Rounding is then the store's. */
static void drop_copies(wf_builder *b) {
    for (int i = 0; i < b->n_value; i++) {
        wf_value *v = &b->value[i];
        if (v->code != WF_ROW_COPY || v->out < 0) continue;
        if (v->uses == 0) v->attr = 0;
        wf_value *s = &b->value[v->src[0]];
        if (v->attr || !plain(s) || s->code == WF_ROW_FILL || s->out >= 0 || s->narrow != v->narrow) continue;
        s->out = v->out;
        v->out = -1;
        if (v->uses == 0) s->uses--;
    }
}

/* ---- products ---- */

/* Factors of v, if it is a product that nobody else reads. */
static bool product(wf_builder *b, int at, bool narrow, int *x, int *y) {
    const wf_value *v = at >= 0 ? &b->value[at] : NULL;
    if (!v || v->uses != 1 || v->out >= 0 || v->narrow != narrow) return false;
    if (v->code == WF_ROW_MUL) {
        *x = v->src[0];
        *y = v->src[1];
    } else if (v->code == WF_ROW_SQUARE) {
        *x = *y = v->src[0];
    } else if (v->code == WF_ROW_MUL_IMM) {
        *x = v->src[0];
        *y = wf_value_constant(b, v->imm);
    } else {
        return false;
    }
    return !b->failed;
}

static void rewrite(wf_builder *b, int i, int dead, wf_row_code code, int x, int y, int z) {
    wf_value *v = &b->value[i];
    b->value[dead].uses = 0;
    becomes(v, code, x, y, 0);
    v->src[2] = z;
}

static bool negated(const wf_builder *b, int at, int *x) {
    if (b->value[at].code != WF_ROW_NEG || b->value[at].uses != 1 || b->value[at].out >= 0) return false;
    *x = b->value[at].src[0];
    return true;
}

static void join_sum(wf_builder *b, int i) {
    int x, y, p = b->value[i].src[0], q = b->value[i].src[1];
    bool narrow = b->value[i].narrow;
    switch (b->value[i].code) {
    case WF_ROW_ADD:
        if (negated(b, q, &x))
            rewrite(b, i, q, WF_ROW_SUB, p, x, -1);
        else if (negated(b, p, &x))
            rewrite(b, i, p, WF_ROW_SUB, q, x, -1);
        else if (product(b, q, narrow, &x, &y))
            rewrite(b, i, q, WF_ROW_FMA, x, y, p);
        else if (product(b, p, narrow, &x, &y))
            rewrite(b, i, p, WF_ROW_FMA, x, y, q);
        break;
    case WF_ROW_SUB:
        if (negated(b, q, &x))
            rewrite(b, i, q, WF_ROW_ADD, p, x, -1);
        else if (product(b, q, narrow, &x, &y))
            rewrite(b, i, q, WF_ROW_FNMA, x, y, p);
        else if (product(b, p, narrow, &x, &y))
            rewrite(b, i, p, WF_ROW_FMS, x, y, q);
        break;
    case WF_ROW_ADD_IMM:
        if (b->value[p].code != WF_ROW_MUL_IMM && product(b, p, narrow, &x, &y))
            rewrite(b, i, p, WF_ROW_FMA, x, y, wf_value_constant(b, b->value[i].imm));
        break;
    case WF_ROW_MUL_IMM: /* k (c x) */
        if (b->value[p].code == WF_ROW_MUL_IMM && b->value[p].uses == 1 && b->value[p].out < 0 &&
            b->value[p].narrow == narrow) {
            double c = b->value[i].imm * b->value[p].imm;
            rewrite(b, i, p, WF_ROW_MUL_IMM, b->value[p].src[0], -1, -1);
            b->value[i].imm = c;
        }
        break;
    case WF_ROW_SUM:
        if (b->value[p].code != WF_ROW_MUL_IMM && product(b, p, false, &x, &y) && !b->value[x].narrow && !b->value[y].narrow)
            rewrite(b, i, p, WF_ROW_DOT, x, y, -1);
        break;
    case WF_ROW_SUM_ROWS:
        if (!narrow && b->value[p].code != WF_ROW_MUL_IMM && product(b, p, false, &x, &y))
            rewrite(b, i, p, WF_ROW_DOT_ROWS, x, y, -1);
        break;
    default: break;
    }
}

void wf_peephole(wf_builder *b) {
    int *name = wf_alloc_array((size_t)b->n_value + 1, sizeof *name);
    if (!name) {
        b->failed = true;
        return;
    }
    simplify(b, name);
    wf_free(name);
    if (b->failed) return;
    count_uses(b);
    drop_copies(b);
    count_uses(b);
    for (int i = 0, n = b->n_value; i < n && !b->failed; i++)
        if (wf_value_used(&b->value[i])) join_sum(b, i);
    count_uses(b);
}
