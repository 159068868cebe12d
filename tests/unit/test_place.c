/* test_place.c: the two optimisations behind a plan's memory: minimum cuts (what is kept) and packing (where it lies). */
#include "check.h"

#include "graph/mincut.h"
#include "graph/planned.h"

#define UNUSED __attribute__((unused))

/* ---- minimum cut ---- */

/* On small random networks: the value of the cut against all cuts, and no other minimum cut is closer to the sink. */
static void cuts_are_minimal(void **state UNUSED) {
    enum { N = 9, EDGES = 22 };
    wf_rng r = {5, 2, 0};
    for (int round = 0; round < 60; round++) {
        int from[EDGES], to[EDGES];
        int64_t room[EDGES], best = INT64_MAX, value[1 << (N - 2)], mine = 0;
        bool side[N];
        wf_flow *f = wf_flow_new(N);
        for (int e = 0; e < EDGES; e++) {
            from[e] = (int)wf_rng_below(&r, N), to[e] = (int)wf_rng_below(&r, N), room[e] = (int64_t)wf_rng_below(&r, 9);
            wf_flow_edge(f, from[e], to[e], room[e]);
        }
        MUST(wf_flow_cut(f, 0, 1, side));
        wf_flow_free(f);
        assert_true(!side[0] && side[1]);
        for (int e = 0; e < EDGES; e++) mine += !side[from[e]] && side[to[e]] ? room[e] : 0;
        for (int c = 0; c < 1 << (N - 2); c++) { /* bit v - 2: vertex v is on the sink's side */
            value[c] = 0;
            for (int e = 0; e < EDGES; e++) {
                bool a = from[e] == 1 || (from[e] > 1 && c >> (from[e] - 2) & 1),
                     b = to[e] == 1 || (to[e] > 1 && c >> (to[e] - 2) & 1);
                value[c] += !a && b ? room[e] : 0;
            }
            if (value[c] < best) best = value[c];
        }
        assert_int_equal(mine, best);
        for (int c = 0; c < 1 << (N - 2); c++)
            for (int v = 2; value[c] == best && v < N; v++) assert_true(!side[v] || c >> (v - 2) & 1);
    }
}

/* ---- packing ---- */

static void packing_is_valid_and_tight(void **state UNUSED) {
    enum { N = 600, STEPS = 400 };
    wf_buffer *b = wf_alloc_array(N, sizeof *b);
    wf_rng r = {3, 1, 0};
    for (int round = 0; round < 4; round++) {
        size_t bytes, live;
        for (int i = 0; i < N; i++) {
            int first = (int)wf_rng_below(&r, STEPS), life = (int)wf_rng_below(&r, round == 0 ? 5 : 80);
            if (round == 2 && i < N / 2)
                first = i * STEPS / N, life = 2 * (STEPS / 2 - first); /* kept from forward to backward */
            int last = first + (life < 0 ? 0 : life);
            b[i] = (wf_buffer){.bytes = 64 * (1 + wf_rng_below(&r, 40)), .first = first, .last = last < STEPS ? last : STEPS};
        }
        MUST(wf_place_offsets(b, N, STEPS, &bytes, &live));
        size_t top = 0;
        for (int i = 0; i < N; i++) {
            top = b[i].offset + b[i].bytes > top ? b[i].offset + b[i].bytes : top;
            assert_int_equal(b[i].offset % 64, 0);
            for (int k = 0; k < i; k++) {
                bool time = b[i].first <= b[k].last && b[k].first <= b[i].last;
                bool space = b[i].offset < b[k].offset + b[k].bytes && b[k].offset < b[i].offset + b[i].bytes;
                assert_false(time && space);
            }
        }
        assert_int_equal(top, bytes);
        if (bytes > live + live / 10) fail_msg("round %d: %zu bytes, %zu are alive", round, bytes, live);
    }
    wf_free(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_are_minimal),
        cmocka_unit_test(packing_is_valid_and_tight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
