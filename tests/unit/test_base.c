/* test_base.c: errors, memory, text, random numbers against published vectors, permutations, threads, interrupts. */
#define _GNU_SOURCE
#include "check.h"

#include <math.h>
#include <omp.h>
#include <signal.h>
#include <sys/wait.h>

static void messages(void **state) {
    assert_int_equal(wf_fail(WF_EINVAL, "width %d", 7), WF_EINVAL);
    assert_string_equal(wf_message(), "width 7");
    assert_int_equal(wf_fail(WF_EIO, "again: %s", wf_message()), WF_EIO); /* its own message as an argument */
    assert_string_equal(wf_message(), "again: width 7");
    assert_int_equal(wf_fail_within(WF_EFORMAT, "file %s", "x"), WF_EFORMAT);
    assert_string_equal(wf_message(), "file x: again: width 7");
    char *big = wf_alloc(20001);
    memset(big, 'a', 20000);
    wf_fail(WF_EINVAL, "%s", big);
    assert_true(strlen(wf_message()) > 1000 && strlen(wf_message()) < 20000);
    wf_fail_within(WF_EINVAL, "%s", big);
    assert_string_equal(wf_message() + strlen(wf_message()) - 3, "...");
    wf_free(big);
    for (int s = WF_OK; s <= WF_ENONFINITE; s++) assert_string_not_equal(wf_status_name((wf_status)s), "unknown status");
}

static void messages_are_per_thread(void **state) {
    int wrong = 0;
#pragma omp parallel num_threads(4) reduction(+ : wrong)
    {
        int me = omp_get_thread_num();
        char expected[32];
        for (int i = 0; i < 1000; i++) {
            snprintf(expected, sizeof expected, "thread %d, %d", me, i);
            wf_fail(WF_EINVAL, "thread %d, %d", me, i);
            wrong += strcmp(wf_message(), expected) != 0;
        }
    }
    assert_int_equal(wrong, 0);
}

static bool all_zero(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (p[i]) return false;
    return true;
}

static void allocation(void **state) {
    const size_t sizes[] = {0, 1, 63, 4096, (5u << 20) + 3};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *p = wf_alloc(sizes[i]);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        assert_true(all_zero(p, sizes[i]));
        wf_free(p);
        char *m = wf_map_pages(sizes[i]);
        assert_non_null(m);
        assert_true(all_zero(m, sizes[i]));
        if (sizes[i]) m[sizes[i] - 1] = 1;
        wf_unmap_pages(m, sizes[i]);
    }
    char *p = wf_alloc(100);
    memset(p, 'x', 100);
    p = wf_grow(p, 100, 1000);
    assert_true(p[0] == 'x' && p[99] == 'x' && all_zero(p + 100, 900));
    p = wf_grow(p, 1000, 10);
    assert_int_equal(p[9], 'x');
    wf_free(p);
    wf_free(NULL);
    wf_unmap_pages(NULL, 10);
}

static void allocation_refuses(void **state) {
    assert_null(wf_alloc_array(SIZE_MAX / 2, 3));
    MESSAGE_HAS("out of memory");
    assert_null(wf_alloc(SIZE_MAX));
    assert_null(wf_map_pages(SIZE_MAX - 10));
    wf_arena *a = wf_arena_new();
    assert_null(wf_arena_alloc(a, SIZE_MAX - 3));
    assert_non_null(wf_arena_alloc(a, 8));
    wf_arena_free(a);
}

static void arena(void **state) {
    wf_arena *a = wf_arena_new();
    char *kept[500];
    for (int i = 0; i < 500; i++) {
        size_t n = i % 50 == 0 ? 100000 : (size_t)i % 97;
        kept[i] = wf_arena_alloc(a, n + 1);
        assert_int_equal((uintptr_t)kept[i] % 16, 0);
        assert_true(all_zero(kept[i], n + 1));
        memset(kept[i], i & 127, n);
    }
    for (int i = 0; i < 500; i++) {
        size_t n = i % 50 == 0 ? 100000 : (size_t)i % 97;
        for (size_t k = 0; k < n; k++) assert_int_equal(kept[i][k], i & 127);
    }
    assert_string_equal(wf_arena_strdup(a, "warp"), "warp");
    assert_string_equal(wf_arena_format(a, "%s-%d", "weft", 3), "weft-3");
    wf_arena_free(a);
    wf_arena_free(NULL);
}

