// Memory in huge pages, for data that is read in full again and again, in order: weights, codes of
// keys. Through the 4 KiB pages of a mapped file a core gets two thirds of the memory's bandwidth
// or less: the processor's prefetching stops at the end of each page, and each costs a look into
// the page table.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

namespace fovea {

// Grows only; everything is freed with it. Thread-safe.
class HugePages {
 public:
  explicit HugePages(size_t limit_bytes) : limit_bytes_(limit_bytes) {}
  ~HugePages();
  HugePages(const HugePages&) = delete;
  HugePages& operator=(const HugePages&) = delete;

  // size_bytes of zeros at a 64-byte boundary; null beyond the limit, and when there is no memory.
  // Where the system has no huge pages these are ordinary ones.
  std::byte* Allocate(size_t size_bytes);

 private:
  struct Mapping {
    void* data;
    size_t size_bytes;
  };
  const size_t limit_bytes_;
  std::mutex mutex_;
  size_t used_bytes_ = 0;
  std::vector<Mapping> mappings_;
  std::byte* free_ = nullptr;  // what is left of the last mapping
  size_t free_bytes_ = 0;
};

}  // namespace fovea
