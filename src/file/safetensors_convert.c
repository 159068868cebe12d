/* safetensors_convert.c: an entry's bytes to a tensor of the wanted dtype. Data is little-endian and unaligned. */
#include "file/safetensors_parts.h"

#include <string.h>

/* IEEE 754 binary16: 1 sign, 5 exponent (bias 15), 10 fraction bits. */
static float half_to_float(uint16_t h) {
    uint32_t exponent = h >> 10 & 31, fraction = h & 1023, sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t bits = sign | (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13;
    float x = (float)fraction * 0x1p-24f; /* exponent 0: no leading one */
    if (exponent == 0) return sign ? -x : x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static bool is_float_kind(const char *dtype) {
    return dtype[0] == 'F' || strcmp(dtype, "BF16") == 0;
}

static const char *kind_of(wf_dtype t) {
    switch (t) {
    case WF_F32: return "F32";
    case WF_BF16: return "BF16";
    case WF_I32: return "I32";
    case WF_U8: return "U8";
    case WF_F64: return "F64";
    case WF_I8: return "I8";
    default: return "";
    }
}

static double float_at(const wf_st_entry *e, int64_t i) {
    uint16_t h;
    float f;
    double d;
    if (e->dtype[1] == '6') {
        memcpy(&d, e->p + i * 8, 8);
        return d;
    }
    if (e->dtype[1] == '3') {
        memcpy(&f, e->p + i * 4, 4);
        return (double)f;
    }
    memcpy(&h, e->p + i * 2, 2);
    return (double)(e->dtype[0] == 'B' ? wf_bf16_to_f32(h) : half_to_float(h));
}

/* Whole numbers through 64 bits; U64 above 2^63 - 1 fits nothing here and is cut to that, which no range accepts. */
static int64_t int_at(const wf_st_entry *e, size_t size, int64_t i) {
    uint64_t u = 0;
    for (size_t k = size; k > 0; k--) u = u << 8 | e->p[(size_t)i * size + k - 1];
    if (e->dtype[0] == 'I' && size < 8 && u >> (8 * size - 1)) u |= ~(uint64_t)0 << 8 * size;
    if (e->dtype[0] == 'U' && u > INT64_MAX) return INT64_MAX;
    return (int64_t)u;
}

static bool fits(int64_t v, wf_dtype as) {
    switch (as) {
    case WF_I32: return v >= INT32_MIN && v <= INT32_MAX;
    case WF_U8: return v >= 0 && v <= UINT8_MAX;
    case WF_I8: return v >= INT8_MIN && v <= INT8_MAX;
    default: return true;
    }
}

static wf_status convert(const wf_st_entry *e, wf_tensor *t) {
    int64_t n = wf_tensor_count(t);
    if (is_float_kind(e->dtype)) {
        if (!wf_is_float(t->dtype))
            return wf_fail(WF_EINVAL, "tensor '%s' holds %s, %s was expected", e->name, e->dtype, wf_dtype_name(t->dtype));
        float *f = t->dtype == WF_F32 ? t->data : NULL; /* the usual case, without a call an element */
        for (int64_t i = 0; f && i < n; i++) f[i] = (float)float_at(e, i);
        for (int64_t i = 0; !f && i < n; i++) wf_tensor_set(t, i, float_at(e, i));
        return WF_OK;
    }
    size_t size = wf_st_kind_find(e->dtype)->size;
    for (int64_t i = 0; i < n; i++) {
        int64_t v = int_at(e, size, i);
        if (!fits(v, t->dtype))
            return wf_fail(WF_EINVAL, "tensor '%s': element %lld is %lld, which does not fit %s", e->name, (long long)i,
                           (long long)v, wf_dtype_name(t->dtype));
        if (strcmp(e->dtype, "BOOL") == 0) v = v != 0;
        wf_tensor_set(t, i, (double)v);
    }
    return WF_OK;
}

wf_tensor *wf_st_read(const wf_st_entry *e, wf_dtype as) {
    wf_tensor *t = wf_tensor_new(as, e->shape);
    if (!t) {
        wf_fail_within(WF_ENOMEM, "tensor '%s'", e->name);
        return NULL;
    }
    if (strcmp(e->dtype, kind_of(as)) == 0) {
        if (e->bytes) memcpy(t->data, e->p, e->bytes);
        return t;
    }
    if (convert(e, t) == WF_OK) return t;
    wf_tensor_free(t);
    return NULL;
}
