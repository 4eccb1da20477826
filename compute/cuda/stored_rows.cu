#include "compute/cuda/elementwise.cuh"
#include "compute/cuda/stored_rows.h"
#include "compute/cuda/stored_values.cuh"

namespace fovea::compute::cuda {
namespace {

__device__ inline float Update(const StoredRowsArgs& args, int64_t row, int i) {
  float sum = 0.0f;
  const float* const b = args.lora_b + row * args.lora_rank;
  for (int64_t r = 0; r < args.lora_rank; ++r) sum += b[r] * args.lora_a[r * args.n_values + i];
  return args.lora_scale * sum;
}

template <typename To>
__device__ inline void Store(const StoredRowsArgs& args, int64_t row, int i, float value) {
  if (args.lora_a != nullptr) value += Update(args, row, i);
  static_cast<To*>(args.out)[row * args.n_values + i] = static_cast<To>(value);
}

// blockIdx.x: row; threads go through its chunks, or its values.
template <DType kType, bool kChunks, typename To>
__global__ void StoredRowsKernel(StoredRowsArgs args) {
  const int64_t row = blockIdx.x;
  const int64_t id = args.ids != nullptr ? args.ids[row] : row;
  const std::byte* const from = args.rows + id * args.row_bytes;
  if constexpr (kChunks) {
    for (int chunk = threadIdx.x; chunk < args.n_values / 8; chunk += blockDim.x) {
      const Chunk c = LoadChunk<kType>(from, chunk);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        Store<To>(args, row, c.first + i, c.values[i]);
        Store<To>(args, row, c.second + i, c.values[4 + i]);
      }
    }
  } else {
    for (int i = threadIdx.x; i < args.n_values; i += blockDim.x) {
      Store<To>(args, row, i, LoadPlain<kType>(from, i));
    }
  }
}

__global__ void RoundKernel(const float* from, int64_t n, __nv_bfloat16* to) {
  FOVEA_FOR_EACH_ELEMENT(i, n) to[i] = static_cast<__nv_bfloat16>(from[i]);
}

__global__ void StoreProductKernel(StoreProductArgs args) {
  FOVEA_FOR_EACH_ELEMENT(i, args.n_rows * args.n) {
    const int64_t column = i % args.n;
    float* const out = args.out + i / args.n * args.out_stride + column;
    float value = args.product != nullptr ? args.product[i] : *out;
    if (args.bias != nullptr) value += args.bias[column];
    if (args.product != nullptr && args.add_to_out) value += *out;
    *out = value;
  }
}

}  // namespace

void LaunchStoreProduct(const StoreProductArgs& args, cudaStream_t stream) {
  StoreProductKernel<<<ElementBlocks(args.n_rows * args.n), kElementThreads, 0, stream>>>(args);
}

void LaunchStoredRows(const StoredRowsArgs& args, cudaStream_t stream) {
  if (args.n_rows == 0) return;
  const auto blocks = static_cast<unsigned>(args.n_rows);
  VisitDType(args.dtype, [&]<DType kType>() {
    if (HasChunks(args.dtype, args.n_values, args.rows)) {
      if (args.to_bf16) {
        StoredRowsKernel<kType, true, __nv_bfloat16><<<blocks, 128, 0, stream>>>(args);
      } else {
        StoredRowsKernel<kType, true, float><<<blocks, 128, 0, stream>>>(args);
      }
    } else if constexpr (IsPlain(kType)) {
      if (args.to_bf16) {
        StoredRowsKernel<kType, false, __nv_bfloat16><<<blocks, 128, 0, stream>>>(args);
      } else {
        StoredRowsKernel<kType, false, float><<<blocks, 128, 0, stream>>>(args);
      }
    }
  });
}

void LaunchRound(const float* from, int64_t n, void* to_bf16, cudaStream_t stream) {
  RoundKernel<<<ElementBlocks(n), kElementThreads, 0, stream>>>(
      from, n, static_cast<__nv_bfloat16*>(to_bf16));
}

}  // namespace fovea::compute::cuda
