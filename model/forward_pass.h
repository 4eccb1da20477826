// One run of a model over some sequences: the loop over the layers. A layer is three steps, so that
// the memory, which may need the host, stands by itself: what comes before it and after it is the
// same sequence of ops for every run of the same shape, and may be captured as such.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include "base/status.h"
#include "compute/attention.h"
#include "compute/device.h"
#include "model/model_weights.h"
#include "model/sequence.h"

namespace fovea::model {

class ForwardPass {
 public:
  // All outlive the pass.
  ForwardPass(const ModelWeights& weights, compute::Device& device,
              std::span<const Sequence> sequences, Workspace* workspace);

  // What Transformer::Run does.
  absl::Status Run();

 private:
  // Checks the sequences, makes room, and looks their tokens up: x = embeddings.
  absl::Status Begin();
  // x → queries, keys and values; these into the contexts, rotated; the partial attention to the
  // local contexts, with its log-sum-exp where a memory follows.
  absl::Status BeforeMemory(int64_t layer);
  // Each sequence's memory: a second partial.
  absl::Status AttendToMemory(int64_t layer);
  // Merges the partials; output projection and MLP: x for the next layer.
  absl::Status AfterMemory(int64_t layer);
  absl::Status Logits();

  // Rows of a sequence among those of all.
  struct Rows {
    int64_t begin = 0;
    int64_t n = 0;
    int64_t past = 0;  // tokens that its context had before
  };
  absl::Status Reserve();
  // Queries, keys and values of one sequence, into its context; adds the attention to it, where one
  // is wanted.
  absl::Status PrepareLocally(int64_t layer, const Sequence& sequence, const Rows& rows,
                              const compute::View& keys, const compute::View& values,
                              std::vector<compute::AttentionArgs>* attentions);
  // Whether sequence i takes one token as a recorded step does (model/decode_step.h): an answer's
  // tokens are the same bit for bit, whoever is beside it.
  bool IsStep(size_t i) const;
  absl::Status StepLocally(int64_t layer, size_t i, const compute::View& key,
                           const compute::View& value);
  MemoryRequest RequestOf(int64_t memory_layer, const Sequence& sequence, const Rows& rows) const;
  // Of a memory that takes queries in the host's memory.
  absl::Status AttendOnHost(const MemoryRequest& request);
  bool Attends(const Sequence& sequence, int64_t layer) const {
    return sequence.memory != nullptr && weights_.MemoryIndex(layer) >= 0;
  }
  // Whether nothing but the memory's entries is wanted: a run ends with the last memory layer's.
  bool WantsEntriesOnly() const;
  // Views of the workspace's buffers, rows `begin` … `begin + n − 1`.
  compute::View Matrix(const compute::Buffer& buffer, int64_t begin, int64_t n,
                       int64_t width) const;
  compute::View Heads(const compute::Buffer& buffer, int64_t begin, int64_t n,
                      int64_t n_heads) const;
  compute::View Hidden(const compute::Buffer& buffer) const {
    return Matrix(buffer, 0, n_rows_, weights_.config().hidden_size);
  }

  // [n_rows, width] that `products` of all rows take: `otherwise`, or in bfloat16, where that is
  // what they would round it to.
  absl::StatusOr<compute::View> FactorOf(std::initializer_list<const compute::Linear*> products,
                                         const compute::View& otherwise);

  const ModelWeights& weights_;
  compute::Device& device_;
  std::span<const Sequence> sequences_;
  Workspace& work_;
  std::vector<Rows> rows_;  // [n_sequences]
  int64_t n_rows_ = 0;
};

}  // namespace fovea::model
