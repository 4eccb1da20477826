// The forward pass of a LLaMA-family model with memory layers (Focused Transformer, arXiv
// 2307.03170, section 3.1): memory layers attend with one softmax to the causal local context and
// to what a MemorySource returns.
//
//   ASSIGN_OR_RETURN(auto model, Transformer::Load(device.get(), options));
//   LocalContext context;
//   std::vector<float> logits;
//   RETURN_IF_ERROR(model->Forward(prompt_ids, &context, memory, &logits));
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/entries.h"
#include "base/float16.h"
#include "compute/device.h"
#include "model/config.h"
#include "model/memory_source.h"
#include "model/tokenizer/tokenizer.h"

namespace fovea::model {

struct LoadOptions {
  std::filesystem::path model;                   // GGUF file or safetensors folder
  std::optional<std::filesystem::path> adapter;  // folder; none: the model as it is
  // Memory layers for a model that no adapter names any for; ignored otherwise.
  std::vector<int> mem_layers;
  // false: a checkpoint without a tokenizer loads too, for who has ids; tokenizer() is then not to
  // be called.
  bool needs_tokenizer = true;
};

// Keys and values of the local context, one per layer; float32, keys rotated. Belongs to the model
// that filled it. Not thread-safe.
class LocalContext {
 public:
  // For LongLLaMA's inference (model/reference_session.h): keeps the memory layers' keys without
  // rotation too, so that they can go to a memory, and takes more than max_position_embeddings.
  static LocalContext ForReference() {
    LocalContext context;
    context.is_reference_ = true;
    return context;
  }
  // The same for one window that goes to a memory whole: keeps nothing but what the memory takes,
  // so that nothing can be appended to it. A model runs no layer whose results nobody asks for.
  static LocalContext ForWindow() {
    LocalContext context = ForReference();
    context.is_window_ = true;
    return context;
  }

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

 private:
  friend class Transformer;
  bool is_reference_ = false;
  bool is_window_ = false;
  int64_t n_tokens_ = 0;
  int64_t n_padding_ = 0;
  int64_t capacity_ = 0;
  // Per layer [capacity, n_kv_heads, head_dim]; of a window no keys, and values of memory layers.
  std::vector<compute::Buffer> keys_;
  std::vector<compute::Buffer> values_;
  // Per memory layer [capacity, n_kv_heads, head_dim], before RoPE; for the reference only.
  std::vector<compute::Buffer> unrotated_keys_;
};

// What a memory takes of tokens: keys before RoPE, times the layer's key gain, and values.
struct MemoryEntries {
  int64_t n_tokens = 0;
  std::vector<std::vector<float>> keys;    // [n_mem_layers][n_tokens, n_kv_heads, head_dim]
  std::vector<std::vector<float>> values;  // [n_mem_layers][n_tokens, n_kv_heads, head_dim]
};

// One window to encode: `context` tokens are seen but not stored (the overlap with the previous
// window of the same document).
struct WindowTokens {
  std::span<const int32_t> context;  // may be empty
  std::span<const int32_t> tokens;   // at least one
};

// Keys (before RoPE, times the layer's key gain) and values of one window, per memory layer, in the
// type of the model's memory entries (MemoryConfig::entry_type).
struct EncodedWindow {
  int64_t n_tokens = 0;
  std::vector<EntryVector> keys;    // [n_mem_layers][n_tokens, n_kv_heads, head_dim]
  std::vector<EntryVector> values;  // [n_mem_layers][n_tokens, n_kv_heads, head_dim]
  // Queries (with their local rotation) of a few evenly spaced tokens, a sample of real queries for
  // calibrating indexes.
  int64_t n_sampled = 0;
  std::vector<std::vector<BFloat16>> queries;  // [n_mem_layers][n_sampled, n_heads, head_dim]
};

// The same in `type`, without queries.
EncodedWindow ToEncodedWindow(MemoryEntries entries, EntryType type);

// Not thread-safe: one thread at a time, as its Device.
class Transformer {
 public:
  static absl::StatusOr<std::unique_ptr<Transformer>> Load(compute::Device* device,
                                                           const LoadOptions& options);
  virtual ~Transformer() = default;

  virtual const ModelConfig& config() const = 0;
  virtual const MemoryConfig& memory_config() const = 0;
  virtual const Tokenizer& tokenizer() const = 0;
  // Hash of weights, adapter, memory layers and tokenizer, 32 hex digits: memories made with equal
  // fingerprints can be read with this model.
  virtual const std::string& fingerprint() const = 0;

  virtual int64_t n_mem_layers() const = 0;

  // Window-local encoding of a batch of windows, layers up to the last memory layer only: a window
  // sees itself and its context tokens, from position 0. All windows of a call go through the
  // matrix products together.
  // FailedPrecondition when the model has no memory layers.
  virtual absl::StatusOr<std::vector<EncodedWindow>> Encode(
      std::span<const WindowTokens> windows) = 0;

  // Appends `ids` to the local context and runs the model over them. `memory` may be null.
  // `logits` (may be null) = [vocab_size] of the last token, or [ids.size(), vocab_size] with
  // all_logits. ResourceExhausted when the context would pass max_position_embeddings; the context
  // is then unchanged. After any other error the context is as it was before the call.
  virtual absl::Status Forward(std::span<const int32_t> ids, LocalContext* context,
                               MemorySource* memory, std::vector<float>* logits,
                               bool all_logits = false) = 0;

  // Makes ready what Forward with one token uses; else the first such call does, and takes some
  // tens of milliseconds longer.
  virtual void PrepareSteps() = 0;

  // Encodes one window that attends to `memory` (LongLLaMA's way), from position 0, layers up to
  // the last memory layer only.
  virtual absl::StatusOr<EncodedWindow> EncodeAttending(std::span<const int32_t> ids,
                                                        MemorySource* memory) = 0;

  // The device that the model runs on.
  virtual compute::Device* device() const = 0;

  // The whole content of a context made by ForReference or ForWindow and filled by this model.
  virtual MemoryEntries Entries(const LocalContext& context) const = 0;

 protected:
  // Implementations reach into LocalContext through these.
  static std::vector<compute::Buffer>& ContextKeys(LocalContext* c) { return c->keys_; }
  static std::vector<compute::Buffer>& ContextValues(LocalContext* c) { return c->values_; }
  static std::vector<compute::Buffer>& ContextUnrotatedKeys(LocalContext* c) {
    return c->unrotated_keys_;
  }
  static const std::vector<compute::Buffer>& ContextValues(const LocalContext& c) {
    return c.values_;
  }
  static const std::vector<compute::Buffer>& ContextUnrotatedKeys(const LocalContext& c) {
    return c.unrotated_keys_;
  }
  static bool IsReference(const LocalContext& c) { return c.is_reference_; }
  static bool IsWindow(const LocalContext& c) { return c.is_window_; }
  static int64_t& ContextTokens(LocalContext* c) { return c->n_tokens_; }
  static int64_t& ContextCapacity(LocalContext* c) { return c->capacity_; }
};

}  // namespace fovea::model
