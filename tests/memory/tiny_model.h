// A model folder with random weights, small enough to be made in a test: three layers, two of them
// memory layers, a vocabulary of the 256 bytes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "compute/device.h"
#include "model/tokenizer/byte_alphabet.h"
#include "model/transformer.h"
#include "nlohmann/json.hpp"

namespace fovea::memory {

constexpr int64_t kTinyHiddenSize = 32;
constexpr int64_t kTinyHeads = 4;
constexpr int64_t kTinyKvHeads = 2;
constexpr int64_t kTinyHeadDim = 8;
constexpr int64_t kTinyLayers = 3;
constexpr int kTinyEndId = 256;

// Writes config.json, tokenizer.json and model.safetensors. Another seed is another model.
//
// Where `says` is given (a few bytes, each once), the model says that again and again, whatever it
// is asked: its layers look up and attend as those of the other model do, but add nothing to its
// states, and of a token alone follows the next one.
inline absl::Status WriteTinyModel(const std::filesystem::path& folder, uint32_t seed,
                                   int64_t max_positions = 512, std::string_view says = {}) {
  using nlohmann::json;
  constexpr int64_t kVocab = kTinyEndId + 1;
  constexpr int64_t kIntermediate = 64;
  RETURN_IF_ERROR(CreateDirectories(folder));
  const json config = {{"model_type", "llama"},
                       {"vocab_size", kVocab},
                       {"hidden_size", kTinyHiddenSize},
                       {"intermediate_size", kIntermediate},
                       {"num_hidden_layers", kTinyLayers},
                       {"num_attention_heads", kTinyHeads},
                       {"num_key_value_heads", kTinyKvHeads},
                       {"max_position_embeddings", max_positions},
                       {"rms_norm_eps", 1e-5},
                       {"rope_theta", 10000.0},
                       {"tie_word_embeddings", says.empty()},
                       {"bos_token_id", kTinyEndId},
                       {"eos_token_id", kTinyEndId}};
  RETURN_IF_ERROR(WriteFileAtomic(folder / "config.json", config.dump()));

  json vocab = json::object();
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    vocab[model::ToByteAlphabet(std::string_view(&c, 1))] = byte;
  }
  const json tokenizer = {
      {"version", "1.0"},
      {"added_tokens",
       json::array({{{"id", kTinyEndId}, {"content", "<|end|>"}, {"special", true}}})},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", json::array()}}}};
  RETURN_IF_ERROR(WriteFileAtomic(folder / "tokenizer.json", tokenizer.dump()));

  std::mt19937 random(seed);
  json header = json::object();
  std::string data;
  const auto write = [&](const std::string& name, const std::vector<int64_t>& shape,
                         const std::vector<float>& values) {
    const size_t begin = data.size();
    data.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {begin, data.size()}}};
  };
  const auto make = [&](const std::vector<int64_t>& shape, bool is_norm) {
    std::vector<float> values(static_cast<size_t>(
        std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>())));
    std::normal_distribution<float> normal(0.0f,
                                           1.0f / std::sqrt(static_cast<float>(shape.back())));
    for (float& value : values) value = is_norm ? 1.0f : normal(random);
    return values;
  };
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape, bool is_norm) {
    std::vector<float> values = make(shape, is_norm);
    const bool ends_branch = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
    if (!says.empty() && ends_branch) std::fill(values.begin(), values.end(), 0.0f);
    write(name, shape, values);
  };
  std::vector<float> embeddings = make({kVocab, kTinyHiddenSize}, false);
  if (!says.empty()) {
    // A direction for each byte of `says`, and one for all other tokens.
    FOVEA_CHECK(says.size() < static_cast<size_t>(kTinyHiddenSize));
    std::vector<float> last(embeddings.size());
    const auto at = [](size_t token, size_t direction) {
      return token * static_cast<size_t>(kTinyHiddenSize) + direction;
    };
    for (size_t token = 0; token < static_cast<size_t>(kVocab); ++token) {
      const size_t place =
          token < 256 ? std::min(says.find(static_cast<char>(token)), says.size()) : says.size();
      embeddings[at(token, place)] += 4.0f;
    }
    for (size_t place = 0; place <= says.size(); ++place) {
      const size_t next = place + 1 < says.size() ? place + 1 : 0;
      last[at(static_cast<unsigned char>(says[next]), place)] = 16.0f;
    }
    write("lm_head.weight", {kVocab, kTinyHiddenSize}, last);
  }
  write("model.embed_tokens.weight", {kVocab, kTinyHiddenSize}, embeddings);
  add("model.norm.weight", {kTinyHiddenSize}, true);
  for (int64_t layer = 0; layer < kTinyLayers; ++layer) {
    const std::string prefix = StrCat("model.layers.", layer, ".");
    const int64_t kv = kTinyKvHeads * kTinyHeadDim;
    add(prefix + "input_layernorm.weight", {kTinyHiddenSize}, true);
    add(prefix + "post_attention_layernorm.weight", {kTinyHiddenSize}, true);
    add(prefix + "self_attn.q_proj.weight", {kTinyHiddenSize, kTinyHiddenSize}, false);
    add(prefix + "self_attn.k_proj.weight", {kv, kTinyHiddenSize}, false);
    add(prefix + "self_attn.v_proj.weight", {kv, kTinyHiddenSize}, false);
    add(prefix + "self_attn.o_proj.weight", {kTinyHiddenSize, kTinyHiddenSize}, false);
    add(prefix + "mlp.gate_proj.weight", {kIntermediate, kTinyHiddenSize}, false);
    add(prefix + "mlp.up_proj.weight", {kIntermediate, kTinyHiddenSize}, false);
    add(prefix + "mlp.down_proj.weight", {kTinyHiddenSize, kIntermediate}, false);
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t header_size = text.size();
  std::string file(reinterpret_cast<const char*>(&header_size), sizeof header_size);
  file += text;
  file += data;
  return WriteFileAtomic(folder / "model.safetensors", file);
}

// Sets keys of a model folder's config.json.
inline absl::Status SetConfig(const std::filesystem::path& folder, const nlohmann::json& keys) {
  const std::filesystem::path path = folder / "config.json";
  nlohmann::json config = nlohmann::json::parse(std::ifstream(path));
  config.update(keys);
  return WriteFileAtomic(path, config.dump());
}

// The model of WriteTinyModel with memory layers 1 and 2.
inline absl::StatusOr<std::unique_ptr<model::Transformer>> LoadTinyModel(
    compute::Device* device, const std::filesystem::path& folder) {
  model::LoadOptions options;
  options.model = folder;
  options.mem_layers = {1, 2};
  return model::Transformer::Load(device, options);
}

}  // namespace fovea::memory
