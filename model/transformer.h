// The forward pass of a LLaMA-family model with memory layers (Focused Transformer, arXiv
// 2307.03170, section 3.1): memory layers attend with one softmax to the causal local context and
// to what a MemorySource returns.
//
//   ASSIGN_OR_RETURN(auto model, Transformer::Load(device.get(), options));
//   LocalContext context;
//   std::vector<float> logits;
//   RETURN_IF_ERROR(model->Forward(prompt_ids, &context, memory, &logits));
//
// Several threads share one model, each with a device of the model's kind and a workspace:
//
//   const Sequence sequence{.ids = ids, .context = &context, .logits = &logits};
//   RETURN_IF_ERROR(model->Run(*device, {&sequence, 1}, &workspace));
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compute/device.h"
#include "model/config.h"
#include "model/encoded_window.h"
#include "model/local_context.h"
#include "model/memory_source.h"
#include "model/sequence.h"
#include "model/tokenizer/tokenizer.h"

namespace fovea::model {

struct LoadOptions {
  std::filesystem::path model;                   // GGUF file or safetensors folder
  std::optional<std::filesystem::path> adapter;  // folder; none: the model as it is
  // Memory layers for a model that no adapter names any for; ignored where one does.
  // InvalidArgument for a model that has others of its own.
  std::vector<int> mem_layers;
  // false: a checkpoint without a tokenizer loads too, for who has ids; tokenizer() is then not to
  // be called.
  bool needs_tokenizer = true;
};

// Weights, and what they compute. What is const is thread-safe, one Device and Workspace a thread;
// the rest uses the device of Load and is for one thread at a time.
class Transformer {
 public:
  // `device` outlives the model, or at least all calls that name no other.
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

  // Appends the sequences' ids to their contexts and runs the model over them, all together.
  // ResourceExhausted when a context would pass max_position_embeddings. After any error the
  // contexts are as they were before the call.
  virtual absl::Status Run(compute::Device& device, std::span<const Sequence> sequences,
                           Workspace* workspace) const = 0;

  // Encodes a batch of windows, layers up to the last memory layer only: a window sees itself and
  // its context tokens, from position 0, and `memory` (LongLLaMA's way; null: "window-local"). All
  // windows of a call go through the matrix products together. FailedPrecondition when the model
  // has no memory layers.
  virtual absl::StatusOr<std::vector<EncodedWindow>> Encode(compute::Device& device,
                                                            std::span<const WindowTokens> windows,
                                                            MemorySource* memory,
                                                            Workspace* workspace) const = 0;

  // What a memory takes of the whole content of a context made by ForReference or ForWindow and
  // filled by this model.
  virtual absl::StatusOr<MemoryEntries> Entries(compute::Device& device,
                                                const LocalContext& context) const = 0;

  // --- With the device of Load ---

  virtual compute::Device* device() const = 0;

  // Run of one sequence.
  absl::Status Forward(std::span<const int32_t> ids, LocalContext* context, MemorySource* memory,
                       std::vector<float>* logits, bool all_logits = false);
  // Encode without a memory.
  absl::StatusOr<std::vector<EncodedWindow>> Encode(std::span<const WindowTokens> windows);

  // Makes ready what runs of one token use; else the first such run does, and takes some tens of
  // milliseconds longer.
  virtual void PrepareSteps() = 0;

  // Sequences of one token that may be run together at most, if the results of each are to be the
  // same, bit for bit, as when it is run alone. At least 1.
  virtual int64_t max_steps_as_alone() const = 0;

 private:
  Workspace workspace_;  // of the calls with the device of Load
};

}  // namespace fovea::model
