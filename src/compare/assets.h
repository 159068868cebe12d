/* assets.h: files embedded in the program at build time: the report's page and the chart library (Chart.js, from Debian). */
#ifndef WF_ASSETS_H
#define WF_ASSETS_H

extern const char wf_asset_page[];  /* src/compare/report.html, NUL-terminated */
extern const char wf_asset_chart[]; /* chart.min.js, NUL-terminated */

#endif
