// The SwiGLU activation, the same bits wherever it is computed.
#pragma once

namespace fovea::compute::cuda {

__device__ inline float SiluMulOf(float gate, float up) { return gate / (1.0f + expf(-gate)) * up; }

}  // namespace fovea::compute::cuda
