// The gate of SwiGLU (Shazeer 2020): out[i] = silu(gate[i]) · up[i], silu(x) = x / (1 + e^−x).
#pragma once

#include "compute/device.h"

namespace fovea::compute {

// gate, up, out: [n]; out may be gate or up.
absl::Status SiluMul(Device& device, const float* gate, const float* up, float* out, int64_t n);

}  // namespace fovea::compute
