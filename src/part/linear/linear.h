/* linear.h: the linears. x [.., I] -> [.., O]. */
#ifndef WF_LINEAR_H
#define WF_LINEAR_H

#include "part/part.h"

extern const wf_part wf_linear_dense;

#endif
