// Token ids → rows of the embedding table, dequantised.
#pragma once

#include <span>

#include "compute/device.h"
#include "compute/view.h"

namespace fovea::compute {

struct EmbeddingArgs {
  ConstView table;               // [vocab_size, hidden_size], any type, contiguous
  std::span<const int32_t> ids;  // [n_tokens]; host memory, read before the op returns
  View out;                      // = [n_tokens, hidden_size], float32, contiguous
};
// InvalidArgument for views of other types or shapes; it names the first id outside
// [0, vocab_size).
absl::Status Embedding(Device& device, const EmbeddingArgs& args);

}  // namespace fovea::compute
