#include "compute/key_scan.h"

#include <algorithm>
#include <limits>

#include "compute/check_argument.h"
#include "compute/cpu/key_scan.h"
#include "compute/unavailable.h"

namespace fovea::compute {
namespace {

bool IsBetter(const ScoredId& a, const ScoredId& b) {
  return a.score > b.score || (a.score == b.score && a.id < b.id);
}

// Puts `item` in the place of the worst of a heap of `size`.
void ReplaceWorst(ScoredId* heap, int32_t size, ScoredId item) {
  int32_t hole = 0;
  while (true) {
    int32_t child = 2 * hole + 1;
    if (child >= size) break;
    if (child + 1 < size && IsBetter(heap[child], heap[child + 1])) ++child;  // the worse child
    if (!IsBetter(item, heap[child])) break;
    heap[hole] = heap[child];
    hole = child;
  }
  heap[hole] = item;
}

}  // namespace

TopK::TopK(int64_t n_queries, int top_k)
    : n_queries_(n_queries),
      top_k_(top_k),
      heap_(static_cast<size_t>(n_queries) * static_cast<size_t>(top_k)),
      size_(static_cast<size_t>(n_queries)),
      sorted_(static_cast<size_t>(n_queries)) {
  FOVEA_CHECK(top_k >= 1);
}

void TopK::Push(int64_t query, ScoredId candidate) {
  if (candidate.score != candidate.score) return;
  ScoredId* heap = heap_.data() + query * top_k_;
  int32_t& size = size_[query];
  if (sorted_[query] != 0) {
    // Best first, read backwards, is a heap with the worst in front.
    std::reverse(heap, heap + size);
    sorted_[query] = 0;
  }
  if (size < top_k_) {
    heap[size++] = candidate;
    std::push_heap(heap, heap + size, IsBetter);
  } else if (IsBetter(candidate, heap[0])) {
    ReplaceWorst(heap, size, candidate);
  }
}

float TopK::Threshold(int64_t query) const {
  if (size_[query] < top_k_) return -std::numeric_limits<float>::infinity();
  return heap_[query * top_k_ + (sorted_[query] != 0 ? top_k_ - 1 : 0)].score;
}

void TopK::Merge(const TopK& other) {
  FOVEA_CHECK(other.n_queries_ == n_queries_ && other.top_k_ == top_k_);
  for (int64_t query = 0; query < n_queries_; ++query) {
    const ScoredId* items = other.heap_.data() + query * top_k_;
    for (int32_t i = 0; i < other.size_[query]; ++i) Push(query, items[i]);
  }
}

std::span<const ScoredId> TopK::Sorted(int64_t query) {
  ScoredId* heap = heap_.data() + query * top_k_;
  if (sorted_[query] == 0) {
    std::sort(heap, heap + size_[query], IsBetter);
    sorted_[query] = 1;
  }
  return {heap, static_cast<size_t>(size_[query])};
}

absl::Status KeyScan(Device& device, const KeyScanArgs& args, TopK* best) {
  RETURN_IF_ERROR(CheckArgument(device, "KeyScan", "queries", args.queries, kFloat32,
                                {kAnySize, kAnySize, kAnySize}, Layout::kDenseRows));
  const int64_t n_queries = args.queries.dim(0) * args.queries.dim(1);
  const int64_t head_dim = args.queries.dim(2);
  if (head_dim < 1) {
    return absl::InvalidArgumentError(StrCat("KeyScan: queries have the shape ",
                                             args.queries.ShapeText(),
                                             ", want at least one dimension of a head"));
  }
  for (const int i : {0, 1}) {
    if (args.queries.dim(i) <= 1 || args.queries.stride(i) >= head_dim) continue;
    return absl::InvalidArgumentError(StrCat("KeyScan: queries lie ", args.queries.stride(i),
                                             " floats apart, want at least ", head_dim));
  }
  if (best->n_queries() != n_queries) {
    return absl::InvalidArgumentError(
        StrCat("KeyScan: the result holds ", best->n_queries(), " queries, want ", n_queries));
  }
  const KeyRun* first = nullptr;
  for (const KeyRun& run : args.runs) {
    if (run.n_keys == 0) continue;
    if (first == nullptr) first = &run;
    if (run.keys.type() == first->keys.type()) continue;
    return absl::InvalidArgumentError(StrCat("KeyScan: runs of ", EntryTypeName(run.keys.type()),
                                             " and of ", EntryTypeName(first->keys.type()),
                                             " keys, want one type in a call"));
  }
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::KeyScan(cpu::AsCpu(device), args, best);
    case DeviceKind::kCuda:
      return Unavailable("KeyScan");
  }
  return absl::OkStatus();
}

float KeyScore(const float* query, EntryPointer key, int64_t head_dim) {
  return cpu::KeyScore(query, key, head_dim);
}

absl::Status KeyScores(Device& device, const ConstView& query, std::span<const EntryPointer> keys,
                       std::span<float> scores) {
  RETURN_IF_ERROR(CheckArgument(device, "KeyScores", "query", query, kFloat32, {kAnySize}));
  FOVEA_CHECK(keys.size() == scores.size());
  const DeviceScope scope(device);
  switch (device.kind()) {
    case DeviceKind::kCpu:
      return cpu::KeyScores(cpu::AsCpu(device), query, keys, scores);
    case DeviceKind::kCuda:
      return Unavailable("KeyScores");
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute
