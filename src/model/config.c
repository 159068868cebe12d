/* config.c: from a Hugging Face config.json to a recipe, and whole checkpoints in and out. */
#include "model/import.h"

#include <string.h>

static double number(const wf_value *c, const char *key, double otherwise) {
    const wf_value *v = wf_value_get(c, key);
    double x;
    return v && v->kind == WF_V_TEXT && wf_value_real(v, &x) == WF_OK ? x : otherwise;
}

static const char *text(const wf_value *c, const char *key, const char *otherwise) {
    const wf_value *v = wf_value_get(c, key);
    return v && v->kind == WF_V_TEXT ? v->text : otherwise;
}

static bool flag(const wf_value *c, const char *key, bool otherwise) {
    const char *t = text(c, key, NULL);
    return t ? !strcmp(t, "true") : otherwise;
}

static const char *activation(const char *name) {
    static const char *const pairs[][2] = {{"gelu_new", "gelu_tanh"},
                                           {"gelu_pytorch_tanh", "gelu_tanh"},
                                           {"gelu_fast", "gelu_tanh"},
                                           {"gelu_python", "gelu"},
                                           {"swish", "silu"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (!strcmp(name, pairs[i][0])) return pairs[i][1];
    return name;
}

static char *gpt2(const wf_value *c) {
    double D = number(c, "n_embd", 768);
    return wf_format("{name: lm, width: %.0f, layers: %.0f, vocab: %.0f, length: %.0f, tied: %s, dropout: %.17g, mixer: {name: "
                     "softmax, heads: %.0f}, "
                     "channel: {name: mlp, hidden: %.0f, act: %s}, norm: {name: layernorm, eps: %.17g}}",
                     D, number(c, "n_layer", 12), number(c, "vocab_size", 50257), number(c, "n_positions", 1024),
                     flag(c, "tie_word_embeddings", true) ? "true" : "false", number(c, "resid_pdrop", 0.1),
                     number(c, "n_head", 12), number(c, "n_inner", 4 * D),
                     activation(text(c, "activation_function", "gelu_new")), number(c, "layer_norm_epsilon", 1e-5));
}

static char *llama(const wf_value *c) {
    double H = number(c, "num_attention_heads", 32), D = number(c, "hidden_size", 4096);
    return wf_format(
        "{name: lm, width: %.0f, layers: %.0f, vocab: %.0f, length: %.0f, tied: %s, bias: false, position: {name: rope, base: "
        "%.17g}, "
        "mixer: {name: softmax, heads: %.0f, kv_heads: %.0f, head_dim: %.0f, bias: %s}, channel: {name: swiglu, hidden: %.0f}, "
        "norm: {name: rmsnorm, eps: %.17g}}",
        D, number(c, "num_hidden_layers", 32), number(c, "vocab_size", 32000), number(c, "max_position_embeddings", 2048),
        flag(c, "tie_word_embeddings", false) ? "true" : "false", number(c, "rope_theta", 10000), H,
        number(c, "num_key_value_heads", H), number(c, "head_dim", D / H), flag(c, "attention_bias", false) ? "true" : "false",
        number(c, "intermediate_size", 11008), number(c, "rms_norm_eps", 1e-6));
}

static char *bert(const wf_value *c) {
    return wf_format("{name: bert, width: %.0f, layers: %.0f, vocab: %.0f, length: %.0f, types: %.0f, padding_id: %.0f, "
                     "placement: post, dropout: %.17g, "
                     "mixer: {name: softmax, heads: %.0f}, channel: {name: mlp, hidden: %.0f, act: %s}, norm: {name: "
                     "layernorm, eps: %.17g}, "
                     "pooler: true, mlm: false}",
                     number(c, "hidden_size", 768), number(c, "num_hidden_layers", 12), number(c, "vocab_size", 30522),
                     number(c, "max_position_embeddings", 512), number(c, "type_vocab_size", 2), number(c, "pad_token_id", 0),
                     number(c, "hidden_dropout_prob", 0.1), number(c, "num_attention_heads", 12),
                     number(c, "intermediate_size", 3072), activation(text(c, "hidden_act", "gelu")),
                     number(c, "layer_norm_eps", 1e-12));
}

static char *vit(const wf_value *c, bool distilled) {
    const wf_value *labels = wf_value_get(c, "id2label");
    double classes = labels && labels->kind == WF_V_MAP ? labels->n : number(c, "num_labels", 1000);
    return wf_format(
        "{name: vit, width: %.0f, layers: %.0f, image_height: %.0f, channels: %.0f, patch: %.0f, classes: %.0f, distilled: %s, "
        "dropout: %.17g, mixer: {name: softmax, heads: %.0f, qkv_bias: %s}, channel: {name: mlp, hidden: %.0f, act: %s}, "
        "norm: {name: layernorm, eps: %.17g}}",
        number(c, "hidden_size", 768), number(c, "num_hidden_layers", 12), number(c, "image_size", 224),
        number(c, "num_channels", 3), number(c, "patch_size", 16), classes, distilled ? "true" : "false",
        number(c, "hidden_dropout_prob", 0), number(c, "num_attention_heads", 12), flag(c, "qkv_bias", true) ? "true" : "false",
        number(c, "intermediate_size", 3072), activation(text(c, "hidden_act", "gelu")), number(c, "layer_norm_eps", 1e-12));
}

wf_value *wf_recipe_from_config(const wf_value *config, const wf_name_map **map) {
    const char *type = text(config, "model_type", "");
    char *yaml = NULL;
    if (!strcmp(type, "gpt2"))
        yaml = gpt2(config), *map = &wf_names_gpt2;
    else if (!strcmp(type, "llama"))
        yaml = llama(config), *map = &wf_names_llama;
    else if (!strcmp(type, "bert"))
        yaml = bert(config), *map = &wf_names_bert;
    else if (!strcmp(type, "vit"))
        yaml = vit(config, false), *map = &wf_names_vit;
    else if (!strcmp(type, "deit"))
        yaml = vit(config, true), *map = &wf_names_deit;
    else
        wf_value_fail(config, WF_EUNSUPPORTED, "model_type '%s' is not known (there are gpt2, llama, bert, vit, deit)", type);
    if (!yaml) return NULL;
    wf_value *v = wf_yaml_parse(yaml, strlen(yaml), NULL);
    wf_free(yaml);
    return v;
}

static wf_value *read_json(const char *path) {
    wf_bytes b;
    if (wf_bytes_open(path, &b) != WF_OK) return NULL;
    wf_value *v = wf_json_parse((const char *)b.p, b.n, path);
    wf_bytes_close(&b);
    return v;
}

static wf_status fill(wf_model *m, const wf_name_map *map, const char *path) {
    wf_st_file f;
    WF_TRY(wf_st_open(path, &f));
    wf_tensors set = {0};
    wf_status s = wf_tensors_read(&set, &f, "");
    if (s == WF_OK) s = wf_import(map, m, &set);
    wf_tensors_free(&set);
    wf_st_close(&f);
    return s == WF_OK ? s : wf_fail_within(s, "%s", path);
}

wf_model *wf_model_import(const char *folder) {
    char *config = wf_format("%s/config.json", folder), *weights = wf_format("%s/model.safetensors", folder);
    const wf_name_map *map = NULL;
    wf_value *c = config ? read_json(config) : NULL, *recipe = c ? wf_recipe_from_config(c, &map) : NULL;
    wf_model *m = recipe ? wf_model_build(recipe, 0) : NULL;
    if (m && (!weights || fill(m, map, weights) != WF_OK)) {
        wf_model_free(m);
        m = NULL;
    }
    wf_value_free(recipe);
    wf_value_free(c);
    wf_free(config);
    wf_free(weights);
    return m;
}

wf_status wf_model_export(const wf_model *m, const wf_name_map *map, const char *path) {
    wf_tensors set = {0};
    wf_status s = wf_export(map, m, NULL, &set);
    wf_st_item *item = wf_alloc_array((size_t)set.n + 1, sizeof *item);
    if (s == WF_OK && !item) s = WF_ENOMEM;
    for (int i = 0; s == WF_OK && i < set.n; i++) item[i] = (wf_st_item){set.item[i].name, set.item[i].value};
    const char *key = "format", *pt = "pt";
    if (s == WF_OK) s = wf_st_save(path, item, set.n, &key, &pt, 1);
    wf_free(item);
    wf_tensors_free(&set);
    return s;
}
