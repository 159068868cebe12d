/* tensor.c: dtypes, shapes, bfloat16 and tensors (dense row-major storage that the caller owns). */
#include "graph/inside.h"

#include <string.h>

static const struct {
    size_t size;
    const char *name;
} dtypes[WF_DTYPES] = {
    [WF_F32] = {4, "float32"}, [WF_BF16] = {2, "bfloat16"}, [WF_I32] = {4, "int32"},
    [WF_U8] = {1, "uint8"},    [WF_F64] = {8, "float64"},   [WF_I8] = {1, "int8"},
};

size_t wf_dtype_size(wf_dtype t) {
    return (unsigned)t < WF_DTYPES ? dtypes[t].size : 0;
}

const char *wf_dtype_name(wf_dtype t) {
    return (unsigned)t < WF_DTYPES ? dtypes[t].name : "unknown dtype";
}

int64_t wf_shape_count(const wf_shape *s) {
    int64_t n = 1;
    for (int a = 0; a < s->rank; a++) n *= s->dim[a];
    return n;
}

bool wf_shape_equal(const wf_shape *a, const wf_shape *b) {
    if (a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}

const char *wf_shape_text(const wf_shape *s, char buf[96]) {
    size_t n = 0;
    buf[n++] = '[';
    for (int a = 0; a < s->rank && a < WF_MAX_RANK && n < 90; a++) {
        int wrote = snprintf(buf + n, 96 - n, a ? ", %lld" : "%lld", (long long)s->dim[a]);
        n += (size_t)wrote < 95 - n ? (size_t)wrote : 94 - n;
    }
    buf[n++] = ']';
    buf[n] = 0;
    return buf;
}

wf_status wf_shape_check(const wf_shape *s, wf_dtype t) {
    char text[96];
    int64_t n = 1, bytes;
    if ((unsigned)t >= WF_DTYPES)
        return wf_fail(WF_EINVAL, "dtype %d is none of float32, bfloat16, int32, uint8, float64, int8", (int)t);
    if (s->rank < 0 || s->rank > WF_MAX_RANK)
        return wf_fail(WF_EINVAL, "%d axes, but 0 to %d are possible", s->rank, WF_MAX_RANK);
    for (int a = 0; a < s->rank; a++) {
        if (s->dim[a] < 0) return wf_fail(WF_EINVAL, "shape %s has a negative size at axis %d", wf_shape_text(s, text), a);
        if (s->dim[a] > 0 && __builtin_mul_overflow(n, s->dim[a], &n))
            return wf_fail(WF_ENOMEM, "shape %s has more elements than an address can count", wf_shape_text(s, text));
    }
    if (__builtin_mul_overflow(n, (int64_t)dtypes[t].size, &bytes) || bytes > INT64_MAX / 4)
        return wf_fail(WF_ENOMEM, "shape %s of %s is larger than memory can be", wf_shape_text(s, text), dtypes[t].name);
    return WF_OK;
}

float wf_bf16_to_f32(uint16_t b) {
    uint32_t u = (uint32_t)b << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

uint16_t wf_f32_to_bf16(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40); /* NaN stays NaN, made quiet */
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

wf_tensor *wf_tensor_new(wf_dtype t, wf_shape s) {
    if (wf_shape_check(&s, t) != WF_OK) return NULL;
    wf_tensor *x = wf_alloc(sizeof *x);
    if (!x) return NULL;
    *x = (wf_tensor){.dtype = t, .shape = s, .bytes = (size_t)wf_shape_count(&s) * dtypes[t].size};
    x->data = wf_alloc(x->bytes);
    if (x->data) return x;
    wf_free(x);
    return NULL;
}

void wf_tensor_free(wf_tensor *t) {
    if (!t) return;
    wf_free(t->data);
    wf_free(t);
}

int64_t wf_tensor_count(const wf_tensor *t) {
    return wf_shape_count(&t->shape);
}

double wf_tensor_get(const wf_tensor *t, int64_t i) {
    switch (t->dtype) {
    case WF_F32: return ((const float *)t->data)[i];
    case WF_BF16: return wf_bf16_to_f32(((const uint16_t *)t->data)[i]);
    case WF_I32: return ((const int32_t *)t->data)[i];
    case WF_U8: return ((const uint8_t *)t->data)[i];
    case WF_F64: return ((const double *)t->data)[i];
    case WF_I8: return ((const int8_t *)t->data)[i];
    case WF_DTYPES: break;
    }
    return 0;
}

/* Integer stores: towards zero, kept within the type's range (NaN gives 0). */
static int64_t to_integer(double v, int64_t lo, int64_t hi) {
    if (!(v == v)) return 0;
    return v <= (double)lo ? lo : v >= (double)hi ? hi : (int64_t)v;
}

void wf_tensor_set(wf_tensor *t, int64_t i, double v) {
    switch (t->dtype) {
    case WF_F32: ((float *)t->data)[i] = (float)v; break;
    case WF_BF16: ((uint16_t *)t->data)[i] = wf_f32_to_bf16((float)v); break;
    case WF_I32: ((int32_t *)t->data)[i] = (int32_t)to_integer(v, INT32_MIN, INT32_MAX); break;
    case WF_U8: ((uint8_t *)t->data)[i] = (uint8_t)to_integer(v, 0, UINT8_MAX); break;
    case WF_F64: ((double *)t->data)[i] = v; break;
    case WF_I8: ((int8_t *)t->data)[i] = (int8_t)to_integer(v, INT8_MIN, INT8_MAX); break;
    case WF_DTYPES: break;
    }
}
