#include "compute/cpu/cpu_device.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace fovea::compute::cpu {
namespace {

// A cache line, and the widest vector: no vector access of a row that starts a buffer is split.
constexpr size_t kAlignment = 64;

// From here on memory is pages of its own, which the system has back as soon as it is freed. malloc
// keeps what is freed in the middle of what is used: after glibc has seen large pieces come back it
// takes those of up to 32 MiB from its arenas, one for each few threads. Local contexts that grow
// and go with the answers of 64 threads left those with 1.5 GB that nobody used.
constexpr size_t kLeastMappedBytes = size_t{128} << 10;

class HostMemory final : public Allocator {
 public:
  absl::StatusOr<void*> Allocate(size_t size_bytes) override {
    void* data = nullptr;
    if (size_bytes >= kLeastMappedBytes) {
      data = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (data == MAP_FAILED) data = nullptr;
    } else {
      data = std::aligned_alloc(kAlignment, (size_bytes / kAlignment + 1) * kAlignment);
    }
    if (data != nullptr) return data;
    return absl::ResourceExhaustedError(
        StrCat("cpu: cannot allocate ", size_bytes,
               " bytes; close other programs, or use a smaller model or window"));
  }
  void Free(void* data, size_t size_bytes) override {
    if (size_bytes >= kLeastMappedBytes) {
      munmap(data, size_bytes);
    } else {
      std::free(data);
    }
  }
};

}  // namespace

std::shared_ptr<Allocator> HostAllocator() {
  static const std::shared_ptr<Allocator> allocator = std::make_shared<HostMemory>();
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
