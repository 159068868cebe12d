/* attention_body.h: the attention kernels of one number type; a template, included by attention.c after tile.h and
 * attention_rows.h. Operands and names: op/attention_tiles.h. */

/* s = q k^T where it can be seen */
TILE_UNUSED void T(scores)(const wf_tile *t) {
    T(tile_product) p = {.m = t->rows, .n = T(tile_pad)(t->cols), .k = t->d, .a = t->q, .b = t->kt, .c = t->s};
    p.lda = T(tile_ld)(t->d);
    p.ldb = p.ldc = T(tile_ld)(t->cols);
    p.columns = (tile_range){t->lo, t->hi};
    T(tile_multiply)(&p);
}

TILE_UNUSED void T(forward)(const wf_tile *t) {
    T(scores)(t);
    T(weigh)(t);
    T(tile_product) p = {.m = t->rows, .n = T(tile_pad)(t->e), .k = t->cols, .a = t->s, .b = t->v, .c = t->o};
    p.lda = T(tile_ld)(t->cols);
    p.ldb = p.ldc = T(tile_ld)(t->e);
    p.terms = (tile_range){t->lo, t->hi};
    p.mode = TILE_ADD;
    if (t->rule->normaliser == WF_NORMALISE_SOFTMAX) {
        p.mode = TILE_SCALE_ADD;
        p.scale = t->alpha;
    }
    T(tile_multiply)(&p);
}

/* dv += p^T do, dk += ds^T q, dq (+)= ds k */
TILE_UNUSED void T(backward)(const wf_tile *t) {
    int64_t ld_s = T(tile_ld)(t->cols), ld_d = T(tile_ld)(t->d), ld_e = T(tile_ld)(t->e);
    T(scores)(t);
    T(tile_product) dp = {.m = t->rows, .n = T(tile_pad)(t->cols), .k = t->e, .a = t->go, .b = t->vt, .c = t->dp};
    dp.lda = ld_e;
    dp.ldb = dp.ldc = ld_s;
    dp.columns = (tile_range){t->lo, t->hi};
    T(tile_multiply)(&dp);
    T(back_rows)(t);
    T(tile_product) dv = {.m = t->cols, .n = T(tile_pad)(t->e), .k = t->rows, .at = true, .a = t->s, .b = t->go, .c = t->dv};
    dv.lda = ld_s;
    dv.ldb = dv.ldc = ld_e;
    dv.mode = TILE_ADD;
    dv.terms = (tile_range){t->row_lo, t->row_hi};
    T(tile_multiply)(&dv);
    T(tile_product) dk = dv;
    dk.n = T(tile_pad)(t->d);
    dk.a = t->dp;
    dk.b = t->q;
    dk.c = t->dk;
    dk.ldb = dk.ldc = ld_d;
    T(tile_multiply)(&dk);
    T(tile_product) dq = {.m = t->rows, .n = T(tile_pad)(t->d), .k = t->cols, .a = t->dp, .b = t->k, .c = t->dq};
    dq.lda = ld_s;
    dq.ldb = ld_d;
    dq.ldc = t->ld_dq;
    dq.mode = t->first ? TILE_SET : TILE_ADD;
    dq.terms = (tile_range){t->lo, t->hi};
    T(tile_multiply)(&dq);
}

TILE_UNUSED void T(row_dots)(const void *x, const void *y, int rows, int cols, void *out) {
    int64_t ld = T(tile_ld)(cols);
    for (int r = 0; r < rows; r++) {
        const REAL *a = (const REAL *)x + r * ld, *b = (const REAL *)y + r * ld;
        T(vec) sum = {0};
        for (int c = 0; c < cols; c += TILE_LANES) sum = T(vfma)(T(vload)(a + c), T(vload)(b + c), sum);
        ((REAL *)out)[r] = T(vsum)(sum);
    }
}

/* Dot products of one query with n keys; keys lie in memory as they are, so the last columns go one by one. */
TILE_INLINE void T(dots)(int n, const REAL *q, const REAL *k, int64_t k_row, int d, REAL *out) {
    T(vec) acc[4];
    for (int j = 0; j < n; j++) acc[j] = (T(vec)){0};
    int c = 0;
    for (; c + TILE_LANES <= d; c += TILE_LANES) {
        T(vec) x = T(vload)(q + c);
        TILE_UNROLL for (int j = 0; j < n; j++) acc[j] = T(vfma)(x, T(vload)(k + j * k_row + c), acc[j]);
    }
    for (int j = 0; j < n; j++) {
        REAL sum = T(vsum)(acc[j]);
        for (int x = c; x < d; x++) sum += q[x] * k[j * k_row + x];
        out[j] = sum;
    }
}

