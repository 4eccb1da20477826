// Estimated scores of keys with queries, from codes of the keys (compute/code_scan.h).
//
// A query is rotated and rounded to digits of 8 bits, as on a CPU; sums of codes times digits are
// whole numbers, so that a key has one estimate whoever computes it. For keys of several parts to
// be compared, what their means have to do with the query is added:
//
//   estimate = unit · factor · (Σ code · digit − offset) + <mean, query>
//
// Tensor cores multiply 16 keys by 32 dimensions with 32 dimensions by 8 rows. A lane reads whole
// words of codes and takes them apart: which dimensions are the instruction's is free, as long as
// both factors agree. A block of codes, 16 keys, is the instruction's tile of keys as it lies.
#pragma once

#include <cuda_bf16.h>

#include <cstddef>
#include <cstdint>

#include "compute/coded_memory_attention.h"
#include "compute/cuda/memory_parts.cuh"
#include "compute/cuda/warp.cuh"

namespace fovea::compute::cuda {

inline constexpr int kMaxCodeDims = 256;  // padded
inline constexpr int kCodeLineWords = 16;

struct CodedPart {
  const uint32_t* codes;         // [n_kv_heads, n_blocks, n_lines, 16]
  const __nv_bfloat16* factors;  // [n_kv_heads, n_blocks · 16]
  const float* mean;             // [n_kv_heads, head_dim]
  const float* rotation;         // [head_dim, padded_dim]
  int64_t n_blocks;
  int bits;  // 0: none
  int n_lines;
  FoundKeys found;  // of an index, which is searched in the place of a scan
};
struct CodedParts {
  Parts parts;
  CodedPart coded[kMaxMemoryParts];  // of each part
};

// Rows of queries as a scan of codes takes them.
template <int kRows>
struct CodeQueries {
  uint32_t words[kRows][kMaxCodeDims / 4];  // four digits each
  float offsets[kRows];
  float units[kRows];
};

// By all threads of a block; row(r): the query of row r < n_rows, [head_dim]. `rotations`: room for
// kRows · kMaxCodeDims, shared, free again afterwards.
template <int kRows, typename Row>
__device__ inline void PrepareCodeQueries(const CodedPart& part, int head_dim, int n_rows, Row row,
                                          CodeQueries<kRows>* queries, float* rotations) {
  const int padded_dim = part.n_lines * 32 / part.bits;
  for (int i = threadIdx.x; i < n_rows * padded_dim; i += blockDim.x) {
    const float* const query = row(i / padded_dim);
    const float* const rotation = part.rotation + i % padded_dim;
    float sum = 0.0f;
#pragma unroll 32
    for (int k = 0; k < head_dim; ++k) sum = fmaf(rotation[k * padded_dim], query[k], sum);
    rotations[i] = sum;
  }
  __syncthreads();
  const int lane = threadIdx.x % kWarpSize;
  for (int r = threadIdx.x / kWarpSize; r < n_rows; r += blockDim.x / kWarpSize) {
    const float* const rotated = rotations + r * padded_dim;
    float largest = 0.0f;
    for (int d = lane; d < padded_dim; d += kWarpSize) {
      largest = rotated[d] == rotated[d] ? fmaxf(largest, fabsf(rotated[d])) : INFINITY;
    }
    largest = GroupMax(largest);
    const float largest_digit = part.bits == 8 ? 63.0f : 127.0f;
    // A query of zeros ranks nothing, nor does one that overflows.
    const bool ranks = largest > 0.0f && largest < INFINITY;
    const float inverse = ranks ? largest_digit / largest : 0.0f;
    int digits = 0;
    for (int w = lane; w < padded_dim / 4; w += kWarpSize) {
      uint32_t word = 0;
#pragma unroll
      for (int b = 0; b < 4; ++b) {
        const int digit = ranks ? __float2int_rn(rotated[4 * w + b] * inverse) : 0;
        digits += digit;
        word |= static_cast<uint32_t>(digit & 0xff) << (8 * b);
      }
      queries->words[r][w] = word;
    }
#pragma unroll
    for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
      digits += __shfl_xor_sync(kAllLanes, digits, offset);
    }
    if (lane == 0) {
      queries->offsets[r] =
          static_cast<float>((1 << part.bits) - 1) / 2.0f * static_cast<float>(digits);
      queries->units[r] = ranks ? largest / largest_digit : 0.0f;
    }
  }
  __syncthreads();
}

// What a part's mean adds to each of its estimates; 0 where that is no number.
__device__ inline float MeanScore(const CodedPart& part, int kv_head, int head_dim,
                                  const float* query) {
  const float* const mean = part.mean + static_cast<int64_t>(kv_head) * head_dim;
  float sum = 0.0f;
#pragma unroll 8
  for (int d = 0; d < head_dim; ++d) sum = fmaf(mean[d], query[d], sum);
  return isfinite(sum) ? sum : 0.0f;
}

