/* pictures.c: task `pictures`: a folder of PNG files, one sub-folder a class, brought to one square size and kept in memory.
 *
 * Classes are the sub-folders in byte order of their names; a picture's split is decided by the hash of its path within the
 * folder and `split_seed`, so that adding pictures moves no other one. Pixels are shown as x / 127.5 - 1. Pictures that cannot
 * be read are collected, and the task is refused with the list of the first few.
 */
#include "data/tasks.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

typedef struct pictures_options {
    const char *path, *fit;
    int64_t size, channels, split_seed;
    double valid;
} pictures_options;

static const wf_option options[] = {
    {"path", WF_OPT_TEXT, offsetof(pictures_options, path), NULL, 0, 0, NULL,
     "folder with one sub-folder of PNG files a class"},
    {"size", WF_OPT_INT, offsetof(pictures_options, size), "32", 4, 1024, NULL,
     "height and width that pictures are brought to"},
    {"channels", WF_OPT_INT, offsetof(pictures_options, channels), "3", 1, 3, NULL, "3: colour, 1: grey"},
    {"fit", WF_OPT_CHOICE, offsetof(pictures_options, fit), "crop", 0, 0, "crop|stretch",
     "crop: the largest centred square; stretch: the whole picture"},
    {"valid", WF_OPT_REAL, offsetof(pictures_options, valid), "0.1", 0, 0.9, NULL, "part of the pictures kept for validation"},
    {"split_seed", WF_OPT_INT, offsetof(pictures_options, split_seed), "0", 0, 0, NULL, "another seed is another split"},
    WF_OPT_END};

enum { MAX_CLASSES = 256, SHOWN_FAILURES = 5 };

typedef struct picture {
    char *name; /* "class/file.png" */
    int label;
    wf_split split;
    char *error;
} picture;

typedef struct listing {
    char **classes;
    int n_classes;
    picture *item;
    int64_t n, cap;
} listing;

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted names in a folder: sub-folders, or files that end in .png. Hidden ones are left out. */
static wf_status list_names(const char *folder, bool folders, char ***names, int64_t *n) {
    DIR *d = opendir(folder);
    int64_t cap = 0;
    *names = NULL;
    *n = 0;
    if (!d) return wf_fail(errno == ENOENT ? WF_ENOTFOUND : WF_EIO, "%s: cannot be listed: %s", folder, strerror(errno));
    wf_status s = WF_OK;
    for (struct dirent *e; s == WF_OK && (e = readdir(d));) {
        struct stat st;
        size_t len = strlen(e->d_name);
        if (e->d_name[0] == '.' || fstatat(dirfd(d), e->d_name, &st, 0) != 0) continue;
        bool png = len > 4 && strcasecmp(e->d_name + len - 4, ".png") == 0;
        if (folders ? !S_ISDIR(st.st_mode) : !(S_ISREG(st.st_mode) && png)) continue;
        if (*n == cap) {
            char **p = wf_grow(*names, (size_t)cap * sizeof *p, (size_t)(cap + 256) * sizeof *p);
            if (!p)
                s = WF_ENOMEM;
            else
                *names = p, cap += 256;
        }
        if (s == WF_OK && !((*names)[*n] = wf_strdup(e->d_name))) s = WF_ENOMEM;
        if (s == WF_OK) (*n)++;
    }
    closedir(d);
    if (*n) qsort(*names, (size_t)*n, sizeof **names, by_text);
    return s;
}

static void free_names(char **names, int64_t n) {
    for (int64_t k = 0; k < n; k++) wf_free(names[k]);
    wf_free(names);
}

static void free_listing(listing *l) {
    for (int64_t i = 0; i < l->n; i++) {
        wf_free(l->item[i].name);
        wf_free(l->item[i].error);
    }
    wf_free(l->item);
    free_names(l->classes, l->n_classes);
}

static wf_status add_class(wf_task *t, listing *l, const char *folder, int label) {
    const pictures_options *o = t->opt;
    char **files, *sub = wf_format("%s/%s", folder, l->classes[label]);
    int64_t n;
    if (!sub) return WF_ENOMEM;
    wf_status s = list_names(sub, false, &files, &n);
    if (s == WF_OK && n == 0)
        s = wf_value_fail(t->where, WF_EINVAL, "task.pictures: no .png file in %s: every sub-folder is a class", sub);
    if (s == WF_OK && l->n + n > l->cap) {
        picture *p = wf_grow(l->item, (size_t)l->cap * sizeof *p, (size_t)(2 * l->cap + n) * sizeof *p);
        if (!p)
            s = WF_ENOMEM;
        else
            l->item = p, l->cap = 2 * l->cap + n;
    }
    for (int64_t k = 0; s == WF_OK && k < n; k++) {
        char *name = wf_format("%s/%s", l->classes[label], files[k]);
        if (!name) {
            s = WF_ENOMEM;
            break;
        }
        bool valid = (double)(wf_hash(name, strlen(name), (uint64_t)o->split_seed) >> 11) * 0x1p-53 < o->valid;
        l->item[l->n++] = (picture){name, label, valid ? WF_VALID : WF_TRAIN, NULL};
    }
    free_names(files, n);
    wf_free(sub);
    return s;
}

