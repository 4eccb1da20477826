// The local attention of one token in one kernel: the block that has the last run of keys appends
// the new one to them first. What the blocks of a KV head found is merged by the one that has the
// first run, to whose shared memory the others write it, or, of more blocks than a cluster has or
// on earlier GPUs, by the last one to finish.
#include "compute/cuda/attention_run.cuh"
#include "compute/cuda/cluster.cuh"
#include "compute/cuda/dependent_launch.cuh"
#include "compute/cuda/ops.h"
#include "compute/decode_attention.h"

namespace fovea::compute::cuda {
namespace {

struct DecodeInput {
  const float* key;    // [n_kv_heads, head_dim], before the rotation
  const float* value;  // [n_kv_heads, head_dim]
  const TokenPlace* place;
  const float* inverse_frequencies;  // or null
  float* rotated;                    // [n_heads, head_dim]
  int64_t keys_per_split;
  int max_splits;
  uint64_t* counters;  // [n_kv_heads · blocks of rows]
};

// By what dimensions i and i + half of a head are rotated (rope.cu).
struct Angle {
  float sin = 0.0f;
  float cos = 1.0f;
};
__device__ inline Angle AngleOf(const DecodeInput& step, int position, int i) {
  Angle angle;
  if (step.inverse_frequencies != nullptr) {
    sincosf(__fmul_rn(static_cast<float>(position), step.inverse_frequencies[i]), &angle.sin,
            &angle.cos);
  }
  return angle;
}
struct Pair {
  float first, second;
};
__device__ inline Pair RotatedPair(const float* head, int i, int half, const DecodeInput& step,
                                   const Angle& angle) {
  const Pair x{__ldcg(head + i), __ldcg(head + i + half)};
  if (step.inverse_frequencies == nullptr) return x;
  return {x.first * angle.cos - x.second * angle.sin, x.second * angle.cos + x.first * angle.sin};
}

// Of the splits of a row.
constexpr int kMostOfCluster = 8;
template <int kRows>
__device__ inline SplitParts SharedParts(int max_splits, float* shared) {
  const int n = kRows * max_splits;
  return {shared, shared + n, shared + 2 * n};
}
// Rows row0 … of a KV head: parts [kRows, max_splits] in shared memory → output.
template <int kRows>
__device__ inline void MergeSharedParts(const AttentionInput& in, int kv_head, int row0,
                                        int n_splits, int max_splits, const SplitParts& parts) {
  const int group_size = in.n_heads / in.n_kv_heads;
  const int n_rows = min(kRows, group_size - row0);
  for (int i = threadIdx.x; i < n_rows * in.head_dim; i += blockDim.x) {
    const int r = i / in.head_dim;
    const int dim = i % in.head_dim;
    const int first = r * max_splits;
    float high = -INFINITY;
    for (int s = 0; s < n_splits; ++s) high = fmaxf(high, parts.maximum[first + s]);
    float sum = 0.0f;
    float total = 0.0f;
    for (int s = 0; s < n_splits; ++s) {
      const float weight = high > -INFINITY ? expf(parts.maximum[first + s] - high) : 0.0f;
      sum += weight * parts.sum[first + s];
      total += weight * parts.output[(first + s) * in.head_dim + dim];
    }
    const int row = kv_head * group_size + row0 + r;
    in.output[row * in.head_dim + dim] = sum > 0.0f ? total / sum : 0.0f;
    if (dim == 0 && in.lse != nullptr) in.lse[row] = sum > 0.0f ? high + logf(sum) : -INFINITY;
  }
}

// Rows row0 … of a KV head: parts → output, by the block that finished last.
template <int kRows>
__device__ inline void MergeParts(const AttentionInput& in, int kv_head, int row0, int n_splits,
                                  int max_splits, const SplitParts& parts) {
  extern __shared__ float weights[];  // [kRows, max_splits]
  __shared__ float highest[kRows], sums[kRows];
  const int group_size = in.n_heads / in.n_kv_heads;
  const int n_rows = min(kRows, group_size - row0);
  const int64_t first = static_cast<int64_t>(kv_head * group_size + row0) * max_splits;
  // What a thread reads first is on its way before it waits for anything.
  const auto output_of = [&](int i) {
    const int r = i / in.head_dim;
    return parts.output + (first + r * max_splits) * in.head_dim + i % in.head_dim;
  };
  constexpr int kAhead = 4;
  float ahead[kAhead];
#pragma unroll
  for (int s = 0; s < kAhead; ++s) {
    if (static_cast<int>(threadIdx.x) < n_rows * in.head_dim && s < n_splits) {
      ahead[s] =
          __ldcg(output_of(static_cast<int>(threadIdx.x)) + static_cast<int64_t>(s) * in.head_dim);
    }
  }
  // A warp a row.
  for (int r = threadIdx.x / kWarpSize; r < n_rows; r += kSplitWarps) {
    const int lane = threadIdx.x % kWarpSize;
    const float* const maximum = parts.maximum + first + r * max_splits;
    const float* const part_sum = parts.sum + first + r * max_splits;
    // Of the lane's first split.
    const bool has_split = lane < n_splits;
    const float own_maximum = has_split ? __ldcg(maximum + lane) : -INFINITY;
    const float own_sum = has_split ? __ldcg(part_sum + lane) : 0.0f;
    float high = own_maximum;
    for (int s = lane + kWarpSize; s < n_splits; s += kWarpSize) {
      high = fmaxf(high, __ldcg(maximum + s));
    }
    high = GroupMax(high);
    float sum = 0.0f;
    for (int s = lane; s < n_splits; s += kWarpSize) {
      const bool is_first = s == lane;
      const float weight =
          high > -INFINITY ? expf((is_first ? own_maximum : __ldcg(maximum + s)) - high) : 0.0f;
      weights[r * max_splits + s] = weight;
      sum += weight * (is_first ? own_sum : __ldcg(part_sum + s));
    }
    sum = GroupSum(sum);
    if (lane == 0) {
      highest[r] = high;
      sums[r] = sum;
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < n_rows * in.head_dim; i += blockDim.x) {
    const int r = i / in.head_dim;
    const int dim = i % in.head_dim;
    const float* const output = output_of(i);
    float total = 0.0f;
    int s = 0;
    if (i == static_cast<int>(threadIdx.x)) {
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (j < n_splits) total += ahead[j] * weights[r * max_splits + j];
      }
      s = min(kAhead, n_splits);
    }
#pragma unroll 4
    for (; s < n_splits; ++s) {
      total += __ldcg(output + static_cast<int64_t>(s) * in.head_dim) * weights[r * max_splits + s];
    }
    const int row = kv_head * group_size + row0 + r;
    in.output[row * in.head_dim + dim] = sums[r] > 0.0f ? total / sums[r] : 0.0f;
    if (dim == 0 && in.lse != nullptr) {
      in.lse[row] = sums[r] > 0.0f ? highest[r] + logf(sums[r]) : -INFINITY;
    }
  }
}

// Whether a block has the first keys and values of its run in registers before its query is there,
// and beside them room for the blocks of the kernels before and after it.
template <typename T, int kDims, int kRows>
inline constexpr bool kLoadsAhead = kDims * sizeof(T) <= 32 && kDims* kRows <= 32;
template <int kDims, int kRows>
inline constexpr int kBlocks = kDims <= 16 && kDims* kRows <= 16 ? 2 : 1;

// blockIdx: run of keys, KV head, kRows of its heads.
template <typename T, int kVector, int kVectors, int kRows, bool kCluster>
__global__ void __launch_bounds__(kSplitWarps* kWarpSize, kBlocks<kVector * kVectors, kRows>)
    DecodeKernel(AttentionInput in, DecodeInput step, SplitParts parts) {
#if __CUDA_ARCH__ < 900
  if (kCluster) return;  // it is never launched there
#endif
  constexpr int kDims = kVector * kVectors;
  constexpr bool kAhead = kLoadsAhead<T, kDims, kRows>;
  constexpr int kStride = kSplitWarps * kGroups;
  __shared__ bool is_last;
  __shared__ float queries[kRows][kDims * kGroupLanes];
  __shared__ alignas(16) T appended[2][kDims * kGroupLanes];  // the new key and value
  if constexpr (kCluster) ArriveAtCluster();
  const int group_size = in.n_heads / in.n_kv_heads;
  const int kv_head = blockIdx.y;
  const int row0 = blockIdx.z * kRows;
  const int split = blockIdx.x;
  // The place and what lies before it are there before the kernel before this one begins (see
  // DecodeAttentionArgs).
  const TokenPlace place = *step.place;
  in.n_keys = place.row + 1;
  const int64_t begin = split * step.keys_per_split;
  if (begin >= in.n_keys) return;
  const auto n_splits =
      static_cast<int>((in.n_keys + step.keys_per_split - 1) / step.keys_per_split);
  const int64_t end = min(begin + step.keys_per_split, in.n_keys);
  const int64_t own =
      begin + threadIdx.x / kWarpSize * kGroups + threadIdx.x % kWarpSize / kGroupLanes;
  const T* const keys = static_cast<const T*>(in.keys) + kv_head * in.key_head_stride;
  const T* const values = static_cast<const T*>(in.values) + kv_head * in.value_head_stride;
  StoredEntry<T, kVector, kVectors> first_keys[kAhead ? kKeysAtOnce : 1];
  StoredEntry<T, kVector, kVectors> first_values[kAhead ? kKeysAtOnce : 1];
  if constexpr (kAhead) {
#pragma unroll
    for (int j = 0; j < kKeysAtOnce; ++j) {
      const int64_t key = own + j * kStride;
      if (key >= end || key >= place.row) continue;
      first_keys[j].Load(keys + key * in.key_token_stride, in.head_dim);
      first_values[j].Load(values + key * in.value_token_stride, in.head_dim);
    }
  }
  const int half = in.head_dim / 2;
  const Angle own_angle = AngleOf(step, place.position, static_cast<int>(threadIdx.x) % half);
  AwaitKernelBefore();
  // Not earlier: what the next one reads comes in the way of what is read here.
  AllowNextKernel();
  // A thread a pair of dimensions: of the queries, then of the new key, which the block that has
  // the last run of keys appends to them.
  const int n_pairs = (split == n_splits - 1 ? kRows + 1 : kRows) * half;
  for (int p = threadIdx.x; p < n_pairs; p += blockDim.x) {
    const int r = p / half;
    const int i = p % half;
    const Angle angle =
        p == static_cast<int>(threadIdx.x) ? own_angle : AngleOf(step, place.position, i);
    if (r < kRows) {
      const int64_t at =
          static_cast<int64_t>(kv_head * group_size + min(row0 + r, group_size - 1)) * in.head_dim;
      const Pair query = RotatedPair(in.queries + at, i, half, step, angle);
      queries[r][i] = query.first * in.scale;
      queries[r][i + half] = query.second * in.scale;
      if (split == 0) {
        step.rotated[at + i] = query.first;
        step.rotated[at + i + half] = query.second;
      }
    } else {
      const int64_t from = static_cast<int64_t>(kv_head) * in.head_dim;
      const Pair key = RotatedPair(step.key + from, i, half, step, angle);
      auto* const to_key = static_cast<T*>(const_cast<void*>(in.keys)) +
                           place.row * in.key_token_stride + kv_head * in.key_head_stride;
      auto* const to_value = static_cast<T*>(const_cast<void*>(in.values)) +
                             place.row * in.value_token_stride + kv_head * in.value_head_stride;
      for (const int dim : {i, i + half}) {
        appended[0][dim] = to_key[dim] = static_cast<T>(dim == i ? key.first : key.second);
        appended[1][dim] = to_value[dim] = static_cast<T>(__ldcg(step.value + from + dim));
      }
    }
  }
  __syncthreads();
  float query[kRows][kDims] = {};
  int64_t n_visible[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    n_visible[r] = in.n_keys;
    LaneDims<kVector, kVectors>::ForEach(in.head_dim,
                                         [&](int i, int dim) { query[r][i] = queries[r][dim]; });
  }
  Running<kDims> running[kRows];
  int64_t rest = begin;
  if constexpr (kAhead) {
#pragma unroll
    for (int j = 0; j < kKeysAtOnce; ++j) {
      if (own + j * kStride != place.row) continue;
      first_keys[j].LoadShared(appended[0], in.head_dim);
      first_values[j].LoadShared(appended[1], in.head_dim);
    }
    AttendToKeys<kDims, kRows, false>(
        query,
        [&](int j, float* to) { first_keys[j].Convert(in.head_dim, own + j * kStride < end, to); },
        [&](int j, float* to) {
          first_values[j].Convert(in.head_dim, own + j * kStride < end, to);
        },
        [&](int, int j) { return own + j * kStride < end; }, running);
    rest += kStride * kKeysAtOnce;
  }
  AttendToRun<T, kVector, kVectors, kRows, kBlocks<kDims, kRows> == 1>(in, kv_head, rest, end,
                                                                       query, n_visible, running);
  if constexpr (kCluster) {
    extern __shared__ float shared_parts[];
    AwaitCluster();  // the first block has begun
    StorePartsAs<kVector, kVectors, kRows>(
        in, row0, running, [&](int r) { return r * step.max_splits + split; },
        SharedParts<kRows>(step.max_splits, OfBlock(shared_parts, 0)));
    ArriveAtCluster();
    if (split != 0) return;
    AwaitCluster();
    MergeSharedParts<kRows>(in, kv_head, row0, n_splits, step.max_splits,
                            SharedParts<kRows>(step.max_splits, shared_parts));
    return;
  }
  StoreParts<kVector, kVectors, kRows>(in, kv_head, row0, split, step.max_splits, running, parts);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    auto* const counter =
        reinterpret_cast<unsigned long long*>(step.counters + kv_head * gridDim.z + blockIdx.z);
    is_last = atomicAdd(counter, 1ull) == static_cast<unsigned long long>(n_splits - 1);
    if (is_last) *counter = 0;
  }
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  MergeParts<kRows>(in, kv_head, row0, n_splits, step.max_splits, parts);
}

}  // namespace

