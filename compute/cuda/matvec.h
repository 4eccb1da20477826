// Products of stored weights with a few rows, in float32: a single-token step reads each stored
// byte once and computes with nothing else of the size of the weights.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <span>

#include "compute/dtype.h"

namespace fovea::compute::cuda {

// Rows that one kernel multiplies with weights that it reads once.
inline constexpr int64_t kMaxMatVecRows = 8;

struct MatVecArgs {
  DType dtype = DType::kF32;
  const std::byte* weight = nullptr;  // [out_features, in_features], stored rows
  int64_t row_bytes = 0;
  int64_t in_features = 0;
  int64_t out_features = 0;
  const float* x = nullptr;  // [n_rows, in_features]
  int64_t n_rows = 0;        // 1 … kMaxMatVecRows
  const float* bias = nullptr;
  // + lora_scale · lora_u · lora_bᵀ; null: nothing.
  const float* lora_u = nullptr;  // [n_rows, lora_rank]
  const float* lora_b = nullptr;  // [out_features, lora_rank]
  int64_t lora_rank = 0;
  float lora_scale = 0.0f;
  bool add_to_out = false;
  float* out = nullptr;  // [n_rows, out_features]
};
// Up to kMaxMatVecsTogether products of as many rows; those of one type in one kernel, since a
// step of a model consists of hundreds of kernels that each take longer to start than to run. A
// row's result depends on that row and its weights alone, bit for bit.
inline constexpr int kMaxMatVecsTogether = 4;
void LaunchMatVecs(std::span<const MatVecArgs> products, cudaStream_t stream);

}  // namespace fovea::compute::cuda
