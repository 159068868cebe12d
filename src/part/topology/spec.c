/* spec.c: what a sublayer is made of: the recipe's entry, an item of a list of them, or one that the topology changed: a channel
 * mixer of a share of its hidden width (macaron), the heads of several layers in one (wide), attention to a context. */
#include "part/topology/stack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const wf_option *option_named(const wf_part *part, const char *name) {
    for (const wf_option *o = part->options; o && o->name; o++)
        if (!strcmp(o->name, name)) return o;
    return NULL;
}

static const wf_part *part_of(const char *slot, const char *otherwise, const wf_value *spec) {
    const wf_value *name = spec && spec->kind == WF_V_MAP ? wf_value_get(spec, "name") : spec;
    return wf_part_find(slot, name && name->kind == WF_V_TEXT ? name->text : otherwise);
}

/* An option's number: the recipe's, or the table's default. */
static wf_status number(const wf_part *part, const wf_value *spec, const char *name, double *out) {
    const wf_option *o = option_named(part, name);
    const wf_value *v = spec && spec->kind == WF_V_MAP ? wf_value_get(spec, name) : NULL;
    *out = o && o->def ? strtod(o->def, NULL) : 0;
    return v ? wf_value_real(v, out) : WF_OK;
}

/* {spec: what} with `what` owned by the map; frees `what` when it cannot be made. */
static wf_value *wrapped(wf_value *what) {
    wf_value *map = what ? wf_value_map() : NULL;
    if (map && wf_value_set(map, "spec", what) == WF_OK) return map;
    wf_value_free(map);
    return NULL;
}

/* spec with the entries of `over`, kept by the model under the sublayer's name. Takes `over`. */
static wf_status overlay(wf_module *block, const wf_sublayer_row *row, const char *otherwise, wf_value *over,
                         const wf_value **spec) {
    wf_value *base = wrapped(*spec ? wf_value_copy(*spec) : wf_value_text(otherwise)), *above = wrapped(over);
    wf_value *made = base && above ? wf_value_merge(base, above) : NULL;
    char *path = wf_arena_format(block->model->arena, "%s.%s", block->name, row->name);
    wf_value_free(base);
    wf_value_free(above);
    if (!made || !path || wf_value_set(block->model->made, path, made) != WF_OK) return WF_ENOMEM;
    *spec = wf_value_get(made, "spec");
    return WF_OK;
}

/* A list of n entries is stretched over the blocks: block i takes entry floor(i n / blocks). */
static wf_status pick(const wf_module *m, const char *slot, int64_t at, int64_t blocks, const wf_value **spec) {
    const wf_value *v = *spec;
    if (!v || v->kind != WF_V_LIST) return WF_OK;
    if (v->n >= 1 && v->n <= blocks) return *spec = v->item[at * v->n / blocks], WF_OK;
    wf_status s =
        wf_fail(WF_EINVAL, "'%s' lists %d parts for %lld block%s; give 1 to %lld, each serves its share of the blocks", slot,
                v->n, (long long)blocks, blocks == 1 ? "" : "s", (long long)blocks);
    return v->file ? wf_value_fail(v, s, "%s", wf_message()) : wf_module_fail(m, s, "%s", wf_message());
}

/* The part's hidden width times `share`, by its option `ratio`; a width that the recipe gives stands. */
static wf_status take_share(wf_module *block, const wf_sublayer_row *row, const wf_value **spec) {
    const wf_part *part = part_of("channel", "mlp", *spec);
    double hidden, ratio;
    if (!part) return WF_OK; /* making the child says so */
    WF_TRY(number(part, *spec, "hidden", &hidden));
    WF_TRY(number(part, *spec, "ratio", &ratio));
    if (hidden > 0) return WF_OK;
    if (!option_named(part, "ratio"))
        return wf_module_fail(block, WF_EUNSUPPORTED,
                              "channel.%s has no hidden width to take %g of; take channel: mlp, or topology: plain", part->name,
                              row->share);
    wf_value *over = wf_value_map();
    if (!over || wf_value_set(over, "ratio", wf_value_number(ratio * row->share)) != WF_OK) {
        wf_value_free(over);
        return WF_ENOMEM;
    }
    return overlay(block, row, "mlp", over, spec);
}

