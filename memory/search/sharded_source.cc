#include "memory/search/sharded_source.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "compute/attention.h"

namespace fovea::memory {
namespace {

using compute::ScoredId;
using compute::TopK;
using model::MemoryHits;

// Puts those of one row's hits that are among the best of all shards into *kept.
void KeepBest(std::vector<MemoryHits>* hits, size_t kv_head, int64_t row, int top_k,
              std::vector<MemoryHits>* kept) {
  struct Candidate {
    ScoredId hit;
    size_t shard;
  };
  std::vector<Candidate> all;
  for (size_t shard = 0; shard < hits->size(); ++shard) {
    for (const ScoredId& hit : (*hits)[shard][kv_head].Sorted(row)) all.push_back({hit, shard});
  }
  const auto n_kept = std::min(all.size(), static_cast<size_t>(top_k));
  std::partial_sort(all.begin(), all.begin() + static_cast<ptrdiff_t>(n_kept), all.end(),
                    [](const Candidate& a, const Candidate& b) {
                      if (a.hit.score != b.hit.score) return a.hit.score > b.hit.score;
                      if (a.hit.id != b.hit.id) return a.hit.id < b.hit.id;
                      return a.shard < b.shard;
                    });
  for (size_t i = 0; i < n_kept; ++i) (*kept)[all[i].shard][kv_head].Push(row, all[i].hit);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ShardedSource>> ShardedSource::Create(
    compute::Device* device, std::vector<model::ShardSource*> shards, int top_k) {
  if (shards.empty()) return absl::InvalidArgumentError("a sharded source without shards");
  if (top_k < 1) return absl::InvalidArgumentError(StrCat("top_k ", top_k, ": want at least 1"));
  for (const model::ShardSource* shard : shards) {
    if (shard->place() == shards.front()->place()) continue;
    return absl::InvalidArgumentError(
        "results of some shards lie in the host's memory, of others in the device's: want one "
        "place");
  }
  return std::unique_ptr<ShardedSource>(new ShardedSource(device, std::move(shards), top_k));
}

absl::Status ShardedSource::Attend(const model::MemoryQuery& query, float* output, float* lse) {
  if (place() == model::MemoryPlace::kDevice) {
    return shards_.front()->AttendAsOne(shards_, query, top_k_, output, lse);
  }
  std::vector<MemoryHits> hits;
  for (model::ShardSource* shard : shards_) {
    ASSIGN_OR_RETURN(hits.emplace_back(), shard->FindTop(query, top_k_));
  }
  const int64_t n_rows = query.n_queries * (query.n_heads / query.n_kv_heads);
  const MemoryHits none(static_cast<size_t>(query.n_kv_heads), TopK(n_rows, top_k_));
  std::vector<MemoryHits> kept(shards_.size(), none);
  device_->threads().ParallelFor(
      query.n_kv_heads * n_rows, 16, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
          KeepBest(&hits, static_cast<size_t>(i / n_rows), i % n_rows, top_k_, &kept);
        }
      });

  const int64_t n_all = query.n_queries * query.n_heads;
  std::fill_n(output, n_all * query.head_dim, 0.0f);
  std::fill_n(lse, n_all, -std::numeric_limits<float>::infinity());
  std::vector<float> part_output(static_cast<size_t>(n_all * query.head_dim));
  std::vector<float> part_lse(static_cast<size_t>(n_all));
  for (size_t shard = 0; shard < shards_.size(); ++shard) {
    RETURN_IF_ERROR(
        shards_[shard]->AttendTo(query, &kept[shard], part_output.data(), part_lse.data()));
    RETURN_IF_ERROR(compute::MergePartials(
        *device_,
        {.output = {output, {query.n_queries, query.n_heads, query.head_dim}},
         .lse = {lse, {query.n_queries, query.n_heads}},
         .other_output = {part_output.data(), {query.n_queries, query.n_heads, query.head_dim}},
         .other_lse = {part_lse.data(), {query.n_queries, query.n_heads}}}));
  }
  for (size_t shard = 0; shard < shards_.size(); ++shard) {
    RETURN_IF_ERROR(shards_[shard]->AddMass(query, &kept[shard], lse));
  }
  return absl::OkStatus();
}

}  // namespace fovea::memory
