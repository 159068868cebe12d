/* dnn_product.h: a matrix product cut into oneDNN primitives: bfloat16 and int8 where the machine has instructions for them. */
#ifndef WF_DNN_PRODUCT_H
#define WF_DNN_PRODUCT_H

#include "op/gemm.h"

typedef struct wf_dnn_product wf_dnn_product;

/* NULL + message when oneDNN has no fast implementation for this machine, these types or these strides. */
wf_dnn_product *wf_dnn_product_new(const wf_product *p, int threads);
size_t wf_dnn_product_scratch(const wf_dnn_product *d);
wf_status wf_dnn_product_run(const wf_dnn_product *d, int threads, const void *a, const void *b, const void *bias, void *c,
                             void *scratch);
void wf_dnn_product_free(wf_dnn_product *d);

#endif
