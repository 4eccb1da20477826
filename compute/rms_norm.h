// RMSNorm (Zhang and Sennrich 2019): out[t, i] = x[t, i] / sqrt(mean_i(x[t, i]²) + eps) ·
// weight[i].
#pragma once

#include "compute/device.h"

namespace fovea::compute {

struct RmsNormArgs {
  const float* x = nullptr;       // [n_tokens, hidden_size]
  const float* weight = nullptr;  // [hidden_size]
  float* out = nullptr;           // = [n_tokens, hidden_size]; may be x
  int64_t n_tokens = 0;
  int64_t hidden_size = 0;
  float eps = 1e-5f;
};
absl::Status RmsNorm(Device& device, const RmsNormArgs& args);

}  // namespace fovea::compute
