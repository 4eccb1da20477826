// Adapters: adapter_config.json NUL fot_config.json NUL adapter_model.safetensors.
#include "fuzz_input.h"
#include "model/weights/adapter.h"
#include "model/weights/fot_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const fovea::fuzz::ScratchFolder folder;
  std::string_view rest = fovea::fuzz::AsView(data, size);
  folder.Write("adapter_config.json", fovea::fuzz::TakePart(&rest));
  const auto fot_config = folder.Write("fot_config.json", fovea::fuzz::TakePart(&rest));
  folder.Write("adapter_model.safetensors", rest);
  // The shapes of the seed corpus.
  fovea::model::ModelConfig config;
  config.architecture = "llama";
  config.vocab_size = 10;
  config.hidden_size = 8;
  config.intermediate_size = 12;
  config.n_layers = 2;
  config.n_heads = 2;
  config.n_kv_heads = 1;
  config.head_dim = 4;
  fovea::fuzz::CheckMessage(fovea::model::ReadFotConfig(fot_config, config).status());
  const auto adapter = fovea::model::Adapter::Load(folder.path(), config);
  fovea::fuzz::CheckMessage(adapter.status());
  if (!adapter.ok()) return 0;
  for (const int layer : (*adapter)->memory_config().mem_layers) {
    fovea::fuzz::Require(layer >= 0 && layer < config.n_layers, "memory layers of the model");
    const size_t n_gains = (*adapter)->MemoryKeyGain(layer).size();
    fovea::fuzz::Require(n_gains == 0 || n_gains == 1, "a gain for each KV head");
  }
  const fovea::model::LoraTensors* lora = (*adapter)->Find("model.layers.0.self_attn.q_proj");
  if (lora != nullptr) {
    fovea::fuzz::Require(lora->a.size() == static_cast<size_t>(lora->rank * lora->in_features) &&
                             lora->b.size() == static_cast<size_t>(lora->rank * lora->out_features),
                         "tensors of the shapes that they claim");
  }
  (*adapter)->Fingerprint();
  return 0;
}
