#include <cuda_bf16.h>

#include <algorithm>

#include "compute/cuda/cuda_device.h"
#include "compute/cuda/elementwise.cuh"
#include "compute/cuda/ops.h"

namespace fovea::compute::cuda {
namespace {

struct Strides {
  int64_t token, head;
};

// Tokens to take, by value: nothing has to be copied to the GPU first.
struct TokenList {
  static constexpr int kMax = 255;
  int n = 0;  // 0: all
  int tokens[kMax] = {};
};

template <typename From, typename To>
__global__ void ConvertKernel(const From* from, Strides from_strides, const float* factors,
                              int64_t n, int n_heads, int head_dim, TokenList taken, To* to,
                              Strides to_strides) {
  FOVEA_FOR_EACH_ELEMENT(i, n) {
    const int64_t row = i / head_dim;
    const auto dim = i % head_dim;
    const int64_t token = row / n_heads;
    const int64_t head = row % n_heads;
    const int64_t source = taken.n > 0 ? taken.tokens[token] : token;
    float value =
        static_cast<float>(from[source * from_strides.token + head * from_strides.head + dim]);
    if (factors != nullptr) value *= factors[head];
    to[token * to_strides.token + head * to_strides.head + dim] = static_cast<To>(value);
  }
}

template <typename From, typename To>
void Launch(const ConvertArgs& args, cudaStream_t stream) {
  TokenList taken;
  size_t first = 0;  // of those that are taken
  do {
    taken.n = static_cast<int>(std::min<size_t>(args.tokens.size() - first, TokenList::kMax));
    for (int i = 0; i < taken.n; ++i) {
      taken.tokens[i] = static_cast<int>(args.tokens[first + static_cast<size_t>(i)]);
    }
    const View to = taken.n > 0 ? args.to.Rows(static_cast<int64_t>(first), taken.n) : args.to;
    const int64_t n = to.size();
    ConvertKernel<<<ElementBlocks(n), kElementThreads, 0, stream>>>(
        static_cast<const From*>(args.from.As<void>()), {args.from.stride(0), args.from.stride(1)},
        args.factors.As<float>(), n, static_cast<int>(args.from.dim(1)),
        static_cast<int>(args.from.dim(2)), taken, static_cast<To*>(to.data()),
        {to.stride(0), to.stride(1)});
    first += static_cast<size_t>(taken.n);
  } while (first < args.tokens.size());
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
