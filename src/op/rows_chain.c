/* rows_chain.c: which bound instructions run as a chain (rows_kernel.h).
 *
 * An instruction goes on with a chain when one of its operands is what the chain has in hand: the result of the instruction before
 * it, or the memory that this one read. Results that nobody but the chain reads are not written to their registers at all. Sums
 * over the row end a chain; whatever a chain cannot do (conversions, comparisons, numbers of whole rows) runs alone.
 */
#include "op/rows_bound.h"

enum { STEPS_EACH = WF_CHAIN_STEPS, LEAST_COLUMNS = 256 };

size_t wf_chain_bytes(const wf_rowprog *p) {
    return (size_t)p->n_instr * STEPS_EACH * sizeof(wf_chain_step);
}

typedef struct finder {
    const wf_run_thread *t;
    const wf_row_instr *in;
    wf_bound_instr *x;
    wf_chain *chain;     /* the one being built */
    int first;           /* its first instruction */
    wf_row_arg hand;     /* where what it has in hand also is */
    wf_chain_step *free; /* steps not yet used */
    int group;           /* first instruction since a reduction was last read */
    bool ended;
} finder;

/* ---- operands ---- */

static bool is_one(const finder *f, int i, int k) {
    return f->x[i].ones >> k & 1;
}

static bool has(const finder *f, int i, int k) {
    return f->in[i].src[k].kind == WF_ARG_IMM || f->in[i].src[k].index >= 0;
}

static wf_chain_operand operand(const finder *f, int i, int k) {
    wf_row_args *a = &f->x[i].arg;
    return (wf_chain_operand){(void *const *)&a->s[k], a->sp[k], is_one(f, i, k)};
}

/* The instruction's immediate as a number that is the same in all rows. */
static wf_chain_operand immediate(const finder *f, int i) {
    wf_row_args *a = &f->x[i].arg;
    a->imm_f = (float)a->imm;
    a->s[2] = &a->imm_f;
    return (wf_chain_operand){(void *const *)&a->s[2], 0, true};
}

static wf_chain_operand result(const finder *f, int i) {
    wf_row_args *a = &f->x[i].arg;
    return (wf_chain_operand){&a->d, wf_accumulates(f->in[i].code) ? 0 : a->dp, false};
}

/* ---- one instruction as a step ---- */

/* Step for instruction i when operand k is in hand, both: and another operand is the same. False: no chain can do it. */
static bool binary_step(const finder *f, int i, int k, wf_chain_step *s) {
    int other = 1 - k;
    bool both = has(f, i, 1) && wf_same_place(f->in[i].src[0], f->in[i].src[1]);
    s->x = operand(f, i, other);
    switch (f->in[i].code) {
    case WF_ROW_ADD: s->code = WF_CHAIN_ADD; return true;
    case WF_ROW_SUB: s->code = k ? WF_CHAIN_RSUB : WF_CHAIN_SUB; return true;
    case WF_ROW_MUL: s->code = both ? WF_CHAIN_SQUARE : WF_CHAIN_MUL; break;
    case WF_ROW_DOT: s->code = both ? WF_CHAIN_SUM_SQUARE : WF_CHAIN_DOT; break;
    case WF_ROW_DOT_ROWS:
        s->code = both ? WF_CHAIN_ADD_TO_SQUARE : WF_CHAIN_ADD_TO_MUL;
        s->y = s->x;
        s->x = result(f, i);
        if (both) s->y = (wf_chain_operand){0};
        return true;
    default: return false;
    }
    if (both) s->x = (wf_chain_operand){0};
    return true;
}

static bool ternary_step(const finder *f, int i, int k, wf_chain_step *s) {
    static const wf_chain_code factor[] = {WF_CHAIN_MUL_ADD, WF_CHAIN_NONE, WF_CHAIN_MUL_RSUB};
    static const wf_chain_code addend[] = {WF_CHAIN_ADD_MUL, WF_CHAIN_RSUB_MUL, WF_CHAIN_SUB_MUL};
    int form = f->in[i].code == WF_ROW_FMA ? 0 : f->in[i].code == WF_ROW_FMS ? 1 : f->in[i].code == WF_ROW_FNMA ? 2 : -1;
    if (form < 0) return false;
    s->code = k == 2 ? addend[form] : factor[form];
    s->x = operand(f, i, k == 2 ? 0 : 1 - k);
    s->y = operand(f, i, k == 2 ? 1 : 2);
    return s->code != WF_CHAIN_NONE;
}

