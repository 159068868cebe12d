/* test_data.c: tasks and batches: determinism, permutations, splits without overlap, resume, and what goes wrong with files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/data.h"

static char folder[64]; /* temporary, of this run */

static const char *in_folder(const char *name) {
    static char path[4][256];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static void put_file(const char *name, const void *p, size_t n) {
    char path[256];
    snprintf(path, sizeof path, "%s", in_folder(name));
    for (char *s = path + strlen(folder) + 1; (s = strchr(s, '/')); s++) {
        *s = 0;
        mkdir(path, 0700);
        *s = '/';
    }
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
}

static wf_task *open_yaml(const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    wf_value *v = wf_yaml_parse(text, strlen(text), "test.yaml");
    if (!v) fail_msg("%s", wf_message());
    wf_task *t = wf_task_open(v);
    wf_value_free(v); /* a task keeps its own copy */
    return t;
}

static wf_task *must_open(const char *yaml) {
    wf_task *t = open_yaml("%s", yaml);
    if (!t) fail_msg("%s: %s", yaml, wf_message());
    return t;
}

static void refused(const char *yaml, const char *word) {
    wf_task *t = open_yaml("%s", yaml);
    if (t) fail_msg("accepted: %s", yaml);
    if (!strstr(wf_message(), word)) fail_msg("message '%s' lacks '%s'", wf_message(), word);
}

static const char *yaml_at(const char *fmt, const char *path) {
    static char text[512];
    snprintf(text, sizeof text, fmt, path);
    return text;
}

/* ---- text and batches ---- */
static uint8_t letters[1009];

static void write_letters(void) {
    wf_rng r = {5, 0, 0};
    for (size_t i = 0; i < sizeof letters; i++) letters[i] = (uint8_t)wf_rng_below(&r, 256);
    put_file("letters.bin", letters, sizeof letters);
}

static void text_windows(void **state) {
    (void)state;
    wf_task *t = must_open(yaml_at("{name: text, path: %s, length: 10, valid: 0.2}", in_folder("letters.bin")));
    int64_t n_valid = 201, n_train = 1009 - n_valid; /* floor(1009 * 0.2) */
    assert_int_equal(t->count[WF_TRAIN], (n_train - 1) / 10);
    assert_int_equal(t->count[WF_VALID], (n_valid - 1) / 10);
    assert_int_equal(t->vocab, 256);
    wf_batch *b = wf_batch_new(t, 1);
    for (int split = 0; split < 2; split++)
        for (int64_t i = 0; i < t->count[split]; i++) {
            assert_int_equal(t->type->sample(t, (wf_split)split, i, 0, b->tensor), WF_OK);
            const int32_t *x = b->tensor[0]->data, *y = b->tensor[1]->data;
            const uint8_t *s = letters + (split ? n_train : 0) + i * 10;
            for (int k = 0; k < 10; k++) {
                assert_int_equal(x[k], s[k]);
                assert_int_equal(y[k], s[k + 1]);
                if (!split) assert_true(s + k + 1 < letters + n_train); /* not even a target of training is of the tail */
            }
        }
    wf_batch_free(b);
    wf_task_close(t);
    t = must_open(yaml_at("{name: text, path: %s, length: 10, valid: 0.2, stride: 1}", in_folder("letters.bin")));
    assert_int_equal(t->count[WF_TRAIN], n_train - 10);
    assert_int_equal(t->count[WF_VALID], (n_valid - 1) / 10);
    wf_task_close(t);
}

static void text_errors(void **state) {
    (void)state;
    refused("{name: text}", "path");
    refused(yaml_at("{name: text, path: %s}", in_folder("none.txt")), "none.txt");
    refused(yaml_at("{name: text, path: %s}", folder), "folder");
    refused(yaml_at("{name: text, path: %s, length: 2000}", in_folder("letters.bin")), "window");
    refused(yaml_at("{name: text, path: %s, length: 0}", in_folder("letters.bin")), "length");
    refused(yaml_at("{name: text, path: %s, lenght: 3}", in_folder("letters.bin")), "did you mean 'length'");
    put_file("empty.txt", "", 0);
    refused(yaml_at("{name: text, path: %s}", in_folder("empty.txt")), "0 bytes");
    refused("{name: textt}", "did you mean 'text'");
    refused("{path: x}", "needs a name");
    assert_null(wf_task_open(NULL));
}

/* A sample is known by its first bytes: windows of 16 random bytes differ. */
static uint64_t row_key(const wf_batch *b, int64_t r) {
    const wf_tensor *x = b->tensor[0];
    size_t row = x->bytes / (size_t)b->size;
    return wf_hash((const char *)x->data + (size_t)r * row, row, 0);
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Keys of one epoch (in batches of 7, whose length does not divide the epoch), in order; then sorted. */
static void epoch_keys(const wf_task *t, uint64_t seed, int64_t epoch, uint64_t *keys) {
    int64_t n = t->count[WF_TRAIN], B = 7;
    wf_batch *b = wf_batch_new(t, B);
    for (int64_t i = epoch * n; i < (epoch + 1) * n; i++) {
        assert_int_equal(wf_batch_fill(t, WF_TRAIN, seed, i / B, b, NULL), WF_OK);
        keys[i - epoch * n] = row_key(b, i % B);
    }
    wf_batch_free(b);
}

static void epochs_are_permutations(void **state) {
    (void)state;
    wf_task *t = must_open(yaml_at("{name: text, path: %s, length: 16, stride: 3, valid: 0}", in_folder("letters.bin")));
    int64_t n = t->count[WF_TRAIN];
    size_t bytes = (size_t)n * sizeof(uint64_t);
    uint64_t *a = malloc(bytes), *b = malloc(bytes), *c = malloc(bytes);
    epoch_keys(t, 1, 0, a);
    epoch_keys(t, 1, 0, b);
    assert_memory_equal(a, b, bytes);
    epoch_keys(t, 1, 1, b);
    epoch_keys(t, 2, 0, c);
    int64_t same_b = 0, same_c = 0;
    for (int64_t i = 0; i < n; i++) same_b += a[i] == b[i], same_c += a[i] == c[i];
    assert_true(same_b < n / 8 && same_c < n / 8); /* other epochs and seeds: other orders */
    qsort(a, (size_t)n, sizeof *a, by_value);
    qsort(b, (size_t)n, sizeof *b, by_value);
    qsort(c, (size_t)n, sizeof *c, by_value);
    for (int64_t i = 1; i < n; i++) assert_true(a[i] != a[i - 1]);
    assert_memory_equal(a, b, bytes);
    assert_memory_equal(a, c, bytes);
    free(a);
    free(b);
    free(c);
    wf_task_close(t);
}

static void resume_is_exact(void **state) {
    (void)state;
    wf_task *t = must_open(yaml_at("{name: text, path: %s, length: 16, valid: 0.3}", in_folder("letters.bin")));
    wf_batch *a = wf_batch_new(t, 5), *b = wf_batch_new(t, 5);
    for (int64_t k = 0; k <= 23; k++) assert_int_equal(wf_batch_fill(t, WF_TRAIN, 9, k, a, NULL), WF_OK);
    assert_int_equal(wf_batch_fill(t, WF_VALID, 9, 1, b, NULL), WF_OK); /* validation in between */
    assert_int_equal(wf_batch_fill(t, WF_TRAIN, 9, 23, b, NULL), WF_OK);
    for (int k = 0; k < 2; k++) assert_memory_equal(a->tensor[k]->data, b->tensor[k]->data, a->tensor[k]->bytes);
    assert_int_equal(wf_batch_fill(t, WF_TRAIN, 9, -1, b, NULL), WF_EINVAL);
    assert_int_equal(wf_batch_fill(t, WF_TRAIN, 9, INT64_MAX, b, NULL), WF_EINVAL);
    wf_batch_free(a);
    wf_batch_free(b);
    wf_task_close(t);
}

static void validation_covers_once(void **state) {
    (void)state;
    wf_task *t = must_open(yaml_at("{name: text, path: %s, length: 16, valid: 0.5}", in_folder("letters.bin")));
    int64_t n = t->count[WF_VALID], B = 4, fresh, total = 0;
    uint64_t keys[64];
    assert_true(n > B && n % B && n < 60);
    wf_batch *b = wf_batch_new(t, B);
    for (int64_t k = 0; k * B < n; k++) {
        assert_int_equal(wf_batch_fill(t, WF_VALID, 77, k, b, &fresh), WF_OK); /* the seed does not matter */
        for (int64_t r = 0; r < fresh; r++) keys[total++] = row_key(b, r);
    }
    assert_int_equal(total, n);
    assert_int_equal(wf_batch_fill(t, WF_VALID, 0, n, b, &fresh), WF_OK); /* past the end: wraps, nothing new */
    assert_int_equal(fresh, 0);
    qsort(keys, (size_t)n, sizeof *keys, by_value);
    for (int64_t i = 1; i < n; i++) assert_true(keys[i] != keys[i - 1]);
    wf_batch_free(b);
    wf_task_close(t);
}

static void batches_for_any_threads(void **state) {
    (void)state;
    wf_task *t = must_open("{name: associative-recall, length: 512, pairs: 8}");
    wf_batch *a = wf_batch_new(t, 32), *b = wf_batch_new(t, 32); /* large enough to be filled by several threads */
    int before = wf_threads();
    wf_set_threads(1);
    assert_int_equal(wf_batch_fill(t, WF_TRAIN, 3, 4, a, NULL), WF_OK);
    wf_set_threads(3);
    assert_int_equal(wf_batch_fill(t, WF_TRAIN, 3, 4, b, NULL), WF_OK);
    wf_set_threads(before);
    for (int k = 0; k < 2; k++) assert_memory_equal(a->tensor[k]->data, b->tensor[k]->data, a->tensor[k]->bytes);
    wf_batch_free(a);
    wf_batch_free(b);
    wf_task_close(t);
}

static void fingerprints(void **state) {
    (void)state;
    wf_task *a = must_open(yaml_at("{name: text, path: %s, length: 16}", in_folder("letters.bin")));
    wf_task *b = must_open(yaml_at("{name: text, path: %s, length: 16}", in_folder("letters.bin")));
    assert_true(a->fingerprint == b->fingerprint);
    wf_task_close(b);
    letters[500] ^= 1;
    put_file("letters.bin", letters, sizeof letters);
    b = must_open(yaml_at("{name: text, path: %s, length: 16}", in_folder("letters.bin")));
    assert_true(a->fingerprint != b->fingerprint);
    wf_task_close(a);
    wf_task_close(b);
    a = must_open("{name: selective-copy, length: 64, seed: 1}");
    b = must_open("{name: selective-copy, length: 64, seed: 2}");
    assert_true(a->fingerprint != b->fingerprint);
    wf_task_close(a);
    wf_task_close(b);
}

/* ---- wordnet ---- */
static void put_wordnet(int glosses) {
    static const char *const part[] = {"noun", "verb", "adj", "adv"};
    for (int p = 0; p < 4; p++) {
        wf_text t = {0};
        wf_text_add(&t, "  1 This software and database | is a licence line  \n");
        for (int i = 0; i < glosses; i++)
            wf_text_add(&t, "%08d 03 n 02 word_%d 0 other 1 001 @ 00000001 n 0000 | gloss %d of %s; \"use %d\"  \n", i, i, i,
                        p == 1 ? "noun" : part[p], i); /* verbs repeat the nouns' glosses */
        char name[32];
        snprintf(name, sizeof name, "wn/data.%s", part[p]);
        put_file(name, t.s, t.n);
        wf_text_free(&t);
    }
}

/* All lines of a split, from windows of one byte: window i holds byte i. */
static char *split_text(const wf_task *t, wf_split split) {
    int64_t n = t->count[split];
    char *s = malloc((size_t)n + 1);
    wf_batch *b = wf_batch_new(t, 1);
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(t->type->sample(t, split, i, 0, b->tensor), WF_OK);
        s[i] = (char)((int32_t *)b->tensor[0]->data)[0];
    }
    s[n] = 0;
    wf_batch_free(b);
    return s;
}

static void wordnet_splits(void **state) {
    (void)state;
    put_wordnet(200);
    wf_task *t = must_open(yaml_at("{name: wordnet, path: %s, length: 1, valid: 0.25}", in_folder("wn")));
    char *train = split_text(t, WF_TRAIN), *valid = split_text(t, WF_VALID);
    int lines = 0, both = 0;
    assert_null(strstr(train, "licence"));
    for (char *s = strtok(valid, "\n"); s && strchr(s, '"'); s = strtok(NULL, "\n")) {
        char line[128];
        snprintf(line, sizeof line, "\n%s\n", s);
        both += strstr(train, line) != NULL;
        lines++;
    }
    assert_int_equal(both, 0);
    assert_in_range(lines, 120, 280); /* a quarter of 800, and twins go together */
    free(train);
    free(valid);
    wf_task_close(t);
    t = must_open(yaml_at("{name: wordnet, path: %s, length: 1, valid: 0, entries: dictionary}", in_folder("wn")));
    train = split_text(t, WF_TRAIN);
    assert_non_null(strstr(train, "word 7, other (adj): gloss 7 of adj; \"use 7\""));
    free(train);
    wf_task_close(t);
}

static void wordnet_errors(void **state) {
    (void)state;
    refused(yaml_at("{name: wordnet, path: %s}", in_folder("nowhere")), "wordnet-base");
    put_wordnet(3);
    static const char bad[] = "  1 licence\n00000001 00 a 01 bad 0 000\n";
    put_file("wn/data.adj", bad, strlen(bad));
    refused(yaml_at("{name: wordnet, path: %s, length: 1}", in_folder("wn")), "data.adj:2");
    put_wordnet(3);
    refused(yaml_at("{name: wordnet, path: %s, length: 100000}", in_folder("wn")), "window");
}

/* ---- fashion-mnist ---- */
static void put_idx(const char *name, int n, int side, int (*value)(int)) {
    wf_text t = {0};
    int rank = side ? 3 : 1, count = side ? n * side * side : n;
    int dims[3] = {n, side, side};
    wf_text_put(&t, (char[]){0, 0, 8, (char)rank}, 4);
    for (int k = 0; k < rank; k++) wf_text_put(&t, (char[]){0, 0, (char)(dims[k] >> 8), (char)dims[k]}, 4);
    for (int i = 0; i < count; i++) wf_text_put(&t, (char[]){(char)value(i)}, 1);
    put_file(name, t.s, t.n);
    wf_text_free(&t);
}
static int pixel(int i) {
    return i * 7 % 256;
}
static int label(int i) {
    return i % 10;
}
static int bad_label(int i) {
    return i == 3 ? 10 : 1;
}

static void fashion(void **state) {
    (void)state;
    put_idx("fm/train-images-idx3-ubyte", 12, 5, pixel);
    put_idx("fm/train-labels-idx1-ubyte", 12, 0, label);
    put_idx("fm/t10k-images-idx3-ubyte", 4, 5, pixel);
    put_idx("fm/t10k-labels-idx1-ubyte", 4, 0, label);
    wf_task *t = must_open(yaml_at("{name: fashion-mnist, path: %s, valid: 3}", in_folder("fm")));
    assert_int_equal(t->count[WF_TRAIN], 12);
    assert_int_equal(t->count[WF_VALID], 3);
    assert_int_equal(t->height, 5);
    assert_string_equal(t->class_names[9], "ankle boot");
    wf_batch *b = wf_batch_new(t, 2);
    assert_int_equal(b->tensor[0]->shape.rank, 4);
    assert_int_equal(t->type->sample(t, WF_TRAIN, 11, 1, b->tensor), WF_OK);
    for (int i = 0; i < 25; i++)
        assert_float_equal(((float *)b->tensor[0]->data)[25 + i], (pixel(11 * 25 + i) / 255.0 - 0.2860) / 0.3530, 1e-5);
    assert_int_equal(((int32_t *)b->tensor[1]->data)[1], 1);
    wf_batch_free(b);
    wf_task_close(t);

    refused(yaml_at("{name: fashion-mnist, path: %s}", in_folder("nowhere")), "dataset-fashion-mnist");
    put_idx("fm/t10k-labels-idx1-ubyte", 5, 0, label);
    refused(yaml_at("{name: fashion-mnist, path: %s}", in_folder("fm")), "4 pictures and 5 labels");
    put_idx("fm/t10k-labels-idx1-ubyte", 4, 0, bad_label);
    refused(yaml_at("{name: fashion-mnist, path: %s}", in_folder("fm")), "label 10");
    put_file("fm/t10k-labels-idx1-ubyte", "\0\0\x08\x01\0\0\0\x04\x01", 9);
    refused(yaml_at("{name: fashion-mnist, path: %s}", in_folder("fm")), "t10k-labels");
    put_file("fm/t10k-labels-idx1-ubyte.gz", "\x1f\x8b junk", 7);
    refused(yaml_at("{name: fashion-mnist, path: %s}", in_folder("fm")), "t10k-labels-idx1-ubyte.gz");
}

/* ---- pictures ---- */
static void put_png(const char *name, int h, int w, int c, int value) {
    uint8_t *p = malloc((size_t)(h * w * c));
    for (int i = 0; i < h * w * c; i++) p[i] = (uint8_t)(value < 0 ? (i / c % w) * 16 : value);
    put_file(name, "", 0); /* makes the folder */
    if (wf_png_save(in_folder(name), p, h, w, c) != WF_OK) fail_msg("%s", wf_message());
    free(p);
}

static void pictures(void **state) {
    (void)state;
    char name[64];
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < 20; i++) {
            snprintf(name, sizeof name, "pic/class%c/p%02d.png", "bac"[k], i);
            put_png(name, 8 + k, 8 + i, 3, 10 * k + i);
        }
    wf_task *t = must_open(yaml_at("{name: pictures, path: %s, size: 6, valid: 0.3}", in_folder("pic")));
    assert_int_equal(t->count[0] + t->count[1], 60);
    assert_in_range(t->count[1], 8, 30);
    assert_int_equal(t->classes, 3);
    assert_string_equal(t->class_names[0], "classa");
    wf_batch *b = wf_batch_new(t, 1);
    int seen[60] = {0};
    for (int split = 0; split < 2; split++)
        for (int64_t i = 0; i < t->count[split]; i++) {
            t->type->sample(t, (wf_split)split, i, 0, b->tensor);
            float x = ((float *)b->tensor[0]->data)[17];
            int level = (int)lrintf((x + 1) * 127.5f), class = ((int32_t *)b->tensor[1]->data)[0];
            int k = class == 0 ? 1 : class == 1 ? 0 : 2; /* classa was written second */
            assert_in_range(level - 10 * k, 0, 19);
            seen[k * 20 + level - 10 * k]++;
        }
    for (int i = 0; i < 60; i++) assert_int_equal(seen[i], 1); /* every picture in exactly one split */
    wf_batch_free(b);
    wf_task_close(t);
}

