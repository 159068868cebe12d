/* rows_double.c: the kernels of row programs in float64, for checking and for integers (int32 stays exact): plain loops and libm.
 * Same operand arrangements as simd/rows.c; an operand's step is 1 (vector) or 0 (one number a row). */
#include "op/rows_kernel.h"

#include <math.h>
#include <string.h>

#define FOR_ROW for (int64_t r = 0, rows = a->rows, n = a->n; r < rows; r++)
#define OPERAND(k) const double *p##k = (const double *)a->s[k] + r * a->sp[k];
#define RESULT double *d = (double *)a->d + r * a->dp;

#define KERNEL1(name, expr)                                                                                                    \
    static void name(const wf_row_args *a) {                                                                                   \
        const double imm = a->imm;                                                                                             \
        (void)imm;                                                                                                             \
        FOR_ROW {                                                                                                              \
            OPERAND(0) RESULT for (int64_t i = 0; i < n; i++) {                                                                \
                double x = p0[i];                                                                                              \
                d[i] = expr;                                                                                                   \
            }                                                                                                                  \
        }                                                                                                                      \
    }
#define KERNEL2(name, e0, e1, expr)                                                                                            \
    static void name(const wf_row_args *a) {                                                                                   \
        FOR_ROW {                                                                                                              \
            OPERAND(0) OPERAND(1) RESULT for (int64_t i = 0; i < n; i++) {                                                     \
                double x = p0[i * e0], y = p1[i * e1];                                                                         \
                d[i] = expr;                                                                                                   \
            }                                                                                                                  \
        }                                                                                                                      \
    }
#define BINARY(name, expr) KERNEL2(name##_vv, 1, 1, expr) KERNEL2(name##_sv, 0, 1, expr) KERNEL2(name##_vs, 1, 0, expr)
#define KERNEL3(name, e0, e1, e2, expr)                                                                                        \
    static void name(const wf_row_args *a) {                                                                                   \
        FOR_ROW {                                                                                                              \
            OPERAND(0) OPERAND(1) OPERAND(2) RESULT for (int64_t i = 0; i < n; i++) {                                          \
                double x = p0[i * e0], y = p1[i * e1], z = p2[i * e2];                                                         \
                d[i] = expr;                                                                                                   \
            }                                                                                                                  \
        }                                                                                                                      \
    }
