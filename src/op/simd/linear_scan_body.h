/* linear_scan_body.h: one head of the linear scan, chunk by chunk; a template, included by linear_scan.c after tile.h.
 *
 * Within a chunk of C positions, with g the decays, A_t = g_1 .. g_t, M_ts = g_{s+1} .. g_t (s <= t), R_s = M_Cs, S the state
 * at its start:
 *     P = (q k^T) * M,  o = P v + A q S,  S' = A_C S + (R k)^T v
 * and with G the gradient of S', backward:
 *     dP = (do v^T) * M,  dv = P^T do + R k G,  dq = dP k + A do S^T,  dk = dP^T q + R v G^T,  G' = A_C G + (A q)^T do
 * (Yang et al. 2024, gated linear attention; M is built by products, so decays of 0 and 1 are exact.)
 */

/* What does not depend on the chunk. All tiles are packed. */
typedef struct T(scan) {
    const wf_scan_head *h;
    int64_t ld_d, ld_e, ld_c;
    REAL *q, *k, *v, *kt, *p, *o, *s;                                 /* forward */
    REAL *go, *vt, *dp, *w, *wt, *dq, *dk, *dv, *t, *st, *g, *states; /* backward */
    REAL *m, *a, *decay;                                              /* [C] products */
    REAL *inter, *carry, *acc;
    int zero[WF_SCAN_CHUNK], next[WF_SCAN_CHUNK], self[WF_SCAN_CHUNK], end[WF_SCAN_CHUNK];
} T(scan);

TILE_INLINE REAL *T(take)(char *base, size_t *used, int64_t n) {
    REAL *at = base ? (REAL *)(base + *used) : NULL;
    *used += ((size_t)n * sizeof(REAL) + 63) / 64 * 64;
    return at;
}

static size_t T(scan_lay)(char *base, int64_t L, int d, int e, bool backward, T(scan) * x) {
    size_t used = 0;
    int64_t C = WF_SCAN_CHUNK, ld_d = T(tile_ld)(d), ld_e = T(tile_ld)(e), ld_c = T(tile_ld)(C);
    x->ld_d = ld_d, x->ld_e = ld_e, x->ld_c = ld_c;
    REAL **rows_d[] = {&x->q, &x->k, &x->dq, &x->dk, &x->t}, **rows_e[] = {&x->v, &x->o, &x->go, &x->dv};
    REAL **squares[] = {&x->p, &x->dp, &x->w, &x->wt}, **line[] = {&x->m, &x->a, &x->decay, &x->inter, &x->carry, &x->acc};
    for (int i = 0; i < (backward ? 5 : 2); i++) *rows_d[i] = T(take)(base, &used, C * ld_d);
    for (int i = 0; i < (backward ? 4 : 2); i++) *rows_e[i] = T(take)(base, &used, C * ld_e);
    for (int i = 0; i < (backward ? 4 : 1); i++) *squares[i] = T(take)(base, &used, C * ld_c);
    for (int i = 0; i < 6; i++) *line[i] = T(take)(base, &used, C);
    x->kt = T(take)(base, &used, d * ld_c);
    x->s = T(take)(base, &used, d * ld_e);
    if (!backward) return used;
    x->vt = T(take)(base, &used, e * ld_c);
    x->g = T(take)(base, &used, d * ld_e);
    x->st = T(take)(base, &used, e * ld_d);
    x->states = T(take)(base, &used, (L + C - 1) / C * d * ld_e);
    return used;
}

static void T(scan_open)(T(scan) * x, const wf_scan_head *h, bool backward) {
    T(scan_lay)(h->scratch, h->L, h->d, h->e, backward, x);
    x->h = h;
    for (int c = 0; c < WF_SCAN_CHUNK; c++) x->zero[c] = 0, x->next[c] = c + 1, x->self[c] = c;
    for (int64_t i = 0; i < h->d * x->ld_e; i++) x->s[i] = 0;
    for (int r = 0; h->state && r < h->d; r++)
        memcpy(x->s + r * x->ld_e, (const REAL *)h->state + r * h->state_row, (size_t)h->e * sizeof(REAL));
}

/* decay of the n positions from t0; A and R */
static void T(scan_decays)(T(scan) * x, int64_t t0, int n) {
    const wf_scan_head *h = x->h;
    REAL all = 1, rest = 1;
    for (int r = 0; r < n; r++) {
        x->decay[r] = h->decay ? ((const REAL *)h->decay)[(t0 + r) * h->decay_row] : 1;
        all *= x->decay[r];
        x->a[r] = all;
    }
    for (int r = n - 1; r >= 0; r--) {
        x->carry[r] = rest; /* R */
        rest *= x->decay[r];
    }
}