static bool as_step(const finder *f, int i, int k, wf_chain_step *s) {
    *s = (wf_chain_step){0};
    switch (f->in[i].code) {
    case WF_ROW_NEG: s->code = WF_CHAIN_NEG; return true;
    case WF_ROW_SQUARE: s->code = WF_CHAIN_SQUARE; return true;
    case WF_ROW_EXP: s->code = WF_CHAIN_EXP; return true;
    case WF_ROW_TANH: s->code = WF_CHAIN_TANH; return true;
    case WF_ROW_ERF: s->code = WF_CHAIN_ERF; return true;
    case WF_ROW_SIGMOID: s->code = WF_CHAIN_SIGMOID; return true;
    case WF_ROW_SUM: s->code = WF_CHAIN_SUM; return true;
    case WF_ROW_SUM_ROWS:
        s->code = WF_CHAIN_ADD_TO;
        s->x = result(f, i);
        return true;
    case WF_ROW_ADD_IMM:
    case WF_ROW_MUL_IMM:
        s->code = f->in[i].code == WF_ROW_ADD_IMM ? WF_CHAIN_ADD : WF_CHAIN_MUL;
        s->x = immediate(f, i);
        return true;
    default: return has(f, i, 2) ? ternary_step(f, i, k, s) : has(f, i, 1) && binary_step(f, i, k, s);
    }
}

/* ---- building ---- */

static bool reads_reduction(const finder *f, int i) {
    for (int j = f->group; j < i; j++) {
        if (!wf_reduces(f->in[j].code)) continue;
        for (int k = 0; k < 3; k++)
            if (wf_same_place(f->in[j].dst, f->in[i].src[k])) return true;
        if (wf_same_place(f->in[j].dst, f->in[i].dst)) return true;
    }
    return false;
}

/* False: the chain would be too long. */
static bool add_step(finder *f, wf_chain_step s) {
    if (f->chain->n_step == WF_CHAIN_STEPS) return false;
    f->chain->step[f->chain->n_step++] = s;
    return true;
}

/* The register's value is read after instruction i by one that does not get it in hand: in the chain [first, end) those are marked. */
static bool read_later(const finder *f, int i, int end, const int *hand_of) {
    wf_row_arg d = f->in[i].dst;
    for (int j = i + 1; j < f->t->s->p->n_instr; j++) {
        for (int k = 0; k < 3; k++) {
            if (!wf_same_place(d, f->in[j].src[k])) continue;
            bool squared = j < end && hand_of[j - f->first] >= 0 && k < 2 && !has(f, j, 2) && f->in[j].code != WF_ROW_ADD &&
                           f->in[j].code != WF_ROW_SUB && wf_same_place(f->in[j].src[0], f->in[j].src[1]);
            if (j >= end || (hand_of[j - f->first] != k && !squared)) return true;
        }
        if (wf_same_place(d, f->in[j].dst)) return false;
    }
    return false;
}

/* Which operand of instruction i is in hand, -1: none. */
static int in_hand(const finder *f, int i) {
    for (int k = 0; k < 3; k++)
        if (has(f, i, k) && !is_one(f, i, k) && wf_same_place(f->hand, f->in[i].src[k])) return k;
    return -1;
}

/* May instruction i be part of a chain at all? */
static bool suits(const finder *f, int i) {
    const wf_row_instr *in = &f->in[i];
    if (f->x[i].fast || in->code == WF_ROW_COPY || wf_generates(in->code)) return false;
    return !(wf_accumulates(in->code) && in->dst_narrow);
}

