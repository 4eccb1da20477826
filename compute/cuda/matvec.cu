#include <algorithm>

#include "compute/cuda/dependent_launch.cuh"
#include "compute/cuda/matvec.h"
#include "compute/cuda/rms_norm.cuh"
#include "compute/cuda/silu_mul.cuh"
#include "compute/cuda/stored_values.cuh"
#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {
namespace {

constexpr int kWarps = 4;                    // of a block: features that it computes at a time
constexpr int kBlocksPerMultiprocessor = 8;  // at most

// Products of one kernel, one after another over its blocks.
struct Products {
  MatVecArgs args[kMaxMatVecsTogether];
  unsigned end_block[kMaxMatVecsTogether];
  int n_features;  // that a warp computes at a time
};

static_assert(kWarps * kWarpSize == kNormThreads);

// sums[f] += the lane's part of <weights of feature f, x>, of each row of x. Features lie row_bytes
// apart; x is read once for all of them.
template <DType kType, bool kChunks, int kRows, int kFeatures>
__device__ inline void AddProducts(const std::byte* weights, int64_t row_bytes, const float* x,
                                   int n, float (&sums)[kFeatures][kRows]) {
  const int lane = threadIdx.x % kWarpSize;
  if constexpr (kChunks) {
#pragma unroll kFeatures < 4 ? 4 : 2
    for (int chunk = lane; chunk < n / 8; chunk += kWarpSize) {
      Chunk c[kFeatures];
#pragma unroll
      for (int f = 0; f < kFeatures; ++f) c[f] = LoadChunk<kType>(weights + f * row_bytes, chunk);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float* const row = x + r * static_cast<int64_t>(n);
        const float4 a = *reinterpret_cast<const float4*>(row + c[0].first);
        const float4 b = *reinterpret_cast<const float4*>(row + c[0].second);
#pragma unroll
        for (int f = 0; f < kFeatures; ++f) {
          sums[f][r] += c[f].values[0] * a.x;
          sums[f][r] += c[f].values[1] * a.y;
          sums[f][r] += c[f].values[2] * a.z;
          sums[f][r] += c[f].values[3] * a.w;
          sums[f][r] += c[f].values[4] * b.x;
          sums[f][r] += c[f].values[5] * b.y;
          sums[f][r] += c[f].values[6] * b.z;
          sums[f][r] += c[f].values[7] * b.w;
        }
      }
    }
  } else {
    for (int i = lane; i < n; i += kWarpSize) {
#pragma unroll
      for (int f = 0; f < kFeatures; ++f) {
        const float value = LoadPlain<kType>(weights + f * row_bytes, i);
#pragma unroll
        for (int r = 0; r < kRows; ++r) sums[f][r] += value * x[r * static_cast<int64_t>(n) + i];
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
  const int lane = threadIdx.x % kWarpSize;
  float sums[kFeatures][kRows] = {};
  AddProducts<kType, kChunks, kRows, kFeatures>(args.weight + feature * args.row_bytes,
                                                args.row_bytes, x, n, sums);
  if constexpr (kGated) {
    float up_sums[kFeatures][kRows] = {};
    AddProducts<kType, kChunks, kRows, kFeatures>(args.up_weight + feature * args.row_bytes,
                                                  args.row_bytes, x, n, up_sums);
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
          for (int r = 0; r < kRows; ++r) sums[f][r] += b * args.lora_u[r * args.lora_rank + j];
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float sum = GroupSum(sums[f][r]);
        if (lane != 0) continue;
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
__global__ void __launch_bounds__(kWarps* kWarpSize)
    MatVecKernel(const __grid_constant__ Products products, MatVecNorm norm) {
  extern __shared__ float4 normed[];
  __shared__ float norm_sums[kWarpSize];
  AllowNextKernel();
  int product = 0;
  while (blockIdx.x >= products.end_block[product]) ++product;
  const MatVecArgs& args = products.args[product];
  const unsigned first_block = product > 0 ? products.end_block[product - 1] : 0;
  const int64_t stride =
      (products.end_block[product] - first_block) * static_cast<int64_t>(kWarps * kFeatures);
  int64_t feature =
      ((blockIdx.x - first_block) * static_cast<int64_t>(kWarps) + threadIdx.x / kWarpSize) *
      kFeatures;
  const auto prefetch = [&](int64_t f) {
    if (f + kFeatures > args.out_features) return;
    Prefetch(args.weight + f * args.row_bytes, kFeatures * args.row_bytes);
    if constexpr (kGated) {
      Prefetch(args.up_weight + f * args.row_bytes, kFeatures * args.row_bytes);
    }
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
    if (feature + kFeatures <= args.out_features) {
      Multiply<kType, kChunks, kRows, kFeatures, kGated>(args, feature, x);
    } else if constexpr (kFeatures > 1) {
      for (int64_t f = feature; f < args.out_features; ++f) {
        Multiply<kType, kChunks, kRows, 1, kGated>(args, f, x);
      }
    }
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
  const auto launch = [&]<int kRows, int kFeatures = 1>() {
    constexpr int kFewer = kFeatures < 4 ? kFeatures : 2;
    if constexpr (kRows == 1) {
      if (products.args[0].up_weight != nullptr) {
        return LaunchDependent(device, "Linear", MatVecKernel<kType, kChunks, 1, kFewer, true>,
                               blocks, kWarps * kWarpSize, shared_bytes, products, norm);
      }
    }
    return LaunchDependent(device, "Linear", MatVecKernel<kType, kChunks, kRows, kFeatures, false>,
                           blocks, kWarps * kWarpSize, shared_bytes, products, norm);
  };
  switch (n_rows) {
    case 1:
      switch (products.n_features) {
        case 1:
          return launch.template operator()<1, 1>();
        case 2:
          return launch.template operator()<1, 2>();
        default:
          return launch.template operator()<1, 4>();
      }
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

// Features that a warp computes at a time: of one row as many as leave enough warps for every
// multiprocessor, since x is read once for all of them.
int ChooseFeatures(const CudaDevice& device, const MatVecArgs& first, int64_t n_features) {
  if (first.n_rows > 1) return 1;
  const int64_t most = first.up_weight != nullptr ? 2 : 4;  // a gated feature is two rows
  constexpr int64_t kLeastWarps = 10;                       // of a multiprocessor
  for (int64_t features = most; features > 1; features /= 2) {
    if (n_features / features >= kLeastWarps * device.n_multiprocessors()) {
      return static_cast<int>(features);
    }
  }
  return 1;
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
    const auto belongs = [&](size_t i) {
      return !done[i] && products[i].dtype == dtype && ReadsChunks(products[i]) == reads_chunks;
    };
    int64_t n_features = 0;
    for (size_t i = first; i < products.size(); ++i) {
      if (belongs(i)) n_features += products[i].out_features;
    }
    Products together = {};
    together.n_features = ChooseFeatures(device, products[first], n_features);
    // As many blocks as the GPU holds at once, each with as many rounds as the others: each makes
    // the norm for itself.
    const int64_t block_features = kWarps * together.n_features;
    const int64_t most = int64_t{kBlocksPerMultiprocessor} * device.n_multiprocessors();
    const int64_t rounds = (n_features + block_features * most - 1) / (block_features * most);
    int n = 0;
    unsigned end = 0;
    for (size_t i = first; i < products.size(); ++i) {
      if (!belongs(i)) continue;
      done[i] = true;
      end += static_cast<unsigned>((products[i].out_features + block_features * rounds - 1) /
                                   (block_features * rounds));
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
