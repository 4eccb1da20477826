// Codes of keys (compute/code_scan.h), by the rules of the CPU's (cpu/key_codes.cc): a block of
// threads codes 16 keys, which is a block of codes.
#include <cuda_bf16.h>

#include <algorithm>

#include "compute/coded_memory_attention.h"
#include "compute/cuda/cuda_device.h"
#include "compute/cuda/entries.cuh"
#include "compute/cuda/ops.h"
#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {
namespace {

constexpr int kKeys = 16;  // of a block of codes
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kMeanThreads = 1024;
constexpr int64_t kSampledKeys = 65'536;
constexpr int kMaxDims = 256;  // padded
constexpr int kSteps = 6;
// The CPU's: of 2 and of 4 bits, in standard deviations of a key's numbers.
__constant__ float kStepSizes[2][kSteps] = {{0.75f, 0.85f, 0.95f, 1.05f, 1.15f, 1.3f},
                                            {0.22f, 0.26f, 0.3f, 0.34f, 0.38f, 0.43f}};

struct Coding {
  const void* keys;
  int64_t key_stride;
  int64_t n_keys;
  int head_dim, padded_dim, bits, n_lines;
  const float* rotation;
  uint32_t* codes;
  __nv_bfloat16* factors;
  float* mean;
};

// A block a KV head: threads of a stripe share a key, stripes their sums at the end.
template <typename Element>
__global__ void __launch_bounds__(kMeanThreads) MeanKernel(const Coding coding) {
  __shared__ float sums[kMeanThreads];
  const auto* const keys =
      static_cast<const Element*>(coding.keys) + blockIdx.x * coding.key_stride;
  const int n_stripes = kMeanThreads / coding.head_dim;
  const int stripe = threadIdx.x / coding.head_dim;
  const int dim = threadIdx.x % coding.head_dim;
  const int64_t n_sampled = min(coding.n_keys, kSampledKeys);
  float sum = 0.0f;
  if (stripe < n_stripes) {
    for (int64_t i = stripe; i < n_sampled; i += n_stripes) {
      const float x = ToFloat(keys[i * coding.n_keys / n_sampled * coding.head_dim + dim]);
      sum += isfinite(x) ? x : 0.0f;
    }
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (stripe != 0) return;
  for (int s = 1; s < n_stripes; ++s) sum += sums[s * coding.head_dim + dim];
  coding.mean[blockIdx.x * coding.head_dim + dim] = sum / static_cast<float>(n_sampled);
}

// Of one key, by a warp: rotated = [padded_dim] → its factor, and codes in its column of
// words = [n_lines, kKeys].
__device__ float CodeKey(const Coding& coding, const float* rotated, int key, uint32_t* words) {
  const int lane = threadIdx.x % kWarpSize;
  const float middle = static_cast<float>((1 << coding.bits) - 1) / 2.0f;
  float norm2 = 0.0f;
  float largest = 0.0f;
  for (int d = lane; d < coding.padded_dim; d += kWarpSize) {
    norm2 = fmaf(rotated[d], rotated[d], norm2);
    largest = fmaxf(largest, fabsf(rotated[d]));
  }
  norm2 = GroupSum(norm2);
  largest = GroupMax(largest);
  const bool is_coded = largest > 0.0f && isfinite(norm2);
  const auto code_of = [&](float x, float inverse_step) {
    return fminf(fmaxf(rintf(fmaf(x, inverse_step, middle)), 0.0f), 2.0f * middle);
  };
  float step = largest / middle;
  if (coding.bits < 8) {
    const float deviation = sqrtf(norm2 / static_cast<float>(coding.padded_dim));
    const float whole = step;
    float best = -1.0f;
    for (int s = 0; s < kSteps; ++s) {
      const float candidate =
          fminf(kStepSizes[coding.bits == 4 ? 1 : 0][s] * deviation, 2.0f * whole);
      float product = 0.0f;
      float code_norm2 = 0.0f;
      for (int d = lane; d < coding.padded_dim; d += kWarpSize) {
        const float centred = code_of(rotated[d], 1.0f / candidate) - middle;
        product = fmaf(centred, rotated[d], product);
        code_norm2 = fmaf(centred, centred, code_norm2);
      }
      product = GroupSum(product);
      code_norm2 = GroupSum(code_norm2);
      const float cosine2 = product * product / fmaxf(code_norm2, 1e-30f);
      if (cosine2 > best) {
        best = cosine2;
        step = candidate;
      }
    }
  }
  float product = 0.0f;
  for (int d = lane; d < coding.padded_dim; d += kWarpSize) {
    product = fmaf(rotated[d], code_of(rotated[d], 1.0f / step) - middle, product);
  }
  product = GroupSum(product);
  const int per_line = 32 / coding.bits;
  for (int line = lane; line < coding.n_lines; line += kWarpSize) {
    uint32_t word = 0;
    for (int i = 0; i < per_line; ++i) {
      const auto code = static_cast<uint32_t>(code_of(rotated[line * per_line + i], 1.0f / step));
      word |= code << (i % 4 * 8 + i / 4 * coding.bits);
    }
    words[line * kKeys + key] = is_coded ? word : 0;
  }
  return is_coded && product > 0.0f ? norm2 / product : 0.0f;
}

// blockIdx.x: block of codes, with the stride of the grid; blockIdx.y: KV head. Dynamic shared
// memory: keys [16, head_dim], the same rotated [16, padded_dim], words [n_lines, 16].
template <typename Element>
__global__ void __launch_bounds__(kThreads) EncodeKernel(const Coding coding) {
  extern __shared__ float shared[];
  float* const centred = shared;
  float* const rotated = centred + kKeys * coding.head_dim;
  auto* const words = reinterpret_cast<uint32_t*>(rotated + kKeys * coding.padded_dim);
  __shared__ bool is_finite[kKeys];
  const int kv_head = blockIdx.y;
  const auto* const keys = static_cast<const Element*>(coding.keys) + kv_head * coding.key_stride;
  const float* const mean = coding.mean + kv_head * coding.head_dim;
  const int64_t n_blocks = (coding.n_keys + kKeys - 1) / kKeys;
  for (int64_t block = blockIdx.x; block < n_blocks; block += gridDim.x) {
    if (threadIdx.x < kKeys) is_finite[threadIdx.x] = true;
    __syncthreads();
    const int64_t n = min(int64_t{kKeys}, coding.n_keys - block * kKeys);
    for (int i = threadIdx.x; i < kKeys * coding.head_dim; i += kThreads) {
      const int key = i / coding.head_dim;
      const float x =
          key < n ? ToFloat(keys[block * kKeys * coding.head_dim + i]) - mean[i % coding.head_dim]
                  : 0.0f;
      if (!isfinite(x)) is_finite[key] = false;
      centred[i] = x;
    }
    __syncthreads();
    // A thread has four keys of a dimension.
    for (int i = threadIdx.x; i < coding.padded_dim * (kKeys / 4); i += kThreads) {
      const int dim = i % coding.padded_dim;
      const float* const from = centred + i / coding.padded_dim * 4 * coding.head_dim;
      float sums[4] = {};
      for (int k = 0; k < coding.head_dim; ++k) {
        const float turned = coding.rotation[k * coding.padded_dim + dim];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          sums[j] = fmaf(turned, from[j * coding.head_dim + k], sums[j]);
        }
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int key = i / coding.padded_dim * 4 + j;
        rotated[key * coding.padded_dim + dim] = is_finite[key] ? sums[j] : 0.0f;
      }
    }
    __syncthreads();
    for (int key = threadIdx.x / kWarpSize; key < kKeys; key += kWarps) {
      const float factor = CodeKey(coding, rotated + key * coding.padded_dim, key, words);
      if (threadIdx.x % kWarpSize == 0) {
        coding.factors[(kv_head * n_blocks + block) * kKeys + key] = __float2bfloat16(factor);
      }
    }
    __syncthreads();
    uint32_t* const to = coding.codes + (kv_head * n_blocks + block) * coding.n_lines * kKeys;
    for (int i = threadIdx.x; i < coding.n_lines * kKeys; i += kThreads) to[i] = words[i];
    __syncthreads();
  }
}

template <typename Element>
absl::Status Launch(CudaDevice& device, const Coding& coding, int n_kv_heads) {
  MeanKernel<Element><<<n_kv_heads, kMeanThreads, 0, device.stream()>>>(coding);
  const int shared_bytes = kKeys * (coding.head_dim + coding.padded_dim + coding.n_lines) *
                           static_cast<int>(sizeof(float));
  const int64_t n_blocks = KeyCoder::NumBlocks(coding.n_keys);
  const dim3 grid(
      static_cast<unsigned>(std::min<int64_t>(n_blocks, 16 * device.n_multiprocessors())),
      static_cast<unsigned>(n_kv_heads));
  EncodeKernel<Element><<<grid, kThreads, shared_bytes, device.stream()>>>(coding);
  return LaunchStatus("EncodeKeys");
}

}  // namespace

