/* api.c: include/weft.h on top of the rooms. A weft_model is a model plus what running it needs: a plan for the last shape. */
#include "learn/learn.h"
#include "sample/sample.h"
#include "weft.h"

#include <string.h>

#ifndef WEFT_VERSION
#define WEFT_VERSION "0.1.0"
#endif

struct weft_model {
    wf_model *model;
    /* the plan of the last run, kept for runs of the same shape */
    wf_graph *graph;
    wf_plan *plan;
    wf_tensor *input;
    wf_shape out;
};

_Static_assert((int)WEFT_NOT_FINITE == (int)WF_ENONFINITE && (int)WEFT_INTERRUPTED == (int)WF_EINTERRUPTED,
               "statuses of both headers agree");

static weft_status status(wf_status s) {
    return (weft_status)s;
}
static weft_status missing(const char *call, const char *what) {
    return status(wf_fail(WF_EINVAL, "%s: %s is NULL", call, what));
}

const char *weft_message(void) {
    return wf_message();
}
const char *weft_version(void) {
    return WEFT_VERSION;
}
void weft_set_threads(int n) {
    wf_set_threads(n);
}
void weft_free_text(char *text) {
    wf_free(text);
}

static weft_status wrap(wf_model *m, weft_model **out) {
    if (m == NULL) return WEFT_INVALID;
    *out = wf_alloc(sizeof **out);
    if (*out == NULL) {
        wf_model_free(m);
        return WEFT_NO_MEMORY;
    }
    (*out)->model = m;
    return WEFT_OK;
}

weft_status weft_load(const char *path, weft_model **model) {
    if (path == NULL || model == NULL) return missing("weft_load", path == NULL ? "path" : "model");
    *model = NULL;
    return wrap(wf_model_load(path), model);
}

weft_status weft_save(const weft_model *model, const char *path) {
    if (model == NULL || path == NULL) return missing("weft_save", model == NULL ? "model" : "path");
    return status(wf_model_save(model->model, path, WF_F32, NULL, NULL, 0));
}

weft_status weft_build(const char *recipe, uint64_t seed, weft_model **model) {
    if (recipe == NULL || model == NULL) return missing("weft_build", recipe == NULL ? "recipe" : "model");
    *model = NULL;
    wf_value *v = wf_yaml_parse(recipe, strlen(recipe), "recipe");
    if (v == NULL) return WEFT_INVALID;
    weft_status s = wrap(wf_model_new(v, seed), model);
    wf_value_free(v);
    return s;
}

static void forget_plan(weft_model *m) {
    wf_plan_free(m->plan);
    wf_graph_free(m->graph);
    wf_tensor_free(m->input);
    m->plan = NULL;
    m->graph = NULL;
    m->input = NULL;
}

void weft_free(weft_model *model) {
    if (model == NULL) return;
    forget_plan(model);
    wf_model_free(model->model);
    wf_free(model);
}

int64_t weft_parameter_count(const weft_model *model) {
    return model != NULL ? wf_model_count(model->model) : 0;
}

weft_status weft_recipe(const weft_model *model, char **json) {
    if (model == NULL || json == NULL) return missing("weft_recipe", model == NULL ? "model" : "json");
    *json = wf_value_json(model->model->recipe, true);
    return *json != NULL ? WEFT_OK : WEFT_NO_MEMORY;
}

weft_status weft_parameter(weft_model *model, const char *name, float **data, int *rank, int64_t dim[6]) {
    if (model == NULL || name == NULL || data == NULL)
        return missing("weft_parameter", model == NULL ? "model" : name == NULL ? "name" : "data");
    wf_param *p = wf_model_param(model->model, name);
    if (p == NULL || p->value->dtype != WF_F32)
        return status(wf_fail(WF_ENOTFOUND, "the model has no float32 parameter '%s'; `weft info` lists them", name));
    *data = p->value->data;
    if (rank != NULL) *rank = p->value->shape.rank;
    if (dim != NULL) memcpy(dim, p->value->shape.dim, sizeof p->value->shape.dim);
    return WEFT_OK;
}

