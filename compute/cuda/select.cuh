// How a block of kSelectThreads finds the greatest of many numbers, and sorts the few that are
// left.
#pragma once

#include <algorithm>
#include <cstdint>

#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {

inline constexpr int kSelectThreads = 512;
inline constexpr int kMaxSorted = 2048;  // that are sorted in shared memory
inline constexpr int kMaxRanked = 256;   // that are sorted by counting
inline constexpr int kKeptMaxima = 16;   // numbers that a thread keeps in registers
inline constexpr int kReadAtOnce = 16;   // or reads, where they are too many for that

// Floats as integers of the same order, 0 below all.
__device__ inline uint32_t Ordered(float value) {
  const uint32_t bits = __float_as_uint(value);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ inline float FromOrdered(uint32_t ordered) {
  return __uint_as_float((ordered & 0x80000000u) != 0 ? ordered & 0x7fffffffu : ~ordered);
}
// A candidate: greater is better, of equal scores the smaller position. Never 0.
__device__ inline uint64_t Pack(float score, uint32_t position) {
  return static_cast<uint64_t>(Ordered(score)) << 32 | ~position;
}

// What a block shares while it selects.
inline constexpr int kBins = 1024;  // a multiple of the threads of a block
struct Selection {
  uint32_t bins[kBins];
  float ranges[2][kSelectThreads / kWarpSize];
  int last_bin;
  int n_collected;
  uint64_t prefix;
  int wanted;
  int warp_counts[2][kSelectThreads / kWarpSize];
};

// Of n > k numbers at(i) the k-th greatest, by a block; *n_tied: how many of that value belong to
// the k greatest. Bytes are settled from the highest on.
template <typename Number, typename At>
__device__ Number SelectKth(int64_t n, int k, At at, Selection* shared, int* n_tied) {
  if (threadIdx.x == 0) {
    shared->prefix = 0;
    shared->wanted = k;
  }
  for (int shift = static_cast<int>(sizeof(Number)) * 8 - 8; shift >= 0; shift -= 8) {
    if (threadIdx.x < 256) shared->bins[threadIdx.x] = 0;
    __syncthreads();
    const auto prefix = static_cast<Number>(shared->prefix);
    for (int64_t base = 0; base < n; base += blockDim.x) {
      const int64_t i = base + threadIdx.x;
      Number number = 0;
      bool counts = false;
      if (i < n) {
        number = at(i);
        counts = shift + 8 >= static_cast<int>(sizeof(Number)) * 8 ||
                 (number >> (shift + 8)) == (prefix >> (shift + 8));
      }
      // Neighbours often fall into one bin: one of them adds for all.
      const unsigned bin = counts ? static_cast<unsigned>(number >> shift & 255) : 256;
      const unsigned same = __match_any_sync(kAllLanes, bin);
      if (counts &&
          __ffs(static_cast<int>(same)) - 1 == static_cast<int>(threadIdx.x % kWarpSize)) {
        atomicAdd(&shared->bins[bin], __popc(same));
      }
    }
    __syncthreads();
    if (threadIdx.x < kWarpSize) {
      // Lane l has bins 255 − 8·l … 248 − 8·l; a scan over the lanes finds the one that holds the
      // wanted number.
      const int lane = threadIdx.x;
      int own = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) own += shared->bins[255 - 8 * lane - i];
      int before = own;
#pragma unroll
      for (int offset = 1; offset < kWarpSize; offset *= 2) {
        const int other = __shfl_up_sync(kAllLanes, before, offset);
        if (lane >= offset) before += other;
      }
      before -= own;
      const int wanted = shared->wanted;
      __syncwarp();
      if (wanted > before && wanted <= before + own) {
        int bin = 255 - 8 * lane;
        while (wanted > before + static_cast<int>(shared->bins[bin])) before += shared->bins[bin--];
        shared->prefix = prefix | static_cast<Number>(bin) << shift;
        shared->wanted = wanted - before;
      }
    }
    __syncthreads();
  }
  *n_tied = shared->wanted;
  const auto kth = static_cast<Number>(shared->prefix);
  __syncthreads();
  return kth;
}

