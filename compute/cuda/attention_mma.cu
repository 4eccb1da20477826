// Attention of many queries on tensor cores: a block takes a tile of queries of one head through
// all their keys, kKeys at a time, with a running softmax of each query (FlashAttention-2, Dao
// 2023). Queries, keys, values and weights are rounded to bfloat16; scores, sums, maxima and
// exponentials are float32. The next keys and values are on their way to shared memory while a tile
// is multiplied.
//
// Keys and values that are not bfloat16 in rows of whole 16-byte vectors already are brought into
// that form first, with heads padded to a multiple of 16 dimensions.
#include <cuda_bf16.h>

#include <algorithm>

#include "compute/cuda/attention.h"
#include "compute/cuda/elementwise.cuh"
#include "compute/cuda/mma.cuh"
#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {
namespace {

constexpr int kKeys = 64;
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

// How kDim-dimensional heads are computed: a warp takes 16 queries.
template <int kDim>
struct Tile {
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * kWarpSize;
  static constexpr int kQueries = 16 * kWarps;
  // Blocks of a multiprocessor that the registers are to suffice for: while one waits for products
  // or exponentials the others go on.
  static constexpr int kBlocks = kDim <= 64 ? 4 : kDim <= 96 ? 3 : 2;
  // Rows in shared memory are padded by 16 bytes: eight rows of a matrix lie in other banks each.
  static constexpr int kStride = kDim + 8;
  static constexpr int kSharedBytes = (kQueries + 4 * kKeys) * kStride * 2;
  static constexpr int kVectors = kDim / 8;  // of a row
};

// 2^x, but that of numbers below float32's normal ones is 0.
__device__ inline float PowerOfTwo(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}

struct MmaInput {
  AttentionInput in;
  const __nv_bfloat16* keys;  // rows of kDim
  const __nv_bfloat16* values;
  int64_t key_token_stride, key_head_stride, value_token_stride, value_head_stride;
};

// kKeys rows from `first` on, those before `end`, into shared memory.
template <int kDim>
__device__ void CopyRows(const __nv_bfloat16* from, int64_t token_stride, int64_t first,
                         int64_t end, __nv_bfloat16* to) {
  constexpr int kVectors = Tile<kDim>::kVectors;
#pragma unroll
  for (int i = threadIdx.x; i < kKeys * kVectors; i += Tile<kDim>::kThreads) {
    const int row = i / kVectors;
    const int vector = i % kVectors;
    const bool is_there = first + row < end;
    CopyAsync(from + (is_there ? first + row : 0) * token_stride + vector * 8, is_there,
              to + row * Tile<kDim>::kStride + vector * 8);
  }
}

template <int kDim>
__global__ void __launch_bounds__(Tile<kDim>::kThreads, Tile<kDim>::kBlocks)
    MmaKernel(MmaInput input, Sequences sequences) {
  using T = Tile<kDim>;
  extern __shared__ float4 shared4[];
  auto* const query_tile = reinterpret_cast<__nv_bfloat16*>(shared4);
  __nv_bfloat16* const key_tiles = query_tile + T::kQueries * T::kStride;  // [2][kKeys]
  __nv_bfloat16* const value_tiles = key_tiles + 2 * kKeys * T::kStride;   // [2][kKeys]

  const AttentionInput& in = input.in;
  const int d = in.head_dim;
  const int head = blockIdx.y;
  const int kv_head = head / (in.n_heads / in.n_kv_heads);
  int n_queries = in.n_queries;
  int64_t n_keys = in.n_keys;
  int64_t row_begin = 0;  // of the sequence
  if (sequences.n > 0) {
    row_begin = sequences.begins[blockIdx.z];
    n_queries = sequences.begins[blockIdx.z + 1] - static_cast<int>(row_begin);
    n_keys = n_queries;
  }
  // The tiles that see the most keys first.
  const int first_query =
      (static_cast<int>(gridDim.x) - 1 - static_cast<int>(blockIdx.x)) * T::kQueries;
  if (first_query >= n_queries) return;
  const __nv_bfloat16* const keys =
      input.keys + row_begin * input.key_token_stride + kv_head * input.key_head_stride;
  const __nv_bfloat16* const values =
      input.values + row_begin * input.value_token_stride + kv_head * input.value_head_stride;
  const int64_t past = n_keys - n_queries;
  const int last_query = min(first_query + T::kQueries, n_queries) - 1;
  const int64_t end = in.causal ? min(n_keys, past + last_query + 1) : n_keys;
  const auto n_steps = static_cast<int>(end > 0 ? (end + kKeys - 1) / kKeys : 0);

  if (n_steps > 0) {
    CopyRows<kDim>(keys, input.key_token_stride, 0, end, key_tiles);
    CopyRows<kDim>(values, input.value_token_stride, 0, end, value_tiles);
  }
  CommitCopies();
  const float* const queries =
      in.queries + ((row_begin + first_query) * in.n_heads + head) * static_cast<int64_t>(d);
  const float score_scale = in.scale * kLog2E;  // exponentials are powers of two
  for (int i = threadIdx.x; i < T::kQueries * kDim / 2; i += T::kThreads) {
    const int row = i / (kDim / 2);
    const int dim = i % (kDim / 2) * 2;
    float pair[2] = {};
    if (first_query + row < n_queries) {
      const float* const from = queries + row * static_cast<int64_t>(in.n_heads) * d + dim;
      if (dim < d) pair[0] = from[0] * score_scale;
      if (dim + 1 < d) pair[1] = from[1] * score_scale;
    }
    *reinterpret_cast<uint32_t*>(query_tile + row * T::kStride + dim) = PackPair(pair[0], pair[1]);
  }
  __syncthreads();

  const int lane = threadIdx.x % kWarpSize;
  const int warp = threadIdx.x / kWarpSize;
  uint32_t query[kDim / 16][4];
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) {
    LoadMatrices(query_tile + (warp * 16 + lane % 16) * T::kStride + k * 16 + lane / 16 * 8,
                 query[k]);
  }

