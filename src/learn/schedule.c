/* schedule.c: the learning rate over the steps, as a factor of its peak: linear warm-up, then one of four shapes. */
#include "learn/inside.h"

#include <math.h>
#include <string.h>

const char *const wf_schedule_names[] = {"cosine", "linear", "constant", "wsd", NULL};

/* Step s of T with warm-up W: (s+1)/W while s < W. Then, with x from 0 to 1 over the rest and f = final_lr:
 * cosine f + (1-f)(1+cos(pi x))/2; linear 1 - (1-f)x; constant 1; wsd 1 until the last decay_part of the steps, then
 * linearly to f. The last step's factor is just above f: x reaches 1 after it. */
double wf_schedule(const wf_train_opt *o, int64_t step) {
    if (step < o->warmup) return (double)(step + 1) / (double)o->warmup;
    double f = o->final_lr, rest = (double)(o->steps - o->warmup);
    double x = rest > 0 ? (double)(step - o->warmup) / rest : 1;
    if (x > 1) x = 1;
    if (!strcmp(o->schedule, "cosine")) return f + (1 - f) * 0.5 * (1 + cos(3.14159265358979323846 * x));
    if (!strcmp(o->schedule, "linear")) return 1 - (1 - f) * x;
    if (!strcmp(o->schedule, "wsd")) {
        double decay = o->decay_part * (double)o->steps, from = (double)o->steps - decay;
        if (decay <= 0 || (double)step <= from) return 1;
        double y = ((double)step - from) / decay;
        return 1 - (1 - f) * (y > 1 ? 1 : y);
    }
    return 1;
}
