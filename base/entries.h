// Numbers of memory entries (keys and values) in the type that a memory keeps them in: bfloat16,
// or float32 for models that ask for it (LongLLaMA's mem_dtype). An owner and a pointer that carry
// the type with them, so that what stores, caches and scans entries is written once for both.
// Arithmetic is done in float: entries are converted where they are read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "base/float16.h"
#include "base/status.h"

namespace fovea {

enum class EntryType : uint8_t { kBFloat16, kFloat32 };

std::string_view EntryTypeName(EntryType type);  // "bfloat16", "float32"
size_t EntryBytes(EntryType type);               // of one number

// Points at entries that live elsewhere, as a `const T*` does. Null is of no type in particular.
class EntryPointer {
 public:
  EntryPointer() = default;
  EntryPointer(std::nullptr_t) {}                     // NOLINT(google-explicit-constructor)
  EntryPointer(const BFloat16* at) : address_(at) {}  // NOLINT(google-explicit-constructor)
  EntryPointer(const float* at)                       // NOLINT(google-explicit-constructor)
      : address_(at), type_(EntryType::kFloat32) {}

  EntryPointer(EntryType type, const void* address) : address_(address), type_(type) {}

  EntryType type() const { return type_; }
  const void* address() const { return address_; }
  // The pointer itself. T must be the type's.
  template <typename T>
  const T* As() const {
    FOVEA_CHECK(type_ == TypeOf<T>());
    return static_cast<const T*>(address_);
  }
  EntryPointer operator+(int64_t n) const {
    if (type_ == EntryType::kFloat32) return static_cast<const float*>(address_) + n;
    return static_cast<const BFloat16*>(address_) + n;
  }

 private:
  template <typename T>
  static constexpr EntryType TypeOf() {
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, BFloat16>);
    return std::is_same_v<T, float> ? EntryType::kFloat32 : EntryType::kBFloat16;
  }

  const void* address_ = nullptr;
  EntryType type_ = EntryType::kBFloat16;
};

// out[0 … n) = the n entries at `from`, exactly.
void EntriesToFloat(EntryPointer from, float* out, size_t n);

// A vector of entries of one type.
class EntryVector {
 public:
  EntryVector() = default;  // none, bfloat16
  // n zeros.
  EntryVector(EntryType type, size_t n);
  explicit EntryVector(std::vector<BFloat16> numbers) : numbers_(std::move(numbers)) {}
  explicit EntryVector(std::vector<float> numbers) : numbers_(std::move(numbers)) {}

  EntryType type() const { return static_cast<EntryType>(numbers_.index()); }
  size_t size() const {
    return std::visit([](const auto& numbers) { return numbers.size(); }, numbers_);
  }
  bool empty() const { return size() == 0; }
  size_t size_bytes() const { return size() * EntryBytes(type()); }
  EntryPointer data() const {
    return std::visit([](const auto& numbers) -> EntryPointer { return numbers.data(); }, numbers_);
  }
  // To be overwritten with numbers as they are stored.
  std::span<std::byte> bytes();

  float operator[](size_t i) const;
  // Entries begin … begin + n − 1 become those at `from`; float32 is rounded to nearest even where
  // these are bfloat16. begin + n ≤ size().
  void Set(size_t begin, EntryPointer from, size_t n);

 private:
  // In the order of EntryType.
  std::variant<std::vector<BFloat16>, std::vector<float>> numbers_;
};

}  // namespace fovea