#define TERNARY(name, expr)                                                                                                    \
    KERNEL3(name##_vvv, 1, 1, 1, expr)                                                                                         \
    KERNEL3(name##_svv, 0, 1, 1, expr)                                                                                         \
    KERNEL3(name##_vsv, 1, 0, 1, expr)                                                                                         \
    KERNEL3(name##_ssv, 0, 0, 1, expr)                                                                                         \
    KERNEL3(name##_vvs, 1, 1, 0, expr) KERNEL3(name##_svs, 0, 1, 0, expr) KERNEL3(name##_vss, 1, 0, 0, expr)

static double sigmoid(double x) {
    double e = exp(-fabs(x));
    return (x >= 0 ? 1 : e) / (1 + e);
}
static double larger(double x, double y) {
    return x > y || x != x ? x : y;
}
static double smaller(double x, double y) {
    return x < y || x != x ? x : y;
}

KERNEL1(copy, x)
KERNEL1(neg, -x)
KERNEL1(abs_, fabs(x))
KERNEL1(sign, x > 0 ? 1 : x < 0 ? -1 : x)
KERNEL1(exp_, exp(x))
KERNEL1(expm1_, expm1(x))
KERNEL1(log_, log(x))
KERNEL1(log1p_, log1p(x))
KERNEL1(sqrt_, sqrt(x))
KERNEL1(rsqrt, 1 / sqrt(x))
KERNEL1(recip, 1 / x)
KERNEL1(square, x *x)
KERNEL1(tanh_, tanh(x))
KERNEL1(sigmoid_, sigmoid(x))
KERNEL1(softplus, (x > 0 ? x : 0) + log1p(exp(-fabs(x))))
KERNEL1(erf_, erf(x))
KERNEL1(sin_, sin(x))
KERNEL1(cos_, cos(x))
KERNEL1(floor_, floor(x))
KERNEL1(round_, rint(x))
KERNEL1(is_finite, isfinite(x) ? 1 : 0)
KERNEL1(add_imm, x + imm)
KERNEL1(mul_imm, x *imm)
KERNEL1(max_imm, x < imm ? imm : x)
KERNEL1(min_imm, x > imm ? imm : x)
KERNEL1(pow_imm, pow(x, imm))
BINARY(add, x + y)
BINARY(sub, x - y)
BINARY(mul, x *y)
BINARY(div, x / y)
BINARY(max, larger(x, y))
BINARY(min, smaller(x, y))
BINARY(pow, pow(x, y))
BINARY(atan2_, atan2(x, y))
BINARY(lt, x < y)
BINARY(le, x <= y)
BINARY(eq, x == y)
BINARY(ne, x != y)
TERNARY(where, x != 0 ? y : z)
TERNARY(fma, x *y + z)
TERNARY(fms, x *y - z)
TERNARY(fnma, z - x * y)

static void copy_s(const wf_row_args *a) {
    FOR_ROW {
        OPERAND(0) RESULT for (int64_t i = 0; i < n; i++) d[i] = *p0;
    }
}

static void fill(const wf_row_args *a) {
    FOR_ROW {
        RESULT for (int64_t i = 0; i < n; i++) d[i] = a->imm;
    }
}

#define ROW_REDUCTION(name, start, step)                                                                                       \
    static void name(const wf_row_args *a) {                                                                                   \
        FOR_ROW {                                                                                                              \
            OPERAND(0) double t = start;                                                                                       \
            for (int64_t i = 0; i < n; i++) {                                                                                  \
                double x = p0[i];                                                                                              \
                t = step;                                                                                                      \
            }                                                                                                                  \
            ((double *)a->d)[r * a->dp] = t;                                                                                   \
        }                                                                                                                      \
    }
ROW_REDUCTION(sum, 0, t + x)
ROW_REDUCTION(amax, -INFINITY, larger(t, x))
ROW_REDUCTION(amin, INFINITY, smaller(t, x))

static void dot_vv(const wf_row_args *a) {
    FOR_ROW {
        OPERAND(0) OPERAND(1) double t = 0;
        for (int64_t i = 0; i < n; i++) t += p0[i] * p1[i];
        ((double *)a->d)[r * a->dp] = t;
    }
}

static void sum_rows(const wf_row_args *a) {
    double *d = a->d;
    FOR_ROW {
        OPERAND(0) for (int64_t i = 0; i < n; i++) d[i] += p0[i];
    }
}

#define DOT_ROWS(name, e0, e1)                                                                                                 \
    static void name(const wf_row_args *a) {                                                                                   \
        double *d = a->d;                                                                                                      \
        FOR_ROW {                                                                                                              \
            OPERAND(0) OPERAND(1) for (int64_t i = 0; i < n; i++) d[i] += p0[i * e0] * p1[i * e1];                             \
        }                                                                                                                      \
    }
DOT_ROWS(dot_rows_vv, 1, 1)
DOT_ROWS(dot_rows_sv, 0, 1)
DOT_ROWS(dot_rows_vs, 1, 0)

static void sum_rows_narrow(const wf_row_args *a) {
    const double *p = a->s[0];
    for (int64_t i = 0; i < a->n; i++) *(double *)a->d += p[i];
}

/* ---- conversion: integers are cut towards 0 and held to their range; NaN becomes 0 ---- */

static double hold(double x, double lo, double hi) {
    return x >= lo ? (x <= hi ? x : hi) : (x < lo ? lo : 0);
}
static float bf16_to_f32(uint16_t h) {
    uint32_t b = (uint32_t)h << 16;
    float x;
    memcpy(&x, &b, 4);
    return x;
}

#define CONVERT(name, type, from, to)                                                                                          \
    static void load_##name(const wf_row_args *a) {                                                                            \
        FOR_ROW {                                                                                                              \
            const type *p = (const type *)a->s[0] + r * a->sp[0];                                                              \
            RESULT for (int64_t i = 0; i < n; i++) d[i] = (double)from(p[i * a->step]);                                        \
        }                                                                                                                      \
    }                                                                                                                          \
    static void store_##name(const wf_row_args *a) {                                                                           \
        FOR_ROW {                                                                                                              \
            OPERAND(0) type *d = (type *)a->d + r * a->dp;                                                                     \
            for (int64_t i = 0; i < n; i++) d[i * a->step] = (type)to(p0[i]);                                                  \
        }                                                                                                                      \
    }                                                                                                                          \
    static void round_##name(const wf_row_args *a) {                                                                           \
        FOR_ROW {                                                                                                              \
            OPERAND(0) RESULT for (int64_t i = 0; i < n; i++) d[i] = (double)from((type)to(p0[i]));                            \
        }                                                                                                                      \
    }
#define SAME(x) (x)
#define TO_I32(x) hold(x, -2147483648.0, 2147483647.0)
#define TO_I8(x) hold(x, -128, 127)
#define TO_U8(x) hold(x, 0, 255)
#define TO_BF16(x) wf_f32_to_bf16((float)(x))
CONVERT(f32, float, SAME, SAME)
CONVERT(f64, double, SAME, SAME)
CONVERT(i32, int32_t, SAME, TO_I32)
CONVERT(i8, int8_t, SAME, TO_I8)
CONVERT(u8, uint8_t, SAME, TO_U8)
CONVERT(bf16, uint16_t, bf16_to_f32, TO_BF16)

/* ---- generators (generate.c says what they are) ---- */

static void index_numbers(const wf_row_args *a) {
    FOR_ROW {
        RESULT for (int64_t i = 0; i < n; i++) d[i] =
            (double)((a->index + r * a->sp[1] + i * a->step) / a->number[0] % a->number[1]);
    }
}

static void random_words(const wf_row_args *a, int64_t at, uint32_t w[4]) {
    const uint32_t *s = a->s[0];
    uint64_t q = (uint64_t)at >> 2, stream = (uint64_t)a->number[0];
    uint32_t ctr[4] = {(uint32_t)q, (uint32_t)(q >> 32) ^ (uint32_t)(stream >> 32), s[2], s[3] ^ (uint32_t)stream};
    wf_philox(s, ctr, w);
}

static void uniform_numbers(const wf_row_args *a) {
    int drop = 32 - (int)a->number[1];
    FOR_ROW {
        RESULT for (int64_t i = 0; i < n; i++) {
            uint32_t w[4];
            int64_t at = a->index + r * a->sp[1] + i * a->step;
            random_words(a, at, w);
            d[i] = ldexp((double)(w[at & 3] >> drop), -(int)a->number[1]);
        }
    }
}

static void normal_numbers(const wf_row_args *a) {
    FOR_ROW {
        RESULT for (int64_t i = 0; i < n; i++) {
            uint32_t w[4];
            int64_t at = a->index + r * a->sp[1] + i * a->step;
            random_words(a, at, w);
            double u = ((w[at & 2] >> 8) + 1) * 0x1p-24, v = (w[(at & 2) + 1] >> 8) * 0x1p-24 * 6.283185307179586;
            d[i] = sqrt(-2 * log(u)) * (at & 1 ? sin(v) : cos(v));
        }
    }
}

#define B2(name)                                                                                                               \
    { [0] = name##_vv, [1] = name##_sv, [2] = name##_vs }
#define B3(name)                                                                                                               \
    {                                                                                                                          \
        [0] = name##_vvv, [1] = name##_svv, [2] = name##_vsv, [3] = name##_ssv, [4] = name##_vvs, [5] = name##_svs,            \
        [6] = name##_vss                                                                                                       \
    }

const wf_row_kernels wf_row_kernels_double = {
    .op = {[WF_ROW_COPY] = {copy, copy_s},
           [WF_ROW_NEG] = {neg},
           [WF_ROW_ABS] = {abs_},
           [WF_ROW_SIGN] = {sign},
           [WF_ROW_EXP] = {exp_},
           [WF_ROW_EXPM1] = {expm1_},
           [WF_ROW_LOG] = {log_},
           [WF_ROW_LOG1P] = {log1p_},
           [WF_ROW_SQRT] = {sqrt_},
           [WF_ROW_RSQRT] = {rsqrt},
           [WF_ROW_RECIP] = {recip},
           [WF_ROW_SQUARE] = {square},
           [WF_ROW_TANH] = {tanh_},
           [WF_ROW_SIGMOID] = {sigmoid_},
           [WF_ROW_SOFTPLUS] = {softplus},
           [WF_ROW_ERF] = {erf_},
           [WF_ROW_SIN] = {sin_},
           [WF_ROW_COS] = {cos_},
           [WF_ROW_FLOOR] = {floor_},
           [WF_ROW_ROUND] = {round_},
           [WF_ROW_IS_FINITE] = {is_finite},
           [WF_ROW_ADD_IMM] = {add_imm},
           [WF_ROW_MUL_IMM] = {mul_imm},
           [WF_ROW_MAX_IMM] = {max_imm},
           [WF_ROW_MIN_IMM] = {min_imm},
           [WF_ROW_POW_IMM] = {pow_imm},
           [WF_ROW_ADD] = B2(add),
           [WF_ROW_SUB] = B2(sub),
           [WF_ROW_MUL] = B2(mul),
           [WF_ROW_DIV] = B2(div),
           [WF_ROW_MAX] = B2(max),
           [WF_ROW_MIN] = B2(min),
           [WF_ROW_POW] = B2(pow),
           [WF_ROW_ATAN2] = B2(atan2_),
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
           [WF_ROW_SUM] = {sum},
           [WF_ROW_AMAX] = {amax},
           [WF_ROW_AMIN] = {amin},
           [WF_ROW_DOT] = {dot_vv},
           [WF_ROW_SUM_ROWS] = {sum_rows},
           [WF_ROW_DOT_ROWS] = {dot_rows_vv, dot_rows_sv, dot_rows_vs}},
    .round = {[WF_F32] = round_f32,
              [WF_BF16] = round_bf16,
              [WF_I32] = round_i32,
              [WF_U8] = round_u8,
              [WF_F64] = round_f64,
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
    .lanes = 1,
    .stream = copy,
    .sum_rows_narrow = sum_rows_narrow,
};
