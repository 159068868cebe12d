/* fuzz_png.c: any bytes as a PNG picture. The checksums of chunks are made right first, else nothing gets past them. */
#include "file/file.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static volatile unsigned sink; /* reads every byte of a result */

static uint32_t be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void mend_checksums(uint8_t *p, size_t n) {
    for (size_t at = 8; n >= 12 && at <= n - 12;) {
        size_t length = be32(p + at);
        if (length > n - at - 12) return;
        uint32_t crc = (uint32_t)crc32(0, p + at + 4, (uInt)(length + 4));
        for (int i = 0; i < 4; i++) p[at + 8 + length + (size_t)i] = (uint8_t)(crc >> (24 - 8 * i));
        at += 12 + length;
    }
}

static void parse(const uint8_t *p, size_t n, int channels) {
    int64_t h, w;
    int c;
    uint8_t *data;
    if (wf_png_parse(p, n, channels, &h, &w, &c, &data) != WF_OK) {
        if (data) abort();
        return;
    }
    for (int64_t i = 0; i < h * w * c; i++) sink += data[i];
    wf_free(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    uint8_t *q = malloc(n ? n : 1);
    if (!q) return 0;
    if (n) memcpy(q, p, n);
    mend_checksums(q, n);
    parse(q, n, 0);
    parse(q, n, 1);
    free(q);
    return 0;
}
