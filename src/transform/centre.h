/* centre.h: inside of the transform room: the mean over the channels of what writes to the stream. */
#ifndef WF_CENTRE_H
#define WF_CENTRE_H

#include "transform/edit.h"

/* W <- W - mean over outputs, bias <- bias - its mean. */
wf_status wf_centre_linear(wf_edit *e, const wf_module *linear);
/* Largest mean over the channels in any column of the writers, any row of the tables the stream starts from, relative to the
 * root mean square of that tensor: 0 when the stream has no mean. */
wf_status wf_centre_measure(wf_edit *e, wf_module *const *writer, int n_writer, double *worst);
/* Why the start of the stream cannot be centred, as a sentence; NULL: it can. */
const char *wf_centre_start_why(const wf_edit *e);

#endif
