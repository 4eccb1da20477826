#include "compute/device.h"

#include <utility>

#include "compute/cpu/cpu_device.h"

namespace fovea::compute {

Buffer::Buffer(Buffer&& other) noexcept
    : device_(std::exchange(other.device_, nullptr)),
      data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    if (data_ != nullptr) device_->FreeRaw(data_);
    device_ = std::exchange(other.device_, nullptr);
    data_ = std::exchange(other.data_, nullptr);
    size_bytes_ = std::exchange(other.size_bytes_, 0);
  }
  return *this;
}

Buffer::~Buffer() {
  if (data_ != nullptr) device_->FreeRaw(data_);
}

absl::StatusOr<std::unique_ptr<Device>> Device::Create(std::string_view spec, int n_threads) {
  if (n_threads < 0) {
    return absl::InvalidArgumentError(
        StrCat("number of threads: ", n_threads, ", want at least 1, or 0 for all processors"));
  }
  if (spec == "cpu") {
    return std::make_unique<cpu::CpuDevice>(n_threads > 0 ? n_threads : NumProcessors());
  }
  if (spec == "cuda" || spec.starts_with("cuda:")) {
    return absl::UnimplementedError(
        StrCat("device '", spec, "': this build has no CUDA part; use 'cpu'"));
  }
  return absl::InvalidArgumentError(StrCat("device '", spec, "': unknown; use 'cpu'"));
}

absl::StatusOr<Buffer> Device::Allocate(size_t size_bytes) {
  ASSIGN_OR_RETURN(void* data, AllocateRaw(size_bytes));
  return Buffer(this, data, size_bytes);
}

absl::Status Device::Reserve(size_t size_bytes, Buffer* buffer) {
  if (buffer->data_ != nullptr && buffer->size_bytes_ >= size_bytes) return absl::OkStatus();
  *buffer = Buffer();  // first, so that old and new need not fit together
  ASSIGN_OR_RETURN(*buffer, Allocate(size_bytes));
  return absl::OkStatus();
}

}  // namespace fovea::compute
