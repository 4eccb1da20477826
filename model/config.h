// What a checkpoint says about its architecture: the LLaMA family and its memory layers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/entries.h"
#include "compute/rope.h"

namespace fovea::model {

// Names follow the Hugging Face configuration keys.
struct ModelConfig {
  std::string architecture;  // "llama", "mistral", "qwen2", "qwen3", "longllama"
  std::string name;          // of the model, as its file says; may be empty
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t n_layers = 0;
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 2048;
  float rms_norm_eps = 1e-5f;
  float rope_theta = 10000.0f;
  compute::RopeScaling rope_scaling;
  std::vector<float> rope_factors;  // divide the inverse frequencies [head_dim/2]; empty: none
  bool tie_word_embeddings = false;
  bool attention_bias = false;  // q, k, v have biases (Qwen2)
  bool qk_norm = false;         // RMSNorm of each head's query and key, before RoPE (Qwen3)
};

// Weights of the matrices: of all layers, and of the embedding, which may be the lm_head's, too.
inline int64_t NumParameters(const ModelConfig& c) {
  const int64_t attention = 2 * c.hidden_size * c.head_dim * (c.n_heads + c.n_kv_heads);
  const int64_t mlp = 3 * c.hidden_size * c.intermediate_size;
  const int64_t embedding = c.vocab_size * c.hidden_size;
  return c.n_layers * (attention + mlp) + (c.tie_word_embeddings ? 1 : 2) * embedding;
}

// How a model uses memory: fot_config.json of an adapter or beside a Hugging Face
// config.json, or a LongLLaMA config.json.
struct MemoryConfig {
  std::vector<int> mem_layers;  // counted from 0, ascending; empty: no memory
  bool mem_positionals = true;  // false: memory layers rotate nothing, local keys included
  int window = 1024;            // tokens encoded at once
  int last_context_length = 0;  // LongLLaMA: tokens that stay local at a prompt's end; else 0
  EntryType entry_type = EntryType::kBFloat16;  // of what goes to a memory: LongLLaMA's mem_dtype
  int top_k = 16;                               // keys kept per query head
  // Of mem_layers: those whose attention finds passages (they were trained for it); empty: all.
  std::vector<int> reread_layers = {};
  // Whether passages are found by attention and by words together where nothing else is asked for;
  // else by words alone. Which is better for an adapter is measured.
  bool rereads_by_both = false;
  std::string encoding = "window-local";  // or "reference": windows attend to the memory so far
  std::string chat_template;       // overrides the model's own when not empty ("chatml", …)
  bool has_system_prompt = false;  // fot_config.json names one (it may be "": none)
  std::string system_prompt;
  bool trained = false;  // an adapter (or the model itself) trained these layers for memory
};

}  // namespace fovea::model
