/* window_body.h: one row of windows in numbers of type REAL; included by simd/window.c once for each, NAME(f) being f's own name. */

typedef REAL NAME(vec) __attribute__((vector_size(BYTES)));
typedef REAL NAME(vec_u) __attribute__((vector_size(BYTES), aligned(sizeof(REAL))));
enum { NAME(LANES) = BYTES / sizeof(REAL), NAME(PART) = 32 / NAME(LANES) }; /* 32 channels are PART vectors */
#define V NAME(vec)
#define AT(p, i) (*(NAME(vec_u) *)((p) + (i)*NAME(LANES)))
#define GET(p, i) (*(const NAME(vec_u) *)((p) + (i)*NAME(LANES)))

/* sum = the rows top .. bottom of column c: weighted (adjoint), their mean (shares without it), or plain */
INLINE void NAME(column)(const wf_window_task *t, int64_t c, REAL *sum) {
    const REAL *x = (const REAL *)t->x + c * t->pitch, *own = x + t->row * t->row_pitch;
    bool mean = t->row_share && !t->adjoint;
    REAL share = mean ? (REAL)t->row_share[t->row] : 1;
    int64_t j = 0;
    for (; j + 32 <= t->n; j += 32) {
        V acc[NAME(PART)], o[NAME(PART)];
        UNROLL for (int i = 0; i < NAME(PART); i++) acc[i] = (V){0}, o[i] = GET(own + j, i);
        for (int64_t r = t->top; r < t->bottom; r++) {
            const REAL *p = x + r * t->row_pitch + j;
            if (mean) {
                UNROLL for (int i = 0; i < NAME(PART); i++) acc[i] += GET(p, i) - o[i];
            } else {
                REAL w = t->adjoint ? (REAL)(t->row_share[r] * t->column_share[c]) : 1;
                UNROLL for (int i = 0; i < NAME(PART); i++) acc[i] += w * GET(p, i);
            }
        }
        UNROLL for (int i = 0; i < NAME(PART); i++) AT(sum + j, i) = mean ? o[i] + acc[i] * share : acc[i];
    }
    for (; j < t->n; j++) {
        REAL acc = 0;
        for (int64_t r = t->top; r < t->bottom; r++) {
            REAL v = x[r * t->row_pitch + j];
            acc += mean ? v - own[j] : t->adjoint ? (REAL)(t->row_share[r] * t->column_share[c]) * v : v;
        }
        sum[j] = mean ? own[j] + acc * share : acc;
    }
}

/* y[c] from the ring's columns a .. b, of which `slot` holds a */
INLINE void NAME(result)(const wf_window_task *t, const REAL *ring, int64_t K, int64_t a, int64_t b, int64_t c) {
    int64_t at = t->row * t->row_pitch + c * t->pitch, n = t->n, j = 0;
    const REAL *x = (const REAL *)t->x + at, *own = ring + c % K * n;
    REAL *y = (REAL *)t->y + at;
    bool mean = t->column_share && !t->adjoint;
    REAL share = mean ? (REAL)t->column_share[c] : 1;
    for (; j + 32 <= n; j += 32) {
        V acc[NAME(PART)], o[NAME(PART)];
        UNROLL for (int i = 0; i < NAME(PART); i++) acc[i] = (V){0}, o[i] = GET(own + j, i);
        for (int64_t k = a, s = a % K; k < b; k++, s = s + 1 == K ? 0 : s + 1) {
            const REAL *p = ring + s * n + j;
            if (mean) {
                UNROLL for (int i = 0; i < NAME(PART); i++) acc[i] += GET(p, i) - o[i];
            } else {
                UNROLL for (int i = 0; i < NAME(PART); i++) acc[i] += GET(p, i);
            }
        }
        if (mean) UNROLL for (int i = 0; i < NAME(PART); i++) acc[i] = o[i] + acc[i] * share;
        if (t->minus_self) UNROLL for (int i = 0; i < NAME(PART); i++) acc[i] -= GET(x + j, i);
        UNROLL for (int i = 0; i < NAME(PART); i++) AT(y + j, i) = acc[i];
    }
    for (; j < n; j++) {
        REAL acc = 0;
        for (int64_t k = a; k < b; k++) acc += mean ? ring[k % K * n + j] - own[j] : ring[k % K * n + j];
        if (mean) acc = own[j] + acc * share;
        y[j] = t->minus_self ? acc - x[j] : acc;
    }
}

static void NAME(row)(const wf_window_task *t) {
    REAL ring[WF_WINDOW_RING + 32];
    int64_t K = t->left + t->right + 1, next = t->from - t->left < 0 ? 0 : t->from - t->left;
    for (int64_t c = t->from; c < t->to; c++) {
        int64_t a = c - t->left < 0 ? 0 : c - t->left, b = c + t->right + 1 > t->columns ? t->columns : c + t->right + 1;
        for (; next < b; next++) NAME(column)(t, next, ring + next % K * t->n);
        NAME(result)(t, ring, K, a, b, c);
    }
}

#undef V
#undef AT
#undef GET
