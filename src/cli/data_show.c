/* data_show.c: what samples look like: text with its line breaks, token sequences with targets, pictures in characters or PNG. */
#include "cli/data_show.h"

#include <math.h>
#include <string.h>

enum { LINE = 112 };

/* ---- tokens ---- */
/* Bytes of a valid UTF-8 character at s (n left), 0 if there is none. */
static int utf8_length(const int32_t *s, int64_t n) {
    int k = s[0] < 0x80                   ? 1
            : s[0] >= 0xC2 && s[0] < 0xE0 ? 2
            : s[0] >= 0xE0 && s[0] < 0xF0 ? 3
            : s[0] >= 0xF0 && s[0] < 0xF5 ? 4
                                          : 0;
    if (k > n) return 0;
    for (int i = 1; i < k; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    if (k == 3 && ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] >= 0xA0))) return 0;
    if (k == 4 && ((s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] >= 0x90))) return 0;
    return k;
}

static void print_bytes(const int32_t *s, int64_t n) {
    int column = 0;
    for (int64_t i = 0; i < n;) {
        int k = utf8_length(s + i, n - i);
        if (column == 0) printf("  | ");
        if (s[i] == '\n') {
            column = LINE;
            i++;
        } else if (k == 0 || (k == 1 && (s[i] < 32 || s[i] == 127))) { /* control characters never reach the terminal */
            column += printf("\\x%02x", (unsigned)s[i++] & 0xFF);
        } else {
            for (int j = 0; j < k; j++) putchar(s[i++]);
            column++;
        }
        if (column >= LINE) {
            putchar('\n');
            column = 0;
        }
    }
    if (column) putchar('\n');
}

/* Two aligned rows, as many columns as fit a line; "." where nothing is scored. */
static void print_tokens(const int32_t *x, const int32_t *y, int64_t n, int64_t vocab) {
    int width = vocab <= 10      ? 1
                : vocab <= 100   ? 2
                : vocab <= 1000  ? 3
                : vocab <= 10000 ? 4
                                 : 5,
        each = (LINE - 8) / (width + 1);
    for (int64_t i = 0; i < n; i += each) {
        int64_t end = i + each < n ? i + each : n;
        printf("  tokens ");
        for (int64_t j = i; j < end; j++) printf(" %*d", width, x[j]);
        printf("\n  targets");
        for (int64_t j = i; j < end; j++) {
            if (y[j] < 0)
                printf(" %*s", width, ".");
            else
                printf(" %*d", width, y[j]);
        }
        printf("\n");
    }
}

/* ---- pictures ---- */
/* Channel c of pixel (y, x) of picture r, 0..255. */
static double pixel(const wf_task *t, const wf_batch *b, int64_t r, int64_t c, int64_t y, int64_t x) {
    const float *p = b->tensor[0]->data;
    double v = p[((r * t->channels + c) * t->height + y) * t->width + x];
    v = (v * t->std + t->mean) * 255;
    return v < 0 ? 0 : v > 255 ? 255 : v;
}

/* Mean of all channels over the pixels that character (row, col) of a rows x cols rendering covers. */
static double shade(const wf_task *t, const wf_batch *b, int64_t r, int row, int col, int rows, int cols) {
    int64_t y0 = row * t->height / rows, y1 = (row + 1) * t->height / rows, x0 = col * t->width / cols,
            x1 = (col + 1) * t->width / cols;
    double s = 0;
    if (y1 <= y0) y1 = y0 + 1;
    if (x1 <= x0) x1 = x0 + 1;
    for (int64_t c = 0; c < t->channels; c++)
        for (int64_t y = y0; y < y1; y++)
            for (int64_t x = x0; x < x1; x++) s += pixel(t, b, r, c, y, x);
    return s / (double)(t->channels * (y1 - y0) * (x1 - x0));
}

static const char *label_name(const wf_task *t, const wf_batch *b, int64_t r, char buf[32]) {
    int32_t label = ((const int32_t *)b->tensor[1]->data)[r];
    if (t->class_names && label >= 0 && label < t->classes) return t->class_names[label];
    snprintf(buf, 32, "class %d", (int)label);
    return buf;
}

/* Pictures side by side, a character about twice as high as wide. */
static void print_pictures(const wf_task *t, const wf_batch *b) {
    static const char ramp[] = " .:-=+*#%@";
    int cols = t->width < 32 ? (int)t->width : 32, rows = (int)((double)cols * (double)t->height / (double)t->width / 2 + 0.5);
    int side = LINE / (cols + 2);
    char buf[32];
    if (rows < 1) rows = 1;
    for (int64_t r = 0; r < b->size; r += side) {
        int64_t end = r + side < b->size ? r + side : b->size;
        for (int row = 0; row < rows; row++) {
            for (int64_t k = r; k < end; k++) {
                for (int col = 0; col < cols; col++) putchar(ramp[(int)(shade(t, b, k, row, col, rows, cols) * 9.99 / 255)]);
                printf("  ");
            }
            putchar('\n');
        }
        for (int64_t k = r; k < end; k++) printf("%-*.*s  ", cols, cols, label_name(t, b, k, buf));
        printf("\n\n");
    }
}

void wf_data_print(const wf_task *t, const wf_batch *b) {
    char buf[32];
    if (t->channels) {
        print_pictures(t, b);
        return;
    }
    for (int64_t r = 0; r < b->size; r++) {
        const int32_t *x = (const int32_t *)b->tensor[0]->data + r * t->length,
                      *y = (const int32_t *)b->tensor[1]->data + (t->classes ? r : r * t->length);
        printf("sample %lld%s%s\n", (long long)r, t->classes ? ": " : "", t->classes ? label_name(t, b, r, buf) : "");
        if (t->classes || t->bytes_per_token == 1)
            print_bytes(x, t->length);
        else
            print_tokens(x, y, t->length, t->vocab);
    }
}

wf_status wf_data_sheet(const wf_task *t, const wf_batch *b, const char *path) {
    int64_t across = (int64_t)ceil(sqrt((double)b->size)), down = (b->size + across - 1) / across, gap = 2,
            channels = t->channels;
    int64_t h = down * (t->height + gap) + gap, w = across * (t->width + gap) + gap;
    uint8_t *sheet = wf_alloc_array((size_t)(h * w), (size_t)channels);
    if (!sheet) return WF_ENOMEM;
    memset(sheet, 128, (size_t)(h * w * channels));
    for (int64_t r = 0; r < b->size; r++) {
        int64_t y0 = gap + r / across * (t->height + gap), x0 = gap + r % across * (t->width + gap);
        for (int64_t y = 0; y < t->height; y++)
            for (int64_t x = 0; x < t->width; x++)
                for (int64_t c = 0; c < channels; c++)
                    sheet[((y0 + y) * w + x0 + x) * channels + c] = (uint8_t)lrint(pixel(t, b, r, c, y, x));
    }
    wf_status s = wf_png_save(path, sheet, h, w, (int)channels);
    wf_free(sheet);
    return s;
}
