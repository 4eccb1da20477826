#include "base/huge_pages.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>

namespace fovea {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
// Of one mapping. Only what is touched takes memory.
constexpr size_t kMappingBytes = 32 * kHugePage;

size_t RoundUp(size_t size, size_t multiple) { return (size + multiple - 1) / multiple * multiple; }

}  // namespace

HugePages::~HugePages() {
  for (const Mapping& mapping : mappings_) munmap(mapping.data, mapping.size_bytes);
}

std::byte* HugePages::Allocate(size_t size_bytes) {
  if (size_bytes > limit_bytes_) return nullptr;  // also what rounding could overflow
  size_bytes = RoundUp(size_bytes, 64);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (used_bytes_ + size_bytes > limit_bytes_) return nullptr;
  if (size_bytes > free_bytes_) {
    // One huge page more, to begin at the boundary of one.
    const size_t wanted = std::max(RoundUp(size_bytes, kHugePage), kMappingBytes);
    void* const data = mmap(nullptr, wanted + kHugePage, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) return nullptr;
    mappings_.push_back({data, wanted + kHugePage});
    const size_t before =
        RoundUp(reinterpret_cast<uintptr_t>(data), kHugePage) - reinterpret_cast<uintptr_t>(data);
    free_ = static_cast<std::byte*>(data) + before;
    free_bytes_ = wanted;
#ifdef MADV_HUGEPAGE
    madvise(free_, free_bytes_, MADV_HUGEPAGE);  // a system without them says so; all else works
#endif
  }
  std::byte* const result = free_;
  free_ += size_bytes;
  free_bytes_ -= size_bytes;
  used_bytes_ += size_bytes;
  return result;
}

}  // namespace fovea
