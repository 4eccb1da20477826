// The kernel of products with a few rows (matvec.h). Each file that includes this makes it for some
// types of stored values.
#pragma once

#include <algorithm>

#include "compute/cuda/dependent_launch.cuh"
#include "compute/cuda/matvec.h"
#include "compute/cuda/rms_norm.cuh"
#include "compute/cuda/silu_mul.cuh"
#include "compute/cuda/stored_values.cuh"
#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {

inline constexpr int kMatVecWarps = 4;  // of a block: features that it computes at a time

// Products of one kernel, one after another over its blocks.
struct MatVecs {
  MatVecArgs args[kMaxMatVecsTogether];
  unsigned end_block[kMaxMatVecsTogether];
  int n_features;  // that a warp computes at a time
  bool is_short;   // see ShortMatVecKernel
};

// Chunks that a lane of a ShortMatVecKernel has in registers, of one row or of the two of a gated
// feature, and what rows then have at most.
inline constexpr int kChunksAhead = 6;
inline constexpr int64_t kMostShortValues = kChunksAhead * 8 * kWarpSize;
// Of a multiprocessor, at least: those of the next kernel find room beside them.
inline constexpr int kShortBlocks = 5;

// `n` products of weights of one type.
template <DType kType, bool kChunks>
absl::Status LaunchMatVecsOf(CudaDevice& device, const MatVecs& products, int n,
                             const MatVecNorm& norm);

#ifdef FOVEA_MATVEC_TYPES
static_assert(kMatVecWarps * kWarpSize == kNormThreads);

// sums[f] += the lane's part of <weights of feature f, x>, of each row of x. Features lie row_bytes
// apart; x is read once for all of them. Where x has fewer than kRows rows its last one stands for
// those that it has not.
template <DType kType, bool kChunks, int kRows, int kFeatures>
__device__ inline void AddProducts(const std::byte* weights, int64_t row_bytes, const float* x,
                                   int n, int n_rows, float (&sums)[kFeatures][kRows]) {
  const auto row_of = [&](int r) {
    return x + (kRows > 2 ? min(r, n_rows - 1) : r) * static_cast<int64_t>(n);
  };
  const int lane = threadIdx.x % kWarpSize;
  if constexpr (kChunks) {
#pragma unroll kFeatures < 4 ? 4 : 2
    for (int chunk = lane; chunk < n / 8; chunk += kWarpSize) {
      Chunk c[kFeatures];
#pragma unroll
      for (int f = 0; f < kFeatures; ++f) c[f] = LoadChunk<kType>(weights + f * row_bytes, chunk);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float* const row = row_of(r);
        const float4 a = *reinterpret_cast<const float4*>(row + c[0].first);
        const float4 b = *reinterpret_cast<const float4*>(row + c[0].second);
#pragma unroll
        for (int f = 0; f < kFeatures; ++f) AddChunk(c[f], a, b, sums[f][r]);
      }
    }
  } else {
    for (int i = lane; i < n; i += kWarpSize) {
#pragma unroll
      for (int f = 0; f < kFeatures; ++f) {
        const float value = LoadPlain<kType>(weights + f * row_bytes, i);
#pragma unroll
        for (int r = 0; r < kRows; ++r) sums[f][r] += value * row_of(r)[i];
      }
    }
  }
}

// The cache has them when what the kernel waits for is there. The beginning of long rows: all of
// all rows would drive one another out.
__device__ inline void Prefetch(const std::byte* weights, int64_t n_bytes) {
  constexpr int kLineBytes = 128;
  constexpr int64_t kMostBytes = 4096;
  const int lane = threadIdx.x % kWarpSize;
  for (int64_t at = lane * kLineBytes; at < min(n_bytes, kMostBytes);
       at += kWarpSize * kLineBytes) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(weights + at));
  }
}

// Features feature … feature + kFeatures − 1 of all rows of x, by a warp.
template <DType kType, bool kChunks, int kRows, int kFeatures, bool kGated>
__device__ inline void Multiply(const MatVecArgs& args, int64_t feature, const float* x) {
  const auto n = static_cast<int>(args.in_features);
  const auto n_rows = static_cast<int>(args.n_rows);
  const int lane = threadIdx.x % kWarpSize;
  float sums[kFeatures][kRows] = {};
  AddProducts<kType, kChunks, kRows, kFeatures>(args.weight + feature * args.row_bytes,
                                                args.row_bytes, x, n, n_rows, sums);
  if constexpr (kGated) {
    float up_sums[kFeatures][kRows] = {};
    AddProducts<kType, kChunks, kRows, kFeatures>(args.up_weight + feature * args.row_bytes,
                                                  args.row_bytes, x, n, n_rows, up_sums);
#pragma unroll
    for (int f = 0; f < kFeatures; ++f) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float gate = GroupSum(sums[f][r]);
        const float up = GroupSum(up_sums[f][r]);
        if (lane == 0) args.out[r * args.out_features + feature + f] = SiluMulOf(gate, up);
      }
    }
  } else {
#pragma unroll
    for (int f = 0; f < kFeatures; ++f) {
      if (args.lora_u != nullptr) {
        for (int j = lane; j < args.lora_rank; j += kWarpSize) {
          const float b = args.lora_scale * args.lora_b[(feature + f) * args.lora_rank + j];
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            if (r < n_rows) sums[f][r] += b * args.lora_u[r * args.lora_rank + j];
          }
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float sum = GroupSum(sums[f][r]);
        if (lane != 0 || r >= n_rows) continue;
        float* const out = args.out + r * args.out_features + feature + f;
        if (args.bias != nullptr) sum += args.bias[feature + f];
        *out = args.add_to_out ? *out + sum : sum;
      }
    }
  }
}

