/* attention_rows.h: from scores to weights and back, row by row of a tile. A template, included after tile.h. */

/* Columns of row r that can be seen, and the whole vectors around them. */
typedef struct T(span) {
    int lo, hi, v0, v1;
} T(span);

TILE_INLINE T(span) T(span_of)(const wf_tile *t, int r) {
    int lo = t->lo ? t->lo[r] : 0, hi = t->lo ? t->hi[r] : t->cols;
    if (lo >= hi) return (T(span)){0, 0, 0, 0};
    return (T(span)){lo, hi, lo / TILE_LANES * TILE_LANES, T(tile_pad)(hi)};
}

TILE_INLINE void T(fill_row)(REAL *row, int from, int to, REAL x) {
    for (int c = from; c < to; c++) row[c] = x;
}

/* x outside lo..hi within its vectors, 0 in all other vectors of the row. */
TILE_INLINE void T(hide)(REAL *row, const T(span) * w, int padded, REAL x) {
    T(fill_row)(row, w->v0, w->lo, x);
    T(fill_row)(row, w->hi, w->v1, x);
    T(fill_row)(row, 0, w->v0, 0);
    T(fill_row)(row, w->v1, padded, 0);
}

/* 1 / (1 + e^-s), from exponentials of negative numbers only */
TILE_INLINE T(vec) T(vsigmoid)(T(vec) s) {
    T(vec) x = T(vexp2)(T(vabs)(s) * (REAL)-M_LOG2E);
    return T(vpick)(s < 0, x, T(vsplat)(1)) / ((REAL)1 + x);
}

/* The same of s + shift, its exponential held below 2^126: a weight is at least 2^-126. */
TILE_INLINE T(vec) T(vsigmoid_bare)(T(vec) s, REAL shift) {
    T(vec) x = T(vfma)(s, T(vsplat)((REAL)M_LOG2E), T(vsplat)((REAL)M_LOG2E * shift));
    return T(vsplat)(1) / ((REAL)1 + T(vexp2)(-T(vmax)(T(vsplat)(-126), x)));
}

/* Numbers that multiply the weights of row r, columns v0..v1: 0 or 1 / (1 - dropout). */
TILE_UNUSED void T(dropout_row)(const wf_tile *t, int r, const T(span) * w, REAL *keep) {
    const wf_score_rule *rule = t->rule;
    uint64_t first = t->number + (uint64_t)r * t->number_row;
    REAL kept = (REAL)(1 / (1 - rule->dropout));
    enum { BLOCK = 64 };
    float u[BLOCK];
    for (int c = w->v0; c < w->v1; c += BLOCK) {
        int n = w->v1 - c < BLOCK ? w->v1 - c : BLOCK;
        uniform_run(rule->seed, rule->stream, first + (uint64_t)c, n, u);
        for (int x = 0; x < n; x++) keep[c + x] = u[x] >= (float)rule->dropout ? kept : 0;
    }
}

/* Slopes, bias and score function on the scores of row r, in place. */
TILE_UNUSED void T(adjust_row)(const wf_tile *t, int r, const T(span) * w, REAL *s) {
    const wf_score_rule *rule = t->rule;
    if (t->slope != 0) {
        REAL far = (REAL)(t->distance + r), slope = (REAL)t->slope;
        for (int c = w->v0; c < w->v1; c++) s[c] -= slope * (REAL)fabs((double)(far - (REAL)c));
    }
    if (t->bias) {
        const REAL *b = (const REAL *)t->bias + r * t->bias_row;
        REAL unit = (REAL)rule->unit;
        if (t->bias_col == 1)
            for (int c = w->lo; c < w->hi; c++) s[c] += unit * b[c];
        else
            for (int c = w->lo; c < w->hi; c++) s[c] += unit * b[c * t->bias_col];
    }
    REAL out = (REAL)(rule->normaliser == WF_NORMALISE_SOFTMAX ? M_LOG2E : 1);
    if (rule->score == WF_SCORE_SIGMOID) {
        REAL shift = (REAL)rule->score_bias;
        for (int c = w->v0; c < w->v1; c += TILE_LANES) T(vstore)(s + c, out * T(vsigmoid)(T(vload)(s + c) + shift));
    } else if (rule->score == WF_SCORE_RELU2) {
        for (int c = w->v0; c < w->v1; c++) s[c] = s[c] > 0 ? out * s[c] * s[c] : 0;
    } else if (rule->score == WF_SCORE_RELU) {
        for (int c = w->v0; c < w->v1; c++) s[c] = s[c] > 0 ? out * s[c] : 0;
    }
}

