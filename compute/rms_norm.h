// RMSNorm (Zhang and Sennrich 2019): out[t, i] = x[t, i] / sqrt(mean_i(x[t, i]²) + eps) ·
// weight[i].
#pragma once

#include "compute/device.h"
#include "compute/view.h"

namespace fovea::compute {

struct RmsNormArgs {
  ConstView x;       // [n_tokens, hidden_size], float32, contiguous
  ConstView weight;  // [hidden_size], float32
  // = [n_tokens, hidden_size], contiguous; float32, which may be x, or bfloat16 (rounded to nearest
  // even)
  View out;
  float eps = 1e-5f;
};
// InvalidArgument for views of other types or shapes.
absl::Status RmsNorm(Device& device, const RmsNormArgs& args);

}  // namespace fovea::compute
