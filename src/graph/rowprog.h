/* rowprog.h: row programs, the form in which pointwise operators and last-axis reductions run.
 *
 * A program runs over an iteration space of up to 6 axes; the last axis (N columns) is the row, the others enumerate rows.
 * An operand is full [R,N], one number a row [R,1], one row for all [1,N], or one number [1,1]; in memory it is
 * reached by element strides over the axes (0 where broadcast). Registers are blocks of a few rows that stay in L1.
 */
#ifndef WF_ROWPROG_H
#define WF_ROWPROG_H

#include "graph/graph.h"

typedef enum wf_row_code {
    WF_ROW_NONE = 0,
    /* one operand */
    WF_ROW_COPY,
    WF_ROW_NEG,
    WF_ROW_ABS,
    WF_ROW_SIGN,
    WF_ROW_EXP,
    WF_ROW_EXPM1,
    WF_ROW_LOG,
    WF_ROW_LOG1P,
    WF_ROW_SQRT,
    WF_ROW_RSQRT,
    WF_ROW_RECIP,
    WF_ROW_SQUARE,
    WF_ROW_TANH,
    WF_ROW_SIGMOID,
    WF_ROW_SOFTPLUS,
    WF_ROW_ERF,
    WF_ROW_SIN,
    WF_ROW_COS,
    WF_ROW_FLOOR,
    WF_ROW_ROUND,
    WF_ROW_IS_FINITE,
    /* one operand and the immediate attr.f[0] */
    WF_ROW_ADD_IMM,
    WF_ROW_MUL_IMM,
    WF_ROW_MAX_IMM,
    WF_ROW_MIN_IMM,
    WF_ROW_POW_IMM,
    /* two */
    WF_ROW_ADD,
    WF_ROW_SUB,
    WF_ROW_MUL,
    WF_ROW_DIV,
    WF_ROW_MAX,
    WF_ROW_MIN,
    WF_ROW_POW,
    WF_ROW_ATAN2,
    WF_ROW_LT,
    WF_ROW_LE,
    WF_ROW_EQ,
    WF_ROW_NE, /* 1 or 0 in the operands' dtype */
    /* three */
    WF_ROW_WHERE, /* c != 0 ? a : b */
    WF_ROW_FMA,   /* a*b + c; made by the fuser */
    WF_ROW_FMS,
    WF_ROW_FNMA,
    /* none: constants and random numbers, by linear index in the node's own dense shape */
    WF_ROW_FILL,    /* attr.f[0] */
    WF_ROW_INDEX,   /* coordinate along axis attr.i[0] */
    WF_ROW_UNIFORM, /* in[0]: int32[4] {seed lo, seed hi, step lo, step hi}; attr.i[0] stream; [0,1) */
    WF_ROW_NORMAL,
    /* over the row: result [R,1] */
    WF_ROW_SUM,
    WF_ROW_AMAX,
    WF_ROW_AMIN,
    /* over rows: result accumulated per segment of rows, added in a fixed order */
    WF_ROW_SUM_ROWS,
    WF_ROW_DOT,
    WF_ROW_DOT_ROWS, /* SUM and SUM_ROWS of a product; made by the fuser */
    WF_ROW_CODES
} wf_row_code;

/* Sums over the row: so many numbers are added in float32, then to the rest in float64. */
enum { WF_ROW_PIECE = 1024 };

#endif