static wf_status set_int(wf_value *map, const char *key, int64_t x) {
    return wf_value_set(map, key, wf_value_number((double)x));
}

/* The heads of all layers in `blocks` blocks, each head as wide as it would be in a layer of its own. */
static wf_status widen(wf_module *block, const wf_stack_opt *o, const wf_block_plan *plan, const wf_sublayer_row *row,
                       const wf_value **spec) {
    const wf_part *part = part_of("mixer", "softmax", *spec);
    double heads, groups, width;
    if (!part) return WF_OK;
    if (!option_named(part, "heads") || !option_named(part, "head_dim"))
        return wf_module_fail(
            block, WF_EUNSUPPORTED,
            "mixer.%s has no heads that could stand side by side; take a mixer with heads (softmax, linear), or "
            "topology: plain",
            part->name);
    WF_TRY(number(part, *spec, "heads", &heads));
    WF_TRY(number(part, *spec, "kv_heads", &groups));
    WF_TRY(number(part, *spec, "head_dim", &width));
    int64_t D = block->in, H = heads >= 1 ? (int64_t)heads : D / 64 > 0 ? D / 64 : 1, K = groups >= 1 ? (int64_t)groups : 0;
    int64_t d = width >= 1 ? (int64_t)width : D / H, n = plan->blocks;
    if (width < 1 && D % H)
        return wf_module_fail(block, WF_EINVAL, "'heads' must divide the width (%lld does not divide %lld), or give head_dim",
                              (long long)H, (long long)D);
    if (o->layers * H % n || o->layers * K % n)
        return wf_module_fail(block, WF_EINVAL, "%lld layers of %lld heads do not spread evenly over %lld blocks",
                              (long long)o->layers, (long long)(o->layers * H % n ? H : K), (long long)n);
    wf_value *over = wf_value_map();
    if (!over || set_int(over, "heads", o->layers * H / n) != WF_OK || set_int(over, "head_dim", d) != WF_OK ||
        (K && set_int(over, "kv_heads", o->layers * K / n) != WF_OK)) {
        wf_value_free(over);
        return WF_ENOMEM;
    }
    return overlay(block, row, "softmax", over, spec);
}

/* Attention to the context has the heads of the block's mixer. */
static wf_status cross(wf_module *block, const wf_sublayer_row *row, const wf_value **spec) {
    static const char *const same[] = {"heads", "kv_heads", "head_dim", "bias", "qkv_bias", "out_bias"};
    const wf_value *mixer = *spec;
    wf_value *over = wf_value_map();
    bool ok = over != NULL;
    for (size_t i = 0; ok && mixer && i < sizeof same / sizeof *same; i++) {
        const wf_value *v = mixer->kind == WF_V_MAP ? wf_value_get(mixer, same[i]) : NULL;
        if (v) ok = wf_value_set(over, same[i], wf_value_copy(v)) == WF_OK;
    }
    *spec = NULL;
    if (ok) ok = wf_value_set(over, "position", wf_value_text("none")) == WF_OK;
    if (ok) return overlay(block, row, "cross", over, spec);
    wf_value_free(over);
    return WF_ENOMEM;
}

wf_status wf_sublayer_spec(wf_module *block, const wf_stack_opt *o, const wf_block_plan *plan, const wf_sublayer_row *row,
                           int64_t at, const wf_value **spec) {
    bool channel = !strcmp(row->slot, "channel");
    int64_t blocks = plan->blocks ? plan->blocks : o->layers;
    *spec = channel ? o->channel : o->mixer;
    WF_TRY(pick(block, channel ? "channel" : "mixer", at, blocks, spec));
    if (channel) return row->share > 0 && row->share != 1 ? take_share(block, row, spec) : WF_OK;
    if (plan->blocks && plan->blocks != o->layers) WF_TRY(widen(block, o, plan, row, spec));
    return !strcmp(row->slot, "cross") ? cross(block, row, spec) : WF_OK;
}
