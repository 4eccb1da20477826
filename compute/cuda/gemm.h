// Matrix products of cuBLASLt, with what it takes to call it kept by shape.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <tuple>

#include "base/status.h"
#include "compute/buffer.h"
#include "compute/cuda/cublas_lt.h"
#include "compute/device.h"
#include "compute/dtype.h"

namespace fovea::compute::cuda {

// out [n_rows, n] = x [n_rows, k] · wᵀ (+ out), w [n, k]; all row-major without gaps, out float32,
// sums in float32. x and w: both float32, multiplied as such (no TF32), or both bfloat16.
struct GemmArgs {
  DType dtype = DType::kF32;
  const void* x = nullptr;
  const void* w = nullptr;
  int64_t n_rows = 0;
  int64_t n = 0;
  int64_t k = 0;
  bool add_to_out = false;
  float* out = nullptr;
};

// Not thread-safe; a CudaDevice owns one.
class GemmPlans {
 public:
  static absl::StatusOr<std::unique_ptr<GemmPlans>> Create();
  ~GemmPlans();
  GemmPlans(const GemmPlans&) = delete;
  GemmPlans& operator=(const GemmPlans&) = delete;

  // Queues the product. `device` is the one that owns this.
  absl::Status Run(Device& device, cudaStream_t stream, const GemmArgs& args);

 private:
  class Plan;
  // Type, shape, and the alignments of w, x and out in bytes, up to 16.
  using Key = std::tuple<DType, int64_t, int64_t, int64_t, int, int, int>;

  explicit GemmPlans(const CublasLt* library) : library_(*library) {}
  absl::StatusOr<std::shared_ptr<const Plan>> FindPlan(const GemmArgs& args);

  const CublasLt& library_;
  cublasLtHandle_t handle_ = nullptr;
  Buffer workspace_;
  std::map<Key, std::shared_ptr<const Plan>> plans_;
};

}  // namespace fovea::compute::cuda
