// Memory that somebody owns: an allocator gives it and takes it back.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "base/status.h"

namespace fovea::compute {

// Gives memory of one kind: of a device, or of the host. Thread-safe.
class Allocator {
 public:
  virtual ~Allocator() = default;
  // 64-byte aligned, uninitialised. ResourceExhausted when there is no memory.
  virtual absl::StatusOr<void*> Allocate(size_t size_bytes) = 0;
  // What Allocate gave for this size, once nothing that was queued before uses it any more.
  virtual void Free(void* data, size_t size_bytes) = 0;
};

// Memory of an allocator, freed with the object; it keeps its allocator alive, so it may outlive
// the Device that it came from. Or memory that is borrowed from elsewhere. Movable.
class Buffer {
 public:
  Buffer() = default;
  static absl::StatusOr<Buffer> Allocate(std::shared_ptr<Allocator> allocator, size_t size_bytes) {
    ASSIGN_OR_RETURN(void* data, allocator->Allocate(size_bytes));
    return Buffer(std::move(allocator), data, size_bytes);
  }
  // Of memory that stays as it is for as long as the buffer is used; not to be written to.
  static Buffer Borrow(const void* data, size_t size_bytes) {
    return Buffer(nullptr, const_cast<void*>(data), size_bytes);
  }

  Buffer(Buffer&& other) noexcept
      : allocator_(std::move(other.allocator_)),
        data_(std::exchange(other.data_, nullptr)),
        size_bytes_(std::exchange(other.size_bytes_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    if (this != &other) {
      Free();
      allocator_ = std::move(other.allocator_);
      data_ = std::exchange(other.data_, nullptr);
      size_bytes_ = std::exchange(other.size_bytes_, 0);
    }
    return *this;
  }
  ~Buffer() { Free(); }

  template <typename T>
  T* data() const {
    return static_cast<T*>(data_);
  }
  size_t size_bytes() const { return size_bytes_; }

 private:
  Buffer(std::shared_ptr<Allocator> allocator, void* data, size_t size_bytes)
      : allocator_(std::move(allocator)), data_(data), size_bytes_(size_bytes) {}
  void Free() {
    if (allocator_ != nullptr && data_ != nullptr) allocator_->Free(data_, size_bytes_);
  }

  std::shared_ptr<Allocator> allocator_;  // null: borrowed
  void* data_ = nullptr;
  size_t size_bytes_ = 0;
};

}  // namespace fovea::compute
