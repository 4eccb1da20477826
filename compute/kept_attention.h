// The second half of an attention to a memory whose values do not lie where the device reads them:
// the keys were searched (memory_attention.h, coded_memory_attention.h, without an output), the
// values of those that were kept were gathered by whoever has them, and this attends to them.
#pragma once

#include <cstdint>
#include <span>

#include "compute/device.h"
#include "compute/memory_attention.h"
#include "compute/view.h"

namespace fovea::compute {

struct KeptAttentionArgs {
  // Those that were searched, of which this looks at values alone, where they have them.
  std::span<const MemoryPart> parts;
  // [n_queries, n_heads, top_k], as the search has written them; device memory.
  const int64_t* positions = nullptr;
  const float* scores = nullptr;
  int top_k = 16;
  float scale = 1.0f;
  // [n_queries · n_heads, top_k, head_dim], of the keys' type, contiguous: the values of kept keys
  // of parts without values. Others are not looked at; none where all parts have values.
  ConstView gathered;
  View output;  // = [n_queries, n_heads, head_dim], float32, contiguous
};
// The output that the search would have given, by the same sums in the same order: 0 for query
// heads that kept nothing. InvalidArgument for views of other types, shapes or layouts.
absl::Status KeptAttention(Device& device, const KeptAttentionArgs& args);

}  // namespace fovea::compute
