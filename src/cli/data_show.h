/* data_show.h: samples of a batch on a terminal or as a sheet of pictures; used by data.c. */
#ifndef WF_DATA_SHOW_H
#define WF_DATA_SHOW_H

#include "cli/cli.h"
#include "data/data.h"

/* Rows of the batch as text: bytes, numbers above their targets, or pictures in characters. */
void wf_data_print(const wf_task *t, const wf_batch *b);
/* The batch's pictures as one PNG, row by row. */
wf_status wf_data_sheet(const wf_task *t, const wf_batch *b, const char *path);

#endif