// A warp some features, and more where there are more than blocks: its lanes go through the chunks
// (or values) of the stored rows in turn, and each is multiplied with all kRows rows of x. Dynamic
// shared memory: the normed rows.
template <DType kType, bool kChunks, int kRows, int kFeatures, bool kGated>
static __global__ void __launch_bounds__(kMatVecWarps* kWarpSize)
    MatVecKernel(const __grid_constant__ MatVecs products, MatVecNorm norm) {
  extern __shared__ float4 normed[];
  __shared__ float norm_sums[kWarpSize];
  AllowNextKernel();
  int product = 0;
  while (blockIdx.x >= products.end_block[product]) ++product;
  const MatVecArgs& args = products.args[product];
  const unsigned first_block = product > 0 ? products.end_block[product - 1] : 0;
  const int64_t stride =
      (products.end_block[product] - first_block) * static_cast<int64_t>(kMatVecWarps * kFeatures);
  int64_t feature =
      ((blockIdx.x - first_block) * static_cast<int64_t>(kMatVecWarps) + threadIdx.x / kWarpSize) *
      kFeatures;
  const auto prefetch = [&](int64_t f) {
    if (f + kFeatures > args.out_features) return;
    Prefetch(args.weight + f * args.row_bytes, kFeatures * args.row_bytes);
    if constexpr (kGated) {
      Prefetch(args.up_weight + f * args.row_bytes, kFeatures * args.row_bytes);
    }
  };
  prefetch(feature);
  if (norm.weight != nullptr && threadIdx.x < kWarpSize) {
    Prefetch(reinterpret_cast<const std::byte*>(norm.weight), args.in_features * sizeof(float));
  }
  AwaitKernelBefore();
  const auto n = static_cast<int>(args.in_features);
  const float* x = args.x;
  if (norm.weight != nullptr) {
    auto* const to = reinterpret_cast<float*>(normed);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= args.n_rows) break;
      NormRow(x + r * static_cast<int64_t>(n), norm.weight, n, norm.eps, norm_sums,
              to + r * static_cast<int64_t>(n));
      __syncthreads();
    }
    x = to;
  }
  for (; feature < args.out_features; feature += stride) {
    if (feature + kFeatures <= args.out_features) {
      Multiply<kType, kChunks, kRows, kFeatures, kGated>(args, feature, x);
    } else if constexpr (kFeatures > 1) {
      for (int64_t f = feature; f < args.out_features; ++f) {
        Multiply<kType, kChunks, kRows, 1, kGated>(args, f, x);
      }
    }
  }
}

