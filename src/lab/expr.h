/* expr.h: criteria as small expressions: `flow.loss <= 1.01 * linear.loss`.
 *
 *     criterion = sum (("<=" | "<" | ">=" | ">" | "==") sum)+        a chain holds when every link does
 *     sum       = product (("+" | "-") product)*
 *     product   = factor (("*" | "/") factor)*
 *     factor    = number | design "." quantity | ("min" | "max" | "abs") "(" sum ("," sum)* ")" | "(" sum ")" | "-" factor
 *
 * Names are letters, digits and _, the first no digit. There is no other word, no assignment and no loop: an expression from
 * anywhere can do nothing but compare numbers.
 */
#ifndef WF_LAB_EXPR_H
#define WF_LAB_EXPR_H

#include "base/base.h"

typedef struct wf_expr wf_expr;

/* Whether `design.quantity` exists; WF_OK, or an error whose message says what is there instead. */
typedef wf_status (*wf_expr_check)(void *ctx, const char *design, const char *quantity);
/* The value of `design.quantity`; NaN when it is not known. */
typedef double (*wf_expr_value)(void *ctx, const char *design, const char *quantity);

/* NULL + message with the column of what is wrong. `check` may be NULL. */
wf_expr *wf_expr_parse(const char *text, wf_expr_check check, void *ctx);
void wf_expr_free(wf_expr *e);
/* 1 holds, 0 does not, -1: a value is NaN, so nothing can be said. sides (may be NULL): what stands between the comparison signs,
 * at most `room`; *n how many there are. */
int wf_expr_holds(const wf_expr *e, wf_expr_value value, void *ctx, double *sides, int room, int *n);
/* "<=" after side i of the chain. */
const char *wf_expr_sign(const wf_expr *e, int i);
/* Calls `see` for every name of the expression. */
void wf_expr_names(const wf_expr *e, void (*see)(void *ctx, const char *design, const char *quantity), void *ctx);

#endif
