/* pool.c: worker processes. Each takes one job (a cell, or one repetition of a claim's timing), computes with one thread, writes
 * its result as a line to a pipe and ends; nothing is shared, so the figures do not depend on how many run at a time. Timing waits
 * until all training is done and then has the machine to itself.
 *
 * Lines of a worker: "p DONE TOTAL" progress, "r {..}" a result, "e MESSAGE" why it failed.
 */
#define _GNU_SOURCE
#include "lab/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_WORKERS = 64, POLL_MS = 200 };
static const double TIMING_SECONDS = 3; /* of one repetition, for estimates */

typedef struct job {
    int claim, design, seed;
    bool timing, started, over;
    double estimate, part; /* seconds on one core; how much of it is done, 0..1 */
} job;

typedef struct worker {
    pid_t pid;
    int fd;
    job *job; /* NULL: free */
    wf_text text;
    char *message;
} worker;

typedef struct pool {
    wf_lab *l;
    const wf_lab_hooks *hooks;
    int n_job, n_worker, running;
    job *job;
    worker worker[MAX_WORKERS];
    double total;
    bool *reported; /* claims */
} pool;

/* ---- in the worker ---- */
typedef struct reporter {
    int fd;
    double last;
} reporter;

static void say(int fd, const char *s, size_t n) {
    while (n > 0) {
        ssize_t k = write(fd, s, n);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) _exit(1); /* the reader is gone */
        s += k;
        n -= (size_t)k;
    }
}

static bool on_step(void *ctx, int64_t done, int64_t total) {
    reporter *r = ctx;
    if (wf_interrupted()) return false;
    double now = wf_seconds();
    if (now - r->last < 0.25) return true;
    r->last = now;
    char line[64];
    int n = snprintf(line, sizeof line, "p %lld %lld\n", (long long)done, (long long)total);
    say(r->fd, line, (size_t)n);
    return true;
}

static void say_result(const pool *p, const job *j, int design, const wf_cell_result *result, int fd) {
    char *line = wf_store_line(p->l, &p->l->item[j->claim], design, j->seed, j->timing, result);
    char *whole = line ? wf_format("r %s\n", line) : NULL;
    if (whole) say(fd, whole, strlen(whole));
    wf_free(line);
    wf_free(whole);
}

static void work(const pool *p, const job *j, int fd) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    wf_set_threads(1);
    const wf_claim *c = p->l->item[j->claim].claim;
    reporter r = {fd, 0};
    wf_status s;
    if (j->timing) {
        wf_cell_result *out = wf_alloc_array((size_t)c->n_design, sizeof *out);
        s = out ? wf_cell_time(c, j->seed + 1, out) : WF_ENOMEM;
        for (int d = 0; s == WF_OK && d < c->n_design; d++)
            if (wf_lab_cell(&p->l->item[j->claim], d, j->seed)->time_key) say_result(p, j, d, &out[d], fd);
        wf_free(out);
    } else {
        wf_cell_result out;
        s = wf_cell_run(c, j->design, j->seed + 1, on_step, &r, &out);
        if (s == WF_OK) say_result(p, j, j->design, &out, fd);
    }
    if (s != WF_OK && s != WF_EINTERRUPTED) {
        char *line = wf_format("e %s", *wf_message() ? wf_message() : wf_status_name(s));
        for (char *at = line; at && *at; at++)
            if (*at == '\n') *at = ' ';
        if (line) say(fd, line, strlen(line));
        say(fd, "\n", 1);
        wf_free(line);
    }
}

/* ---- jobs ---- */
static wf_cell *cell_of(const pool *p, const job *j, int design) {
    return wf_lab_cell(&p->l->item[j->claim], design, j->seed);
}

static void add_job(pool *p, job j) {
    p->job[p->n_job++] = j;
    p->total += j.estimate;
}

