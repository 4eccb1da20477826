// A device that ops run on: it owns threads (CPU) or streams, handles and workspaces (CUDA), and
// allocates the memory that ops take. Every op is a free function whose first argument is the
// Device and which dispatches on kind() to cpu/ or cuda/. Pointers given to an op point into
// memory of its device. A Device is used by one thread at a time; make one a thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "base/thread_pool.h"
#include "compute/memory_budget.h"

namespace fovea::compute {

enum class DeviceKind { kCpu, kCuda };

// What products of many rows with weights (compute/linear.h) are computed in. kInt8 rounds both
// factors to 8 bits, with scales; everything else stays float32.
enum class Precision { kFloat32, kInt8 };
std::string_view PrecisionName(Precision precision);  // "float32", "int8"

class Device;

// Memory of a device, 64-byte aligned, uninitialised; freed with the object. Movable.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();
  template <typename T>
  T* data() const {
    return static_cast<T*>(data_);
  }
  size_t size_bytes() const { return size_bytes_; }

 private:
  friend class Device;
  Buffer(Device* device, void* data, size_t size_bytes)
      : device_(device), data_(data), size_bytes_(size_bytes) {}
  Device* device_ = nullptr;
  void* data_ = nullptr;
  size_t size_bytes_ = 0;
};

class Device {
 public:
  // `spec`: "cpu" (later "cuda[:N]"); n_threads 0 = all processors of the process.
  // InvalidArgument for an unknown device, Unimplemented for one this build has no part for.
  // `precision`: "float32", "int8", or "auto": the faster one, by a short measurement on this
  // machine, made once a process. "float32" is exact throughout.
  static absl::StatusOr<std::unique_ptr<Device>> Create(std::string_view spec, int n_threads = 0,
                                                        std::string_view precision = "float32");
  virtual ~Device() = default;

  virtual DeviceKind kind() const = 0;
  // The CPU's team; on other devices the team for host-side work.
  virtual ThreadPool& threads() = 0;

  // Of weights that are created from now on.
  Precision precision() const { return precision_; }
  void set_precision(Precision precision) { precision_ = precision; }
  // Whether products of few rows with quantised weights are computed in float32, too, instead of
  // from activations that are rounded to 15 bits (compute/linear.h).
  bool is_exact() const { return is_exact_; }
  void set_exact(bool is_exact) { is_exact_ = is_exact; }

  // What copies of weights in a faster form (compute/linear.h) may take, 4 GiB until it is set.
  // Weights beyond it are converted again for each batch. Shared with the weights, which may
  // outlive the device.
  const std::shared_ptr<MemoryBudget>& packed_weights() const { return packed_weights_; }

  // ResourceExhausted when there is no memory. The Device must outlive its Buffers.
  absl::StatusOr<Buffer> Allocate(size_t size_bytes);
  // Makes `buffer` at least size_bytes large; the content is lost when it grows.
  absl::Status Reserve(size_t size_bytes, Buffer* buffer);

  // Copies between host and device memory; synchronous. On the CPU a memcpy.
  virtual absl::Status CopyFromHost(const void* host, size_t size_bytes, void* device) = 0;
  virtual absl::Status CopyToHost(const void* device, size_t size_bytes, void* host) = 0;

 protected:
  friend class Buffer;
  virtual absl::StatusOr<void*> AllocateRaw(size_t size_bytes) = 0;
  virtual void FreeRaw(void* data) = 0;

 private:
  Precision precision_ = Precision::kFloat32;
  bool is_exact_ = false;
  std::shared_ptr<MemoryBudget> packed_weights_ = std::make_shared<MemoryBudget>(size_t{4} << 30);
};

}  // namespace fovea::compute
