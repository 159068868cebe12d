/* machine.c: "Intel .. (x86_64), 2 threads, Linux": what a reader must know to weigh speeds. */
#include "cli/cli.h"

#include <string.h>
#include <sys/utsname.h>

char *wf_cli_machine(void) {
    char line[256], model[200] = "";
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f != NULL && !model[0] && fgets(line, sizeof line, f) != NULL) {
        const char *colon = strchr(line, ':');
        if (!strncmp(line, "model name", 10) && colon != NULL)
            snprintf(model, sizeof model, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
    }
    if (f != NULL) fclose(f);
    struct utsname u;
    if (uname(&u) != 0) memset(&u, 0, sizeof u);
    return wf_format("%s (%s), %d thread%s, %s", model[0] ? model : "unknown processor", u.machine, wf_threads(),
                     wf_threads() == 1 ? "" : "s", u.sysname);
}
