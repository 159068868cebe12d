/* dnn.c: oneDNN behind a narrow door (dnn.h). */
#include "op/dnn.h"
#include "op/simd.h"
#include <dnnl.h>
#include <omp.h>
#include <pthread.h>
#include <string.h>

static dnnl_engine_t engine;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static void make_engine(void) {
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success) engine = NULL;
}
static bool have_engine(void) {
    pthread_once(&once, make_engine);
    return engine != NULL;
}

/* How a convolution's window moves; oneDNN counts dilation from 0. */
typedef struct conv_window {
    dnnl_dims_t stride, dilation, before, after;
} conv_window;

/* ---- what differs between the versions: descriptors are structs in 2.x and owned handles in 3.x ---- */
#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t md_ref;
#define REF(md) (md)
#define md_strided dnnl_memory_desc_create_with_strides
#define md_tagged dnnl_memory_desc_create_with_tag
static dnnl_status_t md_copy(dnnl_memory_desc_t *to, md_ref from) {
    return dnnl_memory_desc_clone(to, from);
}
static void md_drop(dnnl_memory_desc_t *md) {
    if (*md) dnnl_memory_desc_destroy(*md);
    *md = NULL;
}
static dnnl_status_t matmul_desc(dnnl_primitive_desc_t *pd, md_ref a, md_ref b, md_ref bias, md_ref c,
                                 const_dnnl_primitive_attr_t attr) {
    return dnnl_matmul_primitive_desc_create(pd, engine, a, b, bias, c, attr);
}
static dnnl_status_t conv_desc(dnnl_primitive_desc_t *pd, wf_dnn_conv_kind kind, md_ref x, md_ref w, md_ref bias, md_ref y,
                               const conv_window *s, dnnl_primitive_desc_t hint, const_dnnl_primitive_attr_t attr) {
    if (kind == WF_DNN_CONV_DATA)
        return dnnl_convolution_backward_data_primitive_desc_create(pd, engine, dnnl_convolution_direct, x, w, y, s->stride,
                                                                    s->dilation, s->before, s->after, hint, attr);
    if (kind == WF_DNN_CONV_WEIGHTS)
        return dnnl_convolution_backward_weights_primitive_desc_create(pd, engine, dnnl_convolution_direct, x, w, NULL, y,
                                                                       s->stride, s->dilation, s->before, s->after, hint, attr);
    return dnnl_convolution_forward_primitive_desc_create(pd, engine, dnnl_forward_training, dnnl_convolution_direct, x, w,
                                                          bias, y, s->stride, s->dilation, s->before, s->after, attr);
}
#else
typedef const dnnl_memory_desc_t *md_ref;
#define REF(md) (&(md))
#define md_strided dnnl_memory_desc_init_by_strides
#define md_tagged dnnl_memory_desc_init_by_tag
static dnnl_status_t md_copy(dnnl_memory_desc_t *to, md_ref from) {
    *to = *from;
    return dnnl_success;
}
static void md_drop(dnnl_memory_desc_t *md) {
    (void)md;
}
static dnnl_status_t matmul_desc(dnnl_primitive_desc_t *pd, md_ref a, md_ref b, md_ref bias, md_ref c,
                                 const_dnnl_primitive_attr_t attr) {
    dnnl_matmul_desc_t d;
    dnnl_status_t s = dnnl_matmul_desc_init(&d, a, b, bias, c);
    return s == dnnl_success ? dnnl_primitive_desc_create(pd, &d, attr, engine, NULL) : s;
}
static dnnl_status_t conv_desc(dnnl_primitive_desc_t *pd, wf_dnn_conv_kind kind, md_ref x, md_ref w, md_ref bias, md_ref y,
                               const conv_window *s, dnnl_primitive_desc_t hint, const_dnnl_primitive_attr_t attr) {
    dnnl_convolution_desc_t d;
    dnnl_status_t status;
    if (kind == WF_DNN_CONV_DATA)
        status = dnnl_dilated_convolution_backward_data_desc_init(&d, dnnl_convolution_direct, x, w, y, s->stride, s->dilation,
                                                                  s->before, s->after);
    else if (kind == WF_DNN_CONV_WEIGHTS)
        status = dnnl_dilated_convolution_backward_weights_desc_init(&d, dnnl_convolution_direct, x, w, NULL, y, s->stride,
                                                                     s->dilation, s->before, s->after);
    else
        status = dnnl_dilated_convolution_forward_desc_init(&d, dnnl_forward_training, dnnl_convolution_direct, x, w, bias, y,
                                                            s->stride, s->dilation, s->before, s->after);
    return status == dnnl_success ? dnnl_primitive_desc_create(pd, &d, attr, engine, hint) : status;
}
#endif

