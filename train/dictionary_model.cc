#include "train/dictionary_model.h"

#include <array>
#include <nlohmann/json.hpp>

#include "base/status.h"
#include "model/tokenizer/byte_alphabet.h"

namespace fovea::train {
namespace {

using nlohmann::json;

constexpr int32_t kSymbols = static_cast<int32_t>(texts::kDictionarySymbols.size());
constexpr int32_t kLineEndId = kSymbols + 2;

// A question with its answer fits many times.
constexpr int64_t kMaxPositions = 2048;

}  // namespace

model::ModelConfig DictionaryModelConfig(const DictionaryModelShape& shape) {
  model::ModelConfig config;
  config.architecture = "qwen3";
  config.name = "dictionary";
  config.vocab_size = kDictionaryTokens;
  config.hidden_size = shape.hidden_size;
  config.intermediate_size = shape.intermediate_size;
  config.n_layers = shape.n_layers;
  config.n_heads = shape.n_heads;
  config.n_kv_heads = shape.n_heads;
  config.head_dim = shape.hidden_size / shape.n_heads;
  config.max_position_embeddings = kMaxPositions;
  config.rms_norm_eps = 1e-6f;
  config.qk_norm = true;
  return config;
}

ModelFiles DictionaryModelFiles(const model::ModelConfig& config) {
  const json model = {{"model_type", config.architecture},
                      {"architectures", {"Qwen3ForCausalLM"}},
                      {"vocab_size", config.vocab_size},
                      {"hidden_size", config.hidden_size},
                      {"intermediate_size", config.intermediate_size},
                      {"num_hidden_layers", config.n_layers},
                      {"num_attention_heads", config.n_heads},
                      {"num_key_value_heads", config.n_kv_heads},
                      {"head_dim", config.head_dim},
                      {"max_position_embeddings", config.max_position_embeddings},
                      {"rms_norm_eps", 1e-6},
                      {"rope_theta", config.rope_theta},
                      {"hidden_act", "silu"},
                      {"attention_bias", false},
                      {"tie_word_embeddings", config.tie_word_embeddings},
                      {"bos_token_id", nullptr},
                      {"eos_token_id", kLineEndId}};
  json vocabulary = json::object();
  const auto add = [&](char c, int32_t id) {
    vocabulary[model::ToByteAlphabet(std::string_view(&c, 1))] = id;
  };
  for (int32_t id = 0; id < kSymbols; ++id) {
    add(texts::kDictionarySymbols[static_cast<size_t>(id)], id);
  }
  add(texts::kDefines, kSymbols);
  add(texts::kAsks, kSymbols + 1);
  add('\n', kLineEndId);
  const json tokenizer = {
      {"version", "1.0"},
      {"added_tokens", json::array()},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", json::array()}}}};
  constexpr int kIndent = 1;
  return {{"config.json", model.dump(kIndent) + "\n"},
          {"tokenizer.json", tokenizer.dump(kIndent) + "\n"}};
}

Tokens EncodeDictionaryText(std::string_view text) {
  static const std::array<int32_t, 256> ids = [] {
    std::array<int32_t, 256> by_byte;
    by_byte.fill(-1);
    for (int32_t id = 0; id < kSymbols; ++id) {
      by_byte[static_cast<uint8_t>(texts::kDictionarySymbols[static_cast<size_t>(id)])] = id;
    }
    by_byte[static_cast<uint8_t>(texts::kDefines)] = kSymbols;
    by_byte[static_cast<uint8_t>(texts::kAsks)] = kSymbols + 1;
    by_byte[static_cast<uint8_t>('\n')] = kLineEndId;
    return by_byte;
  }();
  Tokens tokens;
  for (const char c : text) {
    const int32_t id = ids[static_cast<uint8_t>(c)];
    FOVEA_CHECK(id >= 0);
    tokens.push_back(id);
  }
  return tokens;
}

}  // namespace fovea::train