static void pictures_resize(void **state) {
    (void)state;
    put_png("ramp/only/a.png", 16, 16, 1, -1); /* columns 0, 16, .. 240 */
    put_png("ramp/only/b.png", 16, 16, 1, -1);
    wf_task *t = must_open(yaml_at("{name: pictures, path: %s, size: 4, channels: 1, valid: 0}", in_folder("ramp")));
    wf_batch *b = wf_batch_new(t, 1);
    t->type->sample(t, WF_TRAIN, 0, 0, b->tensor);
    for (int x = 0; x < 4; x++) /* mean of four columns */
        assert_float_equal(((float *)b->tensor[0]->data)[x], (64 * x + 24) / 127.5 - 1, 1e-5);
    wf_batch_free(b);
    wf_task_close(t);
    t = must_open(yaml_at("{name: pictures, path: %s, size: 32, channels: 1, valid: 0}", in_folder("ramp")));
    b = wf_batch_new(t, 1);
    t->type->sample(t, WF_TRAIN, 0, 0, b->tensor);
    const float *x = b->tensor[0]->data;
    assert_float_equal(x[0], -1, 1e-5); /* clamped at the border */
    for (int i = 1; i < 31; i++)        /* centres at (i + 1/2) / 2 - 1/2 */
        assert_float_equal(x[i], 16 * ((i + 0.5) / 2 - 0.5) / 127.5 - 1, 1e-5);
    wf_batch_free(b);
    wf_task_close(t);
}