/* Derivative of the score function by its value x (which carries the factor log2(e) under softmax): g *= f'. */
TILE_UNUSED void T(score_slope)(const wf_score_rule *rule, const T(span) * w, const REAL *x, REAL *g) {
    REAL in = (REAL)(rule->normaliser == WF_NORMALISE_SOFTMAX ? M_LN2 : 1);
    if (rule->score == WF_SCORE_SIGMOID)
        for (int c = w->v0; c < w->v1; c++) g[c] *= in * x[c] * (1 - in * x[c]);
    else if (rule->score == WF_SCORE_RELU2)
        for (int c = w->v0; c < w->v1; c++) g[c] *= 2 * (REAL)sqrt((double)(in * x[c]));
    else if (rule->score == WF_SCORE_RELU)
        for (int c = w->v0; c < w->v1; c++) g[c] = x[c] > 0 ? g[c] : 0;
}

TILE_UNUSED void T(drop_weights)(const wf_tile *t, int r, const T(span) * w, REAL *p) {
    REAL *keep = t->temp;
    T(dropout_row)(t, r, w, keep);
    for (int c = w->v0; c < w->v1; c++) p[c] *= keep[c];
}

/* ---- forward ---- */

/* Sigmoid of the scores alone. */
TILE_UNUSED void T(weigh_sigmoid)(const wf_tile *t) {
    int64_t ld = T(tile_ld)(t->cols);
    int padded = T(tile_pad)(t->cols);
    REAL shift = (REAL)t->rule->score_bias;
    for (int r = 0; r < t->rows; r++) {
        T(span) w = T(span_of)(t, r);
        REAL *row = (REAL *)t->s + r * ld;
        for (int c = w.v0; c < w.v1; c += TILE_LANES) T(vstore)(row + c, T(vsigmoid_bare)(T(vload)(row + c), shift));
        if (t->lo || padded != t->cols) T(hide)(row, &w, padded, 0);
    }
}

/* Weights without normalisation: f(score), 0 where hidden. */
TILE_UNUSED void T(weigh_plain)(const wf_tile *t) {
    REAL *s = t->s;
    int64_t ld = T(tile_ld)(t->cols);
    int padded = T(tile_pad)(t->cols);
    for (int r = 0; r < t->rows; r++) {
        T(span) w = T(span_of)(t, r);
        REAL *row = s + r * ld;
        T(adjust_row)(t, r, &w, row);
        T(hide)(row, &w, padded, 0);
        if (t->rule->dropout > 0) T(drop_weights)(t, r, &w, row);
    }
}

/* New maxima of all rows; alpha becomes what has to be subtracted from the scores. */
TILE_INLINE void T(row_maxima)(const wf_tile *t, REAL *s, int64_t ld, int padded) {
    const REAL *m = t->m;
    REAL *top = t->alpha;
    for (int r = 0; r < t->rows; r++) {
        T(span) w = T(span_of)(t, r);
        REAL *row = s + r * ld;
        if (!t->rule->bare) T(adjust_row)(t, r, &w, row);
        if (t->lo || padded != t->cols) T(hide)(row, &w, padded, (REAL)-INFINITY);
        T(vec) a = T(vsplat)(m[r]), b = a;
        int c = w.v0;
        for (; c + TILE_LANES < w.v1; c += 2 * TILE_LANES) {
            a = T(vmax)(a, T(vload)(row + c));
            b = T(vmax)(b, T(vload)(row + c + TILE_LANES));
        }
        if (c < w.v1) a = T(vmax)(a, T(vload)(row + c));
        top[r] = T(vtop)(T(vmax)(a, b));
    }
}

/* Online softmax (Milakov and Gimelshein 2018; FlashAttention 2): s becomes 2^(s - max), m and l are brought up to date and
 * alpha[r] = 2^(old max - new max) is what earlier sums of row r have to be multiplied by. */
TILE_UNUSED void T(weigh_softmax)(const wf_tile *t) {
    REAL *s = t->s, *m = t->m, *l = t->l, *alpha = t->alpha;
    int64_t ld = T(tile_ld)(t->cols);
    int padded = T(tile_pad)(t->cols);
    T(row_maxima)(t, s, ld, padded);
    for (int r = 0; r < t->rows; r++) {
        T(span) w = T(span_of)(t, r);
        REAL *row = s + r * ld;
        REAL base = alpha[r] == (REAL)-INFINITY ? 0 : alpha[r];
        T(vec) sum = {0};
        for (int c = w.v0; c < w.v1; c += TILE_LANES) {
            T(vec) p = T(vexp2)(T(vload)(row + c) - base);
            T(vstore)(row + c, p);
            sum += p;
        }
        l[r] = T(vsum)(sum) + l[r] * (alpha[r] == m[r] ? 1 : T(vexp2)(T(vsplat)(m[r] - base))[0]);
        if (t->rule->dropout > 0) T(drop_weights)(t, r, &w, row);
    }
    for (int r = 0; r < t->rows; r += TILE_LANES) { /* rows are padded to whole vectors */
        T(vec) now = T(vload)(alpha + r), base = T(vpick)(now == (REAL)-INFINITY, T(vsplat)(0), now);
        T(vstore)(alpha + r, T(vexp2)(T(vload)(m + r) - base));
        T(vstore)(m + r, now);
    }
}

