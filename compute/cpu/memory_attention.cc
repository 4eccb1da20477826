#include "compute/cpu/memory_attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "compute/cpu/ops.h"
#include "compute/key_scan.h"

namespace fovea::compute::cpu {
namespace {

EntryPointer EntriesOf(const ConstView& view) {
  return {view.dtype() == DType::kF32 ? EntryType::kFloat32 : EntryType::kBFloat16, view.data()};
}

// The value at a position of a KV head, of a part that has values; null where it has none.
EntryPointer ValueAt(std::span<const MemoryPart> parts, int64_t position, int64_t kv_head,
                     int64_t head_dim) {
  const MemoryPart* part = parts.data();
  while (position >= part->keys.dim(1)) position -= (part++)->keys.dim(1);
  if (part->values.is_none()) return {EntryType::kFloat32, nullptr};
  return EntriesOf(part->values) + kv_head * part->values.stride(0) + position * head_dim;
}

// out = [head_dim]: one softmax over `hits`, the log-sum-exp of whose scores is `lse`, of
// value_at(j), of hit j. Scratch: `value`, [head_dim].
template <typename ValueAt>
void AddValues(std::span<const ScoredId> hits, float scale, float lse, ValueAt value_at,
               std::vector<float>* value, float* out) {
  const size_t head_dim = value->size();
  std::fill_n(out, head_dim, 0.0f);
  for (size_t j = 0; j < hits.size(); ++j) {
    const float weight = std::exp(hits[j].score * scale - lse);
    EntriesToFloat(value_at(j), value->data(), head_dim);
    for (size_t i = 0; i < head_dim; ++i) out[i] += weight * (*value)[i];
  }
}

// visit(begin, end) for each run of positions whose bits are set.
template <typename Visit>
void ForEachAllowedRun(const uint64_t* allowed, int64_t n, Visit visit) {
  if (allowed == nullptr) return visit(int64_t{0}, n);
  const auto is_allowed = [&](int64_t p) { return (allowed[p / 64] >> (p % 64) & 1) != 0; };
  for (int64_t begin = 0; begin < n;) {
    if (!is_allowed(begin)) {
      ++begin;
      continue;
    }
    int64_t end = begin + 1;
    while (end < n && is_allowed(end)) ++end;
    visit(begin, end);
    begin = end;
  }
}

}  // namespace

ConstView QueriesOf(const ConstView& queries, int64_t kv_head, int64_t group) {
  const int64_t n_heads = queries.dim(1);
  const int64_t head_dim = queries.dim(2);
  return ConstView(queries.As<float>() + kv_head * group * head_dim,
                   {queries.dim(0), group, head_dim})
      .WithStrides({n_heads * head_dim, head_dim, 1});
}

EntryPointer KeysOf(const MemoryPart& part, int64_t kv_head) {
  return EntriesOf(part.keys) + kv_head * part.keys.stride(0);
}

absl::Status ScanPart(CpuDevice& device, const ConstView& queries, const MemoryPart& part,
                      int64_t first_position, std::vector<TopK>* kept) {
  const auto n_kv_heads = static_cast<int64_t>(kept->size());
  for (int64_t kv_head = 0; kv_head < n_kv_heads; ++kv_head) {
    std::vector<KeyRun> runs;
    ForEachAllowedRun(part.allowed, part.keys.dim(1), [&](int64_t begin, int64_t end) {
      runs.push_back(
          {KeysOf(part, kv_head) + begin * queries.dim(2), end - begin, first_position + begin});
    });
    RETURN_IF_ERROR(KeyScan(
        device, {.queries = QueriesOf(queries, kv_head, queries.dim(1) / n_kv_heads), .runs = runs},
        &(*kept)[static_cast<size_t>(kv_head)]));
  }
  return absl::OkStatus();
}

void AttendToKept(CpuDevice& device, const MemoryAttentionArgs& args, std::vector<TopK>* kept) {
  const int64_t n_heads = args.queries.dim(1);
  const int64_t head_dim = args.queries.dim(2);
  const int64_t group = n_heads / static_cast<int64_t>(kept->size());
  auto* const output = args.output.As<float>();
  auto* const lse = args.lse.As<float>();
  device.threads().ParallelFor(
      args.queries.dim(0) * n_heads, 16, [&](int64_t begin, int64_t end, int) {
        std::vector<float> value(static_cast<size_t>(head_dim));
        for (int64_t row = begin; row < end; ++row) {
          const int64_t kv_head = row % n_heads / group;
          const std::span<const ScoredId> hits = (*kept)[static_cast<size_t>(kv_head)].Sorted(
              row / n_heads * group + row % n_heads % group);
          lse[row] = LogSumExp(hits, args.scale);
          for (size_t j = 0; j < static_cast<size_t>(args.top_k); ++j) {
            const bool is_kept = j < hits.size();
            const size_t at = static_cast<size_t>(row * args.top_k) + j;
            if (args.positions != nullptr) args.positions[at] = is_kept ? hits[j].id : -1;
            if (is_kept && args.scores != nullptr) args.scores[at] = hits[j].score;
          }
          if (args.output.is_none()) continue;
          AddValues(
              hits, args.scale, lse[row],
              [&](size_t j) { return ValueAt(args.parts, hits[j].id, kv_head, head_dim); }, &value,
              output + row * head_dim);
        }
      });
}

absl::Status KeptAttention(CpuDevice& device, const KeptAttentionArgs& args) {
  const int64_t n_heads = args.output.dim(1);
  const int64_t head_dim = args.output.dim(2);
  const int64_t group = n_heads / args.parts[0].keys.dim(0);
  device.threads().ParallelFor(
      args.output.dim(0) * n_heads, 16, [&](int64_t begin, int64_t end, int) {
        std::vector<float> value(static_cast<size_t>(head_dim));
        std::vector<ScoredId> hits;
        for (int64_t row = begin; row < end; ++row) {
          hits.clear();
          for (int64_t at = row * args.top_k; at < (row + 1) * args.top_k; ++at) {
            if (args.positions[at] < 0) break;
            hits.push_back({args.scores[at], args.positions[at]});
          }
          const auto value_at = [&](size_t j) {
            const EntryPointer resident =
                ValueAt(args.parts, hits[j].id, row % n_heads / group, head_dim);
            if (resident.address() != nullptr) return resident;
            return EntriesOf(args.gathered) +
                   (row * args.top_k + static_cast<int64_t>(j)) * head_dim;
          };
          AddValues(hits, args.scale, LogSumExp(hits, args.scale), value_at, &value,
                    args.output.As<float>() + row * head_dim);
        }
      });
  return absl::OkStatus();
}

absl::Status MemoryAttention(CpuDevice& device, const MemoryAttentionArgs& args) {
  const int64_t n_kv_heads = args.parts[0].keys.dim(0);
  const int64_t n_rows = args.queries.dim(0) * (args.queries.dim(1) / n_kv_heads);
  std::vector<TopK> kept(static_cast<size_t>(n_kv_heads), TopK(n_rows, args.top_k));
  int64_t first_position = 0;
  for (const MemoryPart& part : args.parts) {
    RETURN_IF_ERROR(ScanPart(device, args.queries, part, first_position, &kept));
    first_position += part.keys.dim(1);
  }
  AttendToKept(device, args, &kept);
  return absl::OkStatus();
}

}  // namespace fovea::compute::cpu
