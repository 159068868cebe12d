/* registry.c: the models, for the catalogue of parts. */
#include "model/model.h"

void wf_models_register(void) {
    static const wf_part *const models[] = {&wf_model_lm,    &wf_model_vit,        &wf_model_bert,
                                            &wf_model_stack, &wf_model_classifier, &wf_model_metaformer};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) wf_part_register_model(models[i]);
}
