/* idx.c: the format of MNIST and its kin: two zero bytes, type, rank, big-endian sizes, bytes; perhaps gzipped. */
#include "file/file.h"

#include <string.h>

enum { TYPE_UBYTE = 0x08 };
static const size_t IDX_LIMIT = (size_t)1 << 30; /* of unpacked bytes */

static wf_status parse_plain(const uint8_t *p, size_t n, wf_shape *s, uint8_t **data) {
    if (n < 4 || p[0] || p[1]) return wf_fail(WF_EFORMAT, "idx: does not begin with 00 00, type, rank");
    if (p[2] != TYPE_UBYTE)
        return wf_fail(WF_EUNSUPPORTED, "idx: element type 0x%02x: only unsigned bytes (0x08) are read", p[2]);
    int rank = p[3];
    if (rank < 1 || rank > WF_MAX_RANK) return wf_fail(WF_EFORMAT, "idx: rank %d: 1 to %d are possible", rank, WF_MAX_RANK);
    size_t head = 4 + 4 * (size_t)rank, count = 1, extent = 1; /* extent: zeros left out, strides must not overflow either */
    if (n < head) return wf_fail(WF_EFORMAT, "idx: the file ends inside its sizes");
    *s = (wf_shape){.rank = rank};
    for (int i = 0; i < rank; i++) {
        const uint8_t *d = p + 4 + 4 * i;
        uint32_t dim = (uint32_t)d[0] << 24 | (uint32_t)d[1] << 16 | (uint32_t)d[2] << 8 | d[3];
        s->dim[i] = dim;
        if (__builtin_mul_overflow(extent, dim ? (size_t)dim : 1, &extent) || extent > PTRDIFF_MAX)
            return wf_fail(WF_EFORMAT, "idx: the sizes overflow");
        count *= dim;
    }
    if (count != n - head) {
        char buf[96];
        return wf_fail(WF_EFORMAT, "idx: sizes %s need %zu bytes, the file has %zu", wf_shape_text(s, buf), count, n - head);
    }
    *data = wf_alloc(count);
    if (!*data) return WF_ENOMEM;
    if (count) memcpy(*data, p + head, count);
    return WF_OK;
}

wf_status wf_idx_parse(const uint8_t *p, size_t n, wf_shape *s, uint8_t **data) {
    *data = NULL;
    *s = (wf_shape){0};
    if (n < 2 || p[0] != 0x1F || p[1] != 0x8B) return parse_plain(p, n, s, data);
    uint8_t *plain;
    size_t n_plain;
    WF_TRY(wf_gunzip(p, n, IDX_LIMIT, &plain, &n_plain));
    wf_status st = parse_plain(plain, n_plain, s, data);
    wf_free(plain);
    return st;
}

wf_status wf_idx_load(const char *path, wf_shape *s, uint8_t **data) {
    wf_bytes b;
    *data = NULL;
    WF_TRY(wf_bytes_open(path, &b));
    wf_status st = wf_idx_parse(b.p, b.n, s, data);
    wf_bytes_close(&b);
    return st == WF_OK ? st : wf_fail_within(st, "%s", path);
}
