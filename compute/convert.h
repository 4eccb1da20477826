// Elements of one float type and layout → another, times a factor for each head: how keys and
// values get into a local context and out to a memory.
#pragma once

#include <cstdint>
#include <span>

#include "compute/device.h"
#include "compute/view.h"

namespace fovea::compute {

struct ConvertArgs {
  // [n_tokens, n_heads, head_dim], float32 or bfloat16, any strides but 1 in the last dimension.
  ConstView from;
  ConstView factors = {};  // [n_heads], float32; none: all 1
  // Tokens of `from` to take, in this order; empty: all.
  std::span<const int64_t> tokens = {};
  // = from · factors, of the shape of what is taken, float32 or bfloat16 (rounded to nearest even),
  // any strides but 1 in the last dimension; does not overlap `from`.
  View to;
};
// InvalidArgument for views of other types, shapes or layouts, and for tokens that are not there.
absl::Status Convert(Device& device, const ConvertArgs& args);

}  // namespace fovea::compute
