/* expr.c: reads and evaluates criteria (grammar: expr.h). Nodes lie in one array; a node's operands come before it. */
#include "lab/expr.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NODES = 256, MAX_DEPTH = 40, MAX_SIDES = 8, NAME_MAX_BYTES = 64 };

typedef enum kind { NUMBER, NAME, ADD, SUB, MUL, DIV, NEG, MIN, MAX, ABS } kind;

typedef struct node {
    kind kind;
    int a, b; /* operands; MIN and MAX of more than two are chains */
    double number;
    char design[NAME_MAX_BYTES], quantity[NAME_MAX_BYTES];
} node;

typedef enum sign { LE, LT, GE, GT, EQ } sign;
static const char *const sign_text[] = {"<=", "<", ">=", ">", "=="};

struct wf_expr {
    int n_node, n_side;
    node node[MAX_NODES];
    int side[MAX_SIDES];
    sign sign[MAX_SIDES];
};

typedef struct reader {
    const char *text, *at;
    wf_expr *e;
    wf_expr_check check;
    void *ctx;
    int depth;
} reader;

static int complain(const reader *r, const char *what) {
    wf_fail(WF_EFORMAT, "'%s', column %d: %s", r->text, (int)(r->at - r->text) + 1, what);
    return -1;
}

static void blanks(reader *r) {
    while (*r->at == ' ' || *r->at == '\t' || *r->at == '\n') r->at++;
}

static bool take(reader *r, char c) {
    blanks(r);
    if (*r->at != c) return false;
    r->at++;
    return true;
}

static int add_node(reader *r, kind k, int a, int b) {
    if (r->e->n_node == MAX_NODES) return complain(r, "the expression is too long");
    r->e->node[r->e->n_node] = (node){.kind = k, .a = a, .b = b};
    return r->e->n_node++;
}

static bool word(reader *r, char out[NAME_MAX_BYTES]) {
    size_t n = 0;
    if (!isalpha((unsigned char)*r->at) && *r->at != '_') return false;
    while (isalnum((unsigned char)r->at[n]) || r->at[n] == '_') n++;
    if (n >= NAME_MAX_BYTES) return false;
    memcpy(out, r->at, n);
    out[n] = 0;
    r->at += n;
    return true;
}

static int sum(reader *r);

static int arguments(reader *r, kind k) {
    int first = sum(r), n = 1;
    if (first < 0) return -1;
    if (k == ABS) first = add_node(r, ABS, first, first);
    while (first >= 0 && take(r, ',')) {
        if (k == ABS) return complain(r, "abs has one argument");
        int next = sum(r);
        if (next < 0) return -1;
        first = add_node(r, k, first, next);
        n++;
    }
    if (first < 0) return -1;
    if (k != ABS && n < 2) return complain(r, "min and max have at least two arguments");
    return take(r, ')') ? first : complain(r, "')' is missing");
}

static int name(reader *r) {
    char first[NAME_MAX_BYTES], second[NAME_MAX_BYTES];
    const char *from = r->at;
    if (!word(r, first)) return complain(r, "a name is too long");
    blanks(r);
    if (*r->at == '(') {
        kind k = !strcmp(first, "min") ? MIN : !strcmp(first, "max") ? MAX : !strcmp(first, "abs") ? ABS : NUMBER;
        r->at++;
        if (k != NUMBER) return arguments(r, k);
        r->at = from;
        return complain(r, "the only functions are min, max and abs");
    }
    if (!take(r, '.')) return complain(r, "a name is design.quantity, as in flow.loss: '.' is missing");
    blanks(r);
    if (!word(r, second)) return complain(r, "a name is design.quantity, as in flow.loss: the quantity is missing");
    if (r->check && r->check(r->ctx, first, second) != WF_OK) return -1;
    int i = add_node(r, NAME, 0, 0);
    if (i < 0) return -1;
    memcpy(r->e->node[i].design, first, sizeof first);
    memcpy(r->e->node[i].quantity, second, sizeof second);
    return i;
}

static int factor(reader *r) {
    blanks(r);
    if (take(r, '-')) {
        if (++r->depth > MAX_DEPTH) return complain(r, "nested too deeply");
        int a = factor(r);
        r->depth--;
        return a < 0 ? -1 : add_node(r, NEG, a, a);
    }
    if (take(r, '(')) {
        int a = sum(r);
        if (a < 0) return -1;
        return take(r, ')') ? a : complain(r, "')' is missing");
    }
    if (isdigit((unsigned char)*r->at) || (*r->at == '.' && isdigit((unsigned char)r->at[1]))) {
        char *end;
        double x = strtod(r->at, &end);
        if (!isfinite(x)) return complain(r, "the number is too large");
        int i = add_node(r, NUMBER, 0, 0);
        if (i >= 0) r->e->node[i].number = x;
        r->at = end;
        return i;
    }
    if (isalpha((unsigned char)*r->at) || *r->at == '_') return name(r);
    return complain(r, *r->at ? "a number, a name like flow.loss, or '(' is expected" : "the expression ends too early");
}

