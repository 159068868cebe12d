/* rows.c (once per instruction set): the kernels of row programs in float32.
 *
 * A kernel is one loop over vectors; a macro makes it for every arrangement of its operands (V: a vector, S: one number a row,
 * kept in a register). d may be the same memory as a vector operand.
 */
#include "op/rows_kernel.h"
#include "op/simd.h"
#include "op/simd/rows_math.h"

/* How operand k of kind V or S is reached: at the start of row r, at column i, and for the last m columns. */
#define ROW_V(k) const float *p##k = (const float *)a->s[k] + r * a->sp[k];
#define ROW_S(k) const vf c##k = splat(((const float *)a->s[k])[r * a->sp[k]]);
#define GET_V(k) ld(p##k + i)
#define GET_S(k) c##k
#define PART_V(k) ld_n(p##k + i, m)
#define PART_S(k) c##k

#define FOR_ROW for (int64_t r = 0, rows = a->rows, n = a->n; r < rows; r++)

#define KERNEL1(name, expr)                                                                                                    \
    static void name##_v(const wf_row_args *a) {                                                                               \
        const float imm = (float)a->imm;                                                                                       \
        (void)imm;                                                                                                             \
        FOR_ROW {                                                                                                              \
            ROW_V(0) float *d = (float *)a->d + r * a->dp;                                                                     \
            int64_t i = 0;                                                                                                     \
            WF_UNROLL for (; i + WF_LANES <= n; i += WF_LANES) {                                                               \
                vf x = GET_V(0);                                                                                               \
                st(d + i, expr);                                                                                               \
            }                                                                                                                  \
            if (i < n) {                                                                                                       \
                int64_t m = n - i;                                                                                             \
                vf x = PART_V(0);                                                                                              \
                st_n(d + i, expr, m);                                                                                          \
            }                                                                                                                  \
        }                                                                                                                      \
    }

#define KERNEL2(name, A, B, expr)                                                                                              \
    static void name(const wf_row_args *a) {                                                                                   \
        FOR_ROW {                                                                                                              \
            ROW_##A(0) ROW_##B(1) float *d = (float *)a->d + r * a->dp;                                                        \
            int64_t i = 0;                                                                                                     \
            WF_UNROLL for (; i + WF_LANES <= n; i += WF_LANES) {                                                               \
                vf x = GET_##A(0), y = GET_##B(1);                                                                             \
                st(d + i, expr);                                                                                               \
            }                                                                                                                  \
            if (i < n) {                                                                                                       \
                int64_t m = n - i;                                                                                             \
                vf x = PART_##A(0), y = PART_##B(1);                                                                           \
                st_n(d + i, expr, m);                                                                                          \
            }                                                                                                                  \
        }                                                                                                                      \
    }
#define BINARY(name, expr) KERNEL2(name##_vv, V, V, expr) KERNEL2(name##_sv, S, V, expr) KERNEL2(name##_vs, V, S, expr)

#define KERNEL3(name, A, B, C, expr)                                                                                           \
    static void name(const wf_row_args *a) {                                                                                   \
        FOR_ROW {                                                                                                              \
            ROW_##A(0) ROW_##B(1) ROW_##C(2) float *d = (float *)a->d + r * a->dp;                                             \
            int64_t i = 0;                                                                                                     \
            WF_UNROLL for (; i + WF_LANES <= n; i += WF_LANES) {                                                               \
                vf x = GET_##A(0), y = GET_##B(1), z = GET_##C(2);                                                             \
                st(d + i, expr);                                                                                               \
            }                                                                                                                  \
            if (i < n) {                                                                                                       \
                int64_t m = n - i;                                                                                             \
                vf x = PART_##A(0), y = PART_##B(1), z = PART_##C(2);                                                          \
                st_n(d + i, expr, m);                                                                                          \
            }                                                                                                                  \
        }                                                                                                                      \
    }
