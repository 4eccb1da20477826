// Whole stored rows → floats or bfloat16 on the GPU: the embedding of tokens, and weights for
// matrix products, with their low-rank update merged in; and what goes before and after a product.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "compute/dtype.h"

namespace fovea::compute::cuda {

struct StoredRowsArgs {
  DType dtype = DType::kF32;
  const std::byte* rows = nullptr;  // stored one after another
  int64_t row_bytes = 0;
  int64_t n_values = 0;          // of a row
  const int32_t* ids = nullptr;  // [n_rows], on the device: which rows; null: the first n_rows
  int64_t n_rows = 0;
  // Row i gets + lora_scale · lora_b[i, :] · lora_a; null: nothing. Not with ids.
  const float* lora_a = nullptr;  // [lora_rank, n_values]
  const float* lora_b = nullptr;  // [n_rows, lora_rank]
  int64_t lora_rank = 0;
  float lora_scale = 0.0f;
  // [n_rows, n_values], float32 or bfloat16.
  void* out = nullptr;
  bool to_bf16 = false;
};
void LaunchStoredRows(const StoredRowsArgs& args, cudaStream_t stream);

// Where a product's rows go: out[row, 0 … n) = product + bias (+ out), rows out_stride floats
// apart.
struct StoreProductArgs {
  const float* product = nullptr;  // [n_rows, n]; null: out itself, and nothing is added twice
  int64_t n_rows = 0;
  int64_t n = 0;
  const float* bias = nullptr;  // [n] or null
  bool add_to_out = false;      // with a product
  float* out = nullptr;
  int64_t out_stride = 0;
};
void LaunchStoreProduct(const StoreProductArgs& args, cudaStream_t stream);

// to[0 … n) = from, rounded to nearest even.
void LaunchRound(const float* from, int64_t n, void* to_bf16, cudaStream_t stream);

}  // namespace fovea::compute::cuda
