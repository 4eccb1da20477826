// Vectors as integers, for products with block-quantised weights: each block of 32 values is a
// scale times integers of 15 bits, kept as two digits of 8 bits, so that byte products suffice.
//
// value[i] ≈ scale · (128·high[i] + low[i]),  |128·high + low| ≤ 127·128,  −64 ≤ low < 64
//
// Rounding errs by at most 2⁻¹⁵ of the largest value of the block. One digit (8 bits) would be
// about as fast where the memory's bandwidth limits, and err by 2⁻⁸, visibly in the logits.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fovea::compute::cpu {

inline constexpr int64_t kQuantizedBlock = 32;

// A view of memory of QuantizedVectorsBytes.
struct QuantizedVectors {
  int64_t n_tokens = 0;
  int64_t n_values = 0;      // of a vector; whole blocks
  int64_t block_stride = 0;  // n_values / 32, rounded up to whole SIMD vectors (padded with zeros)
  int8_t* high = nullptr;    // [n_tokens, n_values]
  int8_t* low = nullptr;     // [n_tokens, n_values]
  // [n_tokens, n_values / 4]: the four numbers of each 16 values add up to the sum of their
  // 128·high + low.
  int32_t* sums = nullptr;
  float* scales = nullptr;        // [n_tokens, block_stride]
  float* totals = nullptr;        // [n_tokens, block_stride]: scale · sum of the block
  int32_t* block_sums = nullptr;  // [n_tokens, block_stride]: sum of a block's 128·high + low
  // [n_tokens, block_stride, 8]: each scale eight times, for the lanes that a block's products
  // fill.
  float* lane_scales = nullptr;
};

// What lies 64 bytes behind the last digit or sum may be read.

size_t QuantizedVectorsBytes(int64_t n_tokens, int64_t n_values);

// The view of `memory`, of QuantizedVectorsBytes, 64-byte aligned, with any content.
QuantizedVectors PlaceQuantizedVectors(int64_t n_tokens, int64_t n_values, std::byte* memory);

// x [n_values] → vector `token` of `to`. Values that are not finite give products that are not
// finite. Different vectors may be made by different threads.
void QuantizeVector(const float* x, int64_t token, const QuantizedVectors& to);

}  // namespace fovea::compute::cpu
