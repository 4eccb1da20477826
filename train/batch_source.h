// Where a training run takes its batches from.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "train/crossbatch.h"
#include "train/losses.h"
#include "train/torch.h"

namespace fovea::train {

struct TrainingBatch {
  // int64 [n_entries, context_tokens]; undefined: a step without a memory, or, where something is
  // seen, one whose contexts are the queries themselves
  torch::Tensor contexts;
  torch::Tensor queries;  // int64 [n_entries, query_tokens]
  torch::Tensor targets;  // int64 [n_entries, query_tokens]: the next id, or −100
  torch::Tensor weights;  // float32 [n_entries]; undefined: all the same
  SeenContexts seen;      // the entry's own context first; empty: nothing is seen
  // int64 [n_entries, teacher_tokens], questions that are asked of the memory alone; undefined:
  // none
  torch::Tensor teacher;
  std::vector<Taught> taught;
  std::vector<Ask> asks;  // in the own context
  std::vector<Ask> own;   // the last thing that an entry asks, or its last token: its whole context
};

// Thread-safe: a batch depends on the seed, the step and d alone.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  // `d`: contexts that each entry sees, at most most_contexts(); 0: a step without a memory.
  virtual absl::StatusOr<TrainingBatch> Make(uint64_t step, int64_t d) const = 0;
  virtual int64_t most_contexts() const = 0;
  virtual uint64_t seed() const = 0;
};

}  // namespace fovea::train
