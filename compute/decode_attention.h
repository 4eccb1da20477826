// The local attention of one new token: its key is rotated, it and the value are appended to those
// of the tokens before, and the rotated query attends to all of them. Where the token goes is read
// from the device's memory, so that the op can be recorded once for all tokens of an answer
// (compute/device.h).
#pragma once

#include <cstdint>

#include "compute/device.h"
#include "compute/view.h"

namespace fovea::compute {

// In the device's memory.
struct TokenPlace {
  int32_t row;       // of the room: as many tokens are there before, less than the room has
  int32_t position;  // of the rotation
};

struct DecodeAttentionArgs {
  ConstView query;  // [n_heads, head_dim], float32, contiguous, before the rotation
  View rotated;     // = [n_heads, head_dim], float32, contiguous: the rotated query; not `query`
  View key;         // [n_kv_heads, head_dim], float32, contiguous; any content afterwards
  ConstView value;  // [n_kv_heads, head_dim], float32, contiguous
  // [room, n_kv_heads, head_dim], both float32 or both bfloat16, contiguous: in and out.
  View keys;
  View values;
  const TokenPlace* place = nullptr;
  ConstView inverse_frequencies;  // [head_dim/2], float32 (compute/rope.h); none: no rotation
  float scale = 1.0f;             // scores = scale · <query, key>
  View output;                    // = [n_heads, head_dim], float32, contiguous
  View lse = {};                  // = [n_heads], natural logarithm; may be none
};
// On a GPU `place` and the rows before it are read while the ops queued just before this one still
// run: they were written before a copy, or an op like Embedding, that waits for all before it.
// head_dim is even and at most kMaxDecodeHeadDim. InvalidArgument for views of other types, shapes
// or layouts; a place outside of the room is one, too, on a CPU, and not noticed on a GPU.
inline constexpr int64_t kMaxDecodeHeadDim = 256;
absl::Status DecodeAttention(Device& device, const DecodeAttentionArgs& args);

}  // namespace fovea::compute
