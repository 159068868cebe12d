/* names.c: the tables of foreign names. Weft's are those of part.h's dotted paths. */
#include "model/import.h"

#include <string.h>

/* clang-format off */
#define BOTH(f, o) {f ".weight", o ".weight", 0}, {f ".bias", o ".bias", 0}
#define CONV1D(f, o) {f ".weight", o ".weight", WF_NAME_TRANSPOSED}, {f ".bias", o ".bias", 0}

static const wf_name_rule gpt2[] = {
    {"~wte.weight", "embed.weight", 0},
    {"~wpe.weight", "position.table", 0},
    BOTH("~h.{}.ln_1", "blocks.{}.mixer_in_norm"),
    CONV1D("~h.{}.attn.c_attn", "blocks.{}.mixer.q"),
    CONV1D("~h.{}.attn.c_attn", "blocks.{}.mixer.k"),
    CONV1D("~h.{}.attn.c_attn", "blocks.{}.mixer.v"),
    CONV1D("~h.{}.attn.c_proj", "blocks.{}.mixer.o"),
    BOTH("~h.{}.ln_2", "blocks.{}.channel_in_norm"),
    CONV1D("~h.{}.mlp.c_fc", "blocks.{}.channel.up"),
    CONV1D("~h.{}.mlp.c_proj", "blocks.{}.channel.down"),
    BOTH("~ln_f", "final_norm"),
    {"lm_head.weight", "head.weight", 0},
    {0},
};
static const char *const gpt2_ignore[] = {"~h.{}.attn.bias", "~h.{}.attn.masked_bias", "lm_head.weight", NULL};
const wf_name_map wf_names_gpt2 = {"gpt2", "transformer.", gpt2, gpt2_ignore};

static const wf_name_rule llama[] = {
    {"~embed_tokens.weight", "embed.weight", 0},
    {"~layers.{}.input_layernorm.weight", "blocks.{}.mixer_in_norm.weight", 0},
    BOTH("~layers.{}.self_attn.q_proj", "blocks.{}.mixer.q"),
    BOTH("~layers.{}.self_attn.k_proj", "blocks.{}.mixer.k"),
    BOTH("~layers.{}.self_attn.v_proj", "blocks.{}.mixer.v"),
    BOTH("~layers.{}.self_attn.o_proj", "blocks.{}.mixer.o"),
    {"~layers.{}.post_attention_layernorm.weight", "blocks.{}.channel_in_norm.weight", 0},
    BOTH("~layers.{}.mlp.gate_proj", "blocks.{}.channel.gate"),
    BOTH("~layers.{}.mlp.up_proj", "blocks.{}.channel.up"),
    BOTH("~layers.{}.mlp.down_proj", "blocks.{}.channel.down"),
    {"~norm.weight", "final_norm.weight", 0},
    {"lm_head.weight", "head.weight", 0},
    {0},
};
static const char *const llama_ignore[] = {"~layers.{}.self_attn.rotary_emb.inv_freq", "lm_head.weight", NULL};
const wf_name_map wf_names_llama = {"llama", "model.", llama, llama_ignore};