static wf_status list_pictures(wf_task *t, const char *folder, listing *l) {
    int64_t n = 0;
    wf_status s = list_names(folder, true, &l->classes, &n);
    l->n_classes = (int)n;
    if (s != WF_OK) return wf_value_fail(t->where, s, "task.pictures: %s", wf_message());
    if (n < 1 || n > MAX_CLASSES)
        return wf_value_fail(t->where, WF_EINVAL, "task.pictures: %s has %lld sub-folders; 1 to %d are needed, one a class",
                             folder, (long long)n, MAX_CLASSES);
    for (int k = 0; k < l->n_classes; k++) WF_TRY(add_class(t, l, folder, k));
    for (int64_t i = 0; i < l->n; i++) t->count[l->item[i].split]++;
    return WF_OK;
}

static wf_status read_picture(const wf_task *t, const char *folder, const picture *p, uint8_t *out) {
    const pictures_options *o = t->opt;
    char *file = wf_format("%s/%s", folder, p->name);
    if (!file) return WF_ENOMEM;
    uint8_t *data = NULL;
    int64_t h, w;
    int c;
    wf_status s = wf_png_load(file, (int)o->channels, &h, &w, &c, &data);
    if (s == WF_OK) s = wf_resize_square(data, h, w, c, o->fit[0] == 'c', o->size, out);
    wf_free(data);
    wf_free(file);
    return s;
}

static wf_status refuse(wf_task *t, const char *folder, const listing *l, int64_t failed) {
    wf_text text = {0};
    int shown = 0;
    for (int64_t i = 0; i < l->n && shown < SHOWN_FAILURES; i++)
        if (l->item[i].error) wf_text_add(&text, "%s%s", shown++ ? "; " : "", l->item[i].error);
    wf_status s = wf_value_fail(t->where, WF_EFORMAT, "task.pictures: %lld of %lld pictures in %s cannot be read: %s%s",
                                (long long)failed, (long long)l->n, folder, text.s ? text.s : "", failed > shown ? "; .." : "");
    wf_text_free(&text);
    return s;
}

static wf_status load_pictures(wf_task *t, const char *folder, listing *l, wf_images *im) {
    size_t each = (size_t)(t->channels * t->height * t->width);
    int64_t failed = 0, at[2] = {0, 0};
    int64_t *place = wf_alloc_array((size_t)l->n, sizeof *place);
    if (!place) return WF_ENOMEM;
    for (int k = 0; k < 2; k++) {
        im->pixels[k] = wf_alloc_array((size_t)t->count[k], each);
        im->labels[k] = wf_alloc_array((size_t)t->count[k], 1);
        if (!im->pixels[k] || !im->labels[k]) {
            wf_free(place);
            return WF_ENOMEM;
        }
    }
    for (int64_t i = 0; i < l->n; i++) {
        place[i] = at[l->item[i].split]++;
        im->labels[l->item[i].split][place[i]] = (uint8_t)l->item[i].label;
    }
#pragma omp parallel for schedule(dynamic, 8) num_threads(wf_threads()) reduction(+ : failed)
    for (int64_t i = 0; i < l->n; i++) {
        picture *p = &l->item[i];
        if (read_picture(t, folder, p, im->pixels[p->split] + (size_t)place[i] * each) == WF_OK) continue;
        p->error = wf_strdup(wf_message());
        failed++;
    }
    wf_free(place);
    return failed ? refuse(t, folder, l, failed) : WF_OK;
}

static wf_status open_folder(wf_task *t, const char *folder, listing *l, wf_images *im) {
    const pictures_options *o = t->opt;
    if (o->channels == 2) return wf_value_fail(t->where, WF_EINVAL, "task.pictures: 'channels' must be 1 or 3");
    WF_TRY(list_pictures(t, folder, l));
    if (!t->count[WF_TRAIN] || (o->valid > 0 && !t->count[WF_VALID]))
        return wf_value_fail(t->where, WF_EINVAL,
                             "task.pictures: %lld pictures split with valid %g leave one split empty: add pictures or "
                             "use another 'valid' or 'split_seed'",
                             (long long)l->n, o->valid);
    wf_task_set_pictures(t, l->n_classes, o->channels, o->size, o->size);
    WF_TRY(load_pictures(t, folder, l, im));
    t->mean = t->std = 0.5;
    wf_images_open(t, im);
    im->names = l->classes;
    im->n_names = l->n_classes;
    l->classes = NULL;
    l->n_classes = 0;
    t->class_names = (const char *const *)im->names;
    return WF_OK;
}

static wf_status open_pictures(wf_task *t) {
    const pictures_options *o = t->opt;
    wf_images *im = wf_alloc(sizeof *im);
    char *folder = wf_task_path(t, o->path);
    listing l = {0};
    t->data = im;
    wf_status s = im && folder ? open_folder(t, folder, &l, im) : WF_ENOMEM;
    free_listing(&l);
    wf_free(folder);
    return s;
}

const wf_task_type wf_task_pictures = {
    .name = "pictures",
    .title = "a folder of PNG pictures, one sub-folder a class",
    .help = "Classification of your own pictures: PATH/CLASS/*.png, resized to size x size by area (shrinking) or bilinearly "
            "(growing) and "
            "split by a hash of the file's name. Metric: accuracy.",
    .options = options,
    .opt_size = sizeof(pictures_options),
    .open = open_pictures,
    .close = wf_images_close,
    .sample = wf_images_sample,
};