absl::Status EncodeKeys(Device& device, const EncodeKeysArgs& args) {
  const KeyCoder& coder = *args.coder;
  if (coder.padded_dim() > kMaxDims) {
    return absl::UnimplementedError(StrCat("EncodeKeys: heads of ", coder.head_dim(),
                                           " dimensions, want at most ", kMaxDims, " on a GPU"));
  }
  const Coding coding{.keys = args.keys.data(),
                      .key_stride = args.keys.stride(0),
                      .n_keys = args.keys.dim(1),
                      .head_dim = static_cast<int>(coder.head_dim()),
                      .padded_dim = static_cast<int>(coder.padded_dim()),
                      .bits = coder.bits(),
                      .n_lines = static_cast<int>(coder.n_lines()),
                      .rotation = args.rotation,
                      .codes = reinterpret_cast<uint32_t*>(args.codes),
                      .factors = reinterpret_cast<__nv_bfloat16*>(args.factors),
                      .mean = args.mean};
  const int n_kv_heads = static_cast<int>(args.keys.dim(0));
  return args.keys.dtype() == DType::kBF16
             ? Launch<__nv_bfloat16>(AsCuda(device), coding, n_kv_heads)
             : Launch<float>(AsCuda(device), coding, n_kv_heads);
}

}  // namespace fovea::compute::cuda
