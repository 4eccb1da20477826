// Elements of one float type and layout → another, times a factor for each head: how keys and
// values get into a local context and out to a memory.
#pragma once

#include "compute/device.h"
#include "compute/view.h"

namespace fovea::compute {

struct ConvertArgs {
  // [n_tokens, n_heads, head_dim], float32 or bfloat16, any strides but 1 in the last dimension.
  ConstView from;
  ConstView factors = {};  // [n_heads], float32; none: all 1
  // = from · factors, the same shape, float32 or bfloat16 (rounded to nearest even), any strides
  // but 1 in the last dimension; does not overlap `from`.
  View to;
};
// InvalidArgument for views of other types, shapes or layouts.
absl::Status Convert(Device& device, const ConvertArgs& args);

}  // namespace fovea::compute
