#include "memory/search/device_dense_attention.h"

#include <limits>

#include "compute/attention.h"

namespace fovea::memory {

using compute::ConstView;
using compute::View;

absl::Status DeviceDenseAttention::Attend(std::span<const compute::CodedMemoryPart> parts,
                                          std::span<const PartRun> runs,
                                          const model::MemoryQuery& query, float* output,
                                          float* lse) {
  const int64_t n_rows = query.n_queries * query.n_heads;
  if (runs.empty()) {
    RETURN_IF_ERROR(device_->Fill(0.0f, n_rows * query.head_dim, output));
    return device_->Fill(-std::numeric_limits<float>::infinity(), n_rows, lse);
  }
  const auto outputs = [&](float* data) {
    return View(data, {query.n_queries, query.n_heads, query.head_dim});
  };
  const auto sums = [&](float* data) { return View(data, {query.n_queries, query.n_heads}); };
  if (runs.size() > 1) {
    RETURN_IF_ERROR(device_->Reserve(static_cast<size_t>(n_rows * query.head_dim) * sizeof(float),
                                     &other_output_));
    RETURN_IF_ERROR(device_->Reserve(static_cast<size_t>(n_rows) * sizeof(float), &other_lse_));
  }
  bool is_first = true;
  for (const PartRun& run : runs) {
    // Heads lie apart, [n_kv_heads, n_tokens, head_dim]; attention takes tokens first.
    const auto tokens_first = [&](const ConstView& entries) {
      return ConstView(entries.dtype(), entries.data(),
                       {entries.dim(1), entries.dim(0), entries.dim(2)})
          .WithStrides({entries.stride(1), entries.stride(0), 1})
          .Rows(run.begin, run.end - run.begin);
    };
    const compute::MemoryPart& part = parts[run.part].entries;
    const View to = outputs(is_first ? output : other_output_.data<float>());
    const View to_lse = sums(is_first ? lse : other_lse_.data<float>());
    RETURN_IF_ERROR(compute::Attention(
        *device_, {.queries = {query.queries, {query.n_queries, query.n_heads, query.head_dim}},
                   .keys = tokens_first(part.keys),
                   .values = tokens_first(part.values),
                   .scale = query.scale,
                   .causal = false,
                   .output = to,
                   .lse = to_lse}));
    if (!is_first) {
      RETURN_IF_ERROR(compute::MergePartials(
          *device_,
          {.output = outputs(output), .lse = sums(lse), .other_output = to, .other_lse = to_lse}));
    }
    is_first = false;
  }
  return absl::OkStatus();
}

}  // namespace fovea::memory