static void texts(void **state) {
    wf_text t = {0};
    for (int i = 0; i < 1000; i++) wf_text_add(&t, "%d,", i);
    wf_text_put(&t, "a\0b", 3);
    assert_int_equal(t.n, 10 * 2 + 90 * 3 + 900 * 4 + 3);
    assert_int_equal(strlen(t.s), t.n - 2);
    assert_false(t.failed);
    wf_text_free(&t);
    assert_null(t.s);
    wf_text_put(&t, "", 0);
    assert_string_equal(t.s, "");
    wf_text_free(&t);
    char *s = wf_strndup("warp and weft", 4), *f = wf_format("%05d", 42);
    assert_string_equal(s, "warp");
    assert_string_equal(f, "00042");
    wf_free(s);
    wf_free(f);
}

/* Known answers that the authors publish with their code (Random123, kat_vectors, philox 4x32 10). */
static void philox_known_answers(void **state) {
    static const uint32_t v[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420,
         0x24126ea1},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        wf_philox(v[i] + 4, v[i], out);
        assert_memory_equal(out, v[i] + 6, sizeof out);
    }
}

static void random_streams(void **state) {
    wf_rng a = {7, 1, 0}, b = {7, 1, 500}, c = {7, 2, 0};
    uint32_t x[1000], same = 0;
    for (int i = 0; i < 1000; i++) x[i] = wf_rng_u32(&a);
    for (int i = 500; i < 1000; i++) assert_int_equal(wf_rng_u32(&b), x[i]); /* a stream can be entered anywhere */
    for (int i = 0; i < 1000; i++) same += wf_rng_u32(&c) == x[i];
    assert_true(same < 3);
}

static void random_moments(void **state) {
    enum { N = 200000 };
    wf_rng r = {1, 0, 0};
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0, u = 0, most = 0;
    for (int i = 0; i < N; i++) {
        double x = wf_rng_normal(&r), y = wf_rng_uniform(&r);
        assert_true(isfinite(x) && y >= 0 && y < 1);
        m1 += x / N, m2 += x * x / N, m3 += x * x * x / N, m4 += x * x * x * x / N, u += y / N;
        most = fmax(most, fabs(x));
    }
    assert_true(fabs(m1) < 0.01 && fabs(m2 - 1) < 0.015 && fabs(m3) < 0.03 && fabs(m4 - 3) < 0.1);
    assert_true(fabs(u - 0.5) < 0.003 && most > 4 && most < 6.5);
}

static void random_below(void **state) {
    wf_rng r = {3, 0, 0};
    int count[7] = {0};
    for (int i = 0; i < 70000; i++) count[wf_rng_below(&r, 7)]++;
    for (int i = 0; i < 7; i++) assert_in_range(count[i], 9600, 10400);
    for (int i = 0; i < 100; i++) assert_true(wf_rng_below(&r, ((uint64_t)1 << 63) + 1) <= (uint64_t)1 << 63);
    assert_int_equal(wf_rng_below(&r, 1), 0);
}

static void shuffles(void **state) {
    char seen[3000];
    for (uint64_t n = 1; n < 2100; n = n < 130 ? n + 1 : n * 2 - 3) {
        for (uint64_t seed = 0; seed < 3; seed++) {
            memset(seen, 0, sizeof seen);
            for (uint64_t i = 0; i < n; i++) {
                uint64_t j = wf_shuffle(i, n, seed);
                assert_true(j < n && !seen[j]);
                seen[j] = 1;
            }
        }
    }
    /* The place of 0 among 10 is even over seeds, and neighbours do not stay neighbours. */
    int at[10] = {0}, near = 0;
    for (uint64_t seed = 0; seed < 10000; seed++) at[wf_shuffle(0, 10, seed)]++;
    for (int i = 0; i < 10; i++) assert_in_range(at[i], 850, 1150);
    for (uint64_t i = 0; i + 1 < 100000; i++) {
        int64_t d = (int64_t)wf_shuffle(i, 100000, 5) - (int64_t)wf_shuffle(i + 1, 100000, 5);
        near += d >= -10 && d <= 10;
    }
    assert_true(near < 60); /* 20 expected */
}

