/* test_files.c: bytes, gzip, atomic writing, safetensors, idx and PNG; cut at every byte, and with hostile headers. */
#include "check.h"
#include "file/file.h"

#include <fcntl.h>
#include <math.h>
#include <png.h>
#include <sys/stat.h>
#include <zlib.h>

static char *in_folder(const char *name) {
    static char path[4][512];
    static int next;
    next = (next + 1) % 4;
    snprintf(path[next], sizeof path[next], "%s/%s", test_folder(), name);
    return path[next];
}

static wf_bytes slurp(const char *path) {
    wf_bytes b;
    MUST(wf_bytes_open(path, &b));
    return b;
}

/* A copy with nothing readable behind it, so that the sanitizer sees one byte too many. */
static uint8_t *exact(const void *p, size_t n) {
    uint8_t *q = malloc(n ? n : 1);
    if (n) memcpy(q, p, n);
    return q;
}

/* ---- bytes ---- */
static void bytes(void **state) {
    char *path = in_folder("a.txt");
    MUST(wf_write_text(path, "warp"));
    wf_bytes b = slurp(path);
    assert_int_equal(b.n, 4);
    assert_memory_equal(b.p, "warp", 4);
    wf_bytes_close(&b);
    MUST(wf_write_text(path, ""));
    b = slurp(path);
    assert_int_equal(b.n, 0);
    wf_bytes_close(&b);
    MUST_FAIL(wf_bytes_open(in_folder("none"), &b), WF_ENOTFOUND, "none");
    MUST_FAIL(wf_bytes_open(test_folder(), &b), WF_EIO, "is a folder");
    b = slurp("/proc/self/status");
    assert_true(b.n > 100);
    wf_bytes_close(&b);
}

static void folders(void **state) {
    MUST(wf_make_folder(in_folder("x/y/z")));
    MUST(wf_make_folder(in_folder("x/y//z/")));
    assert_true(wf_path_exists(in_folder("x/y/z")));
    assert_false(wf_path_exists(in_folder("x/q")));
    MUST(wf_write_text(in_folder("x/f"), "1"));
    MUST_FAIL(wf_make_folder(in_folder("x/f/g")), WF_EIO, "x/f");
    MUST_FAIL(wf_write_text(in_folder("nowhere/f"), "1"), WF_EIO, "nowhere/f");
}

static int count_files(const char *folder) {
    char cmd[600];
    snprintf(cmd, sizeof cmd, "ls -A '%s' | wc -l", folder);
    FILE *f = popen(cmd, "r");
    int n = -1;
    assert_int_equal(fscanf(f, "%d", &n), 1);
    pclose(f);
    return n;
}

static void atomic_writing(void **state) {
    MUST(wf_make_folder(in_folder("w")));
    char *path = in_folder("w/f"), *folder = in_folder("w");
    MUST(wf_write_text(path, "old"));
    wf_writer *w = wf_writer_open(path);
    MUST(wf_writer_put(w, "new", 3));
    wf_bytes b = slurp(path);
    assert_memory_equal(b.p, "old", 3); /* until the commit */
    wf_writer_abort(w);
    wf_bytes_close(&b);
    assert_int_equal(count_files(folder), 1);
    w = wf_writer_open(path);
    MUST(wf_writer_put(w, "new", 3));
    MUST(wf_writer_commit(w));
    b = slurp(path);
    assert_memory_equal(b.p, "new", 3);
    wf_bytes_close(&b);
    assert_int_equal(count_files(folder), 1);
    struct stat st;
    mode_t mask = umask(0);
    umask(mask);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0666 & ~mask);
    char *link = in_folder("w/link");
    assert_int_equal(symlink("f", link), 0);
    MUST(wf_write_text(link, "through"));
    b = slurp(path);
    assert_memory_equal(b.p, "through", 7);
    wf_bytes_close(&b);
    MUST(wf_write_text("/dev/null", "gone")); /* a device stays a device */
    assert_int_equal(stat("/dev/null", &st), 0);
    assert_true(S_ISCHR(st.st_mode));
    wf_writer_abort(NULL);
}