TILE_UNUSED void T(weigh)(const wf_tile *t) {
    if (t->rule->normaliser == WF_NORMALISE_SOFTMAX)
        T(weigh_softmax)(t);
    else if (t->rule->bare)
        T(weigh_sigmoid)(t);
    else
        T(weigh_plain)(t);
}

TILE_UNUSED void T(finish)(const wf_tile *t, void *out) {
    REAL *lse = out, *m = t->m, *l = t->l;
    bool softmax = t->rule->normaliser == WF_NORMALISE_SOFTMAX;
    for (int r = 0; r < t->rows; r++) {
        lse[r] = !softmax ? 0 : l[r] == 0 ? (REAL)-INFINITY : (REAL)M_LN2 * (m[r] + (REAL)log2((double)l[r]));
        l[r] = !softmax ? 1 : l[r] == 0 ? 0 : 1 / l[r];
    }
}

/* ---- backward: s holds scores and dp holds do v^T; they become the (dropped) weights and the gradients of the scores ---- */

/* Plain softmax over whole vectors. */
TILE_INLINE void T(back_row_bare)(REAL *s, REAL *dp, int v0, int v1, REAL lse, REAL delta) {
    for (int c = v0; c < v1; c += TILE_LANES) {
        T(vec) p = T(vexp2)(T(vload)(s + c) - lse);
        T(vstore)(s + c, p);
        T(vstore)(dp + c, p * (T(vload)(dp + c) - delta));
    }
}

/* Sigmoid alone. */
TILE_INLINE void T(back_row_sigmoid)(REAL *s, REAL *dp, int v0, int v1, REAL shift) {
    for (int c = v0; c < v1; c += TILE_LANES) {
        T(vec) p = T(vsigmoid_bare)(T(vload)(s + c), shift);
        T(vstore)(s + c, p);
        T(vstore)(dp + c, T(vload)(dp + c) * (p - p * p));
    }
}

TILE_UNUSED void T(back_row_general)(const wf_tile *t, int r, const T(span) * w, REAL *s, REAL *dp, REAL lse, REAL delta) {
    const wf_score_rule *rule = t->rule;
    int64_t ld = T(tile_ld)(t->cols);
    REAL *keep = t->temp, *x = keep + ld;
    T(adjust_row)(t, r, w, s);
    bool softmax = rule->normaliser == WF_NORMALISE_SOFTMAX, drop = rule->dropout > 0;
    T(hide)(s, w, w->v1, softmax ? (REAL)-INFINITY : 0);
    if (rule->score != WF_SCORE_LINEAR) memcpy(x + w->v0, s + w->v0, (size_t)(w->v1 - w->v0) * sizeof(REAL));
    if (drop) {
        T(dropout_row)(t, r, w, keep);
        for (int c = w->v0; c < w->v1; c++) dp[c] *= keep[c];
    }
    if (softmax) T(back_row_bare)(s, dp, w->v0, w->v1, lse, delta);
    if (rule->score != WF_SCORE_LINEAR) {
        T(fill_row)(x, w->v0, w->lo, 0);
        T(fill_row)(x, w->hi, w->v1, 0);
        T(score_slope)(rule, w, x, dp);
    }
    if (drop)
        for (int c = w->v0; c < w->v1; c++) s[c] *= keep[c];
}

TILE_UNUSED void T(back_rows)(const wf_tile *t) {
    REAL *s = t->s, *dp = t->dp;
    const REAL *lse = t->lse, *delta = t->delta;
    int64_t ld = T(tile_ld)(t->cols);
    int padded = T(tile_pad)(t->cols);
    bool softmax = t->rule->normaliser == WF_NORMALISE_SOFTMAX;
    for (int r = 0; r < t->rows; r++) {
        T(span) w = T(span_of)(t, r);
        REAL *p = s + r * ld, *g = dp + r * ld;
        if (t->rule->bare && softmax)
            T(back_row_bare)(p, g, w.v0, w.v1, lse[r], delta[r]);
        else if (t->rule->bare)
            T(back_row_sigmoid)(p, g, w.v0, w.v1, (REAL)t->rule->score_bias);
        else
            T(back_row_general)(t, r, &w, p, g, lse[r], delta[r]);
        if (!t->lo && padded == t->cols) continue;
        T(hide)(p, &w, padded, 0);
        T(hide)(g, &w, padded, 0);
    }
}