// Rounded alike wherever they are computed: what a scan found is found again.
__device__ inline float RelativeEstimate(float factor, int sum, float offset) {
  return __fmul_rn(factor, __fsub_rn(static_cast<float>(sum), offset));
}
__device__ inline float Estimate(float relative, float unit, float mean_score) {
  return relative == -INFINITY ? relative : __fadd_rn(__fmul_rn(unit, relative), mean_score);
}

// sums[16 keys, 8 rows] += codes[16, 32] · digits[32, 8]. Lane l holds of the codes two keys, low
// and high, the same whose sums it gets (0, 1 and 2, 3), of the digits row l/4, of the sums rows
// 2·(l mod 4) and the next.
__device__ inline void MultiplyCodes(uint32_t low0, uint32_t high0, uint32_t low1, uint32_t high1,
                                     uint32_t digits0, uint32_t digits1, int (&sums)[4]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
      : "r"(low0), "r"(high0), "r"(low1), "r"(high1), "r"(digits0), "r"(digits1));
}

// Codes of kBits and up to 4·kGroups lines; a lane reads of each four lines the one that is its
// number mod 4.
template <int kBits, int kGroups>
class CodeScorer {
 public:
  static_assert(kBits < 8 || kGroups % 2 == 0);
  static constexpr int kRows = 8;
  static constexpr int kStepKeys = 64;
  static constexpr int kStepBlocks = kStepKeys / 16;
  static constexpr int kStages = 4;
  static constexpr int kReads = kGroups * kStepBlocks / 2;  // of 16 bytes, by a lane
  static constexpr int kStageBytes = kStepBlocks * kGroups * 4 * 64 + kStepKeys * 2;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  using Queries = CodeQueries<kRows>;

  __device__ CodeScorer(const Queries& queries, int n_lines) : n_lines_(n_lines) {
    const int lane = threadIdx.x % kWarpSize;
#pragma unroll
    for (int q = 0; q < kGroups; ++q) {
      const int line = 4 * q + lane % 4;
#pragma unroll
      for (int s = 0; s < kParts; ++s) {
        digits_[q][s] = line < n_lines ? queries.words[lane / 4][line * kParts + s] : 0;
      }
      // Of lines beyond the last nothing comes.
      const int read = min(line, n_lines - 1);
      places_[q] = read * kCodeLineWords + (lane / 4 * 2 ^ (read & 2) << 2);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) offsets_[i] = queries.offsets[2 * (lane % 4) + i];
  }