// One row of x with short rows of weights, a warp a feature. A step of a small model is a chain of
// these, each of which would spend its time on waiting for one thing after another: so all that
// does not depend on the kernel before is in registers when that ends, the weights as floats.
template <DType kType, bool kGated>
static __global__ void __launch_bounds__(kMatVecWarps* kWarpSize, kShortBlocks)
    ShortMatVecKernel(const __grid_constant__ MatVecs products, MatVecNorm norm) {
  constexpr int kRows = kGated ? 2 : 1;
  constexpr int kChunks = kChunksAhead / kRows;
  constexpr int kMostQuads = kChunks * 8 * kWarpSize / 4;
  constexpr int kQuads = (kMostQuads + kNormThreads - 1) / kNormThreads;  // of a thread
  __shared__ float4 row[kMostQuads];
  __shared__ float norm_sums[kWarpSize];
  AllowNextKernel();
  int product = 0;
  while (blockIdx.x >= products.end_block[product]) ++product;
  const MatVecArgs& args = products.args[product];
  const unsigned first_block = product > 0 ? products.end_block[product - 1] : 0;
  const int lane = threadIdx.x % kWarpSize;
  const int64_t feature =
      (blockIdx.x - first_block) * static_cast<int64_t>(kMatVecWarps) + threadIdx.x / kWarpSize;
  const bool has_feature = feature < args.out_features;
  const auto n = static_cast<int>(args.in_features);
  Chunk chunks[kRows][kChunks];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const std::byte* const weights =
        (r == 0 ? args.weight : args.up_weight) + feature * args.row_bytes;
#pragma unroll
    for (int j = 0; j < kChunks; ++j) {
      const int chunk = lane + j * kWarpSize;
      if (has_feature && chunk < n / 8) chunks[r][j] = LoadChunk<kType>(weights, chunk);
    }
  }
  float4 norm_weights[kQuads];
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int quad = static_cast<int>(threadIdx.x) + i * kNormThreads;
    if (norm.weight != nullptr && quad < n / 4) {
      norm_weights[i] = reinterpret_cast<const float4*>(norm.weight)[quad];
    }
  }
  const bool stores = has_feature && lane == 0;
  const float bias = stores && args.bias != nullptr ? args.bias[feature] : 0.0f;
  AwaitKernelBefore();
  float4 x[kQuads];
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int quad = static_cast<int>(threadIdx.x) + i * kNormThreads;
    if (quad < n / 4) x[i] = reinterpret_cast<const float4*>(args.x)[quad];
  }
  const float residual = stores && args.add_to_out ? args.out[feature] : 0.0f;
  float factor = 1.0f;
  if (norm.weight != nullptr) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      if (static_cast<int>(threadIdx.x) + i * kNormThreads < n / 4) AddSquares(x[i], sum);
    }
    factor = NormFactor(sum, n, norm.eps, norm_sums);
  }
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int quad = static_cast<int>(threadIdx.x) + i * kNormThreads;
    if (quad >= n / 4) continue;
    row[quad] = norm.weight != nullptr ? Normed(x[i], factor, norm_weights[i]) : x[i];
  }
  __syncthreads();
  float sums[kRows] = {};
#pragma unroll
  for (int j = 0; j < kChunks; ++j) {
    if (!has_feature || lane + j * kWarpSize >= n / 8) continue;
    const float4 a = row[chunks[0][j].first / 4];
    const float4 b = row[chunks[0][j].second / 4];
#pragma unroll
    for (int r = 0; r < kRows; ++r) AddChunk(chunks[r][j], a, b, sums[r]);
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) sums[r] = GroupSum(sums[r]);
  if (!stores) return;
  float sum = sums[0];
  if constexpr (kGated) sum = SiluMulOf(sums[0], sums[1]);
  if (args.bias != nullptr) sum += bias;
  args.out[feature] = args.add_to_out ? residual + sum : sum;
}

// Rows of x go by 1, 2, 4 or 8, and by 1 or 8 where weights are read one by one: what more kernels
// would take to compile they do not gain.
template <DType kType, bool kChunks>
absl::Status LaunchMatVecsOf(CudaDevice& device, const MatVecs& products, int n,
                             const MatVecNorm& norm) {
  const dim3 blocks(products.end_block[n - 1]);
  const auto n_rows = static_cast<int>(products.args[0].n_rows);
  const size_t shared_bytes =
      norm.weight == nullptr
          ? 0
          : static_cast<size_t>(n_rows * products.args[0].in_features) * sizeof(float);
  const auto launch = [&]<int kRows, int kFeatures, bool kGated>() {
    return LaunchDependent(device, "Linear", MatVecKernel<kType, kChunks, kRows, kFeatures, kGated>,
                           blocks, kMatVecWarps * kWarpSize, shared_bytes, products, norm);
  };
  if constexpr (kChunks) {
    if (products.is_short) {
      return LaunchDependent(device, "Linear",
                             products.args[0].up_weight != nullptr
                                 ? ShortMatVecKernel<kType, true>
                                 : ShortMatVecKernel<kType, false>,
                             blocks, kMatVecWarps * kWarpSize, 0, products, norm);
    }
  }
  if constexpr (kChunks) {
    if (n_rows > 4) return launch.template operator()<8, 1, false>();
    if (n_rows > 2) return launch.template operator()<4, 1, false>();
    if (n_rows > 1) return launch.template operator()<2, 1, false>();
  } else if (n_rows > 1) {
    return launch.template operator()<8, 1, false>();
  }
  const bool is_gated = products.args[0].up_weight != nullptr;
  if constexpr (kChunks) {
    if (products.n_features == 4) return launch.template operator()<1, 4, false>();
    if (products.n_features == 2) {
      return is_gated ? launch.template operator()<1, 2, true>()
                      : launch.template operator()<1, 2, false>();
    }
  }
  return is_gated ? launch.template operator()<1, 1, true>()
                  : launch.template operator()<1, 1, false>();
}

#define FOVEA_MATVEC(type, chunks)                                                             \
  template absl::Status LaunchMatVecsOf<DType::type, chunks>(CudaDevice&, const MatVecs&, int, \
                                                             const MatVecNorm&);
FOVEA_MATVEC_TYPES
#undef FOVEA_MATVEC
#endif

}  // namespace fovea::compute::cuda
