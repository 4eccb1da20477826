// Products of stored weight rows with a few vectors: what a single-token step is made of. Bound by
// how fast the weights can be read. Plain weights are multiplied as floats; quantised ones as
// integers, with vectors that were rounded to 15 bits (compute/cpu/quantized_vectors.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "compute/cpu/quantized_vectors.h"
#include "compute/dtype.h"

namespace fovea::compute::cpu {

// Vectors that one pass over the weights serves; more are served by further passes.
inline constexpr int64_t kMatVecTokensPerPass = 4;

struct MatVecArgs {
  DType dtype = DType::kF32;
  const std::byte* weight = nullptr;  // [out_features, in_features], stored rows
  size_t row_bytes = 0;
  int64_t in_features = 0;
  const float* x = nullptr;                     // [n_tokens, in_features]
  const QuantizedVectors* quantized = nullptr;  // the same, for quantised types: instead of x;
                                                // null: they are dequantised, row by row
  int64_t n_tokens = 0;
  const float* bias = nullptr;        // [out_features] or null
  const std::byte* lora_b = nullptr;  // [out_features, lora_rank] or null
  DType lora_dtype = DType::kF32;     // of lora_b: F32 or BF16
  const float* lora_u = nullptr;      // [n_tokens, lora_rank]: lora_scale · A·x
  int64_t lora_rank = 0;
  bool add_to_out = false;
  float* out = nullptr;  // [n_tokens, out_features]
  int64_t out_features = 0;
};

// Rows [begin, end) of the product; different rows may be computed by different threads. The
// result of a row for a vector depends neither on the range nor on the other vectors.
void MatVecRows(const MatVecArgs& args, int64_t begin, int64_t end);

}  // namespace fovea::compute::cpu
