/* rows_chain.h: the kernels of chains (rows_kernel.h): included by rows.c. Four vectors at a time go through all steps in registers;
 * behind them single vectors, and at the end of a row a part of one. Reductions add in the order of the kernels in rows.c, so
 * a number does not depend on whether its instruction runs in a chain. Which chains there are is a list at the end: what is often
 * found in norms, gates, activations and their derivatives; a new one is a line. */

enum { CHAIN_VECTORS = 4 };

/* Where an operand is at one row. The mask is 0 for one number, which then lies in memory repeated. */
static inline __attribute__((always_inline)) const float *chain_at(const wf_chain_operand *o, int64_t row, int64_t col,
                                                                   float *repeated, int64_t *mask) {
    const float *p = (const float *)*o->p + row * o->pitch;
    *mask = -(int64_t)!o->one;
    if (!o->one) return p + col;
    for (int k = 0; k < CHAIN_VECTORS; k++) st(repeated + k * WF_LANES, splat(*p));
    return repeated;
}

/* What a step does with vector k: GET and PUT reach memory, TO adds to the reduction. */
#define C_NONE(GET, PUT, TO, k)
#define C_LOAD(GET, PUT, TO, k) a##k = GET(x, k);
#define C_STORE(GET, PUT, TO, k) PUT(x, k, a##k);
#define C_NEG(GET, PUT, TO, k) a##k = -a##k;
#define C_SQUARE(GET, PUT, TO, k) a##k = a##k * a##k;
#define C_ADD(GET, PUT, TO, k) a##k = a##k + GET(x, k);
#define C_SUB(GET, PUT, TO, k) a##k = a##k - GET(x, k);
#define C_RSUB(GET, PUT, TO, k) a##k = GET(x, k) - a##k;
#define C_MUL(GET, PUT, TO, k) a##k = a##k * GET(x, k);
#define C_MUL_ADD(GET, PUT, TO, k) a##k = vfma(a##k, GET(x, k), GET(y, k));
#define C_MUL_RSUB(GET, PUT, TO, k) a##k = vfma(-a##k, GET(x, k), GET(y, k));
#define C_ADD_MUL(GET, PUT, TO, k) a##k = vfma(GET(x, k), GET(y, k), a##k);
#define C_SUB_MUL(GET, PUT, TO, k) a##k = vfma(-GET(x, k), GET(y, k), a##k);
#define C_RSUB_MUL(GET, PUT, TO, k) a##k = vfma(GET(x, k), GET(y, k), -a##k);
#define C_ADD_TO(GET, PUT, TO, k) PUT(x, k, GET(x, k) + a##k);
#define C_ADD_TO_MUL(GET, PUT, TO, k) PUT(x, k, vfma(a##k, GET(y, k), GET(x, k)));
#define C_ADD_TO_SQUARE(GET, PUT, TO, k) PUT(x, k, vfma(a##k, a##k, GET(x, k)));
#define C_EXP(GET, PUT, TO, k) a##k = vexp(a##k);
#define C_TANH(GET, PUT, TO, k) a##k = vtanh(a##k);
#define C_ERF(GET, PUT, TO, k) a##k = verf(a##k);
#define C_SIGMOID(GET, PUT, TO, k) a##k = vsigmoid(a##k);
#define C_SUM(GET, PUT, TO, k) TO(k, a##k)
#define C_DOT(GET, PUT, TO, k) TO(k, a##k *GET(x, k))
#define C_SUM_SQUARE(GET, PUT, TO, k) TO(k, a##k *a##k)

#define GET_WHOLE(p, k) ld((p) + (k)*WF_LANES)
#define PUT_WHOLE(p, k, v) st((float *)(uintptr_t)(p) + (k)*WF_LANES, v)
#define GET_SOME(p, k) ld_n(p, m)
#define PUT_SOME(p, k, v) st_n((float *)(uintptr_t)(p), v, m)
#define TO_EACH(k, v) t##k += v;
#define TO_ONE(k, v) t0 += v;
#define TO_SOME(k, v) t1 += sel(lane_index() < (int32_t)m, v, (vf){0});
#define ALL_FOUR(OP, GET, PUT, TO) OP(GET, PUT, TO, 0) OP(GET, PUT, TO, 1) OP(GET, PUT, TO, 2) OP(GET, PUT, TO, 3)
#define ALL_ONE(OP, GET, PUT, TO) OP(GET, PUT, TO, 0)

