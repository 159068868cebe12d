/* dnn.h: oneDNN's primitives as the operators need them. dnn.c is the only file that knows oneDNN, and its versions 2.6 and 3.x.
 *
 * A primitive is made once, for one thread, and may then run in many threads at once, each with its own work memory: how work
 * is cut, and so how sums are rounded, never depends on the number of threads.
 */
#ifndef WF_DNN_H
#define WF_DNN_H

#include "graph/graph.h"

typedef struct wf_dnn wf_dnn;

enum { WF_DNN_ARGS = 5 };

/* [rows, cols] with any strides (elements). */
typedef struct wf_dnn_matrix {
    wf_dtype type;
    int64_t rows, cols, rs, cs;
} wf_dnn_matrix;

/* c = a b (+ bias [cols of c], may be NULL). With packed_b, b comes in the primitive's own layout (see wf_dnn_pack_b).
 * NULL + message when oneDNN has no fast implementation of it on this machine. Arguments: a, b, c, bias. */
wf_dnn *wf_dnn_matmul(const wf_dnn_matrix *a, const wf_dnn_matrix *b, const wf_dnn_matrix *c, const wf_dtype *bias,
                      bool packed_b);
/* Bytes of b in the layout that product p wants; 0 when that layout has padding (then a plain b is better). */
size_t wf_dnn_packed_bytes(const wf_dnn *p);
bool wf_dnn_same_b(const wf_dnn *p, const wf_dnn *q); /* whether two products want b in the same layout */
/* Reorders a plain b into that layout. Arguments: from, to. */
wf_dnn *wf_dnn_pack_b(const wf_dnn_matrix *b, const wf_dnn *p);

/* Convolutions over dense [B,C,H,W], [O,C/groups,kh,kw], [B,O,Ho,Wo], float32. */
typedef struct wf_dnn_conv_shape {
    int64_t batch, groups, in, out; /* B, C, O */
    int64_t size[2], kernel[2], result[2], stride[2], before[2], after[2], dilation[2];
} wf_dnn_conv_shape;
typedef enum wf_dnn_conv_kind { WF_DNN_CONV_FORWARD, WF_DNN_CONV_DATA, WF_DNN_CONV_WEIGHTS } wf_dnn_conv_kind;
/* Arguments: forward x, w, y, bias (when with_bias); data: gy, w, gx; weights: x, gy, gw. */
wf_dnn *wf_dnn_conv(wf_dnn_conv_kind kind, const wf_dnn_conv_shape *s, bool with_bias);

size_t wf_dnn_work(const wf_dnn *p); /* bytes of work memory of one run */
/* Runs in the calling thread alone. args: in the order said above; work: wf_dnn_work(p) bytes, 64-byte aligned, or NULL if 0. */
wf_status wf_dnn_run(const wf_dnn *p, void *const *args, void *work);
void wf_dnn_free(wf_dnn *p);

/* Whether int8 products are exact (without VNNI instructions oneDNN's saturate), and bfloat16 has instructions of its own. */
bool wf_dnn_int8_exact(void);
bool wf_dnn_bf16_native(void);

#endif
