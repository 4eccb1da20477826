#include "compute/cuda/cuda_device.h"
#include "compute/cuda/elementwise.cuh"
#include "compute/cuda/mma.cuh"
#include "compute/cuda/ops.h"
#include "compute/cuda/silu_mul.cuh"

namespace fovea::compute::cuda {
namespace {

template <typename T>
__global__ void SiluMulKernel(const float* gate, const float* up, int64_t n, T* out) {
  FOVEA_FOR_EACH_ELEMENT(i, n) out[i] = static_cast<T>(SiluMulOf(gate[i], up[i]));
}

// The same, four at a time.
__global__ void RoundedSiluMulKernel(const float4* gate, const float4* up, int64_t n, uint2* out) {
  FOVEA_FOR_EACH_ELEMENT(i, n) {
    const float4 g = gate[i];
    const float4 u = up[i];
    out[i] = make_uint2(PackPair(SiluMulOf(g.x, u.x), SiluMulOf(g.y, u.y)),
                        PackPair(SiluMulOf(g.z, u.z), SiluMulOf(g.w, u.w)));
  }
}

}  // namespace

absl::Status SiluMul(Device& device, const SiluMulArgs& args) {
  const int64_t n = args.out.size();
  const cudaStream_t stream = AsCuda(device).stream();
  const auto* const gate = args.gate.As<float>();
  const auto* const up = args.up.As<float>();
  const auto is_aligned = [](const void* data) {
    return reinterpret_cast<uintptr_t>(data) % 16 == 0;
  };
  if (args.out.dtype() == DType::kF32) {
    SiluMulKernel<<<ElementBlocks(n), kElementThreads, 0, stream>>>(gate, up, n,
                                                                    args.out.As<float>());
  } else if (n % 4 == 0 && is_aligned(gate) && is_aligned(up) && is_aligned(args.out.data())) {
    RoundedSiluMulKernel<<<ElementBlocks(n / 4), kElementThreads, 0, stream>>>(
        reinterpret_cast<const float4*>(gate), reinterpret_cast<const float4*>(up), n / 4,
        static_cast<uint2*>(args.out.data()));
  } else {
    SiluMulKernel<<<ElementBlocks(n), kElementThreads, 0, stream>>>(
        gate, up, n, static_cast<__nv_bfloat16*>(args.out.data()));
  }
  return LaunchStatus("SiluMul");
}

}  // namespace fovea::compute::cuda
