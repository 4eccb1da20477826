// How bfloat16 keys of a memory get to the tensor cores, and queries that are as exact as float32:
// what scorers of few rows (scores_mma.cuh) and of many (scores_mma_wide.cuh) have in common, so
// that a key has one score whoever computes it, and beside whom.
//
// The matrix instruction multiplies 16 keys by 16 dimensions with 16 dimensions by 8 rows. Which of
// the keys' dimensions are its sixteen is free, as long as both factors agree: a lane reads 16
// bytes of a key at a time, eight dimensions, and these are what it holds of two instructions. So
// keys go from memory to the tensor cores as they lie.
#pragma once

#include <cuda_bf16.h>

#include <cstddef>
#include <cstdint>

#include "compute/cuda/mma.cuh"
#include "compute/cuda/scores_simd.cuh"
#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {

inline constexpr int kQueryParts = 3;  // bfloat16 numbers that a query's number is the sum of

// kVectors: of 16 bytes that a lane reads of a key: vector l mod 4 + 4·i. A step is two tiles of
// two keys a lane.
template <int kVectors>
inline constexpr int kStepReadsOf = 4 * kVectors;

// What a lane holds of a query, [head_dim], a row of the instruction: [part][v][pair].
template <int kVectors>
__device__ inline void SplitQuery(const float* from, int head_dim,
                                  uint32_t (&query)[kQueryParts][kVectors][4]) {
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int at = 8 * (static_cast<int>(threadIdx.x) % 4 + 4 * v);
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      float rest[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) rest[i] = at < head_dim ? from[at + 2 * pair + i] : 0.0f;
#pragma unroll
      for (int part = 0; part < kQueryParts; ++part) {
        const __nv_bfloat162 rounded = __floats2bfloat162_rn(rest[0], rest[1]);
        query[part][v][pair] = *reinterpret_cast<const uint32_t*>(&rounded);
        rest[0] -= __bfloat162float(rounded.x);
        rest[1] -= __bfloat162float(rounded.y);
      }
    }
  }
}

// values += products of a step's keys with eight rows, of two tiles of 16 keys; query(part, v):
// what SplitQuery left of it. The order of the additions of a sum is always this one.
template <int kVectors, typename Query>
__device__ inline void MultiplyStep(const uint4 (&loaded)[kStepReadsOf<kVectors>], Query query,
                                    float (&values)[2][4]) {
#pragma unroll
  for (int part = kQueryParts - 1; part >= 0; --part) {  // small products first
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const uint4 q = query(part, v);
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
        const uint4& low = loaded[tile * 2 * kVectors + v];
        const uint4& high = loaded[(tile * 2 + 1) * kVectors + v];
        MultiplyTile({low.x, high.x, low.y, high.y}, q.x, q.y, values[tile]);
        MultiplyTile({low.z, high.z, low.w, high.w}, q.z, q.w, values[tile]);
      }
    }
  }
}

// Keys of a warp's steps on their way through shared memory: the reads of kStages − 1 steps are
// under way while one is multiplied. Keys of a step lie together and are copied as they lie, whole
// lines at a time: halves of lines are as much work for the cache on the way (seen: a tenth of the
// time). Where a key is a whole number of lines, vectors of every other key change places, so that
// lanes read from different banks.
template <int kVectors>
class KeyPipeline {
 public:
  using Element = __nv_bfloat16;
  static constexpr int kStages = 3;
  static constexpr int kDepth = kStages - 1;
  static constexpr int kStepReads = kStepReadsOf<kVectors>;
  static constexpr int kSharedBytes = kStages * kStepReads * kWarpSize * 16;  // of a warp

  __device__ KeyPipeline(int head_dim, std::byte* shared)
      : head_dim_(head_dim),
        slots_(reinterpret_cast<uint4*>(shared)),
        n_vectors_(head_dim / 8),
        swaps_(n_vectors_ % 8 == 0 ? 1 : 0) {
#pragma unroll
    for (int i = 0; i < kStepReads; ++i) {
      odd_keys_ |= static_cast<uint32_t>(VectorOfRead(i) / n_vectors_ & 1) << i;
    }
  }
  // Names the step after those that were named: of `keys`, [end, head_dim], those from `first` on.
  __device__ void Next(const Element* keys, int64_t first, int64_t end) {
    uint4* const slot = slots_ + next_ * kStepReads * kWarpSize;
    const auto* const from = reinterpret_cast<const uint4*>(keys + first * head_dim_);
    const int n = static_cast<int>(min(end - first, int64_t{kStepKeys})) * n_vectors_;
#pragma unroll
    for (int i = 0; i < kStepReads; ++i) {
      const int vector = VectorOfRead(i);
      if (vector >= n) break;
      const auto to = static_cast<uint32_t>(
          __cvta_generic_to_shared(slot + Place(vector, static_cast<int>(odd_keys_ >> i))));
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from + vector)
                   : "memory");
    }
    NextIsNone();
  }
  // Keeps the count where there are no more steps.
  __device__ void NextIsNone() {
    asm volatile("cp.async.commit_group;" ::: "memory");
    next_ = next_ + 1 == kStages ? 0 : next_ + 1;
  }
  // What the lane multiplies of the first step that was not taken.
  __device__ void Take(uint4 (&loaded)[kStepReads]) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kDepth - 1) : "memory");
    __syncwarp();  // what other lanes copied is there, and what they read before has been read
    const uint4* const slot = slots_ + taken_ * kStepReads * kWarpSize;
    const int lane = threadIdx.x % kWarpSize;
#pragma unroll
    for (int i = 0; i < kStepReads; ++i) {
      const int key = lane / 4 + i / kVectors * 8;
      const int vector = lane % 4 + i % kVectors * 4;
      // Of vectors beyond the key's, and of keys beyond the last, nothing comes.
      loaded[i] = slot[Place(key * n_vectors_ + (vector < n_vectors_ ? vector : 0), key)];
    }
    taken_ = taken_ + 1 == kStages ? 0 : taken_ + 1;
  }

 private:
  // The vector of a step that a lane copies with its read i.
  __device__ static int VectorOfRead(int i) {
    return i * kWarpSize + static_cast<int>(threadIdx.x % kWarpSize);
  }
  // Where a vector of a step lies, which is one of key `key`, of which the lowest bit counts.
  __device__ int Place(int vector, int key) const { return vector ^ (key & swaps_) << 2; }

  int head_dim_;
  uint4* slots_;
  int n_vectors_;  // of a key
  int swaps_;
  uint32_t odd_keys_ = 0;  // bit i: read i copies a vector of an odd key
  int next_ = 0;
  int taken_ = 0;
};

}  // namespace fovea::compute::cuda