TILE_UNUSED void T(decode_scores)(const wf_decode *a) {
    int64_t ld_q = T(tile_ld)(a->d);
    const REAL *k = a->k;
    int j = 0;
    for (; j + 4 <= a->cols; j += 4)
        for (int r = 0; r < a->rows; r++)
            T(dots)(4, (const REAL *)a->q + r * ld_q, k + j * a->k_row, a->k_row, a->d, (REAL *)a->s + r * a->ld_s + j);
    for (; j < a->cols; j++)
        for (int r = 0; r < a->rows; r++)
            T(dots)(1, (const REAL *)a->q + r * ld_q, k + j * a->k_row, a->k_row, a->d, (REAL *)a->s + r * a->ld_s + j);
}

/* o[0..nv vectors) of one row = sum over keys */
TILE_INLINE void T(mix)(int nv, const REAL *p, const REAL *v, int64_t v_row, int n, REAL *o) {
    T(vec) acc[8];
    TILE_UNROLL for (int x = 0; x < nv; x++) acc[x] = (T(vec)){0};
    for (int j = 0; j < n; j++) {
        T(vec) w = T(vsplat)(p[j]);
        TILE_UNROLL for (int x = 0; x < nv; x++) acc[x] = T(vfma)(w, T(vload)(v + j * v_row + x * TILE_LANES), acc[x]);
    }
    TILE_UNROLL for (int x = 0; x < nv; x++) T(vstore)(o + x * TILE_LANES, acc[x]);
}

TILE_UNUSED void T(decode_values)(const wf_decode *a) {
    int64_t ld_o = T(tile_ld)(a->e);
    for (int r = 0; r < a->rows; r++) {
        const REAL *p = (const REAL *)a->s + r * a->ld_s, *v = a->v;
        REAL *o = (REAL *)a->o + r * ld_o;
        int c = 0;
        for (; c + 8 * TILE_LANES <= a->e; c += 8 * TILE_LANES) T(mix)(8, p, v + c, a->v_row, a->cols, o + c);
        for (; c + 2 * TILE_LANES <= a->e; c += 2 * TILE_LANES) T(mix)(2, p, v + c, a->v_row, a->cols, o + c);
        for (; c < a->e; c++) {
            REAL sum = 0;
            for (int j = 0; j < a->cols; j++) sum += p[j] * v[j * a->v_row + c];
            o[c] = sum;
        }
    }
}

TILE_UNUSED void T(merge)(const wf_score_rule *rule, int n, const void *m, const void *l, int64_t ml_step, const void *o,
                          int64_t o_step, int e, void *out, void *lse) {
    const REAL *top = m, *part = o;
    REAL best = (REAL)-INFINITY, sum = 0, *to = out;
    bool softmax = rule->normaliser == WF_NORMALISE_SOFTMAX;
    for (int c = 0; c < n; c++) best = top[c * ml_step] > best ? top[c * ml_step] : best;
    for (int x = 0; x < e; x++) to[x] = 0;
    for (int c = 0; c < n; c++) {
        REAL mine = top[c * ml_step];
        if (mine == (REAL)-INFINITY) continue; /* nothing of this part is visible */
        REAL w = softmax ? (REAL)exp2((double)(mine - best)) : 1;
        sum += w * ((const REAL *)l)[c * ml_step];
        for (int x = 0; x < e; x++) to[x] += w * part[c * o_step + x];
    }
    if (softmax && sum != 0)
        for (int x = 0; x < e; x++) to[x] /= sum;
    *(REAL *)lse = !softmax ? 0 : sum == 0 ? (REAL)-INFINITY : (REAL)(M_LN2 * ((double)best + log2((double)sum)));
}

TILE_UNUSED void T(fill)(void *x, int64_t n, double value) {
    for (int64_t i = 0; i < n; i++) ((REAL *)x)[i] = (REAL)value;
}

static int64_t T(ld_of)(int64_t cols) {
    return T(tile_ld)(cols);
}

const wf_attention_kernel WF_ISA_NAME(T(wf_attention_kernel)) = {
    .size = sizeof(REAL),
    .lanes = TILE_LANES,
    .ld = T(ld_of),
    .pack = T(pack),
    .transpose = T(transpose),
    .unpack = T(unpack),
    .forward = T(forward),
    .finish = T(finish),
    .backward = T(backward),
    .row_dots = T(row_dots),
    .decode_scores = T(decode_scores),
    .weigh = T(weigh),
    .decode_values = T(decode_values),
    .merge = T(merge),
    .fill = T(fill),
};