  float output[kDim / 8][4] = {};
  float maximum[2] = {-INFINITY, -INFINITY}, sum[2] = {};  // of rows lane/4 and lane/4 + 8
  const int warp_query = first_query + warp * 16;
  // Keys that all queries of the warp see; each further one sees one more.
  const int64_t n_seen_by_all = in.causal ? min(n_keys, past + warp_query + 1) : n_keys;

  for (int step = 0; step < n_steps; ++step) {
    WaitForCopies<0>();
    __syncthreads();  // this step's rows are there, and those before have been read by all
    const __nv_bfloat16* const key_tile = key_tiles + step % 2 * kKeys * T::kStride;
    const __nv_bfloat16* const value_tile = value_tiles + step % 2 * kKeys * T::kStride;
    const int64_t first = static_cast<int64_t>(step) * kKeys;
    if (step + 1 < n_steps) {
      const int next = (step + 1) % 2 * kKeys * T::kStride;
      CopyRows<kDim>(keys, input.key_token_stride, first + kKeys, end, key_tiles + next);
      CopyRows<kDim>(values, input.value_token_stride, first + kKeys, end, value_tiles + next);
    }
    CommitCopies();

    float score[kKeys / 8][4] = {};
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
#pragma unroll
      for (int pair = 0; pair < kKeys / 16; ++pair) {
        uint32_t key[4];  // dimensions 0 … 7 and 8 … 15 of eight keys, and of the next eight
        LoadMatrices(key_tile + (pair * 16 + lane % 8 + lane / 16 * 8) * T::kStride + k * 16 +
                         lane / 8 % 2 * 8,
                     key);
        MultiplyTile(query[k], key[0], key[1], score[2 * pair]);
        MultiplyTile(query[k], key[2], key[3], score[2 * pair + 1]);
      }
    }
    if (first + kKeys > n_seen_by_all) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t end_of_visible =
            in.causal ? min(n_keys, past + warp_query + half * 8 + lane / 4 + 1) : n_keys;
        const auto n_visible = static_cast<int>(max(end_of_visible - first, int64_t{0}));
#pragma unroll
        for (int tile = 0; tile < kKeys / 8; ++tile) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            if (tile * 8 + lane % 4 * 2 + i >= n_visible) {
              score[tile][2 * half + i] = -INFINITY;
            }
          }
        }
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float high = maximum[half];
#pragma unroll
      for (int tile = 0; tile < kKeys / 8; ++tile) {
        high = fmaxf(high, fmaxf(score[tile][2 * half], score[tile][2 * half + 1]));
      }
      high = GroupMax<4>(high);
      // A row that has seen no key yet: −inf − (−inf) would be NaN.
      const float finite = high == -INFINITY ? 0.0f : high;
      const float factor = PowerOfTwo(maximum[half] - finite);
      float own = 0.0f;
