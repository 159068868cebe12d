/* threads.c: how many threads parallel regions use, and the clock. */
#define _GNU_SOURCE
#include "base/base.h"

#include <omp.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum { THREADS_MAX = 1024 };
static atomic_int threads; /* 0: not yet known */

static int from_environment(const char *name) {
    const char *s = getenv(name);
    if (!s || !*s) return 0;
    char *end;
    long n = strtol(s, &end, 10);
    return end != s && *end == 0 && n >= 1 && n <= THREADS_MAX ? (int)n : 0;
}

/* A container may own a share of the machine that affinity does not show (cgroup v2: "quota period" or "max period"). */
static int quota_cores(void) {
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (!f) return 0;
    double quota = 0, period = 0;
    int got = fscanf(f, "%lf %lf", &quota, &period);
    fclose(f);
    if (got != 2 || !(quota > 0) || !(period > 0) || quota / period > THREADS_MAX) return 0;
    int n = (int)(quota / period + 0.999);
    return n < 1 ? 1 : n;
}

static int affinity_cores(void) {
    int n = 0;
    for (int size = 1024; size <= 1 << 16; size *= 4) { /* the kernel's mask may be wider than cpu_set_t */
        cpu_set_t *set = CPU_ALLOC((size_t)size);
        if (!set) break;
        size_t bytes = CPU_ALLOC_SIZE((size_t)size);
        if (sched_getaffinity(0, bytes, set) == 0) n = CPU_COUNT_S(bytes, set);
        CPU_FREE(set);
        if (n > 0) break;
    }
    return n > 0 ? n : 1;
}

/* WEFT_THREADS, else OMP_NUM_THREADS, else the cores that this process may use. */
static int default_threads(void) {
    int n = from_environment("WEFT_THREADS");
    if (!n) n = from_environment("OMP_NUM_THREADS");
    if (n) return n;
    n = affinity_cores();
    int quota = quota_cores();
    if (quota && quota < n) n = quota;
    return n > THREADS_MAX ? THREADS_MAX : n;
}

/* OpenMP (and with it oneDNN) gets the same number. */
void wf_set_threads(int n) {
    if (n < 1) n = 1;
    if (n > THREADS_MAX) n = THREADS_MAX;
    atomic_store(&threads, n);
    omp_set_num_threads(n);
}

int wf_threads(void) {
    int n = atomic_load(&threads);
    if (n) return n;
    n = default_threads();
    wf_set_threads(n);
    return n;
}

double wf_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
