// The gate of SwiGLU (Shazeer 2020): out[i] = silu(gate[i]) · up[i], silu(x) = x / (1 + e^−x).
#pragma once

#include "compute/device.h"
#include "compute/view.h"

namespace fovea::compute {

struct SiluMulArgs {
  ConstView gate;  // [n_tokens, n], float32, contiguous
  ConstView up;    // [n_tokens, n], float32, contiguous
  // = [n_tokens, n], contiguous; float32, which may be gate or up, or bfloat16 (rounded to nearest
  // even)
  View out;
};
// InvalidArgument for views of other types or shapes.
absl::Status SiluMul(Device& device, const SiluMulArgs& args);

}  // namespace fovea::compute