static wf_status make_jobs(pool *p) {
    size_t room = 0;
    for (int i = 0; i < p->l->n; i++) room += (size_t)(p->l->item[i].claim->n_design + 1) * (size_t)p->l->item[i].claim->seeds;
    p->job = wf_alloc_array(room + 1, sizeof *p->job);
    p->reported = wf_alloc_array((size_t)p->l->n + 1, sizeof *p->reported);
    if (!p->job || !p->reported) return WF_ENOMEM;
    for (int i = 0; i < p->l->n; i++) {
        const wf_claim *c = p->l->item[i].claim;
        for (int s = 0; s < (int)c->seeds; s++)
            for (int d = 0; d < c->n_design; d++) {
                const wf_cell *cell = wf_lab_cell(&p->l->item[i], d, s);
                if (cell->key && !cell->trained) add_job(p, (job){.claim = i, .design = d, .seed = s, .estimate = c->seconds});
            }
    }
    for (int i = 0; i < p->l->n; i++) {
        const wf_claim *c = p->l->item[i].claim;
        for (int s = 0; s < (int)c->seeds; s++) {
            bool missing = false; /* the designs of a repetition are timed together or not at all */
            for (int d = 0; d < c->n_design; d++) {
                const wf_cell *cell = wf_lab_cell(&p->l->item[i], d, s);
                missing |= cell->time_key && !cell->timed;
            }
            if (missing) add_job(p, (job){.claim = i, .seed = s, .timing = true, .estimate = TIMING_SECONDS});
        }
    }
    return WF_OK;
}

/* Whether a running job will give this one's cell its result, too. */
static bool is_computed(const pool *p, const job *j) {
    uint64_t key = cell_of(p, j, j->design)->key;
    for (int i = 0; i < p->n_worker; i++) {
        const job *o = p->worker[i].job;
        if (o && !o->timing && cell_of(p, o, o->design)->key == key) return true;
    }
    return false;
}

static job *next_job(pool *p) {
    for (int i = 0; i < p->n_job; i++) {
        job *j = &p->job[i];
        if (j->started || j->over) continue;
        if (!j->timing && cell_of(p, j, j->design)->trained) { /* another claim had the same cell */
            j->over = true;
            j->part = 1;
            continue;
        }
        if (j->timing) return p->running ? NULL : j; /* training stands first, so all of it is over */
        if (!is_computed(p, j)) return j;
    }
    return NULL;
}

/* ---- workers ---- */
static wf_status start(pool *p, job *j) {
    worker *w = p->worker;
    while (w->job) w++;
    int fd[2];
    if (pipe2(fd, O_CLOEXEC)) return wf_fail(WF_EIO, "pipe: %s", strerror(errno));
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        close(fd[0]);
        close(fd[1]);
        return wf_fail(WF_EIO, "fork: %s", strerror(errno));
    }
    if (pid == 0) {
        close(fd[0]);
        work(p, j, fd[1]);
        _exit(0);
    }
    close(fd[1]);
    *w = (worker){.pid = pid, .fd = fd[0], .job = j};
    j->started = true;
    if (!j->timing) cell_of(p, j, j->design)->state = WF_CELL_RUNNING;
    p->running++;
    return WF_OK;
}

static wf_status take_line(pool *p, worker *w, const char *s, size_t n) {
    if (n < 2) return WF_OK;
    if (*s == 'r' && wf_store_take(p->l, s + 2, n - 2)) return wf_store_append(p->l, s + 2, n - 2);
    if (*s == 'e') {
        wf_free(w->message);
        w->message = wf_strndup(s + 2, n - 2);
    }
    long long done, total;
    if (*s == 'p' && sscanf(s, "p %lld %lld", &done, &total) == 2 && total > 0) w->job->part = (double)done / (double)total;
    return WF_OK;
}

static wf_status take_lines(pool *p, worker *w) {
    size_t from = 0;
    wf_status s = WF_OK;
    while (s == WF_OK && from < w->text.n) {
        const char *line = w->text.s + from, *stop = memchr(line, '\n', w->text.n - from);
        if (!stop) break;
        s = take_line(p, w, line, (size_t)(stop - line));
        from += (size_t)(stop - line) + 1;
    }
    if (from > 0) {
        memmove(w->text.s, w->text.s + from, w->text.n - from);
        w->text.n -= from;
    }
    return s;
}

static void mark_failed(wf_cell *cell, const char *why) {
    if (cell->state == WF_CELL_DONE) return;
    cell->state = WF_CELL_FAILED;
    wf_free(cell->failure);
    cell->failure = wf_strdup(why);
}

static bool has_result(const pool *p, const job *j) {
    bool all = true;
    for (int d = 0; j->timing && d < p->l->item[j->claim].claim->n_design; d++)
        all &= cell_of(p, j, d)->timed || !cell_of(p, j, d)->time_key;
    return j->timing ? all : cell_of(p, j, j->design)->trained;
}

