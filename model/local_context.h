// Keys and values of the tokens that a model has seen: what its layers attend to beside a memory.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/status.h"
#include "compute/device.h"
#include "compute/view.h"
#include "model/config.h"

namespace fovea::model {

// Lies in memory of the device that the model ran on; belongs to the model that filled it. Not
// thread-safe.
class LocalContext {
 public:
  // `dtype`: float32, or bfloat16, which takes half the room and is rounded once, to nearest even.
  explicit LocalContext(compute::DType dtype = compute::DType::kF32) : dtype_(dtype) {
    FOVEA_CHECK(dtype == compute::DType::kF32 || dtype == compute::DType::kBF16);
  }
  // For LongLLaMA's inference (model/reference_session.h): keeps what a memory takes of its tokens
  // as well, in float32, and takes more than max_position_embeddings.
  static LocalContext ForReference() {
    LocalContext context;
    context.is_reference_ = true;
    return context;
  }
  // For windows that go to a memory whole: keeps nothing but what the memory takes, so that nothing
  // can be appended to it. A model runs no layer whose results nobody asks for.
  struct WindowOptions {
    compute::DType entries = compute::DType::kF32;  // or bfloat16: what they are kept in
    std::vector<int64_t> sampled_tokens = {};       // whose queries are kept as well
    // Several windows whose tokens lie one after another, [n_windows + 1], from 0 to the number of
    // tokens: each sees itself alone, from position 0. Empty: one window.
    std::vector<int64_t> begins = {};
  };
  static LocalContext ForWindow(WindowOptions options) {
    LocalContext context(options.entries);
    context.is_reference_ = context.is_window_ = true;
    context.sampled_tokens_ = std::move(options.sampled_tokens);
    context.window_begins_ = std::move(options.begins);
    return context;
  }

  compute::DType dtype() const { return dtype_; }
  int64_t n_tokens() const { return n_tokens_; }
  // Positions before the first token that hold nothing: left padding. They take part in no
  // attention; the first token has position n_padding().
  int64_t n_padding() const { return n_padding_; }
  // Only while there are no tokens.
  void AddPadding(int64_t n) {
    FOVEA_CHECK(n_tokens_ == 0);
    n_padding_ += n;
  }
  void Clear() { n_tokens_ = n_padding_ = 0; }
  // Forgets all but the first n tokens (n ≤ n_tokens()).
  void Truncate(int64_t n_tokens) { n_tokens_ = n_tokens; }

  // --- For the forward pass and who takes the entries out ---

  bool is_reference() const { return is_reference_; }
  bool is_window() const { return is_window_; }
  // Whether keys and values of every layer stay, for tokens to come.
  bool keeps_layers() const { return !is_window_; }
  // Whether memory keys, and the values of memory layers, stay.
  bool keeps_entries() const { return is_reference_; }
  const std::vector<int64_t>& sampled_tokens() const { return sampled_tokens_; }
  const std::vector<int64_t>& window_begins() const { return window_begins_; }

  // ResourceExhausted where n tokens more than there are would be too many for the model.
  absl::Status CheckRoom(const ModelConfig& config, int64_t n) const;
  // Makes room for n_tokens in all, keeping those that are there. ResourceExhausted;
  // InvalidArgument where a model of another shape filled it.
  absl::Status Reserve(compute::Device& device, const ModelConfig& config,
                       const MemoryConfig& memory, int64_t n_tokens);
  // The room of tokens first … first + n − 1 becomes theirs: n_tokens() = n.
  void SetTokens(int64_t n) { n_tokens_ = n; }

  // Names the room as it lies in memory: another one after it grew, and in every other context.
  uint64_t room_id() const { return room_id_; }
  int64_t room() const { return capacity_; }

  // Tokens first … first + n − 1 of the room, [n, n_kv_heads, head_dim]. Keys are rotated.
  compute::View Keys(int64_t layer, int64_t first, int64_t n) const {
    return Rows(keys_[static_cast<size_t>(layer)], first, n);
  }
  // Of a window: of memory layers alone.
  compute::View Values(int64_t layer, int64_t first, int64_t n) const {
    return Rows(values_[static_cast<size_t>(layer)], first, n);
  }
  // Before RoPE, times the layer's key gain. `memory_layer`: an index into mem_layers.
  compute::View MemoryKeys(int64_t memory_layer, int64_t first, int64_t n) const {
    return Rows(memory_keys_[static_cast<size_t>(memory_layer)], first, n);
  }
  // [n_sampled, n_heads, head_dim], bfloat16, with their local rotation.
  compute::View SampledQueries(int64_t memory_layer) const;

 private:
  compute::View Rows(const compute::Buffer& buffer, int64_t first, int64_t n) const {
    const compute::View room(dtype_, buffer.data<void>(), {capacity_, n_kv_heads_, head_dim_});
    return room.Rows(first, n);
  }
  absl::Status Grow(compute::Device& device, int64_t capacity, compute::Buffer* buffer) const;

  compute::DType dtype_;
  bool is_reference_ = false;
  bool is_window_ = false;
  std::vector<int64_t> sampled_tokens_;
  std::vector<int64_t> window_begins_;
  int64_t n_tokens_ = 0;
  int64_t n_padding_ = 0;
  int64_t capacity_ = 0;
  uint64_t room_id_ = 0;
  int64_t n_heads_ = 0;
  int64_t n_kv_heads_ = 0;
  int64_t head_dim_ = 0;
  std::vector<compute::Buffer> keys_;             // [n_layers] or none
  std::vector<compute::Buffer> values_;           // [n_layers]
  std::vector<compute::Buffer> memory_keys_;      // [n_mem_layers] or none
  std::vector<compute::Buffer> sampled_queries_;  // [n_mem_layers] or none
};

}  // namespace fovea::model
