/* tile_pack.h: between memory in any float dtype and tiles. A template, included after tile.h and bf16.h. */

/* Tile [rows,cols] = factor * rows of memory (columns dense, `stride` elements from row to row); pad columns become 0. */
TILE_UNUSED void T(pack)(void *tile, const void *src, wf_dtype type, int64_t stride, int rows, int cols, double factor) {
    int64_t ld = T(tile_ld)(cols);
    int padded = T(tile_pad)(cols);
    REAL f = (REAL)factor;
    for (int r = 0; r < rows; r++) {
        REAL *to = (REAL *)tile + r * ld;
        if (type == WF_BF16) {
            const uint16_t *from = (const uint16_t *)src + r * stride;
            for (int c = 0; c < cols; c++) to[c] = f * (REAL)from_bf16(from[c]);
        } else if (type == WF_F64) {
            const double *from = (const double *)src + r * stride;
            for (int c = 0; c < cols; c++) to[c] = f * (REAL)from[c];
        } else {
            const float *from = (const float *)src + r * stride;
            for (int c = 0; c < cols; c++) to[c] = f * (REAL)from[c];
        }
        for (int c = cols; c < padded; c++) to[c] = 0;
    }
}

/* Tile [rows,cols] -> tile [cols,rows]; squares of one vector width, so that both sides are read and written in whole lines. */
TILE_UNUSED void T(transpose)(void *tile, const void *src, int rows, int cols) {
    int64_t ld = T(tile_ld)(rows), from_ld = T(tile_ld)(cols);
    int padded = T(tile_pad)(rows);
    REAL *to = tile;
    const REAL *from = src;
    for (int r0 = 0; r0 < padded; r0 += TILE_LANES)
        for (int c0 = 0; c0 < cols; c0 += TILE_LANES) {
            int n = cols - c0 < TILE_LANES ? cols - c0 : TILE_LANES;
            if (rows - r0 >= TILE_LANES) {
                T(transpose_square)(to + c0 * ld + r0, ld, from + r0 * from_ld + c0, from_ld, n);
                continue;
            }
            for (int c = c0; c < c0 + n; c++)
                for (int r = r0; r < r0 + TILE_LANES; r++) to[c * ld + r] = r < rows ? from[r * from_ld + c] : 0;
        }
}

/* Memory rows = factor * row_factor[r] * tile rows (row_factor NULL: 1). */
TILE_UNUSED void T(unpack)(void *dst, wf_dtype type, int64_t stride, const void *tile, int64_t ld, int rows, int cols,
                           double factor, const void *row_factor) {
    for (int r = 0; r < rows; r++) {
        const REAL *from = (const REAL *)tile + r * ld;
        REAL f = (REAL)factor * (row_factor ? ((const REAL *)row_factor)[r] : 1);
        if (type == WF_BF16) {
            uint16_t *to = (uint16_t *)dst + r * stride;
            for (int c = 0; c < cols; c++) to[c] = to_bf16((float)(f * from[c]));
        } else if (type == WF_F64) {
            double *to = (double *)dst + r * stride;
            for (int c = 0; c < cols; c++) to[c] = (double)(f * from[c]);
        } else {
            float *to = (float *)dst + r * stride;
            for (int c = 0; c < cols; c++) to[c] = (float)(f * from[c]);
        }
    }
}
