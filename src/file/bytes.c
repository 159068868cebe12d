/* bytes.c: whole files in, gzip, and files that appear complete or not at all. */
#define _GNU_SOURCE
#include "file/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

static const size_t STREAM_LIMIT = (size_t)1 << 30; /* of what is no regular file: pipes, devices */

/* What cannot be mapped is read to its end: pipes, and files of /proc, whose size is said to be 0. */
static wf_status read_all(int fd, const char *path, wf_bytes *b) {
    size_t n = 0, cap = 1 << 16;
    uint8_t *p = malloc(cap);
    while (p) {
        ssize_t got = read(fd, p + n, cap - n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            wf_status s = wf_fail(WF_EIO, "%s: cannot be read: %s", path, strerror(errno));
            free(p);
            return s;
        }
        n += (size_t)got;
        if (got == 0) {
            *b = (wf_bytes){p, n, p};
            return WF_OK;
        }
        if (n > STREAM_LIMIT) {
            free(p);
            return wf_fail(WF_ENOMEM, "%s: more than %zu bytes from something that is not a plain file", path, STREAM_LIMIT);
        }
        if (n < cap) continue;
        uint8_t *q = realloc(p, cap *= 2);
        if (!q) free(p);
        p = q;
    }
    return wf_fail(WF_ENOMEM, "%s: out of memory after %zu bytes", path, n);
}

/* handle: NULL when mapped, else the memory to free. */
wf_status wf_bytes_open(const char *path, wf_bytes *b) {
    *b = (wf_bytes){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return wf_fail(errno == ENOENT ? WF_ENOTFOUND : WF_EIO, "%s: cannot be opened: %s", path, strerror(errno));
    struct stat st;
    wf_status s = WF_OK;
    if (fstat(fd, &st) != 0) {
        s = wf_fail(WF_EIO, "%s: %s", path, strerror(errno));
    } else if (S_ISDIR(st.st_mode)) {
        s = wf_fail(WF_EIO, "%s: is a folder, a file was expected", path);
    } else if (S_ISREG(st.st_mode) && st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            s = wf_fail(WF_EIO, "%s: cannot be mapped: %s", path, strerror(errno));
        else
            *b = (wf_bytes){p, (size_t)st.st_size, NULL};
    } else {
        s = read_all(fd, path, b);
    }
    close(fd);
    return s;
}

void wf_bytes_close(wf_bytes *b) {
    if (b->handle)
        free(b->handle);
    else if (b->p)
        munmap((void *)(uintptr_t)b->p, b->n);
    *b = (wf_bytes){0};
}

/* ---- gzip ---- */
typedef struct inflated { /* grows with what really comes out, so that a small hostile file stays small */
    uint8_t *p;
    size_t n, cap, limit;
} inflated;

static wf_status make_room(inflated *o) {
    if (o->n < o->cap) return WF_OK;
    if (o->cap > o->limit) return wf_fail(WF_EFORMAT, "gzip: more than %zu bytes come out", o->limit);
    size_t cap = o->cap ? o->cap * 2 : 1 << 16;
    if (cap > o->limit) cap = o->limit + 1; /* the one byte too many shows */
    uint8_t *p = realloc(o->p, cap);
    if (!p) return wf_fail(WF_ENOMEM, "gzip: out of memory for %zu bytes", cap);
    o->p = p;
    o->cap = cap;
    return WF_OK;
}

static wf_status inflate_all(z_stream *z, const uint8_t *p, size_t n, inflated *o) {
    size_t at = 0;
    int r = Z_OK;
    for (;;) {
        WF_TRY(make_room(o));
        size_t in = n - at < UINT_MAX ? n - at : UINT_MAX, out = o->cap - o->n < UINT_MAX ? o->cap - o->n : UINT_MAX;
        z->next_in = (Bytef *)(uintptr_t)(p + at);
        z->avail_in = (uInt)in;
        z->next_out = o->p + o->n;
        z->avail_out = (uInt)out;
        r = inflate(z, Z_NO_FLUSH);
        at += in - z->avail_in;
        o->n += out - z->avail_out;
        if (r == Z_STREAM_END && at == n) break;
        if (r == Z_STREAM_END) r = inflateReset(z); /* further members follow */
        if (r == Z_OK) continue;
        if (r == Z_MEM_ERROR) return wf_fail(WF_ENOMEM, "gzip: out of memory");
        if (r == Z_BUF_ERROR && at < n) continue;
        return wf_fail(WF_EFORMAT, "gzip: %s", r == Z_BUF_ERROR ? "the data ends too early" : z->msg ? z->msg : "damaged data");
    }
    if (o->n > o->limit) return wf_fail(WF_EFORMAT, "gzip: more than %zu bytes come out", o->limit);
    return WF_OK;
}

wf_status wf_gunzip(const uint8_t *p, size_t n, size_t limit, uint8_t **out, size_t *n_out) {
    *out = NULL;
    *n_out = 0;
    z_stream z = {0};
    inflated o = {.limit = limit < PTRDIFF_MAX ? limit : PTRDIFF_MAX};
    if (inflateInit2(&z, 15 + 16) != Z_OK) return wf_fail(WF_ENOMEM, "gzip: cannot be set up");
    wf_status s = inflate_all(&z, p, n, &o);
    inflateEnd(&z);
    if (s != WF_OK) {
        free(o.p);
        return s;
    }
    *out = o.p;
    *n_out = o.n;
    return WF_OK;
}

/* ---- atomic writing ---- */
struct wf_writer {
    FILE *f;
    char *path, *temporary; /* temporary NULL: written straight to a device or pipe */
};

static void close_writer(wf_writer *w) {
    if (w->f) fclose(w->f);
    if (w->temporary) unlink(w->temporary);
    wf_free(w->temporary);
    wf_free(w->path);
    wf_free(w);
}

/* The usual temporary name is the same every time, so that what a killed process left is written over and nothing piles up.
 * The lock dies with its process; a name that another writer holds, or a file system without locks, gives -1. */
static int open_usual(const char *name) {
    int fd = open(name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd < 0) return -1;
    struct stat mine, named;
    bool ok = flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &mine) == 0 && lstat(name, &named) == 0 &&
              mine.st_ino == named.st_ino && mine.st_dev == named.st_dev && ftruncate(fd, 0) == 0;
    if (ok) return fd;
    close(fd);
    return -1;
}