absl::Status DecodeAttention(Device& device, const DecodeAttentionArgs& args) {
  CudaDevice& cuda = AsCuda(device);
  const int64_t n_heads = args.query.dim(0);
  const int64_t head_dim = args.query.dim(1);
  // Its keys are the room; the kernel reads from `place` how many there are.
  const AttentionInput in =
      InputOf({.queries = {args.query.As<float>(), {1, n_heads, head_dim}},
               .keys = args.keys,
               .values = args.values,
               .scale = args.scale,
               .causal = true,
               .output = {args.output.As<float>(), {1, n_heads, head_dim}},
               .lse = args.lse.is_none() ? View() : View(args.lse.As<float>(), {1, n_heads})});
  if (in.n_heads > Gpu::kMaxCounters) {
    return absl::UnimplementedError(StrCat("DecodeAttention: ", in.n_heads, " heads, want at most ",
                                           Gpu::kMaxCounters, " on a GPU"));
  }
  const int n_rows = in.n_heads / in.n_kv_heads;
  const int64_t room = in.n_keys;
  const int64_t wanted = std::max(1, 2 * cuda.n_multiprocessors() / in.n_kv_heads);
  // Whole passes of a block over its keys.
  const int64_t passes = (room + wanted * kMinKeysPerSplit - 1) / (wanted * kMinKeysPerSplit);
  const int64_t keys_per_split = std::max<int64_t>(passes, 1) * kMinKeysPerSplit;
  const auto n_splits = static_cast<int>((room + keys_per_split - 1) / keys_per_split);
  const int64_t n_parts = int64_t{in.n_heads} * n_splits;
  ASSIGN_OR_RETURN(std::byte* const scratch,
                   cuda.Scratch(static_cast<size_t>(n_parts * (in.head_dim + 2)) * sizeof(float)));
  auto* const floats = reinterpret_cast<float*>(scratch);
  const SplitParts parts{floats, floats + n_parts, floats + 2 * n_parts};
  const DecodeInput step{.key = args.key.As<float>(),
                         .value = args.value.As<float>(),
                         .place = args.place,
                         .inverse_frequencies = args.inverse_frequencies.As<float>(),
                         .rotated = args.rotated.As<float>(),
                         .keys_per_split = keys_per_split,
                         .max_splits = n_splits,
                         .counters = cuda.counters()};
  const auto launch = [&]<typename T, int kVector, int kVectors, int kRows>() {
    const dim3 grid(static_cast<unsigned>(n_splits), static_cast<unsigned>(in.n_kv_heads),
                    static_cast<unsigned>((n_rows + kRows - 1) / kRows));
    constexpr std::string_view kOp = "DecodeAttention";
    constexpr int kThreads = kSplitWarps * kWarpSize;
    const auto n_parts_of_block = static_cast<size_t>(kRows * n_splits);
    if (cuda.compute_capability() >= 90 && n_splits <= kMostOfCluster) {
      return LaunchClusters(cuda, kOp, DecodeKernel<T, kVector, kVectors, kRows, true>, grid,
                            static_cast<unsigned>(n_splits), kThreads,
                            n_parts_of_block * static_cast<size_t>(in.head_dim + 2) * sizeof(float),
                            in, step, parts);
    }
    return LaunchDependent(cuda, kOp, DecodeKernel<T, kVector, kVectors, kRows, false>, grid,
                           kThreads, n_parts_of_block * sizeof(float), in, step, parts);
  };
  return args.keys.dtype() == DType::kBF16 ? VisitSplitShape<__nv_bfloat16>(in, n_rows, launch)
                                           : VisitSplitShape<float>(in, n_rows, launch);
}

}  // namespace fovea::compute::cuda
