/* check.h: what every unit test includes: cmocka in its order, and short assertions. */
#ifndef WF_TEST_CHECK_H
#define WF_TEST_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"

/* A call that must succeed; its message is shown when it does not. */
#define MUST(expr)                                                                                                             \
    do {                                                                                                                       \
        wf_status must_ = (expr);                                                                                              \
        if (must_ != WF_OK) fail_msg("%s: %s (%s)", #expr, wf_status_name(must_), wf_message());                               \
    } while (0)

/* A call that must fail with `status` and a message that contains `part`. */
#define MUST_FAIL(expr, status, part)                                                                                          \
    do {                                                                                                                       \
        wf_status got_ = (expr);                                                                                               \
        if (got_ != (status))                                                                                                  \
            fail_msg("%s gave '%s', not '%s' (%s)", #expr, wf_status_name(got_), wf_status_name(status), wf_message());        \
        if (!strstr(wf_message(), part)) fail_msg("%s: message '%s' lacks '%s'", #expr, wf_message(), part);                   \
    } while (0)

#define MESSAGE_HAS(part)                                                                                                      \
    do {                                                                                                                       \
        if (!strstr(wf_message(), part)) fail_msg("message '%s' lacks '%s'", wf_message(), part);                              \
    } while (0)

/* A fresh folder for a test's files, below TMPDIR. */
static inline const char *test_folder(void) {
    static char path[256];
    if (!path[0]) {
        const char *t = getenv("TMPDIR");
        snprintf(path, sizeof path, "%s/weft-test-XXXXXX", t && *t ? t : P_tmpdir);
        if (!mkdtemp(path)) fail_msg("no folder for tests");
    }
    return path;
}

static inline void test_folder_remove(void) {
    char cmd[300];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", test_folder());
    if (system(cmd) != 0) fprintf(stderr, "%s failed\n", cmd);
}

#endif
