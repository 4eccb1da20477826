// Token ids → rows of the embedding table, dequantised.
#pragma once

#include <span>

#include "compute/device.h"
#include "compute/view.h"

namespace fovea::compute {

struct EmbeddingArgs {
  ConstView table;                    // [vocab_size, hidden_size], any type, contiguous
  std::span<const int32_t> ids = {};  // [n_tokens]; host memory, read before the op returns
  // Instead of ids: one, in the device's memory, known to be in [0, vocab_size).
  const int32_t* device_id = nullptr;
  View out;  // = [n_tokens, hidden_size], float32, contiguous
};
// InvalidArgument for views of other types or shapes; it names the first id outside
// [0, vocab_size).
absl::Status Embedding(Device& device, const EmbeddingArgs& args);

// What Embedding refuses, of the id at `position` of a text.
absl::Status CheckTokenId(int32_t id, int64_t vocab_size, int64_t position);

}  // namespace fovea::compute
