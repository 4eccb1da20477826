// A limit on the memory that a kind of data may take, shared by all who allocate it.
#pragma once

#include <atomic>
#include <cstddef>

namespace fovea::compute {

// Thread-safe. Reserving is all or nothing; who reserved releases the same number of bytes.
class MemoryBudget {
 public:
  explicit MemoryBudget(size_t limit_bytes) : limit_bytes_(limit_bytes) {}

  bool TryReserve(size_t size_bytes) {
    size_t used = used_bytes_.load(std::memory_order_relaxed);
    do {
      const size_t limit = limit_bytes_.load(std::memory_order_relaxed);
      if (used > limit || size_bytes > limit - used) return false;
    } while (!used_bytes_.compare_exchange_weak(used, used + size_bytes));
    return true;
  }
  void Release(size_t size_bytes) { used_bytes_.fetch_sub(size_bytes); }

  // Does not take back what was reserved before.
  void set_limit_bytes(size_t limit_bytes) { limit_bytes_.store(limit_bytes); }
  size_t limit_bytes() const { return limit_bytes_.load(); }
  size_t used_bytes() const { return used_bytes_.load(); }

 private:
  std::atomic<size_t> limit_bytes_;
  std::atomic<size_t> used_bytes_{0};
};

}  // namespace fovea::compute
