#include "compute/cuda/matvec.h"
#include "compute/cuda/stored_values.cuh"
#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {
namespace {

constexpr int kWarps = 4;  // of a block: features that it computes

// A warp a feature: its lanes go through the chunks (or values) of the stored row in turn, and each
// is multiplied with all kRows rows of x.
template <DType kType, bool kChunks, int kRows>
__global__ void MatVecKernel(MatVecArgs args) {
  const int64_t feature = blockIdx.x * static_cast<int64_t>(kWarps) + threadIdx.x / kWarpSize;
  const int lane = threadIdx.x % kWarpSize;
  if (feature >= args.out_features) return;
  const std::byte* const row = args.weight + feature * args.row_bytes;
  const auto n = static_cast<int>(args.in_features);
  float sums[kRows] = {};
  if constexpr (kChunks) {
#pragma unroll 4
    for (int chunk = lane; chunk < n / 8; chunk += kWarpSize) {
      const Chunk c = LoadChunk<kType>(row, chunk);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float* const x = args.x + r * static_cast<int64_t>(n);
        const float4 a = *reinterpret_cast<const float4*>(x + c.first);
        const float4 b = *reinterpret_cast<const float4*>(x + c.second);
        sums[r] += c.values[0] * a.x;
        sums[r] += c.values[1] * a.y;
        sums[r] += c.values[2] * a.z;
        sums[r] += c.values[3] * a.w;
        sums[r] += c.values[4] * b.x;
        sums[r] += c.values[5] * b.y;
        sums[r] += c.values[6] * b.z;
        sums[r] += c.values[7] * b.w;
      }
    }
  } else {
    for (int i = lane; i < n; i += kWarpSize) {
      const float value = LoadPlain<kType>(row, i);
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[r] += value * args.x[r * static_cast<int64_t>(n) + i];
    }
  }
  if (args.lora_u != nullptr) {
    for (int j = lane; j < args.lora_rank; j += kWarpSize) {
      const float b = args.lora_scale * args.lora_b[feature * args.lora_rank + j];
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[r] += b * args.lora_u[r * args.lora_rank + j];
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    float sum = GroupSum(sums[r]);
    if (lane != 0) continue;
    float* const out = args.out + r * args.out_features + feature;
    if (args.bias != nullptr) sum += args.bias[feature];
    *out = args.add_to_out ? *out + sum : sum;
  }
}

template <DType kType, bool kChunks>
void Launch(const MatVecArgs& args, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((args.out_features + kWarps - 1) / kWarps);
  const int threads = kWarps * kWarpSize;
  switch (args.n_rows) {
    case 1:
      return MatVecKernel<kType, kChunks, 1><<<blocks, threads, 0, stream>>>(args);
    case 2:
      return MatVecKernel<kType, kChunks, 2><<<blocks, threads, 0, stream>>>(args);
    case 3:
      return MatVecKernel<kType, kChunks, 3><<<blocks, threads, 0, stream>>>(args);
    case 4:
      return MatVecKernel<kType, kChunks, 4><<<blocks, threads, 0, stream>>>(args);
    case 5:
      return MatVecKernel<kType, kChunks, 5><<<blocks, threads, 0, stream>>>(args);
    case 6:
      return MatVecKernel<kType, kChunks, 6><<<blocks, threads, 0, stream>>>(args);
    case 7:
      return MatVecKernel<kType, kChunks, 7><<<blocks, threads, 0, stream>>>(args);
    default:
      return MatVecKernel<kType, kChunks, 8><<<blocks, threads, 0, stream>>>(args);
  }
}

}  // namespace

void LaunchMatVec(const MatVecArgs& args, cudaStream_t stream) {
  // Rows of x are read four floats at a time where the weights are read in chunks.
  const bool has_chunks = HasChunks(args.dtype, args.in_features, args.weight) &&
                          reinterpret_cast<uintptr_t>(args.x) % 16 == 0;
  VisitDType(args.dtype, [&]<DType kType>() {
    if (has_chunks) {
      Launch<kType, true>(args, stream);
    } else if constexpr (IsPlain(kType)) {
      Launch<kType, false>(args, stream);
    }
  });
}

}  // namespace fovea::compute::cuda