/* Instructions from `first` on that make one chain: hand_of[..] says which operand each finds in hand; returns their number. */
static int reach(finder *f, int first, int *hand_of) {
    wf_chain_step s;
    int n = 0;
    for (int i = first; i < f->t->s->p->n_instr && suits(f, i); i++) {
        int k = -1;
        if (n == 0)
            for (int j = 0; j < 3 && k < 0; j++)
                if (has(f, i, j) && f->in[i].src[j].kind != WF_ARG_IMM && !is_one(f, i, j)) k = j;
        if (n > 0) k = in_hand(f, i);
        if (k < 0 || n + 2 > WF_CHAIN_STEPS || (n > 0 && reads_reduction(f, i)) || !as_step(f, i, k, &s)) break;
        if (n == 0) f->hand = f->in[i].src[k];
        hand_of[n++] = k;
        if (wf_reduces(f->in[i].code)) break;
        if (!wf_accumulates(f->in[i].code)) f->hand = f->in[i].dst;
    }
    return n;
}

/* The steps of instructions first .. first + n - 1. */
static bool write_steps(finder *f, int first, int n, const int *hand_of) {
    wf_chain_step s;
    wf_chain *c = f->chain = &f->x[first].chain;
    *c = (wf_chain){.step = f->free};
    f->first = first;
    f->x[first].flat = true;
    add_step(f, (wf_chain_step){.code = WF_CHAIN_LOAD, .x = operand(f, first, hand_of[0])});
    for (int i = first; i < first + n; i++) {
        as_step(f, i, hand_of[i - first], &s);
        if (!add_step(f, s)) return false;
        if (wf_reduces(f->in[i].code)) c->sum = &f->x[i].arg;
        if (wf_reduces(f->in[i].code) || wf_accumulates(f->in[i].code)) {
            f->x[first].flat = false;
            continue;
        }
        f->x[first].flat = f->x[first].flat && f->x[i].arg.rows == 1;
        if (f->in[i].dst.kind != WF_ARG_MEM && !read_later(f, i, first + n, hand_of)) continue;
        if (!add_step(f, (wf_chain_step){.code = WF_CHAIN_STORE, .x = result(f, i)})) return false;
    }
    return true;
}

static wf_chain_fn kernel_of(const wf_row_kernels *k, const wf_chain *c) {
    for (int i = 0; i < k->n_chains; i++) {
        int j = 0;
        while (j < WF_CHAIN_STEPS && k->chains[i].code[j] == (j < c->n_step ? c->step[j].code : WF_CHAIN_NONE)) j++;
        if (j == WF_CHAIN_STEPS) return k->chains[i].fn;
    }
    return NULL;
}

/* The longest chain from `first` on that has a kernel; returns its instructions, 1: the first one runs alone. */
static int build(finder *f, int first) {
    int hand_of[WF_CHAIN_STEPS], most = suits(f, first) ? reach(f, first, hand_of) : 0;
    for (int n = most; n > 1; n--) {
        if (!write_steps(f, first, n, hand_of)) continue;
        f->chain->fn = kernel_of(f->t->k, f->chain);
        if (!f->chain->fn) continue;
        f->x[first].chained = n;
        f->free += f->chain->n_step;
        return n;
    }
    return 1;
}

/* A row that is gone through again after a reduction of it is fetched while the first time is computed, a few lines before every
 * instruction; there more, shorter instructions are faster (measured: LayerNorm by 5 to 10 %). */
static bool goes_over_rows_again(const finder *f) {
    bool reduced = false;
    for (int i = 0; i < f->t->s->p->n_instr; i++) {
        if (reduced && !f->x[i].fast) return true;
        reduced = reduced || wf_reduces(f->in[i].code);
    }
    return false;
}

void wf_chain_find(wf_run_thread *t) {
    finder f = {.t = t, .in = t->s->p->instr, .x = t->bound->instr, .free = t->bound->step};
    int n = t->s->p->n_instr;
    for (int i = 0; i < n; i++) f.x[i].chained = 0;
    if (t->k->n_chains == 0 || t->width < LEAST_COLUMNS || goes_over_rows_again(&f)) return;
    for (int i = 0; i < n;) {
        if (f.x[i].fast || reads_reduction(&f, i)) f.group = i;
        i += build(&f, i);
    }
}
