// Attention of a few queries to many keys: blocks take runs of them (attention_run.cuh), and a
// second kernel merges what they found. Thousands of bfloat16 keys that lie beside one another, but
// whose dimensions are no multiple of the widest reads, are copied tile by tile into shared memory
// while a warp attends to the ones before.
#include <algorithm>

#include "compute/cuda/attention_run.cuh"

namespace fovea::compute::cuda {
namespace {

template <typename T, int kVector, int kVectors, int kRows>
__global__ void __launch_bounds__(kSplitWarps* kWarpSize, kVector* kVectors <= 16 ? 2 : 1)
    SplitKernel(AttentionInput in, int64_t keys_per_split, SplitParts parts) {
  const int group_size = in.n_heads / in.n_kv_heads;
  const int n_rows = in.n_queries * group_size;
  const int kv_head = blockIdx.y;
  const int row0 = blockIdx.z * kRows;
  float query[kRows][kVector * kVectors] = {};
  int64_t n_visible[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int row = min(row0 + r, n_rows - 1);
    const int position = row / group_size;
    n_visible[r] = in.causal ? in.n_keys - in.n_queries + position + 1 : in.n_keys;
    const int64_t head =
        static_cast<int64_t>(position) * in.n_heads + kv_head * group_size + row % group_size;
    LaneDims<kVector, kVectors>::ForEach(in.head_dim, [&](int i, int dim) {
      query[r][i] = in.queries[head * in.head_dim + dim] * in.scale;
    });
  }
  Running<kVector * kVectors> running[kRows];
  const int64_t begin = blockIdx.x * keys_per_split;
  AttendToRun<T, kVector, kVectors, kRows>(
      in, kv_head, begin, min(begin + keys_per_split, in.n_keys), query, n_visible, running);
  StoreParts<kVector, kVectors, kRows>(in, kv_head, row0, blockIdx.x, gridDim.x, running, parts);
}

// Keys of a tile, and tiles of a warp that are on their way or there.
constexpr int kTileKeys = kGroups * kKeysAtOnce;
constexpr int kStages = 3;
constexpr int64_t TileBytes(int head_dim) {
  return kTileKeys * head_dim * static_cast<int64_t>(sizeof(__nv_bfloat16));
}

// Bytes from … up to `end` of memory → shared memory, by a warp, 16 at a time and zeros behind the
// end. Under way until the warp waits for it.
__device__ inline void CopyTile(const std::byte* from, const std::byte* end, int n_bytes,
                                std::byte* to) {
  const auto place = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  for (int at = threadIdx.x % kWarpSize * 16; at < n_bytes; at += kWarpSize * 16) {
    const auto n = static_cast<int>(max(int64_t{0}, min(int64_t{16}, end - (from + at))));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(place + at),
                 "l"(n > 0 ? from + at : end - 16), "r"(n)
                 : "memory");
  }
}

// As SplitKernel, of one KV head's rows row0 …; every row sees every key. Dynamic shared memory:
// [warps, kStages, key tile | value tile].
template <int kVector, int kVectors, int kRows>
__global__ void __launch_bounds__(kSplitWarps* kWarpSize, 1)
    StreamKernel(AttentionInput in, int64_t keys_per_split, SplitParts parts) {
  using T = __nv_bfloat16;
  extern __shared__ uint4 shared[];
  const int group_size = in.n_heads / in.n_kv_heads;
  const int n_rows = in.n_queries * group_size;
  const int kv_head = blockIdx.y;
  const int row0 = blockIdx.z * kRows;
  const int warp = threadIdx.x / kWarpSize;
  const int group = threadIdx.x % kWarpSize / kGroupLanes;
  float query[kRows][kVector * kVectors] = {};
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int row = min(row0 + r, n_rows - 1);
    const int64_t head = static_cast<int64_t>(row / group_size) * in.n_heads +
                         kv_head * group_size + row % group_size;
    LaneDims<kVector, kVectors>::ForEach(in.head_dim, [&](int i, int dim) {
      query[r][i] = in.queries[head * in.head_dim + dim] * in.scale;
    });
  }
  const int64_t begin = blockIdx.x * keys_per_split;
  const int64_t end = min(begin + keys_per_split, in.n_keys);
  const int64_t n_tiles = (end - begin + kTileKeys - 1) / kTileKeys;
  const auto tile_bytes = static_cast<int>(TileBytes(in.head_dim));
  auto* const own = reinterpret_cast<std::byte*>(shared) + warp * kStages * 2 * tile_bytes;
  const T* const keys = static_cast<const T*>(in.keys) + kv_head * in.key_head_stride;
  const T* const values = static_cast<const T*>(in.values) + kv_head * in.value_head_stride;
  const auto copy = [&](int64_t tile, int stage) {
    if (tile < n_tiles) {
      std::byte* const to = own + stage * 2 * tile_bytes;
      const int64_t first = (begin + tile * kTileKeys) * in.head_dim;
      const auto bytes = [](const T* at) { return reinterpret_cast<const std::byte*>(at); };
      CopyTile(bytes(keys + first), bytes(keys + in.n_keys * in.head_dim), tile_bytes, to);
      CopyTile(bytes(values + first), bytes(values + in.n_keys * in.head_dim), tile_bytes,
               to + tile_bytes);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };
  int64_t ahead = warp;
  for (int stage = 0; stage < kStages - 1; ++stage, ahead += kSplitWarps) copy(ahead, stage);
  Running<kVector * kVectors> running[kRows];
  int stage = 0;
  for (int64_t tile = warp; tile < n_tiles; tile += kSplitWarps) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2) : "memory");
    __syncwarp();
    copy(ahead, (stage + kStages - 1) % kStages);
    ahead += kSplitWarps;
    const auto* const tile_keys = reinterpret_cast<const T*>(own + stage * 2 * tile_bytes);
    const T* const tile_values = tile_keys + kTileKeys * in.head_dim;
    const auto entry = [&](const T* of_tile, int j, float* to) {
      LoadEntry<T, kVector, kVectors>(of_tile + (group + j * kGroups) * in.head_dim, in.head_dim,
                                      true, to);
    };
    const int64_t first = begin + tile * kTileKeys + group;
    AttendToKeys<kVector * kVectors, kRows, false>(
        query, [&](int j, float* to) { entry(tile_keys, j, to); },
        [&](int j, float* to) { entry(tile_values, j, to); },
        [&](int, int j) { return first + j * kGroups < end; }, running);
    __syncwarp();
    stage = (stage + 1) % kStages;
  }
  StoreParts<kVector, kVectors, kRows>(in, kv_head, row0, blockIdx.x, gridDim.x, running, parts);
}

