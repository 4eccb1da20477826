// The exact nearest-key scan: inner products of queries with stored keys (bfloat16 or float32), the
// k best of each query kept. Each key is read once for all queries (all query heads of its group
// and all positions); queries stay float, products accumulate in float.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/entries.h"
#include "compute/device.h"
#include "compute/view.h"

namespace fovea::compute {

struct ScoredId {
  float score = 0.0f;  // <query, key>, unscaled
  int64_t id = 0;
};

// Keys that lie together on the device: key j of the run has id first_id + j.
struct KeyRun {
  EntryPointer keys;  // [n_keys, head_dim]
  int64_t n_keys = 0;
  int64_t first_id = 0;
};

// Keeps, per query, the `top_k` best of everything scanned so far. Equal scores: the smaller id
// wins, so that results do not depend on the number of threads or the order of the runs. A NaN
// never enters. Not thread-safe.
class TopK {
 public:
  // top_k >= 1.
  TopK(int64_t n_queries, int top_k);
  int64_t n_queries() const { return n_queries_; }
  int top_k() const { return top_k_; }
  void Push(int64_t query, ScoredId candidate);
  // A score must be at least this to enter the list of `query` (an equal one enters only with a
  // smaller id); −inf while it is not full.
  float Threshold(int64_t query) const;
  // Everything in `other` (the same shape) goes into this.
  void Merge(const TopK& other);
  // Best first; at most top_k entries. Sorts in place; the span is valid until the next Push.
  std::span<const ScoredId> Sorted(int64_t query);

 private:
  int64_t n_queries_;
  int top_k_;
  std::vector<ScoredId> heap_;   // [n_queries, top_k], each a heap with the worst in front
  std::vector<int32_t> size_;    // [n_queries]
  std::vector<uint8_t> sorted_;  // [n_queries], 1: the heap of this query lies sorted, best first
};

struct KeyScanArgs {
  // [n_tokens, group, head_dim], float32, any strides but 1 in the last dimension: the query heads
  // of one KV head, as they lie among the others. Query token · group + head has list
  // token · group + head of *best.
  ConstView queries;
  std::span<const KeyRun> runs;  // any number, keys of one type; ids must not repeat
};
// Pushes into *best (of n_tokens · group queries). Uses all threads of the device; the result does
// not depend on how many there are. InvalidArgument for shapes that do not fit each other.
absl::Status KeyScan(Device& device, const KeyScanArgs& args, TopK* best);

// The score of one query with one key: fused multiply-adds in float over the dimensions in order,
// bit for bit what KeyScan computes. Host memory.
float KeyScore(const float* query, EntryPointer key, int64_t head_dim);

// scores[i] = KeyScore(query, keys[i], head_dim), many keys at a time, on the calling thread. query
// = [head_dim], float32. The keys lie anywhere in the device's memory and have one type;
// scores.size() == keys.size(), in host memory. InvalidArgument for a query that is no such view.
absl::Status KeyScores(Device& device, const ConstView& query, std::span<const EntryPointer> keys,
                       std::span<float> scores);

}  // namespace fovea::compute