static void pictures_errors(void **state) {
    (void)state;
    mkdir(in_folder("void"), 0700);
    refused(yaml_at("{name: pictures, path: %s}", in_folder("void")), "0 sub-folders");
    mkdir(in_folder("void/class"), 0700);
    refused(yaml_at("{name: pictures, path: %s}", in_folder("void")), "no .png file");
    refused(yaml_at("{name: pictures, path: %s}", in_folder("nowhere")), "nowhere");
    for (int i = 0; i < 9; i++) {
        char name[64];
        snprintf(name, sizeof name, "broken/c/p%d.png", i);
        if (i % 2)
            put_file(name, "\x89PNG\r\n\x1a\n junk", 13);
        else
            put_png(name, 4, 4, 3, i);
    }
    refused(yaml_at("{name: pictures, path: %s, valid: 0}", in_folder("broken")), "4 of 9 pictures");
    assert_non_null(strstr(wf_message(), "p1.png"));
    assert_non_null(strstr(wf_message(), "p7.png"));
}

/* ---- synthetic ---- */
static void selective_copy(void **state) {
    (void)state;
    enum { L = 40, M = 6, V = 9 };
    wf_task *t = must_open("{name: selective-copy, length: 40, memorise: 6, vocab: 9}");
    wf_batch *b = wf_batch_new(t, 64);
    assert_int_equal(wf_batch_fill(t, WF_TRAIN, 0, 0, b, NULL), WF_OK);
    int used[L] = {0};
    for (int r = 0; r < 64; r++) {
        const int32_t *x = (int32_t *)b->tensor[0]->data + r * L, *y = (int32_t *)b->tensor[1]->data + r * L;
        int k = 0;
        for (int i = 0; i < L - M; i++) {
            assert_true(y[i] < 0 && (x[i] == 0 || (x[i] >= 2 && x[i] < V)));
            if (!x[i]) continue;
            used[i]++;
            assert_true(k < M);
            assert_int_equal(y[L - M + k++], x[i]);
        }
        assert_int_equal(k, M);
        for (int i = L - M; i < L; i++) assert_int_equal(x[i], 1);
    }
    for (int i = 0; i < L - M; i++) assert_in_range(used[i], 1, 30); /* 64 * 6 / 34 = 11 expected */
    wf_batch_free(b);
    wf_task_close(t);
    refused("{name: selective-copy, length: 20, memorise: 11}", "memorise");
}

