/* fuzz_idx.c: any bytes as an idx file, plain or gzipped. */
#include "file/file.h"

#include <stdlib.h>

static volatile unsigned sink; /* reads every byte of a result */

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    wf_shape s;
    uint8_t *data;
    if (wf_idx_parse(p, n, &s, &data) != WF_OK) {
        if (data) abort();
        return 0;
    }
    for (int64_t i = 0; i < wf_shape_count(&s); i++) sink += data[i];
    wf_free(data);
    return 0;
}