/* Lower triangle of row r of a times M, 0 beyond; M's row r is brought along in x->m by rows r = 0, 1, .. */
static void T(scan_next_m)(T(scan) * x, int r) {
    REAL by = x->decay[r];
    for (int c = 0; c < r; c++) x->m[c] *= by;
    x->m[r] = 1;
}
TILE_INLINE void T(scan_mask)(const T(scan) * x, REAL *row, int r, int padded) {
    if (x->h->decay)
        for (int c = 0; c < r; c++) row[c] *= x->m[c];
    for (int c = r + 1; c < padded; c++) row[c] = 0;
}

static void T(scale_rows)(REAL *x, int64_t ld, const REAL *by, int rows, int cols) {
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) x[r * ld + c] *= by[r];
}

static void T(scan_product)(int m, int n, int k, bool at, const REAL *a, int64_t lda, const REAL *b, int64_t ldb, REAL *c,
                            int mode, tile_range columns, tile_range terms) {
    T(tile_product)
    t = {.m = m,
         .n = T(tile_pad)(n),
         .k = k,
         .at = at,
         .a = a,
         .b = b,
         .c = c,
         .lda = lda,
         .ldb = ldb,
         .ldc = T(tile_ld)(n),
         .mode = mode,
         .columns = columns,
         .terms = terms};
    T(tile_multiply)(&t);
}

#define ROWS(x, t0) ((const char *)h->x + (int64_t)wf_dtype_size(h->dtype) * (t0)*h->x##_row)
static const tile_range T(everything) = {0, 0};

/* S' = A_C S + (R k)^T v; k is scaled in place */
static void T(scan_advance)(T(scan) * x, int n) {
    const wf_scan_head *h = x->h;
    if (h->decay) {
        T(scale_rows)(x->k, x->ld_d, x->carry, n, h->d);
        for (int64_t i = 0; i < h->d * x->ld_e; i++) x->s[i] *= x->a[n - 1];
    }
    T(scan_product)(h->d, h->e, n, true, x->k, x->ld_d, x->v, x->ld_e, x->s, TILE_ADD, T(everything), T(everything));
}

static void T(scan_forward)(const wf_scan_head *h) {
    T(scan) x;
    T(scan_open)(&x, h, false);
    for (int64_t t0 = 0; t0 < h->L; t0 += WF_SCAN_CHUNK) {
        int n = h->L - t0 < WF_SCAN_CHUNK ? (int)(h->L - t0) : WF_SCAN_CHUNK, padded = T(tile_pad)(n);
        int64_t ld_n = T(tile_ld)(n);
        tile_range lower = {x.zero, x.next};
        T(pack)(x.q, ROWS(q, t0), h->dtype, h->q_row, n, h->d, 1);
        T(pack)(x.k, ROWS(k, t0), h->dtype, h->k_row, n, h->d, 1);
        T(pack)(x.v, ROWS(v, t0), h->dtype, h->v_row, n, h->e, 1);
        T(transpose)(x.kt, x.k, n, h->d);
        T(scan_decays)(&x, t0, n);
        T(scan_product)(n, n, h->d, false, x.q, x.ld_d, x.kt, ld_n, x.p, TILE_SET, lower, T(everything));
        for (int r = 0; r < n; r++) {
            if (h->decay) T(scan_next_m)(&x, r);
            T(scan_mask)(&x, x.p + r * ld_n, r, padded);
        }
        T(scan_product)(n, h->e, n, false, x.p, ld_n, x.v, x.ld_e, x.o, TILE_SET, T(everything), lower);
        if (t0 > 0 || h->state) {
            if (h->decay) T(scale_rows)(x.q, x.ld_d, x.a, n, h->d);
            T(scan_product)(n, h->e, h->d, false, x.q, x.ld_d, x.s, x.ld_e, x.o, TILE_ADD, T(everything), T(everything));
        }
        T(unpack)
        ((char *)h->o + (int64_t)wf_dtype_size(h->dtype) * t0 * h->o_row, h->dtype, h->o_row, x.o, x.ld_e, n, h->e, 1, NULL);
        T(scan_advance)(&x, n);
    }
    for (int r = 0; r < h->d; r++)
        memcpy((REAL *)h->state_out + (int64_t)r * h->e, x.s + r * x.ld_e, (size_t)h->e * sizeof(REAL));
}

