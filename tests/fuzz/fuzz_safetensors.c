/* fuzz_safetensors.c: any bytes as a model file: parse, look up, convert every tensor every way. */
#include "file/file.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    wf_st_file f;
    if (wf_st_parse(p, n, "fuzz", &f) != WF_OK) return 0;
    size_t total = 0;
    for (int i = 0; i < f.n; i++) {
        if (wf_st_find(&f, f.entry[i].name) != &f.entry[i]) abort();
        total += f.entry[i].bytes;
        for (int t = 0; t < WF_DTYPES; t++) wf_tensor_free(wf_st_read(&f.entry[i], (wf_dtype)t));
    }
    if (total > n) abort();
    for (int i = 0; i < f.n_meta; i++)
        if (!wf_st_meta(&f, f.meta_key[i])) abort();
    wf_st_close(&f);
    return 0;
}
