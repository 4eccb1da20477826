// Scores of bfloat16 keys with up to eight rows on tensor cores, as exact as sums in float32: a
// query is the sum of three bfloat16 numbers (24 bits), and products with each are added up.
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

// kVectors: of 16 bytes that a lane reads of a key: vector l mod 4 + 4·i. head_dim is a multiple of
// eight, keys lie at multiples of 16 bytes.
template <int kVectors>
class MmaScorer {
 public:
  using Element = __nv_bfloat16;
  static constexpr int kStepKeys = cuda::kStepKeys;
  static constexpr int kRows = 8;
  static constexpr int kStages = 3;
  static constexpr int kStepReads = 4 * kVectors;  // of a lane: two tiles of two keys each
  static constexpr int kSharedBytes = kStages * kStepReads * kWarpSize * 16;

  template <typename Row>
  __device__ MmaScorer(Row row, int head_dim) : head_dim_(head_dim) {
    const int lane = threadIdx.x % kWarpSize;
    const float* const from = row(lane / 4);
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int at = 8 * (lane % 4 + 4 * v);
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        float rest[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) rest[i] = at < head_dim ? from[at + 2 * pair + i] : 0.0f;
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
          const __nv_bfloat162 rounded = __floats2bfloat162_rn(rest[0], rest[1]);
          query_[part][v][pair] = *reinterpret_cast<const uint32_t*>(&rounded);
          rest[0] -= __bfloat162float(rounded.x);
          rest[1] -= __bfloat162float(rounded.y);
        }
      }
    }
  }

  struct Scores {
    float values[2][4];  // sums of two tiles of 16 keys
    // Of row r, the same in all lanes: of key `lane` of the step.
    __device__ float OfRow(int r) const {
      const int lane = threadIdx.x % kWarpSize;
      const int from = lane % 8 * 4 + r / 2;
      float score = 0.0f;
#pragma unroll
      for (int part = 0; part < 4; ++part) {  // eight keys each
        const float own =
            r % 2 == 0 ? values[part / 2][part % 2 * 2] : values[part / 2][part % 2 * 2 + 1];
        const float other = __shfl_sync(kAllLanes, own, from);
        if (lane / 8 == part) score = other;
      }
      return score;
    }
  };
  __device__ Scores ScoreStep(const Element* keys, int64_t first, int64_t end) const {
    uint4 loaded[kStepReads];
#pragma unroll
    for (int i = 0; i < kStepReads; ++i) loaded[i] = *Address(keys, first, end, i);
    return Multiply(loaded);
  }

  struct Best {
    float values[2] = {-INFINITY, -INFINITY};  // of rows 2·(lane mod 4) and the next
    template <typename Allowed>
    __device__ void Update(const Scores& scores, Allowed is_allowed) {
      const int key = threadIdx.x % kWarpSize / 4;
#pragma unroll
      for (int part = 0; part < 4; ++part) {
        const bool allowed = is_allowed(8 * part + key);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float score = scores.values[part / 2][part % 2 * 2 + i];
          values[i] = allowed ? fmaxf(values[i], score) : values[i];
        }
      }
    }
    template <typename Store>
    __device__ void Finish(Store store) const {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float maximum = values[i];
#pragma unroll
        for (int offset = 4; offset < kWarpSize; offset *= 2) {
          maximum = fmaxf(maximum, __shfl_xor_sync(kAllLanes, maximum, offset));
        }
        if (threadIdx.x % kWarpSize < 4) store(2 * (threadIdx.x % 4) + i, maximum);
      }
    }
  };

  // The reads of kStages − 1 steps are under way while one is multiplied. Keys of a step lie
  // together and are copied as they lie, whole lines at a time: halves of lines are as much work
  // for the cache on the way (seen: a tenth of the time). Where a key is a whole number of lines,
  // vectors of every other key change places, so that lanes read from different banks.
  class Pipeline {
   public:
    static constexpr int kDepth = kStages - 1;
    // `shared`: kSharedBytes of the warp.
    __device__ Pipeline(const MmaScorer& scorer, std::byte* shared)
        : scorer_(scorer),
          slots_(reinterpret_cast<uint4*>(shared)),
          n_vectors_(scorer.head_dim_ / 8),
          swaps_(n_vectors_ % 8 == 0 ? 1 : 0) {
#pragma unroll
      for (int i = 0; i < kStepReads; ++i) {
        odd_keys_ |= static_cast<uint32_t>(VectorOfRead(i) / n_vectors_ & 1) << i;
      }
    }
    __device__ void Next(const Element* keys, int64_t first, int64_t end) {
      uint4* const slot = slots_ + next_ * kStepReads * kWarpSize;
      const auto* const from = reinterpret_cast<const uint4*>(keys + first * scorer_.head_dim_);
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
    __device__ Scores Take() {
      asm volatile("cp.async.wait_group %0;" ::"n"(kDepth - 1) : "memory");
      __syncwarp();  // what other lanes copied is there, and what they read before has been read
      const uint4* const slot = slots_ + taken_ * kStepReads * kWarpSize;
      const int lane = threadIdx.x % kWarpSize;
      uint4 loaded[kStepReads];
#pragma unroll
      for (int i = 0; i < kStepReads; ++i) {
        const int key = lane / 4 + i / kVectors * 8;
        const int vector = lane % 4 + i % kVectors * 4;
        // Of vectors beyond the key's, and of keys beyond the last, nothing comes.
        loaded[i] = slot[Place(key * n_vectors_ + (vector < n_vectors_ ? vector : 0), key)];
      }
      taken_ = taken_ + 1 == kStages ? 0 : taken_ + 1;
      return scorer_.Multiply(loaded);
    }

   private:
    // The vector of a step that a lane copies with its read i.
    __device__ static int VectorOfRead(int i) {
      return i * kWarpSize + static_cast<int>(threadIdx.x % kWarpSize);
    }
    // Where a vector of a step lies, which is one of key `key`, of which the lowest bit counts.
    __device__ int Place(int vector, int key) const { return vector ^ (key & swaps_) << 2; }

    const MmaScorer& scorer_;
    uint4* slots_;
    int n_vectors_;  // of a key
    int swaps_;
    uint32_t odd_keys_ = 0;  // bit i: read i copies a vector of an odd key
    int next_ = 0;
    int taken_ = 0;
  };

 private:
  static constexpr int kParts = 3;  // of a query number

  // Read i of a lane: vector i mod kVectors of key l/4 + 8·(i / kVectors) of the step; where there
  // is no such vector or key, another one, which nothing comes of.
  __device__ const uint4* Address(const Element* keys, int64_t first, int64_t end, int i) const {
    const int lane = threadIdx.x % kWarpSize;
    const int64_t key = min(first + lane / 4 + i / kVectors * 8, end - 1);
    const int vector = lane % 4 + i % kVectors * 4;
    return reinterpret_cast<const uint4*>(keys + key * head_dim_) +
           (8 * vector < head_dim_ ? vector : 0);
  }

  __device__ Scores Multiply(const uint4 (&loaded)[kStepReads]) const {
    Scores scores = {};
#pragma unroll
    for (int tile = 0; tile < 2; ++tile) {
#pragma unroll
      for (int part = kParts - 1; part >= 0; --part) {  // small products first
#pragma unroll
        for (int v = 0; v < kVectors; ++v) {
          const uint4& low = loaded[tile * 2 * kVectors + v];
          const uint4& high = loaded[(tile * 2 + 1) * kVectors + v];
          MultiplyTile({low.x, high.x, low.y, high.y}, query_[part][v][0], query_[part][v][1],
                       scores.values[tile]);
          MultiplyTile({low.z, high.z, low.w, high.w}, query_[part][v][2], query_[part][v][3],
                       scores.values[tile]);
        }
      }
    }
    return scores;
  }

  uint32_t query_[kParts][kVectors][4];
  int head_dim_;
};

}  // namespace fovea::compute::cuda