/* States at the start of every chunk. */
static void T(scan_states)(T(scan) * x) {
    const wf_scan_head *h = x->h;
    int64_t size = h->d * x->ld_e;
    for (int64_t t0 = 0; t0 < h->L; t0 += WF_SCAN_CHUNK) {
        int n = h->L - t0 < WF_SCAN_CHUNK ? (int)(h->L - t0) : WF_SCAN_CHUNK;
        memcpy(x->states + t0 / WF_SCAN_CHUNK * size, x->s, (size_t)size * sizeof(REAL));
        if (t0 + n == h->L) return;
        T(pack)(x->k, ROWS(k, t0), h->dtype, h->k_row, n, h->d, 1);
        T(pack)(x->v, ROWS(v, t0), h->dtype, h->v_row, n, h->e, 1);
        T(scan_decays)(x, t0, n);
        T(scan_advance)(x, n);
    }
}

/* P and dP within the chunk, and P * dP below the diagonal for the gradient of the decays */
static void T(scan_squares)(T(scan) * x, int n) {
    const wf_scan_head *h = x->h;
    int64_t ld_n = T(tile_ld)(n);
    int padded = T(tile_pad)(n);
    tile_range lower = {x->zero, x->next};
    T(scan_product)(n, n, h->d, false, x->q, x->ld_d, x->kt, ld_n, x->p, TILE_SET, lower, T(everything));
    T(scan_product)(n, n, h->e, false, x->go, x->ld_e, x->vt, ld_n, x->dp, TILE_SET, lower, T(everything));
    for (int r = 0; r < n; r++) {
        REAL *p = x->p + r * ld_n, *dp = x->dp + r * ld_n, *w = x->w + r * ld_n;
        if (h->decay) T(scan_next_m)(x, r);
        T(scan_mask)(x, p, r, padded);
        for (int c = 0; h->ddecay && c < padded; c++) w[c] = c < r ? p[c] * dp[c] : 0;
        T(scan_mask)(x, dp, r, padded);
    }
}

/* a_r . b_r of the rows */
static void T(scan_dots)(const REAL *a, const REAL *b, int64_t ld, int rows, int cols, REAL *out) {
    for (int r = 0; r < rows; r++) {
        T(vec) sum = {0};
        for (int c = 0; c < cols; c += TILE_LANES) sum += T(vload)(a + r * ld + c) * T(vload)(b + r * ld + c);
        out[r] = T(vsum)(sum);
    }
}

/* dlog g_t = what of the chunk's results crosses position t: pairs (s < t <= r), rows r >= t that read the state, keys s < t
 * that reach the next state, and the state that passes through. */
static void T(scan_decay_gradient)(T(scan) * x, int64_t t0, int n, REAL through) {
    const wf_scan_head *h = x->h;
    int64_t ld_n = T(tile_ld)(n);
    REAL *acc = x->acc, after = 0, before = 0;
    T(transpose)(x->wt, x->w, n, n);
    for (int r = 0; r < n; r++) acc[r] = 0, after += x->inter[r];
    for (int t = 0; t < n; t++) {
        REAL crossing = 0;
        if (t > 0) {
            const REAL *w = x->wt + (t - 1) * ld_n;
            for (int r = t; r < n; r++) acc[r] += w[r];
#pragma omp simd reduction(+ : crossing)
            for (int r = t; r < n; r++) crossing += acc[r];
            after -= x->inter[t - 1];
            before += x->m[t - 1];
        }
        REAL g = x->decay[t], sum = crossing + after + before + through;
        ((REAL *)h->ddecay)[(t0 + t) * h->ddecay_row] = g != 0 ? sum / g : 0;
    }
}

/* The parts that pass through the states: dq, dk, dv so far within the chunk */
static void T(scan_between)(T(scan) * x, int64_t t0, int n, const REAL *state) {
    const wf_scan_head *h = x->h;
    REAL through = 0;
    T(transpose)(x->st, state, h->d, h->e);
    T(scan_product)(n, h->d, h->e, false, x->go, x->ld_e, x->st, x->ld_d, x->t, TILE_SET, T(everything), T(everything));
    if (h->decay) T(scale_rows)(x->t, x->ld_d, x->a, n, T(tile_pad)(h->d));
    if (h->ddecay) T(scan_dots)(x->q, x->t, x->ld_d, n, h->d, x->inter);
    for (int64_t i = 0; i < n * x->ld_d; i++) x->dq[i] += x->t[i];
    T(transpose)(x->st, x->g, h->d, h->e);
    T(scan_product)(n, h->d, h->e, false, x->v, x->ld_e, x->st, x->ld_d, x->t, TILE_SET, T(everything), T(everything));
    if (h->decay) T(scale_rows)(x->t, x->ld_d, x->carry, n, T(tile_pad)(h->d));
    if (h->ddecay) T(scan_dots)(x->k, x->t, x->ld_d, n, h->d, x->m); /* M is not needed any more */
    for (int64_t i = 0; i < n * x->ld_d; i++) x->dk[i] += x->t[i];
    if (h->ddecay) {
        for (int r = 0; r < h->d; r++) {
            REAL dot;
            T(scan_dots)(state + r * x->ld_e, x->g + r * x->ld_e, x->ld_e, 1, h->e, &dot);
            through += dot;
        }
        T(scan_decay_gradient)(x, t0, n, through * x->a[n - 1]);
    }
    if (h->decay) {
        T(scale_rows)(x->k, x->ld_d, x->carry, n, h->d);
        T(scale_rows)(x->q, x->ld_d, x->a, n, h->d);
    }
    T(scan_product)(n, h->e, h->d, false, x->k, x->ld_d, x->g, x->ld_e, x->dv, TILE_ADD, T(everything), T(everything));
    for (int64_t i = 0; h->decay && i < h->d * x->ld_e; i++) x->g[i] *= x->a[n - 1];
    T(scan_product)(h->d, h->e, n, true, x->q, x->ld_d, x->go, x->ld_e, x->g, TILE_ADD, T(everything), T(everything));
}

