#include "index/best_keys.h"

#include <algorithm>
#include <span>

#include "compute/memory_attention.h"
#include "index/layer_index_kinds.h"

namespace fovea::index {
namespace {

using compute::Buffer;
using compute::ScoredId;

constexpr ScoredId kNone{0.0f, -1};

absl::StatusOr<std::vector<ScoredId>> ScanOnHost(compute::Device& host,
                                                 const std::vector<HeadKeys>& keys,
                                                 const compute::ConstView& queries, int n_best) {
  const int64_t n_queries = queries.dim(0);
  const int64_t n_heads = queries.dim(1);
  const int64_t dim = queries.dim(2);
  const int64_t group = n_heads / static_cast<int64_t>(keys.size());
  std::vector<ScoredId> best(static_cast<size_t>(n_queries * n_heads * n_best), kNone);
  for (size_t kv_head = 0; kv_head < keys.size(); ++kv_head) {
    const int64_t first_head = static_cast<int64_t>(kv_head) * group;
    const compute::ConstView rows(queries.As<float>() + first_head * dim, {n_queries, group, dim});
    compute::TopK top(n_queries * group, n_best);
    RETURN_IF_ERROR(compute::KeyScan(
        host, {.queries = rows.WithStrides({n_heads * dim, dim, 1}), .runs = keys[kv_head]}, &top));
    for (int64_t row = 0; row < n_queries * group; ++row) {
      const std::span<const ScoredId> sorted = top.Sorted(row);
      const int64_t to = row / group * n_heads + first_head + row % group;
      std::copy(sorted.begin(), sorted.end(), best.begin() + to * n_best);
    }
  }
  return best;
}

absl::StatusOr<std::vector<ScoredId>> ScanOnDevice(compute::Device& device,
                                                   const std::vector<HeadKeys>& keys,
                                                   const DeviceKeys& copied,
                                                   const compute::ConstView& queries, int n_best) {
  ASSIGN_OR_RETURN(const KeyIds ids, SharedIds(keys));
  const auto n_rows = static_cast<size_t>(queries.dim(0) * queries.dim(1));
  const auto n = n_rows * static_cast<size_t>(n_best);
  const size_t query_bytes = n_rows * static_cast<size_t>(queries.dim(2)) * sizeof(float);
  ASSIGN_OR_RETURN(const Buffer on_device, device.Allocate(query_bytes));
  ASSIGN_OR_RETURN(const Buffer output, device.Allocate(query_bytes));
  ASSIGN_OR_RETURN(const Buffer lse, device.Allocate(n_rows * sizeof(float)));
  ASSIGN_OR_RETURN(const Buffer positions, device.Allocate(n * sizeof(int64_t)));
  ASSIGN_OR_RETURN(const Buffer scores, device.Allocate(n * sizeof(float)));
  RETURN_IF_ERROR(device.CopyFromHost(queries.data(), query_bytes, on_device.data<void>()));
  // What is attended to is of no interest: any values do.
  const compute::MemoryPart part{.keys = copied.view(), .values = copied.view()};
  RETURN_IF_ERROR(compute::MemoryAttention(
      device,
      {.queries = {on_device.data<float>(), {queries.dim(0), queries.dim(1), queries.dim(2)}},
       .parts = {&part, 1},
       .top_k = n_best,
       .output = {output.data<float>(), {queries.dim(0), queries.dim(1), queries.dim(2)}},
       .lse = {lse.data<float>(), {queries.dim(0), queries.dim(1)}},
       .positions = positions.data<int64_t>(),
       .scores = scores.data<float>()}));
  std::vector<int64_t> found(n);
  std::vector<float> found_scores(n);
  RETURN_IF_ERROR(device.CopyToHost(positions.data<void>(), n * sizeof(int64_t), found.data()));
  RETURN_IF_ERROR(device.CopyToHost(scores.data<void>(), n * sizeof(float), found_scores.data()));
  std::vector<ScoredId> best(n, kNone);
  for (size_t i = 0; i < n; ++i) {
    if (found[i] >= 0) best[i] = {found_scores[i], ids.At(found[i])};
  }
  return best;
}

}  // namespace

absl::StatusOr<std::vector<ScoredId>> FindBestKeys(compute::Device& device,
                                                   const std::vector<HeadKeys>& keys,
                                                   const DeviceKeys* copied,
                                                   const compute::ConstView& queries, int n_best) {
  if (copied != nullptr && queries.dim(0) > 0) {
    absl::StatusOr<std::vector<ScoredId>> best =
        ScanOnDevice(device, keys, *copied, queries, n_best);
    // Where the device has no room for it, or no kernel for the dimensions, the host does it.
    if (!absl::IsResourceExhausted(best.status()) && !absl::IsUnimplemented(best.status())) {
      return best;
    }
  }
  return ScanOnHost(device.host(), keys, queries, n_best);
}

}  // namespace fovea::index
