/* memory.c: checked allocation, large buffers on huge pages, the bump allocator. */
#include "base/base.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { LINE = 64 };
static const size_t HUGE_PAGE = (size_t)2 << 20;

static void *refuse(size_t bytes) {
    wf_fail(WF_ENOMEM, "out of memory: %zu bytes were asked for", bytes);
    return NULL;
}

/* Large blocks start at a huge page and ask for huge pages: fewer misses of the address cache in matrix products. */
void *wf_alloc(size_t bytes) {
    void *p = NULL;
    bool large = bytes >= 2 * HUGE_PAGE;
    if (bytes > PTRDIFF_MAX) return refuse(bytes);
    if (posix_memalign(&p, large ? HUGE_PAGE : LINE, bytes ? bytes : 1) != 0) return refuse(bytes);
    if (large) (void)madvise(p, bytes & ~(HUGE_PAGE - 1), MADV_HUGEPAGE);
    memset(p, 0, bytes ? bytes : 1);
    return p;
}

void *wf_alloc_array(size_t n, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes)) {
        wf_fail(WF_ENOMEM, "out of memory: %zu x %zu bytes were asked for", n, size);
        return NULL;
    }
    return wf_alloc(bytes);
}

void *wf_grow(void *p, size_t old_bytes, size_t new_bytes) {
    void *q = wf_alloc(new_bytes);
    if (!q) return NULL;
    size_t keep = old_bytes < new_bytes ? old_bytes : new_bytes;
    if (p && keep) memcpy(q, p, keep);
    free(p);
    return q;
}

void wf_free(void *p) {
    free(p);
}

/* Round up to whole huge pages (small sizes: to whole 4 KiB pages); 0 on overflow. */
static size_t page_bytes(size_t bytes) {
    size_t unit = bytes >= HUGE_PAGE ? HUGE_PAGE : 4096;
    if (bytes == 0) bytes = 1;
    if (bytes > PTRDIFF_MAX - 2 * HUGE_PAGE) return 0;
    return (bytes + unit - 1) / unit * unit;
}

void *wf_map_pages(size_t bytes) {
    size_t size = page_bytes(bytes);
    if (size == 0) return refuse(bytes);
    size_t extra = size >= HUGE_PAGE ? HUGE_PAGE : 0; /* room to start at a huge page */
    char *p = mmap(NULL, size + extra, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return refuse(bytes);
    if (!extra) return p;
    size_t skip = (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE;
    if (skip) munmap(p, skip);
    if (extra > skip) munmap(p + skip + size, extra - skip);
    (void)madvise(p + skip, size, MADV_HUGEPAGE); /* a wish: ordinary pages serve as well */
    return p + skip;
}

void wf_unmap_pages(void *p, size_t bytes) {
    if (p) munmap(p, page_bytes(bytes));
}

/* ---- arena: a list of blocks, the newest first; a request that does not fit opens a new one ---- */
typedef struct block {
    struct block *next;
    size_t used, size;
    _Alignas(16) char bytes[];
} block;

struct wf_arena {
    block *first;
};

enum { BLOCK_MIN = 16 << 10, BLOCK_MAX = 1 << 20 };

wf_arena *wf_arena_new(void) {
    return wf_alloc(sizeof(wf_arena));
}

static block *add_block(wf_arena *a, size_t bytes) {
    size_t size = a->first ? a->first->size * 2 : BLOCK_MIN;
    if (size > BLOCK_MAX) size = BLOCK_MAX;
    if (size < bytes) size = bytes;
    block *b = size > PTRDIFF_MAX - sizeof *b ? NULL : calloc(1, sizeof *b + size);
    if (!b) return refuse(bytes);
    b->size = size;
    /* A block made for one large request stays behind the first, whose rest is still of use. */
    if (a->first && size == bytes && a->first->size - a->first->used > BLOCK_MIN / 2) {
        b->next = a->first->next;
        a->first->next = b;
    } else {
        b->next = a->first;
        a->first = b;
    }
    return b;
}

void *wf_arena_alloc(wf_arena *a, size_t bytes) {
    if (bytes > PTRDIFF_MAX - 16) return refuse(bytes);
    size_t size = (bytes + 15) / 16 * 16;
    if (size == 0) size = 16;
    block *b = a->first;
    if (!b || b->size - b->used < size) b = add_block(a, size);
    if (!b) return NULL;
    void *p = b->bytes + b->used;
    b->used += size;
    return p;
}

char *wf_arena_strdup(wf_arena *a, const char *s) {
    size_t n = strlen(s) + 1;
    char *p = wf_arena_alloc(a, n);
    if (p) memcpy(p, s, n);
    return p;
}

char *wf_arena_format(wf_arena *a, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) {
        wf_fail(WF_EINVAL, "a text could not be formatted (%s)", fmt);
        return NULL;
    }
    char *p = wf_arena_alloc(a, (size_t)n + 1);
    if (!p) return NULL;
    va_start(ap, fmt);
    vsnprintf(p, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return p;
}

void wf_arena_free(wf_arena *a) {
    if (!a) return;
    for (block *b = a->first; b;) {
        block *next = b->next;
        free(b);
        b = next;
    }
    free(a);
}
