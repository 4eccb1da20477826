// Scores of bfloat16 keys with up to eight rows on tensor cores, as exact as sums in float32: a
// query is the sum of three bfloat16 numbers (24 bits), and products with each are added up
// (mma_keys.cuh). For more rows at once: scores_mma_wide.cuh.
#pragma once

#include <cuda_bf16.h>

#include <cstddef>
#include <cstdint>

#include "compute/cuda/mma_keys.cuh"
#include "compute/cuda/scores_simd.cuh"
#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {

// The queries lie in registers. head_dim is a multiple of eight, keys lie at multiples of 16 bytes.
template <int kVectors>
class MmaScorer {
 public:
  using Element = __nv_bfloat16;
  static constexpr int kStepKeys = cuda::kStepKeys;
  static constexpr int kRows = 8;
  static constexpr int kMaxWarps = 8;
  static constexpr int kStepReads = kStepReadsOf<kVectors>;
  static constexpr int kSharedBytes = KeyPipeline<kVectors>::kSharedBytes;
  static constexpr int kBlockSharedBytes = 0;

  template <typename Row>
  __device__ MmaScorer(Row row, int head_dim) : head_dim_(head_dim) {
    SplitQuery<kVectors>(row(static_cast<int>(threadIdx.x) % kWarpSize / 4), head_dim, query_);
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

  class Pipeline {
   public:
    static constexpr int kDepth = KeyPipeline<kVectors>::kDepth;
    // `shared`: kSharedBytes of the warp.
    __device__ Pipeline(const MmaScorer& scorer, std::byte* shared)
        : scorer_(scorer), keys_(scorer.head_dim_, shared) {}
    __device__ void Next(const Element* keys, int64_t first, int64_t end) {
      keys_.Next(keys, first, end);
    }
    __device__ void NextIsNone() { keys_.NextIsNone(); }
    __device__ Scores Take() {
      uint4 loaded[kStepReads];
      keys_.Take(loaded);
      return scorer_.Multiply(loaded);
    }

   private:
    const MmaScorer& scorer_;
    KeyPipeline<kVectors> keys_;
  };

 private:
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
    MultiplyStep<kVectors>(
        loaded,
        [&](int part, int v) {
          const uint32_t(&q)[4] = query_[part][v];
          return uint4{q[0], q[1], q[2], q[3]};
        },
        scores.values);
    return scores;
  }

  uint32_t query_[kQueryParts][kVectors][4];
  int head_dim_;
};

}  // namespace fovea::compute::cuda