struct wf_dnn {
    dnnl_primitive_t primitive;
    int n;                /* arguments without the work memory */
    int arg[WF_DNN_ARGS]; /* DNNL_ARG_... */
    dnnl_memory_desc_t md[WF_DNN_ARGS];
    dnnl_memory_desc_t work_md;
    size_t work;
    size_t plain_b; /* bytes of a product's b as a plain matrix */
};

bool wf_dnn_int8_exact(void) {
#if defined(__x86_64__)
    return wf_isa() >= WF_ISA_AVX512 && __builtin_cpu_supports("avx512vnni");
#else
    return false;
#endif
}

bool wf_dnn_bf16_native(void) {
    return wf_isa() >= WF_ISA_AVX512BF16;
}

static dnnl_data_type_t data_type(wf_dtype t) {
    switch (t) {
    case WF_F32: return dnnl_f32;
    case WF_BF16: return dnnl_bf16;
    case WF_I32: return dnnl_s32;
    case WF_I8: return dnnl_s8;
    case WF_U8: return dnnl_u8;
    default: return dnnl_data_type_undef;
    }
}

static void *refuse(const char *what, dnnl_status_t s) {
    wf_fail(s == dnnl_out_of_memory ? WF_ENOMEM : WF_EUNSUPPORTED, "oneDNN refused a %s (status %d)", what, (int)s);
    return NULL;
}

void wf_dnn_free(wf_dnn *p) {
    if (!p) return;
    if (p->primitive) dnnl_primitive_destroy(p->primitive);
    for (int i = 0; i < p->n; i++) md_drop(&p->md[i]);
    if (p->work) md_drop(&p->work_md);
    wf_free(p);
}

/* An argument of a primitive and where its descriptor is asked for. */
typedef struct dnn_arg {
    int arg;
    dnnl_query_t what;
    int index;
} dnn_arg;

/* oneDNN plans for the threads it sees; primitives run in one. */
static int one_thread(void) {
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    return threads;
}

/* The primitive of a descriptor, which is used up. */
static wf_dnn *finish(dnnl_primitive_desc_t pd, const dnn_arg *args, int n, const char *what) {
    wf_dnn *p = wf_alloc(sizeof *p);
    if (!p) {
        dnnl_primitive_desc_destroy(pd);
        return NULL;
    }
    dnnl_status_t s = dnnl_success;
    for (int i = 0; i < n && s == dnnl_success; i++) {
        s = md_copy(&p->md[i], dnnl_primitive_desc_query_md(pd, args[i].what, args[i].index));
        p->arg[i] = args[i].arg;
        if (s == dnnl_success) p->n = i + 1;
    }
    md_ref work = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    size_t bytes = work ? dnnl_memory_desc_get_size(work) : 0;
    if (s == dnnl_success && bytes) {
        s = md_copy(&p->work_md, work);
        if (s == dnnl_success) p->work = bytes;
    }
    if (s == dnnl_success) s = dnnl_primitive_create(&p->primitive, pd);
    dnnl_primitive_desc_destroy(pd);
    if (s == dnnl_success) return p;
    wf_dnn_free(p);
    return refuse(what, s);
}

/* The caller gives the work memory, so that a primitive can run in several threads. */
static dnnl_primitive_attr_t own_work(void) {
    dnnl_primitive_attr_t attr;
    if (!have_engine() || dnnl_primitive_attr_create(&attr) != dnnl_success) return NULL;
    dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    return attr;
}

/* ---- matrix products ---- */

static dnnl_status_t matrix_md(dnnl_memory_desc_t *md, const wf_dnn_matrix *m, bool any) {
    dnnl_dims_t dims = {m->rows, m->cols}, strides = {m->rs, m->cs};
    if (any) return md_tagged(md, 2, dims, data_type(m->type), dnnl_format_tag_any);
    return md_strided(md, 2, dims, data_type(m->type), strides);
}

static bool is_reference(dnnl_primitive_desc_t pd) {
    const char *name = NULL;
    dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
    return name && strstr(name, "ref");
}