#pragma unroll
      for (int tile = 0; tile < kKeys / 8; ++tile) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& s = score[tile][2 * half + i];
          s = PowerOfTwo(s - finite);
          own += s;
        }
      }
      sum[half] = sum[half] * factor + own;  // over the lanes of a row at the end
      maximum[half] = high;
#pragma unroll
      for (int tile = 0; tile < kDim / 8; ++tile) {
        output[tile][2 * half] *= factor;
        output[tile][2 * half + 1] *= factor;
      }
    }
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      // What the product of scores left in a lane is what the next product takes of weights.
      uint32_t weight[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* const s = score[2 * k + i / 2];
        weight[i] = PackPair(s[i % 2 * 2], s[i % 2 * 2 + 1]);
      }
#pragma unroll
      for (int pair = 0; pair < kDim / 16; ++pair) {
        uint32_t value[4];  // keys 0 … 7 and 8 … 15 of eight dimensions, and of the next eight
        LoadTransposed(value_tile + (k * 16 + lane % 16) * T::kStride + pair * 16 + lane / 16 * 8,
                       value);
        MultiplyTile(weight, value[0], value[1], output[2 * pair]);
        MultiplyTile(weight, value[2], value[3], output[2 * pair + 1]);
      }
    }
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float total = GroupSum<4>(sum[half]);
    const int q = warp_query + half * 8 + lane / 4;
    if (q >= n_queries) continue;
    const int64_t row = (row_begin + q) * in.n_heads + head;
    const float factor = total > 0.0f ? 1.0f / total : 0.0f;
    float* const to = in.output + row * d;
#pragma unroll
    for (int tile = 0; tile < kDim / 8; ++tile) {
      const int dim = tile * 8 + lane % 4 * 2;
      if (dim < d) to[dim] = output[tile][2 * half] * factor;
      if (dim + 1 < d) to[dim + 1] = output[tile][2 * half + 1] * factor;
    }
    if (lane % 4 == 0 && in.lse != nullptr) {
      in.lse[row] = total > 0.0f ? maximum[half] * kLn2 + logf(total) : -INFINITY;
    }
  }
}

// Rows of d numbers → [n_keys, n_kv_heads, padded_dim] in bfloat16, zeros behind; keys, then
// values.
template <typename T>
__global__ void PadRowsKernel(AttentionInput in, int padded_dim, __nv_bfloat16* to) {
  const int64_t n = in.n_keys * in.n_kv_heads * padded_dim / 2;
  FOVEA_FOR_EACH_ELEMENT(i, 2 * n) {
    const bool is_value = i >= n;
    const int64_t pair = is_value ? i - n : i;
    const int64_t row = pair / (padded_dim / 2);
    const auto dim = static_cast<int>(pair % (padded_dim / 2)) * 2;
    const int64_t token = row / in.n_kv_heads;
    const int64_t head = row % in.n_kv_heads;
    const T* const from = is_value ? static_cast<const T*>(in.values) +
                                         token * in.value_token_stride + head * in.value_head_stride
                                   : static_cast<const T*>(in.keys) + token * in.key_token_stride +
                                         head * in.key_head_stride;
    const float first = dim < in.head_dim ? static_cast<float>(from[dim]) : 0.0f;
    const float second = dim + 1 < in.head_dim ? static_cast<float>(from[dim + 1]) : 0.0f;
    reinterpret_cast<uint32_t*>(to)[i] = PackPair(first, second);
  }
}

