#include "compute/top_k_attention.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>

#include "compute/cpu/ops.h"

namespace fovea::compute::cpu {
namespace {

// Rows of a few hundred operations each.
constexpr int64_t kRowsPerRange = 16;

// out[0 … n) += factor · the numbers at `from`, which need not be a multiple of their size.
template <typename T>
void AddScaledNumbers(const void* from, float factor, int64_t n, float* __restrict out) {
  const auto* const __restrict bytes = static_cast<const std::byte*>(from);
  for (int64_t j = 0; j < n; ++j) {
    T number;
    std::memcpy(&number, bytes + j * static_cast<int64_t>(sizeof(T)), sizeof(T));
    out[j] += factor * static_cast<float>(number);
  }
}

void AddScaled(EntryPointer numbers, float factor, int64_t n, float* out) {
  if (numbers.type() == EntryType::kFloat32) {
    AddScaledNumbers<float>(numbers.address(), factor, n, out);
  } else {
    AddScaledNumbers<BFloat16>(numbers.address(), factor, n, out);
  }
}

// visit(row, kv_head, kept) for each query and head; rows in parallel.
template <typename Visit>
void ForEachRow(CpuDevice& device, std::span<TopK> kept, int64_t n_queries, int64_t n_heads,
                Visit visit) {
  const int64_t group = n_heads / static_cast<int64_t>(kept.size());
  device.threads().ParallelFor(
      n_queries * n_heads, kRowsPerRange, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row) {
          const int64_t head = row % n_heads;
          TopK& list = kept[static_cast<size_t>(head / group)];
          visit(row, head / group, list.Sorted(row / n_heads * group + head % group));
        }
      });
}

}  // namespace

absl::Status TopKAttention(CpuDevice& device, const TopKAttentionArgs& args) {
  const int64_t n_queries = args.output.dim(0);
  const int64_t n_heads = args.output.dim(1);
  const int64_t head_dim = args.output.dim(2);
  const int64_t top_k = args.kept[0].top_k();
  auto* const output = args.output.As<float>();
  auto* const lse = args.lse.As<float>();
  ForEachRow(device, args.kept, n_queries, n_heads,
             [&](int64_t row, int64_t kv_head, std::span<const ScoredId> kept) {
               float* const out = output + row * head_dim;
               std::fill_n(out, head_dim, 0.0f);
               lse[row] = LogSumExp(kept, args.scale);
               const EntryPlace* const places = args.places.data() + row * top_k;
               for (size_t j = 0; j < kept.size(); ++j) {
                 const float weight = std::exp(kept[j].score * args.scale - lse[row]);
                 AddScaled(args.values.At(places[j], kv_head, head_dim), weight, head_dim, out);
               }
             });
  return absl::OkStatus();
}

absl::Status TopKWeights(CpuDevice& device, const TopKWeightsArgs& args) {
  const int64_t top_k = args.kept[0].top_k();
  const auto* const lse = args.lse.As<float>();
  const auto* const other_lse = args.other_lse.As<float>();
  auto* const weights = args.weights.As<float>();
  ForEachRow(device, args.kept, args.lse.dim(0), args.lse.dim(1),
             [&](int64_t row, int64_t, std::span<const ScoredId> kept) {
               const float total =
                   other_lse != nullptr ? LogAddExp(lse[row], other_lse[row]) : lse[row];
               float* const out = weights + row * top_k;
               for (size_t j = 0; j < kept.size(); ++j) {
                 out[j] = std::exp(kept[j].score * args.scale - total);
               }
               std::fill(out + kept.size(), out + top_k, 0.0f);
             });
  return absl::OkStatus();
}

}  // namespace fovea::compute::cpu
