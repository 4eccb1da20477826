// Scores of keys with queries by ordinary arithmetic, for keys of any type and shape.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "compute/cuda/entries.cuh"
#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {

inline constexpr int kStepKeys = kWarpSize;  // keys that a warp scores in a step

// Eight lanes, a team, share a key: vector v = lane + 8·i of kVector elements is a lane's, kVectors
// of them. Each team reads eight keys of a step; each lane sums its dimensions of all eight, and
// the lanes' sums are added crosswise: with every exchange a lane keeps half of the keys. The order
// of the additions depends on nothing, so that a key has one score whoever computes it.
template <typename T, int kVector, int kVectors, int kRowsAtOnce>
class SimdScorer {
 public:
  using Element = T;
  static constexpr int kStepKeys = cuda::kStepKeys;
  static constexpr int kRows = kRowsAtOnce;
  static constexpr int kDims = kVector * kVectors;
  static constexpr int kMaxWarps = 8;  // of a block of a scan
  // Bytes of shared memory of a warp, and those that the warps of a block share.
  static constexpr int kSharedBytes = 0;
  static constexpr int kBlockSharedBytes = 0;

  // row(r): the query of row r, [head_dim].
  template <typename Row>
  __device__ SimdScorer(Row row, int head_dim) : head_dim_(head_dim) {
    const int lane = threadIdx.x % kLanes;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float* const from = row(r);
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        const int at = (lane + v * kLanes) * kVector;
#pragma unroll
        for (int i = 0; i < kVector; ++i)
          query_[r][v * kVector + i] = at < head_dim ? from[at + i] : 0.0f;
      }
    }
  }

  // score(r) of key first + (lane of the warp) of `keys`, [end, head_dim], for every row; of keys
  // beyond the end nonsense.
  struct Scores {
    float values[kRows];
    __device__ float OfRow(int r) const {
      float value = values[0];
#pragma unroll
      for (int i = 1; i < kRows; ++i) value = i == r ? values[i] : value;
      return value;
    }
  };
  __device__ Scores ScoreStep(const T* keys, int64_t first, int64_t end) const {
    const int lane = threadIdx.x % kLanes;
    const int team = threadIdx.x % kWarpSize / kLanes;
    Vector<T, kVector> loaded[kLanes][kVectors];
#pragma unroll
    for (int j = 0; j < kLanes; ++j) {
      const int64_t key = min(first + team * kLanes + j, end - 1);  // one that is there
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        const int at = (lane + v * kLanes) * kVector;
        loaded[j][v] = *reinterpret_cast<const Vector<T, kVector>*>(
            keys + key * head_dim_ + (at < head_dim_ ? at : 0));  // the query has zeros there
      }
    }
    float sums[kRows][kLanes];
#pragma unroll
    for (int j = 0; j < kLanes; ++j) {
      float values[kDims];
#pragma unroll
      for (int i = 0; i < kDims; ++i)
        values[i] = ToFloat(loaded[j][i / kVector].values[i % kVector]);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < kDims; ++i) sum = fmaf(query_[r][i], values[i], sum);
        sums[r][j] = sum;
      }
    }
    Scores scores;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int half = kLanes / 2; half > 0; half /= 2) {
        const bool upper = (lane & half) != 0;
#pragma unroll
        for (int j = 0; j < half; ++j) {
          const float kept = upper ? sums[r][j + half] : sums[r][j];
          const float given = upper ? sums[r][j] : sums[r][j + half];
          sums[r][j] = kept + __shfl_xor_sync(kAllLanes, given, half);
        }
      }
      scores.values[r] = sums[r][0];
    }
    return scores;
  }

  // The best of steps, for each row.
  struct Best {
    float values[kRows];
    __device__ Best() {
#pragma unroll
      for (int r = 0; r < kRows; ++r) values[r] = -INFINITY;
    }
    // is_allowed(i): whether key i of the step may be selected.
    template <typename Allowed>
    __device__ void Update(const Scores& scores, Allowed is_allowed) {
      const bool allowed = is_allowed(threadIdx.x % kWarpSize);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        values[r] = allowed ? fmaxf(values[r], scores.values[r]) : values[r];
      }
    }
    // store(r, maximum), each row once.
    template <typename Store>
    __device__ void Finish(Store store) const {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float maximum = GroupMax(values[r]);
        if (threadIdx.x % kWarpSize == 0) store(r, maximum);
      }
    }
  };

  // Steps of a warp one after another: Next(keys, first, end) names the one after those that were
  // named, Take() gives the scores of the first that was not taken. Nothing is under way between.
  class Pipeline {
   public:
    static constexpr int kDepth = 1;
    __device__ Pipeline(const SimdScorer& scorer, std::byte*) : scorer_(scorer) {}
    __device__ void Next(const T* keys, int64_t first, int64_t end) {
      keys_ = keys;
      first_ = first;
      end_ = end;
    }
    __device__ void NextIsNone() {}
    __device__ Scores Take() { return scorer_.ScoreStep(keys_, first_, end_); }

   private:
    const SimdScorer& scorer_;
    const T* keys_ = nullptr;
    int64_t first_ = 0, end_ = 0;
  };

 private:
  static constexpr int kLanes = 8;  // of a team
  float query_[kRows][kDims];
  int head_dim_;
};

}  // namespace fovea::compute::cuda
