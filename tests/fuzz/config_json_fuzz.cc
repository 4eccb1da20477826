// config.json of Hugging Face's folders, LongLLaMA's keys included.
#include "fuzz_input.h"
#include "model/weights/hugging_face_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const fovea::fuzz::ScratchFolder folder;
  const auto path = folder.Write("config.json", fovea::fuzz::AsView(data, size));
  const auto read = fovea::model::ReadHuggingFaceConfig(path);
  fovea::fuzz::CheckMessage(read.status());
  if (!read.ok()) return 0;
  const fovea::model::ModelConfig& model = read->model;
  for (const int64_t n :
       {model.vocab_size, model.hidden_size, model.intermediate_size, model.n_layers, model.n_heads,
        model.n_kv_heads, model.head_dim, model.max_position_embeddings}) {
    fovea::fuzz::Require(n > 0, "sizes that something can be computed with");
  }
  fovea::fuzz::Require(model.n_heads % model.n_kv_heads == 0, "heads in groups of one size");
  fovea::fuzz::Require(model.rms_norm_eps > 0 && model.rope_theta > 0, "positive constants");
  fovea::fuzz::Require(read->bos_id < model.vocab_size, "a beginning in the vocabulary");
  int before = -1;
  for (const int layer : read->memory.mem_layers) {
    fovea::fuzz::Require(layer > before && layer < model.n_layers, "memory layers of the model");
    before = layer;
  }
  if (model.architecture == "longllama") {
    fovea::fuzz::Require(read->memory.last_context_length > 0 && read->memory.window > 0,
                         "windows of one token or more");
    fovea::fuzz::Require(
        model.rope_scaling.linear_factor == 1.0f && model.rope_scaling.llama3_factor == 1.0f,
        "positions that LongLLaMA knows");
  }
  return 0;
}