/* Two writers of one file do not meet; what a killed one left is used again and gone afterwards. */
static void writers_at_once(void **state) {
    MUST(wf_make_folder(in_folder("v")));
    char *path = in_folder("v/f"), *folder = in_folder("v");
    wf_writer *a = wf_writer_open(path), *b = wf_writer_open(path);
    assert_true(a && b);
    assert_int_equal(count_files(folder), 2);
    MUST(wf_writer_put(a, "aa", 2));
    MUST(wf_writer_put(b, "b", 1));
    MUST(wf_writer_commit(a));
    MUST(wf_writer_commit(b));
    wf_bytes x = slurp(path);
    assert_int_equal(x.n, 1);
    wf_bytes_close(&x);
    assert_int_equal(count_files(folder), 1);
    MUST(wf_write_text(in_folder("v/f.part"), "left by a killed process"));
    MUST(wf_write_text(path, "c"));
    x = slurp(path);
    assert_true(x.n == 1 && x.p[0] == 'c');
    wf_bytes_close(&x);
    assert_int_equal(count_files(folder), 1);
}

static uint8_t *gzip(const void *p, size_t n, size_t *n_out) {
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    size_t cap = deflateBound(&z, n) + 64;
    uint8_t *out = malloc(cap);
    z.next_in = (Bytef *)(uintptr_t)p;
    z.avail_in = (uInt)n;
    z.next_out = out;
    z.avail_out = (uInt)cap;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    *n_out = cap - z.avail_out;
    deflateEnd(&z);
    return out;
}

static void gunzip(void **state) {
    size_t n, m;
    uint8_t *zip = gzip("hello hello hello", 17, &n), *out;
    MUST(wf_gunzip(zip, n, 17, &out, &m));
    assert_int_equal(m, 17);
    assert_memory_equal(out, "hello hello hello", 17);
    wf_free(out);
    MUST_FAIL(wf_gunzip(zip, n, 16, &out, &m), WF_EFORMAT, "more than 16 bytes");
    for (size_t i = 0; i < n; i++) {
        uint8_t *cut = exact(zip, i);
        MUST_FAIL(wf_gunzip(cut, i, 1000, &out, &m), WF_EFORMAT, "gzip");
        assert_null(out);
        free(cut);
    }
    uint8_t *two = malloc(2 * n); /* members in a row are one text */
    memcpy(two, zip, n);
    memcpy(two + n, zip, n);
    MUST(wf_gunzip(two, 2 * n, 100, &out, &m));
    assert_int_equal(m, 34);
    wf_free(out);
    free(two);
    free(zip);
    uint8_t *zeros = calloc(1, 10 << 20);
    zip = gzip(zeros, 10 << 20, &n);
    MUST_FAIL(wf_gunzip(zip, n, 1 << 20, &out, &m), WF_EFORMAT, "more than");
    MUST(wf_gunzip(zip, n, 10 << 20, &out, &m));
    assert_int_equal(m, 10 << 20);
    wf_free(out);
    free(zip);
    free(zeros);
}

/* ---- safetensors ---- */
typedef struct st_blob {
    uint8_t *p;
    size_t n;
} st_blob;

static st_blob st_make(const char *json, size_t n_data) {
    size_t h = strlen(json);
    st_blob b = {calloc(1, 8 + h + n_data + 1), 8 + h + n_data};
    for (int i = 0; i < 8; i++) b.p[i] = (uint8_t)(h >> 8 * i);
    memcpy(b.p + 8, json, h);
    for (size_t i = 0; i < n_data; i++) b.p[8 + h + i] = (uint8_t)(i + 1);
    return b;
}

