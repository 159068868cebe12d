/* interrupt.c: Ctrl-C and SIGTERM ask long work to stop; asked twice, the process ends at once. */
#include "base/base.h"

#include <signal.h>

static volatile sig_atomic_t asked;

static void on_signal(int number) {
    if (asked) {
        signal(number, SIG_DFL); /* the signal ends the process when this handler returns */
        raise(number);
        return;
    }
    asked = 1;
}

void wf_catch_interrupt(void) {
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&a.sa_mask);
    asked = 0;
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

bool wf_interrupted(void) {
    return asked != 0;
}
