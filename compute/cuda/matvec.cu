#include <algorithm>

#include "compute/cuda/dependent_launch.cuh"
#include "compute/cuda/matvec.h"
#include "compute/cuda/rms_norm.cuh"
#include "compute/cuda/silu_mul.cuh"
#include "compute/cuda/stored_values.cuh"
#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {
namespace {

constexpr int kWarps = 4;                     // of a block: features that it computes at a time
constexpr int kBlocksPerMultiprocessor = 16;  // at most

// Products of one kernel, one after another over its blocks.
struct Products {
  MatVecArgs args[kMaxMatVecsTogether];
  unsigned end_block[kMaxMatVecsTogether];
};

static_assert(kWarps * kWarpSize == kNormThreads);

// sums += the lane's part of <weights, x> of each row of x.
template <DType kType, bool kChunks, int kRows>
__device__ inline void AddProducts(const std::byte* weights, const float* x, int n,
                                   float (&sums)[kRows]) {
  const int lane = threadIdx.x % kWarpSize;
  if constexpr (kChunks) {
#pragma unroll 4
    for (int chunk = lane; chunk < n / 8; chunk += kWarpSize) {
      const Chunk c = LoadChunk<kType>(weights, chunk);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float* const row = x + r * static_cast<int64_t>(n);
        const float4 a = *reinterpret_cast<const float4*>(row + c.first);
        const float4 b = *reinterpret_cast<const float4*>(row + c.second);
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
      const float value = LoadPlain<kType>(weights, i);
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[r] += value * x[r * static_cast<int64_t>(n) + i];
    }
  }
}

// The cache has them when what the kernel waits for is there.
__device__ inline void Prefetch(const std::byte* weights, int64_t row_bytes) {
  constexpr int kLineBytes = 128;
  const int lane = threadIdx.x % kWarpSize;
  for (int64_t at = lane * kLineBytes; at < row_bytes; at += kWarpSize * kLineBytes) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(weights + at));
  }
}

// A feature of all rows of x, by a warp.
template <DType kType, bool kChunks, int kRows, bool kGated>
__device__ inline void Multiply(const MatVecArgs& args, int64_t feature, const float* x) {
  const auto n = static_cast<int>(args.in_features);
  const int lane = threadIdx.x % kWarpSize;
  float sums[kRows] = {};
  AddProducts<kType, kChunks, kRows>(args.weight + feature * args.row_bytes, x, n, sums);
  if constexpr (kGated) {
    float up_sums[kRows] = {};
    AddProducts<kType, kChunks, kRows>(args.up_weight + feature * args.row_bytes, x, n, up_sums);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float gate = GroupSum(sums[r]);
      const float up = GroupSum(up_sums[r]);
      if (lane == 0) args.out[r * args.out_features + feature] = SiluMulOf(gate, up);
    }
    return;
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

// A warp a feature, and another one where there are more than blocks: its lanes go through the
// chunks (or values) of the stored row in turn, and each is multiplied with all kRows rows of x.
// Dynamic shared memory: the normed rows.
template <DType kType, bool kChunks, int kRows, bool kGated>
__global__ void __launch_bounds__(kWarps* kWarpSize)
    MatVecKernel(const __grid_constant__ Products products, MatVecNorm norm) {
  extern __shared__ float4 normed[];
  __shared__ float norm_sums[kWarpSize];
  AllowNextKernel();
  int product = 0;
  while (blockIdx.x >= products.end_block[product]) ++product;
  const MatVecArgs& args = products.args[product];
  const unsigned first_block = product > 0 ? products.end_block[product - 1] : 0;
  const int64_t stride = (products.end_block[product] - first_block) * static_cast<int64_t>(kWarps);
  int64_t feature =
      (blockIdx.x - first_block) * static_cast<int64_t>(kWarps) + threadIdx.x / kWarpSize;
  const auto prefetch = [&](int64_t f) {
    if (f >= args.out_features) return;
    Prefetch(args.weight + f * args.row_bytes, args.row_bytes);
    if constexpr (kGated) Prefetch(args.up_weight + f * args.row_bytes, args.row_bytes);
  };
  prefetch(feature);
  AwaitKernelBefore();
  const auto n = static_cast<int>(args.in_features);
  const float* x = args.x;
  if (norm.weight != nullptr) {
    auto* const to = reinterpret_cast<float*>(normed);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      NormRow(x + r * static_cast<int64_t>(n), norm.weight, n, norm.eps, norm_sums,
              to + r * static_cast<int64_t>(n));
      __syncthreads();
    }
    x = to;
  }
  for (; feature < args.out_features; feature += stride) {
    prefetch(feature + stride);
    Multiply<kType, kChunks, kRows, kGated>(args, feature, x);
  }
}

template <DType kType, bool kChunks>
absl::Status Launch(CudaDevice& device, const Products& products, int n, const MatVecNorm& norm) {
  const dim3 blocks(products.end_block[n - 1]);
  const auto n_rows = static_cast<int>(products.args[0].n_rows);
  const size_t shared_bytes =
      norm.weight == nullptr
          ? 0
          : static_cast<size_t>(n_rows * products.args[0].in_features) * sizeof(float);
  const auto launch = [&]<int kRows>() {
    if constexpr (kRows == 1) {
      if (products.args[0].up_weight != nullptr) {
        return LaunchDependent(device, "Linear", MatVecKernel<kType, kChunks, 1, true>, blocks,
                               kWarps * kWarpSize, shared_bytes, products, norm);
      }
    }
    return LaunchDependent(device, "Linear", MatVecKernel<kType, kChunks, kRows, false>, blocks,
                           kWarps * kWarpSize, shared_bytes, products, norm);
  };
  switch (n_rows) {
    case 1:
      return launch.template operator()<1>();
    case 2:
      return launch.template operator()<2>();
    case 3:
      return launch.template operator()<3>();
    case 4:
      return launch.template operator()<4>();
    case 5:
      return launch.template operator()<5>();
    case 6:
      return launch.template operator()<6>();
    case 7:
      return launch.template operator()<7>();
    default:
      return launch.template operator()<8>();
  }
}

// Rows of x are read four floats at a time where the weights are read in chunks.
bool ReadsChunks(const MatVecArgs& args) {
  return HasChunks(args.dtype, args.in_features, args.weight) &&
         (args.up_weight == nullptr || HasChunks(args.dtype, args.in_features, args.up_weight)) &&
         reinterpret_cast<uintptr_t>(args.x) % 16 == 0;
}

}  // namespace

absl::Status LaunchMatVecs(CudaDevice& device, std::span<const MatVecArgs> products,
                           const MatVecNorm& norm) {
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
      // As many as the GPU holds at once: each makes the norm for itself.
      end += static_cast<unsigned>(
          std::min<int64_t>((products[i].out_features + kWarps - 1) / kWarps,
                            int64_t{kBlocksPerMultiprocessor} * device.n_multiprocessors()));
      together.args[n] = products[i];
      together.end_block[n++] = end;
    }
    absl::Status launched;
    VisitDType(dtype, [&]<DType kType>() {
      if (reads_chunks) {
        launched.Update(Launch<kType, true>(device, together, n, norm));
      } else if constexpr (IsPlain(kType)) {
        launched.Update(Launch<kType, false>(device, together, n, norm));
      }
    });
    RETURN_IF_ERROR(launched);
  }
  return absl::OkStatus();
}

}  // namespace fovea::compute::cuda