template <int kDim>
absl::Status Launch(CudaDevice& device, MmaInput input, std::span<const int64_t> begins,
                    bool in_bf16) {
  const AttentionInput& in = input.in;
  const auto is_aligned = [](const void* data, int64_t token_stride, int64_t head_stride) {
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 && token_stride % 8 == 0 &&
           head_stride % 8 == 0;
  };
  if (in_bf16 && in.head_dim == kDim &&
      is_aligned(in.keys, in.key_token_stride, in.key_head_stride) &&
      is_aligned(in.values, in.value_token_stride, in.value_head_stride)) {
    input.keys = static_cast<const __nv_bfloat16*>(in.keys);
    input.values = static_cast<const __nv_bfloat16*>(in.values);
    input.key_token_stride = in.key_token_stride;
    input.key_head_stride = in.key_head_stride;
    input.value_token_stride = in.value_token_stride;
    input.value_head_stride = in.value_head_stride;
  } else {
    const int64_t n = in.n_keys * in.n_kv_heads * kDim;
    ASSIGN_OR_RETURN(std::byte* const scratch,
                     device.Scratch(static_cast<size_t>(2 * n) * sizeof(__nv_bfloat16)));
    auto* const padded = reinterpret_cast<__nv_bfloat16*>(scratch);
    if (in_bf16) {
      PadRowsKernel<__nv_bfloat16>
          <<<ElementBlocks(n), kElementThreads, 0, device.stream()>>>(in, kDim, padded);
    } else {
      PadRowsKernel<float>
          <<<ElementBlocks(n), kElementThreads, 0, device.stream()>>>(in, kDim, padded);
    }
    input.keys = padded;
    input.values = padded + n;
    input.key_token_stride = input.value_token_stride = int64_t{in.n_kv_heads} * kDim;
    input.key_head_stride = input.value_head_stride = kDim;
  }
  RETURN_IF_CUDA_ERROR(
      cudaFuncSetAttribute(MmaKernel<kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           Tile<kDim>::kSharedBytes),
      StrCat("Attention with heads of ", in.head_dim));
  ForSequences(begins, [&](const Sequences& sequences) {
    const int n_tiles =
        (LongestSequence(in, sequences) + Tile<kDim>::kQueries - 1) / Tile<kDim>::kQueries;
    const dim3 grid(static_cast<unsigned>(n_tiles), static_cast<unsigned>(in.n_heads),
                    static_cast<unsigned>(std::max(1, sequences.n)));
    MmaKernel<kDim><<<grid, Tile<kDim>::kThreads, Tile<kDim>::kSharedBytes, device.stream()>>>(
        input, sequences);
  });
  return LaunchStatus("Attention");
}

}  // namespace

absl::Status AttendOnTensorCores(CudaDevice& device, const AttentionInput& in,
                                 std::span<const int64_t> begins, bool in_bf16) {
  const MmaInput input{.in = in};
  if (in.head_dim <= 64) return Launch<64>(device, input, begins, in_bf16);
  if (in.head_dim <= 80) return Launch<80>(device, input, begins, in_bf16);
  if (in.head_dim <= 96) return Launch<96>(device, input, begins, in_bf16);
  if (in.head_dim <= 112) return Launch<112>(device, input, begins, in_bf16);
  return Launch<128>(device, input, begins, in_bf16);
}

}  // namespace fovea::compute::cuda
