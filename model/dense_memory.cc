#include "model/dense_memory.h"

#include <algorithm>
#include <limits>

#include "compute/attention.h"

namespace fovea::model {

absl::Status DenseMemory::Attend(const MemoryQuery& query, float* output, float* lse) {
  const auto layer = static_cast<size_t>(query.memory_layer);
  if (entries_.n_tokens == 0) {
    const int64_t n_rows = query.n_queries * query.n_heads;
    std::fill(output, output + n_rows * query.head_dim, 0.0f);
    std::fill(lse, lse + n_rows, -std::numeric_limits<float>::infinity());
    return absl::OkStatus();
  }
  FOVEA_CHECK(layer < entries_.keys.size());
  const auto entries = [&](const std::vector<float>& numbers) {
    return compute::ConstView(numbers.data(),
                              {entries_.n_tokens, query.n_kv_heads, query.head_dim});
  };
  return compute::Attention(
      *device_, {.queries = {query.queries, {query.n_queries, query.n_heads, query.head_dim}},
                 .keys = entries(entries_.keys[layer]),
                 .values = entries(entries_.values[layer]),
                 .scale = query.scale,
                 .causal = false,
                 .output = {output, {query.n_queries, query.n_heads, query.head_dim}},
                 .lse = {lse, {query.n_queries, query.n_heads}}});
}

absl::Status DenseMemory::Append(MemoryEntries entries) {
  entries_.keys.resize(entries.keys.size());
  entries_.values.resize(entries.values.size());
  const auto append = [this](const std::vector<float>& from, std::vector<float>* to) {
    to->reserve(to->size() + from.size());
    for (const float x : from) {
      to->push_back(type_ == EntryType::kBFloat16 ? static_cast<float>(BFloat16(x)) : x);
    }
  };
  for (size_t m = 0; m < entries.keys.size(); ++m) {
    append(entries.keys[m], &entries_.keys[m]);
    append(entries.values[m], &entries_.values[m]);
  }
  entries_.n_tokens += entries.n_tokens;
  return absl::OkStatus();
}

}  // namespace fovea::model
