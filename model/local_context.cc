#include "model/local_context.h"

#include <algorithm>
#include <atomic>

namespace fovea::model {

using compute::Buffer;
using compute::Device;
using compute::DType;

compute::View LocalContext::SampledQueries(int64_t memory_layer) const {
  return {DType::kBF16,
          sampled_queries_[static_cast<size_t>(memory_layer)].data<void>(),
          {static_cast<int64_t>(sampled_tokens_.size()), n_heads_, head_dim_}};
}

absl::Status LocalContext::Grow(Device& device, int64_t capacity, Buffer* buffer) const {
  const size_t token_bytes = static_cast<size_t>(n_kv_heads_ * head_dim_) *
                             static_cast<size_t>(compute::Traits(dtype_).block_bytes);
  ASSIGN_OR_RETURN(Buffer larger, device.Allocate(static_cast<size_t>(capacity) * token_bytes));
  if (n_tokens_ > 0) {
    RETURN_IF_ERROR(device.Copy(buffer->data<void>(), static_cast<size_t>(n_tokens_) * token_bytes,
                                larger.data<void>()));
  }
  *buffer = std::move(larger);
  return absl::OkStatus();
}

absl::Status LocalContext::CheckRoom(const ModelConfig& config, int64_t n) const {
  if (n_tokens_ + n <= config.max_position_embeddings || is_reference_) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      StrCat("local context: ", n_tokens_, " + ", n, " tokens, the model takes ",
             config.max_position_embeddings, ": ask a shorter question or re-read fewer passages"));
}

absl::Status LocalContext::Reserve(Device& device, const ModelConfig& config,
                                   const MemoryConfig& memory, int64_t n_tokens) {
  const auto n_layers = static_cast<size_t>(config.n_layers);
  const size_t n_mem_layers = memory.mem_layers.size();
  if (capacity_ == 0) {
    n_heads_ = config.n_heads;
    n_kv_heads_ = config.n_kv_heads;
    head_dim_ = config.head_dim;
    values_.resize(n_layers);
  }
  if (values_.size() != n_layers || n_kv_heads_ != config.n_kv_heads ||
      head_dim_ != config.head_dim) {
    return absl::InvalidArgumentError(StrCat("local context: of a model with ", values_.size(),
                                             " layers of ", n_kv_heads_, " heads of ", head_dim_,
                                             ", this one has ", n_layers, " of ", config.n_kv_heads,
                                             " of ", config.head_dim));
  }
  if (!sampled_tokens_.empty() && sampled_queries_.empty()) {
    for (size_t m = 0; m < n_mem_layers; ++m) {
      const size_t n_values = sampled_tokens_.size() * static_cast<size_t>(n_heads_ * head_dim_);
      ASSIGN_OR_RETURN(Buffer queries, device.Allocate(n_values * sizeof(BFloat16)));
      sampled_queries_.push_back(std::move(queries));
    }
  }
  if (n_tokens <= capacity_) return absl::OkStatus();
  // A window is filled once.
  const int64_t capacity = is_window_
                               ? n_tokens
                               : std::min(std::max<int64_t>({n_tokens, 2 * capacity_, 512}),
                                          std::max(n_tokens, config.max_position_embeddings));
  if (keeps_layers()) keys_.resize(n_layers);
  if (keeps_entries()) memory_keys_.resize(n_mem_layers);
  for (Buffer& buffer : keys_) RETURN_IF_ERROR(Grow(device, capacity, &buffer));
  for (size_t l = 0; l < n_layers; ++l) {
    const bool is_kept =
        keeps_layers() ||
        std::count(memory.mem_layers.begin(), memory.mem_layers.end(), static_cast<int>(l)) > 0;
    if (is_kept) RETURN_IF_ERROR(Grow(device, capacity, &values_[l]));
  }
  for (Buffer& buffer : memory_keys_) RETURN_IF_ERROR(Grow(device, capacity, &buffer));
  capacity_ = capacity;
  static std::atomic<uint64_t> n_rooms = 0;
  room_id_ = ++n_rooms;
  return absl::OkStatus();
}

}  // namespace fovea::model
