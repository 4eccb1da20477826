#include "memory/search/dense_attention.h"

#include <algorithm>
#include <limits>

#include "compute/attention.h"

namespace fovea::memory {

using compute::ConstView;
using compute::View;

absl::Status AttendDensely(compute::Device& device, SearchedWindows& windows,
                           const model::MemoryQuery& query, float* output, float* lse) {
  const int64_t n_all = query.n_queries * query.n_heads;
  const int64_t n_kv_heads = windows.n_kv_heads();
  const int64_t d = query.head_dim;
  std::fill_n(output, n_all * d, 0.0f);
  std::fill_n(lse, n_all, -std::numeric_limits<float>::infinity());
  std::vector<float> part_output(static_cast<size_t>(n_all * d));
  std::vector<float> part_lse(static_cast<size_t>(n_all));
  return windows.ForEachSelectable(
      query.memory_layer, [&](const SelectableTokens& tokens) -> absl::Status {
        const auto view = [&](EntryPointer entries) {  // stored with heads outermost
          return ConstView(entries + tokens.begin * d, {tokens.end - tokens.begin, n_kv_heads, d})
              .WithStrides({d, tokens.n_tokens * d, 1});
        };
        const View part(part_output.data(), {query.n_queries, query.n_heads, d});
        const View part_sums(part_lse.data(), {query.n_queries, query.n_heads});
        RETURN_IF_ERROR(compute::Attention(
            device, {.queries = {query.queries, {query.n_queries, query.n_heads, d}},
                     .keys = view(tokens.keys),
                     .values = view(tokens.values),
                     .scale = query.scale,
                     .causal = false,
                     .output = part,
                     .lse = part_sums}));
        return compute::MergePartials(device,
                                      {.output = {output, {query.n_queries, query.n_heads, d}},
                                       .lse = {lse, {query.n_queries, query.n_heads}},
                                       .other_output = part,
                                       .other_lse = part_sums});
      });
}

}  // namespace fovea::memory
