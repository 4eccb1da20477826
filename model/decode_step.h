// A step of one token on a device where starting an op takes longer than carrying out a small one:
// all its ops are recorded once and replayed for each token of an answer (compute/device.h). What
// changes from token to token, the token and its place, lies in the device's memory.
#pragma once

#include <cstdint>
#include <memory>

#include "base/status.h"
#include "compute/decode_attention.h"
#include "compute/device.h"
#include "model/model_weights.h"
#include "model/sequence.h"

namespace fovea::model {

class DecodeStep {
 public:
  // Whether single tokens of a context take its ops.
  static bool Suits(const ModelWeights& weights, const compute::Device& device,
                    const LocalContext& context);
  // Whether a run of these sequences is such a step.
  static bool Takes(const ModelWeights& weights, const compute::Device& device,
                    std::span<const Sequence> sequences);

  // What Transformer::Run does with a sequence that Takes() takes. `workspace` keeps the recording.
  static absl::Status Run(const ModelWeights& weights, compute::Device& device,
                          const Sequence& sequence, Workspace* workspace);

 private:
  // What a recording depends on.
  struct Key {
    const ModelWeights* weights = nullptr;
    MemorySource* memory = nullptr;
    uint64_t memory_id = 0;
    const LocalContext* context = nullptr;
    uint64_t room_id = 0;  // of the context
    bool wants_best = false;
    bool operator==(const Key&) const = default;
  };
  // What a step reads, in pinned memory and in the device's.
  struct Input {
    compute::TokenPlace place;
    int32_t id;
  };

  absl::Status Reserve(const ModelWeights& weights, compute::Device& device);
  // Queues all ops of a step.
  absl::Status Queue(const ModelWeights& weights, compute::Device& device,
                     const LocalContext& context, MemorySource* memory, bool wants_best);
  absl::Status AttendToMemory(const ModelWeights& weights, compute::Device& device,
                              MemorySource* memory, int64_t memory_layer);

  Key key_;                                        // of the last step
  std::unique_ptr<compute::Recording> recording_;  // of a step with key_; null: none yet
  compute::Buffer pinned_;                         // Input, and the best id
  compute::Buffer input_;                          // Input
  compute::Buffer best_id_;
  compute::Buffer x_, normed_, q_, rotated_, k_, v_, attention_, gate_, up_, lse_;
  compute::Buffer memory_output_, memory_lse_, logits_;
};

}  // namespace fovea::model
