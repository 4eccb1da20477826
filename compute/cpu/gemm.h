// Products of float matrices with packed weights, through oneDNN, one thread a call: callers
// split rows over the threads of their device. The only user of oneDNN.
//
// Weights are packed once into the layout that oneDNN likes best (PackedBytes, Pack), then
// multiplied by plans. A plan is a compiled kernel for one shape; plans are kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/status.h"

namespace fovea::compute::cpu {

// out[rows, n] = x[rows, k]·Wᵀ. Rows lie close together: with any other stride oneDNN 2.6 falls
// back to its reference loops, which are a hundred times slower.
struct GemmShape {
  int64_t rows = 0;
  int64_t n = 0;
  int64_t k = 0;
  auto operator<=>(const GemmShape&) const = default;
};

// Immutable; Run is thread-safe with a scratch a thread.
class GemmPlan {
 public:
  virtual ~GemmPlan() = default;
  virtual size_t scratch_bytes() const = 0;
  // `packed` as Pack made it for (n, k). packed and scratch are 64-byte aligned.
  virtual absl::Status Run(const float* x, const std::byte* packed, std::byte* scratch,
                           float* out) const = 0;
};

// Makes plans and keeps them. Not thread-safe, but for Pack; a CpuDevice owns one.
class GemmPlans {
 public:
  GemmPlans();
  ~GemmPlans();

  absl::StatusOr<std::shared_ptr<const GemmPlan>> Find(const GemmShape& shape);

  // The layout depends on (n, k) alone, not on who packed.
  absl::StatusOr<size_t> PackedBytes(int64_t n, int64_t k);
  // weight [n, k] → packed, 64-byte aligned. Thread-safe once PackedBytes(n, k) was called.
  absl::Status Pack(int64_t n, int64_t k, const float* weight, std::byte* packed) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fovea::compute::cpu