// Whether StreamKernel can be used, and pays.
bool Streams(const CudaDevice& device, const AttentionInput& in, bool in_bf16) {
  constexpr int64_t kLeastKeys = 8192;
  const auto is_aligned = [](const void* data, int64_t head_stride) {
    return reinterpret_cast<uintptr_t>(data) % 16 == 0 && head_stride % 8 == 0;
  };
  return in_bf16 && in.n_keys >= kLeastKeys && (in.n_queries == 1 || !in.causal) &&
         in.key_token_stride == in.head_dim && in.value_token_stride == in.head_dim &&
         in.head_dim % 8 != 0 && in.head_dim % 4 == 0 && is_aligned(in.keys, in.key_head_stride) &&
         is_aligned(in.values, in.value_head_stride) &&
         kSplitWarps * kStages * 2 * TileBytes(in.head_dim) <= device.max_shared_bytes() - 16384;
}

// A block a row of [n_queries · n_heads].
__global__ void MergeSplitsKernel(SplitParts parts, int n_splits, int head_dim, float* output,
                                  float* lse) {
  __shared__ float shared[kWarpSize];
  const int64_t row = blockIdx.x;
  const float* const maximum = parts.maximum + row * n_splits;
  float high = -INFINITY;
  for (int s = threadIdx.x; s < n_splits; s += blockDim.x) high = fmaxf(high, maximum[s]);
  high = GroupMax(high);
  if (threadIdx.x % kWarpSize == 0) shared[threadIdx.x / kWarpSize] = high;
  __syncthreads();
  high = -INFINITY;
  for (unsigned w = 0; w < blockDim.x / kWarpSize; ++w) high = fmaxf(high, shared[w]);
  __syncthreads();
  float sum = 0.0f;
  if (high > -INFINITY) {
    for (int s = threadIdx.x; s < n_splits; s += blockDim.x) {
      sum += parts.sum[row * n_splits + s] * expf(maximum[s] - high);
    }
  }
  sum = BlockSum(sum, shared);
  if (threadIdx.x == 0 && lse != nullptr) lse[row] = sum > 0.0f ? high + logf(sum) : -INFINITY;
  const float factor = sum > 0.0f ? 1.0f / sum : 0.0f;
  for (int i = threadIdx.x; i < head_dim; i += blockDim.x) {
    float total = 0.0f;
    for (int s = 0; s < n_splits && high > -INFINITY; ++s) {
      total += parts.output[(row * n_splits + s) * head_dim + i] * expf(maximum[s] - high);
    }
    output[row * head_dim + i] = total * factor;
  }
}

}  // namespace