static int open_temporary(wf_writer *w) {
    static atomic_uint serial;
    w->temporary = wf_format("%s.part", w->path);
    if (!w->temporary) return -1;
    int fd = open_usual(w->temporary);
    if (fd >= 0) return fd;
    wf_free(w->temporary);
    w->temporary = wf_format("%s.%ld-%u.part", w->path, (long)getpid(), atomic_fetch_add(&serial, 1));
    if (!w->temporary) return -1;
    fd = open(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0) return fd;
    wf_free(w->temporary); /* not ours to remove */
    w->temporary = NULL;
    return -1;
}

wf_writer *wf_writer_open(const char *path) {
    struct stat st;
    bool there = stat(path, &st) == 0;
    wf_writer *w = wf_alloc(sizeof *w);
    if (!w) return NULL;
    char *real = there ? realpath(path, NULL) : NULL; /* write through a link instead of replacing it */
    w->path = real ? real : wf_strdup(path);
    if (!w->path) {
        close_writer(w);
        return NULL;
    }
    bool straight = there && !S_ISREG(st.st_mode); /* a device or pipe */
    int fd = straight ? open(path, O_WRONLY | O_CLOEXEC) : open_temporary(w);
    if (fd >= 0) w->f = fdopen(fd, "wb");
    if (w->f) return w;
    wf_fail(WF_EIO, "%s: cannot be written: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    close_writer(w);
    return NULL;
}

wf_status wf_writer_put(wf_writer *w, const void *p, size_t n) {
    if (n == 0 || fwrite(p, 1, n, w->f) == n) return WF_OK;
    return wf_fail(WF_EIO, "%s: cannot be written: %s", w->path, strerror(errno));
}

/* The name is safe only when the folder that holds it has been flushed too; some file systems cannot, which is no error. */
static void flush_folder(const char *path) {
    char *folder = wf_strdup(path);
    if (!folder) return;
    char *slash = strrchr(folder, '/');
    if (slash) slash[slash == folder] = 0;
    int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    wf_free(folder);
}

wf_status wf_writer_commit(wf_writer *w) {
    bool ok = fflush(w->f) == 0 && (!w->temporary || fsync(fileno(w->f)) == 0);
    ok = fclose(w->f) == 0 && ok;
    w->f = NULL;
    if (ok && w->temporary) ok = rename(w->temporary, w->path) == 0;
    wf_status s = ok ? WF_OK : wf_fail(WF_EIO, "%s: cannot be written: %s", w->path, strerror(errno));
    if (ok && w->temporary) {
        flush_folder(w->path);
        wf_free(w->temporary);
        w->temporary = NULL;
    }
    close_writer(w);
    return s;
}

void wf_writer_abort(wf_writer *w) {
    if (w) close_writer(w);
}

wf_status wf_write_text(const char *path, const char *text) {
    wf_writer *w = wf_writer_open(path);
    if (!w) return WF_EIO;
    wf_status s = wf_writer_put(w, text, strlen(text));
    if (s == WF_OK) return wf_writer_commit(w);
    wf_writer_abort(w);
    return s;
}

wf_status wf_make_folder(const char *path) {
    char *p = wf_strdup(path);
    if (!p) return WF_ENOMEM;
    wf_status s = WF_OK;
    struct stat st;
    for (char *c = p; *c && s == WF_OK;) {
        c += strspn(c, "/");
        c += strcspn(c, "/");
        char keep = *c;
        *c = 0;
        if (*p && mkdir(p, 0777) != 0 && (stat(p, &st) != 0 || !S_ISDIR(st.st_mode)))
            s = wf_fail(WF_EIO, "%s: folder cannot be made: %s", p, errno == EEXIST ? "a file has that name" : strerror(errno));
        *c = keep;
    }
    wf_free(p);
    return s;
}

bool wf_path_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}