static void st_fails(const char *json, size_t n_data, wf_status status, const char *part) {
    st_blob b = st_make(json, n_data);
    uint8_t *p = exact(b.p, b.n);
    wf_st_file f;
    wf_status s = wf_st_parse(p, b.n, "m.safetensors", &f);
    if (s != status) fail_msg("%s gave '%s' (%s)", json, wf_status_name(s), wf_message());
    MESSAGE_HAS(part);
    MESSAGE_HAS("m.safetensors");
    free(p);
    free(b.p);
}

static void st_round_trip(void **state) {
    wf_tensor *a = wf_tensor_new(WF_F32, WF_SHAPE(2, 3)), *b = wf_tensor_new(WF_U8, WF_SHAPE(5)),
              *c = wf_tensor_new(WF_F64, (wf_shape){0});
    wf_tensor *d = wf_tensor_new(WF_I32, WF_SHAPE(3, 0)), *e = wf_tensor_new(WF_BF16, WF_SHAPE(1, 1, 1, 1, 1, 3));
    for (int i = 0; i < 6; i++) wf_tensor_set(a, i, i * 0.5 - 1);
    for (int i = 0; i < 5; i++) wf_tensor_set(b, i, 250 + i);
    for (int i = 0; i < 3; i++) wf_tensor_set(e, i, i + 0.5);
    wf_tensor_set(c, 0, 3.25);
    const wf_st_item items[] = {{"z.a", a}, {"b", b}, {"c \"q\"", c}, {"d", d}, {"e", e}};
    const char *key[] = {"format", "recipe"}, *text[] = {"weft-model-1", "{\"model\":\"x\\n\"}\n"};
    char *path = in_folder("m.safetensors"), *path2 = in_folder("m2.safetensors");
    MUST(wf_st_save(path, items, 5, key, text, 2));
    wf_st_file f;
    MUST(wf_st_open(path, &f));
    assert_int_equal(f.n, 5);
    assert_string_equal(wf_st_meta(&f, "format"), "weft-model-1");
    assert_string_equal(wf_st_meta(&f, "recipe"), text[1]);
    assert_null(wf_st_meta(&f, "none"));
    assert_null(wf_st_find(&f, "none"));
    for (int i = 0; i < 5; i++) {
        const wf_st_entry *x = wf_st_find(&f, items[i].name);
        assert_non_null(x);
        wf_tensor *t = wf_st_read(x, items[i].tensor->dtype);
        assert_int_equal(t->shape.rank, items[i].tensor->shape.rank);
        assert_int_equal(t->bytes, items[i].tensor->bytes);
        if (t->bytes) assert_memory_equal(t->data, items[i].tensor->data, t->bytes);
        wf_tensor_free(t);
    }
    wf_st_close(&f);
    const wf_st_item turned[] = {items[4], items[2], items[0], items[3], items[1]}; /* order does not matter */
    MUST(wf_st_save(path2, turned, 5, key, text, 2));
    wf_bytes x = slurp(path), y = slurp(path2);
    assert_int_equal(x.n, y.n);
    assert_memory_equal(x.p, y.p, x.n);
    for (size_t i = 0; i < x.n; i++) {
        uint8_t *cut = exact(x.p, i);
        MUST_FAIL(wf_st_parse(cut, i, "cut", &f), WF_EFORMAT, "cut");
        free(cut);
    }
    wf_bytes_close(&x);
    wf_bytes_close(&y);
    const wf_st_item twice[] = {{"a", a}, {"a", b}}, meta[] = {{"__metadata__", a}};
    MUST_FAIL(wf_st_save(path, twice, 2, NULL, NULL, 0), WF_EINVAL, "two tensors are named 'a'");
    MUST_FAIL(wf_st_save(path, meta, 1, NULL, NULL, 0), WF_EINVAL, "__metadata__");
    MUST(wf_st_save(path, NULL, 0, NULL, NULL, 0));
    MUST(wf_st_open(path, &f));
    assert_int_equal(f.n, 0);
    assert_null(wf_st_find(&f, "a"));
    wf_st_close(&f);
    wf_tensor *all[] = {a, b, c, d, e};
    for (int i = 0; i < 5; i++) wf_tensor_free(all[i]);
}