static int product(reader *r) {
    int a = factor(r);
    while (a >= 0) {
        bool times = take(r, '*');
        if (!times && !take(r, '/')) return a;
        int b = factor(r);
        a = b < 0 ? -1 : add_node(r, times ? MUL : DIV, a, b);
    }
    return -1;
}

static int sum(reader *r) {
    if (++r->depth > MAX_DEPTH) return complain(r, "nested too deeply");
    int a = product(r);
    while (a >= 0) {
        bool plus = take(r, '+');
        if (!plus && !take(r, '-')) break;
        int b = product(r);
        a = b < 0 ? -1 : add_node(r, plus ? ADD : SUB, a, b);
    }
    r->depth--;
    return a;
}

static bool read_sign(reader *r, sign *s) {
    blanks(r);
    bool equal = r->at[0] && r->at[1] == '=';
    if (*r->at == '<')
        *s = equal ? LE : LT;
    else if (*r->at == '>')
        *s = equal ? GE : GT;
    else if (*r->at == '=' && equal)
        *s = EQ;
    else
        return false;
    r->at += equal ? 2 : 1;
    return true;
}

static bool chain(reader *r) {
    wf_expr *e = r->e;
    for (;;) {
        if (e->n_side == MAX_SIDES) return complain(r, "too many comparisons in one chain") == 0;
        int side = sum(r);
        if (side < 0) return false;
        e->side[e->n_side++] = side;
        blanks(r);
        if (!*r->at) break;
        if (!read_sign(r, &e->sign[e->n_side - 1]))
            return complain(r, "one of + - * / <= < >= > == is expected, or the end") == 0;
    }
    return e->n_side > 1 || complain(r, "a criterion compares: one of <= < >= > == is missing") == 0;
}

wf_expr *wf_expr_parse(const char *text, wf_expr_check check, void *ctx) {
    wf_expr *e = wf_alloc(sizeof *e);
    if (!e) return NULL;
    reader r = {.text = text, .at = text, .e = e, .check = check, .ctx = ctx};
    if (chain(&r)) return e;
    wf_expr_free(e);
    return NULL;
}

void wf_expr_free(wf_expr *e) {
    wf_free(e);
}

/* Operands stand before what uses them, so one pass over the array is the whole evaluation. */
static void evaluate(const wf_expr *e, wf_expr_value value, void *ctx, double *x) {
    for (int i = 0; i < e->n_node; i++) {
        const node *n = &e->node[i];
        double a = i ? x[n->a] : 0, b = i ? x[n->b] : 0;
        switch (n->kind) {
        case NUMBER: x[i] = n->number; break;
        case NAME: x[i] = value(ctx, n->design, n->quantity); break;
        case ADD: x[i] = a + b; break;
        case SUB: x[i] = a - b; break;
        case MUL: x[i] = a * b; break;
        case DIV: x[i] = a / b; break;
        case NEG: x[i] = -a; break;
        case MIN: x[i] = isnan(a) || isnan(b) ? NAN : fmin(a, b); break;
        case MAX: x[i] = isnan(a) || isnan(b) ? NAN : fmax(a, b); break;
        case ABS: x[i] = fabs(a); break;
        }
    }
}

static bool compare(sign s, double a, double b) {
    switch (s) {
    case LE: return a <= b;
    case LT: return a < b;
    case GE: return a >= b;
    case GT: return a > b;
    case EQ: return a == b;
    }
    return false;
}

int wf_expr_holds(const wf_expr *e, wf_expr_value value, void *ctx, double *sides, int room, int *n) {
    double x[MAX_NODES];
    evaluate(e, value, ctx, x);
    int holds = 1;
    for (int i = 0; i < e->n_side; i++) {
        if (sides && i < room) sides[i] = x[e->side[i]];
        if (isnan(x[e->side[i]])) holds = -1;
    }
    for (int i = 0; holds > 0 && i + 1 < e->n_side; i++) holds = compare(e->sign[i], x[e->side[i]], x[e->side[i + 1]]);
    if (n) *n = e->n_side < room ? e->n_side : room;
    return holds;
}

const char *wf_expr_sign(const wf_expr *e, int i) {
    return i >= 0 && i + 1 < e->n_side ? sign_text[e->sign[i]] : "";
}

void wf_expr_names(const wf_expr *e, void (*see)(void *ctx, const char *design, const char *quantity), void *ctx) {
    for (int i = 0; i < e->n_node; i++)
        if (e->node[i].kind == NAME) see(ctx, e->node[i].design, e->node[i].quantity);
}
