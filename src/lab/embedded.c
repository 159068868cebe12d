/* embedded.c: the recipes of recipes/reproduce/ in the program itself. The build writes WF_CLAIM_LIST: a line EMBED(symbol, name,
 * path) for each, in the order of their names. */
#include "lab/lab.h"

#define EMBED(symbol, name, path)                                                                                              \
    __asm__(".pushsection .rodata\n.balign 16\n" #symbol ":\n.incbin \"" path "\"\n" #symbol "_end:\n.byte 0\n.popsection\n"); \
    extern const char symbol[] __attribute__((visibility("hidden"))), symbol##_end[] __attribute__((visibility("hidden")));
#include WF_CLAIM_LIST
#undef EMBED

#define EMBED(symbol, name, path) {name, symbol, symbol##_end},
const wf_claim_text wf_claim_texts[] = {
#include WF_CLAIM_LIST
    {NULL, NULL, NULL}};
const int wf_n_claim_texts = sizeof wf_claim_texts / sizeof *wf_claim_texts - 1;
