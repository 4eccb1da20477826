// Stored entries (keys and values) in a kernel: float or bfloat16, read several at a time.
#pragma once

#include <cuda_bf16.h>

namespace fovea::compute::cuda {

__device__ inline float ToFloat(float value) { return value; }
__device__ inline float ToFloat(__nv_bfloat16 value) { return __bfloat162float(value); }

// kN entries that one instruction reads.
template <typename T, int kN>
struct alignas(sizeof(T) * kN) Vector {
  T values[kN];
};

}  // namespace fovea::compute::cuda