#define ENTRY(name, dtype, shape, off) "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" off "}"

static void st_hostile(void **state) {
    st_fails("{" ENTRY("a", "F32", "[2]", "[0,8]") "}", 7, WF_EFORMAT, "the file is cut or damaged");
    st_fails("{" ENTRY("a", "F32", "[2]", "[0,8]") "}", 9, WF_EFORMAT, "1 bytes after the last tensor");
    st_fails("{" ENTRY("a", "F32", "[2]", "[0,4]") "}", 4, WF_EFORMAT, "does not take the 4 bytes");
    st_fails("{" ENTRY("a", "F32", "[2]", "[8,0]") "}", 8, WF_EFORMAT, "data_offsets");
    st_fails("{" ENTRY("a", "F32", "[2]", "[-8,0]") "}", 8, WF_EFORMAT, "data_offsets");
    st_fails("{" ENTRY("a", "F32", "[2]", "[0.0,8]") "}", 8, WF_EFORMAT, "data_offsets");
    st_fails("{" ENTRY("a", "F32", "[2]", "[0]") "}", 8, WF_EFORMAT, "data_offsets");
    st_fails("{" ENTRY("a", "F32", "[2]", "[0,8,9]") "}", 8, WF_EFORMAT, "data_offsets");
    st_fails("{" ENTRY("a", "F32", "[2]", "{}") "}", 8, WF_EFORMAT, "data_offsets");
    st_fails("{" ENTRY("a", "F32", "[-2]", "[0,8]") "}", 8, WF_EFORMAT, "shape");
    st_fails("{" ENTRY("a", "F32", "[2.0]", "[0,8]") "}", 8, WF_EFORMAT, "shape");
    st_fails("{" ENTRY("a", "F32", "2", "[0,8]") "}", 8, WF_EFORMAT, "shape");
    st_fails("{" ENTRY("a", "F32", "[1,1,1,1,1,1,2]", "[0,8]") "}", 8, WF_EUNSUPPORTED, "7 axes");
    st_fails("{" ENTRY("a", "F32", "[4294967296,4294967296,4]", "[0,8]") "}", 8, WF_EFORMAT, "overflows");
    st_fails("{" ENTRY("a", "F32", "[0,4294967296,4294967296]", "[0,0]") "}", 0, WF_EFORMAT, "overflows");
    st_fails("{" ENTRY("a", "F64", "[576460752303423488]", "[0,8]") "}", 8, WF_EFORMAT, "does not take");
    st_fails("{" ENTRY("a", "F64", "[9223372036854775808]", "[0,8]") "}", 8, WF_EFORMAT, "header");
    st_fails("{" ENTRY("a", "F31", "[2]", "[0,8]") "}", 8, WF_EUNSUPPORTED, "unknown dtype");
    st_fails("{\"a\":{\"dtype\":3,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, WF_EFORMAT, "dtype");
    st_fails("{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, WF_EFORMAT, "must have");
    st_fails("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", 8, WF_EFORMAT, "nothing else");
    st_fails("{\"a\":[]}", 8, WF_EFORMAT, "must have");
    st_fails("{" ENTRY("a", "U8", "[4]", "[0,4]") "," ENTRY("a", "U8", "[4]", "[4,8]") "}", 8, WF_EFORMAT, "duplicate");
    st_fails("{" ENTRY("a", "U8", "[5]", "[0,5]") "," ENTRY("b", "U8", "[4]", "[4,8]") "}", 8, WF_EFORMAT, "overlaps");
    st_fails("{" ENTRY("a", "U8", "[8]", "[0,8]") "," ENTRY("b", "U8", "[8]", "[0,8]") "}", 8, WF_EFORMAT, "overlaps");
    st_fails("{" ENTRY("a", "U8", "[3]", "[0,3]") "," ENTRY("b", "U8", "[4]", "[4,8]") "}", 8, WF_EFORMAT, "hole");
    st_fails("{" ENTRY("a", "U8", "[4]", "[4,8]") "}", 8, WF_EFORMAT, "hole");
    st_fails("{\"__metadata__\":{\"a\":1}}", 0, WF_EFORMAT, "must be a text");
    st_fails("{\"__metadata__\":[]}", 0, WF_EFORMAT, "map of texts");
    st_fails("[]", 0, WF_EFORMAT, "JSON map");
    st_fails("{", 0, WF_EFORMAT, "header");
    st_fails("", 0, WF_EFORMAT, "header");
    wf_st_file f;
    uint8_t claims[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, '{', '}'};
    MUST_FAIL(wf_st_parse(claims, 16, "h", &f), WF_EFORMAT, "claims");
    MUST_FAIL(wf_st_open(in_folder("none"), &f), WF_ENOTFOUND, "none");
}

static void st_conversions(void **state) {
    st_blob b =
        st_make("{" ENTRY("h", "F16", "[4]", "[0,8]") "," ENTRY("i", "I64", "[2]", "[8,24]") "," ENTRY(
                    "o", "BOOL", "[2]",
                    "[24,26]") "," ENTRY("u", "U16", "[1]",
                                         "[26,28]") "," ENTRY("g", "BF16", "[1]",
                                                              "[28,30]") "," ENTRY("q", "U64", "[1]",
                                                                                   "[30,38]") "," ENTRY("s", "I8", "[2]",
                                                                                                        "[38,40]") "}",
                40);
    uint8_t *d = b.p + b.n - 40;
    const uint16_t half[] = {0x3C00, 0xC100, 0x0001, 0x7C00};
    const int64_t whole[] = {-5, INT64_C(1) << 40};
    const uint16_t bf = 0x4049;
    memcpy(d, half, 8);
    memcpy(d + 8, whole, 16);
    d[24] = 0, d[25] = 7;
    d[26] = 0xff, d[27] = 0xff;
    memcpy(d + 28, &bf, 2);
    memset(d + 30, 0xff, 8);
    d[38] = 0x80, d[39] = 5;
    wf_st_file f;
    MUST(wf_st_parse(b.p, b.n, "c", &f));
    wf_tensor *t = wf_st_read(wf_st_find(&f, "h"), WF_F32);
    assert_true(wf_tensor_get(t, 0) == 1 && wf_tensor_get(t, 1) == -2.5 && wf_tensor_get(t, 2) == 0x1p-24 &&
                isinf(wf_tensor_get(t, 3)));
    wf_tensor_free(t);
    assert_null(wf_st_read(wf_st_find(&f, "i"), WF_I32));
    MESSAGE_HAS("element 1 is 1099511627776, which does not fit");
    t = wf_st_read(wf_st_find(&f, "i"), WF_F64);
    assert_true(wf_tensor_get(t, 0) == -5 && wf_tensor_get(t, 1) == 0x1p40);
    wf_tensor_free(t);
    t = wf_st_read(wf_st_find(&f, "o"), WF_U8);
    assert_true(wf_tensor_get(t, 0) == 0 && wf_tensor_get(t, 1) == 1);
    wf_tensor_free(t);
    t = wf_st_read(wf_st_find(&f, "u"), WF_I32);
    assert_true(wf_tensor_get(t, 0) == 65535);
    wf_tensor_free(t);
    t = wf_st_read(wf_st_find(&f, "g"), WF_F32);
    assert_true(wf_tensor_get(t, 0) == 3.140625);
    wf_tensor_free(t);
    t = wf_st_read(wf_st_find(&f, "s"), WF_I32);
    assert_true(wf_tensor_get(t, 0) == -128 && wf_tensor_get(t, 1) == 5);
    wf_tensor_free(t);
    assert_null(wf_st_read(wf_st_find(&f, "q"), WF_I32));
    assert_null(wf_st_read(wf_st_find(&f, "s"), WF_U8));
    assert_null(wf_st_read(wf_st_find(&f, "h"), WF_I32));
    MESSAGE_HAS("'h' holds F16, int32 was expected");
    wf_st_close(&f);
    free(b.p);
}

/* ---- idx ---- */
static const uint8_t IDX[] = {0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6};

static void idx(void **state) {
    wf_shape s;
    uint8_t *data;
    MUST(wf_idx_parse(IDX, sizeof IDX, &s, &data));
    assert_true(s.rank == 2 && s.dim[0] == 2 && s.dim[1] == 3 && data[5] == 6);
    wf_free(data);
    size_t n;
    uint8_t *zip = gzip(IDX, sizeof IDX, &n);
    MUST(wf_idx_parse(zip, n, &s, &data));
    assert_true(s.dim[1] == 3 && data[0] == 1);
    wf_free(data);
    for (size_t i = 0; i < n; i++) {
        uint8_t *cut = exact(zip, i);
        MUST_FAIL(wf_idx_parse(cut, i, &s, &data), WF_EFORMAT, "");
        free(cut);
    }
    free(zip);
    for (size_t i = 0; i < sizeof IDX; i++) {
        uint8_t *cut = exact(IDX, i);
        MUST_FAIL(wf_idx_parse(cut, i, &s, &data), WF_EFORMAT, "idx");
        free(cut);
    }
    uint8_t bad[sizeof IDX + 1] = {0};
    memcpy(bad, IDX, sizeof IDX);
    MUST_FAIL(wf_idx_parse(bad, sizeof bad, &s, &data), WF_EFORMAT, "[2, 3] need 6 bytes, the file has 7");
    bad[2] = 0x0D;
    MUST_FAIL(wf_idx_parse(bad, sizeof IDX, &s, &data), WF_EUNSUPPORTED, "0x0d");
    const uint8_t huge[] = {0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
    MUST_FAIL(wf_idx_parse(huge, sizeof huge, &s, &data), WF_EFORMAT, "overflow");
    const uint8_t strides[] = {0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0};
    MUST_FAIL(wf_idx_parse(strides, sizeof strides, &s, &data), WF_EFORMAT, "overflow");
    const uint8_t deep[] = {0, 0, 8, 7, 0, 0, 0, 1};
    MUST_FAIL(wf_idx_parse(deep, sizeof deep, &s, &data), WF_EFORMAT, "rank 7");
    const uint8_t none[] = {0, 0, 8, 1, 0, 0, 0, 0};
    MUST(wf_idx_parse(none, sizeof none, &s, &data));
    wf_free(data);
    MUST_FAIL(wf_idx_load(in_folder("none"), &s, &data), WF_ENOTFOUND, "none");
}

/* ---- PNG ---- */
typedef struct made_png { /* in memory, by libpng itself */
    uint8_t *p;
    size_t n;
} made_png;

static void collect(png_structp png, png_bytep p, size_t n) {
    made_png *m = png_get_io_ptr(png);
    m->p = realloc(m->p, m->n + n);
    memcpy(m->p + m->n, p, n);
    m->n += n;
}

static void no_flush(png_structp png) {}

/* rows: h rows of packed samples; palette of three colours, the last transparent, when the type asks for one. */
static made_png encode(int type, int depth, int interlace, int w, int h, const uint8_t *rows, size_t row_bytes) {
    made_png m = {0};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    const png_color palette[] = {{255, 0, 0}, {0, 255, 0}, {0, 0, 255}};
    const png_byte alpha[] = {255, 255, 0};
    png_bytep row[16];
    if (setjmp(png_jmpbuf(png))) fail_msg("libpng cannot write the test's picture");
    png_set_write_fn(png, &m, collect, no_flush);
    png_set_IHDR(png, info, (png_uint_32)w, (png_uint_32)h, depth, type, interlace, 0, 0);
    if (type == PNG_COLOR_TYPE_PALETTE) {
        png_set_PLTE(png, info, palette, 3);
        png_set_tRNS(png, info, alpha, 3, NULL);
    }
    png_write_info(png, info);
    for (int y = 0; y < h; y++) row[y] = (png_bytep)(uintptr_t)rows + (size_t)y * row_bytes;
    png_write_image(png, row);
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    return m;
}

static void expect_png(made_png m, int channels, int c_expected, const uint8_t *expected, size_t n) {
    int64_t h, w;
    int c;
    uint8_t *data;
    MUST(wf_png_parse(m.p, m.n, channels, &h, &w, &c, &data));
    assert_int_equal(c, c_expected);
    assert_int_equal(h * w * c, (int64_t)n);
    assert_memory_equal(data, expected, n);
    wf_free(data);
}

static void cut_png(made_png m) {
    int64_t h, w;
    int c;
    uint8_t *data;
    for (size_t i = 0; i < m.n; i++) {
        uint8_t *cut = exact(m.p, i);
        MUST_FAIL(wf_png_parse(cut, i, 3, &h, &w, &c, &data), WF_EFORMAT, "PNG");
        assert_null(data);
        free(cut);
    }
    for (size_t i = 0; i < m.n; i++) { /* any one byte changed: an error or a picture, no crash */
        uint8_t *bent = exact(m.p, m.n);
        bent[i] ^= 0x81;
        if (wf_png_parse(bent, m.n, 3, &h, &w, &c, &data) == WF_OK) wf_free(data);
        free(bent);
    }
}

static void png_forms(void **state) {
    const uint8_t gray[] = {0, 128, 255, 7, 8, 9}, gray3[] = {0, 0, 0, 128, 128, 128, 255, 255, 255, 7, 7, 7, 8, 8, 8, 9, 9, 9};
    made_png m = encode(PNG_COLOR_TYPE_GRAY, 8, 0, 3, 2, gray, 3);
    expect_png(m, 0, 1, gray, 6);
    expect_png(m, 3, 3, gray3, 18);
    cut_png(m);
    free(m.p);
    m = encode(PNG_COLOR_TYPE_GRAY, 8, 1, 3, 2, gray, 3);
    expect_png(m, 1, 1, gray, 6);
    cut_png(m);
    free(m.p);
    const uint8_t bits[] = {0xA0}, bits8[] = {255, 0, 255};
    m = encode(PNG_COLOR_TYPE_GRAY, 1, 0, 3, 1, bits, 1);
    expect_png(m, 0, 1, bits8, 3);
    free(m.p);
    const uint8_t deep[] = {0xFF, 0xFF, 0x80, 0x00, 0x00, 0x10};
    m = encode(PNG_COLOR_TYPE_GRAY, 16, 0, 3, 1, deep, 6);
    expect_png(m, 0, 1, (uint8_t[]){255, 128, 0}, 3);
    expect_png(m, 1, 1, (uint8_t[]){255, 128, 0}, 3);
    free(m.p);
    const uint8_t rgb[] = {255, 0, 0, 0, 255, 0, 0, 0, 255, 10, 20, 30};
    m = encode(PNG_COLOR_TYPE_RGB, 8, 1, 2, 2, rgb, 6);
    expect_png(m, 0, 3, rgb, 12);
    expect_png(m, 1, 1, (uint8_t[]){76, 150, 29, 18}, 4);
    cut_png(m);
    free(m.p);
}

static void png_transparency(void **state) {
    const uint8_t rgba[] = {255, 0, 0, 255, 0, 0, 0, 0, 100, 50, 0, 51};
    made_png m = encode(PNG_COLOR_TYPE_RGB_ALPHA, 8, 0, 3, 1, rgba, 12);
    expect_png(m, 0, 3, (uint8_t[]){255, 0, 0, 255, 255, 255, 224, 214, 204}, 9);
    free(m.p);
    const uint8_t ga[] = {10, 255, 10, 0};
    m = encode(PNG_COLOR_TYPE_GRAY_ALPHA, 8, 0, 2, 1, ga, 4);
    expect_png(m, 0, 1, (uint8_t[]){10, 255}, 2);
    expect_png(m, 3, 3, (uint8_t[]){10, 10, 10, 255, 255, 255}, 6);
    free(m.p);
    const uint8_t index[] = {0x18}; /* 2 bits: 0, 1, 2 */
    m = encode(PNG_COLOR_TYPE_PALETTE, 2, 0, 3, 1, index, 1);
    expect_png(m, 0, 3, (uint8_t[]){255, 0, 0, 0, 255, 0, 255, 255, 255}, 9);
    cut_png(m);
    free(m.p);
}

/* Width and height of the header are changed and its checksum made right again. */
static void png_hostile(void **state) {
    const uint8_t gray[] = {1};
    made_png m = encode(PNG_COLOR_TYPE_GRAY, 8, 0, 1, 1, gray, 1);
    const uint32_t sizes[][2] = {{8000, 8000}, {65536, 65536}, {1u << 20, 64}, {0x7fffffff, 1}, {0, 5}, {2, 1}};
    int64_t h, w;
    int c;
    uint8_t *data;
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        for (int i = 0; i < 4; i++) {
            m.p[16 + i] = (uint8_t)(sizes[k][0] >> (24 - 8 * i));
            m.p[20 + i] = (uint8_t)(sizes[k][1] >> (24 - 8 * i));
        }
        uint32_t crc = (uint32_t)crc32(0, m.p + 12, 17);
        for (int i = 0; i < 4; i++) m.p[29 + i] = (uint8_t)(crc >> (24 - 8 * i));
        wf_status s = wf_png_parse(m.p, m.n, 3, &h, &w, &c, &data);
        assert_true(s == WF_EFORMAT || s == WF_EUNSUPPORTED);
        assert_null(data);
    }
    MUST_FAIL(wf_png_parse(gray, 1, 3, &h, &w, &c, &data), WF_EFORMAT, "does not begin");
    MUST_FAIL(wf_png_parse(m.p, m.n, 2, &h, &w, &c, &data), WF_EINVAL, "2 channels");
    free(m.p);
}

static void png_round_trip(void **state) {
    uint8_t pixel[7 * 5 * 3];
    for (size_t i = 0; i < sizeof pixel; i++) pixel[i] = (uint8_t)(i * 37);
    for (int c = 1; c <= 3; c += 2) {
        char *path = in_folder("p.png");
        int64_t h, w;
        int got;
        uint8_t *data;
        MUST(wf_png_save(path, pixel, 7, 5, c));
        MUST(wf_png_load(path, 0, &h, &w, &got, &data));
        assert_true(h == 7 && w == 5 && got == c);
        assert_memory_equal(data, pixel, (size_t)(7 * 5 * c));
        wf_free(data);
    }
    MUST_FAIL(wf_png_save(in_folder("p.png"), pixel, 0, 5, 3), WF_EINVAL, "0 x 5");
    MUST_FAIL(wf_png_save(in_folder("no/p.png"), pixel, 1, 1, 3), WF_EIO, "no/p.png");
}

static int tidy(void **state) {
    test_folder_remove();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes),           cmocka_unit_test(folders),          cmocka_unit_test(atomic_writing),
        cmocka_unit_test(writers_at_once), cmocka_unit_test(gunzip),           cmocka_unit_test(st_round_trip),
        cmocka_unit_test(st_hostile),      cmocka_unit_test(st_conversions),   cmocka_unit_test(idx),
        cmocka_unit_test(png_forms),       cmocka_unit_test(png_transparency), cmocka_unit_test(png_hostile),
        cmocka_unit_test(png_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, tidy);
}