  struct Scores {
    // Keys 16·b + lane/4·2 and the next, [2·b] and [2·b + 1]; rows 2·(lane mod 4) and the next.
    float values[2 * kStepBlocks][2];
  };
  struct Best {
    float values[2] = {-INFINITY, -INFINITY};
    template <typename Allowed>
    __device__ void Update(const Scores& scores, Allowed is_allowed) {
      const int key = threadIdx.x % kWarpSize / 4 * 2;
#pragma unroll
      for (int i = 0; i < 2 * kStepBlocks; ++i) {
        const bool allowed = is_allowed(i / 2 * 16 + key + i % 2);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          values[r] = allowed ? fmaxf(values[r], scores.values[i][r]) : values[r];
        }
      }
    }
    // Of row 2·(lane mod 4) + r, the same in all lanes of that row.
    __device__ float Maximum(int r) const {
      float maximum = values[r];
#pragma unroll
      for (int offset = 4; offset < kWarpSize; offset *= 2) {
        maximum = fmaxf(maximum, __shfl_xor_sync(kAllLanes, maximum, offset));
      }
      return maximum;
    }
  };

  // The reads of kStages − 1 steps are under way while one is multiplied. The halves of every
  // other pair of lines change places, so that lanes read from different banks.
  class Pipeline {
   public:
    static constexpr int kDepth = kStages - 1;
    // `shared`: kSharedBytes of the warp.
    __device__ Pipeline(const CodeScorer& scorer, std::byte* shared)
        : scorer_(scorer), slots_(shared) {
#pragma unroll
      for (int i = 0; i < kReads; ++i) {
        swapped_ |= static_cast<uint32_t>(ReadOf(i) / 4 % scorer.n_lines_ >> 1 & 1) << i;
      }
    }
    // The next blocks, up to kStepBlocks of the n_blocks that are left.
    __device__ void Next(const uint32_t* codes, const __nv_bfloat16* factors, int n_blocks) {
      std::byte* const slot = slots_ + next_ * kStageBytes;
      const int n = min(n_blocks, kStepBlocks);
      const int n_reads = n * scorer_.n_lines_ * 4;
#pragma unroll
      for (int i = 0; i < kReads; ++i) {
        const int read = ReadOf(i);
        if (read >= n_reads) break;
        Copy(slot + 16 * (read ^ static_cast<int>(swapped_ >> i & 1) << 1), codes + 4 * read);
      }
      const int lane = threadIdx.x % kWarpSize;
      if (lane < 2 * n) Copy(slot + kFactorsAt + 16 * lane, factors + 8 * lane);
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
      const std::byte* const slot = slots_ + taken_ * kStageBytes;
      taken_ = taken_ + 1 == kStages ? 0 : taken_ + 1;
      return scorer_.Multiply(reinterpret_cast<const uint32_t*>(slot),
                              reinterpret_cast<const __nv_bfloat16*>(slot + kFactorsAt));
    }

   private:
    static constexpr int kFactorsAt = kStepBlocks * kGroups * 4 * 64;
    __device__ static int ReadOf(int i) {
      return i * kWarpSize + static_cast<int>(threadIdx.x % kWarpSize);
    }
    __device__ static void Copy(std::byte* to, const void* from) {
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                       static_cast<uint32_t>(__cvta_generic_to_shared(to))),
                   "l"(from)
                   : "memory");
    }

    const CodeScorer& scorer_;
    std::byte* slots_;
    uint32_t swapped_ = 0;  // bit i: read i belongs to a line whose halves change places
    int next_ = 0;
    int taken_ = 0;
  };

 private:
  static constexpr int kParts = 8 / kBits;  // codes of a byte
  static constexpr uint32_t kMask = ((1u << kBits) - 1) * 0x01010101u;

  __device__ Scores Multiply(const uint32_t* codes, const __nv_bfloat16* factors) const {
    const int key = threadIdx.x % kWarpSize / 4 * 2;
    Scores scores;
#pragma unroll
    for (int b = 0; b < kStepBlocks; ++b) {
      const uint32_t* const block = codes + b * n_lines_ * kCodeLineWords;
      int sums[4] = {};
      if constexpr (kBits == 8) {
#pragma unroll
        for (int q = 0; q < kGroups; q += 2) {
          const uint2 first = *reinterpret_cast<const uint2*>(block + places_[q]);
          const uint2 second = *reinterpret_cast<const uint2*>(block + places_[q + 1]);
          MultiplyCodes(first.x, first.y, second.x, second.y, digits_[q][0], digits_[q + 1][0],
                        sums);
        }
      } else {
#pragma unroll
        for (int q = 0; q < kGroups; ++q) {
          const auto [low, high] = *reinterpret_cast<const uint2*>(block + places_[q]);
#pragma unroll
          for (int s = 0; s < kParts; s += 2) {
            MultiplyCodes(low >> (kBits * s) & kMask, high >> (kBits * s) & kMask,
                          low >> (kBits * (s + 1)) & kMask, high >> (kBits * (s + 1)) & kMask,
                          digits_[q][s], digits_[q][s + 1], sums);
          }
        }
      }
      const uint32_t pair = *reinterpret_cast<const uint32_t*>(factors + 16 * b + key);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float factor = __uint_as_float(half == 0 ? pair << 16 : pair & 0xffff0000u);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          scores.values[2 * b + half][r] =
              RelativeEstimate(factor, sums[2 * half + r], offsets_[r]);
        }
      }
    }
    return scores;
  }

  uint32_t digits_[kGroups][kParts];
  int places_[kGroups];
  float offsets_[2];
  int n_lines_;
};

// The same of single keys and one row: of kKeys keys, whose words begin at codes[i] and lie
// kCodeLineWords apart; null: none.
template <int kBits, int kKeys>
__device__ inline void SumCodes(const uint32_t* const (&codes)[kKeys], int n_lines,
                                const uint32_t* digits, int (&sums)[kKeys]) {
  constexpr int kParts = 8 / kBits;
  constexpr uint32_t kMask = ((1u << kBits) - 1) * 0x01010101u;
  constexpr int kLinesAtOnce = 8;
  for (int begin = 0; begin < n_lines; begin += kLinesAtOnce) {
    uint32_t words[kKeys][kLinesAtOnce];
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
#pragma unroll
      for (int l = 0; l < kLinesAtOnce; ++l) {
        words[i][l] =
            codes[i] != nullptr && begin + l < n_lines ? codes[i][(begin + l) * kCodeLineWords] : 0;
      }
    }
#pragma unroll
    for (int l = 0; l < kLinesAtOnce; ++l) {
      if (begin + l >= n_lines) break;
#pragma unroll
      for (int s = 0; s < kParts; ++s) {
        const auto four = static_cast<int>(digits[(begin + l) * kParts + s]);
#pragma unroll
        for (int i = 0; i < kKeys; ++i) {
          const uint32_t word = words[i][l] >> (kBits * s) & kMask;
          if constexpr (kBits < 8) {
            sums[i] = __dp4a(static_cast<int>(word), four, sums[i]);
          } else {
            // The high bit, which would be a sign, counts 128.
            sums[i] = __dp4a(static_cast<int>(word & 0x7f7f7f7fu), four, sums[i]);
            sums[i] += 128 * __dp4a(static_cast<int>(word >> 7 & 0x01010101u), four, 0);
          }
        }
      }
    }
  }
}

}  // namespace fovea::compute::cuda
