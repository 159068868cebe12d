/* base.h: what every other room stands on: status and message, memory, strings, random numbers, threads, time.
 *
 * Errors. A call that can fail returns a wf_status (or NULL) and leaves ONE message for the calling thread, read with
 * wf_message(). Nothing here or above prints or exits; only src/cli does.
 */
#ifndef WF_BASE_H
#define WF_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum wf_status {
    WF_OK = 0,
    WF_EINVAL,       /* wrong argument, shape, option */
    WF_ENOMEM,       /* out of memory, or over the limit that was set */
    WF_EIO,          /* the operating system refused a file */
    WF_EFORMAT,      /* a file's content is malformed */
    WF_EUNSUPPORTED, /* well-formed, but not something this build can do */
    WF_ENOTFOUND,    /* no such name */
    WF_EINTERRUPTED, /* the user asked to stop */
    WF_ENONFINITE,   /* NaN or Inf where numbers were expected */
} wf_status;

#if defined(__GNUC__)
#define WF_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define WF_PRINTF(f, a)
#endif

/* Set the thread's message and return `s`. */
wf_status wf_fail(wf_status s, const char *fmt, ...) WF_PRINTF(2, 3);
/* Put "prefix: " in front of the present message; returns `s`. */
wf_status wf_fail_within(wf_status s, const char *fmt, ...) WF_PRINTF(2, 3);
/* The thread's last message, "" if none. Valid until the next failing call on this thread. */
const char *wf_message(void);
const char *wf_status_name(wf_status s);

#define WF_TRY(expr)                                                                                                           \
    do {                                                                                                                       \
        wf_status wf_try_ = (expr);                                                                                            \
        if (wf_try_ != WF_OK) return wf_try_;                                                                                  \
    } while (0)

/* ---- memory: NULL + message on failure; sizes are checked for overflow; wf_alloc is 64-byte aligned and zeroed ---- */
void *wf_alloc(size_t bytes);
void *wf_alloc_array(size_t n, size_t size);
void *wf_grow(void *p, size_t old_bytes, size_t new_bytes); /* realloc for wf_alloc memory; p is freed only on success */
void wf_free(void *p);
char *wf_strdup(const char *s);
char *wf_strndup(const char *s, size_t n);
char *wf_format(const char *fmt, ...) WF_PRINTF(1, 2); /* malloc'd string, free with wf_free */
/* Large buffer with huge pages where the system grants them (munmap semantics hidden). Zeroed. */
void *wf_map_pages(size_t bytes);
void wf_unmap_pages(void *p, size_t bytes);

/* A bump allocator: everything in it dies together. */
typedef struct wf_arena wf_arena;
wf_arena *wf_arena_new(void);
void *wf_arena_alloc(wf_arena *a, size_t bytes); /* zeroed, 16-byte aligned */
char *wf_arena_strdup(wf_arena *a, const char *s);
char *wf_arena_format(wf_arena *a, const char *fmt, ...) WF_PRINTF(2, 3);
void wf_arena_free(wf_arena *a);

/* A growing string. Zero-initialise; free with wf_text_free. */
typedef struct wf_text {
    char *s;
    size_t n, cap;
    bool failed;
} wf_text;
void wf_text_add(wf_text *t, const char *fmt, ...) WF_PRINTF(2, 3);
void wf_text_put(wf_text *t, const char *bytes, size_t n);
void wf_text_free(wf_text *t);

/* ---- random numbers: Philox4x32-10 (Salmon et al. 2011), counter based: number = f(seed, stream, index) ---- */
void wf_philox(const uint32_t key[2], const uint32_t ctr[4], uint32_t out[4]);
typedef struct wf_rng { /* a sequential reader of one stream */
    uint64_t seed, stream, index;
} wf_rng;
uint32_t wf_rng_u32(wf_rng *r);
double wf_rng_uniform(wf_rng *r);                         /* [0,1), 53 bits */
double wf_rng_normal(wf_rng *r);                          /* N(0,1) */
uint64_t wf_rng_below(wf_rng *r, uint64_t n);             /* 0..n-1, unbiased */
uint64_t wf_hash(const void *p, size_t n, uint64_t seed); /* stable across machines */
/* Seeded pseudo-random permutation of 0..n-1 evaluated at i (Feistel network, cycle walking): no table. */
uint64_t wf_shuffle(uint64_t i, uint64_t n, uint64_t seed);

/* ---- threads and time ---- */
int wf_threads(void); /* threads that parallel regions use; default: the cores this process may use */
void wf_set_threads(int n);
double wf_seconds(void);                /* monotonic */
double wf_median(double *x, int64_t n); /* sorts x; NaN of none */
/* Ctrl-C and SIGTERM set a flag that long work polls; the second signal ends the process at once. */
void wf_catch_interrupt(void);
bool wf_interrupted(void);

/* ---- progress: one line on a terminal, plain lines elsewhere (stderr) ---- */
typedef struct wf_progress {
    const char *what, *unit; /* "train", "step" */
    int64_t done, total;
    double started, last;
    bool tty, quiet;
    int64_t from; /* done before it started (a resumed run): not part of the rate; set after wf_progress_start */
} wf_progress;
void wf_progress_start(wf_progress *p, const char *what, const char *unit, int64_t total);
/* `note` (may be "") is shown after rate and time left; at most ~5 lines a second on a terminal, one in 10 s elsewhere. */
void wf_progress_show(wf_progress *p, int64_t done, const char *note);
void wf_progress_end(wf_progress *p, const char *note);

#endif
