// Scores of bfloat16 keys with many rows on tensor cores, so that the queries of several questions,
// or of a prompt's tokens, share one read of the keys. The sums are those of scores_mma.cuh, in the
// same order: a row's scores do not depend on how many are beside it.
//
// The queries lie in shared memory, once for all warps of a block, as the lanes multiply them; a
// warp has a step's keys in registers and multiplies them with eight rows at a time. That reads
// about as many bytes of shared memory as tensor cores take time for. One block a multiprocessor,
// of as many warps as have room.
#pragma once

#include <cuda_bf16.h>

#include <cstddef>
#include <cstdint>

#include "compute/cuda/mma_keys.cuh"
#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {

// Up to kGroups · 8 rows. head_dim is a multiple of eight, keys lie at multiples of 16 bytes.
template <int kVectors, int kGroups>
class WideMmaScorer {
 public:
  using Element = __nv_bfloat16;
  static constexpr int kStepKeys = cuda::kStepKeys;
  static constexpr int kRows = 8 * kGroups;
  static constexpr int kMaxWarps = kVectors <= 2 ? 16 : 8;
  static constexpr int kStepReads = kStepReadsOf<kVectors>;
  static constexpr int kSharedBytes = KeyPipeline<kVectors>::kSharedBytes;
  static constexpr int kGroupVectors = kQueryParts * kVectors * kWarpSize;
  static constexpr int kBlockSharedBytes = kGroups * kGroupVectors * 16;

  // row(r): the query of row r, of n_rows, [head_dim]. `shared`: kBlockSharedBytes. Called by all
  // threads of a block.
  template <typename Row>
  __device__ WideMmaScorer(Row row, int head_dim, std::byte* shared, int n_rows)
      : queries_(reinterpret_cast<const uint4*>(shared)),
        n_groups_(min((n_rows + 7) / 8, kGroups)),
        head_dim_(head_dim) {
    const int lane = threadIdx.x % kWarpSize;
    const int n_warps = blockDim.x / kWarpSize;
    auto* const to = reinterpret_cast<uint4*>(shared) + lane;
    for (int g = threadIdx.x / kWarpSize; g < n_groups_; g += n_warps) {
      uint32_t query[kQueryParts][kVectors][4];
      SplitQuery<kVectors>(row(8 * g + lane / 4), head_dim, query);
#pragma unroll
      for (int part = 0; part < kQueryParts; ++part) {
#pragma unroll
        for (int v = 0; v < kVectors; ++v) {
          const uint32_t(&q)[4] = query[part][v];
          to[((g * kQueryParts + part) * kVectors + v) * kWarpSize] = uint4{q[0], q[1], q[2], q[3]};
        }
      }
    }
    __syncthreads();
  }

  // A step's keys, whose scores Best computes, group by group: all of them at once would take too
  // many registers.
  struct Scores {
    uint4 loaded[kStepReads];
    const WideMmaScorer* scorer;
  };

  struct Best {
    float values[kGroups][2];  // of rows 8·g + 2·(lane mod 4) and the next
    __device__ Best() {
#pragma unroll
      for (int g = 0; g < kGroups; ++g) values[g][0] = values[g][1] = -INFINITY;
    }
    template <typename Allowed>
    __device__ void Update(const Scores& scores, Allowed is_allowed) {
      const int lane = threadIdx.x % kWarpSize;
      bool allowed[4];
#pragma unroll
      for (int part = 0; part < 4; ++part) allowed[part] = is_allowed(8 * part + lane / 4);
      const uint4* const queries = scores.scorer->queries_ + lane;
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        if (g >= scores.scorer->n_groups_) break;
        float sums[2][4] = {};
        MultiplyStep<kVectors>(
            scores.loaded,
            [&](int part, int v) {
              return queries[((g * kQueryParts + part) * kVectors + v) * kWarpSize];
            },
            sums);
#pragma unroll
        for (int part = 0; part < 4; ++part) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            const float score = sums[part / 2][part % 2 * 2 + i];
            values[g][i] = allowed[part] ? fmaxf(values[g][i], score) : values[g][i];
          }
        }
      }
    }
    // store(r, maximum), each row once, and rows beyond the last.
    template <typename Store>
    __device__ void Finish(Store store) const {
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float maximum = values[g][i];
#pragma unroll
          for (int offset = 4; offset < kWarpSize; offset *= 2) {
            maximum = fmaxf(maximum, __shfl_xor_sync(kAllLanes, maximum, offset));
          }
          const int lane = threadIdx.x % kWarpSize;
          if (lane < 4) store(8 * g + 2 * lane + i, maximum);
        }
      }
    }
  };

  class Pipeline {
   public:
    static constexpr int kDepth = KeyPipeline<kVectors>::kDepth;
    // `shared`: kSharedBytes of the warp.
    __device__ Pipeline(const WideMmaScorer& scorer, std::byte* shared)
        : scorer_(scorer), keys_(scorer.head_dim_, shared) {}
    __device__ void Next(const Element* keys, int64_t first, int64_t end) {
      keys_.Next(keys, first, end);
    }
    __device__ void NextIsNone() { keys_.NextIsNone(); }
    __device__ Scores Take() {
      Scores scores;
      scores.scorer = &scorer_;
      keys_.Take(scores.loaded);
      return scores;
    }

   private:
    const WideMmaScorer& scorer_;
    KeyPipeline<kVectors> keys_;
  };

 private:
  const uint4* queries_;  // [n_groups][kQueryParts][kVectors][kWarpSize], in shared memory
  int n_groups_;
  int head_dim_;
};

}  // namespace fovea::compute::cuda