/* Plan the model for inputs of one dtype and shape, unless the last run had the same. */
static wf_status plan_for(weft_model *m, wf_dtype t, wf_shape s) {
    if (m->plan != NULL && m->input->dtype == t && wf_shape_equal(&m->input->shape, &s)) return WF_OK;
    forget_plan(m);
    m->input = wf_tensor_new(t, s);
    m->graph = wf_graph_open();
    if (m->input == NULL || m->graph == NULL) {
        forget_plan(m);
        return WF_ENOMEM;
    }
    wf_build b;
    memset(&b, 0, sizeof b);
    wf_build_start(&b, m->graph);
    b.causal = m->model->causal;
    wf_node *y = wf_apply(&b, m->model->root, wf_leaf(m->graph, m->input, "input"));
    wf_status s2 = WF_OK;
    if (y == NULL)
        s2 = wf_graph_status(m->graph) != WF_OK ? wf_fail(wf_graph_status(m->graph), "%s", wf_graph_message(m->graph))
                                                : WF_EINVAL;
    if (s2 == WF_OK) {
        m->out = y->shape;
        if (y->dtype != WF_F32) y = wf_cast(m->graph, y, WF_F32);
        m->plan = wf_plan_new(m->graph, &y, 1, NULL, 0, NULL);
        if (m->plan == NULL) s2 = WF_EINVAL;
    }
    wf_build_end(&b);
    if (s2 != WF_OK) forget_plan(m);
    return s2;
}

static wf_status run(weft_model *m, wf_dtype t, wf_shape shape, const void *input, float *out, size_t room) {
    WF_TRY(plan_for(m, t, shape));
    int64_t n = wf_shape_count(&m->out);
    char text[96];
    if ((size_t)n > room)
        return wf_fail(WF_EINVAL, "the output is %s, %lld numbers, and there is room for %zu", wf_shape_text(&m->out, text),
                       (long long)n, room);
    memcpy(m->input->data, input, m->input->bytes);
    WF_TRY(wf_plan_run(m->plan));
    memcpy(out, wf_plan_out(m->plan, 0), (size_t)n * sizeof *out);
    return WF_OK;
}

/* An integer option of the model's recipe, as its own setup completed it. */
static int64_t model_number(const weft_model *m, const char *key) {
    int64_t n = 0;
    const wf_value *options = wf_value_get(m->model->recipe, "model"), *v = options != NULL ? wf_value_get(options, key) : NULL;
    return v != NULL && wf_value_int(v, &n) == WF_OK ? n : 0;
}

static bool is_language_model(const weft_model *m) {
    return wf_model_param(m->model, "embed.weight") != NULL;
}

static int64_t vocabulary(const weft_model *m) {
    return wf_model_param(m->model, "embed.weight")->value->shape.dim[0];
}

weft_status weft_output_size(weft_model *model, int64_t *size) {
    if (model == NULL || size == NULL) return missing("weft_output_size", model == NULL ? "model" : "size");
    if (is_language_model(model)) {
        *size = vocabulary(model);
        return WEFT_OK;
    }
    wf_param *head = wf_model_param(model->model, "head.weight");
    if (head == NULL) return status(wf_fail(WF_EUNSUPPORTED, "the model has no output head"));
    *size = head->value->shape.dim[0];
    return WEFT_OK;
}

weft_status weft_run_tokens(weft_model *model, const int32_t *tokens, int64_t batch, int64_t length, float *logits,
                            size_t room) {
    if (model == NULL || tokens == NULL || logits == NULL) return missing("weft_run_tokens", "an argument");
    if (!is_language_model(model))
        return status(wf_fail(WF_EINVAL, "weft_run_tokens: this is no language model; weft_run_pictures runs picture models"));
    if (batch < 1 || length < 1 || (model->model->max_length > 0 && length > model->model->max_length))
        return status(wf_fail(WF_EINVAL,
                              "weft_run_tokens: batch %lld, length %lld: both at least 1, and the length at most %lld",
                              (long long)batch, (long long)length, (long long)model->model->max_length));
    int64_t V = vocabulary(model);
    for (int64_t i = 0; i < batch * length; i++)
        if (tokens[i] < 0 || tokens[i] >= V)
            return status(wf_fail(WF_EINVAL, "weft_run_tokens: token %d at %lld is outside the vocabulary of %lld", tokens[i],
                                  (long long)i, (long long)V));
    return status(run(model, WF_I32, WF_SHAPE(batch, length), tokens, logits, room));
}

