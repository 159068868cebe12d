/* designs.h: inside of comparing: from the recipe's `designs`, `grid` and `size` to a recipe a design. */
#ifndef WF_COMPARE_DESIGNS_H
#define WF_COMPARE_DESIGNS_H

#include "compare/compare.h"

/* Fills r->design and the grid's axes. Errors name the file, the line and what to write. */
wf_status wf_designs_read(wf_race *r);
/* `size`: with the task open, solves one entry of every design (the hidden width of its channel mixer, or size.by) so that
 * parameters agree with the reference design's within size.within; says what it did in wf_design.solved. */
wf_status wf_designs_size(wf_race *r);
const char *wf_grid_label(const wf_race *r, int axis, int i); /* lives with the recipe */

#endif
