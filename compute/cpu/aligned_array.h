// Floats or bytes at a 64-byte boundary, for data that outlives the device that made it.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>

namespace fovea::compute::cpu {

struct FreeDeleter {
  void operator()(void* data) const { std::free(data); }
};
using AlignedBytes = std::unique_ptr<std::byte[], FreeDeleter>;

// `size_bytes` rounded up to whole cache lines; null when there is no memory.
inline AlignedBytes AllocateAligned(size_t size_bytes) {
  const size_t rounded = (size_bytes / 64 + 1) * 64;
  return AlignedBytes(static_cast<std::byte*>(std::aligned_alloc(64, rounded)));
}

}  // namespace fovea::compute::cpu