/* The worker's end of the pipe is closed: it has ended. */
static void finish(pool *p, worker *w) {
    int status = 0;
    while (waitpid(w->pid, &status, 0) < 0 && errno == EINTR) {}
    char why[64];
    snprintf(why, sizeof why, WIFSIGNALED(status) ? "the process was ended by signal %d" : "the process gave no result",
             WTERMSIG(status));
    job *j = w->job;
    if (!has_result(p, j) && wf_interrupted()) {
        if (!j->timing) cell_of(p, j, j->design)->state = WF_CELL_WAITING;
    } else if (!has_result(p, j)) {
        for (int d = 0; j->timing && d < p->l->item[j->claim].claim->n_design; d++)
            mark_failed(cell_of(p, j, d), w->message ? w->message : why);
        if (!j->timing) mark_failed(cell_of(p, j, j->design), w->message ? w->message : why);
    }
    j->over = true;
    j->part = 1;
    close(w->fd);
    wf_text_free(&w->text);
    wf_free(w->message);
    *w = (worker){.fd = -1};
    p->running--;
}

static wf_status listen_to(pool *p) {
    struct pollfd f[MAX_WORKERS];
    worker *of[MAX_WORKERS];
    int n = 0;
    for (int i = 0; i < p->n_worker; i++) {
        if (!p->worker[i].job) continue;
        f[n] = (struct pollfd){.fd = p->worker[i].fd, .events = POLLIN};
        of[n++] = &p->worker[i];
    }
    if (poll(f, (nfds_t)n, POLL_MS) < 0) return errno == EINTR ? WF_OK : wf_fail(WF_EIO, "poll: %s", strerror(errno));
    for (int i = 0; i < n; i++) {
        if (!f[i].revents) continue;
        char buf[4096];
        ssize_t got = read(f[i].fd, buf, sizeof buf);
        if (got < 0 && errno == EINTR) continue;
        if (got > 0) {
            wf_text_put(&of[i]->text, buf, (size_t)got);
            WF_TRY(take_lines(p, of[i]));
        } else {
            finish(p, of[i]);
        }
    }
    return WF_OK;
}

/* ---- the whole ---- */
static void report(pool *p) {
    double done = 0;
    const job *shown = NULL;
    for (int i = 0; i < p->n_job; i++) done += p->job[i].estimate * p->job[i].part;
    for (int i = 0; i < p->n_worker && !shown; i++) shown = p->worker[i].job;
    char note[256] = "";
    if (shown) {
        const wf_claim *c = p->l->item[shown->claim].claim;
        snprintf(note, sizeof note, "%s %s, seed %d", c->name, shown->timing ? "timing" : c->design[shown->design].name,
                 shown->seed + 1);
    }
    if (p->hooks && p->hooks->progress) p->hooks->progress(p->hooks->ctx, done, p->total, note);
    for (int i = 0; i < p->l->n; i++) {
        if (p->reported[i] || !wf_claim_finished(&p->l->item[i])) continue;
        p->reported[i] = true;
        if (p->hooks && p->hooks->finished) p->hooks->finished(p->hooks->ctx, &p->l->item[i]);
    }
}

static void stop_all(pool *p) {
    for (int i = 0; i < p->n_worker; i++)
        if (p->worker[i].job) kill(p->worker[i].pid, SIGTERM);
    while (p->running > 0)
        if (listen_to(p) != WF_OK) break;
}

wf_status wf_lab_go(wf_lab *l, int workers, const wf_lab_hooks *hooks) {
    pool p = {.l = l, .hooks = hooks, .n_worker = workers < 1 ? 1 : workers > MAX_WORKERS ? MAX_WORKERS : workers};
    wf_status s = make_jobs(&p);
    while (s == WF_OK) {
        report(&p);
        job *j;
        while (s == WF_OK && p.running < p.n_worker && !wf_interrupted() && (j = next_job(&p))) {
            s = start(&p, j);
            if (j->timing) break;
        }
        if (s != WF_OK || p.running == 0) break;
        s = listen_to(&p);
        if (wf_interrupted()) break;
    }
    stop_all(&p);
    if (s == WF_OK) report(&p);
    if (s == WF_OK && wf_interrupted()) s = wf_fail(WF_EINTERRUPTED, "stopped; the same command continues");
    wf_free(p.job);
    wf_free(p.reported);
    return s;
}