static void associative_recall(void **state) {
    (void)state;
    enum { L = 64, P = 8, V = 33, H = 16 };
    wf_task *t = must_open("{name: associative-recall, length: 64, pairs: 8, vocab: 33}");
    wf_batch *b = wf_batch_new(t, 32);
    assert_int_equal(wf_batch_fill(t, WF_VALID, 0, 2, b, NULL), WF_OK);
    for (int r = 0; r < 32; r++) {
        const int32_t *x = (int32_t *)b->tensor[0]->data + r * L, *y = (int32_t *)b->tensor[1]->data + r * L;
        int value_of[V] = {0}, scored = 0;
        for (int k = 0; k < P; k++) {
            assert_in_range(x[2 * k], 1, H);
            assert_in_range(x[2 * k + 1], H + 1, 2 * H);
            assert_int_equal(value_of[x[2 * k]], 0); /* keys differ */
            value_of[x[2 * k]] = x[2 * k + 1];
            assert_true(y[2 * k] < 0 && y[2 * k + 1] < 0);
        }
        for (int i = 2 * P; i < L; i++) {
            if (y[i] < 0) continue;
            assert_in_range(x[i], 1, H);
            assert_int_equal(y[i], value_of[x[i]]);
            assert_int_equal(x[i + 1], y[i]); /* the answer follows, as in text */
            scored++;
        }
        assert_int_equal(scored, P);
    }
    wf_batch_free(b);
    wf_task_close(t);
    refused("{name: associative-recall, length: 64, pairs: 17, vocab: 100}", "pairs");
    refused("{name: associative-recall, length: 256, pairs: 17, vocab: 30}", "vocab");
}