// Calls put(place, i) for the i whose `is_above`, and for the first n_tied whose `is_tied`, in
// ascending order of i within each kind; places from 0, above first. The block's threads go through
// i together. n_above is how many are above.
template <typename Above, typename Tied, typename Put>
__device__ void Compact(int64_t n, int n_above, int n_tied, Above is_above, Tied is_tied, Put put,
                        Selection* shared) {
  const int lane = threadIdx.x % kWarpSize;
  const int warp = threadIdx.x / kWarpSize;
  int done_above = 0;
  int done_tied = 0;
  for (int64_t base = 0; base < n; base += blockDim.x) {
    const int64_t i = base + threadIdx.x;
    const bool above = i < n && is_above(i);
    const bool tied = i < n && is_tied(i);
    const unsigned above_lanes = __ballot_sync(kAllLanes, above);
    const unsigned tied_lanes = __ballot_sync(kAllLanes, tied);
    if (lane == 0) {
      shared->warp_counts[0][warp] = __popc(above_lanes);
      shared->warp_counts[1][warp] = __popc(tied_lanes);
    }
    __syncthreads();
    int place_above = done_above;
    int place_tied = done_tied;
    for (int w = 0; w < static_cast<int>(blockDim.x / kWarpSize); ++w) {
      const int a = shared->warp_counts[0][w];
      const int t = shared->warp_counts[1][w];
      if (w < warp) {
        place_above += a;
        place_tied += t;
      }
      done_above += a;
      done_tied += t;
    }
    const unsigned below = (1u << lane) - 1;
    place_above += __popc(above_lanes & below);
    place_tied += __popc(tied_lanes & below);
    if (above) put(place_above, i);
    if (tied && place_tied < n_tied) put(n_above + place_tied, i);
    __syncthreads();
  }
}

// Descending, n a power of two, by a block.
__device__ inline void BitonicSort(uint64_t* items, int n) {
  for (int size = 2; size <= n; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      __syncthreads();
      for (int i = threadIdx.x; i < n / 2; i += blockDim.x) {
        const int low = 2 * i - (i & (stride - 1));
        const int high = low + stride;
        const bool descending = (low & size) == 0;
        const uint64_t a = items[low];
        const uint64_t b = items[high];
        if ((a < b) == descending) {
          items[low] = b;
          items[high] = a;
        }
      }
    }
  }
  __syncthreads();
}

// Descending, n different items of at most kMaxSorted, with room for the next power of two.
__device__ inline void SortItems(uint64_t* items, int n) {
  __syncthreads();
  if (n <= kMaxRanked) {  // at most one a thread
    const uint64_t own = static_cast<int>(threadIdx.x) < n ? items[threadIdx.x] : 0;
    int rank = 0;
    if (static_cast<int>(threadIdx.x) < n) {
      for (int i = 0; i < n; ++i) rank += items[i] > own ? 1 : 0;
    }
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < n) items[rank] = own;
    __syncthreads();
    return;
  }
  int n_padded = 1;
  while (n_padded < n) n_padded *= 2;
  for (int i = n + threadIdx.x; i < n_padded; i += blockDim.x) items[i] = 0;
  BitonicSort(items, n_padded);
}