static const wf_name_rule bert[] = {
    {"~embeddings.word_embeddings.weight", "embed.weight", 0},
    {"~embeddings.position_embeddings.weight", "position.table", 0},
    {"~embeddings.token_type_embeddings.weight", "types.weight", 0},
    BOTH("~embeddings.LayerNorm", "embed_norm"),
    BOTH("~encoder.layer.{}.attention.self.query", "blocks.{}.mixer.q"),
    BOTH("~encoder.layer.{}.attention.self.key", "blocks.{}.mixer.k"),
    BOTH("~encoder.layer.{}.attention.self.value", "blocks.{}.mixer.v"),
    BOTH("~encoder.layer.{}.attention.output.dense", "blocks.{}.mixer.o"),
    BOTH("~encoder.layer.{}.attention.output.LayerNorm", "blocks.{}.mixer_res_norm"),
    BOTH("~encoder.layer.{}.intermediate.dense", "blocks.{}.channel.up"),
    BOTH("~encoder.layer.{}.output.dense", "blocks.{}.channel.down"),
    BOTH("~encoder.layer.{}.output.LayerNorm", "blocks.{}.channel_res_norm"),
    BOTH("~pooler.dense", "pooler"),
    BOTH("cls.predictions.transform.dense", "mlm"),
    BOTH("cls.predictions.transform.LayerNorm", "mlm_norm"),
    {"cls.predictions.bias", "mlm_bias", 0},
    BOTH("cls.seq_relationship", "nsp"),
    {0},
};
static const char *const bert_ignore[] = {"~embeddings.position_ids", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias", NULL};
const wf_name_map wf_names_bert = {"bert", "bert.", bert, bert_ignore};

#define HF_VIT_BODY                                                                                                          \
    {"~embeddings.cls_token", "class_token", WF_NAME_LEAD2}, {"~embeddings.distillation_token", "dist_token", WF_NAME_LEAD2},  \
        {"~embeddings.position_embeddings", "positions", WF_NAME_LEAD1},                                                      \
        {"~embeddings.patch_embeddings.projection.weight", "patch.weight", WF_NAME_PATCH},                                    \
        {"~embeddings.patch_embeddings.projection.bias", "patch.bias", 0},                                                    \
        BOTH("~encoder.layer.{}.layernorm_before", "blocks.{}.mixer_in_norm"),                                                \
        BOTH("~encoder.layer.{}.attention.attention.query", "blocks.{}.mixer.q"),                                             \
        BOTH("~encoder.layer.{}.attention.attention.key", "blocks.{}.mixer.k"),                                               \
        BOTH("~encoder.layer.{}.attention.attention.value", "blocks.{}.mixer.v"),                                             \
        BOTH("~encoder.layer.{}.attention.output.dense", "blocks.{}.mixer.o"),                                                \
        BOTH("~encoder.layer.{}.layernorm_after", "blocks.{}.channel_in_norm"),                                               \
        BOTH("~encoder.layer.{}.intermediate.dense", "blocks.{}.channel.up"),                                                 \
        BOTH("~encoder.layer.{}.output.dense", "blocks.{}.channel.down"), BOTH("~layernorm", "final_norm")

static const wf_name_rule vit[] = {HF_VIT_BODY, BOTH("classifier", "head"), {0}};
static const wf_name_rule deit[] = {HF_VIT_BODY, BOTH("cls_classifier", "head"), BOTH("distillation_classifier", "head_dist"), {0}};
static const char *const vit_ignore[] = {"~pooler.dense.weight", "~pooler.dense.bias", NULL};
const wf_name_map wf_names_vit = {"vit", "vit.", vit, vit_ignore};
const wf_name_map wf_names_deit = {"deit", "deit.", deit, vit_ignore};

static const wf_name_rule timm[] = {
    {"cls_token", "class_token", WF_NAME_LEAD2},
    {"dist_token", "dist_token", WF_NAME_LEAD2},
    {"pos_embed", "positions", WF_NAME_LEAD1},
    {"patch_embed.proj.weight", "patch.weight", WF_NAME_PATCH},
    {"patch_embed.proj.bias", "patch.bias", 0},
    BOTH("blocks.{}.norm1", "blocks.{}.mixer_in_norm"),
    BOTH("blocks.{}.attn.qkv", "blocks.{}.mixer.q"),
    BOTH("blocks.{}.attn.qkv", "blocks.{}.mixer.k"),
    BOTH("blocks.{}.attn.qkv", "blocks.{}.mixer.v"),
    BOTH("blocks.{}.attn.proj", "blocks.{}.mixer.o"),
    {"blocks.{}.ls1.gamma", "blocks.{}.mixer_scale", 0},
    BOTH("blocks.{}.norm2", "blocks.{}.channel_in_norm"),
    BOTH("blocks.{}.mlp.fc1", "blocks.{}.channel.up"),
    BOTH("blocks.{}.mlp.fc2", "blocks.{}.channel.down"),
    {"blocks.{}.ls2.gamma", "blocks.{}.channel_scale", 0},
    BOTH("norm", "final_norm"),
    BOTH("head", "head"),
    BOTH("head_dist", "head_dist"),
    {0},
};
static const char *const nothing[] = {NULL};
const wf_name_map wf_names_timm = {"timm", "", timm, nothing};

static const wf_name_rule simple[] = {
    BOTH("to_patch_embedding.1", "patch_in_norm"),
    BOTH("to_patch_embedding.2", "patch"),
    BOTH("to_patch_embedding.3", "patch_out_norm"),
    BOTH("transformer.layers.{}.0.norm", "blocks.{}.mixer_in_norm"),
    BOTH("transformer.layers.{}.0.to_qkv", "blocks.{}.mixer.q"),
    BOTH("transformer.layers.{}.0.to_qkv", "blocks.{}.mixer.k"),
    BOTH("transformer.layers.{}.0.to_qkv", "blocks.{}.mixer.v"),
    BOTH("transformer.layers.{}.0.to_out", "blocks.{}.mixer.o"),
    BOTH("transformer.layers.{}.1.net.0", "blocks.{}.channel_in_norm"),
    BOTH("transformer.layers.{}.1.net.1", "blocks.{}.channel.up"),
    BOTH("transformer.layers.{}.1.net.3", "blocks.{}.channel.down"),
    BOTH("transformer.norm", "final_norm"),
    BOTH("linear_head", "head"),
    {0},
};
const wf_name_map wf_names_simple_vit = {"simple-vit", "", simple, nothing};
/* clang-format on */

const wf_name_map *wf_names_find(const char *name) {
    static const wf_name_map *const all[] = {&wf_names_gpt2, &wf_names_llama, &wf_names_bert,      &wf_names_vit,
                                             &wf_names_deit, &wf_names_timm,  &wf_names_simple_vit};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(all[i]->name, name)) return all[i];
    wf_fail(WF_ENOTFOUND, "no table of names '%s' (there are gpt2, llama, bert, vit, deit, timm, simple-vit)", name);
    return NULL;
}
