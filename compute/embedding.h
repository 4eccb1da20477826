// Token ids → rows of the embedding table, dequantised.
#pragma once

#include <span>

#include "compute/device.h"
#include "compute/dtype.h"

namespace fovea::compute {

struct EmbeddingArgs {
  DType dtype = DType::kF32;
  const std::byte* table = nullptr;  // [vocab_size, hidden_size], stored rows
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  std::span<const int32_t> ids;  // [n_tokens]; host memory
  float* out = nullptr;          // = [n_tokens, hidden_size]
};
// InvalidArgument names the first id outside [0, vocab_size).
absl::Status Embedding(Device& device, const EmbeddingArgs& args);

}  // namespace fovea::compute
