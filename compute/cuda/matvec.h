// Products of stored weights with a few rows, in float32: a single-token step reads each stored
// byte once and computes with nothing else of the size of the weights.
#pragma once

#include <cstdint>
#include <span>

#include "base/status.h"
#include "compute/cuda/cuda_device.h"
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
  // Of the same shape and type, for one row, alone: out = silu(x·weightᵀ)·(x·up_weightᵀ).
  const std::byte* up_weight = nullptr;
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
// Before the products: x = RmsNorm(x), which the kernels compute for themselves.
struct MatVecNorm {
  const float* weight = nullptr;  // [in_features]; null: none
  float eps = 0.0f;
};
// Whether so many normed rows fit into a kernel.
inline bool CanNorm(int64_t n_rows, int64_t in_features) {
  constexpr int64_t kSharedBytes = 40 << 10;  // of every GPU's 48 KiB
  return n_rows * in_features * static_cast<int64_t>(sizeof(float)) <= kSharedBytes;
}

// Up to kMaxMatVecsTogether products of the same rows of x; those of one type in one kernel, since
// a step of a model consists of hundreds of kernels that each take longer to start than to run. A
// row's result depends on that row and its weights alone, bit for bit.
inline constexpr int kMaxMatVecsTogether = 4;
absl::Status LaunchMatVecs(CudaDevice& device, std::span<const MatVecArgs> products,
                           const MatVecNorm& norm = {});

}  // namespace fovea::compute::cuda
