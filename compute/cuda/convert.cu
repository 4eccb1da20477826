#include <cuda_bf16.h>

#include "compute/cuda/cuda_device.h"
#include "compute/cuda/elementwise.cuh"
#include "compute/cuda/ops.h"

namespace fovea::compute::cuda {
namespace {

struct Strides {
  int64_t token, head;
};

template <typename From, typename To>
__global__ void ConvertKernel(const From* from, Strides from_strides, const float* factors,
                              int64_t n, int n_heads, int head_dim, To* to, Strides to_strides) {
  FOVEA_FOR_EACH_ELEMENT(i, n) {
    const int64_t row = i / head_dim;
    const auto dim = i % head_dim;
    const int64_t token = row / n_heads;
    const int64_t head = row % n_heads;
    float value =
        static_cast<float>(from[token * from_strides.token + head * from_strides.head + dim]);
    if (factors != nullptr) value *= factors[head];
    to[token * to_strides.token + head * to_strides.head + dim] = static_cast<To>(value);
  }
}

template <typename From, typename To>
void Launch(const ConvertArgs& args, cudaStream_t stream) {
  const int64_t n = args.from.size();
  ConvertKernel<<<ElementBlocks(n), kElementThreads, 0, stream>>>(
      static_cast<const From*>(args.from.As<void>()), {args.from.stride(0), args.from.stride(1)},
      args.factors.As<float>(), n, static_cast<int>(args.from.dim(1)),
      static_cast<int>(args.from.dim(2)), static_cast<To*>(args.to.data()),
      {args.to.stride(0), args.to.stride(1)});
}

}  // namespace

absl::Status Convert(Device& device, const ConvertArgs& args) {
  const cudaStream_t stream = AsCuda(device).stream();
  const bool from_float = args.from.dtype() == DType::kF32;
  const bool to_float = args.to.dtype() == DType::kF32;
  if (from_float && to_float) {
    Launch<float, float>(args, stream);
  } else if (from_float) {
    Launch<float, __nv_bfloat16>(args, stream);
  } else if (to_float) {
    Launch<__nv_bfloat16, float>(args, stream);
  } else {
    Launch<__nv_bfloat16, __nv_bfloat16>(args, stream);
  }
  return LaunchStatus("Convert");
}

}  // namespace fovea::compute::cuda
