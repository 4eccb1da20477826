// Attention to the best keys of a memory that lies on the device: the top k of each query head by
// inner product, exact, and one softmax over them, as a partial (compute/attention.h). Focused
// Transformer, arXiv 2307.03170, section 3.1. What KeyScan and TopKAttention compute one after the
// other with the host between them, in one op.
#pragma once

#include <cstdint>
#include <span>

#include "compute/device.h"
#include "compute/view.h"

namespace fovea::compute {

// Keys and values that lie together, of one memory layer: what is stored, or a conversation's own.
struct MemoryPart {
  // [n_kv_heads, n_tokens, head_dim], both float32 or both bfloat16; tokens beside one another,
  // heads any stride apart. In the device's memory, or pinned (Device::AllocatePinned): what is
  // scanned belongs in the device's.
  ConstView keys;
  ConstView values;  // none: they lie elsewhere (see MemoryAttentionArgs::output)
  // Bit p: whether token p may be selected, [ceil(n_tokens/64)]. Device memory; null: all may.
  const uint64_t* allowed = nullptr;
};
inline constexpr int kMaxMemoryParts = 48;
inline constexpr int kMaxMemoryTopK = 1024;

struct MemoryAttentionArgs {
  ConstView queries;                  // [n_queries, n_heads, head_dim], float32, contiguous
  std::span<const MemoryPart> parts;  // up to kMaxMemoryParts, of one type and as many KV heads
  int top_k = 16;                     // 1 … kMaxMemoryTopK
  float scale = 1.0f;                 // of the scores
  // = [n_queries, n_heads, head_dim], float32, contiguous. None: the keys are searched alone,
  // values are not looked at, and KeptAttention (kept_attention.h) goes on from positions and
  // scores.
  View output;
  View lse;  // = [n_queries, n_heads], natural logarithm, float32
  // [n_queries, n_heads, top_k]: the positions of the kept keys, best first (of equal scores the
  // smaller position), −1 at the end of a row that kept fewer, and their unscaled scores, of those
  // that were kept. Positions count through the parts in their order. Device memory; null: not
  // wanted.
  int64_t* positions = nullptr;
  float* scores = nullptr;
};
// Query heads that kept nothing get output 0 and lse −inf. A NaN score is never kept. On a GPU sums
// are made in another order than KeyScan's: keys of nearly equal scores may change places.
// InvalidArgument for views of other types, shapes or layouts, or more than 2³¹ tokens.
absl::Status MemoryAttention(Device& device, const MemoryAttentionArgs& args);

}  // namespace fovea::compute
