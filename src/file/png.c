/* png.c: PNG (libpng) to 8-bit gray or RGB and back. Transparency is laid on white. */
#include "file/file.h"

#include <png.h>
#include <setjmp.h>
#include <string.h>

static const size_t PIXELS_MAX = (size_t)64 << 20;
enum { SIDE_MAX = 1 << 20, CHUNK_MAX = 8 << 20, DEFLATE_BEST = 1032 };

/* Everything that must survive a longjmp lives in here, outside the frame that calls setjmp. */
typedef struct image {
    const uint8_t *p; /* reading */
    size_t n, at;
    wf_writer *out; /* writing */
    uint8_t *pixel; /* raw: h rows of w * raw_c bytes */
    uint8_t **row;
    size_t w, h;
    int raw_c;
    wf_status status;
    char why[200];
} image;

static wf_status give_up(image *im, wf_status s, const char *why) {
    im->status = s;
    snprintf(im->why, sizeof im->why, "%s", why);
    return s;
}

static void on_error(png_structp png, png_const_charp why) {
    image *im = png_get_error_ptr(png);
    if (im->status == WF_OK) give_up(im, WF_EFORMAT, why);
    longjmp(png_jmpbuf(png), 1);
}

static void on_warning(png_structp png, png_const_charp why) {
    (void)png;
    (void)why;
}

static void take(png_structp png, png_bytep to, size_t n) {
    image *im = png_get_io_ptr(png);
    if (n > im->n - im->at) png_error(png, "the data ends too early");
    memcpy(to, im->p + im->at, n);
    im->at += n;
}

/* Pixels take memory only when the file is long enough to hold them: deflate packs at most 1032 to 1. */
static wf_status check_size(image *im, size_t file_bits) {
    size_t need = im->w * im->h / 8 * file_bits / DEFLATE_BEST; /* no overflow: 2^26 pixels of at most 64 bits */
    if (im->w * im->h > PIXELS_MAX) return give_up(im, WF_EUNSUPPORTED, "more than 64 megapixels");
    if (need > im->n) return give_up(im, WF_EFORMAT, "the file is too short for its size in pixels");
    im->pixel = wf_alloc_array(im->w * im->h, (size_t)im->raw_c);
    im->row = wf_alloc_array(im->h, sizeof *im->row);
    if (!im->pixel || !im->row) return give_up(im, WF_ENOMEM, "out of memory");
    for (size_t y = 0; y < im->h; y++) im->row[y] = im->pixel + y * im->w * (size_t)im->raw_c;
    return WF_OK;
}

static void read_pixels(png_structp png, png_infop info, image *im) {
    png_set_user_limits(png, SIDE_MAX, SIDE_MAX);
    png_set_chunk_malloc_max(png, CHUNK_MAX);
    png_set_chunk_cache_max(png, 64);
    png_set_read_fn(png, im, take);
    png_read_info(png, info);
    size_t file_bits = (size_t)png_get_bit_depth(png, info) * png_get_channels(png, info);
    png_set_expand(png); /* palettes, 1 to 4 bits, transparent colours */
    png_set_scale_16(png);
    (void)png_set_interlace_handling(png);
    png_read_update_info(png, info);
    im->w = png_get_image_width(png, info);
    im->h = png_get_image_height(png, info);
    im->raw_c = png_get_channels(png, info);
    if (png_get_rowbytes(png, info) != im->w * (size_t)im->raw_c || im->raw_c < 1 || im->raw_c > 4)
        png_error(png, "an unexpected form of pixels");
    if (check_size(im, file_bits) != WF_OK) png_error(png, im->why);
    png_read_image(png, im->row);
    png_read_end(png, NULL);
}

static bool guarded_read(png_structp png, png_infop info, image *im) {
    if (setjmp(png_jmpbuf(png))) return false;
    read_pixels(png, info, im);
    return true;
}

static uint8_t on_white(unsigned v, unsigned alpha) {
    return (uint8_t)((v * alpha + 255u * (255u - alpha) + 127u) / 255u);
}

/* Luma of ITU-R BT.601, as most readers use it. */
static uint8_t luma(const uint8_t *rgb) {
    return (uint8_t)((299u * rgb[0] + 587u * rgb[1] + 114u * rgb[2] + 500u) / 1000u);
}

static void convert(const image *im, int c, uint8_t *out) {
    int colours = im->raw_c >= 3 ? 3 : 1;
    bool alpha = im->raw_c % 2 == 0;
    for (size_t i = 0; i < im->w * im->h; i++, out += c) {
        const uint8_t *p = im->pixel + i * (size_t)im->raw_c;
        uint8_t rgb[3];
        for (int k = 0; k < 3; k++) {
            uint8_t v = p[colours == 3 ? k : 0];
            rgb[k] = alpha ? on_white(v, p[colours]) : v;
        }
        if (c == 3)
            memcpy(out, rgb, 3);
        else
            out[0] = colours == 3 ? luma(rgb) : rgb[0];
    }
}

