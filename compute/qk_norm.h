// QK-norm (Henry et al. 2020, arXiv 2010.04245), as RMSNorm (compute/rms_norm.h) of every head of
// queries and keys by itself: x[t, h, i] · weight[i] / sqrt(mean_i(x[t, h, i]²) + eps). The heads
// of a layer share a weight for queries and one for keys; Qwen3 does this before RoPE.
#pragma once

#include "compute/device.h"
#include "compute/view.h"

namespace fovea::compute {

struct QkNormArgs {
  View queries;            // [n_tokens, n_heads, head_dim], float32, contiguous; normed in place
  View keys;               // [n_tokens, n_kv_heads, head_dim], float32, contiguous; normed in place
  ConstView query_weight;  // [head_dim], float32
  ConstView key_weight;    // [head_dim], float32
  float eps = 1e-6f;
};
// A head's result does not depend on the heads and tokens beside it. On a GPU one kernel.
// InvalidArgument for views of other types or shapes.
absl::Status QkNorm(Device& device, const QkNormArgs& args);

}  // namespace fovea::compute
