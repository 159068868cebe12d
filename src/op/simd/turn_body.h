/* turn_body.h: a template, included by turn.c with REAL and D(name). */

/* z = x - 2 (x.u) u; a sum in eight parts, which the compiler keeps side by side. */
static inline void D(reflect)(const REAL *x, const REAL *u, int64_t d, REAL *z) {
    REAL part[16] = {0}, along = 0;
    int64_t c = 0;
    for (; c + 16 <= d; c += 16)
        for (int k = 0; k < 16; k++) part[k] += x[c + k] * u[c + k];
    for (; c < d; c++) along += x[c] * u[c];
    for (int k = 0; k < 16; k++) along += part[k];
    along *= 2;
    for (c = 0; c < d; c++) z[c] = x[c] - along * u[c];
}

static void D(forward)(const wf_turn *t, int64_t l) {
    const REAL *cosine = (const REAL *)t->cos + l * t->pairs, *sine = (const REAL *)t->sin + l * t->pairs;
    REAL z[WF_TURN_MOST];
    for (int64_t b = 0; b < t->B; b++)
        for (int64_t h = 0; h < t->H; h++) {
            const REAL *x = (const REAL *)t->x + b * t->xb + l * t->xl + h * t->xh;
            REAL *y = (REAL *)t->y + ((b * t->L + l) * t->H + h) * t->d;
            if (t->u) {
                D(reflect)(x, t->u, t->d, z);
                x = z;
            }
            for (int64_t i = 0; i < t->pairs; i++) {
                REAL p = x[2 * i], q = x[2 * i + 1];
                y[2 * i] = p * cosine[i] - q * sine[i];
                y[2 * i + 1] = q * cosine[i] + p * sine[i];
            }
            for (int64_t c = 2 * t->pairs; c < t->d; c++) y[c] = x[c];
        }
}

/* The gradient turned back is that of z; with z itself it gives that of the angle: g_z2 z_1 - g_z1 z_2. */
static void D(backward)(const wf_turn *t, int64_t l) {
    const REAL *cosine = (const REAL *)t->cos + l * t->pairs, *sine = (const REAL *)t->sin + l * t->pairs;
    REAL z[WF_TURN_MOST], gz[WF_TURN_MOST], sum[WF_TURN_MOST / 2] = {0};
    for (int64_t b = 0; b < t->B; b++)
        for (int64_t h = 0; h < t->H; h++) {
            const REAL *x = (const REAL *)t->x + b * t->xb + l * t->xl + h * t->xh;
            const REAL *g = (const REAL *)t->g + b * t->gb + l * t->gl + h * t->gh;
            REAL *y = (REAL *)t->y + ((b * t->L + l) * t->H + h) * t->d, *to = t->u ? gz : y;
            if (t->u) {
                D(reflect)(x, t->u, t->d, z);
                x = z;
            }
            for (int64_t i = 0; i < t->pairs; i++) {
                REAL p = g[2 * i] * cosine[i] + g[2 * i + 1] * sine[i], q = g[2 * i + 1] * cosine[i] - g[2 * i] * sine[i];
                to[2 * i] = p;
                to[2 * i + 1] = q;
                sum[i] += q * x[2 * i] - p * x[2 * i + 1];
            }
            for (int64_t c = 2 * t->pairs; c < t->d; c++) to[c] = g[c];
            if (t->u) D(reflect)(gz, t->u, t->d, y);
        }
    for (int64_t i = 0; i < t->pairs; i++) ((REAL *)t->dangle)[l * t->pairs + i] = sum[i];
}

const wf_turn_kernel WF_ISA_NAME(D(wf_turn_kernel)) = {D(forward), D(backward)};