static wf_status finish_read(image *im, bool ok, int channels, int64_t *h, int64_t *w, int *c, uint8_t **data) {
    wf_status s = ok ? WF_OK : im->status;
    if (ok) {
        *c = channels ? channels : im->raw_c >= 3 ? 3 : 1;
        *h = (int64_t)im->h;
        *w = (int64_t)im->w;
        *data = wf_alloc_array(im->w * im->h, (size_t)*c);
        if (*data)
            convert(im, *c, *data);
        else
            s = WF_ENOMEM;
    } else {
        wf_fail(s, "PNG: %s", im->why);
    }
    wf_free(im->pixel);
    wf_free(im->row);
    return s;
}

wf_status wf_png_parse(const uint8_t *p, size_t n, int channels, int64_t *h, int64_t *w, int *c, uint8_t **data) {
    *data = NULL;
    *h = *w = 0;
    *c = 0;
    if (channels != 0 && channels != 1 && channels != 3)
        return wf_fail(WF_EINVAL, "PNG: %d channels were asked for: 1, 3 or 0 (as the file has)", channels);
    if (n < 8 || png_sig_cmp(p, 0, 8) != 0) return wf_fail(WF_EFORMAT, "PNG: the file does not begin as a PNG file does");
    image im = {.p = p, .n = n};
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &im, on_error, on_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info) {
        png_destroy_read_struct(&png, NULL, NULL);
        return wf_fail(WF_ENOMEM, "PNG: the reader cannot be set up");
    }
    bool ok = guarded_read(png, info, &im);
    png_destroy_read_struct(&png, &info, NULL);
    return finish_read(&im, ok, channels, h, w, c, data);
}

wf_status wf_png_load(const char *path, int channels, int64_t *h, int64_t *w, int *c, uint8_t **data) {
    wf_bytes b;
    *data = NULL;
    WF_TRY(wf_bytes_open(path, &b));
    wf_status s = wf_png_parse(b.p, b.n, channels, h, w, c, data);
    wf_bytes_close(&b);
    return s == WF_OK ? s : wf_fail_within(s, "%s", path);
}

/* ---- writing ---- */
static void give(png_structp png, png_bytep from, size_t n) {
    image *im = png_get_io_ptr(png);
    if (wf_writer_put(im->out, from, n) == WF_OK) return;
    give_up(im, WF_EIO, wf_message());
    png_error(png, im->why);
}

static void flush(png_structp png) {
    (void)png;
}

static bool guarded_write(png_structp png, png_infop info, image *im) {
    if (setjmp(png_jmpbuf(png))) return false;
    png_set_write_fn(png, im, give, flush);
    png_set_IHDR(png, info, (png_uint_32)im->w, (png_uint_32)im->h, 8,
                 im->raw_c == 3 ? PNG_COLOR_TYPE_RGB : PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    png_write_image(png, im->row);
    png_write_end(png, NULL);
    return true;
}

static wf_status write_image(image *im) {
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, im, on_error, on_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    bool ok = info && guarded_write(png, info, im);
    png_destroy_write_struct(&png, &info);
    if (ok) return WF_OK;
    if (im->status == WF_OK) give_up(im, WF_ENOMEM, "the writer cannot be set up");
    return wf_fail(im->status, "PNG: %s", im->why);
}

wf_status wf_png_save(const char *path, const uint8_t *data, int64_t h, int64_t w, int c) {
    if (h < 1 || w < 1 || h > SIDE_MAX || w > SIDE_MAX || (c != 1 && c != 3))
        return wf_fail(WF_EINVAL, "%s: a picture of %lld x %lld pixels, %d channels cannot be written", path, (long long)h,
                       (long long)w, c);
    image im = {.w = (size_t)w, .h = (size_t)h, .raw_c = c};
    im.row = wf_alloc_array(im.h, sizeof *im.row);
    if (!im.row) return WF_ENOMEM;
    for (size_t y = 0; y < im.h; y++) im.row[y] = (uint8_t *)(uintptr_t)data + y * im.w * (size_t)c;
    im.out = wf_writer_open(path);
    wf_status s = im.out ? write_image(&im) : WF_EIO;
    wf_free(im.row);
    if (!im.out) return s;
    if (s == WF_OK) return wf_writer_commit(im.out);
    wf_writer_abort(im.out);
    return s;
}