wf_dnn *wf_dnn_matmul(const wf_dnn_matrix *a, const wf_dnn_matrix *b, const wf_dnn_matrix *c, const wf_dtype *bias,
                      bool packed_b) {
    wf_dnn_matrix bias_row = {bias ? *bias : WF_F32, 1, c->cols, c->cols, 1};
    const wf_dnn_matrix *of[4] = {a, b, c, &bias_row};
    const int n = bias ? 4 : 3;
    dnnl_primitive_attr_t attr = own_work();
    if (!attr) return refuse("product", dnnl_out_of_memory);
    dnnl_memory_desc_t md[4];
    dnnl_status_t s = dnnl_success;
    int made = 0;
    while (made < n && (s = matrix_md(&md[made], of[made], made == 1 && packed_b)) == dnnl_success) made++;
    dnnl_primitive_desc_t pd = NULL;
    wf_dnn *p = NULL;
    int threads = one_thread();
    if (s == dnnl_success) s = matmul_desc(&pd, REF(md[0]), REF(md[1]), bias ? REF(md[3]) : NULL, REF(md[2]), attr);
    if (s == dnnl_success && is_reference(pd)) {
        dnnl_primitive_desc_destroy(pd);
        s = dnnl_unimplemented;
    }
    if (s == dnnl_success) {
        static const dnn_arg args[] = {{DNNL_ARG_SRC, dnnl_query_src_md, 0},
                                       {DNNL_ARG_WEIGHTS, dnnl_query_weights_md, 0},
                                       {DNNL_ARG_DST, dnnl_query_dst_md, 0},
                                       {DNNL_ARG_BIAS, dnnl_query_weights_md, 1}};
        p = finish(pd, args, n, "product");
    } else {
        refuse("product", s);
    }
    omp_set_num_threads(threads);
    for (int i = 0; i < made; i++) md_drop(&md[i]);
    dnnl_primitive_attr_destroy(attr);
    if (p) p->plain_b = (size_t)(b->rows * b->cols) * wf_dtype_size(b->type);
    return p;
}

size_t wf_dnn_packed_bytes(const wf_dnn *p) {
    size_t bytes = dnnl_memory_desc_get_size(REF(p->md[1]));
    return bytes == p->plain_b ? bytes : 0;
}

bool wf_dnn_same_b(const wf_dnn *p, const wf_dnn *q) {
    return dnnl_memory_desc_equal(REF(p->md[1]), REF(q->md[1]));
}

wf_dnn *wf_dnn_pack_b(const wf_dnn_matrix *b, const wf_dnn *product) {
    dnnl_memory_desc_t from;
    dnnl_primitive_attr_t attr = own_work();
    dnnl_status_t s = attr ? matrix_md(&from, b, false) : dnnl_out_of_memory;
    if (s != dnnl_success) {
        if (attr) dnnl_primitive_attr_destroy(attr);
        return refuse("reorder", s);
    }
    dnnl_primitive_desc_t pd = NULL;
    wf_dnn *p = NULL;
    int threads = one_thread();
    s = dnnl_reorder_primitive_desc_create(&pd, REF(from), engine, REF(product->md[1]), engine, attr);
    static const dnn_arg args[] = {{DNNL_ARG_FROM, dnnl_query_src_md, 0}, {DNNL_ARG_TO, dnnl_query_dst_md, 0}};
    if (s == dnnl_success)
        p = finish(pd, args, 2, "reorder");
    else
        refuse("reorder", s);
    omp_set_num_threads(threads);
    md_drop(&from);
    dnnl_primitive_attr_destroy(attr);
    return p;
}

/* ---- convolutions ---- */

static dnnl_status_t conv_mds(dnnl_memory_desc_t md[4], int *made, const wf_dnn_conv_shape *s, bool bias) {
    int64_t g = s->groups, o = s->out / g, c = s->in / g;
    dnnl_dims_t x = {s->batch, s->in, s->size[0], s->size[1]}, y = {s->batch, s->out, s->result[0], s->result[1]}, b = {s->out};
    dnnl_dims_t w = {o, c, s->kernel[0], s->kernel[1]}, wg = {g, o, c, s->kernel[0], s->kernel[1]};
    dnnl_status_t st = md_tagged(&md[(*made)], 4, x, dnnl_f32, dnnl_nchw);
    if (st != dnnl_success) return st;
    (*made)++;
    st = g == 1 ? md_tagged(&md[*made], 4, w, dnnl_f32, dnnl_oihw) : md_tagged(&md[*made], 5, wg, dnnl_f32, dnnl_goihw);
    if (st != dnnl_success) return st;
    (*made)++;
    st = md_tagged(&md[*made], 4, y, dnnl_f32, dnnl_nchw);
    if (st != dnnl_success) return st;
    (*made)++;
    if (bias && (st = md_tagged(&md[*made], 1, b, dnnl_f32, dnnl_a)) == dnnl_success) (*made)++;
    return st;
}

