/* assets.c: embeds the report's page and the chart library, so that the tool is one file and the report needs no network.
 * The build passes their paths: WF_ASSET_PAGE, WF_ASSET_CHART. */
#include "compare/assets.h"

#define EMBED(symbol, path)                                                                                                    \
    __asm__(".pushsection .rodata\n.global " #symbol "\n.balign 16\n" #symbol ":\n"                                            \
            ".incbin \"" path "\"\n.byte 0\n.popsection\n")

EMBED(wf_asset_page, WF_ASSET_PAGE);
EMBED(wf_asset_chart, WF_ASSET_CHART);
