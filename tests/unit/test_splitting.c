/* test_splitting.c: orders of accuracy of the two splitting schemes, and the matrix exponential they are measured with. */
#include "check.h"

#include "check/splitting.h"

#include <math.h>
#include <string.h>

/* ---- splitting orders, point 4 of system 46 ---- */

static double error_of(const wf_field *F, const wf_field *G, wf_split_scheme scheme, wf_flow_kind kind, int64_t steps,
                       const double *x0) {
    int64_t n = F->n;
    double x[64], y[64], e = 0;
    memcpy(x, x0, sizeof *x * (size_t)n);
    memcpy(y, x0, sizeof *y * (size_t)n);
    MUST(wf_split_reference(F, G, 1, y));
    MUST(wf_split_solve(F, G, scheme, kind, 1, steps, x));
    for (int64_t i = 0; i < n; i++) e += (x[i] - y[i]) * (x[i] - y[i]);
    return sqrt(e);
}

static void orders_of(const wf_field *F, const wf_field *G, const double *x0) {
    double strang =
        error_of(F, G, WF_SPLIT_STRANG, WF_FLOW_EXACT, 16, x0) / error_of(F, G, WF_SPLIT_STRANG, WF_FLOW_EXACT, 32, x0);
    double lie = error_of(F, G, WF_SPLIT_LIE_TROTTER, WF_FLOW_EXACT, 16, x0) /
                 error_of(F, G, WF_SPLIT_LIE_TROTTER, WF_FLOW_EXACT, 32, x0);
    double euler[2];
    for (int k = 0; k < 2; k++) {
        wf_split_scheme s = k ? WF_SPLIT_STRANG : WF_SPLIT_LIE_TROTTER;
        euler[k] = error_of(F, G, s, WF_FLOW_EULER, 16, x0) / error_of(F, G, s, WF_FLOW_EULER, 32, x0);
    }
    if (!(strang > 3.8 && strang < 4.1 && lie > 1.9 && lie < 2.1))
        fail_msg("exact flows: Strang %g, Lie-Trotter %g", strang, lie);
    if (!(euler[0] > 1.7 && euler[0] < 2.1 && euler[1] > 1.7 && euler[1] < 2.1)) fail_msg("Euler: %g, %g", euler[0], euler[1]);
}

static void splitting_has_the_orders_it_should(void **state) {
    wf_rng r = {11, 0, 0};
    for (int trial = 0; trial < 3; trial++) { /* linear pairs */
        double A[25], B[25], x[5];
        for (int i = 0; i < 25; i++) A[i] = wf_rng_normal(&r) / sqrt(5), B[i] = wf_rng_normal(&r) / sqrt(5);
        for (int i = 0; i < 5; i++) x[i] = wf_rng_normal(&r);
        orders_of(&(wf_field){5, A, NULL, NULL}, &(wf_field){5, B, NULL, NULL}, x);
    }
    for (uint64_t seed = 1; seed <= 3; seed++) { /* attention between particles and a tanh network */
        wf_particles p;
        double x[20];
        MUST(wf_particles_make(&p, 5, 4, seed));
        for (int i = 0; i < 20; i++) x[i] = wf_rng_normal(&r);
        orders_of(&p.F, &p.G, x);
        wf_particles_free(&p);
    }
}

static void exponentials_are_exact(void **state) {
    double turn[4] = {0, -1, 1, 0}, e[4], zero[4] = {0};
    MUST(wf_matrix_exponential(turn, 2, 30, e));
    assert_true(fabs(e[0] - cos(30)) < 1e-12 && fabs(e[2] - sin(30)) < 1e-12);
    MUST(wf_matrix_exponential(zero, 2, 1, e));
    assert_true(e[0] == 1 && e[1] == 0);
    double huge[1] = {1e9};
    MUST_FAIL(wf_matrix_exponential(huge, 1, 1, e), WF_EINVAL, "too large");
    wf_particles p;
    MUST_FAIL(wf_particles_make(&p, 0, 4, 1), WF_EINVAL, "particles");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splitting_has_the_orders_it_should),
        cmocka_unit_test(exponentials_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