wf_dnn *wf_dnn_conv(wf_dnn_conv_kind kind, const wf_dnn_conv_shape *shape, bool with_bias) {
    static const dnn_arg args[3][4] = {
        {{DNNL_ARG_SRC, dnnl_query_src_md, 0},
         {DNNL_ARG_WEIGHTS, dnnl_query_weights_md, 0},
         {DNNL_ARG_DST, dnnl_query_dst_md, 0},
         {DNNL_ARG_BIAS, dnnl_query_weights_md, 1}},
        {{DNNL_ARG_DIFF_DST, dnnl_query_diff_dst_md, 0},
         {DNNL_ARG_WEIGHTS, dnnl_query_weights_md, 0},
         {DNNL_ARG_DIFF_SRC, dnnl_query_diff_src_md, 0}},
        {{DNNL_ARG_SRC, dnnl_query_src_md, 0},
         {DNNL_ARG_DIFF_DST, dnnl_query_diff_dst_md, 0},
         {DNNL_ARG_DIFF_WEIGHTS, dnnl_query_diff_weights_md, 0}},
    };
    dnnl_primitive_attr_t attr = own_work();
    if (!attr) return refuse("convolution", dnnl_out_of_memory);
    dnnl_memory_desc_t md[4];
    conv_window window;
    memset(&window, 0, sizeof window);
    for (int i = 0; i < 2; i++) {
        window.stride[i] = shape->stride[i], window.dilation[i] = shape->dilation[i] - 1;
        window.before[i] = shape->before[i], window.after[i] = shape->after[i];
    }
    int made = 0, threads = one_thread();
    dnnl_status_t s = conv_mds(md, &made, shape, with_bias);
    dnnl_primitive_desc_t hint = NULL, pd = NULL;
    wf_dnn *p = NULL;
    if (s == dnnl_success && kind != WF_DNN_CONV_FORWARD)
        s = conv_desc(&hint, WF_DNN_CONV_FORWARD, REF(md[0]), REF(md[1]), NULL, REF(md[2]), &window, NULL, attr);
    if (s == dnnl_success)
        s = conv_desc(&pd, kind, REF(md[0]), REF(md[1]), with_bias ? REF(md[3]) : NULL, REF(md[2]), &window, hint, attr);
    if (s == dnnl_success)
        p = finish(pd, args[kind], with_bias ? 4 : 3, "convolution");
    else
        refuse("convolution", s);
    omp_set_num_threads(threads);
    if (hint) dnnl_primitive_desc_destroy(hint);
    for (int i = 0; i < made; i++) md_drop(&md[i]);
    dnnl_primitive_attr_destroy(attr);
    return p;
}

/* ---- running ---- */

size_t wf_dnn_work(const wf_dnn *p) {
    return p->work;
}

wf_status wf_dnn_run(const wf_dnn *p, void *const *ptr, void *work) {
    dnnl_exec_arg_t args[WF_DNN_ARGS + 1];
    dnnl_stream_t stream = NULL;
    int n = 0, threads = one_thread();
    dnnl_status_t s = dnnl_stream_create(&stream, engine, dnnl_stream_default_flags);
    for (int i = 0; i < p->n && s == dnnl_success; i++) {
        args[n].arg = p->arg[i];
        s = dnnl_memory_create(&args[n].memory, REF(p->md[i]), engine, ptr[i]);
        if (s == dnnl_success) n++;
    }
    if (s == dnnl_success && p->work) {
        args[n].arg = DNNL_ARG_SCRATCHPAD;
        s = dnnl_memory_create(&args[n].memory, REF(p->work_md), engine, work);
        if (s == dnnl_success) n++;
    }
    if (s == dnnl_success) s = dnnl_primitive_execute(p->primitive, stream, n, args);
    if (s == dnnl_success) s = dnnl_stream_wait(stream);
    for (int i = 0; i < n; i++) dnnl_memory_destroy(args[i].memory);
    if (stream) dnnl_stream_destroy(stream);
    omp_set_num_threads(threads);
    return s == dnnl_success
               ? WF_OK
               : wf_fail(s == dnnl_out_of_memory ? WF_ENOMEM : WF_EUNSUPPORTED, "oneDNN failed (status %d)", (int)s);
}