absl::Status AttendInSplits(CudaDevice& device, const AttentionInput& in, bool in_bf16) {
  const int n_rows = in.n_queries * (in.n_heads / in.n_kv_heads);
  const bool streams = Streams(device, in, in_bf16);
  // Two blocks a multiprocessor, of streams one, or as many as there are keys for.
  const int64_t wanted =
      std::max(1, (streams ? 1 : 2) * device.n_multiprocessors() / in.n_kv_heads);
  const int64_t possible = (in.n_keys + kMinKeysPerSplit - 1) / kMinKeysPerSplit;
  const auto n_splits = static_cast<int>(std::clamp<int64_t>(possible, 1, wanted));
  // Whole tiles of a stream.
  const int64_t unit = streams ? kTileKeys : 1;
  const int64_t keys_per_split = (in.n_keys + n_splits * unit - 1) / (n_splits * unit) * unit;
  const int64_t n_parts = int64_t{in.n_queries} * in.n_heads * n_splits;
  ASSIGN_OR_RETURN(
      std::byte* const scratch,
      device.Scratch(static_cast<size_t>(n_parts * (in.head_dim + 2)) * sizeof(float)));
  auto* const floats = reinterpret_cast<float*>(scratch);
  const SplitParts parts{floats, floats + n_parts, floats + 2 * n_parts};
  const auto launch = [&]<typename T, int kVector, int kVectors, int kRows>() -> absl::Status {
    const dim3 grid(static_cast<unsigned>(n_splits), static_cast<unsigned>(in.n_kv_heads),
                    static_cast<unsigned>((n_rows + kRows - 1) / kRows));
    if constexpr (sizeof(T) == sizeof(__nv_bfloat16) && kVector >= 4) {
      if (streams) {
        const auto kernel = StreamKernel<kVector, kVectors, kRows>;
        const auto shared_bytes =
            static_cast<int>(kSplitWarps * kStages * 2 * TileBytes(in.head_dim));
        RETURN_IF_CUDA_ERROR(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
            "Attention");
        kernel<<<grid, kSplitWarps * kWarpSize, static_cast<size_t>(shared_bytes),
                 device.stream()>>>(in, keys_per_split, parts);
        return LaunchStatus("Attention");
      }
    }
    SplitKernel<T, kVector, kVectors, kRows>
        <<<grid, kSplitWarps * kWarpSize, 0, device.stream()>>>(in, keys_per_split, parts);
    return LaunchStatus("Attention");
  };
  RETURN_IF_ERROR(in_bf16 ? VisitSplitShape<__nv_bfloat16>(in, n_rows, launch)
                          : VisitSplitShape<float>(in, n_rows, launch));
  MergeSplitsKernel<<<static_cast<unsigned>(in.n_queries * in.n_heads), 64, 0, device.stream()>>>(
      parts, n_splits, in.head_dim, in.output, in.lse);
  return LaunchStatus("Attention");
}

}  // namespace fovea::compute::cuda