#define BACK_TO(x, t0) ((char *)h->x + (int64_t)wf_dtype_size(h->dtype) * (t0)*h->x##_row), h->dtype, h->x##_row
static void T(scan_back_chunk)(T(scan) * x, int64_t t0, int n) {
    const wf_scan_head *h = x->h;
    int64_t ld_n = T(tile_ld)(n);
    tile_range lower = {x->zero, x->next}, upper = {x->self, x->end};
    for (int c = 0; c < n; c++) x->end[c] = n;
    T(pack)(x->q, ROWS(q, t0), h->dtype, h->q_row, n, h->d, 1);
    T(pack)(x->k, ROWS(k, t0), h->dtype, h->k_row, n, h->d, 1);
    T(pack)(x->v, ROWS(v, t0), h->dtype, h->v_row, n, h->e, 1);
    T(pack)(x->go, ROWS(go, t0), h->dtype, h->go_row, n, h->e, 1);
    T(transpose)(x->kt, x->k, n, h->d);
    T(transpose)(x->vt, x->v, n, h->e);
    T(scan_decays)(x, t0, n);
    T(scan_squares)(x, n);
    T(scan_product)(n, h->e, n, true, x->p, ld_n, x->go, x->ld_e, x->dv, TILE_SET, T(everything), upper);
    T(scan_product)(n, h->d, n, true, x->dp, ld_n, x->q, x->ld_d, x->dk, TILE_SET, T(everything), upper);
    T(scan_product)(n, h->d, n, false, x->dp, ld_n, x->k, x->ld_d, x->dq, TILE_SET, T(everything), lower);
    T(scan_between)(x, t0, n, x->states + t0 / WF_SCAN_CHUNK * h->d * x->ld_e);
    T(unpack)(BACK_TO(dq, t0), x->dq, x->ld_d, n, h->d, 1, NULL);
    T(unpack)(BACK_TO(dk, t0), x->dk, x->ld_d, n, h->d, 1, NULL);
    T(unpack)(BACK_TO(dv, t0), x->dv, x->ld_e, n, h->e, 1, NULL);
}

static void T(scan_backward)(const wf_scan_head *h) {
    T(scan) x;
    T(scan_open)(&x, h, true);
    T(scan_states)(&x);
    for (int64_t i = 0; i < h->d * x.ld_e; i++) x.g[i] = 0;
    for (int r = 0; h->gstate && r < h->d; r++)
        memcpy(x.g + r * x.ld_e, (const REAL *)h->gstate + r * h->gstate_row, (size_t)h->e * sizeof(REAL));
    for (int64_t t0 = (h->L - 1) / WF_SCAN_CHUNK * WF_SCAN_CHUNK; t0 >= 0; t0 -= WF_SCAN_CHUNK)
        T(scan_back_chunk)(&x, t0, h->L - t0 < WF_SCAN_CHUNK ? (int)(h->L - t0) : WF_SCAN_CHUNK);
    for (int r = 0; h->dstate && r < h->d; r++)
        memcpy((REAL *)h->dstate + (int64_t)r * h->e, x.g + r * x.ld_e, (size_t)h->e * sizeof(REAL));
}
#undef ROWS
#undef BACK_TO

static size_t T(scan_forward_scratch)(int64_t L, int d, int e) {
    T(scan) x;
    return T(scan_lay)(NULL, L, d, e, false, &x);
}
static size_t T(scan_backward_scratch)(int64_t L, int d, int e) {
    T(scan) x;
    return T(scan_lay)(NULL, L, d, e, true, &x);
}

const wf_scan_kernel WF_ISA_NAME(T(wf_scan_kernel)) = {T(scan_forward_scratch), T(scan_backward_scratch), T(scan_forward),
                                                       T(scan_backward)};