/* Fixed for ever: data fingerprints and the order of samples are stored in checkpoints. */
static void stable_over_machines(void **state) {
    assert_true(wf_hash("abc", 3, 0) != wf_hash("abd", 3, 0));
    assert_true(wf_hash("abc", 3, 0) != wf_hash("abc", 3, 1));
    assert_true(wf_hash("abc", 3, 0) != wf_hash("abc\0", 4, 0));
    assert_true(wf_hash("", 0, 0) != wf_hash("\0", 1, 0));
    assert_true(wf_hash("weft", 4, 1) == 0x270123c8b55390cfu);
    assert_true(wf_hash("a longer text than eight bytes", 30, 2) == 0xb2469fd6da2bc098u);
    assert_true(wf_shuffle(12345, 1000003, 42) == 111195);
}

static int threads_of_child(const char *variable, const char *value) {
    pid_t child = fork();
    if (child == 0) {
        setenv(variable, value, 1);
        _exit(wf_threads());
    }
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    return WEXITSTATUS(how);
}

static void threads(void **state) {
    assert_int_equal(threads_of_child("WEFT_THREADS", "5"), 5);
    if (!getenv("WEFT_THREADS")) assert_int_equal(threads_of_child("OMP_NUM_THREADS", "6"), 6);
    int n = wf_threads();
    assert_true(n >= 1);
    wf_set_threads(3);
    assert_int_equal(wf_threads(), 3);
    assert_int_equal(omp_get_max_threads(), 3);
    wf_set_threads(0);
    assert_int_equal(wf_threads(), 1);
    wf_set_threads(n);
    double t = wf_seconds();
    usleep(2000);
    assert_true(wf_seconds() - t > 0.0015);
}

static void interrupts(void **state) {
    wf_catch_interrupt();
    assert_false(wf_interrupted());
    raise(SIGINT);
    assert_true(wf_interrupted());
    pid_t child = fork();
    if (child == 0) {
        raise(SIGTERM); /* the second one */
        _exit(0);
    }
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGTERM);
    wf_catch_interrupt();
    assert_false(wf_interrupted());
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
}

static void progress(void **state) {
    int old = dup(2), pipes[2];
    assert_int_equal(pipe(pipes), 0);
    dup2(pipes[1], 2);
    wf_progress p = {0};
    wf_progress_start(&p, "train", "step", 10);
    p.started -= 100;
    p.last -= 100;
    wf_progress_show(&p, 5, "loss 1.25");
    wf_progress_show(&p, 6, "too soon");
    wf_progress_end(&p, "");
    p.from = 4;
    wf_progress_end(&p, "resumed");
    p.quiet = true;
    wf_progress_end(&p, "silent");
    dup2(old, 2);
    close(pipes[1]);
    char s[1000] = {0};
    assert_true(read(pipes[0], s, sizeof s - 1) > 0);
    close(pipes[0]);
    close(old);
    assert_string_equal(s, "train: 5/10 steps, 0.05/s, 1m40s left, loss 1.25\ntrain: 6/10 steps, 0.06/s, took 1m40s\n"
                           "train: 6/10 steps, 0.02/s, took 1m40s, resumed\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages),
        cmocka_unit_test(messages_are_per_thread),
        cmocka_unit_test(allocation),
        cmocka_unit_test(allocation_refuses),
        cmocka_unit_test(arena),
        cmocka_unit_test(texts),
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(random_streams),
        cmocka_unit_test(random_moments),
        cmocka_unit_test(random_below),
        cmocka_unit_test(shuffles),
        cmocka_unit_test(stable_over_machines),
        cmocka_unit_test(threads),
        cmocka_unit_test(interrupts),
        cmocka_unit_test(progress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
