/* matmul64.h: the float64 product, for checking. */
#ifndef WF_MATMUL64_H
#define WF_MATMUL64_H

#include "op/gemm.h"

/* Every element is summed in ascending k. bias: float64 [n] or NULL. */
void wf_matmul64(const wf_product *p, const void *a, const void *b, const void *bias, void *c);

#endif
