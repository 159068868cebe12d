/* model.h: whole networks made of parts. A model is a part of slot "model": its forward takes the task's first tensor. */
#ifndef WF_MODEL_H
#define WF_MODEL_H

#include "part/part.h"

extern const wf_part wf_model_lm, wf_model_vit, wf_model_bert;
extern const wf_part wf_model_stack, wf_model_classifier, wf_model_metaformer;

/* Tables of fixed 2-D positions, [h*w, D], D a multiple of 4, row-major. w_i = T^(-i/m); x column, y row.
 *     simple_vit: m = D/4 - 1, [sin x, cos x, sin y, cos y];  mae: m = D/4, the same order;  timm: m = D/4, [sin y, sin x, cos y, cos x] */
wf_status wf_sincos2d(const char *style, int64_t h, int64_t w, int64_t D, double T, float *table);
/* Bicubic weights (A = -0.75, half-pixel centres, edges clamped, no antialias) from n to m points: [m,n]. The change of a
 * position table to another grid is pos' = (Wy x Wx) pos. */
void wf_bicubic_weights(int64_t n, int64_t m, float *weight);

#endif
