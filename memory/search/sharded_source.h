// Several memories, or parts of one, as a single source: the best keys over all of them enter one
// softmax, as if they lay in one memory.
//
//   ASSIGN_OR_RETURN(auto source, ShardedSource::Create(device.get(), {a.get(), b.get()}, top_k));
//   RETURN_IF_ERROR(model->Forward(ids, &context, source.get(), &logits));
#pragma once

#include <memory>
#include <vector>

#include "base/status.h"
#include "compute/device.h"
#include "model/memory_source.h"

namespace fovea::memory {

// Not thread-safe. Answers in two phases. Each shard finds its own best keys; those that are among
// the best `top_k` of all stay (of equal scores the smaller key, of equal keys the earlier shard),
// each shard attends to what stays of its own, and the partials are merged. One phase would keep
// top_k keys of every shard: another model. A shard that holds nothing changes nothing. Shards
// whose keys lie on one GPU are searched in one call instead (ShardSource::AttendAsOne).
class ShardedSource final : public model::MemorySource {
 public:
  // Device and shards, at least one, outlive the source. InvalidArgument unless all results lie in
  // the same memory.
  static absl::StatusOr<std::unique_ptr<ShardedSource>> Create(
      compute::Device* device, std::vector<model::ShardSource*> shards, int top_k);

  absl::Status Attend(const model::MemoryQuery& query, float* output, float* lse) override;
  model::MemoryPlace place() const override { return shards_.front()->place(); }

 private:
  ShardedSource(compute::Device* device, std::vector<model::ShardSource*> shards, int top_k)
      : device_(device), shards_(std::move(shards)), top_k_(top_k) {}

  compute::Device* device_;
  std::vector<model::ShardSource*> shards_;
  int top_k_;
};

}  // namespace fovea::memory