static void synthetic_splits_differ(void **state) {
    (void)state;
    wf_task *t = must_open("{name: associative-recall, length: 64, pairs: 8}");
    wf_batch *a = wf_batch_new(t, 1), *b = wf_batch_new(t, 1);
    for (int64_t i = 0; i < 50; i++) {
        t->type->sample(t, WF_TRAIN, i, 0, a->tensor);
        t->type->sample(t, WF_VALID, i, 0, b->tensor);
        assert_memory_not_equal(a->tensor[0]->data, b->tensor[0]->data, a->tensor[0]->bytes);
        t->type->sample(t, WF_TRAIN, i + 1, 0, b->tensor);
        assert_memory_not_equal(a->tensor[0]->data, b->tensor[0]->data, a->tensor[0]->bytes);
    }
    wf_batch_free(a);
    wf_batch_free(b);
    wf_task_close(t);
}

static void tables_are_complete(void **state) {
    (void)state;
    int n;
    const wf_task_type *const *types = wf_task_types(&n);
    assert_int_equal(n, 7);
    for (int k = 0; k < n; k++) {
        assert_true(types[k]->title && types[k]->help && types[k]->open && types[k]->sample);
        for (const wf_option *o = types[k]->options; o->name; o++) {
            if (!o->help || !*o->help) fail_msg("%s.%s has no help", types[k]->name, o->name);
            assert_true(o->offset < types[k]->opt_size);
        }
    }
}

static int make_folder(void **state) {
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/weft-data-XXXXXX", base && strlen(base) < 32 ? base : P_tmpdir);
    if (!mkdtemp(folder)) return -1;
    write_letters();
    return 0;
}

static int drop_folder(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_windows),
        cmocka_unit_test(text_errors),
        cmocka_unit_test(epochs_are_permutations),
        cmocka_unit_test(resume_is_exact),
        cmocka_unit_test(validation_covers_once),
        cmocka_unit_test(batches_for_any_threads),
        cmocka_unit_test(fingerprints),
        cmocka_unit_test(wordnet_splits),
        cmocka_unit_test(wordnet_errors),
        cmocka_unit_test(fashion),
        cmocka_unit_test(pictures),
        cmocka_unit_test(pictures_resize),
        cmocka_unit_test(pictures_errors),
        cmocka_unit_test(selective_copy),
        cmocka_unit_test(associative_recall),
        cmocka_unit_test(synthetic_splits_differ),
        cmocka_unit_test(tables_are_complete),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
