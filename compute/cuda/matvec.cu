#include "compute/cuda/matvec.h"
#include "compute/cuda/stored_values.cuh"
#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {
namespace {

constexpr int kWarps = 4;  // of a block: features that it computes

// Products of one kernel, one after another over its blocks.
struct Products {
  MatVecArgs args[kMaxMatVecsTogether];
  unsigned end_block[kMaxMatVecsTogether];
};

// A warp a feature: its lanes go through the chunks (or values) of the stored row in turn, and each
// is multiplied with all kRows rows of x.
template <DType kType, bool kChunks, int kRows>
__global__ void MatVecKernel(const __grid_constant__ Products products) {
  int product = 0;
  while (blockIdx.x >= products.end_block[product]) ++product;
  const MatVecArgs& args = products.args[product];
  const unsigned first_block = product > 0 ? products.end_block[product - 1] : 0;
  const int64_t feature =
      (blockIdx.x - first_block) * static_cast<int64_t>(kWarps) + threadIdx.x / kWarpSize;
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
void Launch(const Products& products, int n, cudaStream_t stream) {
  const unsigned blocks = products.end_block[n - 1];
  const int threads = kWarps * kWarpSize;
  switch (products.args[0].n_rows) {
    case 1:
      return MatVecKernel<kType, kChunks, 1><<<blocks, threads, 0, stream>>>(products);
    case 2:
      return MatVecKernel<kType, kChunks, 2><<<blocks, threads, 0, stream>>>(products);
    case 3:
      return MatVecKernel<kType, kChunks, 3><<<blocks, threads, 0, stream>>>(products);
    case 4:
      return MatVecKernel<kType, kChunks, 4><<<blocks, threads, 0, stream>>>(products);
    case 5:
      return MatVecKernel<kType, kChunks, 5><<<blocks, threads, 0, stream>>>(products);
    case 6:
      return MatVecKernel<kType, kChunks, 6><<<blocks, threads, 0, stream>>>(products);
    case 7:
      return MatVecKernel<kType, kChunks, 7><<<blocks, threads, 0, stream>>>(products);
    default:
      return MatVecKernel<kType, kChunks, 8><<<blocks, threads, 0, stream>>>(products);
  }
}

// Rows of x are read four floats at a time where the weights are read in chunks.
bool ReadsChunks(const MatVecArgs& args) {
  return HasChunks(args.dtype, args.in_features, args.weight) &&
         reinterpret_cast<uintptr_t>(args.x) % 16 == 0;
}

}  // namespace

void LaunchMatVecs(std::span<const MatVecArgs> products, cudaStream_t stream) {
  bool done[kMaxMatVecsTogether] = {};
  for (size_t first = 0; first < products.size(); ++first) {
    if (done[first]) continue;
    const DType dtype = products[first].dtype;
    const bool reads_chunks = ReadsChunks(products[first]);
    Products together = {};
    int n = 0;
    unsigned end = 0;
    for (size_t i = first; i < products.size(); ++i) {
      if (done[i] || products[i].dtype != dtype || ReadsChunks(products[i]) != reads_chunks)
        continue;
      done[i] = true;
      end += static_cast<unsigned>((products[i].out_features + kWarps - 1) / kWarps);
      together.args[n] = products[i];
      together.end_block[n++] = end;
    }
    VisitDType(dtype, [&]<DType kType>() {
      if (reads_chunks) {
        Launch<kType, true>(together, n, stream);
      } else if constexpr (IsPlain(kType)) {
        Launch<kType, false>(together, n, stream);
      }
    });
  }
}

}  // namespace fovea::compute::cuda