weft_status weft_run_pictures(weft_model *model, const float *pictures, int64_t batch, float *logits, size_t room) {
    if (model == NULL || pictures == NULL || logits == NULL) return missing("weft_run_pictures", "an argument");
    int64_t c = model_number(model, "channels"), h = model_number(model, "image_height"),
            w = model_number(model, "image_width");
    if (w <= 0) w = h;
    if (is_language_model(model) || c <= 0 || h <= 0)
        return status(wf_fail(WF_EINVAL, "weft_run_pictures: this is no picture model; weft_run_tokens runs language models"));
    if (batch < 1) return status(wf_fail(WF_EINVAL, "weft_run_pictures: batch %lld: at least 1", (long long)batch));
    return status(run(model, WF_F32, WF_SHAPE(batch, c, h, w), pictures, logits, room));
}

weft_status weft_generate(weft_model *model, const int32_t *prompt, int64_t length, const weft_generate_options *options,
                          weft_on_token on_token, void *context) {
    if (model == NULL || prompt == NULL || options == NULL || on_token == NULL) return missing("weft_generate", "an argument");
    if (length < 1 || options->tokens < 0 || options->tokens > INT32_MAX - length)
        return status(wf_fail(WF_EINVAL, "weft_generate: a prompt of %lld and %lld new tokens: at least 1 and at least 0",
                              (long long)length, (long long)options->tokens));
    wf_session_opt so = {.max_length = length + options->tokens};
    if (model->model->max_length > so.max_length) so.max_length = model->model->max_length;
    wf_session *s = wf_session_new(model->model, &so);
    if (s == NULL) return WEFT_INVALID;
    wf_generate_opt go = {.tokens = options->tokens,
                          .pick = {.temperature = options->temperature, .top_k = options->top_k, .top_p = options->top_p},
                          .seed = options->seed,
                          .stop = -1};
    wf_status r = wf_generate(s, prompt, length, &go, on_token, context, NULL);
    wf_session_free(s);
    return status(r);
}

/* ---- training ---- */
typedef struct teller { /* what the caller hears of every step */
    weft_on_step on_step;
    void *context;
    int64_t steps;
} teller;

static bool tell(void *ctx, const wf_step_report *r) {
    const teller *t = ctx;
    weft_progress p = {r->step, t->steps, r->loss, r->seconds};
    return t->on_step == NULL || t->on_step(t->context, &p);
}

weft_status weft_train(const char *recipe, const char *folder, weft_on_step on_step, void *context, weft_model **model) {
    if (recipe == NULL || folder == NULL || model == NULL)
        return missing("weft_train", recipe == NULL ? "recipe" : folder == NULL ? "folder" : "model");
    *model = NULL;
    wf_value *v = wf_yaml_parse(recipe, strlen(recipe), "recipe");
    wf_run *r = v != NULL ? wf_run_new(v, NULL) : NULL;
    wf_value_free(v);
    if (r == NULL) return WEFT_INVALID;
    teller t = {on_step, context, wf_run_options(r)->steps};
    wf_train_hooks hooks = {.ctx = &t, .on_step = tell};
    wf_status s = wf_run_resume(r, folder);
    if (s == WF_OK || s == WF_ENOTFOUND) s = wf_train(r, folder, &hooks);
    wf_run_free(r);
    if (s != WF_OK) return status(s);
    char *path = wf_format("%s/model.safetensors", folder);
    if (path == NULL) return WEFT_NO_MEMORY;
    weft_status w = weft_load(path, model);
    wf_free(path);
    return w;
}