// Some of n > k numbers at(i) go to items, packed, unordered: all that are among the k greatest (of
// equal ones the first) and few others. Where k is more than the threads, they are counted in bins
// of equal width between the smallest and the greatest. Returns how many they are; −1: not found
// this way, since too many lie close together, fewer than k are above −inf, or one is NaN or +inf.
template <typename At>
__device__ int CollectGreatest(int n, int k, At at, uint64_t* items, Selection* shared) {
  // Read once where a thread's share fits its registers.
  float kept[kKeptMaxima];
  const bool keeps = n <= kKeptMaxima * static_cast<int>(blockDim.x);
#pragma unroll
  for (int j = 0; j < kKeptMaxima; ++j) {
    const int i = j * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x);
    kept[j] = keeps && i < n ? at(i) : 0.0f;
  }
  const auto for_each = [&](auto visit) {
    if (keeps) {
#pragma unroll
      for (int j = 0; j < kKeptMaxima; ++j) {
        const int i = j * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x);
        if (i < n) visit(i, kept[j]);
      }
    } else {
      // Several are read before the first is looked at.
      for (int base = threadIdx.x; base < n; base += kReadAtOnce * static_cast<int>(blockDim.x)) {
        float read[kReadAtOnce];
#pragma unroll
        for (int j = 0; j < kReadAtOnce; ++j) {
          const int i = base + j * static_cast<int>(blockDim.x);
          read[j] = i < n ? at(i) : 0.0f;
        }
#pragma unroll
        for (int j = 0; j < kReadAtOnce; ++j) {
          const int i = base + j * static_cast<int>(blockDim.x);
          if (i < n) visit(i, read[j]);
        }
      }
    }
  };
  // The k-th best of the threads' best is at most the k-th best of all, and few are better.
  if (k <= static_cast<int>(blockDim.x)) {
    float best = -INFINITY;
    bool is_odd = false;
    for_each([&](int, float value) {
      is_odd |= value != value;
      best = fmaxf(best, value);
    });
    if (threadIdx.x == 0) shared->wanted = 0;
    if (__syncthreads_or(is_odd ? 1 : 0) != 0) return -1;
    // Bit by bit, the greatest number that k of them reach.
    const uint32_t own = Ordered(best);
    uint32_t kth = 0;
    for (uint32_t bit = 1u << 31; bit != 0; bit >>= 1) {
      if (__syncthreads_count(own >= (kth | bit) ? 1 : 0) >= k) kth |= bit;
    }
    const float threshold = FromOrdered(kth);
    if (threshold == -INFINITY) return -1;
    for_each([&](int i, float value) {
      if (value < threshold) return;
      const int place = atomicAdd(&shared->wanted, 1);
      if (place < kMaxSorted) items[place] = Pack(value, static_cast<uint32_t>(i));
    });
    __syncthreads();
    const int n_collected = shared->wanted;
    return n_collected <= kMaxSorted ? n_collected : -1;
  }
  const int lane = threadIdx.x % kWarpSize;
  const int warp = threadIdx.x / kWarpSize;
  const int n_warps = blockDim.x / kWarpSize;
  float low = INFINITY;
  float high = -INFINITY;
  bool is_odd = false;
  for_each([&](int, float value) {
    if (value == -INFINITY) return;
    is_odd |= isfinite(value) == 0;
    low = fminf(low, value);
    high = fmaxf(high, value);
  });
  for (int bin = threadIdx.x; bin < kBins; bin += blockDim.x) shared->bins[bin] = 0;
  low = -GroupMax(-low);
  high = GroupMax(high);
  if (lane == 0) {
    shared->ranges[0][warp] = low;
    shared->ranges[1][warp] = high;
  }
  if (threadIdx.x == 0) {
    shared->wanted = 0;
    shared->last_bin = -1;
  }
  if (__syncthreads_or(is_odd ? 1 : 0) != 0) return -1;
  low = -GroupMax(-(lane < n_warps ? shared->ranges[0][lane] : INFINITY));
  high = GroupMax(lane < n_warps ? shared->ranges[1][lane] : -INFINITY);
  const float scale = static_cast<float>(kBins) / (high - low);
  if (!isfinite(scale)) return -1;
  // From the greatest down.
  const auto bin_of = [&](float value) {
    return kBins - 1 - min(kBins - 1, static_cast<int>((value - low) * scale));
  };
  for_each([&](int, float value) {
    if (value > -INFINITY) atomicAdd(&shared->bins[bin_of(value)], 1u);
  });
  __syncthreads();
  // How many lie in the bins up to each, a warp of bins at a time: the first that reaches k.
  const int bins_per_thread = kBins / static_cast<int>(blockDim.x);
  int own = 0;
  for (int i = 0; i < bins_per_thread; ++i) {
    own += static_cast<int>(shared->bins[threadIdx.x * bins_per_thread + i]);
  }
  int until = own;
#pragma unroll
  for (int offset = 1; offset < kWarpSize; offset *= 2) {
    const int other = __shfl_up_sync(kAllLanes, until, offset);
    if (lane >= offset) until += other;
  }
  if (lane == kWarpSize - 1) shared->warp_counts[0][warp] = until;
  __syncthreads();
  int before = until - own;
  for (int w = 0; w < warp; ++w) before += shared->warp_counts[0][w];
  if (before < k && before + own >= k) {
    int bin = static_cast<int>(threadIdx.x) * bins_per_thread;
    while (before + static_cast<int>(shared->bins[bin]) < k) {
      before += static_cast<int>(shared->bins[bin++]);
    }
    shared->last_bin = bin;
    shared->n_collected = before + static_cast<int>(shared->bins[bin]);
  }
  __syncthreads();
  if (shared->last_bin < 0 || shared->n_collected > kMaxSorted) return -1;
  const int last_bin = shared->last_bin;
  for_each([&](int i, float value) {
    if (value == -INFINITY || bin_of(value) > last_bin) return;
    items[atomicAdd(&shared->wanted, 1)] = Pack(value, static_cast<uint32_t>(i));
  });
  __syncthreads();
  return shared->n_collected;
}

}  // namespace fovea::compute::cuda