/* Operands of each step. */
enum {
    N_NONE = 0,
    N_LOAD = 1,
    N_STORE = 1,
    N_NEG = 0,
    N_SQUARE = 0,
    N_ADD = 1,
    N_SUB = 1,
    N_RSUB = 1,
    N_MUL = 1,
    N_MUL_ADD = 2,
    N_MUL_RSUB = 2,
    N_ADD_MUL = 2,
    N_SUB_MUL = 2,
    N_RSUB_MUL = 2,
    N_ADD_TO = 1,
    N_ADD_TO_MUL = 2,
    N_ADD_TO_SQUARE = 1,
    N_EXP = 0,
    N_TANH = 0,
    N_ERF = 0,
    N_SIGMOID = 0,
    N_SUM = 0,
    N_DOT = 1,
    N_SUM_SQUARE = 0,
};

#define PLACE(j, NAME)                                                                                                         \
    if (N_##NAME > 0) x##j = chain_at(&c->step[j].x, r, run->col, repeated[2 * j], &mx##j);                                    \
    if (N_##NAME > 1) y##j = chain_at(&c->step[j].y, r, run->col, repeated[2 * j + 1], &my##j);
#define STEP(j, OP, ALL, GET, PUT, TO)                                                                                         \
    {                                                                                                                          \
        const float *x = x##j + (i & mx##j), *y = y##j + (i & my##j);                                                          \
        (void)x;                                                                                                               \
        (void)y;                                                                                                               \
        ALL(OP, GET, PUT, TO)                                                                                                  \
    }
#define STEPS(ALL, GET, PUT, TO, A, B, C, D, E)                                                                                \
    {                                                                                                                          \
        STEP(0, C_LOAD, ALL, GET, PUT, TO)                                                                                     \
        STEP(1, C_##A, ALL, GET, PUT, TO)                                                                                      \
        STEP(2, C_##B, ALL, GET, PUT, TO)                                                                                      \
        STEP(3, C_##C, ALL, GET, PUT, TO)                                                                                      \
        STEP(4, C_##D, ALL, GET, PUT, TO)                                                                                      \
        STEP(5, C_##E, ALL, GET, PUT, TO)                                                                                      \
    }

#define CHAIN(A, B, C, D, E)                                                                                                   \
    static void chain_##A##_##B##_##C##_##D##_##E(const wf_chain *c, const wf_chain_run *run) {                                \
        _Alignas(64) float repeated[12][CHAIN_VECTORS * WF_LANES];                                                             \
        const float *x0 = NULL, *x1 = NULL, *x2 = NULL, *x3 = NULL, *x4 = NULL, *x5 = NULL;                                    \
        const float *y0 = NULL, *y1 = NULL, *y2 = NULL, *y3 = NULL, *y4 = NULL, *y5 = NULL;                                    \
        int64_t mx0 = 0, mx1 = 0, mx2 = 0, mx3 = 0, mx4 = 0, mx5 = 0, my0 = 0, my1 = 0, my2 = 0, my3 = 0, my4 = 0, my5 = 0;    \
        for (int64_t r = run->row; r < run->row + run->rows; r++) {                                                            \
            double total = c->sum && c->sum->total && !run->begins ? c->sum->total[r] : 0;                                     \
            PLACE(0, LOAD)                                                                                                     \
            PLACE(1, A)                                                                                                        \
            PLACE(2, B)                                                                                                        \
            PLACE(3, C)                                                                                                        \
            PLACE(4, D)                                                                                                        \
            PLACE(5, E)                                                                                                        \
            for (int64_t from = 0; from < run->n; from += WF_ROW_PIECE) {                                                      \
                int64_t i = from, end = MIN2(run->n, from + WF_ROW_PIECE);                                                     \
                vf a0 = {0}, a1, a2, a3, t0 = a0, t1 = a0, t2 = a0, t3 = a0;                                                   \
                for (; i + 4 * WF_LANES <= end; i += 4 * WF_LANES)                                                             \
                    STEPS(ALL_FOUR, GET_WHOLE, PUT_WHOLE, TO_EACH, A, B, C, D, E)                                              \
                for (; i + WF_LANES <= end; i += WF_LANES) STEPS(ALL_ONE, GET_WHOLE, PUT_WHOLE, TO_ONE, A, B, C, D, E)         \
                if (i < end) {                                                                                                 \
                    int64_t m = end - i;                                                                                       \
                    STEPS(ALL_ONE, GET_SOME, PUT_SOME, TO_SOME, A, B, C, D, E)                                                 \
                }                                                                                                              \
                if (c->sum) total += (double)sum_lanes((t0 + t1) + (t2 + t3));                                                 \
            }                                                                                                                  \
            if (c->sum) end_chain(c->sum, run, r, total);                                                                      \
        }                                                                                                                      \
    }

static inline void end_chain(const wf_row_args *sum, const wf_chain_run *run, int64_t r, double total) {
    if (sum->total && !run->ends)
        sum->total[r] = total;
    else
        ((float *)sum->d)[r * sum->dp] = (float)total;
}

/* clang-format off */
#define CHAINS(DO)                                                                                                             \
    DO(MUL, MUL_ADD, STORE, NONE, NONE)                                                                                        \
    DO(ADD_TO, MUL, STORE, NONE, NONE)                                                                                         \
    DO(SUB, STORE, MUL, ADD_TO_MUL, NONE)                                                                                      \
    DO(MUL, ADD_TO_MUL, NONE, NONE, NONE)                                                                                      \
    DO(MUL, ADD_TO_SQUARE, NONE, NONE, NONE)                                                                                   \
    DO(SUB, ADD_TO, ADD_TO_SQUARE, NONE, NONE)                                                                                 \
    DO(SUB, ADD_TO_MUL, NONE, NONE, NONE)                                                                                      \
    DO(SUB, MUL_ADD, STORE, NONE, NONE)                                                                                        \
    DO(SUB, MUL_ADD, ADD_MUL, STORE, NONE)                                                                                     \
    DO(SUB, MUL_ADD, ADD, STORE, NONE)                                                                                         \
    DO(SUB, MUL, MUL_ADD, STORE, NONE)                                                                                         \
    DO(MUL, MUL, STORE, NONE, NONE)                                                                                            \
    DO(MUL, ADD_MUL, STORE, NONE, NONE)                                                                                        \
    DO(MUL, SUB_MUL, STORE, NONE, NONE)                                                                                        \
    DO(MUL, STORE, DOT, NONE, NONE)                                                                                            \
    DO(MUL, STORE, MUL, STORE, NONE)                                                                                           \
    DO(MUL, STORE, MUL, ADD_MUL, STORE)                                                                                        \
    DO(MUL, TANH, MUL_ADD, STORE, NONE)                                                                                        \
    DO(MUL, ERF, MUL_ADD, STORE, NONE)                                                                                         \
    DO(MUL, TANH, STORE, ADD_TO_MUL, NONE)                                                                                     \
    DO(MUL, STORE, ERF, ADD_TO_MUL, NONE)                                                                                      \
    DO(MUL_RSUB, MUL, STORE, MUL, STORE)                                                                                       \
    DO(SQUARE, NEG, EXP, STORE, NONE)                                                                                          \
    DO(MUL, MUL, STORE, MUL, STORE)
/* clang-format on */

CHAINS(CHAIN)

#define CHAIN_ROW(A, B, C, D, E)                                                                                               \
    {{WF_CHAIN_LOAD, WF_CHAIN_##A, WF_CHAIN_##B, WF_CHAIN_##C, WF_CHAIN_##D, WF_CHAIN_##E}, chain_##A##_##B##_##C##_##D##_##E},
static const wf_chain_kernel chains[] = {CHAINS(CHAIN_ROW)};
