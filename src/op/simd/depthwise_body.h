/* depthwise_body.h: a template, included by depthwise.c with REAL, REAL_LANES and D(name).
 *
 * Channels lie side by side, so a strip of them is one vector; a tile of pixels of a row keeps its sums in registers while the
 * kernel's entries pass.
 */

typedef REAL D(strip_of) __attribute__((vector_size(STRIP)));
typedef REAL D(strip_at) __attribute__((vector_size(STRIP), aligned(sizeof(REAL)), may_alias));

static inline __attribute__((always_inline)) D(strip_of) D(get)(const REAL *p, int64_t n) {
    if (n >= REAL_LANES) return *(const D(strip_at) *)p;
    D(strip_of) v = {0};
    memcpy(&v, p, (size_t)n * sizeof(REAL));
    return v;
}
static inline __attribute__((always_inline)) void D(put)(REAL *p, D(strip_of) v, int64_t n) {
    if (n >= REAL_LANES)
        *(D(strip_at) *)p = v;
    else
        memcpy(p, &v, (size_t)n * sizeof(REAL));
}

#define TILE 8

/* Pixels x0 .. x0+count-1 of a row, channels of one strip; whole: no border is near and count is TILE. */
static inline __attribute__((always_inline)) void D(tile)(const wf_depthwise *t, int64_t b, int64_t row, int64_t x0, int count,
                                                          int64_t at, int64_t weight, int64_t n, int whole) {
    int64_t py = t->ky / 2, px = t->kx / 2;
    D(strip_of) sum[TILE];
    for (int i = 0; i < TILE; i++) sum[i] = (D(strip_of)){0};
    for (int64_t dy = 0; dy < t->ky; dy++) {
        int64_t y = row + dy - py;
        if (y < 0 || y >= t->Y) continue;
        const REAL *line = (const REAL *)t->x + ((b * t->Y + y) * t->X + x0 - px) * t->C + at;
        for (int64_t dx = 0; dx < t->kx; dx++, line += t->C) {
            D(strip_of) w = D(get)((const REAL *)t->w + (dy * t->kx + dx) * t->c + weight, n);
#pragma GCC unroll 8
            for (int i = 0; i < TILE; i++) { /* sums beyond the row are not stored */
                int64_t x = x0 + i + dx - px;
                if (whole || (x >= 0 && x < t->X)) sum[i] += w * D(get)(line + i * t->C, n);
            }
        }
    }
    REAL *to = (REAL *)t->y + ((b * t->Y + row) * t->X + x0) * t->C + at;
    for (int i = 0; i < TILE; i++)
        if (whole || i < count) D(put)(to + i * t->C, sum[i], n);
}

static void D(row)(const wf_depthwise *t, int64_t b, int64_t row) {
    int64_t px = t->kx / 2;
    for (int64_t j = 0; j < t->C; j += t->c)
        for (int64_t s = 0; s < t->c; s += REAL_LANES) {
            int64_t n = t->c - s < REAL_LANES ? t->c - s : REAL_LANES;
            for (int64_t x0 = 0; x0 < t->X; x0 += TILE) {
                int count = t->X - x0 < TILE ? (int)(t->X - x0) : TILE;
                int inside = count == TILE && x0 >= px && x0 + TILE + px <= t->X;
                if (inside && n == REAL_LANES)
                    D(tile)(t, b, row, x0, TILE, j + s, s, REAL_LANES, 1);
                else if (n == REAL_LANES)
                    D(tile)(t, b, row, x0, count, j + s, s, REAL_LANES, 0);
                else
                    D(tile)(t, b, row, x0, count, j + s, s, n, 0);
            }
        }
}

/* sum[dx] += gy[x] x[x + dx - px] along one row; kx is known where it matters, so that the sums stay in registers. */
static inline __attribute__((always_inline)) void D(along)(const wf_depthwise *t, const REAL *g, const REAL *line, int64_t kx,
                                                           int64_t n, D(strip_of) * sum) {
    int64_t px = kx / 2;
    for (int64_t x = 0; x < t->X; x++, g += t->C) {
        D(strip_of) u = D(get)(g, n);
        const REAL *from = line + (x - px) * t->C;
        int inside = x >= px && x + px < t->X;
#pragma GCC unroll 8
        for (int64_t dx = 0; dx < kx; dx++)
            if (inside || (x + dx >= px && x + dx < t->X + px)) sum[dx] += u * D(get)(from + dx * t->C, n);
    }
}

static inline __attribute__((always_inline)) void D(along_few)(const wf_depthwise *t, const REAL *g, const REAL *line, int kx,
                                                               D(strip_of) * sum) {
    D(strip_of) own[8];
    for (int i = 0; i < kx; i++) own[i] = sum[i];
    D(along)(t, g, line, kx, REAL_LANES, own);
    for (int i = 0; i < kx; i++) sum[i] = own[i];
}

static void D(gradient)(const wf_depthwise *t, int64_t b, int64_t row, double *all) {
    int64_t py = t->ky / 2, row_size = t->X * t->C;
    const REAL *g = (const REAL *)t->gy + (b * t->Y + row) * row_size, *x = (const REAL *)t->x + b * t->Y * row_size;
    for (int64_t s = 0; s < t->c; s += REAL_LANES) {
        int64_t n = t->c - s < REAL_LANES ? t->c - s : REAL_LANES;
        for (int64_t dy = 0; dy < t->ky; dy++) {
            int64_t y = row + dy - py;
            if (y < 0 || y >= t->Y) continue;
            D(strip_of) sum[WF_DEPTHWISE_MOST];
            for (int64_t dx = 0; dx < t->kx; dx++) sum[dx] = (D(strip_of)){0};
            for (int64_t j = s; j < t->C; j += t->c) {
                if (t->kx == 5 && n == REAL_LANES)
                    D(along_few)(t, g + j, x + y * row_size + j, 5, sum);
                else if (t->kx == 3 && n == REAL_LANES)
                    D(along_few)(t, g + j, x + y * row_size + j, 3, sum);
                else
                    D(along)(t, g + j, x + y * row_size + j, t->kx, n, sum);
            }
            for (int64_t dx = 0; dx < t->kx; dx++)
                for (int k = 0; k < n; k++) all[(dy * t->kx + dx) * t->c + s + k] += (double)sum[dx][k];
        }
    }
}
#undef TILE

const wf_depthwise_kernel WF_ISA_NAME(D(wf_depthwise_kernel)) = {D(row), D(gradient)};
