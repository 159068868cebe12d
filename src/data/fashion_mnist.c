/* fashion_mnist.c: task `fashion-mnist`: 70,000 grey pictures 28x28 of clothes in 10 classes (Xiao, Rasul, Vollgraf 2017,
 * arXiv 1708.07747), from Debian's dataset-fashion-mnist. The folder may hold any data set in the four idx files of MNIST.
 *
 * Pixels are shown as (x / 255 - 0.2860) / 0.3530 unless the recipe says otherwise: mean and standard deviation over the 60,000 training pictures.
 */
#include "data/tasks.h"

#include <string.h>

typedef struct fashion_options {
    const char *path;
    int64_t train, valid;
    double mean, std;
} fashion_options;

static const wf_option options[] = {
    {"path", WF_OPT_TEXT, offsetof(fashion_options, path), "/usr/share/datasets/fashion-mnist", 0, 0, NULL,
     "folder with {train,t10k}-{images-idx3,labels-idx1}-ubyte, each gzipped (.gz) or plain"},
    {"train", WF_OPT_INT, offsetof(fashion_options, train), "0", 0, 1 << 30, NULL,
     "use only the first N training pictures; 0: all"},
    {"valid", WF_OPT_INT, offsetof(fashion_options, valid), "0", 0, 1 << 30, NULL,
     "use only the first N test pictures; 0: all"},
    {"mean", WF_OPT_REAL, offsetof(fashion_options, mean), "0.2860", 0, 1, NULL,
     "pixels are shown as (x / 255 - mean) / std; default: of the training pictures"},
    {"std", WF_OPT_REAL, offsetof(fashion_options, std), "0.3530", 1e-3, 1, NULL, "mean 0.5 with std 0.5 shows them in [-1,1]"},
    WF_OPT_END};

static const char *const class_names[] = {"T-shirt/top", "trouser", "pullover", "dress", "coat",
                                          "sandal",      "shirt",   "sneaker",  "bag",   "ankle boot"};
enum { CLASSES = 10 };

/* folder/name.gz, or folder/name where only that is there. */
static wf_status load(const wf_task *t, const char *folder, const char *name, int rank, wf_shape *s, uint8_t **data) {
    char *file = wf_format("%s/%s.gz", folder, name);
    if (file && !wf_path_exists(file)) file[strlen(file) - 3] = 0;
    if (!file) return WF_ENOMEM;
    wf_status st;
    if (!wf_path_exists(file))
        st = wf_value_fail(t->where, WF_ENOTFOUND,
                           "task.fashion-mnist: %s[.gz] is not there: install the Debian package "
                           "dataset-fashion-mnist (apt install dataset-fashion-mnist), or give its folder as 'path'",
                           file);
    else
        st = wf_idx_load(file, s, data);
    if (st == WF_OK && s->rank != rank) {
        char a[96];
        st = wf_fail(WF_EFORMAT, "%s: %d axes expected, it has %s", file, rank, wf_shape_text(s, a));
    }
    wf_free(file);
    return st;
}

static wf_status load_split(wf_task *t, wf_images *im, const char *folder, wf_split split) {
    const fashion_options *o = t->opt;
    const char *stem = split == WF_TRAIN ? "train" : "t10k";
    int64_t limit = split == WF_TRAIN ? o->train : o->valid;
    char name[64];
    wf_shape si, sl;
    snprintf(name, sizeof name, "%s-images-idx3-ubyte", stem);
    WF_TRY(load(t, folder, name, 3, &si, &im->pixels[split]));
    snprintf(name, sizeof name, "%s-labels-idx1-ubyte", stem);
    WF_TRY(load(t, folder, name, 1, &sl, &im->labels[split]));
    if (si.dim[0] != sl.dim[0] || si.dim[0] < 1)
        return wf_fail(WF_EFORMAT, "%s: %s has %lld pictures and %lld labels", folder, stem, (long long)si.dim[0],
                       (long long)sl.dim[0]);
    for (int64_t i = 0; i < sl.dim[0]; i++)
        if (im->labels[split][i] >= CLASSES)
            return wf_fail(WF_EFORMAT, "%s/%s: label %d of picture %lld is not in 0..%d", folder, name, im->labels[split][i],
                           (long long)i, CLASSES - 1);
    if (si.dim[1] < 1 || si.dim[2] < 1) return wf_fail(WF_EFORMAT, "%s: %s pictures have no pixels", folder, stem);
    if (split == WF_TRAIN)
        wf_task_set_pictures(t, CLASSES, 1, si.dim[1], si.dim[2]);
    else if (si.dim[1] != t->height || si.dim[2] != t->width)
        return wf_fail(WF_EFORMAT, "%s: training pictures are %lldx%lld, test pictures %lldx%lld", folder, (long long)t->height,
                       (long long)t->width, (long long)si.dim[1], (long long)si.dim[2]);
    t->count[split] = limit > 0 && limit < si.dim[0] ? limit : si.dim[0];
    return WF_OK;
}

static wf_status open_fashion(wf_task *t) {
    const fashion_options *o = t->opt;
    wf_images *im = wf_alloc(sizeof *im);
    char *folder = wf_task_path(t, o->path);
    if (!im || !folder) {
        wf_free(im);
        wf_free(folder);
        return WF_ENOMEM;
    }
    t->data = im;
    t->mean = o->mean;
    t->std = o->std;
    wf_status s = load_split(t, im, folder, WF_TRAIN);
    if (s == WF_OK) s = load_split(t, im, folder, WF_VALID);
    if (s == WF_OK)
        wf_images_open(t, im);
    else if (s != WF_ENOTFOUND)
        wf_value_fail(t->where, s, "task.fashion-mnist: %s", wf_message());
    t->class_names = class_names;
    wf_free(folder);
    return s;
}

const wf_task_type wf_task_fashion_mnist = {
    .name = "fashion-mnist",
    .title = "70,000 grey pictures of clothes, 28x28, 10 classes",
    .help = "Classification of Fashion-MNIST: 60,000 training and 10,000 validation (test) pictures [1,28,28]. Needs the "
            "Debian package "
            "dataset-fashion-mnist. Metric: accuracy.",
    .options = options,
    .opt_size = sizeof(fashion_options),
    .open = open_fashion,
    .close = wf_images_close,
    .sample = wf_images_sample,
};
