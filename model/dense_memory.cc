#include "model/dense_memory.h"

#include <limits>
#include <utility>

#include "compute/attention.h"

namespace fovea::model {

absl::Status DenseMemory::Attend(const MemoryQuery& query, float* output, float* lse) {
  const auto layer = static_cast<size_t>(query.memory_layer);
  const int64_t n_rows = query.n_queries * query.n_heads;
  if (entries_.n_tokens == 0) {
    RETURN_IF_ERROR(device_->Fill(0.0f, n_rows * query.head_dim, output));
    return device_->Fill(-std::numeric_limits<float>::infinity(), n_rows, lse);
  }
  FOVEA_CHECK(layer < entries_.keys.size());
  if (keys_.empty()) {
    const auto upload = [this](const std::vector<std::vector<float>>& from,
                               std::vector<compute::Buffer>* to) -> absl::Status {
      for (const std::vector<float>& numbers : from) {
        ASSIGN_OR_RETURN(compute::Buffer buffer,
                         device_->UploadConstant(numbers.data(), numbers.size() * sizeof(float)));
        to->push_back(std::move(buffer));
      }
      return absl::OkStatus();
    };
    values_.clear();
    RETURN_IF_ERROR(upload(entries_.values, &values_));
    RETURN_IF_ERROR(upload(entries_.keys, &keys_));
  }
  const auto view = [&](const compute::Buffer& buffer) {
    return compute::ConstView(buffer.data<float>(),
                              {entries_.n_tokens, query.n_kv_heads, query.head_dim});
  };
  return compute::Attention(
      *device_, {.queries = {query.queries, {query.n_queries, query.n_heads, query.head_dim}},
                 .keys = view(keys_[layer]),
                 .values = view(values_[layer]),
                 .scale = query.scale,
                 .causal = false,
                 .output = {output, {query.n_queries, query.n_heads, query.head_dim}},
                 .lse = {lse, {query.n_queries, query.n_heads}}});
}

absl::Status DenseMemory::Append(MemoryEntries entries) {
  keys_.clear();
  values_.clear();
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
