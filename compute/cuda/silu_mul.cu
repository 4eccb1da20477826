#include "compute/cuda/cuda_device.h"
#include "compute/cuda/elementwise.cuh"
#include "compute/cuda/ops.h"
#include "compute/cuda/silu_mul.cuh"

namespace fovea::compute::cuda {
namespace {

__global__ void SiluMulKernel(const float* gate, const float* up, int64_t n, float* out) {
  FOVEA_FOR_EACH_ELEMENT(i, n) out[i] = SiluMulOf(gate[i], up[i]);
}

}  // namespace

absl::Status SiluMul(Device& device, const SiluMulArgs& args) {
  const int64_t n = args.out.size();
  SiluMulKernel<<<ElementBlocks(n), kElementThreads, 0, AsCuda(device).stream()>>>(
      args.gate.As<float>(), args.up.As<float>(), n, args.out.As<float>());
  return LaunchStatus("SiluMul");
}

}  // namespace fovea::compute::cuda