#define TERNARY(name, expr)                                                                                                    \
    KERNEL3(name##_vvv, V, V, V, expr)                                                                                         \
    KERNEL3(name##_svv, S, V, V, expr)                                                                                         \
    KERNEL3(name##_vsv, V, S, V, expr)                                                                                         \
    KERNEL3(name##_ssv, S, S, V, expr)                                                                                         \
    KERNEL3(name##_vvs, V, V, S, expr) KERNEL3(name##_svs, S, V, S, expr) KERNEL3(name##_vss, V, S, S, expr)

KERNEL1(copy, x)
KERNEL1(neg, -x)
KERNEL1(abs, vabs(x))
KERNEL1(sign, vsign(x))
KERNEL1(exp, vexp(x))
KERNEL1(expm1, vexpm1(x))
KERNEL1(log, vlog(x))
KERNEL1(log1p, vlog1p(x))
KERNEL1(sqrt, vsqrt(x))
KERNEL1(rsqrt, 1.0f / vsqrt(x))
KERNEL1(recip, 1.0f / x)
KERNEL1(square, x *x)
KERNEL1(tanh, vtanh(x))
KERNEL1(sigmoid, vsigmoid(x))
KERNEL1(softplus, vsoftplus(x))
KERNEL1(erf, verf(x))
KERNEL1(sin, vsin(x))
KERNEL1(cos, vcos(x))
KERNEL1(floor, vfloor(x))
KERNEL1(round, vround(x))
KERNEL1(is_finite, vtruth(x - x == 0.0f))
KERNEL1(add_imm, x + imm)
KERNEL1(mul_imm, x *imm)
KERNEL1(max_imm, sel(x < imm, splat(imm), x))
KERNEL1(min_imm, sel(x > imm, splat(imm), x))
KERNEL1(pow_imm, vpow(x, splat(imm)))
BINARY(add, x + y)
BINARY(sub, x - y)
BINARY(mul, x *y)
BINARY(div, x / y)
BINARY(max, vmax(x, y))
BINARY(min, vmin(x, y))
BINARY(pow, vpow(x, y))
BINARY(atan2, vatan2(x, y))
BINARY(lt, vtruth(x < y))
BINARY(le, vtruth(x <= y))
BINARY(eq, vtruth(x == y))
BINARY(ne, vtruth(x != y))
TERNARY(where, sel(x != 0.0f, y, z))
TERNARY(fma, x *y + z)
TERNARY(fms, x *y - z)
TERNARY(fnma, z - x * y)

/* One number a row, n times. */
static void copy_s(const wf_row_args *a) {
    FOR_ROW {
        ROW_S(0) float *d = (float *)a->d + r * a->dp;
        int64_t i = 0;
        for (; i + WF_LANES <= n; i += WF_LANES) st(d + i, c0);
        if (i < n) st_n(d + i, c0, n - i);
    }
}

static void fill(const wf_row_args *a) {
    const vf c = splat((float)a->imm);
    FOR_ROW {
        float *d = (float *)a->d + r * a->dp;
        int64_t i = 0;
        for (; i + WF_LANES <= n; i += WF_LANES) st(d + i, c);
        if (i < n) st_n(d + i, c, n - i);
    }
}

#define MIN2(a, b) ((a) < (b) ? (a) : (b))

/* ---- reductions over the row: pieces in 4 vectors of partial sums, pieces added in double; in tiles of whole pieces, or at once ---- */

static inline void end_row(const wf_row_args *a, int64_t r, double total) {
    if (a->total && !a->ends)
        a->total[r] = total;
    else
        ((float *)a->d)[r * a->dp] = (float)total;
}
#define SO_FAR(start) (a->total && !a->begins ? a->total[r] : (double)(start))

#define ROW_SUM(name, term, part, A, B)                                                                                        \
    static void name(const wf_row_args *a) {                                                                                   \
        FOR_ROW {                                                                                                              \
            ROW_##A(0) ROW_##B(1) double total = SO_FAR(0);                                                                    \
            for (int64_t from = 0; from < n; from += WF_ROW_PIECE) {                                                           \
                int64_t i = from, end = MIN2(n, from + WF_ROW_PIECE);                                                          \
                vf t0 = {0}, t1 = {0}, t2 = {0}, t3 = {0};                                                                     \
                for (; i + 4 * WF_LANES <= end; i += 4 * WF_LANES) {                                                           \
                    t0 += term(0);                                                                                             \
                    t1 += term(WF_LANES);                                                                                      \
                    t2 += term(2 * WF_LANES);                                                                                  \
                    t3 += term(3 * WF_LANES);                                                                                  \
                }                                                                                                              \
                for (; i + WF_LANES <= end; i += WF_LANES) t0 += term(0);                                                      \
                if (i < end) {                                                                                                 \
                    int64_t m = end - i;                                                                                       \
                    t1 += part;                                                                                                \
                }                                                                                                              \
                total += (double)sum_lanes((t0 + t1) + (t2 + t3));                                                             \
            }                                                                                                                  \
            end_row(a, r, total);                                                                                              \
        }                                                                                                                      \
    }
#define ROW_N(k)
#define ONE_TERM(at) ld(p0 + i + (at))
#define TWO_TERM(at) (ld(p0 + i + (at)) * ld(p1 + i + (at)))
ROW_SUM(sum_v, ONE_TERM, ld_n(p0 + i, m), V, N)
ROW_SUM(dot_vv, TWO_TERM, ld_n(p0 + i, m) * ld_n(p1 + i, m), V, V)

#define ROW_EXTREMUM(name, pick, start)                                                                                        \
    static void name(const wf_row_args *a) {                                                                                   \
        FOR_ROW {                                                                                                              \
            ROW_V(0) vf t = splat((float)SO_FAR(start)), u = t;                                                                \
            int64_t i = 0;                                                                                                     \
            for (; i + 2 * WF_LANES <= n; i += 2 * WF_LANES) {                                                                 \
                t = pick(t, ld(p0 + i));                                                                                       \
                u = pick(u, ld(p0 + i + WF_LANES));                                                                            \
            }                                                                                                                  \
            for (; i + WF_LANES <= n; i += WF_LANES) t = pick(t, ld(p0 + i));                                                  \
            if (i < n) t = pick(t, sel(lane_index() < (int32_t)(n - i), ld_n(p0 + i, n - i), splat(start)));                   \
            t = pick(t, u);                                                                                                    \
            WF_REDUCE(t, pick);                                                                                                \
            end_row(a, r, (double)t[0]);                                                                                       \
        }                                                                                                                      \
    }
ROW_EXTREMUM(amax_v, vmax, -__builtin_inff())
ROW_EXTREMUM(amin_v, vmin, __builtin_inff())

/* ---- sums over rows: d[i] += the rows' sum, four rows at a time ---- */

#define ROWS4(A, B) ROW_##A(0) ROW_##B(1)
#define ADD_ROWS(name, setup, term, part)                                                                                      \
    static void name(const wf_row_args *a) {                                                                                   \
        float *d = a->d;                                                                                                       \
        int64_t r = 0, n = a->n;                                                                                               \
        for (; r + 2 <= a->rows; r += 2) {                                                                                     \
            setup int64_t i = 0;                                                                                               \
            for (; i + WF_LANES <= n; i += WF_LANES) st(d + i, ld(d + i) + (term(0, ld) + term(1, ld)));                       \
            if (i < n) {                                                                                                       \
                int64_t m = n - i;                                                                                             \
                st_n(d + i, ld_n(d + i, m) + (part(0) + part(1)), m);                                                          \
            }                                                                                                                  \
        }                                                                                                                      \
        for (; r < a->rows; r++) {                                                                                             \
            setup int64_t i = 0;                                                                                               \
            for (; i + WF_LANES <= n; i += WF_LANES) st(d + i, ld(d + i) + term(0, ld));                                       \
            if (i < n) {                                                                                                       \
                int64_t m = n - i;                                                                                             \
                st_n(d + i, ld_n(d + i, m) + part(0), m);                                                                      \
            }                                                                                                                  \
        }                                                                                                                      \
    }
#define NEXT_V(k) const float *p##k = (const float *)a->s[k] + r * a->sp[k], *q##k = p##k + a->sp[k];
#define NEXT_S(k)                                                                                                              \
    const float *w##k = (const float *)a->s[k] + r * a->sp[k];                                                                 \
    const vf c##k = splat(*w##k), e##k = splat(r + 1 < a->rows ? w##k[a->sp[k]] : 0.0f);
#define ONE_ROW(j, get) get((j ? q0 : p0) + i)
#define ONE_PART(j) ld_n((j ? q0 : p0) + i, m)
#define VV_ROW(j, get) (get((j ? q0 : p0) + i) * get((j ? q1 : p1) + i))
#define VV_PART(j) (ld_n((j ? q0 : p0) + i, m) * ld_n((j ? q1 : p1) + i, m))
#define SV_ROW(j, get) ((j ? e0 : c0) * get((j ? q1 : p1) + i))
#define SV_PART(j) ((j ? e0 : c0) * ld_n((j ? q1 : p1) + i, m))
#define VS_ROW(j, get) (get((j ? q0 : p0) + i) * (j ? e1 : c1))
#define VS_PART(j) (ld_n((j ? q0 : p0) + i, m) * (j ? e1 : c1))
ADD_ROWS(sum_rows_v, NEXT_V(0), ONE_ROW, ONE_PART)
ADD_ROWS(dot_rows_vv, NEXT_V(0) NEXT_V(1), VV_ROW, VV_PART)
ADD_ROWS(dot_rows_sv, NEXT_S(0) NEXT_V(1), SV_ROW, SV_PART)
ADD_ROWS(dot_rows_vs, NEXT_V(0) NEXT_S(1), VS_ROW, VS_PART)

static void sum_rows_narrow(const wf_row_args *a) {
    const float *p = a->s[0];
    double t = 0;
    for (int64_t i = 0; i < a->n; i++) t += (double)p[i];
    *(double *)a->d += t;
}

#include "op/simd/rows_chain.h"
#include "op/simd/rows_convert.h"
#include "op/simd/rows_generate.h"

#define B2(name)                                                                                                               \
    { [0] = name##_vv, [1] = name##_sv, [2] = name##_vs }
#define B3(name)                                                                                                               \
    {                                                                                                                          \
        [0] = name##_vvv, [1] = name##_svv, [2] = name##_vsv, [3] = name##_ssv, [4] = name##_vvs, [5] = name##_svs,            \
        [6] = name##_vss                                                                                                       \
    }

const wf_row_kernels WF_ISA_NAME(wf_row_kernels) = {
    .op = {[WF_ROW_COPY] = {copy_v, copy_s},
           [WF_ROW_NEG] = {neg_v},
           [WF_ROW_ABS] = {abs_v},
           [WF_ROW_SIGN] = {sign_v},
           [WF_ROW_EXP] = {exp_v},
           [WF_ROW_EXPM1] = {expm1_v},
           [WF_ROW_LOG] = {log_v},
           [WF_ROW_LOG1P] = {log1p_v},
           [WF_ROW_SQRT] = {sqrt_v},
           [WF_ROW_RSQRT] = {rsqrt_v},
           [WF_ROW_RECIP] = {recip_v},
           [WF_ROW_SQUARE] = {square_v},
           [WF_ROW_TANH] = {tanh_v},
           [WF_ROW_SIGMOID] = {sigmoid_v},
           [WF_ROW_SOFTPLUS] = {softplus_v},
           [WF_ROW_ERF] = {erf_v},
           [WF_ROW_SIN] = {sin_v},
           [WF_ROW_COS] = {cos_v},
           [WF_ROW_FLOOR] = {floor_v},
           [WF_ROW_ROUND] = {round_v},
           [WF_ROW_IS_FINITE] = {is_finite_v},
           [WF_ROW_ADD_IMM] = {add_imm_v},
           [WF_ROW_MUL_IMM] = {mul_imm_v},
           [WF_ROW_MAX_IMM] = {max_imm_v},
           [WF_ROW_MIN_IMM] = {min_imm_v},
           [WF_ROW_POW_IMM] = {pow_imm_v},
           [WF_ROW_ADD] = B2(add),
           [WF_ROW_SUB] = B2(sub),
           [WF_ROW_MUL] = B2(mul),
           [WF_ROW_DIV] = B2(div),
           [WF_ROW_MAX] = B2(max),
           [WF_ROW_MIN] = B2(min),
           [WF_ROW_POW] = B2(pow),
           [WF_ROW_ATAN2] = B2(atan2),
           [WF_ROW_LT] = B2(lt),
           [WF_ROW_LE] = B2(le),
           [WF_ROW_EQ] = B2(eq),
           [WF_ROW_NE] = B2(ne),
           [WF_ROW_WHERE] = B3(where),
           [WF_ROW_FMA] = B3(fma),
           [WF_ROW_FMS] = B3(fms),
           [WF_ROW_FNMA] = B3(fnma),
           [WF_ROW_FILL] = {fill},
           [WF_ROW_INDEX] = {index_numbers},
           [WF_ROW_UNIFORM] = {uniform_numbers},
           [WF_ROW_NORMAL] = {normal_numbers},
           [WF_ROW_SUM] = {sum_v},
           [WF_ROW_AMAX] = {amax_v},
           [WF_ROW_AMIN] = {amin_v},
           [WF_ROW_DOT] = {dot_vv},
           [WF_ROW_SUM_ROWS] = {sum_rows_v},
           [WF_ROW_DOT_ROWS] = {dot_rows_vv, dot_rows_sv, dot_rows_vs}},
    .round = {[WF_F32] = copy_v,
              [WF_BF16] = round_bf16,
              [WF_I32] = round_i32,
              [WF_U8] = round_u8,
              [WF_F64] = copy_v,
              [WF_I8] = round_i8},
    .load = {[WF_F32] = load_f32,
             [WF_BF16] = load_bf16,
             [WF_I32] = load_i32,
             [WF_U8] = load_u8,
             [WF_F64] = load_f64,
             [WF_I8] = load_i8},
    .store = {[WF_F32] = store_f32,
              [WF_BF16] = store_bf16,
              [WF_I32] = store_i32,
              [WF_U8] = store_u8,
              [WF_F64] = store_f64,
              [WF_I8] = store_i8},
    .lanes = WF_LANES,
    .stream = stream_f32,
    .sum_rows_narrow = sum_rows_narrow,
    .chains = chains,
    .n_chains = sizeof chains / sizeof *chains,
};
