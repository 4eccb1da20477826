#include "compute/cpu/cpu_device.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace fovea::compute::cpu {
namespace {

// A cache line, and the widest vector: no vector access of a row that starts a buffer is split.
constexpr size_t kAlignment = 64;

// More than the address space of a process; nothing has to be asked for it.
constexpr size_t kMaxAllocationBytes = size_t{1} << 47;

class AlignedAllocator final : public Allocator {
 public:
  absl::StatusOr<void*> Allocate(size_t size_bytes) override {
    if (size_bytes <= kMaxAllocationBytes) {
      const size_t rounded = (size_bytes / kAlignment + 1) * kAlignment;
      if (void* data = std::aligned_alloc(kAlignment, rounded); data != nullptr) return data;
    }
    return absl::ResourceExhaustedError(
        StrCat("cpu: cannot allocate ", size_bytes,
               " bytes; close other programs, or use a smaller model or window"));
  }
  void Free(void* data) override { std::free(data); }
};

}  // namespace

std::shared_ptr<Allocator> HostAllocator() {
  static const std::shared_ptr<Allocator> allocator = std::make_shared<AlignedAllocator>();
  return allocator;
}

absl::Status CpuDevice::CopyFromHost(const void* host, size_t size_bytes, void* device) {
  if (size_bytes > 0) std::memcpy(device, host, size_bytes);
  return absl::OkStatus();
}

absl::Status CpuDevice::CopyToHost(const void* device, size_t size_bytes, void* host) {
  if (size_bytes > 0) std::memcpy(host, device, size_bytes);
  return absl::OkStatus();
}

absl::Status CpuDevice::Copy(const void* from, size_t size_bytes, void* to) {
  if (size_bytes > 0) std::memcpy(to, from, size_bytes);
  return absl::OkStatus();
}

absl::Status CpuDevice::Fill(float value, int64_t n, float* to) {
  std::fill_n(to, n, value);
  return absl::OkStatus();
}

absl::Status CpuDevice::ReserveThreadScratch(size_t size_bytes) {
  for (Buffer& buffer : thread_scratch_) RETURN_IF_ERROR(Reserve(size_bytes, &buffer));
  return absl::OkStatus();
}

absl::StatusOr<std::byte*> CpuDevice::SharedScratch(size_t size_bytes) {
  RETURN_IF_ERROR(Reserve(size_bytes, &shared_scratch_));
  return shared_scratch_.data<std::byte>();
}

}  // namespace fovea::compute::cpu
