// A step of one token on a device where starting an op takes longer than carrying out a small one:
// all its ops are recorded once and replayed for each token of an answer (compute/device.h). What
// changes from token to token, the token and its place, lies in the device's memory. A memory in
// whose search the host takes part cannot be recorded: then what lies between its layers is, each
// piece by itself, and the memory is asked between them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

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

  // What ops of a step are queued for.
  struct Call {
    const ModelWeights& weights;
    compute::Device& device;
    const LocalContext& context;
    MemorySource* memory;
    bool wants_best;
    // The layers that ask a memory cut a step into so many pieces.
    int64_t n_pieces() const { return memory != nullptr ? weights.n_mem_layers() + 1 : 1; }
  };

  absl::Status Reserve(const ModelWeights& weights, compute::Device& device);
  // All ops of a step; recorded as one where the memory can be (`is_whole`), and replayed, from the
  // second step with a key on.
  absl::Status CarryOut(const Call& call, bool is_whole, bool is_next);
  // Queues all ops of a step.
  absl::Status Queue(const Call& call);
  // Queues those of a piece: what follows the question before it, up to the next one.
  absl::Status QueuePiece(const Call& call, int64_t piece);
  absl::Status BeforeMemory(const Call& call, int64_t layer);
  absl::Status AskMemory(const Call& call, int64_t memory_layer);
  absl::Status AfterMemory(const Call& call, int64_t layer);

  Key key_;  // of the last step
  // Of steps with key_: the whole, or its pieces. Empty: none yet.
  std::vector<std::unique_ptr<compute::Recording>> recordings_;
  compute::Buffer pinned_;  // Input, and the best id
  compute::Buffer input_;   // Input
  compute::Buffer best_id_;
  compute::Buffer x_, normed_, q_, rotated_, k_, v_, attention_, gate_, up_, lse_;
  compute::Buffer memory_output_, memory_lse_, logits_;
};

}  // namespace fovea::model
